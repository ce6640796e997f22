# SPDX-License-Identifier: Apache-2.0
"""Filter shells over module_utils/_firewall.py; each is documented in the YAML file of its name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ansible_collections.gpufleet.metal.plugins.module_utils import _firewall
from ansible_collections.gpufleet.metal.plugins.plugin_utils._filters import as_filter


class FilterModule:
    """What Ansible loads."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return the filters of this file."""
        return {
            "firewall_rule_faults": as_filter(_firewall.rule_faults),
            "firewall_routed_faults": as_filter(_firewall.routed_faults),
            "firewall_outer_interfaces": as_filter(_firewall.outer_interfaces),
            "firewall_disagreements": as_filter(_firewall.disagreements),
            "firewall_tcp_openings": as_filter(_firewall.tcp_openings),
        }
