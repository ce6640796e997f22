#!/usr/bin/python
# SPDX-License-Identifier: Apache-2.0 OR GPL-3.0-or-later
# Apache-2.0, or at your option the GNU General Public License v3.0+ (https://www.gnu.org/licenses/gpl-3.0.txt)
"""Bring the Secrets of a cluster under one key, and prove it by what lies in etcd."""

from __future__ import annotations

DOCUMENTATION = r"""
module: kubernetes_encryption
short_description: Bring the Secrets of a cluster under one key, and prove it by what lies in etcd
version_added: 0.1.0
description:
  - For a control plane, with the credentials that kubeadm has left there for root.
author:
  - gpufleet.metal contributors (@gpufleet)
options:
  action:
    description:
      - V(loaded) waits until this host's API server has loaded O(path), and proves by a Secret of its own, read in
        etcd, that it writes with the first of O(keys).
      - V(written) has every Secret that lies under another key, or none, written anew, and proves that none is left and
        that each can be read.
    type: str
    choices: [loaded, written]
    required: true
  keys:
    description:
      - The keys that API servers accept. The first one encrypts.
    type: list
    elements: str
    required: true
  address:
    description:
      - Address of this host's own API server.
    type: str
    required: true
  port:
    description:
      - Its port.
    type: int
    default: 6443
  path:
    description:
      - The encryption configuration that it reads.
    type: path
    default: /etc/kubernetes/gpufleet/encryption.yaml
  kubeconfig:
    description:
      - An administrator's credentials.
    type: path
    default: /etc/kubernetes/admin.conf
  etcd_endpoint:
    description:
      - Where the local member of etcd answers.
    type: str
    default: https://127.0.0.1:2379
  deadline_seconds:
    description:
      - How long the API server may take to load the configuration. It looks once a minute.
    type: int
    default: 180
attributes:
  check_mode:
    description: Waits for nothing and writes nothing; says how many Secrets are under other keys.
    support: full
  diff_mode:
    description: There is nothing to show.
    support: none
"""

EXAMPLES = r"""
- name: Have every Secret under the first key
  gpufleet.metal.kubernetes_encryption:
    action: written
    keys: "{{ lookup('gpufleet.metal.secret', 'kubernetes_encryption_key', versions='accepted') }}"
    address: 192.0.2.11
  no_log: true
"""

RETURN = r"""
rewritten:
  description: How many Secrets were written anew, or would be.
  type: int
  returned: success
secrets:
  description: How many Secrets were found under the first key, and read.
  type: int
  returned: when O(action=written)
"""

import os
import secrets
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.gpufleet.metal.plugins.module_utils._commands import runner
from ansible_collections.gpufleet.metal.plugins.module_utils._errors import FleetError, InvalidInputError
from ansible_collections.gpufleet.metal.plugins.module_utils._kubernetes import api, encryption, etcd
from ansible_collections.gpufleet.metal.plugins.module_utils._kubernetes.kubeadm import key_name

PKI = "/etc/kubernetes/pki"


def argument_spec() -> dict[str, Any]:
    """The module's options, as in DOCUMENTATION."""
    return {
        "action": {"type": "str", "choices": ["loaded", "written"], "required": True},
        "keys": {"type": "list", "elements": "str", "required": True, "no_log": True},
        "address": {"type": "str", "required": True},
        "port": {"type": "int", "default": 6443},
        "path": {"type": "path", "default": "/etc/kubernetes/gpufleet/encryption.yaml"},
        "kubeconfig": {"type": "path", "default": "/etc/kubernetes/admin.conf"},
        "etcd_endpoint": {"type": "str", "default": "https://127.0.0.1:2379"},
        "deadline_seconds": {"type": "int", "default": 180},
    }


def act(
    server: encryption.Server, stored: encryption.Stored, options: dict[str, Any], content: bytes, check_mode: bool
) -> dict[str, Any]:
    """Do what is asked for; returns the module's result."""
    wanted = key_name(options["keys"][0])
    if check_mode:
        others = [key for name, keys in encryption.by_key(stored).items() if name != wanted for key in keys]
        needed = len(others) if options["action"] == "written" else 0
        return {"changed": needed > 0, "rewritten": needed}
    if options["action"] == "loaded":
        encryption.wait_loaded(server, content, options["deadline_seconds"])
        encryption.probe(server, stored, wanted, secrets.token_hex(6))
        return {"changed": False, "rewritten": 0}
    count = encryption.rewrite(server, stored, wanted)
    return {"changed": count > 0, "rewritten": count, "secrets": encryption.prove(server, stored, wanted)}


def read(path: str) -> bytes:
    """Return the configuration. Raises InvalidInputError."""
    if not os.path.isfile(path):
        raise InvalidInputError(f"found no file {path}, wanted the encryption configuration of a control plane")
    with open(path, "rb") as stream:
        return stream.read()


def main() -> None:
    """Run as an Ansible module."""
    module = AnsibleModule(argument_spec=argument_spec(), supports_check_mode=True)
    options = module.params
    address = f"[{options['address']}]" if ":" in options["address"] else options["address"]
    try:
        if not options["keys"]:
            raise InvalidInputError("keys: found none, wanted the keys that API servers accept")
        server = api.connect(options["kubeconfig"], runner(module), f"https://{address}:{options['port']}")
        stored = etcd.connect(
            options["etcd_endpoint"],
            f"{PKI}/etcd/ca.crt",
            f"{PKI}/apiserver-etcd-client.crt",
            f"{PKI}/apiserver-etcd-client.key",
        )
        result = act(server, stored, options, read(options["path"]), module.check_mode)
    except FleetError as error:
        module.fail_json(msg=str(error))
    else:
        module.exit_json(**result)


if __name__ == "__main__":
    main()
