#!/usr/bin/python
# SPDX-License-Identifier: Apache-2.0 OR GPL-3.0-or-later
# Apache-2.0, or at your option the GNU General Public License v3.0+ (https://www.gnu.org/licenses/gpl-3.0.txt)
"""Say what a live nftables table does, whether it is the one of its file, and who listens behind it."""

from __future__ import annotations

DOCUMENTATION = r"""
module: nft_table_info
short_description: Read one live nftables table, its file and the listening sockets
version_added: "0.1.0"
author: GPUFleet contributors (@gpufleet)
description:
  - Compares the live table with what the kernel makes of its file, in a network namespace of its own.
  - Lists the policies of its base chains, the ports that its rules accept, and the sockets that listen on the host.
options:
  name:
    description: Name of the table.
    type: str
    required: true
  family:
    description: Address family of the table.
    type: str
    choices: [inet, ip, ip6]
    default: inet
  path:
    description: File that holds the table and is loaded at boot.
    type: str
    required: true
attributes:
  check_mode:
    support: full
    description: Changes nothing in any mode.
notes:
  - Needs nft, ss and unshare on the host, and root.
seealso:
  - module: gpufleet.metal.nft_table
"""

EXAMPLES = r"""
- name: Read the fleet's table
  gpufleet.metal.nft_table_info:
    name: gpufleet
    path: /etc/gpufleet/firewall.nft
  register: firewall_state
"""

RETURN = r"""
exists:
  description: Whether the kernel holds the table.
  returned: success
  type: bool
  sample: true
matches_file:
  description: Whether the live table is what the file would load.
  returned: success
  type: bool
  sample: true
policies:
  description: Policy of each base chain by the chain's name.
  returned: success
  type: dict
  sample: {forward: accept, input: drop}
accepted:
  description: Ports that rules accept, as C(chain protocol/port), sorted. Sources are not in it.
  returned: success
  type: list
  elements: str
  sample: ["input tcp/22"]
listening:
  description: Ports on which something listens beyond loopback, as C(protocol/port), sorted.
  returned: success
  type: list
  elements: str
  sample: ["tcp/22", "tcp/9100"]
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.gpufleet.metal.plugins.module_utils import _nft
from ansible_collections.gpufleet.metal.plugins.module_utils._commands import runner
from ansible_collections.gpufleet.metal.plugins.module_utils._errors import FleetError


def main() -> None:
    """Entry point of the module."""
    wanted = ("name", "family", "path")
    module = AnsibleModule(argument_spec={name: _nft.ARGUMENT_SPEC[name] for name in wanted}, supports_check_mode=True)
    nft = module.get_bin_path("nft", required=True, opt_dirs=["/usr/sbin", "/sbin"])
    run = runner(module)
    table = _nft.Table(module.params["family"], module.params["name"], module.params["path"], "", nft)
    try:
        result = _nft.describe(table, run)
    except FleetError as fault:
        module.fail_json(msg=str(fault))
    module.exit_json(changed=False, **result)


if __name__ == "__main__":
    main()
