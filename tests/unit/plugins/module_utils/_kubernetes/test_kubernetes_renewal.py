# SPDX-License-Identifier: Apache-2.0
"""When certificates are renewed, in which order components start anew, and what is proved of them."""

from __future__ import annotations

import base64
import datetime
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from ansible_collections.gpufleet.metal.plugins.module_utils._errors import FleetError
from ansible_collections.gpufleet.metal.plugins.module_utils._kubernetes import certificates, renewal
from ansible_collections.gpufleet.metal.plugins.module_utils._kubernetes import host as hosts
from ansible_collections.gpufleet.metal.plugins.modules.kubernetes_certificates import change

NOW = datetime.datetime(2026, 11, 28, tzinfo=datetime.UTC)
DAY = datetime.timedelta(days=1)
KEY = ec.generate_private_key(ec.SECP256R1())
LEAVES = ("apiserver", "apiserver-etcd-client", "etcd/server", "etcd/peer", "front-proxy-client")


def certificate(begin: datetime.datetime, end: datetime.datetime, serial: int) -> str:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "kubernetes")])
    built = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(KEY.public_key())
    signed = built.serial_number(serial).not_valid_before(begin).not_valid_after(end).sign(KEY, hashes.SHA256())
    return signed.public_bytes(serialization.Encoding.PEM).decode()


class Machine:
    """A control plane on a directory: kubeadm renews, crictl stops, kubelet starts again."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.calls: list[str] = []
        self.serial = 0
        self.containers = {name: f"{name}-1" for name in renewal.COMPONENTS}
        self.stuck: tuple[str, ...] = ()
        self.fails: tuple[str, ...] = ()
        self.stale: dict[int, str] = {}
        self.write("etc/kubernetes/kubelet.conf", "")
        self.write("etc/kubernetes/manifests/kube-apiserver.yaml", "")
        self.write("etc/kubernetes/manifests/etcd.yaml", "    - --listen-peer-urls=https://192.0.2.1:2380\n")
        for name in renewal.AUTHORITIES:
            self.write(f"etc/kubernetes/pki/{name}.crt", certificate(NOW - 3000 * DAY, NOW + 10 * DAY, 1))
        self.sign(NOW - DAY, 364)

    def write(self, name: str, text: str, written: datetime.datetime = NOW) -> None:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        os.utime(path, (written.timestamp(), written.timestamp()))

    def sign(self, written: datetime.datetime, days: int) -> None:
        """As older kubeadm does: dated back to the beginning of the authority."""
        for name in LEAVES:
            self.serial += 1
            self.write(
                f"etc/kubernetes/pki/{name}.crt", certificate(NOW - 3000 * DAY, NOW + days * DAY, self.serial), written
            )
        data = base64.b64encode(certificate(NOW - 3000 * DAY, NOW + days * DAY, 99).encode()).decode()
        self.write("etc/kubernetes/admin.conf", f"users:\n- user:\n    client-certificate-data: {data}\n", written)

    def __call__(self, argv: Sequence[str], stdin: str | None = None) -> tuple[int, str, str]:
        line = " ".join(argv).replace("--runtime-endpoint unix:///run/containerd/containerd.sock ", "")
        if any(part in line for part in self.fails):
            return 1, "", "simulated failure"
        if line.startswith("crictl ps"):
            name = argv[argv.index("--label") + 1].partition("=")[2]
            return 0, self.containers[name] + "\n", ""
        self.calls.append(line)
        if line.startswith("crictl stop"):
            name = argv[-1].rpartition("-")[0]
            if name not in self.stuck:
                self.containers[name] = f"{name}-{int(argv[-1].rpartition('-')[2]) + 1}"
        if line == "kubeadm certs renew all":
            self.sign(NOW, 365)
        return 0, "", ""

    def shown(self, port: int, address: str) -> str | None:
        """What a port shows: what lies on the host, unless a test says otherwise."""
        # As kubeadm has etcd listen: for its members not at the loopback.
        if address != ("192.0.2.1" if port == 2380 else "127.0.0.1"):
            return None
        if port in self.stale:
            return self.stale[port]
        if port == hosts.KUBELET_PORT:
            path = self.root / renewal.SERVING
            return certificates.serial(path.read_text(encoding="utf-8")) if path.exists() else None
        text = (self.root / f"etc/kubernetes/pki/{renewal.SHOWN[port]}.crt").read_text(encoding="utf-8")
        return certificates.serial(text)

    def mark(self) -> str | None:
        path = self.root / hosts.RENEWAL_MARK
        return path.read_text(encoding="utf-8") if path.exists() else None


class Etcd:
    """In place of etcd."""

    server = "https://127.0.0.1:2379"

    def health(self, server: str) -> str:
        return "ok"


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    monkeypatch.setattr(renewal.members, "client_context", lambda __: None)
    monkeypatch.setattr(renewal.members, "Members", lambda __: Etcd())
    monkeypatch.setattr(renewal, "get", lambda *__, **___: "ok")
    return Machine(tmp_path)


@pytest.fixture
def mine(machine: Machine) -> renewal.Renewal:
    return renewal.Renewal(hosts.Host(machine, str(machine.root)), 0, machine.shown)


RENEWED = [
    "kubeadm certs renew all",
    "crictl stop --timeout 60 etcd-1",
    "crictl stop --timeout 60 kube-apiserver-1",
    "crictl stop --timeout 60 kube-controller-manager-1",
    "crictl stop --timeout 60 kube-scheduler-1",
]


def act(mine: renewal.Renewal, action: str, now: bool = False, check_mode: bool = False) -> Any:
    return change(mine, action, now, check_mode, NOW)


def test_nothing_is_renewed_before_two_thirds(machine: Machine, mine: renewal.Renewal) -> None:
    assert act(mine, "renew") == {"changed": False, "due": [], "begun": False, "serving_due": True, "done": []}
    machine.sign(NOW - 240 * DAY, 125)
    assert act(mine, "look")["due"] == []
    machine.sign(NOW - 245 * DAY, 120)
    found = act(mine, "look")["due"]
    assert found == [*sorted(f"/etc/kubernetes/pki/{name}.crt" for name in LEAVES), "/etc/kubernetes/admin.conf"]
    # Of short ones, too; and a file that came back from a backup is not taken for younger than its certificate.
    machine.sign(NOW - 10 * DAY, 20)
    assert act(mine, "look")["due"] == []
    machine.sign(NOW, -1)
    assert len(act(mine, "look")["due"]) == 6


def test_each_component_starts_anew_in_its_order(machine: Machine, mine: renewal.Renewal) -> None:
    machine.sign(NOW - 300 * DAY, 65)
    assert act(mine, "renew", check_mode=True)["done"] == ["would renew"]
    assert machine.calls == []
    assert act(mine, "renew")["changed"]
    assert machine.calls == RENEWED
    assert machine.mark() is None
    assert not act(mine, "renew")["changed"]
    assert act(mine, "renew", now=True)["changed"]


def test_the_api_server_of_this_host_answers(
    machine: Machine, mine: renewal.Renewal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not any that the cluster's address leads to."""
    answers = {10257: "ok", 10259: "ok", 6443: "[Errno 111] Connection refused"}
    monkeypatch.setattr(renewal, "get", lambda port, path, tls: answers[port])
    with pytest.raises(FleetError, match=r"^kube-apiserver with its new certificates: it answers \[Errno 111\]"):
        act(mine, "renew", now=True)


