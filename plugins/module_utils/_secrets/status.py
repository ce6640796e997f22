# SPDX-License-Identifier: Apache-2.0
# PRIVATE to the collection: do not import this from outside, it may change without notice.
"""Say how old secrets are, which are due and which rotation is stuck; also as Prometheus' text format. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

from ansible_collections.gpufleet.metal.plugins.module_utils._secrets.authorities import outlived
from ansible_collections.gpufleet.metal.plugins.module_utils._secrets.definitions import Definition
from ansible_collections.gpufleet.metal.plugins.module_utils._secrets.document import Document, Secret
from ansible_collections.gpufleet.metal.plugins.module_utils._secrets.kinds import DAY, due_at
from ansible_collections.gpufleet.metal.plugins.module_utils._secrets.rotation import is_distrusted, show_time


@dataclass(frozen=True)
class Status:
    """What is known of one secret. Times are seconds since 1970."""

    name: str
    kind: str
    missing: bool
    """Whether the store lacks it."""
    defined: bool
    """Whether fleet_secrets names it."""
    version: int
    created: int
    due_at: int
    due: bool
    phase: str
    since: int
    stuck: bool
    """Whether its rotation is in one phase for longer than it may be."""
    why: str
    """What is to be done about it, or an empty text."""

    def as_dict(self) -> dict[str, object]:
        """Return it as Ansible returns it."""
        return asdict(self)


def status_of(document: Document, definitions: Mapping[str, Definition], now: int) -> list[Status]:
    """Describe every secret that is defined or stored, by name."""
    names = sorted({*document.secrets, *definitions})
    return [_describe(document, name, definitions.get(name), now) for name in names]


def _describe(document: Document, name: str, definition: Definition | None, now: int) -> Status:
    secret = document.secrets.get(name)
    if secret is None:
        kind = definition.kind if definition else ""
        why = "it is not in the store yet: gpufleet.metal.rotate_secrets makes it"
        return Status(name, kind, True, True, 0, 0, 0, False, "idle", 0, False, why)
    current = secret.current
    due_time = due_at(secret.kind, current.created, current.expires, definition.max_age_days if definition else None)
    orphan = definition is not None and outlived(document, definition)
    if definition is not None and orphan:
        due_time = min(due_time, document.secrets[definition.signer or ""].current.created)
    leaked = is_distrusted(secret)
    if leaked:
        due_time = min(due_time, secret.since)
    due = now >= due_time and secret.phase == "idle"
    allowed = _allowed_seconds(secret, definition)
    stuck = secret.phase != "idle" and definition is not None and now >= secret.since + allowed
    if definition is None:
        why = "fleet_secrets does not name it: nothing rotates it"
    elif stuck:
        why = (
            f"its rotation is {secret.phase} for {(now - secret.since) // 3600} hours, wanted at most "
            f"{allowed // 3600}: run gpufleet.metal.rotate_secrets and see what it waits for"
        )
    elif due:
        reason = f", because {definition.signer} was replaced" if orphan else ""
        reason = ", because it was in use when an emergency was declared" if leaked else reason
        why = f"it is due{reason}: run gpufleet.metal.rotate_secrets"
    else:
        why = ""
    return Status(
        name=name,
        kind=secret.kind,
        missing=False,
        defined=definition is not None,
        version=current.number,
        created=current.created,
        due_at=due_time,
        due=due,
        phase=secret.phase,
        since=secret.since,
        stuck=stuck,
        why=why,
    )


def _allowed_seconds(secret: Secret, definition: Definition | None) -> int:
    if definition is None:
        return 0
    waits = {"staging": definition.settle_seconds, "promoted": definition.overlap_seconds}
    return definition.stuck_seconds + (0 if secret.emergency else waits.get(secret.phase, 0))


def as_table(statuses: Sequence[Status], now: int) -> list[str]:
    """Return a line for each secret, for a terminal."""
    lines = []
    for status in statuses:
        if status.missing:
            lines.append(f"{status.name}: {status.kind}, {status.why}")
            continue
        state = status.phase if status.phase != "idle" else "due" if status.due else f"due {show_time(status.due_at)}"
        why = f"; {status.why}" if status.why else ""
        days = (now - status.created) // DAY
        lines.append(f"{status.name}: {status.kind}, version {status.version}, {days} days old, {state}{why}")
    return lines


_METRICS = (
    ("gpufleet_secret_created_timestamp_seconds", "When the current version was made.", "created"),
    ("gpufleet_secret_due_timestamp_seconds", "When the current version is to be replaced.", "due_at"),
    ("gpufleet_secret_due", "Whether a rotation is due and none is under way.", "due"),
    ("gpufleet_secret_rotation_stuck", "Whether a rotation is in one phase for longer than it may be.", "stuck"),
    ("gpufleet_secret_missing", "Whether the inventory names a secret that the store lacks.", "missing"),
)


def as_metrics(statuses: Sequence[Status], generation: int, now: int) -> str:
    """Return the statuses in Prometheus' text format, for the textfile collector. Names and kinds need no escape."""
    lines = []
    for metric, about, key in _METRICS:
        lines += [f"# HELP {metric} {about}", f"# TYPE {metric} gauge"]
        for status in statuses:
            if status.missing and metric.endswith("_timestamp_seconds"):
                continue
            labels = f'name="{status.name}",kind="{status.kind}"'
            lines.append(f"{metric}{{{labels}}} {int(getattr(status, key))}")
    for metric, about, value in (
        ("gpufleet_secrets_store_generation", "Writes of the store; a smaller number is an older copy.", generation),
        ("gpufleet_secrets_status_timestamp_seconds", "When this was written.", now),
    ):
        lines += [f"# HELP {metric} {about}", f"# TYPE {metric} gauge", f"{metric} {value}"]
    return "\n".join(lines) + "\n"
