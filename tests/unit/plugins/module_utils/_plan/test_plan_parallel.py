# SPDX-License-Identifier: Apache-2.0
"""Which tensor-parallel sizes divide a model, and which GPUs can compute it."""

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.gpufleet.metal.plugins.module_utils._plan.parallel import (
    encoder_mode,
    required_capability,
    tensor_parallel_faults,
)
from ansible_collections.gpufleet.metal.tests.unit.plugins.module_utils._plan.fleets import (
    TINY_CONFIG,
    gpus,
    hosts,
    llama,
    model,
    plan,
    read_model,
    texts,
    tiny,
)


def quantized(method: str, **config: Any) -> dict[str, Any]:
    """Return AutoGLM-Phone-9B with quantized weights and its vision encoder in data mode."""
    entry = model()
    entry["config"]["quantization_config"] = {"quant_method": method, **config}
    return entry


AWQ = {"bits": 4, "group_size": 128}


# The table of the named model: 32 heads, 2 KV heads, 12 vision heads, intermediate size 13696 = 2^7 x 107.
@pytest.mark.parametrize(
    ("entry", "allowed"),
    [
        pytest.param(model(), [1, 2, 4, 8], id="bf16, vision encoder in data mode"),
        pytest.param(model(arguments={}), [1, 2, 4, 8], id="bf16, vision encoder in the plan's hands"),
        pytest.param(model(arguments={"mm-encoder-tp-mode": "weights"}), [1, 2, 4], id="bf16, vision heads divided"),
        pytest.param(quantized("awq", group_size=128), [1], id="AWQ g128"),
        pytest.param(quantized("gptq", group_size=64), [1, 2], id="GPTQ g64"),
        pytest.param(quantized("gptq", group_size=32), [1, 2, 4], id="GPTQ g32"),
        pytest.param(quantized("gptq", group_size=-1), [1, 2, 4, 8], id="GPTQ, one group per channel"),
        pytest.param(quantized("fp8", weight_block_size=[128, 128]), [1], id="FP8 in blocks"),
        pytest.param(quantized("fp8", activation_scheme="dynamic"), [1, 2, 4, 8], id="FP8 per tensor"),
        pytest.param(model(quantization="awq"), [1], id="AWQ named by the user, default groups"),
        pytest.param(
            quantized("compressed-tensors", config_groups={"group_0": {"weights": {"group_size": 64}}}),
            [1, 2],
            id="compressed-tensors in groups",
        ),
        pytest.param(
            quantized("compressed-tensors", config_groups={"group_0": {"weights": {"block_structure": [128, 128]}}}),
            [1],
            id="compressed-tensors in blocks",
        ),
        pytest.param(llama(), [1, 2, 4, 8], id="llama"),
        pytest.param(tiny(), [1, 2, 4], id="tiny"),
    ],
)
def test_sizes_that_divide(entry: dict[str, Any], allowed: list[int]) -> None:
    """Of 1, 2, 4 and 8 exactly these are allowed."""
    assert [size for size in (1, 2, 4, 8) if not tensor_parallel_faults(*read_model(entry), size)] == allowed


@pytest.mark.parametrize(
    ("entry", "size", "faults"),
    [
        pytest.param(
            tiny(),
            3,
            [
                "Total number of attention heads (4) must be divisible by tensor parallel size (3).",
                "the 2 key-value heads cannot be replicated evenly on 3 GPUs",
                "the vocabulary, 1024 padded to a multiple of 64, cannot be divided by 3",
            ],
            id="vLLM's own words for heads",
        ),
        pytest.param(
            llama(),
            3,
            [
                "Total number of attention heads (64) must be divisible by tensor parallel size (3).",
                "the 8 key-value heads cannot be divided by 3",
            ],
            id="KV heads are divided",
        ),
        pytest.param(
            model(arguments={"mm_encoder_tp_mode": "weights"}),
            8,
            [
                "the 12 vision heads cannot be divided by 8 (without arguments.mm-encoder-tp-mode the plan replicates "
                "the vision encoder instead)"
            ],
            id="vision heads",
        ),
        pytest.param(
            quantized("awq", **AWQ),
            2,
            ["intermediate_size 13696 / 2 = 6848 is not a multiple of the awq group size 128"],
            id="quantization groups",
        ),
        pytest.param(
            quantized("fp8", weight_block_size=[128, 128]),
            2,
            ["intermediate_size 13696 / 2 = 6848 is not a multiple of the fp8 block size 128x128"],
            id="quantization blocks",
        ),
    ],
)
def test_faults_verbatim(entry: dict[str, Any], size: int, faults: list[str]) -> None:
    """Every reason is named, with its numbers."""
    assert tensor_parallel_faults(*read_model(entry), size) == faults


