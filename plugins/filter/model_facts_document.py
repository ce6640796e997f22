# SPDX-License-Identifier: Apache-2.0
"""Filter model_facts_document: see DOCUMENTATION."""

from __future__ import annotations

DOCUMENTATION = r"""
name: model_facts_document
short_description: Render the recorded facts of the fleet's models as a commented YAML file
version_added: "0.1.0"
author:
  - The gpufleet.metal maintainers (@gpufleet)
description:
  - Renders what M(gpufleet.metal.model_facts_info) found as the text of C(group_vars/all/fleet_model_facts.yml), which
    the plan is made from.
  - Records of models that were not described again are kept as they are.
  - The same facts give the same bytes, there is no date in it, and models are sorted by name.
  - A C(config.json) comes from strangers, and a text in an inventory is a template. So only the keys that the plan
    reads are taken, with numbers and short words as values; anything else in them is an error.
positional: models, recorded
options:
  _input:
    description: RV(gpufleet.metal.model_facts_info#module:models).
    type: dict
    required: true
  models:
    description: The variable C(fleet_models), for where each model comes from.
    type: list
    elements: dict
    required: true
  recorded:
    description: The variable C(fleet_model_facts) as the file holds it now, null without a file.
    type: dict
"""

EXAMPLES = r"""
- name: Write the record
  ansible.builtin.copy:
    content: "{{ described.models | gpufleet.metal.model_facts_document(fleet_models, recorded) }}"
    dest: "{{ inventory_dir }}/group_vars/all/fleet_model_facts.yml"
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
from ansible_collections.gpufleet.metal.plugins.module_utils._plan.facts_record import document


def model_facts_document(described: dict[str, Any], models: list[dict[str, Any]], recorded: Any = None) -> str:
    """Translate the pure function's errors into Ansible's."""
    try:
        return document(described, models, recorded)
    except FleetError as error:
        raise AnsibleFilterError(str(error)) from error


class FilterModule:
    """Ansible's entry point for filters."""

    def filters(self) -> dict[str, Any]:
        """The filters of this file by name."""
        return {"model_facts_document": model_facts_document}
