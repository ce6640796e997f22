# SPDX-License-Identifier: Apache-2.0
"""Filter shell over module_utils/_kubernetes/flannel.py."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ansible_collections.gpufleet.metal.plugins.module_utils._kubernetes.flannel import flannel_objects
from ansible_collections.gpufleet.metal.plugins.plugin_utils._filters import as_filter
from ansible_collections.gpufleet.metal.plugins.plugin_utils._plain import plain

DOCUMENTATION = r"""
name: flannel_objects
short_description: Set a cluster's network in Flannel's own manifest
version_added: 0.1.0
description:
  - Sets the pod network, the backend, the MTU, nftables and the images with their digests in the manifest that the
    Flannel project publishes.
  - Refuses a manifest that does not look as expected at the places that it would change, or that has further objects.
author:
  - gpufleet.metal contributors (@gpufleet)
positional: _input
options:
  _input:
    description: The documents of C(kube-flannel.yml).
    type: list
    elements: dict
    required: true
  images:
    description: The images C(flannel) and C(flannel-cni-plugin), each with its digest.
    type: dict
    required: true
  network:
    description: The pod network, an IPv4 network.
    type: str
    required: true
  backend:
    description: How packets reach other nodes.
    type: str
    choices: [vxlan, host-gw]
    default: vxlan
  mtu:
    description: The MTU of VXLAN's interface. Flannel takes the node's, less what VXLAN costs, if this is not given.
    type: int
  nftables:
    description: Whether Flannel uses nftables, as it must where kube-proxy does.
    type: bool
    default: true
"""

EXAMPLES = r"""
- name: Set the cluster's network
  ansible.builtin.set_fact:
    __objects: >-
      {{ lookup('ansible.builtin.file', 'kube-flannel.yml') | from_yaml_all
         | gpufleet.metal.flannel_objects(images=flannel_images, network='10.244.0.0/16') }}
"""

RETURN = r"""
_value:
  description: The manifest's objects with the cluster's settings.
  type: list
  elements: dict
"""


def _objects(manifest: Any, **options: Any) -> list[dict[str, Any]]:
    # YAML's documents come one by one.
    return flannel_objects(plain(list(manifest)), **plain(options))


class FilterModule:
    """What Ansible loads."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return the filters of this file."""
        return {"flannel_objects": as_filter(_objects)}
