# SPDX-License-Identifier: Apache-2.0
# PRIVATE to the collection: do not import this from outside, it may change without notice.
"""Bring every Secret of a cluster under one key, and prove by what lies in etcd that it is.

An API server tells by the digest of its configuration which one it has loaded. What it writes with shows in etcd. So
nothing here believes a file or an exit status.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Protocol

from ansible_collections.gpufleet.metal.plugins.module_utils._errors import FleetError

from . import etcd
from .api import ApiError

PROBE_NAMESPACE = "kube-system"
PROBE_PREFIX = "gpufleet-encryption-probe-"
_LOADED = re.compile(r"^apiserver_encryption_config_controller_last_config_info\{([^}]*)\} 1(?:\.0+)?$", re.M)
_HASH = re.compile(r"(?:^|,)hash=\"([^\"]*)\"")
_FAILED = re.compile(
    r"^apiserver_encryption_config_controller_automatic_reloads_total\{[^}]*failure[^}]*\} (\S+)$", re.M
)
_NOT_FOUND = 404
_CONFLICT = 409
_TRIES = 8


class Stored(Protocol):
    """What lies in etcd."""

    def values(self, prefix: str) -> Iterable[tuple[str, bytes]]:
        """Yield keys and values."""


class Server(Protocol):
    """An API server."""

    def request(
        self, method: str, path: str, query: Mapping[str, str] | None = None, body: Any = None, content_type: str = ""
    ) -> dict[str, Any]:
        """Return what it answers."""

    def text(self, path: str) -> str:
        """Return what it answers in plain text."""


def loaded_digests(metrics: str) -> list[str]:
    """Return the digests of the encryption configurations that an API server says it has loaded."""
    return [match.group(1) for labels in _LOADED.findall(metrics) for match in [_HASH.search(labels)] if match]


def has_loaded(metrics: str, digest: str) -> bool:
    """Whether an API server has loaded the configuration with this SHA-256; how the label begins differs by version."""
    return any(found == digest or found.endswith(f":{digest}") for found in loaded_digests(metrics))


def failed_reloads(metrics: str) -> float:
    """Return how often an API server could not load a configuration."""
    return sum(float(value) for value in _FAILED.findall(metrics))


def path_of(namespace: str, name: str = "") -> str:
    """Return the path of a Secret, or of all those of a namespace."""
    return f"/api/v1/namespaces/{namespace}/secrets{f'/{name}' if name else ''}"


def by_key(stored: Stored) -> dict[str, list[str]]:
    """Return the Secrets in etcd by the name of the key that they are encrypted with."""
    found: dict[str, list[str]] = {}
    for key, value in stored.values(etcd.SECRETS):
        found.setdefault(etcd.key_of(value), []).append(key)
    return found


def wait_loaded(
    server: Server,
    content: bytes,
    deadline_seconds: float,
    sleep: Callable[[float], None] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
) -> None:
    """Wait until an API server has loaded this configuration. Raises FleetError.

    It looks at its file once a minute by itself: no restart, so no client notices.
    """
    digest = hashlib.sha256(content).hexdigest()
    end = clock() + deadline_seconds
    while True:
        try:
            metrics = server.text("/metrics")
            if has_loaded(metrics, digest):
                return
            if not loaded_digests(metrics):
                raise FleetError(
                    "the API server runs without an encryption configuration: the cluster was made without "
                    "kubernetes_encryption_keys, and keys can't be given to it by a rotation"
                )
            said = f"has loaded {', '.join(loaded_digests(metrics))}"
            failed = failed_reloads(metrics)
            said += f", and failed to load one {failed:.0f} times" if failed else ""
        except ApiError as fault:
            said = str(fault)
        if clock() > end:
            raise FleetError(
                f"the API server {said} after {deadline_seconds:.0f} s, wanted the encryption configuration with "
                f"SHA-256 {digest}: see its log; it reads the file only if it runs with "
                f"--encryption-provider-config-automatic-reload"
            )
        sleep(2)


def probe(server: Server, stored: Stored, wanted: str, token: str) -> None:
    """Write a Secret through this API server, and see in etcd which key it uses. Raises FleetError."""
    name = PROBE_PREFIX + token
    path = path_of(PROBE_NAMESPACE, name)
    body = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": name, "labels": {"app.kubernetes.io/managed-by": "gpufleet.metal-probe"}},
        "stringData": {"probe": "no secret"},
    }
    server.request("POST", path_of(PROBE_NAMESPACE), None, body, "application/json")
    try:
        values = [value for key, value in stored.values(f"{etcd.SECRETS}{PROBE_NAMESPACE}/{name}")]
        found = etcd.key_of(values[0]) if values else "(nothing)"
        if found != wanted:
            raise FleetError(f"the API server wrote a Secret with the key {found}, wanted {wanted}")
        if server.request("GET", path).get("kind") != "Secret":
            raise FleetError("the API server does not read what it wrote")
    finally:
        with contextlib.suppress(ApiError):
            server.request("DELETE", path)


def rewrite(server: Server, stored: Stored, wanted: str) -> int:
    """Have every Secret that another key encrypts, or none, written anew; returns how many were.

    What changes meanwhile was written by somebody with the new key already, and is read again. Raises FleetError.
    """
    count = 0
    for _round in range(_TRIES):
        others = [key for name, keys in by_key(stored).items() if name != wanted for key in keys]
        if not others:
            return count
        for key in others:
            count += _write_anew(server, *etcd.name_of(key))
    left = _shown(by_key(stored), wanted)
    raise FleetError(
        f"Secrets are still written with other keys after {_TRIES} rounds ({left}), wanted {wanted} alone: does "
        f"every API server use it?"
    )


def _write_anew(server: Server, namespace: str, name: str) -> int:
    path = path_of(namespace, name)
    for _try in range(_TRIES):
        try:
            found = server.request("GET", path)
            # With its resourceVersion, so that nobody's change is lost. What lies under an old key is written anew, the
            # same or not.
            server.request("PUT", path, {"fieldManager": "gpufleet.metal"}, found, "application/json")
        except ApiError as fault:
            if fault.status == _NOT_FOUND:
                return 0
            if fault.status != _CONFLICT:
                raise FleetError(f"Secret {namespace}/{name}: {fault}") from fault
        else:
            return 1
    raise FleetError(f"Secret {namespace}/{name} was changed by others {_TRIES} times while it was to be written anew")


def prove(server: Server, stored: Stored, wanted: str) -> int:
    """Prove that every Secret in etcd is encrypted with one key and can be read; returns how many there are."""
    found = by_key(stored)
    left = _shown(found, wanted)
    if left:
        raise FleetError(f"etcd has Secrets under other keys ({left}), wanted {wanted} alone")
    count = 0
    for key in found.get(wanted, []):
        namespace, name = etcd.name_of(key)
        try:
            # One by one: a list may come from the API server's memory, and would decrypt nothing.
            server.request("GET", path_of(namespace, name))
        except ApiError as fault:
            if fault.status != _NOT_FOUND:
                raise FleetError(f"Secret {namespace}/{name} can't be read: {fault}") from fault
        else:
            count += 1
    return count


def _shown(found: Mapping[str, list[str]], wanted: str) -> str:
    counts = Counter({name: len(keys) for name, keys in found.items() if name != wanted})
    return ", ".join(f"{count} with {name}" for name, count in sorted(counts.items()))
