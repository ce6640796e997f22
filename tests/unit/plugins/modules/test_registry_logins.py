# SPDX-License-Identifier: Apache-2.0
"""Logins are stored where others look for them, readable by their owner alone, and shown to nobody."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path

from ansible_collections.gpufleet.metal.plugins.module_utils._docker import registry_credentials
from ansible_collections.gpufleet.metal.plugins.modules.registry_logins import store

LOGINS = [{"registry": "r.example.org:5000", "username": "pull-1", "password": "canary"}]


def test_a_login_is_stored_once(tmp_path: Path) -> None:
    path = str(tmp_path / ".docker" / "config.json")
    rehearsed = store(LOGINS, path, check_mode=True)
    assert not os.path.exists(path)
    stored = store(LOGINS, path, check_mode=False)
    assert rehearsed == stored
    assert (stored["changed"], stored["registries"]) == (True, ["r.example.org:5000"])
    assert stored["diff"]["after"] == "login to r.example.org:5000\n"
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
    assert registry_credentials("r.example.org:5000", path) == {
        "username": "pull-1",
        "password": "canary",
        "serveraddress": "r.example.org:5000",
    }
    assert not store(LOGINS, path, check_mode=False)["changed"]
    assert "canary" not in json.dumps(stored)


def test_a_file_that_others_can_read_is_closed(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text(json.dumps({"psFormat": "x"}))
    store(LOGINS, str(path), check_mode=False)
    path.chmod(0o644)
    assert store(LOGINS, str(path), check_mode=False)["changed"]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert json.loads(path.read_text())["psFormat"] == "x"


def test_what_an_interrupted_run_left_is_no_obstacle(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    (tmp_path / "config.json.new").write_text("half")
    store(LOGINS, str(path), check_mode=False)
    assert os.listdir(tmp_path) == ["config.json"]
