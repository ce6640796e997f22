# SPDX-License-Identifier: Apache-2.0
"""Copy the working tree to build/ansible_collections/gpufleet/metal, where its import names are true.

ansible-test refuses a tree outside `ansible_collections/<namespace>/<name>` and resolves links, so a real copy is
needed. Uncommitted work is copied as well. Unchanged files keep their times, so caches stay good.
"""

from __future__ import annotations

import filecmp
import shutil
import sys
from pathlib import Path

from .repository import COPY, ROOT, tracked_files

#: What tools write into the copy and may find again.
KEPT = ("tests/output", ".hypothesis", ".pytest_cache", ".ansible")


def synchronize(source: Path, target: Path, names: list[str]) -> tuple[int, int]:
    """Make the target hold exactly the named files of the source; return how many were written and removed."""
    written = removed = 0
    wanted = set(names)
    for path in sorted(target.rglob("*"), reverse=True):
        name = path.relative_to(target).as_posix()
        if any(name == kept or name.startswith(f"{kept}/") or f"{kept}".startswith(f"{name}/") for kept in KEPT):
            continue
        if path.is_dir() and not path.is_symlink():
            if not any(path.iterdir()):
                path.rmdir()
        elif name not in wanted:
            path.unlink()
            removed += 1
    for name in names:
        origin, place = source / name, target / name
        if place.is_file() and filecmp.cmp(origin, place, shallow=False):
            shutil.copymode(origin, place)
            continue
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(origin, place)
        written += 1
    return written, removed


def main() -> int:
    """Bring the copy up to date."""
    COPY.mkdir(parents=True, exist_ok=True)
    names = tracked_files()
    written, removed = synchronize(ROOT, COPY, names)
    print(f"{COPY.relative_to(ROOT)}: {len(names)} files, {written} written, {removed} removed")
    return 0


if __name__ == "__main__":
    sys.exit(main())
