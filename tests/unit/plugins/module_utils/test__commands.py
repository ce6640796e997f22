# SPDX-License-Identifier: Apache-2.0
"""A command with a deadline: its answer, its absence, and that one which cannot be ended politely holds nobody up."""

from __future__ import annotations

import os
import re
import time
from pathlib import Path

import pytest

from ansible_collections.gpufleet.metal.plugins.module_utils._commands import bounded
from ansible_collections.gpufleet.metal.plugins.module_utils._gpu.child import DeadlineError

LONG_SECONDS = 600


def program(path: Path, text: str) -> str:
    """Write a shell script and return its path."""
    path.write_text(f"#!/bin/sh\n{text}\n", encoding="utf-8")
    path.chmod(0o755)
    return str(path)


def is_running(pid: int) -> bool:
    """Whether a process is there and no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(") ")[2][0] != "Z"
    except FileNotFoundError:
        return False


def test_an_answer(tmp_path: Path) -> None:
    command = program(tmp_path / "smi", 'cat; echo "$LC_ALL $1" >&2; exit 3')
    assert bounded(LONG_SECONDS)([command, "-q"], "asked") == (3, "asked", "C.UTF-8 -q\n")
    assert bounded(LONG_SECONDS)([command]) == (3, "", "C.UTF-8 \n")


def test_an_environment_of_its_own(tmp_path: Path) -> None:
    command = program(tmp_path / "smi", 'echo "${HOME-none} $LC_ALL"')
    assert bounded(LONG_SECONDS, {"LC_ALL": "C"})([command])[1] == "none C\n"


def test_a_program_that_is_not_there() -> None:
    assert bounded(LONG_SECONDS)(["/nowhere/smi"]) == (127, "", "/nowhere/smi: No such file or directory")


def test_what_is_no_text_is_shown_nevertheless(tmp_path: Path) -> None:
    assert bounded(LONG_SECONDS)([program(tmp_path / "smi", r"printf '\377'")])[1] == "\ufffd"


def test_one_that_ignores_signals_is_killed_with_what_it_started(tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    command = program(
        tmp_path / "smi", f"trap '' TERM INT HUP\nsleep {LONG_SECONDS} &\necho $$ $! > {pids}\nwait\nwait"
    )
    begun = time.monotonic()
    message = f"{command} -q gave no answer within 3 seconds and was killed"
    with pytest.raises(DeadlineError, match=f"^{re.escape(message)}$"):
        bounded(3)([command, "-q"])
    assert time.monotonic() - begun < LONG_SECONDS / 10
    for pid in map(int, pids.read_text(encoding="ascii").split()):
        assert pid != os.getpid()
        while is_running(pid):
            time.sleep(0.01)
