# SPDX-License-Identifier: Apache-2.0
"""Run the named stages of tools/stages.toml and say how each one ended.

    python tools/run_stages.py --set test            # every stage of a set
    python tools/run_stages.py lint units            # these stages and what they need
    python tools/run_stages.py --list

A stage is one command. Its output goes to build/logs/<stage>.log, and the end of that is shown when it fails. A stage
whose needs failed is not run and counts as failed; the others go on, unless --stop is given. What failed is repeated
after the table of seconds, because CI systems often keep only the end. The last line is `N passed, N failed`.

A stage that fails, is stopped or takes too long may leave hosts behind, which would take cores from the next one: its
`cleanup`, a second command, runs then. What every stage needs of its surroundings is in ENVIRONMENT, so this works in
a shell that knows nothing of the repository.
"""

from __future__ import annotations

import argparse
import os
import re
import signal
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

ROOT = Path(__file__).resolve().parent.parent
STAGES_FILE = ROOT / "tools" / "stages.toml"
LOGS = ROOT / "build" / "logs"
#: Where the tools of .venv find this checkout as the collection gpufleet.metal, its configuration and its scenarios.
ENVIRONMENT = {
    "ANSIBLE_COLLECTIONS_PATH": str(ROOT / "build" / "collections"),
    "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
    "MOLECULE_GLOB": "molecule/*/molecule.yml",
    "NO_COLOR": "1",
    "PYTHONUNBUFFERED": "1",
}
CLEANUP_SECONDS = 300
KEEP_ALIVE_SECONDS = 30
SHOWN_LINES = 80
REASON_LINES = 8
REASON_COLUMNS = 600
TASK = re.compile(r"^(TASK|RUNNING HANDLER) \[")
REASON = re.compile(r"\bfatal: |\bfailed: |^E  |\bFAILED\b|\b[Ee]rror\b|ERROR")
POLL_SECONDS = 0.1


class StageError(ValueError):
    """The file of stages or the names asked for are wrong."""


@dataclass(frozen=True)
class Stage:
    """One command with a name."""

    name: str
    command: tuple[str, ...]
    about: str
    sets: frozenset[str]
    needs: tuple[str, ...] = ()
    uses: tuple[str, ...] = ()  # what it has to itself: stages that use the same do not run at once
    alone: bool = False  # nothing else runs beside it: it counts failures under load, or waits for times
    timeout_seconds: int = 1800
    environment: dict[str, str] = field(default_factory=dict)
    cleanup: tuple[str, ...] = ()  # removes what the command leaves behind when it does not end well


@dataclass(frozen=True)
class Outcome:
    """How a stage ended. A stage that was not run has no seconds."""

    stage: Stage
    state: str  # ok | FAILED | TIMED OUT | not run
    seconds: float = 0.0


def read_stages(data: dict[str, Any]) -> list[Stage]:
    """Return the stages of a parsed stages.toml, in its order, or raise StageError."""
    known = {"name", "command", "about", "sets", "needs", "uses", "alone", "timeout_seconds", "environment", "cleanup"}
    stages: list[Stage] = []
    for entry in data.get("stage", []):
        unknown = sorted(set(entry) - known)
        if unknown:
            raise StageError(f"stage {entry.get('name')!r}: unknown key {unknown[0]!r}; known are {sorted(known)}")
        missing = sorted({"name", "command", "about", "sets"} - set(entry))
        if missing:
            raise StageError(f"stage {entry.get('name')!r}: key {missing[0]!r} is missing")
        before = {stage.name for stage in stages}
        if entry["name"] in before:
            raise StageError(f"stage {entry['name']!r} is there twice")
        for need in entry.get("needs", []):
            if need not in before:
                raise StageError(f"stage {entry['name']!r} needs {need!r}, which is not a stage above it")
        stages.append(
            Stage(
                name=entry["name"],
                command=tuple(entry["command"]),
                about=entry["about"],
                sets=frozenset(entry["sets"]),
                needs=tuple(entry.get("needs", [])),
                uses=tuple(entry.get("uses", [])),
                alone=entry.get("alone", False),
                timeout_seconds=entry.get("timeout_seconds", 1800),
                environment=dict(entry.get("environment", {})),
                cleanup=tuple(entry.get("cleanup", [])),
            )
        )
    return stages


def select(stages: Sequence[Stage], names: Sequence[str], set_name: str | None) -> list[Stage]:
    """Return the stages of a set, or the named ones, each with what it needs, in the file's order."""
    by_name = {stage.name: stage for stage in stages}
    if set_name is not None:
        wanted = {stage.name for stage in stages if set_name in stage.sets}
        if not wanted:
            sets = sorted({name for stage in stages for name in stage.sets})
            raise StageError(f"no stage is in the set {set_name!r}; sets are {sets}")
    else:
        wanted = set()
    for name in names:
        if name not in by_name:
            raise StageError(f"there is no stage {name!r}; stages are {sorted(by_name)}")
        wanted.add(name)
    for stage in reversed(stages):
        if stage.name in wanted:
            wanted.update(stage.needs)
    return [stage for stage in stages if stage.name in wanted]


