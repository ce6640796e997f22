# SPDX-License-Identifier: Apache-2.0
# PRIVATE to the collection: do not import this from outside, it may change without notice.
"""Keep one model's files in a store: whole, verified, readable, and neither copied nor downloaded twice.

A model is put together in a staging directory beside its final place and gets its name by a rename, so a reader sees
all of it or nothing. A manifest in the model's directory records where the files came from and their digests; a later
run compares sizes and times with it, which costs one ``stat`` per file and not a read of 100 GB.
"""

from __future__ import annotations

import json
import os
import posixpath
import re
import shutil
import stat
import tarfile
import urllib.error
import urllib.parse
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from ansible_collections.gpufleet.metal.plugins.module_utils import _download
from ansible_collections.gpufleet.metal.plugins.module_utils._download import Digest, DownloadError
from ansible_collections.gpufleet.metal.plugins.module_utils._errors import FleetError, InvalidInputError

MANIFEST = ".gpufleet-manifest.json"
SCHEMA = 1
DIRECTORY_MODE = 0o755
FILE_MODE = 0o644
SPACE_RESERVE = 256 * 1024 * 1024
"""Bytes that must stay free on the store's file system after placing a model."""

WEIGHT_FORMATS = (".bin", ".gguf", ".h5", ".msgpack", ".onnx", ".ot", ".pt", ".pth", ".tflite")
"""Formats of weights that a repository carries beside safetensors, and that vLLM doesn't read when these are there."""

HUB_OPTIONS: dict[str, dict[str, Any]] = {
    "huggingface_endpoint": {"type": "str", "default": "https://huggingface.co"},
    "huggingface_token": {"type": "str", "no_log": True},
}
"""Options of the modules that ask a hub; documented in doc_fragments/hub.py."""

_SHA256 = re.compile(r"^[0-9a-f]{64}$")
_COMMIT = re.compile(r"^[0-9a-f]{40}$")
_REPOSITORY = re.compile(r"^[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*$")


class ModelError(FleetError):
    """A model can't be placed or isn't what it should be."""


Reuse = Callable[[str, "str | None", str], "Digest | None"]
"""``(file, sha256, destination)``: put a file that the store already has into place, or return None.

Without a sha256 the one that the manifest records counts, provided that the source is still the same."""


class Source(ABC):
    """Where a model comes from."""

    @abstractmethod
    def identity(self, recorded: Mapping[str, Any] | None) -> dict[str, Any]:
        """What the manifest records of the source; equal identities mean equal content.

        ``recorded`` is the identity in the manifest, None without one.
        """

    @abstractmethod
    def needed_bytes(self, have: frozenset[str]) -> int:
        """Bytes that placing the model takes on the store's file system, less the files whose sha256 it has."""

    @abstractmethod
    def fill(self, staging: str, reuse: Reuse) -> dict[str, Digest]:
        """Put all files below ``staging``; returns file -> digest."""


class PathSource(Source):
    """A directory on the host: mounted media, or a network file system."""

    def __init__(self, path: str) -> None:
        self._path = path

    def _files(self) -> dict[str, os.stat_result]:
        if not os.path.isdir(self._path):
            raise ModelError(f"the source directory {self._path} doesn't exist on this host (source.path)")
        found = dict(walk(self._path))
        if not found:
            raise ModelError(f"the source directory {self._path} holds no file (source.path)")
        return found

    def identity(self, recorded: Mapping[str, Any] | None) -> dict[str, Any]:
        if not os.path.isdir(self._path) and recorded and recorded.get("path") == self._path:
            # The medium is gone after the copy: what was copied is still right.
            return dict(recorded)
        files = {name: [info.st_size, info.st_mtime_ns] for name, info in sorted(self._files().items())}
        return {"kind": "path", "path": self._path, "files": files}

    def needed_bytes(self, have: frozenset[str]) -> int:
        return sum(info.st_size for info in self._files().values())

    def fill(self, staging: str, reuse: Reuse) -> dict[str, Digest]:
        digests = {}
        for name in sorted(self._files()):
            target = _place(staging, name)
            digests[name] = reuse(name, None, target) or self._copy(name, target)
        return digests

    def _copy(self, name: str, target: str) -> Digest:
        with open(os.path.join(self._path, name), "rb") as source, open(target, "wb") as copy:
            return _download.hash_stream(source, copy)


