# SPDX-License-Identifier: Apache-2.0
"""The test is thin: requirements in, yes or no out, errors with its name."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible.errors import AnsibleFilterError

from ansible_collections.gpufleet.metal.plugins.module_utils._gpu.options import REQUIREMENT_OPTIONS
from ansible_collections.gpufleet.metal.plugins.test import gpu_capable

L4 = {
    "pci_address": "0000:31:00.0",
    "device_id": "27B8",
    "subsystem_id": "10DE:16CA",
    "product": "L4",
    "memory_mib": 23034,
    "compute_capability": "8.9",
}
FACTS = {"driver_state": "running", "driver_version": "580.105.08", "gpus": [L4, {**L4, "pci_address": "0000:4b:00.0"}]}


@pytest.mark.parametrize(
    ("wanted", "capable"),
    [
        ({}, True),
        ({"minimum_compute_capability": "8.0", "precision": "bf16"}, True),
        ({"precision": "fp8", "memory_tier": "development", "count": 2, "same_product": True}, True),
        ({"precision": "fp4"}, False),
        ({"precisions": ["bf16", "fp4"]}, False),
        ({"memory_tier": "production"}, False),
        ({"count": 3}, False),
        ({"cuda_version": "13.0"}, True),
    ],
)
def test_capable(wanted: dict[str, Any], capable: bool) -> None:
    assert gpu_capable.TestModule().tests()["gpu_capable"](FACTS, **wanted) is capable


def test_a_host_without_gpus() -> None:
    assert gpu_capable.gpu_capable({"gpus": []}) is False
    assert gpu_capable.gpu_capable({"gpus": []}, count=0) is True


@pytest.mark.parametrize(
    ("facts", "wanted", "message"),
    [
        (None, {}, "^gpu_capable: found None, wanted ansible_facts.gpu of the module gpufleet.metal.gpu_facts$"),
        (FACTS, {"precision": "fp64"}, "^gpu_capable: precisions: found 'fp64', wanted one of int8, bf16, fp8, fp4$"),
        (FACTS, {"tier": "any"}, "^gpu_capable: GPU requirements: found tier; wanted some of "),
    ],
)
def test_errors(facts: Any, wanted: dict[str, Any], message: str) -> None:
    with pytest.raises(AnsibleFilterError, match=message):
        gpu_capable.gpu_capable(facts, **wanted)


def test_the_documentation_has_every_requirement() -> None:
    path = Path(inspect.getfile(gpu_capable)).with_suffix(".yml")
    options = yaml.safe_load(path.read_text(encoding="utf-8"))["DOCUMENTATION"]["options"]
    assert set(options) == {*REQUIREMENT_OPTIONS, "_input", "precision"}
