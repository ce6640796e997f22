# SPDX-License-Identifier: Apache-2.0
# PRIVATE to the collection: do not import this from outside, it may change without notice.
"""Read a model's config.json and the size of its weights where the model is, without its weights.

From a directory and from the hub only headers are read. A plain tar archive on the host is stepped through by its
headers; a packed one, and one behind a URL, is streamed once, hashed on the way, and never written to disk. Whatever
the files hold, memory stays bounded: every text that is kept has a limit.
"""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import posixpath
import stat
import tarfile
import time
import urllib.error
import urllib.parse
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, BinaryIO

from ansible_collections.gpufleet.metal.plugins.module_utils import _download, _model_files
from ansible_collections.gpufleet.metal.plugins.module_utils._errors import FleetError, InvalidInputError

CONFIG = "config.json"
INDEX = "model.safetensors.index.json"
SUFFIX = ".safetensors"
#: Limits in bytes of what is read into memory; real ones are far below (the index of a model of 1 TB has 20 MB).
LARGEST = {CONFIG: 4 * 1024**2, INDEX: 64 * 1024**2}
LARGEST_HEADER = 16 * 1024**2
#: Members of an archive (tarfile keeps all of them), and bytes of one that describes the next (a long name, PAX).
MOST_MEMBERS = 10_000
LARGEST_TAR_HEADER = 16 * 1024
#: So many bytes of a tensor's entry in a header, beside its name, at most: type, shape, offsets, JSON.
ENTRY_BYTES = 512
#: Formats of weights without a header that says their size, in the order in which vLLM prefers them.
OTHER_FORMATS = (".bin", ".pt", ".pth", ".gguf")
#: Files of these formats that training leaves behind (vLLM leaves them out as well).
NO_WEIGHTS = ("training_args.bin", "optimizer.bin", "optimizer.pt", "scheduler.pt", "scaler.pt")
ATTEMPTS = 3


class FactsError(FleetError):
    """A model's files do not say what the plan has to know, or cannot be read."""


@dataclass(frozen=True)
class Facts:
    """What the model's own files say."""

    #: The content of config.json.
    config: dict[str, Any]
    #: Bytes of all tensors, or of the files where ``weights_from`` is ``files``.
    weights_bytes: int
    #: ``index`` (metadata.total_size of the safetensors index), ``headers`` (of the safetensors files) or ``files``.
    weights_from: str
    #: False when a checksum was given and not everything was read.
    verified: bool


@dataclass
class Listing:
    """The files at the top of a model's directory, and how to read the beginning of each."""

    #: How messages name the place.
    where: str
    sizes: Mapping[str, int]
    #: (file, offset, bytes) -> that part of it; shorter at its end.
    read: Callable[[str, int, int], bytes]
    verified: bool = True
    #: Bytes of the tensors, of files whose header was read already.
    tensors: dict[str, int] = field(default_factory=dict)


def _counts(name: str) -> bool:
    """Tell whether a file at the top of a model's directory says anything about the model."""
    return name in LARGEST or name.endswith((SUFFIX, *OTHER_FORMATS))


def describe(listing: Listing) -> Facts:
    """Return the facts of the model that these files are.

    Raises:
        FactsError: config.json or weights are missing, or a file is not what it should be.
    """
    config = _json(listing, CONFIG)
    weights_bytes, weights_from = _weights(listing)
    return Facts(config, weights_bytes, weights_from, listing.verified)


def _json(listing: Listing, name: str) -> dict[str, Any]:
    """Return the JSON object in a file."""
    size = listing.sizes.get(name)
    if size is None:
        raise FactsError(f"{listing.where} has no {name}, wanted the files of a model")
    if size > LARGEST[name]:
        raise FactsError(f"{name} in {listing.where} has {size} bytes, wanted at most {LARGEST[name]}")
    return parse_object(listing.read(name, 0, size), f"{name} in {listing.where}")


def parse_object(content: bytes, name: str) -> dict[str, Any]:
    """Return a JSON object; FactsError naming the file when it is none."""
    try:
        value = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise FactsError(f"{name} is not JSON: {error}") from error
    if not isinstance(value, dict):
        raise FactsError(f"{name} holds a JSON {type(value).__name__}, wanted an object")
    return value


