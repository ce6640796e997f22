# SPDX-License-Identifier: Apache-2.0
"""Who asks a registry about a login: the Docker engine, or the host itself in containerd's place."""

from __future__ import annotations

from typing import Any
from unittest import mock

import pytest

from ansible_collections.gpufleet.metal.plugins.module_utils._errors import InvalidInputError
from ansible_collections.gpufleet.metal.plugins.modules import registry_login_info

LOGIN = {"username": "pull-1", "password": "canary"}
OPTIONS: dict[str, Any] = {"registry": "r.example:5000", "docker_socket": "/run/d.sock", "url": None, "ca_path": None}


@pytest.mark.parametrize(
    ("status", "found"), [(200, 200), (401, 401), (500, "the engine answered 500 (no route to host)")]
)
def test_the_docker_engine_asks(status: int, found: int | str) -> None:
    with mock.patch.object(registry_login_info, "DockerClient") as client:
        client.return_value.login_status.return_value = (status, "no route to host")
        assert registry_login_info.asker(OPTIONS)(LOGIN) == found
    client.assert_called_once_with("/run/d.sock")
    client.return_value.login_status.assert_called_once_with({**LOGIN, "serveraddress": "r.example:5000"})


def test_the_host_asks_where_containerd_does() -> None:
    options = {**OPTIONS, "url": "https://m.example/v2/r.example", "ca_path": "/etc/ca.crt"}
    with (
        mock.patch.object(registry_login_info, "DockerClient") as client,
        mock.patch.object(registry_login_info, "login_status", return_value=401) as asked,
    ):
        assert registry_login_info.asker(options)(LOGIN) == 401
    client.assert_not_called()
    target, username, password = asked.call_args.args
    assert (target.url, target.ca_path, username, password) == (
        "https://m.example/v2",
        "/etc/ca.crt",
        "pull-1",
        "canary",
    )


def test_an_address_that_says_nothing_about_logins() -> None:
    with pytest.raises(InvalidInputError, match="wanted one without a path or with /v2 in it"):
        registry_login_info.asker({**OPTIONS, "url": "https://m.example/mirror"})
