# SPDX-License-Identifier: Apache-2.0
"""Render a role's files on the controller and send them to the host in one module call."""

from __future__ import annotations

import base64
import os
import time
from collections.abc import Callable, Mapping
from typing import Any

from ansible.errors import AnsibleActionFail, AnsibleConnectionFailure, AnsibleError
from ansible.template import generate_ansible_template_vars, trust_as_template

from ansible_collections.gpufleet.metal.plugins.module_utils import _files
from ansible_collections.gpufleet.metal.plugins.module_utils._errors import FleetError, InvalidInputError
from ansible_collections.gpufleet.metal.plugins.plugin_utils._new_connection import (
    GRACE_SECONDS,
    Decision,
    NewConnectionAction,
    Proof,
)

MODULE = "gpufleet.metal.managed_files"


class ActionModule(NewConnectionAction):
    """Checks the options, gathers the contents, and calls the module of the same name."""

    _supports_check_mode = True
    _supports_diff = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Run the task; see the module's documentation for options and results."""
        variables: dict[str, Any] = task_vars or {}
        result: dict[str, Any] = super().run(tmp, variables)
        try:
            arguments, contents = self._gather(variables)
        except FleetError as fault:
            raise AnsibleActionFail(str(fault)) from fault
        result.update(self._call({**arguments, "_contents": contents}, variables))
        identity = result.pop("unconfirmed", "")
        if identity:
            self._prove(identity, int(arguments["confirm_seconds"]), result, variables)
        return result

    def _call(self, arguments: dict[str, Any], variables: dict[str, Any]) -> dict[str, Any]:
        result: dict[str, Any] = self._execute_module(module_name=MODULE, module_args=arguments, task_vars=variables)
        # The contents travel in the arguments; an invocation of that size helps nobody.
        result.pop("invocation", None)
        return result

    def _prove(self, identity: str, seconds: int, result: dict[str, Any], variables: dict[str, Any]) -> None:
        """Confirm the files over a new connection; if that fails, wait until the old ones are back, and fail."""

        def phase(name: str) -> dict[str, Any]:
            return self._call({"files": [], "_phase": name, "_identity": identity}, variables)

        # The timer was armed before the answer came back: seen from here it fires at this moment at the latest.
        fires_at = time.monotonic() + seconds
        try:
            proof = self.prove(self.ssh_connection(), fires_at, lambda: phase("confirm"))
        except AnsibleConnectionFailure as fault:
            proof = Proof(False, reason=" ".join(str(fault).split()))
        decision = Decision.CONFIRMED if proof.confirmed else self.decided(fires_at, lambda: phase("status"))
        if decision is Decision.CONFIRMED:
            result.update(confirmed_from=proof.origin, rolled_back=False)
            return
        back = decision is Decision.UNDONE
        names = ", ".join(result["changed_files"])
        end = (
            "The old files are back and the host is reachable"
            if back
            else f"The host has not answered within {GRACE_SECONDS} s after its rollback was due; look on its console"
        )
        result.update(
            failed=True,
            changed=not back,
            rolled_back=back,
            msg=f"New files ({names}) were put in place, but no new connection confirmed them within {seconds} s "
            f"({proof.reason}). {end}",
        )

    def _gather(self, variables: dict[str, Any]) -> tuple[dict[str, Any], dict[str, str]]:
        """Check all options, then read and render; returns the module's arguments and base64 contents by path."""
        listed = self._task.args.get("files")
        for position, entry in enumerate(listed if isinstance(listed, list) else []):
            _files.check_file_options(entry, position)
        check: Callable[..., tuple[Any, dict[str, Any]]] = self.validate_argument_spec
        __, arguments = check(argument_spec=_files.ARGUMENT_SPEC)
        _files.check_set(arguments["files"])
        _files.check_task(arguments["validate"], arguments["confirm_seconds"])
        contents: dict[str, str] = {}
        total = 0
        for entry in arguments["files"]:
            if entry["state"] != "file" or entry["host_source"] is not None:
                continue
            content = self._content(entry, variables)
            total += len(content)
            if total > _files.MAX_SET_BYTES:
                raise InvalidInputError(
                    f"{entry['dest']}: the files of this task are larger than {_files.MAX_SET_BYTES} bytes together; "
                    f"managed_files is for configuration, use ansible.builtin.copy for data"
                )
            contents[entry["dest"]] = base64.b64encode(content).decode("ascii")
        here = ("template", "content", "source")
        files = [
            {key: value for key, value in entry.items() if key not in here and value is not None}
            for entry in arguments["files"]
        ]
        sent = {"files": files, **{key: arguments[key] for key in ("validate", "activate", "confirm_seconds")}}
        return {key: value for key, value in sent.items() if value is not None}, contents

    def _content(self, entry: Mapping[str, Any], variables: dict[str, Any]) -> bytes:
        if entry["content"] is not None:
            return str(entry["content"]).encode("utf-8")
        if entry["source"] is not None:
            path = self._found("files", entry["dest"], entry["source"])
            with open(self._loader.get_real_file(path), "rb") as handle:
                return handle.read()
        return self._render(entry["dest"], entry["template"], variables).encode("utf-8")

    def _found(self, directory: str, dest: str, name: str) -> str:
        find: Callable[[str, str], str] = self._find_needle
        try:
            return find(directory, name)
        except AnsibleError as fault:
            raise InvalidInputError(f"{dest}: {fault}") from fault

    def _render(self, dest: str, template: str, variables: dict[str, Any]) -> str:
        """Render a template as ansible.builtin.template does: trim_blocks, '\\n' newlines, includes from templates/."""
        path = self._found("templates", dest, template)
        text = trust_as_template(self._loader.get_text_file_contents(path))
        roots = [*variables.get("ansible_search_path", []), self._loader.get_basedir(), os.path.dirname(path)]
        search_path = [place for root in roots for place in (os.path.join(root, "templates"), root)]
        available = {**variables, **generate_ansible_template_vars(path=template, fullpath=path, dest_path=dest)}
        if "ansible_managed" in variables:
            available["ansible_managed"] = variables["ansible_managed"]
        templar = self._templar.copy_with_new_env(searchpath=search_path, available_variables=available)
        overrides = {"trim_blocks": True, "lstrip_blocks": False, "newline_sequence": "\n"}
        rendered = templar.template(text, escape_backslashes=False, overrides=overrides)
        if isinstance(rendered, (Mapping, list, tuple)):
            raise InvalidInputError(f"{dest}: {template} renders to a structure, not to text; end it with a newline")
        return "" if rendered is None else str(rendered)
