# SPDX-License-Identifier: Apache-2.0
# PRIVATE to the collection: do not import this from outside, it may change without notice.
"""Ask the driver of a host: NVML first, nvidia-smi second, each in a child process with a deadline; read-only.

Where NVSwitches join the GPUs, systemd is asked for the state of Fabric Manager, in the same way.

What came of it is a :class:`DriverAnswer`: a driver that hangs, does not match its library or has lost a GPU is an
answer and not an error, and what the PCI bus tells is there all the same.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from ansible_collections.gpufleet.metal.plugins.module_utils._gpu import catalogue, nvml, observe, pci, smi
from ansible_collections.gpufleet.metal.plugins.module_utils._gpu.child import ChildError, DeadlineError, call
from ansible_collections.gpufleet.metal.plugins.module_utils._gpu.reading import (
    DriverAnswer,
    DriverReading,
    PciReading,
)

#: An NVML with persistence mode answers in a tenth of a second, one that must start eight GPUs first in a few seconds.
DEADLINE_SECONDS = 10.0

FABRIC_MANAGER = "nvidia-fabricmanager"
#: What ``systemctl is-active`` prints (systemd's unit_active_state, and "unknown").
_SERVICE_STATES = ("active", "activating", "deactivating", "failed", "inactive", "maintenance", "reloading", "unknown")


def read_host(
    sysfs_root: str = "/sys",
    nvml_library: str | None = None,
    nvidia_smi: str | None = None,
    deadline_seconds: float = DEADLINE_SECONDS,
    systemctl: str | None = None,
) -> dict[str, Any]:
    """Return ``ansible_facts.gpu`` of this host.

    Args:
        sysfs_root: where sysfs is mounted.
        nvml_library: absolute path of libnvidia-ml.so.1, None to let the dynamic linker find it.
        nvidia_smi: path of the program, None where there is none.
        deadline_seconds: how long each reader of the driver may take.
        systemctl: path of the program, None where there is none.
    """
    on_bus = pci.read(sysfs_root)
    answer = ask(nvml_library, nvidia_smi, deadline_seconds, kernel_module=on_bus.driver_version)
    service = None
    if systemctl is not None and has_switches(on_bus):
        service, fault = fabric_manager(systemctl, deadline_seconds)
        if fault is not None:
            answer = replace(answer, warnings=(*answer.warnings, fault))
    return observe.observe(on_bus, answer, service)


def has_switches(on_bus: PciReading) -> bool:
    """Whether NVSwitches join the GPUs. Those of NVLink 5 boards are not on the bus: there the product says so.

    Nobody is asked for the services of simulated GPUs: they are those of another machine.
    """
    if on_bus.simulated:
        return False
    products = (catalogue.find(gpu.device_id, gpu.subsystem_id) for gpu in on_bus.gpus)
    return on_bus.nvswitch_count > 0 or any(product.fabric == "nvlink5" for product in products if product)


def fabric_manager(systemctl: str, deadline_seconds: float) -> tuple[str | None, str | None]:
    """Return the state of Fabric Manager's service, or None and why nobody can tell."""
    question = ("is-active", FABRIC_MANAGER)
    try:
        ((status, out, err),) = call(partial(run_program, systemctl, [question]), deadline_seconds)
    except (ChildError, DeadlineError) as error:
        return None, f"systemctl {' '.join(question)}: {error}"
    word = out.strip()
    if word in _SERVICE_STATES:
        return word, None
    said = " ".join((err or out).split()) or "nothing"
    return None, f"systemctl {' '.join(question)} ended with status {status} and said: {said}"


def ask(
    nvml_library: str | None,
    nvidia_smi: str | None,
    deadline_seconds: float = DEADLINE_SECONDS,
    kernel_module: str | None = None,
) -> DriverAnswer:
    """Ask NVML, and nvidia-smi where NVML cannot be read; ``kernel_module`` is the version of the loaded module."""
    warnings: list[str] = []
    state = "broken"
    try:
        said = call(partial(_nvml, nvml_library), deadline_seconds)
    except DeadlineError as error:
        # nvidia-smi asks the same driver and would hang, too.
        return _failed("hung", f"NVML: {error}", warnings)
    except ChildError as error:
        reason = f"NVML: {error}"
        warnings.append(reason)
    else:
        if "reading" in said:
            return _answered(DriverReading.from_dict(said["reading"]), warnings)
        state, reason = said["state"] or "broken", said["reason"]
        if state in ("mismatch", "lost"):
            # nvidia-smi would say the same.
            return _failed(state, reason, warnings)
        if not said["expected"]:
            warnings.append(reason)
    if nvidia_smi is None:
        if state == "absent" and kernel_module is not None:
            reason = f"the kernel module {kernel_module} is loaded, but {reason} and there is no nvidia-smi"
            return _failed("broken", reason, warnings)
        return DriverAnswer(state, f"{reason}, and there is no nvidia-smi", None, tuple(warnings))
    try:
        said = call(partial(_nvidia_smi, nvidia_smi), deadline_seconds)
    except DeadlineError as error:
        return _failed("hung", f"nvidia-smi: {error}", warnings)
    except ChildError as error:
        return _failed("broken", f"nvidia-smi: {error}", warnings)
    if "reading" in said:
        return _answered(DriverReading.from_dict(said["reading"]), warnings)
    if said["state"] == "absent" and kernel_module is None:
        return DriverAnswer("absent", said["reason"], None, tuple(warnings))
    return _failed("broken" if said["state"] == "absent" else said["state"], said["reason"], warnings)


def _answered(reading: DriverReading, warnings: Sequence[str]) -> DriverAnswer:
    return DriverAnswer("lost" if reading.lost else "running", reading.lost, reading, tuple(warnings))


def _failed(state: str, reason: str, warnings: Sequence[str]) -> DriverAnswer:
    return DriverAnswer(state, reason, None, (*warnings, reason))


def _nvml(library: str | None) -> dict[str, Any]:
    """In the child: NVML's reading, or why there is none."""
    try:
        return {"reading": nvml.read(library).as_dict()}
    except nvml.NvmlUnavailableError as error:
        return {"state": error.state, "reason": str(error), "expected": error.expected}


def _nvidia_smi(program: str) -> dict[str, Any]:
    """In the child: nvidia-smi's reading, or why there is none."""
    try:
        return {"reading": smi.read(partial(run_program, program)).as_dict()}
    except smi.SmiError as error:
        return {"state": error.state, "reason": str(error)}


def run_program(program: str, commands: Sequence[tuple[str, ...]]) -> list[tuple[int, str, str]]:
    """Start the program once for each command, all at the same time, and return what each said when all have ended."""
    started: list[subprocess.Popen[str] | str] = []
    for arguments in commands:
        try:
            started.append(
                subprocess.Popen(
                    [program, *arguments],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    text=True,
                    errors="replace",
                    env={**os.environ, "LC_ALL": "C"},
                )
            )
        except OSError as error:
            started.append(str(error))
    answers = []
    for process in started:
        if isinstance(process, str):
            answers.append((127, "", process))
        else:
            out, err = process.communicate()
            answers.append((process.returncode, out, err))
    return answers
