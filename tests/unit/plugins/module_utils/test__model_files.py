# SPDX-License-Identifier: Apache-2.0
"""Placing models from directories, archives and a stand-in for the Hugging Face hub."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import tarfile
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.gpufleet.metal.plugins.module_utils import _download, _model_files
from ansible_collections.gpufleet.metal.plugins.module_utils._errors import FleetError, InvalidInputError

FILES = {"config.json": b'{"a": 1}', "model.safetensors": b"w" * 5000, "sub/x.txt": b"x"}
COMMIT = "0123456789abcdef0123456789abcdef01234567"


def sha256(content: bytes) -> str:
    """Hex digest."""
    return hashlib.sha256(content).hexdigest()


def write(root: Path, files: dict[str, bytes]) -> Path:
    """Make files below a directory."""
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return root


def tar(path: Path, files: dict[str, bytes], prefix: str = "", mode: str = "w") -> str:
    """Make an archive; returns its sha256."""
    with tarfile.open(path, mode) as archive:  # type: ignore[call-overload]
        for name, content in files.items():
            member = tarfile.TarInfo(prefix + name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return sha256(path.read_bytes())


def request(tmp_path: Path, source: dict[str, Any], **changed: Any) -> _model_files.Request:
    """The wish for the model ``m`` in ``tmp_path/store``."""
    endpoint = changed.pop("endpoint", "http://127.0.0.1:9")
    token = changed.pop("token", None)
    return _model_files.Request(
        name="m",
        directory=str(tmp_path / "store" / "m"),
        source=_model_files.make_source(source, endpoint, token),
        **{"uid": os.getuid(), "gid": os.getgid(), **changed},
    )


def placed(tmp_path: Path) -> dict[str, bytes]:
    """The visible files of the model."""
    root = tmp_path / "store" / "m"
    return {name: (root / name).read_bytes() for name, _unused in _model_files.walk(str(root))}


def test_from_a_directory(tmp_path: Path) -> None:
    source = write(tmp_path / "source", {**FILES, ".hidden": b"", ".cache/x": b""})
    os.chmod(source / "model.safetensors", 0o600)
    wish = request(tmp_path, {"path": str(source)})
    assert _model_files.apply(wish, check_mode=True).changed
    assert not (tmp_path / "store").exists()
    outcome = _model_files.apply(wish)
    assert (outcome.action, outcome.reason, outcome.files, outcome.bytes) == (
        "placed",
        "it isn't in the store",
        3,
        5009,
    )
    assert placed(tmp_path) == FILES
    modes = {p.name: oct(p.stat().st_mode & 0o777) for p in (tmp_path / "store" / "m").rglob("*")}
    assert set(modes.values()) == {"0o644", "0o755"}
    assert modes["sub"] == "0o755"
    assert sorted(os.listdir(tmp_path / "store")) == ["m"]
    assert not _model_files.apply(wish).changed
    assert not _model_files.apply(wish, check_mode=True).changed


def test_a_medium_may_be_gone_after_the_copy(tmp_path: Path) -> None:
    source = write(tmp_path / "source", FILES)
    _model_files.apply(request(tmp_path, {"path": str(source)}))
    source.rename(tmp_path / "elsewhere")
    assert not _model_files.apply(request(tmp_path, {"path": str(source)})).changed


def test_a_source_that_changed_is_copied_again(tmp_path: Path) -> None:
    source = write(tmp_path / "source", FILES)
    _model_files.apply(request(tmp_path, {"path": str(source)}))
    write(source, {"config.json": b"{}"})
    (source / "sub/x.txt").unlink()
    outcome = _model_files.apply(request(tmp_path, {"path": str(source)}, replacement_allowed=True))
    assert (outcome.action, outcome.reason) == ("placed", "its source changed")
    assert placed(tmp_path) == {"config.json": b"{}", "model.safetensors": FILES["model.safetensors"]}


@pytest.mark.parametrize("check_mode", [False, True])
@pytest.mark.parametrize(
    ("other", "found", "wanted"),
    [
        ("same path", "path {source}", "its files of now"),
        ("path", "path {source}", "path {other}"),
        ("archive", "path {source}", "archive {sha256}"),
        (
            "huggingface",
            "path {source}",
            f"huggingface org/m {COMMIT}",
        ),
    ],
)
def test_another_source_takes_consent(tmp_path: Path, other: str, found: str, wanted: str, check_mode: bool) -> None:
    source = write(tmp_path / "source", FILES)
    _model_files.apply(request(tmp_path, {"path": str(source)}))
    names = {"source": source, "other": tmp_path / "other", "sha256": tar(tmp_path / "m.tar", FILES)}
    write(tmp_path / "other", FILES)
    if other == "same path":
        write(source, {"config.json": b"other"})
    sources = {
        "same path": {"path": str(source)},
        "path": {"path": str(tmp_path / "other")},
        "archive": {"archive": {"url": f"file://{tmp_path}/m.tar", "sha256": names["sha256"]}},
        "huggingface": HF,
    }
    with pytest.raises(_model_files.ModelError) as raised:
        _model_files.apply(request(tmp_path, sources[other]), check_mode)
    assert str(raised.value) == (
        f"model 'm': {tmp_path}/store/m holds the files of {found.format(**names)}, wanted {wanted.format(**names)}; "
        "an engine that restarts by itself would load the new ones: set vllm_restart_allowed to true "
        "(model_store_replacement_allowed where the role runs alone) to have them replaced; nothing was changed"
    )
    assert placed(tmp_path) == FILES
    assert sorted(os.listdir(tmp_path / "store")) == ["m"]


@pytest.mark.parametrize(
    ("damage", "verify", "action", "reason"),
    [
        ("truncate", "quick", "placed", "the file 'model.safetensors' has 10 bytes, wanted 5000"),
        ("remove", "quick", "placed", "the file 'model.safetensors' is missing"),
        (
            "overwrite",
            "quick",
            "placed",
            f"the file 'model.safetensors' has sha256 {sha256(b'v' * 5000)}, wanted {sha256(b'w' * 5000)}",
        ),
        ("overwrite, same time", "quick", "none", ""),
        (
            "overwrite, same time",
            "full",
            "placed",
            f"the file 'model.safetensors' has sha256 {sha256(b'v' * 5000)}, wanted {sha256(b'w' * 5000)}",
        ),
        ("touch", "quick", "none", ""),
        ("add", "quick", "placed", "there are files that aren't the model's: evil.safetensors"),
        ("chmod", "quick", "attributes", "owner or mode of model.safetensors differed"),
        ("manifest", "quick", "placed", "its directory has no manifest"),
    ],
)
def test_damage_is_noticed_and_repaired(tmp_path: Path, damage: str, verify: str, action: str, reason: str) -> None:
    digest = tar(tmp_path / "m.tar", FILES)
    wish = request(tmp_path, {"archive": {"url": f"file://{tmp_path}/m.tar", "sha256": digest}}, verify=verify)
    _model_files.apply(wish)
    weights = tmp_path / "store/m/model.safetensors"
    info = weights.stat()
    if damage == "truncate":
        weights.write_bytes(b"w" * 10)
    elif damage == "remove":
        weights.unlink()
    elif damage.startswith("overwrite"):
        weights.write_bytes(b"v" * 5000)
        if damage.endswith("same time"):
            os.utime(weights, ns=(info.st_atime_ns, info.st_mtime_ns))
    elif damage == "touch":
        os.utime(weights)
    elif damage == "add":
        (weights.parent / "evil.safetensors").write_bytes(b"")
    elif damage == "chmod":
        weights.chmod(0o600)
    elif damage == "manifest":
        (weights.parent / _model_files.MANIFEST).write_text("{")
    outcome = _model_files.apply(wish)
    assert (outcome.action, outcome.reason) == (action, reason)
    if damage != "overwrite, same time" or verify == "full":
        assert placed(tmp_path) == FILES
    assert not _model_files.apply(wish).changed


def test_repairing_one_file_of_a_directory_keeps_the_others(tmp_path: Path) -> None:
    source = write(tmp_path / "source", FILES)
    wish = request(tmp_path, {"path": str(source)})
    _model_files.apply(wish)
    inode = (tmp_path / "store/m/model.safetensors").stat().st_ino
    (tmp_path / "store/m/config.json").unlink()
    outcome = _model_files.apply(wish)
    assert (outcome.action, outcome.reused) == ("placed", 2)
    assert (tmp_path / "store/m/model.safetensors").stat().st_ino == inode


@pytest.mark.parametrize(("prefix", "mode"), [("", "w"), ("./", "w:gz"), ("tiny-llama/", "w"), ("m/", "w:xz")])
def test_from_an_archive(tmp_path: Path, prefix: str, mode: str) -> None:
    digest = tar(tmp_path / "m.tar", FILES, prefix, mode)
    source = {"archive": {"url": f"file://{tmp_path}/m.tar", "sha256": digest.upper()}}
    outcome = _model_files.apply(request(tmp_path, source, files_sha256={"config.json": sha256(FILES["config.json"])}))
    assert outcome.action == "placed"
    assert placed(tmp_path) == FILES
    assert not _model_files.apply(request(tmp_path, source)).changed


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (
            {"sha256": "0" * 64},
            "model 'm': the archive file://{tmp}/m.tar has sha256 {digest}, wanted " + "0" * 64 + " "
            "(source.archive.sha256); nothing was unpacked",
        ),
        (
            {"url": "file:///no/m.tar"},
            "model 'm': the archive /no/m.tar doesn't exist on this host (source.archive.url)",
        ),
        (
            {"files": {"../evil": b""}},
            ("model 'm': the archive has a file named '../evil', which leads out of the model's directory"),
        ),
        ({"files": {}}, "model 'm': the archive holds no file"),
        ({"content": b"no tar at all" * 100}, "model 'm': the archive isn't a readable tar file: "),
        (
            {"files_sha256": {"config.json": "1" * 64}},
            (
                f"model 'm': the file 'config.json' has sha256 {sha256(FILES['config.json'])}, wanted {'1' * 64} "
                "(files_sha256)"
            ),
        ),
        (
            {"files_sha256": {"tokenizer.json": "1" * 64}},
            "model 'm': the source has no file 'tokenizer.json', but files_sha256 names it",
        ),
    ],
)
def test_a_wrong_archive_leaves_nothing_visible(tmp_path: Path, changed: dict[str, Any], message: str) -> None:
    path = tmp_path / "m.tar"
    digest = tar(path, changed.get("files", FILES))
    if "content" in changed:
        path.write_bytes(changed["content"])
        digest = sha256(changed["content"])
    archive = {"url": changed.get("url", f"file://{path}"), "sha256": changed.get("sha256", digest)}
    with pytest.raises(FleetError) as raised:
        _model_files.apply(request(tmp_path, {"archive": archive}, files_sha256=changed.get("files_sha256", {})))
    assert str(raised.value).startswith(message.replace("{tmp}", str(tmp_path)).replace("{digest}", digest))
    assert not (tmp_path / "store/m").exists()


def test_a_digest_that_is_asked_for_later_is_checked_without_a_copy(tmp_path: Path) -> None:
    source = {"path": str(write(tmp_path / "source", FILES))}
    _model_files.apply(request(tmp_path, source))
    with pytest.raises(FleetError, match=r"^model 'm': the file 'config.json' has sha256 "):
        _model_files.apply(request(tmp_path, source, files_sha256={"config.json": "1" * 64}))


def test_a_full_disk_is_noticed_before_anything_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = write(tmp_path / "source", FILES)
    monkeypatch.setattr(os, "statvfs", lambda path: os.statvfs_result((4096, 4096, 9, 9, 25600, 9, 9, 9, 0, 255)))
    with pytest.raises(_model_files.ModelError) as raised:
        _model_files.apply(request(tmp_path, {"path": str(source)}))
    assert str(raised.value) == (
        f"model 'm': {tmp_path}/store has 0.10 GiB free, wanted 0.25 GiB: "
        "make room, or set model_store_directory to a larger file system"
    )
    assert os.listdir(tmp_path / "store") == []


def test_check_mode_tells_what_would_stop_a_real_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    absent = {"archive": {"url": f"file://{tmp_path}/m.tar", "sha256": "0" * 64}}
    with pytest.raises(_model_files.ModelError) as raised:
        _model_files.apply(request(tmp_path, absent), check_mode=True)
    assert str(raised.value) == (
        "model 'm': it isn't in the store, and it can't be placed: "
        f"the archive {tmp_path}/m.tar doesn't exist on this host (source.archive.url)"
    )
    source = write(tmp_path / "source", FILES)
    monkeypatch.setattr(os, "statvfs", lambda path: os.statvfs_result((4096, 4096, 9, 9, 25600, 9, 9, 9, 0, 255)))
    with pytest.raises(_model_files.ModelError) as raised:
        _model_files.apply(request(tmp_path, {"path": str(source)}), check_mode=True)
    assert str(raised.value) == (
        f"model 'm': it isn't in the store, and it can't be placed: {tmp_path}/store has 0.10 GiB free, "
        "wanted 0.25 GiB: make room, or set model_store_directory to a larger file system"
    )
    assert not (tmp_path / "store").exists()


@pytest.mark.skipif(os.getuid() != 0, reason="only root can try as another user")
def test_a_model_that_the_engine_cannot_read(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    source = write(tmp_path / "source", FILES)
    with pytest.raises(_model_files.ModelError) as raised:
        _model_files.apply(request(tmp_path, {"path": str(source)}, reader=(2000, 0)))
    assert str(raised.value) == (
        f"model 'm': the engine's user (uid 2000, gid 0) can't read {tmp_path}/store/m/config.json "
        "(Permission denied): "
        "wanted read permission on the file and search permission on every directory above it "
        "(model_store_directory, model_store_reader)"
    )


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ({}, "source has nothing, wanted exactly one of path, archive, huggingface"),
        (
            {"path": "/x", "archive": {}},
            "source has archive, path, wanted exactly one of path, archive, huggingface",
        ),
        ({"git": "x"}, "source has git, wanted exactly one of path, archive, huggingface"),
        ({"path": "x"}, "source.path is 'x', wanted an absolute path"),
        ({"archive": {"url": "x"}}, "source.archive has url, wanted url and sha256"),
        (
            {"archive": {"url": "file:///x", "sha256": "ab"}},
            "source.archive.sha256 is 'ab', wanted 64 hex digits",
        ),
        (
            {"archive": {"url": "ftp://x/y", "sha256": "0" * 64}},
            "URL 'ftp://x/y': wanted http://, https:// or file:///an/absolute/path",
        ),
        (
            {"huggingface": {"repository": "x", "revision": COMMIT}},
            "source.huggingface.repository is 'x', wanted organisation/name",
        ),
        (
            {"huggingface": {"repository": "o/x", "revision": "main"}},
            (
                "source.huggingface.revision is 'main', wanted a commit (40 hex digits): "
                "a branch or tag can change under a running fleet"
            ),
        ),
    ],
)
def test_a_source_that_is_none(source: dict[str, Any], message: str) -> None:
    with pytest.raises(FleetError) as raised:
        _model_files.make_source(source, "https://huggingface.co")
    assert str(raised.value) == message


def test_missing_directory(tmp_path: Path) -> None:
    with pytest.raises(_model_files.ModelError) as raised:
        _model_files.apply(request(tmp_path, {"path": "/no/such"}))
    assert str(raised.value) == "model 'm': the source directory /no/such doesn't exist on this host (source.path)"


# ------------------------------------------------------------------------------------------------- the hub's stand-in

HUB_FILES = {
    ".gitattributes": b"*",
    "config.json": b'{"a": 1}',
    "model.safetensors": b"w" * 300000,
    "pytorch_model.bin": b"p" * 100,
    "original/consolidated.safetensors": b"o" * 100,
}


class Hub(BaseHTTPRequestHandler):
    """The two paths of the hub that matter: the listing with digests, and files (large ones by a redirect)."""

    files: dict[str, bytes]
    requests: list[tuple[str, str | None, str | None]]
    cut: list[int]
    refuse: list[int]

    def answer(self) -> None:
        self.requests.append((self.path, self.headers.get("Range"), self.headers.get("Authorization")))
        if self.refuse:
            self.send_error(self.refuse.pop(0))
            return
        if self.path.startswith("/api/"):
            assert self.path == f"/api/models/org/m/revision/{COMMIT}?blobs=true"
            siblings = [self.entry(name, content) for name, content in self.files.items()]
            self.send(json.dumps({"sha": COMMIT, "siblings": siblings}).encode())
            return
        name = self.path.split(f"/{COMMIT}/")[1]
        content = self.files[name]
        if len(content) > 1000 and not self.path.startswith("/cdn/"):
            self.send_response(302)
            self.send_header("Location", f"http://localhost:{self.server.server_address[1]}/cdn/{COMMIT}/{name}")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        begin = int((self.headers.get("Range") or "bytes=0-")[len("bytes=") : -1])
        self.send(content, begin, self.cut.pop(0) if self.cut and len(content) > 1000 else None)

    @staticmethod
    def entry(name: str, content: bytes) -> dict[str, Any]:
        blob = hashlib.sha1(f"blob {len(content)}\0".encode() + content, usedforsecurity=False).hexdigest()
        entry: dict[str, Any] = {"rfilename": name, "size": len(content), "blobId": blob}
        if len(content) > 1000:
            entry["lfs"] = {"sha256": sha256(content), "size": len(content), "pointerSize": 130}
        return entry

    def send(self, content: bytes, begin: int = 0, cut_after: int | None = None) -> None:
        self.send_response(206 if begin else 200)
        if begin:
            self.send_header("Content-Range", f"bytes {begin}-{len(content) - 1}/{len(content)}")
        self.send_header("Content-Length", str(len(content) - begin))
        self.end_headers()
        self.wfile.write(content[begin:] if cut_after is None else content[begin : begin + cut_after])

    def log_message(self, *args: Any) -> None:
        """Say nothing."""


@contextlib.contextmanager
def hub(**changed: Any) -> Iterator[tuple[str, Any]]:
    """A hub with the repository ``org/m``."""
    state = {"files": dict(HUB_FILES), "requests": [], "cut": [], "refuse": [], **changed, "do_GET": Hub.answer}
    handler = type("Handler", (Hub,), state)
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}", handler
    finally:
        server.shutdown()
        server.server_close()


@pytest.fixture(autouse=True)
def no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pauses between attempts take no time."""
    monkeypatch.setattr(_download.fetch, "__defaults__", (*_download.fetch.__defaults__[:-1], lambda seconds: None))


