# SPDX-License-Identifier: Apache-2.0
"""The objects of a cluster, and the engines that kubelet's stand-in starts for its Deployments.

They are kept and answered as ../../../resources/simulated_api.py does it, which the packages bring along, but for the
nodes, which are the cluster's own. No container runs: an engine is a process of the node, which kubelet starts and ends
as it would the pod of a pinned Deployment. Where Flannel's objects are it has a network of its own, behind the host's
port; without them, the host's.
"""

from __future__ import annotations

import hashlib
import ipaddress
import json
import socket
import ssl
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import common
import simulated_api

#: A scenario brings it; without it no Deployment has a pod.
ENGINE = Path("/usr/local/lib/simulated_engine.py")
PREFIX = "simulated-engine-"
LINKS = Path("/sys/class/net")
ASK_SECONDS = 5.0
IDLE_SECONDS = 1.0


def template_digest(item: dict[str, Any]) -> str:
    """What changes when a Deployment wants another pod."""
    return hashlib.sha256(json.dumps(item["spec"]["template"], sort_keys=True).encode()).hexdigest()[:10]


def takes(node: dict[str, Any], pod: dict[str, Any]) -> bool:
    """Whether a node is one of those that a pod may run on."""
    labels = node["metadata"]["labels"]
    if any(labels.get(name) != value for name, value in pod.get("nodeSelector", {}).items()):
        return False

    def tolerated(taint: dict[str, Any]) -> bool:
        return any(
            each.get("key") in (None, taint["key"]) and each.get("effect") in (None, taint["effect"])
            for each in pod.get("tolerations", [])
        )

    return all(tolerated(taint) for taint in node["spec"].get("taints") or [])


class KeptStore(simulated_api.Store):
    """Objects in etcd, the same on all control planes: a restored cluster has those of its snapshot.

    ``cluster``: who has the state and writes it to a majority. ``running``: by node, what its kubelet says that
    answers, Deployment and digest.
    """

    def __init__(self, cluster: Any, running: dict[str, dict[str, str]]) -> None:
        self.cluster = cluster
        self.running = running
        self.complete = False
        super().__init__()
        self.born = self._kept()
        self.load()
        self.complete = True

    def _kept(self) -> dict[str, Any]:
        return {"objects": self.objects, "applied": self.applied, "revision": self.revision}

    def load(self) -> None:
        """Take what the cluster's state has, after another member has written it or this one could not."""
        kept = self.cluster.state.get("objects") or json.loads(json.dumps(self.born))
        self.objects, self.applied, self.revision = kept["objects"], kept["applied"], kept["revision"]

    def write(self) -> None:
        if self.complete:
            self.cluster.state["objects"] = self._kept()
            self.cluster.save()

    def wanted(self, node: str) -> Iterator[dict[str, Any]]:
        """What has a pod on a node that takes pods."""
        for item in self.objects.values():
            if item["kind"] != "Deployment" or not item["spec"]["replicas"]:
                continue
            pod = item["spec"]["template"]
            if pod["spec"]["nodeSelector"]["kubernetes.io/hostname"] != node:
                continue
            container = pod["spec"]["containers"][0]
            port = container["ports"][0]
            yield {
                "name": item["metadata"]["name"],
                "digest": template_digest(item),
                "address": port["hostIP"],
                "port": port["hostPort"],
                "model": pod["metadata"]["annotations"]["gpufleet.metal/model"],
                "arguments": container["args"],
                "directories": dict(self.directories(item["metadata"]["namespace"], pod["spec"])),
            }

    def network(self, node: dict[str, Any]) -> dict[str, Any] | None:
        """Return what Flannel is told, where a pod of it is on a node."""
        settings = self.objects.get("ConfigMap/kube-flannel/kube-flannel-cfg")
        daemon = self.objects.get("DaemonSet/kube-flannel/kube-flannel-ds")
        if settings is None or daemon is None or not takes(node, daemon["spec"]["template"]["spec"]):
            return None
        return dict(json.loads(settings["data"]["net-conf.json"]))

    def directories(self, namespace: str, pod: dict[str, Any]) -> Iterator[tuple[str, str]]:
        """By where a pod's container has them, the directories of the node that its claims stand for."""
        claims = {each["name"]: each.get("persistentVolumeClaim") for each in pod.get("volumes", [])}
        for mount in pod["containers"][0].get("volumeMounts", []):
            if claim := claims.get(mount["name"]):
                volume = self.objects[f"PersistentVolumeClaim/{namespace}/{claim['claimName']}"]["spec"]["volumeName"]
                yield mount["mountPath"], self.objects[f"PersistentVolume//{volume}"]["spec"]["local"]["path"]

    def answers(self, item: dict[str, Any]) -> bool:
        """Whether the pod that a Deployment wants now answers."""
        return any(found.get(item["metadata"]["name"]) == template_digest(item) for found in self.running.values())

    def _nodes(self) -> list[dict[str, Any]]:
        names = self.cluster.list_nodes()
        return [{"apiVersion": "v1", "kind": "Node", **self.cluster.get_node(name)} for name in names]

    def _count(self, item: dict[str, Any]) -> int:
        """Pods of a DaemonSet are on the nodes that it selects and whose taints it tolerates."""
        if item["kind"] != "DaemonSet":
            return int(super()._count(item))
        return sum(takes(node, item["spec"]["template"]["spec"]) for node in self._nodes())

    def _with_status(self, item: dict[str, Any]) -> dict[str, Any]:
        if item["kind"] == "Node":
            # It is as its kubelet says.
            return item
        found: dict[str, Any] = super()._with_status(item)
        if item["kind"] == "Deployment" and "uid" in item["metadata"]:
            found["status"]["availableReplicas"] = int(self.answers(item))
        return found

    def _pods(self) -> list[dict[str, Any]]:
        pods: list[dict[str, Any]] = super()._pods()
        there = {name for found in self.running.values() for name in found}
        return [pod for pod in pods if pod["metadata"]["name"].rsplit("-", 2)[0] in there]


