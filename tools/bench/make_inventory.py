# SPDX-License-Identifier: Apache-2.0
"""Write an inventory of sandbox hosts, one of them with an engine, to see how a run grows with the fleet.

    python -m tools.bench.make_inventory 20 build/bench/20

Of every five hosts one is a gateway. A fleet of 5 is part of a fleet of 10, so hosts are made and installed once.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

HEADER = "---\n# SPDX-License-Identifier: Apache-2.0\n# Made by tools/bench/make_inventory.py.\n"
DEMO = Path(__file__).resolve().parent.parent.parent / "inventories" / "sandbox"
FIRST_ADDRESS = 100
#: More than about 20 hosts on one machine need a higher fs.inotify.max_user_instances than the kernel's 128.
LARGEST_FLEET = 100
SUITES = ("bookworm", "trixie")
GATEWAY_EVERY = 5


def hosts(size: int) -> dict[str, dict[str, dict[str, Any]]]:
    """Return the groups of a fleet with I(size) hosts: group, host name, variables."""
    if not 2 <= size <= LARGEST_FLEET:
        raise ValueError(f"a fleet for the bench has 2 to {LARGEST_FLEET} hosts, not {size}")
    groups: dict[str, dict[str, dict[str, Any]]] = {"gateways": {}, "gpu_nodes": {}}
    for index in range(size):
        variables: dict[str, Any] = {
            "ansible_host": f"198.51.100.{FIRST_ADDRESS + index}",
            "sandbox_suite": SUITES[index % len(SUITES)],
        }
        # The second host is the first gateway, so that the smallest fleet has one of each.
        if index % GATEWAY_EVERY == 1:
            groups["gateways"][f"bench-gw-{index + 1:02}"] = variables
        else:
            groups["gpu_nodes"][f"bench-gpu-{index + 1:02}"] = {**variables, "sandbox_gpus": "two_h100.json"}
    return groups


def overrides(demo: dict[str, Any]) -> dict[str, Any]:
    """Return what differs from the demo's variables I(demo): one replica of its model, so that one engine runs."""
    return {
        "fleet_name": "bench",
        "fleet_models": [{**model, "replicas": 1} for model in demo["fleet_models"]],
        "fleet_endpoint": {**demo["fleet_endpoint"], "hostname": "llm.bench.test"},
    }


def write(size: int, directory: Path) -> None:
    """Write an inventory below I(directory): hosts.yml, and the demo's group_vars with what differs in zz_bench.yml."""
    groups = hosts(size)
    variables = directory / "group_vars"
    shutil.copytree(DEMO / "group_vars", variables, dirs_exist_ok=True)
    demo = yaml.safe_load((DEMO / "group_vars" / "all" / "fleet.yml").read_text(encoding="utf-8"))
    inventory = {"all": {"children": {group: {"hosts": members} for group, members in groups.items()}}}
    for path, content in (
        (directory / "hosts.yml", inventory),
        # Files of a directory are read in the order of their names: this one has the last word.
        (variables / "all" / "zz_bench.yml", overrides(demo)),
    ):
        path.write_text(HEADER + yaml.safe_dump(content, sort_keys=True), encoding="utf-8")


def main(arguments: Sequence[str]) -> int:
    """Write the inventory that the command line asks for."""
    parser = argparse.ArgumentParser(description="Write an inventory of sandbox hosts.")
    parser.add_argument("size", type=int, help=f"how many hosts, 2 to {LARGEST_FLEET}")
    parser.add_argument("directory", type=Path, help="where the inventory goes")
    options = parser.parse_args(arguments)
    try:
        write(options.size, options.directory)
    except ValueError as error:
        print(f"make_inventory: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
