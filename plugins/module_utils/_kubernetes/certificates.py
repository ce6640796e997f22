# SPDX-License-Identifier: Apache-2.0
# PRIVATE to the collection: do not import this from outside, it may change without notice.
"""What a host has to know of certificates, with nothing but Python: the digest by which a joining host knows its
cluster, when a certificate ends, and for whom a request asks.

Sources: RFC 5280 (certificates), RFC 2986 (requests), X.690 (DER). The digest is that of kubeadm's
--discovery-token-ca-cert-hash, SHA-256 of the SubjectPublicKeyInfo.
"""

from __future__ import annotations

import base64
import binascii
import datetime
import hashlib
import ipaddress
import re
from collections.abc import Iterator
from dataclasses import dataclass

from ansible_collections.gpufleet.metal.plugins.module_utils._errors import FleetError

_PEM = re.compile(r"-----BEGIN ([A-Z0-9 ]+)-----(.*?)-----END \1-----", re.DOTALL)
_SEQUENCE = 0x30
_OID = 0x06
_OCTETS = 0x04
_UTC_TIME = 0x17
_VERSION = 0xA0
_ATTRIBUTES = 0xA0
_DNS_NAME = 0x82
_ADDRESS = 0x87
_LONG_FORM = 0x80
_EXTENSION_REQUEST = bytes.fromhex("2a864886f70d01090e")
_SUBJECT_ALT_NAME = bytes.fromhex("551d11")
#: serialNumber, signature, issuer stand before the validity.
_BEFORE_VALIDITY = 3


class CertificateError(FleetError):
    """What should be a certificate or a request is none."""


@dataclass(frozen=True)
class Element:
    """One element of DER: its tag, its content, and all of its bytes."""

    tag: int
    content: bytes
    whole: bytes

    def children(self) -> list[Element]:
        """The elements within."""
        return list(elements(self.content))


def elements(data: bytes) -> Iterator[Element]:
    """Yield the elements one after the other."""
    position = 0
    while position < len(data):
        try:
            tag, length, start = data[position], data[position + 1], position + 2
            if length >= _LONG_FORM:
                count = length - _LONG_FORM
                length = int.from_bytes(data[start : start + count], "big")
                start += count
        except IndexError:
            raise CertificateError("it ends in the middle of an element") from None
        end = start + length
        if end > len(data):
            raise CertificateError("it ends in the middle of an element")
        yield Element(tag, data[start:end], data[position:end])
        position = end


def first_pem(text: str, label: str) -> bytes:
    """Return the bytes of the first block of a label."""
    for found in _PEM.finditer(text):
        if found.group(1) == label:
            try:
                return base64.b64decode("".join(found.group(2).split()), validate=True)
            except binascii.Error:
                break
    raise CertificateError(f"no {label} in PEM format")


def _body(text: str, label: str) -> list[Element]:
    try:
        outer = next(elements(first_pem(text, label)))
        return outer.children()[0].children()
    except (IndexError, StopIteration):
        raise CertificateError(f"no {label} within its PEM") from None


def _certificate(text: str) -> list[Element]:
    """Return the parts of a certificate from the validity on."""
    parts = _body(text, "CERTIFICATE")
    if parts and parts[0].tag == _VERSION:
        parts = parts[1:]
    return parts[_BEFORE_VALIDITY:]


def public_key_digest(text: str) -> str:
    """Return ``sha256:`` and the digest of a certificate's public key."""
    try:
        return "sha256:" + hashlib.sha256(_certificate(text)[2].whole).hexdigest()
    except IndexError:
        raise CertificateError("the certificate has no public key") from None


def _time(element: Element) -> datetime.datetime:
    digits = element.content.decode("ascii", "replace")
    if element.tag == _UTC_TIME:
        # Years from 50 on are of the last century.
        digits = ("19" if int(digits[:2]) >= 50 else "20") + digits
    return datetime.datetime.strptime(digits, "%Y%m%d%H%M%SZ").replace(tzinfo=datetime.timezone.utc)


def validity(text: str) -> tuple[datetime.datetime, datetime.datetime]:
    """Return when a certificate begins and when it ends."""
    try:
        times = _certificate(text)[0].children()
        begin, end = times[0], times[1]
    except IndexError:
        raise CertificateError("the certificate has no validity") from None
    return _time(begin), _time(end)


def ends_at(text: str) -> datetime.datetime:
    """Return when a certificate ends."""
    return validity(text)[1]


def serial(text: str) -> str:
    """Return a certificate's serial number in hexadecimal digits."""
    parts = _body(text, "CERTIFICATE")
    if parts and parts[0].tag == _VERSION:
        parts = parts[1:]
    if not parts:
        raise CertificateError("the certificate has no serial number")
    return f"{int.from_bytes(parts[0].content, 'big'):x}"


def is_due(begin: datetime.datetime, end: datetime.datetime, now: datetime.datetime) -> bool:
    """Whether two thirds of a certificate's life are over."""
    return (end - now) * 3 <= end - begin


def names_of_request(text: str) -> list[str]:
    """Return the names and addresses that a request asks for, sorted; other kinds with their tag."""
    found = []
    attributes = [part for part in _body(text, "CERTIFICATE REQUEST") if part.tag == _ATTRIBUTES]
    for attribute in [child for part in attributes for child in part.children()]:
        kind, *values = attribute.children()
        if kind.tag != _OID or kind.content != _EXTENSION_REQUEST or not values:
            continue
        for extension in values[0].children()[0].children():
            parts = extension.children()
            if parts[0].content == _SUBJECT_ALT_NAME and parts[-1].tag == _OCTETS:
                found += [_name(item) for item in next(elements(parts[-1].content)).children()]
    return sorted(found)


def _name(item: Element) -> str:
    if item.tag == _DNS_NAME:
        return item.content.decode("ascii", "replace")
    if item.tag == _ADDRESS and len(item.content) in (4, 16):
        return str(ipaddress.ip_address(item.content))
    return f"{item.tag:#04x}:{item.content.hex()}"


def request_faults(request: dict[str, object], node_name: str, addresses: list[str]) -> list[str]:
    """Return why a kubelet's request for its serving certificate is not signed.

    A node that is taken over must not get a certificate for another node's name or address.
    """
    usages = request.get("usages")
    text = base64.b64decode(str(request.get("request", ""))).decode("ascii", "replace")
    asked = names_of_request(text)
    allowed = {node_name, *addresses}
    found = []
    if request.get("username") != f"system:node:{node_name}":
        found.append(f"it was made by {request.get('username')}, wanted system:node:{node_name}")
    if not isinstance(usages, list) or "server auth" not in usages or "client auth" in usages:
        found.append(f"it asks for {usages}, wanted server auth alone")
    strangers = sorted({*asked} - allowed)
    if strangers or not asked:
        found.append(f"it asks for {', '.join(asked) or 'no name'}, wanted {', '.join(sorted(allowed))}")
    return found
