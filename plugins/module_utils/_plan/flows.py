# SPDX-License-Identifier: Apache-2.0
# PRIVATE to the collection: do not import this from outside, it may change without notice.
"""Every connection that the firewalls let in, each with its reason, and what each host's firewall is told of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .cluster import API_PORT, ETCD_PORTS, KUBELET_PORT, VXLAN_PORT
from .findings import natural_key
from .schema import Cluster, Endpoint, Fleet, Monitoring

#: Names of address sets, and everybody, in the order in which rules are written.
SOURCES = ("management", "gateways", "any", "kube_control_plane", "cluster", "pods", "monitoring")
#: ``vrrp`` has no ports. ``ip`` is all that is routed, untranslated, from the source to pods.
PROTOCOLS = ("tcp", "udp", "vrrp", "ip")
#: What rules are for, in their order in a firewall.
_RULES = ("ssh", "engines", "https", "API server", "etcd", "kubelet", "VXLAN", "VRRP", "pods", "exporter")
#: The set of what routed packets may reach.
PODS = "pods"


@dataclass(frozen=True)
class Flow:
    """One connection that firewalls let in."""

    destination: str
    port: int | None
    source: str
    why: str
    #: One of _RULES: flows of a host with the same rule, source and protocol are one rule of its firewall.
    rule: str
    forwarded: bool = False
    protocol: str = "tcp"

    def as_dict(self) -> dict[str, Any]:
        """Return the flow as the plan shows it."""
        return {
            "destination": self.destination,
            "protocol": self.protocol,
            "port": self.port,
            "source": self.source,
            "forwarded": self.forwarded,
            "why": self.why,
        }


def plan_flows(fleet: Fleet, endpoint: Endpoint, instances: Sequence[Mapping[str, Any]]) -> list[Flow]:
    """Return all flows, sorted by host, port and source."""
    flows: list[Flow] = []
    for host in fleet.hosts:
        flows += [Flow(host.name, port, "management", "ssh", "ssh") for port in host.ssh_ports]
        if host.group == "gateways":
            flows.append(Flow(host.name, endpoint.port, "any", "clients of the endpoint", "https"))
    for instance in instances:
        why = f"gateways to {instance['name']}"
        flows.append(Flow(instance["host"], instance["port"], "gateways", why, "engines", forwarded=True))
    if fleet.cluster is not None:
        flows += _cluster_flows(fleet.cluster)
    if fleet.monitoring is not None:
        flows += _monitoring_flows(fleet, fleet.monitoring, instances)
    return sorted(flows, key=lambda f: (natural_key(f.destination), f.port or 0, f.source, PROTOCOLS.index(f.protocol)))


def _cluster_flows(cluster: Cluster) -> Iterator[Flow]:
    several = len(cluster.control_plane) > 1
    for host in cluster.control_plane:
        for port in sorted({API_PORT, cluster.port}):
            yield Flow(host.name, port, "cluster", "hosts of the cluster to the API server", "API server")
        yield Flow(host.name, cluster.port, "management", "operators to the API server", "API server")
        # Those of other hosts come with their host's address: Flannel translates what leaves the pods' network.
        yield Flow(host.name, API_PORT, PODS, "pods of this host to the API server", "API server")
        if several:
            for port in ETCD_PORTS:
                yield Flow(host.name, port, "kube_control_plane", "etcd among control planes", "etcd")
        if several and cluster.virtual_address:
            yield Flow(host.name, None, "kube_control_plane", "who holds the virtual address", "VRRP", protocol="vrrp")
    for host in (*cluster.control_plane, *cluster.nodes):
        yield Flow(host.name, KUBELET_PORT, "kube_control_plane", "API servers to kubelet", "kubelet")
        if cluster.flannel_backend == "vxlan":
            yield Flow(host.name, VXLAN_PORT, "cluster", "pods of other hosts, by VXLAN", "VXLAN", protocol="udp")
        else:
            for source, why in (
                (PODS, "pods of other hosts, by routes (host-gw)"),
                ("cluster", "other hosts to pods, by routes (host-gw)"),
            ):
                yield Flow(host.name, None, source, why, "pods", forwarded=True, protocol="ip")


def _monitoring_flows(fleet: Fleet, monitoring: Monitoring, instances: Sequence[Mapping[str, Any]]) -> Iterator[Flow]:
    for host in fleet.hosts:
        yield Flow(host.name, monitoring.exporter_port, "monitoring", "Prometheus to node_exporter", "exporter")
    for instance in instances:
        why = f"Prometheus to {instance['name']}"
        yield Flow(instance["host"], instance["port"], "monitoring", why, "engines", forwarded=True)


def host_firewall(flows: Sequence[Flow], sets: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    """Return what one host's firewall is told of its flows: rules, and the sets that they name."""
    ports: dict[tuple[bool, str, str, str], set[int]] = {}
    for flow in flows:
        found = ports.setdefault((flow.forwarded, flow.rule, flow.source, flow.protocol), set())
        if flow.port is not None:
            found.add(flow.port)
    rules: dict[str, list[dict[str, Any]]] = {"input": [], "forward": [], "routed": []}
    used = set()
    for key in sorted(ports, key=lambda k: (k[0], _RULES.index(k[1]), SOURCES.index(k[2]), PROTOCOLS.index(k[3]))):
        forwarded, name, source, protocol = key
        used.add(source)
        if protocol == "ip":
            used.add(PODS)
            rules["routed"].append({"name": name, "source": source, "destination": PODS})
        else:
            rules["forward" if forwarded else "input"].append(
                {"name": name, "source": source, "protocol": protocol, "ports": sorted(ports[key])}
            )
    return {"sets": {name: list(sets[name]) for name in sorted(sets) if name in used}, **rules}
