# SPDX-License-Identifier: Apache-2.0
# Note that this module util is PRIVATE to the collection. It can have breaking changes at any time.
"""What one host must and must not be able to reach on the others, derived from the plan's flows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

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

    A planned TCP flow is expected C(open) from the hosts that it names as its source and C(filtered) from all others.
    A port that the plan does not name is expected C(filtered) from everywhere. Gateways are planned to reach every
    engine, so a gateway looks at all engines; any other host looks at its NEIGHBOURS.
    """
    here = plan["hosts"][host]
    others = [name for name in plan["hosts"] if name != host]
    if here["group"] != "gateways" and others:
        others = neighbours(list(plan["hosts"]), host)
    flows: dict[str, list[Mapping[str, Any]]] = {name: [] for name in others}
    for flow in plan["flows"]:
        if flow["destination"] in flows and flow["protocol"] == "tcp":
            flows[flow["destination"]].append(flow)
    targets: list[dict[str, Any]] = []
    for name in sorted(others):
        address = plan["hosts"][name]["address"]
        for flow in flows[name]:
            is_source = flow["source"] == "any" or flow["source"] == here["group"]
            targets.append(_target(name, address, flow["port"], "open" if is_source else "filtered"))
        targets.append(_target(name, address, UNPLANNED_PORT, "filtered"))
    return targets


def _target(name: str, address: str, port: int, expect: str) -> dict[str, Any]:
    return {"name": f"{name}:{port}", "address": address, "port": port, "expect": expect}
