# SPDX-License-Identifier: Apache-2.0
"""The plan's shape: every key that playbooks and roles are promised, with its value."""

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.gpufleet.metal.plugins.module_utils._plan.builder import build_plan
from ansible_collections.gpufleet.metal.tests.unit.plugins.module_utils._plan.fleets import (
    DIGEST,
    gpus,
    hosts,
    inventory,
    model,
    plan,
    texts,
    tiny,
    variables,
)


def sandbox(**engine: Any) -> dict[str, Any]:
    """Return the plan of a fleet like the sandbox's: two nodes with two simulated GPUs each, one gateway."""
    return build_plan(
        inventory(
            variables(
                tiny(
                    tensor_parallel_size=2,
                    replicas=2,
                    source={"archive": {"url": "file:///srv/media/tiny.tar", "sha256": "1" * 64}},
                    files_sha256={"config.json": "2" * 64},
                ),
                fleet_name="sandbox",
                fleet_engine={
                    "image": {
                        "reference": "vllm:0.32.0",
                        "archive": "file:///srv/media/vllm.tar",
                        "archive_sha256": "3" * 64,
                        "id": DIGEST,
                    },
                    "accelerator": "cpu",
                    "shm_size_gib": 1,
                    "shutdown_timeout_seconds": 30,
                    **engine,
                },
            ),
            hosts(*({**gpus(2, uuid=None), "simulated": True} for __ in range(2))),
        )
    )


def test_keys() -> None:
    """The plan and its parts have exactly these keys."""
    result = sandbox()
    assert texts(result) == []
    assert sorted(result) == [
        "certificates",
        "findings",
        "fleet",
        "flows",
        "hosts",
        "instances",
        "kubernetes",
        "models",
        "schema",
        "scrape_targets",
        "upstreams",
    ]
    assert (result["schema"], result["fleet"]) == (1, "sandbox")
    assert list(result["hosts"]) == ["gpu-1", "gpu-2", "gw-1"]
    assert set(result["instances"][0]) - set(result["hosts"]["gpu-1"]["instances"][0]) == {
        "binds",
        "host",
        "kv_cache_tokens",
        "max_concurrency",
        "why",
    }


def test_slice_of_a_gpu_node() -> None:
    """All that the roles of a GPU node are given."""
    part = sandbox()["hosts"]["gpu-1"]
    instance = part["instances"][0]
    assert instance.pop("arguments")[:3] == ["/models/tiny-llama", "--served-model-name", "tiny-llama"]
    assert instance.pop("environment")["VLLM_CPU_OMP_THREADS_BIND"] == "0|1"
    assert part == {
        "group": "gpu_nodes",
        "address": "192.0.2.1",
        "expected_gpus": [
            {
                "pci_address": address,
                "device_id": "2330",
                "product": "H100 SXM5 80GB",
                "uuid": None,
                "mig": None,
                "split": False,
            }
            for address in ("0000:10:00.0", "0000:20:00.0")
        ],
        "gpu_requirements": {
            "cuda_version": None,
            "instances": [
                {
                    "name": "tiny-llama-0",
                    "gpus": ["0000:10:00.0", "0000:20:00.0"],
                    "minimum_compute_capability": "7.5",
                    "precisions": [],
                    "nvlink_required": False,
                }
            ],
        },
        "accelerator": "cpu",
        "driver": None,
        "models_directory": "/srv/models",
        "models": [
            {
                "name": "tiny-llama",
                "directory": "/srv/models/tiny-llama",
                "source": {"archive": {"url": "file:///srv/media/tiny.tar", "sha256": "1" * 64}},
                "files_sha256": {"config.json": "2" * 64},
            }
        ],
        "image": {
            "reference": "vllm:0.32.0",
            "archive": "file:///srv/media/vllm.tar",
            "archive_sha256": "3" * 64,
            "id": DIGEST,
        },
        "instances": [
            {
                "name": "tiny-llama-0",
                "model": "tiny-llama",
                "model_directory": "/srv/models/tiny-llama",
                "model_source": f"archive {'1' * 64}",
                "address": "192.0.2.1",
                "port": 8000,
                "backend": "docker",
                "accelerator": "cpu",
                "gpus": [
                    {"pci_address": "0000:10:00.0", "uuid": None, "index": 0, "cdi_device": "nvidia.com/gpu=0"},
                    {"pci_address": "0000:20:00.0", "uuid": None, "index": 1, "cdi_device": "nvidia.com/gpu=1"},
                ],
                "tensor_parallel_size": 2,
                "pipeline_parallel_size": 1,
                "workers": [],
                "context_length": 1024,
                "shm_size_bytes": 1073741824,
                "shutdown_timeout_seconds": 30,
                "stop_timeout_seconds": 45,
            }
        ],
        "worker_of": [],
        "engine_tls": {
            "mode": "none",
            "directory": "/etc/gpufleet/engine",
            "client_certificate_path": "/etc/gpufleet/pki/client.crt",
            "client_key_path": "/etc/gpufleet/pki/client.key",
            "ca_path": "/etc/gpufleet/pki/engines-ca.crt",
        },
        "engine_certificate": None,
        "client_certificate": None,
        "firewall": {
            "sets": {"gateways": ["192.0.2.201"], "management": ["198.51.100.0/24"]},
            "input": [{"name": "ssh", "source": "management", "protocol": "tcp", "ports": [22]}],
            "forward": [{"name": "engines", "source": "gateways", "protocol": "tcp", "ports": [8000]}],
            "routed": [],
        },
        "kubernetes": None,
    }


