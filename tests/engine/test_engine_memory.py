# SPDX-License-Identifier: Apache-2.0
"""The KV cache of the plan equals that of the real engine, block for block.

Starts vLLM's CPU build from the sandbox's image (tools/sandbox/build.sh) with the arguments and the environment that
the plan renders, and compares what the plan says with the engine's metric vllm:cache_config_info and its own log.

What engines on GPUs do differently is asked of vLLM's own functions: their answers are a fixture of the unit tests,
which is held against them here. `python tests/engine/test_engine_memory.py --record` writes it anew.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT / "build"))

from ansible_collections.gpufleet.metal.plugins.module_utils._plan.builder import build_plan  # noqa: E402
from ansible_collections.gpufleet.metal.plugins.module_utils._plan.schema import Inventory  # noqa: E402

IMAGE = "gpufleet-sandbox-vllm:0.32.0"
VERSION = "0.32.0"
LAYOUTS = ROOT / "tests" / "unit" / "fixtures" / "kv_cache" / "vllm_groups.json"
LOG = re.compile(r"KV cache size: ([0-9,]+) tokens, Maximum concurrency for ([0-9,]+) tokens per request: ([0-9.]+)x")


@dataclass(frozen=True)
class Case:
    """One configuration: what differs from the others is named."""

    layers: int = 2
    heads: int = 4
    kv_heads: int = 2
    head_dim: int = 32
    size: int = 1
    context: int = 1024
    cache_gib: int = 1
    dtype: str = "bfloat16"
    kind: str = "llama"
    #: Further keys of config.json.
    further: dict[str, Any] = field(default_factory=dict)
    arguments: dict[str, Any] = field(default_factory=dict)

    def config(self) -> dict[str, Any]:
        """Return config.json of the model."""
        return {
            "model_type": self.kind,
            "num_hidden_layers": self.layers,
            "hidden_size": 16 * self.heads,
            "num_attention_heads": self.heads,
            "num_key_value_heads": self.kv_heads,
            "head_dim": self.head_dim,
            "intermediate_size": 128,
            "vocab_size": 512,
            "max_position_embeddings": 4096,
            "dtype": self.dtype,
            **self.further,
        }


def layer_types(layers: int, *full: int) -> list[str]:
    """Return the kinds of layers of which those named, from 0, have full attention."""
    return ["full_attention" if layer in full else "sliding_attention" for layer in range(layers)]


CASES = {
    "grouped-heads": Case(),
    "tensor-parallel": Case(size=2, context=1000),
    "replicated-kv-heads": Case(kv_heads=1, size=2),
    "own-kv-head-for-each": Case(layers=3, heads=8, kv_heads=8, head_dim=64, context=1000),
    "small-blocks": Case(layers=5, head_dim=96, context=777, arguments={"block-size": 32}),
    "float16-more-space": Case(layers=1, head_dim=128, cache_gib=2, dtype="float16", context=4096),
    "computed-in-float32": Case(layers=3, head_dim=80, context=129, arguments={"dtype": "float32"}),
    "parallel-in-large-blocks": Case(
        layers=7, heads=6, kv_heads=2, head_dim=160, size=2, context=2049, arguments={"block-size": 256}
    ),
    "fp8-cache": Case(layers=4, head_dim=64, context=1500, arguments={"kv-cache-dtype": "fp8"}),
    # As Gemma 3: every sixth layer has full attention; 2 of 14, the others in six groups.
    "gemma-pattern": Case(
        layers=14,
        head_dim=64,
        context=4000,
        kind="gemma3_text",
        further={"sliding_window": 512, "sliding_window_pattern": 6, "vocab_size": 512},
        arguments={"max-num-batched-tokens": 700},
    ),
    # All layers look back 256 tokens, and a batch of vLLM's default size besides.
    "mistral-window": Case(
        layers=3, context=4096, kind="mistral", further={"sliding_window": 256}, arguments={"max-num-seqs": 2}
    ),
    # Three and four layers: less than half as much again, so groups of four.
    "uneven-groups": Case(
        layers=7,
        size=2,
        context=3000,
        kind="mistral",
        further={"sliding_window": 100, "layer_types": layer_types(7, 0, 1, 6)},
        arguments={"max-num-batched-tokens": 300, "block-size": 32},
    ),
    # Two and five layers: groups of two, the last one of one layer.
    "padded-groups": Case(
        layers=7,
        context=2000,
        kind="mistral",
        further={"sliding_window": 333, "layer_types": layer_types(7, 2, 3)},
        arguments={"max-num-batched-tokens": 256},
    ),
    "window-beyond-the-context": Case(
        layers=4, context=500, kind="mistral", further={"sliding_window": 4096, "layer_types": layer_types(4, 1, 3)}
    ),
    "hybrid-manager-disabled": Case(
        layers=4,
        context=2000,
        kind="mistral",
        further={"sliding_window": 128, "layer_types": layer_types(4, 1)},
        arguments={"max-num-batched-tokens": 256, "disable-hybrid-kv-cache-manager": True},
    ),
    "window-disabled": Case(
        context=256, kind="mistral", further={"sliding_window": 256}, arguments={"disable-sliding-window": True}
    ),
    # As gpt-oss: every other layer, the first of them with a window, and experts. Weights are not read, but made up.
    "gpt-oss": Case(
        layers=5,
        heads=4,
        kv_heads=2,
        head_dim=64,
        context=4000,
        kind="gpt_oss",
        further={
            "architectures": ["GptOssForCausalLM"],
            "sliding_window": 128,
            "num_local_experts": 4,
            "num_experts_per_tok": 2,
        },
        arguments={"max-num-batched-tokens": 256, "load-format": "dummy"},
    ),
    # As GLM-4.5: a layer that predicts a further token lies in the cache when it is asked for.
    "predicted-tokens": Case(
        layers=3,
        context=1024,
        kind="glm4_moe",
        further={
            "architectures": ["Glm4MoeForCausalLM"],
            "num_nextn_predict_layers": 1,
            "moe_intermediate_size": 64,
            "n_routed_experts": 4,
            "num_experts_per_tok": 2,
            "n_shared_experts": 1,
            "first_k_dense_replace": 1,
            "n_group": 1,
            "topk_group": 1,
        },
        arguments={
            "load-format": "dummy",
            "speculative-config": {"method": "mtp", "num_speculative_tokens": 1},
        },
    ),
    "nothing-predicted": Case(
        layers=3,
        context=1024,
        kind="glm4_moe",
        further={
            "architectures": ["Glm4MoeForCausalLM"],
            "num_nextn_predict_layers": 1,
            "moe_intermediate_size": 64,
            "n_routed_experts": 4,
            "num_experts_per_tok": 2,
            "n_shared_experts": 1,
            "first_k_dense_replace": 1,
            "n_group": 1,
            "topk_group": 1,
        },
        arguments={"load-format": "dummy"},
    ),
}


def plan_of(name: str, case: Case) -> dict[str, Any]:
    """Return the plan of a host with two simulated GPUs that serves the model of a case."""
    gpu = {"device_id": "2330", "product": "H100 SXM5 80GB", "memory_mib": 81559, "compute_capability": "9.0"}
    gpus = [{**gpu, "pci_address": f"0000:0{index}:00.0", "nvlink_peers": []} for index in (1, 2)]
    model = {
        "name": name,
        "source": {"path": f"/srv/media/models/{name}"},
        "config": case.config(),
        "weights_bytes": 1000000,
        "context_length": case.context,
        "tensor_parallel_size": case.size,
        "replicas": 1,
        "arguments": {"max-num-seqs": 2, "skip-tokenizer-init": True, **case.arguments},
    }
    image = {"reference": IMAGE, "archive": "file:///srv/media/vllm.tar", "archive_sha256": "0" * 64}
    plan = build_plan(
        Inventory(
            groups={"gpu_nodes": ["gpu-1"], "gateways": ["gw-1"]},
            variables={
                "fleet_management_networks": ["198.51.100.0/24"],
                "fleet_models": [model],
                "fleet_engine": {"image": image, "accelerator": "cpu", "cpu_kv_cache_gib": case.cache_gib},
                "fleet_endpoint": {"hostname": "llm.example.org"},
            },
            hosts={
                "gpu-1": {"ansible_host": "192.0.2.1", "gpu_inventory": {"simulated": True, "gpus": gpus}},
                "gw-1": {"ansible_host": "192.0.2.2"},
            },
        )
    )
    assert plan["findings"] == []
    return plan


PLANS = {name: plan_of(name, case) for name, case in CASES.items()}


def runs_here(case: Case) -> bool:
    """Tell whether this processor can run a case: vLLM's CPU build keeps FP8 caches with AVX-512 or AMX only."""
    if "kv-cache-dtype" not in case.arguments:
        return True
    flags = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    return re.search(r"\b(avx512f|amx_tile)\b", flags) is not None


