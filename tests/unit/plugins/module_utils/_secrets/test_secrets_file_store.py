# SPDX-License-Identifier: Apache-2.0
"""The store's file is private, whole, and either the old one or the new one, whoever writes and whatever is killed."""

from __future__ import annotations

import errno
import os
import resource
import signal
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.gpufleet.metal.plugins.module_utils._secrets import file_store
from ansible_collections.gpufleet.metal.plugins.module_utils._secrets.document import Document, StoreError
from ansible_collections.gpufleet.metal.plugins.module_utils._secrets.envelope import key_id, seal
from ansible_collections.gpufleet.metal.plugins.module_utils._secrets.file_store import (
    FileStore,
    exclusive,
    read_private,
    replace_private,
)
from ansible_collections.gpufleet.metal.tests.unit.plugins.module_utils._secrets.samples import key, secret, wrapping


@pytest.fixture
def store(tmp_path: Path) -> FileStore:
    """Return a store with one secret."""
    made = FileStore(str(tmp_path / "secrets.json"), wrapping)
    made.create([])
    made.update(lambda document: document.with_secret("first", secret()))
    return made


def with_second(document: Document) -> Document:
    """Add a secret."""
    return document.with_secret("second", secret())


def in_child(work: Callable[[], Any]) -> int:
    """Run work in a real process and return what waitpid says: 0 when it ended well."""
    process = os.fork()
    if process == 0:
        try:
            work()
            os._exit(0)
        except BaseException:
            os._exit(1)
    return os.waitpid(process, 0)[1]


def test_it_is_private_and_counts_its_writes(store: FileStore) -> None:
    """Whatever the umask of the run."""
    assert stat.S_IMODE(os.stat(store.path).st_mode) == 0o600
    assert stat.S_IMODE(os.stat(f"{store.path}.lock").st_mode) == 0o600
    assert store.read().generation == 2
    assert store.update(with_second).generation == 3
    assert set(store.read().secrets) == {"first", "second"}


def test_no_difference_writes_nothing(store: FileStore) -> None:
    """Not even the same content under another data key."""
    before = Path(store.path).read_bytes()
    assert store.update(lambda document: document).generation == 2
    assert Path(store.path).read_bytes() == before


def test_a_store_is_never_overwritten_by_a_new_one(store: FileStore) -> None:
    """Its content would be lost."""
    with pytest.raises(StoreError, match="exists: a store is never overwritten by a new one"):
        store.create([])
    assert set(store.read().secrets) == {"first"}


def test_rewrapping(store: FileStore) -> None:
    """The new key and the recipients open it, the old key does not, and nothing else changes."""
    before = store.read().secrets
    store.rewrap(wrapping("second"), [key("offline").public_key()])
    for which in ("second", "offline"):
        other = FileStore(store.path, lambda which=which: wrapping(which), lambda: [key("second").public_key()])  # type: ignore[misc]
        assert other.read().secrets == before
        assert len(other.recipients()) == 2
        assert key_id(key(which).public_key()) in other.recipients()
    with pytest.raises(StoreError, match="is not sealed for the key from the first key"):
        store.read()


