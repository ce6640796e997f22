# SPDX-License-Identifier: Apache-2.0
"""Networks that share addresses with reserved ones."""

from __future__ import annotations

DOCUMENTATION = r"""
name: network_overlaps
short_description: List the networks that share addresses with reserved ones
version_added: "0.1.0"
author: GPUFleet contributors (@gpufleet)
description:
  - Compares every network with every reserved one and returns the pairs that overlap, each as a sentence.
options:
  _input:
    description: Networks that are to be used.
    type: list
    elements: str
    required: true
  reserved:
    description: Networks that are somebody else's.
    type: list
    elements: str
    required: true
positional: reserved
"""

EXAMPLES = r"""
- name: Show which address pools collide with the pod network
  ansible.builtin.debug:
    msg: "{{ ['172.17.0.0/16', '10.244.8.0/24'] | gpufleet.metal.network_overlaps(['10.244.0.0/16']) }}"
    # ['10.244.8.0/24 overlaps 10.244.0.0/16']
"""

RETURN = r"""
_value:
  description: The pairs, empty if nothing overlaps.
  type: list
  elements: str
"""

from collections.abc import Callable, Sequence
from typing import Any

from ansible.errors import AnsibleFilterError

from ansible_collections.gpufleet.metal.plugins.module_utils import _docker_daemon
from ansible_collections.gpufleet.metal.plugins.module_utils._errors import FleetError


def network_overlaps(networks: Sequence[Any], reserved: Sequence[Any]) -> list[str]:
    """See the documentation above."""
    for value in (networks, reserved):
        if isinstance(value, str) or not isinstance(value, Sequence):
            raise AnsibleFilterError(f"wanted a list of networks, found {value!r}")
    try:
        return _docker_daemon.overlaps(networks, reserved)
    except FleetError as fault:
        raise AnsibleFilterError(str(fault)) from fault


class FilterModule:
    """Ansible's way to find the filter."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Name and function."""
        return {"network_overlaps": network_overlaps}
