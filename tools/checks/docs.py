# SPDX-License-Identifier: Apache-2.0
"""Run antsibull-docs' linter on the documentation of plugins, modules and roles."""

from __future__ import annotations

import sys

from .repository import COPY, ROOT, report, run


def main() -> int:
    """Lint the copy's documentation."""
    environment = {"ANSIBLE_COLLECTIONS_PATH": str(ROOT / "build")}
    run(["antsibull-docs", "lint-collection-docs", "--plugin-docs", "."], COPY, environment)
    return report("docs", [], "no finding")


if __name__ == "__main__":
    sys.exit(main())
