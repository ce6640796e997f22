# SPDX-License-Identifier: Apache-2.0
"""Every kind of rotation that gateways have, under load through two of them; killed and continued; and what leaked.

    python tests/fleet/rotate_secrets.py WORK_DIRECTORY [--quick]

Real are the playbooks, the store, NGINX with njs (Debian 13) and with the verifier of our own (Debian 12), TLS, the
internal authority and the load, plain and streaming, by API key and by token. The engine behind is a dummy.

Every value that the store ever held is a canary: whatever the runs wrote, on this machine and on every host, is
searched for each of them. ``--quick`` leaves out what takes long: to kill runs, and to lose a gateway.
"""

from __future__ import annotations

import base64
import http.client
import json
import os
import re
import signal
import ssl
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from clients import Clients

from ansible_collections.gpufleet.metal.plugins.module_utils._secrets.document import Secret
from ansible_collections.gpufleet.metal.plugins.module_utils._secrets.envelope import read_private_key
from ansible_collections.gpufleet.metal.plugins.module_utils._secrets.file_store import FileStore, WrappingKey

ROOT = Path(__file__).resolve().parent.parent.parent
GATEWAYS = {"rotation-bookworm": "198.51.100.91", "rotation-trixie": "198.51.100.92"}
HOSTS = ("rotation-engine", *GATEWAYS)
INVENTORY = ["tools/sandbox/connection.yml", "tests/fleet/rotation/hosts.yml", "tests/fleet/rotation/clients.yml"]
NAMES = ("ci_api_key", "token_key", "internal_ca")


