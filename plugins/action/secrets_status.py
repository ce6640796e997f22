# SPDX-License-Identifier: Apache-2.0
"""Say how old secrets are, what is due and what is stuck; write it as metrics."""

from __future__ import annotations

import time
from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase

from ansible_collections.gpufleet.metal.plugins.module_utils._controller_files import replace_text
from ansible_collections.gpufleet.metal.plugins.module_utils._errors import FleetError
from ansible_collections.gpufleet.metal.plugins.module_utils._secrets.status import as_metrics, as_table, status_of
from ansible_collections.gpufleet.metal.plugins.plugin_utils._plain import plain
from ansible_collections.gpufleet.metal.plugins.plugin_utils._secret_actions import definitions_of
from ansible_collections.gpufleet.metal.plugins.plugin_utils._secret_stores import Controller, open_store


class ActionModule(ActionBase):
    """Reads the store and describes it without a value."""

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
                "secrets": {"type": "dict", "required": True},
                "metrics_path": {"type": "path"},
            }
        )
        arguments = plain(given)
        controller = Controller(self._loader, self._templar, variables)
        now = int(time.time())
        try:
            definitions = definitions_of(arguments["secrets"], controller)
            document = open_store(arguments["store"], controller).read()
            statuses = status_of(document, definitions, now)
            metrics = as_metrics(statuses, document.generation, now)
            if arguments["metrics_path"] and not self._task.check_mode:
                replace_text(controller.path(arguments["metrics_path"]), metrics)
        except FleetError as fault:
            raise AnsibleActionFail(str(fault)) from fault
        # The metrics hold the time of this reading and are new each time: that is no change of anything.
        result["changed"] = False
        result["generation"] = document.generation
        result["secrets"] = [status.as_dict() for status in statuses]
        result["table"] = as_table(statuses, now)
        result["metrics"] = metrics
        return result
