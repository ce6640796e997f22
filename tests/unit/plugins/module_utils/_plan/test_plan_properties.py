# SPDX-License-Identifier: Apache-2.0
"""What holds for every fleet, whatever its hosts, GPUs and models."""

from __future__ import annotations

import copy
import json
import random
from collections import Counter
from typing import Any

from hypothesis import example, given, settings
from hypothesis import strategies as st

from ansible_collections.gpufleet.metal.plugins.module_utils._plan.builder import build_plan
from ansible_collections.gpufleet.metal.plugins.module_utils._plan.picture import plan_as_svg
from ansible_collections.gpufleet.metal.plugins.module_utils._plan.schema import Inventory
from ansible_collections.gpufleet.metal.plugins.module_utils._plan.table import plan_as_json, plan_as_table
from ansible_collections.gpufleet.metal.tests.unit.plugins.module_utils._plan.fleets import (
    PRODUCTS,
    gpus,
    groups,
    hosts,
    inventory,
    llama,
    model,
    texts,
    tiny,
    variables,
    with_cluster,
)

RECORDS = st.one_of(
    st.none(),
    st.builds(gpus, st.integers(1, 8), st.sampled_from(sorted(PRODUCTS))),
    st.builds(gpus, st.sampled_from([4, 8])),
)
SIZES = st.one_of(st.none(), st.sampled_from([1, 2, 3, 4, 8]))
MODELS = st.lists(
    st.builds(
        lambda kind, name, size, replicas: kind(name, tensor_parallel_size=size, replicas=replicas),
        st.sampled_from([model, llama, tiny]),
        st.sampled_from("abcdef"),
        SIZES,
        st.one_of(st.none(), st.integers(1, 5)),
    ),
    min_size=1,
    max_size=4,
    unique_by=lambda entry: entry["name"],
)


def fleet_of(
    models: list[dict[str, Any]], records: list[Any], gateways: int, cluster: tuple[int, int, str, list[bool]]
) -> Inventory:
    """Return a fleet; ``cluster``: control planes, workers, Flannel's backend, and which GPU nodes are in it."""
    control_planes, workers, backend, inside = cluster
    machines = hosts(*records, gateways=gateways)
    nodes = [name for name in machines if name.startswith("gpu-")]
    if not control_planes + workers:
        return inventory(variables(*models), machines)
    machines = with_cluster(machines, control_planes, workers)
    values = variables(
        *models,
        fleet_kubernetes={
            "flannel_backend": backend,
            "api_server": {"address": "192.0.2.99"} if control_planes > 1 else None,
        },
    )
    chosen = [name for name, chosen in zip(nodes, inside, strict=False) if chosen]
    return inventory(values, machines, groups=groups(machines, chosen))


CLUSTERS = st.one_of(
    st.just((0, 0, "vxlan", [])),
    st.tuples(
        st.integers(0, 5), st.integers(0, 3), st.sampled_from(["vxlan", "host-gw"]), st.lists(st.booleans(), max_size=6)
    ),
)
FLEETS = st.builds(fleet_of, MODELS, st.lists(RECORDS, max_size=6), st.integers(0, 3), CLUSTERS)


def shuffled(value: Any, chance: random.Random) -> Any:
    """Return the same data with dictionaries, and the lists whose order has no meaning, in another order."""
    if isinstance(value, dict):
        keys = list(value)
        chance.shuffle(keys)
        return {key: shuffled(value[key], chance) for key in keys}
    if isinstance(value, list):
        items = [shuffled(item, chance) for item in value]
        chance.shuffle(items)
        return items
    return value


