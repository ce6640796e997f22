# SPDX-License-Identifier: Apache-2.0
"""Secrets brought under one key: what lies in etcd counts, and no API server's word; others may interfere."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import pytest

from ansible_collections.gpufleet.metal.plugins.module_utils._errors import FleetError
from ansible_collections.gpufleet.metal.plugins.module_utils._kubernetes import encryption, etcd
from ansible_collections.gpufleet.metal.plugins.module_utils._kubernetes.api import ApiError
from ansible_collections.gpufleet.metal.plugins.module_utils._kubernetes.kubeadm import key_name
from ansible_collections.gpufleet.metal.plugins.modules.kubernetes_encryption import act

OLD, NEW = (base64.b64encode(bytes([number]) * 32).decode() for number in (1, 2))


@pytest.mark.parametrize(
    ("value", "key"),
    [
        (b"k8s:enc:secretbox:v1:key-0123456789ab:\x00\xff", "key-0123456789ab"),
        (b"k8s:enc:aescbc:v1:key1:abc", "key1"),
        (b"k8s:enc:aesgcm:v1:key1:abc", "key1"),
        (b"k8s:enc:kms:v2:provider:abc", "provider"),
        (b"k8s\x00\n\x0c\n\x02v1", etcd.PLAIN),
        (b'{"kind":"Secret"}', etcd.PLAIN),
        (b"k8s:enc:secretbox:v1:", etcd.UNKNOWN),
        (b"", etcd.UNKNOWN),
    ],
)
def test_key_of(value: bytes, key: str) -> None:
    assert etcd.key_of(value) == key


@pytest.mark.parametrize(("prefix", "end"), [(b"/a/", b"/a0"), (b"a\xff", b"b"), (b"\xff", b"\x00"), (b"", b"\x00")])
def test_end_of(prefix: bytes, end: bytes) -> None:
    assert etcd.end_of(prefix) == end


@pytest.mark.parametrize(
    "key", ["/registry/secrets/a", "/registry/secrets//b", "/registry/secrets/a/b/c", "/other/a/b"]
)
def test_a_key_that_is_no_secret(key: str) -> None:
    with pytest.raises(FleetError, match="wanted /registry/secrets/NAMESPACE/NAME"):
        etcd.name_of(key)


class Answer:
    def __init__(self, body: Any, status: int = 200) -> None:
        self.status = status
        self.body = body

    def read(self) -> bytes:
        return json.dumps(self.body).encode()


class Gateway:
    """etcd's JSON, for a store of keys."""

    def __init__(self, content: dict[bytes, bytes], status: int = 200) -> None:
        self.content = content
        self.status = status
        self.asked: list[dict[str, Any]] = []

    def request(self, method: str, path: str, body: str, headers: dict[str, str]) -> None:
        assert (method, path) == ("POST", "/v3/kv/range")
        self.asked.append(json.loads(body))

    def getresponse(self) -> Answer:
        told = self.asked[-1]
        start, end = base64.b64decode(told["key"]), base64.b64decode(told["range_end"])
        found = sorted(key for key in self.content if start <= key < end)
        shown = [
            {"key": base64.b64encode(key).decode(), "value": base64.b64encode(self.content[key]).decode()}
            for key in found[: told["limit"]]
        ]
        return Answer({"header": {"revision": "77"}, "kvs": shown, "more": len(found) > told["limit"]}, self.status)

    def close(self) -> None:
        """Nothing."""


def member(gateway: Gateway) -> etcd.Etcd:
    found = etcd.Etcd.__new__(etcd.Etcd)
    found.endpoint = "https://127.0.0.1:2379"
    found._connection = gateway  # type: ignore[assignment]
    return found


def test_values_are_of_one_revision_whatever_their_number() -> None:
    content = {f"/registry/secrets/a/{number:03}".encode(): b"v" for number in range(120)}
    gateway = Gateway({**content, b"/registry/secretz": b"other"})
    assert dict(member(gateway).values(etcd.SECRETS)) == {key.decode(): value for key, value in content.items()}
    assert [body["revision"] for body in gateway.asked] == ["0", "77", "77"]


def test_an_etcd_that_refuses() -> None:
    with pytest.raises(FleetError, match=r"etcd at https://127\.0\.0\.1:2379 answers 401"):
        list(member(Gateway({}, 401)).values(etcd.SECRETS))


