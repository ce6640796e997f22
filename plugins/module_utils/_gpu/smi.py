# SPDX-License-Identifier: Apache-2.0
# PRIVATE to the collection: do not import this from outside, it may change without notice.
"""Read GPUs from nvidia-smi, the second reader: it comes with the driver, so a host needs no Python package for it.

Four commands, started at the same time, each for what it alone tells: the CSV query (one row per GPU), ``-q`` with the
sections of processes and remapped rows (its head has the CUDA version), ``topo -m`` (how each pair of GPUs is joined)
and ``nvlink --status`` (which links are active).
Format of each: NVIDIA's manual page nvidia-smi(1), and recordings in tests/unit/fixtures.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Callable

from ansible_collections.gpufleet.metal.plugins.module_utils._errors import FleetError
from ansible_collections.gpufleet.metal.plugins.module_utils._gpu.reading import (
    DriverGpu,
    DriverReading,
    normal_pci_address,
)

FIELDS = (
    "index",
    "pci.bus_id",
    "pci.device_id",
    "pci.sub_device_id",
    "name",
    "uuid",
    "memory.total",
    "compute_cap",
    "mig.mode.current",
    "persistence_mode",
    "ecc.mode.current",
    "driver_version",
    "ecc.errors.uncorrected.volatile.total",
    "ecc.errors.uncorrected.aggregate.total",
    "pcie.link.gen.gpucurrent",
    "pcie.link.gen.max",
    "pcie.link.gen.gpumax",
    "pcie.link.width.current",
    "pcie.link.width.max",
    "fabric.state",
    "fabric.status",
)
DETAILS = ("-q", "-d", "PIDS,ROW_REMAPPER")
TOPOLOGY = ("topo", "-m")
LINKS = ("nvlink", "--status")

# Runs nvidia-smi once with each of these lists of arguments, all at the same time, and returns
# (exit status, standard output, standard error) of each.
Run = Callable[[Sequence["tuple[str, ...]"]], "list[tuple[int, str, str]]"]

_EMPTY = ("", "n/a", "not supported", "unknown error")
_COLOURS = re.compile(r"\x1b\[[0-9;]*m")
_NVLINK_CELL = re.compile(r"^NV(\d{1,3})$")
#: The legend of ``topo -m`` in NVML's words (nvmlGpuTopologyLevel_t); SOC and PSB are what older ones call SYS and PXB.
_ANCESTORS = {
    "PIX": "single",
    "PSB": "multiple",
    "PXB": "multiple",
    "PHB": "hostbridge",
    "NODE": "node",
    "SOC": "system",
    "SYS": "system",
}
_LINK_HEAD = re.compile(r"^GPU (\d{1,4}): .*\(UUID: ([^)]+)\)\s*$")
_LINK_STATE = re.compile(r"^\s+Link \d{1,3}: (.+?)\s*$")
# R610 and newer write "CUDA UMD Version".
_CUDA = re.compile(r"^CUDA (?:UMD )?Version\s*:\s*(\d+\.\d+)\s*$", re.MULTILINE)
_UNKNOWN_FIELD = re.compile(r'Field "([^"]+)" is not a valid field to query')
_LINE = re.compile(r"^( +)([^:]+?) *: (.*)$")
# Exit statuses are NVML's return codes (nvidia-smi(1), RETURN VALUE); older ones end with 255 and tell it in words.
_STATES_BY_STATUS = {9: "absent", 15: "lost", 18: "mismatch"}
_STATES_BY_WORDS = (
    ("driver/library version mismatch", "mismatch"),
    ("gpu is lost", "lost"),
    ("fallen off the bus", "lost"),
    ("couldn't communicate with the nvidia driver", "absent"),
)


class SmiError(FleetError):
    """nvidia-smi has failed; ``state`` is what that says about the driver, one of DRIVER_STATES."""

    def __init__(self, message: str, state: str) -> None:
        super().__init__(message)
        self.state = state


def query(fields: Sequence[str] = FIELDS) -> tuple[str, ...]:
    """The arguments that ask for these fields of every GPU."""
    return (f"--query-gpu={','.join(fields)}", "--format=csv,noheader,nounits")


def read(run: Run) -> DriverReading:
    """Run nvidia-smi and return what it says.

    A driver refuses the whole query for one field that it does not know: it is asked again without that field.

    Raises:
        SmiError: the query for GPUs failed; the message has nvidia-smi's own words.
    """
    fields: tuple[str, ...] = FIELDS
    rows, *others = run((query(fields), DETAILS, TOPOLOGY, LINKS))
    while rows[0] != 0:
        unknown = _UNKNOWN_FIELD.search(f"{rows[1]}{rows[2]}")
        if unknown is None or unknown.group(1) not in fields:
            raise _failure(*rows)
        fields = tuple(field for field in fields if field != unknown.group(1))
        (rows,) = run((query(fields),))
    details, topology, links = (out if status == 0 else "" for status, out, _err in others)
    return parse(rows[1], topology, details, links, fields)


def _failure(status: int, out: str, err: str) -> SmiError:
    said = " ".join((err or out).split()) or "nothing"
    words = f"{out} {err}".lower()
    state = next((state for phrase, state in _STATES_BY_WORDS if phrase in words), "broken")
    return SmiError(f"nvidia-smi ended with status {status} and said: {said}", _STATES_BY_STATUS.get(status, state))


def parse(
    rows: str, topology: str = "", details: str = "", links: str = "", fields: Sequence[str] = FIELDS
) -> DriverReading:
    """Turn the outputs of the four commands into a reading; rows that make no sense become warnings."""
    warnings: list[str] = []
    table: list[dict[str, str]] = []
    for number, line in enumerate(rows.splitlines(), 1):
        if not line.strip():
            continue
        cells = line.split(",")  # nvidia-smi quotes nothing: no field holds a comma
        if len(cells) != len(fields):
            warnings.append(f"nvidia-smi, row {number}: found {len(cells)} columns, wanted {len(fields)}; row left out")
            continue
        row = dict.fromkeys(FIELDS, "")
        row.update(zip(fields, (cell.strip() for cell in cells)))
        table.append(row)
    cells_by_index = parse_topology(topology)
    active_links = parse_links(links)
    more = parse_details(details)
    addresses: dict[int, str] = {}
    for row in table:
        try:
            row["pci.bus_id"] = normal_pci_address(row["pci.bus_id"])
        except FleetError as error:
            warnings.append(f"nvidia-smi: {error}; row left out")
            row["pci.bus_id"] = ""
            continue
        index = _integer(row["index"])
        if index is not None:
            addresses[index] = row["pci.bus_id"]
    gpus = tuple(
        sorted(
            (_gpu(row, addresses, cells_by_index, active_links, more) for row in table if row["pci.bus_id"]),
            key=lambda gpu: gpu.pci_address,
        )
    )
    cuda = _CUDA.search(details)
    lost = [row["pci.bus_id"] for row in table if any("gpu is lost" in cell.lower() for cell in row.values())]
    return DriverReading(
        source="nvidia-smi",
        driver_version=next((text for row in table if (text := _value(row["driver_version"]))), None),
        cuda_version=cuda.group(1) if cuda else None,
        gpus=gpus,
        warnings=tuple(warnings),
        lost=f"nvidia-smi, GPU {', '.join(lost)}: GPU is lost" if lost else None,
    )


def parse_details(text: str) -> dict[str, dict[str, Any]]:
    """From ``nvidia-smi -q -d PIDS,ROW_REMAPPER``: {pci_address: {processes, remapped_rows}}; None: not told."""
    answer: dict[str, dict[str, Any]] = {}
    gpu: dict[str, Any] = {}
    section = ""
    rows: dict[str, str] = {}
    for line in text.splitlines():
        if line.startswith("GPU "):
            gpu, rows, section = {"processes": None, "remapped_rows": None}, {}, ""
            try:
                answer[normal_pci_address(line[4:])] = gpu
            except FleetError:
                continue
        match = _LINE.match(line)
        depth, key, value = (len(match[1]), match[2], match[3].strip()) if match else (0, "", "")
        if line.startswith("    ") and not line.startswith("     "):
            section = key or line.strip()
            if section == "Processes":
                gpu["processes"] = [] if not match or value == "None" else None
        elif section == "Remapped Rows" and depth == 8:
            rows[key] = value
            gpu["remapped_rows"] = _rows(rows)
        elif section == "Processes" and gpu.get("processes") is not None:
            _process(gpu["processes"], key, value)
    for found in answer.values():
        if found["processes"] is not None:
            found["processes"] = tuple(
                {"pid": each["pid"], "name": each["name"], "memory_mib": each["memory_mib"]}
                for each in sorted(found["processes"], key=lambda each: int(each["pid"]))
                if "C" in each["type"]
            )
    return answer


def _rows(rows: Mapping[str, str]) -> dict[str, Any]:
    truth = {"Yes": True, "No": False}
    return {
        "correctable": _integer(rows.get("Correctable Error", "")),
        "uncorrectable": _integer(rows.get("Uncorrectable Error", "")),
        "pending": truth.get(rows.get("Pending", "")),
        "failure": truth.get(rows.get("Remapping Failure Occurred", "")),
    }


def _process(processes: list[dict[str, Any]], key: str, value: str) -> None:
    """Take one line of the section of processes; "Type" is C (compute), G (graphics), C+G or M+C (through MPS)."""
    if key == "Process ID" and _integer(value) is not None:
        processes.append({"pid": _integer(value), "type": "C", "name": None, "memory_mib": None})
    elif processes and key == "Type":
        processes[-1]["type"] = value
    elif processes and key == "Name":
        processes[-1]["name"] = None if value == "[Not Found]" else _value(value)
    elif processes and key == "Used GPU Memory":
        processes[-1]["memory_mib"] = _integer(value.partition(" ")[0])


def parse_topology(text: str) -> dict[int, dict[int, str]]:
    """From ``nvidia-smi topo -m``: for each GPU index, what is written about each other one ("NV18", "PIX" ...)."""
    header: list[str] = []
    answer: dict[int, dict[int, str]] = {}
    for line in _COLOURS.sub("", text).splitlines():
        cells = line.split()
        if not header:
            header = cells if cells and cells[0] == "GPU0" else []
            continue
        if not cells or not re.fullmatch(r"GPU\d{1,4}", cells[0]):
            continue
        answer[int(cells[0][3:])] = {
            int(column[3:]): cell
            for column, cell in zip(header, cells[1:])
            if re.fullmatch(r"GPU\d{1,4}", column) and column != cells[0]
        }
    return answer


def parse_links(text: str) -> dict[str, int]:
    """From ``nvidia-smi nvlink --status``: the number of active links by UUID; a GPU without NVLink is not in it."""
    answer: dict[str, int] = {}
    uuid = ""
    for line in text.splitlines():
        head = _LINK_HEAD.match(line)
        state = _LINK_STATE.match(line)
        if head:
            uuid = head[2].strip()
        elif state and uuid:
            # An active link shows its speed, another one "<inactive>".
            answer[uuid] = answer.get(uuid, 0) + (1 if re.match(r"\d", state[1]) else 0)
    return answer


def _bonds(cells: Mapping[int, str], addresses: Mapping[int, str]) -> dict[str, int]:
    """How many NVLinks, as ``topo -m`` counts them, join a GPU to each other one."""
    found = {addresses[peer]: _NVLINK_CELL.match(cell) for peer, cell in cells.items() if peer in addresses}
    return {address: int(match[1]) for address, match in sorted(found.items()) if match}


def _links(active: int | None, bonds: Mapping[str, int]) -> tuple[dict[str, Any], ...] | None:
    """The active links by what is at their other end, as far as the two commands tell it together.

    More bonds than links: all go through switches, and each peer is counted with all of them. With a single peer nobody
    can tell a switch from a bridge. What else a link leads to is not told.
    """
    if active is None:
        return None
    told = sum(bonds.values())
    if told > active:
        return ({"peer_type": "switch", "peer_pci_address": None, "count": active},)
    kind = "unknown" if len(bonds) == 1 else "gpu"
    ends = [{"peer_type": kind, "peer_pci_address": peer, "count": count} for peer, count in bonds.items()]
    if active > told:
        ends.append({"peer_type": "unknown", "peer_pci_address": None, "count": active - told})
    return tuple(ends)


def _topology(cells: Mapping[int, str], addresses: Mapping[int, str]) -> tuple[dict[str, Any], ...]:
    """How each other GPU is reached. Of GPUs that NVLink joins, ``topo -m`` does not tell the way over PCIe."""
    return tuple(
        {
            "peer_pci_address": address,
            "common_ancestor": _ANCESTORS.get(cell),
            "nvlink": True if _NVLINK_CELL.match(cell) else (False if cell in _ANCESTORS else None),
            "p2p_read": None,
        }
        for address, cell in sorted((addresses[peer], cell) for peer, cell in cells.items() if peer in addresses)
    )


def _gpu(
    row: dict[str, str],
    addresses: dict[int, str],
    cells_by_index: Mapping[int, Mapping[int, str]],
    active_links: Mapping[str, int],
    details: Mapping[str, Mapping[str, Any]],
) -> DriverGpu:
    more = details.get(row["pci.bus_id"], {})
    index = _integer(row["index"])
    cells = cells_by_index.get(index) if index is not None else None
    bonds = _bonds(cells, addresses) if cells is not None else {}
    uuid = _value(row["uuid"])
    subsystem = _identity(row["pci.sub_device_id"])
    device = _identity(row["pci.device_id"])
    capability = _value(row["compute_cap"])
    return DriverGpu(
        pci_address=row["pci.bus_id"],
        index=index,
        # Both are 32 bit numbers with the vendor in the lower half: 0x233010DE.
        device_id=device[:4] if device else None,
        subsystem_id=f"{subsystem[4:]}:{subsystem[:4]}" if subsystem else None,
        name=_value(row["name"]),
        uuid=uuid,
        memory_mib=_integer(row["memory.total"]),
        compute_capability=capability if capability and re.fullmatch(r"\d{1,2}\.\d", capability) else None,
        mig_enabled=_switch(row["mig.mode.current"]),
        persistence_mode=_switch(row["persistence_mode"]),
        ecc_enabled=_switch(row["ecc.mode.current"]),
        ecc_uncorrectable=_known(
            {
                "volatile": _integer(row["ecc.errors.uncorrected.volatile.total"]),
                "aggregate": _integer(row["ecc.errors.uncorrected.aggregate.total"]),
            }
        ),
        remapped_rows=more.get("remapped_rows"),
        pcie_link=_known(
            {
                "generation": _integer(row["pcie.link.gen.gpucurrent"]),
                "generation_maximum": _integer(row["pcie.link.gen.max"]),
                "generation_product": _integer(row["pcie.link.gen.gpumax"]),
                "width": _integer(row["pcie.link.width.current"]),
                "width_maximum": _integer(row["pcie.link.width.max"]),
            }
        ),
        processes=more.get("processes"),
        fabric=_fabric(row["fabric.state"], row["fabric.status"]),
        nvlink_peers=None if cells is None else tuple(bonds),
        links=_links(active_links.get(uuid) if uuid else None, bonds),
        topology=None if cells is None else _topology(cells, addresses),
    )


def _fabric(state: str, status: str) -> dict[str, str | None] | None:
    """None where no NVSwitch joins the GPU: nvidia-smi writes N/A."""
    word = _value(state)
    result = _value(status)
    return {"state": word.lower(), "status": result.lower() if result else None} if word else None


def _known(answers: dict[str, Any]) -> dict[str, Any] | None:
    """The answers, or None when there is none among them."""
    return answers if any(value is not None for value in answers.values()) else None


def _value(text: str) -> str | None:
    """The text, None for nvidia-smi's words for "no answer": N/A, [N/A], [Unknown Error], [GPU is lost] ..."""
    return None if text.lower() in _EMPTY or (text.startswith("[") and text.endswith("]")) else text


def _integer(text: str) -> int | None:
    return int(text) if text.isdigit() and text.isascii() and len(text) < 10 else None


def _switch(text: str) -> bool | None:
    return {"enabled": True, "disabled": False}.get(text.lower())


def _identity(text: str) -> str | None:
    match = re.fullmatch(r"0x([0-9a-fA-F]{8})", text)
    return match.group(1).upper() if match else None
