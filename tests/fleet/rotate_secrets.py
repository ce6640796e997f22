# SPDX-License-Identifier: Apache-2.0
"""Every kind of rotation that gateways have, under load through two of them; killed and continued; and what leaked.

    python tests/fleet/rotate_secrets.py WORK_DIRECTORY [--quick]

Real are the playbooks, the store, NGINX with njs (Debian 13) and with the verifier of our own (Debian 12), TLS, the
internal authority, Debian's registry, the container engine that pulls from it, and the load, plain and streaming, by
API key and by token. The engine behind the gateways is a dummy.

Every value that the store ever held is a canary: whatever the runs wrote, on this machine and on every host, is
searched for each of them. ``--quick`` leaves out what takes long: to kill runs, a registry, a leak, a lost gateway.
"""

from __future__ import annotations

import base64
import http.client
import json
import re
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import killed
import stored
from clients import Clients
from fleet import ROOT, Fleet, variables

from ansible_collections.gpufleet.metal.plugins.module_utils._secrets.document import Secret

INVENTORY = [
    ROOT / "tools" / "sandbox" / "connection.yml",
    ROOT / "tests" / "fleet" / "rotation" / "hosts.yml",
    ROOT / "tests" / "fleet" / "rotation" / "clients.yml",
]
ENGINE = "rotation-engine"
NAMES = ("ci_api_key", "token_key", "internal_ca")
ROTATE = "playbooks/rotate_secrets.yml"

#: Asks the registry with a login, told on the standard input so that it is on no command line; prints the status.
ASK_REGISTRY = """
import base64, json, sys, urllib.error, urllib.request
login = json.load(sys.stdin)
word = base64.b64encode(f"{login['username']}:{login['password']}".encode()).decode()
request = urllib.request.Request("http://localhost:5000/v2/", headers={"Authorization": f"Basic {word}"})
try:
    print(urllib.request.urlopen(request, timeout=30).status)
except urllib.error.HTTPError as error:
    print(error.code)
"""


class RotatingFleet(Fleet):
    """The gateways and their store; every run is as loud as can be, and what it holds is remembered."""

    def __init__(self, work: Path) -> None:
        super().__init__(INVENTORY, work)
        self.gateways = self.hosts("gateways")
        self.canaries: dict[str, str] = {}
        self.processes: set[str] = set()
        self.runs = 0

    # ------------------------------------------------------------------------------------------------- runs

    def run(self, playbook: str, *more: str, kill_after: int = 0) -> tuple[int, str]:
        """Run a playbook as loudly as can be; return its status and what it printed."""
        self.runs += 1
        environment = {
            **killed.environment(kill_after),
            "ANSIBLE_LOG_PATH": str(self.work / "ansible.log"),
            "ANSIBLE_LOCAL_TEMP": str(self.work / "local"),
            "ANSIBLE_CACHE_PLUGIN": "jsonfile",
            "ANSIBLE_CACHE_PLUGIN_CONNECTION": str(self.work / "facts"),
        }
        with open(self.work / f"run-{self.runs:03}.log", "w+", encoding="utf-8") as log:
            run = subprocess.Popen(
                [*self.command(playbook, *more), "-vvv", "--diff"],
                stdout=log,
                stderr=subprocess.STDOUT,
                env=environment,
                start_new_session=True,
                text=True,
            )
            status = run.wait()
            log.seek(0)
            said = log.read()
        self.remember()
        return status, said

    def rotate(self, *names: str, **more: Any) -> str:
        """Rotate these secrets, as far as it goes."""
        return self.play(ROTATE, *variables(rotate_secrets_names=names, **more))

    # ------------------------------------------------------------------------------------------------ store

    def secrets(self) -> Mapping[str, Secret]:
        """Return what is in the store."""
        return stored.secrets(self.work)

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

    # ---------------------------------------------------------------------------------------------- outside

    def sent(self, name: str) -> Any:
        """Return what is sent now of a secret, or shown: a token is signed with its key."""
        if name == "token_key":
            return (self.work / "clients" / "token").read_text()
        value = self.secrets()[name].current.value
        return {"ci_api_key": value.get("value"), "internal_ca": value.get("certificate")}.get(name, value)

    def statuses(self, credential: str) -> list[int]:
        """Ask each gateway who one is, trusting whom clients are to trust."""
        return [self._status(gateway, credential) for gateway in self.gateways]

    def _status(self, gateway: str, credential: str) -> int:
        context = ssl.create_default_context(cafile=str(self.work / "fleet" / "pki" / "ca.crt"))
        connection = http.client.HTTPSConnection(self.address(gateway), 443, context=context, timeout=30)
        try:
            connection.request("GET", "/v1/models", headers={"Authorization": f"Bearer {credential}"})
            return connection.getresponse().status
        finally:
            connection.close()

    def serials(self) -> dict[str, str]:
        """Return the serial number of the certificate that each gateway serves."""
        trust = ssl.create_default_context(cafile=str(self.work / "fleet" / "pki" / "ca.crt"))
        return {gateway: stored.serial(self.address(gateway), trust) for gateway in self.gateways}

    def taken(self, name: str, what: Any) -> set[bool]:
        """Return whether something that was or is sent is taken, by everybody who judges it."""
        if name == "internal_ca":
            return {stored.believed(self.address(gateway), what) for gateway in self.gateways}
        if name == "registry_login":
            answers = {int(self.inside(ENGINE, "python3", "-c", ASK_REGISTRY, told=json.dumps(dict(what))))}
        else:
            answers = set(self.statuses(what))
        assert answers <= {200, 401}, answers
        return {answer == 200 for answer in answers}

    def files(self) -> dict[str, set[str]]:
        """Return what lies where rotations write, by host: kind, mode, owner and path of each."""
        script = (
            "find /etc /usr/local /root /home /srv /tmp -xdev ! -path '/tmp/systemd-private-*' -printf '%M %u:%g %p\\n'"
        )
        return {host: set(self.inside(host, "sh", "-c", script).splitlines()) for host in (ENGINE, *self.gateways)}

    @contextmanager
    def replaced(self, name: str, times: int = 1) -> Iterator[None]:
        """Have a secret rotated meanwhile, so often and to the end: the new is taken everywhere, the old nowhere."""
        before, files, old = self.secrets()[name].current.number, self.files(), self.sent(name)
        yield
        secret = self.secrets()[name]
        assert set(self.phases().values()) == {"idle"}, self.phases()
        assert (secret.current.number, secret.previous, secret.next) == (before + times, None, None)
        assert self.taken(name, self.sent(name)) == {True}
        assert self.taken(name, old) == {False}, f"the old {name} is refused"
        if name == "registry_login":
            self.play("tests/fleet/rotation/pull.yml")
        left = {host: found ^ files[host] for host, found in self.files().items() if found != files[host]}
        assert not left, f"{name}: files that came, went or changed their mode: {left}"

    @contextmanager
    def load(self) -> Iterator[None]:
        """Have clients ask both gateways meanwhile, by key and by token; no request may fail."""
        credentials = {name: self.work / "clients" / name for name in ("key", "token")}
        bundle = str(self.work / "fleet" / "pki" / "ca.crt")
        addresses = [self.address(gateway) for gateway in self.gateways]
        watch = threading.Event()
        watcher = threading.Thread(target=self._watch_processes, args=(watch,))
        watcher.start()
        try:
            with Clients(addresses, bundle, "alpha", credentials, pause_seconds=0.5).asking():
                yield
        finally:
            watch.set()
            watcher.join()

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


