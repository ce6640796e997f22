# SPDX-License-Identifier: Apache-2.0
# PRIVATE to the collection: do not import this from outside, it may change without notice.
"""The hosts of the inventory: their groups, addresses and recorded GPUs."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from ansible_collections.gpufleet.metal.plugins.module_utils._gpu import catalogue

from .findings import Finding, did_you_mean, natural_key
from .mig import SPLIT, VARIABLE, wanted_layout
from .reader import PCI_ADDRESS, as_capability, as_integer, is_ip, shown
from .schema import GROUPS, Gpu, Host, Inventory

#: The only two groups that go together: a GPU node whose engines run in the cluster.
ENGINES_IN_KUBERNETES = ["gpu_nodes", "kube_nodes"]
KUBE_ROLES = {"kube_control_plane": "control_plane", "kube_nodes": "node"}


def _read_address(host: str, variables: Mapping[str, Any], findings: list[Finding]) -> str | None:
    """Return the host's address: fleet_address, else ansible_host, else the host's name if that is an address."""
    for name in ("fleet_address", "ansible_host"):
        value = variables.get(name)
        if value is None:
            continue
        if isinstance(value, str) and is_ip(value):
            return str(ipaddress.ip_address(value))
        findings.append(
            Finding(
                host,
                "address_invalid",
                f"{name} is {shown(value)}",
                "the IP address at which the other hosts of the fleet reach this one",
                f"set fleet_address of {host}",
            )
        )
        return None
    if is_ip(host):
        return str(ipaddress.ip_address(host))
    findings.append(
        Finding(
            host,
            "address_missing",
            "neither fleet_address nor ansible_host is set",
            "the IP address at which the other hosts of the fleet reach this one",
            f"set fleet_address of {host}",
        )
    )
    return None


def _read_gpus(
    host: str, record: Any, layout: Any, accelerator: str, findings: list[Finding]
) -> tuple[tuple[Gpu, ...], bool]:
    """Read a host's recorded hardware: its GPUs, and whether all of it could be read; ``layout``: nvidia_driver_mig."""
    again = f"run ansible-playbook gpufleet.metal.discover --limit {host} and commit host_vars/{host}/gpu_inventory.yml"
    if record is None:
        findings.append(
            Finding(
                host,
                "gpu_inventory_missing",
                "gpu_inventory is not set",
                "the recorded hardware of every GPU node",
                again,
            )
        )
        return (), False
    if not isinstance(record, Mapping) or not isinstance(record.get("gpus"), (list, tuple)):
        found = shown(record.get("gpus")) if isinstance(record, Mapping) else shown(record)
        where = "gpu_inventory.gpus" if isinstance(record, Mapping) else "gpu_inventory"
        findings.append(Finding(host, "gpu_inventory_invalid", f"{where} is {found}", "a list of GPUs", again))
        return (), False
    ok = True
    entries = list(record["gpus"])
    if not entries:
        findings.append(
            Finding(
                host,
                "no_gpus",
                "gpu_inventory.gpus is empty",
                "at least one GPU on a host of the group gpu_nodes",
                f"check the hardware, {again}; or take {host} out of gpu_nodes",
            )
        )
        return (), False
    if record.get("simulated") is True and accelerator == "cuda":
        findings.append(
            Finding(
                host,
                "simulated_gpus",
                "gpu_inventory.simulated is true and fleet_engine.accelerator is cuda",
                "real GPUs, or an engine that runs without them",
                "set fleet_engine.accelerator to cpu (sandbox), or record the real hardware: " + again,
            )
        )
        ok = False
    elif record.get("simulated") is not True and accelerator == "cpu":
        findings.append(
            Finding(
                host,
                "real_gpus_unused",
                "gpu_inventory.simulated is false and fleet_engine.accelerator is cpu",
                "an engine that uses the GPUs of this host",
                "set fleet_engine.accelerator to cuda",
            )
        )
        ok = False
    gpus: list[Gpu] = []
    seen: set[str] = set()
    parsed: list[tuple[str, Mapping[str, Any]]] = []
    for position, entry in enumerate(entries):
        address = str(entry.get("pci_address", "")).lower() if isinstance(entry, Mapping) else ""
        if not isinstance(entry, Mapping) or not PCI_ADDRESS.fullmatch(address):
            found = shown(entry.get("pci_address")) if isinstance(entry, Mapping) else shown(entry)
            findings.append(
                Finding(
                    host,
                    "gpu_inventory_invalid",
                    f"gpu_inventory.gpus[{position}].pci_address is {found}",
                    'a PCI address like "0000:17:00.0"',
                    again,
                )
            )
            ok = False
        elif address in seen:
            findings.append(
                Finding(
                    host,
                    "gpu_inventory_invalid",
                    f"gpu_inventory.gpus has {address} twice",
                    "every PCI address once",
                    again,
                )
            )
            ok = False
        else:
            seen.add(address)
            parsed.append((address, entry))
    parsed.sort(key=lambda item: item[0])
    wanted = wanted_layout(host, layout, parsed, findings)
    for index, (address, entry) in enumerate(parsed):
        gpu = _read_gpu(host, index, address, entry, wanted.get(address), again, findings)
        if gpu is None:
            ok = False
        else:
            gpus.append(gpu)
    return _with_catalogued_nvlink(gpus, dict(parsed)), ok


