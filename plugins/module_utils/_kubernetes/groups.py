# SPDX-License-Identifier: Apache-2.0
# PRIVATE to the collection: do not import this from outside, it may change without notice.
"""One LeaderWorkerSet for each planned instance that is on several hosts: its processes start and end as one.

vLLM's processes of several hosts find each other without Ray (``--nnodes``), and one that has lost the others stays
where it is: that is why all of them go when one goes. The controller is that of kubernetes-sigs/lws; names of pods, of
their claims and of what it puts into their environment are those of its release 0.9.

Which pod is on which host is the plan's: the controller names pods by their number, so does a StatefulSet their claims,
and each claim has one directory of one host, where its pod has to go.
"""

from __future__ import annotations

import posixpath
from collections.abc import Mapping, Sequence
from typing import Any

from .engines import (
    CACHE_MOUNT,
    COMPONENT,
    MODELS_MOUNT,
    PROBE_FILE,
    PROBE_MOUNT,
    checksums,
    container,
    description,
    engine_name,
    grace_seconds,
    passing_volumes,
    pod,
    process,
    tls_volumes,
)
from .fleet import EngineNode, Place
from .objects import (
    DEPLOYMENT_NAME_LENGTH,
    ENGINE_LABEL,
    HOSTNAME_LABEL,
    PLACE_LABEL,
    Object,
    labels,
    metadata,
    unique_name,
)
from .settings import EngineSettings
from .storage import claim_template, claimed

API = "leaderworkerset.x-k8s.io/v1"
KIND = "LeaderWorkerSet"
#: What pods with the further processes are, beside COMPONENT for the one that answers.
WORKER = "engine-worker"
#: The controller's label of all pods of a set.
SET_LABEL = "leaderworkerset.sigs.k8s.io/name"

_ADDRESS = "VLLM_HOST_IP"
#: Only the cluster's DNS, which knows the first pod by its name, is asked besides.
_DNS_NAMESPACE, _DNS_LABELS = "kube-system", {"k8s-app": "kube-dns"}
#: Longer than the process that answers may take: it is what the others wait for.
_MARGIN_SECONDS = 10


def group_name(node: EngineNode, instance: Mapping[str, Any], settings: EngineSettings) -> str:
    """Return the name of an instance's set.

    What a set claims can't be changed: with other hosts or other directories it is another one.
    """
    hosts = [place.host for place in node.workers[instance["name"]]]
    paths = [path for __, __, path in _directories(node, node.host, instance, settings)]
    return unique_name("vllm", node.host, instance["name"], *hosts, *paths, limit=DEPLOYMENT_NAME_LENGTH)


def worker_cache(instance: str, host: str) -> str:
    """Return the name of the directory in which a further host of an instance keeps its cache."""
    return f"{host}--{instance}"


def _directories(
    node: EngineNode, host: str, instance: Mapping[str, Any], settings: EngineSettings
) -> list[tuple[str, str, str]]:
    """Return (purpose, place in the container, directory) of what each pod has of its host."""
    found = [("models", MODELS_MOUNT, node.models_directory)]
    if settings.cache == "host":
        name = instance["name"] if host == node.host else worker_cache(instance["name"], node.host)
        found.append(("cache", CACHE_MOUNT, posixpath.join(settings.cache_directory, name)))
    return found


def _claims(
    node: EngineNode, instance: Mapping[str, Any], settings: EngineSettings, namespace: str, name: str
) -> list[Object]:
    """Return the volumes of all pods' directories, and the claims that their StatefulSets will look for."""
    first = (f"{name}-0", node.host, node.node_name)
    others = enumerate(node.workers[instance["name"]], 1)
    pods = [first, *((f"{name}-0-{number}", place.host, place.node_name) for number, place in others)]
    found = []
    for pod_name, host, node_name in pods:
        for purpose, __, path in _directories(node, host, instance, settings):
            claim = f"{purpose}-{pod_name}"
            # They belong to the instance, wherever they are.
            marks = {**labels("vllm", purpose), PLACE_LABEL: node.node_name}
            found += claimed(unique_name(purpose, host, path, claim), claim, marks, node_name, path, namespace)
    return found


def _first(node: EngineNode, instance: Mapping[str, Any], settings: EngineSettings, mounts: list[Object]) -> Object:
    found = container(node, instance, settings, mounts)
    # Its own address needs nobody to look it up.
    own = ["--node-rank", "0", "--master-addr", f"$({_ADDRESS})"]
    return {**found, "args": [*found["args"], *own], "env": [*found["env"], _own_address()]}


def _further(node: EngineNode, instance: Mapping[str, Any], settings: EngineSettings, mounts: list[Object]) -> Object:
    found = process(node, instance, settings, mounts)
    own = ["--headless", "--node-rank", "$(LWS_WORKER_INDEX)", "--master-addr", "$(LWS_LEADER_ADDRESS)"]
    wait = [
        *settings.probe_python,
        posixpath.join(PROBE_MOUNT, PROBE_FILE),
        "outlast",
        "--address-variable",
        "LWS_LEADER_ADDRESS",
        "--port",
        str(instance["port"]),
        "--seconds",
        str(grace_seconds(instance, settings)),
    ]
    return {
        **found,
        "args": [*found["args"], *own],
        "env": [*found["env"], _own_address()],
        # All pods are told to end at once, and what the first one has in hand needs the others to the last token.
        "lifecycle": {"preStop": {"exec": {"command": wait}}},
    }


