# SPDX-License-Identifier: Apache-2.0
"""One table of credentials for every verifier: python3 identity_cases.py DIRECTORY makes keys, key set and cases in it.

The unit tests run the table against the functions of identity_service.py, the scenario against two gateways, of which
one verifies by njs and the other by that service. What one answers, the other has to answer, word by word.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import random
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa, utils

ISSUER, AUDIENCE, SCOPE = "https://issuer.example", "llm-gateway", "inference"
KEY_OLD, KEY_NEW, KEY_POOR = (f"sk-{name}-0123456789abcdefghijklmnopqrstuvwxyz" for name in ("old", "new", "poor"))
"""API keys: two of one identity, and one of another whose scope is not enough."""

ALGORITHM = "the token is signed with an algorithm that is not accepted"
UNKNOWN = "the token is signed with an unknown key"
SIGNATURE = "the signature is wrong"
MALFORMED = "the token is malformed"


@dataclass(frozen=True)
class Case:
    """What is sent, and what has to be answered. ``says`` is the identity of a 200, else error_description."""

    name: str
    authorization: str | None
    status: int
    says: str | None
    clock: bool = False
    """Whether the answer depends on seconds, so that only a test that sets the clock can ask."""


def encoded(data: bytes) -> str:
    """Return base64url without padding."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode("ascii")


def part(value: Any) -> str:
    """Return one part of a token; text is taken as it is."""
    return encoded((value if isinstance(value, str) else json.dumps(value)).encode("utf-8"))


class Issuer:
    """Has keys, publishes some of them, and signs."""

    def __init__(self) -> None:
        self.rsa = {kid: rsa.generate_private_key(65537, 2048) for kid in ("k1", "k2", "stranger")}
        self.ec = ec.generate_private_key(ec.SECP256R1())

    def public_pem(self, kid: str) -> bytes:
        """Return a public key as the attacker of an algorithm confusion has it."""
        form = serialization.PublicFormat.SubjectPublicKeyInfo
        return self.rsa[kid].public_key().public_bytes(serialization.Encoding.PEM, form)

    def jwk(self, kid: str) -> dict[str, str]:
        """Return a public key as the key set has it."""
        if kid == "e1":
            point = self.ec.public_key().public_numbers()
            halves = {name: encoded(getattr(point, name).to_bytes(32, "big")) for name in ("x", "y")}
            return {"kty": "EC", "crv": "P-256", "kid": kid, "use": "sig", "alg": "ES256", **halves}
        numbers = self.rsa[kid].public_key().public_numbers()
        modulus, exponent = numbers.n.to_bytes(256, "big"), numbers.e.to_bytes(3, "big")
        return {"kty": "RSA", "kid": kid, "use": "sig", "n": encoded(modulus), "e": encoded(exponent)}

    def key_set(self) -> dict[str, Any]:
        """Return the key set, with keys in it that are not for signatures of ours."""
        other = {**self.jwk("stranger"), "kid": "encrypts", "use": "enc"}
        small = {"kty": "RSA", "kid": "small", "n": encoded(b"\xff" * 128), "e": "AQAB"}
        return {
            "keys": [
                {"kty": "OKP", "kid": "o1", "crv": "Ed25519", "x": "AA"},
                other,
                small,
                *map(self.jwk, ("k1", "k2", "e1")),
            ]
        }

    def sign(self, header: dict[str, Any], claims: Any, by: str = "") -> str:
        """Return a token. ``by`` is the key that signs, the one of the header if empty."""
        signed = f"{part(header)}.{part(claims)}"
        kid = by or header.get("kid", "k1")
        if kid == "e1":
            halves = utils.decode_dss_signature(self.ec.sign(signed.encode("ascii"), ec.ECDSA(hashes.SHA256())))
            signature = b"".join(half.to_bytes(32, "big") for half in halves)
        else:
            digest = hashes.SHA512() if header.get("alg") == "RS512" else hashes.SHA256()
            pad: Any = padding.PSS(padding.MGF1(digest), 32) if header.get("alg") == "PS256" else padding.PKCS1v15()
            signature = self.rsa[kid].sign(signed.encode("ascii"), pad, digest)
        return f"{signed}.{encoded(signature)}"

    def confused(self, secret: bytes) -> str:
        """Return a token that is signed as HS256 with what everyone knows."""
        signed = f"{part({'alg': 'HS256', 'kid': 'k1'})}.{part(self.claims())}"
        return f"{signed}.{encoded(hmac.new(secret, signed.encode('ascii'), hashlib.sha256).digest())}"

    def claims(self, **changes: Any) -> dict[str, Any]:
        """Return good claims with changes; None removes one."""
        now = int(time.time())
        good = {
            "iss": ISSUER,
            "aud": AUDIENCE,
            "sub": "alice",
            "exp": now + 86400,
            "nbf": now - 3600,
            "scope": f"a {SCOPE}",
        }
        return {name: value for name, value in {**good, **changes}.items() if value is not None}


