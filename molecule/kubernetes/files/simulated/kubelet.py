# SPDX-License-Identifier: Apache-2.0
"""A stand-in for kubelet: looks at the host as kubelet does, registers its node, and asks for its certificates.

Where there is a manifest for an API server it plays that, too. It runs no container.
"""

from __future__ import annotations

import http.server
import json
import re
import secrets
import ssl
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import api
import common
import objects
import schema
import yaml
from common import KUBERNETES, SimulatedError

DEFAULTS = {"vm/overcommit_memory": "1", "vm/panic_on_oom": "0", "kernel/panic": "10", "kernel/panic_on_oops": "1"}
#: How often the API server hears of a node that is as it was.
HEARTBEAT_SECONDS = 5
SERVING = common.KUBELET / "pki" / "kubelet-server-current.pem"


class Health(http.server.BaseHTTPRequestHandler):
    """ok, and 401 for whoever gives no name at the port of the API."""

    guarded = False

    def log_message(self, *arguments: Any) -> None:
        """Nothing."""

    def do_GET(self) -> None:
        allowed = not self.guarded and self.path == "/healthz"
        self.send_response(200 if allowed else 401)
        self.end_headers()
        self.wfile.write(b"ok" if allowed else b"Unauthorized")


class GuardedHealth(Health):
    """The port of the kubelet's API."""

    guarded = True


def check_host(config: dict[str, Any]) -> None:
    """Refuse to start where kubelet refuses, and where it would start and fail later."""
    schema.validate({"KubeletConfiguration": config})
    for name, wanted in DEFAULTS.items():
        found = (Path("/proc/sys") / name).read_text(encoding="ascii").strip()
        if config.get("protectKernelDefaults") and found != wanted:
            raise SimulatedError(f"invalid kernel flag: {name}, expected value: {wanted}, actual value: {found}")
    kind = common.run("stat", "--file-system", "--format=%T", "/sys/fs/cgroup").strip()
    if kind != "cgroup2fs" and config.get("failCgroupV1", True):
        raise SimulatedError("kubelet is configured to not run on a host using cgroup v1")
    if len(Path("/proc/swaps").read_text(encoding="ascii").splitlines()) > 1:
        raise SimulatedError("running with swap on is not supported, please disable swap")
    systemd = bool(re.search(r"SystemdCgroup = true", common.run("containerd", "config", "dump")))
    if systemd != (config.get("cgroupDriver") == "systemd"):
        raise SimulatedError(
            f"stand-in: kubelet's cgroup driver is {config.get('cgroupDriver')}, containerd's is another one"
        )
    resolver = config.get("resolvConf", "/etc/resolv.conf")
    servers = re.findall(r"^nameserver\s+(\S+)", Path(resolver).read_text(encoding="utf-8"), re.M)
    if not servers or all(server.startswith("127.") for server in servers):
        raise SimulatedError(f"stand-in: CoreDNS would ask itself: {resolver} has {servers}")


HEALTH = {"kube-controller-manager": 10257, "kube-scheduler": 10259}


