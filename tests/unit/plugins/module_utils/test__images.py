# SPDX-License-Identifier: Apache-2.0
"""A pinned image comes in at most once, and only the pinned one."""

from __future__ import annotations

import hashlib
import json
import os
import threading
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, BinaryIO

import pytest

from ansible_collections.gpufleet.metal.plugins.module_utils import _images
from ansible_collections.gpufleet.metal.plugins.module_utils._docker import ImageReference
from ansible_collections.gpufleet.metal.plugins.module_utils._errors import FleetError, InvalidInputError

DIGEST = "sha256:" + "d" * 64
ID = "sha256:" + "1" * 64
OTHER_ID = "sha256:" + "2" * 64
CONTENT = b"an archive"
SHA256 = hashlib.sha256(CONTENT).hexdigest()


class FakeEngine:
    """Holds images by every name; ``brings`` is what a load or pull adds."""

    def __init__(self, brings: dict[str, str], **present: str) -> None:
        self.images = {**present}
        self.brings = brings
        self.calls: list[str] = []

    def info(self) -> dict[str, Any]:
        return {"DockerRootDir": "/"}

    def image(self, name: str) -> dict[str, Any] | None:
        known = {**self.images, **{identifier: identifier for identifier in self.images.values()}}
        return {"Id": known[name]} if name in known else None

    def load(self, archive: BinaryIO, length: int) -> list[str]:
        assert len(archive.read()) == length
        self.calls.append("load")
        self.images.update(self.brings)
        return list(self.brings)

    def pull(self, reference: ImageReference, credentials: Mapping[str, str] | None = None) -> None:
        self.calls.append(f"pull {reference.lookup_name}")
        self.images.update(self.brings)


@pytest.fixture
def archive(tmp_path: Path) -> str:
    """A file:// URL of an archive."""
    (tmp_path / "image.tar").write_bytes(CONTENT)
    return f"file://{tmp_path}/image.tar"


def store(engine: FakeEngine, tmp_path: Path, **changed: Any) -> _images.Store:
    """The images of that engine."""
    return _images.Store(
        engine, str(tmp_path / "records"), str(tmp_path / "dl"), str(tmp_path / "none.json"), **changed
    )


def test_from_an_archive_once(tmp_path: Path, archive: str) -> None:
    engine = FakeEngine({"vllm:1": ID})
    want = _images.wanted("vllm:1", archive, SHA256)
    assert store(engine, tmp_path).ensure(want, check_mode=True) == _images.Found(None, "archive")
    assert engine.calls == []
    assert store(engine, tmp_path).ensure(want, check_mode=False) == _images.Found(ID, "archive")
    assert store(engine, tmp_path).ensure(want, check_mode=False) == _images.Found(ID, "engine")
    assert engine.calls == ["load"]
    # Somebody removed the image: the record alone is not enough.
    engine.images.clear()
    assert store(engine, tmp_path).ensure(want, check_mode=False) == _images.Found(ID, "archive")


def test_looking_brings_nothing(tmp_path: Path, archive: str) -> None:
    engine = FakeEngine({"vllm:1": ID})
    images = store(engine, tmp_path)
    assert images.find(_images.wanted("vllm:1", archive, SHA256)) == _images.Found(None, "archive")
    assert images.find(_images.wanted(f"vllm:1@{DIGEST}")) == _images.Found(None, "registry")
    assert engine.calls == []
    images.ensure(_images.wanted("vllm:1", archive, SHA256), check_mode=False)
    assert images.find(_images.wanted("vllm:1", archive, SHA256)) == _images.Found(ID, "engine")


@pytest.mark.parametrize("check_mode", [True, False])
def test_an_archive_that_is_not_there_is_told_in_check_mode_too(tmp_path: Path, check_mode: bool) -> None:
    want = _images.wanted("vllm:1", "file:///no/image.tar", SHA256)
    with pytest.raises(_images.ImageError) as raised:
        store(FakeEngine({}), tmp_path).ensure(want, check_mode)
    assert str(raised.value) == "the archive /no/image.tar doesn't exist on this host (archive)"


@pytest.mark.parametrize("check_mode", [True, False])
def test_a_full_disk_is_told_in_check_mode_too(
    tmp_path: Path, archive: str, check_mode: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "statvfs", lambda path: os.statvfs_result((4096, 4096, 9, 9, 25600, 9, 9, 9, 0, 255)))
    engine = FakeEngine({"vllm:1": ID})
    with pytest.raises(_images.ImageError) as raised:
        store(engine, tmp_path).ensure(_images.wanted("vllm:1", archive, SHA256), check_mode)
    assert str(raised.value) == (
        "/ has 0.10 GiB free, wanted 1.00 GiB for the image: make room, or move the engine's data-root "
        "(docker_daemon_options)"
    )
    assert engine.calls == []


