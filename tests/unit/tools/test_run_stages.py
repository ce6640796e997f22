# SPDX-License-Identifier: Apache-2.0
"""The stage runner: what it runs, what it says, and what it makes of failures."""

from __future__ import annotations

import io
import json
import re
import signal
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.gpufleet.metal.tools import run_stages

OK = [sys.executable, "-c", "print('fine')"]
BAD = [sys.executable, "-c", "print('line\\n' * 100 + 'the reason'); raise SystemExit(3)"]
SLOW = [sys.executable, "-c", "import time; time.sleep(60)"]


def stage(name: str, command: list[str], **keys: Any) -> dict[str, Any]:
    """Return an entry of stages.toml."""
    return {"name": name, "command": command, "about": f"about {name}", "sets": ["test"], **keys}


def run(
    entries: list[dict[str, Any]], logs: Path, jobs: int = 1, stop: bool = False
) -> tuple[list[run_stages.Outcome], str]:
    """Run stages and return their outcomes and everything that was said."""
    out = io.StringIO()
    runner = run_stages.Runner(jobs, stop, logs, out)
    return runner.run(run_stages.read_stages({"stage": entries})), out.getvalue()


def states(outcomes: list[run_stages.Outcome]) -> dict[str, str]:
    """Return how each stage ended."""
    return {outcome.stage.name: outcome.state for outcome in outcomes}


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        (
            [stage("a", OK, colour="red")],
            "stage 'a': unknown key 'colour'; known are ['about', 'alone', 'cleanup', 'command', 'environment', "
            "'name', 'needs', 'sets', 'timeout_seconds', 'uses']",
        ),
        ([{"name": "a", "command": OK, "sets": []}], "stage 'a': key 'about' is missing"),
        ([stage("a", OK), stage("a", OK)], "stage 'a' is there twice"),
        ([stage("a", OK, needs=["b"]), stage("b", OK)], "stage 'a' needs 'b', which is not a stage above it"),
    ],
)
def test_wrong_stages_are_refused(entries: list[dict[str, Any]], message: str) -> None:
    with pytest.raises(run_stages.StageError, match=f"^{re.escape(message)}$"):
        run_stages.read_stages({"stage": entries})


def test_selection_brings_what_is_needed() -> None:
    stages = run_stages.read_stages(
        {"stage": [stage("a", OK), stage("b", OK, needs=["a"]), stage("c", OK, needs=["b"], sets=["slow"])]}
    )
    assert [item.name for item in run_stages.select(stages, ["c"], None)] == ["a", "b", "c"]
    assert [item.name for item in run_stages.select(stages, [], "test")] == ["a", "b"]
    with pytest.raises(run_stages.StageError, match=re.escape("there is no stage 'd'; stages are ['a', 'b', 'c']")):
        run_stages.select(stages, ["d"], None)
    with pytest.raises(run_stages.StageError, match=re.escape("no stage is in the set 'x'; sets are ['slow', 'test']")):
        run_stages.select(stages, [], "x")


@pytest.mark.parametrize(
    ("log", "expected"),
    [
        (
            "TASK [w] **\nok: [a]\n\nTASK [x] **\nfatal: [a]: FAILED! => no\nfatal: [b]: FAILED! => no\n\nPLAY RECAP\n",
            ["TASK [x]", "fatal: [a]: FAILED! => no", "fatal: [b]: FAILED! => no"],
        ),
        ("one\n\ntwo\n", ["one", "two"]),
        ("\n".join(f"error {number}" for number in range(9)), [f"error {number}" for number in range(1, 9)]),
        (f"ERROR {'x' * 1000}", [f"ERROR {'x' * 594}..."]),
        ("", []),
    ],
)
def test_reasons_are_the_lines_that_speak_of_a_failure(log: str, expected: list[str]) -> None:
    assert run_stages.reasons(log) == expected


