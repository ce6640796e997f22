# SPDX-License-Identifier: Apache-2.0
"""Gateways that change from the fleet's own authority to one by ACME, and renew there, on a demo fleet under load.

    python tests/fleet/public_certificate.py INVENTORY WORK_DIRECTORY

The demo fleet gets a second gateway first, and then a host with Pebble and BIND. Everything is real but the GPUs
and that nobody outside trusts Pebble. Engines keep mutual TLS by the fleet's own authority. Clients trust both, as in
the days of such a change, and ask for the endpoint's name; no request may fail, also while the DNS server is down.
"""

from __future__ import annotations

import json
import os
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

from clients import Clients
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import CertificateBuilder, Name, NameAttribute, random_serial_number
from cryptography.x509.oid import NameOID
from fleet import ROOT, Fleet, unchanged, variables, with_second_gateway

HERE = ROOT / "tests" / "fleet"
STAGE, RENEW, VERIFY = "playbooks/gateway.yml", "playbooks/renew_certificates.yml", "playbooks/verify.yml"
NOW = variables(renew_certificates_now=True)
GATEWAYS = ("--limit", "gateways")
PAIR = "/etc/gpufleet/pki/gateway"
SAMPLE_SECONDS = 0.25


class Endpoint:
    """The gateways, as clients see them: which certificate each serves, and who believes it."""

    def __init__(self, fleet: Fleet, name: str) -> None:
        self.addresses = [fleet.address(host) for host in fleet.hosts("gateways")]
        self.name = name

    def serial(self, address: str, trusted: Path) -> str | None:
        """Return the serial number that is served to who trusts this authority alone, None if not believed."""
        context = ssl.create_default_context(cafile=str(trusted))
        with socket.create_connection((address, 443), timeout=60) as plain:
            try:
                with context.wrap_socket(plain, server_hostname=self.name) as secured:
                    return str((secured.getpeercert() or {})["serialNumber"])
            except ssl.SSLCertVerificationError:
                return None

    def serials(self, trusted: Path) -> list[str | None]:
        """Return what every gateway serves."""
        return [self.serial(address, trusted) for address in self.addresses]

    @contextmanager
    def one_after_the_other(self, trusted: Path) -> Iterator[None]:
        """Look all the time: each gateway has to change, and none before the one before it is done."""
        end = threading.Event()
        seen: dict[str, list[tuple[float, str | None]]] = {address: [] for address in self.addresses}

        def look(address: str) -> None:
            while not end.wait(SAMPLE_SECONDS):
                begun = time.monotonic()
                seen[address].append((begun, self.serial(address, trusted)))

        before = self.serials(trusted)
        threads = [threading.Thread(target=look, args=(address,), daemon=True) for address in self.addresses]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            end.set()
            for thread in threads:
                thread.join()
        old = [[at for at, serial in seen[address] if serial == was] for address, was in zip(seen, before, strict=True)]
        new = [[at for at, serial in seen[address] if serial != was] for address, was in zip(seen, before, strict=True)]
        for address in seen:
            assert None not in {serial for __, serial in seen[address]}, f"{address} was not believed at some time"
            assert len({serial for __, serial in seen[address]}) == 2, f"{address} did not change once"
        for earlier, later in zip(old, new[1:], strict=False):
            print(f"the next gateway changed {min(later) - max(earlier):.1f} s after the one before it", flush=True)
            assert max(earlier) < min(later), "one after the other"


