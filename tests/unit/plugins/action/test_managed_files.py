# SPDX-License-Identifier: Apache-2.0
"""The action finds, renders and sends; what the module answers is handed on."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import pytest
from ansible.errors import AnsibleActionFail, AnsibleConnectionFailure
from ansible.parsing.dataloader import DataLoader
from ansible.playbook.task import Task
from ansible.template import Templar, trust_as_template

from ansible_collections.gpufleet.metal.plugins.action import managed_files
from ansible_collections.gpufleet.metal.plugins.plugin_utils import _new_connection


class Action(managed_files.ActionModule):
    """The action with a module and a connection that answer from lists."""

    def __init__(self, role: Path, arguments: dict[str, Any], variables: dict[str, Any]) -> None:
        loader = DataLoader()
        loader.set_basedir(str(role))
        task = MagicMock(spec=Task)
        task.args = arguments
        task.async_val = 0
        task.check_mode = task.diff = False
        task.get_search_path.return_value = [str(role)]
        self.variables = {"ansible_search_path": [str(role)], **variables}
        super().__init__(
            task=task,
            connection=MagicMock(transport="ssh"),
            play_context=MagicMock(),
            loader=loader,
            templar=Templar(loader=loader, variables=self.variables),
            shared_loader_obj=None,
        )
        self.sent: list[dict[str, Any]] = []
        self.answers: list[dict[str, Any]] = [{"changed": False, "changed_files": []}]
        self.connections = ["192.0.2.1 1000 192.0.2.9 22", "192.0.2.1 1001 192.0.2.9 22"]

    def _execute_module(self, **call: Any) -> dict[str, Any]:
        self.sent.append(call["module_args"])
        return {
            "invocation": call["module_args"],
            **(self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]),
        }

    def _low_level_execute_command(self, *_arguments: Any, **_options: Any) -> dict[str, Any]:
        answer = self.connections.pop(0) if len(self.connections) > 1 else self.connections[0]
        if not answer:
            raise AnsibleConnectionFailure("Permission denied")
        return {"stdout": answer}

    def contents(self) -> dict[str, str]:
        return {path: base64.b64decode(text).decode() for path, text in self.sent[0]["_contents"].items()}


@pytest.fixture
def role(tmp_path: Path) -> Path:
    (tmp_path / "templates").mkdir()
    (tmp_path / "files").mkdir()
    (tmp_path / "templates" / "a.j2").write_text(
        '{% if true %}\nhello {{ who }}\n{% endif %}\na\\nb {% include "b.j2" %}, to {{ template_destpath }}\n'
    )
    (tmp_path / "templates" / "b.j2").write_text("included {{ who }}")
    (tmp_path / "templates" / "structure.j2").write_text("{{ [1, 2] }}")
    (tmp_path / "files" / "f.bin").write_bytes(b"\1\2")
    return tmp_path


def run(role: Path, files: list[dict[str, Any]], **options: Any) -> Action:
    action = Action(role, {"files": files, **options}, {"who": trust_as_template("{{ 'wor' ~ 'ld' }}")})
    action.result = action.run(task_vars=action.variables)  # type: ignore[attr-defined]
    return action


def test_one_call_carries_everything(role: Path) -> None:
    action = run(
        role,
        [
            {"dest": "/etc/a", "template": "a.j2", "mode": "0600"},
            {"dest": "/etc/f", "source": "f.bin", "owner": "www"},
            {"dest": "/etc/c", "content": "{{ not rendered again }}\n", "sensitive": True},
            {"dest": "/etc/d", "state": "directory"},
            {"dest": "/etc/e", "state": "absent"},
        ],
        validate="check %s",
        activate="reload",
    )
    assert len(action.sent) == 1
    assert action.contents() == {
        "/etc/a": "hello world\na\\nb included world, to /etc/a\n",
        "/etc/f": "\1\2",
        "/etc/c": "{{ not rendered again }}\n",
    }
    common = {"owner": "root", "group": "root", "sensitive": False}
    assert action.sent[0]["files"] == [
        {**common, "dest": "/etc/a", "state": "file", "mode": "0600"},
        {**common, "dest": "/etc/f", "state": "file", "owner": "www"},
        {**common, "dest": "/etc/c", "state": "file", "sensitive": True},
        {**common, "dest": "/etc/d", "state": "directory"},
        {**common, "dest": "/etc/e", "state": "absent"},
    ]
    assert (action.sent[0]["validate"], action.sent[0]["activate"]) == ("check %s", "reload")
    assert "invocation" not in action.result  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ([{"dest": "/etc/a", "mode": 420, "content": ""}], "/etc/a: mode is 420, a number; write it as a quoted octal"),
        (
            [{"dest": "/etc/a"}],
            "/etc/a: a file needs exactly one of template, content, source or host_source; found none of them",
        ),
        ([{"dest": "/etc/a", "template": "gone.j2"}], "/etc/a: Could not find or access 'gone.j2'"),
        ([{"dest": "/etc/a", "template": "structure.j2"}], "/etc/a: structure.j2 renders to a structure, not to text"),
    ],
)
def test_what_is_refused_before_the_host_is_asked(role: Path, files: list[dict[str, Any]], message: str) -> None:
    with pytest.raises(AnsibleActionFail) as caught:
        run(role, files)
    assert str(caught.value).startswith(message)


def test_too_much_is_refused(role: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(managed_files._files, "MAX_SET_BYTES", 3)
    with pytest.raises(AnsibleActionFail) as caught:
        run(role, [{"dest": "/etc/a", "content": "ab"}, {"dest": "/etc/b", "content": "cd"}])
    assert str(caught.value) == (
        "/etc/b: the files of this task are larger than 3 bytes together; "
        "managed_files is for configuration, use ansible.builtin.copy for data"
    )


SILENT = "The host has not answered within 60 s after its rollback was due; look on its console"
CHANGED = {"changed": True, "changed_files": ["/etc/a"], "unconfirmed": "0123"}


def prove(role: Path, answers: list[dict[str, Any]], connections: list[str]) -> tuple[dict[str, Any], Action]:
    arguments = {"files": [{"dest": "/etc/a", "content": ""}], "confirm_seconds": 30}
    action = Action(role, arguments, {})
    action.answers, action.connections = answers, connections
    return action.run(task_vars=action.variables), action


def test_a_new_connection_confirms(role: Path) -> None:
    result, action = prove(
        role, [CHANGED, {"changed": True}], ["192.0.2.1 1000 192.0.2.9 22", "192.0.2.1 1001 192.0.2.9 22"]
    )
    assert result == {
        "changed": True,
        "changed_files": ["/etc/a"],
        "confirmed_from": "192.0.2.1 port 1001",
        "rolled_back": False,
    }
    assert action.sent[1] == {"files": [], "_phase": "confirm", "_identity": "0123"}


@pytest.mark.parametrize(
    ("connections", "back", "end"),
    [
        (
            ["192.0.2.1 1000 192.0.2.9 22", "", "", "192.0.2.1 1002 192.0.2.9 22"],
            True,
            "(Permission denied). The old files are back and the host is reachable",
        ),
        (
            ["192.0.2.1 1000 192.0.2.9 22", ""],
            False,
            f"(Permission denied). {SILENT}",
        ),
        (
            [""],
            False,
            f"(Permission denied). {SILENT}",
        ),
    ],
)
def test_without_a_new_connection_the_task_waits_for_the_rollback_and_fails(
    role: Path, connections: list[str], back: bool, end: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [0.0]
    monkeypatch.setattr(_new_connection.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(_new_connection.time, "sleep", lambda seconds: now.__setitem__(0, now[0] + 20 * seconds))
    result, __ = prove(role, [CHANGED, {"changed": False, "undecided": False, "confirmed": False}], connections)
    assert (result["failed"], result["changed"], result["rolled_back"]) == (True, not back, back)
    assert result["msg"] == (
        f"New files (/etc/a) were put in place, but no new connection confirmed them within 30 s {end}"
    )


def test_a_confirmation_whose_answer_was_lost_counts(role: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(_new_connection.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(_new_connection.time, "sleep", lambda seconds: now.__setitem__(0, now[0] + 20 * seconds))
    answers = [CHANGED, {"changed": False, "undecided": False, "confirmed": True}]
    result, __ = prove(role, answers, ["192.0.2.1 1000 192.0.2.9 22", "", "", "192.0.2.1 1002 192.0.2.9 22"])
    assert "failed" not in result
    assert (result["changed"], result["rolled_back"]) == (True, False)


def test_a_content_that_is_on_the_host_stays_there(role: Path) -> None:
    action = run(role, [{"dest": "/etc/x.key", "host_source": "/etc/x.key.next", "mode": "0600", "sensitive": True}])
    assert action.contents() == {}
    assert action.sent[0]["files"] == [
        {
            "dest": "/etc/x.key",
            "state": "file",
            "host_source": "/etc/x.key.next",
            "owner": "root",
            "group": "root",
            "mode": "0600",
            "sensitive": True,
        }
    ]
