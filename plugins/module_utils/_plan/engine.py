# SPDX-License-Identifier: Apache-2.0
# PRIVATE to the collection: do not import this from outside, it may change without notice.
"""The one place that renders `vllm serve` arguments and the engine's environment, for every way to run it."""

from __future__ import annotations

import json
import posixpath
from collections.abc import Mapping, Sequence
from typing import Any

from .engine_tls import ENVIRONMENT, is_mutual, tls_arguments
from .findings import Finding, did_you_mean
from .reader import as_integer
from .schema import Engine, Model
from .vllm_options import ALIASES, CHOICES, OPTIONS, VERSION

#: Where the host's store of models is mounted, read-only, in the engine's container.
MODELS_MOUNT = "/models"
#: Where the engine may write in its container: its HOME and every cache (compiled code among them).
CACHE_MOUNT = "/cache"
#: From SIGTERM to SIGKILL the engine gets its own shutdown timeout and this many seconds to end its processes.
STOP_MARGIN_SECONDS = 15

#: Sets what requests begin with that say nothing; of its keys, this one is also the most that any request gets.
GENERATION = "override-generation-config"
GENERATION_CAP = "max_new_tokens"

#: Options that the plan decides or that belong to another part of the fleet, with what to use instead.
OWNED_OPTIONS = {
    "model": "fleet_models[].source",
    "served-model-name": "fleet_models[].name",
    "max-model-len": "fleet_models[].context_length",
    "tensor-parallel-size": "fleet_models[].tensor_parallel_size",
    "quantization": "fleet_models[].quantization",
    "revision": "fleet_models[].source.huggingface.revision",
    "code-revision": "fleet_models[].source.huggingface.revision",
    "tokenizer-revision": "fleet_models[].source.huggingface.revision",
    "download-dir": "fleet_models_directory",
    "hf-token": "fleet_models[].source (models are fetched by the model store, never by the engine)",
    "gpu-memory-utilization": "fleet_engine.gpu_memory_utilization",
    "kv-cache-memory-bytes": "fleet_engine.gpu_memory_utilization",
    "shutdown-timeout": "fleet_engine.shutdown_timeout_seconds",
    "host": "fleet_address of the host",
    "port": "fleet_engine.base_port",
    "uds": "fleet_engine.base_port",
    "grpc": "fleet_engine.base_port",
    "grpc-port": "fleet_engine.base_port",
    "root-path": "fleet_endpoint (the gateway decides paths)",
    "api-key": "fleet_endpoint (the gateway decides who may ask)",
    "ssl-ca-certs": "fleet_engine.tls",
    "ssl-cert-reqs": "fleet_engine.tls",
    "ssl-certfile": "fleet_engine.tls",
    "ssl-ciphers": "fleet_engine.tls",
    "ssl-keyfile": "fleet_engine.tls",
    "enable-ssl-refresh": "fleet_engine.tls",
    "config": "fleet_models[].arguments (a file would hide options from the plan)",
    "device-ids": "the plan's placement",
    "pipeline-parallel-size": "fleet_models[].pipeline_parallel_size",
    "data-parallel-size": "replicas",
    "data-parallel-size-local": "replicas",
    "data-parallel-rank": "replicas",
    "data-parallel-start-rank": "replicas",
    "data-parallel-address": "replicas",
    "data-parallel-backend": "replicas",
    "data-parallel-rpc-port": "replicas",
    "data-parallel-external-lb": "replicas",
    "data-parallel-hybrid-lb": "replicas",
    "data-parallel-multi-port-external-lb": "replicas",
    "prefill-context-parallel-size": "tensor_parallel_size",
    "decode-context-parallel-size": "tensor_parallel_size",
    "nnodes": "fleet_models[].pipeline_parallel_size",
    "node-rank": "fleet_models[].pipeline_parallel_size",
    "master-addr": "fleet_models[].pipeline_parallel_size",
    "master-port": "fleet_models[].pipeline_parallel_size",
    "headless": "fleet_models[].pipeline_parallel_size",
}


def split_option(name: str) -> tuple[str, str]:
    """Return (option, rest) of a user's key: underscores become dashes, aliases their option, ``a.b`` is a with rest b.

    vLLM's parser accepts the same spellings, so they all must be recognised.
    """
    option, dot, rest = name.partition(".")
    option = option.lstrip("-").replace("_", "-")
    return ALIASES.get(option, option), dot + rest


def argument_value(arguments: Mapping[str, Any], option: str, default: Any) -> Any:
    """Return the value of an option among the user's arguments, however it is spelt."""
    for name, value in arguments.items():
        if split_option(str(name)) == (option, "") and value is not None:
            return value
    return default


