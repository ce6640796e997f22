# SPDX-License-Identifier: Apache-2.0
"""A rotation that is killed (SIGKILL) after every single step in turn, and continued each time.

    python tests/fleet/killed.py SECRET WORK_DIRECTORY OPTION...

runs ``rotate_secrets`` with these options of ``ansible-playbook``, and reads the store in ``WORK_DIRECTORY``. With
``KILL_EVERY=4`` in the environment it is killed after each fourth step only.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import stored
from fleet import ROOT, variables

PHASES = ("idle", "staging", "promoted", "retiring")
PLAYBOOK = "gpufleet.metal.rotate_secrets"


def environment(steps: int = 0, task: str = "", times: int = 1) -> dict[str, str]:
    """Return the environment of a run that is killed after so many steps, or before a task; else it ends by itself."""
    return {
        **os.environ,
        "ANSIBLE_CALLBACK_PLUGINS": str(ROOT / "tests" / "fleet" / "rotation" / "callback_plugins"),
        "ANSIBLE_CALLBACKS_ENABLED": "kill_after",
        "KILL_AFTER_STEPS": str(steps),
        "KILL_BEFORE_TASK": task,
        "KILL_BEFORE_TASK_TIMES": str(times),
    }


def run_and_kill(command: Sequence[str], steps: int = 0, task: str = "", times: int = 1) -> tuple[int, str]:
    """Run a playbook that is killed at some point, with all that it started; return its status and its words."""
    done = subprocess.run(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=environment(steps, task, times),
        start_new_session=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout


def kill_everywhere(
    name: str, work: Path, run: Callable[[Sequence[str], int], tuple[int, str]], every: int = 1
) -> Counter[str]:
    """Rotate a secret, and in every phase kill each run a step later than the one before, until one gets to the next.

    ``run`` is told which secrets to begin with and after how many steps to die. Return the kills by phase.
    """
    begun = time.monotonic()
    kills: Counter[str] = Counter()
    phase, steps = "idle", 1
    while True:
        # What was begun goes on by itself; to name it again would begin another rotation after this one.
        status, said = run((name,) if phase == "idle" else (), steps)
        assert status in (0, -signal.SIGKILL), f"it ended with {status} by itself:\n{said[-8000:]}"
        kills[phase] += status != 0
        print(f"{name}, {phase}: {'killed after' if status else 'ended before'} step {steps}", flush=True)
        found = stored.secrets(work)[name].phase
        if found == "idle" and phase != "idle":
            break
        phase, steps = (found, 1) if found != phase else (phase, steps + every)
    assert min(kills[known] for known in PHASES) >= 1, kills
    # Nothing is left to do: the store is as it was left.
    generation = stored.opened(work).generation
    assert run((), 0)[0] == 0
    assert stored.opened(work).generation == generation
    seconds = time.monotonic() - begun
    print(f"{name}: killed {kills.total()} times in {seconds:.0f} s: {dict(kills)}", flush=True)
    return kills


def main(name: str, work: Path, options: Sequence[str]) -> None:
    """Do it with the playbook of the collection."""

    def run(names: Sequence[str], steps: int) -> tuple[int, str]:
        return run_and_kill(["ansible-playbook", PLAYBOOK, *options, *variables(rotate_secrets_names=names)], steps)

    kill_everywhere(name, work, run, int(os.environ.get("KILL_EVERY", "1")))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]).resolve(), sys.argv[3:])