def test_rewrapping_proves_the_new_key_first(store: FileStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing that the new key does not open takes the place of what the old key opens."""
    with monkeypatch.context() as patched:
        patched.setattr(
            file_store, "seal", lambda document, __, signer: seal(document, [key("third").public_key()], signer)
        )
        with pytest.raises(StoreError, match="is not sealed for the key from the second key"):
            store.rewrap(wrapping("second"), [])
    assert set(store.read().secrets) == {"first"}


def test_a_second_recipient_is_kept_by_later_writes(tmp_path: Path) -> None:
    """Their public keys are in the file. Who writes in turn names the other as a signer."""
    mine = FileStore(str(tmp_path / "secrets.json"), wrapping, lambda: [key("offline").public_key()])
    mine.create([key("offline").public_key()])
    mine.update(with_second)
    theirs = FileStore(mine.path, lambda: wrapping("offline"), lambda: [key().public_key()])
    theirs.update(lambda document: document.with_secret("third", secret()))
    assert set(mine.read().secrets) == {"second", "third"}


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604, 0o660])
def test_a_mode_that_lets_others_read(store: FileStore, mode: int) -> None:
    """It is neither read nor written, and the message says what to do."""
    os.chmod(store.path, mode)
    with pytest.raises(StoreError) as caught:
        store.update(with_second)
    assert str(caught.value) == (
        f"the store {store.path} has mode {mode:04o}, wanted 0600: others may have read it. Run chmod 600 "
        f"{store.path}, and rotate what it holds if others can log in there"
    )


def test_what_is_not_there_or_no_file(tmp_path: Path) -> None:
    """Each with its own message."""
    path = tmp_path / "secrets.json"
    with pytest.raises(StoreError) as caught:
        read_private(str(path), "store")
    assert str(caught.value) == (
        f"the store {path} does not exist: gpufleet.metal.create_secret_store makes one, or put its backup back"
    )
    (tmp_path / "real").write_text("x")
    path.symlink_to(tmp_path / "real")
    with pytest.raises(StoreError) as caught:
        read_private(str(path), "store")
    assert str(caught.value) == (f"cannot read the store {path}: is a symbolic link: name {tmp_path / 'real'} itself")
    with pytest.raises(StoreError, match="it is no regular file"):
        read_private(str(tmp_path), "store")


def test_two_writers_at_once(store: FileStore) -> None:
    """The second is refused at once and told who the first is; the first is not disturbed."""
    ready, go = os.pipe(), os.pipe()
    process = os.fork()
    if process == 0:
        # When the parent fails, its end closes, and this one goes on and ends.
        os.close(go[1])

        def slow(document: Document) -> Document:
            os.write(ready[1], b"x")
            os.read(go[0], 1)
            return document.with_secret("slow", secret())

        try:
            store.update(slow)
            os._exit(0)
        except BaseException:
            os._exit(1)
    try:
        os.read(ready[0], 1)
        with pytest.raises(StoreError) as caught:
            store.update(with_second)
        assert str(caught.value) == (
            f"{store.path} is being written by process {process}: run again when it has ended; nothing was changed"
        )
        assert set(store.read().secrets) == {"first"}
    finally:
        for end in (*ready, *go):
            os.close(end)
        status = os.waitpid(process, 0)[1]
    assert status == 0
    assert set(store.read().secrets) == {"first", "slow"}


def test_many_writers_lose_nothing(store: FileStore, tmp_path: Path) -> None:
    """Six processes with five changes each, each trying until it is let in, while a seventh reads all the time."""

    def write(worker: int) -> None:
        for number in range(5):
            while True:
                try:
                    store.update(
                        lambda document, name=f"w{worker}_{number}": document.with_secret(name, secret())  # type: ignore[misc]
                    )
                    break
                except StoreError as fault:
                    if "is being written by process" not in str(fault):
                        raise

    def read() -> None:
        seen = 0
        while not stop.exists():
            generation = store.read().generation
            assert generation >= seen
            seen = generation

    stop = tmp_path / "stop"
    processes = []
    for work in [read, *(lambda worker=worker: write(worker) for worker in range(6))]:  # type: ignore[misc]
        process = os.fork()
        if process == 0:
            try:
                work()
                os._exit(0)
            except BaseException:
                os._exit(1)
        processes.append(process)
    reader, *writers = processes
    outcomes = [os.waitpid(process, 0)[1] for process in writers]
    stop.touch()
    assert [os.waitpid(reader, 0)[1], *outcomes] == [0] * 7
    document = store.read()
    assert document.generation == 32
    assert len(document.secrets) == 31


def dying_after(count: int) -> None:
    """Have this process killed by SIGKILL right after so many system calls that change or synchronise files."""
    left = [count]

    def counted(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            result = function(*arguments, **options)
            left[0] -= 1
            if left[0] == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return result

        return call

    for name in ("open", "write", "fsync", "close", "replace", "unlink", "ftruncate", "pwrite"):
        setattr(file_store.os, name, counted(getattr(os, name)))


@pytest.mark.parametrize("rest_of_an_earlier_kill", [False, True])
def test_killed_after_any_step_it_is_the_old_or_the_new(store: FileStore, rest_of_an_earlier_kill: bool) -> None:
    """Never neither; and the next run writes as if nothing had been."""
    old = Path(store.path).read_bytes()
    outcomes = []
    for count in range(1, 100):
        replace_private(store.path, old)
        rest = Path(store.path).with_name(".secrets.json.new")
        if rest_of_an_earlier_kill:
            rest.write_bytes(b"half of a st")

        def killed(count: int = count) -> None:
            dying_after(count)
            store.update(with_second)

        status = in_child(killed)
        found = set(store.read().secrets)
        assert found in ({"first"}, {"first", "second"})
        outcomes.append(found == {"first", "second"})
        assert set(store.update(with_second).secrets) == {"first", "second"}
        assert not rest.exists()
        if status == 0:
            break
        assert os.WTERMSIG(status) == signal.SIGKILL
    else:
        pytest.fail("the child never came to its end")
    # Old up to the rename, new from there on; there are steps on both sides of it.
    assert outcomes == sorted(outcomes)
    assert outcomes.count(False) >= 5
    assert outcomes.count(True) >= 3


def test_the_rename_comes_after_the_content_is_on_disk(store: FileStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """And the directory is synchronised last: so a power cut is like a kill."""
    calls = []
    originals = {name: getattr(os, name) for name in ("write", "fsync", "replace")}
    for name, real in originals.items():

        def traced(*arguments: Any, name: str = name, real: Callable[..., Any] = real) -> Any:
            first = arguments[0]
            is_directory = isinstance(first, int) and stat.S_ISDIR(os.fstat(first).st_mode)
            calls.append(f"{name} directory" if is_directory else name)
            return real(*arguments)

        monkeypatch.setattr(os, name, traced)
    store.update(with_second)
    assert calls == ["write", "fsync", "replace", "fsync directory"]


@pytest.mark.parametrize("step", ["write", "fsync", "replace"])
def test_a_full_disk(store: FileStore, monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    """Whichever step notices it."""
    before = Path(store.path).read_bytes()

    def full(*arguments: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched:
        patched.setattr(os, step, full)
        with pytest.raises(StoreError) as caught:
            store.update(with_second)
    assert str(caught.value) == (
        f"cannot write {store.path}: No space left on device; its old content is intact. Mend that and run again"
    )
    assert Path(store.path).read_bytes() == before
    assert sorted(os.listdir(Path(store.path).parent)) == ["secrets.json", "secrets.json.lock"]


def test_a_real_limit_of_space(store: FileStore) -> None:
    """The kernel writes a part and refuses the rest, as a full disk does."""
    before = Path(store.path).read_bytes()

    def limited() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))
        with pytest.raises(StoreError, match="its old content is intact"):
            store.update(with_second)

    assert in_child(limited) == 0
    assert Path(store.path).read_bytes() == before
    assert set(store.update(with_second).secrets) == {"first", "second"}


def test_a_directory_that_can_not_be_made(tmp_path: Path) -> None:
    """A file is in the way."""
    (tmp_path / "way").write_text("")
    with (
        pytest.raises(StoreError, match=r"cannot write .*/way/secrets\.json\.lock: "),
        exclusive(str(tmp_path / "way" / "secrets.json")),
    ):
        pytest.fail("it was let in")


def test_a_directory_that_can_not_be_synchronised(store: FileStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """The new content is there, and the message does not claim otherwise."""
    real = os.fsync

    def only_files(handle: int) -> None:
        if stat.S_ISDIR(os.fstat(handle).st_mode):
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        real(handle)

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", only_files)
        with pytest.raises(StoreError, match="is written, but its directory can't be synchronised"):
            store.update(with_second)
    assert set(store.read().secrets) == {"first", "second"}
