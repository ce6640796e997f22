# SPDX-License-Identifier: Apache-2.0
# PRIVATE to the collection: do not import this from outside, it may change without notice.
"""What a host says about its driver: packages, kernel, Secure Boot, services, and whether CUDA starts.

Reading changes nothing and is safe on a serving host. Paths hang below a root that tests can move.

Sources: dpkg-query(1), rpm(8), os-release(5), systemctl(1); the UEFI specification, section 3.3 (SecureBoot); the
driver's README (/sys/module, /proc/driver/nvidia).
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ansible_collections.gpufleet.metal.plugins.module_utils._commands import Runner, bounded
from ansible_collections.gpufleet.metal.plugins.module_utils._driver_packages import (
    is_driver_package,
    matches,
    upstream,
    vendor_of,
)
from ansible_collections.gpufleet.metal.plugins.module_utils._errors import FleetError, InvalidInputError
from ansible_collections.gpufleet.metal.plugins.module_utils._gpu import child
from ansible_collections.gpufleet.metal.plugins.module_utils._mig import QUERY_APPS, parse_busy

UNITS = ("nvidia-persistenced", "nvidia-fabricmanager", "nvidia-imex", "nvidia-dcgm", "nvidia-cdi-refresh")
SYSTEMS = {
    "ubuntu": ("22.04", "24.04", "26.04"),
    "debian": ("12", "13"),
    "rhel": ("8", "9", "10"),
}
_SECURE_BOOT = "sys/firmware/efi/efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c"
_MACHINES = {"x86_64": ("x86_64", "x86_64"), "aarch64": ("aarch64", "sbsa"), "arm64": ("aarch64", "sbsa")}
_INSTALLER = ("usr/bin/nvidia-uninstall", "usr/bin/nvidia-installer")
_DKMS_KEYS = ("var/lib/dkms/mok.pub", "var/lib/shim-signed/mok/MOK.der")
_UNFINISHED = frozenset({"unpacked", "half-configured", "half-installed", "triggers-awaited", "triggers-pending"})
_OWN_PACKAGES = re.compile(r"(infiniband-diags|datacenter-gpu-manager-4-.*|(linux-headers|kernel-devel)(-.*)?)")


def system_of(os_release: str, machine: str, kernel: str) -> dict[str, str]:
    """Return what decides about packages.

    These are ``name`` (for messages), ``family`` (debian or rhel), ``distribution``, ``major``, ``machine``, ``kernel``
    (release), and ``directory``: where NVIDIA's repository has the system, such as debian12/x86_64; an Arm
    server's is "sbsa".

    Raises:
        InvalidInputError: a system for which NVIDIA's packages are not known here.
    """
    values = {}
    for line in os_release.splitlines():
        key, sign, value = line.partition("=")
        if sign and not line.startswith("#"):
            values[key.strip()] = "".join(shlex.split(value))
    name = values.get("ID", "")
    version = values.get("VERSION_ID", "")
    like = values.get("ID_LIKE", "").split()
    distribution = name if name in ("ubuntu", "debian") else "rhel" if name == "rhel" or "rhel" in like else name
    known = SYSTEMS.get(distribution, ())
    major = version.split(".", 1)[0]
    shown = version if distribution == "ubuntu" else major
    if shown not in known or machine not in _MACHINES:
        raise InvalidInputError(
            f"this host runs {name or 'an unnamed system'} {version} on {machine}, wanted Ubuntu 22.04, 24.04 or "
            "26.04, Debian 12 or 13, or RHEL 8, 9 or 10 or a rebuild of it, on x86_64 or aarch64"
        )
    processor, directory = _MACHINES[machine]
    return {
        "name": f"{name} {version}",
        "family": "rhel" if distribution == "rhel" else "debian",
        "distribution": distribution,
        "major": major,
        "directory": f"{distribution}{shown.replace('.', '')}/{directory}",
        "machine": processor,
        "kernel": kernel,
    }


def parse_dpkg(text: str) -> tuple[dict[str, dict[str, Any]], list[str]]:
    """Read ``dpkg-query --show`` with DPKG_FORMAT: the packages that matter here, and all that are unfinished."""
    packages: dict[str, dict[str, Any]] = {}
    unfinished = []
    for line in text.splitlines():
        name, version, want, status, maintainer = line.split("\t", 4)
        if status in _UNFINISHED:
            unfinished.append(name)
        if status in {"installed", *_UNFINISHED} and (is_driver_package(name) or _OWN_PACKAGES.fullmatch(name)):
            packages[name] = {"version": version, "held": want == "hold", "vendor": vendor_of(maintainer)}
    return packages, sorted(unfinished)


DPKG_FORMAT = r"${Package}\t${Version}\t${db:Status-Want}\t${db:Status-Status}\t${Maintainer}\n"
RPM_FORMAT = r"%{NAME}\t%{EVR}\t%{ARCH}\t%{VENDOR}\n"


def parse_rpm(text: str, locks: str) -> dict[str, dict[str, Any]]:
    """Read ``rpm --query --all`` with RPM_FORMAT, and dnf's list of version locks."""
    locked = {line.rstrip("*.") for line in locks.splitlines() if line and line[0] not in "#!"}
    packages: dict[str, dict[str, Any]] = {}
    for line in text.splitlines():
        name, version, architecture, vendor = line.split("\t", 3)
        if is_driver_package(name) or _OWN_PACKAGES.fullmatch(name):
            version = version.replace("(none):", "")
            if name == "kernel-devel":
                # Several may be there; which one is needed depends on the running kernel.
                name = f"{name}-{version}.{architecture}"
            epoch = version if ":" in version else f"0:{version}"
            packages[name] = {
                "version": version,
                "held": any(lock in (f"{name}-{epoch}", f"{name}-{version}") for lock in locked),
                "vendor": vendor_of(vendor),
            }
    return packages


