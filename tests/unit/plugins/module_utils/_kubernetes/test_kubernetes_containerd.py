# SPDX-License-Identifier: Apache-2.0
"""containerd's version and configuration."""

from __future__ import annotations

import tomllib

import pytest

from ansible_collections.gpufleet.metal.plugins.module_utils._errors import InvalidInputError
from ansible_collections.gpufleet.metal.plugins.module_utils._kubernetes import containerd

PAUSE = "registry.k8s.io/pause:3.10.1"


@pytest.mark.parametrize(
    ("version", "cri", "sandbox"),
    [
        ("1.6.20", "io.containerd.grpc.v1.cri", "sandbox_image"),
        ("1.7.24", "io.containerd.grpc.v1.cri", "sandbox_image"),
        ("2.0.5", "io.containerd.cri.v1.images", "pinned_images"),
        ("2.1.4", "io.containerd.cri.v1.images", "pinned_images"),
    ],
)
def test_the_configuration(version: str, cri: str, sandbox: str) -> None:
    found = tomllib.loads(containerd.configuration(version, PAUSE))
    new = version.startswith("2")
    assert found["version"] == (3 if new else 2)
    # The NVIDIA toolkit leaves its own file there.
    assert found["imports"] == ["/etc/containerd/conf.d/*.toml"]
    assert "disabled_plugins" not in found
    wanted = {"sandbox": PAUSE} if new else PAUSE
    assert found["plugins"][cri][sandbox] == wanted
    assert found["plugins"][cri]["registry"]["config_path"] == "/etc/containerd/certs.d"
    runtime = found["plugins"]["io.containerd.cri.v1.runtime" if new else cri]
    assert runtime["containerd"]["runtimes"]["runc"]["options"] == {"SystemdCgroup": True}
    assert runtime["cni"]["conf_dir"] == "/etc/cni/net.d"
    # 1.6 does not know CDI, and 2 has it on.
    assert ("enable_cdi" in runtime) == (version == "1.7.24")


@pytest.mark.parametrize("version", ["1.7.24", "2.1.4"])
def test_what_hosts_may_need_otherwise(version: str) -> None:
    found = tomllib.loads(containerd.configuration(version, PAUSE, "cgroupfs", True))["plugins"]
    runtime = found.get("io.containerd.cri.v1.runtime") or found["io.containerd.grpc.v1.cri"]
    assert runtime["restrict_oom_score_adj"] is True
    assert runtime["containerd"]["runtimes"]["runc"]["options"] == {"SystemdCgroup": False}


def test_the_plugins_directory_of_each_version() -> None:
    for version, wanted in (("2.0.5", {"bin_dir": "/opt/cni/bin"}), ("2.1.4", {"bin_dirs": ["/opt/cni/bin"]})):
        found = tomllib.loads(containerd.configuration(version, PAUSE))
        assert wanted.items() <= found["plugins"]["io.containerd.cri.v1.runtime"]["cni"].items()


@pytest.mark.parametrize(
    ("found", "kubernetes", "message"),
    [
        (
            "1.7.24",
            "1.36.4",
            "containerd is 1.7.24 and kubernetes_version is 1.36.4, which takes containerd 2.0 or newer: install a "
            "newer containerd (docker_repository: vendor), or set kubernetes_version to 1.35.9",
        ),
        (
            "1.5.9",
            "1.35.9",
            "containerd is 1.5.9 and kubernetes_version is 1.35.9, which takes containerd 1.6 or newer: install a "
            "newer containerd (docker_repository: vendor)",
        ),
        (
            None,
            "1.35.9",
            "containerd is not installed, wanted it before Kubernetes: the role docker installs it",
        ),
    ],
)
def test_a_version_that_will_not_do(found: str | None, kubernetes: str, message: str) -> None:
    assert containerd.version_faults(found, kubernetes) == [message]


@pytest.mark.parametrize(("found", "kubernetes"), [("1.6.20", "1.35.9"), ("1.7.24", "1.35.9"), ("2.3.1", "1.37.1")])
def test_a_version_that_will_do(found: str, kubernetes: str) -> None:
    assert containerd.version_faults(found, kubernetes) == []


