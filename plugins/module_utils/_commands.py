# SPDX-License-Identifier: Apache-2.0
# PRIVATE to the collection: do not import this from outside, it may change without notice.
"""Run commands of the host without a shell, in a way that pure code can take as an argument."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

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
