# SPDX-License-Identifier: Apache-2.0
"""Filter gpu_inventory_document: see DOCUMENTATION."""

from __future__ import annotations

DOCUMENTATION = r"""
name: gpu_inventory_document
short_description: Render the recorded hardware of a host as a commented YAML file
version_added: "0.1.0"
author:
  - The gpufleet.metal maintainers (@gpufleet)
description:
  - Renders what M(gpufleet.metal.gpu_facts) found as the text of C(host_vars/HOST/gpu_inventory.yml), which the plan
    is made from.
  - The same facts give the same bytes, there is no date in it, and GPUs are sorted by PCI address.
positional: host
options:
  _input:
    description: RV(gpufleet.metal.gpu_facts#module:ansible_facts.gpu) of the host.
    type: dict
    required: true
  host:
    description: Name of the host, for the comment on top.
    type: str
    required: true
"""

EXAMPLES = r"""
- name: Write the record
  ansible.builtin.copy:
    content: "{{ ansible_facts['gpu'] | gpufleet.metal.gpu_inventory_document(inventory_hostname) }}"
    dest: "{{ inventory_dir }}/host_vars/{{ inventory_hostname }}/gpu_inventory.yml"
    mode: "0644"
  delegate_to: localhost
"""

RETURN = r"""
_value:
  description: The text of the file.
  type: str
"""

from typing import Any

from ansible.errors import AnsibleFilterError

from ansible_collections.gpufleet.metal.plugins.module_utils._errors import FleetError
from ansible_collections.gpufleet.metal.plugins.module_utils._gpu.record import document


def gpu_inventory_document(facts: dict[str, Any], host: str) -> str:
    """Translate the pure function's errors into Ansible's."""
    try:
        return document(facts, host)
    except FleetError as error:
        raise AnsibleFilterError(str(error)) from error


class FilterModule:
    """Ansible's entry point for filters."""

    def filters(self) -> dict[str, Any]:
        """The filters of this file by name."""
        return {"gpu_inventory_document": gpu_inventory_document}
