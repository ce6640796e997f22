# SPDX-License-Identifier: Apache-2.0
"""Look for keys and tokens in what a gateway writes, and try the second hop as somebody else: prints JSON."""

from __future__ import annotations

import grp
import json
import os
import pwd
import re
import socket
from pathlib import Path

SECRET = re.compile(rb"eyJ[A-Za-z0-9_-]{20}|sk-[a-z]+-0123456789")


def mode(path: str) -> str:
    """Return mode and owners as people read them."""
    found = os.stat(path)
    owner, group = pwd.getpwuid(found.st_uid).pw_name, grp.getgrgid(found.st_gid).gr_name
    return f"{found.st_mode & 0o777:o} {owner}:{group}"


def second_hop_for_nobody() -> str:
    """Connect to the second hop as a user without rights; says what came of it."""
    nobody = pwd.getpwnam("nobody")
    os.setgroups([])
    os.setgid(nobody.pw_gid)
    os.setuid(nobody.pw_uid)
    try:
        socket.socket(socket.AF_UNIX).connect("/run/gpufleet-identity/inner.sock")
    except OSError as fault:
        return type(fault).__name__
    return "connected"


written = [*Path("/var/log/nginx").iterdir(), *Path("/etc/nginx").rglob("*"), *Path("/etc/gpufleet").glob("*.json")]
logged = [json.loads(line) for line in Path("/var/log/nginx/access.log").read_text(encoding="utf-8").splitlines()]
result = {
    "files_with_keys": [str(path) for path in written if path.is_file() and SECRET.search(path.read_bytes())],
    "modes": [mode("/etc/gpufleet/identity.json"), mode("/run/gpufleet-identity")],
    "logged": next(entry for entry in reversed(logged) if entry.get("identity") == "key:ci" and entry["status"] == 200),
}
print(json.dumps({**result, "second_hop": second_hop_for_nobody()}))
