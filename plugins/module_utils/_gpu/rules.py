# SPDX-License-Identifier: Apache-2.0
# PRIVATE to the collection: do not import this from outside, it may change without notice.
"""The rules that a host's GPUs are held against. Pure: facts and requirements in, findings out, in a stable order.

A finding is {host, code, found, wanted, fix}. What nobody knows breaks no rule: before a driver runs only the PCI bus
and the catalogue speak, and a question that a product does not support has no answer. docs/findings.md explains every
code.
"""

from __future__ import annotations

import fnmatch
import posixpath
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from ansible_collections.gpufleet.metal.plugins.module_utils._gpu import catalogue
from ansible_collections.gpufleet.metal.plugins.module_utils._gpu.requirements import (
    PRECISIONS,
    Requirements,
    text,
    version_of,
)

Finding = dict[str, str]

#: A driver reports up to 7 % less than the nominal size (a T4 of 16 GB: 15360 MiB), because ECC and firmware take some.
MEMORY_TOLERANCE = 0.1

#: CUDA's major version -> the first driver branch that runs it (NVIDIA, CUDA Compatibility, minor version
#: compatibility).
DRIVER_BRANCH_OF_CUDA = {13: 580, 12: 525, 11: 450}

_RESET = "take the engines off the GPU and reset it (nvidia-smi --gpu-reset --id {address}), or reboot the host"


@dataclass(frozen=True)
class Host:
    """A host's name and ``ansible_facts.gpu``, with what the rules ask of them."""

    name: str
    facts: dict[str, Any]

    @property
    def gpus(self) -> list[dict[str, Any]]:
        """The GPUs by PCI address."""
        return sorted(self.facts["gpus"], key=lambda gpu: str(gpu["pci_address"]))

    @property
    def driver_branch(self) -> int | None:
        """580 of "580.105.08"; None without a driver, and for a simulated one that claims no version."""
        head = str(self.facts.get("driver_version") or "").partition(".")[0]
        return int(head) if head.isdigit() and int(head) > 0 else None

    def finding(self, code: str, found: str, wanted: str, fix: str) -> Finding:
        """A finding about this host."""
        return {"host": self.name, "code": code, "found": found, "wanted": wanted, "fix": fix}


def name_of(gpu: dict[str, Any]) -> str:
    """The GPU for a message: address and product."""
    return f"{gpu['pci_address']} ({gpu.get('product') or 'unknown device'})"


def _product(gpu: dict[str, Any]) -> catalogue.Product | None:
    return catalogue.find(gpu["device_id"], gpu.get("subsystem_id")) if gpu.get("device_id") else None


def driver_state(host: Host, wanted: Requirements) -> Iterator[Finding]:
    """The driver answers, for all GPUs, in time.

    Source: NVML's return codes (18 LIB_RM_VERSION_MISMATCH, 15 GPU_IS_LOST; nvml.h) and facts about hangs: a GPU that
    has fallen off the bus (Xid 79) can block nvidia-smi for ever. A host without a driver breaks no rule unless one is
    asked for: the role that installs it comes later.
    """
    state = host.facts.get("driver_state", "running")
    reason = host.facts.get("driver_state_reason") or "no reason was given"
    if not host.gpus or state == "running" or (state == "absent" and not wanted.driver_required):
        return
    code, running, fix = {
        "absent": (
            "driver_absent",
            "a driver that runs",
            "install NVIDIA's driver; if it is installed, see why its kernel module is not loaded (journalctl -k)",
        ),
        "mismatch": (
            "driver_mismatch",
            "a library and a kernel module of one version",
            "the driver was updated under a running kernel module: reboot the host, and hold the driver's packages",
        ),
        "lost": (
            "gpu_lost",
            "a driver that reaches every GPU",
            "look for Xid 79 in the kernel's log (journalctl -k -g Xid) and reboot the host; "
            "have the card, its power and its slot checked if it happens again",
        ),
        "hung": (
            "driver_hung",
            "an answer before the deadline (deadline_seconds)",
            "look for Xid messages and blocked tasks in the kernel's log (journalctl -k) and reboot the host; "
            "a driver without persistence mode that must start many GPUs first may only need a longer deadline",
        ),
        "broken": (
            "driver_broken",
            "a driver that answers",
            "run nvidia-smi on the host, look into the kernel's log (journalctl -k -g NVRM), "
            "and install the driver again",
        ),
    }[state]
    yield host.finding(code, reason, running, fix)


