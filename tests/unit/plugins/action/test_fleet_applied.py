# SPDX-License-Identifier: Apache-2.0
"""The action records what was applied, host by host, and what it wrote is what the next plan reads."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
from ansible.errors import AnsibleActionFail

from ansible_collections.gpufleet.metal.plugins.action.fleet_applied import ActionModule
from ansible_collections.gpufleet.metal.plugins.module_utils._plan.table import plan_as_json
from ansible_collections.gpufleet.metal.tests.unit.plugins.module_utils._plan.fleets import gpus, hosts, plan, tiny


def run(directory: Path, names: list[str], check: bool = False) -> dict[str, Any]:
    """Run the action."""
    task = Mock(args={"directory": str(directory), "hosts": names}, async_val=0, check_mode=check, delegate_to=None)
    action = ActionModule(
        task=task,
        connection=Mock(),
        play_context=Mock(),
        loader=Mock(),
        templar=Mock(),
        shared_loader_obj=None,
    )
    return action.run(task_vars={})


@pytest.fixture
def planned(tmp_path: Path) -> Path:
    """Return a directory with the plan of two hosts."""
    (tmp_path / "plan.json").write_text(plan_as_json(plan(tiny(), machines=hosts(gpus(1), gpus(1)))))
    return tmp_path


def applied(directory: Path) -> dict[str, Any]:
    """Return what is recorded."""
    content: dict[str, Any] = json.loads((directory / "applied.json").read_text())
    return content


def test_hosts_are_recorded_as_they_come(planned: Path) -> None:
    """One host, then the other, then nothing new; a gateway has nothing to record."""
    assert run(planned, ["gpu-1"])["changed"] is True
    assert list(applied(planned)["hosts"]) == ["gpu-1"]
    assert run(planned, ["gpu-2", "gw-1"])["changed"] is True
    assert list(applied(planned)["hosts"]) == ["gpu-1", "gpu-2"]
    assert applied(planned)["hosts"]["gpu-1"]["instances"][0]["name"] == "tiny-llama-0"
    assert run(planned, ["gpu-1", "gpu-2"])["changed"] is False


def test_a_host_that_left_the_plan_is_dropped(planned: Path) -> None:
    """Its instances are nobody's business any more."""
    run(planned, ["gpu-1", "gpu-2"])
    (planned / "plan.json").write_text(plan_as_json(plan(tiny(), machines=hosts(gpus(1)))))
    assert run(planned, [])["changed"] is True
    assert list(applied(planned)["hosts"]) == ["gpu-1"]


def test_check_mode_applies_nothing(planned: Path) -> None:
    """So it records nothing."""
    result = run(planned, ["gpu-1"], check=True)
    assert (result["changed"], result["skipped"]) == (False, True)
    assert not (planned / "applied.json").exists()


def test_a_missing_plan(tmp_path: Path) -> None:
    """The message says what to run."""
    with pytest.raises(AnsibleActionFail, match=r"plan\.json is missing: run gpufleet\.metal\.plan first"):
        run(tmp_path, ["gpu-1"])


def test_a_broken_record_is_not_overwritten(planned: Path) -> None:
    """It names the file and how to go on."""
    (planned / "applied.json").write_text("{}")
    with pytest.raises(AnsibleActionFail, match=r"applied\.json is broken: found schema nothing, wanted schema 1\."):
        run(planned, ["gpu-1"])
    assert (planned / "applied.json").read_text() == "{}"


def test_a_directory_that_cannot_be_written(planned: Path) -> None:
    """A name that is taken by something else."""
    (planned / "applied.json").mkdir()
    with pytest.raises(AnsibleActionFail, match=r"cannot read .*/applied\.json"):
        run(planned, ["gpu-1"])