def test_an_archive_on_a_server_is_looked_at_before_it_is_fetched() -> None:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            there = self.path == "/image.tar"
            self.send_response(200 if there else 404)
            self.send_header("Content-Length", "0" if not there else "1000")
            self.end_headers()

        def log_message(self, *args: Any) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    base = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        # The archive and the image lie side by side for a while.
        assert _images.needed_bytes(_images.wanted("vllm:1", f"{base}/image.tar", SHA256)) == 2000
        with pytest.raises(_images.ImageError) as raised:
            _images.needed_bytes(_images.wanted("vllm:1", f"{base}/other.tar", SHA256))
    finally:
        server.shutdown()
        server.server_close()
    assert str(raised.value) == f"{base}/other.tar: the server answered 404 Not Found (archive)"


def test_a_known_id_needs_no_archive(tmp_path: Path) -> None:
    engine = FakeEngine({}, **{"vllm:1": ID})
    want = _images.wanted("vllm:1", "file:///not/there.tar", SHA256, ID)
    assert store(engine, tmp_path).ensure(want, check_mode=False) == _images.Found(ID, "engine")


def test_from_a_registry_by_digest(tmp_path: Path) -> None:
    engine = FakeEngine({f"vllm@{DIGEST}": ID})
    want = _images.wanted(f"vllm:1@{DIGEST}")
    assert store(engine, tmp_path).ensure(want, check_mode=False) == _images.Found(ID, "registry")
    assert store(engine, tmp_path).ensure(want, check_mode=False) == _images.Found(ID, "engine")
    assert engine.calls == [f"pull vllm@{DIGEST}"]


def test_a_downloaded_archive_is_removed_after_it_was_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fetch(url: str, path: str, sha256: str) -> Any:
        Path(path).write_bytes(CONTENT)

    monkeypatch.setattr(_images, "needed_bytes", lambda want: 0)
    want = _images.wanted("vllm:1", "https://files.example.org/image.tar", SHA256)
    found = store(FakeEngine({"vllm:1": ID}), tmp_path, fetch=fetch).ensure(want, check_mode=False)
    assert found == _images.Found(ID, "archive")
    assert os.listdir(tmp_path / "dl") == []


@pytest.mark.parametrize(
    ("brings", "changed", "message"),
    [
        (
            {"vllm:1": ID},
            {"archive_sha256": "0" * 64},
            f"the archive {{archive}} has sha256 {SHA256}, wanted {'0' * 64} (archive_sha256); nothing was loaded",
        ),
        (
            {"vllm:1": OTHER_ID},
            {"image_id": ID},
            f"the archive {{archive}} holds {OTHER_ID}, wanted {ID} (id)",
        ),
        ({}, {"image_id": ID}, f"the archive {{archive}} holds no image, wanted {ID} (id)"),
        (
            {"a:1": ID, "b:1": OTHER_ID},
            {},
            "the archive {archive} holds 2 images (a:1, b:1), none of them is vllm:1 (reference)",
        ),
        (
            {"vllm:1": ID},
            {"archive": "file:///no/image.tar"},
            "the archive /no/image.tar doesn't exist on this host (archive)",
        ),
    ],
)
def test_a_wrong_archive(
    tmp_path: Path, archive: str, brings: dict[str, str], changed: dict[str, Any], message: str
) -> None:
    want = _images.wanted(**{"reference": "vllm:1", "archive": archive, "archive_sha256": SHA256, **changed})
    with pytest.raises(FleetError) as raised:
        store(FakeEngine(brings), tmp_path).ensure(want, check_mode=False)
    assert str(raised.value) == message.format(archive=archive)


def test_an_archive_with_one_image_of_another_name(tmp_path: Path, archive: str) -> None:
    want = _images.wanted("vllm:1", archive, SHA256)
    found = store(FakeEngine({"sandbox:7": ID}), tmp_path).ensure(want, check_mode=False)
    assert found.image_id == ID
    (record,) = (tmp_path / "records").iterdir()
    assert json.loads(record.read_text()) == {"archive": archive, "id": ID, "names": ["sandbox:7"]}


def test_a_registry_that_serves_another_image(tmp_path: Path) -> None:
    want = _images.wanted("vllm:1", image_id=ID)
    with pytest.raises(FleetError) as raised:
        store(FakeEngine({"vllm:1": OTHER_ID}), tmp_path).ensure(want, check_mode=False)
    assert str(raised.value) == f"the image vllm:1 has the id {OTHER_ID}, wanted {ID}"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"reference": "vllm:1"},
            (
                "image 'vllm:1' isn't pinned: wanted a digest in the reference (name:tag@sha256:...), "
                "or an archive with its archive_sha256"
            ),
        ),
        (
            {"reference": "vllm:1", "image_id": "1234"},
            "image 'vllm:1': its id is '1234', wanted sha256: and 64 hex digits",
        ),
        (
            {"reference": "vllm:1", "archive_sha256": SHA256},
            "image 'vllm:1': archive_sha256 is set, but archive isn't",
        ),
        (
            {"reference": "vllm:1", "archive": "file:///x.tar"},
            "image 'vllm:1': the archive file:///x.tar has the archive_sha256 None, wanted 64 hex digits",
        ),
    ],
)
def test_what_is_not_pinned(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidInputError) as raised:
        _images.wanted(**options)
    assert str(raised.value) == message
