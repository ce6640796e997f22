#!/usr/bin/python
# Copyright (c) gpufleet.metal contributors
# Apache-2.0, or at your option the GNU General Public License v3.0+ (https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: Apache-2.0 OR GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: service_info
short_description: Tell in one round trip what a systemd service and the files that it stands on are like
version_added: 0.1.0
description:
  - Looks at a unit, its programs and files, at who may read its keys, at the host's addresses and at who listens.
    Changes nothing, and never fails because of what it finds.
author:
  - gpufleet.metal contributors (@gpufleet)
options:
  unit:
    description: The unit, with its suffix.
    type: str
    required: true
  user:
    description: The user that the service runs as, returned as it is for who compares it with owners.
    type: str
    required: true
  programs:
    description: Programs that it needs.
    type: list
    elements: path
    default: []
  files:
    description: Files that it needs.
    type: list
    elements: path
    default: []
  keys:
    description: Files whose owner and mode are read.
    type: list
    elements: path
    default: []
  port:
    description: TCP port at which somebody may listen.
    type: int
    required: true
attributes:
  check_mode:
    description: Runs the same way in check mode.
    support: full
  diff_mode:
    description: There is nothing to compare.
    support: none
"""

EXAMPLES = r"""
- name: Look at the exporter
  gpufleet.metal.service_info:
    unit: prometheus-node-exporter.service
    user: prometheus
    programs: [/usr/bin/prometheus-node-exporter]
    keys: [/etc/gpufleet/node_exporter/tls.key]
    port: 9100
  register: __exporter
"""

RETURN = r"""
service:
  description: What was found.
  returned: always
  type: dict
  contains:
    user:
      description: O(user).
      type: str
      sample: prometheus
    unit:
      description:
        - Whether it is enabled and whether it is active, as systemd says it; C(absent) for one that it does not know.
      type: str
      sample: enabled active
    missing:
      description: O(programs) that are not there or can't be run.
      type: list
      elements: str
    absent:
      description: O(files) that are not there.
      type: list
      elements: str
    keys:
      description: Owner and mode of each of O(keys), null where there is no such file.
      type: dict
      sample: {/etc/gpufleet/node_exporter/tls.key: prometheus 600}
    addresses:
      description: Addresses of this host that other hosts could know, without link-local ones.
      type: list
      elements: str
      sample: [127.0.0.1, 198.51.100.11]
    listening:
      description: Addresses at which somebody listens at O(port), each with it.
      type: list
      elements: str
      sample: ["198.51.100.11:9100"]
"""

import json
import os
import pwd
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.gpufleet.metal.plugins.module_utils._commands import Runner, runner


def unit_state(run: Runner, unit: str) -> str:
    """Return 'enabled active', or what it is instead."""
    shown = run(["systemctl", "show", "--property=UnitFileState,ActiveState", unit])[1]
    properties = dict(line.partition("=")[::2] for line in shown.splitlines())
    return f"{properties.get('UnitFileState') or 'absent'} {properties.get('ActiveState') or 'unknown'}"


def addresses(run: Runner) -> list[str]:
    """Return the addresses of this host, without link-local ones."""
    links = json.loads(run(["ip", "-json", "address", "show"])[1] or "[]")
    return [one["local"] for link in links for one in link.get("addr_info", []) if one["scope"] != "link"]


def listening(run: Runner, port: int) -> list[str]:
    """Return where somebody listens at a port."""
    lines = run(["ss", "--listening", "--tcp", "--numeric", "--no-header", f"sport = :{port}"])[1].splitlines()
    return sorted(line.split()[3] for line in lines)


def rights(path: str) -> str | None:
    """Return owner and mode of a file; None where there is none. An owner without a name is a number."""
    try:
        found = os.stat(path)
    except FileNotFoundError:
        return None
    try:
        owner = pwd.getpwuid(found.st_uid).pw_name
    except KeyError:
        owner = str(found.st_uid)
    return f"{owner} {found.st_mode & 0o7777:o}"


def look(run: Runner, question: dict[str, Any]) -> dict[str, Any]:
    """Return RETURN's ``service``."""
    return {
        "user": question["user"],
        "unit": unit_state(run, question["unit"]),
        "missing": [path for path in question["programs"] if not os.access(path, os.X_OK)],
        "absent": [path for path in question["files"] if not os.path.exists(path)],
        "keys": {path: rights(path) for path in question["keys"]},
        "addresses": addresses(run),
        "listening": listening(run, question["port"]),
    }


def main() -> None:
    """Entry point of the module."""
    paths = {"type": "list", "elements": "path", "default": []}
    module = AnsibleModule(
        argument_spec={
            "unit": {"type": "str", "required": True},
            "user": {"type": "str", "required": True},
            "programs": paths,
            "files": paths,
            "keys": {**paths, "no_log": False},
            "port": {"type": "int", "required": True},
        },
        supports_check_mode=True,
    )
    module.exit_json(changed=False, service=look(runner(module), module.params))


if __name__ == "__main__":
    main()
