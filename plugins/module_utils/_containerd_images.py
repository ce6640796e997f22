# SPDX-License-Identifier: Apache-2.0
# PRIVATE to the collection: do not import this from outside, it may change without notice.
"""One image in containerd's namespace of Kubernetes, as kubelet needs one that is never pulled: named and pinned.

Source: ctr's own help, and containerd's CRI plugin, which pins what carries the label and takes in what others import.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Callable, Mapping, Sequence
from typing import Any, BinaryIO

from ansible_collections.gpufleet.metal.plugins.module_utils._docker import ImageReference
from ansible_collections.gpufleet.metal.plugins.module_utils._errors import FleetError

ROOT = "/var/lib/containerd"
SOCKET = "/run/containerd/containerd.sock"
ROOM = "make room"
PINNED = "io.cri-containerd.pinned=pinned"
_CTR = ("ctr", "--namespace", "k8s.io", "images")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")

Command = Callable[..., "tuple[int, str, str]"]
"""(argv, what to read from or None) -> (exit status, stdout, stderr)."""


class ContainerdError(FleetError):
    """containerd could not be asked, or did not do it."""


class ContainerdUnavailableError(ContainerdError):
    """There is no containerd."""


def command(argv: Sequence[str], stdin: BinaryIO | None = None) -> tuple[int, str, str]:
    """Run a command that may read from a file. One that does not exist exits with 127."""
    if stdin is not None:
        # What Python has read ahead would be missing.
        os.lseek(stdin.fileno(), 0, os.SEEK_SET)
    try:
        done = subprocess.run(
            list(argv),
            stdin=subprocess.DEVNULL if stdin is None else stdin,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            check=False,
            env={**os.environ, "LC_ALL": "C.UTF-8"},
        )
    except OSError as fault:
        return 127, "", f"{argv[0]}: {fault.strerror}"
    return done.returncode, done.stdout, done.stderr


def full_name(reference: ImageReference) -> str:
    """Return the name by which kubelet asks for an image: with its registry, and Docker Hub's images in ``library``."""
    name = reference.lookup_name
    if reference.repository.startswith(f"{reference.registry}/"):
        return name
    return f"{reference.registry}/{name}" if "/" in reference.repository else f"{reference.registry}/library/{name}"


def parse_list(text: str) -> dict[str, tuple[str, bool]]:
    """Return digest and whether it is pinned, by name, of what ``ctr images list`` prints."""
    images = {}
    for line in text.splitlines()[1:]:
        words = line.split()
        digest = _DIGEST.search(line)
        if words and digest:
            images[words[0]] = (digest.group(), PINNED in words[-1].split(","))
    return images


class Containerd:
    """The engine for :class:`_images.Store`. It knows the one name that is wanted, and that only with its pin."""

    def __init__(self, reference: ImageReference, run: Command = command, socket: str = SOCKET) -> None:
        self._wanted = full_name(reference)
        self._run = run
        self._socket = socket

    def ping(self) -> None:
        """Raise ContainerdUnavailableError where there is no containerd."""
        self._images()

    def info(self) -> dict[str, Any]:
        """Where it keeps images."""
        return {"DockerRootDir": ROOT}

    def image(self, name: str) -> dict[str, Any] | None:
        """The wanted image, by its digest or its name; None when it is not there whole, named and pinned."""
        digest, pinned = self._images().get(self._wanted, ("", False))
        return {"Id": digest} if pinned and name in (digest, self._wanted) else None

    def load(self, archive: BinaryIO, length: int) -> list[str]:
        """Import an archive; give its image the wanted name, if it has one alone, and pin it."""
        # containerd 2 shows progress in a table of its own otherwise, and cuts names at 40 characters there.
        how = ["--local"] if "--local" in self._ctr("import", "--help") else []
        said = self._ctr("import", *how, "-", stdin=archive)
        known = self._images()
        names = sorted(known.keys() & set(re.split(r"[\s()]+", said)))
        if self._wanted not in names:
            if len({known[name][0] for name in names}) != 1:
                return names
            self._ctr("tag", "--force", names[0], self._wanted)
        # Last: without it, kubelet may remove what it can't pull again, and the next run imports once more.
        self._ctr("label", self._wanted, PINNED)
        return [self._wanted]

    def pull(self, reference: ImageReference, credentials: Mapping[str, str] | None = None) -> None:
        """It is kubelet who pulls."""
        raise ContainerdError(f"the image {reference.lookup_name} has no archive, wanted one: kubelet pulls the others")

    def _images(self) -> dict[str, tuple[str, bool]]:
        return parse_list(self._ctr("list"))

    def _ctr(self, *words: str, stdin: BinaryIO | None = None) -> str:
        status, out, err = self._run([*_CTR, *words], stdin)
        if status != 0:
            kind = ContainerdError if os.path.exists(self._socket) else ContainerdUnavailableError
            raise kind(f"{' '.join([*_CTR, *words])} ended with {status}: {(err or out).strip()[-600:]}")
        return out
