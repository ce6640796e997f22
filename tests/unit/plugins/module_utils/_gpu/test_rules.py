# SPDX-License-Identifier: Apache-2.0
"""Every rule: what breaks it, word by word, and what does not."""

from __future__ import annotations

import inspect
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ansible_collections.gpufleet.metal.plugins.module_utils._gpu import rules
from ansible_collections.gpufleet.metal.plugins.module_utils._gpu.requirements import requirements
from ansible_collections.gpufleet.metal.tests.unit.plugins.module_utils._plan.fleets import gpus as recorded
from ansible_collections.gpufleet.metal.tests.unit.plugins.module_utils._plan.fleets import hosts, plan, tiny

H100 = {
    "pci_address": "0000:17:00.0",
    "device_id": "2330",
    "subsystem_id": "10DE:16C1",
    "product": "H100 SXM5 80GB",
    "memory_mib": 81559,
    "compute_capability": "9.0",
    "mig_enabled": False,
    "persistence_mode": True,
    "ecc_enabled": True,
    "ecc_uncorrectable": {"volatile": 0, "aggregate": 7},
    "remapped_rows": {"correctable": 3, "uncorrectable": 1, "pending": False, "failure": False},
    "pcie_link": {
        "generation": 1,
        "generation_maximum": 5,
        "generation_product": 5,
        "width": 16,
        "width_maximum": 16,
    },
    "processes": [{"pid": 7, "name": "VLLM::Worker_TP0", "memory_mib": 70000}],
    "fabric": {"state": "completed", "status": "success"},
    "nvlink_peers": ["0000:3d:00.0"],
}
TWIN = {**H100, "pci_address": "0000:3d:00.0", "nvlink_peers": ["0000:17:00.0"]}
V100 = {"device_id": "1DB5", "product": "V100 SXM2 32GB", "compute_capability": "7.0", "memory_mib": 32510}
A100 = {
    "device_id": "20B2",
    "product": "A100 SXM4 80GB",
    "compute_capability": "8.0",
    "fabric": None,
    "pcie_link": None,
}
B200 = {"device_id": "2901", "product": "B200 SXM", "compute_capability": "10.0", "memory_mib": 183359}
PAIR = {"instances": [{"name": "llama-0", "gpus": ["0000:17:00.0", "0000:3d:00.0"]}]}
NAME = "0000:17:00.0 (H100 SXM5 80GB)"
Options = dict[str, Any]


def facts(*gpus: dict[str, Any], **host: Any) -> dict[str, Any]:
    """Return what gpu_facts says about a host that is in order, with changes."""
    return {
        "driver_state": "running",
        "driver_state_reason": None,
        "driver_version": "580.105.08",
        "gpus": list(gpus),
        **host,
    }


def breaches(seen: dict[str, Any], options: Options | None = None) -> list[rules.Finding]:
    return rules.breaches("gpu-1", seen, requirements(options or {}, rules.CODES))


STRICT: Options = {
    "minimum_compute_capability": "9.0",
    "precisions": ["bf16", "fp8", "int8"],
    "memory_tier": "production",
    "minimum_memory_gb": 80,
    "count": 2,
    "same_product": True,
    "nvlink_required": True,
    "cuda_version": "13.0",
    "minimum_driver_branch": 580,
    "driver_required": True,
    **PAIR,
}


def test_a_host_in_order_breaks_no_rule() -> None:
    assert breaches(facts(H100, TWIN), STRICT) == []


def test_before_a_driver_only_what_the_bus_tells_counts() -> None:
    known = ("pci_address", "device_id", "subsystem_id", "product", "memory_mib", "compute_capability")
    bare = {key: value if key in known else None for key, value in H100.items()}
    seen = facts(bare, driver_state="absent", driver_state_reason="there is none", driver_version=None)
    assert breaches(seen, {"cuda_version": "13.0", "minimum_driver_branch": 580}) == []
    assert [finding["code"] for finding in breaches(seen, {"driver_required": True, "precisions": ["fp4"]})] == [
        "driver_absent",
        "precision_unsupported",
    ]


def test_a_host_without_gpus_has_no_driver_to_judge() -> None:
    assert breaches(facts(driver_state="hung")) == []


