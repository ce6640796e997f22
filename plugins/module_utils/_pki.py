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
from datetime import datetime, timedelta, timezone
from typing import Any

from ansible_collections.gpufleet.metal.plugins.module_utils._errors import InvalidInputError

RENEW_AT = 2 / 3
"""The part of its life after which a leaf is renewed: what remains is the time to notice that renewal fails."""

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
) -> list[str]:
    """Say why a leaf of the internal authority must be issued anew; an empty list keeps it.

    ``info`` is None if there is none, ``key_fingerprints`` if the key was or will be made anew, ``authority`` if the
    authority was or will be.
    """
    if info is None:
        return ["there is no certificate yet"]
    reasons = []
    wanted, found = normal_names(names), _names_of(info)
    if found != wanted:
        reasons.append(f"its names are {', '.join(found) or 'none'}, wanted {', '.join(wanted)}")
    subject = (info.get("subject") or {}).get("commonName")
    if subject != common_name:
        reasons.append(f"its common name is {subject}, wanted {common_name}")
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
            f"another pki_directory and give it to every client first"
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
