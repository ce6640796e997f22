# SPDX-License-Identifier: Apache-2.0
"""Hold the counts of a run against the budget of round trips.

    python -m tools.bench.budget build/statistics.json --no-change

Reads what the callback gpufleet.metal.run_statistics wrote. The counts do not depend on the speed of the machine.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

#: Module executions of a no-change site.yml, all roles together, for a host of the group.
BUDGET = {"gpu_nodes": 40, "gateways": 30}


def excesses(statistics: dict[str, Any]) -> list[str]:
    """Return a sentence for each host that is over the budget of a group of its, and for each group without a host."""
    groups = {group for host in statistics["hosts"].values() for group in host["groups"]}
    problems = [f"no host of {group} was counted: the budget says nothing" for group in BUDGET if group not in groups]
    for name, host in sorted(statistics["hosts"].items()):
        for group, limit in BUDGET.items():
            count = host["modules"]["count"]
            if group in host["groups"] and count > limit:
                roles = sorted(host["by_role"].items(), key=lambda item: (-item[1]["count"], item[0]))
                most = ", ".join(f"{role} {tally['count']}" for role, tally in roles[:4])
                problems.append(f"{name}: {count} module executions; a host of {group} may have {limit}; most: {most}")
    return problems


def changes(statistics: dict[str, Any]) -> list[str]:
    """Return a sentence for each host on which a run that should change nothing changed or failed."""
    return [
        f"{name}: {word}={host[word]}, and a run that changes nothing was asked for"
        for name, host in sorted(statistics["hosts"].items())
        for word in ("changed", "failures", "unreachable")
        if host[word]
    ]


def main(arguments: Sequence[str]) -> int:
    """Check a file of statistics and return the exit status."""
    parser = argparse.ArgumentParser(description="Hold the counts of a run against the budget of round trips.")
    parser.add_argument("statistics", type=Path, help="what the callback run_statistics wrote")
    parser.add_argument(
        "--no-change", action="store_true", help="also insist on changed=0 and no failure on every host"
    )
    options = parser.parse_args(arguments)
    statistics = json.loads(options.statistics.read_text(encoding="utf-8"))
    problems = excesses(statistics) + (changes(statistics) if options.no_change else [])
    for problem in problems:
        print(problem)
    counts = {name: host["modules"]["count"] for name, host in sorted(statistics["hosts"].items())}
    print(f"module executions: {', '.join(f'{name} {count}' for name, count in counts.items()) or 'none'}")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
