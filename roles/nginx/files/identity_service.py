# SPDX-License-Identifier: Apache-2.0
"""Tell NGINX who asks, and keep the issuer's keys fresh.

Two services of one gateway, each started only where it is needed:

- ``verify``: answers NGINX's question "who asks, and may they?" (auth_request) on a unix socket, where NGINX's own
  JavaScript (njs) is too old to verify a signature. ``identity.js`` is its twin: both follow the same steps in the same
  order, and one table of cases is run against both. It needs the package python3-cryptography.
- ``refresh``: fetches the issuer's key set (JWKS) into a local file, for either verifier. It needs nothing but
  Python's standard library. A set that can't be fetched or has no usable key never replaces the last good one.

Both read the role's configuration; ``verify`` reads it and the keys again when their files change. Python 3.9.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import hashlib
import http.client
import http.server
import json
import math
import os
import re
import signal
import socket
import socketserver
import ssl
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

CONFIGURATION = Path("/etc/gpufleet/identity.json")
RUNTIME_DIRECTORY = Path("/run/gpufleet-identity")
UNKNOWN_KEY_MARK = RUNTIME_DIRECTORY / "unknown_key"
SOCKET = RUNTIME_DIRECTORY / "verify.sock"
METRICS = RUNTIME_DIRECTORY / "metrics.prom"

REFETCH_SECONDS = 30.0
"""At most one fetch in this time, whatever kids are asked for and however often a fetch fails."""

FETCH_TIMEOUT_SECONDS = 10.0
MAX_KEY_SET_BYTES = 1024 * 1024
SMALLEST_MODULUS_BYTES = 256
ALGORITHMS = ("RS256", "ES256")

_BASE64URL = re.compile(r"[A-Za-z0-9_-]+")
_CREDENTIALS = re.compile(r"Bearer +([A-Za-z0-9._~+/-]+=*) *", re.IGNORECASE | re.ASCII)
_SCHEME = re.compile(r"Bearer(?: |$)", re.IGNORECASE | re.ASCII)
_IDENTITY = re.compile(r"[\x21-\x7e](?:[\x20-\x7e]{0,254}[\x21-\x7e])?")


# --------------------------------------------------------------------------------------------------------- verdict


@dataclass(frozen=True)
class Verdict:
    """An answer to NGINX: 204 with an identity, 401, 403, or 503 when the question can't be answered."""

    status: int
    identity: str | None = None
    scopes: tuple[str, ...] = ()
    error: str | None = None
    description: str | None = None
    scope: str | None = None


UNAVAILABLE = Verdict(503)


def refused(description: str) -> Verdict:
    """Return the 401 for credentials that are there and not accepted."""
    return Verdict(401, error="invalid_token", description=description)


def challenge(realm: str, verdict: Verdict) -> str:
    """Return the value of WWW-Authenticate (RFC 6750, section 3)."""
    value = f'Bearer realm="{realm}"'
    if verdict.error is not None:
        value += f', error="{verdict.error}", error_description="{verdict.description}"'
    if verdict.scope is not None:
        value += f', scope="{verdict.scope}"'
    return value


def judge(
    configuration: Mapping[str, Any], keys: Sequence[Any] | None, authorization: str, scope: str, now: float
) -> Verdict:
    """Say who sends this Authorization header, and whether the scope is theirs. ``keys`` is None without a key set."""
    if not _SCHEME.match(authorization):
        return Verdict(401)
    credentials = _CREDENTIALS.fullmatch(authorization)
    if credentials is None:
        return refused("the credentials are malformed")
    known = configuration["api_keys"].get(hashlib.sha256(credentials[1].encode("ascii")).hexdigest())
    if known is not None:
        verdict = Verdict(204, identity=known["identity"], scopes=tuple(known["scopes"]))
    elif configuration["jwt"] is None:
        verdict = refused("no such key")
    else:
        verdict = judge_token(credentials[1], configuration["jwt"], keys, now)
    if verdict.status == 204 and scope and scope not in verdict.scopes:
        return Verdict(
            403,
            identity=verdict.identity,
            error="insufficient_scope",
            description="the credentials lack the scope of this path",
            scope=scope,
        )
    return verdict


