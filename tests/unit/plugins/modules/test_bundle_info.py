# SPDX-License-Identifier: Apache-2.0
"""A bundle's signature, with the real openssl."""

from __future__ import annotations

import base64
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.gpufleet.metal.plugins.module_utils._bundle import builder, document
from ansible_collections.gpufleet.metal.plugins.modules import bundle_info


def run(argv: Sequence[str], _stdin: str | None = None) -> tuple[int, str, str]:
    """Run a program."""
    done = subprocess.run(list(argv), capture_output=True, text=True, check=False)
    return done.returncode, done.stdout, done.stderr


def pair(directory: Path, name: str) -> tuple[str, str]:
    """Make a key pair as cosign's: ECDSA on P-256."""
    private, public = directory / f"{name}.key", directory / f"{name}.pub"
    subprocess.run(["openssl", "ecparam", "-genkey", "-name", "prime256v1", "-noout", "-out", private], check=True)
    subprocess.run(["openssl", "ec", "-in", private, "-pubout", "-out", public], check=True, capture_output=True)
    return str(private), str(public)


@pytest.fixture
def options(tmp_path: Path) -> dict[str, Any]:
    """The module's options, for a signed bundle."""
    bundle = tmp_path / "bundle"
    (bundle / "files").mkdir(parents=True)
    (bundle / "files/a").write_text("a")
    builder.seal(str(bundle), {"images": [], "files": []}, check_mode=False)
    private, public = pair(tmp_path, "own")
    signed = subprocess.run(
        ["openssl", "dgst", "-sha256", "-sign", private, bundle / "SHA256SUMS"], check=True, capture_output=True
    )
    (bundle / "SHA256SUMS.sig").write_bytes(base64.b64encode(signed.stdout))
    return {
        "directory": str(bundle),
        "full": False,
        "key": public,
        "signature_required": True,
        "record": str(tmp_path / "record/seen.json"),
    }


@pytest.mark.parametrize("raw", [False, True])
def test_a_good_signature_in_either_form(options: dict[str, Any], raw: bool) -> None:
    path = Path(options["directory"]) / "SHA256SUMS.sig"
    if raw:
        path.write_bytes(base64.b64decode(path.read_bytes()))
    found = bundle_info.run(options, False, run)
    assert (found["faults"], found["signed"], found["changed"]) == ([], True, False)
    assert "contents" not in found["bundle"]
    assert Path(options["record"]).is_file()


def test_check_mode_notes_nothing(options: dict[str, Any]) -> None:
    assert bundle_info.run(options, True, run)["faults"] == []
    assert not Path(options["record"]).exists()


def test_another_key_or_other_sums_are_refused(options: dict[str, Any], tmp_path: Path) -> None:
    other = pair(tmp_path, "other")[1]
    with pytest.raises(document.BundleError) as caught:
        bundle_info.run({**options, "key": other}, False, run)
    assert f"SHA256SUMS.sig is no signature of SHA256SUMS by {other}" in str(caught.value)
    with (Path(options["directory"]) / "SHA256SUMS").open("a") as stream:
        stream.write(f"{'a' * 64}  files/b\n")
    with pytest.raises(document.BundleError):
        bundle_info.run(options, False, run)


def test_a_signature_that_is_not_there(options: dict[str, Any]) -> None:
    (Path(options["directory"]) / "SHA256SUMS.sig").unlink()
    assert bundle_info.run({**options, "signature_required": False}, False, run)["signed"] is False
    with pytest.raises(document.BundleError) as caught:
        bundle_info.run(options, False, run)
    assert str(caught.value).endswith("SHA256SUMS.sig does not exist, wanted a signature of SHA256SUMS")


def test_a_record_that_says_nothing_is_read_past(options: dict[str, Any]) -> None:
    Path(options["record"]).parent.mkdir()
    Path(options["record"]).write_text("{")
    assert bundle_info.run(options, False, run)["faults"] == []
