# SPDX-License-Identifier: Apache-2.0
# PRIVATE to the collection: do not import this from outside, it may change without notice.
"""Where a rotation stands, what consumers accept meanwhile, and when it goes on. Pure; times come in as arguments.

=========  ===================  ====================  =======================================================
phase      consumers accept     fleet's users send    goes on when every consumer has shown that
=========  ===================  ====================  =======================================================
idle       current              current               (somebody begins)
staging    current and next     current               it accepts both, and the settling time is over
promoted   current, previous    current (was next)    it accepts both and sends the new, and the overlap is over
retiring   current              current               it refuses the previous
=========  ===================  ====================  =======================================================

A phase says how every consumer is to be, so bringing a consumer there is the same work however often it is done, and a
run that was killed continues from what the store says. The order keeps one promise: consumers always accept what users
send.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace
from datetime import datetime, timezone

from ansible_collections.gpufleet.metal.plugins.module_utils._errors import InvalidInputError
from ansible_collections.gpufleet.metal.plugins.module_utils._secrets.document import Secret, Version


@dataclass(frozen=True)
class Waiting:
    """Why a rotation does not go on: consumers that have not shown what the phase wants, a time, or certificates."""

    phase: str
    consumers: tuple[str, ...] = ()
    until: int | None = None
    certificates: tuple[str, ...] = ()
    """Secrets that the old authority signed."""

    def __str__(self) -> str:
        """Say it to people."""
        if self.consumers:
            return f"{_STILL_MISSING[self.phase]} {', '.join(self.consumers)}"
        if self.certificates:
            return f"the old authority is trusted until its certificates are rotated: {', '.join(self.certificates)}"
        verb = "the new value is used from" if self.phase == "staging" else "the old value is retired after"
        return f"{verb} {show_time(self.until or 0)}"


_STILL_MISSING = {
    "staging": "the new value is not used yet: acceptance of it is not proven by",
    "promoted": "retirement of the old value is postponed: the new one is not proven in use by",
    "retiring": "the old value is kept for the proof: its refusal is not proven by",
}


def show_time(moment: int) -> str:
    """Write a time for people."""
    return datetime.fromtimestamp(moment, timezone.utc).strftime("%Y-%m-%d %H:%M:%S UTC")


def create(kind: str, version: Version) -> Secret:
    """Return a secret with its first value, which no consumer has to be changed over to."""
    return Secret(kind=kind, current=version, since=version.created)


def newest(secret: Secret) -> int:
    """Return the number of the newest version, which tells one rotation from the next: no number is used twice."""
    return max(version.number for version in secret.versions().values())


def begin(secret: Secret, version: Version, emergency: bool) -> Secret:
    """Begin a rotation to a new version. Raises InvalidInputError while another is under way."""
    if secret.phase != "idle":
        raise InvalidInputError(f"a rotation is under way ({secret.phase}): let it finish first")
    return replace(_enter(secret, "staging", version.created), next=version, emergency=emergency, distrusted=0)


def hasten(secret: Secret) -> Secret:
    """Let a rotation that is under way wait for nothing but its consumers."""
    return secret if secret.phase == "idle" else replace(secret, emergency=True)


def hurry(secret: Secret) -> Secret:
    """Let a rotation that is under way wait for nothing but its consumers, and say that it does not end with that.

    Which of its values leaked is not known, so the new one is replaced as well. A rotation that waits for nothing but
    its consumers already is that emergency's own, and only goes on.
    """
    if secret.phase == "idle" or secret.emergency:
        return secret
    return replace(hasten(secret), distrusted=newest(secret))


def is_distrusted(secret: Secret) -> bool:
    """Tell whether an emergency found the value that is in use, and nothing replaces it yet."""
    return secret.phase == "idle" and secret.current.number <= secret.distrusted


def confirm(secret: Secret, phase: str, version: int, shown: Iterable[str], failed: Iterable[str] = ()) -> Secret:
    """Record the consumers that showed what ``phase`` wants of the newest ``version``; forget those that failed to.

    What was shown for another phase or rotation proves nothing. A consumer that can't be asked keeps what it showed.
    """
    if (secret.phase, newest(secret)) != (phase, version) or phase == "idle":
        return secret
    return replace(secret, confirmed=(secret.confirmed | frozenset(shown)) - frozenset(failed))


def advance(
    secret: Secret,
    consumers: Collection[str],
    settle_seconds: int,
    overlap_seconds: int,
    now: int,
    certificates: Collection[str] = (),
) -> tuple[Secret, Waiting | None]:
    """Take a rotation one phase on, or say what it waits for. ``consumers`` are all that must have shown it.

    ``certificates`` are the secrets that the previous version signed: it is not retired before they are replaced.
    """
    if secret.phase == "idle":
        return secret, None
    missing = tuple(sorted(set(consumers) - secret.confirmed))
    if missing:
        # One that came back as something else has to show it again, and the waiting starts again with it.
        return replace(secret, proven=None), Waiting(secret.phase, missing)
    proven = now if secret.proven is None else secret.proven
    secret = replace(secret, proven=proven)
    if secret.phase == "retiring":
        return replace(_enter(secret, "idle", now), previous=None, emergency=False), None
    seconds = settle_seconds if secret.phase == "staging" else overlap_seconds
    if not secret.emergency and now < proven + seconds:
        return secret, Waiting(secret.phase, until=proven + seconds)
    if secret.phase == "promoted" and certificates:
        return secret, Waiting(secret.phase, certificates=tuple(sorted(certificates)))
    if secret.phase == "staging" and secret.next is not None:
        return replace(_enter(secret, "promoted", now), current=secret.next, previous=secret.current, next=None), None
    return _enter(secret, "retiring", now), None


def accepted(secret: Secret) -> list[Version]:
    """Return the versions that consumers accept in this phase; the first is what the fleet's users send."""
    other = secret.next if secret.phase == "staging" else secret.previous if secret.phase == "promoted" else None
    return [secret.current] if other is None else [secret.current, other]


def refused(secret: Secret) -> list[Version]:
    """Return the versions that consumers must refuse in this phase, as far as it is still to be proven."""
    return [secret.previous] if secret.phase == "retiring" and secret.previous is not None else []


def _enter(secret: Secret, phase: str, now: int) -> Secret:
    return replace(secret, phase=phase, since=now, proven=None, confirmed=frozenset())
