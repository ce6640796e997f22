# SPDX-License-Identifier: Apache-2.0
"""The shell around _docker_daemon.overlaps."""

from __future__ import annotations

from typing import Any

import pytest
from ansible.errors import AnsibleFilterError

from ansible_collections.gpufleet.metal.plugins.filter.network_overlaps import FilterModule

FILTER = FilterModule().filters()["network_overlaps"]


def test_overlaps() -> None:
    assert FILTER(["172.17.0.0/16", "10.244.8.0/24"], ["10.244.0.0/16"]) == ["10.244.8.0/24 overlaps 10.244.0.0/16"]


@pytest.mark.parametrize(
    ("networks", "message"),
    [
        ("172.17.0.0/16", "wanted a list of networks, found '172.17.0.0/16'"),
        (["x"], "'x' isn't a network: 'x' does not appear to be an IPv4 or IPv6 network"),
    ],
)
def test_refusals(networks: Any, message: str) -> None:
    with pytest.raises(AnsibleFilterError) as raised:
        FILTER(networks, [])
    assert str(raised.value) == message
