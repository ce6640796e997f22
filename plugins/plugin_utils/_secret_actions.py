# SPDX-License-Identifier: Apache-2.0
# PRIVATE to the collection: do not import this from outside, it may change without notice.
"""For the action plugins about secrets: what they share in reading options."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from ansible_collections.gpufleet.metal.plugins.module_utils._errors import InvalidInputError
from ansible_collections.gpufleet.metal.plugins.module_utils._secrets.definitions import Definition, read_definitions
from ansible_collections.gpufleet.metal.plugins.plugin_utils._secret_stores import Controller


def definitions_of(entries: Any, controller: Controller) -> dict[str, Definition]:
    """Read ``fleet_secrets``, its relative paths made absolute. Raises InvalidInputError."""
    return {name: _absolute(definition, controller) for name, definition in read_definitions(entries).items()}


def _absolute(definition: Definition, controller: Controller) -> Definition:
    options = {
        key: controller.path(value) if key.endswith("_path") else value for key, value in definition.options.items()
    }
    consumers = tuple(
        replace(consumer, tasks=consumer.shipped_tasks() or controller.path(consumer.tasks))
        for consumer in definition.consumers
    )
    return replace(definition, options=options, consumers=consumers)


def hosts_of(definitions: Mapping[str, Definition], groups: Mapping[str, Any]) -> dict[str, dict[str, list[str]]]:
    """Return the hosts of every consumer, whatever hosts the play has. Raises InvalidInputError."""
    every = [str(name) for name in groups.get("all", ())]
    found: dict[str, dict[str, list[str]]] = {}
    for name, definition in definitions.items():
        found[name] = {}
        for consumer in definition.consumers:
            if consumer.hosts in groups:
                members = [str(host) for host in groups[consumer.hosts]]
            elif consumer.hosts in every:
                members = [consumer.hosts]
            else:
                raise InvalidInputError(
                    f"fleet_secrets.{name}.consumers.{consumer.name}.hosts is {consumer.hosts!r}, wanted a group or a "
                    f"host of the inventory"
                )
            found[name][consumer.name] = members
    return found
