# SPDX-License-Identifier: Apache-2.0
"""The command that adds a model to the bundled table, and the document that shows the table."""

from __future__ import annotations

import ast
import importlib.util
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from ansible_collections.gpufleet.metal.plugins.module_utils._plan.known_models import KNOWN_MODELS
from ansible_collections.gpufleet.metal.tools.checks import known_models
from ansible_collections.gpufleet.metal.tools.checks.repository import ROOT

CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "hidden_size": 64,
    "num_attention_heads": 4,
    "num_hidden_layers": 2,
    "vocab_size": 1024,
    "max_position_embeddings": 4096,
    "chat_template": "{{ not kept }}",
}
SOURCE = "https://huggingface.co/org/tiny/blob/main/config.json"


@pytest.fixture(scope="module")
def tool() -> ModuleType:
    """Return the tool as a module."""
    spec = importlib.util.spec_from_file_location("known_models_tool", ROOT / "tools" / "known_models.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def table(tmp_path: Path, tool: ModuleType) -> Path:
    """Return a copy of the table."""
    path = tmp_path / "known_models.py"
    path.write_text(tool.TABLE.read_text(encoding="utf-8"), encoding="utf-8")
    return path


def arguments(table: Path, *further: str, config: Any = None, **changed: str) -> list[str]:
    """Return the command line that adds a tiny model; ``changed`` replaces values of options."""
    path = table.parent / "config.json"
    config = CONFIG if config is None else config
    path.write_text(config if isinstance(config, str) else json.dumps(config), encoding="utf-8")
    options = {"name": "tiny", "config": str(path), "source": SOURCE, "table": str(table), **changed}
    return ["add", *(text for key, value in options.items() for text in (f"--{key}", value)), *further]


def test_the_table_is_as_the_tool_writes_it(tool: ModuleType) -> None:
    """So a change by hand cannot stay unnoticed, and the tool changes nothing but the new entry."""
    text = tool.TABLE.read_text(encoding="utf-8")
    assert tool.render(KNOWN_MODELS) == text
    assert tool.load(tool.TABLE) == KNOWN_MODELS


def test_add(tool: ModuleType, table: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The entry is sorted in, with the keys that the plan reads, and the other entries stay as they are."""
    index = table.parent / "model.safetensors.index.json"
    index.write_text('{"metadata": {"total_size": 350000}, "weight_map": {}}', encoding="utf-8")
    further = [
        "--index",
        str(index),
        "--repository",
        "org/tiny",
        "--repository",
        "org/Tiny-Instruct",
        "--note",
        "Small.",
    ]
    assert tool.main(arguments(table, *further)) == 0
    found = tool.load(table)
    assert found.pop("tiny") == {
        "repositories": ["org/tiny", "org/Tiny-Instruct"],
        "config": {key: CONFIG[key] for key in sorted(CONFIG) if key != "chat_template"},
        "weights_bytes": 350000,
        "weights_from": "index",
        "source": SOURCE,
        "note": "Small.",
    }
    assert found == KNOWN_MODELS
    assert capsys.readouterr().out == "tiny: added; now run `python -m tools.checks.known_models --write`\n"


def test_add_without_an_index(tool: ModuleType, table: Path) -> None:
    """Then the figure is counted from parameters, unless it is said."""
    assert tool.main(arguments(table, "--weights-bytes", "350000")) == 0
    assert tool.load(table)["tiny"]["weights_from"] == "parameters"
    assert "note" not in tool.load(table)["tiny"]


@pytest.mark.parametrize(
    ("changed", "config", "further", "message"),
    [
        ({"name": "phi-4"}, CONFIG, [], "--name: the table has phi-4 already; remove that entry first to replace it"),
        ({"name": "Tiny"}, CONFIG, [], "--name is 'Tiny', wanted up to 63 of a-z, 0-9, '.', '_' and '-'"),
        (
            {"source": "my disk"},
            CONFIG,
            [],
            "--source is 'my disk', wanted the https:// address where the configuration",
        ),
        ({}, CONFIG, ["--repository", "tiny"], "--repository is 'tiny', wanted organisation/name"),
        ({}, CONFIG, ["--repository", "MICROSOFT/Phi-4"], "--repository: MICROSOFT/Phi-4 belongs to phi-4 already"),
        ({}, "{", [], "{directory}/config.json: Expecting property name"),
        ({}, [], [], "--config holds a list, wanted the JSON object of a config.json"),
        (
            {},
            {"hidden_size": 64, "num_attention_heads": 4},
            [],
            "--config: config.num_hidden_layers is not set, wanted a whole number, 1 or more",
        ),
        ({}, {**CONFIG, "dtype": "{{"}, [], '--config: config.dtype is "{{", wanted a number'),
        ({"weights-bytes": "0"}, CONFIG, [], "the weights have 0 bytes, wanted 1 or more"),
    ],
)
def test_what_is_refused(
    tool: ModuleType,
    table: Path,
    capsys: pytest.CaptureFixture[str],
    changed: dict[str, str],
    config: Any,
    further: list[str],
    message: str,
) -> None:
    """With a sentence, and the table stays as it was."""
    before = table.read_text(encoding="utf-8")
    assert tool.main(arguments(table, *further, config=config, **{"weights-bytes": "350000", **changed})) == 1
    assert capsys.readouterr().err.startswith(message.replace("{directory}", str(table.parent)))
    assert table.read_text(encoding="utf-8") == before


@pytest.mark.parametrize(
    "content", ["{}", "[]", '{"metadata": {"total_size": true}}', '{"metadata": {"total_size": "1"}}']
)
def test_an_index_without_a_size(
    tool: ModuleType, table: Path, capsys: pytest.CaptureFixture[str], content: str
) -> None:
    """The message names the file and the key."""
    index = table.parent / "index.json"
    index.write_text(content, encoding="utf-8")
    assert tool.main(arguments(table, "--index", str(index))) == 1
    assert capsys.readouterr().err.startswith(f"{index}: metadata.total_size is ")


def test_long_texts_and_lists(tool: ModuleType) -> None:
    """They are folded as `ruff format` folds them, and stay the same values."""
    value = {
        "note": "word " * 60 + "end",
        "url": "https://" + "x" * 300,
        "numbers": list(range(100)),
        "short": [1, 2],
        "nothing": {"a": True},
    }
    text = tool.literal(value, 0, 0)
    assert ast.literal_eval(text) == value
    assert max(len(line) for line in text.splitlines()) <= 120


def test_the_document_agrees() -> None:
    """docs/models.md shows the table."""
    text = (ROOT / known_models.DOCUMENT).read_text(encoding="utf-8")
    assert known_models.table(KNOWN_MODELS) in text


def test_a_row() -> None:
    """What operators see of a model."""
    rows = {line.split(" | ")[0].lstrip("| "): line for line in known_models.table(KNOWN_MODELS).splitlines()}
    assert rows["`qwen3-30b-a3b`"].startswith(
        "| `qwen3-30b-a3b` | Qwen/Qwen3-30B-A3B | 48 | 32 (4) | 128 | 40960 | 61.06 GB bfloat16 | [configuration]("
    )
    assert "| 128 (latent) | 256 |" in rows["`deepseek-v3`"]
