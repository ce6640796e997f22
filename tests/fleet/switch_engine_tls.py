# SPDX-License-Identifier: Apache-2.0
"""Mutual TLS between gateways and engines turned off and on again and renewed, on a demo fleet, under load.

    python tests/fleet/switch_engine_tls.py INVENTORY WORK_DIRECTORY

The demo fleet gets a second gateway first. Everything is real but the GPUs. No request of plain and streaming clients
of every gateway may fail, and each way is killed (SIGKILL) once where a host is changed and still held, in the first
half and in the second, and continued.
"""

from __future__ import annotations

import signal
import sys
from pathlib import Path

import killed
from clients import Clients
from fleet import Fleet, unchanged, variables, with_second_gateway

PLAYBOOK = "playbooks/switch_engine_tls.yml"
#: What the sandbox's inventories say, without TLS.
WITHOUT = {
    "image": "{{ sandbox_media.image }}",
    "accelerator": "cpu",
    "cpu_kv_cache_gib": 1,
    "shm_size_gib": 1,
    "shutdown_timeout_seconds": 30,
    "tls": "none",
}


def schemes(fleet: Fleet) -> set[str]:
    """Return in which ways engines answer a gateway that asks in both."""
    gateway = fleet.hosts("gateways")[0]
    hosts = [fleet.address(host) for host in fleet.hosts("gpu_nodes")]
    pki = "/etc/gpufleet/pki"
    secured = f"--cacert {pki}/engines-ca.crt --cert {pki}/client.crt --key {pki}/client.key"
    found = set()
    for host in hosts:
        for scheme, options in (("http", ""), ("https", secured)):
            words = f"curl --silent --max-time 20 --output /dev/null --write-out %{{http_code}} {options}".split()
            # curl ends with an error where the engine does not answer so, and writes 000.
            told = fleet.ask(gateway, "sh", "-c", f"'{' '.join(words)} {scheme}://{host}:8000/health; true'")
            found |= {scheme} if told.strip() == "200" else set()
    return found


def kill_where_held(fleet: Fleet, half: int, *options: str) -> None:
    """Switch, and kill the run when a host of this half is changed and still held out of rotation."""
    command = fleet.command(PLAYBOOK, *options)
    status, said = killed.run_and_kill(command, task="switch_host | Stop holding it", times=half)
    assert status == -signal.SIGKILL, f"it ended with {status} by itself:\n{said[-8000:]}"
    held = fleet.holders()
    assert all(holders == ["switch_engine_tls"] for drained in held for holders in drained.values()), held
    assert all(len(drained) == 1 for drained in held), held


def main(inventory: Path, work: Path) -> None:
    """Run both ways."""
    fleet = Fleet(with_second_gateway(inventory, work), work)
    gateways = [fleet.address(host) for host in fleet.hosts("gateways")]
    assert schemes(fleet) == {"https"}
    with Clients(gateways, str(inventory / ".gpufleet" / "pki" / "ca.crt"), "tiny-llama").asking():
        kill_where_held(fleet, 1, *variables(fleet_engine=WITHOUT))
        assert schemes(fleet) == {"http", "https"}
        fleet.play(PLAYBOOK, *variables(fleet_engine=WITHOUT))
        assert schemes(fleet) == {"http"}
        # One host in each half: the second that is changed is of the second half.
        kill_where_held(fleet, 2)
        assert schemes(fleet) == {"https"}
        fleet.play(PLAYBOOK)
        assert schemes(fleet) == {"https"}
        # New keys and certificates for gateways, engines and who asks them; nothing restarts.
        started = [fleet.started(host) for host in fleet.hosts("gpu_nodes")]
        fleet.play("playbooks/renew_certificates.yml", *variables(renew_certificates_now=True))
        assert [fleet.started(host) for host in fleet.hosts("gpu_nodes")] == started
    # Nothing is left to do, and nobody is held.
    assert unchanged(fleet.play(PLAYBOOK))
    assert fleet.holders() == [{} for __ in fleet.hosts("gateways")]
    fleet.play("playbooks/verify.yml")


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve(), Path(sys.argv[2]).resolve())
