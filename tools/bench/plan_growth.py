# SPDX-License-Identifier: Apache-2.0
"""Measure how the plan grows with the fleet: seconds and memory from 10 to 1,000 hosts of 8 GPUs with 20 models.

    python -m tools.bench.plan_growth                       # the pure function, and JSON, table and picture
    python -m tools.bench.plan_growth --hosts 10,1000
    python -m tools.bench.plan_growth --playbook 1000       # also ansible-playbook plan.yml on such an inventory

Seconds are this machine's, the fastest of three runs; MiB are the most that Python held while the function ran. `again`
plans anew with the first plan applied. No test depends on any of these numbers.
"""

from __future__ import annotations

import argparse
import importlib
import json
import shutil
import sys
import time
import tracemalloc
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from ..checks import copy_collection
from ..checks.repository import COPY
from . import bench

PACKAGE = "ansible_collections.gpufleet.metal.plugins.module_utils._plan"
HOSTS = "10,30,100,300,1000"
MODELS = 20
GPUS = 8
GATEWAYS = 4
STEPS = ("plan", "again", "JSON", "table", "SVG")
RUNS = 3
MIB = 1024 * 1024
HEADER = "# SPDX-License-Identifier: Apache-2.0\n# Made by tools/bench/plan_growth.py.\n"

#: (layers, hidden size, heads, KV heads, intermediate size, weights in GB, context, replicas): what fleets serve.
SHAPES = (
    (80, 8192, 64, 8, 28672, 141, 32768, None),
    (32, 4096, 32, 8, 14336, 16, 16384, None),
    (28, 3584, 28, 4, 18944, 15, 8192, 2),
    (48, 5120, 40, 8, 13824, 29, 32768, None),
)
PRODUCTS = (("H100 SXM5 80GB", "2330", 81559, "9.0"), ("A100 SXM4 80GB", "20B2", 81920, "8.0"))


@dataclass(frozen=True)
class Cost:
    """What one step took."""

    seconds: float
    peak_mib: float


@dataclass(frozen=True)
class Measurement:
    """One size of fleet."""

    hosts: int
    gpus: int
    instances: int
    costs: dict[str, Cost]


def model(number: int) -> dict[str, Any]:
    """Return an entry of fleet_models."""
    layers, hidden, heads, kv_heads, intermediate, weights, context, replicas = SHAPES[number % len(SHAPES)]
    return {
        "name": f"model-{number + 1:02}",
        "source": {"path": f"/srv/media/models/model-{number + 1:02}"},
        "config": {
            "torch_dtype": "bfloat16",
            "num_hidden_layers": layers,
            "hidden_size": hidden,
            "num_attention_heads": heads,
            "num_key_value_heads": kv_heads,
            "head_dim": 128,
            "intermediate_size": intermediate,
            "vocab_size": 128256,
            "max_position_embeddings": 131072,
        },
        "weights_bytes": weights * 10**9,
        "context_length": context,
        "concurrency": 4,
        "replicas": replicas or "auto",
        "arguments": {"enable-prefix-caching": True},
    }


def record(host: int) -> dict[str, Any]:
    """Return the recorded hardware of a host: one NVLink domain on two NUMA nodes."""
    product, device, memory, capability = PRODUCTS[host % len(PRODUCTS)]
    addresses = [f"0000:{0x10 + 0x10 * index:02x}:00.0" for index in range(GPUS)]
    return {
        "simulated": False,
        "driver_version": None,
        "cuda_version": None,
        "gpus": [
            {
                "pci_address": address,
                "device_id": device,
                "subsystem_id": None,
                "product": product,
                "uuid": None,
                "memory_mib": memory,
                "compute_capability": capability,
                "numa_node": index * 2 // GPUS,
                "mig_enabled": False,
                "nvlink_peers": [other for other in addresses if other != address],
            }
            for index, address in enumerate(addresses)
        ],
    }


def fleet_variables() -> dict[str, Any]:
    """Return the variables of the whole fleet."""
    return {
        "fleet_name": "bench",
        "fleet_management_networks": ["10.0.0.0/8"],
        "fleet_models": [model(number) for number in range(MODELS)],
        "fleet_engine": {"image": {"reference": f"docker.io/vllm/vllm-openai:v0.32.0@sha256:{'0' * 64}"}},
        "fleet_endpoint": {"hostname": "llm.example.org"},
    }


def host_variables(hosts: int) -> dict[str, dict[str, Any]]:
    """Return the variables of every host."""
    nodes = {
        f"gpu-{host + 1}": {"ansible_host": f"10.1.{host // 250}.{host % 250 + 1}", "gpu_inventory": record(host)}
        for host in range(hosts)
    }
    gateways = {f"gw-{host + 1}": {"ansible_host": f"10.2.0.{host + 1}"} for host in range(GATEWAYS)}
    return {**nodes, **gateways}


def groups(hosts: int) -> dict[str, list[str]]:
    """Return the hosts of each group."""
    return {
        "gpu_nodes": [f"gpu-{host + 1}" for host in range(hosts)],
        "gateways": [f"gw-{host + 1}" for host in range(GATEWAYS)],
    }


