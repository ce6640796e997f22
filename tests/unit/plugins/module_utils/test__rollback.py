# SPDX-License-Identifier: Apache-2.0
"""Whoever renames `armed` first has decided: the confirmation or the timer."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from ansible_collections.gpufleet.metal.plugins.module_utils import _rollback
from ansible_collections.gpufleet.metal.plugins.module_utils._errors import InvalidInputError


class Host:
    """Runs `sh` for real and remembers everything else."""

    def __init__(self, status: int = 0, error: str = "") -> None:
        self.calls: list[list[str]] = []
        self.answer = (status, "", error)

    def __call__(self, argv: Sequence[str], stdin: str | None = None) -> tuple[int, str, str]:
        self.calls.append(list(argv))
        if argv[0] == "/bin/sh":
            done = subprocess.run(argv, capture_output=True, text=True, check=False)
            return done.returncode, done.stdout, done.stderr
        return self.answer


@pytest.fixture
def rollback(tmp_path: Path) -> _rollback.Rollback:
    made = _rollback.Rollback(str(tmp_path / "run" / "x"), "unit-x", "the new thing", "change-1")
    made.prepare()
    return made


def armed(rollback: _rollback.Rollback, host: Host, commands: Sequence[Sequence[str]] = (("true",),)) -> None:
    rollback.arm(commands, 30, host, lambda: 1000.0)


def test_arming_starts_a_timer_on_the_host(rollback: _rollback.Rollback) -> None:
    host = Host()
    armed(rollback, host)
    assert host.calls == [
        [
            "systemd-run",
            "--quiet",
            "--collect",
            "--unit=unit-x",
            "--on-active=30s",
            "--timer-property=AccuracySec=100ms",
            "--description=Undo the new thing unless it is confirmed",
            "/bin/sh",
            rollback.path("rollback.sh"),
        ]
    ]
    assert Path(rollback.path("armed")).read_text() == "1030\n"
    assert rollback.undecided()


def test_nothing_stays_when_the_timer_cannot_be_armed(rollback: _rollback.Rollback) -> None:
    with pytest.raises(_rollback.RollbackError) as caught:
        armed(rollback, Host(1, "Failed to connect to bus\n"))
    assert str(caught.value) == "The rollback timer can't be armed, so nothing was changed: Failed to connect to bus"
    assert not Path(rollback.directory).exists()


def test_a_confirmation_in_time_disarms(rollback: _rollback.Rollback) -> None:
    host = Host()
    armed(rollback, host)
    rollback.disarm(host)
    assert host.calls[-1] == ["systemctl", "stop", "unit-x.timer"]
    assert not rollback.undecided()
    status, out, __ = host(["/bin/sh", rollback.path("rollback.sh")])
    assert (status, out) == (0, ""), "a timer that fires after the confirmation does nothing"


def test_a_confirmation_whose_answer_was_lost_succeeds_again(rollback: _rollback.Rollback) -> None:
    host = Host()
    armed(rollback, host)
    assert not rollback.confirmed()
    for _again in range(2):
        with rollback.confirming():
            rollback.disarm(host)
            rollback.keep_answer()
        assert rollback.confirmed()
        assert sorted(path.name for path in Path(rollback.directory).iterdir()) == ["change", "confirmed"]


def test_only_the_very_change_counts_as_confirmed(rollback: _rollback.Rollback) -> None:
    host = Host()
    armed(rollback, host)
    rollback.disarm(host)
    other = _rollback.Rollback(rollback.directory, "unit-x", "the new thing", "change-2")
    assert not other.confirmed()
    with pytest.raises(_rollback.RollbackError) as caught, other.confirming():
        pass
    assert str(caught.value) == "The confirmation of the new thing came too late: another change took its place"
    other.prepare()
    assert not other.confirmed()
    assert not rollback.confirmed()


def test_a_confirmation_of_what_was_never_armed_is_too_late(tmp_path: Path) -> None:
    never = _rollback.Rollback(str(tmp_path / "never"), "unit-x", "the new thing", "change-1")
    with pytest.raises(_rollback.RollbackError) as caught, never.confirming():
        pass
    assert str(caught.value) == "The confirmation of the new thing came too late: its rollback had begun"
    assert not never.confirmed()


def test_the_timer_puts_the_old_state_back_and_a_late_confirmation_is_refused(
    rollback: _rollback.Rollback, tmp_path: Path
) -> None:
    host = Host()
    marks = tmp_path / "it's here"
    armed(rollback, host, [["false"], ["touch", str(marks)]])
    status, out, __ = host(["/bin/sh", rollback.path("rollback.sh")])
    assert marks.exists(), "a failing command does not stop the others"
    assert status == 1
    assert out == (
        "gpufleet: nobody confirmed the new thing over a new connection within 30 s\n"
        "gpufleet: the old state is NOT back\n"
    )
    with pytest.raises(_rollback.RollbackError) as caught:
        rollback.disarm(host)
    assert str(caught.value) == "The confirmation of the new thing came too late: its rollback had begun"


def test_a_successful_rollback_says_so(rollback: _rollback.Rollback) -> None:
    host = Host()
    armed(rollback, host)
    status, out, __ = host(["/bin/sh", rollback.path("rollback.sh")])
    assert status == 0
    assert out.endswith("gpufleet: the old state is back\n")


def test_settling_waits_for_the_decision_of_another_run(rollback: _rollback.Rollback) -> None:
    host = Host()
    armed(rollback, host)
    clock = [1000.0]

    def sleep(seconds: float) -> None:
        clock[0] += seconds
        if clock[0] == 1010.0:
            rollback.disarm(host)

    rollback.settle(host, lambda: clock[0], sleep)
    assert clock[0] == 1010.0
    assert not rollback.undecided()


def test_settling_does_the_work_of_a_timer_that_is_gone(rollback: _rollback.Rollback) -> None:
    host = Host()
    armed(rollback, host)
    clock = [1000.0]

    def sleep(seconds: float) -> None:
        clock[0] += seconds

    rollback.settle(host, lambda: clock[0], sleep)
    assert clock[0] == 1035.0
    assert host.calls[-1] == ["/bin/sh", rollback.path("rollback.sh")]
    assert not rollback.undecided()


def test_settling_with_nothing_undecided_does_nothing(rollback: _rollback.Rollback) -> None:
    host = Host()
    rollback.settle(host, lambda: 0.0, lambda __: None)
    assert host.calls == []


@pytest.mark.parametrize("seconds", [9, 601])
def test_seconds_out_of_range(seconds: int) -> None:
    with pytest.raises(InvalidInputError) as caught:
        _rollback.check_seconds("confirm_seconds", seconds)
    assert str(caught.value) == f"confirm_seconds is {seconds}, wanted 10 to 600 seconds"
