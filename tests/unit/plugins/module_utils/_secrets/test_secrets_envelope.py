# SPDX-License-Identifier: Apache-2.0
"""What was sealed opens for its recipients as it was, and for nobody in any other form."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import given, settings
from hypothesis import strategies as st

from ansible_collections.gpufleet.metal.plugins.module_utils._errors import InvalidInputError
from ansible_collections.gpufleet.metal.plugins.module_utils._secrets.document import Document, StoreError
from ansible_collections.gpufleet.metal.plugins.module_utils._secrets.envelope import (
    key_id,
    make_wrapping_key,
    read_private_key,
    read_public_key,
    seal,
    unseal,
)
from ansible_collections.gpufleet.metal.tests.unit.plugins.module_utils._secrets.samples import (
    CANARY,
    document,
    key,
    secret,
    version,
)

DOCUMENT = document().with_secret("other_key", secret(current=version(1, value="another")))
SEALED = seal(DOCUMENT, [key().public_key()], key())
NAMES = st.from_regex(r"[a-z][a-z0-9_]{0,8}", fullmatch=True)
OAEP = padding.OAEP(padding.MGF1(hashes.SHA256()), hashes.SHA256(), None)
VALUES = st.dictionaries(st.text(max_size=8), st.text(max_size=40), min_size=1, max_size=3)


def opened(content: bytes, which: str = "first") -> Document:
    """Open with a key."""
    return unseal(content, key(which), "secrets.json", f"the {which} key", [key().public_key()])[0]


@given(st.dictionaries(NAMES, VALUES, max_size=4), st.integers(0, 10**9))
@settings(max_examples=40)
def test_what_was_sealed_opens_as_it_was(values: dict[str, dict[str, str]], generation: int) -> None:
    """For any names and values, and for each of two recipients."""
    secrets = {name: secret(current=replace(version(), value=value)) for name, value in values.items()}
    sealed = seal(Document(generation, secrets), [key().public_key(), key("second").public_key()], key())
    assert opened(sealed) == opened(sealed, "second") == Document(generation, secrets)


@given(st.integers(0, len(SEALED) - 1), st.integers(1, 255))
@settings(max_examples=400)
def test_any_changed_byte_is_noticed(position: int, difference: int) -> None:
    """Wherever it is: in a value, the index, a public key, a name or the white space between them."""
    changed = bytearray(SEALED)
    changed[position] ^= difference
    with pytest.raises(
        StoreError,
        match=r"^secrets\.json .*(altered|cut off|not sealed for|holds no public key|format|written by the holder)",
    ):
        opened(bytes(changed))


@given(st.integers(0, len(SEALED) - 1))
@settings(max_examples=60)
def test_any_truncation_is_noticed(length: int) -> None:
    """Also that of the last byte."""
    with pytest.raises(
        StoreError, match=r"^secrets\.json is (empty|cut off after \d+ bytes): put back the last backup"
    ):
        opened(SEALED[:length])


def edited(change: Callable[[dict[str, Any]], None]) -> bytes:
    """Return the sealed form with a change, in the layout that it is written in."""
    outer = json.loads(SEALED)
    change(outer)
    return json.dumps(outer, indent=1, sort_keys=True).encode() + b"\n"


def swap(outer: dict[str, Any]) -> None:
    """Exchange the same version of two secrets."""
    entries = outer["entries"]
    entries["api_key"]["1"], entries["other_key"]["1"] = entries["other_key"]["1"], entries["api_key"]["1"]


def swap_versions(outer: dict[str, Any]) -> None:
    """Exchange two versions of one secret."""
    versions = outer["entries"]["database"]
    versions["4"], versions["5"] = versions["5"], versions["4"]


def flip(outer: dict[str, Any]) -> None:
    """Flip one bit of an entry's ciphertext."""
    blob = bytearray(base64.b64decode(outer["entries"]["database"]["5"]))
    blob[-1] ^= 1
    outer["entries"]["database"]["5"] = base64.b64encode(blob).decode()


def flip_wrapped(outer: dict[str, Any]) -> None:
    """Flip one bit of the wrapped data key."""
    entry = outer["recipients"][key_id(key().public_key())]
    blob = bytearray(base64.b64decode(entry["wrapped"]))
    blob[-1] ^= 1
    entry["wrapped"] = base64.b64encode(blob).decode()


def add_recipient(outer: dict[str, Any]) -> None:
    """Put in a recipient with the wrapped key of another one."""
    stranger = key("second").public_key()
    entry = dict(outer["recipients"][key_id(key().public_key())])
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    entry["public_key"] = stranger.public_bytes(serialization.Encoding.PEM, form).decode()
    outer["recipients"][key_id(stranger)] = entry


