# SPDX-License-Identifier: Apache-2.0
"""The memory rules agree with what vLLM itself logged, and with the arithmetic of AutoGLM-Phone-9B."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ansible_collections.gpufleet.metal.plugins.module_utils._plan.decisions import smallest_pipeline
from ansible_collections.gpufleet.metal.plugins.module_utils._plan.known_models import KNOWN_MODELS
from ansible_collections.gpufleet.metal.plugins.module_utils._plan.kv_cache import (
    GIB,
    cache_shape,
    default_batching,
    kv_heads_per_rank,
)
from ansible_collections.gpufleet.metal.plugins.module_utils._plan.memory import (
    MemoryUse,
    gib,
    memory_use,
    pipeline_stages,
)
from ansible_collections.gpufleet.metal.plugins.module_utils._plan.schema import Engine, GpuKind
from ansible_collections.gpufleet.metal.tests.unit.plugins.module_utils._plan.fleets import (
    llama,
    model,
    read_model,
    tiny,
)

CUDA = Engine(image=None)
CPU = Engine(image=None, accelerator="cpu")


def use(entry: dict[str, Any], size: int, memory_mib: int, engine: Engine = CUDA, product: str = "L40S") -> MemoryUse:
    """Return the memory use of a model on GPUs of this size."""
    return memory_use(*read_model(entry), engine, size, memory_mib * 1024 * 1024, product)


# vLLM 0.32.0 on CPU, 1 GiB per rank, two layers, bf16, blocks of 128 tokens: "KV cache size" of its own log.
@pytest.mark.parametrize(
    ("head_dim", "layers_of_rank", "size", "bytes_per_token", "tokens"),
    [
        pytest.param(16, 2, 1, 256, 4194304, id="D=16 K=2 TP1"),
        pytest.param(32, 2, 1, 512, 2097152, id="D=32 K=2 TP1"),
        pytest.param(32, 2, 2, 256, 4194304, id="D=32 K=2 TP2"),
        pytest.param(32, 1, 1, 256, 4194304, id="D=32 K=2 PP2, one layer per rank"),
    ],
)
def test_kv_cache_equals_the_engines_log(
    head_dim: int, layers_of_rank: int, size: int, bytes_per_token: int, tokens: int
) -> None:
    """Bytes per token and the size of the cache in tokens are exact."""
    entry = tiny()
    entry["config"].update(head_dim=head_dim, num_hidden_layers=layers_of_rank)
    parsed, shape = read_model(entry)
    found = cache_shape(parsed, shape, CPU, size, 81559 * 1024 * 1024, "L40S", range(layers_of_rank))
    assert (found.block_bytes, found.block_tokens) == (bytes_per_token * 128, 128)
    assert found.figures(GIB, 1024) == (tokens // 128, tokens, tokens / 1024)


def test_cpu_cache_is_what_the_engine_is_given() -> None:
    """On the CPU the cache is cpu_kv_cache_gib per rank, whatever memory the simulated GPU has."""
    found = use(tiny(), 2, 81559, CPU)
    assert (found.kv_cache_available, found.kv_cache_tokens, found.kv_bytes_per_token) == (GIB, 4194304, 256)
    assert found.fits
    assert not use(tiny(concurrency=4200), 2, 81559, CPU).fits


@pytest.mark.parametrize(
    ("size", "kv_bytes_per_token", "one_request_gib"),
    [(1, 40960, "0.97"), (2, 20480, "0.49"), (4, 20480, "0.49"), (8, 20480, "0.49")],
)
def test_autoglm_cache(size: int, kv_bytes_per_token: int, one_request_gib: str) -> None:
    """1593 blocks of 16 tokens; beyond two KV heads there is no gain."""
    found = use(model(concurrency=1), size, 81559)
    assert found.kv_bytes_per_token == kv_bytes_per_token
    assert f"{1593 * 16 * kv_bytes_per_token / GIB:.2f}" == one_request_gib
    # The null block comes on top.
    assert found.kv_cache == 1594 * 16 * kv_bytes_per_token


@pytest.mark.parametrize(
    ("product", "memory_mib", "requests"),
    [("L40S", 46068, 19), ("H100 SXM5 80GB", 81559, 51), ("H200 SXM", 143771, 109)],
)
def test_autoglm_requests_per_gpu(product: str, memory_mib: int, requests: int) -> None:
    """48, 80 and 141 GB hold 19, 51 and 109 requests of full length, within one for the estimated parts."""
    found = use(model(concurrency=1), 1, memory_mib, product=product)
    assert abs(found.max_concurrency - requests) <= 3
    assert found.concurrency_possible <= found.max_concurrency


def test_autoglm_on_24_gb() -> None:
    """A 24 GB card is too tight for tensor parallel 1, two of them are not."""
    assert not use(model(concurrency=1), 1, 23034).fits
    assert use(model(concurrency=1), 2, 23034).fits


def test_vision_encoder_is_replicated_in_data_mode() -> None:
    """0.892 billion parameters of two bytes lie on every GPU instead of a share of them."""
    data, weights = use(model(), 2, 46068), use(model(arguments={}), 2, 46068)
    assert 0.88e9 < data.replicated / 2 < 0.90e9
    assert weights.replicated == 0
    assert data.weights - weights.weights == pytest.approx(data.replicated / 2, abs=2)


def test_kv_projections_are_replicated_beyond_the_kv_heads() -> None:
    """With eight KV heads on sixteen GPUs, every GPU holds one head where half a head would be its share."""
    found = use(llama(), 16, 81559)
    assert found.replicated == 80 * 8192 * 256 * 2 // 2
    assert use(llama(), 8, 81559).replicated == 0


@pytest.mark.parametrize(
    ("kv_heads", "size", "rank"), [(8, 1, 8), (8, 2, 4), (8, 8, 1), (8, 16, 1), (2, 4, 1), (1, 8, 1)]
)
def test_kv_heads_per_rank(kv_heads: int, size: int, rank: int) -> None:
    """A rank holds at least one head."""
    assert kv_heads_per_rank(kv_heads, size) == rank


@pytest.mark.parametrize(
    ("memory_gib", "product", "defaults"),
    [
        (180, "B200 SXM", (1024, 16384)),
        (80, "H100 SXM5 80GB", (1024, 8192)),
        (80, "A100 SXM4 80GB", (256, 2048)),
        (48, "L40S", (256, 2048)),
    ],
)
def test_default_batching(memory_gib: int, product: str, defaults: tuple[int, int]) -> None:
    """vLLM's own defaults, which size the activations."""
    assert default_batching(memory_gib * GIB, product) == defaults


