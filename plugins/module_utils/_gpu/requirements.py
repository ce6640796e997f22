# SPDX-License-Identifier: Apache-2.0
# PRIVATE to the collection: do not import this from outside, it may change without notice.
"""What somebody wants of a host's GPUs, as plain options: of gpu_validate, of gpu_capable, and of the plan's slice."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from typing import Any

from ansible_collections.gpufleet.metal.plugins.module_utils._errors import InvalidInputError
from ansible_collections.gpufleet.metal.plugins.module_utils._gpu.reading import normal_pci_address

#: vLLM's CUDA builds have no kernels below Turing (vLLM, docs/getting_started/installation/gpu: "7.5 or higher").
COMPUTE_CAPABILITY_FLOOR = (7, 5)

#: The first compute capability whose tensor cores compute in a precision (NVIDIA, CUDA Programming Guide, table of
#: features by compute capability: bf16 8.0, int8 7.5, fp8 8.9, fp4 10.0).
PRECISIONS: dict[str, tuple[int, int]] = {"int8": (7, 5), "bf16": (8, 0), "fp8": (8, 9), "fp4": (10, 0)}

#: Nominal GB of one GPU that make a tier; ``any`` asks for nothing, as sandboxes do.
MEMORY_TIERS = {"any": 0, "development": 16, "production": 40}

#: How vLLM names the processes that hold a GPU: VLLM::EngineCore, VLLM::Worker_TP0 (vllm/utils/system_utils.py).
OWN_PROCESSES = ("VLLM::*",)


@dataclass(frozen=True)
class Instance:
    """GPUs that compute one model together."""

    name: str
    gpus: tuple[str, ...]
    minimum_compute_capability: tuple[int, int] = COMPUTE_CAPABILITY_FLOOR
    precisions: tuple[str, ...] = ()
    nvlink_required: bool = False


@dataclass(frozen=True)
class Requirements:
    """What is wanted; the defaults want what every GPU that vLLM runs on has."""

    minimum_compute_capability: tuple[int, int] = COMPUTE_CAPABILITY_FLOOR
    precisions: tuple[str, ...] = ()
    memory_tier: str = "any"
    #: Nominal GB of one GPU; the larger of this and the tier counts.
    minimum_memory_gb: float = 0
    count: int = 0
    same_product: bool = False
    instances: tuple[Instance, ...] = ()
    nvlink_required: bool = False
    #: "major.minor"; None asks for no version.
    cuda_version: tuple[int, int] | None = None
    minimum_driver_branch: int | None = None
    driver_required: bool = False
    allowed_processes: tuple[str, ...] = OWN_PROCESSES
    ignored_codes: tuple[str, ...] = ()

    @property
    def memory_gb(self) -> float:
        """Nominal GB that every GPU must have."""
        return max(self.minimum_memory_gb, MEMORY_TIERS[self.memory_tier])

    def floor_of(self, address: str) -> tuple[int, int]:
        """The compute capability that this GPU needs: the host's, or a higher one of an instance on it."""
        return max(
            self.minimum_compute_capability,
            *(instance.minimum_compute_capability for instance in self.instances if address in instance.gpus),
            COMPUTE_CAPABILITY_FLOOR,
        )

    def precisions_of(self, address: str) -> list[str]:
        """The precisions that this GPU must compute in: the host's and those of the instances on it."""
        on_it = (instance.precisions for instance in self.instances if address in instance.gpus)
        return sorted({*self.precisions, *(name for names in on_it for name in names)})


def requirements(options: Mapping[str, Any], known_codes: Iterable[str]) -> Requirements:
    """Read requirements from plain options; None stands for the default.

    Raises:
        InvalidInputError: an option is unknown, of a wrong form or out of range; ``ignored_codes`` names a code that
            is not in ``known_codes``.
    """
    names = [field.name for field in fields(Requirements)]
    unknown = sorted(str(name) for name in options if name not in names)
    if unknown:
        raise InvalidInputError(f"GPU requirements: found {', '.join(unknown)}; wanted some of {', '.join(names)}")
    given = {name: value for name, value in options.items() if value is not None}
    read: dict[str, Any] = {}
    for name, value in given.items():
        if name == "minimum_compute_capability":
            read[name] = _floor(value)
        elif name == "cuda_version":
            read[name] = _version(name, value)
        elif name == "precisions":
            read[name] = _precisions(value)
        elif name in ("ignored_codes", "allowed_processes"):
            read[name] = _texts(name, value)
        elif name in ("same_product", "nvlink_required", "driver_required"):
            read[name] = _truth(name, value)
        elif name in ("count", "minimum_driver_branch", "minimum_memory_gb"):
            kinds = (int, float) if name == "minimum_memory_gb" else (int,)
            if isinstance(value, bool) or not isinstance(value, kinds) or value < 0:
                raise InvalidInputError(f"{name}: found {value!r}, wanted a number from 0 on")
            read[name] = value
        elif name == "memory_tier":
            read[name] = _one_of(name, value, MEMORY_TIERS)
        else:
            read[name] = tuple(_instance(item) for item in value)
    codes = sorted(known_codes)
    for code in read.get("ignored_codes", ()):
        _one_of("ignored_codes", code, codes)
    return Requirements(**read)


def text(version: tuple[int, int]) -> str:
    """Return ``8.9`` for (8, 9)."""
    return f"{version[0]}.{version[1]}"


def version_of(value: Any) -> tuple[int, int] | None:
    """Return (8, 9) for ``8.9``, None for what is no such text."""
    match = re.fullmatch(r"(\d{1,3})\.(\d{1,3})", str(value))
    return (int(match[1]), int(match[2])) if match else None


def _version(name: str, value: Any) -> tuple[int, int]:
    version = version_of(value)
    if version is None:
        raise InvalidInputError(f'{name}: found {value!r}, wanted a version like "9.0"')
    return version


def _floor(value: Any) -> tuple[int, int]:
    floor = _version("minimum_compute_capability", value)
    if floor < COMPUTE_CAPABILITY_FLOOR:
        raise InvalidInputError(
            f"minimum_compute_capability: found {text(floor)}, wanted {text(COMPUTE_CAPABILITY_FLOOR)} or more: "
            "vLLM has no kernels for older GPUs"
        )
    return floor


def _precisions(value: Any) -> tuple[str, ...]:
    return tuple(_one_of("precisions", name, PRECISIONS) for name in _texts("precisions", value))


def _texts(name: str, value: Any) -> tuple[str, ...]:
    if isinstance(value, (str, bytes)) or not all(isinstance(item, str) for item in value):
        raise InvalidInputError(f"{name}: found {value!r}, wanted a list of texts")
    return tuple(str(item) for item in value)


def _truth(name: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise InvalidInputError(f"{name}: found {value!r}, wanted true or false")
    return value


def _one_of(name: str, value: Any, known: Iterable[str]) -> Any:
    if value not in known:
        raise InvalidInputError(f"{name}: found {value!r}, wanted one of {', '.join(known)}")
    return value


def _instance(item: Any) -> Instance:
    try:
        return Instance(
            str(item["name"]),
            tuple(normal_pci_address(str(address)) for address in item["gpus"]),
            _floor(item.get("minimum_compute_capability") or text(COMPUTE_CAPABILITY_FLOOR)),
            _precisions(item.get("precisions") or ()),
            _truth("instances.nvlink_required", item.get("nvlink_required") or False),
        )
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise InvalidInputError(
            f"instances: found {item!r} ({error}); wanted a name and gpus, a list of PCI addresses"
        ) from error
