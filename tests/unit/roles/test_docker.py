# SPDX-License-Identifier: Apache-2.0
"""What the docker role renders for distributions that no test host runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar

ROLE = Path(__file__).parents[3] / "roles" / "docker"
VENDOR = ["docker-ce", "docker-ce-cli", "containerd.io", "docker-buildx-plugin", "docker-compose-plugin"]
TOOLKIT = [
    "nvidia-container-toolkit",
    "nvidia-container-toolkit-base",
    "libnvidia-container-tools",
    "libnvidia-container1",
]


def rendered(family: str, distribution: str, major: str, expression: str, **options: Any) -> Any:
    """An expression with the role's variables on a distribution."""
    loader = DataLoader()
    variables: dict[str, Any] = {
        "ansible_facts": {
            "os_family": family,
            "distribution": distribution,
            "distribution_major_version": major,
            "packages": options.pop("packages", {}),
        }
    }
    names = ["defaults/main", "vars/main", *(f"vars/{n}" for n in (family, distribution, f"{distribution}-{major}"))]
    for name in dict.fromkeys(names):
        path = ROLE / f"{name}.yml"
        if path.exists():
            variables.update(loader.load_from_file(str(path), trusted_as_template=True))
    variables.update(options)
    return Templar(loader=loader, variables=variables).template(variables[expression])


@pytest.mark.parametrize(
    ("system", "options", "packages"),
    [
        (("Debian", "Debian", "12"), {"docker_repository": "distribution"}, ["docker.io", "containerd"]),
        (
            ("Debian", "Debian", "13"),
            {"docker_repository": "distribution"},
            ["docker.io", "docker-cli", "containerd", "docker-compose"],
        ),
        (
            ("Debian", "Ubuntu", "24"),
            {"docker_repository": "distribution"},
            ["docker.io", "containerd", "docker-compose-v2"],
        ),
        (("Debian", "Ubuntu", "22"), {}, VENDOR),
        (("RedHat", "Rocky", "9"), {}, VENDOR),
        (
            ("RedHat", "RedHat", "10"),
            {"docker_version": "3:29.4.3"},
            ["docker-ce-3:29.4.3", "docker-ce-cli-3:29.4.3", *VENDOR[2:]],
        ),
        (
            ("Debian", "Debian", "13"),
            {"docker_version": "5:29.4.*"},
            ["docker-ce=5:29.4.*", "docker-ce-cli=5:29.4.*", *VENDOR[2:]],
        ),
    ],
)
def test_packages(system: tuple[str, str, str], options: dict[str, Any], packages: list[str]) -> None:
    assert rendered(*system, "__docker_packages", **options) == [*packages, "python3-requests"]


def test_the_toolkit_has_one_version() -> None:
    found = rendered("Debian", "Ubuntu", "24", "__docker_packages", docker_nvidia_toolkit=True)
    assert found == [*VENDOR, "python3-requests", *(f"{name}=1.20.0-1" for name in TOOLKIT)]


@pytest.mark.parametrize(
    ("installed", "missing"),
    [
        ({}, [*VENDOR, "python3-requests"]),
        (dict.fromkeys([*VENDOR, "python3-requests"], "5:29.4.3-1~debian.13~trixie"), []),
        (
            dict.fromkeys([*VENDOR, "python3-requests"], "5:28.0.1-1~debian.13~trixie"),
            ["docker-ce", "docker-ce-cli"],
        ),
    ],
)
def test_what_is_missing(installed: dict[str, str], missing: list[str]) -> None:
    packages = {name: [{"version": version}] for name, version in installed.items()}
    options = {"docker_version": "5:29.4.*", "packages": packages}
    assert rendered("Debian", "Debian", "13", "__docker_missing", **options) == missing


#: As package_facts writes them on RHEL 9: rpm keeps epoch and release apart from the version.
RPM = {
    **{name: {"version": "29.4.3", "release": "1.el9", "epoch": 3} for name in VENDOR[:2]},
    **{name: {"version": "2.3.1", "release": "1.el9", "epoch": None} for name in VENDOR[2:]},
    "python3-requests": {"version": "2.25.1", "release": "10.el9", "epoch": None},
    **{name: {"version": "1.20.0", "release": "1", "epoch": None} for name in TOOLKIT},
}


