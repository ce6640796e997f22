# SPDX-License-Identifier: Apache-2.0
"""Build a signed apt repository of small packages that stand in for NVIDIA's.

    python make_repository.py KERNEL_RELEASE OUTPUT.tar

The names, versions, dependencies and the pinning packages' preferences are those of NVIDIA's repository, as far as
documentation states them. The content is not: an nvidia-smi, a dcgmi and a libcuda that say they are simulated,
services that sleep, and files with the version and kind of module that a simulated kernel loads. Needs dpkg-deb, gpg
and cc.
"""

from __future__ import annotations

import email.utils
import hashlib
import os
import subprocess
import sys
import tarfile
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

HERE = Path(__file__).parent
MAINTAINER = "Simulated NVIDIA packages <simulation@nvidia.com.example>"
#: Branch 615 wants a kernel. 580.180.01 has no Fabric Manager yet, as NVIDIA's repository has it for some hours.
DRIVERS = ("580.159.03", "580.173.02", "580.180.01", "595.91.07", "615.71.09")
WITHOUT_FABRIC_MANAGER = ("580.180.01",)
WANTS_KERNEL = "615.71.09"
KERNEL = "linux-image-9.9.9-simulated"
RENAMED = "610"
"""The branch from which on Debian's open module has the name that it has elsewhere."""

UNIT = """[Unit]
Description={name} (simulated)
[Service]
ExecStart=/bin/sleep infinity
[Install]
WantedBy=multi-user.target
"""

#: Fails once where a test asks for it, and kills dpkg once where a test asks for that.
POSTINST = """#!/bin/sh
set -e
for name in fail kill; do
  if [ -e /srv/simulated_host/$name ]; then
    rm /srv/simulated_host/$name
    if [ $name = kill ]; then kill -9 $PPID; fi
    echo "simulated: this maintainer script fails once" >&2
    exit 1
  fi
done
"""


@dataclass(frozen=True)
class Package:
    """A package; ``files`` by path, ``links`` by path to their target."""

    name: str
    version: str
    depends: str = ""
    fields: dict[str, str] = field(default_factory=dict)
    files: dict[str, bytes] = field(default_factory=dict)
    links: dict[str, str] = field(default_factory=dict)
    postinst: str = ""


def library(directory: Path) -> bytes:
    """Build the libcuda that answers what /srv/simulated_host/cuda says."""
    target = directory / "libcuda.so"
    source = HERE / "simulated_cuda.c"
    command = [
        os.environ.get("CC", "cc"),
        "-shared",
        "-fPIC",
        "-Wl,-soname,libcuda.so.1",
        "-o",
        str(target),
        str(source),
    ]
    subprocess.run(command, check=True)
    return target.read_bytes()


def service(name: str) -> dict[str, bytes]:
    """The unit of a service."""
    return {f"usr/lib/systemd/system/{name}.service": UNIT.format(name=name).encode()}


def kernel_module(name: str, kind: str, version: str, other: str) -> Package:
    """A kernel module's package, of which a host has one."""
    kernel = f", {KERNEL}" if version == WANTS_KERNEL else ""
    files = {"version": f"{version}\n".encode(), "kind": f"{kind}\n".encode()}
    return Package(
        name,
        f"{version}-1",
        f"dkms (>= 3.1.8){kernel}",
        fields={"Conflicts": other, "Replaces": other},
        files={f"usr/share/simulated_nvidia/{path}": content for path, content in files.items()},
    )


def program(name: str) -> bytes:
    """A stand-in of a program."""
    return b"#!/usr/bin/python3\n" + (HERE / name).read_bytes()


def driver(version: str, cuda: bytes) -> list[Package]:
    """The packages that carry one driver version."""
    whole = f"{version}-1"
    lib = "usr/lib/x86_64-linux-gnu"
    opened = "kmod-nvidia-open-dkms" if version > RENAMED else "nvidia-kernel-open-dkms"
    closed = "nvidia-kernel-dkms"
    packages = [
        Package("nvidia-open", whole, f"nvidia-driver-cuda (= {whole}), {opened} (= {whole})"),
        Package("cuda-drivers", whole, f"nvidia-driver-cuda (= {whole}), {closed} (= {whole})"),
        Package(
            "nvidia-driver-cuda",
            whole,
            f"nvidia-persistenced (= {whole})",
            files={
                "usr/bin/nvidia-smi": program("simulated_smi.py"),
                f"{lib}/libcuda.so.{version}": cuda,
            },
            links={f"{lib}/libcuda.so.1": f"libcuda.so.{version}"},
        ),
        kernel_module(opened, "open", version, closed),
        kernel_module(closed, "proprietary", version, opened),
        Package("nvidia-persistenced", whole, files=service("nvidia-persistenced"), postinst=POSTINST),
        Package("nvidia-imex", whole, files=service("nvidia-imex")),
        Package("libnvsdm", whole),
    ]
    if version not in WITHOUT_FABRIC_MANAGER:
        packages += [
            Package("nvidia-fabricmanager", whole, files=service("nvidia-fabricmanager")),
            Package("libnvidia-nscq", whole),
        ]
    return packages


