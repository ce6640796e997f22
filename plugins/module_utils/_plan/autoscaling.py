# SPDX-License-Identifier: Apache-2.0
# PRIVATE to the collection: do not import this from outside, it may change without notice.
"""Which instances of a model always run, and when each of the others starts and stops.

The plan places them all, so what may run is bounded by it, and a start never waits for a GPU. docs/kubernetes.md
has the rule and its reasons.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from .engine_tls import is_mutual
from .findings import Finding, natural_key, some_of
from .reader import Reader
from .schema import Autoscaling, Engine, Fleet, Model

BACKEND = "kubernetes"
#: How many of the instances that always run are asked for each that does not: gateways give all of them alike, so a few
#: tell of all, and what is asked grows with the instances and not with their square.
ASKED = 3

_LONGEST_SECONDS = 7 * 86400


def read_autoscaling(model: Reader) -> Autoscaling | None:
    """Read ``autoscaling`` of an entry of ``fleet_models``; None where it is not set."""
    reader = model.child("autoscaling")
    if reader.absent or not reader.ok:
        model.ok = model.ok and reader.ok
        return None
    minimum = reader.integer("minimum", 1, 0)
    if minimum == 0:
        reader.report(
            "invalid_value",
            f"{reader.path}.minimum is 0",
            "1 or more: with none that runs the first requests fail, and no queue shows that they came",
            f"set {reader.path}.minimum to 1",
        )
    found = Autoscaling(
        minimum=minimum,
        waiting_requests=reader.integer("waiting_requests", Autoscaling.waiting_requests, 1, 100000),
        cool_down_seconds=reader.integer("cool_down_seconds", Autoscaling.cool_down_seconds, 60, _LONGEST_SECONDS),
    )
    reader.finish()
    model.ok = model.ok and reader.ok
    return found


def plan_autoscaling(
    fleet: Fleet, engine: Engine, instances: Sequence[Mapping[str, Any]], findings: list[Finding]
) -> dict[str, dict[str, Any]]:
    """Return, by model, what always runs and when the others do; models whose instances all run are not in it."""
    found = {}
    for model in fleet.models:
        wanted = model.autoscaling
        if wanted is None:
            continue
        mine = [instance for instance in instances if instance["model"] == model.name]
        faults = list(_faults(model, wanted, fleet, engine, mine))
        findings += faults
        inside = [instance for instance in mine if instance["backend"] == BACKEND]
        if not faults and len(inside) > wanted.minimum:
            found[model.name] = _document(model, wanted, mine, inside)
    return found


def _faults(
    model: Model, wanted: Autoscaling, fleet: Fleet, engine: Engine, mine: Sequence[Mapping[str, Any]]
) -> Iterator[Finding]:
    path = f"fleet_models[{model.name}].autoscaling"
    if is_mutual(engine):
        yield Finding(
            model.name,
            "autoscaling_mutual_tls",
            f"{path} is set, and fleet_engine.tls is mutual",
            "fleet_engine.tls none: to read the engines' queues KEDA would need a client's certificate in the cluster, "
            "with which whoever finds it could ask every engine",
            f"set fleet_engine.tls to none, or remove {path}",
            "model",
        )
    if model.pipeline_parallel_size > 1:
        yield Finding(
            model.name,
            "autoscaling_over_several_hosts",
            f"{path} is set, and pipeline_parallel_size is {model.pipeline_parallel_size}",
            "instances on one host: those over several are not scaled",
            f"remove {path}, or pipeline_parallel_size",
            "model",
        )
    inside = [instance for instance in mine if instance["backend"] == BACKEND]
    if fleet.cluster is None or (mine and not inside):
        hosts = sorted({instance["host"] for instance in mine}, key=natural_key)
        where = f"its instances run under Docker ({some_of(hosts, 3)})" if hosts else "the fleet has no cluster"
        yield Finding(
            model.name,
            "autoscaling_without_cluster",
            f"{path} is set, and {where}",
            "instances on hosts of kube_nodes: nothing starts and stops those of other hosts",
            f"add the hosts to kube_nodes, or remove {path}",
            "model",
        )
    # With fewer instances than are wanted there is a finding of its own.
    elif mine and len(mine) >= (model.replicas or 1) and len(inside) <= wanted.minimum:
        yield Finding(
            model.name,
            "autoscaling_minimum_too_large",
            f"{path}.minimum is {wanted.minimum}, and {len(inside)} of its instances are in the cluster",
            f"at most {len(inside) - 1}, so that there are others to start and stop"
            if len(inside) > 1
            else "at least 2 instances in the cluster: one that always runs, and another",
            f"lower {path}.minimum, raise replicas, or remove {path}"
            if len(inside) > 1
            else f"raise replicas, or remove {path}",
            "model",
        )


def _name(instance: Mapping[str, Any]) -> str:
    return f"{instance['host']}/{instance['name']}"


def _spread(instances: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Return instances so that the first ones are on as many hosts as there are; in that order hosts come by name."""
    seen: dict[str, int] = {}
    ranked: list[tuple[Any, ...]] = []
    for instance in instances:
        rank = seen.get(instance["host"], 0)
        seen[instance["host"]] = rank + 1
        ranked.append((rank, natural_key(instance["host"]), len(ranked), instance))
    return [instance for *__, instance in sorted(ranked, key=lambda item: item[:3])]


