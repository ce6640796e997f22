# SPDX-License-Identifier: Apache-2.0
"""Reports of dcgmi, written by hand after its documentation; none was recorded from hardware."""

from __future__ import annotations

import json
from typing import Any

import pytest

from ansible_collections.gpufleet.metal.plugins.module_utils._dcgm import diagnostic_failures
from ansible_collections.gpufleet.metal.plugins.module_utils._errors import FleetError


def report(*results: dict[str, Any], key: str = "DCGM Diagnostic") -> str:
    """Return a report with one test in one category."""
    return json.dumps(
        {key: {"test_categories": [{"category": "Hardware", "tests": [{"name": "memory", "results": results}]}]}}
    )


GOOD = {"entity_group": "GPU", "entity_id": 0, "status": "Pass"}


@pytest.mark.parametrize(
    ("output", "failures"),
    [
        (report(GOOD), []),
        (report(GOOD, {"entity_group": "GPU", "entity_id": 1, "status": "Skip"}), []),
        (report({"entity_id": 1, "status": "Warn", "warnings": [{"warning": "hot"}]}), []),
        (
            report(GOOD, {"entity_group": "GPU", "entity_id": 3, "status": "Fail", "warnings": [{"warning": "ECC"}]}),
            ["Hardware, memory on GPU 3: ECC"],
        ),
        # DCGM 3.
        (
            report({"gpu_id": "2", "status": "FAIL", "warnings": "one; two"}, key="DCGM GPU Diagnostic"),
            ["Hardware, memory on GPU 2: one; two"],
        ),
        (report({"status": "Fail"}), ["Hardware, memory on the host: no reason given"]),
        ("Successfully ran diagnostic for group.\n" + report(GOOD), []),
    ],
)
def test_only_failures_count(output: str, failures: list[str]) -> None:
    assert diagnostic_failures(output) == failures


@pytest.mark.parametrize(
    ("output", "message"),
    [
        ("Error: unable to establish a connection", "dcgmi reported no test, wanted one at least: 'Error: unable"),
        ("{", "dcgmi printed what is no JSON"),
        ("{}", "dcgmi reported no test"),
        (json.dumps({"DCGM Diagnostic": {"test_categories": []}}), "dcgmi reported no test"),
    ],
)
def test_no_report_is_no_success(output: str, message: str) -> None:
    with pytest.raises(FleetError, match=message):
        diagnostic_failures(output)
