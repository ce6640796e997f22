#!/usr/bin/python
# SPDX-License-Identifier: Apache-2.0 OR GPL-3.0-or-later
# Apache-2.0, or at your option the GNU General Public License v3.0+ (https://www.gnu.org/licenses/gpl-3.0.txt)
"""Renew the certificates of a host of a cluster."""

from __future__ import annotations

DOCUMENTATION = r"""
module: kubernetes_certificates
short_description: Renew the certificates of a host of a cluster
version_added: 0.1.0
description:
  - On a control plane all that kubeadm signed (C(kubeadm certs renew all), with the credentials in F(/etc/kubernetes))
    when
    one of it has lived two thirds of its life, and each component is started anew and proved by what its port shows.
  - On every host what kubelet serves.
  - A renewal that was interrupted is completed by the next run.
author:
  - gpufleet.metal contributors (@gpufleet)
options:
  action:
    description:
      - V(look) only says what is due.
      - V(renew) renews what kubeadm signed.
      - V(ask) has kubelet ask for a new serving certificate, which somebody has to sign.
      - V(prove) waits until kubelet serves what lies on the host.
    type: str
    choices: [look, renew, ask, prove]
    required: true
  now:
    description:
      - Whether to renew, or to ask, whatever is due.
    type: bool
    default: false
  deadline_seconds:
    description:
      - How long a component may take to be well again.
    type: int
    default: 120
attributes:
  check_mode:
    description: Says what it would do.
    support: full
  diff_mode:
    description: There is nothing to show.
    support: none
"""

EXAMPLES = r"""
- name: Renew what kubeadm signed and has lived two thirds of its life
  gpufleet.metal.kubernetes_certificates:
    action: renew
"""

RETURN = r"""
due:
  description: Files whose certificates have lived two thirds of their life, of what kubeadm signed.
  type: list
  elements: str
  returned: success
serving_due:
  description: Whether kubelet has no serving certificate or one that has lived two thirds of its life.
  type: bool
  returned: success
begun:
  description: Whether a renewal had begun that was not complete.
  type: bool
  returned: success
done:
  description: What was done.
  type: list
  elements: str
  returned: success
"""

import datetime
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.gpufleet.metal.plugins.module_utils._commands import runner
from ansible_collections.gpufleet.metal.plugins.module_utils._errors import FleetError
from ansible_collections.gpufleet.metal.plugins.module_utils._kubernetes.host import Host
from ansible_collections.gpufleet.metal.plugins.module_utils._kubernetes.renewal import Renewal, state


def argument_spec() -> dict[str, Any]:
    """The module's options, as in DOCUMENTATION."""
    return {
        "action": {"type": "str", "choices": ["look", "renew", "ask", "prove"], "required": True},
        "now": {"type": "bool", "default": False},
        "deadline_seconds": {"type": "int", "default": 120},
    }


def change(renewal: Renewal, action: str, now: bool, check_mode: bool, time: datetime.datetime) -> dict[str, Any]:
    """Do what is asked for; returns the module's result."""
    found = state(renewal, time)
    done: list[str] = []
    if action == "renew" and (now or found["begun"] or found["due"]):
        done = ["would renew"] if check_mode else renewal.renew()
    elif action == "ask" and (now or found["serving_due"]):
        done = ["had kubelet ask for a serving certificate"]
        if not check_mode:
            renewal.ask_for_serving()
    elif action == "prove" and not check_mode:
        renewal.prove_serving()
    return {"changed": bool(done), **found, "done": done}


def main() -> None:
    """Run as an Ansible module."""
    module = AnsibleModule(argument_spec=argument_spec(), supports_check_mode=True)
    told = module.params
    renewal = Renewal(Host(runner(module)), told["deadline_seconds"])
    time = datetime.datetime.now(tz=datetime.timezone.utc)
    try:
        result = change(renewal, told["action"], told["now"], module.check_mode, time)
    except FleetError as error:
        module.fail_json(msg=str(error))
    else:
        module.exit_json(**result)


if __name__ == "__main__":
    main()
