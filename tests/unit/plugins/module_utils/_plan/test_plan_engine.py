# SPDX-License-Identifier: Apache-2.0
"""Arguments and environment of the engine, and the arguments that are refused."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from ansible_collections.gpufleet.metal.plugins.module_utils._plan import vllm_options
from ansible_collections.gpufleet.metal.plugins.module_utils._plan.engine import (
    OWNED_OPTIONS,
    argument_findings,
    serve_arguments,
    serve_environment,
    stop_timeout_seconds,
)
from ansible_collections.gpufleet.metal.plugins.module_utils._plan.inventory import read_fleet
from ansible_collections.gpufleet.metal.plugins.module_utils._plan.schema import Engine, Model
from ansible_collections.gpufleet.metal.tests.unit.plugins.module_utils._plan.fleets import (
    inventory,
    model,
    tiny,
    variables,
)

CUDA = Engine(image=None)
CPU = Engine(image=None, accelerator="cpu", cpu_kv_cache_gib=2, shutdown_timeout_seconds=30)


def read(entry: dict[str, Any]) -> Model:
    """Return a model of the inventory; the entry must be right."""
    fleet = read_fleet(inventory(variables(entry)))
    assert not fleet.findings
    return fleet.models[0]


def test_arguments_on_gpus() -> None:
    """The plan's own options first, then the user's, sorted, as vLLM's parser wants them."""
    entry = model(
        quantization="fp8",
        arguments={
            "mm_processor_kwargs": {"max_pixels": 5000000},
            "enable-prefix-caching": True,
            "enable_chunked_prefill": False,
            "limit-mm-per-prompt": {"video": 0, "image": 10},
            "cudagraph-capture-sizes": [1, 2, 4],
            "compilation-config.cudagraph_mode": "FULL",
            "chat-template-content-format": "string",
            "long-prefill-token-threshold": -1,
        },
    )
    assert serve_arguments(read(entry), CUDA, 2, 8002) == [
        "/models/autoglm",
        "--served-model-name",
        "autoglm",
        "--host",
        "0.0.0.0",
        "--port",
        "8002",
        "--tensor-parallel-size",
        "2",
        "--max-model-len",
        "25480",
        "--shutdown-timeout",
        "120",
        "--gpu-memory-utilization",
        "0.92",
        "--quantization",
        "fp8",
        "--disable-access-log-for-endpoints",
        "/health,/metrics,/ping",
        "--chat-template-content-format",
        "string",
        "--compilation-config.cudagraph_mode",
        "FULL",
        "--cudagraph-capture-sizes",
        "1",
        "2",
        "4",
        "--no-enable-chunked-prefill",
        "--enable-prefix-caching",
        "--limit-mm-per-prompt",
        '{"image":10,"video":0}',
        "--long-prefill-token-threshold=-1",
        "--mm-processor-kwargs",
        '{"max_pixels":5000000}',
    ]


def test_arguments_on_cpu() -> None:
    """No GPU memory, no compilation; the user may overrule the latter."""
    assert serve_arguments(read(tiny()), CPU, 2, 8000) == [
        "/models/tiny-llama",
        "--served-model-name",
        "tiny-llama",
        "--host",
        "0.0.0.0",
        "--port",
        "8000",
        "--tensor-parallel-size",
        "2",
        "--max-model-len",
        "1024",
        "--shutdown-timeout",
        "30",
        "--enforce-eager",
        "--disable-access-log-for-endpoints",
        "/health,/metrics,/ping",
    ]
    assert serve_arguments(read(tiny(arguments={"enforce-eager": False})), CPU, 2, 8000)[-1] == "--no-enforce-eager"


def test_mutual_tls() -> None:
    """What the engine is told comes before the user's arguments, and its parser knows each of it."""
    mutual = replace(CPU, tls="mutual")
    plain, secured = (serve_arguments(read(tiny(arguments={"max-num-seqs": 16})), e, 2, 8000) for e in (CPU, mutual))
    added = secured[len(plain) - 2 : -2]
    assert secured == [*plain[:-2], *added, "--max-num-seqs", "16"]
    assert added == [
        "--ssl-certfile",
        "/tls/tls.crt",
        "--ssl-keyfile",
        "/tls/tls.key",
        "--ssl-ca-certs",
        "/tls/ca.crt",
        "--ssl-cert-reqs",
        "2",
        "--enable-ssl-refresh",
    ]
    kinds = {word[2:]: vllm_options.OPTIONS[word[2:]] for word in added if word.startswith("--")}
    assert kinds == {
        **dict.fromkeys(("ssl-certfile", "ssl-keyfile", "ssl-ca-certs", "ssl-cert-reqs"), "value"),
        "enable-ssl-refresh": "switch",
    }
    assert set(kinds) < set(OWNED_OPTIONS)
    assert serve_environment(mutual, [0, 1]) == {
        **serve_environment(CPU, [0, 1]),
        "WATCHFILES_FORCE_POLLING": "true",
        "WATCHFILES_POLL_DELAY_MS": "5000",
    }