@settings(deadline=None, max_examples=60)
@given(FLEETS, st.randoms(use_true_random=False))
def test_order_does_not_matter(fleet: Inventory, chance: random.Random) -> None:
    """Hosts, models, GPUs and keys in any order give the same bytes."""
    other = Inventory(
        groups=shuffled(dict(fleet.groups), chance),
        variables=shuffled(dict(fleet.variables), chance),
        hosts=shuffled(dict(fleet.hosts), chance),
        names=shuffled(dict(fleet.names), chance),
    )
    first, second = build_plan(fleet), build_plan(other)
    assert plan_as_json(first) == plan_as_json(second)
    assert plan_as_table(first) == plan_as_table(second)
    assert plan_as_svg(first) == plan_as_svg(second)


@settings(deadline=None, max_examples=100)
@given(FLEETS)
def test_instances(fleet: Inventory) -> None:
    """One GPU for one instance; a group on one host, of one kind, as large as its arguments say."""
    result = build_plan(fleet)
    used = [(i["host"], gpu["pci_address"]) for i in result["instances"] for gpu in i["gpus"]]
    assert len(used) == len(set(used))
    recorded = {
        (name, gpu["pci_address"]): gpu["product"]
        for name, values in fleet.hosts.items()
        for gpu in (values.get("gpu_inventory") or {"gpus": []})["gpus"]
    }
    assert set(used) <= set(recorded)
    assert len({(i["host"], i["name"]) for i in result["instances"]}) == len(result["instances"])
    assert len({(i["host"], i["port"]) for i in result["instances"]}) == len(result["instances"])
    for instance in result["instances"]:
        size = instance["tensor_parallel_size"]
        assert len(instance["gpus"]) == size
        assert len({recorded[instance["host"], gpu["pci_address"]] for gpu in instance["gpus"]}) == 1
        arguments = instance["arguments"]
        assert arguments[arguments.index("--tensor-parallel-size") + 1] == str(size)
        assert arguments[arguments.index("--port") + 1] == str(instance["port"])
        assert size in result["models"][instance["model"]]["tensor_parallel_sizes"]


def rules_of(firewall: dict[str, Any]) -> list[dict[str, Any]]:
    """Return all rules of a host's firewall."""
    return [*firewall["input"], *firewall["forward"], *firewall["routed"]]


def assert_reason(flow: dict[str, Any], result: dict[str, Any]) -> None:
    """A flow that is neither ssh nor for clients or gateways is one of the cluster, and is in the table of these."""
    cluster = result["kubernetes"]
    assert cluster is not None
    part = result["hosts"][flow["destination"]]["kubernetes"]
    api = cluster["api_server"]["port"]
    both = {
        ("kube_control_plane", 10250, "tcp"),
        *(
            [("cluster", 8472, "udp")]
            if cluster["flannel_backend"] == "vxlan"
            else [("pods", None, "ip"), ("cluster", None, "ip")]
        ),
    }
    first = {("cluster", 6443, "tcp"), ("cluster", api, "tcp"), ("management", api, "tcp"), ("pods", 6443, "tcp")}
    if len(cluster["control_plane"]) > 1:
        first |= {("kube_control_plane", port, "tcp") for port in (2379, 2380)}
        first.add(("kube_control_plane", None, "vrrp"))
    allowed = both | first if part["role"] == "control_plane" else both
    assert (flow["source"], flow["port"], flow["protocol"]) in allowed


@settings(deadline=None, max_examples=100)
@given(FLEETS)
def test_a_host_is_in_the_cluster_or_has_nothing_of_it(fleet: Inventory) -> None:
    """What runs an engine follows from the groups, and nothing of a cluster is said where there is none."""
    result = build_plan(fleet)
    members = {*fleet.groups["kube_control_plane"], *fleet.groups["kube_nodes"]}
    assert {name for name, part in result["hosts"].items() if part["kubernetes"] is not None} == members
    assert (result["kubernetes"] is None) is (not members)
    for instance in result["instances"]:
        assert instance["backend"] == ("kubernetes" if instance["host"] in members else "docker")
    if not members:
        assert {flow["source"] for flow in result["flows"]} <= {"management", "gateways", "any"}
        return
    assert {*result["kubernetes"]["control_plane"], *result["kubernetes"]["nodes"]} == members
    slices = [part["kubernetes"] for part in result["hosts"].values() if part["kubernetes"]]
    assert len({part["control_plane_endpoint"] for part in slices}) == 1
    priorities = [part["priority"] for part in slices if part["role"] == "control_plane"]
    assert len(set(priorities)) == len(priorities)


