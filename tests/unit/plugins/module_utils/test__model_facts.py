# SPDX-License-Identifier: Apache-2.0
"""Reading what models say about themselves: directories, archives and a stand-in for the hub, whole and hostile."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import tarfile
import threading
import tracemalloc
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.gpufleet.metal.plugins.module_utils import _model_facts
from ansible_collections.gpufleet.metal.plugins.module_utils._errors import FleetError, InvalidInputError
from ansible_collections.gpufleet.metal.plugins.module_utils._model_facts import Facts, FactsError

COMMIT = "0123456789abcdef0123456789abcdef01234567"
CONFIG = {"model_type": "llama", "num_hidden_layers": 2}


def safetensors(tensors: dict[str, int], metadata: bool = False) -> bytes:
    """Return a safetensors file with tensors of so many bytes."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}} if metadata else {}
    end = 0
    for name, size in tensors.items():
        header[name] = {"dtype": "U8", "shape": [size], "data_offsets": [end, end + size]}
        end += size
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + b"w" * end


def with_header(header: bytes, data: bytes = b"", length: int | None = None) -> bytes:
    """Return a safetensors file with any header."""
    return (len(header) if length is None else length).to_bytes(8, "little") + header + data


def index(total: Any, weight_map: Any) -> bytes:
    """Return a safetensors index."""
    return json.dumps({"metadata": {"total_size": total}, "weight_map": weight_map}).encode()


ONE = {"config.json": json.dumps(CONFIG).encode(), "model.safetensors": safetensors({"a": 3000, "b": 1000}, True)}
MAP = {"a": "model-1.safetensors", "b": "model-2.safetensors"}
TWO = {
    "config.json": json.dumps(CONFIG).encode(),
    "model-1.safetensors": safetensors({"a": 3000}),
    "model-2.safetensors": safetensors({"b": 1000}),
    "model.safetensors.index.json": index(4000, MAP),
}
BIN = {"config.json": json.dumps(CONFIG).encode(), "pytorch_model.bin": b"p" * 700, "training_args.bin": b"t" * 10}


def write(root: Path, files: dict[str, bytes]) -> str:
    """Make files below a directory; returns its path."""
    root.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
    return str(root)


