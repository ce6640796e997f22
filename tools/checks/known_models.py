# SPDX-License-Identifier: Apache-2.0
"""Keep docs/models.md equal to the bundled table of well-known models.

    python -m tools.checks.known_models --check
    python -m tools.checks.known_models --write

The table stands between `<!-- models:start -->` and `<!-- models:end -->`; everything else is written by hand.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Any

from .generated import between, differences, markdown_table, wants_writing
from .gpu_catalogue import load
from .repository import ROOT, report

TABLE = "plugins/module_utils/_plan/known_models.py"
DOCUMENT = "docs/models.md"
MARKER = "models"
COLUMNS = ("`known_model`", "Repositories", "Layers", "Heads (KV)", "Experts", "Context", "Weights", "From", "Note")


def row(name: str, known: Mapping[str, Any]) -> tuple[object, ...]:
    """Return the cells of one model."""
    config = known["config"]
    text = config.get("text_config", config)
    experts = text.get("n_routed_experts") or text.get("num_experts") or text.get("num_local_experts")
    method = config.get("quantization_config", {}).get("quant_method") or "bfloat16"
    latent = "latent" if "kv_lora_rank" in text else text.get("num_key_value_heads", text["num_attention_heads"])
    return (
        f"`{name}`",
        ", ".join(known["repositories"]),
        text["num_hidden_layers"],
        f"{text['num_attention_heads']} ({latent})",
        experts or "-",
        text["max_position_embeddings"],
        f"{known['weights_bytes'] / 10**9:.2f} GB {method}",
        f"[configuration]({known['source']}), {known['weights_from']}",
        known.get("note", ""),
    )


def table(models: Mapping[str, Mapping[str, Any]]) -> str:
    """Return the whole table in the order of the data."""
    return markdown_table(COLUMNS, (row(name, known) for name, known in models.items()))


def main(arguments: Sequence[str]) -> int:
    """Check or write the table."""
    write = wants_writing("known_models", arguments)
    models = load(ROOT / TABLE).KNOWN_MODELS
    problems = differences(
        "known_models", ROOT / DOCUMENT, TABLE, lambda old: between(MARKER, old, table(models)), write
    )
    return report("known_models", problems, f"{len(models)} models agree")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
