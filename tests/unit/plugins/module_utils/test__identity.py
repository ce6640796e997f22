# SPDX-License-Identifier: Apache-2.0
"""Who may use the gateway: every mistake in the variables is named, and no message shows a key."""

from __future__ import annotations

import base64
import hashlib
import json
from typing import Any

import pytest

from ansible_collections.gpufleet.metal.plugins.module_utils import _identity

KEY = "sk-0123456789abcdefghijklmnopqrstuvwxyz"
HASH = hashlib.sha256(KEY.encode()).hexdigest()
PATHS = ["/v1/completions", "/v1/embeddings"]


def number(size: int) -> str:
    return base64.urlsafe_b64encode(b"\xc3" * size).rstrip(b"=").decode()


RSA = {"kty": "RSA", "kid": "k1", "n": number(256), "e": "AQAB"}
EC = {"kty": "EC", "kid": "e1", "crv": "P-256", "x": number(32), "y": number(32)}
JWT: dict[str, Any] = {
    "issuer": "https://issuer.example",
    "audiences": ["gateway"],
    "jwks": json.dumps({"keys": [RSA, EC]}),
    "jwks_ca_path": "",
    "jwks_refresh_seconds": 300,
    "leeway_seconds": 30,
    "identity_claim": "sub",
    "scope_claims": ["scope", "scp"],
}
NO_JWT = {**JWT, "issuer": None, "audiences": [], "jwks": None}
SCOPES: dict[str, Any] = {"default": "inference", "paths": {}}
LIMITS = {"requests_per_second": 20, "burst": 40, "concurrent": 64}


def faults(methods: list[str], keys: Any = (), **changes: Any) -> list[str]:
    """What is wrong; ``jwt``, ``scopes`` and ``limits`` change single options."""
    jwt = {**(JWT if "jwt" in methods else NO_JWT), **changes.get("jwt", {})}
    scopes, limits = {**SCOPES, **changes.get("scopes", {})}, {**LIMITS, **changes.get("limits", {})}
    return _identity.identity_faults(methods, list(keys), jwt, scopes, limits, PATHS)


def entry(**changes: Any) -> dict[str, Any]:
    return {"identity": "ci", "keys": [KEY], **changes}


@pytest.mark.parametrize(
    ("methods", "keys"),
    [
        ([], []),
        (["none"], []),
        (["api_keys"], [entry()]),
        (["api_keys"], [entry(keys=None, sha256=["a" * 64, "b" * 64], scopes=["inference", "x:y"])]),
        (["jwt"], []),
        (["api_keys", "jwt"], [entry(), {"identity": "team@example.org", "sha256": ["c" * 64]}]),
    ],
)
def test_what_is_right(methods: list[str], keys: list[Any]) -> None:
    assert faults(methods, keys) == []