class ArchiveSource(Source):
    """A tar archive (plain, gzip, bzip2 or xz) at a URL, pinned by its sha256."""

    def __init__(self, url: str, sha256: str, fetch: Callable[..., Digest] = _download.fetch) -> None:
        self._url = url
        self._sha256 = sha256.lower()
        self._fetch = fetch
        self._local = _download.local_path(url)

    def identity(self, recorded: Mapping[str, Any] | None) -> dict[str, Any]:
        return {"kind": "archive", "sha256": self._sha256}

    def needed_bytes(self, have: frozenset[str]) -> int:
        if self._local is not None:
            if not os.path.isfile(self._local):
                raise ModelError(f"the archive {self._local} doesn't exist on this host (source.archive.url)")
            return os.path.getsize(self._local)
        try:
            with _download.open_url(self._url) as response:
                # Packed and unpacked lie side by side for a while.
                return 2 * int(response.headers.get("Content-Length") or 0)
        except OSError as error:
            raise DownloadError(f"{self._url}: {error}") from error

    def fill(self, staging: str, reuse: Reuse) -> dict[str, Digest]:
        if self._local is not None:
            return self._unpack_verified(self._local, staging)
        packed = os.path.join(os.path.dirname(staging), f".archive-{self._sha256[:16]}.tar")
        self._fetch(self._url, packed, sha256=self._sha256)
        digests = self._unpack_verified(packed, staging)
        os.unlink(packed)
        return digests

    def _unpack_verified(self, path: str, staging: str) -> dict[str, Digest]:
        # One descriptor for both reads: what is unpacked is what was verified.
        with open(path, "rb") as stream:
            found = _download.hash_stream(stream)
            if found.sha256 != self._sha256:
                raise ModelError(
                    f"the archive {self._url} has sha256 {found.sha256}, wanted {self._sha256} "
                    "(source.archive.sha256); nothing was unpacked"
                )
            stream.seek(0)
            return unpack(stream, staging)


class HuggingFaceSource(Source):
    """A revision (a commit) of a repository on the Hugging Face hub or on a mirror that speaks its API."""

    def __init__(
        self,
        repository: str,
        revision: str,
        endpoint: str,
        token: str | None = None,
        exclude: tuple[str, ...] = (),
        fetch: Callable[..., Digest] = _download.fetch,
    ) -> None:
        self._repository = repository
        self._revision = revision
        self._endpoint = endpoint.rstrip("/")
        self._headers = {"Authorization": f"Bearer {token}"} if token else {}
        self._exclude = exclude
        self._fetch = fetch
        self._listing: list[dict[str, Any]] | None = None

    def identity(self, recorded: Mapping[str, Any] | None) -> dict[str, Any]:
        return {
            "kind": "huggingface",
            "repository": self._repository,
            "revision": self._revision,
            "exclude": sorted(self._exclude),
        }

    def files(self) -> list[dict[str, Any]]:
        """The revision's files as the hub lists them: ``rfilename``, ``size``, ``blobId``; large ones have ``lfs``."""
        if self._listing is not None:
            return self._listing
        url = f"{self._endpoint}/api/models/{self._repository}/revision/{self._revision}?blobs=true"
        try:
            with _download.open_url(url, self._headers) as response:
                document = json.load(response)
        except urllib.error.HTTPError as error:
            hint = " (model_store_huggingface_token)" if error.code in (401, 403) else ""
            raise ModelError(f"{url}: the server answered {error.code} {error.reason}{hint}") from error
        except (OSError, ValueError) as error:
            raise ModelError(f"{url}: {error} (model_store_huggingface_endpoint)") from error
        if document.get("sha") != self._revision:
            raise ModelError(f"{url}: the revision is {document.get('sha')!r}, wanted {self._revision!r}")
        self._listing = select(document.get("siblings") or [], self._exclude)
        if not self._listing:
            raise ModelError(f"{url}: the revision holds no file that is wanted")
        return self._listing

    def needed_bytes(self, have: frozenset[str]) -> int:
        return sum(int(entry.get("size") or 0) for entry in self.files() if _lfs_sha256(entry) not in have)

    def fill(self, staging: str, reuse: Reuse) -> dict[str, Digest]:
        digests = {}
        for entry in self.files():
            name = entry["rfilename"]
            sha256 = _lfs_sha256(entry)
            target = _place(staging, name)
            kept = reuse(name, sha256, target)
            if kept is None:
                url = f"{self._endpoint}/{self._repository}/resolve/{self._revision}/{urllib.parse.quote(name)}"
                kept = self._fetch(url, target, sha256=sha256, size=entry.get("size"), headers=self._headers)
                if sha256 is None:
                    self._check_blob(name, target, entry)
            digests[name] = kept
        return digests

    def _check_blob(self, name: str, path: str, entry: Mapping[str, Any]) -> None:
        wanted, found = entry.get("blobId"), _download.git_blob_id(path)
        if wanted != found:
            os.unlink(path)
            raise ModelError(
                f"{self._repository} at {self._revision}: the file {name!r} has the git id {found}, wanted {wanted}; "
                "nothing of it was kept"
            )