HF = {"huggingface": {"repository": "org/m", "revision": COMMIT}}


def test_from_the_hub(tmp_path: Path) -> None:
    with hub() as (url, handler):
        wish = request(tmp_path, HF, endpoint=url, token="t")
        assert _model_files.apply(wish).action == "placed"
        seen = list(handler.requests)
        assert not _model_files.apply(request(tmp_path, HF, endpoint=url)).changed
        assert handler.requests == seen
    assert sorted(placed(tmp_path)) == ["config.json", "model.safetensors", "original/consolidated.safetensors"]
    assert placed(tmp_path)["model.safetensors"] == HUB_FILES["model.safetensors"]
    # The token goes to the hub, never to the host that it redirects to.
    assert [authorization for path, _unused, authorization in seen if path.startswith("/cdn/")] == [None]
    assert {authorization for path, _unused, authorization in seen if not path.startswith("/cdn/")} == {"Bearer t"}


def test_a_download_that_is_cut_off_goes_on_where_it_ended(tmp_path: Path) -> None:
    with hub(cut=[1000, 2000]) as (url, handler):
        assert _model_files.apply(request(tmp_path, HF, endpoint=url)).action == "placed"
        ranges = [r for path, r, _unused in handler.requests if path.startswith("/cdn/")]
    assert ranges == [None, "bytes=1000-", "bytes=3000-"]
    assert placed(tmp_path)["model.safetensors"] == HUB_FILES["model.safetensors"]


