#!/usr/bin/python
# SPDX-License-Identifier: Apache-2.0 OR GPL-3.0-or-later
# Apache-2.0, or at your option the GNU General Public License v3.0+ (https://www.gnu.org/licenses/gpl-3.0.txt)
"""Read a cluster as a whole, on one of its control planes."""

from __future__ import annotations

DOCUMENTATION = r"""
module: kubernetes_cluster_info
short_description: Read a cluster as a whole, on one of its control planes
version_added: 0.1.0
description:
  - What an upgrade has to know before and between its hosts. Asked once, on any control plane whose API server
    answers, by
    C(kubectl) with the administrator's credentials, and of etcd by its JSON interface with the API server's
    certificate.
author:
  - gpufleet.metal contributors (@gpufleet)
attributes:
  check_mode:
    description: Never changes anything.
    support: full
  diff_mode:
    description: There is nothing to show.
    support: none
"""

EXAMPLES = r"""
- name: Read the cluster
  gpufleet.metal.kubernetes_cluster_info:
  register: cluster
"""

RETURN = r"""
cluster:
  description:
    - C(version) that kubeadm has written down, C(nodes) with the kubelet's version, readiness and address, C(planes)
      with
      version and readiness of each static Pod, C(readyz) of each API server, the C(members) and C(alarms) of C(etcd),
      and
      C(requested_apis), those deprecated APIs that somebody has asked for since the API servers started.
  type: dict
  returned: success
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.gpufleet.metal.plugins.module_utils._commands import runner
from ansible_collections.gpufleet.metal.plugins.module_utils._errors import FleetError
from ansible_collections.gpufleet.metal.plugins.module_utils._kubernetes.host import Host
from ansible_collections.gpufleet.metal.plugins.module_utils._kubernetes.life import ClusterReader


def main() -> None:
    """Run as an Ansible module."""
    module = AnsibleModule(argument_spec={}, supports_check_mode=True)
    try:
        cluster = ClusterReader(Host(runner(module))).read()
    except FleetError as error:
        module.fail_json(msg=f"the cluster cannot be read: {error}")
    else:
        module.exit_json(changed=False, cluster=cluster)


if __name__ == "__main__":
    main()
