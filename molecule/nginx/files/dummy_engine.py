# SPDX-License-Identifier: Apache-2.0
"""An engine that answers like vLLM and fails on demand: python3 dummy_engine.py PORT [ADDRESS].

POST /admin {"health": 503, "completions": "hang" | "500" | "500 to clients" | "ok"} switches faults; what is left out
is put right. With "500 to clients" a completion of one token, which is what the gateway's probe asks for, succeeds.
A hung engine keeps its health and its metrics, as vLLM does: only its count of iterations stands still.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar

PORT = int(sys.argv[1])
ADDRESS = sys.argv[2] if len(sys.argv) > 2 else "127.0.0.1"
WELL: dict[str, Any] = {"health": 200, "completions": "ok", "delay_seconds": 0.05}


class State:
    """What the engine does at the moment."""

    faults: ClassVar[dict[str, Any]] = dict(WELL)
    iterations = 0
    served = 0
    refused = 0
    canaries = 0
    lock = threading.Lock()


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    timeout = 75

    def log_message(self, *__: Any) -> None:
        """Stay quiet: the load is heavy."""

    def _answer(self, status: int, body: str, kind: str = "application/json") -> None:
        data = body.encode()
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        self.send_header("X-Engine", str(PORT))
        self.end_headers()
        self.wfile.write(data)

    def do_GET(self) -> None:
        """Health, metrics and what was seen."""
        if self.path == "/health":
            self._answer(State.faults["health"], "{}")
        elif self.path == "/metrics":
            name = "vllm:iteration_tokens_total"
            self._answer(200, f'# TYPE {name} histogram\n{name}_count{{engine="0"}} {State.iterations}\n', "text/plain")
        elif self.path == "/admin":
            self._answer(
                200, json.dumps({"served": State.served, "refused": State.refused, "canaries": State.canaries})
            )
        else:
            self._answer(404, "{}")

    def do_POST(self) -> None:
        """Switch faults, or complete."""
        body = json.loads(self.rfile.read(int(self.headers.get("Content-Length", "0"))) or b"{}")
        if self.path == "/admin":
            State.faults = {**WELL, **body}
            State.served = State.refused = State.canaries = 0
            self._answer(200, json.dumps(State.faults))
            return
        fault, canary = State.faults["completions"], body.get("max_tokens") == 1
        if fault == "hang":
            time.sleep(3600)
        if fault == "500" or (fault == "500 to clients" and not canary):
            with State.lock:
                State.refused += 1
            self._answer(500, '{"error":{"message":"engine fault"}}')
            return
        with State.lock:
            State.iterations += 1
            if canary:
                State.canaries += 1
            else:
                State.served += 1
        if body.get("stream"):
            self._stream(int(body.get("max_tokens", 10)), float(body.get("seconds_between", 0.1)))
            return
        time.sleep(State.faults["delay_seconds"])
        echo = {"path": self.path, "request_id": self.headers.get("X-Request-Id"), "engine": PORT}
        echo["headers"] = {name.lower(): value for name, value in self.headers.items()}
        self._answer(200, json.dumps({"choices": [{"text": "x"}], **echo}))

    def _stream(self, events: int, pause: float) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Connection", "close")
        self.end_headers()
        for number in range(events):
            self.wfile.write(f'data: {{"number":{number},"engine":{PORT}}}\n\n'.encode())
            self.wfile.flush()
            time.sleep(pause)
        self.wfile.write(b"data: [DONE]\n\n")
        self.close_connection = True


class Server(ThreadingHTTPServer):
    """Takes a burst of connections without refusing any."""

    request_queue_size = 512
    daemon_threads = True


Server((ADDRESS, PORT), Handler).serve_forever()
