# SPDX-License-Identifier: Apache-2.0
# PRIVATE to the collection: do not import this from outside, it may change without notice.
"""Have one pinned image in an engine, from its registry or from an archive, and bring it in at most once."""

from __future__ import annotations

import json
import os
import re
import urllib.error
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, BinaryIO, Protocol

from ansible_collections.gpufleet.metal.plugins.module_utils import _download
from ansible_collections.gpufleet.metal.plugins.module_utils._docker import (
    ImageReference,
    parse_reference,
    registry_credentials,
)
from ansible_collections.gpufleet.metal.plugins.module_utils._download import Digest
from ansible_collections.gpufleet.metal.plugins.module_utils._errors import FleetError, InvalidInputError

_IMAGE_ID = re.compile(r"^sha256:[0-9a-f]{64}$")
_SHA256 = re.compile(r"^[0-9a-f]{64}$")

SPACE_RESERVE = 1024 * 1024 * 1024
"""Bytes that must stay free beside an image that is loaded."""


class ImageError(FleetError):
    """An image can't be brought in, or isn't the wanted one."""


class Engine(Protocol):
    """What is needed of :class:`_docker.DockerClient` and :class:`_containerd_images.Containerd`."""

    def info(self) -> dict[str, Any]:
        """The engine's own state."""

    def image(self, name: str) -> dict[str, Any] | None:
        """An image's description, None when it isn't there."""

    def load(self, archive: BinaryIO, length: int) -> list[str]:
        """Load an archive; names and ids that came in."""

    def pull(self, reference: ImageReference, credentials: Mapping[str, str] | None = None) -> None:
        """Pull from a registry."""


@dataclass(frozen=True)
class Wanted:
    """A pinned image. One of digest (in ``reference``), ``archive_sha256`` or ``image_id`` pins it."""

    reference: ImageReference
    archive: str | None
    archive_sha256: str | None
    image_id: str | None


@dataclass(frozen=True)
class Found:
    """The image in the engine; ``came_from`` is ``engine`` (it was there), ``archive`` or ``registry``."""

    image_id: str | None
    came_from: str


def wanted(
    reference: str, archive: str | None = None, archive_sha256: str | None = None, image_id: str | None = None
) -> Wanted:
    """The wish that a user wrote; InvalidInputError when it isn't pinned or contradicts itself."""
    parsed = parse_reference(reference)
    if image_id is not None and not _IMAGE_ID.match(image_id):
        raise InvalidInputError(f"image {reference!r}: its id is {image_id!r}, wanted sha256: and 64 hex digits")
    if archive is None:
        if archive_sha256 is not None:
            raise InvalidInputError(f"image {reference!r}: archive_sha256 is set, but archive isn't")
        if parsed.digest is None and image_id is None:
            raise InvalidInputError(
                f"image {reference!r} isn't pinned: wanted a digest in the reference (name:tag@sha256:...), "
                "or an archive with its archive_sha256"
            )
    else:
        _download.local_path(archive)
        if not _SHA256.match((archive_sha256 or "").lower()):
            raise InvalidInputError(
                f"image {reference!r}: the archive {archive} has the archive_sha256 {archive_sha256!r}, "
                "wanted 64 hex digits"
            )
    return Wanted(parsed, archive, archive_sha256.lower() if archive_sha256 else None, image_id)


def origin(want: Wanted) -> str:
    """Where an image that isn't there comes from: ``registry`` or ``archive``."""
    return "registry" if want.archive is None else "archive"


def needed_bytes(want: Wanted) -> int:
    """Bytes that loading the archive takes, which is not read; ImageError when it isn't where it should be."""
    url = want.archive or ""
    path = _download.local_path(url)
    if path is not None:
        if not os.path.isfile(path):
            raise ImageError(f"the archive {path} doesn't exist on this host (archive)")
        return os.path.getsize(path)
    try:
        with _download.open_url(url) as response:
            # It lies beside the image for a while. A server need not say how large it is.
            return 2 * int(response.headers.get("Content-Length") or 0)
    except urllib.error.HTTPError as error:
        raise ImageError(f"{url}: the server answered {error.code} {error.reason} (archive)") from error
    except OSError as error:
        raise ImageError(f"{url}: {error} (archive)") from error


