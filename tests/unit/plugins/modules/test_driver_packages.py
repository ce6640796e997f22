# SPDX-License-Identifier: Apache-2.0
"""The module against package managers that are simulated: what is run, in which order, and what is refused.

apt itself, with real packages, is in molecule/nvidia_driver. dnf is only here: its commands are rendered.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.gpufleet.metal.plugins.module_utils import _driver_state
from ansible_collections.gpufleet.metal.plugins.module_utils._errors import FleetError, InvalidInputError
from ansible_collections.gpufleet.metal.plugins.modules import driver_packages

UNITS = "Id=nvidia-dcgm.service\nLoadState=not-found\nActiveState=inactive\nUnitFileState=\n"
DRIVER = ["nvidia-open", "nvidia-fabricmanager"]
OPEN_580 = {"nvidia-open": "580.173.02-1", "nvidia-fabricmanager": "580.173.02-1", "nvidia-driver-pinning-580": "580-2"}
OPEN_595 = {"nvidia-open": "595.91.07-1", "nvidia-fabricmanager": "595.91.07-1", "nvidia-driver-pinning-595": "595-2"}


class SimulatedHost:
    """Answers commands, and remembers them. Installing is what ``after`` says, and clears what is unfinished."""

    def __init__(self, release: str, packages: dict[str, str], after: dict[str, str], simulated: str = "") -> None:
        self.release = release
        self.packages = dict(packages)
        self.after = after
        self.simulated = simulated
        self.held: set[str] = set(packages)
        self.unfinished: set[str] = set()
        self.asked: list[str] = []

    def run(self, argv: Sequence[str], stdin: str | None = None) -> tuple[int, str, str]:
        """Answer one command."""
        words = [word for word in argv if not word.startswith(("-o", "Dir::", "Dpkg::", "DPkg::"))]
        program = argv[0]
        if program == "systemctl":
            return 0, UNITS, ""
        if program == "dpkg-query":
            lines = []
            for name, version in self.packages.items():
                status = "half-configured" if name in self.unfinished else "installed"
                want = "hold" if name in self.held else "install"
                lines.append(f"{name}\t{version}\t{want}\t{status}\tNVIDIA <cudatools@nvidia.com>\n")
            return 0, "".join(lines), ""
        if program == "rpm":
            lines = [f"{name}\t{version}\tx86_64\tNVIDIA CORPORATION\n" for name, version in self.packages.items()]
            return 0, "".join(lines), ""
        self.asked.append(" ".join(words))
        if program == "apt-cache":
            offers = ("580.173.02-1", "595.91.07-1")
            lines = [f"{name} | {version} | file:/srv\n" for name in argv[2:] for version in reversed(offers)]
            return 0, "".join(lines), ""
        if "repoquery" in argv:
            versions = ("3:580.173.02-1.el9", "3:595.91.07-1.el9")
            return 0, "".join(f"{name}\t{version}\n" for name in argv[5:] for version in versions), ""
        if "--simulate" in argv or "--assumeno" in argv:
            return ("--assumeno" in argv) * 1, self.simulated, ""
        if program == "apt-mark" or "versionlock" in argv:
            self.held.update(argv[2:])
        elif "install" in argv:
            self.packages, self.unfinished = dict(self.after), set()
        return 0, "", ""


def module(host: SimulatedHost, tmp_path: Path, check_mode: bool = False, **changes: Any) -> dict[str, Any]:
    """Run the module on a simulated host."""
    (tmp_path / "etc").mkdir(exist_ok=True)
    (tmp_path / "etc/os-release").write_text(host.release, encoding="utf-8")
    (tmp_path / "boot_id").write_text("1\n", encoding="utf-8")
    options = {
        "driver": DRIVER,
        "others": [],
        "versions": {},
        "version": "595",
        "stream": None,
        "record": str(tmp_path / "record/recorded.json"),
        "restore": False,
        **changes,
    }
    target = driver_packages.Host(host.run, check_mode)
    target.reader = _driver_state.Reader(str(tmp_path), host.run, str(tmp_path / "boot_id"))
    return driver_packages.run(target, options, check_mode)


def debian(packages: dict[str, str], after: dict[str, str], simulated: str = "") -> SimulatedHost:
    """A simulated Debian 12."""
    return SimulatedHost('ID=debian\nVERSION_ID="12"\n', packages, after, simulated)


def recorded(tmp_path: Path) -> Any:
    """What was recorded, None when nothing was."""
    path = tmp_path / "record/recorded.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None


FLAGS = "--yes --no-install-recommends --allow-downgrades --allow-change-held-packages --fix-broken"


def test_a_change_of_branch(tmp_path: Path) -> None:
    host = debian(OPEN_580, OPEN_595)
    result = module(host, tmp_path, others=["nvidia-driver-pinning-595"])
    wanted = (
        "nvidia-open=595.91.07-1 nvidia-fabricmanager=595.91.07-1 nvidia-driver-pinning-595 nvidia-driver-pinning-580-"
    )
    assert host.asked == [
        "apt-get update",
        "apt-cache madison nvidia-driver-pinning-580 nvidia-driver-pinning-595 nvidia-fabricmanager nvidia-open",
        f"apt-get {FLAGS} install --simulate {wanted}",
        f"apt-get {FLAGS} install {wanted}",
        "apt-mark hold nvidia-driver-pinning-595",
    ]
    assert (result["changed"], result["version"], result["recorded"]) == (True, "595.91.07", True)
    assert "nvidia-open 580.173.02-1\n" in result["diff"]["before"]
    assert recorded(tmp_path) == {
        "version": "580.173.02",
        "packages": dict(sorted(OPEN_580.items())),
        "held": sorted(OPEN_580),
        "stream": None,
    }


def test_a_driver_that_is_right_costs_nothing(tmp_path: Path) -> None:
    host = debian(OPEN_580, OPEN_580)
    result = module(host, tmp_path, version="580")
    assert result == {"changed": False, "recorded": False, "reasons": [], "version": "580.173.02"}
    assert host.asked == []


def test_a_new_kernel_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    host = debian(OPEN_580, OPEN_595, "Inst linux-image-6.1.0-41-amd64 (6.1.150-1 Debian:12 [amd64])\n")
    message = (
        "the driver's transaction is refused: it would bring a new kernel (linux-image-6.1.0-41-amd64 6.1.150-1): "
        "update the kernel first, reboot, and run again; no package was changed"
    )
    with pytest.raises(FleetError, match=f"^{re.escape(message)}$"):
        module(host, tmp_path)
    assert host.packages == OPEN_580
    assert recorded(tmp_path) is None


def test_check_mode_writes_nothing_and_sees_the_refusal(tmp_path: Path) -> None:
    host = debian(OPEN_580, OPEN_595)
    result = module(host, tmp_path, check_mode=True)
    assert result["changed"]
    assert host.packages == OPEN_580
    assert [words.split()[0:2] for words in host.asked] == [["apt-cache", "madison"], ["apt-get", "--yes"]]
    assert "--simulate" in host.asked[1]
    assert recorded(tmp_path) is None
    host.simulated = "Remv rack-agent [2.4-1]\n"
    with pytest.raises(FleetError, match=r"would remove packages that are not NVIDIA's \(rack-agent 2\.4-1\)"):
        module(host, tmp_path, check_mode=True)


def test_an_interrupted_installation_is_continued_and_the_older_record_stays(tmp_path: Path) -> None:
    host = debian(OPEN_580, OPEN_595)
    module(host, tmp_path)
    before = recorded(tmp_path)
    host.packages = {**OPEN_595, "nvidia-fabricmanager": "580.173.02-1"}
    host.unfinished = {"nvidia-open"}
    host.asked.clear()
    result = module(host, tmp_path)
    assert host.asked[0] == "dpkg --configure --pending --force-confdef --force-confold"
    assert result["reasons"][0] == "the installation of nvidia-open was interrupted"
    assert recorded(tmp_path) == before


def test_what_stays_unfinished_is_an_error(tmp_path: Path) -> None:
    class Stubborn(SimulatedHost):
        def run(self, argv: Sequence[str], stdin: str | None = None) -> tuple[int, str, str]:
            answer = super().run(argv, stdin)
            self.unfinished = {"nvidia-open"}
            return (
                (1, "", "installed nvidia-open package post-installation script failed")
                if argv[0] == "dpkg"
                else answer
            )

    host = Stubborn('ID=debian\nVERSION_ID="12"\n', OPEN_580, OPEN_595)
    host.unfinished = {"nvidia-open"}
    message = (
        "the packages nvidia-open are still unfinished, wanted every package configured; dpkg said: "
        "installed nvidia-open package post-installation script failed"
    )
    with pytest.raises(FleetError, match=f"^{re.escape(message)}$"):
        module(host, tmp_path)


def test_a_rollback(tmp_path: Path) -> None:
    host = debian(OPEN_580, OPEN_595)
    module(host, tmp_path)
    host.after = OPEN_580
    host.asked.clear()
    result = module(host, tmp_path, restore=True)
    assert host.asked[-1] == (
        f"apt-get {FLAGS} install nvidia-driver-pinning-580=580-2 nvidia-fabricmanager=580.173.02-1 "
        "nvidia-open=580.173.02-1 nvidia-driver-pinning-595-"
    )
    assert (result["changed"], result["version"], result["kernel_module"]) == (True, "580.173.02", "open")
    assert host.packages == OPEN_580
    assert module(host, tmp_path, restore=True)["changed"] is False


def test_a_rollback_without_a_record(tmp_path: Path) -> None:
    message = (
        f"{tmp_path}/record/recorded.json is not there: no driver was recorded on this host, so none can come back"
    )
    with pytest.raises(FleetError, match=f"^{re.escape(message)}$"):
        module(debian(OPEN_580, OPEN_580), tmp_path, restore=True)


def test_another_kernel_module_is_recorded_like_another_version(tmp_path: Path) -> None:
    proprietary = {"cuda-drivers": "580.173.02-1", "nvidia-fabricmanager": "580.173.02-1"}
    host = debian(OPEN_580, proprietary)
    result = module(host, tmp_path, driver=["cuda-drivers", "nvidia-fabricmanager"], version="580")
    assert (result["version"], result["recorded"]) == ("580.173.02", True)
    assert host.asked[-2].endswith(" nvidia-open-"), "what brings the other module goes"
    assert recorded(tmp_path)["packages"] == dict(sorted(OPEN_580.items()))
    more = debian(proprietary, proprietary)
    result = module(more, tmp_path, driver=["cuda-drivers", "nvidia-fabricmanager", "nvidia-imex"], version="580")
    assert (result["changed"], result["recorded"]) == (True, False), "a component more is no other driver"


def test_recording_alone(tmp_path: Path) -> None:
    host = debian(OPEN_580, OPEN_580)
    assert module(host, tmp_path, driver=[], check_mode=True)["changed"]
    assert recorded(tmp_path) is None
    assert module(host, tmp_path, driver=[])["changed"]
    assert recorded(tmp_path)["version"] == "580.173.02"
    assert not module(host, tmp_path, driver=[])["changed"]
    assert host.asked == []


def test_a_driver_without_a_version(tmp_path: Path) -> None:
    message = "driver_packages: version is not set, wanted a branch or a version together with driver"
    with pytest.raises(InvalidInputError, match=f"^{re.escape(message)}$"):
        module(debian({}, {}), tmp_path, version=None)


def test_dnf(tmp_path: Path) -> None:
    after = dict.fromkeys(DRIVER, "3:595.91.07-1.el9")
    host = SimulatedHost('ID=rocky\nID_LIKE="rhel"\nVERSION_ID="9.7"\n', {}, after)
    locks = tmp_path / "etc/dnf/plugins/versionlock.list"
    locks.parent.mkdir(parents=True)
    locks.write_text("nvidia-open-3:580.173.02-1.el9.*\nnvidia-open-extra-3:1-1.*\n", encoding="utf-8")
    result = module(host, tmp_path, stream="595-open")
    names = "nvidia-open-3:595.91.07-1.el9 nvidia-fabricmanager-3:595.91.07-1.el9"
    dnf = "dnf --setopt=install_weak_deps=False --disableplugin=versionlock --allowerasing"
    assert host.asked == [
        "dnf -y module enable nvidia-driver:595-open",
        rf"dnf -q repoquery --disableplugin=versionlock --queryformat=%{{name}}\t%{{evr}}\n {' '.join(sorted(DRIVER))}",
        f"{dnf} --assumeno install {names}",
        f"{dnf} -y install {names}",
        "dnf -y versionlock delete nvidia-open",
        f"dnf -y versionlock add {names}",
    ]
    assert (result["version"], result["recorded"]) == ("595.91.07", False)


def test_a_refusal_puts_the_stream_back(tmp_path: Path) -> None:
    rocky = 'ID=rocky\nID_LIKE="rhel"\nVERSION_ID="9.7"\n'
    before = dict.fromkeys(DRIVER, "3:580.173.02-1.el9")
    kernel = "Installing:\n kernel-core  x86_64  5.14.0-999.el9  baseos  18 M\n\nTransaction Summary\n"
    host = SimulatedHost(rocky, before, {}, kernel)
    stream = tmp_path / "etc/dnf/modules.d/nvidia-driver.module"
    stream.parent.mkdir(parents=True)
    stream.write_text("[nvidia-driver]\nstream=580-open\nstate=enabled\n", encoding="utf-8")
    with pytest.raises(FleetError, match=r"it would bring a new kernel \(kernel-core 5\.14\.0-999\.el9\)"):
        module(host, tmp_path, stream="595-open")
    modules = [words for words in host.asked if words.startswith("dnf -y module")]
    assert modules == [
        "dnf -y module reset nvidia-driver",
        "dnf -y module enable nvidia-driver:595-open",
        "dnf -y module reset nvidia-driver",
        "dnf -y module enable nvidia-driver:580-open",
    ]
    assert host.packages == before
    assert recorded(tmp_path) is None
