# SPDX-License-Identifier: Apache-2.0
# PRIVATE to the collection: do not import this from outside, it may change without notice.
"""What the plan asks of a host's GPUs: the part of its slice that preflight holds the real ones against."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

from .architecture import Architecture
from .decisions import Decision, capability_text
from .parallel import MINIMUM_CAPABILITY
from .schema import Engine, Gpu

#: CUDA version of vLLM's own images and wheels ("cu130"): vLLM 0.32.0, docker/Dockerfile and the release's wheels.
CUDA_VERSION = "13.0"

#: Part of a quantization method's name -> the precision that its kernels compute in.
_PRECISIONS = {"fp8": "fp8", "fp4": "fp4", "int8": "int8"}


def precisions(architecture: Architecture) -> list[str]:
    """Return the precisions that a model computes in, as far as they ask something of the GPU."""
    method = (architecture.quantization.method if architecture.quantization else "").lower()
    # MXFP4 weights are computed in 16 bits where there are no FP4 units (vLLM 0.32.0, Mxfp4Config).
    found = {name for part, name in _PRECISIONS.items() if part in method and "mxfp4" not in method}
    if architecture.dtype == "bfloat16":
        found.add("bf16")
    return sorted(found)


def gpu_requirements(
    instances: Sequence[Mapping[str, Any]],
    decisions: Mapping[str, Decision],
    engine: Engine,
    gpus: Sequence[Gpu],
) -> dict[str, Any]:
    """Return what the instances of one host ask of its GPUs, in the words of the module gpu_validate.

    Engines on the CPU ask for nothing but whole GPUs of one product, which are simulated there. ``gpus``: the host's,
    as recorded: where NVLink joins all GPUs of an instance, it must still do so.
    """
    on_gpus = engine.accelerator == "cuda"
    peers = {gpu.pci_address: gpu.nvlink_peers for gpu in gpus}
    asked = []
    for instance in instances:
        decision = decisions[instance["model"]]
        floor = max(MINIMUM_CAPABILITY, decision.model.minimum_compute_capability or MINIMUM_CAPABILITY)
        addresses = [gpu["pci_address"] for gpu in instance["gpus"]]
        joined = len(addresses) > 1 and all(
            other in peers[one] and one in peers[other] for one, other in combinations(addresses, 2)
        )
        asked.append(
            {
                "name": instance["name"],
                "gpus": addresses,
                "minimum_compute_capability": capability_text(floor if on_gpus else MINIMUM_CAPABILITY),
                "precisions": precisions(decision.architecture) if on_gpus else [],
                "nvlink_required": on_gpus and joined,
            }
        )
    return {"cuda_version": CUDA_VERSION if on_gpus else None, "instances": asked}