def run_in_image(program: str, cases: list[dict[str, Any]], directory: Path) -> list[dict[str, Any]]:
    """Return what a program beside this file answers to the cases, in the engine's image and without network."""
    (directory / "cases.json").write_text(json.dumps(cases), encoding="utf-8")
    command = ["docker", "run", "--rm", "--init", "--network", "none", "--shm-size", "2g"]
    command += ["--volume", f"{Path(__file__).parent}:/program:ro", "--volume", f"{directory}:/exchange"]
    command += ["--entrypoint", "/opt/vllm/bin/python", IMAGE]
    command += [f"/program/{program}", "/exchange/cases.json", "/exchange/results.json"]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    assert done.returncode == 0, done.stdout[-8000:]
    results: list[dict[str, Any]] = json.loads((directory / "results.json").read_text(encoding="utf-8"))
    return results


@pytest.fixture(scope="session")
def measured(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """Start all engines and return what each said."""
    cases = [
        {
            "name": name,
            "config": case.config(),
            "dtype": case.dtype,
            "arguments": PLANS[name]["instances"][0]["arguments"],
            "environment": PLANS[name]["instances"][0]["environment"],
        }
        for name, case in CASES.items()
        if runs_here(case)
    ]
    results = run_in_image("measure.py", cases, tmp_path_factory.mktemp("engine"))
    return {result["name"]: result for result in results}


@pytest.mark.parametrize("name", CASES)
def test_the_plan_equals_the_engine(name: str, measured: dict[str, dict[str, Any]]) -> None:
    """Blocks, tokens and requests of full length, by the metric and by the log."""
    if not runs_here(CASES[name]):
        pytest.skip("vLLM keeps an FP8 cache only on processors with AVX-512 or AMX")
    planned = PLANS[name]["models"][name]["memory"]
    said = measured[name]
    metric = said["metric"]
    print(f"{name}: plan {planned['kv_cache_blocks']} blocks of {planned['kv_block_tokens']}, engine {said['log']}")
    assert said["version"].startswith(VERSION)
    assert planned["kv_cache_blocks"] == int(metric["num_gpu_blocks"])
    assert planned["kv_block_tokens"] == int(metric["block_size"])
    assert planned["kv_cache_tokens"] == int(metric["kv_cache_size_tokens"])
    assert planned["max_concurrency"] == round(float(metric["kv_cache_max_concurrency"]), 2)
    logged = LOG.search(said["log"])
    assert logged is not None
    assert planned["kv_cache_tokens"] == int(logged[1].replace(",", ""))
    assert CASES[name].context == int(logged[2].replace(",", ""))
    assert f"{planned['max_concurrency']:.2f}" == logged[3]
    assert PLANS[name]["instances"][0]["kv_cache_tokens"] == planned["kv_cache_tokens"]


def answers(layouts: list[dict[str, Any]], directory: Path) -> list[dict[str, Any]]:
    """Return the layouts with what vLLM's functions answer now."""
    found = run_in_image("groups.py", [{"name": one["name"], "vllm": one["vllm"]} for one in layouts], directory)
    assert [one.pop("name") for one in found] == [one["name"] for one in layouts]
    return [{**one, "answer": answer} for one, answer in zip(layouts, found, strict=True)]


def test_the_recorded_layouts_are_those_of_vllm(tmp_path: Path) -> None:
    """The fixture that the unit tests hold the plan against."""
    layouts = json.loads(LAYOUTS.read_text(encoding="utf-8"))
    assert answers(layouts, tmp_path) == layouts


if __name__ == "__main__" and sys.argv[1:] == ["--record"]:
    with tempfile.TemporaryDirectory() as name:
        recorded = answers(json.loads(LAYOUTS.read_text(encoding="utf-8")), Path(name))
    LAYOUTS.write_text(json.dumps(recorded, indent=2) + "\n", encoding="utf-8")
