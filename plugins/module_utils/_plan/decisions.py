# SPDX-License-Identifier: Apache-2.0
# PRIVATE to the collection: do not import this from outside, it may change without notice.
"""How a model runs on each kind of GPU: the smallest tensor-parallel size that divides it and fits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from .architecture import Architecture, read_architecture
from .engine import argument_findings, argument_value
from .findings import Finding, natural_key, some_of
from .memory import MemoryUse, gib, memory_use
from .parallel import encoder_mode, required_capability, tensor_parallel_faults
from .schema import Engine, GpuKind, Host, Model

#: Where the search for sizes that divide a model ends, however large a size was asked for: no host holds more.
MOST_GPUS_OF_A_HOST = 1024


@dataclass(frozen=True)
class Choice:
    """How a model runs on one kind of GPU."""

    kind: GpuKind
    size: int
    memory: MemoryUse
    automatic: bool
    #: The next smaller size that can divide the model and why it was not taken; None when there is none.
    smaller: MemoryUse | None
    #: Where the vision encoder lies: ``weights`` or ``data``.
    encoder_mode: str = "weights"
    #: Why the plan put the vision encoder whole on every GPU; empty when it did not.
    encoder_reason: str = ""


@dataclass
class Decision:
    """How a model runs."""

    model: Model
    architecture: Architecture
    choices: dict[GpuKind, Choice] = field(default_factory=dict)


def capability_text(capability: tuple[int, int]) -> str:
    """Return ``8.9`` for (8, 9)."""
    return f"{capability[0]}.{capability[1]}"


def gpu_groups(hosts: Sequence[Host]) -> dict[GpuKind, dict[str, int]]:
    """Return how many GPUs of each kind every host has: kind, host, number."""
    groups: dict[GpuKind, dict[str, int]] = {}
    for host in hosts:
        for gpu in host.gpus:
            counts = groups.setdefault(gpu.kind, {})
            counts[host.name] = counts.get(host.name, 0) + 1
    return {kind: groups[kind] for kind in sorted(groups, key=kind_key)}


def kind_key(kind: GpuKind) -> tuple[int, tuple[int, int], str]:
    return (-kind.memory_mib, kind.compute_capability, kind.product)


def _choose(
    model: Model,
    architecture: Architecture,
    engine: Engine,
    kind: GpuKind,
    most: int,
) -> tuple[Choice | None, MemoryUse | None]:
    """Return the choice for one kind of GPU, and the memory use of the last size tried."""
    fixed = model.tensor_parallel_size
    sizes = [fixed] if fixed is not None else list(range(1, most + 1))
    tried: MemoryUse | None = None
    memory, stages = kind.memory_mib * 1024 * 1024, model.pipeline_parallel_size
    for size in sizes:
        if size > most or tensor_parallel_faults(model, architecture, size):
            continue
        use = memory_use(model, architecture, engine, size, memory, kind.product, stages=stages)
        if use.fits:
            mode = encoder_mode(model, architecture, size)
            return Choice(kind, size, use, fixed is None, tried, mode, _encoder_reason(model, architecture, size)), use
        tried = use
    return None, tried


def _encoder_reason(model: Model, architecture: Architecture, size: int) -> str:
    """Return why the plan puts the vision encoder whole on every GPU, or an empty text when it does not."""
    given = argument_value(model.arguments, "mm-encoder-tp-mode", None)
    if architecture.vision is None or given is not None or encoder_mode(model, architecture, size) != "data":
        return ""
    return f"the vision encoder is whole on every GPU, because its {architecture.vision.heads} heads cannot be divided"


def _smaller_weights(model: Model, architecture: Architecture, use: MemoryUse) -> str:
    """Return which weights would fit beside the wanted requests, and whether a common quantization reaches them."""
    now = architecture.quantization.method if architecture.quantization else "none"
    if not use.weights_possible:
        return f"use a smaller quantization (now {now})"
    enough = ""
    if architecture.quantization is None:
        # A tenth for scales, and for embeddings and norms that stay as they are.
        for bits in (8, 4):
            if use.weights * bits / (8 * architecture.dtype_bytes) * 1.1 <= use.weights_possible:
                enough = f", which {bits} bits a weight reach"
                break
    return f"use a smaller quantization (now {now}; weights up to {gib(use.weights_possible)} per GPU fit{enough})"


def _knobs(model: Model, architecture: Architecture, engine: Engine, use: MemoryUse, size: str = "") -> list[str]:
    """Return what would make the model fit, the nearest value of each with it; ``size`` is about the number of GPUs."""
    knobs = []
    if use.context_length_possible:
        knobs.append(f"lower context_length (now {model.context_length}; up to {use.context_length_possible} fits)")
    if use.concurrency_possible and model.concurrency > 1:
        knobs.append(f"lower concurrency (now {model.concurrency}; up to {use.concurrency_possible} fits)")
    possible = bool(knobs)
    if size:
        knobs.append(size)
    # Where the weights are not in the way, smaller ones do not help; where nothing helps alone, they are a part of it.
    if use.weights > use.weights_possible and (use.weights_possible or not possible):
        knobs.append(_smaller_weights(model, architecture, use))
    if not possible:
        knobs.append("lowering context_length or concurrency alone does not help")
    if engine.accelerator == "cpu":
        knobs.append(f"raise fleet_engine.cpu_kv_cache_gib (now {engine.cpu_kv_cache_gib})")
    return knobs


def _needs(model: Model, use: MemoryUse) -> str:
    return (
        f"{gib(use.needed)} needed per GPU at tensor_parallel_size {use.tensor_parallel_size}: weights "
        f"{gib(use.weights)}, KV cache {gib(use.kv_cache)} for {model.concurrency} x {model.context_length} tokens, "
        f"activations {gib(use.activations)}, runtime {gib(use.runtime)}, margin {gib(use.margin)}"
    )


def _does_not_fit(
    model: Model, architecture: Architecture, engine: Engine, kind: GpuKind, use: MemoryUse, enough: int | None
) -> Finding:
    """Say what is missing and name every knob; ``enough`` is a tensor-parallel size that would do, if there is one."""
    if model.pipeline_parallel_size > 1:
        size = f"raise pipeline_parallel_size (now {model.pipeline_parallel_size})"
    elif model.tensor_parallel_size is not None:
        hint = f"; {enough} fits" if enough is not None else ""
        size = f"raise tensor_parallel_size (now {model.tensor_parallel_size}{hint}) or set it to auto"
    else:
        size = f"use hosts with more GPUs (tensor_parallel_size auto went up to {use.tensor_parallel_size})"
    wanted = (
        f"at most {gib(use.budget)} per GPU: gpu_memory_utilization {engine.gpu_memory_utilization:g} of the "
        f"{gib(use.gpu_memory)} of {kind.product}"
    )
    if engine.accelerator == "cpu":
        wanted += f", and at most {engine.cpu_kv_cache_gib} GiB of KV cache"
    knobs = _knobs(model, architecture, engine, use, size)
    return Finding(model.name, "does_not_fit", _needs(model, use), wanted, "; ".join(knobs), "model")


@dataclass(frozen=True)
class Pipeline:
    """An instance over several hosts: the smallest that fits."""

    kind: GpuKind
    memory: MemoryUse
    #: Hosts with enough GPUs of the kind, as many as there are stages.
    hosts: tuple[str, ...]


def smallest_pipeline(
    model: Model, architecture: Architecture, engine: Engine, groups: Mapping[GpuKind, Mapping[str, int]]
) -> Pipeline | None:
    """Return the fewest GPUs (tensor parallel within a host, pipeline parallel over hosts) that hold the model.

    vLLM's own advice is the same: tensor parallel over the GPUs of a host, pipeline parallel over the hosts.
    """
    best: tuple[tuple[int, int], Pipeline] | None = None
    for kind, counts in groups.items():
        for size in range(1, max(counts.values()) + 1):
            if tensor_parallel_faults(model, architecture, size):
                continue
            able = sorted((name for name, count in counts.items() if count >= size), key=natural_key)
            for stages in range(2, min(len(able), architecture.layers) + 1):
                if best is not None and (size * stages, stages) >= best[0]:
                    break
                use = memory_use(
                    model, architecture, engine, size, kind.memory_mib * 1024 * 1024, kind.product, stages=stages
                )
                if use.fits:
                    best = ((size * stages, stages), Pipeline(kind, use, tuple(able[:stages])))
                    break
    return best[1] if best else None


def _needs_several_hosts(
    model: Model, architecture: Architecture, engine: Engine, kind: GpuKind, use: MemoryUse, pipeline: Pipeline
) -> Finding:
    """Say what one host lacks, which hosts together would do, and what comes nearest on one of them."""
    memory = pipeline.memory
    size, stages = memory.tensor_parallel_size, memory.pipeline_parallel_size
    return Finding(
        model.name,
        "needs_several_hosts",
        f"{_needs(model, use)}; one host has {gib(use.budget)} on each {kind.product}",
        f"tensor parallel {size} x pipeline parallel {stages}: {size} GPUs ({pipeline.kind.product}) in each of "
        f"{stages} hosts, such as {some_of(pipeline.hosts)} ({gib(memory.needed)} of {gib(memory.budget)} per GPU)",
        f"set pipeline_parallel_size to {stages} and have the hosts in kube_nodes; or, to fit on one host: "
        f"{'; '.join(_knobs(model, architecture, engine, use))}",
        "model",
    )


def _sizes_that_divide(sizes: Sequence[str]) -> tuple[str, str]:
    """Return what is wanted of a tensor-parallel size, and what to do about one that does not divide the model."""
    if not sizes:
        return "a tensor_parallel_size that divides the model: there is none", "choose another quantization"
    return (
        f"a tensor_parallel_size that divides the model: {some_of(sizes, 8)}",
        "set tensor_parallel_size to one of them, or to auto",
    )


def _pipeline_findings(
    model: Model, architecture: Architecture, groups: Mapping[GpuKind, Mapping[str, int]]
) -> list[Finding]:
    """Return why an instance can't be on so many hosts."""
    stages = model.pipeline_parallel_size
    if stages == 1:
        return []
    most = max((len(counts) for counts in groups.values()), default=0)
    if architecture.layers < stages:
        wanted = f"at most {architecture.layers}, the layers of the model: each host holds some of them"
    elif most < stages:
        wanted = (
            f"at most {most}, the most hosts of kube_nodes with GPUs of one kind"
            if most
            else "1: no GPU node is in kube_nodes, and only there an instance can be on several hosts"
        )
    else:
        return []
    return [
        Finding(
            model.name,
            "pipeline_parallel_size_too_large",
            f"pipeline_parallel_size is {stages}",
            wanted,
            "lower pipeline_parallel_size, or add GPU nodes to kube_nodes",
            "model",
        )
    ]


