#!/usr/bin/python
# SPDX-License-Identifier: Apache-2.0 OR GPL-3.0-or-later
# Apache-2.0, or at your option the GNU General Public License v3.0+ (https://www.gnu.org/licenses/gpl-3.0.txt)
"""Configure a Docker engine without surprising the containers that it runs."""

from __future__ import annotations

DOCUMENTATION = r"""
module: docker_daemon
short_description: Configure a Docker engine without surprising the containers that it runs
version_added: 0.1.0
description:
  - Writes C(daemon.json) after the engine's own check (C(dockerd --validate), from Docker 23.0 on; before, the keys are
    compared with those that the engine knows), and makes the running engine take it over.
  - Reloads when every changed key can be reloaded. Otherwise the engine is restarted, when no container runs or
    O(restart_allowed) is true; else the module fails before it changes anything.
  - Fails before it changes anything when the file has settings that somebody else wrote and O(config) lacks, such as a
    C(data-root). What this module wrote before is its own to drop.
  - If the engine doesn't come back, the old file is put back and the engine started with it.
  - An engine that doesn't run is left stopped.
author:
  - gpufleet.metal contributors (@gpufleet)
options:
  config:
    description:
      - The whole configuration.
    type: dict
    required: true
  restart_allowed:
    description:
      - Whether the engine may be restarted while containers run.
    type: bool
    default: false
  devices_by_cdi:
    description:
      - Whether containers get devices by CDI. Takes Docker 28.2, both installed and running.
    type: bool
    default: false
  path:
    description:
      - The configuration file.
    type: path
    default: /etc/docker/daemon.json
  service:
    description:
      - Name of the systemd unit.
    type: str
    default: docker
  docker_socket:
    description:
      - The engine's socket.
    type: path
    default: /var/run/docker.sock
  start_seconds:
    description:
      - How long the engine may take to answer after a reload or restart.
    type: int
    default: 60
attributes:
  check_mode:
    description: Says what would change, also on a host that has no Docker yet. Fails where a real run would.
    support: full
  diff_mode:
    description: Shows the configuration's difference.
    support: full
"""

EXAMPLES = r"""
- name: Configure the engine
  gpufleet.metal.docker_daemon:
    config:
      live-restore: true
      log-driver: json-file
      log-opts: {max-size: 50m, max-file: "5"}
"""

RETURN = r"""
action:
  description: What the running engine had to do, V(none), V(reload) or V(restart).
  type: str
  returned: success
  sample: reload
changed_keys:
  description: Keys of the configuration whose values changed.
  type: list
  elements: str
  returned: success
containers:
  description: Names of the containers that ran before; looked up only when the configuration changes.
  type: list
  elements: str
  returned: success
"""

import json
import os
import tempfile
import time
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.gpufleet.metal.plugins.module_utils import _docker_daemon
from ansible_collections.gpufleet.metal.plugins.module_utils._docker import DockerClient, DockerError
from ansible_collections.gpufleet.metal.plugins.module_utils._errors import FleetError

OWED = "/var/lib/gpufleet/docker-daemon-owes"
"""Exists from before the new file is in place until the engine runs with it; a killed run leaves it."""

OWN = "/var/lib/gpufleet/docker-daemon-own.json"
"""The names of the settings that this module wrote."""


def argument_spec() -> dict[str, Any]:
    """The module's options, as in DOCUMENTATION."""
    return {
        "config": {"type": "dict", "required": True},
        "restart_allowed": {"type": "bool", "default": False},
        "devices_by_cdi": {"type": "bool", "default": False},
        "path": {"type": "path", "default": "/etc/docker/daemon.json"},
        "service": {"type": "str", "default": "docker"},
        "docker_socket": {"type": "path", "default": "/var/run/docker.sock"},
        "start_seconds": {"type": "int", "default": 60},
    }


