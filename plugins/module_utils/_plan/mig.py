# SPDX-License-Identifier: Apache-2.0
# PRIVATE to the collection: do not import this from outside, it may change without notice.
"""Which GPUs of a host are split by MIG on purpose: ``nvidia_driver_mig``, the layout that the role applies.

Source: NVIDIA, Multi-Instance GPU User Guide: slices have no way to each other, so an instance gets GPUs whole. A GPU
that is split, or shall be, is left to others; one that shall be whole again is used once it is recorded as whole.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ansible_collections.gpufleet.metal.plugins.module_utils._gpu import catalogue
from ansible_collections.gpufleet.metal.plugins.module_utils._mig import PROFILE

from .findings import Finding
from .reader import shown

VARIABLE = "nvidia_driver_mig"
SPLIT = "split"
WHOLE = "whole"


def _names(index: int, address: str, entry: Mapping[str, Any]) -> set[str]:
    """The names that a layout can call a GPU by."""
    uuid = entry.get("uuid")
    return {"all", str(index), address, *([str(uuid).lower()] if uuid else [])}


def wanted_layout(
    host: str, value: Any, gpus: Sequence[tuple[str, Mapping[str, Any]]], findings: list[Finding]
) -> dict[str, str]:
    """Return SPLIT or WHOLE for the PCI address of each GPU that the layout names; what is wrong with it is a finding.

    ``gpus``: (PCI address, record) in the order of the addresses, which is that of nvidia-smi's indices. A later entry
    for a GPU wins over an earlier one, as in the role.
    """
    wanted: dict[str, str] = {}
    if value is None:
        return wanted
    if not isinstance(value, (list, tuple)):
        findings.append(
            _invalid(host, f"{VARIABLE} is {shown(value)}", "a list of layouts, each with gpu and profiles")
        )
        return wanted
    for position, layout in enumerate(value):
        where = f"{VARIABLE}[{position}]"
        name = layout.get("gpu") if isinstance(layout, Mapping) else None
        profiles = layout.get("profiles") if isinstance(layout, Mapping) else None
        if not isinstance(name, (str, int)) or isinstance(name, bool) or not isinstance(profiles, (list, tuple)):
            findings.append(_invalid(host, f"{where} is {shown(layout)}", "gpu, and profiles as a list"))
            continue
        odd = [profile for profile in profiles if not PROFILE.fullmatch(str(profile))]
        if odd:
            findings.append(_invalid(host, f"{where} has the profile {shown(odd[0])}", "profiles such as 3g.40gb"))
            continue
        named = [
            (address, entry)
            for index, (address, entry) in enumerate(gpus)
            if str(name).lower() in _names(index, address, entry)
        ]
        if not named:
            findings.append(
                _invalid(
                    host,
                    f"{where} names the GPU {shown(name)}",
                    f"all, an index from 0 to {len(gpus) - 1}, a recorded UUID, or one of "
                    f"{', '.join(address for address, _entry in gpus)}",
                )
            )
        for address, entry in named:
            device, subsystem = str(entry.get("device_id") or ""), entry.get("subsystem_id")
            product = catalogue.find(device, str(subsystem) if subsystem else None) if device else None
            if profiles and product is not None and not product.mig_instances and name != "all":
                findings.append(
                    _invalid(host, f"{where} splits {address} ({product.name})", "GPUs of a product that has MIG")
                )
            else:
                wanted[address] = SPLIT if profiles else WHOLE
    return wanted


def _invalid(host: str, found: str, wanted: str) -> Finding:
    return Finding(host, "mig_layout_invalid", found, wanted, f"correct {VARIABLE} of {host}")
