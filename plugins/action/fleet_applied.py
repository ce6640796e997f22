# SPDX-License-Identifier: Apache-2.0
"""Record on the controller which hosts have got their part of the plan."""

from __future__ import annotations

import json
import os
from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase

from ansible_collections.gpufleet.metal.plugins.module_utils._controller_files import read_text, replace_text
from ansible_collections.gpufleet.metal.plugins.module_utils._errors import FleetError
from ansible_collections.gpufleet.metal.plugins.module_utils._plan.applied import APPLIED, applied_plan, read_applied
from ansible_collections.gpufleet.metal.plugins.module_utils._plan.table import plan_as_json


class ActionModule(ActionBase):
    """Merges the hosts' parts of plan.json into applied.json."""

    TRANSFERS_FILES = False
    _requires_connection = False
    _supports_check_mode = True
    _supports_diff = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Run the task; see the documentation of the module of the same name."""
        result: dict[str, Any] = super().run(tmp, task_vars or {})
        __, arguments = self.validate_argument_spec(
            {
                "directory": {"type": "path", "required": True},
                "hosts": {"type": "list", "elements": "str", "required": True},
            }
        )
        result["changed"] = False
        if self._task.check_mode:
            # Nothing was applied, so there is nothing to record.
            result["skipped"] = True
            return result
        directory = os.path.abspath(arguments["directory"])
        path = os.path.join(directory, APPLIED)
        try:
            planned = read_text(os.path.join(directory, "plan.json"))
            if planned is None:
                raise AnsibleActionFail(f"{directory}/plan.json is missing: run gpufleet.metal.plan first")
            before = read_text(path)
            known = read_applied(before, path) if before is not None else None
            after = plan_as_json(applied_plan(json.loads(planned), known, arguments["hosts"]))
            if after != before:
                replace_text(path, after)
                result["changed"] = True
        except (FleetError, ValueError) as fault:
            raise AnsibleActionFail(str(fault)) from fault
        return result
