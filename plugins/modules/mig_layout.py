#!/usr/bin/python
# SPDX-License-Identifier: Apache-2.0 OR GPL-3.0-or-later
# Apache-2.0, or at your option the GNU General Public License v3.0+ (https://www.gnu.org/licenses/gpl-3.0.txt)
"""Split GPUs by MIG as a layout says, idle ones only."""

from __future__ import annotations

DOCUMENTATION = r"""
module: mig_layout
short_description: Split GPUs by MIG as a layout says
version_added: 0.1.0
description:
  - Compares the GPU instances of each GPU with its layout, and replaces them where they differ.
  - A GPU that must change and runs a process stops the module before any GPU is changed.
author:
  - gpufleet.metal contributors (@gpufleet)
options:
  layout:
    description:
      - The layouts. A later entry for a GPU wins over an earlier one.
    type: list
    elements: dict
    required: true
    suboptions:
      gpu:
        description:
          - V(all), or an index, a UUID or a PCI address.
        type: str
        required: true
      profiles:
        description:
          - Profiles of the GPU's instances, such as V(3g.40gb). None switches MIG off.
        type: list
        elements: str
        required: true
  nvidia_smi:
    description:
      - Name or absolute path of the program.
    type: str
    default: nvidia-smi
  deadline_seconds:
    description:
      - How long C(nvidia-smi) may take for one question or one change. A broken driver can hang for ever.
    type: int
    default: 300
attributes:
  check_mode:
    description: Says which GPUs would change.
    support: full
  diff_mode:
    description: Is not supported.
    support: none
"""

EXAMPLES = r"""
- name: Split the second GPU in two and use the others whole
  gpufleet.metal.mig_layout:
    layout:
      - {gpu: all, profiles: []}
      - {gpu: "1", profiles: [3g.40gb, 3g.40gb]}
"""

RETURN = r"""
changed_gpus:
  description: UUIDs of the GPUs that were or would be changed.
  type: list
  elements: str
  returned: success
"""

from collections.abc import Sequence
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.gpufleet.metal.plugins.module_utils import _mig
from ansible_collections.gpufleet.metal.plugins.module_utils._commands import Runner, bounded
from ansible_collections.gpufleet.metal.plugins.module_utils._errors import FleetError

NOTHING_FOUND = 6
"""Exit status of nvidia-smi when there is no GPU instance (NVML_ERROR_NOT_FOUND)."""


def ask(run: Runner, program: str, arguments: Sequence[str], allowed: Sequence[int] = (0,)) -> str:
    """Run nvidia-smi and return what it printed."""
    status, out, err = run([program, *arguments])
    if status not in allowed:
        raise FleetError(f"{program} {' '.join(arguments)} failed with exit status {status}: {(err or out).strip()}")
    return out


def apply(run: Runner, program: str, layout: Sequence[dict[str, Any]], check_mode: bool) -> list[str]:
    """Bring the GPUs into their layouts; return the UUIDs of those that change."""
    gpus = _mig.parse_gpus(ask(run, program, _mig.QUERY_GPUS))
    enabled = any(gpu.current == "Enabled" for gpu in gpus)
    listed = ask(run, program, ["mig", "-lgi"], (0, NOTHING_FOUND)) if enabled else ""
    busy = _mig.parse_busy(ask(run, program, _mig.QUERY_APPS))
    changes = _mig.plan(layout, gpus, _mig.parse_instances(listed), busy)
    for uuid, commands in [] if check_mode else changes:
        for command in commands:
            ask(run, program, command)
            if "-mig" in command:
                _check_mode_took(run, program, uuid)
    return [uuid for uuid, __ in changes]


def _check_mode_took(run: Runner, program: str, uuid: str) -> None:
    """MIG's mode changes at once on Hopper and newer; an A100 may keep it pending until it is reset."""
    gpu = next(gpu for gpu in _mig.parse_gpus(ask(run, program, _mig.QUERY_GPUS)) if gpu.uuid == uuid)
    if gpu.current != gpu.pending:
        raise FleetError(
            f"GPU {gpu.index} ({gpu.bus_id}) has MIG {gpu.current.lower()}, and {gpu.pending.lower()} is pending: it "
            "must be reset (nvidia-smi --gpu-reset, with every client stopped) or the host rebooted; then run again"
        )


def main() -> None:
    """Run as an Ansible module."""
    module = AnsibleModule(
        argument_spec={
            "layout": {
                "type": "list",
                "elements": "dict",
                "required": True,
                "options": {
                    "gpu": {"type": "str", "required": True},
                    "profiles": {"type": "list", "elements": "str", "required": True},
                },
            },
            "nvidia_smi": {"type": "str", "default": "nvidia-smi"},
            "deadline_seconds": {"type": "int", "default": 300},
        },
        supports_check_mode=True,
    )
    ask = bounded(module.params["deadline_seconds"])
    try:
        changed = apply(ask, module.params["nvidia_smi"], module.params["layout"], module.check_mode)
    except FleetError as error:
        module.fail_json(msg=str(error))
    else:
        module.exit_json(changed=bool(changed), changed_gpus=changed)


if __name__ == "__main__":
    main()
