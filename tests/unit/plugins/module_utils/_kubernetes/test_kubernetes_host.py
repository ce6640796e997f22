# SPDX-License-Identifier: Apache-2.0
"""What is read of a host, and how it comes into a cluster and out of it, on a directory in place of a host."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.gpufleet.metal.plugins.module_utils._errors import FleetError
from ansible_collections.gpufleet.metal.plugins.module_utils._kubernetes import host as hosts
from ansible_collections.gpufleet.metal.plugins.modules.kubernetes_member import change, complete
from ansible_collections.gpufleet.metal.plugins.modules.kubernetes_offer import offer

TOKEN = "abcdef.0123456789abcdef"
KEY = "0123456789abcdef" * 4


class Programs:
    """Answers commands, and notes what they were told."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.calls: list[str] = []
        self.files: list[tuple[int, str]] = []
        self.answers: dict[str, tuple[int, str, str]] = {}
        self.joins = True
        self.labels = {hosts.CONTROL_PLANE: ""}

    def __call__(self, argv: Sequence[str], stdin: str | None = None) -> tuple[int, str, str]:
        line = " ".join(argv)
        self.calls.append(line)
        if "--config" in argv:
            path = Path(argv[argv.index("--config") + 1])
            self.files.append((path.stat().st_mode & 0o777, path.read_text(encoding="utf-8")))
        for start, answer in self.answers.items():
            if line.startswith(start):
                return answer
        if argv[:2] in (["kubeadm", "join"], ["kubeadm", "init"]) and "phase" not in argv and self.joins:
            self.write("etc/kubernetes/kubelet.conf", "credentials")
        if argv[:2] == ["kubeadm", "reset"]:
            (self.root / "etc/kubernetes/kubelet.conf").unlink(missing_ok=True)
        if "get node" in line:
            about = {"name": "gpu-1", "labels": self.labels, "creationTimestamp": "2026-11-28T15:00:00Z"}
            node = json.dumps({"metadata": about})
            return (0, node, "") if self.joins else (1, "", 'nodes "gpu-1" not found')
        return 0, "", ""

    def write(self, name: str, text: str = "") -> Path:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        return path


@pytest.fixture
def programs(tmp_path: Path) -> Programs:
    return Programs(tmp_path)


@pytest.fixture
def host(programs: Programs) -> hosts.Host:
    return hosts.Host(programs, str(programs.root))


@pytest.fixture
def membership(host: hosts.Host) -> hosts.Membership:
    return hosts.Membership(host, "gpu-1", deadline_seconds=0)


JOIN = {
    "kind": "JoinConfiguration",
    "discovery": {"bootstrapToken": {"apiServerEndpoint": "192.0.2.1:6443"}},
    "controlPlane": {"localAPIEndpoint": {"bindPort": 6443}},
}
OPTIONS: dict[str, Any] = {
    "action": "join",
    "documents": [JOIN],
    "token": TOKEN,
    "certificate_key": KEY,
    "ca_cert_hashes": ["sha256:" + "0" * 64],
}


def mark(programs: Programs) -> Path:
    return programs.root / hosts.MARK


def test_secrets_travel_in_a_file_that_is_gone_afterwards(programs: Programs, membership: hosts.Membership) -> None:
    result = change(membership, OPTIONS, check_mode=False)
    assert result == {"changed": True, "done": ["kubeadm join ended well"]}
    assert [call.partition(" --config")[0] for call in programs.calls[:2]] == [
        "kubeadm config validate",
        "kubeadm join",
    ]
    for mode, text in programs.files:
        assert mode == 0o600
        assert TOKEN in text
        assert KEY in text
    assert not any(TOKEN in call or KEY in call for call in programs.calls)
    assert TOKEN not in str(result)
    assert os.listdir(programs.root / hosts.SECRETS_DIRECTORY) == []
    assert not mark(programs).exists()


def test_the_file_is_gone_where_kubeadm_fails(programs: Programs, membership: hosts.Membership) -> None:
    programs.answers["kubeadm join"] = (1, "", f"could not use {TOKEN} and {KEY}")
    with pytest.raises(FleetError) as caught:
        change(membership, OPTIONS, check_mode=False)
    assert str(caught.value) == "kubeadm join ended with exit status 1: could not use (a token) and (a key)"
    assert os.listdir(programs.root / hosts.SECRETS_DIRECTORY) == []
    # Preflight refused, and nothing was changed: there is nothing to go on with.
    assert not mark(programs).exists()


