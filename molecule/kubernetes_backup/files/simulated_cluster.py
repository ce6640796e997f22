# SPDX-License-Identifier: Apache-2.0
"""Stand-ins for kubeadm, kubelet, kubectl and the API server, over a real etcd: which one, its own name says.

None of it is Kubernetes. kubeadm makes real keys and the manifests of two static Pods, kubelet runs the first of them,
etcd, for real and the second as a stand-in. That one keeps Secrets and nodes in etcd where an API server keeps them,
refuses an update of an old version, reads its encryption configuration anew while it runs, and writes with the first
key and reads with each: the form of what it writes is the API server's, the cipher is not.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import http.client
import http.server
import json
import os
import secrets
import signal
import ssl
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import yaml

KUBERNETES = Path("/etc/kubernetes")
MANIFESTS = KUBERNETES / "manifests"
PKI = KUBERNETES / "pki"
DATA = Path("/var/lib/etcd")
ENCRYPTION = KUBERNETES / "gpufleet" / "encryption.yaml"
IGNORED = "--ignore-preflight-errors=DirAvailable--var-lib-etcd"


class SimulatedError(Exception):
    """What a stand-in says when it refuses."""


def run(*argv: str, stdin: str | None = None) -> str:
    done = subprocess.run(argv, input=stdin, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise SimulatedError(f"{' '.join(argv[:3])}: {done.stderr.strip()}")
    return done.stdout


def encoded(data: bytes) -> str:
    return base64.b64encode(data).decode()


# -- etcd and what lies in it --


class Etcd:
    """The local member, by its JSON gateway; one connection for each thread."""

    def __init__(self) -> None:
        self.context = ssl.create_default_context(cafile=str(PKI / "etcd" / "ca.crt"))
        self.context.load_cert_chain(PKI / "apiserver-etcd-client.crt", PKI / "apiserver-etcd-client.key")

    def ask(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        connection = http.client.HTTPSConnection("127.0.0.1", 2379, context=self.context, timeout=5)
        try:
            connection.request("POST", f"/v3/kv/{path}", json.dumps(body))
            answer = connection.getresponse()
            found: dict[str, Any] = json.loads(answer.read())
        finally:
            connection.close()
        if answer.status != 200:
            raise SimulatedError(str(found))
        return found

    def get(self, key: str) -> tuple[bytes, int] | None:
        items = self.ask("range", {"key": encoded(key.encode())}).get("kvs", [])
        return (base64.b64decode(items[0]["value"]), int(items[0]["mod_revision"])) if items else None

    def below(self, prefix: str) -> list[tuple[str, bytes, int]]:
        end = prefix[:-1] + chr(ord(prefix[-1]) + 1)
        items = self.ask("range", {"key": encoded(prefix.encode()), "range_end": encoded(end.encode())}).get("kvs", [])
        return [
            (base64.b64decode(i["key"]).decode(), base64.b64decode(i["value"]), int(i["mod_revision"])) for i in items
        ]

    def put(self, key: str, value: bytes, revision: int) -> bool:
        """Write, if the key has still this revision (0: is not there)."""
        name = encoded(key.encode())
        compare = {"key": name, "target": "MOD", "mod_revision": str(revision), "result": "EQUAL"}
        success = [{"request_put": {"key": name, "value": encoded(value)}}]
        return bool(self.ask("txn", {"compare": [compare], "success": success}).get("succeeded"))

    def delete(self, key: str) -> None:
        self.ask("deleterange", {"key": encoded(key.encode())})


class Keys:
    """The encryption configuration that is loaded now."""

    def __init__(self) -> None:
        self.digest = ""
        self.names: list[str] = []
        self.secrets: dict[str, bytes] = {}
        self.load()

    def load(self) -> None:
        if not ENCRYPTION.exists():
            return
        text = ENCRYPTION.read_bytes()
        providers = yaml.safe_load(text)["resources"][0]["providers"]
        keys = providers[0]["secretbox"]["keys"]
        self.names = [key["name"] for key in keys]
        self.secrets = {key["name"]: base64.b64decode(key["secret"]) for key in keys}
        self.digest = hashlib.sha256(text).hexdigest()

    def stream(self, key: bytes, nonce: bytes, size: int) -> bytes:
        blocks = (hashlib.sha256(key + nonce + number.to_bytes(8, "big")).digest() for number in range(size // 32 + 1))
        return b"".join(blocks)[:size]

    def seal(self, plain: bytes) -> bytes:
        if not self.names:
            return b"k8s\x00" + plain
        name, nonce = self.names[0], secrets.token_bytes(24)
        key = self.secrets[name]
        sealed = bytes(a ^ b for a, b in zip(plain, self.stream(key, nonce, len(plain)), strict=True))
        mark = hmac.digest(key, nonce + sealed, "sha256")
        return f"k8s:enc:secretbox:v1:{name}:".encode() + nonce + mark + sealed

    def open(self, value: bytes) -> tuple[bytes, bool]:
        """Return what is in a value, and whether it is to be written anew."""
        if value.startswith(b"k8s\x00"):
            return value[4:], bool(self.names)
        name = value.split(b":", 5)[4].decode()
        if name not in self.secrets:
            raise SimulatedError(f"no matching key was found for the provided Secretbox transformer ({name})")
        rest = value[len(f"k8s:enc:secretbox:v1:{name}:") :]
        nonce, mark, sealed = rest[:24], rest[24:56], rest[56:]
        key = self.secrets[name]
        if not hmac.compare_digest(mark, hmac.digest(key, nonce + sealed, "sha256")):
            raise SimulatedError("output array was not large enough for encryption")
        return bytes(
            a ^ b for a, b in zip(sealed, self.stream(key, nonce, len(sealed)), strict=True)
        ), name != self.names[0]


# -- the API server --


class RefusedError(Exception):
    """An answer that is a Status."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class Store:
    """Secrets and nodes in etcd."""

    def __init__(self) -> None:
        self.etcd = Etcd()
        self.keys = Keys()

    def watch(self) -> None:
        while True:
            time.sleep(1)
            self.keys.load()

    def place(self, path: str) -> tuple[str, str]:
        """Return kind and key of a path."""
        words = path.strip("/").split("/")
        if words[:3] == ["api", "v1", "nodes"]:
            return "Node", "/registry/minions/" + "/".join(words[3:])
        if words[:3] == ["api", "v1", "namespaces"] and words[4:5] == ["secrets"]:
            return "Secret", f"/registry/secrets/{words[3]}/" + "/".join(words[5:])
        raise RefusedError(404, "404 page not found")

    def read(self, kind: str, key: str) -> tuple[dict[str, Any], int, bool]:
        found = self.etcd.get(key)
        if found is None:
            raise RefusedError(404, f"{kind} {key} not found")
        value, revision = found
        plain, stale = self.keys.open(value) if kind == "Secret" else (value, False)
        document = json.loads(plain)
        document["metadata"]["resourceVersion"] = str(revision)
        return document, revision, stale

    def answer(self, method: str, path: str, body: Any) -> dict[str, Any]:
        kind, key = self.place(path)
        if method == "GET":
            return self.read(kind, key)[0]
        if method == "DELETE":
            found = self.read(kind, key)[0]
            self.etcd.delete(key)
            return found
        revision = 0
        if method == "POST":
            key += body["metadata"]["name"]
        else:
            old, revision, stale = self.read(kind, key)
            if body["metadata"].get("resourceVersion") not in (None, str(revision)):
                raise RefusedError(409, "the object has been modified; please apply your changes to the latest version")
            if not stale and {**body, "metadata": {**body["metadata"], "resourceVersion": str(revision)}} == old:
                return old
        about = {name: value for name, value in body["metadata"].items() if name != "resourceVersion"}
        plain = json.dumps({**body, "metadata": about}).encode()
        if not self.etcd.put(key, self.keys.seal(plain) if kind == "Secret" else plain, revision):
            raise RefusedError(409, "the object has been modified or is there")
        return self.read(kind, key)[0]


