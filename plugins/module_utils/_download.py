# SPDX-License-Identifier: Apache-2.0
# PRIVATE to the collection: do not import this from outside, it may change without notice.
"""Fetch large files over HTTP so that nothing is fetched twice and nothing wrong is ever kept.

A transfer goes to ``<destination>.part`` and continues there after a fault, in the same run or in the next. The file
gets its name only after its size and digest were checked. Standard library only.
"""

from __future__ import annotations

import hashlib
import http.client
import os
import re
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from email.message import Message
from typing import IO, Any, BinaryIO

from ansible_collections.gpufleet.metal.plugins.module_utils._errors import FleetError

BLOCK = 4 * 1024 * 1024
TRANSIENT = (408, 425, 429, 500, 502, 503, 504)
LONGEST_PAUSE = 60.0


class DownloadError(FleetError):
    """A file can't be fetched, or what was fetched isn't what was wanted."""


@dataclass(frozen=True)
class Digest:
    """SHA-256 (hex) and size in bytes."""

    sha256: str
    size: int


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows redirects, but shows the credentials only to the server that they are for."""

    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: Any, newurl: str
    ) -> urllib.request.Request | None:
        new = super().redirect_request(req, fp, code, msg, headers, newurl)
        old_parts, new_parts = urllib.parse.urlsplit(req.full_url), urllib.parse.urlsplit(newurl)
        if new is not None and (old_parts.scheme, old_parts.netloc) != (new_parts.scheme, new_parts.netloc):
            new.remove_header("Authorization")
        return new


def open_url(url: str, headers: Mapping[str, str] | None = None, timeout: float = 60.0) -> http.client.HTTPResponse:
    """Open ``http(s)://`` for reading; ``timeout`` (seconds) bounds each wait for data."""
    opener = urllib.request.build_opener(_Redirects())
    response: http.client.HTTPResponse = opener.open(
        urllib.request.Request(url, headers={"User-Agent": "gpufleet.metal", **(headers or {})}), timeout=timeout
    )
    return response


def hash_stream(stream: BinaryIO, copy_to: BinaryIO | None = None) -> Digest:
    """Read a stream to its end; optionally write what was read elsewhere."""
    sha256, size = hashlib.sha256(), 0
    while True:
        block = stream.read(BLOCK)
        if not block:
            return Digest(sha256.hexdigest(), size)
        sha256.update(block)
        size += len(block)
        if copy_to is not None:
            copy_to.write(block)


def hash_file(path: str) -> Digest:
    """Digest and size of a file."""
    with open(path, "rb") as stream:
        return hash_stream(stream)


def free_bytes(path: str) -> int:
    """Bytes that are free on the file system of a path, or of where it would be made."""
    while not os.path.exists(path):
        path = os.path.dirname(path)
    numbers = os.statvfs(path)
    return numbers.f_bavail * numbers.f_frsize


def gib(number: int) -> str:
    """Bytes as GiB with two decimals."""
    return f"{number / 1024**3:.2f}"


def git_blob_id(path: str) -> str:
    """The id that git gives the file's content (SHA-1 over a header and the content)."""
    sha1 = hashlib.sha1(usedforsecurity=False)
    sha1.update(f"blob {os.path.getsize(path)}\0".encode())
    with open(path, "rb") as stream:
        for block in iter(lambda: stream.read(BLOCK), b""):
            sha1.update(block)
    return sha1.hexdigest()


def local_path(url: str) -> str | None:
    """The path of a ``file://`` URL, None for http(s)://; DownloadError for anything else."""
    parts = urllib.parse.urlsplit(url)
    if parts.scheme == "file" and parts.netloc in ("", "localhost") and parts.path.startswith("/"):
        return urllib.parse.unquote(parts.path)
    if parts.scheme in ("http", "https") and parts.netloc:
        return None
    raise DownloadError(f"URL {url!r}: wanted http://, https:// or file:///an/absolute/path")