def describe_source(identity: Mapping[str, Any]) -> str:
    """The identity of a source in words, such as ``huggingface zai-org/glm 0123``."""
    keys = ("kind", "path", "sha256", "repository", "revision")
    return " ".join(identity[key] for key in keys if key in identity)


def _lfs_sha256(entry: Mapping[str, Any]) -> str | None:
    value = (entry.get("lfs") or {}).get("sha256")
    return None if value is None else str(value)


def select(siblings: list[dict[str, Any]], exclude: tuple[str, ...]) -> list[dict[str, Any]]:
    """The files that serving needs: no hidden ones, none below an excluded name, and one format of weights."""
    names = [entry["rfilename"] for entry in siblings]
    has_safetensors = any(name.endswith(".safetensors") and "/" not in name for name in names)
    chosen = []
    for entry in siblings:
        name = safe_name(entry["rfilename"], "the repository's listing")
        parts = name.split("/")
        if any(part.startswith(".") for part in parts) or any(name == x or name.startswith(f"{x}/") for x in exclude):
            continue
        if has_safetensors and name.endswith(WEIGHT_FORMATS):
            continue
        chosen.append(entry)
    return sorted(chosen, key=lambda entry: str(entry["rfilename"]))


def make_source(
    source: Mapping[str, Any], endpoint: str, token: str | None = None, exclude: tuple[str, ...] = ()
) -> Source:
    """The source that the user wrote: exactly one of ``path``, ``archive``, ``huggingface``."""
    given = sorted(key for key, value in source.items() if value is not None)
    if len(given) != 1 or given[0] not in ("path", "archive", "huggingface"):
        raise InvalidInputError(
            f"source has {', '.join(given) or 'nothing'}, wanted exactly one of path, archive, huggingface"
        )
    kind, value = given[0], source[given[0]]
    if kind == "path":
        if not isinstance(value, str) or not value.startswith("/"):
            raise InvalidInputError(f"source.path is {value!r}, wanted an absolute path")
        return PathSource(value.rstrip("/") or "/")
    keys = {"archive": {"url", "sha256"}, "huggingface": {"repository", "revision"}}[kind]
    if not isinstance(value, Mapping) or set(value) != keys:
        found = ", ".join(sorted(value)) if isinstance(value, Mapping) else repr(value)
        raise InvalidInputError(f"source.{kind} has {found}, wanted {' and '.join(sorted(keys, reverse=True))}")
    if kind == "archive":
        if not _SHA256.match(str(value["sha256"]).lower()):
            raise InvalidInputError(f"source.archive.sha256 is {value['sha256']!r}, wanted 64 hex digits")
        return ArchiveSource(value["url"], value["sha256"])
    if not _REPOSITORY.match(str(value["repository"])):
        raise InvalidInputError(f"source.huggingface.repository is {value['repository']!r}, wanted organisation/name")
    if not _COMMIT.match(str(value["revision"])):
        raise InvalidInputError(
            f"source.huggingface.revision is {value['revision']!r}, wanted a commit (40 hex digits): "
            "a branch or tag can change under a running fleet"
        )
    return HuggingFaceSource(value["repository"], value["revision"], endpoint, token, exclude)


