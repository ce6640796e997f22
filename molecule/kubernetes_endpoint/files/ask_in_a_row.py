# SPDX-License-Identifier: Apache-2.0
"""Ask the endpoint at an address twenty times, by new connections, and say who answers: ask_in_a_row.py ADDRESS.

Runs on a host of the endpoint: before and after, its HAProxy says whether it takes kube-api-1 for one that answers.
"""

from __future__ import annotations

import csv
import http.client
import socket
import ssl
import sys


def state() -> str:
    """Return what HAProxy says of the server kube-api-1."""
    with socket.socket(socket.AF_UNIX) as link:
        link.connect("/run/haproxy.sock")
        link.sendall(b"show stat\n")
        with link.makefile(encoding="ascii") as stream:
            rows = [*csv.DictReader(line.removeprefix("# ") for line in stream if line.strip())]
    # "UP 1/3" while two of three failed checks are missing.
    return next(f"kube-api-1 is {row['status'].split()[0]}" for row in rows if row["svname"] == "kube-api-1")


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


print(state(), *(name(sys.argv[1]) for __ in range(20)), state(), sep="\n")
