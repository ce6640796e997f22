#!/usr/bin/python
# SPDX-License-Identifier: Apache-2.0 OR GPL-3.0-or-later
# Apache-2.0, or at your option the GNU General Public License v3.0+ (https://www.gnu.org/licenses/gpl-3.0.txt)
"""Put all files of a role in place in one round trip; the action plugin of the same name renders and sends them."""

from __future__ import annotations

DOCUMENTATION = r"""
module: managed_files
short_description: Put all files of a role in place, in one round trip and as one change
version_added: "0.1.0"
author: GPUFleet contributors (@gpufleet)
description:
  - Renders templates and reads files on the controller, sends them together, and puts them in place on the host as
    one change.
  - Every file is first compared with the host's. If one differs, the whole set is staged under a private directory,
    validated, and swapped by one atomic rename for each file. If a step fails, every path gets its old content,
    owner, group and mode back.
  - A run that changes nothing costs one round trip, however many files there are.
options:
  files:
    description: The paths to manage. Each path may be listed once.
    type: list
    elements: dict
    required: true
    suboptions:
      dest:
        description: Absolute path on the host. A symbolic link is refused, because a rename would cut it.
        type: str
        required: true
      state:
        description:
          - What should be at the path.
          - V(absent) removes a file or an empty directory.
        type: str
        choices: [file, directory, absent]
        default: file
      template:
        description:
          - A Jinja template, found as M(ansible.builtin.template) finds it, rendered with the task's variables.
          - A V(file) has exactly one of O(files[].template), O(files[].content), O(files[].source) and
            O(files[].host_source).
        type: str
      content:
        description:
          - The content itself.
          - Where it is secret, prefer O(files[].template), because a task's own arguments can be displayed.
        type: str
      source:
        description:
          - A file, found as M(ansible.builtin.copy) finds it, sent as it is.
          - It may be binary. A vaulted file is decrypted.
        type: str
      host_source:
        description:
          - Absolute path of a file that is on the host already. Its content is taken and never leaves the host, as for
            a key that was made there and takes its place together with its certificate.
          - The same path as O(files[].dest) keeps the content and sees to owner, group and mode.
        type: str
      owner:
        description: Name or number of the user.
        type: str
        default: root
      group:
        description: Name or number of the group.
        type: str
        default: root
      mode:
        description: Quoted octal string. The default is V(0644) for a file and V(0755) for a directory.
        type: str
      validate:
        description:
          - A command that judges the staged copy of this file, whose path replaces C(%s).
          - It runs without a shell, before anything is replaced, and only if this file changes.
        type: str
      sensitive:
        description: Never show the content, neither old nor new, in a diff or in the output of a command.
        type: bool
        default: false
  validate:
    description:
      - A command that judges the whole set. C(%s) is replaced by a directory in which every file of the set is staged
        under its full path.
      - It runs without a shell, before anything is replaced, and only if something changes.
    type: str
  activate:
    description:
      - A command that makes the new files effective, such as C(systemctl reload nginx). It runs without a shell, once
        after the swap if anything changed.
      - If it fails, the old files are put back, it runs again for those, and the task fails with the output of both.
      - If a run is killed between swap and activation, the next run activates, even if no file differs any more.
    type: str
  confirm_seconds:
    description:
      - For files that could lock the controller out, such as those of sshd. The controller has to make a new connection
        within this time (10 to 600 seconds) after the activation; else a timer on the host puts the old files back and
        activates them, and the task fails.
      - The timer does not survive a reboot; after one, the new files stay.
      - Needs systemd on the host.
    type: int
  _contents:
    description: The rendered contents. Filled in by the action plugin, not for use in a task.
    type: dict
  _phase:
    description: What this call of the module does. Filled in by the action plugin, not for use in a task.
    type: str
    choices: [confirm, status]
  _identity:
    description: The rollback that O(_phase) is about. Filled in by the action plugin, not for use in a task.
    type: str
    default: ""
attributes:
  check_mode:
    support: full
    description:
      - Compares and reports; validates and activates nothing.
      - A missing parent directory, user or group is no error then.
  diff_mode:
    support: full
    description: Shows the text of changed files, except of sensitive ones.
"""

