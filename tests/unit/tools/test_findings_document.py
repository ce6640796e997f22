# SPDX-License-Identifier: Apache-2.0
"""docs/findings.md explains every code, and the check sees when it does not."""

from __future__ import annotations

import pytest

from ansible_collections.gpufleet.metal.plugins.module_utils._gpu.rules import CODES
from ansible_collections.gpufleet.metal.tools.checks import findings
from ansible_collections.gpufleet.metal.tools.checks.repository import ROOT

SOURCE = """
Finding("gpu-1", "no_gpus", "x", "y", "z")
self.report("wrong_type", found, wanted, fix)
reader.report(f"no_{group}", found, wanted, fix)
host.finding("gpu_lost", "x", "y", "z")
code = "made_elsewhere"
report(findings)
"""
DOCUMENT = """\
| Code | About | What it means | How to fix it |
|---|---|---|---|
| `gpu_lost` | host | a | b |
| `made_elsewhere` | host | a | b |
| `no_gpus` | host | a | b |
| `no_gateways` | fleet | a | b |

| `wrong_type` | fleet | a | b |
"""


def used(source: str = SOURCE) -> findings.Used:
    result = findings.Used()
    findings.read_source(source, "a.py", result)
    return result


def test_the_document_and_the_sources_agree() -> None:
    text = (ROOT / findings.DOCUMENT).read_text(encoding="utf-8")
    assert findings.problems(text, findings.read_sources(ROOT)) == []


def test_every_code_that_can_be_ignored_is_used_and_explained() -> None:
    text = (ROOT / findings.DOCUMENT).read_text(encoding="utf-8")
    sections = [part for part in text.split("\n## ") if part.startswith(("Drivers", "Capability", "Health", "Links"))]
    explained = {cells[0].strip("`") for part in sections for __, cells in findings.documented(part)}
    assert explained == set(CODES)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (("| `gpu_lost` | host | a | b |\n", ""), "a.py:5: gpu_lost is not in docs/findings.md"),
        (("| `no_gpus` | host | a | b |\n", ""), "a.py:2: no_gpus is not in docs/findings.md"),
        (("`made_elsewhere`", "`not_made`"), "docs/findings.md:4: not_made is in no source"),
        (("| `gpu_lost` | host | a | b |", "| `gpu_lost` | host | a |"), "docs/findings.md:3: gpu_lost: wanted code, "),
        (
            ("| `wrong_type`", "| `gpu_lost` | host | a | b |\n| `wrong_type`"),
            "docs/findings.md:8: gpu_lost stands in ",
        ),
    ],
)
def test_what_is_wrong_is_named(change: tuple[str, str], problem: str) -> None:
    # The table above is out of order in one place, which is the first problem of each case.
    order, *others = findings.problems(DOCUMENT.replace(*change), used())
    everything = [order, *others]
    assert any(found.startswith(problem) for found in everything), everything


def test_the_order_within_a_table() -> None:
    assert findings.problems(DOCUMENT, used()) == ["docs/findings.md:6: no_gateways belongs before no_gpus"]


def test_a_code_made_of_parts_must_match_one() -> None:
    text = DOCUMENT.replace("| `no_gpus` | host | a | b |\n| `no_gateways` | fleet | a | b |\n", "")
    assert findings.problems(text, used(SOURCE.replace('"no_gpus"', "code"))) == [
        "a.py:4: no code like no_[a-z0-9_]+ is in docs/findings.md"
    ]
