# SPDX-License-Identifier: Apache-2.0
"""What real drivers said (tools/test_gpu.py recorded it) is read, described and judged today as it was then."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.gpufleet.metal.plugins.module_utils._gpu import observe, rules, smi
from ansible_collections.gpufleet.metal.plugins.module_utils._gpu.reading import (
    DriverAnswer,
    DriverReading,
    PciGpu,
    PciReading,
)
from ansible_collections.gpufleet.metal.plugins.module_utils._gpu.requirements import requirements

FIXTURES = Path(__file__).parents[3] / "fixtures"
TOOLS = Path(__file__).parents[5] / "tools"
RECORDINGS = sorted((FIXTURES / "gpu").glob("*.json"))
ABOUT = {"gpu", "driver", "cuda", "date", "recorded", "replaced", "seconds"}
FAKE_NVIDIA_SMI = """#!/bin/sh
case "$1" in
  --query-gpu=*) cat {fixtures}/two_h100.csv ;;
  topo) cat {fixtures}/two_h100_topo.txt ;;
  nvlink) cat {fixtures}/two_h100_nvlink.txt ;;
  -q) cat {fixtures}/two_h100_details.txt ;;
esac
"""


def as_json(value: Any) -> Any:
    """The value as it comes back from JSON."""
    return json.loads(json.dumps(value))


def replay(recording: dict[str, Any]) -> None:
    """Hold a recording against what today's code makes of the same words."""
    assert set(recording["about"]) == ABOUT
    said = recording["nvidia_smi"]
    if said["query"]["status"] == 0:
        outputs = {name: one["output"] if one["status"] == 0 else "" for name, one in said.items()}
        reading = smi.parse(outputs["query"], outputs["topology"], outputs["details"], outputs["links"])
        assert as_json(reading.as_dict()) == recording["readings"]["nvidia-smi"]
    bus = recording["sysfs"]
    on_bus = PciReading(
        **{**bus, "gpus": tuple(PciGpu(**gpu) for gpu in bus["gpus"]), "warnings": tuple(bus["warnings"])}
    )
    for source, data in recording["readings"].items():
        reading = DriverReading.from_dict(data)
        answer = DriverAnswer("lost" if reading.lost else "running", reading.lost, reading)
        facts = observe.observe(on_bus, answer)
        assert as_json(facts) == recording["facts"][source]
        wanted = requirements({"cuda_version": "13.0"}, rules.CODES)
        assert rules.breaches("this-host", facts, wanted) == recording["findings"][source]


@pytest.mark.parametrize("path", RECORDINGS, ids=lambda path: path.stem)
def test_a_recording(path: Path) -> None:
    recording = json.loads(path.read_text(encoding="utf-8"))
    replay(recording)
    facts = next(iter(recording["facts"].values()))
    assert facts["simulated"] is False, "a recording is of real hardware"
    assert facts["warnings"] == []


def test_the_recorder_on_a_simulated_host(tmp_path: Path) -> None:
    """It needs no GPU to be tried itself: a stand-in for nvidia-smi, and a simulated tree."""
    simulated = TOOLS / "sandbox" / "simulated_gpu"
    make = [sys.executable, str(simulated / "make_sysfs.py"), "--no-library"]
    subprocess.run([*make, str(simulated / "two_h100.json"), str(tmp_path / "host")], check=True)
    programs = tmp_path / "programs"
    programs.mkdir()
    (programs / "nvidia-smi").write_text(FAKE_NVIDIA_SMI.format(fixtures=FIXTURES / "nvidia_smi"), encoding="utf-8")
    (programs / "nvidia-smi").chmod(0o755)
    done = subprocess.run(
        [
            sys.executable,
            str(TOOLS / "test_gpu.py"),
            f"--output={tmp_path / 'out'}",
            f"--sysfs-root={tmp_path / 'host' / 'sys'}",
            "--date=2026-11-25",
        ],
        capture_output=True,
        text=True,
        check=False,
        env={"PATH": f"{programs}{os.pathsep}{os.environ['PATH']}"},
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    assert done.stdout.endswith("all checks passed\n")
    (path,) = (tmp_path / "out").iterdir()
    assert path.name == "h100-sxm5-80gb-580.105.08.json"
    text = path.read_text(encoding="utf-8")
    recording = json.loads(text)
    replay(recording)
    assert recording["about"]["date"] == "2026-11-25"
    # Without nvidia-ml-py both ways end at nvidia-smi.
    assert set(recording["about"]["seconds"]) <= {"nvml", "nvidia-smi"}
    assert recording["about"]["seconds"]["nvidia-smi"] >= 0
    assert "everything read with nvidia-smi alone: 2 GPUs in " in done.stdout
    assert "GPU-6f1b0c52" not in text
    assert [gpu["uuid"] for gpu in recording["facts"]["nvidia-smi"]["gpus"]] == [
        "GPU-00000000-0000-4000-8000-000000000000",
        "GPU-00000000-0000-4000-8000-000000000001",
    ]


@pytest.mark.parametrize(
    ("with_program", "message"), [(True, "No NVIDIA GPU is on"), (False, "There is no nvidia-smi")]
)
def test_the_recorder_without_a_gpu(with_program: bool, message: str, tmp_path: Path) -> None:
    if with_program:
        (tmp_path / "nvidia-smi").write_text("#!/bin/sh\n", encoding="utf-8")
        (tmp_path / "nvidia-smi").chmod(0o755)
    elif shutil.which("nvidia-smi", path=os.defpath):
        pytest.skip("this machine has an nvidia-smi")
    done = subprocess.run(
        [sys.executable, str(TOOLS / "test_gpu.py"), f"--sysfs-root={tmp_path}", f"--output={tmp_path}"],
        capture_output=True,
        text=True,
        check=False,
        env={"PATH": str(tmp_path)},
    )
    assert (done.returncode, done.stdout.startswith(message)) == (2, True), done.stdout + done.stderr
