# SPDX-License-Identifier: Apache-2.0
"""Filter shells over module_utils/_packages.py; each is documented in the YAML file of its name."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ansible.errors import AnsibleFilterError

from ansible_collections.gpufleet.metal.plugins.module_utils import _packages


def _check_names(names: Any) -> None:
    if isinstance(names, str) or not isinstance(names, Sequence):
        raise AnsibleFilterError(f"wanted a list of package names, found {names!r}")


def _check_mapping(what: str, value: Any) -> None:
    if not isinstance(value, Mapping):
        raise AnsibleFilterError(f"{what}: wanted a dict by package name, found {value!r}")


def missing_packages(
    names: Sequence[str], installed: Mapping[str, Any], versions: Mapping[str, Any] | None = None
) -> list[str]:
    """See missing_packages.yml."""
    _check_names(names)
    _check_mapping("installed", installed)
    _check_mapping("versions", versions or {})
    return _packages.missing_packages(names, installed, versions or {})


def packages_with_versions(names: Sequence[str], versions: Mapping[str, Any], separator: str = "=") -> list[str]:
    """See packages_with_versions.yml."""
    _check_names(names)
    _check_mapping("versions", versions)
    return _packages.packages_with_versions(names, versions, separator)


class FilterModule:
    """What Ansible asks for the filters of this file."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """The filters by name."""
        return {"missing_packages": missing_packages, "packages_with_versions": packages_with_versions}
