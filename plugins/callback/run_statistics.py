# Copyright (c) 2026 The gpufleet.metal maintainers
# Apache-2.0, or at your option the GNU General Public License v3.0+ (https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: Apache-2.0 OR GPL-3.0-or-later
"""Count what a run really executes on each host.

Ansible's own callbacks see one result for each task, whatever it took: a skipped task, an assertion on the controller
and a template that runs two modules look alike. Here the place that starts every module on a host
(C(ActionBase._execute_module) of ansible-core) writes one line for each start, so the counts are observed, not derived.
"""

from __future__ import annotations

DOCUMENTATION = r"""
name: run_statistics
type: aggregate
short_description: Counts the module executions of each host and writes them as JSON
version_added: 0.1.0
author:
  - The gpufleet.metal maintainers (@gpufleet)
description:
  - Counts how often a module was really started on a host over its connection, for each host, play, role and module,
    and how long that took.
  - The counts do not depend on the speed of a machine, so a test can assert them as a budget.
  - One start of a module is one execution. A loop counts once for each item that was not skipped. An action that runs
    several modules counts each of them, for example C(ansible.builtin.template), which asks for the state of the file
    first and then writes it. Every attempt of C(until) and every poll of C(async) counts.
  - Skipped tasks do not count, nor do actions that work on the controller alone, such as C(ansible.builtin.set_fact),
    C(ansible.builtin.assert), C(ansible.builtin.debug) and includes.
  - A delegated execution counts for the host that it was delegated to.
  - Commands that a connection runs for any reason are counted beside the modules. With pipelining a module is one
    command; without it, a module also makes and removes a directory. C(ansible.builtin.raw) is a command and no module.
  - It replaces three methods of ansible-core's C(ActionBase) while the playbook runs. Tested with ansible-core 2.19.
requirements:
  - enable in configuration, see the examples
options:
  path:
    description:
      - The file on the controller to write. Its directory must exist. An older file is replaced.
      - Without a path only the line of totals is shown.
    type: path
    env:
      - name: GPUFLEET_RUN_STATISTICS_PATH
    ini:
      - section: callback_run_statistics
        key: path
"""

EXAMPLES = r"""
# ANSIBLE_CALLBACKS_ENABLED=gpufleet.metal.run_statistics \
# GPUFLEET_RUN_STATISTICS_PATH=build/statistics.json \
# ansible-playbook gpufleet.metal.site -i inventories/prod
#
# {
#   "hosts": {
#     "gpu-1": {
#       "changed": 0, "commands": 27, "failures": 0, "groups": ["all", "gpu_nodes"],
#       "modules": {"count": 27, "seconds": 14.2},
#       "by_module": {"ansible.builtin.setup": {"count": 1, "seconds": 1.1}, "...": {}},
#       "by_play": {"Install the container engine": {"count": 4, "seconds": 2.9}, "...": {}},
#       "by_role": {"gpufleet.metal.docker": {"count": 4, "seconds": 2.9}, "...": {}},
#       "ok": 61, "skipped": 12, "transfers": 0, "unreachable": 0
#     }
#   },
#   "playbook": "site.yml",
#   "schema": 1,
#   "totals": {"commands": 27, "modules": {"count": 27, "seconds": 14.2}, "transfers": 0},
#   "wall_seconds": 48.3
# }
"""

import functools
import json
import os
import tempfile
import time
import typing as t
from collections.abc import Callable, Iterable
from multiprocessing import current_process
from pathlib import Path

from ansible import constants as C  # noqa: N812
from ansible.plugins.action import ActionBase
from ansible.plugins.callback import CallbackBase

#: What is written for a task that belongs to no role.
NO_ROLE = "(no role)"
NO_PLAY = "(no play)"


class Tally:
    """A number of executions and the seconds that they took together."""

    def __init__(self) -> None:
        self.count = 0
        self.seconds = 0.0

    def add(self, seconds: float) -> None:
        """Count one execution that took I(seconds)."""
        self.count += 1
        self.seconds += seconds

    def as_dict(self) -> dict[str, t.Any]:
        """Return the tally with milliseconds as the smallest unit."""
        return {"count": self.count, "seconds": round(self.seconds, 3)}


class HostTally:
    """Everything that was executed on one host."""

    def __init__(self) -> None:
        self.modules = Tally()
        self.commands = 0
        self.transfers = 0
        self.by: dict[str, dict[str, Tally]] = {"module": {}, "play": {}, "role": {}}

    def add(self, event: dict[str, t.Any]) -> None:
        """Count one recorded event, see C(Recorder)."""
        if event["kind"] == "command":
            self.commands += 1
            return
        if event["kind"] == "transfer":
            self.transfers += 1
            return
        self.modules.add(event["seconds"])
        for dimension, tallies in self.by.items():
            tallies.setdefault(event[dimension], Tally()).add(event["seconds"])

    def as_dict(self) -> dict[str, t.Any]:
        """Return the counts of the host as they are written to the file."""
        result: dict[str, t.Any] = {
            "commands": self.commands,
            "modules": self.modules.as_dict(),
            "transfers": self.transfers,
        }
        for dimension, tallies in self.by.items():
            result[f"by_{dimension}"] = {name: tally.as_dict() for name, tally in sorted(tallies.items())}
        return result


def summarize(events: Iterable[dict[str, t.Any]]) -> dict[str, HostTally]:
    """Add recorded events up for each host, sorted by name."""
    hosts: dict[str, HostTally] = {}
    for event in events:
        hosts.setdefault(event["host"], HostTally()).add(event)
    return dict(sorted(hosts.items()))


