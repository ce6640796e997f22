# SPDX-License-Identifier: Apache-2.0
"""The filters are thin: they pass the pure functions' answers on and translate their errors."""

from __future__ import annotations

import pytest
import yaml
from ansible.errors import AnsibleFilterError

from ansible_collections.gpufleet.metal.plugins.filter import (
    findings_report,
    gpu_inventory_document,
    preflight_findings,
)

FACTS = {"simulated": False, "driver_version": None, "cuda_version": None, "nvswitch_count": 0, "gpus": []}


@pytest.mark.parametrize("module", [findings_report, gpu_inventory_document, preflight_findings])
def test_each_file_has_its_filter_and_documents_it(module: object) -> None:
    (name,) = module.FilterModule().filters()  # type: ignore[attr-defined]
    assert yaml.safe_load(module.DOCUMENTATION)["name"] == name  # type: ignore[attr-defined]


def test_gpu_inventory_document() -> None:
    text = gpu_inventory_document.gpu_inventory_document(FACTS, "gpu-1")
    assert yaml.safe_load(text) == {"gpu_inventory": FACTS}
    with pytest.raises(AnsibleFilterError, match=r"^gpu_inventory_document: found input without 'gpus'; wanted "):
        gpu_inventory_document.gpu_inventory_document({}, "gpu-1")


def test_preflight_findings() -> None:
    facts = {
        "distribution": "Debian",
        "distribution_version": "13",
        "architecture": "x86_64",
        "service_mgr": "systemd",
        "python": {"version": {"major": 3, "minor": 13}},
    }
    supported = [{"name": "Debian", "versions": ["13"]}]
    assert preflight_findings.preflight_findings(facts, "gpu-1", supported) == []
    with pytest.raises(AnsibleFilterError, match=r"^gpu-1: expected 1 GPU, but found no GPU facts; "):
        preflight_findings.preflight_findings(facts, "gpu-1", supported, expected_gpus=[{}])


def test_preflight_findings_holds_gpus_against_requirements() -> None:
    gpu = {"pci_address": "0000:31:00.0", "device_id": "27B8", "product": "L4", "uuid": None}
    seen = {**gpu, "memory_mib": 23034, "compute_capability": "8.9"}
    facts = {"gpu": {"simulated": False, "driver_version": None, "driver_state": "absent", "gpus": [seen]}}

    def codes(**wanted: object) -> list[str]:
        found = preflight_findings.preflight_findings(facts, "gpu-1", [], expected_gpus=[gpu], requirements=wanted)
        return [finding["code"] for finding in found if finding["code"].startswith("gpu_")]

    assert codes() == []
    assert codes(memory_tier="production") == ["gpu_memory_too_small"]
    assert codes(memory_tier="production", ignored_codes=["gpu_memory_too_small"]) == []
    with pytest.raises(AnsibleFilterError, match=r"^memory_tier: found 'huge', wanted one of any, development, "):
        codes(memory_tier="huge")


def test_a_host_that_was_not_reached_has_one_finding() -> None:
    (finding,) = preflight_findings.preflight_findings({}, "gw-1", [], reached=False)
    assert (finding["host"], finding["code"]) == ("gw-1", "host_unreachable")


def test_findings_report() -> None:
    assert findings_report.findings_report([]) == ""
    assert "host gw-1: host_unreachable" in findings_report.findings_report([], unreachable=["gw-1"])
    with pytest.raises(AnsibleFilterError, match=r"^findings_report: found a finding without host, "):
        findings_report.findings_report([{}])