class Cluster:
    """An API server and its etcd. ``before`` is called before each request, and may interfere."""

    def __init__(self, keys: list[str]) -> None:
        self.keys = keys
        self.secrets: dict[str, tuple[str, dict[str, Any], int]] = {}
        self.revision = 0
        self.metrics = ""
        self.before: Callable[[str, str], None] = lambda method, path: None
        self.writes = 0

    def put(self, namespace: str, name: str, key: str, data: str = "v") -> None:
        self.revision += 1
        body = {"kind": "Secret", "metadata": {"name": name, "namespace": namespace}, "data": data}
        self.secrets[f"{namespace}/{name}"] = (key, body, self.revision)

    def values(self, prefix: str) -> Iterable[tuple[str, bytes]]:
        for name, (key, __, ___) in sorted(self.secrets.items()):
            path = etcd.SECRETS + name
            if path.startswith(prefix):
                yield path, f"k8s:enc:secretbox:v1:{key_name(key)}:".encode() if key else b"k8s\x00"

    def text(self, path: str) -> str:
        assert path == "/metrics"
        return self.metrics

    def request(
        self, method: str, path: str, query: Mapping[str, str] | None = None, body: Any = None, content_type: str = ""
    ) -> dict[str, Any]:
        self.before(method, path)
        words = path.split("/")
        name = f"{words[4]}/{words[6] if len(words) > 6 else body['metadata']['name']}"
        if method == "POST":
            self.put(words[4], body["metadata"]["name"], self.keys[0])
            return {}
        if name not in self.secrets:
            raise ApiError("not found", 404)
        key, found, revision = self.secrets[name]
        if key and key not in self.keys:
            raise ApiError("Internal error occurred: no matching key was found", 500)
        if method == "DELETE":
            del self.secrets[name]
        if method == "PUT":
            if body["metadata"]["resourceVersion"] != str(revision):
                raise ApiError("the object has been modified", 409)
            self.writes += 1
            self.put(words[4], words[6], self.keys[0], body["data"])
        return {**found, "metadata": {**found["metadata"], "resourceVersion": str(revision)}}


@pytest.fixture
def cluster() -> Cluster:
    found = Cluster([NEW, OLD])
    for number in range(5):
        found.put("default", f"s-{number}", OLD, f"data-{number}")
    found.put("default", "new", NEW)
    found.put("kube-system", "plain", "")
    return found


def test_every_secret_comes_under_the_new_key_with_its_content(cluster: Cluster) -> None:
    before = {name: body["data"] for name, (__, body, ___) in cluster.secrets.items()}
    result = act(cluster, cluster, {"action": "written", "keys": [NEW, OLD]}, b"", check_mode=False)
    assert result == {"changed": True, "rewritten": 6, "secrets": 7}
    assert {name: body["data"] for name, (__, body, ___) in cluster.secrets.items()} == before
    assert {key for key, __, ___ in cluster.secrets.values()} == {NEW}
    again = act(cluster, cluster, {"action": "written", "keys": [NEW]}, b"", check_mode=False)
    assert again == {"changed": False, "rewritten": 0, "secrets": 7}


def test_check_mode_writes_nothing(cluster: Cluster) -> None:
    options = {"action": "written", "keys": [NEW, OLD]}
    assert act(cluster, cluster, options, b"", check_mode=True) == {"changed": True, "rewritten": 6}
    assert cluster.writes == 0


def test_a_change_of_somebody_else_is_not_lost(cluster: Cluster) -> None:
    changed: list[str] = []

    def interfere(method: str, path: str) -> None:
        if method == "PUT" and path.endswith("s-3") and len(changed) < 3:
            changed.append(path)
            cluster.put("default", "s-3", NEW, f"theirs-{len(changed)}")

    cluster.before = interfere
    encryption.rewrite(cluster, cluster, key_name(NEW))
    assert cluster.secrets["default/s-3"][1]["data"] == "theirs-3"


def test_a_secret_that_is_deleted_meanwhile(cluster: Cluster) -> None:
    def interfere(method: str, path: str) -> None:
        if path.endswith("s-2"):
            cluster.secrets.pop("default/s-2", None)

    cluster.before = interfere
    assert encryption.rewrite(cluster, cluster, key_name(NEW)) == 5
    assert encryption.prove(cluster, cluster, key_name(NEW)) == 6


