# SPDX-License-Identifier: Apache-2.0
"""Findings of one host, word by word, and the report of many."""

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.gpufleet.metal.plugins.module_utils._errors import InvalidInputError
from ansible_collections.gpufleet.metal.plugins.module_utils._gpu.check import (
    Finding,
    host_findings,
    unreachable_finding,
)
from ansible_collections.gpufleet.metal.plugins.module_utils._gpu.report import report
from ansible_collections.gpufleet.metal.plugins.module_utils._gpu.requirements import requirements
from ansible_collections.gpufleet.metal.plugins.module_utils._gpu.rules import CODES

SYSTEM = {
    "distribution": "Debian",
    "distribution_version": "12.11",
    "distribution_major_version": "12",
    "architecture": "x86_64",
    "service_mgr": "systemd",
    "python": {"version": {"major": 3, "minor": 11}, "executable": "/usr/bin/python3"},
}
SUPPORTED = [{"name": "Debian", "versions": ["12", "13"]}, {"name": "Ubuntu", "versions": ["24.04"]}]
ONE = {"pci_address": "0000:17:00.0", "device_id": "2330", "product": "H100 SXM5 80GB", "uuid": "GPU-1"}
TWO = {"pci_address": "0000:3d:00.0", "device_id": "2330", "product": "H100 SXM5 80GB", "uuid": "GPU-2"}
DISCOVER = "if the hardware was changed on purpose, run the playbook gpufleet.metal.discover and commit the record"


def seen(*gpus: dict[str, Any], simulated: bool = False, driver: str | None = "580.105.08") -> dict[str, Any]:
    described = {"memory_mib": 81559, "compute_capability": "9.0", "subsystem_id": "10DE:16C1"}
    return {"simulated": simulated, "driver_version": driver, "gpus": [{**described, **gpu} for gpu in gpus]}


def finding(code: str, found: str, wanted: str, fix: str) -> Finding:
    return {"host": "gpu-1", "code": code, "found": found, "wanted": wanted, "fix": fix}


@pytest.mark.parametrize(
    "observed",
    [
        seen(ONE, TWO),
        seen(TWO, ONE),
        seen({**ONE, "uuid": None}, {**TWO, "uuid": None}, driver=None),
    ],
    ids=["as recorded", "in another order", "before a driver"],
)
def test_nothing_to_find(observed: dict[str, Any]) -> None:
    assert host_findings("gpu-1", SYSTEM, SUPPORTED, [ONE, TWO], observed, expected_simulated=False) == []


def test_a_record_without_uuids_does_not_compare_them() -> None:
    assert host_findings("gpu-1", SYSTEM, SUPPORTED, [{**ONE, "uuid": None}], seen(ONE)) == []


@pytest.mark.parametrize(
    ("observed", "expected"),
    [
        (
            seen(ONE),
            finding(
                "gpu_missing",
                "1 GPU: 0000:17:00.0 (H100 SXM5 80GB, 10DE:2330)",
                "2 GPUs, among them 0000:3d:00.0 (H100 SXM5 80GB, 10DE:2330)",
                f"look for the card in lspci, the slot and the host's event log; {DISCOVER}",
            ),
        ),
        (
            seen(ONE, {**TWO, "device_id": "2331", "product": "H100 PCIe"}),
            finding(
                "gpu_replaced",
                "0000:3d:00.0 (H100 PCIe, 10DE:2331)",
                "0000:3d:00.0 (H100 SXM5 80GB, 10DE:2330), as recorded",
                DISCOVER,
            ),
        ),
        (
            seen(ONE, {**TWO, "uuid": "GPU-9"}),
            finding(
                "gpu_uuid_changed",
                "GPU-9 at 0000:3d:00.0",
                "GPU-2, as recorded",
                f"the card was exchanged or moved; {DISCOVER}",
            ),
        ),
        (
            seen(ONE, {**TWO, "uuid": None, "in_driver": False}),
            finding(
                "gpu_not_in_driver",
                "driver 580.105.08 does not report 0000:3d:00.0 (H100 SXM5 80GB)",
                "a driver that reports every GPU on the PCI bus",
                "look for Xid and NVRM messages in the kernel's log (journalctl -k); reset the GPU or reboot the host, "
                "and have the card checked if it happens again",
            ),
        ),
        (
            seen(ONE, TWO, {**TWO, "pci_address": "0000:60:00.0"}),
            finding(
                "gpu_not_recorded",
                "0000:60:00.0 (H100 SXM5 80GB, 10DE:2330)",
                "2 GPUs: 0000:17:00.0 (H100 SXM5 80GB, 10DE:2330), 0000:3d:00.0 (H100 SXM5 80GB, 10DE:2330), "
                "as recorded",
                f"the plan cannot use it; {DISCOVER}",
            ),
        ),
        (
            seen(ONE, TWO, simulated=True),
            finding(
                "simulation_mismatch",
                "simulated GPUs",
                "real GPUs, as recorded (gpu_inventory.simulated)",
                f"check fleet_sysfs_root and fleet_nvml_library of this host; {DISCOVER}",
            ),
        ),
    ],
    ids=lambda value: value.get("code", ""),
)
def test_gpus(observed: dict[str, Any], expected: Finding) -> None:
    assert host_findings("gpu-1", SYSTEM, SUPPORTED, [ONE, TWO], observed, expected_simulated=False) == [expected]