class Fleet:
    """The gateways and their store, by way of the playbooks."""

    def __init__(self, work: Path) -> None:
        self.work = work
        self.canaries: dict[str, str] = {}
        self.processes: set[str] = set()
        self.runs = 0

    # ------------------------------------------------------------------------------------------------- runs

    def play(self, playbook: str, *more: str, kill_after: int = 0) -> tuple[int, str]:
        """Run a playbook as loudly as can be; return its status and what it printed."""
        self.runs += 1
        command = ["ansible-playbook", "-vvv", "--diff", str(ROOT / playbook), *more]
        for source in INVENTORY:
            command += ["--inventory", str(ROOT / source)]
        environment = {
            **os.environ,
            "ANSIBLE_LOG_PATH": str(self.work / "ansible.log"),
            "ANSIBLE_CACHE_PLUGIN": "jsonfile",
            "ANSIBLE_CACHE_PLUGIN_CONNECTION": str(self.work / "facts"),
            "ANSIBLE_CALLBACK_PLUGINS": str(ROOT / "tests" / "fleet" / "rotation" / "callback_plugins"),
            "ANSIBLE_CALLBACKS_ENABLED": "kill_after",
            "KILL_AFTER_STEPS": str(kill_after),
        }
        with open(self.work / f"run-{self.runs:03}.log", "w+", encoding="utf-8") as log:
            run = subprocess.Popen(
                command, stdout=log, stderr=subprocess.STDOUT, env=environment, start_new_session=True, text=True
            )
            status = run.wait()
            log.seek(0)
            said = log.read()
        self.remember()
        return status, said

    def must(self, playbook: str, *more: str) -> str:
        """Run a playbook that has to succeed."""
        status, said = self.play(playbook, *more)
        assert status == 0, f"{playbook} {more} ended with {status}:\n{said[-8000:]}"
        return said

    def rotate(self, *names: str, emergency: bool = False) -> str:
        """Rotate these secrets, as far as it goes."""
        return self.must("playbooks/rotate_secrets.yml", *self.named(names, emergency))

    @staticmethod
    def named(names: tuple[str, ...], emergency: bool = False) -> list[str]:
        """Return the option that names secrets."""
        wanted: dict[str, Any] = {"rotate_secrets_names": list(names), "rotate_secrets_emergency": emergency}
        return ["--extra-vars", json.dumps(wanted)]

    # ------------------------------------------------------------------------------------------------ store

    def secrets(self) -> Mapping[str, Secret]:
        """Open the store, as an operator with its key could."""
        pem = (self.work / "secrets.key").read_bytes()
        store = FileStore(str(self.work / "secrets.json"), lambda: WrappingKey(read_private_key(pem, "key"), "key"))
        return store.read().secrets

    def remember(self) -> None:
        """Keep every value that there is now, or the part of it that nobody else has."""
        for name, secret in self.secrets().items():
            for version in secret.versions().values():
                for part in ("value", "private_key", "password"):
                    if part in version.value:
                        self.canaries[_distinctive(version.value[part])] = f"{name} {version.number} {part}"
        for path in (self.work / "clients").glob("*"):
            self.canaries[path.read_text()[-40:]] = path.name

    def phases(self) -> dict[str, str]:
        """Return where every secret stands."""
        return {name: secret.phase for name, secret in self.secrets().items()}

    def current(self, name: str) -> Mapping[str, str]:
        """Return a secret's value in use."""
        return self.secrets()[name].current.value

    # ---------------------------------------------------------------------------------------------- outside

    def status(self, gateway: str, credential: str) -> int:
        """Ask a gateway who one is, trusting whom clients are to trust."""
        context = ssl.create_default_context(cafile=str(self.work / "fleet" / "pki" / "ca.crt"))
        connection = http.client.HTTPSConnection(GATEWAYS[gateway], 443, context=context, timeout=30)
        try:
            connection.request("GET", "/v1/models", headers={"Authorization": f"Bearer {credential}"})
            return connection.getresponse().status
        finally:
            connection.close()

    def trusted(self, gateway: str, authority: str) -> bool:
        """Tell whether somebody who trusts this authority alone believes a gateway."""
        context = ssl.create_default_context(cadata=authority)
        try:
            self.serial(gateway, context)
        except ssl.SSLCertVerificationError:
            return False
        return True

    def serial(self, gateway: str, context: ssl.SSLContext | None = None) -> str:
        """Return the serial number of the certificate that a gateway serves."""
        trust = context or ssl.create_default_context(cafile=str(self.work / "fleet" / "pki" / "ca.crt"))
        with (
            http.client.socket.create_connection((GATEWAYS[gateway], 443), timeout=30) as plain,
            trust.wrap_socket(plain, server_hostname=GATEWAYS[gateway]) as secured,
        ):
            return str((secured.getpeercert() or {})["serialNumber"])

    @contextmanager
    def load(self) -> Iterator[None]:
        """Have clients ask both gateways meanwhile, by key and by token; no request may fail."""
        credentials = {name: self.work / "clients" / name for name in ("key", "token")}
        bundle = str(self.work / "fleet" / "pki" / "ca.crt")
        clients = Clients(list(GATEWAYS.values()), bundle, "alpha", credentials, pause_seconds=0.5)
        clients.start()
        watch = threading.Event()
        watcher = threading.Thread(target=self._watch_processes, args=(watch,))
        watcher.start()
        try:
            yield
        finally:
            requests = clients.finish()
            watch.set()
            watcher.join()
            failed = [request for request in requests if request.fault is not None]
            slowest = max(request.seconds for request in requests)
            print(f"{len(requests)} requests, {len(failed)} failed, the slowest took {slowest:.1f} s", flush=True)
        assert not failed, failed
        assert len({request.client for request in requests}) == 2 * len(GATEWAYS) * len(credentials)

    def _watch_processes(self, end: threading.Event) -> None:
        """Collect every command line that shows up here or, as containers are processes of this machine, on a host."""
        while not end.is_set():
            for process in Path("/proc").glob("[0-9]*/cmdline"):
                try:
                    self.processes.add(process.read_bytes().replace(b"\0", b" ").decode("utf-8", "replace"))
                except OSError:
                    continue  # it has ended
            end.wait(0.2)


