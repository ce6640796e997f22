# SPDX-License-Identifier: Apache-2.0
"""Where instances go: one GPU for one instance, groups close together, replicas apart."""

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.gpufleet.metal.plugins.module_utils._plan.placement import nvlink_domains
from ansible_collections.gpufleet.metal.plugins.module_utils._plan.schema import Gpu
from ansible_collections.gpufleet.metal.tests.unit.plugins.module_utils._plan.fleets import (
    PRODUCTS,
    gpus,
    hosts,
    llama,
    model,
    plan,
    texts,
    tiny,
)


def places(result: dict[str, Any]) -> list[tuple[str, str, list[int], str]]:
    """Return (host, instance, GPUs, why) of all instances."""
    assert texts(result) == []
    return [(i["host"], i["name"], [gpu["index"] for gpu in i["gpus"]], i["why"]) for i in result["instances"]]


def pairs(count: int, product: str = "L40S") -> dict[str, Any]:
    """Return GPUs that NVLink joins two by two, across the middle: 0 with 2, 1 with 3."""
    record = gpus(count, product)
    half = count // 2
    for i, gpu in enumerate(record["gpus"]):
        gpu["nvlink_peers"] = [record["gpus"][(i + half) % count]["pci_address"]]
    return record


def test_replicas_go_to_different_hosts_first() -> None:
    """Three replicas on three hosts, not three on one."""
    result = plan(model(replicas=3), machines=hosts(gpus(8), gpus(8), gpus(8)))
    assert places(result) == [
        ("gpu-1", "autoglm-0", [0], "one GPU"),
        ("gpu-2", "autoglm-0", [0], "one GPU"),
        ("gpu-3", "autoglm-0", [0], "one GPU"),
    ]


def test_auto_takes_all_and_shares_fairly() -> None:
    """Two models with replicas auto hold the same number of GPUs."""
    result = plan(model("a"), model("b"), machines=hosts(gpus(4), gpus(4)))
    assert [(name, m["replicas"]) for name, m in result["models"].items()] == [("a", 4), ("b", 4)]
    assert {i["host"] for i in result["instances"] if i["model"] == "a"} == {"gpu-1", "gpu-2"}


def test_auto_shares_what_given_replicas_leave() -> None:
    """Given replicas are served first; GPUs are what is shared, not instances."""
    result = plan(
        model("a", tensor_parallel_size=2), model("b"), model("c", replicas=2), machines=hosts(gpus(8), gpus(8))
    )
    assert [(name, m["replicas"], m["gpus"]) for name, m in result["models"].items()] == [
        ("a", 4, 8),
        ("b", 6, 6),
        ("c", 2, 2),
    ]


def test_a_group_stays_in_one_nvlink_domain() -> None:
    """The pairs that NVLink joins win over GPUs of the same NUMA node."""
    result = plan(model(tensor_parallel_size=2, replicas=2), machines=hosts(pairs(4)))
    assert places(result) == [
        ("gpu-1", "autoglm-0", [0, 2], "one NVLink domain"),
        ("gpu-1", "autoglm-1", [1, 3], "one NVLink domain"),
    ]


def test_without_nvlink_a_group_stays_on_one_numa_node() -> None:
    """Two GPUs of each NUMA node, though 0 and 1, 2 and 3 would also be free in another order."""
    machines = hosts(gpus(4, "L40S"))
    for i, gpu in enumerate(machines["gpu-1"]["gpu_inventory"]["gpus"]):
        gpu["numa_node"] = i % 2
    assert places(plan(model(tensor_parallel_size=2, replicas=2), machines=machines)) == [
        ("gpu-1", "autoglm-0", [0, 2], "one NUMA node"),
        ("gpu-1", "autoglm-1", [1, 3], "one NUMA node"),
    ]


def test_a_group_may_cross_numa_nodes() -> None:
    """Slow but legal, and said."""
    result = plan(model(tensor_parallel_size=4, replicas=1), machines=hosts(gpus(4, "L40S")))
    assert places(result) == [("gpu-1", "autoglm-0", [0, 1, 2, 3], "PCIe across NUMA nodes")]


def test_a_small_instance_does_not_break_a_pair() -> None:
    """The single GPU takes the one without a partner, the pair stays whole."""
    record = pairs(4)
    # GPU 2 is not there, so GPU 0 has no partner.
    del record["gpus"][2]
    result = plan(model("pair", tensor_parallel_size=2, replicas=1), tiny("single", replicas=1), machines=hosts(record))
    assert places(result) == [
        ("gpu-1", "pair-0", [1, 2], "one NVLink domain"),
        ("gpu-1", "single-0", [0], "one GPU"),
    ]