def _own_address() -> Object:
    return {"name": _ADDRESS, "valueFrom": {"fieldRef": {"apiVersion": "v1", "fieldPath": "status.podIP"}}}


def _mount(purpose: str, place: str) -> Object:
    return {"name": purpose, "mountPath": place, **({"readOnly": True} if purpose == "models" else {})}


def leader_worker_set(
    node: EngineNode,
    instance: Mapping[str, Any],
    settings: EngineSettings,
    namespace: str,
    config: Sequence[Object],
) -> Object:
    """Return the set of an instance; ``config``: the ConfigMaps and Secrets that its pods read."""
    name = group_name(node, instance, settings)
    engine = {ENGINE_LABEL: engine_name(node.host, instance["name"])}
    places = node.workers[instance["name"]]
    described = description(node, instance)
    annotations = {**described, **checksums(node, instance, config)}
    directories = _directories(node, node.host, instance, settings)
    mounts = [_mount(purpose, place) for purpose, place, __ in directories]
    passing = passing_volumes(instance, settings)
    secured = tls_volumes(node, settings)
    grace = grace_seconds(instance, settings)
    return {
        "apiVersion": API,
        "kind": KIND,
        "metadata": metadata(
            name,
            namespace,
            {**labels("vllm", COMPONENT), **engine, PLACE_LABEL: node.node_name},
            described,
        ),
        "spec": {
            "replicas": 1,
            # Nobody is ready alone.
            "startupPolicy": "LeaderCreated",
            "networkConfig": {"subdomainPolicy": "Shared"},
            # The old pods go first: no GPU, no port and no cache is there twice.
            "rolloutStrategy": {
                "type": "RollingUpdate",
                "rollingUpdateConfiguration": {"maxUnavailable": 1, "maxSurge": 0},
            },
            "leaderWorkerTemplate": {
                "size": len(places) + 1,
                "restartPolicy": "RecreateGroupOnPodRestart",
                "leaderTemplate": {
                    "metadata": {
                        "labels": {**labels("vllm", COMPONENT), **engine},
                        "annotations": annotations,
                    },
                    "spec": {
                        "nodeSelector": {HOSTNAME_LABEL: node.node_name},
                        **pod(settings, node.taints),
                        "dnsPolicy": "Default",
                        "terminationGracePeriodSeconds": grace,
                        "containers": [
                            _first(
                                node,
                                instance,
                                settings,
                                [*mounts, *(mount for __, mount in (*secured, *passing))],
                            )
                        ],
                        "volumes": [volume for volume, __ in (*secured, *passing)],
                    },
                },
                "workerTemplate": {
                    "metadata": {"labels": {**labels("vllm", WORKER), **engine}, "annotations": annotations},
                    "spec": {
                        "affinity": _on(places),
                        **pod(settings, _taints(places)),
                        "dnsPolicy": "ClusterFirst",
                        "terminationGracePeriodSeconds": grace + _MARGIN_SECONDS,
                        "containers": [
                            _further(node, instance, settings, [*mounts, *(mount for __, mount in passing)])
                        ],
                        "volumes": [volume for volume, __ in passing],
                    },
                },
                "volumeClaimTemplates": [
                    {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": purpose}, "spec": spec}
                    for purpose, spec in ((purpose, claim_template()) for purpose, __, __ in directories)
                ],
            },
        },
    }


def _on(places: Sequence[Place]) -> Object:
    names = [place.node_name for place in places]
    term = {"matchExpressions": [{"key": HOSTNAME_LABEL, "operator": "In", "values": names}]}
    return {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [term]}}}


def _taints(places: Sequence[Place]) -> list[Mapping[str, Any]]:
    """Return the taints of all of the nodes, each once."""
    found: list[Mapping[str, Any]] = []
    for place in places:
        found += (taint for taint in place.taints if taint not in found)
    return found


def group_objects(
    node: EngineNode,
    instance: Mapping[str, Any],
    settings: EngineSettings,
    namespace: str,
    config: Sequence[Object],
) -> tuple[list[Object], Object]:
    """Return the volumes and claims of an instance on several hosts, and its set."""
    found = leader_worker_set(node, instance, settings, namespace, config)
    return _claims(node, instance, settings, namespace, found["metadata"]["name"]), found


def group_policy(host: str, instance: str, namespace: str) -> Object:
    """Return the policy that lets the processes of one instance at each other, and the further ones find the first.

    What they say to each other is neither encrypted nor signed, and goes to ports that the system chooses.
    """
    own = {"podSelector": {"matchLabels": {ENGINE_LABEL: engine_name(host, instance)}}}
    dns = {
        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": _DNS_NAMESPACE}},
        "podSelector": {"matchLabels": dict(_DNS_LABELS)},
    }
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": metadata(unique_name("within", host, instance), namespace, labels("within-an-engine", "network")),
        "spec": {
            **own,
            "policyTypes": ["Ingress", "Egress"],
            "ingress": [{"from": [own]}],
            "egress": [
                {"to": [own]},
                {"to": [dns], "ports": [{"protocol": protocol, "port": 53} for protocol in ("UDP", "TCP")]},
            ],
        },
    }
