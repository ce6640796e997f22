# SPDX-License-Identifier: Apache-2.0
"""Run ansible-lint on the copy of the collection, where roles and playbooks find each other by name.

ansible-lint starts an `ansible-playbook --syntax-check` for each playbook, each role and each import of a playbook,
which takes longer than all its rules. One such process takes any number of playbooks, so it is asked about all of them
at once. If it finds no fault, there is none in any of them; else ansible-lint asks in its own way, one by one, and
tells file and line.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from .repository import COPY, ROOT, report


def syntax_is_right(playbooks: Sequence[Path], roles: Sequence[Path], environment: dict[str, str]) -> bool:
    """Say whether ansible-core finds no fault in any of these playbooks and roles, in one process."""
    tasks = [{"ansible.builtin.import_role": {"name": str(role)}} for role in roles]
    with tempfile.NamedTemporaryFile("w", suffix=".yml", encoding="utf-8") as imports:
        json.dump([{"hosts": "localhost", "tasks": tasks}], imports)
        imports.flush()
        command = ["ansible-playbook", "--syntax-check", *map(str, playbooks), imports.name]
        # The inventory is none of its business; ansible-lint says the same to its own checks.
        environment = {**environment, "ANSIBLE_INVENTORY_ANY_UNPARSED_IS_FAILED": "False"}
        done = subprocess.run(command, check=False, capture_output=True, env=environment)
    return done.returncode == 0


def check_syntax_at_once(runner: Any) -> None:
    """Have ansible-lint's class I(runner) ask about files one by one only where all of them together have a fault."""
    one_by_one = runner._map_syntax_check_workers

    def all_at_once(self: Any, worker: Callable[[Any], Any], files: Sequence[Any]) -> Any:
        paths = {kind: [file.path.resolve() for file in files if file.kind == kind] for kind in ("playbook", "role")}
        runtime = self.app.runtime
        if not syntax_is_right(paths["playbook"], paths["role"], runtime.environ):
            return one_by_one(self, worker, files)
        loads, right = runtime.has_playbook, set(paths["playbook"])

        def known_to_load(playbook: str, *, basedir: Path | None = None) -> bool:
            return ((basedir or Path()) / playbook).resolve() in right or loads(playbook, basedir=basedir)

        runtime.has_playbook = known_to_load
        return []

    runner._map_syntax_check_workers = all_at_once


def main() -> int:
    """Lint everything that the copy holds."""
    os.chdir(COPY)
    os.environ["ANSIBLE_COLLECTIONS_PATH"] = str(ROOT / "build")
    # Only now, because it reads where collections are when it is imported.
    from ansiblelint import runner
    from ansiblelint.__main__ import main as ansible_lint

    check_syntax_at_once(runner.Runner)
    program = str(Path(sys.executable).parent / "ansible-lint")
    if ansible_lint([program, "--offline", "--strict", "--nocolor"]) != 0:
        return 1
    return report("lint", [], "no finding")


if __name__ == "__main__":
    sys.exit(main())
