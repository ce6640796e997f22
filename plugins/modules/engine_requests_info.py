#!/usr/bin/python
# Copyright (c) gpufleet.metal contributors
# Apache-2.0, or at your option the GNU General Public License v3.0+ (https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: Apache-2.0 OR GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: engine_requests_info
short_description: Tell how many requests a vLLM engine has in hand, or wait until it has none
version_added: 0.1.0
description:
  - Reads C(vllm:num_requests_running) and C(vllm:num_requests_waiting) from the engine's metrics.
  - With O(wait_seconds) it waits until the engine is idle. Take the engine out of the gateways first, or there is
    always a next request.
  - An engine that refuses connections is not running and has nothing in hand.
author:
  - gpufleet.metal contributors (@gpufleet)
options:
  url:
    description: Where the engine answers, such as V(http://198.51.100.11:8000).
    type: str
    required: true
  wait_seconds:
    description: Seconds to wait for the engine to become idle; V(0) only looks.
    type: float
    default: 0
  settle_seconds:
    description: Seconds on end without a request that count as idle.
    type: float
    default: 2
  timeout:
    description: Seconds that one look may take.
    type: float
    default: 5
  ca_path:
    description: File with the certificates of the authorities to trust, in PEM. Without it the system's are used.
    type: path
  client_cert:
    description: File with the certificate, and its chain, that the engine is asked with, in PEM.
    type: path
  client_key:
    description: File with the private key of O(client_cert), in PEM. Without it, that file holds the key too.
    type: path
attributes:
  check_mode:
    description: Looks once in check mode, and does not wait.
    support: full
  diff_mode:
    description: There is nothing to compare.
    support: none
"""

EXAMPLES = r"""
- name: Wait until the engine has finished what it has begun
  gpufleet.metal.engine_requests_info:
    url: http://198.51.100.11:8000
    wait_seconds: 300
"""

RETURN = r"""
answering:
  description: Whether the engine answers at all.
  returned: always
  type: bool
running:
  description: Requests that are computed.
  returned: always
  type: int
waiting:
  description: Requests that wait to be.
  returned: always
  type: int
idle:
  description: Whether there are none.
  returned: always
  type: bool
waited_seconds:
  description: How long it took.
  returned: always
  type: float
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.gpufleet.metal.plugins.module_utils._engine_requests import (
    InHand,
    read,
    wait_until_idle,
)
from ansible_collections.gpufleet.metal.plugins.module_utils._errors import FleetError
from ansible_collections.gpufleet.metal.plugins.module_utils._probe import ProbeError, Target


def main() -> None:
    """Run as an Ansible module."""
    module = AnsibleModule(
        argument_spec={
            "url": {"type": "str", "required": True},
            "wait_seconds": {"type": "float", "default": 0},
            "settle_seconds": {"type": "float", "default": 2},
            "timeout": {"type": "float", "default": 5},
            "ca_path": {"type": "path"},
            "client_cert": {"type": "path"},
            "client_key": {"type": "path"},
        },
        supports_check_mode=True,
    )
    options = module.params
    target = Target(**{name: options[name] for name in ("url", "timeout", "ca_path", "client_cert", "client_key")})
    answering = True

    def look() -> InHand:
        nonlocal answering
        try:
            answering = True
            return read(target)
        except ProbeError as error:
            if not isinstance(error.__cause__, ConnectionRefusedError):
                raise
            answering = False
            return InHand(0, 0)

    try:
        if options["wait_seconds"] > 0 and not module.check_mode:
            found, waited = wait_until_idle(look, options["url"], options["wait_seconds"], options["settle_seconds"])
        else:
            found, waited = look(), 0.0
    except FleetError as error:
        module.fail_json(msg=str(error))
    module.exit_json(
        changed=False,
        answering=answering,
        running=found.running,
        waiting=found.waiting,
        idle=found.idle,
        waited_seconds=round(waited, 1),
    )


if __name__ == "__main__":
    main()
