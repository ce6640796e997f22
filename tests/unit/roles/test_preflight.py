# SPDX-License-Identifier: Apache-2.0
"""What the role hands to the comparison, rendered from its own variables."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar

ROLE = Path(__file__).parents[3] / "roles" / "preflight"


def ignored(**options: Any) -> Any:
    """The codes that are left out."""
    loader = DataLoader()
    variables: dict[str, Any] = {}
    for file in ("defaults", "vars"):
        variables.update(loader.load_from_file(str(ROLE / file / "main.yml"), trusted_as_template=True))
    variables.update(options)
    return Templar(loader=loader, variables=variables).template(variables["__preflight_requirements"])["ignored_codes"]


def test_what_a_playbook_mends_does_not_replace_what_the_operator_ignores() -> None:
    assert ignored() == ["persistence_mode_off"]
    found = ignored(preflight_ignored_codes=["ecc_disabled"], preflight_mended_codes=["driver_mismatch"])
    assert found == ["ecc_disabled", "driver_mismatch"]
