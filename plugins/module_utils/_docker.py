# SPDX-License-Identifier: Apache-2.0
# PRIVATE to the collection: do not import this from outside, it may change without notice.
"""A small client of the Docker Engine API over its Unix socket, with nothing but the standard library.

Only what the collection's modules need: images (look up, load, pull), containers (look up, logs, last exit) and the
daemon's own state. API version 1.41 (Engine 20.10, Debian 12) is the oldest that is used.
Source of paths and fields: https://docs.docker.com/reference/api/engine/version/v1.41/
"""

from __future__ import annotations

import base64
import http.client
import io
import json
import os
import re
import socket
import struct
import urllib.parse
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, BinaryIO

from ansible_collections.gpufleet.metal.plugins.module_utils._errors import FleetError, InvalidInputError

DEFAULT_SOCKET = "/var/run/docker.sock"
API_VERSION = "v1.41"

_DIGEST = re.compile(r"^sha256:[0-9a-f]{64}$")


class DockerError(FleetError):
    """The engine refused a request, or answered something that can't be used."""


class DockerUnavailableError(DockerError):
    """No engine answers on the socket."""


@dataclass(frozen=True)
class ImageReference:
    """A parsed image reference. ``repository`` includes the registry when one was written."""

    repository: str
    tag: str | None
    digest: str | None

    @property
    def registry(self) -> str:
        """The registry's host (with port); Docker Hub is ``docker.io``."""
        first = self.repository.split("/", 1)[0]
        if "/" in self.repository and ("." in first or ":" in first or first == "localhost"):
            return first
        return "docker.io"

    @property
    def lookup_name(self) -> str:
        """The name by which the engine finds the image: by digest when there is one, else by tag."""
        if self.digest:
            return f"{self.repository}@{self.digest}"
        return f"{self.repository}:{self.tag or 'latest'}"


def parse_reference(text: str) -> ImageReference:
    """Split ``[registry/]repository[:tag][@sha256:...]``; raise InvalidInputError for anything else."""
    rest, _unused, digest = text.partition("@")
    if digest and not _DIGEST.match(digest):
        raise InvalidInputError(f"image reference {text!r}: the digest is {digest!r}, wanted sha256: and 64 hex digits")
    head, _unused, last = rest.rpartition("/")
    name, _unused, tag = last.partition(":")
    if not name or re.search(r"\s", text):
        raise InvalidInputError(f"image reference {text!r}: wanted [registry/]repository[:tag][@sha256:...]")
    return ImageReference(f"{head}/{name}" if head else name, tag or None, digest or None)


class _UnixConnection(http.client.HTTPConnection):
    """An HTTP connection to a Unix socket."""

    def __init__(self, path: str, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout, blocksize=1024 * 1024)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


