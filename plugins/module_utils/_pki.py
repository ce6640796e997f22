# SPDX-License-Identifier: Apache-2.0
# PRIVATE to the collection: do not import this from outside, it may change without notice.
"""Judge certificates: is this leaf still the one that is wanted, and if not, why. Pure; times come in as arguments.

A certificate is described as ``community.crypto.x509_certificate_info`` describes it. Times are ASN.1 generalised
time in UTC, ``YYYYMMDDHHMMSSZ``.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import datetime, timedelta, timezone
from typing import Any

from ansible_collections.gpufleet.metal.plugins.module_utils._errors import InvalidInputError

with suppress(ImportError):  # ansible-core itself needs it on the controller, where alone chains are judged
    from cryptography import x509
    from cryptography.exceptions import InvalidSignature

RENEW_AT = 2 / 3
"""The part of its life after which a leaf is renewed: what remains is the time to notice that renewal fails."""

_PURPOSES = {"TLS Web Server Authentication": "serverAuth", "TLS Web Client Authentication": "clientAuth"}
"""Extended key usage as community.crypto describes it -> as it is asked for."""

_HOST = re.compile(r"^(?=.{1,253}$)(?:\*\.)?(?:(?!-)[a-z0-9-]{1,63}(?<!-)\.)*(?!-)[a-z0-9-]{1,63}(?<!-)$")


def parse_time(text: str) -> datetime:
    """Read generalised time. Raises InvalidInputError."""
    try:
        return datetime.strptime(text, "%Y%m%d%H%M%SZ").replace(tzinfo=timezone.utc)
    except ValueError as fault:
        raise InvalidInputError(f"{text!r} is no time of the form YYYYMMDDHHMMSSZ") from fault


def show_time(moment: datetime) -> str:
    """Write a time for people."""
    return moment.strftime("%Y-%m-%d %H:%M UTC")


def normal_name(name: str) -> str:
    """Bring a subject alternative name to one form. Raises InvalidInputError that names the option."""
    kind, separator, value = name.partition(":")
    if separator and kind.upper() == "DNS" and _HOST.match(value.lower()):
        return f"DNS:{value.lower()}"
    if separator and kind.upper() in ("IP", "IP ADDRESS"):
        try:
            return f"IP:{ipaddress.ip_address(value)}"
        except ValueError as fault:
            raise InvalidInputError(f"pki_subject_alt_names: {name!r} holds no IP literal") from fault
    raise InvalidInputError(f"pki_subject_alt_names: {name!r} is neither DNS:<host name> nor IP:<address>")


def normal_names(names: Sequence[str]) -> list[str]:
    """Bring names to one form, each once, sorted. Raises InvalidInputError, also for an empty list."""
    if not names:
        raise InvalidInputError("pki_subject_alt_names is empty, wanted at least one DNS:<host name> or IP:<address>")
    return sorted({normal_name(name) for name in names})


def covers(patterns: Sequence[str], name: str) -> bool:
    """Tell whether a certificate's names cover one name; a wildcard covers one label (RFC 6125, 6.4.3)."""
    if name in patterns:
        return True
    kind, __, value = name.partition(":")
    parent = value.partition(".")[2]
    return kind == "DNS" and bool(parent) and f"DNS:*.{parent}" in patterns


def _names_of(info: Mapping[str, Any]) -> list[str]:
    names = []
    for name in info.get("subject_alt_name") or []:
        try:
            names.append(normal_name(name))
        except InvalidInputError:  # a mail address or a URI: of no use to a server
            continue
    return sorted(names)


def _same_key(info: Mapping[str, Any], key_fingerprints: Mapping[str, str]) -> bool:
    mine = info.get("public_key_fingerprints") or {}
    shared = [name for name in ("sha256", "sha512") if name in mine and name in key_fingerprints]
    return bool(shared) and all(mine[name] == key_fingerprints[name] for name in shared)


def reissue_reasons(
    info: Mapping[str, Any] | None,
    names: Sequence[str],
    common_name: str,
    key_fingerprints: Mapping[str, str] | None,
    authority: Mapping[str, Any] | None,
    days: int,
    now: str,
    renew: bool = False,
    purposes: Sequence[str] = ("serverAuth",),
) -> list[str]:
    """Say why a leaf of the internal authority must be issued anew; an empty list keeps it.

    ``info`` is None if there is none, ``key_fingerprints`` if the key was or will be made anew, ``authority`` if the
    authority was or will be. With ``renew`` it is, whatever it is like.
    """
    if info is None:
        return ["there is no certificate yet"]
    reasons = ["pki_renew asks for it"] if renew else []
    wanted, found = normal_names(names), _names_of(info)
    if found != wanted:
        reasons.append(f"its names are {', '.join(found) or 'none'}, wanted {', '.join(wanted)}")
    subject = (info.get("subject") or {}).get("commonName")
    if subject != common_name:
        reasons.append(f"its common name is {subject}, wanted {common_name}")
    proves = [_PURPOSES.get(purpose, purpose) for purpose in info.get("extended_key_usage") or []]
    if sorted(proves) != sorted(set(purposes)):
        reasons.append(f"it is for {', '.join(sorted(proves)) or 'no purpose'}, wanted {', '.join(sorted(purposes))}")
    if key_fingerprints is None or not _same_key(info, key_fingerprints):
        reasons.append("it does not belong to the private key")
    signer = (authority or {}).get("subject_key_identifier")
    if signer is None or info.get("authority_key_identifier") != signer:
        reasons.append("another authority signed it")
    begin, end = parse_time(str(info["not_before"])), parse_time(str(info["not_after"]))
    renewal = begin + (end - begin) * RENEW_AT
    if parse_time(now) >= renewal:
        reasons.append(f"two thirds of its life ended on {show_time(renewal)}")
    elif end - begin > timedelta(days=days, hours=1):
        reasons.append(f"it is valid for {(end - begin).days} days, wanted {days}")
    return reasons


