# SPDX-License-Identifier: Apache-2.0 OR GPL-3.0-or-later
# Apache-2.0, or at your option the GNU General Public License v3.0+ (https://www.gnu.org/licenses/gpl-3.0.txt)
"""Documentation of the action plugin secret_rotate, which does its work on the controller."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: secret_rotate
short_description: Create secrets and take their rotations on
version_added: "0.1.0"
description:
  - Makes values, and keeps in the store which of them are C(next), C(current) and C(previous) and where each rotation
    stands.
  - A rotation is C(staging) (consumers are to accept the next value too), C(promoted) (the next became the current,
    consumers still accept the previous) and C(retiring) (they are to refuse the previous). It goes on when every host
    of every consumer has shown that.
  - The playbook C(gpufleet.metal.rotate_secrets) is built from it; few need the module itself.
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
  step:
    description:
      - V(create) makes the secrets that the store lacks.
      - V(begin) does that too, and begins to rotate O(names), or all that are due. A rotation that is under way goes
        on as it is.
      - V(advance) records O(shown) and takes every rotation on by at most one phase. It begins those that an emergency
        brings with it, when the one that it found is over, and of the certificates of an authority that leaked.
    type: str
    choices:
      - create
      - begin
      - advance
    required: true
  names:
    description:
      - With O(step=begin), the secrets to rotate, due or not.
    type: list
    elements: str
    default: []
  emergency:
    description:
      - With O(step=begin), whether the rotations of O(names) wait for their consumers only, and for no settling time
        and no overlap. It is kept in the store until the rotation ends.
      - Where a rotation was under way, its new value may be what leaked. So another one begins when it is over.
    type: bool
    default: false
  shown:
    description:
      - With O(step=advance), what the consumers' tasks showed.
    type: list
    elements: dict
    default: []
    suboptions:
      secret:
        description: Name of the secret.
        type: str
        required: true
      phase:
        description: The phase that the consumer was brought to. Shown for another than the present, it proves nothing.
        type: str
        required: true
      version:
        description: Number of the secret's newest version, which tells one rotation from the next.
        type: int
        required: true
      consumer:
        description: Name of the consumer.
        type: str
        required: true
      host:
        description: The host.
        type: str
        required: true
      holds:
        description: Whether it is as the phase wants it.
        type: bool
        required: true
attributes:
  check_mode:
    description: Can run in check mode and return what it would without it.
    support: full
  diff_mode:
    description: Returns details on what has changed, or could change.
    support: full
    details: Shows phases and the numbers of versions, never a value.
seealso:
  - module: gpufleet.metal.secret_store
  - module: gpufleet.metal.secrets_status
  - plugin: gpufleet.metal.secret
    plugin_type: lookup
"""

EXAMPLES = r"""
- name: Begin what is due
  gpufleet.metal.secret_rotate:
    store: "{{ fleet_secret_store }}"
    secrets:
      gateway_api_key:
        kind: token
        max_age_days: 30
        overlap_hours: 48
        consumers:
          gateway:
            hosts: gateways
            tasks: consumers/gateway_api_key.yml
    step: begin
  run_once: true
  register: rotating
"""

RETURN = r"""
moved:
  description: The secrets that were made or entered another phase.
  returned: success
  type: list
  elements: str
work:
  description:
    - For each host what has to be done there now. With O(step=advance) only for the secrets in RV(moved).
    - Each entry has C(secret), C(phase), C(version), C(consumer) and C(tasks).
  returned: success
  type: dict
unmade:
  description:
    - A sentence for each secret that could not be made, or whose next value could not. The others are not kept by it.
  returned: success
  type: list
  elements: str
  sample: ["leaf: the authority ca in the store ends on 2026-12-31, before a certificate of 90 days would: make a new
    authority first"]
waiting:
  description: The rotations that did not go on.
  returned: success
  type: list
  elements: dict
  contains:
    secret:
      description: Name of the secret.
      type: str
      returned: always
      sample: gateway_api_key
    phase:
      description: Where its rotation stands.
      type: str
      returned: always
      sample: promoted
    consumers:
      description: The consumers that have not shown what the phase wants, as consumer@host.
      type: list
      elements: str
      returned: always
    until:
      description: The time that is waited for, in seconds since 1970; null while something else is.
      type: int
      returned: always
    certificates:
      description: The certificates in the store that the old authority signed, which have to be rotated first.
      type: list
      elements: str
      returned: always
    why:
      description: The same as a sentence.
      type: str
      returned: always
      sample: "gateway_api_key: the old value is kept for the proof: its refusal is not proven by gateway@gw-2"
"""
