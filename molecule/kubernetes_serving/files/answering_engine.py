# SPDX-License-Identifier: Apache-2.0
"""Stands in for an engine in a pod: python3 answering_engine.py ADDRESS PORT MODEL. Every question gets one token."""

from __future__ import annotations

import json
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

ADDRESS, PORT, MODEL = sys.argv[1], int(sys.argv[2]), sys.argv[3]
USAGE = {"prompt_tokens": 1, "completion_tokens": 1}


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    def log_message(self, *__: Any) -> None:
        """Stay quiet."""

    def _answer(self, kind: str, text: str) -> None:
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(text.encode())))
        self.end_headers()
        self.wfile.write(text.encode())

    def do_GET(self) -> None:
        """Health, the model, and that nothing is in hand."""
        if self.path == "/metrics":
            gauges = ("running", "waiting")
            self._answer("text/plain", "".join(f'vllm:num_requests_{word}{{engine="0"}} 0.0\n' for word in gauges))
            return
        self._answer("application/json", json.dumps({"data": [{"id": MODEL}]}))

    def do_POST(self) -> None:
        """Complete, as a stream where that is asked for."""
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        place = "delta" if body.get("stream") else "message"
        choice = {"index": 0, place: {"content": "x"}, "finish_reason": "length"}
        answer = json.dumps({"choices": [choice], "usage": USAGE})
        if body.get("stream"):
            self._answer("text/event-stream", f"data: {answer}\n\ndata: [DONE]\n\n")
        else:
            self._answer("application/json", answer)


ThreadingHTTPServer((ADDRESS, PORT), Handler).serve_forever()
