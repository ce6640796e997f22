# SPDX-License-Identifier: Apache-2.0
"""Versions, transactions and records of driver packages; the names by system are in tests/unit/roles."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.gpufleet.metal.plugins.module_utils import _driver_packages as packages
from ansible_collections.gpufleet.metal.plugins.module_utils._errors import FleetError, InvalidInputError

FIXTURES = Path(__file__).parents[2] / "fixtures" / "driver"


def composed(*driver: str, others: tuple[str, ...] = (), **versions: str) -> packages.Composition:
    """A composition; an underscore in a name of ``versions`` is a hyphen."""
    return packages.Composition(driver, others, {name.replace("_", "-"): line for name, line in versions.items()})


def installed(held: bool = True, **versions: str) -> dict[str, dict[str, Any]]:
    """Installed packages by name."""
    return {
        name.replace("_", "-"): {"version": version, "held": held, "vendor": "nvidia"}
        for name, version in versions.items()
    }


@pytest.mark.parametrize(
    ("version", "wanted"),
    [
        ("580.173.02-1", "580.173.02"),
        ("580.173.02-1ubuntu1", "580.173.02"),
        ("3:580.173.02-1.el9", "580.173.02"),
        ("580-2ubuntu1", "580"),
        ("1:4.6.0-1", "4.6.0"),
        ("2025.06.5", "2025.06.5"),
    ],
)
def test_upstream(version: str, wanted: str) -> None:
    assert packages.upstream(version) == wanted


@pytest.mark.parametrize(
    ("version", "wanted", "fits"),
    [
        ("580.173.02", "580", True),
        ("580.173.02", "580.173.02", True),
        ("580.173.02", "580.17", False),
        ("5800.1", "580", False),
        ("595.91.07", "580", False),
        ("14.6.0", "4.6", False),
    ],
)
def test_matches(version: str, wanted: str, fits: bool) -> None:
    assert packages.matches(version, wanted) is fits


@pytest.mark.parametrize(
    ("name", "driver", "kernel"),
    [
        ("nvidia-open", True, False),
        ("libnvidia-compute-580", True, False),
        ("kmod-nvidia-open-dkms", True, False),
        ("nvidia-driver-pinning-580", True, False),
        ("nvlsm", True, False),
        ("libcuda1", True, False),
        ("linux-modules-nvidia-580-server-open-generic", True, False),
        ("nvidia-container-toolkit", False, False),
        ("libnvidia-container1", False, False),
        ("nvidia-cuda-toolkit", False, False),
        ("cuda-compat-13-2", False, False),
        ("datacenter-gpu-manager-4-core", False, False),
        ("linux-image-6.1.0-40-amd64", False, True),
        ("linux-image-amd64", False, True),
        ("linux-image-unsigned-6.8.0-88-generic", False, True),
        ("linux-modules-6.8.0-88-generic", False, True),
        ("linux-generic-hwe-24.04", False, True),
        ("linux-headers-6.1.0-40-amd64", False, False),
        ("linux-libc-dev", False, False),
        ("kernel", False, True),
        ("kernel-core", False, True),
        ("kernel-64k-modules-core", False, True),
        ("kernel-devel", False, False),
        ("kernel-devel-matched", False, False),
        ("kernel-headers", False, False),
        ("kernel-tools", False, False),
    ],
)
def test_kinds_of_packages(name: str, driver: bool, kernel: bool) -> None:
    assert (packages.is_driver_package(name), packages.is_kernel_package(name)) == (driver, kernel)


@pytest.mark.parametrize(
    ("names", "kind"),
    [
        (["nvidia-open", "nvidia-kernel-open-dkms", "nvidia-persistenced"], "open"),
        (["nvidia-driver-cuda", "kmod-nvidia-open-dkms"], "open"),
        (["libnvidia-compute-580", "nvidia-dkms-580-open"], "open"),
        (["nvidia-headless-580-server-open", "linux-modules-nvidia-580-server-open-generic"], "open"),
        (["cuda-drivers", "nvidia-kernel-dkms"], "proprietary"),
        (["cuda-drivers-580", "kmod-nvidia-latest-dkms"], "proprietary"),
        (["nvidia-dkms-580", "linux-modules-nvidia-580-server-generic"], "proprietary"),
        (["nvidia-open", "nvidia-kernel-dkms"], None),
        (["nvidia-persistenced", "cuda-drivers-fabricmanager", "nvidia-opencl-icd"], None),
        (["nvidia-kernel-common-580", "nvidia-kernel-support", "nvidia-kmod-common"], None),
        ([], None),
    ],
)
def test_which_kernel_module_packages_bring(names: list[str], kind: str | None) -> None:
    assert packages.kernel_module_of(names) == kind


@pytest.mark.parametrize(
    ("maintainer", "vendor"),
    [
        ("NVIDIA Corporation <cudatools@nvidia.com>", "nvidia"),
        ("NVIDIA CORPORATION", "nvidia"),
        ("Debian NVIDIA Maintainers <pkg-nvidia-devel@lists.alioth.debian.org>", "debian"),
        ("Ubuntu Core Developers <ubuntu-devel-discuss@lists.ubuntu.com>", "canonical"),
        ("RPM Fusion", "RPM Fusion"),
        ("", "an unnamed vendor"),
    ],
)
def test_vendors(maintainer: str, vendor: str) -> None:
    assert packages.vendor_of(maintainer) == vendor


@pytest.mark.parametrize(
    ("present", "wanted", "unfinished", "reasons"),
    [
        ({}, "580", [], ["nvidia-open is not installed", "nvidia-fabricmanager is not installed"]),
        (installed(nvidia_open="580.1.1-1", nvidia_fabricmanager="580.1.1-1"), "580", [], []),
        (
            installed(nvidia_open="580.1.1-1", nvidia_fabricmanager="580.1.1-1"),
            "580.2.2",
            [],
            ["nvidia-open is 580.1.1, wanted 580.2.2", "nvidia-fabricmanager is 580.1.1, wanted 580.2.2"],
        ),
        (
            installed(nvidia_open="580.1.1-1", nvidia_fabricmanager="580.2.2-1"),
            "580",
            [],
            ["the packages of the driver have the versions 580.1.1 and 580.2.2, wanted one"],
        ),
        (
            installed(nvidia_open="580.1.1-1", nvidia_fabricmanager="580.1.1-1"),
            "580",
            ["nvidia-open"],
            ["the installation of nvidia-open was interrupted"],
        ),
        (
            installed(False, nvidia_open="580.1.1-1", nvidia_fabricmanager="580.1.1-1"),
            "580",
            [],
            ["nvidia-open is not held", "nvidia-fabricmanager is not held"],
        ),
    ],
)
def test_shortfalls(present: Any, wanted: str, unfinished: list[str], reasons: list[str]) -> None:
    composition = composed("nvidia-open", "nvidia-fabricmanager")
    assert packages.shortfalls(present, composition, wanted, unfinished) == reasons


def test_headers_are_not_held_and_dcgm_keeps_its_line() -> None:
    composition = composed(
        others=("linux-headers-6.1.0-40-amd64", "datacenter-gpu-manager-4-core"), datacenter_gpu_manager_4_core="4.6"
    )
    present = installed(False, linux_headers_6="x") | {
        "linux-headers-6.1.0-40-amd64": {"version": "6.1.1-1", "held": False, "vendor": "debian"},
        "datacenter-gpu-manager-4-core": {"version": "1:4.7.0-1", "held": False, "vendor": "nvidia"},
    }
    assert packages.shortfalls(present, composition, "580", []) == [
        "datacenter-gpu-manager-4-core is 4.7.0, wanted 4.6",
        "datacenter-gpu-manager-4-core is not held",
    ]


OFFERS = {
    "nvidia-open": ["595.91.07-1", "580.173.02-1", "580.159.03-1"],
    "nvidia-fabricmanager": ["595.91.07-1", "580.159.03-1", "580.126.09-1"],
    "nvidia-driver-pinning-580": ["580-2"],
    "datacenter-gpu-manager-4-core": ["1:4.7.0-1", "1:4.6.1-1", "1:4.6.0-1"],
}


@pytest.mark.parametrize(
    ("present", "wanted", "version"),
    [
        # Fabric Manager lags behind: the newest version that both have.
        ({}, "580", "580.159.03-1"),
        ({}, "595", "595.91.07-1"),
        ({}, "580.159.03", "580.159.03-1"),
        # A driver that is there keeps its version when another package is added.
        ({"nvidia-open": "580.159.03-1"}, "580", "580.159.03-1"),
        ({"nvidia-open": "580.159.03-1"}, "595", "595.91.07-1"),
        # In the middle of an interrupted change there is no version to keep.
        ({"nvidia-open": "580.173.02-1", "nvidia-fabricmanager": "580.126.09-1"}, "580", "580.159.03-1"),
    ],
)
def test_resolve(present: dict[str, str], wanted: str, version: str) -> None:
    composition = composed("nvidia-open", "nvidia-fabricmanager", others=("nvidia-driver-pinning-580",))
    assert packages.resolve(OFFERS, present, composition, wanted) == {
        "nvidia-open": version,
        "nvidia-fabricmanager": version,
        "nvidia-driver-pinning-580": None,
    }


def test_resolve_a_line() -> None:
    composition = composed(others=("datacenter-gpu-manager-4-core",), datacenter_gpu_manager_4_core="4.6")
    composition = packages.Composition(("nvidia-open",), composition.others, composition.versions)
    assert packages.resolve(OFFERS, {}, composition, "595") == {
        "nvidia-open": "595.91.07-1",
        "datacenter-gpu-manager-4-core": "1:4.6.1-1",
    }


@pytest.mark.parametrize(
    ("composition", "present", "wanted", "message"),
    [
        (
            composed("nvidia-open", "nvidia-fabricmanager"),
            {},
            "580.173.02",
            "the repositories have no version 580.173.02 of all of the driver's packages, which must be the same "
            "(nvidia-open: 595.91.07, 580.173.02, 580.159.03; nvidia-fabricmanager: 595.91.07, 580.159.03, "
            "580.126.09): "
            "set the version to one that they all have, or complete the mirror",
        ),
        (
            composed("nvidia-open", "nvidia-imex"),
            {},
            "580",
            "the repositories have no version 580 of all of the driver's packages, which must be the same "
            "(nvidia-open: 595.91.07, 580.173.02, 580.159.03; nvidia-imex: none): "
            "set the version to one that they all have, or complete the mirror",
        ),
        (
            composed("nvidia-open", others=("datacenter-gpu-manager-4-core",), datacenter_gpu_manager_4_core="4.5"),
            {},
            "580",
            "the repositories have no version 4.5 of datacenter-gpu-manager-4-core, "
            "found 1:4.7.0-1, 1:4.6.1-1, 1:4.6.0-1",
        ),
    ],
)
def test_resolve_faults(composition: Any, present: dict[str, str], wanted: str, message: str) -> None:
    with pytest.raises(FleetError, match=f"^{re.escape(message)}$"):
        packages.resolve(OFFERS, present, composition, wanted)


@given(
    st.dictionaries(
        st.sampled_from(["a", "b", "c"]),
        st.lists(st.sampled_from(["580.1-1", "580.2-1", "580.10-1", "595.1-1"]), unique=True),
    ),
    st.sampled_from(["580", "595", "580.10"]),
)
def test_what_is_resolved_has_one_version_and_is_on_offer(offers: dict[str, list[str]], wanted: str) -> None:
    composition = composed("a", "b", "c")
    try:
        chosen = packages.resolve(offers, {}, composition, wanted)
    except FleetError:
        assert not any(
            all(version in offers.get(name, ()) for name in "abc")
            for version in ("580.1-1", "580.2-1", "580.10-1", "595.1-1")
            if packages.matches(packages.upstream(version), wanted)
        )
    else:
        assert len(set(chosen.values())) == 1
        assert all(version in offers[name] for name, version in chosen.items())


def test_companions_follow_or_leave() -> None:
    """Ubuntu's packages lost the branch in their names with 590: what the new version lacks must go."""
    present = {
        "nvidia-open": "580.173.02-1",
        "nvidia-persistenced": "580.173.02-1",
        "libnvidia-compute-580": "580.173.02-1",
        "nvidia-driver-pinning-580": "580-2",
        "nvlsm": "2025.06.5-1",
        "nvidia-container-toolkit": "1.20.0-1",
        "cuda-compat-13-2": "590.48.01-1",
        "nvidia-fabricmanager": "595.91.07-1",
    }
    offers = {"nvidia-persistenced": ["595.91.07-1", "580.173.02-1"], "libnvidia-compute-580": ["580.173.02-1"]}
    chosen = {"nvidia-open": "595.91.07-1", "nvidia-driver-pinning-595": None}
    assert packages.companions(present, offers, chosen, "595.91.07") == (
        {"nvidia-persistenced": "595.91.07-1"},
        ["libnvidia-compute-580", "nvidia-driver-pinning-580"],
    )


