#!/usr/bin/python
# SPDX-License-Identifier: Apache-2.0 OR GPL-3.0-or-later
# Apache-2.0, or at your option the GNU General Public License v3.0+ (https://www.gnu.org/licenses/gpl-3.0.txt)
"""Read what a host has of Kubernetes, in one round trip."""

from __future__ import annotations

DOCUMENTATION = r"""
module: kubernetes_info
short_description: Read what a host has of Kubernetes, in one round trip
version_added: 0.1.0
description:
  - Packages and holds, containerd and its configuration, kernel modules and values, swap, ports, the resolver, and
    whether the host belongs to a cluster. Changes nothing and returns no secret.
author:
  - gpufleet.metal contributors (@gpufleet)
options:
  packages:
    description:
      - Packages whose version and hold are read.
    type: list
    elements: str
    default: []
  kernel_modules:
    description:
      - Kernel modules to look for.
    type: list
    elements: str
    default: []
  sysctls:
    description:
      - Kernel values to read.
    type: list
    elements: str
    default: []
  resolv_conf:
    description:
      - File with name servers that kubelet is told. Without it the one that kubeadm would take.
    type: path
  version:
    description:
      - Version of Kubernetes whose sandbox image is asked for, where kubeadm is installed.
    type: str
    required: true
  image_repository:
    description:
      - Where the images come from.
    type: str
    default: registry.k8s.io
  node_name:
    description:
      - The node's name. With O(thorough) the cluster is asked for it.
    type: str
    required: true
  thorough:
    description:
      - Whether to ask kubelet, the API server and the cluster, and to look at modes and certificates.
    type: bool
    default: false
attributes:
  check_mode:
    description: Never changes anything.
    support: full
  diff_mode:
    description: There is nothing to show.
    support: none
"""

EXAMPLES = r"""
- name: Read what the host has of Kubernetes
  gpufleet.metal.kubernetes_info:
    version: 1.36.4
    node_name: node-1
    packages: [kubelet, kubeadm, kubectl]
  register: kubernetes
"""

RETURN = r"""
state:
  description:
    - What was read. C(member) is null where the host belongs to no cluster, C(unfinished) says which of init and join
      was interrupted, C(upgrade) which upgrade, C(renewing) whether a renewal of certificates, C(pause_image) is null
      where there is no kubeadm or where it names none, and C(pause_image_fault) is what it says then.
  type: dict
  returned: success
"""

import datetime
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.gpufleet.metal.plugins.module_utils._commands import runner
from ansible_collections.gpufleet.metal.plugins.module_utils._errors import FleetError
from ansible_collections.gpufleet.metal.plugins.module_utils._kubernetes import host as hosts


def argument_spec() -> dict[str, Any]:
    """The module's options, as in DOCUMENTATION."""
    return {
        "packages": {"type": "list", "elements": "str", "default": []},
        "kernel_modules": {"type": "list", "elements": "str", "default": []},
        "sysctls": {"type": "list", "elements": "str", "default": []},
        "resolv_conf": {"type": "path"},
        "version": {"type": "str", "required": True},
        "image_repository": {"type": "str", "default": "registry.k8s.io"},
        "node_name": {"type": "str", "required": True},
        "thorough": {"type": "bool", "default": False},
    }


def read(host: hosts.Host, options: dict[str, Any]) -> dict[str, Any]:
    """Return the module's result."""
    units = host.units("containerd.service", "kubelet.service", "docker.service")
    kubelet = units.get("kubelet", {})
    pause_image, said = host.pause_image(options["version"], options["image_repository"])
    state: dict[str, Any] = {
        "packages": host.packages(options["packages"]),
        "modules": host.modules(options["kernel_modules"]),
        "sysctls": host.sysctls(options["sysctls"]),
        "swap": host.swap(),
        "listeners": host.listeners(),
        "default_routes": host.default_routes(),
        "resolver": host.resolver(options["resolv_conf"]),
        "containerd": host.containerd(units.get("containerd", {})),
        "docker_engine": units.get("docker", {}).get("ActiveState") == "active",
        "cgroup_version": host.cgroup_version(),
        "member": host.member(),
        "unfinished": host.unfinished(),
        "upgrade": host.upgrade_mark(),
        "renewing": host.text(hosts.RENEWAL_MARK) is not None,
        "pause_image": pause_image,
        "pause_image_fault": said,
        "cluster_configuration": host.text("etc/kubernetes/gpufleet/kubeadm.yaml"),
        "kubelet": {
            "active": kubelet.get("ActiveState") == "active",
            "enabled": kubelet.get("UnitFileState") == "enabled",
            "cgroup_driver": host.kubelet_cgroup_driver(),
        },
    }
    if options["thorough"]:
        member = state["member"]
        state["kubelet"]["healthz"] = hosts.get(10248, "/healthz")
        state["node"] = host.node(options["node_name"]) if member else None
        state["readyz"] = host.readyz() if member and member["role"] == "control_plane" else None
        state["manifests"] = host.manifests()
        state["modes"] = host.modes()
        state["certificate_days"] = host.certificate_days(datetime.datetime.now(tz=datetime.timezone.utc))
        state["leftover_secrets"] = host.leftover_secrets()
    return {"changed": False, "state": state}


def main() -> None:
    """Run as an Ansible module."""
    module = AnsibleModule(argument_spec=argument_spec(), supports_check_mode=True)
    try:
        result = read(hosts.Host(runner(module)), module.params)
    except FleetError as error:
        module.fail_json(msg=f"the host's Kubernetes cannot be read: {error}")
    else:
        module.exit_json(**result)


if __name__ == "__main__":
    main()
