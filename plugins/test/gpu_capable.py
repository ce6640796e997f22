# SPDX-License-Identifier: Apache-2.0
"""Test gpu_capable: see gpu_capable.yml."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ansible.errors import AnsibleFilterError

from ansible_collections.gpufleet.metal.plugins.module_utils._errors import InvalidInputError
from ansible_collections.gpufleet.metal.plugins.module_utils._gpu.requirements import requirements
from ansible_collections.gpufleet.metal.plugins.module_utils._gpu.rules import CODES, breaches


def gpu_capable(facts: Any, precision: str | None = None, **wanted: Any) -> bool:
    """Whether GPU facts break no rule under these requirements; translates the pure functions' errors."""
    if not isinstance(facts, Mapping) or "gpus" not in facts:
        raise AnsibleFilterError(
            f"gpu_capable: found {facts!r}, wanted ansible_facts.gpu of the module gpufleet.metal.gpu_facts"
        )
    options = {**wanted, **({"precisions": [precision]} if precision is not None else {})}
    try:
        # A host without GPUs is capable of nothing.
        return not breaches("the host", dict(facts), requirements({"count": 1, **options}, CODES))
    except InvalidInputError as error:
        raise AnsibleFilterError(f"gpu_capable: {error}") from error


class TestModule:
    """Ansible's entry point for tests."""

    def tests(self) -> dict[str, Any]:
        """The tests of this file by name."""
        return {"gpu_capable": gpu_capable}
