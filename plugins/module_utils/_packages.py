# SPDX-License-Identifier: Apache-2.0
# PRIVATE to the collection: do not import this from outside, it may change without notice.
"""Compare wanted packages with installed ones, and write them as package managers take them.

A wanted version is text in which ``*`` stands for anything, as apt and dnf take it: ``5:29.4.*``. A package without a
wanted version (absent from ``versions``, null or empty) is fine in any.

``package_facts`` gives a package of apt its whole version, and one of rpm three parts: epoch, version and release. dnf
takes them as ``version``, ``version-release``, and both of these behind ``epoch:``, so each of them counts.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any


def _matches(version: str, wanted: Any) -> bool:
    """Whether a version is a wanted one; only ``*`` has a meaning of its own."""
    return re.fullmatch(re.escape(str(wanted)).replace(r"\*", ".*"), version) is not None


def _spellings(found: Mapping[str, Any]) -> list[str]:
    """Every way in which the package manager takes the version of an installed package."""
    version, release = str(found["version"]), found.get("release")
    spellings = [version] if release is None else [version, f"{version}-{release}"]
    if release is not None or found.get("epoch") is not None:
        spellings += [f"{found.get('epoch') or 0}:{text}" for text in spellings]
    return spellings


def missing_packages(
    names: Iterable[str],
    installed: Mapping[str, Iterable[Mapping[str, Any]]],
    versions: Mapping[str, Any],
) -> list[str]:
    """Return the names, in their order, of packages that aren't there or not in the wanted version.

    ``installed`` is ``ansible_facts.packages`` of ``ansible.builtin.package_facts``: several versions of one package
    may be there.
    """
    return [
        name
        for name in names
        if not any(
            _matches(spelling, versions.get(name) or "*")
            for found in installed.get(name, ())
            for spelling in _spellings(found)
        )
    ]


def packages_with_versions(names: Iterable[str], versions: Mapping[str, Any], separator: str) -> list[str]:
    """Return what the package manager is asked for: a name, or name, separator (apt ``=``, dnf ``-``) and version."""
    return [f"{name}{separator}{versions[name]}" if versions.get(name) else name for name in names]
