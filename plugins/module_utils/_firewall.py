# SPDX-License-Identifier: Apache-2.0
# PRIVATE to the collection: do not import this from outside, it may change without notice.
"""What the role firewall works out from its options and the host's facts before it writes a table."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ansible_collections.gpufleet.metal.plugins.module_utils._errors import InvalidInputError

ANY = "any"
"""The source of a rule that is open to everybody."""

ANYWHERE = ("0.0.0.0/0", "::/0")
"""What the source ``any`` stands for."""

_PORTS = range(1, 65536)
_NAME = re.compile(r"[A-Za-z0-9 ._/:,()+-]{1,100}")


def rule_faults(rules: Iterable[Mapping[str, Any]], option: str, sets: Mapping[str, Any]) -> list[str]:
    """Say what is wrong with the rules ({name, source, protocol, ports}) of an option, in the rules' order.

    ``sets`` are those of firewall_sets; a rule's source is one of their names or ``any``.
    """
    faults = []
    known = ", ".join(sorted(sets)) or "there is none"
    for rule in rules:
        name, source, ports = rule["name"], rule["source"], rule["ports"]
        what = f"{option}, rule '{name}'"
        if source != ANY and source not in sets:
            faults.append(f"{what}: source is '{source}', wanted '{ANY}' or a set of firewall_sets ({known})")
        # The role's specification also takes what can be turned into a list of numbers; nothing turns it.
        if not isinstance(ports, list) or not ports or any(port not in _PORTS for port in ports):
            faults.append(f"{what}: ports are {ports!r}, wanted a list of numbers from 1 to 65535")
        if not _NAME.fullmatch(str(name)):
            faults.append(f"{what}: wanted a name of 1 to 100 letters, digits, spaces and ._/:,()+-")
    return faults


def outer_interfaces(facts: Mapping[str, Any], inner_pattern: str) -> list[str]:
    """Name the interfaces through which others than this host's containers come in, in the facts' order.

    ``facts`` are those of ansible.builtin.setup; ``inner_pattern`` matches the names that containers and overlays give.
    A bridge of any name whose members all match is one of containers too. An interface with a default route is outer
    whatever it is called.
    """
    inner = re.compile(inner_pattern)
    uplinks = {facts.get(family, {}).get("interface") for family in ("default_ipv4", "default_ipv6")}

    def is_inner(name: str) -> bool:
        # setup names the facts of an interface so.
        interface = facts.get(name.replace("-", "_"), {})
        return bool(inner.match(name)) or (
            isinstance(interface, Mapping)
            and interface.get("type") == "bridge"
            and all(inner.match(member) for member in interface.get("interfaces", []))
        )

    return [name for name in facts["interfaces"] if name in uplinks or not is_inner(name)]


def tcp_openings(rules: Iterable[Mapping[str, Any]], sets: Mapping[str, Sequence[str]]) -> list[dict[str, Any]]:
    """List the ports that the rules open over TCP, each with the networks that may reach them: {ports, networks}.

    Raises InvalidInputError if a rule's source is no set.
    """
    openings = []
    for rule in rules:
        if rule["protocol"] != "tcp":
            continue
        source = rule["source"]
        if source != ANY and source not in sets:
            raise InvalidInputError(f"rule '{rule['name']}': source is '{source}', which is no set of firewall_sets")
        openings.append({"ports": rule["ports"], "networks": list(ANYWHERE) if source == ANY else sets[source]})
    return openings
