# SPDX-License-Identifier: Apache-2.0
"""Two halves of a fleet, each of which serves every model."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from ansible_collections.gpufleet.metal.plugins.module_utils._errors import InvalidInputError
from ansible_collections.gpufleet.metal.plugins.module_utils._plan.halves import upstream_halves


def upstreams(**models: str) -> list[dict[str, Any]]:
    """Upstreams by model: ``a="1 2"`` runs on gpu-1 and gpu-2."""
    return [
        {"name": model, "servers": [{"name": f"gpu-{host}/{model}-0"} for host in hosts.split()]}
        for model, hosts in models.items()
    ]


@pytest.mark.parametrize(
    ("models", "halves"),
    [
        ({}, [[], []]),
        ({"a": "1 2"}, [["gpu-1"], ["gpu-2"]]),
        ({"a": "1 1 2 2"}, [["gpu-1"], ["gpu-2"]]),
        ({"a": "1 2 3 10"}, [["gpu-1", "gpu-3"], ["gpu-2", "gpu-10"]]),
        ({"a": "1 2", "b": "3 4"}, [["gpu-1", "gpu-3"], ["gpu-2", "gpu-4"]]),
        ({"a": "1 3", "b": "1 2", "c": "2 4"}, [["gpu-1", "gpu-4"], ["gpu-2", "gpu-3"]]),
    ],
)
def test_halves(models: dict[str, str], halves: list[list[str]]) -> None:
    assert upstream_halves(upstreams(**models)) == halves


@pytest.mark.parametrize(
    ("models", "message"),
    [
        (
            {"a": "1 2", "b": "2", "c": "3 3"},
            "models run on one host only: b on gpu-2, c on gpu-3; wanted each on two hosts or more",
        ),
        (
            {"a": "1 2", "b": "2 3", "c": "1 3"},
            "found no two halves of gpu-1, gpu-2, gpu-3 that serve every model each; "
            "wanted more replicas, on other hosts",
        ),
    ],
)
def test_what_cannot_be_halved_is_named(models: dict[str, str], message: str) -> None:
    with pytest.raises(InvalidInputError) as raised:
        upstream_halves(upstreams(**models))
    assert str(raised.value) == message


@given(st.dictionaries(st.sampled_from("abcd"), st.sets(st.integers(1, 9), min_size=2), min_size=1))
def test_each_half_serves_every_model(models: dict[str, set[int]]) -> None:
    """Where there are halves, they are disjoint, complete, and each has every model."""
    try:
        first, second = upstream_halves(upstreams(**{name: " ".join(map(str, of)) for name, of in models.items()}))
    except InvalidInputError:
        assume(False)
    assert set(first).isdisjoint(second)
    assert {*first, *second} == {f"gpu-{host}" for hosts in models.values() for host in hosts}
    for hosts in models.values():
        names = {f"gpu-{host}" for host in hosts}
        assert names & set(first)
        assert names & set(second)
