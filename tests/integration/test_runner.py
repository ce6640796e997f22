# SPDX-License-Identifier: Apache-2.0
"""The example of docs/examples/ansible_runner works as it stands there."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from artefact import ROOT, Installed, run

EXAMPLE = ROOT / "docs" / "examples" / "ansible_runner"


def test_runner_plans_the_example_rack(installed: Installed, tmp_path: Path) -> None:
    data = tmp_path / "run"
    shutil.copytree(EXAMPLE, data)
    installed.inventory("single_rack", data / "inventory")
    command = ["ansible-runner", "run", str(data), "--playbook", "gpufleet.metal.plan", "--ident", "plan-1"]
    run(command, tmp_path, installed.environment)

    artifacts = data / "artifacts" / "plan-1"
    assert (artifacts / "rc").read_text(encoding="utf-8") == "0"
    assert (artifacts / "status").read_text(encoding="utf-8") == "successful"
    events = [json.loads(path.read_text(encoding="utf-8")) for path in (artifacts / "job_events").glob("*.json")]
    kinds = {event["event"] for event in events}
    assert {"playbook_on_start", "playbook_on_stats", "runner_on_ok"} <= kinds
    assert not kinds & {"runner_on_failed", "runner_on_unreachable"}
    assert list(data.rglob("plan.json")), "the plan is written beside the inventory of the run"
