# SPDX-License-Identifier: Apache-2.0
"""The filter hands the engine's state on and refuses what is none."""

from __future__ import annotations

import pytest
from ansible.errors import AnsibleFilterError

from ansible_collections.gpufleet.metal.plugins.filter.docker_address_pools import FilterModule

FILTER = FilterModule().filters()["docker_address_pools"]


def test_it_reads_pools() -> None:
    assert FILTER({"DefaultAddressPools": [{"Base": "172.17.0.0/16", "Size": 24}]}) == [
        {"base": "172.17.0.0/16", "size": 24}
    ]


def test_it_refuses() -> None:
    with pytest.raises(AnsibleFilterError) as caught:
        FILTER("{}")
    assert str(caught.value) == "wanted what docker info prints as JSON, found '{}'"
