#!/usr/bin/python
# SPDX-License-Identifier: Apache-2.0 OR GPL-3.0-or-later
# Apache-2.0, or at your option the GNU General Public License v3.0+ (https://www.gnu.org/licenses/gpl-3.0.txt)
"""Upgrade one host of a cluster, a step at a time."""

from __future__ import annotations

DOCUMENTATION = r"""
module: kubernetes_upgrade
short_description: Upgrade one host of a cluster, a step at a time
version_added: 0.1.0
description:
  - The steps of an upgrade that are kubeadm's and kubelet's; packages are replaced between them.
  - What has begun is written down on the host, so that the next run finds it and goes on.
author:
  - gpufleet.metal contributors (@gpufleet)
options:
  action:
    description:
      - V(begin) writes down that the upgrade begins, and whether the node took pods before it.
      - V(kubeadm) runs C(kubeadm upgrade plan) and C(kubeadm upgrade apply) on the first control plane, which is the
        one
        that finds the cluster's configuration at another version, and C(kubeadm upgrade node) on every other host.
      - V(kubelet) restarts kubelet and waits until the node is ready with the new version.
      - V(end) forgets that the upgrade began.
    type: str
    choices: [begin, kubeadm, kubelet, end]
    required: true
  version:
    description:
      - The version that is to be.
    type: str
    required: true
  node_name:
    description:
      - The node's name.
    type: str
    required: true
  deadline_seconds:
    description:
      - How long the node may take to be ready with the new version.
    type: int
    default: 300
  cgroup_v1_allowed:
    description:
      - Whether kubeadm is told to ignore its check SystemVerification, which refuses hosts with cgroup v1.
    type: bool
    default: false
attributes:
  check_mode:
    description: Says what it would do.
    support: full
  diff_mode:
    description: There is nothing to show.
    support: none
"""

EXAMPLES = r"""
- name: Upgrade what kubeadm manages on this host
  gpufleet.metal.kubernetes_upgrade:
    action: kubeadm
    version: 1.36.4
    node_name: node-1
"""

RETURN = r"""
done:
  description: What was done.
  type: list
  elements: str
  returned: success
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.gpufleet.metal.plugins.module_utils._commands import runner
from ansible_collections.gpufleet.metal.plugins.module_utils._errors import FleetError
from ansible_collections.gpufleet.metal.plugins.module_utils._kubernetes.host import Host
from ansible_collections.gpufleet.metal.plugins.module_utils._kubernetes.life import Upgrade


def argument_spec() -> dict[str, Any]:
    """The module's options, as in DOCUMENTATION."""
    return {
        "action": {"type": "str", "choices": ["begin", "kubeadm", "kubelet", "end"], "required": True},
        "version": {"type": "str", "required": True},
        "node_name": {"type": "str", "required": True},
        "deadline_seconds": {"type": "int", "default": 300},
        "cgroup_v1_allowed": {"type": "bool", "default": False},
    }


def change(upgrade: Upgrade, action: str, check_mode: bool) -> dict[str, Any]:
    """Do what is asked for; returns the module's result."""
    if check_mode:
        return {"changed": True, "done": [f"would do the step {action}"]}
    if action == "begin":
        done = ["began"] if upgrade.begin() else []
    elif action == "kubeadm":
        done = [upgrade.kubeadm()]
    elif action == "kubelet":
        upgrade.kubelet()
        done = ["restarted kubelet"]
    else:
        done = ["ended"] if upgrade.end() else []
    return {"changed": bool(done), "done": done}


def main() -> None:
    """Run as an Ansible module."""
    module = AnsibleModule(argument_spec=argument_spec(), supports_check_mode=True)
    told = module.params
    upgrade = Upgrade(
        Host(runner(module)),
        told["node_name"],
        told["version"],
        told["deadline_seconds"],
        told["cgroup_v1_allowed"],
    )
    try:
        result = change(upgrade, told["action"], module.check_mode)
    except FleetError as error:
        module.fail_json(msg=str(error))
    else:
        module.exit_json(**result)


if __name__ == "__main__":
    main()
