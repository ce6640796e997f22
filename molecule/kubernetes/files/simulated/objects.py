# SPDX-License-Identifier: Apache-2.0
"""The objects of a cluster of one control plane, and the engines that kubelet's stand-in starts for its Deployments.

They are kept and answered as ../../../resources/simulated_api.py does it, which the packages bring along. No container
runs: an engine is a process of the node, which kubelet starts and ends as it would the pod of a pinned Deployment.
"""

from __future__ import annotations

import hashlib
import json
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import common
import simulated_api

#: A scenario brings it; without it no Deployment has a pod.
ENGINE = Path("/usr/local/lib/simulated_engine.py")
PREFIX = "simulated-engine-"


def template_digest(item: dict[str, Any]) -> str:
    """What changes when a Deployment wants another pod."""
    return hashlib.sha256(json.dumps(item["spec"]["template"], sort_keys=True).encode()).hexdigest()[:10]


class KeptStore(simulated_api.Store):
    """Objects in etcd's directory: they are there again when the API server has been replaced."""

    def __init__(self, running: dict[str, dict[str, str]]) -> None:
        self.path = common.STATE.with_name("objects.json")
        self.complete = False
        #: By node, what its kubelet says that answers: Deployment and digest.
        self.running = running
        super().__init__()
        if self.path.exists():
            kept = json.loads(self.path.read_text(encoding="utf-8"))
            self.objects, self.applied, self.revision = kept["objects"], kept["applied"], kept["revision"]
        self.complete = True

    def write(self) -> None:
        if self.complete:
            kept = {"objects": self.objects, "applied": self.applied, "revision": self.revision}
            common.write(self.path, json.dumps(kept))

    def wanted(self, node: str) -> Iterator[dict[str, Any]]:
        """What has a pod on a node that takes pods."""
        for item in self.objects.values():
            if item["kind"] != "Deployment" or not item["spec"]["replicas"]:
                continue
            pod = item["spec"]["template"]
            if pod["spec"]["nodeSelector"]["kubernetes.io/hostname"] != node:
                continue
            port = pod["spec"]["containers"][0]["ports"][0]
            yield {
                "name": item["metadata"]["name"],
                "digest": template_digest(item),
                "address": port["hostIP"],
                "port": port["hostPort"],
                "model": pod["metadata"]["annotations"]["gpufleet.metal/model"],
            }

    def answers(self, item: dict[str, Any]) -> bool:
        """Whether the pod that a Deployment wants now answers."""
        return any(found.get(item["metadata"]["name"]) == template_digest(item) for found in self.running.values())

    def _with_status(self, item: dict[str, Any]) -> dict[str, Any]:
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


def is_ready(address: str, port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://{address}:{port}/health", timeout=5) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def turn(client: common.Client, node: str, address: str) -> None:
    """Have the engines of this node's Deployments, and no other: their units outlive kubelet, as containers do."""
    if not ENGINE.exists():
        return
    running = units()
    ready = {name: digest for name, (digest, port) in running.items() if is_ready(address, port)}
    wanted = {engine["name"]: engine for engine in client.call("run_engines", name=node, running=ready)}
    for name, (digest, port) in running.items():
        if wanted.get(name, {}).get("digest") != digest:
            # At once, whatever it has in hand: a real pod would wait for that.
            common.run("systemctl", "stop", f"{PREFIX}{digest}-{port}-{name}.service")
    for name, engine in wanted.items():
        if name not in running:
            unit = f"--unit={PREFIX}{engine['digest']}-{engine['port']}-{name}"
            argv = ["/usr/bin/python3", str(ENGINE), engine["address"], str(engine["port"]), engine["model"]]
            common.run("systemd-run", "--quiet", "--collect", unit, *argv)
