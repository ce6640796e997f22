# SPDX-License-Identifier: Apache-2.0
"""Which of a machine's apt repositories is Debian's, on machines as they are found."""

from __future__ import annotations

import pytest

from ansible_collections.gpufleet.metal.tools.sandbox import debian_mirror

FILES = {
    "/etc/apt/mirrors/debian.list": "# made by cloud-init\nhttps://cloud.example.org/debian\n\nhttps://b.example.org/debian\n",
    "/etc/apt/mirrors/debian-security.list": "https://cloud.example.org/debian-security\n",
    "/etc/apt/mirrors/empty.list": "\n# none\n",
}
DOCKER = "Types: deb\nURIs: https://docker.example.org/linux/debian\nSuites: bookworm\nComponents: stable\n"
NGINX = "deb [signed-by=/usr/share/keyrings/nginx.gpg] https://nginx.example.org/packages/debian bookworm nginx\n"
VENDOR = "deb https://vendor.example.org/debian bookworm main\n"
GRAFANA = "deb https://grafana.example.org/debian stable main\n"
IMAGE = """\
Types: deb
# a snapshot
URIs: http://image.example.org/debian
Suites: bookworm bookworm-updates
Components: main
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg

Types: deb
URIs: http://image.example.org/debian-security
Suites: bookworm-security
Components: main
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg
"""
CLOUD = """\
Types: deb deb-src
URIs: mirror+file:///etc/apt/mirrors/debian.list
Suites: trixie trixie-updates trixie-backports
Components: main

Types: deb deb-src
URIs: mirror+file:///etc/apt/mirrors/debian-security.list
Suites: trixie-security
Components: main
"""
UBUNTU = """\
Types: deb
URIs: http://ubuntu.example.org/ubuntu/
Suites: noble noble-updates noble-backports
Components: main restricted universe multiverse
Signed-By: /usr/share/keyrings/ubuntu-archive-keyring.gpg
"""
ONE_LINE = """\
#deb cdrom:[Debian GNU/Linux 12]/ bookworm main
deb [ arch=amd64 ] http://mirror.example.org/mirrors/debian/ bookworm main non-free-firmware # ours
deb-src http://src.example.org/debian bookworm main
deb http://mirror.example.org/mirrors/debian/ bookworm-updates main
deb http://mirror.example.org/security/ bookworm-security main
"""
TARGETS = """\
https://docker.example.org/linux/debian/|Docker|Docker CE|stable
https://vendor.example.org/debian/|Vendor|Vendor|main
http://told.example.org/d/|Debian|Debian Backports|main
http://told.example.org/d/|Debian|Debian|contrib
http://told.example.org/d/|Debian|Debian|main
http://told.example.org/s/|Debian|Debian-Security|main
"""


@pytest.mark.parametrize(
    ("targets", "sources", "chosen"),
    [
        ("", {}, ("", "")),
        (
            "",
            {"debian.sources": IMAGE},
            ("http://image.example.org/debian", "http://image.example.org/debian-security"),
        ),
        # Others that name Debian's releases, and come first.
        (
            "",
            {"a.sources": DOCKER, "b.list": NGINX, "c.list": VENDOR, "d.list": GRAFANA, "debian.sources": IMAGE},
            ("http://image.example.org/debian", "http://image.example.org/debian-security"),
        ),
        ("", {"a.sources": DOCKER, "b.list": NGINX, "d.list": GRAFANA}, ("", "")),
        ("", {"debian.sources": IMAGE.replace("Types: deb\n", "Types: deb\nEnabled: no\n")}, ("", "")),
        ("", {"debian.sources": IMAGE.replace("Types: deb\n", "Types: deb-src\n")}, ("", "")),
        (
            "",
            {"debian.sources": CLOUD},
            ("https://cloud.example.org/debian", "https://cloud.example.org/debian-security"),
        ),
        (
            "",
            {"debian.sources": CLOUD.replace("debian.list", "empty.list")},
            ("", "https://cloud.example.org/debian-security"),
        ),
        ("", {"ubuntu.sources": UBUNTU}, ("", "")),
        # A path that is not Debian's usual one: updates beside the release show it; nothing shows whose security/ is.
        ("", {"sources.list": ONE_LINE}, ("http://mirror.example.org/mirrors/debian", "")),
        (
            "",
            {"sources.list": "deb http://only.example.org/debian bookworm main\n"},
            ("http://only.example.org/debian", ""),
        ),
        ("", {"sources.list": "deb file:///srv/mirror/debian bookworm main\n"}, ("", "")),
        # What apt has downloaded knows better than the sources.
        (TARGETS, {"debian.sources": IMAGE}, ("http://told.example.org/d", "http://told.example.org/s")),
        ("mirror+file:/etc/apt/mirrors/debian.list|Debian|Debian|main\n", {}, ("https://cloud.example.org/debian", "")),
        # Before the first `apt-get update` there are targets without an origin.
        (
            "http://told.example.org/d/||||main\n",
            {"debian.sources": IMAGE.split("\n\n", maxsplit=1)[0]},
            ("http://image.example.org/debian", ""),
        ),
    ],
)
def test_choice(targets: str, sources: dict[str, str], chosen: tuple[str, str]) -> None:
    assert debian_mirror.choose(targets, sources, FILES.__getitem__) == chosen


def test_several_addresses_in_a_stanza() -> None:
    found = debian_mirror.repositories(
        {"a.sources": "Types: deb\nURIs: http://a.example.org\n http://b.example.org\nSuites: sid\n"}
    )
    assert [repository.uri for repository in found] == ["http://a.example.org", "http://b.example.org"]
