# SPDX-License-Identifier: Apache-2.0
"""Print the sizes of the roles and hold them against the budget that keeps a role readable."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

from .repository import report, roles
from .role_specs import defaults_of

MAIN_LINES = 60
TASK_LINES = 120
DEFAULT_NAMES = 40


@dataclass(frozen=True)
class Sizes:
    """The sizes of one role."""

    role: str
    main_lines: int
    longest_file: str
    longest_lines: int
    defaults: int


def measure(role: Path) -> Sizes:
    """Count a role's lines and names."""
    lines = {
        path.relative_to(role / "tasks").as_posix(): len(path.read_text(encoding="utf-8").splitlines())
        for path in sorted((role / "tasks").rglob("*.yml"))
    }
    others = {name: count for name, count in lines.items() if name != "main.yml"}
    longest = max(others, key=lambda name: others[name]) if others else "-"
    return Sizes(role.name, lines["main.yml"], longest, others.get(longest, 0), len(defaults_of(role)))


def excesses(sizes: Sizes) -> list[str]:
    """Return what is over the budget."""
    problems = []
    if sizes.main_lines > MAIN_LINES:
        problems.append(f"tasks/main.yml has {sizes.main_lines} lines; {MAIN_LINES} are the budget")
    if sizes.longest_lines > TASK_LINES:
        problems.append(f"tasks/{sizes.longest_file} has {sizes.longest_lines} lines; {TASK_LINES} are the budget")
    if sizes.defaults > DEFAULT_NAMES:
        problems.append(
            f"defaults has {sizes.defaults} names; {DEFAULT_NAMES} are the budget: a dict option or a role is missing"
        )
    return [f"roles/{sizes.role}: {problem}" for problem in problems]


def main() -> int:
    """Print the table and check it."""
    everything = [measure(role) for role in roles()]
    print(f"{'role':<20} main.yml  longest other file           defaults")
    for sizes in everything:
        other = f"{sizes.longest_file} {sizes.longest_lines}"
        print(f"{sizes.role:<20} {sizes.main_lines:>8}  {other:<27} {sizes.defaults:>8}")
    problems = [problem for sizes in everything for problem in excesses(sizes)]
    return report("sizes", problems, f"{len(everything)} roles within {MAIN_LINES}/{TASK_LINES}/{DEFAULT_NAMES}")


if __name__ == "__main__":
    sys.exit(main())