def _document(
    model: Model, wanted: Autoscaling, mine: Sequence[Mapping[str, Any]], inside: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    steady = _spread(inside)[: wanted.minimum]
    names = {_name(instance) for instance in steady}
    # By host, not spread: a host that joins comes last, and changes none of those before it.
    elastic = [instance for instance in inside if _name(instance) not in names]
    outside = [instance for instance in mine if instance["backend"] != BACKEND]
    always = sorted((_name(instance) for instance in (*steady, *outside)), key=natural_key)
    return {
        "minimum": wanted.minimum,
        "waiting_requests": wanted.waiting_requests,
        "cool_down_seconds": wanted.cool_down_seconds,
        "always": always,
        "asked": [_name(instance) for instance in steady[:ASKED]],
        "elastic": [
            {
                "instance": _name(instance),
                "after": _name(elastic[place - 2]) if place > 1 else None,
                "starts_at": starts_at(wanted.waiting_requests, len(always), place),
                "held_above": held_above(model.concurrency, len(always) + place),
                "stands_in": place <= wanted.minimum,
            }
            for place, instance in enumerate(elastic, 1)
        ],
    }


def starts_at(waiting_requests: int, always: int, place: int) -> int:
    """Return how many requests have to wait at one instance until the elastic one of this place, 1 the first, starts.

    One for each ``waiting_requests`` that wait at all ``always`` that always run, where gateways put as many at each.
    """
    return -(-waiting_requests * place // always)


def held_above(concurrency: int, running: int) -> int:
    """Return how many requests each of so many instances has at most, when one fewer would hold them all.

    Each holds ``concurrency`` of full length, by the plan. So when one stops, none has to wait, and none starts again.
    """
    return concurrency * (running - 1) // running


def shown_autoscaling(scaled: Mapping[str, Any] | None) -> str:
    """Return what a reader of the plan is told, as the end of a sentence."""
    if scaled is None:
        return ""
    return f"; {len(scaled['always'])} always, {len(scaled['elastic'])} when requests wait"


def elastic_ports(plan: Mapping[str, Any]) -> set[tuple[str, int]]:
    """Return (host, port) of the instances that need not run now."""
    names = {
        entry["instance"]
        for model in plan["models"].values()
        for entry in (model["autoscaling"] or {"elastic": ()})["elastic"]
    }
    return {(instance["host"], instance["port"]) for instance in plan["instances"] if _name(instance) in names}