def walk(root: str) -> Iterator[tuple[str, os.stat_result]]:
    """All visible regular files below ``root`` as (relative name, stat). Links to files count as the file."""
    for directory, subdirectories, names in os.walk(root):
        subdirectories[:] = sorted(name for name in subdirectories if not name.startswith("."))
        for name in sorted(names):
            path = os.path.join(directory, name)
            if name.startswith("."):
                continue
            info = os.stat(path)
            if stat.S_ISREG(info.st_mode):
                yield os.path.relpath(path, root).replace(os.sep, "/"), info


def unpack(stream: Any, staging: str) -> dict[str, Digest]:
    """Unpack the regular files of a tar archive; a single directory at its top is taken off."""
    digests: dict[str, Digest] = {}
    try:
        with tarfile.open(fileobj=stream, mode="r|*") as archive:
            for member in archive:
                if member.isdir():
                    continue
                name = safe_name(posixpath.normpath(member.name), "the archive")
                if not member.isreg():
                    raise ModelError(f"the archive's member {member.name!r} is a link or device, wanted files only")
                if any(part.startswith(".") for part in name.split("/")):
                    continue
                content = archive.extractfile(member)
                if content is None:
                    raise ModelError(f"the archive's member {member.name!r} has no content")
                with content, open(_place(staging, name), "wb") as target:
                    digests[name] = _download.hash_stream(content, target)  # type: ignore[arg-type]
    except tarfile.TarError as error:
        raise ModelError(f"the archive isn't a readable tar file: {error}") from error
    if not digests:
        raise ModelError("the archive holds no file")
    tops = {name.split("/", 1)[0] for name in digests}
    if len(tops) == 1 and all("/" in name for name in digests):
        (top,) = tops
        for entry in os.listdir(os.path.join(staging, top)):
            os.rename(os.path.join(staging, top, entry), os.path.join(staging, f".up-{entry}"))
        os.rmdir(os.path.join(staging, top))
        for entry in os.listdir(staging):
            os.rename(os.path.join(staging, entry), os.path.join(staging, entry[len(".up-") :]))
        digests = {name.split("/", 1)[1]: digest for name, digest in digests.items()}
    return digests


@dataclass
class Request:
    """What is wanted. Ids are numbers; ``reader`` is the (uid, gid) of the engine, None to skip that check."""

    name: str
    directory: str
    source: Source
    files_sha256: Mapping[str, str] = field(default_factory=dict)
    uid: int = 0
    gid: int = 0
    reader: tuple[int, int] | None = None
    verify: str = "quick"
    replacement_allowed: bool = False


@dataclass
class Outcome:
    """What was done or, in check mode, would be."""

    action: str = "none"
    reason: str = ""
    files: int = 0
    bytes: int = 0
    reused: int = 0

    @property
    def changed(self) -> bool:
        """Whether the store is or would be another one than before."""
        return self.action != "none"


def apply(request: Request, check_mode: bool = False) -> Outcome:
    """Bring one model into the wanted state.

    Raises ModelError or DownloadError; the visible files are then as they were.
    """
    try:
        return _Job(request, check_mode).run()
    except FleetError as error:
        raise type(error)(f"model {request.name!r}: {error}") from error
    except OSError as error:
        raise ModelError(f"model {request.name!r}: {error.strerror}: {error.filename}") from error


