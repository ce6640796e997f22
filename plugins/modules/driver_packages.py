#!/usr/bin/python
# SPDX-License-Identifier: Apache-2.0 OR GPL-3.0-or-later
# Apache-2.0, or at your option the GNU General Public License v3.0+ (https://www.gnu.org/licenses/gpl-3.0.txt)
"""Change a host's driver packages in one transaction that is read before it is run."""

from __future__ import annotations

DOCUMENTATION = r"""
module: driver_packages
short_description: Change a host's driver packages in one transaction that is read before it is run
version_added: 0.1.0
description:
  - Resolves the driver, its services and its pinning package to one version, simulates the transaction, refuses it if
    it would bring a new kernel or touch what is not NVIDIA's, runs it, and holds what it installed.
  - An interrupted installation (dpkg killed half-way, a maintainer script that failed) is continued first.
  - The packages that were there before are recorded, so that O(restore) can bring exactly them back.
  - Without O(driver) and O(restore), it only records.
author:
  - gpufleet.metal contributors (@gpufleet)
options:
  driver:
    description:
      - Packages that carry the driver's version, all the same one.
    type: list
    elements: str
    default: []
  others:
    description:
      - Packages with versions of their own.
    type: list
    elements: str
    default: []
  versions:
    description:
      - Lines that such packages must keep to, by name, such as V(4.6).
    type: dict
    default: {}
  version:
    description:
      - The wanted branch or whole version of the driver. Needed with O(driver).
    type: str
  stream:
    description:
      - The dnf module stream of C(nvidia-driver).
    type: str
  record:
    description:
      - Where the packages from before the change are written.
    type: path
    required: true
  restore:
    description:
      - Whether to bring the packages of O(record) back.
    type: bool
    default: false
attributes:
  check_mode:
    description:
      - Writes nothing. Simulates with the package lists that are there, so that a refusal shows; on a host whose lists
        lack the packages, only says that they would change.
    support: full
  diff_mode:
    description: Shows the packages before and after.
    support: full
"""

EXAMPLES = r"""
- name: Install a driver with its Fabric Manager
  gpufleet.metal.driver_packages:
    driver: [nvidia-open, nvidia-fabricmanager, libnvidia-nscq]
    others: [nvidia-driver-pinning-580]
    version: "580"
    record: /var/lib/gpufleet/driver/recorded.json
"""

RETURN = r"""
version:
  description: The driver's version after the change.
  type: str
  returned: when O(driver) or O(restore) is set
  sample: 580.173.02
kernel_module:
  description: Which kernel module the recorded packages bring, V(open) or V(proprietary), null when they don't say.
  type: str
  returned: when O(restore) is set
reasons:
  description: Why packages had to change.
  type: list
  elements: str
  returned: success
recorded:
  description: Whether the packages from before the change were written to O(record).
  type: bool
  returned: success
"""

import json
import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.gpufleet.metal.plugins.module_utils import _driver_packages as logic
from ansible_collections.gpufleet.metal.plugins.module_utils import _driver_state
from ansible_collections.gpufleet.metal.plugins.module_utils._commands import Runner, runner
from ansible_collections.gpufleet.metal.plugins.module_utils._errors import FleetError, InvalidInputError

APT = [
    "apt-get",
    "--yes",
    "--no-install-recommends",
    "--allow-downgrades",
    "--allow-change-held-packages",
    "-o",
    "Dpkg::Options::=--force-confdef",
    "-o",
    "Dpkg::Options::=--force-confold",
    # Another package manager may be at work: unattended upgrades, or a person.
    "-o",
    "DPkg::Lock::Timeout=300",
]

JOURNAL = "/var/lib/dpkg/updates"


class RefusedError(FleetError):
    """A transaction was read and not run."""


