# SPDX-License-Identifier: Apache-2.0
"""The authority behind mutual TLS replaced, the run killed after every step in turn and run again, with a real engine.

    python tests/fleet/engine_authority_killed.py WORK_DIRECTORY

The fleet is the demo's with one GPU node, because every host multiplies the steps. Under load it is replaced in
engine_authority.py; here the end has to be that of a rotation which nobody disturbed.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

import killed
import stored
import yaml
from engine_authority import NAME, ROTATE, Authority, asked
from fleet import ROOT, Fleet, variables, wait_for

LEFT_OUT = "gpu-2"


def smaller(target: Path) -> Path:
    """Copy the demo's inventory without a GPU node."""
    shutil.copytree(ROOT / "inventories" / "sandbox", target, ignore=shutil.ignore_patterns(".gpufleet", LEFT_OUT))
    hosts = yaml.safe_load((target / "hosts.yml").read_text())
    del hosts["all"]["children"]["gpu_nodes"]["hosts"][LEFT_OUT]
    (target / "hosts.yml").write_text(yaml.safe_dump(hosts))
    return target


def main(work: Path) -> None:
    """Make the fleet, take its authority into the store, replace it, and restart the engine."""
    inventory = smaller(work / "inventory")
    pki = inventory / ".gpufleet" / "pki"
    os.environ.update(AUTHORITY_WORK=str(work), AUTHORITY_PKI=str(pki))
    demo = Fleet([inventory], work)
    demo.play("playbooks/sandbox/create.yml", *variables(sandbox_owner="test"))
    demo.play("playbooks/site.yml")

    fleet = Fleet([inventory, ROOT / "tests" / "fleet" / "stored_authority.yml"], work)
    authority = Authority(fleet, work)
    (node,) = authority.nodes
    fleet.play("playbooks/create_secret_store.yml")
    old = stored.secrets(work)[NAME].current.value
    started = fleet.started(node)

    def run(names: Sequence[str], steps: int) -> tuple[int, str]:
        return killed.run_and_kill(fleet.command(ROTATE, *variables(rotate_secrets_names=names)), steps)

    killed.kill_everywhere(NAME, work, run)
    both = {"old": old, "new": stored.secrets(work)[NAME].current.value}
    # Nothing of the old is left but what the running engine remembers.
    authority.expect("idle", both, believed="new", taken="new old", files="new")
    assert fleet.started(node) == started, "nothing restarted"
    names = fleet.inside(node, "docker", "ps", "--quiet", "--filter", "label=gpufleet.instance").split()
    fleet.inside(node, "docker", "restart", *names)
    wait_for("the engine answers", lambda: "200" in asked(fleet, both, [node]).values())
    authority.expect("idle", both, believed="new", taken="new", files="new")
    fleet.play("playbooks/verify.yml")


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve())
