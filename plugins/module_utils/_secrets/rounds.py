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

from ansible_collections.gpufleet.metal.plugins.module_utils._errors import FleetError, InvalidInputError
from ansible_collections.gpufleet.metal.plugins.module_utils._secrets import rotation
from ansible_collections.gpufleet.metal.plugins.module_utils._secrets.authorities import signed_by_another, signer_of
from ansible_collections.gpufleet.metal.plugins.module_utils._secrets.definitions import Definition
from ansible_collections.gpufleet.metal.plugins.module_utils._secrets.document import (
    Document,
    Secret,
    StoreError,
    Version,
)
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
    for name, definition in sorted(definitions.items(), key=_authorities_first):
        if name not in document.secrets:
            if definition.signer and definition.signer not in document.secrets:
                raise StoreError(f"its authority {definition.signer} is not in the store")
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
) -> tuple[Document, list[str]]:
    """Begin to rotate the named secrets, or all that are due; what is under way goes on as it is.

    ``make`` makes the next value, ``first`` that of a secret which the store lacks. One that can't be made, such as a
    certificate that would outlive its authority, is no reason to keep the others: why is returned, a sentence for each.

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
    faults: list[str] = []
    for name, definition in sorted(definitions.items(), key=_authorities_first):
        try:
            document = create_missing(document, {name: definition}, first, now)
        except FleetError as fault:
            faults.append(f"{name}: {fault}")
    due = [status.name for status in status_of(document, definitions, now) if status.due and status.defined]
    for name in sorted(existing.intersection(names or due)):
        if document.secrets[name].phase == "idle":
            document, unmade = _begin(document, definitions[name], emergency, make, now)
            faults += unmade
        elif emergency:
            document = document.with_secret(name, rotation.hurry(document.secrets[name]))
    return document, faults


def follow_emergencies(
    document: Document, definitions: Mapping[str, Definition], make: Maker, now: int
) -> tuple[Document, list[str]]:
    """Begin what an emergency brings with it: see below. Returns as :func:`begin_rotations`.

    What it found on its way into use is replaced when that rotation is over. Certificates of an authority that leaked
    are replaced as soon as the next authority signs, and with no time to lose: it is trusted until they are.
    """
    faults: list[str] = []
    for name in sorted(set(document.secrets).intersection(definitions)):
        secret = document.secrets[name]
        begun = [name] if rotation.is_distrusted(secret) else []
        if secret.emergency and secret.phase == "promoted" and secret.kind == "authority":
            for certificate in signed_by_another(document, definitions, name):
                if document.secrets[certificate].phase == "idle":
                    begun.append(certificate)
                else:
                    document = document.with_secret(certificate, rotation.hasten(document.secrets[certificate]))
        for each in begun:
            document, unmade = _begin(document, definitions[each], True, make, now)
            faults += unmade
    return document, faults


def _begin(
    document: Document, definition: Definition, emergency: bool, make: Maker, now: int
) -> tuple[Document, list[str]]:
    secret = document.secrets[definition.name]
    try:
        made = make(definition, signer_of(document, definition))
    except FleetError as fault:
        return document, [f"{definition.name}: {fault}"]
    version = _version(rotation.newest(secret) + 1, made, now)
    begun = rotation.begin(secret, version, emergency or rotation.is_distrusted(secret))
    return document.with_secret(definition.name, begun), []


def _authorities_first(item: tuple[str, Definition]) -> bool:
    return item[1].signer is not None


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
    # An authority waits for the certificates that it signed, so it comes after them.
    for name, __ in sorted(definitions.items(), key=_authorities_first, reverse=True):
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
    created = now if made.created is None else made.created
    return Version(number=number, created=created, value=made.value, expires=made.expires)


def _some(names: Iterable[str]) -> str:
    return ", ".join(sorted(names)) or "none"


def describe(secret: Secret) -> str:
    """Say in one line where a secret stands, without a value: what a diff shows."""
    versions = ", ".join(f"{role} {version.number}" for role, version in secret.versions().items())
    extra = "".join(f", shown by {name}" for name in sorted(secret.confirmed))
    urgency = " in an emergency" if secret.emergency else ""
    urgency += ", with another one to follow" if rotation.newest(secret) <= secret.distrusted else ""
    return f"{secret.kind}, {secret.phase}{urgency}, {versions}{extra}"
