# SPDX-License-Identifier: Apache-2.0
"""The packages of every system, branch and kind of host, rendered from the role's own variables.

Only apt on Debian 12 and 13 runs in a test (molecule/nvidia_driver, with stand-in packages of these names). What is
here for Ubuntu and RHEL is rendered: it shows what would be asked for. RHEL's names are held against what others
published of the repositories (tests/unit/fixtures/driver/recorded_rpm.yml).
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible.errors import AnsibleError
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar

from ansible_collections.gpufleet.metal.plugins.module_utils._driver_packages import is_driver_package, upstream
from ansible_collections.gpufleet.metal.plugins.module_utils._driver_state import dnf_stream, system_of

RECORDED = yaml.safe_load(
    (Path(__file__).parents[1] / "fixtures" / "driver" / "recorded_rpm.yml").read_text(encoding="utf-8")
)
ROLE = Path(__file__).parents[3] / "roles" / "nvidia_driver"
KERNELS = {"ubuntu": "6.8.0-88-generic", "debian": "6.1.0-40-amd64", "rhel": "4.18.0-553.el8_10.x86_64"}


def rendered(system: str, expression: str, machine: str = "x86_64", **options: Any) -> Any:
    """An expression with the role's variables on a system such as "ubuntu 24.04"."""
    name, version = system.split()
    found = system_of(f'ID={name}\nVERSION_ID="{version}"\n', machine, KERNELS[name])
    loader = DataLoader()
    variables: dict[str, Any] = {"__nvidia_driver_state": {"system": found, "packages": {}, "unfinished": []}}
    files = ["defaults/main", "vars/main"]
    files += [f"vars/{part}" for part in (found["family"], name, f"{name}-{found['major']}")]
    for path in dict.fromkeys(ROLE / f"{file}.yml" for file in files):
        if path.exists():
            variables.update(loader.load_from_file(str(path), trusted_as_template=True))
    variables["__nvidia_driver_state"].update(options.pop("state", {}))
    variables.update({"__nvidia_driver_target": options.pop("target")} if "target" in options else {})
    variables.update({f"nvidia_driver_{key}": value for key, value in options.items()})
    return Templar(loader=loader, variables=variables).template(variables[expression])


def packages(system: str, machine: str = "x86_64", **options: Any) -> list[str]:
    """All packages, those of the driver's version first."""
    found = rendered(system, "__nvidia_driver_composition", machine, **options)
    return [*found["driver"], "|", *found["others"]]


DEBIAN = ["linux-headers-6.1.0-40-amd64"]
UBUNTU = ["linux-headers-6.8.0-88-generic"]
FABRIC = ["nvidia-fabricmanager", "libnvidia-nscq"]


@pytest.mark.parametrize("system", ["debian 12", "debian 13"])
@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
@pytest.mark.parametrize("branch", [580, 595, 620])
def test_debian(system: str, machine: str, branch: int) -> None:
    pin = f"nvidia-driver-pinning-{branch}"
    assert packages(system, machine, branch=branch) == ["nvidia-open", "nvidia-persistenced", "|", pin, *DEBIAN]
    assert packages(system, machine, branch=branch, compute_only=True) == [
        "nvidia-driver-cuda",
        "kmod-nvidia-open-dkms" if branch >= 610 else "nvidia-kernel-open-dkms",
        "nvidia-persistenced",
        "|",
        pin,
        *DEBIAN,
    ]


@pytest.mark.parametrize("system", ["ubuntu 22.04", "ubuntu 24.04", "ubuntu 26.04"])
@pytest.mark.parametrize(
    ("branch", "compute"),
    [
        (580, ["libnvidia-compute-580", "nvidia-dkms-580-open"]),
        (590, ["libnvidia-compute", "nvidia-dkms-open"]),
        (595, ["libnvidia-compute", "nvidia-dkms-open"]),
        (620, ["libnvidia-compute", "nvidia-dkms-open"]),
    ],
)
def test_ubuntu(system: str, branch: int, compute: list[str]) -> None:
    rest = ["|", f"nvidia-driver-pinning-{branch}", *UBUNTU]
    assert packages(system, branch=branch) == ["nvidia-open", *rest]
    assert packages(system, branch=branch, compute_only=True) == [*compute, *rest]


