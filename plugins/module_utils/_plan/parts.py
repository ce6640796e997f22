# SPDX-License-Identifier: Apache-2.0
# PRIVATE to the collection: do not import this from outside, it may change without notice.
"""What instances have on each host, for those who show or count it: one over several hosts is on all of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any


def parts(instances: Sequence[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    """Return each instance once for every host that it has GPUs on, with ``host``, ``gpus`` and ``why`` of that host.

    ``leader`` is ``host/instance`` on its further hosts, and empty on the one that answers.
    """
    for instance in instances:
        yield {**instance, "leader": ""}
        for worker in instance["workers"]:
            yield {**instance, **worker, "leader": f"{instance['host']}/{instance['name']}"}


def used_gpus(instances: Sequence[Mapping[str, Any]]) -> int:
    """Return how many GPUs instances have on all hosts."""
    return sum(len(part["gpus"]) for part in parts(instances))
