# SPDX-License-Identifier: Apache-2.0
"""nvidia-smi's outputs become a reading; what makes no sense becomes a warning."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ansible_collections.gpufleet.metal.plugins.module_utils._gpu import smi
from ansible_collections.gpufleet.metal.plugins.module_utils._gpu.reading import DriverGpu, DriverReading

ANY_SPEED = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
FIXTURES = Path(__file__).parents[3] / "fixtures" / "nvidia_smi"


def text(name: str) -> str:
    return (FIXTURES / name).read_text(encoding="utf-8")


def test_two_h100() -> None:
    reading = smi.parse(
        text("two_h100.csv"), text("two_h100_topo.txt"), text("two_h100_details.txt"), text("two_h100_nvlink.txt")
    )
    common = {
        "device_id": "2330",
        "subsystem_id": "10DE:16C1",
        "name": "NVIDIA H100 80GB HBM3",
        "memory_mib": 81559,
        "compute_capability": "9.0",
        "mig_enabled": False,
        "persistence_mode": True,
        "ecc_enabled": True,
        "ecc_uncorrectable": {"volatile": 0, "aggregate": 0},
        "pcie_link": {
            "generation": 1,
            "generation_maximum": 5,
            "generation_product": 5,
            "width": 16,
            "width_maximum": 16,
        },
        "fabric": {"state": "completed", "status": "success"},
    }
    rows = {"correctable": 0, "uncorrectable": 0, "pending": False, "failure": False}

    def joined(peer: str) -> tuple[dict[str, Any], ...]:
        return ({"peer_pci_address": peer, "common_ancestor": None, "nvlink": True, "p2p_read": None},)

    assert reading == DriverReading(
        source="nvidia-smi",
        driver_version="580.105.08",
        cuda_version="13.0",
        gpus=(
            DriverGpu(
                pci_address="0000:17:00.0",
                index=0,
                uuid="GPU-6f1b0c52-6c0e-4a37-9d0f-0c3f2a3f9b11",
                nvlink_peers=("0000:3d:00.0",),
                remapped_rows=rows,
                processes=({"pid": 4712, "name": "VLLM::Worker_TP0", "memory_mib": 70214},),
                links=({"peer_type": "unknown", "peer_pci_address": "0000:3d:00.0", "count": 18},),
                topology=joined("0000:3d:00.0"),
                **common,
            ),
            DriverGpu(
                pci_address="0000:3d:00.0",
                index=1,
                uuid="GPU-0b8e7c1d-27b4-4f43-8e1c-6a4a6f0d2e22",
                nvlink_peers=("0000:17:00.0",),
                remapped_rows={**rows, "correctable": 1, "uncorrectable": 2, "pending": True},
                processes=(),
                # One of its links is down, and the matrix counts 18: they are not those of a bridge.
                links=({"peer_type": "switch", "peer_pci_address": None, "count": 17},),
                topology=joined("0000:17:00.0"),
                **common,
            ),
        ),
    )


def test_four_l4_without_nvlink_and_mig() -> None:
    reading = smi.parse(text("four_l4.csv"), text("four_l4_topo.txt"))
    assert [gpu.nvlink_peers for gpu in reading.gpus] == [(), (), (), ()]
    assert [gpu.mig_enabled for gpu in reading.gpus] == [None] * 4
    assert [gpu.persistence_mode for gpu in reading.gpus] == [False] * 4
    assert [gpu.fabric for gpu in reading.gpus] == [None] * 4
    assert [(gpu.remapped_rows, gpu.processes) for gpu in reading.gpus] == [(None, None)] * 4
    assert reading.cuda_version is None


def test_without_topology_nothing_is_known_about_nvlink() -> None:
    said = smi.parse(text("two_h100.csv")).gpus
    assert [(gpu.nvlink_peers, gpu.links, gpu.topology) for gpu in said] == [(None, None, None)] * 2


# Written after the legend that nvidia-smi itself prints below the matrix, not recorded from hardware.
TOPOLOGY = """\
\tGPU0\tGPU1\tGPU2\tGPU3\tGPU4\tGPU5\tNIC0\tCPU Affinity\tNUMA Affinity\tGPU NUMA ID
GPU0\t X \tNV4\tPIX\tPXB\tPHB\tNODE\tPIX\t0-31\t0\t\tN/A
GPU1\tNV4\t X \tPSB\tSYS\tSOC\t???\tPIX\t0-31\t0\t\tN/A
NIC0\tPIX\tPIX\tSYS\tSYS\tSYS\tSYS\t X \t\t\t\t
"""


def test_the_whole_matrix() -> None:
    cells = smi.parse_topology(TOPOLOGY)
    assert cells == {
        0: {1: "NV4", 2: "PIX", 3: "PXB", 4: "PHB", 5: "NODE"},
        1: {0: "NV4", 2: "PSB", 3: "SYS", 4: "SOC", 5: "???"},
    }
    rows = [f"{index}, 00000000:{index:02X}:00.0" + ", N/A" * (len(smi.FIELDS) - 2) for index in range(6)]
    first, second, *others = smi.parse("\n".join(rows), TOPOLOGY).gpus
    told = ("common_ancestor", "nvlink")
    assert first.topology is not None
    assert second.topology is not None
    assert [tuple(pair[key] for key in told) for pair in first.topology] == [
        (None, True),
        ("single", False),
        ("multiple", False),
        ("hostbridge", False),
        ("node", False),
    ]
    assert [tuple(pair[key] for key in told) for pair in second.topology] == [
        (None, True),
        ("multiple", False),
        ("system", False),
        ("system", False),
        (None, None),
    ]
    assert (first.nvlink_peers, first.links) == (("0000:01:00.0",), None)
    assert [gpu.topology for gpu in others] == [None] * 4


def ends(*found: tuple[str, str | None, int]) -> tuple[dict[str, Any], ...]:
    return tuple({"peer_type": kind, "peer_pci_address": peer, "count": count} for kind, peer, count in found)


@pytest.mark.parametrize(
    ("active", "bonds", "links"),
    [
        (None, {}, None),
        (0, {}, ()),
        (12, {"b": 12, "c": 12, "d": 12}, ends(("switch", None, 12))),
        (12, {"b": 4, "c": 4, "d": 4}, ends(("gpu", "b", 4), ("gpu", "c", 4), ("gpu", "d", 4))),
        (12, {"b": 12}, ends(("unknown", "b", 12))),
        (6, {"b": 2, "c": 2}, ends(("gpu", "b", 2), ("gpu", "c", 2), ("unknown", None, 2))),
        (4, {}, ends(("unknown", None, 4))),
    ],
    ids=["no NVLink", "all down", "switches", "a mesh", "a pair", "links to elsewhere", "no matrix"],
)
def test_links(active: int | None, bonds: dict[str, int], links: tuple[dict[str, Any], ...] | None) -> None:
    assert smi._links(active, bonds) == links


@pytest.mark.parametrize(
    ("said", "active"),
    [
        ("", {}),
        ("GPU 0: NVIDIA L4 (UUID: GPU-1)\n", {}),
        ("GPU 0: A100 (UUID: GPU-1)\n\t Link 0: 25 GB/s\n\t Link 1: <inactive>\n", {"GPU-1": 1}),
        ("GPU 0: A100 (UUID: GPU-1)\n\t Link 0: <inactive>\n", {"GPU-1": 0}),
        ("\t Link 0: 25 GB/s\n", {}),
    ],
    ids=["nothing", "a product without NVLink", "one of two", "none", "of no GPU"],
)
def test_active_links(said: str, active: dict[str, int]) -> None:
    assert smi.parse_links(said) == active


@pytest.mark.parametrize(
    ("row", "warning"),
    [
        ("0, 1, 2\n", "nvidia-smi, row 1: found 3 columns, wanted 21; row left out"),
        (
            "0, [Unknown Error]" + ", x" * 19 + "\n",
            "nvidia-smi: '[Unknown Error]' is not a PCI address (wanted domain:bus:device.function, "
            "as in 0000:3d:00.0); row left out",
        ),
    ],
)
def test_rows_that_make_no_sense(row: str, warning: str) -> None:
    reading = smi.parse(row)
    assert (reading.gpus, reading.warnings) == ((), (warning,))


@pytest.mark.parametrize(
    ("header", "version"),
    [
        ("CUDA Version                              : 13.0", "13.0"),
        ("CUDA UMD Version        : 13.4", "13.4"),
        ("", None),
    ],
)
def test_cuda_version_in_both_spellings(header: str, version: str | None) -> None:
    assert smi.parse("", details=f"Driver Version : 615.71.09\n{header}\n").cuda_version == version


def test_a_product_that_remaps_no_rows() -> None:
    details = smi.parse_details("GPU 00000000:31:00.0\n    Remapped Rows       : N/A\n    Processes       : None\n")
    assert details == {"0000:31:00.0": {"processes": (), "remapped_rows": None}}


def test_a_process_that_another_container_hides() -> None:
    lines = ["GPU 00000000:31:00.0", "    Processes", "        Process ID   : 7", "            Name   : [Not Found]"]
    assert smi.parse_details("\n".join(lines))["0000:31:00.0"]["processes"] == (
        {"pid": 7, "name": None, "memory_mib": None},
    )


def test_a_lost_gpu_in_a_row() -> None:
    reading = smi.parse("1, 00000000:3D:00.0, " + ", ".join(["[GPU is lost]"] * (len(smi.FIELDS) - 2)))
    assert reading.lost == "nvidia-smi, GPU 0000:3d:00.0: GPU is lost"
    assert (reading.gpus[0].uuid, reading.gpus[0].memory_mib) == (None, None)


@pytest.mark.parametrize(
    ("status", "said", "state"),
    [
        (9, "NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver.", "absent"),
        (255, "NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver.", "absent"),
        (18, "Failed to initialize NVML: Driver/library version mismatch", "mismatch"),
        (1, "Failed to initialize NVML: Driver/library version mismatch", "mismatch"),
        (15, "Unable to determine the device handle for GPU 0000:3D:00.0: GPU is lost.", "lost"),
        (255, "Unable to determine the device handle for GPU0000:3D:00.0: GPU is lost.", "lost"),
        (6, "No devices were found", "broken"),
        (12, "NVIDIA-SMI couldn't find libnvidia-ml.so library in your system.", "broken"),
    ],
)
def test_a_failing_nvidia_smi_is_quoted_and_understood(status: int, said: str, state: str) -> None:
    with pytest.raises(smi.SmiError) as caught:
        smi.read(lambda commands: [(status, f"{said}\n", "")] * len(commands))
    assert str(caught.value) == f"nvidia-smi ended with status {status} and said: {said}"
    assert caught.value.state == state


def test_read_starts_it_four_times_and_does_without_three_of_them() -> None:
    asked = []

    def run(commands: Sequence[tuple[str, ...]]) -> list[tuple[int, str, str]]:
        asked.append(list(commands))
        return [(0, text("two_h100.csv"), ""), *[(2, "", "unknown option")] * 3]

    reading = smi.read(run)
    assert asked == [[smi.query(), smi.DETAILS, smi.TOPOLOGY, smi.LINKS]]
    assert (len(reading.gpus), reading.cuda_version, reading.warnings) == (2, None, ())


def test_an_older_driver_is_asked_again_without_the_field_that_it_does_not_know() -> None:
    unknown = ["fabric.state", "fabric.status"]
    asked = []

    def run(commands: Sequence[tuple[str, ...]]) -> list[tuple[int, str, str]]:
        asked.append(commands[0])
        for field in unknown:
            if field in commands[0][0]:
                return [(2, f'Field "{field}" is not a valid field to query.\n', "")] * len(commands)
        return [(0, "\n".join(line.rsplit(",", 2)[0] for line in text("two_h100.csv").splitlines()), "")]

    reading = smi.read(run)
    assert len(asked) == 3
    assert [(gpu.fabric, gpu.memory_mib) for gpu in reading.gpus] == [(None, 81559)] * 2


def test_a_field_that_was_not_asked_for_is_no_reason_to_ask_again() -> None:
    with pytest.raises(smi.SmiError, match=r"status 2 and said: Field \"x\" is not a valid field to query\.$"):
        smi.read(lambda commands: [(2, 'Field "x" is not a valid field to query.', "")] * len(commands))


@ANY_SPEED
@given(query=st.text(), topology=st.text(), details=st.text(), links=st.text())
def test_random_text_never_crashes(query: str, topology: str, details: str, links: str) -> None:
    reading = smi.parse(query, topology, details, links)
    assert reading.source == "nvidia-smi"


@ANY_SPEED
@given(
    cells=st.lists(
        st.text(alphabet=st.characters(blacklist_characters=",\n\r"), max_size=12),
        min_size=len(smi.FIELDS),
        max_size=len(smi.FIELDS),
    )
)
def test_random_cells_never_crash(cells: list[str]) -> None:
    cells[1] = "00000000:17:00.0"
    line = ",".join(cells)
    if len(line.splitlines()) == 1:
        assert smi.parse(line).gpus[0].pci_address == "0000:17:00.0"


DETAIL_LINES = st.sampled_from(
    [
        "GPU 00000000:17:00.0",
        "GPU 0",
        "    Processes",
        "    Processes                             : None",
        "    Remapped Rows",
        "        Pending                           : Yes",
        "        Process ID                        : 12",
        "        Process ID                        : N/A",
        "            Type                          : C+G",
        "            Name                          : a : b",
        "            Used GPU Memory               : N/A",
        "    ",
        "",
    ]
)


@ANY_SPEED
@given(st.lists(DETAIL_LINES, max_size=20))
def test_random_details_never_crash(lines: list[str]) -> None:
    for found in smi.parse_details("\n".join(lines)).values():
        assert set(found) == {"processes", "remapped_rows"}
