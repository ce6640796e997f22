#!/usr/bin/python
# SPDX-License-Identifier: Apache-2.0 OR GPL-3.0-or-later
# Apache-2.0, or at your option the GNU General Public License v3.0+ (https://www.gnu.org/licenses/gpl-3.0.txt)
"""Ansible module model_facts_info: see DOCUMENTATION."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: model_facts_info
short_description: Read what models say about themselves, without their weights
version_added: "0.1.0"
description:
  - Reads the C(config.json) of models and the size of their weights where the models are, a directory on the host, a
    tar archive, or a commit on the Hugging Face hub. The plan is made from both.
  - Weights are never read, except the headers of safetensors files. An archive is never unpacked to disk; a packed one
    and one behind C(http(s)://) is streamed once and its checksum is verified, a plain one on the host is stepped
    through by its headers.
  - All models are read in one round trip. A model that cannot be read is in RV(failures), and the others are returned;
    the caller decides what that means.
author:
  - The gpufleet.metal maintainers (@gpufleet)
options:
  models:
    description:
      - Entries of C(fleet_models), each with C(name) and C(source). Other keys are ignored.
      - An entry that has both C(config) and C(weights_bytes) says everything itself and is left out.
    type: list
    elements: dict
    required: true
extends_documentation_fragment:
  - gpufleet.metal.hub
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
    platforms: posix
    support: full
notes:
  - Needs only Python's standard library on the host.
seealso:
  - module: gpufleet.metal.model_files
  - module: gpufleet.metal.fleet_plan
"""

EXAMPLES = r"""
- name: Read the facts of the fleet's models
  gpufleet.metal.model_facts_info:
    models: "{{ fleet_models }}"
  register: described
"""

RETURN = r"""
models:
  description: What was read, by the model's name.
  returned: success
  type: dict
  contains:
    config:
      description: The content of C(config.json).
      type: dict
      returned: always
    weights_bytes:
      description: Bytes of the tensors, or of the files where RV(models.weights_from) is V(files).
      type: int
      returned: always
      sample: 15231233024
    weights_from:
      description:
        - V(index) is C(metadata.total_size) of the safetensors index, where the files have that size.
        - V(headers) is the sum of the tensors by the headers of the safetensors files.
        - V(files) is the size of the files, in formats that don't say more.
      type: str
      returned: always
      sample: index
    verified:
      description: Whether the checksum of an archive was verified, which a plain tar file on the host isn't.
      type: bool
      returned: always
failures:
  description: Why a model could not be read, by its name.
  returned: success
  type: dict
  sample: {}
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.gpufleet.metal.plugins.module_utils import _model_facts, _model_files
from ansible_collections.gpufleet.metal.plugins.module_utils._errors import FleetError


def argument_spec() -> dict[str, Any]:
    """The module's options, as in DOCUMENTATION."""
    return {
        "models": {"type": "list", "elements": "dict", "required": True},
        **_model_files.HUB_OPTIONS,
    }


def main() -> None:
    """Run as an Ansible module."""
    module = AnsibleModule(argument_spec=argument_spec(), supports_check_mode=True)
    options = module.params
    try:
        outcome = _model_facts.describe_models(
            options["models"], options["huggingface_endpoint"], options["huggingface_token"]
        )
    except FleetError as error:
        module.fail_json(msg=str(error))
    module.exit_json(
        changed=False,
        models={
            name: {
                "config": facts.config,
                "weights_bytes": facts.weights_bytes,
                "weights_from": facts.weights_from,
                "verified": facts.verified,
            }
            for name, facts in outcome.facts.items()
        },
        failures=outcome.failures,
    )


if __name__ == "__main__":
    main()
