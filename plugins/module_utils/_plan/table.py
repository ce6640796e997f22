# SPDX-License-Identifier: Apache-2.0
# PRIVATE to the collection: do not import this from outside, it may change without notice.
"""The plan for a terminal: aligned plain text."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from typing import Any

from .findings import natural_key
from .memory import gib
from .parts import parts, used_gpus


def plan_as_json(plan: Mapping[str, Any]) -> str:
    """Return the plan as JSON: sorted keys, two spaces, a newline at the end; the same bytes for the same plan."""
    text = io.StringIO()
    # Piece by piece: a list of all pieces would take several times the memory of the text.
    for piece in json.JSONEncoder(sort_keys=True, indent=2, ensure_ascii=False).iterencode(plan):
        text.write(piece)
    return text.getvalue() + "\n"


def aligned(rows: Sequence[Sequence[str]], right: Sequence[int] = ()) -> list[str]:
    """Return the rows as lines with columns two spaces apart; columns named in ``right`` are aligned to the right."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = [cell.rjust(widths[i]) if i in right else cell.ljust(widths[i]) for i, cell in enumerate(row)]
        lines.append("  ".join(cells).rstrip())
    return lines


def count(number: int, noun: str) -> str:
    """Return ``1 host`` or ``2 hosts``."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def ranges(numbers: Sequence[int]) -> str:
    """Return sorted whole numbers as ``0-3,6``."""
    parts: list[list[int]] = []
    for number in sorted(numbers):
        if parts and number == parts[-1][1] + 1:
            parts[-1][1] = number
        else:
            parts.append([number, number])
    return ",".join(str(first) if first == last else f"{first}-{last}" for first, last in parts)


def parallel(model: Mapping[str, Any]) -> str:
    """Return the GPUs of an instance: on each host, and on how many hosts where it is on several."""
    sizes = "/".join(map(str, model["tensor_parallel_sizes"]))
    return sizes if model["pipeline_parallel_size"] == 1 else f"{sizes} x {model['pipeline_parallel_size']}"


def summary(plan: Mapping[str, Any]) -> str:
    """Return the fleet's size in one line."""
    nodes = [host for host in plan["hosts"].values() if host["group"] == "gpu_nodes"]
    gateways = sum(1 for host in plan["hosts"].values() if host["group"] == "gateways")
    control_planes = sum(1 for host in plan["hosts"].values() if host["group"] == "kube_control_plane")
    workers = sum(1 for host in plan["hosts"].values() if host["group"] == "kube_nodes")
    watchers = sum(1 for host in plan["hosts"].values() if host["group"] == "monitoring")
    gpus = sum(len(host["expected_gpus"]) for host in nodes)
    used = used_gpus(plan["instances"])
    split = sum(1 for host in nodes for gpu in host["expected_gpus"] if gpu["mig"] is not None)
    cluster = f"{count(control_planes, 'control plane')}, " if control_planes else ""
    cluster += f"{count(workers, 'worker')} without GPUs, " if workers else ""
    cluster += f"{count(watchers, 'monitoring host')}, " if watchers else ""
    # Engines run on the CPU only where the GPUs are simulated: say so wherever the fleet is shown.
    noun = "simulated GPU" if any(i["accelerator"] == "cpu" for i in plan["instances"]) else "GPU"
    return (
        f"Fleet {plan['fleet']}: {count(len(nodes), 'GPU node')} with {count(gpus, noun)} ({used} in use, "
        f"{gpus - used - split} free), {count(gateways, 'gateway')}, {cluster}{count(len(plan['models']), 'model')}, "
        f"{count(len(plan['instances']), 'instance')}"
    )


def plan_as_table(plan: Mapping[str, Any]) -> str:
    """Return which model runs where and why, what is free, and what clients connect to.

    ASKED and HOLDS are requests of full length that one instance holds at once: as wanted, and as there is room for.
    """
    lines = [summary(plan), ""]
    models = [("MODEL", "INSTANCES", "TP", "CONTEXT", "ASKED", "PER GPU", "BINDS", "WHY")]
    for name in sorted(plan["models"], key=natural_key):
        model = plan["models"][name]
        models.append(
            (
                name,
                str(model["replicas"]),
                parallel(model),
                str(model["context_length"]),
                str(model["concurrency"]),
                gib(model["memory"]["needed"]),
                model["binds"],
                f"{model['reason']}; {model['binds_because']}",
            )
        )
    if len(models) > 1:
        lines += [*aligned(models, right=(1, 2, 3, 4, 5)), ""]
    weights = {server["name"]: server["weight"] for upstream in plan["upstreams"] for server in upstream["servers"]}
    rows = [("HOST", "GPUS", "MODEL", "INSTANCE", "ADDRESS", "WEIGHT", "KV TOKENS", "HOLDS", "PLACED ON")]
    free = []
    split = []
    by_host: dict[str, list[Mapping[str, Any]]] = {}
    for part_of_it in parts(plan["instances"]):
        by_host.setdefault(part_of_it["host"], []).append(part_of_it)
    for host in sorted(plan["hosts"], key=natural_key):
        part = plan["hosts"][host]
        if part["group"] != "gpu_nodes":
            continue
        taken: set[int] = set()
        for instance in by_host.get(host, ()):
            indices = [gpu["index"] for gpu in instance["gpus"]]
            taken.update(indices)
            if instance["leader"]:
                behind = f"of {instance['leader']}"
                rows.append((host, ranges(indices), instance["model"], behind, "", "", "", "", instance["why"]))
                continue
            address = instance["address"] or "?"
            rows.append(
                (
                    host,
                    ranges(indices),
                    instance["model"],
                    instance["name"],
                    f"[{address}]:{instance['port']}" if ":" in address else f"{address}:{instance['port']}",
                    str(weights[f"{host}/{instance['name']}"]),
                    str(instance["kv_cache_tokens"]),
                    str(int(instance["max_concurrency"])),
                    instance["why"],
                )
            )
        gpus = part["expected_gpus"]
        idle = [index for index, gpu in enumerate(gpus) if index not in taken and gpu["mig"] is None]
        apart = [index for index, gpu in enumerate(gpus) if gpu["mig"] is not None]
        if apart:
            split.append(f"{host} {ranges(apart)}")
        if idle:
            free.append(f"{host} {ranges(idle)}")
    if len(rows) > 1:
        lines += [*aligned(rows, right=(5, 6, 7)), ""]
    lines += _driver_lines(plan)
    lines += _cluster_lines(plan)
    lines += _monitoring_lines(plan)
    lines.append(f"Free GPUs: {'; '.join(free) if free else 'none'}")
    if split:
        lines.append(f"Left to MIG (nvidia_driver_mig): {'; '.join(split)}")
    lines += _endpoint_lines(plan)
    return "\n".join(lines) + "\n"


