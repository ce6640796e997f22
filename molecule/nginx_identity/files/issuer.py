# SPDX-License-Identifier: Apache-2.0
"""A token issuer's key set on https://127.0.0.1:9443/jwks.json, with the gateway's certificate; counts the fetches."""

from __future__ import annotations

import http.server
import ssl
from pathlib import Path

FILE, COUNT = Path("/usr/local/lib/issuer/jwks.json"), Path("/usr/local/lib/issuer/fetched")


class Handler(http.server.BaseHTTPRequestHandler):
    """Answers with the file."""

    def do_GET(self) -> None:
        """Answer, or say that there is nothing."""
        known = self.path == "/jwks.json" and FILE.exists()
        body = FILE.read_bytes() if known else b"gone"
        with COUNT.open("a", encoding="ascii") as count:
            count.write("x")
        self.send_response(200 if known else 500)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


server = http.server.HTTPServer(("127.0.0.1", 9443), Handler)
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain("/etc/gpufleet/pki/gateway.crt", "/etc/gpufleet/pki/gateway.key")
server.socket = context.wrap_socket(server.socket, server_side=True)
server.serve_forever()