def in_driver(host: Host, wanted: Requirements) -> Iterator[Finding]:
    """A driver that runs reports every GPU of the PCI bus.

    Source: NVIDIA, Xid errors: a GPU that failed to start, or that a kernel module of another kind does not know, is
    left out of NVML's list without an error. A product that the driver is too old or too new for has that as its
    finding.
    """
    if host.facts.get("driver_state", "running") not in ("running", "lost"):
        return
    for gpu in host.gpus:
        if gpu.get("in_driver") is False and not any(_unfit_driver(host, gpu)):
            yield host.finding(
                "gpu_not_in_driver",
                f"driver {host.facts.get('driver_version') or 'of an unknown version'} does not report {name_of(gpu)}",
                "a driver that reports every GPU on the PCI bus",
                "look for Xid and NVRM messages in the kernel's log (journalctl -k); reset the GPU or reboot the host, "
                "and have the card checked if it happens again",
            )


def known_device(host: Host, wanted: Requirements) -> Iterator[Finding]:
    """Somebody can say what the device is: the catalogue or a driver. Source: DESIGN, "never guessed"."""
    for gpu in host.gpus:
        if not gpu.get("product") or gpu.get("memory_mib") is None or gpu.get("compute_capability") is None:
            yield host.finding(
                "gpu_unknown",
                f"{gpu['pci_address']} ({gpu.get('product') or 'unknown device'}, "
                f"10DE:{gpu.get('device_id') or '????'}), subsystem {gpu.get('subsystem_id') or 'not readable'}",
                "a product of the catalogue (docs/gpu_catalogue.md), or a driver that describes the device",
                "take the device out of this host, install its driver by hand and run gpufleet.metal.discover, "
                "or add the product to the catalogue with a source for every number",
            )


def compute_capability(host: Host, wanted: Requirements) -> Iterator[Finding]:
    """The floor of vLLM's CUDA builds, 7.5, or the higher one of a model that runs here.

    Source: vLLM's installation guide for NVIDIA GPUs ("compute capability 7.5 or higher").
    """
    for gpu in host.gpus:
        floor = wanted.floor_of(gpu["pci_address"])
        has = version_of(gpu.get("compute_capability"))
        if has is None or has >= floor:
            continue
        if has < Requirements.minimum_compute_capability:
            yield host.finding(
                "gpu_too_old",
                f"{name_of(gpu)} has compute capability {text(has)}",
                f"{text(Requirements.minimum_compute_capability)} or more: vLLM has no kernels for older GPUs",
                f"take {host.name} out of gpu_nodes",
            )
        else:
            yield host.finding(
                "gpu_below_minimum_compute_capability",
                f"{name_of(gpu)} has compute capability {text(has)}",
                f"{text(floor)} or more (minimum_compute_capability)",
                "lower minimum_compute_capability of the model, or serve it on hosts with newer GPUs",
            )


def precision(host: Host, wanted: Requirements) -> Iterator[Finding]:
    """The GPUs compute in the precision that is asked for.

    Source: NVIDIA, CUDA Programming Guide, features by compute capability: int8 7.5, bf16 8.0, fp8 8.9, fp4 10.0.
    """
    for gpu in host.gpus:
        has = version_of(gpu.get("compute_capability"))
        for name in wanted.precisions_of(gpu["pci_address"]):
            if has is not None and has < PRECISIONS[name]:
                yield host.finding(
                    "precision_unsupported",
                    f"{name_of(gpu)} has compute capability {text(has)}",
                    f"{text(PRECISIONS[name])} or more for {name}",
                    "choose another precision or quantization for the models of this host, or use newer GPUs",
                )