def test_environment() -> None:
    """No statistics, no download, caches where a user without a home may write."""
    common = {
        "DO_NOT_TRACK": "1",
        "HF_HOME": "/cache/huggingface",
        "HF_HUB_OFFLINE": "1",
        "HOME": "/cache",
        "LOGNAME": "vllm",
        "TORCHINDUCTOR_CACHE_DIR": "/cache/inductor",
        "TRITON_CACHE_DIR": "/cache/triton",
        "USER": "vllm",
        "VLLM_CACHE_ROOT": "/cache/vllm",
        "VLLM_CONFIG_ROOT": "/cache/config",
        "VLLM_ENGINE_READY_TIMEOUT_S": "3600",
        "VLLM_HTTP_TIMEOUT_KEEP_ALIVE": "120",
        "VLLM_MAX_N_SEQUENCES": "64",
        "VLLM_MEDIA_URL_ALLOW_REDIRECTS": "0",
        "VLLM_NO_USAGE_STATS": "1",
        "XDG_CACHE_HOME": "/cache",
    }
    assert serve_environment(CUDA, [0, 1]) == common
    assert serve_environment(CPU, [2, 3]) == {
        **common,
        "VLLM_CPU_KVCACHE_SPACE": "2",
        "VLLM_CPU_OMP_THREADS_BIND": "2|3",
    }
    assert (stop_timeout_seconds(CUDA), stop_timeout_seconds(CPU)) == (135, 45)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        pytest.param(
            {"trust-remote-code": True},
            (
                "forbidden_argument",
                "arguments.trust-remote-code is true",
                "no code from a model's repository: it would run with the engine's rights",
                "remove arguments.trust-remote-code; serve a model that vLLM supports itself",
            ),
            id="code from the model's repository",
        ),
        pytest.param(
            {"allowed_local_media_path": "/"},
            (
                "forbidden_argument",
                'arguments.allowed_local_media_path is "/"',
                "no access of callers to the files of the engine's container",
                "remove arguments.allowed_local_media_path; clients send images inline as base64",
            ),
            id="every file of the container",
        ),
        pytest.param(
            {"allowed-local-media-path": "/data/.."},
            (
                "forbidden_argument",
                'arguments.allowed-local-media-path is "/data/.."',
                "no access of callers to the files of the engine's container",
                "remove arguments.allowed-local-media-path; clients send images inline as base64",
            ),
            id="the same in disguise",
        ),
        pytest.param(
            {"tensor-parallel-size": 2},
            (
                "owned_argument",
                "arguments.tensor-parallel-size",
                "fleet_models[].tensor_parallel_size",
                "remove arguments.tensor-parallel-size; use fleet_models[].tensor_parallel_size",
            ),
            id="decided by the plan",
        ),
        pytest.param(
            {"device_memory_utilization": 0.5},
            (
                "owned_argument",
                "arguments.device_memory_utilization",
                "fleet_engine.gpu_memory_utilization",
                "remove arguments.device_memory_utilization; use fleet_engine.gpu_memory_utilization",
            ),
            id="decided by the plan, by another name",
        ),
        pytest.param(
            {"enable-prefix-cachin": True},
            (
                "unknown_argument",
                "arguments.enable-prefix-cachin (did you mean enable-prefix-caching?)",
                "an option of vllm serve 0.32.0, without leading dashes",
                "correct or remove arguments.enable-prefix-cachin",
            ),
            id="mistyped",
        ),
        pytest.param(
            {"no-enable-prefix-caching": True},
            (
                "invalid_argument",
                "arguments.no-enable-prefix-caching",
                "enable-prefix-caching: false",
                "write arguments.enable-prefix-caching: false",
            ),
            id="negated by name",
        ),
        pytest.param(
            {"enable-prefix-caching": "yes"},
            (
                "invalid_argument",
                'arguments.enable-prefix-caching is "yes"',
                "true or false: the option takes no value",
                "correct arguments.enable-prefix-caching",
            ),
            id="a value for a switch",
        ),
        pytest.param(
            {"disable-log-stats": False},
            (
                "invalid_argument",
                "arguments.disable-log-stats is false",
                "true: the option cannot be negated",
                "correct arguments.disable-log-stats",
            ),
            id="a flag cannot be negated",
        ),
        pytest.param(
            {"max-num-batched-tokens": True},
            (
                "invalid_argument",
                "arguments.max-num-batched-tokens is true",
                "a value",
                "correct arguments.max-num-batched-tokens",
            ),
            id="no value",
        ),
        pytest.param(
            {"kv-cache-dtype": "fp9"},
            (
                "invalid_argument",
                'arguments.kv-cache-dtype is "fp9"',
                "one of auto, bfloat16, float16, fp8, fp8_ds_mla, fp8_e4m3, fp8_e5m2, fp8_inc, fp8_per_token_head, "
                "int4_per_token_head, int8_per_token_head, nvfp4, nvfp4_4over6, nvfp4_ds_mla, turboquant_3bit_nc, "
                "turboquant_4bit_nc, turboquant_k3v4_nc, turboquant_k8v4, ultraquant_4bit (did you mean fp8?)",
                "correct arguments.kv-cache-dtype",
            ),
            id="not a choice",
        ),
        pytest.param(
            {"block-size": [16, 32]},
            (
                "invalid_argument",
                "arguments.block-size is [16, 32]",
                "one value, not a list",
                "correct arguments.block-size",
            ),
            id="a list for one value",
        ),
        pytest.param(
            {"max_num_seqs": 16, "max-num-seqs": 16},
            (
                "invalid_argument",
                "arguments.max_num_seqs and arguments.max-num-seqs",
                "every option once",
                "remove one of them",
            ),
            id="the same option twice",
        ),
        pytest.param(
            {"max-num-seqs": 4},
            (
                "concurrency_out_of_reach",
                "arguments.max-num-seqs is 4",
                "at least the concurrency, 8",
                "raise arguments.max-num-seqs, or lower concurrency",
            ),
            id="fewer sequences than asked",
        ),
    ],
)
def test_refused_arguments(arguments: dict[str, Any], expected: tuple[str, str, str, str]) -> None:
    """Each fault has its own words."""
    found = argument_findings(read(model(arguments=arguments)))
    assert [(f.code, f.found, f.wanted, f.fix) for f in found] == [expected]
    assert {(f.kind, f.host_or_model) for f in found} == {("model", "autoglm")}