def fetch(
    url: str,
    destination: str,
    sha256: str | None = None,
    size: int | None = None,
    headers: Mapping[str, str] | None = None,
    timeout: float = 60.0,
    attempts: int = 5,
    sleep: Callable[[float], None] = time.sleep,
) -> Digest:
    """Fetch ``url`` into ``destination``; continue what is there of it; check ``size`` and ``sha256`` when given.

    Faults that pass by themselves (connection, 429, 5xx) are tried again up to ``attempts`` times without progress.
    """
    part = destination + ".part"
    failures = 0
    restarted = False
    while True:
        begun_at = os.path.getsize(part) if os.path.exists(part) else 0
        failure = _attempt(url, part, begun_at, size, headers or {}, timeout)
        if failure is None:
            found = hash_file(part)
            problem = _mismatch(found, sha256, size)
            if problem is None:
                os.replace(part, destination)
                return found
            os.unlink(part)
            # What an earlier run left may be of another version of the file: begin once more from nothing.
            if begun_at and not restarted:
                restarted = True
                continue
            raise DownloadError(f"{url}: {problem}; nothing of it was kept")
        grown = os.path.exists(part) and os.path.getsize(part) > begun_at
        failures = 1 if grown else failures + 1
        if failures >= attempts:
            raise DownloadError(
                f"{url}: {failure.text}, after {failures} attempts; the next run continues where this one ended"
            )
        sleep(min(failure.pause if failure.pause is not None else 2.0**failures, LONGEST_PAUSE))


@dataclass(frozen=True)
class _Failure:
    """A fault that may pass by itself; ``pause`` is how many seconds the server asked for."""

    text: str
    pause: float | None = None


def _attempt(
    url: str, part: str, begun_at: int, size: int | None, headers: Mapping[str, str], timeout: float
) -> _Failure | None:
    """Transfer once; None if it ended well. Raises DownloadError for what asking again can't change."""
    try:
        _transfer(url, part, begun_at, size, headers, timeout)
    except urllib.error.HTTPError as error:
        said = f"the server answered {error.code} {error.reason}"
        if error.code not in TRANSIENT:
            raise DownloadError(f"{url}: {said}") from error
        return _Failure(said, _retry_after(error.headers))
    except (OSError, http.client.HTTPException) as error:
        return _Failure(str(getattr(error, "reason", None) or error) or type(error).__name__)
    return None


def _transfer(url: str, part: str, begun_at: int, size: int | None, headers: Mapping[str, str], timeout: float) -> None:
    if begun_at and size is not None:
        if begun_at == size:
            return
        if begun_at > size:
            os.unlink(part)
            begun_at = 0
    wanted = dict(headers)
    if begun_at:
        wanted["Range"] = f"bytes={begun_at}-"
    try:
        response = open_url(url, wanted, timeout)
    except urllib.error.HTTPError as error:
        if error.code == http.client.REQUESTED_RANGE_NOT_SATISFIABLE and begun_at:
            # Either it is whole already, then the digest says so; or it isn't, then the digest says that.
            return
        raise
    with response:
        continues = response.status == http.client.PARTIAL_CONTENT and _range_start(response) == begun_at
        with open(part, "ab" if continues else "wb") as stream:
            while True:
                block = response.read(BLOCK)
                if not block:
                    break
                stream.write(block)
        if response.length:
            raise http.client.IncompleteRead(b"", response.length)


def _range_start(response: http.client.HTTPResponse) -> int:
    found = re.match(r"bytes (\d+)-", response.headers.get("Content-Range", ""))
    return int(found.group(1)) if found else -1


def _retry_after(headers: Message) -> float | None:
    value = headers.get("Retry-After", "") if headers is not None else ""
    return float(value) if value.isdigit() else None


def _mismatch(found: Digest, sha256: str | None, size: int | None) -> str | None:
    if size is not None and found.size != size:
        return f"it has {found.size} bytes, wanted {size}"
    if sha256 is not None and found.sha256 != sha256.lower():
        return f"its sha256 is {found.sha256}, wanted {sha256.lower()}"
    return None
