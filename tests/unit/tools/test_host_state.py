# SPDX-License-Identifier: Apache-2.0
"""What proves that check mode writes nothing sees every kind of writing."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from ansible_collections.gpufleet.metal.molecule.resources import host_state


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Return a directory with files that are older than what is noted."""
    place = tmp_path / "etc"
    (place / "app" / "deep").mkdir(parents=True)
    (place / "app" / "a.conf").write_text("a", encoding="utf-8")
    (place / "app" / "deep" / "b.conf").write_text("b", encoding="utf-8")
    (place / "link").symlink_to("app/a.conf")
    return place


def rewrite_with_old_times(root: Path) -> None:
    path = root / "app" / "a.conf"
    before = path.stat()
    path.write_text("A", encoding="utf-8")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


@pytest.mark.parametrize(
    ("write", "written"),
    [
        (lambda root: None, []),
        (rewrite_with_old_times, ["app/a.conf"]),
        (lambda root: (root / "app" / "a.conf").chmod(0o600), ["app/a.conf"]),
        (lambda root: (root / "app" / "deep" / "c.conf").write_text("c"), ["app/deep", "app/deep/c.conf"]),
        (lambda root: (root / "app" / "deep" / "b.conf").unlink(), ["app/deep"]),
        (lambda root: (root / "app" / "deep").rename(root / "app" / "d"), ["app", "app/d"]),
        (lambda root: (root / "cache" / "x").mkdir(parents=True), [""]),
    ],
)
def test_writing_is_seen(
    root: Path,
    write: Callable[[Path], object],
    written: list[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(host_state, "TICK_NS", 0)
    state = str(tmp_path / "state.json")
    since = max(path.lstat().st_ctime_ns for path in [root, *root.rglob("*")])
    monkeypatch.setattr(host_state.time, "time_ns", lambda: since)
    assert host_state.main(["note", state, "--files-only"]) == 0
    while (tmp_path / "state.json").stat().st_ctime_ns <= since:
        os.utime(state)
    write(root)
    status = host_state.main(["compare", state, str(root), "--files-only", "--except", f"{root}/cache"])
    lines = capsys.readouterr().out.splitlines()
    assert [line.removeprefix(f"written: {root}").removeprefix("/") for line in lines if line] == written
    assert status == (1 if written else 0)


def test_a_root_that_is_not_there_holds_nothing(tmp_path: Path) -> None:
    assert list(host_state.changed_below(str(tmp_path / "none"), 0, [])) == []


@pytest.mark.parametrize(
    ("after", "lines"),
    [
        ({"a.service": "active since 1", "b.service (file)": "enabled"}, []),
        (
            {"a.service": "active since 2", "c.service": "active since 2"},
            [
                "unit a.service: active since 1 -> active since 2",
                "unit b.service (file): enabled -> absent",
                "unit c.service: absent -> active since 2",
            ],
        ),
    ],
)
def test_units_that_differ(after: dict[str, str], lines: list[str]) -> None:
    before = {"a.service": "active since 1", "b.service (file)": "enabled"}
    assert list(host_state.differences(before, after)) == lines
