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

INPUT_OPTION = "firewall_input"
"""The option whose rules are for the host itself."""

OWN_OPENINGS = frozenset({"input udp/68", "input udp/546"})
"""What the role's table accepts by itself, whatever the rules: answers to DHCP clients."""

RUN_AGAIN = "run gpufleet.metal.hardening to put the planned table in place again"

_SHOWN_LINES = 5
_PORTS = range(1, 65536)
_NAME = re.compile(r"[A-Za-z0-9 ._/:,()+-]{1,100}")
_NAME_WANTED = "wanted a name of 1 to 100 letters, digits, spaces and ._/:,()+-"


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
        if rule["protocol"] == "vrrp":
            if ports != []:
                faults.append(f"{what}: ports are {ports!r}, wanted an empty list: VRRP has no ports")
            if option != INPUT_OPTION:
                faults.append(f"{what}: protocol is 'vrrp', wanted tcp or udp: nothing translates VRRP")
        elif not isinstance(ports, list) or not ports or any(port not in _PORTS for port in ports):
            faults.append(f"{what}: ports are {ports!r}, wanted a list of numbers from 1 to 65535")
        if not _NAME.fullmatch(str(name)):
            faults.append(f"{what}: {_NAME_WANTED}")
    return faults


def routed_faults(rules: Iterable[Mapping[str, Any]], option: str, sets: Mapping[str, Any]) -> list[str]:
    """Say what is wrong with the rules ({name, source, destination}) for packets that pass the host untranslated.

    Both ends are sets: a rule for everybody would make a router of the host.
    """
    faults = []
    known = ", ".join(sorted(sets)) or "there is none"
    for rule in rules:
        what = f"{option}, rule '{rule['name']}'"
        for end in ("source", "destination"):
            if rule[end] not in sets:
                faults.append(f"{what}: {end} is '{rule[end]}', wanted a set of firewall_sets ({known})")
        if not _NAME.fullmatch(str(rule["name"])):
            faults.append(f"{what}: {_NAME_WANTED}")
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


def disagreements(
    state: Mapping[str, Any],
    input_rules: Sequence[Mapping[str, Any]],
    forward_rules: Sequence[Mapping[str, Any]],
    sets: Mapping[str, Sequence[str]],
    others: Iterable[str],
    boot: str,
    listeners_expected: bool,
) -> list[str]:
    """Say where the live table, its file, the next boot and the listening sockets do not agree with the rules.

    ``state`` is the result of nft_table_info, ``others`` are sentences about other managers of rules, ``boot`` is what
    systemd says of the unit that loads the table. ``listeners_expected``: whether every service is deployed.
    """
    openings = [
        *((f"input {rule['protocol']}/{port}", rule) for rule in input_rules for port in rule["ports"]),
        *((f"forward {rule['protocol']}/{port}", rule) for rule in forward_rules for port in rule["ports"]),
    ]
    processes = {f"{entry['protocol']}/{entry['port']}": entry["processes"] for entry in state["listeners"]}
    return [
        *_table_faults(state, boot),
        *(
            f"{other}, and would drop what this table accepts, wanted none: set firewall_stop_others"
            for other in others
        ),
        *_opening_faults(state["accepted"], dict(openings), processes),
        *(_listener_faults(openings, processes) if listeners_expected else []),
        *_ssh_faults(state["ssh_ports"], input_rules, sets),
    ]


def _table_faults(state: Mapping[str, Any], boot: str) -> list[str]:
    faults = []
    if not state["exists"]:
        faults.append(f"there is no table, wanted the planned one: {RUN_AGAIN}")
    else:
        for found, what in ((state["surplus"], "has, and was not planned"), (state["missing"], "lacks")):
            if found:
                more = f" and {len(found) - _SHOWN_LINES} more" if len(found) > _SHOWN_LINES else ""
                lines = ", ".join(f"'{line}'" for line in found[:_SHOWN_LINES])
                faults.append(f"the live table {what}: {lines}{more}; {RUN_AGAIN}")
        if not state["matches_file"]:
            faults.append(f"the next boot would load other rules than those that are live; {RUN_AGAIN}")
    if boot != "enabled":
        faults.append(f"gpufleet-firewall.service is {boot or 'not installed'}, wanted enabled: {RUN_AGAIN}")
    return faults


def _opening_faults(
    accepted: Sequence[str], planned: Mapping[str, Mapping[str, Any]], processes: Mapping[str, Sequence[str]]
) -> list[str]:
    faults = []
    for opening in accepted:
        if opening in planned or opening in OWN_OPENINGS:
            continue
        chain, __, port = opening.partition(" ")
        what = f"{port} of containers" if chain == "forward" else port
        faults.append(f"{what} is open and no rule plans it ({_who(port, processes)}), wanted closed; {RUN_AGAIN}")
    for opening, rule in planned.items():
        if opening not in accepted:
            port = opening.partition(" ")[2]
            faults.append(f"{port} is closed, wanted open by the rule '{rule['name']}'; {RUN_AGAIN}")
    return faults


def _listener_faults(
    openings: Iterable[tuple[str, Mapping[str, Any]]], processes: Mapping[str, Sequence[str]]
) -> list[str]:
    """Say which open ports lead to nobody.

    Ports of containers are listened on only where Docker's proxy is in use, which a port of another one shows.
    """
    proxied = any("docker-proxy" in names for names in processes.values())
    faults = []
    for opening, rule in openings:
        chain, __, port = opening.partition(" ")
        if port not in processes and (chain == "input" or proxied):
            faults.append(
                f"{port} is open by the rule '{rule['name']}' and nobody listens there, wanted the service that the "
                f"rule is for: look at 'systemctl --failed' and 'docker ps --all', or take the rule out"
            )
    return faults


def _ssh_faults(
    ports: Sequence[int], rules: Iterable[Mapping[str, Any]], sets: Mapping[str, Sequence[str]]
) -> list[str]:
    """Say that ssh is served where no rule lets anybody in: connections that exist go on, and hide it."""
    open_ports = {
        port
        for rule in rules
        if rule["protocol"] == "tcp" and (rule["source"] == ANY or sets[rule["source"]])
        for port in rule["ports"]
    }
    if not ports or open_ports & set(ports):
        return []
    served = ", ".join(f"tcp/{port}" for port in ports)
    return [
        f"sshd listens on {served}, which no rule opens, wanted a rule for one of these: set ansible_port to the "
        f"port of sshd and run gpufleet.metal.hardening, or bring sshd back to a port that is open"
    ]


def _who(port: str, processes: Mapping[str, Sequence[str]]) -> str:
    """Who listens on 'protocol/port', or on one of 'protocol/first-last'."""
    protocol, __, numbers = port.partition("/")
    first, __, last = numbers.partition("-")
    found = [
        f"{', '.join(names) or 'the kernel'} listens on {listening}"
        for listening, names in processes.items()
        if listening.partition("/")[0] == protocol
        and int(first) <= int(listening.partition("/")[2]) <= int(last or first)
    ]
    return "; ".join(found) or "nobody listens there"
