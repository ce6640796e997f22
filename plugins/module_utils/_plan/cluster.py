# SPDX-License-Identifier: Apache-2.0
# PRIVATE to the collection: do not import this from outside, it may change without notice.
"""The cluster of ``kube_control_plane`` and ``kube_nodes``: what is asked for, what is wrong, what each host gets.

Without a host in one of these groups there is no cluster, and nothing of it anywhere in the plan.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Union

from ansible_collections.gpufleet.metal.plugins.module_utils._kubernetes.versions import (
    default_version,
    find,
    minor_of,
    supported_minors,
)

from .findings import Finding, some_of
from .reader import Reader, address_key, is_ip, is_name, shown
from .schema import Cluster, Endpoint, Host, Inventory

Network = Union[ipaddress.IPv4Network, ipaddress.IPv6Network]

VARIABLE = "fleet_kubernetes"
#: Where every API server listens, on all of its host's addresses.
API_PORT = 6443
#: Where HAProxy listens for the virtual address, beside the API server of the same host.
BALANCED_PORT = 8443
ETCD_PORTS = (2379, 2380)
KUBELET_PORT = 10250
VXLAN_PORT = 8472
#: What listens on hosts of the cluster, beyond what flows are for: an engine or HAProxy would find the port taken.
NODE_PORTS: Mapping[int, str] = {
    8081: "Flannel's health",
    10248: "kubelet's health",
    10249: "kube-proxy's metrics",
    KUBELET_PORT: "kubelet",
    10256: "kube-proxy's health",
}
CONTROL_PLANE_PORTS: Mapping[int, str] = {
    **NODE_PORTS,
    ETCD_PORTS[0]: "etcd",
    ETCD_PORTS[1]: "etcd",
    2381: "etcd's metrics",
    10257: "the controller manager",
    10259: "the scheduler",
}
#: What Services of the type NodePort are given.
NODE_PORT_RANGE = range(30000, 32768)
BACKENDS = ("vxlan", "host-gw")
COUNTS = (1, 3, 5)
#: docker_address_pools of the role docker, for hosts that say nothing else.
DOCKER_POOLS = ("172.17.0.0/16", "172.20.0.0/14")
#: Priority of the first control plane for the virtual address; each further one has 10 less.
FIRST_PRIORITY = 150

_OWN_NAMESPACES = ("default", "kube-flannel", "kube-node-lease", "kube-public", "kube-system")
_DNS_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
#: The label kubernetes.io/hostname holds no more than 63 characters.
_NODE_NAME = re.compile(r"(?=.{1,63}\Z)[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*")
#: Prefix of the network that each node gets of the pods'.
_NODE_PREFIX = 24
#: The controller manager counts the nodes' networks with so many bits.
_MOST_NODE_BITS = 16
#: The fewest and the most bits of addresses that the API server takes for Services.
_SERVICE_BITS = (8, 20)


def read_cluster(
    inventory: Inventory,
    fleet: str,
    hosts: Sequence[Host],
    management: Sequence[str],
    endpoint: Endpoint | None,
    findings: list[Finding],
) -> Cluster | None:
    """Read ``fleet_kubernetes`` and hold it against the hosts; None where no host is in a group of Kubernetes."""
    value = inventory.variables.get(VARIABLE)
    counts = {group: len(set(inventory.groups.get(group, ()))) for group in ("kube_control_plane", "kube_nodes")}
    if not any(counts.values()):
        if value is not None:
            findings.append(
                Finding(
                    fleet,
                    "no_kube_control_plane",
                    f"{VARIABLE} is set, and the groups kube_control_plane and kube_nodes have no hosts",
                    "hosts in both groups: that is what makes a cluster",
                    f"add hosts to both groups, or remove {VARIABLE}",
                    "fleet",
                )
            )
        return None
    findings += _group_findings(fleet, counts)
    control_plane = tuple(host for host in hosts if host.kube_role == "control_plane")
    nodes = tuple(host for host in hosts if host.kube_role == "node")
    reader = Reader(value, VARIABLE, "fleet", fleet, findings)
    version = _read_version(reader)
    api = reader.child("api_server")
    several = counts["kube_control_plane"] > 1
    virtual = _read_virtual_address(api, several, counts["kube_control_plane"], hosts, endpoint)
    port = _read_port(api, several or virtual is not None, control_plane)
    name = api.text("name", None, check=is_name, wanted="a DNS name, or null")
    api.finish()
    pods = _read_network(reader, "pod_network", "10.244.0.0/16")
    services = _read_network(reader, "service_network", "10.96.0.0/12")
    given = reader.texts("host_networks", _is_network, "a network in CIDR notation, like 192.0.2.0/24")
    host_networks = tuple(sorted(set(given), key=lambda text: (address_key(text.partition("/")[0]), text)))
    backend = reader.choice("flannel_backend", "vxlan", BACKENDS)
    namespace = reader.text(
        "namespace",
        "gpufleet-serving",
        check=lambda text: _DNS_LABEL.fullmatch(text) is not None and text not in _OWN_NAMESPACES,
        wanted=f"up to 63 of a-z, 0-9 and '-', and none of {', '.join(_OWN_NAMESPACES)}",
    )
    autoscaler = reader.text(
        "autoscaler_namespace",
        "keda",
        check=lambda text: _DNS_LABEL.fullmatch(text) is not None and text != namespace,
        wanted="up to 63 of a-z, 0-9 and '-', and not the namespace of the engines",
    )
    reader.finish()
    members = (*control_plane, *nodes)
    _check_families(reader, members, virtual)
    _check_sizes(reader, pods, services, sum(counts.values()))
    outside = [(f"{text} (fleet_management_networks)", text) for text in management]
    outside += [(f"{text} ({VARIABLE}.host_networks)", text) for text in host_networks]
    if virtual:
        outside.append((f"{virtual} ({VARIABLE}.api_server.address)", virtual))
    outside += [(f"{pool} (docker_address_pools of {host})", pool) for pool, host in _docker_pools(inventory, hosts)]
    _check_overlaps(reader, {"pod_network": pods, "service_network": services}, hosts, outside)
    for host in members:
        findings += _host_findings(host, host_networks)
    return Cluster(
        version=version,
        minor=minor_of(version) or "",
        address=virtual or (control_plane[0].address if control_plane and not several else None),
        port=port,
        name=name,
        virtual_address=virtual,
        pod_network=str(pods),
        service_network=str(services),
        flannel_backend=backend,
        namespace=namespace,
        autoscaler_namespace=autoscaler,
        host_networks=host_networks,
        control_plane=control_plane,
        nodes=nodes,
    )


def _group_findings(fleet: str, counts: Mapping[str, int]) -> Iterator[Finding]:
    for group, other, wanted in (
        ("kube_control_plane", "kube_nodes", "1, 3 or 5 hosts: without a control plane there is no cluster"),
        ("kube_nodes", "kube_control_plane", "at least one host: control planes run no engines"),
    ):
        if not counts[group]:
            yield Finding(
                fleet,
                f"no_{group}",
                f"the group {group} has no hosts, and {other} has {counts[other]}",
                wanted,
                f"add hosts to the group {group}, or take those of {other} out of it",
                "fleet",
            )
    count = counts["kube_control_plane"]
    if count and count not in COUNTS:
        more = f"{count} survive no more losses than {count - 1}" if count < max(COUNTS) else "more make writes slower"
        yield Finding(
            fleet,
            "kubernetes_control_plane_count",
            f"the group kube_control_plane has {count} hosts",
            f"1, 3 or 5: etcd goes on with more than half of its members, so {more}",
            "add a host to kube_control_plane, or take one out",
            "fleet",
        )


def _read_version(reader: Reader) -> str:
    minors = supported_minors()
    example = default_version()
    default: str = example
    version: str = reader.text(
        "version",
        default,
        check=lambda text: minor_of(text) is not None,
        wanted=f'a whole version in quotes, like "{example}"',
    )
    if find(version) is None:
        reader.report(
            "kubernetes_version_unsupported",
            f"{VARIABLE}.version is {shown(version)}",
            f"a version of {', '.join(minors)}",
            f'set {VARIABLE}.version, for example to "{example}"',
        )
        return default
    return version


def _read_virtual_address(
    api: Reader, several: bool, count: int, hosts: Sequence[Host], endpoint: Endpoint | None
) -> str | None:
    """Return the address that moves between control planes."""
    text = api.text("address", None, check=is_ip, wanted="the IP address at which the API server is reached, or null")
    if text is None:
        if several and not api.has("address"):
            api.report(
                "missing_value",
                f"{api.path}.address is not set",
                f"a free address of their network, which moves between the {count} control planes",
                f"set {api.path}.address",
            )
        return None
    address = str(ipaddress.ip_address(text))
    owners = [f"the address of {host.name}" for host in hosts if host.address == address]
    if endpoint is not None and address in _addresses((endpoint.hostname, *endpoint.alternative_names)):
        owners.append("an address of fleet_endpoint")
    if owners:
        api.report(
            "kubernetes_api_address_taken",
            f"{api.path}.address is {address}, which is {' and '.join(owners)}",
            "an address of its own, which moves between the control planes",
            f"set {api.path}.address to a free address"
            + ("" if several else ", or remove it: a single control plane answers at its own"),
        )
    return address


def _addresses(names: Iterable[str]) -> set[str]:
    return {str(ipaddress.ip_address(name)) for name in names if is_ip(name)}


def _read_port(api: Reader, balanced: bool, control_plane: Sequence[Host]) -> int:
    """Return where the API server is reached: at HAProxy where there is a virtual address."""
    default = BALANCED_PORT if balanced else API_PORT
    port: int = api.integer("port", default, 1, 65535)
    taken = {**CONTROL_PLANE_PORTS, **{number: "ssh" for host in control_plane for number in host.ssh_ports}}
    if not balanced and port != API_PORT:
        api.report(
            "invalid_value",
            f"{api.path}.port is {port}, and {api.path}.address is not set",
            f"{API_PORT}, where the API server itself listens",
            f"remove {api.path}.port, or set {api.path}.address as well",
        )
    elif balanced and (port == API_PORT or port in taken):
        owner = "the API server itself" if port == API_PORT else taken[port]
        api.report(
            "invalid_value",
            f"{api.path}.port is {port}, the port of {owner}",
            "a port that is free on the control planes: HAProxy listens there beside the API server",
            f"remove {api.path}.port, which is {BALANCED_PORT} then, or choose another",
        )
    else:
        return port
    return default


def _read_network(reader: Reader, key: str, default: str) -> Network:
    """Return a network of pods or Services; its default after a finding."""
    text: str = reader.text(key, default, wanted=f"a network in CIDR notation, like {default}")
    fix = f"correct {VARIABLE}.{key}"
    try:
        network = ipaddress.ip_network(text)
    except ValueError:
        try:
            fix = f"did you mean {ipaddress.ip_network(text, strict=False)}?"
        except ValueError:
            fix = f"correct {VARIABLE}.{key}"
    else:
        if network.version == 6:
            reader.report(
                "kubernetes_network_family",
                f"{VARIABLE}.{key} is {network}",
                f"a network of IPv4, like {default}",
                fix,
            )
            return ipaddress.ip_network(default)
        if not (network.is_multicast or network.is_loopback or network.is_link_local):
            return network
    reader.report(
        "invalid_value",
        f"{VARIABLE}.{key} is {shown(text)}",
        f"a network of unicast addresses in CIDR notation, like {default}",
        fix,
    )
    return ipaddress.ip_network(default)


def _check_families(reader: Reader, members: Sequence[Host], virtual: str | None) -> None:
    """Pods, Services and hosts speak IPv4: Flannel carries what pods send over the hosts' own network."""
    others = [f"{host.name} has {host.address}" for host in members if host.address and ":" in host.address]
    if virtual and ":" in virtual:
        others.append(f"{VARIABLE}.api_server.address is {virtual}")
    if others:
        reader.report(
            "kubernetes_network_family",
            some_of(others, 3),
            "addresses of IPv4 for the hosts of the cluster, as for its pods and Services",
            f"set fleet_address of the hosts, or {VARIABLE}.api_server.address, to an IPv4 address",
        )


