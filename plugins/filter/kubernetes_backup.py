# SPDX-License-Identifier: Apache-2.0
"""Filter shells over module_utils/_kubernetes/backup.py; each is documented in the YAML file of its name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ansible_collections.gpufleet.metal.plugins.module_utils._kubernetes import backup
from ansible_collections.gpufleet.metal.plugins.plugin_utils._filters import as_filter


class FilterModule:
    """What Ansible loads."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return the filters of this file."""
        return {
            "kubernetes_backup_faults": as_filter(backup.option_faults),
            "kubernetes_backup_known_hosts": as_filter(backup.known_hosts),
            "kubernetes_backup_disagreements": as_filter(backup.disagreements),
        }
