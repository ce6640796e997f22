# SPDX-License-Identifier: Apache-2.0
"""A task that may find a host it delegates to unreachable does not end the run by that.

Ansible ends a run at a host that is not reached, although that is ignored, where the task is for all hosts at once
(``run_once``) or a play has ``any_errors_fatal``.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[3]
FILES = sorted([*ROOT.glob("roles/*/tasks/**/*.yml"), *ROOT.glob("playbooks/**/*.yml")])
FILES = [path for path in FILES if path.parent.name != "vars"]


def tolerant(entries: Any) -> Iterator[dict[str, Any]]:
    """Yield every task, inside plays and blocks too, that asks another host and goes on without its answer."""
    for entry in entries or []:
        if entry.get("ignore_unreachable") and "delegate_to" in entry:
            yield entry
        for part in ("pre_tasks", "tasks", "post_tasks", "handlers", "block", "rescue", "always"):
            yield from tolerant(entry.get(part))


def that_end_the_run(text: str) -> list[str]:
    """Return the names of the tasks that would."""
    return [
        str(task.get("name"))
        for task in tolerant(yaml.safe_load(text))
        if task.get("run_once") or task.get("any_errors_fatal") is not False
    ]


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_host_that_is_not_reached_ends_no_run(path: Path) -> None:
    assert that_end_the_run(path.read_text()) == []


def test_there_are_such_tasks() -> None:
    assert len([task for path in FILES for task in tolerant(yaml.safe_load(path.read_text()))]) >= 3


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("- {name: a, delegate_to: b, ignore_unreachable: true}", ["a"]),
        ("- {name: a, delegate_to: b, ignore_unreachable: true, any_errors_fatal: false, run_once: true}", ["a"]),
        ("- {name: a, delegate_to: b, ignore_unreachable: true, any_errors_fatal: false}", []),
        ("- {name: a, ignore_unreachable: true}", []),
        ("- {hosts: all, tasks: [{block: [{name: a, delegate_to: b, ignore_unreachable: true}]}]}", ["a"]),
    ],
)
def test_the_test_finds_them(text: str, names: list[str]) -> None:
    assert that_end_the_run(text) == names
