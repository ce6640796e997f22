# SPDX-License-Identifier: Apache-2.0
# PRIVATE to the collection: do not import this from outside, it may change without notice.
"""Put a bundle's images into the registry that serves them, each with the digest that it had outside."""

from __future__ import annotations

import http.client
import urllib.parse
from collections.abc import Mapping, Sequence
from typing import Any

from ansible_collections.gpufleet.metal.plugins.module_utils._commands import Runner

from . import images
from .builder import Cosign, said
from .document import BundleError

ACCEPTED = ", ".join(
    (
        "application/vnd.oci.image.index.v1+json",
        "application/vnd.oci.image.manifest.v1+json",
        "application/vnd.docker.distribution.manifest.list.v2+json",
        "application/vnd.docker.distribution.manifest.v2+json",
    )
)

#: Where an image is looked at before it gets its name. The server shows nothing below it to anybody.
UNVERIFIED = "gpufleet-unverified/"


class Registry:
    """A registry on the loopback of this host, which takes what is pushed."""

    def __init__(self, run: Runner, address: str, timeout: float = 30.0) -> None:
        self._run = run
        self._address = address
        self._timeout = timeout

    def digest(self, repository: str, reference: str) -> str | None:
        """Return the digest that a tag or a digest leads to; None where the registry does not have it."""
        connection = http.client.HTTPConnection(self._address, timeout=self._timeout)
        path = f"/v2/{urllib.parse.quote(repository)}/manifests/{urllib.parse.quote(reference)}"
        try:
            connection.request("HEAD", path, headers={"Accept": ACCEPTED})
            answer = connection.getresponse()
            answer.read()
        except (OSError, http.client.HTTPException) as fault:
            raise BundleError(f"the registry at {self._address} gives no answer: {fault}") from fault
        finally:
            connection.close()
        if answer.status == http.client.NOT_FOUND:
            return None
        if answer.status != http.client.OK:
            raise BundleError(f"the registry at {self._address} answers {answer.status} {answer.reason} to {path}")
        return answer.headers.get("Docker-Content-Digest")

    def lacking(self, wanted: Sequence[Mapping[str, Any]]) -> list[tuple[Mapping[str, Any], str]]:
        """Return the images and names that the registry does not have, or has otherwise."""
        return [(entry, name) for entry in wanted for name in entry["names"] if not self._has(entry, name)]

    def _has(self, entry: Mapping[str, Any], tagged: str) -> bool:
        name = images.whole_name(tagged)
        repository = images.inside(name.repository)
        if self.digest(repository, name.tag or entry["digest"]) != entry["digest"]:
            return False
        return not entry["signed"] or self.digest(repository, images.signature_tag(entry["digest"])) is not None

    def push(self, entry: Mapping[str, Any], tagged: str, place: str, prefix: str = "") -> None:
        """Copy an image under one of its names, and its signature; every digest stays what it is."""
        name = images.whole_name(tagged)
        repository = f"{prefix}{images.inside(name.repository)}"
        if entry["signed"]:
            # First: an image is never there without it.
            tag = images.signature_tag(entry["digest"])
            self._copy(f"dir:{place}/{images.SIGNATURE}", f"{repository}:{tag}")
        target = f"{repository}:{name.tag}" if name.tag else f"{repository}@{entry['digest']}"
        self._copy(f"dir:{place}/{images.IMAGE}", target)
        found = self.digest(repository, name.tag or entry["digest"])
        if found != entry["digest"]:
            raise BundleError(f"the registry has {tagged} with the digest {found}, wanted {entry['digest']}")

    def _copy(self, source: str, target: str) -> None:
        argv = ["skopeo", "copy", "--quiet", "--all", "--preserve-digests", "--dest-tls-verify=false"]
        code, out, err = self._run([*argv, source, f"docker://{self._address}/{target}"])
        if code != 0:
            raise BundleError(f"{target} cannot be put into the registry: {said(out, err)}")

    def verify(self, entry: Mapping[str, Any], tagged: str, cosign: Cosign, prefix: str = "") -> None:
        """Stop if an image has no signature of the operator's key under one of its names."""
        repository = images.inside(images.whole_name(tagged).repository)
        cosign.verify(f"{self._address}/{prefix}{repository}@{entry['digest']}", tagged)


def unsigned(wanted: Sequence[Mapping[str, Any]], allowed: Sequence[str]) -> list[str]:
    """Return the names of images that came without a signature and that nobody allowed to."""
    accepted = {images.whole_name(text).tagged for text in allowed}
    return sorted(
        name
        for entry in wanted
        if not entry["signed"]
        for name in entry["names"]
        if name not in accepted and images.whole_name(name).repository not in accepted
    )
