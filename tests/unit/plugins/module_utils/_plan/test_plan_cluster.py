# SPDX-License-Identifier: Apache-2.0
"""Kubernetes in the plan: what is refused, word for word, and what hosts, firewalls and people are told."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from ansible_collections.gpufleet.metal.plugins.module_utils._plan.applied import applied_plan, read_applied
from ansible_collections.gpufleet.metal.plugins.module_utils._plan.builder import build_plan
from ansible_collections.gpufleet.metal.plugins.module_utils._plan.changes import plan_changes
from ansible_collections.gpufleet.metal.plugins.module_utils._plan.document import PLAN_SCHEMA
from ansible_collections.gpufleet.metal.plugins.module_utils._plan.picture import plan_as_svg
from ansible_collections.gpufleet.metal.plugins.module_utils._plan.reachability import reachability_targets
from ansible_collections.gpufleet.metal.plugins.module_utils._plan.table import plan_as_table
from ansible_collections.gpufleet.metal.tests.unit.plugins.module_utils._plan.fleets import (
    DIGEST,
    gpus,
    groups,
    hosts,
    inventory,
    texts,
    tiny,
    variables,
    with_cluster,
)

VARIABLE = "fleet_kubernetes"
VIRTUAL = {"api_server": {"address": "192.0.2.99"}}
NOTHING_ELSE = "a network that nothing else uses: what is in it is taken for a pod or a Service"
FREE_PORT = "a port that is free on the control planes: HAProxy listens there beside the API server"
OTHER_PORT = "remove fleet_kubernetes.api_server.port, which is 8443 then, or choose another"


def planned(
    kubernetes: Any = None,
    control_planes: int = 1,
    workers: int = 0,
    inside: Any = None,
    machines: Any = None,
    **changes: Any,
) -> dict[str, Any]:
    """Return the plan of a fleet with two GPU nodes of one GPU each, one gateway and a cluster."""
    found = with_cluster(hosts(gpus(1), gpus(1)) if machines is None else machines, control_planes, workers)
    values = variables(tiny(replicas=2), fleet_kubernetes=kubernetes, **changes)
    return build_plan(inventory(values, found, groups=groups(found, inside)))


def renamed(old: str, new: str) -> dict[str, dict[str, Any]]:
    """Return hosts of which one has another name."""
    return {new if name == old else name: values for name, values in hosts(gpus(1), gpus(1)).items()}


def at(name: str, **changes: Any) -> dict[str, dict[str, Any]]:
    """Return hosts of which one has these variables as well."""
    found = hosts(gpus(1), gpus(1))
    found[name].update(changes)
    return found


def fleet(code: str, found: str, wanted: str, fix: str) -> tuple[str, ...]:
    """Return a finding about the fleet."""
    return ("fleet", "test", code, found, wanted, fix)


CASES: list[Any] = [
    pytest.param(
        {"control_planes": 2, "kubernetes": VIRTUAL},
        fleet(
            "kubernetes_control_plane_count",
            "the group kube_control_plane has 2 hosts",
            "1, 3 or 5: etcd goes on with more than half of its members, so 2 survive no more losses than 1",
            "add a host to kube_control_plane, or take one out",
        ),
        id="two control planes",
    ),
    pytest.param(
        {"control_planes": 4, "kubernetes": VIRTUAL},
        fleet(
            "kubernetes_control_plane_count",
            "the group kube_control_plane has 4 hosts",
            "1, 3 or 5: etcd goes on with more than half of its members, so 4 survive no more losses than 3",
            "add a host to kube_control_plane, or take one out",
        ),
        id="four control planes",
    ),
    pytest.param(
        {"control_planes": 7, "kubernetes": VIRTUAL},
        fleet(
            "kubernetes_control_plane_count",
            "the group kube_control_plane has 7 hosts",
            "1, 3 or 5: etcd goes on with more than half of its members, so more make writes slower",
            "add a host to kube_control_plane, or take one out",
        ),
        id="seven control planes",
    ),
    pytest.param(
        {"control_planes": 0, "inside": ["gpu-1", "gpu-2"]},
        fleet(
            "no_kube_control_plane",
            "the group kube_control_plane has no hosts, and kube_nodes has 2",
            "1, 3 or 5 hosts: without a control plane there is no cluster",
            "add hosts to the group kube_control_plane, or take those of kube_nodes out of it",
        ),
        id="nodes without a control plane",
    ),
    pytest.param(
        {"inside": []},
        fleet(
            "no_kube_nodes",
            "the group kube_nodes has no hosts, and kube_control_plane has 1",
            "at least one host: control planes run no engines",
            "add hosts to the group kube_nodes, or take those of kube_control_plane out of it",
        ),
        id="a control plane without nodes",
    ),
    pytest.param(
        {"control_planes": 0, "kubernetes": {}},
        fleet(
            "no_kube_control_plane",
            "fleet_kubernetes is set, and the groups kube_control_plane and kube_nodes have no hosts",
            "hosts in both groups: that is what makes a cluster",
            "add hosts to both groups, or remove fleet_kubernetes",
        ),
        id="a cluster without hosts",
    ),
    pytest.param(
        {"kubernetes": ["1.36.4"]},
        fleet(
            "wrong_type",
            "fleet_kubernetes is a list of 1",
            "a mapping",
            "write fleet_kubernetes as a mapping of options",
        ),
        id="no mapping",
    ),
    pytest.param(
        {"kubernetes": {"pod_netwrok": "10.244.0.0/16"}},
        fleet(
            "unknown_key",
            "fleet_kubernetes.pod_netwrok",
            "one of api_server, autoscaler_namespace, flannel_backend, host_networks, namespace, pod_network, "
            "service_network, version (did you mean pod_network?)",
            "correct or remove fleet_kubernetes.pod_netwrok",
        ),
        id="a misspelled key",
    ),
    pytest.param(
        {"kubernetes": {"api_server": {"adress": "192.0.2.99"}}},
        fleet(
            "unknown_key",
            "fleet_kubernetes.api_server.adress",
            "one of address, name, port (did you mean address?)",
            "correct or remove fleet_kubernetes.api_server.adress",
        ),
        id="a misspelled key of the API server",
    ),
    pytest.param(
        {"kubernetes": {"version": "1.34.9"}},
        fleet(
            "kubernetes_version_unsupported",
            'fleet_kubernetes.version is "1.34.9"',
            "a version of 1.35, 1.36, 1.37",
            'set fleet_kubernetes.version, for example to "1.36.4"',
        ),
        id="a minor that is no longer supported",
    ),
    pytest.param(
        {"kubernetes": {"version": 1.36}},
        fleet(
            "wrong_type",
            "fleet_kubernetes.version is 1.36",
            'a whole version in quotes, like "1.36.4"',
            "correct fleet_kubernetes.version",
        ),
        id="a minor as a number",
    ),
    pytest.param(
        {"kubernetes": {"version": "v1.36.4"}},
        fleet(
            "invalid_value",
            'fleet_kubernetes.version is "v1.36.4"',
            'a whole version in quotes, like "1.36.4"',
            "correct fleet_kubernetes.version",
        ),
        id="a version with a letter",
    ),
    pytest.param(
        {"control_planes": 3},
        fleet(
            "missing_value",
            "fleet_kubernetes.api_server.address is not set",
            "a free address of their network, which moves between the 3 control planes",
            "set fleet_kubernetes.api_server.address",
        ),
        id="several control planes without an address",
    ),
    pytest.param(
        {"control_planes": 3, "kubernetes": {"api_server": {"address": "k8s.example.org"}}},
        fleet(
            "invalid_value",
            'fleet_kubernetes.api_server.address is "k8s.example.org"',
            "the IP address at which the API server is reached, or null",
            "correct fleet_kubernetes.api_server.address",
        ),
        id="a name where an address is wanted",
    ),
    pytest.param(
        {"control_planes": 3, "kubernetes": {"api_server": {"address": "192.0.2.102"}}},
        fleet(
            "kubernetes_api_address_taken",
            "fleet_kubernetes.api_server.address is 192.0.2.102, which is the address of cp-2",
            "an address of its own, which moves between the control planes",
            "set fleet_kubernetes.api_server.address to a free address",
        ),
        id="the address of a host",
    ),
    pytest.param(
        {"kubernetes": {"api_server": {"address": "192.0.2.101"}}},
        fleet(
            "kubernetes_api_address_taken",
            "fleet_kubernetes.api_server.address is 192.0.2.101, which is the address of cp-1",
            "an address of its own, which moves between the control planes",
            "set fleet_kubernetes.api_server.address to a free address, or remove it: a single control plane answers "
            "at its own",
        ),
        id="the address of the only control plane",
    ),
    pytest.param(
        {"control_planes": 3, "kubernetes": VIRTUAL, "fleet_endpoint": {"hostname": "192.0.2.99"}},
        fleet(
            "kubernetes_api_address_taken",
            "fleet_kubernetes.api_server.address is 192.0.2.99, which is an address of fleet_endpoint",
            "an address of its own, which moves between the control planes",
            "set fleet_kubernetes.api_server.address to a free address",
        ),
        id="the address of the endpoint",
    ),
    pytest.param(
        {"control_planes": 3, "kubernetes": {"api_server": {"address": "192.0.2.99", "port": 6443}}},
        fleet(
            "invalid_value",
            "fleet_kubernetes.api_server.port is 6443, the port of the API server itself",
            FREE_PORT,
            OTHER_PORT,
        ),
        id="HAProxy on the API server's port",
    ),
    pytest.param(
        {"control_planes": 3, "kubernetes": {"api_server": {"address": "192.0.2.99", "port": 2379}}},
        fleet("invalid_value", "fleet_kubernetes.api_server.port is 2379, the port of etcd", FREE_PORT, OTHER_PORT),
        id="HAProxy on another port of the host",
    ),
    pytest.param(
        {"control_planes": 3, "kubernetes": {"api_server": {"address": "192.0.2.99", "port": 22}}},
        fleet("invalid_value", "fleet_kubernetes.api_server.port is 22, the port of ssh", FREE_PORT, OTHER_PORT),
        id="HAProxy on the port of ssh",
    ),
    pytest.param(
        {"kubernetes": {"api_server": {"port": 8443}}},
        fleet(
            "invalid_value",
            "fleet_kubernetes.api_server.port is 8443, and fleet_kubernetes.api_server.address is not set",
            "6443, where the API server itself listens",
            "remove fleet_kubernetes.api_server.port, or set fleet_kubernetes.api_server.address as well",
        ),
        id="another port of one control plane",
    ),
    pytest.param(
        {"kubernetes": {"api_server": {"name": "192.0.2.99"}}},
        fleet(
            "invalid_value",
            'fleet_kubernetes.api_server.name is "192.0.2.99"',
            "a DNS name, or null",
            "correct fleet_kubernetes.api_server.name",
        ),
        id="an address where a name is wanted",
    ),
    pytest.param(
        {"kubernetes": {"pod_network": "10.244.1.0/16"}},
        fleet(
            "invalid_value",
            'fleet_kubernetes.pod_network is "10.244.1.0/16"',
            "a network of unicast addresses in CIDR notation, like 10.244.0.0/16",
            "did you mean 10.244.0.0/16?",
        ),
        id="a network with host bits",
    ),
    pytest.param(
        {"kubernetes": {"service_network": "224.0.0.0/12"}},
        fleet(
            "invalid_value",
            'fleet_kubernetes.service_network is "224.0.0.0/12"',
            "a network of unicast addresses in CIDR notation, like 10.96.0.0/12",
            "correct fleet_kubernetes.service_network",
        ),
        id="a network of multicast",
    ),
    pytest.param(
        {"kubernetes": {"service_network": "fd00:96::/112"}},
        fleet(
            "kubernetes_network_family",
            "fleet_kubernetes.service_network is fd00:96::/112",
            "a network of IPv4, like 10.96.0.0/12",
            "correct fleet_kubernetes.service_network",
        ),
        id="a network of IPv6",
    ),
    pytest.param(
        {
            "kubernetes": {"api_server": {"address": "2001:db8::99"}},
            "machines": at("gpu-2", fleet_address="2001:db8::2"),
        },
        fleet(
            "kubernetes_network_family",
            "gpu-2 has 2001:db8::2, fleet_kubernetes.api_server.address is 2001:db8::99",
            "addresses of IPv4 for the hosts of the cluster, as for its pods and Services",
            "set fleet_address of the hosts, or fleet_kubernetes.api_server.address, to an IPv4 address",
        ),
        id="addresses of IPv6",
    ),
    pytest.param(
        {"kubernetes": {"pod_network": "10.244.0.0/23"}},
        fleet(
            "kubernetes_network_too_small",
            "fleet_kubernetes.pod_network is 10.244.0.0/23, with room for 2 of the 3 hosts",
            "a /24 for each host of the cluster, with those that are to come",
            "set fleet_kubernetes.pod_network to a larger network",
        ),
        id="more hosts than the pods' network holds",
    ),
    pytest.param(
        {"kubernetes": {"pod_network": "10.244.0.0/25"}},
        fleet(
            "kubernetes_network_too_small",
            "fleet_kubernetes.pod_network is 10.244.0.0/25, with room for 0 of the 3 hosts",
            "a /24 for each host of the cluster, with those that are to come",
            "set fleet_kubernetes.pod_network to a larger network",
        ),
        id="less than what one host takes",
    ),
    pytest.param(
        {"kubernetes": {"pod_network": "16.0.0.0/7"}},
        fleet(
            "invalid_value",
            "fleet_kubernetes.pod_network is 16.0.0.0/7",
            "/8 or smaller: the controller manager takes no larger one",
            "correct fleet_kubernetes.pod_network",
        ),
        id="more than the controller manager takes",
    ),
    pytest.param(
        {"kubernetes": {"service_network": "10.64.0.0/10"}},
        fleet(
            "invalid_value",
            "fleet_kubernetes.service_network is 10.64.0.0/10",
            "/12 to /24, as the API server takes it",
            "correct fleet_kubernetes.service_network",
        ),
        id="more than the API server takes",
    ),
    pytest.param(
        {"kubernetes": {"pod_network": "10.100.0.0/16"}},
        fleet(
            "kubernetes_network_overlap",
            "fleet_kubernetes.service_network is 10.96.0.0/12, which overlaps fleet_kubernetes.pod_network "
            "(10.100.0.0/16)",
            NOTHING_ELSE,
            "set fleet_kubernetes.service_network to another network",
        ),
        id="pods among Services",
    ),
    pytest.param(
        {"kubernetes": {"pod_network": "192.0.0.0/16"}, "control_planes": 1},
        fleet(
            "kubernetes_network_overlap",
            "fleet_kubernetes.pod_network is 192.0.0.0/16, which overlaps the hosts cp-1 (192.0.2.101), gpu-1 "
            "(192.0.2.1), gpu-2 (192.0.2.2) and 1 more",
            NOTHING_ELSE,
            "set fleet_kubernetes.pod_network to another network",
        ),
        id="hosts among pods",
    ),
    pytest.param(
        {
            "kubernetes": {"pod_network": "198.51.0.0/16", "service_network": "203.0.112.0/20", **VIRTUAL},
            "fleet_management_networks": ["198.51.100.0/24", "203.0.113.0/24"],
        },
        fleet(
            "kubernetes_network_overlap",
            "fleet_kubernetes.pod_network is 198.51.0.0/16, which overlaps 198.51.100.0/24 (fleet_management_networks)",
            NOTHING_ELSE,
            "set fleet_kubernetes.pod_network to another network",
        ),
        fleet(
            "kubernetes_network_overlap",
            "fleet_kubernetes.service_network is 203.0.112.0/20, which overlaps 203.0.113.0/24 "
            "(fleet_management_networks)",
            NOTHING_ELSE,
            "set fleet_kubernetes.service_network to another network",
        ),
        id="operators among pods and Services",
    ),
    pytest.param(
        {"kubernetes": {"api_server": {"address": "10.244.9.9"}}},
        fleet(
            "kubernetes_network_overlap",
            "fleet_kubernetes.pod_network is 10.244.0.0/16, which overlaps 10.244.9.9 "
            "(fleet_kubernetes.api_server.address)",
            NOTHING_ELSE,
            "set fleet_kubernetes.pod_network to another network",
        ),
        id="the virtual address among pods",
    ),
    pytest.param(
        {"kubernetes": {"pod_network": "172.20.0.0/16"}, "inside": ["gpu-1"]},
        fleet(
            "kubernetes_network_overlap",
            "fleet_kubernetes.pod_network is 172.20.0.0/16, which overlaps 172.20.0.0/14 (docker_address_pools of "
            "gpu-2)",
            NOTHING_ELSE,
            "set fleet_kubernetes.pod_network to another network",
        ),
        id="Docker's pools by default",
    ),
    pytest.param(
        {
            "inside": ["gpu-1"],
            "machines": at("gpu-2", docker_address_pools=[{"base": "10.97.0.0/16", "size": 24}, {"base": "x"}, 7]),
        },
        fleet(
            "kubernetes_network_overlap",
            "fleet_kubernetes.service_network is 10.96.0.0/12, which overlaps 10.97.0.0/16 (docker_address_pools of "
            "gpu-2)",
            NOTHING_ELSE,
            "set fleet_kubernetes.service_network to another network",
        ),
        id="Docker's pools as the inventory says",
    ),
    pytest.param(
        {"kubernetes": {"flannel_backend": "vxlna"}},
        fleet(
            "invalid_value",
            'fleet_kubernetes.flannel_backend is "vxlna"',
            "one of vxlan, host-gw (did you mean vxlan?)",
            "correct fleet_kubernetes.flannel_backend",
        ),
        id="an unknown backend",
    ),
    pytest.param(
        {"kubernetes": {"namespace": "kube-system"}},
        fleet(
            "invalid_value",
            'fleet_kubernetes.namespace is "kube-system"',
            "up to 63 of a-z, 0-9 and '-', and none of default, kube-flannel, kube-node-lease, kube-public, "
            "kube-system",
            "correct fleet_kubernetes.namespace",
        ),
        id="a namespace of Kubernetes' own",
    ),
    pytest.param(
        {"machines": renamed("gpu-2", "gpu-B")},
        (
            "host",
            "gpu-B",
            "kubernetes_node_name_invalid",
            'the host is called "gpu-B"',
            "up to 63 of a-z, 0-9, '-' and '.', as DNS takes them: it is the node's name",
            "rename the host in the inventory; ansible_host says where it is",
        ),
        id="a name that is no node's",
    ),
    pytest.param(
        {"machines": at("gpu-2", gpu_inventory={**gpus(2), "gpus": [gpus(1)["gpus"][0], gpus(2, "L40S")["gpus"][1]]})},
        (
            "host",
            "gpu-2",
            "kubernetes_gpus_mixed",
            "GPUs of 2 products: H100 SXM5 80GB, L40S",
            "one product on a host of kube_nodes: Kubernetes counts GPUs and can't tell them apart",
            "take gpu-2 out of kube_nodes: its engines then run under Docker",
        ),
        id="two kinds of GPU in a node",
    ),
    pytest.param(
        {
            "machines": at(
                "gpu-2",
                gpu_inventory=gpus(2),
                nvidia_driver_mig=[{"gpu": "0000:10:00.0", "profiles": ["1g.10gb"]}],
            )
        },
        (
            "host",
            "gpu-2",
            "kubernetes_gpus_split",
            "GPUs that nvidia_driver_mig names: 0000:10:00.0",
            "whole GPUs on a host of kube_nodes: a pod may be given any of the host's",
            "take them out of nvidia_driver_mig, or take gpu-2 out of kube_nodes: its engines then run under Docker",
        ),
        id="a split GPU in a node",
    ),
    pytest.param(
        {"fleet_engine": {"image": {"reference": f"vllm:v0.32.0@{DIGEST}"}, "base_port": 10250}},
        (
            "host",
            "gpu-1",
            "kubernetes_port_taken",
            "port 10250 for tiny-llama-0, which is for kubelet",
            "a port of its own on the host",
            "change fleet_engine.base_port (now 10250)",
        ),
        id="an engine on kubelet's port",
    ),
    pytest.param(
        {"fleet_engine": {"image": {"reference": f"vllm:v0.32.0@{DIGEST}"}, "base_port": 30000}, "inside": ["gpu-2"]},
        (
            "host",
            "gpu-2",
            "kubernetes_port_taken",
            "port 30000 for tiny-llama-0, which is for Services of the type NodePort",
            "a port of its own on the host",
            "change fleet_engine.base_port (now 30000)",
        ),
        id="an engine among the ports of Services",
    ),
]


@pytest.mark.parametrize(
    ("given", "expected"), [pytest.param(case.values[0], list(case.values[1:]), id=case.id) for case in CASES]
)
def test_finding(given: dict[str, Any], expected: list[tuple[str, ...]]) -> None:
    """Exactly these findings, word for word; the plan has its published shape all the same, and can be shown."""
    result = planned(**given)
    found = texts(result)
    # One engine per node: the other node's has the same port.
    alike = [entry for entry in found if entry[2] == "kubernetes_port_taken"]
    assert [entry for entry in found if entry not in alike[1:]] == expected
    Draft202012Validator(PLAN_SCHEMA).validate(json.loads(json.dumps(result)))
    plan_as_table(result)
    plan_as_svg(result)


@pytest.mark.parametrize(
    ("first", "second"),
    [("kube_control_plane", "kube_nodes"), ("kube_control_plane", "gpu_nodes"), ("gateways", "kube_nodes")],
)
def test_no_other_groups_go_together(first: str, second: str) -> None:
    """A GPU node may be a node of the cluster; nothing else is two things."""
    machines = with_cluster(hosts(gpus(1), gpus(1)), 1, 1)
    both = groups(machines)
    both[second] = [*both[second], both[first][0]]
    found = build_plan(inventory(variables(tiny()), machines, groups=both))["findings"]
    assert [(f["host_or_model"], f["found"], f["wanted"]) for f in found if f["code"] == "host_in_two_groups"] == [
        (
            both[first][0],
            f"is in the groups {' and '.join(sorted((first, second)))}",
            "one group per host, or gpu_nodes and kube_nodes",
        )
    ]


def test_a_host_outside_of_the_hosts_networks() -> None:
    """Named networks hold all hosts of the cluster; gateways are none of them."""
    result = planned({"host_networks": ["192.0.2.1/32", "192.0.2.101"]})
    assert texts(result) == [
        (
            "host",
            "gpu-2",
            "kubernetes_host_outside",
            "192.0.2.2, which is in none of fleet_kubernetes.host_networks (192.0.2.1/32, 192.0.2.101)",
            "an address in one of them: hosts of the cluster let in nobody else",
            "add a network to fleet_kubernetes.host_networks, or set fleet_address of gpu-2",
        )
    ]


def test_one_control_plane_needs_nothing_said() -> None:
    """It answers at its own address, and every default is the documented one."""
    result = planned(workers=1)
    assert texts(result) == []
    assert result["kubernetes"] == {
        "version": "1.36.4",
        "minor": "1.36",
        "api_server": {"address": "192.0.2.101", "port": 6443, "name": None},
        "pod_network": "10.244.0.0/16",
        "service_network": "10.96.0.0/12",
        "flannel_backend": "vxlan",
        "namespace": "gpufleet-serving",
        "autoscaler_namespace": "keda",
        "control_plane": ["cp-1"],
        "nodes": ["gpu-1", "gpu-2", "worker-1"],
    }
    assert result["hosts"]["cp-1"] == {
        "group": "kube_control_plane",
        "address": "192.0.2.101",
        "firewall": {
            "sets": {
                "cluster": ["192.0.2.1", "192.0.2.2", "192.0.2.101", "192.0.2.111"],
                "kube_control_plane": ["192.0.2.101"],
                "management": ["198.51.100.0/24"],
                "pods": ["10.244.0.0/16"],
            },
            "input": [
                {"name": "ssh", "source": "management", "protocol": "tcp", "ports": [22]},
                {"name": "API server", "source": "management", "protocol": "tcp", "ports": [6443]},
                {"name": "API server", "source": "cluster", "protocol": "tcp", "ports": [6443]},
                {"name": "API server", "source": "pods", "protocol": "tcp", "ports": [6443]},
                {"name": "kubelet", "source": "kube_control_plane", "protocol": "tcp", "ports": [10250]},
                {"name": "VXLAN", "source": "cluster", "protocol": "udp", "ports": [8472]},
            ],
            "forward": [],
            "routed": [],
        },
        "kubernetes": {
            "role": "control_plane",
            "node_name": "cp-1",
            "address": "192.0.2.101",
            "control_plane_endpoint": "192.0.2.101:6443",
            "control_plane": [{"name": "cp-1", "address": "192.0.2.101"}],
            "version": "1.36.4",
            "pod_network": "10.244.0.0/16",
            "service_network": "10.96.0.0/12",
            "virtual_address": None,
            "labels": {},
            "taints": [],
            "priority": 150,
        },
    }


def test_three_control_planes_share_an_address() -> None:
    """HAProxy and VRRP come with it; the first has the highest priority, and everybody asks at the shared address."""
    result = planned({"api_server": {"address": "192.0.2.99", "name": "k8s.example.org"}}, control_planes=3)
    assert texts(result) == []
    assert result["kubernetes"]["api_server"] == {"address": "192.0.2.99", "port": 8443, "name": "k8s.example.org"}
    parts = {name: part["kubernetes"] for name, part in result["hosts"].items()}
    assert [parts[f"cp-{number}"]["priority"] for number in (1, 2, 3)] == [150, 140, 130]
    assert {part["control_plane_endpoint"] for part in parts.values() if part} == {"192.0.2.99:8443"}
    assert {part["virtual_address"] for part in parts.values() if part} == {"192.0.2.99"}
    assert parts["gw-1"] is None
    assert parts["gpu-1"]["priority"] is None
    assert [
        (rule["name"], rule["source"], rule["protocol"], rule["ports"])
        for rule in result["hosts"]["cp-2"]["firewall"]["input"]
    ] == [
        ("ssh", "management", "tcp", [22]),
        ("API server", "management", "tcp", [8443]),
        ("API server", "cluster", "tcp", [6443, 8443]),
        ("API server", "pods", "tcp", [6443]),
        ("etcd", "kube_control_plane", "tcp", [2379, 2380]),
        ("kubelet", "kube_control_plane", "tcp", [10250]),
        ("VXLAN", "cluster", "udp", [8472]),
        ("VRRP", "kube_control_plane", "vrrp", []),
    ]


def test_engines_run_where_their_host_is() -> None:
    """A GPU node in the cluster has its engines there, another one under Docker; the gateway asks both alike."""
    result = planned(inside=["gpu-1"])
    assert texts(result) == []
    assert [(i["host"], i["backend"], i["port"]) for i in result["instances"]] == [
        ("gpu-1", "kubernetes", 8000),
        ("gpu-2", "docker", 8000),
    ]
    first, second = result["hosts"]["gpu-1"], result["hosts"]["gpu-2"]
    assert first["instances"][0]["backend"] == "kubernetes"
    assert first["kubernetes"]["labels"] == {"gpufleet.metal/engines": "true", "nvidia.com/gpu.present": "true"}
    assert second["kubernetes"] is None
    assert first["firewall"]["forward"] == second["firewall"]["forward"]
    assert [(s["address"], s["port"]) for s in result["upstreams"][0]["servers"]] == [
        ("192.0.2.1", 8000),
        ("192.0.2.2", 8000),
    ]


def test_mutual_tls_is_the_same_in_the_cluster() -> None:
    """The certificates lie on the host in both cases, where a pod finds them as a container does."""
    engine = {"image": {"reference": f"vllm:v0.32.0@{DIGEST}"}, "tls": "mutual"}
    result = planned(inside=["gpu-1"], fleet_engine=engine)
    assert texts(result) == []
    first, second = result["hosts"]["gpu-1"], result["hosts"]["gpu-2"]
    assert first["engine_tls"] == second["engine_tls"]
    assert first["engine_certificate"]["certificate_path"] == second["engine_certificate"]["certificate_path"]
    assert "client_certificate" not in result["hosts"]["cp-1"]


def test_simulated_gpus_are_no_gpus_of_the_device_plugin() -> None:
    """Nodes whose engines compute on the CPU are not labelled for it."""
    machines = hosts(*({**gpus(1), "simulated": True} for __ in range(2)))
    engine = {"image": {"reference": f"vllm:v0.32.0@{DIGEST}"}, "accelerator": "cpu"}
    result = planned(machines=machines, fleet_engine=engine)
    assert texts(result) == []
    assert result["hosts"]["gpu-1"]["kubernetes"]["labels"] == {"gpufleet.metal/engines": "true"}


def test_routed_pods_are_let_through() -> None:
    """With host-gw packets of pods come from outside, untranslated; with VXLAN by an inner interface."""
    result = planned({"flannel_backend": "host-gw"}, workers=1)
    assert texts(result) == []
    firewall = result["hosts"]["worker-1"]["firewall"]
    assert firewall["routed"] == [
        {"name": "pods", "source": "cluster", "destination": "pods"},
        {"name": "pods", "source": "pods", "destination": "pods"},
    ]
    assert firewall["sets"]["pods"] == ["10.244.0.0/16"]
    assert not any(rule["protocol"] == "udp" for rule in firewall["input"])
    assert planned(workers=1)["hosts"]["worker-1"]["firewall"]["routed"] == []


def test_a_host_that_joins_changes_no_other_worker() -> None:
    """With named networks; without them, everybody has to let in its address."""
    before, after = (planned({"host_networks": ["192.0.2.0/24"]}, workers=number) for number in (1, 2))
    assert texts(before) == texts(after) == []
    assert {name: after["hosts"][name] for name in before["hosts"]} == before["hosts"]
    assert after["hosts"]["worker-1"]["firewall"]["sets"]["cluster"] == ["192.0.2.0/24"]
    without = planned(workers=2)["hosts"]["worker-1"]["firewall"]["sets"]["cluster"]
    assert without == ["192.0.2.1", "192.0.2.2", "192.0.2.101", "192.0.2.111", "192.0.2.112"]


def test_many_hosts_in_a_row_are_few_networks() -> None:
    """Every host has the set, so it must not be as long as the cluster."""
    machines = hosts(*(gpus(1) for __ in range(63)))
    result = planned({"pod_network": "10.244.0.0/16"}, machines=machines)
    assert result["hosts"]["gpu-1"]["firewall"]["sets"]["cluster"] == [
        "192.0.2.1",
        "192.0.2.2/31",
        "192.0.2.4/30",
        "192.0.2.8/29",
        "192.0.2.16/28",
        "192.0.2.32/27",
        "192.0.2.101",
    ]


def test_a_move_between_backends_is_a_change() -> None:
    """Both would claim the same GPUs and port, so the one has to end before the other begins."""
    before, after = planned(inside=[], control_planes=0), planned()
    text = json.dumps(applied_plan(before, None, list(before["hosts"])))
    record = read_applied(text, "applied.json")
    changes = plan_changes(after, record).changes
    assert [(c.change, c.instance, c.why) for c in changes] == [
        ("restarted", "gpu-1/tiny-llama-0", "from Docker to Kubernetes"),
        ("restarted", "gpu-2/tiny-llama-0", "from Docker to Kubernetes"),
    ]
    # A record of an older version says nothing of it.
    for part in record["hosts"].values():
        for instance in part["instances"]:
            del instance["backend"]
    assert plan_changes(after, record).changes == changes
    assert plan_changes(before, record).changes == ()


def test_hosts_of_the_cluster_reach_each_other_as_planned() -> None:
    """A node tries the API server at both ports; a gateway finds all of it closed."""
    result = planned(VIRTUAL, control_planes=3)
    seen = {target["name"]: target["expect"] for target in reachability_targets(result, "gw-1")}
    assert {seen[f"cp-1:{port}"] for port in (22, 2379, 6443, 8443, 10250)} == {"filtered"}
    seen = {target["name"]: target["expect"] for target in reachability_targets(result, "gpu-2")}
    assert {name: expect for name, expect in seen.items() if name.startswith("cp-1:")} == {
        "cp-1:9": "filtered",
        "cp-1:22": "filtered",
        "cp-1:2379": "filtered",
        "cp-1:2380": "filtered",
        "cp-1:6443": "open",
        "cp-1:8443": "open",
        "cp-1:10250": "filtered",
    }


def test_table() -> None:
    """Where the cluster is, where it is reached, and whose engines it runs."""
    result = planned(VIRTUAL, control_planes=3, workers=1, inside=["gpu-1"])
    text = plan_as_table(result)
    assert text.startswith(
        "Fleet test: 2 GPU nodes with 2 GPUs (2 in use, 0 free), 1 gateway, 3 control planes, 1 worker without GPUs, "
        "1 model, 2 instances\n"
    )
    assert (
        "KUBERNETES            HOSTS             API SERVER                                    PODS"
        "                              SERVICES\n"
        "1.36.4 control plane  cp-1, cp-2, cp-3  https://192.0.2.99:8443 (moves between them)  10.244.0.0/16 by "
        "Flannel (vxlan)  10.96.0.0/12\n"
        "1.36.4 nodes          gpu-1, worker-1\n"
        "Kubernetes runs the engines of gpu-1 in the namespace gpufleet-serving\n"
        "Docker runs the engines of gpu-2\n"
        "\n"
        "Free GPUs: none\n"
    ) in text


def test_nothing_of_a_cluster_is_shown_where_there_is_none() -> None:
    """Neither in the table nor in the picture."""
    result = planned(control_planes=0, inside=[])
    assert texts(result) == []
    for shown in (plan_as_table(result), plan_as_svg(result)):
        assert "ubernetes" not in shown
        assert "control plane" not in shown


@pytest.mark.parametrize(("control_planes", "workers"), [(1, 0), (3, 2), (5, 40)])
def test_picture(control_planes: int, workers: int) -> None:
    """Control planes, workers and flows are on the sheet; of very many workers the number is."""
    kubernetes = VIRTUAL if control_planes > 1 else None
    machines = hosts(gpus(1), gpus(1))
    found = with_cluster(machines, control_planes, workers)
    for number in range(workers):
        found[f"worker-{number + 1}"]["ansible_host"] = f"192.0.3.{number + 1}"
    result = build_plan(inventory(variables(tiny(replicas=2), fleet_kubernetes=kubernetes), found))
    assert texts(result) == []
    root = ET.fromstring(plan_as_svg(result))
    space = "{http://www.w3.org/2000/svg}"
    shown = ["".join(element.itertext()) for element in root.iter(f"{space}text")]
    for number in range(control_planes):
        assert f"cp-{number + 1}" in shown
    assert sum(text.startswith("worker-") for text in shown) == min(workers, 24)
    assert ("and 16 more workers" in shown) is (workers == 40)
    assert "pods → control planes: 6443/tcp (pods of this host to the API server)" in shown
    assert any(text.startswith("kube_control_plane → control planes: vrrp") for text in shown) is (control_planes > 1)
    for box in root.iter(f"{space}rect"):
        for start, length, whole in (("x", "width", "width"), ("y", "height", "height")):
            end = float(box.attrib.get(start, 0)) + float(box.attrib[length])
            assert end <= float(root.attrib[whole])
