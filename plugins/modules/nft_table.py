#!/usr/bin/python
# SPDX-License-Identifier: Apache-2.0 OR GPL-3.0-or-later
# Apache-2.0, or at your option the GNU General Public License v3.0+ (https://www.gnu.org/licenses/gpl-3.0.txt)
"""Replace one nftables table so that nobody can lock himself out; the action plugin of the same name conducts it."""

from __future__ import annotations

DOCUMENTATION = r"""
module: nft_table
short_description: Replace one nftables table without locking anybody out
version_added: "0.1.0"
author: GPUFleet contributors (@gpufleet)
description:
  - Keeps one nftables table, live and in the file that is loaded at boot. Every other table (of Docker, kube-proxy,
    Flannel, the operator) stays as it is; the ruleset is never flushed.
  - A change is applied under a timer on the host that puts the old table back. The controller then closes its
    connection and makes a new one; only that new connection disarms the timer. If no new connection can be made, the
    task waits until the old table is back, and fails. If the controller dies, the timer does its work all the same.
  - The file for the next boot is written only after the new connection, so a reboot in between loads the old rules.
  - The live table is compared with what the kernel itself makes of the wanted rules, in a network namespace of its
    own. A run that changes nothing costs one round trip.
options:
  name:
    description: Name of the table. It belongs to this task alone.
    type: str
    required: true
  family:
    description: Address family of the table.
    type: str
    choices: [inet, ip, ip6]
    default: inet
  path:
    description: File that holds the table and is loaded at boot, by a unit that is not this module's business.
    type: str
    required: true
  content:
    description:
      - The inside of the table, sets and chains, without C(table ... { }) around it.
      - Interfaces are matched by name (C(iifname)), because an index means nothing in the namespace of the comparison.
    type: str
    required: true
  rollback_seconds:
    description: After this time without a new connection the old table comes back. From 10 to 600.
    type: int
    default: 60
  controller_must_match:
    description:
      - Who may connect to which TCP ports under the new rules. Before anything is changed, the address and port of
        the controller's own ssh connection, as the host sees them, must be among these.
      - Not used by connections other than ssh.
    type: list
    elements: dict
    default: []
    suboptions:
      ports:
        description: TCP ports.
        type: list
        elements: int
        required: true
      networks:
        description: Addresses and networks from which these ports can be reached.
        type: list
        elements: str
        required: true
  assume_controller_allowed:
    description:
      - Skip the check by O(controller_must_match), and rely on the rollback alone.
      - For networks where the host sees an address that the controller can't know, and for tests of the rollback.
    type: bool
    default: false
  _phase:
    description: What this call of the module does. Filled in by the action plugin, not for use in a task.
    type: str
    choices: [apply, compare, confirm, status]
attributes:
  check_mode:
    support: full
    description: Compares and reports. Where nft is not installed yet, a change is reported.
  diff_mode:
    support: full
    description: Shows the kernel's listing of the live table against the wanted one.
notes:
  - Needs nft, systemd and unshare (util-linux) on the host, and root.
"""

EXAMPLES = r"""
- name: Let nobody in but ssh from the office
  gpufleet.metal.nft_table:
    name: example
    path: /etc/example/firewall.nft
    content: |
      chain input {
        type filter hook input priority filter - 5; policy drop;
        ct state established,related accept
        iif "lo" accept
        ip saddr 192.0.2.0/24 tcp dport 22 accept
      }
    controller_must_match:
      - ports: [22]
        networks: [192.0.2.0/24]
"""

RETURN = r"""
confirmed_from:
  description: Address and port of the new connection that disarmed the rollback; empty for connections other than ssh.
  returned: when a changed table was applied
  type: str
  sample: "192.0.2.10 port 51344"
rolled_back:
  description: Whether the old table is back because no new connection could be made. The task has failed then.
  returned: when a changed table was applied
  type: bool
  sample: false
"""

import time
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.gpufleet.metal.plugins.module_utils import _nft
from ansible_collections.gpufleet.metal.plugins.module_utils._commands import Runner, runner
from ansible_collections.gpufleet.metal.plugins.module_utils._errors import FleetError
from ansible_collections.gpufleet.metal.plugins.module_utils._rollback import monotonic


def _compare(module: AnsibleModule, table: _nft.Table, run: Runner) -> dict[str, Any]:
    """Report the difference; a difference of the file alone is mended here, because it can't lock anybody out."""
    if module.check_mode:
        if not table.nft:
            return {"changed": True, "apply": False, "msg": "nft is not installed yet; the rules could not be checked"}
    else:
        table.rollback.settle(run, monotonic, time.sleep)
    found = _nft.compare(table, run)
    result: dict[str, Any] = {
        "changed": found.changed or table.rollback.undecided(),
        "apply": found.table_differs and not module.check_mode,
    }
    if result["apply"]:
        # What an earlier change left as its answer says nothing about the one that comes.
        table.rollback.finish()
    if module._diff:
        result["diff"] = [found.diff(table)]
    if found.changed and not found.table_differs and not module.check_mode:
        _nft.write_file(table, run)
    return result


def _apply(module: AnsibleModule, table: _nft.Table, run: Runner) -> dict[str, Any]:
    _nft.arm_and_apply(table, _nft.compare(table, run), module.params["rollback_seconds"], run, monotonic)
    return {"changed": True}


def _confirm(module: AnsibleModule, table: _nft.Table, run: Runner) -> dict[str, Any]:
    _nft.confirm(table, run)
    return {"changed": True}


def _status(module: AnsibleModule, table: _nft.Table, run: Runner) -> dict[str, Any]:
    rollback = table.rollback
    return {"changed": False, "undecided": rollback.undecided(), "confirmed": rollback.confirmed()}


PHASES = {"compare": _compare, "apply": _apply, "confirm": _confirm, "status": _status}


def main() -> None:
    """Entry point of the module; each phase of one task is a call of its own."""
    module = AnsibleModule(
        argument_spec={**_nft.ARGUMENT_SPEC, "_phase": {"type": "str", "choices": sorted(PHASES)}},
        supports_check_mode=True,
    )
    options = module.params
    if options["_phase"] is None:
        module.fail_json(msg="gpufleet.metal.nft_table works only as a task, through its action plugin")
    nft = module.get_bin_path("nft", required=not module.check_mode, opt_dirs=["/usr/sbin", "/sbin"])
    table = _nft.Table(
        options["family"],
        options["name"],
        options["path"],
        _nft.ruleset(options["family"], options["name"], options["content"]),
        nft or "",
    )
    try:
        result = PHASES[options["_phase"]](module, table, runner(module))
    except FleetError as fault:
        module.fail_json(msg=str(fault))
    module.exit_json(**result)


if __name__ == "__main__":
    main()
