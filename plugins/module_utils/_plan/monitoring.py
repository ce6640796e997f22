# SPDX-License-Identifier: Apache-2.0
# PRIVATE to the collection: do not import this from outside, it may change without notice.
"""Who watches the fleet, and what they ask: exporters, Prometheus, and the certificates that both show.

Without a host in ``monitoring`` nothing of it is anywhere in the plan.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from .cluster import API_PORT, CONTROL_PLANE_PORTS, NODE_PORT_RANGE, NODE_PORTS
from .engine_tls import ENGINES_NAME, issued, scheme
from .findings import Finding
from .reader import Reader, address_key
from .schema import Cluster, Endpoint, Engine, Fleet, Host, Inventory, Monitoring

GROUP = "monitoring"
VARIABLE = "fleet_monitoring"
#: Where node_exporter listens everywhere.
EXPORTER_PORT = 9100
#: Directories of their own: each service reads its own key, and no other one.
EXPORTER_DIRECTORY = "/etc/gpufleet/node_exporter"
PROMETHEUS_DIRECTORY = "/etc/gpufleet/prometheus"
METRICS_PATH = "/metrics"
NODE_JOB = "node"
ENGINE_JOB = "vllm"
#: Names of an engine's series that are not kept: when each began, the finer of two latencies of its web server, and how
#: the parameters of requests are spread.
ENGINE_DROP = (".+_created", "http_request_duration_highr_seconds_.+", "vllm:request_params_.+")


def read_monitoring(
    inventory: Inventory, fleet: str, hosts: Sequence[Host], findings: list[Finding]
) -> Monitoring | None:
    """Read ``fleet_monitoring``; None where no host is in the group."""
    value = inventory.variables.get(VARIABLE)
    if not inventory.groups.get(GROUP, ()):
        if value is not None:
            findings.append(
                Finding(
                    fleet,
                    "no_monitoring",
                    f"{VARIABLE} is set, and the group {GROUP} has no hosts",
                    f"hosts in the group {GROUP}: that is what makes the fleet watched",
                    f"add a host to the group {GROUP}, or remove {VARIABLE}",
                    "fleet",
                )
            )
        return None
    reader = Reader(value, VARIABLE, "fleet", fleet, findings)
    port = reader.integer("exporter_port", EXPORTER_PORT, 1, 65535)
    reader.finish()
    return Monitoring(port, tuple(host for host in hosts if host.group == GROUP))


def exporter_port_findings(
    fleet: Fleet, endpoint: Endpoint, instances: Sequence[Mapping[str, Any]]
) -> Iterator[Finding]:
    """Yield a finding for each host on which something else is planned at the exporter's port."""
    if fleet.monitoring is None:
        return
    port = fleet.monitoring.exporter_port
    engines = {i["host"]: i["name"] for i in instances if i["port"] == port}
    for host in fleet.hosts:
        owner = _owner(host, port, endpoint, fleet.cluster, engines.get(host.name))
        if owner is not None:
            yield Finding(
                host.name,
                "exporter_port_taken",
                f"port {port} for node_exporter, which is for {owner}",
                "a port that is free on every host",
                f"change {VARIABLE}.exporter_port (now {port})",
            )


def _owner(host: Host, port: int, endpoint: Endpoint, cluster: Cluster | None, engine: str | None) -> str | None:
    """Return what else has the port on a host."""
    if port in host.ssh_ports:
        return "ssh"
    if host.group == "gateways" and port == endpoint.port:
        return "clients of the endpoint"
    if engine is not None:
        return f"the engine {engine}"
    if host.kube_role is None or cluster is None:
        return None
    if port in NODE_PORT_RANGE:
        return "Services of the type NodePort"
    if host.kube_role == "node":
        return NODE_PORTS.get(port)
    return "the API server" if port in (API_PORT, cluster.port) else CONTROL_PLANE_PORTS.get(port)


def monitoring_sets(monitoring: Monitoring | None) -> dict[str, list[str]]:
    """Return the source that rules for those who watch name; none where nobody does."""
    if monitoring is None:
        return {}
    return {GROUP: sorted({host.address for host in monitoring.hosts if host.address}, key=address_key)}


def exporter_slice(host: Host, monitoring: Monitoring) -> dict[str, Any]:
    """Return what the exporter of a host is told."""
    return {
        "address": host.address,
        "port": monitoring.exporter_port,
        "certificate": issued(f"exporter {host.name}", host, EXPORTER_DIRECTORY, "tls"),
    }


def prometheus_slice(
    host: Host, fleet: Fleet, engine: Engine, instances: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """Return what Prometheus of a host is told: the certificate that it asks with, and what it asks."""
    certificate = issued(f"monitoring {host.name}", host, PROMETHEUS_DIRECTORY, "client")
    files = {key: certificate[key] for key in ("certificate_path", "key_path", "ca_path")}
    port = fleet.monitoring.exporter_port if fleet.monitoring else EXPORTER_PORT
    nodes = {
        "name": NODE_JOB,
        "scheme": "https",
        "path": METRICS_PATH,
        # An exporter is known by its address.
        "tls": {**files, "server_name": None},
        "drop": [],
        "targets": [
            {"address": one.address, "port": port, "labels": {"host": one.name, "group": one.group}}
            for one in fleet.hosts
        ],
    }
    engines = {
        "name": ENGINE_JOB,
        "scheme": scheme(engine),
        "path": METRICS_PATH,
        "tls": {**files, "server_name": ENGINES_NAME} if scheme(engine) == "https" else None,
        "drop": list(ENGINE_DROP),
        "targets": [
            {
                "address": i["address"],
                "port": i["port"],
                # By the same name a gateway knows it.
                "labels": {"host": i["host"], "model": i["model"], "server": f"{i['host']}/{i['name']}"},
            }
            for i in instances
        ],
    }
    return {"certificate": certificate, "jobs": [job for job in (nodes, engines) if job["targets"]]}


def exporter_targets(fleet: Fleet) -> list[dict[str, Any]]:
    """Return the exporters as entries of the plan's scrape_targets."""
    if fleet.monitoring is None:
        return []
    return [
        {
            "job": NODE_JOB,
            "host": host.name,
            "scheme": "https",
            "address": host.address,
            "port": fleet.monitoring.exporter_port,
            "path": METRICS_PATH,
        }
        for host in fleet.hosts
    ]
