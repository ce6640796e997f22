# SPDX-License-Identifier: Apache-2.0
"""The collection as a user gets it: built from the working tree and installed with no network."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
COPY = ROOT / "build" / "ansible_collections" / "gpufleet" / "metal"
TOOLS = Path(sys.executable).parent


def run(command: Sequence[str], cwd: Path, environment: dict[str, str]) -> str:
    """Run a command with nothing of the caller's Ansible settings and return what it printed."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("ANSIBLE_")}
    done = subprocess.run(
        [str(TOOLS / command[0]), *command[1:]],
        cwd=cwd,
        env={**inherited, "PATH": f"{TOOLS}{os.pathsep}{os.environ['PATH']}", "NO_COLOR": "1", **environment},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{' '.join(command)} ended with {done.returncode}:\n{done.stdout}"
    return done.stdout


def tracked_files() -> set[str]:
    """Return the files that git has or would take."""
    command = ["git", "-C", str(ROOT), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    return set(subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout.split("\0"))


@dataclass(frozen=True)
class Installed:
    """An installed artefact and a place to run it from, far from the clone."""

    artefact: Path
    collections: Path
    place: Path

    @property
    def environment(self) -> dict[str, str]:
        """The only settings of a run: where the artefact is, and a home with nothing in it."""
        return {"ANSIBLE_COLLECTIONS_PATH": str(self.collections), "ANSIBLE_HOME": str(self.place / "home")}

    def members(self) -> set[str]:
        """Return the names of the files in the artefact."""
        with tarfile.open(self.artefact) as archive:
            return {member.name for member in archive if member.isfile()}

    def inventory(self, name: str, target: Path) -> Path:
        """Copy one of the clone's inventories, so that a run writes nothing into the clone."""
        shutil.copytree(ROOT / "inventories" / name, target, ignore=shutil.ignore_patterns(".gpufleet"))
        return target
