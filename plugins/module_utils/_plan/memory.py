# SPDX-License-Identifier: Apache-2.0
# PRIVATE to the collection: do not import this from outside, it may change without notice.
"""How much memory of a GPU a model needs: vLLM's own arithmetic where it has one, stated estimates where it measures.

Exact (vLLM 0.32.0): the KV cache (kv_cache.py), the budget, ``ceil(memory * gpu_memory_utilization)``
(v1/worker/utils.py:716-772), and how layers are split over the stages of a pipeline (distributed/utils.py:126-165).

Estimated, because vLLM measures them in a profile run after loading (v1/worker/gpu_worker.py:666-745):

- the peak of the activations: the widest step of one decoder layer over max_num_batched_tokens, of the sampler over
  max_num_seqs, or of the vision encoder over one image of the largest size;
- what the CUDA context, NCCL and CUDA graphs take: 1 GiB on one GPU, 2 GiB in a group. vLLM itself only estimates its
  graphs, and subtracts that estimate from the cache (VLLM_MEMORY_PROFILER_ESTIMATE_CUDAGRAPHS).

A tenth of both is added as a margin of its own, so that an estimate that is a little low still starts.

All sizes are bytes per GPU unless said otherwise.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import accumulate
from typing import NamedTuple

from .architecture import Architecture, Vision
from .engine import image_pixels
from .kv_cache import GIB, batching, cache_shape
from .parallel import encoder_mode
from .schema import Engine, Model

#: CUDA context, CUDA graphs, and NCCL in a group: vLLM users see 1 to 2 GiB.
RUNTIME_BYTES_ALONE = 1 * GIB
RUNTIME_BYTES_IN_GROUP = 2 * GIB
#: Share of what is estimated (activations and runtime) that is added to it.
ESTIMATE_MARGIN = 0.1
#: Longest token sequence of one image when no max_pixels bounds it (the default of the Qwen and GLM processors).
IMAGE_TOKENS = 16384


#: What can keep an instance from holding more requests: the words of Binding.
BINDINGS = ("activations", "cpu_kv_cache", "kv_cache", "kv_heads", "latent_attention", "weights")


class Stage(NamedTuple):
    """The part of a model that the hosts of a pipeline hold one after the other; the only one without a pipeline."""

    #: Numbers of the layers, from 0.
    numbers: range
    #: The first holds the embeddings and the vision encoder, the last the output layer.
    first: bool
    last: bool

    @property
    def layers(self) -> int:
        """How many layers the stage has."""
        return len(self.numbers)


class Binding(NamedTuple):
    """What keeps an instance from holding more requests."""

    #: One of BINDINGS.
    word: str
    sentence: str


@dataclass(frozen=True)
class MemoryUse:
    """What one instance needs on each of its GPUs, and what there is."""

    tensor_parallel_size: int
    pipeline_parallel_size: int
    weights: int
    #: Part of ``weights`` that every GPU holds whole: the vision encoder in data mode, replicated KV heads.
    replicated: int
    activations: int
    runtime: int
    #: ESTIMATE_MARGIN of the two above.
    margin: int
    #: KV cache for ``concurrency`` requests of full length.
    kv_cache: int
    gpu_memory: int
    #: What vLLM may use: ``ceil(gpu_memory * gpu_memory_utilization)``.
    budget: int
    #: Of a token in all layers, while it is within the windows.
    kv_bytes_per_token: int
    #: What is left for the KV cache after weights, activations and runtime; never negative.
    kv_cache_available: int
    #: Blocks of the cache, as the metric vllm:cache_config_info counts them, and the tokens of one.
    kv_cache_blocks: int
    kv_block_tokens: int
    #: As vLLM logs them: tokens of the cache, and how many requests of full length it holds.
    kv_cache_tokens: int
    max_concurrency: float
    #: Longest context that fits at the wanted concurrency, and largest concurrency at the wanted context length.
    context_length_possible: int
    concurrency_possible: int
    binding: Binding

    @property
    def needed(self) -> int:
        """Bytes per GPU that the instance needs."""
        return self.weights + self.overheads + self.kv_cache

    @property
    def overheads(self) -> int:
        """Bytes per GPU that are estimated: activations, runtime and the margin."""
        return self.activations + self.runtime + self.margin

    @property
    def weights_possible(self) -> int:
        """Bytes of weights per GPU beside which the wanted requests would fit; never negative."""
        return max(0, self.budget - self.overheads - self.kv_cache)

    @property
    def fits(self) -> bool:
        """Tell whether weights and the wanted requests fit."""
        return self.needed <= self.budget and self.kv_cache <= self.kv_cache_available

    def as_dict(self) -> dict[str, int | float]:
        """Return the numbers as plain data."""
        return {
            "weights": self.weights,
            "replicated": self.replicated,
            "activations": self.activations,
            "runtime": self.runtime,
            "margin": self.margin,
            "kv_cache": self.kv_cache,
            "needed": self.needed,
            "budget": self.budget,
            "gpu_memory": self.gpu_memory,
            "kv_bytes_per_token": self.kv_bytes_per_token,
            "kv_cache_available": self.kv_cache_available,
            "kv_cache_blocks": self.kv_cache_blocks,
            "kv_block_tokens": self.kv_block_tokens,
            "kv_cache_tokens": self.kv_cache_tokens,
            "max_concurrency": round(self.max_concurrency, 2),
        }


def gib(size: float) -> str:
    """Return bytes as GiB with one digit, or as MiB below one tenth of that."""
    if 0 < size < GIB / 10:
        return f"{size / 1024**2:.{0 if size >= 10 * 1024**2 else 1}f} MiB"
    return f"{size / GIB:.1f} GiB"


def pipeline_stages(layers: int, stages: int) -> tuple[Stage, ...]:
    """Return the stages of a pipeline: what does not divide goes to the last but one, the one before it, and so on.

    vLLM 0.32.0, get_pp_indices (distributed/utils.py:126-165).
    """
    parts = [layers // stages] * stages
    for place in range(layers % stages):
        parts[-2 - place] += 1
    ends = list(accumulate(parts))
    return tuple(
        Stage(range(end - part, end), place == 0, place == stages - 1)
        for place, (part, end) in enumerate(zip(parts, ends, strict=True))
    )


def _vision_share(architecture: Architecture, size: int, data_mode: bool) -> tuple[int, int]:
    """Return (bytes on one GPU, bytes of the whole encoder); it is not quantized."""
    if architecture.vision is None:
        return 0, 0
    whole = architecture.vision.parameters * architecture.dtype_bytes
    return (whole if data_mode else math.ceil(whole / size)), whole


def _image_tokens(model: Model, vision: Vision) -> int:
    """Return the tokens of the largest image: what the model fixes, else by its bound on pixels and the context."""
    if vision.image_tokens is not None:
        return vision.image_tokens
    side = vision.patch_size * vision.merge_size
    pixels = image_pixels(model.arguments)
    return min(model.context_length, IMAGE_TOKENS if pixels is None else math.ceil(pixels / (side * side)))


def _activations(model: Model, architecture: Architecture, size: int, batches: tuple[int, int]) -> int:
    """Return the peak of the activations; ``batches``: max_num_seqs and max_num_batched_tokens."""
    a = architecture
    sequences, batched = batches
    attention = math.ceil((2 * a.heads * a.head_dim + 2 * a.kv_heads * a.head_dim) / size)
    feed_forward = 3 * math.ceil(max(a.intermediate_size, a.moe_intermediate_size) / size)
    layer = batched * (2 * a.hidden_size + max(attention, feed_forward)) * a.dtype_bytes
    sampler = sequences * a.vocabulary * 2 * 4 + batched * a.hidden_size * a.dtype_bytes
    vision = 0
    if a.vision is not None:
        v = a.vision
        tokens = _image_tokens(model, v)
        patches = tokens * v.merge_size * v.merge_size
        vision = (patches * (6 * v.hidden_size + 3 * v.intermediate_size) + tokens * v.out_hidden_size) * a.dtype_bytes
    return max(layer, sampler, vision)


def _text_weights(model: Model, architecture: Architecture, stage: Stage, vision: int) -> int:
    """Return the bytes of a stage without the vision encoder, over all of its GPUs.

    A stage of several has its share of the layers, and the first and the last one embedding each; the other embedding
    of a model that does not tie them is counted with the layers. That is more than a stage has, never less.
    """
    a = architecture
    text = model.weights_bytes - vision
    if stage.first and stage.last:
        return text
    embedding = min(text, a.vocabulary * a.hidden_size * a.dtype_bytes)
    layers = math.ceil((text - embedding) * stage.layers / a.layers)
    return layers + (embedding if stage.first or stage.last else 0)


def _binding(model: Model, architecture: Architecture, use: dict[str, int], size: int, given: int | None) -> Binding:
    """Return what keeps an instance from holding more requests; ``given`` is a bound on the cache in GiB, if any."""
    a = architecture
    if given is not None:
        return Binding(
            "cpu_kv_cache", f"fleet_engine.cpu_kv_cache_gib gives every rank {given} GiB of KV cache, whatever is free"
        )
    if a.latent_values is not None and size > 1:
        return Binding(
            "latent_attention",
            "the cache of latent attention is whole on every GPU: more GPUs hold no more tokens, more replicas do",
        )
    if a.latent_values is None and size > a.kv_heads:
        return Binding(
            "kv_heads",
            f"{a.kv_heads} KV heads on {size} GPUs: they are replicated beyond TP {a.kv_heads}, so more GPUs hold no "
            "more tokens, more replicas do",
        )
    overheads = use["activations"] + use["runtime"] + use["margin"]
    word, most = max(
        (("weights", use["weights"]), ("kv_cache", use["kv_cache"]), ("activations", overheads)), key=lambda p: p[1]
    )
    of = f"{gib(most)} of {gib(use['budget'])} per GPU"
    return Binding(
        word,
        {
            "weights": f"the weights take {of}",
            "kv_cache": f"the KV cache for {model.concurrency} x {model.context_length} tokens takes {of}",
            "activations": f"activations, CUDA context and graphs, and their margin take {of}",
        }[word],
    )


def memory_use(
    model: Model,
    architecture: Architecture,
    engine: Engine,
    size: int,
    gpu_memory: int,
    product: str,
    stages: int = 1,
) -> MemoryUse:
    """Return what the model needs on each GPU at tensor-parallel size ``size``.

    ``gpu_memory``: bytes of one GPU. ``product``: its name; vLLM's defaults treat the A100 apart. ``stages``: the
    pipeline-parallel size; with several the result is that of the stage that needs the most.
    """
    unlike: dict[object, Stage] = {}
    for stage in pipeline_stages(architecture.layers, stages):
        # Where all layers are of one kind, only their number tells stages apart.
        unlike.setdefault(stage if architecture.sliding_layers else (stage.layers, stage.first, stage.last), stage)
    uses = [
        _stage_use(model, architecture, engine, size, gpu_memory, product, stage, stages) for stage in unlike.values()
    ]
    return max(uses, key=lambda use: (use.needed, use.weights))


def _stage_use(
    model: Model,
    architecture: Architecture,
    engine: Engine,
    size: int,
    gpu_memory: int,
    product: str,
    stage: Stage,
    stages: int,
) -> MemoryUse:
    a = architecture
    cpu = engine.accelerator == "cpu"
    data_mode = encoder_mode(model, a, size) == "data"
    vision, vision_whole = _vision_share(a, size, data_mode)
    vision_whole = min(vision_whole, model.weights_bytes)
    vision = min(vision, vision_whole) if stage.first else 0
    share = math.ceil(_text_weights(model, a, stage, vision_whole) / size)
    kv_projections = 0
    if a.latent_values is None and size > a.kv_heads:
        columns = a.head_dim + a.value_head_dim
        kv_projections = math.ceil(stage.layers * a.hidden_size * columns * a.dtype_bytes * (1 - a.kv_heads / size))
    weights = share + vision + kv_projections
    replicated = kv_projections + (vision if data_mode and size > 1 else 0)
    activations = _activations(model, a, size, batching(model, engine, size * stages, gpu_memory, product))
    runtime = 0 if cpu else (RUNTIME_BYTES_ALONE if size * stages == 1 else RUNTIME_BYTES_IN_GROUP)
    margin = math.ceil((activations + runtime) * ESTIMATE_MARGIN)
    budget = math.ceil(gpu_memory * engine.gpu_memory_utilization)

    cache = cache_shape(model, a, engine, size, gpu_memory, product, stage.numbers, stages)
    blocks_per_request = cache.blocks_per_request(model.context_length)
    # One block, the null block, is held back.
    kv_cache = (model.concurrency * blocks_per_request + 1) * cache.block_bytes
    available = max(0, budget - weights - activations - runtime - margin)
    given = None
    if cpu and engine.cpu_kv_cache_gib * GIB < available:
        # VLLM_CPU_KVCACHE_SPACE is GiB per rank.
        given = engine.cpu_kv_cache_gib
        available = given * GIB
    blocks, tokens, concurrency = cache.figures(available, model.context_length)
    usable = max(0, blocks - 1)
    parts = {
        "weights": weights,
        "activations": activations,
        "runtime": runtime,
        "margin": margin,
        "kv_cache": kv_cache,
        "budget": budget,
    }
    return MemoryUse(
        tensor_parallel_size=size,
        pipeline_parallel_size=stages,
        replicated=replicated,
        gpu_memory=gpu_memory,
        kv_bytes_per_token=cache.bytes_per_token,
        kv_cache_available=available,
        kv_cache_blocks=blocks,
        kv_block_tokens=cache.block_tokens,
        kv_cache_tokens=tokens,
        max_concurrency=concurrency,
        context_length_possible=cache.longest_context(usable // model.concurrency, model.context_length),
        concurrency_possible=usable // blocks_per_request,
        binding=_binding(model, a, parts, size, given),
        **parts,
    )
