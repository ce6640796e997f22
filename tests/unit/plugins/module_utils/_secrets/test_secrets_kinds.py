# SPDX-License-Identifier: Apache-2.0
"""Every kind makes what its consumers can use, each time another one."""

from __future__ import annotations

import base64
import os
import re
import string
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from hypothesis import given, settings
from hypothesis import strategies as st

from ansible_collections.gpufleet.metal.plugins.module_utils._errors import InvalidInputError
from ansible_collections.gpufleet.metal.plugins.module_utils._secrets.document import StoreError
from ansible_collections.gpufleet.metal.plugins.module_utils._secrets.envelope import key_id
from ansible_collections.gpufleet.metal.plugins.module_utils._secrets.kinds import (
    KINDS,
    Made,
    check_options,
    client_certificate,
    first,
    make,
    signed_by,
)

NOW = 1_790_000_000


def made(kind: str, **options: Any) -> Made:
    """Make a value with checked options."""
    return make(kind, check_options(kind, options, "fleet_secrets.x"), NOW)


@pytest.mark.parametrize(
    ("kind", "options", "length"),
    [
        ("token", {}, 43),
        ("token", {"bytes": 64}, 86),
        ("password", {}, 24),
        ("kubernetes_encryption_key", {}, 44),
        ("tls_ticket_key", {}, 108),
    ],
)
def test_random_values(kind: str, options: dict[str, Any], length: int) -> None:
    """Of the right length, and never the same."""
    values = {made(kind, **options).value["value"] for __ in range(50)}
    assert len(values) == 50
    assert {len(value) for value in values} == {length}


@pytest.mark.parametrize(("kind", "size"), [("kubernetes_encryption_key", 32), ("tls_ticket_key", 80)])
def test_random_bytes(kind: str, size: int) -> None:
    """As many as the consumer wants, in base64."""
    assert len(base64.b64decode(made(kind).value["value"], validate=True)) == size


@given(
    st.integers(12, 64),
    st.lists(st.text(string.printable.strip(), min_size=1, max_size=10), min_size=1, max_size=6),
)
@settings(max_examples=60)
def test_passwords_keep_their_policy(length: int, characters: list[str]) -> None:
    """One of each set at least, and nothing from elsewhere."""
    value = made("password", length=length, characters=characters).value["value"]
    assert len(value) == length
    assert set(value) <= set("".join(characters))
    for letters in characters:
        assert set(value) & set(letters)


@pytest.mark.parametrize(
    ("kind", "options", "private_class", "size"),
    [
        ("rsa_key", {"bits": 2048}, rsa.RSAPrivateKey, 2048),
        ("ec_key", {}, ec.EllipticCurvePrivateKey, 256),
        ("ec_key", {"curve": "P-384"}, ec.EllipticCurvePrivateKey, 384),
        ("ed25519_key", {}, ed25519.Ed25519PrivateKey, None),
    ],
)
def test_key_pairs(kind: str, options: dict[str, Any], private_class: type, size: int | None) -> None:
    """Both halves belong together, and the kid is the public half's digest."""
    value = made(kind, **options).value
    private: Any = serialization.load_pem_private_key(value["private_key"].encode(), None)
    public: Any = serialization.load_pem_public_key(value["public_key"].encode())
    assert isinstance(private, private_class)
    assert size is None or private.key_size == size
    assert value["kid"] == key_id(public) == key_id(private.public_key())
    assert made(kind, **options).value["kid"] != value["kid"]


def test_a_login_is_another_user_each_time() -> None:
    """Registries know one password of each user, and two have to work while one is rotated."""
    values = [made("login", username="pull").value for __ in range(20)]
    assert len({value["username"] for value in values}) == len({value["password"] for value in values}) == 20
    assert all(re.fullmatch(r"pull-[0-9a-f]{8}", value["username"]) for value in values)
    assert {len(value["password"]) for value in values} == {32}
    with pytest.raises(
        InvalidInputError, match=r"^fleet_secrets\.x\.options\.username is 'a:b', wanted what users' names"
    ):
        made("login", username="a:b")


def test_defaults_are_strong() -> None:
    """An RSA key has 3072 bits unless somebody says otherwise."""
    assert KINDS["rsa_key"].options == {"bits": 3072}


