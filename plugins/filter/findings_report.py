# SPDX-License-Identifier: Apache-2.0
"""Filter findings_report: see DOCUMENTATION."""

from __future__ import annotations

DOCUMENTATION = r"""
name: findings_report
short_description: Show the findings of many hosts as one text
version_added: "0.1.0"
author:
  - The gpufleet.metal maintainers (@gpufleet)
description:
  - Renders findings for a person, sorted by host, each with what was found, what is wanted and what to do.
  - Gives an empty text when there are none.
options:
  _input:
    description: Findings, each with C(host), C(code), C(found), C(wanted) and C(fix).
    type: list
    elements: dict
    required: true
  unreachable:
    description: Names of hosts that gave no answer; each becomes a finding of its own.
    type: list
    elements: str
    default: []
  plan:
    description: Findings of the plan, as M(gpufleet.metal.fleet_plan) returns them; they stand first.
    type: list
    elements: dict
    default: []
seealso:
  - plugin: gpufleet.metal.preflight_findings
    plugin_type: filter
"""

EXAMPLES = r"""
- name: Stop with all findings in one message
  ansible.builtin.fail:
    msg: "{{ findings | gpufleet.metal.findings_report }}"
  when: findings | length > 0
"""

RETURN = r"""
_value:
  description: The text.
  type: str
"""

from collections.abc import Sequence
from typing import Any

from ansible.errors import AnsibleFilterError

from ansible_collections.gpufleet.metal.plugins.module_utils._errors import FleetError
from ansible_collections.gpufleet.metal.plugins.module_utils._gpu.report import report


def findings_report(
    findings: Sequence[dict[str, Any]],
    unreachable: Sequence[str] = (),
    plan: Sequence[dict[str, Any]] = (),
) -> str:
    """Translate the pure function's errors into Ansible's."""
    try:
        return report(findings, unreachable, plan)
    except FleetError as error:
        raise AnsibleFilterError(str(error)) from error


class FilterModule:
    """Ansible's entry point for filters."""

    def filters(self) -> dict[str, Any]:
        """The filters of this file by name."""
        return {"findings_report": findings_report}
