# SPDX-License-Identifier: Apache-2.0
"""Write the simulated GPUs of one host: a PCI sysfs tree, and NVML's stand-in with its description.

    make_sysfs.py DESCRIPTION.json DIRECTORY [--host NAME] [--no-library]

DIRECTORY then holds ``sys/`` (a sysfs root, marked by the file SIMULATED), ``nvml.txt`` (read by the library) and
``libnvidia-ml.so.1`` (built with $CC, else cc). It is rewritten in place, so a running host that mounts it sees the
change. README.md has the form of a description.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import uuid
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
GPU_CLASS = "0x030200"
SWITCH_CLASS = "0x068000"
SWITCH_DEVICE_ID = "22A3"
HOST_KEYS = {"comment", "driver_version", "cuda_version", "fault", "nvswitches", "gpus"}
FAULTS = ("hang", "mismatch", "lost", "unknown")
GPU_KEYS = {
    "pci_address",
    "device_id",
    "subsystem_id",
    "name",
    "memory_mib",
    "compute_capability",
    "numa_node",
    "mig_enabled",
    "ecc_enabled",
    "persistence_mode",
    "ecc_uncorrectable",
    "remapped_rows",
    "pcie_link",
    "processes",
    "fabric",
    "nvlink_peers",
    "in_driver",
    "lost",
}
#: NVML's numbers for the states of the fabric.
FABRIC_STATES = {"not started": 1, "in progress": 2, "completed": 3}
#: NVLinks between two GPUs that are joined without a switch, and from a GPU to each switch.
LINKS_PER_PEER = 2


def check(description: dict[str, Any]) -> None:
    """Refuse a description with an unknown key, or one that does not call itself simulated."""
    unknown = set(description) - HOST_KEYS
    for gpu in description["gpus"]:
        unknown |= set(gpu) - GPU_KEYS
        if "Simulated" not in gpu["name"]:
            raise SystemExit(f'{gpu["pci_address"]}: name: found {gpu["name"]!r}, wanted one that contains "Simulated"')
    if unknown:
        raise SystemExit(f"unknown keys: {', '.join(sorted(unknown))}")
    driver = description.get("driver_version")
    if driver is not None and "simulated" not in driver:
        raise SystemExit(f'driver_version: found {driver!r}, wanted one that contains "simulated", or null')
    fault = description.get("fault")
    if fault is not None and fault not in FAULTS:
        raise SystemExit(f"fault: found {fault!r}, wanted one of {', '.join(FAULTS)}, or null")


def simulated_uuid(host: str, address: str) -> str:
    """The same for a host and a PCI address at any time; begins with zeros, which no real card's does."""
    return "GPU-00000000" + str(uuid.uuid5(uuid.NAMESPACE_DNS, f"{host}/{address}.simulated-gpu.invalid"))[8:]


def write_device(root: Path, address: str, attributes: dict[str, str]) -> None:
    """Write one device's directory, one attribute to a file, as sysfs shows it."""
    directory = root / "bus" / "pci" / "devices" / address
    directory.mkdir(parents=True)
    for name, value in attributes.items():
        (directory / name).write_text(f"{value}\n", encoding="ascii")


def write_sysfs(description: dict[str, Any], root: Path) -> None:
    """Write the tree below ``root``; every GPU and switch is a device of vendor 10de."""
    (root / "bus" / "pci" / "devices").mkdir(parents=True)
    (root / "SIMULATED").write_text("This tree is simulated: there is no such hardware.\n", encoding="ascii")
    for gpu in description["gpus"]:
        vendor, device = gpu["subsystem_id"].split(":")
        write_device(
            root,
            gpu["pci_address"],
            {
                "vendor": "0x10de",
                "device": f"0x{gpu['device_id'].lower()}",
                "class": GPU_CLASS,
                "subsystem_vendor": f"0x{vendor.lower()}",
                "subsystem_device": f"0x{device.lower()}",
                "numa_node": str(gpu.get("numa_node", -1)),
                "current_link_speed": "32.0 GT/s PCIe",
                "max_link_speed": "32.0 GT/s PCIe",
                "current_link_width": "16",
                "max_link_width": "16",
            },
        )
    for address in description.get("nvswitches", []):
        switch = {"vendor": "0x10de", "device": f"0x{SWITCH_DEVICE_ID.lower()}", "class": SWITCH_CLASS}
        write_device(root, address, switch)


