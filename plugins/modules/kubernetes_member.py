#!/usr/bin/python
# SPDX-License-Identifier: Apache-2.0 OR GPL-3.0-or-later
# Apache-2.0, or at your option the GNU General Public License v3.0+ (https://www.gnu.org/licenses/gpl-3.0.txt)
"""Make a cluster on a host, join one, or take the host out of its cluster."""

from __future__ import annotations

DOCUMENTATION = r"""
module: kubernetes_member
short_description: Make a cluster on a host, join one, or take the host out of it
version_added: 0.1.0
description:
  - Runs C(kubeadm init) or C(kubeadm join) with a file of mode 0600 that lies in memory and is removed afterwards, also
    when kubeadm fails. C(kubeadm config validate) judges it first. Token and certificate key are never on a command
    line, in a result or in a message.
  - Then it waits until the cluster knows the node.
  - What has begun is written down. A join that was interrupted is reset and made again by the next run; an interrupted
    init whose cluster does not answer is refused, because there might be something in it.
author:
  - gpufleet.metal contributors (@gpufleet)
options:
  action:
    description:
      - What to do. V(reset) also removes what C(kubeadm reset) leaves.
    type: str
    choices: [init, join, reset]
    required: true
  documents:
    description:
      - What kubeadm is told, without secrets. Needed unless O(action=reset).
    type: list
    elements: dict
    default: []
  token:
    description:
      - The token of a join.
    type: str
  certificate_key:
    description:
      - The key that decrypts the cluster's keys, for the join of a control plane.
    type: str
  ca_cert_hashes:
    description:
      - Digests of the cluster's authority.
    type: list
    elements: str
    default: []
  node_name:
    description:
      - The node's name.
    type: str
    required: true
  deadline_seconds:
    description:
      - How long the cluster may take to know the node.
    type: int
    default: 300
attributes:
  check_mode:
    description: Says what it would do.
    support: full
  diff_mode:
    description: There is nothing to show.
    support: none
"""

EXAMPLES = r"""
- name: Take the host out of its cluster
  gpufleet.metal.kubernetes_member:
    action: reset
    node_name: node-1
"""

RETURN = r"""
done:
  description: What was done.
  type: list
  elements: str
  returned: success
"""

import signal
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.gpufleet.metal.plugins.module_utils._commands import runner
from ansible_collections.gpufleet.metal.plugins.module_utils._errors import FleetError
from ansible_collections.gpufleet.metal.plugins.module_utils._kubernetes.host import Host, Membership


def argument_spec() -> dict[str, Any]:
    """The module's options, as in DOCUMENTATION."""
    return {
        "action": {"type": "str", "choices": ["init", "join", "reset"], "required": True},
        "documents": {"type": "list", "elements": "dict", "default": []},
        "token": {"type": "str", "no_log": True},
        "certificate_key": {"type": "str", "no_log": True},
        "ca_cert_hashes": {"type": "list", "elements": "str", "default": []},
        "node_name": {"type": "str", "required": True},
        "deadline_seconds": {"type": "int", "default": 300},
    }


def complete(documents: list[dict[str, Any]], options: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the documents with the secrets of a join."""
    result = []
    for document in documents:
        if document.get("kind") == "JoinConfiguration":
            told = {**document["discovery"]["bootstrapToken"]}
            told.update(token=options["token"], caCertHashes=options["ca_cert_hashes"])
            document = {**document, "discovery": {"bootstrapToken": told}}
            if options["certificate_key"]:
                document["controlPlane"] = {**document["controlPlane"], "certificateKey": options["certificate_key"]}
        result.append(document)
    return result


def change(membership: Membership, options: dict[str, Any], check_mode: bool) -> dict[str, Any]:
    """Do what is asked for; returns the module's result."""
    action = options["action"]
    if check_mode:
        host = membership.host
        member = host.member() is not None or host.unfinished() is not None
        needed = bool(member or membership.leftovers()) if action == "reset" else True
        return {"changed": needed, "done": [f"would run kubeadm {action}"] if needed else []}
    if action == "reset":
        done = membership.leave()
    else:
        done = [membership.enter(action, complete(options["documents"], options))]
    return {"changed": bool(done), "done": done}


def _end(number: int, __: Any) -> None:
    # As an exception, so that the file with the secrets is removed.
    raise SystemExit(128 + number)


def main() -> None:
    """Run as an Ansible module."""
    module = AnsibleModule(argument_spec=argument_spec(), supports_check_mode=True)
    options = module.params
    if options["action"] == "join" and not (options["token"] and options["ca_cert_hashes"]) and not module.check_mode:
        module.fail_json(msg="a join takes token and ca_cert_hashes")
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        signal.signal(number, _end)
    membership = Membership(Host(runner(module)), options["node_name"], options["deadline_seconds"])
    try:
        result = change(membership, options, module.check_mode)
    except FleetError as error:
        module.fail_json(msg=str(error))
    else:
        module.exit_json(**result)


if __name__ == "__main__":
    main()
