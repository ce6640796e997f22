# SPDX-License-Identifier: Apache-2.0
"""Put load on a gateway and count what failed: python3 load.py HOST PATH MODE CLIENTS SECONDS -> one JSON line.

MODE is requests (each client sends one POST after the other, each on a connection of its own) or streams (each client
reads one event stream of SECONDS; a stream that does not end with [DONE] failed).
"""

from __future__ import annotations

import http.client
import json
import ssl
import sys
import threading
import time

HOST, PATH, MODE, CLIENTS, SECONDS = sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4]), float(sys.argv[5])
CONTEXT = ssl.create_default_context(cafile="/etc/gpufleet/pki/gateway.crt")
failures: list[str] = []
latencies: list[float] = []
largest_gap = 0.0
lock = threading.Lock()


def request(payload: dict[str, object]) -> http.client.HTTPResponse:
    """POST on a new connection."""
    connection = http.client.HTTPSConnection(HOST, 443, context=CONTEXT, timeout=SECONDS + 30)
    connection.request("POST", PATH, json.dumps(payload), {"Content-Type": "application/json"})
    return connection.getresponse()


def requests(until: float) -> None:
    """Send one POST after the other."""
    while time.monotonic() < until:
        begun = time.monotonic()
        try:
            response = request({"model": "alpha", "prompt": "x", "max_tokens": 4})
            body = response.read()
            fault = None if response.status == 200 else f"{response.status} {body[:120]!r}"
        except OSError as error:
            fault = repr(error)
        with lock:
            latencies.append(time.monotonic() - begun)
            if fault is not None:
                failures.append(f"{time.time():.2f} {fault}")


def stream() -> None:
    """Read one event stream to its end."""
    global largest_gap
    events = int(SECONDS / 0.1)
    try:
        response = request({"stream": True, "max_tokens": events, "seconds_between": 0.1})
        count, last, gap, line = 0, time.monotonic(), 0.0, b""
        while True:
            read = response.readline()
            if not read:
                break
            if read.startswith(b"data:"):
                gap, last, count, line = max(gap, time.monotonic() - last), time.monotonic(), count + 1, read
        fault = None if line.strip() == b"data: [DONE]" and count == events + 1 else f"ended after {count} of {events}"
    except (OSError, http.client.HTTPException) as error:
        fault, gap = repr(error), 0.0
    with lock:
        latencies.append(0.0)
        largest_gap = max(largest_gap, gap)
        if fault is not None:
            failures.append(fault)


end = time.monotonic() + SECONDS
threads = [
    threading.Thread(target=requests, args=(end,)) if MODE == "requests" else threading.Thread(target=stream)
    for __ in range(CLIENTS)
]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
latencies.sort()
print(
    json.dumps(
        {
            "requests": len(latencies),
            "failures": len(failures),
            "first_failures": failures[:5],
            "p99_seconds": round(latencies[int(len(latencies) * 0.99) - 1], 3),
            "largest_gap_seconds": round(largest_gap, 3),
        }
    )
)
