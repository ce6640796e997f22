# SPDX-License-Identifier: Apache-2.0
"""The bench: its inventories, its budget and its tables."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from ansible_collections.gpufleet.metal.tools.bench import bench, budget, make_inventory


def host(group: str, count: int, **keys: Any) -> dict[str, Any]:
    """Return a host of the callback's statistics."""
    return {
        "groups": ["all", group],
        "modules": {"count": count, "seconds": 1.0},
        "by_role": {"docker": {"count": count - 2}, "preflight": {"count": 2}},
        "changed": 0,
        "failures": 0,
        "unreachable": 0,
        **keys,
    }


def statistics(**hosts: dict[str, Any]) -> dict[str, Any]:
    """Return statistics of these hosts."""
    total = sum(item["modules"]["count"] for item in hosts.values())
    return {"hosts": hosts, "totals": {"modules": {"count": total}}}


@pytest.mark.parametrize(
    ("found", "problems"),
    [
        (statistics(g=host("gpu_nodes", 40), w=host("gateways", 30)), []),
        (statistics(g=host("monitoring", 99)), []),
        (
            statistics(g=host("gpu_nodes", 41), w=host("gateways", 31)),
            [
                "g: 41 module executions; a host of gpu_nodes may have 40; most: docker 39, preflight 2",
                "w: 31 module executions; a host of gateways may have 30; most: docker 29, preflight 2",
            ],
        ),
    ],
)
def test_budget(found: dict[str, Any], problems: list[str]) -> None:
    assert budget.excesses(found) == problems


def test_changes_are_named() -> None:
    assert budget.changes(statistics(a=host("gpu_nodes", 3), b=host("gpu_nodes", 3, changed=2, unreachable=1))) == [
        "b: changed=2, and a run that changes nothing was asked for",
        "b: unreachable=1, and a run that changes nothing was asked for",
    ]


@pytest.mark.parametrize("size", [2, 5, 20, 100])
def test_inventory_has_both_groups_and_grows(size: int, tmp_path: Path) -> None:
    make_inventory.write(size, tmp_path)
    inventory = yaml.safe_load((tmp_path / "hosts.yml").read_text(encoding="utf-8"))["all"]["children"]
    members = {name: item for group in inventory.values() for name, item in group["hosts"].items()}
    assert len(members) == size
    assert all(group["hosts"] for group in inventory.values())
    assert len({item["ansible_host"] for item in members.values()}) == size
    larger = {name: item for group in make_inventory.hosts(100).values() for name, item in group.items()}
    assert all(larger[name] == item for name, item in members.items())


def test_inventory_has_the_demo_variables_and_one_engine(tmp_path: Path) -> None:
    make_inventory.write(2, tmp_path)
    written = yaml.safe_load((tmp_path / "group_vars" / "all" / "zz_bench.yml").read_text(encoding="utf-8"))
    assert [model["replicas"] for model in written["fleet_models"]] == [1]
    assert (tmp_path / "group_vars" / "all" / "fleet.yml").is_file()


@pytest.mark.parametrize("size", [1, 101])
def test_inventory_refuses_odd_sizes(size: int) -> None:
    message = f"a fleet for the bench has 2 to 100 hosts, not {size}"
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        make_inventory.hosts(size)


def test_growth_table() -> None:
    small = bench.measurement(statistics(g=host("gpu_nodes", 30), w=host("gateways", 20)), 10, 8, 102400)
    large = bench.Measurement(20, 30, 20, 500, 40, 40, 110)
    assert bench.growth_table([small, large]) == [
        "hosts  gpu node  gateway  all  wall s  CPU s  MiB  CPU s/host",
        "    2        30       20   50    10.0    8.0  100        4.00",
        "   20        30       20  500    40.0   40.0  110        2.00",
        "from 2 to 20 hosts (10.0 times): module executions 10.0 times, CPU 5.0 times, wall 4.0 times, "
        "memory 1.1 times",
    ]


def test_role_table_shows_the_busiest_host() -> None:
    found = statistics(a=host("gpu_nodes", 10), b=host("gpu_nodes", 12))
    assert bench.role_table(found, "gpu_nodes") == ["gpu_nodes (b):", "    10  docker", "     2  preflight"]
    assert bench.role_table(found, "gateways") == []
