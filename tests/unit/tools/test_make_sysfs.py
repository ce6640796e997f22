# SPDX-License-Identifier: Apache-2.0
"""The simulated GPUs: every description is labelled, the tree and the library agree, and the library loads anywhere."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from ansible_collections.gpufleet.metal.plugins.module_utils._gpu import catalogue, pci

SIMULATED = Path(__file__).parents[3] / "tools" / "sandbox" / "simulated_gpu"
DESCRIPTIONS = sorted(SIMULATED.glob("*.json"))


def load() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_sysfs", SIMULATED / "make_sysfs.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


make_sysfs = load()


@pytest.mark.parametrize("path", DESCRIPTIONS, ids=lambda path: path.stem)
def test_a_description_becomes_a_tree(path: Path, tmp_path: Path) -> None:
    description = json.loads(path.read_text(encoding="utf-8"))
    # Twice, into the same directory: a running host mounts it.
    for __ in range(2):
        assert make_sysfs.main([str(path), str(tmp_path / "gpu-1"), "--no-library"]) == 0
    reading = pci.read(str(tmp_path / "gpu-1" / "sys"))
    assert (reading.simulated, reading.warnings) == (True, ())
    assert reading.nvswitch_count == len(description.get("nvswitches", []))
    assert [(gpu.pci_address, gpu.device_id) for gpu in reading.gpus] == [
        (gpu["pci_address"], gpu["device_id"]) for gpu in description["gpus"]
    ]
    known = [catalogue.find(gpu.device_id, gpu.subsystem_id) is not None for gpu in reading.gpus]
    assert all(known) == (path.stem != "unknown_device")


def test_the_sandbox_has_the_descriptions_that_its_readme_names() -> None:
    readme = (SIMULATED / "README.md").read_text(encoding="utf-8")
    assert [path.name for path in DESCRIPTIONS if f"`{path.name}`" not in readme] == []


def test_uuids_are_stable_differ_by_host_and_look_like_no_real_one() -> None:
    uuid = make_sysfs.simulated_uuid("gpu-1", "0000:17:00.0")
    assert uuid == "GPU-00000000-1a01-5349-9e01-7a33a476d2d5"
    assert uuid != make_sysfs.simulated_uuid("gpu-2", "0000:17:00.0")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"gpus": [{"pci_address": "0000:17:00.0", "name": "NVIDIA H100"}]},
            "0000:17:00.0: name: found 'NVIDIA H100', wanted one that contains \"Simulated\"",
        ),
        (
            {"driver_version": "580.105.08"},
            "driver_version: found '580.105.08', wanted one that contains \"simulated\", or null",
        ),
        ({"gpu": []}, "unknown keys: gpu"),
        ({"fault": "smoke"}, "fault: found 'smoke', wanted one of hang, mismatch, lost, unknown, or null"),
    ],
)
def test_what_is_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(SystemExit) as caught:
        make_sysfs.check({"gpus": [], **change})
    assert str(caught.value) == message


def test_without_a_compiler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CC", "no-such-cc")
    with pytest.raises(SystemExit) as caught:
        make_sysfs.main([str(SIMULATED / "two_h100.json"), str(tmp_path)])
    assert str(caught.value) == "no C compiler: 'no-such-cc' was not found; install gcc, or name one in CC"


def test_the_library_needs_only_what_every_glibc_has(tmp_path: Path) -> None:
    if shutil.which(os.environ.get("CC", "cc")) is None or shutil.which("nm") is None:
        pytest.skip("no C compiler")
    make_sysfs.build_library(tmp_path / "libnvidia-ml.so.1")
    listed = subprocess.run(
        ["nm", "--dynamic", "--undefined-only", str(tmp_path / "libnvidia-ml.so.1")],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert {
        symbol for symbol in listed.split() if "@" in symbol and not symbol.endswith(("@GLIBC_2.2.5", "@GLIBC_2.17"))
    } == set()