def tar(path: Path, files: dict[str, bytes], prefix: str = "", mode: str = "w") -> str:
    """Make an archive; returns its sha256."""
    with tarfile.open(path, mode) as archive:  # type: ignore[call-overload]
        for name, content in files.items():
            member = tarfile.TarInfo(prefix + name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize(
    ("files", "weights", "origin"),
    [
        pytest.param(ONE, 4000, "headers", id="one file"),
        pytest.param(TWO, 4000, "index", id="an index"),
        pytest.param(
            {**TWO, "model.safetensors.index.json": index(8000, MAP)}, 4000, "headers", id="an index that counts twice"
        ),
        pytest.param(
            {**TWO, "model.safetensors.index.json": index(2000, MAP)}, 4000, "headers", id="an index of parameters"
        ),
        pytest.param({**TWO, "model.safetensors.index.json": index("4 kB", MAP)}, 4000, "headers", id="no number"),
        pytest.param(
            {**TWO, "consolidated.safetensors": safetensors({"a": 4000})}, 4000, "index", id="what the index leaves out"
        ),
        pytest.param(
            {**ONE, "consolidated.safetensors": safetensors({"a": 4000})}, 4000, "headers", id="the same weights twice"
        ),
        pytest.param(
            {"config.json": b"{}", "consolidated.safetensors": safetensors({"a": 40})},
            40,
            "headers",
            id="Mistral's own",
        ),
        pytest.param({**ONE, "pytorch_model.bin": b"p" * 4001}, 4000, "headers", id="safetensors before others"),
        pytest.param(BIN, 700, "files", id="bin"),
        pytest.param({"config.json": b"{}", "a.gguf": b"g" * 9, "b.gguf": b"g"}, 10, "files", id="gguf"),
        pytest.param({"config.json": b"{}", "model.safetensors": safetensors({})}, 0, "headers", id="no tensors"),
    ],
)
def test_weights(tmp_path: Path, files: dict[str, bytes], weights: int, origin: str) -> None:
    """The same figure from a directory, a plain archive and a packed one."""
    listings = [
        _model_facts.list_directory(write(tmp_path / "m", files)),
        _model_facts.list_archive(f"file://{tmp_path}/m.tar", tar(tmp_path / "m.tar", files)),
        _model_facts.list_archive(f"file://{tmp_path}/m.tgz", tar(tmp_path / "m.tgz", files, "top/", "w:gz")),
    ]
    config = json.loads(files["config.json"])
    for listing, verified in zip(listings, (True, False, True), strict=True):
        assert _model_facts.describe(listing) == Facts(config, weights, origin, verified)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        pytest.param(
            {"model.safetensors": safetensors({})},
            "{where} has no config.json, wanted the files of a model",
            id="no config",
        ),
        pytest.param(
            {**ONE, "config.json": b"<html>"}, "config.json in {where} is not JSON: Expecting value", id="no JSON"
        ),
        pytest.param({**ONE, "config.json": b"\xff\xfe"}, "config.json in {where} is not JSON: ", id="no text"),
        pytest.param(
            {**ONE, "config.json": b"[" * 100000}, "config.json in {where} is not JSON: ", id="nested without end"
        ),
        pytest.param(
            {**ONE, "config.json": b"[]"}, "config.json in {where} holds a JSON list, wanted an object", id="no object"
        ),
        pytest.param(
            {**ONE, "config.json": b" " * (4 * 1024**2 + 1)},
            "config.json in {where} has 4194305 bytes, wanted at most 4194304",
            id="a config too large",
        ),
        pytest.param(
            {"config.json": b"{}", "README.md": b""},
            "{where} has no weights, wanted files *.safetensors or *.bin, *.pt, *.pth, *.gguf",
            id="no weights",
        ),
        pytest.param(
            {**ONE, "model.safetensors": b"1234567"},
            "model.safetensors in {where} has 7 bytes, wanted a safetensors file: 8 bytes and a header at least",
            id="no header",
        ),
        pytest.param(
            {**ONE, "model.safetensors": with_header(b"{}", length=2**63)},
            "the header of model.safetensors in {where} has 9223372036854775808 bytes by its own word, wanted at most "
            "16777216",
            id="a huge header",
        ),
        pytest.param(
            {**ONE, "model.safetensors": with_header(b"{}", length=1000)},
            "model.safetensors in {where} has 10 bytes, wanted 1008 for its header alone: it is cut off",
            id="a header that is cut off",
        ),
        pytest.param(
            {**ONE, "model.safetensors": ONE["model.safetensors"][:-1]},
            f"model.safetensors in {{where}} has {len(ONE['model.safetensors']) - 1} bytes, wanted "
            f"{len(ONE['model.safetensors'])} by its header: it is cut off or too long",
            id="weights that are cut off",
        ),
        pytest.param(
            {**ONE, "model.safetensors": with_header(b"not JSON")},
            "the header of model.safetensors in {where} is not JSON: ",
            id="a header that is no JSON",
        ),
        pytest.param(
            {**ONE, "model.safetensors": with_header(b'{"a": {"data_offsets": [0]}}')},
            "the header of model.safetensors in {where} has no data_offsets of 'a', wanted two numbers",
            id="a tensor without offsets",
        ),
        pytest.param(
            {**ONE, "model.safetensors": with_header(b'{"a": {"data_offsets": [0, true]}}')},
            "the header of model.safetensors in {where} has no data_offsets of 'a', wanted two numbers",
            id="offsets that are no numbers",
        ),
        pytest.param(
            {
                **ONE,
                "model.safetensors": with_header(b'{"a": {"data_offsets": [0, 2]}, "b": {"data_offsets": [1, 3]}}'),
            },
            "the header of model.safetensors in {where} leaves a hole or an overlap at byte 2 of the tensors",
            id="an overlap",
        ),
        pytest.param(
            {**ONE, "model.safetensors": with_header(b'{"a": {"data_offsets": [5, 2]}}')},
            "the header of model.safetensors in {where} leaves a hole or an overlap at byte 0 of the tensors",
            id="a hole",
        ),
        pytest.param(
            {name: content for name, content in TWO.items() if name != "model-2.safetensors"},
            "{where} lacks model-2.safetensors, which model.safetensors.index.json names: it is not complete",
            id="a file that is missing",
        ),
        pytest.param(
            {**TWO, "model.safetensors.index.json": index(4000, {"a": "../model-1.safetensors"})},
            "{where} lacks ../model-1.safetensors, which model.safetensors.index.json names: it is not complete",
            id="an index that leads out",
        ),
        pytest.param(
            {**TWO, "x.bin": b"12345678", "model.safetensors.index.json": index(8, {"a": "x.bin"})},
            "model.safetensors.index.json in {where} names 'x.bin', wanted files *.safetensors",
            id="an index of other files",
        ),
        pytest.param(
            {**TWO, "model.safetensors.index.json": index(4000, {"a": 1})},
            "weight_map of model.safetensors.index.json in {where} names no files, wanted a file for each tensor",
            id="an index without files",
        ),
    ],
)
def test_broken_files(tmp_path: Path, files: dict[str, bytes], message: str) -> None:
    """A message names the file, what was found and what is wanted, wherever the file lies."""
    directory = write(tmp_path / "m", files)
    places = [
        (f"the directory {directory} (source.path)", lambda: _model_facts.list_directory(directory)),
        (
            f"the archive file://{tmp_path}/m.tar",
            lambda: _model_facts.list_archive(f"file://{tmp_path}/m.tar", tar(tmp_path / "m.tar", files)),
        ),
        (
            f"the archive file://{tmp_path}/m.txz",
            lambda: _model_facts.list_archive(f"file://{tmp_path}/m.txz", tar(tmp_path / "m.txz", files, "./", "w:xz")),
        ),
    ]
    for where, listing in places:
        with pytest.raises(FactsError) as raised:
            _model_facts.describe(listing())
        assert str(raised.value).startswith(message.replace("{where}", where))


