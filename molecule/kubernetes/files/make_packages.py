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

#: By minor, as the real ones lie in repositories of their own.
VERSIONS = {"1.35": ("1.35.8", "1.35.9"), "1.36": ("1.36.3", "1.36.4"), "1.37": ("1.37.1",)}
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
    return f'#!/bin/sh\n# SPDX-License-Identifier: Apache-2.0\nexec python3 -B /{HOME}/{name}/{name}.py "$@"\n'.encode()


def programs(name: str, version: str) -> dict[str, bytes]:
    """A stand-in with all that it shares: packages of two versions lie side by side during an upgrade."""
    sources = [*sorted((HERE / "simulated").glob("*.py")), HERE.parent.parent / "resources" / "simulated_api.py"]
    found = {f"{HOME}/{name}/{path.name}": path.read_bytes() for path in sources}
    return {**found, f"{HOME}/{name}/version": version.encode(), f"usr/bin/{name}": wrapper(name)}


def packages(minor: str) -> list[Package]:
    """All packages of the repository of a minor."""
    needs = "python3-yaml, openssl"
    found = []
    for version in VERSIONS[minor]:
        whole = f"{version}-1.1"
        found += [
            Package(
                "kubelet",
                whole,
                f"{needs}, kubernetes-cni (>= 1.8.0)",
                files={
                    **programs("kubelet", version),
                    "usr/lib/systemd/system/kubelet.service": UNIT.encode(),
                    "usr/lib/systemd/system/kubelet.service.d/10-kubeadm.conf": DROP_IN.encode(),
                },
                postinst=POSTINST,
            ),
            Package("kubectl", whole, needs, files=programs("kubectl", version)),
            Package("kubeadm", whole, f"{needs}, cri-tools (>= 1.30.0)", files=programs("kubeadm", version)),
        ]
    found.append(Package("kubernetes-cni", "1.8.0-1.1", files={"opt/cni/bin/README": b"stand-in: no plugin\n"}))
    # Its version follows the minor, as the real one's does.
    found.append(Package("cri-tools", f"{minor}.0-1.1", needs, files=programs("crictl", f"{minor}.0")))
    return found


def gpg(home: Path, *arguments: str) -> None:
    """Run gpg with a home of its own and no question."""
    quiet = ["--batch", "--quiet", "--passphrase", "", "--pinentry-mode", "loopback"]
    subprocess.run(["gpg", "--homedir", str(home), *quiet, *arguments], check=True)


def sign(repository: Path, home: Path) -> None:
    """Write Release, InRelease and the key."""
    content = (repository / "Packages").read_bytes()
    (repository / "Release").write_text(
        f"Origin: Simulated Kubernetes\nLabel: Simulated\nDate: {email.utils.formatdate(usegmt=True)}\n"
        f"SHA256:\n {hashlib.sha256(content).hexdigest()} {len(content)} Packages\n",
        encoding="utf-8",
    )
    clear = ["--digest-algo", "SHA256", "--clearsign", "--output", str(repository / "InRelease")]
    gpg(home, *clear, str(repository / "Release"))
    gpg(home, "--armor", "--output", str(repository / "Release.key"), "--export")


def main(output: Path) -> None:
    """Build the archive, a repository for each minor."""
    with tempfile.TemporaryDirectory() as name, tarfile.open(output, "w") as archive:
        home = Path(name) / "gnupg"
        home.mkdir(mode=0o700)
        try:
            # One key for all minors, as the community's.
            gpg(home, "--quick-generate-key", "Simulated Kubernetes repository", "rsa3072", "sign", "never")
            for minor in VERSIONS:
                directory = Path(name) / minor
                directory.mkdir()
                debs = [build(package, directory) for package in packages(minor)]
                repository = directory / "repository"
                (repository / "Packages").write_text(index(debs), encoding="utf-8")
                sign(repository, home)
                archive.add(repository, f"core:/stable:/v{minor}/deb")
        finally:
            subprocess.run(["gpgconf", "--homedir", str(home), "--kill", "gpg-agent"], check=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
