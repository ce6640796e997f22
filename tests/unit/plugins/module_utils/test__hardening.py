# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.gpufleet.metal.plugins.module_utils import _hardening
from ansible_collections.gpufleet.metal.plugins.module_utils._errors import FleetError


@pytest.mark.parametrize(
    ("lines", "wanted", "assignments"),
    [
        ([], {"kernel.kptr_restrict": 1}, []),
        (["kernel.kptr_restrict = 1"], {}, []),
        (["kernel.kptr_restrict = 1"], {"kernel.kptr_restrict": 1}, []),
        (["kernel.kptr_restrict = 0"], {"kernel.kptr_restrict": 1}, ["kernel.kptr_restrict=1"]),
        (["kernel.kptr_restrict = 0"], {"kernel.kptr_restrict": "1"}, ["kernel.kptr_restrict=1"]),
        # A name is the whole key, and its dots are dots.
        (["kernel.kptr_restrict2 = 0", "a.kernel.kptr_restrict = 0"], {"kernel.kptr_restrict": 1}, []),
        (["kernelxkptr_restrict = 0"], {"kernel.kptr_restrict": 1}, []),
        # The kernel separates with tabs, people with spaces.
        (["net.ipv4.tcp_rmem = 4096\t131072\t6291456"], {"net.ipv4.tcp_rmem": "4096 131072 6291456"}, []),
        (["net.ipv4.tcp_rmem = 4096\t1\t2"], {"net.ipv4.tcp_rmem": "4096 1 3"}, ["net.ipv4.tcp_rmem=4096 1 3"]),
        # A value may hold the separator, or be empty.
        (["kernel.core_pattern = |/bin/x a = b"], {"kernel.core_pattern": "|/bin/x a = b"}, []),
        (["kernel.domainname = "], {"kernel.domainname": "x"}, ["kernel.domainname=x"]),
        (["kernel.domainname ="], {"kernel.domainname": "x"}, []),
        # A star is one part of a key; an interface with a VLAN has a slash in it.
        (
            [
                "net.ipv4.conf.all.rp_filter = 0",
                "net.ipv4.conf.eth0.rp_filter = 2",
                "net.ipv4.conf.eth0/100.rp_filter = 1",
                "net.ipv4.conf.a.b.rp_filter = 1",
            ],
            {"net.ipv4.conf.*.rp_filter": 2},
            ["net.ipv4.conf.all.rp_filter=2", "net.ipv4.conf.eth0/100.rp_filter=2"],
        ),
        # A key that is named outright is none of the star's, as for systemd-sysctl; two values would flip on each run.
        (
            ["net.ipv4.conf.eth0.rp_filter = 1", "net.ipv4.conf.eth1.rp_filter = 1"],
            {"net.ipv4.conf.*.rp_filter": 2, "net.ipv4.conf.eth0.rp_filter": 1},
            ["net.ipv4.conf.eth1.rp_filter=2"],
        ),
        # In the order of the live values.
        (["b.b = 0", "a.a = 0"], {"a.a": 1, "b.b": 2}, ["b.b=2", "a.a=1"]),
    ],
)
def test_sysctl_assignments(lines: list[str], wanted: dict[str, Any], assignments: list[str]) -> None:
    assert _hardening.sysctl_assignments(lines, wanted) == assignments


def block(**changes: str) -> str:
    properties = {
        "Id": "chrony.service",
        "UnitFileState": "enabled",
        "ActiveState": "active",
        "ConditionResult": "yes",
        "ConditionTimestampMonotonic": "5",
        **changes,
    }
    return "\n".join(f"{name}={value}" for name, value in properties.items())


@pytest.mark.parametrize(
    ("blocks", "units"),
    [
        ([], []),
        ([block()], []),
        ([block(UnitFileState="static")], []),
        ([block(UnitFileState="disabled")], ["chrony.service"]),
        ([block(UnitFileState="masked")], ["chrony.service"]),
        ([block(ActiveState="failed")], ["chrony.service"]),
        # systemd declined to start it.
        ([block(ActiveState="inactive", ConditionResult="no")], []),
        ([block(ActiveState="inactive", ConditionResult="no", UnitFileState="disabled")], ["chrony.service"]),
        # Nobody tried to start it yet.
        ([block(ActiveState="inactive", ConditionResult="no", ConditionTimestampMonotonic="0")], ["chrony.service"]),
        # Not installed.
        (
            [block(UnitFileState="", ActiveState="inactive", ConditionResult="no", ConditionTimestampMonotonic="0")],
            ["chrony.service"],
        ),
        (
            [block(Id="b.timer", ActiveState="inactive"), block(), block(Id="a.timer", UnitFileState="disabled")],
            ["b.timer", "a.timer"],
        ),
    ],
)
def test_units_to_start(blocks: list[str], units: list[str]) -> None:
    assert _hardening.units_to_start("\n\n".join(blocks)) == units


def test_units_to_start_without_a_property() -> None:
    with pytest.raises(FleetError) as caught:
        _hardening.units_to_start("Id=chrony.service\nUnitFileState=enabled")
    assert str(caught.value) == (
        "'systemctl show' printed 'Id=chrony.service\\nUnitFileState=enabled', wanted the property ActiveState too"
    )
