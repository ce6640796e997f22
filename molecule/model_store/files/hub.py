# SPDX-License-Identifier: Apache-2.0
"""A stand-in for the Hugging Face hub: hub.py DIRECTORY LOG PORT [REPOSITORY@REVISION...].

Every repository is served from the one directory. It lists the files with size, git id and (for large ones) sha256 as
the hub does, redirects large files to another host name, and cuts off the first transfer of each large file in the
middle. Every request is appended to a log.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

DIRECTORY, LOG, PORT = sys.argv[1], sys.argv[2], int(sys.argv[3])
SERVED = dict(each.split("@") for each in sys.argv[4:]) or {
    "gpufleet/tiny-llama": "0123456789abcdef0123456789abcdef01234567"
}
LARGE = 100_000
cut: set[str] = set()


class Hub(BaseHTTPRequestHandler):
    """Two paths: the listing, and files."""

    def do_GET(self) -> None:
        with open(LOG, "a", encoding="utf-8") as log:
            log.write(f"{self.path} {self.headers.get('Range', '-')}\n")
        for repository, revision in SERVED.items():
            if self.path == f"/api/models/{repository}/revision/{revision}?blobs=true":
                listing = [describe(name) for name in sorted(os.listdir(DIRECTORY))]
                self.send(json.dumps({"sha": revision, "siblings": listing}).encode())
                return
        name = self.path.rpartition("/")[2]
        path = os.path.join(DIRECTORY, name)
        asked = [revision for revision in SERVED.values() if f"/{revision}/" in self.path]
        if not asked or not os.path.isfile(path):
            self.send_error(404)
            return
        with open(path, "rb") as stream:
            content = stream.read()
        if len(content) >= LARGE and not self.path.startswith("/cdn/"):
            self.send_response(302)
            self.send_header("Location", f"http://localhost:{PORT}/cdn/{asked[0]}/{name}")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        first, _dash, last = self.headers.get("Range", "bytes=0-")[len("bytes=") :].partition("-")
        if last:
            self.send_part(content, int(first), int(last) + 1)
            return
        end = len(content)
        if len(content) >= LARGE and name not in cut:
            cut.add(name)
            end = len(content) // 2
        self.send(content, int(first), end)

    def send_part(self, content: bytes, begin: int, end: int) -> None:
        """Answer with a part of the content, as it was asked for."""
        self.send_response(206)
        self.send_header("Content-Range", f"bytes {begin}-{end - 1}/{len(content)}")
        self.send_header("Content-Length", str(len(content[begin:end])))
        self.end_headers()
        self.wfile.write(content[begin:end])

    def send(self, content: bytes, begin: int = 0, end: int | None = None) -> None:
        """Answer with a part of the content, promising all of it."""
        self.send_response(206 if begin else 200)
        if begin:
            self.send_header("Content-Range", f"bytes {begin}-{len(content) - 1}/{len(content)}")
        self.send_header("Content-Length", str(len(content) - begin))
        self.end_headers()
        self.wfile.write(content[begin:end])


def describe(name: str) -> dict[str, Any]:
    """A file as the hub lists it."""
    with open(os.path.join(DIRECTORY, name), "rb") as stream:
        content = stream.read()
    blob = hashlib.sha1(f"blob {len(content)}\0".encode() + content, usedforsecurity=False).hexdigest()
    entry: dict[str, Any] = {"rfilename": name, "size": len(content), "blobId": blob}
    if len(content) >= LARGE:
        entry["lfs"] = {"sha256": hashlib.sha256(content).hexdigest(), "size": len(content), "pointerSize": 130}
    return entry


ThreadingHTTPServer(("127.0.0.1", PORT), Hub).serve_forever()
