# SPDX-License-Identifier: Apache-2.0
# PRIVATE to the collection: do not import this from outside, it may change without notice.
"""The recorded hardware of a host: ``gpu_inventory``, and the commented YAML file that holds it.

The text depends on the facts alone (no dates, sorted), so that a second discovery of the same host changes nothing
and a change of hardware shows up as a small diff in the user's repository.
"""

from __future__ import annotations

import json
from typing import Any

from ansible_collections.gpufleet.metal.plugins.module_utils._errors import InvalidInputError

HOST_KEYS = ("simulated", "driver_version", "cuda_version", "nvswitch_count")
GPU_KEYS = (
    "pci_address",
    "device_id",
    "subsystem_id",
    "product",
    "uuid",
    "memory_mib",
    "memory_source",
    "compute_capability",
    "numa_node",
    "mig_enabled",
    "nvlink_peers",
)


def record(facts: dict[str, Any]) -> dict[str, Any]:
    """Pick from ``ansible_facts.gpu`` what the plan is made from, GPUs sorted by PCI address.

    Raises:
        InvalidInputError: ``facts`` is not what the module gpu_facts returns.
    """
    try:
        gpus = sorted(facts["gpus"], key=lambda gpu: str(gpu["pci_address"]))
        return {
            **{key: facts[key] for key in HOST_KEYS},
            "gpus": [{key: gpu[key] for key in GPU_KEYS} for gpu in gpus],
        }
    except (KeyError, TypeError) as error:
        raise InvalidInputError(
            f"gpu_inventory_document: found input without {error}; wanted ansible_facts.gpu of gpufleet.metal.gpu_facts"
        ) from error


def document(facts: dict[str, Any], host: str) -> str:
    """The whole text of ``host_vars/<host>/gpu_inventory.yml``.

    Raises:
        InvalidInputError: as :func:`record`.
    """
    picked = record(facts)
    lines = [
        "---",
        f"# The GPUs of {host}, recorded by the playbook gpufleet.metal.discover.",
        "# The plan is made from this file: commit it. Run discover again after a change of hardware or driver.",
        "# null: not known.",
    ]
    if picked["simulated"]:
        lines.append("# These GPUs are SIMULATED: there is no such hardware in this host.")
    lines += [
        "gpu_inventory:",
        *(f"  {key}: {_scalar(picked[key])}" for key in HOST_KEYS),
        "  gpus:" if picked["gpus"] else "  gpus: []",
    ]
    for gpu, full in zip(picked["gpus"], sorted(facts["gpus"], key=lambda gpu: str(gpu["pci_address"]))):
        lines += _gpu_lines(gpu, full)
    return "\n".join(lines) + "\n"


def _gpu_lines(gpu: dict[str, Any], full: dict[str, Any]) -> list[str]:
    comments = {}
    if not full.get("catalogued", True):
        comments["product"] = "unknown device: this id is in no catalogue of products"
    if full.get("memory_source") == "catalogue":
        comments["memory_mib"] = "nominal, no driver has confirmed it"
    if gpu["uuid"] is None:
        comments["uuid"] = "known once a driver runs"
    lines = []
    for number, key in enumerate(GPU_KEYS):
        lead = "    - " if number == 0 else "      "
        comment = f"  # {comments[key]}" if key in comments else ""
        lines.append(f"{lead}{key}: {_scalar(gpu[key])}{comment}")
    return lines


def _scalar(value: Any) -> str:
    """One value in YAML's flow style; strings are always quoted, and plain ASCII whatever they hold."""
    if isinstance(value, str):
        letters = (
            letter if " " <= letter <= "~" and letter not in '"\\' else f"\\U{ord(letter):08X}" for letter in value
        )
        return f'"{"".join(letters)}"'
    if isinstance(value, list):
        return f"[{', '.join(_scalar(item) for item in value)}]"
    return json.dumps(value)
