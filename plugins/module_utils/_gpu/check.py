# SPDX-License-Identifier: Apache-2.0
# PRIVATE to the collection: do not import this from outside, it may change without notice.
"""Compare what is recorded about a host with what the host is, and hold its GPUs against the rules.

Pure: data in, findings out, sorted.

A finding is {host, code, found, wanted, fix}: a reason why the host cannot be given what the plan has for it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from ansible_collections.gpufleet.metal.plugins.module_utils._errors import InvalidInputError
from ansible_collections.gpufleet.metal.plugins.module_utils._gpu.requirements import Requirements
from ansible_collections.gpufleet.metal.plugins.module_utils._gpu.rules import Finding, breaches

# The oldest Python that ansible-core and this collection's modules run on at the target's side.
PYTHON_MINIMUM = (3, 9)
ARCHITECTURES = ("x86_64", "aarch64")
SERVICE_MANAGER = "systemd"

_DISCOVER = "if the hardware was changed on purpose, run the playbook gpufleet.metal.discover and commit the record"


def host_findings(
    host: str,
    system: dict[str, Any],
    supported_distributions: Iterable[dict[str, Any]],
    expected_gpus: Iterable[dict[str, Any]] = (),
    observed: dict[str, Any] | None = None,
    expected_simulated: bool | None = None,
    wanted: Requirements | None = None,
) -> list[Finding]:
    """Return every finding of one host, in a stable order.

    Args:
        host: inventory name.
        system: the host's facts (``ansible_facts`` of the minimal subset: distribution, python ...).
        supported_distributions: [{name: "Debian", versions: ["12", "13"]}]; a version matches the host's full
            version or its major version.
        expected_gpus: the plan's slice: [{pci_address, device_id, product, uuid, split}].
        observed: ``ansible_facts.gpu``; None when no GPU is expected and nobody looked.
        expected_simulated: what the record says about simulation; None: the record says nothing.
        wanted: what the plan asks of the GPUs; None asks what every GPU must have.

    Raises:
        InvalidInputError: GPUs are expected but ``observed`` is None (the playbook did not look).
    """
    findings = [
        *_distribution(host, system, list(supported_distributions)),
        *_machine(host, system),
    ]
    expected = list(expected_gpus)
    if expected and observed is None:
        raise InvalidInputError(
            f"{host}: expected {_count(len(expected))}, but found no GPU facts; "
            "wanted ansible_facts.gpu from gpufleet.metal.gpu_facts"
        )
    if observed is not None:
        findings += _simulation(host, observed, expected_simulated)
        findings += _gpus(host, expected, observed)
        findings += breaches(host, observed, wanted or Requirements())
    return findings


def unreachable_finding(host: str) -> Finding:
    """The finding of a host that the run wanted and that gave no answer."""
    return _finding(
        host,
        "host_unreachable",
        "no usable answer to the first question (the reason stands above)",
        "a host that Ansible can log in to and run Python on",
        f"bring it back (ansible_host, ansible_user, ssh key, python3), or run without it: --limit 'all:!{host}'",
    )


def _finding(host: str, code: str, found: str, wanted: str, fix: str) -> Finding:
    return {"host": host, "code": code, "found": found, "wanted": wanted, "fix": fix}


def _distribution(host: str, system: dict[str, Any], supported: list[dict[str, Any]]) -> list[Finding]:
    name = str(system.get("distribution", "unknown"))
    version = str(system.get("distribution_version", "unknown"))
    major = str(system.get("distribution_major_version", version))
    for entry in supported:
        if entry["name"] == name and {version, major} & {str(wanted) for wanted in entry["versions"]}:
            return []
    wanted = "; ".join(f"{entry['name']} {', '.join(str(v) for v in entry['versions'])}" for entry in supported)
    return [
        _finding(
            host,
            "distribution_unsupported",
            f"{name} {version}",
            f"one of: {wanted}",
            "install a supported distribution, or add this one to preflight_supported_distributions after testing it",
        )
    ]


def _machine(host: str, system: dict[str, Any]) -> list[Finding]:
    findings = []
    architecture = str(system.get("architecture", "unknown"))
    if architecture not in ARCHITECTURES:
        findings.append(
            _finding(
                host,
                "architecture_unsupported",
                architecture,
                f"one of: {', '.join(ARCHITECTURES)}",
                "use a host with a supported processor: drivers, packages and images exist for these only",
            )
        )
    manager = str(system.get("service_mgr", "unknown"))
    if manager != SERVICE_MANAGER:
        findings.append(
            _finding(
                host,
                "service_manager_unsupported",
                manager,
                SERVICE_MANAGER,
                "boot the host with systemd: every service of the fleet is a systemd unit",
            )
        )
    version = system.get("python", {}).get("version", {})
    python = (int(version.get("major", 0)), int(version.get("minor", 0)))
    if python < PYTHON_MINIMUM:
        findings.append(
            _finding(
                host,
                "python_too_old",
                f"Python {python[0]}.{python[1]} at {system.get('python', {}).get('executable', 'an unknown path')}",
                f"Python {PYTHON_MINIMUM[0]}.{PYTHON_MINIMUM[1]} or newer",
                "install a newer Python on the host and name it in ansible_python_interpreter",
            )
        )
    return findings


def _simulation(host: str, observed: dict[str, Any], expected: bool | None) -> list[Finding]:
    if expected is None or bool(observed["simulated"]) == expected:
        return []
    words = {True: "simulated GPUs", False: "real GPUs"}
    return [
        _finding(
            host,
            "simulation_mismatch",
            words[bool(observed["simulated"])],
            f"{words[expected]}, as recorded (gpu_inventory.simulated)",
            f"check fleet_sysfs_root and fleet_nvml_library of this host; {_DISCOVER}",
        )
    ]


def _gpus(host: str, expected: list[dict[str, Any]], observed: dict[str, Any]) -> list[Finding]:
    present = {gpu["pci_address"]: gpu for gpu in observed["gpus"]}
    recorded = {gpu["pci_address"]: gpu for gpu in expected}
    findings = []
    for address, wanted in sorted(recorded.items()):
        gpu = present.get(address)
        if gpu is None:
            findings.append(
                _finding(
                    host,
                    "gpu_missing",
                    f"{_count(len(present))}: {_list(present)}",
                    f"{_count(len(recorded))}, among them {_describe(wanted)}",
                    f"look for the card in lspci, the slot and the host's event log; {_DISCOVER}",
                )
            )
        elif gpu["device_id"] != wanted["device_id"]:
            findings.append(
                _finding(
                    host,
                    "gpu_replaced",
                    _describe(gpu),
                    f"{_describe(wanted)}, as recorded",
                    _DISCOVER,
                )
            )
        else:
            findings += _same_gpu(host, wanted, gpu)
    for address, gpu in sorted(present.items()):
        if address not in recorded:
            findings.append(
                _finding(
                    host,
                    "gpu_not_recorded",
                    _describe(gpu),
                    f"{_count(len(recorded))}: {_list(recorded)}, as recorded",
                    f"the plan cannot use it; {_DISCOVER}",
                )
            )
    return findings


def _same_gpu(host: str, wanted: dict[str, Any], gpu: dict[str, Any]) -> list[Finding]:
    """The right product at the right address; is it the very same card, and split as recorded?

    A GPU without a UUID is one that no driver describes: before a driver nobody can tell, and one that a running driver
    does not report breaks a rule.
    """
    findings = []
    if wanted.get("uuid") and gpu["uuid"] not in (None, wanted["uuid"]):
        findings.append(
            _finding(
                host,
                "gpu_uuid_changed",
                f"{gpu['uuid']} at {gpu['pci_address']}",
                f"{wanted['uuid']}, as recorded",
                f"the card was exchanged or moved; {_DISCOVER}",
            )
        )
    if wanted.get("split") and gpu.get("mig_enabled") is False:
        findings.append(
            _finding(
                host,
                "mig_disabled",
                f"{_describe(gpu)} is whole",
                "split by MIG, as nvidia_driver_mig says",
                "have whoever cares for this host's driver split it, or take the GPU out of nvidia_driver_mig",
            )
        )
    return findings


def _count(number: int) -> str:
    return f"{number} GPU" if number == 1 else f"{number} GPUs"


def _describe(gpu: dict[str, Any]) -> str:
    return f"{gpu['pci_address']} ({gpu.get('product') or 'unknown device'}, 10DE:{gpu.get('device_id') or '????'})"


def _list(gpus: dict[str, dict[str, Any]]) -> str:
    return ", ".join(_describe(gpu) for __, gpu in sorted(gpus.items())) or "none"
