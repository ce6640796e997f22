# SPDX-License-Identifier: Apache-2.0
"""Certificates that the authority in the store signs (``ca_secret``): both replaced, from the installed artefact.

The hosts are this machine under two names, each with a real server that shows, to each connection, the certificate that
is in its host's file at that moment. A client that reads anew whom it trusts shakes hands with both all the time.
"""

from __future__ import annotations

import os
import signal
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml
from artefact import TOOLS, Installed

HOSTS = ("gw-1", "gw-2")
PAUSE_SECONDS = 0.2
ROTATE = "gpufleet.metal.rotate_secrets"

SERVER = """
- name: Show the certificate in use
  ansible.builtin.copy:
    content: "{{ rotation_accepted[0].certificate + rotation_accepted[0].private_key }}"
    dest: "{{ inventory_dir }}/{{ inventory_hostname }}.pem"
    mode: "0600"

- name: Stop the whole run dead
  ansible.builtin.command: kill -KILL -- -{{ lookup('ansible.builtin.env', 'RUN_GROUP') }}
  when: die_at | default('') == rotation_phase and inventory_hostname == 'gw-2'
  changed_when: false

- name: Prove that it is believed
  ansible.builtin.uri: {url: "{{ address }}", ca_path: "{{ inventory_dir }}/trusted.pem"}
"""
CLIENT = """
- name: Trust these
  ansible.builtin.copy:
    content: "{{ rotation_accepted | map(attribute='certificate') | join }}"
    dest: "{{ inventory_dir }}/trusted.pem"
    mode: "0644"

- name: Prove that both servers are believed
  ansible.builtin.uri: {url: "{{ hostvars[item].address }}", ca_path: "{{ inventory_dir }}/trusted.pem"}
  loop: "{{ groups['gateways'] }}"
"""
DELIVER = """
- name: Deliver the first values
  hosts: gateways
  gather_facts: false
  vars:
    leaf: "{{ lookup('gpufleet.metal.secret', 'leaf') }}"
  tasks:
    - name: Give each server its certificate
      ansible.builtin.copy:
        content: "{{ leaf.certificate + leaf.private_key }}"
        dest: "{{ inventory_dir }}/{{ inventory_hostname }}.pem"
        mode: "0600"

    - name: Tell the client whom to trust
      ansible.builtin.copy:
        content: "{{ lookup('gpufleet.metal.secret', 'authority').certificate }}"
        dest: "{{ inventory_dir }}/trusted.pem"
        mode: "0644"
      run_once: true
"""


class Server(ThreadingHTTPServer):
    """Answers over TLS with the certificate that a file holds when somebody connects."""

    def __init__(self, pem: Path) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        self.pem = pem

    @property
    def address(self) -> str:
        return f"https://127.0.0.1:{self.server_address[1]}"

    def get_request(self) -> tuple[socket.socket, Any]:
        """Take a connection; its own thread shakes hands."""
        connection, peer = super().get_request()
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.pem)
        return context.wrap_socket(connection, server_side=True, do_handshake_on_connect=False), peer

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Keep still: the client says why it did not go on."""


class Answer(BaseHTTPRequestHandler):
    def log_message(self, *arguments: Any) -> None:
        """Keep still."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()


