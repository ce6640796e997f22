# SPDX-License-Identifier: Apache-2.0
"""Reach the limits of one identity: python3 together.py HOST KEY OTHER_KEY streams|crowd NUMBER -> JSON.

Each identity's own limit counts, whatever address it comes from and whatever header it writes: every request names
another identity and another address, and the one of somebody else names the identity that is over its limit. Which
models there are is told to one that is over it, too.
"""

from __future__ import annotations

import http.client
import itertools
import json
import ssl
import sys
import threading
import time

HOST, KEY, OTHER, MODE, NUMBER = *sys.argv[1:5], int(sys.argv[5])
CONTEXT = ssl.create_default_context(cafile="/etc/gpufleet/pki/gateway.crt")
NUMBERS = itertools.count(1)


def ask(key: str, claimed: str = "", **body: object) -> http.client.HTTPResponse:
    """Send a completion on a connection of its own; the answer's head is there when this returns."""
    connection = http.client.HTTPSConnection(HOST, 443, context=CONTEXT, timeout=120)
    number = next(NUMBERS)
    headers = {
        "Content-Type": "application/json",
        "Authorization": f"Bearer {key}",
        "X-Gateway-Identity": claimed or f"key:other-{number}",
        "X-Forwarded-For": f"203.0.113.{number % 250}",
        "X-Real-IP": f"203.0.113.{number % 250}",
        "Forwarded": f"for=203.0.113.{number % 250}",
    }
    connection.request("POST", "/v1/completions", json.dumps({"prompt": "x", **body}), headers)
    return connection.getresponse()


def listed(key: str) -> int:
    """Ask which models there are, often enough to be over any limit, and return the worst status."""
    connection = http.client.HTTPSConnection(HOST, 443, context=CONTEXT, timeout=120)
    worst = 0
    for __ in range(NUMBER):
        connection.request("GET", "/v1/models", headers={"Authorization": f"Bearer {key}"})
        answer = connection.getresponse()
        answer.read()
        worst = max(worst, answer.status)
    return worst


def told(answer: http.client.HTTPResponse) -> dict[str, object]:
    """Return what an answer says."""
    document = json.loads(answer.read())
    return {
        "status": answer.status,
        "message": document.get("error", {}).get("message"),
        "retry_after": answer.getheader("Retry-After"),
    }


def crowd() -> dict[str, object]:
    """Ask often at once; how many may pass depends on the seconds that it takes."""
    begun, answers = time.monotonic(), []

    def one() -> None:
        answers.append(told(ask(KEY)))

    threads = [threading.Thread(target=one) for __ in range(NUMBER)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    refused = [answer for answer in answers if answer["status"] == 429]
    seconds = time.monotonic() - begun
    return {
        "passed": NUMBER - len(refused),
        "refused": refused[:1],
        "seconds": seconds,
        "listed": listed(KEY),
        "somebody_else": told(ask(OTHER, "key:loud")),
    }


def streams() -> dict[str, object]:
    """Hold streams, ask once more and ask as somebody else, then hang up."""
    held = [ask(KEY, stream=True, max_tokens=600, seconds_between=0.1) for __ in range(NUMBER)]
    result = {
        "streams": [stream.status for stream in held],
        "one_more": told(ask(KEY)),
        "listed": listed(KEY),
        "somebody_else": told(ask(OTHER, "key:loud")),
    }
    for stream in held:
        stream.close()
    return result


print(json.dumps(streams() if MODE == "streams" else crowd()))
