# SPDX-License-Identifier: Apache-2.0
# PRIVATE to the collection: do not import this from outside, it may change without notice.
"""Undo a change on the host by a timer that only a new connection disarms.

The directory of a rollback exists from arming on. In it, ``armed`` is the right to decide: the confirming step and the
timer both try to rename it, and the one that succeeds has decided. It holds the moment, in seconds since boot, at which
the timer fires. All of it lies below /run and is gone after a reboot, as is the transient timer; so what is on disk at
the time of a reboot must be safe by itself.

The answer to a confirmation can be lost with its connection. ``confirmed`` and ``change`` therefore stay until the next
change: whoever confirms the same change again is told that it is confirmed, and not that he came too late.

The timer needs neither the controller nor Ansible nor Python.
"""

from __future__ import annotations

import fcntl
import os
import shlex
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from ansible_collections.gpufleet.metal.plugins.module_utils._commands import Runner
from ansible_collections.gpufleet.metal.plugins.module_utils._errors import FleetError, InvalidInputError

SECONDS_RANGE = (10, 600)
"""Below, a slow login would lose the race; above, a locked-out operator waits too long."""

monotonic = time.monotonic
"""Seconds since boot: the same for every process of a host, whatever happens to the clock on the wall."""


class RollbackError(FleetError):
    """A rollback can't be armed, or has decided before the confirmation came."""


@dataclass(frozen=True)
class Rollback:
    """The rollback of one change.

    ``what`` names the change in the journal, such as 'the new table inet gpufleet'; ``change`` tells it from others of
    the same directory: a digest of what is put in place.
    """

    directory: str
    unit: str
    what: str
    change: str

    def path(self, name: str) -> str:
        """A file of the rollback."""
        return os.path.join(self.directory, name)

    def prepare(self) -> None:
        """Make an empty directory, readable by root only."""
        shutil.rmtree(self.directory, ignore_errors=True)
        os.makedirs(self.directory, mode=0o700)
        self.write("change", f"{self.change}\n")

    def arm(self, commands: Sequence[Sequence[str]], seconds: int, run: Runner, now: Callable[[], float]) -> None:
        """Start the timer. ``commands`` put the old state back, in this order; a failing one does not stop the rest."""
        self.write("rollback.sh", self.script(commands, seconds))
        self.write("armed", f"{now() + seconds:.0f}\n")
        status, __, err = run(
            [
                "systemd-run",
                "--quiet",
                "--collect",
                f"--unit={self.unit}",
                f"--on-active={seconds}s",
                "--timer-property=AccuracySec=100ms",
                f"--description=Undo {self.what} unless it is confirmed",
                "/bin/sh",
                self.path("rollback.sh"),
            ]
        )
        if status != 0:
            self.finish()
            raise RollbackError(f"The rollback timer can't be armed, so nothing was changed: {err.strip()}")

    def script(self, commands: Sequence[Sequence[str]], seconds: int) -> str:
        """What the timer runs: take the decision, put the old state back, say so in the journal."""
        lines = [
            "# Run by a transient timer of the collection gpufleet.metal.",
            f"mv {shlex.quote(self.path('armed'))} {shlex.quote(self.path('fired'))} || exit 0",
            "status=0",
            *(f"{shlex.join(command)} || status=1" for command in commands),
            f"echo {shlex.quote(f'gpufleet: nobody confirmed {self.what} over a new connection within {seconds} s')}",
            '[ "$status" = 0 ] && echo "gpufleet: the old state is back" || echo "gpufleet: the old state is NOT back"',
            'exit "$status"',
        ]
        return "\n".join(lines) + "\n"

    @contextmanager
    def confirming(self) -> Iterator[None]:
        """One confirmation at a time: a second one may come while the first, whose answer was lost, still runs.

        Raises RollbackError if this change is not the one that waits here, or that was confirmed here.
        """
        if not os.path.exists(self.path("change")):
            raise self._too_late()
        with open(self.path("change")) as handle:
            fcntl.flock(handle, fcntl.LOCK_EX)
            if handle.read().strip() != self.change:
                raise RollbackError(f"The confirmation of {self.what} came too late: another change took its place")
            yield

    def disarm(self, run: Runner) -> None:
        """Take the decision away from the timer, once. Raises RollbackError if the timer has taken it already."""
        try:
            os.rename(self.path("armed"), self.path("confirmed"))
        except FileNotFoundError as fault:
            if not os.path.exists(self.path("confirmed")):
                raise self._too_late() from fault
        run(["systemctl", "stop", f"{self.unit}.timer"])

    def _too_late(self) -> RollbackError:
        return RollbackError(f"The confirmation of {self.what} came too late: its rollback had begun")

    def confirmed(self) -> bool:
        """Whether this very change was confirmed."""
        try:
            with open(self.path("change")) as handle:
                return handle.read().strip() == self.change and os.path.exists(self.path("confirmed"))
        except FileNotFoundError:
            return False

    def keep_answer(self) -> None:
        """Forget how to undo the confirmed change, but not that it was confirmed."""
        for name in os.listdir(self.directory):
            if name not in ("change", "confirmed"):
                os.unlink(self.path(name))

    def undecided(self) -> bool:
        """Whether the change waits for its confirmation or its rollback."""
        return os.path.exists(self.path("armed"))

    def finish(self) -> None:
        """Forget the rollback."""
        shutil.rmtree(self.directory, ignore_errors=True)

    def settle(self, run: Runner, now: Callable[[], float], sleep: Callable[[float], None]) -> None:
        """Wait until an undecided change of an earlier run, or of somebody else, is confirmed or undone."""
        try:
            with open(self.path("armed")) as handle:
                fires_at = float(handle.read())
        except FileNotFoundError:
            return
        limit = min(fires_at, now() + SECONDS_RANGE[1]) + 5
        while self.undecided() and now() < limit:
            sleep(1)
        if self.undecided():
            # The timer is gone, for instance because somebody stopped it: do its work.
            status, out, err = run(["/bin/sh", self.path("rollback.sh")])
            if status != 0:
                raise RollbackError(f"The rollback of {self.what} failed: {(err or out).strip()}; see {self.directory}")

    def write(self, name: str, text: str) -> None:
        """Write a file of the rollback; it must not exist."""
        descriptor = os.open(self.path(name), os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as handle:
            handle.write(text)


def check_seconds(option: str, seconds: int) -> None:
    """Raises InvalidInputError if the time is out of range."""
    low, high = SECONDS_RANGE
    if not low <= seconds <= high:
        raise InvalidInputError(f"{option} is {seconds}, wanted {low} to {high} seconds")
