# SPDX-License-Identifier: Apache-2.0 OR GPL-3.0-or-later
# Apache-2.0, or at your option the GNU General Public License v3.0+ (https://www.gnu.org/licenses/gpl-3.0.txt)
"""Documentation of the action plugin fleet_plan, which does its work on the controller."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: fleet_plan
short_description: Decide where every model of the fleet runs
version_added: "0.1.0"
description:
  - Decides tensor-parallel sizes, placement on GPUs, ports, upstreams, network flows, certificates and scrape targets
    for the whole inventory, and what each host is given of it.
  - The plan is a function of inventory variables alone. It needs no connection and no facts, sees the whole inventory
    also under C(--limit) and with hosts down, and is the same for the same inventory.
  - Reads the groups C(gpu_nodes), C(gateways), C(kube_control_plane) and C(kube_nodes), the variables C(fleet_name),
    C(fleet_management_networks), C(fleet_models), C(fleet_model_facts), C(fleet_models_directory), C(fleet_driver),
    C(fleet_engine), C(fleet_endpoint), C(fleet_kubernetes) and C(fleet_plan_keep) of the fleet, and C(fleet_address),
    C(fleet_driver_override), C(gpu_inventory), C(nvidia_driver_mig) and C(docker_address_pools) of each host.
    C(docs/plan.md) describes them.
  - Where C(applied.json) in O(directory) says what was applied last, instances that are still right stay where they
    are, unless C(fleet_plan_keep) is V(false). M(gpufleet.metal.fleet_applied) writes that file.
  - Every reason why the fleet cannot be as asked is a finding. All findings are collected; with any, the task writes
    nothing and, unless O(fail) says otherwise, fails.
author:
  - The gpufleet.metal project (@gpufleet)
options:
  directory:
    description:
      - Directory on the controller that gets C(plan.json) and C(plan.svg), made when missing, and that may hold
        C(applied.json).
      - Null writes nothing.
    type: path
  fail:
    description:
      - Whether findings fail the task.
      - Without it, what could be decided all the same is returned for somebody who shows the findings together with
        others and stops then.
    type: bool
    default: true
  show:
    description:
      - Whether the table is printed, as it is. In the result of a task a callback would fold and quote its lines.
    type: bool
    default: false
attributes:
  check_mode:
    description: Can run in check mode and return what it would without it.
    support: full
  diff_mode:
    description: Returns details on what has changed, or could change.
    support: full
    details: Shows C(plan.json), not the picture.
  platform:
    description: Systems that the action runs on.
    platforms: posix
    support: full
    details: Runs on the controller.
notes:
  - Run it once per play with C(run_once); its result is the same for every host.
seealso:
  - module: gpufleet.metal.fleet_applied
  - module: gpufleet.metal.gpu_facts
"""

EXAMPLES = r"""
- name: Plan the fleet
  gpufleet.metal.fleet_plan:
    directory: "{{ inventory_dir }}/plan"
    show: true
  run_once: true
  register: planned
"""

RETURN = r"""
plan:
  description: The plan. C(docs/plan.md) describes every key, and C(docs/plan.schema.json) is its JSON Schema.
  returned: success
  type: dict
  contains:
    schema:
      description: Version of this structure.
      type: int
      returned: always
      sample: 1
    fleet:
      description: Name of the fleet.
      type: str
      returned: always
      sample: gpufleet
    findings:
      description: The same as RV(findings).
      type: list
      elements: dict
      returned: always
    models:
      description: What was decided about every model, by name.
      type: dict
      returned: always
    kubernetes:
      description: The cluster; null where no host is in a group of Kubernetes.
      type: dict
      returned: always
    instances:
      description: Every engine process, sorted by host, model and GPU.
      type: list
      elements: dict
      returned: always
    upstreams:
      description: The servers of every model, with weights.
      type: list
      elements: dict
      returned: always
    flows:
      description: Every connection that the firewalls let in.
      type: list
      elements: dict
      returned: always
    certificates:
      description: What the certificate of every gateway names.
      type: list
      elements: dict
      returned: always
    scrape_targets:
      description: What a monitoring system reads.
      type: list
      elements: dict
      returned: always
    hosts:
      description: What each host is given of the plan, by name.
      type: dict
      returned: always
table:
  description: The plan as aligned text for a terminal, and what would change against the last applied plan.
  returned: when there are no findings
  type: str
changes:
  description: What would change against the last applied plan; without one, every instance is added.
  returned: when there are no findings
  type: list
  elements: dict
  contains:
    change:
      description: V(added), V(removed), V(moved) or V(restarted).
      type: str
      returned: always
      sample: moved
    model:
      description: Name of the model.
      type: str
      returned: always
      sample: tiny-llama
    instance:
      description: Host and name of the instance.
      type: str
      returned: always
      sample: gpu-1/tiny-llama-0
    before:
      description: Host and name that a moved instance had, else an empty text.
      type: str
      returned: always
      sample: gpu-2/tiny-llama-0
    why:
      description: What differs.
      type: str
      returned: always
findings:
  description: Every reason why the fleet cannot be as asked; empty when the task succeeds.
  returned: always
  type: list
  elements: dict
  contains:
    kind:
      description: What RV(findings[].host_or_model) names.
      type: str
      returned: always
      sample: host
    host_or_model:
      description: Name of the host, the model or the fleet.
      type: str
      returned: always
      sample: gpu-1
    code:
      description: Stable word for programs.
      type: str
      returned: always
      sample: gpu_inventory_missing
    found:
      description: What was found.
      type: str
      returned: always
    wanted:
      description: What is wanted instead.
      type: str
      returned: always
    fix:
      description: What the operator does about it.
      type: str
      returned: always
changed_files:
  description: Files that were written, or would be in check mode.
  returned: when O(directory) is set and there are no findings
  type: list
  elements: str
"""