class Host:
    """The package manager of this host."""

    def __init__(self, run: Runner, check_mode: bool) -> None:
        self._run = run
        self._check_mode = check_mode
        self.reader = _driver_state.Reader("/", run, "/proc/sys/kernel/random/boot_id")

    def command(self, argv: Sequence[str], what: str) -> str:
        """Run a command that must succeed."""
        status, out, err = self._run(argv)
        if status != 0:
            lines = f"{out.strip()}\n{err.strip()}".strip().splitlines()
            raise FleetError(f"{what} failed with exit status {status}: " + "\n".join(lines[-40:]))
        return out

    @staticmethod
    def is_interrupted(state: Mapping[str, Any]) -> bool:
        """Whether dpkg was stopped in the middle: of a package, or of writing its own journal."""
        return bool(state["unfinished"] or (os.path.isdir(JOURNAL) and os.listdir(JOURNAL)))

    def continue_interrupted(self) -> str:
        """Let dpkg finish what it had begun; returns what it said.

        Packages whose dependencies are not there yet stay unfinished: the transaction that follows brings those.
        """
        __, out, err = self._run(["dpkg", "--configure", "--pending", "--force-confdef", "--force-confold"])
        return f"{out}\n{err}".strip()

    def enable_stream(self, enabled: str | None, wanted: str | None) -> None:
        """Make another dnf module stream visible; nothing where there are none."""
        for command in logic.dnf_stream_commands(enabled, wanted):
            self.command(command, "dnf module")

    def offers(self, names: Sequence[str], apt: bool) -> dict[str, list[str]]:
        """Return the versions that the repositories offer, by name."""
        if apt:
            return logic.parse_madison(self.command(["apt-cache", "madison", *names], "apt-cache madison"))
        query = ["dnf", "-q", "repoquery", "--disableplugin=versionlock", r"--queryformat=%{name}\t%{evr}\n", *names]
        return logic.parse_repoquery(self.command(query, "dnf repoquery"))

    def transaction(
        self,
        chosen: Mapping[str, str | None],
        absent: Sequence[str],
        version: str,
        apt: bool,
        before: Callable[[], None] = lambda: None,
    ) -> None:
        """Simulate and judge one transaction, and (outside check mode) call ``before`` and run it."""
        if not apt:
            self._dnf(chosen, absent, before)
            return
        with tempfile.NamedTemporaryFile("w", suffix=".pref", encoding="utf-8") as pins:
            if os.path.exists("/etc/apt/preferences"):
                with open("/etc/apt/preferences", encoding="utf-8") as stream:
                    pins.write(stream.read().rstrip() + "\n\n")
            pins.write(logic.preferences(version))
            pins.flush()
            os.chmod(pins.name, 0o644)
            install = [*APT, "-o", f"Dir::Etc::Preferences={pins.name}", "--fix-broken", "install"]
            names = logic.apt_names(chosen, absent)
            simulated = self.command([*install, "--simulate", *names], "apt-get --simulate")
            self._judge(logic.parse_apt(simulated), [*chosen, *absent])
            if not self._check_mode:
                before()
                self.command([*install, *names], "apt-get install")

    def _dnf(self, chosen: Mapping[str, str | None], absent: Sequence[str], before: Callable[[], None]) -> None:
        dnf = ["dnf", "--setopt=install_weak_deps=False", "--disableplugin=versionlock", "--allowerasing"]
        # dnf ends with 1 when it was told to assume no.
        status, out, err = self._run([*dnf, "--assumeno", "install", *logic.dnf_names(chosen)])
        if status not in (0, 1) or "Error:" in err:
            raise FleetError(f"dnf --assumeno install failed with exit status {status}: {(err or out).strip()[-2000:]}")
        self._judge(logic.parse_dnf(out), [*chosen, *absent])
        if not self._check_mode:
            before()
            self.command([*dnf, "-y", "install", *logic.dnf_names(chosen)], "dnf install")
            if absent:
                self.command(["dnf", "-y", "remove", "--noautoremove", *absent], "dnf remove")

    @staticmethod
    def _judge(transaction: logic.Transaction, own: Sequence[str]) -> None:
        reasons = logic.refusals(transaction, own)
        if reasons:
            raise RefusedError(f"the driver's transaction is refused: {'; '.join(reasons)}; no package was changed")

    def hold(self, state: Mapping[str, Any], apt: bool) -> None:
        """Hold the driver's packages."""
        loose = [
            name
            for name, package in state["packages"].items()
            if not package["held"] and logic.is_held_with_driver(name)
        ]
        if loose and apt:
            self.command(["apt-mark", "hold", *loose], "apt-mark hold")
        elif loose:
            old = logic.locked_names(self.reader.locks(), loose)
            if old:
                self.command(["dnf", "-y", "versionlock", "delete", *old], "dnf versionlock")
            versions = {name: state["packages"][name]["version"] for name in loose}
            self.command(["dnf", "-y", "versionlock", "add", *logic.dnf_names(versions)], "dnf versionlock")


