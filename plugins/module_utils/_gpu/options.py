# SPDX-License-Identifier: Apache-2.0
# PRIVATE to the collection: do not import this from outside, it may change without notice.
"""The options of the modules that read the GPUs of a host; documented in doc_fragments/gpu_reader.py."""

from __future__ import annotations

from typing import Any

from ansible_collections.gpufleet.metal.plugins.module_utils._gpu.driver import DEADLINE_SECONDS, read_host
from ansible_collections.gpufleet.metal.plugins.module_utils._gpu.requirements import (
    MEMORY_TIERS,
    OWN_PROCESSES,
    PRECISIONS,
)

READER_OPTIONS: dict[str, dict[str, Any]] = {
    "sysfs_root": {"type": "path", "default": "/sys"},
    "nvml_library": {"type": "path"},
    "nvidia_smi": {"type": "str", "default": "nvidia-smi"},
    "deadline_seconds": {"type": "float", "default": DEADLINE_SECONDS},
}

#: The fields of :class:`Requirements`; documented in the module gpu_validate.
REQUIREMENT_OPTIONS: dict[str, dict[str, Any]] = {
    "minimum_compute_capability": {"type": "str", "default": "7.5"},
    "precisions": {"type": "list", "elements": "str", "choices": list(PRECISIONS), "default": []},
    "memory_tier": {"type": "str", "choices": list(MEMORY_TIERS), "default": "any"},
    "minimum_memory_gb": {"type": "float", "default": 0},
    "count": {"type": "int", "default": 0},
    "same_product": {"type": "bool", "default": False},
    "instances": {
        "type": "list",
        "elements": "dict",
        "default": [],
        "options": {
            "name": {"type": "str", "required": True},
            "gpus": {"type": "list", "elements": "str", "required": True},
            "minimum_compute_capability": {"type": "str"},
            "precisions": {"type": "list", "elements": "str", "choices": list(PRECISIONS), "default": []},
            "nvlink_required": {"type": "bool", "default": False},
        },
    },
    "nvlink_required": {"type": "bool", "default": False},
    "cuda_version": {"type": "str"},
    "minimum_driver_branch": {"type": "int"},
    "driver_required": {"type": "bool", "default": False},
    "allowed_processes": {"type": "list", "elements": "str", "default": list(OWN_PROCESSES)},
    "ignored_codes": {"type": "list", "elements": "str", "default": []},
}


def read(module: Any) -> dict[str, Any]:
    """Return ``ansible_facts.gpu`` as the module's options ask for it; a deadline out of range ends the module."""
    deadline = module.params["deadline_seconds"]
    if not 0 < deadline <= 600:
        module.fail_json(msg=f"deadline_seconds: found {deadline:g}, wanted more than 0 and at most 600")
    return read_host(
        module.params["sysfs_root"],
        module.params["nvml_library"],
        module.get_bin_path(module.params["nvidia_smi"], opt_dirs=["/usr/local/bin"]),
        deadline,
        module.get_bin_path("systemctl"),
    )
