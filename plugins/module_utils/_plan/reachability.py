# SPDX-License-Identifier: Apache-2.0
# Note that this module util is PRIVATE to the collection. It can have breaking changes at any time.
"""What one host must and must not be able to reach on the others, derived from the plan's flows."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from typing import Any

from .autoscaling import elastic_ports

# A TCP port that no plan names: nobody listens there, so only a firewall that drops keeps it from being refused.
UNPLANNED_PORT = 9
# How many other hosts one host looks at. Every host of the fleet is looked at by as many, and the cost stays linear.
NEIGHBOURS = 4


def neighbours(hosts: list[str], host: str, count: int = NEIGHBOURS) -> list[str]:
    """The `count` hosts after `host` in a ring of all hosts in sorted order, without `host` itself."""
    ring = sorted(hosts)
    start = ring.index(host)
    return [ring[(start + step) % len(ring)] for step in range(1, min(count, len(ring) - 1) + 1)]


def reachability_targets(plan: Mapping[str, Any], host: str) -> list[dict[str, Any]]:
    """What to try from `host`, as targets of the module connectivity_info.

    A planned TCP port is expected C(open) if one of its flows lets in the address of `host`, and C(filtered) if none
    does: what counts is the address, as for the firewall, not the group. A port that the plan does not name is expected
    C(filtered) from everywhere. Gateways are planned to reach every engine, so a gateway looks at all engines; any
    other host looks at its NEIGHBOURS. Where it depends on the load whether an engine runs, nothing is said of its port
    to those who may reach it.
    """
    here = plan["hosts"][host]
    others = [name for name in plan["hosts"] if name != host]
    if here["group"] != "gateways" and others:
        others = neighbours(list(plan["hosts"]), host)
    asleep = elastic_ports(plan)
    sources: dict[str, dict[int, set[str]]] = {name: {} for name in others}
    for flow in plan["flows"]:
        if flow["destination"] in sources and flow["protocol"] == "tcp":
            sources[flow["destination"]].setdefault(flow["port"], set()).add(flow["source"])
    targets: list[dict[str, Any]] = []
    for name in sorted(others):
        there = plan["hosts"][name]
        for port, named in sorted(sources[name].items()):
            lets_in = any(_lets_in(there["firewall"]["sets"], source, here["address"]) for source in named)
            if not lets_in or (name, port) not in asleep:
                targets.append(_target(name, there["address"], port, "open" if lets_in else "filtered"))
        targets.append(_target(name, there["address"], UNPLANNED_PORT, "filtered"))
    return targets


def _lets_in(sets: Mapping[str, Any], source: str, address: str) -> bool:
    """Whether a flow from `source`, which is C(any) or one of a host's address sets, lets in an address."""
    if source == "any":
        return True
    here = ipaddress.ip_address(address)
    return any(here in ipaddress.ip_network(member) for member in sets[source])


def _target(name: str, address: str, port: int, expect: str) -> dict[str, Any]:
    return {"name": f"{name}:{port}", "address": address, "port": port, "expect": expect}
