# SPDX-License-Identifier: Apache-2.0
"""What is asked of etcd, over a real connection, and which member is never removed."""

from __future__ import annotations

import http.server
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.gpufleet.metal.plugins.module_utils._kubernetes import members


class Etcd(http.server.BaseHTTPRequestHandler):
    """Answers as etcd's gRPC gateway does: numbers of 64 bits are text, what is false is left out."""

    ill: tuple[str, ...] = ()
    asked: tuple[tuple[str, str], ...] = ()

    def log_message(self, *arguments: Any) -> None:
        """Nothing."""

    def reply(self, status: int, document: Any) -> None:
        self.send_response(status)
        self.end_headers()
        self.wfile.write(json.dumps(document).encode())

    def do_GET(self) -> None:
        self.reply(*((503, {"health": "false", "reason": "no leader"}) if self.ill else (200, {"health": "true"})))

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        type(self).asked = (*self.asked, (self.path, body))
        own = f"http://127.0.0.1:{self.server.server_address[1]}"
        if self.path == "/v3/cluster/member/list":
            names = [("9", "cp-1", "http://127.0.0.1:1"), ("10", "cp-2", own), ("11", "cp-3", own)]
            found = [{"ID": number, "name": name, "clientURLs": [url]} for number, name, url in names]
            self.reply(200, {"header": {}, "members": found})
        elif self.path == "/v3/maintenance/alarm":
            self.reply(200, {"alarms": [{"memberID": "9", "alarm": "NOSPACE"}]})
        elif json.loads(body) == {"ID": "9"}:
            self.reply(200, {})
        else:
            self.reply(404, {"error": "etcdserver: member not found", "code": 5})


class Plain(members.Members):
    """Without TLS: what is said is looked at here."""

    def _connection(self, host: str, port: int) -> Any:
        return members.http.client.HTTPConnection(host, port, timeout=5)


@pytest.fixture
def etcd() -> Iterator[members.Members]:
    Etcd.ill, Etcd.asked = (), ()
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Etcd)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield Plain(None, f"http://127.0.0.1:{server.server_address[1]}")  # type: ignore[arg-type]
    server.shutdown()
    server.server_close()


def test_members_and_alarms(etcd: members.Members) -> None:
    found = etcd.members()
    assert [(member["name"], member["id"], member["healthy"], member["learner"]) for member in found] == [
        ("cp-1", "9", False, False),
        ("cp-2", "10", True, False),
        ("cp-3", "11", True, False),
    ]
    assert found[0]["answer"].startswith("etcd at http://127.0.0.1:1 gives no answer: ")
    assert etcd.alarms() == ["NOSPACE"]


def test_a_lost_member_is_removed(etcd: members.Members) -> None:
    assert etcd.remove("cp-1")
    assert Etcd.asked[-1] == ("/v3/cluster/member/remove", '{"ID": "9"}')
    assert not etcd.remove("cp-9")


def test_a_member_that_is_well_is_not_removed(etcd: members.Members) -> None:
    with pytest.raises(members.EtcdError) as caught:
        etcd.remove("cp-2")
    assert str(caught.value).startswith(
        "the etcd member cp-2 is healthy: its host is not lost, so take it out with reset_kubernetes_node; the etcd "
        "member "
        "cp-1 is not healthy either (etcd at http://127.0.0.1:1 gives no answer: "
    )


def test_what_etcd_refuses_is_said(etcd: members.Members) -> None:
    Etcd.ill = ("all",)
    assert etcd.health(etcd.server) == f"etcd at {etcd.server} answers 503 to /health: no leader"


def test_the_only_member_is_never_removed() -> None:
    only = [{"name": "cp-1", "healthy": False, "answer": "nothing", "peer_urls": []}]
    assert members.removal_faults(only, "cp-1") == [
        "cp-1 is etcd's only member: with it the cluster ends; restore a snapshot instead"
    ]
    assert members.removal_faults(only, "cp-2") == []


def test_a_host_without_certificates(tmp_path: Path) -> None:
    with pytest.raises(
        members.EtcdError, match=r"^the API server's certificate for etcd in /etc/kubernetes/pki cannot "
    ):
        members.client_context(lambda name: str(tmp_path / name))
