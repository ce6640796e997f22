# SPDX-License-Identifier: Apache-2.0
"""Filter shell over module_utils/_plan/reachability.py."""

from __future__ import annotations

from typing import Any

from ansible_collections.gpufleet.metal.plugins.module_utils._plan.reachability import reachability_targets

DOCUMENTATION = r"""
name: reachability_targets
short_description: List what a host must and must not be able to reach, from the plan's flows
version_added: 0.1.0
description:
  - Every planned TCP port of another host, with what the firewall must make of it when the address of this host tries
    it, and one port that the plan does not name. A gateway looks at all other hosts, any other host at the four after
    it in name order.
  - Of an engine that only runs while requests wait, those who may reach it need not find the port open.
author:
  - gpufleet.metal contributors (@gpufleet)
positional: host
options:
  _input:
    description: The fleet's plan.
    type: dict
    required: true
  host:
    description: The inventory name of the host that tries.
    type: str
    required: true
"""

EXAMPLES = r"""
- name: Try the plan's flows
  gpufleet.metal.connectivity_info:
    targets: "{{ fleet_plan | gpufleet.metal.reachability_targets(inventory_hostname) }}"
"""

RETURN = r"""
_value:
  description: Targets of M(gpufleet.metal.connectivity_info), with V(expect) set.
  type: list
  elements: dict
"""


class FilterModule:
    """Ansible's entry point for filters."""

    def filters(self) -> dict[str, Any]:
        """The filters of this file by name."""
        return {"reachability_targets": reachability_targets}
