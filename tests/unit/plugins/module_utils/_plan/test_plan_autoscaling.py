# SPDX-License-Identifier: Apache-2.0
"""Autoscaling in the plan: what is refused, word for word, which instances always run, and when the others start."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from ansible_collections.gpufleet.metal.plugins.module_utils._plan.autoscaling import (
    elastic_ports,
    held_above,
    starts_at,
)
from ansible_collections.gpufleet.metal.plugins.module_utils._plan.builder import build_plan
from ansible_collections.gpufleet.metal.plugins.module_utils._plan.document import PLAN_SCHEMA
from ansible_collections.gpufleet.metal.plugins.module_utils._plan.reachability import reachability_targets
from ansible_collections.gpufleet.metal.plugins.module_utils._plan.table import plan_as_table
from ansible_collections.gpufleet.metal.tests.unit.plugins.module_utils._plan.fleets import (
    DIGEST,
    gpus,
    groups,
    hosts,
    inventory,
    texts,
    tiny,
    variables,
    with_cluster,
)

PATH = "fleet_models[tiny-llama].autoscaling"
ENGINE = {"image": {"reference": f"vllm/vllm-openai:v0.32.0@{DIGEST}"}}


def planned(
    autoscaling: Any, counts: tuple[int, ...] = (2, 2), inside: Any = None, cluster: bool = True, **changes: Any
) -> dict[str, Any]:
    """Return the plan of a fleet with so many GPUs on each host, all of them for one model."""
    more = {key: changes.pop(key) for key in ("replicas", "concurrency") if key in changes}
    machines = hosts(*(gpus(count) for count in counts))
    found = with_cluster(machines) if cluster else machines
    entry = tiny(autoscaling=autoscaling, tensor_parallel_size=1, **more)
    return build_plan(inventory(variables(entry, **changes), found, groups=groups(found, inside)))


def scaled(plan: dict[str, Any]) -> dict[str, Any]:
    """Return what the plan says of the model."""
    assert texts(plan) == []
    found: dict[str, Any] = plan["models"]["tiny-llama"]["autoscaling"]
    return found


def finding(code: str, found: str, wanted: str, fix: str) -> tuple[str, ...]:
    """Return a finding about the model."""
    return ("model", "tiny-llama", code, found, wanted, fix)


CASES = [
    pytest.param(
        {"autoscaling": {"minimum": 0}},
        finding(
            "invalid_value",
            f"{PATH}.minimum is 0",
            "1 or more: with none that runs the first requests fail, and no queue shows that they came",
            f"set {PATH}.minimum to 1",
        ),
        id="none that always runs",
    ),
    pytest.param(
        {"autoscaling": {"minimum": -1}},
        finding("invalid_value", f"{PATH}.minimum is -1", "a whole number, 0 or more", f"correct {PATH}.minimum"),
        id="fewer than none",
    ),
    pytest.param(
        {"autoscaling": True},
        finding("wrong_type", f"{PATH} is true", "a mapping", f"write {PATH} as a mapping of options"),
        id="no mapping",
    ),
    pytest.param(
        {"autoscaling": {"waiting_requests": 0}},
        finding(
            "invalid_value",
            f"{PATH}.waiting_requests is 0",
            "a whole number, 1 to 100000",
            f"correct {PATH}.waiting_requests",
        ),
        id="no queue at all",
    ),
    pytest.param(
        {"autoscaling": {"cool_down_seconds": 30}},
        finding(
            "invalid_value",
            f"{PATH}.cool_down_seconds is 30",
            "a whole number, 60 to 604800",
            f"correct {PATH}.cool_down_seconds",
        ),
        id="hardly a cool-down",
    ),
    pytest.param(
        {"autoscaling": {"maximum": 3}},
        finding(
            "unknown_key",
            f"{PATH}.maximum",
            "one of cool_down_seconds, minimum, waiting_requests (did you mean minimum?)",
            f"correct or remove {PATH}.maximum",
        ),
        id="a maximum, which is the plan's",
    ),
    pytest.param(
        {"autoscaling": {"minimum": 4}},
        finding(
            "autoscaling_minimum_too_large",
            f"{PATH}.minimum is 4, and 4 of its instances are in the cluster",
            "at most 3, so that there are others to start and stop",
            f"lower {PATH}.minimum, raise replicas, or remove {PATH}",
        ),
        id="all always run",
    ),
    pytest.param(
        {"autoscaling": {}, "replicas": 1},
        finding(
            "autoscaling_minimum_too_large",
            f"{PATH}.minimum is 1, and 1 of its instances are in the cluster",
            "at least 2 instances in the cluster: one that always runs, and another",
            f"raise replicas, or remove {PATH}",
        ),
        id="a single instance",
    ),
    pytest.param(
        {"autoscaling": {}, "cluster": False},
        finding(
            "autoscaling_without_cluster",
            f"{PATH} is set, and its instances run under Docker (gpu-1, gpu-2)",
            "instances on hosts of kube_nodes: nothing starts and stops those of other hosts",
            f"add the hosts to kube_nodes, or remove {PATH}",
        ),
        id="a fleet of Docker",
    ),
    pytest.param(
        {"autoscaling": {}, "fleet_engine": {**ENGINE, "tls": "mutual"}},
        finding(
            "autoscaling_mutual_tls",
            f"{PATH} is set, and fleet_engine.tls is mutual",
            "fleet_engine.tls none: to read the engines' queues KEDA would need a client's certificate in the cluster, "
            "with which whoever finds it could ask every engine",
            f"set fleet_engine.tls to none, or remove {PATH}",
        ),
        id="engines that want a certificate",
    ),
    pytest.param(
        {"autoscaling": {}, "fleet_kubernetes": {"autoscaler_namespace": "gpufleet-serving"}},
        (
            "fleet",
            "test",
            "invalid_value",
            'fleet_kubernetes.autoscaler_namespace is "gpufleet-serving"',
            "up to 63 of a-z, 0-9 and '-', and not the namespace of the engines",
            "correct fleet_kubernetes.autoscaler_namespace",
        ),
        id="KEDA among the engines",
    ),
]


@pytest.mark.parametrize(("changes", "expected"), CASES)
def test_a_wrong_input_is_one_finding(changes: dict[str, Any], expected: tuple[str, ...]) -> None:
    """Word for word, and the plan holds nothing of it."""
    plan = planned(**changes)
    assert texts(plan) == [expected]
    Draft202012Validator(PLAN_SCHEMA).validate(plan)


def test_too_few_gpus_are_one_finding() -> None:
    """What is missing is not said a second time as a minimum that is too large."""
    assert [code for *__, code, _f, _w, _x in texts(planned({"minimum": 4}, replicas=9))] == ["not_enough_gpus"]


def test_the_rule() -> None:
    """Two hosts with three GPUs each: one on each host always runs, the others come by host."""
    found = scaled(planned({"minimum": 2, "waiting_requests": 5}, (3, 3), concurrency=8))
    assert found == {
        "minimum": 2,
        "waiting_requests": 5,
        "cool_down_seconds": 1800,
        "always": ["gpu-1/tiny-llama-0", "gpu-2/tiny-llama-0"],
        "asked": ["gpu-1/tiny-llama-0", "gpu-2/tiny-llama-0"],
        "elastic": [
            {"instance": "gpu-1/tiny-llama-1", "after": None, "starts_at": 3, "held_above": 5, "stands_in": True},
            {
                "instance": "gpu-1/tiny-llama-2",
                "after": "gpu-1/tiny-llama-1",
                "starts_at": 5,
                "held_above": 6,
                "stands_in": True,
            },
            {
                "instance": "gpu-2/tiny-llama-1",
                "after": "gpu-1/tiny-llama-2",
                "starts_at": 8,
                "held_above": 6,
                "stands_in": False,
            },
            {
                "instance": "gpu-2/tiny-llama-2",
                "after": "gpu-2/tiny-llama-1",
                "starts_at": 10,
                "held_above": 6,
                "stands_in": False,
            },
        ],
    }


@pytest.mark.parametrize(
    ("waiting", "always", "expected"),
    [(4, 1, [4, 8, 12, 16]), (8, 2, [4, 8, 12, 16]), (5, 2, [3, 5, 8, 10]), (1, 4, [1, 1, 1, 1])],
)
def test_an_engine_for_so_many_that_wait(waiting: int, always: int, expected: list[int]) -> None:
    """As many wait at each of those that always run."""
    assert [starts_at(waiting, always, place) for place in (1, 2, 3, 4)] == expected


@given(concurrency=st.integers(1, 500), running=st.integers(2, 200), load=st.integers(0, 20000))
def test_one_that_stops_leaves_no_one_waiting(concurrency: int, running: int, load: int) -> None:
    """Whatever the load: if it is low enough for one to stop, the others hold all of it, and none starts again."""
    largest_share = -(-load // running)
    if largest_share <= held_above(concurrency, running):
        assert -(-load // (running - 1)) <= concurrency


def test_instances_under_docker_always_run() -> None:
    """They take a part of the load, and are not asked: no pod reaches them."""
    found = scaled(planned({}, (2, 2), inside=["gpu-1"]))
    assert found["always"] == ["gpu-1/tiny-llama-0", "gpu-2/tiny-llama-0", "gpu-2/tiny-llama-1"]
    assert found["asked"] == ["gpu-1/tiny-llama-0"]
    assert [entry["instance"] for entry in found["elastic"]] == ["gpu-1/tiny-llama-1"]
    assert found["elastic"][0]["starts_at"] == 2


@given(counts=st.lists(st.integers(1, 4), min_size=1, max_size=6), minimum=st.integers(1, 6))
def test_never_more_than_planned(counts: list[int], minimum: int) -> None:
    """Each planned instance always runs or is elastic, none is both, and the first start at no deeper a queue."""
    plan = planned({"minimum": minimum}, tuple(counts))
    if sum(counts) <= minimum:
        assert [code for __, __, code, *__ in texts(plan)] == ["autoscaling_minimum_too_large"]
        return
    found = scaled(plan)
    elastic = [entry["instance"] for entry in found["elastic"]]
    everything = sorted(f"{item['host']}/{item['name']}" for item in plan["instances"])
    assert sorted([*found["always"], *elastic]) == everything
    assert len(found["always"]) == minimum
    assert set(found["asked"]) <= set(found["always"])
    assert 1 <= len(found["asked"]) <= 3
    for key in ("starts_at", "held_above"):
        values = [entry[key] for entry in found["elastic"]]
        assert values == sorted(values)
    # As many hosts as possible have one that always runs.
    assert len({name.split("/")[0] for name in found["always"]}) == min(minimum, len(counts))
    Draft202012Validator(PLAN_SCHEMA).validate(plan)


def test_a_host_that_joins_changes_nothing_of_the_others() -> None:
    """It comes last: whoever always ran does, and whoever started at a queue starts at that."""
    before, after = scaled(planned({"minimum": 2}, (2, 2))), scaled(planned({"minimum": 2}, (2, 2, 2)))
    assert after["always"] == before["always"]
    assert after["elastic"][: len(before["elastic"])] == before["elastic"]


def test_autoscaling_changes_no_instance() -> None:
    """Or every engine would be restarted when it is set."""
    with_it, without = planned({}), planned(None)
    assert with_it["instances"] == without["instances"]
    assert with_it["upstreams"] == without["upstreams"]
    assert with_it["flows"] == without["flows"]
    assert with_it["hosts"] == without["hosts"]
    assert without["models"]["tiny-llama"]["autoscaling"] is None


def test_a_reader_is_told() -> None:
    """In the table, at the end of the reason for the replicas."""
    assert "; 1 always, 3 when requests wait" in plan_as_table(planned({}))
    assert "when requests wait" not in plan_as_table(planned(None))


def test_a_gateway_need_not_find_an_elastic_engine() -> None:
    """A pod that is not there has no port of the host; who may not reach it may not either way."""
    plan = planned({}, (1, 1))
    assert elastic_ports(plan) == {("gpu-2", 8000)}
    seen = {target["name"]: target["expect"] for target in reachability_targets(plan, "gw-1")}
    assert (seen["gpu-1:8000"], seen.get("gpu-2:8000")) == ("open", None)
    seen = {target["name"]: target["expect"] for target in reachability_targets(plan, "gpu-1")}
    assert seen["gpu-2:8000"] == "filtered"