def nvml_text(description: dict[str, Any], host: str) -> str:
    """The description in the lines that nvml_stub.c reads; without a driver there is no line for it."""
    lines = ["# Simulated: there is no such hardware. Written by make_sysfs.py, read by libnvidia-ml.so.1 beside it."]
    if description.get("driver_version") is not None:
        lines.append(f"driver {description['driver_version']}")
    if description.get("cuda_version") is not None:
        major, minor = (int(part) for part in description["cuda_version"].split("."))
        lines.append(f"cuda {major * 1000 + minor * 10}")
    if description.get("fault") is not None:
        lines.append(f"fault {description['fault']}")
    switches = description.get("nvswitches", [])
    for gpu in description["gpus"]:
        if not gpu.get("in_driver", True):
            continue
        peers = gpu.get("nvlink_peers", [])
        ends = [f"gpu/{peer}" for peer in peers]
        if peers and switches:
            ends = [f"switch/{address}" for address in switches]
        vendor, device = gpu["subsystem_id"].split(":")
        pairs = {
            "pci": gpu["pci_address"],
            "device": f"{gpu['device_id']}10DE",
            "subsystem": f"{device}{vendor}",
            "uuid": simulated_uuid(host, gpu["pci_address"]),
            "memory": gpu.get("memory_mib", "-"),
            "cc": gpu.get("compute_capability", "-"),
            "mig": state(gpu.get("mig_enabled")),
            "ecc": state(gpu.get("ecc_enabled")),
            "persistence": state(gpu.get("persistence_mode")),
            "numa": gpu.get("numa_node", "-"),
            "ecc_errors": numbers(gpu.get("ecc_uncorrectable"), "volatile", "aggregate"),
            "rows": numbers(gpu.get("remapped_rows"), "correctable", "uncorrectable", "pending", "failure"),
            "pcie": numbers(
                gpu.get("pcie_link"), "generation", "generation_maximum", "generation_product", "width", "width_maximum"
            ),
            "fabric": fabric(gpu.get("fabric")),
            "processes": ",".join(
                f"{process['pid']}:{process['memory_mib']}:{process['name'] or '-'}"
                for process in gpu.get("processes", [])
            ),
            "lost": state(gpu.get("lost", False)),
            "peers": ",".join(peers),
            "links": ",".join(end for end in ends for __ in range(LINKS_PER_PEER)),
            "name": gpu["name"],
        }
        lines.append("gpu " + " ".join(f"{key}={value}" for key, value in pairs.items()))
    return "\n".join(lines) + "\n"


def state(value: bool | None) -> str:
    """A mode for nvml_stub.c: on, off or not supported."""
    return "-" if value is None else str(int(value))


def numbers(answers: dict[str, Any] | None, *names: str) -> str:
    """Some answers for nvml_stub.c, in this order."""
    return "-" if answers is None else "/".join(str(int(answers[name])) for name in names)


def fabric(answer: dict[str, Any] | None) -> str:
    """The state of the fabric for nvml_stub.c, and NVML's return code as its status."""
    return "-" if answer is None else f"{FABRIC_STATES[answer['state']]}/{answer['status_code']}"


def build_library(target: Path) -> None:
    """Compile nvml_stub.c; the soname makes nvidia-ml-py find it under the real library's name."""
    compiler = os.environ.get("CC", "cc")
    source = str(HERE / "nvml_stub.c")
    partial = target.with_suffix(".partial")
    options = ["-shared", "-fPIC", "-O1", "-Wall", "-Wextra", "-Wl,-soname,libnvidia-ml.so.1"]
    try:
        subprocess.run([compiler, *options, "-o", str(partial), source], check=True)
    except FileNotFoundError:
        raise SystemExit(f"no C compiler: {compiler!r} was not found; install gcc, or name one in CC") from None
    except subprocess.CalledProcessError as error:
        raise SystemExit(f"{compiler} could not build {source} (status {error.returncode})") from None
    partial.replace(target)


def main(arguments: list[str] | None = None) -> int:
    """Write everything into the directory."""
    parser = argparse.ArgumentParser(description="Write the simulated GPUs of one host.")
    parser.add_argument("description", type=Path, help="JSON file, see README.md")
    parser.add_argument("directory", type=Path, help="directory to write; what it held of these names is replaced")
    parser.add_argument("--host", help="name that the UUIDs are made from (default: the directory's name)")
    parser.add_argument("--no-library", action="store_true", help="do not build libnvidia-ml.so.1")
    options = parser.parse_args(arguments)
    description = json.loads(options.description.read_text(encoding="utf-8"))
    check(description)
    root = options.directory / "sys"
    options.directory.mkdir(parents=True, exist_ok=True)
    if root.exists():
        shutil.rmtree(root)
    write_sysfs(description, root)
    host = options.host or options.directory.resolve().name
    (options.directory / "nvml.txt").write_text(nvml_text(description, host), encoding="ascii")
    if not options.no_library:
        build_library(options.directory / "libnvidia-ml.so.1")
    return 0


if __name__ == "__main__":
    sys.exit(main())
