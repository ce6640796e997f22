# SPDX-License-Identifier: Apache-2.0
# PRIVATE to the collection: do not import this from outside, it may change without notice.
"""The plan: every decision about the fleet, as a pure function of inventory variables.

No I/O, no clock, no gathered fact; the same data for the same inventory in whatever order its parts come.
"""

from __future__ import annotations

import hashlib
import ipaddress
import json
import math
import posixpath
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import reduce
from typing import Any

from .applied import running_instances
from .autoscaling import plan_autoscaling, shown_autoscaling
from .capability import gpu_requirements
from .cluster import cluster_document, cluster_sets, cluster_slices, port_finding
from .decisions import Decision, capability_text, decide, gpu_groups, kind_key, size_reason
from .document import SCHEMA
from .driver import driver_slice
from .engine import serve_arguments, serve_environment, stop_timeout_seconds
from .engine_tls import client_certificate, engine_certificate, engine_tls, scheme, upstream_tls
from .findings import Finding, natural_key, some_of, sort_findings
from .flows import Flow, host_firewall, plan_flows
from .inventory import read_fleet
from .kv_cache import GIB
from .mig import SPLIT
from .monitoring import (
    ENGINE_JOB,
    METRICS_PATH,
    exporter_port_findings,
    exporter_slice,
    exporter_targets,
    monitoring_sets,
    prometheus_slice,
)
from .parallel import MINIMUM_CAPABILITY
from .placement import LINKS, Demand, Placed, place
from .reader import address_key
from .schema import Endpoint, Engine, Fleet, Gpu, Host, Inventory, Model

#: Keys of an instance that describe it: for those who read the plan, not for the role that runs it.
DESCRIPTION = frozenset({"host", "why", "kv_cache_tokens", "max_concurrency", "binds"})

#: GPU memory that makes one unit of a server's weight.
WEIGHT_UNIT_MIB = 8192


def _free_text(free: Mapping[str, Sequence[Gpu]]) -> str:
    """Return which GPUs are free, host by host."""
    parts = [
        f"{name} {', '.join(gpu.pci_address for gpu in free[name])}"
        for name in sorted(free, key=natural_key)
        if free[name]
    ]
    if not parts:
        return "none"
    return "; ".join(parts[:4]) + (f"; and on {len(parts) - 4} more hosts" if len(parts) > 4 else "")


def _placement_finding(
    decision: Decision, placed: Sequence[Placed], free: Mapping[str, Sequence[Gpu]], blind: Sequence[str]
) -> Finding | None:
    """Return the finding when a model got fewer instances than it wants."""
    model = decision.model
    got = sum(1 for instance in placed if instance.model == model.name)
    want = model.replicas if model.replicas is not None else 1
    if got >= want:
        return None
    sizes = sorted({choice.size for choice in decision.choices.values()})
    held: dict[str, int] = {}
    for instance in placed:
        held[instance.model] = held.get(instance.model, 0) + instance.every_gpu
    holders = [f"{name} {held[name]}" for name in sorted(held, key=natural_key)]
    several = model.pipeline_parallel_size > 1
    place = f"each of {model.pipeline_parallel_size} hosts of kube_nodes, for each" if several else "one host each"
    one = sizes == [1] and not several
    number = f"{' or '.join(map(str, sizes))} {'GPU' if sizes == [1] else 'GPUs'}"
    each = "1 GPU each" if one else f"{number} of one kind in {place}"
    fix = "lower replicas of this or another model, lower tensor_parallel_size, or add GPU nodes"
    if blind:
        fix += f" (not counted: {some_of(blind)}, see the findings about them)"
    return Finding(
        model.name,
        "not_enough_gpus",
        f"room for {got} of {want} {'instance' if want == 1 else 'instances'}; GPUs in use: "
        f"{', '.join(holders) if holders else 'none'}; free GPUs: {_free_text(free)}",
        f"{each}, not shared with another instance",
        fix,
        "model",
    )


