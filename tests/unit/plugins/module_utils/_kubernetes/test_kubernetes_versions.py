# SPDX-License-Identifier: Apache-2.0
"""The table of minors is whole, in order, and answers for what is asked."""

from __future__ import annotations

import datetime

import pytest

from ansible_collections.gpufleet.metal.plugins.module_utils._kubernetes import versions


def test_the_table_is_whole() -> None:
    """Oldest first, one after the other, each with a version of its own minor and a day that is one."""
    names = versions.supported_minors()
    numbers = [int(name.partition(".")[2]) for name in names]
    assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))
    ends = [datetime.date.fromisoformat(minor.supported_until) for minor in versions.MINORS]
    assert ends == sorted(ends)
    for minor in versions.MINORS:
        assert versions.minor_of(minor.default) == minor.name
        assert versions.find(minor.default) is minor
        assert versions.default_version(minor.name) == minor.default
        assert minor.notes.endswith(".")


def test_the_default_is_not_the_newest() -> None:
    """The tools around it are tested with the one before."""
    assert versions.supported_minors()[-2] == versions.DEFAULT_MINOR
    assert versions.default_version() == "1.36.4"


@pytest.mark.parametrize(("minor", "containerd"), [("1.35", (1, 6)), ("1.36", (2, 0)), ("1.37", (2, 0))])
def test_containerd(minor: str, containerd: tuple[int, int]) -> None:
    """1.35 is the last that takes containerd 1."""
    found = versions.find(f"{minor}.0")
    assert found is not None
    assert found.containerd == containerd


@pytest.mark.parametrize(
    ("version", "minor"),
    [
        ("1.36.4", "1.36"),
        ("1.5.12", "1.5"),
        ("1.36", None),
        ("v1.36.4", None),
        ("1.36.04", None),
        ("1.036.4", None),
        ("1.36.4-rc.1", None),
        ("1.36.4\n", None),
        ("2.0.0", None),
        ("", None),
    ],
)
def test_minor_of(version: str, minor: str | None) -> None:
    """Whole versions alone have a minor."""
    assert versions.minor_of(version) == minor


@pytest.mark.parametrize("version", ["1.34.9", "1.38.0", "1.36", "x"])
def test_what_is_not_supported(version: str) -> None:
    """It is not in the table, whatever it looks like."""
    assert versions.find(version) is None
