# SPDX-License-Identifier: Apache-2.0
"""Kills the run, and all that it started, at a known point: the harshest end."""

from __future__ import annotations

import os
import signal
from typing import Any

from ansible.plugins.callback import CallbackBase

DOCUMENTATION = """
name: kill_after
type: notification
short_description: Kill the run after a number of steps, or before a task
description:
  - For the test of runs that are killed at any point and continued. A step is the result of a task on a host, if the
    task could have changed or proved anything.
options:
  steps:
    description: The number of steps. 0 lets the run end by itself.
    type: int
    default: 0
    env:
      - name: KILL_AFTER_STEPS
  task:
    description: The name of the task that shall not begin any more.
    type: str
    default: ""
    env:
      - name: KILL_BEFORE_TASK
  times:
    description: How many times that task has begun when the run is killed, this time included.
    type: int
    default: 1
    env:
      - name: KILL_BEFORE_TASK_TIMES
"""


#: Actions that only think.
THOUGHTS = {
    f"ansible.builtin.{name}"
    for name in ("add_host", "assert", "debug", "include_tasks", "include_vars", "meta", "ping", "set_fact", "setup")
} | {"ansible.builtin.validate_argument_spec"}


class CallbackModule(CallbackBase):
    """Counts steps and tasks; the run must lead a process group of its own."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "notification"
    CALLBACK_NAME = "kill_after"
    CALLBACK_NEEDS_ENABLED = True

    def __init__(self) -> None:
        super().__init__()
        self._seen = 0
        self._begun = 0

    def v2_playbook_on_task_start(self, task: Any, is_conditional: bool) -> None:
        """Count how often the task begins."""
        wanted = self.get_option("task")
        self._begun += wanted != "" and task.get_name().strip() == wanted
        if 0 < self._begun == self.get_option("times"):
            os.killpg(os.getpgid(0), signal.SIGKILL)

    def v2_runner_on_ok(self, result: Any) -> None:
        """Count what a task did; a skipped one did nothing."""
        self._seen += result.task.resolved_action not in THOUGHTS
        if 0 < self._seen == self.get_option("steps"):
            os.killpg(os.getpgid(0), signal.SIGKILL)