def test_a_configuration_that_is_refused_is_not_used(programs: Programs, membership: hosts.Membership) -> None:
    programs.answers["kubeadm config validate"] = (1, "", "unknown field")
    with pytest.raises(FleetError, match=r"^kubeadm config validate ended with exit status 1: unknown field$"):
        change(membership, OPTIONS, check_mode=False)
    assert len(programs.calls) == 1


def test_an_interrupted_join_is_reset_and_made_again(programs: Programs, membership: hosts.Membership) -> None:
    programs.write(hosts.MARK, "join\n")
    programs.write("etc/kubernetes/bootstrap-kubelet.conf", "{}")
    leftover = programs.write(f"{hosts.SECRETS_DIRECTORY}/old.yaml", TOKEN)
    change(membership, OPTIONS, check_mode=False)
    assert programs.calls[0].startswith("kubeadm reset --force")
    # kubeadm join wants kubelet enabled, as it was prepared.
    assert not any("disable" in call for call in programs.calls)
    assert not leftover.exists()
    assert not mark(programs).exists()


def test_a_join_that_was_complete_is_left_alone(programs: Programs, membership: hosts.Membership) -> None:
    programs.write(hosts.MARK, "join\n")
    programs.write("etc/kubernetes/kubelet.conf", "credentials")
    assert change(membership, OPTIONS, check_mode=False)["done"] == ["the join was complete"]
    assert [call for call in programs.calls if call.startswith("kubeadm")] == []
    assert not mark(programs).exists()


def test_a_control_plane_that_is_only_half_one_joins_again(programs: Programs, membership: hosts.Membership) -> None:
    """kubelet has registered the node, and kubeadm was killed before etcd and the label."""
    programs.write(hosts.MARK, "join\n")
    programs.write("etc/kubernetes/kubelet.conf", "credentials")
    programs.labels = {}
    assert change(membership, OPTIONS, check_mode=False)["done"] == ["kubeadm join ended well"]
    assert [call.split()[1] for call in programs.calls if call.startswith("kubeadm")] == ["reset", "config", "join"]
    assert not mark(programs).exists()


def test_a_worker_that_is_known_has_joined(programs: Programs, membership: hosts.Membership) -> None:
    programs.write(hosts.MARK, "join\n")
    programs.write("etc/kubernetes/kubelet.conf", "credentials")
    programs.labels = {}
    worker = {name: value for name, value in JOIN.items() if name != "controlPlane"}
    options = {**OPTIONS, "documents": [worker], "certificate_key": None}
    assert change(membership, options, check_mode=False)["done"] == ["the join was complete"]


def test_an_interrupted_init_goes_on(programs: Programs, membership: hosts.Membership) -> None:
    """A node that the cluster knows is not the end: kubelet registers it with half of kubeadm's work to be done."""
    programs.write(hosts.MARK, "init\n")
    programs.write("etc/kubernetes/kubelet.conf", "credentials")
    documents = [{"kind": "InitConfiguration"}, {"kind": "ClusterConfiguration"}]
    assert membership.enter("init", documents) == "kubeadm init ended well"
    first, second = (json.loads(text) for text in programs.files[-1][1].removeprefix("---").split("---"))
    assert first["skipPhases"] == ["preflight", "certs", "kubeconfig", "etcd", "control-plane", "kubelet-start"]
    assert second == {"kind": "ClusterConfiguration"}
    assert not any("reset" in call for call in programs.calls)
    assert not mark(programs).exists()


def test_an_interrupted_init_is_not_thrown_away(programs: Programs, membership: hosts.Membership) -> None:
    programs.joins = False
    programs.write(hosts.MARK, "init\n")
    with pytest.raises(FleetError) as caught:
        membership.enter("init", [])
    assert str(caught.value) == (
        "an init was interrupted on this host, and its API server does not know the node: look at it (journalctl "
        "--unit kubelet), or run reset_kubernetes_node for this host and start again"
    )
    assert mark(programs).exists()
    assert programs.calls == []


def test_a_member_does_not_enter_again(programs: Programs, membership: hosts.Membership) -> None:
    programs.write("etc/kubernetes/kubelet.conf", "credentials")
    with pytest.raises(
        FleetError, match=r"^the host belongs to a cluster already: run reset_kubernetes_node for it first$"
    ):
        membership.enter("join", [JOIN])
    assert programs.calls == []


