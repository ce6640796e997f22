# SPDX-License-Identifier: Apache-2.0
"""What is read of a host's driver, what stands in its way, and what is wrong with it."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.gpufleet.metal.plugins.module_utils import _driver_state as state
from ansible_collections.gpufleet.metal.plugins.module_utils._errors import FleetError, InvalidInputError

FIXTURES = Path(__file__).parents[2] / "fixtures" / "driver"


@pytest.mark.parametrize(
    ("release", "machine", "directory", "family", "major"),
    [
        ('ID=ubuntu\nVERSION_ID="22.04"\nID_LIKE=debian', "x86_64", "ubuntu2204/x86_64", "debian", "22"),
        ('ID=ubuntu\nVERSION_ID="24.04"', "aarch64", "ubuntu2404/sbsa", "debian", "24"),
        ('ID=ubuntu\nVERSION_ID="26.04"', "x86_64", "ubuntu2604/x86_64", "debian", "26"),
        ('ID=debian\nVERSION_ID="12"', "x86_64", "debian12/x86_64", "debian", "12"),
        ('# a comment\nID=debian\nVERSION_ID="13"', "aarch64", "debian13/sbsa", "debian", "13"),
        ('ID="rhel"\nVERSION_ID="8.10"', "x86_64", "rhel8/x86_64", "rhel", "8"),
        ('ID="rocky"\nID_LIKE="rhel centos fedora"\nVERSION_ID="9.7"', "aarch64", "rhel9/sbsa", "rhel", "9"),
        ('ID="almalinux"\nID_LIKE="rhel centos fedora"\nVERSION_ID="10.1"', "x86_64", "rhel10/x86_64", "rhel", "10"),
    ],
)
def test_systems(release: str, machine: str, directory: str, family: str, major: str) -> None:
    found = state.system_of(release, machine, "6.1.0-40-amd64")
    assert (found["directory"], found["family"], found["major"]) == (directory, family, major)
    assert found["machine"] == machine


@pytest.mark.parametrize(
    ("release", "machine", "shown"),
    [
        ('ID=ubuntu\nVERSION_ID="20.04"', "x86_64", "ubuntu 20.04 on x86_64"),
        ('ID=debian\nVERSION_ID="11"', "x86_64", "debian 11 on x86_64"),
        ("ID=fedora\nVERSION_ID=43", "x86_64", "fedora 43 on x86_64"),
        ('ID=debian\nVERSION_ID="12"', "ppc64le", "debian 12 on ppc64le"),
        ("", "x86_64", "an unnamed system  on x86_64"),
    ],
)
def test_other_systems_are_refused(release: str, machine: str, shown: str) -> None:
    message = (
        f"this host runs {shown}, wanted Ubuntu 22.04, 24.04 or 26.04, Debian 12 or 13, or RHEL 8, 9 or 10 or a "
        "rebuild of it, on x86_64 or aarch64"
    )
    with pytest.raises(InvalidInputError, match=f"^{re.escape(message)}$"):
        state.system_of(release, machine, "6.1")


def test_parse_dpkg() -> None:
    text = (
        "nvidia-open\t580.173.02-1\thold\tinstalled\tNVIDIA CORPORATION <cudatools@nvidia.com>\n"
        "nvidia-persistenced\t580.173.02-1\tinstall\thalf-configured\tNVIDIA <cudatools@nvidia.com>\n"
        "nvidia-smi\t535.1-1\tdeinstall\tconfig-files\tDebian NVIDIA Maintainers <x@lists.alioth.debian.org>\n"
        "nvidia-container-toolkit\t1.20.0-1\tinstall\tinstalled\tNVIDIA <cudatools@nvidia.com>\n"
        "linux-headers-6.1.0-40-amd64\t6.1.1-1\tinstall\tinstalled\tDebian Kernel Team <x@lists.debian.org>\n"
        "bash\t5.2\tinstall\tunpacked\tMatthias <doko@debian.org>\n"
    )
    packages, unfinished = state.parse_dpkg(text)
    assert packages == {
        "nvidia-open": {"version": "580.173.02-1", "held": True, "vendor": "nvidia"},
        "nvidia-persistenced": {"version": "580.173.02-1", "held": False, "vendor": "nvidia"},
        "linux-headers-6.1.0-40-amd64": {"version": "6.1.1-1", "held": False, "vendor": "debian"},
    }
    assert unfinished == ["bash", "nvidia-persistenced"]


def test_parse_rpm() -> None:
    text = (
        "nvidia-open\t3:580.173.02-1.el9\tnoarch\tNVIDIA CORPORATION\n"
        "kernel-devel\t5.14.0-611.5.1.el9_7\tx86_64\tRed Hat, Inc.\n"
        "nvidia-persistenced\t3:580.173.02-1.el9\tx86_64\tNVIDIA CORPORATION\n"
        "bash\t5.1.8-9.el9\tx86_64\tRed Hat, Inc.\n"
    )
    locks = "# Added lock on Wed Nov 25\nnvidia-open-3:580.173.02-1.el9.*\n"
    assert state.parse_rpm(text, locks) == {
        "nvidia-open": {"version": "3:580.173.02-1.el9", "held": True, "vendor": "nvidia"},
        "nvidia-persistenced": {"version": "3:580.173.02-1.el9", "held": False, "vendor": "nvidia"},
        "kernel-devel-5.14.0-611.5.1.el9_7.x86_64": {
            "version": "5.14.0-611.5.1.el9_7",
            "held": False,
            "vendor": "Red Hat, Inc.",
        },
    }


def test_parse_units() -> None:
    text = (
        "Id=nvidia-persistenced.service\nLoadState=loaded\nActiveState=active\nUnitFileState=enabled\n\n"
        "Id=nvidia-imex.service\nLoadState=not-found\nActiveState=inactive\nUnitFileState=\n"
    )
    assert state.parse_units(text) == {
        "nvidia-persistenced": {"exists": True, "running": True},
        "nvidia-imex": {"exists": False, "running": False},
    }


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        (
            "h100",
            {
                "driver_version": "580.173.02",
                "gpus": 2,
                "fabric": {"00000000:17:00.0": "Completed/Success", "00000000:3D:00.0": "In Progress/N/A"},
            },
        ),
        ("l4", {"driver_version": "595.91.07", "gpus": 1, "fabric": {}}),
    ],
)
def test_parse_smi(name: str, wanted: dict[str, Any]) -> None:
    assert state.parse_smi((FIXTURES / f"nvidia_smi_q_{name}.txt").read_text(encoding="utf-8")) == wanted


def test_parse_smi_of_something_else() -> None:
    with pytest.raises(FleetError, match=r"^nvidia-smi -q printed neither 'Driver Version' nor 'Attached GPUs': 'Segm"):
        state.parse_smi("Segmentation fault\n")


def found(**changes: Any) -> dict[str, Any]:
    """The state of a host whose driver is as it should be."""
    return {
        "packages": {"nvidia-open": {"version": "580.173.02-1", "held": True, "vendor": "nvidia"}},
        "unfinished": [],
        "installer": None,
        "nouveau": False,
        "secure_boot": {"enabled": False, "enrolled": False},
        "module_version": "580.173.02",
        "module_open": True,
        "cuda": {"status": 0, "devices": 8, "library_version": "580.173.02", "message": ""},
        "smi": {"driver_version": "580.173.02", "gpus": 8, "fabric": {}, "message": ""},
        **changes,
    }


DEBIAN = {"nvidia-driver": {"version": "535.1-1", "held": False, "vendor": "debian"}}
SECURE = {"enabled": True, "enrolled": False}


@pytest.mark.parametrize(
    ("host", "repository", "changes", "parts"),
    [
        (found(), "vendor", [], []),
        (found(secure_boot=SECURE), "vendor", [], []),
        (found(secure_boot={"enabled": True, "enrolled": True}), "vendor", ["x"], []),
        (found(secure_boot=SECURE, packages={}), "distribution", ["x"], []),
        (found(secure_boot=SECURE), "vendor", ["x"], ["Secure Boot is on, and the kernel would refuse a module"]),
        (
            found(installer="/usr/bin/nvidia-uninstall"),
            "vendor",
            [],
            ["the driver on this host was installed by NVIDIA's .run installer (/usr/bin/nvidia-uninstall)"],
        ),
        (
            found(packages=DEBIAN),
            "vendor",
            [],
            [
                "packages of another repository are installed (nvidia-driver by debian), wanted packages by nvidia "
                "alone: purge them, set fleet_driver.repository to where they come from, "
                "or to unmanaged to leave them alone"
            ],
        ),
        (found(), "distribution", [], ["packages of another repository are installed (nvidia-open by nvidia), wanted"]),
        (
            found(packages={f"libnvidia-{i}": DEBIAN["nvidia-driver"] for i in range(6)}),
            "vendor",
            [],
            [
                "packages of another repository are installed (libnvidia-0 by debian, libnvidia-1 by debian, "
                "libnvidia-2 by debian, libnvidia-3 by debian and 2 more)"
            ],
        ),
    ],
)
def test_obstacles(host: dict[str, Any], repository: str, changes: list[str], parts: list[str]) -> None:
    obstacles = state.obstacles(host, repository, changes)
    assert len(obstacles) == len(parts)
    assert all(obstacle.startswith(part) for obstacle, part in zip(obstacles, parts, strict=True))


OTHER_KIND = "driver 580.173.02 is installed with the {} kernel module and the kernel runs the {} one"


@pytest.mark.parametrize(
    ("host", "kernel_module", "action", "reason"),
    [
        (found(), "open", "none", ""),
        (
            found(module_version=None, module_open=None),
            "open",
            "load",
            "driver 580.173.02 is installed and the kernel has no NVIDIA module",
        ),
        (
            found(module_version="570.1.1"),
            "open",
            "reboot",
            "driver 580.173.02 is installed and the kernel runs 570.1.1",
        ),
        (
            found(module_version=None, nouveau=True),
            "open",
            "reboot",
            "driver 580.173.02 is installed and the kernel runs nouveau",
        ),
        # One version has both kinds, and packages alone don't change what runs.
        (found(module_open=False), "open", "reboot", OTHER_KIND.format("open", "proprietary")),
        (found(), "proprietary", "reboot", OTHER_KIND.format("proprietary", "open")),
        (found(module_open=False), "proprietary", "none", ""),
        (found(module_open=None), "proprietary", "none", ""),
        (found(module_open=False), None, "none", ""),
    ],
)
def test_activation(host: dict[str, Any], kernel_module: str | None, action: str, reason: str) -> None:
    assert state.activation(host, "580.173.02", kernel_module) == {"action": action, "reason": reason}


CUDA = found()["cuda"]
SMI = found()["smi"]


@pytest.mark.parametrize(
    ("host", "wanted", "faults"),
    [
        (found(), "580", []),
        (found(), "580.173.02", []),
        (found(module_open=None), "580", []),
        (found(), "595", ["the kernel module is 580.173.02, wanted 595"]),
        (found(module_version=None, module_open=None), "580", ["the kernel has no NVIDIA module, wanted 580"]),
        (found(module_open=False), "580", ["the kernel module is proprietary, wanted open"]),
        (
            found(cuda={**CUDA, "library_version": "595.91.07"}),
            "580",
            ["libcuda is 595.91.07 and the kernel module is 580.173.02, wanted one version"],
        ),
        (
            found(cuda={**CUDA, "status": 802}),
            "580",
            ["CUDA does not start: cuInit returned 802 (system not yet initialized: see nvidia-fabricmanager)"],
        ),
        (found(cuda={**CUDA, "status": 3}), "580", ["CUDA does not start: cuInit returned 3"]),
        (
            found(cuda={**CUDA, "status": None, "message": "no answer within 60 s"}),
            "580",
            ["CUDA does not start: no answer within 60 s"],
        ),
        (found(smi={**SMI, "gpus": 7}), "580", ["the driver has 7 GPUs, the record has 8"]),
        (
            found(smi={**SMI, "fabric": {"a": "Completed/Success", "b": "In Progress/N/A"}}),
            "580",
            ["the fabric is b In Progress/N/A, wanted Completed/Success on every GPU"],
        ),
        (found(smi={**SMI, "message": "nvidia-smi -q failed"}), "580", ["nvidia-smi -q failed"]),
    ],
)
def test_proof_faults(host: dict[str, Any], wanted: str, faults: list[str]) -> None:
    assert state.proof_faults(host, wanted, "open", 8) == faults


MANAGED = {"nvidia-fabricmanager": {"exists": True, "running": True}}


@pytest.mark.parametrize(
    ("host", "settling"),
    [
        (found(units=MANAGED, cuda={**CUDA, "status": 802}), True),
        (found(units=MANAGED, smi={**SMI, "fabric": {"a": "Completed/Success", "b": "In Progress/N/A"}}), True),
        (found(units=MANAGED, smi={**SMI, "fabric": {"a": "Not Started/N/A"}}), True),
        (found(units=MANAGED), False),
        # It will not come by itself.
        (
            found(units={"nvidia-fabricmanager": {"exists": True, "running": False}}, cuda={**CUDA, "status": 802}),
            False,
        ),
        (found(units={}, cuda={**CUDA, "status": 802}), False),
        (found(units=MANAGED, cuda={**CUDA, "status": 3}), False),
        (found(units=MANAGED, smi={**SMI, "fabric": {"a": "Completed/Insufficient Resources"}}), False),
    ],
)
def test_a_fabric_that_is_being_set_up_is_waited_for(host: dict[str, Any], settling: bool) -> None:
    assert state.is_settling(host) == settling


def test_a_rollback_compares_neither_kind_nor_count() -> None:
    assert state.proof_faults(found(module_open=False, smi={**SMI, "gpus": 7}), "580", None, None) == []


def test_cuda_without_a_library() -> None:
    answer = state.prove_cuda(sys.executable, 60)
    if answer["message"]:
        assert "libcuda.so.1" in answer["message"]
        assert answer["status"] is None
    else:
        assert isinstance(answer["status"], int)


def test_cuda_that_hangs_is_killed(tmp_path: Path) -> None:
    frozen = tmp_path / "python"
    frozen.write_text("#!/bin/sh\ntrap '' TERM INT\nsleep 600\nsleep 600\n", encoding="utf-8")
    frozen.chmod(0o755)
    assert state.prove_cuda(str(frozen), 0.2)["message"] == "no answer within 0.2 s"


def answering(status: int, out: str, err: str = "") -> Any:
    """A runner with one answer to everything."""
    return lambda argv, stdin=None: (status, out, err)


def test_nvidia_smi_is_asked() -> None:
    text = (FIXTURES / "nvidia_smi_q_l4.txt").read_text(encoding="utf-8")
    assert state.ask_smi(answering(0, text)) == {"driver_version": "595.91.07", "gpus": 1, "fabric": {}}
    with pytest.raises(FleetError, match=r"^nvidia-smi -q failed with exit status 9: couldn't communicate$"):
        state.ask_smi(answering(9, "couldn't communicate\n"))


def test_only_idle_gpus_are_idle() -> None:
    state.check_idle(answering(0, ""), "DCGM")
    message = (
        "DCGM needs GPUs that nobody uses, and processes compute on GPU-a by 17, 4711; GPU-b by 42: stop them first"
    )
    with pytest.raises(FleetError, match=f"^{re.escape(message)}$"):
        state.check_idle(answering(0, "GPU-b, 42\nGPU-a, 4711\nGPU-a, 17\n"), "DCGM")
    with pytest.raises(
        FleetError, match=r"^nvidia-smi --query-compute-apps=gpu_uuid,pid failed with exit status 127: "
    ):
        state.check_idle(answering(127, "", "nvidia-smi: No such file or directory"), "DCGM")


def test_reading_a_host(tmp_path: Path) -> None:
    files = {
        "etc/os-release": b'ID="rhel"\nVERSION_ID="9.7"\n',
        "etc/dnf/modules.d/nvidia-driver.module": b"[nvidia-driver]\nstream=580-open\nprofiles=\nstate=enabled\n",
        "sys/module/nvidia/version": b"580.173.02\n",
        "proc/driver/nvidia/version": b"NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.173.02\n",
        "sys/firmware/efi/efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c": b"\x06\0\0\0\x01",
        "var/lib/dkms/mok.pub": b"key",
        "usr/bin/nvidia-uninstall": b"",
        "boot_id": b"11111111-2222-3333-4444-555555555555\n",
    }
    for name, content in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    asked = []

    def run(argv: Sequence[str], stdin: str | None = None) -> tuple[int, str, str]:
        asked.append(argv[0])
        if argv[0] == "rpm":
            return 0, "nvidia-open\t3:580.173.02-1.el9\tnoarch\tNVIDIA CORPORATION\n", ""
        if argv[0] == "mokutil":
            return 0, "/var/lib/dkms/mok.pub is already enrolled\n", ""
        return 0, "Id=nvidia-dcgm.service\nLoadState=not-found\nActiveState=inactive\nUnitFileState=\n", ""

    found = state.Reader(str(tmp_path), run, str(tmp_path / "boot_id")).read()
    assert asked == ["rpm", "systemctl", "mokutil"] or asked == ["rpm", "mokutil", "systemctl"]
    assert found["system"]["directory"].startswith("rhel9/")
    assert found["stream"] == "580-open"
    assert found["boot_id"] == "11111111-2222-3333-4444-555555555555"
    assert (found["module_version"], found["module_open"], found["nouveau"]) == ("580.173.02", True, False)
    assert found["secure_boot"] == {"enabled": True, "enrolled": True}
    assert found["installer"] == "/usr/bin/nvidia-uninstall"


@pytest.mark.parametrize(
    ("family", "major", "kernel_module", "stream"),
    [
        ("rhel", "8", "open", "580-open"),
        ("rhel", "9", "proprietary", "580-dkms"),
        ("rhel", "10", "open", None),
        ("debian", "12", "open", None),
    ],
)
def test_streams(family: str, major: str, kernel_module: str, stream: str | None) -> None:
    assert state.dnf_stream({"family": family, "major": major}, 580, kernel_module) == stream
