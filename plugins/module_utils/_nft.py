# SPDX-License-Identifier: Apache-2.0
# PRIVATE to the collection: do not import this from outside, it may change without notice.
"""Replace one own nftables table under a rollback that only a new connection disarms.

The file that is loaded at boot is replaced last, after the new connection: a reboot in between loads the old one.

Whether the live table is the wanted one is not guessed from text: the wanted ruleset is loaded into a network namespace
of its own, and the kernel's listing of it is compared with the listing of the live table.
"""

from __future__ import annotations

import difflib
import hashlib
import ipaddress
import json
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Union

from ansible_collections.gpufleet.metal.plugins.module_utils import _files
from ansible_collections.gpufleet.metal.plugins.module_utils._commands import Runner
from ansible_collections.gpufleet.metal.plugins.module_utils._errors import FleetError, InvalidInputError
from ansible_collections.gpufleet.metal.plugins.module_utils._rollback import Rollback, check_seconds

STATE_DIRECTORY = "/run/gpufleet-nft"
"""Where the rollbacks of tables live."""

ARGUMENT_SPEC: dict[str, dict[str, Any]] = {
    "name": {"type": "str", "required": True},
    "family": {"type": "str", "choices": ["inet", "ip", "ip6"], "default": "inet"},
    "path": {"type": "str", "required": True},
    "content": {"type": "str", "required": True},
    "rollback_seconds": {"type": "int", "default": 60},
    "controller_must_match": {
        "type": "list",
        "elements": "dict",
        "default": [],
        "options": {
            "ports": {"type": "list", "elements": "int", "required": True},
            "networks": {"type": "list", "elements": "str", "required": True},
        },
    },
    "assume_controller_allowed": {"type": "bool", "default": False},
}
"""Options of the task, shared by the action plugin and the module."""

Network = Union[ipaddress.IPv4Network, ipaddress.IPv6Network]

_NAME = re.compile(r"^[A-Za-z_][A-Za-z0-9_]{0,63}$")
_QUOTED = re.compile(r'"[^"\n]*"')
_COMMENT = re.compile(r"#[^\n]*")
_PROCESS = re.compile(r'\("([^"]+)",pid=')


class RulesetError(FleetError):
    """The ruleset can't be applied, or was applied and taken back."""


# -------------------------------------------------------------------------------------------------------- addresses


def networks_of_family(members: Iterable[Any], family: int) -> list[str]:
    """Pick the members of one address family (4 or 6), merged where they overlap or touch, sorted, as nft reads them.

    A network with host bits set is refused, because it is usually a mistyped prefix length. Raises InvalidInputError.
    """
    chosen = [network for network in map(parse_network, members) if network.version == family]
    merged: list[Any] = sorted(ipaddress.collapse_addresses(chosen))  # type: ignore[type-var]
    return [
        str(network.network_address) if network.prefixlen == network.max_prefixlen else str(network)
        for network in merged
    ]


def parse_network(text: Any) -> Network:
    """Read an address or a CIDR. Raises InvalidInputError that repeats the value."""
    if not isinstance(text, str):
        raise InvalidInputError(f"{text!r} is not an address: wanted a string such as 192.0.2.0/24 or 2001:db8::1")
    try:
        return ipaddress.ip_network(text)
    except ValueError as fault:
        raise InvalidInputError(f"{text!r} is not an address or a network: {fault}") from fault


def parse_ssh_connection(text: str) -> tuple[str, int, int] | None:
    """Read the variable that sshd sets: (client address, client port, server port), or None if there is none."""
    parts = text.split()
    if len(parts) != 4 or not parts[1].isdigit() or not parts[3].isdigit():
        return None
    return parts[0].split("%")[0], int(parts[1]), int(parts[3])


def check_controller(
    connection: tuple[str, int, int], accepted: Sequence[Mapping[str, Any]], family: str, name: str
) -> None:
    """Raise RulesetError unless one of ``accepted`` ({ports, networks}) lets in the client of this ssh connection."""
    client, __, port = connection
    address = ipaddress.ip_address(client)
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    networks = [
        network
        for rule in accepted
        if port in map(int, rule["ports"])
        for network in map(parse_network, rule["networks"])
    ]
    if any(address in network for network in networks if network.version == address.version):
        return
    found = ", ".join(sorted({str(network) for network in networks})) or "nobody"
    raise RulesetError(
        f"The new table {family} {name} would lock this controller out: the host sees it as {address}, on port {port}, "
        f"and that port would be open for {found}. Nothing was changed. Add the address to fleet_management_networks "
        f"(or to the set that the ssh rule of this host names)"
    )


# ---------------------------------------------------------------------------------------------------------- ruleset