def rename_recipient(outer: dict[str, Any]) -> None:
    """Give a recipient's key another name."""
    outer["recipients"]["00"] = outer["recipients"][key_id(key().public_key())]


def older(outer: dict[str, Any]) -> None:
    """Roll one entry back to what another write of the same version held."""
    outer["entries"]["api_key"] = json.loads(seal(DOCUMENT, [key().public_key()], key()))["entries"]["api_key"]


def flip_signature(outer: dict[str, Any]) -> None:
    """Flip one bit of the signature."""
    blob = bytearray(base64.b64decode(outer["signature"]["value"]))
    blob[-1] ^= 1
    outer["signature"]["value"] = base64.b64encode(blob).decode()


RESTORE = "put back the last backup of it"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            swap,
            "secrets.json was altered: version 1 of api_key does not open, it was changed or moved there from another "
            f"entry: {RESTORE}",
        ),
        (
            swap_versions,
            "secrets.json was altered: version 4 of database does not open, it was changed or moved there from another "
            f"entry: {RESTORE}",
        ),
        (
            flip,
            "secrets.json was altered: version 5 of database does not open, it was changed or moved there from another "
            f"entry: {RESTORE}",
        ),
        (
            older,
            "secrets.json was altered: version 1 of api_key does not open, it was changed or moved there from another "
            f"entry: {RESTORE}",
        ),
        (
            lambda outer: outer["entries"].pop("api_key"),
            f"secrets.json was altered: version 1 of api_key was taken out: {RESTORE}",
        ),
        (
            lambda outer: outer["entries"]["api_key"].update({"2": outer["entries"]["api_key"]["1"]}),
            f"secrets.json was altered: version 2 of api_key was put in by somebody else: {RESTORE}",
        ),
        (flip_wrapped, f"secrets.json was altered: its wrapped data key does not open: {RESTORE}"),
        (
            lambda outer: outer.update(data_key="0" * 64),
            f"secrets.json was altered: its wrapped data key does not open: {RESTORE}",
        ),
        (add_recipient, f"secrets.json was altered: its index or recipients are not those written: {RESTORE}"),
        (rename_recipient, f"secrets.json was altered: recipient 00 has another key: {RESTORE}"),
        (
            flip_signature,
            f"secrets.json was altered: its signature is not that of {key_id(key().public_key())}: {RESTORE}",
        ),
        (
            lambda outer: outer["signature"].update(more=1),
            "secrets.json was altered, or was never a store: it is not in the form that is written: " + RESTORE,
        ),
        (
            lambda outer: outer.update(format=2),
            "secrets.json has format 2, this version reads 1: use a newer gpufleet.metal",
        ),
        (
            lambda outer: outer.update(more=1),
            "secrets.json was altered, or was never a store: it is not in the form that is written: " + RESTORE,
        ),
        (
            lambda outer: outer.update(index="AAA"),
            "secrets.json was altered, or was never a store: it is not in the form that is written: " + RESTORE,
        ),
    ],
)
def test_what_was_altered_is_named(change: Callable[[dict[str, Any]], None], message: str) -> None:
    """Each kind of tampering with its own message."""
    with pytest.raises(StoreError) as caught:
        opened(edited(change))
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"{\n", b"{ \n"),
        (b'"format": 1', b'"format":  1'),
        (b'"format": 1', b'"format": 1, "format": 1'),
        (b"\n}\n", b"\n\n}\n"),
    ],
)
def test_the_same_content_in_another_form_is_noticed(old: bytes, new: bytes) -> None:
    """No part of the file can be used to hide something."""
    with pytest.raises(StoreError, match="it is not in the form that is written"):
        opened(SEALED.replace(old, new, 1))


def test_a_stranger_is_told_for_whom_it_is_sealed() -> None:
    """And which key was tried."""
    mine, theirs = key_id(key("second").public_key()), key_id(key().public_key())
    with pytest.raises(StoreError) as caught:
        opened(SEALED, "second")
    assert str(caught.value) == (
        f"secrets.json is not sealed for the key from the second key, which is {mine}; it is sealed for {theirs}: "
        f"give one of these (fleet_secret_store.key)"
    )


def sign_by_another(outer: dict[str, Any]) -> None:
    """Say that another key signed, which is believed as well."""
    outer["signature"]["by"] = key_id(key("second").public_key())