def judge_token(token: str, jwt: Mapping[str, Any], keys: Sequence[Any] | None, now: float) -> Verdict:
    """Verify a JWT (RFC 7515, RFC 7519). Where it says that its key is found (jku, jwk, x5u) is never looked at."""
    parts = token.split(".")
    if len(parts) != 3:
        return refused("neither a known key nor a token")
    header, claims = decoded(parts[0]), decoded(parts[1])
    if header is None or claims is None or not _is_base64url(parts[2]):
        return refused("the token is malformed")
    algorithm, kid = header.get("alg"), header.get("kid")
    if algorithm not in ALGORITHMS:
        return refused("the token is signed with an algorithm that is not accepted")
    if "crit" in header:
        return refused("the token demands an extension")
    if not isinstance(kid, str):
        return refused("the token names no key")
    if keys is None:
        return UNAVAILABLE
    key = next((candidate for candidate in keys if fits(candidate, kid, algorithm)), None)
    if key is None:
        if jwt["jwks_url"] is not None:
            mark_unknown_key()
        return refused("the token is signed with an unknown key")
    if not is_signed(key, algorithm, f"{parts[0]}.{parts[1]}".encode("ascii"), _bytes(parts[2])):
        return refused("the signature is wrong")
    fault = claim_fault(claims, jwt, now)
    if fault is not None:
        return refused(fault)
    return Verdict(204, identity=f"jwt:{claims[jwt['identity_claim']]}", scopes=scopes_of(claims, jwt["scope_claims"]))


def decoded(part: str) -> dict[str, Any] | None:
    """Return the object that a part of a token holds; None if it holds none."""
    if not _is_base64url(part):
        return None
    try:
        value = json.loads(_bytes(part).decode("utf-8"), parse_constant=_no_constant)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON")


def _is_base64url(text: str) -> bool:
    return _BASE64URL.fullmatch(text) is not None and len(text) % 4 != 1


def _bytes(text: Any) -> bytes:
    if not isinstance(text, str) or not re.fullmatch(r"[A-Za-z0-9_-]*", text):
        return b""
    try:
        return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    except binascii.Error:
        return b""


def fits(key: Any, kid: str, algorithm: str) -> bool:
    """Return whether a key of the set is the one that a token names, and of the algorithm that it claims."""
    if not isinstance(key, dict) or key.get("kid") != kid or key.get("use", "sig") != "sig":
        return False
    if key.get("alg", algorithm) != algorithm:
        return False
    if algorithm == "RS256":
        return (
            key.get("kty") == "RSA"
            and len(_bytes(key.get("n"))) >= SMALLEST_MODULUS_BYTES
            and bool(_bytes(key.get("e")))
        )
    sizes = [len(_bytes(key.get(name))) for name in ("x", "y")]
    return key.get("kty") == "EC" and key.get("crv") == "P-256" and sizes == [32, 32]


def is_signed(key: Mapping[str, Any], algorithm: str, signed: bytes, signature: bytes) -> bool:
    """Return whether the signature is the key's. A key that is none (a point off the curve) signed nothing."""
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa, utils

    def number(name: str) -> int:
        return int.from_bytes(_bytes(key.get(name)), "big")

    try:
        if algorithm == "RS256":
            public = rsa.RSAPublicNumbers(number("e"), number("n")).public_key()
            public.verify(signature, signed, padding.PKCS1v15(), hashes.SHA256())
            return True
        if len(signature) != 64:
            return False
        point = ec.EllipticCurvePublicNumbers(number("x"), number("y"), ec.SECP256R1()).public_key()
        halves = (int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:], "big"))
        point.verify(utils.encode_dss_signature(*halves), signed, ec.ECDSA(hashes.SHA256()))
    except (InvalidSignature, ValueError):
        return False
    return True