def read_record(path: str) -> dict[str, Any] | None:
    """Return what was recorded, None when nothing was."""
    try:
        with open(path, encoding="utf-8") as stream:
            document: dict[str, Any] = json.load(stream)
    except FileNotFoundError:
        return None
    return document


def write_record(path: str, document: Mapping[str, Any]) -> bool:
    """Write the record in one step; returns whether it differs from what was there."""
    if read_record(path) == document:
        return False
    os.makedirs(os.path.dirname(path), mode=0o755, exist_ok=True)
    descriptor, staged = tempfile.mkstemp(dir=os.path.dirname(path), prefix=".recorded.")
    with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
        json.dump(document, stream, indent=2, sort_keys=True)
        stream.write("\n")
        os.fchmod(stream.fileno(), 0o644)
        stream.flush()
        os.fsync(stream.fileno())
    os.replace(staged, path)
    return True


def run(host: Host, options: Mapping[str, Any], check_mode: bool) -> dict[str, Any]:
    """Bring the packages into the wanted state; returns the module's result."""
    state = host.reader.read()
    if options["restore"]:
        return _restore(host, state, options, check_mode)
    record = logic.recordable(state["packages"], state["unfinished"], state["stream"])
    composition = logic.Composition(tuple(options["driver"]), tuple(options["others"]), options["versions"])
    if not composition.driver:
        recorded = record is not None and (
            read_record(options["record"]) != record if check_mode else write_record(options["record"], record)
        )
        return {"changed": recorded, "recorded": recorded, "reasons": []}
    if not options["version"]:
        raise InvalidInputError(
            "driver_packages: version is not set, wanted a branch or a version together with driver"
        )
    reasons = logic.shortfalls(state["packages"], composition, options["version"], state["unfinished"])
    if not reasons:
        version = _driver_state.installed_version(state["packages"], composition.driver)
        return {"changed": False, "recorded": False, "reasons": [], "version": version}
    apt = state["system"]["family"] == "debian"
    said = ""
    if not check_mode:
        if apt and host.is_interrupted(state):
            said = host.continue_interrupted()
        host.enable_stream(state["stream"], options["stream"])
        if apt:
            host.command(["apt-get", "-o", "DPkg::Lock::Timeout=300", "update"], "apt-get update")
    installed = {name: str(package["version"]) for name, package in host.reader.read()["packages"].items()}
    names = sorted({*composition.names, *filter(logic.is_driver_package, installed)})
    offers = {} if check_mode and state["unfinished"] else host.offers(names, apt)
    if check_mode and not all(offers.get(name) or name in installed for name in composition.names):
        return {"changed": True, "recorded": False, "reasons": reasons, "version": options["version"]}
    chosen = logic.resolve(offers, installed, composition, options["version"])
    version = logic.upstream(str(chosen[composition.driver[0]]))
    follow, leave = logic.companions(installed, offers, chosen, version)
    # What is there now is what a rollback has to bring back, unless version and kind stay.
    recorded = record is not None and _is_another(record, version, chosen) and not check_mode

    def keep() -> None:
        if recorded and record is not None:
            write_record(options["record"], record)

    try:
        host.transaction({**chosen, **follow}, leave, version, apt, keep)
    except RefusedError:
        if not check_mode:
            host.enable_stream(options["stream"], state["stream"])
        raise
    after = _settle(host, apt, said, check_mode)
    return {
        "changed": True,
        "recorded": recorded,
        "reasons": reasons,
        "version": version,
        "diff": _difference(state, after),
    }


