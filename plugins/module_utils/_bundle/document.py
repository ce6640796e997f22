# SPDX-License-Identifier: Apache-2.0
# PRIVATE to the collection: do not import this from outside, it may change without notice.
"""A bundle's own papers: bundle.json (what it holds), SHA256SUMS (every file's digest), and the proof that they hold.

A bundle is whole when both are there: a build removes them first and writes them last. SHA256SUMS is what an operator
signs, and it can be checked without this collection: ``sha256sum --check SHA256SUMS``.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from ansible_collections.gpufleet.metal.plugins.module_utils import _download
from ansible_collections.gpufleet.metal.plugins.module_utils._errors import FleetError

from . import images

FORMAT = 2
DOCUMENT = "bundle.json"
SUMS = "SHA256SUMS"
SIGNATURE = "SHA256SUMS.sig"
PAPERS = (SUMS, SIGNATURE)
SHOWN = 20
_BLOB = re.compile(r"(?P<sha256>[0-9a-f]{64})([.]manifest[.]json)?")
_LINE = re.compile(r"(?P<sha256>[0-9a-f]{64})  (?P<path>[^\n]+)")

Hash = Callable[[str], _download.Digest]


class BundleError(FleetError):
    """A bundle is not whole, or holds something else than it says."""


@dataclass
class Verification:
    """What was found. ``seen`` is for a later, quick look: path -> size, time of the last change, digest."""

    faults: list[str] = field(default_factory=list)
    document: dict[str, Any] = field(default_factory=dict)
    seen: dict[str, list[Any]] = field(default_factory=dict)


def walk(directory: str) -> Iterator[str]:
    """Yield the paths of all files, relative, sorted. Raises BundleError for what is no plain file."""
    paths = []
    for parent, directories, files in os.walk(directory):
        for name in [*directories, *files]:
            path = os.path.join(parent, name)
            relative = os.path.relpath(path, directory)
            if os.path.islink(path):
                raise BundleError(f"{relative} is a link, wanted plain files only")
            if name in files:
                if not os.path.isfile(path):
                    raise BundleError(f"{relative} is no plain file")
                paths.append(relative)
    yield from sorted(paths)


def sums_text(digests: Mapping[str, str]) -> str:
    """Return the text of SHA256SUMS, as sha256sum(1) reads it."""
    return "".join(f"{digest}  {path}\n" for path, digest in sorted(digests.items()))


def parse_sums(text: str) -> dict[str, str]:
    """Return path -> digest. Raises BundleError for a line or a path that cannot be."""
    result = {}
    for number, line in enumerate(text.splitlines(), 1):
        match = _LINE.fullmatch(line)
        if match is None:
            raise BundleError(f"{SUMS} has {line!r} as line {number}, wanted a digest, two spaces and a path")
        path = match["path"]
        if path.startswith("/") or ".." in path.split("/") or path != os.path.normpath(path) or path in PAPERS:
            raise BundleError(f"{SUMS} names {path!r} in line {number}, wanted a path inside the bundle")
        result[path] = match["sha256"]
    if DOCUMENT not in result:
        raise BundleError(f"{SUMS} does not name {DOCUMENT}")
    return result


def unseal(directory: str) -> bool:
    """Take a bundle's papers away before anything of it changes; True if it had any."""
    found = [name for name in (SUMS, SIGNATURE, DOCUMENT) if os.path.exists(os.path.join(directory, name))]
    for name in found:
        os.unlink(os.path.join(directory, name))
    return bool(found)


def promised_digest(path: str) -> str | None:
    """Return the digest that a path promises: most files of an image are named by it, and its place by its manifest."""
    parts = path.split("/")
    if len(parts) != 4 or parts[0] != "images":
        return None
    if parts[2:] == [images.IMAGE, images.MANIFEST]:
        return parts[1]
    match = _BLOB.fullmatch(parts[3])
    return match["sha256"] if match else None


