# SPDX-License-Identifier: Apache-2.0
"""The stand-in for API server and etcd: keeps the cluster's state, and asks who calls."""

from __future__ import annotations

import base64
import http.server
import ipaddress
import json
import secrets
import ssl
import string
import threading
import time
import urllib.parse
from typing import Any

import common
import objects
import yaml

ANONYMOUS = ("/readyz", "/livez", "/healthz")
CLUSTER_INFO = "/api/v1/namespaces/kube-public/configmaps/cluster-info"
LETTERS = string.ascii_lowercase + string.digits
#: Who may do what.
ALLOWED = {
    "bootstrap": {"fetch_config", "fetch_certs", "sign_node", "add_member"},
    "node": {"register", "get_node", "ask_serving", "get_serving", "fetch_config", "run_engines", "pod_network"},
}
#: What an API server does itself; all else is the first member's that answers, so that there is one writer.
LOCAL = {"replicate", "fetch_state", "forwarded"}
#: A node that was not heard of for so long is not ready.
SILENCE_SECONDS = 20


def now() -> str:
    """The time as the API says it."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


class RefusedError(Exception):
    """An answer other than 200."""


class Cluster:
    """The state, on disk in etcd's directory, the same on all control planes."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.state: dict[str, Any] = json.loads(common.STATE.read_text(encoding="utf-8"))
        self.heard: dict[str, float] = {}
        self.heard_last = 0.0
        self.clients: dict[str, common.Client] = {}
        self.running: dict[str, dict[str, str]] = {}
        self.objects = objects.KeptStore(self, self.running)
        for name, member in self.state["members"].items():
            if name != self.state["own"]:
                try:
                    self.replicate(self.client(member["address"]).call("fetch_state"))
                except common.SimulatedError as fault:
                    common.say(f"simulated etcd: member {name} does not answer: {fault}")

    def client(self, address: str) -> common.Client:
        client = common.Client(common.KUBERNETES / "admin.conf")
        client.server = f"https://{address}:{common.PORT}"
        return client

    def fetch_state(self) -> dict[str, Any]:
        return {key: value for key, value in self.state.items() if key != "own"}

    def save(self) -> None:
        """Write it to a majority, as etcd does, or not at all."""
        before = json.loads(common.STATE.read_text(encoding="utf-8"))
        self.state["revision"] += 1
        others = [member["address"] for name, member in self.state["members"].items() if name != self.state["own"]]
        written = 1 + sum(self.push(address) for address in others)
        if written <= len(self.state["members"]) // 2:
            self.state = before
            self.objects.load()
            raise RefusedError(f"etcdserver: request timed out: {written} of {len(others) + 1} members answer")
        self.keep()

    def forward(self, operation: str, body: dict[str, Any], kind: str, caller: str) -> Any:
        """Have the first member that answers do it; NotImplemented where that is this one."""
        for name in sorted(self.state["members"]):
            if name == self.state["own"]:
                break
            client = self.client(self.state["members"][name]["address"])
            if client.answers():
                return client.call("forwarded", wanted=operation, body=body, kind=kind, caller=caller)
        return NotImplemented

    def forwarded(self, wanted: str, body: dict[str, Any], kind: str, caller: str) -> Any:
        return getattr(self, wanted)(**body)

    def keep(self) -> None:
        common.write(common.STATE, json.dumps(self.state))

    def push(self, address: str) -> bool:
        try:
            self.client(address).call("replicate", state=self.fetch_state())
        except common.SimulatedError as fault:
            common.say(f"simulated etcd: member {address} does not answer: {fault}")
            return False
        return True

    # -- operations --

    def replicate(self, state: dict[str, Any]) -> None:
        if state["revision"] > self.state["revision"]:
            self.state = {**state, "own": self.state["own"]}
            self.objects.load()
            self.keep()

    def create_token(self, seconds: int, description: str) -> str:
        identity, secret = ("".join(secrets.choice(LETTERS) for __ in range(size)) for size in (6, 16))
        self.state["tokens"][identity] = {
            "secret": secret,
            "expires": time.time() + seconds,
            "description": description,
        }
        self.save()
        common.note(secret)
        return f"{identity}.{secret}"

    def delete_token(self, identity: str) -> None:
        self.expire()
        if self.state["tokens"].pop(identity, None) is None:
            raise RefusedError(
                f'failed to delete bootstrap token "{identity}": secrets "bootstrap-token-{identity}" not found'
            )
        self.save()

    def expire(self) -> None:
        for identity in [key for key, token in self.state["tokens"].items() if token["expires"] < time.time()]:
            del self.state["tokens"][identity]

    def list_tokens(self) -> list[str]:
        self.expire()
        return sorted(self.state["tokens"])

    def upload_certs(self, data: str) -> None:
        self.state["certs"] = data
        self.save()

    def delete_certs(self) -> bool:
        found = self.state["certs"] is not None
        self.state["certs"] = None
        self.save()
        return found

    def fetch_certs(self) -> str:
        if self.state["certs"] is None:
            raise RefusedError(
                'error downloading the secret: Secret "kubeadm-certs" was not found in the "kube-system" Namespace'
            )
        return str(self.state["certs"])

    def upload_config(self, config: dict[str, Any]) -> None:
        self.state["config"] = config
        self.save()

    def fetch_config(self, name: str = "") -> dict[str, Any]:
        if self.state["config"] is None:
            raise RefusedError('failed to get config map: configmaps "kubeadm-config" not found')
        return dict(self.state["config"])

    def sign_node(self, name: str, request: str) -> str:
        subject = common.run("openssl", "req", "-noout", "-subject", "-nameopt", "RFC2253", stdin=request)
        if f"CN=system:node:{name}" not in subject:
            raise RefusedError(f"the request is for {subject.strip()}, wanted system:node:{name}")
        return common.sign(request, "ca", "extendedKeyUsage=clientAuth")

    def add_member(self, name: str, address: str) -> dict[str, Any]:
        if name in self.state["members"]:
            raise RefusedError(f"etcdserver: stand-in: {name} is a member already")
        # The new member counts when it has the state, which it takes from what this returns.
        shared = self.fetch_state()
        shared["members"] = {**shared["members"], name: {"address": address, "id": str(secrets.randbits(63))}}
        shared["revision"] += 1
        self.state = {**shared, "own": self.state["own"]}
        self.objects.load()
        for other, member in shared["members"].items():
            if other not in (self.state["own"], name):
                self.push(member["address"])
        self.keep()
        return shared

    def remove_member(self, name: str) -> None:
        if self.state["members"].pop(name, None):
            self.save()

    def remove_member_by_id(self, identity: str) -> None:
        mine = [name for name, member in self.state["members"].items() if member["id"] == identity]
        if not mine:
            raise RefusedError("etcdserver: member not found")
        self.remove_member(mine[0])

    def register(self, name: str, node: dict[str, Any], pods: list[dict[str, Any]]) -> None:
        self.heard[name] = self.listening()
        known = self.state["nodes"].get(name)
        self.check_skew(name, node, pods, known)
        if known is None or known["status"] != node["status"] or self.state["pods"].get(name, []) != pods:
            # What others have said of it stays.
            kept = {key: known[key] for key in ("metadata", "spec")} if known else {}
            node["metadata"]["creationTimestamp"] = now()
            self.state["nodes"][name] = {**node, **kept}
            self.state["pods"][name] = pods
            self.save()

    def listening(self) -> float:
        """Return the time. Who was not asked for a while, because another member was, begins to wait for every node."""
        moment = time.monotonic()
        if moment - self.heard_last > SILENCE_SECONDS / 2:
            self.heard = dict.fromkeys(self.state["nodes"], moment)
        self.heard_last = moment
        return moment

    def mark_control_plane(self, name: str) -> None:
        self.get_node(name)
        self.state["nodes"][name]["metadata"]["labels"]["node-role.kubernetes.io/control-plane"] = ""
        self.save()

    def check_skew(self, name: str, node: dict[str, Any], pods: list[dict[str, Any]], known: Any) -> None:
        """Refuse what Kubernetes' version skew policy does not support, and would let happen."""
        version = node["status"]["nodeInfo"]["kubeletVersion"]
        shown = pods or [pod for of_node in self.state["pods"].values() for pod in of_node]
        servers = [pod["version"] for pod in shown if pod["component"] == "kube-apiserver"]
        newer = [server for server in servers if common.numbers(version) > common.numbers(server)]
        if newer:
            raise RefusedError(f"stand-in: kubelet {version} of {name} is newer than the API server {newer[0]}")
        if known is None:
            return
        before = known["status"]["nodeInfo"]["kubeletVersion"]
        if common.numbers(before)[:2] != common.numbers(version)[:2] and not known["spec"].get("unschedulable"):
            raise RefusedError(f"stand-in: kubelet of {name} goes from {before} to {version} under its pods")

    def get_node(self, name: str) -> dict[str, Any]:
        if name not in self.state["nodes"]:
            raise RefusedError(f'Error from server (NotFound): nodes "{name}" not found')
        node = json.loads(json.dumps(self.state["nodes"][name]))
        if self.listening() - self.heard.get(name, 0) > SILENCE_SECONDS:
            node["status"]["conditions"] = [{"type": "Ready", "status": "Unknown", "reason": "NodeStatusUnknown"}]
        return dict(node)

    def list_pods(self) -> list[dict[str, Any]]:
        return [
            {
                "metadata": {"name": f"{pod['component']}-{node}", "namespace": "kube-system"},
                "spec": {"nodeName": node, "containers": [{"name": pod["component"], "image": pod["image"]}]},
                "status": {"conditions": [{"type": "Ready", "status": "True"}]},
            }
            for node, pods in sorted(self.state["pods"].items())
            for pod in pods
        ]

    def get_configuration(self) -> str:
        return yaml.safe_dump(self.state["config"]["ClusterConfiguration"])

    def set_version(self, version: str) -> None:
        self.state["config"]["ClusterConfiguration"]["kubernetesVersion"] = version
        self.save()

    def set_addons(self, version: str) -> None:
        self.state["addons"] = version
        self.save()

    def get_addons(self) -> str:
        return str(self.state["addons"])

    def uncordon(self, name: str) -> None:
        self.get_node(name)
        self.state["nodes"][name]["spec"].pop("unschedulable", None)
        self.save()

    def run_engines(self, name: str, running: dict[str, str]) -> list[dict[str, Any]]:
        """Take what answers on a node, and say what is to run there: nothing where it was drained."""
        self.running[name] = running
        return [] if self.get_node(name)["spec"].get("unschedulable") else [*self.objects.wanted(name)]

    def pod_network(self, name: str) -> dict[str, Any] | None:
        """Say what a node's Flannel is to make, as soon as it has a pod of it: the node's part of the pods' network."""
        found = self.objects.network(self.get_node(name))
        if found is None:
            return None
        spec = self.state["nodes"][name]["spec"]
        if "podCIDR" not in spec:
            taken = {node["spec"].get("podCIDR") for node in self.state["nodes"].values()}
            parts = ipaddress.ip_network(found["Network"]).subnets(new_prefix=24)
            spec["podCIDR"] = next(str(part) for part in parts if str(part) not in taken)
            self.save()
        return {"subnet": spec["podCIDR"], "backend": found["Backend"]["Type"]}

    def request_object(self, method: str, path: str, query: dict[str, str], kind: str, content: Any) -> dict[str, Any]:
        """Answer a request for objects; ``kind`` is that of the content."""
        try:
            found = self.objects.request(method, path, query, {"Content-Type": kind}, content)
        except objects.simulated_api.RefusedError as fault:
            return {"status": fault.status, "answer": fault.body}
        return {"status": 200, "answer": found}

    def running_engines(self, name: str) -> dict[str, str]:
        return self.running.get(name, {})

    def list_nodes(self) -> list[str]:
        return sorted(self.state["nodes"])

    def drain(self, name: str) -> None:
        self.get_node(name)
        self.state["nodes"][name]["spec"]["unschedulable"] = True
        self.save()

    def delete_node(self, name: str) -> None:
        self.get_node(name)
        # Its requests stay, as the real ones do for an hour.
        del self.state["nodes"][name]
        self.state["pods"].pop(name, None)
        self.save()

    def ask_serving(self, name: str, request: str) -> str:
        identity = f"csr-{secrets.token_hex(3)}"
        self.state["requests"][identity] = {
            "username": f"system:node:{name}",
            "request": base64.b64encode(request.encode()).decode(),
            "certificate": None,
            "created": now(),
        }
        self.save()
        return identity

    def get_serving(self, name: str, identity: str) -> str | None:
        request = self.state["requests"].get(identity, {})
        return request.get("certificate") if request.get("username") == f"system:node:{name}" else None

    def list_requests(self) -> list[dict[str, Any]]:
        return [
            {
                "metadata": {"name": identity, "creationTimestamp": request["created"]},
                "spec": {
                    "signerName": "kubernetes.io/kubelet-serving",
                    "username": request["username"],
                    "usages": ["digital signature", "server auth"],
                    "request": request["request"],
                },
                "status": {"conditions": [{"type": "Approved"}]} if request["certificate"] else {},
            }
            for identity, request in sorted(self.state["requests"].items())
        ]

    def approve(self, identity: str) -> None:
        request = self.state["requests"].get(identity)
        if request is None:
            raise RefusedError(f'Error from server (NotFound): certificatesigningrequests "{identity}" not found')
        text = base64.b64decode(request["request"]).decode()
        names = common.run("openssl", "req", "-noout", "-text", stdin=text).partition("Subject Alternative Name:")[2]
        names = names.strip().splitlines()[0].strip().replace("IP Address:", "IP:").replace(" ", "")
        request["certificate"] = common.sign(text, "ca", f"extendedKeyUsage=serverAuth\nsubjectAltName={names}")
        self.save()


