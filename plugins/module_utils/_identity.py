# SPDX-License-Identifier: Apache-2.0
# PRIVATE to the collection: do not import this from outside, it may change without notice.
"""Who may use the gateway: the role nginx's options are judged here, and become the file that its verifiers read.

A message never holds a key or a part of one: it names the identity and the position in the list.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

METHODS = ("none", "api_keys", "jwt")

SHORTEST_KEY = 32
"""Characters. A random key of 32 hexadecimal digits has 128 bits: nobody finds it from its hash."""

FEWEST_DIFFERENT = 8
"""Different characters; a random key of the shortest length has fewer once in ten thousand million."""

SMALLEST_MODULUS_BYTES = 256
"""RSA with 2048 bits, as RFC 7518 section 3.3 demands for RS256."""

_IDENTITY = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}")
_TOKEN = re.compile(r"[A-Za-z0-9._~+/-]+=*")
_SCOPE = re.compile(r"[\x21\x23-\x5b\x5d-\x7e]{1,128}")
_CLAIM = re.compile(r"[A-Za-z0-9_:./-]{1,128}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_URL = re.compile(r"https://[A-Za-z0-9.\[\]:-]+(?:/[!-~]*)?")
_VISIBLE = re.compile(r"[!#-\[\]-~]{1,512}")


def identity_faults(
    methods: Sequence[str],
    api_keys: Sequence[Mapping[str, Any]],
    jwt: Mapping[str, Any],
    scopes: Mapping[str, Any],
    limits: Mapping[str, Any],
    allowed_paths: Sequence[str],
) -> list[str]:
    """Say what is wrong with the role's variables, in the order of the variables; empty when nothing is.

    ``jwt``, ``scopes`` and ``limits`` are complete, with the role's defaults in them.
    """
    faults = _method_faults(methods)
    if "api_keys" in methods:
        faults += _key_faults(api_keys)
    elif api_keys:
        faults.append(
            f"nginx_api_keys has {_counted(len(api_keys), 'identity', 'identities')}, but nginx_authentication is "
            f"{_shown(methods)}; add api_keys to nginx_authentication, or empty nginx_api_keys"
        )
    if "jwt" in methods:
        faults += _jwt_faults(jwt)
    elif jwt.get("issuer") or jwt.get("jwks") or jwt.get("jwks_url"):
        faults.append(
            f"nginx_jwt names an issuer or keys, but nginx_authentication is {_shown(methods)}; "
            f"add jwt to nginx_authentication, or empty nginx_jwt"
        )
    return faults + _scope_faults(scopes, allowed_paths) + _limit_faults(limits)


def identity_document(
    methods: Sequence[str],
    api_keys: Sequence[Mapping[str, Any]],
    jwt: Mapping[str, Any],
    scopes: Mapping[str, Any],
    realm: str,
    jwks_path: str,
) -> dict[str, Any]:
    """Return what the verifiers on the gateway read. No key is in it, only hashes. Wants options without faults."""
    known = {}
    for entry in api_keys if "api_keys" in methods else ():
        granted = entry.get("scopes")
        if granted is None:
            granted = [scopes["default"]] if scopes["default"] else []
        hashes = [*(entry.get("sha256") or ()), *(key_hash(key) for key in entry.get("keys") or ())]
        for value in hashes:
            known[value] = {"identity": f"key:{entry['identity']}", "scopes": sorted(granted)}
    tokens = None
    if "jwt" in methods:
        tokens = {
            "issuer": jwt["issuer"],
            "audiences": sorted(jwt["audiences"]),
            "identity_claim": jwt["identity_claim"],
            "scope_claims": list(jwt["scope_claims"]),
            "leeway_seconds": int(jwt["leeway_seconds"]),
            "jwks_path": jwks_path,
            "jwks_url": jwt.get("jwks_url") or None,
            "jwks_ca_path": jwt.get("jwks_ca_path") or None,
            "jwks_refresh_seconds": int(jwt["jwks_refresh_seconds"]),
        }
    return {"realm": realm, "api_keys": dict(sorted(known.items())), "jwt": tokens}


def key_hash(key: str) -> str:
    """Return what is stored of an API key.

    One round of SHA-256, because the key is random and long. A slow, salted hash defends passwords, which people choose
    from a small set; 128 random bits can't be searched, and a slow hash would cost its time at each request.
    """
    return hashlib.sha256(str(key).encode("utf-8")).hexdigest()


def usable_keys(document: Any) -> list[Mapping[str, Any]]:
    """Return the keys of a JWKS that a token of RS256 or ES256 can be verified with."""
    keys = document.get("keys") if isinstance(document, Mapping) else None
    return [key for key in keys if _is_usable(key)] if isinstance(keys, list) else []


def _is_usable(key: Any) -> bool:
    if not isinstance(key, Mapping) or not isinstance(key.get("kid"), str) or key.get("use", "sig") != "sig":
        return False
    if key.get("kty") == "RSA":
        return key.get("alg", "RS256") == "RS256" and len(_decoded(key.get("n"))) >= SMALLEST_MODULUS_BYTES
    if key.get("kty") == "EC":
        sizes = [len(_decoded(key.get(name))) for name in ("x", "y")]
        return key.get("alg", "ES256") == "ES256" and key.get("crv") == "P-256" and sizes == [32, 32]
    return False


def _decoded(text: Any) -> bytes:
    if not isinstance(text, str) or not re.fullmatch(r"[A-Za-z0-9_-]*", text):
        return b""
    try:
        return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    except (binascii.Error, ValueError):
        return b""


def _method_faults(methods: Sequence[str]) -> list[str]:
    unknown = sorted({str(method) for method in methods if method not in METHODS})
    if unknown:
        return [f"nginx_authentication names {', '.join(unknown)}, wanted any of api_keys and jwt, or none alone"]
    if "none" in methods and len(set(methods)) > 1:
        return [f"nginx_authentication is {_shown(methods)}, wanted none alone, or api_keys, jwt or both without it"]
    return []


def _key_faults(api_keys: Sequence[Mapping[str, Any]]) -> list[str]:
    if not api_keys:
        return ["nginx_api_keys is empty, wanted at least one identity, because nginx_authentication has api_keys"]
    faults: list[str] = []
    names = [str(entry.get("identity")) for entry in api_keys]
    faults += [
        f"nginx_api_keys: {name} is listed twice, wanted each identity once with all of its keys"
        for name in sorted({name for name in names if names.count(name) > 1})
    ]
    owners: dict[str, str] = {}
    for position, (name, entry) in enumerate(zip(names, api_keys), 1):
        if not _IDENTITY.fullmatch(name):
            faults.append(
                f"nginx_api_keys: identity of entry {position} is {name!r}, wanted up to 64 letters, digits, '.', '_', "
                f"'-' and '@', beginning with a letter or a digit"
            )
            continue
        faults += _entry_faults(name, entry)
        hashes = [str(value) for value in entry.get("sha256") or ()]
        for value in [*hashes, *(key_hash(key) for key in entry.get("keys") or ())]:
            if value in owners:
                also = "twice" if owners[value] == name else f"at {owners[value]} too"
                faults.append(f"nginx_api_keys: a key of {name} is listed {also}, wanted each key once")
            owners[value] = name
    return faults


def _entry_faults(name: str, entry: Mapping[str, Any]) -> list[str]:
    """Judge one identity's keys. Nothing of a key is shown."""
    where = f"nginx_api_keys: {name}"
    keys, hashes = list(entry.get("keys") or ()), list(entry.get("sha256") or ())
    if not keys and not hashes:
        return [f"{where} has neither keys nor sha256, wanted at least one; leave the identity out to refuse it"]
    faults = []
    for position, key in enumerate(map(str, keys), 1):
        if len(key) < SHORTEST_KEY:
            found = f"has {len(key)} characters"
            faults.append(f"{where}: key {position} {found}, wanted at least {SHORTEST_KEY} random ones")
        elif not _TOKEN.fullmatch(key) or len(key) > 512:
            faults.append(
                f"{where}: key {position} can't travel in an Authorization header, wanted up to 512 letters, digits "
                f"and any of . _ ~ + / - (RFC 6750)"
            )
        elif len(set(key)) < FEWEST_DIFFERENT:
            faults.append(
                f"{where}: key {position} has {len(set(key))} different characters, wanted a random key, such as the "
                f"output of 'openssl rand -hex 32'"
            )
    for position, value in enumerate(map(str, hashes), 1):
        if not _SHA256.fullmatch(value):
            faults.append(
                f"{where}: sha256 {position} has {len(value)} characters, wanted 64 lower-case hexadecimal digits, "
                f"the SHA-256 of a key"
            )
        elif value == key_hash(""):
            faults.append(f"{where}: sha256 {position} is the hash of an empty text, wanted that of a key")
    for scope in entry.get("scopes") or ():
        if not _SCOPE.fullmatch(str(scope)):
            faults.append(f"{where}: scope {scope!r} holds a space or a quote, wanted one word (RFC 6749)")
    return faults