def test_what_brings_the_other_kernel_module_leaves() -> None:
    """It is held, and conflicts: apt would find no way."""
    present = dict.fromkeys(("nvidia-open", "nvidia-kernel-open-dkms", "nvidia-persistenced"), "580.173.02-1")
    chosen = dict.fromkeys(("cuda-drivers", "nvidia-persistenced"), "580.173.02-1")
    assert packages.companions(present, {}, chosen, "580.173.02") == ({}, ["nvidia-kernel-open-dkms", "nvidia-open"])
    assert packages.companions(present, {}, {"nvidia-open": "580.173.02-1"}, "580.173.02") == ({}, [])


APT = """Reading package lists... Done
The following additional packages will be installed:
  nvidia-kernel-support
The following packages will be REMOVED:
  nvidia-driver-pinning-595
The following packages will be DOWNGRADED:
  libssl3 nvidia-open
  zlib1g:i386
0 upgraded, 2 newly installed, 3 downgraded, 1 to remove and 0 not upgraded.
Remv nvidia-driver-pinning-595 [595-2]
Inst nvidia-driver-pinning-580 (580-2 NVIDIA:1.0/now [all])
Inst nvidia-open [595.91.07-1] (580.173.02-1 NVIDIA:1.0/now [amd64])
Inst libssl3 [3.0.17-1] (3.0.15-1 Debian:12/stable [amd64]) []
Inst linux-image-6.1.0-41-amd64 (6.1.150-1 Debian-Security:12/stable-security [amd64])
Remv rack-agent [2.4-1]
Conf nvidia-driver-pinning-580 (580-2 NVIDIA:1.0/now [all])
"""