def _weights(listing: Listing) -> tuple[int, str]:
    """Return (bytes, where the figure comes from)."""
    if INDEX in listing.sizes:
        index = _json(listing, INDEX)
        names = _indexed(index, listing)
        total = _consistent_total(index, names, listing)
        if total is not None:
            return total, "index"
        return sum(_tensor_bytes(name, listing) for name in names), "headers"
    names = sorted(name for name in listing.sizes if name.endswith(SUFFIX))
    # Mistral's repositories hold the same weights twice; without an index, vLLM loads the other files.
    names = [name for name in names if not name.startswith("consolidated")] or names
    if names:
        return sum(_tensor_bytes(name, listing) for name in names), "headers"
    for ending in OTHER_FORMATS:
        sizes = [size for name, size in listing.sizes.items() if name.endswith(ending) and name not in NO_WEIGHTS]
        if sizes:
            return sum(sizes), "files"
    raise FactsError(f"{listing.where} has no weights, wanted files *{SUFFIX} or *{', *'.join(OTHER_FORMATS)}")


def _indexed(index: Mapping[str, Any], listing: Listing) -> list[str]:
    """Return the files that the index names; each must be there."""
    weight_map = index.get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map or not all(isinstance(f, str) for f in weight_map.values()):
        raise FactsError(f"weight_map of {INDEX} in {listing.where} names no files, wanted a file for each tensor")
    names = sorted(set(weight_map.values()))
    others = [name for name in names if not name.endswith(SUFFIX)]
    if others:
        raise FactsError(f"{INDEX} in {listing.where} names {others[0][:80]!r}, wanted files *{SUFFIX}")
    missing = [name for name in names if name not in listing.sizes]
    if missing:
        raise FactsError(f"{listing.where} lacks {', '.join(missing[:3])}, which {INDEX} names: it is not complete")
    return names


def _consistent_total(index: Mapping[str, Any], names: Sequence[str], listing: Listing) -> int | None:
    """Return metadata.total_size when the files are as large as it says, and their headers; else None.

    Some indexes count a shared tensor twice, or parameters in the place of bytes.
    """
    metadata = index.get("metadata")
    total = metadata.get("total_size") if isinstance(metadata, dict) else None
    if isinstance(total, bool) or not isinstance(total, int) or total < 1:
        return None
    headers = sum(listing.sizes[name] for name in names) - total
    largest = sum(len(str(tensor)) + ENTRY_BYTES for tensor in index["weight_map"]) + ENTRY_BYTES * len(names)
    return total if 8 * len(names) <= headers <= largest else None


def _tensor_bytes(name: str, listing: Listing) -> int:
    """Return the bytes of the tensors in a safetensors file."""
    if name not in listing.tensors:
        listing.tensors[name] = tensor_bytes(
            lambda offset, length: listing.read(name, offset, length), listing.sizes[name], f"{name} in {listing.where}"
        )
    return listing.tensors[name]


def tensor_bytes(read: Callable[[int, int], bytes], size: int, name: str) -> int:
    """Return the bytes of the tensors in a safetensors file of ``size`` bytes, from its header.

    The format: 8 bytes with the header's length, the header (JSON: tensor -> dtype, shape, data_offsets), the data
    without holes. https://github.com/huggingface/safetensors, README.md

    Args:
        read: (offset, bytes) -> that part of the file.
        size: the file's size in bytes.
        name: how messages name the file.

    Raises:
        FactsError: the file is cut off or is no safetensors file.
    """
    if size < 8:
        raise FactsError(f"{name} has {size} bytes, wanted a safetensors file: 8 bytes and a header at least")
    length = int.from_bytes(_exactly(read, 0, 8, name), "little")
    if length > LARGEST_HEADER:
        raise FactsError(f"the header of {name} has {length} bytes by its own word, wanted at most {LARGEST_HEADER}")
    if 8 + length > size:
        raise FactsError(f"{name} has {size} bytes, wanted {8 + length} for its header alone: it is cut off")
    header = parse_object(_exactly(read, 8, length, name), f"the header of {name}")
    spans = []
    for tensor, entry in header.items():
        if tensor == "__metadata__":
            continue
        offsets = entry.get("data_offsets") if isinstance(entry, dict) else None
        if not (
            isinstance(offsets, list)
            and len(offsets) == 2
            and all(isinstance(offset, int) and not isinstance(offset, bool) for offset in offsets)
        ):
            raise FactsError(f"the header of {name} has no data_offsets of {tensor[:80]!r}, wanted two numbers")
        spans.append((offsets[0], offsets[1]))
    end = 0
    for begin, stop in sorted(spans):
        if begin != end or stop < begin:
            raise FactsError(f"the header of {name} leaves a hole or an overlap at byte {end} of the tensors")
        end = stop
    if size != 8 + length + end:
        raise FactsError(f"{name} has {size} bytes, wanted {8 + length + end} by its header: it is cut off or too long")
    return end


