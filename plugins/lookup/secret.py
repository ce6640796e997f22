# SPDX-License-Identifier: Apache-2.0 OR GPL-3.0-or-later
# Apache-2.0, or at your option the GNU General Public License v3.0+ (https://www.gnu.org/licenses/gpl-3.0.txt)
"""Read secrets from the store on the controller."""

from __future__ import annotations

DOCUMENTATION = r"""
---
name: secret
short_description: Read secrets from the fleet's store
version_added: "0.1.0"
author:
  - The gpufleet.metal project (@gpufleet)
extends_documentation_fragment:
  - gpufleet.metal.secret_store
description:
  - Reads values from the store that C(fleet_secret_store) describes. It never makes or changes one.
  - Use it where a role is given its variables, and give the task C(no_log) unless the role does that itself.
options:
  _terms:
    description:
      - Names of secrets, as in C(fleet_secrets).
    type: list
    elements: str
    required: true
  versions:
    description:
      - Which versions are returned.
      - V(current) is what the fleet's own users send.
      - V(accepted) is a list of what consumers accept now, the current one first; two while a rotation is under way.
      - V(refused) is a list of what consumers must refuse now, empty unless a rotation is about to prove that.
    type: str
    choices:
      - current
      - accepted
      - refused
    default: current
  field:
    description:
      - The part of a value that has several, as V(private_key), V(public_key) and V(kid) of a key pair.
      - Without it, a value of several parts is a dictionary, and one of a single part is a text.
    type: str
  store:
    vars:
      - name: fleet_secret_store
seealso:
  - module: gpufleet.metal.secret_rotate
  - module: gpufleet.metal.secret_store
"""

EXAMPLES = r"""
- name: Let the gateway accept the key, also the other one while it is rotated
  ansible.builtin.include_role:
    name: my_gateway
  vars:
    my_gateway_api_keys: "{{ lookup('gpufleet.metal.secret', 'gateway_api_key', versions='accepted') }}"

- name: Sign with the current key
  ansible.builtin.copy:
    content: "{{ lookup('gpufleet.metal.secret', 'jwt_signing_key', field='private_key') }}"
    dest: /etc/issuer/signing.key
    mode: "0600"
  no_log: true
"""

RETURN = r"""
_raw:
  description:
    - For each name the value, or with O(versions=accepted) and O(versions=refused) the list of values.
  type: list
  elements: raw
"""

from typing import Any

from ansible.errors import AnsibleLookupError
from ansible.plugins.lookup import LookupBase

from ansible_collections.gpufleet.metal.plugins.module_utils._errors import FleetError, InvalidInputError
from ansible_collections.gpufleet.metal.plugins.module_utils._secrets import rotation
from ansible_collections.gpufleet.metal.plugins.module_utils._secrets.document import Document, Version
from ansible_collections.gpufleet.metal.plugins.plugin_utils._plain import plain
from ansible_collections.gpufleet.metal.plugins.plugin_utils._secret_stores import Controller, open_store


class LookupModule(LookupBase):
    """What Ansible loads."""

    def run(self, terms: list[Any], variables: dict[str, Any] | None = None, **kwargs: Any) -> list[Any]:
        """Return the asked versions of each secret."""
        self.set_options(var_options=variables, direct=kwargs)
        controller = Controller(self._loader, self._templar, variables or {})
        store = self.get_option("store")
        if self._templar is not None:
            # From a variable it comes as it is written there.
            store = self._templar.template(store)
        try:
            document = open_store(plain(store), controller).read()
            return [
                _values(document, str(term), self.get_option("versions"), self.get_option("field")) for term in terms
            ]
        except FleetError as fault:
            raise AnsibleLookupError(str(fault)) from fault


def _values(document: Document, name: str, versions: str, field: str | None) -> Any:
    secret = document.secrets.get(name)
    if secret is None:
        raise InvalidInputError(
            f"the store has no secret {name!r}: name it in fleet_secrets and run gpufleet.metal.rotate_secrets"
        )
    if versions == "current":
        return _value(name, secret.current, field)
    chosen = rotation.accepted(secret) if versions == "accepted" else rotation.refused(secret)
    return [_value(name, version, field) for version in chosen]


def _value(name: str, version: Version, field: str | None) -> Any:
    value = dict(version.value)
    if field is None:
        return value["value"] if set(value) == {"value"} else value
    if field not in value:
        raise InvalidInputError(f"the secret {name!r} has no field {field!r}, it has {', '.join(sorted(value))}")
    return value[field]
