# SPDX-License-Identifier: Apache-2.0
"""The shape of upgrade_driver: what is done to which host, in batches, when something fails at a stage.

The playbook is real; preflight and the roles' entry points are stand-ins that write their name into a journal and fail
where a test says so. The hosts are this machine under several names. Real roles are in tests/fleet/upgrade_driver.py.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from artefact import ROOT, TOOLS

HOSTS = ("gpu-a", "gpu-b", "gpu-c", "gpu-d")
ENTRIES = {
    "nvidia_driver": ("compare", "record", "main", "verify", "diagnose", "rollback"),
    "nginx": ("hold", "holders"),
    "vllm": ("idle", "stop", "main"),
}
CHANGED = ["vllm.idle", "vllm.stop", "nvidia_driver.main", "nvidia_driver.verify"]
TAKEN_OUT = ["nvidia_driver.record", "nginx.hold held"]
COMPLETE = [*TAKEN_OUT, *CHANGED, "vllm.main", "nginx.hold released"]
ROLLED_BACK = [*TAKEN_OUT, *CHANGED, "nvidia_driver.rollback", "vllm.stop"]

PREFLIGHT = """
- name: Stand in for the plan and the findings
  hosts: gpu_nodes
  gather_facts: false
  tasks:
    - name: Say what is ignored
      ansible.builtin.debug:
        msg: ignored {{ preflight_ignored_codes | join(',') }}, mended {{ preflight_mended_codes | join(',') }}
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
- name: ENTRY | Lose the host
  ansible.builtin.ping:
  vars: {ansible_connection: ssh, ansible_host: 127.0.0.1, ansible_port: 1}
  when: lost_at | default('') == 'ENTRY'
- name: ENTRY | Fail
  ansible.builtin.fail: {msg: simulated failure of ENTRY}
  when: "'ENTRY' ~ STATE in fails | default([])"
- name: ENTRY | Say what it says
  ansible.builtin.set_fact:
    nvidia_driver_differences: "{{ differences | default(['another version']) }}"
    nginx_holders: "{{ holders | default([]) }}"
    nvidia_driver_rolled_back: true
