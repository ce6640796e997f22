# SPDX-License-Identifier: Apache-2.0
"""The bundled table agrees with itself: the weights have as many bytes as the configuration has parameters."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from ansible_collections.gpufleet.metal.plugins.module_utils._plan.findings import natural_key
from ansible_collections.gpufleet.metal.plugins.module_utils._plan.known_models import KNOWN_MODELS


def attention(text: Mapping[str, Any]) -> int:
    """Parameters of the attention of one layer, without norms."""
    hidden, heads = text["hidden_size"], text["num_attention_heads"]
    if "kv_lora_rank" in text:
        queries, latent = text["q_lora_rank"], text["kv_lora_rank"]
        nope, rope, value = text["qk_nope_head_dim"], text["qk_rope_head_dim"], text["v_head_dim"]
        down = hidden * (queries + latent + rope)
        up = heads * (queries * (nope + rope) + latent * (nope + value))
        return down + up + heads * value * hidden
    head_dim = text.get("head_dim", hidden // heads)
    return hidden * head_dim * (2 * heads + 2 * text.get("num_key_value_heads", heads))


def feed_forward(text: Mapping[str, Any], layer: int) -> tuple[int, int]:
    """Parameters of one layer's (experts, everything else of its feed-forward part)."""
    hidden = text["hidden_size"]
    experts = text.get("n_routed_experts") or text.get("num_experts") or text.get("num_local_experts") or 0
    if not experts or layer < text.get("first_k_dense_replace", 0):
        return 0, 3 * hidden * text["intermediate_size"]
    width = text.get("moe_intermediate_size", text["intermediate_size"])
    return 3 * hidden * width * experts, 3 * hidden * width * text.get("n_shared_experts", 0) + hidden * experts


def vision(values: Mapping[str, Any], text_hidden: int) -> int:
    """Parameters of the vision encoder and of what leads to the text model."""
    hidden, out = values["hidden_size"], values.get("out_hidden_size", text_hidden)
    width = values["intermediate_size"]
    patches = 3 * 2 * values["patch_size"] ** 2 * hidden
    merged = hidden * values.get("spatial_merge_size", 1) ** 2
    if values["model_type"] == "glm4v":
        blocks = values["depth"] * (4 * hidden**2 + 3 * hidden * out)
        return patches + blocks + merged * out + out**2 + 3 * out * width
    if values["model_type"] == "qwen2_5_vl":
        return patches + values["depth"] * (4 * hidden**2 + 3 * hidden * width) + merged**2 + merged * out
    positions = (values["image_size"] // values["patch_size"]) ** 2 * hidden
    return patches + positions + values["num_hidden_layers"] * (4 * hidden**2 + 2 * hidden * width) + hidden * out


def weights(config: Mapping[str, Any]) -> float:
    """Bytes of a model's weights, counted from its configuration; norms and biases are left out."""
    text = config.get("text_config", config)
    method = config.get("quantization_config", {}).get("quant_method")
    # Bytes of a value in linear layers and in experts; scales of blocks of 128 x 128 do not count.
    linear, expert = {"fp8": (1.0, 1.0), "mxfp4": (2.0, 4.25 / 8), None: (2.0, 2.0)}[method]
    embedding = text["vocab_size"] * text["hidden_size"]
    tied = text.get("tie_word_embeddings", config.get("tie_word_embeddings", False))
    total = 2.0 * embedding * (1 if tied else 2)
    further = text.get("num_nextn_predict_layers", 0)
    # A layer that predicts further tokens has its own embeddings and joins two hidden states.
    total += further * 2.0 * (2 * embedding + 2 * text["hidden_size"] ** 2)
    for layer in range(text["num_hidden_layers"] + further):
        experts, others = feed_forward(text, layer)
        total += linear * (attention(text) + others) + expert * experts
    if "vision_config" in config:
        total += 2.0 * vision(config["vision_config"], text["hidden_size"])
    return total


@pytest.mark.parametrize("name", list(KNOWN_MODELS))
def test_weights_agree_with_the_configuration(name: str) -> None:
    """Within 2 %: norms and biases are not counted."""
    known = KNOWN_MODELS[name]
    assert known["weights_bytes"] == pytest.approx(weights(known["config"]), rel=0.02)


@pytest.mark.parametrize("name", list(KNOWN_MODELS))
def test_an_entry_is_whole(name: str) -> None:
    """Each says where its figures come from."""
    known = KNOWN_MODELS[name]
    assert list(known) in (
        ["repositories", "config", "weights_bytes", "weights_from", "source"],
        ["repositories", "config", "weights_bytes", "weights_from", "source", "note"],
    )
    assert known["weights_from"] in ("index", "headers", "parameters")
    assert known["source"].startswith("https://")
    assert known["repositories"]


def test_the_table_is_sorted_and_names_no_repository_twice() -> None:
    """AutoGLM-Phone-9B comes first by its name already."""
    assert list(KNOWN_MODELS) == sorted(KNOWN_MODELS, key=natural_key)
    assert next(iter(KNOWN_MODELS)) == "autoglm-phone-9b"
    repositories = [repository.lower() for known in KNOWN_MODELS.values() for repository in known["repositories"]]
    assert len(repositories) == len(set(repositories))
    assert len(KNOWN_MODELS) >= 20


def test_the_named_model() -> None:
    """AutoGLM-Phone-9B: two KV heads, twelve vision heads; the caveat about its numbers is stated."""
    known = KNOWN_MODELS["autoglm-phone-9b"]
    text, encoder = known["config"]["text_config"], known["config"]["vision_config"]
    assert (text["num_key_value_heads"], encoder["num_heads"], text["intermediate_size"]) == (2, 12, 13696)
    assert "check it with describe_models" in known["note"]
