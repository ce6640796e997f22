#!/usr/bin/python
# SPDX-License-Identifier: Apache-2.0 OR GPL-3.0-or-later
# Apache-2.0, or at your option the GNU General Public License v3.0+ (https://www.gnu.org/licenses/gpl-3.0.txt)
"""Say what a live nftables table does, whether it is the wanted one and that of its file, and who listens behind it."""

from __future__ import annotations

DOCUMENTATION = r"""
module: nft_table_info
short_description: Read one live nftables table, its file and the listening sockets
version_added: "0.1.0"
author: GPUFleet contributors (@gpufleet)
description:
  - Compares the live table with what the kernel makes of its file, in a network namespace of its own.
  - With O(content), compares it with what the kernel makes of the wanted rules, in the same way.
  - Lists the policies of its base chains, the ports that its rules accept, and who listens on the host.
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
  content:
    description:
      - The inside of the wanted table, as M(gpufleet.metal.nft_table) takes it. Unset compares with the file only.
    type: str
    default: ""
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
surplus:
  description: Lines of the kernel's listing that O(content) does not make; empty without O(content).
  returned: success
  type: list
  elements: str
  sample: ["tcp dport 9100 accept"]
missing:
  description: Lines that O(content) makes and the live table lacks; all of them where there is no table.
  returned: success
  type: list
  elements: str
  sample: []
accepted:
  description:
    - Ports that rules accept, as C(chain protocol/port) or C(chain protocol/first-last), sorted. Sources are not in it.
  returned: success
  type: list
  elements: str
  sample: ["input tcp/22"]
listeners:
  description: Who listens beyond loopback, a port once, sorted.
  returned: success
  type: list
  elements: dict
  contains:
    protocol:
      description: C(tcp) or C(udp).
      type: str
      sample: tcp
    port:
      description: The port.
      type: int
      sample: 22
    processes:
      description: Names of the processes that hold the socket; none for one of the kernel itself.
      type: list
      elements: str
      sample: [sshd]
ssh_ports:
  description: Ports on which ssh is served, from the sockets and not from a configuration, sorted.
  returned: success
  type: list
  elements: int
  sample: [22]
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.gpufleet.metal.plugins.module_utils import _nft
from ansible_collections.gpufleet.metal.plugins.module_utils._commands import runner
from ansible_collections.gpufleet.metal.plugins.module_utils._errors import FleetError


def main() -> None:
    """Entry point of the module."""
    spec = {name: _nft.ARGUMENT_SPEC[name] for name in ("name", "family", "path")}
    module = AnsibleModule(argument_spec={**spec, "content": {"type": "str", "default": ""}}, supports_check_mode=True)
    nft = module.get_bin_path("nft", required=True, opt_dirs=["/usr/sbin", "/sbin"])
    run = runner(module)
    name, family, content = (module.params[option] for option in ("name", "family", "content"))
    text = _nft.ruleset(family, name, content) if content else ""
    table = _nft.Table(family, name, module.params["path"], text, nft)
    try:
        result = _nft.describe(table, run)
    except FleetError as fault:
        module.fail_json(msg=str(fault))
    module.exit_json(changed=False, **result)


if __name__ == "__main__":
    main()