def test_good_stages_pass(tmp_path: Path) -> None:
    outcomes, said = run([stage("a", OK), stage("b", OK)], tmp_path, jobs=2)
    assert states(outcomes) == {"a": "ok", "b": "ok"}
    assert run_stages.totals(outcomes) == "2 passed, 0 failed"
    assert "==> a ... about a\n" in said
    assert re.search(r"^==> a \.\.\. ok \d+\.\d s$", said, re.MULTILINE)
    assert (tmp_path / "a.log").read_text(encoding="utf-8") == "fine\n"


def test_failure_shows_its_end_and_spares_the_independent(tmp_path: Path) -> None:
    outcomes, said = run([stage("a", BAD), stage("b", OK, needs=["a"]), stage("c", OK)], tmp_path)
    assert states(outcomes) == {"a": "FAILED", "b": "not run", "c": "ok"}
    assert run_stages.totals(outcomes) == "1 passed, 2 failed"
    assert "the reason" in said
    assert said.count("    line\n") == run_stages.SHOWN_LINES - 1
    assert f"(the last 80 of 101 lines; all of them: {tmp_path / 'a.log'})" in said
    assert "==> b ... not run because a failed" in said


def test_stop_starts_nothing_more(tmp_path: Path) -> None:
    outcomes, _said = run([stage("a", BAD), stage("b", OK)], tmp_path, stop=True)
    assert states(outcomes) == {"a": "FAILED", "b": "not run"}


def test_hanging_stage_is_ended(tmp_path: Path) -> None:
    outcomes, _said = run([stage("a", SLOW, timeout_seconds=0)], tmp_path)
    assert states(outcomes) == {"a": "TIMED OUT"}
    assert outcomes[0].seconds < 30


def test_stage_alone_waits_for_the_others(tmp_path: Path) -> None:
    log = tmp_path / "order"
    wait = "import sys, time; f = open(sys.argv[1], 'a'); f.write(sys.argv[2] + ' '); f.flush(); time.sleep(0.3)"
    entries = [
        stage(name, [sys.executable, "-c", f"{wait}; f.write('/' + sys.argv[2] + ' ')", str(log), name], alone=alone)
        for name, alone in (("a", False), ("b", True), ("c", False))
    ]
    outcomes, _said = run(entries, tmp_path, jobs=3)
    assert set(states(outcomes).values()) == {"ok"}
    assert "b /b" in log.read_text(encoding="utf-8")


def test_stages_that_use_the_same_take_turns(tmp_path: Path) -> None:
    """What uses something else, or nothing, runs beside them: a stage here ends when those are there."""
    marked = "import pathlib, sys, time; here = pathlib.Path(sys.argv[1]); (here / sys.argv[2]).touch()"
    there = "(here / 'c').exists() and (here / 'd').exists()"
    waits = f"{marked}\nwhile not ({there}): time.sleep(0.05)\n(here / 'a-ended').touch()"
    after = f"{marked}\nassert (here / 'a-ended').exists()"
    entries = [
        stage(name, [sys.executable, "-c", program, str(tmp_path), name], uses=uses, timeout_seconds=60)
        for name, uses, program in (
            ("a", ["docker"], waits),
            ("b", ["docker"], after),
            ("c", ["gpu"], marked),
            ("d", [], marked),
        )
    ]
    outcomes, _said = run(entries, tmp_path, jobs=4)
    assert states(outcomes) == {"a": "ok", "b": "ok", "c": "ok", "d": "ok"}


def test_signs_of_life(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_stages, "KEEP_ALIVE_SECONDS", 0.1)
    _outcomes, said = run([stage("a", [sys.executable, "-c", "import time; time.sleep(0.5)"])], tmp_path)
    assert re.search(r"^    a \.\.\. still running, \d+ s$", said, re.MULTILINE)


def test_table_has_a_line_for_each_stage_and_one_for_all() -> None:
    (item,) = run_stages.read_stages({"stage": [stage("units", OK)]})
    assert run_stages.table([run_stages.Outcome(item, "ok", 12.345)], 13) == [
        "stage  seconds  result",
        "units     12.3  ok",
        "all       13.0",
    ]


