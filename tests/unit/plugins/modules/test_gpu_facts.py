# SPDX-License-Identifier: Apache-2.0
"""The module as a process: with a tree, with a driver, with one that hangs, and without anything."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from ansible_collections.gpufleet.metal.plugins.modules import gpu_facts

SIMULATED = Path(__file__).parents[4] / "tools" / "sandbox" / "simulated_gpu"
FIXTURES = Path(__file__).parents[2] / "fixtures" / "nvidia_smi"
FAKE_NVIDIA_SMI = """#!/bin/sh
case "$1" in
  --query-gpu=*) cat {fixtures}/two_h100.csv ;;
  topo) cat {fixtures}/two_h100_topo.txt ;;
  nvlink) cat {fixtures}/two_h100_nvlink.txt ;;
  -q) cat {fixtures}/two_h100_details.txt ;;
esac
"""


def run(arguments: dict[str, Any], check_mode: bool = False, status: int = 0) -> dict[str, Any]:
    """Run the module in a Python of its own, without nvidia-ml-py, and return what it prints."""
    given = json.dumps({"ANSIBLE_MODULE_ARGS": {**arguments, "_ansible_check_mode": check_mode}})
    code = (
        "import sys; sys.modules['pynvml'] = None\n"
        "from ansible.module_utils.testing import patch_module_args\n"
        "from ansible_collections.gpufleet.metal.plugins.modules import gpu_facts\n"
        f"import json; args = json.loads({given!r})['ANSIBLE_MODULE_ARGS']\n"
        "with patch_module_args(args):\n    gpu_facts.main()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=False,
        env={"PYTHONPATH": ":".join(sys.path)},
    )
    assert done.returncode == status, done.stdout + done.stderr
    result: dict[str, Any] = json.loads(done.stdout)
    return result


@pytest.mark.parametrize("check_mode", [False, True])
def test_a_host_without_gpus(tmp_path: Path, check_mode: bool) -> None:
    result = run({"sysfs_root": str(tmp_path), "nvidia_smi": "no-such-program"}, check_mode)
    assert result["changed"] is False
    assert result["ansible_facts"]["gpu"]["gpus"] == []
    assert "warnings" not in result


def test_the_bus_alone(tmp_path: Path) -> None:
    subprocess.run(
        [
            sys.executable,
            str(SIMULATED / "make_sysfs.py"),
            "--no-library",
            str(SIMULATED / "unknown_device.json"),
            str(tmp_path),
        ],
        check=True,
    )
    result = run({"sysfs_root": str(tmp_path / "sys"), "nvidia_smi": "no-such-program"})
    facts = result["ansible_facts"]["gpu"]
    assert (facts["simulated"], facts["source"]) == (True, "pci")
    assert [gpu["product"] for gpu in facts["gpus"]] == ["H100 SXM5 80GB", None]
    assert [device["device_id"] for device in facts["unknown_devices"]] == ["FFFE"]
    assert len(facts["warnings"]) == 1


def test_nvidia_smi_where_nvml_cannot_be_read(tmp_path: Path) -> None:
    program = tmp_path / "nvidia-smi"
    program.write_text(FAKE_NVIDIA_SMI.format(fixtures=FIXTURES), encoding="utf-8")
    program.chmod(0o755)
    facts = run({"sysfs_root": str(tmp_path), "nvidia_smi": str(program)})["ansible_facts"]["gpu"]
    assert (facts["source"], facts["driver_version"], facts["cuda_version"]) == ("nvidia-smi", "580.105.08", "13.0")
    assert [gpu["nvlink_peers"] for gpu in facts["gpus"]] == [["0000:3d:00.0"], ["0000:17:00.0"]]


def test_a_hanging_nvidia_smi_hangs_nothing_else(tmp_path: Path) -> None:
    program = tmp_path / "nvidia-smi"
    program.write_text("#!/bin/sh\nexec sleep 600\n", encoding="utf-8")
    program.chmod(0o755)
    # What goes before it, a library that is not there, has the same time, on a machine that is busy as well.
    options = {"sysfs_root": str(tmp_path), "nvidia_smi": str(program), "deadline_seconds": 3}
    facts = run(options)["ansible_facts"]["gpu"]
    reason = "nvidia-smi: no answer within 3 seconds"
    assert (facts["driver_state"], facts["driver_state_reason"], facts["warnings"]) == ("hung", reason, [reason])


def test_a_deadline_that_makes_no_sense(tmp_path: Path) -> None:
    result = run({"sysfs_root": str(tmp_path), "deadline_seconds": 0}, status=1)
    assert result["msg"] == "deadline_seconds: found 0, wanted more than 0 and at most 600"


def test_the_documentation_lists_every_returned_key(tmp_path: Path) -> None:
    documented = yaml.safe_load(gpu_facts.RETURN)["ansible_facts"]["contains"]["gpu"]["contains"]
    program = tmp_path / "nvidia-smi"
    program.write_text(FAKE_NVIDIA_SMI.format(fixtures=FIXTURES), encoding="utf-8")
    program.chmod(0o755)
    facts = run({"sysfs_root": str(tmp_path), "nvidia_smi": str(program)})["ansible_facts"]["gpu"]
    assert set(documented) == set(facts)
    assert set(documented["gpus"]["contains"]) == set(facts["gpus"][0])