def test_a_renewal_that_was_killed_goes_on(machine: Machine, mine: renewal.Renewal) -> None:
    machine.fails = ("stop --timeout 60 kube-apiserver",)
    with pytest.raises(FleetError, match=r"^crictl stop ended with exit status 1: simulated failure$"):
        act(mine, "renew", now=True)
    assert machine.mark() == "signed\n"
    machine.fails, machine.calls = (), []
    # Nothing is due any more, and the API server still has the old ones.
    found = act(mine, "renew")
    assert (found["due"], found["begun"]) == ([], True)
    assert [call.split()[-1] for call in machine.calls] == [
        "etcd-2",
        "kube-apiserver-1",
        "kube-controller-manager-1",
        "kube-scheduler-1",
    ]
    assert machine.mark() is None
    # And where kubeadm itself was killed.
    machine.fails = ("kubeadm certs",)
    with pytest.raises(FleetError, match=r"^kubeadm certs renew all ended with exit status 1: simulated failure$"):
        act(mine, "renew", now=True)
    assert machine.mark() == "begun\n"
    machine.fails, machine.calls = (), []
    assert act(mine, "renew")["done"][0] == "kubeadm certs renew all"


def test_a_component_that_does_not_come_back(machine: Machine, mine: renewal.Renewal) -> None:
    machine.stuck = ("etcd",)
    with pytest.raises(FleetError) as caught:
        act(mine, "renew", now=True)
    assert str(caught.value) == "etcd with its new certificates: kubelet has not started it again after 0 s"
    # The API server was not touched.
    assert machine.calls == RENEWED[:2]


def test_a_port_that_shows_another_certificate(machine: Machine, mine: renewal.Renewal) -> None:
    machine.stale = {2380: "abc"}
    with pytest.raises(FleetError) as caught:
        act(mine, "renew", now=True)
    assert str(caught.value) == (
        "port 2380 shows the certificate abc, wanted that of /etc/kubernetes/pki/etcd/peer.crt (9)"
    )
    assert machine.mark() == "signed\n"


def test_what_kubelet_serves(machine: Machine, mine: renewal.Renewal) -> None:
    def serve(begin: int, end: int, serial: int) -> None:
        machine.write(renewal.SERVING, certificate(NOW + begin * DAY, NOW + end * DAY, serial))

    serve(-240, 125, 5)
    assert not act(mine, "ask")["changed"]
    serve(-245, 120, 5)
    assert act(mine, "ask", check_mode=True)["changed"]
    assert machine.calls == []
    assert act(mine, "ask")["changed"]
    assert machine.calls == ["systemctl restart kubelet.service"]
    with pytest.raises(FleetError, match=r"^kubelet has no serving certificate \(/var/lib/kubelet/pki/"):
        act(mine, "prove")
    serve(0, 365, 6)
    act(mine, "prove")
    machine.stale = {10250: "5"}
    with pytest.raises(
        FleetError, match=r"^port 10250 shows the certificate 5, wanted 6: see journalctl --unit kubelet$"
    ):
        act(mine, "prove")
    assert act(mine, "ask", now=True)["changed"]


def test_a_host_of_no_cluster_has_nothing_to_renew(tmp_path: Path) -> None:
    host = hosts.Host(lambda *__: (0, "", ""), str(tmp_path))
    assert renewal.state(renewal.Renewal(host), NOW) == {"due": [], "begun": False, "serving_due": False}
