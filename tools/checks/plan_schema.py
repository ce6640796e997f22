# SPDX-License-Identifier: Apache-2.0
"""Keep docs/plan.schema.json equal to the schema that the planner's code states.

python -m tools.checks.plan_schema --check
python -m tools.checks.plan_schema --write
"""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Sequence
from typing import Any

from .generated import differences, wants_writing
from .repository import COPY, ROOT, report

MODULE = "ansible_collections.gpufleet.metal.plugins.module_utils._plan.document"
DOCUMENT = "docs/plan.schema.json"


def load() -> dict[str, Any]:
    """Return the schema from the copy of the collection, where its import names are true."""
    sys.path.insert(0, str(COPY.parent.parent.parent))
    try:
        schema: dict[str, Any] = importlib.import_module(MODULE).PLAN_SCHEMA
    finally:
        sys.path.pop(0)
    return schema


def text_of(schema: dict[str, Any]) -> str:
    """Return the schema as the file holds it."""
    return json.dumps(schema, indent=2, ensure_ascii=False) + "\n"


def main(arguments: Sequence[str]) -> int:
    """Check or write the file."""
    write = wants_writing("plan_schema", arguments)
    schema = load()
    problems = differences("plan_schema", ROOT / DOCUMENT, "the code", lambda __: text_of(schema), write)
    return report("plan_schema", problems, f"{len(schema['$defs'])} definitions agree")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
