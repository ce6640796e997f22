# SPDX-License-Identifier: Apache-2.0
"""The bench: its inventories, its budget and its tables."""

from __future__ import annotations

import re
import signal
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
        (statistics(g=host("gpu_nodes", 40), w=host("gateways", 30), m=host("monitoring", 99)), []),
        (
            statistics(),
            [
                "no host of gpu_nodes was counted: the budget says nothing",
                "no host of gateways was counted: the budget says nothing",
            ],
        ),
        (statistics(g=host("gpu_nodes", 40)), ["no host of gateways was counted: the budget says nothing"]),
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


@pytest.fixture
def bench_world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Keep the bench away from Docker; return the list of what it does."""
    done: list[str] = []
    monkeypatch.setattr(bench, "OUTPUT", tmp_path)
    monkeypatch.setattr(bench.copy_collection, "main", lambda: 0)
    monkeypatch.setattr(bench.subprocess, "run", lambda command, **_keys: done.append(Path(command[0]).name))
    return done


def test_bench_builds_first_and_removes_its_hosts_when_it_is_asked_to_end(
    bench_world: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def run_playbook(playbook: str, *_arguments: object) -> None:
        bench_world.append(playbook)
        if playbook == "discover.yml":
            signal.raise_signal(signal.SIGTERM)

    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr(bench, "run_playbook", run_playbook)
    try:
        assert bench.main(["--sizes", "2"]) == 130
    finally:
        signal.signal(signal.SIGTERM, before)
    assert bench_world == ["build.sh", "sandbox/create.yml", "discover.yml", "sandbox/remove.yml"]


def test_a_playbook_ends_before_what_comes_after_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Stands in for ansible-playbook: it says that it runs, and that it was asked to end.
    tool = tmp_path / "bin" / "ansible-playbook"
    tool.parent.mkdir()
    lines = [
        "#!/bin/sh",
        "trap 'echo ended; exit 1' TERM",
        "echo began",
        "sleep 0.5",
        "kill -TERM $PPID",
        "sleep 60 & wait",
    ]
    tool.write_text("\n".join(lines), encoding="utf-8")
    tool.chmod(0o755)
    monkeypatch.setattr(bench.sys, "executable", str(tmp_path / "bin" / "python"))
    before = signal.signal(signal.SIGTERM, bench.interrupt)
    try:
        with pytest.raises(KeyboardInterrupt):
            bench.run_playbook("site.yml", [], tmp_path / "log")
    finally:
        signal.signal(signal.SIGTERM, before)
    assert (tmp_path / "log").read_text(encoding="utf-8") == "began\nended\n"


def test_role_table_shows_the_busiest_host() -> None:
    found = statistics(a=host("gpu_nodes", 10), b=host("gpu_nodes", 12))
    assert bench.role_table(found, "gpu_nodes") == ["gpu_nodes (b):", "    10  docker", "     2  preflight"]
    assert bench.role_table(found, "gateways") == []