def blocks(kind: str, heads: int, kv_heads: int, head_dim: int, intermediate: int = 512) -> dict[str, Any]:
    """Return a model whose weights are quantized in blocks of 128 x 128."""
    block = {"weights": {"block_structure": [128, 128]}}
    quantization = {"config_groups": {"group_0": block}} if kind != "fp8" else {"weight_block_size": [128, 128]}
    shape = {"num_attention_heads": heads, "num_key_value_heads": kv_heads, "head_dim": head_dim}
    return tiny(
        config={
            **TINY_CONFIG,
            **shape,
            "hidden_size": 512,
            "intermediate_size": intermediate,
            "quantization_config": {"quant_method": kind, **quantization},
        }
    )


#: What vLLM 0.32.0's own layers (QKVParallelLinear, MergedColumnParallelLinear, RowParallelLinear) said of blocks of
#: 128 x 128 in the sandbox's CPU build: heads, KV heads, head_dim, intermediate_size, size, whether they load.
#: ``fp8`` waives the check of merged weights and fails when it loads the scales of V: "start (5) + length (1) exceeds
#: dimension size (5)".
BLOCKS = [
    (8, 1, 64, 512, 1, False),
    (16, 2, 64, 512, 2, False),
    (16, 8, 64, 512, 8, False),
    (8, 2, 64, 512, 1, True),
    (16, 4, 64, 512, 2, True),
    (8, 1, 128, 512, 1, True),
    (16, 4, 128, 192, 1, False),
    (16, 4, 128, 384, 2, False),
    (16, 4, 128, 512, 2, True),
]


@pytest.mark.parametrize("kind", ["fp8", "compressed-tensors"])
@pytest.mark.parametrize(("heads", "kv_heads", "head_dim", "intermediate", "size", "loads"), BLOCKS)
def test_blocks_as_vllm_loads_them(
    kind: str, heads: int, kv_heads: int, head_dim: int, intermediate: int, size: int, loads: bool
) -> None:
    entry = blocks(kind, heads, kv_heads, head_dim, intermediate)
    assert (tensor_parallel_faults(*read_model(entry), size) == []) is loads


@pytest.mark.parametrize(
    ("entry", "size", "faults"),
    [
        (
            blocks("fp8", 8, 1, 64),
            1,
            ["the keys of a GPU, 1 x 64 = 64 is not a multiple of the fp8 block size 128x128"],
        ),
        (
            blocks("fp8", 16, 8, 64),
            8,
            [
                "the keys of a GPU, 1 x 64 = 64 is not a multiple of the fp8 block size 128x128",
                "the values of a GPU, 1 x 64 = 64 is not a multiple of the fp8 block size 128x128",
                "intermediate_size 512 / 8 = 64 is not a multiple of the fp8 block size 128x128",
            ],
        ),
    ],
)
def test_block_faults_verbatim(entry: dict[str, Any], size: int, faults: list[str]) -> None:
    assert tensor_parallel_faults(*read_model(entry), size) == faults


@pytest.mark.parametrize("size", ["auto", 1])
def test_a_model_whose_blocks_no_size_keeps_whole(size: Any) -> None:
    result = plan(tiny(config=blocks("fp8", 4, 1, 64)["config"], tensor_parallel_size=size, replicas=1))
    assert texts(result) == [
        (
            "model",
            "tiny-llama",
            "tensor_parallel_size_does_not_divide",
            "the keys of a GPU, 1 x 64 = 64 is not a multiple of the fp8 block size 128x128",
            "a tensor_parallel_size that divides the model: there is none",
            "choose another quantization",
        )
    ]


