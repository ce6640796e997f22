# SPDX-License-Identifier: Apache-2.0
"""What a builder runs, what it takes for whole, and how it goes on."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.gpufleet.metal.plugins.module_utils._bundle import apt, builder, registry
from ansible_collections.gpufleet.metal.plugins.module_utils._bundle.document import BundleError

MANIFEST = b"a manifest, of whatever type"
HEX = hashlib.sha256(MANIFEST).hexdigest()
DIGEST = f"sha256:{HEX}"
ENTRY: dict[str, Any] = {
    "names": ["example.org/a:1"],
    "digest": DIGEST,
    "source": "own.example/a",
    "place": f"images/{HEX}",
    "signed": True,
}


class Programs:
    """Stands for the programs: notes what is run and lets a test decide what happens."""

    def __init__(self, act: Callable[[list[str]], tuple[int, str, str]]) -> None:
        self.calls: list[list[str]] = []
        self._act = act

    def __call__(self, argv: Sequence[str], _stdin: str | None = None) -> tuple[int, str, str]:
        self.calls.append(list(argv))
        return self._act(list(argv))


def put_manifest(path: Path, content: bytes) -> None:
    """Write what skopeo's format has of an image beside its layers. Skopeo makes one directory, and none above it."""
    path.mkdir()
    (path / "manifest.json").write_bytes(content)


def skopeo(argv: list[str]) -> tuple[int, str, str]:
    """Copy as skopeo does, but for the content."""
    path = Path(argv[-1].removeprefix("dir:"))
    put_manifest(path, MANIFEST if path.name == "image" else b"a signature")
    return 0, "", ""


def test_an_image_has_its_place_when_it_is_whole(tmp_path: Path) -> None:
    programs = Programs(skopeo)
    images = builder.Images(programs, str(tmp_path))
    assert images.lacking([ENTRY]) == [ENTRY]
    images.fetch(ENTRY)
    part = f"{tmp_path}/{ENTRY['place']}.part"
    assert programs.calls == [
        [
            "skopeo",
            "copy",
            "--quiet",
            "--all",
            "--preserve-digests",
            f"docker://own.example/a@{DIGEST}",
            f"dir:{part}/image",
        ],
        [
            "skopeo",
            "copy",
            "--quiet",
            "--all",
            "--preserve-digests",
            f"docker://own.example/a:sha256-{HEX}.sig",
            f"dir:{part}/signature",
        ],
    ]
    assert images.lacking([ENTRY]) == []
    assert images.strays([ENTRY]) == []
    # What a killed build left, and what nobody wants any more.
    Path(part).mkdir()
    (tmp_path / "images/none").mkdir()
    assert {Path(path).name for path in images.strays([ENTRY])} == {f"{HEX}.part", "none"}


@pytest.mark.parametrize("part", ["image", "signature"])
def test_an_image_that_is_half_there_is_fetched_again(tmp_path: Path, part: str) -> None:
    images = builder.Images(Programs(skopeo), str(tmp_path))
    images.fetch(ENTRY)
    (tmp_path / ENTRY["place"] / part / "manifest.json").unlink()
    assert images.lacking([ENTRY]) == [ENTRY]
    assert bool(images.lacking([{**ENTRY, "signed": False}])) == (part == "image")
    images.fetch(ENTRY)
    assert images.lacking([ENTRY]) == []
    (tmp_path / ENTRY["place"] / "image/manifest.json").write_bytes(b"another")
    assert images.lacking([ENTRY]) == [ENTRY]


def test_an_image_that_comes_with_another_digest_has_no_place(tmp_path: Path) -> None:
    def other(argv: list[str]) -> tuple[int, str, str]:
        put_manifest(Path(argv[-1].removeprefix("dir:")), b"another")
        return 0, "", ""

    images = builder.Images(Programs(other), str(tmp_path))
    with pytest.raises(BundleError) as caught:
        images.fetch({**ENTRY, "signed": False})
    found = hashlib.sha256(b"another").hexdigest()
    assert str(caught.value) == f"the image example.org/a:1 came with the digest sha256:{found}, wanted {DIGEST}"
    assert images.lacking([ENTRY]) == [ENTRY]


def test_skopeo_s_own_words_are_told(tmp_path: Path) -> None:
    images = builder.Images(Programs(lambda _argv: (1, "", "FATA manifest unknown\n")), str(tmp_path))
    with pytest.raises(BundleError) as caught:
        images.fetch(ENTRY)
    assert str(caught.value) == (
        f"the image example.org/a:1 cannot be copied from docker://own.example/a@{DIGEST}: FATA manifest unknown"
    )


def test_a_signature_that_is_not_the_key_s_stops(tmp_path: Path) -> None:
    key = tmp_path / "cosign.pub"
    programs = Programs(
        lambda argv: (0, "", "") if argv[1] == "version" else (10, "", "Error: no matching signatures\n")
    )
    cosign = builder.Cosign(programs, "cosign", str(key))
    with pytest.raises(BundleError) as caught:
        cosign.require()
    assert (
        str(caught.value)
        == f"{key} does not exist, wanted the public key that signatures are checked with (cosign_key)"
    )
    key.write_text("key")
    cosign.require()
    with pytest.raises(BundleError) as caught:
        cosign.verify(f"own.example/a@{DIGEST}", "example.org/a:1")
    assert (
        str(caught.value) == f"the image example.org/a:1 has no valid signature of {key}: Error: no matching signatures"
    )
    assert programs.calls[-1] == [
        "cosign",
        "verify",
        "--key",
        str(key),
        "--insecure-ignore-tlog=true",
        "--output",
        "json",
        f"own.example/a@{DIGEST}",
    ]