EXAMPLES = r"""
- name: Write the gateway's configuration
  gpufleet.metal.managed_files:
    files:
      - dest: /etc/nginx/nginx.conf
        template: nginx.conf.j2
      - dest: /etc/nginx/conf.d/default.conf
        state: absent
      - dest: /etc/nginx/tls/gateway.key
        template: gateway.key.j2
        mode: "0600"
        sensitive: true
    validate: "nginx -t -q -c %s/etc/nginx/nginx.conf"
    activate: "systemctl reload nginx"
"""

RETURN = r"""
changed_files:
  description: The paths that were or would be changed, sorted.
  returned: success
  type: list
  elements: str
  sample: ["/etc/nginx/nginx.conf"]
activated:
  description: Whether O(activate) ran or would run.
  returned: success
  type: bool
  sample: true
confirmed_from:
  description: Address and port of the new connection that confirmed the files; empty for connections other than ssh.
  returned: when O(confirm_seconds) is set and files were changed
  type: str
  sample: "192.0.2.10 port 51344"
rolled_back:
  description: Whether the old files are back because no new connection could be made. The task has failed then.
  returned: when O(confirm_seconds) is set and files were changed
  type: bool
  sample: false
"""

import base64
import os
import signal
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.gpufleet.metal.plugins.module_utils import _files
from ansible_collections.gpufleet.metal.plugins.module_utils._commands import runner
from ansible_collections.gpufleet.metal.plugins.module_utils._errors import FleetError


class InterruptedBySignalError(Exception):
    """A signal asked the module to end; the files go back first."""


def _interrupt(number: int, frame: Any) -> None:
    raise InterruptedBySignalError(f"signal {signal.Signals(number).name}")


def _confirm(module: AnsibleModule, identity: str) -> dict[str, Any]:
    _files.confirm(_files.rollback_of(identity), runner(module))
    return {"changed": True}


def _status(module: AnsibleModule, identity: str) -> dict[str, Any]:
    rollback = _files.rollback_of(identity)
    return {"changed": False, "undecided": rollback.undecided(), "confirmed": rollback.confirmed()}


PHASES = {"confirm": _confirm, "status": _status}


def _labeller(module: AnsibleModule) -> _files.Labeller:
    """A new file gets the SELinux label that the host's policy gives to its path."""

    def label(path: str, as_if: str) -> None:
        if module.selinux_enabled():
            module.set_context_if_different(path, module.selinux_default_context(as_if), False)

    return label


def _content(module: AnsibleModule, entry: dict[str, Any]) -> bytes | None:
    """What the file of an entry has to hold: sent by the controller, or on the host already."""
    if entry["state"] != "file":
        return None
    if entry["host_source"] is not None:
        return _files.host_content(entry["dest"], entry["host_source"], module.check_mode)
    return base64.b64decode(module.params["_contents"][entry["dest"]])


def main() -> None:
    """Entry point of the module."""
    module = AnsibleModule(
        argument_spec={
            **_files.ARGUMENT_SPEC,
            "_contents": {"type": "dict", "no_log": True},
            "_phase": {"type": "str", "choices": sorted(PHASES)},
            "_identity": {"type": "str", "default": ""},
        },
        supports_check_mode=True,
    )
    if module.params["_phase"] is not None:
        try:
            module.exit_json(**PHASES[module.params["_phase"]](module, module.params["_identity"]))
        except FleetError as fault:
            module.fail_json(msg=str(fault))
    if module.params["_contents"] is None:
        module.fail_json(msg="gpufleet.metal.managed_files works only as a task, through its action plugin")
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        signal.signal(number, _interrupt)
    os.umask(0o022)
    try:
        specs = [_files.file_spec(entry, _content(module, entry)) for entry in module.params["files"]]
        outcome = _files.apply(
            specs,
            runner(module),
            validate=module.params["validate"],
            activate=module.params["activate"],
            confirm_seconds=module.params["confirm_seconds"],
            label=_labeller(module),
            check_mode=module.check_mode,
            # In memory: staged secrets never reach a disk.
            temporary_directory="/run" if os.access("/run", os.W_OK) else None,
        )
    except InterruptedBySignalError as fault:
        module.fail_json(msg=f"Interrupted by {fault}; every file has its old content again")
    except FleetError as fault:
        module.fail_json(msg=str(fault))
    result: dict[str, Any] = {
        "changed": outcome.changed,
        "changed_files": list(outcome.changed_files),
        "activated": outcome.activated,
    }
    if outcome.unconfirmed and not module.check_mode:
        result["unconfirmed"] = outcome.unconfirmed
    if module._diff:
        result["diff"] = list(outcome.diff)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