def _with_catalogued_nvlink(gpus: list[Gpu], entries: Mapping[str, Mapping[str, Any]]) -> tuple[Gpu, ...]:
    """Return the GPUs with the NVLink that the catalogue knows of, where no driver has said it.

    GPUs of an SXM baseboard are one domain of the host. Bridges join cards in pairs that no id tells.
    """
    boards: dict[str, list[str]] = {}
    for gpu in gpus:
        if not gpu.nvlink_known:
            subsystem = entries[gpu.pci_address].get("subsystem_id")
            product = catalogue.find(gpu.device_id, str(subsystem) if subsystem else None)
            if product is not None and product.nvlink_kind == "sxm":
                boards.setdefault(product.name, []).append(gpu.pci_address)
            elif product is not None and product.nvlink_kind == "none":
                boards.setdefault(gpu.pci_address, []).append(gpu.pci_address)
    joined = {address: tuple(board) for board in boards.values() for address in board}
    return tuple(
        replace(gpu, nvlink_peers=joined[gpu.pci_address], nvlink_known=True) if gpu.pci_address in joined else gpu
        for gpu in gpus
    )


def _memory_mib(device: str, entry: Mapping[str, Any]) -> int | None:
    """Return the memory that a driver reports, or will report: a nominal size is more than there is.

    A record of an older version does not say who told the size: the nominal one of a card that no driver has named.
    """
    memory = as_integer(entry.get("memory_mib"))
    subsystem = entry.get("subsystem_id")
    product = catalogue.find(device, str(subsystem) if subsystem else None) if device else None
    nominal = product.memory_mib if product else None
    source = entry.get("memory_source")
    if memory is None or not (
        source == "catalogue" or (source is None and not entry.get("uuid") and memory == nominal)
    ):
        return memory
    expected = product.expected_mib if product is not None and memory == nominal else None
    return expected if expected is not None else int(memory * catalogue.NOMINAL_SHARE)


