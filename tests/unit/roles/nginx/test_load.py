# SPDX-License-Identifier: Apache-2.0
"""The load of the gateway's scenario: what it calls a failure decides what the scenario proves."""

from __future__ import annotations

import http.client
import importlib.util
import ssl
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

PROGRAM = Path(__file__).parents[4] / "molecule" / "nginx" / "files" / "load.py"


def load_program() -> Any:
    """It is a program, not a part of the collection's namespace."""
    spec = importlib.util.spec_from_file_location("gateway_load", PROGRAM)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["gateway_load"] = module
    spec.loader.exec_module(module)
    return module


program = load_program()


class Answer:
    """An answer that comes line by line; ``fault`` is raised at its end."""

    status = 200

    def __init__(
        self, pause: float, events: int, last: bytes = b"data: [DONE]\n", fault: Exception | None = None
    ) -> None:
        self._pause, self._events, self._last, self._fault = pause, events, last, fault

    def __iter__(self) -> Iterator[bytes]:
        for __ in range(self._events):
            yield b"data: {}\n"
            yield b"\n"
            time.sleep(self._pause)
        if self._fault is not None:
            raise self._fault
        yield self._last

    def read(self) -> bytes:
        """Return a whole body, or fail in the middle of it."""
        if self._fault is not None:
            raise self._fault
        return b"{}"


def load_with(monkeypatch: pytest.MonkeyPatch, answer: Any) -> Any:
    monkeypatch.setattr(program, "PAUSE_SECONDS", 0.01)
    monkeypatch.setattr(program.Load, "_post", lambda self, payload: answer)
    return program.Load("gateway.example", "/", 0.3, ssl.create_default_context())


@pytest.mark.parametrize(
    ("answer", "fault"),
    [
        (Answer(0.01, 30), None),
        # All of it at once, as from a proxy that holds it back.
        (Answer(0.0, 30), "31 events came within 0."),
        (Answer(0.01, 30, b"data: {}\n"), "ended after 31 of 31 events"),
        (Answer(0.01, 20), "ended after 21 of 31 events"),
        (Answer(0.01, 30, fault=http.client.IncompleteRead(b"")), "IncompleteRead(0 bytes read)"),
        (Answer(0.0, 0, fault=ConnectionResetError("reset")), "ConnectionResetError('reset')"),
    ],
)
def test_which_streams_fail(monkeypatch: pytest.MonkeyPatch, answer: Answer, fault: str | None) -> None:
    outcome = load_with(monkeypatch, answer).stream()
    assert (outcome.fault or "").startswith(fault or "")
    assert (outcome.fault is None) is (fault is None)


def test_a_request_that_is_cut_off_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    load = load_with(monkeypatch, Answer(0.0, 0, fault=http.client.IncompleteRead(b"x")))
    outcomes = load.requests(time.monotonic() + 0.01)
    assert outcomes
    assert all(outcome.fault.endswith(" IncompleteRead(1 bytes read)") for outcome in outcomes)


@pytest.mark.parametrize("mode", ["requests", "streams"])
def test_a_client_that_ends_otherwise_ends_the_program(monkeypatch: pytest.MonkeyPatch, mode: str) -> None:
    monkeypatch.setattr(ssl, "create_default_context", lambda cafile: None)
    monkeypatch.setattr(program.Load, "_post", lambda self, payload: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        program.main(["gateway.example", "/", mode, "2", "60"])
