#!/usr/bin/python
# SPDX-License-Identifier: Apache-2.0 OR GPL-3.0-or-later
# Apache-2.0, or at your option the GNU General Public License v3.0+ (https://www.gnu.org/licenses/gpl-3.0.txt)
"""Have a bundle's images in a registry."""

from __future__ import annotations

DOCUMENTATION = r"""
module: bundle_registry
short_description: Have a bundle's images in a registry, each with the digest that it had outside
version_added: 0.1.0
description:
  - Copies what the registry lacks from the bundle with skopeo, and asks the registry for every digest.
  - With O(cosign_key) an image is first put below C(gpufleet-unverified/), which has to be shown to nobody, and gets
    its name only when cosign has verified its signature there.
author:
  - gpufleet.metal contributors (@gpufleet)
options:
  directory:
    description: The bundle. It has to be proved whole before, by M(gpufleet.metal.bundle_info).
    type: path
    required: true
  images:
    description: The images, as C(bundle.json) has them.
    type: list
    elements: dict
    required: true
  address:
    description: The registry, C(host:port), on the loopback, because nothing is encrypted.
    type: str
    required: true
  cosign_program:
    description: The program cosign.
    type: str
    default: cosign
  cosign_key:
    description: The operator's public key. Without it no signature is looked at.
    type: path
  unsigned_images:
    description: Images that may be without a signature although there is a key, with or without their tag.
    type: list
    elements: str
    default: []
  verify:
    description: Whether the signatures of images that are there are verified again.
    type: bool
    default: false
attributes:
  check_mode:
    description: Says which images would be copied. A registry that gives no answer has none.
    support: full
  diff_mode:
    description: Shows no difference.
    support: none
"""

EXAMPLES = r"""
- name: Fill the registry
  gpufleet.metal.bundle_registry:
    directory: /srv/bundle
    images: "{{ bundle.bundle.images }}"
    address: 127.0.0.1:5001
    cosign_key: /etc/gpufleet/cosign.pub
"""

RETURN = r"""
copied:
  description: Names of the images that were copied or would be.
  type: list
  elements: str
  returned: success
verified:
  description: Names of the images whose signature was verified in this run.
  type: list
  elements: str
  returned: success
"""

import os
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.gpufleet.metal.plugins.module_utils import _commands
from ansible_collections.gpufleet.metal.plugins.module_utils._bundle import document
from ansible_collections.gpufleet.metal.plugins.module_utils._bundle.builder import Cosign
from ansible_collections.gpufleet.metal.plugins.module_utils._bundle.registry import UNVERIFIED, Registry, unsigned
from ansible_collections.gpufleet.metal.plugins.module_utils._errors import FleetError


def run(options: dict[str, Any], check_mode: bool, runner: _commands.Runner) -> dict[str, Any]:
    """Fill the registry; returns the module's result."""
    wanted = options["images"]
    if options["cosign_key"]:
        refused = unsigned(wanted, options["unsigned_images"])
        if refused:
            raise document.BundleError(
                f"{', '.join(refused)}: the bundle has no signature, wanted one of {options['cosign_key']}, or the "
                "name in bundle_server_unsigned_images; no image was put into the registry"
            )
    registry = Registry(runner, options["address"])
    try:
        lacking = registry.lacking(wanted)
    except document.BundleError:
        if not check_mode:
            raise
        lacking = [(entry, name) for entry in wanted for name in entry["names"]]
    verified: list[str] = []
    cosign = None
    if options["cosign_key"] and not check_mode and (lacking or options["verify"]):
        cosign = Cosign(runner, options["cosign_program"], options["cosign_key"])
        cosign.require()
    if not check_mode:
        for entry, name in lacking:
            place = os.path.join(options["directory"], entry["place"])
            if cosign is not None and entry["signed"]:
                registry.push(entry, name, place, UNVERIFIED)
                registry.verify(entry, name, cosign, UNVERIFIED)
                verified.append(name)
            registry.push(entry, name, place)
    if cosign is not None and options["verify"]:
        for entry in wanted:
            for name in entry["names"] if entry["signed"] else ():
                registry.verify(entry, name, cosign)
                verified.append(name)
    return {"changed": bool(lacking), "copied": [name for _entry, name in lacking], "verified": sorted(set(verified))}


def main() -> None:
    """Run as an Ansible module."""
    module = AnsibleModule(
        argument_spec={
            "directory": {"type": "path", "required": True},
            "images": {"type": "list", "elements": "dict", "required": True},
            "address": {"type": "str", "required": True},
            "cosign_program": {"type": "str", "default": "cosign"},
            "cosign_key": {"type": "path", "no_log": False},
            "unsigned_images": {"type": "list", "elements": "str", "default": []},
            "verify": {"type": "bool", "default": False},
        },
        supports_check_mode=True,
    )
    try:
        result = run(module.params, module.check_mode, _commands.runner(module))
    except (FleetError, OSError) as error:
        module.fail_json(msg=str(error))
    else:
        module.exit_json(**result)


if __name__ == "__main__":
    main()
