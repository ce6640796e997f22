# SPDX-License-Identifier: Apache-2.0
"""Start real engines one after the other and write down what each says about its KV cache.

Usage: measure.py CASES RESULTS. Runs inside the engine's image, without network. CASES is JSON: a list of mappings with
`name`, `config` (config.json), `dtype` of the saved weights, `arguments` and `environment` as the plan renders them. A
model with random weights is made for each at the place where the arguments look for it; config.json alone where the
engine makes weights up itself (`--load-format dummy`). RESULTS gets a list of mappings: `name`, `version`, `metric`
(the labels of vllm:cache_config_info) and `log` (the engine's own line).

Each engine has a process of its own, forked from this one when vLLM is imported: nothing is left of one for the next,
and seconds are enough. The weights are made in yet another process, because OpenMP's threads do not survive a fork.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import re
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
import vllm
from transformers import AutoConfig, AutoModelForCausalLM
from vllm.engine.arg_utils import EngineArgs
from vllm.entrypoints.cli import serve
from vllm.utils.argparse_utils import FlexibleArgumentParser
from vllm.v1.engine.llm_engine import LLMEngine

METRIC = "vllm:cache_config_info"
LINE = re.compile(r"KV cache size: .* tokens, Maximum concurrency for .* tokens per request: [0-9.]+x")
FORK = multiprocessing.get_context("fork")


def make_models(cases: list[dict[str, Any]]) -> None:
    """Save a model with seeded random weights for every case."""
    for case in cases:
        config = AutoConfig.for_model(**case["config"])
        if "--load-format" in case["arguments"]:
            config.save_pretrained(case["arguments"][0])
            continue
        torch.manual_seed(0)
        network = AutoModelForCausalLM.from_config(config)
        network.to(getattr(torch, case["dtype"])).save_pretrained(case["arguments"][0], safe_serialization=True)


def engine_arguments(arguments: list[str]) -> EngineArgs:
    """Parse the arguments of `vllm serve` with its own parser."""
    top = FlexibleArgumentParser(prog="vllm")
    command = serve.cmd_init()[0]
    command.subparser_init(top.add_subparsers(dest="subparser"))
    parsed = top.parse_args(["serve", *arguments])
    parsed.model = parsed.model_tag
    command.validate(parsed)
    return EngineArgs.from_cli_args(parsed)


def start(case: dict[str, Any], log: str, answer: str) -> None:
    """Start one engine with its output in I(log), and write the labels of its metric."""
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    os.dup2(output, 1)
    os.dup2(output, 2)
    # Without a process of its own for the engine's core: the metric and the log line are the same.
    os.environ.update({**case["environment"], "VLLM_ENABLE_V1_MULTIPROCESSING": "0"})
    config = engine_arguments(case["arguments"]).create_engine_config()
    # The CPU platform asks for workers that import everything anew, half a minute for each.
    os.environ["VLLM_WORKER_MULTIPROC_METHOD"] = "fork"
    engine = LLMEngine.from_vllm_config(config, disable_log_stats=False)
    labels = [metric.labels for metric in engine.get_metrics() if metric.name == METRIC]
    Path(answer).write_text(json.dumps(labels), encoding="utf-8")


def measure(case: dict[str, Any], directory: Path) -> dict[str, Any]:
    """Return what the engine of one case says, or raise with the end of its log."""
    log, answer = directory / f"{case['name']}.log", directory / f"{case['name']}.json"
    process = FORK.Process(target=start, args=(case, str(log), str(answer)))
    process.start()
    process.join()
    text = log.read_text(encoding="utf-8", errors="replace")
    line = LINE.search(text)
    if process.exitcode != 0 or line is None or not answer.exists():
        raise RuntimeError(f"{case['name']} ended with {process.exitcode}:\n{text[-6000:]}")
    [labels] = json.loads(answer.read_text(encoding="utf-8"))
    return {"name": case["name"], "version": vllm.__version__, "metric": labels, "log": line[0]}


def main() -> None:
    """Measure all cases."""
    cases = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    maker = FORK.Process(target=make_models, args=(cases,))
    maker.start()
    maker.join()
    if maker.exitcode != 0:
        raise RuntimeError(f"the models could not be made: exit status {maker.exitcode}")
    with tempfile.TemporaryDirectory() as name:
        results = [measure(case, Path(name)) for case in cases]
    Path(sys.argv[2]).write_text(json.dumps(results, indent=2), encoding="utf-8")


if __name__ == "__main__":
    main()
