# SPDX-License-Identifier: Apache-2.0
"""Create secrets, begin their rotations and take them on, in the store on the controller."""

from __future__ import annotations

import time
from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase

from ansible_collections.gpufleet.metal.plugins.module_utils._errors import FleetError
from ansible_collections.gpufleet.metal.plugins.module_utils._secrets import rounds
from ansible_collections.gpufleet.metal.plugins.module_utils._secrets.definitions import Definition
from ansible_collections.gpufleet.metal.plugins.module_utils._secrets.document import Document
from ansible_collections.gpufleet.metal.plugins.module_utils._secrets.kinds import (
    Authority,
    Made,
    first,
    make,
)
from ansible_collections.gpufleet.metal.plugins.module_utils._secrets.rotation import Waiting
from ansible_collections.gpufleet.metal.plugins.plugin_utils._plain import plain
from ansible_collections.gpufleet.metal.plugins.plugin_utils._secret_actions import definitions_of, hosts_of
from ansible_collections.gpufleet.metal.plugins.plugin_utils._secret_stores import Controller, open_store

SPEC: dict[str, dict[str, Any]] = {
    "store": {"type": "dict"},
    "secrets": {"type": "dict", "required": True},
    "step": {"type": "str", "choices": ["create", "begin", "advance"], "required": True},
    "names": {"type": "list", "elements": "str", "default": []},
    "emergency": {"type": "bool", "default": False},
    "shown": {
        "type": "list",
        "elements": "dict",
        "default": [],
        "options": {
            "secret": {"type": "str", "required": True, "no_log": False},
            "phase": {"type": "str", "required": True},
            "version": {"type": "int", "required": True},
            "consumer": {"type": "str", "required": True},
            "host": {"type": "str", "required": True},
            "holds": {"type": "bool", "required": True},
        },
    },
}


class ActionModule(ActionBase):
    """Applies one step of the pure state machine to the store."""

    TRANSFERS_FILES = False
    _requires_connection = False
    _supports_check_mode = True
    _supports_diff = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Run the task; see the documentation of the module of the same name."""
        variables: dict[str, Any] = task_vars or {}
        result: dict[str, Any] = super().run(tmp, variables)
        __, given = self.validate_argument_spec(SPEC)
        arguments = plain(given)
        controller = Controller(self._loader, self._templar, variables)
        try:
            definitions = definitions_of(arguments["secrets"], controller)
            hosts = hosts_of(definitions, plain(variables.get("groups") or {}))
            store = open_store(arguments["store"], controller)
            return {**result, **self._step(store, definitions, hosts, arguments, int(time.time()))}
        except FleetError as fault:
            raise AnsibleActionFail(str(fault)) from fault

    def _step(
        self,
        store: Any,
        definitions: dict[str, Definition],
        hosts: rounds.Hosts,
        arguments: dict[str, Any],
        now: int,
    ) -> dict[str, Any]:
        documents: list[Document] = []
        waiting: dict[str, Waiting] = {}
        unmade: list[str] = []

        # In check mode the value would be thrown away.
        def new(definition: Definition, authority: Authority) -> Made:
            return Made({}) if self._task.check_mode else make(definition.kind, definition.options, now, authority)

        def initial(definition: Definition, authority: Authority) -> Made:
            return Made({}) if self._task.check_mode else first(definition.kind, definition.options, now, authority)

        def change(before: Document) -> Document:
            after = before
            if arguments["step"] == "create":
                after = rounds.create_missing(before, definitions, initial, now)
            elif arguments["step"] == "begin":
                after, unmade[:] = rounds.begin_rotations(
                    before, definitions, arguments["names"], arguments["emergency"], initial, new, now
                )
            else:
                shown = [rounds.Shown(**entry) for entry in arguments["shown"]]
                after, reasons = rounds.advance_all(before, definitions, hosts, shown, now)
                waiting.update(reasons)
                after, unmade[:] = rounds.follow_emergencies(after, definitions, new, now)
            documents[:] = [before, after]
            return after

        if self._task.check_mode:
            change(store.read())
        else:
            store.update(change)
        before, after = documents
        moved = [name for name, secret in after.secrets.items() if _phase(before, name) != secret.phase]
        only = moved if arguments["step"] == "advance" else None
        result: dict[str, Any] = {
            "changed": before != after,
            "moved": sorted(moved),
            "unmade": list(unmade),
            "work": rounds.work(after, definitions, hosts, now, only),
            "waiting": [
                {
                    "secret": name,
                    "phase": reason.phase,
                    "consumers": list(reason.consumers),
                    "until": reason.until,
                    "certificates": list(reason.certificates),
                    "why": f"{name}: {reason}",
                }
                for name, reason in sorted(waiting.items())
            ],
        }
        if self._task.diff and before != after:
            result["diff"] = {"before": _shown(before), "after": _shown(after)}
        return result


def _phase(document: Document, name: str) -> str:
    secret = document.secrets.get(name)
    return secret.phase if secret else ""


def _shown(document: Document) -> str:
    return "".join(f"{name}: {rounds.describe(secret)}\n" for name, secret in sorted(document.secrets.items()))
