# SPDX-License-Identifier: Apache-2.0
"""Prove that galaxy.yml and requirements.yml name exactly the collections that shipped files use."""

from __future__ import annotations

import re
import sys
from pathlib import Path

from .repository import ROOT, load_yaml, report, tracked_files

#: Where users' runs come from. The sandbox and the tests have their own needs, met by the tool environment.
SHIPPED = re.compile(r"^(roles|plugins|playbooks)/(?!sandbox/)")
#: Namespaces of collections; a name in one of them followed by two more parts is a use, but for a key of the plan.
USE = re.compile(
    r"(?<!fleet_plan\.)\b((?:ansible|community|containers|kubernetes)\.(?!builtin\b|legacy\b)[a-z0-9_]+)\.[a-z][a-z0-9_]+"
)
#: Parts of ansible-core's Python package and of dotted prose that look like a use.
NOT_COLLECTIONS = frozenset(
    f"ansible.{name}" for name in ("cli", "errors", "executor", "inventory", "module_utils", "parsing", "playbook")
) | frozenset(f"ansible.{name}" for name in ("plugins", "template", "utils", "vars", "constants", "release"))


def used_collections(texts: dict[str, str]) -> dict[str, str]:
    """Return the collections that texts use, each with the first file that does."""
    found: dict[str, str] = {}
    for name, text in sorted(texts.items()):
        for collection in USE.findall(text):
            if collection not in NOT_COLLECTIONS:
                found.setdefault(collection, name)
    return found


def problems_of(used: dict[str, str], galaxy: dict[str, str], requirements: dict[str, str]) -> list[str]:
    """Return where the uses and the two lists differ."""
    problems = [
        f"{name} uses {collection}, which galaxy.yml does not name"
        for collection, name in sorted(used.items())
        if collection not in galaxy
    ]
    problems.extend(f"galaxy.yml names {name}, which nothing uses" for name in sorted(set(galaxy) - set(used)))
    if galaxy != requirements:
        problems.append(f"galaxy.yml wants {galaxy} and requirements.yml wants {requirements}")
    return problems


def read_text(path: Path) -> str:
    """Return the text of a file; what is not text uses no collection."""
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        return ""


def main() -> int:
    """Compare the uses with the lists."""
    texts = {
        name: read_text(ROOT / name)
        for name in tracked_files()
        if SHIPPED.match(name) and name.endswith((".yml", ".yaml", ".py", ".j2"))
    }
    galaxy = dict((load_yaml(ROOT / "galaxy.yml") or {}).get("dependencies") or {})
    entries = (load_yaml(ROOT / "requirements.yml") or {}).get("collections") or []
    used = used_collections(texts)
    problems = problems_of(used, galaxy, {entry["name"]: entry["version"] for entry in entries})
    return report("dependencies", problems, f"{', '.join(sorted(used)) or 'none'}: used and named")


if __name__ == "__main__":
    sys.exit(main())
