# SPDX-License-Identifier: Apache-2.0
# PRIVATE to the collection: do not import this from outside, it may change without notice.
"""Read a cluster as a whole, on one of its control planes, and upgrade one host. Runs with nothing but Python.

What has begun on a host is written down there, so that a run that was killed is found and goes on.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Mapping, Sequence
from typing import Any

from ansible_collections.gpufleet.metal.plugins.module_utils._errors import FleetError
from ansible_collections.gpufleet.metal.plugins.module_utils._kubernetes import members, upgrade
from ansible_collections.gpufleet.metal.plugins.module_utils._kubernetes.host import (
    ADMIN_CONF,
    API_PORT,
    CGROUP_CHECK,
    UPGRADE_MARK,
    Host,
    get,
    last_lines,
    wait_for,
)

#: While an API server restarts, the address may lead to it for some seconds.
_PATIENCE_SECONDS = 20
_ROLE_LABEL = "node-role.kubernetes.io/control-plane"
_TAG = re.compile(r":v?([0-9][^@:/]*)(@.*)?$")
_CONFIG_VERSION = re.compile(r"^kubernetesVersion:\s*\"?v?([0-9.]+)", re.M)
_MANUAL_UPGRADE = re.compile(r"^(\S+\.k8s\.io)\s+\S+\s+\S+\s+yes\s*$", re.M)


def must(host: Host, argv: Sequence[str], what: str) -> str:
    """Return what a command prints. Raises FleetError with its own words."""
    status, out, err = host.run(argv)
    if status != 0:
        raise FleetError(f"{what} ended with exit status {status}: {last_lines(err or out)}")
    return out


def kubectl(*arguments: str, kubeconfig: str = ADMIN_CONF) -> list[str]:
    """Return a command with bounded patience."""
    return ["kubectl", "--kubeconfig", kubeconfig, "--request-timeout=20s", *arguments]


def _is_true(conditions: Sequence[Mapping[str, Any]], kind: str) -> bool:
    return any(item["type"] == kind and item["status"] == "True" for item in conditions)


def configured_version(host: Host) -> str:
    """Return the version in kubeadm's own configuration, which ``kubeadm upgrade apply`` writes when it has changed
    it."""
    command = kubectl("--namespace", "kube-system", "get", "configmap", "kubeadm-config", "--output", "json")
    text = json.loads(must(host, command, "kubectl get configmap kubeadm-config"))["data"].get(
        "ClusterConfiguration", ""
    )
    found = _CONFIG_VERSION.search(text)
    if found is None:
        raise FleetError("the ConfigMap kubeadm-config has no kubernetesVersion, wanted the cluster's version")
    return found.group(1)


class ClusterReader:
    """What a control plane says of its cluster."""

    def __init__(self, host: Host) -> None:
        self.host = host

    def _items(self, *arguments: str) -> list[dict[str, Any]]:
        out = must(self.host, kubectl("get", *arguments, "--output", "json"), f"kubectl get {arguments[0]}")
        found: list[dict[str, Any]] = json.loads(out)["items"]
        return found

    def nodes(self) -> dict[str, dict[str, Any]]:
        """Return the nodes."""
        found = {}
        for item in self._items("nodes"):
            status = item["status"]
            addresses = [entry["address"] for entry in status.get("addresses", []) if entry["type"] == "InternalIP"]
            found[item["metadata"]["name"]] = {
                "control_plane": _ROLE_LABEL in item["metadata"].get("labels", {}),
                "kubelet": status["nodeInfo"]["kubeletVersion"].removeprefix("v"),
                "ready": _is_true(status.get("conditions", []), "Ready"),
                "schedulable": not item.get("spec", {}).get("unschedulable", False),
                "address": addresses[0] if addresses else "",
            }
        return found

    def components(self) -> dict[str, dict[str, dict[str, Any]]]:
        """Return version and readiness of the static Pods by node, as the API shows them."""
        found: dict[str, dict[str, dict[str, Any]]] = {}
        for item in self._items("pods", "--namespace", "kube-system", "--selector", "tier=control-plane"):
            container = item["spec"]["containers"][0]
            tag = _TAG.search(container["image"])
            found.setdefault(item["spec"].get("nodeName", ""), {})[container["name"]] = {
                "version": tag.group(1) if tag else None,
                "ready": _is_true(item.get("status", {}).get("conditions", []), "Ready"),
            }
        return found

    def _raw(self, address: str, path: str) -> str:
        server = f"https://{f'[{address}]' if ':' in address else address}:{API_PORT}"
        status, out, err = self.host.run(kubectl("--server", server, "get", "--raw", path))
        return out.strip() if status == 0 else last_lines(err, 1) or "nothing"

    def read(self) -> dict[str, Any]:
        """Return the cluster's state."""
        nodes, components = self.nodes(), self.components()
        names = [name for name, node in nodes.items() if node["control_plane"]]
        etcd = members.Members(members.client_context(self.host.path))
        readyz = {name: self._raw(nodes[name]["address"], "/readyz") for name in names}
        apis: dict[str, dict[str, str]] = {}
        for name in names:
            # Each API server knows what it was asked for itself.
            if readyz[name] == "ok":
                found = upgrade.requested_apis(self._raw(nodes[name]["address"], "/metrics"))
                apis.update({upgrade.api_name(api): api for api in found})
        return {
            "version": configured_version(self.host),
            "nodes": nodes,
            "planes": {name: components.get(name, {}) for name in names},
            "readyz": readyz,
            "etcd": {"members": etcd.members(), "alarms": etcd.alarms()},
            "requested_apis": list(apis.values()),
        }


