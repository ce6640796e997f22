# SPDX-License-Identifier: Apache-2.0
"""Make the store of secrets with its wrapping key, and seal it for other keys."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase

from ansible_collections.gpufleet.metal.plugins.module_utils._errors import FleetError, InvalidInputError
from ansible_collections.gpufleet.metal.plugins.module_utils._secrets.document import (
    MissingStoreError,
    StoreError,
)
from ansible_collections.gpufleet.metal.plugins.module_utils._secrets.envelope import (
    DEFAULT_BITS,
    MINIMUM_BITS,
    key_id,
    make_wrapping_key,
)
from ansible_collections.gpufleet.metal.plugins.module_utils._secrets.file_store import (
    FileStore,
    WrappingKey,
    exclusive,
    replace_private,
)
from ansible_collections.gpufleet.metal.plugins.plugin_utils._plain import plain
from ansible_collections.gpufleet.metal.plugins.plugin_utils._secret_stores import (
    DEFAULT_KEY,
    Controller,
    check_key,
    open_store,
    read_key,
    read_public_key_file,
)


class ActionModule(ActionBase):
    """Makes or re-seals a store; a key that exists is never made anew."""

    TRANSFERS_FILES = False
    _requires_connection = False
    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Run the task; see the documentation of the module of the same name."""
        variables: dict[str, Any] = task_vars or {}
        result: dict[str, Any] = super().run(tmp, variables)
        __, given = self.validate_argument_spec(
            {
                "store": {"type": "dict"},
                "state": {"type": "str", "choices": ["present", "rewrapped"], "default": "present"},
                "bits": {"type": "int", "default": DEFAULT_BITS},
                "recipients": {"type": "list", "elements": "path", "default": []},
                "new_key": {"type": "dict", "no_log": False},
            }
        )
        arguments = plain(given)
        controller = Controller(self._loader, self._templar, variables)
        try:
            if not MINIMUM_BITS <= arguments["bits"] <= 16384:
                raise InvalidInputError(f"bits is {arguments['bits']}, wanted {MINIMUM_BITS} to 16384")
            store = open_store(arguments["store"], controller)
            recipients = [read_public_key_file(controller.path(path)) for path in arguments["recipients"]]
            if arguments["state"] == "rewrapped":
                return {**result, **self._rewrap(store, arguments, recipients, controller)}
            if not isinstance(store, FileStore):
                return {**result, **self._create_elsewhere(store)}
            key = (arguments["store"] or {}).get("key") or DEFAULT_KEY
            return {**result, **self._create(store, key, arguments["bits"], recipients, controller)}
        except FleetError as fault:
            raise AnsibleActionFail(str(fault)) from fault

    def _create(
        self, store: FileStore, key: Mapping[str, Any], bits: int, recipients: list[Any], controller: Controller
    ) -> dict[str, Any]:
        if store.exists():
            return {"changed": False, "path": store.path, "recipients": list(store.recipients())}
        if self._task.check_mode:
            return {"changed": True, "path": store.path, "recipients": []}
        self._make_key(key, bits, controller)
        store.create(recipients)
        return {"changed": True, "path": store.path, "recipients": list(store.recipients())}

    def _create_elsewhere(self, store: Any) -> dict[str, Any]:
        try:
            store.read()
        except MissingStoreError:
            if not self._task.check_mode:
                store.create()
            return {"changed": True, "recipients": []}
        return {"changed": False, "recipients": []}

    def _rewrap(
        self, store: Any, arguments: dict[str, Any], recipients: list[Any], controller: Controller
    ) -> dict[str, Any]:
        if not isinstance(store, FileStore):
            raise InvalidInputError(
                "state is rewrapped and fleet_secret_store.backend is not file: SOPS has `sops updatekeys` and "
                "`sops rotate`, a vault has `rekey`"
            )
        new = arguments["new_key"] or (arguments["store"] or {}).get("key") or DEFAULT_KEY
        check_key(new, "new_key")
        try:
            before = store.recipients()
        except StoreError:
            # A run that was killed, or is repeated before the inventory names the new key, has sealed it already.
            if _will_be_made(new, controller):
                raise
            wrapping = read_key(new, controller)
            wanted = sorted({key_id(key) for key in [wrapping.key.public_key(), *recipients]})
            if _sealed_for(store, wrapping) != wanted:
                raise
            return {"changed": False, "path": store.path, "recipients": wanted}
        if self._task.check_mode and _will_be_made(new, controller):
            return {"changed": True, "path": store.path, "recipients": list(before)}
        self._make_key(new, arguments["bits"], controller)
        wrapping = read_key(new, controller)
        wanted = sorted({key_id(key) for key in [wrapping.key.public_key(), *recipients]})
        if wanted != sorted(before) and not self._task.check_mode:
            store.rewrap(wrapping, recipients)
        return {"changed": wanted != sorted(before), "path": store.path, "recipients": wanted}

    @staticmethod
    def _make_key(key: Mapping[str, Any], bits: int, controller: Controller) -> None:
        if _will_be_made(key, controller):
            path = controller.path(key["file"])
            with exclusive(path):
                if not os.path.lexists(path):
                    replace_private(path, make_wrapping_key(bits))


def _sealed_for(store: FileStore, wrapping: WrappingKey) -> list[str] | None:
    try:
        return sorted(store.recipients(wrapping))
    except StoreError:
        return None


def _will_be_made(key: Mapping[str, Any], controller: Controller) -> bool:
    return "file" in key and not os.path.lexists(controller.path(key["file"]))
