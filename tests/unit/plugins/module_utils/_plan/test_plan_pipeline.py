# SPDX-License-Identifier: Apache-2.0
"""Instances over several hosts in the plan: where they are, what each host is told, what is refused, what stays."""

from __future__ import annotations

from typing import Any

import pytest
from jsonschema import Draft202012Validator

from ansible_collections.gpufleet.metal.plugins.module_utils._errors import InvalidInputError
from ansible_collections.gpufleet.metal.plugins.module_utils._plan.applied import applied_plan, read_applied
from ansible_collections.gpufleet.metal.plugins.module_utils._plan.builder import build_plan
from ansible_collections.gpufleet.metal.plugins.module_utils._plan.changes import plan_changes
from ansible_collections.gpufleet.metal.plugins.module_utils._plan.document import PLAN_SCHEMA
from ansible_collections.gpufleet.metal.plugins.module_utils._plan.picture import plan_as_svg
from ansible_collections.gpufleet.metal.plugins.module_utils._plan.table import plan_as_json, plan_as_table
from ansible_collections.gpufleet.metal.tests.unit.plugins.module_utils._plan.fleets import (
    gpus,
    groups,
    hosts,
    inventory,
    llama,
    texts,
    tiny,
    variables,
    with_cluster,
)

Plan = dict[str, Any]
LONG = {"context_length": 131072, "concurrency": 4}


def planned(*models: dict[str, Any], counts: tuple[Any, ...] = (2, 2, 2), inside: Any = None, **more: Any) -> Plan:
    """Return the plan of a cluster whose hosts have so many GPUs, or these records."""
    records = (gpus(count) if isinstance(count, int) else count for count in counts)
    machines = with_cluster(hosts(*records), workers=1)
    applied = more.pop("applied", None)
    return build_plan(inventory(variables(*models, **more), machines, groups=groups(machines, inside), applied=applied))


def places(result: Plan) -> list[list[tuple[str, list[int]]]]:
    """Return (host, GPUs) of each part of each instance."""
    assert texts(result) == []
    return [
        [
            (part["host"], [gpu["index"] for gpu in part["gpus"]])
            for part in (instance, *({"host": w["host"], "gpus": w["gpus"]} for w in instance["workers"]))
        ]
        for instance in result["instances"]
    ]


def applied(plan: Plan) -> dict[str, Any]:
    """Return what applied.json holds after a run; it went through its own file."""
    return read_applied(plan_as_json(applied_plan(plan, None, list(plan["hosts"]))), "applied.json")


def test_what_one_host_cannot_hold_is_on_several() -> None:
    result = planned(llama(pipeline_parallel_size=3, **LONG))
    assert places(result) == [[("gpu-1", [0, 1]), ("gpu-2", [0, 1]), ("gpu-3", [0, 1])]]
    model = result["models"]["llama"]
    assert (model["tensor_parallel_size"], model["pipeline_parallel_size"], model["gpus"]) == (2, 3, 6)
    assert model["memory"]["needed"] <= model["memory"]["budget"]
    assert ", 3 hosts an instance" in model["reason"]
    Draft202012Validator(PLAN_SCHEMA).validate(result)


def test_every_process_gets_the_same_arguments() -> None:
    (instance,) = planned(llama(pipeline_parallel_size=3, **LONG))["instances"]
    text = " ".join(instance["arguments"])
    assert "--tensor-parallel-size 2" in text
    assert "--pipeline-parallel-size 3 --nnodes 3 --distributed-executor-backend mp" in text
    assert not {"--node-rank", "--master-addr", "--headless"} & set(instance["arguments"])


def test_only_the_first_host_answers() -> None:
    result = planned(llama(pipeline_parallel_size=3, **LONG))
    (upstream,) = result["upstreams"]
    assert [server["name"] for server in upstream["servers"]] == ["gpu-1/llama-0"]
    assert {flow["destination"] for flow in result["flows"] if flow["port"] == 8000} == {"gpu-1"}
    assert [target["host"] for target in result["scrape_targets"]] == ["gpu-1"]


