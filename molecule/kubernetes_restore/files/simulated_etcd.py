# SPDX-License-Identifier: Apache-2.0
"""Stand-ins for etcdctl and etcdutl over the state of ../../kubernetes/files/simulated: which one, its own name says.

What they write has the form that the collection proves: whole pages, and the SHA-256 behind them.
"""

from __future__ import annotations

import hashlib
import json
import os
import socket
import sys
import zlib
from pathlib import Path

STATE = Path("/var/lib/etcd/member/simulated.json")
VERSION = "3.5.16"
PAGE = 512
DIGEST = 32
HELP = "--bump-revision uint  --mark-compacted  --data-dir string"


def value(argv: list[str], name: str) -> str:
    return argv[argv.index(name) + 1]


def etcdctl(argv: list[str]) -> None:
    # A member that does not run has no snapshot to give.
    socket.create_connection(("127.0.0.1", 2379), 5).close()
    for name in ("--cacert", "--cert", "--key"):
        Path(value(argv, name)).read_bytes()
    if argv[-3:-1] == ["snapshot", "save"]:
        data = STATE.read_bytes()
        data += b" " * (-len(data) % PAGE)
        Path(argv[-1]).write_bytes(data + hashlib.sha256(data).digest())
    elif argv[-4:-2] == ["endpoint", "status"]:
        print(json.dumps([{"Status": {"version": VERSION}}]))
    else:
        sys.exit(f"stand-in: etcdctl {argv} is not simulated")


def etcdutl(argv: list[str]) -> None:
    if argv == ["version"]:
        print(f"etcdutl version: {VERSION}")
    elif argv[:2] == ["snapshot", "restore"] and argv[2:] == ["--help"]:
        print(HELP)
    elif argv[:2] == ["snapshot", "status"]:
        data = Path(argv[2]).read_bytes()[:-DIGEST]
        state = json.loads(data)
        print(json.dumps({"hash": zlib.crc32(data), "revision": state["revision"], "totalKey": len(state)}))
    elif argv[:2] == ["snapshot", "restore"]:
        data = Path(argv[2]).read_bytes()
        if hashlib.sha256(data[:-DIGEST]).digest() != data[-DIGEST:]:
            sys.exit("Error: expected sha256 is another one")
        name, __, peer = value(argv, "--initial-cluster").partition("=")
        if name != value(argv, "--name") or peer != value(argv, "--initial-advertise-peer-urls"):
            sys.exit("Error: couldn't find local name in the initial cluster configuration")
        if "--mark-compacted" not in argv or not value(argv, "--initial-cluster-token"):
            sys.exit("stand-in: revisions would not be marked")
        directory = Path(value(argv, "--data-dir"))
        if directory.exists():
            sys.exit(f"Error: data-dir {str(directory)!r} not empty or could not be read")
        address = peer.removeprefix("https://").rpartition(":")[0]
        state = json.loads(data[:-DIGEST])
        # One member, with another identity than any before.
        token = hashlib.sha256(value(argv, "--initial-cluster-token").encode()).digest()
        identity = str(int.from_bytes(token[:7], "big"))
        state["members"] = {name: {"address": address, "id": identity}}
        state["own"] = name
        state["revision"] += int(value(argv, "--bump-revision"))
        target = directory / "member" / STATE.name
        target.parent.mkdir(parents=True, mode=0o700)
        target.write_text(json.dumps(state), encoding="utf-8")
        target.chmod(0o600)
    else:
        sys.exit(f"stand-in: etcdutl {argv} is not simulated")


if __name__ == "__main__":
    {"etcdctl": etcdctl, "etcdutl": etcdutl}[os.path.basename(sys.argv[0])](sys.argv[1:])