def parse_units(text: str) -> dict[str, dict[str, Any]]:
    """Read ``systemctl show`` of the services: whether each exists, and whether it is enabled and active."""
    units = {}
    for block in filter(None, text.split("\n\n")):
        properties = dict(line.partition("=")[::2] for line in block.splitlines())
        units[properties["Id"].removesuffix(".service")] = {
            "exists": properties["LoadState"] == "loaded",
            "running": properties["ActiveState"] == "active" and properties["UnitFileState"] in ("enabled", "static"),
        }
    return units


def parse_smi(text: str) -> dict[str, Any]:
    """Read ``nvidia-smi -q``: the driver's version, the number of GPUs, and every GPU's fabric state.

    A GPU without a fabric shows N/A for both, and is not in ``fabric``.
    """
    version = re.search(r"^Driver Version\s*:\s*(\S+)", text, re.MULTILINE)
    count = re.search(r"^Attached GPUs\s*:\s*([0-9]+)", text, re.MULTILINE)
    if not version or not count:
        raise FleetError(f"nvidia-smi -q printed neither 'Driver Version' nor 'Attached GPUs': {text.strip()[:200]!r}")
    fabric = {}
    for part in re.split(r"^GPU ", text, flags=re.MULTILINE)[1:]:
        section = re.search(r"^ +Fabric\n +State\s*: (.+)\n +Status\s*: (.+)$", part, re.MULTILINE)
        if section and section[1].strip() != "N/A":
            fabric[part.split()[0]] = f"{section[1].strip()}/{section[2].strip()}"
    return {"driver_version": version[1], "gpus": int(count[1]), "fabric": fabric}


_PROOF = """
import ctypes, re
cuda = ctypes.CDLL("libcuda.so.1")
with open("/proc/self/maps") as maps:
    path = re.search(r"(/\\S*libcuda\\.so\\S*)", maps.read())
count = ctypes.c_int(-1)
status = cuda.cuInit(0)
if status == 0:
    status = cuda.cuDeviceGetCount(ctypes.byref(count))
print(status, count.value, path.group(1) if path else "-")
"""


