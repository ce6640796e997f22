# SPDX-License-Identifier: Apache-2.0
"""The authority behind mutual TLS taken into the store and replaced, on a demo fleet with real engines, under load.

    python tests/fleet/engine_authority.py INVENTORY WORK_DIRECTORY

The demo fleet gets a second gateway first. Phase by phase it is asked, from a gateway, whom each engine takes for a
client and who believes the engine. No request of plain and streaming clients may fail, also while each engine is
restarted in the end: until then it forgets nothing.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import stored
from clients import Clients
from fleet import ROOT, Fleet, variables, wait_for, with_second_gateway

from ansible_collections.gpufleet.metal.plugins.module_utils._secrets.kinds import client_certificate

ROTATE = "playbooks/rotate_secrets.yml"
NAME = "internal_ca"
DAY = 24

#: Asks engines as clients of each authority who trust each; told [address, trusted, certificate with key], it prints
#: the status of each answer, or why there is none.
ASK = """
import http.client, json, ssl, sys, tempfile
for address, trusted, shown in json.load(sys.stdin):
    context = ssl.create_default_context(cadata=trusted)
    with tempfile.NamedTemporaryFile("w") as pem:
        pem.write(shown)
        pem.flush()
        context.load_cert_chain(pem.name)
    connection = http.client.HTTPSConnection(address, 8000, context=context, timeout=20)
    try:
        connection.request("GET", "/health")
        print(connection.getresponse().status)
    except ssl.SSLCertVerificationError:
        print("untrusted")
    except OSError as error:
        print(getattr(error, "reason", None) or type(error).__name__)
    finally:
        connection.close()
