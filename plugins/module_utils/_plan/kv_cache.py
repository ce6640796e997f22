# SPDX-License-Identifier: Apache-2.0
# PRIVATE to the collection: do not import this from outside, it may change without notice.
"""How vLLM lays out the KV cache: groups of layers, blocks, and the blocks that a request can take.

All of it is vLLM 0.32.0's own arithmetic (v1/core/kv_cache_utils.py, v1/kv_cache_interface.py). Layers with full and
with sliding-window attention lie in groups of their own. A block has the size that the widest group needs, every group
takes its blocks from the same pool, and a group with a window gives back what lies behind it.

The tests compare it with real engines on the CPU (tests/engine) and with vLLM's own functions for what engines on the
CPU do differently: how many batches are under way at once, and what their defaults are.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .architecture import DTYPE_BYTES, Architecture
from .engine import argument_mapping, argument_number, argument_value, speculative
from .schema import Engine, Model

GIB = 1024**3
#: Tokens per block of the KV cache: vLLM's defaults.
BLOCK_TOKENS = {"cuda": 16, "cpu": 128}
#: Methods of speculative decoding that keep vLLM from scheduling a batch while another one runs
#: (config/vllm.py:1597-1610).
_SYNCHRONOUS_METHODS = frozenset({"custom_class", "medusa", "mlp_speculator", "ngram", "suffix"})
#: Connectors with SupportsHMA (distributed/kv_transfer/kv_connector/v1): the only ones beside which layers with a
#: window keep groups of their own.
_HYBRID_CONNECTORS = frozenset(
    {
        "DecodeBenchConnector",
        "ExampleHiddenStatesConnector",
        "HiSparseConnector",
        "MoRIIOConnector",
        "MooncakeConnector",
        "MooncakeStoreConnector",
        "NixlConnector",
        "NixlPullConnector",
        "NixlPushConnector",
        "OffloadingConnector",
        "SimpleCPUOffloadConnector",
    }
)


@dataclass(frozen=True)
class CacheShape:
    """The KV cache of the GPUs of one stage."""

    #: Bytes of a block: one page for each layer of the widest group.
    block_bytes: int
    #: Tokens of a block.
    block_tokens: int
    #: Groups with full attention, and with a window; every one takes blocks of its own.
    full_groups: int
    window_groups: int = 0
    #: Most tokens of one request that a group with a window holds; None: all that there are.
    window_tokens: int | None = None

    def blocks_per_request(self, context_length: int) -> int:
        """Return the most blocks that a request of this many tokens takes.

        get_max_concurrency_for_kv_cache_config (v1/core/kv_cache_utils.py:1195-1227). A window may begin within a
        block, so its groups take one block more (v1/kv_cache_interface.py:859-885).
        """
        blocks = math.ceil(context_length / self.block_tokens)
        return self.full_groups * blocks + self.window_groups * (min(blocks, self._window_blocks(blocks)) + 1)

    def longest_context(self, blocks: int, enough: int) -> int:
        """Return the tokens of the longest request that ``blocks`` hold, ``enough`` when any length would do."""
        groups = self.full_groups + self.window_groups
        found = max(0, blocks - self.window_groups) // groups
        behind = self._window_blocks(found)
        if found >= behind and self.window_groups:
            if not self.full_groups:
                return max(enough, found * self.block_tokens)
            found = (blocks - self.window_groups * (behind + 1)) // self.full_groups
        return found * self.block_tokens

    def figures(self, available: int, context_length: int) -> tuple[int, int, float]:
        """Return (blocks, tokens, requests of full length) as vLLM logs them for ``available`` bytes.

        v1/core/kv_cache_utils.py:1626 and 2300-2333.
        """
        blocks = max(0, available) // self.block_bytes
        concurrency = blocks / self.blocks_per_request(context_length)
        return blocks, int(concurrency * context_length), concurrency

    @property
    def bytes_per_token(self) -> int:
        """Bytes that a token takes in all groups, while it is within the window."""
        return self.block_bytes * (self.full_groups + self.window_groups) // self.block_tokens

    def _window_blocks(self, blocks: int) -> int:
        """Return the blocks of the most tokens within a window, more than ``blocks`` when there is no such bound."""
        return blocks + 1 if self.window_tokens is None else math.ceil(self.window_tokens / self.block_tokens)


def kv_heads_per_rank(kv_heads: int, size: int) -> int:
    """Return the KV heads that one GPU holds; beyond TP = kv_heads they are replicated.

    vLLM 0.32.0, config/model.py:1650-1670.
    """
    return max(1, kv_heads // size)


def kv_cache_dtype_bytes(model: Model, architecture: Architecture) -> int:
    """Return bytes per value of the KV cache; types below one byte are counted as one.

    Where some layers are kept from a smaller type, all are counted in the model's own.
    """
    dtype = str(argument_value(model.arguments, "kv-cache-dtype", "auto"))
    if dtype == "auto" or argument_value(model.arguments, "kv-cache-dtype-skip-layers", None) is not None:
        return architecture.dtype_bytes
    return DTYPE_BYTES.get(dtype, 1)


def kv_page_bytes(architecture: Architecture, size: int, block_tokens: int, dtype_bytes: int) -> int:
    """Return the bytes of one block of one layer on each GPU (v1/kv_cache_interface.py:538-560).

    KV heads of the rank * tokens * (head_dim + value head_dim) * bytes; latent attention is not divided.
    """
    if architecture.latent_values is not None:
        values = architecture.latent_values
    else:
        values = kv_heads_per_rank(architecture.kv_heads, size) * (architecture.head_dim + architecture.value_head_dim)
    return values * block_tokens * dtype_bytes


def default_batching(memory_bytes: int, product: str) -> tuple[int, int]:
    """Return vLLM's defaults of (max_num_seqs, max_num_batched_tokens) for an API server on a GPU.

    vLLM 0.32.0, engine/arg_utils.py:2920-2952.
    """
    if memory_bytes >= 160 * GIB:
        return 1024, 16384
    if memory_bytes >= 70 * GIB and "a100" not in product.lower():
        return 1024, 8192
    return 256, 2048


def batching(model: Model, engine: Engine, gpus: int, memory_bytes: int, product: str) -> tuple[int, int]:
    """Return (max_num_seqs, max_num_batched_tokens) of an instance on ``gpus`` GPUs.

    vLLM 0.32.0, engine/arg_utils.py:2973-2985 for the CPU and 3105-3170. The bound by max_num_seqs * max_model_len is
    left out: a batch of that many tokens is never less than one request.
    """
    if engine.accelerator == "cpu":
        sequences, batched = 128 * gpus, 2048 * gpus
    else:
        sequences, batched = default_batching(memory_bytes, product)
    if argument_value(model.arguments, "performance-mode", None) == "throughput":
        sequences, batched = 2 * sequences, 2 * batched
    if argument_value(model.arguments, "enable-chunked-prefill", None) is False:
        batched = max(batched, model.context_length)
    return (
        argument_number(model.arguments, "max-num-seqs", sequences),
        argument_number(model.arguments, "max-num-batched-tokens", batched),
    )


def concurrent_batches(model: Model, engine: Engine, stages: int) -> int:
    """Return how many batches are under way at once: one for each stage, and one that is prepared meanwhile.

    vLLM 0.32.0, max_concurrent_batches (config/vllm.py:577-588): asynchronous scheduling is off on the CPU
    (platforms/cpu.py:331) and with some methods of speculative decoding (config/vllm.py:1585-1644), else it is on.
    """
    if engine.accelerator == "cpu":
        return stages
    wanted = argument_value(model.arguments, "async-scheduling", None)
    if wanted is None:
        wanted = speculative(model.arguments)[0] not in _SYNCHRONOUS_METHODS
    return stages + 1 if wanted is True else stages


def window_tokens(
    model: Model, architecture: Architecture, engine: Engine, gpus: int, memory_bytes: int, product: str, stages: int
) -> int | None:
    """Return the most tokens of one request that a layer with a window holds; None: all of them.

    vLLM 0.32.0, SlidingWindowSpec (v1/kv_cache_interface.py:859-885): the window but one, and every token of the
    batches under way, whose blocks are given back when they are done (config/vllm.py:590-598). Several layers that
    predict tokens keep that many more (v1/core/kv_cache_utils.py:2581-2588).
    """
    if architecture.sliding_window is None:
        return None
    chunked = argument_value(model.arguments, "enable-chunked-prefill", None) is not False
    if not chunked and argument_value(model.arguments, "max-num-batched-tokens", None) is None:
        return None
    batched = batching(model, engine, gpus, memory_bytes, product)[1]
    method, tokens = speculative(model.arguments)
    ahead = tokens if method == "mtp" and min(architecture.predict_layers, tokens) > 1 else 1
    return architecture.sliding_window - 1 + ahead - 1 + concurrent_batches(model, engine, stages) * batched


def hybrid_manager(model: Model) -> bool:
    """Tell whether layers with a window have groups of their own; without, they are kept whole like the others.

    vLLM 0.32.0, config/vllm.py:2137-2208. The platforms CUDA and CPU both can (platforms/cuda.py:681, cpu.py:623); a
    connector for KV transfer must be able to as well, of several each.
    """
    disabled = argument_value(model.arguments, "disable-hybrid-kv-cache-manager", None)
    if disabled is not None:
        return disabled is not True
    if argument_value(model.arguments, "kv-offloading-size", None) is not None:
        return str(argument_value(model.arguments, "kv-offloading-backend", "native")) == "native"
    transfer = argument_mapping(model.arguments, "kv-transfer-config")
    connectors: list[Mapping[str, Any]] = [transfer]
    if transfer.get("kv_connector") == "MultiConnector":
        extra = transfer.get("kv_connector_extra_config")
        several = extra.get("connectors") if isinstance(extra, Mapping) else None
        connectors = [one for one in several if isinstance(one, Mapping)] if isinstance(several, list) else [transfer]
    return not transfer or all(one.get("kv_connector") in _HYBRID_CONNECTORS for one in connectors)


def layer_groups(
    full: Sequence[int], sliding: Sequence[int], hybrid: bool
) -> tuple[tuple[tuple[int, ...], ...], tuple[tuple[int, ...], ...]]:
    """Return the layers of every group with full attention, and of every group with a window.

    vLLM 0.32.0, _get_kv_cache_groups_uniform_page_size (v1/core/kv_cache_utils.py:1362-1502): a group has as many
    layers as the rarer kind, or as the more frequent one when that is less than half as much again. Layer i of a kind
    goes to group i modulo their number. Layers of one kind are one group; so are both without the hybrid manager
    (unify_hybrid_kv_cache_specs, 1799-1822).
    """
    if not sliding:
        return (tuple(full),), ()
    if not full:
        return (), (tuple(sliding),)
    if not hybrid:
        return (tuple(sorted({*full, *sliding})),), ()
    fewest, most = sorted((len(full), len(sliding)))
    width = most if most < fewest * 1.5 else fewest

    def split(layers: Sequence[int]) -> tuple[tuple[int, ...], ...]:
        count = math.ceil(len(layers) / width)
        return tuple(tuple(layers[place::count]) for place in range(count))

    return split(full), split(sliding)


def cache_shape(
    model: Model,
    architecture: Architecture,
    engine: Engine,
    size: int,
    gpu_memory: int,
    product: str,
    layers: range,
    stages: int = 1,
) -> CacheShape:
    """Return the KV cache of the stage that holds ``layers``, at tensor-parallel size ``size`` and ``stages`` stages.

    Groups are those of the whole model; a stage has its part of each (v1/core/kv_cache_utils.py:2486-2528). Layers
    that predict several tokens come after all others, on the last stage, with full attention.
    """
    a = architecture
    predicting = a.predict_layers if speculative(model.arguments)[0] == "mtp" else 0
    own = range(layers.start, layers.stop + (predicting if layers.stop == a.layers else 0))
    block_tokens = argument_number(model.arguments, "block-size", BLOCK_TOKENS[engine.accelerator])
    page = kv_page_bytes(a, size, block_tokens, kv_cache_dtype_bytes(model, a))
    if not a.sliding_layers:
        return CacheShape(page * len(own), block_tokens, 1)
    windowed = frozenset(a.sliding_layers)
    full = [number for number in range(a.layers + predicting) if number not in windowed]
    with_full, with_window = layer_groups(full, a.sliding_layers, hybrid_manager(model))
    widest = max(sum(number in own for number in group) for group in (*with_full, *with_window))
    return CacheShape(
        page * widest,
        block_tokens,
        len(with_full),
        len(with_window),
        window_tokens(model, a, engine, size * stages, gpu_memory, product, stages),
    )
