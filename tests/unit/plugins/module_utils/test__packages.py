# SPDX-License-Identifier: Apache-2.0
"""Which packages are missing, and what the package manager is asked for."""

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.gpufleet.metal.plugins.module_utils import _packages


def installed(**packages: str | list[str]) -> dict[str, list[dict[str, Any]]]:
    """Packages as package_facts writes them, of which only the version counts."""
    return {
        name.replace("_", "-"): [
            {"name": name, "version": version, "source": "apt"}
            for version in ([versions] if isinstance(versions, str) else versions)
        ]
        for name, versions in packages.items()
    }


@pytest.mark.parametrize(
    ("names", "found", "versions", "missing"),
    [
        ([], {}, {}, []),
        (["b", "a"], {}, {}, ["b", "a"]),
        (["b", "a"], installed(a="1"), {}, ["b"]),
        (["a"], installed(a="1"), {"a": None}, []),
        (["a"], installed(a="1"), {"a": ""}, []),
        (["a"], {"a": []}, {}, ["a"]),
        # A version is compared whole.
        (["a"], installed(a="1.20.0-1"), {"a": "1.20.0-1"}, []),
        (["a"], installed(a="1.20.0-10"), {"a": "1.20.0-1"}, ["a"]),
        (["a"], installed(a="11.20.0-1"), {"a": "1.20.0-1"}, ["a"]),
        (["a"], installed(a="1.2"), {"b": "1.3"}, []),
        # An asterisk is the one wildcard.
        (["docker-ce"], installed(docker_ce="5:29.4.1-1~debian.13~trixie"), {"docker-ce": "5:29.4.*"}, []),
        (["docker-ce"], installed(docker_ce="5:29.40.1-1"), {"docker-ce": "5:29.4.*"}, ["docker-ce"]),
        (["docker-ce"], installed(docker_ce="5:29x4.1"), {"docker-ce": "5:29.4.*"}, ["docker-ce"]),
        (["a"], installed(a="1.2+dfsg1"), {"a": "1.2+dfsg*"}, []),
        (["a"], installed(a="1.22"), {"a": "1.2?"}, ["a"]),
        (["a"], installed(a=""), {"a": "*"}, []),
        # One of several installed versions is enough.
        (["a"], installed(a=["1", "2"]), {"a": "2"}, []),
        (["a"], installed(a=["1", "2"]), {"a": "3"}, ["a"]),
        # YAML makes a number of a version that looks like one.
        (["a"], installed(a="1.5"), {"a": 1.5}, []),
    ],
)
def test_missing_packages(names: list[str], found: Any, versions: dict[str, Any], missing: list[str]) -> None:
    assert _packages.missing_packages(names, found, versions) == missing


@pytest.mark.parametrize(
    ("epoch", "release", "wanted", "missing"),
    [
        (3, "1.el9", "29.4.3", False),
        (3, "1.el9", "29.4.3-1.el9", False),
        (3, "1.el9", "3:29.4.3", False),
        (3, "1.el9", "3:29.4.3-1.el9", False),
        (3, "1.el9", "3:29.4.*", False),
        (3, "1.el9", "5:29.4.*", True),
        (3, "1.el9", "29.4.3-1", True),
        (3, "1.el9", "29.4.4*", True),
        # rpm's database says nothing about an epoch of 0.
        (None, "1", "29.4.3-1", False),
        (None, "1", "0:29.4.3-1", False),
        (None, "1", "1:29.4.3-1", True),
        (0, "1", "0:29.4.3", False),
    ],
)
def test_versions_of_rpm(epoch: int | None, release: str, wanted: str, missing: bool) -> None:
    found = {"a": [{"name": "a", "version": "29.4.3", "release": release, "epoch": epoch, "source": "rpm"}]}
    assert _packages.missing_packages(["a"], found, {"a": wanted}) == (["a"] if missing else [])


@pytest.mark.parametrize(
    ("names", "versions", "separator", "wanted"),
    [
        ([], {"a": "1"}, "=", []),
        (["b", "a"], {}, "=", ["b", "a"]),
        (["b", "a"], {"a": "5:29.4.*"}, "=", ["b", "a=5:29.4.*"]),
        (["b", "a"], {"a": "29.4.*"}, "-", ["b", "a-29.4.*"]),
        (["b", "a"], {"a": None, "b": ""}, "=", ["b", "a"]),
        (["a"], {"a": 1.5}, "=", ["a=1.5"]),
    ],
)
def test_packages_with_versions(names: list[str], versions: dict[str, Any], separator: str, wanted: list[str]) -> None:
    assert _packages.packages_with_versions(names, versions, separator) == wanted
