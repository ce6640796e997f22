# SPDX-License-Identifier: Apache-2.0
"""The gateway's probe agent: decisions as tables, reloads of a stand-in for NGINX, rounds over engines that fail."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

AGENT = Path(__file__).parents[4] / "roles" / "nginx" / "files" / "probe_agent.py"


def load() -> Any:
    """The agent is a program, not a part of the collection's namespace."""
    spec = importlib.util.spec_from_file_location("probe_agent", AGENT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["probe_agent"] = module
    spec.loader.exec_module(module)
    return module


agent = load()

# A reload that fails says so in the log and is given up then; one that succeeds may be slow on a busy machine.
RELOAD_PATIENCE_SECONDS = 120

FAKE_NGINX = """#!/usr/bin/python3
# Tests a configuration with -t, else listens, answers the build id, and reads it again at HUP unless the configuration
# is one that a real master would keep out.
import http.server, os, re, signal, sys, threading

home = os.path.dirname(os.path.abspath(__file__))
conf = sys.argv[sys.argv.index("-c") + 1] if "-c" in sys.argv else home + "/nginx.conf"
text = open(conf).read()
if "-t" in sys.argv:
    if "broken" in text:
        sys.stderr.write('nginx: [emerg] unknown directive "broken" in nginx.conf:1\\n')
        sys.exit(1)
    sys.exit(0)
build = ""

def read(*_):
    global build
    if "ineffective" in open(conf).read():
        with open(home + "/error.log", "a") as log:
            log.write('2026/11/23 21:00:00 [emerg] 7#7: limit_req "x" uses another key\\n' * 2)
        return
    build = re.search('return 200 "([^\\\\\\\\]+)', open(home + "/includes/build_id.conf").read()).group(1)

class Handler(http.server.BaseHTTPRequestHandler):
    def log_message(self, *args):
        pass
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(build.encode() + b"\\n")

read()
signal.signal(signal.SIGHUP, read)
server = http.server.HTTPServer(("127.0.0.1", int(open(home + "/port").read())), Handler)
threading.Thread(target=server.serve_forever, daemon=True).start()
open(home + "/nginx.pid", "w").write(str(os.getpid()))
while True:
    signal.pause()
"""


NO_LIMIT = {"requests_per_second": 0, "burst": 0, "concurrent": 0}


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def document(home: Path, servers: list[dict[str, Any]] | None = None, **changes: Any) -> dict[str, Any]:
    """What the role would write, with everything below one directory."""
    two = [
        {"name": "gpu-1/alpha-0", "address": "127.0.0.1", "port": 9001, "weight": 1},
        {"name": "gpu-2/alpha-0", "address": "127.0.0.1", "port": 9002, "weight": 2},
    ]
    return {
        "nginx": {
            "binary": str(home / "nginx"),
            "configuration": str(home / "nginx.conf"),
            "pid_file": str(home / "nginx.pid"),
            "error_log": str(home / "error.log"),
            "start_command": ["sh", "-c", f"{home}/nginx >/dev/null 2>&1 &"],
            "listener_port": int((home / "port").read_text()),
        },
        "directories": {
            "includes": str(home / "includes"),
            "state": str(home / "state"),
            "runtime": str(home / "runtime"),
        },
        "health": {"path": "/health", "interval_seconds": 5, "timeout_seconds": 1, "fall": 3, "rise": 2},
        "progress": {
            "enabled": True,
            "interval_seconds": 15,
            "timeout_seconds": 0.3,
            "fall": 2,
            "rise": 2,
            "metric": "vllm:iteration_tokens_total_count",
            "metrics_path": "/metrics",
            "completion_path": "/v1/completions",
        },
        "reload": {"minimum_interval_seconds": 10, "timeout_seconds": RELOAD_PATIENCE_SECONDS},
        "server_options": {"max_fails": 5, "fail_timeout_seconds": 30},
        "limits": {
            "access_log": str(home / "access.log"),
            "address": {"requests_per_second": 50, "burst": 100, "concurrent": 200},
            "identity": {"requests_per_second": 20, "burst": 40, "concurrent": 0},
            "body_size": "20m",
        },
        "upstreams": [{"name": "alpha", "model": "alpha", "servers": two if servers is None else servers}],
        **changes,
    }


@pytest.fixture(name="home")
def fixture_home(tmp_path: Path) -> Iterator[Path]:
    """A directory with a stand-in for NGINX that does not run yet, and an empty configuration for it."""
    (tmp_path / "port").write_text(str(free_port()))
    (tmp_path / "nginx.conf").write_text("good\n")
    (tmp_path / "error.log").write_text("2026/11/23 20:00:00 [emerg] 7#7: of long ago\n")
    (tmp_path / "access.log").write_text("")
    (tmp_path / "nginx").write_text(FAKE_NGINX)
    (tmp_path / "nginx").chmod(0o755)
    (tmp_path / "agent.json").write_text(json.dumps(document(tmp_path)))
    yield tmp_path
    pid_file = tmp_path / "nginx.pid"
    if pid_file.exists():
        os.kill(int(pid_file.read_text()), signal.SIGKILL)


@pytest.fixture(autouse=True)
def _short_grace(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stand-in that logs an emergency never takes the configuration: nothing is won by waiting as for a real one."""
    monkeypatch.setattr(agent, "GRACE_AFTER_EMERGENCY_SECONDS", 0.2)


def run(home: Path, *words: str) -> int:
    return int(agent.main(["--configuration", str(home / "agent.json"), *words]))


def configuration(home: Path) -> Any:
    return agent.read_configuration(home / "agent.json")


def include(home: Path, name: str = "alpha") -> str:
    return (home / "includes" / "upstreams" / f"{name}.conf").read_text()


# ------------------------------------------------------------------------------------------------- configuration


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"health": {}}, "the configuration lacks the key 'path'"),
        ({"upstreams": [{"name": "a", "model": "a"}]}, "the configuration lacks the key 'servers'"),
        (
            {
                "upstreams": [
                    {
                        "name": "a",
                        "model": "a",
                        "servers": [{"name": "x", "address": "engine.example", "port": 1, "weight": 1}],
                    }
                ]
            },
            "the configuration is not as the role writes it: "
            "'engine.example' does not appear to be an IPv4 or IPv6 address",
        ),
        (
            {"limits": {"access_log": "/a", **dict.fromkeys(("address", "identity"), NO_LIMIT), "body_size": "20 MB"}},
            "the configuration is not as the role writes it: '20 MB' is no size; "
            "wanted a number with k, m, g or nothing after it",
        ),
    ],
)
def test_a_configuration_that_is_not_the_roles_is_refused(home: Path, change: dict[str, Any], message: str) -> None:
    with pytest.raises(agent.AgentError) as caught:
        agent.Configuration.from_json(document(home, **change))
    assert str(caught.value) == message


def test_a_missing_configuration_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert agent.main(["--configuration", f"{tmp_path}/none.json", "status"]) == 1
    assert capsys.readouterr().err == (
        f"gpufleet-probe status: {tmp_path}/none.json: [Errno 2] No such file or directory: '{tmp_path}/none.json'\n"
    )


# ------------------------------------------------------------------------------------------------------ decisions

FAST = agent.Thresholds(interval_seconds=5, timeout_seconds=2, fall=3, rise=2)


@pytest.mark.parametrize(
    ("probes", "available"),
    [
        # '+' is a good probe, '-' a failed one; below each, whether the peer is available after it.
        ("++++", "1111"),
        ("---+", "1100"),
        ("---++", "11001"),
        ("--+--+--", "11111111"),
        ("---+-+-++", "110000001"),
    ],
)
def test_three_failures_take_out_and_two_successes_bring_back(probes: str, available: str) -> None:
    health, progress = agent.PeerState("x"), agent.PeerState("x")
    seen = ["", ""]
    for probe in probes:
        fault = None if probe == "+" else "HTTP 503"
        health.record_health(fault, FAST, 1.0)
        progress.record_progress(fault, FAST, 1.0)
        seen[0] += str(int(health.available))
        seen[1] += str(int(progress.available))
    assert seen == [available, available]


def test_a_hung_peer_is_not_brought_back_by_its_health() -> None:
    state = agent.PeerState("x")
    for __ in range(3):
        state.record_progress("completion: no answer within 10 s", FAST, 7.0)
    for __ in range(9):
        assert not state.record_health(None, FAST, 8.0)
    assert (state.available, state.reason, state.since) == (False, "hung: completion: no answer within 10 s", 7.0)


def peers_of(*names: str) -> list[Any]:
    return [agent.Peer("alpha", "alpha", name, "127.0.0.1", 9000 + place, 1) for place, name in enumerate(names)]


@pytest.mark.parametrize(
    ("down", "drained", "up", "fails_open"),
    [
        ("", "", "a/0 b/0 b/1", False),
        ("a/0", "", "b/0 b/1", False),
        ("a/0 b/0 b/1", "", "a/0 b/0 b/1", True),
        ("", "b", "a/0", False),
        ("", "b/1", "a/0 b/0", False),
        # The operator's hand counts more than the probes, also when all that is left is sick.
        ("a/0", "b", "a/0", True),
        ("", "a b", "", False),
    ],
)
def test_who_is_in_rotation(down: str, drained: str, up: str, fails_open: bool) -> None:
    peers = peers_of("a/0", "b/0", "b/1")
    states = {peer.key: agent.PeerState("x", healthy=peer.name not in down.split()) for peer in peers}
    keys, opened = agent.in_rotation(peers, states, frozenset(drained.split()))
    assert (sorted(key.split()[1] for key in keys), opened) == (up.split(), fails_open)


def test_an_include_holds_complete_server_lines(home: Path) -> None:
    servers = [
        {"name": "gpu-1/alpha-0", "address": "198.51.100.11", "port": 8000, "weight": 2},
        {"name": "gpu-2/alpha-0", "address": "2001:db8::2", "port": 8001, "weight": 1},
    ]
    found = agent.Configuration.from_json(document(home, servers))
    states = {peer.key: agent.PeerState(peer.endpoint) for peer in found.peers}
    states["alpha gpu-2/alpha-0"].healthy = False
    assert agent.render_includes(found, states, frozenset()) == {
        "upstreams/alpha.conf": "# Written by gpufleet-probe; edits are lost.\n"
        "server 198.51.100.11:8000 weight=2 max_fails=5 fail_timeout=30s; # gpu-1/alpha-0\n"
        "server [2001:db8::2]:8001 weight=1 max_fails=5 fail_timeout=30s down; # gpu-2/alpha-0\n"
    }


@pytest.mark.parametrize(
    "stored",
    [
        None,
        [],
        {"peers": {}},
        {"peers": {"alpha a/0": None}},
        {"peers": {"alpha a/0": {"endpoint": "127.0.0.1:1", "healthy": False}}},
        {"peers": {"alpha b/0": {"endpoint": "127.0.0.1:9000", "healthy": False}}},
    ],
)
def test_a_state_that_does_not_fit_is_forgotten(stored: Any) -> None:
    states = agent.states_from_json(stored, peers_of("a/0"))
    assert states == {"alpha a/0": agent.PeerState("127.0.0.1:9000")}


def test_a_state_is_kept_also_from_a_newer_agent() -> None:
    stored = {"peers": {"alpha a/0": {"endpoint": "127.0.0.1:9000", "healthy": False, "mood": "blue"}}}
    assert agent.states_from_json(stored, peers_of("a/0"))["alpha a/0"].healthy is False


@pytest.mark.parametrize(
    ("text", "total"),
    [
        ("", None),
        ("iterations 7\n", 7.0),
        ('iterations{engine="0"} 7.0\niterations{engine="1"} 3\n', 10.0),
        ("# HELP iterations x\niterations_created 5\n", None),
        ('iterations{model="a b} c"} 2 1700000000\n', 2.0),
        ("iterations{} \niterations nonsense\n", None),
    ],
)
def test_sum_of_metric(text: str, total: float | None) -> None:
    assert agent.sum_of_metric(text, "iterations") == total


def test_only_emergencies_are_taken_from_the_log_each_once() -> None:
    log = (
        "2026/11/23 21:00:00 [notice] 7#7: signal process started\n"
        "2026/11/23 21:00:00 [emerg] 7#7: bind() to 0.0.0.0:8443 failed (98: Address already in use)\n"
        "2026/11/23 21:00:01 [emerg] 7#7: bind() to 0.0.0.0:8443 failed (98: Address already in use)\n"
        "nginx: [emerg] unknown directive\n"
    )
    assert agent.emergencies(log) == [
        "bind() to 0.0.0.0:8443 failed (98: Address already in use)",
        "unknown directive",
    ]


# ---------------------------------------------------------------------------------------------------------- reload


def test_reload_starts_nginx_and_proves_it(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(home, "reload") == 0
    build = capsys.readouterr().out.strip()
    assert agent.read_build(home / "includes") == build
    assert asyncio.run(agent.served_build(configuration(home))) == build
    assert include(home).count("server ") == 2


def test_a_second_reload_is_served_by_the_same_master_and_drops_strangers(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(home, "reload") == 0
    pid = agent.master_pid(configuration(home))
    (home / "includes" / "upstreams" / "gone.conf").write_text("")
    assert run(home, "reload") == 0
    builds = capsys.readouterr().out.split()
    assert builds[0] != builds[1]
    assert agent.master_pid(configuration(home)) == pid
    assert not (home / "includes" / "upstreams" / "gone.conf").exists()


def picture(home: Path) -> dict[str, str]:
    return {str(path): path.read_text() for path in sorted((home / "includes").rglob("*.conf"))}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "broken",
            'gpufleet-probe reload: nginx -t refuses the configuration: unknown directive "broken" in nginx.conf:1\n',
        ),
        (
            "ineffective",
            "gpufleet-probe reload: NGINX did not take the new configuration, 127.0.0.1:{port} still answers build "
            '{build}: limit_req "x" uses another key\n',
        ),
    ],
)
def test_a_reload_that_fails_puts_the_includes_back(
    home: Path, capsys: pytest.CaptureFixture[str], text: str, message: str
) -> None:
    assert run(home, "reload") == 0
    build = capsys.readouterr().out.strip()
    before = picture(home)
    (home / "nginx.conf").write_text(text)
    write_states(home, "gpu-1/alpha-0")
    assert run(home, "reload") == 1
    assert capsys.readouterr().err == message.format(port=(home / "port").read_text(), build=build)
    assert picture(home) == before
    (home / "nginx.conf").write_text("good")
    assert run(home, "reload") == 0
    assert " down; # gpu-1/alpha-0" in include(home)
    counts = agent.read_json(home / "state" / "reloads.json")
    assert (counts["successes"], counts["failures"], counts["last_error"]) == (2, 1, None)


def test_a_first_reload_that_fails_leaves_no_includes(home: Path) -> None:
    (home / "nginx.conf").write_text("broken")
    assert run(home, "reload") == 1
    assert picture(home) == {}


def test_a_start_that_fails_says_so(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    changed = document(home)
    changed["nginx"]["start_command"] = ["sh", "-c", "echo no such unit >&2; exit 5"]
    (home / "agent.json").write_text(json.dumps(changed))
    assert run(home, "reload") == 1
    assert capsys.readouterr().err == (
        "gpufleet-probe reload: 'sh -c echo no such unit >&2; exit 5' exited with 5: no such unit\n"
    )


def test_a_reload_that_is_told_to_end_puts_the_includes_back(home: Path) -> None:
    assert run(home, "reload") == 0
    before = picture(home)
    os.kill(agent.master_pid(configuration(home)), signal.SIGSTOP)
    command = [sys.executable, str(AGENT), "--configuration", str(home / "agent.json"), "reload"]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
        deadline = time.monotonic() + 120
        while picture(home) == before and time.monotonic() < deadline:
            time.sleep(0.02)
        assert picture(home) != before
        process.terminate()
        assert process.wait(120) == 128 + signal.SIGTERM
    os.kill(agent.master_pid(configuration(home)), signal.SIGCONT)
    assert picture(home) == before


def test_one_reload_at_a_time(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with agent.locked(configuration(home), 0):
        assert run(home, "reload", "--wait", "0") == 1
    assert capsys.readouterr().err == "gpufleet-probe reload: another reload is under way for more than 0 s\n"


def test_check_completes_a_staged_tree_and_keeps_who_is_down(home: Path, tmp_path: Path) -> None:
    write_states(home, "gpu-1/alpha-0")
    root = tmp_path / "stage"
    staged = Path(f"{root}{home}")
    staged.mkdir(parents=True)
    (staged / "agent.json").write_text((home / "agent.json").read_text())
    (staged / "nginx.conf").write_text("good")
    assert run(home, "check", "--root", str(root)) == 0
    assert " down; # gpu-1/alpha-0" in include(staged)
    assert not (home / "includes").exists()
    (staged / "nginx.conf").write_text("broken")
    assert run(home, "check", "--root", str(root)) == 1


def test_check_without_a_root_tests_what_is_in_place(home: Path) -> None:
    assert run(home, "check") == 0
    (home / "nginx.conf").write_text("broken")
    assert run(home, "check") == 1


# -------------------------------------------------------------------------------------------------- fact and wish


def rotation(home: Path, capsys: pytest.CaptureFixture[str]) -> list[tuple[Any, Any]]:
    """What status says of each peer: whether it is in rotation, and whether it shall be."""
    capsys.readouterr()
    assert run(home, "status") == 0
    peers = json.loads(capsys.readouterr().out)["upstreams"][0]["peers"]
    return [(peer["in_rotation"], peer["wanted_in_rotation"]) for peer in peers]


def test_status_tells_what_is_served_and_what_is_wanted(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    # Nobody knows while NGINX does not answer.
    assert rotation(home, capsys) == [(None, True), (None, True)]
    assert run(home, "reload") == 0
    assert rotation(home, capsys) == [(True, True), (True, True)]
    # Found out, but the reload waits for its turn, or does not succeed.
    write_states(home, "gpu-1/alpha-0")
    assert rotation(home, capsys) == [(True, False), (True, True)]
    (home / "nginx.conf").write_text("ineffective")
    for __ in range(3):
        assert run(home, "reload") == 1
        assert rotation(home, capsys) == [(True, False), (True, True)]
    (home / "nginx.conf").write_text("good")
    assert run(home, "reload") == 0
    assert rotation(home, capsys) == [(False, False), (True, True)]


def test_a_peer_that_moved_is_not_in_rotation_before_a_reload(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(home, "reload") == 0
    moved = document(home)
    moved["upstreams"][0]["servers"][1]["port"] = 9999
    (home / "agent.json").write_text(json.dumps(moved))
    assert rotation(home, capsys) == [(True, True), (False, True)]


def test_what_is_served_is_known_also_after_a_reload_that_was_killed(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(home, "reload") == 0
    write_states(home, "gpu-1/alpha-0")
    pid = agent.master_pid(configuration(home))
    os.kill(pid, signal.SIGSTOP)
    before = picture(home)
    command = [sys.executable, str(AGENT), "--configuration", str(home / "agent.json"), "reload"]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
        deadline = time.monotonic() + 120
        while picture(home) == before and time.monotonic() < deadline:
            time.sleep(0.02)
        process.kill()
        process.wait(120)
    assert picture(home) != before
    # The signal to the master may have been sent or not: either way its build is known.
    os.kill(pid, signal.SIGCONT)
    assert rotation(home, capsys) in ([(True, False), (True, True)], [(False, False), (True, True)])


def test_the_builds_that_are_remembered_stay_few(home: Path) -> None:
    for __ in range(4):
        assert run(home, "reload") == 0
    (home / "nginx.conf").write_text("broken")
    for __ in range(4):
        assert run(home, "reload") == 1
    builds = agent.load_builds(configuration(home))
    assert len(builds) == 2
    assert agent.read_build(home / "includes") in builds


# ------------------------------------------------------------------------------------------------------- the hand


def test_drain_holds_until_undrain(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(home, "reload") == 0
    assert run(home, "drain", "gpu-1") == 0
    assert " down; # gpu-1/alpha-0" in include(home)
    assert run(home, "reload") == 0
    assert " down; # gpu-1/alpha-0" in include(home)
    capsys.readouterr()
    assert run(home, "status") == 0
    status = json.loads(capsys.readouterr().out)
    assert status["drained"] == {"gpu-1": ["operator"]}
    assert [peer["in_rotation"] for peer in status["upstreams"][0]["peers"]] == [False, True]
    assert status["build_on_disk"] == status["build_served"]
    assert status["agent_running"] is False
    assert run(home, "undrain", "gpu-1") == 0
    assert "down" not in include(home)


def test_each_holder_holds_for_itself(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def ask(*words: str) -> dict[str, Any]:
        capsys.readouterr()
        assert run(home, *words) == 0
        said: dict[str, Any] = json.loads(capsys.readouterr().out)
        return said

    assert ask("drain", "gpu-1") == {"changed": True, "holders": ["operator"]}
    build = agent.read_build(home / "includes")
    assert ask("drain", "gpu-1", "--holder", "upgrade") == {"changed": True, "holders": ["operator", "upgrade"]}
    assert ask("drain", "gpu-1", "--holder", "upgrade") == {"changed": False, "holders": ["operator", "upgrade"]}
    assert ask("undrain", "gpu-1", "--holder", "upgrade") == {"changed": True, "holders": ["operator"]}
    assert ask("undrain", "gpu-1", "--holder", "upgrade") == {"changed": False, "holders": ["operator"]}
    # Nothing of that is NGINX's business.
    assert agent.read_build(home / "includes") == build
    assert " down; # gpu-1/alpha-0" in include(home)
    assert ask("undrain", "gpu-1") == {"changed": True, "holders": []}
    assert "down" not in include(home)


def test_a_name_that_left_the_plan_can_be_let_go(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (home / "state").mkdir(exist_ok=True)
    (home / "state" / "drained.json").write_text('{"gpu-9": ["operator"]}')
    assert run(home, "drain", "gpu-9") == 1
    capsys.readouterr()
    assert run(home, "undrain", "gpu-9") == 0
    assert json.loads(capsys.readouterr().out) == {"changed": True, "holders": []}


def test_a_broken_list_of_holders_is_no_empty_one(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (home / "state").mkdir(exist_ok=True)
    (home / "state" / "drained.json").write_text('["gpu-1"')
    assert run(home, "reload") == 1
    assert "drained.json" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("gpu-3", "no peer or host is named 'gpu-3'; known: gpu-1, gpu-1/alpha-0, gpu-2, gpu-2/alpha-0"),
        (
            "gpu-2/alpha-0",
            "gpu-2/alpha-0 is the last of alpha: every request for it would fail. "
            "Use --force to take it out all the same",
        ),
    ],
)
def test_a_drain_that_makes_no_sense_is_refused(
    home: Path, capsys: pytest.CaptureFixture[str], name: str, message: str
) -> None:
    assert run(home, "drain", "gpu-1") == 0
    assert run(home, "drain", name) == 1
    assert capsys.readouterr().err == f"gpufleet-probe drain: {message}\n"
    assert agent.load_drained(configuration(home)) == {"gpu-1"}
    assert run(home, "drain", "gpu-2", "--force") == 0
    assert include(home).count(" down;") == 2


def test_a_peer_that_does_not_answer_takes_nobodys_place(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Such as an engine that only runs while requests wait: drained is not the last that could, but that does."""
    settings = configuration(home)
    states = agent.load_states(settings)
    asleep = next(peer for peer in settings.peers if peer.name == "gpu-1/alpha-0")
    states[asleep.key].healthy = False
    settings.state_directory.mkdir(exist_ok=True)
    agent.save_states(settings, states)
    assert run(home, "drain", "gpu-2") == 1
    assert capsys.readouterr().err == (
        "gpufleet-probe drain: gpu-2 is the last of alpha that answers: every request for it would fail. "
        "Start another one, or use --force to take it out all the same\n"
    )
    assert run(home, "drain", "gpu-1") == 0
    assert run(home, "undrain", "gpu-1") == 0
    assert run(home, "drain", "gpu-2", "--force") == 0


def test_a_drain_that_nginx_does_not_take_is_forgotten(home: Path) -> None:
    (home / "nginx.conf").write_text("broken")
    assert run(home, "drain", "gpu-1") == 1
    assert agent.load_drained(configuration(home)) == frozenset()


# --------------------------------------------------------------------------------------------------------- engines


class Engine:
    """A server whose answers a test changes while it runs."""

    def __init__(self) -> None:
        self.answers: dict[str, tuple[int, str] | None] = {
            "/health": (200, "{}"),
            "/metrics": (200, "vllm:iteration_tokens_total_count 5\n"),
            "/v1/completions": (200, "{}"),
        }
        self.asked: list[str] = []
        self.port = 0

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        path = head.split()[1]
        self.asked.append(path)
        answer = self.answers[path]
        if answer is None:
            await asyncio.sleep(30)
            return
        status, body = answer
        if status:
            writer.write(f"HTTP/1.1 {status} X\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode())
        else:
            writer.write(body.encode())
        await writer.drain()
        writer.close()

    async def __aenter__(self) -> Engine:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *__: object) -> None:
        self._server.close()

    def iterations(self, count: int) -> None:
        self.answers["/metrics"] = (200, f"vllm:iteration_tokens_total_count {count}\n")


def server(engine: Engine, name: str) -> dict[str, Any]:
    return {"name": name, "address": "127.0.0.1", "port": engine.port, "weight": 1}


HEALTH_ANSWERS: list[tuple[str, tuple[int, str] | None, str | None]] = [
    ("well", (200, "{}"), None),
    ("sick", (503, "{}"), "HTTP 503"),
    ("silent", None, "no answer within 1 s"),
    ("not HTTP", (0, "SSH-2.0-x\r\n\r\n"), "the answer is not HTTP"),
    ("cut off", (0, "HTTP/1.1 200"), "the connection ended before an answer"),
]


@pytest.mark.parametrize(("case", "answer", "fault"), HEALTH_ANSWERS, ids=[case[0] for case in HEALTH_ANSWERS])
def test_what_a_health_probe_finds(home: Path, case: str, answer: tuple[int, str] | None, fault: str | None) -> None:
    async def scene() -> None:
        async with Engine() as engine:
            engine.answers["/health"] = answer
            found = agent.Configuration.from_json(document(home, [server(engine, "a/0")]))
            assert await agent.probe_health(found.peers[0], found) == fault

    asyncio.run(scene())


def test_a_closed_port_is_refused(home: Path) -> None:
    closed = {"name": "a/0", "address": "127.0.0.1", "port": free_port(), "weight": 1}
    found = agent.Configuration.from_json(document(home, [closed]))
    assert asyncio.run(agent.probe_health(found.peers[0], found)) == "connection refused"


PROGRESS_CASES: list[tuple[str, float | None, bool, dict[str, Any], tuple[str, str, float | None], bool]] = [
    # case, last count, must complete, changed answers, (verdict, detail, count), whether a completion was asked for
    ("moved since the last look", 4, False, {}, ("good", "iterations move", 5.0), False),
    ("first look", None, False, {}, ("good", "completion", 5.0), True),
    ("idle", 5, False, {}, ("good", "completion", 5.0), True),
    ("restarted meanwhile", 900, False, {}, ("good", "completion", 5.0), True),
    ("moved, but was out", 4, True, {}, ("good", "completion", 5.0), True),
    ("hung", 5, False, {"/v1/completions": None}, ("bad", "completion: no answer within 0.3 s", 5.0), True),
    ("failing", 5, False, {"/v1/completions": (500, "")}, ("bad", "completion: HTTP 500", 5.0), True),
    ("not for completions", 5, False, {"/v1/completions": (404, "")}, ("unknown", "completion: HTTP 404", 5.0), True),
    ("no metrics", None, False, {"/metrics": (404, "")}, ("good", "completion", None), True),
]


@pytest.mark.parametrize(
    ("case", "last", "must", "changed", "expected", "asked"), PROGRESS_CASES, ids=[case[0] for case in PROGRESS_CASES]
)
def test_what_a_progress_probe_finds(
    home: Path,
    case: str,
    last: float | None,
    must: bool,
    changed: Mapping[str, Any],
    expected: tuple[str, str, float | None],
    asked: bool,
) -> None:
    async def scene() -> None:
        async with Engine() as engine:
            engine.answers.update(changed)
            content = document(home, [server(engine, "a/0")])
            if case != "hung":
                content["progress"]["timeout_seconds"] = 30
            found = agent.Configuration.from_json(content)
            progress = await agent.probe_progress(found.peers[0], found, last, must)
            assert (progress.verdict, progress.detail, progress.iterations) == expected
            assert ("/v1/completions" in engine.asked) is asked

    asyncio.run(scene())


def test_an_engine_too_busy_for_the_probe_is_not_hung(home: Path) -> None:
    async def scene() -> None:
        async with Engine() as engine:
            engine.answers["/v1/completions"] = None
            found = agent.Configuration.from_json(document(home, [server(engine, "a/0")]))
            asking = asyncio.create_task(agent.probe_progress(found.peers[0], found, 5.0, False))
            await eventually(lambda: "/v1/completions" in engine.asked)
            engine.iterations(9)
            assert await asking == agent.Progress("good", "busy, iterations move", 9.0)

    asyncio.run(scene())


# ---------------------------------------------------------------------------------------------------------- daemon


def write_states(home: Path, *down: str) -> None:
    """Store that these peers are down, as a daemon before this one would have."""
    found = configuration(home)
    states = {
        peer.key: agent.PeerState(peer.endpoint, healthy=peer.name not in down, since=1.0) for peer in found.peers
    }
    agent.save_states(found, states)


async def eventually(holds: Callable[[], bool], seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.02)


async def rounds(daemon: Any, count: int) -> None:
    """Go round, each time waiting until progress probes and a reload that it started are over."""
    for __ in range(count):
        await daemon.round()
        await eventually(lambda: not daemon._progress_running and daemon._applying is None)


def start(home: Path, engines: list[Engine], **changes: Any) -> Any:
    servers = [server(engine, f"gpu-{place + 1}/alpha-0") for place, engine in enumerate(engines)]
    (home / "agent.json").write_text(json.dumps(document(home, servers, **changes)))
    return agent.Daemon(str(home / "agent.json"))


AT_ONCE = {"reload": {"minimum_interval_seconds": 0, "timeout_seconds": RELOAD_PATIENCE_SECONDS}}


def test_the_daemon_ejects_and_readmits_without_a_running_nginx(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    async def scene() -> None:
        async with Engine() as first, Engine() as second:
            daemon = start(home, [first, second], **AT_ONCE)
            await rounds(daemon, 1)
            assert "down" not in include(home)
            first.answers["/health"] = (503, "")
            await rounds(daemon, 2)
            assert "down" not in include(home)
            await rounds(daemon, 2)
            assert " down; # gpu-1/alpha-0" in include(home)
            first.answers["/health"] = (200, "")
            await rounds(daemon, 3)
            assert "down" not in include(home)
            log = capsys.readouterr().err.splitlines()
            endpoint = f"gpu-1/alpha-0 (127.0.0.1:{first.port})"
            assert [line for line in log if not line.startswith("reloaded, build ")] == [
                f"alpha: {endpoint} is out, health: HTTP 503",
                f"alpha: {endpoint} is available again",
            ]

    asyncio.run(scene())


def test_the_daemon_ejects_a_hung_engine_and_wants_completions_to_bring_it_back(home: Path) -> None:
    async def scene() -> None:
        async with Engine() as first, Engine() as second:
            daemon = start(home, [first, second], **AT_ONCE)
            await rounds(daemon, 1)
            first.answers["/v1/completions"] = None
            daemon._progress_due.clear()
            # The first failure at the slow pace, the second at the pace of the health probes.
            await rounds(daemon, 3)
            assert " down; # gpu-1/alpha-0" in include(home)
            assert daemon.states["alpha gpu-1/alpha-0"].reason == "hung: completion: no answer within 0.3 s"
            first.iterations(99)
            await rounds(daemon, 2)
            assert " down; # gpu-1/alpha-0" in include(home)
            first.answers["/v1/completions"] = (200, "{}")
            await rounds(daemon, 3)
            assert "down" not in include(home)

    asyncio.run(scene())


def test_the_daemon_fails_open_and_says_so(home: Path) -> None:
    async def scene() -> None:
        async with Engine() as first, Engine() as second:
            daemon = start(home, [first, second], **AT_ONCE)
            first.answers["/health"] = second.answers["/health"] = (503, "")
            await rounds(daemon, 4)
            assert "down" not in include(home)
            metrics = (home / "runtime" / "metrics.prom").read_text()
            assert 'gpufleet_probe_fail_open{upstream="alpha"} 1.0\n' in metrics
            peer = f'{{upstream="alpha",peer="gpu-1/alpha-0",endpoint="127.0.0.1:{first.port}"}}'
            assert f"gpufleet_probe_available{peer} 0.0\n" in metrics
            assert f"gpufleet_probe_wanted_in_rotation{peer} 1.0\n" in metrics
            # There is no NGINX that would send anything.
            assert "gpufleet_probe_in_rotation" not in metrics
            assert await asyncio.to_thread(run, home, "reload") == 0
            await rounds(daemon, 1)
            assert f"gpufleet_probe_in_rotation{peer} 1.0\n" in (home / "runtime" / "metrics.prom").read_text()

    asyncio.run(scene())


def test_changes_within_the_minimum_interval_wait_and_go_together(home: Path) -> None:
    async def scene() -> None:
        async with Engine() as first, Engine() as second, Engine() as third:
            daemon = start(home, [first, second, third])
            await rounds(daemon, 1)
            first.answers["/health"] = (503, "")
            await rounds(daemon, 3)
            second.answers["/health"] = (503, "")
            await rounds(daemon, 3)
            assert "down" not in include(home)
            daemon._apply_not_before = 0.0
            await rounds(daemon, 2)
            assert include(home).count(" down;") == 2
            assert agent.read_json(home / "state" / "reloads.json")["successes"] == 2

    asyncio.run(scene())


def test_metrics_tell_what_is_served_while_a_reload_waits(home: Path) -> None:
    async def scene() -> None:
        async with Engine() as first, Engine() as second:
            daemon = start(home, [first, second])
            assert await asyncio.to_thread(run, home, "reload") == 0
            first.answers["/health"] = (503, "")
            daemon._apply_not_before = time.monotonic() + 60
            await rounds(daemon, 4)
            peer = f'{{upstream="alpha",peer="gpu-1/alpha-0",endpoint="127.0.0.1:{first.port}"}}'
            metrics = (home / "runtime" / "metrics.prom").read_text()
            assert f"gpufleet_probe_in_rotation{peer} 1.0\n" in metrics
            assert f"gpufleet_probe_wanted_in_rotation{peer} 0.0\n" in metrics
            daemon._apply_not_before = 0.0
            await rounds(daemon, 2)
            assert f"gpufleet_probe_in_rotation{peer} 0.0\n" in (home / "runtime" / "metrics.prom").read_text()

    asyncio.run(scene())


def test_what_is_found_while_nginx_is_asked_for_its_build_is_part_of_the_reload(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A progress probe may end at any await of a round; a reload renders what is on disk."""

    async def scene() -> None:
        async with Engine() as first, Engine() as second:
            daemon = start(home, [first, second])
            await rounds(daemon, 1)
            ask = agent.served_build

            async def meanwhile(found: Any) -> Any:
                for __ in range(2):
                    daemon.states["alpha gpu-1/alpha-0"].record_progress("completion: HTTP 500", found.progress, 7.0)
                return await ask(found)

            daemon._apply_not_before = 0.0
            monkeypatch.setattr(agent, "served_build", meanwhile)
            await daemon.round()
            monkeypatch.setattr(agent, "served_build", ask)
            await eventually(lambda: daemon._applying is None)
            assert " down; # gpu-1/alpha-0" in include(home)

    asyncio.run(scene())


def test_a_failing_reload_is_said_once_and_tried_ever_later(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    async def scene() -> None:
        async with Engine() as first, Engine() as second:
            daemon = start(home, [first, second])
            (home / "nginx.conf").write_text("broken")
            backoffs = []
            for __ in range(7):
                daemon._apply_not_before = 0.0
                await rounds(daemon, 1)
                backoffs.append(daemon._backoff)
            assert backoffs == [10.0, 20.0, 40.0, 80.0, 160.0, 300.0, 300.0]
            assert capsys.readouterr().err == (
                "reload failed, the previous configuration goes on: nginx -t refuses the configuration: "
                'unknown directive "broken" in nginx.conf:1\n'
            )
            (home / "nginx.conf").write_text("good")
            daemon._apply_not_before = 0.0
            await rounds(daemon, 1)
            assert daemon._backoff == 0.0

    asyncio.run(scene())


def test_the_daemon_repairs_a_reload_that_was_cut_short(home: Path) -> None:
    async def scene() -> None:
        async with Engine() as first, Engine() as second:
            daemon = start(home, [first, second], **AT_ONCE)
            assert await asyncio.to_thread(run, home, "reload") == 0
            (home / "includes" / "build_id.conf").write_text(agent.build_include("never-served"))
            await rounds(daemon, 1)
            build = agent.read_build(home / "includes")
            assert build != "never-served"
            assert await agent.served_build(daemon.configuration) == build
            await rounds(daemon, 1)
            assert agent.read_build(home / "includes") == build
            assert "gpufleet_probe_configuration_served 1.0\n" in (home / "runtime" / "metrics.prom").read_text()

    asyncio.run(scene())


def test_what_other_services_say_of_themselves_is_beside_its_own_metrics(home: Path) -> None:
    async def scene() -> None:
        async with Engine() as first, Engine() as second:
            paths = [str(home / "identity.prom"), str(home / "of-nobody.prom")]
            daemon = start(home, [first, second], **AT_ONCE, further_metrics=paths)
            (home / "identity.prom").write_text("gpufleet_identity_keys_fetch_failing 0.0\n")
            await rounds(daemon, 1)
            metrics = (home / "runtime" / "metrics.prom").read_text()
            assert metrics.endswith("\ngpufleet_identity_keys_fetch_failing 0.0\n")
            assert "gpufleet_probe_reloads_total" in metrics

    asyncio.run(scene())


# --------------------------------------------------------------------------------------------------------- limits


@pytest.mark.parametrize(
    ("text", "size"), [("20m", 20971520), ("0", 0), ("512", 512), ("64K", 65536), ("1g", 1073741824)]
)
def test_sizes_are_read_as_nginx_reads_them(text: str, size: int) -> None:
    assert agent.size_in_bytes(text) == size


@pytest.mark.parametrize("text", ["", "m", "-1", "1t", "1.5m", "20mb"])
def test_other_sizes_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is no size"):
        agent.size_in_bytes(text)


@pytest.mark.parametrize(
    ("entry", "found"),
    [
        ({"status": 429, "address_limit": "rate"}, ("address", "rate")),
        ({"status": 429, "address_limit": "concurrent", "identity_limit": ""}, ("address", "concurrent")),
        ({"status": 429, "address_limit": "", "identity_limit": "rate"}, ("identity", "rate")),
        ({"status": 429, "address_limit": "", "identity_limit": "concurrent"}, ("identity", "concurrent")),
        ({"status": 413, "upstream_status": ""}, ("request", "body")),
        # An engine's own.
        ({"status": 429, "address_limit": "", "identity_limit": "", "upstream_status": "429"}, None),
        ({"status": 413, "upstream_status": "413"}, None),
        # Of an older configuration, and of none.
        ({"status": 429}, None),
        ({"status": 429, "address_limit": "something"}, None),
        ({"status": 429, "address_limit": ["rate"]}, None),
        ({"status": 413}, None),
        ({"status": 200, "address_limit": "rate"}, None),
        ([], None),
    ],
)
def test_which_limit_refused_a_request(entry: Any, found: Any) -> None:
    assert agent.refusal_of(entry) == found


def line(status: int = 200, address: str = "", identity: str = "", path: str = "/v1/models") -> bytes:
    """A line of the log as the role's format writes it."""
    entry = {"path": path, "status": status, "bytes_in": 1, "address_limit": address, "identity_limit": identity}
    return json.dumps({**entry, "upstream_status": ""}, separators=(",", ":")).encode() + b"\n"


def counter(home: Path) -> Any:
    return agent.RefusalCounter(home / "access.log", home / "state" / "refusals.json")


def counted(found: Any) -> dict[str, int]:
    """The totals that are not 0, after another look at the log."""
    found.follow()
    return {" ".join(key): total for key, total in found.totals.items() if total}


def append(path: Path, *lines: bytes) -> None:
    with open(path, "ab") as handle:
        handle.write(b"".join(lines))


def test_refusals_are_counted_once_over_restarts_and_rotations(home: Path) -> None:
    log = home / "access.log"
    append(log, line(), line(429, "rate"), line(429, identity="concurrent"), line(413))
    first = counter(home)
    expected = {"address rate": 1, "identity concurrent": 1, "request body": 1}
    assert counted(first) == counted(first) == counted(counter(home)) == expected
    append(log, line(429, identity="rate")[:30])
    assert counted(first) == expected, "a line that is being written is left for later"
    append(log, line(429, identity="rate")[30:])
    assert counted(first) == {**expected, "identity rate": 1}
    # Renamed and not opened anew yet: NGINX writes on into the old file, also while the agent is away.
    log.rename(home / "access.log.1")
    log.write_bytes(line(429, "rate"))
    append(home / "access.log.1", line(429, "rate"))
    again = counter(home)
    assert counted(again)["address rate"] == 3
    append(home / "access.log.1", line(429, "rate"))
    append(log, line(429, "rate"))
    assert counted(again)["address rate"] == counted(counter(home))["address rate"] == 5
    # Two rotations between two looks: what was the current one is read to its end.
    (home / "access.log.1").rename(home / "access.log.2")
    append(log, line(429, "concurrent"))
    log.rename(home / "access.log-20261128")
    log.write_bytes(b"")
    assert counted(again)["address concurrent"] == 1
    # Emptied in place.
    append(log, line(), line(429, "rate"))
    assert counted(again)["address rate"] == 6
    log.write_bytes(line(429, "rate"))
    assert counted(again)["address rate"] == 7


def test_what_a_client_writes_counts_for_nothing(home: Path) -> None:
    forged = line(path='","status":429,"address_limit":"rate","x":"')
    append(home / "access.log", forged, line(429, "rate", path='/"status":429,'), forged)
    found = counter(home)
    assert counted(found) == {"address rate": 1}
    assert found.unreadable == 0


def test_lines_that_cannot_be_read_are_counted(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(agent, "LOG_PART_BYTES", 256)
    append(home / "access.log", b'{"status":429,\n', b"x" * 1000 + b"\n", line(429, "rate"))
    found = counter(home)
    assert counted(found) == {"address rate": 1}
    assert found.unreadable == 1 + 3


def test_a_long_log_is_read_in_several_rounds(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(agent, "LOG_PART_BYTES", 1000)
    monkeypatch.setattr(agent, "LOG_ROUND_BYTES", 2000)
    append(home / "access.log", *[line(429, "rate")] * 100)
    found, seen = counter(home), [0]
    while seen[-1] < 100:
        seen.append(counted(found)["address rate"])
        assert seen[-1] > seen[-2]
    assert len(seen) > 4
    assert counted(found) == {"address rate": 100}


def test_a_store_that_cannot_be_used_starts_again(home: Path) -> None:
    append(home / "access.log", line(429, "rate"))
    for text in ("", "[]", '{"places": [], "totals": {}}', '{"places": [[1]], "totals": null, "unreadable": 0}'):
        agent.replace_file(home / "state" / "refusals.json", text)
        assert counted(counter(home)) == {"address rate": 1}


def test_nothing_is_stored_while_nothing_is_refused(home: Path) -> None:
    store = home / "state" / "refusals.json"
    append(home / "access.log", line())
    found = counter(home)
    found.follow()
    before = store.stat().st_mtime_ns, store.stat().st_ino
    append(home / "access.log", *[line()] * 50)
    found.follow()
    assert (store.stat().st_mtime_ns, store.stat().st_ino) == before
    append(home / "access.log", line(413))
    found.follow()
    assert (store.stat().st_mtime_ns, store.stat().st_ino) != before


STUB_STATUS = "Active connections: 4 \nserver accepts handled requests\n 12 10 31 \nReading: 0 Writing: 1 Waiting: 3 \n"


def test_nginxs_own_counts_are_read() -> None:
    assert agent.Connections.from_text(STUB_STATUS) == agent.Connections(12, 10, 31, 0, 1, 3)
    assert agent.Connections.from_text("<html>404</html>") is None


def test_the_metrics_of_the_limits(home: Path) -> None:
    append(home / "access.log", line(429, "rate"), line(429, identity="rate"), line(429, identity="rate"))
    found = counter(home)
    found.follow()
    text = agent.render_limits(configuration(home), found, True, agent.Connections.from_text(STUB_STATUS))
    samples = [line for line in text.splitlines() if not line.startswith("#")]
    assert samples == [
        'gpufleet_gateway_limit_requests_per_second{per="address"} 50.0',
        'gpufleet_gateway_limit_requests_per_second{per="identity"} 20.0',
        'gpufleet_gateway_limit_burst_requests{per="address"} 100.0',
        'gpufleet_gateway_limit_burst_requests{per="identity"} 40.0',
        'gpufleet_gateway_limit_concurrent_requests{per="address"} 200.0',
        "gpufleet_gateway_limit_body_bytes 20971520.0",
        'gpufleet_gateway_refused_total{per="address",limit="rate"} 1.0',
        'gpufleet_gateway_refused_total{per="address",limit="concurrent"} 0.0',
        'gpufleet_gateway_refused_total{per="identity",limit="rate"} 2.0',
        'gpufleet_gateway_refused_total{per="identity",limit="concurrent"} 0.0',
        'gpufleet_gateway_refused_total{per="request",limit="body"} 0.0',
        "gpufleet_gateway_log_followed 1.0",
        "gpufleet_gateway_log_unreadable_lines_total 0.0",
        'gpufleet_gateway_connections{state="reading"} 0.0',
        'gpufleet_gateway_connections{state="writing"} 1.0',
        'gpufleet_gateway_connections{state="waiting"} 3.0',
        "gpufleet_gateway_connections_accepted_total 12.0",
        "gpufleet_gateway_connections_dropped_total 2.0",
    ]


def test_a_log_that_cannot_be_read_is_said_once_and_shown(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    async def scene() -> None:
        async with Engine() as first, Engine() as second:
            daemon = start(home, [first, second], **AT_ONCE)
            (home / "access.log").unlink()
            await rounds(daemon, 2)
            assert "gpufleet_gateway_log_followed 0.0\n" in (home / "runtime" / "metrics.prom").read_text()
            assert capsys.readouterr().err.count("refused requests are not counted: [Errno 2]") == 1
            append(home / "access.log", line(429, identity="concurrent"))
            await rounds(daemon, 1)
            metrics = (home / "runtime" / "metrics.prom").read_text()
            assert "gpufleet_gateway_log_followed 1.0\n" in metrics
            assert 'gpufleet_gateway_refused_total{per="identity",limit="concurrent"} 1.0\n' in metrics

    asyncio.run(scene())


def test_the_daemon_leaves_a_reload_of_somebody_else_alone(home: Path) -> None:
    async def scene() -> None:
        async with Engine() as first, Engine() as second:
            daemon = start(home, [first, second], **AT_ONCE)
            with agent.locked(daemon.configuration, 0):
                await rounds(daemon, 1)
                assert not (home / "includes").exists()
            await rounds(daemon, 1)
            assert "server" in include(home)

    asyncio.run(scene())


def test_what_was_found_outlives_the_daemon(home: Path) -> None:
    async def scene() -> None:
        async with Engine() as first, Engine() as second:
            daemon = start(home, [first, second], **AT_ONCE)
            first.answers["/health"] = (503, "")
            await rounds(daemon, 4)
            first.answers["/health"] = (200, "")
            again = agent.Daemon(str(home / "agent.json"))
            await rounds(again, 1)
            assert " down; # gpu-1/alpha-0" in include(home)
            await rounds(again, 2)
            assert "down" not in include(home)

    asyncio.run(scene())


def test_the_daemon_takes_in_a_new_configuration_and_keeps_the_old_one_for_a_broken_one(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async def scene() -> None:
        async with Engine() as first, Engine() as second:
            daemon = start(home, [first, second], **AT_ONCE)
            await rounds(daemon, 1)
            capsys.readouterr()
            (home / "agent.json").write_text("{")
            await rounds(daemon, 1)
            assert capsys.readouterr().err.startswith(f"keeping the previous configuration: {home}/agent.json: ")
            assert len(daemon.configuration.peers) == 2
            (home / "agent.json").write_text(json.dumps(document(home, [server(second, "gpu-2/alpha-0")], **AT_ONCE)))
            await rounds(daemon, 1)
            assert "read the configuration: 1 peers in 1 groups" in capsys.readouterr().err
            assert include(home).count("server ") == 1

    asyncio.run(scene())


def test_an_engine_that_refuses_the_probe_stays_and_is_named_once(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async def scene() -> None:
        async with Engine() as first, Engine() as second:
            daemon = start(home, [first, second], **AT_ONCE)
            first.answers["/v1/completions"] = (401, "")
            for __ in range(4):
                daemon._progress_due.clear()
                await rounds(daemon, 1)
            assert "down" not in include(home)
            said = [line for line in capsys.readouterr().err.splitlines() if "can't be asked" in line]
            assert said == ["alpha: gpu-1/alpha-0 can't be asked for progress, completion: HTTP 401"]

    asyncio.run(scene())


def test_a_hung_engine_that_comes_back_with_a_key_is_taken_back(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It answers and nothing says that it hangs; that it can't be asked is said."""

    async def scene() -> None:
        async with Engine() as first, Engine() as second:
            daemon = start(home, [first, second], **AT_ONCE)
            first.answers["/v1/completions"] = None
            await rounds(daemon, 3)
            assert " down; # gpu-1/alpha-0" in include(home)
            first.answers["/v1/completions"] = (401, "")
            await rounds(daemon, 1)
            assert daemon.states["alpha gpu-1/alpha-0"].available is False
            await rounds(daemon, 2)
            assert "down" not in include(home)
            said = capsys.readouterr().err
            assert "alpha: gpu-1/alpha-0 can't be asked for progress, completion: HTTP 401\n" in said
            assert said.count(" is available again\n") == 1
            peer = f'{{upstream="alpha",peer="gpu-1/alpha-0",endpoint="127.0.0.1:{first.port}"}}'
            await rounds(daemon, 1)
            metrics = (home / "runtime" / "metrics.prom").read_text()
            assert f"gpufleet_probe_progress_unknown{peer} 1.0\n" in metrics

    asyncio.run(scene())


def test_an_answer_that_tells_nothing_ends_a_row_of_failures(home: Path) -> None:
    async def scene() -> None:
        async with Engine() as first, Engine() as second:
            daemon = start(home, [first, second], **AT_ONCE)
            first.answers["/v1/completions"] = (500, "")
            await rounds(daemon, 1)
            first.answers["/v1/completions"] = (404, "")
            await rounds(daemon, 1)
            asked = first.asked.count("/v1/completions")
            # It is asked at the slow pace again.
            await rounds(daemon, 2)
            assert first.asked.count("/v1/completions") == asked == 2
            first.answers["/v1/completions"] = (500, "")
            daemon._progress_due.clear()
            await rounds(daemon, 1)
            assert daemon.states["alpha gpu-1/alpha-0"].available is True

    asyncio.run(scene())


def test_a_round_that_comes_a_moment_too_soon_does_not_cost_a_round(home: Path) -> None:
    async def scene() -> None:
        async with Engine() as first:
            daemon = start(home, [first])
            await rounds(daemon, 1)
            wait = daemon._progress_due["alpha gpu-1/alpha-0"] - time.monotonic()
            assert 10 < wait < 14

    asyncio.run(scene())


def test_the_daemon_runs_as_a_service(home: Path) -> None:
    """It says that it is ready, writes its state, ends at SIGTERM with 0, and status sees it."""
    path = str(home / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
        channel.bind(path)
        channel.settimeout(120)
        command = [sys.executable, "-I", str(AGENT), "--configuration", str(home / "agent.json"), "run"]
        environment = {**os.environ, "NOTIFY_SOCKET": path}
        with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) as process:
            assert channel.recv(64) == b"READY=1"
            status = subprocess.run([*command[:-1], "status"], capture_output=True, text=True, check=True)
            assert json.loads(status.stdout)["agent_running"] is True
            process.terminate()
            assert process.wait(120) == 0
            assert process.stderr is not None
            assert "probing 2 peers in 1 groups\n" in process.stderr.read()
    assert (home / "state" / "peers.json").exists()
