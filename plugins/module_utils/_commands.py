# SPDX-License-Identifier: Apache-2.0
# PRIVATE to the collection: do not import this from outside, it may change without notice.
"""Run commands of the host without a shell, in a way that pure code can take as an argument."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ansible_collections.gpufleet.metal.plugins.module_utils._gpu import child

Runner = Callable[..., "tuple[int, str, str]"]
"""(argv, text for stdin or None) -> (exit status, stdout, stderr). A command that does not exist exits with 127."""


def runner(module: Any) -> Runner:
    """Run commands through an AnsibleModule, expanding nothing, with messages in English."""

    def run(argv: Sequence[str], stdin: str | None = None) -> tuple[int, str, str]:
        try:
            status, out, err = module.run_command(
                list(argv),
                data=stdin,
                handle_exceptions=False,
                expand_user_and_vars=False,
                environ_update={"LC_ALL": "C.UTF-8"},
            )
        except OSError as fault:
            return 127, "", f"{argv[0]}: {fault.strerror}"
        return int(status), str(out), str(err)

    return run


def bounded(deadline_seconds: float, environment: Mapping[str, str] | None = None) -> Runner:
    """Run commands that ask a driver, which can sleep in the kernel where no signal reaches them.

    Each runs in a child of its own, which is killed with all that it started at the deadline, and not waited for
    (``_gpu/child.py``). ``environment`` is all that they see; None is the caller's own, with messages in English.

    The runner raises DeadlineError when there was no answer in time.
    """

    def run(argv: Sequence[str], stdin: str | None = None) -> tuple[int, str, str]:
        def command() -> list[Any]:
            try:
                done = subprocess.run(
                    list(argv),
                    input=stdin,
                    capture_output=True,
                    encoding="utf-8",
                    errors="replace",
                    check=False,
                    env={**os.environ, "LC_ALL": "C.UTF-8"} if environment is None else dict(environment),
                )
            except OSError as fault:
                return [127, "", f"{argv[0]}: {fault.strerror}"]
            return [done.returncode, done.stdout, done.stderr]

        try:
            status, out, err = child.call(command, deadline_seconds)
        except child.DeadlineError:
            raise child.DeadlineError(
                f"{' '.join(argv[:2])} gave no answer within {deadline_seconds:g} seconds and was killed"
            ) from None
        return int(status), str(out), str(err)

    return run