class DockerClient:
    """Talks to one engine. ``timeout`` is in seconds and bounds one read, not a whole transfer."""

    def __init__(self, socket_path: str = DEFAULT_SOCKET, timeout: float = 60.0) -> None:
        self._socket_path = socket_path
        self._timeout = timeout

    def _open(
        self,
        method: str,
        path: str,
        query: Mapping[str, str] | None = None,
        body: BinaryIO | None = None,
        headers: Mapping[str, str] | None = None,
        timeout: float | None = None,
    ) -> tuple[_UnixConnection, http.client.HTTPResponse]:
        target = f"/{API_VERSION}{path}"
        if query:
            target += "?" + urllib.parse.urlencode(query)
        connection = _UnixConnection(self._socket_path, timeout or self._timeout)
        try:
            connection.request(method, target, body=body, headers=dict(headers or {}))
            return connection, connection.getresponse()
        except (OSError, http.client.HTTPException) as error:
            connection.close()
            raise DockerUnavailableError(
                f"the Docker engine doesn't answer on {self._socket_path} ({error}): is the service 'docker' running?"
            ) from error

    def _json(self, path: str, query: Mapping[str, str] | None = None) -> Any:
        """GET a JSON document; None when the engine says 404."""
        connection, response = self._open("GET", path, query)
        try:
            payload = response.read()
        finally:
            connection.close()
        if response.status == http.client.NOT_FOUND:
            return None
        if response.status >= http.client.BAD_REQUEST:
            raise DockerError(f"the Docker engine answered {response.status} to GET {path}: {_message(payload)}")
        return json.loads(payload) if payload else None

    def version(self) -> dict[str, Any]:
        """The engine's version document."""
        return _mapping(self._json("/version"), "/version")

    def info(self) -> dict[str, Any]:
        """The engine's own state (storage driver, number of running containers, ...)."""
        return _mapping(self._json("/info"), "/info")

    def image(self, name: str) -> dict[str, Any] | None:
        """An image by id, by ``repository@digest`` or by ``repository:tag``; None when the engine lacks it."""
        document = self._json(f"/images/{urllib.parse.quote(name, safe='/:@')}/json")
        return None if document is None else _mapping(document, f"image {name}")

    def container(self, name: str) -> dict[str, Any] | None:
        """A container by name or id; None when there is none."""
        document = self._json(f"/containers/{urllib.parse.quote(name)}/json")
        return None if document is None else _mapping(document, f"container {name}")

    def containers(self, running_only: bool = True) -> list[dict[str, Any]]:
        """All containers, or the running ones."""
        found = self._json("/containers/json", {"all": "false" if running_only else "true"})
        return list(found or [])

    def logs(self, name: str, lines: int, until: int | None = None) -> list[str]:
        """The last ``lines`` lines of a container's output, up to ``until`` (Unix seconds)."""
        query = {"stdout": "true", "stderr": "true", "tail": str(lines)}
        if until is not None:
            query["until"] = str(until)
        connection, response = self._open("GET", f"/containers/{urllib.parse.quote(name)}/logs", query)
        try:
            payload = response.read()
        finally:
            connection.close()
        if response.status != http.client.OK:
            return []
        return demultiplex(payload).decode("utf-8", "replace").splitlines()

    def exits(self, name: str, since: int, until: int) -> list[tuple[int, int]]:
        """When and with which status a container's process ended, as (Unix seconds, exit status), oldest first."""
        filters = json.dumps({"type": ["container"], "container": [name], "event": ["die"]})
        connection, response = self._open(
            "GET", "/events", {"since": str(since), "until": str(until), "filters": filters}
        )
        try:
            payload = response.read()
        finally:
            connection.close()
        ends = []
        for document in _documents(payload.splitlines()):
            attributes = document.get("Actor", {}).get("Attributes", {})
            ends.append((int(document.get("time", until)), int(attributes.get("exitCode", -1))))
        return ends

    def load(self, archive: BinaryIO, length: int) -> list[str]:
        """Load an archive made by ``docker save``; returns the ids and names that the engine reports."""
        connection, response = self._open(
            "POST",
            "/images/load",
            {"quiet": "true"},
            body=archive,
            headers={"Content-Type": "application/x-tar", "Content-Length": str(length)},
            timeout=3600,
        )
        names = []
        try:
            for document in self._progress(response, "load the archive"):
                for line in str(document.get("stream", "")).splitlines():
                    prefix, _unused, name = line.partition(": ")
                    if prefix in ("Loaded image", "Loaded image ID"):
                        names.append(name.strip())
        finally:
            connection.close()
        return names

    def pull(self, reference: ImageReference, credentials: Mapping[str, str] | None = None) -> None:
        """Pull an image from its registry."""
        headers = {}
        if credentials:
            packed = json.dumps(dict(credentials)).encode()
            headers["X-Registry-Auth"] = base64.urlsafe_b64encode(packed).decode()
        query = {"fromImage": reference.repository, "tag": reference.digest or reference.tag or "latest"}
        connection, response = self._open("POST", "/images/create", query, headers=headers, timeout=3600)
        try:
            for _document in self._progress(response, f"pull {reference.lookup_name}"):
                pass
        finally:
            connection.close()

    def login_status(self, credentials: Mapping[str, str]) -> tuple[int, str]:
        """Have the engine log in to a registry, as ``docker login`` does; returns the status and what it says.

        200 is a login that works, 401 one that the registry refuses; anything else means that it could not be asked.
        Nothing is stored. Where a registry asks for a user and a password itself, and not by way of tokens, the engine
        says 500 with the registry's status in its message (moby, registry/auth.go: loginV2).
        """
        body = json.dumps(dict(credentials)).encode()
        headers = {"Content-Type": "application/json", "Content-Length": str(len(body))}
        connection, response = self._open("POST", "/auth", body=io.BytesIO(body), headers=headers)
        try:
            payload = response.read()
        finally:
            connection.close()
        said = _message(payload)
        refused = re.search(r"failed with status: 401\b", said)
        return http.client.UNAUTHORIZED if refused else response.status, said

    @staticmethod
    def _progress(response: http.client.HTTPResponse, doing: str) -> Iterator[dict[str, Any]]:
        if response.status != http.client.OK:
            raise DockerError(f"the Docker engine refused to {doing}: {_message(response.read())}")
        for document in _documents(response):
            if "error" in document:
                raise DockerError(f"the Docker engine couldn't {doing}: {document['error']}")
            yield document


