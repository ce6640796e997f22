# SPDX-License-Identifier: Apache-2.0
"""Inventories for the tests of the plan, built from parts that a test can change."""

from __future__ import annotations

import copy
from collections.abc import Collection, Mapping
from typing import Any

from ansible_collections.gpufleet.metal.plugins.module_utils._plan.architecture import Architecture, read_architecture
from ansible_collections.gpufleet.metal.plugins.module_utils._plan.builder import build_plan
from ansible_collections.gpufleet.metal.plugins.module_utils._plan.inventory import read_fleet
from ansible_collections.gpufleet.metal.plugins.module_utils._plan.schema import Inventory, Model

DIGEST = "sha256:" + "a" * 64

#: AutoGLM-Phone-9B: the architecture of GLM-4.1V-9B-Thinking, 10,292,777,472 parameters of two bytes.
AUTOGLM_CONFIG: dict[str, Any] = {
    "model_type": "glm4v",
    "dtype": "bfloat16",
    "text_config": {
        "num_hidden_layers": 40,
        "hidden_size": 4096,
        "num_attention_heads": 32,
        "num_key_value_heads": 2,
        "head_dim": 128,
        "intermediate_size": 13696,
        "vocab_size": 151552,
        "max_position_embeddings": 32768,
    },
    "vision_config": {
        "depth": 24,
        "hidden_size": 1536,
        "num_heads": 12,
        "intermediate_size": 13696,
        "out_hidden_size": 4096,
        "patch_size": 14,
        "spatial_merge_size": 2,
    },
}
AUTOGLM_BYTES = 20585554944

#: The sandbox's tiny model.
TINY_CONFIG: dict[str, Any] = {
    "num_hidden_layers": 2,
    "hidden_size": 64,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 32,
    "intermediate_size": 128,
    "vocab_size": 1024,
    "max_position_embeddings": 4096,
    "dtype": "bfloat16",
}

LLAMA_70B_CONFIG: dict[str, Any] = {
    "torch_dtype": "bfloat16",
    "num_hidden_layers": 80,
    "hidden_size": 8192,
    "num_attention_heads": 64,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "intermediate_size": 28672,
    "vocab_size": 128256,
    "max_position_embeddings": 131072,
}
LLAMA_70B_BYTES = 141107412992

#: Product -> (device id, memory in MiB as NVML reports it, compute capability, joined by NVLink).
PRODUCTS = {
    "V100 SXM2 32GB": ("1DB5", 32510, "7.0", True),
    "T4": ("1EB8", 15360, "7.5", False),
    "A100 SXM4 80GB": ("20B2", 81920, "8.0", True),
    "L4": ("27B8", 23034, "8.9", False),
    "L40S": ("26B9", 46068, "8.9", False),
    "H100 SXM5 80GB": ("2330", 81559, "9.0", True),
    "H200 SXM": ("2335", 143771, "9.0", True),
}


def gpus(count: int, product: str = "H100 SXM5 80GB", **changes: Any) -> dict[str, Any]:
    """Return the recorded hardware of a host with ``count`` GPUs on two NUMA nodes; ``changes`` go into every GPU."""
    device, memory, capability, nvlink = PRODUCTS[product]
    addresses = [f"0000:{0x10 + 0x10 * i:02x}:00.0" for i in range(count)]
    return {
        "simulated": False,
        "driver_version": None,
        "cuda_version": None,
        "gpus": [
            {
                "pci_address": address,
                "device_id": device,
                "subsystem_id": "10DE:16C1",
                "product": product,
                "uuid": None,
                "memory_mib": memory,
                "compute_capability": capability,
                "numa_node": i * 2 // count,
                "mig_enabled": False,
                "nvlink_peers": [other for other in addresses if nvlink and other != address],
                **changes,
            }
            for i, address in enumerate(addresses)
        ],
    }


def model(name: str = "autoglm", **changes: Any) -> dict[str, Any]:
    """Return an entry of fleet_models; AutoGLM-Phone-9B unless changed. A change to None removes the key."""
    entry: dict[str, Any] = {
        "name": name,
        "source": {"path": f"/srv/media/models/{name}"},
        "config": copy.deepcopy(AUTOGLM_CONFIG),
        "weights_bytes": AUTOGLM_BYTES,
        "context_length": 25480,
        "concurrency": 8,
        "arguments": {"mm-encoder-tp-mode": "data", "mm-processor-kwargs": {"max_pixels": 5000000}},
        **changes,
    }
    return {key: value for key, value in entry.items() if value is not None}


