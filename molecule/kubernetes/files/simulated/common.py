# SPDX-License-Identifier: Apache-2.0
"""What the stand-ins for kubeadm, kubelet and kubectl share: strictness, certificates by openssl, and calls.

Nothing here is Kubernetes. The programs take the options and files that the real ones take, refuse what those refuse
and some more, and keep the state of a cluster, so that the order of calls and every file can be tested without images.
"""

from __future__ import annotations

import base64
import hashlib
import http.client
import json
import os
import re
import ssl
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

VERSION = Path(__file__).with_name("version").read_text(encoding="utf-8").strip()
KUBERNETES = Path("/etc/kubernetes")
PKI = KUBERNETES / "pki"
MANIFESTS = KUBERNETES / "manifests"
KUBELET = Path("/var/lib/kubelet")
DATA = Path("/var/lib/etcd")
#: Where a member of etcd has its data.
STATE = DATA / "member" / "simulated.json"
FAULTS = Path("/srv/simulated_kubernetes")
#: Where scenarios look for no change: to be asked something is none.
CALLS = Path("/var/log/simulated_kubernetes.calls")
PORT = 6443
TOKEN = re.compile(r"[a-z0-9]{6}\.[a-z0-9]{16}")
KEY = re.compile(r"[0-9a-f]{64}")
#: Python 3.13 insists on what RFC 5280 says of an authority and of what it signs.
CA_EXTENSIONS = "basicConstraints=critical,CA:TRUE\nkeyUsage=critical,keyCertSign,cRLSign"
#: The last two are the stand-in's own choice, so that a change of it shows.
PAUSE = {"1.35": "3.10.1", "1.36": "3.10.2", "1.37": "3.10.3"}
#: What runs of a control plane's static Pods: a file for each, with the container's name and the manifest's digest.
CONTAINERS = Path("/run/simulated-kubernetes/containers")


class SimulatedError(Exception):
    """What makes a stand-in end with status 1."""


class UnreachableError(SimulatedError):
    """Nobody answered."""


def say(text: str) -> None:
    """Print a line at once."""
    print(text, flush=True)


def run(*argv: str, stdin: str | None = None, check: bool = True, env: dict[str, str] | None = None) -> str:
    """Return what a command prints."""
    done = subprocess.run(
        argv,
        input=stdin,
        capture_output=True,
        text=True,
        check=False,
        env=None if env is None else {**os.environ, **env},
    )
    if check and done.returncode != 0:
        raise SimulatedError(f"{argv[0]} {argv[1]} ended with {done.returncode}: {done.stderr.strip()}")
    return done.stdout


def guard(argv: list[str]) -> None:
    """Note the call, and refuse secrets on a command line: everybody on the host can read those."""
    for argument in argv:
        if TOKEN.search(argument) or KEY.search(argument):
            raise SimulatedError("stand-in: a secret stands on the command line")
    with CALLS.open("a", encoding="utf-8") as stream:
        stream.write(" ".join([Path(sys.argv[0]).stem, *argv]) + "\n")


def note(secret: str) -> None:
    """Write down a secret that was made, so that a test can search for it where it should not be."""
    path = FAULTS / "issued"
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    write(path, f"{text}{secret}\n")


def write(path: Path, text: str, mode: int = 0o600) -> None:
    """Write a file with its mode from the beginning."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
    with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
        stream.write(text)
    path.chmod(mode)


def documents(path: Path) -> dict[str, dict[str, Any]]:
    """Read a configuration, by kind. It may hold secrets, so its mode counts."""
    if not path.is_file():
        raise SimulatedError(f"unable to read config from {path}: no such file or directory")
    mode = stat.S_IMODE(path.stat().st_mode)
    if mode != 0o600:
        raise SimulatedError(f"stand-in: {path} has mode {mode:04o}, wanted 0600")
    found = [document for document in yaml.safe_load_all(path.read_text(encoding="utf-8")) if document]
    return {document["kind"]: document for document in found}


def certificate(
    name: str, authority: str | None, subject: str, usage: str = "", names: list[str] | None = None, days: int = 365
) -> None:
    """Make PKI/name.key and PKI/name.crt, signed by PKI/authority or by itself."""
    key, target = PKI / f"{name}.key", PKI / f"{name}.crt"
    target.parent.mkdir(parents=True, exist_ok=True)
    lines = [CA_EXTENSIONS if authority is None else f"extendedKeyUsage={usage}"]
    if names:
        kinds = ["IP" if re.fullmatch(r"[0-9.]+", item) else "DNS" for item in names]
        lines.append("subjectAltName=" + ",".join(f"{kind}:{item}" for kind, item in zip(kinds, names, strict=True)))
    run("openssl", "ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", str(key))
    key.chmod(0o600)
    request = run("openssl", "req", "-new", "-key", str(key), "-subj", subject)
    write(target, sign(request, authority, "\n".join(lines), days, key), 0o644)


def sign(request: str, authority: str | None, extensions: str, days: int = 365, key: Path | None = None) -> str:
    """Return a certificate for a request."""
    with tempfile.TemporaryDirectory() as name:
        csr, ext = Path(name) / "csr", Path(name) / "ext"
        csr.write_text(request, encoding="utf-8")
        identifiers = "subjectKeyIdentifier=hash\n" + ("" if authority is None else "authorityKeyIdentifier=keyid\n")
        ext.write_text(identifiers + extensions, encoding="utf-8")
        own = ["-signkey", str(key)] if authority is None else []
        by = (
            [] if authority is None else ["-CA", str(PKI / f"{authority}.crt"), "-CAkey", str(PKI / f"{authority}.key")]
        )
        serial = ["-set_serial", "0x" + os.urandom(8).hex()]
        return run(
            "openssl", "x509", "-req", "-in", str(csr), "-days", str(days), "-extfile", str(ext), *own, *by, *serial
        )


def image_of(manifest: dict[str, Any]) -> str:
    """Return a static Pod's image."""
    return str(manifest["spec"]["containers"][0]["image"])