def claim_fault(claims: Mapping[str, Any], jwt: Mapping[str, Any], now: float) -> str | None:
    """Say which claim refuses the token; None if all are right."""
    if claims.get("iss") != jwt["issuer"]:
        return "the token is from another issuer"
    audience = claims.get("aud")
    audiences = audience if isinstance(audience, list) else [audience]
    if not any(isinstance(one, str) and one in jwt["audiences"] for one in audiences):
        return "the token is for another audience"
    expiry, start = _number(claims.get("exp")), _number(claims.get("nbf"))
    if expiry is None:
        return "the token has no expiry"
    if expiry + jwt["leeway_seconds"] < now:
        return "the token has expired"
    if "nbf" in claims and (start is None or start - jwt["leeway_seconds"] > now):
        return "the token is not valid yet"
    identity = claims.get(jwt["identity_claim"])
    if not isinstance(identity, str) or not _IDENTITY.fullmatch(identity):
        return "the token names no identity"
    return None


def _number(value: Any) -> float | None:
    """Return a JSON number as JavaScript has it; None for anything else, and for what is beyond every number."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


def scopes_of(claims: Mapping[str, Any], names: Sequence[str]) -> tuple[str, ...]:
    """Return the scopes of a token: words of a text (RFC 8693's scope) or a list (scp, roles)."""
    scopes: list[str] = []
    for name in names:
        value = claims.get(name)
        if isinstance(value, str):
            scopes += value.split(" ")
        elif isinstance(value, list):
            scopes += [scope for scope in value if isinstance(scope, str)]
    return tuple(scopes)


def mark_unknown_key() -> None:
    """Ask ``refresh`` for a fetch."""
    UNKNOWN_KEY_MARK.touch()


# ---------------------------------------------------------------------------------------------------------- verify


def read_keys(path: Path) -> list[Any] | None:
    """Return the keys of a key set on disk; None if there is none that can be read."""
    try:
        keys = json.loads(path.read_text(encoding="utf-8"))["keys"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return keys if isinstance(keys, list) else None


def stamp(path: Path) -> tuple[int, int, int] | None:
    """Return what changes when a file is replaced or written; None without a file."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size


class Files:
    """The configuration and the keys, read again when their files changed."""

    def __init__(self, configuration: Path) -> None:
        self._path = configuration
        self._stamps: tuple[Any, Any] | None = None
        self._read: tuple[dict[str, Any], list[Any] | None] | None = None

    def read(self) -> tuple[dict[str, Any], list[Any] | None]:
        """Return both. Raises OSError or ValueError for a configuration that can't be read: nobody enters then."""
        own = stamp(self._path)
        last = self._read
        if last is not None and self._stamps == (own, self._stamp_of_keys(last[0])):
            return last
        configuration = json.loads(self._path.read_text(encoding="utf-8"))
        stamps = (own, self._stamp_of_keys(configuration))
        jwt = configuration["jwt"]
        fresh = (configuration, read_keys(Path(jwt["jwks_path"])) if jwt is not None else None)
        self._read, self._stamps = fresh, stamps
        return fresh

    def _stamp_of_keys(self, configuration: Mapping[str, Any]) -> Any:
        jwt = configuration["jwt"]
        return stamp(Path(jwt["jwks_path"])) if jwt is not None else None


class Handler(http.server.BaseHTTPRequestHandler):
    """One connection of NGINX's, kept open."""

    protocol_version = "HTTP/1.1"
    timeout = 120
    files: Files

    def log_message(self, *__: Any) -> None:
        """Stay quiet: NGINX logs each request, with the identity and without the token."""

    def address_string(self) -> str:
        """Return nothing: a unix socket has no address."""
        return ""

    def do_GET(self) -> None:
        """Answer one question."""
        realm, verdict = "", UNAVAILABLE
        try:
            configuration, keys = self.files.read()
            realm = configuration["realm"]
            authorization = self.headers.get("Authorization", "")
            verdict = judge(configuration, keys, authorization, self.headers.get("X-Gateway-Scope", ""), time.time())
        except (OSError, ValueError, KeyError, TypeError) as fault:
            log(f"can't tell who asks: {type(fault).__name__}: {fault}")
        self.send_response(verdict.status)
        if verdict.identity is not None:
            self.send_header("X-Gateway-Identity", verdict.identity)
        if verdict.status in (401, 403):
            self.send_header("X-Gateway-Challenge", challenge(realm, verdict))
            self.send_header("X-Gateway-Denial", verdict.description or "no credentials")
        if verdict.status != 204:
            self.send_header("Content-Length", "0")
        self.end_headers()


class Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    """A thread for each of NGINX's connections, of which there are a few dozen."""

    daemon_threads = True
    request_queue_size = 512


def verify() -> None:
    """Answer NGINX until SIGTERM."""
    Handler.files = Files(CONFIGURATION)
    Handler.files.read()
    SOCKET.unlink(missing_ok=True)
    with Server(str(SOCKET), Handler) as server:
        notify_systemd("READY=1")
        server.serve_forever()


# --------------------------------------------------------------------------------------------------------- refresh


class NoRedirectToPlainHttp(urllib.request.HTTPRedirectHandler):
    """Whoever answers the fetch decides who may enter, so no redirect leads out of TLS."""

    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        """Follow a redirect if it stays within https."""
        if not newurl.lower().startswith("https://"):
            raise urllib.error.URLError(f"redirected to {newurl}, wanted https")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def fetch(url: str, authority: str | None) -> str:
    """GET the key set. Raises OSError, ValueError or HTTPException."""
    context = ssl.create_default_context(cafile=authority)
    opener = urllib.request.build_opener(urllib.request.HTTPSHandler(context=context), NoRedirectToPlainHttp)
    request = urllib.request.Request(url, headers={"Accept": "application/json", "User-Agent": "gpufleet-identity"})
    with opener.open(request, timeout=FETCH_TIMEOUT_SECONDS) as answer:
        body = answer.read(MAX_KEY_SET_BYTES + 1)
    if len(body) > MAX_KEY_SET_BYTES:
        raise ValueError(f"the answer is longer than {MAX_KEY_SET_BYTES} bytes")
    return str(body.decode("utf-8"))


def usable_kids(text: str) -> list[str]:
    """Return the kids that a token can be verified with. Raises ValueError for what is no key set with such a key."""
    document = json.loads(text)
    keys = document.get("keys") if isinstance(document, dict) else None
    if not isinstance(keys, list):
        raise ValueError("the answer has no list 'keys'")
    kids = [
        key["kid"]
        for key in keys
        if isinstance(key, dict)
        and isinstance(key.get("kid"), str)
        and any(fits(key, key["kid"], algorithm) for algorithm in ALGORITHMS)
    ]
    if not kids:
        raise ValueError(f"none of its {len(keys)} keys has a kid and is for {' or '.join(ALGORITHMS)}")
    return sorted(kids)


def replace_file(path: Path, text: str) -> None:
    """Write a file completely, then rename it into place."""
    beside = path.with_name(f".{path.name}.new")
    with open(beside, "w", encoding="utf-8") as handle:
        handle.write(text)
        handle.flush()
        os.fsync(handle.fileno())
    os.replace(beside, path)


class Refresher:
    """Decides when to fetch, and what to do with the answer."""

    def __init__(self, jwt: Mapping[str, Any]) -> None:
        self.jwt = jwt
        self.path = Path(jwt["jwks_path"])
        #: By a clock that nobody sets; ``fetched_at`` is a time of day.
        self.tried_at: float | None = None
        self.fetched_at: float | None = None
        self.failures = 0
        self.fault: str | None = None
        self._mark = stamp(UNKNOWN_KEY_MARK)
        with contextlib.suppress(OSError):
            self.fetched_at = self.path.stat().st_mtime

    def is_due(self, now: float) -> bool:
        """Return whether to fetch now: by age, after a failure, or because a token named an unknown key."""
        if self.tried_at is None:
            return True
        since = now - self.tried_at
        if since < REFETCH_SECONDS:
            return False
        wanted = stamp(UNKNOWN_KEY_MARK) not in (None, self._mark)
        return wanted or self.fault is not None or since >= self.jwt["jwks_refresh_seconds"]

    def refresh(self, now: float) -> None:
        """Fetch once; what can't be used changes nothing. ``now`` is as :meth:`is_due` is told it."""
        self.tried_at, self._mark = now, stamp(UNKNOWN_KEY_MARK)
        try:
            text = fetch(self.jwt["jwks_url"], self.jwt["jwks_ca_path"])
            kids = usable_kids(text)
        except (OSError, ValueError, http.client.HTTPException) as fault:
            self.failures += 1
            if str(fault) != self.fault:
                kept = "the last good keys go on" if self.path.exists() else "no token can be verified"
                log(f"{self.jwt['jwks_url']}: {fault}; {kept}")
            self.fault = str(fault)
            return
        before = None
        with contextlib.suppress(OSError):
            before = self.path.read_text(encoding="utf-8")
        if text != before:
            replace_file(self.path, text)
            log(f"{self.jwt['jwks_url']}: new keys, {', '.join(kids)}")
        elif self.fault is not None:
            log(f"{self.jwt['jwks_url']}: answers again")
        self.fault, self.fetched_at = None, time.time()

    def metrics(self) -> str:
        """Return the state in Prometheus' text format."""
        lines = []
        for name, kind, text, value in (
            ("fetch_failures_total", "counter", "Fetches of the key set that failed.", self.failures),
            ("fetch_failing", "gauge", "Whether the last fetch failed.", int(self.fault is not None)),
            (
                "fetched_timestamp_seconds",
                "gauge",
                "When the key set was last fetched; 0 for never.",
                self.fetched_at or 0,
            ),
        ):
            full = f"gpufleet_identity_keys_{name}"
            lines += [f"# HELP {full} {text}", f"# TYPE {full} {kind}", f"{full} {float(value)!r}"]
        return "\n".join(lines) + "\n"


def refresh() -> None:
    """Keep the key set fresh until SIGTERM, or until the configuration changes: systemd starts it again then."""
    begun_with = stamp(CONFIGURATION)
    jwt = json.loads(CONFIGURATION.read_text(encoding="utf-8"))["jwt"]
    refresher = Refresher(jwt)
    # A first start is over when it is known whether the issuer answers.
    while stamp(CONFIGURATION) in (begun_with, None):
        if refresher.is_due(time.monotonic()):
            refresher.refresh(time.monotonic())
            replace_file(METRICS, refresher.metrics())
            notify_systemd("READY=1")
        time.sleep(1.0)
    log("the configuration changed")


def notify_systemd(message: str) -> None:
    """Tell systemd that the service is ready, if it runs as one."""
    path = os.environ.get("NOTIFY_SOCKET")
    if not path:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
        channel.sendto(message.encode(), "\0" + path[1:] if path.startswith("@") else path)


def log(message: str) -> None:
    """Write a line for the journal."""
    print(message, file=sys.stderr, flush=True)


def main(words: Sequence[str]) -> int:
    """Run one of the two services."""
    services = {"verify": verify, "refresh": refresh}
    if len(words) != 1 or words[0] not in services:
        log(f"usage: identity_service.py {' | '.join(services)}")
        return 2
    try:
        services[words[0]]()
    except (OSError, ValueError, KeyError) as fault:
        log(f"identity_service.py {words[0]}: {type(fault).__name__}: {fault}")
        return 1
    return 0


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *__: sys.exit(0))
    sys.exit(main(sys.argv[1:]))