def test_parse_apt() -> None:
    found = packages.parse_apt(APT)
    assert found.installs == {
        "nvidia-driver-pinning-580": (None, "580-2"),
        "nvidia-open": ("595.91.07-1", "580.173.02-1"),
        "libssl3": ("3.0.17-1", "3.0.15-1"),
        "linux-image-6.1.0-41-amd64": (None, "6.1.150-1"),
    }
    assert found.removes == {"nvidia-driver-pinning-595": "595-2", "rack-agent": "2.4-1"}
    assert found.downgrades == {"libssl3", "nvidia-open", "zlib1g"}
    assert packages.refusals(found) == [
        "it would bring a new kernel (linux-image-6.1.0-41-amd64 6.1.150-1): update the kernel first, reboot, "
        "and run again",
        "it would remove packages that are not NVIDIA's (rack-agent 2.4-1)",
        "it would downgrade packages that are not NVIDIA's (libssl3 3.0.17-1 to 3.0.15-1)",
    ]


def test_nothing_to_do_is_no_refusal() -> None:
    found = packages.parse_apt("Reading package lists...\n0 upgraded, 0 newly installed, 0 to remove.\n")
    assert (dict(found.installs), dict(found.removes), packages.refusals(found)) == ({}, {}, [])


def test_parse_dnf_of_a_clean_transaction() -> None:
    found = packages.parse_dnf((FIXTURES / "dnf_assumeno_rhel9_580.txt").read_text(encoding="utf-8"))
    assert len(found.installs) == 10
    assert found.installs["kernel-devel-matched"] == (None, "5.14.0-611.5.1.el9_7")
    assert found.installs["nvidia-fabricmanager"] == (None, "3:580.173.02-1.el9")
    assert packages.refusals(found) == []


