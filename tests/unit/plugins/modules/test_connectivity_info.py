# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import socket
from typing import Any

import pytest

from ansible_collections.gpufleet.metal.plugins.modules.connectivity_info import fault, probe


def target(port: int, **more: Any) -> dict[str, Any]:
    return {"name": "engine", "address": "127.0.0.1", "port": port, "tls": None, "expect": None, **more}


@pytest.fixture(name="listener")
def fixture_listener() -> Any:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server


def test_a_listening_port_is_open(listener: socket.socket) -> None:
    port = listener.getsockname()[1]
    assert probe(target(port), 2.0) == {
        "name": "engine",
        "address": "127.0.0.1",
        "port": port,
        "state": "open",
        "tls_version": None,
        "tls_cipher": None,
        "error": None,
    }


def test_a_port_without_listener_is_refused(listener: socket.socket) -> None:
    port = listener.getsockname()[1]
    listener.close()
    assert probe(target(port), 2.0)["state"] == "refused"


def test_a_port_that_speaks_no_tls_is_open_with_an_error(listener: socket.socket) -> None:
    tls = {"server_name": "llm.example.org", "maximum_version": None, "ca_path": None}
    result = probe(target(listener.getsockname()[1], tls=tls), 0.2)
    assert (result["state"], result["tls_version"]) == ("open", None)
    assert "timed out" in result["error"]


@pytest.mark.parametrize(
    ("expect", "state", "tls_version", "error", "sentence"),
    [
        (None, "refused", None, "no", None),
        ("open", "open", None, None, None),
        ("filtered", "open", None, None, "engine (127.0.0.1:8000): found open, wanted filtered"),
        ("open", "filtered", None, "timed out", "engine (127.0.0.1:8000): found filtered (timed out), wanted open"),
        ("tls_refused", "open", None, "alert", None),
        ("tls_refused", "open", "TLSv1.2", None, "engine (127.0.0.1:8000): found tls_accepted, wanted tls_refused"),
        ("tls_refused", "filtered", None, "late", "engine (127.0.0.1:8000): found filtered (late), wanted tls_refused"),
        ("tls_accepted", "open", "TLSv1.3", None, None),
    ],
)
def test_a_difference_is_one_sentence(expect: Any, state: str, tls_version: Any, error: Any, sentence: Any) -> None:
    result = {"state": state, "tls_version": tls_version, "error": error}
    assert fault(target(8000, expect=expect), result) == sentence
