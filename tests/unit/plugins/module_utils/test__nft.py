# SPDX-License-Identifier: Apache-2.0
"""One table is replaced under a rollback; texts, addresses and listings are read as they are."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.gpufleet.metal.plugins.module_utils import _nft
from ansible_collections.gpufleet.metal.plugins.module_utils._errors import InvalidInputError
from ansible_collections.gpufleet.metal.plugins.module_utils._rollback import RollbackError

# -------------------------------------------------------------------------------------------------------- addresses


@pytest.mark.parametrize(
    ("members", "four", "six"),
    [
        ([], [], []),
        (["198.51.100.1", "2001:db8::1"], ["198.51.100.1"], ["2001:db8::1"]),
        (["192.0.2.0/25", "192.0.2.128/25", "192.0.2.7"], ["192.0.2.0/24"], []),
        (["10.0.0.9", "10.0.0.10", "9.0.0.0/8"], ["9.0.0.0/8", "10.0.0.9", "10.0.0.10"], []),
        (["0.0.0.0/0", "::/0"], ["0.0.0.0/0"], ["::/0"]),
        (["2001:DB8:0::/48", "2001:db8:0:1::/64"], [], ["2001:db8::/48"]),
    ],
)
def test_networks_of_family(members: list[str], four: list[str], six: list[str]) -> None:
    assert _nft.networks_of_family(members, 4) == four
    assert _nft.networks_of_family(members, 6) == six


@pytest.mark.parametrize(
    ("member", "message"),
    [
        ("10.0.0.1/8", "'10.0.0.1/8' is not an address or a network: 10.0.0.1/8 has host bits set"),
        (
            "gw-1",
            "'gw-1' is not an address or a network: 'gw-1' does not appear to be an IPv4 or IPv6 network",
        ),
        (7, "7 is not an address: wanted a string such as 192.0.2.0/24 or 2001:db8::1"),
    ],
)
def test_what_is_no_network_is_repeated(member: Any, message: str) -> None:
    with pytest.raises(InvalidInputError) as caught:
        _nft.networks_of_family([member], 4)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("198.51.100.1 52044 198.51.100.11 22\n", ("198.51.100.1", 52044, 22)),
        ("fe80::1%eth0 52044 fe80::2%eth0 2222", ("fe80::1", 52044, 2222)),
        ("", None),
        ("198.51.100.1 52044", None),
        ("a b c d", None),
    ],
)
def test_parse_ssh_connection(text: str, wanted: Any) -> None:
    assert _nft.parse_ssh_connection(text) == wanted


@pytest.mark.parametrize(
    ("client", "port", "accepted"),
    [
        ("198.51.100.1", 22, [{"ports": [22], "networks": ["198.51.100.0/24"]}]),
        ("198.51.100.1", 2222, [{"ports": [22], "networks": []}, {"ports": [22, 2222], "networks": ["0.0.0.0/0"]}]),
        ("2001:db8::5", 22, [{"ports": [22], "networks": ["192.0.2.0/24", "2001:db8::/64"]}]),
        ("::ffff:198.51.100.1", 22, [{"ports": [22], "networks": ["198.51.100.1"]}]),
    ],
)
def test_a_controller_that_is_let_in(client: str, port: int, accepted: list[dict[str, Any]]) -> None:
    _nft.check_controller((client, 50000, port), accepted, "inet", "x")


@pytest.mark.parametrize(
    ("client", "port", "accepted", "found"),
    [
        ("198.51.100.1", 22, [], "nobody"),
        ("198.51.100.1", 22, [{"ports": [443], "networks": ["0.0.0.0/0"]}], "nobody"),
        ("198.51.100.1", 2222, [{"ports": [22], "networks": ["0.0.0.0/0"]}], "nobody"),
        ("198.51.100.1", 22, [{"ports": [22], "networks": ["::/0", "10.0.0.0/8"]}], "10.0.0.0/8, ::/0"),
    ],
)
def test_a_controller_that_would_be_locked_out(
    client: str, port: int, accepted: list[dict[str, Any]], found: str
) -> None:
    with pytest.raises(_nft.RulesetError) as caught:
        _nft.check_controller((client, 50000, port), accepted, "inet", "gpufleet")
    assert str(caught.value) == (
        f"The new table inet gpufleet would lock this controller out: the host sees it as {client}, on port {port}, "
        f"and that port would be open for {found}. Nothing was changed. Add the address to fleet_management_networks "
        f"(or to the set that the ssh rule of this host names)"
    )


# ---------------------------------------------------------------------------------------------------------- ruleset


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            "chain a { }\n}\ntable inet other {",
            (
                "content closes the table itself in line 2; it is the inside of one table, "
                "so that no other table can be touched"
            ),
        ),
        ("chain a {", "content leaves 1 brace(s) open"),
        (
            '  include "/etc/other.nft"',
            "content holds an 'include': a table under this module is one self-contained text",
        ),
    ],
)
def test_a_content_that_could_leave_its_table_is_refused(content: str, message: str) -> None:
    with pytest.raises(InvalidInputError) as caught:
        _nft.check_body(content)
    assert str(caught.value) == message


@pytest.mark.parametrize("content", ['chain a { drop comment "}" # }\n}', "# }}}\nset b { }", ""])
def test_braces_in_strings_and_comments_do_not_count(content: str) -> None:
    _nft.check_body(content)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "9x"}, "name is '9x', wanted letters, digits and underscores, starting with a letter"),
        ({"name": "a; flush"}, "name is 'a; flush', wanted letters, digits and underscores, starting with a letter"),
        ({"path": "x.nft"}, "path is 'x.nft', wanted an absolute path without '..', '//' or a slash at the end"),
        ({"rollback_seconds": 5}, "rollback_seconds is 5, wanted 10 to 600 seconds"),
    ],
)
def test_options_that_are_refused(options: dict[str, Any], message: str) -> None:
    good = {"name": "x", "path": "/etc/x.nft", "content": "", "rollback_seconds": 60}
    with pytest.raises(InvalidInputError) as caught:
        _nft.check_options(**{**good, **options})
    assert str(caught.value) == message


def test_the_file_replaces_one_table_in_one_transaction() -> None:
    assert _nft.ruleset("inet", "x", "chain a {\n  accept\n}\n\nset b { }\n") == (
        "#!/usr/sbin/nft -f\n"
        "# Managed by gpufleet.metal. One transaction replaces this table; every other table stays as it is.\n"
        "table inet x\n"
        "delete table inet x\n"
        "table inet x {\n"
        "  chain a {\n"
        "    accept\n"
        "  }\n"
        "\n"
        "  set b { }\n"
        "}\n"
    )


# ------------------------------------------------------------------------------------------------------ on the host


class Kernel:
    """A host whose nft keeps one table: its listing is the text between the outermost braces, in upper case."""

    def __init__(self) -> None:
        self.live: str | None = None
        self.refuses: set[str] = set()
        self.calls: list[str] = []

    def listing(self, text: str) -> str:
        start = text.find("{")
        return "" if start < 0 else text[start:].upper()

    def __call__(self, argv: Sequence[str], stdin: str | None = None) -> tuple[int, str, str]:
        words = list(argv)
        kind = {"unshare": "namespace", "systemd-run": "arm", "systemctl": "stop"}.get(words[0], " ".join(words[1:3]))
        self.calls.append(kind)
        if kind in self.refuses:
            return 1, "", f"{kind} refused\n"
        if kind == "namespace":
            text = str(stdin)
            return (1, "", "syntax error\n") if "nonsense" in text else (0, self.listing(text), "")
        if kind == "-s list":
            return (1, "", "Error: No such file or directory\n") if self.live is None else (0, self.live, "")
        if kind.startswith("-f "):
            self.live = self.listing(Path(words[2]).read_text()) or None
        return 0, "", ""


@pytest.fixture
def kernel() -> Kernel:
    return Kernel()


@pytest.fixture
def table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> _nft.Table:
    written = tmp_path / "firewall.nft"

    def write_file(table: _nft.Table, run: Any) -> None:
        written.write_text(table.text)

    monkeypatch.setattr(_nft, "write_file", write_file)
    return _nft.Table("inet", "x", str(written), _nft.ruleset("inet", "x", "new"), "/nft", str(tmp_path / "run"))


def change(table: _nft.Table, kernel: Kernel) -> None:
    _nft.arm_and_apply(table, _nft.compare(table, kernel), 60, kernel, lambda: 0.0)


def test_a_new_table_is_applied_confirmed_and_then_unchanged(table: _nft.Table, kernel: Kernel) -> None:
    first = _nft.compare(table, kernel)
    assert (first.changed, first.table_differs, first.live) == (True, True, None)
    change(table, kernel)
    assert kernel.live == "{\n  NEW\n}\n"
    assert not Path(table.path).exists(), "a reboot before the confirmation loads the old file"
    _nft.confirm(table, kernel)
    assert Path(table.path).read_text() == table.text
    assert not _nft.compare(table, kernel).changed


def test_a_confirmation_whose_answer_was_lost_succeeds_again(table: _nft.Table, kernel: Kernel) -> None:
    change(table, kernel)
    _nft.confirm(table, kernel)
    _nft.confirm(table, kernel)
    assert Path(table.path).read_text() == table.text
    assert table.rollback.confirmed()
    assert not table.rollback.undecided()


def test_a_confirmation_of_an_earlier_change_is_none_of_the_next(
    table: _nft.Table, kernel: Kernel, tmp_path: Path
) -> None:
    change(table, kernel)
    _nft.confirm(table, kernel)
    text = _nft.ruleset("inet", "x", "newer")
    newer = _nft.Table("inet", "x", table.path, text, "/nft", str(tmp_path / "run"))
    assert not newer.rollback.confirmed()
    change(newer, kernel)
    with pytest.raises(RollbackError, match=r"came too late: another change took its place$"):
        _nft.confirm(table, kernel)
    assert newer.rollback.undecided()


def test_the_saved_table_is_the_live_one(table: _nft.Table, kernel: Kernel) -> None:
    kernel.live = "{\n  OLD\n}\n"
    change(table, kernel)
    saved = Path(table.rollback.path("previous.nft")).read_text()
    assert saved == "table inet x\ndelete table inet x\n{\n  OLD\n}\n"


def test_a_host_without_the_table_goes_back_to_none(table: _nft.Table, kernel: Kernel) -> None:
    change(table, kernel)
    assert Path(table.rollback.path("previous.nft")).read_text() == "table inet x\ndelete table inet x\n"


def test_only_the_file_differs(table: _nft.Table, kernel: Kernel) -> None:
    kernel.live = "{\n  NEW\n}\n"
    found = _nft.compare(table, kernel)
    assert (found.changed, found.table_differs) == (True, False)
    assert found.diff(table) == {
        "before_header": table.path,
        "after_header": table.path,
        "before": "",
        "after": table.text,
    }


@pytest.mark.parametrize(
    ("refused", "message"),
    [
        ("-c -f", "'nft -c' refuses the ruleset: -c -f refused. Nothing was changed"),
        ("arm", "The rollback timer can't be armed, so nothing was changed: arm refused"),
    ],
)
def test_what_is_refused_before_the_change(table: _nft.Table, kernel: Kernel, refused: str, message: str) -> None:
    kernel.live = "{\n  OLD\n}\n"
    kernel.refuses = {refused}
    with pytest.raises((_nft.RulesetError, RollbackError)) as caught:
        change(table, kernel)
    assert str(caught.value) == message
    assert kernel.live == "{\n  OLD\n}\n"
    assert not table.rollback.undecided()


def test_a_refused_transaction_disarms(table: _nft.Table, kernel: Kernel) -> None:
    kernel.refuses = {f"-f {table.rollback.path('next.nft')}"}
    with pytest.raises(_nft.RulesetError, match=r"The transaction was refused as a whole: nothing changed$"):
        change(table, kernel)
    assert kernel.calls[-1] == "stop"
    assert not Path(table.rollback.directory).exists()


def test_a_ruleset_that_nft_refuses(table: _nft.Table, kernel: Kernel, tmp_path: Path) -> None:
    bad = _nft.Table("inet", "x", table.path, _nft.ruleset("inet", "x", "nonsense"), "/nft", str(tmp_path / "run"))
    with pytest.raises(_nft.RulesetError) as caught:
        _nft.compare(bad, kernel)
    assert str(caught.value) == "The ruleset of table inet x is refused by nft: syntax error. Nothing was changed"


def test_a_live_table_that_cannot_be_reproduced_is_not_replaced(table: _nft.Table, kernel: Kernel) -> None:
    kernel.live = "{\n  nonsense\n}\n"
    with pytest.raises(_nft.RulesetError) as caught:
        change(table, kernel)
    assert str(caught.value) == (
        "The live table inet x can't be reproduced, so a rollback could not restore it (syntax error). "
        "Nothing was changed. Remove it with 'nft delete table inet x' while a console is at hand, and run again"
    )


def test_a_listing_that_does_not_load_again_is_replaced_by_the_old_file(table: _nft.Table, kernel: Kernel) -> None:
    old = _nft.ruleset("inet", "x", "odd")
    Path(table.path).write_text(old)

    class Odd(Kernel):
        def __call__(self, argv: Sequence[str], stdin: str | None = None) -> tuple[int, str, str]:
            if argv[0] == "unshare" and "ODD" in str(stdin):
                return 1, "", "nft can't read its own listing"
            return super().__call__(argv, stdin)

    host = Odd()
    host.live = host.listing(old)
    change(table, host)
    assert Path(table.rollback.path("previous.nft")).read_text() == old


def test_a_late_confirmation_writes_no_file(table: _nft.Table, kernel: Kernel) -> None:
    change(table, kernel)
    Path(table.rollback.path("armed")).rename(table.rollback.path("fired"))
    with pytest.raises(RollbackError, match=r"^The confirmation of the new table inet x came too late"):
        _nft.confirm(table, kernel)
    assert not Path(table.path).exists()


def test_a_file_that_cannot_be_written_takes_the_table_back(
    table: _nft.Table, kernel: Kernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    kernel.live = "{\n  OLD\n}\n"
    change(table, kernel)

    def full(table: _nft.Table, run: Any) -> None:
        raise _nft.RulesetError(f"{table.path}: No space left on device")

    monkeypatch.setattr(_nft, "write_file", full)
    with pytest.raises(_nft.RulesetError) as caught:
        _nft.confirm(table, kernel)
    assert str(caught.value) == (
        f"The new table was confirmed, but its file could not be written: {table.path}: No space left on device. "
        f"The old table is back"
    )
    with pytest.raises(RollbackError, match=r"came too late"):
        _nft.confirm(table, kernel)
    assert kernel.live == "{\n  OLD\n}\n"


# ---------------------------------------------------------------------------------------------------------- reading


def rule(chain: str, *expressions: dict[str, Any]) -> dict[str, Any]:
    return {"rule": {"chain": chain, "expr": list(expressions)}}


def match(left: dict[str, Any], right: Any) -> dict[str, Any]:
    return {"match": {"op": "==", "left": left, "right": right}}


def dport(protocol: str, right: Any) -> dict[str, Any]:
    return match({"payload": {"protocol": protocol, "field": "dport"}}, right)


ACCEPT: dict[str, Any] = {"accept": None}
ORIGINAL = {"ct": {"key": "proto-dst", "dir": "original"}}
RULES = {
    "nftables": [
        {"chain": {"name": "input", "hook": "input", "policy": "drop"}},
        {"chain": {"name": "forward", "hook": "forward", "policy": "accept"}},
        {"chain": {"name": "helper"}},
        rule("input", match({"ct": {"key": "state"}}, ["established"]), ACCEPT),
        rule("input", dport("tcp", 22), ACCEPT),
        rule("input", dport("udp", {"set": [68, {"range": [100, 200]}, 53]}), ACCEPT),
        rule("input", dport("tcp", 9100), {"drop": None}),
        rule("input", dport("tcp", {"range": [6000, 6010]}), ACCEPT),
        rule("input", dport("tcp", "@named"), ACCEPT),
        # nft 1.1 names the protocol, nft 1.0 gives its number.
        rule("forward", match({"meta": {"key": "l4proto"}}, "tcp"), match(ORIGINAL, 8000), ACCEPT),
        rule("forward", match({"meta": {"key": "l4proto"}}, 17), match(ORIGINAL, 8472), ACCEPT),
        rule("forward", {"counter": None}, {"drop": None}),
    ]
}


def test_policies_and_accepted_ports() -> None:
    assert _nft.policies(RULES) == {"input": "drop", "forward": "accept"}
    assert _nft.accepted_ports(RULES) == [
        "forward tcp/8000",
        "forward udp/8472",
        "input tcp/22",
        "input tcp/6000-6010",
        "input udp/53",
        "input udp/68",
        "input udp/100-200",
    ]


SOCKETS = """\
udp UNCONN 0 0 127.0.0.53%lo:53 0.0.0.0:* users:(("systemd-resolve",pid=5,fd=3))
udp UNCONN 0 0 0.0.0.0%eth0:68 0.0.0.0:* users:(("dhclient",pid=6,fd=3))
udp UNCONN 0 0 0.0.0.0:51820 0.0.0.0:*
tcp LISTEN 0 128 0.0.0.0:22 0.0.0.0:* users:(("sshd",pid=7,fd=3))
tcp LISTEN 0 128 [::]:22 [::]:* users:(("sshd",pid=7,fd=4),("systemd",pid=1,fd=40))
tcp LISTEN 0 128 [::1]:6010 [::]:* users:(("sshd",pid=8,fd=3))
tcp LISTEN 0 128 [::ffff:127.0.0.1]:631 *:* users:(("cupsd",pid=9,fd=3))
tcp LISTEN 0 5 *:9100 *:* users:(("node_exporter",pid=10,fd=3))

