# SPDX-License-Identifier: Apache-2.0
# PRIVATE to the collection: do not import this from outside, it may change without notice.
"""Read GPUs through NVML with nvidia-ml-py (the Python module ``pynvml``), where the host has both.

A question that a product or a driver does not support answers None for that one key. nvidia-ml-py opens
"libnvidia-ml.so.1" by name and takes no path; loading a library with that soname first, by its absolute path,
makes the later open return the same library (dlopen compares sonames).
"""

from __future__ import annotations

import ctypes
import importlib
import os
from collections import Counter
from typing import Any, Callable

from ansible_collections.gpufleet.metal.plugins.module_utils._errors import FleetError
from ansible_collections.gpufleet.metal.plugins.module_utils._gpu.reading import (
    DriverGpu,
    DriverReading,
    normal_pci_address,
)

# Values of NVML's enums, from nvml.h; nvidia-ml-py defines some of them wrongly (a tuple for P2P_CAPS_INDEX_READ).
_P2P_NVLINK = 2
_P2P_READ = 0
_P2P_OK = 0
_P2P_WORDS = {
    0: "ok",
    1: "chipset not supported",
    2: "gpu not supported",
    3: "topology not supported",
    4: "disabled by registry key",
    5: "not supported",
}
_ANCESTOR_WORDS = {0: "internal", 10: "single", 20: "multiple", 30: "hostbridge", 40: "node", 50: "system"}
_LINK_PEER_WORDS = {0: "gpu", 1: "npu", 2: "switch"}
_LINKS_MAXIMUM = 36
_ERROR_NOT_SUPPORTED = 3
_ERROR_DRIVER_NOT_LOADED = 9
_ERROR_LIBRARY_NOT_FOUND = 12
_ERROR_FUNCTION_NOT_FOUND = 13
_ERROR_GPU_IS_LOST = 15
_ERROR_MISMATCH = 18
_ERROR_ARGUMENT_VERSION_MISMATCH = 25
# Errors that mean "not here" and are no reason for a warning.
_SILENT = (_ERROR_NOT_SUPPORTED, _ERROR_FUNCTION_NOT_FOUND, _ERROR_ARGUMENT_VERSION_MISMATCH)
_STATES = {
    _ERROR_DRIVER_NOT_LOADED: "absent",
    _ERROR_LIBRARY_NOT_FOUND: "absent",
    _ERROR_GPU_IS_LOST: "lost",
    _ERROR_MISMATCH: "mismatch",
}
_FABRIC_WORDS = {1: "not started", 2: "in progress", 3: "completed"}
_UNCORRECTED = 1
_ECC_COUNTERS = {"volatile": 0, "aggregate": 1}
_PCIE_QUESTIONS = {
    "generation": "nvmlDeviceGetCurrPcieLinkGeneration",
    "generation_maximum": "nvmlDeviceGetMaxPcieLinkGeneration",
    "generation_product": "nvmlDeviceGetGpuMaxPcieLinkGeneration",
    "width": "nvmlDeviceGetCurrPcieLinkWidth",
    "width_maximum": "nvmlDeviceGetMaxPcieLinkWidth",
}


class NvmlUnavailableError(FleetError):
    """NVML cannot be read on this host; the message says why.

    ``expected``: nothing to warn of. ``state``: what that says about the driver, one of DRIVER_STATES; None: nothing.
    """

    def __init__(self, message: str, expected: bool, state: str | None = None) -> None:
        super().__init__(message)
        self.expected = expected
        self.state = state


