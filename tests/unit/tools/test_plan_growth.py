# SPDX-License-Identifier: Apache-2.0
"""The bench of the plan: its fleets can be planned, its inventory is the same fleet, its table says how it grows."""

from __future__ import annotations

from pathlib import Path

import yaml

from ansible_collections.gpufleet.metal.tools.bench import plan_growth
from ansible_collections.gpufleet.metal.tools.bench.plan_growth import STEPS, Cost, Measurement


def test_its_fleets_can_be_planned() -> None:
    """All steps run on a small one, and every GPU is of use."""
    found = plan_growth.measure(10)
    assert (found.hosts, found.gpus) == (10, 80)
    assert found.instances >= plan_growth.MODELS
    assert list(found.costs) == list(STEPS)
    assert all(cost.peak_mib > 0 for cost in found.costs.values())


def test_table() -> None:
    """One row for a size, and how much the largest costs beside the smallest."""
    small = Measurement(10, 80, 60, {step: Cost(0.01, 1.0) for step in STEPS})
    large = Measurement(100, 800, 600, {step: Cost(0.05, 9.5) for step in STEPS})
    head, first, second, growth = plan_growth.growth_table([small, large])
    assert head.split()[:5] == ["hosts", "GPUs", "instances", "plan", "s"]
    assert first.split()[:5] == ["10", "80", "60", "0.010", "1.0"]
    assert second.split()[-2:] == ["0.050", "9.5"]
    assert growth.startswith(
        "from 10 to 100 hosts (10 times): plan 5 times the seconds and 10 times the memory, again "
    )
    assert len(plan_growth.growth_table([small])) == 2


def test_inventory(tmp_path: Path) -> None:
    """The files say what the pure function is given."""
    plan_growth.write_inventory(3, tmp_path / "fleet")
    hosts = yaml.safe_load((tmp_path / "fleet" / "hosts.yml").read_text(encoding="utf-8"))["all"]["children"]
    assert {group: list(part["hosts"]) for group, part in hosts.items()} == {
        group: sorted(names) for group, names in plan_growth.groups(3).items()
    }
    record = tmp_path / "fleet" / "host_vars" / "gpu-2" / "gpu_inventory.yml"
    assert yaml.safe_load(record.read_text(encoding="utf-8"))["gpu_inventory"] == plan_growth.record(1)
    variables = yaml.safe_load((tmp_path / "fleet" / "group_vars" / "all.yml").read_text(encoding="utf-8"))
    assert variables == plan_growth.fleet_variables()