def _exactly(read: Callable[[int, int], bytes], offset: int, length: int, name: str) -> bytes:
    content = read(offset, length)
    if len(content) != length:
        raise FactsError(f"{name} ends after {offset + len(content)} bytes, wanted {offset + length}: it is cut off")
    return content


# ------------------------------------------------------------------------------------------------------- a directory


def list_directory(path: str) -> Listing:
    """Return the files of a directory on this host; links count as what they lead to."""
    where = f"the directory {path} (source.path)"
    try:
        names = sorted(os.listdir(path))
    except OSError as error:
        raise FactsError(f"{where} can't be read on this host: {error.strerror}") from error
    sizes = {}
    for name in names:
        if name.startswith(".") or not _counts(name):
            continue
        try:
            info = os.stat(os.path.join(path, name))
        except OSError as error:
            raise FactsError(f"{name} in {where} can't be read: {error.strerror}") from error
        if stat.S_ISREG(info.st_mode):
            sizes[name] = info.st_size

    def read(name: str, offset: int, length: int) -> bytes:
        try:
            with open(os.path.join(path, name), "rb") as stream:
                stream.seek(offset)
                return stream.read(length)
        except OSError as error:
            raise FactsError(f"{name} in {where} can't be read: {error.strerror}") from error

    return Listing(where, sizes, read)


# -------------------------------------------------------------------------------------------------------- an archive


#: Types of members that describe the next one.
_DESCRIPTIONS = (
    tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
    tarfile.XHDTYPE,
    tarfile.XGLTYPE,
    tarfile.SOLARIS_XHDTYPE,
)


class _BoundedMember(tarfile.TarInfo):
    """A member whose descriptions (long names, PAX headers), which tarfile reads whole, are not too large."""

    def _proc_member(self, tarfile: tarfile.TarFile) -> Any:
        if self.size < 0 or (self.type in _DESCRIPTIONS and self.size > LARGEST_TAR_HEADER):
            raise FactsError(f"the archive describes a member with {self.size} bytes, wanted 0 to {LARGEST_TAR_HEADER}")
        return super()._proc_member(tarfile)  # type: ignore[misc]


