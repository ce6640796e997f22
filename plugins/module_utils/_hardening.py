# SPDX-License-Identifier: Apache-2.0
# PRIVATE to the collection: do not import this from outside, it may change without notice.
"""What the role os_hardening has to change, from what the host's own tools print."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from ansible_collections.gpufleet.metal.plugins.module_utils._errors import FleetError

UNIT_PROPERTIES = ("Id", "UnitFileState", "ActiveState", "ConditionResult", "ConditionTimestampMonotonic")
"""What ``systemctl show`` has to be asked for."""


def sysctl_assignments(lines: Iterable[str], wanted: Mapping[str, Any]) -> list[str]:
    """List ``key=value`` for every live kernel value that differs from the one wanted for it.

    ``lines`` are the output of ``sysctl --all``, ``key = value`` each. In the names of ``wanted``, a ``*`` stands for
    one part of a key; a key that is also named outright has the value of that name. Values are compared word by word:
    the kernel separates them with tabs. A wanted name that the kernel does not have is left out.
    """
    patterns = [(re.compile(re.escape(name).replace(r"\*", "[^.]+")), value) for name, value in wanted.items()]

    def values(key: str) -> list[Any]:
        return [wanted[key]] if key in wanted else [value for pattern, value in patterns if pattern.fullmatch(key)]

    live = [(key, found.split()) for key, __, found in (line.partition(" = ") for line in lines)]
    return [f"{key}={value}" for key, found in live for value in values(key) if found != str(value).split()]


def units_to_start(shown: str) -> list[str]:
    """List the units that are not both enabled and active.

    ``shown`` is the output of ``systemctl show`` for UNIT_PROPERTIES: a block of ``name=value`` per unit, with empty
    lines between. A unit that systemd declined to start because of the unit's own condition (chrony without the right
    to set a clock, as in a container) is as it can be. Raises FleetError if a property is missing.
    """
    units = []
    for block in filter(None, shown.split("\n\n")):
        properties = {name: value for name, __, value in (line.partition("=") for line in block.split("\n"))}
        missing = [name for name in UNIT_PROPERTIES if name not in properties]
        if missing:
            raise FleetError(f"'systemctl show' printed {block!r}, wanted the property {missing[0]} too")
        declined = properties["ConditionResult"] == "no" and properties["ConditionTimestampMonotonic"] != "0"
        enabled = properties["UnitFileState"] in ("enabled", "static")
        if not enabled or (properties["ActiveState"] != "active" and not declined):
            units.append(properties["Id"])
    return units
