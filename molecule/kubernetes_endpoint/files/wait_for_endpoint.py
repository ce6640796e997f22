# SPDX-License-Identifier: Apache-2.0
"""Ask the endpoint until it is as wanted: wait_for_endpoint.py ADDRESS PORT SECONDS COUNT SERVER...

A new connection every 0.2 s. It is as wanted when COUNT answers in a row were 200 and came from the named servers and
from nobody else. Prints how long it took until the first of these answers; fails when it took longer than SECONDS.
"""

from __future__ import annotations

import http.client
import json
import ssl
import sys
import time


def ask(address: str, port: int) -> str:
    """Return who answers, or why nobody does."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    connection = http.client.HTTPSConnection(address, port, timeout=1, context=context)
    try:
        connection.request("GET", "/readyz")
        answer = connection.getresponse()
        if answer.status != 200 or answer.read() != b"ok":
            return f"status {answer.status}"
        connection.request("GET", "/name")
        return connection.getresponse().read().decode()
    except (OSError, http.client.HTTPException) as fault:
        return f"{type(fault).__name__}: {fault}"
    finally:
        connection.close()


address, port, seconds, count = sys.argv[1], int(sys.argv[2]), float(sys.argv[3]), int(sys.argv[4])
wanted = set(sys.argv[5:])
begun = time.monotonic()
first, row, said = 0.0, [], ""
while len(row) < count or set(row) != wanted:
    at = time.monotonic() - begun
    if at > seconds:
        sys.exit(f"after {at:.1f} s the last answers were {row[-5:]} or {said!r}, wanted {count} from {sorted(wanted)}")
    said = ask(address, port)
    if said in wanted:
        first = first if row else at
        row = [*row, said][-count:]
    else:
        row = []
    time.sleep(0.2)
json.dump({"seconds": round(first, 1)}, sys.stdout)
