# SPDX-License-Identifier: Apache-2.0
"""The filter hands lists on and turns errors into Ansible's."""

from __future__ import annotations

from typing import Any

import pytest
from ansible.errors import AnsibleFilterError

from ansible_collections.gpufleet.metal.plugins.filter.networks_of_family import FilterModule


def test_it_picks_a_family() -> None:
    networks = FilterModule().filters()["networks_of_family"]
    assert networks(["192.0.2.1", "2001:db8::/32"], 6) == ["2001:db8::/32"]


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ("192.0.2.1", "wanted a list of addresses and networks, found '192.0.2.1'"),
        ({"a": 1}, "wanted a list of addresses and networks, found {'a': 1}"),
        (["x/y"], "'x/y' is not an address or a network: 'x/y' does not appear to be an IPv4 or IPv6 network"),
    ],
)
def test_it_refuses(members: Any, message: str) -> None:
    with pytest.raises(AnsibleFilterError) as caught:
        FilterModule().filters()["networks_of_family"](members, 4)
    assert str(caught.value) == message
