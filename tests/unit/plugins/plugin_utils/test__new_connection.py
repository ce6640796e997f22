# SPDX-License-Identifier: Apache-2.0
"""Only a connection made after the change confirms it; without one, the action waits for the rollback."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from ansible.errors import AnsibleConnectionFailure

from ansible_collections.gpufleet.metal.plugins.plugin_utils import _new_connection

BEFORE = ("192.0.2.1", 1000, 22)
REFUSED = AnsibleConnectionFailure("Connection timed out")


class Connection:
    """A connection that counts its resets."""

    def __init__(self, transport: str) -> None:
        self.transport = transport
        self.resets = 0

    def reset(self) -> None:
        self.resets += 1


class Action(_new_connection.NewConnectionAction):
    """The action under test: each answer is what the host says of a connection, or a failure to make one."""

    def __init__(self, answers: list[Any], transport: str = "ssh") -> None:
        self._connection: Any = Connection(transport)
        self.answers = answers

    def run(self, tmp: Any = None, task_vars: Any = None) -> dict[str, Any]:
        raise AssertionError("not under test")

    def _low_level_execute_command(self, cmd: str, sudoable: bool = True, **__: Any) -> dict[str, Any]:
        assert not sudoable, "sudo hides SSH_CONNECTION"
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return {"stdout": answer}


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [0.0]

    def sleep(seconds: float) -> None:
        now[0] += seconds

    monkeypatch.setattr(_new_connection.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(_new_connection.time, "sleep", sleep)
    return now


def says(result: dict[str, Any]) -> Callable[[], dict[str, Any]]:
    return lambda: dict(result)


@pytest.mark.parametrize(
    ("answers", "confirm", "wanted"),
    [
        (["192.0.2.1 1001 192.0.2.9 22"], {}, _new_connection.Proof(True, origin="192.0.2.1 port 1001")),
        (
            [REFUSED, REFUSED, "192.0.2.1 1001 192.0.2.9 22"],
            {},
            _new_connection.Proof(True, origin="192.0.2.1 port 1001"),
        ),
        ([REFUSED], {}, _new_connection.Proof(False, reason="Connection timed out")),
        (
            ["192.0.2.1 1000 192.0.2.9 22"],
            {},
            _new_connection.Proof(False, reason="the connection is the old one, which proves nothing about new ones"),
        ),
        (
            [""],
            {},
            _new_connection.Proof(False, reason="the connection is the old one, which proves nothing about new ones"),
        ),
        (
            ["192.0.2.1 1001 192.0.2.9 22"],
            {"failed": True, "msg": "came too late"},
            _new_connection.Proof(False, origin="192.0.2.1 port 1001", reason="came too late"),
        ),
    ],
)
def test_prove(answers: list[Any], confirm: dict[str, Any], wanted: _new_connection.Proof) -> None:
    assert Action(answers).prove(BEFORE, 10.0, says(confirm)) == wanted


def test_a_failing_confirmation_call_is_tried_again() -> None:
    results: list[Any] = [REFUSED, {}]

    def confirm() -> dict[str, Any]:
        result = results.pop(0)
        if isinstance(result, Exception):
            raise result
        return dict(result)

    assert Action(["192.0.2.1 1001 192.0.2.9 22"]).prove(BEFORE, 10.0, confirm).confirmed


@pytest.mark.parametrize(("transport", "resets"), [("ssh", 1), ("docker", 0), ("local", 0)])
def test_only_ssh_is_reset(transport: str, resets: int) -> None:
    action = Action([""], transport)
    assert action.prove(None, 10.0, says({})) == _new_connection.Proof(True)
    assert action._connection.resets == resets


@pytest.mark.parametrize(
    ("answers", "status", "decision"),
    [
        ([REFUSED, ""], {"undecided": False, "confirmed": False}, "UNDONE"),
        # The confirmation came through, and its answer did not.
        ([REFUSED, ""], {"undecided": False, "confirmed": True}, "CONFIRMED"),
        ([""], {"undecided": True, "confirmed": False}, "UNKNOWN"),
        ([""], {"failed": True, "msg": "no python"}, "UNKNOWN"),
        ([REFUSED], {"undecided": False, "confirmed": False}, "UNKNOWN"),
    ],
)
def test_decided(answers: list[Any], status: dict[str, Any], decision: str, clock: list[float]) -> None:
    assert Action(answers).decided(5.0, says(status)).name == decision
    assert decision != "UNKNOWN" or clock[0] >= 5.0 + _new_connection.GRACE_SECONDS