def test_a_node_that_the_cluster_does_not_know_stays_unfinished(
    programs: Programs, membership: hosts.Membership
) -> None:
    programs.joins = False
    with pytest.raises(FleetError, match=r"^the cluster does not know the node gpu-1 after 0 s"):
        membership.enter("join", [JOIN])
    assert mark(programs).read_text(encoding="utf-8") == "join\n"


@pytest.mark.parametrize("endpoint", ["127.0.0.1:6443", "localhost:6443", "[::1]:6443"])
def test_an_endpoint_of_this_host(endpoint: str) -> None:
    if endpoint.startswith("[") and not socket.has_ipv6:
        pytest.skip("no IPv6 here")
    assert hosts.endpoint_fault(endpoint) is None


def test_an_endpoint_where_a_load_balancer_answers() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert hosts.endpoint_fault(f"127.0.0.1:{port}") is None
    assert hosts.endpoint_fault(f"127.0.0.1:{port}") == (
        f"kubernetes_endpoint is '127.0.0.1:{port}', which is no address of this host with port 6443 and where nothing "
        f"answers in 0 s ([Errno 111] Connection refused): what serves it, such as a load balancer, comes before the "
        f"cluster; nothing was changed"
    )


def test_an_endpoint_that_comes_while_it_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    # As an address that keepalived takes a few seconds after it was started.
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    opened: list[socket.socket] = []
    monkeypatch.setattr(hosts.time, "sleep", lambda __: opened.append(socket.create_server(("127.0.0.1", port))))
    assert hosts.endpoint_fault(f"127.0.0.1:{port}", patience_seconds=60) is None
    assert len(opened) == 1
    opened[0].close()


def test_no_cluster_is_made_where_its_endpoint_is_not(programs: Programs, membership: hosts.Membership) -> None:
    with pytest.raises(
        FleetError, match=r"^kubernetes_endpoint is 'api\.invalid:6443', and api\.invalid cannot be resolved"
    ):
        membership.enter("init", [{"controlPlaneEndpoint": "api.invalid:6443"}])
    assert programs.calls == []
    assert not mark(programs).exists()


def test_an_init_prints_no_token(programs: Programs, membership: hosts.Membership) -> None:
    membership.enter("init", [])
    assert programs.calls[1].endswith(".yaml --skip-token-print")


def test_a_reset_leaves_nothing(programs: Programs, membership: hosts.Membership) -> None:
    programs.write("etc/kubernetes/kubelet.conf", "credentials")
    for name in ("etc/cni/net.d/10-flannel.conflist", "run/flannel/subnet.env", "etc/kubernetes/gpufleet/audit.yaml"):
        programs.write(name)
    (programs.root / "sys/class/net/cni0").mkdir(parents=True)
    tables = ["table inet gpufleet", "table ip kube-proxy", "table inet kube-network-policies", ""]
    programs.answers["nft list tables"] = (0, "\n".join(tables), "")
    done = change(membership, {**OPTIONS, "action": "reset"}, check_mode=False)["done"]
    assert done == [
        "kubeadm reset",
        "link cni0",
        "/etc/cni/net.d/10-flannel.conflist",
        "/etc/kubernetes/gpufleet",
        "/run/flannel",
        "table ip kube-proxy",
        "table inet kube-network-policies",
    ]
    assert "ip link delete cni0" in programs.calls
    assert "nft delete table ip kube-proxy" in programs.calls
    assert "systemctl disable --now kubelet.service" in programs.calls
    assert not (programs.root / "etc/kubernetes/gpufleet").exists()


def test_a_clean_host_has_nothing_to_reset(programs: Programs, membership: hosts.Membership) -> None:
    reset = {**OPTIONS, "action": "reset"}
    assert change(membership, reset, check_mode=False) == {"changed": False, "done": []}
    assert change(membership, reset, check_mode=True) == {"changed": False, "done": []}
    programs.write("etc/kubernetes/kubelet.conf", "credentials")
    assert change(membership, reset, check_mode=True) == {"changed": True, "done": ["would run kubeadm reset"]}
    assert not any(call.startswith("kubeadm") for call in programs.calls)


def test_a_worker_gets_no_certificate_key() -> None:
    worker = {key: value for key, value in JOIN.items() if key != "controlPlane"}
    (found,) = complete([worker], {**OPTIONS, "certificate_key": None})
    assert found["discovery"]["bootstrapToken"]["token"] == TOKEN
    assert "controlPlane" not in found
    assert "token" not in JOIN["discovery"]["bootstrapToken"]  # type: ignore[index]