def memory(host: Host, wanted: Requirements) -> Iterator[Finding]:
    """Every GPU has the memory of the tier: 16 GB for development, 40 GB and up for production.

    Sizes are nominal, so what a driver reports may be less by MEMORY_TOLERANCE. Source of the tiers: the smallest GPU
    of the catalogue that vLLM runs on (T4) and the smallest that is sold for serving large models (A100 40 GB).
    """
    for gpu in host.gpus:
        has = gpu.get("memory_mib")
        if has is not None and has < wanted.memory_gb * 1024 * (1 - MEMORY_TOLERANCE):
            tier = f" (memory_tier {wanted.memory_tier})" if wanted.memory_gb > wanted.minimum_memory_gb else ""
            yield host.finding(
                "gpu_memory_too_small",
                f"{name_of(gpu)} has {has} MiB",
                f"{wanted.memory_gb:g} GB or more{tier}",
                "use GPUs with more memory, or lower memory_tier or minimum_memory_gb",
            )


def count(host: Host, wanted: Requirements) -> Iterator[Finding]:
    """There are as many GPUs as asked for. Source: the requirement itself."""
    if len(host.gpus) < wanted.count:
        yield host.finding(
            "gpu_count_too_low",
            f"{_number(len(host.gpus))}: {', '.join(map(name_of, host.gpus)) or 'none'}",
            f"{_number(wanted.count)} or more",
            "look for the missing cards in lspci, their slots and the host's event log",
        )


def same_product(host: Host, wanted: Requirements) -> Iterator[Finding]:
    """All GPUs of an instance, and where asked all of the host, are of one product.

    Source: vLLM splits a model evenly over its ranks, so the smallest and the slowest GPU would set the pace and the
    memory of all (vLLM, Distributed Inference and Serving).
    """
    for instance in wanted.instances:
        gpus = [gpu for gpu in host.gpus if gpu["pci_address"] in instance.gpus]
        if _mixed(gpus):
            yield host.finding(
                "instance_products_mixed",
                f"instance {instance.name} has {', '.join(map(name_of, gpus))}",
                "GPUs of one product",
                "run gpufleet.metal.discover and plan again: the plan puts an instance on GPUs of one product",
            )
    if wanted.same_product and _mixed(host.gpus):
        yield host.finding(
            "host_products_mixed",
            f"the host has {', '.join(map(name_of, host.gpus))}",
            "GPUs of one product",
            "put GPUs of one product into the host, or set same_product to false",
        )


def nvlink_domain(host: Host, wanted: Requirements) -> Iterator[Finding]:
    """Where NVLink is required, it joins all GPUs of an instance to each other.

    The plan requires it of an instance that it put on GPUs whose record says that NVLink joins them all.

    Source: NCCL falls back to PCIe between GPUs that NVLink does not join (NCCL user guide, NCCL_P2P_LEVEL); that works
    and is slow, so it is a finding only where asked.
    """
    peers = {gpu["pci_address"]: gpu.get("nvlink_peers") for gpu in host.gpus}
    for instance in wanted.instances:
        if not (wanted.nvlink_required or instance.nvlink_required):
            continue
        apart = sorted(
            f"{one} and {other}"
            for one in instance.gpus
            for other in instance.gpus
            # A GPU that is missing, or that its driver does not describe, has that as its finding.
            if one < other and None not in (peers.get(one), peers.get(other)) and other not in (peers[one] or ())
        )
        if apart:
            yield host.finding(
                "nvlink_missing",
                f"instance {instance.name}: no NVLink between {', '.join(apart)}",
                *(
                    (
                        "NVLink between all GPUs of the instance (nvlink_required)",
                        "check bridges and Fabric Manager, plan again, or set nvlink_required to false",
                    )
                    if wanted.nvlink_required
                    else (
                        "NVLink between all GPUs of the instance, as recorded when it was planned",
                        "check bridges and Fabric Manager; if the hardware was changed on purpose, run the playbook "
                        "gpufleet.metal.discover and commit the record",
                    )
                ),
            )


