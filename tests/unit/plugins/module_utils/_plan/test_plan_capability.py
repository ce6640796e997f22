# SPDX-License-Identifier: Apache-2.0
"""What the plan asks of a host's GPUs: the rules accept it, and each model asks of its own GPUs."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from ansible_collections.gpufleet.metal.plugins.module_utils._gpu.requirements import requirements
from ansible_collections.gpufleet.metal.plugins.module_utils._gpu.rules import CODES, breaches
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
                "nvlink_required": False,
            },
            {
                "name": "tiny-llama-0",
                "gpus": ["0000:20:00.0"],
                "minimum_compute_capability": "7.5",
                "precisions": ["bf16"],
                "nvlink_required": False,
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


@pytest.mark.parametrize(
    ("record", "required"),
    [
        pytest.param(gpus(2), True, id="joined, as a driver said"),
        pytest.param(gpus(2, nvlink_peers=None), True, id="an SXM board, as the catalogue knows"),
        pytest.param(gpus(2, "L4"), False, id="no NVLink"),
        pytest.param(gpus(2, "L40S", nvlink_peers=None), False, id="a product without it"),
    ],
)
def test_nvlink_is_asked_for_where_the_plan_counted_on_it(record: dict[str, Any], required: bool) -> None:
    result = plan(tiny(tensor_parallel_size=2, replicas=1), machines=hosts(record))
    assert texts(result) == []
    (instance,) = result["hosts"]["gpu-1"]["gpu_requirements"]["instances"]
    assert instance["nvlink_required"] is required


def test_nvlink_that_is_gone_is_a_finding() -> None:
    """From the record to the finding: the plan's own slice, held against a host that lost its bridge."""
    record = gpus(2)
    result = plan(tiny(tensor_parallel_size=2, replicas=1), machines=hosts(record))
    wanted = requirements(result["hosts"]["gpu-1"]["gpu_requirements"], CODES)
    seen = {"driver_state": "running", "gpus": record["gpus"]}
    assert breaches("gpu-1", seen, wanted) == []
    apart = {"driver_state": "running", "gpus": [{**gpu, "nvlink_peers": []} for gpu in record["gpus"]]}
    assert [finding["code"] for finding in breaches("gpu-1", apart, wanted)] == ["nvlink_missing"]


def test_a_host_without_instances_asks_for_the_cuda_of_the_engine() -> None:
    result = plan(tiny(replicas=1), machines=hosts(gpus(1), gpus(1)))
    assert result["hosts"]["gpu-2"]["gpu_requirements"] == {"cuda_version": "13.0", "instances": []}