def deb(name: str, content: bytes) -> apt.Deb:
    """A package's file upstream."""
    return apt.Deb(f"http://deb.example.org/{name}", name, len(content), hashlib.sha256(content).hexdigest())


REPOSITORIES = [
    {"uri": "", "base": "distribution/debian13", "suite": "/", "components": [], "origin": "x", "key": "k.asc"}
]


def test_packages_that_are_there_are_not_fetched_again_and_wrong_ones_are(tmp_path: Path) -> None:
    wanted = deb("a_1_all.deb", b"right")

    def apt_get(argv: list[str]) -> tuple[int, str, str]:
        if "--print-uris" in argv:
            return 0, f"'{wanted.uri}' {wanted.file} {wanted.size} SHA256:{wanted.sha256}\n", ""
        archives = next(word for word in argv if word.startswith("Dir::Cache::archives=")).partition("=")[2]
        (Path(archives) / wanted.file).write_bytes(b"right")
        return 0, "", ""

    packages = builder.Packages(Programs(apt_get), str(tmp_path / "bundle"), str(tmp_path / "work"))
    sets = [{"name": "tools", "packages": ["a"]}]
    targets = packages.targets(apt.union(packages.resolve(sets)).values(), REPOSITORIES)
    place = tmp_path / "bundle/packages/distribution/debian13/a_1_all.deb"
    assert packages.missing(targets) == [str(place)]
    packages.fetch(sets, targets)
    assert packages.missing(targets) == []
    place.write_bytes(b"wrong")
    assert packages.missing(targets) == [str(place)]
    packages.fetch(sets, targets)
    assert place.read_bytes() == b"right"
    (place.parent / "old_1_all.deb").write_bytes(b"")
    (place.parent / "a_1_all.deb.part").write_bytes(b"")
    assert [Path(path).name for path in packages.strays(targets, REPOSITORIES, "debian13")] == [
        "a_1_all.deb.part",
        "old_1_all.deb",
    ]
    assert packages.strays(targets, REPOSITORIES, "debian12") == []


def test_packages_that_cannot_be_had_name_what_they_are_for(tmp_path: Path) -> None:
    packages = builder.Packages(
        Programs(lambda _argv: (100, "", "E: Unable to locate package x\n")), str(tmp_path), str(tmp_path / "w")
    )
    with pytest.raises(BundleError) as caught:
        packages.resolve([{"name": "gateway", "packages": ["x"]}])
    assert str(caught.value) == (
        "the packages for 'gateway' cannot be had together: "
        "apt-get --print-uris install x: E: Unable to locate package x"
    )


def test_what_apt_brings_is_compared(tmp_path: Path) -> None:
    packages = builder.Packages(Programs(lambda _argv: (0, "", "")), str(tmp_path / "b"), str(tmp_path / "w"))
    wanted = deb("a_1_all.deb", b"right")
    (tmp_path / "w/archives").mkdir(parents=True)
    came = tmp_path / "w/archives/a_1_all.deb"
    came.write_bytes(b"wrong")
    targets = packages.targets([wanted], REPOSITORIES)
    with pytest.raises(BundleError) as caught:
        packages.fetch([{"name": "x", "packages": ["a"]}], targets)
    assert str(caught.value) == f"{wanted.uri} did not come with the sha256 {wanted.sha256}; run the build again"
    assert not came.exists()
    assert packages.missing(targets)


def test_an_index_is_written_and_signed_once(tmp_path: Path) -> None:
    def act(argv: list[str]) -> tuple[int, str, str]:
        if argv[0] == "dpkg-deb":
            return 0, "Package: a\nVersion: 1\n", ""
        if "--list-secret-keys" in argv:
            return 0, "sec:u:3072\n", ""
        if "--export" in argv:
            return 0, "KEY\n", ""
        Path(argv[argv.index("--output") + 1]).write_text("signed")
        return 0, "", ""

    directory = tmp_path / "packages/distribution/debian13"
    directory.mkdir(parents=True)
    (directory / "a_1_all.deb").write_bytes(b"a")
    programs = Programs(act)
    repositories = builder.Repositories(programs, str(tmp_path), str(tmp_path / "w"), clock=lambda: 0)
    key = repositories.key()
    assert repositories.index(REPOSITORIES[0], "amd64", key)
    assert (directory / "InRelease").read_text() == "signed"
    assert (directory / "Packages").read_text().startswith("Package: a\nVersion: 1\nFilename: ./a_1_all.deb\nSize: 1\n")
    assert (tmp_path / "packages/k.asc").read_text() == "KEY\n"
    before = len(programs.calls)
    assert not repositories.index(REPOSITORIES[0], "amd64", key)
    assert len(programs.calls) == before
    # A build that was killed between the index and its signature.
    (directory / "InRelease").unlink()
    assert repositories.index(REPOSITORIES[0], "amd64", key)


def test_images_without_a_signature_have_to_be_named() -> None:
    unsigned = {"names": ["example.org/a:1", "example.org/b:1"], "signed": False}
    assert registry.unsigned([ENTRY, unsigned], []) == ["example.org/a:1", "example.org/b:1"]
    assert registry.unsigned([unsigned], ["example.org/a"]) == ["example.org/b:1"]
    assert registry.unsigned([unsigned], ["example.org/a", "example.org/b:1"]) == []
