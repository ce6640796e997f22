#!/usr/bin/python
# SPDX-License-Identifier: Apache-2.0 OR GPL-3.0-or-later
# Apache-2.0, or at your option the GNU General Public License v3.0+ (https://www.gnu.org/licenses/gpl-3.0.txt)
"""Apply objects to a cluster on the server's side, and remove what is no longer among them."""

from __future__ import annotations

DOCUMENTATION = r"""
module: kubernetes_apply
short_description: Apply objects to a cluster on the server's side, and remove what is no longer among them
version_added: 0.1.0
description:
  - Runs on a control plane, with the administrator's credentials that kubeadm has left there. Needs C(kubectl), which
    reads those, and Python alone; it asks the API server itself.
  - First the API server is asked what an apply of each object would change. If it refuses one, nothing is changed, and
    the message has its kind, its name and the server's own words.
  - Fields that somebody else has set otherwise are taken over. The field manager is C(gpufleet.metal).
  - The count of pods of a Deployment without C(spec.replicas) is somebody else's, such as KEDA's. Such a Deployment is
    created with 0, and whatever it has later is left as it is.
  - Of kinds that not every cluster has, those of O(objects) are looked for first, and missed by name.
author:
  - gpufleet.metal contributors (@gpufleet)
options:
  objects:
    description:
      - The objects, in the order in which they are applied. What is in a namespace comes after the namespace.
    type: list
    elements: dict
    required: true
  kubeconfig:
    description:
      - The credentials. The API server is the one that stands there.
    type: path
    default: /etc/kubernetes/admin.conf
  prune_selector:
    description:
      - A selector of labels. What it selects of O(prune_kinds), in any namespace, and is not among O(objects), is
        removed, before anything is applied. Without it nothing is removed.
    type: str
  prune_kinds:
    description:
      - The kinds that O(prune_selector) is for, each with its version, in the order in which they are removed.
    type: list
    elements: str
    default: []
  replicas:
    description:
      - Applies the Deployments of O(objects) alone, with so many pods each. V(0) stops them.
      - What scales one of them (a ScaledObject among O(objects)) is paused before.
    type: int
  absent_allowed:
    description:
      - In check mode, whether the cluster or a namespace may be absent, so that everything would be created in it. For
        a fleet that is not built yet.
    type: bool
    default: false
attributes:
  check_mode:
    description:
      - The API server says what would change. It can't be asked about what is to be in a namespace that is not there.
    support: full
  diff_mode:
    description: Shows the objects before and after, without what the server keeps about them. Of a Secret no content.
    support: full
"""

EXAMPLES = r"""
- name: Have the cluster's objects as planned
  gpufleet.metal.kubernetes_apply:
    objects: "{{ objects }}"
    prune_selector: app.kubernetes.io/managed-by=gpufleet.metal
    prune_kinds: [apps/v1 Deployment, v1 ConfigMap]
"""

RETURN = r"""
changes:
  description:
    - What was done, or would be in check mode, and why. C(action) is V(created), V(changed), V(removed), or V(adopted)
      where an object that somebody else has made is as wanted.
    - C(restarts) is true where pods that may be running are replaced or removed.
  type: list
  elements: dict
  returned: success
  sample:
    - {action: changed, kind: Deployment, namespace: a, name: b, restarts: true, title: Deployment a/b}
"""

import os
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.gpufleet.metal.plugins.module_utils._commands import Runner, runner
from ansible_collections.gpufleet.metal.plugins.module_utils._errors import FleetError, InvalidInputError
from ansible_collections.gpufleet.metal.plugins.module_utils._kubernetes import apply
from ansible_collections.gpufleet.metal.plugins.module_utils._kubernetes.api import connect


def argument_spec() -> dict[str, Any]:
    """The module's options, as in DOCUMENTATION."""
    return {
        "objects": {"type": "list", "elements": "dict", "required": True},
        "kubeconfig": {"type": "path", "default": "/etc/kubernetes/admin.conf"},
        "prune_selector": {"type": "str"},
        "prune_kinds": {"type": "list", "elements": "str", "default": []},
        "replicas": {"type": "int"},
        "absent_allowed": {"type": "bool", "default": False},
    }


def run(options: dict[str, Any], run_command: Runner, check_mode: bool) -> dict[str, Any]:
    """Compare and act; returns the module's result."""
    objects = apply.checked(options["objects"])
    kinds = apply.parsed_kinds(options["prune_kinds"])
    selector = options["prune_selector"]
    if bool(selector) is not bool(kinds):
        raise InvalidInputError("found one of prune_selector and prune_kinds, wanted both or none")
    if options["replicas"] is not None:
        if selector or options["replicas"] < 0:
            raise InvalidInputError("replicas: wanted 0 or more, and no prune_selector beside it")
        objects = apply.with_replicas(objects, options["replicas"])
    absent_allowed = options["absent_allowed"] and check_mode
    if absent_allowed and not os.path.isfile(options["kubeconfig"]):
        changes = [apply.Change("created", item, None, item) for item in objects]
    else:
        api = connect(options["kubeconfig"], run_command)
        changes = apply.strangers(api, objects, kinds, selector) if selector else []
        changes += apply.compare(api, objects, absent_allowed)
        if not check_mode:
            apply.act(api, changes)
    done = [change for change in changes if change.action != "unchanged"]
    result: dict[str, Any] = {"changed": bool(done), "changes": [change.described() for change in done]}
    if done:
        result["diff"] = apply.differences(done)
    return result


def main() -> None:
    """Run as an Ansible module."""
    module = AnsibleModule(argument_spec=argument_spec(), supports_check_mode=True)
    try:
        result = run(module.params, runner(module), module.check_mode)
    except FleetError as error:
        module.fail_json(msg=str(error))
    else:
        module.exit_json(**result)


if __name__ == "__main__":
    main()
