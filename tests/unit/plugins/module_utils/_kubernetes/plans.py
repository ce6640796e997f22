# SPDX-License-Identifier: Apache-2.0
"""A plan with engines in pods, as far as the cluster's objects need it, that a test can change."""

from __future__ import annotations

import copy
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from ansible_collections.gpufleet.metal.plugins.module_utils._kubernetes.cluster import kubernetes_objects
from ansible_collections.gpufleet.metal.plugins.module_utils._plan.autoscaling import plan_autoscaling
from ansible_collections.gpufleet.metal.plugins.module_utils._plan.schema import Autoscaling, Engine

ROOT = Path(__file__).parents[5]
PROBE = (ROOT / "roles" / "vllm" / "files" / "engine_probe.py").read_text(encoding="utf-8")
DIGEST = "sha256:" + "a" * 64
PLUGIN = f"nvcr.io/nvidia/k8s-device-plugin:v0.20.0@{DIGEST}"
ENFORCER = f"registry.k8s.io/networking/kube-network-policies:v1.1.1@{DIGEST}"


def instance(host: int, index: int, gpus: int = 1, **changes: Any) -> dict[str, Any]:
    """Return an instance on the host with this number, the first of its GPUs with this index."""
    found = {
        "name": f"llama-3.3-70b-instruct-{index}",
        "model": "llama-3.3-70b-instruct",
        "model_directory": "/srv/models/llama-3.3-70b-instruct",
        "model_source": f"archive {'b' * 64}",
        "address": f"192.0.2.{10 + host}",
        "port": 8000 + index,
        "accelerator": "cuda",
        "backend": "kubernetes",
        "gpus": [
            {
                "pci_address": f"00000000:{place:02x}:00.0",
                "uuid": None,
                "index": place,
                "cdi_device": f"nvidia.com/gpu={place}",
            }
            for place in range(index, index + gpus)
        ],
        "tensor_parallel_size": gpus,
        "pipeline_parallel_size": 1,
        "workers": [],
        "context_length": 8192,
        "arguments": ["/models/llama-3.3-70b-instruct", "--port", str(8000 + index), "--shutdown-timeout", "120"],
        "environment": {"HOME": "/cache", "DO_NOT_TRACK": "1"},
        "shm_size_bytes": 10737418240,
        "shutdown_timeout_seconds": 120,
        "stop_timeout_seconds": 135,
    }
    return {**found, **changes}


def plan(hosts: int = 2, instances: int = 2, gpus: int = 2) -> dict[str, Any]:
    """Return a plan of so many hosts with so many instances each, of so many GPUs each."""
    names = [f"gpu-{number}" for number in range(1, hosts + 1)]
    parts: dict[str, Any] = {
        "gateway-1": {"group": "gateways", "address": "192.0.2.2", "kubernetes": None},
        "plane-1": {"group": "kube_control_plane", "address": "192.0.2.5", "kubernetes": {"role": "control_plane"}},
    }
    flows: list[dict[str, Any]] = [
        {
            "destination": "gateway-1",
            "protocol": "tcp",
            "port": 443,
            "source": "any",
            "forwarded": False,
            "why": "clients",
        }
    ]
    for number, name in enumerate(names, 1):
        mine = [instance(number, index * gpus, gpus) for index in range(instances)]
        parts[name] = {
            "group": "gpu_nodes",
            "address": f"192.0.2.{10 + number}",
            "kubernetes": {
                "role": "node",
                "node_name": name,
                "labels": {"nvidia.com/gpu.present": "true"},
                "taints": [],
            },
            "firewall": {"sets": {"management": ["198.51.100.0/24"], "gateways": ["192.0.2.2", "192.0.2.3"]}},
            "expected_gpus": [{"product": "H100 SXM5 80GB", "mig": None}] * instances * gpus,
            "models_directory": "/srv/models",
            "image": {"reference": f"vllm/vllm-openai:v0.32.0@{DIGEST}", "archive": None, "id": None},
            "instances": mine,
            "worker_of": [],
            "engine_tls": {"mode": "none"},
        }
        flow = {"destination": name, "protocol": "tcp", "source": "gateways", "forwarded": True, "why": "gateways"}
        flows += [{**flow, "port": item["port"]} for item in mine]
        flows.append({**flow, "port": 22, "source": "management", "forwarded": False})
        flows.append({**flow, "port": None, "protocol": "ip", "source": "pods"})
    return copy.deepcopy(
        {
            "kubernetes": {"namespace": "gpufleet-serving", "autoscaler_namespace": "keda"},
            "models": {"llama-3.3-70b-instruct": {"autoscaling": None}},
            "hosts": parts,
            "flows": flows,
        }
    )


def autoscaled(made: dict[str, Any], concurrency: int = 8, minimum: int = 1, **changes: Any) -> dict[str, Any]:
    """Return a plan in which so many engines always run and the others while requests wait, by the plan's own rule."""
    instances = [{**item, "host": host} for host, part in made["hosts"].items() for item in part.get("instances", ())]
    wanted = Autoscaling(minimum, **{"waiting_requests": 4, **changes})
    model = SimpleNamespace(
        name="llama-3.3-70b-instruct",
        autoscaling=wanted,
        concurrency=concurrency,
        replicas=None,
        pipeline_parallel_size=1,
    )
    findings: list[Any] = []
    scaled = plan_autoscaling(SimpleNamespace(models=[model], cluster=True), Engine(None), instances, findings)
    assert not findings
    made["models"] = {name: {"autoscaling": found} for name, found in scaled.items()}
    return made


def over_hosts(hosts: int = 2, **changes: Any) -> dict[str, Any]:
    """Return a plan of so many hosts with one instance over all of them, two GPUs on each; the first one answers."""
    made = plan(hosts, instances=1)
    first, *others = (name for name in made["hosts"] if name.startswith("gpu-"))
    found = made["hosts"][first]["instances"][0]
    workers = [
        {"host": name, "gpus": made["hosts"][name]["instances"][0]["gpus"], "why": "one NVLink domain"}
        for name in others
    ]
    found.update({"pipeline_parallel_size": hosts, "workers": workers, **changes})
    for worker in workers:
        part = made["hosts"][worker["host"]]
        part["instances"] = []
        part["worker_of"] = [{"host": first, "name": found["name"], "model": found["model"], "gpus": worker["gpus"]}]
    made["flows"] = [flow for flow in made["flows"] if flow["destination"] not in others or flow["port"] != 8000]
    return made


def rendered(made: dict[str, Any] | None = None, **options: Any) -> list[dict[str, Any]]:
    """Return the objects of a plan."""
    given = {"device_plugin_image": PLUGIN, "network_policies_image": ENFORCER, "probe_program": PROBE, **options}
    return kubernetes_objects(plan() if made is None else made, **given)


def of_kind(objects: list[dict[str, Any]], kind: str) -> list[dict[str, Any]]:
    """Return the objects of a kind."""
    return [item for item in objects if item["kind"] == kind]


def engine(objects: list[dict[str, Any]], place: int = 0) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return pod and container of an engine."""
    pod = of_kind(objects, "Deployment")[place]["spec"]["template"]["spec"]
    return pod, pod["containers"][0]