RS1: dict[str, Any] = {"alg": "RS256", "typ": "JWT", "kid": "k1"}
ES1: dict[str, Any] = {"alg": "ES256", "kid": "e1"}


def matrix(issuer: Issuer) -> Iterator[Case]:
    """Yield the fourteen tokens that every candidate was measured with."""

    def token(name: str, text: str, says: str) -> Case:
        status = 200 if says.startswith("jwt:") else 401
        return Case(name, f"Bearer {text}", status, says)

    now = time.time()
    good = issuer.sign(RS1, issuer.claims())
    head, body, signature = good.split(".")
    yield token("valid, key k1", good, "jwt:alice")
    yield token("valid, key k2", issuer.sign({**RS1, "kid": "k2"}, issuer.claims()), "jwt:alice")
    yield token("HS256 signed with the RSA public key", issuer.confused(issuer.public_pem("k1")), ALGORITHM)
    yield token("unknown kid", issuer.sign({**RS1, "kid": "k9"}, issuer.claims(), by="k1"), UNKNOWN)
    yield token("wrong audience", issuer.sign(RS1, issuer.claims(aud="other")), "the token is for another audience")
    yield token("wrong issuer", issuer.sign(RS1, issuer.claims(iss=ISSUER + "/")), "the token is from another issuer")
    yield token("not yet valid", issuer.sign(RS1, issuer.claims(nbf=now + 3600)), "the token is not valid yet")
    yield token("expired", issuer.sign(RS1, issuer.claims(exp=now - 3600)), "the token has expired")
    yield token("no expiry", issuer.sign(RS1, issuer.claims(exp=None)), "the token has no expiry")
    yield token("forged with another key", issuer.sign(RS1, issuer.claims(), by="stranger"), SIGNATURE)
    yield token("tampered", f"{head}.{part(issuer.claims(sub='root'))}.{signature}", SIGNATURE)
    yield token("alg none", f"{part({'alg': 'none', 'kid': 'k1'})}.{body}.", MALFORMED)
    yield token("garbage", "abc.def.ghi", MALFORMED)
    yield Case("missing", None, 401, None)


