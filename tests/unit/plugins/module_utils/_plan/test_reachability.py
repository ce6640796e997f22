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


def host(group: str, address: str, **sets: list[str]) -> dict[str, Any]:
    return {"group": group, "address": address, "firewall": {"sets": sets}}


def plan(management: list[str]) -> dict[str, Any]:
    """Two GPU nodes and a gateway. The management networks may hold fleet hosts or not."""
    gateways = ["198.51.100.13"]
    return {
        "models": {},
        "instances": [],
        "hosts": {
            "gpu-1": host("gpu_nodes", "198.51.100.11", management=management, gateways=gateways),
            "gpu-2": host("gpu_nodes", "198.51.100.12", management=management, gateways=gateways),
            "gw-1": host("gateways", "198.51.100.13"),
        },
        "flows": [
            flow("gpu-1", 22, "management"),
            flow("gpu-1", 8000, "gateways"),
            flow("gpu-2", 22, "management"),
            flow("gpu-2", 8000, "gateways"),
            flow("gw-1", 443, "any"),
            flow("gw-1", 443, "any", "udp"),
        ],
    }


OUTSIDE = ["192.0.2.0/24", "2001:db8::/32"]


@pytest.mark.parametrize(
    ("management", "tried_from", "expected"),
    [
        (
            OUTSIDE,
            "gw-1",
            {
                "gpu-1:22": "filtered",
                "gpu-1:8000": "open",
                "gpu-2:22": "filtered",
                "gpu-2:8000": "open",
            },
        ),
        (OUTSIDE, "gpu-1", {"gpu-2:22": "filtered", "gpu-2:8000": "filtered", "gw-1:443": "open"}),
        # The whole fleet lies inside a management network.
        (["198.51.100.0/24"], "gpu-1", {"gpu-2:22": "open", "gpu-2:8000": "filtered", "gw-1:443": "open"}),
        # One of the hosts does, by its own address or by a small network.
        (["198.51.100.11"], "gpu-1", {"gpu-2:22": "open", "gpu-2:8000": "filtered", "gw-1:443": "open"}),
        (["198.51.100.12/31"], "gpu-1", {"gpu-2:22": "filtered", "gpu-2:8000": "filtered", "gw-1:443": "open"}),
        (
            ["198.51.100.12/31"],
            "gw-1",
            {"gpu-1:22": "open", "gpu-1:8000": "open", "gpu-2:22": "open", "gpu-2:8000": "open"},
        ),
    ],
)
def test_a_flow_is_open_for_the_addresses_of_its_source_only(
    management: list[str], tried_from: str, expected: dict[str, str]
) -> None:
    targets = reachability_targets(plan(management), tried_from)
    unplanned = {f"{name}:{UNPLANNED_PORT}": "filtered" for name in ("gpu-1", "gpu-2", "gw-1") if name != tried_from}
    assert {target["name"]: target["expect"] for target in targets} == {**expected, **unplanned}


def test_a_port_with_several_sources_is_tried_once() -> None:
    two = plan(OUTSIDE)
    two["flows"].append(flow("gpu-2", 22, "gateways"))
    expected = {target["name"]: target["expect"] for target in reachability_targets(two, "gw-1")}
    assert expected["gpu-2:22"] == "open"
    assert len([target for target in reachability_targets(two, "gw-1") if target["name"] == "gpu-2:22"]) == 1


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
    large = {
        "models": {},
        "instances": [],
        "hosts": {name: host("gpu_nodes", "198.51.100.1", gateways=["198.51.100.2"]) for name in names},
        "flows": [flow(name, 8000, "gateways") for name in names],
    }
    assert len(reachability_targets(large, "gpu-0500")) == 8
