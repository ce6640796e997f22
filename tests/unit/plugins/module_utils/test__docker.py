# SPDX-License-Identifier: Apache-2.0
"""References, stream framing, credentials, and the client against a real Unix socket."""

from __future__ import annotations

import base64
import contextlib
import io
import json
import socketserver
import struct
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.gpufleet.metal.plugins.module_utils import _docker
from ansible_collections.gpufleet.metal.plugins.module_utils._errors import InvalidInputError

DIGEST = "sha256:" + "a" * 64


@pytest.mark.parametrize(
    ("text", "repository", "tag", "digest", "registry", "lookup"),
    [
        ("vllm/vllm-openai:v0.32.0", "vllm/vllm-openai", "v0.32.0", None, "docker.io", "vllm/vllm-openai:v0.32.0"),
        ("debian", "debian", None, None, "docker.io", "debian:latest"),
        (f"debian:13@{DIGEST}", "debian", "13", DIGEST, "docker.io", f"debian@{DIGEST}"),
        (
            f"registry.example.org:5000/a/b@{DIGEST}",
            "registry.example.org:5000/a/b",
            None,
            DIGEST,
            "registry.example.org:5000",
            f"registry.example.org:5000/a/b@{DIGEST}",
        ),
        ("localhost/x:1", "localhost/x", "1", None, "localhost", "localhost/x:1"),
    ],
)
def test_references(
    text: str, repository: str, tag: str | None, digest: str | None, registry: str, lookup: str
) -> None:
    found = _docker.parse_reference(text)
    assert (found.repository, found.tag, found.digest) == (repository, tag, digest)
    assert (found.registry, found.lookup_name) == (registry, lookup)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "image reference '': wanted [registry/]repository[:tag][@sha256:...]"),
        ("a b", "image reference 'a b': wanted [registry/]repository[:tag][@sha256:...]"),
        ("a@sha256:12", "image reference 'a@sha256:12': the digest is 'sha256:12', wanted sha256: and 64 hex digits"),
    ],
)
def test_what_is_no_reference(text: str, message: str) -> None:
    with pytest.raises(InvalidInputError) as raised:
        _docker.parse_reference(text)
    assert str(raised.value) == message


def frame(stream: int, text: bytes) -> bytes:
    """One frame of a container's output."""
    return bytes([stream, 0, 0, 0]) + struct.pack(">I", len(text)) + text


def test_demultiplex() -> None:
    assert _docker.demultiplex(frame(1, b"out\n") + frame(2, b"err\n")) == b"out\nerr\n"
    assert _docker.demultiplex(b"a terminal's output\n") == b"a terminal's output\n"
    assert _docker.demultiplex(b"") == b""


def test_registry_credentials(tmp_path: Path) -> None:
    config = tmp_path / "config.json"
    assert _docker.registry_credentials("r.example.org", str(config)) is None
    packed = base64.b64encode(b"me:s:ecret").decode()
    config.write_text(json.dumps({"auths": {"r.example.org": {"auth": packed}, "https://index.docker.io/v1/": {}}}))
    assert _docker.registry_credentials("r.example.org", str(config)) == {
        "username": "me",
        "password": "s:ecret",
        "serveraddress": "r.example.org",
    }
    assert _docker.registry_credentials("docker.io", str(config)) is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "{]",
            "{path} isn't JSON (Expecting property name enclosed in double quotes: line 1 column 2 (char 1)): correct "
            "it, or log in to the registry again",
        ),
        ("[]", "{path} isn't a Docker client's configuration: wanted an object with auths"),
        ('{"auths": []}', None),
        ('{"auths": ["r"]}', "{path} isn't a Docker client's configuration: wanted an object with auths"),
        (
            '{"auths": {"r.example.org": {}}, "credsStore": "pass"}',
            "{path} leaves the credentials of r.example.org to the helper 'pass' (credsStore), which is not asked "
            "here: remove credsStore from the file and log in again, so that the file holds them",
        ),
        (
            '{"credHelpers": {"r.example.org": "ecr-login"}}',
            "{path} leaves the credentials of r.example.org to the helper 'ecr-login' (credHelpers[r.example.org]), "
            "which is not asked here: remove credHelpers[r.example.org] from the file and log in again, so that "
            "the file holds them",
        ),
        # Nobody logged in to this registry: it is asked without credentials, as Docker's own client does.
        ('{"auths": {"other.example.org": {}}, "credsStore": "pass"}', None),
        ('{"auths": {"r.example.org": {}}}', None),
        (
            '{"auths": {"r.example.org": {"auth": "c2VjcmV0"}}}',
            "{path}: auths[r.example.org].auth isn't base64 of user:password, as docker login writes it",
        ),
        (
            '{"auths": {"r.example.org": {"auth": "me:secret"}}}',
            "{path}: auths[r.example.org].auth isn't base64 of user:password, as docker login writes it",
        ),
    ],
)
def test_credentials_that_cannot_be_used(tmp_path: Path, text: str, message: str | None) -> None:
    path = tmp_path / "config.json"
    path.write_text(text)
    if message is None:
        assert _docker.registry_credentials("r.example.org", str(path)) is None
        return
    with pytest.raises(InvalidInputError) as raised:
        _docker.registry_credentials("r.example.org", str(path))
    assert str(raised.value) == message.replace("{path}", str(path))


