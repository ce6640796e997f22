# SPDX-License-Identifier: Apache-2.0
"""Findings before anything is changed, and faults after all is done."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from ansible_collections.gpufleet.metal.plugins.module_utils._kubernetes import kubeadm, node

PACKAGES = ("kubelet", "kubeadm", "kubectl", "kubernetes-cni", "cri-tools")
TOLD = kubeadm.settings(
    {
        "role": "control_plane",
        "version": "1.35.9",
        "node_name": "cp-1",
        "address": "192.0.2.1",
        "endpoint": "192.0.2.1:6443",
        "control_planes": [{"name": "cp-1", "address": "192.0.2.1"}],
        "labels": {"example.org/rack": "7"},
    }
)
WORKER = kubeadm.settings({**TOLD.__dict__, "role": "node", "node_name": "gpu-1", "address": "192.0.2.7"})
INFO: dict[str, Any] = {
    "packages": {
        name: {
            "version": "1.35.9-1.1" if name.startswith("kube") and name != "kubernetes-cni" else "1.8.0-1.1",
            "held": True,
        }
        for name in PACKAGES
    },
    "modules": {**dict.fromkeys(node.MODULES, "available"), "overlay": "loaded", "br_netfilter": "built in"},
    "sysctls": node.sysctls(True),
    "swap": [],
    "listeners": {"22": "sshd"},
    "default_routes": ["IPv4"],
    "resolver": {"path": "/etc/resolv.conf", "exists": True, "nameservers": ["127.0.0.53", "192.0.2.53"]},
    "containerd": {
        "version": "1.7.24",
        "active": True,
        "enabled": True,
        "configuration": "text",
        "stale": False,
        "containers": 0,
    },
    "docker_engine": False,
    "cgroup_version": 2,
    "member": None,
    "unfinished": None,
    "pause_image": None,
    "pause_image_fault": "",
    "cluster_configuration": None,
    "kubelet": {"active": False, "enabled": True, "cgroup_driver": "systemd"},
}


def info(**changes: Any) -> dict[str, Any]:
    return {**copy.deepcopy(INFO), **changes}


def codes(found: dict[str, Any], told: kubeadm.Settings = TOLD) -> list[str]:
    return [finding["code"] for finding in node.preflight("cp-1", found, told)]


def test_a_good_host_has_no_finding() -> None:
    assert node.preflight("cp-1", info(), TOLD) == []
    assert node.preflight("gpu-1", info(listeners={"6443": "somebody", "22": "sshd"}), WORKER) == []
    bare = info(packages={}, containerd={**INFO["containerd"], "version": None})
    assert node.preflight("cp-1", bare, TOLD) == []


@pytest.mark.parametrize(
    ("changes", "code", "found", "wanted"),
    [
        (
            {"modules": {**INFO["modules"], "nft_queue": "missing"}},
            "kernel_module_missing",
            "no kernel module nft_queue, loaded, built in or to be loaded",
            "nft_queue, for Kubernetes",
        ),
        (
            {"modules": {**INFO["modules"], "vxlan": "missing"}},
            "kernel_module_missing",
            "no kernel module vxlan, loaded, built in or to be loaded",
            "vxlan, for Kubernetes",
        ),
        (
            {"swap": ["/dev/sda2", "/dev/zram0"]},
            "swap_on",
            "swap on /dev/sda2, /dev/zram0",
            "no swap on a host of Kubernetes",
        ),
        (
            {"default_routes": ["IPv6"]},
            "default_route_missing",
            "no default route for IPv4",
            "one, though nobody answers there: without it the kernel refuses addresses of Services before kube-proxy "
            "sees them, and Flannel does not start",
        ),
        (
            {"cgroup_version": 1},
            "cgroup_v1",
            "cgroup v1",
            "cgroup v2, because kubelet 1.35.9 does not start on v1",
        ),
        (
            {"resolver": {"path": "/etc/resolv.conf", "exists": True, "nameservers": ["127.0.0.11"]}},
            "resolver_is_loopback",
            "/etc/resolv.conf has 127.0.0.11",
            "a name server that pods can reach",
        ),
        (
            {"resolver": {"path": "/etc/resolv.conf", "exists": True, "nameservers": []}},
            "resolver_is_loopback",
            "/etc/resolv.conf has no name server",
            "a name server that pods can reach",
        ),
        (
            {"resolver": {"path": "/etc/none", "exists": False, "nameservers": []}},
            "resolver_file_missing",
            "no file /etc/none",
            "a file with name servers, for kubelet",
        ),
        (
            {"docker_engine": True},
            "docker_engine_beside_kubernetes",
            "a Docker engine runs",
            "containerd alone: the engine's own rules drop what is forwarded to pods",
        ),
        ({"listeners": {"2379": "etcd"}}, "port_in_use", "etcd listens on port 2379", "a free port 2379, for etcd"),
        (
            {"listeners": {"10250": ""}},
            "port_in_use",
            "somebody listens on port 10250",
            "a free port 10250, for kubelet",
        ),
        (
            {"member": {"role": "node"}},
            "kubernetes_role_differs",
            "the host is a node of a cluster",
            "a control plane",
        ),
        (
            {
                "member": {"role": "control_plane"},
                "packages": {"kubelet": {"version": "1.35.8-1.1", "held": True}},
                "listeners": {"6443": "kube-apiserver"},
            },
            "kubernetes_version_differs",
            "kubelet 1.35.8-1.1 in a cluster",
            "1.35.9",
        ),
    ],
)
def test_what_stands_in_the_way(changes: dict[str, Any], code: str, found: str, wanted: str) -> None:
    (finding,) = node.preflight("cp-1", info(**changes), TOLD)
    assert (finding["host"], finding["code"], finding["found"], finding["wanted"]) == ("cp-1", code, found, wanted)
    assert node.obstacles([finding]) == [f"{found}, wanted {wanted}: {finding['fix']}"]


@pytest.mark.parametrize(("unfinished", "port"), [("init", "6443"), ("join", "10250")])
def test_what_an_interrupted_run_has_started_is_its_own(unfinished: str, port: str) -> None:
    assert node.preflight("cp-1", info(unfinished=unfinished, listeners={port: "kubelet"}), TOLD) == []


def test_an_old_containerd_is_found() -> None:
    told = kubeadm.settings({**TOLD.__dict__, "version": "1.36.4"})
    (finding,) = node.preflight("cp-1", info(), told)
    assert finding["code"] == "containerd_too_old"
    assert finding["found"].startswith("containerd is 1.7.24 and kubernetes_version is 1.36.4")
    assert "kubernetes_version" in finding["fix"]


def test_cgroup_v1_may_be_allowed() -> None:
    assert codes(info(cgroup_version=1), kubeadm.settings({**TOLD.__dict__, "cgroup_v1_allowed": True})) == []


def test_which_packages_are_wanting() -> None:
    assert node.shortfalls(info(), PACKAGES, "1.35.9") == []
    assert node.shortfalls(info(), PACKAGES, "1.35.8") == ["kubelet", "kubeadm", "kubectl"]
    assert node.shortfalls(info(packages={}), PACKAGES, "1.35.9") == list(PACKAGES)
    assert node.same_version("0:1.36.4-150500.1.1", "1.36.4")
    assert not node.same_version("1.36.40-1.1", "1.36.4")


def done() -> dict[str, Any]:
    cluster = kubeadm.cluster_document(TOLD)
    parts = {
        "kube-apiserver": "apiServer",
        "kube-controller-manager": "controllerManager",
        "kube-scheduler": "scheduler",
    }
    manifests = {
        name: {
            "spec": {
                "containers": [
                    {"command": [name, *(f"--{a['name']}={a['value']}" for a in cluster[part]["extraArgs"])]}
                ]
            }
        }
        for name, part in parts.items()
    }
    return info(
        member={"role": "control_plane"},
        kubelet={"active": True, "enabled": True, "cgroup_driver": "systemd", "healthz": "ok"},
        manifests={**manifests, "etcd": {}},
        modes={"/etc/kubernetes/admin.conf": "0600"},
        certificate_days={"/etc/kubernetes/pki/apiserver.crt": 364},
        leftover_secrets=[],
        readyz="ok",
    )


NODE = {
    "metadata": {"labels": {"example.org/rack": "7"}},
    "status": {
        "nodeInfo": {"kubeletVersion": "v1.35.9"},
        "addresses": [{"type": "InternalIP", "address": "192.0.2.1"}],
    },
}


def verified(found: dict[str, Any], *registered: dict[str, Any] | None) -> list[str]:
    return node.verify(found, TOLD, PACKAGES, 30, "text", *(registered or (NODE,)))


def test_a_good_control_plane_has_no_fault() -> None:
    assert verified(done()) == []


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        (
            {"packages": {**INFO["packages"], "kubelet": {"version": "1.35.8-1.1", "held": True}}},
            "kubelet is 1.35.8-1.1, wanted 1.35.9",
        ),
        (
            {"packages": {**INFO["packages"], "cri-tools": {"version": "1.35.0-1.1", "held": False}}},
            "cri-tools is not held, so that an update of the system would replace it",
        ),
        ({"swap": ["/dev/sda2"]}, "swap is on: /dev/sda2"),
        (
            {"sysctls": {**INFO["sysctls"], "net.ipv4.ip_forward": "0"}},
            "net.ipv4.ip_forward is 0, wanted 1",
        ),
        (
            {"upgrade": {"version": "1.36.4", "schedulable": True, "applying": False}},
            "an upgrade to 1.36.4 was interrupted: run upgrade_kubernetes again",
        ),
        (
            {"renewing": True},
            "a renewal of certificates was interrupted: run renew_kubernetes_certificates again",
        ),
        ({"unfinished": "join"}, "a join was interrupted and not completed: run the stage again"),
        ({"modes": {"/etc/kubernetes/admin.conf": "0644"}}, "/etc/kubernetes/admin.conf has mode 0644, wanted 0600"),
        (
            {"leftover_secrets": ["/run/gpufleet/kubernetes/a.yaml"]},
            "/run/gpufleet/kubernetes/a.yaml holds a secret of a join, wanted it gone",
        ),
        (
            {"certificate_days": {"/etc/kubernetes/pki/apiserver.crt": 12}},
            "/etc/kubernetes/pki/apiserver.crt ends in 12 days, wanted 30 or more: renew the certificates",
        ),
        ({"readyz": "refused"}, "the API server answers refused at /readyz, wanted ok"),
        (
            {"kubelet": {"active": True, "enabled": False, "cgroup_driver": "systemd", "healthz": "ok"}},
            "kubelet.service is not both running and enabled",
        ),
        (
            {"kubelet": {"active": True, "enabled": True, "cgroup_driver": "cgroupfs", "healthz": "ok"}},
            "kubelet's cgroup driver is cgroupfs, wanted systemd, as containerd's",
        ),
        (
            {"kubelet": {"active": True, "enabled": True, "cgroup_driver": "systemd", "healthz": "refused"}},
            "kubelet answers refused at /healthz, wanted ok",
        ),
        (
            {"containerd": {**INFO["containerd"], "configuration": "other"}},
            "/etc/containerd/config.toml is not what the role writes",
        ),
        (
            {"containerd": {**INFO["containerd"], "stale": True}},
            "containerd runs with an older /etc/containerd/config.toml: it has to be restarted",
        ),
        ({"containerd": {**INFO["containerd"], "active": False}}, "containerd.service does not run"),
        ({"member": {"role": "node"}}, "the host is a node, wanted a control_plane"),
    ],
)
def test_what_is_not_as_promised(changes: dict[str, Any], fault: str) -> None:
    assert verified({**done(), **changes}) == [fault]


def test_static_pods() -> None:
    found = done()
    del found["manifests"]["etcd"]
    found["manifests"]["kube-scheduler"]["spec"]["containers"][0]["command"] = ["kube-scheduler"]
    assert verified(found) == [
        "the static Pod etcd has no manifest",
        "kube-scheduler has profiling=not set, wanted false",
        "kube-scheduler has tls-min-version=not set, wanted VersionTLS13",
    ]


def test_what_the_cluster_knows() -> None:
    assert verified(done(), None) == ["the cluster has no node cp-1"]
    other: dict[str, Any] = copy.deepcopy(NODE)
    other["status"]["nodeInfo"]["kubeletVersion"] = "v1.35.8"
    other["status"]["addresses"] = []
    other["metadata"]["labels"] = {}
    assert verified(done(), other) == [
        "the cluster sees kubelet v1.35.8, wanted v1.35.9",
        "the node's label example.org/rack is not set, wanted 7",
        "the node's address is not known, wanted 192.0.2.1",
    ]


def test_a_host_of_no_cluster() -> None:
    assert verified({**done(), "member": None}) == ["the host belongs to no cluster"]