class Handler(http.server.BaseHTTPRequestHandler):
    """Answers; the class has the store."""

    protocol_version = "HTTP/1.1"
    store: Store

    def log_message(self, *arguments: Any) -> None:
        """Nothing."""

    def reply(self, status: int, text: str) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(text.encode())))
        self.end_headers()
        self.wfile.write(text.encode())

    def handle_any(self) -> None:
        path = self.path.split("?")[0]
        length = int(self.headers.get("Content-Length") or 0)
        body = json.loads(self.rfile.read(length)) if length else None
        try:
            if path in ("/readyz", "/livez"):
                self.store.etcd.get("health")
                self.reply(200, "ok")
            elif not self.connection.getpeercert():  # type: ignore[attr-defined]
                self.reply(401, json.dumps({"kind": "Status", "message": "Unauthorized"}))
            elif path == "/metrics":
                name = "apiserver_encryption_config_controller_last_config_info"
                label = f'apiserver_id_hash="sha256:0",hash="sha256:{self.store.keys.digest}"'
                self.reply(200, f"{name}{{{label}}} 1\n" if self.store.keys.digest else "none 0\n")
            else:
                self.reply(200, json.dumps(self.store.answer(self.command, path, body)))
        except RefusedError as fault:
            self.reply(fault.status, json.dumps({"kind": "Status", "message": str(fault)}))
        except (SimulatedError, OSError, http.client.HTTPException) as fault:
            self.reply(500, json.dumps({"kind": "Status", "message": f"Internal error occurred: {fault}"}))

    do_GET = do_POST = do_PUT = do_DELETE = handle_any  # noqa: N815