@pytest.mark.parametrize(
    ("arguments", "ratio"),
    [({}, 1.0), ({"kv-cache-dtype": "fp8"}, 0.5), ({"kv_cache_dtype": "bfloat16"}, 1.0), ({"dtype": "float32"}, 2.0)],
)
def test_cache_dtype(arguments: dict[str, Any], ratio: float) -> None:
    """The cache has the type of --kv-cache-dtype, else that of the model."""
    plain = use(llama(), 4, 81559).kv_bytes_per_token
    assert use(llama(arguments=arguments), 4, 81559).kv_bytes_per_token == plain * ratio


def test_latent_attention_is_not_divided() -> None:
    """MLA keeps kv_lora_rank + qk_rope_head_dim values per token and layer on every GPU."""
    entry = llama()
    entry["config"].update(kv_lora_rank=512, qk_rope_head_dim=64)
    assert use(entry, 1, 81559).kv_bytes_per_token == use(entry, 8, 81559).kv_bytes_per_token == 80 * 576 * 2


@pytest.mark.parametrize(
    ("layers", "stages", "parts"),
    [
        (80, 1, [80]),
        (80, 2, [40, 40]),
        (7, 2, [4, 3]),
        (10, 4, [2, 3, 3, 2]),
        (11, 4, [3, 3, 3, 2]),
        (5, 4, [1, 1, 2, 1]),
    ],
)
def test_pipeline_stages(layers: int, stages: int, parts: list[int]) -> None:
    """As vLLM's get_pp_indices splits them: the last stage gets none of the rest, the first one late."""
    found = pipeline_stages(layers, stages)
    assert [stage.layers for stage in found] == parts
    assert [number for stage in found for number in stage.numbers] == list(range(layers))
    assert (found[0].first, found[-1].last) == (True, True)
    assert sum(stage.first + stage.last for stage in found) == 2