@pytest.mark.parametrize("system", ["ubuntu 22.04", "ubuntu 24.04", "ubuntu 26.04"])
def test_canonical_archive(system: str) -> None:
    assert packages(system, repository="distribution", components=["fabric_manager"]) == [
        "nvidia-headless-580-server-open",
        "nvidia-utils-580-server",
        "nvidia-fabricmanager-580",
        "libnvidia-nscq-580",
        "|",
        "linux-modules-nvidia-580-server-open-generic",
    ]


@pytest.mark.parametrize(
    ("system", "headers"),
    [
        ("rhel 8.10", "kernel-devel-4.18.0-553.el8_10.x86_64"),
        ("rhel 9.7", "kernel-devel-matched"),
        ("rhel 10.1", "kernel-devel-matched"),
    ],
)
@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_rhel(system: str, headers: str, machine: str) -> None:
    assert packages(system, machine, components=["fabric_manager"]) == [
        "nvidia-open",
        "nvidia-persistenced",
        *FABRIC,
        "|",
        headers,
    ]
    assert packages(system, machine, kernel_module="proprietary")[0] == "cuda-drivers"
    assert packages(system, machine, compute_only=True)[:2] == ["nvidia-driver-cuda", "kmod-nvidia-open-dkms"]


@pytest.mark.parametrize("system", ["debian 12", "ubuntu 24.04", "rhel 9.7"])
def test_proprietary(system: str) -> None:
    assert packages(system, kernel_module="proprietary")[0] == "cuda-drivers"
    with pytest.raises(
        AnsibleError, match=r"no package is known for 'proprietary' of branch 620 in the vendor repository"
    ):
        packages(system, kernel_module="proprietary", branch=620)


@pytest.mark.parametrize("system", ["debian 13", "ubuntu 24.04", "rhel 10.1"])
@pytest.mark.parametrize(
    ("machine", "components", "wanted"),
    [
        ("x86_64", ["fabric_manager"], (FABRIC, [])),
        ("x86_64", ["fabric_manager", "nvlsm"], ([*FABRIC, "libnvsdm"], ["nvlsm", "infiniband-diags"])),
        ("aarch64", ["fabric_manager", "nvlsm"], (FABRIC, ["nvlsm", "infiniband-diags"])),
        ("aarch64", ["imex"], (["nvidia-imex"], [])),
        ("x86_64", [], ([], [])),
    ],
)
def test_fabrics(system: str, machine: str, components: list[str], wanted: tuple[list[str], list[str]]) -> None:
    plain = rendered(system, "__nvidia_driver_composition", machine)
    found = rendered(system, "__nvidia_driver_composition", machine, components=components)
    assert [name for name in found["driver"] if name not in plain["driver"]] == wanted[0]
    assert [name for name in found["others"] if name not in plain["others"]] == wanted[1]


@pytest.mark.parametrize(
    ("system", "names"),
    [
        ("debian 12", ["nvidia-fabricmanager-535", "libnvidia-nscq-535"]),
        ("ubuntu 22.04", ["nvidia-fabricmanager-535", "libnvidia-nscq-535"]),
        ("rhel 9.7", ["nvidia-fabric-manager", "libnvidia-nscq-535"]),
    ],
)
def test_names_of_old_branches(system: str, names: list[str]) -> None:
    found = rendered(system, "__nvidia_driver_composition", branch=535, components=["fabric_manager"])
    assert found["driver"][-len(names) :] == names


@pytest.mark.parametrize(("branch", "cuda"), [(535, 12), (580, 13), (620, 13)])
def test_dcgm_keeps_the_exporters_line(branch: int, cuda: int) -> None:
    found = rendered("debian 12", "__nvidia_driver_composition", branch=branch, dcgm=True)
    names = ["datacenter-gpu-manager-4-core", f"datacenter-gpu-manager-4-cuda{cuda}"]
    assert found["others"][-2:] == names
    assert found["versions"] == dict.fromkeys(names, "4.6")


def test_units_and_files_follow_the_components() -> None:
    assert rendered("debian 12", "__nvidia_driver_units") == ["nvidia-persistenced"]
    b200 = {"components": ["fabric_manager", "nvlsm"], "dcgm": True}
    assert rendered("debian 12", "__nvidia_driver_units", **b200) == [
        "nvidia-persistenced",
        "nvidia-fabricmanager",
        "nvidia-dcgm",
    ]
    assert rendered("debian 12", "__nvidia_driver_files_activate", **b200) == (
        'sh -c "modprobe ib_umad && update-initramfs -u -k all"\n'
    ).rstrip("\n")
    assert rendered("rhel 9.7", "__nvidia_driver_files_activate") == 'sh -c "dracut --force --regenerate-all"'
    files = rendered("debian 12", "__nvidia_driver_files", **b200, imex_nodes=["192.0.2.1"])
    assert [file["dest"] for file in files] == [
        "/etc/modprobe.d/gpufleet-nvidia.conf",
        "/etc/modules-load.d/gpufleet-nvidia.conf",
        "/etc/nvidia-imex",
        "/etc/nvidia-imex/nodes_config.cfg",
    ]


