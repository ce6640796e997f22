# SPDX-License-Identifier: Apache-2.0
# PRIVATE to the collection: do not import this from outside, it may change without notice.
"""Renew what kubeadm signed on a control plane, and what kubelet serves. Runs with nothing but Python.

A component reads its certificates when it starts, so each of them is started anew: its container is stopped, and
kubelet
starts it again from the same manifest. Nothing is moved out of the way that a run which is killed could leave there.

Sources: "Certificate Management with kubeadm", the CRI's command line (crictl), kubelet's certificate rotation.
"""

from __future__ import annotations

import base64
import contextlib
import datetime
import glob
import os
import re
from collections.abc import Callable
from typing import Any

from ansible_collections.gpufleet.metal.plugins.module_utils._errors import FleetError
from ansible_collections.gpufleet.metal.plugins.module_utils._kubernetes import certificates, members
from ansible_collections.gpufleet.metal.plugins.module_utils._kubernetes.host import (
    API_PORT,
    CRI_SOCKET,
    KUBELET_PORT,
    KUBERNETES,
    RENEWAL_MARK,
    Host,
    get,
    shown_serial,
    wait_for,
)
from ansible_collections.gpufleet.metal.plugins.module_utils._kubernetes.life import must

#: etcd first: the others wait for it, and the API server before those that ask it.
COMPONENTS = ("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler")
AUTHORITIES = ("ca", "front-proxy-ca", "etcd/ca")
CREDENTIALS = ("admin", "super-admin", "controller-manager", "scheduler")
#: What is shown where; the other two serve a certificate that they make themselves.
SHOWN = {6443: "apiserver", 2379: "etcd/server", 2380: "etcd/peer"}
#: Where etcd hears other members: at the host's own address alone, while the rest is at the loopback, too.
_PEER_PORT = 2380
_PEERS = re.compile(r"--listen-peer-urls=https://\[?([0-9A-Fa-f.:]+?)\]?:2380\b")
_LOOPBACK = "127.0.0.1"
#: kubelet's own, put together because it reads like the name of a collection.
_NAME_LABEL = ".".join(("io", "kubernetes", "container", "name"))
_HEALTH = {"kube-controller-manager": 10257, "kube-scheduler": 10259}
_CLIENT_DATA = re.compile(r"client-certificate-data:\s*\"?([A-Za-z0-9+/=]+)")
SERVING = "var/lib/kubelet/pki/kubelet-server-current.pem"


