# SPDX-License-Identifier: Apache-2.0
# PRIVATE to the collection: do not import this from outside, it may change without notice.
"""What tells KEDA when an engine that does not always run is started and stopped.

One ScaledObject for each such engine, of 0 or 1 pods, because each is another Deployment on GPUs of its own. Whether it
is wanted is one formula (docs/kubernetes.md explains it) over the queues of a few engines that always run. Fields and
behaviour are those of KEDA 2.20.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ansible_collections.gpufleet.metal.plugins.module_utils._errors import InvalidInputError

from .engines import engine_name
from .fleet import ClusterFleet, Elastic, EngineNode
from .objects import ENGINE_LABEL, PLACE_LABEL, Object, labels, metadata, unique_name
from .settings import EngineSettings

API = "keda.sh/v1alpha1"
#: The pods of KEDA that read metrics, as its manifests and its chart label them.
OPERATOR_LABELS: Mapping[str, str] = {"app": "keda-operator"}
#: Gauges of vLLM. One series of each for an engine.
WAITING = "vllm:num_requests_waiting"
RUNNING = "vllm:num_requests_running"

_POLLING_SECONDS = 15
#: Unanswered questions in a row, until then nothing is started or stopped; later an engine is silent to the formula.
_FAILURES = 3
#: Of an engine that is silent nobody knows how much it has in hand: what runs goes on.
_ENDLESS = 1000000


def queue_service_name(host: str, instance: str) -> str:
    """Return the name of the Service at which an engine's metrics are read."""
    return unique_name("queue", host, instance)


def queue_service(host: str, node_name: str, instance: str, port: int, namespace: str) -> Object:
    """Return the Service by which an engine's pod has a name. It has no address: nothing is balanced."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": metadata(
            queue_service_name(host, instance), namespace, {**labels("vllm", "queue"), PLACE_LABEL: node_name}
        ),
        "spec": {
            "clusterIP": "None",
            "selector": {ENGINE_LABEL: engine_name(host, instance)},
            "ports": [{"name": "http", "protocol": "TCP", "port": port, "targetPort": "http"}],
        },
    }


def formula(item: Elastic) -> str:
    """Return what is 1 where the engine is wanted and else 0, in the language of KEDA's formulas (expr)."""
    numbers = range(len(item.asked))

    def waiting(at: int) -> str:
        return " || ".join(f"(waiting_{number} ?? 0) >= {at}" for number in numbers)

    wanted = [waiting(item.starts_at)]
    if item.after is not None:
        wanted.append(f"((before ?? -1) >= 0 && ({waiting(item.next_at)}))")
    if item.stands_in:
        wanted.append(f"({' ?? '.join(f'waiting_{number}' for number in numbers)} ?? -1) < 0")
    busy = [f"(waiting_{number} ?? 0) + (running_{number} ?? {_ENDLESS}) > {item.held_above}" for number in numbers]
    return f"({' || '.join(wanted)} || (started > 0 && ({' || '.join(busy)}))) ? 1 : 0"


def _gauge(name: str, place: tuple[str, str, int], namespace: str, gauge: str) -> Object:
    host, instance, port = place
    return {
        "type": "metrics-api",
        "name": name,
        "metadata": {
            "url": f"http://{queue_service_name(host, instance)}.{namespace}.svc:{port}/metrics",
            "format": "prometheus",
            "valueLocation": gauge,
            # Asked for, and without a meaning where a formula decides.
            "targetValue": "1",
        },
    }


def _triggers(item: Elastic, namespace: str) -> list[Object]:
    found = [
        _gauge(f"{word}_{number}", place, namespace, gauge)
        for number, place in enumerate(item.asked)
        for word, gauge in (("waiting", WAITING), ("running", RUNNING))
    ]
    if item.after is not None:
        # Only whether it answers counts: an engine that still starts takes nothing off the queue.
        found.append(_gauge("before", item.after, namespace, WAITING))
    # Whether it runs already: what keeps an engine is less than what starts one.
    own = {"podSelector": f"{ENGINE_LABEL}={engine_name(item.host, item.instance)}", "value": "1"}
    return [*found, {"type": "kubernetes-workload", "name": "started", "metadata": own}]


def scaled_object(item: Elastic, node_name: str, namespace: str) -> Object:
    """Return what scales one engine between 0 and 1."""
    name = engine_name(item.host, item.instance)
    return {
        "apiVersion": API,
        "kind": "ScaledObject",
        "metadata": metadata(name, namespace, {**labels("vllm", "autoscaling"), PLACE_LABEL: node_name}),
        "spec": {
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": name},
            "pollingInterval": _POLLING_SECONDS,
            "cooldownPeriod": item.cool_down_seconds,
            # Or an engine that ran when autoscaling was set would be stopped at once.
            "initialCooldownPeriod": item.cool_down_seconds,
            "minReplicaCount": 0,
            "maxReplicaCount": 1,
            # `replicas` above 0 keeps things as they are until the failures are enough, and is nowhere used: the
            # formula has an answer for silence.
            "fallback": {"failureThreshold": _FAILURES, "replicas": 1, "behavior": "scalingModifiers"},
            "advanced": {
                "scalingModifiers": {"formula": formula(item), "target": "1", "activationTarget": "0.5"},
            },
            "triggers": _triggers(item, namespace),
        },
    }


def autoscaling_objects(fleet: ClusterFleet, chosen: Sequence[EngineNode]) -> list[Object]:
    """Return the Services of these nodes' engines that are read, and what scales those that do not always run."""
    read = set(fleet.read)
    services = [
        queue_service(node.host, node.node_name, instance["name"], instance["port"], fleet.namespace)
        for node in chosen
        for instance in node.instances
        if (node.host, instance["name"], instance["port"]) in read
    ]
    places = {node.host: node.node_name for node in chosen}
    scaled = [scaled_object(item, places[item.host], fleet.namespace) for item in fleet.elastic if item.host in places]
    return [*services, *scaled]


def check_cool_down(elastic: Sequence[Elastic], settings: EngineSettings) -> None:
    """Raise InvalidInputError where an engine could be stopped before its start is over."""
    for item in elastic:
        if item.cool_down_seconds < settings.start_timeout_seconds:
            raise InvalidInputError(
                f"fleet_models[{item.model}].autoscaling.cool_down_seconds: found {item.cool_down_seconds}, wanted "
                f"vllm_start_timeout_seconds ({settings.start_timeout_seconds}) or more: an engine could be stopped "
                "before it has served. Raise the one, or lower the other to what a start takes"
            )