@settings(deadline=None, max_examples=100)
@given(FLEETS)
def test_the_parts_agree(fleet: Inventory) -> None:
    """Upstreams, flows, scrape targets and slices all come from the same instances."""
    result = build_plan(fleet)
    ends = {(i["host"], i["address"], i["port"]) for i in result["instances"]}
    servers = [server for upstream in result["upstreams"] for server in upstream["servers"]]
    assert {(s["name"].split("/")[0], s["address"], s["port"]) for s in servers} == ends
    assert all(1 <= server["weight"] <= 100 for server in servers)
    assert {(t["host"], t["address"], t["port"]) for t in result["scrape_targets"]} == ends
    gateways = {name for name, part in result["hosts"].items() if part["group"] == "gateways"}
    for flow in result["flows"]:
        assert flow["why"]
        if flow["source"] == "gateways":
            assert flow["forwarded"]
            assert flow["destination"] in {host for host, _address, port in ends if port == flow["port"]}
        elif flow["source"] == "any":
            assert (flow["port"], flow["forwarded"]) == (443, False)
            assert flow["destination"] in gateways
        elif (flow["source"], flow["port"]) != ("management", 22):
            assert_reason(flow, result)
    assert {(f["destination"], f["port"]) for f in result["flows"] if f["source"] == "gateways"} == {
        (host, port) for host, _address, port in ends
    }
    for name, part in result["hosts"].items():
        firewall = part["firewall"]
        rules = [
            (port or 0, rule["source"], rule["protocol"])
            for rule in firewall["input"] + firewall["forward"]
            for port in rule["ports"] or [None]
        ]
        rules += [(0, rule["source"], "ip") for rule in firewall["routed"]]
        assert sorted(rules) == sorted(
            (f["port"] or 0, f["source"], f["protocol"]) for f in result["flows"] if f["destination"] == name
        )
        ends_of_rules = [rule[end] for rule in rules_of(firewall) for end in ("source", "destination") if end in rule]
        assert set(firewall["sets"]) == set(ends_of_rules) - {"any"}
        whole = [i for i in result["instances"] if i["host"] == name]
        assert [i["name"] for i in part.get("instances", [])] == [i["name"] for i in whole]


@settings(deadline=None, max_examples=100)
@given(FLEETS)
def test_a_model_gets_what_it_wants_or_a_finding(fleet: Inventory) -> None:
    """Without findings, every model has its replicas, or at least one, and no instance is larger than it must be."""
    result = build_plan(fleet)
    if result["findings"]:
        return
    for entry in fleet.variables["fleet_models"]:
        decided = result["models"][entry["name"]]
        if "replicas" in entry:
            assert decided["replicas"] == entry["replicas"]
        assert decided["replicas"] >= 1
        if "tensor_parallel_size" in entry:
            assert decided["tensor_parallel_sizes"] == [entry["tensor_parallel_size"]]
        assert decided["memory"]["needed"] <= decided["memory"]["budget"]


@settings(deadline=None, max_examples=60)
@given(FLEETS, RECORDS)
def test_a_new_host_hides_nothing_about_others(fleet: Inventory, record: Any) -> None:
    """What is wrong with a host stays reported when another host comes."""
    more = {**fleet.hosts, "gpu-9": {"ansible_host": "192.0.2.98", "gpu_inventory": record}}
    before = {f for f in texts(build_plan(fleet)) if f[0] == "host"}
    after = set(texts(build_plan(inventory(fleet.variables, more, groups=groups(more, fleet.groups["kube_nodes"])))))
    assert before <= after


