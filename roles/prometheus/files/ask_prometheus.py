# SPDX-License-Identifier: Apache-2.0
"""Ask a host's Prometheus about itself and its targets: ask_prometheus.py QUESTION, QUESTION and answer in JSON.

The question has address and port, the file of the configuration, how many targets there are, and how many seconds they
have to be well.
"""

from __future__ import annotations

import json
import os
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from typing import Any

#: A large database is read back after a start for minutes, in which Prometheus listens and knows nothing.
READY_SECONDS = 600


class Prometheus:
    """Asks it over HTTP."""

    def __init__(self, address: str, port: int) -> None:
        self.base = f"http://[{address}]:{port}" if ":" in address else f"http://{address}:{port}"

    def text(self, path: str) -> str:
        """Return what it says at a path."""
        with urllib.request.urlopen(self.base + path, timeout=10) as answer:
            found: str = answer.read().decode()
        return found

    def await_ready(self, seconds: float = READY_SECONDS) -> None:
        """Wait while it says that it is not ready yet, as one that is being started does."""
        until = time.monotonic() + seconds
        while True:
            try:
                self.text("/-/ready")
                return
            except urllib.error.HTTPError as refused:
                if refused.code != 503 or time.monotonic() > until:
                    raise
            time.sleep(0.5)

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
        prometheus.await_ready()
        return {
            "fault": None,
            "configured": prometheus.configured(question["configuration"]),
            "targets": prometheus.awaited_targets(question["targets"], question["seconds"]),
        }
    except (OSError, KeyError, ValueError) as fault:
        return {"fault": f"no answer ({fault!r})"}


json.dump(proof(json.loads(sys.argv[1])), sys.stdout)