def test_the_next_run_goes_on_where_a_failed_one_ended(tmp_path: Path) -> None:
    with hub(cut=[100000, 0, 0, 0, 0, 0]) as (url, handler):
        with pytest.raises(FleetError, match="after 5 attempts; the next run continues where this one ended"):
            _model_files.apply(request(tmp_path, HF, endpoint=url))
        assert not (tmp_path / "store/m").exists()
        handler.cut.clear()
        handler.requests.clear()
        outcome = _model_files.apply(request(tmp_path, HF, endpoint=url))
        assert outcome.action == "placed"
        assert [r for path, r, _unused in handler.requests if path.startswith("/cdn/")] == ["bytes=100000-"]


def test_a_new_revision_fetches_only_what_changed(tmp_path: Path) -> None:
    with hub() as (url, handler):
        _model_files.apply(request(tmp_path, HF, endpoint=url))
        manifest = tmp_path / "store/m" / _model_files.MANIFEST
        document = json.loads(manifest.read_text())
        document["source"]["revision"] = "f" * 40
        manifest.write_text(json.dumps(document))
        handler.requests.clear()
        outcome = _model_files.apply(request(tmp_path, HF, endpoint=url, replacement_allowed=True))
        assert (outcome.reason, outcome.reused) == ("its source changed", 1)
        assert not [
            path for path, _unused, _unused in handler.requests if "safetensors" in path and "consolidated" not in path
        ]


