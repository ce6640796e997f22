# SPDX-License-Identifier: Apache-2.0
"""Run shellcheck on every shell script of the repository, also on those without a suffix."""

from __future__ import annotations

import re
import shutil
import sys
from pathlib import Path

from .repository import ROOT, report, run, tracked_files

SHEBANG = re.compile(rb"#!\s*/(?:usr/)?bin/(?:env )?(?:ba)?sh\b")


def is_script(path: Path) -> bool:
    """Say whether a file is a shell script, by its name or its first line."""
    if path.suffix == ".sh":
        return True
    with path.open("rb") as stream:
        return SHEBANG.match(stream.readline(80)) is not None


def main() -> int:
    """Check every script."""
    if shutil.which("shellcheck") is None:
        return report("shell", ["shellcheck is not installed; on Debian and Ubuntu: apt-get install shellcheck"], "")
    # A template is a script only once it is rendered.
    scripts = [name for name in tracked_files() if not name.endswith(".j2") and is_script(ROOT / name)]
    if scripts:
        run(["shellcheck", "--external-sources", *scripts])
    return report("shell", [], f"{len(scripts)} scripts are clean")


if __name__ == "__main__":
    sys.exit(main())
