# SPDX-License-Identifier: Apache-2.0
"""The filters hand packages on and refuse what is none."""

from __future__ import annotations

from typing import Any

import pytest
from ansible.errors import AnsibleFilterError

from ansible_collections.gpufleet.metal.plugins.filter.packages import FilterModule

FILTERS = FilterModule().filters()


def test_they_hand_packages_on() -> None:
    found = {"a": [{"version": "1"}], "b": [{"version": "1"}]}
    assert FILTERS["missing_packages"](["a", "b", "c"], found) == ["c"]
    assert FILTERS["missing_packages"](["a", "b", "c"], found, {"b": "2"}) == ["b", "c"]
    assert FILTERS["packages_with_versions"](["a", "b"], {"b": "2"}) == ["a", "b=2"]
    assert FILTERS["packages_with_versions"](["a", "b"], {"b": "2"}, "-") == ["a", "b-2"]


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("missing_packages", ("a", {}), "wanted a list of package names, found 'a'"),
        ("missing_packages", (["a"], ["a"]), "installed: wanted a dict by package name, found ['a']"),
        ("missing_packages", (["a"], {}, "1"), "versions: wanted a dict by package name, found '1'"),
        ("packages_with_versions", ({"a": 1}, {}), "wanted a list of package names, found {'a': 1}"),
        ("packages_with_versions", (["a"], ["1"]), "versions: wanted a dict by package name, found ['1']"),
    ],
)
def test_they_refuse(name: str, arguments: tuple[Any, ...], message: str) -> None:
    with pytest.raises(AnsibleFilterError) as caught:
        FILTERS[name](*arguments)
    assert str(caught.value) == message
