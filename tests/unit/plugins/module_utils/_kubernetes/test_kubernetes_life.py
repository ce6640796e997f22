# SPDX-License-Identifier: Apache-2.0
"""A cluster as its control plane shows it, and the upgrade of a host whose run is killed at any step."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.gpufleet.metal.plugins.module_utils._errors import FleetError
from ansible_collections.gpufleet.metal.plugins.module_utils._kubernetes import host as hosts
from ansible_collections.gpufleet.metal.plugins.module_utils._kubernetes import life
from ansible_collections.gpufleet.metal.plugins.modules.kubernetes_upgrade import change

PLAN = "You can now apply the upgrade by executing the following command:\n\n\tkubeadm upgrade apply v1.36.4\n"
MANUAL = "kubelet.config.k8s.io     v1beta1           v1               yes\n"


class Programs:
    """Answers kubectl and kubeadm, notes the calls, and fails where a test says so."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.calls: list[str] = []
        self.fails: dict[str, str] = {}
        self.configured = "1.35.9"
        self.kubeadm = "1.36.4"
        self.plan = PLAN
        self.kubelet = "v1.36.4"
        self.ready = "True"
        self.cordoned = False

    def write(self, name: str, text: str = "") -> Path:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        return path

    def node(self) -> dict[str, Any]:
        return {
            "metadata": {"name": "cp-1", "labels": {"node-role.kubernetes.io/control-plane": ""}},
            "spec": {"unschedulable": True} if self.cordoned else {},
            "status": {
                "nodeInfo": {"kubeletVersion": self.kubelet},
                "conditions": [{"type": "Ready", "status": self.ready}],
                "addresses": [{"type": "InternalIP", "address": "192.0.2.1"}],
            },
        }

    def __call__(self, argv: Sequence[str], stdin: str | None = None) -> tuple[int, str, str]:
        line = " ".join(argv)
        self.calls.append(line)
        for part, message in self.fails.items():
            if part in line:
                return 1, "", message
        if "get configmap kubeadm-config" in line:
            return (
                0,
                json.dumps({"data": {"ClusterConfiguration": f"a: b\nkubernetesVersion: v{self.configured}\n"}}),
                "",
            )
        if line == "kubeadm version --output short":
            return 0, f"v{self.kubeadm}\n", ""
        if line.startswith("kubeadm upgrade plan"):
            return 0, self.plan, ""
        if line.startswith("kubeadm upgrade apply"):
            self.configured = self.kubeadm
        if "get nodes" in line:
            return 0, json.dumps({"items": [self.node()]}), ""
        if "get node" in line:
            return 0, json.dumps(self.node()), ""
        if "get pods" in line:
            images = {
                "kube-apiserver": "registry.k8s.io/kube-apiserver:v1.36.4@sha256:0",
                "etcd": "r:5000/etcd:3.6.5-0",
            }
            return 0, json.dumps({"items": [self.pod(name, image) for name, image in images.items()]}), ""
        if "get --raw /readyz" in line:
            return 0, "ok", ""
        if "get --raw /metrics" in line:
            labels = 'group="a",removed_release="1.37",resource="as",subresource="",version="v1"'
            return 0, f"apiserver_requested_deprecated_apis{{{labels}}} 1\n", ""
        return 0, "", ""

    def pod(self, name: str, image: str) -> dict[str, Any]:
        return {
            "spec": {"nodeName": "cp-1", "containers": [{"name": name, "image": image}]},
            "status": {"conditions": [{"type": "Ready", "status": "True"}]},
        }

    def done(self) -> list[str]:
        return [call for call in self.calls if call.startswith(("kubeadm upgrade", "systemctl"))]


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Programs:
    monkeypatch.setattr(life, "get", lambda *__: "ok")
    found = Programs(tmp_path)
    found.write("etc/kubernetes/kubelet.conf")
    found.write("etc/kubernetes/manifests/kube-apiserver.yaml")
    return found


@pytest.fixture
def upgrade(programs: Programs) -> life.Upgrade:
    return life.Upgrade(hosts.Host(programs, str(programs.root)), "cp-1", "1.36.4", deadline_seconds=0)


def mark(programs: Programs) -> Any:
    path = programs.root / hosts.UPGRADE_MARK
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None


def test_the_first_control_plane(programs: Programs, upgrade: life.Upgrade) -> None:
    assert change(upgrade, "begin", False) == {"changed": True, "done": ["began"]}
    assert change(upgrade, "kubeadm", False)["done"] == ["kubeadm upgrade apply"]
    assert change(upgrade, "kubelet", False)["done"] == ["restarted kubelet"]
    assert change(upgrade, "end", False)["changed"]
    assert not change(upgrade, "end", False)["changed"]
    assert programs.done() == [
        "kubeadm upgrade plan v1.36.4",
        "kubeadm upgrade apply v1.36.4 --yes",
        "systemctl daemon-reload",
        "systemctl restart kubelet.service",
    ]


def test_further_control_planes_and_workers(programs: Programs, upgrade: life.Upgrade) -> None:
    programs.configured = "1.36.4"
    upgrade.begin()
    assert upgrade.kubeadm() == "kubeadm upgrade node"
    (programs.root / "etc/kubernetes/manifests/kube-apiserver.yaml").unlink()
    programs.configured = "1.35.9"
    assert upgrade.kubeadm() == "kubeadm upgrade node"


