# SPDX-License-Identifier: Apache-2.0
# PRIVATE to the collection: do not import this from outside, it may change without notice.
"""Make values of every kind of secret. Randomness is the operating system's; times come in as arguments."""

from __future__ import annotations

import base64
import ipaddress
import os
import re
import secrets
import string
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime, timedelta, timezone
from typing import Any, Optional

from ansible_collections.gpufleet.metal.plugins.module_utils._errors import InvalidInputError
from ansible_collections.gpufleet.metal.plugins.module_utils._pki import RENEW_AT, normal_names
from ansible_collections.gpufleet.metal.plugins.module_utils._secrets.document import StoreError
from ansible_collections.gpufleet.metal.plugins.module_utils._secrets.envelope import key_id
from ansible_collections.gpufleet.metal.plugins.module_utils._secrets.file_store import read_private

with suppress(ImportError):  # ansible-core itself needs it on the controller, where alone this is used
    from cryptography import x509
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
    from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

DAY = 86400

Authority = Optional[Mapping[str, str]]
"""The value of a secret of kind authority that signs, where ``ca_secret`` names one."""

_USER_NAME = re.compile(r"[a-z][a-z0-9._-]{0,31}")


@dataclass(frozen=True)
class Made:
    """A new value; ``expires`` is set where it stops working by itself."""

    value: Mapping[str, str]
    expires: int | None = None
    created: int | None = None
    """When it was made, for what was in use before; None is now."""

    def __repr__(self) -> str:
        """Show what it consists of, never the value."""
        return f"Made({', '.join(sorted(self.value))})"


@dataclass(frozen=True)
class Kind:
    """A kind of secret: what may be said about it, how it is made and how old it may become."""

    options: Mapping[str, Any]
    """Each option with its default; None means that it must be given."""
    make: Callable[[Mapping[str, Any], int, Authority], Made]
    max_age_days: int
    adopt: Callable[[Mapping[str, Any], int], Made | None] = lambda options, now: None
    """What is in use already and becomes the first value; None where there is nothing."""


def make(kind: str, options: Mapping[str, Any], now: int, authority: Authority = None) -> Made:
    """Make a new value. ``options`` are complete, as :func:`check_options` returns them; ``authority`` signs."""
    return KINDS[kind].make(options, now, authority)


def first(kind: str, options: Mapping[str, Any], now: int, authority: Authority = None) -> Made:
    """Return the first value of a secret: what is in use before there is a store of secrets, or else a new one."""
    return KINDS[kind].adopt(options, now) or make(kind, options, now, authority)