def rotate_each(fleet: RotatingFleet) -> None:
    """One after the other, in one run each: afterwards the new is in use everywhere and the old is refused."""
    for name in NAMES:
        with fleet.replaced(name):
            fleet.rotate(name)


def renew(fleet: RotatingFleet) -> None:
    """New keys and certificates for every gateway at once; then none, because none is due."""
    before = fleet.serials()
    fleet.play("playbooks/renew_certificates.yml", *variables(renew_certificates_now=True))
    after = fleet.serials()
    assert not set(before.values()) & set(after.values())
    said = fleet.play("playbooks/renew_certificates.yml")
    assert all(re.search(rf"{gateway} .*changed=0 ", said) for gateway in fleet.gateways)
    assert after == fleet.serials()


def hurry(fleet: RotatingFleet) -> None:
    """A key that leaked while it was rotated: no overlap is waited for, and the new one, which may be it, goes too."""
    old = fleet.sent("ci_api_key")
    with fleet.replaced("ci_api_key", times=2):
        assert "the old value is retired after" in fleet.rotate("ci_api_key", rotation_overlap_hours=24)
        assert fleet.phases()["ci_api_key"] == "promoted"
        assert fleet.taken("ci_api_key", old) == {True}, "clients have time"
        found = fleet.sent("ci_api_key")
        fleet.rotate("ci_api_key", rotation_overlap_hours=24, rotate_secrets_emergency=True)
        assert fleet.taken("ci_api_key", found) == {False}, "what the emergency found in use is refused"


def kill_everywhere(fleet: RotatingFleet, name: str) -> None:
    """Kill its rotation after every step in turn."""

    def run(names: Sequence[str], steps: int) -> tuple[int, str]:
        return fleet.run(ROTATE, *variables(rotate_secrets_names=names), kill_after=steps)

    with fleet.replaced(name):
        killed.kill_everywhere(name, fleet.work, run)


def rotate_the_registrys_login(fleet: RotatingFleet) -> None:
    """Images can be pulled before, and after with another user; the old one is refused."""
    fleet.play("tests/fleet/rotation/registry.yml")
    fleet.play("tests/fleet/rotation/pull.yml")
    with fleet.replaced("registry_login"):
        fleet.rotate("registry_login")
    users = fleet.inside(ENGINE, "cat", "/etc/docker/registry/users").splitlines()
    assert [line.partition(":")[0] for line in users] == [fleet.sent("registry_login")["username"]]