class Server(http.server.ThreadingHTTPServer):
    """Shakes hands in the thread of the request."""

    daemon_threads = True
    context: ssl.SSLContext

    def finish_request(self, request: Any, client_address: Any) -> None:
        request.settimeout(20)
        try:
            wrapped = self.context.wrap_socket(request, server_side=True)
        except (OSError, ssl.SSLError):
            return
        super().finish_request(wrapped, client_address)  # type: ignore[arg-type]
        wrapped.close()


def serve_api() -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(PKI / "apiserver.crt", PKI / "apiserver.key")
    context.load_verify_locations(PKI / "ca.crt")
    context.verify_mode = ssl.CERT_OPTIONAL
    Handler.store = Store()
    threading.Thread(target=Handler.store.watch, daemon=True).start()
    server = Server(("0.0.0.0", 6443), Handler)
    server.context = context
    server.serve_forever()


# -- kubeadm --


def certificate(
    name: str, ca: str | None, subject: str, usage: str = "", names: tuple[str, ...] = (), at: Path = PKI
) -> None:
    """Make a key and a certificate."""
    key, path = at / f"{name}.key", at / f"{name}.crt"
    path.parent.mkdir(parents=True, exist_ok=True)
    key.write_text(run("openssl", "ecparam", "-name", "prime256v1", "-genkey", "-noout"))
    key.chmod(0o600)
    if ca is None:
        # As kubeadm's: Python 3.13 refuses an authority without them.
        added = ("basicConstraints=critical,CA:TRUE", "keyUsage=critical,digitalSignature,keyEncipherment,keyCertSign")
        extensions = [item for line in added for item in ("-addext", line)]
        argv = ["openssl", "req", "-x509", "-new", "-key", str(key), "-subj", subject, "-days", "3650", *extensions]
        run(*argv, "-out", str(path))
        return
    shown = ",".join(f"IP:{item}" if item[:1].isdigit() else f"DNS:{item}" for item in names)
    lines = [f"extendedKeyUsage={usage}", "authorityKeyIdentifier=keyid", "basicConstraints=critical,CA:FALSE"]
    lines += [f"subjectAltName={shown}"] if shown else []
    request = run("openssl", "req", "-new", "-key", str(key), "-subj", subject)
    file = Path(f"/run/{secrets.token_hex(4)}.ext")
    file.write_text("\n".join(lines) + "\n")
    signed = ("-CA", str(PKI / f"{ca}.crt"), "-CAkey", str(PKI / f"{ca}.key"), "-CAcreateserial", "-days", "365")
    path.write_text(run("openssl", "x509", "-req", *signed, "-extfile", str(file), stdin=request))
    file.unlink()


