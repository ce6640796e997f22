# SPDX-License-Identifier: Apache-2.0
# PRIVATE to the collection: do not import this from outside, it may change without notice.
"""Hosts in two halves, each of which serves every model alone: for changes that both can't serve beside each other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ansible_collections.gpufleet.metal.plugins.module_utils._errors import InvalidInputError

from .findings import natural_key


def upstream_halves(upstreams: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    """Return the hosts of the plan's upstreams in two halves. Raises InvalidInputError where a model has no two."""
    models: dict[str, list[str]] = {}
    for upstream in upstreams:
        hosts = {str(server["name"]).partition("/")[0] for server in upstream["servers"]}
        models[str(upstream["name"])] = sorted(hosts, key=natural_key)
    order = sorted({host for hosts in models.values() for host in hosts}, key=natural_key)
    lonely = [f"{model} on {hosts[0]}" for model, hosts in models.items() if len(hosts) < 2]
    if lonely:
        raise InvalidInputError(f"models run on one host only: {', '.join(lonely)}; wanted each on two hosts or more")
    # One host after the other goes where it adds the most models; another first host may come to another end.
    for first in range(len(order)):
        halves = _divided(models, [*order[first:], *order[:first]])
        if all(set(hosts) & set(half) for half in halves for hosts in models.values()):
            return [sorted(half, key=natural_key) for half in halves]
    if not order:
        return [[], []]
    raise InvalidInputError(
        f"found no two halves of {', '.join(order)} that serve every model each; wanted more replicas, on other hosts"
    )


def _divided(models: Mapping[str, Sequence[str]], order: Sequence[str]) -> tuple[list[str], list[str]]:
    halves: tuple[list[str], list[str]] = ([], [])
    for host in order:
        gains = [sum(1 for hosts in models.values() if host in hosts and not set(hosts) & set(half)) for half in halves]
        better = gains[0] > gains[1] or (gains[0] == gains[1] and len(halves[0]) <= len(halves[1]))
        halves[0 if better else 1].append(host)
    return halves
