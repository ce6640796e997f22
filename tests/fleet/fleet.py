# SPDX-License-Identifier: Apache-2.0
"""What the tests of whole fleets share: their hosts, playbooks and containers."""

from __future__ import annotations

import json
import os
import re
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent.parent
PATIENCE_SECONDS = 600


class Fleet:
    """The hosts of some inventory sources, by way of Ansible, and their containers."""

    def __init__(self, inventory: Sequence[Path], work: Path) -> None:
        self.sources = [word for source in inventory for word in ("--inventory", str(source))]
        self.work = work
        listed = subprocess.run(
            ["ansible-inventory", *self.sources, "--list"], check=True, capture_output=True, text=True
        )
        self.listing: dict[str, Any] = json.loads(listed.stdout)

    def hosts(self, group: str) -> list[str]:
        """Return the hosts of a group."""
        return list(self.listing[group]["hosts"])

    def address(self, host: str) -> str:
        """Return the address of a host."""
        return str(self.listing["_meta"]["hostvars"][host]["ansible_host"])

    def command(self, playbook: str, *more: str) -> list[str]:
        """Return the command of a playbook."""
        return ["ansible-playbook", *self.sources, str(ROOT / playbook), *more]

    def run(self, playbook: str, *more: str) -> tuple[int, str]:
        """Run a playbook and show what it prints; return its status and that."""
        environment = {**os.environ, "MOLECULE_EPHEMERAL_DIRECTORY": str(self.work)}
        done = subprocess.run(
            self.command(playbook, *more),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=environment,
            check=False,
        )
        print(done.stdout, flush=True)
        return done.returncode, done.stdout

    def play(self, playbook: str, *more: str, status: int = 0) -> str:
        """Run a playbook, which has to end with a status, and return what it printed."""
        found, said = self.run(playbook, *more)
        assert found == status, f"{playbook} {more} ended with {found}, wanted {status}:\n{said[-8000:]}"
        return said

    def ask(self, host: str, *command: str) -> str:
        """Return what a command prints on a host."""
        module = ["ansible", *self.sources, host, "-m", "ansible.builtin.command", "-o"]
        done = subprocess.run([*module, "-a", " ".join(command)], check=True, capture_output=True, text=True)
        return done.stdout.split("(stdout)", 1)[1].split("(stderr)")[0].strip().replace("\\n", "\n")

    def write(self, host: str, path: str, content: str) -> None:
        """Write a small file on a host."""
        module = ["ansible", *self.sources, host, "-m", "ansible.builtin.copy"]
        arguments = json.dumps({"dest": path, "content": content, "mode": "0644"})
        subprocess.run([*module, "-a", arguments], check=True, stdout=subprocess.DEVNULL)

    @staticmethod
    def inside(host: str, *command: str, told: str = "") -> str:
        """Run a command in a host's container, told something on its standard input, and return what it prints."""
        done = subprocess.run(
            ["docker", "exec", "--interactive", f"gpufleet-{host}", *command],
            input=told,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"{host}: {command[0]} ended with {done.returncode}: {done.stderr[-2000:]}"
        return done.stdout

    def holders(self) -> list[dict[str, list[str]]]:
        """Return who holds what out of rotation, by gateway."""
        return [json.loads(self.ask(host, "gpufleet-probe", "status"))["drained"] for host in self.hosts("gateways")]

    def engines(self, host: str) -> dict[str, str]:
        """Return the state and the restart policy of each engine's container on a host."""
        shown = "{{.Name}}={{.State.Status}}/{{.HostConfig.RestartPolicy.Name}}"
        listed = self.ask(host, "docker", "ps", "--all", "--quiet", "--filter", "label=gpufleet.instance").split()
        # Ansible would take the braces for its own.
        said = self.ask(host, "docker", "inspect", "--format", f"'{{% raw %}}{shown}{{% endraw %}}'", *listed)
        return dict(line.strip("/").split("=") for line in said.splitlines())

    def started(self, host: str) -> str:
        """Return when each engine's container on a host was started."""
        listed = self.ask(host, "docker", "ps", "--quiet", "--filter", "label=gpufleet.instance").split()
        shown = "{{.Name}} {{.State.StartedAt}}"
        return self.ask(host, "docker", "inspect", "--format", f"'{{% raw %}}{shown}{{% endraw %}}'", *listed)


def with_second_gateway(inventory: Path, work: Path) -> list[Path]:
    """Add a gateway to the demo fleet of an inventory, and return the sources that name both."""
    sources = [inventory, ROOT / "tests" / "fleet" / "second_gateway.yml"]
    fleet = Fleet(sources, work)
    owner = variables(sandbox_owner=os.environ.get("DEMO_OWNER", "demo"))
    fleet.play("playbooks/sandbox/create.yml", "--limit", fleet.hosts("gateways")[-1], *owner)
    fleet.play("playbooks/site.yml")
    return sources


def unchanged(said: str) -> bool:
    """Tell whether what a playbook printed says of hosts that nothing changed on any."""
    counts = re.findall(r" changed=(\d+) ", said)
    return bool(counts) and set(counts) == {"0"}


def variables(**values: Any) -> list[str]:
    """Return the option of a command that sets variables."""
    return ["--extra-vars", json.dumps(values)]


def wait_for(what: str, holds: Callable[[], bool]) -> None:
    """Wait until something holds."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not holds():
        assert time.monotonic() < deadline, f"not within {PATIENCE_SECONDS} s: {what}"
        time.sleep(1)
