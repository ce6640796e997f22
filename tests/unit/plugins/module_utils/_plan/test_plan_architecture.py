# SPDX-License-Identifier: Apache-2.0
"""What a configuration says about a model's shape: latent attention, experts, sliding windows, vision encoders."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest

from ansible_collections.gpufleet.metal.plugins.module_utils._plan.architecture import Architecture, read_architecture
from ansible_collections.gpufleet.metal.plugins.module_utils._plan.findings import Finding
from ansible_collections.gpufleet.metal.plugins.module_utils._plan.known_models import KNOWN_MODELS
from ansible_collections.gpufleet.metal.plugins.module_utils._plan.schema import Model


def shape(config: dict[str, Any], **arguments: Any) -> Architecture:
    """Return the architecture of a configuration that the plan can read."""
    findings: list[Finding] = []
    model = Model("m", {}, {}, config, 1, "given", 1, 1, None, None, None, None, arguments)
    found = read_architecture(model, findings)
    assert findings == []
    assert found is not None
    return found


def known(name: str, **changes: Any) -> Architecture:
    """Return the architecture of a bundled model, its configuration changed at the top."""
    return shape({**KNOWN_MODELS[name]["config"], **changes})


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (
            "deepseek-v3",
            {
                "latent_values": 576,
                "head_dim": 192,
                "value_head_dim": 128,
                "experts": 256,
                "shared_experts": 1,
                "dense_layers": 3,
                "moe_intermediate_size": 2048,
                "max_positions": None,
            },
        ),
        (
            "glm-4.5-air",
            {
                "latent_values": None,
                "head_dim": 128,
                "kv_heads": 8,
                "experts": 128,
                "shared_experts": 1,
                "dense_layers": 1,
                "max_positions": 131072,
            },
        ),
        ("mixtral-8x7b", {"experts": 8, "moe_intermediate_size": 14336, "shared_experts": 0, "head_dim": 128}),
        ("qwen3-30b-a3b", {"head_dim": 128, "hidden_size": 2048, "heads": 32, "experts": 128, "sliding_layers": ()}),
        ("gpt-oss-20b", {"sliding_window": 128, "sliding_layers": tuple(range(0, 24, 2)), "experts": 32}),
        ("gemma-3-27b-it", {"sliding_window": 1024, "head_dim": 128, "vocabulary": 262208}),
        ("qwen2.5-7b-instruct", {"head_dim": 128, "sliding_window": None, "sliding_layers": (), "vision": None}),
    ],
)
def test_text(name: str, expected: dict[str, Any]) -> None:
    """Figures by the models' own configurations."""
    found = known(name)
    assert {key: getattr(found, key) for key in expected} == expected


def test_latent_attention_without_the_width_of_a_head() -> None:
    """DeepSeek's keys may stand alone; then the head is the hidden size's part."""
    found = shape(
        {
            "num_hidden_layers": 2,
            "hidden_size": 64,
            "num_attention_heads": 4,
            "kv_lora_rank": 512,
            "qk_rope_head_dim": 64,
        }
    )
    assert (found.latent_values, found.head_dim, found.value_head_dim) == (576, 16, 16)


@pytest.mark.parametrize(
    ("changes", "window", "layers"),
    [
        ({"sliding_window": 4096}, 4096, range(32)),
        ({"sliding_window": None}, None, ()),
        ({"sliding_window": 0}, None, ()),
        ({"sliding_window": 4096, "use_sliding_window": False}, None, ()),
        ({"sliding_window": 512, "sliding_window_pattern": 12}, 512, [*range(11), *range(12, 23), *range(24, 32)]),
        ({"sliding_window": 512, "sliding_window_pattern": 1}, None, ()),
        ({"sliding_window": 512, "layer_types": ["full_attention"] * 31 + ["sliding_attention"]}, 512, [31]),
        ({"sliding_window": 512, "layer_types": ["full_attention"] * 32}, None, ()),
        ({"sliding_window": 512, "model_type": "gemma2"}, 512, range(0, 32, 2)),
        ({"sliding_window": 512, "model_type": "gemma3_text", "num_hidden_layers": 7}, 512, [0, 1, 2, 3, 4, 6]),
        ({"sliding_window": 512, "model_type": "gpt_oss", "sliding_window_pattern": 4}, 512, range(0, 32, 2)),
        ({"sliding_window": 512, "model_type": "gpt_oss", "layer_types": ["full_attention"]}, 512, range(0, 32, 2)),
        ({"sliding_window": 512, "model_type": "phi3", "sliding_window_pattern": 6}, 512, range(32)),
        ({"sliding_window": 512, "model_type": "new", "sliding_window_pattern": 6}, None, ()),
        ({"sliding_window": 512, "model_type": "new"}, None, ()),
        ({"sliding_window": 512, "model_type": "qwen2"}, None, ()),
        ({"sliding_window": 512, "model_type": "qwen2", "use_sliding_window": True}, None, ()),
        (
            {"sliding_window": 512, "model_type": "qwen3", "use_sliding_window": True, "max_window_layers": 28},
            None,
            (),
        ),
        (
            {"sliding_window": 512, "model_type": "qwen2", "use_sliding_window": True, "max_window_layers": 0},
            512,
            range(32),
        ),
    ],
)
def test_sliding_windows(changes: dict[str, Any], window: int | None, layers: Iterable[int]) -> None:
    """Every way in which configurations say it, on a model of 32 layers, as vLLM understands it."""
    found = known("mistral-7b-v0.3", **changes)
    assert (found.sliding_window, found.sliding_layers) == (window, tuple(layers))


