# SPDX-License-Identifier: Apache-2.0
# PRIVATE to the collection: do not import this from outside, it may change without notice.
"""Which packages a fleet's hosts take, by the role that installs them, and the repositories that have them. Pure.

The names are those of the roles' own variables; a test holds them against each other, so that neither changes alone.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ansible_collections.gpufleet.metal.plugins.module_utils import _driver_packages, _packages

#: What the collection itself runs with on a host, and what its roles for every host install.
COMMON = (
    "python3",
    "python3-apt",
    "python3-cryptography",
    "ca-certificates",
    "openssl",
    "openssh-server",
    "procps",
    "chrony",
    "unattended-upgrades",
    "nftables",
)
#: What the host needs that serves the bundle.
SERVER = ("nginx", "docker-registry", "skopeo")
COSIGN = "cosign"
#: Releases whose archive has cosign.
WITH_COSIGN = ("debian13",)

ENGINE_VENDOR = ("docker-ce", "docker-ce-cli", "containerd.io", "docker-buildx-plugin", "docker-compose-plugin")
ENGINE_VERSIONED = ("docker-ce", "docker-ce-cli", "docker.io", "docker-cli")
ENGINE_DISTRIBUTION = {
    "debian12": ("docker.io", "containerd"),
    "debian13": ("docker.io", "docker-cli", "containerd", "docker-compose"),
    "ubuntu": ("docker.io", "containerd", "docker-compose-v2"),
}
ENGINE_PYTHON = ("python3-requests",)
TOOLKIT = (
    "nvidia-container-toolkit",
    "nvidia-container-toolkit-base",
    "libnvidia-container-tools",
    "libnvidia-container1",
)
KUBERNETES_VERSIONED = ("kubelet", "kubeadm", "kubectl")
KUBERNETES = (*KUBERNETES_VERSIONED, "kubernetes-cni", "cri-tools")
ENDPOINT = ("haproxy", "keepalived")
#: What seals and carries copies of etcd from a control plane; etcd's own tools come out of its image.
BACKUP = ("age", "openssh-client")
#: What the host in ``monitoring`` takes, and what every host takes for it.
MONITORING = ("prometheus", "prometheus-node-exporter")

DOCKER_URL = "https://download.docker.com"
KUBERNETES_URL = "https://pkgs.k8s.io"
NGINX_URL = "https://nginx.org/packages"
TOOLKIT_URL = "https://nvidia.github.io/libnvidia-container"
DRIVER_URL = "https://developer.download.nvidia.com/compute/cuda/repos"
DRIVER_KEY = "3bf863cc.pub"

_EXPRESSION = re.compile(r"\{\{ *([a-z_]+) *\}\}")


@dataclass(frozen=True)
class System:
    """A distribution's release on an architecture."""

    name: str
    distribution: str
    release: str
    machine: str

    @property
    def architecture(self) -> str:
        """Debian's word for the machine."""
        return {"x86_64": "amd64", "aarch64": "arm64"}.get(self.machine, self.machine)


@dataclass(frozen=True)
class Repository:
    """A repository: where it is outside, and where in the bundle.

    ``base`` and ``key`` are relative to the bundle's ``packages``; a role adds the same to the URL of a mirror.
    """

    name: str
    uri: str
    suite: str
    base: str
    key: str
    key_url: str = ""
    key_sha256: str | None = None
    components: tuple[str, ...] = ()
    origin: str = ""

    def as_dict(self) -> dict[str, Any]:
        """Return it as plain data."""
        return {**vars(self), "components": list(self.components)}


@dataclass
class Wanted:
    """What is installed where, as a fleet's hosts add to it."""

    engines: bool = False
    containerd: bool = False
    toolkit: bool = False
    kubernetes: str | None = None
    control_planes: bool = False
    gateways: bool = False
    monitoring: bool = False
    virtual_address: bool = False
    drivers: list[Mapping[str, Any]] = field(default_factory=list)


