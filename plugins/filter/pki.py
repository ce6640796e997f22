# SPDX-License-Identifier: Apache-2.0
"""Filter shells over module_utils/_pki.py; each is documented in the YAML file of its name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ansible_collections.gpufleet.metal.plugins.module_utils import _pki
from ansible_collections.gpufleet.metal.plugins.plugin_utils._filters import as_filter


class FilterModule:
    """What Ansible loads."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return the filters of this file."""
        return {
            "pki_names": as_filter(_pki.normal_names),
            "pki_acme_names": as_filter(_pki.acme_names),
            "pki_acme_reasons": as_filter(_pki.acme_reasons),
            "pki_reissue_reasons": as_filter(_pki.reissue_reasons),
            "pki_rfc2136_faults": as_filter(_pki.rfc2136_faults),
            "pki_dns_update": as_filter(_pki.dns_update),
            "pki_overdue_faults": as_filter(_pki.overdue_faults),
            "pki_authority_faults": as_filter(_pki.authority_faults),
            "pki_provided_faults": as_filter(_pki.provided_faults),
            "pki_chain_faults": as_filter(_pki.chain_faults),
            "pki_trusted_faults": as_filter(_pki.trusted_faults),
        }
