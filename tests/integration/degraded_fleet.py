# SPDX-License-Identifier: Apache-2.0
"""A fleet in which every GPU node has another fault. SIMULATED: each host is this machine with GPUs of its own.

A host has a sysfs tree and a stand-in for NVML (tools/sandbox/simulated_gpu), and a record that was made before the
fault came. The host `frozen` has no NVML, so the program nvidia-smi is asked there, and that never answers. The host
`gone` is behind a port at which nobody listens.
"""

from __future__ import annotations

import copy
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml
from artefact import ROOT, TOOLS, Installed

SIMULATED = ROOT / "tools" / "sandbox" / "simulated_gpu"
ADDRESSES = ("0000:17:00.0", "0000:3d:00.0")
PRODUCTS = {
    "V100": {"device_id": "1DB5", "memory_mib": 32510, "compute_capability": "7.0", "product": "V100 SXM2 32GB"},
    "H100": {"device_id": "2330", "memory_mib": 81559, "compute_capability": "9.0", "product": "H100 SXM5 80GB"},
    "H200": {"device_id": "2335", "memory_mib": 143771, "compute_capability": "9.0", "product": "H200 SXM"},
}
FROZEN = "#!/bin/sh\nexec sleep 600\n"

#: A playbook to run first, in the same run: facts that every host shows whatever this machine is, so that nobody asks.
FACTS_PLAYBOOK = [
    {
        "name": "Take every host for one that is supported",
        "hosts": "all",
        "gather_facts": False,
        "tasks": [
            {
                "name": "Set its facts",
                "ansible.builtin.set_fact": {
                    "architecture": "x86_64",
                    "distribution": "Debian",
                    "distribution_major_version": "13",
                    "distribution_version": "13.1",
                    "python": {"version": {"major": 3, "minor": 11}, "executable": sys.executable},
                    "service_mgr": "systemd",
                    "cacheable": True,
                },
            }
        ],
    }
]

FLEET: dict[str, Any] = {
    "fleet_management_networks": ["198.51.100.0/24"],
    "fleet_engine": {"image": {"reference": f"registry.example.org/vllm:v0.32.0@sha256:{'0' * 64}"}},
    "fleet_endpoint": {"hostname": "llm.example.org"},
    "fleet_models": [
        {
            "name": "small",
            "source": {"path": "/srv/media/small"},
            "config": {
                "num_hidden_layers": 2,
                "hidden_size": 64,
                "num_attention_heads": 4,
                "num_key_value_heads": 2,
                "head_dim": 32,
                "intermediate_size": 128,
                "vocab_size": 1024,
                "max_position_embeddings": 4096,
                "dtype": "bfloat16",
            },
            "weights_bytes": 461568,
            "context_length": 1024,
            "tensor_parallel_size": 2,
            "replicas": 8,
        }
    ],
}