def system_of(distribution: str, version: str, release: str, machine: str) -> System:
    """Return a system as facts describe it: ``Debian``, ``13``, ``trixie``, ``x86_64``."""
    number = version.partition(".")[0] if distribution.lower() == "debian" else version.replace(".", "")
    return System(f"{distribution.lower()}{number}", distribution.lower(), release, machine)


def _base(setting: str, vendor: str) -> str:
    return vendor if setting == "vendor" else setting.rstrip("/")


def repositories(system: System, wanted: Wanted, settings: Mapping[str, Any]) -> list[Repository]:
    """Return the repositories that a system's packages come from, the distribution's own last."""
    found = []
    docker = settings["docker_repository"]
    if (wanted.engines or wanted.containerd) and docker != "distribution":
        uri = f"{_base(docker, DOCKER_URL)}/linux/{system.distribution}"
        base = f"docker/linux/{system.distribution}"
        key = settings["docker_repository_key_url"] or f"{uri}/gpg"
        sha256 = settings["docker_repository_key_sha256"]
        found.append(
            Repository("docker", uri, system.release, base, f"{base}/gpg", key, sha256, ("stable",), origin="Docker")
        )
    toolkit = settings["docker_nvidia_repository"]
    if wanted.toolkit and toolkit != "distribution":
        url, base = _base(toolkit, TOOLKIT_URL), f"nvidia-container-toolkit/stable/deb/{system.architecture}"
        uri = f"{url}/stable/deb/{system.architecture}"
        key_path = "nvidia-container-toolkit/gpgkey"
        sha256 = settings["docker_nvidia_repository_key_sha256"]
        found.append(
            Repository("nvidia-container-toolkit", uri, "/", base, key_path, f"{url}/gpgkey", sha256, origin="NVIDIA")
        )
    if wanted.kubernetes and settings["kubernetes_repository"] != "distribution":
        minor = ".".join(wanted.kubernetes.split(".")[:2])
        path = f"core:/stable:/v{minor}/deb"
        uri = f"{_base(settings['kubernetes_repository'], KUBERNETES_URL)}/{path}/"
        key = settings["kubernetes_repository_key_url"] or f"{uri}Release.key"
        sha256 = settings["kubernetes_repository_key_sha256"]
        base = f"kubernetes/{path}"
        found.append(Repository("kubernetes", uri, "/", base, f"{base}/Release.key", key, sha256, origin="Kubernetes"))
    if wanted.gateways and settings["nginx_repository"] != "distribution":
        uri = f"{_base(settings['nginx_repository'], NGINX_URL)}/{system.distribution}/"
        key, sha256 = settings["nginx_repository_key_url"], settings["nginx_repository_key_sha256"]
        base = f"nginx/{system.distribution}"
        # The role prefers what says that it is of nginx.
        found.append(
            Repository(
                "nginx", uri, system.release, base, "nginx/nginx_signing.key", key, sha256, ("nginx",), origin="nginx"
            )
        )
    vendors = [driver for driver in wanted.drivers if driver["repository"] not in ("distribution", "unmanaged")]
    if vendors:
        directory = f"{system.name}/{'sbsa' if system.machine == 'aarch64' else system.machine}"
        uri = f"{_base(vendors[0]['repository'], DRIVER_URL)}/{directory}"
        key = settings["nvidia_driver_repository_key_url"] or f"{uri}/{DRIVER_KEY}"
        sha256 = settings["nvidia_driver_repository_key_sha256"]
        base = f"nvidia/{directory}"
        found.append(Repository("nvidia-cuda", uri, "/", base, f"{base}/{DRIVER_KEY}", key, sha256, origin="NVIDIA"))
    base = f"distribution/{system.name}"
    found.append(Repository("distribution", "", "/", base, f"{base}/bundle.asc", origin="gpufleet bundle"))
    return found


def _versioned(names: Iterable[str], versioned: Iterable[str], version: str | None) -> list[str]:
    return _packages.packages_with_versions(names, dict.fromkeys(versioned, version), "=")


def _engine(system: System, settings: Mapping[str, Any]) -> tuple[str, ...]:
    if settings["docker_repository"] != "distribution":
        return ENGINE_VENDOR
    return ENGINE_DISTRIBUTION.get(system.name) or ENGINE_DISTRIBUTION.get(system.distribution, ())


