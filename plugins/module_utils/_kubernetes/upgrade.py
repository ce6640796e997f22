# SPDX-License-Identifier: Apache-2.0
# PRIVATE to the collection: do not import this from outside, it may change without notice.
"""Judge an upgrade before any change, and a cluster between two of its hosts.

All of it is pure and takes what the module kubernetes_cluster_info returns. kubeadm would refuse some of this itself,
but only on the host that is upgraded, and only when its packages are replaced.

Sources: the version skew policy of Kubernetes, "Upgrading kubeadm clusters", and the deprecation policy, for the metric
of APIs that somebody has asked for.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from ansible_collections.gpufleet.metal.plugins.module_utils._errors import InvalidInputError
from ansible_collections.gpufleet.metal.plugins.module_utils._kubernetes import versions

Cluster = Mapping[str, Any]
Version = tuple[int, int, int]

API_SERVER = "kube-apiserver"
#: Static Pods that carry the version of Kubernetes; etcd has one of its own.
VERSIONED = ("kube-apiserver", "kube-controller-manager", "kube-scheduler")
COMPONENTS = (*VERSIONED, "etcd")
#: A kubelet may be this many minors older than the API server that it asks.
KUBELET_SKEW = 3
_METRIC = re.compile(r"^apiserver_requested_deprecated_apis\{(.*)\} 1(\.0)?$", re.M)
_LABEL = re.compile(r'(\w+)="([^"]*)"')


def parsed(version: str) -> Version:
    """Return the numbers of ``1.36.4`` or ``v1.36.4``. Raises InvalidInputError."""
    numbers = version.removeprefix("v").split(".")
    if len(numbers) != 3 or not all(number.isdigit() for number in numbers):
        raise InvalidInputError(f"found the version {version!r}, wanted one such as 1.36.4")
    return int(numbers[0]), int(numbers[1]), int(numbers[2])


def shown(version: Version) -> str:
    """Return a version as text."""
    return ".".join(map(str, version))


def requested_apis(text: str) -> list[dict[str, str]]:
    """Return the deprecated APIs that somebody has asked an API server for since it started, from its metrics."""
    return [dict(_LABEL.findall(labels)) for labels, __ in _METRIC.findall(text)]


def api_name(api: Mapping[str, str]) -> str:
    """Return ``group/version/resource``, or ``version/resource`` of the core group."""
    return "/".join(part for part in (api.get("group"), api.get("version"), api.get("resource")) if part)


def _api_versions(cluster: Cluster) -> dict[str, Version]:
    found = {}
    for name, components in cluster["planes"].items():
        version = components.get(API_SERVER, {}).get("version")
        if version:
            found[name] = parsed(version)
    return found


def _listed(names: Sequence[str]) -> str:
    return ", ".join(sorted(names))


def _step_faults(target: Version, running: Mapping[str, Version]) -> list[str]:
    """Return why the control planes do not go to this version."""
    newest, oldest = max(running.values()), min(running.values())
    wanted = shown(target)
    if target < newest:
        where = _listed([name for name, version in running.items() if version > target])
        return [
            f"kubernetes_version is {wanted} and the API server of {where} runs {shown(newest)}, wanted that or a "
            "newer "
            f"one: Kubernetes does not go back to an older version (set fleet_kubernetes.version)"
        ]
    if target[:2] > (oldest[0], oldest[1] + 1):
        following = f"{oldest[0]}.{oldest[1] + 1}"
        known = following in versions.supported_minors()
        step = versions.default_version(following) if known else f"a version of {following}"
        where = _listed([name for name, version in running.items() if version == oldest])
        return [
            f"kubernetes_version is {wanted} and the API server of {where} runs {shown(oldest)}: one minor at a time, "
            f"wanted {step} first (set fleet_kubernetes.version)"
        ]
    return []


def _kubelet_faults(cluster: Cluster, target: Version, running: Mapping[str, Version]) -> list[str]:
    oldest = min(running.values())
    found = []
    for name, node in sorted(cluster["nodes"].items()):
        kubelet = parsed(node["kubelet"])
        # A control plane's kubelet asks its own API server; a worker's may get to any of them.
        api = running.get(name, oldest)
        if kubelet > api:
            found.append(
                f"the kubelet of {name} is {shown(kubelet)} and "
                f"{'its own API server' if name in running else 'an API server'} is {shown(api)}: a kubelet must not "
                "be "
                f"newer; bring its packages back to {shown(api)}"
            )
        elif kubelet > target:
            found.append(
                f"the kubelet of {name} is {shown(kubelet)}, newer than kubernetes_version ({shown(target)}): a "
                "kubelet "
                f"must not be newer than the API server (set fleet_kubernetes.version)"
            )
        elif target[:2] > (kubelet[0], kubelet[1] + KUBELET_SKEW):
            found.append(
                f"the kubelet of {name} is {shown(kubelet)}, more than {KUBELET_SKEW} minors older than "
                f"{shown(target)}: upgrade that host first, with fleet_kubernetes.version as it is ({shown(oldest)})"
            )
    return found


def etcd_faults(cluster: Cluster) -> list[str]:
    """Return why etcd would not survive that one of its members restarts."""
    etcd = cluster["etcd"]
    found = []
    for member in sorted(etcd["members"], key=lambda member: str(member["name"])):
        name = member["name"] or f"without a name ({', '.join(member['peer_urls'])})"
        if member["learner"]:
            found.append(f"the etcd member {name} is a learner still, wanted a member that votes: see etcd's log there")
        elif not member["healthy"]:
            found.append(
                f"the etcd member {name} is not healthy ({member['answer']}): mend it, or have the cluster forget a "
                "host "
                f"that is lost (forget_kubernetes_node)"
            )
    found += [f"etcd has the alarm {alarm}: free space and clear it first" for alarm in etcd["alarms"]]
    strangers = {member["name"] for member in etcd["members"] if member["name"]} - {*cluster["planes"]}
    if strangers:
        found.append(
            f"etcd has the member {_listed([*strangers])}, which is no control plane of the cluster: have the cluster "
            f"forget it (forget_kubernetes_node)"
        )
    return found


def _plane_faults(cluster: Cluster) -> list[str]:
    found = []
    for name, components in sorted(cluster["planes"].items()):
        found += [
            f"{component} of {name} is not ready: see crictl ps --all and the container's log there"
            for component in COMPONENTS
            if not components.get(component, {}).get("ready")
        ]
        if cluster["readyz"].get(name) != "ok":
            found.append(
                f"the API server of {name} answers {cluster['readyz'].get(name, 'nothing')} at /readyz, wanted ok"
            )
        if not cluster["nodes"].get(name, {}).get("ready"):
            found.append(f"the node {name}, a control plane, is not ready: see journalctl --unit kubelet there")
    return found


def _removed_apis(
    cluster: Cluster, target: Version, running: Mapping[str, Version], ignored: Sequence[str]
) -> list[str]:
    oldest = min(running.values())
    found = []
    for api in sorted(cluster["requested_apis"], key=api_name):
        release = api.get("removed_release", "")
        numbers = tuple(int(part) for part in release.split(".") if part.isdigit())
        if len(numbers) == 2 and oldest[:2] < numbers <= target[:2] and api_name(api) not in ignored:
            found.append(
                f"somebody asks the API server for {api_name(api)}, which Kubernetes {release} no longer has: find "
                "out who "
                f"(the audit log has k8s.io/deprecated), or, if nobody needs it any more, add {api_name(api)} to "
                f"kubernetes_upgrade_ignored_apis"
            )
    return found


def faults(cluster: Cluster, target: str, control_planes: Sequence[str], ignored_apis: Sequence[str]) -> list[str]:
    """Return everything about the cluster as a whole that stops an upgrade before any change.

    Args:
        cluster: what kubernetes_cluster_info returned.
        target: the version that is to be.
        control_planes: those of the plan.
        ignored_apis: what the operator knows of (``group/version/resource``).
    """
    wanted = parsed(target)
    if versions.find(target) is None:
        minors = ", ".join(versions.supported_minors())
        return [f"kubernetes_version is {target}, wanted one of the minors {minors}"]
    running = _api_versions(cluster)
    if not running:
        return ["no API server of the cluster says which version it is: see crictl ps --all on the control planes"]
    found = _step_faults(wanted, running) + _kubelet_faults(cluster, wanted, running)
    for missing in sorted({*control_planes} - {*cluster["planes"]}):
        found.append(
            f"{missing} is a control plane of the plan and none of the cluster: run gpufleet.metal.kubernetes first"
        )
    for stranger in sorted({*cluster["planes"]} - {*control_planes}):
        found.append(
            f"{stranger} is a control plane of the cluster and none of the plan: add it to kube_control_plane, or "
            "take it "
            f"out of the cluster (reset_kubernetes_node, or forget_kubernetes_node for a host that is lost)"
        )
    return found + _plane_faults(cluster) + etcd_faults(cluster) + _removed_apis(cluster, wanted, running, ignored_apis)


def node_faults(cluster: Cluster, node: str, begun: bool, differences: Sequence[str]) -> list[str]:
    """Return what about one host stops its upgrade before any change.

    ``begun``: whether an earlier run has begun there, which may have left it not ready. ``differences``: what the
    cluster was made with and the options have otherwise, but for the version.
    """
    found = []
    if node not in cluster["nodes"]:
        found.append(f"the cluster has no node {node}: run gpufleet.metal.kubernetes for it, or leave it out (--limit)")
    elif node not in cluster["planes"] and not cluster["nodes"][node]["ready"] and not begun:
        found.append(f"the node {node} is not ready: mend it, or leave it out (--limit)")
    return found + [
        f"the cluster was made otherwise ({line}), and an upgrade changes the version alone: put the option back"
        for line in differences
    ]


def is_wanted(cluster: Cluster, node: str, target: str, begun: bool, shortfalls: Sequence[str]) -> bool:
    """Whether a host is to be upgraded: an earlier run has begun, or something of it has another version."""
    return begun or bool(shortfalls) or bool(_version_faults(cluster, node, target))


def order_faults(cluster: Cluster, target: str) -> list[str]:
    """Return why no worker may be upgraded yet: its kubelet would be newer than an API server."""
    wanted = parsed(target)
    return [
        f"the API server of {name} runs {shown(version)}, wanted {target} before any worker: run upgrade_kubernetes "
        "for "
        f"the control planes first"
        for name, version in sorted(_api_versions(cluster).items())
        if version != wanted
    ]


def health_faults(cluster: Cluster, node: str, target: str) -> list[str]:
    """Return what is not well after a host was upgraded: the cluster as a whole, and this host's versions."""
    found = _plane_faults(cluster) + etcd_faults(cluster)
    state = cluster["nodes"].get(node)
    if state is None:
        return [*found, f"the cluster has no node {node}"]
    if node not in cluster["planes"] and not state["ready"]:
        found.append(f"the node {node} is not ready: see journalctl --unit kubelet there")
    return found + _version_faults(cluster, node, target)


def _version_faults(cluster: Cluster, node: str, target: str) -> list[str]:
    found = []
    kubelet = cluster["nodes"].get(node, {}).get("kubelet")
    if kubelet is None or parsed(kubelet) != parsed(target):
        found.append(f"the cluster sees kubelet {kubelet or 'not there'} on {node}, wanted {target}")
    for component in VERSIONED if node in cluster["planes"] else ():
        version = cluster["planes"][node].get(component, {}).get("version")
        if version is None or parsed(version) != parsed(target):
            found.append(f"{component} of {node} is {version or 'not there'}, wanted {target}")
    return found


def is_minor(before: str, target: str) -> bool:
    """Whether a kubelet changes its minor: then its pods have to leave first."""
    return parsed(before)[:2] != parsed(target)[:2]
