# SPDX-License-Identifier: Apache-2.0
"""Say in JSON what a control plane's HAProxy and keepalived are like: look_at_endpoint.py QUESTION, QUESTION in JSON.

The question has the packages and units; for a verification also address and port of the endpoint, the health port, the
socket of HAProxy's statistics, and the commands that judge the configurations.
"""

from __future__ import annotations

import csv
import http.client
import json
import shutil
import socket
import ssl
import subprocess
import sys
import time
from typing import Any

SECONDS = 5


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a command that reads."""
    return subprocess.run(arguments, capture_output=True, text=True, check=False)


def is_installed(package: str) -> bool:
    """Ask the package manager that is here."""
    if shutil.which("dpkg-query"):
        shown = run("dpkg-query", "--show", "--showformat=${db:Status-Status}", package)
        return shown.stdout == "installed"
    return run("rpm", "--query", "--quiet", package).returncode == 0


def unit_state(unit: str) -> str:
    """Return 'enabled active', or what it is instead."""
    shown = run("systemctl", "show", "--property=UnitFileState,ActiveState", unit).stdout
    properties = dict(line.partition("=")[::2] for line in shown.splitlines())
    return f"{properties.get('UnitFileState') or 'absent'} {properties.get('ActiveState', 'unknown')}"


def interfaces() -> dict[str, list[str]]:
    """Return the IPv4 addresses of each interface, with their prefix lengths."""
    links = json.loads(subprocess.run(["ip", "-json", "-4", "address", "show"], capture_output=True, check=True).stdout)
    return {link["ifname"]: [f"{one['local']}/{one['prefixlen']}" for one in link["addr_info"]] for link in links}


def ready(address: str, port: int) -> str:
    """Return what /readyz says at an address: 'ok', another answer, or why there is none.

    Nobody is authenticated here: on a host that knows no authority of the cluster this asks whether, not who.
    """
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    connection = http.client.HTTPSConnection(address, port, timeout=SECONDS, context=context)
    try:
        connection.request("GET", "/readyz")
        answer = connection.getresponse()
        text = answer.read(200).decode(errors="replace").strip()
    except OSError as fault:
        return f"no answer ({fault})"
    finally:
        connection.close()
    return "ok" if answer.status == 200 else f"{answer.status} {text}"


def build(port: int) -> str:
    """Return the digest of the configuration that HAProxy serves."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=SECONDS)
    try:
        connection.request("GET", "/build")
        return connection.getresponse().read(100).decode(errors="replace").strip()
    except OSError as fault:
        return f"no answer ({fault})"
    finally:
        connection.close()


def statistics(path: str) -> list[dict[str, str]]:
    """Return HAProxy's lines about the API servers; none if it does not answer."""
    with socket.socket(socket.AF_UNIX) as channel:
        channel.settimeout(SECONDS)
        try:
            channel.connect(path)
            channel.sendall(b"show stat api_servers 4 -1\n")
            text = b"".join(iter(lambda: channel.recv(65536), b"")).decode()
        except OSError:
            return []
    rows = csv.DictReader(text.lstrip("# ").splitlines())
    return [row for row in rows if row["pxname"] == "api_servers"]


def servers(path: str) -> dict[str, str]:
    """Return what HAProxy thinks of each API server, once it made up its mind: after a reload that takes a while."""
    until = time.monotonic() + 2 * SECONDS
    rows = statistics(path)
    while time.monotonic() < until and not all(row["status"] in ("UP", "DOWN") for row in rows):
        time.sleep(0.5)
        rows = statistics(path)
    return {
        row["svname"]: row["status"]
        if row["status"] == "UP"
        else f"{row['status']} ({row['check_status']} {row['check_code']} {row['last_chk']})"
        for row in rows
    }


def judged(command: list[str]) -> str:
    """Return 'accepted', or what was said."""
    try:
        done = run(*command)
    except OSError as fault:
        return str(fault)
    return "accepted" if done.returncode == 0 else (done.stderr or done.stdout).strip() or f"status {done.returncode}"


def look(question: dict[str, Any]) -> dict[str, Any]:
    """Answer the question."""
    answer: dict[str, Any] = {
        "missing": [package for package in question["packages"] if not is_installed(package)],
        "units": {unit: unit_state(unit) for unit in question["units"]},
        "interfaces": interfaces(),
    }
    if "address" in question:
        answer["ready"] = ready(question["address"], question["port"])
        answer["build"] = build(question["health_port"])
        answer["servers"] = servers(question["socket"])
        answer["judged"] = {name: judged(command) for name, command in question["judges"].items()}
    return answer


json.dump(look(json.loads(sys.argv[1])), sys.stdout)
