# SPDX-License-Identifier: Apache-2.0
"""Elastic engines in the cluster: their objects, what a formula says of a load, and what is wrong with a ScaledObject.

No KEDA runs here. The fields are those of KEDA 2.20; `scaling.py` evaluates the formulas.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest

from ansible_collections.gpufleet.metal.plugins.module_utils._errors import InvalidInputError
from ansible_collections.gpufleet.metal.plugins.module_utils._kubernetes.checks import check_objects
from ansible_collections.gpufleet.metal.tests.unit.plugins.module_utils._kubernetes.plans import (
    autoscaled,
    of_kind,
    plan,
    rendered,
)
from ansible_collections.gpufleet.metal.tests.unit.plugins.module_utils._kubernetes.scaling import (
    Simulation,
    evaluated,
    formula_of,
)

SILENT: dict[str, float | None] = {"waiting_0": None, "running_0": None}


def test_a_fleet_without_it_has_nothing_of_it() -> None:
    objects = rendered()
    assert of_kind(objects, "ScaledObject") == of_kind(objects, "Service") == []
    assert {item["spec"]["replicas"] for item in of_kind(objects, "Deployment")} == {1}
    assert "autoscaler-to-engines" not in {item["metadata"]["name"] for item in objects}


def test_only_the_count_of_pods_is_left_to_keda() -> None:
    """No pod is another one, so that autoscaling can be set without a restart."""
    before, after = of_kind(rendered(), "Deployment"), of_kind(rendered(autoscaled(plan())), "Deployment")
    assert ["replicas" in item["spec"] for item in after] == [True, False, False, False]
    for one, other in zip(before, after, strict=True):
        assert {**one["spec"], "replicas": None} == {**other["spec"], "replicas": None}
        assert one["metadata"] == other["metadata"]


def test_each_elastic_engine_has_one_that_scales_it_between_0_and_1() -> None:
    objects = rendered(autoscaled(plan()))
    scaled = of_kind(objects, "ScaledObject")
    free = [item["metadata"]["name"] for item in of_kind(objects, "Deployment") if "replicas" not in item["spec"]]
    assert [item["spec"]["scaleTargetRef"]["name"] for item in scaled] == free
    for item in scaled:
        assert (item["spec"]["minReplicaCount"], item["spec"]["maxReplicaCount"]) == (0, 1)
        assert item["metadata"]["labels"]["gpufleet.metal/node"] in ("gpu-1", "gpu-2")


def test_the_asked_engines_have_a_name_and_let_keda_in() -> None:
    objects = rendered(autoscaled(plan()))
    # With one that always runs and three others all four are read: each of the others by the one after it.
    engines = [item["metadata"]["name"] for item in of_kind(objects, "Deployment")]
    services = of_kind(objects, "Service")
    assert [item["spec"]["selector"] for item in services] == [{"gpufleet.metal/engine": name} for name in engines]
    assert {item["spec"]["clusterIP"] for item in services} == {"None"}
    policy = next(item for item in objects if item["metadata"]["name"] == "autoscaler-to-engines")["spec"]
    assert policy["podSelector"]["matchExpressions"][0]["values"] == sorted(engines)
    assert policy["ingress"] == [
        {
            "from": [
                {
                    "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "keda"}},
                    "podSelector": {"matchLabels": {"app": "keda-operator"}},
                }
            ],
            "ports": [{"protocol": "TCP", "port": 8000}, {"protocol": "TCP", "port": 8002}],
        }
    ]


def test_a_host_is_rendered_alone() -> None:
    """What starts its engines may be another host's queue, whose Service that host brings."""
    made = autoscaled(plan())
    objects = rendered(made, parts=["engines"], hosts=["gpu-2"])
    assert len(of_kind(objects, "ScaledObject")) == len(of_kind(objects, "Service")) == 2
    trigger = of_kind(objects, "ScaledObject")[0]["spec"]["triggers"][0]
    assert trigger["metadata"]["url"].startswith("http://queue-gpu-1-llama-3-3-70b-instruct-0-")