def pinning(branch: str) -> Package:
    """The package that pins a branch; one excludes the other."""
    text = f"Package: *nvidia* *cuda*\nPin: version {branch}.*\nPin-Priority: 1000\n"
    fields = dict.fromkeys(("Provides", "Conflicts", "Replaces"), "nvidia-driver-pinning")
    name = f"nvidia-driver-pinning-{branch}"
    return Package(name, f"{branch}-2", fields=fields, files={f"etc/apt/preferences.d/{name}": text.encode()})


def everything(kernel: str, cuda: bytes) -> list[Package]:
    """All packages of the repository."""
    packages = [package for version in DRIVERS for package in driver(version, cuda)]
    packages += [pinning(branch) for branch in ("580", "595", "615")]
    packages += [Package(f"linux-headers-{kernel}", "6.0-1"), Package(KERNEL, "9.9.9-1"), Package("dkms", "1:3.4.0-1")]
    packages.append(Package("nvlsm", "2025.06.5-1"))
    for version in ("1:4.6.1-1", "1:4.7.0-1"):
        core = "datacenter-gpu-manager-4-core"
        files = {**service("nvidia-dcgm"), "usr/bin/dcgmi": program("simulated_dcgmi.py")}
        packages.append(Package(core, version, files=files))
        packages.append(Package("datacenter-gpu-manager-4-cuda13", version, f"{core} (= {version})"))
    return packages


def build(package: Package, directory: Path) -> Path:
    """Build one .deb."""
    root = directory / "root" / package.name / package.version
    control = root / "DEBIAN"
    control.mkdir(parents=True)
    fields = {
        "Package": package.name,
        "Version": package.version,
        "Architecture": "amd64",
        "Maintainer": MAINTAINER,
        **({"Depends": package.depends} if package.depends else {}),
        **package.fields,
        "Description": "stand-in for a test, simulated",
    }
    (control / "control").write_text("".join(f"{key}: {value}\n" for key, value in fields.items()), encoding="utf-8")
    if package.postinst:
        (control / "postinst").write_text(package.postinst, encoding="utf-8")
        (control / "postinst").chmod(0o755)
    for path, content in package.files.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(content)
        (root / path).chmod(0o755 if path.startswith("usr/bin/") else 0o644)
    for path, target in package.links.items():
        (root / path).symlink_to(target)
    deb = directory / "repository" / f"{package.name}_{package.version.replace(':', '%3a')}_amd64.deb"
    deb.parent.mkdir(exist_ok=True)
    command = ["dpkg-deb", "--build", "--root-owner-group", "-Znone", str(root), str(deb)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return deb


def index(debs: list[Path]) -> str:
    """The Packages file."""
    stanzas = []
    for deb in debs:
        command = ["dpkg-deb", "--field", str(deb)]
        control = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        content = deb.read_bytes()
        digest = hashlib.sha256(content).hexdigest()
        stanzas.append(f"{control}Filename: ./{deb.name}\nSize: {len(content)}\nSHA256: {digest}\n")
    return "\n".join(stanzas)


def sign(repository: Path, home: Path) -> None:
    """Write Release, InRelease and the key."""
    packages = (repository / "Packages").read_bytes()
    date = email.utils.formatdate(usegmt=True)
    (repository / "Release").write_text(
        f"Origin: Simulated NVIDIA\nLabel: Simulated\nDate: {date}\n"
        f"SHA256:\n {hashlib.sha256(packages).hexdigest()} {len(packages)} Packages\n",
        encoding="utf-8",
    )
    home.mkdir(mode=0o700)
    gpg = ["gpg", "--homedir", str(home), "--batch", "--quiet", "--passphrase", "", "--pinentry-mode", "loopback"]
    name = "Simulated NVIDIA repository"
    try:
        subprocess.run([*gpg, "--quick-generate-key", name, "rsa3072", "sign", "never"], check=True)
        clear = ["--digest-algo", "SHA256", "--clearsign", "--output", str(repository / "InRelease")]
        subprocess.run([*gpg, *clear, str(repository / "Release")], check=True)
        key = ["--armor", "--output", str(repository / "3bf863cc.pub"), "--export"]
        subprocess.run([*gpg, *key], check=True)
    finally:
        subprocess.run(["gpgconf", "--homedir", str(home), "--kill", "gpg-agent"], check=True)


def main(kernel: str, output: Path) -> None:
    """Build the archive with the repository of both suites."""
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        debs = [build(package, directory) for package in everything(kernel, library(directory))]
        repository = directory / "repository"
        (repository / "Packages").write_text(index(debs), encoding="utf-8")
        sign(repository, directory / "gnupg")
        with tarfile.open(output, "w") as archive:
            for suite in ("debian12", "debian13"):
                archive.add(repository, f"{suite}/x86_64")


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
