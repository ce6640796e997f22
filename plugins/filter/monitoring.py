# SPDX-License-Identifier: Apache-2.0
"""Filter shells over module_utils/_monitoring.py; each is documented in the YAML file of its name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ansible_collections.gpufleet.metal.plugins.module_utils import _monitoring
from ansible_collections.gpufleet.metal.plugins.plugin_utils._filters import as_filter


class FilterModule:
    """What Ansible loads."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return the filters of this file."""
        return {
            "exporter_disagreements": as_filter(_monitoring.exporter_disagreements),
            "exporter_faults": as_filter(_monitoring.exporter_faults),
            "prometheus_configuration": as_filter(_monitoring.prometheus_configuration),
            "prometheus_disagreements": as_filter(_monitoring.prometheus_disagreements),
            "prometheus_faults": as_filter(_monitoring.prometheus_faults),
        }