def running(component: str) -> tuple[str, str] | None:
    """Return the container's name and its manifest's digest; None where it does not run."""
    try:
        name, digest = (CONTAINERS / component).read_text(encoding="utf-8").split()
    except (FileNotFoundError, ValueError):
        return None
    return name, digest


def digest(path: Path) -> str:
    """Return a file's digest."""
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16]


def numbers(version: str) -> tuple[int, ...]:
    """Return v1.36.4 as numbers."""
    return tuple(int(part) for part in version.removeprefix("v").split("."))


def authority_hash(text: str) -> str:
    """Return the digest that kubeadm calls discovery-token-ca-cert-hash."""
    public = run("openssl", "x509", "-pubkey", "-noout", stdin=text)
    with tempfile.NamedTemporaryFile() as der:
        run("openssl", "pkey", "-pubin", "-outform", "der", "-out", der.name, stdin=public)
        return "sha256:" + hashlib.sha256(Path(der.name).read_bytes()).hexdigest()


def kubeconfig(server: str, certificate_text: str, key_text: str) -> str:
    """Return credentials as kubeadm writes them."""

    def packed(text: str) -> str:
        return base64.b64encode(text.encode()).decode()

    authority = (PKI / "ca.crt").read_text(encoding="utf-8")
    return yaml.safe_dump(
        {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [
                {"name": "kubernetes", "cluster": {"server": server, "certificate-authority-data": packed(authority)}}
            ],
            "users": [
                {
                    "name": "user",
                    "user": {"client-certificate-data": packed(certificate_text), "client-key-data": packed(key_text)},
                }
            ],
            "contexts": [{"name": "user", "context": {"cluster": "kubernetes", "user": "user"}}],
            "current-context": "user",
        }
    )


def connect(server: str, context: ssl.SSLContext, timeout: float = 20) -> http.client.HTTPSConnection:
    """Open a connection to an API server, https://host:port."""
    return http.client.HTTPSConnection(server.removeprefix("https://"), context=context, timeout=timeout)


def ask(
    connection: http.client.HTTPSConnection, body: dict[str, Any] | None, path: str, token: str | None = None
) -> Any:
    """Ask the stand-in API server."""
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    try:
        if body is None:
            connection.request("GET", path, headers=headers)
        else:
            connection.request("POST", path, json.dumps(body), headers)
        answer = connection.getresponse()
        text = answer.read().decode()
    except (OSError, http.client.HTTPException) as fault:
        raise UnreachableError(
            f"The connection to the server {connection.host}:{connection.port} was refused: {fault}"
        ) from fault
    finally:
        connection.close()
    if answer.status != 200:
        raise SimulatedError(text)
    return json.loads(text) if body is not None else text


def patiently(action: Callable[[], Any], seconds: float) -> Any:
    """Do something again, for so long, while no API server answers."""
    end = time.monotonic() + seconds
    while True:
        try:
            return action()
        except UnreachableError:
            if time.monotonic() > end:
                raise
            time.sleep(0.5)


class Client:
    """Calls with the credentials of a kubeconfig."""

    def __init__(self, path: Path) -> None:
        if not path.is_file():
            raise SimulatedError(f"stat {path}: no such file or directory")
        if stat.S_IMODE(path.stat().st_mode) & 0o077:
            raise SimulatedError(f"stand-in: {path} is readable for others")
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
        cluster, user = content["clusters"][0]["cluster"], content["users"][0]["user"]
        self.server = cluster["server"]
        authority = base64.b64decode(cluster["certificate-authority-data"]).decode()
        self.context = ssl.create_default_context(cadata=authority)
        with tempfile.NamedTemporaryFile("wb") as pair:
            pair.write(base64.b64decode(user["client-certificate-data"]) + base64.b64decode(user["client-key-data"]))
            pair.flush()
            self.context.load_cert_chain(pair.name)

    #: kubeadm asks again for a while; kubectl does not.
    patience = 0.0

    def call(self, operation: str, **arguments: Any) -> Any:
        """Do something."""
        document = {"operation": operation, **arguments}
        return patiently(lambda: ask(connect(self.server, self.context), document, "/simulated"), self.patience)

    def answers(self) -> bool:
        """Whether the API server takes a request."""
        try:
            return self.raw("/readyz") == "ok"
        except SimulatedError:
            return False

    def raw(self, path: str) -> str:
        """Read a path."""
        return str(ask(connect(self.server, self.context), None, path))


def main(function: Any) -> None:
    """Run a stand-in's main function."""
    try:
        guard(sys.argv[1:])
        function(sys.argv[1:])
    except SimulatedError as fault:
        print(f"error: {fault}", file=sys.stderr, flush=True)
        sys.exit(1)
