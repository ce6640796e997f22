# SPDX-License-Identifier: Apache-2.0
"""A child answers, fails or hangs; the caller comes back in each case, and nothing is left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.gpufleet.metal.plugins.module_utils._gpu import child

LONG_SECONDS = 600


def is_running(pid: int) -> bool:
    """Whether a process is there and no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(") ")[2][0] != "Z"
    except FileNotFoundError:
        return False


def wait_for(gone: int) -> None:
    while is_running(gone):
        time.sleep(0.01)


@pytest.mark.parametrize("value", [None, {"a": [1, "ä", None]}, "x" * 300_000])
def test_an_answer(value: Any) -> None:
    assert child.call(lambda: value, LONG_SECONDS) == value


def test_it_is_computed_elsewhere() -> None:
    assert child.call(os.getpid, LONG_SECONDS) != os.getpid()


def test_an_exception_is_told() -> None:
    def fail() -> None:
        raise ValueError("no such thing")

    with pytest.raises(child.ChildError, match=r"^ValueError: no such thing$"):
        child.call(fail, LONG_SECONDS)


def test_a_crash_is_told() -> None:
    with pytest.raises(child.ChildError, match=r"^the process that asked was ended by signal 15$"):
        child.call(lambda: os.kill(os.getpid(), signal.SIGTERM), LONG_SECONDS)


def test_an_answer_that_json_cannot_carry_is_told() -> None:
    with pytest.raises(child.ChildError, match=r"^TypeError: Object of type set is not JSON serializable$"):
        child.call(lambda: {1, 2}, LONG_SECONDS)


def test_an_end_without_an_answer_is_told() -> None:
    with pytest.raises(child.ChildError, match=r"^the process that asked ended without an answer$"):
        child.call(lambda: os._exit(0), LONG_SECONDS)


def test_a_child_that_hangs_is_killed_with_what_it_started(tmp_path: Path) -> None:
    pids = tmp_path / "pids"

    def hang() -> None:
        program = subprocess.Popen(["sleep", str(LONG_SECONDS)])
        pids.write_text(f"{os.getpid()} {program.pid}", encoding="ascii")
        program.wait()

    with pytest.raises(child.DeadlineError, match=r"^no answer within 3 seconds$"):
        child.call(hang, 3)
    for pid in map(int, pids.read_text(encoding="ascii").split()):
        wait_for(pid)


def test_a_child_that_cannot_be_killed_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """As one that sleeps in the kernel: it never ends, so waitpid never has it."""
    left = []
    real = os.waitpid

    def never(pid: int, options: int) -> tuple[int, int]:
        left.append(pid)
        return 0, 0

    monkeypatch.setattr(os, "waitpid", never)
    with pytest.raises(child.DeadlineError):
        child.call(lambda: time.sleep(LONG_SECONDS), 0.1)
    assert len(set(left)) == 1
    real(left[0], 0)


def test_the_child_holds_no_stream_of_its_parent_open() -> None:
    """Else ssh would wait for a child that sleeps in the kernel, though the module has ended."""
    streams = child.call(lambda: [os.readlink(f"/proc/self/fd/{number}") for number in (0, 1, 2)], LONG_SECONDS)
    assert streams == ["/dev/null"] * 3
