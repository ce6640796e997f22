# SPDX-License-Identifier: Apache-2.0
# PRIVATE to the collection: do not import this from outside, it may change without notice.
"""What ``dcgmi diag --json`` found wrong, in words."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from ansible_collections.gpufleet.metal.plugins.module_utils._errors import FleetError

#: The key that holds the report: DCGM 4, and before.
_REPORTS = ("DCGM Diagnostic", "DCGM GPU Diagnostic")
_FAILED = "fail"


def diagnostic_failures(output: str) -> list[str]:
    """Return a sentence for each test that failed, in the report's order; empty when all passed or were skipped.

    ``output`` is what ``dcgmi diag --json`` printed: categories with tests, each with a result per GPU or other entity.
    A warning without a failure is none. Raises FleetError for an output that holds no test.
    """
    start = output.find("{")
    try:
        document = json.loads(output[start:]) if start >= 0 else None
    except ValueError as fault:
        raise FleetError(f"dcgmi printed what is no JSON ({fault}): {output[:200]!r}") from fault
    reports = [document[key] for key in _REPORTS if isinstance(document, Mapping) and key in document]
    tests = [test for report in reports for test in _tests(report)]
    if not tests:
        raise FleetError(f"dcgmi reported no test, wanted one at least: {output[:200]!r}")
    return [sentence for category, test in tests for sentence in _failures(category, test)]


def _tests(report: Any) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for category in report.get("test_categories", ()) if isinstance(report, Mapping) else ():
        for test in category.get("tests", ()):
            yield str(category.get("category")), test


def _failures(category: str, test: Mapping[str, Any]) -> Iterator[str]:
    for result in test.get("results", ()):
        if str(result.get("status")).lower() != _FAILED:
            continue
        if "entity_id" in result:
            where = f"{result.get('entity_group', 'entity')} {result['entity_id']}"
        else:
            where = f"GPU {result['gpu_id']}" if "gpu_id" in result else "the host"
        said = "; ".join(_words(result.get("warnings")) or _words(result.get("info")) or ["no reason given"])
        yield f"{category}, {test.get('name')} on {where}: {said}"


def _words(value: Any) -> list[str]:
    """Return the texts of a result, which are texts, or mappings with one, alone or in a list."""
    if not value:
        return []
    items = value if isinstance(value, list) else [value]
    return [str(item.get("warning", item) if isinstance(item, Mapping) else item) for item in items]