RESET = "take the engines off the GPU and reset it (nvidia-smi --gpu-reset --id 0000:17:00.0), or reboot the host"
CASES: list[tuple[dict[str, Any], Options, tuple[str, str, str, str]]] = [
    (
        facts(H100, driver_state="mismatch", driver_state_reason="NVML does not start: mismatch"),
        {},
        (
            "driver_mismatch",
            "NVML does not start: mismatch",
            "a library and a kernel module of one version",
            "the driver was updated under a running kernel module: reboot the host, and hold the driver's packages",
        ),
    ),
    (
        facts(H100, driver_state="lost", driver_state_reason="NVML, GPU 1: GPU is lost"),
        {},
        (
            "gpu_lost",
            "NVML, GPU 1: GPU is lost",
            "a driver that reaches every GPU",
            "look for Xid 79 in the kernel's log (journalctl -k -g Xid) and reboot the host; "
            "have the card, its power and its slot checked if it happens again",
        ),
    ),
    (
        facts(H100, driver_state="hung", driver_state_reason="nvidia-smi: no answer within 10 seconds"),
        {},
        (
            "driver_hung",
            "nvidia-smi: no answer within 10 seconds",
            "an answer before the deadline (deadline_seconds)",
            "look for Xid messages and blocked tasks in the kernel's log (journalctl -k) and reboot the host; "
            "a driver without persistence mode that must start many GPUs first may only need a longer deadline",
        ),
    ),
    (
        facts(H100, driver_state="broken"),
        {},
        (
            "driver_broken",
            "no reason was given",
            "a driver that answers",
            "run nvidia-smi on the host, look into the kernel's log (journalctl -k -g NVRM), "
            "and install the driver again",
        ),
    ),
    (
        facts(H100, driver_state="absent", driver_state_reason="no nvidia-smi"),
        {"driver_required": True},
        (
            "driver_absent",
            "no nvidia-smi",
            "a driver that runs",
            "install NVIDIA's driver; if it is installed, see why its kernel module is not loaded (journalctl -k)",
        ),
    ),
    (
        facts({**H100, "product": None, "memory_mib": None, "compute_capability": None, "device_id": "FFFE"}),
        {},
        (
            "gpu_unknown",
            "0000:17:00.0 (unknown device, 10DE:FFFE), subsystem 10DE:16C1",
            "a product of the catalogue (docs/gpu_catalogue.md), or a driver that describes the device",
            "take the device out of this host, install its driver by hand and run gpufleet.metal.discover, "
            "or add the product to the catalogue with a source for every number",
        ),
    ),
    (
        facts({**H100, **V100, "pcie_link": None}),
        {},
        (
            "gpu_too_old",
            "0000:17:00.0 (V100 SXM2 32GB) has compute capability 7.0",
            "7.5 or more: vLLM has no kernels for older GPUs",
            "take gpu-1 out of gpu_nodes",
        ),
    ),
    (
        facts(H100),
        {"minimum_compute_capability": "10.0"},
        (
            "gpu_below_minimum_compute_capability",
            f"{NAME} has compute capability 9.0",
            "10.0 or more (minimum_compute_capability)",
            "lower minimum_compute_capability of the model, or serve it on hosts with newer GPUs",
        ),
    ),
    (
        facts(H100),
        {"precisions": ["fp8", "fp4"]},
        (
            "precision_unsupported",
            f"{NAME} has compute capability 9.0",
            "10.0 or more for fp4",
            "choose another precision or quantization for the models of this host, or use newer GPUs",
        ),
    ),
    (
        facts({**H100, "memory_mib": 23034}),
        {"memory_tier": "production"},
        (
            "gpu_memory_too_small",
            f"{NAME} has 23034 MiB",
            "40 GB or more (memory_tier production)",
            "use GPUs with more memory, or lower memory_tier or minimum_memory_gb",
        ),
    ),
    (
        facts(H100),
        {"minimum_memory_gb": 141, "memory_tier": "production"},
        (
            "gpu_memory_too_small",
            f"{NAME} has 81559 MiB",
            "141 GB or more",
            "use GPUs with more memory, or lower memory_tier or minimum_memory_gb",
        ),
    ),
    (
        facts(H100),
        {"count": 2},
        (
            "gpu_count_too_low",
            f"1 GPU: {NAME}",
            "2 GPUs or more",
            "look for the missing cards in lspci, their slots and the host's event log",
        ),
    ),
    (
        facts(H100, {**TWIN, "device_id": "2335", "product": "H200 SXM"}),
        PAIR,
        (
            "instance_products_mixed",
            f"instance llama-0 has {NAME}, 0000:3d:00.0 (H200 SXM)",
            "GPUs of one product",
            "run gpufleet.metal.discover and plan again: the plan puts an instance on GPUs of one product",
        ),
    ),
    (
        facts(H100, {**TWIN, "device_id": "2335", "product": "H200 SXM"}),
        {"same_product": True},
        (
            "host_products_mixed",
            f"the host has {NAME}, 0000:3d:00.0 (H200 SXM)",
            "GPUs of one product",
            "put GPUs of one product into the host, or set same_product to false",
        ),
    ),
    (
        facts({**H100, "nvlink_peers": []}, {**TWIN, "nvlink_peers": []}),
        {**PAIR, "nvlink_required": True},
        (
            "nvlink_missing",
            "instance llama-0: no NVLink between 0000:17:00.0 and 0000:3d:00.0",
            "NVLink between all GPUs of the instance (nvlink_required)",
            "check bridges and Fabric Manager, plan again, or set nvlink_required to false",
        ),
    ),
    (
        facts({**H100, "nvlink_peers": []}, {**TWIN, "nvlink_peers": []}),
        {"instances": [{**PAIR["instances"][0], "nvlink_required": True}]},
        (
            "nvlink_missing",
            "instance llama-0: no NVLink between 0000:17:00.0 and 0000:3d:00.0",
            "NVLink between all GPUs of the instance, as recorded when it was planned",
            "check bridges and Fabric Manager; if the hardware was changed on purpose, run the playbook "
            "gpufleet.metal.discover and commit the record",
        ),
    ),
    (
        facts({**H100, "in_driver": False}, {**TWIN, "in_driver": True}),
        {},
        (
            "gpu_not_in_driver",
            f"driver 580.105.08 does not report {NAME}",
            "a driver that reports every GPU on the PCI bus",
            "look for Xid and NVRM messages in the kernel's log (journalctl -k); reset the GPU or reboot the host, "
            "and have the card checked if it happens again",
        ),
    ),
    (
        facts({**H100, **A100}, nvswitch_count=6, fabric_manager="inactive"),
        {},
        (
            "fabric_manager_inactive",
            "NVSwitches join the GPUs, and the service nvidia-fabricmanager is inactive",
            "an active service: without it CUDA does not start (error 802)",
            "install nvidia-fabricmanager of exactly the driver's version, start it, and look into its journal",
        ),
    ),
    (
        facts({**H100, "mig_enabled": True}, TWIN),
        PAIR,
        (
            "mig_enabled",
            f"{NAME} is split by MIG",
            "whole GPUs: slices have no way to each other for tensor parallelism",
            "run nvidia-smi --id 0000:17:00.0 --multi-instance-gpu 0 on gpu-1 while the GPU is idle",
        ),
    ),
    (
        facts({**H100, "ecc_enabled": False}),
        {},
        (
            "ecc_disabled",
            f"{NAME} runs without ECC",
            "ECC on: without it a flipped bit becomes a wrong answer",
            "run nvidia-smi --id 0000:17:00.0 --ecc-config=1 and reboot, or ignore the code ecc_disabled",
        ),
    ),
    (
        facts({**H100, "ecc_uncorrectable": {"volatile": 2, "aggregate": 9}}),
        {},
        (
            "ecc_errors_uncorrectable",
            f"{NAME} counted 2 uncorrectable memory errors since its driver was loaded, 9 ever",
            "none",
            f"{RESET}; have the card checked if they come back",
        ),
    ),
    (
        facts({**H100, "remapped_rows": {"pending": True, "failure": False}}),
        {},
        (
            "row_remap_pending",
            f"{NAME} has a memory row whose replacement waits for a reset",
            "no replacement that waits",
            RESET,
        ),
    ),
    (
        facts({**H100, "remapped_rows": {"pending": False, "failure": True}}),
        {},
        (
            "row_remap_failure",
            f"{NAME} could not replace a memory row",
            "no failed replacement",
            "take the card out of service, run NVIDIA's field diagnostic and have it exchanged",
        ),
    ),
    (
        facts({**H100, "pcie_link": {**H100["pcie_link"], "width": 8}}),
        {},
        (
            "pcie_width_reduced",
            f"{NAME} uses 8 PCIe lanes",
            "16 lanes",
            "check the slot, the riser and the BIOS; where the server has no better slot, "
            "ignore the code pcie_width_reduced",
        ),
    ),
    (
        facts({**H100, "pcie_link": {**H100["pcie_link"], "generation_maximum": 4}}),
        {},
        (
            "pcie_generation_reduced",
            f"{NAME} can use PCIe generation 4 in its slot",
            "generation 5",
            "check the slot, the riser and the BIOS; where the server has no better slot, "
            "ignore the code pcie_generation_reduced",
        ),
    ),
    (
        facts({**H100, "persistence_mode": False}),
        {},
        (
            "persistence_mode_off",
            f"{NAME} is shut down by its driver when nobody uses it",
            "persistence mode on",
            "enable the service nvidia-persistenced",
        ),
    ),
    (
        facts({**H100, **B200, "pcie_link": None}, driver_version="570.86.15"),
        {},
        (
            "driver_too_old_for_product",
            "driver 570.86.15 with 0000:17:00.0 (B200 SXM)",
            "570.133.20 or newer",
            "install a newer driver branch",
        ),
    ),
    (
        facts({**H100, **V100, "pcie_link": None, "compute_capability": "7.5"}, driver_version="595.71.05"),
        {},
        (
            "driver_too_new_for_product",
            "driver 595.71.05 with 0000:17:00.0 (V100 SXM2 32GB)",
            "branch 580 or older: it is the last one that supports the product",
            "install branch 580",
        ),
    ),
    (
        facts(H100, driver_version="535.309.01"),
        {"cuda_version": "13.0"},
        (
            "driver_too_old_for_cuda",
            "driver 535.309.01",
            "branch 580 or newer for CUDA 13.0",
            "upgrade the driver to branch 580 or newer",
        ),
    ),
    (
        facts(H100),
        {"minimum_driver_branch": 595},
        (
            "driver_too_old",
            "driver 580.105.08",
            "branch 595 or newer (minimum_driver_branch)",
            "upgrade the driver to branch 595 or newer",
        ),
    ),
    (
        facts(
            {
                **H100,
                "processes": [
                    *H100["processes"],
                    {"pid": 9, "name": "/usr/bin/python3", "memory_mib": 512},
                    {"pid": 10, "name": None, "memory_mib": None},
                ],
            }
        ),
        {},
        (
            "gpu_in_use",
            f"{NAME} is used by /usr/bin/python3 (pid 9) with 512 MiB, a process without a name (pid 10)",
            "no processes but VLLM::*",
            "stop them or take the GPU out of the fleet; if they belong here, name them in allowed_processes",
        ),
    ),
    (
        facts({**H100, "fabric": {"state": "in progress", "status": None}}),
        {},
        (
            "fabric_not_ready",
            f"{NAME}: fabric state in progress, status not told",
            "state completed, status success: without it CUDA does not start (error 802)",
            "install nvidia-fabricmanager of exactly the driver's version, start it, and look into its journal "
            "(on HGX B200 and B300 also nvlsm and the kernel module ib_umad)",
        ),
    ),
]


