# SPDX-License-Identifier: Apache-2.0 OR GPL-3.0-or-later
# Apache-2.0, or at your option the GNU General Public License v3.0+ (https://www.gnu.org/licenses/gpl-3.0.txt)
"""Documentation of the action plugin secrets_status, which does its work on the controller."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: secrets_status
short_description: Say how old secrets are, what is due and what is stuck
version_added: "0.1.0"
description:
  - Reads the store and describes every secret without its value.
  - With O(metrics_path), also writes it for the textfile collector of Prometheus' node exporter.
author:
  - The gpufleet.metal project (@gpufleet)
extends_documentation_fragment:
  - gpufleet.metal.secret_store
  - gpufleet.metal.secret_store.attributes
options:
  secrets:
    description:
      - What there is, as the variable C(fleet_secrets) says. C(docs/secrets.md) describes it.
    type: dict
    required: true
  metrics_path:
    description:
      - File on the controller that gets the metrics, replaced in one step. Not written in check mode.
    type: path
attributes:
  check_mode:
    description: Can run in check mode and return what it would without it.
    support: full
    details: Reports no change, because the metrics hold the time of reading and nothing else depends on them.
  diff_mode:
    description: Returns details on what has changed, or could change.
    support: none
seealso:
  - module: gpufleet.metal.secret_rotate
  - module: gpufleet.metal.secret_store
"""

EXAMPLES = r"""
- name: Read how old the secrets are
  gpufleet.metal.secrets_status:
    store: "{{ fleet_secret_store }}"
    secrets: "{{ fleet_secrets }}"
    metrics_path: /var/lib/prometheus/node-exporter/gpufleet_secrets.prom
  run_once: true
  register: status
"""

RETURN = r"""
secrets:
  description: Every secret that is defined or stored, by name. Times are seconds since 1970.
  returned: success
  type: list
  elements: dict
  contains:
    name:
      description: Its name.
      type: str
      returned: always
    kind:
      description: Its kind.
      type: str
      returned: always
    missing:
      description: Whether C(fleet_secrets) names it and the store lacks it.
      type: bool
      returned: always
    defined:
      description: Whether C(fleet_secrets) names it.
      type: bool
      returned: always
    version:
      description: Number of the current version.
      type: int
      returned: always
    created:
      description: When the current version was made.
      type: int
      returned: always
    due_at:
      description: When the current version is to be replaced.
      type: int
      returned: always
    due:
      description: Whether that time has come and no rotation is under way.
      type: bool
      returned: always
    phase:
      description: Where its rotation stands, or V(idle).
      type: str
      returned: always
    since:
      description: When it entered that phase.
      type: int
      returned: always
    stuck:
      description: Whether it is in that phase for longer than it may be.
      type: bool
      returned: always
    why:
      description: What is to be done about it, or an empty text.
      type: str
      returned: always
generation:
  description: How often the store was written. A smaller number than before means that an older copy was put there.
  returned: success
  type: int
table:
  description: A line for each secret, for a terminal.
  returned: success
  type: list
  elements: str
metrics:
  description: The content of O(metrics_path).
  returned: success
  type: str
"""