def _check_sizes(reader: Reader, pods: Network, services: Network, members: int) -> None:
    bits = _NODE_PREFIX - pods.prefixlen
    if bits < 0 or 2**bits < members:
        room = 2**bits if bits >= 0 else 0
        reader.report(
            "kubernetes_network_too_small",
            f"{VARIABLE}.pod_network is {pods}, with room for {room} of the {members} hosts",
            f"a /{_NODE_PREFIX} for each host of the cluster, with those that are to come",
            f"set {VARIABLE}.pod_network to a larger network",
        )
    elif bits > _MOST_NODE_BITS:
        reader.report(
            "invalid_value",
            f"{VARIABLE}.pod_network is {pods}",
            f"/{_NODE_PREFIX - _MOST_NODE_BITS} or smaller: the controller manager takes no larger one",
            f"correct {VARIABLE}.pod_network",
        )
    fewest, most = _SERVICE_BITS
    if not fewest <= services.max_prefixlen - services.prefixlen <= most:
        reader.report(
            "invalid_value",
            f"{VARIABLE}.service_network is {services}",
            f"/{services.max_prefixlen - most} to /{services.max_prefixlen - fewest}, as the API server takes it",
            f"correct {VARIABLE}.service_network",
        )


def _check_overlaps(
    reader: Reader,
    networks: Mapping[str, Network],
    hosts: Sequence[Host],
    outside: Sequence[tuple[str, str]],
) -> None:
    """Report what would be taken for a pod or a Service, and is not reached any more."""

    def overlapping(network: Network, others: Iterable[tuple[str, str]]) -> list[str]:
        return [
            label
            for label, text in others
            for other in [ipaddress.ip_network(text)]
            if other.version == network.version and network.overlaps(other)
        ]

    addresses = [(f"{host.name} ({host.address})", host.address) for host in hosts if host.address]
    for key, network in networks.items():
        inner = overlapping(network, addresses)
        found = [*([f"the hosts {some_of(inner, 3)}"] if inner else []), *overlapping(network, outside)]
        if key == "service_network":
            found += overlapping(
                network, [(f"{VARIABLE}.pod_network ({networks['pod_network']})", str(networks["pod_network"]))]
            )
        if found:
            reader.report(
                "kubernetes_network_overlap",
                f"{VARIABLE}.{key} is {network}, which overlaps {' and '.join(found)}",
                "a network that nothing else uses: what is in it is taken for a pod or a Service",
                f"set {VARIABLE}.{key} to another network",
            )


