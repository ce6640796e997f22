#!/usr/bin/python
# SPDX-License-Identifier: Apache-2.0 OR GPL-3.0-or-later
# Apache-2.0, or at your option the GNU General Public License v3.0+ (https://www.gnu.org/licenses/gpl-3.0.txt)
"""Store logins to image registries on a host."""

from __future__ import annotations

DOCUMENTATION = r"""
module: registry_logins
short_description: Store logins to image registries on a host
version_added: 0.1.0
description:
  - Writes logins where C(docker login) writes them, so that whatever pulls images on this host finds them. No registry
    is asked, so it works with one that is down; M(gpufleet.metal.registry_login_info) proves them.
  - What else the file holds is kept, also logins to registries that are not named.
author:
  - gpufleet.metal contributors (@gpufleet)
options:
  logins:
    description: The logins, one for each registry.
    type: list
    elements: dict
    required: true
    suboptions:
      registry:
        description: The registry as it stands in an image's reference, C(host) or C(host:port).
        type: str
        required: true
      username:
        description: The user, without a colon.
        type: str
        required: true
      password:
        description: The password or access token.
        type: str
        required: true
  path:
    description: The client's configuration.
    type: path
    default: /root/.docker/config.json
attributes:
  check_mode:
    description: Can run in check mode and return what it would without it.
    support: full
  diff_mode:
    description: Returns details on what has changed, or could change.
    support: full
    details: Shows registries, never a user or a password.
seealso:
  - module: gpufleet.metal.registry_login_info
"""

EXAMPLES = r"""
- name: Let this host pull from the fleet's registry
  gpufleet.metal.registry_logins:
    logins:
      - registry: registry.example.org
        username: pull
        password: "{{ lookup('gpufleet.metal.secret', 'registry_password') }}"
"""

RETURN = r"""
registries:
  description: The registries whose login was stored or would be.
  returned: success
  type: list
  elements: str
"""

import json
import os
import stat
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.gpufleet.metal.plugins.module_utils._docker import read_client_config, with_logins
from ansible_collections.gpufleet.metal.plugins.module_utils._errors import FleetError
from ansible_collections.gpufleet.metal.plugins.module_utils._no_log import mask_only

LOGIN: dict[str, Any] = {
    "registry": {"type": "str", "required": True},
    "username": {"type": "str", "required": True},
    "password": {"type": "str", "required": True, "no_log": True},
}


def store(logins: list[dict[str, str]], path: str, check_mode: bool) -> dict[str, Any]:
    """Store the logins; returns the module's result."""
    before = read_client_config(path)
    after = with_logins(before, logins, path)
    old, new = before.get("auths") or {}, after["auths"]
    changed = sorted(registry for registry in new if new[registry] != old.get(registry))
    is_open = os.path.exists(path) and stat.S_IMODE(os.stat(path).st_mode) != 0o600
    if (changed or is_open) and not check_mode:
        _write(path, json.dumps(after, indent=1, sort_keys=True) + "\n")
    listed = "".join(f"login to {registry}\n" for registry in changed)
    return {
        "changed": bool(changed) or is_open,
        "registries": changed,
        "diff": {"before_header": path, "after_header": path, "before": "", "after": listed},
    }


def _write(path: str, text: str) -> None:
    """Put a file that only its owner reads in place of the old one."""
    os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
    temporary = f"{path}.new"
    if os.path.exists(temporary):
        os.unlink(temporary)
    with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as stream:
        stream.write(text)
        stream.flush()
        os.fsync(stream.fileno())
    os.replace(temporary, path)


def main() -> None:
    """Run as an Ansible module."""
    module = AnsibleModule(
        argument_spec={
            "logins": {"type": "list", "elements": "dict", "required": True, "no_log": True, "options": LOGIN},
            "path": {"type": "path", "default": "/root/.docker/config.json"},
        },
        supports_check_mode=True,
    )
    mask_only(module, [login["password"] for login in module.params["logins"]])
    try:
        result = store(module.params["logins"], module.params["path"], module.check_mode)
    except (FleetError, OSError) as error:
        module.fail_json(msg=str(error))
    else:
        module.exit_json(**result)


if __name__ == "__main__":
    main()