def _distinctive(value: str) -> str:
    """Return a part of a value that no other has: a line from the middle of a key in PEM."""
    lines = [line for line in value.splitlines() if line and not line.startswith("-----")]
    return lines[len(lines) // 2][:40]


# ------------------------------------------------------------------------------------------------- what is shown


def rotate_each(fleet: Fleet) -> None:
    """One after the other, in one run each: afterwards the new is in use everywhere and the old is refused."""
    old_key, old_token = fleet.current("ci_api_key")["value"], (fleet.work / "clients" / "token").read_text()
    old_authority = fleet.current("internal_ca")["certificate"]
    for name in NAMES:
        fleet.rotate(name)
        assert set(fleet.phases().values()) == {"idle"}, f"{name} is through"
    for gateway in GATEWAYS:
        assert fleet.status(gateway, fleet.current("ci_api_key")["value"]) == 200
        assert fleet.status(gateway, (fleet.work / "clients" / "token").read_text()) == 200
        assert fleet.trusted(gateway, fleet.current("internal_ca")["certificate"])
        assert fleet.status(gateway, old_key) == 401, "the old key is refused"
        assert fleet.status(gateway, old_token) == 401, "a token of the old key is refused"
        assert not fleet.trusted(gateway, old_authority), "nothing of the old authority is served"


def renew(fleet: Fleet) -> None:
    """New keys and certificates for every gateway at once; then none, because none is due."""
    before = {gateway: fleet.serial(gateway) for gateway in GATEWAYS}
    fleet.must("playbooks/renew_certificates.yml", "--extra-vars", "renew_certificates_now=true")
    after = {gateway: fleet.serial(gateway) for gateway in GATEWAYS}
    assert not set(before.values()) & set(after.values())
    said = fleet.must("playbooks/renew_certificates.yml")
    assert all(re.search(rf"{gateway} .*changed=0 ", said) for gateway in GATEWAYS)
    assert after == {gateway: fleet.serial(gateway) for gateway in GATEWAYS}


def kill_everywhere(fleet: Fleet, name: str, stride: int) -> None:
    """In every phase, kill each run a step later than the one before, until one takes the secret to the next phase."""
    before = fleet.secrets()[name].current.number
    kills: Counter[str] = Counter()
    phase, steps = "idle", 0
    while True:
        steps += stride
        # What was begun goes on by itself; to name it again would begin another rotation after this one.
        names = (name,) if phase == "idle" else ()
        status, __ = fleet.play("playbooks/rotate_secrets.yml", *fleet.named(names), kill_after=steps)
        assert status in (0, -signal.SIGKILL), f"it ended with {status} by itself"
        kills[phase] += status != 0
        found = fleet.phases()[name]
        if found == "idle" and phase != "idle":
            break
        if found != phase:
            phase, steps = found, 0
    print(f"{name}: killed {kills.total()} times: {dict(kills)}", flush=True)
    secret = fleet.secrets()[name]
    assert (secret.current.number, secret.previous, secret.next) == (before + 1, None, None)
    assert min(kills[known] for known in ("idle", "staging", "promoted", "retiring")) >= 1


def lose_a_gateway(fleet: Fleet) -> None:
    """A consumer that is down postpones retirement, and the run says so; back again, the next run goes on."""
    lost, well = GATEWAYS
    old = fleet.current("ci_api_key")["value"]
    subprocess.run(["docker", "pause", f"gpufleet-{lost}"], check=True, stdout=subprocess.DEVNULL)
    try:
        more = [*fleet.named(("ci_api_key",)), "--extra-vars", "ansible_ssh_timeout=5 rotate_secrets_answer_seconds=20"]
        status, said = fleet.play("playbooks/rotate_secrets.yml", *more)
    finally:
        subprocess.run(["docker", "unpause", f"gpufleet-{lost}"], check=True, stdout=subprocess.DEVNULL)
    assert status == 2
    assert f"acceptance of it is not proven by gateways@{lost}" in said
    assert fleet.status(well, old) == 200, "nothing was taken away"
    fleet.rotate()
    assert fleet.phases()["ci_api_key"] == "idle"
    assert [fleet.status(gateway, old) for gateway in GATEWAYS] == [401, 401]


def rotate_the_registrys_login(fleet: Fleet) -> None:
    """Images can be pulled before, and after with another user; the old one is refused."""
    fleet.must("tests/fleet/rotation/registry.yml")
    fleet.must("tests/fleet/rotation/pull.yml")
    old = fleet.current("registry_login")["username"]
    fleet.rotate("registry_login")
    assert fleet.phases()["registry_login"] == "idle"
    assert fleet.current("registry_login")["username"] != old
    fleet.must("tests/fleet/rotation/pull.yml")
    users = subprocess.run(
        ["docker", "exec", "gpufleet-rotation-engine", "cat", "/etc/docker/registry/users"],
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    assert old not in users
    assert fleet.current("registry_login")["username"] in users


def search(fleet: Fleet) -> None:
    """Look for every value that there ever was, and for private keys that lie open."""
    print(f"{len(fleet.canaries)} canaries, {fleet.runs} runs, {len(fleet.processes)} command lines", flush=True)
    assert len(fleet.canaries) >= 10
    places = [*fleet.work.glob("*.log"), *(fleet.work / "facts").rglob("*"), *(fleet.work / "fleet").rglob("*")]
    texts = {str(path): path.read_text(encoding="utf-8", errors="replace") for path in places if path.is_file()}
    assert sum(len(text) for text in texts.values()) > 1_000_000, "the runs were loud"
    texts["the command lines"] = "\n".join(fleet.processes)
    leaks = [f"{what} in {where}" for where, text in texts.items() for canary, what in _forms(fleet) if canary in text]
    patterns = "\n".join(canary for canary, __ in _forms(fleet))
    script = (
        "cat >/run/canaries; journalctl --no-pager | grep -F -c -f /run/canaries; "
        "grep -r -l -F -f /run/canaries /etc /home /root /srv /tmp /usr/local /var /run "
        "--exclude=canaries --exclude-dir=.docker --exclude-dir=media; rm /run/canaries; echo; "
        # A client of registries keeps its login in a file of its own, as docker login does.
        "find /root/.docker -type f ! -perm 600 2>/dev/null; "
        "grep -r -l --exclude-dir=media -e 'PRIVATE KEY-----' /etc /home /root /srv /tmp /usr/local /var /run "
        "2>/dev/null | xargs --no-run-if-empty stat --format '%a %U %n'"
    )
    for host in HOSTS:
        done = subprocess.run(
            ["docker", "exec", "--interactive", f"gpufleet-{host}", "sh", "-c", script],
            input=patterns,
            capture_output=True,
            text=True,
            check=False,
        )
        found, __, keys = done.stdout.partition("\n\n")
        assert found.splitlines() == ["0"], f"{host}: {found}"
        wanted = {"600 root /etc/gpufleet/pki/gateway.key"} if host in GATEWAYS else set()
        open_keys = {line for line in keys.split("\n") if line and "/etc/ssh/" not in line and "snakeoil" not in line}
        assert open_keys == wanted, f"{host}: {open_keys}"
    assert not leaks, leaks


def _forms(fleet: Fleet) -> list[tuple[str, str]]:
    """Return what to look for: each canary as it is and as base64 would carry it."""
    forms = []
    for canary, what in fleet.canaries.items():
        forms.append((canary, what))
        # Without the ends, which depend on the neighbours.
        forms.extend(
            (base64.b64encode(b" " * shift + canary.encode()).decode()[4:-4], f"{what} in base64") for shift in range(3)
        )
    return forms


def main(work: Path, quick: bool) -> None:
    """Show all of it."""
    begun = time.monotonic()
    fleet = Fleet(work)
    subprocess.run(
        ["ansible-playbook", str(ROOT / "tests/fleet/rotation/prepare.yml")]
        + [word for source in INVENTORY for word in ("--inventory", str(ROOT / source))],
        check=True,
    )
    fleet.remember()

    def step(title: str, show: Callable[[], None]) -> None:
        print(f"\n==> {title} ({time.monotonic() - begun:.0f} s)", flush=True)
        show()

    with fleet.load():
        step("Each secret is rotated", lambda: rotate_each(fleet))
        step("Certificates are renewed at once", lambda: renew(fleet))
        if not quick:
            step("Killed after every step", lambda: kill_everywhere(fleet, "ci_api_key", 1))
            step("Killed at every fifth step of the authority's", lambda: kill_everywhere(fleet, "internal_ca", 5))
    if not quick:
        step("A gateway is down", lambda: lose_a_gateway(fleet))
        step("A registry's login", lambda: rotate_the_registrys_login(fleet))
    step("What leaked", lambda: search(fleet))


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve(), "--quick" in sys.argv[2:])
