# SPDX-License-Identifier: Apache-2.0
"""Run mypy --strict on the plugins, on what roles install as programs, and on these tools."""

from __future__ import annotations

import sys

from .repository import COPY, ROOT, report, run


def main() -> int:
    """Check all typed code in the copy, where import names are true."""
    wanted = [COPY / "plugins", COPY / "tools", *sorted(COPY.glob("roles/*/files/*.py"))]
    # What the sandbox runs inside its engine's image imports libraries that exist only there.
    paths = [str(path.relative_to(ROOT)) for path in wanted]
    run([sys.executable, "-m", "mypy", "--config-file", "mypy.ini", "--exclude", "/tools/sandbox/", *paths])
    return report("types", [], "all typed")


if __name__ == "__main__":
    sys.exit(main())
