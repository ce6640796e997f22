# SPDX-License-Identifier: Apache-2.0
"""Say in JSON what a host's Prometheus is like: look_at_prometheus.py QUESTION, QUESTION in JSON.

The question has the user, the unit, programs, keys and files; for a verification also address and port, the file of the
configuration, how many targets there are, and how many seconds they have to be well.
"""

from __future__ import annotations

import json
import os
import pwd
import subprocess
import sys
import time
import urllib.parse
import urllib.request
from typing import Any


def run(*arguments: str) -> str:
    """Run a command that reads."""
    return subprocess.run(arguments, capture_output=True, text=True, check=False).stdout


def unit_state(unit: str) -> str:
    """Return 'enabled active', or what it is instead."""
    shown = run("systemctl", "show", "--property=UnitFileState,ActiveState", unit)
    properties = dict(line.partition("=")[::2] for line in shown.splitlines())
    return f"{properties.get('UnitFileState') or 'absent'} {properties.get('ActiveState', 'unknown')}"


def addresses() -> list[str]:
    """Return the addresses of this host."""
    links = json.loads(subprocess.run(["ip", "-json", "address", "show"], capture_output=True, check=True).stdout)
    return [one["local"] for link in links for one in link["addr_info"] if one["scope"] != "link"]


def rights(path: str) -> str | None:
    """Return owner and mode of a file; None where there is none."""
    try:
        found = os.stat(path)
    except FileNotFoundError:
        return None
    try:
        owner = pwd.getpwuid(found.st_uid).pw_name
    except KeyError:
        owner = str(found.st_uid)
    return f"{owner} {found.st_mode & 0o7777:o}"


def listening(port: int) -> list[str]:
    """Return where somebody listens at a port."""
    lines = run("ss", "--listening", "--tcp", "--numeric", "--no-header", f"sport = :{port}").splitlines()
    return sorted(line.split()[3] for line in lines)


class Prometheus:
    """Asks it over HTTP."""

    def __init__(self, address: str, port: int) -> None:
        self.base = f"http://[{address}]:{port}" if ":" in address else f"http://{address}:{port}"

    def text(self, path: str) -> str:
        """Return what it says at a path."""
        with urllib.request.urlopen(self.base + path, timeout=10) as answer:
            found: str = answer.read().decode()
        return found

    def targets(self) -> list[dict[str, str]]:
        """Return whom it asks, and how they were at the last time."""
        active = json.loads(self.text("/api/v1/targets?state=active"))["data"]["activeTargets"]
        return [
            {
                "job": target["labels"]["job"],
                "endpoint": urllib.parse.urlsplit(target["scrapeUrl"]).netloc,
                "health": target["health"],
                "error": target["lastError"],
            }
            for target in active
        ]

    def awaited_targets(self, count: int, seconds: int) -> list[dict[str, str]]:
        """Return the targets as soon as all are up, or as they are when the time is over."""
        until = time.monotonic() + seconds
        targets = self.targets()
        while time.monotonic() < until and (
            len(targets) < count or any(target["health"] != "up" for target in targets)
        ):
            time.sleep(0.5)
            targets = self.targets()
        return targets

    def configured(self, path: str) -> bool:
        """Return whether it runs with a file as it is now."""
        found = dict(line.rsplit(" ", 1) for line in self.text("/metrics").splitlines() if not line.startswith("#"))
        when = float(found["prometheus_config_last_reload_success_timestamp_seconds"])
        return float(found["prometheus_config_last_reload_successful"]) == 1 and when >= os.stat(path).st_mtime


def proof(question: dict[str, Any]) -> dict[str, Any]:
    """Ask Prometheus about itself and its targets."""
    prometheus = Prometheus(question["address"], question["port"])
    try:
        return {
            "fault": None,
            "configured": prometheus.configured(question["configuration"]),
            "targets": prometheus.awaited_targets(question["targets"], question["seconds"]),
        }
    except (OSError, KeyError, ValueError) as fault:
        return {"fault": f"no answer ({fault!r})"}


def look(question: dict[str, Any]) -> dict[str, Any]:
    """Answer the question."""
    answer: dict[str, Any] = {
        "user": question["user"],
        "unit": unit_state(question["unit"]),
        "missing": [path for path in question["programs"] if not os.access(path, os.X_OK)],
        "absent": [path for path in question["files"] if not os.path.exists(path)],
        "keys": {path: rights(path) for path in question["keys"]},
        "addresses": addresses(),
    }
    if "address" in question:
        answer["listening"] = listening(question["port"])
        answer.update(proof(question))
    return answer


json.dump(look(json.loads(sys.argv[1])), sys.stdout)
