# SPDX-License-Identifier: Apache-2.0
"""A bundle is whole, or what is wrong is named."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.gpufleet.metal.plugins.module_utils import _download
from ansible_collections.gpufleet.metal.plugins.module_utils._bundle import builder, document

LAYER = b"a layer"
LAYER_SHA = hashlib.sha256(LAYER).hexdigest()
MANIFEST = b"a list of manifests"
HEX = hashlib.sha256(MANIFEST).hexdigest()
DESCRIBED: dict[str, Any] = {
    "images": [{"names": ["example.org/a:1", "example.org/b:1"], "digest": f"sha256:{HEX}", "place": f"images/{HEX}"}],
    "files": [{"name": "m.yml", "sha256": hashlib.sha256(b"manifest").hexdigest()}],
}
IMAGE = f"images/{HEX}/image"
BLOB = f"{IMAGE}/{LAYER_SHA}"


def write(directory: Path, path: str, content: bytes) -> None:
    """Write a file with its directories."""
    (directory / path).parent.mkdir(parents=True, exist_ok=True)
    (directory / path).write_bytes(content)


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """A whole bundle."""
    write(tmp_path, BLOB, LAYER)
    write(tmp_path, f"{IMAGE}/{LAYER_SHA}.manifest.json", LAYER)
    write(tmp_path, f"{IMAGE}/manifest.json", MANIFEST)
    write(tmp_path, f"{IMAGE}/version", b"1.1")
    write(tmp_path, "files/m.yml", b"manifest")
    write(tmp_path, "packages/distribution/debian13/tree_1_amd64.deb", b"tree")
    assert builder.seal(str(tmp_path), DESCRIBED, check_mode=False)[0]
    return tmp_path


def test_a_whole_bundle_has_no_fault_and_is_sealed_once(bundle: Path) -> None:
    found = document.verify(str(bundle))
    assert found.faults == []
    assert found.document["format"] == 2
    assert found.document["bytes"] == 2 * len(LAYER) + len(MANIFEST) + len(b"1.1manifesttree")
    assert builder.seal(str(bundle), DESCRIBED, check_mode=False)[0] is False


def _flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[0] ^= 1
    path.write_bytes(bytes(content))


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (lambda at: _flip(at / BLOB), f"{BLOB} (example.org/a:1, example.org/b:1) has the sha256 "),
        (lambda at: (at / BLOB).unlink(), f"{BLOB} (example.org/a:1, example.org/b:1) is missing"),
        (
            lambda at: _flip(at / "packages/distribution/debian13/tree_1_amd64.deb"),
            "packages/distribution/debian13/tree_1_amd64.deb has",
        ),
        (lambda at: (at / "files/m.yml").unlink(), "files/m.yml is missing"),
        (lambda at: write(at, "files/more.yml", b""), "files/more.yml is not in SHA256SUMS"),
        (lambda at: (at / "bundle.json").unlink(), "bundle.json is missing"),
        (lambda at: write(at, "bundle.json", b"{}"), "bundle.json has the sha256 "),
        (lambda at: (at / "files/m.yml").write_bytes(b"man"), "files/m.yml has the sha256 "),
    ],
)
def test_what_is_wrong_is_named_and_nothing_else(bundle: Path, change: Callable[[Path], None], fault: str) -> None:
    seen = document.verify(str(bundle)).seen
    change(bundle)
    for known in (None, seen):
        found = document.verify(str(bundle), known)
        assert len(found.faults) == 1
        assert found.faults[0].startswith(fault)


def test_a_quick_look_reads_what_changed_alone(bundle: Path) -> None:
    seen = document.verify(str(bundle)).seen
    read: list[str] = []

    def noted(path: str) -> _download.Digest:
        read.append(path)
        return _download.hash_file(path)

    assert document.verify(str(bundle), seen, noted).faults == []
    assert read == []
    (bundle / "files/m.yml").touch()
    assert document.verify(str(bundle), seen, noted).faults == []
    assert read == [str(bundle / "files/m.yml")]


@pytest.mark.parametrize(
    ("sums", "message"),
    [
        ("x\n", "SHA256SUMS has 'x' as line 1, wanted a digest, two spaces and a path"),
        (f"{'a' * 64}  ../x\n", "SHA256SUMS names '../x' in line 1, wanted a path inside the bundle"),
        (f"{'a' * 64}  /etc/passwd\n", "SHA256SUMS names '/etc/passwd' in line 1, wanted a path inside the bundle"),
        (f"{'a' * 64}  a\n", "SHA256SUMS does not name bundle.json"),
    ],
)
def test_sums_that_cannot_be_are_refused(bundle: Path, sums: str, message: str) -> None:
    write(bundle, "SHA256SUMS", sums.encode())
    with pytest.raises(document.BundleError) as caught:
        document.verify(str(bundle))
    assert str(caught.value) == message


def test_a_bundle_whose_build_has_not_ended_is_not_whole(bundle: Path) -> None:
    assert document.unseal(str(bundle))
    with pytest.raises(document.BundleError) as caught:
        document.verify(str(bundle))
    assert "has no SHA256SUMS: the bundle is not whole" in str(caught.value)
    assert not document.unseal(str(bundle))


def test_a_link_is_refused(bundle: Path) -> None:
    (bundle / "files/link").symlink_to("/etc/passwd")
    with pytest.raises(document.BundleError) as caught:
        document.verify(str(bundle))
    assert str(caught.value) == "files/link is a link, wanted plain files only"


def test_another_format_is_refused(bundle: Path) -> None:
    text = json.dumps({"format": 1})
    sums = document.parse_sums((bundle / "SHA256SUMS").read_text())
    sums["bundle.json"] = hashlib.sha256(text.encode()).hexdigest()
    write(bundle, "bundle.json", text.encode())
    write(bundle, "SHA256SUMS", document.sums_text(sums).encode())
    with pytest.raises(document.BundleError) as caught:
        document.verify(str(bundle))
    assert str(caught.value) == (
        "bundle.json has the format 1, wanted 2: build the bundle with the collection that is installed here"
    )


def test_a_half_blob_or_a_missing_image_is_not_sealed(bundle: Path) -> None:
    for path, content in ((BLOB, LAYER), (f"{BLOB}.manifest.json", LAYER), (f"{IMAGE}/manifest.json", MANIFEST)):
        write(bundle, path, content[:3])
        with pytest.raises(document.BundleError) as caught:
            builder.seal(str(bundle), DESCRIBED, check_mode=False)
        assert str(caught.value).startswith(f"{path} has the sha256 ")
        write(bundle, path, content)
    (bundle / IMAGE / "manifest.json").unlink()
    (bundle / "files/m.yml").unlink()
    with pytest.raises(document.BundleError) as caught:
        builder.seal(str(bundle), DESCRIBED, check_mode=False)
    assert str(caught.value) == (
        f"the image example.org/a:1 is not in images/{HEX}; "
        f"files/m.yml is not there with the sha256 {DESCRIBED['files'][0]['sha256']}"
    )


def test_many_faults_are_told_shortly() -> None:
    assert document.told([f"f{number}" for number in range(22)]).endswith("f19; and 2 more")
    assert document.told(["a", "b"]) == "a; b"
