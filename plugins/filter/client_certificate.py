# SPDX-License-Identifier: Apache-2.0
"""Filter shell over module_utils/_secrets/kinds.py; documented in the YAML file of its name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ansible_collections.gpufleet.metal.plugins.module_utils._secrets.kinds import client_certificate
from ansible_collections.gpufleet.metal.plugins.plugin_utils._filters import as_filter


class FilterModule:
    """What Ansible loads."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return the filters of this file."""
        return {"client_certificate": as_filter(client_certificate)}