class Upgrade:
    """Brings one host of a cluster to a version, a step at a time. Packages are somebody else's."""

    def __init__(
        self,
        host: Host,
        node_name: str,
        version: str,
        deadline_seconds: float = 300,
        cgroup_v1_allowed: bool = False,
    ) -> None:
        self.host = host
        self.node_name = node_name
        self.version = version
        self.deadline_seconds = deadline_seconds
        # apply and node look at the host again, and take nothing of this from what the host joined with. plan does not.
        self.ignored = [f"--ignore-preflight-errors={CGROUP_CHECK}"] if cgroup_v1_allowed else []

    def _write(self, mark: Mapping[str, Any]) -> None:
        path = self.host.path(UPGRADE_MARK)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        # Complete or not there: a run that is killed here must not leave half a mark.
        with open(f"{path}.new", "w", encoding="utf-8") as stream:
            json.dump(mark, stream)
        os.replace(f"{path}.new", path)

    def _mark(self) -> dict[str, Any]:
        mark = self.host.upgrade_mark()
        if mark is None:
            raise FleetError("no upgrade has begun on this host: the action begin comes first")
        return mark

    def begin(self) -> bool:
        """Write down that an upgrade begins, and whether the node took pods before it; returns whether that is new."""
        before = self.host.upgrade_mark()
        if before is not None and before["version"] == self.version:
            return False
        node: dict[str, Any] | None = None

        def fault() -> str | None:
            nonlocal node
            node = self.host.node(self.node_name)
            return "no answer" if node is None else None

        if wait_for(fault, min(self.deadline_seconds, _PATIENCE_SECONDS)) or node is None:
            raise FleetError(f"the cluster does not answer for the node {self.node_name}; nothing was changed")
        schedulable = not node.get("spec", {}).get("unschedulable", False)
        # An upgrade that was interrupted has cordoned it itself.
        self._write(
            {
                "version": self.version,
                "schedulable": before["schedulable"] if before else schedulable,
                "applying": False,
            }
        )
        return True

    def plan(self) -> None:
        """Have kubeadm judge the step. Raises FleetError."""
        out = must(self.host, ["kubeadm", "upgrade", "plan", f"v{self.version}"], "kubeadm upgrade plan")
        manual = _MANUAL_UPGRADE.findall(out)
        if manual:
            raise FleetError(
                f"kubeadm upgrade plan wants the configuration of {', '.join(manual)} upgraded by hand first"
            )
        if f"kubeadm upgrade apply v{self.version}" not in out:
            raise FleetError(f"kubeadm upgrade plan does not offer v{self.version}: {last_lines(out)}")

    def kubeadm(self) -> str:
        """Upgrade what kubeadm manages on this host; returns what was run.

        The cluster's own configuration says whether a first control plane has been upgraded already.
        """
        mark = self._mark()
        own = self.host.output(["kubeadm", "version", "--output", "short"]).strip()
        if own != f"v{self.version}":
            raise FleetError(f"kubeadm is {own or 'not there'}, wanted v{self.version} before the upgrade")
        member = self.host.member()
        if member is None:
            raise FleetError("the host belongs to no cluster")
        first = member["role"] == "control_plane" and (
            mark["applying"] or configured_version(self.host) != self.version
        )
        if not first:
            must(self.host, ["kubeadm", "upgrade", "node", *self.ignored], "kubeadm upgrade node")
            return "kubeadm upgrade node"
        if not mark["applying"]:
            self.plan()
            self._write({**mark, "applying": True})
        command = ["kubeadm", "upgrade", "apply", f"v{self.version}", "--yes", *self.ignored]
        must(self.host, command, "kubeadm upgrade apply")
        self._write({**mark, "applying": False})
        return "kubeadm upgrade apply"

    def _fault(self) -> str | None:
        healthz = get(10248, "/healthz")
        if healthz != "ok":
            return f"kubelet answers {healthz} at /healthz"
        node = self.host.node(self.node_name)
        if node is None:
            return "the cluster does not answer for it"
        version = node["status"]["nodeInfo"]["kubeletVersion"]
        if version != f"v{self.version}":
            return f"the cluster sees kubelet {version}"
        return None if _is_true(node["status"].get("conditions", []), "Ready") else "it is not ready"

    def kubelet(self) -> None:
        """Start the new kubelet, and wait until its node is ready with the new version. Containers live on."""
        self._mark()
        must(self.host, ["systemctl", "daemon-reload"], "systemctl daemon-reload")
        must(self.host, ["systemctl", "restart", "kubelet.service"], "systemctl restart kubelet")
        fault = wait_for(self._fault, self.deadline_seconds)
        if fault:
            raise FleetError(
                f"the node {self.node_name} with kubelet {self.version}: {fault} after {self.deadline_seconds:.0f} "
                "s; see "
                f"journalctl --unit kubelet"
            )

    def end(self) -> bool:
        """Forget the mark: all of it is proved."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.host.path(UPGRADE_MARK))
            return True
        return False
