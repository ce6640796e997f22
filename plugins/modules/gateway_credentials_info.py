#!/usr/bin/python
# SPDX-License-Identifier: Apache-2.0 OR GPL-3.0-or-later
# Apache-2.0, or at your option the GNU General Public License v3.0+ (https://www.gnu.org/licenses/gpl-3.0.txt)
"""Prove which credentials a gateway takes."""

from __future__ import annotations

DOCUMENTATION = r"""
module: gateway_credentials_info
short_description: Prove which credentials a gateway takes
version_added: 0.1.0
description:
  - Asks a gateway with each credential, an API key or a token, and compares what it answers with what is wanted.
    No engine is asked.
  - It is the proof that a rotation of secrets wants of a gateway, and never fails because of what it finds.
  - Changes nothing. Needs only Python's standard library.
author:
  - gpufleet.metal contributors (@gpufleet)
options:
  url:
    description:
      - Base URL of the gateway, without C(/v1).
    type: str
    required: true
  path:
    description:
      - What to ask for; anything that every known client may see.
    type: str
    default: /v1/models
  accepted:
    description:
      - Credentials that are to be answered with 200.
    type: list
    elements: str
    default: []
  refused:
    description:
      - Credentials that are to be answered with 401.
    type: list
    elements: str
    default: []
  ca_path:
    description:
      - File with the certificates to trust, in PEM, which may be the gateway's own. Without it the system's are used.
    type: path
  resolve:
    description:
      - Addresses to connect to, by the host name in O(url), so that a name needs no DNS.
    type: dict
    default: {}
  timeout:
    description:
      - Seconds that one request may take in all.
    type: float
    default: 10
  wait_seconds:
    description:
      - How long to ask again while there is a fault. A gateway that fetches its key set may learn of a new key late.
    type: float
    default: 0
extends_documentation_fragment:
  - gpufleet.metal.read_only
seealso:
  - module: gpufleet.metal.secret_rotate
  - plugin: gpufleet.metal.signed_token
    plugin_type: filter
"""

EXAMPLES = r"""
- name: Prove that the gateway takes both keys, and no more the one before
  gpufleet.metal.gateway_credentials_info:
    url: https://llm.example.org
    accepted: "{{ rotation_accepted }}"
    refused: "{{ rotation_refused }}"
    ca_path: /etc/gpufleet/pki/gateway.crt
    resolve: {llm.example.org: 192.0.2.20}
  register: rotation_proof
  failed_when: rotation_proof.faults | length > 0
  no_log: true
"""

RETURN = r"""
faults:
  description: A sentence for each credential that was not answered as wanted, without the credential.
  returned: always
  type: list
  elements: str
  sample: ["credential 2 of 2 to be accepted: answered 401, wanted 200"]
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.gpufleet.metal.plugins.module_utils._credentials import status_of, wait_for_credentials
from ansible_collections.gpufleet.metal.plugins.module_utils._errors import FleetError
from ansible_collections.gpufleet.metal.plugins.module_utils._probe import Target


def argument_spec() -> dict[str, Any]:
    """The module's options, as in DOCUMENTATION."""
    return {
        "url": {"type": "str", "required": True},
        "path": {"type": "str", "default": "/v1/models"},
        "accepted": {"type": "list", "elements": "str", "default": [], "no_log": True},
        "refused": {"type": "list", "elements": "str", "default": [], "no_log": True},
        "ca_path": {"type": "path"},
        "resolve": {"type": "dict", "default": {}},
        "timeout": {"type": "float", "default": 10},
        "wait_seconds": {"type": "float", "default": 0},
    }


def main() -> None:
    """Run as an Ansible module."""
    module = AnsibleModule(argument_spec=argument_spec(), supports_check_mode=True)
    options = module.params
    target = Target(
        url=options["url"], ca_path=options["ca_path"], resolve=options["resolve"], timeout=options["timeout"]
    )
    try:
        faults = wait_for_credentials(
            options["accepted"],
            options["refused"],
            lambda credential: status_of(target, options["path"], credential),
            options["wait_seconds"],
        )
    except FleetError as error:
        module.fail_json(msg=str(error))
    else:
        module.exit_json(changed=False, faults=faults)


if __name__ == "__main__":
    main()
