# SPDX-License-Identifier: Apache-2.0
# PRIVATE to the collection: do not import this from outside, it may change without notice.
"""What a builder does: have apt and skopeo fetch, check what came, index and sign repositories, seal the bundle.

Each step looks what is there and does the rest, so a build that was killed goes on. A file has its name in the bundle
only when it is whole and its digest was compared.
"""

from __future__ import annotations

import glob
import json
import os
import shutil
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from ansible_collections.gpufleet.metal.plugins.module_utils import _download
from ansible_collections.gpufleet.metal.plugins.module_utils._commands import Runner

from . import apt, document, images
from .document import BundleError

#: apt resolves for a host that has nothing yet, so that a bundle serves a host whatever it has.
APT = (
    "apt-get",
    "--quiet=2",
    "--no-install-recommends",
    "-o",
    "Acquire::ForceHash=SHA256",
    "-o",
    "APT::Get::AllowUnauthenticated=false",
)
GNUPG = ("gpg", "--batch", "--quiet", "--no-tty", "--pinentry-mode", "loopback", "--passphrase", "")
KEY_NAME = "gpufleet bundle"


def said(out: str, err: str) -> str:
    """Return the last lines of what a program said."""
    lines = [line for line in [*err.splitlines(), *out.splitlines()] if line.strip()]
    return "; ".join(line.strip() for line in lines[-6:]) or "nothing was said"


class Packages:
    """The packages of one system."""

    def __init__(self, run: Runner, directory: str, work: str) -> None:
        self._run = run
        self._packages = os.path.join(directory, "packages")
        self._archives = os.path.join(work, "archives")
        self._empty = os.path.join(work, "empty")

    def _apt(self, archives: str, *arguments: str) -> str:
        status = os.path.join(self._empty, "status")
        places = ("-o", f"Dir::State::status={status}", "-o", f"Dir::Cache::archives={archives}")
        code, out, err = self._run([*APT, *places, *arguments])
        if code != 0:
            raise BundleError(f"apt-get {' '.join(arguments)}: {said(out, err)}")
        return out

    def resolve(self, sets: Sequence[Mapping[str, Any]]) -> list[list[apt.Deb]]:
        """Return the files of each set. Raises BundleError that names the set."""
        nothing = os.path.join(self._empty, "archives")
        os.makedirs(os.path.join(nothing, "partial"), exist_ok=True)
        with open(os.path.join(self._empty, "status"), "w", encoding="utf-8"):
            pass
        found = []
        for entry in sets:
            try:
                found.append(apt.parse_uris(self._apt(nothing, "--print-uris", "install", *entry["packages"])))
            except BundleError as fault:
                raise BundleError(f"the packages for {entry['name']!r} cannot be had together: {fault}") from fault
        return found

    def targets(self, debs: Iterable[apt.Deb], repositories: Sequence[Mapping[str, Any]]) -> dict[str, apt.Deb]:
        """Return where each file goes, as its whole path."""
        places = {}
        for deb in debs:
            directory = apt.directory_of(apt.repository_of(deb.uri, repositories))
            places[os.path.join(self._packages, directory, deb.file)] = deb
        return places

    def missing(self, targets: Mapping[str, apt.Deb]) -> list[str]:
        """Return the places of those that are not there, or are not what they have to be."""
        return sorted(path for path, deb in targets.items() if not _is(path, deb))

    def fetch(self, sets: Sequence[Mapping[str, Any]], targets: Mapping[str, apt.Deb]) -> None:
        """Have apt download what is missing, compare it, and put it in its place."""
        os.makedirs(os.path.join(self._archives, "partial"), exist_ok=True)
        for entry in sets:
            self._apt(self._archives, "--yes", "--download-only", "install", *entry["packages"])
        for path, deb in sorted(targets.items()):
            if _is(path, deb):
                continue
            local = apt.local_path(deb.uri)
            came = local or os.path.join(self._archives, deb.file)
            if not _is(came, deb):
                if local is None and os.path.exists(came):
                    os.unlink(came)
                raise BundleError(f"{deb.uri} did not come with the sha256 {deb.sha256}; run the build again")
            os.makedirs(os.path.dirname(path), exist_ok=True)
            shutil.copyfile(came, f"{path}.part")
            os.replace(f"{path}.part", path)

    def strays(self, targets: Iterable[str], repositories: Sequence[Mapping[str, Any]], own: str) -> list[str]:
        """Return files of earlier builds that nothing asks for now. What systems share is left to all of them."""
        wanted = set(targets)
        found: list[str] = []
        for entry in repositories:
            directory = os.path.join(self._packages, apt.directory_of(entry))
            if own in directory.split("/") or entry["suite"] in directory.split("/"):
                found += [path for path in glob.glob(f"{glob.escape(directory)}/*.deb*") if path not in wanted]
        return sorted(found)


