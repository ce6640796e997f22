# SPDX-License-Identifier: Apache-2.0
# PRIVATE to the collection: do not import this from outside, it may change without notice.
"""A store as one file: private, locked while it is written, and replaced in one step that survives a power cut."""

from __future__ import annotations

import fcntl
import os
import stat
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from ansible_collections.gpufleet.metal.plugins.module_utils._secrets.document import (
    Document,
    MissingStoreError,
    StoreError,
)
from ansible_collections.gpufleet.metal.plugins.module_utils._secrets.envelope import key_id, seal, unseal

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey

Change = Callable[[Document], Document]
"""Makes the new document of the old one. It is called while the store is locked."""


@dataclass(frozen=True)
class WrappingKey:
    """A private key and where it is from."""

    key: RSAPrivateKey
    source: str


class FileStore:
    """The default store. ``key`` and ``signers`` are only called when the file is to be opened."""

    def __init__(
        self, path: str, key: Callable[[], WrappingKey], signers: Callable[[], Sequence[RSAPublicKey]] = tuple
    ) -> None:
        """Name the file, the key, and whose writing is believed beside its holder's; nothing is touched yet."""
        self.path = path
        self._key = key
        self._signers = signers

    def exists(self) -> bool:
        """Tell whether there is a store."""
        return os.path.lexists(self.path)

    def read(self) -> Document:
        """Return the document. Raises StoreError."""
        return self._open()[0]

    def recipients(self, wrapping: WrappingKey | None = None) -> tuple[str, ...]:
        """Return the identities of the keys that open the store, sorted. Raises StoreError.

        It is opened with ``wrapping``, or else with the key that was named when this was made.
        """
        return tuple(sorted(key_id(recipient) for recipient in self._open(wrapping)[1]))

    def update(self, change: Change) -> Document:
        """Replace the document by what ``change`` makes of it, unless that is the same. Raises StoreError."""
        with exclusive(self.path):
            before, recipients, signer = self._open()
            after = change(before)
            if after == before:
                return before
            after = replace(after, generation=before.generation + 1)
            replace_private(self.path, seal(after, recipients, signer))
            return after

    def create(self, recipients: Sequence[RSAPublicKey]) -> None:
        """Write an empty store. Raises StoreError when there is one."""
        with exclusive(self.path):
            if self.exists():
                raise StoreError(f"{self.path} exists: a store is never overwritten by a new one")
            key = self._key().key
            replace_private(self.path, seal(Document(generation=1), [key.public_key(), *recipients], key))

    def rewrap(self, new: WrappingKey, recipients: Sequence[RSAPublicKey]) -> None:
        """Seal everything again, under a new data key and for these keys alone. Raises StoreError."""
        with exclusive(self.path):
            before = self._open()[0]
            after = replace(before, generation=before.generation + 1)
            content = seal(after, [new.key.public_key(), *recipients], new.key)
            unseal(content, new.key, self.path, new.source)
            replace_private(self.path, content)

    def _open(self, wrapping: WrappingKey | None = None) -> tuple[Document, tuple[RSAPublicKey, ...], RSAPrivateKey]:
        wrapping = wrapping or self._key()
        content = read_private(self.path, "store")
        document, recipients = unseal(content, wrapping.key, self.path, wrapping.source, self._signers())
        return document, recipients, wrapping.key


def read_private(path: str, what: str) -> bytes:
    """Return the content of a file that nobody else may read; ``what`` says what it is. Raises StoreError."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError:
        if what == "store":
            raise MissingStoreError(
                f"the store {path} does not exist: gpufleet.metal.create_secret_store makes one, or put its backup back"
            ) from None
        raise StoreError(f"the {what} {path} does not exist: name the right file, or put its backup back") from None
    except OSError as fault:
        link = f"is a symbolic link: name {os.path.realpath(path)} itself" if os.path.islink(path) else fault.strerror
        raise StoreError(f"cannot read the {what} {path}: {link}") from None
    info = os.fstat(handle)
    if not stat.S_ISREG(info.st_mode):
        os.close(handle)
        raise StoreError(f"cannot read the {what} {path}: it is no regular file")
    with os.fdopen(handle, "rb") as stream:
        mode = stat.S_IMODE(info.st_mode)
        if mode & 0o077:
            raise StoreError(
                f"the {what} {path} has mode {mode:04o}, wanted 0600: others may have read it. Run chmod 600 {path}, "
                f"and rotate what it holds if others can log in there"
            )
        try:
            return stream.read()
        except OSError as fault:
            raise StoreError(f"cannot read the {what} {path}: {fault.strerror}") from None


@contextmanager
def exclusive(path: str) -> Iterator[None]:
    """Keep other writers of ``path`` out while the block runs. Raises StoreError at once when there is one."""
    lock = f"{path}.lock"
    try:
        os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
        handle = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError as fault:
        raise StoreError(f"cannot write {lock}: {fault.strerror}") from None
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(handle, 20, 0).decode(errors="replace").strip() or "unknown"
            raise StoreError(
                f"{path} is being written by process {holder}: run again when it has ended; nothing was changed"
            ) from None
        os.ftruncate(handle, 0)
        with suppress(OSError):  # only a help for people: a full disk is reported where it matters
            os.pwrite(handle, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        os.close(handle)


def replace_private(path: str, content: bytes) -> None:
    """Replace a file in one step, mode 0600: after a crash it is the old one or the new one. Call with it locked.

    Raises StoreError; the old content is intact then.
    """
    directory, name = os.path.split(path)
    temporary = os.path.join(directory, f".{name}.new")
    try:
        with suppress(FileNotFoundError):
            os.unlink(temporary)  # of a run that was killed
        try:
            _write(temporary, content)
            os.replace(temporary, path)
        except BaseException:
            with suppress(OSError):
                os.unlink(temporary)
            raise
    except OSError as fault:
        raise StoreError(
            f"cannot write {path}: {fault.strerror}; its old content is intact. Mend that and run again"
        ) from None
    try:
        handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
    except OSError as fault:
        raise StoreError(
            f"{path} is written, but its directory can't be synchronised ({fault.strerror}): a power cut may bring the "
            f"old content back"
        ) from None


def _write(path: str, content: bytes) -> None:
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        view = memoryview(content)
        while view:
            view = view[os.write(handle, view) :]
        os.fsync(handle)
    finally:
        os.close(handle)
