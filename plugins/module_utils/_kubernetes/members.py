# SPDX-License-Identifier: Apache-2.0
# PRIVATE to the collection: do not import this from outside, it may change without notice.
"""The members of the etcd that kubeadm runs, asked on a control plane. Needs nothing but Python.

Through etcd's own JSON interface (its gRPC gateway, which is on by default), with the API server's client certificate:
etcdctl is in etcd's image only, and a container can't be entered where its runtime is the thing that fails.

Sources: etcd's API reference (v3 gRPC gateway, Cluster and Maintenance), its guide on health checks.
"""

from __future__ import annotations

import http.client
import json
import ssl
import urllib.parse
from collections.abc import Mapping, Sequence
from typing import Any

from ansible_collections.gpufleet.metal.plugins.module_utils._errors import FleetError

CLIENT_PORT = 2379
_PKI = "etc/kubernetes/pki"
_TIMEOUT_SECONDS = 10
Member = dict[str, Any]


class EtcdError(FleetError):
    """etcd did not do what it was asked for."""


def client_context(path_of: Any) -> ssl.SSLContext:
    """Return how etcd is spoken with; ``path_of`` says where a file of the host lies."""
    try:
        context = ssl.create_default_context(cafile=path_of(f"{_PKI}/etcd/ca.crt"))
        context.load_cert_chain(
            path_of(f"{_PKI}/apiserver-etcd-client.crt"), path_of(f"{_PKI}/apiserver-etcd-client.key")
        )
    except (OSError, ssl.SSLError) as fault:
        raise EtcdError(f"the API server's certificate for etcd in /{_PKI} cannot be used: {fault}") from fault
    return context


def read_members(answer: Mapping[str, Any]) -> list[Member]:
    """Return what etcd says of its members. Numbers of 64 bits are text in its JSON, and what is false is left out."""
    return [
        {
            "id": str(member["ID"]),
            "name": str(member.get("name", "")),
            "peer_urls": list(member.get("peerURLs") or []),
            "client_urls": list(member.get("clientURLs") or []),
            "learner": bool(member.get("isLearner", False)),
        }
        for member in answer.get("members") or []
    ]


def removal_faults(members: Sequence[Member], name: str) -> list[str]:
    """Return why a member is not removed: the others must be able to go on without it.

    ``members`` have ``healthy`` and ``answer``, too.
    """
    mine = [member for member in members if member["name"] == name]
    others = [member for member in members if member["name"] != name]
    found = [
        f"the etcd member {name} is healthy: its host is not lost, so take it out with reset_kubernetes_node"
        for member in mine
        if member["healthy"]
    ]
    if mine and not others:
        found.append(f"{name} is etcd's only member: with it the cluster ends; restore a snapshot instead")
    found += [
        f"the etcd member {member['name'] or member['peer_urls']} is not healthy either ({member['answer']}): "
        f"with another one removed etcd could lose its majority; mend it first"
        for member in others
        if mine and not member["healthy"]
    ]
    return found


class Members:
    """etcd, by the member of this host or another one."""

    def __init__(self, context: ssl.SSLContext, server: str = f"https://127.0.0.1:{CLIENT_PORT}") -> None:
        self._context = context
        self.server = server

    def _connection(self, host: str, port: int) -> http.client.HTTPConnection:
        return http.client.HTTPSConnection(host, port, context=self._context, timeout=_TIMEOUT_SECONDS)

    def _ask(self, server: str, method: str, path: str, body: Mapping[str, Any] | None = None) -> dict[str, Any]:
        parts = urllib.parse.urlsplit(server)
        connection = self._connection(parts.hostname or "", parts.port or CLIENT_PORT)
        try:
            connection.request(method, path, None if body is None else json.dumps(body))
            answer = connection.getresponse()
            text = answer.read().decode("utf-8", "replace")
        except (OSError, http.client.HTTPException) as fault:
            raise EtcdError(f"etcd at {server} gives no answer: {fault}") from fault
        finally:
            connection.close()
        try:
            found = json.loads(text)
        except ValueError:
            found = None
        if answer.status != 200 or not isinstance(found, dict):
            words = found if isinstance(found, dict) else {}
            said = words.get("message") or words.get("error") or words.get("reason") or text[:200]
            raise EtcdError(f"etcd at {server} answers {answer.status} to {path}: {said}")
        return found

    def health(self, server: str) -> str:
        """Return ok, or what is wrong with a member."""
        try:
            answer = self._ask(server, "GET", "/health")
        except EtcdError as fault:
            return str(fault)
        return "ok" if str(answer.get("health")).lower() == "true" else str(answer.get("reason") or "not healthy")

    def members(self) -> list[Member]:
        """Return the members, with what each of them answers."""
        found = read_members(self._ask(self.server, "POST", "/v3/cluster/member/list", {}))
        for member in found:
            urls = member["client_urls"]
            member["answer"] = self.health(urls[0]) if urls else "it has not started"
            member["healthy"] = member["answer"] == "ok"
        return found

    def alarms(self) -> list[str]:
        """Return the alarms that stand, such as NOSPACE."""
        answer = self._ask(self.server, "POST", "/v3/maintenance/alarm", {"action": "GET"})
        return sorted({str(alarm.get("alarm", "NONE")) for alarm in answer.get("alarms") or []})

    def remove(self, name: str) -> bool:
        """Remove the member of a host that is lost; returns whether there was one. Raises EtcdError."""
        members = self.members()
        mine = [member for member in members if member["name"] == name]
        if not mine:
            return False
        faults = removal_faults(members, name)
        if faults:
            raise EtcdError("; ".join(faults))
        self._ask(self.server, "POST", "/v3/cluster/member/remove", {"ID": mine[0]["id"]})
        return True
