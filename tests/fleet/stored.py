# SPDX-License-Identifier: Apache-2.0
"""The store of secrets of a test, as an operator with its key could open it, and who believes what is signed by it."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Mapping
from pathlib import Path

from ansible_collections.gpufleet.metal.plugins.module_utils._secrets.document import Document, Secret
from ansible_collections.gpufleet.metal.plugins.module_utils._secrets.envelope import read_private_key
from ansible_collections.gpufleet.metal.plugins.module_utils._secrets.file_store import FileStore, WrappingKey


def opened(work: Path) -> Document:
    """Return all that is in ``secrets.json``, which ``secrets.key`` opens."""
    pem = (work / "secrets.key").read_bytes()
    return FileStore(str(work / "secrets.json"), lambda: WrappingKey(read_private_key(pem, "key"), "key")).read()


def secrets(work: Path) -> Mapping[str, Secret]:
    """Return the secrets in it."""
    return opened(work).secrets


def serial(address: str, context: ssl.SSLContext) -> str:
    """Return the serial number of the certificate that is served at port 443 of an address."""
    with (
        socket.create_connection((address, 443), timeout=30) as plain,
        context.wrap_socket(plain, server_hostname=address) as secured,
    ):
        return str((secured.getpeercert() or {})["serialNumber"])


def believed(address: str, authority: str) -> bool:
    """Tell whether somebody who trusts this authority alone believes who answers there."""
    try:
        serial(address, ssl.create_default_context(cadata=authority))
    except ssl.SSLCertVerificationError:
        return False
    return True