def _lies_in(address: str, networks: Iterable[str]) -> bool:
    parsed = ipaddress.ip_address(address)
    return any(parsed in ipaddress.ip_network(network) for network in networks)


def _docker_pools(inventory: Inventory, hosts: Sequence[Host]) -> list[tuple[str, str]]:
    """Return the networks that Docker gives out on the fleet's hosts, each with the first host that has it."""
    found: dict[str, str] = {}
    for host in hosts:
        if host.group != "gpu_nodes" or host.backend != "docker":
            continue
        given = inventory.hosts.get(host.name, {}).get("docker_address_pools")
        # What is no list of pools is the role's to refuse.
        entries = given if isinstance(given, (list, tuple)) else [{"base": pool} for pool in DOCKER_POOLS]
        for entry in entries:
            base = entry.get("base") if isinstance(entry, Mapping) else None
            if isinstance(base, str) and _is_network(base):
                found.setdefault(base, host.name)
    return sorted(found.items())


def _is_network(text: str) -> bool:
    try:
        ipaddress.ip_network(text)
    except ValueError:
        return False
    return True


def _host_findings(host: Host, host_networks: Sequence[str]) -> Iterator[Finding]:
    if host_networks and host.address and not _lies_in(host.address, host_networks):
        yield Finding(
            host.name,
            "kubernetes_host_outside",
            f"{host.address}, which is in none of {VARIABLE}.host_networks ({some_of(host_networks)})",
            "an address in one of them: hosts of the cluster let in nobody else",
            f"add a network to {VARIABLE}.host_networks, or set fleet_address of {host.name}",
        )
    if not _NODE_NAME.fullmatch(host.name):
        yield Finding(
            host.name,
            "kubernetes_node_name_invalid",
            f'the host is called "{host.name}"',
            "up to 63 of a-z, 0-9, '-' and '.', as DNS takes them: it is the node's name",
            "rename the host in the inventory; ansible_host says where it is",
        )
    out = f"take {host.name} out of kube_nodes: its engines then run under Docker"
    products = sorted({gpu.product for gpu in host.gpus if gpu.mig is None})
    if len(products) > 1:
        yield Finding(
            host.name,
            "kubernetes_gpus_mixed",
            f"GPUs of {len(products)} products: {', '.join(products)}",
            "one product on a host of kube_nodes: Kubernetes counts GPUs and can't tell them apart",
            out,
        )
    split = [gpu.pci_address for gpu in host.gpus if gpu.mig is not None]
    if split:
        yield Finding(
            host.name,
            "kubernetes_gpus_split",
            f"GPUs that nvidia_driver_mig names: {some_of(split)}",
            "whole GPUs on a host of kube_nodes: a pod may be given any of the host's",
            f"take them out of nvidia_driver_mig, or {out}",
        )


