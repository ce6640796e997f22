# SPDX-License-Identifier: Apache-2.0
"""The action gathers the inventory as Ansible sees it, whatever the play's hosts are, and writes only what differs."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
import yaml
from ansible.errors import AnsibleActionFail
from ansible.inventory.manager import InventoryManager
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar
from ansible.vars.hostvars import HostVars
from ansible.vars.manager import VariableManager

from ansible_collections.gpufleet.metal.plugins.action.fleet_plan import ActionModule, has_template, plain
from ansible_collections.gpufleet.metal.plugins.module_utils._errors import InvalidInputError
from ansible_collections.gpufleet.metal.plugins.module_utils._plan.applied import applied_plan
from ansible_collections.gpufleet.metal.tests.unit.plugins.module_utils._plan.fleets import gpus, tiny, variables

Run = Callable[..., dict[str, Any]]


def write_inventory(directory: Path, **changes: Any) -> None:
    """Write an inventory of two GPU nodes and a gateway; ``changes`` replace fleet variables."""
    (directory / "group_vars" / "all").mkdir(parents=True)
    values = variables(
        tiny(context_length="{{ tokens }}", source={"path": "{{ media }}/tiny"}), **{"fleet_name": None, **changes}
    )
    (directory / "group_vars" / "all" / "fleet.yml").write_text(
        yaml.safe_dump({**values, "media": "/srv/{{ kind }}", "kind": "media", "tokens": 2048})
    )
    (directory / "hosts.yml").write_text(
        yaml.safe_dump(
            {
                "all": {
                    "children": {
                        "gpu_nodes": {
                            "hosts": {
                                "gpu-1": {"ansible_host": "192.0.2.{{ number }}", "number": 1},
                                "gpu-2": {"fleet_address": "192.0.2.2"},
                            },
                        },
                        "gateways": {"hosts": {"gw-1": {"ansible_host": "192.0.2.201"}}},
                        "others": {"hosts": {"printer": {"fleet_modles": "not asked"}}},
                    }
                }
            }
        )
    )
    for host in ("gpu-1", "gpu-2"):
        (directory / "host_vars" / host).mkdir(parents=True)
        (directory / "host_vars" / host / "gpu_inventory.yml").write_text(yaml.safe_dump({"gpu_inventory": gpus(2)}))


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Return a function that writes an inventory once and runs the action in it."""

    def call(
        arguments: dict[str, Any] | None = None, check: bool = False, diff: bool = False, **changes: Any
    ) -> dict[str, Any]:
        source = tmp_path / "inventory"
        if not source.exists():
            write_inventory(source, **changes)
        loader = DataLoader()
        inventory = InventoryManager(loader=loader, sources=[str(source)])
        manager = VariableManager(loader=loader, inventory=inventory)
        hostvars = HostVars(inventory=inventory, variable_manager=manager, loader=loader)
        # As a play with only the gateway would give it.
        task_vars = {**manager.get_vars(host=inventory.get_host("gw-1")), "hostvars": hostvars}
        task = Mock(args=arguments or {}, async_val=0, check_mode=check, diff=diff, delegate_to=None)
        action = ActionModule(
            task=task,
            connection=Mock(),
            play_context=Mock(),
            loader=loader,
            templar=Templar(loader=loader, variables=task_vars),
            shared_loader_obj=None,
        )
        return action.run(task_vars=task_vars)

    return call


def strict(value: Any) -> bool:
    """Tell whether a value is made of Python's own types only, not of classes derived from them."""
    kind = value.__class__
    if kind is dict:
        return all(key.__class__ is str and strict(item) for key, item in value.items())
    if kind is list:
        return all(strict(item) for item in value)
    return kind in (str, int, float, bool, None.__class__)


