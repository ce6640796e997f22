# SPDX-License-Identifier: Apache-2.0
"""Filter shells over the driver's pure modules; each is documented in the YAML file of its name."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ansible_collections.gpufleet.metal.plugins.module_utils import _driver_packages, _driver_state
from ansible_collections.gpufleet.metal.plugins.plugin_utils._filters import as_filter


def driver_composition(
    rows: Sequence[Mapping[str, Any]], words: Sequence[str], branch: int, repository: str, system: Mapping[str, Any]
) -> dict[str, Any]:
    """See driver_composition.yml."""
    composed = _driver_packages.compose(rows, words, int(branch), repository, system)
    return {"driver": list(composed.driver), "others": list(composed.others), "versions": dict(composed.versions)}


def driver_shortfalls(state: Mapping[str, Any], composition: Mapping[str, Any], wanted: str) -> list[str]:
    """See driver_shortfalls.yml."""
    composed = _driver_packages.Composition(
        tuple(composition["driver"]), tuple(composition["others"]), composition["versions"]
    )
    return _driver_packages.shortfalls(state["packages"], composed, str(wanted), state["unfinished"])


def driver_version(state: Mapping[str, Any], names: Sequence[str]) -> str | None:
    """See driver_version.yml."""
    return _driver_state.installed_version(state["packages"], names)


class FilterModule:
    """What Ansible loads."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return the filters of this file."""
        return {
            "driver_activation": as_filter(_driver_state.activation),
            "driver_composition": as_filter(driver_composition),
            "driver_obstacles": as_filter(_driver_state.obstacles),
            "driver_proof_faults": as_filter(_driver_state.proof_faults),
            "driver_shortfalls": as_filter(driver_shortfalls),
            "driver_stream": as_filter(_driver_state.dnf_stream),
            "driver_version": as_filter(driver_version),
        }