def read(library: str | None = None) -> DriverReading:
    """Ask NVML for everything.

    Args:
        library: absolute path of libnvidia-ml.so.1, None to let the dynamic linker find it.

    Raises:
        NvmlUnavailableError: nvidia-ml-py is not installed, there is no library, or NVML does not start.
    """
    try:
        api: Any = importlib.import_module("pynvml")
    except ImportError as error:
        raise NvmlUnavailableError(
            f"nvidia-ml-py is not installed for this Python ({error})", expected=True, state="absent"
        ) from error
    if library is not None:
        try:
            ctypes.CDLL(library, mode=ctypes.RTLD_GLOBAL)
        except OSError as error:
            raise NvmlUnavailableError(
                f"nvml_library: found {library!r}, which cannot be loaded ({error}); "
                "wanted the path of libnvidia-ml.so.1 on the host, or null to let the dynamic linker find it",
                expected=False,
                state=None if os.path.exists(library) else "absent",
            ) from error
    try:
        api.nvmlInit()
    except api.NVMLError as error:
        raise NvmlUnavailableError(
            f"NVML does not start: {error}",
            expected=error.value in (_ERROR_LIBRARY_NOT_FOUND, _ERROR_DRIVER_NOT_LOADED),
            state=_STATES.get(error.value),
        ) from error
    try:
        return _Session(api).read()
    finally:
        api.nvmlShutdown()