class _Job:
    def __init__(self, request: Request, check_mode: bool) -> None:
        self._want = request
        self._check_mode = check_mode
        self._final = request.directory.rstrip("/")
        self._store, base = os.path.split(self._final)
        self._staging = os.path.join(self._store, f".staging-{base}")
        self._old = os.path.join(self._store, f".old-{base}")
        self._reused = 0
        self._same_source = False
        self._recorded: dict[str, Any] = {}

    def run(self) -> Outcome:
        manifest = read_manifest(self._final)
        recorded = manifest["source"] if manifest else None
        self._recorded = manifest["files"] if manifest else {}
        identity = self._want.source.identity(recorded)
        self._same_source = identity == recorded
        if manifest is None:
            reason = "it isn't in the store" if not os.path.isdir(self._final) else "its directory has no manifest"
        elif not self._same_source:
            reason = "its source changed"
            self._check_consent(manifest["source"], identity)
        else:
            reason = self._drift(manifest)
        if reason or manifest is None:
            outcome = Outcome("placed", reason)
            if self._check_mode:
                self._check_before(reason)
                return outcome
            manifest = self._place_model(identity)
        else:
            outcome = Outcome()
            self._check_digests({name: entry["sha256"] for name, entry in manifest["files"].items()})
            fixed = self._fix_attributes(self._final, manifest)
            if fixed:
                outcome = Outcome("attributes", f"owner or mode of {', '.join(fixed[:3])} differed")
        outcome.files = len(manifest["files"])
        outcome.bytes = sum(entry["size"] for entry in manifest["files"].values())
        outcome.reused = self._reused
        if not (self._check_mode and outcome.changed):
            self._check_readable(manifest)
        return outcome

    def _drift(self, manifest: dict[str, Any]) -> str:
        """Why the files aren't those of the manifest; empty when they are."""
        present = dict(walk(self._final))
        extra = sorted(set(present) - set(manifest["files"]))
        if extra:
            return f"there are files that aren't the model's: {', '.join(extra[:3])}"
        for name, entry in sorted(manifest["files"].items()):
            info = present.get(name)
            if info is None:
                return f"the file {name!r} is missing"
            if info.st_size != entry["size"]:
                return f"the file {name!r} has {info.st_size} bytes, wanted {entry['size']}"
            touched = info.st_mtime_ns != entry["mtime_ns"]
            if not touched and self._want.verify != "full":
                continue
            found = _download.hash_file(os.path.join(self._final, name)).sha256
            if found != entry["sha256"]:
                return f"the file {name!r} has sha256 {found}, wanted {entry['sha256']}"
            if touched and not self._check_mode:
                # Only its time is another one: put it back, so that the next run needs no hash.
                os.utime(os.path.join(self._final, name), ns=(info.st_atime_ns, entry["mtime_ns"]))
        return ""

    def _place_model(self, identity: dict[str, Any]) -> dict[str, Any]:
        os.makedirs(self._store, mode=DIRECTORY_MODE, exist_ok=True)
        self._recover()
        self._check_space()
        self._prepare_staging(identity)
        digests = self._want.source.fill(self._staging, self._reuse)
        self._check_digests({name: digest.sha256 for name, digest in digests.items()})
        self._drop_strangers(digests)
        manifest: dict[str, Any] = {"schema": SCHEMA, "model": self._want.name, "source": identity, "files": {}}
        for name, digest in sorted(digests.items()):
            info = os.stat(os.path.join(self._staging, name))
            manifest["files"][name] = {"sha256": digest.sha256, "size": digest.size, "mtime_ns": info.st_mtime_ns}
        _write_json(os.path.join(self._staging, MANIFEST), manifest)
        self._fix_attributes(self._staging, manifest)
        self._swap()
        return manifest

    def _check_consent(self, recorded: Mapping[str, Any], identity: Mapping[str, Any]) -> None:
        """An engine that restarts on its own would load files that were not the ones that it was started for."""
        if self._want.replacement_allowed:
            return
        found, wanted = describe_source(recorded), describe_source(identity)
        if found == wanted:
            wanted = "its files of now"
        raise ModelError(
            f"{self._final} holds the files of {found}, wanted {wanted}; an engine that restarts by itself would load "
            "the new ones: set vllm_restart_allowed to true (model_store_replacement_allowed where the role runs "
            "alone) to have them replaced; nothing was changed"
        )

    def _check_before(self, reason: str) -> None:
        """Fail in check mode where placing the model would: its source isn't there, or it has no room."""
        try:
            self._check_space()
        except FleetError as error:
            raise type(error)(f"{reason}, and it can't be placed: {error}") from error

    def _recover(self) -> None:
        """Finish what a killed run left between its two renames."""
        if os.path.isdir(self._old) and not os.path.lexists(self._final):
            os.rename(self._old, self._final)
        _remove_tree(self._old)

    def _check_space(self) -> None:
        sound = {name: entry for name, entry in self._recorded.items() if self._as_recorded(name)}
        needed = self._want.source.needed_bytes(frozenset(entry["sha256"] for entry in sound.values()))
        if self._same_source:
            needed -= sum(entry["size"] for entry in sound.values())
        already = sum(info.st_size for _unused, info in walk(self._staging)) if os.path.isdir(self._staging) else 0
        free, wanted = _download.free_bytes(self._store), needed + SPACE_RESERVE
        if free + already < wanted:
            raise ModelError(
                f"{self._store} has {_download.gib(free)} GiB free, wanted {_download.gib(wanted)} GiB: "
                "make room, or set model_store_directory to a larger file system"
            )

    def _prepare_staging(self, identity: dict[str, Any]) -> None:
        """Keep partial downloads of the same source, drop those of another."""
        marker = os.path.join(self._staging, MANIFEST)
        try:
            with open(marker, encoding="utf-8") as stream:
                same = json.load(stream).get("filling") == identity
        except (OSError, ValueError):
            same = False
        if not same:
            _remove_tree(self._staging)
        os.makedirs(self._staging, mode=0o700, exist_ok=True)
        _write_json(marker, {"filling": identity})

    def _reuse(self, name: str, sha256: str | None, target: str) -> Digest | None:
        """Take a file that is there already: from a run that was cut off, or from the model's present directory."""
        recorded = self._recorded.get(name)
        if sha256 is None and self._same_source and recorded:
            sha256 = recorded["sha256"]
        if sha256 is None:
            return None
        for candidate in (target, os.path.join(self._final, name)):
            if not os.path.isfile(candidate):
                continue
            if candidate != target and recorded and self._want.verify == "quick" and self._as_recorded(name):
                found = Digest(recorded["sha256"], recorded["size"])
            else:
                found = _download.hash_file(candidate)
            if found.sha256 == sha256:
                if candidate != target:
                    if os.path.lexists(target):
                        os.unlink(target)
                    os.link(candidate, target)
                self._reused += 1
                return found
        return None

    def _as_recorded(self, name: str) -> bool:
        """Whether the placed file still has the size and time that the manifest records."""
        path = os.path.join(self._final, name)
        if not os.path.isfile(path):
            return False
        info, entry = os.stat(path), self._recorded[name]
        return (info.st_size, info.st_mtime_ns) == (entry["size"], entry["mtime_ns"])

    def _drop_strangers(self, digests: Mapping[str, Digest]) -> None:
        for directory, _unused, names in os.walk(self._staging, topdown=False):
            for name in names:
                path = os.path.join(directory, name)
                relative = os.path.relpath(path, self._staging).replace(os.sep, "/")
                if relative not in digests and relative != MANIFEST:
                    os.unlink(path)
            if directory != self._staging and not os.listdir(directory):
                os.rmdir(directory)

    def _check_digests(self, found: Mapping[str, str]) -> None:
        for name, wanted in sorted(self._want.files_sha256.items()):
            if name not in found:
                raise ModelError(f"the source has no file {name!r}, but files_sha256 names it")
            if found[name] != wanted.lower():
                raise ModelError(f"the file {name!r} has sha256 {found[name]}, wanted {wanted.lower()} (files_sha256)")

    def _fix_attributes(self, root: str, manifest: Mapping[str, Any]) -> list[str]:
        """Set owner and mode where they differ; returns what differed."""
        paths = {os.path.join(root, MANIFEST): FILE_MODE, root: DIRECTORY_MODE}
        for name in manifest["files"]:
            path = os.path.join(root, name)
            paths[path] = FILE_MODE
            while os.path.dirname(path) != root:
                path = os.path.dirname(path)
                paths[path] = DIRECTORY_MODE
        fixed = []
        for path, mode in sorted(paths.items()):
            info = os.stat(path)
            if (stat.S_IMODE(info.st_mode), info.st_uid, info.st_gid) == (mode, self._want.uid, self._want.gid):
                continue
            fixed.append(os.path.relpath(path, root))
            if not self._check_mode:
                os.chown(path, self._want.uid, self._want.gid)
                os.chmod(path, mode)
        return fixed

    def _swap(self) -> None:
        if os.path.lexists(self._final):
            os.rename(self._final, self._old)
        os.rename(self._staging, self._final)
        _remove_tree(self._old)

    def _check_readable(self, manifest: Mapping[str, Any]) -> None:
        if self._want.reader is None:
            return
        problem = unreadable_for(
            *self._want.reader, [os.path.join(self._final, name) for name in sorted(manifest["files"])]
        )
        if problem:
            uid, gid = self._want.reader
            raise ModelError(
                f"the engine's user (uid {uid}, gid {gid}) can't read {problem}: wanted read permission on the file "
                "and search permission on every directory above it (model_store_directory, model_store_reader)"
            )


