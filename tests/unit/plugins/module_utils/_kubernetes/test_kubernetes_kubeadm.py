# SPDX-License-Identifier: Apache-2.0
"""What kubeadm and the API server are told, and how a host comes into a cluster."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from ansible_collections.gpufleet.metal.plugins.module_utils._kubernetes import kubeadm

KEY = base64.b64encode(bytes(range(32))).decode()
PLANES = [{"name": f"cp-{number}", "address": f"192.0.2.{number}"} for number in (1, 2, 3)]
OPTIONS: dict[str, Any] = {
    "role": "control_plane",
    "version": "1.36.4",
    "node_name": "cp-1",
    "address": "192.0.2.1",
    "endpoint": "192.0.2.10:8443",
    "control_planes": PLANES,
}


def told(**changes: Any) -> kubeadm.Settings:
    return kubeadm.settings({**OPTIONS, **changes})


def arguments(component: dict[str, Any]) -> dict[str, str]:
    return {item["name"]: item["value"] for item in component["extraArgs"]}


def test_an_init_is_four_documents() -> None:
    found = kubeadm.documents(told())
    assert [document["kind"] for document in found] == [
        "InitConfiguration",
        "ClusterConfiguration",
        "KubeletConfiguration",
        "KubeProxyConfiguration",
    ]
    assert found[0] == {
        "apiVersion": "kubeadm.k8s.io/v1beta4",
        "kind": "InitConfiguration",
        "bootstrapTokens": [
            {
                "description": "made by kubeadm init, used by nobody",
                "ttl": "1m0s",
                "usages": ["authentication", "signing"],
                "groups": ["system:bootstrappers:kubeadm:default-node-token"],
            }
        ],
        "localAPIEndpoint": {"advertiseAddress": "192.0.2.1", "bindPort": 6443},
        "nodeRegistration": {
            "name": "cp-1",
            "criSocket": "unix:///run/containerd/containerd.sock",
            "imagePullPolicy": "IfNotPresent",
            "taints": [{"key": "node-role.kubernetes.io/control-plane", "effect": "NoSchedule"}],
            "kubeletExtraArgs": [{"name": "node-ip", "value": "192.0.2.1"}],
        },
    }
    assert found[3]["mode"] == "nftables"


def test_the_cluster_is_the_same_on_every_control_plane() -> None:
    first, second = told(), told(node_name="cp-2", address="192.0.2.2")
    assert kubeadm.cluster_document(first) == kubeadm.cluster_document(second)
    document = kubeadm.cluster_document(first)
    assert document["kubernetesVersion"] == "v1.36.4"
    assert document["controlPlaneEndpoint"] == "192.0.2.10:8443"
    assert document["networking"] == {
        "podSubnet": "10.244.0.0/16",
        "serviceSubnet": "10.96.0.0/12",
        "dnsDomain": "cluster.local",
    }
    assert document["apiServer"]["certSANs"] == ["192.0.2.1", "192.0.2.10", "192.0.2.2", "192.0.2.3"]
    given = arguments(document["apiServer"])
    assert given["profiling"] == "false"
    assert given["audit-log-maxage"] == "30"
    assert given["tls-min-version"] == "VersionTLS13"
    assert "tls-cipher-suites" not in given
    assert "encryption-provider-config" not in given
    assert arguments(document["controllerManager"])["profiling"] == "false"
    assert arguments(document["scheduler"])["profiling"] == "false"
    assert document["etcd"] == {"local": {"dataDir": "/var/lib/etcd"}}


def test_options_change_what_they_name() -> None:
    changed = told(
        encryption_keys=[KEY],
        tls_minimum="VersionTLS12",
        etcd_image_tag="3.5.16-0",
        api_server_arguments={"audit-log-maxage": "90", "event-ttl": "2h"},
        audit_log={"days": 7},
        kubelet_options={"maxPods": 50, "authentication": {"anonymous": {"enabled": False}}},
        kube_proxy_options={"conntrack": {"maxPerCore": 0}},
        resolv_conf="/etc/resolv.gpufleet",
        cgroup_v1_allowed=True,
    )
    given = arguments(kubeadm.cluster_document(changed)["apiServer"])
    assert given["encryption-provider-config"] == "/etc/kubernetes/gpufleet/encryption.yaml"
    assert given["audit-log-maxage"] == "90"
    assert given["event-ttl"] == "2h"
    assert "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384" in given["tls-cipher-suites"]
    assert kubeadm.cluster_document(changed)["etcd"]["local"]["imageTag"] == "3.5.16-0"
    kubelet = kubeadm.kubelet_document(changed)
    assert kubelet["maxPods"] == 50
    assert kubelet["authentication"] == {"anonymous": {"enabled": False}, "webhook": {"enabled": True}}
    assert kubelet["resolvConf"] == "/etc/resolv.gpufleet"
    assert kubelet["failCgroupV1"] is False
    # kubeadm's preflight refuses cgroup v1 by itself: kubelet's setting alone is not enough.
    for document in (kubeadm.init_document(changed), kubeadm.join_document(changed)):
        assert document["nodeRegistration"]["ignorePreflightErrors"] == ["SystemVerification"]
    assert kubelet["tlsCipherSuites"] == given["tls-cipher-suites"].split(",")
    assert kubeadm.kube_proxy_document(changed)["conntrack"] == {"maxPerCore": 0}


def test_kubelet_is_told_what_kubeadm_leaves_open() -> None:
    document = kubeadm.kubelet_document(told())
    assert document["clusterDNS"] == ["10.96.0.10"]
    assert document["failCgroupV1"] is True
    assert "resolvConf" not in document
    wanted = {
        "cgroupDriver": "systemd",
        "rotateCertificates": True,
        "serverTLSBootstrap": True,
        "protectKernelDefaults": True,
        "readOnlyPort": 0,
        "seccompDefault": True,
    }
    assert {name: document[name] for name in wanted} == wanted


def test_a_join_has_no_secret_yet() -> None:
    worker = kubeadm.join_document(told(role="node", node_name="gpu-1", labels={"b": "2", "a": "1"}))
    assert worker["discovery"] == {"bootstrapToken": {"apiServerEndpoint": "192.0.2.10:8443"}}
    assert "controlPlane" not in worker
    assert worker["nodeRegistration"]["taints"] == []
    assert worker["nodeRegistration"]["kubeletExtraArgs"][1] == {"name": "node-labels", "value": "a=1,b=2"}
    plane = kubeadm.join_document(told())
    assert plane["controlPlane"] == {"localAPIEndpoint": {"advertiseAddress": "192.0.2.1", "bindPort": 6443}}
    offered = kubeadm.offer_document(told())
    assert "bootstrapTokens" not in offered
    assert "certificateKey" not in offered


def test_the_first_key_encrypts_and_old_data_is_read() -> None:
    other = base64.b64encode(bytes(32)).decode()
    document = kubeadm.encryption_document(told(encryption_keys=[KEY, other]))
    (rule,) = document["resources"]
    assert rule["resources"] == ["secrets"]
    assert [[*provider] for provider in rule["providers"]] == [["secretbox"], ["identity"]]
    keys = rule["providers"][0]["secretbox"]["keys"]
    assert [key["secret"] for key in keys] == [KEY, other]
    # The name stays with the key while keys are rotated.
    assert keys[0]["name"] == kubeadm.key_name(KEY)
    assert KEY[:8] not in keys[0]["name"]


def test_nobody_without_a_name_reads_more_than_probes_and_joins_do() -> None:
    anonymous = kubeadm.authentication_document()["anonymous"]
    assert anonymous["enabled"] is True
    assert [condition["path"] for condition in anonymous["conditions"]] == [
        "/livez",
        "/readyz",
        "/healthz",
        "/api/v1/namespaces/kube-public/configmaps/cluster-info",
    ]


def test_the_audit_log_has_no_content_of_secrets() -> None:
    for rule in kubeadm.audit_document(told())["rules"]:
        named = [name for item in rule.get("resources", []) for name in item.get("resources", [])]
        if "secrets" in named:
            assert rule["level"] == "Metadata"
            break
        assert rule["level"] == "None"
    else:
        pytest.fail("no rule names secrets")
    own = [{"level": "Metadata"}]
    assert kubeadm.audit_document(told(audit_rules=own))["rules"] == own


def test_events_are_limited() -> None:
    (plugin,) = kubeadm.admission_document()["plugins"]
    assert plugin["name"] == "EventRateLimit"
    assert [limit["type"] for limit in plugin["configuration"]["limits"]] == ["Namespace", "User"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"version": "1.36"}, "kubernetes_version is '1.36', wanted a whole version such as 1.36.4"),
        (
            {"etcd_image_tag": "3.5.30-0"},
            "kubernetes_etcd_image_tag is '3.5.30-0', wanted one such as 3.6.8-0: kubeadm 1.36 starts etcd with "
            "arguments that those before 3.6 do not know",
        ),
        (
            {"etcd_image_tag": "latest"},
            "kubernetes_etcd_image_tag is 'latest', wanted one such as 3.6.8-0: kubeadm 1.36 starts etcd with "
            "arguments that those before 3.6 do not know",
        ),
        ({"version": "1.34.2"}, "kubernetes_version is '1.34.2', wanted one of the minors 1.35, 1.36, 1.37"),
        (
            {"endpoint": "192.0.2.10"},
            "kubernetes_endpoint is '192.0.2.10', wanted address:port or name:port of the API server",
        ),
        (
            {"endpoint": "192.0.2.10:70000"},
            "kubernetes_endpoint is '192.0.2.10:70000', wanted address:port or name:port of the API server",
        ),
        (
            {"pod_network": "10.96.0.0/16"},
            "kubernetes_pod_network is '10.96.0.0/16', which overlaps kubernetes_service_network (10.96.0.0/12), "
            "wanted two networks apart",
        ),
        (
            {"pod_network": "192.0.0.0/16"},
            "kubernetes_pod_network is '192.0.0.0/16', which holds the hosts' own 192.0.2.1, 192.0.2.2, 192.0.2.3, "
            "wanted a network of its own",
        ),
        (
            {"pod_network": "10.244.0.0/25"},
            "kubernetes_pod_network is '10.244.0.0/25', wanted /24 or larger: each node takes a /24 of it",
        ),
        (
            {"service_network": "11.0.0.0/8"},
            "kubernetes_service_network is '11.0.0.0/8', wanted /12 or smaller",
        ),
        (
            {"service_network": "10.96.0.0/28"},
            "kubernetes_service_network is '10.96.0.0/28', wanted 256 addresses or more",
        ),
        (
            {"pod_network": "10.244"},
            "kubernetes_pod_network is '10.244', wanted a network such as 10.244.0.0/16 "
            "('10.244' does not appear to be an IPv4 or IPv6 network)",
        ),
        (
            {"node_name": "GPU_1", "role": "node"},
            "kubernetes_node_name is 'GPU_1', wanted lower-case letters, digits, hyphens and dots, as a DNS name "
            "has them",
        ),
        (
            {"labels": {"node-role.kubernetes.io/worker": ""}},
            "kubernetes_labels has 'node-role.kubernetes.io/worker', which a node may not give itself; wanted another "
            "prefix than kubernetes.io, or node.kubernetes.io/",
        ),
        (
            {"taints": [{"key": "gpu", "effect": "Never"}]},
            "kubernetes_taints has gpu with effect 'Never', wanted one of NoSchedule, PreferNoSchedule, NoExecute",
        ),
        (
            {"encryption_keys": ["c2hvcnQ="]},
            "kubernetes_encryption_keys: key 1 has 5 bytes, wanted 32 random bytes in base64, as the kind "
            "kubernetes_encryption_key of the store of secrets makes them",
        ),
        (
            {"encryption_keys": [KEY, KEY]},
            "kubernetes_encryption_keys has a key twice, wanted keys that differ",
        ),
        (
            {"api_server_arguments": {"profiling": "true"}},
            "kubernetes_api_server_arguments has 'profiling', which the role sets itself; wanted others",
        ),
        (
            {"node_name": "cp-9"},
            "kubernetes_control_planes has cp-1, cp-2, cp-3 and not cp-9, wanted this control plane among them",
        ),
        (
            {"address": "192.0.2.9"},
            "kubernetes_control_planes gives cp-1 the address 192.0.2.1, wanted that of kubernetes_address (192.0.2.9)",
        ),
        ({"address": "cp-1", "role": "node"}, "kubernetes_address is 'cp-1', wanted the host's IP address"),
        (
            {"control_planes": []},
            "kubernetes_control_planes is empty, wanted the name and the address of each control plane",
        ),
    ],
)
def test_what_does_not_fit_together(changes: dict[str, Any], message: str) -> None:
    assert kubeadm.faults(told(**changes)) == [message]


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"endpoint": "[2001:db8::1]:6443"},
        {"endpoint": "api.example.org:8443"},
        {"version": "1.37.1"},
        {"etcd_image_tag": "3.6.8-0"},
        {"version": "1.35.9", "etcd_image_tag": "3.5.16-0"},
        {"labels": {"node.kubernetes.io/gpu": "h100", "example.org/rack": "7"}},
        {"api_server_arguments": {"audit-log-maxage": "90"}},
        {"encryption_keys": [KEY]},
    ],
)
def test_what_fits(changes: dict[str, Any]) -> None:
    assert kubeadm.faults(told(**changes)) == []


def test_null_keeps_the_default() -> None:
    assert told(image_repository=None).image_repository == "registry.k8s.io"


def test_differences_name_the_value() -> None:
    before = kubeadm.documents(told())
    after = kubeadm.documents(
        told(
            pod_network="10.42.0.0/16", api_server_arguments={"event-ttl": "2h"}, node_name="cp-2", address="192.0.2.2"
        )
    )
    assert kubeadm.differences([*before, None], before) == []
    assert kubeadm.differences(before, after) == [
        "ClusterConfiguration.apiServer.extraArgs.event-ttl is not set, wanted 2h",
        "ClusterConfiguration.networking.podSubnet is 10.244.0.0/16, wanted 10.42.0.0/16",
        "KubeProxyConfiguration.clusterCIDR is 10.244.0.0/16, wanted 10.42.0.0/16",
    ]


def test_control_planes_come_and_go() -> None:
    planes = [{"name": "cp-1", "address": "192.0.2.1"}, {"name": "cp-4", "address": "192.0.2.4"}]
    before, after = kubeadm.documents(told()), kubeadm.documents(told(control_planes=planes))
    addresses = [plane["address"] for plane in planes]
    untouched = kubeadm.documents(told(control_planes=planes))
    assert kubeadm.differences(before, after, addresses) == []
    assert after == untouched
    # A name that the certificate lacks is one.
    named = kubeadm.documents(told(control_planes=planes, endpoint_names=["api.example.org"]))
    assert kubeadm.differences(before, named, addresses) == [
        "ClusterConfiguration.apiServer.certSANs is [], wanted ['api.example.org']"
    ]
    later = kubeadm.documents(told(version="1.36.5"))
    assert kubeadm.differences(before, later, version=False) == []
    assert kubeadm.differences(before, later) == ["ClusterConfiguration.kubernetesVersion is v1.36.4, wanted v1.36.5"]


def test_a_manifest_is_held_against_its_arguments() -> None:
    wanted = kubeadm.cluster_document(told())["scheduler"]["extraArgs"]
    command = ["kube-scheduler", *(f"--{item['name']}={item['value']}" for item in wanted)]
    manifest = {"spec": {"containers": [{"command": command}]}}
    assert kubeadm.manifest_faults(manifest, "kube-scheduler", told()) == []
    command[1] = "--profiling=true"
    assert kubeadm.manifest_faults(manifest, "kube-scheduler", told()) == [
        "kube-scheduler has profiling=true, wanted false"
    ]


def plane(name: str, answer: str = "no cluster", reached: bool = True, cluster: bool | None = None) -> dict[str, Any]:
    has = answer != "no cluster" if cluster is None else cluster
    return {"name": name, "reached": reached, "cluster": has, "answers": answer == "ok", "answer": answer}


LOST = plane("cp-1", "nothing", reached=False, cluster=False)


@pytest.mark.parametrize(
    ("role", "own", "seen", "action", "by"),
    [
        ("control_plane", "cp-1", [plane("cp-1"), plane("cp-2")], "init", None),
        ("control_plane", "cp-2", [plane("cp-1", "ok"), plane("cp-2")], "join", "cp-1"),
        ("control_plane", "cp-1", [plane("cp-1"), plane("cp-2", "ok")], "join", "cp-2"),
        ("control_plane", "cp-2", [LOST, plane("cp-2"), plane("cp-3", "ok")], "join", "cp-3"),
        ("node", "gpu-1", [LOST, plane("cp-2", "refused"), plane("cp-3", "ok")], "join", "cp-3"),
    ],
)
def test_how_a_host_comes_into_a_cluster(role: str, own: str, seen: list[Any], action: str, by: str | None) -> None:
    assert kubeadm.decision(own, role, None, seen, False, False) == {"action": action, "by": by, "fault": None}


@pytest.mark.parametrize(
    ("role", "own", "seen", "fault"),
    [
        (
            "control_plane",
            "cp-2",
            [LOST, plane("cp-2")],
            "cp-1 gives no answer and no other control plane has a cluster: a second cluster beside a lost host is "
            "refused. Bring it back, or, if its cluster is to be given up, take it out of the group or set "
            "kubernetes_cluster_loss_allowed to true",
        ),
        (
            "control_plane",
            "cp-1",
            [plane("cp-1"), plane("cp-2", "refused")],
            "no API server of the cluster answers (cp-2 says refused): mend that first; nothing was changed here",
        ),
        (
            "control_plane",
            "cp-2",
            [plane("cp-1"), plane("cp-2")],
            "no control plane has a cluster yet, and cp-1 makes it: run without --limit, or for cp-1 first",
        ),
        (
            "node",
            "gpu-1",
            [plane("cp-1"), plane("cp-2")],
            "no control plane has a cluster yet: run the stage for the control planes first",
        ),
    ],
)
def test_when_it_does_not(role: str, own: str, seen: list[Any], fault: str) -> None:
    assert kubeadm.decision(own, role, None, seen, False, False)["fault"] == fault


def test_a_lost_cluster_is_given_up_only_when_asked() -> None:
    seen = [LOST, plane("cp-2")]
    assert kubeadm.decision("cp-2", "control_plane", None, seen, True, False)["action"] == "init"
    # That does not make a second cluster beside one that is there and does not answer.
    broken = [plane("cp-1", "refused"), plane("cp-2")]
    assert kubeadm.decision("cp-2", "control_plane", None, broken, True, False)["fault"] is not None


def test_check_mode_takes_the_first_cluster_as_made() -> None:
    seen = [plane("cp-1"), plane("cp-2")]
    assert kubeadm.decision("cp-2", "control_plane", None, seen, False, True) == {
        "action": "join",
        "by": None,
        "fault": None,
    }
    assert kubeadm.decision("gpu-1", "node", None, seen, False, True)["fault"] is None


def test_an_interrupted_init_goes_on_as_one() -> None:
    seen = [plane("cp-1"), plane("cp-2", "ok")]
    assert kubeadm.decision("cp-1", "control_plane", "init", seen, False, False)["action"] == "init"
    assert kubeadm.decision("cp-1", "control_plane", "join", seen, False, False)["by"] == "cp-2"


def test_what_the_control_planes_said() -> None:
    results = [
        {"__kubernetes_plane": {"name": "cp-2"}, "unreachable": True, "msg": "no route"},
        {"__kubernetes_plane": {"name": "cp-3"}, "cluster": True, "answers": True, "answer": "ok"},
    ]
    assert kubeadm.planes_seen(PLANES, results, "cp-1") == [
        plane("cp-1", "nothing", cluster=False),
        plane("cp-2", "nothing", reached=False, cluster=False),
        plane("cp-3", "ok"),
    ]