def check_options(name: str, path: str, content: str, rollback_seconds: int) -> None:
    """Check what an argument spec can't say. Raises InvalidInputError."""
    if not _NAME.match(name):
        raise InvalidInputError(f"name is {name!r}, wanted letters, digits and underscores, starting with a letter")
    if not path.startswith("/") or os.path.normpath(path) != path:
        raise InvalidInputError(f"path is {path!r}, wanted an absolute path without '..', '//' or a slash at the end")
    check_seconds("rollback_seconds", rollback_seconds)
    check_body(content)


def check_body(content: str) -> None:
    """Refuse a body that could leave the table: unbalanced braces or an include. Raises InvalidInputError."""
    bare = _COMMENT.sub("", _QUOTED.sub('""', content))
    if re.search(r"^\s*include\b", bare, re.MULTILINE):
        raise InvalidInputError("content holds an 'include': a table under this module is one self-contained text")
    depth = 0
    for number, line in enumerate(bare.splitlines(), 1):
        for sign in line:
            depth += {"{": 1, "}": -1}.get(sign, 0)
            if depth < 0:
                raise InvalidInputError(
                    f"content closes the table itself in line {number}; it is the inside of one table, "
                    f"so that no other table can be touched"
                )
    if depth:
        raise InvalidInputError(f"content leaves {depth} brace(s) open")


def ruleset(family: str, name: str, content: str) -> str:
    """The text that replaces the table in one transaction, whether or not it exists; used now and at every boot."""
    body = "".join(f"  {line}".rstrip() + "\n" for line in content.strip("\n").splitlines())
    return (
        "#!/usr/sbin/nft -f\n"
        "# Managed by gpufleet.metal. One transaction replaces this table; every other table stays as it is.\n"
        f"table {family} {name}\ndelete table {family} {name}\ntable {family} {name} {{\n{body}}}\n"
    )


# ----------------------------------------------------------------------------------------------------- on the host


@dataclass(frozen=True)
class Table:
    """One table and the file that holds it."""

    family: str
    name: str
    path: str
    text: str
    nft: str
    state_directory: str = STATE_DIRECTORY

    @property
    def rollback(self) -> Rollback:
        """What undoes an unconfirmed change of this table."""
        name = f"{self.family}-{self.name}"
        what = f"the new table {self.family} {self.name}"
        change = hashlib.sha256(self.text.encode()).hexdigest()
        return Rollback(os.path.join(self.state_directory, name), f"gpufleet-nft-rollback-{name}", what, change)


@dataclass(frozen=True)
class Comparison:
    """What is on the host against what is wanted. Listings are the kernel's own, without counters."""

    live: str | None
    wanted: str
    old_file: str | None
    text: str

    @property
    def table_differs(self) -> bool:
        """Whether the kernel holds other rules than wanted."""
        return self.live != self.wanted

    @property
    def changed(self) -> bool:
        """Whether the table or the file that is loaded at boot differs."""
        return self.table_differs or self.old_file != self.text

    def diff(self, table: Table) -> dict[str, str]:
        """The difference as Ansible shows it: rules if they differ, else the file's text."""
        if self.table_differs:
            header = f"table {table.family} {table.name}"
            return {"before_header": header, "after_header": header, "before": self.live or "", "after": self.wanted}
        return {
            "before_header": table.path,
            "after_header": table.path,
            "before": self.old_file or "",
            "after": self.text if self.changed else (self.old_file or ""),
        }


def compare(table: Table, run: Runner) -> Comparison:
    """Compare the live table and the file with the wanted ruleset; changes nothing."""
    wanted = listing_in_a_namespace(table, table.text, run)
    current = _files.look(table.path)
    if current.kind == "directory":
        raise RulesetError(f"{table.path} is a directory, wanted a file; remove it first")
    old = None if current.content is None else current.content.decode("utf-8", errors="replace")
    return Comparison(live_listing(table, run), wanted, old, table.text)


def live_listing(table: Table, run: Runner) -> str | None:
    """The kernel's listing of the table, None if there is none."""
    status, out, err = run([table.nft, "-s", "list", "table", table.family, table.name])
    if status == 0:
        return out
    if "No such file or directory" in err:
        return None
    raise RulesetError(f"'nft list table {table.family} {table.name}' exited with {status}: {err.strip()}")


def listing_in_a_namespace(table: Table, text: str, run: Runner) -> str:
    """Load ``text`` into a network namespace of its own and list it there: the kernel's view of what is wanted."""
    status, out, err = _load_in_a_namespace(table, text, run)
    if status != 0:
        raise RulesetError(
            f"The ruleset of table {table.family} {table.name} is refused by nft: {err.strip()}. Nothing was changed"
        )
    return out