def test_an_api_server_that_writes_with_the_old_key(cluster: Cluster) -> None:
    cluster.keys = [OLD, NEW]
    with pytest.raises(FleetError) as caught:
        encryption.rewrite(cluster, cluster, key_name(NEW))
    assert str(caught.value) == (
        f"Secrets are still written with other keys after 8 rounds (6 with {key_name(OLD)}), wanted {key_name(NEW)} "
        f"alone: does every API server use it?"
    )
    with pytest.raises(FleetError, match=f"the API server wrote a Secret with the key {key_name(OLD)}"):
        encryption.probe(cluster, cluster, key_name(NEW), "0")
    assert not [name for name in cluster.secrets if "probe" in name]


def test_a_secret_that_nobody_can_read(cluster: Cluster) -> None:
    cluster.keys = [NEW]
    with pytest.raises(FleetError, match="Secret default/s-0: Internal error occurred: no matching key was found"):
        encryption.rewrite(cluster, cluster, key_name(NEW))


class KilledError(BaseException):
    """SIGKILL, as near as a test comes."""


@pytest.mark.parametrize("steps", range(1, 20))
def test_a_rewrite_that_is_killed_goes_on(cluster: Cluster, steps: int) -> None:
    left = [steps]

    def kill(method: str, path: str) -> None:
        left[0] -= 1
        if left[0] == 0:
            raise KilledError

    before = {name: body["data"] for name, (__, body, ___) in cluster.secrets.items()}
    cluster.before = kill
    try:
        encryption.rewrite(cluster, cluster, key_name(NEW))
        encryption.prove(cluster, cluster, key_name(NEW))
    except KilledError:
        cluster.before = lambda method, path: None
        encryption.rewrite(cluster, cluster, key_name(NEW))
    assert encryption.prove(cluster, cluster, key_name(NEW)) == 7
    assert {name: body["data"] for name, (__, body, ___) in cluster.secrets.items()} == before


INFO = "apiserver_encryption_config_controller_last_config_info"
DIGEST = hashlib.sha256(b"configuration").hexdigest()


@pytest.mark.parametrize(
    ("metrics", "loaded"),
    [
        (f'{INFO}{{apiserver_id_hash="sha256:1",hash="sha256:{DIGEST}"}} 1\n', True),
        (f'{INFO}{{hash="{DIGEST}",apiserver_id_hash="sha256:1"}} 1\n', True),
        (f'{INFO}{{apiserver_id_hash="sha256:{DIGEST}",hash="sha256:0"}} 1\n', False),
        (f'{INFO}{{apiserver_id_hash="sha256:1",hash="sha256:{DIGEST}"}} 0\n', False),
        ("", False),
    ],
)
def test_has_loaded(metrics: str, loaded: bool) -> None:
    assert encryption.has_loaded(metrics, DIGEST) is loaded


def test_waits_until_the_api_server_has_loaded_it(cluster: Cluster) -> None:
    cluster.metrics = f'{INFO}{{apiserver_id_hash="a",hash="sha256:0"}} 1\n'
    now = [0.0]

    def sleep(seconds: float) -> None:
        now[0] += seconds
        if now[0] > 60:
            cluster.metrics = f'{INFO}{{apiserver_id_hash="a",hash="sha256:{DIGEST}"}} 1\n'

    encryption.wait_loaded(cluster, b"configuration", 180, sleep, lambda: now[0])
    assert 60 < now[0] < 70
    failed = "apiserver_encryption_config_controller_automatic_reloads_total"
    cluster.metrics = (
        f'{INFO}{{hash="sha256:0"}} 1\n{failed}{{apiserver_id_hash="a",status="failure"}} 2\n'
        f'{failed}{{apiserver_id_hash="a",status="success"}} 5\n'
    )
    with pytest.raises(FleetError) as caught:
        encryption.wait_loaded(
            cluster, b"other", 10, lambda seconds: now.__setitem__(0, now[0] + seconds), lambda: now[0]
        )
    assert "has loaded sha256:0, and failed to load one 2 times after 10 s, wanted" in str(caught.value)


def test_a_cluster_that_was_made_without_keys(cluster: Cluster) -> None:
    with pytest.raises(FleetError, match="runs without an encryption configuration"):
        encryption.wait_loaded(cluster, b"configuration", 180)
