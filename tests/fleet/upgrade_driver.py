# SPDX-License-Identifier: Apache-2.0
"""The rolling upgrade of drivers, on the demo's larger fleet as it stands: three GPU nodes behind two gateways.

    python tests/fleet/upgrade_driver.py INVENTORY WORK_DIRECTORY

Real are apt, the engines, the gateways and the load; the driver's packages are stand-ins, and kernel, CUDA and reboot
are simulated (molecule/nvidia_driver): of a boot, the start of the container engine is real.

Under a load of plain and streaming clients of both gateways, without a failed request: a batch of two in which one
verification fails, is rolled back and stays out, while the other host is upgraded and the third is not begun; then a
run that is killed in the middle and continued, while somebody else holds a host.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from clients import Clients

ROOT = Path(__file__).resolve().parent.parent.parent
OLD, NEW = "580.173.02", "595.91.07"
PATIENCE_SECONDS = 600


class Fleet:
    """The hosts, by way of Ansible."""

    def __init__(self, inventory: Path, work: Path) -> None:
        self.inventory = inventory
        self.work = work
        listed = subprocess.run(
            ["ansible-inventory", "--inventory", str(inventory), "--list"], check=True, capture_output=True, text=True
        )
        self.listing: dict[str, Any] = json.loads(listed.stdout)

    def hosts(self, group: str) -> list[str]:
        """Return the hosts of a group."""
        return list(self.listing[group]["hosts"])

    def command(self, playbook: str, version: str | None, *more: str) -> list[str]:
        """Return the command of a playbook that plans a version of the stand-in driver."""
        words = ["ansible-playbook", "--inventory", str(self.inventory), str(ROOT / playbook), *more]
        if version is not None:
            driver = {"on_simulated": True, "repository": "file:///srv/nvidia", "version": version}
            driver["branch"] = int(version.split(".")[0])
            words += ["--extra-vars", f"@{ROOT}/tests/fleet/simulated_driver.yml"]
            words += ["--extra-vars", json.dumps({"fleet_driver": driver})]
        return words

    def play(self, playbook: str, version: str | None, *more: str, status: int = 0) -> str:
        """Run a playbook, which has to end with a status, and return what it printed."""
        command = self.command(playbook, version, *more)
        environment = {**os.environ, "MOLECULE_EPHEMERAL_DIRECTORY": str(self.work)}
        done = subprocess.run(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment, check=False
        )
        print(done.stdout, flush=True)
        assert done.returncode == status, f"{' '.join(command)} ended with {done.returncode}, wanted {status}"
        return done.stdout

    def ask(self, host: str, *command: str) -> str:
        """Return what a command prints on a host."""
        module = ["ansible", "--inventory", str(self.inventory), host, "-m", "ansible.builtin.command", "-o"]
        done = subprocess.run([*module, "-a", " ".join(command)], check=True, capture_output=True, text=True)
        return done.stdout.split("(stdout)", 1)[1].split("(stderr)")[0].strip().replace("\\n", "\n")

    def write(self, host: str, path: str, content: str) -> None:
        """Write a small file on a host."""
        module = ["ansible", "--inventory", str(self.inventory), host, "-m", "ansible.builtin.copy"]
        arguments = json.dumps({"dest": path, "content": content, "mode": "0644"})
        subprocess.run([*module, "-a", arguments], check=True, stdout=subprocess.DEVNULL)

    def versions(self) -> list[str]:
        """Return the driver's version that runs on each GPU node."""
        return [
            self.ask(host, "cat", "/srv/simulated_host/sys/module/nvidia/version") for host in self.hosts("gpu_nodes")
        ]

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

    @contextmanager
    def load(self) -> Iterator[None]:
        """Have two clients ask each gateway meanwhile; no request may fail."""
        addresses = [self.listing["_meta"]["hostvars"][host]["ansible_host"] for host in self.hosts("gateways")]
        clients = Clients(addresses, str(self.inventory / ".gpufleet" / "pki" / "ca.crt"), "tiny-llama")
        clients.start()
        try:
            yield
        finally:
            requests = clients.finish()
            failed = [request for request in requests if request.fault is not None]
            slowest = max(request.seconds for request in requests)
            print(f"{len(requests)} requests, {len(failed)} failed, the slowest took {slowest:.1f} s", flush=True)
            for client in sorted({request.client for request in requests}):
                print(f"  {sum(request.client == client for request in requests):4} {client}", flush=True)
        assert not failed, failed
        assert len({request.client for request in requests}) == 2 * len(addresses)