def further(issuer: Issuer) -> Iterator[Case]:
    """Yield what else a client, or somebody who is none, may send."""

    def signed(name: str, says: str, header: dict[str, Any] | None = None, by: str = "", **changes: Any) -> Case:
        return token(name, issuer.sign(header or RS1, issuer.claims(**changes), by), says)

    def token(name: str, text: str, says: str) -> Case:
        return Case(name, f"Bearer {text}", 200 if says.startswith("jwt:") else 401, says)

    good = issuer.sign(RS1, issuer.claims())
    head, body, signature = good.split(".")
    es = issuer.sign(ES1, issuer.claims())
    yield token("ES256", es, "jwt:alice")
    der = issuer.ec.sign(es.rsplit(".", 1)[0].encode("ascii"), ec.ECDSA(hashes.SHA256()))
    yield token("ES256 with a DER signature", f"{es.rsplit('.', 1)[0]}.{encoded(der)}", SIGNATURE)
    yield token("ES256 of nothing (zeros)", f"{es.rsplit('.', 1)[0]}.{encoded(bytes(64))}", SIGNATURE)
    yield signed("ES256 that names an RSA key", UNKNOWN, {**ES1, "kid": "k1"}, by="e1")
    yield signed("RS256 that names an EC key", UNKNOWN, {**RS1, "kid": "e1"}, by="k1")
    yield token("HS256 signed with the modulus", issuer.confused(issuer.jwk("k1")["n"].encode("ascii")), ALGORITHM)
    for algorithm in ("RS512", "PS256", "rs256", "RS256 ", "nOnE", "", None, 256, ["RS256"]):
        yield signed(f"alg {algorithm!r}", ALGORITHM, {**RS1, "alg": algorithm}, by="k1")
    yield token("alg none with a signature", f"{part({'alg': 'none', 'kid': 'k1'})}.{body}.{signature}", ALGORITHM)
    yield signed("a critical extension", "the token demands an extension", {**RS1, "crit": ["exp"]})
    yield signed("an empty list of critical extensions", "the token demands an extension", {**RS1, "crit": []})
    lure = {"jwk": issuer.jwk("stranger"), "jku": "https://evil.example/keys", "x5u": "https://evil.example/x5u"}
    yield signed("brings its own key", UNKNOWN, {**RS1, "kid": "mine", **lure}, by="stranger")
    yield signed("brings its own key under a known kid", SIGNATURE, {**RS1, **lure}, by="stranger")
    yield signed("brings a key that is not looked at", "jwt:alice", {**RS1, **lure})
    yield signed("no kid", "the token names no key", {"alg": "RS256"})
    yield signed("kid is a number", "the token names no key", {**RS1, "kid": 1}, by="k1")
    yield signed("kid of a key for encryption", UNKNOWN, {**RS1, "kid": "encrypts"}, by="stranger")
    yield signed("kid of a key that is too small", UNKNOWN, {**RS1, "kid": "small"}, by="k1")
    yield signed("kid of a kind of key that is not accepted", UNKNOWN, {**RS1, "kid": "o1"}, by="k1")
    yield signed("kid that is a name of JavaScript's", UNKNOWN, {**RS1, "kid": "__proto__"}, by="k1")
    yield signed("audience in a list", "jwt:alice", aud=["x", AUDIENCE])
    yield signed("audience is no text", "the token is for another audience", aud=[[AUDIENCE]])
    yield signed("no audience", "the token is for another audience", aud=None)
    yield signed("issuer is a list", "the token is from another issuer", iss=[ISSUER])
    yield signed("no not-before", "jwt:alice", nbf=None)
    yield signed("not-before is a text", "the token is not valid yet", nbf="0")
    for expiry in ("4102444800", True, [4102444800]):
        yield signed(f"expiry {expiry!r}", "the token has no expiry", exp=expiry)
    endless = json.dumps(issuer.claims(exp="for ever")).replace('"for ever"', "1e999")
    yield token("expiry beyond every number", issuer.sign(RS1, endless), "the token has no expiry")
    yield token("no JSON but what Python takes", issuer.sign(RS1, endless.replace("1e999", "NaN")), MALFORMED)
    yield token("claims are a list", issuer.sign(RS1, [issuer.claims()]), MALFORMED)
    yield token("claims are no JSON", issuer.sign(RS1, "{"), MALFORMED)
    yield token("claims are no UTF-8", f"{head}.{encoded(bytes([0xFF, 0xFE]))}.{signature}", MALFORMED)
    yield token("padded", f"{head}.{body}=.{signature}", "the credentials are malformed")
    yield token("two parts", f"{head}.{body}", "neither a known key nor a token")
    yield token("four parts", f"{good}.{signature}", "neither a known key nor a token")
    yield token("empty signature", f"{head}.{body}.", MALFORMED)
    yield token("a byte too many", f"{good}A", SIGNATURE)
    yield token("a signature of an impossible length", f"{good}AAA", MALFORMED)
    yield signed("no subject", "the token names no identity", sub=None)
    yield signed("empty subject", "the token names no identity", sub="")
    yield signed("subject is a number", "the token names no identity", sub=7)
    yield signed("subject with a header in it", "the token names no identity", sub="alice\r\nX-Gateway-Identity: root")
    yield signed("subject that ends a line", "the token names no identity", sub="alice\n")
    yield signed("subject beyond ASCII", "the token names no identity", sub="\u00e4lice")
    yield signed("subject with a space", "jwt:Alice of Example", sub="Alice of Example")
    lacks = "the credentials lack the scope of this path"
    for name, claims in (
        ("no scope", {"scope": None}),
        ("another scope", {"scope": "inferences a"}),
        ("scope is a number", {"scope": 1}),
    ):
        yield Case(name, f"Bearer {issuer.sign(RS1, issuer.claims(**claims))}", 403, lacks)
    yield signed("scope in a list, under scp", "jwt:alice", scope=None, scp=["a", SCOPE])
    yield Case("scheme in lower case", f"bearer {good}", 200, "jwt:alice")
    yield Case("two spaces", f"Bearer  {good}", 200, "jwt:alice")
    yield Case("a scheme without credentials", "Bearer", 401, "the credentials are malformed")
    yield Case("two tokens", f"Bearer {good} {good}", 401, "the credentials are malformed")
    yield Case("credentials in quotes", f'Bearer "{good}"', 401, "the credentials are malformed")
    yield Case("another scheme", "Basic YWxpY2U6c2VjcmV0", 401, None)
    yield Case("no scheme", good, 401, None)
    yield Case("an API key", f"Bearer {KEY_OLD}", 200, "key:ci")
    yield Case("the other API key of the same identity", f"Bearer {KEY_NEW}", 200, "key:ci")
    yield Case("an API key without the scope", f"Bearer {KEY_POOR}", 403, lacks)
    yield Case("an unknown API key", f"Bearer {KEY_OLD}x", 401, "neither a known key nor a token")
    yield Case(
        "the hash of an API key",
        f"Bearer {hashlib.sha256(KEY_OLD.encode()).hexdigest()}",
        401,
        "neither a known key nor a token",
    )
    now = time.time()
    yield Case("expired 20 s ago", f"Bearer {issuer.sign(RS1, issuer.claims(exp=now - 20))}", 200, "jwt:alice", True)
    yield Case("valid in 20 s", f"Bearer {issuer.sign(RS1, issuer.claims(nbf=now + 20))}", 200, "jwt:alice", True)
    yield Case(
        "expired 40 s ago",
        f"Bearer {issuer.sign(RS1, issuer.claims(exp=now - 40))}",
        401,
        "the token has expired",
        True,
    )
    yield Case(
        "valid in 40 s",
        f"Bearer {issuer.sign(RS1, issuer.claims(nbf=now + 40))}",
        401,
        "the token is not valid yet",
        True,
    )


