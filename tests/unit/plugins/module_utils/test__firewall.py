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
    ("option", "ports", "faults"),
    [
        ("firewall_input", [], []),
        (
            "firewall_input",
            [112],
            ["firewall_input, rule 'v': ports are [112], wanted an empty list: VRRP has no ports"],
        ),
        (
            "firewall_forward",
            [],
            ["firewall_forward, rule 'v': protocol is 'vrrp', wanted tcp or udp: nothing translates VRRP"],
        ),
    ],
)
def test_vrrp_has_no_ports(option: str, ports: list[int], faults: list[str]) -> None:
    assert _firewall.rule_faults([rule(name="v", protocol="vrrp", ports=ports)], option, SETS) == faults


@pytest.mark.parametrize(
    ("changes", "faults"),
    [
        ({}, []),
        (
            {"source": "any"},
            ["o, rule 'pods': source is 'any', wanted a set of firewall_sets (gateways, management)"],
        ),
        (
            {"destination": "pods", "name": ""},
            [
                "o, rule '': destination is 'pods', wanted a set of firewall_sets (gateways, management)",
                "o, rule '': wanted a name of 1 to 100 letters, digits, spaces and ._/:,()+-",
            ],
        ),
    ],
)
def test_what_is_routed_goes_from_a_set_to_a_set(changes: dict[str, Any], faults: list[str]) -> None:
    rules = [{"name": "pods", "source": "gateways", "destination": "management", **changes}]
    assert _firewall.routed_faults(rules, "o", SETS) == faults


def test_rules_without_ports_open_no_port() -> None:
    rules = [*RULES, rule(name="VRRP", protocol="vrrp", ports=[])]
    found = _firewall.disagreements(state(), rules, FORWARD, SETS, [], "enabled", listeners_expected=True)
    assert found == []


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


RUN = "run gpufleet.metal.hardening to put the planned table in place again"


def state(**changes: Any) -> dict[str, Any]:
    """What nft_table_info says of a gateway whose rules are RULES."""
    return {
        "exists": True,
        "matches_file": True,
        "surplus": [],
        "missing": [],
        "accepted": ["forward tcp/8000", "input tcp/22", "input tcp/443", "input udp/68", "input udp/546"],
        "listeners": [
            listener(22, "sshd"),
            listener(443, "nginx"),
            listener(8000, "docker-proxy"),
            listener(9100, "x"),
        ],
        "ssh_ports": [22],
        **changes,
    }


def listener(port: int, *processes: str, protocol: str = "tcp") -> dict[str, Any]:
    return {"protocol": protocol, "port": port, "processes": list(processes)}


RULES = [rule(), rule(name="https", source="any", ports=[443])]
FORWARD = [rule(name="engines", source="gateways", ports=[8000])]


