# SPDX-License-Identifier: Apache-2.0
# PRIVATE to the collection: do not import this from outside, it may change without notice.
"""Which packages a driver is made of, whether a host has them, and whether a transaction may be run.

Names of packages are data (the role's vars/); here they are put together, resolved to versions and judged. All of it
is pure: apt's and dnf's output comes in as text.

Sources: apt-get(8), apt_preferences(5), deb-version(7), dnf(8); NVIDIA's driver installation guide, chapters on pinning
and on version locking.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ansible_collections.gpufleet.metal.plugins.module_utils._driver import version_key
from ansible_collections.gpufleet.metal.plugins.module_utils._errors import FleetError, InvalidInputError

_DRIVER = re.compile(
    r"(nvidia|libnvidia|xserver-xorg-video-nvidia|kmod-nvidia|dkms-nvidia|libcuda1|cuda-drivers|nvlsm|libnvsdm"
    r"|firmware-nvidia|linux-(modules|objects|signatures)-nvidia|libnvcuvid|libnvoptix)"
)
_TOOLKIT = re.compile(r"(lib)?nvidia-(container|docker|cuda-(toolkit|dev|doc|gdb|samples))")
_KERNEL_DEB = re.compile(
    r"linux-(image|signed-image|modules(?!-nvidia)|generic|virtual|lowlatency|aws|azure|gcp|oracle)([-.0-9].*)?"
)
_KERNEL_RPM = re.compile(r"kernel(-(rt|64k|debug|uek|rt-64k|16k))*(-core|-modules(-core|-extra|-internal|-partner)?)?")
_MAINTAINERS = (
    ("nvidia.com", "nvidia"),
    ("nvidia corporation", "nvidia"),
    ("ubuntu", "canonical"),
    ("debian", "debian"),
)
_PREFERENCE_PRIORITY = 2000
_PINNING = "nvidia-driver-pinning-"
_KERNEL_MODULE = re.compile(
    r"(nvidia-open|nvidia-headless|kmod-nvidia|nvidia-dkms|nvidia-kernel-source|linux-(modules|objects)-nvidia)(-.*)?"
    r"|nvidia-kernel-(open-)?dkms|cuda-drivers(-[0-9]+)?"
)
_DRIVER_VERSION = re.compile(r"[0-9]{3}\.[0-9]+(\.[0-9]+)?")


def is_driver_package(name: str) -> bool:
    """Whether a package belongs to NVIDIA's driver. The container toolkit and CUDA's own packages do not."""
    return _DRIVER.match(name) is not None and _TOOLKIT.match(name) is None


def is_held_with_driver(name: str) -> bool:
    """Whether a package is held together with the driver: the driver's own ones, and DCGM, whose line is pinned."""
    return is_driver_package(name) or name.startswith("datacenter-gpu-manager-4-")


def kernel_module_of(names: Iterable[str]) -> str | None:
    """Return which kind of kernel module packages bring, open or proprietary; None where they say neither, or both.

    NVIDIA's and Canonical's packages have "open" in their names, or are the proprietary ones.
    """
    kinds = {"open" if "open" in name.split("-") else "proprietary" for name in names if _KERNEL_MODULE.fullmatch(name)}
    return next(iter(kinds)) if len(kinds) == 1 else None


def is_kernel_package(name: str) -> bool:
    """Whether a package brings a kernel. Headers, tools and NVIDIA's prebuilt modules do not."""
    return _KERNEL_DEB.fullmatch(name) is not None or _KERNEL_RPM.fullmatch(name) is not None


def vendor_of(maintainer: str) -> str:
    """Who made a package: nvidia, canonical, debian, or the maintainer's own words.

    dpkg's field Maintainer and rpm's tag VENDOR name them; NVIDIA's and the distributions' packages share names.
    """
    words = maintainer.lower()
    # "Debian NVIDIA Maintainers <...@lists.alioth.debian.org>" is Debian, so NVIDIA is known by its domain.
    return next((vendor for mark, vendor in _MAINTAINERS if mark in words), maintainer or "an unnamed vendor")


def upstream(version: str) -> str:
    """Return the upstream part of a package version: 580.173.02 of "3:580.173.02-1.el9" and "580.173.02-1ubuntu1"."""
    version = re.sub(r"^[0-9]+:", "", version)
    return version.rpartition("-")[0] or version


def matches(version: str, wanted: str) -> bool:
    """Whether an upstream version is the wanted one, or begins with its parts: 580.173.02 is a 580."""
    return version == wanted or version.startswith(f"{wanted}.")