def test_five_of_six_layers_of_gemma_have_a_window() -> None:
    """62 layers; the last two have a window."""
    found = known("gemma-3-27b-it")
    assert sorted({*range(62)} - {*found.sliding_layers}) == list(range(5, 62, 6))


def test_a_window_that_is_disabled() -> None:
    """--disable-sliding-window makes full attention of all layers."""
    config = KNOWN_MODELS["gpt-oss-20b"]["config"]
    assert shape(config, disable_sliding_window=True).sliding_layers == ()
    assert len(shape(config, **{"disable-sliding-window": False}).sliding_layers) == 12


@pytest.mark.parametrize(("name", "layers"), [("glm-4.5-air", 1), ("deepseek-v3", 1), ("gpt-oss-20b", 0)])
def test_layers_that_predict_tokens(name: str, layers: int) -> None:
    """They are told apart from the others."""
    assert known(name).predict_layers == layers


@pytest.mark.parametrize(
    ("name", "layers", "hidden", "heads", "merge", "image_tokens", "billions"),
    [
        ("autoglm-phone-9b", 24, 1536, 12, 2, None, 0.892),
        ("qwen2.5-vl-7b-instruct", 32, 1280, 16, 2, None, 0.676),
        ("gemma-3-27b-it", 27, 1152, 16, 4, 256, 0.423),
    ],
)
def test_vision(
    name: str, layers: int, hidden: int, heads: int, merge: int, image_tokens: int | None, billions: float
) -> None:
    """Parameters within 1 % of those of the real encoders, which also have biases and norms."""
    vision = known(name).vision
    assert vision is not None
    assert (vision.layers, vision.hidden_size, vision.heads) == (layers, hidden, heads)
    assert (vision.merge_size, vision.image_tokens) == (merge, image_tokens)
    assert vision.parameters == pytest.approx(billions * 1e9, rel=0.01)


def test_what_a_published_vision_config_leaves_out() -> None:
    """Qwen2.5-VL's own config.json names the hidden size only; transformers knows the rest."""
    config = dict(KNOWN_MODELS["qwen2.5-vl-7b-instruct"]["config"])
    config["vision_config"] = {"model_type": "qwen2_5_vl", "hidden_size": 1280}
    assert shape(config).vision == known("qwen2.5-vl-7b-instruct").vision


def test_a_vision_encoder_that_is_not_loaded() -> None:
    """--language-model-only serves the text model alone."""
    assert shape(KNOWN_MODELS["gemma-3-27b-it"]["config"], **{"language-model-only": True}).vision is None


def test_a_wrong_number_of_the_vision_encoder_is_a_finding() -> None:
    """And the model has no shape."""
    findings: list[Finding] = []
    config = {**KNOWN_MODELS["gemma-3-27b-it"]["config"], "mm_tokens_per_image": "many"}
    model = Model("m", {}, {}, config, 1, "given", 1, 1, None, None, None, None, {})
    assert read_architecture(model, findings) is None
    assert [finding.found for finding in findings] == ["config.mm_tokens_per_image is 'many'"]


@pytest.mark.parametrize("key", ["rope_scaling", "rope_parameters"])
def test_stretched_positions(key: str) -> None:
    """A RoPE factor makes max_position_embeddings no bound, also one for a kind of layer (transformers 5)."""
    plain = known("mistral-7b-v0.3")
    assert plain.max_positions == 32768
    assert known("mistral-7b-v0.3", **{key: {"factor": 4.0}}).max_positions is None
    assert known("mistral-7b-v0.3", **{key: {"full_attention": {"factor": 4.0}}}).max_positions is None