def wait_for(what: str, holds: Any) -> None:
    """Wait until something holds."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not holds():
        assert time.monotonic() < deadline, f"not within {PATIENCE_SECONDS} s: {what}"
        time.sleep(1)


def fail_in_a_batch(fleet: Fleet, first: str, second: str, third: str) -> None:
    """Two hosts at a time: the first one's CUDA does not start, the second one's does."""
    fleet.write(first, "/srv/simulated_host/cuda_fails_with", f"{NEW}\n")
    said = " ".join(
        fleet.play("playbooks/upgrade_driver.yml", NEW, "--extra-vars", "upgrade_driver_batch=2", status=2).split()
    )
    assert "CUDA does not start: cuInit returned 802" in said, "the reason is shown"
    assert "Its recorded driver is back. Its engines are stopped and it stays out of rotation" in said
    assert f"{first} failed or gave no answer any more, as is said above: {third}" in said
    assert fleet.versions() == [OLD, NEW, OLD], "rolled back, upgraded, not begun"
    assert fleet.holders() == [{first: ["upgrade_driver"]}] * 2
    assert set(fleet.engines(first).values()) == {"exited/no"}, "they stay stopped"
    assert set(fleet.engines(second).values()) == {"running/always"}
    fleet.ask(first, "rm", "/srv/simulated_host/cuda_fails_with")


def kill_and_continue(fleet: Fleet, first: str, third: str) -> None:
    """Killed in the middle and run again; meanwhile somebody takes a host out, which is upgraded and not put back."""
    for gateway in fleet.hosts("gateways"):
        fleet.ask(gateway, "gpufleet-probe", "drain", third, "--holder", "somebody")
    upgrade = subprocess.Popen(fleet.command("playbooks/upgrade_driver.yml", NEW), start_new_session=True)
    wait_for("the first host has the new packages", lambda: NEW in fleet.ask(first, "dpkg-query", "-W", "nvidia-open"))
    os.killpg(upgrade.pid, signal.SIGKILL)
    upgrade.wait()
    fleet.play("playbooks/upgrade_driver.yml", NEW)
    assert fleet.versions() == [NEW] * 3
    assert fleet.holders() == [{third: ["somebody"]}] * 2
    for gateway in fleet.hosts("gateways"):
        fleet.ask(gateway, "gpufleet-probe", "undrain", third, "--holder", "somebody")


def main(inventory: Path, work: Path) -> None:
    """Run the upgrades."""
    fleet = Fleet(inventory, work)
    nodes = fleet.hosts("gpu_nodes")
    first, second, third = nodes
    fleet.play("molecule/nvidia_driver/prepare.yml", None, "--limit", "gpu_nodes:localhost")
    fleet.play("playbooks/driver.yml", OLD)
    assert fleet.versions() == [OLD] * 3

    with fleet.load():
        print("\n==> In a batch of two, a verification that fails is rolled back, and the host stays out", flush=True)
        fail_in_a_batch(fleet, first, second, third)
        print("\n==> Killed in the middle and run again, it upgrades the other hosts", flush=True)
        kill_and_continue(fleet, first, third)

    for node in nodes:
        assert set(fleet.engines(node).values()) == {"running/always"}
        at_boot = fleet.ask(node, "cat", "/srv/simulated_host/engines_at_boot").split()
        assert set(at_boot) == {"0"}, f"{node}: engines that came up with the container engine at each boot: {at_boot}"

    print("\n==> Run once more, it leaves every host alone", flush=True)
    said = fleet.play("playbooks/upgrade_driver.yml", NEW)
    assert "Take the host out of rotation" not in said
    assert second in said


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve(), Path(sys.argv[2]).resolve())