@dataclass(frozen=True)
class Composition:
    """The packages of a driver: those that carry its version, and those with versions of their own."""

    driver: tuple[str, ...]
    others: tuple[str, ...]
    versions: Mapping[str, str]

    @property
    def names(self) -> tuple[str, ...]:
        """All names."""
        return self.driver + self.others


def compose(
    rows: Sequence[Mapping[str, Any]], words: Sequence[str], branch: int, repository: str, system: Mapping[str, Any]
) -> Composition:
    """Put the packages for some words together.

    Args:
        rows: of the role's vars: ``for`` (a word), ``packages``, and as they apply ``since`` and ``below`` (branches),
            ``machine``, ``repository`` (vendor or distribution), ``own_version`` (true: the packages do not carry
            the driver's version) and ``version`` (the line of that own version that is wanted).
            In names, {branch}, {kernel}, {flavour} (of the kernel) and {cuda} (major version) are replaced.
        words: what is wanted, such as open, persistence and fabric_manager, in the order of the result.
        branch: the driver's branch.
        repository: vendor or distribution.
        system: ``name`` (for messages), ``machine`` (x86_64 or aarch64) and ``kernel`` (release of the running kernel).

    Raises:
        InvalidInputError: no row serves a word.
    """
    kernel = str(system["kernel"])
    values = {
        "branch": branch,
        "kernel": kernel,
        "flavour": kernel.rpartition("-")[2],
        "cuda": 13 if branch >= 580 else 12,
    }
    driver: list[str] = []
    others: list[str] = []
    versions: dict[str, str] = {}
    for word in words:
        serving = [
            row
            for row in rows
            if row["for"] == word
            and row.get("since", 0) <= branch < row.get("below", 10**6)
            and row.get("repository", repository) == repository
        ]
        if not serving:
            raise InvalidInputError(
                f"{system['name']}: no package is known for {word!r} of branch {branch} in the {repository} repository"
            )
        for row in serving:
            if row.get("machine", system["machine"]) != system["machine"]:
                continue
            names = [str(name).format(**values) for name in row["packages"]]
            (others if row.get("own_version") else driver).extend(names)
            if row.get("version"):
                versions.update(dict.fromkeys(names, str(row["version"])))
    return Composition(tuple(dict.fromkeys(driver)), tuple(dict.fromkeys(others)), versions)


def shortfalls(
    packages: Mapping[str, Mapping[str, Any]], composition: Composition, wanted: str, unfinished: Sequence[str]
) -> list[str]:
    """Return why the packages must be changed, in words; nothing when they need not.

    ``packages`` are the installed ones by name, with ``version`` and ``held``. An installed version within the wanted
    branch is kept, also when the repository has a newer one.
    """
    reasons = [f"{name} is not installed" for name in composition.names if name not in packages]
    reasons += [f"the installation of {name} was interrupted" for name in unfinished]
    found = {name: upstream(str(packages[name]["version"])) for name in composition.names if name in packages}
    for name in composition.driver:
        if name in found and not matches(found[name], wanted):
            reasons.append(f"{name} is {found[name]}, wanted {wanted}")
    for name, line in composition.versions.items():
        if name in found and not matches(found[name], line):
            reasons.append(f"{name} is {found[name]}, wanted {line}")
    carried = sorted({found[name] for name in composition.driver if name in found}, key=version_key)
    if len(carried) > 1:
        reasons.append(f"the packages of the driver have the versions {' and '.join(carried)}, wanted one")
    reasons += [
        f"{name} is not held"
        for name in composition.names
        if name in packages and not packages[name]["held"] and is_held_with_driver(name)
    ]
    return reasons


def resolve(
    available: Mapping[str, Sequence[str]],
    installed: Mapping[str, str],
    composition: Composition,
    wanted: str,
) -> dict[str, str | None]:
    """Return the whole version of every package, so that all that carry the driver's version carry the same one.

    Args:
        available: the versions that the repositories offer, by name, newest first.
        installed: the installed versions by name. An installed driver of the wanted branch keeps its version.
        composition: what is wanted.
        wanted: a branch, or a whole driver version.

    Raises:
        FleetError: no version is there for all.
    """
    offers = {
        name: {upstream(version): version for version in reversed(list(available.get(name, ())))}
        for name in composition.driver
    }
    present = {upstream(installed[name]) for name in composition.driver if name in installed}
    keep = next(iter(present)) if len(present) == 1 else ""
    line = keep if keep and matches(keep, wanted) else wanted
    common = set.intersection(*(set(offer) for offer in offers.values())) if offers else set()
    fitting = sorted((version for version in common if matches(version, line)), key=version_key)
    if not fitting:
        shown = "; ".join(
            f"{name}: {', '.join(sorted(offer, key=version_key, reverse=True)[:4]) or 'none'}"
            for name, offer in offers.items()
        )
        raise FleetError(
            f"the repositories have no version {line} of all of the driver's packages, which must be the same "
            f"({shown}): set the version to one that they all have, or complete the mirror"
        )
    chosen: dict[str, str | None] = {name: offers[name][fitting[-1]] for name in composition.driver}
    for name in composition.others:
        line = composition.versions.get(name, "")
        if not line:
            chosen[name] = None
            continue
        found = [version for version in available.get(name, ()) if matches(upstream(version), line)]
        if not found:
            offered = ", ".join(available.get(name, ())) or "none"
            raise FleetError(f"the repositories have no version {line} of {name}, found {offered}")
        chosen[name] = found[0]
    return chosen


