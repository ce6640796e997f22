# SPDX-License-Identifier: Apache-2.0
# PRIVATE to the collection: do not import this from outside, it may change without notice.
"""One Deployment for each planned instance, with the arguments and the environment that its Docker container would get.

The plan says which host, so the pod is pinned to its node, and the port of the host is the plan's: a gateway asks the
same address and port whichever way the engine runs. Why a host port, and not a Service: docs/kubernetes.md.
"""

from __future__ import annotations

import math
import posixpath
from collections.abc import Mapping, Sequence
from typing import Any

from ansible_collections.gpufleet.metal.plugins.module_utils._errors import InvalidInputError

from .fleet import EngineNode
from .objects import (
    DEPLOYMENT_NAME_LENGTH,
    ENGINE_LABEL,
    HOSTNAME_LABEL,
    PLACE_LABEL,
    PREFIX,
    Object,
    checksum,
    labels,
    metadata,
    unique_name,
)
from .settings import EngineSettings
from .storage import claim_name

CONTAINER = "vllm"
COMPONENT = "engine"
SERVICE_ACCOUNT = "engine"
PRIORITY_CLASS = "gpufleet-serving"
GPU_RESOURCE = "nvidia.com/gpu"

#: The same places as in a Docker container; the plan's arguments and environment name them.
MODELS_MOUNT = "/models"
CACHE_MOUNT = "/cache"
TLS_MOUNT = "/tls"

PROBE_CONFIG_MAP = "engine-probe"
PROBE_FILE = "engine_probe.py"
PROBE_MOUNT = "/opt/gpufleet/probe"
_PROBE_TLS_MOUNT = "/opt/gpufleet/client"
_STATE = "/tmp/gpufleet-probe.json"

#: kubelet's time for a probe beyond the program's own: Python has to start, on a node that is busy.
_PROBE_MARGIN_SECONDS = 10
#: As often as a gateway asks for progress. An engine that works is asked for nothing but its metrics.
_READY_PERIOD_SECONDS = 15
_READY_FAILURES = 2
_LIVE_PERIOD_SECONDS = 30
#: In a row, because a probe that could not run in time counts as one: only a node that is stuck for long loses its
#: engine.
_LIVE_FAILURES = 3
#: An engine that hangs finishes nothing, so there is no drain to wait for.
_HUNG_GRACE_SECONDS = 30
#: What a Deployment may take over the engine's own start, before it is said to be stuck: the image, the volumes.
_PLACING_SECONDS = 600


def engine_name(host: str, instance: str) -> str:
    """Return the name of an instance's Deployment."""
    return unique_name("vllm", host, instance, limit=DEPLOYMENT_NAME_LENGTH)


def probe_config_map(program: str, namespace: str) -> Object:
    """Return the ConfigMap with the probes' program."""
    if not program.strip():
        raise InvalidInputError(f"probe_program: found an empty text, wanted the content of {PROBE_FILE}")
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": metadata(PROBE_CONFIG_MAP, namespace, labels("vllm", "probe")),
        "data": {PROBE_FILE: program},
    }


def image_of(node: EngineNode) -> tuple[str, str]:
    """Return (image, pull policy). What is not pinned by digest must have come as an archive, and is never pulled."""
    reference, archive = node.image["reference"], node.image["archive"]
    if "@sha256:" in reference:
        return reference, "IfNotPresent"
    if archive is None:
        raise InvalidInputError(
            f"{node.host}: found the image {reference}, wanted one with @sha256:..., or an archive beside it "
            "(fleet_engine.image.reference, fleet_engine.image.archive)"
        )
    return reference, "Never"


def tolerations_of(taints: Sequence[Mapping[str, Any]]) -> list[Object]:
    """Return what lets a pod onto a node with the taints that the plan gives it."""
    return [
        {
            "key": taint["key"],
            "operator": "Equal" if taint.get("value") else "Exists",
            **({"value": taint["value"]} if taint.get("value") else {}),
            "effect": taint["effect"],
        }
        for taint in taints
    ]


def grace_seconds(instance: Mapping[str, Any], settings: EngineSettings) -> int:
    """Return the time from a pod's deletion to SIGKILL: preStop's drain, and from SIGTERM on what the plan gives the
    engine.

    The plan's part holds the engine's own shutdown timeout and what it needs to end its processes.
    """
    return settings.drain_seconds + int(instance["stop_timeout_seconds"])


def literal(text: str) -> str:
    """Return a text of a container's command or environment as kubelet leaves it: it would replace ``$(NAME)``."""
    return text.replace("$", "$$")


def _probe_tls(node: EngineNode, settings: EngineSettings) -> list[str]:
    if node.tls_directory is None:
        return []
    if not settings.probe_tls_directory:
        return ["--tls"]
    paths = [posixpath.join(_PROBE_TLS_MOUNT, name) for name in ("client.crt", "client.key")]
    return ["--tls", "--client-certificate", paths[0], "--client-key", paths[1]]


