# SPDX-License-Identifier: Apache-2.0
# PRIVATE to the collection: do not import this from outside, it may change without notice.
"""Rotate all secrets of a store in rounds: begin, hand out the work, record what was shown, go on. Pure.

A round is: :func:`work` says which consumers are to be brought to which phase, somebody does it, and
:func:`advance_all` takes what they showed. Three rounds make a whole rotation where nothing has to be waited for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ansible_collections.gpufleet.metal.plugins.module_utils._errors import InvalidInputError
from ansible_collections.gpufleet.metal.plugins.module_utils._secrets import rotation
from ansible_collections.gpufleet.metal.plugins.module_utils._secrets.authorities import signed_by_another, signer_of
from ansible_collections.gpufleet.metal.plugins.module_utils._secrets.definitions import Definition
from ansible_collections.gpufleet.metal.plugins.module_utils._secrets.document import Document, Secret, Version
from ansible_collections.gpufleet.metal.plugins.module_utils._secrets.kinds import Authority, Made
from ansible_collections.gpufleet.metal.plugins.module_utils._secrets.status import status_of

Maker = Callable[[Definition, Authority], Made]
"""Makes a value of what is defined; the authority signs it, where one in the store is to."""

Hosts = Mapping[str, Mapping[str, Sequence[str]]]
"""The hosts of every consumer: secret -> consumer -> hosts."""


@dataclass(frozen=True)
class Shown:
    """What one consumer's tasks showed on one host: whether it is as the phase wants it."""

    secret: str
    phase: str
    version: int
    consumer: str
    host: str
    holds: bool


def create_missing(document: Document, definitions: Mapping[str, Definition], first: Maker, now: int) -> Document:
    """Give every defined secret that the store lacks its first value, which ``first`` makes or finds in use."""
    # A certificate comes after the authority that signs it.
    for name, definition in sorted(definitions.items(), key=lambda item: item[1].signer is not None):
        if name not in document.secrets:
            version = _version(1, first(definition, signer_of(document, definition)), now)
            document = document.with_secret(name, rotation.create(definition.kind, version))
    return document


def begin_rotations(
    document: Document,
    definitions: Mapping[str, Definition],
    names: Sequence[str],
    emergency: bool,
    first: Maker,
    make: Maker,
    now: int,
) -> Document:
    """Begin to rotate the named secrets, or all that are due; what is under way goes on as it is.

    ``make`` makes the next value, ``first`` that of a secret which the store lacks.

    Raises InvalidInputError for a name that is not defined and for a kind that differs from the stored one.
    """
    unknown = sorted(set(names) - set(definitions))
    if unknown:
        raise InvalidInputError(
            f"{unknown[0]} is to be rotated and is not in fleet_secrets, which has {_some(definitions)}"
        )
    if emergency and not names:
        raise InvalidInputError("an emergency names its secrets (rotate_secrets_names), found no name")
    for name, secret in document.secrets.items():
        if name in definitions and definitions[name].kind != secret.kind:
            raise InvalidInputError(
                f"fleet_secrets.{name}.kind is {definitions[name].kind!r} and the store holds {secret.kind!r}: another "
                f"kind is another secret, give it another name"
            )
    existing = set(document.secrets)
    document = create_missing(document, definitions, first, now)
    due = [status.name for status in status_of(document, definitions, now) if status.due and status.defined]
    for name in existing.intersection(names or due):
        secret = document.secrets[name]
        if secret.phase == "idle":
            version = _version(
                rotation.newest(secret) + 1, make(definitions[name], signer_of(document, definitions[name])), now
            )
            secret = rotation.begin(secret, version, emergency)
        elif emergency:
            secret = rotation.hurry(secret)
        document = document.with_secret(name, secret)
    return document


def work(
    document: Document, definitions: Mapping[str, Definition], hosts: Hosts, now: int, only: Iterable[str] | None = None
) -> dict[str, list[dict[str, Any]]]:
    """Return what has to be done on each host now: its consumers of every rotation that waits for more than a time."""
    found: dict[str, list[dict[str, Any]]] = {}
    for name, definition in sorted(definitions.items()):
        secret = document.secrets.get(name)
        if secret is None or secret.phase == "idle" or (only is not None and name not in only):
            continue
        consumers = _consumer_ids(hosts[name])
        waiting = _advance(document, definitions, name, consumers, now)[1]
        if waiting is not None and not waiting.consumers:
            continue
        for consumer in definition.consumers:
            for host in hosts[name][consumer.name]:
                found.setdefault(host, []).append(
                    {
                        "secret": name,
                        "phase": secret.phase,
                        "version": rotation.newest(secret),
                        "consumer": consumer.name,
                        "tasks": consumer.tasks,
                    }
                )
    return found


def advance_all(
    document: Document, definitions: Mapping[str, Definition], hosts: Hosts, shown: Iterable[Shown], now: int
) -> tuple[Document, dict[str, rotation.Waiting]]:
    """Record what was shown and take every rotation at most one phase on; also say what the others wait for."""
    waiting: dict[str, rotation.Waiting] = {}
    results = list(shown)
    for name in definitions:
        secret = document.secrets.get(name)
        if secret is None:
            continue
        for result in results:
            if result.secret == name:
                identity = [f"{result.consumer}@{result.host}"]
                good, bad = (identity, []) if result.holds else ([], identity)
                secret = rotation.confirm(secret, result.phase, result.version, good, bad)
        document = document.with_secret(name, secret)
        secret, reason = _advance(document, definitions, name, _consumer_ids(hosts[name]), now)
        if reason is not None:
            waiting[name] = reason
        document = document.with_secret(name, secret)
    return document, waiting


def _advance(
    document: Document, definitions: Mapping[str, Definition], name: str, consumers: Sequence[str], now: int
) -> tuple[Secret, rotation.Waiting | None]:
    definition = definitions[name]
    return rotation.advance(
        document.secrets[name],
        consumers,
        definition.settle_seconds,
        definition.overlap_seconds,
        now,
        signed_by_another(document, definitions, name),
    )


def _consumer_ids(hosts: Mapping[str, Sequence[str]]) -> list[str]:
    return [f"{consumer}@{host}" for consumer, members in hosts.items() for host in members]


def _version(number: int, made: Made, now: int) -> Version:
    return Version(number=number, created=now, value=made.value, expires=made.expires)


def _some(names: Iterable[str]) -> str:
    return ", ".join(sorted(names)) or "none"


def describe(secret: Secret) -> str:
    """Say in one line where a secret stands, without a value: what a diff shows."""
    versions = ", ".join(f"{role} {version.number}" for role, version in secret.versions().items())
    extra = "".join(f", shown by {name}" for name in sorted(secret.confirmed))
    return f"{secret.kind}, {secret.phase}{' in an emergency' if secret.emergency else ''}, {versions}{extra}"
