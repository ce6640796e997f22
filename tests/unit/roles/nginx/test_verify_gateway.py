# SPDX-License-Identifier: Apache-2.0
"""Where the gateway's own look connects to, for what NGINX was told to listen on."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest

PROGRAM = Path(__file__).parents[4] / "roles" / "nginx" / "files" / "verify_gateway.py"


def load() -> Any:
    """It is a program, not a part of the collection's namespace."""
    spec = importlib.util.spec_from_file_location("verify_gateway", PROGRAM)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


look = load()


@pytest.mark.parametrize(
    ("listen", "addresses"),
    [
        ("0.0.0.0", ["127.0.0.1"]),
        # In NGINX, [::] takes connections of IPv6 alone.
        ("[::]", ["::1"]),
        ("0.0.0.0,[::]", ["127.0.0.1", "::1"]),
        ("198.51.100.13,[2001:db8::13]", ["198.51.100.13", "2001:db8::13"]),
    ],
)
def test_where_it_connects_to(listen: str, addresses: list[str]) -> None:
    assert look.reachable(listen) == addresses


@pytest.mark.parametrize(("six", "addresses"), [(True, ["127.0.0.1", "::1"]), (False, ["127.0.0.1"])])
def test_all_addresses_are_those_that_the_host_has(
    monkeypatch: pytest.MonkeyPatch, six: bool, addresses: list[str]
) -> None:
    monkeypatch.setattr(look, "has_address", lambda address: six)
    assert look.reachable("all") == addresses


@pytest.mark.parametrize(
    ("table", "there"),
    [
        ("00000000000000000000000000000001 01 80 10 80       lo\n", True),
        ("fe800000000000000042acfffe110002 02 40 20 80     eth0\n", False),
        ("", False),
        (None, False),
    ],
)
def test_whether_the_host_has_an_address(tmp_path: Path, table: str | None, there: bool) -> None:
    if table is not None:
        (tmp_path / "if_inet6").write_text(table)
    assert look.has_address("::1", str(tmp_path / "if_inet6")) is there