def test_a_whole_new_file_is_not_believed() -> None:
    """Who can write the file finds the public keys in it, and lacks what signs for them."""
    forged = seal(DOCUMENT, [key().public_key(), key("second").public_key()], key("second"))
    theirs = key_id(key("second").public_key())
    with pytest.raises(StoreError) as caught:
        opened(forged)
    assert str(caught.value) == (
        f"secrets.json was written by the holder of {theirs}, which is neither the key from the first key nor one of "
        f"fleet_secret_store.signers: if you know and trust that key, name its public key there; else {RESTORE}"
    )
    believed = [key("second").public_key()]
    assert unseal(forged, key(), "secrets.json", "the first key", believed)[0] == DOCUMENT
    with pytest.raises(StoreError, match=f"its signature is not that of {theirs}"):
        unseal(edited(sign_by_another), key(), "secrets.json", "the first key", believed)


@pytest.mark.parametrize(
    "plain",
    [{}, {"secrets": []}, {"secrets": {"api_key": {"versions": {"current": {}}}}}, {"secrets": {"api_key": 7}}, 7],
)
def test_a_forged_index_is_named(plain: Any) -> None:
    """A public key is enough to make one that opens, in any form; who wrote it is looked at last."""

    def forge(outer: dict[str, Any]) -> None:
        wrapped = base64.b64decode(outer["recipients"][key_id(key().public_key())]["wrapped"])
        header = {name: outer[name] for name in ("format", "data_key", "recipients")}
        layout = json.dumps(header, indent=1, sort_keys=True).encode() + b"\n"
        sealed = AESGCM(key().decrypt(wrapped, OAEP)).encrypt(bytes(12), json.dumps(plain).encode(), layout)
        outer["index"] = base64.b64encode(bytes(12) + sealed).decode()

    with pytest.raises(StoreError) as caught:
        opened(edited(forge))
    assert str(caught.value) == f"secrets.json was altered: its index is in no form that is written: {RESTORE}"


def test_nothing_is_readable_but_names() -> None:
    """No value and no state, and two writes of the same have nothing secret in common."""
    assert CANARY.encode() not in SEALED
    assert b"staging" not in SEALED
    assert b"gw-1" not in SEALED
    again = json.loads(seal(DOCUMENT, [key().public_key()], key()))
    first = json.loads(SEALED)
    assert again["data_key"] != first["data_key"]
    assert again["index"] != first["index"]
    assert again["entries"]["api_key"]["1"][:16] != first["entries"]["api_key"]["1"][:16]


def test_values_are_not_in_a_representation() -> None:
    """A traceback or a debug line shows versions, not values."""
    assert CANARY not in repr(document())


def test_a_store_for_nobody() -> None:
    """It could never be opened."""
    with pytest.raises(InvalidInputError, match="a store needs at least one recipient"):
        seal(document(), [], key())


@pytest.mark.parametrize("bits", [1024, 2047, 16385])
def test_the_size_of_a_wrapping_key(bits: int) -> None:
    """Less is weak, more is a typing error."""
    with pytest.raises(InvalidInputError, match=f"the wrapping key is to have {bits} bits, wanted 2048 to 16384"):
        make_wrapping_key(bits)


def pem_of(private: Any, passphrase: bytes | None = None) -> bytes:
    """Return a private key as PEM."""
    how: Any = serialization.BestAvailableEncryption(passphrase) if passphrase else serialization.NoEncryption()
    pem: bytes = private.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, how)
    return pem


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "x.key holds no private key in PEM: give the key that the store is sealed for"),
        (b"no key", "x.key holds no private key in PEM: give the key that the store is sealed for"),
        (
            pem_of(ec.generate_private_key(ec.SECP256R1())),
            "the private key from x.key is EC of 256 bits, wanted RSA of at least 2048 bits",
        ),
        (
            pem_of(rsa.generate_private_key(public_exponent=65537, key_size=1024)),
            "the private key from x.key is RSA of 1024 bits, wanted RSA of at least 2048 bits",
        ),
        (
            pem_of(ec.generate_private_key(ec.SECP256R1()), b"pass"),
            "the private key from x.key has a passphrase of its own: encrypt the file with ansible-vault instead",
        ),
    ],
)
def test_private_keys_of_no_use(content: bytes, message: str) -> None:
    """What was found and what is wanted."""
    with pytest.raises(StoreError) as caught:
        read_private_key(content, "x.key")
    assert str(caught.value) == message


def test_public_keys_of_no_use() -> None:
    """A private key is none either."""
    with pytest.raises(StoreError, match=r"x\.pub holds no public key in PEM: openssl pkey -in KEY -pubout makes one"):
        read_public_key(pem_of(key()), "x.pub")