def _jwt_faults(jwt: Mapping[str, Any]) -> list[str]:
    faults = []
    if not _VISIBLE.fullmatch(str(jwt.get("issuer") or "")):
        faults.append(
            f"nginx_jwt.issuer is {jwt.get('issuer')!r}, wanted the exact value of the tokens' iss, without spaces and "
            f"quotes"
        )
    audiences = [str(audience) for audience in jwt.get("audiences") or ()]
    if not audiences or any(not _VISIBLE.fullmatch(audience) for audience in audiences):
        faults.append(
            f"nginx_jwt.audiences is {audiences}, wanted at least one value of the tokens' aud, without spaces"
        )
    faults += _jwks_faults(jwt)
    for name in ("identity_claim", "scope_claims"):
        found = jwt.get(name)
        claims = [found] if name == "identity_claim" else list(found or ())
        if not claims or any(not _CLAIM.fullmatch(str(claim)) for claim in claims):
            faults.append(
                f"nginx_jwt.{name} is {found!r}, wanted names of claims of letters, digits and any of _ : . / -"
            )
    for name, least, most in (("leeway_seconds", 0, 300), ("jwks_refresh_seconds", 30, 86400)):
        faults += _number_fault(f"nginx_jwt.{name}", jwt.get(name), least, most)
    return faults