# ------------------------------------------------------------------------------------------------------- directories


def test_links_count_and_hidden_files_do_not(tmp_path: Path) -> None:
    """The cache of huggingface_hub is full of links."""
    write(tmp_path / "blobs", {"1": ONE["config.json"], "2": ONE["model.safetensors"]})
    (tmp_path / "m").mkdir()
    os.symlink("../blobs/1", tmp_path / "m" / "config.json")
    os.symlink("../blobs/2", tmp_path / "m" / "model.safetensors")
    os.symlink("/no/such", tmp_path / "m" / "README.md")
    write(tmp_path / "m", {".x.safetensors": b"", "sub/x.safetensors": b""})
    assert _model_facts.describe(_model_facts.list_directory(str(tmp_path / "m"))).weights_bytes == 4000


def test_a_directory_that_is_not_there() -> None:
    """The message says what, where and which key."""
    with pytest.raises(FactsError) as raised:
        _model_facts.list_directory("/no/such")
    assert str(raised.value) == (
        "the directory /no/such (source.path) can't be read on this host: No such file or directory"
    )


def test_a_link_that_leads_nowhere(tmp_path: Path) -> None:
    """A weight that is not there is no model without weights."""
    write(tmp_path, {"config.json": b"{}"})
    os.symlink("/no/such", tmp_path / "model.safetensors")
    with pytest.raises(FactsError) as raised:
        _model_facts.list_directory(str(tmp_path))
    assert str(raised.value) == (
        f"model.safetensors in the directory {tmp_path} (source.path) can't be read: No such file or directory"
    )