@pytest.mark.parametrize(
    ("options", "missing"),
    [
        ({}, []),
        ({"docker_version": "3:29.4.3"}, []),
        ({"docker_version": "3:29.4.*"}, []),
        ({"docker_version": "29.4.3-1.el9"}, []),
        ({"docker_version": "3:29.5.*"}, ["docker-ce", "docker-ce-cli"]),
        ({"docker_nvidia_toolkit_version": "1.20.1-1"}, TOOLKIT),
    ],
)
def test_what_is_missing_on_red_hats_family(options: dict[str, Any], missing: list[str]) -> None:
    packages = {name: [{"name": name, "source": "rpm", **found}] for name, found in RPM.items()}
    options = {"docker_nvidia_toolkit": True, "packages": packages, **options}
    assert rendered("RedHat", "RedHat", "9", "__docker_missing", **options) == missing


def test_the_configuration() -> None:
    options = {"docker_cdi": True, "docker_daemon_options": {"log-opts": {"max-file": "9"}, "mtu": 9000}}
    assert rendered("Debian", "Ubuntu", "26", "__docker_daemon_config", **options) == {
        "live-restore": True,
        "log-driver": "json-file",
        "log-opts": {"max-size": "50m", "max-file": "9"},
        "default-address-pools": [{"base": "172.17.0.0/16", "size": 24}, {"base": "172.20.0.0/14", "size": 24}],
        "features": {"cdi": True},
        "mtu": 9000,
    }


@pytest.mark.parametrize(
    ("installed", "options", "replaced"),
    [
        ([], {}, []),
        (["docker.io", "containerd"], {}, ["containerd.io", "docker-ce"]),
        ([*VENDOR, "python3-requests"], {}, []),
        ([*VENDOR], {}, []),
        ([*VENDOR, "python3-requests"], {"docker_version": "5:30.*"}, ["docker-ce"]),
    ],
)
def test_what_would_replace_a_running_engine(
    installed: list[str], options: dict[str, Any], replaced: list[str]
) -> None:
    packages = {name: [{"version": "5:29.4.3"}] for name in installed}
    found = rendered("Debian", "Debian", "13", "__docker_replaced", packages=packages, **options)
    assert found == replaced


def refusals(system: tuple[str, str, str], **options: Any) -> list[str]:
    """What the role says of options that don't fit together."""
    loader = DataLoader()
    (task,) = loader.load_from_file(str(ROLE / "tasks" / "validate.yml"), trusted_as_template=True)
    return list(rendered(*system, "__docker_faults", **task["vars"], **options))


TOO_OLD = "an older one doesn't start containers with CDI devices again after a boot"


@pytest.mark.parametrize(
    ("system", "options", "messages"),
    [
        (("Debian", "Debian", "13"), {"docker_nvidia_toolkit": True}, []),
        (("Debian", "Ubuntu", "24"), {"docker_cdi": True, "docker_repository": "distribution"}, []),
        (
            ("Debian", "Debian", "13"),
            {"docker_nvidia_toolkit": True, "docker_repository": "distribution"},
            [
                "docker_cdi is true, but the Docker of Debian 13 is older than 28.2 and doesn't start containers with "
                "CDI devices again after a boot: set docker_repository to vendor"
            ],
        ),
        (("RedHat", "Rocky", "9"), {"docker_cdi": True, "docker_version": "3:28.*"}, []),
        (
            ("RedHat", "Rocky", "9"),
            {"docker_cdi": True, "docker_version": "3:28.1.*"},
            [f"docker_version is '3:28.1.*', wanted 28.2 or newer with docker_cdi: {TOO_OLD}"],
        ),
        (("RedHat", "Rocky", "9"), {"docker_version": "3:28.1.*"}, []),
        (
            ("Debian", "Ubuntu", "24"),
            {"docker_nvidia_toolkit": True, "docker_nvidia_toolkit_version": "1.19.0-1"},
            [
                "docker_nvidia_toolkit_version is '1.19.0-1', wanted 1.19.1 or newer: the service of an older one "
                "doesn't write the CDI specification before the engine starts at a boot"
            ],
        ),
        (("Debian", "Ubuntu", "24"), {"docker_nvidia_toolkit_version": "1.19.0-1"}, []),
        (("Debian", "Ubuntu", "24"), {"docker_nvidia_toolkit": True, "docker_nvidia_toolkit_version": "1.20.*"}, []),
    ],
)
def test_what_is_refused(system: tuple[str, str, str], options: dict[str, Any], messages: list[str]) -> None:
    assert [message.strip() for message in refusals(system, **options)] == messages


def test_the_service_that_writes_the_specification_comes_before_the_engine() -> None:
    text = (ROLE / "templates" / "nvidia-cdi-refresh.conf.j2").read_text()
    assert "\n[Unit]\nBefore=docker.service\n" in text
    assert "\nTimeoutStartSec=90s\n" in text