def mig(host: Host, wanted: Requirements) -> Iterator[Finding]:
    """No GPU of an instance is split by MIG. GPUs of no instance are not judged.

    Source: NVIDIA, Multi-Instance GPU User Guide, "no GPU to GPU P2P (either PCIe or NVLink) is supported": slices
    cannot form one tensor-parallel group, and an instance is given its GPUs whole.
    """
    taken = {address for instance in wanted.instances for address in instance.gpus}
    for gpu in host.gpus:
        if gpu.get("mig_enabled") and gpu["pci_address"] in taken:
            yield host.finding(
                "mig_enabled",
                f"{name_of(gpu)} is split by MIG",
                "whole GPUs: slices have no way to each other for tensor parallelism",
                f"run nvidia-smi --id {gpu['pci_address']} --multi-instance-gpu 0 on {host.name} while the GPU is idle",
            )


def ecc(host: Host, wanted: Requirements) -> Iterator[Finding]:
    """ECC is on where the product has it, and counted no uncorrectable error since the driver was loaded.

    Source: NVIDIA, GPU Memory Error Management: after an uncorrectable error the application's data are lost, and the
    GPU wants a reset. Errors of former days, which the aggregate counts, were dealt with by that reset.
    """
    for gpu in host.gpus:
        if gpu.get("ecc_enabled") is False:
            yield host.finding(
                "ecc_disabled",
                f"{name_of(gpu)} runs without ECC",
                "ECC on: without it a flipped bit becomes a wrong answer",
                f"run nvidia-smi --id {gpu['pci_address']} --ecc-config=1 and reboot, or ignore the code ecc_disabled",
            )
        errors = gpu.get("ecc_uncorrectable") or {}
        if errors.get("volatile"):
            yield host.finding(
                "ecc_errors_uncorrectable",
                f"{name_of(gpu)} counted {errors['volatile']} uncorrectable memory errors since its driver was loaded, "
                f"{errors.get('aggregate', 'an unknown number')} ever",
                "none",
                f"{_RESET.format(address=gpu['pci_address'])}; have the card checked if they come back",
            )


def row_remapping(host: Host, wanted: Requirements) -> Iterator[Finding]:
    """No replacement of a memory row waits for a reset, and none has failed.

    Source: NVIDIA, GPU Memory Error Management, "Row Remapping": a pending one takes effect at the next reset; after a
    failed one the card qualifies for exchange (RMA policy).
    """
    for gpu in host.gpus:
        rows = gpu.get("remapped_rows") or {}
        if rows.get("pending"):
            yield host.finding(
                "row_remap_pending",
                f"{name_of(gpu)} has a memory row whose replacement waits for a reset",
                "no replacement that waits",
                _RESET.format(address=gpu["pci_address"]),
            )
        if rows.get("failure"):
            yield host.finding(
                "row_remap_failure",
                f"{name_of(gpu)} could not replace a memory row",
                "no failed replacement",
                "take the card out of service, run NVIDIA's field diagnostic and have it exchanged",
            )


def pcie(host: Host, wanted: Requirements) -> Iterator[Finding]:
    """The PCIe link has the lanes and the generation of the product.

    An idle GPU lowers its link's generation, so what the GPU *in this slot* can do is compared with what the product
    can do, by its driver or else by the catalogue, and never the generation of the moment. Lanes do not go to sleep:
    the width of the moment is compared.

    Source: NVML API, nvmlDeviceGetMaxPcieLinkGeneration ("possible with this device and system") and
    nvmlDeviceGetGpuMaxPcieLinkGeneration ("supported by this device").
    """
    for gpu in host.gpus:
        link = gpu.get("pcie_link") or {}
        product = _product(gpu)
        fix = "check the slot, the riser and the BIOS; where the server has no better slot, ignore the code {}"
        widths = [value for value in (link.get("width"), link.get("width_maximum")) if value]
        lanes = product.pcie_width if product else None
        if lanes is None:
            # Only a link that is narrower than it could be in this slot is wrong for sure.
            lanes = link.get("width_maximum")
        if lanes and widths and min(widths) < lanes:
            yield host.finding(
                "pcie_width_reduced",
                f"{name_of(gpu)} uses {min(widths)} PCIe lanes",
                f"{lanes} lanes",
                fix.format("pcie_width_reduced"),
            )
        generation = link.get("generation_maximum")
        best = link.get("generation_product") or (product.pcie_generation if product else None)
        if generation and best and generation < best:
            yield host.finding(
                "pcie_generation_reduced",
                f"{name_of(gpu)} can use PCIe generation {generation} in its slot",
                f"generation {best}",
                fix.format("pcie_generation_reduced"),
            )


