# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.gpufleet.metal.plugins.module_utils._plan.reachability import (
    UNPLANNED_PORT,
    neighbours,
    reachability_targets,
)


def flow(destination: str, port: int, source: str, protocol: str = "tcp") -> dict[str, Any]:
    return {"destination": destination, "port": port, "source": source, "protocol": protocol}


PLAN: dict[str, Any] = {
    "hosts": {
        "gpu-1": {"group": "gpu_nodes", "address": "198.51.100.11"},
        "gpu-2": {"group": "gpu_nodes", "address": "198.51.100.12"},
        "gw-1": {"group": "gateways", "address": "198.51.100.13"},
    },
    "flows": [
        flow("gpu-1", 22, "management"),
        flow("gpu-1", 8000, "gateways"),
        flow("gpu-2", 8000, "gateways"),
        flow("gw-1", 443, "any"),
        flow("gw-1", 443, "any", "udp"),
    ],
}


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        (
            "gw-1",
            {
                "gpu-1:22": "filtered",
                "gpu-1:8000": "open",
                f"gpu-1:{UNPLANNED_PORT}": "filtered",
                "gpu-2:8000": "open",
                f"gpu-2:{UNPLANNED_PORT}": "filtered",
            },
        ),
        (
            "gpu-1",
            {
                "gpu-2:8000": "filtered",
                f"gpu-2:{UNPLANNED_PORT}": "filtered",
                "gw-1:443": "open",
                f"gw-1:{UNPLANNED_PORT}": "filtered",
            },
        ),
    ],
)
def test_a_flow_is_open_from_its_source_only(host: str, expected: dict[str, str]) -> None:
    assert {target["name"]: target["expect"] for target in reachability_targets(PLAN, host)} == expected


@pytest.mark.parametrize(
    ("hosts", "host", "expected"),
    [
        (["a"], "a", []),
        (["b", "a"], "a", ["b"]),
        (["a", "b", "c", "d", "e", "f"], "e", ["f", "a", "b", "c"]),
    ],
)
def test_neighbours_follow_in_a_ring(hosts: list[str], host: str, expected: list[str]) -> None:
    assert neighbours(hosts, host) == expected


def test_the_targets_of_a_node_do_not_grow_with_the_fleet() -> None:
    names = [f"gpu-{index:04d}" for index in range(1000)]
    plan = {
        "hosts": {name: {"group": "gpu_nodes", "address": "198.51.100.1"} for name in names},
        "flows": [flow(name, 8000, "gateways") for name in names],
    }
    assert len(reachability_targets(plan, "gpu-0500")) == 8