def argument_number(arguments: Mapping[str, Any], option: str, default: int) -> int:
    """Return the positive whole number given for an option, else the default."""
    number = as_integer(argument_value(arguments, option, default))
    return number if number is not None and number > 0 else default


def argument_mapping(arguments: Mapping[str, Any], option: str) -> dict[str, Any]:
    """Return the mapping given for an option, as one, as JSON or key by key (``option.key``); else an empty one."""
    value = argument_value(arguments, option, {})
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError:
            value = {}
    found = {str(key): item for key, item in value.items()} if isinstance(value, Mapping) else {}
    for name, item in arguments.items():
        found_option, rest = split_option(str(name))
        if found_option == option and rest and item is not None:
            found[rest.lstrip(".")] = item
    return found


def speculative(arguments: Mapping[str, Any]) -> tuple[str | None, int]:
    """Return (method of speculative decoding, tokens it predicts), (None, 0) when it is not asked for.

    vLLM 0.32.0, config/speculative.py:1128-1145: all heads that predict several tokens are ``mtp``, and a model of its
    own is a ``draft_model`` until vLLM has looked at it.
    """
    values = argument_mapping(arguments, "speculative-config")
    for option, key in (("spec-method", "method"), ("spec-model", "model"), ("spec-tokens", "num_speculative_tokens")):
        given = argument_value(arguments, option, None)
        if given is not None:
            values[key] = given
    if not values:
        return None, 0
    method = str(values.get("method") or ("ngram" if "ngram" in str(values.get("model")) else "draft_model"))
    tokens = as_integer(values.get("num_speculative_tokens"))
    return ("mtp" if method.endswith("mtp") else method), max(0, tokens or 0)


def image_pixels(arguments: Mapping[str, Any]) -> int | None:
    """Return the bound on the pixels of one image that mm-processor-kwargs sets, if any."""
    value = argument_mapping(arguments, "mm-processor-kwargs")
    size = value.get("size")
    edge = size.get("longest_edge") if isinstance(size, Mapping) else None
    number = as_integer(value.get("max_pixels", edge))
    return number if number is not None and number > 0 else None


def _generation_problem(model: Model, rest: str, value: Any) -> tuple[str, str] | None:
    """Return (wanted, fix) where the user's generation settings can't be put together with ``max_output_tokens``.

    The option is given once: of two, vLLM's parser takes the last and drops the other without a word.
    """
    if model.max_output_tokens is None:
        return None
    if rest:
        return (
            f"one mapping {GENERATION}, beside max_output_tokens: the plan puts both into one option",
            f"write arguments.{GENERATION}: {{{rest[1:]}: {_shown(value)}}}",
        )
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError:
            value = None
    if not isinstance(value, Mapping):
        return "a mapping, which the plan puts together with max_output_tokens", f"correct arguments.{GENERATION}"
    if GENERATION_CAP in value:
        return (
            f"the cap once: max_output_tokens is {model.max_output_tokens}",
            f"remove {GENERATION_CAP} from arguments.{GENERATION}, or remove max_output_tokens",
        )
    return None


