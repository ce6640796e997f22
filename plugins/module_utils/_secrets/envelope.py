# SPDX-License-Identifier: Apache-2.0
# PRIVATE to the collection: do not import this from outside, it may change without notice.
"""Seal a document for the holders of RSA keys, and open it again. Needs cryptography, so it works on the controller.

The sealed form is JSON in one fixed layout::

    {"data_key": ID, "entries": {NAME: {VERSION: SEALED}}, "format": 1, "index": SEALED, "recipients": {KID: {...}},
     "signature": {"by": KID, "value": ...}}

- Each write makes a new data key of 256 random bits, so no nonce is ever used twice with a key, and nothing of an older
  file fits into a newer one. ``data_key`` is the key's SHA-256: an unwrapped key is known to be right before its use.
- A recipient is an RSA public key and the data key wrapped for it (OAEP with SHA-256). ``KID`` is the SHA-256 of the
  public key's SubjectPublicKeyInfo.
- Each value is sealed by AES-256-GCM with ``name|version|data_key`` as associated data: it opens nowhere else.
- The index is the rest of the document, sealed with everything that is readable in the file as associated data. It
  lists all versions, so one that was taken out or put in is noticed.
- The layout is compared byte by byte, so that no part of the file can differ unnoticed.
- The writer signs all of that with the wrapping key (RSASSA-PSS with SHA-256). Without it, whoever can write the file
  could make a whole new one for the public keys in it, with values of their own. The reader believes the own key, and
  other signers only by name. One key for both uses is sound here: OAEP and PSS answer nothing about each other.

What this can't notice: an older copy of the whole file (``generation`` shows it to people).
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from ansible_collections.gpufleet.metal.plugins.module_utils._errors import InvalidInputError
from ansible_collections.gpufleet.metal.plugins.module_utils._secrets.document import (
    Document,
    StoreError,
    as_plain,
    read_plain,
)

with suppress(ImportError):  # ansible-core itself needs it on the controller, where alone this is used
    from cryptography.exceptions import InvalidSignature, InvalidTag
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import padding
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey, generate_private_key
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

FORMAT = 1
MINIMUM_BITS = 2048
DEFAULT_BITS = 3072

_NONCE_BYTES = 12
_RESTORE = "put back the last backup of it"


# --------------------------------------------------------------------------------------------------- wrapping keys


def make_wrapping_key(bits: int = DEFAULT_BITS) -> bytes:
    """Make an RSA key and return it as PEM (PKCS #8). Raises InvalidInputError for too few bits."""
    if not MINIMUM_BITS <= bits <= 16384:
        raise InvalidInputError(f"the wrapping key is to have {bits} bits, wanted {MINIMUM_BITS} to 16384")
    key = generate_private_key(public_exponent=65537, key_size=bits)
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def read_private_key(pem: bytes, source: str) -> RSAPrivateKey:
    """Read a wrapping key; ``source`` names where it is from in messages. Raises StoreError."""
    try:
        key = serialization.load_pem_private_key(pem, password=None)
    except TypeError:
        raise StoreError(
            f"the private key from {source} has a passphrase of its own: encrypt the file with ansible-vault instead"
        ) from None
    except Exception:  # the library has no common error, and its text could quote the key
        raise StoreError(f"{source} holds no private key in PEM: give the key that the store is sealed for") from None
    if not isinstance(key, RSAPrivateKey) or key.key_size < MINIMUM_BITS:
        raise StoreError(f"the private key from {source} is {_kind(key)}, wanted RSA of at least {MINIMUM_BITS} bits")
    return key


def read_public_key(pem: bytes, source: str) -> RSAPublicKey:
    """Read a recipient's public key. Raises StoreError."""
    try:
        key = serialization.load_pem_public_key(pem)
    except Exception:  # the library has no common error
        raise StoreError(f"{source} holds no public key in PEM: openssl pkey -in KEY -pubout makes one") from None
    if not isinstance(key, RSAPublicKey) or key.key_size < MINIMUM_BITS:
        raise StoreError(f"the public key in {source} is {_kind(key)}, wanted RSA of at least {MINIMUM_BITS} bits")
    return key


def _kind(key: Any) -> str:
    bits = getattr(key, "key_size", None)
    name = type(key).__name__.strip("_").replace("PrivateKey", "").replace("PublicKey", "")
    return f"{name} of {bits} bits" if bits else name


def key_id(key: Any) -> str:
    """Return the SHA-256 of a public key's SubjectPublicKeyInfo, in hexadecimal."""
    encoding, form = serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    return hashlib.sha256(key.public_bytes(encoding, form)).hexdigest()


# ------------------------------------------------------------------------------------------------ sealing, opening


def seal(document: Document, recipients: Sequence[RSAPublicKey], signer: RSAPrivateKey) -> bytes:
    """Return the document sealed for the recipients. Raises InvalidInputError when there are none."""
    if not recipients:
        raise InvalidInputError("a store needs at least one recipient, or nobody could ever open it")
    data_key = AESGCM.generate_key(bit_length=256)
    identity = hashlib.sha256(data_key).hexdigest()
    cipher = AESGCM(data_key)

    def sealed(content: bytes, bound_to: bytes) -> str:
        nonce = os.urandom(_NONCE_BYTES)
        return _encode(nonce + cipher.encrypt(nonce, content, bound_to))

    entries: dict[str, dict[str, str]] = {}
    for name, secret in document.secrets.items():
        for version in secret.versions().values():
            content = json.dumps(dict(version.value)).encode()
            bound_to = _entry_binding(name, version.number, identity)
            entries.setdefault(name, {})[str(version.number)] = sealed(content, bound_to)
    plain = as_plain(document)
    for secret in plain["secrets"].values():
        for version in secret["versions"].values():
            del version["value"]
    header = {
        "format": FORMAT,
        "data_key": identity,
        "recipients": {key_id(recipient): _wrapped(data_key, recipient) for recipient in recipients},
    }
    index = sealed(json.dumps(plain).encode(), _layout(header))
    body = {**header, "entries": entries, "index": index}
    proof = signer.sign(_layout(body), _pss(), hashes.SHA256())
    return _layout({**body, "signature": {"by": key_id(signer.public_key()), "value": _encode(proof)}})


def unseal(
    content: bytes, key: RSAPrivateKey, store: str, source: str, signers: Sequence[RSAPublicKey] = ()
) -> tuple[Document, tuple[RSAPublicKey, ...]]:
    """Open what :func:`seal` made; return the document and its recipients.

    ``store`` and ``source`` (of the key) are names for messages. ``signers`` are others whose writing is believed.
    Raises StoreError that says what is wrong.
    """
    outer = _read_layout(content, store)
    recipients = _recipients(outer, store)
    mine = key_id(key.public_key())
    if mine not in recipients:
        raise StoreError(
            f"{store} is not sealed for the key from {source}, which is {mine}; it is sealed for "
            f"{', '.join(sorted(recipients))}: give one of these (fleet_secret_store.key)"
        )
    identity = outer["data_key"]
    try:
        data_key = key.decrypt(_decode(outer["recipients"][mine]["wrapped"]), _oaep())
    except ValueError:
        data_key = b""
    if hashlib.sha256(data_key).hexdigest() != identity:
        raise StoreError(f"{store} was altered: its wrapped data key does not open: {_RESTORE}")
    cipher = AESGCM(data_key)

    def opened(text: str, bound_to: bytes) -> bytes:
        blob = _decode(text)
        return cipher.decrypt(blob[:_NONCE_BYTES], blob[_NONCE_BYTES:], bound_to)

    header = {name: outer[name] for name in ("format", "data_key", "recipients")}
    try:
        plain = json.loads(opened(outer["index"], _layout(header)))
    except (InvalidTag, ValueError):
        raise StoreError(f"{store} was altered: its index or recipients are not those written: {_RESTORE}") from None
    try:
        wanted = {
            (name, str(version["number"])): version
            for name, secret in plain["secrets"].items()
            for version in secret["versions"].values()
        }
    except (AttributeError, KeyError, TypeError):
        # It opens, so somebody with a public key made it up: the signature, which tells, is looked at last.
        raise StoreError(f"{store} was altered: its index is in no form that is written: {_RESTORE}") from None
    found = {(name, number): text for name, numbers in outer["entries"].items() for number, text in numbers.items()}
    for name, number in sorted(set(wanted) ^ set(found)):
        what = "was taken out" if (name, number) in wanted else "was put in by somebody else"
        raise StoreError(f"{store} was altered: version {number} of {name} {what}: {_RESTORE}")
    for (name, number), text in sorted(found.items()):
        try:
            value = json.loads(opened(text, _entry_binding(name, int(number), identity)))
        except (InvalidTag, ValueError):
            raise StoreError(
                f"{store} was altered: version {number} of {name} does not open, it was changed or moved there from "
                f"another entry: {_RESTORE}"
            ) from None
        wanted[name, number]["value"] = value
    # Last, because what was altered is named above, and a forged file has nothing altered.
    _prove_writer(outer, [key.public_key(), *signers], store, source)
    return read_plain(plain, store), tuple(recipients.values())


def _prove_writer(outer: Mapping[str, Any], believed: Sequence[RSAPublicKey], store: str, source: str) -> None:
    """Raise StoreError unless one of the believed keys signed the file."""
    signature = outer["signature"]
    signer = next((key for key in believed if key_id(key) == signature["by"]), None)
    if signer is None:
        raise StoreError(
            f"{store} was written by the holder of {signature['by']}, which is neither the key from {source} nor one "
            f"of fleet_secret_store.signers: if you know and trust that key, name its public key there; else {_RESTORE}"
        )
    signed = _layout({name: part for name, part in outer.items() if name != "signature"})
    try:
        signer.verify(_decode(signature["value"]), signed, _pss(), hashes.SHA256())
    except InvalidSignature:
        raise StoreError(f"{store} was altered: its signature is not that of {signature['by']}: {_RESTORE}") from None


def _entry_binding(name: str, number: int, identity: str) -> bytes:
    return f"{name}|{number}|{identity}".encode()


def _oaep() -> padding.OAEP:
    return padding.OAEP(mgf=padding.MGF1(hashes.SHA256()), algorithm=hashes.SHA256(), label=None)


def _pss() -> padding.PSS:
    return padding.PSS(mgf=padding.MGF1(hashes.SHA256()), salt_length=padding.PSS.DIGEST_LENGTH)


def _wrapped(data_key: bytes, recipient: RSAPublicKey) -> dict[str, str]:
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    return {
        "public_key": recipient.public_bytes(serialization.Encoding.PEM, form).decode(),
        "wrapped": _encode(recipient.encrypt(data_key, _oaep())),
    }


def _recipients(outer: Mapping[str, Any], store: str) -> dict[str, RSAPublicKey]:
    recipients = {}
    for identity, entry in outer["recipients"].items():
        key = read_public_key(entry["public_key"].encode(), f"{store} (recipient {identity})")
        if key_id(key) != identity:
            raise StoreError(f"{store} was altered: recipient {identity} has another key: {_RESTORE}")
        recipients[identity] = key
    return recipients


# -------------------------------------------------------------------------------------------------------- layout


def _encode(content: bytes) -> str:
    return base64.b64encode(content).decode()


def _decode(text: str) -> bytes:
    return base64.b64decode(text, validate=True)


def _layout(content: Mapping[str, Any]) -> bytes:
    return json.dumps(content, indent=1, sort_keys=True).encode() + b"\n"


def _read_layout(content: bytes, store: str) -> dict[str, Any]:
    """Read the outer form and prove that it is byte for byte what :func:`_layout` would write."""
    if not content:
        raise StoreError(f"{store} is empty: {_RESTORE}")
    if not content.endswith(b"\n}\n"):
        raise StoreError(f"{store} is cut off after {len(content)} bytes: {_RESTORE}")
    try:
        outer = json.loads(content)
        found = outer["format"]
        if isinstance(found, int) and found > FORMAT:
            raise StoreError(f"{store} has format {found}, this version reads {FORMAT}: use a newer gpufleet.metal")
        signature = outer["signature"]
        texts = [outer["data_key"], outer["index"], signature["by"]]
        sealed = [text for numbers in outer["entries"].values() for text in numbers.values()]
        wrapped = [entry["wrapped"] for entry in outer["recipients"].values()]
        keys = [entry["public_key"] for entry in outer["recipients"].values()]
        parts = {"format", "data_key", "recipients", "entries", "index", "signature"}
        whole = set(outer) == parts and found == FORMAT and set(signature) == {"by", "value"}
        whole = whole and all(isinstance(text, str) for text in texts + keys)
        whole = whole and all(
            _encode(_decode(text)) == text for text in [outer["index"], signature["value"], *sealed, *wrapped]
        )
        if whole and _layout(outer) == content:
            return dict(outer)
    except StoreError:
        raise
    except (AttributeError, KeyError, TypeError, ValueError, RecursionError):
        pass
    raise StoreError(f"{store} was altered, or was never a store: it is not in the form that is written: {_RESTORE}")
