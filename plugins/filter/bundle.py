# SPDX-License-Identifier: Apache-2.0
"""Filter shells over module_utils/_bundle; each is documented in the YAML file of its name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ansible_collections.gpufleet.metal.plugins.module_utils._bundle import needs, variables
from ansible_collections.gpufleet.metal.plugins.plugin_utils._filters import as_filter


class FilterModule:
    """What Ansible loads."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return the filters of this file."""
        return {
            "bundle_needs": as_filter(needs.needs),
            "bundle_settings": as_filter(needs.settings_of),
            "bundle_variables": as_filter(variables.bundle_variables),
        }
