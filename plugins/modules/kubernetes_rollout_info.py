#!/usr/bin/python
# SPDX-License-Identifier: Apache-2.0 OR GPL-3.0-or-later
# Apache-2.0, or at your option the GNU General Public License v3.0+ (https://www.gnu.org/licenses/gpl-3.0.txt)
"""Wait until a cluster's workloads and nodes are as wanted, and tell what runs."""

from __future__ import annotations

DOCUMENTATION = r"""
module: kubernetes_rollout_info
short_description: Wait until a cluster's workloads and nodes are as wanted, and tell what runs
version_added: 0.1.0
description:
  - A workload is rolled out when its controller has seen it, all of its pods are of its present version, and all are
    ready. One with 0 replicas is when no pod is left.
  - Fails when the time is up, or at once where no waiting helps, such as for a container that ends and is restarted.
    The message has what the cluster says of each pod, and what a container that ended said last.
author:
  - gpufleet.metal contributors (@gpufleet)
options:
  objects:
    description:
      - Objects, of which the Deployments and DaemonSets are waited for. Only kind, namespace and name count.
    type: list
    elements: dict
    default: []
  nodes:
    description:
      - Nodes that have to be ready.
    type: list
    elements: str
    default: []
  kubeconfig:
    description:
      - The credentials. The API server is the one that stands there.
    type: path
    default: /etc/kubernetes/admin.conf
  wait_seconds:
    description:
      - How long to wait. V(0) looks once.
    type: int
    default: 0
  required:
    description:
      - Whether to fail for what is not as wanted. If not, RV(faults) has it.
    type: bool
    default: true
attributes:
  check_mode:
    description: Never changes anything.
    support: full
  diff_mode:
    description: There is nothing to show.
    support: none
"""

EXAMPLES = r"""
- name: Wait until every node has its network
  gpufleet.metal.kubernetes_rollout_info:
    objects: "{{ flannels_objects }}"
    nodes: [node-1]
    wait_seconds: 300
"""

RETURN = r"""
faults:
  description:
    - What is not as wanted.
  type: list
  elements: str
  returned: success
workloads:
  description:
    - What runs of each workload, in the order of O(objects). Of one that is not there C(image) is null.
    - C(image) and C(arguments) are those of its first container, C(annotations) its own.
    - C(ready) is whether one of its pods or more is. With 0 replicas none is, and that is no fault.
  type: list
  elements: dict
  returned: success
  sample:
    - kind: Deployment
      namespace: a
      name: b
      annotations: {}
      image: vllm/vllm-openai@sha256:98a6514a15f5bd499b69f9e6be2b42c59dbaceec8db1db3f337a6f66546c481a
      arguments: []
      ready: true
      pods: [{name: b-1, node: gpu-1, phase: Running, image_ids: [], restarts: 0}]
"""

import time
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.gpufleet.metal.plugins.module_utils._commands import Runner, runner
from ansible_collections.gpufleet.metal.plugins.module_utils._errors import FleetError
from ansible_collections.gpufleet.metal.plugins.module_utils._kubernetes import apply
from ansible_collections.gpufleet.metal.plugins.module_utils._kubernetes.api import connect


def argument_spec() -> dict[str, Any]:
    """The module's options, as in DOCUMENTATION."""
    return {
        "objects": {"type": "list", "elements": "dict", "default": []},
        "nodes": {"type": "list", "elements": "str", "default": []},
        "kubeconfig": {"type": "path", "default": "/etc/kubernetes/admin.conf"},
        "wait_seconds": {"type": "int", "default": 0},
        "required": {"type": "bool", "default": True},
    }


def run(options: dict[str, Any], run_command: Runner) -> dict[str, Any]:
    """Wait and look; returns the module's result. Raises FleetError with what is not as wanted."""
    objects = apply.checked(options["objects"])
    watch = apply.Watch(connect(options["kubeconfig"], run_command), objects, options["nodes"])
    found, faults = apply.wait(watch, options["wait_seconds"], time.monotonic, time.sleep)
    if faults and options["required"]:
        waited = f" within {options['wait_seconds']} seconds" if options["wait_seconds"] and not watch.hopeless else ""
        raise FleetError(f"not as wanted{waited}: {'. '.join(faults)}")
    return {"changed": False, "workloads": found, "faults": faults}


def main() -> None:
    """Run as an Ansible module."""
    module = AnsibleModule(argument_spec=argument_spec(), supports_check_mode=True)
    try:
        result = run(module.params, runner(module))
    except FleetError as error:
        module.fail_json(msg=str(error))
    else:
        module.exit_json(**result)


if __name__ == "__main__":
    main()
