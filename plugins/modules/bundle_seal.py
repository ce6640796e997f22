#!/usr/bin/python
# SPDX-License-Identifier: Apache-2.0 OR GPL-3.0-or-later
# Apache-2.0, or at your option the GNU General Public License v3.0+ (https://www.gnu.org/licenses/gpl-3.0.txt)
"""Index and sign a bundle's repositories, and write its papers."""

from __future__ import annotations

DOCUMENTATION = r"""
module: bundle_seal
short_description: Index and sign a bundle's repositories, and write its papers
version_added: 0.1.0
description:
  - Writes the index of each repository and signs it with a key that is made on first use and stays outside of the
    bundle.
  - Reads every file, and writes C(bundle.json), which says what the bundle holds, and C(SHA256SUMS). A bundle without
    these is not whole.
  - A file of an image that is not what its name says, or a file that is missing, stops it.
author:
  - gpufleet.metal contributors (@gpufleet)
options:
  directory:
    description: The bundle.
    type: path
    required: true
  work:
    description: Where the signing key is kept, outside of the bundle.
    type: path
    required: true
  systems:
    description: By builder its system, as P(gpufleet.metal.bundle_needs#filter) returns them.
    type: dict
    required: true
  described:
    description: What the bundle is for. It becomes C(bundle.json), with the files' digests.
    type: dict
    required: true
attributes:
  check_mode:
    description: Says whether the papers would change. A bundle that lacks files is not looked at closer.
    support: full
  diff_mode:
    description: Shows no difference.
    support: none
"""

EXAMPLES = r"""
- name: Seal the bundle
  gpufleet.metal.bundle_seal:
    directory: /var/lib/gpufleet-bundle/bundle
    work: /var/lib/gpufleet-bundle/work
    systems: "{{ needs.systems }}"
    described: {fleet: prod, images: [], files: [], kubernetes_version: null, engine_image: null, settings: {}}
"""

RETURN = r"""
sums_sha256:
  description: Digest of C(SHA256SUMS). Null in check mode where the bundle is not whole yet.
  type: str
  returned: success
"""

import hashlib
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.gpufleet.metal.plugins.module_utils import _commands
from ansible_collections.gpufleet.metal.plugins.module_utils._bundle import builder, document
from ansible_collections.gpufleet.metal.plugins.module_utils._errors import FleetError


def run(options: dict[str, Any], check_mode: bool, runner: _commands.Runner) -> dict[str, Any]:
    """Seal the bundle; returns the module's result."""
    directory = options["directory"]
    if check_mode:
        try:
            document.read(directory, document.SUMS)
        except document.BundleError:
            return {"changed": True, "sums_sha256": None}
    repositories = builder.Repositories(runner, directory, options["work"])
    changed = False
    listed: dict[str, dict[str, Any]] = {}
    key = repositories.key()
    for system in options["systems"].values():
        for entry in system["repositories"]:
            if not check_mode:
                changed = repositories.index(entry, system["architecture"], key) or changed
            listed[f"{entry['base']} {entry['suite']}"] = {
                name: entry[name] for name in ("name", "base", "suite", "components")
            }
    described = {
        **options["described"],
        "systems": {system["name"]: system["architecture"] for system in options["systems"].values()},
        "repositories": [listed[name] for name in sorted(listed)],
        "key_sha256": hashlib.sha256(key.encode()).hexdigest(),
    }
    sealed, sums = builder.seal(directory, described, check_mode)
    return {"changed": changed or sealed, "sums_sha256": hashlib.sha256(sums.encode()).hexdigest()}


def main() -> None:
    """Run as an Ansible module."""
    module = AnsibleModule(
        argument_spec={
            "directory": {"type": "path", "required": True},
            "work": {"type": "path", "required": True},
            "systems": {"type": "dict", "required": True},
            "described": {"type": "dict", "required": True},
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
