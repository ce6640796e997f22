#!/usr/bin/python
# SPDX-License-Identifier: Apache-2.0 OR GPL-3.0-or-later
# Apache-2.0, or at your option the GNU General Public License v3.0+ (https://www.gnu.org/licenses/gpl-3.0.txt)
"""Describe an apt repository and its key, replacing every other entry for the same URL."""

from __future__ import annotations

DOCUMENTATION = r"""
module: apt_source
short_description: Describe an apt repository, replacing every other entry for the same URL
version_added: 0.1.0
description:
  - Writes a deb822 file and the repository's key in one round trip.
  - Entries for the same URL in other files are removed, whoever wrote them. Two entries with different keys would stop
    apt with C(Conflicting values set for option Signed-By).
  - The key is fetched only when it isn't there yet or has another digest. Needs only Python's standard library.
author:
  - gpufleet.metal contributors (@gpufleet)
options:
  name:
    description:
      - Name of the files, without suffix.
    type: str
    required: true
  uri:
    description:
      - URL of the repository.
    type: str
    required: true
  suite:
    description:
      - The suite. One that ends in C(/) makes a flat repository.
    type: str
    required: true
  components:
    description:
      - The components. None for a flat repository.
    type: list
    elements: str
    default: []
  key_url:
    description:
      - Where the key is, V(http://), V(https://) or V(file://). Armoured or binary.
    type: str
    required: true
  key_sha256:
    description:
      - The key file's digest. Without it a key that is there is kept, and the first one is taken as it comes.
    type: str
  root:
    description:
      - apt's configuration directory.
    type: path
    default: /etc/apt
attributes:
  check_mode:
    description: Says which files would change.
    support: full
  diff_mode:
    description: Shows the files that change.
    support: full
"""

EXAMPLES = r"""
- name: Describe Docker's repository
  gpufleet.metal.apt_source:
    name: docker
    uri: https://download.docker.com/linux/debian
    suite: trixie
    components: [stable]
    key_url: https://download.docker.com/linux/debian/gpg
    key_sha256: 1500c1f56fa9e26b9b8f42452a553675796ade0807cdce11975eb98170b3a570
"""

RETURN = r"""
changed_files:
  description: Files that changed, sorted.
  type: list
  elements: str
  returned: success
  sample: [/etc/apt/keyrings/docker.asc, /etc/apt/sources.list.d/docker.sources]
"""

import glob
import os
import tempfile
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.gpufleet.metal.plugins.module_utils import _apt_sources, _download
from ansible_collections.gpufleet.metal.plugins.module_utils._errors import FleetError


def argument_spec() -> dict[str, Any]:
    """The module's options, as in DOCUMENTATION."""
    return {
        "name": {"type": "str", "required": True},
        "uri": {"type": "str", "required": True},
        "suite": {"type": "str", "required": True},
        "components": {"type": "list", "elements": "str", "default": []},
        "key_url": {"type": "str", "required": True, "no_log": False},
        "key_sha256": {"type": "str", "no_log": False},
        "root": {"type": "path", "default": "/etc/apt"},
    }


def read_sources(root: str) -> dict[str, str]:
    """All files that apt reads its sources from."""
    paths = [os.path.join(root, "sources.list"), *glob.glob(os.path.join(root, "sources.list.d", "*"))]
    files = {}
    for path in sorted(paths):
        if path.endswith((".list", ".sources")) and os.path.isfile(path):
            with open(path, encoding="utf-8", errors="surrogateescape") as stream:
                files[path] = stream.read()
    return files


def present_key(root: str, name: str, sha256: str | None) -> str | None:
    """The path of the key that is there and right, None otherwise."""
    for suffix in ("asc", "gpg"):
        path = os.path.join(root, "keyrings", f"{name}.{suffix}")
        if os.path.isfile(path) and (sha256 is None or _download.hash_file(path).sha256 == sha256.lower()):
            return path
    return None


def fetch_key(url: str, sha256: str | None) -> bytes:
    """The key's bytes, verified."""
    with tempfile.TemporaryDirectory() as directory:
        path = _download.local_path(url)
        if path is None:
            path = os.path.join(directory, "key")
            _download.fetch(url, path, sha256=sha256)
        found = _download.hash_file(path).sha256
        if sha256 is not None and found != sha256.lower():
            raise _download.DownloadError(f"{url}: its sha256 is {found}, wanted {sha256.lower()}")
        with open(path, "rb") as stream:
            return stream.read()


def write_file(path: str, content: bytes) -> None:
    """Replace a file in one step, readable for all."""
    os.makedirs(os.path.dirname(path), mode=0o755, exist_ok=True)
    descriptor, staged = tempfile.mkstemp(dir=os.path.dirname(path), prefix=f".{os.path.basename(path)}.")
    with os.fdopen(descriptor, "wb") as stream:
        stream.write(content)
        os.fchmod(stream.fileno(), 0o644)
    os.replace(staged, path)


def run(options: dict[str, Any], check_mode: bool) -> dict[str, Any]:
    """Bring the files into the wanted state; returns the module's result."""
    root, name = options["root"], options["name"]
    repository = _apt_sources.Repository(name, options["uri"], options["suite"], tuple(options["components"]))
    changed: list[str] = []
    key_path = present_key(root, name, options["key_sha256"])
    if key_path is None:
        key_path = os.path.join(root, "keyrings", f"{name}.asc")
        if not check_mode:
            key = fetch_key(options["key_url"], options["key_sha256"])
            armoured = key.lstrip().startswith(b"-----BEGIN PGP PUBLIC KEY BLOCK-----")
            key_path = os.path.join(root, "keyrings", f"{name}.{'asc' if armoured else 'gpg'}")
            write_file(key_path, key)
        changed.append(key_path)
    files = read_sources(root)
    own_path = os.path.join(root, "sources.list.d", f"{name}.sources")
    changes = _apt_sources.plan(files, repository, own_path, key_path)
    diff = []
    for path, content in sorted(changes.items()):
        changed.append(path)
        diff.append(
            {"before_header": path, "before": files.get(path, ""), "after_header": path, "after": content or ""}
        )
        if check_mode:
            continue
        if content is None:
            os.unlink(path)
        else:
            write_file(path, content.encode("utf-8", "surrogateescape"))
    return {"changed": bool(changed), "changed_files": sorted(changed), "diff": diff}


def main() -> None:
    """Run as an Ansible module."""
    module = AnsibleModule(argument_spec=argument_spec(), supports_check_mode=True)
    try:
        result = run(module.params, module.check_mode)
    except FleetError as error:
        module.fail_json(msg=f"repository {module.params['name']!r}: {error}")
    else:
        module.exit_json(**result)


if __name__ == "__main__":
    main()
