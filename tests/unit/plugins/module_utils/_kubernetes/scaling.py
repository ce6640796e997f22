# SPDX-License-Identifier: Apache-2.0
"""What KEDA makes of a formula, and of a fleet under load, as far as a test without KEDA can say.

KEDA's formulas are in the language expr. Those of the collection have `??`, comparisons, sums, `||`, `&&` and one
`? 1 : 0`; that much is turned into Python here.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import CodeType
from typing import Any

_CHAIN = re.compile(r"\(([a-z0-9_]+(?: \?\? -?[a-z0-9_]+)+)\)")


def _first(*values: float | None) -> float | None:
    return next((value for value in values if value is not None), None)


@functools.lru_cache
def _compiled(formula: str) -> CodeType:
    text = _CHAIN.sub(lambda match: f"first({match[1].replace(' ??', ',')})", formula)
    text = text.replace("||", "or").replace("&&", "and")
    condition, mark, rest = text.rpartition(" ? ")
    assert (mark, rest) == (" ? ", "1 : 0"), formula
    return compile(condition, "formula", "eval")


def evaluated(formula: str, values: Mapping[str, float | None]) -> int:
    """Return what a formula says of the triggers' values; None is a trigger that has failed too often."""
    return int(bool(eval(_compiled(formula), {"first": _first, "__builtins__": {}}, dict(values))))  # noqa: S307


def formula_of(item: Mapping[str, Any]) -> str:
    """Return the formula of a ScaledObject."""
    return str(item["spec"]["advanced"]["scalingModifiers"]["formula"])


@dataclass
class _Elastic:
    formula: str
    cool_down: float
    started: bool = False
    ready_at: float = 0.0
    active_at: float = float("-inf")
    starts: int = 0


@dataclass
class Simulation:
    """Engines of one model behind a balancer that gives each as many requests, and KEDA that looks every 15 seconds.

    ``load`` requests are there at any time; an engine computes ``capacity`` of them at once, and the others wait.
    """

    always: int
    asked: int
    capacity: int
    start_seconds: float
    elastic: list[_Elastic]
    now: float = 0.0
    most: int = 0
    history: list[int] = field(default_factory=list)

    @classmethod
    def of(
        cls, objects: Sequence[Mapping[str, Any]], always: int, asked: int, capacity: int, start_seconds: float
    ) -> Simulation:
        """Return one with the engines that these ScaledObjects scale, all of them stopped."""
        elastic = [_Elastic(formula_of(item), item["spec"]["cooldownPeriod"]) for item in objects]
        return cls(always, asked, capacity, start_seconds, elastic)

    def run(self, load: int, seconds: float) -> None:
        """Let time pass under a load."""
        end = self.now + seconds
        while self.now < end:
            self._look(load)
            self.now += 15

    def _look(self, load: int) -> None:
        serving = self.always + sum(item.started and item.ready_at <= self.now for item in self.elastic)
        share, rest = divmod(load, serving)
        readings: dict[str, float | None] = {}
        for number in range(self.asked):
            mine = share + (number < rest)
            readings[f"waiting_{number}"] = max(0, mine - self.capacity)
            readings[f"running_{number}"] = min(mine, self.capacity)
        # All that KEDA sees in this look is from before it.
        serves = [item.started and item.ready_at <= self.now for item in self.elastic]
        for place, item in enumerate(self.elastic):
            before = 0.0 if place and serves[place - 1] else None
            wanted = evaluated(item.formula, {**readings, "before": before, "started": float(item.started)})
            if wanted:
                item.active_at = self.now
                if not item.started:
                    item.started, item.ready_at = True, self.now + self.start_seconds
                    item.starts += 1
            elif item.started and item.active_at + item.cool_down < self.now:
                item.started = False
        self.history.append(sum(item.started for item in self.elastic))

    @property
    def starts(self) -> int:
        """How often an engine was started."""
        return sum(item.starts for item in self.elastic)