def test_a_card_that_the_driver_does_not_report_is_found_without_a_recorded_uuid() -> None:
    observed = seen(ONE, {**TWO, "uuid": None, "in_driver": False})
    recorded = [{**ONE, "uuid": None}, {**TWO, "uuid": None}]
    assert [item["code"] for item in host_findings("gpu-1", SYSTEM, SUPPORTED, recorded, observed)] == [
        "gpu_not_in_driver"
    ]


@pytest.mark.parametrize("observed", [True, None], ids=["split", "not told"])
def test_a_gpu_that_is_split_as_expected(observed: bool | None) -> None:
    gpu = {**ONE, "mig_enabled": observed}
    assert host_findings("gpu-1", SYSTEM, SUPPORTED, [{**ONE, "mig": "split", "split": True}], seen(gpu)) == []


def test_a_gpu_that_nobody_has_split() -> None:
    gpu = {**ONE, "mig_enabled": False}
    assert host_findings("gpu-1", SYSTEM, SUPPORTED, [{**ONE, "mig": "split", "split": True}], seen(gpu)) == [
        finding(
            "mig_disabled",
            "0000:17:00.0 (H100 SXM5 80GB, 10DE:2330) is whole",
            "split by MIG, as nvidia_driver_mig says",
            "have whoever cares for this host's driver split it, or take the GPU out of nvidia_driver_mig",
        )
    ]
    # Where the fleet carries the driver, its stage splits it.
    assert host_findings("gpu-1", SYSTEM, SUPPORTED, [{**ONE, "mig": "split", "split": False}], seen(gpu)) == []


def test_no_gpu_at_all() -> None:
    findings = host_findings("gpu-1", SYSTEM, SUPPORTED, [ONE], seen())
    assert [(item["code"], item["found"]) for item in findings] == [("gpu_missing", "0 GPUs: none")]


def test_an_unknown_device_that_nobody_describes() -> None:
    unknown = {
        "pci_address": "0000:60:00.0",
        "device_id": "FFFE",
        "subsystem_id": None,
        "product": None,
        "memory_mib": None,
        "compute_capability": None,
        "uuid": None,
    }
    findings = host_findings("gpu-1", SYSTEM, SUPPORTED, [ONE], seen(ONE, unknown))
    assert [item["code"] for item in findings] == ["gpu_not_recorded", "gpu_unknown"]
    assert findings[1] == finding(
        "gpu_unknown",
        "0000:60:00.0 (unknown device, 10DE:FFFE), subsystem not readable",
        "a product of the catalogue (docs/gpu_catalogue.md), or a driver that describes the device",
        "take the device out of this host, install its driver by hand and run gpufleet.metal.discover, "
        "or add the product to the catalogue with a source for every number",
    )


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (
            {"distribution": "Fedora", "distribution_version": "44", "distribution_major_version": "44"},
            finding(
                "distribution_unsupported",
                "Fedora 44",
                "one of: Debian 12, 13; Ubuntu 24.04",
                "install a supported distribution, or add this one to preflight_supported_distributions "
                "after testing it",
            ),
        ),
        (
            {"architecture": "ppc64le"},
            finding(
                "architecture_unsupported",
                "ppc64le",
                "one of: x86_64, aarch64",
                "use a host with a supported processor: drivers, packages and images exist for these only",
            ),
        ),
        (
            {"service_mgr": "openrc"},
            finding(
                "service_manager_unsupported",
                "openrc",
                "systemd",
                "boot the host with systemd: every service of the fleet is a systemd unit",
            ),
        ),
        (
            {"python": {"version": {"major": 3, "minor": 8}, "executable": "/usr/bin/python3.8"}},
            finding(
                "python_too_old",
                "Python 3.8 at /usr/bin/python3.8",
                "Python 3.9 or newer",
                "install a newer Python on the host and name it in ansible_python_interpreter",
            ),
        ),
    ],
    ids=lambda value: value.get("code", ""),
)
def test_the_system(change: dict[str, Any], expected: Finding) -> None:
    assert host_findings("gpu-1", {**SYSTEM, **change}, SUPPORTED) == [expected]


@pytest.mark.parametrize(("version", "supported"), [("24.04", True), ("24.10", False)])
def test_a_version_is_full_or_major(version: str, supported: bool) -> None:
    system = {**SYSTEM, "distribution": "Ubuntu", "distribution_version": version, "distribution_major_version": "24"}
    assert (host_findings("gpu-1", system, SUPPORTED) == []) is supported


def test_facts_that_nobody_gathered_are_findings() -> None:
    codes = [item["code"] for item in host_findings("gpu-1", {}, SUPPORTED)]
    assert codes == [
        "distribution_unsupported",
        "architecture_unsupported",
        "service_manager_unsupported",
        "python_too_old",
    ]


