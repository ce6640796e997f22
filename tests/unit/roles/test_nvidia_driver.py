# SPDX-License-Identifier: Apache-2.0
"""The packages of every system, branch and kind of host, rendered from the role's own variables.

Only apt on Debian 12 and 13 runs in a test (molecule/nvidia_driver, with stand-in packages of these names). What is
here for Ubuntu and RHEL is rendered: it shows what would be asked for, not that a repository has it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from ansible.errors import AnsibleError
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar

from ansible_collections.gpufleet.metal.plugins.module_utils._driver_state import system_of

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
        "kmod-nvidia-open-dkms",
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
        ("x86_64", ["fabric_manager", "nvlsm"], (FABRIC, ["nvlsm", "infiniband-diags", "libnvsdm"])),
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
        ("rhel 9.7", ["nvidia-fabric-manager"]),
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
