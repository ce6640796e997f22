#!/usr/bin/python
# SPDX-License-Identifier: Apache-2.0 OR GPL-3.0-or-later
# Apache-2.0, or at your option the GNU General Public License v3.0+ (https://www.gnu.org/licenses/gpl-3.0.txt)
"""Read what a host has of NVIDIA's driver, in one round trip."""

from __future__ import annotations

DOCUMENTATION = r"""
module: driver_info
short_description: Read what a host has of NVIDIA's driver
version_added: 0.1.0
description:
  - Reads the installed packages, the running kernel module, Secure Boot, other tools' drivers and the services, in one
    round trip. Changes nothing and is safe on a serving host.
author:
  - gpufleet.metal contributors (@gpufleet)
options:
  prove:
    description:
      - Whether to start CUDA in a process of its own and to ask C(nvidia-smi) for GPUs and fabric as well.
    type: bool
    default: false
  deadline_seconds:
    description:
      - How long CUDA may take to start, and C(nvidia-smi) to answer. A broken driver can hang for ever.
    type: int
    default: 60
  settle_seconds:
    description:
      - With O(prove), how long to ask again while a Fabric Manager that runs has not brought all GPUs into their
        fabric. It begins with that after it has started.
    type: int
    default: 0
  root:
    description:
      - Directory below which files are read. Only tests change it.
    type: path
    default: /
  boot_id_path:
    description:
      - The file with the id of the running boot.
    type: path
    default: /proc/sys/kernel/random/boot_id
attributes:
  check_mode:
    description: Reads the same.
    support: full
  diff_mode:
    description: Changes nothing.
    support: none
"""

EXAMPLES = r"""
- name: Look at the driver and prove that it works
  gpufleet.metal.driver_info:
    prove: true
  register: driver
"""

RETURN = r"""
system:
  description: What decides about packages, such as C(family), C(directory) of NVIDIA's repository and C(kernel).
  type: dict
  returned: success
packages:
  description: The driver's packages and those that come with it, by name, each with C(version), C(held) and C(vendor).
  type: dict
  returned: success
unfinished:
  description: Packages whose installation was interrupted, whosever they are.
  type: list
  elements: str
  returned: success
stream:
  description: The enabled dnf module stream of C(nvidia-driver), null where there is none.
  type: str
  returned: success
boot_id:
  description: The id of the running boot.
  type: str
  returned: success
module_version:
  description: Version of the running kernel module, null when none runs.
  type: str
  returned: success
  sample: 580.173.02
module_open:
  description: Whether the running kernel module is the open one, null when that isn't known.
  type: bool
  returned: success
nouveau:
  description: Whether the kernel runs nouveau.
  type: bool
  returned: success
secure_boot:
  description: Whether the firmware enforces signatures (C(enabled)) and knows this host's own key (C(enrolled)).
  type: dict
  returned: success
installer:
  description: Path of the uninstaller that NVIDIA's C(.run) installer left, null when there is none.
  type: str
  returned: success
units:
  description: The driver's services by name, each with C(exists) and C(running) (enabled and active).
  type: dict
  returned: success
cuda:
  description: How CUDA started, with C(status), C(devices), C(library_version) and C(message).
  type: dict
  returned: when O(prove) is true
smi:
  description: C(driver_version), C(gpus) and C(fabric) as C(nvidia-smi) has them, or a C(message).
  type: dict
  returned: when O(prove) is true
"""

import sys
import time
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.gpufleet.metal.plugins.module_utils import _driver_state
from ansible_collections.gpufleet.metal.plugins.module_utils._commands import bounded, runner
from ansible_collections.gpufleet.metal.plugins.module_utils._errors import FleetError


def proof(deadline_seconds: float) -> dict[str, Any]:
    """Start CUDA and ask nvidia-smi; what goes wrong is part of the answer."""
    smi: dict[str, Any] = {"driver_version": None, "gpus": None, "fabric": {}, "message": ""}
    try:
        smi.update(_driver_state.ask_smi(bounded(deadline_seconds)))
    except FleetError as error:
        smi["message"] = str(error)
    return {"cuda": _driver_state.prove_cuda(sys.executable, deadline_seconds), "smi": smi}


def main() -> None:
    """Run as an Ansible module."""
    module = AnsibleModule(
        argument_spec={
            "prove": {"type": "bool", "default": False},
            "deadline_seconds": {"type": "int", "default": 60},
            "settle_seconds": {"type": "int", "default": 0},
            "root": {"type": "path", "default": "/"},
            "boot_id_path": {"type": "path", "default": "/proc/sys/kernel/random/boot_id"},
        },
        supports_check_mode=True,
    )
    reader = _driver_state.Reader(module.params["root"], runner(module), module.params["boot_id_path"])
    try:
        state = reader.read()
        if module.params["prove"]:
            end = time.monotonic() + module.params["settle_seconds"]
            state.update(proof(module.params["deadline_seconds"]))
            while _driver_state.is_settling(state) and time.monotonic() < end:
                time.sleep(5)
                state.update(proof(module.params["deadline_seconds"]))
    except FleetError as error:
        module.fail_json(msg=str(error))
    else:
        module.exit_json(changed=False, **state)


if __name__ == "__main__":
    main()
