# SPDX-License-Identifier: Apache-2.0
"""The module on a directory that stands for /etc/apt."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.gpufleet.metal.plugins.module_utils._errors import FleetError
from ansible_collections.gpufleet.metal.plugins.modules import apt_source

ARMOURED = b"-----BEGIN PGP PUBLIC KEY BLOCK-----\n...\n"
BINARY = b"\x99\x02\x0d"


def options(tmp_path: Path, key: bytes = ARMOURED, **changed: Any) -> dict[str, Any]:
    """Options for a repository whose key lies in a file."""
    (tmp_path / "key").write_bytes(key)
    return {
        "name": "docker",
        "uri": "https://download.docker.com/linux/debian",
        "suite": "trixie",
        "components": ["stable"],
        "key_url": f"file://{tmp_path}/key",
        "key_sha256": hashlib.sha256(key).hexdigest(),
        "root": str(tmp_path / "apt"),
        **changed,
    }


@pytest.mark.parametrize(("key", "suffix"), [(ARMOURED, "asc"), (BINARY, "gpg")])
def test_the_files(tmp_path: Path, key: bytes, suffix: str) -> None:
    wish = options(tmp_path, key)
    foreign = tmp_path / "apt/sources.list.d/docker.list"
    foreign.parent.mkdir(parents=True)
    foreign.write_text("deb [signed-by=/x] https://download.docker.com/linux/debian trixie stable\n")
    assert apt_source.run(wish, check_mode=True)["changed"]
    assert not (tmp_path / "apt/keyrings").exists()
    result = apt_source.run(wish, check_mode=False)
    own = tmp_path / "apt/sources.list.d/docker.sources"
    key_path = tmp_path / f"apt/keyrings/docker.{suffix}"
    assert result["changed_files"] == sorted(map(str, (key_path, foreign, own)))
    assert not foreign.exists()
    assert own.read_text().endswith(f"Signed-By: {key_path}\n")
    assert key_path.read_bytes() == key
    assert oct(key_path.stat().st_mode & 0o777) == oct(own.stat().st_mode & 0o777) == "0o644"
    assert apt_source.run(wish, check_mode=False) == {"changed": False, "changed_files": [], "diff": []}


def test_a_wrong_key_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    wish = options(tmp_path, key_sha256="0" * 64)
    with pytest.raises(FleetError) as raised:
        apt_source.run(wish, check_mode=False)
    found = hashlib.sha256(ARMOURED).hexdigest()
    assert str(raised.value) == f"file://{tmp_path}/key: its sha256 is {found}, wanted {'0' * 64}"
    assert not (tmp_path / "apt").exists()


def test_a_key_that_is_there_is_not_fetched_again(tmp_path: Path) -> None:
    wish = options(tmp_path, key_sha256=None)
    apt_source.run(wish, check_mode=False)
    (tmp_path / "key").unlink()
    assert not apt_source.run(wish, check_mode=False)["changed"]