def test_large_groups_are_placed_before_small_ones() -> None:
    """Two groups of four and two singles fit on three hosts of four only when the groups come first."""
    result = plan(
        tiny("a", replicas=1), tiny("b", replicas=1), llama(replicas=2), machines=hosts(gpus(4), gpus(4), gpus(4))
    )
    assert [(i["host"], i["name"]) for i in result["instances"]] == [
        ("gpu-1", "llama-0"),
        ("gpu-2", "llama-0"),
        ("gpu-3", "a-0"),
        ("gpu-3", "b-0"),
    ]
    assert texts(result) == []


def test_a_group_has_gpus_of_one_kind() -> None:
    """Two L40S and two H100 in one host make no group of four."""
    mixed = gpus(4)
    for gpu in mixed["gpus"][:2]:
        gpu.update(product="L40S", memory_mib=46068, compute_capability="8.9", nvlink_peers=[])
    result = plan(llama(tensor_parallel_size=4, replicas=1), machines=hosts(mixed))
    assert [finding["code"] for finding in result["findings"]] == ["tensor_parallel_size_too_large"]


def test_each_kind_of_gpu_has_its_own_size() -> None:
    """auto: one H100 where there is one, two L4 where there are not; weights follow the memory."""
    result = plan(model(), machines=hosts(gpus(1), gpus(2, "L4")))
    assert places(result) == [
        ("gpu-1", "autoglm-0", [0], "one GPU"),
        ("gpu-2", "autoglm-0", [0, 1], "PCIe across NUMA nodes"),
    ]
    assert result["models"]["autoglm"]["tensor_parallel_size"] == 1
    assert result["models"]["autoglm"]["tensor_parallel_sizes"] == [1, 2]
    assert [server["weight"] for server in result["upstreams"][0]["servers"]] == [5, 3]


def test_hosts_are_taken_in_the_order_of_people() -> None:
    """gpu-2 comes before gpu-10."""
    result = plan(model(replicas=2), machines=hosts(*(gpus(1) for __ in range(10))))
    assert [i["host"] for i in result["instances"]] == ["gpu-1", "gpu-2"]


@pytest.mark.parametrize(
    ("product", "peers", "why"),
    [
        pytest.param("H100 SXM5 80GB", None, "one NVLink domain", id="a baseboard, by the catalogue"),
        pytest.param("H100 SXM5 80GB", [], "PCIe across NUMA nodes", id="a driver's word wins"),
        pytest.param("L40S", None, "PCIe across NUMA nodes", id="a product without NVLink, by the catalogue"),
        pytest.param("A100 PCIe 80GB", None, "PCIe across NUMA nodes (NVLink not known)", id="bridges, not known"),
    ],
)
def test_nvlink_that_no_driver_has_told(product: str, peers: list[str] | None, why: str) -> None:
    """null is not "none": the catalogue knows baseboards, and of bridges only that there may be some."""
    record = gpus(4, product if product in PRODUCTS else "H100 SXM5 80GB", nvlink_peers=peers)
    if product not in PRODUCTS:
        for gpu in record["gpus"]:
            gpu.update(product=product, device_id="20B5", memory_mib=81920, compute_capability="8.0")
    result = plan(model(tensor_parallel_size=4, replicas=1), machines=hosts(record))
    assert places(result) == [("gpu-1", "autoglm-0", [0, 1, 2, 3], why)]


@pytest.mark.parametrize(
    ("peers", "domains"),
    [
        ({}, {"a": 0, "b": 1, "c": 2}),
        ({"a": ["b"]}, {"a": 0, "b": 0, "c": 2}),
        ({"a": ["b"], "c": ["b"]}, {"a": 0, "b": 0, "c": 0}),
        ({"a": ["elsewhere"]}, {"a": 0, "b": 1, "c": 2}),
    ],
)
def test_nvlink_domains(peers: dict[str, list[str]], domains: dict[str, int]) -> None:
    """A link counts from whichever side it is recorded; peers that are no GPUs (switches) do not count."""
    listed = [Gpu(n, i, "2330", "x", None, 1, (9, 0), 0, tuple(peers.get(n, ()))) for i, n in enumerate("abc")]
    assert nvlink_domains(listed) == domains