def lose_a_gateway(fleet: RotatingFleet) -> None:
    """A consumer that is down postpones retirement, and the run says so; back again, the next run goes on."""
    lost, __ = fleet.gateways
    old = fleet.sent("ci_api_key")
    with fleet.replaced("ci_api_key"):
        subprocess.run(["docker", "pause", f"gpufleet-{lost}"], check=True, stdout=subprocess.DEVNULL)
        try:
            more = {"ansible_ssh_timeout": 5, "rotate_secrets_answer_seconds": 20}
            said = fleet.play(ROTATE, *variables(rotate_secrets_names=["ci_api_key"], **more), status=2)
        finally:
            subprocess.run(["docker", "unpause", f"gpufleet-{lost}"], check=True, stdout=subprocess.DEVNULL)
        assert f"acceptance of it is not proven by gateways@{lost}" in said
        assert fleet.taken("ci_api_key", old) == {True}, "nothing was taken away"
        fleet.rotate()


def search(fleet: RotatingFleet) -> None:
    """Look for every value that there ever was, and for private keys that lie open."""
    forms = _forms(fleet)
    patterns = "\n".join(forms)
    assert len(fleet.canaries) >= 10
    # What this machine wrote: what the runs printed and logged, their facts, plans and temporary files.
    places = [*fleet.work.glob("*.log"), *(fleet.work / name for name in ("facts", "fleet"))]
    places += [place for place in (fleet.work / "local", Path.home() / ".ansible" / "tmp") if place.exists()]
    size = sum(path.stat().st_size for path in fleet.work.rglob("*") if path.is_file())
    assert size > 1_000_000, "the runs were loud"
    print(
        f"{len(fleet.canaries)} canaries, {fleet.runs} runs that wrote {size / 1e6:.0f} MB, "
        f"{len(fleet.processes)} command lines",
        flush=True,
    )
    found = subprocess.run(
        ["grep", "-r", "-o", "-F", "-f", "-", *map(str, places)],
        input=patterns,
        capture_output=True,
        text=True,
        check=False,
    )
    assert found.returncode in (0, 1), found.stderr
    leaks = [f"{forms[word]} in {where}" for where, __, word in (line.partition(":") for line in found.stdout.split())]
    commands = "\n".join(fleet.processes)
    leaks += [f"{what} in a command line" for word, what in forms.items() if word in commands]
    script = (
        "cat >/run/canaries; journalctl --no-pager | grep -F -c -f /run/canaries; "
        "grep -r -l -F -f /run/canaries /etc /home /root /srv /tmp /usr/local /var /run "
        "--exclude=canaries --exclude-dir=.docker --exclude-dir=media; rm /run/canaries; echo; "
        # A client of registries keeps its login in a file of its own, as docker login does.
        "find /root/.docker -type f ! -perm 600 2>/dev/null; "
        "grep -r -l --exclude-dir=media -e 'PRIVATE KEY-----' /etc /home /root /srv /tmp /usr/local /var /run "
        "2>/dev/null | xargs --no-run-if-empty stat --format '%a %U %n'; true"
    )
    for host in (ENGINE, *fleet.gateways):
        found_there, __, keys = fleet.inside(host, "sh", "-c", script, told=patterns).partition("\n\n")
        if found_there.splitlines() != ["0"]:
            leaks.append(f"{host}: {found_there}")
        wanted = {"600 root /etc/gpufleet/pki/gateway.key"} if host in fleet.gateways else set()
        open_keys = {line for line in keys.split("\n") if line and "/etc/ssh/" not in line and "snakeoil" not in line}
        assert open_keys == wanted, f"{host}: {open_keys}"
    assert not leaks, sorted(set(leaks))


def _forms(fleet: RotatingFleet) -> dict[str, str]:
    """Return what to look for, and what it is: each canary as it is and as base64 would carry it."""
    forms = {}
    for canary, what in fleet.canaries.items():
        forms[canary] = what
        for shift in range(3):
            # Without the ends, which depend on the neighbours.
            forms[base64.b64encode(b" " * shift + canary.encode()).decode()[4:-4]] = f"{what} in base64"
    return forms


def main(work: Path, quick: bool) -> None:
    """Show all of it."""
    begun = time.monotonic()
    fleet = RotatingFleet(work)
    subprocess.run(fleet.command("tests/fleet/rotation/prepare.yml"), check=True)
    fleet.remember()

    def step(title: str, show: Callable[[], None]) -> None:
        print(f"\n==> {title} ({time.monotonic() - begun:.0f} s)", flush=True)
        show()

    with fleet.load():
        step("Each secret is rotated", lambda: rotate_each(fleet))
        step("Certificates are renewed at once", lambda: renew(fleet))
        if not quick:
            step("A key leaked", lambda: hurry(fleet))
            step("A registry's login", lambda: rotate_the_registrys_login(fleet))
            for name in (*NAMES, "registry_login"):
                step(f"Killed after every step: {name}", partial(kill_everywhere, fleet, name))
    if not quick:
        step("A gateway is down", lambda: lose_a_gateway(fleet))
    step("What leaked", lambda: search(fleet))
    print(f"\n==> All of it took {time.monotonic() - begun:.0f} s", flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve(), "--quick" in sys.argv[2:])