def check_options(kind: str, options: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Return the options with defaults. Raises InvalidInputError that names ``where`` the option is written."""
    if kind not in KINDS:
        raise InvalidInputError(f"{where}.kind is {kind!r}, wanted one of {', '.join(KINDS)}")
    known = KINDS[kind].options
    unknown = sorted(set(options) - set(known))
    if unknown:
        raise InvalidInputError(
            f"{where}.options has {unknown[0]!r}, {kind} knows {', '.join(known) if known else 'no options'}"
        )
    complete = {**known, **options}
    for name, value in complete.items():
        check = _AUTHORITY_DAYS if (kind, name) == ("authority", "days") else _CHECKS[name]
        if not check.holds(value):
            raise InvalidInputError(f"{where}.options.{name} is {value!r}, wanted {check.wanted}")
    if kind in ("password", "login") and complete["length"] < len(complete["characters"]):
        raise InvalidInputError(
            f"{where}.options.length is {complete['length']}, wanted at least one for each of the "
            f"{len(complete['characters'])} sets of characters"
        )
    files = sorted({"ca_certificate_path", "ca_key_path"} & set(options))
    if complete.get("ca_secret") and files:
        raise InvalidInputError(
            f"{where}.options has ca_secret and {files[0]}, wanted the authority in the store or the one in files"
        )
    return complete


# ---------------------------------------------------------------------------------------------------------- makers


def _token(options: Mapping[str, Any], now: int, authority: Authority = None) -> Made:
    return Made({"value": secrets.token_urlsafe(options["bytes"])})


def _password(options: Mapping[str, Any], now: int, authority: Authority = None) -> Made:
    sets: list[str] = list(options["characters"])
    every = sorted(set("".join(sets)))
    chosen = [secrets.choice(sorted(set(letters))) for letters in sets]
    chosen += [secrets.choice(every) for __ in range(options["length"] - len(chosen))]
    secrets.SystemRandom().shuffle(chosen)
    return Made({"value": "".join(chosen)})


def _login(options: Mapping[str, Any], now: int, authority: Authority = None) -> Made:
    """Make another user: a registry knows one password of each, and two have to work for a while."""
    password = _password(options, now).value["value"]
    return Made({"username": f"{options['username']}-{secrets.token_hex(4)}", "password": password})


def _random_base64(size: int) -> Callable[[Mapping[str, Any], int, Authority], Made]:
    def make_bytes(options: Mapping[str, Any], now: int, authority: Authority) -> Made:
        return Made({"value": base64.b64encode(secrets.token_bytes(size)).decode()})

    return make_bytes


def _rsa_key(options: Mapping[str, Any], now: int, authority: Authority = None) -> Made:
    return Made(_pair(rsa.generate_private_key(public_exponent=65537, key_size=options["bits"])))


def _ec_key(options: Mapping[str, Any], now: int, authority: Authority = None) -> Made:
    return Made(_pair(ec.generate_private_key(_curve(options["curve"]))))


def _ed25519_key(options: Mapping[str, Any], now: int, authority: Authority = None) -> Made:
    return Made(_pair(ed25519.Ed25519PrivateKey.generate()))


def _certificate(options: Mapping[str, Any], now: int, authority: Authority = None) -> Made:
    """Issue a leaf as roles/pki does: P-256, ten minutes back for slow clocks, and not a minute longer than asked."""
    if authority is None:
        source = options["ca_certificate_path"]
        signer, signer_key = _authority(source, options["ca_key_path"])
    else:
        source = f"{options['ca_secret']} in the store"
        signer, signer_key = _stored_authority(authority)
    begin = datetime.fromtimestamp(now, timezone.utc) - timedelta(minutes=10)
    end = begin + timedelta(days=options["days"])
    if end > signer.not_valid_after_utc:
        raise StoreError(
            f"the authority {source} ends on {signer.not_valid_after_utc:%Y-%m-%d}, before a certificate of "
            f"{options['days']} days would: make a new authority first"
        )
    key = ec.generate_private_key(ec.SECP256R1())
    purposes = {"server": ExtendedKeyUsageOID.SERVER_AUTH, "client": ExtendedKeyUsageOID.CLIENT_AUTH}
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, options["common_name"])]))
        .issuer_name(signer.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(begin)
        .not_valid_after(end)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_digital_signature(), critical=True)
        .add_extension(x509.ExtendedKeyUsage([purposes[name] for name in options["purposes"]]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(_issuer_identifier(signer), critical=False)
    )
    if options["subject_alt_names"]:
        names = [_general_name(name) for name in normal_names(options["subject_alt_names"])]
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    # Ed25519 has its digest built in (RFC 8032).
    digest = None if isinstance(signer_key, ed25519.Ed25519PrivateKey) else hashes.SHA256()
    leaf = builder.sign(signer_key, digest)
    value = {
        "private_key": _private_pem(key),
        "certificate": leaf.public_bytes(serialization.Encoding.PEM).decode(),
        "serial": f"{leaf.serial_number:x}",
    }
    return Made(value, expires=int(end.timestamp()))


def _new_authority(options: Mapping[str, Any], now: int, authority: Authority = None) -> Made:
    """Make an authority as roles/pki does. Its name ends in a part of its key's, so that no two are called alike.

    While one takes over from another both are trusted, and some clients look for an issuer by its name alone.
    """
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name(
        [x509.NameAttribute(NameOID.COMMON_NAME, f"{options['common_name']} {key_id(key.public_key())[:8]}")]
    )
    begin = datetime.fromtimestamp(now, timezone.utc) - timedelta(hours=1)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(begin)
        .not_valid_after(begin + timedelta(days=options["days"]))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_certificate_signing(), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    return _authority_value(certificate, key)


def _authority_in_place(options: Mapping[str, Any], now: int) -> Made | None:
    """Return the authority that roles/pki keeps in files, if there is one: who trusts it goes on doing so."""
    if not os.path.exists(options["ca_certificate_path"]):
        return None
    certificate, key = _authority(options["ca_certificate_path"], options["ca_key_path"])
    # Its life began when it was made, not when the store took it in.
    return replace(_authority_value(certificate, key), created=int(certificate.not_valid_before_utc.timestamp()))


def _authority_value(certificate: x509.Certificate, key: Any) -> Made:
    value = {
        "private_key": _private_pem(key),
        "certificate": certificate.public_bytes(serialization.Encoding.PEM).decode(),
    }
    return Made(value, expires=int(certificate.not_valid_after_utc.timestamp()))


def _authority(certificate_path: str, key_path: str) -> tuple[x509.Certificate, Any]:
    try:
        with open(certificate_path, "rb") as stream:
            certificate = x509.load_pem_x509_certificate(stream.read())
    except (OSError, ValueError):
        raise StoreError(
            f"{certificate_path} holds no certificate of an authority (ca_certificate_path): gpufleet.metal.gateway "
            f"makes one"
        ) from None
    pem = read_private(key_path, "authority's key")
    try:
        key: Any = serialization.load_pem_private_key(pem, password=None)
    except (TypeError, ValueError):
        raise StoreError(f"{key_path} holds no private key in PEM without a passphrase (ca_key_path)") from None
    if key_id(key.public_key()) != key_id(certificate.public_key()):
        raise StoreError(f"{key_path} is not the key of the authority {certificate_path}: set ca_key_path")
    return certificate, key


def client_certificate(authority: Mapping[str, str], common_name: str, now: int) -> str:
    """Issue a certificate for a client that lives half an hour, and return it with its key, in PEM."""
    options = {**KINDS["certificate"].options, "common_name": common_name, "days": 30 / 1440, "purposes": ["client"]}
    made = _certificate(options, now, authority)
    return made.value["certificate"] + made.value["private_key"]


def _stored_authority(value: Mapping[str, str]) -> tuple[x509.Certificate, Any]:
    certificate = x509.load_pem_x509_certificate(value["certificate"].encode())
    return certificate, serialization.load_pem_private_key(value["private_key"].encode(), password=None)


def signed_by(value: Mapping[str, str], authority: Mapping[str, str]) -> bool:
    """Tell whether an authority signed a certificate; both are values of secrets."""
    leaf = x509.load_pem_x509_certificate(value["certificate"].encode())
    try:
        leaf.verify_directly_issued_by(x509.load_pem_x509_certificate(authority["certificate"].encode()))
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True


def _issuer_identifier(authority: x509.Certificate) -> x509.AuthorityKeyIdentifier:
    try:
        identifier = authority.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    except x509.ExtensionNotFound:
        # An authority need not say how its key is called; then it is called as RFC 5280, 4.2.1.2, proposes.
        public_key: Any = authority.public_key()
        return x509.AuthorityKeyIdentifier.from_issuer_public_key(public_key)
    return x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier)


def _general_name(name: str) -> x509.GeneralName:
    kind, __, value = name.partition(":")
    return x509.DNSName(value) if kind == "DNS" else x509.IPAddress(ipaddress.ip_address(value))


def _digital_signature() -> x509.KeyUsage:
    return x509.KeyUsage(True, False, False, False, False, False, False, False, False)


def _certificate_signing() -> x509.KeyUsage:
    return x509.KeyUsage(False, False, False, False, False, True, True, False, False)


def _curve(name: str) -> ec.EllipticCurve:
    return {"P-256": ec.SECP256R1, "P-384": ec.SECP384R1}[name]()


def _pair(key: Any) -> dict[str, str]:
    public = key.public_key()
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    return {
        "private_key": _private_pem(key),
        "public_key": public.public_bytes(serialization.Encoding.PEM, form).decode(),
        "kid": key_id(public),
    }


def _private_pem(key: Any) -> str:
    encoding, form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    pem: bytes = key.private_bytes(encoding, form, serialization.NoEncryption())
    return pem.decode()


# ------------------------------------------------------------------------------------------------------- the table


@dataclass(frozen=True)
class _Check:
    holds: Callable[[Any], bool]
    wanted: str


def _whole(low: int, high: int) -> _Check:
    def holds(value: Any) -> bool:
        return isinstance(value, int) and not isinstance(value, bool) and low <= value <= high

    return _Check(holds, f"a whole number from {low} to {high}")


def _text(wanted: str) -> _Check:
    return _Check(lambda value: isinstance(value, str) and value != "", wanted)


def _some_of(choices: tuple[str, ...]) -> _Check:
    def holds(value: Any) -> bool:
        return isinstance(value, list) and value != [] and all(item in choices for item in value)

    return _Check(holds, f"a list of {' and '.join(choices)}")


def _names(value: Any) -> bool:
    try:
        return isinstance(value, list) and (value == [] or normal_names(value) != [])
    except (InvalidInputError, AttributeError):
        return False


def _texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) and item != "" for item in value)


_CHECKS: Mapping[str, _Check] = {
    "bytes": _whole(16, 1024),
    "length": _whole(12, 1024),
    "username": _Check(
        lambda value: isinstance(value, str) and _USER_NAME.fullmatch(value) is not None,
        "what users' names begin with: up to 32 small letters, digits and any of . _ -, beginning with a letter",
    ),
    "characters": _Check(lambda value: _texts(value) and value != [], "a list of texts, one character of each is used"),
    "bits": _whole(2048, 16384),
    "curve": _Check(lambda value: value in ("P-256", "P-384"), "P-256 or P-384"),
    "common_name": _text("the name of the certificate's holder"),
    "subject_alt_names": _Check(_names, "a list of DNS:<host name> or IP:<address>"),
    "days": _whole(1, 825),
    "purposes": _some_of(("server", "client")),
    "ca_secret": _Check(lambda value: isinstance(value, str), "the name of a secret of kind authority"),
    "ca_certificate_path": _text("the path of the authority's certificate on the controller"),
    "ca_key_path": _text("the path of the authority's key on the controller"),
}

#: A leaf lives at most as long as clients accept; an authority outlives many of them.
_AUTHORITY_DAYS = _whole(365, 7300)

_LETTERS = [string.ascii_lowercase, string.ascii_uppercase, string.digits, "-_.:"]

KINDS: Mapping[str, Kind] = {
    "token": Kind({"bytes": 32}, _token, 90),
    "password": Kind(
        {"length": 24, "characters": _LETTERS},
        _password,
        90,
    ),
    "login": Kind({"username": None, "length": 32, "characters": _LETTERS}, _login, 90),
    "rsa_key": Kind({"bits": 3072}, _rsa_key, 90),
    "ec_key": Kind({"curve": "P-256"}, _ec_key, 90),
    "ed25519_key": Kind({}, _ed25519_key, 90),
    "certificate": Kind(
        {
            "common_name": None,
            "subject_alt_names": [],
            "days": 90,
            "purposes": ["server"],
            "ca_secret": "",
            "ca_certificate_path": ".gpufleet/pki/ca.crt",
            "ca_key_path": ".gpufleet/pki/ca.key",
        },
        _certificate,
        825,
    ),
    "authority": Kind(
        {
            "common_name": "gpufleet internal CA",
            "days": 3650,
            "ca_certificate_path": ".gpufleet/pki/ca.crt",
            "ca_key_path": ".gpufleet/pki/ca.key",
        },
        _new_authority,
        3650,
        _authority_in_place,
    ),
    "kubernetes_encryption_key": Kind({}, _random_base64(32), 90),
    "tls_ticket_key": Kind({}, _random_base64(80), 1),
}


def due_at(kind: str, created: int, expires: int | None, max_age_days: int | None) -> int:
    """Return when a version is to be replaced: at its greatest age, or when two thirds of its life are over.

    Raises StoreError for a kind that a newer version has added.
    """
    if kind not in KINDS:
        raise StoreError(
            f"the store holds a secret of kind {kind!r}, this version knows {', '.join(KINDS)}: use a newer "
            f"gpufleet.metal"
        )
    oldest = created + (KINDS[kind].max_age_days if max_age_days is None else max_age_days) * DAY
    return oldest if expires is None else min(oldest, created + int((expires - created) * RENEW_AT))