AUTHORITY = """-----BEGIN CERTIFICATE-----
MIIBMzCB2qADAgECAgEHMAoGCCqGSM49BAMCMBUxEzARBgNVBAMMCmt1YmVybmV0
-----END CERTIFICATE-----
"""
MANIFEST = "  - command:\n    - kube-apiserver\n    - --advertise-address=192.0.2.1\n    - --allow-privileged=true\n"
WANTED: dict[str, Any] = {
    "state": "present",
    "node_name": "gpu-1",
    "addresses": ["192.0.2.7"],
    "document": {"kind": "InitConfiguration"},
    "minutes": 15,
    "token_id": None,
    "approve": False,
    "deadline_seconds": 0,
    "patience_seconds": 0,
    "drain_seconds": 60,
}


@pytest.fixture
def plane(programs: Programs, host: hosts.Host, monkeypatch: pytest.MonkeyPatch) -> hosts.Offer:
    programs.write("etc/kubernetes/admin.conf", "credentials")
    programs.write("etc/kubernetes/pki/ca.crt", AUTHORITY)
    programs.write("etc/kubernetes/manifests/kube-apiserver.yaml", MANIFEST)
    monkeypatch.setattr(hosts.certificates, "public_key_digest", lambda text: "sha256:1")
    programs.answers["kubectl --kubeconfig /etc/kubernetes/admin.conf get --raw /readyz"] = (0, "ok", "")
    programs.answers["kubeadm token create"] = (0, f"{TOKEN}\n", "")
    programs.answers["kubeadm version"] = (0, "v1.36.4\n", "")
    return hosts.Offer(host)


def test_an_offer_is_made_for_one_host(programs: Programs, plane: hosts.Offer) -> None:
    made = offer(plane, WANTED, check_mode=False)["offer"]
    assert made["token"] == TOKEN
    assert made["token_id"] == "abcdef"
    assert made["ca_cert_hashes"] == ["sha256:1"]
    ((mode, text),) = programs.files
    assert mode == 0o600
    assert made["certificate_key"] in text
    assert "v1.36.4" in text
    assert not any(made["certificate_key"] in call for call in programs.calls)
    assert programs.calls[-1] == (
        "kubeadm token create --kubeconfig /etc/kubernetes/admin.conf --ttl 15m0s --description for the join of gpu-1, "
        "by gpufleet.metal"
    )
    assert os.listdir(programs.root / hosts.SECRETS_DIRECTORY) == []


def test_keys_are_uploaded_to_the_api_server_of_the_host_that_offers_them(
    programs: Programs, plane: hosts.Offer
) -> None:
    # As in a real join: the one that is to join has no API server yet.
    document = {"kind": "InitConfiguration", "localAPIEndpoint": {"advertiseAddress": "192.0.2.7"}}
    offer(plane, {**WANTED, "document": document}, check_mode=False)
    ((__, text),) = programs.files
    assert "192.0.2.1" in text
    assert "192.0.2.7" not in text
    programs.write("etc/kubernetes/manifests/kube-apiserver.yaml", "")
    with pytest.raises(FleetError, match=r"^/etc/kubernetes/manifests/kube-apiserver.yaml has no --advertise-address"):
        offer(plane, WANTED, check_mode=False)


def test_a_worker_is_offered_no_key(programs: Programs, plane: hosts.Offer) -> None:
    made = offer(plane, {**WANTED, "document": None}, check_mode=False)["offer"]
    assert made["certificate_key"] is None
    assert not any("upload-certs" in call for call in programs.calls)


def test_check_mode_makes_no_offer(programs: Programs, plane: hosts.Offer) -> None:
    result = offer(plane, WANTED, check_mode=True)
    assert (result["cluster"], result["answers"], result["offer"], result["changed"]) == (True, True, None, False)
    assert len(programs.calls) == 1


def test_a_silent_cluster_is_one(programs: Programs, plane: hosts.Offer) -> None:
    programs.answers["kubectl --kubeconfig /etc/kubernetes/admin.conf get --raw /readyz"] = (
        1,
        "",
        "connection refused",
    )
    result = offer(plane, {**WANTED, "state": "seen"}, check_mode=False)
    assert (result["cluster"], result["answers"], result["answer"]) == (True, False, "connection refused")


