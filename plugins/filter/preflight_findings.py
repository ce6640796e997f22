# SPDX-License-Identifier: Apache-2.0
"""Filter preflight_findings: see DOCUMENTATION."""

from __future__ import annotations

DOCUMENTATION = r"""
name: preflight_findings
short_description: Compare what a host is with what is recorded and supported
version_added: "0.1.0"
author:
  - The gpufleet.metal maintainers (@gpufleet)
description:
  - Returns every reason why a host cannot be given what the plan has for it.
  - Looks at the distribution, the processor, the service manager, Python and the GPUs, which are also held against the
    rules of M(gpufleet.metal.gpu_validate). Touches nothing.
positional: host
options:
  _input:
    description: The facts of the host, C(ansible_facts) with at least the minimal subset.
    type: dict
    required: true
  host:
    description: Name of the host.
    type: str
    required: true
  supported_distributions:
    description: Distributions by name, each with its versions. A version is a full version or a major version.
    type: list
    elements: dict
    required: true
  expected_gpus:
    description: The GPUs that the plan uses, each with C(pci_address), C(device_id), C(product), C(uuid) and C(split).
    type: list
    elements: dict
    default: []
  expected_simulated:
    description: Whether the record says that the GPUs are simulated. Null means that it says nothing.
    type: bool
  requirements:
    description:
      - What the plan asks of the GPUs, with the names that M(gpufleet.metal.gpu_validate) has for its options.
    type: dict
    default: {}
  reached:
    description: Whether the host gave an answer. One that did not has this as its only finding.
    type: bool
    default: true
"""

EXAMPLES = r"""
- name: Show what stands in the way
  ansible.builtin.debug:
    msg: >-
      {{ ansible_facts | gpufleet.metal.preflight_findings(inventory_hostname,
      supported_distributions=[{'name': 'Debian', 'versions': ['12', '13']}]) }}
"""

RETURN = r"""
_value:
  description: The findings, in a stable order, each with C(host), C(code), C(found), C(wanted) and C(fix).
  type: list
  elements: dict
"""

from collections.abc import Mapping, Sequence
from typing import Any

from ansible.errors import AnsibleFilterError

from ansible_collections.gpufleet.metal.plugins.module_utils._errors import FleetError
from ansible_collections.gpufleet.metal.plugins.module_utils._gpu.check import host_findings, unreachable_finding
from ansible_collections.gpufleet.metal.plugins.module_utils._gpu.requirements import requirements as read_requirements
from ansible_collections.gpufleet.metal.plugins.module_utils._gpu.rules import CODES, Finding


def preflight_findings(
    facts: dict[str, Any],
    host: str,
    supported_distributions: Sequence[dict[str, Any]],
    expected_gpus: Sequence[dict[str, Any]] = (),
    expected_simulated: bool | None = None,
    requirements: Mapping[str, Any] | None = None,
    reached: bool = True,
) -> list[Finding]:
    """Translate the pure function's errors into Ansible's."""
    if not reached:
        return [unreachable_finding(host)]
    try:
        return host_findings(
            host,
            system=facts,
            supported_distributions=supported_distributions,
            expected_gpus=expected_gpus,
            observed=facts.get("gpu"),
            expected_simulated=expected_simulated,
            wanted=read_requirements(requirements or {}, CODES),
        )
    except FleetError as error:
        raise AnsibleFilterError(str(error)) from error


class FilterModule:
    """Ansible's entry point for filters."""

    def filters(self) -> dict[str, Any]:
        """The filters of this file by name."""
        return {"preflight_findings": preflight_findings}