def totals(outcomes: Iterable[Outcome]) -> str:
    """Return the last line of a run."""
    states = [outcome.state for outcome in outcomes]
    passed = states.count("ok")
    return f"{passed} passed, {len(states) - passed} failed"


def table(outcomes: Sequence[Outcome], wall_seconds: float) -> list[str]:
    """Return the lines of the table of seconds."""
    width = max((len(outcome.stage.name) for outcome in outcomes), default=5)
    lines = [f"{'stage':<{width}}  seconds  result"]
    lines.extend(f"{outcome.stage.name:<{width}}  {outcome.seconds:7.1f}  {outcome.state}" for outcome in outcomes)
    lines.append(f"{'all':<{width}}  {wall_seconds:7.1f}")
    return lines


def reasons(log: str) -> list[str]:
    """Return the last lines of a log that speak of a failure, each after its task; or its very last lines."""
    lines = [line for line in log.splitlines() if line.strip()]
    telling: list[str] = []
    task = ""
    for line in lines:
        if TASK.match(line):
            task = line.rstrip(" *")
        elif REASON.search(line):
            telling.extend([task, line] if task else [line])
            task = ""
    telling = telling or lines
    return [line if len(line) <= REASON_COLUMNS else f"{line[:REASON_COLUMNS]}..." for line in telling[-REASON_LINES:]]


def surroundings(stage: Stage) -> dict[str, str]:
    """Return the environment of a stage's commands: the tools of .venv come first, whether it was activated or not."""
    places = [ROOT / ".venv" / "bin", Path(sys.executable).parent]
    path = os.pathsep.join([*map(str, places), os.environ.get("PATH", os.defpath)])
    return {**os.environ, "PATH": path, **ENVIRONMENT, **stage.environment}


