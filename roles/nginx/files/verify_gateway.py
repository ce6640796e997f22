# SPDX-License-Identifier: Apache-2.0
"""Look at a gateway from itself, the way a client and an operator would, and print what was found as JSON.

Usage: python3 verify_gateway.py ADDRESSES PORT SERVER_NAME CERTIFICATE NGINX AGENT UNIT_FILE...

ADDRESSES are those that NGINX is told to listen on, with commas between them; "all" stands for all that the host has.

Judges nothing: the role's verify entry point compares. Changes nothing. Python >= 3.9, standard library only.
"""

from __future__ import annotations

import http.client
import ipaddress
import json
import os
import socket
import ssl
import subprocess
import sys
import time
from typing import Any

LOOPBACK = {"0.0.0.0": "127.0.0.1", "[::]": "::1"}
"""Where an address that stands for all of its family is reached; [::] takes no IPv4 in NGINX."""


def reachable(listen: str) -> list[str]:
    """Return the addresses to connect to."""
    if listen == "all":
        return ["127.0.0.1"] + ["::1"] * has_address("::1")
    return [LOOPBACK.get(address, address.strip("[]")) for address in listen.split(",")]


def has_address(address: str, table: str = "/proc/net/if_inet6") -> bool:
    """Return whether the host has the IPv6 address; a host may know IPv6 and have none."""
    wanted = ipaddress.ip_address(address).packed.hex()
    try:
        with open(table, encoding="ascii") as handle:
            return any(line.split()[0] == wanted for line in handle)
    except FileNotFoundError:
        return False


def command(*words: str) -> tuple[int, str]:
    """Run a command; returns its status and all of its output."""
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    return done.returncode, (done.stdout + done.stderr).strip()


def handshake(address: str, port: int, name: str, version: ssl.TLSVersion) -> dict[str, Any]:
    """Connect with exactly one version of TLS; says what was agreed on, or why nothing was."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    # Whom the certificate proves is another role's matter; here it is only compared with the file.
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    try:
        context.minimum_version = context.maximum_version = version
        plain = socket.create_connection((address, port), timeout=10)
        with plain, context.wrap_socket(plain, server_hostname=name) as secured:
            cipher = secured.cipher()
            certificate = secured.getpeercert(binary_form=True) or b""
            return {
                "accepted": True,
                "version": secured.version(),
                "cipher": cipher[0] if cipher else None,
                "certificate": ssl.DER_cert_to_PEM_cert(certificate),
            }
    except (OSError, ValueError) as fault:
        return {"accepted": False, "fault": str(fault)}


def get(address: str, port: int, name: str, path: str) -> dict[str, Any]:
    """GET over TLS; says status and body, or why there is none."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    connection = http.client.HTTPSConnection(name, port, context=context, timeout=10)
    try:
        with socket.create_connection((address, port), timeout=10) as plain:
            connection.sock = context.wrap_socket(plain, server_hostname=name)
            connection.request("GET", path)
            response = connection.getresponse()
            challenge = response.getheader("WWW-Authenticate")
            body = response.read(65536).decode("utf-8", "replace")
            return {"status": response.status, "body": body, "challenge": challenge}
    except (OSError, http.client.HTTPException) as fault:
        return {"status": 0, "body": str(fault), "challenge": None}
    finally:
        connection.close()


def first_certificate(path: str) -> str:
    """Return the first certificate of a PEM file, in the form that a handshake's is compared in."""
    with open(path, encoding="ascii") as handle:
        text = handle.read()
    begin, end = "-----BEGIN CERTIFICATE-----", "-----END CERTIFICATE-----"
    first = text[text.index(begin) : text.index(end) + len(end)]
    return ssl.DER_cert_to_PEM_cert(ssl.PEM_cert_to_DER_cert(first))


def agent_status(agent: str, seconds: float = 15) -> dict[str, Any]:
    """Return what the agent says, once NGINX serves what lies on the disk: it reloads when engines come and go."""
    until = time.monotonic() + seconds
    while True:
        status, text = command(agent, "status")
        found: dict[str, Any] = json.loads(text) if status == 0 else {"fault": text}
        settled = found.get("build_served") == found.get("build_on_disk") or found.get("nginx_pid") is None
        if settled or time.monotonic() > until:
            return found
        time.sleep(0.5)


def main(words: list[str]) -> None:
    """Gather and print."""
    addresses, port, name, certificate, nginx, agent = reachable(words[0]), int(words[1]), *words[2:6]
    address = addresses[0]
    others = {other: handshake(other, port, name, ssl.TLSVersion.TLSv1_3) for other in addresses[1:]}
    status, text = command(nginx, "-t", "-q")
    modern = handshake(address, port, name, ssl.TLSVersion.TLSv1_3)
    served = modern.pop("certificate", None)
    print(
        json.dumps(
            {
                "configuration": {"accepted": status == 0, "output": text},
                "nginx": command("systemctl", "is-active", "nginx.service")[1],
                "agent": command("systemctl", "is-active", "gpufleet-probe.service")[1],
                "agent_status": agent_status(agent),
                "tls12": handshake(address, port, name, ssl.TLSVersion.TLSv1_2),
                "tls13": modern,
                "silent": {other: seen["fault"] for other, seen in others.items() if not seen["accepted"]},
                "certificate_is_the_file": served == first_certificate(certificate),
                "healthz": get(address, port, name, "/healthz"),
                "models": get(address, port, name, "/v1/models"),
                "forbidden": get(address, port, name, "/invocations"),
                # Which of these a gateway needs depends on its NGINX; that none is missing is seen at /v1/models.
                "units": {
                    os.path.basename(unit): command("systemctl", "is-active", os.path.basename(unit))[1]
                    for unit in words[6:]
                    if os.path.exists(unit)
                },
            }
        )
    )


if __name__ == "__main__":
    main(sys.argv[1:])
