# SPDX-License-Identifier: Apache-2.0
"""Filter shell over module_utils/_plan/halves.py."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ansible_collections.gpufleet.metal.plugins.module_utils._plan.halves import upstream_halves
from ansible_collections.gpufleet.metal.plugins.plugin_utils._filters import as_filter

DOCUMENTATION = r"""
name: upstream_halves
short_description: Divide the hosts that serve models into two halves, each of which serves all of them
version_added: 0.1.0
description:
  - For a change in which hosts that are changed and hosts that are not can't serve a model at a time.
  - Fails and names the models that run on one host only.
author:
  - gpufleet.metal contributors (@gpufleet)
positional: _input
options:
  _input:
    description: The upstreams of the plan.
    type: list
    elements: dict
    required: true
"""

EXAMPLES = r"""
- name: Show which hosts come first
  ansible.builtin.debug:
    msg: "{{ (fleet_plan.upstreams | gpufleet.metal.upstream_halves) | first }}"
"""

RETURN = r"""
_value:
  description: Two lists of host names.
  type: list
  elements: list
"""


class FilterModule:
    """What Ansible loads."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return the filters of this file."""
        return {"upstream_halves": as_filter(upstream_halves)}
