# SPDX-License-Identifier: Apache-2.0
# PRIVATE to the collection: do not import this from outside, it may change without notice.
"""What was applied last: ``applied.json`` beside the plan, host by host, so that the next plan moves nothing in vain.

A host's entry is its part of the plan that was applied when its engines last ran as planned: a run that reached only
some hosts leaves the others as they were.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from ansible_collections.gpufleet.metal.plugins.module_utils._errors import InvalidInputError

from .findings import natural_key
from .placement import Running
from .reader import shown

#: The file's name in the fleet's directory.
APPLIED = "applied.json"
#: Version of the file's structure.
SCHEMA = 1
#: What an entry keeps of a host's part of the plan.
KEYS = ("image", "instances")
_TYPES: dict[str, tuple[type, str]] = {
    "name": (str, "a text"),
    "model": (str, "a text"),
    "port": (int, "a whole number"),
    "gpus": (list, "a list of GPUs with their pci_address"),
    "arguments": (list, "a list of texts"),
    "environment": (dict, "a mapping"),
}


def read_applied(text: str, path: str) -> dict[str, Any]:
    """Return the content of ``applied.json``.

    ``path`` names the file in messages. Raises InvalidInputError when the file is not what fleet_applied writes.
    """

    def refuse(found: str, wanted: str) -> InvalidInputError:
        return InvalidInputError(
            f"{path} is broken: found {found}, wanted {wanted}. Put its last good version back, or remove it: the next "
            "plan is then made from scratch, and instances that run may get other GPUs and ports."
        )

    try:
        data = json.loads(text)
    except ValueError as fault:
        raise refuse(f"no JSON ({fault})", "the file as gpufleet.metal.fleet_applied wrote it") from fault
    hosts = data.get("hosts") if isinstance(data, dict) else None
    if not isinstance(data, dict) or data.get("schema") != SCHEMA:
        schema = shown(data.get("schema")) if isinstance(data, dict) else shown(data)
        raise refuse(f"schema {schema}", f"schema {SCHEMA}")
    if not isinstance(hosts, dict):
        raise refuse(f"hosts: {shown(hosts)}", "a mapping of hosts")
    for host in sorted(hosts, key=natural_key):
        part = hosts[host]
        instances = part.get("instances") if isinstance(part, dict) else None
        if not isinstance(instances, list):
            raise refuse(f"hosts.{host}.instances: {shown(instances)}", "a list of instances")
        names: set[str] = set()
        used: set[str] = set()
        for number, instance in enumerate(instances):
            where = f"hosts.{host}.instances[{number}]"
            if not isinstance(instance, dict):
                raise refuse(f"{where}: {shown(instance)}", "an instance")
            for key, (kind, wanted) in _TYPES.items():
                value = instance.get(key)
                if not isinstance(value, kind) or isinstance(value, bool):
                    raise refuse(f"{where}.{key}: {shown(value)}", wanted)
            gpus = [gpu.get("pci_address") if isinstance(gpu, dict) else None for gpu in instance["gpus"]]
            addresses = [address for address in gpus if isinstance(address, str)]
            if not addresses or len(addresses) < len(gpus):
                raise refuse(f"{where}.gpus: {shown(instance['gpus'])}", _TYPES["gpus"][1])
            if instance["name"] in names or used & set(addresses) or len(set(addresses)) < len(addresses):
                raise refuse(f"{where} ({instance['name']}) with a name or a GPU of another one", "each of them once")
            names.add(instance["name"])
            used.update(addresses)
            if not _are_workers(instance.get("workers", [])):
                raise refuse(f"{where}.workers: {shown(instance['workers'])}", "a list of hosts with their GPUs")
    return data


def _are_workers(value: Any) -> bool:
    """Tell whether a record's further hosts of an instance can be read; one of an older version has none."""
    return isinstance(value, list) and all(
        isinstance(worker, dict)
        and isinstance(worker.get("host"), str)
        and isinstance(worker.get("gpus"), list)
        and all(isinstance(gpu, dict) and isinstance(gpu.get("pci_address"), str) for gpu in worker["gpus"])
        for worker in value
    )


def _addresses(part: Mapping[str, Any]) -> tuple[str, ...]:
    return tuple(gpu["pci_address"] for gpu in part["gpus"])


def running_instances(applied: Mapping[str, Any] | None) -> tuple[Running, ...]:
    """Return the instances of what was applied last."""
    if applied is None:
        return ()
    return tuple(
        Running(
            instance["model"],
            host,
            instance["name"],
            instance["port"],
            _addresses(instance),
            tuple((worker["host"], _addresses(worker)) for worker in instance.get("workers", ())),
        )
        for host, part in applied["hosts"].items()
        for instance in part["instances"]
    )


def applied_plan(plan: Mapping[str, Any], before: Mapping[str, Any] | None, hosts: Sequence[str]) -> dict[str, Any]:
    """Return what is applied once these hosts have got their part of the plan; hosts that left the plan are dropped."""
    old = before["hosts"] if before is not None else {}
    parts = {}
    for name, part in plan["hosts"].items():
        if "instances" in part and name in hosts:
            parts[name] = {key: part[key] for key in KEYS}
        elif name in old:
            parts[name] = old[name]
    return {"schema": SCHEMA, "fleet": plan["fleet"], "hosts": parts}
