# SPDX-License-Identifier: Apache-2.0
"""Keep the table of options in each role's README.md equal to its meta/argument_specs.yml.

    python -m tools.checks.option_tables --check
    python -m tools.checks.option_tables --write

The table stands between `<!-- options:start -->` and `<!-- options:end -->`; everything else is written by hand.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

from .generated import between, differences, markdown_table, wants_writing
from .repository import report, roles
from .role_specs import entry_points_of, options_of

MARKER = "options"
COLUMNS = ("Variable", "Type", "Default", "What it is")
LONGEST_DEFAULT = 60


def cell(text: str) -> str:
    """Return text that stays in one cell of a Markdown table, with Ansible's markup as Markdown's."""
    plain = re.sub(r"\b[BCIOV]\(([^)]*)\)", r"`\1`", " ".join(text.split()))
    return plain.replace("|", "\\|")


def kind(option: dict[str, Any]) -> str:
    """Return the type of an option, with the choices that it leaves."""
    text = str(option.get("type", "str"))
    if option.get("elements"):
        text += f" of {option['elements']}"
    if option.get("choices"):
        text += ": " + ", ".join(f"`{choice}`" for choice in option["choices"])
    return cell(text)


def default(option: dict[str, Any], nested: bool) -> str:
    """Return the default of an option for its cell."""
    if option.get("required"):
        return "**required**"
    if "default" not in option and nested:
        return ""
    value = option.get("default")
    text = value if isinstance(value, str) and value else json.dumps(value)
    return "see defaults/main.yml" if len(text) > LONGEST_DEFAULT else f"`{cell(text)}`"


def rows(options: dict[str, Any], path: str = "") -> Iterator[tuple[str, ...]]:
    """Yield the cells of each option, and for the options inside it below."""
    for name, option in sorted(options.items()):
        description = option.get("description", "")
        sentences = description if isinstance(description, list) else [description]
        text = cell(" ".join(str(sentence) for sentence in sentences))
        yield f"`{path}{name}`", kind(option), default(option, bool(path)), text
        inner = "[]." if option.get("type") == "list" else "."
        yield from rows(options_of(option), f"{path}{name}{inner}")


def table(options: dict[str, Any]) -> str:
    """Return the whole table, or a sentence when there is nothing to set."""
    if not options:
        return "This role has no options."
    return markdown_table(COLUMNS, rows(options))


def main(arguments: Sequence[str]) -> int:
    """Check or write the tables of all roles."""
    write = wants_writing("option_tables", arguments)
    problems: list[str] = []
    for role in roles():
        wanted = partial(between, MARKER, content=table(options_of(entry_points_of(role).get("main") or {})))
        problems += differences("option_tables", role / "README.md", "meta/argument_specs.yml", wanted, write)
    return report("option_tables", problems, f"{len(roles())} tables agree")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
