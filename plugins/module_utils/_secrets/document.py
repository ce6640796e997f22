# SPDX-License-Identifier: Apache-2.0
# PRIVATE to the collection: do not import this from outside, it may change without notice.
"""What a store holds: secrets, their versions, where each rotation stands. Pure; times are whole seconds since 1970."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from ansible_collections.gpufleet.metal.plugins.module_utils._errors import FleetError, InvalidInputError

SCHEMA = 1
"""Version of the structure that :func:`as_plain` makes and :func:`read_plain` reads."""

PHASES = ("idle", "staging", "promoted", "retiring")
"""Where a rotation stands; rotation.py says what each of them means."""

ROLES = ("next", "current", "previous")
"""The versions that a secret may have, in the order of their lives."""

_NAME = re.compile(r"^[a-z][a-z0-9_]{0,63}$")


class StoreError(FleetError):
    """A store can't be read or written. The message names the store, the fault and what to do."""


class MissingStoreError(StoreError):
    """There is no store yet where one is to be."""


@dataclass(frozen=True)
class Version:
    """One value of a secret. ``value`` has the key ``value``, or one key for each part of a pair; never shown."""

    number: int
    created: int
    value: Mapping[str, str] = field(repr=False)
    expires: int | None = None
    """When the value stops working by itself, as a certificate does."""


@dataclass(frozen=True)
class Secret:
    """A secret and its rotation. There is a ``next`` while staging, a ``previous`` while promoted and retiring."""

    kind: str
    current: Version
    next: Version | None = None
    previous: Version | None = None
    phase: str = "idle"
    since: int = 0
    """When the phase began."""
    proven: int | None = None
    """When the last consumer showed that it is as this phase wants it; what is waited for counts from here."""
    confirmed: frozenset[str] = frozenset()
    """The consumers that showed it so far."""
    emergency: bool = False
    """Whether this rotation waits for nothing but its consumers."""
    distrusted: int = 0
    """The newest version of those that an emergency found: one of them that is in use afterwards is replaced, too."""

    def versions(self) -> dict[str, Version]:
        """Return the versions that exist, by role."""
        found = {"next": self.next, "current": self.current, "previous": self.previous}
        return {role: version for role, version in found.items() if version is not None}


@dataclass(frozen=True)
class Document:
    """Everything in a store. ``generation`` counts writes, so an older copy of the whole store is seen as such."""

    generation: int = 0
    secrets: Mapping[str, Secret] = field(default_factory=dict)

    def with_secret(self, name: str, secret: Secret) -> Document:
        """Return the document with one secret added or replaced. Raises InvalidInputError for a name that can't be."""
        return replace(self, secrets={**self.secrets, check_name(name): secret})


def check_name(name: str) -> str:
    """Return the name of a secret. Raises InvalidInputError."""
    if not _NAME.match(name):
        raise InvalidInputError(
            f"fleet_secrets: {name!r} is no name of a secret, wanted at most 64 small letters, digits and underscores, "
            f"beginning with a letter"
        )
    return name


def as_plain(document: Document) -> dict[str, Any]:
    """Return the document as what JSON can hold, values included."""
    return {
        "schema": SCHEMA,
        "generation": document.generation,
        "secrets": {name: _secret_as_plain(secret) for name, secret in document.secrets.items()},
    }


def read_plain(plain: Any, store: str) -> Document:
    """Read what :func:`as_plain` made; ``store`` names it in messages. Raises StoreError."""
    found = plain.get("schema") if isinstance(plain, Mapping) else None
    if found != SCHEMA:
        hint = "use a newer gpufleet.metal" if isinstance(found, int) and found > SCHEMA else "put back its last backup"
        raise StoreError(f"{store} holds schema {found}, this version reads schema {SCHEMA}: {hint}")
    try:
        secrets = {check_name(name): _read_secret(entry) for name, entry in plain["secrets"].items()}
        return Document(generation=int(plain["generation"]), secrets=secrets)
    except (AttributeError, KeyError, TypeError, ValueError) as fault:
        # The fault's own text could hold a value.
        raise StoreError(
            f"{store} is not in the form that gpufleet.metal writes ({type(fault).__name__}): put back its last backup"
        ) from None


def _secret_as_plain(secret: Secret) -> dict[str, Any]:
    return {
        "kind": secret.kind,
        "phase": secret.phase,
        "since": secret.since,
        "proven": secret.proven,
        "confirmed": sorted(secret.confirmed),
        "emergency": secret.emergency,
        "distrusted": secret.distrusted,
        "versions": {
            role: {
                "number": version.number,
                "created": version.created,
                "expires": version.expires,
                "value": dict(version.value),
            }
            for role, version in secret.versions().items()
        },
    }


def _read_secret(entry: Mapping[str, Any]) -> Secret:
    versions = {role: _read_version(version) for role, version in entry["versions"].items()}
    secret = Secret(
        kind=str(entry["kind"]),
        phase=str(entry["phase"]),
        since=int(entry["since"]),
        proven=None if entry["proven"] is None else int(entry["proven"]),
        confirmed=frozenset(str(name) for name in entry["confirmed"]),
        emergency=entry["emergency"] is True,
        # Stores that were written before there was this have none.
        distrusted=int(entry.get("distrusted", 0)),
        **versions,
    )
    wanted = {"idle": {"current"}, "staging": {"current", "next"}}.get(secret.phase, {"current", "previous"})
    if secret.phase not in PHASES or set(versions) != wanted:
        raise ValueError
    return secret


def _read_version(entry: Mapping[str, Any]) -> Version:
    return Version(
        number=int(entry["number"]),
        created=int(entry["created"]),
        value={str(key): str(value) for key, value in entry["value"].items()},
        expires=None if entry["expires"] is None else int(entry["expires"]),
    )
