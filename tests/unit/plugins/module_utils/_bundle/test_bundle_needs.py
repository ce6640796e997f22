# SPDX-License-Identifier: Apache-2.0
"""What a fleet needs from outside, and what keeps its bundle from being built."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from ansible_collections.gpufleet.metal.plugins.module_utils._bundle import needs, packages
from ansible_collections.gpufleet.metal.plugins.module_utils._errors import InvalidInputError

ROLES = Path(__file__).parents[5] / "roles"
DIGEST = f"sha256:{'a' * 64}"
OTHER = f"sha256:{'b' * 64}"
TRIXIE = {"distribution": "Debian", "version": "13", "release": "trixie", "machine": "x86_64"}
BOOKWORM = {"distribution": "Debian", "version": "12", "release": "bookworm", "machine": "x86_64"}
NOBLE = {"distribution": "Ubuntu", "version": "24.04", "release": "noble", "machine": "aarch64"}


def role_vars(role: str, *names: str) -> dict[str, Any]:
    """Variables of a role, not templated."""
    found: dict[str, Any] = {}
    for name in names:
        found.update(yaml.safe_load((ROLES / role / f"{name}.yml").read_text(encoding="utf-8")))
    return found


DRIVER_ROWS = {
    name: [
        *role_vars("nvidia_driver", "vars/main")["__nvidia_driver_common_rows"],
        *role_vars("nvidia_driver", f"vars/{name}")["__nvidia_driver_rows"],
    ]
    for name in ("debian", "ubuntu")
}


def docker_host(**changes: Any) -> dict[str, Any]:
    """A GPU node of Docker."""
    return {
        "group": "gpu_nodes",
        "kubernetes": None,
        "accelerator": "cuda",
        "driver": {"branch": 580, "version": None, "kernel_module": "open", "components": [], "repository": "vendor"},
        "image": {"reference": f"vllm/vllm-openai:v0.32.0@{DIGEST}", "archive": None},
        "instances": ["one"],
        **changes,
    }


def cluster_host(role: str, virtual_address: str | None = None) -> dict[str, Any]:
    """A host of a cluster without GPUs."""
    group = "kube_control_plane" if role == "control_plane" else "kube_nodes"
    return {"group": group, "kubernetes": {"role": role, "version": "1.36.4", "virtual_address": virtual_address}}


def plan(**hosts: dict[str, Any]) -> dict[str, Any]:
    """A plan."""
    cluster = {"version": "1.36.4"} if any(host["kubernetes"] for host in hosts.values()) else None
    return {"fleet": "prod", "kubernetes": cluster, "hosts": hosts}


def asked(
    document: dict[str, Any],
    settings: dict[str, Any] | None = None,
    options: dict[str, Any] | None = None,
    systems: dict[str, Any] | None = None,
    kubeadm: list[str] | None = None,
) -> dict[str, Any]:
    """The needs, with one builder and one kernel unless said otherwise."""
    by_host = {host: settings or {} for host in document["hosts"]}
    whole = {"kernels": ["6.12.1-amd64"], **(options or {})}
    return needs.needs(document, by_host, whole, systems or {"b": TRIXIE}, DRIVER_ROWS, kubeadm)


def sets_of(found: dict[str, Any], builder: str = "b") -> dict[str, list[str]]:
    """Packages by what they are for."""
    return {entry["name"]: entry["packages"] for entry in found["systems"][builder]["sets"]}


def test_a_gpu_node_of_docker_needs_engine_toolkit_driver_and_image() -> None:
    found = asked(plan(gpu=docker_host()))
    assert found["findings"] == []
    sets = sets_of(found)
    assert sets["Docker"] == [
        *packages.ENGINE_VENDOR,
        "python3-requests",
        *(f"{name}=1.20.0-1" for name in packages.TOOLKIT),
    ]
    assert sets["driver 580 for 6.12.1-amd64"] == [
        "nvidia-open=580.*",
        "nvidia-persistenced=580.*",
        "nvidia-driver-pinning-580",
        "linux-headers-6.12.1-amd64",
    ]
    assert [entry["name"] for entry in found["systems"]["b"]["repositories"]] == [
        "docker",
        "nvidia-container-toolkit",
        "nvidia-cuda",
        "distribution",
    ]
    assert found["images"] == [
        {
            "digest": DIGEST,
            "names": ["docker.io/vllm/vllm-openai:v0.32.0"],
            "source": "docker.io/vllm/vllm-openai",
            "place": f"images/{'a' * 64}",
            "signed": False,
        }
    ]
    assert found["engine_image"] == f"vllm/vllm-openai:v0.32.0@{DIGEST}"
    assert found["kubernetes_version"] is None
    assert found["files"] == []


def test_an_image_that_travels_as_an_archive_is_not_asked_of_a_registry() -> None:
    image = {"reference": "vllm/vllm-openai:v0.32.0", "archive": "file:///srv/media/vllm.tar"}
    found = asked(plan(gpu=docker_host(image=image)))
    assert (found["images"], found["engine_image"], found["findings"]) == ([], None, [])


def test_a_cluster_needs_its_images_by_digest_and_each_that_has_none_is_named() -> None:
    document = plan(cp=cluster_host("control_plane", "192.0.2.9"), worker=cluster_host("node"))
    found = asked(document)
    assert [(entry["code"], entry["found"]) for entry in found["findings"]] == [
        *(
            (
                "bundle_image_without_digest",
                f"kubernetes_version 1.36.4 has registry.k8s.io/{name}:v1.36.4, without a digest",
            )
            for name in needs.KUBEADM_IMAGES
        ),
        ("bundle_image_missing", "flannel_images has no flannel"),
        ("bundle_image_missing", "flannel_images has no flannel-cni-plugin"),
        ("bundle_image_missing", "kubernetes_serving_network_policies_image is not set"),
    ]
    assert found["findings"][0]["fix"] == (
        "Give it there, or in bundle_image_digests under 'registry.k8s.io/kube-apiserver:v1.36.4'. "
        "`skopeo inspect --format '{{.Digest}}' docker://registry.k8s.io/kube-apiserver:v1.36.4` says it."
    )
    assert sets_of(found)["control plane"] == ["age", "openssh-client", "haproxy", "keepalived"]
    assert sets_of(found)["Kubernetes"][:2] == ["kubelet=1.36.4-*", "kubeadm=1.36.4-*"]
    assert [entry["name"] for entry in found["files"]] == ["kube-flannel.yml"]


def test_what_kubeadm_says_is_taken_and_an_image_has_all_of_its_names() -> None:
    document = plan(cp=cluster_host("control_plane"), worker=cluster_host("node"))
    said = ["registry.k8s.io/coredns/coredns:v1.14.2", "registry.k8s.io/pause:3.10.1"]
    settings = {
        "flannel_images": {name: f"ghcr.io/flannel-io/{name}:v1@{OTHER}" for name in needs.FLANNEL_IMAGES},
        "kubernetes_serving_network_policies_image": f"example.org/policies@{OTHER}",
    }
    options = {
        "image_digests": dict.fromkeys(said, DIGEST),
        "image_sources": {"registry.k8s.io": "own.example/k8s"},
        "signed": True,
        "unsigned_images": ["example.org/policies"],
    }
    found = asked(document, settings, options, kubeadm=said)
    assert found["findings"] == []
    by_digest = {entry["digest"]: entry for entry in found["images"]}
    assert by_digest[DIGEST]["names"] == [
        "registry.k8s.io/coredns/coredns:v1.14.2",
        "registry.k8s.io/coredns:v1.14.2",
        "registry.k8s.io/pause:3.10.1",
    ]
    assert by_digest[DIGEST]["source"] == "own.example/k8s/coredns/coredns"
    assert by_digest[DIGEST]["signed"]
    # One of its names may be without a signature, and it is one image.
    assert not by_digest[OTHER]["signed"]


@pytest.mark.parametrize(
    ("options", "code", "text"),
    [
        ({"kernels": []}, "bundle_kernels_missing", "bundle_kernels is empty"),
        ({"images": ["nginx:1"]}, "bundle_image_without_digest", "bundle_images has nginx:1, without a digest"),
        ({"files": {"a.yml": {"path": "/a"}}}, "bundle_file_without_digest", "bundle_files.a.yml has the sha256 ''"),
        (
            {"files": {"../a": {"path": "/a", "sha256": "1" * 64}}},
            "bundle_file_wrong",
            "bundle_files has '../a' with path, sha256",
        ),
        ({"files": {"a": {"sha256": "1" * 64}}}, "bundle_file_wrong", "bundle_files has 'a' with sha256"),
    ],
)
def test_a_wrong_option_is_a_finding(options: dict[str, Any], code: str, text: str) -> None:
    found = asked(plan(gpu=docker_host()), options=options)
    assert [(entry["code"], entry["found"]) for entry in found["findings"]] == [(code, text)]


def test_hosts_that_differ_need_two_bundles() -> None:
    document = plan(a=docker_host(), b=docker_host())
    settings = {"a": {}, "b": {"docker_repository": "distribution"}}
    found = needs.needs(document, settings, {"kernels": ["k"]}, {"x": TRIXIE}, DRIVER_ROWS)
    assert [(entry["code"], entry["found"]) for entry in found["findings"]] == [
        ("bundle_values_differ", "docker_repository is 'vendor' on a, 'distribution' on b")
    ]


def test_builders_of_one_release_or_of_an_unknown_one_are_findings() -> None:
    systems = {"a": TRIXIE, "b": TRIXIE, "c": {**TRIXIE, "distribution": "Rocky", "version": "9.6"}}
    found = asked(plan(gpu=docker_host()), systems=systems)
    assert [(entry["code"], entry["found"]) for entry in found["findings"]] == [
        ("bundle_system_twice", "the builders a and b are both debian13"),
        ("bundle_system_unsupported", "the builder c is rocky96"),
    ]


def test_a_mistyped_option_is_named() -> None:
    with pytest.raises(InvalidInputError) as caught:
        asked(plan(gpu=docker_host()), options={"image": []})
    assert str(caught.value) == "bundle_image is no option of a bundle (did you mean bundle_images?)"


def test_repositories_have_the_layout_that_the_roles_ask_a_mirror_for() -> None:
    document = plan(gpu=docker_host(), gw={"group": "gateways", "kubernetes": None}, cp=cluster_host("control_plane"))
    found = asked(document, systems={"b": NOBLE}, options={"kernels": ["6.8.0-1-generic"]})
    places = {
        entry["name"]: (entry["uri"], entry["suite"], entry["base"], entry["key"])
        for entry in found["systems"]["b"]["repositories"]
    }
    assert places == {
        "docker": (
            "https://download.docker.com/linux/ubuntu",
            "noble",
            "docker/linux/ubuntu",
            "docker/linux/ubuntu/gpg",
        ),
        "nvidia-container-toolkit": (
            "https://nvidia.github.io/libnvidia-container/stable/deb/arm64",
            "/",
            "nvidia-container-toolkit/stable/deb/arm64",
            "nvidia-container-toolkit/gpgkey",
        ),
        "kubernetes": (
            "https://pkgs.k8s.io/core:/stable:/v1.36/deb/",
            "/",
            "kubernetes/core:/stable:/v1.36/deb",
            "kubernetes/core:/stable:/v1.36/deb/Release.key",
        ),
        "nginx": ("https://nginx.org/packages/ubuntu/", "noble", "nginx/ubuntu", "nginx/nginx_signing.key"),
        "nvidia-cuda": (
            "https://developer.download.nvidia.com/compute/cuda/repos/ubuntu2404/sbsa",
            "/",
            "nvidia/ubuntu2404/sbsa",
            "nvidia/ubuntu2404/sbsa/3bf863cc.pub",
        ),
        "distribution": ("", "/", "distribution/ubuntu2404", "distribution/ubuntu2404/bundle.asc"),
    }


def test_settings_have_the_roles_defaults() -> None:
    defaults: dict[str, Any] = {}
    for role in ("docker", "kubernetes", "nginx", "nvidia_driver", "flannel", "kubernetes_serving"):
        defaults.update(role_vars(role, "defaults/main"))
    assert {name: defaults[name] for name in needs.SETTINGS} == needs.SETTINGS


def test_packages_are_those_of_the_roles() -> None:
    docker = role_vars("docker", "vars/main")
    assert list(packages.ENGINE_VENDOR) == docker["__docker_vendor_packages"]
    assert list(packages.ENGINE_VERSIONED) == docker["__docker_versioned_packages"]
    assert list(packages.TOOLKIT) == docker["__docker_toolkit_packages"]
    assert list(packages.ENGINE_PYTHON) == docker["__docker_python_packages"]
    assert docker["__docker_vendor_url"] == packages.DOCKER_URL
    assert docker["__docker_toolkit_vendor_url"] == packages.TOOLKIT_URL
    for system, name in (("debian12", "Debian-12"), ("debian13", "Debian-13"), ("ubuntu", "Ubuntu")):
        listed = role_vars("docker", f"vars/{name}")["__docker_distribution_packages"]
        assert list(packages.ENGINE_DISTRIBUTION[system]) == listed
    kubernetes = role_vars("kubernetes", "vars/main")
    versioned, companions = kubernetes["__kubernetes_versioned_packages"], kubernetes["__kubernetes_companions"]
    assert list(packages.KUBERNETES_VERSIONED) == versioned
    assert list(packages.KUBERNETES) == versioned + companions
    assert kubernetes["__kubernetes_vendor_url"] == packages.KUBERNETES_URL
    assert list(packages.ENDPOINT) == role_vars("kubernetes_endpoint", "vars/main")["__kubernetes_endpoint_packages"]
    driver = role_vars("nvidia_driver", "vars/main", "vars/debian")
    assert driver["__nvidia_driver_vendor_url"] == packages.DRIVER_URL
    assert driver["__nvidia_driver_key_file"] == packages.DRIVER_KEY
    assert set(role_vars("firewall", "vars/main")["__firewall_packages"]) <= set(packages.COMMON)
    assert set(role_vars("pki", "vars/main")["__pki_packages"]) <= set(packages.COMMON)
    backup = role_vars("kubernetes_backup", "vars/main")
    assert list(packages.BACKUP) == ["age", backup["__kubernetes_backup_client"]]
    assert list(packages.MONITORING) == [
        role_vars("prometheus", "vars/main")["__prometheus_package"],
        role_vars("node_exporter", "vars/main")["__node_exporter_package"],
    ]
    assert f"'{packages.NGINX_URL}'" in role_vars("nginx", "vars/main")["__nginx_repository_url"]


def test_a_fleet_that_is_watched_needs_what_watches_it() -> None:
    watched = plan(gpu=docker_host(), watcher={"group": "monitoring", "kubernetes": None})
    assert sets_of(asked(watched))["monitoring"] == ["prometheus", "prometheus-node-exporter"]
    assert "monitoring" not in sets_of(asked(plan(gpu=docker_host())))


def test_two_systems_have_their_own_sets() -> None:
    found = asked(plan(gpu=docker_host()), {"docker_repository": "distribution"}, systems={"x": BOOKWORM, "y": TRIXIE})
    assert sets_of(found, "x")["Docker"][:2] == ["docker.io", "containerd"]
    assert sets_of(found, "y")["Docker"][:3] == ["docker.io", "docker-cli", "containerd"]
