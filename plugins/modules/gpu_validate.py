#!/usr/bin/python
# SPDX-License-Identifier: Apache-2.0 OR GPL-3.0-or-later
# Apache-2.0, or at your option the GNU General Public License v3.0+ (https://www.gnu.org/licenses/gpl-3.0.txt)
"""Ansible module gpu_validate: see DOCUMENTATION."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: gpu_validate
short_description: Hold the NVIDIA GPUs of a host against requirements
version_added: "0.1.0"
description:
  - Reads the GPUs of a host as M(gpufleet.metal.gpu_facts) does, read-only and with a deadline for the driver, and
    holds them against the collection's rules and the given requirements.
  - Each breach is a finding with a code; C(docs/findings.md) explains every code. All findings come at once.
  - What nobody knows breaks no rule. Before a driver runs only the PCI bus and the collection's catalogue speak.
author:
  - The gpufleet.metal maintainers (@gpufleet)
extends_documentation_fragment:
  - gpufleet.metal.gpu_reader
options:
  host:
    description:
      - Name of the host in findings.
      - Null stands for the name that the host calls itself.
    type: str
  minimum_compute_capability:
    description:
      - Lowest CUDA compute capability. It can be raised, not lowered, because vLLM has no kernels below V(7.5).
    type: str
    default: "7.5"
  precisions:
    description: Precisions that every GPU must compute in.
    type: list
    elements: str
    choices: [int8, bf16, fp8, fp4]
    default: []
  memory_tier:
    description:
      - Memory of every GPU, V(development) from 16 GB, V(production) from 40 GB, V(any) for no minimum.
      - Sizes are nominal; drivers report a little less.
    type: str
    choices: [any, development, production]
    default: any
  minimum_memory_gb:
    description: Nominal memory of every GPU in GB. The larger of this and O(memory_tier) counts.
    type: float
    default: 0
  count:
    description: Lowest number of GPUs.
    type: int
    default: 0
  same_product:
    description: Whether all GPUs of the host must be of one product. Those of one instance always must.
    type: bool
    default: false
  instances:
    description: GPUs that compute one model together. They must be of one product and whole, not split by MIG.
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description: Name of the instance, for messages.
        type: str
        required: true
      gpus:
        description: PCI addresses of its GPUs.
        type: list
        elements: str
        required: true
      minimum_compute_capability:
        description: Lowest CUDA compute capability of its GPUs, where that is higher than the host's.
        type: str
      precisions:
        description: Precisions that its GPUs must compute in, beside the host's.
        type: list
        elements: str
        choices: [int8, bf16, fp8, fp4]
        default: []
      nvlink_required:
        description: Whether NVLink must join its GPUs to each other, although O(nvlink_required) does not ask for it.
        type: bool
        default: false
  nvlink_required:
    description: Whether NVLink must join all GPUs of an instance to each other.
    type: bool
    default: false
  cuda_version:
    description:
      - CUDA version that the engines are built for. CUDA 13 needs driver branch 580, 12 needs 525, 11 needs 450.
    type: str
  minimum_driver_branch:
    description: Lowest driver branch.
    type: int
  driver_required:
    description: Whether a host without a running driver is a finding.
    type: bool
    default: false
  allowed_processes:
    description:
      - Shell patterns of the names of processes that may compute on the GPUs, with their path or without.
      - The default are the processes of vLLM, which the fleet's own engines run.
    type: list
    elements: str
    default: ["VLLM::*"]
  ignored_codes:
    description: Codes of findings that are left out. An unknown code is refused.
    type: list
    elements: str
    default: []
  fail:
    description: Whether findings fail the task, with all of them in its message.
    type: bool
    default: true
attributes:
  check_mode:
    description: Can run in check mode and return what it would without it.
    support: full
  diff_mode:
    description: Returns details on what has changed, or could change.
    support: none
    details: The module changes nothing.
  platform:
    description: Systems that the action runs on.
    platforms: linux
    support: full
notes:
  - Supports C(check_mode); it never changes the host.
seealso:
  - module: gpufleet.metal.gpu_facts
  - plugin: gpufleet.metal.gpu_capable
    plugin_type: test
"""

EXAMPLES = r"""
- name: Refuse a host that cannot serve in bfloat16
  gpufleet.metal.gpu_validate:
    precisions: [bf16]
    memory_tier: production
    count: 8

- name: Look at the GPUs of one instance and go on with whatever is found
  gpufleet.metal.gpu_validate:
    host: "{{ inventory_hostname }}"
    instances:
      - name: llama-0
        gpus: ["0000:17:00.0", "0000:3d:00.0"]
    nvlink_required: true
    cuda_version: "13.0"
    ignored_codes: [persistence_mode_off, pcie_generation_reduced]
    fail: false
  register: judged

- name: Show what was found
  ansible.builtin.debug:
    msg: "{{ judged.findings | gpufleet.metal.findings_report }}"
"""

RETURN = r"""
valid:
  description: Whether there is no finding.
  returned: always
  type: bool
  sample: true
findings:
  description: Every breach of a rule.
  returned: always
  type: list
  elements: dict
  contains:
    host:
      description: Name of the host.
      type: str
      returned: always
      sample: gpu-1
    code:
      description: Stable word for programs, explained in C(docs/findings.md).
      type: str
      returned: always
      sample: driver_too_old_for_cuda
    found:
      description: What was found.
      type: str
      returned: always
      sample: driver 535.309.01
    wanted:
      description: What is wanted instead.
      type: str
      returned: always
      sample: branch 580 or newer for CUDA 13.0
    fix:
      description: What the operator does about it.
      type: str
      returned: always
      sample: upgrade the driver to branch 580 or newer
gpu:
  description: What was read, as RV(gpufleet.metal.gpu_facts#module:ansible_facts.gpu).
  returned: always
  type: dict
"""

import platform
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.gpufleet.metal.plugins.module_utils._errors import InvalidInputError
from ansible_collections.gpufleet.metal.plugins.module_utils._gpu.options import (
    READER_OPTIONS,
    REQUIREMENT_OPTIONS,
    read,
)
from ansible_collections.gpufleet.metal.plugins.module_utils._gpu.report import report
from ansible_collections.gpufleet.metal.plugins.module_utils._gpu.requirements import requirements
from ansible_collections.gpufleet.metal.plugins.module_utils._gpu.rules import CODES, breaches


def main() -> None:
    """Entry point of the module."""
    module = AnsibleModule(
        argument_spec={
            **READER_OPTIONS,
            **REQUIREMENT_OPTIONS,
            "host": {"type": "str"},
            "fail": {"type": "bool", "default": True},
        },
        supports_check_mode=True,
    )
    try:
        wanted = requirements({name: module.params[name] for name in REQUIREMENT_OPTIONS}, CODES)
    except InvalidInputError as error:
        module.fail_json(msg=str(error))
    facts = read(module)
    for text in facts["warnings"]:
        module.warn(text)
    findings = breaches(module.params["host"] or platform.node(), facts, wanted)
    result: dict[str, Any] = {"changed": False, "valid": not findings, "findings": findings, "gpu": facts}
    if findings and module.params["fail"]:
        module.fail_json(msg=report(findings), **result)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