def _is_another(record: Mapping[str, Any], version: str, chosen: Mapping[str, str | None]) -> bool:
    """Whether the recorded driver is another one than the chosen: by its version, or by its kernel module."""
    kinds = {logic.kernel_module_of(record["packages"]), logic.kernel_module_of(chosen)} - {None}
    return bool(record["version"] != version or len(kinds) == 2)


def _restore(host: Host, state: Mapping[str, Any], options: Mapping[str, Any], check_mode: bool) -> dict[str, Any]:
    """Bring the recorded packages back, and take away the driver's packages that are not among them."""
    record = read_record(options["record"])
    if record is None:
        raise FleetError(
            f"{options['record']} is not there: no driver was recorded on this host, so none can come back"
        )
    wanted = record["packages"]
    mine = {name: package for name, package in state["packages"].items() if logic.is_driver_package(name)}
    absent = sorted(set(mine) - set(wanted))
    changed = bool(absent or state["unfinished"]) or any(
        name not in mine or mine[name]["version"] != version or not mine[name]["held"]
        for name, version in wanted.items()
    )
    result = {
        "changed": changed,
        "recorded": False,
        "version": record["version"],
        "kernel_module": logic.kernel_module_of(wanted),
    }
    if not changed:
        return {**result, "reasons": []}
    apt = state["system"]["family"] == "debian"
    said = host.continue_interrupted() if apt and not check_mode and host.is_interrupted(state) else ""
    if not check_mode:
        host.enable_stream(state["stream"], record["stream"])
        if apt:
            host.command(["apt-get", "-o", "DPkg::Lock::Timeout=300", "update"], "apt-get update")
    host.transaction(wanted, absent, record["version"], apt)
    after = _settle(host, apt, said, check_mode)
    return {**result, "reasons": [f"driver {record['version']} was recorded"], "diff": _difference(state, after)}


def _settle(host: Host, apt: bool, said: str, check_mode: bool) -> dict[str, Any]:
    """Hold what was installed, and prove that nothing is left unfinished; returns the state."""
    state = host.reader.read()
    if check_mode:
        return state
    if state["unfinished"]:
        raise FleetError(
            f"the packages {', '.join(state['unfinished'])} are still unfinished, wanted every package configured; "
            f"dpkg said: {said or 'nothing'}"
        )
    host.hold(state, apt)
    return host.reader.read()


def _difference(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, str]:
    """Return the packages before and after, one on a line."""

    def lines(state: Mapping[str, Any]) -> str:
        return "".join(f"{name} {package['version']}\n" for name, package in sorted(state["packages"].items()))

    return {"before": lines(before), "after": lines(after)}


def main() -> None:
    """Run as an Ansible module."""
    module = AnsibleModule(
        argument_spec={
            "driver": {"type": "list", "elements": "str", "default": []},
            "others": {"type": "list", "elements": "str", "default": []},
            "versions": {"type": "dict", "default": {}},
            "version": {"type": "str"},
            "stream": {"type": "str"},
            "record": {"type": "path", "required": True},
            "restore": {"type": "bool", "default": False},
        },
        supports_check_mode=True,
    )
    module.run_command_environ_update = {
        "DEBIAN_FRONTEND": "noninteractive",
        # Ubuntu's needrestart would restart the container engine of a serving host.
        "NEEDRESTART_SUSPEND": "1",
    }
    try:
        result = run(Host(runner(module), module.check_mode), module.params, module.check_mode)
    except FleetError as error:
        module.fail_json(msg=str(error))
    else:
        module.exit_json(**result)


if __name__ == "__main__":
    main()
