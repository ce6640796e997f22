# SPDX-License-Identifier: Apache-2.0
"""Conduct the replacement of a table: compare, apply under a timer, prove a new connection, confirm."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from ansible.errors import AnsibleActionFail, AnsibleConnectionFailure

from ansible_collections.gpufleet.metal.plugins.module_utils import _nft
from ansible_collections.gpufleet.metal.plugins.module_utils._errors import FleetError
from ansible_collections.gpufleet.metal.plugins.plugin_utils._new_connection import (
    GRACE_SECONDS,
    Decision,
    NewConnectionAction,
    Proof,
)

MODULE = "gpufleet.metal.nft_table"


class ActionModule(NewConnectionAction):
    """Runs the module's phases; between apply and confirm it makes a new connection."""

    _supports_check_mode = True
    _supports_diff = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Run the task; see the module's documentation for options and results."""
        self._variables: dict[str, Any] = task_vars or {}
        result: dict[str, Any] = super().run(tmp, self._variables)
        check: Callable[..., tuple[Any, dict[str, Any]]] = self.validate_argument_spec
        __, self._options = check(argument_spec=_nft.ARGUMENT_SPEC)
        options = self._options
        try:
            _nft.check_options(options["name"], options["path"], options["content"], options["rollback_seconds"])
            result.update(self._phase("compare"))
            if not result.pop("apply", False) or result.get("failed"):
                return result
            before = self.ssh_connection()
            self._check_controller(before)
            result.update(self._apply_and_prove(before))
        except FleetError as fault:
            raise AnsibleActionFail(str(fault)) from fault
        return result

    def _phase(self, phase: str) -> dict[str, Any]:
        """Call the module for one phase."""
        arguments = {**self._options, "_phase": phase}
        result: dict[str, Any] = self._execute_module(
            module_name=MODULE, module_args=arguments, task_vars=self._variables
        )
        result.pop("invocation", None)
        return result

    def _check_controller(self, connection: tuple[str, int, int] | None) -> None:
        options = self._options
        if options["assume_controller_allowed"]:
            return
        if connection is not None:
            _nft.check_controller(connection, options["controller_must_match"], options["family"], options["name"])
        elif self.over_ssh():
            raise _nft.RulesetError(
                "The host does not say from which address it sees this controller (SSH_CONNECTION is empty), so that "
                "can't be checked against the new rules. Nothing was changed. Set assume_controller_allowed to rely on "
                "the rollback alone"
            )

    def _apply_and_prove(self, before: tuple[str, int, int] | None) -> dict[str, Any]:
        """Apply, and confirm over a new connection; if that fails, wait until the old table is back and fail."""
        seconds = int(self._options["rollback_seconds"])
        try:
            applied = self._phase("apply")
        except AnsibleConnectionFailure as fault:
            reason = f"the connection broke: {' '.join(str(fault).split())}"
            return self._after_rollback(time.monotonic() + seconds, Proof(False, reason=reason))
        if applied.get("failed"):
            return applied
        # The timer was armed before the answer came back: seen from here it fires at this moment at the latest.
        fires_at = time.monotonic() + seconds
        proof = self.prove(before, fires_at, lambda: self._phase("confirm"))
        return self._confirmed(proof) if proof.confirmed else self._after_rollback(fires_at, proof)

    def _confirmed(self, proof: Proof) -> dict[str, Any]:
        return {"changed": True, "confirmed_from": proof.origin, "rolled_back": False}

    def _after_rollback(self, fires_at: float, proof: Proof) -> dict[str, Any]:
        """Wait until the host answers again and has decided; the result says what it found."""
        table = f"{self._options['family']} {self._options['name']}"
        decision = self.decided(fires_at, lambda: self._phase("status"))
        if decision is Decision.CONFIRMED:
            return self._confirmed(proof)
        back = decision is Decision.UNDONE
        tried = (
            f"The new table {table} was applied, but no new connection confirmed it within "
            f"{self._options['rollback_seconds']} s ({proof.reason})."
        )
        if back:
            found = (
                "The old table is back and the host is reachable; the file for the next boot was not changed. "
                "Look at fleet_management_networks: it has to hold this controller's address"
            )
        else:
            found = (
                f"The host has not answered within {GRACE_SECONDS} s after its rollback was due. On its console: "
                f"'systemctl list-timers gpufleet-nft-*' and 'nft list ruleset'; a reboot loads the old file"
            )
        return {"failed": True, "changed": not back, "rolled_back": back, "msg": f"{tried} {found}"}
