# SPDX-License-Identifier: Apache-2.0
"""Every inventory of the repository is planned, without findings, into what docs/plan.schema.json describes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
from ansible.inventory.manager import InventoryManager
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar
from ansible.vars.hostvars import HostVars
from ansible.vars.manager import VariableManager
from jsonschema import Draft202012Validator

from ansible_collections.gpufleet.metal.plugins.action.fleet_plan import ActionModule
from ansible_collections.gpufleet.metal.tests.unit.plugins.module_utils._plan.fleets import TINY_CONFIG

ROOT = Path(__file__).parents[4]
NAMES = sorted(path.name for path in (ROOT / "inventories").iterdir() if path.is_dir())
SCHEMA = json.loads((ROOT / "docs" / "plan.schema.json").read_text(encoding="utf-8"))

#: What tools/sandbox/build.sh says about the media of the sandbox, of which the plan needs only the form.
MEDIA = {
    "image": {
        "reference": "gpufleet-sandbox-vllm:0.32.0",
        "archive": "file:///srv/media/images/vllm-cpu.tar",
        "archive_sha256": "1" * 64,
        "id": f"sha256:{'2' * 64}",
    },
    "model": {
        "path": "/srv/media/models/tiny-llama",
        "archive": {"url": "file:///srv/media/models/tiny-llama.tar", "sha256": "3" * 64},
        "files_sha256": {"config.json": "4" * 64},
        "weights_bytes": 461568,
        "config": TINY_CONFIG,
    },
}


def plan_of(name: str, directory: Path) -> dict[str, Any]:
    """Run the action on an inventory of the repository."""
    loader = DataLoader()
    inventory = InventoryManager(loader=loader, sources=[str(ROOT / "inventories" / name)])
    manager = VariableManager(loader=loader, inventory=inventory)
    hostvars = HostVars(inventory=inventory, variable_manager=manager, loader=loader)
    host = inventory.get_hosts("gateways")[0]
    task_vars = {**manager.get_vars(host=host), "hostvars": hostvars}
    task = Mock(args={"directory": str(directory)}, async_val=0, check_mode=False, diff=False, delegate_to=None)
    action = ActionModule(
        task=task,
        connection=Mock(),
        play_context=Mock(),
        loader=loader,
        templar=Templar(loader=loader, variables=task_vars),
        shared_loader_obj=None,
    )
    return action.run(task_vars=task_vars)


def test_there_are_inventories() -> None:
    """The examples and the sandbox are found."""
    assert {"airgapped", "sandbox", "single_rack"} <= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_plan(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The written plan.json has the published shape."""
    media = tmp_path / "gpufleet-metal" / "media"
    media.mkdir(parents=True)
    (media / "media.json").write_text(json.dumps(MEDIA))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    result = plan_of(name, tmp_path / "fleet")
    assert not result.get("failed"), result["msg"]
    plan = json.loads((tmp_path / "fleet" / "plan.json").read_text(encoding="utf-8"))
    assert plan["instances"]
    Draft202012Validator(SCHEMA).validate(plan)
    # What the other file holds after a run is taken up again, and changes nothing.
    assert "nothing was applied yet" in result["table"]