@pytest.mark.parametrize("stages", [2, 3, 4, 7])
def test_a_pipeline_holds_the_whole_model(stages: int) -> None:
    """Each stage has its layers and what lies at the ends; together they are never less than the model."""
    entry = llama()
    whole = use(entry, 1, 81559)
    piped = memory_use(*read_model(entry), CUDA, 1, 81559 * 1024 * 1024, "H100", stages=stages)
    assert whole.weights / stages < piped.weights < whole.weights / stages + 2 * 128256 * 8192 * 2 + whole.weights / 80
    assert piped.kv_bytes_per_token == whole.kv_bytes_per_token / 80 * max(
        s.layers for s in pipeline_stages(80, stages)
    )


@settings(deadline=None, max_examples=40)
@given(
    st.lists(st.sampled_from([1, 2, 3, 4, 8]), min_size=1, max_size=5),
    st.integers(1, 131072),
    st.integers(1, 24),
)
def test_the_smallest_pipeline(counts: list[int], context: int, concurrency: int) -> None:
    """Of all ways over several hosts, none takes fewer GPUs; its hosts have them."""
    parsed, shape = read_model(llama())
    parsed = dataclasses.replace(parsed, context_length=context, concurrency=concurrency)
    kind = GpuKind("H100 SXM5 80GB", 81559, (9, 0))
    nodes = {f"gpu-{number}": count for number, count in enumerate(counts)}
    ways = [
        size * stages
        for size in (1, 2, 4, 8)
        for stages in range(2, sum(count >= size for count in counts) + 1)
        if memory_use(parsed, shape, CUDA, size, 81559 * 1024 * 1024, kind.product, stages=stages).fits
    ]
    found = smallest_pipeline(parsed, shape, CUDA, {kind: nodes})
    if found is None:
        assert ways == []
        return
    size, stages = found.memory.tensor_parallel_size, found.memory.pipeline_parallel_size
    assert size * stages == min(ways)
    assert len(set(found.hosts)) == stages
    assert all(nodes[name] >= size for name in found.hosts)


@pytest.mark.parametrize(
    ("entry", "size", "engine", "word"),
    [
        pytest.param(model(), 1, CUDA, "weights", id="weights"),
        pytest.param(model(concurrency=30), 1, CUDA, "kv_cache", id="KV for the asked concurrency"),
        pytest.param(model(), 4, CUDA, "kv_heads", id="two KV heads on four GPUs"),
        pytest.param(tiny(), 1, CUDA, "activations", id="activations and runtime"),
        pytest.param(tiny(), 2, CPU, "cpu_kv_cache", id="a given cache"),
    ],
)
def test_what_binds(entry: dict[str, Any], size: int, engine: Engine, word: str) -> None:
    """One word for what keeps an instance from holding more."""
    assert use(entry, size, 81559, engine).binding.word == word


def test_latent_attention_binds_a_group() -> None:
    """Its cache is whole on every GPU."""
    entry = llama()
    entry["config"].update(kv_lora_rank=512, qk_rope_head_dim=64)
    assert use(entry, 4, 81559).binding.word == "latent_attention"
    assert use(entry, 1, 143771).binding.word == "weights"


def test_what_binds_in_words() -> None:
    """The sentence names the numbers."""
    assert use(model(), 4, 81559).binding.sentence == (
        "2 KV heads on 4 GPUs: they are replicated beyond TP 2, so more GPUs hold no more tokens, more replicas do"
    )
    assert use(model(), 1, 81559).binding.sentence == "the weights take 19.2 GiB of 73.3 GiB per GPU"


def test_a_margin_on_what_is_estimated() -> None:
    """A tenth of activations and runtime."""
    found = use(llama(), 4, 81559)
    assert found.margin == pytest.approx((found.activations + found.runtime) / 10, abs=1)
    assert found.needed == found.weights + found.activations + found.runtime + found.margin + found.kv_cache


@pytest.mark.parametrize(
    ("size", "text"),
    [(0, "0.0 GiB"), (50_000_000, "48 MiB"), (461568, "0.4 MiB"), (GIB, "1.0 GiB"), (GIB * 79.65, "79.7 GiB")],
)
def test_gib(size: float, text: str) -> None:
    """Sizes are short and never read as nothing when there is something."""
    assert gib(size) == text


def known(name: str, **changes: Any) -> dict[str, Any]:
    """Return a bundled model as an entry of fleet_models."""
    facts = KNOWN_MODELS[name]
    changes = {"arguments": {}, "context_length": 32768, **changes}
    return model(name, config=facts["config"], weights_bytes=facts["weights_bytes"], **changes)


