# SPDX-License-Identifier: Apache-2.0
"""Groups of layers and blocks of the KV cache are those that vLLM's own functions return."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.gpufleet.metal.plugins.module_utils._plan.architecture import (
    Architecture,
    read_architecture,
)
from ansible_collections.gpufleet.metal.plugins.module_utils._plan.engine import argument_findings, speculative
from ansible_collections.gpufleet.metal.plugins.module_utils._plan.inventory import read_fleet
from ansible_collections.gpufleet.metal.plugins.module_utils._plan.known_models import KNOWN_MODELS
from ansible_collections.gpufleet.metal.plugins.module_utils._plan.kv_cache import (
    CacheShape,
    batching,
    cache_shape,
    concurrent_batches,
    hybrid_manager,
    layer_groups,
    window_tokens,
)
from ansible_collections.gpufleet.metal.plugins.module_utils._plan.memory import pipeline_stages
from ansible_collections.gpufleet.metal.plugins.module_utils._plan.schema import Engine, Model
from ansible_collections.gpufleet.metal.tests.unit.plugins.module_utils._plan.fleets import (
    inventory,
    model,
    variables,
)

CUDA = Engine(image=None)
CPU = Engine(image=None, accelerator="cpu")
MIB = 1024 * 1024
H100 = (81559 * MIB, "H100 SXM5 80GB")
#: What tests/engine/groups.py was asked and answered; `make test` asks again (tests/engine).
RECORDED = json.loads(
    (Path(__file__).parents[3] / "fixtures" / "kv_cache" / "vllm_groups.json").read_text(encoding="utf-8")
)


def read(config: dict[str, Any], context: int = 32768, **arguments: Any) -> tuple[Model, Architecture]:
    """Return a model and its shape; the entry must be right."""
    entry = model("m", config=config, weights_bytes=1000000, context_length=context, arguments=arguments)
    fleet = read_fleet(inventory(variables(entry)))
    findings: list[Any] = [*fleet.findings, *argument_findings(fleet.models[0])]
    shape = read_architecture(fleet.models[0], findings)
    assert shape is not None
    assert findings == []
    return fleet.models[0], shape


def known(name: str, context: int = 32768, **arguments: Any) -> tuple[Model, Architecture]:
    """Return a bundled model and its shape."""
    return read(KNOWN_MODELS[name]["config"], context, **arguments)


@pytest.mark.parametrize("case", RECORDED, ids=lambda case: case["name"])
def test_vllm_says_the_same(case: dict[str, Any]) -> None:
    """Blocks, tokens and requests of full length on GPUs, of the stage with the fewest blocks."""
    plan, asked, answer = case["plan"], case["vllm"], case["answer"]
    config = plan["config"] if "config" in plan else KNOWN_MODELS[plan["known"]]["config"]
    parsed, shape = read(config, asked["context"], **plan["arguments"])
    gpu = (plan["memory_mib"] * MIB, "GPU")
    found = [
        cache_shape(parsed, shape, CUDA, plan["size"], *gpu, stage.numbers, plan["stages"])
        for stage in pipeline_stages(shape.layers, plan["stages"])
    ]
    figures = min(stage.figures(asked["available"], asked["context"]) for stage in found)
    assert figures == (answer["blocks"], answer["tokens"], answer["concurrency"])


def test_the_recorded_answers_are_of_the_version_that_the_plan_knows() -> None:
    """Another version of vLLM is asked anew."""
    assert {case["answer"]["version"] for case in RECORDED} == {"0.32.0"}


@pytest.mark.parametrize(
    ("full", "sliding", "groups", "windowed"),
    [
        ([0, 1], [], [(0, 1)], []),
        ([], [0, 1, 2], [], [(0, 1, 2)]),
        ([1, 3], [0, 2], [(1, 3)], [(0, 2)]),
        ([5], [0, 1, 2, 3, 4], [(5,)], [(0,), (1,), (2,), (3,), (4,)]),
        ([2, 5], [0, 1, 3, 4], [(2, 5)], [(0, 3), (1, 4)]),
        ([2, 5], [0, 1, 3, 4, 6], [(2, 5)], [(0, 4), (1, 6), (3,)]),
        ([0, 1, 2], [3, 4, 5, 6], [(0, 1, 2)], [(3, 4, 5, 6)]),
        ([0, 1, 2, 3, 4], [5, 6], [(0, 3), (1, 4), (2,)], [(5, 6)]),
    ],
)
def test_groups(
    full: list[int], sliding: list[int], groups: list[tuple[int, ...]], windowed: list[tuple[int, ...]]
) -> None:
    """A group has as many layers as the rarer kind, unless the other is less than half as much more."""
    assert layer_groups(full, sliding, True) == (tuple(groups), tuple(windowed))


def test_groups_without_the_hybrid_manager() -> None:
    """Layers of both kinds are one group with full attention; a window that all have stays."""
    assert layer_groups([1], [0, 2], False) == (((0, 1, 2),), ())
    assert layer_groups([], [0, 1], False) == ((), ((0, 1),))


@given(st.lists(st.booleans(), min_size=1, max_size=80), st.booleans())
def test_every_layer_is_in_one_group(kinds: list[bool], hybrid: bool) -> None:
    """No layer is lost or counted twice, and no group is wider than the widest of its kind would be alone."""
    full = [number for number, windowed in enumerate(kinds) if not windowed]
    sliding = [number for number, windowed in enumerate(kinds) if windowed]
    with_full, with_window = layer_groups(full, sliding, hybrid)
    assert sorted(number for group in (*with_full, *with_window) for number in group) == list(range(len(kinds)))
    assert all((*with_full, *with_window))


@given(
    st.integers(0, 4),
    st.integers(0, 6),
    st.none() | st.integers(1, 2000),
    st.integers(0, 400),
    st.sampled_from([16, 64]),
)
def test_the_longest_context(full: int, windowed: int, tokens: int | None, blocks: int, block: int) -> None:
    """It is held by the blocks that there are, and one token more is not."""
    shape = CacheShape(1, block, full, windowed or (not full), tokens)
    enough = 1000000
    found = shape.longest_context(blocks, enough)
    assert found == 0 or shape.blocks_per_request(found) <= blocks
    assert found >= enough or shape.blocks_per_request(found + 1) > blocks


@given(st.integers(1, 100000), st.integers(1, 3000), st.integers(0, 10**6))
def test_one_kind_of_layers_is_as_before(context: int, block_bytes: int, available: int) -> None:
    """Without windows a request takes one block for every 16 tokens."""
    blocks, tokens, requests = CacheShape(block_bytes, 16, 1).figures(available, context)
    assert (blocks, requests) == (available // block_bytes, blocks / math.ceil(context / 16))
    assert tokens == int(requests * context)


@pytest.mark.parametrize(
    ("arguments", "hybrid"),
    [
        ({}, True),
        ({"disable-hybrid-kv-cache-manager": True}, False),
        ({"disable_hybrid_kv_cache_manager": False, "kv-transfer-config": {"kv_connector": "Mine"}}, True),
        ({"kv-transfer-config": {"kv_connector": "NixlConnector"}}, True),
        ({"kv-transfer-config": '{"kv_connector": "LMCacheConnectorV1"}'}, False),
        ({"kv-transfer-config.kv_connector": "OffloadingConnector"}, True),
        ({"kv-transfer-config.kv_connector": "Mine"}, False),
        ({"kv-offloading-size": 4}, True),
        ({"kv-offloading-size": 4, "kv-offloading-backend": "lmcache"}, False),
        ({"kv-transfer-config": {"kv_connector": "MultiConnector"}}, False),
        *(
            (
                {
                    "kv-transfer-config": {
                        "kv_connector": "MultiConnector",
                        "kv_connector_extra_config": {
                            "connectors": [{"kv_connector": "NixlConnector"}, {"kv_connector": name}]
                        },
                    }
                },
                hybrid,
            )
            for name, hybrid in (("OffloadingConnector", True), ("LMCacheConnectorV1", False))
        ),
    ],
)
def test_when_windows_have_groups_of_their_own(arguments: dict[str, Any], hybrid: bool) -> None:
    """Unless they are not wanted, or a connector beside the engine cannot."""
    assert hybrid_manager(known("gpt-oss-20b", **arguments)[0]) is hybrid


@pytest.mark.parametrize(
    ("arguments", "stages", "cuda", "cpu"),
    [
        ({}, 1, 2, 1),
        ({}, 4, 5, 4),
        ({"async-scheduling": False}, 1, 1, 1),
        ({"async-scheduling": False}, 2, 2, 2),
        ({"async_scheduling": True, "spec-method": "ngram"}, 1, 2, 1),
        ({"speculative-config": {"method": "ngram", "num_speculative_tokens": 2}}, 1, 1, 1),
        ({"speculative-config": {"method": "eagle3", "model": "/models/draft"}}, 1, 2, 1),
    ],
)
def test_batches_under_way(arguments: dict[str, Any], stages: int, cuda: int, cpu: int) -> None:
    """One for each stage, and one that is prepared while the others run; not on the CPU."""
    parsed = known("gpt-oss-20b", **arguments)[0]
    assert (concurrent_batches(parsed, CUDA, stages), concurrent_batches(parsed, CPU, stages)) == (cuda, cpu)


@pytest.mark.parametrize(
    ("arguments", "cuda", "cpu"),
    [
        ({}, (1024, 8192), (256, 4096)),
        ({"performance-mode": "throughput"}, (2048, 16384), (512, 8192)),
        ({"max-num-seqs": 9, "max_num_batched_tokens": 500}, (9, 500), (9, 500)),
        ({"enable-chunked-prefill": False}, (1024, 32768), (256, 32768)),
    ],
)
def test_batching(arguments: dict[str, Any], cuda: tuple[int, int], cpu: tuple[int, int]) -> None:
    """vLLM's defaults on two GPUs and on two ranks of a CPU."""
    parsed = known("gpt-oss-20b", **arguments)[0]
    assert (batching(parsed, CUDA, 2, *H100), batching(parsed, CPU, 2, *H100)) == (cuda, cpu)