@pytest.mark.parametrize(
    ("system", "machine", "repository", "url"),
    [
        (
            "ubuntu 26.04",
            "aarch64",
            "vendor",
            "https://developer.download.nvidia.com/compute/cuda/repos/ubuntu2604/sbsa/3bf863cc.pub",
        ),
        ("debian 13", "x86_64", "file:///srv/nvidia/", "file:///srv/nvidia/debian13/x86_64/3bf863cc.pub"),
        ("rhel 10.1", "x86_64", "https://mirror.example.org", "https://mirror.example.org/rhel10/x86_64/D42D0685.pub"),
    ],
)
def test_repositories(system: str, machine: str, repository: str, url: str) -> None:
    assert rendered(system, "__nvidia_driver_key_url", machine, repository=repository) == url


def recorded_rpms(branch: int) -> dict[str, set[str]]:
    """The recorded RPMs of a branch, and those with versions of their own: their versions without epoch, by name."""
    found: dict[str, set[str]] = {}
    for entry in RECORDED:
        for whole in entry.get("packages", ()):
            name, version = re.fullmatch(r"(.+?)-((?:[0-9]+:)?[0-9]+\.[0-9.]+-[0-9]+).*", whole).groups()
            if upstream(version).startswith(f"{branch}.") or name == "nvlsm":
                found.setdefault(name, set()).add(upstream(version))
    return found


@pytest.mark.parametrize("system", ["rhel 8.10", "rhel 9.7", "rhel 10.1"])
@pytest.mark.parametrize(
    ("branch", "options"),
    [
        (580, {"components": ["fabric_manager", "nvlsm"]}),
        (580, {"components": ["imex"]}),
        (580, {"compute_only": True}),
        (580, {"kernel_module": "proprietary"}),
        (570, {"kernel_module": "proprietary", "components": ["fabric_manager", "nvlsm"]}),
        (570, {"kernel_module": "proprietary", "components": ["imex"]}),
    ],
)
def test_rpms_were_published_under_these_names(system: str, branch: int, options: dict[str, Any]) -> None:
    found = rendered(system, "__nvidia_driver_composition", branch=branch, **options)
    published = recorded_rpms(branch)
    # The distribution's own, and what nobody recorded of 570.
    foreign = {"infiniband-diags", *(name for name in found["others"] if name.startswith("kernel-devel"))}
    foreign |= {"nvidia-persistenced"} if branch == 570 else set()
    assert {*found["driver"], *found["others"]} - foreign <= set(published)
    for name in set(found["driver"]) - foreign:
        assert is_driver_package(name)
        assert all(version.startswith(f"{branch}.") for version in published[name]), f"{name} carries the version"


def test_rpms_of_one_driver_have_one_version_with_and_without_epoch_and_distribution() -> None:
    published = recorded_rpms(580)
    names = rendered("rhel 9.7", "__nvidia_driver_composition", components=["fabric_manager", "nvlsm"])["driver"]
    assert set.intersection(*(published[name] for name in names)) == {"580.126.20"}


@pytest.mark.parametrize(("kernel_module", "stream"), [("open", "535-open"), ("proprietary", "535-dkms")])
def test_streams_were_published_under_these_names(kernel_module: str, stream: str) -> None:
    assert dnf_stream({"family": "rhel", "major": "9"}, 535, kernel_module) == stream
    assert stream in {name for entry in RECORDED for name in entry.get("streams", ())}


PROPRIETARY = {"module_version": "580.173.02", "module_open": False, "nouveau": False}


@pytest.mark.parametrize(
    ("kernel_module", "action", "replaces"), [("open", "reboot", True), ("proprietary", "none", False)]
)
def test_another_kernel_module_is_another_driver(kernel_module: str, action: str, replaces: bool) -> None:
    options = {"kernel_module": kernel_module, "state": PROPRIETARY}
    assert rendered("debian 12", "__nvidia_driver_replaces", **options) is replaces
    assert rendered("debian 12", "__nvidia_driver_activation", **options, target="580.173.02")["action"] == action
