# SPDX-License-Identifier: Apache-2.0
"""Every wrong input has a finding of its own: code, what was found, what is wanted and what to do, word for word."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import pytest

from ansible_collections.gpufleet.metal.plugins.module_utils._plan.builder import build_plan
from ansible_collections.gpufleet.metal.plugins.module_utils._plan.findings import Finding, findings_as_text
from ansible_collections.gpufleet.metal.plugins.module_utils._plan.schema import Inventory
from ansible_collections.gpufleet.metal.tests.unit.plugins.module_utils._plan.fleets import (
    DIGEST,
    gpus,
    hosts,
    inventory,
    llama,
    model,
    plan,
    texts,
    tiny,
    variables,
    with_cluster,
)

KUBERNETES_KEYS = (
    "version",
    "api_server",
    "pod_network",
    "service_network",
    "host_networks",
    "flannel_backend",
    "namespace",
    "address",
    "port",
    "name",
)
SHA = "0" * 64
RECORD = "run ansible-playbook gpufleet.metal.discover --limit gpu-1 and commit host_vars/gpu-1/gpu_inventory.yml"
ADDRESS = "the IP address at which the other hosts of the fleet reach this one"
KNOWN = (
    "one of fleet_address, fleet_directory, fleet_driver, fleet_driver_override, fleet_endpoint, fleet_engine, "
    "fleet_kubernetes, fleet_management_networks, fleet_model_facts, fleet_models, fleet_models_directory, "
    "fleet_monitoring, fleet_name, fleet_nvml_library, fleet_plan_directory, fleet_plan_keep, "
    "fleet_secret_recipients, fleet_secret_store, fleet_secrets, fleet_sysfs_root"
)
ENGINE_KEYS = (
    "accelerator, base_port, cpu_kv_cache_gib, gpu_memory_utilization, image, shm_size_gib, shutdown_timeout_seconds, "
    "tls"
)
MODEL_KEYS = (
    "arguments, autoscaling, concurrency, config, context_length, files_sha256, known_model, max_output_tokens, "
    "minimum_compute_capability, name, pipeline_parallel_size, quantization, replicas, source, tensor_parallel_size, "
    "weights_bytes"
)
NAMES = "up to 63 of a-z, 0-9, '.', '_' and '-', the first a letter or a digit"


def engine(**changes: Any) -> dict[str, Any]:
    """Return fleet_engine with changes."""
    return {"image": {"reference": f"vllm/vllm-openai:v0.32.0@{DIGEST}"}, **changes}


def image(**changes: Any) -> dict[str, Any]:
    """Return fleet_engine with another image."""
    return {"image": {"reference": f"vllm/vllm-openai:v0.32.0@{DIGEST}", **changes}}


def recorded(**changes: Any) -> dict[str, dict[str, Any]]:
    """Return hosts of which the first GPU of gpu-1 is recorded differently."""
    machines = hosts(gpus(1))
    machines["gpu-1"]["gpu_inventory"]["gpus"][0].update(changes)
    return machines


def renamed(old: str, new: str) -> dict[str, dict[str, Any]]:
    """Return hosts whose record has a key by another name."""
    machines = hosts(gpus(1))
    entry = machines["gpu-1"]["gpu_inventory"]["gpus"][0]
    entry[new] = entry.pop(old)
    return machines


def without(host: str, *names: str, **changes: Any) -> dict[str, dict[str, Any]]:
    """Return hosts of which one lacks these variables and has others."""
    machines = hosts(gpus(1))
    machines[host] = {key: value for key, value in machines[host].items() if key not in names}
    machines[host].update(changes)
    return machines


def config(entry: dict[str, Any], *gone: str, **changes: Any) -> dict[str, Any]:
    """Return a model whose configuration lacks keys and has others."""
    entry["config"] = {key: value for key, value in {**entry["config"], **changes}.items() if key not in gone}
    return entry


CASES: list[Any] = [
    pytest.param(
        inventory(variables(llama(tensor_parallel_size=1)), hosts(gpus(8))),
        (
            "model",
            "llama",
            "does_not_fit",
            "174.2 GiB needed per GPU at tensor_parallel_size 1: weights 131.4 GiB, KV cache 40.0 GiB for 4 x 32768 "
            "tokens, activations 1.6 GiB, runtime 1.0 GiB, margin 0.3 GiB",
            "at most 73.3 GiB per GPU: gpu_memory_utilization 0.92 of the 79.6 GiB of H100 SXM5 80GB",
            "raise tensor_parallel_size (now 1; 4 fits) or set it to auto; use a smaller quantization (now none; "
            "weights up to 30.5 GiB per GPU fit); lowering context_length or concurrency alone does not help",
        ),
        id="model does not fit at the given size",
    ),
    pytest.param(
        inventory(variables(llama(concurrency=40)), hosts(gpus(2))),
        (
            "model",
            "llama",
            "does_not_fit",
            "269.1 GiB needed per GPU at tensor_parallel_size 2: weights 65.7 GiB, KV cache 200.0 GiB for 40 x 32768 "
            "tokens, activations 1.1 GiB, runtime 2.0 GiB, margin 0.3 GiB",
            "at most 73.3 GiB per GPU: gpu_memory_utilization 0.92 of the 79.6 GiB of H100 SXM5 80GB",
            "lower context_length (now 32768; up to 672 fits); use hosts with more GPUs (tensor_parallel_size auto "
            "went up to 2)",
        ),
        id="model does not fit at any size",
    ),
    pytest.param(
        inventory(
            variables(tiny(concurrency=5000, tensor_parallel_size=2), fleet_engine=engine(accelerator="cpu")),
            hosts({**gpus(2), "simulated": True}),
        ),
        (
            "model",
            "tiny-llama",
            "does_not_fit",
            "1.2 GiB needed per GPU at tensor_parallel_size 2: weights 0.2 MiB, KV cache 1.2 GiB for 5000 x 1024 "
            "tokens, activations 2.5 MiB, runtime 0.0 GiB, margin 0.2 MiB",
            "at most 73.3 GiB per GPU: gpu_memory_utilization 0.92 of the 79.6 GiB of H100 SXM5 80GB, and at most "
            "1 GiB of KV cache",
            "lower context_length (now 1024; up to 768 fits); lower concurrency (now 5000; up to 4095 fits); raise "
            "tensor_parallel_size (now 2) or set it to auto; raise fleet_engine.cpu_kv_cache_gib (now 1)",
        ),
        id="cache does not fit on the CPU",
    ),
    pytest.param(
        inventory(variables(llama(context_length=131072, concurrency=4)), hosts(gpus(2), gpus(2), gpus(2), gpus(1))),
        (
            "model",
            "llama",
            "needs_several_hosts",
            "149.1 GiB needed per GPU at tensor_parallel_size 2: weights 65.7 GiB, KV cache 80.0 GiB for 4 x 131072 "
            "tokens, activations 1.1 GiB, runtime 2.0 GiB, margin 0.3 GiB; one host has 73.3 GiB on each H100 SXM5 "
            "80GB",
            "tensor parallel 2 x pipeline parallel 3: 2 GPUs (H100 SXM5 80GB) in each of 3 hosts, such as gpu-1, "
            "gpu-2, gpu-3 (53.2 GiB of 73.3 GiB per GPU)",
            "set pipeline_parallel_size to 3 and have the hosts in kube_nodes; or, to fit on one host: lower "
            "context_length (now 131072; up to 6800 fits)",
        ),
        id="model needs several hosts",
    ),
    pytest.param(
        inventory(variables(fleet_plan_keep="no")),
        (
            "fleet",
            "test",
            "wrong_type",
            'fleet_plan_keep is "no"',
            "true (what runs stays where it is) or false (plan from scratch)",
            "correct fleet_plan_keep",
        ),
        id="a text where a boolean is wanted",
    ),
    pytest.param(
        inventory(variables(config(tiny(tensor_parallel_size=3), vocab_size=960)), hosts(gpus(4))),
        (
            "model",
            "tiny-llama",
            "tensor_parallel_size_does_not_divide",
            "Total number of attention heads (4) must be divisible by tensor parallel size (3).",
            "a tensor_parallel_size that divides the model: 1, 2, 4",
            "set tensor_parallel_size to one of them, or to auto",
        ),
        (
            "model",
            "tiny-llama",
            "tensor_parallel_size_does_not_divide",
            "the 2 key-value heads cannot be replicated evenly on 3 GPUs",
            "a tensor_parallel_size that divides the model: 1, 2, 4",
            "set tensor_parallel_size to one of them, or to auto",
        ),
        id="tensor-parallel size does not divide",
    ),
    pytest.param(
        inventory(variables(llama(tensor_parallel_size=8)), hosts(gpus(4), gpus(4))),
        (
            "model",
            "llama",
            "tensor_parallel_size_too_large",
            "tensor_parallel_size is 8",
            "at most 4, the most GPUs of one kind in one host",
            "lower tensor_parallel_size, or set it to auto",
        ),
        id="tensor-parallel size beyond one host",
    ),
    pytest.param(
        inventory(machines=recorded(product=None, device_id="ABCD")),
        (
            "host",
            "gpu-1",
            "unknown_device",
            "0000:10:00.0 is 10DE:ABCD, subsystem 10DE:16C1",
            "a product that the catalogue knows",
            "install the NVIDIA driver and run gpufleet.metal.discover again (NVML knows the product), or add it to "
            "plugins/module_utils/_gpu/catalogue.py",
        ),
        id="unknown device",
    ),
    pytest.param(
        inventory(variables(tiny("a", replicas=1), tiny("b", replicas=1)), hosts(gpus(1))),
        (
            "model",
            "b",
            "not_enough_gpus",
            "room for 0 of 1 instance; GPUs in use: a 1; free GPUs: none",
            "1 GPU each, not shared with another instance",
            "lower replicas of this or another model, lower tensor_parallel_size, or add GPU nodes",
        ),
        id="two models on one GPU",
    ),
    pytest.param(
        inventory(variables(llama(tensor_parallel_size=4, replicas=3)), hosts(gpus(6), gpus(6))),
        (
            "model",
            "llama",
            "not_enough_gpus",
            "room for 2 of 3 instances; GPUs in use: llama 8; free GPUs: gpu-1 0000:50:00.0, 0000:60:00.0; gpu-2 "
            "0000:50:00.0, 0000:60:00.0",
            "4 GPUs of one kind in one host each, not shared with another instance",
            "lower replicas of this or another model, lower tensor_parallel_size, or add GPU nodes",
        ),
        id="free GPUs are named",
    ),
    pytest.param(
        inventory(machines=hosts(gpus(1), gateways=0)),
        (
            "fleet",
            "test",
            "no_gateways",
            "the group gateways has no hosts",
            "at least one host: it serves the endpoint",
            "add a host to the group gateways of the inventory",
        ),
        id="no gateways",
    ),
    pytest.param(
        inventory(machines=hosts()),
        (
            "fleet",
            "test",
            "no_gpu_nodes",
            "the group gpu_nodes has no hosts",
            "at least one host: it runs the engines",
            "add a host to the group gpu_nodes of the inventory",
        ),
        id="no GPU nodes",
    ),
    pytest.param(
        inventory(variables(fleet_engine=engine(base_prot=9000))),
        (
            "fleet",
            "test",
            "unknown_key",
            "fleet_engine.base_prot",
            f"one of {ENGINE_KEYS} (did you mean base_port?)",
            "correct or remove fleet_engine.base_prot",
        ),
        id="mistyped key of the engine",
    ),
    pytest.param(
        inventory(variables(model(tensor_paralel_size=2))),
        (
            "model",
            "autoglm",
            "unknown_key",
            "fleet_models[autoglm].tensor_paralel_size",
            f"one of {MODEL_KEYS} (did you mean tensor_parallel_size?)",
            "correct or remove fleet_models[autoglm].tensor_paralel_size",
        ),
        id="mistyped key of a model",
    ),
    pytest.param(
        inventory(
            variables(
                model(source={"huggingface": {"repository": "a/b", "revision": "0" * 40, "comit": "x"}}),
            )
        ),
        (
            "model",
            "autoglm",
            "unknown_key",
            "fleet_models[autoglm].source.huggingface.comit",
            "one of repository, revision",
            "correct or remove fleet_models[autoglm].source.huggingface.comit",
        ),
        id="mistyped key of a source",
    ),
    pytest.param(
        inventory(names={"fleet_modles": ["gpu-1", "gw-1"], "fleet_plan": ["gpu-1"], "fleet_directory": ["gw-1"]}),
        (
            "fleet",
            "test",
            "unknown_variable",
            "fleet_modles (seen by gpu-1, gw-1)",
            f"{KNOWN} (did you mean fleet_models?)",
            "correct or remove fleet_modles",
        ),
        id="mistyped variable",
    ),
    pytest.param(
        inventory(conflicts={"fleet_engine": ["gpu-2", "gpu-1"]}),
        (
            "fleet",
            "test",
            "conflicting_values",
            "fleet_engine differs between gpu-1 and gpu-2",
            "one value for the whole fleet",
            "set fleet_engine once, in group_vars/all",
        ),
        id="two values of a fleet variable",
    ),
    pytest.param(
        inventory(machines=without("gw-1", "ansible_host")),
        (
            "host",
            "gw-1",
            "address_missing",
            "neither fleet_address nor ansible_host is set",
            ADDRESS,
            "set fleet_address of gw-1",
        ),
        id="no address",
    ),
    pytest.param(
        inventory(machines=without("gw-1", ansible_host="gw-1.example.org")),
        (
            "host",
            "gw-1",
            "address_invalid",
            'ansible_host is "gw-1.example.org"',
            ADDRESS,
            "set fleet_address of gw-1",
        ),
        id="a name is no address",
    ),
    pytest.param(
        inventory(machines=without("gw-1", fleet_address="127.0.0.1")),
        ("host", "gw-1", "address_invalid", 'fleet_address is "127.0.0.1"', ADDRESS, "set fleet_address of gw-1"),
        id="an address that no other host reaches",
    ),
    pytest.param(
        inventory(machines=without("gw-1", fleet_address="192.0.2.1")),
        (
            "host",
            "gw-1",
            "address_duplicate",
            "192.0.2.1, which is also the address of gpu-1",
            "an address of its own",
            "set fleet_address of gw-1 or of gpu-1",
        ),
        id="duplicated address",
    ),
    pytest.param(
        inventory(variables(fleet_management_networks=None)),
        (
            "fleet",
            "test",
            "management_networks_missing",
            "fleet_management_networks is not set",
            "the networks from which hosts may be reached by ssh, the controller's among them",
            'set fleet_management_networks, for example fleet_management_networks: ["198.51.100.0/24"]',
        ),
        id="no management networks",
    ),
    pytest.param(
        inventory(variables(fleet_management_networks=[])),
        (
            "fleet",
            "test",
            "management_networks_missing",
            "fleet_management_networks is empty",
            "the networks from which hosts may be reached by ssh, the controller's among them",
            'set fleet_management_networks, for example fleet_management_networks: ["198.51.100.0/24"]',
        ),
        id="empty management networks",
    ),
    pytest.param(
        inventory(variables(fleet_management_networks="198.51.100.0/24")),
        (
            "fleet",
            "test",
            "management_networks_invalid",
            'fleet_management_networks is "198.51.100.0/24"',
            "a list of networks in CIDR notation",
            'write a list, for example fleet_management_networks: ["198.51.100.0/24"]',
        ),
        id="management networks are no list",
    ),
    *(
        pytest.param(
            inventory(variables(fleet_management_networks=["2001:db8::/48", entry])),
            (
                "fleet",
                "test",
                "management_networks_invalid",
                f'fleet_management_networks has "{entry}"',
                "a network in CIDR notation, like 198.51.100.0/24 or 2001:db8::/48",
                fix,
            ),
            id=f"{entry} is no network",
        )
        for entry, fix in (
            ("198.51.100.7/24", "did you mean 198.51.100.0/24?"),
            ("198.51.100.7", "did you mean 198.51.100.7/32?"),
            ("the office", "correct this entry of fleet_management_networks"),
        )
    ),
    pytest.param(
        inventory(machines=without("gpu-1", "gpu_inventory")),
        (
            "host",
            "gpu-1",
            "gpu_inventory_missing",
            "gpu_inventory is not set",
            "the recorded hardware of every GPU node",
            RECORD,
        ),
        id="no recorded hardware",
    ),
    pytest.param(
        inventory(machines=without("gpu-1", gpu_inventory={"gpus": "eight"})),
        ("host", "gpu-1", "gpu_inventory_invalid", 'gpu_inventory.gpus is "eight"', "a list of GPUs", RECORD),
        id="recorded hardware is no list",
    ),
    pytest.param(
        inventory(machines=without("gpu-1", gpu_inventory={"gpus": []})),
        (
            "host",
            "gpu-1",
            "no_gpus",
            "gpu_inventory.gpus is empty",
            "at least one GPU on a host of the group gpu_nodes",
            f"check the hardware, {RECORD}; or take gpu-1 out of gpu_nodes",
        ),
        id="a GPU node without GPUs",
    ),
    pytest.param(
        inventory(machines=renamed("memory_mib", "memory_mb")),
        (
            "host",
            "gpu-1",
            "gpu_inventory_invalid",
            "gpu_inventory 0000:10:00.0: memory_mib is nothing (did you mean memory_mb?)",
            "the memory in MiB",
            RECORD,
        ),
        id="a record without memory",
    ),
    pytest.param(
        inventory(machines=recorded(compute_capability="new")),
        (
            "host",
            "gpu-1",
            "gpu_inventory_invalid",
            'gpu_inventory 0000:10:00.0: compute_capability is "new"',
            'a compute capability like "9.0"',
            RECORD,
        ),
        id="a record without compute capability",
    ),
    pytest.param(
        inventory(machines=recorded(pci_address="first slot")),
        (
            "host",
            "gpu-1",
            "gpu_inventory_invalid",
            'gpu_inventory.gpus[0].pci_address is "first slot"',
            'a PCI address like "0000:17:00.0"',
            RECORD,
        ),
        id="a record without PCI address",
    ),
    pytest.param(
        inventory(machines=hosts({**gpus(1), "gpus": gpus(1)["gpus"] * 2})),
        (
            "host",
            "gpu-1",
            "gpu_inventory_invalid",
            "gpu_inventory.gpus has 0000:10:00.0 twice",
            "every PCI address once",
            RECORD,
        ),
        id="a GPU recorded twice",
    ),
    pytest.param(
        inventory(machines=recorded(mig_enabled=True)),
        (
            "host",
            "gpu-1",
            "mig_enabled",
            "0000:10:00.0 (H100 SXM5 80GB) is split by MIG",
            "whole GPUs",
            "if it is meant to be split, name it in nvidia_driver_mig of gpu-1; else run nvidia-smi --id 0000:10:00.0 "
            f"--multi-instance-gpu 0 there, then {RECORD}",
        ),
        id="a GPU split by MIG",
    ),
    pytest.param(
        inventory(machines=hosts({**gpus(1), "simulated": True})),
        (
            "host",
            "gpu-1",
            "simulated_gpus",
            "gpu_inventory.simulated is true and fleet_engine.accelerator is cuda",
            "real GPUs, or an engine that runs without them",
            f"set fleet_engine.accelerator to cpu (sandbox), or record the real hardware: {RECORD}",
        ),
        id="simulated GPUs and a CUDA engine",
    ),
    pytest.param(
        inventory(variables(tiny(), fleet_engine=engine(accelerator="cpu"))),
        (
            "host",
            "gpu-1",
            "real_gpus_unused",
            "gpu_inventory.simulated is false and fleet_engine.accelerator is cpu",
            "an engine that uses the GPUs of this host",
            "set fleet_engine.accelerator to cuda",
        ),
        id="real GPUs and a CPU engine",
    ),
    pytest.param(
        inventory(variables(config(llama(), torch_dtype="float16")), hosts(gpus(8), gpus(1, "V100 SXM2 32GB"))),
        (
            "host",
            "gpu-2",
            "gpu_too_old",
            "0000:10:00.0 (V100 SXM2 32GB) has compute capability 7.0",
            "7.5 or more: vLLM has no kernels for older GPUs",
            "take gpu-2 out of gpu_nodes",
        ),
        id="a GPU that vLLM cannot use",
    ),
    pytest.param(
        inventory(variables(tiny(quantization="fp8")), hosts(gpus(1, "A100 SXM4 80GB"))),
        (
            "model",
            "tiny-llama",
            "compute_capability_too_low",
            "the best GPU is A100 SXM4 80GB with compute capability 8.0",
            "8.9 or more, for quantization fp8",
            "choose another precision or quantization, or add hosts with newer GPUs",
        ),
        id="a precision that no GPU computes",
    ),
    pytest.param(
        inventory(variables(tiny(context_length=8192))),
        (
            "model",
            "tiny-llama",
            "context_too_long",
            "context_length is 8192",
            "at most max_position_embeddings, 4096",
            "lower context_length, or set arguments.hf-overrides with the RoPE scaling that stretches it",
        ),
        id="context longer than the model's",
    ),
    pytest.param(
        inventory(variables(config(tiny(), "num_attention_heads", num_atention_heads=4))),
        (
            "model",
            "tiny-llama",
            "missing_value",
            "config.num_attention_heads is not set (did you mean num_atention_heads?)",
            "a whole number, 1 or more",
            "copy the model's config.json whole into config",
        ),
        id="configuration without heads",
    ),
    pytest.param(
        inventory(variables(config(tiny(), num_hidden_layers="two"))),
        (
            "model",
            "tiny-llama",
            "wrong_type",
            "config.num_hidden_layers is 'two'",
            "a whole number, 1 or more",
            "correct config.num_hidden_layers",
        ),
        id="layers are no number",
    ),
    pytest.param(
        inventory(variables(model(context_length="long"))),
        (
            "model",
            "autoglm",
            "wrong_type",
            'fleet_models[autoglm].context_length is "long"',
            "a whole number, 1 or more",
            "correct fleet_models[autoglm].context_length",
        ),
        id="wrong type",
    ),
    pytest.param(
        inventory(variables(model(context_length=8192, max_output_tokens=8192))),
        (
            "model",
            "autoglm",
            "invalid_value",
            "fleet_models[autoglm].max_output_tokens is 8192",
            "less than context_length, 8192: prompt and answer share it",
            "lower fleet_models[autoglm].max_output_tokens, or remove it",
        ),
        id="answers as long as the context",
    ),
    pytest.param(
        inventory(variables(model(max_output_tokens=0))),
        (
            "model",
            "autoglm",
            "invalid_value",
            "fleet_models[autoglm].max_output_tokens is 0",
            "a whole number, 1 or more",
            "correct fleet_models[autoglm].max_output_tokens",
        ),
        id="answers of nothing",
    ),
    pytest.param(
        inventory(variables(model(weights_bytes=None))),
        (
            "model",
            "autoglm",
            "model_facts_missing",
            "fleet_models[autoglm].weights_bytes is not set, nothing is recorded in fleet_model_facts, and "
            "fleet_models[autoglm].known_model is not set",
            "the model's config.json and the bytes of its weights",
            "run ansible-playbook gpufleet.metal.describe_models and commit group_vars/all/fleet_model_facts.yml; or "
            "set known_model (did you mean autoglm-phone-9b?); or set config and weights_bytes",
        ),
        id="missing size",
    ),
    pytest.param(
        inventory(variables(model(replicas=0))),
        (
            "model",
            "autoglm",
            "invalid_value",
            "fleet_models[autoglm].replicas is 0",
            "auto or a whole number, 1 or more",
            "correct fleet_models[autoglm].replicas",
        ),
        id="no replicas",
    ),
    pytest.param(
        inventory(variables(model("Auto GLM"))),
        (
            "model",
            "Auto GLM",
            "invalid_value",
            'fleet_models[Auto GLM].name is "Auto GLM"',
            NAMES,
            "correct fleet_models[Auto GLM].name",
        ),
        id="a name that is no name",
    ),
    pytest.param(
        inventory(variables(model(name=None))),
        (
            "model",
            "number 1",
            "missing_value",
            "fleet_models[0].name is not set",
            NAMES,
            "set fleet_models[0].name",
        ),
        id="a model without a name",
    ),
    pytest.param(
        inventory(variables(tiny(), tiny())),
        (
            "model",
            "tiny-llama",
            "model_duplicate",
            "2 entries of fleet_models have this name",
            "one entry per name",
            "rename or remove the others; replicas serve one model more than once",
        ),
        id="a model twice",
    ),
    pytest.param(
        inventory(variables(model(source={"path": "/a", "archive": {"url": "file:///a", "sha256": SHA}}))),
        (
            "model",
            "autoglm",
            "invalid_value",
            "fleet_models[autoglm].source has archive and path",
            "exactly one of archive, huggingface, path",
            "keep one of them in fleet_models[autoglm].source",
        ),
        id="two sources",
    ),
    pytest.param(
        inventory(variables(model(source={"huggingface": {"repository": "a/b", "revision": "main"}}))),
        (
            "model",
            "autoglm",
            "invalid_value",
            'fleet_models[autoglm].source.huggingface.revision is "main"',
            "the 40 hexadecimal digits of a commit (a branch can move)",
            "correct fleet_models[autoglm].source.huggingface.revision",
        ),
        id="a branch for a commit",
    ),
    pytest.param(
        inventory(variables(model(files_sha256={"../config.json": SHA}))),
        (
            "model",
            "autoglm",
            "invalid_value",
            'fleet_models[autoglm].files_sha256 has "../config.json"',
            "names of files below the model's directory",
            'correct "../config.json"',
        ),
        id="a file outside the model",
    ),
    pytest.param(
        inventory(variables(model(arguments={"max-model-len": 4096}))),
        (
            "model",
            "autoglm",
            "owned_argument",
            "arguments.max-model-len",
            "fleet_models[].context_length",
            "remove arguments.max-model-len; use fleet_models[].context_length",
        ),
        id="an argument that the plan owns",
    ),
    pytest.param(
        inventory(variables(fleet_models=None)),
        (
            "fleet",
            "test",
            "missing_value",
            "fleet_models is nothing",
            "a list with at least one model",
            "describe the models to serve in fleet_models",
        ),
        id="no models",
    ),
    pytest.param(
        inventory(variables(fleet_engine=None)),
        (
            "fleet",
            "test",
            "missing_value",
            "fleet_engine is not set",
            "a mapping with at least image.reference",
            "set fleet_engine.image.reference",
        ),
        id="no engine",
    ),
    pytest.param(
        inventory(variables(fleet_engine=image(reference=f"vllm/vllm-openai:v0.31.2@{DIGEST}"))),
        (
            "fleet",
            "test",
            "engine_too_old",
            f'fleet_engine.image.reference is "vllm/vllm-openai:v0.31.2@{DIGEST}", vLLM 0.31.2',
            "vLLM 0.32.0 or newer (older ones have CVE-2026-115911 and others)",
            "name a newer image in fleet_engine.image.reference",
        ),
        id="an old engine",
    ),
    pytest.param(
        inventory(variables(fleet_engine=image(reference="vllm/vllm-openai:v0.32.0"))),
        (
            "fleet",
            "test",
            "image_not_pinned",
            'fleet_engine.image.reference is "vllm/vllm-openai:v0.32.0", without a digest',
            "a reference with @sha256:..., or archive together with archive_sha256",
            "add the digest to fleet_engine.image.reference, or set fleet_engine.image.archive and "
            "fleet_engine.image.archive_sha256",
        ),
        id="an image that can change",
    ),
    pytest.param(
        inventory(variables(fleet_engine=image(archive="file:///srv/media/vllm.tar"))),
        (
            "fleet",
            "test",
            "image_not_pinned",
            'fleet_engine.image.archive is "file:///srv/media/vllm.tar", without archive_sha256',
            "the SHA-256 digest of the archive",
            "set fleet_engine.image.archive_sha256",
        ),
        id="an archive that can change",
    ),
    pytest.param(
        inventory(variables(fleet_engine=engine(tls="mutal"))),
        (
            "fleet",
            "test",
            "invalid_value",
            'fleet_engine.tls is "mutal"',
            "one of none, mutual (did you mean mutual?)",
            "correct fleet_engine.tls",
        ),
        id="mistyped way of TLS",
    ),
    pytest.param(
        inventory(variables(fleet_engine=engine(accelerator="rocm"))),
        (
            "fleet",
            "test",
            "invalid_value",
            'fleet_engine.accelerator is "rocm"',
            "one of cuda, cpu",
            "correct fleet_engine.accelerator",
        ),
        id="an accelerator that is none",
    ),
    pytest.param(
        inventory(variables(fleet_engine=engine(gpu_memory_utilization=92))),
        (
            "fleet",
            "test",
            "invalid_value",
            "fleet_engine.gpu_memory_utilization is 92",
            "a number above 0 and not above 1",
            "correct fleet_engine.gpu_memory_utilization",
        ),
        id="more memory than there is",
    ),
    pytest.param(
        inventory(variables(fleet_engine=engine(base_port=65530)), hosts(gpus(8))),
        *(
            (
                "host",
                "gpu-1",
                "port_out_of_range",
                f"port {port} for an instance of autoglm",
                "at most 65535",
                "lower fleet_engine.base_port (now 65530)",
            )
            for port in (65536, 65537)
        ),
        id="ports beyond the last",
    ),
    pytest.param(
        inventory(variables(fleet_endpoint=None)),
        (
            "fleet",
            "test",
            "missing_value",
            "fleet_endpoint is not set",
            "a mapping with at least hostname",
            "set fleet_endpoint.hostname to the name that clients connect to",
        ),
        id="no endpoint",
    ),
    pytest.param(
        inventory(variables(fleet_endpoint={"hostname": "llm.example.org", "default_model": "autoglmm"})),
        (
            "fleet",
            "test",
            "invalid_value",
            'fleet_endpoint.default_model is "autoglmm"',
            "one of autoglm (did you mean autoglm?)",
            "correct fleet_endpoint.default_model, or add that model to fleet_models",
        ),
        id="a default model that is not served",
    ),
    pytest.param(
        inventory(variables(fleet_endpoint={"hostname": "llm.example.org", "alternative_names": ["a b"]})),
        (
            "fleet",
            "test",
            "invalid_value",
            'fleet_endpoint.alternative_names is "a b"',
            "a DNS name or an IP address",
            "correct fleet_endpoint.alternative_names",
        ),
        id="a name that no certificate has",
    ),
    pytest.param(
        inventory(variables(fleet_name="My Fleet")),
        ("fleet", "gpufleet", "invalid_value", 'fleet_name is "My Fleet"', NAMES, "correct fleet_name"),
        id="a fleet's name",
    ),
    pytest.param(
        inventory(variables(fleet_models_directory="models/")),
        (
            "fleet",
            "test",
            "invalid_value",
            'fleet_models_directory is "models/"',
            "an absolute directory, normalised",
            "correct fleet_models_directory",
        ),
        id="a relative store",
    ),
    pytest.param(
        inventory(groups={"gpu_nodes": ["gpu-1"], "gateways": ["gw-1", "gpu-1"]}),
        (
            "host",
            "gpu-1",
            "host_in_two_groups",
            "is in the groups gateways and gpu_nodes",
            "one group per host, or gpu_nodes and kube_nodes",
            "take gpu-1 out of one of them",
        ),
        id="a host in two groups",
    ),
    pytest.param(
        inventory(variables(fleet_endpoint=None), broken={("gpu-1", "fleet_endpoint"): "'x' is undefined"}),
        (
            "host",
            "gpu-1",
            "cannot_template",
            "fleet_endpoint: 'x' is undefined",
            "a value that needs no fact and no other host",
            "correct fleet_endpoint in the inventory",
        ),
        id="a template that fails",
    ),
]


def cases() -> list[Any]:
    """Return the table: an inventory and all of its findings."""
    return [pytest.param(case.values[0], list(case.values[1:]), id=case.id) for case in CASES]


@pytest.mark.parametrize(("given", "expected"), cases())
def test_finding(given: Inventory, expected: list[tuple[str, ...]]) -> None:
    """Exactly these findings, word for word."""
    assert texts(build_plan(given)) == expected


def test_the_right_inventory_has_no_findings() -> None:
    """The base of all cases is right."""
    assert texts(build_plan(inventory())) == []


def test_all_findings_at_once() -> None:
    """Nothing hides behind the first fault."""
    machines = hosts(gpus(1), None, gateways=0)
    machines["gpu-1"] = {"gpu_inventory": gpus(1)}
    result = plan(
        model(tensor_paralel_size=2),
        llama(tensor_parallel_size=3),
        tiny(context_length=8192, replicas=9),
        machines=machines,
        fleet_management_networks=None,
        fleet_endpoint={"hostname": "llm.example.org", "prot": 443},
        fleet_engine=image(reference="vllm:latest"),
    )
    assert [(f["host_or_model"], f["code"]) for f in result["findings"]] == [
        ("test", "image_not_pinned"),
        ("test", "management_networks_missing"),
        ("test", "no_gateways"),
        ("test", "unknown_key"),
        ("gpu-1", "address_missing"),
        ("gpu-2", "gpu_inventory_missing"),
        ("autoglm", "unknown_key"),
        ("llama", "tensor_parallel_size_does_not_divide"),
        ("llama", "tensor_parallel_size_does_not_divide"),
        ("tiny-llama", "context_too_long"),
    ]


def test_a_host_that_cannot_be_counted_is_named() -> None:
    """A shortage may come from a host whose hardware is not known: both are reported."""
    result = plan(tiny(replicas=2), machines=hosts(gpus(1), None))
    assert [f["code"] for f in result["findings"]] == ["gpu_inventory_missing", "not_enough_gpus"]
    assert result["findings"][1]["fix"] == (
        "lower replicas of this or another model, lower tensor_parallel_size, or add GPU nodes "
        "(not counted: gpu-2, see the findings about them)"
    )


def test_text() -> None:
    """All findings are one readable message."""
    assert findings_as_text([]) == ""
    one = Finding("gpu-1", "no_gpus", "nothing", "something", "do it")
    assert findings_as_text([one]) == (
        "The plan has 1 finding; nothing was changed on any host.\n"
        "\n"
        "host gpu-1: no_gpus\n"
        "  found:  nothing\n"
        "  wanted: something\n"
        "  fix:    do it"
    )
    assert findings_as_text([one, one]).startswith("The plan has 2 findings; ")


@pytest.mark.parametrize(
    ("reference", "version"),
    [
        ("vllm/vllm-openai:v0.32.0", True),
        ("registry.example.org:5000/vllm:0.33.1-cu130", True),
        ("registry.example.org:5000/vllm", True),
        ("gpufleet-sandbox-vllm:0.32.0", True),
        ("vllm:nightly", True),
        ("vllm:v0.9.2", False),
        ("registry.example.org:5000/vllm:cpu-v0.31.9", False),
    ],
)
def test_image_version(reference: str, version: bool) -> None:
    """A tag that states a version is held to the minimum; one that states none is the digest's business."""
    result = plan(model(), fleet_engine=image(reference=f"{reference}@{DIGEST}"))
    assert [f["code"] for f in result["findings"]] == ([] if version else ["engine_too_old"])


