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

import os
import signal
import subprocess
import sys
from pathlib import Path

from clients import Clients
from fleet import ROOT, Fleet, variables, wait_for

OLD, NEW = "580.173.02", "595.91.07"


def driver(version: str) -> list[str]:
    """Return the options that plan a version of the stand-in driver."""
    wanted = {"on_simulated": True, "repository": "file:///srv/nvidia", "version": version}
    return [
        "--extra-vars",
        f"@{ROOT}/tests/fleet/simulated_driver.yml",
        *variables(fleet_driver={**wanted, "branch": int(version.split(".")[0])}),
    ]


def versions(fleet: Fleet) -> list[str]:
    """Return the driver's version that runs on each GPU node."""
    return [
        fleet.ask(host, "cat", "/srv/simulated_host/sys/module/nvidia/version") for host in fleet.hosts("gpu_nodes")
    ]


def fail_in_a_batch(fleet: Fleet, first: str, second: str, third: str) -> None:
    """Two hosts at a time: the first one's CUDA does not start, the second one's does."""
    fleet.write(first, "/srv/simulated_host/cuda_fails_with", f"{NEW}\n")
    said = " ".join(
        fleet.play("playbooks/upgrade_driver.yml", *driver(NEW), *variables(upgrade_driver_batch=2), status=2).split()
    )
    assert "CUDA does not start: cuInit returned 802" in said, "the reason is shown"
    assert "Its recorded driver is back. Its engines are stopped and it stays out of rotation" in said
    assert f"{first} failed or gave no answer any more, as is said above: {third}" in said
    assert versions(fleet) == [OLD, NEW, OLD], "rolled back, upgraded, not begun"
    assert fleet.holders() == [{first: ["upgrade_driver"]}] * 2
    assert set(fleet.engines(first).values()) == {"exited/no"}, "they stay stopped"
    assert set(fleet.engines(second).values()) == {"running/always"}
    fleet.ask(first, "rm", "/srv/simulated_host/cuda_fails_with")


def kill_and_continue(fleet: Fleet, first: str, third: str) -> None:
    """Killed in the middle and run again; meanwhile somebody takes a host out, which is upgraded and not put back."""
    for gateway in fleet.hosts("gateways"):
        fleet.ask(gateway, "gpufleet-probe", "drain", third, "--holder", "somebody")
    upgrade = subprocess.Popen(fleet.command("playbooks/upgrade_driver.yml", *driver(NEW)), start_new_session=True)
    wait_for("the first host has the new packages", lambda: NEW in fleet.ask(first, "dpkg-query", "-W", "nvidia-open"))
    os.killpg(upgrade.pid, signal.SIGKILL)
    upgrade.wait()
    fleet.play("playbooks/upgrade_driver.yml", *driver(NEW))
    assert versions(fleet) == [NEW] * 3
    assert fleet.holders() == [{third: ["somebody"]}] * 2
    for gateway in fleet.hosts("gateways"):
        fleet.ask(gateway, "gpufleet-probe", "undrain", third, "--holder", "somebody")


def main(inventory: Path, work: Path) -> None:
    """Run the upgrades."""
    fleet = Fleet([inventory], work)
    nodes = fleet.hosts("gpu_nodes")
    first, second, third = nodes
    fleet.play("molecule/nvidia_driver/prepare.yml", "--limit", "gpu_nodes:localhost")
    fleet.play("playbooks/driver.yml", *driver(OLD))
    assert versions(fleet) == [OLD] * 3

    gateways = [fleet.address(host) for host in fleet.hosts("gateways")]
    with Clients(gateways, str(inventory / ".gpufleet" / "pki" / "ca.crt"), "tiny-llama").asking():
        print("\n==> In a batch of two, a verification that fails is rolled back, and the host stays out", flush=True)
        fail_in_a_batch(fleet, first, second, third)
        print("\n==> Killed in the middle and run again, it upgrades the other hosts", flush=True)
        kill_and_continue(fleet, first, third)

    for node in nodes:
        assert set(fleet.engines(node).values()) == {"running/always"}
        at_boot = fleet.ask(node, "cat", "/srv/simulated_host/engines_at_boot").split()
        assert set(at_boot) == {"0"}, f"{node}: engines that came up with the container engine at each boot: {at_boot}"

    print("\n==> Run once more, it leaves every host alone", flush=True)
    said = fleet.play("playbooks/upgrade_driver.yml", *driver(NEW))
    assert "Take the host out of rotation" not in said
    assert second in said


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve(), Path(sys.argv[2]).resolve())
