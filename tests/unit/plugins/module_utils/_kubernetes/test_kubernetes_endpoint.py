# SPDX-License-Identifier: Apache-2.0
"""What may be asked of the API server's address, where it goes, and what is found wrong with it."""

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.gpufleet.metal.plugins.module_utils._errors import InvalidInputError
from ansible_collections.gpufleet.metal.plugins.module_utils._kubernetes import endpoint

INTERFACES = {"lo": ["127.0.0.1/8"], "eth0": ["192.0.2.11/24"], "eth1": ["198.51.100.7/24"], "eth2": []}
PLANES = [{"name": f"cp-{number}", "address": f"192.0.2.1{number}"} for number in (1, 2, 3)]


def options(**changes: Any) -> dict[str, Any]:
    return {
        "virtual_address": "192.0.2.10",
        "address": "192.0.2.11",
        "control_planes": PLANES,
        "priority": 150,
        "port": 8443,
        "api_server_port": 6443,
        "health_port": 8444,
        "router_id": None,
        "max_connections": 4000,
        **changes,
    }


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({}, []),
        ({"priority": 101, "router_id": 255, "control_planes": PLANES[:1]}, []),
        ({"priority": 200, "router_id": 1}, []),
        ({"priority": 100}, ["kubernetes_endpoint_priority is 100, wanted a number from 101 to 200"]),
        ({"priority": 201}, ["kubernetes_endpoint_priority is 201, wanted a number from 101 to 200"]),
        ({"router_id": 0}, ["kubernetes_endpoint_router_id is 0, wanted a number from 1 to 255"]),
        ({"router_id": 256}, ["kubernetes_endpoint_router_id is 256, wanted a number from 1 to 255"]),
        ({"port": 65536}, ["kubernetes_endpoint_port is 65536, wanted a number from 1 to 65535"]),
        ({"max_connections": 0}, ["kubernetes_endpoint_max_connections is 0, wanted a number from 1 to 1000000"]),
        (
            {"port": 6443},
            ["kubernetes_endpoint_api_server_port is 6443, as is kubernetes_endpoint_port, wanted ports apart"],
        ),
        (
            {"health_port": 8443},
            ["kubernetes_endpoint_health_port is 8443, as is kubernetes_endpoint_port, wanted ports apart"],
        ),
        (
            {"virtual_address": "2001:db8::1"},
            ["kubernetes_endpoint_virtual_address is '2001:db8::1', wanted an IPv4 address"],
        ),
        (
            {"control_planes": [*PLANES, {"name": "cp-4", "address": "cp-4.example.org"}]},
            ["kubernetes_endpoint_control_planes, cp-4 is 'cp-4.example.org', wanted an IPv4 address"],
        ),
        (
            {"control_planes": [*PLANES, {"name": "cp-1", "address": "192.0.2.12"}]},
            [
                "kubernetes_endpoint_control_planes has the name 'cp-1' 2 times, wanted it once",
                "kubernetes_endpoint_control_planes has the address '192.0.2.12' 2 times, wanted it once",
            ],
        ),
        (
            {"address": "198.51.100.7"},
            [
                "kubernetes_endpoint_address is '198.51.100.7', wanted the address of one of "
                "kubernetes_endpoint_control_planes"
            ],
        ),
        (
            {"virtual_address": "192.0.2.12"},
            ["kubernetes_endpoint_virtual_address is '192.0.2.12', the address of cp-2, wanted a free one"],
        ),
        (
            {"address": "192.0.2.12"},
            [
                "kubernetes_endpoint_address is '192.0.2.12', wanted an address of this host, which has "
                "127.0.0.1 (lo), 192.0.2.11 (eth0), 198.51.100.7 (eth1)"
            ],
        ),
        (
            {"virtual_address": "198.51.100.10"},
            [
                "kubernetes_endpoint_virtual_address is '198.51.100.10', wanted a free address of 192.0.2.0/24, "
                "the network of 192.0.2.11 (eth0)"
            ],
        ),
        (
            {"virtual_address": "192.0.2.255"},
            [
                "kubernetes_endpoint_virtual_address is '192.0.2.255', which 192.0.2.0/24 has for itself, "
                "wanted a free address of a host"
            ],
        ),
    ],
)
def test_faults(changes: dict[str, Any], found: list[str]) -> None:
    assert endpoint.faults(options(**changes), INTERFACES) == found


