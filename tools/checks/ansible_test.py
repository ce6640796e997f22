# SPDX-License-Identifier: Apache-2.0
"""Run `ansible-test units` or `sanity` on the copy of the collection, without a network after the first run.

ansible-test makes one virtual environment for each sanity test and downloads get-pip.py for that from a server of its
own. Python brings pip along, so a stand-in that asks for it is put into ansible-test's cache. The packages of those
environments come from PyPI once and are kept in ~/.ansible/test.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from .repository import COPY, ROOT, report, run

#: The file names that ansible-core asks for; 2.19 asks for this one.
GET_PIP_NAMES = ("get_pip_24_2.py",)
GET_PIP = '''"""Stands in for get-pip.py: installs the pip that this Python brings along."""
import ensurepip

ensurepip.bootstrap(default_pip=True)
'''


def write_get_pip(home: Path) -> list[Path]:
    """Put the stand-in where ansible-test looks before it downloads; return the files that were missing."""
    cache = home / ".ansible" / "test" / "cache"
    cache.mkdir(parents=True, exist_ok=True)
    written = []
    for name in GET_PIP_NAMES:
        path = cache / name
        if not path.exists():
            path.write_text(GET_PIP, encoding="utf-8")
            written.append(path)
    return written


def sanity_ignores(root: Path) -> list[str]:
    """Return a line for each ignored sanity error: the list is empty, and stays so."""
    problems: list[str] = []
    for path in sorted((root / "tests" / "sanity").glob("ignore-*.txt")):
        lines = path.read_text(encoding="utf-8").splitlines()
        problems.extend(f"{path.relative_to(root)}:{number}: {line}" for number, line in enumerate(lines, 1) if line)
    return problems


def main(arguments: Sequence[str]) -> int:
    """Run the asked kind of tests with the Python that runs this."""
    if len(arguments) < 1 or arguments[0] not in ("sanity", "units"):
        print("usage: python -m tools.checks.ansible_test sanity|units [further options of ansible-test]")
        return 2
    kind, *further = arguments
    if kind == "sanity":
        problems = sanity_ignores(ROOT)
        if problems:
            return report("sanity ignore list", problems, "")
        write_get_pip(Path.home())
    elif not any((COPY / "tests" / "unit").rglob("test_*.py")):
        return report("units", ["tests/unit holds no test_*.py: nothing was tested"], "")
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    run(["ansible-test", kind, "--python", python, *further], COPY, {"ANSIBLE_TEST_CONTENT_ROOT": str(COPY)})
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
