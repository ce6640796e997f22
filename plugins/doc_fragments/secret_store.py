# SPDX-License-Identifier: Apache-2.0
"""What every plugin that opens the store of secrets takes."""

from __future__ import annotations


class ModuleDocFragment:
    """Options of ``plugin_utils/_secret_actions.py``."""

    DOCUMENTATION = r"""
options:
  store:
    description:
      - Where the store is and what opens it, as the variable C(fleet_secret_store) says. C(docs/secrets.md) describes
        it.
      - C(backend) is V(file) (the default), V(hashi_vault) for OpenBao or HashiCorp Vault, or V(sops).
      - C(path) is the file, or the path in the key-value engine. A relative one is below the directory of the
        inventory. The default is C(.gpufleet/secrets.json).
      - C(key) says where the private key of the file is. It has exactly one of C(file) (also one encrypted by
        ansible-vault), C(environment) (the name of a variable) and C(command) (a command that prints it). The default
        is the file C(~/.config/gpufleet/secrets.key).
      - C(signers) are files with the public keys of others whose writing of the file is believed.
      - C(options) are handed to the lookup plugins of P(community.hashi_vault.vault_read#lookup) or
        P(community.sops.sops#lookup).
    type: dict
"""

    # For the actions, which all work on the controller.
    ATTRIBUTES = r"""
attributes:
  platform:
    description: Systems that the action runs on.
    platforms: posix
    support: full
    details: Runs on the controller. Run it once per play, for a second writer at the same time is refused.
"""