@pytest.mark.parametrize("state", ["present", "absent", "drained", "removed"])
def test_a_silent_cluster_gives_and_takes_nothing(programs: Programs, plane: hosts.Offer, state: str) -> None:
    """A token that could not be taken back is no success."""
    asked = "kubectl --kubeconfig /etc/kubernetes/admin.conf get --raw /readyz"
    programs.answers[asked] = (1, "", "connection refused")
    with pytest.raises(
        FleetError, match=r"^the API server of this control plane answers connection refused, wanted ok"
    ):
        offer(plane, {**WANTED, "state": state, "token_id": "abcdef"}, check_mode=False)


def test_a_host_without_a_cluster_says_so(host: hosts.Host) -> None:
    result = offer(hosts.Offer(host), WANTED, check_mode=False)
    assert (result["cluster"], result["answers"], result["offer"]) == (False, False, None)


def test_what_was_offered_is_made_worthless(programs: Programs, plane: hosts.Offer) -> None:
    programs.answers["kubeadm token delete"] = (1, "", 'secrets "bootstrap-token-abcdef" not found')
    offer(plane, {**WANTED, "state": "absent", "token_id": "abcdef"}, check_mode=False)
    assert programs.calls[1] == "kubeadm token delete --kubeconfig /etc/kubernetes/admin.conf abcdef"
    assert "delete secret kubeadm-certs" in programs.calls[2]
    programs.answers["kubeadm token delete"] = (1, "", "connection refused")
    with pytest.raises(FleetError, match=r"^kubeadm token delete ended with exit status 1: connection refused$"):
        offer(plane, {**WANTED, "state": "absent", "token_id": "abcdef"}, check_mode=False)


NOW = "2026-11-28T15:00:00Z"


def requests(*items: tuple[str, str, bool], created: str = NOW) -> str:
    return json.dumps(
        {
            "items": [
                {
                    "metadata": {"name": name, "creationTimestamp": created},
                    "spec": {"signerName": "kubernetes.io/kubelet-serving", "username": f"system:node:{node}"},
                    "status": {"conditions": [{"type": "Approved"}]} if decided else {},
                }
                for name, node, decided in items
            ]
        }
    )


def test_only_the_requests_of_the_node_are_approved(
    programs: Programs, plane: hosts.Offer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hosts.certificates, "request_faults", lambda *arguments: [])
    listed = "kubectl --kubeconfig /etc/kubernetes/admin.conf --request-timeout=20s get certificatesigningrequests"
    programs.answers[listed] = (0, requests(("a", "gpu-1", False), ("b", "gpu-2", False), ("c", "gpu-1", True)), "")
    result = offer(plane, {**WANTED, "state": "absent", "approve": True}, check_mode=False)
    assert result["done"] == ["signed the serving certificate of gpu-1"]
    assert [call.split()[-1] for call in programs.calls if "certificate approve" in call] == ["a"]
    monkeypatch.setattr(hosts.certificates, "request_faults", lambda *arguments: ["it asks for cp-1, wanted gpu-1"])
    with pytest.raises(FleetError) as caught:
        offer(plane, {**WANTED, "state": "absent", "approve": True}, check_mode=False)
    assert str(caught.value) == "the request a of gpu-1 is not signed: it asks for cp-1, wanted gpu-1"


@pytest.mark.parametrize(
    ("created", "taken"),
    [("2026-11-28T14:10:00Z", False), ("2026-11-28T14:59:58Z", True), ("2026-11-28T15:00:03Z", True)],
)
def test_a_request_of_a_node_that_is_gone_is_not_the_new_ones(
    programs: Programs, plane: hosts.Offer, created: str, taken: bool
) -> None:
    """A host that was reset and joins again has a signed request of its first life there, for an hour."""
    listed = "kubectl --kubeconfig /etc/kubernetes/admin.conf --request-timeout=20s get certificatesigningrequests"
    programs.answers[listed] = (0, requests(("a", "gpu-1", True), created=created), "")
    options = {**WANTED, "state": "absent", "approve": True}
    if taken:
        assert offer(plane, options, check_mode=False)["done"] == []
        return
    with pytest.raises(FleetError, match=r"^the kubelet of gpu-1 asked for no serving certificate within 0 s"):
        offer(plane, options, check_mode=False)