def prove_cuda(interpreter: str, deadline_seconds: float) -> dict[str, Any]:
    """Start CUDA in a process of its own, which is killed at the deadline: a broken driver can hang for ever.

    Returns:
        ``status`` (the number that cuInit or cuDeviceGetCount returned, None when there was no answer), ``devices``,
        ``library_version`` (of libcuda, from its file name) and ``message`` (why there was no answer).
    """
    answer: dict[str, Any] = {"status": None, "devices": None, "library_version": None, "message": ""}
    ask = bounded(deadline_seconds, {"PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8"})
    try:
        returned, out, err = ask([interpreter, "-c", _PROOF])
    except child.DeadlineError:
        return {**answer, "message": f"no answer within {deadline_seconds:g} s"}
    if returned != 0:
        lines = err.strip().splitlines()
        return {**answer, "message": lines[-1] if lines else f"exit status {returned}"}
    status, devices, path = out.split(None, 2)
    version = re.search(r"libcuda\.so\.([0-9]{3}\.[0-9.]+)$", path.strip())
    return {
        **answer,
        "status": int(status),
        "devices": int(devices),
        "library_version": version[1] if version else None,
    }


@dataclass(frozen=True)
class Reader:
    """Reads one host. ``root`` is "/" but in tests; the boot id is not below it; commands come through ``run``."""

    root: str
    run: Runner
    boot_id_path: str

    def _text(self, path: str) -> str | None:
        try:
            with open(os.path.join(self.root, path), encoding="utf-8", errors="replace") as stream:
                return stream.read()
        except FileNotFoundError:
            return None

    def _exists(self, path: str) -> bool:
        return os.path.exists(os.path.join(self.root, path))

    def _command(self, *argv: str) -> str:
        status, out, err = self.run(argv)
        if status != 0:
            raise FleetError(f"{' '.join(argv[:2])} failed with exit status {status}: {(err or out).strip()}")
        return out

    def read(self) -> dict[str, Any]:
        """Return the state of the driver on this host; see the module driver_info."""
        machine = os.uname()
        system = system_of(self._text("etc/os-release") or "", machine.machine, machine.release)
        if system["family"] == "debian":
            packages, unfinished = parse_dpkg(self._command("dpkg-query", "--show", f"--showformat={DPKG_FORMAT}"))
            stream = None
        else:
            listed = self._command("rpm", "--query", "--all", f"--qf={RPM_FORMAT}")
            packages, unfinished = parse_rpm(listed, self.locks()), []
            stream = self._stream()
        properties = "--property=Id,LoadState,ActiveState,UnitFileState"
        units = self._command("systemctl", "show", properties, *(f"{unit}.service" for unit in UNITS))
        boot_id = self._text(self.boot_id_path)
        if boot_id is None:
            raise FleetError(f"{self.boot_id_path} is not there, wanted the id of the running boot")
        module = self._text("sys/module/nvidia/version")
        about = self._text("proc/driver/nvidia/version") or ""
        return {
            "system": system,
            "packages": packages,
            "unfinished": unfinished,
            "stream": stream,
            "boot_id": boot_id.strip(),
            "module_version": module.strip() if module else None,
            "module_open": "Open Kernel Module" in about if about else None,
            "nouveau": self._exists("sys/module/nouveau"),
            "secure_boot": self._secure_boot(),
            "installer": next((f"/{path}" for path in _INSTALLER if self._exists(path)), None),
            "units": parse_units(units),
        }

    def locks(self) -> str:
        """Return dnf's list of version locks."""
        return self._text("etc/dnf/plugins/versionlock.list") or ""

    def _stream(self) -> str | None:
        text = self._text("etc/dnf/modules.d/nvidia-driver.module") or ""
        values = {key.strip(): value.strip() for key, __, value in (line.partition("=") for line in text.splitlines())}
        return values.get("stream") or None if values.get("state") == "enabled" else None

    def _secure_boot(self) -> dict[str, bool]:
        """Whether the firmware enforces signatures, and whether the key of this host's own modules is enrolled."""
        try:
            with open(os.path.join(self.root, _SECURE_BOOT), "rb") as stream:
                enabled = stream.read()[-1:] == b"\x01"
        except FileNotFoundError:
            enabled = False
        enrolled = False
        for key in _DKMS_KEYS if enabled else ():
            path = os.path.join(self.root, key)
            if os.path.exists(path):
                __, out, err = self.run(["mokutil", "--test-key", path])
                enrolled = enrolled or "already enrolled" in out + err
        return {"enabled": enabled, "enrolled": enrolled}


