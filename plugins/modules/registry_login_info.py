#!/usr/bin/python
# SPDX-License-Identifier: Apache-2.0 OR GPL-3.0-or-later
# Apache-2.0, or at your option the GNU General Public License v3.0+ (https://www.gnu.org/licenses/gpl-3.0.txt)
"""Prove which logins a registry takes."""

from __future__ import annotations

DOCUMENTATION = r"""
module: registry_login_info
short_description: Prove which logins an image registry takes
version_added: 0.1.0
description:
  - Has the Docker engine of the host log in to a registry with each login, as C(docker login) does, and compares what
    comes back with what is wanted. Nothing is stored.
  - With O(url) the host itself asks, and sends each login as containerd does; no Docker engine is needed.
  - It is the proof that a rotation of a registry's logins wants, and never fails because of what it finds.
  - Changes nothing.
author:
  - gpufleet.metal contributors (@gpufleet)
options:
  registry:
    description: The registry as it stands in an image's reference, C(host) or C(host:port).
    type: str
    required: true
  accepted:
    description: Logins that are to be taken, each with C(username) and C(password).
    type: list
    elements: dict
    default: []
    suboptions: &login
      username:
        description: The user.
        type: str
        required: true
      password:
        description: The password or access token.
        type: str
        required: true
  refused:
    description: Logins that are to be refused.
    type: list
    elements: dict
    default: []
    suboptions: *login
  wait_seconds:
    description:
      - How long to ask again while there is a fault. Who keeps the registry's users may be at it at the same moment.
    type: float
    default: 0
  docker_socket:
    description: The Docker engine's socket.
    type: path
    default: /var/run/docker.sock
  url:
    description:
      - The server that answers for the registry, as in C(kubernetes_registries). It is asked at C(/v2/), with the login
        as basic authentication, which is what containerd sends with each request. It is asked without a proxy.
    type: str
  ca_path:
    description: A file with the authority that the server's certificate is trusted by, instead of the system's.
    type: path
extends_documentation_fragment:
  - gpufleet.metal.read_only
seealso:
  - module: gpufleet.metal.registry_logins
  - module: gpufleet.metal.secret_rotate
"""

EXAMPLES = r"""
- name: Prove that the registry takes both logins, and no more the one before
  gpufleet.metal.registry_login_info:
    registry: registry.example.org
    accepted: "{{ rotation_accepted }}"
    refused: "{{ rotation_refused }}"
  register: proof
  failed_when: proof.faults | length > 0
  no_log: true

- name: Prove it on a node of a cluster
  gpufleet.metal.registry_login_info:
    registry: registry.example.org
    url: https://registry.example.org
    ca_path: /etc/containerd/certs.d/registry.example.org/ca.crt
    accepted: "{{ rotation_accepted }}"
    refused: "{{ rotation_refused }}"
  register: proof
  failed_when: proof.faults | length > 0
  no_log: true
"""

RETURN = r"""
faults:
  description: A sentence for each login that was not answered as wanted, without the login.
  returned: always
  type: list
  elements: str
  sample: ["credential 1 of 1 to be refused: answered 200, wanted 401"]
"""

from collections.abc import Callable, Mapping
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.gpufleet.metal.plugins.module_utils._credentials import login_status, wait_for_credentials
from ansible_collections.gpufleet.metal.plugins.module_utils._docker import DockerClient
from ansible_collections.gpufleet.metal.plugins.module_utils._errors import FleetError
from ansible_collections.gpufleet.metal.plugins.module_utils._kubernetes.containerd import api_root
from ansible_collections.gpufleet.metal.plugins.module_utils._no_log import mask_only
from ansible_collections.gpufleet.metal.plugins.module_utils._probe import Target

LOGIN: dict[str, Any] = {
    "username": {"type": "str", "required": True},
    "password": {"type": "str", "required": True, "no_log": True},
}


def asker(options: Mapping[str, Any]) -> Callable[[dict[str, str]], int | str]:
    """Return what asks the registry with one login: 200, 401, or why neither came. Raises InvalidInputError."""
    if options["url"]:
        target = Target(url=api_root(options["registry"], options["url"]), ca_path=options["ca_path"])
        return lambda login: login_status(target, login["username"], login["password"])
    client = DockerClient(options["docker_socket"])

    def ask(login: dict[str, str]) -> int | str:
        status, said = client.login_status({**login, "serveraddress": options["registry"]})
        return status if status in (200, 401) else f"the engine answered {status} ({said})"

    return ask


def main() -> None:
    """Run as an Ansible module."""
    logins = {"type": "list", "elements": "dict", "default": [], "no_log": True, "options": LOGIN}
    module = AnsibleModule(
        argument_spec={
            "registry": {"type": "str", "required": True},
            "accepted": logins,
            "refused": logins,
            "wait_seconds": {"type": "float", "default": 0},
            "docker_socket": {"type": "path", "default": "/var/run/docker.sock"},
            "url": {"type": "str"},
            "ca_path": {"type": "path"},
        },
        required_by={"ca_path": "url"},
        supports_check_mode=True,
    )
    options = module.params
    mask_only(module, [login["password"] for login in options["accepted"] + options["refused"]])
    try:
        ask = asker(options)
        faults = wait_for_credentials(options["accepted"], options["refused"], ask, options["wait_seconds"])
    except FleetError as error:
        module.fail_json(msg=str(error))
    else:
        module.exit_json(changed=False, faults=faults)


if __name__ == "__main__":
    main()
