# SPDX-License-Identifier: Apache-2.0
"""etcdctl and etcdutl, out of an archive or of an image that a stand-in for ctr mounts."""

from __future__ import annotations

import hashlib
import io
import tarfile
from collections.abc import Sequence
from pathlib import Path

import pytest

from ansible_collections.gpufleet.metal.plugins.module_utils._errors import FleetError
from ansible_collections.gpufleet.metal.plugins.module_utils._kubernetes.etcd_tools import Tools
from ansible_collections.gpufleet.metal.plugins.modules.kubernetes_etcd_tools import bring

IMAGE = "registry.k8s.io/etcd:3.6.4-0"


class Programs:
    """ctr, crictl, kubeadm, and the etcdutl that was brought."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.calls: list[str] = []
        self.present = True
        self.has = ("etcdctl", "etcdutl")
        self.kubeadm = (0, f"registry.k8s.io/pause:3.10\n{IMAGE}\n", "")

    def __call__(self, argv: Sequence[str], stdin: str | None = None) -> tuple[int, str, str]:
        line = " ".join(argv)
        self.calls.append(line)
        if argv[0] == "kubeadm":
            return self.kubeadm
        if "images list" in line:
            return 0, f"{IMAGE}\n" if self.present else "", ""
        if argv[0] == "crictl":
            self.present = True
        if "images mount" in line:
            directory = Path(argv[-1]) / "usr/local/bin"
            directory.mkdir(parents=True)
            for name in self.has:
                (directory / name).write_text(f"{name} of the image")
        if line.endswith("etcdutl version"):
            there = (self.root / "usr/local/lib/gpufleet/etcd/etcdutl").exists()
            return (0, "etcdutl version: 3.6.4\nAPI version: 3.6\n", "") if there else (127, "", "")
        return 0, "", ""


@pytest.fixture
def programs(tmp_path: Path) -> Programs:
    return Programs(tmp_path)


@pytest.fixture
def tools(programs: Programs) -> Tools:
    return Tools(programs, str(programs.root))


FROM_IMAGE = {"source": "image", "sha256": None, "version": "1.36.4", "image_repository": None}


def archive(path: Path, *names: str) -> tuple[str, str]:
    """Return the URL and the digest of an archive."""
    with tarfile.open(path, "w:gz") as content:
        for name in names:
            item = tarfile.TarInfo(f"etcd-v3.6.4-linux-amd64/{name}")
            item.size = 4
            content.addfile(item, io.BytesIO(b"data"))
    return path.as_uri(), hashlib.sha256(path.read_bytes()).hexdigest()


def test_out_of_the_image_that_etcd_runs_from(programs: Programs, tools: Tools) -> None:
    manifest = programs.root / "etc/kubernetes/manifests/etcd.yaml"
    manifest.parent.mkdir(parents=True)
    manifest.write_text(f"spec:\n  containers:\n  - image: {IMAGE}\n    name: etcd\n")
    assert bring(tools, FROM_IMAGE, check_mode=True) == {"changed": True, "origin": IMAGE, "version": None}
    assert bring(tools, FROM_IMAGE, check_mode=False) == {"changed": True, "origin": IMAGE, "version": "3.6.4"}
    path = programs.root / "usr/local/lib/gpufleet/etcd/etcdctl"
    assert (path.read_text(), path.stat().st_mode & 0o777) == ("etcdctl of the image", 0o755)
    assert not [line for line in programs.calls if line.startswith(("kubeadm", "crictl"))]
    assert len([line for line in programs.calls if "images unmount --rm" in line]) == 1
    programs.calls.clear()
    assert bring(tools, FROM_IMAGE, check_mode=False)["changed"] is False
    assert programs.calls == [f"{programs.root}/usr/local/lib/gpufleet/etcd/etcdutl version"]


def test_another_image_brings_other_tools(programs: Programs, tools: Tools) -> None:
    bring(tools, FROM_IMAGE, check_mode=False)
    programs.kubeadm = (0, "registry.k8s.io/etcd:3.7.0-0\n", "")
    assert bring(tools, FROM_IMAGE, check_mode=True)["changed"] is True


def test_an_image_that_is_not_there_is_pulled_by_cri(programs: Programs, tools: Tools) -> None:
    programs.present = False
    bring(tools, FROM_IMAGE, check_mode=False)
    assert f"crictl --runtime-endpoint unix:///run/containerd/containerd.sock pull {IMAGE}" in programs.calls


def test_an_image_without_the_tools_is_unmounted(programs: Programs, tools: Tools) -> None:
    programs.has = ("etcdctl",)
    with pytest.raises(FleetError, match=f"the image {IMAGE} has no etcdutl"):
        bring(tools, FROM_IMAGE, check_mode=False)
    assert [line for line in programs.calls if "images unmount --rm" in line]
    assert tools.installed() is None


def test_a_host_without_etcd_and_kubeadm(programs: Programs, tools: Tools) -> None:
    programs.kubeadm = (127, "", "kubeadm: No such file or directory")
    with pytest.raises(FleetError, match="wanted a control plane or kubeadm, or kubernetes_backup_tools"):
        bring(tools, FROM_IMAGE, check_mode=False)
    assert bring(tools, FROM_IMAGE, check_mode=True) == {"changed": True, "origin": None, "version": None}


def test_out_of_an_archive(programs: Programs, tools: Tools) -> None:
    url, digest = archive(programs.root / "etcd.tar.gz", "etcd", "etcdctl", "etcdutl")
    options = {**FROM_IMAGE, "source": url, "sha256": digest}
    assert bring(tools, options, check_mode=False)["origin"] == f"{url} {digest}"
    assert bring(tools, options, check_mode=False)["changed"] is False
    other = {**options, "sha256": "0" * 64}
    with pytest.raises(FleetError, match=rf"has the SHA-256 {digest}, wanted 0+ \(kubernetes_backup_tools_sha256\)"):
        bring(tools, other, check_mode=False)
    assert tools.installed() == f"{url} {digest}"


def test_archives_that_are_none(programs: Programs, tools: Tools) -> None:
    url, digest = archive(programs.root / "etcd.tar.gz", "etcdctl")
    with pytest.raises(FleetError, match=r"has no etcdutl, wanted an archive of etcd 3\.5 or newer"):
        bring(tools, {**FROM_IMAGE, "source": url, "sha256": digest}, check_mode=False)
    with pytest.raises(FleetError, match="can't be fetched"):
        bring(tools, {**FROM_IMAGE, "source": f"{url}.gone", "sha256": digest}, check_mode=False)