def units() -> dict[str, tuple[str, int]]:
    """The engines that run on this node: by Deployment, digest and port."""
    out = common.run("systemctl", "list-units", "--plain", "--no-legend", "--state=active", f"{PREFIX}*")
    found = {}
    for line in out.splitlines():
        digest, port, name = line.split()[0].removeprefix(PREFIX).removesuffix(".service").split("-", 2)
        found[name] = digest, int(port)
    return found


def is_ready(address: str, port: int, secured: bool) -> bool:
    """As the probes in a pod: of an engine that answers over mutual TLS they see a handshake and not more."""
    if secured:
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        try:
            with socket.create_connection((address, port), timeout=5) as plain, context.wrap_socket(plain):
                return True
        except OSError:
            return False
    try:
        with urllib.request.urlopen(f"http://{address}:{port}/health", timeout=5) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def lacks(engine: dict[str, Any]) -> str | None:
    """What keeps a pod from running on this node: directories that are not there."""
    missing = [path for path in engine["directories"].values() if not Path(path).is_dir()]
    model = engine["arguments"][0]
    if "/models" in engine["directories"]:
        weights = Path(engine["directories"]["/models"], *Path(model).relative_to("/models").parts)
        missing += [] if weights.is_dir() else [str(weights)]
    return f"no directory {', '.join(missing)}" if missing else None


class Network:
    """A node's part of the pods' network: real links and addresses, and real translation of host ports."""

    def __init__(self, subnet: str, backend: str, address: str) -> None:
        self.subnet = ipaddress.ip_network(subnet)
        self.address = address
        if backend == "vxlan" and not (LINKS / "flannel.1").exists():
            tunnel = ["type", "vxlan", "id", "1", "local", address, "dstport", "8472", "nolearning"]
            common.run("ip", "link", "add", "flannel.1", *tunnel)
        if backend == "vxlan":
            common.run("ip", "link", "set", "flannel.1", "up")
        if not (LINKS / "cni0").exists():
            common.run("ip", "link", "add", "cni0", "type", "bridge")
            common.run("ip", "address", "add", f"{self.subnet[1]}/{self.subnet.prefixlen}", "dev", "cni0")
        common.run("ip", "link", "set", "cni0", "up")

    def pod(self, port: int) -> str:
        """The address of the pod behind a port of the host."""
        return str(self.subnet[2 + port % 250])

    def enter(self, port: int) -> str:
        """Make the network of a pod, if it is not there, and return its name."""
        name, outside = f"pod-{port}", f"veth{port}"
        if not Path("/run/netns", name).exists():
            common.run("ip", "netns", "add", name)
        if not (LINKS / outside).exists():
            common.run("ip", "link", "add", outside, "type", "veth", "peer", "name", "eth0", "netns", name)
            inside = ["ip", "-netns", name]
            common.run(*inside, "address", "add", f"{self.pod(port)}/{self.subnet.prefixlen}", "dev", "eth0")
            for link in ("lo", "eth0"):
                common.run(*inside, "link", "set", link, "up")
            common.run(*inside, "route", "add", "default", "via", str(self.subnet[1]))
        common.run("ip", "link", "set", outside, "master", "cni0", "up")
        return name

    def map(self, ports: list[int]) -> None:
        """Translate the ports of the host, as the plugin portmap does: from outside and from the host itself."""
        rules = "".join(f"ip daddr {self.address} tcp dport {port} dnat to {self.pod(port)}\n" for port in ports)
        chains = "".join(
            f"chain {hook} {{ type nat hook {hook} priority dstnat; policy accept;\n{rules} }}\n"
            for hook in ("prerouting", "output")
        )
        table = "table ip simulated_portmap"
        common.run("nft", "--file", "-", stdin=f"{table}\ndelete {table}\n{table} {{\n{chains}}}\n")


