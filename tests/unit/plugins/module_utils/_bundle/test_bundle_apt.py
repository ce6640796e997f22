# SPDX-License-Identifier: Apache-2.0
"""What apt says it would download, and the index of a repository."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest

from ansible_collections.gpufleet.metal.plugins.module_utils._bundle import apt

A, B = "a" * 64, "b" * 64
#: As apt 2.6 and 3.0 wrote it on Debian 12 and 13, with another host.
SAID = f"""\
'http://deb.example.org/debian/g/libc6_2.36-9%2bdeb12u14_amd64.deb' libc6_2.36-9+deb12u14_amd64.deb 2759320 SHA256:{A}
'http://docker.example.org/linux/debian/x/docker-ce_5%3a29_amd64.deb' docker-ce_5%3a29_amd64.deb 52464 SHA256:{B}
"""
REPOSITORIES: list[dict[str, Any]] = [
    {
        "uri": "http://docker.example.org/linux/debian",
        "base": "docker",
        "suite": "bookworm",
        "components": ["stable"],
        "origin": "Docker",
    },
    {"uri": "", "base": "distribution/debian12", "suite": "/", "components": [], "origin": "gpufleet bundle"},
]


def test_files_have_name_size_and_digest() -> None:
    first, second = apt.parse_uris(SAID)
    assert (first.file, first.size, first.sha256) == ("libc6_2.36-9+deb12u14_amd64.deb", 2759320, A)
    assert apt.directory_of(apt.repository_of(first.uri, REPOSITORIES)) == "distribution/debian12"
    assert apt.directory_of(apt.repository_of(second.uri, REPOSITORIES)) == "docker/pool/bookworm"


def test_a_file_without_sha256_is_refused() -> None:
    with pytest.raises(apt.AptError) as caught:
        apt.parse_uris("'http://x/a.deb' a.deb 12 MD5Sum:d41d8cd98f00b204e9800998ecf8427e")
    assert str(caught.value).startswith("apt names a file without its SHA-256: ")


def test_one_name_with_two_contents_is_refused() -> None:
    one = apt.Deb("http://x/a.deb", "a.deb", 1, A)
    two = apt.Deb("http://y/a.deb", "a.deb", 1, B)
    assert apt.union([[one], [one]]) == {"a.deb": one}
    with pytest.raises(apt.AptError) as caught:
        apt.union([[one], [two]])
    assert str(caught.value) == (
        "http://x/a.deb and http://y/a.deb are two files of one name and version: remove one of the repositories"
    )


def test_a_colon_that_apt_quotes_is_the_same_address() -> None:
    repository = {"uri": "https://pkgs.k8s.io/core:/stable:/v1.36/deb/", "base": "kubernetes", "suite": "/"}
    uri = "https://pkgs.k8s.io/core%3a/stable%3a/v1.36/deb/amd64/kubeadm_1.36.4-1.1_amd64.deb"
    assert apt.repository_of(uri, [repository, *REPOSITORIES]) is repository


def test_a_local_file_is_where_it_is() -> None:
    repository = {"uri": "file:///srv/k/core:/deb/", "base": "kubernetes", "suite": "/"}
    uri = "file:/srv/k/core:/deb/./kubeadm_1.36.4-1.1_amd64.deb"
    assert apt.repository_of(uri, [repository, *REPOSITORIES]) is repository
    assert apt.local_path(uri) == "/srv/k/core:/deb/./kubeadm_1.36.4-1.1_amd64.deb"
    assert apt.local_path("http://deb.example.org/a.deb") is None


def test_a_flat_index_and_one_with_a_suite() -> None:
    entries = [("Package: b\n", "./b.deb", 2, B), ("Package: a\nVersion: 1\n\n", "./a.deb", 1, A)]
    text = apt.packages_index(entries)
    assert text == (
        f"Package: a\nVersion: 1\nFilename: ./a.deb\nSize: 1\nSHA256: {A}\n\n"
        f"Package: b\nFilename: ./b.deb\nSize: 2\nSHA256: {B}\n"
    )
    digest = hashlib.sha256(text.encode()).hexdigest()
    assert apt.index_paths(REPOSITORIES[0], "amd64") == ("docker/dists/bookworm", "stable/binary-amd64/Packages")
    assert apt.index_paths(REPOSITORIES[1], "amd64") == ("distribution/debian12", "Packages")
    assert apt.release(REPOSITORIES[0], "amd64", "stable/binary-amd64/Packages", text, 0) == (
        "Origin: Docker\nLabel: Docker\nSuite: bookworm\nCodename: bookworm\nDate: Thu, 01 Jan 1970 00:00:00 GMT\n"
        f"Architectures: amd64 all\nComponents: stable\nSHA256:\n {digest} {len(text)} stable/binary-amd64/Packages\n"
    )
    assert apt.release(REPOSITORIES[1], "amd64", "Packages", text, 0) == (
        "Origin: gpufleet bundle\nLabel: gpufleet bundle\nDate: Thu, 01 Jan 1970 00:00:00 GMT\n"
        f"Architectures: amd64 all\nSHA256:\n {digest} {len(text)} Packages\n"
    )
