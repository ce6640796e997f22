#!/usr/bin/python
# SPDX-License-Identifier: Apache-2.0 OR GPL-3.0-or-later
# Apache-2.0, or at your option the GNU General Public License v3.0+ (https://www.gnu.org/licenses/gpl-3.0.txt)
"""On a living control plane: let one host join, settle its join, or remove it."""

from __future__ import annotations

DOCUMENTATION = r"""
module: kubernetes_offer
short_description: On a control plane, let one host join, settle its join, or remove it
version_added: 0.1.0
description:
  - For use by delegation, one call before a join and one after it, whatever the cluster's size.
  - The result of O(state=present) holds secrets. Register it in a task with C(no_log).
author:
  - gpufleet.metal contributors (@gpufleet)
options:
  state:
    description:
      - V(seen) only looks whether the host has a cluster that answers.
      - V(present) looks, and where there is one makes a token of its own for one host, and for a control plane encrypts
        the cluster's keys with a key of its own.
      - V(absent) makes both worthless, and with O(approve) signs the serving certificate that the new node's kubelet
        asks for, after a look at who asks and for which names.
      - V(drained) takes all pods off the node, V(removed) deletes it from the cluster. A control plane is reset between
        the two, because C(kubeadm reset) takes its etcd out of the cluster only as long as the node is known.
    type: str
    choices: [seen, present, absent, drained, removed]
    required: true
  node_name:
    description:
      - The node that it is about.
    type: str
    required: true
  addresses:
    description:
      - Addresses that the node's serving certificate may have.
    type: list
    elements: str
    default: []
  document:
    description:
      - An InitConfiguration without secrets, for the join of a control plane.
    type: dict
  minutes:
    description:
      - How long the token is valid.
    type: int
    default: 15
  token_id:
    description:
      - The public half of the token, for O(state=absent). None was made for the first control plane.
    type: str
  approve:
    description:
      - Whether the node has joined and gets its serving certificate.
    type: bool
    default: false
  deadline_seconds:
    description:
      - How long kubelet may take to ask for its certificate.
    type: int
    default: 120
  drain_seconds:
    description:
      - How long the pods may take to end.
    type: int
    default: 600
attributes:
  check_mode:
    description: Looks, and makes nothing.
    support: full
  diff_mode:
    description: There is nothing to show.
    support: none
"""

EXAMPLES = r"""
- name: Let a host join
  gpufleet.metal.kubernetes_offer:
    state: present
    node_name: node-1
  delegate_to: control-plane-1
  register: offer
  no_log: true
"""

RETURN = r"""
cluster:
  description: Whether this host has a cluster.
  type: bool
  returned: success
answers:
  description: Whether its API server answers.
  type: bool
  returned: success
answer:
  description: What its API server answers.
  type: str
  returned: success
offer:
  description: Token, certificate key and the digest of the authority, null where no cluster answers. Secret.
  type: dict
  returned: when O(state=present)
done:
  description: What was done to the node.
  type: list
  elements: str
  returned: success
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.gpufleet.metal.plugins.module_utils._commands import runner
from ansible_collections.gpufleet.metal.plugins.module_utils._errors import FleetError
from ansible_collections.gpufleet.metal.plugins.module_utils._kubernetes.host import Host, Offer


def argument_spec() -> dict[str, Any]:
    """The module's options, as in DOCUMENTATION."""
    return {
        "state": {"type": "str", "choices": ["seen", "present", "absent", "drained", "removed"], "required": True},
        "node_name": {"type": "str", "required": True},
        "addresses": {"type": "list", "elements": "str", "default": []},
        "document": {"type": "dict"},
        "minutes": {"type": "int", "default": 15},
        "token_id": {"type": "str", "no_log": False},
        "approve": {"type": "bool", "default": False},
        "deadline_seconds": {"type": "int", "default": 120},
        "drain_seconds": {"type": "int", "default": 600},
    }


def offer(maker: Offer, options: dict[str, Any], check_mode: bool) -> dict[str, Any]:
    """Do what is asked for; returns the module's result."""
    state, node = options["state"], options["node_name"]
    seen = maker.state()
    result: dict[str, Any] = {"changed": False, **seen, "offer": None, "done": []}
    if not seen["answers"] or check_mode or state == "seen":
        return result
    if state == "present":
        description = f"for the join of {node}, by gpufleet.metal"
        result["offer"] = maker.make(options["minutes"], options["document"], description)
    elif state == "absent":
        if options["token_id"]:
            maker.withdraw(options["token_id"], options["document"] is not None)
        if options["approve"]:
            approved = maker.approve(node, options["addresses"], options["deadline_seconds"])
            result["done"] = [f"signed the serving certificate of {node}"] if approved else []
    elif state == "drained":
        result["done"] = maker.drain(node, options["drain_seconds"])
    else:
        result["done"] = maker.remove(node)
    result["changed"] = bool(result["done"])
    return result


def main() -> None:
    """Run as an Ansible module."""
    module = AnsibleModule(argument_spec=argument_spec(), supports_check_mode=True)
    try:
        result = offer(Offer(Host(runner(module))), module.params, module.check_mode)
    except FleetError as error:
        module.fail_json(msg=str(error))
    else:
        module.exit_json(**result)


if __name__ == "__main__":
    main()
