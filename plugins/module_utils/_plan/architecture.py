# SPDX-License-Identifier: Apache-2.0
# PRIVATE to the collection: do not import this from outside, it may change without notice.
"""What a model's own config.json says about its shape, as far as memory and tensor parallelism need it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .engine import argument_value
from .findings import Finding, did_you_mean
from .reader import as_integer
from .schema import Model

#: Bytes per value, by the names that config.json, --dtype and --kv-cache-dtype use.
DTYPE_BYTES = {"float32": 4, "float": 4, "float16": 2, "half": 2, "bfloat16": 2}
#: What older configurations call the same thing.
KEY_ALIASES = {
    "num_hidden_layers": ("n_layer", "num_layers", "n_layers"),
    "hidden_size": ("n_embd", "d_model"),
    "num_attention_heads": ("n_head", "n_heads"),
    "num_key_value_heads": ("multi_query_group_num", "num_kv_heads", "n_head_kv"),
    "intermediate_size": ("ffn_hidden_size", "n_inner"),
}
#: When a configuration is silent: sizes above those of nearly all models, so that memory is not underestimated.
_DEFAULT_VOCABULARY = 262144
#: What transformers takes for keys that a published vision_config leaves out, by its model_type (or the model's).
_VISION_DEFAULTS = {
    # transformers, models/glm4v/configuration_glm4v.py (Glm4vVisionConfig)
    "glm4v": {"layers": 24, "hidden": 1536, "heads": 12, "intermediate": 13696},
    # transformers, models/qwen2_5_vl/configuration_qwen2_5_vl.py (Qwen2_5_VLVisionConfig)
    "qwen2_5_vl": {"layers": 32, "hidden": 1280, "heads": 16, "intermediate": 3420},
}
#: Kinds of models whose layers vLLM 0.32.0 gives a window each, as layer_types says (models/gemma2.py:155,
#: gemma3.py:153, gpt_oss.py:176, exaone4.py:173, and llama.py:186 for the rest), with transformers' pattern where the
#: configuration has none; None: all layers have the window then (engine/arg_utils.py:2248-2254).
_SLIDING_PATTERNS = {
    "exaone4": 4,
    "gemma2": 2,
    "gemma3": 6,
    "gemma3_text": 6,
    "gpt_oss": 2,
    "llama": None,
    "ministral": None,
    "ministral3": None,
    "mistral": None,
}
#: Kinds whose layers all have the window or none has (models/phi3.py, phimoe.py, mixtral.py).
_SLIDING_AS_ONE = frozenset({"mixtral", "phi3", "phimoe"})


@dataclass(frozen=True)
class Vision:
    """The vision encoder."""

    layers: int
    hidden_size: int
    heads: int
    intermediate_size: int
    out_hidden_size: int
    patch_size: int
    merge_size: int
    #: Number of parameters.
    parameters: int
    #: Tokens of one image when the model fixes them, whatever the image's size; None when they grow with it.
    image_tokens: int | None = None


@dataclass(frozen=True)
class Quantization:
    """How the weights are packed, as far as it limits tensor parallelism."""

    method: str
    #: Values that share a scale along a row; None when the scale is per tensor or per channel.
    group_size: int | None = None
    #: (out, in) of a block that shares a scale; None when there are no blocks.
    block: tuple[int, int] | None = None


@dataclass(frozen=True)
class Architecture:
    """The shape of a model."""

    layers: int
    hidden_size: int
    heads: int
    kv_heads: int
    head_dim: int
    value_head_dim: int
    intermediate_size: int
    vocabulary: int
    #: Bytes per value of activations, and of the KV cache unless --kv-cache-dtype says otherwise.
    dtype_bytes: int
    dtype: str
    experts: int = 0
    #: Width of one routed expert.
    moe_intermediate_size: int = 0
    #: Experts that every token passes, beside the routed ones.
    shared_experts: int = 0
    #: The first layers of a mixture of experts that have none.
    dense_layers: int = 0
    #: Values per token and layer when attention is latent (MLA: kv_lora_rank + qk_rope_head_dim), else None.
    latent_values: int | None = None
    #: Tokens that a layer with sliding-window attention looks back, and which layers, from 0, vLLM treats so.
    sliding_window: int | None = None
    sliding_layers: tuple[int, ...] = ()
    #: Further layers that predict several tokens at once; vLLM loads them for speculative decoding only.
    predict_layers: int = 0
    #: Longest context by max_position_embeddings; None when it is unknown or stretched by RoPE scaling.
    max_positions: int | None = None
    vision: Vision | None = None
    quantization: Quantization | None = None


class _Config:
    """Typed access to a configuration with its aliases."""

    def __init__(self, model: Model, path: str, values: Mapping[str, Any], findings: list[Finding]) -> None:
        self.model, self.path, self.values, self.findings = model, path, values, findings
        self.ok = True

    def number(self, key: str, default: int | None = None) -> int:
        """Return a positive number; a missing one without default is a finding."""
        for name in (key, *KEY_ALIASES.get(key, ())):
            if self.values.get(name) is None:
                continue
            number = as_integer(self.values[name])
            if number is not None and number > 0:
                return number
            self._report("wrong_type", f"{self.path}.{name} is {self.values[name]!r}", f"correct {self.path}.{name}")
            return 1
        if default is None:
            close = did_you_mean(key, [str(name) for name in self.values])
            self._report(
                "missing_value",
                f"{self.path}.{key} is not set{close}",
                "copy the model's config.json whole into config",
            )
            return 1
        return default

    def _report(self, code: str, found: str, fix: str) -> None:
        self.ok = False
        self.findings.append(Finding(self.model.name, code, found, "a whole number, 1 or more", fix, "model"))


def _below(config: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = config.get(key)
    return value if isinstance(value, Mapping) else {}


def _dtype(model: Model, config: Mapping[str, Any], text: Mapping[str, Any]) -> str:
    """Return the data type that vLLM will compute in: --dtype, else the configuration's; float32 is halved by auto."""
    wanted = str(argument_value(model.arguments, "dtype", "auto"))
    if wanted in DTYPE_BYTES:
        return {"half": "float16", "float": "float32"}.get(wanted, wanted)
    for values in (text, config):
        for key in ("dtype", "torch_dtype"):
            found = str(values.get(key) or "").replace("torch.", "")
            if found in ("float16", "bfloat16"):
                return found
    return "bfloat16"


