# SPDX-License-Identifier: Apache-2.0
"""Put load on a gateway and count what failed: python3 load.py HOST PATH MODE CLIENTS SECONDS -> one JSON line.

MODE is requests (each client sends one POST after the other, each on a connection of its own) or streams (each client
reads one event stream of SECONDS; a stream that does not end with [DONE], or whose events do not come at the pace of
the engine, failed). A client that ends otherwise ends the program with a traceback.
"""

from __future__ import annotations

import http.client
import itertools
import json
import ssl
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

PAUSE_SECONDS = 0.1
"""Between two events of a stream; the engine is asked for it."""

PATIENCE_SECONDS = 30.0


@dataclass(frozen=True)
class Outcome:
    """One request or stream; the first event counts from the request."""

    seconds: float
    fault: str | None
    first_event: float = 0.0
    largest_gap: float = 0.0


@dataclass(frozen=True)
class Load:
    """Whom to ask, and for how long."""

    host: str
    path: str
    seconds: float
    context: ssl.SSLContext

    def _post(self, payload: dict[str, object]) -> http.client.HTTPResponse:
        timeout = self.seconds + PATIENCE_SECONDS
        connection = http.client.HTTPSConnection(self.host, 443, context=self.context, timeout=timeout)
        connection.request("POST", self.path, json.dumps(payload), {"Content-Type": "application/json"})
        return connection.getresponse()

    def requests(self, until: float) -> list[Outcome]:
        """Send one POST after the other."""
        outcomes = []
        while time.monotonic() < until:
            begun = time.monotonic()
            try:
                response = self._post({"model": "alpha", "prompt": "x", "max_tokens": 4})
                body = response.read()
                fault = None if response.status == 200 else f"{response.status} {body[:120]!r}"
            except (OSError, http.client.HTTPException) as error:
                fault = repr(error)
            if fault is not None:
                fault = f"{time.time():.2f} {fault}"
            outcomes.append(Outcome(time.monotonic() - begun, fault))
        return outcomes

    def stream(self) -> Outcome:
        """Read one event stream to its end."""
        wanted = int(self.seconds / PAUSE_SECONDS)
        begun = time.monotonic()
        arrivals, line, fault = [begun], b"", None
        try:
            response = self._post({"stream": True, "max_tokens": wanted, "seconds_between": PAUSE_SECONDS})
            for read in response:
                if read.startswith(b"data:"):
                    arrivals.append(time.monotonic())
                    line = read
        except (OSError, http.client.HTTPException) as error:
            fault = repr(error)
        first, *events = arrivals if len(arrivals) > 1 else [begun, begun + self.seconds]
        count, spread = len(arrivals) - 1, events[-1] - events[0]
        if fault is None and (line.strip() != b"data: [DONE]" or count != wanted + 1):
            fault = f"ended after {count} of {wanted + 1} events"
        # What is held back until the end comes at once, however late the engine sent the last of it.
        if fault is None and spread < 0.9 * wanted * PAUSE_SECONDS:
            fault = f"{count} events came within {spread:.2f} s, sent over {wanted * PAUSE_SECONDS:.2f} s"
        gaps = [late - early for early, late in itertools.pairwise(events)]
        return Outcome(time.monotonic() - begun, fault, events[0] - first, max(gaps, default=0.0))


def main(words: list[str]) -> None:
    """Have all clients at work at once, and print what they saw."""
    host, path, mode, clients, seconds = words[0], words[1], words[2], int(words[3]), float(words[4])
    context = ssl.create_default_context(cafile="/etc/gpufleet/pki/ca.crt")
    load = Load(host, path, seconds, context)
    with ThreadPoolExecutor(clients) as pool:
        if mode == "requests":
            until = time.monotonic() + seconds
            running = [pool.submit(load.requests, until) for __ in range(clients)]
            outcomes = [outcome for client in running for outcome in client.result()]
        else:
            outcomes = [stream.result() for stream in [pool.submit(load.stream) for __ in range(clients)]]
    latencies = sorted(outcome.seconds for outcome in outcomes)
    failures = [outcome.fault for outcome in outcomes if outcome.fault is not None]
    print(
        json.dumps(
            {
                "requests": len(outcomes),
                "failures": len(failures),
                "first_failures": failures[:5],
                "p99_seconds": round(latencies[int(len(latencies) * 0.99) - 1], 3),
                "latest_first_event_seconds": round(max(outcome.first_event for outcome in outcomes), 3),
                "largest_gap_seconds": round(max(outcome.largest_gap for outcome in outcomes), 3),
            }
        )
    )


if __name__ == "__main__":
    main(sys.argv[1:])