@pytest.mark.parametrize(
    "value", [None, 7, "text", [], {}, [None], [[]], [{}], {"gpus": [None]}, {"gpus": [{}]}, {"image": {}}, True]
)
def test_nonsense_is_reported_and_never_raises(value: Any) -> None:
    """Whatever stands in a variable, the plan answers with findings."""
    for name in (*variables(), "fleet_kubernetes"):
        values: Mapping[str, Any] = {**variables(), name: copy.deepcopy(value)}
        build_plan(inventory(values))
    for name in ("ansible_host", "fleet_address", "gpu_inventory", "ansible_port"):
        machines = hosts(gpus(1))
        machines["gpu-1"][name] = copy.deepcopy(value)
        build_plan(inventory(machines=machines))
    for key in model():
        build_plan(inventory(variables({**model(), key: copy.deepcopy(value)})))
    for key in KUBERNETES_KEYS:
        build_plan(inventory(variables(fleet_kubernetes={key: copy.deepcopy(value)}), with_cluster(hosts(gpus(1)), 3)))
        build_plan(
            inventory(
                variables(fleet_kubernetes={"api_server": {key: copy.deepcopy(value)}}), with_cluster(hosts(gpus(1)), 3)
            )
        )
    for key in tiny()["config"]:
        entry = tiny()
        entry["config"][key] = copy.deepcopy(value)
        build_plan(inventory(variables(entry)))