def _is(path: str, deb: apt.Deb) -> bool:
    return os.path.isfile(path) and os.path.getsize(path) == deb.size and _download.hash_file(path).sha256 == deb.sha256


class Repositories:
    """The indexes of the repositories, signed with the builder's key."""

    def __init__(self, run: Runner, directory: str, work: str, clock: Callable[[], float] = time.time) -> None:
        self._run = run
        self._packages = os.path.join(directory, "packages")
        self._home = os.path.join(work, "gnupg")
        self._cache = os.path.join(work, "controls.json")
        self._clock = clock

    def _gpg(self, *arguments: str) -> str:
        code, out, err = self._run([*GNUPG, "--homedir", self._home, *arguments])
        if code != 0:
            raise BundleError(f"gpg {arguments[0]}: {said(out, err)}")
        return out

    def key(self) -> str:
        """Return the public key, armoured; makes the pair on first use."""
        os.makedirs(self._home, mode=0o700, exist_ok=True)
        if "sec" not in {
            line.partition(":")[0] for line in self._gpg("--list-secret-keys", "--with-colons").splitlines()
        }:
            self._gpg("--quick-generate-key", KEY_NAME, "rsa3072", "sign", "never")
        return self._gpg("--armor", "--export")

    def index(self, repository: Mapping[str, Any], architecture: str, key: str) -> bool:
        """Write a repository's index and sign it, unless it is there and says the same; True if it was written."""
        directory = os.path.join(self._packages, apt.directory_of(repository))
        base = os.path.join(self._packages, str(repository["base"]))
        place, path = apt.index_paths(repository, architecture)
        place = os.path.join(self._packages, place)
        controls = self._controls(sorted(glob.glob(f"{glob.escape(directory)}/*.deb")))
        text = apt.packages_index(
            (control, f"./{os.path.relpath(deb, base)}", size, sha256)
            for deb, (control, size, sha256) in controls.items()
        )
        changed = _write(os.path.join(self._packages, str(repository["key"])), key)
        inline = os.path.join(place, "InRelease")
        whole = os.path.join(place, path)
        if _text(whole) == text and os.path.isfile(inline) and not changed:
            return False
        for name in ("Release", "InRelease"):
            if os.path.exists(os.path.join(place, name)):
                os.unlink(os.path.join(place, name))
        _write(whole, text)
        release = os.path.join(place, "Release")
        _write(release, apt.release(repository, architecture, path, text, self._clock()))
        self._gpg("--yes", "--digest-algo", "SHA256", "--clearsign", "--output", f"{inline}.part", release)
        os.replace(f"{inline}.part", inline)
        return True

    def _controls(self, debs: Sequence[str]) -> dict[str, tuple[str, int, str]]:
        """Return control, size and digest of each file. What did not change since the last build is not asked again."""
        known = json.loads(_text(self._cache) or "{}")
        result = {}
        for deb in debs:
            state = os.stat(deb)
            mark = [state.st_size, state.st_mtime_ns]
            if known.get(deb, [None])[0] != mark:
                code, out, err = self._run(["dpkg-deb", "--field", deb])
                if code != 0:
                    raise BundleError(f"{deb} is no package: {said(out, err)}")
                known[deb] = [mark, out, _download.hash_file(deb).sha256]
            result[deb] = (str(known[deb][1]), state.st_size, str(known[deb][2]))
        _write(self._cache, json.dumps(known))
        return result


def _text(path: str) -> str | None:
    try:
        with open(path, encoding="utf-8") as stream:
            return stream.read()
    except FileNotFoundError:
        return None


def _write(path: str, text: str) -> bool:
    """Put a file in place in one step, unless it is there already; True if it was written."""
    if _text(path) == text:
        return False
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(f"{path}.part", "w", encoding="utf-8") as stream:
        stream.write(text)
        stream.flush()
        os.fsync(stream.fileno())
    os.replace(f"{path}.part", path)
    return True