class _Session:
    """One initialised NVML: asks, collects warnings, and turns "not supported" into None."""

    def __init__(self, api: Any) -> None:
        self.api = api
        self.warnings: list[str] = []
        self.lost: str | None = None

    def ask(self, what: str, question: Callable[..., Any], *arguments: Any) -> Any:
        """The answer, or None when NVML has none; anything but "not supported" becomes a warning about ``what``."""
        try:
            return question(*arguments)
        except self.api.NVMLError as error:
            if error.value not in _SILENT:
                self.warnings.append(f"NVML, {what}: {error}")
            if error.value == _ERROR_GPU_IS_LOST and self.lost is None:
                self.lost = self.warnings[-1]
        except UnicodeDecodeError as error:
            self.warnings.append(f"NVML, {what}: the answer is no text ({error.reason})")
        return None

    def ask_by_name(self, what: str, name: str, *arguments: Any) -> Any:
        """As :meth:`ask`; an nvidia-ml-py that is too old to have the question answers None."""
        question = getattr(self.api, name, None)
        return None if question is None else self.ask(what, question, *arguments)

    def read(self) -> DriverReading:
        api = self.api
        driver = self.ask("driver version", api.nvmlSystemGetDriverVersion)
        cuda = self.ask("CUDA version", api.nvmlSystemGetCudaDriverVersion_v2)
        count = self.ask("number of GPUs", api.nvmlDeviceGetCount) or 0
        devices: dict[str, tuple[int, Any, Any]] = {}
        for index in range(count):
            handle = self.ask(f"GPU {index}", api.nvmlDeviceGetHandleByIndex, index)
            if handle is None:
                continue
            info = self.ask(f"PCI address of GPU {index}", api.nvmlDeviceGetPciInfo, handle)
            address = self.address(info, f"GPU {index}")
            if address is not None:
                devices[address] = (index, handle, info)
        links = {address: self.links(handle, address) for address, (__, handle, __) in devices.items()}
        topology = {address: self.topology(address, devices) for address in devices}
        gpus = tuple(
            self.gpu(address, index, handle, info, links, topology[address])
            for address, (index, handle, info) in sorted(devices.items())
        )
        return DriverReading(
            source="nvml",
            driver_version=driver,
            cuda_version=f"{cuda // 1000}.{cuda % 1000 // 10}" if cuda else None,
            gpus=gpus,
            warnings=tuple(self.warnings),
            lost=self.lost,
        )

    def address(self, info: Any, what: str) -> str | None:
        if info is None:
            return None
        # nvidia-ml-py hands out text or bytes, depending on its version.
        bus_id = self.ask(f"PCI address of {what}", getattr, info, "busId")
        text = bus_id.decode("ascii", errors="replace") if isinstance(bus_id, bytes) else str(bus_id)
        try:
            return normal_pci_address(text)
        except FleetError as error:
            self.warnings.append(f"NVML, {what}: {error}")
            return None

    def gpu(
        self,
        address: str,
        index: int,
        handle: Any,
        info: Any,
        links: dict[str, tuple[dict[str, Any], ...] | None],
        topology: tuple[dict[str, Any], ...],
    ) -> DriverGpu:
        api = self.api
        where = f"GPU {address}"
        memory = self.ask(f"memory of {where}", api.nvmlDeviceGetMemoryInfo, handle)
        capability = self.ask(f"compute capability of {where}", api.nvmlDeviceGetCudaComputeCapability, handle)
        mig = self.ask(f"MIG mode of {where}", api.nvmlDeviceGetMigMode, handle)
        ecc = self.ask(f"ECC mode of {where}", api.nvmlDeviceGetEccMode, handle)
        persistence = self.ask(f"persistence mode of {where}", api.nvmlDeviceGetPersistenceMode, handle)
        return DriverGpu(
            pci_address=address,
            index=index,
            device_id=f"{info.pciDeviceId >> 16:04X}",
            subsystem_id=f"{info.pciSubSystemId & 0xFFFF:04X}:{info.pciSubSystemId >> 16:04X}",
            name=self.ask(f"name of {where}", api.nvmlDeviceGetName, handle),
            uuid=self.ask(f"UUID of {where}", api.nvmlDeviceGetUUID, handle),
            memory_mib=memory.total >> 20 if memory is not None else None,
            compute_capability=f"{capability[0]}.{capability[1]}" if capability is not None else None,
            mig_enabled=bool(mig[0]) if mig is not None else None,
            persistence_mode=bool(persistence) if persistence is not None else None,
            ecc_enabled=bool(ecc[0]) if ecc is not None else None,
            ecc_uncorrectable=_known(
                {
                    name: self.ask_by_name(
                        f"ECC errors of {where}", "nvmlDeviceGetTotalEccErrors", handle, _UNCORRECTED, counter
                    )
                    for name, counter in _ECC_COUNTERS.items()
                }
            ),
            remapped_rows=self.remapped_rows(handle, where),
            pcie_link=_known(
                {
                    name: self.ask_by_name(f"PCIe link of {where}", question, handle)
                    for name, question in _PCIE_QUESTIONS.items()
                }
            ),
            processes=self.processes(handle, where),
            fabric=self.fabric(handle, where),
            nvlink_peers=nvlink_peers(address, links, topology),
            links=links[address],
            topology=topology,
        )

    def remapped_rows(self, handle: Any, where: str) -> dict[str, Any] | None:
        rows = self.ask_by_name(f"remapped rows of {where}", "nvmlDeviceGetRemappedRows", handle)
        if rows is None:
            return None
        correctable, uncorrectable, pending, failure = rows
        return {
            "correctable": correctable,
            "uncorrectable": uncorrectable,
            "pending": bool(pending),
            "failure": bool(failure),
        }

    def processes(self, handle: Any, where: str) -> tuple[dict[str, Any], ...] | None:
        """The processes that compute on the GPU, by process id."""
        for version in ("_v3", "_v2"):  # the second is what drivers before R510 have
            running = self.ask_by_name(
                f"processes of {where}", f"nvmlDeviceGetComputeRunningProcesses{version}", handle
            )
            if running is not None:
                break
        else:
            return None
        return tuple(
            {
                "pid": int(process.pid),
                "name": self.process_name(process.pid),
                "memory_mib": process.usedGpuMemory >> 20 if process.usedGpuMemory is not None else None,
            }
            for process in sorted(running, key=lambda process: int(process.pid))
        )

    def process_name(self, pid: int) -> str | None:
        """None for a process that has ended since, or that another container hides."""
        try:
            name = self.api.nvmlSystemGetProcessName(pid)
        except (self.api.NVMLError, UnicodeDecodeError):
            return None
        return (name.decode("utf-8", errors="replace") if isinstance(name, bytes) else str(name)).strip() or None

    def fabric(self, handle: Any, where: str) -> dict[str, str | None] | None:
        """How far Fabric Manager has come with this GPU; None where no NVSwitch joins it."""
        for suffix in ("V", ""):  # the second is what drivers before R545 have
            info = self.ask(f"fabric of {where}", self._fabric_info, handle, suffix)
            if info is not None:
                break
        else:
            return None
        state = _FABRIC_WORDS.get(info.state)
        if state is None:
            return None
        return {
            "state": state,
            "status": "success" if info.status == 0 else str(self.api.NVMLError(info.status)).lower(),
        }

    def _fabric_info(self, handle: Any, suffix: str) -> Any:
        structure = getattr(self.api, f"c_nvmlGpuFabricInfo{suffix}_t", None)
        question = getattr(self.api, f"nvmlDeviceGetGpuFabricInfo{suffix}", None)
        if structure is None or question is None:
            return None
        info = structure()
        question(handle, ctypes.byref(info))
        return info

    def links(self, handle: Any, address: str) -> tuple[dict[str, Any], ...] | None:
        """Active NVLinks, counted by what is at their other end; None where the product has no NVLink."""
        api = self.api
        found: Counter[tuple[str, str | None]] = Counter()
        answered = False
        for link in range(_LINKS_MAXIMUM):
            try:
                active = api.nvmlDeviceGetNvLinkState(handle, link)
            except api.NVMLError:
                # A product has fewer links than the maximum; the first one it lacks ends the list.
                break
            answered = True
            if not active:
                continue
            what = f"NVLink {link} of GPU {address}"
            kind = self.ask(what, api.nvmlDeviceGetNvLinkRemoteDeviceType, handle, link)
            remote = self.ask(what, api.nvmlDeviceGetNvLinkRemotePciInfo, handle, link)
            word = _LINK_PEER_WORDS.get(kind, "unknown") if kind is not None else "unknown"
            found[word, self.address(remote, what)] += 1
        if not answered:
            return None
        return tuple(
            {"peer_type": kind, "peer_pci_address": peer, "count": count}
            for (kind, peer), count in sorted(found.items(), key=lambda item: (item[0][0], item[0][1] or ""))
        )

    def topology(self, address: str, devices: dict[str, tuple[int, Any, Any]]) -> tuple[dict[str, Any], ...]:
        """How each other GPU of the host is reached: PCIe common ancestor, NVLink, peer-to-peer reads."""
        api = self.api
        handle = devices[address][1]
        answer = []
        for peer, (__, other, __) in sorted(devices.items()):
            if peer == address:
                continue
            what = f"topology of GPU {address} and {peer}"
            ancestor = self.ask(what, api.nvmlDeviceGetTopologyCommonAncestor, handle, other)
            nvlink = self.ask(what, api.nvmlDeviceGetP2PStatus, handle, other, _P2P_NVLINK)
            reads = self.ask(what, api.nvmlDeviceGetP2PStatus, handle, other, _P2P_READ)
            answer.append(
                {
                    "peer_pci_address": peer,
                    "common_ancestor": _word(_ANCESTOR_WORDS, ancestor),
                    "nvlink": None if nvlink is None else nvlink == _P2P_OK,
                    "p2p_read": _word(_P2P_WORDS, reads),
                }
            )
        return tuple(answer)


