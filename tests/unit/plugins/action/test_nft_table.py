# SPDX-License-Identifier: Apache-2.0
"""The action conducts: compare, check the controller, apply, prove a new connection, confirm."""

from __future__ import annotations

from typing import Any
from unittest.mock import MagicMock

import pytest
from ansible.errors import AnsibleActionFail, AnsibleConnectionFailure
from ansible.playbook.task import Task

from ansible_collections.gpufleet.metal.plugins.action import nft_table
from ansible_collections.gpufleet.metal.plugins.plugin_utils import _new_connection

OLD = "192.0.2.1 1000 192.0.2.9 22"
NEW = "192.0.2.1 1001 192.0.2.9 22"
SSH = {"ports": [22], "networks": ["192.0.2.0/24"]}


class Action(nft_table.ActionModule):
    """The action with a module whose phases answer from a table, and connections that answer from a list."""

    def __init__(self, phases: dict[str, Any], connections: list[str], transport: str = "ssh", **options: Any) -> None:
        task = MagicMock(spec=Task)
        task.args = {"name": "x", "path": "/etc/x.nft", "content": "chain a { }", "rollback_seconds": 20, **options}
        task.async_val = 0
        task.check_mode = task.diff = False
        connection = MagicMock(transport=transport)
        super().__init__(task, connection, MagicMock(), loader=None, templar=None, shared_loader_obj=None)
        self.phases, self.connections, self.called = phases, connections, list[str]()

    def _execute_module(self, **call: Any) -> dict[str, Any]:
        phase = call["module_args"]["_phase"]
        self.called.append(phase)
        answer = self.phases[phase]
        if isinstance(answer, Exception):
            raise answer
        return dict(answer)

    def _low_level_execute_command(self, *_arguments: Any, **_options: Any) -> dict[str, Any]:
        answer = self.connections.pop(0) if len(self.connections) > 1 else self.connections[0]
        if answer == "refused":
            raise AnsibleConnectionFailure("Connection\ntimed out")
        return {"stdout": answer}


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(_new_connection.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(_new_connection.time, "sleep", lambda seconds: now.__setitem__(0, now[0] + 5 * seconds))


PHASES: dict[str, Any] = {
    "compare": {"changed": True, "apply": True},
    "apply": {"changed": True},
    "confirm": {"changed": True},
    "status": {"changed": False, "undecided": False, "confirmed": False},
}


def test_no_change_is_one_call() -> None:
    action = Action({"compare": {"changed": False, "apply": False}}, ["refused"])
    assert action.run(task_vars={}) == {"changed": False}
    assert action.called == ["compare"]


def test_a_change_is_confirmed_over_a_new_connection() -> None:
    action = Action(PHASES, [OLD, "refused", OLD, NEW], controller_must_match=[SSH])
    result = action.run(task_vars={})
    assert result == {"changed": True, "confirmed_from": "192.0.2.1 port 1001", "rolled_back": False}
    assert action.called == ["compare", "apply", "confirm"]


def test_a_connection_other_than_ssh_confirms_without_an_address() -> None:
    result = Action(PHASES, [""], "docker").run(task_vars={})
    assert (result["changed"], result["confirmed_from"]) == (True, "")


TRIED = "The new table inet x was applied, but no new connection confirmed it within 20 s"
BACK = (
    "The old table is back and the host is reachable; the file for the next boot was not changed. "
    "Look at fleet_management_networks: it has to hold this controller's address"
)
SILENT = (
    "The host has not answered within 60 s after its rollback was due. On its console: "
    "'systemctl list-timers gpufleet-nft-*' and 'nft list ruleset'; a reboot loads the old file"
)


@pytest.mark.parametrize(
    ("phases", "connections", "back", "message"),
    [
        ({}, [OLD, *["refused"] * 6, NEW], True, f"{TRIED} (Connection timed out). {BACK}"),
        ({}, [OLD, "refused"], False, f"{TRIED} (Connection timed out). {SILENT}"),
        ({"confirm": {"failed": True, "msg": "too late"}}, [OLD, NEW], True, f"{TRIED} (too late). {BACK}"),
        (
            {"apply": AnsibleConnectionFailure("Broken\npipe")},
            [OLD, NEW],
            True,
            f"{TRIED} (the connection broke: Broken pipe). {BACK}",
        ),
        ({"status": {"undecided": True}}, [OLD, "refused", NEW], True, ""),
        # The confirmation came through, its answer was lost, and so was every further try.
        (
            {"confirm": AnsibleConnectionFailure("Broken pipe"), "status": {"undecided": False, "confirmed": True}},
            [OLD, NEW],
            False,
            "",
        ),
    ],
)
def test_a_lockout_is_waited_out(phases: dict[str, Any], connections: list[str], back: bool, message: str) -> None:
    result = Action({**PHASES, **phases}, connections, controller_must_match=[SSH]).run(task_vars={})
    if not message:
        assert result["confirmed_from"] == "192.0.2.1 port 1001"
        return
    assert result == {"failed": True, "changed": not back, "rolled_back": back, "msg": message}


def test_a_module_that_fails_to_apply_is_handed_on() -> None:
    action = Action({**PHASES, "apply": {"failed": True, "msg": "no timer"}}, [OLD], assume_controller_allowed=True)
    assert action.run(task_vars={})["msg"] == "no timer"
    assert action.called == ["compare", "apply"]


@pytest.mark.parametrize(
    ("connections", "options", "message"),
    [
        (
            [OLD],
            {},
            "The new table inet x would lock this controller out: the host sees it as 192.0.2.1, on port 22",
        ),
        ([""], {"controller_must_match": [SSH]}, "The host does not say from which address it sees this controller"),
        ([OLD], {"rollback_seconds": 1}, "rollback_seconds is 1, wanted 10 to 600 seconds"),
        ([OLD], {"contents": ""}, "Unsupported parameters"),
    ],
)
def test_what_is_refused_before_the_change(connections: list[str], options: dict[str, Any], message: str) -> None:
    action = Action(PHASES, connections, **options)
    with pytest.raises(AnsibleActionFail) as caught:
        action.run(task_vars={})
    assert str(caught.value).startswith(message)
    assert "apply" not in action.called
