# SPDX-License-Identifier: Apache-2.0
# PRIVATE to the collection: do not import this from outside, it may change without notice.
"""Speak with an API server, with the credentials of a kubeconfig. Needs nothing but Python.

Not through kubectl, which tells a reader in prose what the API tells in fields, and not through kubernetes.core, whose
Python library the packages of Debian 12 have in a version that is too old.
"""

from __future__ import annotations

import base64
import binascii
import http.client
import json
import os
import ssl
import tempfile
import time
import urllib.parse
from collections.abc import Iterator, Mapping
from typing import Any

from ansible_collections.gpufleet.metal.plugins.module_utils._commands import Runner
from ansible_collections.gpufleet.metal.plugins.module_utils._errors import FleetError, InvalidInputError

from .checks import KINDS
from .objects import Object

_TIMEOUT_SECONDS = 30
_PAGE = 500
#: An API server that has too much to do says when to come again.
_BUSY = 429
_BUSY_TRIES = 6
_BUSY_SECONDS = 5
_NOT_FOUND = 404
_MEMORY = "/dev/shm"
#: Kinds that are read and never applied.
_READ = (("v1", "Node"),)


class ApiError(FleetError):
    """The API server did not do what it was asked for."""

    def __init__(self, message: str, status: int = 0, details: Mapping[str, Any] | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.details = details or {}


def plural(kind: str) -> str:
    """Return the name under which a kind is found in a path."""
    word = kind.lower()
    if word.endswith("y"):
        return word[:-1] + "ies"
    return word + ("es" if word.endswith("s") else "s")


def collection_path(api_version: str, kind: str, namespace: str | None = None) -> str:
    """Return the path of all objects of a kind, or of those of a namespace. Raises InvalidInputError."""
    if (api_version, kind) not in KINDS and (api_version, kind) not in _READ:
        raise InvalidInputError(f"found the kind {api_version} {kind}, wanted one that this collection knows")
    root = "/api/v1" if api_version == "v1" else f"/apis/{api_version}"
    return f"{root}{f'/namespaces/{namespace}' if namespace else ''}/{plural(kind)}"


def title(item: Mapping[str, Any]) -> str:
    """Return how an object is spoken of: its kind, namespace and name."""
    about = item["metadata"]
    return f"{item['kind']} {about['namespace'] + '/' if about.get('namespace') else ''}{about['name']}"


def object_path(item: Mapping[str, Any]) -> str:
    """Return the path of an object. Raises InvalidInputError."""
    about = item["metadata"]
    namespace = about.get("namespace")
    path = collection_path(item["apiVersion"], item["kind"], namespace)
    known = KINDS.get((item["apiVersion"], item["kind"]))
    namespaced = known is not None and known.namespaced
    if namespaced is not bool(namespace):
        wanted = "a namespace" if namespaced else "none"
        raise InvalidInputError(f"{title(item)}: found the namespace {namespace}, wanted {wanted}")
    return f"{path}/{urllib.parse.quote(about['name'], safe='')}"


class Api:
    """An API server, asked over one connection."""

    def __init__(self, server: str, context: ssl.SSLContext, headers: Mapping[str, str] | None = None) -> None:
        parts = urllib.parse.urlsplit(server)
        if parts.scheme != "https" or not parts.hostname:
            raise InvalidInputError(f"kubeconfig: found the server {server!r}, wanted https://host:port")
        self.server = server
        self._headers = dict(headers or {})
        self._connection = http.client.HTTPSConnection(
            parts.hostname, parts.port or 443, context=context, timeout=_TIMEOUT_SECONDS
        )

    def request(
        self, method: str, path: str, query: Mapping[str, str] | None = None, body: Any = None, content_type: str = ""
    ) -> Object:
        """Return what the API answers. Raises ApiError with its own words."""
        target = f"{path}?{urllib.parse.urlencode(query)}" if query else path
        data = None if body is None else json.dumps(body)
        headers = {**self._headers, "Accept": "application/json", "User-Agent": "gpufleet.metal"}
        if content_type:
            headers["Content-Type"] = content_type
        for left in reversed(range(_BUSY_TRIES)):
            status, wait, text = self._once(method, target, data, headers)
            if status != _BUSY or not left:
                break
            time.sleep(min(wait, _BUSY_SECONDS))
        try:
            found = json.loads(text)
        except ValueError:
            found = None
        if not isinstance(found, dict):
            raise ApiError(f"{method} {path}: the API server {self.server} answers {status} {text[:200]!r}", status)
        if status >= 300:
            raise ApiError(_message(found, status), status, found.get("details"))
        return found

    def _once(self, method: str, target: str, data: str | None, headers: dict[str, str]) -> tuple[int, float, str]:
        try:
            self._connection.request(method, target, data, headers)
            answer = self._connection.getresponse()
            text = answer.read().decode("utf-8", "replace")
        except (OSError, http.client.HTTPException) as fault:
            self._connection.close()
            raise ApiError(f"the API server {self.server} gives no answer: {type(fault).__name__}: {fault}") from fault
        seconds = answer.headers.get("Retry-After", "1")
        return answer.status, float(seconds) if seconds.isdigit() else 1.0, text

    def text(self, path: str) -> str:
        """Return what the API answers where that is no JSON. Raises ApiError."""
        status, __, text = self._once("GET", path, None, {**self._headers, "User-Agent": "gpufleet.metal"})
        if status != 200:
            raise ApiError(f"GET {path}: the API server {self.server} answers {status} {text[:200]!r}", status)
        return text

    def get(self, item: Mapping[str, Any]) -> Object | None:
        """Return an object as it is, None where there is none."""
        try:
            return self.request("GET", object_path(item))
        except ApiError as fault:
            if fault.status == _NOT_FOUND:
                return None
            raise

    def has_kind(self, api_version: str, kind: str) -> bool:
        """Return whether the cluster knows a kind that not every cluster has."""
        try:
            found = self.request("GET", f"/apis/{api_version}")
        except ApiError as fault:
            if fault.status == _NOT_FOUND:
                return False
            raise
        return any(resource.get("kind") == kind for resource in found.get("resources") or [])

    def each(self, api_version: str, kind: str, selector: str, namespace: str | None = None) -> Iterator[Object]:
        """Yield the objects of a kind that a selector of labels selects, a page at a time."""
        query = {"labelSelector": selector, "limit": str(_PAGE)}
        while True:
            page = self.request("GET", collection_path(api_version, kind, namespace), query)
            for item in page.get("items") or []:
                # In a list, objects do not say what they are.
                yield {**item, "apiVersion": api_version, "kind": kind}
            following = (page.get("metadata") or {}).get("continue")
            if not following:
                return
            query["continue"] = following

    def apply(self, item: Mapping[str, Any], manager: str, dry_run: bool = False) -> Object:
        """Apply an object on the server's side, and take over fields that somebody else has set."""
        query = {"fieldManager": manager, "fieldValidation": "Strict", "force": "true"}
        if dry_run:
            query["dryRun"] = "All"
        # JSON is YAML.
        return self.request("PATCH", object_path(item), query, item, "application/apply-patch+yaml")

    def delete(self, item: Mapping[str, Any]) -> None:
        """Delete exactly this object, and what belongs to it."""
        body = {
            "apiVersion": "v1",
            "kind": "DeleteOptions",
            "propagationPolicy": "Background",
            "preconditions": {"uid": item["metadata"]["uid"]},
        }
        try:
            self.request("DELETE", object_path(item), None, body, "application/json")
        except ApiError as fault:
            if fault.status != _NOT_FOUND:
                raise


def _message(answer: Mapping[str, Any], status: int) -> str:
    """Return what a Status says. It has the field of each cause in its message already."""
    return str(answer.get("message") or f"the API server answers {status} without a reason")


def connect(path: str, run: Runner, server: str | None = None) -> Api:
    """Return the API server of a kubeconfig, or with its credentials another one of the cluster. Raises FleetError."""
    if not os.path.isfile(path):
        raise InvalidInputError(f"found no file {path}, wanted a kubeconfig: the host is to be a control plane")
    view = ["kubectl", "config", "view", "--kubeconfig", path, "--raw", "--minify", "--flatten", "--output", "json"]
    status, out, err = run(view)
    if status != 0:
        raise FleetError(f"kubectl config view of {path} ended with exit status {status}: {err.strip()}")
    try:
        return from_document(json.loads(out), path, server)
    except (ValueError, KeyError, IndexError, TypeError, AttributeError, ssl.SSLError) as fault:
        if isinstance(fault, FleetError):
            raise
        # Not the fault's own text, which may hold a part of a key.
        raise FleetError(f"{path} is no kubeconfig with credentials ({type(fault).__name__})") from None


def from_document(document: Mapping[str, Any], path: str, server: str | None = None) -> Api:
    """Return the API server of a kubeconfig that has nothing in other files."""
    cluster, user = document["clusters"][0]["cluster"], document["users"][0]["user"]
    authority = cluster.get("certificate-authority-data")
    if not authority or cluster.get("insecure-skip-tls-verify"):
        raise InvalidInputError(f"{path}: found no authority to know the API server by, wanted one")
    context = ssl.create_default_context(cadata=_decoded(authority).decode())
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    headers = {}
    if user.get("client-certificate-data"):
        pair = _decoded(user["client-certificate-data"]) + b"\n" + _decoded(user["client-key-data"])
        # OpenSSL takes them from a file only: one that root alone reads, in memory.
        with tempfile.NamedTemporaryFile(dir=_MEMORY if os.path.isdir(_MEMORY) else None) as stream:
            stream.write(pair)
            stream.flush()
            context.load_cert_chain(stream.name)
    elif user.get("token"):
        headers["Authorization"] = f"Bearer {user['token']}"
    else:
        raise InvalidInputError(f"{path}: found neither a client's certificate nor a token, wanted one of them")
    return Api(server or cluster["server"], context, headers)


def _decoded(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error:
        raise InvalidInputError("a kubeconfig: found data that is no base64") from None