def authority(place: Path, days: int = 3650, key: Any = None, names_its_key: bool = True) -> dict[str, str]:
    """Write an authority, by default as roles/pki makes it, and return the options that name it."""
    key = key or ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "gpufleet internal CA")])
    begin = datetime.fromtimestamp(NOW - 3600, UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(7)
        .not_valid_before(begin)
        .not_valid_after(begin + timedelta(days=days))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    )
    if names_its_key:
        identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
        builder = builder.add_extension(identifier, critical=False)
    certificate = builder.sign(key, None if isinstance(key, ed25519.Ed25519PrivateKey) else hashes.SHA256())
    place.mkdir(exist_ok=True)
    (place / "ca.crt").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    with open(os.open(place / "ca.key", os.O_WRONLY | os.O_CREAT, 0o600), "wb") as stream:
        stream.write(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
    return {"ca_certificate_path": str(place / "ca.crt"), "ca_key_path": str(place / "ca.key")}


def test_a_certificate_of_the_internal_authority(tmp_path: Path) -> None:
    """Signed by it, for these names and purposes, and valid exactly as long as asked."""
    paths = authority(tmp_path)
    names = ["DNS:gw-1.example.org", "IP:10.0.0.1"]
    issued = made("certificate", common_name="gw-1", subject_alt_names=names, purposes=["server", "client"], **paths)
    leaf = x509.load_pem_x509_certificate(issued.value["certificate"].encode())
    signer = x509.load_pem_x509_certificate((tmp_path / "ca.crt").read_bytes())
    leaf.verify_directly_issued_by(signer)
    private: Any = serialization.load_pem_private_key(issued.value["private_key"].encode(), None)
    assert key_id(leaf.public_key()) == key_id(private.public_key())
    alternative = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert alternative.get_values_for_type(x509.DNSName) == ["gw-1.example.org"]
    assert [str(address) for address in alternative.get_values_for_type(x509.IPAddress)] == ["10.0.0.1"]
    usage = leaf.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(usage) == [x509.ExtendedKeyUsageOID.SERVER_AUTH, x509.ExtendedKeyUsageOID.CLIENT_AUTH]
    assert leaf.extensions.get_extension_for_class(x509.BasicConstraints).value.ca is False
    assert leaf.not_valid_before_utc.timestamp() == NOW - 600
    assert issued.expires == leaf.not_valid_after_utc.timestamp() == NOW - 600 + 90 * 86400
    assert issued.value["serial"] == f"{leaf.serial_number:x}"


@pytest.mark.parametrize("names_its_key", [True, False])
@pytest.mark.parametrize(
    "key", [ed25519.Ed25519PrivateKey.generate(), rsa.generate_private_key(65537, 2048)], ids=["Ed25519", "RSA"]
)
def test_an_authority_of_another_kind(tmp_path: Path, key: Any, names_its_key: bool) -> None:
    """The operator's own need not be as the collection makes one."""
    paths = authority(tmp_path, key=key, names_its_key=names_its_key)
    leaf = x509.load_pem_x509_certificate(made("certificate", common_name="x", **paths).value["certificate"].encode())
    leaf.verify_directly_issued_by(x509.load_pem_x509_certificate((tmp_path / "ca.crt").read_bytes()))
    assert leaf.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value.key_identifier == (
        x509.SubjectKeyIdentifier.from_public_key(key.public_key()).digest
    )


def test_a_certificate_of_an_authority_in_the_store() -> None:
    """No file is read: the value that is handed in signs."""
    mine, other = made("authority").value, made("authority").value
    options = check_options("certificate", {"common_name": "gw-1", "ca_secret": "internal_ca"}, "fleet_secrets.x")
    issued = make("certificate", options, NOW, mine)
    assert (signed_by(issued.value, mine), signed_by(issued.value, other)) == (True, False)
    leaf = x509.load_pem_x509_certificate(issued.value["certificate"].encode())
    signer = x509.load_pem_x509_certificate(mine["certificate"].encode())
    assert leaf.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value.key_identifier == (
        signer.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value.digest
    )
    assert issued.expires == NOW - 600 + 90 * 86400


def test_a_certificate_for_a_proof() -> None:
    """A client's, for half an hour, with its key."""
    signer = made("authority").value
    text = client_certificate(signer, "rotation", NOW)
    leaf = x509.load_pem_x509_certificate(text.encode())
    private: Any = serialization.load_pem_private_key(text[text.index("-----BEGIN PRIVATE") :].encode(), None)
    assert key_id(leaf.public_key()) == key_id(private.public_key())
    assert signed_by({"certificate": text}, signer)
    assert leaf.not_valid_after_utc - leaf.not_valid_before_utc == timedelta(minutes=30)
    assert leaf.not_valid_before_utc.timestamp() == NOW - 600
    assert list(leaf.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value) == [
        x509.ExtendedKeyUsageOID.CLIENT_AUTH
    ]


def test_one_of_the_same_name_and_another_key_did_not_sign(tmp_path: Path) -> None:
    """The signature decides, not what is written."""
    issued = made("certificate", common_name="x", **authority(tmp_path / "mine")).value
    authority(tmp_path / "other")
    signers = [{"certificate": (tmp_path / name / "ca.crt").read_text()} for name in ("mine", "other")]
    assert [signed_by(issued, signer) for signer in signers] == [True, False]


def test_a_stored_authority_that_ends_too_early() -> None:
    """It is named as the inventory names it."""
    signer = made("authority", days=365).value
    options = check_options("certificate", {"common_name": "x", "ca_secret": "internal_ca"}, "fleet_secrets.x")
    with pytest.raises(StoreError) as caught:
        make("certificate", options, NOW + 300 * 86400, signer)
    assert str(caught.value) == (
        "the authority internal_ca in the store ends on 2027-09-21, before a certificate of 90 days would: make a new "
        "authority first"
    )


def test_an_authority(tmp_path: Path) -> None:
    """It signs leaves and nothing else, says so, and is never called like another one."""
    options = {"ca_certificate_path": str(tmp_path / "ca.crt"), "ca_key_path": str(tmp_path / "ca.key")}
    issued = first("authority", check_options("authority", options, "x"), NOW)
    certificate = x509.load_pem_x509_certificate(issued.value["certificate"].encode())
    certificate.verify_directly_issued_by(certificate)
    private: Any = serialization.load_pem_private_key(issued.value["private_key"].encode(), None)
    identity = key_id(certificate.public_key())
    assert identity == key_id(private.public_key())
    assert certificate.subject.rfc4514_string() == f"CN=gpufleet internal CA {identity[:8]}"
    constraints = certificate.extensions.get_extension_for_class(x509.BasicConstraints)
    assert (constraints.critical, constraints.value.ca, constraints.value.path_length) == (True, True, 0)
    usage = certificate.extensions.get_extension_for_class(x509.KeyUsage)
    assert (usage.critical, usage.value.key_cert_sign, usage.value.crl_sign) == (True, True, True)
    assert not usage.value.digital_signature
    assert issued.expires == certificate.not_valid_after_utc.timestamp() == NOW - 3600 + 3650 * 86400
    assert made("authority", **options).value["certificate"] != issued.value["certificate"]


def test_the_authority_in_use_becomes_the_first_one(tmp_path: Path) -> None:
    """Whoever trusts it goes on doing so; the next one is new. Without its key it is no use."""
    paths = authority(tmp_path)
    options = check_options("authority", paths, "x")
    adopted = first("authority", options, NOW)
    value = adopted.value
    begin = x509.load_pem_x509_certificate(value["certificate"].encode()).not_valid_before_utc
    assert adopted.created == begin.timestamp() < NOW
    assert value["certificate"] == (tmp_path / "ca.crt").read_text()
    assert value["private_key"] == (tmp_path / "ca.key").read_text()
    assert make("authority", options, NOW).value["certificate"] != value["certificate"]
    (tmp_path / "ca.key").unlink()
    with pytest.raises(StoreError, match=r"^the authority's key .*/ca\.key does not exist"):
        first("authority", options, NOW)


@pytest.mark.parametrize(("kind", "days"), [("authority", 364), ("authority", 7301), ("certificate", 826)])
def test_lives_that_are_too_short_or_too_long(kind: str, days: int) -> None:
    """An authority outlives many leaves."""
    with pytest.raises(InvalidInputError, match=rf"^fleet_secrets\.x\.options\.days is {days}, wanted a whole number"):
        made(kind, common_name="x", days=days)


def test_an_authority_that_ends_too_early(tmp_path: Path) -> None:
    """It could only sign what outlives it."""
    paths = authority(tmp_path, days=30)
    with pytest.raises(StoreError) as caught:
        made("certificate", common_name="gw-1", **paths)
    assert str(caught.value) == (
        f"the authority {tmp_path}/ca.crt ends on 2026-10-21, before a certificate of 90 days would: make a new "
        f"authority first"
    )


def test_an_authority_that_is_not_there_or_another(tmp_path: Path) -> None:
    """Each fault with the option to set."""
    mine, other = authority(tmp_path / "mine"), authority(tmp_path / "other")
    with pytest.raises(
        StoreError, match=r"other/ca\.key is not the key of the authority .*/mine/ca\.crt: set ca_key_path"
    ):
        made("certificate", common_name="x", **{**mine, "ca_key_path": other["ca_key_path"]})
    with pytest.raises(StoreError, match=r"/none holds no certificate of an authority \(ca_certificate_path\)"):
        made("certificate", common_name="x", **{**mine, "ca_certificate_path": str(tmp_path / "none")})
    os.chmod(mine["ca_key_path"], 0o644)
    with pytest.raises(StoreError, match=r"the authority's key .* has mode 0644, wanted 0600"):
        made("certificate", common_name="x", **mine)
    os.chmod(mine["ca_key_path"], 0o600)
    Path(mine["ca_key_path"]).write_text("no key")
    with pytest.raises(StoreError, match=r"holds no private key in PEM without a passphrase \(ca_key_path\)"):
        made("certificate", common_name="x", **mine)


def test_a_value_is_not_in_a_representation() -> None:
    """A debugger's line shows what it consists of."""
    assert repr(made("ed25519_key")) == "Made(kid, private_key, public_key)"