@pytest.mark.parametrize(("seen", "options", "expected"), CASES, ids=[case[2][0] for case in CASES])
def test_a_breach(seen: dict[str, Any], options: Options, expected: tuple[str, str, str, str]) -> None:
    keys = ("code", "found", "wanted", "fix")
    assert breaches(seen, options) == [{"host": "gpu-1", **dict(zip(keys, expected, strict=True))}]
    assert breaches(seen, {**options, "ignored_codes": [expected[0]]}) == []


def test_every_code_has_its_case() -> None:
    assert {case[2][0] for case in CASES} == set(rules.CODES)


@pytest.mark.parametrize(
    ("seen", "options"),
    [
        (facts({**H100, "mig_enabled": True}), {}),
        (facts({**H100, "nvlink_peers": None}, TWIN), {**PAIR, "nvlink_required": True}),
        (facts({**H100, "nvlink_peers": []}, {**TWIN, "nvlink_peers": []}), PAIR),
        (facts({**H100, "memory_mib": 15360}), {"memory_tier": "development"}),
        (facts(H100, driver_version="0.0.0-simulated"), {"cuda_version": "13.0", "minimum_driver_branch": 580}),
        (facts(H100, driver_version="525.147.05"), {"cuda_version": "12.9"}),
        (
            facts({**H100, "processes": [{"pid": 9, "name": "/opt/bin/bench-3", "memory_mib": 1}]}),
            {"allowed_processes": ["bench-*"]},
        ),
        (facts({**H100, "pcie_link": {**H100["pcie_link"], "generation_product": None}}), {}),
        (facts({**H100, "pcie_link": None, "fabric": None, "processes": None, "ecc_uncorrectable": None}), {}),
    ],
    ids=[
        "MIG on a GPU of no instance",
        "NVLink not told",
        "no NVLink, not required",
        "a T4 is a development GPU",
        "a simulated driver claims no version",
        "CUDA 12 on 525",
        "a process that is allowed, by its base name",
        "generation by the catalogue",
        "not told",
    ],
)
def test_what_is_no_breach(seen: dict[str, Any], options: Options) -> None:
    assert breaches(seen, options) == []


