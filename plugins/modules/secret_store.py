# SPDX-License-Identifier: Apache-2.0 OR GPL-3.0-or-later
# Apache-2.0, or at your option the GNU General Public License v3.0+ (https://www.gnu.org/licenses/gpl-3.0.txt)
"""Documentation of the action plugin secret_store, which does its work on the controller."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: secret_store
short_description: Make the store of secrets, or seal it for another key
version_added: "0.1.0"
description:
  - Makes the wrapping key and an empty store, where they are missing. A key is never made for a store that exists,
    and a store never replaces another.
  - Values are sealed by AES-256-GCM under a data key that is new at each write and wrapped by RSA-OAEP with SHA-256
    for each recipient.
  - What is to be done with keys and backups is in C(docs/secrets.md).
author:
  - The gpufleet.metal project (@gpufleet)
extends_documentation_fragment:
  - gpufleet.metal.secret_store
  - gpufleet.metal.secret_store.attributes
options:
  state:
    description:
      - V(present) makes what is missing.
      - V(rewrapped) seals the store again, for O(new_key) and O(recipients) and for nobody else. Only for the back
        end V(file).
    type: str
    choices:
      - present
      - rewrapped
    default: present
  bits:
    description:
      - Size of a wrapping key that is made, 2048 to 16384.
    type: int
    default: 3072
  recipients:
    description:
      - Files with RSA public keys in PEM whose holders can open the store too, as an offline key for a disaster.
    type: list
    elements: path
    default: []
  new_key:
    description:
      - The private key that opens the store from now on, described as C(key) of O(store). A C(file) that is missing
        is made.
      - Without it, the key of O(store), so that only the recipients change.
    type: dict
attributes:
  check_mode:
    description: Can run in check mode and return what it would without it.
    support: full
  diff_mode:
    description: Returns details on what has changed, or could change.
    support: none
seealso:
  - module: gpufleet.metal.secret_rotate
  - module: gpufleet.metal.secrets_status
"""

EXAMPLES = r"""
- name: Make the wrapping key and the store
  gpufleet.metal.secret_store:
    store:
      key:
        file: ~/.config/gpufleet/secrets.key
    recipients: [keys/offline.pub]
  run_once: true

- name: Seal the store for a new key
  gpufleet.metal.secret_store:
    store: "{{ fleet_secret_store }}"
    state: rewrapped
    new_key:
      file: ~/.config/gpufleet/secrets-2.key
    recipients: [keys/offline.pub]
  run_once: true
"""

RETURN = r"""
path:
  description: The file.
  returned: for the back end V(file)
  type: str
recipients:
  description: The keys that open the store, each as SHA-256 of its SubjectPublicKeyInfo; empty for other back ends.
  returned: success
  type: list
  elements: str
"""