def ask_smi(ask: Runner) -> dict[str, Any]:
    """Ask ``nvidia-smi``, through a runner with a deadline, because a broken driver can hang for ever."""
    status, out, err = ask(["nvidia-smi", "-q"])
    if status != 0:
        raise FleetError(f"nvidia-smi -q failed with exit status {status}: {(err or out).strip()}")
    return parse_smi(out)


def check_idle(ask: Runner, what: str) -> None:
    """Raise a FleetError if a process computes on a GPU; ``what`` needs idle ones."""
    status, out, err = ask(["nvidia-smi", *QUERY_APPS])
    if status != 0:
        raise FleetError(f"nvidia-smi {QUERY_APPS[0]} failed with exit status {status}: {(err or out).strip()}")
    busy = parse_busy(out)
    if busy:
        users = "; ".join(f"{gpu} by {', '.join(map(str, sorted(pids)))}" for gpu, pids in sorted(busy.items()))
        raise FleetError(f"{what} needs GPUs that nobody uses, and processes compute on {users}: stop them first")


def obstacles(state: Mapping[str, Any], repository: str, changes: Sequence[str]) -> list[str]:
    """Return why this host must not get packages now, in words: another tool's driver, or Secure Boot without a key.

    Args:
        state: what :meth:`Reader.read` returned.
        repository: vendor or distribution.
        changes: what would be changed. Secure Boot hinders nobody whose driver stays as it is.
    """
    found = []
    if state["installer"]:
        found.append(
            f"the driver on this host was installed by NVIDIA's .run installer ({state['installer']}): remove it with "
            "'nvidia-uninstall', or set fleet_driver.repository to unmanaged to leave it alone"
        )
    wanted = "nvidia" if repository == "vendor" else "canonical"
    others = sorted(
        f"{name} by {package['vendor']}"
        for name, package in state["packages"].items()
        if is_driver_package(name) and package["vendor"] != wanted
    )
    if others:
        shown = ", ".join(others[:4]) + (f" and {len(others) - 4} more" if len(others) > 4 else "")
        found.append(
            f"packages of another repository are installed ({shown}), wanted packages by {wanted} alone: purge them, "
            "set fleet_driver.repository to where they come from, or to unmanaged to leave them alone"
        )
    secure = state["secure_boot"]
    if changes and secure["enabled"] and not secure["enrolled"] and repository == "vendor":
        found.append(
            "Secure Boot is on, and the kernel would refuse a module that DKMS builds here, because no key of this "
            "host is enrolled: on Ubuntu set fleet_driver.repository to distribution (modules signed by Canonical), or "
            "enrol DKMS's key on the console (mokutil --import /var/lib/dkms/mok.pub), or switch Secure Boot off"
        )
    return found


def activation(state: Mapping[str, Any], version: str, kernel_module: str | None = None) -> dict[str, str]:
    """Return what makes an installed driver the running one: ``action`` (none, load or reboot) and ``reason``.

    Args:
        state: what :meth:`Reader.read` returned.
        version: the installed driver's version.
        kernel_module: open or proprietary, as installed; None does not compare. One version has both.
    """
    running = state["module_version"]
    if state["nouveau"]:
        return {"action": "reboot", "reason": f"driver {version} is installed and the kernel runs nouveau"}
    if running is None:
        return {"action": "load", "reason": f"driver {version} is installed and the kernel has no NVIDIA module"}
    if running != version:
        return {"action": "reboot", "reason": f"driver {version} is installed and the kernel runs {running}"}
    if kernel_module and state["module_open"] not in (None, kernel_module == "open"):
        return {
            "action": "reboot",
            "reason": f"driver {version} is installed with the {kernel_module} kernel module and the kernel runs the "
            f"{'open' if state['module_open'] else 'proprietary'} one",
        }
    return {"action": "none", "reason": ""}


