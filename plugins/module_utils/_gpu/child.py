# SPDX-License-Identifier: Apache-2.0
# PRIVATE to the collection: do not import this from outside, it may change without notice.
"""Call a function in a child process with a deadline, because a driver that hangs must not hang its caller.

A question to a broken driver can sleep in the kernel (ioctl), where no signal and no thread timeout reaches it. A child
can be left behind there: it is killed with its whole process group, and nobody waits for it longer than a moment.
"""

from __future__ import annotations

import json
import os
import select
import signal
import sys
import time
from typing import Any, Callable, NoReturn

from ansible_collections.gpufleet.metal.plugins.module_utils._errors import FleetError

# How long a killed child may take to go; one that sleeps in the kernel goes when the kernel lets it.
_FAREWELL_SECONDS = 0.5
_POLL_SECONDS = 0.01
_CHUNK_BYTES = 65536


class DeadlineError(FleetError):
    """The child gave no answer in time; it was killed."""


class ChildError(FleetError):
    """The child ended without an answer; the message says how."""


def call(function: Callable[[], Any], deadline_seconds: float) -> Any:
    """Return what ``function`` returns, computed in a child of its own.

    Args:
        function: returns what JSON can carry. Programs that it starts belong to the child's process group.
        deadline_seconds: seconds until the child and its group are killed.

    Raises:
        DeadlineError: there was no answer before the deadline.
        ChildError: the function raised, or the child was ended by a signal.
    """
    reader, writer = os.pipe()
    sys.stdout.flush()
    sys.stderr.flush()
    child = os.fork()
    if child == 0:
        os.close(reader)
        _answer(function, writer)
    os.close(writer)
    try:
        text = _read(reader, time.monotonic() + deadline_seconds)
    finally:
        os.close(reader)
        _end(child)
    status = _status(child)
    if text is None:
        raise DeadlineError(f"no answer within {deadline_seconds:g} seconds")
    try:
        answer = json.loads(text)
    except ValueError:
        by_signal = os.WIFSIGNALED(status) and os.WTERMSIG(status) != signal.SIGKILL
        how = f"was ended by signal {os.WTERMSIG(status)}" if by_signal else "ended without an answer"
        raise ChildError(f"the process that asked {how}") from None
    if "error" in answer:
        raise ChildError(answer["error"])
    return answer["value"]


def _answer(function: Callable[[], Any], writer: int) -> NoReturn:
    """The child's whole life: it never returns, and holds none of its parent's streams open while it sleeps."""
    try:
        os.setsid()
        nowhere = os.open(os.devnull, os.O_RDWR)
        for stream in (0, 1, 2):
            os.dup2(nowhere, stream)
        try:
            answer = json.dumps({"value": function()})
        except Exception as error:
            answer = json.dumps({"error": f"{type(error).__name__}: {error}"})
        with os.fdopen(writer, "w", encoding="utf-8") as stream_out:
            stream_out.write(answer)
    finally:
        os._exit(0)


def _read(reader: int, deadline: float) -> str | None:
    """Everything until the child closes its end, or None when the deadline comes first."""
    chunks: list[bytes] = []
    while True:
        left = deadline - time.monotonic()
        if left <= 0 or not select.select([reader], [], [], left)[0]:
            return None
        chunk = os.read(reader, _CHUNK_BYTES)
        if not chunk:
            return b"".join(chunks).decode("utf-8", errors="replace")
        chunks.append(chunk)


def _end(child: int) -> None:
    """Kill what is left of the child and of the programs that it started."""
    for kill in (os.killpg, os.kill):
        try:
            kill(child, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            continue


def _status(child: int) -> int:
    """The child's wait status; 0 when it cannot go yet, then init takes it over when this process ends."""
    until = time.monotonic() + _FAREWELL_SECONDS
    while True:
        try:
            gone, status = os.waitpid(child, os.WNOHANG)
        except ChildProcessError:
            return 0
        if gone:
            return status
        if time.monotonic() >= until:
            return 0
        time.sleep(_POLL_SECONDS)