def test_slice_of_a_gateway() -> None:
    """All that the roles of a gateway are given."""
    result = sandbox()
    upstreams = [
        {
            "name": "tiny-llama",
            "model": "tiny-llama",
            "servers": [
                {"name": "gpu-1/tiny-llama-0", "address": "192.0.2.1", "port": 8000, "weight": 1},
                {"name": "gpu-2/tiny-llama-0", "address": "192.0.2.2", "port": 8000, "weight": 1},
            ],
            "tls": None,
        }
    ]
    assert result["upstreams"] == upstreams
    assert result["hosts"]["gw-1"] == {
        "group": "gateways",
        "address": "192.0.2.201",
        "upstreams": upstreams,
        "default_model": "tiny-llama",
        "endpoint": {"hostname": "llm.example.org", "port": 443, "alternative_names": []},
        "certificate": {
            "common_name": "llm.example.org",
            "subject_alt_names": ["DNS:llm.example.org", "IP:192.0.2.201"],
        },
        "client_certificate": None,
        "firewall": {
            "sets": {"management": ["198.51.100.0/24"]},
            "input": [
                {"name": "ssh", "source": "management", "protocol": "tcp", "ports": [22]},
                {"name": "https", "source": "any", "protocol": "tcp", "ports": [443]},
            ],
            "forward": [],
            "routed": [],
        },
        "kubernetes": None,
    }


def test_flows_certificates_and_scrape_targets() -> None:
    """What the fleet as a whole needs from its network."""
    result = sandbox()
    assert [(f["destination"], f["port"], f["source"], f["forwarded"]) for f in result["flows"]] == [
        ("gpu-1", 22, "management", False),
        ("gpu-1", 8000, "gateways", True),
        ("gpu-2", 22, "management", False),
        ("gpu-2", 8000, "gateways", True),
        ("gw-1", 22, "management", False),
        ("gw-1", 443, "any", False),
    ]
    assert set(result["flows"][0]) == {"destination", "protocol", "port", "source", "forwarded", "why"}
    assert result["certificates"] == [
        {
            "name": "gateway",
            "hosts": ["gw-1"],
            "common_name": "llm.example.org",
            "subject_alt_names": ["DNS:llm.example.org", "IP:192.0.2.201"],
        }
    ]
    assert result["scrape_targets"] == [
        {"job": "vllm", "host": name, "scheme": "http", "address": address, "port": 8000, "path": "/metrics"}
        for name, address in (("gpu-1", "192.0.2.1"), ("gpu-2", "192.0.2.2"))
    ]


