# SPDX-License-Identifier: Apache-2.0
"""Which reader is asked, and what the driver's state is called when one of them fails, crashes or hangs."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.gpufleet.metal.plugins.module_utils._gpu import driver, nvml
from ansible_collections.gpufleet.metal.plugins.module_utils._gpu.reading import DriverAnswer, DriverGpu, DriverReading

FIXTURES = Path(__file__).parents[3] / "fixtures" / "nvidia_smi"
WORKING = f"""case "$1" in
  --query-gpu=*) cat {FIXTURES}/two_h100.csv ;;
  topo) cat {FIXTURES}/two_h100_topo.txt ;;
  nvlink) cat {FIXTURES}/two_h100_nvlink.txt ;;
  -q) cat {FIXTURES}/two_h100_details.txt ;;
esac"""
NO_PACKAGE = "nvidia-ml-py is not installed for this Python (import of pynvml halted; None in sys.modules)"
LONG_SECONDS = 600
MakeProgram = Callable[[str], str]


@pytest.fixture
def program(tmp_path: Path) -> MakeProgram:
    """Return a function that writes a stand-in for nvidia-smi."""

    def write(body: str) -> str:
        path = tmp_path / "nvidia-smi"
        path.write_text(f"#!/bin/sh\n{body}\n", encoding="utf-8")
        path.chmod(0o755)
        return str(path)

    return write


@pytest.fixture
def without_nvml(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)


def nvml_does(monkeypatch: pytest.MonkeyPatch, action: Callable[[], Any]) -> None:
    monkeypatch.setattr(nvml, "read", lambda library: action())


def fails(message: str, expected: bool = False, state: str | None = None) -> Callable[[], Any]:
    def fail() -> Any:
        raise nvml.NvmlUnavailableError(message, expected, state)

    return fail


READING = DriverReading(
    source="nvml",
    driver_version="580.105.08",
    gpus=(
        DriverGpu(
            "0000:17:00.0",
            nvlink_peers=("0000:3d:00.0",),
            links=({"peer_type": "gpu", "peer_pci_address": "0000:3d:00.0", "count": 18},),
            remapped_rows={"correctable": 0, "uncorrectable": 0, "pending": False, "failure": False},
            processes=({"pid": 1, "name": "x", "memory_mib": None},),
        ),
    ),
    warnings=("a", "b"),
)


def test_nvml_is_asked_first_and_its_reading_comes_back_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    nvml_does(monkeypatch, lambda: READING)
    assert driver.ask(None, "/nonexistent/nvidia-smi") == DriverAnswer("running", None, READING)


def test_a_lost_gpu_among_others(monkeypatch: pytest.MonkeyPatch) -> None:
    reading = DriverReading(source="nvml", lost="NVML, GPU 1: GPU is lost")
    nvml_does(monkeypatch, lambda: reading)
    assert driver.ask(None, None) == DriverAnswer("lost", "NVML, GPU 1: GPU is lost", reading)


@pytest.mark.parametrize("state", ["mismatch", "lost"])
def test_nvmls_word_is_final(state: str, monkeypatch: pytest.MonkeyPatch, program: MakeProgram) -> None:
    nvml_does(monkeypatch, fails("NVML does not start: why", state=state))
    reason = "NVML does not start: why"
    assert driver.ask(None, program(WORKING)) == DriverAnswer(state, reason, None, (reason,))


def test_a_hanging_nvml_is_not_followed_by_nvidia_smi(monkeypatch: pytest.MonkeyPatch, program: MakeProgram) -> None:
    nvml_does(monkeypatch, lambda: time.sleep(LONG_SECONDS))
    reason = "NVML: no answer within 0.2 seconds"
    assert driver.ask(None, program(WORKING), 0.2) == DriverAnswer("hung", reason, None, (reason,))


def test_a_crashing_nvml_is_followed_by_nvidia_smi(monkeypatch: pytest.MonkeyPatch, program: MakeProgram) -> None:
    nvml_does(monkeypatch, lambda: os.kill(os.getpid(), signal.SIGTERM))
    answer = driver.ask(None, program(WORKING))
    assert (answer.state, answer.warnings) == ("running", ("NVML: the process that asked was ended by signal 15",))
    assert answer.reading is not None
    assert (answer.reading.source, len(answer.reading.gpus)) == ("nvidia-smi", 2)


@pytest.mark.usefixtures("without_nvml")
@pytest.mark.parametrize(
    ("body", "kernel_module", "state", "reason", "warned"),
    [
        ("echo 'no devices' >&2; exit 6", None, "broken", "nvidia-smi ended with status 6 and said: no devices", True),
        ("echo 'no driver' >&2; exit 9", None, "absent", "nvidia-smi ended with status 9 and said: no driver", False),
        ("echo 'no driver' >&2; exit 9", "580.1", "broken", "nvidia-smi ended with status 9 and said: no driver", True),
        ("echo 'differ' >&2; exit 18", None, "mismatch", "nvidia-smi ended with status 18 and said: differ", True),
        ("echo 'lost' >&2; exit 15", None, "lost", "nvidia-smi ended with status 15 and said: lost", True),
    ],
)
def test_a_failing_nvidia_smi(
    body: str, kernel_module: str | None, state: str, reason: str, warned: bool, program: MakeProgram
) -> None:
    answer = driver.ask(None, program(body), LONG_SECONDS, kernel_module)
    assert answer == DriverAnswer(state, reason, None, (reason,) if warned else ())


@pytest.mark.usefixtures("without_nvml")
def test_a_hanging_nvidia_smi(program: MakeProgram) -> None:
    reason = "nvidia-smi: no answer within 0.2 seconds"
    assert driver.ask(None, program("exec sleep 600"), 0.2) == DriverAnswer("hung", reason, None, (reason,))


@pytest.mark.usefixtures("without_nvml")
def test_a_program_that_cannot_be_started() -> None:
    answer = driver.ask(None, "/nonexistent/nvidia-smi")
    assert (answer.state, answer.reason) == (
        "broken",
        "nvidia-smi ended with status 127 and said: [Errno 2] No such file or directory: '/nonexistent/nvidia-smi'",
    )


@pytest.mark.usefixtures("without_nvml")
def test_nothing_to_ask() -> None:
    assert driver.ask(None, None) == DriverAnswer("absent", f"{NO_PACKAGE}, and there is no nvidia-smi")


@pytest.mark.usefixtures("without_nvml")
def test_a_kernel_module_without_anybody_to_ask() -> None:
    reason = f"the kernel module 580.105.08 is loaded, but {NO_PACKAGE} and there is no nvidia-smi"
    answer = driver.ask(None, None, kernel_module="580.105.08")
    assert answer == DriverAnswer("broken", reason, None, (reason,))


def test_an_nvml_that_should_work_and_nobody_else(monkeypatch: pytest.MonkeyPatch) -> None:
    reason = "NVML does not start: Unknown Error"
    nvml_does(monkeypatch, fails(reason))
    assert driver.ask(None, None) == DriverAnswer("broken", f"{reason}, and there is no nvidia-smi", None, (reason,))


def test_a_library_that_is_still_to_come() -> None:
    """Where its path is known before its driver is installed, there is no driver, and not a broken one."""
    pytest.importorskip("pynvml", reason="nvidia-ml-py is not installed")
    answer = driver.ask("/nonexistent/libnvidia-ml.so.1", None)
    assert answer.state == "absent"
    assert answer.warnings[0].startswith("nvml_library: found '/nonexistent/libnvidia-ml.so.1', which cannot be loaded")


@pytest.mark.usefixtures("without_nvml")
def test_a_host_is_read_whole(program: MakeProgram, tmp_path: Path) -> None:
    facts = driver.read_host(sysfs_root=str(tmp_path), nvidia_smi=program(WORKING))
    assert (facts["driver_state"], facts["source"], facts["cuda_version"]) == ("running", "nvidia-smi", "13.0")
    assert [gpu["remapped_rows"]["pending"] for gpu in facts["gpus"]] == [False, True]


SWITCH = {"vendor": "0x10de", "device": "0x1af1", "class": "0x068000"}


def tree(root: Path, *, switches: bool, simulated: bool = False, device: str = "0x20b2") -> str:
    """Write a PCI bus with one GPU (an A100, which tells nothing about its fabric), and its switches."""
    subsystem = {"subsystem_vendor": "0x10de", "subsystem_device": "0x1463"}
    gpu = {"vendor": "0x10de", "device": device, "class": "0x030200", **subsystem}
    for address, attributes in {"0000:17:00.0": gpu, **({"0000:07:00.0": SWITCH} if switches else {})}.items():
        directory = root / "bus" / "pci" / "devices" / address
        directory.mkdir(parents=True)
        for name, value in attributes.items():
            (directory / name).write_text(f"{value}\n", encoding="ascii")
    if simulated:
        (root / "SIMULATED").touch()
    return str(root)


@pytest.fixture
def systemctl(tmp_path: Path) -> MakeProgram:
    """Return a function that writes a stand-in for systemctl, which notes that it was asked."""

    def write(body: str) -> str:
        path = tmp_path / "systemctl"
        path.write_text(f'#!/bin/sh\necho "$*" >> {tmp_path}/asked\n{body}\n', encoding="utf-8")
        path.chmod(0o755)
        return str(path)

    return write


@pytest.mark.usefixtures("without_nvml")
@pytest.mark.parametrize(
    ("body", "state", "warning"),
    [
        ("echo active", "active", None),
        ("echo inactive; exit 3", "inactive", None),
        ("echo failed; exit 3", "failed", None),
        ("exec sleep 600", None, "systemctl is-active nvidia-fabricmanager: no answer within 0.5 seconds"),
        (
            "echo 'System has not been booted with systemd' >&2; exit 1",
            None,
            "systemctl is-active nvidia-fabricmanager ended with status 1 and said: "
            "System has not been booted with systemd",
        ),
    ],
    ids=["active", "inactive", "failed", "hangs", "no systemd"],
)
def test_fabric_manager(
    body: str, state: str | None, warning: str | None, systemctl: MakeProgram, tmp_path: Path
) -> None:
    root = tree(tmp_path / "sys", switches=True)
    deadline = 0.5 if "sleep" in body else LONG_SECONDS
    facts = driver.read_host(root, deadline_seconds=deadline, systemctl=systemctl(body))
    assert facts["fabric_manager"] == state
    # On a busy machine one that hangs may not even have come to write down what it was asked.
    if deadline == LONG_SECONDS:
        assert (tmp_path / "asked").read_text(encoding="utf-8") == "is-active nvidia-fabricmanager\n"
    assert facts["warnings"] == ([warning] if warning else [])


@pytest.mark.usefixtures("without_nvml")
@pytest.mark.parametrize(
    ("options", "asked"),
    [
        ({"switches": False}, False),
        ({"switches": True, "simulated": True}, False),
        ({"switches": True}, True),
        ({"switches": False, "device": "0x2901"}, True),
    ],
    ids=["no switches", "simulated", "switches on the bus", "a B200, whose switches are not on the bus"],
)
def test_fabric_manager_is_asked_for_where_switches_are(
    options: dict[str, Any], asked: bool, systemctl: MakeProgram, tmp_path: Path
) -> None:
    driver.read_host(tree(tmp_path / "sys", **options), systemctl=systemctl("echo active"))
    assert (tmp_path / "asked").exists() == asked
