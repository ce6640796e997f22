#!/usr/bin/python
# SPDX-License-Identifier: Apache-2.0 OR GPL-3.0-or-later
# Apache-2.0, or at your option the GNU General Public License v3.0+ (https://www.gnu.org/licenses/gpl-3.0.txt)
"""Prove that a bundle is whole, and say what it holds."""

from __future__ import annotations

DOCUMENTATION = r"""
module: bundle_info
short_description: Prove that a bundle is whole, and say what it holds
version_added: 0.1.0
description:
  - Compares every file with C(SHA256SUMS). A file that is missing, is another one, or is not named there is a fault.
  - With O(key) the signature in C(SHA256SUMS.sig) is verified first, as C(cosign sign-blob) or C(openssl dgst -sign)
    make it, with the system's openssl, because no program of the bundle is to be trusted before that.
  - Notes what it has read with size and time of change, so that a later look is quick.
author:
  - gpufleet.metal contributors (@gpufleet)
options:
  directory:
    description: The bundle.
    type: path
    required: true
  full:
    description: Whether every file is read, also those that did not change since they were read.
    type: bool
    default: false
  key:
    description: The operator's public key in PEM, on this host.
    type: path
  signature_required:
    description:
      - Whether C(SHA256SUMS.sig) has to be there. One that is there has to be good either way, if O(key) is given.
    type: bool
    default: false
  record:
    description: Where it is noted what was read.
    type: path
    default: /var/lib/gpufleet/bundle/seen.json
attributes:
  check_mode:
    description: Notes nothing.
    support: full
  diff_mode:
    description: Changes nothing.
    support: none
"""

EXAMPLES = r"""
- name: Look at a bundle
  gpufleet.metal.bundle_info:
    directory: /srv/bundle
    full: true
  register: bundle
"""

RETURN = r"""
faults:
  description: What is wrong, by file. Empty for a bundle that is whole.
  type: list
  elements: str
  returned: success
told:
  description: The faults as one text, the first twenty of them by name.
  type: str
  returned: success
bundle:
  description: C(bundle.json) without the list of its contents; empty where that file itself is wrong.
  type: dict
  returned: success
sums_sha256:
  description: Digest of C(SHA256SUMS).
  type: str
  returned: success
signed:
  description: Whether a signature of O(key) was verified.
  type: bool
  returned: success
"""

import base64
import hashlib
import json
import os
import tempfile
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.gpufleet.metal.plugins.module_utils import _commands
from ansible_collections.gpufleet.metal.plugins.module_utils._bundle import document
from ansible_collections.gpufleet.metal.plugins.module_utils._errors import FleetError


def verify_signature(directory: str, key: str, required: bool, runner: _commands.Runner) -> bool:
    """Whether there is a good signature; raises BundleError for a bad one, or for none where it is required."""
    path = os.path.join(directory, document.SIGNATURE)
    if not os.path.isfile(key):
        raise document.BundleError(f"{key} does not exist, wanted the operator's public key")
    if not os.path.isfile(path):
        if required:
            raise document.BundleError(f"{path} does not exist, wanted a signature of {document.SUMS}")
        return False
    with open(path, "rb") as stream:
        text = stream.read()
    try:
        # cosign writes base64, openssl the bytes themselves.
        raw = base64.b64decode(text.strip(), validate=True)
    except ValueError:
        raw = text
    with tempfile.NamedTemporaryFile() as signature:
        signature.write(raw)
        signature.flush()
        argv = ["openssl", "dgst", "-sha256", "-verify", key, "-signature", signature.name]
        code, out, err = runner([*argv, os.path.join(directory, document.SUMS)])
    if code != 0:
        said = " ".join([*out.split(), *err.split()])
        raise document.BundleError(
            f"{path} is no signature of {document.SUMS} by {key} ({said}); nothing of the bundle is used"
        )
    return True


def run(options: dict[str, Any], check_mode: bool, runner: _commands.Runner) -> dict[str, Any]:
    """Look at the bundle; returns the module's result."""
    directory = options["directory"]
    sums = document.read(directory, document.SUMS)
    signed = bool(options["key"]) and verify_signature(directory, options["key"], options["signature_required"], runner)
    seen = None if options["full"] else _seen(options["record"])
    found = document.verify(directory, seen)
    if not check_mode and found.seen != seen:
        _note(options["record"], found.seen)
    return {
        "changed": False,
        "faults": found.faults,
        "told": document.told(found.faults),
        "bundle": {name: value for name, value in found.document.items() if name != "contents"},
        "sums_sha256": hashlib.sha256(sums.encode()).hexdigest(),
        "signed": signed,
    }


def _seen(path: str) -> dict[str, list[Any]]:
    """What an earlier run has read; nothing where that is not to be understood, and then everything is read."""
    try:
        with open(path, encoding="utf-8") as stream:
            found = json.load(stream)
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _note(path: str, seen: dict[str, list[Any]]) -> None:
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(f"{path}.new", "w", encoding="utf-8") as stream:
        json.dump(seen, stream)
    os.replace(f"{path}.new", path)


def main() -> None:
    """Run as an Ansible module."""
    module = AnsibleModule(
        argument_spec={
            "directory": {"type": "path", "required": True},
            "full": {"type": "bool", "default": False},
            "key": {"type": "path", "no_log": False},
            "signature_required": {"type": "bool", "default": False},
            "record": {"type": "path", "default": "/var/lib/gpufleet/bundle/seen.json"},
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
