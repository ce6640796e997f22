# SPDX-License-Identifier: Apache-2.0
# PRIVATE to the collection: do not import this from outside, it may change without notice.
"""Read ``fleet_secrets``: which secrets there are, how old they may become and who consumes them. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ansible_collections.gpufleet.metal.plugins.module_utils._errors import InvalidInputError
from ansible_collections.gpufleet.metal.plugins.module_utils._secrets.document import check_name
from ansible_collections.gpufleet.metal.plugins.module_utils._secrets.kinds import check_options

HOUR = 3600

SHIPPED_CONSUMERS = (
    "engine_authority",
    "engine_registry_login",
    "exporter_authority",
    "gateway_api_key",
    "gateway_authority",
    "gateway_token_key",
    "kubernetes_encryption_key",
    "prometheus_authority",
)
"""Consumers whose tasks come with the collection: playbooks/rotation/consumers has a file for each."""

_SHIPPED_PREFIX = "gpufleet.metal."

_HOURS = {"settle_hours": 0, "overlap_hours": 24, "stuck_hours": 24}
_KEYS = {"kind", "options", "max_age_days", "consumers", *_HOURS}


@dataclass(frozen=True)
class Consumer:
    """Hosts that accept or send a secret, and the tasks that bring one of them to a phase and prove it."""

    name: str
    hosts: str
    tasks: str

    def shipped_tasks(self) -> str | None:
        """Return the file of a consumer of the collection's, relative to playbooks/rotation; None for a user's own."""
        if not self.tasks.startswith(_SHIPPED_PREFIX):
            return None
        return f"consumers/{self.tasks[len(_SHIPPED_PREFIX) :]}.yml"


@dataclass(frozen=True)
class Definition:
    """An entry of ``fleet_secrets``, complete."""

    name: str
    kind: str
    options: Mapping[str, Any]
    max_age_days: int | None
    settle_seconds: int
    overlap_seconds: int
    stuck_seconds: int
    consumers: tuple[Consumer, ...]

    @property
    def signer(self) -> str | None:
        """Return the name of the authority in the store that signs this certificate; None where none of them does."""
        return self.options.get("ca_secret") or None


def read_definitions(entries: Any) -> dict[str, Definition]:
    """Read all entries. Raises InvalidInputError that names the entry, the value found and the value wanted."""
    if not isinstance(entries, Mapping):
        raise InvalidInputError("fleet_secrets is no dictionary, wanted the name of each secret with its description")
    definitions = {check_name(str(name)): _read(str(name), entry) for name, entry in entries.items()}
    authorities = [name for name, definition in definitions.items() if definition.kind == "authority"]
    for name, definition in definitions.items():
        if definition.signer is not None and definition.signer not in authorities:
            raise InvalidInputError(
                f"fleet_secrets.{name}.options.ca_secret is {definition.signer!r}, wanted a secret of kind authority "
                f"in fleet_secrets, which has {', '.join(authorities) or 'none'}"
            )
    return definitions


def _read(name: str, entry: Any) -> Definition:
    where = f"fleet_secrets.{name}"
    if not isinstance(entry, Mapping) or "kind" not in entry:
        raise InvalidInputError(f"{where} has no 'kind', wanted a dictionary with at least that")
    unknown = sorted(set(entry) - _KEYS)
    if unknown:
        raise InvalidInputError(f"{where} has {unknown[0]!r}, wanted none but {', '.join(sorted(_KEYS))}")
    options = entry.get("options", {})
    if not isinstance(options, Mapping):
        raise InvalidInputError(f"{where}.options is {options!r}, wanted a dictionary")
    hours = {key: _whole(entry.get(key, default), f"{where}.{key}", 0) for key, default in _HOURS.items()}
    age = entry.get("max_age_days")
    kind = str(entry["kind"])
    return Definition(
        name=name,
        kind=kind,
        options=check_options(kind, options, where),
        max_age_days=None if age is None else _whole(age, f"{where}.max_age_days", 1),
        settle_seconds=hours["settle_hours"] * HOUR,
        overlap_seconds=hours["overlap_hours"] * HOUR,
        stuck_seconds=hours["stuck_hours"] * HOUR,
        consumers=_consumers(entry.get("consumers", {}), f"{where}.consumers"),
    )


def _consumers(entries: Any, where: str) -> tuple[Consumer, ...]:
    if not isinstance(entries, Mapping):
        raise InvalidInputError(f"{where} is no dictionary, wanted the name of each consumer with 'hosts' and 'tasks'")
    consumers = []
    for name, entry in entries.items():
        if not isinstance(entry, Mapping) or set(entry) != {"hosts", "tasks"}:
            raise InvalidInputError(f"{where}.{name}: wanted exactly 'hosts' (a group or host) and 'tasks' (a file)")
        tasks = str(entry["tasks"])
        shipped = [_SHIPPED_PREFIX + known for known in SHIPPED_CONSUMERS]
        if tasks.startswith(_SHIPPED_PREFIX) and tasks not in shipped:
            raise InvalidInputError(
                f"{where}.{name}.tasks is {tasks!r}, wanted a file of yours or one of {', '.join(shipped)}"
            )
        consumers.append(Consumer(check_name(str(name)), str(entry["hosts"]), tasks))
    return tuple(consumers)


def _whole(value: Any, where: str, least: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise InvalidInputError(f"{where} is {value!r}, wanted a whole number of at least {least}")
    return value
