# SPDX-License-Identifier: Apache-2.0
"""What the checks need to know about the repository: its files, its roles, and how to report."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parent.parent.parent
COPY = ROOT / "build" / "ansible_collections" / "gpufleet" / "metal"


class CheckError(ValueError):
    """Something that a check reads is not as it must be."""


class Loader(yaml.SafeLoader):  # type: ignore[misc]  # PyYAML has no types
    """Reads Ansible's YAML: values with a tag of Ansible's (`!vault`, `!unsafe`) become plain text."""


def _plain(loader: Loader, _suffix: str, node: Any) -> Any:
    if isinstance(node, yaml.ScalarNode):
        return loader.construct_scalar(node)
    if isinstance(node, yaml.SequenceNode):
        return loader.construct_sequence(node, deep=True)
    return loader.construct_mapping(node, deep=True)


Loader.add_multi_constructor("!", _plain)


def load_yaml(path: Path) -> Any:
    """Return the value of a YAML file; an empty file and an absent one are None."""
    if not path.is_file():
        return None
    try:
        # Loader is a SafeLoader, so this constructs plain values only.
        return yaml.load(path.read_text(encoding="utf-8"), Loader=Loader)
    except yaml.YAMLError as error:
        raise CheckError(f"{path}: not YAML: {error}") from error


def tracked_files(root: Path = ROOT) -> list[str]:
    """Return the paths that git has or would take, sorted: uncommitted work counts, ignored files do not."""
    command = ["git", "-C", str(root), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, check=False, capture_output=True, text=True)
    if listed.returncode != 0:
        raise CheckError(f"{' '.join(command)} ended with {listed.returncode}: {listed.stderr.strip()}")
    return sorted({name for name in listed.stdout.split("\0") if name and (root / name).is_file()})


def roles(root: Path = ROOT) -> list[Path]:
    """Return the directories of the roles, sorted by name; raise CheckError where there is none to check."""
    found = sorted(path.parent.parent for path in root.glob("roles/*/tasks/main.yml"))
    if not found:
        raise CheckError(f"{root}: roles/*/tasks/main.yml: found no role")
    return found


def report(name: str, problems: Sequence[str], good: str) -> int:
    """Print problems, or the good news, and return the exit status."""
    for problem in problems:
        print(problem)
    if problems:
        print(f"{name}: {len(problems)} problem{'s' if len(problems) != 1 else ''}")
        return 1
    print(f"{name}: {good}")
    return 0


def run(command: Sequence[str], cwd: Path = ROOT, environment: dict[str, str] | None = None) -> None:
    """Show a command, run it, and end this check with its status if it fails.

    The tools beside this Python come first, and I(environment) is added to what this process has.
    """
    print(f"$ {' '.join(command)}", flush=True)
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
    merged = {**os.environ, "PATH": path, **(environment or {})}
    code = subprocess.run(command, cwd=cwd, env=merged, check=False).returncode
    if code != 0:
        print(f"exit status {code}")
        sys.exit(1)
