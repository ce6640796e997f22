# SPDX-License-Identifier: Apache-2.0
# PRIVATE to the collection: do not import this from outside, it may change without notice.
"""The shapes in which the readers (PCI, NVML, nvidia-smi) hand over what they saw; they hold no opinion."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from ansible_collections.gpufleet.metal.plugins.module_utils._errors import FleetError

#: What a host's driver can be. absent: none runs (not installed, or its kernel module is not loaded); running: it
#: answers; mismatch: library and kernel module are of different versions; lost: it no longer reaches a GPU; hung: no
#: answer before the deadline; broken: anything else.
DRIVER_STATES = ("absent", "running", "mismatch", "lost", "hung", "broken")

_PCI_ADDRESS = re.compile(r"^([0-9a-fA-F]{1,8}):([0-9a-fA-F]{1,2}):([0-9a-fA-F]{1,2})\.([0-7])$")


def normal_pci_address(text: str) -> str:
    """Write a PCI address as sysfs does: "00000000:3D:00.0" (NVML, nvidia-smi) becomes "0000:3d:00.0".

    Raises:
        FleetError: the text is no PCI address of the form domain:bus:device.function.
    """
    match = _PCI_ADDRESS.match(text.strip())
    if match is None:
        raise FleetError(f"{text!r} is not a PCI address (wanted domain:bus:device.function, as in 0000:3d:00.0)")
    domain, bus, device, function = (int(part, 16) for part in match.groups())
    return f"{domain:04x}:{bus:02x}:{device:02x}.{function}"


@dataclass(frozen=True)
class PciGpu:
    """One GPU on the PCI bus, as sysfs shows it. Ids are upper case hexadecimal without 0x; None: not readable."""

    pci_address: str
    device_id: str
    subsystem_id: str | None = None
    numa_node: int | None = None
    kernel_driver: str | None = None
    link_speed: str | None = None
    link_speed_maximum: str | None = None
    link_width: int | None = None
    link_width_maximum: int | None = None


@dataclass(frozen=True)
class PciReading:
    """Everything read from one sysfs tree, GPUs sorted by PCI address."""

    gpus: tuple[PciGpu, ...] = ()
    nvswitch_count: int = 0
    simulated: bool = False
    driver_version: str | None = None
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class DriverGpu:
    """One GPU as the driver describes it. None: the driver does not say (not supported on this product)."""

    pci_address: str
    index: int | None = None
    device_id: str | None = None
    subsystem_id: str | None = None
    name: str | None = None
    uuid: str | None = None
    memory_mib: int | None = None
    compute_capability: str | None = None
    mig_enabled: bool | None = None
    persistence_mode: bool | None = None
    ecc_enabled: bool | None = None
    #: {volatile, aggregate}: uncorrectable errors since the driver was loaded, and ever.
    ecc_uncorrectable: dict[str, int | None] | None = None
    #: {correctable, uncorrectable, pending, failure}: two counts of rows and two truths.
    remapped_rows: dict[str, Any] | None = None
    #: {generation, generation_maximum, generation_product, width, width_maximum}: now, what the GPU in this slot can
    #: do, what the GPU alone can do. An idle GPU lowers its generation, never what it can do.
    pcie_link: dict[str, int | None] | None = None
    #: {pid, name, memory_mib} of every process that computes on the GPU.
    processes: tuple[dict[str, Any], ...] | None = None
    #: {state, status} in lower case ("completed", "success"); None where no NVSwitch joins the GPU.
    fabric: dict[str, str | None] | None = None
    nvlink_peers: tuple[str, ...] | None = None
    links: tuple[dict[str, Any], ...] | None = None
    topology: tuple[dict[str, Any], ...] | None = None


@dataclass(frozen=True)
class DriverReading:
    """What the driver says about the host. ``source``: nvml or nvidia-smi. ``lost``: why a GPU cannot be reached."""

    source: str
    driver_version: str | None = None
    cuda_version: str | None = None
    gpus: tuple[DriverGpu, ...] = ()
    warnings: tuple[str, ...] = field(default=())
    lost: str | None = None

    def as_dict(self) -> dict[str, Any]:
        """Plain data that JSON can carry."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> DriverReading:
        """The reading that :meth:`as_dict` wrote, also after a way through JSON."""
        gpus = tuple(DriverGpu(**{key: _frozen(value) for key, value in gpu.items()}) for gpu in data["gpus"])
        return cls(**{**data, "gpus": gpus, "warnings": tuple(data["warnings"])})


def _frozen(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


@dataclass(frozen=True)
class DriverAnswer:
    """What came of asking the driver: one of DRIVER_STATES, why, and the reading where there is one."""

    state: str
    reason: str | None = None
    reading: DriverReading | None = None
    warnings: tuple[str, ...] = ()
