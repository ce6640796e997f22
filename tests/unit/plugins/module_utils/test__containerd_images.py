# SPDX-License-Identifier: Apache-2.0
"""An archive becomes the image that kubelet asks for, and stays; a half import counts for nothing."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

import pytest

from ansible_collections.gpufleet.metal.plugins.module_utils import _containerd_images, _images
from ansible_collections.gpufleet.metal.plugins.module_utils._docker import parse_reference

ID = "sha256:" + "1" * 64
OTHER_ID = "sha256:" + "2" * 64
CONTENT = b"an archive"
SHA256 = hashlib.sha256(CONTENT).hexdigest()
NAME = "docker.io/library/vllm:1"


class Ctr:
    """Keeps images as ctr does: digest and labels by name. An import brings ``brings``.

    It says so as ctr of containerd 1.6, or ``newer``: in a table that cuts names, unless it is told ``--local``.
    """

    def __init__(self, brings: dict[str, str], newer: bool = False) -> None:
        self.images: dict[str, tuple[str, str]] = {}
        self.brings = brings
        self.newer = newer
        self.calls: list[str] = []
        self.dies_before = ""

    def __call__(self, argv: Sequence[str], stdin: BinaryIO | None = None) -> tuple[int, str, str]:
        assert list(argv[:4]) == ["ctr", "--namespace", "k8s.io", "images"]
        word, *rest = argv[4:]
        if word == self.dies_before:
            raise KeyboardInterrupt
        if word == "list":
            lines = [
                f"{name} application/x {digest} 3.3 KiB linux/amd64,linux/arm64 {label}"
                for name, (digest, label) in self.images.items()
            ]
            return 0, "\n".join(["REF TYPE DIGEST SIZE PLATFORMS LABELS", *lines]), ""
        if rest == ["--help"]:
            assert word == "import"
            return 0, f"OPTIONS:\n{'   --local    Run import locally' if self.newer else ''}\n", ""
        self.calls.append(word)
        if word == "import":
            assert stdin is not None
            assert rest in (["-"], ["--local", "-"])
            assert self.newer or "--local" not in rest
            assert _containerd_images.command(["cat"], stdin) == (0, CONTENT.decode(), "")
            self.images.update({name: (digest, "-") for name, digest in self.brings.items()})
            table = self.newer and "--local" not in rest
            says = "{:40.40}\tsaved\t\napplication/x {}" if table else "unpacking {} ({})...done"
            return 0, "\n".join(says.format(name, digest) for name, digest in self.brings.items()), ""
        if word == "tag":
            assert rest[0] == "--force"
            self.images[rest[2]] = (self.images[rest[1]][0], "-")
            return 0, rest[2], ""
        assert word == "label"
        name, label = rest
        self.images[name] = (self.images[name][0], f"io.cri-containerd.image=managed,{label}")
        return 0, "", ""


@pytest.fixture(name="want")
def fixture_want(tmp_path: Path) -> _images.Wanted:
    """An archive on this host."""
    (tmp_path / "image.tar").write_bytes(CONTENT)
    return _images.wanted("vllm:1", f"file://{tmp_path}/image.tar", SHA256)


def ensure(ctr: Ctr, want: _images.Wanted, check_mode: bool = False) -> _images.Found:
    """Have the image in this containerd."""
    place = Path(str(want.archive).removeprefix("file://")).parent
    engine = _containerd_images.Containerd(want.reference, ctr, str(place))
    return _images.Store(engine, str(place / "records"), str(place / "dl"), str(place / "none")).ensure(
        want, check_mode
    )


@pytest.mark.parametrize("newer", [False, True])
def test_from_an_archive_once(want: _images.Wanted, newer: bool) -> None:
    ctr = Ctr({NAME: ID}, newer)
    assert ensure(ctr, want, check_mode=True) == _images.Found(None, "archive")
    assert ctr.calls == []
    assert ensure(ctr, want) == _images.Found(ID, "archive")
    assert ensure(ctr, want) == _images.Found(ID, "engine")
    assert ctr.calls == ["import", "label"]
    assert ctr.images == {NAME: (ID, "io.cri-containerd.image=managed,io.cri-containerd.pinned=pinned")}


@pytest.mark.parametrize(
    "images",
    [
        {},
        {NAME: (ID, "-")},
        {NAME: (ID, "io.cri-containerd.image=managed")},
        {NAME: (OTHER_ID, "io.cri-containerd.pinned=pinned")},
        {"docker.io/library/other:1": (ID, "io.cri-containerd.pinned=pinned")},
    ],
    ids=["removed", "no label", "no pin", "another image", "another name"],
)
def test_what_is_not_there_whole_is_brought_again(want: _images.Wanted, images: dict[str, tuple[str, str]]) -> None:
    ctr = Ctr({NAME: ID})
    ensure(ctr, want)
    ctr.images = images
    assert ensure(ctr, want) == _images.Found(ID, "archive")
    assert ctr.calls == ["import", "label"] * 2


def test_a_long_name_is_found_among_what_was_imported(tmp_path: Path) -> None:
    (tmp_path / "image.tar").write_bytes(CONTENT)
    want = _images.wanted("gpufleet-an-engine-with-a-long-name:0.32.0", f"file://{tmp_path}/image.tar", SHA256)
    ctr = Ctr({"docker.io/library/gpufleet-an-engine-with-a-long-name:0.32.0": ID}, newer=True)
    assert ensure(ctr, want) == _images.Found(ID, "archive")
    assert ensure(ctr, want) == _images.Found(ID, "engine")


@pytest.mark.parametrize("step", ["import", "tag", "label"])
def test_a_run_that_is_killed_is_continued(want: _images.Wanted, step: str) -> None:
    ctr = Ctr({"docker.io/library/built:7": ID})
    ctr.dies_before = step
    with pytest.raises(KeyboardInterrupt):
        ensure(ctr, want)
    ctr.dies_before = ""
    assert ensure(ctr, want) == _images.Found(ID, "archive")
    assert ensure(ctr, want) == _images.Found(ID, "engine")


def test_an_image_of_another_name_gets_the_one_that_pods_ask_for(want: _images.Wanted) -> None:
    ctr = Ctr({"registry.example.org/vllm:7": ID, "registry.example.org/vllm:latest": ID})
    assert ensure(ctr, want) == _images.Found(ID, "archive")
    assert ctr.calls == ["import", "tag", "label"]
    assert ctr.images[NAME][0] == ID


def test_several_images_without_the_wanted_one_are_named(want: _images.Wanted) -> None:
    with pytest.raises(_images.ImageError) as raised:
        ensure(Ctr({"docker.io/library/a:1": ID, "docker.io/library/b:1": OTHER_ID}), want)
    assert str(raised.value) == (
        f"the archive {want.archive} holds 0 images (docker.io/library/a:1, docker.io/library/b:1), none of them is "
        "vllm:1 (reference)"
    )


@pytest.mark.parametrize(
    ("reference", "name"),
    [
        ("vllm", "docker.io/library/vllm:latest"),
        ("vllm:1", "docker.io/library/vllm:1"),
        ("vllm/vllm-openai:v0.32.0", "docker.io/vllm/vllm-openai:v0.32.0"),
        ("docker.io/vllm/vllm-openai:v0.32.0", "docker.io/vllm/vllm-openai:v0.32.0"),
        ("registry.example.org:5000/a/b:1", "registry.example.org:5000/a/b:1"),
        ("localhost/vllm:1", "localhost/vllm:1"),
    ],
)
def test_the_name_that_kubelet_asks_for(reference: str, name: str) -> None:
    assert _containerd_images.full_name(parse_reference(reference)) == name


@pytest.mark.parametrize(
    ("socket", "absent"),
    [("/", False), ("/no/socket", True)],
)
def test_a_containerd_that_does_not_answer(socket: str, absent: bool) -> None:
    def run(argv: Sequence[str], stdin: BinaryIO | None = None) -> tuple[int, str, str]:
        return 1, "", "ctr: cannot access socket\n"

    with pytest.raises(_containerd_images.ContainerdError) as raised:
        _containerd_images.Containerd(parse_reference("vllm:1"), run, socket).ping()
    assert isinstance(raised.value, _containerd_images.ContainerdUnavailableError) is absent
    assert str(raised.value) == "ctr --namespace k8s.io images list ended with 1: ctr: cannot access socket"


def test_a_program_that_is_not_there() -> None:
    assert _containerd_images.command(["/no/ctr"]) == (127, "", "/no/ctr: No such file or directory")
