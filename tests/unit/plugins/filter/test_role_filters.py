# SPDX-License-Identifier: Apache-2.0
"""The filters of the roles firewall and os_hardening hand values on and turn errors into Ansible's."""

from __future__ import annotations

from typing import Any

import pytest
from ansible.errors import AnsibleFilterError

from ansible_collections.gpufleet.metal.plugins.filter import firewall, hardening

FILTERS = {**firewall.FilterModule().filters(), **hardening.FilterModule().filters()}
RULE = {"name": "ssh", "source": "any", "protocol": "tcp", "ports": [22]}
STATE = {
    "exists": True,
    "matches_file": True,
    "surplus": [],
    "missing": [],
    "accepted": ["input tcp/22"],
    "listeners": [{"protocol": "tcp", "port": 22, "processes": ["sshd"]}],
    "ssh_ports": [22],
}


@pytest.mark.parametrize(
    ("name", "arguments", "value"),
    [
        ("firewall_rule_faults", ([RULE], "firewall_input", {}), []),
        ("firewall_outer_interfaces", ({"interfaces": ["lo", "eth0"]}, "^lo$"), ["eth0"]),
        ("firewall_disagreements", (STATE, [RULE], [], {}, [], "enabled", True), []),
        ("firewall_tcp_openings", ([RULE], {}), [{"ports": [22], "networks": ["0.0.0.0/0", "::/0"]}]),
        ("sysctl_assignments_to_write", (["a.b = 0"], {"a.b": 1}), ["a.b=1"]),
        ("units_to_start", ("",), []),
    ],
)
def test_they_return(name: str, arguments: tuple[Any, ...], value: Any) -> None:
    assert FILTERS[name](*arguments) == value


def test_these_are_all() -> None:
    assert sorted(FILTERS) == [
        "firewall_disagreements",
        "firewall_outer_interfaces",
        "firewall_routed_faults",
        "firewall_rule_faults",
        "firewall_tcp_openings",
        "sysctl_assignments_to_write",
        "units_to_start",
    ]


def test_they_translate_errors() -> None:
    with pytest.raises(AnsibleFilterError, match="rule 'ssh': source is 'x', which is no set of firewall_sets"):
        FILTERS["firewall_tcp_openings"]([{**RULE, "source": "x"}], {})