def _identities(placed: Sequence[Placed], fleet: Fleet, engine: Engine) -> list[tuple[Placed, str, int]]:
    """Return (instance, name, port), sorted by host, model and GPU.

    What runs keeps its name, and its port while that is among those of the host's GPUs. A new instance has the lowest
    number that its model has not used on the host, and the port of its first GPU, or the next one when that is taken.
    """
    counts = {host.name: len(host.gpus) for host in fleet.hosts}
    order = sorted(placed, key=lambda p: (natural_key(p.host), natural_key(p.model), p.gpus[0].index))
    names: set[tuple[str, str]] = set()
    ports: set[tuple[str, int]] = set()
    found: dict[tuple[str, int], tuple[str, int]] = {}
    for item in sorted(order, key=lambda p: p.running is None):
        name = item.running.name if item.running else ""
        number = 0
        while not name or (item.host, name) in names:
            name = f"{item.model}-{number}"
            number += 1
        names.add((item.host, name))
        offset = item.gpus[0].index
        if item.running and 0 <= item.running.port - engine.base_port < counts[item.host]:
            offset = item.running.port - engine.base_port
        # There are no more instances than GPUs, so one of the ports is free.
        while (item.host, engine.base_port + offset) in ports:
            offset = (offset + 1) % counts[item.host]
        ports.add((item.host, engine.base_port + offset))
        found[item.host, item.gpus[0].index] = (name, engine.base_port + offset)
    return [(item, *found[item.host, item.gpus[0].index]) for item in order]


def _model_source(model: Model) -> str:
    """Return what tells the content of a model's files, so that an engine with the files of before is another one.

    A path says nothing of its content: the digests of its files do, where they are given.
    """
    ((kind, value),) = model.source.items()
    if kind == "archive":
        return f"archive {value['sha256']}"
    if kind == "huggingface":
        return f"huggingface {value['repository']} {value['revision']}"
    if not model.files_sha256:
        return f"path {value}"
    digest = hashlib.sha256(json.dumps(model.files_sha256, sort_keys=True).encode()).hexdigest()
    return f"path {value} {digest}"


def _shown_gpus(gpus: Sequence[Gpu]) -> list[dict[str, Any]]:
    return [
        {
            "pci_address": gpu.pci_address,
            "uuid": gpu.uuid,
            "index": gpu.index,
            "cdi_device": f"nvidia.com/gpu={gpu.uuid if gpu.uuid else gpu.index}",
        }
        for gpu in gpus
    ]


def _why(link: int, gpus: Sequence[Gpu]) -> str:
    unknown = link > 1 and not all(gpu.nvlink_known for gpu in gpus)
    return f"{LINKS[link]} (NVLink not known)" if unknown else LINKS[link]


def _instances(
    fleet: Fleet, engine: Engine, decisions: Mapping[str, Decision], placed: Sequence[Placed], findings: list[Finding]
) -> list[dict[str, Any]]:
    """Return the instances of all hosts, sorted by host, model and GPU.

    Instances that are started alike share their arguments and environment: the plan is data that nobody changes.
    """
    arguments: dict[tuple[str, int, int], list[str]] = {}
    environments: dict[tuple[int, ...], dict[str, str]] = {}
    sources = {model.name: _model_source(model) for model in fleet.models}
    hosts = {host.name: host for host in fleet.hosts}
    instances = []
    for item, name, port in _identities(placed, fleet, engine):
        model = decisions[item.model].model
        choice = decisions[item.model].choices[item.gpus[0].kind]
        if port > 65535:
            findings.append(
                Finding(
                    item.host,
                    "port_out_of_range",
                    f"port {port} for an instance of {model.name}",
                    "at most 65535",
                    f"lower fleet_engine.base_port (now {engine.base_port})",
                )
            )
        taken = port_finding(hosts[item.host], name, port, engine.base_port)
        if taken is not None:
            findings.append(taken)
        size = len(item.gpus)
        start = (model.name, size, port)
        if start not in arguments:
            arguments[start] = serve_arguments(model, engine, size, port, choice.encoder_mode)
        # Only ranks on the CPU are told where they are.
        indices = tuple(gpu.index for gpu in item.gpus) if engine.accelerator == "cpu" else ()
        if indices not in environments:
            environments[indices] = serve_environment(engine, indices)
        instances.append(
            {
                "host": item.host,
                "name": name,
                "model": model.name,
                "model_directory": f"{fleet.models_directory}/{model.name}",
                "model_source": sources[model.name],
                "address": hosts[item.host].address,
                "backend": hosts[item.host].backend,
                "port": port,
                "accelerator": engine.accelerator,
                "gpus": _shown_gpus(item.gpus),
                "tensor_parallel_size": size,
                "pipeline_parallel_size": model.pipeline_parallel_size,
                "workers": [
                    {"host": share.host, "gpus": _shown_gpus(share.gpus), "why": _why(share.link, share.gpus)}
                    for share in item.further
                ],
                "context_length": model.context_length,
                "arguments": arguments[start],
                "environment": environments[indices],
                "shm_size_bytes": engine.shm_size_gib * GIB,
                "shutdown_timeout_seconds": engine.shutdown_timeout_seconds,
                "stop_timeout_seconds": stop_timeout_seconds(engine),
                "why": _why(item.link, item.gpus),
                "kv_cache_tokens": choice.memory.kv_cache_tokens,
                "max_concurrency": round(choice.memory.max_concurrency, 2),
                "binds": choice.memory.binding.word,
            }
        )
    return instances