class Handler(http.server.BaseHTTPRequestHandler):
    """Answers; the class has the cluster."""

    cluster: Cluster

    def log_message(self, *arguments: Any) -> None:
        """Nothing: a path could name a secret."""

    def answer(self, status: int, text: str) -> None:
        data = text.encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def caller(self) -> tuple[str, str]:
        """Return what the caller is, and its name."""
        peer = self.connection.getpeercert()
        if peer:
            subject = dict(item[0] for item in peer["subject"])
            common_name = subject["commonName"]
            if subject.get("organizationName") == "kubeadm:cluster-admins":
                return "admin", common_name
            if common_name.startswith("system:node:"):
                return "node", common_name.removeprefix("system:node:")
        word = self.headers.get("Authorization", "").removeprefix("Bearer ")
        identity, __, secret = word.partition(".")
        self.cluster.expire()
        token = self.cluster.state["tokens"].get(identity)
        if token and secrets.compare_digest(token["secret"], secret):
            return "bootstrap", identity
        return "anonymous", ""

    def do_GET(self) -> None:
        if self.path in ANONYMOUS:
            self.answer(200, "ok")
        elif self.path == "/metrics" and self.caller()[0] == "admin":
            asked = common.FAULTS / "metrics"
            self.answer(200, asked.read_text(encoding="utf-8") if asked.exists() else "")
        elif self.path == CLUSTER_INFO:
            self.answer(200, (common.PKI / "ca.crt").read_text(encoding="utf-8"))
        elif self.path.startswith(("/api/", "/apis/")):
            self.serve_object()
        else:
            self.answer(401, "Unauthorized")

    def serve_object(self) -> None:
        """Answer a request for objects."""
        length = int(self.headers.get("Content-Length") or 0)
        body = json.loads(self.rfile.read(length)) if length else {}
        if self.caller()[0] != "admin":
            self.answer(401, "Unauthorized")
            return
        parts = urllib.parse.urlsplit(self.path)
        asked = {
            "method": self.command,
            "path": parts.path,
            "query": dict(urllib.parse.parse_qsl(parts.query, keep_blank_values=True)),
            "kind": self.headers.get("Content-Type", ""),
            "content": body,
        }
        try:
            found = self.cluster.forward("request_object", asked, "admin", "objects")
            if found is NotImplemented:
                with self.cluster.lock:
                    found = self.cluster.request_object(**asked)
        except (RefusedError, common.SimulatedError) as fault:
            text = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "message": str(fault), "code": 500}
            found = {"status": 500, "answer": text}
        self.answer(found["status"], json.dumps(found["answer"]))

    do_PATCH = do_DELETE = serve_object  # noqa: N815 - the library's names

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        operation = body.pop("operation")
        kind, name = self.caller()
        if kind != "admin" and operation not in ALLOWED.get(kind, set()):
            self.answer(403 if kind != "anonymous" else 401, f"{kind} {name!r} may not {operation}")
            return
        if kind == "node" and body.get("name") != name:
            self.answer(403, f"node {name!r} may not {operation} for {body.get('name')!r}")
            return
        try:
            result = NotImplemented
            if operation not in LOCAL:
                result = self.cluster.forward(operation, body, kind, name)
            if result is NotImplemented:
                with self.cluster.lock:
                    result = getattr(self.cluster, operation)(**body)
        except (RefusedError, common.SimulatedError) as fault:
            self.answer(404, str(fault))
        else:
            self.answer(200, json.dumps(result))


