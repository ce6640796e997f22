# SPDX-License-Identifier: Apache-2.0
# PRIVATE to the collection: do not import this from outside, it may change without notice.
"""How many requests an engine has in hand, by its own metrics, and how to wait until it has none."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from dataclasses import dataclass

from ansible_collections.gpufleet.metal.plugins.module_utils._probe import ProbeError, Target, request

RUNNING = "vllm:num_requests_running"
WAITING = "vllm:num_requests_waiting"

_SAMPLE = re.compile(rf"^({RUNNING}|{WAITING})(?:{{.*}})? ([0-9.e+]+)", re.MULTILINE)


class StillBusyError(ProbeError):
    """Requests were still in hand when the time was over."""


@dataclass(frozen=True)
class InHand:
    """Requests that an engine computes, and those that wait for it to."""

    running: int
    waiting: int

    @property
    def idle(self) -> bool:
        """Tell whether there is none."""
        return self.running + self.waiting == 0


def requests_in_hand(metrics: str) -> InHand | None:
    """Add up the requests of all of an engine's parts in Prometheus' text format; None if it does not say.

    A data-parallel engine has one series per part. vLLM 0.32.0, v1/metrics/loggers.py.
    """
    sums: dict[str, float] = {}
    for name, value in _SAMPLE.findall(metrics):
        sums[name] = sums.get(name, 0.0) + float(value)
    return InHand(round(sums[RUNNING]), round(sums[WAITING])) if len(sums) == 2 else None


def read(target: Target) -> InHand:
    """Ask an engine; raises ProbeError if it does not answer or does not say."""
    answer = request(target, "GET", "/metrics")
    found = requests_in_hand(answer.body.decode("utf-8", errors="replace")) if answer.status == 200 else None
    if found is None:
        raise ProbeError(f"{target.url}/metrics: HTTP {answer.status}, wanted {RUNNING} and {WAITING}", final=True)
    return found


def wait_until_idle(
    look: Callable[[], InHand],
    where: str,
    wait_seconds: float,
    settle_seconds: float,
    interval: float = 1.0,
    sleep: Callable[[float], None] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
) -> tuple[InHand, float]:
    """Return the last look and the seconds waited, once nothing was in hand for ``settle_seconds`` on end.

    That long, because a request that a gateway has just sent is not in the engine's count yet.

    Raises:
        StillBusyError: it was not idle for so long within ``wait_seconds``.
    """
    started = clock()
    idle_since: float | None = None
    while True:
        found, now = look(), clock()
        idle_since = (idle_since if idle_since is not None else now) if found.idle else None
        if idle_since is not None and now - idle_since >= settle_seconds:
            return found, now - started
        if now - started >= wait_seconds:
            raise StillBusyError(
                f"{where}: {found.running} requests running and {found.waiting} waiting after {now - started:.0f} s, "
                f"wanted none for {settle_seconds:g} s"
            )
        sleep(interval)