def test_the_other_hosts_get_the_model_and_their_gpus_are_looked_at() -> None:
    result = planned(llama(pipeline_parallel_size=2), counts=(2, 2))
    helper = result["hosts"]["gpu-2"]
    assert helper["instances"] == []
    assert [(part["host"], part["name"], len(part["gpus"])) for part in helper["worker_of"]] == [
        ("gpu-1", "llama-0", 2)
    ]
    assert [model["name"] for model in helper["models"]] == ["llama"]
    (asked,) = helper["gpu_requirements"]["instances"]
    assert (asked["name"], len(asked["gpus"]), asked["nvlink_required"]) == ("gpu-1/llama-0", 2, True)


def test_weights_count_all_gpus() -> None:
    result = planned(
        llama("a", pipeline_parallel_size=2, tensor_parallel_size=2), tiny("b", replicas=1), counts=(4, 2, 2)
    )
    assert texts(result) == []
    assert result["models"]["a"]["gpus"] == 8 - result["models"]["b"]["gpus"] - _free(result)


def _free(result: Plan) -> int:
    used = sum(len(i["gpus"]) + sum(len(w["gpus"]) for w in i["workers"]) for i in result["instances"])
    return sum(len(part.get("expected_gpus", ())) for part in result["hosts"].values()) - used


def test_no_gpu_is_given_twice_and_small_models_take_what_is_left() -> None:
    result = planned(llama(pipeline_parallel_size=2, replicas=1), tiny(tensor_parallel_size=1), counts=(4, 3, 2))
    assert texts(result) == []
    parts = [
        (part["host"], gpu["index"])
        for instance in result["instances"]
        for part in ({"host": instance["host"], "gpus": instance["gpus"]}, *instance["workers"])
        for gpu in part["gpus"]
    ]
    assert len(parts) == len(set(parts)) == 9


def test_hosts_outside_the_cluster_are_not_used() -> None:
    result = planned(llama(pipeline_parallel_size=2), counts=(2, 2, 2), inside=["gpu-2", "gpu-3"])
    assert places(result) == [[("gpu-2", [0, 1]), ("gpu-3", [0, 1])]]


def test_it_stays_where_it_runs() -> None:
    model = llama(pipeline_parallel_size=2, replicas=1)
    before = planned(model, counts=(2, 2))
    after = planned(model, counts=(2, 2, 8), applied=applied(before))
    assert places(after) == places(before)
    assert plan_changes(after, applied(before)).changes == ()


def test_it_moves_when_one_of_its_hosts_is_gone() -> None:
    model = llama(pipeline_parallel_size=2, replicas=1)
    before = planned(model, counts=(2, 2, 2))
    assert places(before) == [[("gpu-1", [0, 1]), ("gpu-2", [0, 1])]]
    after = planned(model, counts=(2, gpus(2, "L40S"), 2), applied=applied(before))
    assert places(after) == [[("gpu-1", [0, 1]), ("gpu-3", [0, 1])]]
    (change,) = plan_changes(after, applied(before)).changes
    assert (change.change, change.instance, change.before) == ("moved", "gpu-1/llama-0", "gpu-1/llama-0")
    assert change.why == "GPU 0-1 and gpu-2 GPU 0-1 -> GPU 0-1 and gpu-3 GPU 0-1"


def test_all_is_planned_anew_where_it_has_no_room_otherwise() -> None:
    small = tiny("a", tensor_parallel_size=1, replicas=1)
    before = planned(small, counts=(2, 2))
    after = planned(small, llama("b", pipeline_parallel_size=2, replicas=1), counts=(2, 2, 1), applied=applied(before))
    assert places(after) == [[("gpu-1", [0, 1]), ("gpu-2", [0, 1])], [("gpu-3", [0])]]


@pytest.mark.parametrize("workers", [3, [{"host": 3, "gpus": []}], [{"host": "a", "gpus": [{}]}]])
def test_a_broken_record_is_named(workers: Any) -> None:
    record = applied(planned(llama(pipeline_parallel_size=2), counts=(2, 2)))
    record["hosts"]["gpu-1"]["instances"][0]["workers"] = workers
    with pytest.raises(InvalidInputError, match=r"hosts\.gpu-1\.instances\[0\]\.workers: .*, wanted a list of hosts"):
        read_applied(plan_as_json(record), "applied.json")


def test_the_table_and_the_picture_show_every_host() -> None:
    result = planned(llama(pipeline_parallel_size=2), counts=(2, 2))
    table = plan_as_table(result)
    assert "4 GPUs (4 in use, 0 free)" in table
    assert "2 x 2" in table
    (row,) = (line for line in table.splitlines() if line.startswith("gpu-2"))
    assert row.split()[:5] == ["gpu-2", "0-1", "llama", "of", "gpu-1/llama-0"]
    assert "of gpu-1/llama-0 on GPU 0-1: one NVLink domain" in plan_as_svg(result)


