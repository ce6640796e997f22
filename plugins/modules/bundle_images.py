#!/usr/bin/python
# SPDX-License-Identifier: Apache-2.0 OR GPL-3.0-or-later
# Apache-2.0, or at your option the GNU General Public License v3.0+ (https://www.gnu.org/licenses/gpl-3.0.txt)
"""Have the images of a bundle, by digest."""

from __future__ import annotations

DOCUMENTATION = r"""
module: bundle_images
short_description: Have the images of a bundle by digest, each in a directory
version_added: 0.1.0
description:
  - Copies images with skopeo into its format C(dir), with all their platforms, so that every digest stays what it is,
    whatever type a manifest has.
  - An image that has to be signed is verified with cosign and the operator's key before it is copied, and its signature
    travels with it.
  - An image has its place in the bundle only when it is whole. A run that was killed goes on with the image it was at.
author:
  - gpufleet.metal contributors (@gpufleet)
options:
  directory:
    description: The bundle.
    type: path
    required: true
  images:
    description: The images, as P(gpufleet.metal.bundle_needs#filter) returns them.
    type: list
    elements: dict
    required: true
  authfile:
    description: A Docker client's configuration with the registries' credentials. One that does not exist is none.
    type: path
    default: /root/.docker/config.json
  cosign_program:
    description: The program cosign.
    type: str
    default: cosign
  cosign_key:
    description: The operator's public key, needed where an image has to be signed.
    type: path
attributes:
  check_mode:
    description: Says whether an image would be copied or removed. No registry is asked.
    support: full
  diff_mode:
    description: Shows no difference.
    support: none
"""

EXAMPLES = r"""
- name: Have an image
  gpufleet.metal.bundle_images:
    directory: /var/lib/gpufleet-bundle/bundle
    images:
      - names: [registry.k8s.io/pause:3.10.1]
        digest: sha256:98a6514a15f5bd499b69f9e6be2b42c59dbaceec8db1db3f337a6f66546c481a
        source: registry.k8s.io/pause
        place: images/98a6514a15f5bd499b69f9e6be2b42c59dbaceec8db1db3f337a6f66546c481a
        signed: false
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

import shutil
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.gpufleet.metal.plugins.module_utils import _commands
from ansible_collections.gpufleet.metal.plugins.module_utils._bundle import document
from ansible_collections.gpufleet.metal.plugins.module_utils._bundle.builder import Cosign, Images
from ansible_collections.gpufleet.metal.plugins.module_utils._errors import FleetError


def run(options: dict[str, Any], check_mode: bool, runner: _commands.Runner) -> dict[str, Any]:
    """Have the images; returns the module's result."""
    images = Images(runner, options["directory"], options["authfile"])
    lacking = images.lacking(options["images"])
    strays = images.strays(options["images"])
    verified: list[str] = []
    if (lacking or strays) and not check_mode:
        document.unseal(options["directory"])
        cosign = None
        if any(entry["signed"] for entry in lacking):
            cosign = Cosign(runner, options["cosign_program"], options["cosign_key"] or "")
            cosign.require()
        for path in strays:
            shutil.rmtree(path)
        for entry in lacking:
            if cosign is not None and entry["signed"]:
                cosign.verify(f"{entry['source']}@{entry['digest']}", entry["names"][0])
                verified.append(entry["names"][0])
            images.fetch(entry)
    return {
        "changed": bool(lacking or strays),
        "copied": [entry["names"][0] for entry in lacking],
        "verified": verified,
    }


def main() -> None:
    """Run as an Ansible module."""
    module = AnsibleModule(
        argument_spec={
            "directory": {"type": "path", "required": True},
            "images": {"type": "list", "elements": "dict", "required": True},
            "authfile": {"type": "path", "default": "/root/.docker/config.json"},
            "cosign_program": {"type": "str", "default": "cosign"},
            "cosign_key": {"type": "path", "no_log": False},
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
