# SPDX-License-Identifier: Apache-2.0
# PRIVATE to the collection: do not import this from outside, it may change without notice.
"""What the cluster's objects need of the plan, read once and refused where a pod could not be what the plan says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ansible_collections.gpufleet.metal.plugins.module_utils._errors import InvalidInputError

#: What an instance's ``backend`` is that runs in a pod.
BACKEND = "kubernetes"


@dataclass(frozen=True)
class Place:
    """A node that has a part of an instance of another one."""

    host: str
    node_name: str
    taints: tuple[Mapping[str, Any], ...]


@dataclass(frozen=True)
class EngineNode:
    """A host that runs engines in pods, as the plan has it."""

    host: str
    node_name: str
    models_directory: str
    image: Mapping[str, Any]
    instances: tuple[Mapping[str, Any], ...]
    taints: tuple[Mapping[str, Any], ...]
    #: Directory on the host with what its engines answer over mutual TLS with; None without TLS.
    tls_directory: str | None
    #: Ports of the instances by the networks that may reach them; an empty tuple of networks stands for anybody.
    reach: Mapping[tuple[str, ...], tuple[int, ...]]
    #: The further nodes of those instances that have some, by the instance's name.
    workers: Mapping[str, tuple[Place, ...]] = field(default_factory=dict)


@dataclass(frozen=True)
class Elastic:
    """An engine that runs while requests wait, as the plan has it."""

    host: str
    instance: str
    model: str
    #: (host, instance, port) of the engines that it is started by.
    asked: tuple[tuple[str, str, int], ...]
    #: The same of the elastic one before it, and its own port.
    after: tuple[str, str, int] | None
    port: int
    starts_at: int
    #: What is enough once the one before it serves.
    next_at: int
    held_above: int
    stands_in: bool
    cool_down_seconds: int


@dataclass(frozen=True)
class ClusterFleet:
    """The cluster and its engines."""

    namespace: str
    nodes: tuple[EngineNode, ...]
    #: Where KEDA runs.
    autoscaler_namespace: str
    elastic: tuple[Elastic, ...]

    @property
    def read(self) -> list[tuple[str, str, int]]:
        """Return (host, instance, port) of the engines whose metrics somebody reads in order to scale, sorted.

        Of elastic ones all, also the last: a host that joins has the next, and changes nothing of other hosts.
        """
        asked = {place for item in self.elastic for place in item.asked}
        return sorted(asked | {(item.host, item.instance, item.port) for item in self.elastic})

    @property
    def accelerated(self) -> bool:
        """Return whether an engine of the cluster uses GPUs."""
        return any(instance["accelerator"] == "cuda" for node in self.nodes for instance in node.instances)


def read_fleet(plan: Mapping[str, Any]) -> ClusterFleet | None:
    """Return what the plan has in the cluster; None in a fleet without Kubernetes. Raises InvalidInputError."""
    try:
        cluster = plan["kubernetes"]
        if cluster is None:
            return None
        flows: dict[str, list[Mapping[str, Any]]] = {}
        for flow in plan["flows"]:
            flows.setdefault(flow["destination"], []).append(flow)
        nodes = tuple(
            _node(host, part, flows.get(host, ()), plan["hosts"])
            for host, part in plan["hosts"].items()
            if any(instance["backend"] == BACKEND for instance in part.get("instances", ()))
        )
        ports = {(node.host, instance["name"]): instance["port"] for node in nodes for instance in node.instances}
        elastic = tuple(item for name in sorted(plan["models"]) for item in _elastic(name, plan["models"][name], ports))
        return ClusterFleet(cluster["namespace"], nodes, cluster["autoscaler_namespace"], elastic)
    except (KeyError, TypeError, AttributeError) as fault:
        raise InvalidInputError(
            f"the plan is not as fleet_plan makes it ({type(fault).__name__}: {fault}); wanted a plan of this version "
            "of the collection: run the plan again"
        ) from fault


def _elastic(name: str, model: Mapping[str, Any], ports: Mapping[tuple[str, str], int]) -> list[Elastic]:
    """Return the engines of a model that do not always run."""
    scaled = model["autoscaling"]
    if scaled is None:
        return []

    def placed(engine: str) -> tuple[str, str, int]:
        host, __, instance = engine.partition("/")
        return host, instance, ports[host, instance]

    found = []
    for entry in scaled["elastic"]:
        host, instance, port = placed(entry["instance"])
        found.append(
            Elastic(
                host=host,
                instance=instance,
                model=name,
                asked=tuple(placed(engine) for engine in scaled["asked"]),
                after=placed(entry["after"]) if entry["after"] else None,
                port=port,
                starts_at=entry["starts_at"],
                next_at=scaled["elastic"][0]["starts_at"],
                held_above=entry["held_above"],
                stands_in=entry["stands_in"],
                cool_down_seconds=scaled["cool_down_seconds"],
            )
        )
    return found


def _node(
    host: str, part: Mapping[str, Any], flows: Sequence[Mapping[str, Any]], hosts: Mapping[str, Mapping[str, Any]]
) -> EngineNode:
    instances = tuple(instance for instance in part["instances"] if instance["backend"] == BACKEND)
    place = part["kubernetes"]
    if place is None:
        raise InvalidInputError(
            f"{host}: found an instance with backend {BACKEND} and no node, wanted a host of kube_nodes"
        )
    products = sorted({gpu["product"] for gpu in part["expected_gpus"] if gpu["mig"] is None})
    if len(products) > 1 and any(instance["accelerator"] == "cuda" for instance in instances):
        # The device plugin hands out any GPU of a node, not the one that the plan chose.
        raise InvalidInputError(
            f"{host}: found GPUs of several products ({', '.join(products)}), wanted one for engines in pods: "
            "nvidia.com/gpu does not tell them apart. Take the host out of kube_nodes"
        )
    if part["image"] is None:
        raise InvalidInputError(f"{host}: found no image, wanted fleet_engine.image")
    return EngineNode(
        host=host,
        node_name=place["node_name"],
        models_directory=part["models_directory"],
        image=part["image"],
        instances=instances,
        taints=tuple(place["taints"]),
        tls_directory=part["engine_tls"]["directory"] if part["engine_tls"]["mode"] == "mutual" else None,
        reach=_reach(part, instances, flows),
        workers={
            instance["name"]: tuple(_place(worker["host"], hosts[worker["host"]]) for worker in instance["workers"])
            for instance in instances
            if instance["workers"]
        },
    )


def _place(host: str, part: Mapping[str, Any]) -> Place:
    return Place(host, part["kubernetes"]["node_name"], tuple(part["kubernetes"]["taints"]))


def _reach(
    part: Mapping[str, Any], instances: Sequence[Mapping[str, Any]], flows: Sequence[Mapping[str, Any]]
) -> dict[tuple[str, ...], tuple[int, ...]]:
    """Return who reaches which ports of the host's engines: the plan's flows with the addresses that they stand for."""
    ports = {instance["port"] for instance in instances}
    found: dict[tuple[str, ...], set[int]] = {}
    for flow in flows:
        if flow["forwarded"] and flow["port"] in ports and flow["protocol"] == "tcp":
            sources = () if flow["source"] == "any" else tuple(part["firewall"]["sets"][flow["source"]])
            if flow["source"] != "any" and not sources:
                continue
            found.setdefault(sources, set()).add(flow["port"])
    return {sources: tuple(sorted(numbers)) for sources, numbers in found.items()}
