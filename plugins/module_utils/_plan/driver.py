# SPDX-License-Identifier: Apache-2.0
# PRIVATE to the collection: do not import this from outside, it may change without notice.
"""The driver of a host: ``fleet_driver`` read, and the decision put into the host's slice of the plan."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ansible_collections.gpufleet.metal.plugins.module_utils._driver import (
    COMPONENTS,
    KERNEL_MODULES,
    VERSION,
    Device,
    Wish,
    decide,
)
from ansible_collections.gpufleet.metal.plugins.module_utils._gpu import catalogue

from .findings import Finding, did_you_mean
from .reader import Reader, as_integer, is_url, matches, shown
from .schema import Inventory

UNMANAGED = "unmanaged"

_REPOSITORIES = ("vendor", "distribution", UNMANAGED)


def _is_repository(text: str) -> bool:
    return text in _REPOSITORIES or is_url(text)


def _branches(reader: Reader, value: Any) -> tuple[int, ...]:
    """Read ``allowed_branches``."""
    numbers = [as_integer(item) for item in value] if isinstance(value, (list, tuple)) else [None]
    if None in numbers:
        path = f"{reader.path}.allowed_branches"
        reader.report("wrong_type", f"{path} is {shown(value)}", "a list of branches, such as [535]", f"correct {path}")
    return tuple(number for number in numbers if number is not None)


def _components(reader: Reader, value: Any) -> tuple[str, ...] | None:
    """Read ``components``: auto, or a list of words."""
    if value in (None, "auto"):
        return None
    path = f"{reader.path}.components"
    wanted = f"auto or a list of {', '.join(COMPONENTS)}"
    if not isinstance(value, (list, tuple)):
        reader.report("wrong_type", f"{path} is {shown(value)}", wanted, f"correct {path}")
        return None
    for item in value:
        if item not in COMPONENTS:
            close = did_you_mean(str(item), COMPONENTS)
            reader.report("invalid_value", f"{path} has {shown(item)}", wanted + close, f"correct {path}")
    return tuple(sorted({item for item in value if item in COMPONENTS}))


def read_wish(value: Any, path: str, kind: str, subject: str, findings: list[Finding]) -> tuple[Wish, str, bool]:
    """Read ``fleet_driver`` or a host's ``fleet_driver_override``.

    Returns:
        what is asked for, the repository, and whether all of it could be read.
    """
    reader = Reader(value, path, kind, subject, findings)
    values = value if isinstance(value, Mapping) else {}
    kernel_module = reader.choice("kernel_module", "auto", ("auto", *KERNEL_MODULES))
    reader.known("allowed_branches", "components")
    wish = Wish(
        branch=reader.integer_or_auto("branch"),
        version=reader.text("version", None, matches(VERSION), 'a whole driver version like "580.173.02"'),
        kernel_module=None if kernel_module == "auto" else kernel_module,
        components=_components(reader, values.get("components")),
        allowed_branches=_branches(reader, values.get("allowed_branches") or ()),
    )
    repository = reader.text(
        "repository", "vendor", _is_repository, f"one of {', '.join(_REPOSITORIES)}, or the URL of a mirror"
    )
    reader.known("on_simulated")
    if not isinstance(values.get("on_simulated", False), bool):
        where = f"{path}.on_simulated"
        reader.report("wrong_type", f"{where} is {shown(values['on_simulated'])}", "true or false", f"correct {where}")
    reader.finish()
    return wish, repository, reader.ok


def _devices(record: Mapping[str, Any]) -> list[Device]:
    """Return the recorded GPUs; none when one of them has no id or no product, which is a finding of its own."""
    devices = []
    for entry in record["gpus"]:
        if not isinstance(entry, Mapping) or not entry.get("device_id") or entry.get("product") is None:
            return []
        device, subsystem = str(entry["device_id"]).upper(), entry.get("subsystem_id")
        product = catalogue.find(device, str(subsystem) if subsystem else None)
        raw = f"10DE:{device}" + (f", subsystem {subsystem}" if subsystem else "")
        devices.append(Device(str(entry.get("pci_address")), raw, product))
    return devices


def driver_slice(
    host: str, fleet_name: str, inventory: Inventory, accelerator: str, findings: list[Finding]
) -> dict[str, Any] | None:
    """Return what the role nvidia_driver is given on a host; what prevents a decision goes into ``findings``.

    None means that there is nothing to install: the GPUs are simulated and no engine uses them, or somebody else cares
    for the driver (repository: unmanaged), or the hardware or the variables could not be read, which are findings.
    """
    variables = inventory.hosts.get(host, {})
    fleet = inventory.variables.get("fleet_driver")
    override = variables.get("fleet_driver_override")
    wish, repository, readable = read_wish(fleet, "fleet_driver", "fleet", fleet_name, findings)
    if override is not None:
        readable = read_wish(override, "fleet_driver_override", "host", host, findings)[2] and readable
        if readable:
            merged = {**(fleet if isinstance(fleet, Mapping) else {}), **_without_older_version(override)}
            wish, repository, readable = read_wish(merged, "fleet_driver", "host", host, findings)
    record = variables.get("gpu_inventory")
    if not readable or not isinstance(record, Mapping) or not isinstance(record.get("gpus"), (list, tuple)):
        return None
    simulated = record.get("simulated") is True and accelerator == "cpu"
    if repository == UNMANAGED or (simulated and not _on_simulated(fleet, override)):
        return None
    devices = _devices(record)
    if not devices:
        return None
    decision, faults = decide(devices, as_integer(record.get("nvswitch_count")), wish)
    findings.extend(Finding(host, fault.code, fault.found, fault.wanted, fault.fix) for fault in faults)
    if decision is None:
        return None
    return {
        "branch": decision.branch,
        "version": decision.version,
        "kernel_module": decision.kernel_module,
        "components": list(decision.components),
        "repository": repository,
        "expected_gpus": len(record["gpus"]),
        "why": decision.why,
    }


def _on_simulated(*variables: Any) -> bool:
    """Tell whether a host with simulated GPUs shall get the (stand-in) driver packages of a test."""
    return any(isinstance(values, Mapping) and values.get("on_simulated") is True for values in variables)


def _without_older_version(override: Mapping[str, Any]) -> dict[str, Any]:
    """Let a branch that a host names win over the version that the fleet names."""
    return {"version": None, **override} if "branch" in override else dict(override)
