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

OVERDUE_AT = 5 / 6
"""The part of its life after which nobody can say any more that the next run will renew it."""

_PURPOSES = {"TLS Web Server Authentication": "serverAuth", "TLS Web Client Authentication": "clientAuth"}
"""Extended key usage as community.crypto describes it -> as it is asked for."""

_TXT_VALUE = re.compile(r"[A-Za-z0-9_-]{1,255}")
"""What RFC 8555 has in a record: base64url."""

_BASE64 = re.compile(r"[A-Za-z0-9+/]+={0,2}")

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


def acme_names(names: Sequence[str]) -> list[str]:
    """Return the names that an ACME authority can be asked for: those that a DNS record can prove, in one form.

    Raises InvalidInputError if there is none.
    """
    wanted = normal_names(names)
    provable = [name for name in wanted if name.startswith("DNS:")]
    if not provable:
        raise InvalidInputError(
            f"pki_subject_alt_names holds {', '.join(wanted)}, wanted at least one DNS:<host name>, because pki_source "
            f"is acme and an ACME authority signs for what a record in DNS can prove"
        )
    return provable


def rfc2136_faults(update: Mapping[str, Any], names: Sequence[str]) -> list[str]:
    """Say why the records for these names can't be sent as ``pki_acme_rfc2136`` says."""
    faults = []
    zone = str(update["zone"]).lower().rstrip(".")
    if not _HOST.match(zone) or zone.startswith("*"):
        faults.append(f"pki_acme_rfc2136.zone is {update['zone']!r}, wanted the name of a zone")
    for option in ("server", "key_name"):
        value = str(update[option])
        if not value or re.search(r"\s", value):
            faults.append(f"pki_acme_rfc2136.{option} is {value!r}, wanted one word")
    if not _BASE64.fullmatch(str(update["key_secret"])):
        faults.append("pki_acme_rfc2136.key_secret is not base64, as the DNS server has it")
    outside = [name for name in names if not _in_zone(name.removeprefix("DNS:").removeprefix("*."), zone)]
    if outside:
        found = ", ".join(outside)
        faults.append(f"{found} is not in pki_acme_rfc2136.zone, {zone}; name tasks of your own in pki_acme_dns_tasks")
    return faults


def _in_zone(name: str, zone: str) -> bool:
    return name == zone or name.endswith(f".{zone}")


def dns_update(records: Sequence[Mapping[str, Any]], state: str, update: Mapping[str, Any]) -> str:
    """Write what nsupdate reads to add or delete the values of TXT records, each a ``name`` with ``values``.

    Other values of the same name stay: another host may be proving that name just now. Raises InvalidInputError for
    what is no name or value of a proof, because both come from the authority.
    """
    lines = [
        f"server {update['server']} {update.get('port') or 53}",
        f"zone {str(update['zone']).rstrip('.')}.",
        f"key {update.get('key_algorithm') or 'hmac-sha256'}:{update['key_name']} {update['key_secret']}",
    ]
    for record in records:
        name = str(record["name"]).rstrip(".").lower()
        if not name.startswith("_acme-challenge.") or not _HOST.match(name.removeprefix("_acme-challenge.")):
            raise InvalidInputError(f"the authority asks for a record {name!r}, wanted _acme-challenge.<host name>")
        for value in record["values"]:
            if not _TXT_VALUE.fullmatch(str(value)):
                raise InvalidInputError(f"the authority asks for the value {value!r} in {name}, wanted base64url")
            verb = f"add {name}. 60" if state == "present" else f"delete {name}."
            lines.append(f'update {verb} TXT "{value}"')
    return "\n".join([*lines, "send", ""])


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
    reasons.extend(_wrong_names(info, names))
    subject = (info.get("subject") or {}).get("commonName")
    if subject != common_name:
        reasons.append(f"its common name is {subject}, wanted {common_name}")
    proves = [_PURPOSES.get(purpose, purpose) for purpose in info.get("extended_key_usage") or []]
    if sorted(proves) != sorted(set(purposes)):
        reasons.append(f"it is for {', '.join(sorted(proves)) or 'no purpose'}, wanted {', '.join(sorted(purposes))}")
    reasons.extend(_wrong_key(info, key_fingerprints))
    signer = (authority or {}).get("subject_key_identifier")
    if signer is None or info.get("authority_key_identifier") != signer:
        reasons.append("another authority signed it")
    due = _due(info, now)
    begin, end = _life(info)
    if not due and end - begin > timedelta(days=days, hours=1):
        due = [f"it is valid for {(end - begin).days} days, wanted {days}"]
    return reasons + due


def acme_reasons(
    info: Mapping[str, Any] | None,
    names: Sequence[str],
    key_fingerprints: Mapping[str, str] | None,
    source: str | None,
    directory_url: str,
    now: str,
    renew: bool = False,
) -> list[str]:
    """Say why a certificate must be asked for at an ACME authority; an empty list keeps the one in place.

    Such an authority chooses subject, purposes, length of life and signer; none of them is a reason. ``source`` is the
    directory URL that the one in place came from, None if it did not come from such an authority.
    """
    if info is None:
        return ["there is no certificate yet"]
    reasons = ["pki_renew asks for it"] if renew else []
    if source is None:
        reasons.append(f"it did not come from {directory_url}")
    elif source != directory_url:
        reasons.append(f"it came from {source}, wanted {directory_url}")
    return [*reasons, *_wrong_names(info, names), *_wrong_key(info, key_fingerprints), *_due(info, now)]