def describe(directory: str, document: Mapping[str, Any], hash_file: Hash = _download.hash_file) -> tuple[str, str]:
    """Return the texts of bundle.json and SHA256SUMS for what lies in the directory.

    Raises BundleError where a file is not what its name says, or where something is missing that the document names.
    """
    contents: dict[str, dict[str, Any]] = {}
    for path in walk(directory):
        if path == DOCUMENT or path in PAPERS:
            continue
        found = hash_file(os.path.join(directory, path))
        promised = promised_digest(path)
        if promised is not None and found.sha256 != promised:
            raise BundleError(
                f"{path} has the sha256 {found.sha256}, wanted that of its name; remove {path} and build again"
            )
        contents[path] = {"sha256": found.sha256, "size": found.size}
    faults = [
        *(
            f"the image {entry['names'][0]} is not in {entry['place']}"
            for entry in document["images"]
            if f"{entry['place']}/{images.IMAGE}/{images.MANIFEST}" not in contents
        ),
        *(
            f"files/{entry['name']} is not there with the sha256 {entry['sha256']}"
            for entry in document["files"]
            if contents.get(f"files/{entry['name']}", {}).get("sha256") != entry["sha256"]
        ),
    ]
    if faults:
        raise BundleError("; ".join(faults))
    whole = {
        "format": FORMAT,
        **document,
        "contents": contents,
        "bytes": sum(entry["size"] for entry in contents.values()),
    }
    text = json.dumps(whole, indent=1, sort_keys=True) + "\n"
    digests = {path: entry["sha256"] for path, entry in contents.items()}
    digests[DOCUMENT] = _sha256(text)
    return text, sums_text(digests)


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def read(directory: str, name: str) -> str:
    """Return the text of one of the papers. Raises BundleError when it is not there."""
    try:
        with open(os.path.join(directory, name), encoding="utf-8") as stream:
            return stream.read()
    except FileNotFoundError:
        raise BundleError(
            f"{directory} has no {name}: the bundle is not whole (its build has not ended, or not all of it was "
            "carried over)"
        ) from None
    except (OSError, UnicodeDecodeError) as fault:
        raise BundleError(f"{directory}/{name}: {fault}") from fault


def verify(
    directory: str, seen: Mapping[str, list[Any]] | None = None, hash_file: Hash = _download.hash_file
) -> Verification:
    """Compare every file with the bundle's papers.

    A file that I(seen) names with its size, its time of change and its digest is not read again. Raises BundleError
    where there are no papers to compare with.
    """
    result = Verification()
    faults: list[tuple[str, str]] = []
    sums = parse_sums(read(directory, SUMS))
    there = [path for path in walk(directory) if path not in PAPERS]
    for path, wanted in sums.items():
        whole = os.path.join(directory, path)
        if path not in there:
            faults.append((path, "is missing"))
            continue
        state = os.stat(whole)
        look = [state.st_size, state.st_mtime_ns, wanted]
        if seen is not None and seen.get(path) == look:
            result.seen[path] = look
            continue
        found = hash_file(whole)
        if found.sha256 != wanted:
            faults.append((path, f"has the sha256 {found.sha256}, wanted {wanted}"))
        else:
            result.seen[path] = look
    faults.extend((path, f"is not in {SUMS}") for path in there if path not in sums)
    if all(path != DOCUMENT for path, _fault in faults):
        result.document = _document(read(directory, DOCUMENT))
    result.faults = [f"{path}{_whose(path, result.document)} {fault}" for path, fault in faults]
    return result


def _whose(path: str, document: Mapping[str, Any]) -> str:
    """Return the names of the image that a path belongs to, in brackets, where there is one."""
    for entry in document.get("images", ()):
        if path.startswith(f"{entry['place']}/"):
            return f" ({', '.join(entry['names'])})"
    return ""


def _document(text: str) -> dict[str, Any]:
    try:
        document = json.loads(text)
    except ValueError as fault:
        raise BundleError(f"{DOCUMENT} is no JSON: {fault}") from fault
    found = document.get("format") if isinstance(document, dict) else None
    if found != FORMAT:
        raise BundleError(
            f"{DOCUMENT} has the format {found!r}, wanted {FORMAT}: build the bundle with the collection that is "
            "installed here"
        )
    return dict(document)


def told(faults: list[str]) -> str:
    """Return faults as one text, the first of them by name."""
    rest = len(faults) - SHOWN
    return "; ".join(faults[:SHOWN]) + (f"; and {rest} more" if rest > 0 else "")