@pytest.mark.parametrize(
    ("name", "engine", "arguments", "tokens"),
    [
        ("llama-3.1-8b", CUDA, {}, None),
        ("gpt-oss-20b", CUDA, {}, 127 + 2 * 8192),
        ("gpt-oss-20b", CPU, {}, 127 + 2048),
        ("gpt-oss-20b", CUDA, {"max-num-batched-tokens": 1000, "async-scheduling": False}, 1127),
        ("gpt-oss-20b", CUDA, {"enable-chunked-prefill": False}, None),
        ("gpt-oss-20b", CUDA, {"enable-chunked-prefill": False, "max-num-batched-tokens": 40000}, 80127),
    ],
)
def test_tokens_within_a_window(name: str, engine: Engine, arguments: dict[str, Any], tokens: int | None) -> None:
    """The window but one, and the tokens of all batches under way."""
    assert window_tokens(*known(name, **arguments), engine, 1, *H100, 1) == tokens


def test_several_layers_that_predict_hold_more() -> None:
    """The last tokens of a window are computed anew by each of them but one."""
    config = {**KNOWN_MODELS["gpt-oss-20b"]["config"], "num_nextn_predict_layers": 3}
    for tokens, more in ((1, 0), (2, 1), (5, 4)):
        arguments = {"speculative-config": {"method": "mtp", "num_speculative_tokens": tokens}}
        assert window_tokens(*read(config, **arguments), CUDA, 1, *H100, 1) == 127 + 2 * 8192 + more


