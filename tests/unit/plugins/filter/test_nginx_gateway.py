# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import copy
import json
from typing import Any

import pytest
from ansible.errors import AnsibleFilterError

from ansible_collections.gpufleet.metal.plugins.filter.nginx_gateway import ERRORS, FilterModule, gateway
from ansible_collections.gpufleet.metal.plugins.module_utils._errors import InvalidInputError

UPSTREAMS: list[dict[str, Any]] = [
    {
        "name": "tiny",
        "model": "tiny",
        "servers": [
            {"name": "gpu-1/tiny-0", "address": "198.51.100.11", "port": 8000, "weight": 1},
            {"name": "gpu-2/tiny-0", "address": "2001:db8::2", "port": 8000, "weight": 2},
        ],
    },
    {
        "name": "big",
        "model": "big",
        "servers": [{"name": "gpu-1/big-0", "address": "198.51.100.11", "port": 8001, "weight": 1}],
    },
]
PATHS = ["/v1/completions", "/v1/responses/"]
TLS = {
    "server_name": "engines.gpufleet.internal",
    "certificate_path": "/etc/gpufleet/pki/client.crt",
    "certificate_key_path": "/etc/gpufleet/pki/client.key",
    "ca_path": "/etc/gpufleet/pki/engines-ca.crt",
}


def decide(**changes: Any) -> dict[str, Any]:
    given: dict[str, Any] = {"upstreams": UPSTREAMS, "allowed_paths": PATHS, "server_name": "llm.example.org"}
    return gateway(**{**given, **changes})


def test_every_model_has_its_routes_and_the_default_one_has_the_root_too() -> None:
    routes = decide(default_model="tiny")["routes"]
    assert [(route["match"], route["path"], route["model"], route["target"]) for route in routes] == [
        ("= ", "/models/big/v1/completions", "big", "http://model_big/v1/completions"),
        ("", "/models/big/v1/responses/", "big", "http://model_big/v1/responses/"),
        ("= ", "/models/tiny/v1/completions", "tiny", "http://model_tiny/v1/completions"),
        ("", "/models/tiny/v1/responses/", "tiny", "http://model_tiny/v1/responses/"),
        ("= ", "/v1/completions", "tiny", "http://model_tiny/v1/completions"),
        ("", "/v1/responses/", "tiny", "http://model_tiny/v1/responses/"),
    ]


def test_all_engines_are_asked_over_tls_or_none() -> None:
    decided = decide(upstreams=[{**upstream, "tls": TLS} for upstream in UPSTREAMS])
    assert decided["tls"] == {**TLS, "handshake_timeout_seconds": 5}
    assert {route["target"].partition("//")[0] for route in decided["routes"]} == {"https:"}
    plain = decide(upstreams=[{**upstream, "tls": None} for upstream in UPSTREAMS])
    assert plain == decide()
    assert plain["tls"] is None


def test_each_path_has_its_scope_below_every_prefix() -> None:
    scopes = {"default": "inference", "paths": {"/v1/responses/": "respond"}}
    routes = decide(default_model="tiny", scopes=scopes)["routes"]
    assert {(route["path"].rsplit("/v1/")[1], route["scope"]) for route in routes} == {
        ("completions", "inference"),
        ("responses/", "respond"),
    }
    assert {route["scope"] for route in decide()["routes"]} == {""}


def test_what_lists_models_is_known_by_path() -> None:
    assert decide()["listings"] == [
        "/v1/models",
        "/models/big/v1/models",
        "/models/big/v1/models/big",
        "/v1/models/big",
        "/models/tiny/v1/models",
        "/models/tiny/v1/models/tiny",
        "/v1/models/tiny",
    ]


def test_the_second_hop_speaks_of_identities() -> None:
    found = decide(guarded=True)
    outer, inner = ({error["status"]: error for error in found[key]} for key in ("errors", "inner_errors"))
    assert "from this address" in outer[429]["body"]
    assert "of this identity" in inner[429]["body"]
    assert outer.keys() == inner.keys()