def _load_in_a_namespace(table: Table, text: str, run: Runner) -> tuple[int, str, str]:
    script = f'"{table.nft}" -f - && exec "{table.nft}" -s list table "$1" "$2"'
    return run(["unshare", "--net", "--", "sh", "-c", script, "sh", table.family, table.name], text)


def arm_and_apply(table: Table, old: Comparison, seconds: int, run: Runner, now: Callable[[], float]) -> None:
    """Check, arm the rollback, and replace the live table. The file stays the old one until :func:`confirm`."""
    directory = os.path.dirname(table.path)
    if not os.path.isdir(directory):
        raise RulesetError(f"{table.path}: the directory {directory} does not exist; make it first")
    status, __, err = run([table.nft, "-c", "-f", "-"], table.text)
    if status != 0:
        raise RulesetError(f"'nft -c' refuses the ruleset: {err.strip()}. Nothing was changed")
    previous = _previous(table, old, run)
    rollback = table.rollback
    rollback.prepare()
    rollback.write("previous.nft", previous)
    rollback.write("next.nft", table.text)
    rollback.arm([[table.nft, "-f", rollback.path("previous.nft")]], seconds, run, now)
    status, __, err = run([table.nft, "-f", rollback.path("next.nft")])
    if status != 0:
        rollback.disarm(run)
        rollback.finish()
        raise RulesetError(
            f"nft refuses the ruleset: {err.strip()}. The transaction was refused as a whole: nothing changed"
        )


def _previous(table: Table, old: Comparison, run: Runner) -> str:
    """The text that restores the live table; proven to load and to give the same listing before it is relied on."""
    head = f"table {table.family} {table.name}\ndelete table {table.family} {table.name}\n"
    if old.live is None:
        return head
    # The listing first: it is what is live. nft's listings do not all load again, so the old file is the second choice.
    faults = []
    for candidate in (head + old.live, old.old_file):
        if candidate is None:
            continue
        status, out, err = _load_in_a_namespace(table, candidate, run)
        if status == 0 and out == old.live:
            return candidate
        faults.append(err.strip() if status != 0 else "it lists differently after loading")
    raise RulesetError(
        f"The live table {table.family} {table.name} can't be reproduced, so a rollback could not restore it "
        f"({'; '.join(faults)}). Nothing was changed. Remove it with 'nft delete table {table.family} {table.name}' "
        f"while a console is at hand, and run again"
    )


def confirm(table: Table, run: Runner) -> None:
    """Disarm the rollback and write the file for the next boot. Called over a connection made after the change.

    Called again for the same change, because the answer was lost, it succeeds again.
    """
    rollback = table.rollback
    with rollback.confirming():
        rollback.disarm(run)
        try:
            write_file(table, run)
        except FleetError as fault:
            status, __, err = run([table.nft, "-f", rollback.path("previous.nft")])
            after = "The old table is back" if status == 0 else f"The old table could not be put back: {err.strip()}"
            os.rename(rollback.path("confirmed"), rollback.path("withdrawn"))
            raise RulesetError(
                f"The new table was confirmed, but its file could not be written: {fault}. {after}"
            ) from fault
        rollback.keep_answer()


def write_file(table: Table, run: Runner) -> None:
    """Replace the file that is loaded at boot."""
    _files.apply([_files.FileSpec(table.path, "file", table.text.encode(), "root", "root", 0o600)], run)


# ---------------------------------------------------------------------------------------------------------- reading


def describe(table: Table, run: Runner) -> dict[str, Any]:
    """What the live table does, whether its file would load the same, and who listens behind it.

    Where the table has a text, the live one is compared with what the kernel makes of that, too.
    """
    live = live_listing(table, run)
    current = _files.look(table.path)
    text = "" if current.content is None else current.content.decode("utf-8", errors="replace")
    result: dict[str, Any] = {
        "exists": live is not None,
        "matches_file": bool(text) and live is not None and listing_in_a_namespace(table, text, run) == live,
        "surplus": [],
        "missing": [],
        "policies": {},
        "accepted": [],
    }
    if table.text:
        wanted = listing_in_a_namespace(table, table.text, run)
        result["surplus"], result["missing"] = line_differences(live or "", wanted)
    if live is not None:
        rules = json.loads(_output(run, [table.nft, "-j", "list", "table", table.family, table.name]))
        result["policies"] = policies(rules)
        result["accepted"] = accepted_ports(rules)
    result["listeners"] = listeners(_output(run, ["ss", "-H", "-l", "-t", "-u", "-n", "-p"]))
    connections = _output(run, ["ss", "-H", "-t", "-n", "-p", "state", "established"])
    result["ssh_ports"] = ssh_ports(result["listeners"], connections)
    return result


