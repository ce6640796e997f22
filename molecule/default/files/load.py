# SPDX-License-Identifier: Apache-2.0
"""Ask a gateway for completions, one after the other, and write down how each request ended.

Usage: load.py ADDRESS CA_FILE MODEL PATIENCE OUTPUT.json

OUTPUT holds a list of {"started": UNIX seconds, "seconds": float, "last": bool, "fault": null or text} in the order of
their start. Each request uses a connection of its own. A request without an answer within PATIENCE seconds is given up,
so that an engine that hangs does not stop the load. When the file OUTPUT.last appears, the load sends LAST_REQUESTS
more, waits up to LAST_PATIENCE_SECONDS for each, and ends: so many there are to judge on any machine, however long it
takes. If nobody announces the end, it comes after LIMIT_SECONDS.
"""

from __future__ import annotations

import http.client
import json
import os
import ssl
import sys
import time

LAST_REQUESTS = 20
# Only an engine that hangs takes longer: a slow machine is not a fault.
LAST_PATIENCE_SECONDS = 240.0
LIMIT_SECONDS = 1800.0
# Steady traffic, not all that the engines can take: an engine's workers spin for a second after each request (vLLM's
# SpinCondition, busy_loop_s), so on two shared cores more would starve the playbooks that the load accompanies. None of
# them does anything while the last requests come.
PAUSE_SECONDS = 2.0
LAST_PAUSE_SECONDS = 0.5


def ask(address: str, context: ssl.SSLContext, model: str, patience: float) -> str | None:
    """Send one completion; returns what went wrong, or None."""
    body = json.dumps({"model": model, "prompt": "rack server driver", "max_tokens": 8})
    connection = http.client.HTTPSConnection(address, 443, context=context, timeout=patience)
    try:
        connection.request("POST", "/v1/completions", body, {"Content-Type": "application/json"})
        response = connection.getresponse()
        content = response.read()
    except (OSError, http.client.HTTPException) as error:
        return repr(error)
    finally:
        connection.close()
    return None if response.status == 200 else f"{response.status} {content[:200]!r}"


def main() -> None:
    """Send requests until the end was announced and the last ones are answered."""
    address, ca_file, model, patience, output = sys.argv[1:]
    context = ssl.create_default_context(cafile=ca_file)
    until = time.monotonic() + LIMIT_SECONDS
    requests: list[dict[str, object]] = []
    left = LAST_REQUESTS
    while left and time.monotonic() < until:
        last = os.path.exists(f"{output}.last")
        left -= last
        started, begun = time.time(), time.monotonic()
        fault = ask(address, context, model, LAST_PATIENCE_SECONDS if last else float(patience))
        seconds = round(time.monotonic() - begun, 3)
        requests.append({"started": started, "seconds": seconds, "last": last, "fault": fault})
        time.sleep(LAST_PAUSE_SECONDS if last else PAUSE_SECONDS)
    with open(output, "w", encoding="utf-8") as out:
        json.dump(requests, out, indent=1)


if __name__ == "__main__":
    main()
