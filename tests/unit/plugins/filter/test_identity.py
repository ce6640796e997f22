# SPDX-License-Identifier: Apache-2.0
"""The filters are those of the core, by their names."""

from __future__ import annotations

from ansible_collections.gpufleet.metal.plugins.filter.identity import FilterModule


def test_the_filters() -> None:
    filters = FilterModule().filters()
    assert sorted(filters) == ["identity_document", "identity_faults"]
    scopes = {"default": "inference", "paths": {}}
    limits = {"requests_per_second": 0, "burst": 0, "concurrent": 0}
    assert filters["identity_faults"](["api_keys"], [], {}, scopes, limits, []) == [
        "nginx_api_keys is empty, wanted at least one identity, because nginx_authentication has api_keys"
    ]
    assert filters["identity_document"]([], [], {}, scopes, "gateway", "/etc/keys.json") == {
        "realm": "gateway",
        "api_keys": {},
        "jwt": None,
    }