def installed_version(packages: Mapping[str, Mapping[str, Any]], names: Sequence[str]) -> str | None:
    """Return the one version that the driver's packages have, None where they have none or several."""
    found = {upstream(str(packages[name]["version"])) for name in names if name in packages}
    return next(iter(found)) if len(found) == 1 else None


def proof_faults(state: Mapping[str, Any], wanted: str, kernel_module: str | None, gpus: int | None) -> list[str]:
    """Return what is wrong with a running driver, in words.

    A fabric that is reported must be complete. A100 boards report none: there it is CUDA that starts or does not.

    Args:
        state: what the module driver_info returned with ``prove``.
        wanted: the planned branch or version.
        kernel_module: open or proprietary; None does not compare.
        gpus: how many GPUs are recorded; None does not compare.
    """
    module, cuda, smi = state["module_version"], state["cuda"], state["smi"]
    faults = []
    if module is None:
        faults.append(f"the kernel has no NVIDIA module, wanted {wanted}")
    elif not matches(module, wanted):
        faults.append(f"the kernel module is {module}, wanted {wanted}")
    if kernel_module and state["module_open"] is not None and state["module_open"] != (kernel_module == "open"):
        faults.append(
            f"the kernel module is {'open' if state['module_open'] else 'proprietary'}, wanted {kernel_module}"
        )
    library = cuda["library_version"]
    if library is not None and module is not None and library != module:
        faults.append(f"libcuda is {library} and the kernel module is {module}, wanted one version")
    if cuda["message"]:
        faults.append(f"CUDA does not start: {cuda['message']}")
    elif cuda["status"] != 0:
        hint = " (system not yet initialized: see nvidia-fabricmanager)" if cuda["status"] == 802 else ""
        faults.append(f"CUDA does not start: cuInit returned {cuda['status']}{hint}")
    if smi["message"]:
        faults.append(smi["message"])
        return faults
    if gpus is not None and smi["gpus"] != gpus:
        faults.append(f"the driver has {smi['gpus']} GPUs, the record has {gpus}")
    apart = [f"{gpu} {value}" for gpu, value in sorted(smi["fabric"].items()) if value != "Completed/Success"]
    if apart:
        faults.append(f"the fabric is {', '.join(apart)}, wanted Completed/Success on every GPU")
    return faults


def is_settling(state: Mapping[str, Any]) -> bool:
    """Tell whether a running Fabric Manager (or IMEX) has not brought all GPUs into their fabric yet.

    It registers them after it has started, and until then CUDA answers 802 and the driver shows Not Started or In
    Progress. ``state`` is what :func:`proof_faults` takes.
    """
    units, fabric = state["units"], state["smi"]["fabric"]
    manages = any(units.get(name, {}).get("running", False) for name in ("nvidia-fabricmanager", "nvidia-imex"))
    apart = any(value.split("/")[0] in ("Not Started", "In Progress") for value in fabric.values())
    return manages and (apart or state["cuda"]["status"] == 802)


def dnf_stream(system: Mapping[str, Any], branch: int, kernel_module: str) -> str | None:
    """Return the module stream of ``nvidia-driver`` for RHEL 8 and 9; None elsewhere, RHEL 10 has no modules."""
    if system["family"] != "rhel" or int(system["major"]) >= 10:
        return None
    # Both forms stand in what dnf listed of the repository: tests/unit/fixtures/driver/recorded_rpm.yml.
    return f"{branch}-{'open' if kernel_module == 'open' else 'dkms'}"
