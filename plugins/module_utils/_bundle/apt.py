# SPDX-License-Identifier: Apache-2.0
# PRIVATE to the collection: do not import this from outside, it may change without notice.
"""apt's side of a bundle: which files a set of packages takes, and the index of a repository. Pure.

Formats: apt-get(8) ``--print-uris``, and the format of Debian repositories (sources.list(5), apt-secure(8)).
"""

from __future__ import annotations

import email.utils
import hashlib
import re
import urllib.parse
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ansible_collections.gpufleet.metal.plugins.module_utils._errors import FleetError

_URI = re.compile(r"'(?P<uri>[^']+)' (?P<file>\S+) (?P<size>[0-9]+) SHA256:(?P<sha256>[0-9a-f]{64})")


class AptError(FleetError):
    """apt says something that is not understood, or that cannot be."""


@dataclass(frozen=True)
class Deb:
    """A package's file."""

    uri: str
    file: str
    size: int
    sha256: str


def parse_uris(text: str) -> list[Deb]:
    """Return the files that apt would download. Raises AptError for a line without a SHA-256."""
    found = []
    for line in text.splitlines():
        if not line.startswith("'"):
            continue
        match = _URI.match(line)
        if match is None:
            raise AptError(f"apt names a file without its SHA-256: {line!r}")
        found.append(Deb(match["uri"], match["file"], int(match["size"]), match["sha256"]))
    return found


def union(sets: Iterable[Iterable[Deb]]) -> dict[str, Deb]:
    """Return all files by name. Raises AptError where one name stands for two contents."""
    result: dict[str, Deb] = {}
    for debs in sets:
        for deb in debs:
            other = result.setdefault(deb.file, deb)
            if other.sha256 != deb.sha256:
                raise AptError(
                    f"{other.uri} and {deb.uri} are two files of one name and version: remove one of the repositories"
                )
    return result


def _comparable(uri: str) -> str:
    # apt writes an address as it was given, but for what it quotes, and the slashes of a local one.
    return re.sub("^file:/+", "file:/", urllib.parse.unquote(uri)).rstrip("/") + "/"


def local_path(uri: str) -> str | None:
    """Return the path of a file that apt does not download, because it is on this host; None for any other."""
    return _comparable(uri)[5:].rstrip("/") if uri.startswith("file:") else None


def repository_of(uri: str, repositories: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    """Return the repository whose address is the longest beginning of a file's, else the one without an address."""
    fitting = [
        entry for entry in repositories if entry["uri"] and _comparable(uri).startswith(_comparable(entry["uri"]))
    ]
    if fitting:
        return max(fitting, key=lambda entry: len(entry["uri"]))
    return next(entry for entry in repositories if not entry["uri"])


def directory_of(repository: Mapping[str, Any]) -> str:
    """Return where a repository's packages lie, relative to the bundle's ``packages``."""
    base = str(repository["base"])
    return base if repository["suite"].endswith("/") else f"{base}/pool/{repository['suite']}"


def index_paths(repository: Mapping[str, Any], architecture: str) -> tuple[str, str]:
    """Return the directory of Release and the path of Packages below it."""
    base = str(repository["base"])
    if repository["suite"].endswith("/"):
        return base, "Packages"
    return f"{base}/dists/{repository['suite']}", f"{repository['components'][0]}/binary-{architecture}/Packages"


def packages_index(entries: Iterable[tuple[str, str, int, str]]) -> str:
    """Return the text of Packages for (control, path, size, sha256), in the order of the paths."""
    stanzas = []
    for control, path, size, sha256 in sorted(entries, key=lambda entry: entry[1]):
        stanzas.append(f"{control.rstrip()}\nFilename: {path}\nSize: {size}\nSHA256: {sha256}\n")
    return "\n".join(stanzas)


def release(repository: Mapping[str, Any], architecture: str, path: str, text: str, seconds: float) -> str:
    """Return the text of Release, which names the index by its digest."""
    content = text.encode()
    flat = repository["suite"].endswith("/")
    lines = [
        f"Origin: {repository['origin']}",
        f"Label: {repository['origin']}",
        *([] if flat else [f"Suite: {repository['suite']}", f"Codename: {repository['suite']}"]),
        f"Date: {email.utils.formatdate(seconds, usegmt=True)}",
        f"Architectures: {architecture} all",
        *([] if flat else [f"Components: {' '.join(repository['components'])}"]),
        "SHA256:",
        f" {hashlib.sha256(content).hexdigest()} {len(content)} {path}",
    ]
    return "\n".join(lines) + "\n"
