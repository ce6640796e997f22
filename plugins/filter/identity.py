# SPDX-License-Identifier: Apache-2.0
"""Filter shells over module_utils/_identity.py; each is documented in the YAML file of its name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ansible_collections.gpufleet.metal.plugins.module_utils import _identity
from ansible_collections.gpufleet.metal.plugins.plugin_utils._filters import as_filter


class FilterModule:
    """What Ansible loads."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return the filters of this file."""
        return {
            "identity_document": as_filter(_identity.identity_document),
            "identity_faults": as_filter(_identity.identity_faults),
        }