def _probe(
    node: EngineNode, instance: Mapping[str, Any], settings: EngineSettings, question: str, seconds: int
) -> Object:
    command = [
        *settings.probe_python,
        posixpath.join(PROBE_MOUNT, PROBE_FILE),
        question,
        "--port",
        str(instance["port"]),
        "--model",
        instance["model"],
        "--api",
        settings.probe_api,
        "--state",
        _STATE,
        "--seconds",
        str(seconds),
        *_probe_tls(node, settings),
    ]
    return {"exec": {"command": command}}


def _probes(node: EngineNode, instance: Mapping[str, Any], settings: EngineSettings) -> Object:
    # The program polls within its time, so period and time may be equal, and periods times failures is the whole start.
    start = settings.probe_timeout_seconds + _PROBE_MARGIN_SECONDS
    return {
        "startupProbe": {
            **_probe(node, instance, settings, "start", settings.probe_timeout_seconds),
            "periodSeconds": start,
            "timeoutSeconds": start,
            "failureThreshold": math.ceil(settings.start_timeout_seconds / start),
        },
        "readinessProbe": {
            **_probe(node, instance, settings, "ready", settings.probe_timeout_seconds),
            "periodSeconds": _READY_PERIOD_SECONDS,
            "timeoutSeconds": start,
            "failureThreshold": _READY_FAILURES,
        },
        "livenessProbe": {
            **_probe(node, instance, settings, "live", settings.hang_seconds),
            "periodSeconds": _LIVE_PERIOD_SECONDS,
            "timeoutSeconds": 2 * _PROBE_MARGIN_SECONDS,
            "failureThreshold": _LIVE_FAILURES,
            "terminationGracePeriodSeconds": _HUNG_GRACE_SECONDS,
        },
        "lifecycle": {"preStop": _probe(node, instance, settings, "drain", settings.drain_seconds)},
    }


def _resources(instance: Mapping[str, Any], settings: EngineSettings) -> Object:
    wanted: Object = {"requests": {"cpu": settings.cpu, "memory": settings.memory}}
    if instance["accelerator"] == "cuda":
        gpus = {GPU_RESOURCE: str(len(instance["gpus"]))}
        wanted["requests"].update(gpus)
        wanted["limits"] = gpus
    return wanted


def cache_directory(settings: EngineSettings, instance: Mapping[str, Any]) -> str:
    """Return the directory on the host that an instance keeps its cache in."""
    return posixpath.join(settings.cache_directory, instance["name"])


def _volumes(node: EngineNode, instance: Mapping[str, Any], settings: EngineSettings) -> list[tuple[Object, Object]]:
    """Return pairs of a volume and its mount."""
    return [*_directory_volumes(node, instance, settings), *passing_volumes(instance, settings)]


def _directory_volumes(
    node: EngineNode, instance: Mapping[str, Any], settings: EngineSettings
) -> list[tuple[Object, Object]]:
    cache: Object = {"emptyDir": {}}
    if settings.cache == "host":
        path = cache_directory(settings, instance)
        cache = {"persistentVolumeClaim": {"claimName": claim_name("cache", node.host, path)}}
    return [
        _read_only("models", node.host, node.models_directory, MODELS_MOUNT),
        *tls_volumes(node, settings),
        ({"name": "cache", **cache}, {"name": "cache", "mountPath": CACHE_MOUNT}),
    ]


def tls_volumes(node: EngineNode, settings: EngineSettings) -> list[tuple[Object, Object]]:
    """Return pairs of a volume and its mount: what an engine shows with mutual TLS, and what its probes show it."""
    if node.tls_directory is None:
        return []
    found = [_read_only("tls", node.host, node.tls_directory, TLS_MOUNT)]
    if settings.probe_tls_directory:
        found.append(_read_only("probe-tls", node.host, settings.probe_tls_directory, _PROBE_TLS_MOUNT))
    return found


def _read_only(purpose: str, host: str, path: str, place: str) -> tuple[Object, Object]:
    claim = {"claimName": claim_name(purpose, host, path), "readOnly": True}
    return (
        {"name": purpose, "persistentVolumeClaim": claim},
        {"name": purpose, "mountPath": place, "readOnly": True},
    )


def passing_volumes(instance: Mapping[str, Any], settings: EngineSettings) -> list[tuple[Object, Object]]:
    """Return pairs of a volume and its mount that go with the pod, and the probes' program."""
    return [
        (
            {"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": str(instance["shm_size_bytes"])}},
            {"name": "shm", "mountPath": "/dev/shm"},
        ),
        ({"name": "tmp", "emptyDir": {"sizeLimit": settings.tmp_size}}, {"name": "tmp", "mountPath": "/tmp"}),
        (
            {"name": "probe", "configMap": {"name": PROBE_CONFIG_MAP, "defaultMode": 0o444}},
            {"name": "probe", "mountPath": PROBE_MOUNT, "readOnly": True},
        ),
    ]