def port_finding(host: Host, instance: str, port: int, base_port: int) -> Finding | None:
    """Return the finding when an engine's port is taken on a host of the cluster."""
    owner = NODE_PORTS.get(port) or ("Services of the type NodePort" if port in NODE_PORT_RANGE else None)
    if owner is None or host.backend != "kubernetes":
        return None
    return Finding(
        host.name,
        "kubernetes_port_taken",
        f"port {port} for {instance}, which is for {owner}",
        "a port of its own on the host",
        f"change fleet_engine.base_port (now {base_port})",
    )


def control_plane_endpoint(cluster: Cluster) -> str | None:
    """Return where everybody reaches the API server, as address and port."""
    if cluster.address is None:
        return None
    return f"{cluster.address}:{cluster.port}"


def cluster_document(cluster: Cluster | None) -> dict[str, Any] | None:
    """Return what the plan says of the cluster."""
    if cluster is None:
        return None
    return {
        "version": cluster.version,
        "minor": cluster.minor,
        "api_server": {"address": cluster.address, "port": cluster.port, "name": cluster.name},
        "pod_network": cluster.pod_network,
        "service_network": cluster.service_network,
        "flannel_backend": cluster.flannel_backend,
        "namespace": cluster.namespace,
        "autoscaler_namespace": cluster.autoscaler_namespace,
        "control_plane": [host.name for host in cluster.control_plane],
        "nodes": [host.name for host in cluster.nodes],
    }