def test_only_headers_are_read(tmp_path: Path) -> None:
    """A weight file of 64 GiB (a sparse one) costs nothing."""
    header = json.dumps({"a": {"dtype": "U8", "shape": [2**36], "data_offsets": [0, 2**36]}}).encode()
    write(tmp_path, {"config.json": b"{}", "model.safetensors": with_header(header)})
    os.truncate(tmp_path / "model.safetensors", 8 + len(header) + 2**36)
    tracemalloc.start()
    assert _model_facts.describe(_model_facts.list_directory(str(tmp_path))).weights_bytes == 2**36
    assert tracemalloc.get_traced_memory()[1] < 1024**2
    tracemalloc.stop()


# ---------------------------------------------------------------------------------------------------------- archives


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:bz2", "w:xz"])
@pytest.mark.parametrize("prefix", ["", "./", "model/"])
def test_archives(tmp_path: Path, mode: str, prefix: str) -> None:
    """Every packing, and with or without a directory at the top; deeper files and hidden ones do not count."""
    digest = tar(tmp_path / "m", {**TWO, "sub/config.json": b"[", ".hidden/model.safetensors": b""}, prefix, mode)
    listing = _model_facts.list_archive(f"file://{tmp_path}/m", digest.upper())
    assert _model_facts.describe(listing) == Facts(CONFIG, 4000, "index", mode != "w")


def test_memory_is_bounded(tmp_path: Path) -> None:
    """A packed archive of twice the memory that it may take is streamed."""
    digest = tar(tmp_path / "m.tgz", {**ONE, "model.safetensors": safetensors({"a": 64 * 1024**2})}, mode="w:gz")
    tracemalloc.start()
    listing = _model_facts.list_archive(f"file://{tmp_path}/m.tgz", digest)
    assert _model_facts.describe(listing).weights_bytes == 64 * 1024**2
    assert tracemalloc.get_traced_memory()[1] < 32 * 1024**2
    tracemalloc.stop()
    assert sorted(os.listdir(tmp_path)) == ["m.tgz"], "nothing is unpacked"


def test_a_wrong_checksum(tmp_path: Path) -> None:
    """What was read whole is compared."""
    digest = tar(tmp_path / "m.tgz", ONE, mode="w:gz")
    with pytest.raises(FactsError) as raised:
        _model_facts.list_archive(f"file://{tmp_path}/m.tgz", "0" * 64)
    assert str(raised.value) == (
        f"the archive file://{tmp_path}/m.tgz has sha256 {digest}, wanted {'0' * 64} (source.archive.sha256); nothing "
        "of it was taken"
    )


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("../config.json", "has a file named '../config.json', which leads out of the model's directory"),
        ("/etc/passwd", "has a file named '/etc/passwd', which leads out of the model's directory"),
    ],
)
@pytest.mark.parametrize("mode", ["w", "w:gz"])
def test_names_that_lead_out(tmp_path: Path, name: str, message: str, mode: str) -> None:
    """Tricks with paths are named, although nothing is unpacked."""
    digest = tar(tmp_path / "m", {**ONE, name: b""}, mode=mode)
    with pytest.raises(FleetError) as raised:
        _model_facts.list_archive(f"file://{tmp_path}/m", digest)
    assert str(raised.value) == f"the archive file://{tmp_path}/m {message}"


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE])
def test_links_and_devices(tmp_path: Path, kind: bytes) -> None:
    """The model store refuses them as well."""
    with tarfile.open(tmp_path / "m", "w") as archive:
        member = tarfile.TarInfo("config.json")
        member.type, member.linkname = kind, "/etc/passwd"
        archive.addfile(member)
    with pytest.raises(FactsError) as raised:
        _model_facts.list_archive(f"file://{tmp_path}/m", "0" * 64)
    assert str(raised.value) == (
        f"the archive file://{tmp_path}/m has the member 'config.json', a link, a device or a sparse file"
    )


