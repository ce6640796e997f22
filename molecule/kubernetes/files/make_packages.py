# SPDX-License-Identifier: Apache-2.0
"""Build a signed apt repository of packages that stand in for those of Kubernetes' community repository.

    python make_packages.py OUTPUT.tar

Names, versions and dependencies are those of the real repository, as far as documentation states them. The programs are
the stand-ins of simulated/, which say so. Packages are built as molecule/nvidia_driver builds its own.
"""

from __future__ import annotations

import email.utils
import hashlib
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent.parent / "nvidia_driver" / "files"))

from make_repository import Package, build, index  # noqa: E402 - found by the line above

VERSIONS = ("1.35.8", "1.35.9")
HOME = "usr/share/simulated-kubernetes"
UNIT = """[Unit]
Description=kubelet (a stand-in for tests)
Wants=network-online.target
After=network-online.target

[Service]
ExecStart=/usr/bin/kubelet
Restart=always
StartLimitInterval=0
RestartSec=2

[Install]
WantedBy=multi-user.target
"""
DROP_IN = """[Service]
EnvironmentFile=-/var/lib/kubelet/kubeadm-flags.env
EnvironmentFile=-/etc/default/kubelet
"""
#: As debhelper's: systemd reads the unit.
POSTINST = "#!/bin/sh\nset -e\nif [ -d /run/systemd/system ]; then systemctl daemon-reload; fi\n"


def wrapper(name: str) -> bytes:
    """Start a stand-in in place of the shell, so that its parent is whoever called."""
    return f'#!/bin/sh\n# SPDX-License-Identifier: Apache-2.0\nexec python3 -B /{HOME}/{name}.py "$@"\n'.encode()


def packages() -> list[Package]:
    """All packages of the repository."""
    sources = {f"{HOME}/{path.name}": path.read_bytes() for path in sorted((HERE / "simulated").glob("*.py"))}
    found = []
    for version in VERSIONS:
        whole = f"{version}-1.1"
        common = f"simulated-kubernetes (= {whole})"
        found += [
            Package(
                "simulated-kubernetes",
                whole,
                "python3-yaml, openssl",
                files={**sources, f"{HOME}/version": version.encode()},
            ),
            Package(
                "kubelet",
                whole,
                f"{common}, kubernetes-cni (>= 1.8.0)",
                files={
                    "usr/bin/kubelet": wrapper("kubelet"),
                    "usr/lib/systemd/system/kubelet.service": UNIT.encode(),
                    "usr/lib/systemd/system/kubelet.service.d/10-kubeadm.conf": DROP_IN.encode(),
                },
                postinst=POSTINST,
            ),
            Package("kubectl", whole, common, files={"usr/bin/kubectl": wrapper("kubectl")}),
            Package(
                "kubeadm", whole, f"{common}, cri-tools (>= 1.30.0)", files={"usr/bin/kubeadm": wrapper("kubeadm")}
            ),
        ]
    found.append(Package("kubernetes-cni", "1.8.0-1.1", files={"opt/cni/bin/README": b"stand-in: no plugin\n"}))
    found.append(Package("cri-tools", "1.35.0-1.1"))
    return found


def sign(repository: Path, home: Path) -> None:
    """Write Release, InRelease and the key."""
    content = (repository / "Packages").read_bytes()
    (repository / "Release").write_text(
        f"Origin: Simulated Kubernetes\nLabel: Simulated\nDate: {email.utils.formatdate(usegmt=True)}\n"
        f"SHA256:\n {hashlib.sha256(content).hexdigest()} {len(content)} Packages\n",
        encoding="utf-8",
    )
    home.mkdir(mode=0o700)
    gpg = ["gpg", "--homedir", str(home), "--batch", "--quiet", "--passphrase", "", "--pinentry-mode", "loopback"]
    try:
        name = "Simulated Kubernetes repository"
        subprocess.run([*gpg, "--quick-generate-key", name, "rsa3072", "sign", "never"], check=True)
        clear = ["--digest-algo", "SHA256", "--clearsign", "--output", str(repository / "InRelease")]
        subprocess.run([*gpg, *clear, str(repository / "Release")], check=True)
        subprocess.run([*gpg, "--armor", "--output", str(repository / "Release.key"), "--export"], check=True)
    finally:
        subprocess.run(["gpgconf", "--homedir", str(home), "--kill", "gpg-agent"], check=True)


def main(output: Path) -> None:
    """Build the archive."""
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        debs = [build(package, directory) for package in packages()]
        repository = directory / "repository"
        (repository / "Packages").write_text(index(debs), encoding="utf-8")
        sign(repository, directory / "gnupg")
        with tarfile.open(output, "w") as archive:
            archive.add(repository, "core:/stable:/v1.35/deb")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
