# SPDX-License-Identifier: Apache-2.0
# PRIVATE to the collection: do not import this from outside, it may change without notice.
"""Names of images: what they are called outside, inside, and where they lie in a bundle. Pure."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ansible_collections.gpufleet.metal.plugins.module_utils._docker import parse_reference
from ansible_collections.gpufleet.metal.plugins.module_utils._errors import InvalidInputError

HUB = "docker.io"
SIGNATURE = "signature"
IMAGE = "image"
#: What skopeo calls an image's manifest, or its list of manifests.
MANIFEST = "manifest.json"


@dataclass(frozen=True)
class Name:
    """A whole name: with its registry, and on Docker Hub with ``library/`` where that is left out."""

    repository: str
    tag: str | None
    digest: str | None

    @property
    def registry(self) -> str:
        """The registry's host."""
        return self.repository.partition("/")[0]

    @property
    def tagged(self) -> str:
        """Without the digest."""
        return f"{self.repository}:{self.tag}" if self.tag else self.repository

    @property
    def pinned(self) -> str:
        """By digest alone, which is all that a registry is asked for."""
        return f"{self.repository}@{self.digest}"


def whole_name(reference: str) -> Name:
    """Return the name that a reference stands for. Raises InvalidInputError."""
    parsed = parse_reference(reference)
    repository = parsed.repository
    if parsed.registry == HUB:
        rest = repository.removeprefix(f"{HUB}/").removeprefix("index.docker.io/")
        repository = f"{HUB}/{rest if '/' in rest else f'library/{rest}'}"
    return Name(repository, parsed.tag, parsed.digest)


def place(digest: str) -> str:
    """Return the directory of an image and its signature, relative to the bundle."""
    return f"images/{digest.partition(':')[2]}"


def signature_tag(digest: str) -> str:
    """Return the tag under which cosign keeps the signatures of an image, in the image's own repository."""
    return f"{digest.replace(':', '-')}.sig"


def source_of(repository: str, sources: Mapping[str, str]) -> str:
    """Return the repository that an image is taken from: the longest prefix in ``sources`` is replaced."""
    fitting = [prefix for prefix in sources if repository == prefix or repository.startswith(f"{prefix.rstrip('/')}/")]
    if not fitting:
        return repository
    prefix = max(fitting, key=len)
    return f"{sources[prefix].rstrip('/')}{repository[len(prefix.rstrip('/')) :]}"


def aliases(repository: str) -> list[str]:
    """Return further names that an image is asked for by.

    kubeadm says ``coredns`` for ``coredns/coredns`` where its images come from another registry than its own.
    """
    return ["registry.k8s.io/coredns"] if repository == "registry.k8s.io/coredns/coredns" else []


def inside(repository: str) -> str:
    """Return what a whole repository is called inside, below the registry: a port is no part of a path."""
    return repository.replace(":", "-")


def known_registries(names: Sequence[str]) -> list[str]:
    """Return the registries of whole repository names, sorted."""
    return sorted({name.partition("/")[0] for name in names})


def require_digest(text: str, where: str) -> str:
    """Return a digest; raise InvalidInputError that names where it stands."""
    rest = text.removeprefix("sha256:")
    if rest == text or len(rest) != hashlib.sha256().digest_size * 2 or set(rest) - set("0123456789abcdef"):
        raise InvalidInputError(f"{where} is {text!r}, wanted sha256: and 64 hex digits")
    return text