def argument_findings(model: Model) -> list[Finding]:
    """Return what is wrong with the user's further arguments of a model."""
    findings: list[Finding] = []

    def report(code: str, found: str, wanted: str, fix: str) -> None:
        findings.append(Finding(model.name, code, found, wanted, fix, "model"))

    seen: dict[tuple[str, str], str] = {}
    for name in sorted(str(key) for key in model.arguments):
        value = model.arguments[name]
        option, rest = split_option(name)
        where = f"arguments.{name}"
        if (option, rest) in seen:
            report(
                "invalid_argument",
                f"{where} and arguments.{seen[option, rest]}",
                "every option once",
                "remove one of them",
            )
            continue
        seen[option, rest] = name
        negated = option[3:] if option.startswith("no-") else ""
        if negated and OPTIONS.get(negated) == "switch":
            report("invalid_argument", where, f"{negated}: false", f"write arguments.{negated}: false")
        elif option not in OPTIONS:
            report(
                "unknown_argument",
                f"{where}{did_you_mean(option, OPTIONS)}",
                f"an option of vllm serve {VERSION}, without leading dashes",
                f"correct or remove {where}",
            )
        elif option == "distributed-executor-backend" and model.pipeline_parallel_size > 1 and value != "mp":
            report(
                "invalid_argument",
                f"{where} is {_shown(value)}, and pipeline_parallel_size is {model.pipeline_parallel_size}",
                "mp: the hosts of an instance find each other without Ray",
                f"remove {where}",
            )
        elif option == "api-server-count" and model.pipeline_parallel_size > 1:
            report(
                "invalid_argument",
                f"{where} is {_shown(value)}, and pipeline_parallel_size is {model.pipeline_parallel_size}",
                "none: the processes of the further hosts have no API server, and refuse the option",
                f"remove {where}",
            )
        elif option in OWNED_OPTIONS:
            report("owned_argument", where, f"{OWNED_OPTIONS[option]}", f"remove {where}; use {OWNED_OPTIONS[option]}")
        elif option == "trust-remote-code" and value is not False:
            report(
                "forbidden_argument",
                f"{where} is {_shown(value)}",
                "no code from a model's repository: it would run with the engine's rights",
                f"remove {where}; serve a model that vLLM supports itself",
            )
        elif option == "allowed-local-media-path" and _is_root(value):
            report(
                "forbidden_argument",
                f"{where} is {_shown(value)}",
                "no access of callers to the files of the engine's container",
                f"remove {where}; clients send images inline as base64",
            )
        else:
            problem = _value_problem(option, rest, value)
            clash = _generation_problem(model, rest, value) if option == GENERATION else None
            if problem:
                report("invalid_argument", f"{where} is {_shown(value)}", problem, f"correct {where}")
            elif clash:
                report("invalid_argument", f"{where} is {_shown(value)}", *clash)
    sequences = argument_number(model.arguments, "max-num-seqs", model.concurrency)
    if sequences < model.concurrency:
        report(
            "concurrency_out_of_reach",
            f"arguments.max-num-seqs is {sequences}",
            f"at least the concurrency, {model.concurrency}",
            "raise arguments.max-num-seqs, or lower concurrency",
        )
    return findings


def _shown(value: Any) -> str:
    return json.dumps(value, sort_keys=True, default=str)


def _is_root(value: Any) -> bool:
    return not isinstance(value, str) or posixpath.normpath(f"/{value}").lstrip("/") == ""


def _value_problem(option: str, rest: str, value: Any) -> str:
    """Return what value the option wants instead, or an empty text."""
    kind = OPTIONS[option]
    if kind in ("flag", "switch"):
        if not isinstance(value, bool):
            return "true or false: the option takes no value"
        return "true: the option cannot be negated" if kind == "flag" and value is False else ""
    if value is None or (isinstance(value, bool) and not rest):
        return "a value"
    if isinstance(value, (list, tuple)) and kind != "values":
        return "one value, not a list"
    if isinstance(value, (list, tuple)) and not (value and all(isinstance(v, (str, int, float)) for v in value)):
        return "a list of texts or numbers, not empty"
    if option in CHOICES and not rest:
        for item in value if isinstance(value, (list, tuple)) else [value]:
            if str(item) not in CHOICES[option]:
                return f"one of {', '.join(CHOICES[option])}{did_you_mean(str(item), CHOICES[option])}"
    return ""


def _rendered(value: Any) -> list[str]:
    if isinstance(value, (list, tuple)):
        return [text for item in value for text in _rendered(item)]
    if isinstance(value, Mapping):
        return [json.dumps(value, sort_keys=True, separators=(",", ":"))]
    if isinstance(value, bool):
        return ["true" if value else "false"]
    return [str(value)]


def _user_arguments(arguments: Mapping[str, Any]) -> list[str]:
    rendered: list[str] = []
    for name in sorted(arguments, key=lambda name: split_option(str(name))):
        option, rest = split_option(str(name))
        value = arguments[name]
        if OPTIONS.get(option) in ("flag", "switch"):
            rendered.append(f"--{option}" if value else f"--no-{option}")
            continue
        values = _rendered(value)
        if len(values) == 1 and values[0].startswith("-"):
            # Else the parser takes the value for an option.
            rendered.append(f"--{option}{rest}={values[0]}")
        else:
            rendered += [f"--{option}{rest}", *values]
    return rendered