def companions(
    installed: Mapping[str, str], available: Mapping[str, Sequence[str]], chosen: Mapping[str, str | None], version: str
) -> tuple[dict[str, str], list[str]]:
    """Return what becomes of the installed driver packages that nobody asked for: new versions, and what must go.

    They are dependencies of what was asked for, and held: apt changes a held package only when it is named. A package
    that the new version no longer has would stay behind as a piece of another driver, and so would the old pin and
    what brings the other kernel module.
    """
    follow: dict[str, str] = {}
    leave = []
    kind = kernel_module_of(chosen)
    for name in sorted(installed):
        if name in chosen or not is_driver_package(name):
            continue
        if name.startswith(_PINNING) or (kind and kernel_module_of([name]) not in (None, kind)):
            leave.append(name)
        elif _DRIVER_VERSION.fullmatch(upstream(installed[name])) and upstream(installed[name]) != version:
            offered = [offer for offer in available.get(name, ()) if upstream(offer) == version]
            if offered:
                follow[name] = offered[0]
            else:
                leave.append(name)
    return follow, leave


@dataclass(frozen=True)
class Transaction:
    """What a package manager would do."""

    installs: Mapping[str, tuple[str | None, str]]
    """Name -> (version before or None, version after)."""
    removes: Mapping[str, str]
    downgrades: frozenset[str]


def parse_apt(text: str) -> Transaction:
    """Read the output of ``apt-get --simulate install``, in English."""
    installs: dict[str, tuple[str | None, str]] = {}
    removes: dict[str, str] = {}
    downgrades: set[str] = set()
    inside = False
    for line in text.splitlines():
        if inside and line.startswith(" "):
            downgrades.update(name.partition(":")[0] for name in line.split())
            continue
        inside = "will be DOWNGRADED:" in line
        found = re.match(r"Inst (\S+) (?:\[(\S+)\] )?\((\S+)", line)
        if found:
            installs[found[1].partition(":")[0]] = (found[2], found[3].rstrip(")"))
        found = re.match(r"(?:Remv|Purg) (\S+) \[(\S+)\]", line)
        if found:
            removes[found[1].partition(":")[0]] = found[2]
    return Transaction(installs, removes, frozenset(downgrades))


_DNF_SECTIONS = {
    "Installing": "installs",
    "Reinstalling": "installs",
    "Upgrading": "installs",
    "Downgrading": "downgrades",
    "Removing": "removes",
}


def parse_dnf(text: str) -> Transaction:
    """Read the table that ``dnf --assumeno install`` prints, in English.

    A package's row begins with one space; columns that found no room are below it, further in.
    """
    installs: dict[str, tuple[str | None, str]] = {}
    removes: dict[str, str] = {}
    downgrades: set[str] = set()
    section = ""
    row: list[str] = []
    for line in text.splitlines():
        if line.startswith("Transaction Summary"):
            break
        heading = re.match(r"([A-Z][a-z]+)(?: [a-z ]+)?:$", line)
        if heading:
            section, row = _DNF_SECTIONS.get(heading[1], ""), []
            continue
        replaced = re.match(r"\s+replacing\s+(\S+)\.\S+ (\S+)", line)
        if replaced:
            removes[replaced[1]] = replaced[2]
            continue
        if not section or not line.startswith(" "):
            continue
        row = row + line.split() if line.startswith("  ") else line.split()
        if len(row) < 3:
            continue
        name, __, version = row[:3]
        if section == "removes":
            removes[name] = version
        else:
            installs[name] = (None, version)
        if section == "downgrades":
            downgrades.add(name)
    return Transaction(installs, removes, frozenset(downgrades))