@pytest.mark.parametrize(
    "arguments",
    [
        {"trust-remote-code": False},
        {"allowed-local-media-path": "/media"},
        {"limit-mm-per-prompt.image": 10},
        {"hf-overrides": {"rope_scaling": {"factor": 2.0}}},
        {"max-num-seqs": "64"},
    ],
)
def test_accepted_arguments(arguments: dict[str, Any]) -> None:
    """What is right is not reported."""
    assert argument_findings(read(model(arguments=arguments))) == []


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({}, {"max_new_tokens": 4096}),
        ({"override_generation_config": {"temperature": 0.5}}, {"max_new_tokens": 4096, "temperature": 0.5}),
        ({"override-generation-config": '{"top_k": 20}'}, {"max_new_tokens": 4096, "top_k": 20}),
    ],
)
def test_cap_on_generated_tokens(arguments: dict[str, Any], expected: dict[str, Any]) -> None:
    """It joins what the user says in the same option: vLLM would take the last of two."""
    capped = read(model(arguments={"enable-prefix-caching": True, **arguments}, max_output_tokens=4096))
    assert argument_findings(capped) == []
    rendered = serve_arguments(capped, CUDA, 1, 8000)
    assert rendered[-3:-1] == ["--enable-prefix-caching", "--override-generation-config"]
    assert json.loads(rendered[-1]) == expected


def test_no_cap_on_generated_tokens() -> None:
    """Without one, the user's option is passed on as it is."""
    arguments = {"override-generation-config": {"max_new_tokens": 7}, "override-generation-config.top_k": 20}
    entry = read(model(arguments=arguments))
    assert argument_findings(entry) == []
    assert serve_arguments(entry, CUDA, 1, 8000)[-4:] == [
        "--override-generation-config",
        '{"max_new_tokens":7}',
        "--override-generation-config.top_k",
        "20",
    ]


@pytest.mark.parametrize(
    ("arguments", "found", "wanted", "fix"),
    [
        (
            {"override-generation-config": {"max_new_tokens": 9000, "top_k": 20}},
            'arguments.override-generation-config is {"max_new_tokens": 9000, "top_k": 20}',
            "the cap once: max_output_tokens is 4096",
            "remove max_new_tokens from arguments.override-generation-config, or remove max_output_tokens",
        ),
        (
            {"override_generation_config.temperature": 0.5},
            "arguments.override_generation_config.temperature is 0.5",
            "one mapping override-generation-config, beside max_output_tokens: the plan puts both into one option",
            "write arguments.override-generation-config: {temperature: 0.5}",
        ),
        (
            {"override-generation-config": "temperature=0.5"},
            'arguments.override-generation-config is "temperature=0.5"',
            "a mapping, which the plan puts together with max_output_tokens",
            "correct arguments.override-generation-config",
        ),
        (
            {"override-generation-config": "[1]"},
            'arguments.override-generation-config is "[1]"',
            "a mapping, which the plan puts together with max_output_tokens",
            "correct arguments.override-generation-config",
        ),
        (
            {"override-generation-config": 5},
            "arguments.override-generation-config is 5",
            "a mapping, which the plan puts together with max_output_tokens",
            "correct arguments.override-generation-config",
        ),
    ],
)
def test_what_does_not_go_with_a_cap(arguments: dict[str, Any], found: str, wanted: str, fix: str) -> None:
    """Nothing that the user says is dropped without a word."""
    findings = argument_findings(read(model(arguments=arguments, max_output_tokens=4096)))
    assert [(f.code, f.found, f.wanted, f.fix) for f in findings] == [("invalid_argument", found, wanted, fix)]


def test_owned_options_exist() -> None:
    """Every option that the plan keeps for itself is one of vLLM's."""
    assert sorted(set(OWNED_OPTIONS) - set(vllm_options.OPTIONS)) == []