class Renewal:
    """The certificates of one host."""

    def __init__(
        self, host: Host, deadline_seconds: float = 120, shown: Callable[[int, str], str | None] = shown_serial
    ) -> None:
        self.host = host
        self.deadline_seconds = deadline_seconds
        self.shown = shown

    # -- what kubeadm signed --

    def _texts(self) -> dict[str, str]:
        """The certificates that kubeadm renews, by file."""
        found = {}
        for path in sorted(
            glob.glob(self.host.path(f"{KUBERNETES}/pki/*.crt"))
            + glob.glob(self.host.path(f"{KUBERNETES}/pki/etcd/*.crt"))
        ):
            name = os.path.relpath(path, self.host.path(f"{KUBERNETES}/pki")).removesuffix(".crt")
            if name not in AUTHORITIES:
                found[f"/{KUBERNETES}/pki/{name}.crt"] = self.host.text(f"{KUBERNETES}/pki/{name}.crt") or ""
        for name in CREDENTIALS:
            text = self.host.text(f"{KUBERNETES}/{name}.conf")
            data = _CLIENT_DATA.search(text or "")
            if data:
                found[f"/{KUBERNETES}/{name}.conf"] = base64.b64decode(data.group(1)).decode("ascii", "replace")
        return found

    def _is_due(self, path: str, text: str, now: datetime.datetime) -> bool:
        begin, end = certificates.validity(text)
        # Older kubeadm dates them back to the beginning of their authority; the file was written when it was signed.
        written = datetime.datetime.fromtimestamp(os.stat(self.host.path(path)).st_mtime, tz=datetime.timezone.utc)
        return certificates.is_due(max(begin, min(written, now)), end, now)

    def due(self, now: datetime.datetime) -> list[str]:
        """Return the files whose certificates have lived two thirds of their life."""
        return [path for path, text in self._texts().items() if self._is_due(path, text, now)]

    def begun(self) -> bool:
        """Whether a renewal has begun that is not complete."""
        return self.host.text(RENEWAL_MARK) is not None

    def _crictl(self, *arguments: str) -> str:
        return must(self.host, ["crictl", "--runtime-endpoint", CRI_SOCKET, *arguments], f"crictl {arguments[0]}")

    def _containers(self, component: str) -> list[str]:
        return self._crictl("ps", "--state", "running", "--label", f"{_NAME_LABEL}={component}", "--quiet").split()

    def _restart(self, component: str) -> None:
        before = self._containers(component)
        for identity in before:
            self._crictl("stop", "--timeout", "60", identity)

        def fault() -> str | None:
            now = [identity for identity in self._containers(component) if identity not in before]
            if not now:
                return "kubelet has not started it again"
            return self._health(component)

        found = wait_for(fault, self.deadline_seconds)
        if found:
            raise FleetError(f"{component} with its new certificates: {found} after {self.deadline_seconds:.0f} s")

    def _health(self, component: str) -> str | None:
        if component == "etcd":
            etcd = members.Members(members.client_context(self.host.path))
            answer = etcd.health(etcd.server)
        elif component == "kube-apiserver":
            # This host's own: the credentials name the address that all control planes share.
            answer = get(API_PORT, "/readyz", tls=True)
        else:
            answer = get(_HEALTH[component], "/healthz", tls=True)
        return None if answer == "ok" else f"it answers {answer}"

    def _address(self, port: int) -> str:
        if port != _PEER_PORT:
            return _LOOPBACK
        found = _PEERS.search(self.host.manifests().get("etcd", ""))
        if found is None:
            raise FleetError(
                f"/{KUBERNETES}/manifests/etcd.yaml has no --listen-peer-urls with port 2380, wanted kubeadm's"
            )
        return found.group(1)

    def faults(self) -> list[str]:
        """Return which ports do not show the certificates that lie on the host."""
        found = []
        for port, name in SHOWN.items():
            path = f"{KUBERNETES}/pki/{name}.crt"
            text = self.host.text(path)
            wanted = certificates.serial(text) if text else None
            shown = self.shown(port, self._address(port))
            if wanted is None or shown != wanted:
                found.append(f"port {port} shows the certificate {shown}, wanted that of /{path} ({wanted})")
        return found

    def renew(self) -> list[str]:
        """Renew all that kubeadm signed, and start each component anew; returns what was done."""
        done = []
        mark = self.host.path(RENEWAL_MARK)
        if self.host.text(RENEWAL_MARK) != "signed\n":
            os.makedirs(os.path.dirname(mark), exist_ok=True)
            _write(mark, "begun\n")
            must(self.host, ["kubeadm", "certs", "renew", "all"], "kubeadm certs renew all")
            _write(mark, "signed\n")
            done.append("kubeadm certs renew all")
        for component in COMPONENTS:
            self._restart(component)
            done.append(f"started {component} anew")
        fault = wait_for(lambda: "; ".join(self.faults()) or None, self.deadline_seconds)
        if fault:
            raise FleetError(fault)
        os.unlink(mark)
        return done

    # -- what kubelet serves --

    def serving_due(self, now: datetime.datetime) -> bool:
        """Whether kubelet has no serving certificate, or one that has lived two thirds of its life."""
        text = self.host.text(SERVING)
        return text is None or certificates.is_due(*certificates.validity(text), now)

    def ask_for_serving(self) -> None:
        """Have kubelet ask for a new serving certificate. Containers live on; its port is shut until one is signed."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.host.path(SERVING))
        must(self.host, ["systemctl", "restart", "kubelet.service"], "systemctl restart kubelet")

    def serving_fault(self) -> str | None:
        """Why kubelet does not serve what lies on the host."""
        text = self.host.text(SERVING)
        if text is None:
            return f"kubelet has no serving certificate (/{SERVING})"
        shown, wanted = self.shown(KUBELET_PORT, _LOOPBACK), certificates.serial(text)
        return None if shown == wanted else f"port {KUBELET_PORT} shows the certificate {shown}, wanted {wanted}"

    def prove_serving(self) -> None:
        """Wait until kubelet serves what lies on the host. Raises FleetError."""
        fault = wait_for(self.serving_fault, self.deadline_seconds)
        if fault:
            raise FleetError(f"{fault}: see journalctl --unit kubelet")


def _write(path: str, text: str) -> None:
    with open(f"{path}.new", "w", encoding="utf-8") as stream:
        stream.write(text)
    os.replace(f"{path}.new", path)


def state(renewal: Renewal, now: datetime.datetime) -> dict[str, Any]:
    """Return what is to be renewed on a host."""
    member = renewal.host.member()
    control_plane = member is not None and member["role"] == "control_plane"
    return {
        "due": renewal.due(now) if control_plane else [],
        "begun": renewal.begun(),
        "serving_due": member is not None and renewal.serving_due(now),
    }
