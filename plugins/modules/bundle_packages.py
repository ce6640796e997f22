#!/usr/bin/python
# SPDX-License-Identifier: Apache-2.0 OR GPL-3.0-or-later
# Apache-2.0, or at your option the GNU General Public License v3.0+ (https://www.gnu.org/licenses/gpl-3.0.txt)
"""Have the packages of a bundle for the release that this host runs."""

from __future__ import annotations

DOCUMENTATION = r"""
module: bundle_packages
short_description: Have packages and all that they depend on, for the release that this host runs
version_added: 0.1.0
description:
  - Asks this host's apt which files each set of packages takes on a host that has none, downloads those that are not
    there, and compares each with the SHA-256 of apt's signed index.
  - A run that was killed goes on where it ended. Files that nothing asks for any more are removed.
  - The repositories have to be described, and apt's index has to be up to date.
author:
  - gpufleet.metal contributors (@gpufleet)
options:
  directory:
    description: The bundle.
    type: path
    required: true
  work:
    description: Where downloads are kept between builds, outside of the bundle.
    type: path
    required: true
  system:
    description: The name of this host's release in the bundle, such as V(debian13).
    type: str
    required: true
  sets:
    description: The sets. What is in different sets may exclude each other.
    type: list
    elements: dict
    required: true
    suboptions:
      name:
        description: What the packages are for, shown when apt cannot have them.
        type: str
        required: true
      packages:
        description: Names, or C(name=version) with C(*) in the version.
        type: list
        elements: str
        required: true
  repositories:
    description:
      - The repositories, as P(gpufleet.metal.bundle_needs#filter) returns them. The one without an address takes what
        comes from anywhere else.
    type: list
    elements: dict
    required: true
attributes:
  check_mode:
    description: Says whether something would be downloaded or removed.
    support: full
  diff_mode:
    description: Shows no difference.
    support: none
"""

EXAMPLES = r"""
- name: Have a package with all that it depends on
  gpufleet.metal.bundle_packages:
    directory: /var/lib/gpufleet-bundle/bundle
    work: /var/lib/gpufleet-bundle/work
    system: debian13
    sets:
      - {name: tools, packages: [jq]}
    repositories:
      - {name: distribution, uri: "", suite: /, base: distribution/debian13, components: []}
"""

RETURN = r"""
files:
  description: How many files there are.
  type: int
  returned: success
bytes:
  description: How large they are together.
  type: int
  returned: success
fingerprint:
  description: A digest of all names and digests, to see whether another host has the same files.
  type: str
  returned: success
"""

import hashlib
import os
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.gpufleet.metal.plugins.module_utils import _commands
from ansible_collections.gpufleet.metal.plugins.module_utils._bundle import apt, document
from ansible_collections.gpufleet.metal.plugins.module_utils._bundle.builder import Packages
from ansible_collections.gpufleet.metal.plugins.module_utils._errors import FleetError

SET: dict[str, Any] = {
    "name": {"type": "str", "required": True},
    "packages": {"type": "list", "elements": "str", "required": True},
}


def run(options: dict[str, Any], check_mode: bool, runner: _commands.Runner) -> dict[str, Any]:
    """Have the packages; returns the module's result."""
    packages = Packages(runner, options["directory"], options["work"])
    wanted = apt.union(packages.resolve(options["sets"]))
    targets = packages.targets(wanted.values(), options["repositories"])
    missing = packages.missing(targets)
    strays = packages.strays(targets, options["repositories"], options["system"])
    if (missing or strays) and not check_mode:
        document.unseal(options["directory"])
        if missing:
            packages.fetch(options["sets"], targets)
        for path in strays:
            os.unlink(path)
    names = "".join(f"{deb.sha256} {os.path.basename(path)}\n" for path, deb in sorted(targets.items()))
    return {
        "changed": bool(missing or strays),
        "files": len(targets),
        "bytes": sum(deb.size for deb in targets.values()),
        "fingerprint": hashlib.sha256(names.encode()).hexdigest(),
    }


def main() -> None:
    """Run as an Ansible module."""
    module = AnsibleModule(
        argument_spec={
            "directory": {"type": "path", "required": True},
            "work": {"type": "path", "required": True},
            "system": {"type": "str", "required": True},
            "sets": {"type": "list", "elements": "dict", "required": True, "options": SET},
            "repositories": {"type": "list", "elements": "dict", "required": True},
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