class Server(http.server.ThreadingHTTPServer):
    """Shakes hands in the thread of the request, so that a silent client blocks nobody."""

    daemon_threads = True
    context: ssl.SSLContext

    def finish_request(self, request: Any, client_address: Any) -> None:
        request.settimeout(20)
        try:
            wrapped = self.context.wrap_socket(request, server_side=True)
        except (OSError, ssl.SSLError):
            return
        super().finish_request(wrapped, client_address)
        wrapped.close()


class EtcdHandler(http.server.BaseHTTPRequestHandler):
    """etcd's JSON interface, for who shows a certificate of etcd's own authority."""

    def log_message(self, *arguments: Any) -> None:
        """Nothing."""

    def answer(self, status: int, document: dict[str, Any]) -> None:
        self.send_response(status)
        self.end_headers()
        self.wfile.write(json.dumps(document).encode())

    def do_GET(self) -> None:
        ill = (common.FAULTS / "etcd-ill").exists()
        if self.path != "/health":
            self.answer(404, {"error": "page not found"})
        else:
            self.answer(
                503 if ill else 200, {"health": "false" if ill else "true", "reason": "RAFT NO LEADER" if ill else ""}
            )

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        cluster = Handler.cluster
        members = cluster.state["members"]
        if self.path == "/v3/cluster/member/list":
            found = [
                {
                    "ID": member["id"],
                    "name": name,
                    "peerURLs": [f"https://{member['address']}:2380"],
                    "clientURLs": [f"https://{member['address']}:2379"],
                }
                for name, member in sorted(members.items())
            ]
            self.answer(200, {"header": {}, "members": found})
        elif self.path == "/v3/maintenance/alarm" and body == {"action": "GET"}:
            self.answer(200, {"header": {}})
        elif self.path == "/v3/cluster/member/remove" and set(body) == {"ID"}:
            try:
                result = cluster.forward("remove_member_by_id", {"identity": body["ID"]}, "admin", "etcd")
                if result is NotImplemented:
                    with cluster.lock:
                        cluster.remove_member_by_id(body["ID"])
            except (RefusedError, common.SimulatedError) as fault:
                self.answer(404, {"error": str(fault), "code": 5, "message": str(fault)})
            else:
                self.answer(200, {"header": {}})
        else:
            self.answer(400, {"error": f"stand-in: {self.path} with {body} is not simulated"})


def listen(
    port: int,
    handler: type[http.server.BaseHTTPRequestHandler],
    certificate: str,
    authority: str | None,
    address: str = "0.0.0.0",
) -> Server:
    """Answer at a port with PKI/certificate; who calls has to show one of PKI/authority, if that is given."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(common.PKI / f"{certificate}.crt", common.PKI / f"{certificate}.key")
    if authority:
        context.load_verify_locations(common.PKI / f"{authority}.crt")
        context.verify_mode = ssl.CERT_REQUIRED
    server = Server((address, port), handler)
    server.context = context
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server


def serve() -> Server:
    """Start to answer on all addresses."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.load_cert_chain(common.PKI / "apiserver.crt", common.PKI / "apiserver.key")
    context.load_verify_locations(common.PKI / "ca.crt")
    context.verify_mode = ssl.CERT_OPTIONAL
    Handler.cluster = Cluster()
    server = Server(("0.0.0.0", common.PORT), Handler)
    server.context = context
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server