def llama(name: str = "llama", **changes: Any) -> dict[str, Any]:
    """Return Llama 3.3 70B as an entry of fleet_models."""
    return model(
        name,
        **{
            "config": copy.deepcopy(LLAMA_70B_CONFIG),
            "weights_bytes": LLAMA_70B_BYTES,
            "context_length": 32768,
            "concurrency": 4,
            "arguments": {},
            **changes,
        },
    )


def tiny(name: str = "tiny-llama", **changes: Any) -> dict[str, Any]:
    """Return the sandbox's tiny model as an entry of fleet_models."""
    return model(
        name,
        **{
            "config": copy.deepcopy(TINY_CONFIG),
            "weights_bytes": 461568,
            "context_length": 1024,
            "concurrency": 4,
            "arguments": {},
            **changes,
        },
    )


def variables(*models: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """Return the fleet's variables; a change to None removes the variable."""
    values: dict[str, Any] = {
        "fleet_name": "test",
        "fleet_management_networks": ["198.51.100.0/24"],
        "fleet_models": list(models) or [model()],
        "fleet_engine": {"image": {"reference": f"vllm/vllm-openai:v0.32.0@{DIGEST}"}},
        "fleet_endpoint": {"hostname": "llm.example.org"},
        **changes,
    }
    return {key: value for key, value in values.items() if value is not None}


def hosts(*records: Any, gateways: int = 1) -> dict[str, dict[str, Any]]:
    """Return the hosts' variables: gpu-1, gpu-2, ... with these recorded GPUs, and gateways."""
    found: dict[str, dict[str, Any]] = {
        f"gpu-{i}": {"ansible_host": f"192.0.2.{i}", "gpu_inventory": record} for i, record in enumerate(records, 1)
    }
    found.update({f"gw-{i}": {"ansible_host": f"192.0.2.{200 + i}"} for i in range(1, gateways + 1)})
    return found


def with_cluster(
    machines: Mapping[str, Mapping[str, Any]], control_planes: int = 1, workers: int = 0, **changes: Any
) -> dict[str, dict[str, Any]]:
    """Return the hosts with those of a cluster: cp-1, ... and worker-1, ...; ``changes`` go into each of these."""
    found = {name: dict(values) for name, values in machines.items()}
    found.update({f"cp-{i}": {"ansible_host": f"192.0.2.{100 + i}", **changes} for i in range(1, control_planes + 1)})
    found.update({f"worker-{i}": {"ansible_host": f"192.0.2.{110 + i}", **changes} for i in range(1, workers + 1)})
    return found


def groups(machines: Mapping[str, Any], inside: Collection[str] | None = None) -> dict[str, list[str]]:
    """Return the groups by the hosts' names; GPU nodes are in the cluster when there is one, or those ``inside``."""
    nodes = [name for name in machines if name.startswith("gpu-")]
    control_planes = [name for name in machines if name.startswith("cp-")]
    workers = [name for name in machines if name.startswith("worker-")]
    if inside is None:
        inside = nodes if control_planes else ()
    return {
        "gpu_nodes": nodes,
        "gateways": [name for name in machines if name.startswith("gw-")],
        "kube_control_plane": control_planes,
        "kube_nodes": [*workers, *(name for name in nodes if name in inside)],
        "monitoring": [name for name in machines if name.startswith("mon-")],
    }


def inventory(
    values: Mapping[str, Any] | None = None, machines: Mapping[str, Mapping[str, Any]] | None = None, **changes: Any
) -> Inventory:
    """Return an inventory: one GPU node with eight H100 and one gateway unless given."""
    machines = hosts(gpus(8)) if machines is None else machines
    values = variables() if values is None else values
    arguments: dict[str, Any] = {
        "groups": groups(machines),
        "variables": values,
        "hosts": machines,
        "names": {name: list(machines) for name in values},
        **changes,
    }
    return Inventory(**arguments)


def read_model(entry: dict[str, Any]) -> tuple[Model, Architecture]:
    """Return a model and its shape; the entry must be right."""
    fleet = read_fleet(inventory(variables(entry)))
    assert not fleet.findings
    findings: list[Any] = []
    shape = read_architecture(fleet.models[0], findings)
    assert shape is not None, findings
    return fleet.models[0], shape


def plan(
    *models: dict[str, Any], machines: Mapping[str, Mapping[str, Any]] | None = None, **changes: Any
) -> dict[str, Any]:
    """Return the plan of a fleet that serves these models."""
    return build_plan(inventory(variables(*models, **changes), machines))


def texts(result: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """Return the findings of a plan as tuples for comparison."""
    return [(f["kind"], f["host_or_model"], f["code"], f["found"], f["wanted"], f["fix"]) for f in result["findings"]]
