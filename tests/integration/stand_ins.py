# SPDX-License-Identifier: Apache-2.0
"""A real playbook in a collection of stand-ins, for tests of its shape.

Preflight and the roles' entry points are stand-ins that write their name into a journal and fail where a test says so.
The hosts are this machine under several names.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from artefact import ROOT, TOOLS

PREFLIGHT = """
- name: Stand in for the plan and the findings
  hosts: all
  gather_facts: false
  tasks:
    - name: Say what is ignored and mended
      ansible.builtin.debug:
        msg: >-
          ignored {{ preflight_ignored_codes | default([]) | join(',') }},
          mended {{ preflight_mended_codes | default([]) | join(',') }},
          in the cluster {{ __preflight_mended_in_cluster | default([]) | join(',') }}
      run_once: true
    - name: Plan
      ansible.builtin.set_fact:
        fleet_plan: {hosts: "{{ slices }}"}
"""

#: What an entry point does. `lost_at` is where the host gives no answer any more.
ENTRY = """
- name: ENTRY | Write it down
  ansible.builtin.shell: echo '{{ inventory_hostname }} ENTRY{{ STATE }}' >> {{ journal }}
  changed_when: true
  check_mode: false
- name: ENTRY | Lose the host
  ansible.builtin.ping:
  vars: {ansible_connection: ssh, ansible_host: 127.0.0.1, ansible_port: 1}
  when: lost_at | default('') == 'ENTRY'
- name: ENTRY | Fail
  ansible.builtin.fail: {msg: simulated failure of ENTRY}
  when: "'ENTRY' ~ STATE in fails | default([])"
- name: ENTRY | Say what it says
  ansible.builtin.set_fact:
"""


@dataclass(frozen=True)
class Shape:
    """A playbook, what it includes, and what its stand-ins say."""

    playbook: str
    #: The entry points of each role.
    entries: Mapping[str, Sequence[str]]
    #: The facts that each entry point sets.
    facts: Mapping[str, Any]
    #: Files of variables beside the playbook, which are empty here.
    variable_files: Sequence[str] = ()


class StandIns:
    """The collection, a journal, and the means to run the playbook."""

    def __init__(self, place: Path, shape: Shape) -> None:
        self.place = place
        self.shape = shape
        self._playbooks = place / "ansible_collections" / "gpufleet" / "metal" / "playbooks"
        (self._playbooks / "vars").mkdir(parents=True)
        shutil.copy(ROOT / "playbooks" / f"{shape.playbook}.yml", self._playbooks)
        for name in shape.variable_files:
            (self._playbooks / "vars" / name).write_text("{}\n")
        (self._playbooks / "preflight.yml").write_text(PREFLIGHT)
        says = "".join(f"    {name}: {json.dumps(value)}\n" for name, value in shape.facts.items())
        for role, entries in shape.entries.items():
            tasks = self._playbooks.parent / "roles" / role / "tasks"
            tasks.mkdir(parents=True)
            for entry in entries:
                state = "(' ' ~ nginx_hold_state | default('held'))" if entry == "hold" else "''"
                text = (ENTRY + says).replace("ENTRY", f"{role}.{entry}").replace("STATE", state)
                (tasks / f"{entry}.yml").write_text(text)

    def run(
        self, groups: Mapping[str, Mapping[str, Any]], variables: Mapping[str, Any], *arguments: str
    ) -> tuple[int, str]:
        """Run it on hosts with variables, by group; return its status and what it printed, on one line."""
        common = {
            "journal": str(self.place / "journal"),
            "ansible_connection": "local",
            "ansible_become": False,
            "ansible_python_interpreter": "{{ ansible_playbook_python }}",
            **variables,
        }
        children = {group: {"hosts": dict(hosts)} for group, hosts in groups.items()}
        inventory = self.place / "hosts.yml"
        inventory.write_text(yaml.safe_dump({"all": {"children": children, "vars": common}}))
        playbook = str(self._playbooks / f"{self.shape.playbook}.yml")
        done = subprocess.run(
            ["ansible-playbook", "-i", str(inventory), playbook, *arguments],
            cwd=self.place,
            env={
                **{name: value for name, value in os.environ.items() if not name.startswith("ANSIBLE_")},
                "PATH": f"{TOOLS}{os.pathsep}{os.environ['PATH']}",
                "ANSIBLE_COLLECTIONS_PATH": str(self.place),
                "ANSIBLE_HOME": str(self.place / "home"),
                "ANSIBLE_NOCOLOR": "1",
            },
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        return done.returncode, " ".join(done.stdout.split())

    def journal(self, *looks: str) -> list[tuple[str, str]]:
        """Return what was done to whom, in its order, without the entry points that only look."""
        lines = (self.place / "journal").read_text().splitlines()
        found = [(host, entry) for host, __, entry in (line.partition(" ") for line in lines)]
        return [(host, entry) for host, entry in found if entry not in looks]
