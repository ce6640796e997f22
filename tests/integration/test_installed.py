# SPDX-License-Identifier: Apache-2.0
"""The artefact holds what users need and nothing else, and its playbooks run from it alone."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from artefact import ROOT, Installed, run, tracked_files

NOT_SHIPPED = (".ci", ".config", "build", "inventories", "molecule", "playbooks/sandbox", "tests", "tools")
SHIPPED = ("LICENSE", "MANIFEST.json", "README.md", "meta/runtime.yml", "playbooks/site.yml", "playbooks/plan.yml")
#: The inventories of the sandbox need what it built; `make demo` and Molecule prove them.
EXAMPLES = sorted(path.name for path in (ROOT / "inventories").iterdir() if not path.name.startswith("sandbox"))


def test_artefact_holds_what_users_need(installed: Installed) -> None:
    members = installed.members()
    assert [name for name in SHIPPED if name not in members] == []


@pytest.mark.parametrize("folder", NOT_SHIPPED)
def test_artefact_holds_nothing_of_the_clone(installed: Installed, folder: str) -> None:
    assert sorted(name for name in installed.members() if name.startswith(f"{folder}/")) == []


def test_artefact_holds_only_what_git_has(installed: Installed) -> None:
    made = {"FILES.json", "MANIFEST.json"}
    assert sorted(installed.members() - made - tracked_files()) == []


def test_artefact_holds_every_role_and_plugin(installed: Installed) -> None:
    members = installed.members()
    tracked = [*ROOT.glob("roles/*/tasks/main.yml"), *ROOT.glob("plugins/*/[a-z]*.py")]
    assert [path.name for path in tracked if path.relative_to(ROOT).as_posix() not in members] == []


def test_every_playbook_parses_from_the_artefact(installed: Installed, tmp_path: Path) -> None:
    inventory = installed.inventory("single_rack", tmp_path / "inventory")
    names = sorted(path.stem for path in ROOT.glob("playbooks/*.yml"))
    playbooks = [f"gpufleet.metal.{name}" for name in names]
    run(["ansible-playbook", "--syntax-check", "-i", str(inventory), *playbooks], tmp_path, installed.environment)


@pytest.mark.parametrize("name", EXAMPLES)
def test_plan_runs_from_the_artefact(installed: Installed, tmp_path: Path, name: str) -> None:
    inventory = installed.inventory(name, tmp_path / "inventory")
    before = set((ROOT / "inventories" / name).rglob("*"))
    output = run(["ansible-playbook", "gpufleet.metal.plan", "-i", str(inventory)], tmp_path, installed.environment)
    assert "failed=0" in output
    written = list(tmp_path.rglob("plan.json"))
    assert len(written) == 1, f"the plan is written once, beside its inventory; found {written}"
    plan = json.loads(written[0].read_text(encoding="utf-8"))
    assert plan["findings"] == []
    assert plan["instances"], "the example inventory serves a model"
    assert set((ROOT / "inventories" / name).rglob("*")) == before, "nothing is written into the clone"


def test_plan_in_check_mode_needs_no_host_and_writes_nothing(installed: Installed, tmp_path: Path) -> None:
    inventory = installed.inventory("single_rack", tmp_path / "inventory")
    before = set(tmp_path.rglob("*"))
    command = ["ansible-playbook", "gpufleet.metal.plan", "--check", "-i", str(inventory)]
    output = run(command, tmp_path, installed.environment)
    assert "failed=0" in output
    assert "Changes: nothing was applied yet, 14 instances to start" in output
    assert set(tmp_path.rglob("*")) == before


def test_plan_is_the_same_when_it_runs_again(installed: Installed, tmp_path: Path) -> None:
    inventory = installed.inventory("single_rack", tmp_path / "inventory")
    command = ["ansible-playbook", "gpufleet.metal.plan", "-i", str(inventory)]
    run(command, tmp_path, installed.environment)
    first = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    run(command, tmp_path, installed.environment)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == first
