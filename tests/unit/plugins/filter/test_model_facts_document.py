# SPDX-License-Identifier: Apache-2.0
"""The filter is the pure function with Ansible's error."""

from __future__ import annotations

from typing import Any

import pytest
from ansible.errors import AnsibleFilterError

from ansible_collections.gpufleet.metal.plugins.filter.model_facts_document import FilterModule

ENTRIES = [{"name": "m", "source": {"path": "/m"}}]


def render(facts: dict[str, Any], recorded: Any = None) -> str:
    """Call the filter as Ansible finds it."""
    text: str = FilterModule().filters()["model_facts_document"](facts, ENTRIES, recorded)
    return text


def test_text() -> None:
    """The whole file but its comments."""
    text = render({"m": {"config": {"vocab_size": 1}, "weights_bytes": 2, "weights_from": "index", "verified": True}})
    assert [line for line in text.splitlines() if not line.startswith("#")] == [
        "---",
        "fleet_model_facts:",
        '  "m":',
        "    source:",
        '      path: "/m"',
        "    weights_bytes: 2",
        '    weights_from: "index"',
        "    config:",
        "      vocab_size: 1",
    ]
    assert "verified" not in text, "how it was read is no fact of the model"


def test_error() -> None:
    """What the pure function refuses fails the task with its message."""
    with pytest.raises(AnsibleFilterError, match=r"^fleet_model_facts is a list of 0, wanted a mapping of models"):
        render({}, [])