@settings(deadline=None, max_examples=60)
@given(FLEETS)
def test_auto_leaves_no_gpu_that_a_model_could_use(fleet: Inventory) -> None:
    """Where every model is auto, what stays free is too little or too old for each of them."""
    models = [
        {k: v for k, v in entry.items() if k not in ("replicas", "tensor_parallel_size")}
        for entry in fleet.variables["fleet_models"]
    ]
    machines = {name: values for name, values in fleet.hosts.items() if name.startswith(("gpu-", "gw-"))}
    result = build_plan(inventory(variables(*models), machines))
    if result["findings"]:
        return
    for name, part in result["hosts"].items():
        if part["group"] != "gpu_nodes":
            continue
        free = len(part["expected_gpus"]) - sum(len(i["gpus"]) for i in part["instances"])
        kinds = {gpu["product"] for gpu in part["expected_gpus"]}
        sizes = [
            i["tensor_parallel_size"]
            for i in result["instances"]
            if {gpu["product"] for gpu in result["hosts"][i["host"]]["expected_gpus"]} == kinds
        ]
        assert not sizes or free < min(sizes), name


@settings(deadline=None, max_examples=100)
@given(st.lists(st.integers(1, 8), min_size=1, max_size=6), st.sampled_from([1, 2, 4]), st.integers(1, 30))
def test_losing_a_host_loses_the_fewest_replicas(counts: list[int], size: int, replicas: int) -> None:
    """With one model, no host has more of it than it must: less on the fullest host would be too few in all."""
    result = build_plan(
        inventory(
            variables(tiny(tensor_parallel_size=size, replicas=replicas)), hosts(*(gpus(count) for count in counts))
        )
    )
    if result["findings"]:
        assert replicas > sum(count // size for count in counts) or size > max(counts)
        return
    most = max(Counter(i["host"] for i in result["instances"]).values())
    assert sum(min(most - 1, count // size) for count in counts) < replicas


@settings(deadline=None, max_examples=100)
@given(FLEETS)
def test_no_model_crowds_a_host_while_another_has_room(fleet: Inventory) -> None:
    """With several models: where a host has two more of a model than another one, that one has no room for it."""
    result = build_plan(fleet)
    nodes = [name for name, part in result["hosts"].items() if part["group"] == "gpu_nodes"]
    free = {
        name: Counter(
            gpu["product"]
            for gpu in result["hosts"][name]["expected_gpus"]
            if gpu["pci_address"]
            not in {g["pci_address"] for i in result["hosts"][name]["instances"] for g in i["gpus"]}
        )
        for name in nodes
    }
    sizes: dict[str, dict[str, int]] = {}
    counts: dict[str, Counter[str]] = {}
    for instance in result["instances"]:
        products = {g["pci_address"]: g["product"] for g in result["hosts"][instance["host"]]["expected_gpus"]}
        product = products[instance["gpus"][0]["pci_address"]]
        sizes.setdefault(instance["model"], {})[product] = instance["tensor_parallel_size"]
        counts.setdefault(instance["model"], Counter())[instance["host"]] += 1
    for model_name, by_host in counts.items():
        for name in nodes:
            if max(by_host.values()) > by_host[name] + 1:
                assert all(free[name][product] < size for product, size in sizes[model_name].items())


#: Whatever YAML can say, and some of what it should not.
VALUES = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(),
        st.sampled_from([0, -1, 2**31, 2**63, 10**30, 0.5, 1e308, float("nan"), float("inf")]),
        st.text(max_size=12),
        st.sampled_from(["auto", "8.9", "192.0.2.1", "::1", "0000:17:00.0", "a/b", "/srv", "a{{ b }}", "\u0000"]),
    ),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=8), inner, max_size=3)),
    max_leaves=6,
)


