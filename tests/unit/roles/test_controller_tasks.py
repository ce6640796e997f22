# SPDX-License-Identifier: Apache-2.0
"""Every task that is delegated to this machine runs as the user who runs Ansible, whatever the inventory says."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[3]
FILES = sorted([*ROOT.glob("roles/*/tasks/**/*.yml"), *ROOT.glob("playbooks/**/*.yml")])
FILES = [path for path in FILES if path.parent.name != "vars"]


def delegated(entries: Any, inherited: dict[str, Any] | None = None) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield name and variables of every task, inside plays and blocks too, that is delegated to localhost."""
    for entry in entries or []:
        variables = {**(inherited or {}), **(entry.get("vars") or {})}
        if entry.get("delegate_to") == "localhost":
            yield str(entry.get("name")), variables
        for part in ("pre_tasks", "tasks", "post_tasks", "handlers", "block", "rescue", "always"):
            yield from delegated(entry.get(part), variables)


def without_the_variable(text: str) -> list[str]:
    """Return the names of the delegated tasks that could call sudo on this machine."""
    return [name for name, variables in delegated(yaml.safe_load(text)) if variables.get("ansible_become") is not False]


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_delegated_task_becomes_another_user_here(path: Path) -> None:
    assert without_the_variable(path.read_text()) == []


def test_there_are_such_tasks() -> None:
    found = [name for path in FILES for name, __ in delegated(yaml.safe_load(path.read_text()))]
    assert len(found) >= 10


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("- {name: a, delegate_to: localhost, become: false}", ["a"]),
        ("- {name: a, delegate_to: localhost, vars: {ansible_become: true}}", ["a"]),
        ("- {name: a, delegate_to: localhost, vars: {ansible_become: false}}", []),
        ("- {name: a, delegate_to: other}", []),
        ("- {name: b, vars: {ansible_become: false}, block: [{name: a, delegate_to: localhost}]}", []),
        ("- {name: b, block: [{name: a}], rescue: [{name: c, delegate_to: localhost}]}", ["c"]),
        ("- {hosts: all, tasks: [{name: a, delegate_to: localhost}]}", ["a"]),
    ],
)
def test_the_test_finds_them(text: str, names: list[str]) -> None:
    assert without_the_variable(text) == names
