# SPDX-License-Identifier: Apache-2.0
"""The published schema is the code's."""

from __future__ import annotations

from ansible_collections.gpufleet.metal.plugins.module_utils._plan.document import PLAN_SCHEMA
from ansible_collections.gpufleet.metal.tools.checks import plan_schema
from ansible_collections.gpufleet.metal.tools.checks.repository import ROOT


def test_the_file_agrees() -> None:
    """Byte for byte."""
    assert plan_schema.text_of(PLAN_SCHEMA) == (ROOT / plan_schema.DOCUMENT).read_text(encoding="utf-8")