@pytest.mark.parametrize(
    ("methods", "keys", "message"),
    [
        (["basic", "jwt"], [], "nginx_authentication names basic, wanted any of api_keys and jwt, or none alone"),
        (
            ["none", "jwt"],
            [],
            "nginx_authentication is [none, jwt], wanted none alone, or api_keys, jwt or both without it",
        ),
        (
            ["api_keys"],
            [],
            "nginx_api_keys is empty, wanted at least one identity, because nginx_authentication has api_keys",
        ),
        (
            [],
            [entry()],
            "nginx_api_keys has 1 identity, but nginx_authentication is []; add api_keys to nginx_authentication, "
            "or empty nginx_api_keys",
        ),
        (
            ["api_keys"],
            [entry(), entry(keys=[KEY + "2"])],
            "nginx_api_keys: ci is listed twice, wanted each identity once with all of its keys",
        ),
        (
            ["api_keys"],
            [entry(identity="a b")],
            "nginx_api_keys: identity of entry 1 is 'a b', wanted up to 64 letters, digits, '.', '_', '-' and '@', "
            "beginning with a letter or a digit",
        ),
        (
            ["api_keys"],
            [entry(keys=[])],
            "nginx_api_keys: ci has neither keys nor sha256, wanted at least one; leave the identity out to refuse it",
        ),
        (
            ["api_keys"],
            [entry(keys=[KEY, "hunter2"])],
            "nginx_api_keys: ci: key 2 has 7 characters, wanted at least 32 random ones",
        ),
        (
            ["api_keys"],
            [entry(keys=[KEY + " "])],
            "nginx_api_keys: ci: key 1 can't travel in an Authorization header, wanted up to 512 letters, digits and "
            "any of . _ ~ + / - (RFC 6750)",
        ),
        (
            ["api_keys"],
            [entry(keys=["ab" * 20])],
            "nginx_api_keys: ci: key 1 has 2 different characters, wanted a random key, such as the output of "
            "'openssl rand -hex 32'",
        ),
        (
            ["api_keys"],
            [entry(sha256=[HASH.upper()[:63]])],
            "nginx_api_keys: ci: sha256 1 has 63 characters, wanted 64 lower-case hexadecimal digits, the "
            "SHA-256 of a key",
        ),
        (
            ["api_keys"],
            [entry(sha256=[hashlib.sha256(b"").hexdigest()])],
            "nginx_api_keys: ci: sha256 1 is the hash of an empty text, wanted that of a key",
        ),
        (["api_keys"], [entry(sha256=[HASH])], "nginx_api_keys: a key of ci is listed twice, wanted each key once"),
        (
            ["api_keys"],
            [entry(), {"identity": "other", "sha256": [HASH]}],
            "nginx_api_keys: a key of other is listed at ci too, wanted each key once",
        ),
        (
            ["api_keys"],
            [entry(scopes=['a"b'])],
            "nginx_api_keys: ci: scope 'a\"b' holds a space or a quote, wanted one word (RFC 6749)",
        ),
    ],
)
def test_wrong_methods_and_keys(methods: list[str], keys: list[Any], message: str) -> None:
    assert faults(methods, keys) == [message]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"issuer": None},
            "nginx_jwt.issuer is None, wanted the exact value of the tokens' iss, without spaces and quotes",
        ),
        (
            {"audiences": []},
            "nginx_jwt.audiences is [], wanted at least one value of the tokens' aud, without spaces",
        ),
        ({"jwks": None}, "nginx_jwt.jwks and nginx_jwt.jwks_url: neither is set, wanted exactly one of them"),
        (
            {"jwks_url": "https://issuer.example/keys"},
            "nginx_jwt.jwks and nginx_jwt.jwks_url: both are set, wanted exactly one of them",
        ),
        (
            {"jwks": None, "jwks_url": "http://issuer.example/keys"},
            "nginx_jwt.jwks_url is 'http://issuer.example/keys', wanted an https:// URL, because who answers it "
            "decides who may enter",
        ),
        (
            {"jwks_ca_path": "/etc/ca.pem"},
            "nginx_jwt.jwks_ca_path is set without nginx_jwt.jwks_url, which alone needs it",
        ),
        (
            {"jwks": "{"},
            "nginx_jwt.jwks is no JSON (Expecting property name enclosed in double quotes: line 1 column 2 (char 1)), "
            "wanted a key set of RFC 7517",
        ),
        ({"jwks": {"kid": "k1"}}, "nginx_jwt.jwks has no list 'keys', wanted a key set of RFC 7517"),
        (
            {"jwks": {"keys": [{**RSA, "n": number(128)}]}},
            "nginx_jwt.jwks has 1 key and none with a kid for RS256 (RSA, 2048 bits or more) or ES256 (P-256), "
            "wanted at least one",
        ),
        ({"jwks": {"keys": [RSA, RSA]}}, "nginx_jwt.jwks: kid 'k1' is listed twice, wanted each once"),
        (
            {"jwks": {"keys": [{**RSA, "d": "AA"}]}},
            "nginx_jwt.jwks: key 1 is a private or symmetric one, wanted public keys alone; whoever reads it can sign "
            "tokens: replace it at the issuer",
        ),
        (
            {"identity_claim": "a b"},
            "nginx_jwt.identity_claim is 'a b', wanted names of claims of letters, digits and any of _ : . / -",
        ),
        (
            {"scope_claims": []},
            "nginx_jwt.scope_claims is [], wanted names of claims of letters, digits and any of _ : . / -",
        ),
        ({"leeway_seconds": 3600}, "nginx_jwt.leeway_seconds is 3600, wanted a number from 0 to 300"),
        ({"jwks_refresh_seconds": 1}, "nginx_jwt.jwks_refresh_seconds is 1, wanted a number from 30 to 86400"),
    ],
)
def test_wrong_tokens(changes: dict[str, Any], message: str) -> None:
    assert faults(["jwt"], jwt=changes) == [message]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"scopes": {"default": "a b"}},
            "nginx_scopes.default is 'a b', wanted one word without quotes, or '' for no scope",
        ),
        (
            {"scopes": {"paths": {"/v1/embedings": "x"}}},
            "nginx_scopes.paths: '/v1/embedings' is not in nginx_allowed_paths (/v1/completions, /v1/embeddings), "
            "wanted one of these",
        ),
        (
            {"scopes": {"paths": {"/v1/embeddings": ["x"]}}},
            "nginx_scopes.paths: the scope of /v1/embeddings is ['x'], wanted one word without quotes, or ''",
        ),
        ({"limits": {"burst": -1}}, "nginx_identity_limits.burst is -1, wanted a number from 0 to 10000000"),
        (
            {"limits": {"concurrent": "many"}},
            "nginx_identity_limits.concurrent is 'many', wanted a number from 0 to 10000000",
        ),
        (
            {"jwt": {"issuer": "https://issuer.example"}},
            "nginx_jwt names an issuer or keys, but nginx_authentication is [api_keys]; add jwt to nginx_authentication"
            ", or empty nginx_jwt",
        ),
    ],
)
def test_wrong_scopes_limits_and_leftovers(changes: dict[str, Any], message: str) -> None:
    assert faults(["api_keys"], [entry()], **changes) == [message]