def _read_gpu(
    host: str,
    index: int,
    address: str,
    entry: Mapping[str, Any],
    layout: str | None,
    again: str,
    findings: list[Finding],
) -> Gpu | None:
    """Read one recorded GPU, or report why it cannot be used; ``layout``: SPLIT, WHOLE or nothing is wanted of it."""
    device = str(entry.get("device_id") or "").upper()
    product = entry.get("product")
    if product is None:
        raw = f"10DE:{device}" if device else "a device without a recorded device_id"
        subsystem = f", subsystem {entry['subsystem_id']}" if entry.get("subsystem_id") else ""
        findings.append(
            Finding(
                host,
                "unknown_device",
                f"{address} is {raw}{subsystem}",
                "a product that the catalogue knows",
                "install the NVIDIA driver and run gpufleet.metal.discover again (NVML knows the product), or add it "
                "to plugins/module_utils/_gpu/catalogue.py",
            )
        )
        return None
    where = f"gpu_inventory {address}"
    memory = _memory_mib(device, entry)
    capability = as_capability(entry.get("compute_capability"))
    ok = True
    if memory is None or memory < 1:
        close = did_you_mean("memory_mib", [str(key) for key in entry])
        findings.append(
            Finding(
                host,
                "gpu_inventory_invalid",
                f"{where}: memory_mib is {shown(entry.get('memory_mib'))}{close}",
                "the memory in MiB",
                again,
            )
        )
        ok = False
    if capability is None:
        findings.append(
            Finding(
                host,
                "gpu_inventory_invalid",
                f"{where}: compute_capability is {shown(entry.get('compute_capability'))}",
                'a compute capability like "9.0"',
                again,
            )
        )
        ok = False
    split = entry.get("mig_enabled") is True
    if split and layout is None:
        findings.append(
            Finding(
                host,
                "mig_enabled",
                f"{address} ({product}) is split by MIG",
                "whole GPUs",
                f"if it is meant to be split, name it in {VARIABLE} of {host}; else run nvidia-smi --id {address} "
                f"--multi-instance-gpu 0 there, then {again}",
            )
        )
        ok = False
    peers = entry.get("nvlink_peers")
    numa = as_integer(entry.get("numa_node"))
    if not ok or memory is None or capability is None:
        return None
    uuid = entry.get("uuid")
    return Gpu(
        pci_address=address,
        index=index,
        device_id=device,
        product=str(product),
        uuid=str(uuid) if uuid else None,
        memory_mib=memory,
        compute_capability=capability,
        numa_node=numa if numa is not None else -1,
        nvlink_peers=tuple(sorted(str(peer).lower() for peer in peers)) if isinstance(peers, (list, tuple)) else (),
        nvlink_known=isinstance(peers, (list, tuple)),
        mig=layout if split or layout == SPLIT else None,
    )


def read_hosts(inventory: Inventory, fleet: str, accelerator: str, findings: list[Finding]) -> tuple[Host, ...]:
    members = {group: sorted(set(inventory.groups.get(group, ())), key=natural_key) for group in GROUPS}
    for group, wanted in (
        ("gateways", "at least one host: it serves the endpoint"),
        ("gpu_nodes", "at least one host: it runs the engines"),
    ):
        if not members[group]:
            findings.append(
                Finding(
                    fleet,
                    f"no_{group}",
                    f"the group {group} has no hosts",
                    wanted,
                    f"add a host to the group {group} of the inventory",
                    "fleet",
                )
            )
    hosts: list[Host] = []
    for name in sorted({name for names in members.values() for name in names}, key=natural_key):
        variables = inventory.hosts.get(name, {})
        groups = [group for group in GROUPS if name in members[group]]
        if len(groups) > 1 and groups != ENGINES_IN_KUBERNETES:
            findings.append(
                Finding(
                    name,
                    "host_in_two_groups",
                    f"is in the groups {' and '.join(groups)}",
                    f"one group per host, or {' and '.join(ENGINES_IN_KUBERNETES)}",
                    f"take {name} out of one of them",
                )
            )
        address = _read_address(name, variables, findings)
        ssh_port = as_integer(variables.get("ansible_port"))
        ports = {22} | ({ssh_port} if ssh_port is not None and 0 < ssh_port < 65536 else set())
        gpus: tuple[Gpu, ...] = ()
        known = True
        if "gpu_nodes" in groups:
            gpus, known = _read_gpus(
                name, variables.get("gpu_inventory"), variables.get(VARIABLE), accelerator, findings
            )
        if len(groups) == 1 or groups == ENGINES_IN_KUBERNETES:
            hosts.append(Host(name, groups[0], address, tuple(sorted(ports)), gpus, known, KUBE_ROLES.get(groups[-1])))
    owners: dict[str, list[str]] = {}
    for host in hosts:
        if host.address is not None:
            owners.setdefault(host.address, []).append(host.name)
    for address, names in owners.items():
        for name in names[1:]:
            findings.append(
                Finding(
                    name,
                    "address_duplicate",
                    f"{address}, which is also the address of {names[0]}",
                    "an address of its own",
                    f"set fleet_address of {name} or of {names[0]}",
                )
            )
    return tuple(hosts)