class Store:
    """The images of one engine, and a record of which archive became which image."""

    def __init__(
        self,
        engine: Engine,
        records: str,
        downloads: str,
        client_config: str,
        fetch: Callable[..., Digest] = _download.fetch,
        room: str = "make room, or move the engine's data-root (docker_daemon_options)",
    ) -> None:
        self._engine = engine
        self._records = records
        self._downloads = downloads
        self._client_config = client_config
        self._fetch = fetch
        self._room = room

    def look_up(self, want: Wanted) -> str | None:
        """The id of the wanted image if the engine has it."""
        if want.image_id is not None:
            return self._id_of(want.image_id)
        if want.archive is None:
            return self._id_of(want.reference.lookup_name)
        try:
            with open(self._record(want), encoding="utf-8") as stream:
                return self._id_of(str(json.load(stream)["id"]))
        except (OSError, ValueError, KeyError):
            return None

    def find(self, want: Wanted) -> Found:
        """Look whether the image is there."""
        present = self.look_up(want)
        return Found(present, origin(want) if present is None else "engine")

    def ensure(self, want: Wanted, check_mode: bool) -> Found:
        """Bring the image in unless it is there."""
        found = self.find(want)
        present = found.image_id
        if present is not None:
            return found
        if want.archive is None:
            credentials = registry_credentials(want.reference.registry, self._client_config)
            if not check_mode:
                self._engine.pull(want.reference, credentials)
                present = self._pulled(want)
            return Found(present, found.came_from)
        self._check_space(needed_bytes(want))
        if not check_mode:
            present = self._load(want)
        return Found(present, found.came_from)

    def _check_space(self, needed: int) -> None:
        root = str(self._engine.info()["DockerRootDir"])
        free, wanted_free = _download.free_bytes(root), needed + SPACE_RESERVE
        if free < wanted_free:
            raise ImageError(
                f"{root} has {_download.gib(free)} GiB free, wanted {_download.gib(wanted_free)} GiB for the image: "
                f"{self._room}"
            )

    def _id_of(self, name: str) -> str | None:
        document = self._engine.image(name)
        return None if document is None else str(document["Id"])

    def _record(self, want: Wanted) -> str:
        return os.path.join(self._records, f"{want.archive_sha256}.json")

    def _pulled(self, want: Wanted) -> str:
        name = want.reference.lookup_name
        found = self._id_of(name)
        if found is None:
            raise ImageError(f"the registry delivered {name}, but the engine doesn't know it afterwards")
        if want.image_id is not None and found != want.image_id:
            raise ImageError(f"the image {name} has the id {found}, wanted {want.image_id}")
        return found

    def _load(self, want: Wanted) -> str:
        with self._open(want) as stream:
            found = _download.hash_stream(stream)
            if found.sha256 != want.archive_sha256:
                raise ImageError(
                    f"the archive {want.archive} has sha256 {found.sha256}, wanted {want.archive_sha256} "
                    "(archive_sha256); nothing was loaded"
                )
            stream.seek(0)
            names = self._engine.load(stream, found.size)
        loaded = {name: self._id_of(name) for name in names}
        ids = sorted({identifier for identifier in loaded.values() if identifier})
        if want.image_id is not None:
            if want.image_id not in ids and self._id_of(want.image_id) is None:
                raise ImageError(
                    f"the archive {want.archive} holds {', '.join(ids) or 'no image'}, wanted {want.image_id} (id)"
                )
            chosen = want.image_id
        else:
            named = self._id_of(want.reference.lookup_name)
            if named not in ids and len(ids) != 1:
                raise ImageError(
                    f"the archive {want.archive} holds {len(ids)} images ({', '.join(sorted(loaded)) or 'none'}), "
                    f"none of them is {want.reference.lookup_name} (reference)"
                )
            chosen = named if named is not None and named in ids else ids[0]
        os.makedirs(self._records, mode=0o755, exist_ok=True)
        with open(self._record(want), "w", encoding="utf-8") as stream_out:
            json.dump({"archive": want.archive, "id": chosen, "names": sorted(loaded)}, stream_out, indent=1)
        return chosen

    @contextmanager
    def _open(self, want: Wanted) -> Iterator[BinaryIO]:
        """The archive for reading; a downloaded one is removed afterwards."""
        url = want.archive or ""
        path = _download.local_path(url)
        if path is not None:
            with open(path, "rb") as stream:
                yield stream
            return
        os.makedirs(self._downloads, mode=0o700, exist_ok=True)
        path = os.path.join(self._downloads, f"{want.archive_sha256}.tar")
        if not os.path.isfile(path):
            self._fetch(url, path, sha256=want.archive_sha256)
        with open(path, "rb") as stream:
            yield stream
        os.unlink(path)
