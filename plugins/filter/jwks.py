# SPDX-License-Identifier: Apache-2.0
"""Filter shells over module_utils/_secrets/jwks.py; each is documented in the YAML file of its name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ansible_collections.gpufleet.metal.plugins.module_utils._secrets.jwks import json_web_key_set, signed_token
from ansible_collections.gpufleet.metal.plugins.plugin_utils._filters import as_filter


class FilterModule:
    """What Ansible loads."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return the filters of this file."""
        return {"jwks": as_filter(json_web_key_set), "signed_token": as_filter(signed_token)}