"""
#: How an engine says that it does not take a client: with an alert, or by ending the connection.
NOT_TAKEN = {"TLSV1_ALERT_UNKNOWN_CA", "ConnectionResetError", "RemoteDisconnected", "BrokenPipeError"}

Authorities = Mapping[str, Mapping[str, str]]


def asked(fleet: Fleet, authorities: Authorities, nodes: Sequence[str]) -> dict[tuple[str, str, str], str]:
    """Return how engines answer: by node, the authority that is trusted and the one whose client asks."""
    shown = {name: client_certificate(value, "test", int(time.time())) for name, value in authorities.items()}
    order = [(node, by, of) for node in nodes for by in sorted(authorities) for of in sorted(authorities)]
    told = json.dumps([[fleet.address(node), authorities[by]["certificate"], shown[of]] for node, by, of in order])
    said = fleet.inside(fleet.hosts("gateways")[0], "python3", "-c", ASK, told=told).splitlines()
    return dict(zip(order, said, strict=True))


def seen(fleet: Fleet, authorities: Authorities) -> dict[str, tuple[str, str]]:
    """Return, by engine, who believes it and whose clients it takes: names of authorities, joined."""
    nodes, names = fleet.hosts("gpu_nodes"), sorted(authorities)
    answers = asked(fleet, authorities, nodes)
    for (node, by, of), answer in answers.items():
        print(f"{node}, trusting the {by}, a client of the {of}: {answer}", flush=True)
    assert set(answers.values()) <= {"200", "untrusted", *NOT_TAKEN}
    found = {}
    for node in nodes:
        believed = [by for by in names if any(answers[node, by, of] != "untrusted" for of in names)]
        taken = [of for of in names if any(answers[node, by, of] == "200" for by in names)]
        found[node] = (" ".join(believed), " ".join(taken))
    return found


def trusted_on_disk(fleet: Fleet, authorities: Authorities) -> dict[str, str]:
    """Return, by host, which authorities' certificates lie anywhere in its configuration: names, joined."""
    found = {}
    for host in [*fleet.hosts("gpu_nodes"), *fleet.hosts("gateways")]:
        names = []
        for name in sorted(authorities):
            lines = authorities[name]["certificate"].splitlines()
            line = lines[len(lines) // 2]
            script = "grep -r -l -F -f - /etc || test $? = 1"
            names += [name] if fleet.inside(host, "sh", "-c", script, told=line).strip() else []
        found[host] = " ".join(names)
    return found


class Authority:
    """The authority of the fleet, in the store."""

    def __init__(self, fleet: Fleet, work: Path) -> None:
        self.fleet = fleet
        self.work = work
        self.nodes = fleet.hosts("gpu_nodes")

    def rotate(self, *more: str, status: int = 0, **values: object) -> str:
        """Run rotate_secrets, and return what it says in one line."""
        return " ".join(self.fleet.play(ROTATE, *more, *variables(**values), status=status).split())

    def phase(self) -> str:
        """Return where the rotation stands."""
        return stored.secrets(self.work)[NAME].phase

    def gateways_believed(self, authorities: Authorities) -> str:
        """Return who believes every gateway."""
        addresses = [self.fleet.address(host) for host in self.fleet.hosts("gateways")]
        return " ".join(
            name
            for name in sorted(authorities)
            if all(stored.believed(address, authorities[name]["certificate"]) for address in addresses)
        )

    def expect(self, phase: str, authorities: Authorities, believed: str, taken: str, files: str) -> None:
        """Check where the rotation stands, and what is seen of both authorities on engines, gateways and in files."""
        print(f"\n==> {phase}: believed {believed}, clients taken {taken}", flush=True)
        assert self.phase() == phase
        assert seen(self.fleet, authorities) == dict.fromkeys(self.nodes, (believed, taken))
        assert self.gateways_believed(authorities) == believed
        on_disk = trusted_on_disk(self.fleet, authorities)
        assert set(on_disk.values()) == {files}, on_disk

    def refused_while_engines_are_not_told(self, old: Mapping[str, str]) -> None:
        """With gateways as its only consumer nothing begins on them, and the run says why."""
        gateways = {"gateways": {"hosts": "gateways", "tasks": "gpufleet.metal.gateway_authority"}}
        said = self.rotate(status=2, rotate_secrets_names=[NAME], authority_consumers=gateways)
        assert "no consumer gpufleet.metal.engine_authority in fleet_secrets" in said
        assert "acceptance of it is not proven by gateways@" in said
        next_one = stored.secrets(self.work)[NAME].next
        assert next_one is not None
        both = {"old": old, "new": next_one.value}
        self.expect("staging", both, believed="old", taken="old", files="old")

    def restart(self, node: str, authorities: Authorities) -> None:
        """Have an engine forget what it remembers: out of rotation, restarted, proven and put back."""
        self.fleet.play("playbooks/drain_node.yml", "--limit", node)
        names = self.fleet.inside(node, "docker", "ps", "--quiet", "--filter", "label=gpufleet.instance").split()
        self.fleet.inside(node, "docker", "restart", *names)
        wait_for(f"{node} answers", lambda: "200" in asked(self.fleet, authorities, [node]).values())
        self.fleet.play("playbooks/return_node.yml", "--limit", node)


def main(inventory: Path, work: Path) -> None:
    """Add a gateway, take the authority into the store, replace it, and restart the engines."""
    pki = inventory / ".gpufleet" / "pki"
    os.environ.update(AUTHORITY_WORK=str(work), AUTHORITY_PKI=str(pki))
    sources = with_second_gateway(inventory, work)
    fleet = Fleet([*sources, ROOT / "tests" / "fleet" / "stored_authority.yml"], work)
    authority = Authority(fleet, work)
    fleet.play("playbooks/create_secret_store.yml")
    old = stored.secrets(work)[NAME].current.value
    assert old["certificate"] == (pki / "ca.crt").read_text(), "it is the one in use"
    (pki / "ca.key").unlink()
    started = [fleet.started(node) for node in authority.nodes]

    gateways = [fleet.address(host) for host in fleet.hosts("gateways")]
    with Clients(gateways, str(pki / "ca.crt"), "tiny-llama").asking():
        authority.refused_while_engines_are_not_told(old)
        next_one = stored.secrets(work)[NAME].next
        assert next_one is not None
        both = {"old": old, "new": next_one.value}

        assert "the new value is used from" in authority.rotate(authority_settle_hours=DAY)
        authority.expect("staging", both, believed="old", taken="new old", files="new old")
        assert "the old value is retired after" in authority.rotate(authority_overlap_hours=DAY)
        authority.expect("promoted", both, believed="new", taken="new old", files="new old")
        authority.rotate()
        # Nothing of the old is left but what running engines remember.
        authority.expect("idle", both, believed="new", taken="new old", files="new")
        assert [fleet.started(node) for node in authority.nodes] == started, "nothing restarted"

        for node in authority.nodes:
            authority.restart(node, both)
    authority.expect("idle", both, believed="new", taken="new", files="new")
    assert (pki / "ca.crt").read_text().count("BEGIN CERTIFICATE") == 1
    assert fleet.holders() == [{} for __ in fleet.hosts("gateways")]
    fleet.play("playbooks/verify.yml")


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve(), Path(sys.argv[2]).resolve())
