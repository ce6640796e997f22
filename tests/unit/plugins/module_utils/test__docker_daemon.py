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
