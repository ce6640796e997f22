# SPDX-License-Identifier: Apache-2.0
"""Requirements are read from plain options; a wrong one is refused with what was found and what is wanted."""

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.gpufleet.metal.plugins.module_utils._errors import InvalidInputError
from ansible_collections.gpufleet.metal.plugins.module_utils._gpu.requirements import (
    Instance,
    Requirements,
    requirements,
)
from ansible_collections.gpufleet.metal.plugins.module_utils._gpu.rules import CODES


@pytest.mark.parametrize("options", [{}, {"minimum_compute_capability": None, "instances": None, "count": None}])
def test_the_defaults(options: dict[str, Any]) -> None:
    assert requirements(options, CODES) == Requirements()
    assert Requirements().minimum_compute_capability == (7, 5)


def test_everything() -> None:
    read = requirements(
        {
            "minimum_compute_capability": "10.0",
            "precisions": ["bf16", "fp8"],
            "memory_tier": "production",
            "minimum_memory_gb": 79.5,
            "count": 8,
            "same_product": True,
            "instances": [{"name": "a-0", "gpus": ["00000000:17:00.0"]}],
            "nvlink_required": True,
            "cuda_version": "13.0",
            "minimum_driver_branch": 580,
            "driver_required": True,
            "allowed_processes": ["python*"],
            "ignored_codes": ["persistence_mode_off"],
        },
        CODES,
    )
    assert read == Requirements(
        minimum_compute_capability=(10, 0),
        precisions=("bf16", "fp8"),
        memory_tier="production",
        minimum_memory_gb=79.5,
        count=8,
        same_product=True,
        instances=(Instance("a-0", ("0000:17:00.0",)),),
        nvlink_required=True,
        cuda_version=(13, 0),
        minimum_driver_branch=580,
        driver_required=True,
        allowed_processes=("python*",),
        ignored_codes=("persistence_mode_off",),
    )


@pytest.mark.parametrize(
    ("options", "memory"), [({}, 0), ({"memory_tier": "development"}, 16), ({"minimum_memory_gb": 24}, 24)]
)
def test_the_larger_of_tier_and_size_counts(options: dict[str, Any], memory: float) -> None:
    assert requirements(options, CODES).memory_gb == memory
    assert requirements({**options, "memory_tier": "production"}, CODES).memory_gb == 40


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"counts": 1}, r"^GPU requirements: found counts; wanted some of minimum_compute_capability, precisions, "),
        ({"minimum_compute_capability": "7.0"}, "minimum_compute_capability: found 7.0, wanted 7.5 or more: "),
        ({"minimum_compute_capability": 9}, "minimum_compute_capability: found 9, wanted a version like"),
        ({"cuda_version": "13"}, "cuda_version: found '13', wanted a version like \"9.0\""),
        ({"precisions": "bf16"}, "precisions: found 'bf16', wanted a list of texts"),
        ({"precisions": ["fp64"]}, "precisions: found 'fp64', wanted one of int8, bf16, fp8, fp4"),
        ({"memory_tier": "large"}, "memory_tier: found 'large', wanted one of any, development, production"),
        ({"count": True}, "count: found True, wanted a number from 0 on"),
        ({"count": -1}, "count: found -1, wanted a number from 0 on"),
        ({"minimum_memory_gb": "80"}, "minimum_memory_gb: found '80', wanted a number from 0 on"),
        ({"same_product": "yes"}, "same_product: found 'yes', wanted true or false"),
        (
            {"instances": [{"name": "a", "gpus": ["17:00"]}]},
            "instances: found .* wanted a name and gpus, a list of PCI",
        ),
        (
            {"instances": [{"name": "a", "gpus": [], "precisions": ["x"]}]},
            r"instances: found .* \(precisions: found 'x'",
        ),
        ({"instances": [{"gpus": []}]}, r"instances: found .* \('name'\); wanted a name and gpus"),
        (
            {"ignored_codes": ["persistence_off"]},
            "ignored_codes: found 'persistence_off', wanted one of driver_absent, ",
        ),
        ({"ignored_codes": ["gpu_missing"]}, "ignored_codes: found 'gpu_missing', wanted one of driver_absent, "),
    ],
)
def test_what_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        requirements(options, CODES)


def test_an_instance_asks_of_its_own_gpus_only() -> None:
    read = requirements(
        {
            "precisions": ["int8"],
            "instances": [
                {"name": "a", "gpus": ["0000:17:00.0"], "minimum_compute_capability": "9.0", "precisions": ["fp8"]},
                {"name": "b", "gpus": ["0000:17:00.0", "0000:3d:00.0"], "precisions": ["bf16"]},
            ],
        },
        CODES,
    )
    assert [read.floor_of(address) for address in ("0000:17:00.0", "0000:3d:00.0", "0000:60:00.0")] == [
        (9, 0),
        (7, 5),
        (7, 5),
    ]
    assert read.precisions_of("0000:17:00.0") == ["bf16", "fp8", "int8"]
    assert read.precisions_of("0000:60:00.0") == ["int8"]