def kubeconfig(name: str, subject: str, server: str) -> None:
    certificate("tmp", "ca", subject, "clientAuth", at=Path("/run"))
    text = {key: encoded(Path(f"/run/tmp.{end}").read_bytes()) for key, end in (("certificate", "crt"), ("key", "key"))}
    document = {
        "clusters": [
            {"cluster": {"server": server, "certificate-authority-data": encoded((PKI / "ca.crt").read_bytes())}}
        ],
        "users": [{"user": {"client-certificate-data": text["certificate"], "client-key-data": text["key"]}}],
    }
    (KUBERNETES / name).write_text(json.dumps(document))
    (KUBERNETES / name).chmod(0o600)


def enter(node: str, address: str, endpoint: str, cluster: str, state: str) -> None:
    """What init and join have in common."""
    MANIFESTS.mkdir(parents=True, exist_ok=True)
    for name in ("ca", "front-proxy-ca", "etcd/ca"):
        if not (PKI / f"{name}.key").exists():
            certificate(name, None, f"/CN={name.replace('/', '-')}")
    if not (PKI / "sa.key").exists():
        (PKI / "sa.key").write_text(run("openssl", "ecparam", "-name", "prime256v1", "-genkey", "-noout"))
        (PKI / "sa.pub").write_text(run("openssl", "pkey", "-in", str(PKI / "sa.key"), "-pubout"))
    certificate("apiserver", "ca", "/CN=kube-apiserver", "serverAuth", (node, address, endpoint.rpartition(":")[0]))
    for name in ("etcd/server", "etcd/peer"):
        certificate(name, "etcd/ca", f"/CN={node}", "serverAuth,clientAuth", (node, address, "127.0.0.1"))
    certificate("apiserver-etcd-client", "etcd/ca", "/CN=kube-apiserver-etcd-client", "clientAuth")

    kubeconfig("admin.conf", "/O=kubeadm:cluster-admins/CN=kubernetes-admin", f"https://{endpoint}")
    kubeconfig("kubelet.conf", f"/O=system:nodes/CN=system:node:{node}", f"https://{address}:6443")
    told = {
        "name": node,
        "data-dir": str(DATA),
        "listen-client-urls": f"https://127.0.0.1:2379,https://{address}:2379",
        "advertise-client-urls": f"https://{address}:2379",
        "listen-peer-urls": f"https://{address}:2380",
        "initial-advertise-peer-urls": f"https://{address}:2380",
        "initial-cluster": cluster,
        "initial-cluster-state": state,
        "client-cert-auth": "true",
        "trusted-ca-file": str(PKI / "etcd/ca.crt"),
        "cert-file": str(PKI / "etcd/server.crt"),
        "key-file": str(PKI / "etcd/server.key"),
        "peer-client-cert-auth": "true",
        "peer-trusted-ca-file": str(PKI / "etcd/ca.crt"),
        "peer-cert-file": str(PKI / "etcd/peer.crt"),
        "peer-key-file": str(PKI / "etcd/peer.key"),
    }
    manifest("etcd", "registry.k8s.io/etcd:3.5.16-0", ["etcd", *(f"--{name}={value}" for name, value in told.items())])
    manifest("kube-apiserver", "registry.k8s.io/kube-apiserver:v1.35.9", ["kube-apiserver", f"--node={node}"])
    run("systemctl", "restart", "kubelet.service")


def manifest(name: str, image: str, command: list[str]) -> None:
    spec = {"containers": [{"name": name, "image": image, "command": command}]}
    text = yaml.safe_dump({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec})
    (MANIFESTS / f"{name}.yaml").write_text(text)
    (MANIFESTS / f"{name}.yaml").chmod(0o600)