def test_a_window_saves_memory() -> None:
    """52 of Gemma's 62 layers look back 1024 tokens: they hold 17,407 tokens of a request, not 131,072."""
    entry = known("gemma-3-27b-it", context_length=131072, concurrency=1)
    windowed = use(entry, 2, 81559, product="H100 SXM5 80GB")
    entry["arguments"]["disable-hybrid-kv-cache-manager"] = True
    whole = use(entry, 2, 81559, product="H100 SXM5 80GB")
    page = 8 * 256 * 16 * 2
    assert whole.kv_cache == (8192 + 1) * 62 * page
    # One group with full attention, six with a window and a block more, ten layers wide.
    assert windowed.kv_cache == (8192 + 6 * (1088 + 1) + 1) * 10 * page
    assert (whole.kv_bytes_per_token, windowed.kv_bytes_per_token) == (62 * page // 16, 70 * page // 16)
    assert (windowed.weights, windowed.activations) == (whole.weights, whole.activations)


def test_an_image_of_a_size_of_its_own() -> None:
    """Gemma's encoder sees 64 x 64 patches, which become 256 tokens, whatever the context allows and a client sends."""
    few = {"max-num-batched-tokens": 512, "max-num-seqs": 8}
    found = use(known("gemma-3-27b-it", arguments=few), 1, 81559).activations
    assert found == (4096 * (6 * 1152 + 3 * 4304) + 256 * 5376) * 2
    bounded = {**few, "mm-processor-kwargs": {"max_pixels": 100}}
    assert use(known("gemma-3-27b-it", arguments=bounded, context_length=128), 1, 81559).activations == found


@pytest.mark.parametrize(
    "arguments",
    [
        {"mm-processor-kwargs": {"max_pixels": 784000}},
        {"mm-processor-kwargs": '{"max_pixels": 784000}'},
        {"mm_processor_kwargs.max_pixels": 784000},
        {"mm-processor-kwargs": {"size": {"longest_edge": 784000}}},
        {"mm-processor-kwargs.size": {"longest_edge": "784000"}},
    ],
)
def test_a_bound_on_images(arguments: dict[str, Any]) -> None:
    """However it is spelt: 784,000 pixels are 1,000 tokens of 28 x 28."""
    found = use(model(arguments={**arguments, "max-num-batched-tokens": 16, "max-num-seqs": 1}), 1, 81559)
    assert found.activations == (4000 * (6 * 1536 + 3 * 4096) + 1000 * 4096) * 2


@given(st.integers(1, 32000), st.integers(1, 32000), st.sampled_from([1, 2, 4, 8]), st.integers(1, 32), st.booleans())
def test_memory_grows_with_context_and_concurrency(
    first: int, second: int, size: int, concurrency: int, windows: bool
) -> None:
    """A longer context or one more request never needs less."""
    parsed, shape = read_model(known("gpt-oss-20b", concurrency=1) if windows else model(concurrency=1))
    low, high = sorted((first, second))
    sizes = []
    for context, requests in ((low, concurrency), (high, concurrency), (high, concurrency + 1)):
        changed = dataclasses.replace(parsed, context_length=context, concurrency=requests)
        sizes.append(memory_use(changed, shape, CUDA, size, 81559 * 1024 * 1024, "H100 SXM5 80GB").needed)
    assert sizes == sorted(sizes)


@given(st.integers(1, 131072), st.integers(1, 64), st.sampled_from([4, 8]), st.booleans())
def test_the_named_limits_are_true(context: int, concurrency: int, size: int, windows: bool) -> None:
    """What a finding says would fit does fit, and one block or request more does not."""
    parsed, shape = read_model(known("gemma-3-27b-it") if windows else llama())
    parsed = dataclasses.replace(parsed, context_length=context, concurrency=concurrency)

    def fits(length: int, requests: int) -> bool:
        changed = dataclasses.replace(parsed, context_length=length, concurrency=requests)
        return memory_use(changed, shape, CUDA, size, 81559 * 1024 * 1024, "H100 SXM5 80GB").fits

    found = memory_use(parsed, shape, CUDA, size, 81559 * 1024 * 1024, "H100 SXM5 80GB")
    if found.context_length_possible:
        assert fits(found.context_length_possible, concurrency)
    assert not fits(found.context_length_possible + 16, concurrency)
    if found.concurrency_possible:
        assert fits(context, found.concurrency_possible)
    assert not fits(context, found.concurrency_possible + 1)