class _Hashed:
    """A stream that is hashed while it is read."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self._sha256 = hashlib.sha256()

    def read(self, size: int = -1) -> bytes:
        content: bytes = self._stream.read(size)
        self._sha256.update(content)
        return content

    def drain(self) -> str:
        """Read what is left and return the digest of everything."""
        while self.read(_download.BLOCK):
            pass
        return self._sha256.hexdigest()


def list_archive(url: str, sha256: str) -> Listing:
    """Return the files of a tar archive (plain, gzip, bzip2 or xz) at a URL.

    Raises:
        FactsError: it cannot be read, is no tar archive, or what was read whole has another digest.
    """
    path = _download.local_path(url)
    try:
        if path is None:
            with _download.open_url(url) as response:
                return _list_stream(response, url, sha256)
        with open(path, "rb") as stream:
            archive = _open_plain(stream)
            if archive is None:
                stream.seek(0)
                return _list_stream(stream, url, sha256)
            with archive:
                return _list_members(archive, url, verified=False)
    except urllib.error.HTTPError as error:
        raise FactsError(f"{url}: the server answered {error.code} {error.reason} (source.archive.url)") from error
    except (tarfile.TarError, EOFError) as error:
        raise FactsError(f"the archive {url} isn't a readable tar file: {error}") from error
    except (OSError, http.client.HTTPException) as error:
        what = getattr(error, "strerror", None) or error
        raise FactsError(f"the archive {url} can't be read on this host: {what} (source.archive.url)") from error


def _open_plain(stream: BinaryIO) -> tarfile.TarFile | None:
    """Open a tar archive that is not packed, so that weights are skipped and not read; None when it is none."""
    try:
        return tarfile.open(fileobj=stream, mode="r:", tarinfo=_BoundedMember)
    except tarfile.ReadError:
        return None


def _list_stream(stream: Any, url: str, sha256: str) -> Listing:
    hashed = _Hashed(stream)
    with tarfile.open(fileobj=hashed, mode="r|*", tarinfo=_BoundedMember) as archive:  # type: ignore[call-overload]
        listing = _list_members(archive, url, verified=True)
    found = hashed.drain()
    if found != sha256.lower():
        raise FactsError(
            f"the archive {url} has sha256 {found}, wanted {sha256.lower()} (source.archive.sha256); nothing of it "
            "was taken"
        )
    return listing


def _list_members(archive: tarfile.TarFile, url: str, verified: bool) -> Listing:
    """Step through an archive once and keep what describes the model; a single directory at its top is taken off."""
    where = f"the archive {url}"
    sizes: dict[str, int] = {}
    texts: dict[str, bytes] = {}
    tensors: dict[str, int] = {}
    tops: set[str] = set()
    flat = False
    left = 2 * sum(LARGEST.values())
    for number, member in enumerate(archive):
        if number >= MOST_MEMBERS:
            raise FactsError(f"{where} has more than {MOST_MEMBERS} members, wanted the files of one model")
        if member.isdir():
            continue
        name = _model_files.safe_name(posixpath.normpath(member.name), where)
        if not member.isreg() or member.issparse():
            raise FactsError(f"{where} has the member {member.name[:80]!r}, a link, a device or a sparse file")
        if any(part.startswith(".") for part in name.split("/")):
            continue
        tops.add(name.split("/", 1)[0])
        flat = flat or "/" not in name
        base = posixpath.basename(name)
        if name.count("/") > 1 or not _counts(base):
            continue
        sizes[name] = member.size
        if base in LARGEST:
            left -= member.size
            if member.size > LARGEST[base] or left < 0:
                raise FactsError(f"{name} in {where} has {member.size} bytes, wanted at most {LARGEST[base]}")
            texts[name] = _content(archive, member).read()
        elif base.endswith(SUFFIX):
            read = _forward(_content(archive, member))
            tensors[name] = tensor_bytes(read, member.size, f"{name} in {where}")
    if not tops:
        raise FactsError(f"{where} holds no file")
    prefix = f"{next(iter(tops))}/" if len(tops) == 1 and not flat else ""
    kept = _below(texts, prefix)
    return Listing(
        where, _below(sizes, prefix), lambda name, at, n: kept[name][at : at + n], verified, _below(tensors, prefix)
    )


def _below(names: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    """Return what lies directly below the directory ``prefix``, by its name there."""
    cut = {name[len(prefix) :]: value for name, value in names.items() if name.startswith(prefix)}
    return {name: value for name, value in cut.items() if "/" not in name}


def _forward(stream: Any) -> Callable[[int, int], bytes]:
    """Return a reader of parts that follow each other: a stream goes only forward."""

    def read(_offset: int, length: int) -> bytes:
        content: bytes = stream.read(length)
        return content

    return read


def _content(archive: tarfile.TarFile, member: tarfile.TarInfo) -> Any:
    content = archive.extractfile(member)
    if content is None:
        raise FactsError(f"the archive's member {member.name[:80]!r} has no content")
    return content


# ----------------------------------------------------------------------------------------------------------- the hub


def list_repository(
    repository: str,
    revision: str,
    endpoint: str,
    token: str | None = None,
    sleep: Callable[[float], None] = time.sleep,
) -> Listing:
    """Return the files of a commit on the Hugging Face hub, or on a mirror that speaks its API.

    Raises:
        FleetError: the hub refuses, or does not know the commit.
    """
    source = _model_files.HuggingFaceSource(repository, revision, endpoint, token)
    sizes = {}
    for entry in source.files():
        name, size = str(entry["rfilename"]), entry.get("size")
        if "/" in name or not _counts(name):
            continue
        if isinstance(size, bool) or not isinstance(size, int):
            raise FactsError(f"{repository} at {revision}: the hub lists {name} with the size {size!r}, wanted bytes")
        sizes[name] = size
    headers = {"Authorization": f"Bearer {token}"} if token else {}

    def read(name: str, offset: int, length: int) -> bytes:
        url = f"{endpoint.rstrip('/')}/{repository}/resolve/{revision}/{urllib.parse.quote(name)}"
        return _read_part(url, headers, offset, length, sleep)

    return Listing(f"{repository} at {revision}", sizes, read)


def _read_part(url: str, headers: Mapping[str, str], offset: int, length: int, sleep: Callable[[float], None]) -> bytes:
    """Return a part of what is at a URL; a server that does not know ranges is read up to the end of the part."""
    if length == 0:
        return b""
    wanted = {**headers, "Range": f"bytes={offset}-{offset + length - 1}"}
    for attempt in range(1, ATTEMPTS + 1):
        try:
            with _download.open_url(url, wanted) as response:
                if response.status != http.client.PARTIAL_CONTENT:
                    _skip(response, offset)
                return response.read(length)
        except urllib.error.HTTPError as error:
            if error.code not in _download.TRANSIENT or attempt == ATTEMPTS:
                hint = " (model_store_huggingface_token)" if error.code in (401, 403) else ""
                raise FactsError(f"{url}: the server answered {error.code} {error.reason}{hint}") from error
        except (OSError, http.client.HTTPException) as error:
            if attempt == ATTEMPTS:
                what = getattr(error, "reason", None) or error
                raise FactsError(f"{url}: {what} (model_store_huggingface_endpoint)") from error
        sleep(2.0**attempt)
    raise AssertionError("the last attempt returns or raises")


def _skip(stream: BinaryIO | http.client.HTTPResponse, length: int) -> None:
    while length:
        block = stream.read(min(length, _download.BLOCK))
        if not block:
            return
        length -= len(block)


# ------------------------------------------------------------------------------------------------------------- models


@dataclass(frozen=True)
class Outcome:
    """What was read of several models."""

    facts: dict[str, Facts]
    #: Model -> why nothing could be read of it.
    failures: dict[str, str]


def describe_models(
    models: Sequence[Any],
    endpoint: str,
    token: str | None = None,
    sleep: Callable[[float], None] = time.sleep,
) -> Outcome:
    """Read the facts of entries of ``fleet_models``; those that give config and weights_bytes themselves are left out.

    Raises:
        InvalidInputError: an entry has no name or no usable source, or two have one name.
    """
    wanted: dict[str, Mapping[str, Any]] = {}
    for position, entry in enumerate(models):
        name = entry.get("name") if isinstance(entry, Mapping) else None
        if not isinstance(name, str) or not name:
            raise InvalidInputError(f"fleet_models[{position}] has the name {name!r}, wanted a text")
        if name in wanted:
            raise InvalidInputError(f"fleet_models has two entries named {name!r}, wanted one entry per name")
        source = entry.get("source")
        if not isinstance(source, Mapping):
            raise InvalidInputError(f"fleet_models[{name}].source is {source!r}, wanted path, archive or huggingface")
        try:
            _model_files.make_source(source, endpoint, token)
        except FleetError as error:
            raise InvalidInputError(f"fleet_models[{name}]: {error}") from error
        if entry.get("config") is None or entry.get("weights_bytes") is None:
            wanted[name] = source
    facts: dict[str, Facts] = {}
    failures: dict[str, str] = {}
    for name, source in wanted.items():
        try:
            facts[name] = describe(list_source(source, endpoint, token, sleep))
        except FleetError as error:
            failures[name] = f"model {name!r}: {error}"
    return Outcome(facts, failures)


def list_source(
    source: Mapping[str, Any], endpoint: str, token: str | None, sleep: Callable[[float], None] = time.sleep
) -> Listing:
    """Return the files of a model's source, which has exactly one of ``path``, ``archive``, ``huggingface``."""
    if source.get("path") is not None:
        return list_directory(source["path"])
    if source.get("archive") is not None:
        return list_archive(source["archive"]["url"], source["archive"]["sha256"])
    hub = source["huggingface"]
    return list_repository(hub["repository"], hub["revision"], endpoint, token, sleep)
