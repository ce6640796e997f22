# SPDX-License-Identifier: Apache-2.0
# PRIVATE to the collection: do not import this from outside, it may change without notice.
"""Findings: reasons why the fleet cannot be what its inventory asks for.

A finding is data, not an exception: the plan gathers all of them, so that an operator corrects everything in one go.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache

#: What a finding may be about, in the order in which they are shown.
KINDS = ("fleet", "host", "model")


@lru_cache(maxsize=65536)
def natural_key(text: str) -> tuple[tuple[int, int, str], ...]:
    """Return a sort key that puts ``gpu-2`` before ``gpu-10``."""
    return tuple((0, int(part), "") if part.isdigit() else (1, 0, part) for part in re.split(r"([0-9]+)", text) if part)


@dataclass(frozen=True)
class Finding:
    """One reason, with what was found, what is wanted and what the operator does about it."""

    #: Name of the host or of the model; the name of the fleet for what concerns all.
    host_or_model: str
    #: Stable word for programs, explained in docs/findings.md.
    code: str
    found: str
    wanted: str
    fix: str
    #: ``host``, ``model`` or ``fleet``: what ``host_or_model`` names.
    kind: str = "host"

    @property
    def subject(self) -> str:
        """What the finding is about, in words."""
        return f"{self.kind} {self.host_or_model}"

    def as_dict(self) -> dict[str, str]:
        """Return the finding as plain data."""
        return {
            "kind": self.kind,
            "host_or_model": self.host_or_model,
            "code": self.code,
            "found": self.found,
            "wanted": self.wanted,
            "fix": self.fix,
        }

    def as_text(self) -> str:
        """Return the finding as four lines for a person."""
        return "\n".join(
            (
                f"{self.subject}: {self.code}",
                f"  found:  {self.found}",
                f"  wanted: {self.wanted}",
                f"  fix:    {self.fix}",
            )
        )


def sort_findings(findings: Iterable[Finding]) -> list[Finding]:
    """Return the findings without repetition: the fleet's first, then hosts, then models, by name."""
    return sorted(
        set(findings),
        key=lambda f: (KINDS.index(f.kind), natural_key(f.host_or_model), f.code, f.found, f.wanted, f.fix),
    )


def findings_as_text(findings: Sequence[Finding]) -> str:
    """Return all findings as one message, or an empty text when there are none."""
    if not findings:
        return ""
    count = "1 finding" if len(findings) == 1 else f"{len(findings)} findings"
    head = f"The plan has {count}; nothing was changed on any host."
    return "\n\n".join([head, *(finding.as_text() for finding in findings)])


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return `` (did you mean x?)`` for the known word that looks most like ``word``, else an empty text."""
    close = difflib.get_close_matches(word, sorted(known), n=1, cutoff=0.6)
    return f" (did you mean {close[0]}?)" if close else ""


def some_of(names: Sequence[str], limit: int = 5) -> str:
    """Return the names joined by commas, cut after ``limit`` of them."""
    if len(names) <= limit:
        return ", ".join(names)
    return f"{', '.join(names[:limit])} and {len(names) - limit} more"
