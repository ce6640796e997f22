# SPDX-License-Identifier: Apache-2.0
"""Have Prometheus take over its configuration, and say whether it did: reload_prometheus.py URL-OF-METRICS UNIT."""

from __future__ import annotations

import re
import subprocess
import sys
import time
import urllib.request

SECONDS = 60
_SAMPLE = re.compile(r"^prometheus_config_last_reload_(successful|success_timestamp_seconds) (\S+)$", re.MULTILINE)


def state(url: str) -> tuple[bool, float]:
    """Return whether the last reload went well, and when one did last."""
    with urllib.request.urlopen(url, timeout=10) as answer:
        found = dict(_SAMPLE.findall(answer.read().decode()))
    return float(found["successful"]) == 1, float(found["success_timestamp_seconds"])


def main(url: str, unit: str) -> int:
    """Reload, and wait until Prometheus has said how it went."""
    was_well, before = state(url)
    subprocess.run(["systemctl", "reload", unit], check=True)
    until = time.monotonic() + SECONDS
    while time.monotonic() < until:
        well, when = state(url)
        if well and when > before:
            return 0
        # Where it was unwell before, only the time tells a success from what was.
        if was_well and not well:
            break
        time.sleep(0.2)
    print(f"{unit} did not take over its configuration. It says:", file=sys.stderr, flush=True)
    subprocess.run(["journalctl", f"--unit={unit}", "--lines=10", "--output=cat"], stdout=sys.stderr, check=False)
    return 1


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
