# SPDX-License-Identifier: Apache-2.0
"""Secrets from the installed artefact: made, rotated under a real consumer, with a host down and with killed runs.

The hosts are this machine under several names. Their consumer is real: a server for each, which answers only to the
keys that are in its host's file at that moment; acceptance and refusal are proven by requests to it. Where the store is
SOPS's, its program encrypts for a real age key. A store in OpenBao or HashiCorp Vault needs one: VAULT_ADDR and
VAULT_TOKEN in the environment (and VAULT_CACERT), for a key-value engine of version 2 at ``secret``; what is made stays
there, below ``gpufleet-test``.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import stat
import subprocess
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pyrage
import pytest
import yaml
from artefact import TOOLS, Installed

pytestmark = pytest.mark.skipif(shutil.which("ssh") is None, reason="no ssh client")

HOSTS = ("gw-1", "gw-2")

#: Dies, if it is told to, when the first host is as it should be and the second is not.
CONSUMER = """
- name: Write the keys that the door accepts
  ansible.builtin.copy:
    content: "{{ rotation_accepted | join('\\n') }}\\n"
    dest: "{{ inventory_dir }}/doors/{{ inventory_hostname }}"
    mode: "0600"
  when: not (die_at | default('') == rotation_phase and inventory_hostname == 'gw-2')

- name: Stop the whole run dead
  ansible.builtin.command: kill -KILL -- -{{ lookup('ansible.builtin.env', 'RUN_GROUP') }}
  when: die_at | default('') == rotation_phase and inventory_hostname == 'gw-2'
  changed_when: false

- name: Prove that the door opens
  ansible.builtin.uri:
    url: "{{ doors }}/{{ inventory_hostname }}"
    headers: {Authorization: "Bearer {{ __key }}"}
  loop: "{{ rotation_accepted }}"
  loop_control: {loop_var: __key}

- name: Prove that it stays shut
  ansible.builtin.uri:
    url: "{{ doors }}/{{ inventory_hostname }}"
    headers: {Authorization: "Bearer {{ __key }}"}
    status_code: 401
  loop: "{{ rotation_refused }}"
  loop_control: {loop_var: __key}
"""


class Doors(ThreadingHTTPServer):
    """A door for each host; it opens to the keys in the host's file, as the file is at that moment."""

    def __init__(self, directory: Path) -> None:
        super().__init__(("127.0.0.1", 0), Door)
        self.directory = directory

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def keys(self, host: str) -> list[str]:
        """Return what a host accepts."""
        path = self.directory / host
        return path.read_text().split() if path.exists() else []


class Door(BaseHTTPRequestHandler):
    server: Doors

    def log_message(self, *arguments: Any) -> None:
        """Keep still."""

    def do_GET(self) -> None:
        key = self.headers.get("Authorization", "").removeprefix("Bearer ")
        self.send_response(200 if key in self.server.keys(self.path.strip("/")) else 401)
        self.send_header("Content-Length", "0")
        self.end_headers()


class Fleet:
    """An inventory with a store, and everything that its runs printed."""

    def __init__(self, installed: Installed, place: Path, doors: Doors, store: dict[str, Any], key: Path) -> None:
        """``store``: fleet_secret_store; ``key``: the private key that opens it."""
        self.installed, self.place, self.doors, self.key = installed, place, doors, key
        self.printed: list[str] = []
        self.commands: set[str] = set()
        self.keys: set[str] = set()
        variables = {
            "doors": doors.address,
            "key_directory": "keys",
            "fleet_secret_store": store,
            "fleet_secrets": {
                "api_key": {
                    "kind": "token",
                    "overlap_hours": "{{ hours | default(0) | int }}",
                    "consumers": {"door": {"hosts": "gateways", "tasks": "door.yml"}},
                }
            },
        }
        hosts: dict[str, Any] = {
            "gw-1": {"ansible_connection": "local"},
            # Told to, it is a host that nobody answers for.
            "gw-2": {
                "ansible_connection": "{{ way | default('local') }}",
                "ansible_host": "127.0.0.1",
                "ansible_port": 1,
            },
        }
        for host in hosts.values():
            host.update(ansible_become=False, ansible_python_interpreter="{{ ansible_playbook_python }}")
        (place / "group_vars").mkdir()
        (place / "group_vars" / "all.yml").write_text(yaml.safe_dump(variables))
        (place / "hosts.yml").write_text(yaml.safe_dump({"all": {"children": {"gateways": {"hosts": hosts}}}}))
        (place / "door.yml").write_text(CONSUMER)

    def play(self, playbook: str, *arguments: str) -> tuple[int, str]:
        """Run a playbook in a process group of its own; return its status and what it printed."""
        command = [
            "ansible-playbook",
            "-i",
            str(self.place / "hosts.yml"),
            f"gpufleet.metal.{playbook}",
            "--diff",
            "-vvv",
        ]
        process = subprocess.Popen(
            ["sh", "-c", 'RUN_GROUP=$$ exec "$@"', "sh", *command, *arguments],
            cwd=self.place,
            env={
                **os.environ,
                **self.installed.environment,
                "PATH": f"{TOOLS}{os.pathsep}{os.environ['PATH']}",
                "ANSIBLE_NOCOLOR": "1",
            },
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            text=True,
        )
        done = threading.Event()
        watcher = threading.Thread(target=self.watch, args=(done,))
        watcher.start()
        output = process.communicate()[0]
        done.set()
        watcher.join()
        self.printed.append(output)
        return process.returncode, output

    def watch(self, done: threading.Event) -> None:
        """Collect the arguments of all processes, and the keys, as long as a run lasts."""
        while not done.wait(0.1):
            for path in Path("/proc").glob("[0-9]*/cmdline"):
                try:
                    self.commands.add(path.read_bytes().decode(errors="replace"))
                except OSError:
                    continue
            for host in HOSTS:
                self.keys.update(self.doors.keys(host))

    def rotate(self, *arguments: str, named: bool = True) -> tuple[int, str]:
        """Rotate the key, or go on with what was begun."""
        return self.play("rotate_secrets", *(["-e", "rotate_secrets_names=api_key"] if named else []), *arguments)

    def status(self) -> str:
        """Return the line of the key in the status."""
        status, output = self.play("secrets_status", "-e", f"secrets_status_metrics_path={self.place}/secrets.prom")
        assert status == 0, output
        return next(line for line in output.splitlines() if "api_key: token" in line)