class Components:
    """The static Pods of a control plane: each reads its manifest and its certificates when it starts."""

    def __init__(self) -> None:
        self.servers: dict[str, list[api.Server]] = {}
        self.images: dict[str, str] = {}

    def turn(self) -> None:
        """Start what has a new manifest, what was stopped, and what this kubelet does not play yet; etcd first."""
        for component in ("etcd", "kube-apiserver", *HEALTH):
            manifest = common.MANIFESTS / f"{component}.yaml"
            wanted = common.digest(manifest) if manifest.is_file() and common.STATE.is_file() else None
            found = common.running(component)
            stopped = found is None or found[1] != wanted
            if component in self.servers and stopped:
                for server in self.servers.pop(component):
                    server.shutdown()
                    server.server_close()
                (common.CONTAINERS / component).unlink(missing_ok=True)
            if wanted is not None and component not in self.servers:
                self.start(component, manifest, wanted, None if stopped else found)

    def start(self, component: str, manifest: Path, digest: str, found: tuple[str, str] | None) -> None:
        check_manifest(manifest)
        if component == "kube-apiserver":
            servers = [api.serve()]
        elif component == "etcd":
            if "kube-apiserver" in self.servers:
                # It asks etcd again.
                api.Handler.cluster = api.Cluster()
            # Other members reach it at the host's own address, nobody at the loopback.
            peers = re.search(r"--listen-peer-urls=https://([0-9.]+):2380", manifest.read_text(encoding="utf-8"))
            if peers is None:
                raise SimulatedError(f"stand-in: {manifest} has no --listen-peer-urls")
            servers = [
                api.listen(2379, api.EtcdHandler, "etcd/server", "etcd/ca"),
                api.listen(2380, api.EtcdHandler, "etcd/peer", "etcd/ca", peers.group(1)),
            ]
        else:
            servers = [api.listen(HEALTH[component], Health, "apiserver", None, "127.0.0.1")]
        self.servers[component] = servers
        # A container outlives the kubelet that started it.
        name = found[0] if found else secrets.token_hex(8)
        image = common.image_of(yaml.safe_load(manifest.read_text(encoding="utf-8")))
        common.write(common.CONTAINERS / component, f"{name} {digest}\n")
        self.images[component] = image

    def pods(self) -> list[dict[str, str]]:
        """What the API is told of them."""
        return [
            {"component": component, "image": image, "version": image.rpartition(":")[2]}
            for component, image in sorted(self.images.items())
            if component in self.servers
        ]


def check_manifest(path: Path) -> None:
    """Look whether the API server would find every file that it is told, through its mounts."""
    spec = yaml.safe_load(path.read_text(encoding="utf-8"))["spec"]
    mounts = {volume["hostPath"]["path"] for volume in spec["volumes"]} | {str(common.PKI)}
    component = spec["containers"][0]["command"][0]
    for argument in spec["containers"][0]["command"][1:]:
        name, __, value = argument.removeprefix("--").partition("=")
        if not value.startswith("/"):
            continue
        if component != "kube-apiserver":
            continue
        if not any(value.startswith(f"{mount}/") for mount in mounts):
            raise SimulatedError(f"kube-apiserver --{name}: {value} is in no volume")
        if not name.endswith("log-path"):
            document = Path(value)
            if not document.is_file():
                raise SimulatedError(f"kube-apiserver --{name}: open {value}: no such file or directory")
            if name == "encryption-provider-config" and document.stat().st_mode & 0o077:
                raise SimulatedError(f"stand-in: {value} is readable for others")


def request(name: str, subject: str, extensions: list[str]) -> tuple[str, str]:
    """Make a key and a request."""
    key = common.run("openssl", "ecparam", "-name", "prime256v1", "-genkey", "-noout")
    path = common.KUBELET / "pki" / f"{name}.key"
    common.write(path, key)
    added = [item for line in extensions for item in ("-addext", line)]
    return key, common.run("openssl", "req", "-new", "-key", str(path), "-subj", subject, *added)


def bootstrap() -> None:
    """Trade the token for a certificate of this node."""
    told = json.loads((KUBERNETES / "bootstrap-kubelet.conf").read_text(encoding="utf-8"))
    authority = (common.PKI / "ca.crt").read_text(encoding="utf-8")
    key, csr = request("client", f"/O=system:nodes/CN=system:node:{told['name']}", [])
    connection = common.connect(told["server"], ssl.create_default_context(cadata=authority))
    body = {"operation": "sign_node", "name": told["name"], "request": csr}
    certificate = common.ask(connection, body, "/simulated", told["token"])
    common.write(KUBERNETES / "kubelet.conf", common.kubeconfig(told["server"], certificate, key))