def package_sets(
    system: System,
    wanted: Wanted,
    settings: Mapping[str, Any],
    kernels: Sequence[str],
    driver_rows: Sequence[Mapping[str, Any]],
    further: Sequence[str],
    signed: bool,
) -> list[dict[str, Any]]:
    """Return what a host may ask for at once, a set each: sets may exclude each other, so each is resolved alone."""
    sets = [
        {"name": "every host", "packages": list(COMMON)},
        {
            "name": "bundle server",
            "packages": [*SERVER, *([COSIGN] if signed and system.name in WITH_COSIGN else [])],
        },
    ]
    toolkit = _versioned(TOOLKIT, TOOLKIT, settings["docker_nvidia_toolkit_version"]) if wanted.toolkit else []
    if wanted.engines:
        names = _versioned(_engine(system, settings), ENGINE_VERSIONED, settings["docker_version"])
        sets.append({"name": "Docker", "packages": [*names, *ENGINE_PYTHON, *toolkit]})
    if wanted.containerd:
        name = "containerd" if settings["docker_repository"] == "distribution" else "containerd.io"
        sets.append({"name": "containerd", "packages": [name, *toolkit]})
    if wanted.kubernetes:
        names = _versioned(KUBERNETES, KUBERNETES_VERSIONED, f"{wanted.kubernetes}-*")
        sets.append({"name": "Kubernetes", "packages": names})
    if wanted.control_planes:
        sets.append({"name": "control plane", "packages": [*BACKUP, *(ENDPOINT if wanted.virtual_address else ())]})
    if wanted.gateways:
        sets.append({"name": "gateway", "packages": _gateway(system, settings)})
    sets.extend(_driver_sets(system, wanted, settings, kernels, driver_rows))
    if wanted.monitoring:
        sets.append({"name": "monitoring", "packages": list(MONITORING)})
    if further:
        sets.append({"name": "bundle_packages", "packages": list(further)})
    return sets


def _gateway(system: System, settings: Mapping[str, Any]) -> list[str]:
    vendor = settings["nginx_repository"] != "distribution"
    if not settings["nginx_authentication"]:
        return ["nginx"]
    if vendor:
        return ["nginx", "nginx-module-njs"]
    return ["nginx", "libnginx-mod-http-js" if system.name in ("debian13", "ubuntu2604") else "python3-cryptography"]


def _driver_sets(
    system: System,
    wanted: Wanted,
    settings: Mapping[str, Any],
    kernels: Sequence[str],
    rows: Sequence[Mapping[str, Any]],
) -> list[dict[str, Any]]:
    """Return a set for each kind of driver and each kernel."""
    sets = []
    # A row's own version may be one of the role's options.
    plain = [
        {**row, "version": _EXPRESSION.sub(lambda found: str(settings[found[1]]), row["version"])}
        if "version" in row
        else dict(row)
        for row in rows
    ]
    for driver in wanted.drivers:
        if driver["repository"] == "unmanaged":
            continue
        kind = f"{driver['kernel_module']}{'_compute' if settings['nvidia_driver_compute_only'] else ''}"
        dcgm = ["dcgm"] if settings["nvidia_driver_dcgm"] else []
        words = ["pin", "headers", kind, "persistence", *driver["components"], *dcgm]
        source = "distribution" if driver["repository"] == "distribution" else "vendor"
        for kernel in kernels:
            facts = {"name": system.name, "machine": system.machine, "kernel": kernel}
            found = _driver_packages.compose(plain, words, int(driver["branch"]), source, facts)
            # A version stops at a dot or at the package's own revision.
            wish = f"{driver['version']}-*" if driver["version"] else f"{driver['branch']}.*"
            own = {name: f"*{version}*" for name, version in found.versions.items()}
            names = [
                *_versioned(found.driver, found.driver, wish),
                *_packages.packages_with_versions(found.others, own, "="),
            ]
            sets.append({"name": f"driver {driver['version'] or driver['branch']} for {kernel}", "packages": names})
    return sets
