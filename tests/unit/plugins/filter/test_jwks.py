# SPDX-License-Identifier: Apache-2.0
"""The published keys are those that sign: what one signs, the other verifies; and what is private stays so."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from ansible.errors import AnsibleFilterError
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa, x25519
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature

from ansible_collections.gpufleet.metal.plugins.filter.jwks import FilterModule
from ansible_collections.gpufleet.metal.plugins.module_utils import _identity
from ansible_collections.gpufleet.metal.plugins.module_utils._secrets.kinds import check_options, make

jwks = FilterModule().filters()["jwks"]
signed_token = FilterModule().filters()["signed_token"]
MESSAGE = b"header.payload"


def pair(kind: str, **options: Any) -> dict[str, str]:
    """Return a key pair as the store makes it."""
    return dict(make(kind, check_options(kind, options, "x"), 0).value)


def number(text: str) -> int:
    """Read base64urlUInt."""
    return int.from_bytes(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)), "big")


def private(value: dict[str, str]) -> Any:
    """Return the private key of a pair."""
    return serialization.load_pem_private_key(value["private_key"].encode(), password=None)


def test_an_rsa_key() -> None:
    """RS256, from n and e alone."""
    made = pair("rsa_key", bits=2048)
    key = jwks([made])["keys"][0]
    assert {name: key[name] for name in ("kid", "use", "kty", "alg", "e")} == {
        "kid": made["kid"],
        "use": "sig",
        "kty": "RSA",
        "alg": "RS256",
        "e": "AQAB",
    }
    signature = private(made).sign(MESSAGE, padding.PKCS1v15(), hashes.SHA256())
    public = rsa.RSAPublicNumbers(number(key["e"]), number(key["n"])).public_key()
    public.verify(signature, MESSAGE, padding.PKCS1v15(), hashes.SHA256())


@pytest.mark.parametrize(
    ("curve", "kind", "digest", "algorithm", "length"),
    [
        ("P-256", ec.SECP256R1(), hashes.SHA256(), "ES256", 43),
        ("P-384", ec.SECP384R1(), hashes.SHA384(), "ES384", 64),
    ],
)
def test_an_elliptic_curve_key(curve: str, kind: Any, digest: Any, algorithm: str, length: int) -> None:
    """Coordinates have their full length, whatever zeros they begin with."""
    for __ in range(40):
        made = pair("ec_key", curve=curve)
        key = jwks([made])["keys"][0]
        assert (key["kty"], key["crv"], key["alg"], len(key["x"]), len(key["y"])) == (
            "EC",
            curve,
            algorithm,
            length,
            length,
        )
    signature = encode_dss_signature(*decode_dss_signature(private(made).sign(MESSAGE, ec.ECDSA(digest))))
    public = ec.EllipticCurvePublicNumbers(number(key["x"]), number(key["y"]), kind).public_key()
    public.verify(signature, MESSAGE, ec.ECDSA(digest))


def test_an_ed25519_key() -> None:
    """EdDSA, RFC 8037."""
    made = pair("ed25519_key")
    key = jwks([made])["keys"][0]
    assert (key["kty"], key["crv"], key["alg"]) == ("OKP", "Ed25519", "EdDSA")
    raw = base64.urlsafe_b64decode(key["x"] + "=")
    ed25519.Ed25519PublicKey.from_public_bytes(raw).verify(private(made).sign(MESSAGE), MESSAGE)


def test_two_keys_while_one_is_rotated() -> None:
    """In their order, each with its kid; the gateway takes the set, and nothing private is in it."""
    first, second = pair("rsa_key", bits=2048), pair("ec_key")
    made = jwks([first, second])
    assert [key["kid"] for key in made["keys"]] == [first["kid"], second["kid"]]
    assert _identity.usable_keys(made) == made["keys"]
    members = {name for key in made["keys"] for name in key}
    assert members == {"kid", "use", "kty", "alg", "n", "e", "crv", "x", "y"}
    assert "PRIVATE" not in json.dumps(made)


def pem_of(key: Any) -> str:
    """Return a public key in PEM."""
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    return str(key.public_key().public_bytes(serialization.Encoding.PEM, form).decode())


@pytest.mark.parametrize(
    ("pairs", "message"),
    [
        ({"kid": "a", "public_key": "b"}, "jwks wants a list of key pairs: read them with versions='accepted'"),
        ("text", "jwks wants a list of key pairs: read them with versions='accepted'"),
        (["a"], "jwks: entry 1 has no public_key and kid, wanted a key pair of the store"),
        ([{"kid": "a"}], "jwks: entry 1 has no public_key and kid, wanted a key pair of the store"),
        ([{"kid": "a", "public_key": "b"}], "jwks: entry 1 holds no public key in PEM"),
        (
            [{"kid": "a", "public_key": pem_of(ec.generate_private_key(ec.SECP521R1()))}],
            "jwks: entry 1 is ECPublicKey, wanted RSA, P-256, P-384 or Ed25519",
        ),
        (
            [{"kid": "a", "public_key": pem_of(x25519.X25519PrivateKey.generate())}],
            "jwks: entry 1 is X25519PublicKey, wanted RSA, P-256, P-384 or Ed25519",
        ),
    ],
)
def test_what_is_no_key_pair(pairs: Any, message: str) -> None:
    """The position and what was wanted, never the key."""
    with pytest.raises(AnsibleFilterError) as caught:
        jwks(pairs)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("kind", "options", "algorithm"), [("rsa_key", {"bits": 2048}, "RS256"), ("ec_key", {}, "ES256")]
)
def test_a_token_that_the_published_key_verifies(kind: str, options: dict[str, Any], algorithm: str) -> None:
    """With the key's own kid, for a minute from now."""
    made = pair(kind, **options)
    header, payload, signature = signed_token(made, {"iss": "me", "exp": 5}, 1000).split(".")
    parts = [json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))) for part in (header, payload)]
    assert parts == [
        {"alg": algorithm, "kid": made["kid"], "typ": "JWT"},
        {"iss": "me", "iat": 1000, "nbf": 1000, "exp": 1060},
    ]
    raw = base64.urlsafe_b64decode(signature + "=" * (-len(signature) % 4))
    public: Any = serialization.load_pem_public_key(made["public_key"].encode())
    message = f"{header}.{payload}".encode()
    if algorithm == "RS256":
        public.verify(raw, message, padding.PKCS1v15(), hashes.SHA256())
    else:
        assert len(raw) == 64
        numbers = encode_dss_signature(int.from_bytes(raw[:32], "big"), int.from_bytes(raw[32:], "big"))
        public.verify(numbers, message, ec.ECDSA(hashes.SHA256()))


@pytest.mark.parametrize(
    ("given", "claims", "message"),
    [
        ("text", {}, "signed_token wants a key pair of the store, with kid and private_key"),
        ({"kid": "a"}, {}, "signed_token wants a key pair of the store, with kid and private_key"),
        ({"kid": "a", "private_key": "canary"}, {}, "signed_token: private_key is no private key in PEM"),
        (pair("ec_key"), ["iss"], "signed_token wants the claims as a dictionary"),
        (
            pair("ec_key", curve="P-384"),
            {},
            "signed_token: the key is ECPrivateKey, wanted RSA or P-256, as gateways know",
        ),
        (pair("ed25519_key"), {}, "signed_token: the key is Ed25519PrivateKey, wanted RSA or P-256, as gateways know"),
    ],
)
def test_what_signs_no_token(given: Any, claims: Any, message: str) -> None:
    """Word for word, never a part of the key."""
    with pytest.raises(AnsibleFilterError) as caught:
        signed_token(given, claims, 0)
    assert str(caught.value) == message
