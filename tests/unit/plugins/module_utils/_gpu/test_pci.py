# SPDX-License-Identifier: Apache-2.0
"""The PCI reader survives any tree: missing files, garbage, other vendors, virtual functions."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ansible_collections.gpufleet.metal.plugins.module_utils._errors import FleetError
from ansible_collections.gpufleet.metal.plugins.module_utils._gpu import pci
from ansible_collections.gpufleet.metal.plugins.module_utils._gpu.reading import PciGpu, PciReading, normal_pci_address

H100 = {
    "vendor": "0x10de\n",
    "device": "0x2330\n",
    "class": "0x030200\n",
    "subsystem_vendor": "0x10de\n",
    "subsystem_device": "0x16c1\n",
    "numa_node": "1\n",
    "current_link_speed": "2.5 GT/s PCIe\n",
    "max_link_speed": "32.0 GT/s PCIe\n",
    "current_link_width": "16\n",
    "max_link_width": "16\n",
}


def device(root: Path, address: str, attributes: dict[str, str]) -> Path:
    directory = root / "bus" / "pci" / "devices" / address
    directory.mkdir(parents=True)
    for name, value in attributes.items():
        (directory / name).write_text(value, encoding="utf-8")
    return directory


def test_a_full_device(tmp_path: Path) -> None:
    directory = device(tmp_path, "0000:17:00.0", H100)
    (directory / "driver").symlink_to("../../../bus/pci/drivers/nvidia")
    (tmp_path / "module" / "nvidia").mkdir(parents=True)
    (tmp_path / "module" / "nvidia" / "version").write_text("580.105.08\n", encoding="utf-8")
    assert pci.read(str(tmp_path)) == PciReading(
        gpus=(
            PciGpu(
                pci_address="0000:17:00.0",
                device_id="2330",
                subsystem_id="10DE:16C1",
                numa_node=1,
                kernel_driver="nvidia",
                link_speed="2.5 GT/s PCIe",
                link_speed_maximum="32.0 GT/s PCIe",
                link_width=16,
                link_width_maximum=16,
            ),
        ),
        driver_version="580.105.08",
    )


@pytest.mark.parametrize("numa", ["-1\n", "", "many\n", "٣\n"])
def test_no_numa_node(tmp_path: Path, numa: str) -> None:
    device(tmp_path, "0000:17:00.0", {**H100, "numa_node": numa})
    assert pci.read(str(tmp_path)).gpus[0].numa_node is None


@pytest.mark.parametrize(
    ("attributes", "gpus", "switches"),
    [
        ({**H100, "class": "0x030000\n"}, 1, 0),
        ({**H100, "class": "0x068000\n", "device": "0x22a3\n"}, 0, 1),
        ({**H100, "class": "0x040300\n"}, 0, 0),
        ({**H100, "vendor": "0x8086\n"}, 0, 0),
    ],
    ids=["vga", "nvswitch", "audio", "other vendor"],
)
def test_what_counts(tmp_path: Path, attributes: dict[str, str], gpus: int, switches: int) -> None:
    device(tmp_path, "0000:17:00.0", attributes)
    reading = pci.read(str(tmp_path))
    assert (len(reading.gpus), reading.nvswitch_count, reading.warnings) == (gpus, switches, ())


def test_a_virtual_function_is_no_gpu_of_its_own(tmp_path: Path) -> None:
    device(tmp_path, "0000:17:00.0", H100)
    (device(tmp_path, "0000:17:00.4", H100) / "physfn").symlink_to("../0000:17:00.0")
    assert [gpu.pci_address for gpu in pci.read(str(tmp_path)).gpus] == ["0000:17:00.0"]


def test_no_tree_is_a_host_without_gpus(tmp_path: Path) -> None:
    assert pci.read(str(tmp_path / "missing")) == PciReading()


def test_the_mark_of_a_simulation(tmp_path: Path) -> None:
    (tmp_path / "SIMULATED").touch()
    assert pci.read(str(tmp_path)).simulated is True


def test_missing_files_become_warnings(tmp_path: Path) -> None:
    devices = tmp_path / "bus" / "pci" / "devices"
    device(tmp_path, "0000:17:00.0", {"vendor": "0x10de\n", "class": "0x030200\n", "device": "0x2330\n"})
    device(tmp_path, "0000:3d:00.0", {"vendor": "0x10de\n", "class": "0x030200\n", "device": "H100\n"})
    device(tmp_path, "0000:60:00.0", {})
    device(tmp_path, "0000:70:00.0", {"vendor": "0x10de\n"})
    device(tmp_path, "lost+found", H100)
    reading = pci.read(str(tmp_path))
    assert reading.gpus == (PciGpu(pci_address="0000:17:00.0", device_id="2330"),)
    assert reading.warnings == (
        f"{devices}/0000:17:00.0/subsystem_vendor: found missing or unreadable, wanted 0x and 4 hexadecimal digits",
        f"{devices}/0000:17:00.0/subsystem_device: found missing or unreadable, wanted 0x and 4 hexadecimal digits",
        f"{devices}/0000:3d:00.0/device: found 'H100', wanted 0x and 4 hexadecimal digits",
        f"{devices}/0000:60:00.0/vendor: found missing or unreadable, wanted 0x and 4 hexadecimal digits",
        f"{devices}/0000:70:00.0/class: found missing or unreadable, wanted 0x and 6 hexadecimal digits",
        f"{devices}/lost+found: 'lost+found' is not a PCI address (wanted domain:bus:device.function, "
        "as in 0000:3d:00.0); skipped",
    )


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60, deadline=None)
@given(content=st.fixed_dictionaries({name: st.binary(max_size=40) for name in H100}), nvidia=st.booleans())
def test_random_bytes_never_crash(tmp_path: Path, content: dict[str, bytes], nvidia: bool) -> None:
    directory = tmp_path / "bus" / "pci" / "devices" / "0000:17:00.0"
    directory.mkdir(parents=True, exist_ok=True)
    for name, value in content.items():
        (directory / name).write_bytes(value)
    if nvidia:
        (directory / "vendor").write_bytes(b"0x10de\n")
        (directory / "class").write_bytes(b"0x030200\n")
        (directory / "device").write_bytes(b"0x2330\n")
    reading = pci.read(str(tmp_path))
    assert len(reading.gpus) <= 1
    if nvidia:
        assert reading.gpus[0].device_id == "2330"


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("0000:17:00.0", "0000:17:00.0"),
        ("00000000:3D:00.0", "0000:3d:00.0"),
        ("00010000:01:00.0", "10000:01:00.0"),
        (" 0:1:2.3\n", "0000:01:02.3"),
    ],
)
def test_normal_pci_address(text: str, normal: str) -> None:
    assert normal_pci_address(text) == normal


@given(domain=st.integers(0, 2**32 - 1), bus=st.integers(0, 255), slot=st.integers(0, 31))
def test_nvml_and_sysfs_spellings_meet(domain: int, bus: int, slot: int) -> None:
    sysfs = f"{domain:04x}:{bus:02x}:{slot:02x}.0"
    assert normal_pci_address(f"{domain:08X}:{bus:02X}:{slot:02X}.0") == sysfs
    assert normal_pci_address(sysfs) == sysfs


def test_no_pci_address() -> None:
    with pytest.raises(FleetError) as caught:
        normal_pci_address("GPU-1")
    assert str(caught.value) == ("'GPU-1' is not a PCI address (wanted domain:bus:device.function, as in 0000:3d:00.0)")