def test_busy_servers_are_asked_again_and_refusals_are_not(tmp_path: Path) -> None:
    with hub() as (url, handler):
        wish = request(tmp_path, HF, endpoint=url)
        wish.source.files()  # type: ignore[attr-defined]
        handler.refuse.extend([429, 503])
        assert _model_files.apply(wish).action == "placed"
    with hub(refuse=[403]) as (url, handler):
        with pytest.raises(FleetError) as raised:
            _model_files.apply(request(tmp_path / "2", HF, endpoint=url))
        assert str(raised.value) == (
            f"model 'm': {url}/api/models/org/m/revision/{COMMIT}?blobs=true: the server answered 403 Forbidden "
            "(model_store_huggingface_token)"
        )
        assert len(handler.requests) == 1


def test_what_the_hub_serves_must_be_what_it_lists(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with hub() as (url, handler):
        wish = request(tmp_path, HF, endpoint=url)
        wish.source.files()  # type: ignore[attr-defined]
        handler.files["config.json"] = b'{"a": 2}'
        with pytest.raises(FleetError) as raised:
            _model_files.apply(wish)
        assert str(raised.value).startswith(f"model 'm': org/m at {COMMIT}: the file 'config.json' has the git id ")
        handler.files["config.json"] = HUB_FILES["config.json"]
        handler.files["model.safetensors"] = b"x" * 300000
        with pytest.raises(FleetError) as raised:
            _model_files.apply(wish)
        assert str(raised.value) == (
            f"model 'm': {url}/org/m/resolve/{COMMIT}/model.safetensors: its sha256 is {sha256(b'x' * 300000)}, "
            f"wanted {sha256(b'w' * 300000)}; nothing of it was kept"
        )
    assert not (tmp_path / "store/m").exists()


def test_http_archive(tmp_path: Path) -> None:
    digest = tar(tmp_path / "m.tar", FILES)
    with hub(files={"m.tar": (tmp_path / "m.tar").read_bytes()}) as (url, _unused):
        source = {"archive": {"url": f"{url}/cdn/{COMMIT}/m.tar", "sha256": digest}}
        assert _model_files.apply(request(tmp_path, source)).action == "placed"
        assert placed(tmp_path) == FILES
        assert sorted(os.listdir(tmp_path / "store")) == ["m"]


def test_an_unsafe_name_in_a_listing() -> None:
    with pytest.raises(_model_files.ModelError) as raised:
        _model_files.select([{"rfilename": "../x"}], ())
    assert str(raised.value) == (
        "the repository's listing has a file named '../x', which leads out of the model's directory"
    )


def test_invalid_input_is_told_apart() -> None:
    with pytest.raises(InvalidInputError):
        _model_files.make_source({"path": 1}, "x")