def test_parse_dnf_of_a_transaction_that_is_refused() -> None:
    found = packages.parse_dnf((FIXTURES / "dnf_assumeno_rhel9_kernel.txt").read_text(encoding="utf-8"))
    assert set(found.installs) == {"nvidia-open", "kernel-core", "kernel-modules-core", "nvidia-driver", "egl-wayland"}
    assert packages.refusals(found) == [
        "it would bring a new kernel (kernel-core 5.14.0-611.9.1.el9_7, kernel-modules-core 5.14.0-611.9.1.el9_7): "
        "update the kernel first, reboot, and run again",
        "it would remove packages that are not NVIDIA's (rack-agent 2.4-1)",
        "it would downgrade packages that are not NVIDIA's (egl-wayland to 1.1.13-1.el9)",
    ]


def test_offers() -> None:
    madison = (
        "nvidia-open | 595.91.07-1 | file:/srv/nvidia  Packages\n"
        "nvidia-open | 580.173.02-1 | file:/srv/nvidia  Packages\n"
        "nvidia-open | 580.173.02-1 | file:/srv/nvidia  Sources\n"
    )
    assert packages.parse_madison(madison) == {"nvidia-open": ["595.91.07-1", "580.173.02-1"]}
    rhel = packages.parse_repoquery((FIXTURES / "repoquery_rhel9.txt").read_text(encoding="utf-8"))
    assert rhel["nvidia-open"] == ["3:580.173.02-1.el9", "3:580.159.03-1.el9"]
    assert rhel["kernel-devel-matched"] == ["5.14.0-611.5.1.el9_7"]
    composition = composed("nvidia-open", "nvidia-fabricmanager", others=("kernel-devel-matched",))
    assert packages.dnf_names(packages.resolve(rhel, {}, composition, "580")) == [
        "nvidia-open-3:580.173.02-1.el9",
        "nvidia-fabricmanager-3:580.173.02-1.el9",
        "kernel-devel-matched",
    ]


