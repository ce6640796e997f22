#!/usr/bin/python
# SPDX-License-Identifier: Apache-2.0 OR GPL-3.0-or-later
# Apache-2.0, or at your option the GNU General Public License v3.0+ (https://www.gnu.org/licenses/gpl-3.0.txt)
"""Run DCGM's diagnostics on idle GPUs, and fail when a test does."""

from __future__ import annotations

DOCUMENTATION = r"""
module: dcgm_diagnostics
short_description: Run DCGM's diagnostics on idle GPUs
version_added: 0.1.0
description:
  - Runs C(dcgmi diag), and fails with a sentence for each test that failed.
  - Fails before it starts when a process computes on a GPU, because the diagnostics then judge that process as well.
  - Needs DCGM's host engine and C(nvidia-smi) on the host.
author:
  - gpufleet.metal contributors (@gpufleet)
options:
  level:
    description:
      - Level of the diagnostics. 1 takes seconds, 2 some minutes, 3 a quarter of an hour, 4 longer.
    type: int
    choices: [1, 2, 3, 4]
    default: 1
  line:
    description:
      - Line of DCGM that must run them, such as V(4.6). Its report says which one it was.
    type: str
    required: true
  deadline_seconds:
    description:
      - How long they may take. Then C(dcgmi) is killed, also where a broken GPU keeps it in the kernel.
    type: int
    required: true
attributes:
  check_mode:
    description: Runs nothing and says so.
    support: none
  diff_mode:
    description: Changes nothing.
    support: none
"""

EXAMPLES = r"""
- name: Run the short diagnostics
  gpufleet.metal.dcgm_diagnostics:
    level: 1
    line: "4.6"
    deadline_seconds: 600
"""

RETURN = r"""
version:
  description: Version of the DCGM that ran the diagnostics.
  type: str
  returned: success
  sample: 4.6.1
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.gpufleet.metal.plugins.module_utils._commands import bounded
from ansible_collections.gpufleet.metal.plugins.module_utils._dcgm import diagnose
from ansible_collections.gpufleet.metal.plugins.module_utils._errors import FleetError


def main() -> None:
    """Run as an Ansible module."""
    module = AnsibleModule(
        argument_spec={
            "level": {"type": "int", "choices": [1, 2, 3, 4], "default": 1},
            "line": {"type": "str", "required": True},
            "deadline_seconds": {"type": "int", "required": True},
        },
        supports_check_mode=False,
    )
    ask = bounded(module.params["deadline_seconds"])
    try:
        version = diagnose(ask, module.params["level"], module.params["line"])
    except FleetError as error:
        module.fail_json(msg=str(error))
    else:
        module.exit_json(changed=False, version=version)


if __name__ == "__main__":
    main()
