# SPDX-License-Identifier: Apache-2.0
"""Stands in for an engine in a pod: simulated_engine.py ADDRESS PORT MODEL [TLS_DIRECTORY].

It answers as vLLM does what gateways, playbooks and clients ask: health, metrics, models, completions, whole and as
streams. With a directory it answers nobody without a certificate of the authority there, and reads its own anew, here
for every connection. It takes some seconds to start, as an engine loads its model. When it is ended it ends at once,
and whoever waits for an answer gets none: nothing but the order of an upgrade keeps a request from that. What it was is
written down in LOG.
"""

from __future__ import annotations

import json
import signal
import ssl
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

ADDRESS, PORT, MODEL = sys.argv[1], int(sys.argv[2]), sys.argv[3]
TLS = Path(sys.argv[4]) if len(sys.argv) > 4 else None
LOG = Path("/srv/simulated_kubernetes/engines.log")
START_SECONDS = 5
TOKEN_SECONDS = 0.2
USAGE = {"prompt_tokens": 1, "completion_tokens": 1}


class State:
    """What it does at the moment."""

    lock = threading.Lock()
    running = 0
    #: Of clients, not of probes, which ask for one token.
    served = 0
    iterations = 0


def note(text: str) -> None:
    """Write down what happened."""
    with LOG.open("a", encoding="utf-8") as stream:
        stream.write(f"{text}\n")


def end(*__: Any) -> None:
    """End at once."""
    note(f"ended with {State.running} in hand after {State.served}")
    # Threads would be waited for.
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.raise_signal(signal.SIGTERM)


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"

    def setup(self) -> None:
        """Shake hands, in the thread of this connection."""
        if TLS is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(TLS / "tls.crt", TLS / "tls.key")
            context.load_verify_locations(TLS / "ca.crt")
            context.verify_mode = ssl.CERT_REQUIRED
            self.request = context.wrap_socket(self.request, server_side=True)
        super().setup()

    def log_message(self, *__: Any) -> None:
        """Stay quiet."""

    def _answer(self, kind: str, text: str, status: int = 200) -> None:
        data = text.encode()
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def do_GET(self) -> None:
        """Health, metrics and models."""
        if self.path == "/metrics":
            gauges = {"num_requests_running": State.running, "num_requests_waiting": 0}
            gauges["iteration_tokens_total_count"] = State.iterations
            lines = "".join(f'vllm:{name}{{engine="0"}} {value}\n' for name, value in gauges.items())
            lines = f"# TYPE vllm:iteration_tokens_total histogram\n{lines}"
            self._answer("text/plain; version=0.0.4; charset=utf-8", lines)
        elif self.path == "/health":
            self._answer("application/json", "{}")
        elif self.path == "/v1/models":
            self._answer("application/json", json.dumps({"object": "list", "data": [{"id": MODEL}]}))
        else:
            self._answer("application/json", "{}", 404)

    def do_POST(self) -> None:
        """Complete, as a stream where that is asked for."""
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        tokens = int(body.get("max_tokens", 1))
        with State.lock:
            State.running += 1
        try:
            self._complete(tokens, bool(body.get("stream")))
        finally:
            with State.lock:
                State.running -= 1
                State.served += tokens > 1

    def _token(self) -> None:
        time.sleep(TOKEN_SECONDS)
        with State.lock:
            State.iterations += 1

    def _complete(self, tokens: int, stream: bool) -> None:
        choice = {
            "index": 0,
            "text": "x",
            "finish_reason": "length",
            ("delta" if stream else "message"): {"content": "x"},
        }
        answer = json.dumps({"choices": [choice], "usage": USAGE})
        if not stream:
            for __ in range(tokens):
                self._token()
            self._answer("application/json", answer)
            return
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Connection", "close")
        self.end_headers()
        for __ in range(tokens):
            self._token()
            self.wfile.write(f"data: {answer}\n\n".encode())
            self.wfile.flush()
        self.wfile.write(b"data: [DONE]\n\n")
        self.close_connection = True


class Server(ThreadingHTTPServer):
    """Takes a burst of connections."""

    request_queue_size = 128
    daemon_threads = True

    def handle_error(self, *__: Any) -> None:
        """Who shows no certificate, or goes away, is no news."""


signal.signal(signal.SIGTERM, end)
time.sleep(START_SECONDS)
note("began")
Server((ADDRESS, PORT), Handler).serve_forever()
