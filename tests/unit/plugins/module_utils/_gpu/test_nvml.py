# SPDX-License-Identifier: Apache-2.0
"""NVML through the real nvidia-ml-py: the sandbox's stand-in, built here, and faults that it cannot show."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ansible_collections.gpufleet.metal.plugins.module_utils._gpu import driver, nvml
from ansible_collections.gpufleet.metal.plugins.module_utils._gpu.reading import DriverGpu, DriverReading

pynvml = pytest.importorskip("pynvml", reason="nvidia-ml-py is not installed")
SIMULATED = Path(__file__).parents[5] / "tools" / "sandbox" / "simulated_gpu"
ADDRESSES = ("0000:17:00.0", "0000:3d:00.0")


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The stand-in, built once: a process loads a library of one soname only once, too."""
    if shutil.which(os.environ.get("CC", "cc")) is None:
        pytest.skip("no C compiler")
    directory = tmp_path_factory.mktemp("nvml") / "host"
    subprocess.run(
        [sys.executable, str(SIMULATED / "make_sysfs.py"), str(SIMULATED / "two_h100.json"), str(directory)], check=True
    )
    return str(directory / "libnvidia-ml.so.1")


@pytest.fixture
def simulate(library: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], DriverReading]:
    """Read the stand-in with one of the descriptions."""

    def read(description: str) -> DriverReading:
        subprocess.run(
            [
                sys.executable,
                str(SIMULATED / "make_sysfs.py"),
                "--no-library",
                str(SIMULATED / description),  # an absolute path stays what it is
                str(tmp_path),
                "--host=gpu-1",
            ],
            check=True,
        )
        monkeypatch.setenv("SIMULATED_GPUS", str(tmp_path / "nvml.txt"))
        return nvml.read(library)

    return read


def test_two_h100(simulate: Callable[[str], DriverReading]) -> None:
    uuids = ("GPU-00000000-1a01-5349-9e01-7a33a476d2d5", "GPU-00000000-fa4e-50fe-8467-a8fa5684c745")
    expected = tuple(
        DriverGpu(
            pci_address=ADDRESSES[index],
            index=index,
            device_id="2330",
            subsystem_id="10DE:16C1",
            name="Simulated H100 SXM5 80GB",
            uuid=uuids[index],
            memory_mib=81559,
            compute_capability="9.0",
            mig_enabled=False,
            persistence_mode=True,
            ecc_enabled=True,
            processes=(),
            nvlink_peers=(ADDRESSES[1 - index],),
            links=({"peer_type": "gpu", "peer_pci_address": ADDRESSES[1 - index], "count": 2},),
            topology=(
                {
                    "peer_pci_address": ADDRESSES[1 - index],
                    "common_ancestor": "node",
                    "nvlink": True,
                    "p2p_read": "ok",
                },
            ),
        )
        for index in (0, 1)
    )
    assert simulate("two_h100.json") == DriverReading(
        source="nvml", driver_version="0.0.0-simulated", cuda_version="13.0", gpus=expected
    )


def test_nvswitch(simulate: Callable[[str], DriverReading]) -> None:
    gpus = simulate("eight_h100_nvswitch.json").gpus
    addresses = {gpu.pci_address for gpu in gpus}
    assert len(addresses) == 8
    for gpu in gpus:
        assert set(gpu.nvlink_peers or ()) == addresses - {gpu.pci_address}
        assert [link["peer_type"] for link in gpu.links or ()] == ["switch"] * 4
    assert {pair["common_ancestor"] for pair in gpus[0].topology or ()} == {"node", "system"}


def test_products_without_nvlink_and_mig(simulate: Callable[[str], DriverReading]) -> None:
    gpus = simulate("four_l4.json").gpus
    assert [(gpu.nvlink_peers, gpu.links, gpu.mig_enabled) for gpu in gpus] == [((), None, None)] * 4


def test_a_lost_card_is_not_reported(simulate: Callable[[str], DriverReading]) -> None:
    assert [gpu.pci_address for gpu in simulate("two_h100_one_lost.json").gpus] == ["0000:17:00.0"]


def described(tmp_path: Path, gpus: list[dict[str, Any]], **host: Any) -> str:
    """Write a description of GPUs with these keys and return its path."""
    common = {"device_id": "2330", "subsystem_id": "10DE:16C1", "name": "Simulated H100"}
    addressed = [
        {"pci_address": address, **common, **changes} for address, changes in zip(ADDRESSES, gpus, strict=False)
    ]
    path = tmp_path / "description.json"
    path.write_text(json.dumps({"driver_version": "580.105.08-simulated", **host, "gpus": addressed}), encoding="utf-8")
    return str(path)


