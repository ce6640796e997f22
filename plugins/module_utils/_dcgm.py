# SPDX-License-Identifier: Apache-2.0
# PRIVATE to the collection: do not import this from outside, it may change without notice.
"""Run DCGM's diagnostics and say what they found wrong, in words.

Source: the report of ``dcgmi diag --json``. DCGM 4 has its version in ``metadata`` beside the report, DCGM 3 within.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from ansible_collections.gpufleet.metal.plugins.module_utils._commands import Runner
from ansible_collections.gpufleet.metal.plugins.module_utils._driver_packages import matches
from ansible_collections.gpufleet.metal.plugins.module_utils._driver_state import check_idle
from ansible_collections.gpufleet.metal.plugins.module_utils._errors import FleetError

#: The key that holds the report: DCGM 4, and before.
_REPORTS = ("DCGM Diagnostic", "DCGM GPU Diagnostic")
_FAILED = "fail"


def diagnose(ask: Runner, level: int, wanted: str) -> str:
    """Run the diagnostics on GPUs that nobody uses, and return the version of the DCGM that ran them.

    Args:
        ask: a runner with a deadline: a broken GPU can keep the diagnostics for ever.
        level: of the diagnostics, 1 to 4.
        wanted: DCGM's line, such as 4.6.

    Raises:
        FleetError: a GPU is in use, no report came, another line of DCGM answered, or a test failed.
    """
    check_idle(ask, "DCGM")
    status, out, err = ask(["dcgmi", "diag", "--run", str(level), "--json"])
    if not out.strip():
        # No dcgmi, or no host engine.
        raise FleetError(f"dcgmi diag ended with {status} and without a report: {err.strip() or 'it said nothing'}")
    version, failures = read_report(out)
    if not matches(version, wanted):
        raise FleetError(f"DCGM {version} ran the diagnostics, wanted {wanted}")
    if failures or status != 0:
        said = "; ".join(failures) or err.strip() or "no test failed"
        raise FleetError(f"DCGM's diagnostics of level {level} ended with {status}: {said}")
    return version


def read_report(output: str) -> tuple[str, list[str]]:
    """Return DCGM's version, and a sentence for each test that failed, in the report's order.

    ``output`` is what ``dcgmi diag --json`` printed: categories with tests, each with a result per GPU or other entity.
    A test that was skipped, or only warned, has not failed. Raises FleetError for an output that holds no test.
    """
    start = output.find("{")
    try:
        document: Any = json.loads(output[start:]) if start >= 0 else {}
    except ValueError as fault:
        raise FleetError(f"dcgmi printed what is no JSON ({fault}): {output[:200]!r}") from fault
    reports = [document[key] for key in _REPORTS if key in document]
    tests = [test for report in reports for test in _tests(report)]
    if not tests:
        raise FleetError(f"dcgmi reported no test, wanted one at least: {output[:200]!r}")
    versions = [part["version"] for part in (document.get("metadata"), *reports) if part and "version" in part]
    if not versions:
        raise FleetError(f"dcgmi did not report its version: {output[:200]!r}")
    return str(versions[0]), [sentence for category, test in tests for sentence in _failures(category, test)]


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