def paths(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Return the paths to everything inside a value."""
    found = [path] if path else []
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return found + [deeper for key, item in items for deeper in paths(item, (*path, key))]


def whole() -> dict[str, Any]:
    """Return an inventory in which everything that can be said is said."""
    entry = model(
        files_sha256={"config.json": "0" * 64},
        tensor_parallel_size=2,
        replicas=1,
        quantization="fp8",
        minimum_compute_capability="8.9",
        source={"huggingface": {"repository": "a/b", "revision": "0" * 40}},
    )
    entry["config"]["quantization_config"] = {"quant_method": "fp8", "weight_block_size": [64, 64]}
    experts = llama("experts", arguments={"enable-expert-parallel": True, "block-size": 32})
    experts["config"].update(num_experts=8, moe_intermediate_size=1408, kv_lora_rank=512, qk_rope_head_dim=64)
    return {
        "variables": variables(
            entry,
            experts,
            fleet_models_directory="/srv/models",
            fleet_plan_keep=True,
            fleet_engine={
                "image": {"reference": "vllm", "archive": "file:///a", "archive_sha256": "0" * 64, "id": None},
                "accelerator": "cuda",
                "base_port": 8000,
                "gpu_memory_utilization": 0.9,
                "cpu_kv_cache_gib": 1,
                "shutdown_timeout_seconds": 30,
                "shm_size_gib": 1,
            },
            fleet_endpoint={
                "hostname": "llm.example.org",
                "port": 443,
                "alternative_names": ["a.example.org"],
                "default_model": "autoglm",
            },
            fleet_kubernetes={
                "version": "1.36.4",
                "api_server": {"address": "192.0.2.99", "port": 8443, "name": "k8s.example.org"},
                "pod_network": "10.244.0.0/16",
                "service_network": "10.96.0.0/12",
                "host_networks": ["192.0.2.0/24"],
                "flannel_backend": "vxlan",
                "namespace": "engines",
            },
        ),
        "hosts": with_cluster(
            hosts(gpus(4), gpus(2, "L40S", nvlink_peers=None)),
            3,
            1,
            docker_address_pools=[{"base": "172.30.0.0/16", "size": 24}],
        ),
    }


WHOLE = whole()
PATHS = paths(WHOLE)


@settings(deadline=None, max_examples=400)
@given(st.lists(st.tuples(st.sampled_from(PATHS), VALUES), min_size=1, max_size=3))
@example([(("variables", "fleet_models", 0, "context_length"), 10**30)])
@example([(("variables", "fleet_models", 0, "config", "text_config", "num_hidden_layers"), 10**18)])
@example([(("variables", "fleet_models", 0, "weights_bytes"), 2**62)])
@example([(("variables", "fleet_models", 0, "tensor_parallel_size"), 2**62)])
@example([(("variables", "fleet_models", 0, "replicas"), 2**62)])
@example([(("variables", "fleet_models", 0, "concurrency"), 2**62)])
def test_nonsense_anywhere_is_a_finding_or_harmless(changes: list[tuple[tuple[Any, ...], Any]]) -> None:
    """Whatever stands wherever in the inventory: no exception, and a plan that can be shown and written."""
    data = copy.deepcopy(WHOLE)
    for path, value in changes:
        parent: Any = data
        try:
            for key in path[:-1]:
                parent = parent[key]
            parent[path[-1]] = value
        except (KeyError, IndexError, TypeError):
            # An earlier change took away what this one is about.
            continue
    values = data["variables"] if isinstance(data["variables"], dict) else {}
    machines = {
        name: given if isinstance(given, dict) else {}
        for name, given in (data["hosts"] if isinstance(data["hosts"], dict) else {}).items()
    }
    result = build_plan(inventory(values, machines))
    for finding in result["findings"]:
        assert all(isinstance(text, str) for text in finding.values())
        assert all(finding[key] for key in ("kind", "host_or_model", "code", "found", "wanted", "fix"))
    json.dumps(result, allow_nan=False)
    plan_as_json(result)
    plan_as_table(result)
    plan_as_svg(result)
