# SPDX-License-Identifier: Apache-2.0
"""A stand-in for an API server: simulated_api_server.py CERTIFICATE KEY.

Over TLS it answers /readyz with 200, or 503 while /srv/not-ready exists, and everything else with its host's name.
"""

from __future__ import annotations

import os
import socket
import ssl
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        """Answer."""
        ready = not os.path.exists("/srv/not-ready")
        status, text = 200, socket.gethostname()
        if self.path == "/readyz":
            status, text = (200, "ok") if ready else (503, "[-]etcd failed: simulated")
        self.send_response(status)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text.encode())


context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.minimum_version = ssl.TLSVersion.TLSv1_3
context.load_cert_chain(sys.argv[1], sys.argv[2])
server = ThreadingHTTPServer(("0.0.0.0", 6443), Handler)
server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
server.serve_forever()