def _quantization(model: Model, config: Mapping[str, Any], text: Mapping[str, Any]) -> Quantization | None:
    """Return how the weights are packed, from quantization_config and the model's own ``quantization``."""
    values = _below(config, "quantization_config") or _below(text, "quantization_config")
    method = model.quantization or (str(values["quant_method"]) if values.get("quant_method") else None)
    if method is None:
        return None
    group = as_integer(values.get("group_size", values.get("q_group_size")))
    block = values.get("weight_block_size")
    for scheme in _below(values, "config_groups").values():
        weights = _below(scheme, "weights") if isinstance(scheme, Mapping) else {}
        group = as_integer(weights.get("group_size")) if weights.get("group_size") is not None else group
        block = weights.get("block_structure") or block
    if method.split("_")[0] in ("awq", "gptq") and group is None:
        group = 128
    sizes = [as_integer(size) for size in block] if isinstance(block, (list, tuple)) else []
    pair = (sizes[0], sizes[1]) if len(sizes) == 2 and sizes[0] and sizes[1] else None
    return Quantization(method, group if group is not None and group > 0 else None, pair)


def _vision(model: Model, config: Mapping[str, Any], text_hidden: int, findings: list[Finding]) -> Vision | None:
    """Read the vision encoder, if the model has one.

    Parameters of the blocks and of the merger, without biases and norms: transformers' Glm4vVisionModel,
    Qwen2_5_VisionTransformerPretrainedModel, SiglipVisionModel with Gemma3MultiModalProjector.
    """
    values = _below(config, "vision_config")
    if not values or argument_value(model.arguments, "language-model-only", False) is True:
        return None
    kind = str(values.get("model_type", config.get("model_type", "")))
    defaults = next((_VISION_DEFAULTS[name] for name in _VISION_DEFAULTS if kind.startswith(name)), {})
    reader = _Config(model, "config.vision_config", values, findings)
    layers = reader.number("depth", reader.number("num_hidden_layers", defaults.get("layers", 24)))
    hidden = reader.number("hidden_size", defaults.get("hidden", 1280))
    heads = reader.number("num_heads", reader.number("num_attention_heads", defaults.get("heads", 16)))
    intermediate = reader.number("intermediate_size", defaults.get("intermediate", 4 * hidden))
    out_hidden = reader.number("out_hidden_size", text_hidden)
    patch = reader.number("patch_size", 14)
    merge = reader.number("spatial_merge_size", 2)
    image_tokens = None
    mlp = intermediate
    if kind.startswith("glm4v"):
        # The blocks' MLP is out_hidden_size wide, intermediate_size is the merger's.
        mlp = out_hidden
        merger = merge * merge * hidden * out_hidden + out_hidden * out_hidden + 3 * out_hidden * intermediate
        block = 4 * hidden * hidden + 3 * hidden * mlp
    elif kind.startswith("siglip"):
        # Every image is resized to image_size and pooled to mm_tokens_per_image tokens.
        side = max(1, reader.number("image_size", 896) // patch)
        if config.get("mm_tokens_per_image") is not None:
            image_tokens = _Config(model, "config", config, findings).number("mm_tokens_per_image")
            merge = max(1, side // max(1, math.isqrt(image_tokens)))
        merger = side * side * hidden + hidden * out_hidden
        block = 4 * hidden * hidden + 2 * hidden * mlp
    else:
        merged = merge * merge * hidden
        merger = merged * merged + merged * out_hidden
        block = 4 * hidden * hidden + 3 * hidden * mlp
    parameters = layers * block + merger + 2 * 3 * patch * patch * hidden
    return Vision(layers, hidden, heads, mlp, out_hidden, patch, merge, parameters, image_tokens)


def _sliding(model: Model, text: Mapping[str, Any], layers: int) -> tuple[int | None, tuple[int, ...]]:
    """Return (window in tokens, the layers with it), (None, ()) without sliding-window attention.

    transformers: layer_types names each layer; with sliding_window_pattern p instead, layer i is full when
    (i + 1) % p == 0. Qwen's use_sliding_window, false unless given, leaves the first max_window_layers full; vLLM gives
    such a model one kind of layers only (models/qwen2.py:351). A kind of model that is not known to have windows in
    vLLM counts as full attention.
    """
    window = as_integer(text.get("sliding_window"))
    if window is None or window < 1 or argument_value(model.arguments, "disable-sliding-window", False) is True:
        return None, ()
    kind = str(text.get("model_type"))
    types = text.get("layer_types")
    given = as_integer(text.get("sliding_window_pattern"))
    # gpt-oss has its pattern in vLLM's code, whatever the configuration says.
    pattern = given if given is not None and given > 0 and kind != "gpt_oss" else _SLIDING_PATTERNS.get(kind)
    if kind.startswith("qwen"):
        as_one = text.get("use_sliding_window") is True and as_integer(text.get("max_window_layers")) == 0
        numbers = tuple(range(layers)) if as_one else ()
    elif text.get("use_sliding_window") is False:
        numbers = ()
    elif kind in _SLIDING_AS_ONE:
        numbers = tuple(range(layers))
    elif kind not in _SLIDING_PATTERNS:
        numbers = ()
    elif isinstance(types, (list, tuple)) and kind != "gpt_oss":
        numbers = tuple(number for number, name in enumerate(types[:layers]) if name == "sliding_attention")
    else:
        numbers = tuple(number for number in range(layers) if pattern is None or (number + 1) % pattern)
    return (window, numbers) if numbers else (None, ())


def read_architecture(model: Model, findings: list[Finding]) -> Architecture | None:
    """Return the model's shape, or None after a finding when its configuration lacks what the plan needs.

    Rules of head_dim and kv heads: vLLM 0.32.0, transformers_utils/model_arch_config_convertor.py:77-164. With latent
    attention (MLA) a head's queries and keys are qk_nope_head_dim + qk_rope_head_dim wide, its values v_head_dim.
    """
    config = model.config
    text = _below(config, "text_config") or config
    reader = _Config(model, "config.text_config" if text is not config else "config", text, findings)
    layers = reader.number("num_hidden_layers")
    hidden = reader.number("hidden_size")
    heads = reader.number("num_attention_heads")
    kv_heads = reader.number("num_key_value_heads", heads)
    head_dim = reader.number("head_dim", max(1, hidden // heads))
    value_head_dim = head_dim
    rope = _below(text, "rope_scaling") or _below(text, "rope_parameters")
    # transformers 5 may keep one such mapping for each kind of layer.
    ropes = [rope, *(part for part in rope.values() if isinstance(part, Mapping))]
    stretched = any(part.get("factor") is not None for part in ropes)
    stretched = stretched or bool(argument_value(model.arguments, "hf-overrides", None))
    latent = None
    if text.get("kv_lora_rank") is not None:
        latent = reader.number("kv_lora_rank") + reader.number("qk_rope_head_dim")
        if text.get("qk_nope_head_dim") is not None:
            head_dim = reader.number("qk_nope_head_dim") + reader.number("qk_rope_head_dim")
        value_head_dim = reader.number("v_head_dim", head_dim)
    dtype = _dtype(model, config, text)
    moe = reader.number("moe_intermediate_size", reader.number("intermediate_size", 4 * hidden))
    experts = 0
    for key in ("num_experts", "n_routed_experts", "num_local_experts"):
        experts = experts or (as_integer(text.get(key)) or 0)
    window, sliding_layers = _sliding(model, text, layers)
    before = len(findings)
    vision = _vision(model, config, hidden, findings)
    if not reader.ok or len(findings) > before:
        return None
    return Architecture(
        layers=layers,
        hidden_size=hidden,
        heads=heads,
        kv_heads=kv_heads,
        head_dim=head_dim,
        value_head_dim=value_head_dim,
        intermediate_size=reader.number("intermediate_size", 4 * hidden),
        vocabulary=reader.number("vocab_size", _DEFAULT_VOCABULARY),
        dtype_bytes=DTYPE_BYTES[dtype],
        dtype=dtype,
        experts=experts,
        moe_intermediate_size=moe if experts else 0,
        shared_experts=(as_integer(text.get("n_shared_experts")) or 0) if experts else 0,
        dense_layers=min(layers, as_integer(text.get("first_k_dense_replace")) or 0) if experts else 0,
        latent_values=latent,
        sliding_window=window,
        sliding_layers=sliding_layers,
        predict_layers=max(0, as_integer(text.get("num_nextn_predict_layers")) or 0),
        max_positions=None if stretched else (as_integer(text.get("max_position_embeddings")) or None),
        vision=vision,
        quantization=_quantization(model, config, text),
    )
