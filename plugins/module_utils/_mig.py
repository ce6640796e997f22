# SPDX-License-Identifier: Apache-2.0
# PRIVATE to the collection: do not import this from outside, it may change without notice.
"""Bring GPUs into MIG layouts: what nvidia-smi says about them, and which commands change that.

Source: NVIDIA's Multi-Instance GPU user guide, chapters on partitioning and on ``nvidia-smi mig``.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ansible_collections.gpufleet.metal.plugins.module_utils._errors import FleetError, InvalidInputError

QUERY_GPUS = ("--query-gpu=index,uuid,pci.bus_id,mig.mode.current,mig.mode.pending", "--format=csv,noheader")
QUERY_APPS = ("--query-compute-apps=gpu_uuid,pid", "--format=csv,noheader")
PROFILE = re.compile(r"[1-9]g\.[0-9]+gb(\+me|\+gfx|\+me\.all|-me)?")

_INSTANCE = re.compile(r"^\|\s+([0-9]+)\s+MIG (\S+)\s+[0-9]+\s+[0-9]+\s+[0-9]+:[0-9]+\s+\|$", re.MULTILINE)


@dataclass(frozen=True)
class MigGpu:
    """A GPU as nvidia-smi sees it. ``current`` and ``pending`` are Enabled, Disabled or [N/A]."""

    index: int
    uuid: str
    bus_id: str
    current: str
    pending: str


def parse_gpus(text: str) -> list[MigGpu]:
    """Read the answer to QUERY_GPUS."""
    gpus = []
    for line in filter(str.strip, text.splitlines()):
        columns = [column.strip() for column in line.split(",")]
        if len(columns) != 5 or not columns[0].isdigit():
            raise FleetError(f"nvidia-smi printed {line!r}, wanted index, uuid, pci.bus_id and two MIG modes")
        gpus.append(MigGpu(int(columns[0]), columns[1], columns[2].lower()[-12:], columns[3], columns[4]))
    return gpus


def parse_instances(text: str) -> dict[int, list[str]]:
    """Read ``nvidia-smi mig -lgi``: the profiles of the GPU instances by the index of their GPU, sorted."""
    found: dict[int, list[str]] = {}
    for index, profile in _INSTANCE.findall(text):
        found.setdefault(int(index), []).append(profile)
    return {index: sorted(profiles) for index, profiles in found.items()}


def parse_busy(text: str) -> dict[str, list[int]]:
    """Read the answer to QUERY_APPS: the processes by the UUID of their GPU."""
    busy: dict[str, list[int]] = {}
    for line in filter(str.strip, text.splitlines()):
        uuid, __, pid = (part.strip() for part in line.partition(","))
        if pid.isdigit():
            busy.setdefault(uuid, []).append(int(pid))
    return busy


def _gpu(name: str, gpus: Sequence[MigGpu]) -> list[MigGpu]:
    """Return the GPUs that a name means: all, an index, a UUID or a PCI address."""
    if name == "all":
        return list(gpus)
    chosen = [gpu for gpu in gpus if name.lower() in (str(gpu.index), gpu.uuid.lower(), gpu.bus_id)]
    if not chosen:
        known = ", ".join(f"{gpu.index} ({gpu.bus_id})" for gpu in gpus) or "none"
        raise InvalidInputError(f"nvidia_driver_mig names the GPU {name!r}, found {known}")
    return chosen


def plan(
    layout: Sequence[Mapping[str, Any]],
    gpus: Sequence[MigGpu],
    instances: Mapping[int, Sequence[str]],
    busy: Mapping[str, Sequence[int]],
) -> list[tuple[str, list[list[str]]]]:
    """Return for every GPU that must change its UUID and the commands, in their order; nothing for one that is right.

    Args:
        layout: ``gpu`` (all, an index, a UUID or a PCI address) and ``profiles``; no profiles switch MIG off. A later
            entry for a GPU wins over an earlier one, so that ``all`` comes first.

    Raises:
        InvalidInputError: a name or a profile that means nothing, or a GPU that cannot be split.
        FleetError: a GPU that must change runs something.
    """
    wanted: dict[str, list[str]] = {}
    for entry in layout:
        profiles = [str(profile) for profile in entry["profiles"]]
        odd = [profile for profile in profiles if not PROFILE.fullmatch(profile)]
        if odd:
            raise InvalidInputError(f"nvidia_driver_mig has the profile {odd[0]!r}, wanted one such as 3g.40gb")
        for gpu in _gpu(str(entry["gpu"]), gpus):
            wanted[gpu.uuid] = sorted(profiles)
    changes = []
    for gpu in gpus:
        if gpu.uuid not in wanted:
            continue
        profiles, present = wanted[gpu.uuid], sorted(instances.get(gpu.index, ()))
        mode = "Enabled" if profiles else "Disabled"
        if gpu.current == mode and Counter(present) == Counter(profiles):
            continue
        if gpu.current not in ("Enabled", "Disabled"):
            if not profiles:
                continue
            raise InvalidInputError(f"nvidia_driver_mig splits GPU {gpu.index} ({gpu.bus_id}), which has no MIG")
        if busy.get(gpu.uuid):
            held = ", ".join(present) or "no instance"
            raise FleetError(
                f"GPU {gpu.index} ({gpu.bus_id}) has MIG {gpu.current.lower()} with {held}, wanted "
                f"{', '.join(profiles) or 'MIG off'}, and is in use by the processes "
                f"{', '.join(map(str, sorted(busy[gpu.uuid])))}: drain the host first; no GPU was changed"
            )
        changes.append((gpu.uuid, _commands(gpu, present, profiles, mode)))
    return changes


def _commands(gpu: MigGpu, present: Sequence[str], profiles: Sequence[str], mode: str) -> list[list[str]]:
    """Return nvidia-smi's arguments: old instances go, the mode changes, new instances come."""
    index = str(gpu.index)
    commands = []
    if present:
        commands += [["mig", "-i", index, "-dci"], ["mig", "-i", index, "-dgi"]]
    if gpu.current != mode:
        commands.append(["-i", index, "-mig", "1" if mode == "Enabled" else "0"])
    if profiles:
        commands.append(["mig", "-i", index, "-cgi", ",".join(profiles), "-C"])
    return commands