def test_the_table_is_shown_as_it_is(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    """When it is asked for, and by no callback that would fold it."""
    result = run()
    assert "GPU nodes" not in capsys.readouterr().out
    assert run({"show": True}) == result
    assert capsys.readouterr().out == f"\n{result['table']}"


def test_the_whole_inventory_is_seen(run: Run) -> None:
    """Templates are resolved per host, hosts outside the play are planned, and the result is plain data."""
    result = run()
    assert not result.get("failed"), result
    assert result["changed"] is False
    assert result["findings"] == []
    assert strict(result["plan"])
    assert {name: host["address"] for name, host in result["plan"]["hosts"].items()} == {
        "gpu-1": "192.0.2.1",
        "gpu-2": "192.0.2.2",
        "gw-1": "192.0.2.201",
    }
    assert result["plan"]["models"]["tiny-llama"]["context_length"] == 2048
    assert result["plan"]["hosts"]["gpu-1"]["models"][0]["source"] == {"path": "/srv/media/tiny"}
    assert result["table"].startswith("Fleet gpufleet: 2 GPU nodes with 4 GPUs (4 in use, 0 free)")


def test_files_are_written_once(run: Run, tmp_path: Path) -> None:
    """The second run changes nothing; check mode says what it would do and does not."""
    target = tmp_path / "new" / "plan"
    arguments = {"directory": str(target)}
    files = [str(target / "plan.json"), str(target / "plan.svg")]
    foretold = run(arguments, check=True, diff=True)
    assert (foretold["changed"], foretold["changed_files"]) == (True, files)
    assert foretold["diff"][0]["before"] == ""
    assert not target.exists()
    written = run(arguments)
    assert (written["changed"], written["changed_files"]) == (True, files)
    assert "diff" not in written
    assert json.loads((target / "plan.json").read_text()) == written["plan"]
    assert (target / "plan.svg").read_text().startswith("<svg ")
    assert sorted(path.name for path in target.iterdir()) == ["plan.json", "plan.svg"]
    again = run(arguments, diff=True)
    assert (again["changed"], again["changed_files"]) == (False, [])
    (target / "plan.json").write_text("{}\n")
    repaired = run(arguments, diff=True)
    assert repaired["changed_files"] == files[:1]
    assert repaired["diff"] == [
        {
            "before_header": files[0],
            "after_header": files[0],
            "before": "{}\n",
            "after": (target / "plan.json").read_text(),
        }
    ]


def test_findings_fail_and_write_nothing(run: Run, tmp_path: Path) -> None:
    """All findings in one message; a typed name that is no variable is one of them, on planned hosts only."""
    result = run(
        {"directory": str(tmp_path / "plan")},
        fleet_modles=[],
        fleet_management_networks=None,
        fleet_endpoint={"hostname": "{{ nowhere }}"},
    )
    assert result["failed"] is True
    assert "plan" not in result
    assert [(f["host_or_model"], f["code"]) for f in result["findings"]] == [
        ("gpufleet", "management_networks_missing"),
        ("gpufleet", "unknown_variable"),
        ("gpu-1", "cannot_template"),
    ]
    assert result["msg"].startswith("The plan has 3 findings; nothing was changed on any host.\n\nfleet gpufleet: ")
    assert "fleet_modles (seen by gpu-1, gpu-2, gw-1)" in result["msg"]
    assert "'nowhere' is undefined" in result["msg"]
    assert not (tmp_path / "plan").exists()


def test_findings_that_somebody_else_shows(run: Run, tmp_path: Path) -> None:
    """Without failing the plan is there, as far as it could be made, and nothing is written or shown."""
    result = run({"directory": str(tmp_path / "plan"), "fail": False}, fleet_management_networks=None)
    assert "failed" not in result
    assert "table" not in result
    assert [finding["code"] for finding in result["findings"]] == ["management_networks_missing"]
    assert result["plan"]["findings"] == result["findings"]
    assert len(result["plan"]["hosts"]["gpu-1"]["expected_gpus"]) == 2
    assert not (tmp_path / "plan").exists()


def test_two_values_of_one_variable(run: Run, tmp_path: Path) -> None:
    """A fleet variable that a host sees otherwise is a finding, not a coin toss."""
    write_inventory(tmp_path / "inventory")
    (tmp_path / "inventory" / "host_vars" / "gpu-2" / "more.yml").write_text("fleet_models_directory: /mnt/models\n")
    (tmp_path / "inventory" / "host_vars" / "gpu-1" / "more.yml").write_text("fleet_models_directory: /srv/models\n")
    result = run()
    assert [(f["code"], f["found"]) for f in result["findings"]] == [
        ("conflicting_values", "fleet_models_directory differs between gpu-1 and gpu-2")
    ]


def test_a_directory_that_cannot_be_written(run: Run, tmp_path: Path) -> None:
    """The message names the option."""
    (tmp_path / "file").write_text("")
    with pytest.raises(AnsibleActionFail, match=r"cannot read .*/file/applied\.json"):
        run({"directory": str(tmp_path / "file")})


def test_what_was_applied_is_kept_and_compared(run: Run, tmp_path: Path) -> None:
    """The record beside the plan is an input, and the table ends with what would change."""
    target = tmp_path / "fleet"
    first = run({"directory": str(target)})
    assert first["table"].endswith("Changes: nothing was applied yet, 4 instances to start\n")
    assert {change["change"] for change in first["changes"]} == {"added"}
    document = applied_plan(first["plan"], None, ["gpu-1", "gpu-2"])
    (target / "applied.json").write_text(json.dumps(document))
    again = run({"directory": str(target)})
    assert (again["changed"], again["changes"]) == (False, [])
    assert again["table"].endswith("no change, 4 instances as they are\n")
    document["hosts"]["gpu-1"]["instances"][0]["name"] = "tiny-llama-7"
    (target / "applied.json").write_text(json.dumps(document))
    kept = run({"directory": str(target)})
    assert "tiny-llama-7" in {instance["name"] for instance in kept["plan"]["instances"]}


def test_a_broken_record_stops_the_plan(run: Run, tmp_path: Path) -> None:
    """A file that may say what runs is never ignored."""
    (tmp_path / "applied.json").write_text("nonsense")
    with pytest.raises(AnsibleActionFail, match=r"/applied\.json is broken: found no JSON .*, or remove it: "):
        run({"directory": str(tmp_path)})


def test_unknown_options(run: Run) -> None:
    """A mistyped option is refused."""
    with pytest.raises(AnsibleActionFail, match=r"direktory"):
        run({"direktory": "/tmp"})


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, None),
        (True, True),
        (3, 3),
        (0.5, 0.5),
        ("text", "text"),
        ({"a": (1, {"b": [None]})}, {"a": [1, {"b": [None]}]}),
        ({1: "x"}, {"1": "x"}),
    ],
)
def test_plain(value: Any, expected: Any) -> None:
    """Containers and scalars become Python's own."""
    assert plain(value) == expected
    assert strict(plain(value))


@pytest.mark.parametrize(
    ("value", "found"),
    [
        ("plain", False),
        ("{{ name }}", True),
        ("{% if x %}", True),
        ({"a": [1, {"b": "{# no #}"}]}, True),
        ({"{{ key }}": ["text", 1, None, True]}, False),
        ([], False),
    ],
)
def test_has_template(value: Any, found: bool) -> None:
    """What cannot hold a template is read as it is."""
    assert has_template(value) is found


def test_plain_refuses_what_json_cannot_hold() -> None:
    """YAML turns an unquoted date into one."""
    date = yaml.safe_load("2026-11-01")
    with pytest.raises(InvalidInputError, match=r"^'2026-11-01' is a date, which JSON cannot hold: put it in quotes$"):
        plain(date)