def test_a_description_that_is_too_large(tmp_path: Path) -> None:
    """tarfile reads a long name and a PAX header whole, whatever size they say."""
    with tarfile.open(tmp_path / "m", "w", format=tarfile.PAX_FORMAT) as archive:
        member = tarfile.TarInfo("config.json")
        member.pax_headers = {"comment": "x" * 20000}
        archive.addfile(member)
    with pytest.raises(FactsError, match=r"^the archive describes a member with 20015 bytes, wanted 0 to 16384$"):
        _model_facts.list_archive(f"file://{tmp_path}/m", "0" * 64)


def test_too_many_members(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """tarfile remembers every member."""
    monkeypatch.setattr(_model_facts, "MOST_MEMBERS", 2)
    digest = tar(tmp_path / "m", TWO)
    with pytest.raises(FactsError) as raised:
        _model_facts.list_archive(f"file://{tmp_path}/m", digest)
    assert str(raised.value) == (
        f"the archive file://{tmp_path}/m has more than 2 members, wanted the files of one model"
    )


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"no tar at all" * 100, "isn't a readable tar file: "),
        (b"", "isn't a readable tar file: "),
        (b"\x1f\x8b" + b"junk" * 100, "isn't a readable tar file: "),
    ],
)
def test_what_is_no_archive(tmp_path: Path, content: bytes, message: str) -> None:
    """The message names the archive."""
    (tmp_path / "m").write_bytes(content)
    with pytest.raises(FactsError) as raised:
        _model_facts.list_archive(f"file://{tmp_path}/m", "0" * 64)
    assert str(raised.value).startswith(f"the archive file://{tmp_path}/m {message}")


@pytest.mark.parametrize("mode", ["w", "w:gz"])
def test_an_archive_that_is_cut_off(tmp_path: Path, mode: str) -> None:
    """A copy that stopped in the middle is no small model."""
    digest = tar(tmp_path / "m", {**ONE, "model.safetensors": safetensors({"a": 10**6})}, mode=mode)
    os.truncate(tmp_path / "m", os.path.getsize(tmp_path / "m") // 2)
    with pytest.raises(FactsError, match=r"isn't a readable tar file"):
        _model_facts.list_archive(f"file://{tmp_path}/m", digest)


def test_an_archive_without_files(tmp_path: Path) -> None:
    """Nothing but hidden files is nothing."""
    digest = tar(tmp_path / "m", {".x": b""})
    with pytest.raises(FactsError, match=r"holds no file$"):
        _model_facts.list_archive(f"file://{tmp_path}/m", digest)


def test_an_archive_that_is_not_there() -> None:
    """The message says which key."""
    with pytest.raises(FactsError) as raised:
        _model_facts.list_archive("file:///no/m.tar", "0" * 64)
    assert str(raised.value) == (
        "the archive file:///no/m.tar can't be read on this host: No such file or directory (source.archive.url)"
    )


# ------------------------------------------------------------------------------------------------- the hub's stand-in


class Hub(BaseHTTPRequestHandler):
    """The listing with sizes, and parts of files; large files by a redirect to another name of this host."""

    files: dict[str, bytes]
    requests: list[tuple[str, str | None, str | None]]
    refuse: list[int]
    ranges: bool

    def do_GET(self) -> None:
        self.requests.append((self.path, self.headers.get("Range"), self.headers.get("Authorization")))
        if self.refuse:
            self.send_error(self.refuse.pop(0))
            return
        if self.path == f"/api/models/org/m/revision/{COMMIT}?blobs=true":
            listing = [{"rfilename": name, "size": len(content)} for name, content in self.files.items()]
            self.send(json.dumps({"sha": COMMIT, "siblings": listing}).encode())
            return
        name = self.path.rpartition("/")[2]
        if name not in self.files or COMMIT not in self.path:
            self.send_error(404)
        elif name.endswith(".safetensors") and not self.path.startswith("/cdn/"):
            self.send_response(302)
            port = self.server.server_address[1]
            self.send_header("Location", f"http://localhost:{port}/cdn/{COMMIT}/{name}")
            self.send_header("Content-Length", "0")
            self.end_headers()
        else:
            self.send(self.files[name])

    def send(self, content: bytes) -> None:
        """Answer with the asked part."""
        asked = self.headers.get("Range") if self.ranges else None
        if asked:
            begin, end = (int(part) for part in asked[len("bytes=") :].split("-"))
            part = content[begin : end + 1]
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {begin}-{begin + len(part) - 1}/{len(content)}")
        else:
            part = content
            self.send_response(200)
        self.send_header("Content-Length", str(len(part)))
        self.end_headers()
        # A caller that has what it wants hangs up.
        with contextlib.suppress(OSError):
            self.wfile.write(part)

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        """Say nothing."""


@contextlib.contextmanager
def hub(
    files: dict[str, bytes], ranges: bool = True, refuse: list[int] | None = None
) -> Iterator[tuple[str, type[Hub]]]:
    """Serve a repository on this machine."""
    handler = type("Served", (Hub,), {"files": files, "requests": [], "refuse": refuse or [], "ranges": ranges})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}", handler
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def from_hub(url: str, token: str | None = None) -> Facts:
    """Describe the one repository without waiting between attempts."""
    return _model_facts.describe(_model_facts.list_repository("org/m", COMMIT, url, token, lambda _seconds: None))