def _wrong_names(info: Mapping[str, Any], names: Sequence[str]) -> list[str]:
    wanted, found = normal_names(names), _names_of(info)
    return [] if found == wanted else [f"its names are {', '.join(found) or 'none'}, wanted {', '.join(wanted)}"]


def _wrong_key(info: Mapping[str, Any], key_fingerprints: Mapping[str, str] | None) -> list[str]:
    fits = key_fingerprints is not None and _same_key(info, key_fingerprints)
    return [] if fits else ["it does not belong to the private key"]


def _life(info: Mapping[str, Any]) -> tuple[datetime, datetime]:
    return parse_time(str(info["not_before"])), parse_time(str(info["not_after"]))


def _due(info: Mapping[str, Any], now: str) -> list[str]:
    begin, end = _life(info)
    renewal = begin + (end - begin) * RENEW_AT
    return [f"two thirds of its life ended on {show_time(renewal)}"] if parse_time(now) >= renewal else []


def overdue_faults(info: Mapping[str, Any], now: str) -> list[str]:
    """Say since when a certificate should have been renewed, if that is so long ago that no run seems to do it."""
    begin, end = _life(info)
    if parse_time(now) < begin + (end - begin) * OVERDUE_AT:
        return []
    return [
        f"it ends on {show_time(end)} and should have been renewed on {show_time(begin + (end - begin) * RENEW_AT)}: "
        f"run playbooks/renew_certificates.yml daily"
    ]


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
    info: Mapping[str, Any],
    names: Sequence[str],
    key_fingerprints: Mapping[str, str],
    now: str,
    key_name: str = "the key in pki_provided_key_path",
) -> list[str]:
    """Say why a certificate that somebody else signed can't serve these names with this key."""
    faults = []
    found = _names_of(info)
    missing = [name for name in normal_names(names) if not covers(found, name)]
    if missing:
        faults.append(f"it does not cover {', '.join(missing)} (it covers {', '.join(found) or 'no name'})")
    if not _same_key(info, key_fingerprints):
        faults.append(f"it does not belong to {key_name}")
    (begin, end), moment = _life(info), parse_time(now)
    if moment >= end:
        faults.append(f"it expired on {show_time(end)}")
    if moment < begin:
        faults.append(f"it is not valid before {show_time(begin)}")
    return faults


def chain_faults(
    chain: str, now: str, trusted: str | None = None, trusted_name: str = "pki_provided_ca_path"
) -> list[str]:
    """Say why a PEM file, a certificate with its chain after it, does not lead to an authority.

    Every further certificate has to be an authority's, to be valid now, and to have signed the one before it; and the
    last one has to be one of ``trusted``, or signed by one of these. ``trusted`` is a PEM file, None for whatever
    clients trust by themselves; ``trusted_name`` is the option that it comes from. The first certificate's own names,
    key and dates are :func:`provided_faults`' matter.
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
        faults.extend(f"{what} {fault}" for fault in _not_valid(signer, moment))
    if trusted is not None:
        last = certificates[-1]
        anchors = _read_certificates(trusted, trusted_name)
        signers = [anchor for anchor in anchors if last == anchor or _signed_by(last, anchor)]
        if not signers:
            names = ", ".join(_subject(anchor) for anchor in anchors)
            faults.append(
                f"its last certificate ({_subject(last)}) names {last.issuer.rfc4514_string()} as its authority, "
                f"and none of {trusted_name} ({names}) signed it; append what is missing between them, or name who did "
                f"sign it in {trusted_name}"
            )
        faults.extend(_none_valid(signers, moment, trusted_name))
    return faults


def trusted_faults(trusted: str, now: str, trusted_name: str) -> list[str]:
    """Say why nobody can trust by a PEM file of authorities: none of them is valid now.

    ``trusted_name`` is the option that it comes from. Raises InvalidInputError for what is no such file.
    """
    return _none_valid(_read_certificates(trusted, trusted_name), parse_time(now), trusted_name)


def _none_valid(anchors: Sequence[x509.Certificate], moment: datetime, trusted_name: str) -> list[str]:
    """Say so if there are authorities and none of them is valid."""
    faults = [[f"{_subject(anchor)} {fault}" for fault in _not_valid(anchor, moment)] for anchor in anchors]
    if not faults or not all(faults):
        return []
    found = ", ".join(fault for of_one in faults for fault in of_one)
    return [f"{trusted_name} holds no authority that is valid now: {found}; put there whom clients trust"]


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


def _not_valid(certificate: x509.Certificate, moment: datetime) -> list[str]:
    """Say why a certificate's time is not now."""
    begin, end = _validity(certificate)
    faults = [f"expired on {show_time(end)}"] if moment >= end else []
    return [*faults, f"is not valid before {show_time(begin)}"] if moment < begin else faults


def _validity(certificate: x509.Certificate) -> tuple[datetime, datetime]:
    """Begin and end. The older names are those that every cryptography of the supported ansible-core has."""
    if hasattr(certificate, "not_valid_before_utc"):
        return certificate.not_valid_before_utc, certificate.not_valid_after_utc
    begin, end = certificate.not_valid_before, certificate.not_valid_after
    return begin.replace(tzinfo=timezone.utc), end.replace(tzinfo=timezone.utc)


def _subject(certificate: x509.Certificate) -> str:
    return certificate.subject.rfc4514_string() or "without a subject"
