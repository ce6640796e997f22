# SPDX-License-Identifier: Apache-2.0
# PRIVATE to the collection: do not import this from outside, it may change without notice.
"""Put what the readers saw and what the catalogue knows together into ``ansible_facts.gpu``: pure.

The driver's answer wins over the catalogue's, and a disagreement becomes a warning. A key that nobody can answer
is None: "not known" is never written as "no".
"""

from __future__ import annotations

from typing import Any

from ansible_collections.gpufleet.metal.plugins.module_utils._gpu import catalogue
from ansible_collections.gpufleet.metal.plugins.module_utils._gpu.reading import (
    DriverAnswer,
    DriverGpu,
    DriverReading,
    PciGpu,
    PciReading,
)

# A driver reports up to 7 % less than the nominal size (ECC, firmware); more means that the id tells another product.
_MEMORY_TOLERANCE = 0.1


_NOBODY = DriverAnswer("absent")


def observe(pci: PciReading, answer: DriverAnswer = _NOBODY, fabric_manager: str | None = None) -> dict[str, Any]:
    """Return the facts of one host: JSON-able, GPUs sorted by PCI address.

    ``fabric_manager``: what systemd says of its service; None where nobody asked.
    """
    driver = answer.reading
    warnings = [*answer.warnings, *pci.warnings, *(driver.warnings if driver else ())]
    on_bus = {gpu.pci_address: gpu for gpu in pci.gpus}
    in_driver = {gpu.pci_address: gpu for gpu in driver.gpus} if driver else {}
    gpus = [
        _gpu(address, on_bus.get(address), in_driver.get(address), driver, warnings)
        for address in sorted({*on_bus, *in_driver})
    ]
    driver_version = (driver.driver_version if driver else None) or pci.driver_version
    return {
        "simulated": _simulated(pci, driver),
        "source": driver.source if driver else "pci",
        "driver_state": answer.state,
        "driver_state_reason": answer.reason,
        "driver_version": driver_version,
        "cuda_version": driver.cuda_version if driver else None,
        "nvswitch_count": pci.nvswitch_count,
        "fabric_manager": fabric_manager,
        "gpus": gpus,
        "unknown_devices": [
            {key: gpu[key] for key in ("pci_address", "device_id", "subsystem_id", "name")}
            for gpu in gpus
            if not gpu["catalogued"]
        ],
        "warnings": warnings,
    }


def _simulated(pci: PciReading, driver: DriverReading | None) -> bool:
    """A simulation says so in the sysfs tree, in the driver's version or in the name of a GPU."""
    if pci.simulated:
        return True
    if driver is None:
        return False
    texts = [driver.driver_version, *(gpu.name for gpu in driver.gpus)]
    return any("simulated" in text.lower() for text in texts if text)


def _gpu(
    address: str, bus: PciGpu | None, said: DriverGpu | None, driver: DriverReading | None, warnings: list[str]
) -> dict[str, Any]:
    device_id = (bus.device_id if bus else None) or (said.device_id if said else None)
    subsystem_id = (bus.subsystem_id if bus else None) or (said.subsystem_id if said else None)
    product = catalogue.find(device_id, subsystem_id) if device_id else None
    raw = _raw_id(device_id, subsystem_id)
    if bus is None and said is not None and driver is not None:
        warnings.append(f"GPU {address}: {driver.source} reports it, but it is not on the PCI bus that was read")
    if bus is not None and said is None and driver is not None:
        bound = f"bound to the kernel driver {bus.kernel_driver}" if bus.kernel_driver else "bound to no kernel driver"
        warnings.append(f"GPU {address} ({raw}): on the PCI bus and {bound}, but {driver.source} does not report it")
    if bus and said and said.device_id and said.device_id != bus.device_id and driver is not None:
        warnings.append(
            f"GPU {address}: device id {bus.device_id} on the PCI bus, {said.device_id} from {driver.source}"
        )
    if product is None:
        warnings.append(
            f"GPU {address}: unknown device {raw}; it is not in the catalogue of products, so nothing is assumed "
            "about it beyond what its driver says"
        )
    if product is not None and said is not None:
        warnings.extend(_disagreements(address, product, said))

    memory = said.memory_mib if said else None
    capability = said.compute_capability if said else None
    name = said.name if said else None
    return {
        "pci_address": address,
        "index": said.index if said else None,
        "in_driver": said is not None if driver else None,
        "device_id": device_id,
        "subsystem_id": subsystem_id,
        "product": product.name if product else name,
        "name": name,
        "catalogued": product is not None,
        "uuid": said.uuid if said else None,
        "memory_mib": memory if memory is not None else (product.memory_mib if product else None),
        "memory_source": _memory_source(memory, product, driver),
        "compute_capability": capability or (product.compute_capability if product else None),
        "numa_node": bus.numa_node if bus else None,
        "mig_enabled": _mig(said, product),
        "persistence_mode": said.persistence_mode if said else None,
        "ecc_enabled": said.ecc_enabled if said else None,
        "ecc_uncorrectable": said.ecc_uncorrectable if said else None,
        "remapped_rows": said.remapped_rows if said else None,
        "processes": _list(said.processes) if said else None,
        "fabric": said.fabric if said else None,
        "nvlink_peers": _peers(said, product),
        "links": _list(said.links) if said else None,
        "topology": _list(said.topology) if said else None,
        "kernel_driver": bus.kernel_driver if bus else None,
        "pcie": {
            "speed": bus.link_speed if bus else None,
            "speed_maximum": bus.link_speed_maximum if bus else None,
            "width": bus.link_width if bus else None,
            "width_maximum": bus.link_width_maximum if bus else None,
        },
        "pcie_link": said.pcie_link if said else None,
    }


def _raw_id(device_id: str | None, subsystem_id: str | None) -> str:
    return f"{catalogue.VENDOR_ID}:{device_id or '????'}, subsystem {subsystem_id or 'not readable'}"


def _disagreements(address: str, product: catalogue.Product, said: DriverGpu) -> list[str]:
    found = []
    if said.compute_capability and said.compute_capability != product.compute_capability:
        found.append(
            f"GPU {address}: the driver says compute capability {said.compute_capability}, the catalogue says "
            f"{product.compute_capability} for {product.name}; the driver's is used"
        )
    if said.memory_mib is not None and product.memory_mib is not None:
        difference = abs(said.memory_mib - product.memory_mib) / product.memory_mib
        if difference > _MEMORY_TOLERANCE:
            found.append(
                f"GPU {address}: the driver says {said.memory_mib} MiB of memory, the catalogue says nominally "
                f"{product.memory_mib} MiB for {product.name}; the driver's is used"
            )
    return found


def _memory_source(memory: int | None, product: catalogue.Product | None, driver: DriverReading | None) -> str | None:
    if memory is not None and driver is not None:
        return driver.source
    return "catalogue" if product is not None and product.memory_mib is not None else None


def _mig(said: DriverGpu | None, product: catalogue.Product | None) -> bool | None:
    if said is not None and said.mig_enabled is not None:
        return said.mig_enabled
    # A product without MIG cannot have it on; for others only the driver can tell.
    return False if product is not None and product.mig_instances == 0 else None


def _peers(said: DriverGpu | None, product: catalogue.Product | None) -> list[str] | None:
    if said is not None and said.nvlink_peers is not None:
        return list(said.nvlink_peers)
    return [] if product is not None and product.nvlink_kind == "none" else None


def _list(values: tuple[dict[str, Any], ...] | None) -> list[dict[str, Any]] | None:
    return None if values is None else list(values)
