# SPDX-License-Identifier: Apache-2.0
# PRIVATE to the collection: do not import this from outside, it may change without notice.
"""Say which authority in the store signs which certificates in it, and which of these have outlived theirs. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from ansible_collections.gpufleet.metal.plugins.module_utils._secrets.definitions import Definition
from ansible_collections.gpufleet.metal.plugins.module_utils._secrets.document import Document, Version
from ansible_collections.gpufleet.metal.plugins.module_utils._secrets.kinds import Authority, signed_by


def signer_of(document: Document, definition: Definition) -> Authority:
    """Return the value of the authority in use that signs this certificate; None where none in the store does."""
    signer = document.secrets.get(definition.signer or "")
    return None if signer is None else signer.current.value


def outlived(document: Document, definition: Definition) -> bool:
    """Tell whether the authority of a certificate has been replaced: the one in use did not sign what is in use."""
    signer = signer_of(document, definition)
    return signer is not None and not _signed(document.secrets[definition.name].current, signer)


def signed_by_another(document: Document, definitions: Mapping[str, Definition], authority: str) -> list[str]:
    """Return the certificates that name this authority and of which one that may be shown is of another."""
    value = document.secrets[authority].current.value
    return [
        name
        for name, definition in definitions.items()
        if definition.signer == authority and name in document.secrets
        if not all(_signed(version, value) for version in document.secrets[name].versions().values())
    ]


def _signed(version: Version, authority: Mapping[str, str]) -> bool:
    # In check mode nothing is made, and what was not made needs no other signature.
    return not version.value or not authority or signed_by(version.value, authority)
