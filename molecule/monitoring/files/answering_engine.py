# SPDX-License-Identifier: Apache-2.0
"""Stands in for an engine with mutual TLS: python3 answering_engine.py ADDRESS PORT DIRECTORY. It shows metrics alone.

Like an engine it reads its certificate anew, here for every connection, and answers nobody without one of the
authority.
"""

from __future__ import annotations

import socketserver
import ssl
import sys
from http.server import BaseHTTPRequestHandler
from typing import Any

ADDRESS, PORT, DIRECTORY = sys.argv[1], int(sys.argv[2]), sys.argv[3]
METRICS = """\
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine="0",model_name="tiny-llama"} 0.0
# TYPE vllm:prompt_tokens_total counter
vllm:prompt_tokens_total{engine="0",model_name="tiny-llama"} 7.0
# TYPE vllm:prompt_tokens_created gauge
vllm:prompt_tokens_created{engine="0",model_name="tiny-llama"} 1.7e9
"""


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    def setup(self) -> None:
        """Shake hands, in the thread of this connection."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(f"{DIRECTORY}/tls.crt", f"{DIRECTORY}/tls.key")
        context.load_verify_locations(f"{DIRECTORY}/ca.crt")
        context.verify_mode = ssl.CERT_REQUIRED
        self.request = context.wrap_socket(self.request, server_side=True)
        super().setup()

    def log_message(self, *__: Any) -> None:
        """Stay quiet."""

    def do_GET(self) -> None:
        """Show the metrics."""
        text = METRICS.encode()
        self.send_response(200 if self.path == "/metrics" else 404)
        self.send_header("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)


class Server(socketserver.ThreadingTCPServer):
    """Each connection in a thread of its own."""

    allow_reuse_address = True
    daemon_threads = True


Server((ADDRESS, PORT), Handler).serve_forever()
