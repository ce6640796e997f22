# SPDX-License-Identifier: Apache-2.0
"""The rolling upgrade of drivers, on the demo's larger fleet as it stands: three GPU nodes behind two gateways.

    python tests/fleet/upgrade_driver.py INVENTORY WORK_DIRECTORY

Real are apt, the engines, the gateways and the load; the driver's packages are stand-ins, and kernel, reboot and CUDA
are simulated (molecule/nvidia_driver). Three upgrades: all hosts under load without a failed request; one whose
verification fails, rolled back; one that is killed in the middle, continued.
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

    @contextmanager
    def load(self, name: str) -> Iterator[None]:
        """Have a client ask a gateway meanwhile; no request may fail."""
        gateway = self.listing["_meta"]["hostvars"][self.hosts("gateways")[0]]["ansible_host"]
        output = self.work / f"load-{name}.json"
        ca = self.inventory / ".gpufleet" / "pki" / "ca.crt"
        program = [sys.executable, str(ROOT / "molecule" / "default" / "files" / "load.py")]
        client = subprocess.Popen([*program, gateway, str(ca), "tiny-llama", str(PATIENCE_SECONDS), str(output)])
        try:
            yield
        finally:
            Path(f"{output}.last").touch()
            client.wait()
        requests = json.loads(output.read_text(encoding="utf-8"))
        failed = [request for request in requests if request["fault"] is not None]
        print(f"{name}: {len(requests)} requests, {len(failed)} failed", flush=True)
        assert requests[-1]["last"], "the load lasted as long as the upgrade"
        assert not failed, failed


def wait_for(what: str, holds: Any) -> None:
    """Wait until something holds."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not holds():
        assert time.monotonic() < deadline, f"not within {PATIENCE_SECONDS} s: {what}"
        time.sleep(1)


def main(inventory: Path, work: Path) -> None:
    """Run the three upgrades."""
    fleet = Fleet(inventory, work)
    nodes = fleet.hosts("gpu_nodes")
    first, second, third = nodes
    fleet.play("molecule/nvidia_driver/prepare.yml", None, "--limit", "gpu_nodes:localhost")
    fleet.play("playbooks/driver.yml", OLD)
    assert fleet.versions() == [OLD] * 3

    print("\n==> A verification that fails is rolled back, and the host stays out", flush=True)
    fleet.write(first, "/srv/simulated_host/cuda_fails_with", f"{NEW}\n")
    said = fleet.play("playbooks/upgrade_driver.yml", NEW, status=2)
    assert "CUDA does not start: cuInit returned 802" in said, "the reason is shown"
    assert "The recorded driver is back" in said
    assert fleet.versions() == [OLD] * 3, "it stopped at the first failure"
    assert fleet.holders() == [{first: ["upgrade_driver"]}] * 2
    fleet.ask(first, "rm", "/srv/simulated_host/cuda_fails_with")

    print("\n==> Killed in the middle and run again, it upgrades all hosts without a failed request", flush=True)
    # Somebody takes a host out meanwhile: it is upgraded and not put back.
    for gateway in fleet.hosts("gateways"):
        fleet.ask(gateway, "gpufleet-probe", "drain", third, "--holder", "somebody")
    with fleet.load("upgrade"):
        upgrade = subprocess.Popen(fleet.command("playbooks/upgrade_driver.yml", NEW), start_new_session=True)
        wait_for(
            "the first host has the new packages", lambda: NEW in fleet.ask(first, "dpkg-query", "-W", "nvidia-open")
        )
        os.killpg(upgrade.pid, signal.SIGKILL)
        upgrade.wait()
        fleet.play("playbooks/upgrade_driver.yml", NEW)
    assert fleet.versions() == [NEW] * 3
    assert fleet.holders() == [{third: ["somebody"]}] * 2
    for gateway in fleet.hosts("gateways"):
        fleet.ask(gateway, "gpufleet-probe", "undrain", third, "--holder", "somebody")

    print("\n==> Run once more, it leaves every host alone", flush=True)
    said = fleet.play("playbooks/upgrade_driver.yml", NEW)
    assert "Hold it out of rotation" not in said
    assert second in said


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve(), Path(sys.argv[2]).resolve())