def _jwks_faults(jwt: Mapping[str, Any]) -> list[str]:
    document, url, authority = jwt.get("jwks"), jwt.get("jwks_url"), jwt.get("jwks_ca_path")
    given = [name for name, value in (("jwks", document), ("jwks_url", url)) if value]
    if len(given) != 1:
        found = "both are" if given else "neither is"
        return [f"nginx_jwt.jwks and nginx_jwt.jwks_url: {found} set, wanted exactly one of them"]
    faults = []
    if authority and not url:
        faults.append("nginx_jwt.jwks_ca_path is set without nginx_jwt.jwks_url, which alone needs it")
    if url:
        if not _URL.fullmatch(str(url)):
            faults.append(
                f"nginx_jwt.jwks_url is {url!r}, wanted an https:// URL, because who answers it decides who may enter"
            )
        return faults
    try:
        keys = json.loads(document) if isinstance(document, str) else document
    except ValueError as fault:
        return [*faults, f"nginx_jwt.jwks is no JSON ({fault}), wanted a key set of RFC 7517"]
    return faults + _key_set_faults(keys)


def _key_set_faults(document: Any) -> list[str]:
    listed = document.get("keys") if isinstance(document, Mapping) else None
    if not isinstance(listed, list):
        return ["nginx_jwt.jwks has no list 'keys', wanted a key set of RFC 7517"]
    faults = []
    for position, key in enumerate(listed, 1):
        private = isinstance(key, Mapping) and (key.get("kty") == "oct" or "d" in key)
        if private:
            faults.append(
                f"nginx_jwt.jwks: key {position} is a private or symmetric one, wanted public keys alone; whoever "
                f"reads it can sign tokens: replace it at the issuer"
            )
    usable = usable_keys(document)
    if not usable:
        faults.append(
            f"nginx_jwt.jwks has {_counted(len(listed), 'key', 'keys')} and none with a kid for RS256 (RSA, 2048 bits "
            f"or more) or ES256 (P-256), wanted at least one"
        )
    kids = [str(key["kid"]) for key in usable]
    faults += [
        f"nginx_jwt.jwks: kid {kid!r} is listed twice, wanted each once"
        for kid in sorted({kid for kid in kids if kids.count(kid) > 1})
    ]
    return faults


def _scope_faults(scopes: Mapping[str, Any], allowed_paths: Sequence[str]) -> list[str]:
    faults = []
    if scopes["default"] and not _SCOPE.fullmatch(str(scopes["default"])):
        faults.append(
            f"nginx_scopes.default is {scopes['default']!r}, wanted one word without quotes, or '' for no scope"
        )
    for path, scope in dict(scopes["paths"]).items():
        if path not in allowed_paths:
            faults.append(
                f"nginx_scopes.paths: {path!r} is not in nginx_allowed_paths ({', '.join(allowed_paths)}), wanted one "
                f"of these"
            )
        if not isinstance(scope, str) or (scope and not _SCOPE.fullmatch(scope)):
            faults.append(
                f"nginx_scopes.paths: the scope of {path} is {scope!r}, wanted one word without quotes, or ''"
            )
    return faults


def _limit_faults(limits: Mapping[str, Any]) -> list[str]:
    faults = []
    for name in ("requests_per_second", "burst", "concurrent"):
        faults += _number_fault(f"nginx_identity_limits.{name}", limits.get(name), 0, 10_000_000)
    return faults


def _number_fault(option: str, found: Any, least: int, most: int) -> list[str]:
    try:
        good = not isinstance(found, bool) and least <= int(found) <= most
    except (TypeError, ValueError):
        good = False
    return [] if good else [f"{option} is {found!r}, wanted a number from {least} to {most}"]


def _counted(number: int, one: str, many: str) -> str:
    return f"{number} {one if number == 1 else many}"


def _shown(methods: Sequence[str]) -> str:
    return f"[{', '.join(methods)}]"