@pytest.mark.parametrize(
    ("changes", "faults"),
    [
        ({}, []),
        (
            {"exists": False, "matches_file": False, "missing": ["a", "b"], "accepted": []},
            [
                f"there is no table, wanted the planned one: {RUN}",
                f"tcp/22 is closed, wanted open by the rule 'ssh'; {RUN}",
                f"tcp/443 is closed, wanted open by the rule 'https'; {RUN}",
                f"tcp/8000 is closed, wanted open by the rule 'engines'; {RUN}",
            ],
        ),
        ({"matches_file": False}, [f"the next boot would load other rules than those that are live; {RUN}"]),
        # A port opened by hand, with a process behind it.
        (
            {"surplus": ["tcp dport 9100 accept"], "accepted": [*state()["accepted"], "input tcp/9100"]},
            [
                f"the live table has, and was not planned: 'tcp dport 9100 accept'; {RUN}",
                f"tcp/9100 is open and no rule plans it (x listens on tcp/9100), wanted closed; {RUN}",
            ],
        ),
        (
            {"accepted": [*state()["accepted"], "input tcp/9000-9200", "input udp/53", "forward tcp/8080"]},
            [
                f"tcp/9000-9200 is open and no rule plans it (x listens on tcp/9100), wanted closed; {RUN}",
                f"udp/53 is open and no rule plans it (nobody listens there), wanted closed; {RUN}",
                f"tcp/8080 of containers is open and no rule plans it (nobody listens there), wanted closed; {RUN}",
            ],
        ),
        # A rule that lets in everything has no port; the listing has it.
        (
            {"surplus": [f"line {number}" for number in range(7)], "missing": ["tcp dport 443 accept"]},
            [
                (
                    "the live table has, and was not planned: 'line 0', 'line 1', 'line 2', 'line 3', 'line 4' "
                    f"and 2 more; {RUN}"
                ),
                f"the live table lacks: 'tcp dport 443 accept'; {RUN}",
            ],
        ),
        # sshd moved away from the port that is open; connections that exist go on.
        (
            {"ssh_ports": [2222]},
            [
                (
                    "sshd listens on tcp/2222, which no rule opens, wanted a rule for one of these: set ansible_port "
                    "to the port of sshd and run gpufleet.metal.hardening, or bring sshd back to a port that is open"
                )
            ],
        ),
        ({"ssh_ports": [22, 2222]}, []),
        # Reached by another way than ssh, and no sshd is here.
        ({"ssh_ports": []}, []),
    ],
)
def test_disagreements(changes: dict[str, Any], faults: list[str]) -> None:
    found = _firewall.disagreements(state(**changes), RULES, FORWARD, SETS, [], "enabled", listeners_expected=False)
    assert found == faults


@pytest.mark.parametrize(
    ("listeners", "silent"),
    [
        (state()["listeners"], []),
        ([listener(22, "sshd"), listener(8000, "docker-proxy")], ["tcp/443 is open by the rule 'https'"]),
        # Another protocol is another port.
        (
            [listener(22, "sshd"), listener(443, "x", protocol="udp"), listener(8000, "docker-proxy")],
            ["tcp/443 is open by the rule 'https'"],
        ),
        # Docker's proxy is in use, as another port of it shows; without it nobody can tell from the sockets.
        (
            [listener(22, "sshd"), listener(443, "nginx"), listener(8001, "docker-proxy")],
            ["tcp/8000 is open by the rule 'engines'"],
        ),
        ([listener(22, "sshd"), listener(443, "nginx")], []),
    ],
)
def test_somebody_listens_on_every_port_where_all_is_deployed(listeners: list[Any], silent: list[str]) -> None:
    changed = state(listeners=listeners)
    assert _firewall.disagreements(changed, RULES, FORWARD, SETS, [], "enabled", listeners_expected=True) == [
        (
            f"{what} and nobody listens there, wanted the service that the rule is for: look at 'systemctl --failed' "
            f"and 'docker ps --all', or take the rule out"
        )
        for what in silent
    ]
    assert _firewall.disagreements(changed, RULES, FORWARD, SETS, [], "enabled", listeners_expected=False) == []


def test_a_rule_for_nobody_opens_no_ssh() -> None:
    sets = {**SETS, "management": []}
    found = _firewall.disagreements(state(), RULES, FORWARD, sets, [], "enabled", listeners_expected=False)
    assert [fault.partition(",")[0] for fault in found] == ["sshd listens on tcp/22"]


@pytest.mark.parametrize(("boot", "found"), [("disabled", "disabled"), ("", "not installed")])
def test_the_table_comes_back_at_boot_and_nobody_else_drops(boot: str, found: str) -> None:
    faults = _firewall.disagreements(state(), RULES, FORWARD, SETS, ["ufw is active"], boot, listeners_expected=False)
    assert faults == [
        f"gpufleet-firewall.service is {found}, wanted enabled: {RUN}",
        "ufw is active, and would drop what this table accepts, wanted none: set firewall_stop_others",
    ]
