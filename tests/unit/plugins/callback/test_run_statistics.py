# SPDX-License-Identifier: Apache-2.0
"""The callback counts what runs on a host, and nothing else."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ansible.plugins.action import ActionBase

from ansible_collections.gpufleet.metal.plugins.callback import run_statistics

PLAYBOOK = """
- name: Everything that could be counted
  hosts: gpu_nodes:gateways
  gather_facts: false
  tasks:
    - name: One module on each host
      ansible.builtin.ping:
    - name: A loop with one item skipped
      ansible.builtin.ping:
      loop: [1, 2, 3]
      when: item != 2
    - name: The controller alone
      ansible.builtin.assert:
        that: inventory_hostname | length > 0
    - name: Skipped on all but one
      ansible.builtin.ping:
      when: inventory_hostname == 'gw-1'
    - name: An action that runs two modules
      ansible.builtin.copy:
        content: hello
        dest: "{{ target }}/{{ inventory_hostname }}"
        mode: "0600"
    - name: Delegated
      ansible.builtin.ping:
      delegate_to: gw-1
      when: inventory_hostname == 'gpu-1'
    - name: A command and no module
      ansible.builtin.raw: "true"
      changed_when: false
      when: inventory_hostname == 'gpu-2'
"""
INVENTORY = """
all:
  vars:
    ansible_connection: local
    ansible_pipelining: true
  children:
    gpu_nodes: {hosts: {gpu-1: {}, gpu-2: {}}}
    gateways: {hosts: {gw-1: {}}}
"""


def module(host: str, seconds: float, **names: str) -> dict[str, Any]:
    """Return a recorded start of a module."""
    return {"host": host, "kind": "module", "module": "m", "play": "p", "role": "r", "seconds": seconds, **names}


def test_events_add_up_by_host_and_dimension() -> None:
    events = [
        module("b", 0.5, role="docker"),
        module("a", 1.0, module="ansible.builtin.setup"),
        module("b", 0.25, role="nginx"),
        {"host": "b", "kind": "command"},
        {"host": "b", "kind": "transfer"},
        {"host": "b", "kind": "command"},
    ]
    hosts = run_statistics.summarize(events)
    assert list(hosts) == ["a", "b"]
    assert hosts["b"].as_dict() == {
        "commands": 2,
        "modules": {"count": 2, "seconds": 0.75},
        "transfers": 1,
        "by_module": {"m": {"count": 2, "seconds": 0.75}},
        "by_play": {"p": {"count": 2, "seconds": 0.75}},
        "by_role": {"docker": {"count": 1, "seconds": 0.5}, "nginx": {"count": 1, "seconds": 0.25}},
    }


@pytest.mark.parametrize(
    ("delegate", "task_vars", "expected"),
    [
        ("gw-1", {"inventory_hostname": "gpu-1"}, "gw-1"),
        (None, {"inventory_hostname": "gpu-1"}, "gpu-1"),
        (None, None, "localhost"),
    ],
)
def test_host_is_the_delegate_or_the_host_of_the_task(
    delegate: str | None, task_vars: dict[str, str] | None, expected: str
) -> None:
    action: Any = SimpleNamespace(_task=SimpleNamespace(delegate_to=delegate))
    assert run_statistics.host_of(action, {"task_vars": task_vars}) == expected


def test_methods_are_put_back(tmp_path: Path) -> None:
    names = ("_execute_module", "_low_level_execute_command", "_transfer_file")
    before = [getattr(ActionBase, name) for name in names]
    recorder = run_statistics.Recorder(tmp_path / "events")
    recorder.install()
    assert all(getattr(ActionBase, name) is not original for name, original in zip(names, before, strict=True))
    recorder.remove()
    assert [getattr(ActionBase, name) for name in names] == before


def test_a_failed_module_counts_too(tmp_path: Path) -> None:
    path = tmp_path / "events"
    path.touch()
    recorder = run_statistics.Recorder(path)

    def fail(action: ActionBase, **kwargs: Any) -> None:
        raise OSError("connection lost")

    action: Any = SimpleNamespace(_task=SimpleNamespace(delegate_to=None, action="x.y.z", _role=None))
    with pytest.raises(OSError, match="connection lost"):
        recorder._recording(fail, "module")(action, task_vars={"inventory_hostname": "gpu-1"})
    (event,) = recorder.events()
    assert (event["host"], event["module"], event["role"]) == ("gpu-1", "x.y.z", "(no role)")


def test_counts_of_a_real_run(tmp_path: Path) -> None:
    (tmp_path / "playbook.yml").write_text(PLAYBOOK, encoding="utf-8")
    (tmp_path / "hosts.yml").write_text(INVENTORY, encoding="utf-8")
    (tmp_path / "target").mkdir()
    collections = Path(run_statistics.__file__).parents[5]
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("ANSIBLE_")}
    done = subprocess.run(
        [
            str(Path(sys.executable).parent / "ansible-playbook"), "-i", "hosts.yml", "playbook.yml",
            "-e", f"target={tmp_path / 'target'}", "-e", f"ansible_python_interpreter={sys.executable}",
        ],
        cwd=tmp_path,
        env={
            **inherited,
            "ANSIBLE_HOME": str(tmp_path / "home"),
            "ANSIBLE_LOCAL_TEMP": str(tmp_path / "home" / "tmp"),
            "ANSIBLE_COLLECTIONS_PATH": str(collections),
            "ANSIBLE_CALLBACKS_ENABLED": "gpufleet.metal.run_statistics",
            "GPUFLEET_RUN_STATISTICS_PATH": "statistics.json",
        },
        check=False,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    # ping, two of three items, the copy's question for the file and the copy itself; then what single hosts do.
    assert "Module executions: gpu-1 5, gpu-2 5, gw-1 7" in done.stdout
    report = json.loads((tmp_path / "statistics.json").read_text(encoding="utf-8"))
    assert {name: host["modules"]["count"] for name, host in report["hosts"].items()} == {
        "gpu-1": 5,
        "gpu-2": 5,
        "gw-1": 7,
    }
    assert report["totals"]["modules"]["count"] == 17
    gateway = report["hosts"]["gw-1"]
    assert gateway["groups"] == ["all", "gateways"]
    assert {name: tally["count"] for name, tally in gateway["by_module"].items()} == {
        "ansible.builtin.ping": 5,
        "ansible.legacy.copy": 1,
        "ansible.legacy.stat": 1,
    }
    assert {name: tally["count"] for name, tally in gateway["by_play"].items()} == {
        "Everything that could be counted": 7
    }
    assert report["schema"] == 1
    assert report["playbook"] == "playbook.yml"
