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
      - V(uncordoned) lets the node take pods again.
      - V(served) signs what the node's kubelet asks for until its port shows a certificate.
      - V(signed) signs what the kubelets of O(nodes) ask for when they renew their serving certificates. Whatever asks
        for other names is not signed and named in the error.
      - V(forgotten) is for a host that is lost. Its etcd member is removed, then its node. Refused while either is
        well,
        and while another member is not.
    type: str
    choices: [seen, present, absent, drained, removed, uncordoned, served, signed, forgotten]
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
  nodes:
    description:
      - For O(state=signed), the addresses that the serving certificate of each node may have, by the node's name.
    type: dict
    default: {}
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
  patience_seconds:
    description:
      - How long an API server that does not answer is asked again, before that is taken for an answer. While one
        restarts, or an address that several share moves, the credentials may lead to none for some seconds.
    type: int
    default: 8
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
  description: Token, certificate key and the digest of the authority, null where there is no cluster. Secret.
  type: dict
  returned: when O(state=present)
done:
  description: What was done to the node.
  type: list
  elements: str
  returned: success
"""

from collections.abc import Callable
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.gpufleet.metal.plugins.module_utils._commands import runner
from ansible_collections.gpufleet.metal.plugins.module_utils._errors import FleetError
from ansible_collections.gpufleet.metal.plugins.module_utils._kubernetes.host import Host, Offer

STATES = ("seen", "present", "absent", "drained", "removed", "uncordoned", "served", "signed", "forgotten")


def argument_spec() -> dict[str, Any]:
    """The module's options, as in DOCUMENTATION."""
    return {
        "state": {"type": "str", "choices": list(STATES), "required": True},
        "node_name": {"type": "str", "required": True},
        "addresses": {"type": "list", "elements": "str", "default": []},
        "nodes": {"type": "dict", "default": {}},
        "document": {"type": "dict"},
        "minutes": {"type": "int", "default": 15},
        "token_id": {"type": "str", "no_log": False},
        "approve": {"type": "bool", "default": False},
        "deadline_seconds": {"type": "int", "default": 120},
        "patience_seconds": {"type": "int", "default": 8},
        "drain_seconds": {"type": "int", "default": 600},
    }


def offer(maker: Offer, options: dict[str, Any], check_mode: bool) -> dict[str, Any]:
    """Do what is asked for; returns the module's result."""
    state, node = options["state"], options["node_name"]
    seen = maker.state(options["patience_seconds"])
    result: dict[str, Any] = {"changed": False, **seen, "offer": None, "done": []}
    if check_mode or state == "seen" or (not seen["cluster"] and state in ("present", "absent")):
        return result
    if not seen["answers"]:
        raise FleetError(f"the API server of this control plane answers {seen['answer']}, wanted ok: nothing was done")
    if state == "present":
        description = f"for the join of {node}, by gpufleet.metal"
        result["offer"] = maker.make(options["minutes"], options["document"], description)
    elif state == "absent":
        if options["token_id"]:
            maker.withdraw(options["token_id"], options["document"] is not None, options["patience_seconds"])
        if options["approve"]:
            approved = maker.approve(node, options["addresses"], options["deadline_seconds"])
            result["done"] = [f"signed the serving certificate of {node}"] if approved else []
    elif state == "drained":
        result["done"] = maker.drain(node, options["drain_seconds"])
    else:
        others: dict[str, Callable[[], list[str]]] = {
            "removed": lambda: maker.remove(node),
            "uncordoned": lambda: maker.uncordon(node),
            "served": lambda: maker.serve(node, options["addresses"], options["deadline_seconds"]),
            "signed": lambda: maker.sign_all(options["nodes"]),
            "forgotten": lambda: maker.forget(node),
        }
        result["done"] = others[state]()
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