def kubeadm(argv: list[str]) -> None:
    if argv[:3] == ["config", "images", "list"]:
        print("registry.k8s.io/etcd:3.5.16-0")
    elif argv[:2] == ["config", "validate"]:
        list(yaml.safe_load_all(Path(argv[3]).read_text()))
    elif argv[:1] == ["init"]:
        found = {item["kind"]: item for item in yaml.safe_load_all(Path(argv[argv.index("--config") + 1]).read_text())}
        if (MANIFESTS / "etcd.yaml").exists():
            raise SimulatedError("[ERROR FileAvailable]: /etc/kubernetes/manifests/etcd.yaml already exists")
        if DATA.is_dir() and any(DATA.iterdir()) and IGNORED not in argv:
            raise SimulatedError("[ERROR DirAvailable--var-lib-etcd]: /var/lib/etcd is not empty")
        node = found["InitConfiguration"]["nodeRegistration"]["name"]
        address = found["InitConfiguration"]["localAPIEndpoint"]["advertiseAddress"]
        endpoint = found["ClusterConfiguration"]["controlPlaneEndpoint"]
        enter(node, address, endpoint, f"{node}=https://{address}:2380", "new")
    elif argv[:1] == ["join"]:
        # Not as kubeadm's: the keys are there, and the member is let in by this.
        node, address, endpoint, living = argv[1:5]
        client = [f"--cacert={PKI}/etcd/ca.crt", f"--cert={PKI}/etcd/join.crt", f"--key={PKI}/etcd/join.key"]
        certificate("etcd/join", "etcd/ca", "/CN=join", "clientAuth")
        # As kubeadm, which asks for minutes: the member before may still be on its way.
        end = time.monotonic() + 60
        while True:
            try:
                out = run(
                    "etcdctl",
                    f"--endpoints=https://{living}:2379",
                    *client,
                    "member",
                    "add",
                    node,
                    f"--peer-urls=https://{address}:2380",
                )
                break
            except SimulatedError:
                if time.monotonic() > end:
                    raise
                time.sleep(1)
        cluster = next(line for line in out.splitlines() if line.startswith("ETCD_INITIAL_CLUSTER=")).split("=", 1)[1]
        enter(node, address, endpoint, cluster.strip('"'), "existing")
    elif argv[:1] == ["reset"]:
        run("systemctl", "stop", "kubelet.service")
        for directory in (MANIFESTS, PKI, DATA):
            for path in sorted(directory.rglob("*"), reverse=True) if directory.is_dir() else []:
                path.rmdir() if path.is_dir() else path.unlink()
        for path in KUBERNETES.glob("*.conf"):
            path.unlink()
    else:
        raise SimulatedError(f"stand-in: unknown command {argv}")


# -- kubelet --


class Kubelet:
    """Runs what the manifests say."""

    def __init__(self) -> None:
        self.running: dict[str, tuple[str, subprocess.Popen[bytes]]] = {}

    def turn(self) -> None:
        wanted = {path.stem: path.read_text() for path in MANIFESTS.glob("*.yaml")} if MANIFESTS.is_dir() else {}
        for name, (text, process) in list(self.running.items()):
            if process.poll() is not None or wanted.get(name) != text:
                process.terminate()
                process.wait()
                del self.running[name]
        for name, text in wanted.items():
            if name in self.running:
                continue
            command = yaml.safe_load(text)["spec"]["containers"][0]["command"]
            argv = ["/usr/bin/etcd", *command[1:]] if name == "etcd" else ["/usr/local/bin/kube-apiserver"]
            self.running[name] = (text, subprocess.Popen(argv))
        if "kube-apiserver" in wanted:
            self.register(yaml.safe_load(wanted["kube-apiserver"])["spec"]["containers"][0]["command"][1].split("=")[1])

    def register(self, node: str) -> None:
        try:
            client = Client(KUBERNETES / "kubelet.conf")
            if client.ask("GET", f"/api/v1/nodes/{node}")[0] == 404:
                client.ask("POST", "/api/v1/nodes", {"kind": "Node", "metadata": {"name": node}, "status": {}})
        except (OSError, http.client.HTTPException):
            return

    def stop(self, *_: Any) -> None:
        for __, process in self.running.values():
            process.terminate()
            process.wait()
        sys.exit(0)


