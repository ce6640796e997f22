# SPDX-License-Identifier: Apache-2.0
"""Addresses and networks of one address family, as nftables reads them."""

from __future__ import annotations

DOCUMENTATION = r"""
name: networks_of_family
short_description: Pick addresses and networks of one address family, merged and sorted
version_added: "0.1.0"
author: GPUFleet contributors (@gpufleet)
description:
  - Takes addresses and networks of both families and returns those of one, merged where they overlap or touch, sorted.
  - An entry that is neither an address nor a network, or a network with host bits set, is an error that repeats it.
options:
  _input:
    description: Addresses and networks.
    type: list
    elements: str
    required: true
  family:
    description: The address family.
    type: int
    choices: [4, 6]
    required: true
positional: family
"""

EXAMPLES = r"""
- name: Show the IPv4 part of a set
  ansible.builtin.debug:
    msg: "{{ ['192.0.2.0/25', '192.0.2.128/25', '2001:db8::1'] | gpufleet.metal.networks_of_family(4) }}"
    # ['192.0.2.0/24']
"""

RETURN = r"""
_value:
  description: The members of the family; a single address has no prefix length.
  type: list
  elements: str
"""

from collections.abc import Callable, Sequence
from typing import Any

from ansible.errors import AnsibleFilterError

from ansible_collections.gpufleet.metal.plugins.module_utils import _nft
from ansible_collections.gpufleet.metal.plugins.module_utils._errors import FleetError


def networks_of_family(members: Sequence[Any], family: int) -> list[str]:
    """See the documentation above."""
    if isinstance(members, str) or not isinstance(members, Sequence):
        raise AnsibleFilterError(f"wanted a list of addresses and networks, found {members!r}")
    try:
        return _nft.networks_of_family(members, int(family))
    except FleetError as fault:
        raise AnsibleFilterError(str(fault)) from fault


class FilterModule:
    """What Ansible asks for the filters of this file."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """The filters by name."""
        return {"networks_of_family": networks_of_family}
