# SPDX-License-Identifier: Apache-2.0
"""A consent is given on the command line, where `-e NAME=true` is a string: a condition has to take it as one.

Ansible stops at a condition that is a string, and takes the string `false` for true within a longer expression.
"""

from __future__ import annotations

import re
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[3]
#: Handed to a module as a whole, its own type tells true from false.
HANDED = re.compile(r'^\s*[a-z0-9_]+: "\{\{ [a-z0-9_]+ \}\}"$')


def consents() -> set[str]:
    """The options of all roles that allow something."""
    found = set()
    for path in ROOT.glob("roles/*/meta/argument_specs.yml"):
        for entry in yaml.safe_load(path.read_text(encoding="utf-8"))["argument_specs"].values():
            options = (entry.get("options") or {}).items()
            found |= {name for name, option in options if name.endswith("_allowed") and option["type"] == "bool"}
    return found


def asked(name: str) -> list[str]:
    """The lines of code of all roles that ask for a consent and do not take it as a boolean."""
    word = re.compile(rf"(?<!set )\b{name}\b(?! \| bool| to true)")
    return [
        f"{path.relative_to(ROOT)}: {line.strip()}"
        for part in ("tasks", "vars")
        for path in sorted(ROOT.glob(f"roles/*/{part}/*.yml"))
        for line in path.read_text(encoding="utf-8").splitlines()
        if word.search(line) and (re.match(r"\s*(that|when|-)[: ]", line) or "{{" in line or " if " in line)
        if not HANDED.match(line) and not line.strip().startswith("#")
    ]


def test_there_are_consents() -> None:
    assert {"kubernetes_reset_allowed", "vllm_restart_allowed", "docker_restart_allowed"} <= consents()


def test_a_consent_is_taken_as_a_boolean() -> None:
    assert [line for name in sorted(consents()) for line in asked(name)] == []