class Handler(BaseHTTPRequestHandler):
    """Answers from a table: (method, path without query) -> (status, body)."""

    table: dict[tuple[str, str], tuple[int, bytes]]
    seen: list[tuple[str, dict[str, str], bytes]]

    def address_string(self) -> str:
        """A Unix socket's client has no address."""
        return "-"

    def log_message(self, *args: Any) -> None:
        """Say nothing."""

    def answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.seen.append((f"{self.command} {self.path}", dict(self.headers), body))
        path = self.path.partition("?")[0].removeprefix("/v1.41")
        status, content = self.table.get((self.command, path), (404, b'{"message": "no such thing"}'))
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


@contextlib.contextmanager
def engine(tmp_path: Path, table: dict[tuple[str, str], tuple[int, bytes]]) -> Iterator[tuple[str, Any]]:
    """An engine on a Unix socket."""
    methods = {"do_GET": Handler.answer, "do_POST": Handler.answer}
    handler = type("H", (Handler,), {"table": table, "seen": [], **methods})
    path = str(tmp_path / "d.sock")
    server = socketserver.ThreadingUnixStreamServer(path, handler)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    try:
        yield path, handler
    finally:
        server.shutdown()
        server.server_close()


def test_the_client(tmp_path: Path) -> None:
    events = b"".join(
        json.dumps({"time": at, "Actor": {"Attributes": {"exitCode": str(code)}}}).encode() + b"\n"
        for at, code in ((10, 1), (20, 137))
    )
    table = {
        ("GET", "/version"): (200, b'{"Version": "20.10.24"}'),
        ("GET", "/images/debian:13/json"): (200, b'{"Id": "sha256:1"}'),
        ("GET", "/containers/json"): (200, b'[{"Names": ["/a"]}]'),
        ("GET", "/containers/a/json"): (200, b'{"Id": "1"}'),
        ("GET", "/containers/a/logs"): (200, frame(1, b"one\n") + frame(2, b"two\n")),
        ("GET", "/events"): (200, events),
        ("POST", "/images/load"): (200, b'{"stream": "Loaded image: debian:13\\nLoaded image ID: sha256:1\\n"}\n'),
        ("POST", "/images/create"): (200, b'{"status": "Pulling"}\n{"status": "Done"}\n'),
    }
    with engine(tmp_path, table) as (path, handler):
        client = _docker.DockerClient(path)
        assert client.version()["Version"] == "20.10.24"
        assert client.image("debian:13") == {"Id": "sha256:1"}
        assert client.image("other:1") is None
        assert client.container("a") == {"Id": "1"}
        assert client.container("b") is None
        assert client.containers() == [{"Names": ["/a"]}]
        assert client.logs("a", 10, until=30) == ["one", "two"]
        assert client.exits("a", 1, 30) == [(10, 1), (20, 137)]
        assert client.load(io.BytesIO(b"tar"), 3) == ["debian:13", "sha256:1"]
        assert handler.seen[-1][2] == b"tar"
        client.pull(_docker.parse_reference(f"r.example.org/x:1@{DIGEST}"), {"username": "u", "password": "p"})
        request, headers, _unused = handler.seen[-1]
        assert request.endswith(f"fromImage=r.example.org%2Fx&tag=sha256%3A{'a' * 64}")
        assert json.loads(base64.urlsafe_b64decode(headers["X-Registry-Auth"])) == {"username": "u", "password": "p"}


