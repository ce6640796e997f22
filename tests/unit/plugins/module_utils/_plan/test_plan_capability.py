# SPDX-License-Identifier: Apache-2.0
"""What the plan asks of a host's GPUs: the rules accept it, and each model asks of its own GPUs."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from ansible_collections.gpufleet.metal.plugins.module_utils._gpu.requirements import requirements
from ansible_collections.gpufleet.metal.plugins.module_utils._gpu.rules import CODES
from ansible_collections.gpufleet.metal.tests.unit.plugins.module_utils._plan.fleets import (
    LLAMA_70B_CONFIG,
    gpus,
    hosts,
    llama,
    plan,
    texts,
    tiny,
)


def asked(*models: dict[str, Any]) -> dict[str, Any]:
    result = plan(*models, machines=hosts(gpus(8)))
    assert texts(result) == []
    part: dict[str, Any] = result["hosts"]["gpu-1"]["gpu_requirements"]
    requirements(part, CODES)
    return part


def test_each_instance_asks_of_its_own_gpus() -> None:
    part = asked(tiny(replicas=1), tiny("strict", replicas=1, minimum_compute_capability="9.0"))
    assert part == {
        "cuda_version": "13.0",
        "instances": [
            {
                "name": "strict-0",
                "gpus": ["0000:10:00.0"],
                "minimum_compute_capability": "9.0",
                "precisions": ["bf16"],
            },
            {
                "name": "tiny-llama-0",
                "gpus": ["0000:20:00.0"],
                "minimum_compute_capability": "7.5",
                "precisions": ["bf16"],
            },
        ],
    }


@pytest.mark.parametrize(
    ("quantization", "dtype", "precisions"),
    [
        ({}, "bfloat16", ["bf16"]),
        ({}, "float16", []),
        ({"quant_method": "fp8"}, "bfloat16", ["bf16", "fp8"]),
        ({"quant_method": "awq", "group_size": 128}, "float16", []),
    ],
)
def test_precisions(quantization: dict[str, Any], dtype: str, precisions: list[str]) -> None:
    config = copy.deepcopy(LLAMA_70B_CONFIG)
    config["torch_dtype"] = dtype
    if quantization:
        config["quantization_config"] = quantization
    part = asked(llama(config=config, replicas=1, weights_bytes=40 * 10**9))
    assert [instance["precisions"] for instance in part["instances"]] == [precisions]


def test_a_host_without_instances_asks_for_the_cuda_of_the_engine() -> None:
    result = plan(tiny(replicas=1), machines=hosts(gpus(1), gpus(1)))
    assert result["hosts"]["gpu-2"]["gpu_requirements"] == {"cuda_version": "13.0", "instances": []}