def test_cgroup_v1_has_to_be_allowed_again(programs: Programs, upgrade: life.Upgrade) -> None:
    allowed = life.Upgrade(upgrade.host, "cp-1", "1.36.4", 0, cgroup_v1_allowed=True)
    allowed.begin()
    allowed.kubeadm()
    allowed.kubeadm()
    assert programs.done() == [
        "kubeadm upgrade plan v1.36.4",
        "kubeadm upgrade apply v1.36.4 --yes --ignore-preflight-errors=SystemVerification",
        "kubeadm upgrade node --ignore-preflight-errors=SystemVerification",
    ]


def test_an_apply_that_was_killed_is_applied_again(programs: Programs, upgrade: life.Upgrade) -> None:
    upgrade.begin()
    programs.fails["upgrade apply"] = "killed"
    with pytest.raises(FleetError, match=r"^kubeadm upgrade apply ended with exit status 1: killed$"):
        upgrade.kubeadm()
    assert mark(programs) == {"version": "1.36.4", "schedulable": True, "applying": True}
    # It may have been killed after it had written the version down.
    programs.fails.clear()
    programs.configured = "1.36.4"
    programs.calls.clear()
    assert not upgrade.begin()
    assert upgrade.kubeadm() == "kubeadm upgrade apply"
    assert programs.done() == ["kubeadm upgrade apply v1.36.4 --yes"]
    assert mark(programs)["applying"] is False


def test_who_had_cordoned_the_node(programs: Programs, upgrade: life.Upgrade) -> None:
    upgrade.begin()
    # The upgrade has cordoned it, was killed, and another patch is wanted meanwhile.
    programs.cordoned = True
    later = life.Upgrade(upgrade.host, "cp-1", "1.36.5")
    assert later.begin()
    assert mark(programs) == {"version": "1.36.5", "schedulable": True, "applying": False}
    later.end()
    later.begin()
    assert mark(programs)["schedulable"] is False


@pytest.mark.parametrize(
    ("plan", "message"),
    [
        ("nothing\n", "kubeadm upgrade plan does not offer v1.36.4: nothing"),
        (
            PLAN + MANUAL,
            "kubeadm upgrade plan wants the configuration of kubelet.config.k8s.io upgraded by hand first",
        ),
    ],
)
def test_a_plan_that_kubeadm_does_not_make(programs: Programs, upgrade: life.Upgrade, plan: str, message: str) -> None:
    programs.plan = plan
    upgrade.begin()
    with pytest.raises(FleetError) as caught:
        upgrade.kubeadm()
    assert str(caught.value) == message
    assert programs.done() == ["kubeadm upgrade plan v1.36.4"]


def test_steps_in_the_wrong_order(programs: Programs, upgrade: life.Upgrade) -> None:
    with pytest.raises(FleetError, match=r"^no upgrade has begun on this host: the action begin comes first$"):
        upgrade.kubeadm()
    upgrade.begin()
    programs.kubeadm = "1.35.9"
    with pytest.raises(FleetError, match=r"^kubeadm is v1.35.9, wanted v1.36.4 before the upgrade$"):
        upgrade.kubeadm()
    programs.fails["get node"] = "no route"
    upgrade.end()
    with pytest.raises(FleetError, match=r"^the cluster does not answer for the node cp-1; nothing was changed$"):
        upgrade.begin()
    assert programs.done() == []


@pytest.mark.parametrize(
    ("kubelet", "ready", "message"),
    [
        ("v1.35.9", "True", "the cluster sees kubelet v1.35.9"),
        ("v1.36.4", "False", "it is not ready"),
    ],
)
def test_a_kubelet_that_does_not_come_up(
    programs: Programs, upgrade: life.Upgrade, kubelet: str, ready: str, message: str
) -> None:
    programs.kubelet, programs.ready = kubelet, ready
    upgrade.begin()
    with pytest.raises(FleetError) as caught:
        upgrade.kubelet()
    assert str(caught.value) == (
        f"the node cp-1 with kubelet 1.36.4: {message} after 0 s; see journalctl --unit kubelet"
    )
    assert mark(programs) is not None


def test_check_mode_does_nothing(programs: Programs, upgrade: life.Upgrade) -> None:
    assert change(upgrade, "kubeadm", True) == {"changed": True, "done": ["would do the step kubeadm"]}
    assert programs.calls == []


class Etcd:
    """In place of etcd."""

    def members(self) -> list[dict[str, Any]]:
        return [{"name": "cp-1"}]

    def alarms(self) -> list[str]:
        return []


def test_a_cluster_is_read(programs: Programs, upgrade: life.Upgrade, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(life.members, "client_context", lambda __: None)
    monkeypatch.setattr(life.members, "Members", lambda __: Etcd())
    assert life.ClusterReader(upgrade.host).read() == {
        "version": "1.35.9",
        "nodes": {
            "cp-1": {
                "control_plane": True,
                "kubelet": "1.36.4",
                "ready": True,
                "schedulable": True,
                "address": "192.0.2.1",
            }
        },
        "planes": {
            "cp-1": {
                "kube-apiserver": {"version": "1.36.4", "ready": True},
                "etcd": {"version": "3.6.5-0", "ready": True},
            }
        },
        "readyz": {"cp-1": "ok"},
        "etcd": {"members": [{"name": "cp-1"}], "alarms": []},
        "requested_apis": [
            {"group": "a", "removed_release": "1.37", "resource": "as", "subresource": "", "version": "v1"}
        ],
    }
    programs.fails["get --raw"] = "connection refused"
    broken = life.ClusterReader(upgrade.host).read()
    assert (broken["readyz"], broken["requested_apis"]) == ({"cp-1": "connection refused"}, [])
