# SPDX-License-Identifier: Apache-2.0
"""Certificates and requests, held against those that cryptography makes."""

from __future__ import annotations

import base64
import datetime
import hashlib
import ipaddress
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID

from ansible_collections.gpufleet.metal.plugins.module_utils._kubernetes import certificates

UTC = datetime.UTC
NAME = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "kubernetes")])


def certificate(key: Any, end: datetime.datetime) -> str:
    built = (
        x509.CertificateBuilder()
        .subject_name(NAME)
        .issuer_name(NAME)
        .public_key(key.public_key())
        .serial_number(7)
        .not_valid_before(datetime.datetime(2026, 1, 1, tzinfo=UTC))
        .not_valid_after(end)
        .sign(key, hashes.SHA256())
    )
    return built.public_bytes(serialization.Encoding.PEM).decode()


def request(*names: x509.GeneralName) -> str:
    builder = x509.CertificateSigningRequestBuilder().subject_name(NAME)
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    signed = builder.sign(ec.generate_private_key(ec.SECP256R1()), hashes.SHA256())
    return signed.public_bytes(serialization.Encoding.PEM).decode()


@pytest.mark.parametrize("key", [ec.generate_private_key(ec.SECP256R1()), rsa.generate_private_key(65537, 2048)])
@pytest.mark.parametrize("year", [2027, 2049, 2050, 2126])
def test_a_certificate(key: Any, year: int) -> None:
    end = datetime.datetime(year, 11, 28, 10, 20, 30, tzinfo=UTC)
    text = "a line before it\n" + certificate(key, end)
    assert certificates.ends_at(text) == end
    public = key.public_key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    assert certificates.public_key_digest(text) == "sha256:" + hashlib.sha256(public).hexdigest()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no CERTIFICATE in PEM format"),
        ("-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----", "no CERTIFICATE in PEM format"),
        ("-----BEGIN CERTIFICATE-----\nMIID\n-----END CERTIFICATE-----", "it ends in the middle of an element"),
        ("-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----", "no CERTIFICATE within its PEM"),
        ("-----BEGIN CERTIFICATE-----\nMAIwAA==\n-----END CERTIFICATE-----", "the certificate has no validity"),
    ],
)
def test_what_is_none(text: str, message: str) -> None:
    with pytest.raises(certificates.CertificateError) as caught:
        certificates.ends_at(text)
    assert str(caught.value) == message


def test_the_names_of_a_request() -> None:
    text = request(
        x509.IPAddress(ipaddress.ip_address("192.0.2.7")),
        x509.IPAddress(ipaddress.ip_address("2001:db8::7")),
        x509.DNSName("gpu-1"),
    )
    assert certificates.names_of_request(text) == ["192.0.2.7", "2001:db8::7", "gpu-1"]
    assert certificates.names_of_request(request()) == []
    # Others are shown as they are, so that they match no allowed name.
    assert certificates.names_of_request(request(x509.RFC822Name("a@example.org")))[0].startswith("0x81:")


def spec(text: str, **changes: Any) -> dict[str, Any]:
    packed = base64.b64encode(text.encode()).decode()
    usages = ["digital signature", "server auth"]
    return {"username": "system:node:gpu-1", "usages": usages, "request": packed, **changes}


OWN = (x509.DNSName("gpu-1"), x509.IPAddress(ipaddress.ip_address("192.0.2.7")))


@pytest.mark.parametrize(
    ("names", "changes", "faults"),
    [
        (OWN, {}, []),
        (OWN, {"username": "system:node:gpu-2"}, ["it was made by system:node:gpu-2, wanted system:node:gpu-1"]),
        (
            OWN,
            {"usages": ["client auth", "server auth"]},
            ["it asks for ['client auth', 'server auth'], wanted server auth alone"],
        ),
        (OWN, {"usages": ["digital signature"]}, ["it asks for ['digital signature'], wanted server auth alone"]),
        (
            (*OWN, x509.DNSName("cp-1")),
            {},
            ["it asks for 192.0.2.7, cp-1, gpu-1, wanted 192.0.2.7, gpu-1"],
        ),
        ((), {}, ["it asks for no name, wanted 192.0.2.7, gpu-1"]),
    ],
)
def test_which_requests_are_signed(names: tuple[Any, ...], changes: dict[str, Any], faults: list[str]) -> None:
    assert certificates.request_faults(spec(request(*names), **changes), "gpu-1", ["192.0.2.7"]) == faults
