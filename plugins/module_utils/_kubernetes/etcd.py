# SPDX-License-Identifier: Apache-2.0
# PRIVATE to the collection: do not import this from outside, it may change without notice.
"""Read what lies in etcd, as it lies there. Needs nothing but Python.

etcd answers in JSON at its client port (its gRPC gateway), so that no program of etcd has to be on the host.
"""

from __future__ import annotations

import base64
import http.client
import json
import re
import ssl
import urllib.parse
from collections.abc import Iterator
from typing import Any

from ansible_collections.gpufleet.metal.plugins.module_utils._errors import FleetError

SECRETS = "/registry/secrets/"
PLAIN = "(plain)"
UNKNOWN = "(unknown)"
_PAGE = 50
_TIMEOUT_SECONDS = 60
_ENCRYPTED = re.compile(rb"k8s:enc:([a-z]+):v[0-9]+:([^:]{1,256}):")
#: How the API server begins what it writes plainly (protobuf), and how it once did (JSON).
_PLAIN_STARTS = (b"k8s\x00", b"{")


def key_of(value: bytes) -> str:
    """Return the name of the key that a stored value is encrypted with, or that it is plain or of an unknown form."""
    found = _ENCRYPTED.match(value)
    if found:
        return found.group(2).decode("utf-8", "replace")
    return PLAIN if value.startswith(_PLAIN_STARTS) else UNKNOWN


def end_of(prefix: bytes) -> bytes:
    """Return the first key behind all that begin with a prefix."""
    stripped = prefix.rstrip(b"\xff")
    return stripped[:-1] + bytes([stripped[-1] + 1]) if stripped else b"\x00"


def name_of(key: str) -> tuple[str, str]:
    """Return namespace and name of a Secret's key. Raises FleetError."""
    namespace, slash, name = key.removeprefix(SECRETS).partition("/")
    if not key.startswith(SECRETS) or not slash or not namespace or not name or "/" in name:
        raise FleetError(f"etcd has {key!r} among Secrets, wanted {SECRETS}NAMESPACE/NAME")
    return namespace, name


class Etcd:
    """A member of etcd, asked over one connection."""

    def __init__(self, endpoint: str, context: ssl.SSLContext) -> None:
        parts = urllib.parse.urlsplit(endpoint)
        self.endpoint = endpoint
        self._connection = http.client.HTTPSConnection(
            parts.hostname or "", parts.port or 2379, context=context, timeout=_TIMEOUT_SECONDS
        )

    def _ask(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        try:
            self._connection.request("POST", path, json.dumps(body), {"Content-Type": "application/json"})
            answer = self._connection.getresponse()
            text = answer.read()
        except (OSError, http.client.HTTPException) as fault:
            self._connection.close()
            raise FleetError(f"etcd at {self.endpoint} gives no answer: {type(fault).__name__}: {fault}") from fault
        if answer.status != 200:
            raise FleetError(
                f"etcd at {self.endpoint} answers {answer.status}: {text[:300].decode('utf-8', 'replace')}"
            )
        found: dict[str, Any] = json.loads(text)
        return found

    def values(self, prefix: str) -> Iterator[tuple[str, bytes]]:
        """Yield keys and values below a prefix, as of one revision, some at a time: a Secret may have a megabyte."""
        start, end, revision = prefix.encode(), end_of(prefix.encode()), "0"
        while True:
            body = {"key": _encoded(start), "range_end": _encoded(end), "limit": _PAGE, "revision": revision}
            page = self._ask("/v3/kv/range", body)
            items = page.get("kvs") or []
            for item in items:
                yield base64.b64decode(item["key"]).decode(), base64.b64decode(item.get("value") or "")
            if not page.get("more"):
                return
            revision = page["header"]["revision"]
            start = base64.b64decode(items[-1]["key"]) + b"\x00"


def _encoded(data: bytes) -> str:
    return base64.b64encode(data).decode()


def connect(endpoint: str, ca: str, certificate: str, key: str) -> Etcd:
    """Return a member of etcd, asked with a client's certificate. Raises FleetError."""
    try:
        context = ssl.create_default_context(cafile=ca)
        context.load_cert_chain(certificate, key)
    except (OSError, ssl.SSLError) as fault:
        raise FleetError(
            f"{ca}, {certificate}, {key}: {fault}, wanted a control plane's certificates for etcd"
        ) from fault
    return Etcd(endpoint, context)