@pytest.mark.parametrize(
    ("enabled", "wanted", "commands"),
    [
        (None, None, []),
        ("580-open", "580-open", []),
        (None, "580-open", [["dnf", "-y", "module", "enable", "nvidia-driver:580-open"]]),
        (
            "595-open",
            "580-open",
            [
                ["dnf", "-y", "module", "reset", "nvidia-driver"],
                ["dnf", "-y", "module", "enable", "nvidia-driver:580-open"],
            ],
        ),
        ("580-open", None, [["dnf", "-y", "module", "reset", "nvidia-driver"]]),
    ],
)
def test_streams(enabled: str | None, wanted: str | None, commands: list[list[str]]) -> None:
    assert packages.dnf_stream_commands(enabled, wanted) == commands


@pytest.mark.parametrize(
    ("present", "unfinished", "wanted"),
    [
        ({}, [], None),
        (installed(nvidia_open="580.173.02-1"), ["nvidia-open"], None),
        # The middle of a change of branch is no state to go back to.
        (installed(nvidia_open="595.91.07-1", nvidia_persistenced="580.173.02-1"), [], None),
        (installed(nvidia_open="580.173.02-1", nvidia_persistenced="580.159.03-1"), [], None),
        (installed(dkms="3.4-1"), [], None),
        (
            installed(nvidia_open="580.173.02-1", cuda_compat_13_2="595.71.05-1"),
            [],
            {
                "version": "580.173.02",
                "packages": {"nvidia-open": "580.173.02-1"},
                "held": ["nvidia-open"],
                "stream": None,
            },
        ),
        (
            installed(nvidia_open="580.173.02-1", nvidia_driver_pinning_580="580-2", nvlsm="2025.06.5-1", dkms="3.4-1"),
            [],
            {
                "version": "580.173.02",
                "packages": {
                    "nvidia-driver-pinning-580": "580-2",
                    "nvidia-open": "580.173.02-1",
                    "nvlsm": "2025.06.5-1",
                },
                "held": ["nvidia-driver-pinning-580", "nvidia-open", "nvlsm"],
                "stream": None,
            },
        ),
    ],
)
def test_recordable(present: Any, unfinished: list[str], wanted: Any) -> None:
    assert packages.recordable(present, unfinished, None) == wanted


def test_apt_is_asked_for() -> None:
    assert packages.apt_names({"a": "1-1", "b": None}, ["c"]) == ["a=1-1", "b", "c-"]
    pins = packages.preferences("580.173.02")
    assert "Pin: version /^([0-9]+:)?580\\.173\\.02-/\n" in pins
    assert pins.endswith("Pin-Priority: 2000\n")


def test_a_word_that_no_row_serves() -> None:
    system = {"name": "debian 12", "machine": "x86_64", "kernel": "6.1.0-40-amd64"}
    message = "debian 12: no package is known for 'imex' of branch 580 in the vendor repository"
    with pytest.raises(InvalidInputError, match=f"^{re.escape(message)}$"):
        packages.compose([], ["imex"], 580, "vendor", system)
