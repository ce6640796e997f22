# SPDX-License-Identifier: Apache-2.0
"""Keys and documents that the tests of secrets share."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

from ansible_collections.gpufleet.metal.plugins.module_utils._secrets.document import Document, Secret, Version
from ansible_collections.gpufleet.metal.plugins.module_utils._secrets.envelope import (
    make_wrapping_key,
    read_private_key,
)
from ansible_collections.gpufleet.metal.plugins.module_utils._secrets.file_store import WrappingKey

CANARY = "canary-5d1e7f"
"""Part of every value here: where it shows up, a secret leaked."""


@cache
def _made(which: str) -> tuple[bytes, Any]:
    """Make a key, and read it once: reading checks its primes, which takes longer than all that is done with it."""
    pem = make_wrapping_key(2048)
    return pem, read_private_key(pem, which)


def key_pem(which: str = "first") -> bytes:
    """Return the PEM of a small wrapping key, the same for the same name."""
    return _made(which)[0]


def key(which: str = "first") -> Any:
    """Return a wrapping key."""
    return _made(which)[1]


def wrapping(which: str = "first") -> WrappingKey:
    """Return a wrapping key with its source."""
    return WrappingKey(key(which), f"the {which} key")


def version(number: int = 1, created: int = 1000, **value: str) -> Version:
    """Return a version with a value that holds the canary."""
    return Version(number, created, value or {"value": f"{CANARY}-{number}"})


def secret(**changes: Any) -> Secret:
    """Return a secret."""
    return Secret(**{"kind": "token", "current": version(), "since": 1000, **changes})


def document(secrets: Mapping[str, Secret] | None = None, generation: int = 3) -> Document:
    """Return a document with two secrets, one of them being rotated."""
    staging = secret(
        kind="password", current=version(4), next=version(5), phase="staging", confirmed=frozenset({"door@gw-1"})
    )
    return Document(generation, {"api_key": secret(), "database": staging} if secrets is None else secrets)
