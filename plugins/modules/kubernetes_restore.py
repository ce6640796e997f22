#!/usr/bin/python
# SPDX-License-Identifier: Apache-2.0 OR GPL-3.0-or-later
# Apache-2.0, or at your option the GNU General Public License v3.0+ (https://www.gnu.org/licenses/gpl-3.0.txt)
"""Bring what a cluster stores back on a control plane, from a sealed snapshot."""

from __future__ import annotations

DOCUMENTATION = r"""
module: kubernetes_restore
short_description: Bring what a cluster stores back on a control plane, from a sealed snapshot
version_added: 0.1.0
description:
  - Each step is written down in C(/var/lib/gpufleet/kubernetes_restore) before it is done. A run that was killed is
    continued by the next one with the same snapshot.
  - etcd's data that were there are moved aside (C(/var/lib/etcd-before-restore-...)), never removed.
  - The restored cluster has one member, and its revisions begin far above those of the snapshot, so that clients notice
    that what they know is old.
author:
  - gpufleet.metal contributors (@gpufleet)
options:
  action:
    description:
      - V(check) opens and proves the snapshot and compares it with the host; the cluster is left alone.
      - V(look) says how far this host is in a restore, and changes nothing.
      - V(stop) takes the static Pods' manifests away and waits until etcd and API server are gone.
      - V(restore) puts data and keys in place and starts the host, a new one by C(kubeadm init).
      - V(leave) moves etcd's data aside on a control plane that is reset and joins anew.
      - V(rejoin) writes down that it was reset, and is not to be stopped again.
      - V(finish) removes what was opened.
    type: str
    choices: [check, look, stop, restore, leave, rejoin, finish]
    required: true
  archive:
    description:
      - The sealed snapshot on this host.
    type: path
  sha256:
    description:
      - Its SHA-256, as the file beside it says.
    type: str
  run:
    description:
      - Which restore it is, as O(action=check) returned it.
    type: str
  identity:
    description:
      - The private key that opens it, of age or OpenSSH, for O(action=check). It goes through a pipe and is in no file.
    type: str
  node_name:
    description:
      - The node's name, which is that of the member of etcd.
    type: str
  address:
    description:
      - The host's address.
    type: str
  cluster:
    description:
      - The name of the cluster that the snapshot has to be of.
    type: str
  endpoint:
    description:
      - The address of the API server that the snapshot has to be of.
    type: str
  kubernetes_version:
    description:
      - The version of Kubernetes on this host.
    type: str
  encryption_keys:
    description:
      - Today's keys for Secrets. The snapshot's own are put behind them.
    type: list
    elements: str
    default: []
  documents:
    description:
      - What kubeadm is told where the host is a new one.
    type: list
    elements: dict
    default: []
  deadline_seconds:
    description:
      - How long etcd and the API server may take to stop, and to answer.
    type: int
    default: 300
attributes:
  check_mode:
    description: Not supported. O(action=check) is the look before the change.
    support: none
  diff_mode:
    description: There is nothing to show.
    support: none
"""

EXAMPLES = r"""
- name: Stop the static Pods
  gpufleet.metal.kubernetes_restore:
    action: stop
    node_name: control-plane-1
"""

RETURN = r"""
snapshot:
  description: What the snapshot is, with C(sha256) and C(run). No secret.
  type: dict
  returned: when O(action=check)
step:
  description: >-
    How far this host is in this restore. V(none) in none, V(running) restored and answering, V(joining) reset and to
    join.
  type: str
  returned: when O(action=look)
member:
  description: Whether this host has a control plane, which may be stopped. A new host has none.
  type: bool
  returned: when O(action=look)
done:
  description: What this run did.
  type: list
  elements: str
  returned: success
"""

import os
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.gpufleet.metal.plugins.module_utils._commands import runner
from ansible_collections.gpufleet.metal.plugins.module_utils._errors import FleetError
from ansible_collections.gpufleet.metal.plugins.module_utils._kubernetes.host import Host
from ansible_collections.gpufleet.metal.plugins.module_utils._kubernetes.restore import Restore, require_identity

ACTIONS = ["check", "look", "stop", "restore", "leave", "rejoin", "finish"]


def argument_spec() -> dict[str, Any]:
    """The module's options, as in DOCUMENTATION."""
    return {
        "action": {"type": "str", "choices": ACTIONS, "required": True},
        "archive": {"type": "path"},
        "sha256": {"type": "str"},
        "run": {"type": "str"},
        "identity": {"type": "str", "no_log": True},
        "node_name": {"type": "str"},
        "address": {"type": "str"},
        "cluster": {"type": "str"},
        "endpoint": {"type": "str"},
        "kubernetes_version": {"type": "str"},
        "encryption_keys": {"type": "list", "elements": "str", "default": [], "no_log": True},
        "documents": {"type": "list", "elements": "dict", "default": []},
        "deadline_seconds": {"type": "int", "default": 300},
    }


NEEDED = [
    ("action", "check", ("archive", "identity", "cluster", "endpoint", "kubernetes_version")),
    ("action", "look", ("run", "node_name")),
    ("action", "stop", ("node_name",)),
    ("action", "restore", ("run", "node_name", "address")),
    ("action", "leave", ("run",)),
    ("action", "rejoin", ("run",)),
    ("action", "finish", ("archive",)),
]


def act(restore: Restore, options: dict[str, Any]) -> dict[str, Any]:
    """Do what is asked for; returns the module's result."""
    action = options["action"]
    if action == "check":
        require_identity(options["identity"])
        return {"changed": False, "snapshot": restore.check(), "done": []}
    if action == "look":
        return {"changed": False, "step": restore.step(), "member": restore.is_member(), "done": []}
    steps = {"stop": restore.stop, "leave": restore.leave, "rejoin": restore.rejoin, "finish": restore.finish}
    done = restore.restore(options["documents"]) if action == "restore" else steps[action]()
    return {"changed": bool(done), "done": done}


def main() -> None:
    """Run as an Ansible module."""
    module = AnsibleModule(argument_spec=argument_spec(), required_if=NEEDED, supports_check_mode=False)
    os.umask(0o022)
    try:
        result = act(Restore(Host(runner(module)), module.params), module.params)
    except FleetError as error:
        module.fail_json(msg=str(error))
    else:
        module.exit_json(**result)


if __name__ == "__main__":
    main()
