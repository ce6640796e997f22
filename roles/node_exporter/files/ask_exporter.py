# SPDX-License-Identifier: Apache-2.0
"""Ask a host's node_exporter in every way, and say in JSON how it answered: ask_exporter.py QUESTION, QUESTION in JSON.

The question has address and port, the certificate that has to be shown, who signed it, and a certificate of a client or
null.
"""

from __future__ import annotations

import json
import socket
import ssl
import sys
from pathlib import Path
from typing import Any

SECONDS = 10


class Exporter:
    """Asks the exporter, each time over a connection of its own."""

    def __init__(self, question: dict[str, Any]) -> None:
        self.address, self.port = question["address"], question["port"]
        self.ca_path = question["ca_path"]
        self.shown: bytes | None = None
        self.text = ""

    def ask(self, client: dict[str, str] | None = None, most: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3) -> str:
        """Return 'answered STATUS', 'refused (why)' or why there is no answer.

        Over TLS 1.3 a client is done with the handshake before it is judged: the refusal comes with the first answer.
        """
        try:
            context = ssl.create_default_context(cafile=self.ca_path)
            if client is not None:
                context.load_cert_chain(client["certificate_path"], client["key_path"])
        except (OSError, ssl.SSLError) as fault:
            return f"not asked ({fault})"
        context.maximum_version = most
        try:
            plain = socket.create_connection((self.address, self.port), SECONDS)
        except OSError as fault:
            return f"no answer ({fault})"
        with plain:
            try:
                with context.wrap_socket(plain, server_hostname=self.address) as channel:
                    self.shown = channel.getpeercert(binary_form=True)
                    channel.sendall(f"GET /metrics HTTP/1.0\r\nHost: {self.address}\r\n\r\n".encode())
                    answer = b"".join(iter(lambda: channel.recv(65536), b""))
            except ssl.SSLCertVerificationError as fault:
                return f"its certificate is not accepted ({fault.verify_message})"
            except (ssl.SSLError, ConnectionResetError, BrokenPipeError) as fault:
                return f"refused ({getattr(fault, 'reason', None) or fault})"
            except OSError as fault:
                return f"no answer ({fault})"
        if not answer:
            return "refused (the connection was closed)"
        self.text = answer.decode(errors="replace")
        return f"answered {self.text.split(maxsplit=2)[1]}"


def certificate(path: str) -> bytes | None:
    """Return the first certificate of a file, as it is shown in a handshake."""
    try:
        text = Path(path).read_text(encoding="ascii")
        end = "-----END CERTIFICATE-----"
        return ssl.PEM_cert_to_DER_cert(text[: text.index(end) + len(end)])
    except (OSError, ValueError):
        return None


def proof(question: dict[str, Any]) -> dict[str, Any]:
    """Ask the exporter in every way."""
    exporter = Exporter(question)
    without = exporter.ask()
    shown = exporter.shown
    in_place = certificate(question["certificate_path"])
    with_one = exporter.ask(question["client"]) if question["client"] else "not asked"
    text, exporter.text = exporter.text, ""
    return {
        "without a certificate": without,
        "with a certificate": with_one,
        "over TLS 1.2": exporter.ask(question["client"], ssl.TLSVersion.TLSv1_2),
        "shows": "nothing"
        if shown is None
        else ("the certificate in place" if shown == in_place else "another certificate"),
        "unreadable": ["node_exporter_textfile_directory"] if "\nnode_textfile_scrape_error 1\n" in text else [],
    }


json.dump({"asked": proof(json.loads(sys.argv[1]))}, sys.stdout)
