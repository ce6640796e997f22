# SPDX-License-Identifier: Apache-2.0
# PRIVATE to the collection: do not import this from outside, it may change without notice.
"""Show findings of many hosts as one text, in the words that the plan uses for its own."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from ansible_collections.gpufleet.metal.plugins.module_utils._errors import InvalidInputError
from ansible_collections.gpufleet.metal.plugins.module_utils._gpu.check import unreachable_finding
from ansible_collections.gpufleet.metal.plugins.module_utils._plan.findings import KINDS, Finding, sort_findings

_KEYS = ("host", "code", "found", "wanted", "fix")
_PLAN_KEYS = ("kind", "host_or_model", "code", "found", "wanted", "fix")


def report(
    findings: Iterable[Mapping[str, Any]],
    unreachable: Iterable[str] = (),
    plan: Iterable[Mapping[str, Any]] = (),
) -> str:
    """All findings of the plan and of all hosts, in natural order; an empty text when there is nothing to tell.

    What plan and host say in the same words is shown once. A GPU that the plan cannot use, and says why, is not shown
    as one that nobody has recorded.

    Args:
        findings: [{host, code, found, wanted, fix}].
        unreachable: hosts that the run wanted and that gave no answer.
        plan: the plan's findings, [{kind, host_or_model, code, found, wanted, fix}].

    Raises:
        InvalidInputError: a finding lacks a key.
    """
    planned = [dict(finding) for finding in plan]
    gathered = [*findings, *(unreachable_finding(host) for host in unreachable)]
    for group, keys in ((gathered, _KEYS), (planned, _PLAN_KEYS)):
        for finding in group:
            missing = [key for key in keys if key not in finding]
            if missing:
                raise InvalidInputError(
                    f"findings_report: found a finding without {', '.join(missing)}; wanted {', '.join(keys)}"
                )
    ordered = sort_findings(
        [
            *(_as_finding(finding["host_or_model"], finding, finding["kind"]) for finding in planned),
            *(_as_finding(finding["host"], finding, "host") for finding in gathered if not _told(finding, planned)),
        ]
    )
    if not ordered:
        return ""
    head = f"{_count(len(ordered), 'finding')} on {_subjects(ordered)}; nothing was changed on any host."
    return "\n\n".join([head, *(finding.as_text() for finding in ordered)])


def _as_finding(subject: Any, finding: Mapping[str, Any], kind: Any) -> Finding:
    code, found, wanted, fix = (str(finding[key]) for key in ("code", "found", "wanted", "fix"))
    return Finding(str(subject), code, found, wanted, fix, str(kind))


def _told(finding: Mapping[str, Any], planned: Iterable[Mapping[str, Any]]) -> bool:
    """Whether the plan has said why it does not use a GPU that this finding calls not recorded."""
    if finding["code"] != "gpu_not_recorded":
        return False
    address = str(finding["found"]).split()[0]
    return any(
        told["kind"] == "host" and told["host_or_model"] == finding["host"] and address in str(told["found"])
        for told in planned
    )


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _subjects(findings: list[Finding]) -> str:
    """Return ``2 hosts``, ``1 host and 1 model`` or ``3 hosts, 1 model and the fleet``."""
    names = {kind: {finding.host_or_model for finding in findings if finding.kind == kind} for kind in KINDS}
    parts = [_count(len(names[kind]), kind) for kind in ("host", "model") if names[kind]]
    parts += ["the fleet"] if names["fleet"] else []
    return " and ".join([", ".join(parts[:-1]), parts[-1]] if len(parts) > 1 else parts)