def decide(
    model: Model, engine: Engine, groups: Mapping[GpuKind, Mapping[str, int]], findings: list[Finding]
) -> Decision | None:
    """Choose the tensor-parallel size of a model on every kind of GPU; None after a finding.

    ``groups``: how many GPUs of each kind every host has (gpu_groups), of the hosts that the model may be on.
    """
    before = len(findings)
    stages = model.pipeline_parallel_size
    # What so many hosts have of a kind, each of them.
    largest = {
        kind: sorted(counts.values(), reverse=True)[stages - 1]
        for kind, counts in groups.items()
        if len(counts) >= stages
    }
    findings += argument_findings(model)
    architecture = read_architecture(model, findings)
    if architecture is None:
        return None
    if architecture.max_positions is not None and model.context_length > architecture.max_positions:
        findings.append(
            Finding(
                model.name,
                "context_too_long",
                f"context_length is {model.context_length}",
                f"at most max_position_embeddings, {architecture.max_positions}",
                "lower context_length, or set arguments.hf-overrides with the RoPE scaling that stretches it",
                "model",
            )
        )
    findings += _pipeline_findings(model, architecture, groups)
    fixed = model.tensor_parallel_size
    if fixed is not None:
        faults = tensor_parallel_faults(model, architecture, fixed)
        limit = min(max([fixed, *largest.values()]), MOST_GPUS_OF_A_HOST)
        good = [str(s) for s in range(1, limit + 1) if not tensor_parallel_faults(model, architecture, s)]
        for fault in faults:
            findings.append(
                Finding(
                    model.name,
                    "tensor_parallel_size_does_not_divide",
                    fault,
                    *_sizes_that_divide(good),
                    "model",
                )
            )
        if largest and not faults and fixed > max(largest.values()):
            findings.append(
                Finding(
                    model.name,
                    "tensor_parallel_size_too_large",
                    f"tensor_parallel_size is {fixed}",
                    f"at most {max(largest.values())}, the most GPUs of one kind in "
                    f"{'one host' if stages == 1 else f'each of {stages} hosts'}",
                    "lower tensor_parallel_size, or set it to auto",
                    "model",
                )
            )
    elif largest:
        sizes = range(1, max(largest.values()) + 1)
        if all(tensor_parallel_faults(model, architecture, size) for size in sizes):
            for fault in tensor_parallel_faults(model, architecture, 1):
                findings.append(
                    Finding(
                        model.name,
                        "tensor_parallel_size_does_not_divide",
                        fault,
                        *_sizes_that_divide([]),
                        "model",
                    )
                )
    if len(findings) > before or not largest:
        return None
    floor, why = required_capability(model, architecture, engine.accelerator)
    able = {kind: most for kind, most in largest.items() if kind.compute_capability >= floor}
    if not able:
        best = max(largest, key=lambda kind: (kind.compute_capability, kind.product))
        findings.append(
            Finding(
                model.name,
                "compute_capability_too_low",
                f"the best GPU is {best.product} with compute capability {capability_text(best.compute_capability)}",
                f"{capability_text(floor)} or more, for {why}",
                "choose another precision or quantization, or add hosts with newer GPUs",
                "model",
            )
        )
        return None
    decision = Decision(model, architecture)
    closest: tuple[GpuKind, MemoryUse, int | None] | None = None
    fits_somewhere = False
    for kind, most in able.items():
        choice, tried = _choose(model, architecture, engine, kind, most)
        if choice is not None:
            decision.choices[kind] = choice
        elif tried is not None:
            other, _tried = _choose(replace(model, tensor_parallel_size=None), architecture, engine, kind, most)
            fits_somewhere = fits_somewhere or other is not None
            if closest is None or tried.budget - tried.needed > closest[1].budget - closest[1].needed:
                closest = (kind, tried, other.size if other else None)
    if not decision.choices:
        if closest is not None:
            kind, use, enough = closest
            usable = {kind: groups[kind] for kind in able}
            alone = stages == 1 and not fits_somewhere
            pipeline = smallest_pipeline(model, architecture, engine, usable) if alone else None
            if pipeline is not None:
                findings.append(_needs_several_hosts(model, architecture, engine, kind, use, pipeline))
            else:
                findings.append(_does_not_fit(model, architecture, engine, kind, use, enough))
        else:
            findings.append(
                Finding(
                    model.name,
                    "tensor_parallel_size_too_large",
                    f"tensor_parallel_size is {fixed}",
                    f"at most {max(able.values())}, the most GPUs in "
                    f"{'one host' if stages == 1 else f'each of {stages} hosts'} with compute capability "
                    f"{capability_text(floor)} or more ({why})",
                    "lower tensor_parallel_size, or set it to auto",
                    "model",
                )
            )
        return None
    return decision


def size_reason(choice: Choice) -> str:
    """Return why this size, and what else was decided with it."""
    text = _size_text(choice)
    return f"{text}; {choice.encoder_reason}" if choice.encoder_reason else text


def _size_text(choice: Choice) -> str:
    use = choice.memory
    room = f"{gib(use.needed)} of {gib(use.budget)} per GPU"
    if use.pipeline_parallel_size > 1:
        room += f", {use.pipeline_parallel_size} hosts an instance"
    if not choice.automatic:
        return f"TP {choice.size} as given: {room}"
    if choice.smaller is None:
        return (
            f"TP {choice.size} fits: {room}"
            if choice.size == 1
            else f"TP {choice.size} is the smallest that divides: {room}"
        )
    return (
        f"TP {choice.size} is the smallest that fits: {room}; "
        f"TP {choice.smaller.tensor_parallel_size} needs {gib(choice.smaller.needed)}"
    )