@contextmanager
def standing(installed: Installed, place: Path, store: dict[str, Any], key: Path) -> Iterator[Fleet]:
    """Have a fleet with a store, and its doors."""
    (place / "doors").mkdir()
    doors = Doors(place / "doors")
    thread = threading.Thread(target=doors.serve_forever, daemon=True)
    thread.start()
    try:
        fleet = Fleet(installed, place, doors, store, key)
        status, output = fleet.play("create_secret_store")
        assert status == 0, output
        yield fleet
    finally:
        doors.shutdown()
        thread.join()
        doors.server_close()


@pytest.fixture
def fleet(installed: Installed, tmp_path: Path) -> Iterator[Fleet]:
    """Return a fleet whose store is a file of our own."""
    store = {"key": {"file": "{{ key_directory }}/secrets.key"}}
    with standing(installed, tmp_path, store, tmp_path / "keys" / "secrets.key") as fleet:
        yield fleet


@pytest.fixture
def sops_fleet(installed: Installed, tmp_path: Path) -> Iterator[Fleet]:
    """Return a fleet whose store is a file of SOPS, encrypted for an age key."""
    if not (TOOLS / "sops").exists():
        pytest.skip("PyPI has the program sops for x86_64 only")
    key = age_key(tmp_path / "age.txt")
    options = {"age": [recipient(key)], "age_keyfile": str(key)}
    with standing(installed, tmp_path, {"backend": "sops", "options": options}, key) as fleet:
        yield fleet


@pytest.fixture
def vault_fleet(installed: Installed, tmp_path: Path) -> Iterator[Fleet]:
    """Return a fleet whose store is in the vault of the environment, under a name of its own."""
    if not os.environ.get("VAULT_ADDR"):
        pytest.skip("VAULT_ADDR names no OpenBao or HashiCorp Vault")
    token = tmp_path / "token"
    token.touch(mode=0o600)
    token.write_text(os.environ["VAULT_TOKEN"])
    store = {"backend": "hashi_vault", "path": f"gpufleet-test/{uuid.uuid4()}"}
    with standing(installed, tmp_path, store, token) as fleet:
        yield fleet


def age_key(path: Path) -> Path:
    """Make a private key of age."""
    path.touch(mode=0o600)
    path.write_text(f"{pyrage.x25519.Identity.generate()}\n")
    return path


def recipient(key: Path) -> str:
    """Return its public half."""
    return str(pyrage.x25519.Identity.from_str(key.read_text().strip()).to_public())


def assert_no_value_leaked(fleet: Fleet) -> None:
    """No key in any output, in any argument of a process, in any file that others may read."""
    lines = fleet.key.read_text().splitlines()
    values = fleet.keys | {line for line in lines if len(line) > 40}
    assert len(fleet.keys) >= 2
    for value in values:
        assert all(value not in text for text in fleet.printed)
        assert all(value not in command for command in fleet.commands)
    for directory in (fleet.place, fleet.installed.place / "home"):
        for path in directory.rglob("*"):
            if path.is_file() and stat.S_IMODE(path.stat().st_mode) & 0o044:
                text = path.read_text(errors="replace")
                assert all(value not in text for value in values), path


def assert_the_next_run_ends_it(fleet: Fleet) -> None:
    """Every host accepts the same key and no other, and the store has seen one rotation."""
    status, output = fleet.rotate(named=False)
    assert status == 0, output
    assert fleet.doors.keys("gw-1") == fleet.doors.keys("gw-2")
    assert len(fleet.doors.keys("gw-1")) == 1
    assert "version 2, 0 days old, due " in fleet.status()