@pytest.mark.parametrize("state", ["hung", "mismatch", "broken"])
def test_a_driver_that_does_not_answer_is_one_finding_and_not_one_for_each_gpu(state: str) -> None:
    seen_without_driver = seen({**ONE, "uuid": None}, {**TWO, "uuid": None})
    observed = {**seen_without_driver, "driver_state": state, "driver_state_reason": "why"}
    findings = host_findings("gpu-1", SYSTEM, SUPPORTED, [ONE, TWO], observed)
    assert [(item["code"], item["found"]) for item in findings] == [(f"driver_{state}", "why")]


def test_rules_judge_what_the_record_does_not() -> None:
    wanted = requirements({"instances": [{"name": "a-0", "gpus": ["0000:17:00.0"], "precisions": ["fp4"]}]}, CODES)
    findings = host_findings("gpu-1", SYSTEM, SUPPORTED, [ONE, TWO], seen(ONE, TWO), wanted=wanted)
    assert [(item["code"], item["found"]) for item in findings] == [
        ("precision_unsupported", "0000:17:00.0 (H100 SXM5 80GB) has compute capability 9.0")
    ]


def test_expected_gpus_without_gpu_facts() -> None:
    with pytest.raises(InvalidInputError) as caught:
        host_findings("gpu-1", SYSTEM, SUPPORTED, [ONE])
    assert str(caught.value) == (
        "gpu-1: expected 1 GPU, but found no GPU facts; wanted ansible_facts.gpu from gpufleet.metal.gpu_facts"
    )


REPORT = """\
3 findings on 3 hosts; nothing was changed on any host.

host gpu-2: service_manager_unsupported
  found:  openrc
  wanted: systemd
  fix:    boot the host with systemd: every service of the fleet is a systemd unit

host gpu-3: host_unreachable
  found:  no usable answer to the first question (the reason stands above)
  wanted: a host that Ansible can log in to and run Python on
  fix:    bring it back (ansible_host, ansible_user, ssh key, python3), or run without it: --limit 'all:!gpu-3'

host gpu-10: architecture_unsupported
  found:  ppc64le
  wanted: one of: x86_64, aarch64
  fix:    use a host with a supported processor: drivers, packages and images exist for these only"""


def test_the_report_names_every_host_in_natural_order() -> None:
    findings = [
        *host_findings("gpu-10", {**SYSTEM, "architecture": "ppc64le"}, SUPPORTED),
        *host_findings("gpu-2", {**SYSTEM, "service_mgr": "openrc"}, SUPPORTED),
    ]
    assert report(findings, unreachable=["gpu-3"]) == REPORT


def test_an_empty_and_a_small_report() -> None:
    assert report([]) == ""
    assert report([unreachable_finding("gw-1")]).startswith("1 finding on 1 host; nothing was changed on any host.\n\n")


def planned(kind: str, name: str, code: str, found: str) -> dict[str, str]:
    return {"kind": kind, "host_or_model": name, "code": code, "found": found, "wanted": "w", "fix": "f"}


def test_the_plans_findings_stand_in_the_same_report() -> None:
    """What both say is shown once, and a GPU that the plan refuses is not said to be unrecorded."""
    too_old = {"code": "gpu_too_old", "found": "0000:17:00.0 (V100)", "wanted": "w", "fix": "f"}
    text = report(
        [
            {"host": "gpu-1", **too_old},
            finding("gpu_not_recorded", "0000:3d:00.0 (H100, 10DE:2330)", "w", "f"),
            finding("gpu_not_recorded", "0000:60:00.0 (H100, 10DE:2330)", "w", "f"),
        ],
        plan=[
            planned("model", "llama", "does_not_fit", "too large"),
            planned("host", "gpu-1", "gpu_too_old", "0000:17:00.0 (V100)"),
            planned("host", "gpu-1", "mig_enabled", "0000:3d:00.0 (H100) is split by MIG"),
            planned("fleet", "gpufleet", "no_gateways", "none"),
        ],
    )
    assert [line for line in text.splitlines() if line and not line.startswith("  ")] == [
        "5 findings on 1 host, 1 model and the fleet; nothing was changed on any host.",
        "fleet gpufleet: no_gateways",
        "host gpu-1: gpu_not_recorded",
        "host gpu-1: gpu_too_old",
        "host gpu-1: mig_enabled",
        "model llama: does_not_fit",
    ]


def test_a_report_of_the_plan_alone() -> None:
    assert report([], plan=[planned("model", "llama", "does_not_fit", "too large")]).startswith(
        "1 finding on 1 model; "
    )
    with pytest.raises(
        InvalidInputError, match=r"without host_or_model, found, wanted, fix; wanted kind, host_or_model"
    ):
        report([], plan=[{"kind": "host", "code": "x"}])


def test_a_report_of_something_else() -> None:
    with pytest.raises(InvalidInputError) as caught:
        report([{"host": "gpu-1", "code": "x"}])
    assert str(caught.value) == (
        "findings_report: found a finding without found, wanted, fix; wanted host, code, found, wanted, fix"
    )