def line_differences(live: str, wanted: str) -> tuple[list[str], list[str]]:
    """The lines that only the live listing has, and those that only the wanted one has, in their order."""
    differences = list(difflib.unified_diff(wanted.splitlines(), live.splitlines(), n=0, lineterm=""))[2:]
    surplus = [line[1:].strip() for line in differences if line.startswith("+")]
    missing = [line[1:].strip() for line in differences if line.startswith("-")]
    return surplus, missing


def policies(rules: Mapping[str, Any]) -> dict[str, str]:
    """The policy of each base chain in nft's JSON."""
    chains = [item["chain"] for item in rules["nftables"] if "chain" in item]
    return {chain["name"]: chain["policy"] for chain in chains if "policy" in chain}


def accepted_ports(rules: Mapping[str, Any]) -> list[str]:
    """The destination ports of accepting rules in nft's JSON, as 'chain protocol/port', sorted, each once.

    A range is 'chain protocol/first-last'.
    Forwarded packets are matched by the port before address translation (``ct original proto-dst``).
    """
    found: set[tuple[str, str, int, int]] = set()
    for item in rules["nftables"]:
        rule = item.get("rule", {})
        expressions = rule.get("expr", [])
        if not any("accept" in expression for expression in expressions):
            continue
        protocol = ""
        for match in (expression["match"] for expression in expressions if "match" in expression):
            left, right = match["left"], match["right"]
            if left.get("meta", {}).get("key") == "l4proto" and isinstance(right, (str, int)):
                # nft 1.1 names the protocol, nft 1.0 gives its number.
                protocol = {6: "tcp", 17: "udp"}.get(right, str(right)) if isinstance(right, int) else right
            payload = left.get("payload", {})
            is_port = payload.get("field") == "dport" or left.get("ct", {}).get("key") == "proto-dst"
            if is_port:
                name = payload.get("protocol", protocol)
                found.update((rule["chain"], name, first, last) for first, last in _port_ranges(right))
    return [
        f"{chain} {protocol}/{first}" if first == last else f"{chain} {protocol}/{first}-{last}"
        for chain, protocol, first, last in sorted(found)
    ]


def _port_ranges(right: Any) -> list[tuple[int, int]]:
    """The first and last ports of a match in nft's JSON: numbers and ranges, in a set or alone.

    What refers to a set by its name has no numbers here; the comparison of the listings has it all the same.
    """
    members = right["set"] if isinstance(right, dict) and "set" in right else [right]
    pairs = [
        member["range"] if isinstance(member, dict) and "range" in member else (member, member) for member in members
    ]
    return [(first, last) for first, last in pairs if isinstance(first, int) and isinstance(last, int)]


def listeners(sockets: str) -> list[dict[str, Any]]:
    """Who listens beyond loopback, from `ss -Hltunp`: {protocol, port, processes}, a port once, sorted.

    A socket of the kernel itself has no process.
    """
    found: dict[tuple[str, int], set[str]] = {}
    for line in sockets.splitlines():
        fields = line.split()
        if len(fields) < 5:
            continue
        address, __, port = fields[4].rpartition(":")
        bare = address.split("%")[0].strip("[]")
        if port.isdigit() and not (bare.startswith("127.") or bare in ("::1", "::ffff:127.0.0.1")):
            found.setdefault((fields[0], int(port)), set()).update(_PROCESS.findall(line))
    return [
        {"protocol": protocol, "port": port, "processes": sorted(names)}
        for (protocol, port), names in sorted(found.items())
    ]


def ssh_ports(listening: Sequence[Mapping[str, Any]], connections: str) -> list[int]:
    """The ports on which ssh is served here, whatever its configuration says, sorted.

    ``connections`` are those of `ss -Htnp state established`: where systemd listens for sshd, only these name sshd.
    """
    tcp = {entry["port"]: entry["processes"] for entry in listening if entry["protocol"] == "tcp"}
    found = {port for port, names in tcp.items() if "sshd" in names}
    for line in connections.splitlines():
        fields = line.split()
        port = fields[2].rpartition(":")[2] if len(fields) > 4 else ""
        if port.isdigit() and int(port) in tcp and any(name.startswith("sshd") for name in _PROCESS.findall(line)):
            found.add(int(port))
    return sorted(found)


def _output(run: Runner, argv: Sequence[str]) -> str:
    status, out, err = run(argv)
    if status != 0:
        raise RulesetError(f"'{' '.join(argv)}' exited with {status}: {err.strip()}")
    return out
