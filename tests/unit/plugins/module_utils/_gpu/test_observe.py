# SPDX-License-Identifier: Apache-2.0
"""What the readers saw and what the catalogue knows become one answer: the driver wins, disagreement is said."""

from __future__ import annotations

import json
from typing import Any

import pytest

from ansible_collections.gpufleet.metal.plugins.module_utils._gpu.observe import observe
from ansible_collections.gpufleet.metal.plugins.module_utils._gpu.reading import (
    DriverAnswer,
    DriverGpu,
    DriverReading,
    PciGpu,
    PciReading,
)

ADDRESS = "0000:17:00.0"
BUS = PciGpu(pci_address=ADDRESS, device_id="2330", subsystem_id="10DE:16C1", numa_node=0, kernel_driver="nvidia")
SAID = DriverGpu(
    pci_address=ADDRESS,
    index=0,
    device_id="2330",
    name="NVIDIA H100 80GB HBM3",
    uuid="GPU-1",
    memory_mib=81559,
    compute_capability="9.0",
    mig_enabled=False,
    nvlink_peers=(),
)


def replaced(thing: Any, **changes: Any) -> Any:
    return type(thing)(**{**thing.__dict__, **changes})


def driver(*gpus: DriverGpu, version: str = "580.105.08") -> DriverAnswer:
    return DriverAnswer("running", reading=DriverReading("nvml", version, "13.0", gpus))


NOBODY = DriverAnswer("absent")


def test_a_host_without_gpus() -> None:
    assert observe(PciReading()) == {
        "simulated": False,
        "source": "pci",
        "driver_state": "absent",
        "driver_state_reason": None,
        "driver_version": None,
        "cuda_version": None,
        "nvswitch_count": 0,
        "fabric_manager": None,
        "gpus": [],
        "unknown_devices": [],
        "warnings": [],
    }


def test_before_a_driver_the_catalogue_answers() -> None:
    facts = observe(PciReading(gpus=(BUS,), nvswitch_count=4, driver_version="580.65.06"))
    assert facts["driver_version"] == "580.65.06"
    assert facts["nvswitch_count"] == 4
    assert facts["warnings"] == []
    assert facts["gpus"] == [
        {
            "pci_address": ADDRESS,
            "index": None,
            "in_driver": None,
            "device_id": "2330",
            "subsystem_id": "10DE:16C1",
            "product": "H100 SXM5 80GB",
            "name": None,
            "catalogued": True,
            "uuid": None,
            "memory_mib": 81920,
            "memory_source": "catalogue",
            "compute_capability": "9.0",
            "numa_node": 0,
            "mig_enabled": None,
            "persistence_mode": None,
            "ecc_enabled": None,
            "ecc_uncorrectable": None,
            "remapped_rows": None,
            "processes": None,
            "fabric": None,
            "nvlink_peers": None,
            "links": None,
            "topology": None,
            "kernel_driver": "nvidia",
            "pcie": {"speed": None, "speed_maximum": None, "width": None, "width_maximum": None},
            "pcie_link": None,
        }
    ]


def test_the_driver_wins_and_the_result_is_json() -> None:
    facts = observe(PciReading(gpus=(BUS,)), driver(SAID))
    gpu = facts["gpus"][0]
    assert (gpu["memory_mib"], gpu["memory_source"], gpu["uuid"], gpu["product"]) == (
        81559,
        "nvml",
        "GPU-1",
        "H100 SXM5 80GB",
    )
    assert facts["warnings"] == []
    assert json.loads(json.dumps(facts)) == facts


def test_what_a_driver_did_instead_of_answering_is_told() -> None:
    reason = "NVML: no answer within 10 seconds"
    facts = observe(PciReading(gpus=(BUS,)), DriverAnswer("hung", reason, None, (reason,)))
    assert (facts["driver_state"], facts["driver_state_reason"], facts["source"]) == ("hung", reason, "pci")
    assert facts["warnings"] == [reason]
    assert facts["gpus"][0]["product"] == "H100 SXM5 80GB"


