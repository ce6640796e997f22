# SPDX-License-Identifier: Apache-2.0
# PRIVATE to the collection: do not import this from outside, it may change without notice.
"""The part of a model's config.json that the plan reads, as plain data that is safe to keep in an inventory.

A config.json comes from strangers, and what stands in an inventory is a template: a text in it could make the
controller run anything. So only known keys pass, and only numbers, truth values and short words.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

from ansible_collections.gpufleet.metal.plugins.module_utils._errors import InvalidInputError

from .architecture import KEY_ALIASES
from .reader import shown

#: Names of types, methods and architectures; nothing that a template or YAML could take for its own.
_WORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+-]{0,63}")
_LONGEST_LIST = 1024
#: Keys at the top of config.json, in text_config and in vision_config.
_KEYS = frozenset(
    {
        "architectures",
        "attention_bias",
        "depth",
        "dtype",
        "first_k_dense_replace",
        "head_dim",
        "image_size",
        "kv_lora_rank",
        "layer_types",
        "max_position_embeddings",
        "max_window_layers",
        "mm_tokens_per_image",
        "model_type",
        "moe_intermediate_size",
        "n_routed_experts",
        "n_shared_experts",
        "num_experts",
        "num_experts_per_tok",
        "num_heads",
        "num_local_experts",
        "num_nextn_predict_layers",
        "out_hidden_size",
        "patch_size",
        "q_lora_rank",
        "qk_nope_head_dim",
        "qk_rope_head_dim",
        "sliding_window",
        "sliding_window_pattern",
        "spatial_merge_size",
        "tie_word_embeddings",
        "torch_dtype",
        "use_sliding_window",
        "v_head_dim",
        "vocab_size",
        *KEY_ALIASES,
        *(alias for aliases in KEY_ALIASES.values() for alias in aliases),
    }
)
_ROPE = frozenset({"factor", "original_max_position_embeddings", "rope_type", "type"})
#: Mappings that are kept, with the keys that are kept of them; None: the same as at the top.
_BELOW: dict[str, frozenset[str] | None] = {
    "quantization_config": frozenset({"fmt", "group_size", "q_group_size", "quant_method", "weight_block_size"}),
    "rope_parameters": _ROPE,
    "rope_scaling": _ROPE,
    "text_config": None,
    "vision_config": None,
}
#: Of each of quantization_config.config_groups (compressed-tensors).
_WEIGHTS = frozenset({"block_structure", "group_size", "num_bits", "strategy", "type"})


def plan_keys(config: Mapping[str, Any], path: str = "config") -> dict[str, Any]:
    """Return the keys of a config.json that the plan reads, sorted; ``null`` counts as absent.

    layer_types that repeat (all but every n-th layer with sliding-window attention) become sliding_window_pattern.

    Args:
        config: the whole config.json.
        path: how an error names it.

    Raises:
        InvalidInputError: a value of such a key is neither a number, a truth value nor a short word.
    """
    kept = _picked(config, _KEYS, path)
    for key, keys in _BELOW.items():
        below = config.get(key)
        if isinstance(below, Mapping) and below:
            part = plan_keys(below, f"{path}.{key}") if keys is None else _picked(below, keys, f"{path}.{key}")
            if key == "quantization_config":
                part.update(_groups(below, f"{path}.{key}"))
            if key == "rope_parameters":
                part.update(_parts(below, _ROPE, f"{path}.{key}"))
            if part:
                kept[key] = part
    types = kept.get("layer_types")
    if isinstance(types, list):
        pattern = _pattern(types)
        if pattern is not None:
            del kept["layer_types"]
            # Without it, a window would be taken for that of all layers.
            if pattern > 1 or "sliding_window" in kept:
                kept["sliding_window_pattern"] = pattern
    return {key: kept[key] for key in sorted(kept)}


def _picked(values: Mapping[str, Any], keys: frozenset[str], path: str) -> dict[str, Any]:
    return {key: _plain(values[key], f"{path}.{key}") for key in sorted(keys) if values.get(key) is not None}


def _parts(values: Mapping[str, Any], keys: frozenset[str], path: str) -> dict[str, Any]:
    """Return the same keys of every mapping below one, whatever it is called there."""
    return {
        _plain(name, path): part
        for name, below in sorted(values.items(), key=lambda item: str(item[0]))
        if isinstance(below, Mapping) and (part := _picked(below, keys, f"{path}.{name}"))
    }


def _groups(values: Mapping[str, Any], path: str) -> dict[str, Any]:
    groups = values.get("config_groups")
    if not isinstance(groups, Mapping):
        return {}
    kept = {}
    for name in sorted(groups, key=str):
        weights = groups[name].get("weights") if isinstance(groups[name], Mapping) else None
        if isinstance(weights, Mapping):
            where = f"{path}.config_groups.{name}.weights"
            kept[_plain(name, where)] = {"weights": _picked(weights, _WEIGHTS, where)}
    return {"config_groups": kept} if kept else {}


def _plain(value: Any, path: str) -> Any:
    """Return a value that is safe to keep."""
    if isinstance(value, (list, tuple)) and len(value) <= _LONGEST_LIST:
        return [_plain(item, path) for item in value if item is not None]
    if isinstance(value, (bool, int)) or (isinstance(value, float) and math.isfinite(value)):
        return value
    if isinstance(value, str) and _WORD.fullmatch(value):
        return value
    raise InvalidInputError(
        f"{path} is {shown(value)}, wanted a number, true, false, a word of up to 64 letters, digits, '_', '.', '+' "
        f"and '-', or a list of up to {_LONGEST_LIST} of these"
    )


def _pattern(types: list[Any]) -> int | None:
    """Return n when every n-th layer has full attention and the others a sliding window; None when they do not."""
    first = types.index("full_attention") + 1 if "full_attention" in types else 0
    expected = [
        "full_attention" if first and (number + 1) % first == 0 else "sliding_attention" for number in range(len(types))
    ]
    return first if first and types == expected else None
