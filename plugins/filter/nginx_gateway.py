# SPDX-License-Identifier: Apache-2.0
"""Turn the plan's upstream groups into what the gateway's NGINX template renders: pure, and checked as a whole."""

from __future__ import annotations

DOCUMENTATION = r"""
name: nginx_gateway
short_description: Decide the routes, groups and documents of a gateway
version_added: "0.1.0"
author: GPUFleet contributors (@gpufleet)
description:
  - Turns upstream groups, one for each model, into the exact locations, upstream groups and JSON documents that the
    gateway's configuration consists of.
  - Checks its input as a whole. An error names the variable of the role P(gpufleet.metal.nginx#role) to change.
positional: _input
options:
  _input:
    description: The upstream groups, as in the plan.
    type: list
    elements: dict
    required: true
  default_model:
    description: The model that C(/v1/) goes to; none without it.
    type: str
  allowed_paths:
    description: Paths that are passed on. One that ends with a slash allows what is below it.
    type: list
    elements: str
    required: true
  server_name:
    description: The name, or IP literal, that clients use.
    type: str
    required: true
  server_aliases:
    description: Further names and IP literals.
    type: list
    elements: str
    default: []
  port:
    description: The port that clients use.
    type: int
    default: 443
  guarded:
    description: Whether clients have to say who they are.
    type: bool
    default: false
  scopes:
    description: The scope that a path needs, C(default) and by path in C(paths). Empty for none.
    type: dict
    default: {}
"""

EXAMPLES = r"""
- name: Decide the gateway's routes
  ansible.builtin.set_fact:
    __nginx_gateway: >-
      {{ nginx_upstreams | gpufleet.metal.nginx_gateway(
           allowed_paths=['/v1/chat/completions'], server_name='llm.example.org') }}
"""

RETURN = r"""
_value:
  description: >-
    A dictionary with C(upstreams), C(tls), C(routes), C(documents), C(listings), C(model_list), C(errors),
    C(inner_errors), C(server_names) and C(serves_without_name).
  type: dict
"""

import ipaddress
import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ansible.errors import AnsibleFilterError

from ansible_collections.gpufleet.metal.plugins.module_utils._errors import FleetError, InvalidInputError

GROUP_PREFIX = "model_"
"""Before a model's name in the name of its upstream group, so that no model can shadow a host name."""

SERVER_KEYS = ("name", "address", "port", "weight")
"""What the probe agent is told of an engine."""

TLS_PATHS = ("certificate_path", "certificate_key_path", "ca_path")
TLS_DEFAULTS = {"handshake_timeout_seconds": 5}
"""What a group's tls leaves unsaid. meta/argument_specs.yml of the role states the same."""

_FILE = re.compile(r"^/[A-Za-z0-9._/-]+$")
_MODEL = re.compile(r"^[a-z0-9][a-z0-9._-]{0,62}$")
_SERVER = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._/-]{0,127}$")
_PATH = re.compile(r"^/v1/(?:[a-z0-9_.-]+/)*[a-z0-9_.-]*$")
_HOST = re.compile(r"^(?=.{1,253}$)(?:(?!-)[a-z0-9-]{1,63}(?<!-)\.)*(?!-)[a-z0-9-]{1,63}(?<!-)$")

ERRORS: tuple[tuple[int, str, str, str], ...] = (
    (400, "invalid_request_error", "bad_request", "The request is not valid HTTP for this endpoint."),
    (401, "invalid_request_error", "invalid_api_key", "This endpoint wants an API key or a token that it knows."),
    (403, "permission_error", "insufficient_scope", "The key or token is valid, but lacks the scope of this path."),
    (404, "invalid_request_error", "not_found", "No model or path of this endpoint is named so; see /v1/models."),
    (405, "invalid_request_error", "method_not_allowed", "The path does not answer this method."),
    (408, "invalid_request_error", "request_timeout", "The request did not arrive in time."),
    (413, "invalid_request_error", "request_too_large", "The request body is larger than this endpoint takes."),
    (414, "invalid_request_error", "uri_too_long", "The request line is longer than this endpoint takes."),
    (421, "invalid_request_error", "misdirected_request", "This endpoint does not serve the host of the request."),
    (429, "rate_limit_error", "rate_limit_exceeded", "Too many requests or connections from this address."),
    (500, "api_error", "internal_error", "The gateway failed."),
    (502, "api_error", "bad_gateway", "No engine of the model answered."),
    (503, "api_error", "unavailable", "The endpoint is not available at the moment."),
    (504, "api_error", "gateway_timeout", "The engine of the model did not answer in time."),
)
"""Status, OpenAI's error type, code and message. No text may hold a quote or a dollar: NGINX would read it."""

OF_IDENTITY = {429: "Too many requests of this identity, at once or per second."}
"""What the second hop says instead, whose limits are an identity's and not an address's."""

