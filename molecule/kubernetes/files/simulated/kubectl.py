# SPDX-License-Identifier: Apache-2.0
"""A stand-in for kubectl: the few commands that the role uses, with the credentials of a kubeconfig."""

from __future__ import annotations

import json
import time
from pathlib import Path

import common
import yaml
from common import SimulatedError

VALUED = (
    "--kubeconfig",
    "--namespace",
    "--output",
    "--request-timeout",
    "--timeout",
    "--raw",
    "--server",
    "--selector",
)
VIEW = "config view --kubeconfig {} --raw --minify --flatten --output json"
SWITCHES = ("--ignore-not-found", "--ignore-daemonsets", "--delete-emptydir-data")


def drain(client: common.Client, name: str) -> None:
    """Evict the pods, and wait until they have ended; the engines of a scenario that has some."""
    client.call("drain", name=name)
    end = time.monotonic() + 60
    while found := client.call("running_engines", name=name):
        if time.monotonic() > end:
            raise SimulatedError(f"global timeout reached: pods {sorted(found)} have not ended")
        time.sleep(0.2)


def main(argv: list[str]) -> None:
    """Do what is asked for."""
    if argv[:2] == ["config", "view"] and " ".join(argv) == VIEW.format(argv[3]):
        print(json.dumps(yaml.safe_load(Path(argv[3]).read_text(encoding="utf-8"))))
        return
    given: dict[str, str] = {}
    words = []
    rest = iter(argv)
    for argument in rest:
        name, equals, value = argument.partition("=")
        if name in SWITCHES:
            given[name] = "true"
        elif name in VALUED:
            given[name] = value if equals else next(rest)
        elif argument.startswith("-"):
            raise SimulatedError(f"unknown flag: {name}")
        else:
            words.append(argument)
    if "--kubeconfig" not in given:
        raise SimulatedError("stand-in: wanted --kubeconfig")
    client = common.Client(Path(given["--kubeconfig"]))
    client.server = given.get("--server", client.server)
    json_wanted = given.get("--output") == "json"
    in_system = given.get("--namespace") == "kube-system"
    if words == ["get"] and "--raw" in given:
        print(client.raw(given["--raw"]), end="")
    elif words[:2] == ["get", "node"] and len(words) == 3:
        print(json.dumps(client.call("get_node", name=words[2])))
    elif words == ["get", "nodes"] and json_wanted:
        print(json.dumps({"items": [client.call("get_node", name=name) for name in client.call("list_nodes")]}))
    elif words == ["get", "pods"] and json_wanted and in_system and given.get("--selector") == "tier=control-plane":
        print(json.dumps({"items": client.call("list_pods")}))
    elif words == ["get", "configmap", "kubeadm-config"] and json_wanted and in_system:
        print(json.dumps({"data": {"ClusterConfiguration": client.call("get_configuration")}}))
    elif words[:1] == ["uncordon"] and len(words) == 2:
        client.call("uncordon", name=words[1])
    elif words == ["get", "nodes"]:
        print("\n".join(client.call("list_nodes")))
    elif words == ["get", "certificatesigningrequests"] and json_wanted:
        print(json.dumps({"items": client.call("list_requests")}))
    elif words[:2] == ["certificate", "approve"] and len(words) == 3:
        client.call("approve", identity=words[2])
    elif words[:1] == ["drain"] and len(words) == 2:
        if "--ignore-daemonsets" not in given:
            raise SimulatedError("cannot delete DaemonSet-managed Pods (use --ignore-daemonsets to ignore)")
        drain(client, words[1])
    elif words[:2] == ["delete", "node"] and len(words) == 3:
        client.call("delete_node", name=words[2])
    elif words == ["delete", "secret", "kubeadm-certs"] and in_system:
        if not client.call("delete_certs") and "--ignore-not-found" not in given:
            raise SimulatedError('Error from server (NotFound): secrets "kubeadm-certs" not found')
    else:
        raise SimulatedError(f"stand-in: kubectl {' '.join(words)} is not simulated")


if __name__ == "__main__":
    common.main(main)
