# SPDX-License-Identifier: Apache-2.0 OR GPL-3.0-or-later
# Apache-2.0, or at your option the GNU General Public License v3.0+ (https://www.gnu.org/licenses/gpl-3.0.txt)
"""Documentation of the action plugin fleet_applied, which does its work on the controller."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: fleet_applied
short_description: Record which hosts run their part of the plan
version_added: "0.1.0"
description:
  - Copies the parts of the named hosts from C(plan.json) into C(applied.json) beside it. Other hosts keep what was
    recorded about them before; hosts that are no longer in the plan are dropped.
  - The next M(gpufleet.metal.fleet_plan) keeps what C(applied.json) says wherever it is still right, and shows what it
    would change against it.
author:
  - The gpufleet.metal project (@gpufleet)
options:
  directory:
    description:
      - Directory on the controller that holds C(plan.json) and gets C(applied.json).
    type: path
    required: true
  hosts:
    description:
      - The hosts whose engines run as planned.
    type: list
    elements: str
    required: true
attributes:
  check_mode:
    description: Can run in check mode and return what it would without it.
    support: full
    details: Is skipped in check mode, because a run in check mode applies nothing.
  diff_mode:
    description: Returns details on what has changed, or could change.
    support: none
  platform:
    description: Systems that the action runs on.
    platforms: posix
    support: full
    details: Runs on the controller.
notes:
  - Run it once per play with C(run_once), after the role that starts the engines.
seealso:
  - module: gpufleet.metal.fleet_plan
"""

EXAMPLES = r"""
- name: Record which hosts run their part of the plan
  gpufleet.metal.fleet_applied:
    directory: "{{ inventory_dir }}/.gpufleet"
    hosts: "{{ ansible_play_hosts }}"
  run_once: true
"""

RETURN = r"""
"""