class Fleet:
    """Two servers, who they are and whom their client trusts in files of the inventory's directory."""

    def __init__(self, installed: Installed, place: Path) -> None:
        self.installed, self.place = installed, place
        self.servers = {host: Server(place / f"{host}.pem") for host in HOSTS}
        self.faults: list[str] = []
        self.asked = 0
        self.over = threading.Event()
        self.threads = [threading.Thread(target=server.serve_forever, daemon=True) for server in self.servers.values()]
        leaf = {"common_name": "gateway", "subject_alt_names": ["IP:127.0.0.1"], "ca_secret": "authority"}
        variables = {
            "fleet_secret_store": {"key": {"file": "keys/secrets.key"}},
            "fleet_secrets": {
                "leaf": {
                    "kind": "certificate",
                    "options": leaf,
                    "overlap_hours": 0,
                    "consumers": {"servers": {"hosts": "gateways", "tasks": "server.yml"}},
                },
                "authority": {
                    "kind": "authority",
                    "overlap_hours": 0,
                    "consumers": {"client": {"hosts": "gw-1", "tasks": "client.yml"}},
                },
            },
        }
        common = {
            "ansible_connection": "local",
            "ansible_become": False,
            "ansible_python_interpreter": "{{ ansible_playbook_python }}",
        }
        hosts = {host: {**common, "address": server.address} for host, server in self.servers.items()}
        (place / "group_vars").mkdir()
        (place / "group_vars" / "all.yml").write_text(yaml.safe_dump(variables))
        (place / "hosts.yml").write_text(yaml.safe_dump({"all": {"children": {"gateways": {"hosts": hosts}}}}))
        (place / "server.yml").write_text(SERVER)
        (place / "client.yml").write_text(CLIENT)
        (place / "deliver.yml").write_text(DELIVER)

    def play(self, playbook: str, *arguments: str) -> tuple[int, str]:
        """Run a playbook in a process group of its own; return its status and what it printed."""
        command = ["ansible-playbook", "-i", str(self.place / "hosts.yml"), playbook, *arguments]
        done = subprocess.run(
            ["sh", "-c", 'RUN_GROUP=$$ exec "$@"', "sh", *command],
            cwd=self.place,
            env={**os.environ, **self.installed.environment, "PATH": f"{TOOLS}{os.pathsep}{os.environ['PATH']}"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            text=True,
            check=False,
        )
        return done.returncode, done.stdout

    def deliver(self) -> None:
        """Make the first values, and let the servers and the client have them."""
        status, output = self.play("gpufleet.metal.create_secret_store")
        assert status == 0, output
        status, output = self.play("deliver.yml")
        assert status == 0, output

    def serve(self) -> None:
        """Begin to serve and to ask."""
        self.threads.append(threading.Thread(target=self.ask, daemon=True))
        for thread in self.threads:
            thread.start()

    def ask(self) -> None:
        """Shake hands with each server, again and again."""
        while not self.over.is_set():
            for host in HOSTS:
                self.asked += 1
                fault = self.refuses(host, (self.place / "trusted.pem").read_text())
                self.faults += [f"{host}: {fault}"] if fault else []
            time.sleep(PAUSE_SECONDS)

    def refuses(self, host: str, trusted: str) -> str:
        """Return why somebody who trusts these authorities does not believe a server, or nothing."""
        context = ssl.create_default_context(cadata=trusted)
        try:
            with socket.create_connection(("127.0.0.1", self.servers[host].server_address[1]), timeout=60) as plain:
                context.wrap_socket(plain, server_hostname="127.0.0.1").close()
        except OSError as fault:
            return str(fault)
        return ""

    def stop(self) -> None:
        """End everything."""
        self.over.set()
        for server in self.servers.values():
            server.shutdown()
        for thread in self.threads:
            thread.join()
        for server in self.servers.values():
            server.server_close()


@pytest.fixture
def fleet(installed: Installed, tmp_path: Path) -> Iterator[Fleet]:
    """Return a fleet that serves and is asked; none of its handshakes may have failed."""
    fleet = Fleet(installed, tmp_path)
    fleet.deliver()
    fleet.serve()
    try:
        yield fleet
    finally:
        fleet.stop()
    assert fleet.asked > len(HOSTS)
    assert fleet.faults == []


def test_the_authority_in_the_store_and_what_it_signed_are_replaced(fleet: Fleet) -> None:
    """Its certificates are due then; until they are rotated, killed on the way, it is trusted, and then no more."""
    old = (fleet.place / "trusted.pem").read_text()
    shown = [(fleet.place / f"{host}.pem").read_bytes() for host in HOSTS]
    status, output = fleet.play(ROTATE, "-e", "rotate_secrets_names=authority")
    assert status == 0, output
    assert "authority: the old authority is trusted until its certificates are rotated: leaf" in output
    assert [(fleet.place / f"{host}.pem").read_bytes() for host in HOSTS] == shown
    both = (fleet.place / "trusted.pem").read_text()
    assert old in both
    assert both.count("BEGIN CERTIFICATE") == 2

    for phase in ("staging", "promoted", "retiring"):
        status, output = fleet.play(ROTATE, "-e", f"die_at={phase}")
        assert status == -signal.SIGKILL, output
    status, output = fleet.play(ROTATE)
    assert status == 0, output
    new = (fleet.place / "trusted.pem").read_text()
    assert new == both.replace(old, "")
    for host in HOSTS:
        assert fleet.refuses(host, new) == ""
        assert "CERTIFICATE_VERIFY_FAILED" in fleet.refuses(host, old)
    status, output = fleet.play(ROTATE)
    assert status == 0, output
    assert (fleet.place / "trusted.pem").read_text() == new, "nothing is due any more"