@pytest.mark.parametrize(("guarded", "shown", "words"), [(True, 503, " =503"), (False, 500, "")])
def test_a_verifier_that_fails_is_a_fault_for_a_while(guarded: bool, shown: int, words: str) -> None:
    error = next(error for error in decide(guarded=guarded)["errors"] if error["status"] == 500)
    assert (error["shown"], error["shown_as"]) == (shown, words)


def test_without_a_default_model_the_root_passes_nothing_on() -> None:
    assert all(route["path"].startswith("/models/") for route in decide()["routes"])


@pytest.mark.parametrize(
    ("name", "port", "base"),
    [
        ("LLM.example.org", 443, "https://llm.example.org"),
        ("llm.example.org", 8443, "https://llm.example.org:8443"),
        ("198.51.100.13", 443, "https://198.51.100.13"),
        ("2001:db8::1", 8443, "https://[2001:db8::1]:8443"),
    ],
)
def test_the_list_of_models_says_where_each_is(name: str, port: int, base: str) -> None:
    found = decide(server_name=name, port=port)
    assert found["model_list"] == {
        "object": "list",
        "data": [
            {
                "id": model,
                "object": "model",
                "created": 0,
                "owned_by": "gpufleet",
                "base_url": f"{base}/models/{model}/v1",
            }
            for model in ("big", "tiny")
        ],
    }
    assert [document["path"] for document in found["documents"]] == [
        "/models/big/v1/models",
        "/models/big/v1/models/big",
        "/v1/models/big",
        "/models/tiny/v1/models",
        "/models/tiny/v1/models/tiny",
        "/v1/models/tiny",
    ]
    assert json.loads(found["documents"][0]["body"])["data"] == found["model_list"]["data"][:1]


@pytest.mark.parametrize(
    ("name", "aliases", "names", "nameless"),
    [
        ("llm.example.org", [], ["llm.example.org"], False),
        ("llm.example.org", ["b.example", "a.example"], ["llm.example.org", "a.example", "b.example"], False),
        ("llm.example.org", ["198.51.100.13", "LLM.example.org"], ["llm.example.org", "198.51.100.13"], True),
        ("2001:db8::1", [], ["[2001:db8::1]"], True),
    ],
)
def test_names(name: str, aliases: list[str], names: list[str], nameless: bool) -> None:
    found = decide(server_name=name, server_aliases=aliases)
    assert (found["server_names"], found["serves_without_name"]) == (names, nameless)


def test_no_document_holds_what_nginx_would_read() -> None:
    found = decide()
    for body in [error["body"] for error in found["errors"]] + [one["body"] for one in found["documents"]]:
        assert not set(body) & {"'", "$", "\\", "\n"}
    assert json.loads(found["errors"][0]["body"]) == {
        "error": {
            "message": "The request is not valid HTTP for this endpoint.",
            "type": "invalid_request_error",
            "param": None,
            "code": "bad_request",
        }
    }
    assert len({status for status, *__ in ERRORS}) == len(ERRORS)


def test_the_order_of_the_input_does_not_matter() -> None:
    assert decide(upstreams=UPSTREAMS[::-1]) == decide()


def test_a_gateway_without_models_is_possible() -> None:
    found = decide(upstreams=[])
    assert (found["routes"], found["upstreams"], found["model_list"]["data"]) == ([], [], [])


def changed(path: str, value: Any) -> list[dict[str, Any]]:
    """The upstreams with one value replaced; ``path`` is 'group.key' or 'group.server.key'."""
    upstreams = copy.deepcopy(UPSTREAMS)
    words = path.split(".")
    target: Any = upstreams[int(words[0])]
    if len(words) == 3:
        target = target["servers"][int(words[1])]
    target[words[-1]] = value
    return upstreams