def persistence_mode(host: Host, wanted: Requirements) -> Iterator[Finding]:
    """The driver keeps every GPU initialised.

    Source: NVIDIA, Driver Persistence: without it the GPU is started anew whenever its last user goes, which takes
    seconds and forgets settings.
    """
    for gpu in host.gpus:
        if gpu.get("persistence_mode") is False:
            yield host.finding(
                "persistence_mode_off",
                f"{name_of(gpu)} is shut down by its driver when nobody uses it",
                "persistence mode on",
                "enable the service nvidia-persistenced",
            )


def driver_branch(host: Host, wanted: Requirements) -> Iterator[Finding]:
    """The driver's branch supports the product, runs the wanted CUDA, and reaches the wanted minimum.

    Sources: release notes of the driver branches and the GPU Operator's platform table (the catalogue's minimum and
    maximum); NVIDIA, CUDA Compatibility: CUDA 13.x needs 580, 12.x 525, 11.x 450. vLLM's wheels for CUDA 13.0 do not
    run on branch 535 (vllm-project/vllm issue 30633), whose support ended in June 2026.
    """
    version = host.facts.get("driver_version")
    branch = host.driver_branch
    if branch is None or not host.gpus:
        return
    for gpu in host.gpus:
        yield from _unfit_driver(host, gpu)
    if wanted.cuda_version is not None:
        needed = DRIVER_BRANCH_OF_CUDA.get(wanted.cuda_version[0])
        if needed is not None and branch < needed:
            yield host.finding(
                "driver_too_old_for_cuda",
                f"driver {version}",
                f"branch {needed} or newer for CUDA {text(wanted.cuda_version)}",
                f"upgrade the driver to branch {needed} or newer",
            )
    if wanted.minimum_driver_branch is not None and branch < wanted.minimum_driver_branch:
        yield host.finding(
            "driver_too_old",
            f"driver {version}",
            f"branch {wanted.minimum_driver_branch} or newer (minimum_driver_branch)",
            f"upgrade the driver to branch {wanted.minimum_driver_branch} or newer",
        )


def _unfit_driver(host: Host, gpu: dict[str, Any]) -> Iterator[Finding]:
    """What keeps this driver from supporting this product."""
    version, branch, product = host.facts.get("driver_version"), host.driver_branch, _product(gpu)
    if product is None or branch is None:
        return
    if product.driver_version_minimum and _parts(str(version)) < _parts(product.driver_version_minimum):
        yield host.finding(
            "driver_too_old_for_product",
            f"driver {version} with {name_of(gpu)}",
            f"{product.driver_version_minimum} or newer",
            "install a newer driver branch",
        )
    if product.driver_branch_maximum and branch > product.driver_branch_maximum:
        yield host.finding(
            "driver_too_new_for_product",
            f"driver {version} with {name_of(gpu)}",
            f"branch {product.driver_branch_maximum} or older: it is the last one that supports the product",
            f"install branch {product.driver_branch_maximum}",
        )


def processes(host: Host, wanted: Requirements) -> Iterator[Finding]:
    """Nobody but the fleet's own engines computes on the GPUs.

    Source: an engine takes its share of the *whole* memory at its start (vLLM, gpu_memory_utilization), so a stranger
    makes it fail, and the other way round. A process is told by its name, with the patterns of the shell.
    """
    for gpu in host.gpus:
        strangers = [
            process
            for process in gpu.get("processes") or ()
            if not any(_matches(process.get("name"), pattern) for pattern in wanted.allowed_processes)
        ]
        if strangers:
            yield host.finding(
                "gpu_in_use",
                f"{name_of(gpu)} is used by {', '.join(map(_describe_process, strangers))}",
                f"no processes but {', '.join(wanted.allowed_processes) or 'none'}",
                "stop them or take the GPU out of the fleet; if they belong here, name them in allowed_processes",
            )


