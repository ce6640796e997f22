# SPDX-License-Identifier: Apache-2.0
# PRIVATE to the collection: do not import this from outside, it may change without notice.
"""Read NVIDIA GPUs from PCI sysfs: needs no driver, no tool and no privilege.

The root is a parameter (``/sys`` on a real host), because a host without GPUs can show a simulated tree below
another directory. A file ``SIMULATED`` in that root marks it, so that nothing simulated passes for hardware.
"""

from __future__ import annotations

import os

from ansible_collections.gpufleet.metal.plugins.module_utils._errors import FleetError
from ansible_collections.gpufleet.metal.plugins.module_utils._gpu.catalogue import VENDOR_ID
from ansible_collections.gpufleet.metal.plugins.module_utils._gpu.reading import (
    PciGpu,
    PciReading,
    normal_pci_address,
)

# PCI base class and subclass (the first four digits of sysfs' "class"), PCI Code and ID Assignment Specification.
_GPU_CLASSES = ("0300", "0302")  # VGA compatible controller, 3D controller
_BRIDGE_OTHER_CLASS = "0680"  # NVSwitch presents itself as "other bridge"
_READ_LIMIT_BYTES = 4096  # a sysfs attribute is never longer than a page


def read(sysfs_root: str = "/sys") -> PciReading:
    """Return the NVIDIA GPUs below ``<sysfs_root>/bus/pci/devices``.

    A host without such a directory or without GPUs is a host with no GPUs. A device that cannot be read fully is
    reported in the warnings with what could be read; one whose vendor cannot be read is skipped with a warning.
    """
    warnings: list[str] = []
    gpus: list[PciGpu] = []
    nvswitch_count = 0
    devices = os.path.join(sysfs_root, "bus", "pci", "devices")
    for entry in _listing(devices, warnings):
        directory = os.path.join(devices, entry)
        try:
            address = normal_pci_address(entry)
        except FleetError as error:
            warnings.append(f"{directory}: {error}; skipped")
            continue
        vendor = _hexadecimal(directory, "vendor", 4, warnings)
        if vendor != VENDOR_ID:
            continue
        # A virtual function belongs to the card that lists it, it is no GPU of this host's own.
        if os.path.lexists(os.path.join(directory, "physfn")):
            continue
        device_class = _hexadecimal(directory, "class", 6, warnings)
        if device_class is None:
            continue
        if device_class[:4] == _BRIDGE_OTHER_CLASS:
            nvswitch_count += 1
        elif device_class[:4] in _GPU_CLASSES:
            gpu = _gpu(directory, address, warnings)
            if gpu is not None:
                gpus.append(gpu)
    return PciReading(
        gpus=tuple(sorted(gpus, key=lambda gpu: gpu.pci_address)),
        nvswitch_count=nvswitch_count,
        simulated=os.path.exists(os.path.join(sysfs_root, "SIMULATED")),
        driver_version=_text(os.path.join(sysfs_root, "module", "nvidia", "version")),
        warnings=tuple(warnings),
    )


def _gpu(directory: str, address: str, warnings: list[str]) -> PciGpu | None:
    device_id = _hexadecimal(directory, "device", 4, warnings)
    if device_id is None:
        return None
    subsystem_vendor = _hexadecimal(directory, "subsystem_vendor", 4, warnings)
    subsystem_device = _hexadecimal(directory, "subsystem_device", 4, warnings)
    subsystem = f"{subsystem_vendor}:{subsystem_device}" if subsystem_vendor and subsystem_device else None
    numa_node = _integer(directory, "numa_node")
    return PciGpu(
        pci_address=address,
        device_id=device_id,
        subsystem_id=subsystem,
        # The kernel writes -1 for "this machine has no NUMA, or its firmware does not tell".
        numa_node=numa_node if numa_node is not None and numa_node >= 0 else None,
        kernel_driver=_link_target(os.path.join(directory, "driver")),
        link_speed=_text(os.path.join(directory, "current_link_speed")),
        link_speed_maximum=_text(os.path.join(directory, "max_link_speed")),
        link_width=_integer(directory, "current_link_width"),
        link_width_maximum=_integer(directory, "max_link_width"),
    )


def _listing(directory: str, warnings: list[str]) -> list[str]:
    try:
        return sorted(os.listdir(directory))
    except FileNotFoundError:
        return []
    except OSError as error:
        warnings.append(f"{directory}: {error.strerror}; no PCI device can be read")
        return []


def _text(path: str) -> str | None:
    """One line of printable text, or None when the file is missing, unreadable or empty."""
    try:
        with open(path, "rb") as stream:
            raw = stream.read(_READ_LIMIT_BYTES)
    except OSError:
        return None
    text = raw.decode("ascii", errors="replace").strip()
    return text if text and text.isprintable() and "\ufffd" not in text else None


def _hexadecimal(directory: str, name: str, digits: int, warnings: list[str]) -> str | None:
    """The attribute's hexadecimal digits in upper case ("0x2330" gives "2330"), None with a warning otherwise."""
    path = os.path.join(directory, name)
    text = _text(path)
    body = (text or "").lower()
    body = body[2:] if body.startswith("0x") else ""
    if len(body) != digits or not all(letter in "0123456789abcdef" for letter in body):
        found = "missing or unreadable" if text is None else f"{text!r}"
        warnings.append(f"{path}: found {found}, wanted 0x and {digits} hexadecimal digits")
        return None
    return body.upper()


def _integer(directory: str, name: str) -> int | None:
    text = _text(os.path.join(directory, name)) or ""
    sign, digits = (-1, text[1:]) if text.startswith("-") else (1, text)
    return sign * int(digits) if digits.isdigit() and digits.isascii() and len(digits) < 10 else None


def _link_target(path: str) -> str | None:
    try:
        return os.path.basename(os.readlink(path)) or None
    except OSError:
        return None
