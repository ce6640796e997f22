# SPDX-License-Identifier: Apache-2.0
"""The reader of `vllm serve --help=all`."""

from __future__ import annotations

import importlib.util
import io
from pathlib import Path
from types import ModuleType

import pytest

HELP = """\
usage: vllm serve [model_tag] [options]

options:
  --disable-log-stats   Disable logging statistics. (default: False)
  --api-server-count API_SERVER_COUNT, -asc API_SERVER_COUNT
                        How many API server processes to run. --not-an-option
  -h, --help            show this help message and exit
  --enable-lora, --no-enable-lora
  --data-parallel-hybrid-lb, --no-data-parallel-hybrid-lb, -dph
  --api-key API_KEY [API_KEY ...]
  --hf-token [HF_TOKEN]
  --config-format ['auto', 'hf', 'mistral']
  --load-strategy {eager,lazy,None}
  --tool-call-parser {a,b} or name registered in --tool-parser-plugin
  --gpu-memory-utilization GPU_MEMORY_UTILIZATION, --device-memory-utilization GPU_MEMORY_UTILIZATION
"""


@pytest.fixture(scope="module")
def tool() -> ModuleType:
    """Return the tool as a module."""
    path = Path(__file__).parents[3] / "tools" / "vllm_options.py"
    if not path.exists():
        pytest.skip("tools are not part of the built collection")
    spec = importlib.util.spec_from_file_location("vllm_options_tool", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_parse(tool: ModuleType) -> None:
    """Kinds, other spellings and choices; help texts and short options are not read."""
    options, aliases, choices = tool.parse(HELP)
    assert options == {
        "disable-log-stats": "flag",
        "api-server-count": "value",
        "enable-lora": "switch",
        "data-parallel-hybrid-lb": "switch",
        "api-key": "values",
        "hf-token": "value",
        "config-format": "value",
        "load-strategy": "value",
        "tool-call-parser": "value",
        "gpu-memory-utilization": "value",
    }
    assert aliases == {"device-memory-utilization": "gpu-memory-utilization"}
    assert choices == {"config-format": ("auto", "hf", "mistral"), "load-strategy": ("eager", "lazy")}


def test_too_little_input(
    tool: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Another command's output does not become an empty table."""
    monkeypatch.setattr("sys.argv", ["vllm_options.py", "--version", "1.2.3"])
    monkeypatch.setattr("sys.stdin", io.StringIO(HELP))
    assert tool.main() == 1
    assert capsys.readouterr().err == "only 10 options found: is this the output of `vllm serve --help=all`?\n"