@pytest.mark.parametrize(
    ("entry", "size", "mode"),
    [
        pytest.param(model(arguments={}), 1, "weights", id="one GPU"),
        pytest.param(model(arguments={}), 4, "weights", id="12 heads on 4 GPUs"),
        pytest.param(model(arguments={}), 8, "data", id="12 heads on 8 GPUs"),
        pytest.param(model(arguments={"mm-encoder-tp-mode": "weights"}), 8, "weights", id="the user's word"),
        pytest.param(model(), 4, "data", id="the user's other word"),
        pytest.param(llama(), 8, "weights", id="no vision"),
    ],
)
def test_encoder_mode(entry: dict[str, Any], size: int, mode: str) -> None:
    """The vision encoder is divided where its heads can be, unless the user says where it lies."""
    assert encoder_mode(*read_model(entry), size) == mode


def test_the_plan_replicates_a_vision_encoder_that_cannot_be_divided() -> None:
    """The argument is rendered, the memory accounted, the reason said."""
    result = plan(model(arguments={}, tensor_parallel_size=8, replicas=1), machines=hosts(gpus(8)))
    assert texts(result) == []
    arguments = result["instances"][0]["arguments"]
    assert arguments[arguments.index("--mm-encoder-tp-mode") + 1] == "data"
    decided = result["models"]["autoglm"]
    assert 0.88e9 < decided["memory"]["replicated"] / 2 - 40 * 4096 * 256 * 0.75 < 0.90e9
    assert decided["reason"] == (
        "TP 8 as given: 13.0 GiB of 73.3 GiB per GPU; the vision encoder is whole on every GPU, because its 12 heads "
        "cannot be divided; replicas 1 as given"
    )
    divided = plan(model(arguments={}, tensor_parallel_size=4, replicas=1), machines=hosts(gpus(8)))
    assert "--mm-encoder-tp-mode" not in divided["instances"][0]["arguments"]
    mine = plan(model(tensor_parallel_size=8, replicas=1), machines=hosts(gpus(8)))
    assert mine["instances"][0]["arguments"].count("--mm-encoder-tp-mode") == 1
    assert "vision" not in mine["models"]["autoglm"]["reason"]


def test_experts() -> None:
    """Experts are divided only when they are spread over the GPUs."""
    entry = llama()
    entry["config"].update(num_experts=6, moe_intermediate_size=1408)
    assert tensor_parallel_faults(*read_model(entry), 4) == []
    entry["arguments"] = {"enable-expert-parallel": True}
    assert tensor_parallel_faults(*read_model(entry), 4) == [
        "the 6 experts cannot be divided by 4 (enable-expert-parallel)"
    ]


def changed(entry: dict[str, Any], **config: Any) -> dict[str, Any]:
    """Return the entry with changes in its configuration."""
    entry["config"].update(config)
    return entry


@pytest.mark.parametrize(
    ("entry", "accelerator", "floor"),
    [
        pytest.param(llama(), "cuda", (8, 0), id="bf16"),
        pytest.param(changed(llama(), torch_dtype="float16"), "cuda", (7, 5), id="fp16"),
        pytest.param(llama(arguments={"dtype": "half"}), "cuda", (7, 5), id="computed in fp16"),
        pytest.param(llama(quantization="fp8"), "cuda", (8, 9), id="FP8"),
        pytest.param(changed(llama(), quantization_config={"quant_method": "modelopt_fp4"}), "cuda", (10, 0), id="FP4"),
        pytest.param(changed(llama(), quantization_config={"quant_method": "mxfp4"}), "cuda", (8, 0), id="MXFP4"),
        pytest.param(llama(minimum_compute_capability="9.0"), "cuda", (9, 0), id="the user's own floor"),
        pytest.param(llama(minimum_compute_capability=7.0), "cuda", (8, 0), id="only upward"),
        pytest.param(llama(quantization="fp8"), "cpu", (7, 5), id="simulated GPUs compute nothing"),
    ],
)
def test_required_capability(entry: dict[str, Any], accelerator: str, floor: tuple[int, int]) -> None:
    """The highest of the floors counts."""
    assert required_capability(*read_model(entry), accelerator)[0] == floor