def write_inventory(hosts: int, directory: Path) -> None:
    """Write the same fleet as an inventory, with one file of host_vars for each GPU node as `discover` writes it."""
    shutil.rmtree(directory, ignore_errors=True)
    (directory / "group_vars").mkdir(parents=True)
    variables = host_variables(hosts)
    children = {
        group: {"hosts": {name: {"ansible_host": variables[name]["ansible_host"]} for name in names}}
        for group, names in groups(hosts).items()
    }
    files = {
        directory / "hosts.yml": {"all": {"children": children}},
        directory / "group_vars" / "all.yml": fleet_variables(),
    }
    for name in groups(hosts)["gpu_nodes"]:
        (directory / "host_vars" / name).mkdir(parents=True)
        files[directory / "host_vars" / name / "gpu_inventory.yml"] = {
            "gpu_inventory": variables[name]["gpu_inventory"]
        }
    for path, content in files.items():
        path.write_text(f"---\n{HEADER}{yaml.safe_dump(content, sort_keys=True)}", encoding="utf-8")


def measured(step: Callable[[], Any]) -> tuple[Cost, Any]:
    """Return what a step takes, and what it returns."""
    seconds = []
    for __ in range(RUNS):
        started = time.perf_counter()
        step()
        seconds.append(time.perf_counter() - started)
    # Tracing makes everything slower, so memory is measured in a run of its own.
    tracemalloc.start()
    try:
        result = step()
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    return Cost(min(seconds), peak / MIB), result


def measure(hosts: int) -> Measurement:
    """Measure one size of fleet; the planner is imported from the copy, where its import names are true."""
    builder, table, picture, applied, schema = (
        importlib.import_module(f"{PACKAGE}.{name}") for name in ("builder", "table", "picture", "applied", "schema")
    )
    inventory = schema.Inventory(groups(hosts), fleet_variables(), host_variables(hosts))
    costs: dict[str, Cost] = {}
    costs["plan"], plan = measured(lambda: builder.build_plan(inventory))
    if plan["findings"]:
        raise bench.BenchError(f"{hosts} hosts: the plan has findings, the first is {plan['findings'][0]}")
    text = table.plan_as_json(applied.applied_plan(plan, None, list(plan["hosts"])))
    running = replace(inventory, applied=applied.read_applied(text, "applied.json"))
    costs["again"], again = measured(lambda: builder.build_plan(running))
    if again != plan:
        raise bench.BenchError(f"{hosts} hosts: the plan is another one once it was applied")
    for step, render in (("JSON", table.plan_as_json), ("table", table.plan_as_table), ("SVG", picture.plan_as_svg)):
        costs[step], _text = measured(lambda render=render: render(plan))  # type: ignore[misc]
    return Measurement(hosts, hosts * GPUS, len(plan["instances"]), costs)


def growth_table(measurements: Sequence[Measurement]) -> list[str]:
    """Return the table of all sizes, and how the last compares with the first."""
    head = ["hosts", "GPUs", "instances", *(f"{step} {unit}" for step in STEPS for unit in ("s", "MiB"))]
    rows = [head]
    for item in measurements:
        cells = [str(item.hosts), str(item.gpus), str(item.instances)]
        for step in STEPS:
            cells += [f"{item.costs[step].seconds:.3f}", f"{item.costs[step].peak_mib:.1f}"]
        rows.append(cells)
    widths = [max(len(row[column]) for row in rows) for column in range(len(head))]
    lines = ["  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]
    if len(measurements) > 1:
        first, last = measurements[0], measurements[-1]
        grown = ", ".join(
            f"{step} {last.costs[step].seconds / first.costs[step].seconds:.0f} times the seconds and "
            f"{last.costs[step].peak_mib / first.costs[step].peak_mib:.0f} times the memory"
            for step in STEPS
        )
        lines.append(f"from {first.hosts} to {last.hosts} hosts ({last.hosts / first.hosts:.0f} times): {grown}")
    return lines


def playbook(hosts: int) -> str:
    """Run plan.yml twice on an inventory of this size, and return what the runs cost as a line."""
    directory = bench.OUTPUT / f"plan-{hosts}"
    write_inventory(hosts, directory)
    texts = []
    for run in ("first", "second"):
        cost = bench.run_playbook("plan.yml", [directory], bench.OUTPUT / f"plan-{hosts}-{run}.log")
        texts.append(f"{run} run {cost.wall_seconds:.1f} s, CPU {cost.cpu_seconds:.1f} s, {cost.max_rss_mib:.0f} MiB")
    return f"ansible-playbook plan.yml on {hosts} hosts: {'; '.join(texts)}"


def main(arguments: Sequence[str]) -> int:
    """Measure what the command line asks for, print it, and write build/bench/plan_growth.json."""
    parser = argparse.ArgumentParser(description="Measure how the plan grows with the fleet.")
    parser.add_argument("--hosts", default=HOSTS, help=f"numbers of hosts, growing (default {HOSTS})")
    parser.add_argument("--playbook", type=int, metavar="HOSTS", help="also run plan.yml on an inventory of this size")
    options = parser.parse_args(arguments)
    copy_collection.main()
    sys.path.insert(0, str(COPY.parent.parent.parent))
    try:
        measurements = [measure(hosts) for hosts in sorted({int(text) for text in options.hosts.split(",")})]
        for line in growth_table(measurements):
            bench.say(line)
        report = [
            {
                "hosts": item.hosts,
                "gpus": item.gpus,
                "instances": item.instances,
                **{step: {"seconds": cost.seconds, "peak_mib": cost.peak_mib} for step, cost in item.costs.items()},
            }
            for item in measurements
        ]
        bench.OUTPUT.mkdir(parents=True, exist_ok=True)
        (bench.OUTPUT / "plan_growth.json").write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
        if options.playbook:
            bench.say(playbook(options.playbook))
    except (bench.BenchError, ValueError) as error:
        print(f"plan_growth: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