FAULTS: list[tuple[dict[str, Any], str]] = [
    (
        {"default_model": "huge"},
        "nginx_default_model is 'huge', wanted one of the models of nginx_upstreams (big, tiny) or null",
    ),
    (
        {"default_model": "huge", "upstreams": []},
        "nginx_default_model is 'huge', wanted one of the models of nginx_upstreams "
        "(none, nginx_upstreams is empty) or null",
    ),
    (
        {"upstreams": changed("0.model", "Tiny Llama")},
        "nginx_upstreams: model is 'Tiny Llama', wanted lower-case letters, digits, '.', '_' and '-'",
    ),
    (
        {"upstreams": changed("0.name", "../x")},
        "nginx_upstreams: name is '../x', wanted lower-case letters, digits, '.', '_' and '-'",
    ),
    ({"upstreams": changed("0.model", "big")}, "nginx_upstreams: model big is listed twice, wanted one group each"),
    (
        {"upstreams": changed("1.servers", [])},
        "nginx_upstreams: big has no servers, wanted at least one; leave the group out instead",
    ),
    (
        {"upstreams": changed("0.0.name", "a; down")},
        "nginx_upstreams: tiny: server name is 'a; down', wanted letters, digits, '.', '_', '-' and '/'",
    ),
    (
        {"upstreams": changed("0.0.address", "gpu-1")},
        "nginx_upstreams: tiny: address of gpu-1/tiny-0 is 'gpu-1', wanted an IP literal",
    ),
    (
        {"upstreams": changed("0.0.port", 70000)},
        "nginx_upstreams: tiny: port of gpu-1/tiny-0 is 70000, wanted a number from 1 to 65535",
    ),
    (
        {"upstreams": changed("0.0.weight", True)},
        "nginx_upstreams: tiny: weight of gpu-1/tiny-0 is True, wanted a number from 1 to 1000",
    ),
    (
        {"upstreams": changed("0.1.name", "gpu-1/tiny-0")},
        "nginx_upstreams: tiny: server name gpu-1/tiny-0 is listed twice",
    ),
    (
        {"upstreams": changed("0.1.address", "198.51.100.11")},
        "nginx_upstreams: tiny: server endpoint 198.51.100.11 port 8000 is listed twice",
    ),
    *(
        (
            {"allowed_paths": [path]},
            f"nginx_allowed_paths: {path!r} is no path below /v1/ of lower-case letters, digits, '_', '.' and '-'",
        )
        for path in ("/invocations", "/v1", "/v1/", "/v1/../metrics", "/v1/a b", "/v1//x", "/v1/x;}")
    ),
    (
        {"allowed_paths": ["/v1/models"]},
        "nginx_allowed_paths: '/v1/models' is answered from nginx_upstreams, not passed on",
    ),
    (
        {"upstreams": [{**UPSTREAMS[0], "tls": TLS}, UPSTREAMS[1]]},
        "nginx_upstreams: big has another tls than tiny, wanted the same in all groups",
    ),
    (
        {"upstreams": [{**UPSTREAMS[0], "tls": {**TLS, "ca_path": None, "certificate_path": "client.crt"}}]},
        "nginx_upstreams: tiny: tls lacks certificate_path, ca_path, wanted absolute paths on the gateway",
    ),
    (
        {"upstreams": [{**UPSTREAMS[0], "tls": {**TLS, "server_name": "198.51.100.11;"}}]},
        "nginx_upstreams: tiny: server_name of tls is '198.51.100.11;', wanted the host name that the engines' "
        "certificates have in common",
    ),
    (
        {"upstreams": [{**UPSTREAMS[0], "tls": {**TLS, "handshake_timeout_seconds": 0}}]},
        "nginx_upstreams: tiny: handshake_timeout_seconds of tls is 0, wanted a number from 1 to 75",
    ),
    ({"server_name": "a_b.example"}, "nginx_server_name: 'a_b.example' is neither a host name nor an IP literal"),
    (
        {"server_aliases": ["*.example.org"]},
        "nginx_server_aliases: '*.example.org' is neither a host name nor an IP literal",
    ),
]


@pytest.mark.parametrize(("change", "message"), FAULTS, ids=[message for __, message in FAULTS])
def test_wrong_input_is_named(change: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidInputError) as caught:
        decide(**change)
    assert str(caught.value) == message


def test_the_filter_translates_errors() -> None:
    call = FilterModule().filters()["nginx_gateway"]
    assert call(UPSTREAMS, allowed_paths=PATHS, server_name="llm.example.org") == decide()
    with pytest.raises(AnsibleFilterError, match="nginx_default_model is 'huge'"):
        call(UPSTREAMS, allowed_paths=PATHS, server_name="llm.example.org", default_model="huge")
