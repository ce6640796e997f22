# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.gpufleet.metal.plugins.module_utils import _firewall
from ansible_collections.gpufleet.metal.plugins.module_utils._errors import InvalidInputError

SETS = {"management": ["192.0.2.0/24"], "gateways": ["198.51.100.2", "2001:db8::2"]}
INNER = "^(lo|docker[0-9]+|veth.*)$"


def rule(**changes: Any) -> dict[str, Any]:
    return {"name": "ssh", "source": "management", "protocol": "tcp", "ports": [22], **changes}


@pytest.mark.parametrize(
    ("rules", "sets", "faults"),
    [
        ([], {}, []),
        ([rule()], SETS, []),
        ([rule(source="any", ports=[1, 65535])], {}, []),
        (
            [rule(source="managment")],
            SETS,
            ["o, rule 'ssh': source is 'managment', wanted 'any' or a set of firewall_sets (gateways, management)"],
        ),
        (
            [rule()],
            {},
            ["o, rule 'ssh': source is 'management', wanted 'any' or a set of firewall_sets (there is none)"],
        ),
        ([rule(ports=[])], SETS, ["o, rule 'ssh': ports are [], wanted a list of numbers from 1 to 65535"]),
        ([rule(ports=[22, 0])], SETS, ["o, rule 'ssh': ports are [22, 0], wanted a list of numbers from 1 to 65535"]),
        ([rule(ports=[65536])], SETS, ["o, rule 'ssh': ports are [65536], wanted a list of numbers from 1 to 65535"]),
        ([rule(ports=["22"])], SETS, ["o, rule 'ssh': ports are ['22'], wanted a list of numbers from 1 to 65535"]),
        ([rule(ports="22")], SETS, ["o, rule 'ssh': ports are '22', wanted a list of numbers from 1 to 65535"]),
        ([rule(ports=22)], SETS, ["o, rule 'ssh': ports are 22, wanted a list of numbers from 1 to 65535"]),
        ([rule(name="engines (a-b), v1.0: x/y+z_")], SETS, []),
        ([rule(name="")], SETS, ["o, rule '': wanted a name of 1 to 100 letters, digits, spaces and ._/:,()+-"]),
        ([rule(name='"')], SETS, ["o, rule '\"': wanted a name of 1 to 100 letters, digits, spaces and ._/:,()+-"]),
        (
            [rule(name="x" * 101)],
            SETS,
            [f"o, rule '{'x' * 101}': wanted a name of 1 to 100 letters, digits, spaces and ._/:,()+-"],
        ),
        (
            [rule(name="a", ports=[]), rule(name="b"), rule(name="c", source="x", ports=[0])],
            {"management": []},
            [
                "o, rule 'a': ports are [], wanted a list of numbers from 1 to 65535",
                "o, rule 'c': source is 'x', wanted 'any' or a set of firewall_sets (management)",
                "o, rule 'c': ports are [0], wanted a list of numbers from 1 to 65535",
            ],
        ),
    ],
)
def test_rule_faults(rules: list[dict[str, Any]], sets: dict[str, Any], faults: list[str]) -> None:
    assert _firewall.rule_faults(rules, "o", sets) == faults


@pytest.mark.parametrize(
    ("facts", "outer"),
    [
        ({"interfaces": []}, []),
        ({"interfaces": ["lo", "eth1", "docker0", "veth1a", "eth0"]}, ["eth1", "eth0"]),
        # Anchored: the name as a whole.
        ({"interfaces": ["docker0x", "lo1"]}, ["docker0x", "lo1"]),
        # With a default route, of either family.
        ({"interfaces": ["lo", "docker0"], "default_ipv4": {"interface": "docker0"}, "default_ipv6": {}}, ["docker0"]),
        ({"interfaces": ["lo", "docker0"], "default_ipv4": {}, "default_ipv6": {"interface": "docker0"}}, ["docker0"]),
        # A bridge without members, of containers, of anything else, and one that carries the default route.
        ({"interfaces": ["br"], "br": {"type": "bridge"}}, []),
        ({"interfaces": ["br"], "br": {"type": "bridge", "interfaces": ["veth1", "veth2"]}}, []),
        ({"interfaces": ["br"], "br": {"type": "bridge", "interfaces": ["veth1", "eth0"]}}, ["br"]),
        ({"interfaces": ["br"], "br": {"type": "bridge"}, "default_ipv4": {"interface": "br"}}, ["br"]),
        ({"interfaces": ["bond0"], "bond0": {"type": "bonding", "interfaces": ["veth1"]}}, ["bond0"]),
        # The fact of a name with a dash has an underscore.
        ({"interfaces": ["my-br"], "my_br": {"type": "bridge", "interfaces": ["veth1"]}}, []),
        # The name of an interface that is the name of another fact.
        ({"interfaces": ["interfaces"]}, ["interfaces"]),
    ],
)
def test_outer_interfaces(facts: dict[str, Any], outer: list[str]) -> None:
    assert _firewall.outer_interfaces(facts, INNER) == outer


@pytest.mark.parametrize(
    ("rules", "openings"),
    [
        ([], []),
        ([rule(protocol="udp")], []),
        ([rule()], [{"ports": [22], "networks": ["192.0.2.0/24"]}]),
        ([rule(source="any", ports=[80, 443])], [{"ports": [80, 443], "networks": ["0.0.0.0/0", "::/0"]}]),
        (
            [rule(source="gateways", ports=[8000]), rule(protocol="udp"), rule()],
            [
                {"ports": [8000], "networks": ["198.51.100.2", "2001:db8::2"]},
                {"ports": [22], "networks": ["192.0.2.0/24"]},
            ],
        ),
    ],
)
def test_tcp_openings(rules: list[dict[str, Any]], openings: list[dict[str, Any]]) -> None:
    assert _firewall.tcp_openings(rules, SETS) == openings


def test_tcp_openings_of_no_set() -> None:
    with pytest.raises(InvalidInputError) as caught:
        _firewall.tcp_openings([rule(source="x")], SETS)
    assert str(caught.value) == "rule 'ssh': source is 'x', which is no set of firewall_sets"