def cases(issuer: Issuer) -> list[Case]:
    """Return the whole table."""
    return [*matrix(issuer), *further(issuer)]


ODD_VALUES: tuple[Any, ...] = (
    *(
        None,
        True,
        False,
        0,
        1,
        -1,
        1.5,
        1e308,
        10**400,
        4102444800,
        "4102444800",
        [4102444800],
        {},
        {"a": 1},
        [],
        [None],
    ),
    *(
        "",
        "x",
        "k1",
        "e1",
        "RS256",
        "ES256",
        "none",
        SCOPE,
        AUDIENCE,
        [AUDIENCE],
        ISSUER,
        "\u0000",
        "a\tb",
        "\u00e4",
        "\ud800",
    ),
)
HEADER_NAMES = ("alg", "kid", "typ", "crit", "jku", "x5c", "b64", "zip", "cty")
CLAIM_NAMES = ("iss", "aud", "sub", "exp", "nbf", "iat", "scope", "scp", "jti")
SCHEMES = (*["Bearer "] * 12, "bearer ", "BEARER  ", "Bearer", "Basic ", "Bearer\t", "")


def mutations(issuer: Issuer, number: int, chance: random.Random) -> Iterator[str]:
    """Yield headers with odd values and damaged tokens: nobody says what to answer, but both verifiers say the same."""
    for __ in range(number):
        header = dict(chance.choice([RS1, ES1, {**RS1, "kid": "k2"}]))
        claims = issuer.claims()
        by = header["kid"]
        for __ in range(chance.choice([0, 0, 0, 1, 2])):
            header[chance.choice(HEADER_NAMES)] = chance.choice(ODD_VALUES)
        for __ in range(chance.choice([0, 1, 1, 2, 3])):
            claims[chance.choice(CLAIM_NAMES)] = chance.choice(ODD_VALUES)
        # A header that a known algorithm can't sign is signed by the key that was meant.
        text = issuer.sign({**header, "alg": "RS256"} if header["alg"] in ("RS512", "PS256") else header, claims, by)
        for __ in range(chance.choice([0, 0, 0, 1, 2])):
            place, odd = chance.randrange(len(text)), chance.choice("AZaz09-_.=+/~ \"',\t")
            text = chance.choice(
                [text[:place] + odd + text[place + 1 :], text[:place] + text[place + 1 :], text[:place] + "x"]
            )
        yield chance.choice(SCHEMES) + text


def main(directory: Path) -> None:
    """Write what the scenario needs."""
    issuer = Issuer()
    table = [asdict(case) for case in cases(issuer) if not case.clock]
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "jwks.json").write_text(json.dumps(issuer.key_set()), encoding="utf-8")
    odd = list(mutations(issuer, 400, random.Random(4)))
    (directory / "mutations.json").write_text(json.dumps(odd), encoding="utf-8")
    (directory / "cases.json").write_text(json.dumps(table), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
