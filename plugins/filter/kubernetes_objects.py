# SPDX-License-Identifier: Apache-2.0
"""Filter shell over module_utils/_kubernetes/cluster.py."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from ansible_collections.gpufleet.metal.plugins.module_utils._kubernetes.cluster import kubernetes_objects
from ansible_collections.gpufleet.metal.plugins.plugin_utils._filters import as_filter
from ansible_collections.gpufleet.metal.plugins.plugin_utils._plain import plain

DOCUMENTATION = r"""
name: kubernetes_objects
short_description: Turn the plan into the objects of its Kubernetes cluster
version_added: 0.1.0
description:
  - A Deployment for each planned instance whose backend is Kubernetes, with what it needs, namespaces, access, network
    policies and what enforces them, the admission policy of the serving namespace and NVIDIA's device plugin, in the
    order in which they are applied.
  - The whole list is checked for what a schema does not see, such as a reference to an object that is not there.
  - Empty in a fleet without Kubernetes.
author:
  - gpufleet.metal contributors (@gpufleet)
positional: _input
options:
  _input:
    description: The fleet's plan.
    type: dict
    required: true
  probe_program:
    description:
      - The program that runs in the pods as their probes. Null is C(engine_probe.py) of P(gpufleet.metal.vllm#role).
    type: str
  device_plugin_image:
    description: The image of NVIDIA's device plugin with its digest. V(devices) need it if an engine uses GPUs.
    type: str
  network_policies_image:
    description: The image of kube-network-policies with its digest. V(enforcement) needs it.
    type: str
  settings:
    description:
      - How engines are run. C(entrypoint), C(user), C(read_only), C(cache_directory), C(start_timeout_seconds),
        C(probe_api) and C(probe_timeout_seconds) are the options of the role of those names.
      - Further keys are C(cache), which is C(host) or C(pod), C(probe_python), C(drain_seconds), C(hang_seconds),
        C(cpu), C(memory) and C(tmp_size).
      - What is not given has the role's default.
    type: dict
    default: {}
  parts:
    description: Only what is for these.
    type: list
    elements: str
    choices: [namespace, policies, enforcement, admission, devices, engines]
    default: [namespace, policies, enforcement, admission, devices, engines]
  hosts:
    description: Only the engines of these hosts, by their inventory names. Other parts are those of the whole cluster.
    type: list
    elements: str
"""

EXAMPLES = r"""
- name: Write what one host's engines are made of, for kubectl apply --server-side
  ansible.builtin.copy:
    dest: /root/engines.yml
    mode: "0600"
    content: |
      ---
      {{ fleet_plan | gpufleet.metal.kubernetes_objects(
           parts=['engines'], hosts=['gpu-1']) | map('to_nice_yaml', sort_keys=false) | join('---\n') }}
"""

RETURN = r"""
_value:
  description: Objects as the API takes them.
  type: list
  elements: dict
"""


_PROGRAM = Path(__file__).parents[2] / "roles" / "vllm" / "files" / "engine_probe.py"


def _objects(plan: Any, probe_program: str | None = None, **options: Any) -> list[dict[str, Any]]:
    program = _PROGRAM.read_text(encoding="utf-8") if probe_program is None else str(probe_program)
    return kubernetes_objects(plain(plan), program, **plain(options))


class FilterModule:
    """What Ansible loads."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return the filters of this file."""
        return {"kubernetes_objects": as_filter(_objects)}
