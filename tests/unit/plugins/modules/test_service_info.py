# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
import os
import pwd
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.gpufleet.metal.plugins.modules.service_info import look

LINKS = (
    {"ifname": "lo", "addr_info": [{"local": "127.0.0.1", "scope": "host"}]},
    {
        "ifname": "eth0",
        "addr_info": [{"local": "198.51.100.11", "scope": "global"}, {"local": "fe80::1", "scope": "link"}],
    },
    {"ifname": "tunl0"},
)
LISTENERS = """LISTEN 0 4096 198.51.100.11:9100 0.0.0.0:*
LISTEN 0 4096 127.0.0.1:9100 0.0.0.0:*
"""


def host(unit: str, links: Any = LINKS, listeners: str = LISTENERS) -> Any:
    """What the commands of a host say."""
    said = {"systemctl": unit, "ip": json.dumps(links), "ss": listeners}

    def run(argv: Sequence[str], stdin: str | None = None) -> tuple[int, str, str]:
        return 0, said[argv[0]], ""

    return run


def question(**more: Any) -> dict[str, Any]:
    return {
        "unit": "exporter.service",
        "user": "prometheus",
        "programs": [],
        "files": [],
        "keys": [],
        "port": 9100,
        **more,
    }


def test_all_of_it_at_once(tmp_path: Path) -> None:
    program, key = tmp_path / "program", tmp_path / "key"
    program.touch(0o755)
    key.touch(0o600)
    found = look(
        host("UnitFileState=enabled\nActiveState=active\n"),
        question(
            programs=[str(program), str(key), "/no/such/program"],
            files=[str(key), "/no/such/file"],
            keys=[str(key), "/no/such/key"],
        ),
    )
    me = pwd.getpwuid(os.getuid()).pw_name
    assert found == {
        "user": "prometheus",
        "unit": "enabled active",
        "missing": [str(key), "/no/such/program"],
        "absent": ["/no/such/file"],
        "keys": {str(key): f"{me} 600", "/no/such/key": None},
        "addresses": ["127.0.0.1", "198.51.100.11"],
        "listening": ["127.0.0.1:9100", "198.51.100.11:9100"],
    }


@pytest.mark.parametrize(
    ("said", "state"),
    [
        ("UnitFileState=disabled\nActiveState=failed\n", "disabled failed"),
        # A unit that systemd does not know has no state of its file.
        ("UnitFileState=\nActiveState=inactive\n", "absent inactive"),
        ("", "absent unknown"),
    ],
)
def test_a_unit_that_is_not_well(said: str, state: str) -> None:
    assert look(host(said), question())["unit"] == state


def test_nobody_listens() -> None:
    assert look(host("", listeners=""), question())["listening"] == []
