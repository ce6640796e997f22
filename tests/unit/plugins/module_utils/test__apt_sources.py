# SPDX-License-Identifier: Apache-2.0
"""One entry for a URL, whatever somebody else wrote before."""

from __future__ import annotations

import pytest

from ansible_collections.gpufleet.metal.plugins.module_utils import _apt_sources
from ansible_collections.gpufleet.metal.plugins.module_utils._errors import InvalidInputError

DOCKER = _apt_sources.Repository("docker", "https://download.docker.com/linux/debian", "trixie", ("stable",))
OWN = "/etc/apt/sources.list.d/docker.sources"
KEY = "/etc/apt/keyrings/docker.asc"
WANTED = """\
# Managed by Ansible (gpufleet.metal).
Types: deb
URIs: https://download.docker.com/linux/debian
Suites: trixie
Components: stable
Signed-By: /etc/apt/keyrings/docker.asc
"""
DEBIAN = "Types: deb\nURIs: http://deb.debian.org/debian\nSuites: trixie\nComponents: main\n"
LIST = "/etc/apt/sources.list.d/docker.list"
LINE = "deb [arch=amd64 signed-by=/usr/share/keyrings/d.gpg] https://download.docker.com/linux/debian/ trixie stable\n"


@pytest.mark.parametrize(
    ("files", "changes"),
    [
        ({}, {OWN: WANTED}),
        ({OWN: WANTED}, {}),
        ({OWN: WANTED.replace("trixie", "bookworm")}, {OWN: WANTED}),
        # Another tool's file for the same URL goes, with or without a slash at the end.
        ({OWN: WANTED, LIST: LINE}, {LIST: None}),
        ({OWN: WANTED, LIST: f"# by hand\n{LINE}deb-src {LINE[4:]}"}, {LIST: None}),
        ({OWN: WANTED, LIST: f"{LINE}deb http://x.example.org/ a b\n"}, {LIST: "deb http://x.example.org/ a b\n"}),
        # A line that is switched off, and another distribution's directory, are nobody's conflict.
        ({OWN: WANTED, LIST: f"# {LINE}"}, {}),
        ({OWN: WANTED, LIST: LINE.replace("debian/", "ubuntu")}, {}),
        # sources.list itself is kept, even empty.
        ({OWN: WANTED, "/etc/apt/sources.list": LINE}, {"/etc/apt/sources.list": ""}),
        # deb822: the stanza goes, its neighbours stay.
        (
            {OWN: WANTED, "/etc/apt/sources.list.d/all.sources": f"{DEBIAN}\n{WANTED}"},
            {"/etc/apt/sources.list.d/all.sources": DEBIAN},
        ),
        (
            {OWN: WANTED, "/etc/apt/sources.list.d/download_docker_com.sources": WANTED[39:]},
            {"/etc/apt/sources.list.d/download_docker_com.sources": None},
        ),
        (
            {
                OWN: WANTED,
                "/etc/apt/sources.list.d/two.sources": "Types: deb\nURIs: HTTPS://Download.Docker.com/linux/debian\n"
                " https://mirror.example.org/docker\nSuites: trixie\nComponents: stable\n",
            },
            {
                "/etc/apt/sources.list.d/two.sources": "Types: deb\nURIs: https://mirror.example.org/docker\n"
                "Suites: trixie\nComponents: stable\n"
            },
        ),
        ({OWN: WANTED, "/etc/apt/sources.list.d/debian.sources": DEBIAN}, {}),
    ],
)
def test_plan(files: dict[str, str], changes: dict[str, str | None]) -> None:
    assert _apt_sources.plan(files, DOCKER, OWN, KEY) == changes


def test_the_result_needs_no_further_change() -> None:
    files: dict[str, str] = {LIST: LINE, "/etc/apt/sources.list.d/all.sources": f"{DEBIAN}\n\n{WANTED}"}
    for path, content in _apt_sources.plan(files, DOCKER, OWN, KEY).items():
        if content is None:
            del files[path]
        else:
            files[path] = content
    assert _apt_sources.plan(files, DOCKER, OWN, KEY) == {}


def test_a_flat_repository() -> None:
    flat = _apt_sources.Repository("n", "https://nvidia.github.io/libnvidia-container/stable/deb/$(ARCH)", "/", ())
    assert _apt_sources.render(flat, KEY) == (
        "# Managed by Ansible (gpufleet.metal).\nTypes: deb\n"
        "URIs: https://nvidia.github.io/libnvidia-container/stable/deb/$(ARCH)\nSuites: /\n"
        "Signed-By: /etc/apt/keyrings/docker.asc\n"
    )


@pytest.mark.parametrize(
    ("suite", "components", "message"),
    [
        ("trixie", (), "repository 'n': components are none, wanted at least one"),
        ("/", ("main",), "repository 'n': components are main, wanted none, because the suite ends in '/'"),
    ],
)
def test_what_makes_no_repository(suite: str, components: tuple[str, ...], message: str) -> None:
    with pytest.raises(InvalidInputError) as raised:
        _apt_sources.render(_apt_sources.Repository("n", "http://x", suite, components), KEY)
    assert str(raised.value) == message
