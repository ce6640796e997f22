# SPDX-License-Identifier: Apache-2.0
"""Filter shells over module_utils/_hardening.py; each is documented in the YAML file of its name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ansible_collections.gpufleet.metal.plugins.module_utils import _hardening
from ansible_collections.gpufleet.metal.plugins.plugin_utils._filters import as_filter


class FilterModule:
    """What Ansible loads."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return the filters of this file."""
        return {
            "sysctl_assignments_to_write": as_filter(_hardening.sysctl_assignments),
            "units_to_start": as_filter(_hardening.units_to_start),
        }
