# SPDX-License-Identifier: Apache-2.0
# PRIVATE to the collection: do not import this from outside, it may change without notice.
"""For action plugins: prove that a new connection can be made after a change, or wait until the change is undone."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Any

from ansible.errors import AnsibleConnectionFailure
from ansible.plugins.action import ActionBase
from ansible.utils.display import Display

from ansible_collections.gpufleet.metal.plugins.module_utils import _nft
from ansible_collections.gpufleet.metal.plugins.module_utils._errors import FleetError

GRACE_SECONDS = 60
"""How long past its rollback the host may take to answer again."""

SSH_TRANSPORTS = frozenset({"ssh", "smart", "paramiko", "paramiko_ssh", "libssh"})

display = Display()


class NoNewConnectionError(FleetError):
    """The connection in use is the one from before the change."""


@dataclass(frozen=True)
class Proof:
    """Whether a new connection confirmed the change, and from where; or from where it was tried last, and why not."""

    confirmed: bool
    origin: str = ""
    reason: str = ""


class Decision(Enum):
    """What became of the change, as far as the host says."""

    CONFIRMED = "confirmed"
    UNDONE = "undone"
    UNKNOWN = "unknown"


class NewConnectionAction(ActionBase):
    """Base of the action plugins whose change is disarmed by a new connection."""

    def ssh_connection(self) -> tuple[str, int, int] | None:
        """Ask the host, without become (sudo would hide it), how it sees this connection; None if it is not ssh."""
        execute: Callable[..., dict[str, Any]] = self._low_level_execute_command
        answer = execute('printf "%s\\n" "$SSH_CONNECTION"', sudoable=False)
        return _nft.parse_ssh_connection(str(answer.get("stdout", "")))

    def over_ssh(self) -> bool:
        """Whether this task reaches its host over ssh."""
        return self._connection.transport in SSH_TRANSPORTS

    def new_connection(self, before: tuple[str, int, int] | None) -> tuple[str, int, int] | None:
        """Drop the connection, make a new one, and prove by its client port that it is one."""
        if self.over_ssh():
            self._connection.reset()
        after = self.ssh_connection()
        if before is not None and (after is None or after[:2] == before[:2]):
            raise NoNewConnectionError("the connection is the old one, which proves nothing about new ones")
        return after

    def prove(
        self, before: tuple[str, int, int] | None, fires_at: float, confirm: Callable[[], dict[str, Any]]
    ) -> Proof:
        """Try new connections until one runs ``confirm``, a module call, or the rollback is due (monotonic seconds)."""
        origin, reason = "", "none was tried in time"
        while time.monotonic() < fires_at:
            try:
                after = self.new_connection(before)
                origin = "" if after is None else f"{after[0]} port {after[1]}"
                confirmed = confirm()
            except (AnsibleConnectionFailure, NoNewConnectionError) as fault:
                reason = " ".join(str(fault).split())
                display.vv(f"no new connection yet: {reason}")
                time.sleep(1)
                continue
            if confirmed.get("failed"):
                return Proof(False, origin, str(confirmed.get("msg", "the confirming step failed")))
            return Proof(True, origin)
        return Proof(False, origin, reason)

    def decided(self, fires_at: float, status: Callable[[], dict[str, Any]]) -> Decision:
        """Wait until the host answers and says what was decided; unknown if it does not in time.

        It may say that the change is confirmed: the confirmation reached it and the answer was lost.
        """
        while time.monotonic() < fires_at + GRACE_SECONDS:
            try:
                self.new_connection(None)
                answer = status()
            except AnsibleConnectionFailure as fault:
                display.vv(f"waiting for the rollback: {' '.join(str(fault).split())}")
            else:
                if not answer.get("failed") and not answer["undecided"]:
                    return Decision.CONFIRMED if answer["confirmed"] else Decision.UNDONE
            time.sleep(1)
        return Decision.UNKNOWN
