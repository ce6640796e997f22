# SPDX-License-Identifier: Apache-2.0
"""What stops an upgrade before any change, and what is not well between two of its hosts."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest

from ansible_collections.gpufleet.metal.plugins.module_utils._errors import InvalidInputError
from ansible_collections.gpufleet.metal.plugins.module_utils._kubernetes import upgrade

PLANES = ("cp-1", "cp-2", "cp-3")
NODES = (*PLANES, "gpu-1")
Cluster = dict[str, Any]


def cluster(version: str = "1.35.9") -> Cluster:
    """A cluster of three control planes and a worker that is well."""
    return {
        "version": version,
        "nodes": {
            name: {
                "control_plane": name in PLANES,
                "kubelet": version,
                "ready": True,
                "schedulable": True,
                "address": f"192.0.2.{position}",
            }
            for position, name in enumerate(NODES, 1)
        },
        "planes": {
            name: {
                **{part: {"version": version, "ready": True} for part in upgrade.VERSIONED},
                "etcd": {"version": "3.6.5-0", "ready": True},
            }
            for name in PLANES
        },
        "readyz": dict.fromkeys(PLANES, "ok"),
        "etcd": {
            "members": [
                {"id": name, "name": name, "peer_urls": [], "learner": False, "healthy": True, "answer": "ok"}
                for name in PLANES
            ],
            "alarms": [],
        },
        "requested_apis": [],
    }


def faults(found: Cluster, target: str, ignored: tuple[str, ...] = ()) -> list[str]:
    return upgrade.faults(found, target, PLANES, ignored)


@pytest.mark.parametrize("target", ["1.35.9", "1.35.10", "1.36.0", "1.36.4"])
def test_a_patch_and_the_next_minor_are_taken(target: str) -> None:
    assert faults(cluster(), target) == []


@pytest.mark.parametrize(
    ("version", "target", "message"),
    [
        (
            "1.35.9",
            "1.37.1",
            "kubernetes_version is 1.37.1 and the API server of cp-1, cp-2, cp-3 runs 1.35.9: one minor at a time, "
            "wanted "
            "1.36.4 first (set fleet_kubernetes.version)",
        ),
        (
            "1.36.4",
            "1.36.3",
            "kubernetes_version is 1.36.3 and the API server of cp-1, cp-2, cp-3 runs 1.36.4, wanted that or a newer "
            "one: "
            "Kubernetes does not go back to an older version (set fleet_kubernetes.version)",
        ),
        ("1.36.4", "1.38.0", "kubernetes_version is 1.38.0, wanted one of the minors 1.35, 1.36, 1.37"),
    ],
)
def test_other_steps_are_refused(version: str, target: str, message: str) -> None:
    assert faults(cluster(version), target)[0] == message


def change(found: Cluster, *path: Any, value: Any) -> None:
    for key in path[:-1]:
        found = found[key]
    found[path[-1]] = value


@pytest.mark.parametrize(
    ("mend", "message"),
    [
        (
            lambda it: change(it, "nodes", "gpu-1", "kubelet", value="1.36.0"),
            "the kubelet of gpu-1 is 1.36.0 and an API server is 1.35.9: a kubelet must not be newer; bring its "
            "packages "
            "back to 1.35.9",
        ),
        (
            lambda it: change(it, "nodes", "cp-2", "kubelet", value="1.36.0"),
            "the kubelet of cp-2 is 1.36.0 and its own API server is 1.35.9: a kubelet must not be newer; bring its "
            "packages back to 1.35.9",
        ),
        (
            lambda it: change(it, "nodes", "gpu-1", "kubelet", value="1.32.0"),
            "the kubelet of gpu-1 is 1.32.0, more than 3 minors older than 1.36.4: upgrade that host first, with "
            "fleet_kubernetes.version as it is (1.35.9)",
        ),
        (
            lambda it: change(
                it, "etcd", "members", 2, value={**it["etcd"]["members"][2], "healthy": False, "answer": "no"}
            ),
            "the etcd member cp-3 is not healthy (no): mend it, or have the cluster forget a host that is lost "
            "(forget_kubernetes_node)",
        ),
        (
            lambda it: change(it, "etcd", "members", 2, "learner", value=True),
            "the etcd member cp-3 is a learner still, wanted a member that votes: see etcd's log there",
        ),
        (
            lambda it: change(it, "etcd", "alarms", value=["NOSPACE"]),
            "etcd has the alarm NOSPACE: free space and clear it first",
        ),
        (
            lambda it: change(it, "etcd", "members", 0, "name", value="cp-0"),
            "etcd has the member cp-0, which is no control plane of the cluster: have the cluster forget it "
            "(forget_kubernetes_node)",
        ),
        (
            lambda it: change(it, "readyz", "cp-1", value="etcd failed"),
            "the API server of cp-1 answers etcd failed at /readyz, wanted ok",
        ),
        (
            lambda it: change(it, "nodes", "cp-1", "ready", value=False),
            "the node cp-1, a control plane, is not ready: see journalctl --unit kubelet there",
        ),
        (
            lambda it: it["planes"]["cp-1"].pop("kube-scheduler"),
            "kube-scheduler of cp-1 is not ready: see crictl ps --all and the container's log there",
        ),
        (
            lambda it: change(
                it,
                "requested_apis",
                value=[
                    {"group": "a.k8s.io", "version": "v1beta1", "resource": "as", "removed_release": "1.36"},
                    {"group": "b.k8s.io", "version": "v1beta1", "resource": "bs", "removed_release": "1.37"},
                    {"group": "", "version": "v1", "resource": "componentstatuses", "removed_release": ""},
                    {"group": "c.k8s.io", "version": "v1beta1", "resource": "cs", "removed_release": "1.34"},
                ],
            ),
            "somebody asks the API server for a.k8s.io/v1beta1/as, which Kubernetes 1.36 no longer has: find out who "
            "(the "
            "audit log has k8s.io/deprecated), or, if nobody needs it any more, add a.k8s.io/v1beta1/as to "
            "kubernetes_upgrade_ignored_apis",
        ),
    ],
)
def test_what_stops_it(mend: Callable[[Cluster], Any], message: str) -> None:
    found = cluster()
    mend(found)
    assert faults(found, "1.36.4") == [message]
    assert faults(found, "1.36.4", ("a.k8s.io/v1beta1/as",)) == ([] if message.startswith("somebody") else [message])


def test_an_upgrade_that_was_interrupted_goes_on() -> None:
    found = cluster()
    for part in upgrade.VERSIONED:
        found["planes"]["cp-1"][part]["version"] = "1.36.4"
    # Between its static Pods and its kubelet, and after it.
    assert faults(found, "1.36.4") == []
    found["nodes"]["cp-1"]["kubelet"] = "1.36.4"
    assert faults(found, "1.36.4") == []
    assert upgrade.order_faults(found, "1.36.4") == [
        f"the API server of {name} runs 1.35.9, wanted 1.36.4 before any worker: run upgrade_kubernetes for the "
        "control "
        f"planes first"
        for name in ("cp-2", "cp-3")
    ]
    assert "the API server of cp-2, cp-3 runs 1.35.9: one minor at a time" in faults(found, "1.37.1")[0]
    assert upgrade.order_faults(cluster("1.36.4"), "1.36.4") == []


def test_the_control_planes_of_plan_and_cluster() -> None:
    assert upgrade.faults(cluster(), "1.36.4", ("cp-1", "cp-2", "cp-4"), ()) == [
        "cp-4 is a control plane of the plan and none of the cluster: run gpufleet.metal.kubernetes first",
        "cp-3 is a control plane of the cluster and none of the plan: add it to kube_control_plane, or take it out "
        "of the "
        "cluster (reset_kubernetes_node, or forget_kubernetes_node for a host that is lost)",
    ]


def test_a_host_that_cannot_be_upgraded() -> None:
    found = cluster()
    assert upgrade.node_faults(found, "gpu-1", False, []) == []
    assert upgrade.node_faults(found, "gpu-2", False, ["ClusterConfiguration.clusterName is a, wanted b"]) == [
        "the cluster has no node gpu-2: run gpufleet.metal.kubernetes for it, or leave it out (--limit)",
        "the cluster was made otherwise (ClusterConfiguration.clusterName is a, wanted b), and an upgrade changes the "
        "version alone: put the option back",
    ]
    found["nodes"]["gpu-1"]["ready"] = False
    assert upgrade.node_faults(found, "gpu-1", False, []) == [
        "the node gpu-1 is not ready: mend it, or leave it out (--limit)"
    ]
    assert upgrade.node_faults(found, "gpu-1", True, []) == []


def test_who_is_to_be_upgraded() -> None:
    found = cluster()
    assert not upgrade.is_wanted(found, "cp-1", "1.35.9", False, [])
    assert upgrade.is_wanted(found, "cp-1", "1.35.9", True, [])
    assert upgrade.is_wanted(found, "cp-1", "1.35.9", False, ["kubectl"])
    assert upgrade.is_wanted(found, "gpu-1", "1.36.4", False, [])
    changed = copy.deepcopy(found)
    changed["planes"]["cp-1"]["kube-scheduler"]["version"] = "1.35.8"
    assert upgrade.is_wanted(changed, "cp-1", "1.35.9", False, [])
    assert not upgrade.is_wanted(changed, "gpu-1", "1.35.9", False, [])


def test_health_between_hosts() -> None:
    found = cluster("1.36.4")
    assert upgrade.health_faults(found, "cp-1", "1.36.4") == []
    assert upgrade.health_faults(found, "gpu-1", "1.36.4") == []
    assert upgrade.health_faults(found, "gpu-2", "1.36.4") == ["the cluster has no node gpu-2"]
    found["nodes"]["gpu-1"].update(ready=False, kubelet="1.35.9")
    assert upgrade.health_faults(found, "gpu-1", "1.36.4") == [
        "the node gpu-1 is not ready: see journalctl --unit kubelet there",
        "the cluster sees kubelet 1.35.9 on gpu-1, wanted 1.36.4",
    ]
    found["planes"]["cp-1"]["kube-scheduler"]["version"] = None
    assert upgrade.health_faults(found, "cp-1", "1.36.4") == ["kube-scheduler of cp-1 is not there, wanted 1.36.4"]


def test_the_metric_of_deprecated_apis() -> None:
    text = (
        "# TYPE apiserver_requested_deprecated_apis gauge\n"
        'apiserver_requested_deprecated_apis{group="",removed_release="",resource="componentstatuses",subresource="",'
        'version="v1"} 1\n'
        'apiserver_requested_deprecated_apis{group="a.k8s.io",removed_release="1.36",resource="as",subresource="status",'
        'version="v1beta1"} 0\n'
        "other 1\n"
    )
    assert [upgrade.api_name(api) for api in upgrade.requested_apis(text)] == ["v1/componentstatuses"]


def test_versions() -> None:
    assert upgrade.is_minor("1.35.9", "1.36.0")
    assert not upgrade.is_minor("1.36.0", "1.36.4")
    with pytest.raises(InvalidInputError, match=r"^found the version '1.36', wanted one such as 1.36.4$"):
        upgrade.parsed("1.36")