def test_mutual_tls() -> None:
    """One switch decides whom certificates name, where they lie, who is asked how, and nothing else."""
    plain, result = sandbox(), sandbox(tls="mutual")
    assert texts(result) == []
    client = {
        "certificate_path": "/etc/gpufleet/pki/client.crt",
        "key_path": "/etc/gpufleet/pki/client.key",
        "ca_path": "/etc/gpufleet/pki/engines-ca.crt",
    }
    node, gateway = result["hosts"]["gpu-1"], result["hosts"]["gw-1"]
    assert node["engine_tls"] == {**plain["hosts"]["gpu-1"]["engine_tls"], "mode": "mutual"}
    assert node["engine_certificate"] == {
        "common_name": "engines of gpu-1",
        "subject_alt_names": ["DNS:engines.gpufleet.internal", "IP:192.0.2.1"],
        "certificate_path": "/etc/gpufleet/engine/tls.crt",
        "key_path": "/etc/gpufleet/engine/tls.key",
        "ca_path": "/etc/gpufleet/engine/ca.crt",
    }
    assert node["client_certificate"] == {
        "common_name": "client gpu-1",
        "subject_alt_names": ["IP:192.0.2.1"],
        **client,
    }
    assert gateway["client_certificate"] == {
        "common_name": "client gw-1",
        "subject_alt_names": ["IP:192.0.2.201"],
        **client,
    }
    assert gateway["certificate"] == plain["hosts"]["gw-1"]["certificate"]
    assert [upstream["tls"] for upstream in gateway["upstreams"]] == [
        {
            "server_name": "engines.gpufleet.internal",
            "certificate_path": client["certificate_path"],
            "certificate_key_path": client["key_path"],
            "ca_path": client["ca_path"],
            "handshake_timeout_seconds": 5,
        }
    ]
    assert [(c["name"], c["hosts"], c["common_name"]) for c in result["certificates"]] == [
        ("gateway", ["gw-1"], "llm.example.org"),
        ("engine", ["gpu-1"], "engines of gpu-1"),
        ("engine", ["gpu-2"], "engines of gpu-2"),
        ("client", ["gpu-1"], "client gpu-1"),
        ("client", ["gpu-2"], "client gpu-2"),
        ("client", ["gw-1"], "client gw-1"),
    ]
    assert {target["scheme"] for target in result["scrape_targets"]} == {"https"}
    assert (result["flows"], result["models"]) == (plain["flows"], plain["models"])


def test_a_long_host_name_still_makes_a_common_name() -> None:
    """X.509 ends a common name after 64 characters, and OpenSSL refuses a longer one."""
    machines = {f"{name}.{'a' * 60}.example.org": values for name, values in hosts(gpus(2)).items()}
    engine = {"image": {"reference": f"vllm:v0.32.0@{DIGEST}"}, "tls": "mutual"}
    result = plan(tiny(), machines=machines, fleet_engine=engine)
    assert texts(result) == []
    assert {len(c["common_name"]) for c in result["certificates"] if c["name"] != "gateway"} == {64}


def test_model() -> None:
    """What was decided about a model, with the memory that it takes."""
    decided = sandbox()["models"]["tiny-llama"]
    memory = decided.pop("memory")
    assert decided == {
        "tensor_parallel_size": 2,
        "tensor_parallel_sizes": [2],
        "pipeline_parallel_size": 1,
        "replicas": 2,
        "gpus": 4,
        "context_length": 1024,
        "concurrency": 4,
        "quantization": None,
        "facts": "given",
        "binds": "cpu_kv_cache",
        "binds_because": "fleet_engine.cpu_kv_cache_gib gives every rank 1 GiB of KV cache, whatever is free",
        "reason": "TP 2 as given: 4.0 MiB of 73.3 GiB per GPU; replicas 2 as given",
        "autoscaling": None,
    }
    assert (memory["kv_cache_tokens"], memory["kv_bytes_per_token"]) == (4194304, 256)
    parts = ("weights", "activations", "runtime", "margin", "kv_cache")
    assert memory["needed"] == sum(memory[part] for part in parts)


def test_ports_stay_when_another_model_comes() -> None:
    """The port is that of the first GPU, so an instance keeps it as long as it keeps its GPU."""
    result = plan(tiny(tensor_parallel_size=2, replicas=2), model("z", replicas=1), machines=hosts(gpus(8)))
    assert [(i["name"], i["port"]) for i in result["instances"]] == [
        ("tiny-llama-0", 8000),
        ("tiny-llama-1", 8002),
        ("z-0", 8004),
    ]