def unreadable_for(uid: int, gid: int, paths: list[str]) -> str | None:
    """The first path that a process with these ids can't open, with the reason; None if it can open all.

    Tried by a child process that takes these ids, because ACLs, network file systems and parent directories have a say
    that the mode bits don't show. A caller who isn't root can only try as itself.
    """
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        said = b""
        try:
            os.close(reader)
            if os.geteuid() == 0:
                os.setgroups([])
                os.setgid(gid)
                os.setuid(uid)
            for path in paths:
                try:
                    with open(path, "rb") as stream:
                        stream.read(1)
                except OSError as error:
                    said = f"{path} ({error.strerror})".encode()
                    break
        except BaseException as error:  # nothing of the parent's may run in the child
            said = f"anything ({error})".encode()
        finally:
            os.write(writer, said)
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as stream:
        answer = stream.read().decode()
    os.waitpid(child, 0)
    return answer or None


def read_manifest(directory: str) -> dict[str, Any] | None:
    """The manifest of a placed model; None when there is none that can be used."""
    try:
        with open(os.path.join(directory, MANIFEST), encoding="utf-8") as stream:
            document = json.load(stream)
    except (OSError, ValueError):
        return None
    if not isinstance(document, dict) or document.get("schema") != SCHEMA:
        return None
    return document


def _place(staging: str, name: str) -> str:
    path = os.path.join(staging, *name.split("/"))
    os.makedirs(os.path.dirname(path), exist_ok=True)
    return path


def safe_name(name: str, where: str) -> str:
    if not name or name.startswith("/") or "\0" in name or ".." in name.split("/"):
        raise ModelError(f"{where} has a file named {name!r}, which leads out of the model's directory")
    return name


def _remove_tree(path: str) -> None:
    if os.path.isdir(path):
        shutil.rmtree(path)


def _write_json(path: str, document: Mapping[str, Any]) -> None:
    with open(path, "w", encoding="utf-8") as stream:
        json.dump(document, stream, indent=1, sort_keys=True)
        stream.write("\n")