class Authority:
    """The host with Pebble and BIND."""

    def __init__(self, fleet: Fleet) -> None:
        self.fleet = fleet
        (self.host,) = fleet.hosts("acme_servers")

    def log(self, words: str) -> list[str]:
        """Return the lines with these words that Pebble wrote since it started."""
        journal = ("journalctl", "--unit", "pebble@main.service", "--output", "cat", "--grep", words)
        return self.fleet.inside(self.host, *journal).splitlines()

    def asked(self) -> list[str]:
        """Return every request that it was sent."""
        return self.log("calling handler")

    def issued(self) -> int:
        """Return how many certificates it issued."""
        return len(self.log("Issued certificate serial"))

    def records(self) -> bool:
        """Tell whether proofs are left in the zone."""
        zone = subprocess.run(
            ["dig", f"@{self.fleet.address(self.host)}", "sandbox.test", "AXFR", "+noall", "+answer"],
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        assert "SOA" in zone, zone
        return "TXT" in zone

    def dns(self, verb: str) -> None:
        """Start or stop the DNS server."""
        self.fleet.inside(self.host, "systemctl", verb, "named.service")


class Run:
    """The fleet on its way."""

    def __init__(self, fleet: Fleet, endpoint: Endpoint, internal: Path, public: Path) -> None:
        self.fleet = fleet
        self.endpoint = endpoint
        self.internal = internal
        self.public = public
        self.authority = Authority(fleet)
        self.gateways = fleet.hosts("gateways")

    def sums(self, *names: str) -> list[list[str]]:
        """Return, by gateway, the digests of files of its pair."""
        listed = [self.fleet.inside(host, "sha256sum", *(f"{PAIR}.{name}" for name in names)) for host in self.gateways]
        return [[line.split()[0] for line in said.splitlines()] for said in listed]

    def refused(self, playbook: str, *more: str) -> str:
        """Run a playbook that has to fail, and return what it says in one line; nothing that is served may change."""
        served, files = self.endpoint.serials(self.public), self.sums("crt", "key")
        said = " ".join(self.fleet.play(playbook, *GATEWAYS, *more, status=2).split())
        assert self.endpoint.serials(self.public) == served, "what is served stays"
        assert self.sums("crt", "key") == files, "the pair stays"
        return said

    def switch(self) -> None:
        """From the fleet's own authority to the other one; then nothing is left to do and nobody is asked."""
        print("\n==> Change the authority", flush=True)
        assert None not in self.endpoint.serials(self.internal)
        assert self.endpoint.serials(self.public) == [None] * len(self.gateways)
        self.fleet.play(STAGE)
        assert None not in self.endpoint.serials(self.public), "each serves a chain to Pebble's root"
        assert self.endpoint.serials(self.internal) == [None] * len(self.gateways)
        assert self.authority.issued() == len(self.gateways)
        assert not self.authority.records()
        asked = self.authority.asked()
        assert unchanged(self.fleet.play(STAGE))
        assert unchanged(self.fleet.play("playbooks/site.yml", *GATEWAYS))
        assert self.authority.asked() == asked, "nobody was asked"

    def renew(self) -> None:
        """Because keys leaked, and then not again."""
        print("\n==> Renew", flush=True)
        before, keys = self.endpoint.serials(self.public), self.sums("key")
        with self.endpoint.one_after_the_other(self.public):
            self.fleet.play(RENEW, *NOW)
        after = self.endpoint.serials(self.public)
        assert not set(before) & set(after), (before, after)
        assert all(new != old for new, old in zip(self.sums("key"), keys, strict=True))
        assert self.authority.issued() == 2 * len(self.gateways)
        asked = self.authority.asked()
        assert unchanged(self.fleet.play(RENEW))
        assert self.endpoint.serials(self.public) == after
        assert self.authority.asked() == asked, "nobody was asked"

    def wrong_trust(self, expired: Path) -> None:
        """Whoever clients trust did not sign, or is over: it is said whom that option names."""
        print("\n==> Name the wrong authority as the one that clients trust", flush=True)
        wrong = variables(pki_acme_trusted_ca_path=str(self.internal))
        said = self.refused(VERIFY, *wrong)
        assert "none of pki_acme_trusted_ca_path (CN=gpufleet internal CA) signed it" in said
        said = self.refused(RENEW, *wrong)
        assert f"Trusted was {self.internal} (pki_acme_trusted_ca_path)" in said
        asked = self.authority.asked()
        said = self.refused(RENEW, *NOW, *variables(pki_acme_trusted_ca_path=str(expired)))
        assert "pki_acme_trusted_ca_path holds no authority that is valid now: CN=expired authority expired on" in said
        assert self.authority.asked() == asked, "found before anybody was asked"

    def refused_renewal(self) -> None:
        """The DNS server is down: the old pair stays in service, and the key that was made is the next run's."""
        print("\n==> Renew while the DNS server is down", flush=True)
        served, served_keys = self.endpoint.serials(self.public), self.sums("key")
        self.authority.dns("stop")
        said = self.refused(RENEW, *NOW)
        url = f"https://{self.fleet.address(self.authority.host)}:14000/dir"
        assert f"{url} (pki_acme_directory_url) gave no certificate for DNS:{self.endpoint.name}" in said
        assert "(pki_acme_rfc2136) did not make" in said
        assert "present in zone sandbox.test" in said, "what failed first"
        assert "What it depends on: pki_acme_rfc2136." in said
        first, *others = self.gateways
        made = self.fleet.inside(first, "sha256sum", f"{PAIR}.key.next").split()[0]
        for host in others:
            assert "gateway.key.next" not in self.fleet.inside(host, "ls", "/etc/gpufleet/pki"), f"{host} was not begun"
        self.authority.dns("start")
        self.fleet.play(RENEW, *NOW)
        assert not set(served) & set(self.endpoint.serials(self.public))
        keys = self.sums("key")
        assert keys[0] == [made], "the run went on with the key that was there"
        assert all(new != old for new, old in zip(keys, served_keys, strict=True))
        assert not self.authority.records()
        assert self.authority.issued() == 3 * len(self.gateways), "none was issued in vain"


def make_expired(work: Path) -> Path:
    """Make an authority whose time is over."""
    key, name = generate_private_key(SECP256R1()), Name([NameAttribute(NameOID.COMMON_NAME, "expired authority")])
    made = CertificateBuilder(name, name, key.public_key(), random_serial_number())
    made = made.not_valid_before(datetime(2024, 1, 1)).not_valid_after(datetime(2025, 1, 1))
    path = work / "expired.crt"
    path.write_bytes(made.sign(key, SHA256()).public_bytes(Encoding.PEM))
    return path


def main(inventory: Path, work: Path) -> None:
    """Add a gateway, change the authority, and return."""
    os.environ["ACME_WORK"] = str(work)
    sources = [*with_second_gateway(inventory, work), HERE / "acme_server.yml"]
    joined = Fleet(sources, work)
    name = json.loads((inventory / ".gpufleet" / "plan.json").read_text())["hosts"][joined.hosts("gateways")[0]]
    endpoint = Endpoint(joined, name["endpoint"]["hostname"])
    owner = variables(sandbox_owner=os.environ.get("DEMO_OWNER", "demo"))
    joined.play("playbooks/sandbox/create.yml", "--limit", "acme_servers", *owner)

    fleet = Fleet([*sources, HERE / "acme_gateways.yml"], work)
    fleet.play("tests/fleet/acme_authority.yml")
    internal, public, both = inventory / ".gpufleet" / "pki" / "ca.crt", work / "acme-root.crt", work / "both.crt"
    both.write_text(internal.read_text() + public.read_text())
    run = Run(fleet, endpoint, internal, public)
    with Clients(endpoint.addresses, str(both), "tiny-llama", name=endpoint.name).asking():
        run.switch()
        run.renew()
        fleet.play(VERIFY)
        run.wrong_trust(make_expired(work))
        run.refused_renewal()
    fleet.play(VERIFY)
    assert unchanged(fleet.play(RENEW))


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve(), Path(sys.argv[2]).resolve())