def test_every_healthy_host_is_above_every_other_one() -> None:
    """The template takes 100 from the priority of a host that knows no API server."""
    least, most = endpoint.PRIORITIES
    assert least > most - 100 > 0
    assert least - 100 > 0


@pytest.mark.parametrize(
    ("changes", "interfaces", "expected"),
    [
        ({}, INTERFACES, {"interface": "eth0", "prefix": 24, "router_id": 10, "held": False}),
        ({"router_id": 77}, INTERFACES, {"router_id": 77}),
        # One that holds it, as keepalived adds it.
        ({}, {"bond0": ["192.0.2.11/24", "192.0.2.10/24"]}, {"interface": "bond0", "held": True}),
        ({}, {"bond0": ["192.0.2.11/24"], "eth9": ["192.0.2.10/32"]}, {"interface": "bond0", "held": True}),
        ({"virtual_address": "192.0.3.0"}, {"eth0": ["192.0.2.11/22"]}, {"prefix": 22, "router_id": 255}),
    ],
)
def test_place(changes: dict[str, Any], interfaces: dict[str, list[str]], expected: dict[str, Any]) -> None:
    found = endpoint.place(options(**changes), interfaces)
    assert found.items() >= expected.items()
    assert found["peers"] == ["192.0.2.12", "192.0.2.13"]


def test_place_of_a_single_control_plane_has_no_peers() -> None:
    assert endpoint.place(options(control_planes=PLANES[:1]), INTERFACES)["peers"] == []


def test_no_place() -> None:
    with pytest.raises(InvalidInputError, match=r"wanted an address of this host, which has 192\.0\.2\.99 "):
        endpoint.place(options(), {"eth0": ["192.0.2.99/24"]})


WELL: dict[str, Any] = {
    "units": {"haproxy.service": "enabled active", "keepalived.service": "enabled active"},
    "judged": {"haproxy": "accepted", "keepalived": "accepted"},
    "build": "0123",
    "servers": {"cp-1": "UP", "cp-2": "UP", "cp-3": "UP"},
    "ready": "ok",
}
ONE = {"cp-1": False, "cp-2": True, "cp-3": False}
AGAIN = "run gpufleet.metal.kubernetes"


@pytest.mark.parametrize(
    ("changes", "files", "holders", "found"),
    [
        ({}, [], ONE, []),
        # With --limit: the others were not looked at.
        ({}, [], {"cp-1": False}, []),
        (
            {"units": {"haproxy.service": "enabled failed", "keepalived.service": "disabled active"}},
            [],
            ONE,
            [
                "haproxy.service is enabled failed, wanted enabled active",
                "keepalived.service is disabled active, wanted enabled active",
            ],
        ),
        ({"judged": {"haproxy": "line 3"}}, [], ONE, ["haproxy refuses its configuration: line 3"]),
        ({}, ["/etc/a"], ONE, [f"/etc/a is not as the role writes it; {AGAIN}"]),
        ({"build": "4567"}, [], ONE, [f"HAProxy serves the configuration 4567, wanted 0123; {AGAIN}"]),
        (
            {"servers": {"cp-1": "UP", "cp-2": "DOWN (L4TOUT )"}},
            [],
            ONE,
            [
                "HAProxy finds the API server of cp-2 (192.0.2.12) DOWN (L4TOUT ), wanted UP",
                "HAProxy finds the API server of cp-3 (192.0.2.13) unknown to it, wanted UP",
            ],
        ),
        ({"ready": "503 no"}, [], ONE, ["https://192.0.2.10:8443/readyz: 503 no, wanted ok"]),
        (
            {},
            [],
            {"cp-1": True, "cp-2": True, "cp-3": False},
            ["192.0.2.10 is held by cp-1 and cp-2, wanted one: VRRP (protocol 112) does not reach them"],
        ),
        (
            {},
            [],
            {"cp-1": False, "cp-2": False, "cp-3": False},
            ["192.0.2.10 is held by none of cp-1, cp-2, cp-3, wanted one: see journalctl -u keepalived"],
        ),
    ],
)
def test_disagreements(changes: dict[str, Any], files: list[str], holders: dict[str, bool], found: list[str]) -> None:
    assert endpoint.disagreements(options(), {**WELL, **changes}, "0123", files, holders) == found
