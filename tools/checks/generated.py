# SPDX-License-Identifier: Apache-2.0
"""Files that are written from something else, wholly or between two markers: compare them with it, or write them.

A check of this kind has a function that returns what the file has to be, and two ways to be called:

    python -m tools.checks.NAME --check
    python -m tools.checks.NAME --write
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from .repository import ROOT, CheckError


def wants_writing(name: str, arguments: Sequence[str]) -> bool:
    """Return whether the check of this name is to write; any other command line ends the process with its usage."""
    parser = argparse.ArgumentParser(prog=f"python -m tools.checks.{name}")
    mode = parser.add_mutually_exclusive_group(required=True)
    mode.add_argument("--check", action="store_true", help="say what differs")
    mode.add_argument("--write", action="store_true", help="write what differs")
    return bool(parser.parse_args(arguments).write)


def differences(
    name: str, path: Path, source: str, wanted: Callable[[str], str], write: bool, root: Path = ROOT
) -> list[str]:
    """Compare a file with what it has to be, or write it.

    Args:
        name: Name of the check, for the command that writes.
        path: The file.
        source: What the file is made from, for people.
        wanted: Returns what the file has to be, from what it is (nothing where it is missing); raises CheckError.
        write: Write the file instead of naming the difference.
        root: Directory that paths are shown from.

    Returns:
        the problem that is left, if any.
    """
    shown = path.relative_to(root)
    old = path.read_text(encoding="utf-8") if path.is_file() else ""
    try:
        new = wanted(old)
    except CheckError as error:
        return [f"{shown} {error}"]
    if new == old:
        return []
    if write:
        path.write_text(new, encoding="utf-8")
        print(f"{shown}: written")
        return []
    return [f"{shown} differs from {source}; run `python -m tools.checks.{name} --write`"]


def between(marker: str, text: str, content: str) -> str:
    """Return a text with this content between its lines `<!-- marker:start -->` and `<!-- marker:end -->`."""
    start, end = f"<!-- {marker}:start -->", f"<!-- {marker}:end -->"
    if text.count(start) != 1 or text.count(end) != 1 or text.index(start) > text.index(end):
        raise CheckError(f"needs one line {start} and, below it, one line {end}")
    before, rest = text.split(start)
    return f"{before}{start}\n{content}\n{end}{rest.split(end)[1]}"


def markdown_table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Return a table of Markdown."""
    lines = [f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
    lines.extend(f"| {' | '.join(str(cell) for cell in row)} |" for row in rows)
    return "\n".join(lines)