def serve_arguments(model: Model, engine: Engine, size: int, port: int, encoder_mode: str = "weights") -> list[str]:
    """Return the arguments of ``vllm serve`` for one instance, as its container sees the model.

    ``encoder_mode``: where the vision encoder lies (parallel.encoder_mode); ``weights`` is vLLM's default. The
    processes of an instance over several hosts all get these; what starts one adds which of them it is.
    """
    arguments = [
        posixpath.join(MODELS_MOUNT, model.name),
        "--served-model-name",
        model.name,
        "--host",
        "0.0.0.0",
        "--port",
        str(port),
        "--tensor-parallel-size",
        str(size),
        "--max-model-len",
        str(model.context_length),
        "--shutdown-timeout",
        str(engine.shutdown_timeout_seconds),
    ]
    if model.pipeline_parallel_size > 1:
        # vLLM 0.32.0 without Ray: ranks go host by host, so each has one stage (v1/executor/multiproc_executor.py).
        stages = str(model.pipeline_parallel_size)
        arguments += ["--pipeline-parallel-size", stages, "--nnodes", stages, "--distributed-executor-backend", "mp"]
    if engine.accelerator == "cuda":
        arguments += ["--gpu-memory-utilization", f"{engine.gpu_memory_utilization:g}"]
    if model.quantization is not None:
        arguments += ["--quantization", model.quantization]
    if encoder_mode != "weights" and argument_value(model.arguments, "mm-encoder-tp-mode", None) is None:
        arguments += ["--mm-encoder-tp-mode", encoder_mode]
    if engine.accelerator == "cpu" and argument_value(model.arguments, "enforce-eager", None) is None:
        arguments.append("--enforce-eager")
    if argument_value(model.arguments, "disable-access-log-for-endpoints", None) is None:
        arguments += ["--disable-access-log-for-endpoints", "/health,/metrics,/ping"]
    return arguments + tls_arguments(engine) + _user_arguments(_with_cap(model))


def _with_cap(model: Model) -> dict[str, Any]:
    """Return the user's arguments with the cap on generated tokens among them.

    vLLM 0.32.0 takes ``max_new_tokens`` of this option as the most that any request gets, whatever it asks for, in
    completions, chats, responses and messages alike: ``override_max_tokens`` of their serving.py, one of the values of
    which entrypoints/serve/utils/api_utils.py:196 takes the least. In the model's own generation_config.json the same
    key is only a default.
    """
    if model.max_output_tokens is None:
        return model.arguments
    others = {name: value for name, value in model.arguments.items() if split_option(str(name))[0] != GENERATION}
    settings = argument_mapping(model.arguments, GENERATION)
    return {**others, GENERATION: {**settings, GENERATION_CAP: model.max_output_tokens}}


#: The user that runs the engine need not exist in the image: HOME, USER and every cache are named, or torch and triton
#: would look them up and fail.
_ENVIRONMENT = {
    "DO_NOT_TRACK": "1",
    "HF_HOME": posixpath.join(CACHE_MOUNT, "huggingface"),
    "HF_HUB_OFFLINE": "1",
    "HOME": CACHE_MOUNT,
    "LOGNAME": "vllm",
    "TORCHINDUCTOR_CACHE_DIR": posixpath.join(CACHE_MOUNT, "inductor"),
    "TRITON_CACHE_DIR": posixpath.join(CACHE_MOUNT, "triton"),
    "USER": "vllm",
    "VLLM_CACHE_ROOT": posixpath.join(CACHE_MOUNT, "vllm"),
    "VLLM_CONFIG_ROOT": posixpath.join(CACHE_MOUNT, "config"),
    # Idle connections of the gateway must not be closed under a request that is on its way.
    "VLLM_HTTP_TIMEOUT_KEEP_ALIVE": "120",
    # Compiling a large model takes longer than the default of 600 seconds.
    "VLLM_ENGINE_READY_TIMEOUT_S": "3600",
    "VLLM_MAX_N_SEQUENCES": "64",
    "VLLM_MEDIA_URL_ALLOW_REDIRECTS": "0",
    "VLLM_NO_USAGE_STATS": "1",
    "XDG_CACHE_HOME": CACHE_MOUNT,
}


def serve_environment(engine: Engine, gpu_indices: Sequence[int]) -> dict[str, str]:
    """Return the environment of one instance on the GPUs of these indices."""
    environment = {**_ENVIRONMENT, **(ENVIRONMENT if is_mutual(engine) else {})}
    if engine.accelerator == "cpu":
        environment["VLLM_CPU_KVCACHE_SPACE"] = str(engine.cpu_kv_cache_gib)
        # One core per rank; without it vLLM wants a NUMA node per rank.
        environment["VLLM_CPU_OMP_THREADS_BIND"] = "|".join(str(index) for index in gpu_indices)
    return environment


def stop_timeout_seconds(engine: Engine) -> int:
    """Return the seconds from SIGTERM to SIGKILL."""
    return engine.shutdown_timeout_seconds + STOP_MARGIN_SECONDS