"""


def test_listeners() -> None:
    assert _nft.listeners(SOCKETS) == [
        {"protocol": "tcp", "port": 22, "processes": ["sshd", "systemd"]},
        {"protocol": "tcp", "port": 9100, "processes": ["node_exporter"]},
        {"protocol": "udp", "port": 68, "processes": ["dhclient"]},
        {"protocol": "udp", "port": 51820, "processes": []},
    ]


@pytest.mark.parametrize(
    ("listening", "connections", "ports"),
    [
        # sshd listens itself.
        ([(22, ["sshd"]), (443, ["nginx"])], "", [22]),
        ([(22, ["sshd"]), (2222, ["sshd"])], "", [22, 2222]),
        # systemd listens; a session says which port it came by. Its forwardings have other ports, where nobody listens.
        (
            [(2222, ["systemd"]), (443, ["nginx"])],
            '0 0 192.0.2.9:2222 192.0.2.1:1000 users:(("sshd-session",pid=1,fd=4))\n'
            '0 0 192.0.2.9:40000 192.0.2.7:443 users:(("sshd-session",pid=1,fd=9))\n'
            '0 0 192.0.2.9:443 192.0.2.1:1001 users:(("nginx",pid=2,fd=4))\n'
            "0 0 192.0.2.9:443 192.0.2.1:1002\n",
            [2222],
        ),
        ([(443, ["nginx"])], "", []),
    ],
)
def test_ssh_ports(listening: list[tuple[int, list[str]]], connections: str, ports: list[int]) -> None:
    entries = [{"protocol": "tcp", "port": port, "processes": names} for port, names in listening]
    assert _nft.ssh_ports(entries, connections) == ports


@pytest.mark.parametrize(
    ("live", "wanted", "surplus", "missing"),
    [
        ("a\n  b\n", "a\n  b\n", [], []),
        ("a\n  b\n  c\n", "a\n  b\n", ["c"], []),
        ("a\n", "a\n  b\n", [], ["b"]),
        ("a\n  c\n", "a\n  b\n", ["c"], ["b"]),
        # The order of rules decides what they do.
        ("b\na\n", "a\nb\n", ["b"], ["b"]),
        ("", "a\n", [], ["a"]),
    ],
)
def test_line_differences(live: str, wanted: str, surplus: list[str], missing: list[str]) -> None:
    assert _nft.line_differences(live, wanted) == (surplus, missing)


def test_describe(table: _nft.Table, kernel: Kernel) -> None:
    kernel.live = "{\n  NEW\n}\n"
    Path(table.path).write_text(table.text)

    def run(argv: Sequence[str], stdin: str | None = None) -> tuple[int, str, str]:
        if argv[1] == "-j":
            return 0, json.dumps(RULES), ""
        if argv[0] == "ss":
            return 0, SOCKETS if "-l" in argv else "", ""
        return kernel(argv, stdin)

    found = _nft.describe(table, run)
    assert (found["exists"], found["matches_file"], found["surplus"], found["missing"]) == (True, True, [], [])
    assert (len(found["listeners"]), found["ssh_ports"]) == (4, [22])
    kernel.live = "{\n  NEW\n  BY HAND\n}\n"
    changed = _nft.describe(table, run)
    assert (changed["matches_file"], changed["surplus"], changed["missing"]) == (False, ["BY HAND"], [])
    # The file may be the live one's, and both not the wanted one.
    other = _nft.Table("inet", "x", table.path, _nft.ruleset("inet", "x", "other"), "/nft", table.state_directory)
    kernel.live = "{\n  NEW\n}\n"
    wanted = _nft.describe(other, run)
    assert (wanted["matches_file"], wanted["surplus"], wanted["missing"]) == (True, ["NEW"], ["OTHER"])
    kernel.live = None
    gone = _nft.describe(table, run)
    assert (gone["exists"], gone["matches_file"], gone["policies"], gone["accepted"]) == (False, False, {}, [])
    assert gone["missing"] == ["{", "NEW", "}"]


def test_a_command_that_fails_is_named() -> None:
    with pytest.raises(_nft.RulesetError) as caught:
        _nft._output(lambda argv: (127, "", "ss: No such file or directory"), ["ss", "-l"])
    assert str(caught.value) == "'ss -l' exited with 127: ss: No such file or directory"
