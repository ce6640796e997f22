# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest
from ansible.errors import AnsibleFilterError

from ansible_collections.gpufleet.metal.plugins.filter.pki import FilterModule

NAMES = ["DNS:llm.example.org", "IP:198.51.100.13"]


def test_the_filters_translate_errors() -> None:
    filters = FilterModule().filters()
    assert sorted(filters) == [
        "pki_acme_names",
        "pki_acme_reasons",
        "pki_authority_faults",
        "pki_chain_faults",
        "pki_dns_update",
        "pki_names",
        "pki_overdue_faults",
        "pki_provided_faults",
        "pki_reissue_reasons",
        "pki_rfc2136_faults",
        "pki_trusted_faults",
    ]
    assert filters["pki_names"](NAMES) == NAMES
    with pytest.raises(AnsibleFilterError, match="'x' is neither DNS:<host name> nor IP:<address>"):
        filters["pki_names"](["x"])
    with pytest.raises(AnsibleFilterError, match="'soon' is no time of the form YYYYMMDDHHMMSSZ"):
        filters["pki_authority_faults"]({"not_after": "soon"}, days=1, now="20260101000000Z")