def test_a_rotation_waits_for_its_hosts_and_its_time(fleet: Fleet) -> None:
    """A host that is down postpones it, the overlap postpones it, an emergency skips it and goes on."""
    status, output = fleet.rotate("-e", "hours=24", "-e", "way=ssh")
    assert status == 2, output
    assert (
        "api_key: the new value is not used yet: acceptance of it is not proven by door@gw-2. Mend or remove these "
        "hosts and run this again" in output
    )
    assert len(fleet.doors.keys("gw-1")) == 2
    assert fleet.doors.keys("gw-2") == []

    status, output = fleet.rotate("-e", "hours=24", named=False)
    assert status == 0, output
    assert "api_key: the old value is retired after " in output
    new, old = fleet.doors.keys("gw-1")
    assert fleet.doors.keys("gw-2") == [new, old]
    assert "promoted" in fleet.status()

    status, output = fleet.rotate("-e", "rotate_secrets_emergency=true", "-e", "hours=24")
    assert status == 0, output
    # It may be the new one that leaked.
    assert fleet.doors.keys("gw-1") == fleet.doors.keys("gw-2")
    assert len(set(fleet.doors.keys("gw-1")) - {new, old}) == len(fleet.doors.keys("gw-1")) == 1
    assert "version 3, 0 days old, due " in fleet.status()
    assert 'gpufleet_secret_due{name="api_key",kind="token"} 0\n' in (fleet.place / "secrets.prom").read_text()
    assert_no_value_leaked(fleet)


def test_a_killed_rotation_continues_to_the_same_end(fleet: Fleet) -> None:
    """Killed in every phase, with one host as the phase wants it and the other not."""
    status, output = fleet.rotate("-e", "die_at=staging")
    assert status == -signal.SIGKILL, output
    first, new = fleet.doors.keys("gw-1")
    assert fleet.doors.keys("gw-2") == []

    status, output = fleet.rotate("-e", "die_at=promoted", named=False)
    assert status == -signal.SIGKILL, output
    assert fleet.doors.keys("gw-1") == [new, first]
    assert fleet.doors.keys("gw-2") == [first, new]

    status, output = fleet.rotate("-e", "die_at=retiring", named=False)
    assert status == -signal.SIGKILL, output
    assert fleet.doors.keys("gw-1") == [new]
    assert fleet.doors.keys("gw-2") == [new, first]

    status, output = fleet.rotate(named=False)
    assert status == 0, output
    assert fleet.doors.keys("gw-1") == fleet.doors.keys("gw-2") == [new]
    assert "version 2, 0 days old, due " in fleet.status()
    assert_no_value_leaked(fleet)


def test_a_store_of_sops(sops_fleet: Fleet) -> None:
    """Killed and continued as with a file of our own; what was changed in it, and another key, open nothing."""
    fleet = sops_fleet
    status, output = fleet.rotate("-e", "die_at=promoted")
    assert status == -signal.SIGKILL, output
    assert_the_next_run_ends_it(fleet)

    store = fleet.place / ".gpufleet" / "secrets.sops.json"
    assert stat.S_IMODE(store.stat().st_mode) == 0o600
    whole = store.read_text()
    sealed = json.loads(whole)
    assert sealed["sops"]["age"][0]["recipient"] == recipient(fleet.key)
    # Another letter early in the text that is encrypted.
    begin = whole.index("data:") + len("data:")
    store.write_text(whole[:begin] + ("A" if whole[begin] != "A" else "B") + whole[begin + 1 :])
    changed = store.read_text()
    status, output = fleet.play("secrets_status")
    assert status == 2, output
    assert f"sops does not open {store}: " in output
    assert store.read_text() == changed, "nobody mends it by overwriting it"

    store.write_text(whole)
    mine = fleet.key.read_text()
    age_key(fleet.key)
    status, output = fleet.rotate()
    assert status == 2, output
    assert f"sops does not open {store}: " in output
    assert store.read_text() == whole
    fleet.key.write_text(mine)
    assert "version 2, 0 days old, due " in fleet.status()
    assert_no_value_leaked(fleet)


def test_a_store_in_a_vault(vault_fleet: Fleet) -> None:
    """Killed and continued as with a file of our own; a token without the right to it changes nothing."""
    fleet = vault_fleet
    status, output = fleet.play("create_secret_store")
    assert status == 0, output
    assert " changed=0 " in output
    for phase in ("staging", "promoted", "retiring"):
        status, output = fleet.rotate("-e", f"die_at={phase}", named=phase == "staging")
        assert status == -signal.SIGKILL, output
    assert_the_next_run_ends_it(fleet)

    status, output = fleet.rotate("-e", json.dumps({"ansible_hashi_vault_token": "of nobody"}))
    assert status == 2, output
    assert "Permission Denied to path 'secret/data/gpufleet-test/" in output
    assert "version 2, 0 days old, due " in fleet.status()
    assert_no_value_leaked(fleet)