SHOWN_AS = {500: 503}
"""Where clients have to say who they are, 500 is NGINX's answer when nobody could tell it who asks."""


def gateway(
    upstreams: Sequence[Mapping[str, Any]],
    allowed_paths: Sequence[str],
    server_name: str,
    default_model: str | None = None,
    server_aliases: Sequence[str] = (),
    port: int = 443,
    guarded: bool = False,
    scopes: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Decide everything that NGINX's template needs. Raises InvalidInputError naming the role's variable."""
    _check_upstreams(upstreams)
    tls = _tls_of(upstreams)
    models = sorted(str(upstream["model"]) for upstream in upstreams)
    if default_model is not None and default_model not in models:
        known = ", ".join(models) or "none, nginx_upstreams is empty"
        raise InvalidInputError(
            f"nginx_default_model is {default_model!r}, wanted one of the models of nginx_upstreams ({known}) or null"
        )
    for path in allowed_paths:
        _check_path(path)
    names = [_checked_name("nginx_server_name", server_name)]
    names += [_checked_name("nginx_server_aliases", name) for name in server_aliases]
    base = f"https://{_in_url(names[0])}" + ("" if port == 443 else f":{port}")
    described = {model: _described(model, base) for model in models}
    return {
        "upstreams": [
            {
                "name": upstream["name"],
                "model": upstream["model"],
                "group": GROUP_PREFIX + upstream["model"],
                "servers": [{key: server[key] for key in SERVER_KEYS} for server in upstream["servers"]],
            }
            for upstream in sorted(upstreams, key=lambda upstream: str(upstream["name"]))
        ],
        "tls": tls,
        "routes": _routes(upstreams, allowed_paths, default_model, scopes or {}, "https" if tls else "http"),
        "documents": _documents(described),
        "listings": ["/v1/models", *(document["path"] for document in _documents(described))],
        "model_list": {"object": "list", "data": list(described.values())},
        "errors": _errors({}, SHOWN_AS if guarded else {}),
        "inner_errors": _errors(OF_IDENTITY, {}),
        "server_names": sorted(dict.fromkeys(_in_url(name) for name in names), key=names_first(names[0])),
        "serves_without_name": any(_is_address(name) for name in names),
    }


def names_first(first: str) -> Callable[[str], tuple[bool, str]]:
    """Return a sort key that puts the main name first: NGINX uses it for redirects and $server_name."""
    return lambda name: (name != _in_url(first), name)


def _check_upstreams(upstreams: Sequence[Mapping[str, Any]]) -> None:
    for key in ("name", "model"):
        values = [str(upstream.get(key)) for upstream in upstreams]
        for value in values:
            if not _MODEL.match(value):
                raise InvalidInputError(
                    f"nginx_upstreams: {key} is {value!r}, wanted lower-case letters, digits, '.', '_' and '-'"
                )
        twice = sorted({value for value in values if values.count(value) > 1})
        if twice:
            raise InvalidInputError(f"nginx_upstreams: {key} {', '.join(twice)} is listed twice, wanted one group each")
    for upstream in upstreams:
        _check_servers(str(upstream["name"]), upstream.get("servers") or [])


def _check_servers(upstream: str, servers: Sequence[Mapping[str, Any]]) -> None:
    where = f"nginx_upstreams: {upstream}"
    if not servers:
        raise InvalidInputError(f"{where} has no servers, wanted at least one; leave the group out instead")
    names, endpoints = [], []
    for server in servers:
        name = str(server.get("name"))
        if not _SERVER.match(name):
            raise InvalidInputError(f"{where}: server name is {name!r}, wanted letters, digits, '.', '_', '-' and '/'")
        if not _is_address(str(server.get("address"))):
            raise InvalidInputError(f"{where}: address of {name} is {server.get('address')!r}, wanted an IP literal")
        for key, most in (("port", 65535), ("weight", 1000)):
            value = server.get(key)
            if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= most:
                raise InvalidInputError(f"{where}: {key} of {name} is {value!r}, wanted a number from 1 to {most}")
        names.append(name)
        endpoints.append(f"{server['address']} port {server['port']}")
    for kind, values in (("name", names), ("endpoint", endpoints)):
        twice = sorted({value for value in values if values.count(value) > 1})
        if twice:
            raise InvalidInputError(f"{where}: server {kind} {', '.join(twice)} is listed twice")


def _tls_of(upstreams: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """Return how all engines are asked over TLS, None for plain HTTP. Raises InvalidInputError.

    NGINX keeps idle connections without regard to the certificate that they were opened with, and the probe agent is
    told once: so one gateway has one identity towards all engines.
    """
    found: dict[str, Any] | None = None
    for position, upstream in enumerate(upstreams):
        where = f"nginx_upstreams: {upstream['name']}"
        given = {key: value for key, value in (upstream.get("tls") or {}).items() if value is not None}
        tls = {**TLS_DEFAULTS, **given} if given else None
        if position and tls != found:
            raise InvalidInputError(
                f"{where} has another tls than {upstreams[0]['name']}, wanted the same in all groups"
            )
        found = tls
        if tls is None:
            continue
        missing = [key for key in TLS_PATHS if not _FILE.match(str(tls.get(key, "")))]
        if missing:
            raise InvalidInputError(f"{where}: tls lacks {', '.join(missing)}, wanted absolute paths on the gateway")
        if not _HOST.match(str(tls.get("server_name", ""))):
            raise InvalidInputError(
                f"{where}: server_name of tls is {tls.get('server_name')!r}, wanted the host name that the engines' "
                f"certificates have in common"
            )
        seconds = tls["handshake_timeout_seconds"]
        if not isinstance(seconds, int) or isinstance(seconds, bool) or not 1 <= seconds <= 75:
            raise InvalidInputError(
                f"{where}: handshake_timeout_seconds of tls is {seconds!r}, wanted a number from 1 to 75"
            )
    return found


def _check_path(path: str) -> None:
    if not _PATH.match(path) or ".." in path or path == "/v1/":
        raise InvalidInputError(
            f"nginx_allowed_paths: {path!r} is no path below /v1/ of lower-case letters, digits, '_', '.' and '-'"
        )
    if path == "/v1/models" or path.startswith("/v1/models/"):
        raise InvalidInputError(f"nginx_allowed_paths: {path!r} is answered from nginx_upstreams, not passed on")


def _checked_name(variable: str, name: str) -> str:
    lowered = str(name).lower()
    if not _is_address(lowered) and not _HOST.match(lowered):
        raise InvalidInputError(f"{variable}: {name!r} is neither a host name nor an IP literal")
    return lowered


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def _in_url(name: str) -> str:
    return f"[{name}]" if ":" in name else name


def _routes(
    upstreams: Sequence[Mapping[str, Any]],
    allowed_paths: Sequence[str],
    default_model: str | None,
    scopes: Mapping[str, Any],
    scheme: str,
) -> list[dict[str, Any]]:
    """One location for each allowed path: below /models/<model> for every model, at the root for the default one."""
    by_path, default = scopes.get("paths") or {}, scopes.get("default") or ""
    routes = []
    for upstream in sorted(upstreams, key=lambda upstream: str(upstream["model"])):
        model = str(upstream["model"])
        prefixes = [f"/models/{model}"] + ([""] if model == default_model else [])
        for prefix in prefixes:
            for path in allowed_paths:
                routes.append(
                    {
                        "match": "" if path.endswith("/") else "= ",
                        "path": prefix + path,
                        "model": model,
                        "target": f"{scheme}://{GROUP_PREFIX}{model}{path}",
                        "scope": by_path.get(path, default),
                    }
                )
    return routes


def _described(model: str, base: str) -> dict[str, Any]:
    return {
        "id": model,
        "object": "model",
        "created": 0,
        "owned_by": "gpufleet",
        "base_url": f"{base}/models/{model}/v1",
    }


def _documents(described: Mapping[str, Mapping[str, Any]]) -> list[dict[str, str]]:
    """The answers for one model: a list with one entry below its own base URL, the entry itself at both places."""
    documents = []
    for model, entry in described.items():
        one, listed = _compact(entry), _compact({"object": "list", "data": [entry]})
        documents.append({"path": f"/models/{model}/v1/models", "body": listed})
        documents.append({"path": f"/models/{model}/v1/models/{model}", "body": one})
        documents.append({"path": f"/v1/models/{model}", "body": one})
    return documents


def _errors(messages: Mapping[int, str], shown_as: Mapping[int, int]) -> list[dict[str, Any]]:
    """What NGINX answers for a status: its body, and the directive's two words when another status is shown for it."""
    return [
        {
            "status": status,
            "body": _error_body(kind, code, messages.get(status, message)),
            "shown": shown_as.get(status, status),
            "shown_as": f" ={shown_as[status]}" if status in shown_as else "",
        }
        for status, kind, code, message in ERRORS
    ]


def _error_body(kind: str, code: str, message: str) -> str:
    return _compact({"error": {"message": message, "type": kind, "param": None, "code": code}})


def _compact(document: Any) -> str:
    return json.dumps(document, separators=(",", ":"))


def nginx_gateway(upstreams: Any, **options: Any) -> dict[str, Any]:
    """Shell of :func:`gateway` for Ansible."""
    try:
        return gateway(upstreams, **options)
    except FleetError as fault:
        raise AnsibleFilterError(str(fault)) from fault


class FilterModule:
    """What Ansible loads."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return the filters of this file."""
        return {"nginx_gateway": nginx_gateway}