def test_a_kubelet_that_asks_for_nothing(programs: Programs, plane: hosts.Offer) -> None:
    listed = "kubectl --kubeconfig /etc/kubernetes/admin.conf --request-timeout=20s get certificatesigningrequests"
    programs.answers[listed] = (0, requests(), "")
    with pytest.raises(FleetError, match=r"^the kubelet of gpu-1 asked for no serving certificate within 0 s"):
        offer(plane, {**WANTED, "state": "absent", "approve": True}, check_mode=False)


def test_draining_and_deleting(programs: Programs, plane: hosts.Offer) -> None:
    assert offer(plane, {**WANTED, "state": "drained"}, check_mode=False)["done"] == ["drained gpu-1"]
    assert programs.calls[-1] == (
        "kubectl --kubeconfig /etc/kubernetes/admin.conf drain gpu-1 --ignore-daemonsets "
        "--delete-emptydir-data --timeout=60s"
    )
    assert offer(plane, {**WANTED, "state": "removed"}, check_mode=False)["done"] == ["deleted gpu-1"]
    programs.joins = False
    answer = (1, "", 'Error from server (NotFound): nodes "gpu-1" not found')
    programs.answers["kubectl --kubeconfig /etc/kubernetes/admin.conf --request-timeout=20s get node"] = answer
    assert offer(plane, {**WANTED, "state": "removed"}, check_mode=False)["changed"] is False


KUBECTL = "kubectl --kubeconfig /etc/kubernetes/admin.conf --request-timeout=20s"


def node(ready: str, **spec: Any) -> str:
    return json.dumps({"spec": spec, "status": {"conditions": [{"type": "Ready", "status": ready}]}})


def test_a_node_takes_pods_again(programs: Programs, plane: hosts.Offer) -> None:
    programs.answers[f"{KUBECTL} get node"] = (0, node("True", unschedulable=True), "")
    assert offer(plane, {**WANTED, "state": "uncordoned"}, check_mode=False)["done"] == ["uncordoned gpu-1"]
    programs.answers[f"{KUBECTL} get node"] = (0, node("True"), "")
    assert not offer(plane, {**WANTED, "state": "uncordoned"}, check_mode=False)["changed"]


class Etcd:
    """In place of etcd."""

    def __init__(self, names: list[str]) -> None:
        self.names = names

    def remove(self, name: str) -> bool:
        return name in self.names


def test_a_lost_host_is_forgotten(programs: Programs, plane: hosts.Offer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hosts.members, "client_context", lambda __: None)
    monkeypatch.setattr(hosts.members, "Members", lambda __: Etcd(["gpu-1"]))
    wanted = {**WANTED, "state": "forgotten"}
    programs.answers[f"{KUBECTL} get node"] = (0, node("True"), "")
    with pytest.raises(FleetError, match=r"^the node gpu-1 is ready: its host is not lost, so take it out with reset_"):
        offer(plane, wanted, check_mode=False)
    assert "delete node" not in programs.calls[-1]
    programs.answers[f"{KUBECTL} get node"] = (0, node("Unknown"), "")
    assert offer(plane, wanted, check_mode=False)["done"] == ["removed the etcd member gpu-1", "deleted gpu-1"]
    # A worker, and one that is gone already.
    monkeypatch.setattr(hosts.members, "Members", lambda __: Etcd([]))
    assert offer(plane, wanted, check_mode=False)["done"] == ["deleted gpu-1"]
    programs.answers[f"{KUBECTL} get node"] = (1, "", 'Error from server (NotFound): nodes "gpu-1" not found')
    assert not offer(plane, wanted, check_mode=False)["changed"]
    programs.answers[f"{KUBECTL} get node"] = (1, "", "no route to host")
    with pytest.raises(FleetError, match=r"^kubectl get node ended with exit status 1: no route to host$"):
        offer(plane, wanted, check_mode=False)