def node_document(registration: dict[str, Any]) -> dict[str, Any]:
    """What the API is told of this node."""
    own = {"node-role.kubernetes.io/control-plane": ""} if (common.MANIFESTS / "kube-apiserver.yaml").exists() else {}
    ready = "False" if (common.FAULTS / "not-ready").exists() else "True"
    arguments = {item["name"]: item["value"] for item in registration["kubeletExtraArgs"]}
    labels = dict(pair.split("=", 1) for pair in arguments.get("node-labels", "").split(",") if pair)
    return {
        "metadata": {
            "name": registration["name"],
            "labels": {"kubernetes.io/hostname": registration["name"], **own, **labels},
        },
        "spec": {"taints": registration["taints"]},
        "status": {
            "nodeInfo": {"kubeletVersion": f"v{common.VERSION}"},
            "addresses": [{"type": "InternalIP", "address": arguments["node-ip"]}],
            "conditions": [{"type": "Ready", "status": ready, "reason": "stand-in: nothing runs"}],
        },
    }


def serve_plain() -> None:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 10248), Health)
    threading.Thread(target=server.serve_forever, daemon=True).start()


def serve_tls() -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(SERVING)
    server = http.server.ThreadingHTTPServer(("0.0.0.0", 10250), GuardedHealth)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()


class Kubelet:
    """What runs until it is stopped."""

    def __init__(self) -> None:
        path = common.KUBELET / "config.yaml"
        if not path.is_file():
            raise SimulatedError(f"failed to load kubelet config file, path: {path}: no such file or directory")
        self.config = yaml.safe_load(path.read_text(encoding="utf-8"))
        check_host(self.config)
        self.registration = json.loads((common.KUBELET / "registration.json").read_text(encoding="utf-8"))
        self.name = self.registration["name"]
        self.components = Components()
        self.pods = objects.Pods()
        self.told: tuple[Any, float] = (None, 0.0)
        self.asked: str | None = None
        self.key = ""
        self.serving = False
        self.read: tuple[int, common.Client] | None = None

    def client(self) -> common.Client:
        """Read this node's credentials, when they are others than at the last turn."""
        path = KUBERNETES / "kubelet.conf"
        written = path.stat().st_mtime_ns
        if self.read is None or self.read[0] != written:
            self.read = (written, common.Client(path))
        return self.read[1]

    def turn(self) -> None:
        """Do what is to be done now."""
        self.components.turn()
        if not (KUBERNETES / "kubelet.conf").exists():
            if (KUBERNETES / "bootstrap-kubelet.conf").exists():
                bootstrap()
            return
        client = self.client()
        document = node_document(self.registration)
        news, moment = (document, self.components.pods()), time.monotonic()
        if news != self.told[0] or moment - self.told[1] > HEARTBEAT_SECONDS:
            client.call("register", name=self.name, node=document, pods=news[1])
            self.told = news, moment
        address = document["status"]["addresses"][0]["address"]
        self.pods.join_network(client, self.name, address)
        self.pods.turn(client, self.name, address)
        if not self.serving:
            self.serve(client)

    def serve(self, client: common.Client) -> None:
        """Ask for a serving certificate, wait for somebody to sign it, and serve."""
        if not SERVING.exists() and self.asked is None:
            address = node_document(self.registration)["status"]["addresses"][0]["address"]
            names = f"subjectAltName=DNS:{self.name},IP:{address}"
            self.key, csr = request("server", f"/O=system:nodes/CN=system:node:{self.name}", [names])
            self.asked = client.call("ask_serving", name=self.name, request=csr)
        if self.asked and not SERVING.exists():
            certificate = client.call("get_serving", name=self.name, identity=self.asked)
            if certificate:
                common.write(SERVING, certificate + self.key)
        if SERVING.exists():
            serve_tls()
            self.serving = True


def main(argv: list[str]) -> None:
    """Run."""
    common.say(f"simulated kubelet {common.VERSION}: a stand-in, nothing of it is Kubernetes")
    kubelet = Kubelet()
    serve_plain()
    while True:
        try:
            kubelet.turn()
        except SimulatedError as fault:
            common.say(f"E {fault}")
        time.sleep(0.5)


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except (SimulatedError, subprocess.SubprocessError) as fault:
        common.say(f"E run.go: command failed: {fault}")
        sys.exit(1)
