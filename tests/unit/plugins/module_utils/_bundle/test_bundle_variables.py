# SPDX-License-Identifier: Apache-2.0
"""The variables with which every role takes what it needs from a bundle's server."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from ansible_collections.gpufleet.metal.plugins.module_utils._bundle import needs, variables
from ansible_collections.gpufleet.metal.plugins.module_utils._kubernetes import containerd

ROLES = Path(__file__).parents[5] / "roles"
A, B = f"sha256:{'a' * 64}", f"sha256:{'b' * 64}"
KEY = "c" * 64
CA = "-----BEGIN CERTIFICATE-----\nAA==\n-----END CERTIFICATE-----\n"


def document(*repositories: str, kubernetes: str | None = None) -> dict[str, Any]:
    """What is in a bundle.json."""
    return {
        "key_sha256": KEY,
        "systems": {"debian13": "amd64"},
        "repositories": [{"name": name} for name in (*repositories, "distribution")],
        "images": [
            {"names": ["docker.io/vllm/vllm-openai:v1"], "digest": A},
            {
                "names": ["ghcr.io/f/flannel:v1", "ghcr.io/f/flannel-cni-plugin:v1", "example.org/policies:1"],
                "digest": B,
            },
        ],
        "settings": {
            **needs.SETTINGS,
            "flannel_images": {name: f"ghcr.io/f/{name}:v1" for name in needs.FLANNEL_IMAGES},
            "kubernetes_serving_network_policies_image": f"example.org/policies:1@{B}",
        },
        "engine_image": "vllm/vllm-openai:v1",
        "kubernetes_version": kubernetes,
    }


def test_repositories_of_vendors_are_mirrors_on_the_server() -> None:
    found = variables.bundle_variables(
        document("docker", "nginx", "nvidia-cuda"), "http://b.example/", "b.example:443", CA
    )
    assert found == {
        "bundle_url": "http://b.example",
        "bundle_key_sha256": KEY,
        "bundle_systems": ["debian13"],
        "bundle_image_names": {
            "docker.io/vllm/vllm-openai:v1": f"b.example:443/docker.io/vllm/vllm-openai:v1@{A}",
            "ghcr.io/f/flannel:v1": f"b.example:443/ghcr.io/f/flannel:v1@{B}",
            "ghcr.io/f/flannel-cni-plugin:v1": f"b.example:443/ghcr.io/f/flannel-cni-plugin:v1@{B}",
            "example.org/policies:1": f"b.example:443/example.org/policies:1@{B}",
        },
        "docker_repository": "http://b.example/packages/docker",
        "docker_repository_key_sha256": KEY,
        "docker_repository_key_url": None,
        "docker_nvidia_repository": "distribution",
        "kubernetes_repository": "distribution",
        "nginx_repository": "http://b.example/packages/nginx",
        "nginx_repository_key_sha256": KEY,
        "nginx_repository_key_url": "http://b.example/packages/nginx/nginx_signing.key",
        "nvidia_driver_repository": "http://b.example/packages/nvidia",
        "nvidia_driver_repository_key_sha256": KEY,
        "nvidia_driver_repository_key_url": None,
        "vllm_image": {"reference": f"b.example:443/docker.io/vllm/vllm-openai:v1@{A}"},
        "docker_registry_ca_certificates": {"b.example:443": CA},
    }


def test_a_cluster_finds_every_registry_on_the_server() -> None:
    found = variables.bundle_variables(
        document("kubernetes", kubernetes="1.36.4"), "http://b.example", "b.example:443", CA
    )
    assert found["kubernetes_image_repository"] == "b.example:443/registry.k8s.io"
    assert [(entry["registry"], entry["url"]) for entry in found["kubernetes_registries"]] == [
        ("b.example:443", "https://b.example:443"),
        ("docker.io", "https://b.example:443/v2/docker.io"),
        ("example.org", "https://b.example:443/v2/example.org"),
        ("ghcr.io", "https://b.example:443/v2/ghcr.io"),
    ]
    assert found["flannel_manifest_url"] == "http://b.example/files/kube-flannel.yml"
    assert found["flannel_images"]["flannel"] == f"b.example:443/ghcr.io/f/flannel:v1@{B}"
    assert found["kubernetes_serving_network_policies_image"] == f"b.example:443/example.org/policies:1@{B}"
    assert "kubernetes_serving_device_plugin_image" not in found
    # containerd's files can be written from it.
    assert len(containerd.registry_files(found["kubernetes_registries"])) == 2 + 3 * 4


def test_every_variable_is_a_role_s_own_or_the_bundle_s() -> None:
    names: set[str] = set()
    for defaults in ROLES.glob("*/defaults/main.yml"):
        names |= set(yaml.safe_load(defaults.read_text(encoding="utf-8")))
    found = variables.bundle_variables(
        document("docker", "nginx", "nvidia-cuda", "nvidia-container-toolkit", "kubernetes", kubernetes="1.36.4"),
        "http://b",
        "b:1",
        CA,
    )
    assert {name for name in found if not name.startswith("bundle_")} <= names
