# SPDX-License-Identifier: Apache-2.0
"""Ask vLLM's own functions how they would lay out the KV cache on GPUs that are not here.

Usage: groups.py CASES RESULTS. Runs inside the engine's image. CASES is JSON, a list of mappings with `name` and
`vllm`, which is a mapping again:

    layers             a text with a letter for each layer: F full attention, W a sliding window, L latent attention
    stages             layers of each stage of the pipeline
    window             tokens of the window
    heads, values      KV heads of a rank, values of a head (of a token, for latent attention)
    bytes              per value of the cache
    block              tokens of a block
    batched            max_num_batched_tokens
    async              whether scheduling is asynchronous
    disabled           whether the hybrid manager is disabled
    context            max_model_len
    available          bytes for the cache on each GPU

RESULTS gets `name`, `version`, `blocks`, `tokens` and `concurrency` of each: what vLLM sets num_gpu_blocks to and logs.
"""

from __future__ import annotations

import json
import sys
from itertools import accumulate
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
import vllm
from vllm.config import VllmConfig
from vllm.v1.core import kv_cache_utils
from vllm.v1.core.single_type_kv_cache_manager import register_all_kvcache_specs
from vllm.v1.kv_cache_interface import FullAttentionSpec, KVCacheSpec, MLAAttentionSpec, SlidingWindowSpec
from vllm.v1.kv_cache_layout import KVCacheLayout

DTYPES = {1: torch.uint8, 2: torch.bfloat16, 4: torch.float32}


class Config(SimpleNamespace):
    """What vLLM's functions read of its configuration; how many batches are under way is computed by vLLM."""

    max_concurrent_batches = VllmConfig.max_concurrent_batches
    max_in_flight_tokens = VllmConfig.max_in_flight_tokens


def config_of(case: dict[str, Any]) -> Config:
    """Return the configuration of a case."""
    return Config(
        model_config=SimpleNamespace(max_model_len=case["context"], original_max_model_len=case["context"]),
        scheduler_config=SimpleNamespace(
            disable_hybrid_kv_cache_manager=case["disabled"],
            max_num_batched_tokens=case["batched"],
            async_scheduling=case["async"],
        ),
        parallel_config=SimpleNamespace(
            tensor_parallel_size=1, decode_context_parallel_size=1, pipeline_parallel_size=len(case["stages"])
        ),
        cache_config=SimpleNamespace(
            num_gpu_blocks_override=None,
            prefix_cache_retention_interval=None,
            get_resolved_kv_cache_layout=lambda: KVCacheLayout.LBNHC,
        ),
        attention_config=SimpleNamespace(hisparse_config=None),
        speculative_config=None,
        num_prefill_lookahead_tokens=0,
        use_v2_model_runner=True,
    )


def spec_of(case: dict[str, Any], letter: str) -> KVCacheSpec:
    """Return what a layer of this kind says about its cache."""
    common = {
        "block_size": case["block"],
        "num_kv_heads": case["heads"],
        "head_size": case["values"],
        "dtype": DTYPES[case["bytes"]],
    }
    if letter == "L":
        return MLAAttentionSpec(**common)
    if letter == "W":
        return SlidingWindowSpec(**common, sliding_window=case["window"])
    return FullAttentionSpec(**common)


def answer(name: str, case: dict[str, Any]) -> dict[str, Any]:
    """Return what vLLM says to one case."""
    config = config_of(case)
    register_all_kvcache_specs(config)
    specs = [spec_of(case, letter) for letter in case["layers"]]
    ends = list(accumulate(case["stages"]))
    workers = [
        {f"model.layers.{number}.attn": specs[number] for number in range(end - count, end)}
        for count, end in zip(case["stages"], ends, strict=True)
    ]
    configs = kv_cache_utils.get_kv_cache_configs(config, workers, [case["available"]] * len(workers))
    whole = kv_cache_utils.generate_scheduler_kv_cache_config(configs)
    tokens, concurrency = kv_cache_utils.get_kv_cache_capacity(config, whole)
    return {
        "name": name,
        "version": vllm.__version__,
        "blocks": whole.num_blocks,
        "tokens": tokens,
        "concurrency": concurrency,
    }


def main() -> None:
    """Answer all cases."""
    cases = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    answers = [answer(case["name"], case["vllm"]) for case in cases]
    Path(sys.argv[2]).write_text(json.dumps(answers, indent=2), encoding="utf-8")


if __name__ == "__main__":
    main()