def test_a_cool_down_is_longer_than_a_start() -> None:
    made = autoscaled(plan(), cool_down_seconds=600)
    message = (
        r"^fleet_models\[llama-3\.3-70b-instruct\]\.autoscaling\.cool_down_seconds: found 600, wanted "
        r"vllm_start_timeout_seconds \(1800\) or more: an engine could be stopped before it has served\. Raise the "
        r"one, or lower the other to what a start takes$"
    )
    with pytest.raises(InvalidInputError, match=message):
        rendered(made)
    assert rendered(made, settings={"start_timeout_seconds": 600})
    # The options of the role vllm are not there where the rest of the cluster is made.
    assert rendered(made, parts=["namespace", "policies"])
    assert rendered(made, parts=["engines"], hosts=["gateway-1"])


#: (readings, whether the first elastic engine is wanted, whether the second is). They start at 4 and 8 and are held
#: above 2 and 3, of one engine that is asked; the first stands in for it. ``before`` is None while the first is not
#: serving.
IDLE: dict[str, float | None] = {"waiting_0": 0, "running_0": 0, "started": 0, "before": None}
TABLE: list[tuple[str, dict[str, float | None], int, int]] = [
    ("nothing to do", {}, 0, 0),
    ("busy, and none waits", {"running_0": 50}, 0, 0),
    ("three wait", {"waiting_0": 3, "running_0": 50}, 0, 0),
    ("four wait", {"waiting_0": 4, "running_0": 50}, 1, 0),
    ("four wait, and the first serves", {"waiting_0": 4, "running_0": 50, "before": 0}, 1, 1),
    ("three wait, and the first serves", {"waiting_0": 3, "running_0": 50, "before": 9}, 0, 0),
    ("seven wait", {"waiting_0": 7, "running_0": 50}, 1, 0),
    ("eight wait", {"waiting_0": 8, "running_0": 50}, 1, 1),
    ("started, and much to do", {"running_0": 4, "started": 1}, 1, 1),
    ("started, and as much as two hold", {"running_0": 3, "started": 1}, 1, 0),
    ("started, and as much as one holds", {"running_0": 2, "started": 1}, 0, 0),
    ("what waits is in hand, too", {"waiting_0": 1, "running_0": 2, "started": 1}, 1, 0),
    ("no answer, and not started", SILENT, 1, 0),
    ("no answer, and started", {**SILENT, "started": 1}, 1, 1),
    ("half an answer", {"running_0": None, "started": 1}, 1, 1),
]


@pytest.mark.parametrize(("readings", "first", "second"), [case[1:] for case in TABLE], ids=[case[0] for case in TABLE])
def test_when_an_engine_is_wanted(readings: dict[str, float | None], first: int, second: int) -> None:
    made = autoscaled(plan(hosts=1, instances=3, gpus=1), concurrency=5)
    scaled = of_kind(rendered(made), "ScaledObject")
    assert [evaluated(formula_of(item), {**IDLE, **readings}) for item in scaled] == [first, second]


def test_one_of_several_that_are_asked_is_enough() -> None:
    """The longest queue starts, the fullest engine holds, and only if none answers one stands in."""
    (item, *__) = of_kind(rendered(autoscaled(plan(hosts=2), minimum=2)), "ScaledObject")
    idle: dict[str, float | None] = {"waiting_0": 0, "running_0": 0, "waiting_1": 0, "running_1": 0, "started": 0}
    assert evaluated(formula_of(item), idle) == 0
    assert evaluated(formula_of(item), {**idle, "waiting_1": 2}) == 1
    assert evaluated(formula_of(item), {**idle, "waiting_0": None, "running_0": None}) == 0
    assert evaluated(formula_of(item), {**idle, "waiting_0": None, "running_0": None, "started": 1}) == 1
    assert evaluated(formula_of(item), {key: None for key in idle if key != "started"} | {"started": 0}) == 1


# ---------------------------------------------------------------------------------------------------- under a load


def simulated(capacity: int = 5, start: float = 240, instances: int = 6, **options: Any) -> Simulation:
    """Return engines of one host, one of them always running, with a load that a test sets."""
    made = autoscaled(plan(hosts=1, instances=instances, gpus=1), concurrency=5, **options)
    return Simulation.of(of_kind(rendered(made), "ScaledObject"), 1, 1, capacity, start)