def test_two_models_have_no_default_unless_named() -> None:
    """/v1 goes to the only model, or to the one that is named."""
    machines = hosts(gpus(2))
    assert plan(tiny("a"), tiny("b"), machines=machines)["hosts"]["gw-1"]["default_model"] is None
    named = plan(
        tiny("a"),
        tiny("b"),
        machines=machines,
        fleet_endpoint={"hostname": "192.0.2.7", "port": 8443, "default_model": "b", "alternative_names": ["*.a.org"]},
    )
    assert named["hosts"]["gw-1"]["default_model"] == "b"
    assert named["hosts"]["gw-1"]["certificate"] == {
        "common_name": "192.0.2.7",
        "subject_alt_names": ["DNS:*.a.org", "IP:192.0.2.201", "IP:192.0.2.7"],
    }
    assert [f["port"] for f in named["flows"] if f["source"] == "any"] == [8443]


def test_ssh_on_another_port() -> None:
    """The port that Ansible connects to is open beside 22: either may be the one behind a translation."""
    machines = hosts(gpus(1))
    machines["gpu-1"]["ansible_port"] = 2222
    result = plan(tiny(), machines=machines)
    assert result["hosts"]["gpu-1"]["firewall"]["input"][0]["ports"] == [22, 2222]
    assert result["hosts"]["gw-1"]["firewall"]["input"][0]["ports"] == [22]


def test_uuid_names_the_device() -> None:
    """Once a driver is there, GPUs are named by UUID, which does not change with the order on the bus."""
    result = plan(tiny(), machines=hosts(gpus(1, uuid="GPU-1234")))
    assert result["instances"][0]["gpus"][0]["cdi_device"] == "nvidia.com/gpu=GPU-1234"


def test_ipv6() -> None:
    """Addresses are written in one way, and the sets hold both families."""
    machines = hosts(gpus(1), gateways=2)
    machines["gw-1"]["fleet_address"] = "2001:DB8:0::1"
    result = plan(tiny(), machines=machines, fleet_management_networks=["2001:db8::/32", "198.51.100.0/24"])
    assert result["hosts"]["gw-1"]["address"] == "2001:db8::1"
    assert result["hosts"]["gpu-1"]["firewall"]["sets"] == {
        "gateways": ["192.0.2.202", "2001:db8::1"],
        "management": ["198.51.100.0/24", "2001:db8::/32"],
    }


def test_a_node_without_instances() -> None:
    """It has no model, no engine and no open engine port."""
    part = plan(tiny(replicas=1), machines=hosts(gpus(1), gpus(1)))["hosts"]["gpu-2"]
    assert (part["models"], part["instances"], part["firewall"]["forward"]) == ([], [], [])
    assert part["firewall"]["sets"] == {"management": ["198.51.100.0/24"]}


@pytest.mark.parametrize(
    ("products", "weights"),
    [
        (("H100 SXM5 80GB", "H100 SXM5 80GB"), [1, 1]),
        (("H100 SXM5 80GB", "A100 SXM4 80GB"), [1, 1]),
        (("H100 SXM5 80GB", "L40S"), [5, 3]),
        (("H200 SXM", "H100 SXM5 80GB"), [9, 5]),
    ],
)
def test_weights(products: tuple[str, str], weights: list[int]) -> None:
    """Equal where the memory is about equal, else in its proportion."""
    result = plan(model(), machines=hosts(*(gpus(1, product) for product in products)))
    assert [server["weight"] for server in result["upstreams"][0]["servers"]] == weights


def test_the_reason_names_what_was_tried() -> None:
    """auto says which size was too small, and by how much."""
    result = plan(model(), machines=hosts(gpus(4, "L4")))
    assert result["models"]["autoglm"]["reason"] == (
        "TP 2 is the smallest that fits: 17.7 GiB of 20.7 GiB per GPU; TP 1 needs 29.2 GiB; "
        "replicas 2 its share of the GPUs, 4"
    )