class Pods:
    """The engines of this node's Deployments, and no other: their units outlive kubelet, as containers do."""

    def __init__(self) -> None:
        self.secured: dict[str, bool] = {}
        self.ready: dict[str, tuple[str, float]] = {}
        self.next = 0.0
        self.network: Network | None = None
        self.mapped: list[int] = []

    def join_network(self, client: common.Client, node: str, address: str) -> None:
        """Have the network, as soon as the cluster has Flannel; until then it is asked for now and then."""
        if self.network is None and time.monotonic() >= self.next and (found := client.call("pod_network", name=node)):
            self.network = Network(found["subnet"], found["backend"], address)

    def start(self, engine: dict[str, Any]) -> None:
        """Start the engine of a Deployment."""
        options = [f"--unit={PREFIX}{engine['digest']}-{engine['port']}-{engine['name']}"]
        at = engine["address"]
        if self.network is not None:
            at = "0.0.0.0"
            options.append(f"--property=NetworkNamespacePath=/run/netns/{self.network.enter(engine['port'])}")
        argv = ["/usr/bin/python3", str(ENGINE), at, str(engine["port"]), engine["model"]]
        argv += [engine["directories"]["/tls"]] if self.secured[engine["name"]] else []
        common.run("systemd-run", "--quiet", "--collect", *options, *argv)

    def answering(self, address: str, running: dict[str, tuple[str, int]]) -> dict[str, str]:
        """Which engines answer; one that did is asked again after some seconds."""
        moment = time.monotonic()
        for name, (digest, port) in running.items():
            known, since = self.ready.get(name, ("", 0.0))
            if known == digest and moment - since < ASK_SECONDS:
                continue
            self.ready.pop(name, None)
            at = address if self.network is None else self.network.pod(port)
            if is_ready(at, port, self.secured.get(name, False)):
                self.ready[name] = digest, moment
        return {name: digest for name, (digest, __) in running.items() if self.ready.get(name, ("",))[0] == digest}

    def turn(self, client: common.Client, node: str, address: str) -> None:
        """Start and end what is to be started and ended."""
        if time.monotonic() < self.next:
            return
        if not ENGINE.exists():
            self.next = time.monotonic() + ASK_SECONDS
            return
        running = units()
        ready = self.answering(address, running)
        wanted = {engine["name"]: engine for engine in client.call("run_engines", name=node, running=ready)}
        for name, (digest, port) in running.items():
            if wanted.get(name, {}).get("digest") != digest:
                # At once, whatever it has in hand: a real pod would wait for that.
                common.run("systemctl", "stop", f"{PREFIX}{digest}-{port}-{name}.service")
        for name, engine in wanted.items():
            self.secured[name] = "--ssl-certfile" in engine["arguments"]
            if name not in running:
                if fault := lacks(engine):
                    common.say(f"E pod of {name} is not started: {fault}")
                    continue
                self.start(engine)
        ports = sorted(engine["port"] for engine in wanted.values())
        if self.network is not None and ports != self.mapped:
            self.network.map(ports)
            self.mapped = ports
        # Where all is as wanted nothing is asked for a moment.
        self.next = time.monotonic() + (IDLE_SECONDS if ready.keys() == wanted.keys() == running.keys() else 0)
