# SPDX-License-Identifier: Apache-2.0
"""The driver's filters hand values on and turn errors into Ansible's."""

from __future__ import annotations

from typing import Any

import pytest
from ansible.errors import AnsibleFilterError

from ansible_collections.gpufleet.metal.plugins.filter import driver

FILTERS = driver.FilterModule().filters()
SYSTEM = {"name": "debian 12", "family": "debian", "major": "12", "machine": "x86_64", "kernel": "6.1.0-40-amd64"}
ROWS = [{"for": "open", "packages": ["nvidia-open"]}, {"for": "pin", "own_version": True, "packages": ["pin-{branch}"]}]
COMPOSED = {"driver": ["nvidia-open"], "others": ["pin-580"], "versions": {}}
STATE = {
    "packages": {"nvidia-open": {"version": "580.173.02-1", "held": True, "vendor": "nvidia"}},
    "unfinished": [],
    "installer": None,
    "secure_boot": {"enabled": False, "enrolled": False},
    "nouveau": False,
    "module_version": "580.173.02",
    "module_open": True,
    "cuda": {"status": 0, "devices": 8, "library_version": "580.173.02", "message": ""},
    "smi": {"driver_version": "580.173.02", "gpus": 8, "fabric": {}, "message": ""},
}


@pytest.mark.parametrize(
    ("name", "arguments", "value"),
    [
        ("driver_activation", (STATE, "580.173.02"), {"action": "none", "reason": ""}),
        ("driver_activation", (STATE, "580.173.02", "open"), {"action": "none", "reason": ""}),
        ("driver_composition", (ROWS, ["open", "pin"], 580, "vendor", SYSTEM), COMPOSED),
        ("driver_obstacles", (STATE, "vendor", []), []),
        ("driver_proof_faults", (STATE, "580", "open", 8), []),
        ("driver_shortfalls", (STATE, COMPOSED, "580"), ["pin-580 is not installed"]),
        ("driver_stream", (SYSTEM, 580, "open"), None),
        ("driver_version", (STATE, ["nvidia-open"]), "580.173.02"),
        ("driver_version", (STATE, ["nvidia-imex"]), None),
    ],
)
def test_they_return(name: str, arguments: tuple[Any, ...], value: Any) -> None:
    assert FILTERS[name](*arguments) == value


def test_they_translate_errors() -> None:
    message = "^debian 12: no package is known for 'imex' of branch 580 in the vendor repository$"
    with pytest.raises(AnsibleFilterError, match=message):
        FILTERS["driver_composition"](ROWS, ["imex"], 580, "vendor", SYSTEM)