@pytest.mark.parametrize("others", [[], [{**TWIN, "nvlink_peers": None}]], ids=["missing", "not described"])
def test_a_gpu_that_is_not_there_is_no_missing_nvlink(others: list[dict[str, Any]]) -> None:
    assert breaches(facts({**H100, "nvlink_peers": []}, *others), {**PAIR, "nvlink_required": True}) == []


@pytest.mark.parametrize(
    "host",
    [
        {"fabric_manager": None},
        {"fabric_manager": "active"},
        {"fabric_manager": "inactive", "driver_state": "absent"},
    ],
    ids=["not asked", "active", "before a driver"],
)
def test_fabric_manager_where_it_is_not_wrong(host: dict[str, Any]) -> None:
    assert breaches(facts({**H100, **A100}, nvswitch_count=6, **host)) == []


def test_a_fabric_that_is_not_ready_says_enough() -> None:
    gpu = {**H100, "fabric": {"state": "not started", "status": None}}
    assert [item["code"] for item in breaches(facts(gpu, fabric_manager="failed"))] == ["fabric_not_ready"]


@pytest.mark.parametrize(
    ("gpu", "host", "codes"),
    [
        ({**H100, "in_driver": None}, {"driver_state": "absent"}, []),
        ({**H100, "in_driver": False}, {"driver_state": "hung"}, ["driver_hung"]),
        ({**H100, "in_driver": False}, {"driver_state": "lost"}, ["gpu_lost", "gpu_not_in_driver"]),
        ({**H100, **B200, "in_driver": False}, {"driver_version": "565.57.01"}, ["driver_too_old_for_product"]),
        (
            {**H100, **V100, "in_driver": False},
            {"driver_version": "620.70.06"},
            ["gpu_too_old", "driver_too_new_for_product"],
        ),
    ],
    ids=["no driver", "no answer", "lost", "too old a driver for it", "too new a driver for it"],
)
def test_a_gpu_that_is_not_in_the_driver(gpu: dict[str, Any], host: dict[str, Any], codes: list[str]) -> None:
    assert [item["code"] for item in breaches(facts(gpu, **host))] == codes