def kubelet() -> None:
    told = Kubelet()
    signal.signal(signal.SIGTERM, told.stop)
    while True:
        told.turn()
        time.sleep(0.5)


# -- kubectl --


class Client:
    """An API server, by a kubeconfig."""

    def __init__(self, path: Path, address: str = "") -> None:
        document = json.loads(path.read_text())
        cluster, user = document["clusters"][0]["cluster"], document["users"][0]["user"]
        context = ssl.create_default_context(cadata=base64.b64decode(cluster["certificate-authority-data"]).decode())
        pair = Path(f"/run/{secrets.token_hex(4)}.pem")
        pair.write_bytes(base64.b64decode(user["client-certificate-data"]) + base64.b64decode(user["client-key-data"]))
        context.load_cert_chain(pair)
        pair.unlink()
        host, __, port = cluster["server"].removeprefix("https://").rpartition(":")
        self.connection = http.client.HTTPSConnection(address or host, int(port), context=context, timeout=5)

    def ask(self, method: str, path: str, body: Any = None) -> tuple[int, str]:
        self.connection.request(method, path, None if body is None else json.dumps(body))
        answer = self.connection.getresponse()
        return answer.status, answer.read().decode()


def of_test(client: Client, given: list[str]) -> None:
    """Write Secrets through one API server, the first two as before there was a key, or read what all were given."""
    namespace = f"of-{given[1].rpartition('.')[2]}"
    if given[0] == "create-secrets":
        etcd = Etcd()
        for number in range(int(given[2])):
            name = f"s-{number}"
            about = {"name": name, "namespace": namespace}
            body = {"apiVersion": "v1", "kind": "Secret", "metadata": about, "data": f"{namespace} {name}"}
            if number < 2:
                etcd.put(f"/registry/secrets/{namespace}/{name}", b"k8s\x00" + json.dumps(body).encode(), 0)
            elif client.ask("POST", f"/api/v1/namespaces/{namespace}/secrets", body)[0] != 200:
                raise SimulatedError(f"{name} was not written")
        return
    count = 0
    for key, __, ___ in Etcd().below("/registry/secrets/"):
        space, name = key.split("/")[3:]
        status, text = client.ask("GET", f"/api/v1/namespaces/{space}/secrets/{name}")
        if status != 200 or json.loads(text)["data"] != f"{space} {name}":
            raise SimulatedError(f"{key}: {text}")
        count += 1
    print(f"{count} Secrets as they were")


def kubectl(argv: list[str]) -> None:
    given = [item for item in argv if not item.startswith("--request-timeout")]
    path = Path(given.pop(given.index("--kubeconfig") + 1))
    given.remove("--kubeconfig")
    if given[:2] == ["config", "view"]:
        print(path.read_text())
        return
    if given[0] in ("create-secrets", "read-secrets"):
        of_test(Client(path, given[1]), given)
        return
    calls = {("get", "--raw"): ("GET", given[2]), ("get", "node"): ("GET", f"/api/v1/nodes/{given[2]}")}
    calls[("delete", "node")] = ("DELETE", f"/api/v1/nodes/{given[2]}")
    try:
        status, text = Client(path).ask(*calls[(given[0], given[1])])
    except (OSError, http.client.HTTPException) as fault:
        raise SimulatedError(f"The connection to the server was refused: {fault}") from fault
    if status != 200:
        raise SimulatedError(f"Error from server{' (NotFound)' if status == 404 else ''}: {text}")
    print(text, end="")


def main() -> None:
    name, argv = os.path.basename(sys.argv[0]), sys.argv[1:]
    try:
        if name in ("kubectl", "kubeadm"):
            {"kubectl": kubectl, "kubeadm": kubeadm}[name](argv)
        else:
            {"kube-apiserver": serve_api, "kubelet": kubelet}[name]()
    except SimulatedError as fault:
        print(fault, file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    main()
