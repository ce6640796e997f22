# SPDX-License-Identifier: Apache-2.0
"""The address pools of a running engine, in the words of its configuration."""

from __future__ import annotations

DOCUMENTATION = r"""
name: docker_address_pools
short_description: Read a running Docker engine's address pools as daemon.json writes them
version_added: "0.1.0"
author: GPUFleet contributors (@gpufleet)
description:
  - Takes what C(docker info --format '{{json .}}') prints and returns the pools with the keys of
    C(default-address-pools), so that they compare with a configuration. The engine writes these keys with capital
    letters.
options:
  _input:
    description: The state of the engine.
    type: dict
    required: true
"""

EXAMPLES = r"""
- name: Show the pools of a running engine
  ansible.builtin.debug:
    msg: "{{ {'DefaultAddressPools': [{'Base': '172.17.0.0/16', 'Size': 24}]} | gpufleet.metal.docker_address_pools }}"
    # [{'base': '172.17.0.0/16', 'size': 24}]
"""

RETURN = r"""
_value:
  description: The pools in the engine's order; empty where it has only those that are built in.
  type: list
  elements: dict
"""

from collections.abc import Callable, Mapping
from typing import Any

from ansible.errors import AnsibleFilterError

from ansible_collections.gpufleet.metal.plugins.module_utils import _docker_daemon


def docker_address_pools(info: Mapping[str, Any]) -> list[dict[str, Any]]:
    """See the documentation above."""
    if not isinstance(info, Mapping):
        raise AnsibleFilterError(f"wanted what docker info prints as JSON, found {info!r}")
    return _docker_daemon.address_pools(info)


class FilterModule:
    """What Ansible asks for the filters of this file."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """The filters by name."""
        return {"docker_address_pools": docker_address_pools}
