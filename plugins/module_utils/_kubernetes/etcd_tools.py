# SPDX-License-Identifier: Apache-2.0
# PRIVATE to the collection: do not import this from outside, it may change without notice.
"""Bring etcdctl and etcdutl to a control plane: out of the image that etcd runs from, or an archive.

Not from packages: Debian's etcdutl is in the package of the server, which would start an etcd beside kubeadm's.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shutil
import tarfile
import tempfile
from collections.abc import Iterator
from typing import Any

from ansible_collections.gpufleet.metal.plugins.module_utils import _download
from ansible_collections.gpufleet.metal.plugins.module_utils._commands import Runner
from ansible_collections.gpufleet.metal.plugins.module_utils._errors import FleetError

PROGRAMS = ("etcdctl", "etcdutl")
DIRECTORY = "usr/local/lib/gpufleet/etcd"
MANIFESTS = ("etc/kubernetes/manifests/etcd.yaml", "var/lib/gpufleet/kubernetes_restore/manifests/etcd.yaml")
_SOCKET = "unix:///run/containerd/containerd.sock"
_IMAGE_DIRECTORIES = ("usr/local/bin", "usr/bin", "bin")
_BLOCK = 1024 * 1024


def image_of(manifest: str) -> str | None:
    """Return the image of a static Pod's manifest."""
    found = re.search(r"^\s*(?:- )?image:\s*[\"']?([^\s\"']+)", manifest, re.M)
    return found.group(1) if found else None


def version_in(text: str) -> str | None:
    """Return the version that ``etcdutl version`` prints."""
    found = re.search(r"etcdutl version:\s*([0-9]+\.[0-9]+\.[0-9]+)", text)
    return found.group(1) if found else None


class Tools:
    """The tools of one host."""

    def __init__(self, run: Runner, root: str = "/") -> None:
        self.run = run
        self.root = root

    def _path(self, name: str) -> str:
        return os.path.join(self.root, name.lstrip("/"))

    def origin(self, source: str, sha256: str | None, version: str | None, repository: str | None) -> str:
        """What the tools are to be made of; the same text as long as nothing has to be done."""
        if source != "image":
            return f"{source} {sha256}"
        return self.image(version, repository)

    def image(self, version: str | None, repository: str | None) -> str:
        """The image that etcd runs from here, or would."""
        for name in MANIFESTS:
            with (
                contextlib.suppress(FileNotFoundError, NotADirectoryError),
                open(self._path(name), encoding="utf-8") as stream,
            ):
                found = image_of(stream.read())
                if found:
                    return found
        argv = ["kubeadm", "config", "images", "list"]
        argv += ["--kubernetes-version", f"v{version}"] if version else []
        argv += ["--image-repository", repository] if repository else []
        status, out, err = self.run(argv)
        images = [line.strip() for line in out.splitlines() if "/etcd:" in line]
        if status != 0 or not images:
            raise FleetError(
                f"found no image of etcd (/{MANIFESTS[0]} is not there, and kubeadm config images list says "
                f"{(err or out).strip() or 'nothing'}), wanted a control plane or kubeadm, or kubernetes_backup_tools"
            )
        return images[0]

    def installed(self) -> str | None:
        """What those here were made of."""
        try:
            with open(self._path(f"{DIRECTORY}/origin"), encoding="utf-8") as stream:
                origin = stream.read().strip()
        except FileNotFoundError:
            return None
        return origin if all(os.path.isfile(self._path(f"{DIRECTORY}/{name}")) for name in PROGRAMS) else None

    def version(self) -> str | None:
        """The version of etcdutl, None where there is none."""
        status, out, __ = self.run([self._path(f"{DIRECTORY}/etcdutl"), "version"])
        return version_in(out) if status == 0 else None

    def raises_revisions(self) -> bool:
        """Whether etcdutl can let a restored cluster begin above every revision that anybody has seen."""
        out = self.run([self._path(f"{DIRECTORY}/etcdutl"), "snapshot", "restore", "--help"])[1]
        return "--bump-revision" in out and "--mark-compacted" in out

    def install(self, source: str, sha256: str | None, origin: str) -> None:
        """Bring them, and write down what of; a run that is killed has brought nothing."""
        with tempfile.TemporaryDirectory(prefix="gpufleet-etcd-") as work:
            taken = self._from_image(origin, work) if source == "image" else self._from_archive(source, sha256, work)
            with taken as found:
                self._place(found, origin)

    def _place(self, found: dict[str, str], origin: str) -> None:
        target = self._path(DIRECTORY)
        os.makedirs(target, mode=0o755, exist_ok=True)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(os.path.join(target, "origin"))
        for name, path in found.items():
            beside = os.path.join(target, f".{name}.new")
            shutil.copyfile(path, beside)
            os.chmod(beside, 0o755)
            os.replace(beside, os.path.join(target, name))
        with open(os.path.join(target, "origin"), "w", encoding="utf-8") as stream:
            stream.write(f"{origin}\n")

    @contextlib.contextmanager
    def _from_image(self, image: str, work: str) -> Iterator[dict[str, str]]:
        """The programs in an image, which is mounted for reading meanwhile and never run."""
        ctr = ["ctr", "--namespace", "k8s.io", "images"]
        present = self.run([*ctr, "list", "--quiet", f"name=={image}"])[1].split()
        if image not in present:
            # By CRI, which knows the registry's mirrors.
            self._must(["crictl", "--runtime-endpoint", _SOCKET, "pull", image], f"crictl pull {image}")
        self._must([*ctr, "mount", image, work], f"ctr images mount {image}")
        try:
            found = {}
            for name in PROGRAMS:
                places = [os.path.join(work, directory, name) for directory in _IMAGE_DIRECTORIES]
                there = [place for place in places if os.path.isfile(place)]
                if not there:
                    raise FleetError(f"the image {image} has no {name}, wanted it in /usr/local/bin")
                found[name] = there[0]
            yield found
        finally:
            self._must([*ctr, "unmount", "--rm", work], f"ctr images unmount of {image}")

    @contextlib.contextmanager
    def _from_archive(self, url: str, sha256: str | None, work: str) -> Iterator[dict[str, str]]:
        """The programs in an archive as the project of etcd releases it."""
        path = os.path.join(work, "archive")
        digest = hashlib.sha256()
        try:
            with _download.open_url(url) as answer, open(path, "wb") as stream:
                while block := answer.read(_BLOCK):
                    digest.update(block)
                    stream.write(block)
        except OSError as fault:
            raise FleetError(f"kubernetes_backup_tools: {url} can't be fetched: {fault}") from fault
        if digest.hexdigest() != sha256:
            raise FleetError(
                f"{url} has the SHA-256 {digest.hexdigest()}, wanted {sha256} (kubernetes_backup_tools_sha256)"
            )
        found = {}
        with tarfile.open(path) as archive:
            for member in archive:
                name = os.path.basename(member.name)
                if name in PROGRAMS and member.isfile():
                    source: Any = archive.extractfile(member)
                    found[name] = os.path.join(work, name)
                    with open(found[name], "wb") as stream:
                        shutil.copyfileobj(source, stream)
        missing = [name for name in PROGRAMS if name not in found]
        if missing:
            raise FleetError(f"{url} has no {' and no '.join(missing)}, wanted an archive of etcd 3.5 or newer")
        yield found

    def _must(self, argv: list[str], what: str) -> None:
        status, out, err = self.run(argv)
        if status != 0:
            raise FleetError(f"{what} ended with exit status {status}: {(err or out).strip()[-800:]}")