class Recorder:
    """Appends one JSON line for each event to a file that all worker processes share.

    Workers are forked from the process that runs the playbook, so they inherit the replaced methods and the path.
    Each line is one write to a file opened for appending, which the kernel does not interleave with another's.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.play = NO_PLAY
        self._originals: dict[str, Callable[..., t.Any]] = {}

    def install(self) -> None:
        """Replace the methods of ActionBase that reach a host by ones that also record."""
        for name, kind in (
            ("_execute_module", "module"),
            ("_low_level_execute_command", "command"),
            ("_transfer_file", "transfer"),
        ):
            original = getattr(ActionBase, name)
            self._originals[name] = original
            setattr(ActionBase, name, self._recording(original, kind))

    def remove(self) -> None:
        """Put ansible-core's own methods back."""
        for name, original in self._originals.items():
            setattr(ActionBase, name, original)
        self._originals = {}

    def events(self) -> list[dict[str, t.Any]]:
        """Return what was recorded so far, in the order in which it ended."""
        with self.path.open(encoding="utf-8") as lines:
            return [json.loads(line) for line in lines]

    def _recording(self, original: Callable[..., t.Any], kind: str) -> Callable[..., t.Any]:
        @functools.wraps(original)
        def wrapper(action: ActionBase, *args: t.Any, **kwargs: t.Any) -> t.Any:
            started = time.monotonic()
            try:
                return original(action, *args, **kwargs)
            finally:
                self._write(action, kind, time.monotonic() - started, args, kwargs)

        return wrapper

    def _write(
        self, action: ActionBase, kind: str, seconds: float, args: tuple[t.Any, ...], kwargs: dict[str, t.Any]
    ) -> None:
        task = action._task
        event: dict[str, t.Any] = {"host": host_of(action, kwargs), "kind": kind}
        if kind == "module":
            event["module"] = kwargs.get("module_name") or (args[0] if args else None) or task.action
            event["play"] = self.play
            event["role"] = task._role.get_name() if task._role else NO_ROLE
            event["seconds"] = round(seconds, 6)
        line = json.dumps(event) + "\n"
        descriptor = os.open(self.path, os.O_WRONLY | os.O_APPEND)
        try:
            os.write(descriptor, line.encode("utf-8"))
        finally:
            os.close(descriptor)


def host_of(action: ActionBase, kwargs: dict[str, t.Any]) -> str:
    """Return the inventory name of the host that an action reaches: the delegate if there is one."""
    delegate = action._task.delegate_to
    if delegate:
        return str(delegate)
    host = getattr(current_process(), "_host", None)
    if host is not None:
        return str(host.get_name())
    return str((kwargs.get("task_vars") or {}).get("inventory_hostname", "localhost"))


class CallbackModule(CallbackBase):
    """Records a run and writes its statistics when it ends."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "aggregate"
    CALLBACK_NAME = "gpufleet.metal.run_statistics"
    CALLBACK_NEEDS_ENABLED = True

    def __init__(self, *args: t.Any, **kwargs: t.Any) -> None:
        super().__init__(*args, **kwargs)
        self.recorder: Recorder | None = None
        self.playbook = ""
        self.started = 0.0
        self.groups: dict[str, list[str]] = {}

    def v2_playbook_on_start(self, playbook: t.Any) -> None:
        """Start to record, before the first worker is forked."""
        self.started = time.monotonic()
        self.playbook = os.path.basename(playbook._file_name)
        # ansible-core removes this directory when it ends, however it ends.
        descriptor, path = tempfile.mkstemp(prefix="run_statistics_", dir=vars(C)["DEFAULT_LOCAL_TMP"])
        os.close(descriptor)
        self.recorder = Recorder(Path(path))
        self.recorder.install()

    def v2_playbook_on_play_start(self, play: t.Any) -> None:
        """Note the play's name, which the workers inherit when they are forked."""
        if self.recorder is not None:
            self.recorder.play = play.get_name().strip() or NO_PLAY

    def v2_runner_on_start(self, host: t.Any, task: t.Any) -> None:
        """Note the groups of a host, so that a budget can be stated for a group."""
        if host.get_name() not in self.groups:
            self.groups[host.get_name()] = sorted(group.get_name() for group in host.get_groups())

    def v2_playbook_on_stats(self, stats: t.Any) -> None:
        """Stop to record, write the file and show one line."""
        if self.recorder is None:
            return
        self.recorder.remove()
        tallies = summarize(self.recorder.events())
        report = self.report(tallies, stats)
        path = self.get_option("path")
        if path:
            Path(path).write_text(json.dumps(report, indent=2, sort_keys=True) + "\n", encoding="utf-8")
        counts = ", ".join(f"{name} {tally.modules.count}" for name, tally in tallies.items())
        self._display.display(f"Module executions: {counts or 'none'}")

    def report(self, tallies: dict[str, HostTally], stats: t.Any) -> dict[str, t.Any]:
        """Return the statistics of the run as they are written to the file.

        I(tallies) has what was executed, I(stats) is ansible-core's own summary of tasks.
        """
        hosts: dict[str, t.Any] = {}
        for name in sorted({*tallies, *stats.processed}):
            summary = stats.summarize(name)
            hosts[name] = {
                **tallies.get(name, HostTally()).as_dict(),
                "groups": self.groups.get(name, []),
                **{key: summary[key] for key in ("changed", "failures", "ok", "skipped", "unreachable")},
            }
        modules = Tally()
        for tally in tallies.values():
            modules.count += tally.modules.count
            modules.seconds += tally.modules.seconds
        return {
            "schema": 1,
            "playbook": self.playbook,
            "wall_seconds": round(time.monotonic() - self.started, 3),
            "hosts": hosts,
            "totals": {
                "commands": sum(tally.commands for tally in tallies.values()),
                "modules": modules.as_dict(),
                "transfers": sum(tally.transfers for tally in tallies.values()),
            },
        }