class Cosign:
    """The program cosign, with the operator's key."""

    def __init__(self, run: Runner, program: str, key: str) -> None:
        self._run = run
        self._program = program
        self._key = key

    def require(self) -> None:
        """Stop if there is no such program or no such key."""
        if not os.path.isfile(self._key):
            raise BundleError(
                f"{self._key} does not exist, wanted the public key that signatures are checked with (cosign_key)"
            )
        code, out, err = self._run([self._program, "version"])
        if code != 0:
            raise BundleError(
                f"{self._program} does not run, wanted cosign 2 or newer (cosign_program): {said(out, err)}"
            )

    def verify(self, pinned: str, name: str) -> None:
        """Stop if no signature of an image is the key's. The signature names the image's digest.

        The operator's own key is trusted by itself: no transparency log is asked, which is not there inside.
        """
        argv = [self._program, "verify", "--key", self._key, "--insecure-ignore-tlog=true", "--output", "json", pinned]
        code, out, err = self._run(argv)
        if code != 0:
            raise BundleError(
                f"the image {name} has no valid signature of {self._key}: {said('', err) if err else out}"
            )

    def verify_file(self, path: str, signature: str) -> None:
        """Stop if a file's signature is not the key's."""
        argv = [
            self._program,
            "verify-blob",
            "--key",
            self._key,
            "--insecure-ignore-tlog=true",
            "--signature",
            signature,
            path,
        ]
        code, out, err = self._run(argv)
        if code != 0:
            raise BundleError(f"{signature} is no signature of {path} with {self._key}: {said(out, err)}")


class Images:
    """The images of a bundle, a directory each.

    In skopeo's format ``dir``, which keeps a manifest as it is, whatever its type: an OCI layout takes no manifest of
    Docker's types, which is what many registries have, and another manifest has another digest.
    """

    def __init__(self, run: Runner, directory: str, authfile: str | None = None) -> None:
        self._run = run
        self._directory = directory
        self._login = ["--authfile", authfile] if authfile and os.path.isfile(authfile) else []

    def lacking(self, wanted: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
        """Return those that are not there, or without the signature that they have to have."""
        return [
            entry
            for entry in wanted
            if _manifest_digest(os.path.join(self._directory, entry["place"], images.IMAGE)) != entry["digest"]
            or (
                entry["signed"]
                and _manifest_digest(os.path.join(self._directory, entry["place"], images.SIGNATURE)) is None
            )
        ]

    def strays(self, wanted: Sequence[Mapping[str, Any]]) -> list[str]:
        """Return directories of images that are not wanted, and what a build that was killed left."""
        kept = {os.path.join(self._directory, entry["place"]) for entry in wanted}
        found = glob.glob(f"{glob.escape(self._directory)}/images/*")
        return sorted(path for path in found if path not in kept)

    def fetch(self, entry: Mapping[str, Any]) -> None:
        """Copy an image with all its platforms, and its signature; every digest stays what it is."""
        target = os.path.join(self._directory, entry["place"])
        part = f"{target}.part"
        for leftover in (part, target):
            if os.path.exists(leftover):
                shutil.rmtree(leftover)
        os.makedirs(part)
        source = entry["source"]
        self._copy(f"docker://{source}@{entry['digest']}", f"dir:{part}/{images.IMAGE}", entry)
        if entry["signed"]:
            tag = images.signature_tag(entry["digest"])
            self._copy(f"docker://{source}:{tag}", f"dir:{part}/{images.SIGNATURE}", entry)
        found = _manifest_digest(os.path.join(part, images.IMAGE))
        if found != entry["digest"]:
            raise BundleError(f"the image {entry['names'][0]} came with the digest {found}, wanted {entry['digest']}")
        os.replace(part, target)

    def _copy(self, source: str, target: str, entry: Mapping[str, Any]) -> None:
        argv = ["skopeo", "copy", "--quiet", "--all", "--preserve-digests", *self._login, source, target]
        code, out, err = self._run(argv)
        if code != 0:
            raise BundleError(f"the image {entry['names'][0]} cannot be copied from {source}: {said(out, err)}")


def _manifest_digest(directory: str) -> str | None:
    """Return an image's digest, which is that of its manifest; None where there is no image."""
    path = os.path.join(directory, images.MANIFEST)
    return f"sha256:{_download.hash_file(path).sha256}" if os.path.isfile(path) else None


def seal(directory: str, described: Mapping[str, Any], check_mode: bool) -> tuple[bool, str]:
    """Write the papers of a bundle; returns whether they changed, and the digest of SHA256SUMS."""
    text, sums = document.describe(directory, described)
    paths = {document.DOCUMENT: text, document.SUMS: sums}
    changed = any(_text(os.path.join(directory, name)) != content for name, content in paths.items())
    if changed and not check_mode:
        document.unseal(directory)
        for name in (document.DOCUMENT, document.SUMS):
            _write(os.path.join(directory, name), paths[name])
    return changed, sums
