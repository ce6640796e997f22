# SPDX-License-Identifier: Apache-2.0
"""Prove that each role's defaults/main.yml and meta/argument_specs.yml say the same.

Ansible applies no `default:` of a specification, so defaults/main.yml holds the values; and it lets a mistyped variable
pass, so the two lists are all that a reader has. Every option that is not required is in both, with an equal value.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from .repository import load_yaml, report, roles


def defaults_of(role: Path) -> dict[str, Any]:
    """Return the defaults of a role, from defaults/main.yml or the files in defaults/main/."""
    files = [role / "defaults" / "main.yml", *sorted((role / "defaults" / "main").glob("*.yml"))]
    return {name: value for path in files for name, value in (load_yaml(path) or {}).items()}


def entry_points_of(role: Path) -> dict[str, Any]:
    """Return the entry points of a role's argument specification by name."""
    points = (load_yaml(role / "meta" / "argument_specs.yml") or {}).get("argument_specs") or {}
    return dict(points)


def options_of(entry_point: dict[str, Any]) -> dict[str, Any]:
    """Return the options of an entry point by name."""
    return dict(entry_point.get("options") or {})


def undescribed(options: dict[str, Any], path: str = "") -> list[str]:
    """Return the paths of options, and of options inside them, that lack a type or a description."""
    problems: list[str] = []
    for name, option in options.items():
        here = f"{path}{name}"
        problems.extend(f"option {here} has no {key}" for key in ("type", "description") if not option.get(key))
        problems.extend(undescribed(options_of(option), f"{here}."))
    return problems


def same(one: Any, other: Any) -> bool:
    """Return whether two values of YAML are the same; Python's own == takes true for 1 and 1 for 1.0."""
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(same(value, other[key]) for key, value in one.items())
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(same, one, other))
    return type(one) is type(other) and bool(one == other)


def problems_of(role_name: str, defaults: dict[str, Any], entry_points: dict[str, Any]) -> list[str]:
    """Return what differs between a role's defaults and its specification, in sentences."""
    if "main" not in entry_points:
        return ["meta/argument_specs.yml has no entry point main"]
    # An entry point may take something of its own, or insist on something; what is in two must mean the same in both.
    options = options_of(entry_points["main"])
    problems: list[str] = []
    for point, body in sorted(entry_points.items()):
        for name, option in options_of(body).items():
            known = options.setdefault(name, option)
            problems.extend(
                f"{name} of entry point {point} has another {key} than in another entry point"
                for key in ("type", "elements", "choices", "default", "options")
                if not same(known.get(key), option.get(key))
            )
    for name in sorted({*defaults, *options}):
        if not name.startswith(f"{role_name}_"):
            problems.append(f"{name} does not begin with {role_name}_")
        option = options.get(name)
        if option is None:
            problems.append(f"{name} is in defaults/main.yml and not in meta/argument_specs.yml")
        elif option.get("required"):
            if name in defaults:
                problems.append(f"{name} is required, so it must not have a value in defaults/main.yml")
        elif name not in defaults:
            problems.append(f"{name} is in meta/argument_specs.yml and not in defaults/main.yml")
        # An option without a default has the default null: so Ansible reads it, and so the tables show it.
        elif not same(option.get("default"), defaults[name]):
            problems.append(
                f"{name} is {defaults[name]!r} in defaults/main.yml and {option.get('default')!r} in "
                "meta/argument_specs.yml"
            )
    for point, body in sorted(entry_points.items()):
        if not body.get("short_description"):
            problems.append(f"entry point {point} has no short_description")
        problems.extend(f"{point}: {problem}" for problem in undescribed(options_of(body)))
    return problems


def main() -> int:
    """Check every role."""
    problems: list[str] = []
    count = 0
    for role in roles():
        found = problems_of(role.name, defaults_of(role), entry_points_of(role))
        problems.extend(f"roles/{role.name}: {problem}" for problem in found)
        count += len(defaults_of(role))
    return report("role_specs", problems, f"{len(roles())} roles, {count} defaults equal their specification")


if __name__ == "__main__":
    sys.exit(main())
