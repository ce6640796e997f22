# SPDX-License-Identifier: Apache-2.0
"""What images are called outside and inside."""

from __future__ import annotations

import pytest

from ansible_collections.gpufleet.metal.plugins.module_utils._bundle import images
from ansible_collections.gpufleet.metal.plugins.module_utils._errors import InvalidInputError

DIGEST = f"sha256:{'a' * 64}"


@pytest.mark.parametrize(
    ("reference", "repository", "tag", "digest"),
    [
        ("nginx", "docker.io/library/nginx", None, None),
        ("vllm/vllm-openai:v0.32.0", "docker.io/vllm/vllm-openai", "v0.32.0", None),
        (f"docker.io/vllm/vllm-openai:v1@{DIGEST}", "docker.io/vllm/vllm-openai", "v1", DIGEST),
        ("docker.io/nginx:1", "docker.io/library/nginx", "1", None),
        ("registry.k8s.io/coredns/coredns:v1.13.1", "registry.k8s.io/coredns/coredns", "v1.13.1", None),
        (f"192.0.2.1:5000/a/b@{DIGEST}", "192.0.2.1:5000/a/b", None, DIGEST),
    ],
)
def test_a_reference_has_one_whole_name(reference: str, repository: str, tag: str | None, digest: str | None) -> None:
    assert images.whole_name(reference) == images.Name(repository, tag, digest)


@pytest.mark.parametrize(
    ("repository", "sources", "source"),
    [
        ("registry.k8s.io/pause", {}, "registry.k8s.io/pause"),
        ("registry.k8s.io/pause", {"registry.k8s.io": "own.example/k8s"}, "own.example/k8s/pause"),
        (
            "registry.k8s.io/pause",
            {"registry.k8s.io": "a.example", "registry.k8s.io/pause": "b.example/p"},
            "b.example/p",
        ),
        ("registry.k8s.iox/pause", {"registry.k8s.io": "own.example"}, "registry.k8s.iox/pause"),
    ],
)
def test_the_longest_beginning_says_where_an_image_comes_from(
    repository: str, sources: dict[str, str], source: str
) -> None:
    assert images.source_of(repository, sources) == source


def test_names_inside_and_places() -> None:
    assert images.inside("docker.io/vllm/vllm-openai") == "docker.io/vllm/vllm-openai"
    assert images.inside("own.example:5000/team/a") == "own.example-5000/team/a"
    assert images.place(DIGEST) == f"images/{'a' * 64}"
    assert images.signature_tag(DIGEST) == f"sha256-{'a' * 64}.sig"
    assert images.known_registries(["b.example/x", "a.example/y", "b.example/z"]) == ["a.example", "b.example"]


def test_a_wrong_digest_is_named() -> None:
    with pytest.raises(InvalidInputError) as caught:
        images.require_digest("sha256:abc", "the digest of pause (bundle_image_digests)")
    assert (
        str(caught.value)
        == "the digest of pause (bundle_image_digests) is 'sha256:abc', wanted sha256: and 64 hex digits"
    )
