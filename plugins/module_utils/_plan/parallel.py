# SPDX-License-Identifier: Apache-2.0
# PRIVATE to the collection: do not import this from outside, it may change without notice.
"""Which tensor-parallel sizes a model can be split into, and which GPUs can compute in its precision."""

from __future__ import annotations

from .architecture import Architecture, Quantization
from .engine import argument_value
from .schema import Model

#: vLLM's CUDA builds have no kernels below this compute capability (Turing).
MINIMUM_CAPABILITY = (7, 5)


def _quantized_layers(architecture: Architecture) -> tuple[tuple[str, int], ...]:
    """Return the widths that are divided: inputs of row-parallel and outputs of column-parallel layers."""
    layers = [("attention", architecture.heads * architecture.head_dim)]
    if architecture.experts:
        layers.append(("moe_intermediate_size", architecture.moe_intermediate_size))
    else:
        layers.append(("intermediate_size", architecture.intermediate_size))
    return tuple(layers)


def _quantization_faults(quantization: Quantization, architecture: Architecture, size: int) -> list[str]:
    faults = []
    for name, width in _quantized_layers(architecture):
        part = width / size
        if quantization.group_size is not None and part % quantization.group_size:
            faults.append(
                f"{name} {width} / {size} = {part:g} is not a multiple of the {quantization.method} group size "
                f"{quantization.group_size}"
            )
    return faults


def _block_faults(quantization: Quantization, architecture: Architecture, size: int) -> list[str]:
    """Return the layers whose parts cut a block of weights that share a scale, also on one GPU.

    vLLM 0.32.0, measured with its own layers on the CPU build:

    - what is divided by its inputs (row parallel: the outputs of attention and feed-forward) is refused where a part is
      no multiple of the block's inputs (fp8_utils.py:1318-1326, only with more than one GPU);
    - what is merged (queries, keys and values; gate and up; the experts, fp8_utils.py:1347-1376) must begin each of its
      parts with a block of its own, on one GPU as well. Compressed-tensors refuses it (fp8_utils.py:1328-1344); for
      ``fp8`` vLLM waives the check (linear.py:549) and then fails to load the scales ("exceeds dimension size").
    """
    if quantization.block is None:
        return []
    a = architecture
    outputs, inputs = quantization.block
    kv_heads = max(1, a.kv_heads // size)
    #: What is told, the part of one GPU, and the side of the block that it must be a multiple of.
    parts: list[tuple[str, float, int]] = []
    queries = (f"attention {a.heads * a.head_dim} / {size}", a.heads * a.head_dim / size, outputs)
    if a.latent_values is None:
        parts += [queries, (f"the keys of a GPU, {kv_heads} x {a.head_dim}", kv_heads * a.head_dim, outputs)]
    elif size > 1:
        parts.append(queries)
    if size > 1:
        parts.append((f"attention {a.heads * a.value_head_dim} / {size}", a.heads * a.value_head_dim / size, inputs))
        if a.latent_values is None:
            values = kv_heads * a.value_head_dim
            parts.append((f"the values of a GPU, {kv_heads} x {a.value_head_dim}", values, outputs))
    feed_forward = {"moe_intermediate_size": a.moe_intermediate_size} if a.experts else {}
    if not a.experts or a.dense_layers:
        feed_forward["intermediate_size"] = a.intermediate_size
    for name, width in feed_forward.items():
        parts.append((f"{name} {width} / {size}", width / size, outputs))
        if size > 1:
            parts.append((f"{name} {width} / {size}", width / size, inputs))
    texts = [
        f"{name} = {part:g} is not a multiple of the {quantization.method} block size {outputs}x{inputs}"
        for name, part, side in parts
        if part % side
    ]
    return list(dict.fromkeys(texts))


def encoder_mode(model: Model, architecture: Architecture, size: int) -> str:
    """Return where the vision encoder lies: ``weights`` (divided over the GPUs) or ``data`` (whole on each of them).

    What the user says counts. Else it is divided where its heads allow that. vLLM 0.32.0 does not fall back by itself
    for every model: GLM-4.1V asks without a head count (models/glm4_1v.py:282 against models/vision.py:141).
    """
    given = argument_value(model.arguments, "mm-encoder-tp-mode", None)
    if given is not None:
        return str(given)
    return "data" if architecture.vision is not None and architecture.vision.heads % size else "weights"


def tensor_parallel_faults(model: Model, architecture: Architecture, size: int) -> list[str]:
    """Return why the model cannot be split over ``size`` GPUs, in vLLM's words where it has some; empty when it can.

    vLLM 0.32.0: heads config/model.py:1544-1550; KV heads config/model.py:1650-1670 and models/llama.py:147-156; groups
    distributed/utils.py (verify_group_size_divides_partition); FP8 blocks: _block_faults; vision heads
    models/glm4_1v.py:282; vocabulary (padded to 64) vocab_parallel_embedding.py:36,95.
    """
    a = architecture
    blocks = _block_faults(a.quantization, a, size) if a.quantization is not None else []
    if size == 1:
        return blocks
    faults = []
    if a.heads % size:
        faults.append(
            f"Total number of attention heads ({a.heads}) must be divisible by tensor parallel size ({size})."
        )
    if a.latent_values is None:
        if size < a.kv_heads and a.kv_heads % size:
            faults.append(f"the {a.kv_heads} key-value heads cannot be divided by {size}")
        if size > a.kv_heads and size % a.kv_heads:
            faults.append(f"the {a.kv_heads} key-value heads cannot be replicated evenly on {size} GPUs")
    if a.vision is not None and encoder_mode(model, a, size) != "data" and a.vision.heads % size:
        faults.append(
            f"the {a.vision.heads} vision heads cannot be divided by {size} "
            "(without arguments.mm-encoder-tp-mode the plan replicates the vision encoder instead)"
        )
    if a.quantization is not None:
        faults += _quantization_faults(a.quantization, a, size)
        faults += blocks
    if -(-a.vocabulary // 64) * 64 % size:
        faults.append(f"the vocabulary, {a.vocabulary} padded to a multiple of 64, cannot be divided by {size}")
    if a.experts and argument_value(model.arguments, "enable-expert-parallel", False) is True and a.experts % size:
        faults.append(f"the {a.experts} experts cannot be divided by {size} (enable-expert-parallel)")
    return faults


def required_capability(model: Model, architecture: Architecture, accelerator: str) -> tuple[tuple[int, int], str]:
    """Return (lowest compute capability, why) for the model's precision and its own minimum.

    Precision: bf16 computes from 8.0, FP8 from 8.9, FP4 from 10.0; MXFP4 is unpacked to bf16 from 8.0 (vLLM 0.32.0,
    model_executor/layers/quantization/mxfp4.py, Mxfp4Config.get_min_capability).
    """
    floors = [(MINIMUM_CAPABILITY, "vLLM")]
    if accelerator == "cuda":
        if architecture.dtype == "bfloat16":
            floors.append(((8, 0), "bfloat16 (arguments {dtype: half} computes in float16 instead)"))
        method = (architecture.quantization.method if architecture.quantization else "").lower()
        if "fp8" in method:
            floors.append(((8, 9), f"quantization {method}"))
        if method.startswith("mxfp4"):
            floors.append(((8, 0), f"quantization {method}"))
        elif "fp4" in method:
            floors.append(((10, 0), f"quantization {method}"))
    if model.minimum_compute_capability is not None:
        floors.append((model.minimum_compute_capability, "minimum_compute_capability"))
    return max(floors, key=lambda floor: floor[0])