def authority_faults(info: Mapping[str, Any], days: int, now: str) -> list[str]:
    """Say why the internal authority can't sign a leaf of so many days."""
    end = parse_time(str(info["not_after"]))
    if end < parse_time(now) + timedelta(days=days):
        return [
            f"the authority ends on {show_time(end)}, before a certificate of {days} days would; make a new one in "
            f"another pki_directory and give it to every client first, or rotate the one in the store of secrets"
        ]
    return []


def provided_faults(
    info: Mapping[str, Any], names: Sequence[str], key_fingerprints: Mapping[str, str], now: str
) -> list[str]:
    """Say why a certificate that the user brought can't serve these names with this key."""
    faults = []
    found = _names_of(info)
    missing = [name for name in normal_names(names) if not covers(found, name)]
    if missing:
        faults.append(f"it does not cover {', '.join(missing)} (it covers {', '.join(found) or 'no name'})")
    if not _same_key(info, key_fingerprints):
        faults.append("it does not belong to the key in pki_provided_key_path")
    begin, end, moment = parse_time(str(info["not_before"])), parse_time(str(info["not_after"])), parse_time(now)
    if moment >= end:
        faults.append(f"it expired on {show_time(end)}")
    if moment < begin:
        faults.append(f"it is not valid before {show_time(begin)}")
    return faults


def chain_faults(chain: str, now: str, trusted: str | None = None) -> list[str]:
    """Say why a PEM file, a certificate with its chain after it, does not lead to an authority.

    Every further certificate has to be an authority's, to be valid now, and to have signed the one before it; and the
    last one has to be one of ``trusted``, or signed by one of these. ``trusted`` is a PEM file, None for whatever
    clients trust by themselves. The first certificate's own names, key and dates are :func:`provided_faults`' matter.
    """
    certificates = _read_certificates(chain, "the certificate file")
    moment = parse_time(now)
    faults = []
    for place, (signed, signer) in enumerate(zip(certificates, certificates[1:]), 2):
        what = f"certificate {place} of the chain ({_subject(signer)})"
        if not _signed_by(signed, signer):
            faults.append(f"{what} did not sign the one before it ({_subject(signed)})")
        if not _is_authority(signer):
            faults.append(f"{what} is not an authority's")
        begin, end = _validity(signer)
        if moment >= end:
            faults.append(f"{what} expired on {show_time(end)}")
        if moment < begin:
            faults.append(f"{what} is not valid before {show_time(begin)}")
    if trusted is not None:
        last = certificates[-1]
        anchors = _read_certificates(trusted, "pki_provided_ca_path")
        if not any(last == anchor or _signed_by(last, anchor) for anchor in anchors):
            names = ", ".join(_subject(anchor) for anchor in anchors)
            faults.append(
                f"its last certificate ({_subject(last)}) names {last.issuer.rfc4514_string()} as its authority, "
                f"and none of pki_provided_ca_path ({names}) signed it; append what is missing between them"
            )
    return faults


def _read_certificates(text: str, what: str) -> list[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(text.encode())
    except ValueError as fault:
        raise InvalidInputError(f"{what} holds no readable PEM certificate: {fault}") from fault


def _signed_by(signed: x509.Certificate, signer: x509.Certificate) -> bool:
    """Whether the issuer's name is the signer's, and the signature is its key's."""
    try:
        signed.verify_directly_issued_by(signer)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True


def _is_authority(certificate: x509.Certificate) -> bool:
    try:
        return certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except x509.ExtensionNotFound:
        return False


def _validity(certificate: x509.Certificate) -> tuple[datetime, datetime]:
    """Begin and end. The older names are those that every cryptography of the supported ansible-core has."""
    if hasattr(certificate, "not_valid_before_utc"):
        return certificate.not_valid_before_utc, certificate.not_valid_after_utc
    begin, end = certificate.not_valid_before, certificate.not_valid_after
    return begin.replace(tzinfo=timezone.utc), end.replace(tzinfo=timezone.utc)


def _subject(certificate: x509.Certificate) -> str:
    return certificate.subject.rfc4514_string() or "without a subject"
