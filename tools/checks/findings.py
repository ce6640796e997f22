# SPDX-License-Identifier: Apache-2.0
"""Prove that docs/findings.md explains every code of a finding that the sources can give, and no other.

A code is the text that stands where a call takes it: second in ``Finding(...)`` and ``_finding(...)``, first in
``report(...)`` and ``finding(...)``. A code that a call takes from a variable is found as any text of the sources.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from .repository import ROOT, report

DOCUMENT = "docs/findings.md"
SOURCES = "plugins/**/*.py"
#: Name of the called function -> place of the code among its arguments.
CALLS = {"Finding": 1, "_finding": 1, "report": 0, "_report": 0, "finding": 0}
CODE = re.compile(r"[a-z][a-z0-9]*(_[a-z0-9]+)+")
COLUMNS = 4


@dataclass
class Used:
    """The codes of the sources."""

    #: Code -> where it stands.
    codes: dict[str, str] = field(default_factory=dict)
    #: Codes that are made of parts, as regular expressions -> where they stand.
    patterns: dict[str, str] = field(default_factory=dict)
    #: Every text of the sources.
    texts: set[str] = field(default_factory=set)


def _called(call: ast.Call) -> str:
    function = call.func
    return function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")


def read_source(text: str, name: str, used: Used) -> None:
    """Add what one file of Python uses."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            used.texts.add(node.value)
        if not isinstance(node, ast.Call) or len(node.args) <= CALLS.get(_called(node), len(node.args)):
            continue
        code = node.args[CALLS[_called(node)]]
        where = f"{name}:{node.lineno}"
        if isinstance(code, ast.Constant) and isinstance(code.value, str) and CODE.fullmatch(code.value):
            used.codes.setdefault(code.value, where)
        elif isinstance(code, ast.JoinedStr):
            parts = [
                re.escape(str(part.value)) if isinstance(part, ast.Constant) else "[a-z0-9_]+" for part in code.values
            ]
            used.patterns.setdefault("".join(parts), where)


def documented(text: str) -> Iterator[tuple[int, list[str]]]:
    """Yield the line and the cells of each row that begins with a code."""
    for number, line in enumerate(text.splitlines(), 1):
        if line.startswith("| `"):
            yield number, [cell.strip() for cell in line.strip("|").split(" | ")]


def problems(text: str, used: Used) -> list[str]:
    """Return what is wrong with the document."""
    found: list[str] = []
    lines: dict[str, int] = {}
    before = ""
    for number, cells in documented(text):
        code = cells[0].strip("`")
        if not CODE.fullmatch(code):
            continue
        if len(cells) != COLUMNS or not all(cells):
            found.append(f"{DOCUMENT}:{number}: {code}: wanted code, about, meaning and fix")
        if code in lines:
            found.append(f"{DOCUMENT}:{number}: {code} stands in line {lines[code]}, too")
        if number - 1 in lines.values() and code < before:
            found.append(f"{DOCUMENT}:{number}: {code} belongs before {before}")
        lines[code], before = number, code
    for code, where in sorted(used.codes.items()):
        if code not in lines:
            found.append(f"{where}: {code} is not in {DOCUMENT}")
    for pattern, where in sorted(used.patterns.items()):
        if not any(re.fullmatch(pattern, code) for code in lines):
            found.append(f"{where}: no code like {pattern} is in {DOCUMENT}")
    for code, number in lines.items():
        if code not in used.texts and not _made(code, used.patterns):
            found.append(f"{DOCUMENT}:{number}: {code} is in no source")
    return found


def _made(code: str, patterns: Iterable[str]) -> bool:
    return any(re.fullmatch(pattern, code) for pattern in patterns)


def read_sources(root: Path) -> Used:
    """Read all plugins below the root."""
    used = Used()
    for path in sorted(root.glob(SOURCES)):
        read_source(path.read_text(encoding="utf-8"), path.relative_to(root).as_posix(), used)
    return used


def main() -> int:
    """Check the document."""
    used = read_sources(ROOT)
    text = (ROOT / DOCUMENT).read_text(encoding="utf-8")
    count = sum(1 for __, cells in documented(text) if CODE.fullmatch(cells[0].strip("`")))
    return report("findings", problems(text, used), f"{count} codes are explained")


if __name__ == "__main__":
    sys.exit(main())