class Daemon:
    """The engine of this host."""

    def __init__(self, module: AnsibleModule) -> None:
        self._module = module
        self._options = module.params
        self._path: str = module.params["path"]
        self._client = DockerClient(module.params["docker_socket"])

    def run(self) -> dict[str, Any]:
        """Bring the configuration into the wanted state; returns the module's result."""
        config, path = self._options["config"], self._path
        before = _read(path)
        after = _docker_daemon.render(config)
        _docker_daemon.refuse_foreign(path, before, config, self._own())
        keys = _docker_daemon.changed_keys(before, config)
        owed = _read(OWED)
        running = self._is_active()
        if self._options["devices_by_cdi"]:
            self._check_cdi(running)
        action = _docker_daemon.activation(keys) if running else "none"
        if running and owed is not None and action != "restart":
            action = owed.strip() or "restart"
        # Another spelling of the same settings is no reason to write.
        changed = bool(keys) or before is None or owed is not None
        if changed and (not self._module.check_mode or self._module.get_bin_path("dockerd")):
            self._validate(after)
        containers: list[str] = []
        if action == "restart":
            containers = [str(entry["Names"][0]).lstrip("/") for entry in self._client.containers()]
            _docker_daemon.refuse_restart(path, keys, containers, self._options["restart_allowed"])
        result = {"changed": changed, "action": action, "changed_keys": keys, "containers": containers}
        result["diff"] = {"before_header": path, "before": before or "", "after_header": path, "after": after}
        if not changed:
            del result["diff"]
            return result
        if not self._module.check_mode:
            self._replace(before, after, action)
        return result

    def _is_active(self) -> bool:
        status, _unused, _unused = self._module.run_command(
            ["systemctl", "is-active", "--quiet", self._options["service"]]
        )
        return int(status) == 0

    def _own(self) -> list[str]:
        return list(json.loads(_read(OWN) or "[]"))

    def _check_cdi(self, running: bool) -> None:
        dockerd = self._module.get_bin_path("dockerd", required=not self._module.check_mode)
        if dockerd:
            _docker_daemon.check_cdi("the installed engine", self._version(dockerd))
        if running:
            version = _docker_daemon.version_of(f"version {self._client.version()['Version']}")
            _docker_daemon.check_cdi("the running engine", version)

    def _version(self, dockerd: str) -> tuple[int, ...]:
        _unused, out, _unused = self._module.run_command([dockerd, "--version"])
        return _docker_daemon.version_of(out)

    def _validate(self, text: str) -> None:
        dockerd = self._module.get_bin_path("dockerd", required=True)
        version = self._version(dockerd)
        if version < _docker_daemon.VALIDATES_SINCE:
            _docker_daemon.check_keys(self._options["config"], version)
            return
        with tempfile.NamedTemporaryFile("w", suffix=".json", encoding="utf-8") as staged:
            staged.write(text)
            staged.flush()
            status, out, err = self._module.run_command([dockerd, "--validate", f"--config-file={staged.name}"])
        if status != 0:
            said = (err or out).strip().replace(staged.name, self._path)
            raise FleetError(
                f"dockerd refuses the new configuration (docker_daemon_options): {said}; nothing was changed"
            )

    def _replace(self, before: str | None, after: str, action: str) -> None:
        if action != "none":
            _write(OWED, action + "\n")
        # Wherever this run is killed, what it finds next time is its own.
        written = _docker_daemon.leaves(self._options["config"])
        _write(OWN, json.dumps(sorted(written.union(self._own()))) + "\n")
        _write(self._path, after)
        try:
            self._activate(action)
        except FleetError as error:
            if before is None:
                os.unlink(self._path)
            else:
                _write(self._path, before)
            try:
                self._activate(action)
            except FleetError as second:
                raise FleetError(f"{error}; the old configuration is back in place, but: {second}") from second
            _remove(OWED)
            raise FleetError(f"{error}; the old configuration is back in place and the engine runs with it") from error
        _remove(OWED)
        _write(OWN, json.dumps(sorted(written)) + "\n")

    def _activate(self, action: str) -> None:
        if action == "none":
            return
        service = self._options["service"]
        # systemd counts starts to stop a unit that crashes in a loop. A restart that was asked for is no crash: without
        # this, the third one within a minute would leave the host without its engine.
        self._module.run_command(["systemctl", "reset-failed", service])
        status, out, err = self._module.run_command(["systemctl", action, service])
        if status != 0:
            raise FleetError(f"systemctl {action} {service} failed: {(err or out).strip()}; {self._journal()}")
        deadline = time.monotonic() + self._options["start_seconds"]
        while True:
            try:
                self._client.version()
            except DockerError as error:
                if time.monotonic() > deadline:
                    raise FleetError(f"after the {action}: {error}; {self._journal()}") from error
                time.sleep(1)
            else:
                return

    def _journal(self) -> str:
        command = ["journalctl", "-u", self._options["service"], "-n", "10", "--no-pager", "-o", "cat"]
        _unused, out, _unused = self._module.run_command(command)
        return f"its last lines were:\n{out.strip()}"


def _read(path: str) -> str | None:
    try:
        with open(path, encoding="utf-8") as stream:
            return stream.read()
    except FileNotFoundError:
        return None


def _write(path: str, text: str) -> None:
    os.makedirs(os.path.dirname(path), mode=0o755, exist_ok=True)
    descriptor, staged = tempfile.mkstemp(dir=os.path.dirname(path), prefix=f".{os.path.basename(path)}.")
    with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
        stream.write(text)
        os.fchmod(stream.fileno(), 0o644)
        stream.flush()
        os.fsync(stream.fileno())
    os.replace(staged, path)


def _remove(path: str) -> None:
    if os.path.exists(path):
        os.unlink(path)


def main() -> None:
    """Run as an Ansible module."""
    module = AnsibleModule(argument_spec=argument_spec(), supports_check_mode=True)
    try:
        result = Daemon(module).run()
    except FleetError as error:
        module.fail_json(msg=str(error))
    else:
        module.exit_json(**result)


if __name__ == "__main__":
    main()
