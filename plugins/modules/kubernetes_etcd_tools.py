#!/usr/bin/python
# SPDX-License-Identifier: Apache-2.0 OR GPL-3.0-or-later
# Apache-2.0, or at your option the GNU General Public License v3.0+ (https://www.gnu.org/licenses/gpl-3.0.txt)
"""Bring etcdctl and etcdutl to a control plane."""

from __future__ import annotations

DOCUMENTATION = r"""
module: kubernetes_etcd_tools
short_description: Bring etcdctl and etcdutl to a control plane
version_added: 0.1.0
description:
  - Puts both into C(/usr/local/lib/gpufleet/etcd), out of the image that etcd runs from, or out of an archive.
  - The image is mounted for reading and never run. Where it is not there yet it is pulled by CRI, with its mirrors.
author:
  - gpufleet.metal contributors (@gpufleet)
options:
  source:
    description:
      - V(image), or the URL of an archive (C(.tar.gz)) as the project of etcd releases it.
    type: str
    default: image
  sha256:
    description:
      - SHA-256 of the archive.
    type: str
  version:
    description:
      - Version of Kubernetes, whose kubeadm names the image on a host that has no etcd yet.
    type: str
  image_repository:
    description:
      - Where kubeadm's images come from.
    type: str
attributes:
  check_mode:
    description: Says whether they would be brought.
    support: full
  diff_mode:
    description: There is nothing to show.
    support: none
"""

EXAMPLES = r"""
- name: Bring the tools that fit the etcd that runs here
  gpufleet.metal.kubernetes_etcd_tools:
"""

RETURN = r"""
version:
  description: Version of etcdutl, null where it would only be brought.
  type: str
  returned: success
origin:
  description: What they were made of.
  type: str
  returned: success
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.gpufleet.metal.plugins.module_utils._commands import runner
from ansible_collections.gpufleet.metal.plugins.module_utils._errors import FleetError
from ansible_collections.gpufleet.metal.plugins.module_utils._kubernetes.etcd_tools import Tools


def argument_spec() -> dict[str, Any]:
    """The module's options, as in DOCUMENTATION."""
    return {
        "source": {"type": "str", "default": "image"},
        "sha256": {"type": "str"},
        "version": {"type": "str"},
        "image_repository": {"type": "str"},
    }


def bring(tools: Tools, options: dict[str, Any], check_mode: bool) -> dict[str, Any]:
    """Do what is asked for; returns the module's result."""
    try:
        origin = tools.origin(options["source"], options["sha256"], options["version"], options["image_repository"])
    except FleetError:
        # In check mode kubeadm itself may only come.
        if not check_mode:
            raise
        return {"changed": True, "origin": None, "version": None}
    changed = tools.installed() != origin
    if changed and not check_mode:
        tools.install(options["source"], options["sha256"], origin)
    version = tools.version()
    if version is None and not check_mode:
        raise FleetError(f"etcdutl from {origin} says no version, wanted one of this host's architecture")
    return {"changed": changed, "origin": origin, "version": version}


def main() -> None:
    """Run as an Ansible module."""
    module = AnsibleModule(argument_spec=argument_spec(), supports_check_mode=True)
    try:
        result = bring(Tools(runner(module)), module.params, module.check_mode)
    except FleetError as error:
        module.fail_json(msg=str(error))
    else:
        module.exit_json(**result)


if __name__ == "__main__":
    main()