class Running:
    """A stage's process, its log and its clock."""

    def __init__(self, stage: Stage, logs: Path) -> None:
        self.stage = stage
        self.log_path = logs / f"{stage.name}.log"
        self._log: IO[bytes] = self.log_path.open("wb")
        self.started = time.monotonic()
        self.last_sign = self.started
        self.timed_out = False
        # A group of its own, so that a stage that is stopped takes its children with it.
        self.process = subprocess.Popen(
            stage.command,
            cwd=ROOT,
            env=surroundings(stage),
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    def seconds(self) -> float:
        """Return the seconds since the start."""
        return time.monotonic() - self.started

    def stop(self) -> None:
        """End the stage: ask first, then insist."""
        for number, patience in ((signal.SIGTERM, 20), (signal.SIGKILL, 5)):
            try:
                os.killpg(self.process.pid, number)
                self.process.wait(patience)
                return
            except (ProcessLookupError, subprocess.TimeoutExpired):
                continue

    def clean_up(self) -> None:
        """Remove what the stage left behind, with the output in its log; raise what keeps that from working."""
        with self.log_path.open("ab") as log:
            log.write(f"\n$ {' '.join(self.stage.cleanup)}\n".encode())
            log.flush()
            subprocess.run(
                self.stage.cleanup,
                cwd=ROOT,
                env=surroundings(self.stage),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                timeout=CLEANUP_SECONDS,
                check=True,
            )

    def outcome(self) -> Outcome | None:
        """Return how the stage ended, or None while it runs."""
        if not self.timed_out and self.seconds() > self.stage.timeout_seconds:
            self.timed_out = True
            self.stop()
        code = self.process.poll()
        if code is None:
            return None
        self._log.close()
        state = "TIMED OUT" if self.timed_out else "ok" if code == 0 else "FAILED"
        return Outcome(self.stage, state, self.seconds())


class Runner:
    """Runs stages, at most I(jobs) at once, and prints how they fare."""

    def __init__(self, jobs: int, stop_at_failure: bool, logs: Path = LOGS, out: IO[str] = sys.stdout) -> None:
        self.jobs = jobs
        self.stop_at_failure = stop_at_failure
        self.logs = logs
        self.out = out
        self.running: list[Running] = []
        self.done: dict[str, Outcome] = {}

    def run(self, stages: Sequence[Stage]) -> list[Outcome]:
        """Run the stages and return their outcomes in the given order."""
        self.logs.mkdir(parents=True, exist_ok=True)
        waiting = list(stages)
        try:
            while waiting or self.running:
                waiting = self._start(waiting)
                self._collect()
                if self.running:
                    time.sleep(POLL_SECONDS)
        except BaseException:
            for running in self.running:
                running.stop()
            for running in self.running:
                self._clean_up(running)
            raise
        return [self.done[stage.name] for stage in stages]

    def _start(self, waiting: list[Stage]) -> list[Stage]:
        """Start what may start and return what still waits."""
        left: list[Stage] = []
        failed = {name for name, outcome in self.done.items() if outcome.state != "ok"}
        for stage in waiting:
            culprits = [need for need in stage.needs if need in failed]
            if culprits or (failed and self.stop_at_failure):
                self._end(Outcome(stage, "not run"), f"because {culprits[0] if culprits else sorted(failed)[0]} failed")
                failed.add(stage.name)
            elif self._may_start(stage):
                self._say(f"==> {stage.name} ... {stage.about}")
                self.running.append(Running(stage, self.logs))
            else:
                left.append(stage)
        return left

    def _may_start(self, stage: Stage) -> bool:
        if any(need not in self.done for need in stage.needs):
            return False
        if stage.alone and self.running:
            return False
        if any(set(stage.uses) & set(running.stage.uses) for running in self.running):
            return False
        return len(self.running) < self.jobs and not any(running.stage.alone for running in self.running)

    def _collect(self) -> None:
        """Take note of stages that ended, and give a sign of life for the others."""
        for running in list(self.running):
            outcome = running.outcome()
            if outcome is not None:
                self.running.remove(running)
                self._end(outcome)
                if outcome.state != "ok":
                    self._show(running.log_path)
                    self._clean_up(running)
            elif time.monotonic() - running.last_sign >= KEEP_ALIVE_SECONDS:
                running.last_sign = time.monotonic()
                self._say(f"    {running.stage.name} ... still running, {running.seconds():.0f} s")

    def _end(self, outcome: Outcome, reason: str = "") -> None:
        self.done[outcome.stage.name] = outcome
        tail = reason or f"{outcome.seconds:.1f} s"
        self._say(f"==> {outcome.stage.name} ... {outcome.state} {tail}")

    def _clean_up(self, running: Running) -> None:
        """Remove what a stage that did not end well left behind, and say what keeps that from working."""
        if not running.stage.cleanup:
            return
        self._say(f"    {running.stage.name} ... removing what it left behind")
        try:
            running.clean_up()
        except (OSError, subprocess.SubprocessError) as error:
            self._say(f"    {running.stage.name} ... that failed ({error}); see {running.log_path}")

    def _show(self, path: Path) -> None:
        """Show the end of the log of a stage that failed."""
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
        if len(lines) > SHOWN_LINES:
            self._say(f"    (the last {SHOWN_LINES} of {len(lines)} lines; all of them: {path})")
        for line in lines[-SHOWN_LINES:]:
            self._say(f"    {line}")

    def _say(self, line: str) -> None:
        print(line, file=self.out, flush=True)


def interrupt(_number: int, _frame: object) -> None:
    """Treat a polite request to end like Ctrl-C, so that no stage outlives its runner."""
    raise KeyboardInterrupt


def main(arguments: Sequence[str]) -> int:
    """Run what the command line asks for and return the exit status."""
    parser = argparse.ArgumentParser(description="Run the stages of tools/stages.toml.")
    parser.add_argument("names", nargs="*", metavar="STAGE", help="stages to run, with what they need")
    parser.add_argument("--set", dest="set_name", help="run the stages of this set, for example test or quick")
    parser.add_argument("--jobs", type=int, default=2, help="how many stages may run at once (default 2)")
    parser.add_argument("--stop", action="store_true", help="start nothing more after a failure")
    parser.add_argument("--list", action="store_true", help="print the stages and run nothing")
    options = parser.parse_args(arguments)
    try:
        stages = read_stages(tomllib.loads(STAGES_FILE.read_text(encoding="utf-8")))
        if options.list:
            for stage in stages:
                print(f"{stage.name:<18} {','.join(sorted(stage.sets)):<12} {stage.about}")
            return 0
        if not options.names and options.set_name is None:
            parser.error("name stages or a --set; --list shows them")
        chosen = select(stages, options.names, options.set_name)
    except StageError as error:
        print(f"run_stages: {error}", file=sys.stderr)
        return 2
    signal.signal(signal.SIGTERM, interrupt)
    if sum(bool(stage.cleanup) for stage in chosen) > 1:
        # The last host of one stage must not take along the network that another one's hosts are about to join.
        os.environ["SANDBOX_KEEP_NETWORK"] = "1"
    started = time.monotonic()
    try:
        outcomes = Runner(options.jobs, options.stop).run(chosen)
    except KeyboardInterrupt:
        print("run_stages: interrupted; the stages that ran were stopped", file=sys.stderr)
        return 130
    print()
    print("\n".join(table(outcomes, time.monotonic() - started)))
    for outcome in outcomes:
        if outcome.state not in ("ok", "not run"):
            log = LOGS / f"{outcome.stage.name}.log"
            print(f"\n{outcome.stage.name}: {outcome.state}; the log: {log}")
            print("\n".join(f"    {line}" for line in reasons(log.read_text(encoding="utf-8", errors="replace"))))
    print()
    print(totals(outcomes), flush=True)
    return 0 if all(outcome.state == "ok" for outcome in outcomes) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