def test_everything_that_a_gpu_can_tell(simulate: Callable[[str], DriverReading], tmp_path: Path) -> None:
    rows = {"correctable": 1, "uncorrectable": 2, "pending": True, "failure": False}
    link = {"generation": 1, "generation_maximum": 4, "generation_product": 5, "width": 8, "width_maximum": 16}
    told = {
        "ecc_uncorrectable": {"volatile": 3, "aggregate": 9},
        "remapped_rows": rows,
        "pcie_link": link,
        "processes": [
            {"pid": 12, "memory_mib": 512, "name": "VLLM::EngineCore"},
            {"pid": 7, "memory_mib": 3, "name": None},
        ],
        "fabric": {"state": "in progress", "status_code": 999},
    }
    gpu, other = simulate(described(tmp_path, [told, {"fabric": {"state": "completed", "status_code": 0}}])).gpus
    assert (gpu.ecc_uncorrectable, gpu.remapped_rows, gpu.pcie_link) == ({"volatile": 3, "aggregate": 9}, rows, link)
    assert gpu.processes == (
        {"pid": 7, "name": None, "memory_mib": 3},
        {"pid": 12, "name": "VLLM::EngineCore", "memory_mib": 512},
    )
    assert gpu.fabric == {"state": "in progress", "status": "unknown error"}
    assert other.fabric == {"state": "completed", "status": "success"}
    assert (other.ecc_uncorrectable, other.remapped_rows, other.pcie_link, other.processes) == (None, None, None, ())


def test_one_lost_gpu_among_others(simulate: Callable[[str], DriverReading], tmp_path: Path) -> None:
    reading = simulate(described(tmp_path, [{}, {"lost": True}]))
    assert [gpu.pci_address for gpu in reading.gpus] == [ADDRESSES[0]]
    assert reading.lost == "NVML, GPU 1: GPU is lost"


@pytest.mark.parametrize(
    ("fault", "message", "state"),
    [
        ("mismatch", "NVML does not start: RM has detected an NVML/RM version mismatch.", "mismatch"),
        ("lost", "NVML does not start: GPU is lost", "lost"),
        ("unknown", "NVML does not start: Unknown Error", None),
    ],
)
def test_a_driver_that_does_not_start(
    fault: str, message: str, state: str | None, simulate: Callable[[str], DriverReading], tmp_path: Path
) -> None:
    with pytest.raises(nvml.NvmlUnavailableError) as caught:
        simulate(described(tmp_path, [{}], fault=fault))
    assert (str(caught.value), caught.value.expected, caught.value.state) == (message, False, state)


def test_a_driver_that_hangs(library: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "nvml.txt").write_text("driver 0.0.0-simulated\nfault hang\n", encoding="ascii")
    monkeypatch.setenv("SIMULATED_GPUS", str(tmp_path / "nvml.txt"))
    assert driver.ask(library, None, 0.5).state == "hung"


def test_no_driver_is_nothing_to_warn_of(simulate: Callable[[str], DriverReading]) -> None:
    with pytest.raises(nvml.NvmlUnavailableError) as caught:
        simulate("two_h100_no_driver.json")
    assert (caught.value.expected, caught.value.state) == (True, "absent")
    assert str(caught.value) == "NVML does not start: Driver Not Loaded"


def test_a_library_that_cannot_be_loaded(tmp_path: Path) -> None:
    path = str(tmp_path / "libnvidia-ml.so.1")
    with pytest.raises(nvml.NvmlUnavailableError) as caught:
        nvml.read(path)
    assert (caught.value.expected, caught.value.state) == (False, "absent")
    assert str(caught.value) == (
        f"nvml_library: found {path!r}, which cannot be loaded ({path}: cannot open shared object file: "
        "No such file or directory); wanted the path of libnvidia-ml.so.1 on the host, "
        "or null to let the dynamic linker find it"
    )


def test_without_nvidia_ml_py(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)
    with pytest.raises(nvml.NvmlUnavailableError, match=r"^nvidia-ml-py is not installed for this Python") as caught:
        nvml.read()
    assert (caught.value.expected, caught.value.state) == (True, "absent")


class Faulty:
    """A pynvml in which every question not answered here raises the given NVML error."""

    NVMLError = pynvml.NVMLError

    def __init__(self, error: int, **answers: Any) -> None:
        self.error = error
        self.stopped = 0
        self.answers = {"nvmlShutdown": self.stop, **answers}

    def stop(self) -> None:
        self.stopped += 1

    def question(self, name: str) -> Callable[..., Any]:
        def ask(*arguments: Any) -> Any:
            if name not in self.answers:
                raise pynvml.NVMLError(self.error)
            answer = self.answers[name]
            return answer(*arguments) if callable(answer) else answer

        return ask

    __getattr__ = question