def test_a_width_that_no_catalogue_knows_is_held_against_the_slot() -> None:
    a16 = {"device_id": "25B6", "subsystem_id": "10DE:14A9", "product": "A16"}
    link = {"width": 4, "width_maximum": 8}
    assert [item["found"] for item in breaches(facts({**H100, **a16, "pcie_link": link}))] == [
        "0000:17:00.0 (A16) uses 4 PCIe lanes"
    ]
    assert breaches(facts({**H100, **a16, "pcie_link": {**link, "width": 8}})) == []


def test_several_breaches_come_all_at_once() -> None:
    seen = facts({**H100, "persistence_mode": False, "ecc_enabled": False}, driver_version="535.309.01")
    assert [item["code"] for item in breaches(seen, {"cuda_version": "13.0", "count": 2})] == [
        "gpu_count_too_low",
        "ecc_disabled",
        "persistence_mode_off",
        "driver_too_old_for_cuda",
    ]


def test_the_plan_says_the_same_about_a_gpu_that_is_too_old() -> None:
    """A report of plan and host shows it once, because both use the same words."""
    record = recorded(1, "V100 SXM2 32GB")
    (of_plan,) = [f for f in plan(tiny(), machines=hosts(record))["findings"] if f["code"] == "gpu_too_old"]
    (of_rule,) = breaches(facts(*record["gpus"]))
    assert {**of_rule} == {key: of_plan.get(key, of_plan["host_or_model"]) for key in of_rule}


@pytest.mark.parametrize("rule", rules.RULES, ids=lambda rule: rule.__name__)
def test_every_rule_names_its_source(rule: Any) -> None:
    assert "Source" in inspect.getdoc(rule)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    changes=st.dictionaries(
        st.sampled_from(
            ["product", "memory_mib", "compute_capability", "mig_enabled", "persistence_mode", "ecc_enabled"]
        ),
        st.none(),
    ),
    state=st.sampled_from(["absent", "running", "mismatch", "lost", "hung", "broken"]),
    version=st.sampled_from([None, "", "580", "580.105.08", "x.y", "0.0.0-simulated"]),
)
def test_what_is_not_known_never_crashes(changes: dict[str, Any], state: str, version: str | None) -> None:
    for finding in breaches(facts({**H100, **changes}, driver_state=state, driver_version=version), STRICT):
        assert finding["code"] in rules.CODES
