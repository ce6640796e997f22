# SPDX-License-Identifier: Apache-2.0
"""A cluster goes to another minor under load: three nodes behind a gateway, of molecule/kubernetes_upgrade_load.

    python tests/fleet/upgrade_kubernetes.py WORK_DIRECTORY INVENTORY...

Real are the gateway, its probes, the playbooks, apt, containerd and the load; Kubernetes and the engines are stand-ins.
An engine that is ended drops what it has in hand, so only the order of the upgrade keeps requests from failing.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

from clients import Clients
from fleet import Fleet, variables

NEW = "1.36.4"


def main(work: Path, inventory: list[Path]) -> None:
    """Run the upgrade."""
    fleet = Fleet(inventory, work)
    gateways = [fleet.address(host) for host in fleet.hosts("gateways")]
    authority = work / "plan" / "pki" / "ca.crt"
    # Stand-ins for engines cost little: more requests than the demo's engines could take.
    clients = Clients(gateways, str(authority), "tiny-llama", pause_seconds=0.5)
    begun = time.monotonic()
    with clients.asking():
        # So that every engine has requests in hand before the first change.
        time.sleep(10)
        fleet.play("playbooks/upgrade_kubernetes.yml", *variables(planned_version=NEW))
        time.sleep(10)
    print(f"==> {NEW} after {time.monotonic() - begun:.0f} s under load", flush=True)
    assert fleet.holders() == [{}], "nobody holds a host"


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve(), [Path(source).resolve() for source in sys.argv[2:]])
