# SPDX-License-Identifier: Apache-2.0
"""Build a signed apt repository of packages that stand in for those of Kubernetes' community repository.

    python make_packages.py OUTPUT.tar

Only kubeadm does something: it says which images belong to it. Packages are built as molecule/nvidia_driver builds
its own.
"""

from __future__ import annotations

import sys
import tarfile
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "nvidia_driver" / "files"))

from make_repository import Package, build, index, sign

VERSION = "1.35.9"
SAID = """#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# A stand-in for tests: `kubeadm config images list --kubernetes-version V --image-repository R` and nothing else.
set -eu
[ "$1 $2 $3 $4 $6" = "config images list --kubernetes-version --image-repository" ] && [ "$5" = 1.35.9 ]
for name in kube-apiserver kube-controller-manager kube-scheduler kube-proxy; do echo "$7/$name:v$5"; done
echo "$7/coredns/coredns:v1.13.1"
echo "$7/pause:3.10.1"
echo "$7/etcd:3.6.9-0"
"""


def main(output: Path) -> None:
    """Build the archive."""
    packages = [
        Package("kubeadm", f"{VERSION}-1.1", "cri-tools", files={"usr/bin/kubeadm": SAID.encode()}),
        *(Package(name, f"{VERSION}-1.1", "kubernetes-cni") for name in ("kubelet", "kubectl")),
        Package("kubernetes-cni", "1.8.0-1.1"),
        Package("cri-tools", "1.35.0-1.1"),
    ]
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        debs = [build(package, directory) for package in packages]
        repository = directory / "repository"
        (repository / "Packages").write_text(index(debs), encoding="utf-8")
        sign(repository, directory / "gnupg")
        (repository / "3bf863cc.pub").rename(repository / "Release.key")
        with tarfile.open(output, "w") as archive:
            archive.add(repository, "core:/stable:/v1.35/deb")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