def process(node: EngineNode, instance: Mapping[str, Any], settings: EngineSettings, mounts: list[Object]) -> Object:
    """Return a container that runs vLLM as the plan says."""
    image, policy = image_of(node)
    return {
        "name": CONTAINER,
        "image": image,
        "imagePullPolicy": policy,
        "command": [literal(word) for word in settings.entrypoint],
        "args": [literal(word) for word in instance["arguments"]],
        "env": [{"name": name, "value": literal(value)} for name, value in sorted(instance["environment"].items())],
        "resources": _resources(instance, settings),
        "volumeMounts": mounts,
        # What an engine that died said last is in the pod's status, for whoever asks why.
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "readOnlyRootFilesystem": settings.read_only,
        },
    }


def container(node: EngineNode, instance: Mapping[str, Any], settings: EngineSettings, mounts: list[Object]) -> Object:
    """Return the container that answers: it has the plan's port of the host, and is probed."""
    return {
        **process(node, instance, settings, mounts),
        "ports": [
            {
                "name": "http",
                "protocol": "TCP",
                "containerPort": instance["port"],
                "hostPort": instance["port"],
                "hostIP": instance["address"],
            }
        ],
        **_probes(node, instance, settings),
    }


def deployment(
    node: EngineNode,
    instance: Mapping[str, Any],
    settings: EngineSettings,
    namespace: str,
    config: Sequence[Object],
    elastic: bool = False,
) -> Object:
    """Return the Deployment of an instance; ``config``: the ConfigMaps and Secrets that its pod reads.

    Of an ``elastic`` one it says nothing of the count of pods, which is KEDA's. The pod is the same one.

    Their content, and all of the instance, is in the pod's annotations: what changes there makes another pod, also
    the files of the model, which only ``model_source`` tells.
    """
    name = engine_name(node.host, instance["name"])
    marks = {**labels("vllm", COMPONENT), ENGINE_LABEL: name}
    pairs = _volumes(node, instance, settings)
    described = description(node, instance)
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": metadata(name, namespace, {**marks, PLACE_LABEL: node.node_name}, described),
        "spec": {
            **({} if elastic else {"replicas": 1}),
            "revisionHistoryLimit": 2,
            "progressDeadlineSeconds": settings.start_timeout_seconds
            + grace_seconds(instance, settings)
            + _PLACING_SECONDS,
            # The old pod goes first: no GPU, no port and no cache is there twice.
            "strategy": {"type": "Recreate"},
            "selector": {"matchLabels": {ENGINE_LABEL: name}},
            "template": {
                "metadata": {
                    "labels": marks,
                    "annotations": {**described, **checksums(node, instance, config)},
                },
                "spec": {
                    "nodeSelector": {HOSTNAME_LABEL: node.node_name},
                    **pod(settings, node.taints),
                    # An engine asks nobody, so the cluster's DNS need not answer for it to start.
                    "dnsPolicy": "Default",
                    "terminationGracePeriodSeconds": grace_seconds(instance, settings),
                    "containers": [container(node, instance, settings, [mount for __, mount in pairs])],
                    "volumes": [volume for volume, __ in pairs],
                },
            },
        },
    }


def description(node: EngineNode, instance: Mapping[str, Any]) -> dict[str, str]:
    """Return the annotations that say which engine of the plan something is."""
    return {
        f"{PREFIX}host": node.host,
        f"{PREFIX}instance": instance["name"],
        f"{PREFIX}model": instance["model"],
    }


def checksums(node: EngineNode, instance: Mapping[str, Any], config: Sequence[Object]) -> dict[str, str]:
    """Return the annotations that make another pod of what changes outside of it."""
    # An image without a digest in its name is another one when its archive is.
    archive = {f"{PREFIX}image": node.image["archive_sha256"]} if image_of(node)[1] == "Never" else {}
    return {
        f"{PREFIX}specification": checksum(instance),
        f"{PREFIX}configuration": checksum(*(item["data"] for item in config)),
        **archive,
    }


def pod(settings: EngineSettings, taints: Sequence[Mapping[str, Any]]) -> Object:
    """Return what every pod with a process of vLLM has; ``taints``: those of its node."""
    tolerations = tolerations_of(taints)
    return {
        **({"tolerations": tolerations} if tolerations else {}),
        "priorityClassName": PRIORITY_CLASS,
        "serviceAccountName": SERVICE_ACCOUNT,
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "restartPolicy": "Always",
        # A PID namespace of its own (the default): when its first process is killed the kernel ends the others, or a
        # killed API server would leave an engine that holds the GPUs. No fsGroup: kubelet would give the whole model
        # store to it.
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": settings.uid,
            "runAsGroup": settings.gid,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
    }