def play(installed: Installed, inventory: Path, *arguments: str) -> tuple[int, str]:
    """Run a playbook after the facts; returns its exit status and what it printed."""
    place = inventory.parent
    environment = {
        **os.environ,
        **installed.environment,
        "PATH": f"{place / 'programs'}{os.pathsep}{TOOLS}{os.pathsep}{os.environ['PATH']}",
        "ANSIBLE_NOCOLOR": "1",
        "ANSIBLE_CALLBACK_RESULT_FORMAT": "yaml",
    }
    ended = subprocess.run(
        ["ansible-playbook", "-i", str(inventory), str(place / "facts.yml"), *arguments],
        cwd=place,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    return ended.returncode, ended.stdout


def simulate(place: Path, descriptions: dict[str, dict[str, Any]]) -> dict[str, dict[str, str]]:
    """Write simulated GPUs for each host below ``place``; returns the variables that lead to them, by host."""
    library = None
    variables = {}
    for name, description in descriptions.items():
        directory = place / "hosts" / name
        (place / f"{name}.json").write_text(json.dumps(description), encoding="utf-8")
        options = ["--no-library"] if library else []
        subprocess.run(
            [sys.executable, str(SIMULATED / "make_sysfs.py"), *options, str(place / f"{name}.json"), str(directory)],
            check=True,
        )
        if library:
            shutil.copyfile(library, directory / "libnvidia-ml.so.1")
        library = directory / "libnvidia-ml.so.1"
        variables[name] = {"fleet_sysfs_root": str(directory / "sys"), "fleet_nvml_library": str(library)}
    return variables


def gpu(kind: str, address: str, **changes: Any) -> dict[str, Any]:
    """Return one simulated GPU; the other one of its host is its NVLink peer."""
    described = {key: value for key, value in PRODUCTS[kind].items() if key != "product"}
    return {
        "pci_address": address,
        "subsystem_id": "10DE:16C1",
        "name": f"Simulated {kind}",
        "mig_enabled": False,
        "ecc_enabled": True,
        "persistence_mode": True,
        "nvlink_peers": [other for other in ADDRESSES if other != address],
        **described,
        **changes,
    }


def host(kind: str = "H100", **changes: Any) -> dict[str, Any]:
    """Return the description of a host with two GPUs that are as recorded."""
    return {
        "driver_version": "580.105.08-simulated",
        "cuda_version": "13.0",
        "gpus": [gpu(kind, address) for address in ADDRESSES],
        **changes,
    }


def switched(host_: dict[str, Any]) -> dict[str, Any]:
    """Return the host with NVSwitches, before Fabric Manager has done its work."""
    described = copy.deepcopy(host_)
    described["nvswitches"] = ["0000:07:00.0", "0000:08:00.0"]
    for one in described["gpus"]:
        one["fabric"] = {"state": "in progress", "status_code": 0}
    return described


#: What each host is now. What was recorded of it are two H100, on `old` two V100.
HOSTS = {
    "old": host("V100"),
    "short": host(gpus=[gpu("H100", ADDRESSES[0], nvlink_peers=[])]),
    "mixed": host(gpus=[gpu("H100", ADDRESSES[0]), gpu("H200", ADDRESSES[1])]),
    "split": host(gpus=[gpu("H100", ADDRESSES[0], mig_enabled=True), gpu("H100", ADDRESSES[1])]),
    "outdated": host(driver_version="535.309.01-simulated", cuda_version="12.2"),
    "switch": switched(host()),
    "dropped": host(gpus=[gpu("H100", ADDRESSES[0], nvlink_peers=[]), gpu("H100", ADDRESSES[1], in_driver=False)]),
    "frozen": host(),
}
FINDINGS = {
    "old": ["gpu_too_old", "gpu_too_old"],
    "short": ["gpu_missing"],
    "mixed": ["gpu_replaced", "instance_products_mixed"],
    "split": ["mig_enabled"],
    "outdated": ["driver_too_old_for_cuda"],
    "switch": ["fabric_not_ready", "fabric_not_ready"],
    "dropped": ["gpu_not_in_driver"],
    "frozen": ["driver_hung"],
    "gone": ["host_unreachable"],
}


def record(kind: str) -> dict[str, Any]:
    """Return the recorded hardware of a host; it says nothing about simulation, so the plan takes it for real."""
    return {
        "gpus": [
            {
                "pci_address": address,
                "subsystem_id": "10DE:16C1",
                "uuid": None,
                "numa_node": 0,
                "mig_enabled": False,
                "nvlink_peers": [other for other in ADDRESSES if other != address],
                **PRODUCTS[kind],
            }
            for address in ADDRESSES
        ]
    }


def build(place: Path) -> Path:
    """Write hosts, records and the inventory; returns the inventory's directory."""
    variables: dict[str, dict[str, Any]] = {
        name: {
            "fleet_address": f"192.0.2.{number}",
            "gpu_inventory": record("V100" if name == "old" else "H100"),
            **simulated,
        }
        for number, (name, simulated) in enumerate(simulate(place, HOSTS).items(), 1)
    }
    programs = place / "programs"
    programs.mkdir()
    (programs / "nvidia-smi").write_text(FROZEN, encoding="utf-8")
    (programs / "nvidia-smi").chmod(0o755)
    variables["gone"] = {
        "fleet_address": f"192.0.2.{len(HOSTS) + 1}",
        "gpu_inventory": record("H100"),
        "ansible_connection": "ssh",
        "ansible_host": "127.0.0.1",
        "ansible_port": 1,
    }
    variables["frozen"]["fleet_nvml_library"] = str(place / "there-is-none" / "libnvidia-ml.so.1")
    inventory = place / "inventory"
    inventory.mkdir()
    everybody = {
        "ansible_connection": "local",
        "ansible_python_interpreter": sys.executable,
        "preflight_deadline_seconds": 5,
        **FLEET,
    }
    groups = {"gpu_nodes": {"hosts": variables}, "gateways": {"hosts": {"gw": {"fleet_address": "192.0.2.200"}}}}
    document = {"all": {"vars": everybody, "children": groups}}
    (inventory / "hosts.yml").write_text(yaml.safe_dump(document), encoding="utf-8")
    (place / "facts.yml").write_text(yaml.safe_dump(FACTS_PLAYBOOK), encoding="utf-8")
    return inventory
