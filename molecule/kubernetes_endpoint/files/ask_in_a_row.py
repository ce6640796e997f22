# SPDX-License-Identifier: Apache-2.0
"""Stop kube-api-1 and ask the endpoint at an address, by one new connection after the other, while HAProxy takes it for
one that answers; say who answered, and how often it was asked: ask_in_a_row.py ADDRESS.

Runs on kube-api-1, which is a host of the endpoint, too.
"""

from __future__ import annotations

import csv
import http.client
import socket
import ssl
import subprocess
import sys


def is_up() -> bool:
    """Tell whether HAProxy takes the server kube-api-1 for one that answers."""
    with socket.socket(socket.AF_UNIX) as link:
        link.connect("/run/haproxy.sock")
        link.sendall(b"show stat\n")
        with link.makefile(encoding="ascii") as stream:
            rows = [*csv.DictReader(line.removeprefix("# ") for line in stream if line.strip())]
    # "UP 1/3" while two of three failed checks are missing.
    return next(row["status"].startswith("UP") for row in rows if row["svname"] == "kube-api-1")


def name(address: str) -> str:
    """Return who answers, or why nobody does."""
    connection = http.client.HTTPSConnection(address, 8443, timeout=2, context=ssl._create_unverified_context())
    try:
        connection.request("GET", "/name")
        return connection.getresponse().read().decode()
    except (OSError, http.client.HTTPException) as fault:
        return f"{type(fault).__name__}: {fault}"
    finally:
        connection.close()


assert is_up()
subprocess.run(["systemctl", "stop", "simulated-api-server.service"], check=True)
answers = []
while is_up():
    answers.append(name(sys.argv[1]))
print(*sorted(set(answers)), len(answers), sep="\n")