def test_the_hub_with_an_index() -> None:
    """Two small files and the listing tell everything: no weight file is touched."""
    with hub({**TWO, "pytorch_model.bin": b"x", "original/consolidated.safetensors": b"x"}) as (url, handler):
        assert from_hub(url, "secret") == Facts(CONFIG, 4000, "index", True)
        assert [path.rpartition("/")[2] for path, _range, _token in handler.requests] == [
            f"{COMMIT}?blobs=true",
            "config.json",
            "model.safetensors.index.json",
        ]
        assert {token for _path, _range, token in handler.requests} == {"Bearer secret"}


@pytest.mark.parametrize("ranges", [True, False])
def test_the_hub_without_an_index(ranges: bool) -> None:
    """Headers come by ranges, also through a redirect, which the token does not follow."""
    with hub(ONE, ranges) as (url, handler):
        assert from_hub(url, "secret") == Facts(CONFIG, 4000, "headers", True)
        parts = [(asked, token) for path, asked, token in handler.requests if path.startswith("/cdn/")]
    length = int.from_bytes(ONE["model.safetensors"][:8], "little")
    assert parts == [("bytes=0-7", None), (f"bytes=8-{7 + length}", None)]


def test_the_hub_with_an_index_that_is_wrong() -> None:
    """Then each header is asked for."""
    with hub({**TWO, "model.safetensors.index.json": index(1, MAP)}) as (url, _handler):
        assert from_hub(url) == Facts(CONFIG, 4000, "headers", True)


def test_a_busy_hub_is_asked_again() -> None:
    """Faults that pass by themselves."""
    with hub(ONE) as (url, handler):
        listing = _model_facts.list_repository("org/m", COMMIT, url, None, lambda _seconds: None)
        handler.refuse.extend([429, 503])
        assert _model_facts.describe(listing).weights_bytes == 4000
        handler.refuse.extend([503, 503, 503])
        with pytest.raises(FactsError) as raised:
            listing.read("config.json", 0, 5)
    assert str(raised.value) == (
        f"{url}/org/m/resolve/{COMMIT}/config.json: the server answered 503 Service Unavailable"
    )


def test_a_hub_that_refuses() -> None:
    """The message names the variable; nothing is asked twice."""
    with hub(ONE) as (url, handler):
        listing = _model_facts.list_repository("org/m", COMMIT, url, None, lambda _seconds: None)
        handler.refuse.append(403)
        handler.requests.clear()
        with pytest.raises(FactsError) as raised:
            listing.read("config.json", 0, 5)
        assert str(raised.value) == (
            f"{url}/org/m/resolve/{COMMIT}/config.json: the server answered 403 Forbidden "
            "(model_store_huggingface_token)"
        )
        assert len(handler.requests) == 1