def demultiplex(payload: bytes) -> bytes:
    """Take the engine's stream framing (1 byte stream, 3 zero bytes, 4 bytes length) off a container's output.

    The output of a container with a terminal has no framing and is returned as it is.
    """
    out = bytearray()
    position = 0
    while position + 8 <= len(payload):
        stream, zero, length = (
            payload[position],
            payload[position + 1 : position + 4],
            payload[position + 4 : position + 8],
        )
        if stream not in (0, 1, 2) or zero != b"\0\0\0":
            return payload
        size = struct.unpack(">I", length)[0]
        out += payload[position + 8 : position + 8 + size]
        position += 8 + size
    return bytes(out)


def with_logins(config: Mapping[str, Any], logins: Iterable[Mapping[str, str]], path: str) -> dict[str, Any]:
    """Return a client's configuration in which these logins are stored as ``docker login`` stores them.

    All else is kept. Raises InvalidInputError where a helper would be asked instead of what is stored.
    """
    auths, helpers = dict(config.get("auths") or {}), config.get("credHelpers") or {}
    for login in logins:
        registry = login["registry"]
        if registry in helpers or config.get("credsStore"):
            option = f"credHelpers[{registry}]" if registry in helpers else "credsStore"
            raise InvalidInputError(
                f"{path} leaves the credentials of {registry} to a helper ({option}), wanted none: remove {option} "
                f"from the file, or leave {registry} out of docker_registry_logins"
            )
        if ":" in login["username"] or not login["username"]:
            raise InvalidInputError(
                f"docker_registry_logins: the username for {registry} is {login['username']!r}, wanted one without ':'"
            )
        packed = base64.b64encode(f"{login['username']}:{login['password']}".encode()).decode()
        auths[registry] = {"auth": packed}
    return {**config, "auths": auths}


def read_client_config(path: str) -> dict[str, Any]:
    """Read a client's configuration; empty where there is none. Raises InvalidInputError for what is none."""
    return _client_config(path) if os.path.exists(path) else {}


def registry_credentials(registry: str, config_path: str) -> dict[str, str] | None:
    """What ``docker login`` stored for a registry in a client configuration file; None when there is nothing.

    Only what the file itself holds is used. When a login went into a credential helper, that is an InvalidInputError:
    without it the pull would be refused as if nobody had logged in.
    """
    if not os.path.exists(config_path):
        return None
    config = _client_config(config_path)
    auths, helpers = config.get("auths") or {}, config.get("credHelpers") or {}
    names = [registry, f"https://{registry}", *(["https://index.docker.io/v1/"] if registry == "docker.io" else [])]
    for name in names:
        if name in helpers or (config.get("credsStore") and name in auths and not (auths[name] or {}).get("auth")):
            helper = helpers.get(name) or config["credsStore"]
            option = f"credHelpers[{name}]" if name in helpers else "credsStore"
            raise InvalidInputError(
                f"{config_path} leaves the credentials of {registry} to the helper {helper!r} ({option}), which is not "
                f"asked here: remove {option} from the file and log in again, so that the file holds them"
            )
        packed = (auths.get(name) or {}).get("auth")
        if packed:
            user, colon, password = _unpacked(packed).partition(":")
            if not colon:
                raise InvalidInputError(
                    f"{config_path}: auths[{name}].auth isn't base64 of user:password, as docker login writes it"
                )
            return {"username": user, "password": password, "serveraddress": name}
    return None


def _client_config(path: str) -> dict[str, Any]:
    try:
        with open(path, encoding="utf-8") as stream:
            config = json.load(stream)
    except ValueError as error:
        raise InvalidInputError(f"{path} isn't JSON ({error}): correct it, or log in to the registry again") from error
    parts = [config] if not isinstance(config, dict) else [config.get("auths") or {}, config.get("credHelpers") or {}]
    if not all(isinstance(part, dict) for part in parts):
        raise InvalidInputError(f"{path} isn't a Docker client's configuration: wanted an object with auths")
    return dict(config)


def _unpacked(packed: Any) -> str:
    """The text that is packed in base64; empty when it is none."""
    try:
        return base64.b64decode(str(packed), validate=True).decode()
    except ValueError:
        return ""


def _documents(lines: Iterable[bytes]) -> Iterator[dict[str, Any]]:
    for line in lines:
        if line.strip():
            yield _mapping(json.loads(line), "stream")


def _mapping(value: Any, what: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise DockerError(f"the Docker engine's answer about {what} is {type(value).__name__}, wanted an object")
    return value


def _message(payload: bytes) -> str:
    text = payload.decode("utf-8", "replace").strip()
    try:
        return str(json.loads(text).get("message", text))
    except (ValueError, AttributeError):
        return text or "no message"