def test_what_is_no_version() -> None:
    with pytest.raises(InvalidInputError, match=r"^containerd's version is 'unknown', wanted one such as 1\.7\.24$"):
        containerd.version_of("unknown")


def test_a_registry_is_found_at_a_mirror_with_its_authority() -> None:
    mirror = {
        "registry": "registry.k8s.io",
        "url": "https://m.example:8443/v2/registry.k8s.io",
        "ca_certificate": "PEM\n",
    }
    assert containerd.registry_files([mirror]) == [
        {"dest": "/etc/containerd", "state": "directory"},
        {"dest": "/etc/containerd/certs.d", "state": "directory"},
        {"dest": "/etc/containerd/certs.d/registry.k8s.io", "state": "directory"},
        {"dest": "/etc/containerd/certs.d/registry.k8s.io/ca.crt", "content": "PEM\n"},
        {
            "dest": "/etc/containerd/certs.d/registry.k8s.io/hosts.toml",
            "content": (
                "# SPDX-License-Identifier: Apache-2.0\n"
                "# Managed by Ansible (gpufleet.metal.kubernetes).\n"
                'server = "https://m.example:8443/v2/registry.k8s.io"\n\n'
                '[host."https://m.example:8443/v2/registry.k8s.io"]\n'
                '  capabilities = ["pull", "resolve"]\n'
                '  ca = "/etc/containerd/certs.d/registry.k8s.io/ca.crt"\n'
                "  override_path = true\n"
            ),
        },
    ]


def test_a_login_is_for_root_alone_and_shown_to_nobody() -> None:
    entry = {"registry": "r.example:5000", "url": "https://r.example:5000", "username": "pull", "password": "s3cret"}
    file = containerd.registry_files([entry])[-1]
    assert (file["mode"], file["sensitive"]) == ("0600", True)
    assert file["content"].endswith(
        '\n[host."https://r.example:5000".header]\n  Authorization = "Basic cHVsbDpzM2NyZXQ="\n'
    )
    assert "override_path" not in file["content"]
    assert tomllib.loads(file["content"])["server"] == "https://r.example:5000"


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        (
            [{"registry": "a/b", "url": "https://x"}],
            "[0].registry is 'a/b', wanted host or host:port, as in the name of an image",
        ),
        ([{"registry": "a", "url": "https://x"}] * 2, "[1].registry is 'a', wanted each registry once"),
        ([{"registry": "a", "url": "x"}], "[0].url is 'x', wanted http:// or https://, a host, and perhaps a path"),
        (
            [{"registry": "a", "url": "https://x", "username": "u"}],
            "[0] has a login that is not whole, wanted username without a colon, and password",
        ),
        (
            [{"registry": "a", "url": "http://x", "username": "u", "password": "p"}],
            "[0].url is 'http://x', wanted https:// where there is a login",
        ),
    ],
)
def test_a_registry_that_cannot_be_is_named(entries: list[dict[str, str]], message: str) -> None:
    with pytest.raises(InvalidInputError) as caught:
        containerd.registry_files(entries)
    assert str(caught.value) == f"kubernetes_registries{message}"


@pytest.mark.parametrize(
    ("url", "root"),
    [
        ("https://r.example:5000", "https://r.example:5000/v2"),
        ("https://r.example/", "https://r.example/v2"),
        ("https://m.example/v2/registry.k8s.io", "https://m.example/v2"),
        ("https://m.example/v2/", "https://m.example/v2"),
        ("https://m.example/artifactory/api/docker/k8s/v2/registry", "https://m.example/artifactory/api/docker/k8s/v2"),
    ],
)
def test_where_a_registry_is_asked_about_logins(url: str, root: str) -> None:
    assert containerd.api_root("r.example", url) == root


@pytest.mark.parametrize("url", ["https://m.example/mirror", "m.example", "https://m.example/v2x/images"])
def test_an_address_that_says_nothing_about_logins(url: str) -> None:
    with pytest.raises(InvalidInputError) as caught:
        containerd.api_root("r.example", url)
    assert str(caught.value) == (
        f"the url of r.example in kubernetes_registries is {url!r}, wanted one without a path or with /v2 in it: there "
        "a registry says whether it takes a login"
    )