def cluster_slices(cluster: Cluster | None, accelerator: str) -> dict[str, dict[str, Any]]:
    """Return what the roles of each of the cluster's hosts are given; hosts of other fleets get nothing."""
    if cluster is None:
        return {}
    shared = {
        "control_plane_endpoint": control_plane_endpoint(cluster),
        "control_plane": [{"name": host.name, "address": host.address} for host in cluster.control_plane],
        "version": cluster.version,
        "pod_network": cluster.pod_network,
        "service_network": cluster.service_network,
        "virtual_address": cluster.virtual_address,
    }
    priorities = {host.name: FIRST_PRIORITY - 10 * place for place, host in enumerate(cluster.control_plane)}
    return {
        host.name: {
            **shared,
            "role": host.kube_role,
            "node_name": host.name,
            "address": host.address,
            "labels": _labels(host, accelerator),
            # kubeadm's own taint of control planes is not among them: the role gives it.
            "taints": [],
            "priority": max(1, priorities[host.name]) if host.name in priorities else None,
        }
        for host in (*cluster.control_plane, *cluster.nodes)
    }


def _labels(host: Host, accelerator: str) -> dict[str, str]:
    """Return the labels by which engines and the device plugin find their nodes."""
    if host.group != "gpu_nodes":
        return {}
    return {
        "gpufleet.metal/engines": "true",
        **({"nvidia.com/gpu.present": "true"} if accelerator == "cuda" else {}),
    }


def cluster_sets(cluster: Cluster | None) -> dict[str, list[str]]:
    """Return the sources that rules of the cluster's hosts name; none without a cluster.

    Every host of the cluster has ``cluster``, so addresses in a row are one network there, and with ``host_networks`` a
    host that joins changes no other host's firewall.
    """
    if cluster is None:
        return {}
    control_plane = {host.address for host in cluster.control_plane if host.address}
    everybody = control_plane | {host.address for host in cluster.nodes if host.address}
    return {
        "cluster": list(cluster.host_networks) or _merged(everybody),
        "kube_control_plane": sorted(control_plane, key=address_key),
        "pods": [cluster.pod_network],
    }


def _merged(addresses: Iterable[str]) -> list[str]:
    """Return addresses as the fewest networks that hold them and nothing else; one that is alone stays an address."""
    found = []
    networks = [ipaddress.ip_network(address) for address in sorted(addresses, key=address_key)]
    for version in (4, 6):
        same: list[Any] = [network for network in networks if network.version == version]
        merged: list[Any] = list(ipaddress.collapse_addresses(same))
        found += [str(n.network_address) if n.prefixlen == n.max_prefixlen else str(n) for n in merged]
    return found
