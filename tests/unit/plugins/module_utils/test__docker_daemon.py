# SPDX-License-Identifier: Apache-2.0
"""What a new daemon.json means for a running engine."""

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.gpufleet.metal.plugins.module_utils import _docker_daemon
from ansible_collections.gpufleet.metal.plugins.module_utils._errors import FleetError, InvalidInputError

PATH = "/etc/docker/daemon.json"


@pytest.mark.parametrize(
    ("before", "after", "keys", "action"),
    [
        (None, {}, [], "none"),
        (None, {"live-restore": True}, ["live-restore"], "reload"),
        ("", {"live-restore": True}, ["live-restore"], "reload"),
        ('{"live-restore": true}', {"live-restore": True}, [], "none"),
        ('{"live-restore": true, "debug": true}', {"live-restore": True}, ["debug"], "reload"),
        ('{"debug": null}', {}, ["debug"], "reload"),
        ('{"log-driver": "journald"}', {"log-driver": "json-file"}, ["log-driver"], "restart"),
        ("{}", {"labels": ["a"], "log-opts": {"max-file": "3"}}, ["labels", "log-opts"], "restart"),
        ("not json", {"mtu": 1400}, ["mtu"], "restart"),
        ("[1]", {"mtu": 1400}, ["mtu"], "restart"),
        ('{"unheard-of": 1}', {}, ["unheard-of"], "restart"),
        # The engine registers CDI when it starts.
        ("{}", {"features": {"cdi": True}}, ["features"], "restart"),
    ],
)
def test_what_changes(before: str | None, after: dict[str, Any], keys: list[str], action: str) -> None:
    found = _docker_daemon.changed_keys(before, after)
    assert (found, _docker_daemon.activation(found)) == (keys, action)


@pytest.mark.parametrize(
    ("keys", "containers", "message"),
    [
        (
            ["labels", "log-driver"],
            ["b"],
            (
                "the Docker engine must be restarted (/etc/docker/daemon.json changes log-driver) "
                "and 1 container runs (b): "
                "set docker_restart_allowed to true to allow it; nothing was changed"
            ),
        ),
        (
            ["log-driver", "mtu"],
            ["f", "e", "d", "c", "b", "a"],
            (
                "the Docker engine must be restarted (/etc/docker/daemon.json changes log-driver, mtu) "
                "and 6 containers run "
                "(a, b, c, d, e, ...): set docker_restart_allowed to true to allow it; nothing was changed"
            ),
        ),
        (
            [],
            ["a", "b"],
            (
                "the Docker engine must be restarted (an earlier change still waits for it) "
                "and 2 containers run (a, b): "
                "set docker_restart_allowed to true to allow it; nothing was changed"
            ),
        ),
    ],
)
def test_a_restart_under_containers_needs_consent(keys: list[str], containers: list[str], message: str) -> None:
    with pytest.raises(_docker_daemon.RestartRefusedError) as raised:
        _docker_daemon.refuse_restart(PATH, keys, containers, allowed=False)
    assert str(raised.value) == message
    _docker_daemon.refuse_restart(PATH, keys, containers, allowed=True)
    _docker_daemon.refuse_restart(PATH, keys, [], allowed=False)


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("Docker version 20.10.24+dfsg1, build 297e128\n", (20, 10)),
        ("Docker version 29.4.3, build 1234567", (29, 4)),
    ],
)
def test_version(text: str, version: tuple[int, int]) -> None:
    assert _docker_daemon.version_of(text) == version


def test_no_version() -> None:
    with pytest.raises(FleetError, match=r"^dockerd --version said 'podman', wanted 'Docker version MAJOR.MINOR...'$"):
        _docker_daemon.version_of("podman\n")


def test_keys_of_an_engine_that_cannot_validate() -> None:
    _docker_daemon.check_keys({"live-restore": True, "default-address-pools": []}, (20, 10))
    with pytest.raises(InvalidInputError) as raised:
        _docker_daemon.check_keys({"live-restor": True, "cdi-spec-dirs": []}, (20, 10))
    assert str(raised.value) == (
        "Docker 20.10 doesn't know the configuration key 'cdi-spec-dirs', 'live-restor' (docker_daemon_options)"
    )


@pytest.mark.parametrize(
    ("networks", "reserved", "found"),
    [
        (["172.17.0.0/16"], ["10.244.0.0/16", "10.96.0.0/12"], []),
        (["10.100.0.0/24"], ["10.244.0.0/16", "10.96.0.0/12"], ["10.100.0.0/24 overlaps 10.96.0.0/12"]),
        (["10.0.0.0/8"], ["10.244.0.0/16"], ["10.0.0.0/8 overlaps 10.244.0.0/16"]),
        (["fd00::/64", "172.17.0.0/16"], ["fd00::/8"], ["fd00::/64 overlaps fd00::/8"]),
    ],
)
def test_overlaps(networks: list[str], reserved: list[str], found: list[str]) -> None:
    assert _docker_daemon.overlaps(networks, reserved) == found


