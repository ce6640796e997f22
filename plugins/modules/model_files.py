#!/usr/bin/python
# SPDX-License-Identifier: Apache-2.0 OR GPL-3.0-or-later
# Apache-2.0, or at your option the GNU General Public License v3.0+ (https://www.gnu.org/licenses/gpl-3.0.txt)
"""Place a model's files in a store, verified and readable, in one round trip."""

from __future__ import annotations

DOCUMENTATION = r"""
module: model_files
short_description: Place a model's files, verified and readable, in one round trip
version_added: 0.1.0
description:
  - Brings a model from a directory, an archive or a Hugging Face revision into a store on the host, verifies its
    digests, sets owner and modes, and proves that the engine's user can read it.
  - A model appears whole or not at all. It is put together beside its place and renamed.
  - Nothing is copied or downloaded twice. A manifest records source and digests; a later run compares sizes and times
    with it. A download that was cut off goes on where it ended.
  - Needs only Python's standard library on the host.
author:
  - gpufleet.metal contributors (@gpufleet)
options:
  name:
    description:
      - The model's name, for messages and the manifest.
    type: str
    required: true
  directory:
    description:
      - The model's own directory. Everything in it that isn't the model's is removed when the model is placed.
    type: path
    required: true
  source:
    description:
      - Where the files come from. Exactly one of the keys V(path) (a directory on the host), V(archive) (a dictionary
        of V(url), which may be V(file://), and V(sha256)) and V(huggingface) (a dictionary of V(repository) and
        V(revision), a commit of 40 hex digits).
      - Hidden files are left out. From Hugging Face, other formats of weights are left out when there are
        safetensors.
    type: dict
    required: true
  files_sha256:
    description:
      - Digests to insist on, by file name relative to O(directory).
    type: dict
    default: {}
  owner:
    description:
      - Numeric id of the files' owner.
    type: int
    default: 0
  group:
    description:
      - Numeric id of the files' group.
    type: int
    default: 0
  reader_uid:
    description:
      - Numeric user id of the engine that has to read the files. Without it nothing is proven.
    type: int
  reader_gid:
    description:
      - Numeric group id of the engine.
    type: int
    default: 0
  verify:
    description:
      - V(quick) compares sizes and times with the manifest and reads only the files that differ.
      - V(full) reads and hashes every file.
    type: str
    choices: [quick, full]
    default: quick
  replacement_allowed:
    description:
      - Whether the files of a model that is in the store may give way to those of another source. Without it the module
        fails before it changes or fetches anything, because an engine that restarts by itself would load the new ones.
      - Files that are damaged or missing are put right without it.
    type: bool
    default: false
  huggingface_exclude:
    description:
      - Files and directories of the repository to leave out.
    type: list
    elements: str
    default: []
extends_documentation_fragment:
  - gpufleet.metal.hub
attributes:
  check_mode:
    description:
      - Says whether the files would change, and why. Fails if their source isn't there, or if they have no room.
    support: full
  diff_mode:
    description: Shows why the files change, not their content.
    support: partial
"""

EXAMPLES = r"""
- name: Place a model from an archive that travels with the image
  gpufleet.metal.model_files:
    name: tiny-llama
    directory: /srv/models/tiny-llama
    source:
      archive:
        url: file:///srv/media/models/tiny-llama.tar
        sha256: 0f343b0931126a20f133d67c2b018a3b25e0c0a3b6d4f1f3f0f1d6a7f9c2b1de
    reader_uid: 2000

- name: Place a commit of a Hugging Face repository
  gpufleet.metal.model_files:
    name: glm
    directory: /srv/models/glm
    source:
      huggingface:
        repository: zai-org/AutoGLM-Phone-9B
        revision: 0123456789abcdef0123456789abcdef01234567
"""

RETURN = r"""
action:
  description: V(none), V(placed) (files were brought in) or V(attributes) (owner or modes were set).
  type: str
  returned: success
  sample: placed
reason:
  description: Why something had to be done, empty if nothing had.
  type: str
  returned: success
  sample: it isn't in the store
files:
  description: Number of the model's files.
  type: int
  returned: success
bytes:
  description: Their size in bytes.
  type: int
  returned: success
reused:
  description: How many of them were there already.
  type: int
  returned: success
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.gpufleet.metal.plugins.module_utils import _model_files
from ansible_collections.gpufleet.metal.plugins.module_utils._errors import FleetError


def argument_spec() -> dict[str, Any]:
    """The module's options, as in DOCUMENTATION."""
    return {
        "name": {"type": "str", "required": True},
        "directory": {"type": "path", "required": True},
        "source": {"type": "dict", "required": True},
        "files_sha256": {"type": "dict", "default": {}},
        "owner": {"type": "int", "default": 0},
        "group": {"type": "int", "default": 0},
        "reader_uid": {"type": "int"},
        "reader_gid": {"type": "int", "default": 0},
        "verify": {"type": "str", "choices": ["quick", "full"], "default": "quick"},
        "replacement_allowed": {"type": "bool", "default": False},
        **_model_files.HUB_OPTIONS,
        "huggingface_exclude": {"type": "list", "elements": "str", "default": []},
    }


def wanted(options: dict[str, Any]) -> _model_files.Request:
    """The request that the options make; raises InvalidInputError naming the model."""
    reader_uid = options["reader_uid"]
    try:
        source = _model_files.make_source(
            options["source"],
            options["huggingface_endpoint"],
            options["huggingface_token"],
            tuple(options["huggingface_exclude"]),
        )
    except FleetError as error:
        raise type(error)(f"model {options['name']!r}: {error}") from error
    return _model_files.Request(
        name=options["name"],
        directory=options["directory"],
        source=source,
        files_sha256=options["files_sha256"],
        uid=options["owner"],
        gid=options["group"],
        reader=None if reader_uid is None else (reader_uid, options["reader_gid"]),
        verify=options["verify"],
        replacement_allowed=options["replacement_allowed"],
    )


def main() -> None:
    """Run as an Ansible module."""
    module = AnsibleModule(argument_spec=argument_spec(), supports_check_mode=True)
    try:
        outcome = _model_files.apply(wanted(module.params), module.check_mode)
    except FleetError as error:
        module.fail_json(msg=str(error))
    else:
        result: dict[str, Any] = {
            "changed": outcome.changed,
            "action": outcome.action,
            "reason": outcome.reason,
            "files": outcome.files,
            "bytes": outcome.bytes,
            "reused": outcome.reused,
        }
        if module._diff and outcome.changed:
            after = f"{outcome.action}: {outcome.reason}\n"
            result["diff"] = {"before_header": module.params["directory"], "before": "", "after": after}
        module.exit_json(**result)


if __name__ == "__main__":
    main()