def _upstreams(
    models: Sequence[str], instances: Sequence[Mapping[str, Any]], placed: Sequence[Placed], engine: Engine
) -> list[dict[str, Any]]:
    """Return the servers of every model; weights differ only where instances have different GPU memory in total."""
    memory = {(item.host, item.gpus[0].index): item.every_gpu * item.gpus[0].memory_mib for item in placed}
    by_model: dict[str, list[Mapping[str, Any]]] = {}
    for instance in instances:
        by_model.setdefault(instance["model"], []).append(instance)
    upstreams = []
    for name in models:
        mine = by_model.get(name)
        if not mine:
            continue
        units = [
            max(1, (memory[i["host"], i["gpus"][0]["index"]] + WEIGHT_UNIT_MIB // 2) // WEIGHT_UNIT_MIB) for i in mine
        ]
        divisor = reduce(math.gcd, units)
        upstreams.append(
            {
                "name": name,
                "model": name,
                "servers": [
                    {
                        "name": f"{instance['host']}/{instance['name']}",
                        "address": instance["address"],
                        "port": instance["port"],
                        "weight": unit // divisor,
                    }
                    for instance, unit in zip(mine, units)
                ],
                "tls": upstream_tls(engine),
            }
        )
    return upstreams


def _subject_alt_name(name: str) -> str:
    try:
        return f"IP:{ipaddress.ip_address(name)}"
    except ValueError:
        return f"DNS:{name}"


def _certificate(host: Host, endpoint: Endpoint) -> dict[str, Any]:
    """Return what the certificate of a gateway names: the endpoint, its other names and the gateway's own address."""
    names = [endpoint.hostname, *endpoint.alternative_names, *([host.address] if host.address else [])]
    return {
        "common_name": endpoint.hostname,
        "subject_alt_names": sorted({_subject_alt_name(name) for name in names}),
    }


def _certificates(hosts: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return every certificate of the fleet, by what it is for and then by host."""
    keys_of = (
        ("gateway", ("certificate",)),
        ("engine", ("engine_certificate",)),
        ("client", ("client_certificate",)),
        ("exporter", ("exporter", "certificate")),
        ("monitoring", ("prometheus", "certificate")),
    )
    found = []
    for name, keys in keys_of:
        for host, part in hosts.items():
            certificate: Any = part
            for key in keys:
                certificate = (certificate or {}).get(key)
            if certificate:
                names = {word: certificate[word] for word in ("common_name", "subject_alt_names")}
                found.append({"name": name, "hosts": [host], **names})
    return found


def _worker_of(instances: Sequence[Mapping[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """Return, by host, the instances of other hosts that have GPUs there."""
    found: dict[str, list[dict[str, Any]]] = {}
    for instance in instances:
        for worker in instance["workers"]:
            part = {"host": instance["host"], **{key: instance[key] for key in ("name", "model")}}
            found.setdefault(worker["host"], []).append({**part, "gpus": worker["gpus"]})
    return found


def _slice(
    host: Host,
    fleet: Fleet,
    engine: Engine,
    instances: Sequence[Mapping[str, Any]],
    worker_of: Sequence[Mapping[str, Any]],
    driver: Mapping[str, Any] | None,
) -> dict[str, Any]:
    """Return what the roles of a GPU node are given.

    ``worker_of``: the instances of other hosts that have GPUs here; ``driver``: its driver_slice.
    """
    models = {model.name: model for model in fleet.models}
    mine = [{key: value for key, value in i.items() if key not in DESCRIPTION} for i in instances]
    return {
        "expected_gpus": [
            {
                "pci_address": gpu.pci_address,
                "device_id": gpu.device_id,
                "product": gpu.product,
                "uuid": gpu.uuid,
                "mig": gpu.mig,
                # Where the fleet carries the driver, its stage splits what is not split yet.
                "split": gpu.mig == SPLIT and driver is None,
            }
            for gpu in host.gpus
        ],
        "accelerator": engine.accelerator,
        "models_directory": fleet.models_directory,
        "models": [
            {
                "name": name,
                "directory": posixpath.join(fleet.models_directory, name),
                "source": models[name].source,
                "files_sha256": models[name].files_sha256,
            }
            for name in sorted({part["model"] for part in (*mine, *worker_of)}, key=natural_key)
        ],
        "image": engine.image.as_dict() if engine.image else None,
        "instances": mine,
        "worker_of": list(worker_of),
        "engine_tls": engine_tls(engine),
        "engine_certificate": engine_certificate(host, engine),
    }


def _models(
    decisions: Mapping[str, Decision], placed: Sequence[Placed], scaled: Mapping[str, Mapping[str, Any]]
) -> dict[str, Any]:
    """Return what was decided about every model; ``scaled``: of those that do not always run whole."""
    by_model: dict[str, list[Placed]] = {}
    for item in placed:
        by_model.setdefault(item.model, []).append(item)
    models: dict[str, Any] = {}
    for name, decision in decisions.items():
        mine = by_model.get(name, [])
        kinds = sorted({item.gpus[0].kind for item in mine} or decision.choices, key=kind_key)
        choices = [decision.choices[kind] for kind in kinds]
        if not choices:
            continue
        main = min(choices, key=lambda choice: choice.size)
        gpus = sum(item.every_gpu for item in mine)
        share = "as given" if decision.model.replicas is not None else f"its share of the GPUs, {gpus}"
        several = len({choice.size for choice in choices}) > 1
        reasons = [
            size_reason(choice) + (f" ({choice.kind.product})" if several else "")
            for choice in (choices if several else [main])
        ]
        models[name] = {
            "tensor_parallel_size": main.size,
            "tensor_parallel_sizes": sorted({choice.size for choice in choices}),
            "pipeline_parallel_size": decision.model.pipeline_parallel_size,
            "replicas": len(mine),
            "gpus": gpus,
            "context_length": decision.model.context_length,
            "concurrency": decision.model.concurrency,
            "quantization": decision.architecture.quantization.method if decision.architecture.quantization else None,
            "facts": decision.model.facts,
            "memory": main.memory.as_dict(),
            "binds": main.memory.binding.word,
            "binds_because": main.memory.binding.sentence,
            "reason": f"{'; '.join(reasons)}; replicas {len(mine)} {share}{shown_autoscaling(scaled.get(name))}",
            "autoscaling": scaled.get(name),
        }
    return models


def _host_findings(fleet: Fleet) -> list[Finding]:
    findings = []
    for host in fleet.hosts:
        for gpu in host.gpus:
            if gpu.compute_capability < MINIMUM_CAPABILITY:
                findings.append(
                    Finding(
                        host.name,
                        "gpu_too_old",
                        f"{gpu.pci_address} ({gpu.product}) has compute capability "
                        f"{capability_text(gpu.compute_capability)}",
                        f"{capability_text(MINIMUM_CAPABILITY)} or more: vLLM has no kernels for older GPUs",
                        f"take {host.name} out of gpu_nodes",
                    )
                )
    return findings


def build_plan(inventory: Inventory) -> dict[str, Any]:
    """Return the plan of a fleet as plain, sorted data; a fault in the inventory is an entry of ``findings``.

    The shape is described in docs/plan.md. When there are findings the plan holds what could be decided all the same.
    """
    fleet = read_fleet(inventory)
    findings = list(fleet.findings) + _host_findings(fleet)
    engine = fleet.engine or Engine(image=None)
    endpoint = fleet.endpoint or Endpoint(hostname=fleet.name)
    gpu_hosts = [
        replace(host, gpus=whole)
        for host in fleet.hosts
        if host.group == "gpu_nodes" and (whole := tuple(gpu for gpu in host.gpus if gpu.mig is None))
    ]
    groups = gpu_groups(gpu_hosts)
    groups_in_cluster = gpu_groups([host for host in gpu_hosts if host.backend == "kubernetes"])

    decisions: dict[str, Decision] = {}
    for model in fleet.models:
        several = model.pipeline_parallel_size > 1
        decision = decide(model, engine, groups_in_cluster if several else groups, findings)
        if decision is not None:
            decisions[model.name] = decision
    demands = [
        Demand(
            name,
            {kind: choice.size for kind, choice in decision.choices.items()},
            decision.model.replicas,
            decision.model.pipeline_parallel_size,
        )
        for name, decision in decisions.items()
    ]
    placed, free = place(demands, gpu_hosts, running_instances(inventory.applied) if fleet.keep else ())
    blind = [host.name for host in fleet.hosts if host.group == "gpu_nodes" and not host.hardware_known]
    for decision in decisions.values():
        finding = _placement_finding(decision, placed, free, blind)
        if finding is not None:
            findings.append(finding)

    instances = _instances(fleet, engine, decisions, placed, findings)
    scaled = plan_autoscaling(fleet, engine, instances, findings)
    upstreams = _upstreams(list(decisions), instances, placed, engine)
    findings += exporter_port_findings(fleet, endpoint, instances)
    flows = plan_flows(fleet, endpoint, instances)
    default_model = endpoint.default_model
    if default_model is None and len(fleet.models) == 1:
        default_model = fleet.models[0].name
    gateways = [host for host in fleet.hosts if host.group == "gateways"]
    sets = {
        "management": list(fleet.management_networks),
        "gateways": sorted({host.address for host in gateways if host.address}, key=address_key),
        **cluster_sets(fleet.cluster),
        **monitoring_sets(fleet.monitoring),
    }
    worker_of = _worker_of(instances)
    by_host: dict[str, list[dict[str, Any]]] = {}
    for instance in instances:
        by_host.setdefault(instance["host"], []).append(instance)
    flows_by_host: dict[str, list[Flow]] = {}
    for flow in flows:
        flows_by_host.setdefault(flow.destination, []).append(flow)
    clustered = cluster_slices(fleet.cluster, engine.accelerator)
    hosts: dict[str, Any] = {}
    for host in fleet.hosts:
        part: dict[str, Any] = {
            "group": host.group,
            "address": host.address,
            "firewall": host_firewall(flows_by_host.get(host.name, []), sets),
            "kubernetes": clustered.get(host.name),
        }
        if host.group == "gpu_nodes":
            mine = by_host.get(host.name, [])
            part["driver"] = driver_slice(host.name, fleet.name, inventory, engine.accelerator, findings)
            others = worker_of.get(host.name, [])
            part.update(_slice(host, fleet, engine, mine, others, part["driver"]))
            named = [{**other, "name": f"{other['host']}/{other['name']}"} for other in others]
            part["gpu_requirements"] = gpu_requirements([*mine, *named], decisions, engine, host.gpus)
        elif host.group == "gateways":
            part["upstreams"] = upstreams
            part["default_model"] = default_model
            part["endpoint"] = {
                "hostname": endpoint.hostname,
                "port": endpoint.port,
                "alternative_names": list(endpoint.alternative_names),
            }
            part["certificate"] = _certificate(host, endpoint)
        if host.group in ("gpu_nodes", "gateways"):
            part["client_certificate"] = client_certificate(host, engine)
        if fleet.monitoring is not None:
            part["exporter"] = exporter_slice(host, fleet.monitoring)
        if host.group == "monitoring":
            part["prometheus"] = prometheus_slice(host, fleet, engine, instances)
        hosts[host.name] = part
    return {
        "schema": SCHEMA,
        "fleet": fleet.name,
        "kubernetes": cluster_document(fleet.cluster),
        "findings": [finding.as_dict() for finding in sort_findings(findings)],
        "models": _models(decisions, placed, scaled),
        "instances": instances,
        "upstreams": upstreams,
        "flows": [flow.as_dict() for flow in flows],
        "certificates": _certificates(hosts),
        "scrape_targets": [
            {
                "job": ENGINE_JOB,
                "host": i["host"],
                "scheme": scheme(engine),
                "address": i["address"],
                "port": i["port"],
                "path": METRICS_PATH,
            }
            for i in instances
        ]
        + exporter_targets(fleet),
        "hosts": hosts,
    }