@pytest.mark.parametrize(
    ("arguments", "found"),
    [
        ({}, (None, 0)),
        ({"speculative-config": {"method": "mtp", "num_speculative_tokens": 2}}, ("mtp", 2)),
        ({"speculative_config": '{"method": "glm4_moe_mtp", "num_speculative_tokens": 1}'}, ("mtp", 1)),
        ({"speculative-config.method": "deepseek_mtp", "speculative-config.num_speculative_tokens": 3}, ("mtp", 3)),
        ({"spec-method": "mtp", "spec-tokens": "4"}, ("mtp", 4)),
        ({"spec-model": "/models/draft", "spec-tokens": 4}, ("draft_model", 4)),
        ({"speculative-config": {"model": "[ngram]", "num_speculative_tokens": 4}}, ("ngram", 4)),
        ({"speculative-config": "no JSON"}, (None, 0)),
    ],
)
def test_speculative_decoding(arguments: dict[str, Any], found: tuple[str | None, int]) -> None:
    """However it is asked for."""
    assert speculative(arguments) == found


@pytest.mark.parametrize(("method", "more"), [("mtp", 1), ("ngram", 0), ("eagle", 0)])
def test_layers_that_predict_lie_in_the_cache_when_they_are_asked_for(method: str, more: int) -> None:
    """On the last stage, beside the layers that it has anyway."""
    config = {"method": method, "num_speculative_tokens": 1}
    plain = known("glm-4.5-air")
    asked = known("glm-4.5-air", **{"speculative-config": config})
    page = 8 * 256 * 16 * 2
    for layers, wanted in ((range(46), 46), (range(23, 46), 23)):
        assert cache_shape(*plain, CUDA, 1, *H100, layers).block_bytes == wanted * page
        assert cache_shape(*asked, CUDA, 1, *H100, layers).block_bytes == (wanted + more) * page
    assert cache_shape(*asked, CUDA, 1, *H100, range(23), 2).block_bytes == 23 * page


def test_layers_that_keep_their_type_make_all_pages_large() -> None:
    """With kv-cache-dtype-skip-layers no layer is counted smaller than the largest."""
    small = {"kv-cache-dtype": "fp8"}
    mixed = {**small, "kv-cache-dtype-skip-layers": ["sliding_window"]}
    sizes = [
        cache_shape(*known("gpt-oss-20b", **arguments), CUDA, 1, *H100, range(24)).block_bytes
        for arguments in ({}, small, mixed)
    ]
    assert sizes[0] == 2 * sizes[1] == sizes[2]