def pci_info(index: int) -> SimpleNamespace:
    return SimpleNamespace(busId=f"00000000:0{index}:00.0", pciDeviceId=0x233010DE, pciSubSystemId=0x16C110DE)


BASIS: dict[str, Any] = {
    "nvmlInit": None,
    "nvmlDeviceGetCount": 2,
    "nvmlDeviceGetHandleByIndex": lambda index: index + 1,
    "nvmlDeviceGetPciInfo": pci_info,
}


@pytest.mark.parametrize("error", [pynvml.NVML_ERROR_NOT_SUPPORTED, pynvml.NVML_ERROR_FUNCTION_NOT_FOUND])
def test_what_is_not_supported_is_null_and_no_warning(error: int, monkeypatch: pytest.MonkeyPatch) -> None:
    api = Faulty(error, **BASIS)
    monkeypatch.setitem(sys.modules, "pynvml", api)
    reading = nvml.read()
    pair = {"common_ancestor": None, "nvlink": None, "p2p_read": None}
    assert reading == DriverReading(
        source="nvml",
        gpus=tuple(
            DriverGpu(
                pci_address=f"0000:0{own}:00.0",
                index=own - 1,
                device_id="2330",
                subsystem_id="10DE:16C1",
                topology=({"peer_pci_address": f"0000:0{peer}:00.0", **pair},),
            )
            for own, peer in ((1, 2), (2, 1))
        ),
    )
    assert api.stopped == 1


def test_other_errors_are_warnings_and_the_rest_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    def handle(index: int) -> int:
        if index == 1:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_GPU_IS_LOST)
        return index + 1

    answers = {**BASIS, "nvmlDeviceGetHandleByIndex": handle, "nvmlDeviceGetUUID": "GPU-x"}
    monkeypatch.setitem(sys.modules, "pynvml", Faulty(pynvml.NVML_ERROR_NO_PERMISSION, **answers))
    reading = nvml.read()
    assert [(gpu.pci_address, gpu.uuid) for gpu in reading.gpus] == [("0000:01:00.0", "GPU-x")]
    assert reading.warnings[:3] == (
        "NVML, driver version: Insufficient Permissions",
        "NVML, CUDA version: Insufficient Permissions",
        "NVML, GPU 1: GPU is lost",
    )


def test_a_driver_that_does_not_match_its_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", Faulty(pynvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH))
    with pytest.raises(
        nvml.NvmlUnavailableError, match=r"^NVML does not start: RM has detected an NVML/RM version"
    ) as caught:
        nvml.read()
    assert (caught.value.expected, caught.value.state) == (False, "mismatch")


A, B, C = "0000:01:00.0", "0000:02:00.0", "0000:03:00.0"
SWITCH = ({"peer_type": "switch", "peer_pci_address": "0000:0a:00.0", "count": 18},)


def direct(peer: str) -> tuple[dict[str, Any], ...]:
    return ({"peer_type": "gpu", "peer_pci_address": peer, "count": 4},)


def pairs(**answers: bool | None) -> tuple[dict[str, Any], ...]:
    return tuple({"peer_pci_address": {"B": B, "C": C}[name], "nvlink": answer} for name, answer in answers.items())


@pytest.mark.parametrize(
    ("links", "topology", "peers"),
    [
        ({A: None, B: None}, pairs(B=None), None),
        ({A: None, B: None}, pairs(B=False), ()),
        ({A: (), B: ()}, pairs(B=None), ()),
        ({A: direct(B), B: direct(A), C: ()}, pairs(B=None, C=None), (B,)),
        ({A: SWITCH, B: SWITCH, C: ()}, pairs(C=None, B=None), (B,)),
        ({A: SWITCH, B: SWITCH}, pairs(B=False), ()),
        ({A: None, B: None, C: None}, pairs(C=True, B=True), (B, C)),
        ({A: ()}, (), ()),
        ({A: None}, (), ()),
    ],
    ids=[
        "nobody tells",
        "driver says no",
        "no active link",
        "direct link",
        "by switches",
        "driver overrules links",
        "driver says yes",
        "alone with NVLink",
        "alone without",
    ],
)
def test_nvlink_peers(
    links: dict[str, tuple[dict[str, Any], ...] | None],
    topology: tuple[dict[str, Any], ...],
    peers: tuple[str, ...] | None,
) -> None:
    assert nvml.nvlink_peers(A, links, topology) == peers