def test_what_was_renewed_is_signed_when_the_plan_has_it(
    programs: Programs, plane: hosts.Offer, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[str, list[str]]] = []

    def judge(spec: Any, name: str, addresses: list[str]) -> list[str]:
        asked.append((name, addresses))
        return ["it asks for cp-1"] if name == "gpu-2" else []

    monkeypatch.setattr(hosts.certificates, "request_faults", judge)
    items = [("a", "gpu-1", False), ("b", "gpu-2", False), ("c", "gpu-9", False), ("d", "gpu-3", True)]
    programs.answers[f"{KUBECTL} get certificatesigningrequests"] = (0, requests(*items), "")
    nodes = {"gpu-1": ["192.0.2.11"], "gpu-2": ["192.0.2.12"], "gpu-3": ["192.0.2.13"]}
    with pytest.raises(FleetError) as caught:
        offer(plane, {**WANTED, "state": "signed", "nodes": nodes}, check_mode=False)
    assert str(caught.value) == (
        "the request b of gpu-2 is not signed: it asks for cp-1; the request c of gpu-9 is not signed: the plan has "
        "no such "
        "node; signed the serving certificate of gpu-1"
    )
    assert asked == [("gpu-1", ["192.0.2.11"]), ("gpu-2", ["192.0.2.12"])]
    assert [call.split()[-1] for call in programs.calls if "approve" in call] == ["a"]


def test_requests_are_signed_until_the_port_shows_a_certificate(
    programs: Programs, plane: hosts.Offer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hosts.certificates, "request_faults", lambda *__: [])
    programs.answers[f"{KUBECTL} get certificatesigningrequests"] = (0, requests(("a", "gpu-1", False)), "")
    wanted = {**WANTED, "state": "served", "addresses": ["192.0.2.11"], "deadline_seconds": 0}
    monkeypatch.setattr(hosts, "shown_serial", lambda port, address: None)
    with pytest.raises(FleetError) as caught:
        offer(plane, wanted, check_mode=False)
    assert str(caught.value) == (
        "the kubelet of gpu-1 shows no certificate at 192.0.2.11:10250 after 0 s: see journalctl --unit kubelet there"
    )
    monkeypatch.setattr(hosts, "shown_serial", lambda port, address: f"{address}:{port}")
    assert offer(plane, wanted, check_mode=False)["done"] == ["signed the serving certificate of gpu-1"]


@pytest.mark.parametrize("state", ["drained", "removed", "uncordoned", "served", "signed", "forgotten"])
def test_nothing_is_done_on_a_plane_that_does_not_answer(programs: Programs, plane: hosts.Offer, state: str) -> None:
    programs.answers["kubectl --kubeconfig /etc/kubernetes/admin.conf get --raw /readyz"] = (1, "", "refused")
    with pytest.raises(
        FleetError, match=r"^the API server of this control plane answers refused, wanted ok: nothing was"
    ):
        offer(plane, {**WANTED, "state": state}, check_mode=False)


def test_a_pod_that_nothing_would_bring_back_is_left_to_a_person(programs: Programs, plane: hosts.Offer) -> None:
    said = "error: cannot delete Pods that declare no controller (use --force to override): default/mine"
    programs.answers["kubectl --kubeconfig /etc/kubernetes/admin.conf drain"] = (1, "", said)
    with pytest.raises(FleetError) as caught:
        offer(plane, {**WANTED, "state": "drained"}, check_mode=False)
    assert str(caught.value) == (
        f"kubectl drain ended with exit status 1: {said}: delete those pods first, nothing would bring them back"
    )


def test_what_the_host_has(programs: Programs, host: hosts.Host) -> None:
    release = os.uname().release
    built_in = "kernel/net/netfilter/nf_tables.ko\nkernel/drivers/net/vxlan/vxlan.ko\n"
    programs.write(f"lib/modules/{release}/modules.builtin", built_in)
    programs.write("proc/filesystems", "nodev\toverlay\n\text4\n")
    programs.answers["modprobe"] = (1, "", "")
    assert host.modules(["overlay", "br_netfilter", "nf_tables", "vxlan"]) == {
        "overlay": "loaded",
        "br_netfilter": "missing",
        "nf_tables": "built in",
        "vxlan": "built in",
    }
    programs.answers["modprobe"] = (0, "", "")
    assert host.modules(["br_netfilter"]) == {"br_netfilter": "available"}
    programs.write("proc/sys/vm/overcommit_memory", "1\n")
    assert host.sysctls(["vm.overcommit_memory", "vm.none"]) == {"vm.overcommit_memory": "1"}
    programs.write("proc/swaps", "Filename Type Size Used Priority\n/dev/sda2 partition 1 0 -2\n")
    assert host.swap() == ["/dev/sda2"]
    head = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"
    line = "   0: 00000000:192B 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 77 1\n"
    programs.write("proc/net/tcp", head + line)
    programs.write("proc/7/comm", "kube-apiserver\n")
    (programs.root / "proc/7/fd").mkdir()
    (programs.root / "proc/7/fd/3").symlink_to("socket:[77]")
    assert host.listeners() == {"6443": "kube-apiserver"}
    programs.write("etc/resolv.conf", "search example.org\nnameserver 192.0.2.53\n")
    assert host.resolver(None) == {"path": "/etc/resolv.conf", "exists": True, "nameservers": ["192.0.2.53"]}
    assert host.resolver("/etc/none")["exists"] is False
    programs.answers["kubeadm config images list"] = (0, "registry.k8s.io/etcd:3.6\nregistry.k8s.io/pause:3.10.1\n", "")
    assert host.pause_image("1.36.4", "registry.k8s.io") == ("registry.k8s.io/pause:3.10.1", "")
    programs.answers["kubeadm config images list"] = (1, "", "error: no such network interface\nTo see more\n")
    assert host.pause_image("1.36.4", "registry.k8s.io") == (None, "error: no such network interface\nTo see more")
    programs.write("var/lib/kubelet/config.yaml", "kind: KubeletConfiguration\ncgroupDriver: systemd\n")
    assert host.kubelet_cgroup_driver() == "systemd"