@pytest.mark.parametrize(
    ("answered", "said", "status"),
    [
        (200, "", 200),
        (401, "unauthorized", 401),
        (500, "login attempt to http://r.example.org/v2/ failed with status: 401 Unauthorized", 401),
        (500, "login attempt to http://r.example.org/v2/ failed with status: 503 Service Unavailable", 500),
        (500, "dial tcp: connection refused", 500),
    ],
)
def test_a_login_is_tried_and_not_stored(tmp_path: Path, answered: int, said: str, status: int) -> None:
    table = {("POST", "/auth"): (answered, json.dumps({"message": said}).encode())}
    with engine(tmp_path, table) as (path, handler):
        login = {"username": "u", "password": "p", "serveraddress": "r.example.org"}
        assert _docker.DockerClient(path).login_status(login)[0] == status
        request, headers, body = handler.seen[-1]
        assert (request, headers["Content-Type"], json.loads(body)) == ("POST /v1.41/auth", "application/json", login)


LOGIN = {"registry": "r.example.org", "username": "pull", "password": "canary:1"}
PACKED = base64.b64encode(b"pull:canary:1").decode()


@pytest.mark.parametrize(
    ("config", "auths"),
    [
        ({}, {"r.example.org": {"auth": PACKED}}),
        ({"auths": {"r.example.org": {"auth": "old"}}}, {"r.example.org": {"auth": PACKED}}),
        (
            {"auths": {"other": {"auth": "x"}}, "credHelpers": {"another": "h"}},
            {"other": {"auth": "x"}, "r.example.org": {"auth": PACKED}},
        ),
    ],
)
def test_logins_are_stored_beside_what_is_there(config: dict[str, Any], auths: dict[str, Any]) -> None:
    assert _docker.with_logins(config, [LOGIN], "c.json") == {**config, "auths": auths}


@pytest.mark.parametrize(
    ("config", "change", "message"),
    [
        (
            {"credHelpers": {"r.example.org": "h"}},
            {},
            "c.json leaves the credentials of r.example.org to a helper (credHelpers[r.example.org]), wanted none: "
            "remove credHelpers[r.example.org] from the file, or leave r.example.org out of docker_registry_logins",
        ),
        (
            {"credsStore": "h"},
            {},
            "c.json leaves the credentials of r.example.org to a helper (credsStore), wanted none: remove credsStore "
            "from the file, or leave r.example.org out of docker_registry_logins",
        ),
        (
            {},
            {"username": "a:b"},
            "docker_registry_logins: the username for r.example.org is 'a:b', wanted one without ':'",
        ),
    ],
)
def test_a_login_that_would_not_be_used(config: dict[str, Any], change: dict[str, str], message: str) -> None:
    with pytest.raises(InvalidInputError) as caught:
        _docker.with_logins(config, [{**LOGIN, **change}], "c.json")
    assert str(caught.value) == message


def test_refusals(tmp_path: Path) -> None:
    table = {
        ("POST", "/images/create"): (200, b'{"status": "Pulling"}\n{"error": "manifest unknown"}\n'),
        ("POST", "/images/load"): (500, b'{"message": "invalid tar"}'),
        ("GET", "/version"): (500, b"oops"),
    }
    with engine(tmp_path, table) as (path, _unused):
        client = _docker.DockerClient(path)
        with pytest.raises(_docker.DockerError, match=r"^the Docker engine couldn't pull x:1: manifest unknown$"):
            client.pull(_docker.parse_reference("x:1"))
        with pytest.raises(_docker.DockerError, match=r"^the Docker engine refused to load the archive: invalid tar$"):
            client.load(io.BytesIO(b""), 0)
        with pytest.raises(_docker.DockerError, match=r"^the Docker engine answered 500 to GET /version: oops$"):
            client.version()


def test_no_engine(tmp_path: Path) -> None:
    path = str(tmp_path / "none.sock")
    with pytest.raises(_docker.DockerUnavailableError) as raised:
        _docker.DockerClient(path).version()
    assert str(raised.value) == (
        f"the Docker engine doesn't answer on {path} ([Errno 2] No such file or directory): "
        "is the service 'docker' running?"
    )
