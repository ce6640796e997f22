# SPDX-License-Identifier: Apache-2.0
"""Prove that each role is whole: it has a verification of its own, a scenario that uses it, and a stage that runs that.

The scenario of a role is molecule/<role>, or one that it shares with those roles without which it shows nothing: it
converges the role, runs its own `verify`, and offers a broken input.
"""

from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path

from .repository import ROOT, report, roles
from .role_specs import entry_points_of

SCENARIO = ("broken_input.yml", "converge.yml", "hosts.yml", "molecule.yml", "verify.yml")
#: How a scenario names the entry point, directly or through tasks that run the role.
VERIFICATION = re.compile(r"\b(tasks_from|entry_point): verify$", re.MULTILINE)
#: Proves other roles, so its `main` is the verification.
PROVER = "verify"
#: Roles that are proved together, each in the scenario that is named here.
SHARED = {"node_exporter": "monitoring", "prometheus": "monitoring"}


def stage_commands(root: Path) -> list[list[str]]:
    """Return the commands of all stages."""
    stages = tomllib.loads((root / "tools" / "stages.toml").read_text(encoding="utf-8"))
    return [stage["command"] for stage in stages["stage"]]


def problems_of(role: Path, scenario: Path, commands: list[list[str]]) -> list[str]:
    """Return what a role and its scenario lack."""
    problems = [f"lacks {name}" for name in ("README.md", "meta/argument_specs.yml") if not (role / name).is_file()]
    if role.name != PROVER:
        if "verify" not in entry_points_of(role):
            problems.append("lacks an entry point verify in meta/argument_specs.yml")
        if not (role / "tasks" / "verify.yml").is_file():
            problems.append("lacks tasks/verify.yml")
    missing = [name for name in SCENARIO if not (scenario / name).is_file()]
    problems.extend(f"lacks molecule/{scenario.name}/{name}" for name in missing)
    if "verify.yml" not in missing and role.name != PROVER:
        files = [scenario / "verify.yml", *sorted(scenario.glob("tasks/*.yml"))]
        texts = [path.read_text(encoding="utf-8") for path in files]
        if not VERIFICATION.search(texts[0]) or not any(f"gpufleet.metal.{role.name}\n" in text for text in texts):
            problems.append(f"is not proved by its own verification in molecule/{scenario.name}/verify.yml")
    if ["molecule", "test", "--scenario-name", scenario.name] not in commands:
        problems.append("has no stage that runs its scenario")
    return [f"roles/{role.name} {problem}" for problem in problems]


def main() -> int:
    """Check every role."""
    commands = stage_commands(ROOT)
    scenarios = {role: ROOT / "molecule" / SHARED.get(role.name, role.name) for role in roles()}
    problems = [problem for role, scenario in scenarios.items() for problem in problems_of(role, scenario, commands)]
    return report("role_parts", problems, f"{len(roles())} roles have a verification, a scenario and a stage")


if __name__ == "__main__":
    sys.exit(main())