def test_no_message_shows_a_key() -> None:
    secret = "hunter2-hunter2-hunter2!-hunter2"
    told = faults(["api_keys"], [entry(keys=[secret, secret, "hunter2"], sha256=["hunter2", "hunter2"])])
    assert len(told) == 7
    assert not any("hunter2" in sentence for sentence in told)


def test_all_mistakes_are_told_at_once() -> None:
    assert len(faults(["api_keys", "jwt"], jwt={"issuer": None, "leeway_seconds": -1}, limits={"burst": -1})) == 4


def test_the_document_holds_hashes_and_prefixed_identities() -> None:
    keys = [entry(sha256=["a" * 64]), {"identity": "poor", "sha256": ["b" * 64], "scopes": []}]
    document = _identity.identity_document(["api_keys", "jwt"], keys, JWT, SCOPES, "llm.example.org", "/etc/jwks.json")
    assert document["api_keys"] == {
        HASH: {"identity": "key:ci", "scopes": ["inference"]},
        "a" * 64: {"identity": "key:ci", "scopes": ["inference"]},
        "b" * 64: {"identity": "key:poor", "scopes": []},
    }
    assert document["jwt"]["jwks_path"] == "/etc/jwks.json"
    assert document["jwt"]["jwks_url"] is None
    assert KEY not in json.dumps(document)


@pytest.mark.parametrize(("methods", "keys", "jwt"), [(["api_keys"], 1, False), (["jwt"], 0, True)])
def test_only_the_chosen_ways_are_in_the_document(methods: list[str], keys: int, jwt: bool) -> None:
    document = _identity.identity_document(methods, [entry()], JWT, SCOPES, "llm.example.org", "/etc/jwks.json")
    assert (len(document["api_keys"]), document["jwt"] is not None) == (keys, jwt)


def test_without_a_default_scope_a_key_has_none() -> None:
    scopes = {"default": "", "paths": {}}
    document = _identity.identity_document(["api_keys"], [entry()], NO_JWT, scopes, "llm.example.org", "")
    assert document["api_keys"][HASH]["scopes"] == []