@pytest.mark.parametrize("load", [0, 1, 5, 6, 8, 9, 12, 15, 20, 25, 29, 30, 31, 60])
@pytest.mark.parametrize("capacity", [5, 9])
def test_a_load_that_stays_starts_nothing_twice(load: int, capacity: int) -> None:
    """For a day: once what is needed runs, no engine stops and starts again, whatever the load is."""
    fleet = simulated(capacity)
    fleet.run(load, 6 * 3600)
    settled, started = fleet.history[-1], fleet.starts
    fleet.run(load, 18 * 3600)
    assert fleet.starts == started
    assert set(fleet.history[-240:]) == {settled}
    assert max(fleet.history) <= 5
    # All run, or fewer than four wait at the one that is asked, which has the rest of the division.
    assert settled == 5 or -(-load // (settled + 1)) - capacity < 4


def test_a_load_that_grows_starts_one_after_the_other_and_a_low_one_stops_all() -> None:
    fleet = simulated()
    seen = []
    for load in (5, 9, 13, 18, 27, 100, 5, 2):
        fleet.run(load, 4 * 3600)
        seen.append(fleet.history[-1])
    assert seen == [0, 1, 1, 2, 3, 5, 0, 0]
    assert fleet.starts == max(fleet.history) == 5


def test_a_deep_queue_does_not_wait_for_one_after_the_other() -> None:
    fleet = simulated()
    fleet.run(5 + 12, 60)
    assert fleet.history[-1] == 3
    fleet.run(5 + 12, 4 * 3600)
    assert fleet.starts == 3


def test_a_burst_that_ends_before_an_engine_is_ready_starts_it_once() -> None:
    """It is not stopped while it starts, and serves the next burst."""
    fleet = simulated(start=600)
    for __ in range(12):
        fleet.run(12, 120)
        fleet.run(0, 1200)
    assert fleet.starts == max(fleet.history) == 1


# --------------------------------------------------------------------------------------- what is wrong with an object


def scaled_object(objects: list[dict[str, Any]]) -> dict[str, Any]:
    return of_kind(objects, "ScaledObject")[0]


def deployment(objects: list[dict[str, Any]]) -> dict[str, Any]:
    name = scaled_object(objects)["metadata"]["name"]
    return next(item for item in of_kind(objects, "Deployment") if item["metadata"]["name"] == name)


def changed(path: str, value: Any) -> Callable[[list[dict[str, Any]]], None]:
    """Return what sets a field of the first ScaledObject's spec."""

    def change(objects: list[dict[str, Any]]) -> None:
        *steps, last = path.split(".")
        place: Any = scaled_object(objects)["spec"]
        for step in steps:
            place = place[int(step)] if isinstance(place, list) else place[step]
        place[last] = value

    return change


def twice(objects: list[dict[str, Any]]) -> None:
    again = copy.deepcopy(scaled_object(objects))
    again["metadata"]["name"] = "zz"
    objects.append(again)


FORMULA = "advanced.scalingModifiers.formula"
URL = "triggers.0.metadata.url"
NOBODY = "queue-x.gpufleet-serving.svc"
FAULTS: list[Any] = [
    ("spec.surprise", changed("surprise", 1), "found a field that is not known here, wanted one of advanced,"),
    ("spec.minReplicaCount", changed("minReplicaCount", 2), "found 2, wanted at most maxReplicaCount, 1"),
    ("spec.maxReplicaCount", changed("maxReplicaCount", 0), "found 0, wanted a whole number, 1 or more"),
    ("spec.cooldownPeriod", changed("cooldownPeriod", "1800"), "found '1800', wanted a whole number, 0 or more"),
    ("spec.pollingInterval", changed("pollingInterval", True), "found True, wanted a whole number, 1 or more"),
    ("spec.fallback.replicas", changed("fallback.replicas", -1), "found -1, wanted a whole number, 0 or more"),
    (
        "spec.fallback.behavior",
        changed("fallback.behavior", "static"),
        "found 'static', wanted scalingModifiers: the formula says what silence means",
    ),
    ("spec.fallback", changed("fallback", 3), "found 3, wanted a mapping"),
    (
        "spec.scaleTargetRef",
        changed("scaleTargetRef.kind", "StatefulSet"),
        "wanted apiVersion apps/v1, kind Deployment",
    ),
    (
        "spec.scaleTargetRef.name",
        changed("scaleTargetRef.name", "nobody"),
        "found nobody, wanted a Deployment among the objects of gpufleet-serving",
    ),
    (
        "spec.scaleTargetRef.name",
        lambda objects: deployment(objects)["spec"].update(replicas=1),
        "whose spec.replicas is 1, wanted a Deployment without spec.replicas: each apply would take back what KEDA",
    ),
    ("spec.scaleTargetRef.name", twice, "wanted one ScaledObject for a Deployment"),
    ("spec.triggers", changed("triggers", []), "found none, wanted at least one trigger"),
    ("spec.triggers.0.type", changed("triggers.0.type", "cron"), "wanted one of kubernetes-workload, metrics-api"),
    ("spec.triggers.0.name", changed("triggers.0.name", "Waiting-0"), "wanted a name that a formula can have"),
    (
        "spec.triggers.1.name",
        changed("triggers.1.name", "waiting_0"),
        "found waiting_0 twice, wanted every trigger once",
    ),
    ("spec.triggers.0.metadata.targetValue", changed("triggers.0.metadata.targetValue", 1), "found 1, wanted a text"),
    ("spec.triggers.0.metadata.extra", changed("triggers.0.metadata.extra", "x"), "a field that is not known here"),
    (
        "spec.triggers.0.metadata.valueLocation",
        changed("triggers.0.metadata.format", "json"),
        "in the format prometheus",
    ),
    (URL.join(("spec.", "")), changed(URL, "https://elsewhere/metrics"), "SERVICE.gpufleet-serving.svc:PORT/metrics"),
    (
        URL.join(("spec.", "")),
        changed(URL, f"http://{NOBODY}:8000/metrics"),
        "wanted a Service among the objects of gpufleet-serving",
    ),
    (
        "spec.triggers.2.metadata.podSelector",
        changed("triggers.2.metadata.podSelector", "app=nobody"),
        "found app=nobody, wanted key=value, a label of a pod among the objects",
    ),
    (f"spec.{FORMULA}", changed(FORMULA, "waiting_0 + running_0 + started + (1"), "parentheses that close"),
    (
        f"spec.{FORMULA}",
        changed(FORMULA, "waiting_0 + running_0 + started + other"),
        "found other, which is no trigger",
    ),
    (f"spec.{FORMULA}", changed(FORMULA, "waiting_0 + started"), "found nothing of running_0, wanted every trigger"),
    (
        "spec.advanced.scalingModifiers.target",
        changed("advanced.scalingModifiers.target", "0"),
        "found '0', wanted a whole number above 0, as a text",
    ),
    (
        "spec.advanced.scalingModifiers.activationTarget",
        changed("advanced.scalingModifiers.activationTarget", 0.5),
        "found 0.5, wanted a number, as a text",
    ),
]


@pytest.mark.parametrize(("path", "change", "message"), FAULTS, ids=[f"{n}-{case[0]}" for n, case in enumerate(FAULTS)])
def test_a_fault_is_named(path: str, change: Callable[[list[dict[str, Any]]], None], message: str) -> None:
    objects = rendered(autoscaled(plan(hosts=1)))
    assert check_objects(objects) == []
    change(objects)
    faults = check_objects(objects)
    assert any(f": {path}: " in fault and message in fault for fault in faults), faults


def test_a_port_that_the_service_does_not_have() -> None:
    objects = rendered(autoscaled(plan(hosts=1)))
    trigger = scaled_object(objects)["spec"]["triggers"][0]["metadata"]
    trigger["url"] = trigger["url"].replace(":8000/", ":8001/")
    (fault,) = check_objects(objects)
    assert fault.endswith(": 8000")
