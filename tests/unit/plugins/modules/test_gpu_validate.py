# SPDX-License-Identifier: Apache-2.0
"""The module as a process, on a simulated host: findings fail it, unless they shall not."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import yaml

from ansible_collections.gpufleet.metal.plugins.module_utils._gpu.options import READER_OPTIONS, REQUIREMENT_OPTIONS
from ansible_collections.gpufleet.metal.plugins.module_utils._gpu.requirements import Requirements
from ansible_collections.gpufleet.metal.plugins.modules import gpu_validate

SIMULATED = Path(__file__).parents[4] / "tools" / "sandbox" / "simulated_gpu"
MESSAGE = """\
1 finding on 1 host; nothing was changed on any host.

host gpu-1: precision_unsupported
  found:  0000:17:00.0 (H100 SXM5 80GB) has compute capability 9.0
  wanted: 10.0 or more for fp4
  fix:    choose another precision or quantization for the models of this host, or use newer GPUs"""


@pytest.fixture
def sysfs(tmp_path: Path) -> str:
    """The PCI bus of a host with one H100, without a driver."""
    description = json.loads((SIMULATED / "two_h100_no_driver.json").read_text(encoding="utf-8"))
    (tmp_path / "one.json").write_text(json.dumps({**description, "gpus": description["gpus"][:1]}), encoding="utf-8")
    command = [sys.executable, str(SIMULATED / "make_sysfs.py"), "--no-library"]
    subprocess.run([*command, str(tmp_path / "one.json"), str(tmp_path)], check=True)
    return str(tmp_path / "sys")


def run(arguments: dict[str, Any]) -> dict[str, Any]:
    """Run the module in a Python of its own, without nvidia-ml-py, and return what it prints."""
    code = (
        "import sys; sys.modules['pynvml'] = None\n"
        "from ansible.module_utils.testing import patch_module_args\n"
        "from ansible_collections.gpufleet.metal.plugins.modules import gpu_validate\n"
        f"with patch_module_args({ ({**arguments, 'nvidia_smi': 'no-such-program'})!r}):\n    gpu_validate.main()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=False,
        env={"PYTHONPATH": ":".join(sys.path)},
    )
    result: dict[str, Any] = json.loads(done.stdout)
    assert done.returncode == int(result.get("failed", False)), done.stderr
    return result


def test_a_host_that_is_as_wanted(sysfs: str) -> None:
    result = run({"sysfs_root": sysfs, "host": "gpu-1", "precisions": ["fp8"], "memory_tier": "production", "count": 1})
    assert (result["valid"], result["findings"], result["changed"]) == (True, [], False)
    assert [gpu["product"] for gpu in result["gpu"]["gpus"]] == ["H100 SXM5 80GB"]


def test_findings_fail_with_all_of_them_in_the_message(sysfs: str) -> None:
    result = run({"sysfs_root": sysfs, "host": "gpu-1", "precisions": ["fp4"]})
    assert (result["failed"], result["valid"], result["msg"]) == (True, False, MESSAGE)


def test_findings_without_failing(sysfs: str) -> None:
    result = run({"sysfs_root": sysfs, "precisions": ["fp4"], "count": 2, "driver_required": True, "fail": False})
    assert "failed" not in result
    assert result["valid"] is False
    assert [item["code"] for item in result["findings"]] == [
        "driver_absent",
        "precision_unsupported",
        "gpu_count_too_low",
    ]


def test_a_code_that_does_not_exist_is_refused(sysfs: str) -> None:
    result = run({"sysfs_root": sysfs, "ignored_codes": ["persistence"]})
    assert result["failed"] is True
    assert result["msg"].startswith("ignored_codes: found 'persistence', wanted one of driver_absent, ")


def test_options_requirements_and_documentation_agree() -> None:
    documented = yaml.safe_load(gpu_validate.DOCUMENTATION)["options"]
    assert set(documented) | set(READER_OPTIONS) == {*REQUIREMENT_OPTIONS, *READER_OPTIONS, "host", "fail"}
    assert set(REQUIREMENT_OPTIONS) == {field.name for field in fields(Requirements)}