def test_a_hub_that_is_away() -> None:
    """The message names the variable."""
    with hub(ONE) as (url, _handler):
        listing = _model_facts.list_repository("org/m", COMMIT, url, None, lambda _seconds: None)
    with pytest.raises(FactsError) as raised:
        listing.read("config.json", 0, 5)
    assert str(raised.value).endswith("Connection refused (model_store_huggingface_endpoint)")


def test_a_hub_without_sizes(monkeypatch: pytest.MonkeyPatch) -> None:
    """A mirror that leaves out sizes cannot be planned from."""
    siblings = [{"rfilename": "config.json", "size": None}]
    monkeypatch.setattr(_model_facts._model_files.HuggingFaceSource, "files", lambda _self: siblings)
    with pytest.raises(FactsError) as raised:
        _model_facts.list_repository("org/m", COMMIT, "http://127.0.0.1:9")
    assert str(raised.value) == f"org/m at {COMMIT}: the hub lists config.json with the size None, wanted bytes"


def test_an_archive_behind_a_url(tmp_path: Path) -> None:
    """It is streamed whole, so its checksum is verified although it is not packed."""
    digest = tar(tmp_path / "m.tar", TWO)
    with hub({"m.tar": (tmp_path / "m.tar").read_bytes()}, ranges=False) as (url, _handler):
        listing = _model_facts.list_archive(f"{url}/cdn/{COMMIT}/m.tar", digest)
        assert _model_facts.describe(listing) == Facts(CONFIG, 4000, "index", True)
        with pytest.raises(FactsError, match=r"wanted 0{64} \(source\.archive\.sha256\); nothing of it was taken$"):
            _model_facts.list_archive(f"{url}/cdn/{COMMIT}/m.tar", "0" * 64)
        with pytest.raises(FactsError, match=r": the server answered 404 Not Found \(source\.archive\.url\)$"):
            _model_facts.list_archive(f"{url}/cdn/{COMMIT}/n.tar", digest)


# ------------------------------------------------------------------------------------------------------------- models


def test_models(tmp_path: Path) -> None:
    """What can be read is read; what cannot is named; what says everything itself is left alone."""
    good, bad = write(tmp_path / "good", ONE), str(tmp_path / "bad")
    outcome = _model_facts.describe_models(
        [
            {"name": "good", "source": {"path": good}, "context_length": 5},
            {"name": "bad", "source": {"path": bad}},
            {"name": "given", "source": {"path": bad}, "config": {}, "weights_bytes": 1},
            {"name": "half", "source": {"path": good}, "weights_bytes": 1},
        ],
        "http://127.0.0.1:9",
    )
    assert outcome.facts == {name: Facts(CONFIG, 4000, "headers", True) for name in ("good", "half")}
    assert outcome.failures == {
        "bad": f"model 'bad': the directory {bad} (source.path) can't be read on this host: No such file or directory"
    }


@pytest.mark.parametrize(
    ("models", "message"),
    [
        ([5], "fleet_models[0] has the name None, wanted a text"),
        ([{"name": ""}], "fleet_models[0] has the name '', wanted a text"),
        ([{"name": "m"}], "fleet_models[m].source is None, wanted path, archive or huggingface"),
        (
            [{"name": "m", "source": {}}],
            "fleet_models[m]: source has nothing, wanted exactly one of path, archive, huggingface",
        ),
        (
            [{"name": "m", "source": {"path": "/m"}}, {"name": "m", "source": {"path": "/m"}}],
            "fleet_models has two entries named 'm', wanted one entry per name",
        ),
    ],
)
def test_entries_that_are_none(models: list[Any], message: str) -> None:
    """The same as the plan finds, in one sentence."""
    with pytest.raises(InvalidInputError) as raised:
        _model_facts.describe_models(models, "http://127.0.0.1:9")
    assert str(raised.value) == message
