# SPDX-License-Identifier: Apache-2.0
# PRIVATE to the collection: do not import this from outside, it may change without notice.
"""Publish the public halves of key pairs as a JSON Web Key Set, and sign a token with a private half.

The form is RFC 7517; RSA and elliptic-curve members are RFC 7518 section 6, Ed25519 is RFC 8037 section 2. Tokens are
RFC 7519 in the compact form of RFC 7515. Needs cryptography, so on the controller.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from ansible_collections.gpufleet.metal.plugins.module_utils._errors import InvalidInputError

with suppress(ImportError):  # ansible-core itself needs it on the controller, where alone this is used
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
    from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

#: Curve -> (its name in RFC 7518, the algorithm that signs with it).
_CURVES = {"secp256r1": ("P-256", "ES256"), "secp384r1": ("P-384", "ES384")}


def json_web_key_set(pairs: Any) -> dict[str, Any]:
    """Return the key set of these key pairs, in their order: the first is the one that signs now.

    Each has ``public_key`` (PEM) and ``kid``, as the kinds ``rsa_key``, ``ec_key`` and ``ed25519_key`` make them.
    Nothing else of a pair is read. Raises InvalidInputError that names the position.
    """
    if not isinstance(pairs, list):
        raise InvalidInputError("jwks wants a list of key pairs: read them with versions='accepted'")
    return {"keys": [_json_web_key(pair, position) for position, pair in enumerate(pairs, 1)]}


def signed_token(pair: Any, claims: Any, now: int, seconds: int = 60) -> str:
    """Return a token with these claims that is valid for a minute, signed as the key pair's holder signs.

    It proves to a verifier's operator that the verifier believes the key: an issuer's own work it is not. Raises
    InvalidInputError for anything but a pair of the kinds ``rsa_key`` and ``ec_key``, and for claims that are no
    dictionary. A message never holds a part of the key.
    """
    if not isinstance(pair, Mapping) or not pair.get("kid") or not pair.get("private_key"):
        raise InvalidInputError("signed_token wants a key pair of the store, with kid and private_key")
    if not isinstance(claims, Mapping):
        raise InvalidInputError("signed_token wants the claims as a dictionary")
    try:
        key: Any = serialization.load_pem_private_key(str(pair["private_key"]).encode(), password=None)
    except Exception:  # the library has no common error, and its text could quote the key
        raise InvalidInputError("signed_token: private_key is no private key in PEM") from None
    times = {"iat": now, "nbf": now, "exp": now + seconds}
    if isinstance(key, rsa.RSAPrivateKey):
        algorithm = "RS256"
    elif isinstance(key, ec.EllipticCurvePrivateKey) and key.curve.name == "secp256r1":
        algorithm = "ES256"
    else:
        raise InvalidInputError(f"signed_token: the key is {type(key).__name__}, wanted RSA or P-256, as gateways know")
    header = {"alg": algorithm, "kid": str(pair["kid"]), "typ": "JWT"}
    signed = ".".join(_base64url(json.dumps(part).encode()) for part in (header, {**claims, **times})).encode()
    return f"{signed.decode()}.{_base64url(_signature(key, signed))}"


def _signature(key: Any, signed: bytes) -> bytes:
    """Sign as RS256 (RFC 7518, 3.3) or ES256 (3.4), whose signature is both numbers in full length."""
    if isinstance(key, rsa.RSAPrivateKey):
        return bytes(key.sign(signed, padding.PKCS1v15(), hashes.SHA256()))
    both = decode_dss_signature(key.sign(signed, ec.ECDSA(hashes.SHA256())))
    return b"".join(number.to_bytes(32, "big") for number in both)


def _json_web_key(pair: Any, position: int) -> dict[str, str]:
    if not isinstance(pair, Mapping) or not pair.get("kid") or not pair.get("public_key"):
        raise InvalidInputError(f"jwks: entry {position} has no public_key and kid, wanted a key pair of the store")
    try:
        key: Any = serialization.load_pem_public_key(str(pair["public_key"]).encode())
    except Exception:  # the library has no common error
        raise InvalidInputError(f"jwks: entry {position} holds no public key in PEM") from None
    return {"kid": str(pair["kid"]), "use": "sig", **_members(key, position)}


def _members(key: Any, position: int) -> dict[str, str]:
    if isinstance(key, rsa.RSAPublicKey):
        numbers = key.public_numbers()
        return {"kty": "RSA", "alg": "RS256", "n": _number(numbers.n), "e": _number(numbers.e)}
    if isinstance(key, ec.EllipticCurvePublicKey) and key.curve.name in _CURVES:
        curve, algorithm = _CURVES[key.curve.name]
        size, point = (key.key_size + 7) // 8, key.public_numbers()
        return {"kty": "EC", "alg": algorithm, "crv": curve, "x": _number(point.x, size), "y": _number(point.y, size)}
    if isinstance(key, ed25519.Ed25519PublicKey):
        raw = key.public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
        return {"kty": "OKP", "alg": "EdDSA", "crv": "Ed25519", "x": _base64url(raw)}
    raise InvalidInputError(f"jwks: entry {position} is {type(key).__name__}, wanted RSA, P-256, P-384 or Ed25519")


def _number(value: int, size: int | None = None) -> str:
    """Return base64urlUInt (RFC 7518 section 2), or a coordinate of full length (section 6.2.1.2)."""
    return _base64url(value.to_bytes(size or (value.bit_length() + 7) // 8, "big"))


def _base64url(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode()