REFUSED = [
    pytest.param(
        {"pipeline_parallel_size": 4},
        {},
        (
            "pipeline_parallel_size_too_large",
            "pipeline_parallel_size is 4",
            "at most 3, the most hosts of kube_nodes with GPUs of one kind",
            "lower pipeline_parallel_size, or add GPU nodes to kube_nodes",
        ),
        id="more hosts than there are",
    ),
    pytest.param(
        {"pipeline_parallel_size": 2},
        {"inside": ["worker-1"]},
        (
            "pipeline_parallel_size_too_large",
            "pipeline_parallel_size is 2",
            "1: no GPU node is in kube_nodes, and only there an instance can be on several hosts",
            "lower pipeline_parallel_size, or add GPU nodes to kube_nodes",
        ),
        id="engines under Docker",
    ),
    pytest.param(
        {"pipeline_parallel_size": 2, "tensor_parallel_size": 4},
        {"counts": (4, 2, 2)},
        (
            "tensor_parallel_size_too_large",
            "tensor_parallel_size is 4",
            "at most 2, the most GPUs of one kind in each of 2 hosts",
            "lower tensor_parallel_size, or set it to auto",
        ),
        id="not so many GPUs on each",
    ),
    pytest.param(
        {"pipeline_parallel_size": 2, "arguments": {"distributed_executor_backend": "ray"}},
        {},
        (
            "invalid_argument",
            'arguments.distributed_executor_backend is "ray", and pipeline_parallel_size is 2',
            "mp: the hosts of an instance find each other without Ray",
            "remove arguments.distributed_executor_backend",
        ),
        id="Ray",
    ),
    pytest.param(
        {"pipeline_parallel_size": 2, "arguments": {"api-server-count": 2}},
        {},
        (
            "invalid_argument",
            "arguments.api-server-count is 2, and pipeline_parallel_size is 2",
            "none: the processes of the further hosts have no API server, and refuse the option",
            "remove arguments.api-server-count",
        ),
        id="API servers",
    ),
    pytest.param(
        {"arguments": {"nnodes": 2}},
        {},
        (
            "owned_argument",
            "arguments.nnodes",
            "fleet_models[].pipeline_parallel_size",
            "remove arguments.nnodes; use fleet_models[].pipeline_parallel_size",
        ),
        id="the plan's own argument",
    ),
    pytest.param(
        {"pipeline_parallel_size": 2, "replicas": 2},
        {},
        (
            "not_enough_gpus",
            "room for 1 of 2 instances; GPUs in use: llama 4; free GPUs: gpu-3 0000:10:00.0, 0000:20:00.0",
            "2 GPUs of one kind in each of 2 hosts of kube_nodes, for each, not shared with another instance",
            "lower replicas of this or another model, lower tensor_parallel_size, or add GPU nodes",
        ),
        id="no room for another",
    ),
]


@pytest.mark.parametrize(("changes", "fleet", "wanted"), REFUSED)
def test_finding(changes: dict[str, Any], fleet: dict[str, Any], wanted: tuple[str, ...]) -> None:
    assert texts(planned(llama(**{"tensor_parallel_size": 2, **changes}), **fleet)) == [("model", "llama", *wanted)]


def test_more_stages_than_layers() -> None:
    found = texts(planned(tiny(pipeline_parallel_size=3)))
    assert [(item[2], item[4]) for item in found] == [
        ("pipeline_parallel_size_too_large", "at most 2, the layers of the model: each host holds some of them")
    ]


def test_what_does_not_fit_names_the_number_of_hosts() -> None:
    (found,) = texts(planned(llama(pipeline_parallel_size=2, concurrency=64, context_length=131072)))
    assert found[2] == "does_not_fit"
    assert "raise pipeline_parallel_size (now 2)" in found[5]


def test_such_instances_are_not_scaled() -> None:
    found = texts(planned(llama(pipeline_parallel_size=2, autoscaling={"minimum": 1}), counts=(2, 2, 2, 2)))
    assert [item[2] for item in found] == ["autoscaling_over_several_hosts"]