def some(names: Sequence[str]) -> str:
    """Return up to four names, or how many there are from the first to the last."""
    return ", ".join(names) if len(names) <= 4 else f"{len(names)} hosts, {names[0]} to {names[-1]}"


def _driver_lines(plan: Mapping[str, Any]) -> list[str]:
    """Return the drivers that GPU nodes get, the hosts with the same one in one row."""
    hosts: dict[tuple[str, ...], list[str]] = {}
    for name in sorted(plan["hosts"], key=natural_key):
        driver = plan["hosts"][name].get("driver")
        if driver is not None:
            version = driver["version"] or f"{driver['branch']}, the newest offered"
            components = ", ".join(driver["components"]) or "-"
            hosts.setdefault((version, components, driver["why"]), []).append(name)
    rows = [("DRIVER", "WITH", "HOSTS", "WHY")]
    rows += [(version, components, some(names), why) for (version, components, why), names in hosts.items()]
    return [*aligned(rows), ""] if hosts else []


def _cluster_lines(plan: Mapping[str, Any]) -> list[str]:
    """Return what Kubernetes runs on, where it is reached, and which hosts' engines it runs."""
    cluster = plan["kubernetes"]
    if cluster is None:
        return []
    rows = [("KUBERNETES", "HOSTS", "API SERVER", "PODS", "SERVICES")]
    port = cluster["api_server"]["port"]
    address = cluster["api_server"]["address"] or "?"
    api = f"https://{address}:{port}"
    virtual = any(plan["hosts"][name]["kubernetes"]["virtual_address"] for name in cluster["control_plane"][:1])
    rows.append(
        (
            f"{cluster['version']} control plane",
            some(cluster["control_plane"]) if cluster["control_plane"] else "none",
            f"{api} (moves between them)" if virtual else api,
            f"{cluster['pod_network']} by Flannel ({cluster['flannel_backend']})",
            cluster["service_network"],
        )
    )
    rows.append((f"{cluster['version']} nodes", some(cluster["nodes"]) if cluster["nodes"] else "none", "", "", ""))
    inside = {instance["host"] for instance in plan["instances"] if instance["backend"] == "kubernetes"}
    outside = {instance["host"] for instance in plan["instances"]} - inside
    lines = [*aligned(rows)]
    if inside:
        names = some(sorted(inside, key=natural_key))
        lines.append(f"Kubernetes runs the engines of {names} in the namespace {cluster['namespace']}")
    if outside:
        lines.append(f"Docker runs the engines of {some(sorted(outside, key=natural_key))}")
    return [*lines, ""]


def _monitoring_lines(plan: Mapping[str, Any]) -> list[str]:
    """Return who watches whom."""
    watchers = sorted((name for name, host in plan["hosts"].items() if host["group"] == "monitoring"), key=natural_key)
    if not watchers:
        return []
    port = plan["hosts"][watchers[0]]["exporter"]["port"]
    schemes = {target["scheme"] for target in plan["scrape_targets"] if target["job"] == "vllm"}
    how = "over mutual TLS" if schemes == {"https"} else "without TLS"
    engines = f", and {count(len(plan['instances']), 'engine')} {how}" if plan["instances"] else ""
    hosts = count(len(plan["hosts"]), "host")
    return [f"Prometheus on {some(watchers)} asks {hosts} at port {port} over mutual TLS{engines}", ""]


def _endpoint_lines(plan: Mapping[str, Any]) -> list[str]:
    gateways = [name for name, host in plan["hosts"].items() if host["group"] == "gateways"]
    if not gateways:
        return []
    gateways.sort(key=natural_key)
    first = plan["hosts"][gateways[0]]
    endpoint = first["endpoint"]
    port = "" if endpoint["port"] == 443 else f":{endpoint['port']}"
    url = f"https://{endpoint['hostname']}{port}"
    lines = [f"Endpoint:  {url}/v1 on {', '.join(gateways)}"]
    default = first["default_model"]
    rest = f"/v1 goes to {default}" if default else "/v1 has no default model: /models/<name>/v1 only"
    lines.append(f"           {rest}")
    if first["client_certificate"]:
        lines.append("           gateways and engines prove themselves to each other by certificates (mutual TLS)")
    return lines