_ROUTES = "Iface Destination Gateway Flags RefCnt Use Metric Mask MTU Window IRTT\n"
_ZEROS = "0" * 32


@pytest.mark.parametrize(
    ("ipv4", "ipv6", "found"),
    [
        ("eth0 00000000 FE3D12C6 0003 0 0 0 00000000 0 0 0\n", "", ["IPv4"]),
        # What `ip route add unreachable default` leaves, a network, and half of the world.
        ("* 00000000 00000000 0201 0 0 0 00000000 0 0 0\n", "", []),
        ("eth0 003D12C6 00000000 0001 0 0 0 00FFFFFF 0 0 0\n", "", []),
        ("tun0 00000000 00000000 0001 0 0 0 00000080 0 0 0\n", "", []),
        ("", f"{_ZEROS} 00 {_ZEROS} 00 fe8{'0' * 28}1 00000400 00000001 00000000 00000003     eth0\n", ["IPv6"]),
        # The kernel's own, where there is no other.
        ("", f"{_ZEROS} 00 {_ZEROS} 00 {_ZEROS} ffffffff 00000001 00000000 00200200       lo\n", []),
        ("", f"fe8{'0' * 29} 40 {_ZEROS} 00 {_ZEROS} 00000100 00000001 00000000 00000001     eth0\n", []),
    ],
)
def test_a_default_route_leads_out_of_an_interface(
    programs: Programs, host: hosts.Host, ipv4: str, ipv6: str, found: list[str]
) -> None:
    programs.write("proc/net/route", _ROUTES + ipv4)
    programs.write("proc/net/ipv6_route", ipv6)
    assert host.default_routes() == found


def test_what_a_member_is(programs: Programs, host: hosts.Host) -> None:
    assert host.member() is None
    programs.write("etc/kubernetes/kubelet.conf").chmod(0o600)
    assert host.member() == {"role": "node"}
    programs.write("etc/kubernetes/manifests/kube-apiserver.yaml", "kind: Pod\n").chmod(0o644)
    assert host.member() == {"role": "control_plane"}
    assert host.manifests() == {"kube-apiserver": "kind: Pod\n"}
    assert host.modes() == {
        "/etc/kubernetes/kubelet.conf": "0600",
        "/etc/kubernetes/manifests/kube-apiserver.yaml": "0644",
    }
    programs.write(hosts.MARK, "join\n")
    assert host.member() is None


def test_containerd(programs: Programs, host: hosts.Host) -> None:
    shown = "containerd github.com/containerd/containerd 1.7.24~ds1 1.7.24~ds1-6"
    programs.answers["containerd --version"] = (0, shown, "")
    programs.answers["ctr --namespace k8s.io tasks list"] = (0, "a\nb\n", "")
    written = programs.write("etc/containerd/config.toml", "version = 2\n")
    os.utime(written, (1000, 1000))
    unit = {"ActiveState": "active", "UnitFileState": "enabled", "ActiveEnterTimestamp": "@999"}
    found = host.containerd(unit)
    assert (found["version"], found["containers"], found["stale"]) == ("1.7.24~ds1", 2, True)
    assert host.containerd({**unit, "ActiveEnterTimestamp": "@1000"})["stale"] is False
    programs.answers["containerd --version"] = (127, "", "containerd: No such file or directory")
    assert host.containerd({})["version"] is None