def fabric(host: Host, wanted: Requirements) -> Iterator[Finding]:
    """On a host with NVSwitches Fabric Manager has brought every GPU into the fabric.

    Hopper and newer tell each GPU's state; on an HGX A100 only the service itself shows whether it works.

    Source: NVIDIA, Fabric Manager User Guide: until ``nvidia-smi -q`` shows Fabric State Completed and Status Success,
    CUDA does not start (error 802, "system not yet initialized"). When the service ends, running CUDA jobs are aborted
    (ABORT_CUDA_JOBS_ON_FM_EXIT).
    """
    ready = True
    for gpu in host.gpus:
        state = gpu.get("fabric")
        if state and (state.get("state"), state.get("status")) != ("completed", "success"):
            ready = False
            yield host.finding(
                "fabric_not_ready",
                f"{name_of(gpu)}: fabric state {state.get('state')}, status {state.get('status') or 'not told'}",
                "state completed, status success: without it CUDA does not start (error 802)",
                "install nvidia-fabricmanager of exactly the driver's version, start it, and look into its journal "
                "(on HGX B200 and B300 also nvlsm and the kernel module ib_umad)",
            )
    service = host.facts.get("fabric_manager")
    if ready and service not in (None, "active") and host.facts.get("driver_state", "running") == "running":
        yield host.finding(
            "fabric_manager_inactive",
            f"NVSwitches join the GPUs, and the service nvidia-fabricmanager is {service}",
            "an active service: without it CUDA does not start (error 802)",
            "install nvidia-fabricmanager of exactly the driver's version, start it, and look into its journal",
        )


RULES = (
    driver_state,
    in_driver,
    known_device,
    compute_capability,
    precision,
    memory,
    count,
    same_product,
    nvlink_domain,
    mig,
    ecc,
    row_remapping,
    pcie,
    persistence_mode,
    driver_branch,
    processes,
    fabric,
)

#: Every code that a rule can give; ``ignored_codes`` may name these and no others.
CODES = (
    "driver_absent",
    "driver_broken",
    "driver_hung",
    "driver_mismatch",
    "driver_too_new_for_product",
    "driver_too_old",
    "driver_too_old_for_cuda",
    "driver_too_old_for_product",
    "ecc_disabled",
    "ecc_errors_uncorrectable",
    "fabric_manager_inactive",
    "fabric_not_ready",
    "gpu_below_minimum_compute_capability",
    "gpu_count_too_low",
    "gpu_in_use",
    "gpu_lost",
    "gpu_memory_too_small",
    "gpu_not_in_driver",
    "gpu_too_old",
    "gpu_unknown",
    "host_products_mixed",
    "instance_products_mixed",
    "mig_enabled",
    "nvlink_missing",
    "pcie_generation_reduced",
    "pcie_width_reduced",
    "persistence_mode_off",
    "precision_unsupported",
    "row_remap_failure",
    "row_remap_pending",
)


def breaches(host: str, facts: dict[str, Any], wanted: Requirements) -> list[Finding]:
    """Return every breach of every rule, without the ignored codes.

    Args:
        host: inventory name.
        facts: ``ansible_facts.gpu``.
        wanted: what is asked of the GPUs.
    """
    judged = Host(host, facts)
    return [
        finding for rule in RULES for finding in rule(judged, wanted) if finding["code"] not in wanted.ignored_codes
    ]


def _number(count_of_gpus: int) -> str:
    return f"{count_of_gpus} GPU" if count_of_gpus == 1 else f"{count_of_gpus} GPUs"


def _mixed(gpus: list[dict[str, Any]]) -> bool:
    return len({gpu.get("product") or gpu.get("device_id") for gpu in gpus}) > 1


def _parts(version: str) -> tuple[int, ...]:
    return tuple(int(part) if part.isdigit() else 0 for part in version.split("-")[0].split("."))


def _matches(name: str | None, pattern: str) -> bool:
    """Whether a process has a name of the pattern, with its path or without; a process without a name never has."""
    if name is None:
        return False
    return fnmatch.fnmatchcase(name, pattern) or fnmatch.fnmatchcase(posixpath.basename(name), pattern)


def _describe_process(process: dict[str, Any]) -> str:
    memory_mib = process.get("memory_mib")
    uses = f" with {memory_mib} MiB" if memory_mib is not None else ""
    return f"{process.get('name') or 'a process without a name'} (pid {process['pid']}){uses}"