def test_a_product_without_nvlink_and_mig_needs_no_driver_to_say_so() -> None:
    gpu = observe(PciReading(gpus=(PciGpu(pci_address=ADDRESS, device_id="27B8"),)))["gpus"][0]
    assert (gpu["mig_enabled"], gpu["nvlink_peers"]) == (False, [])


def test_an_unknown_device_keeps_its_raw_id() -> None:
    facts = observe(PciReading(gpus=(PciGpu(pci_address=ADDRESS, device_id="FFFE", subsystem_id="10DE:0001"),)))
    gpu = facts["gpus"][0]
    assert [gpu[key] for key in ("product", "memory_mib", "memory_source", "compute_capability", "mig_enabled")] == [
        None
    ] * 5
    assert facts["unknown_devices"] == [
        {"pci_address": ADDRESS, "device_id": "FFFE", "subsystem_id": "10DE:0001", "name": None}
    ]
    assert facts["warnings"] == [
        "GPU 0000:17:00.0: unknown device 10DE:FFFE, subsystem 10DE:0001; it is not in the catalogue of products, "
        "so nothing is assumed about it beyond what its driver says"
    ]


def test_a_driver_describes_an_unknown_device() -> None:
    unknown = PciGpu(pci_address=ADDRESS, device_id="FFFE")
    said = replaced(SAID, device_id="FFFE", name="NVIDIA R100", compute_capability="11.0", memory_mib=290000)
    gpu = observe(PciReading(gpus=(unknown,)), driver(said))["gpus"][0]
    assert (gpu["product"], gpu["catalogued"], gpu["compute_capability"], gpu["memory_mib"]) == (
        "NVIDIA R100",
        False,
        "11.0",
        290000,
    )


@pytest.mark.parametrize(
    ("bus", "said", "warning"),
    [
        (
            BUS,
            replaced(SAID, compute_capability="9.1"),
            "GPU 0000:17:00.0: the driver says compute capability 9.1, the catalogue says 9.0 for H100 SXM5 80GB; "
            "the driver's is used",
        ),
        (
            BUS,
            replaced(SAID, memory_mib=65536),
            "GPU 0000:17:00.0: the driver says 65536 MiB of memory, the catalogue says nominally 81920 MiB for "
            "H100 SXM5 80GB; the driver's is used",
        ),
        (
            BUS,
            replaced(SAID, device_id="2331"),
            "GPU 0000:17:00.0: device id 2330 on the PCI bus, 2331 from nvml",
        ),
        (
            None,
            SAID,
            "GPU 0000:17:00.0: nvml reports it, but it is not on the PCI bus that was read",
        ),
        (
            replaced(BUS, kernel_driver="vfio-pci"),
            None,
            "GPU 0000:17:00.0 (10DE:2330, subsystem 10DE:16C1): on the PCI bus and bound to the kernel driver "
            "vfio-pci, but nvml does not report it",
        ),
        (
            replaced(BUS, kernel_driver=None),
            None,
            "GPU 0000:17:00.0 (10DE:2330, subsystem 10DE:16C1): on the PCI bus and bound to no kernel driver, "
            "but nvml does not report it",
        ),
    ],
)
def test_disagreements(bus: PciGpu | None, said: DriverGpu | None, warning: str) -> None:
    facts = observe(PciReading(gpus=(bus,) if bus else ()), driver(*([said] if said else [])))
    assert facts["warnings"] == [warning]
    assert len(facts["gpus"]) == 1


@pytest.mark.parametrize(
    ("pci", "read", "simulated"),
    [
        (PciReading(gpus=(BUS,)), driver(SAID), False),
        (PciReading(gpus=(BUS,), simulated=True), NOBODY, True),
        (PciReading(gpus=(BUS,)), driver(SAID, version="0.0.0-simulated"), True),
        (PciReading(gpus=(BUS,)), driver(replaced(SAID, name="Simulated H100")), True),
    ],
)
def test_simulated(pci: PciReading, read: DriverAnswer, simulated: bool) -> None:
    assert observe(pci, read)["simulated"] is simulated