def marking(path: Path, text: str) -> list[str]:
    """Return a command that appends to a file."""
    return [sys.executable, "-c", f"open({str(path)!r}, 'a').write({text!r} + ' ')"]


def test_what_did_not_end_well_is_cleaned_up_before_the_next(tmp_path: Path) -> None:
    order = tmp_path / "order"
    entries = [
        stage("good", OK, cleanup=marking(order, "never")),
        stage("bad", BAD, cleanup=marking(order, "after-bad")),
        stage("slow", SLOW, cleanup=marking(order, "after-slow"), timeout_seconds=0),
        stage("next", marking(order, "next")),
    ]
    outcomes, said = run(entries, tmp_path)
    assert states(outcomes) == {"good": "ok", "bad": "FAILED", "slow": "TIMED OUT", "next": "ok"}
    assert order.read_text(encoding="utf-8") == "after-bad after-slow next "
    assert "    bad ... removing what it left behind\n" in said


def test_cleanup_that_fails_is_told(tmp_path: Path) -> None:
    outcomes, said = run([stage("a", BAD, cleanup=BAD), stage("b", OK)], tmp_path)
    assert states(outcomes) == {"a": "FAILED", "b": "ok"}
    assert re.search(r"^    a \.\.\. that failed \(.* returned non-zero exit status 3\.\); see ", said, re.MULTILINE)


def test_interrupted_stages_are_cleaned_up(tmp_path: Path) -> None:
    order = tmp_path / "order"

    def interrupt_soon(line: str) -> int:
        if "==> a ... about a" in line:
            signal.setitimer(signal.ITIMER_REAL, 0.5)
        return len(line)

    out = io.StringIO()
    out.write = interrupt_soon  # type: ignore[method-assign]
    before = signal.signal(signal.SIGALRM, run_stages.interrupt)
    try:
        with pytest.raises(KeyboardInterrupt):
            run_stages.Runner(1, False, tmp_path, out).run(
                run_stages.read_stages({"stage": [stage("a", SLOW, cleanup=marking(order, "cleaned"))]})
            )
    finally:
        signal.signal(signal.SIGALRM, before)
    assert order.read_text(encoding="utf-8") == "cleaned "


def test_commands_find_the_repository_from_any_shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in run_stages.ENVIRONMENT:
        monkeypatch.delenv(name, raising=False)
    show = "import json, os; print(json.dumps(dict(os.environ)))"
    run([stage("a", [sys.executable, "-c", show], environment={"OWN": "1"})], tmp_path)
    found = json.loads((tmp_path / "a.log").read_text(encoding="utf-8"))
    assert {name: found[name] for name in run_stages.ENVIRONMENT} == run_stages.ENVIRONMENT
    assert found["OWN"] == "1"
    assert found["PATH"].split(":")[0] == str(run_stages.ROOT / ".venv" / "bin")


REPOSITORY = run_stages.read_stages(tomllib.loads(run_stages.STAGES_FILE.read_text(encoding="utf-8")))


def test_stages_of_the_repository_are_good() -> None:
    assert {"units", "sanity", "ansible-lint", "types"} <= {item.name for item in REPOSITORY}


def test_every_scenario_has_its_stage() -> None:
    scenarios = sorted(path.parent.name for path in run_stages.ROOT.glob("molecule/*/molecule.yml"))
    commands = [("molecule", "test", "--scenario-name", scenario) for scenario in scenarios]
    assert scenarios
    assert [command for command in commands if command not in [item.command for item in REPOSITORY]] == []


def test_every_stage_with_hosts_removes_them() -> None:
    with_hosts = [item for item in REPOSITORY if item.command[0] == "molecule" or "tests/fleet" in item.command[0]]
    assert [item.name for item in with_hosts if not item.cleanup] == []
    for item in with_hosts:
        if item.command[0] == "molecule":
            assert item.cleanup == ("molecule", "destroy", "--scenario-name", item.command[-1])
