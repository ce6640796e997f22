# SPDX-License-Identifier: Apache-2.0
"""Reports of dcgmi, written by hand after its documentation; none was recorded from hardware."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

import pytest

from ansible_collections.gpufleet.metal.plugins.module_utils._dcgm import diagnose, read_report
from ansible_collections.gpufleet.metal.plugins.module_utils._errors import FleetError


def report(*results: dict[str, Any], key: str = "DCGM Diagnostic", **parts: Any) -> str:
    """Return a report with one test in one category; DCGM 4 has its version beside it."""
    tests = {"test_categories": [{"category": "Hardware", "tests": [{"name": "memory", "results": results}]}]}
    if key == "DCGM Diagnostic":
        return json.dumps({key: tests, "metadata": {"version": "4.6.1"}, **parts})
    return json.dumps({key: {**tests, "version": "3.3.5"}, **parts})


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
    assert read_report(output)[1] == failures


@pytest.mark.parametrize(
    ("output", "version"), [(report(GOOD), "4.6.1"), (report(GOOD, key="DCGM GPU Diagnostic"), "3.3.5")]
)
def test_the_version_is_read(output: str, version: str) -> None:
    assert read_report(output)[0] == version


@pytest.mark.parametrize(
    ("output", "message"),
    [
        ("Error: unable to establish a connection", "dcgmi reported no test, wanted one at least: 'Error: unable"),
        ("{", "dcgmi printed what is no JSON"),
        ("{}", "dcgmi reported no test"),
        (json.dumps({"DCGM Diagnostic": {"test_categories": []}}), "dcgmi reported no test"),
        (report(GOOD, metadata={}), "dcgmi did not report its version: '{"),
        (report(GOOD, metadata=None), "dcgmi did not report its version: '{"),
    ],
)
def test_no_report_is_no_success(output: str, message: str) -> None:
    with pytest.raises(FleetError, match=message):
        read_report(output)


class SimulatedHost:
    """Answers nvidia-smi and dcgmi, and remembers what was asked."""

    def __init__(self, status: int, out: str, err: str = "", busy: str = "") -> None:
        self.answer = (status, out, err)
        self.busy = busy
        self.asked: list[str] = []

    def run(self, argv: Sequence[str], stdin: str | None = None) -> tuple[int, str, str]:
        """Answer one command."""
        self.asked.append(" ".join(argv))
        return (0, self.busy, "") if argv[0] == "nvidia-smi" else self.answer


def test_diagnostics_that_pass() -> None:
    host = SimulatedHost(0, report(GOOD))
    assert diagnose(host.run, 2, "4.6") == "4.6.1"
    assert host.asked == [
        "nvidia-smi --query-compute-apps=gpu_uuid,pid --format=csv,noheader",
        "dcgmi diag --run 2 --json",
    ]


BAD = {"entity_group": "GPU", "entity_id": 3, "status": "Fail", "warnings": [{"warning": "ECC"}]}


@pytest.mark.parametrize(
    ("host", "message"),
    [
        (
            SimulatedHost(226, report(GOOD, BAD)),
            "DCGM's diagnostics of level 1 ended with 226: Hardware, memory on GPU 3: ECC",
        ),
        (SimulatedHost(226, report(GOOD), "stopped"), "DCGM's diagnostics of level 1 ended with 226: stopped"),
        (SimulatedHost(226, report(GOOD)), "DCGM's diagnostics of level 1 ended with 226: no test failed"),
        (
            SimulatedHost(127, "", "dcgmi: No such file or directory"),
            "dcgmi diag ended with 127 and without a report: dcgmi: No such file or directory",
        ),
        (SimulatedHost(0, "\n"), "dcgmi diag ended with 0 and without a report: it said nothing"),
        (
            SimulatedHost(0, report(GOOD, metadata={"version": "4.60.0"})),
            "DCGM 4.60.0 ran the diagnostics, wanted 4.6",
        ),
    ],
)
def test_diagnostics_that_do_not(host: SimulatedHost, message: str) -> None:
    with pytest.raises(FleetError, match=f"^{re.escape(message)}$"):
        diagnose(host.run, 1, "4.6")


def test_a_gpu_in_use_is_not_diagnosed() -> None:
    host = SimulatedHost(0, report(GOOD), busy="GPU-a, 4711\n")
    with pytest.raises(FleetError, match=r"^DCGM needs GPUs that nobody uses, and processes compute on GPU-a by 4711"):
        diagnose(host.run, 1, "4.6")
    assert len(host.asked) == 1
