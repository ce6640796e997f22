# SPDX-License-Identifier: Apache-2.0
"""Plan the fleet on the controller, from inventory variables alone."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from ansible.errors import AnsibleActionFail, AnsibleError
from ansible.plugins.action import ActionBase

from ansible_collections.gpufleet.metal.plugins.module_utils._controller_files import read_text, replace_text
from ansible_collections.gpufleet.metal.plugins.module_utils._errors import FleetError, InvalidInputError
from ansible_collections.gpufleet.metal.plugins.module_utils._plan.applied import APPLIED, read_applied
from ansible_collections.gpufleet.metal.plugins.module_utils._plan.builder import build_plan
from ansible_collections.gpufleet.metal.plugins.module_utils._plan.changes import plan_changes
from ansible_collections.gpufleet.metal.plugins.module_utils._plan.findings import (
    Finding,
    findings_as_text,
    natural_key,
)
from ansible_collections.gpufleet.metal.plugins.module_utils._plan.picture import plan_as_svg
from ansible_collections.gpufleet.metal.plugins.module_utils._plan.schema import (
    FLEET_VARIABLES,
    GROUPS,
    HOST_VARIABLES,
    Inventory,
)
from ansible_collections.gpufleet.metal.plugins.module_utils._plan.table import plan_as_json, plan_as_table
from ansible_collections.gpufleet.metal.plugins.plugin_utils._plain import plain


def has_template(value: Any) -> bool:
    """Tell whether a value, or one inside it, may have to be templated; keys of mappings never are."""
    if isinstance(value, str):
        return "{" in value
    if isinstance(value, Mapping):
        return any(has_template(item) for item in value.values())
    if isinstance(value, (list, tuple, set, frozenset)):
        return any(has_template(item) for item in value)
    return False


class ActionModule(ActionBase):
    """Gathers the inventory's variables of all hosts, calls the pure planner and writes what it returns."""

    TRANSFERS_FILES = False
    _requires_connection = False
    _supports_check_mode = True
    _supports_diff = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Run the task; see the documentation of the module of the same name."""
        variables: dict[str, Any] = task_vars or {}
        result: dict[str, Any] = super().run(tmp, variables)
        __, arguments = self.validate_argument_spec(
            {
                "directory": {"type": "path"},
                "fail": {"type": "bool", "default": True},
                "show": {"type": "bool", "default": False},
            }
        )
        directory = os.path.abspath(arguments["directory"]) if arguments["directory"] else None
        try:
            self._plan(variables, directory, arguments["fail"], result)
        except FleetError as fault:
            raise AnsibleActionFail(str(fault)) from fault
        if arguments["show"] and "table" in result:
            # Not by a task's result: every callback folds, quotes or escapes what is in one, and a table falls apart.
            self._display.display(f"\n{result['table']}")
        return result

    def _plan(self, variables: Mapping[str, Any], directory: str | None, fail: bool, result: dict[str, Any]) -> None:
        """Plan, write what is to be written, and put all of it into the result."""
        applied = self._applied(directory)
        plan = build_plan(self._inventory(variables, applied))
        result["findings"] = plan["findings"]
        result["changed"] = False
        if plan["findings"] and fail:
            # Half a plan would only hide the findings in the output.
            result["failed"] = True
            result["msg"] = findings_as_text([Finding(**finding) for finding in plan["findings"]])
            return
        result["plan"] = plan
        if plan["findings"]:
            return
        changes = plan_changes(plan, applied)
        result["changes"] = [change.as_dict() for change in changes.changes]
        result["table"] = f"{plan_as_table(plan)}{changes.as_text()}\n"
        if directory is not None:
            self._write(directory, plan, result)

    @staticmethod
    def _applied(directory: str | None) -> dict[str, Any] | None:
        """Return what was applied last, or None when nothing was or nobody says where it is recorded."""
        if directory is None:
            return None
        path = os.path.join(directory, APPLIED)
        text = read_text(path)
        return read_applied(text, path) if text is not None else None

    def _inventory(self, variables: Mapping[str, Any], applied: Mapping[str, Any] | None) -> Inventory:
        """Gather groups and variables of the whole inventory, whatever hosts the play has."""
        groups = {group: [str(name) for name in variables["groups"].get(group, ())] for group in GROUPS}
        hosts: dict[str, dict[str, Any]] = {}
        fleet: dict[str, Any] = {}
        names: dict[str, list[str]] = {}
        conflicts: dict[str, list[str]] = {}
        broken: dict[tuple[str, str], str] = {}
        origin: dict[str, tuple[str, Any]] = {}
        for host in sorted({name for members in groups.values() for name in members}, key=natural_key):
            raw = variables["hostvars"].raw_get(host)
            templar = self._templar.copy_with_new_env(available_variables=raw)

            def value_of(name: str, raw: Any = raw, templar: Any = templar, host: str = host) -> Any:
                try:
                    # The recorded hardware of a large fleet is most of what is read, and holds no template.
                    return plain(templar.template(raw[name]) if has_template(raw[name]) else raw[name])
                except (AnsibleError, InvalidInputError) as fault:
                    broken[host, name] = " ".join(str(fault).split())
                    return None

            hosts[host] = {name: value_of(name) for name in HOST_VARIABLES if name in raw}
            for name in raw:
                if name.startswith("fleet_"):
                    names.setdefault(str(name), []).append(host)
            for name in FLEET_VARIABLES:
                if name not in raw:
                    continue
                if name not in origin:
                    origin[name] = (host, raw[name])
                    fleet[name] = value_of(name)
                elif name not in conflicts and origin[name][1] is not raw[name] and origin[name][1] != raw[name]:
                    conflicts[name] = [origin[name][0], host]
        return Inventory(groups, fleet, hosts, names, conflicts, broken, applied)

    def _write(self, directory: str, plan: Mapping[str, Any], result: dict[str, Any]) -> None:
        """Write plan.json and plan.svg where they differ; in check mode only say so."""
        files = []
        diffs = []
        for name, content in (("plan.json", plan_as_json(plan)), ("plan.svg", plan_as_svg(plan))):
            path = os.path.join(directory, name)
            before = read_text(path)
            if before == content:
                continue
            files.append(path)
            if name == "plan.json":
                diffs.append({"before_header": path, "after_header": path, "before": before or "", "after": content})
            if not self._task.check_mode:
                replace_text(path, content)
        result["changed"] = bool(files)
        result["changed_files"] = files
        if self._task.diff and diffs:
            result["diff"] = diffs