def test_what_is_no_network() -> None:
    with pytest.raises(InvalidInputError) as raised:
        _docker_daemon.overlaps(["172.17.0.1/16"], [])
    assert str(raised.value) == "'172.17.0.1/16' isn't a network: 172.17.0.1/16 has host bits set"


def test_render_is_stable() -> None:
    assert _docker_daemon.render({"b": 1, "a": [2]}) == '{\n  "a": [\n    2\n  ],\n  "b": 1\n}\n'


@pytest.mark.parametrize(
    ("info", "pools"),
    [
        ({}, []),
        ({"DefaultAddressPools": None}, []),
        ({"DefaultAddressPools": []}, []),
        (
            {"DefaultAddressPools": [{"Base": "172.20.0.0/14", "Size": 24}, {"Base": "172.17.0.0/16", "Size": 24}]},
            [{"base": "172.20.0.0/14", "size": 24}, {"base": "172.17.0.0/16", "size": 24}],
        ),
    ],
)
def test_address_pools(info: dict[str, Any], pools: list[dict[str, Any]]) -> None:
    assert _docker_daemon.address_pools(info) == pools


OPTIONS = {"live-restore": True, "log-opts": {"max-size": "50m"}, "features": {"cdi": True}}


@pytest.mark.parametrize(
    ("before", "own"),
    [
        (None, []),
        (" \n", []),
        ("{}", []),
        ('{"log-opts": {"max-size": "1m"}, "live-restore": false, "features": {}}', []),
        ('{"labels": ["a"], "log-opts": {"max-file": "3"}}', ["labels", "log-opts.max-file"]),
    ],
)
def test_a_file_without_settings_of_somebody_else(before: str | None, own: list[str]) -> None:
    _docker_daemon.refuse_foreign(PATH, before, OPTIONS, own)


@pytest.mark.parametrize(
    ("before", "own", "message"),
    [
        (
            '{"data-root": "/data", "runtimes": {"nvidia": {"path": "x"}}, "live-restore": false}',
            ["labels"],
            "/etc/docker/daemon.json sets data-root, runtimes.nvidia, which the new configuration lacks and "
            "somebody else wrote: set that in docker_daemon_options, or remove it from /etc/docker/daemon.json; "
            "nothing was changed",
        ),
        (
            '{"features": {"cdi": false, "buildkit": true}}',
            [],
            "/etc/docker/daemon.json sets features.buildkit, which the new configuration lacks and somebody else "
            "wrote: set that in docker_daemon_options, or remove it from /etc/docker/daemon.json; nothing was changed",
        ),
        (
            "{]",
            [],
            "/etc/docker/daemon.json isn't JSON (Expecting property name enclosed in double quotes: line 1 column 2 "
            "(char 1)), so that nobody can tell what it sets: correct or remove it; nothing was changed",
        ),
        ("[1]", [], "/etc/docker/daemon.json isn't a JSON object: correct or remove it; nothing was changed"),
    ],
)
def test_settings_of_somebody_else_are_not_dropped(before: str, own: list[str], message: str) -> None:
    with pytest.raises(FleetError) as raised:
        _docker_daemon.refuse_foreign(PATH, before, OPTIONS, own)
    assert str(raised.value) == message


@pytest.mark.parametrize("version", [(28, 2), (28, 10), (29, 0)])
def test_an_engine_that_brings_containers_with_cdi_devices_back(version: tuple[int, int]) -> None:
    _docker_daemon.check_cdi("the running engine", version)


def test_an_engine_that_loses_containers_with_cdi_devices() -> None:
    with pytest.raises(FleetError) as raised:
        _docker_daemon.check_cdi("the running engine", (28, 1))
    assert str(raised.value) == (
        "the running engine is Docker 28.1, wanted 28.2 or newer: an older one doesn't start containers with CDI "
        "devices again after a boot (docker_cdi, docker_version)"
    )


@pytest.mark.parametrize(
    ("wanted", "too_old"),
    [
        ("5:26.1.5", True),
        ("26.*", True),
        ("5:28.1.*", True),
        ("28.1.1-1.el9", True),
        ("28.*", False),
        ("5:28.*", False),
        ("5:28.2.*", False),
        ("3:29.4.3", False),
        ("29*", False),
        ("*", False),
    ],
)
def test_versions_that_are_all_too_old_for_cdi(wanted: str, too_old: bool) -> None:
    assert _docker_daemon.too_old_for_cdi(wanted) is too_old