def _known(answers: dict[str, Any]) -> dict[str, Any] | None:
    """The answers, or None when there is none among them."""
    return answers if any(value is not None for value in answers.values()) else None


def _word(words: dict[int, str], value: int | None) -> str | None:
    return None if value is None else words.get(value, "unknown")


def nvlink_peers(
    address: str,
    links: dict[str, tuple[dict[str, Any], ...] | None],
    topology: tuple[dict[str, Any], ...],
) -> tuple[str, ...] | None:
    """PCI addresses of the host's GPUs that this one reaches by NVLink, sorted; None: the driver says nothing.

    The driver's own answer per pair counts. Where it gives none, two GPUs are peers when a link of one ends at the
    other, or when both have active links to switches (all switches of a host form one fabric).
    """
    answers = {pair["peer_pci_address"]: pair["nvlink"] for pair in topology}
    own = links.get(address)
    if not topology:
        return ()  # it is alone
    if own is None and not any(answer is not None for answer in answers.values()):
        return None
    peers = []
    for peer, answer in answers.items():
        if answer is None:
            direct = any(link["peer_pci_address"] == peer for link in own or ())
            answer = direct or (_has_switch(own) and _has_switch(links.get(peer)))
        if answer:
            peers.append(peer)
    return tuple(sorted(peers))


def _has_switch(links: tuple[dict[str, Any], ...] | None) -> bool:
    return any(link["peer_type"] == "switch" for link in links or ())