"""


class Fleet:
    """A collection of stand-ins around the real playbook, and an inventory of four hosts."""

    def __init__(self, place: Path) -> None:
        self.place = place
        collection = place / "ansible_collections" / "gpufleet" / "metal"
        (collection / "playbooks").mkdir(parents=True)
        shutil.copy(ROOT / "playbooks" / "upgrade_driver.yml", collection / "playbooks")
        (collection / "playbooks" / "preflight.yml").write_text(PREFLIGHT)
        for role, entries in ENTRIES.items():
            (collection / "roles" / role / "tasks").mkdir(parents=True)
            for entry in entries:
                state = "(' ' ~ nginx_hold_state | default('held'))" if entry == "hold" else "''"
                text = ENTRY.replace("ENTRY", f"{role}.{entry}").replace("STATE", state)
                (collection / "roles" / role / "tasks" / f"{entry}.yml").write_text(text)

    def upgrade(self, hosts: dict[str, dict[str, Any]], *arguments: str, batch: int = 2) -> tuple[int, str]:
        """Run the playbook with variables of some hosts; return its status and what it printed, on one line."""
        part = {
            "kubernetes": None,
            "driver": dict.fromkeys(
                ("branch", "version", "kernel_module", "components", "repository", "expected_gpus")
            ),
        }
        part.update(image={}, models_directory="/srv/models", instances=[], engine_tls={})
        common = {
            "slices": {host: {**part, **hosts.get(host, {}).get("slice", {})} for host in HOSTS},
            "journal": str(self.place / "journal"),
            "preflight_ignored_codes": ["ecc_disabled"],
            "ansible_connection": "local",
            "ansible_become": False,
            "ansible_python_interpreter": "{{ ansible_playbook_python }}",
        }
        groups = {
            "gpu_nodes": {"hosts": {host: hosts.get(host, {}) for host in HOSTS}, "vars": common},
            "gateways": {"hosts": {"gw-1": {}}},
        }
        (self.place / "hosts.yml").write_text(yaml.safe_dump({"all": {"children": groups}}))
        playbook = self.place / "ansible_collections" / "gpufleet" / "metal" / "playbooks" / "upgrade_driver.yml"
        variables = json.dumps({"upgrade_driver_batch": batch})
        done = subprocess.run(
            ["ansible-playbook", "-i", str(self.place / "hosts.yml"), str(playbook), "-e", variables, *arguments],
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

    def done_to(self, host: str) -> list[str]:
        """Return the entry points that ran for a host, in their order, without those that only look."""
        lines = (self.place / "journal").read_text().splitlines()
        mine = [line.split(" ", 1)[1] for line in lines if line.startswith(f"{host} ")]
        return [entry for entry in mine if entry not in ("nvidia_driver.compare", "nginx.holders")]


@pytest.fixture
def fleet(tmp_path: Path) -> Fleet:
    """A fleet of its own for each test."""
    return Fleet(tmp_path)


def test_every_host_that_differs_is_upgraded_and_others_are_left_alone(fleet: Fleet) -> None:
    hosts = {"gpu-b": {"differences": []}, "gpu-d": {"slice": {"driver": None}}}
    status, said = fleet.upgrade(hosts, "-e", "upgrade_driver_diagnostics_level=2")
    assert status == 0, said
    assert "ignored ecc_disabled, mended driver_absent," in said, "the operator's own list stands"
    diagnosed = [*TAKEN_OUT, *CHANGED, "nvidia_driver.diagnose", "vllm.main", "nginx.hold released"]
    assert [fleet.done_to(host) for host in HOSTS] == [diagnosed, [], diagnosed, []]


def test_a_host_that_fails_is_rolled_back_while_its_batch_goes_on(fleet: Fleet) -> None:
    status, said = fleet.upgrade({"gpu-a": {"fails": ["nvidia_driver.verify"]}})
    assert status == 2, said
    assert [fleet.done_to(host) for host in HOSTS] == [ROLLED_BACK, COMPLETE, [], []]
    assert (
        "gpu-a: nvidia_driver.verify | Fail: simulated failure of nvidia_driver.verify. Its recorded driver is back. "
        "Its engines are stopped and it stays out of rotation, held by upgrade_driver: run upgrade_driver again when "
        "the cause is mended, or plan the driver that it has"
    ) in said
    assert "gpu-a failed or gave no answer any more, as is said above: gpu-c, gpu-d and what comes after" in said


def test_a_rollback_that_fails_does_not_cut_off_another(fleet: Fleet) -> None:
    status, said = fleet.upgrade(
        {
            "gpu-a": {"fails": ["nvidia_driver.verify", "nvidia_driver.rollback"]},
            "gpu-b": {"fails": ["nvidia_driver.verify"]},
        }
    )
    assert status == 2, said
    assert fleet.done_to("gpu-a") == ROLLED_BACK[:-1]
    assert fleet.done_to("gpu-b") == ROLLED_BACK
    assert "gpu-a: nvidia_driver.verify | Fail: simulated failure of nvidia_driver.verify. It stays out" in said
    assert fleet.done_to("gpu-c") == []


def test_each_stage_that_fails_says_what_is_true(fleet: Fleet) -> None:
    status, said = fleet.upgrade(
        {
            "gpu-a": {"fails": ["nginx.hold held"]},
            "gpu-b": {"fails": ["vllm.idle"]},
            "gpu-c": {"fails": ["nginx.hold released"]},
        },
        batch=3,
    )
    assert status == 2, said
    assert fleet.done_to("gpu-a") == [*TAKEN_OUT, "nginx.hold released"], "one gateway may have agreed"
    assert "Driver and engines were not touched, and it is in rotation as before: run upgrade_driver again" in said
    assert fleet.done_to("gpu-b") == [*TAKEN_OUT, "vllm.idle"]
    assert "Its driver was not touched by this run. It stays out of rotation, held by upgrade_driver" in said
    assert fleet.done_to("gpu-c") == COMPLETE, "a driver that is proved is not rolled back"
    assert "The planned driver is proved and its engines answer, but a gateway still holds it" in said
    assert "recorded driver" not in said
    assert fleet.done_to("gpu-d") == []


def test_a_host_of_an_earlier_run_keeps_its_record_and_its_hold(fleet: Fleet) -> None:
    held = {"holders": ["somebody", "upgrade_driver"], "differences": []}
    status, said = fleet.upgrade({"gpu-a": held, "gpu-b": {**held, "fails": ["nginx.hold held"]}})
    assert status == 2, said
    assert fleet.done_to("gpu-a") == COMPLETE[1:]
    assert fleet.done_to("gpu-b") == ["nginx.hold held"]
    assert "were not touched, an earlier run still holds it out of rotation" in said


@pytest.mark.skipif(shutil.which("ssh") is None, reason="no ssh client")
def test_a_host_that_is_lost_ends_the_run_after_its_batch(fleet: Fleet) -> None:
    status, said = fleet.upgrade({"gpu-b": {"lost_at": "nvidia_driver.main"}})
    assert status != 0, said
    assert fleet.done_to("gpu-a") == COMPLETE
    assert fleet.done_to("gpu-b") == [*TAKEN_OUT, *CHANGED[:3]]
    assert "gpu-b failed or gave no answer any more" in said
    assert fleet.done_to("gpu-c") == fleet.done_to("gpu-d") == []