def refusals(transaction: Transaction, own: Iterable[str] = ()) -> list[str]:
    """Return why a transaction may not be run, in words; nothing when it may.

    A driver brings no kernel: its modules are built for the running one, and a new one would boot without them. It
    removes and downgrades nothing but NVIDIA's packages and ``own``, the names that were asked for.
    """
    asked = set(own)

    def ours(name: str) -> bool:
        return is_driver_package(name) or name in asked

    kernels = [
        f"{name} {after}" for name, (__, after) in sorted(transaction.installs.items()) if is_kernel_package(name)
    ]
    removed = [f"{name} {version}" for name, version in sorted(transaction.removes.items()) if not ours(name)]
    older = [
        f"{name} {before} to {after}" if before else f"{name} to {after}"
        for name, (before, after) in sorted(transaction.installs.items())
        if name in transaction.downgrades and not ours(name)
    ]
    reasons = []
    if kernels:
        reasons.append(
            f"it would bring a new kernel ({', '.join(kernels)}): update the kernel first, reboot, and run again"
        )
    if removed:
        reasons.append(f"it would remove packages that are not NVIDIA's ({', '.join(removed)})")
    if older:
        reasons.append(f"it would downgrade packages that are not NVIDIA's ({', '.join(older)})")
    return reasons


def recordable(
    packages: Mapping[str, Mapping[str, Any]], unfinished: Sequence[str], stream: str | None
) -> dict[str, Any] | None:
    """Return what a rollback needs to know: the driver's packages with versions; None where there is no whole driver.

    The middle of an interrupted change is no state to go back to: there the older record stays.
    """
    mine = {name: packages[name] for name in sorted(packages) if is_driver_package(name)}
    versions = {name: str(package["version"]) for name, package in mine.items()}
    drivers = {upstream(version) for version in versions.values() if _DRIVER_VERSION.fullmatch(upstream(version))}
    if unfinished or len(drivers) != 1:
        return None
    return {
        "version": next(iter(drivers)),
        "packages": versions,
        "held": [name for name, package in mine.items() if package["held"]],
        "stream": stream,
    }


def preferences(version: str) -> str:
    """Return apt preferences that make a driver version the candidate, before its pinning package is installed."""
    return (
        "Package: /nvidia/ /cuda/ /nvlsm/ /nvsdm/ /nvcuvid/ /nvoptix/ /xnvctrl/\n"
        f"Pin: version /^([0-9]+:)?{re.escape(version)}-/\n"
        f"Pin-Priority: {_PREFERENCE_PRIORITY}\n"
    )


def apt_names(chosen: Mapping[str, str | None], absent: Iterable[str] = ()) -> list[str]:
    """Return what apt-get is asked for: name=version, a name alone, and name- to remove."""
    return [f"{name}={version}" if version else name for name, version in chosen.items()] + [
        f"{name}-" for name in absent
    ]


def dnf_names(chosen: Mapping[str, str | None]) -> list[str]:
    """Return what dnf is asked for: name-epoch:version-release, or a name alone."""
    return [f"{name}-{version}" if version else name for name, version in chosen.items()]


def locked_names(locks: str, names: Iterable[str]) -> list[str]:
    """Return which of the names dnf's list of version locks has, in whatever version.

    An old lock beside a new one would let ``dnf upgrade`` go back or forth between the two.
    """
    return [name for name in names if re.search(rf"^{re.escape(name)}-[0-9]+:", locks, re.MULTILINE)]


def dnf_stream_commands(enabled: str | None, wanted: str | None) -> list[list[str]]:
    """Return the commands that make another module stream of ``nvidia-driver`` visible (RHEL 8 and 9).

    That changes no package. The transaction that follows names every version, so ``dnf module switch-to`` is not
    needed: it would change the packages at once, and nobody could read that beforehand.
    """
    if enabled == wanted:
        return []
    reset = [["dnf", "-y", "module", "reset", "nvidia-driver"]] if enabled is not None else []
    enable = [["dnf", "-y", "module", "enable", f"nvidia-driver:{wanted}"]] if wanted is not None else []
    return reset + enable


def parse_madison(text: str) -> dict[str, list[str]]:
    """Read ``apt-cache madison``: the versions on offer by package, newest first."""
    offers: dict[str, list[str]] = {}
    for line in text.splitlines():
        columns = [column.strip() for column in line.split("|")]
        if len(columns) == 3 and not columns[2].endswith(" Sources"):
            versions = offers.setdefault(columns[0], [])
            if columns[1] not in versions:
                versions.append(columns[1])
    return offers


def parse_repoquery(text: str) -> dict[str, list[str]]:
    """Read ``dnf repoquery --queryformat '%{name}\\t%{evr}\\n'``: the versions on offer by package, newest first."""
    offers: dict[str, list[str]] = {}
    for line in text.splitlines():
        name, tab, version = line.strip().partition("\t")
        if tab:
            offers.setdefault(name, []).append(version.removeprefix("0:"))
    return {name: sorted(set(versions), key=version_key, reverse=True) for name, versions in offers.items()}
