# SPDX-License-Identifier: Apache-2.0
"""A stand-in for an API server and its controllers: python3 simulated_api.py ADDRESS PORT DIRECTORY NODE...

It is not Kubernetes. It keeps objects, answers as the API does to get, list, server-side apply and delete, refuses what
is not asked for strictly, and says of workloads and nodes what controllers and kubelets would say; no container runs.
DIRECTORY gets keys and admin.conf, objects.yml and calls.log, and faults.json is read there:
{"refuse": {"Kind/name": "message"}, "unready": ["Kind/name"], "crash": ["Kind/name"], "scaled": {"name": count},
"lacking": ["group/version"]}: "scaled" is what an autoscaler sets a Deployment to, "lacking" what nobody has brought
into the cluster. Called as kubectl it reads a kubeconfig that is written as JSON.
"""

from __future__ import annotations

import base64
import copy
import hashlib
import http.server
import json
import re
import ssl
import subprocess
import sys
import threading
import time
import urllib.parse
from pathlib import Path
from typing import Any

RESOURCES = {
    "namespaces": ("Namespace", False),
    "nodes": ("Node", False),
    "persistentvolumes": ("PersistentVolume", False),
    "priorityclasses": ("PriorityClass", False),
    "clusterroles": ("ClusterRole", False),
    "clusterrolebindings": ("ClusterRoleBinding", False),
    "validatingadmissionpolicies": ("ValidatingAdmissionPolicy", False),
    "validatingadmissionpolicybindings": ("ValidatingAdmissionPolicyBinding", False),
    "pods": ("Pod", True),
    "secrets": ("Secret", True),
    "configmaps": ("ConfigMap", True),
    "serviceaccounts": ("ServiceAccount", True),
    "persistentvolumeclaims": ("PersistentVolumeClaim", True),
    "roles": ("Role", True),
    "rolebindings": ("RoleBinding", True),
    "networkpolicies": ("NetworkPolicy", True),
    "daemonsets": ("DaemonSet", True),
    "deployments": ("Deployment", True),
    "services": ("Service", True),
    "scaledobjects": ("ScaledObject", True),
    "leaderworkersets": ("LeaderWorkerSet", True),
}
GROUPS = {
    "v1": (
        "namespaces nodes persistentvolumes pods secrets configmaps serviceaccounts persistentvolumeclaims services"
    ).split(),
    "apps/v1": ["daemonsets", "deployments"],
    "networking.k8s.io/v1": ["networkpolicies"],
    "rbac.authorization.k8s.io/v1": ["clusterroles", "clusterrolebindings", "roles", "rolebindings"],
    "scheduling.k8s.io/v1": ["priorityclasses"],
    "keda.sh/v1alpha1": ["scaledobjects"],
    "leaderworkerset.x-k8s.io/v1": ["leaderworkersets"],
    "admissionregistration.k8s.io/v1": ["validatingadmissionpolicies", "validatingadmissionpolicybindings"],
}
PATH = re.compile(
    r"/(?:api/(?P<core>v1)|apis/(?P<group>[a-z0-9.-]+/v1(?:alpha1)?))"
    r"(?:/namespaces/(?P<namespace>[^/]+)(?=/[a-z]))?/(?P<plural>[a-z]+)(?:/(?P<name>[^/]+))?"
)
#: Fields that an object keeps for its life.
IMMUTABLE = {
    "Deployment": ("selector",),
    "DaemonSet": ("selector",),
    "PersistentVolume": ("local", "nodeAffinity"),
    "PersistentVolumeClaim": ("accessModes", "volumeName", "storageClassName", "volumeMode"),
}
WORKLOADS = ("Deployment", "DaemonSet")
#: Pods of several hosts that start and end as one, by the controller of kubernetes-sigs/lws.
SET = "LeaderWorkerSet"
SET_LABEL = "leaderworkerset.sigs.k8s.io/name"
APPLY = "application/apply-patch+yaml"


class RefusedError(Exception):
    """An answer that is a Status."""

    def __init__(self, status: int, reason: str, message: str, **details: Any) -> None:
        super().__init__(message)
        self.status = status
        self.body = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "message": message, "reason": reason}
        self.body.update({"details": details, "code": status})


def merged(base: Any, before: Any, now: Any, others: tuple[Any, ...] = ()) -> Any:
    """Return what an apply makes of an object: what the manager no longer names goes, what it names is set.

    What ``others`` name as well stays.
    """
    if not isinstance(now, dict) or not isinstance(base, dict):
        return copy.deepcopy(now)
    theirs = [other for other in others if isinstance(other, dict)]
    found = {
        key: copy.deepcopy(value)
        for key, value in base.items()
        if key in now or not (isinstance(before, dict) and key in before) or any(key in other for other in theirs)
    }
    for key, value in now.items():
        deeper = tuple(other.get(key) for other in theirs)
        found[key] = merged(found.get(key), before.get(key) if isinstance(before, dict) else None, value, deeper)
    return found


def fields(body: dict[str, Any]) -> dict[str, Any]:
    """Return the fields that a manager owns, as far as anybody here looks at them."""
    return {"f:spec": {f"f:{key}": {} for key in body.get("spec") or {}}}


def templates(item: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the templates of an object's pods: of a set that of the first one, and that of the others."""
    if item["kind"] == SET:
        inner = item["spec"]["leaderWorkerTemplate"]
        return [inner["leaderTemplate"], inner["workerTemplate"]]
    return [item["spec"]["template"]] if item["kind"] in WORKLOADS else []


def with_defaults(item: dict[str, Any]) -> dict[str, Any]:
    """Add some of what the API adds."""
    if item["kind"] == "Namespace":
        item["spec"] = {"finalizers": ["kubernetes"]}
        item["metadata"].setdefault("labels", {})["kubernetes.io/metadata.name"] = item["metadata"]["name"]
    if item["kind"] == "Deployment":
        item["spec"].setdefault("progressDeadlineSeconds", 600)
        item["spec"].setdefault("replicas", 1)
    if item["kind"] in WORKLOADS:
        item["spec"].setdefault("revisionHistoryLimit", 10)
    for template in templates(item):
        pod = template["spec"]
        pod.setdefault("dnsPolicy", "ClusterFirst")
        pod.setdefault("schedulerName", "default-scheduler")
        for container in [*pod.get("initContainers", []), *pod["containers"]]:
            container.setdefault("terminationMessagePath", "/dev/termination-log")
            container.setdefault("terminationMessagePolicy", "File")
    return item


def selected(item: dict[str, Any], selector: str) -> bool:
    """Whether a selector of labels selects an object."""
    labels = item["metadata"].get("labels") or {}
    for term in re.findall(r"(?:[^,(]|\([^)]*\))+", selector):
        match = re.fullmatch(r"(?P<key>[^ !=]+) (?P<word>in|notin) \((?P<values>[^)]*)\)", term.strip())
        if match:
            inside = labels.get(match["key"]) in match["values"].replace(" ", "").split(",")
            holds = inside is (match["word"] == "in")
        elif term.startswith("!"):
            holds = term[1:] not in labels
        elif "!=" in term:
            key, __, value = term.partition("!=")
            holds = labels.get(key) != value
        elif "=" in term:
            key, __, value = term.partition("=")
            holds = labels.get(key) == value
        else:
            holds = term in labels
        if not holds:
            return False
    return True


class Store:
    """The objects, and what is made of a request."""

    def __init__(self, directory: Path | None = None, schema: Any = None) -> None:
        self.directory = directory
        self.schema = schema
        self.objects: dict[str, dict[str, Any]] = {}
        #: What each manager has named of an object.
        self.applied: dict[str, dict[str, Any]] = {}
        self.faults: dict[str, Any] = {}
        self.calls: list[str] = []
        self.revision = 100
        self.lock = threading.RLock()
        for name in ("default", "kube-system"):
            self._keep(self._born({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}))

    def _key(self, item: dict[str, Any]) -> str:
        return f"{item['kind']}/{item['metadata'].get('namespace', '')}/{item['metadata']['name']}"

    def _born(self, item: dict[str, Any]) -> dict[str, Any]:
        about = item["metadata"]
        about["uid"] = hashlib.sha256(f"{self._key(item)} {self.revision}".encode()).hexdigest()[:32]
        about["creationTimestamp"] = "2026-01-01T00:00:00Z"
        about.setdefault("generation", 1)
        return with_defaults(item)

    def _keep(self, item: dict[str, Any]) -> None:
        self.revision += 1
        item["metadata"]["resourceVersion"] = str(self.revision)
        item["metadata"].pop("status", None)
        self.objects[self._key(item)] = item
        self.write()

    def write(self) -> None:
        """Keep the state where a test can read it."""
        if self.directory is not None:
            text = "".join(f"---\n{json.dumps(item, indent=1)}\n" for item in self.objects.values())
            (self.directory / "objects.yml").write_text(text, encoding="utf-8")

    def add_node(self, name: str) -> None:
        """Let a kubelet register."""
        self._keep(self._born({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}}))

    def scale(self, name: str, count: int) -> None:
        """Set a Deployment's count as an autoscaler does, by its subresource: the count is the autoscaler's then."""
        for item in self.objects.values():
            about = item["metadata"].get("annotations") or {}
            paused = item["kind"] == "ScaledObject" and about.get("autoscaling.keda.sh/paused") == "true"
            if paused and item["spec"]["scaleTargetRef"]["name"] == name:
                return
        for key, item in self.objects.items():
            if item["kind"] == "Deployment" and item["metadata"]["name"] == name and item["spec"]["replicas"] != count:
                for body in self.applied.get(key, {}).values():
                    body["spec"].pop("replicas", None)
                self.applied[key]["autoscaler"] = {"spec": {"replicas": count}}
                item["spec"]["replicas"] = count
                item["metadata"]["generation"] += 1
                item["metadata"]["managedFields"] = self._managed(key)
                self._keep(item)

    def _managed(self, key: str, more: dict[str, Any] | None = None) -> list[dict[str, Any]]:
        """Return who owns what of an object."""
        found = []
        for manager, body in {**self.applied.get(key, {}), **(more or {})}.items():
            entry = {"manager": manager, "operation": "Apply", "fieldsV1": fields(body)}
            found.append({**entry, "operation": "Update", "subresource": "scale"} if manager == "autoscaler" else entry)
        return found

    def said_of(self, name: str, item: dict[str, Any]) -> Any:
        """Return a fault that a test has asked for."""
        wanted = self.faults.get(name) or {}
        key = f"{item['kind']}/{item['metadata']['name']}"
        return (wanted.get(key) if isinstance(wanted, dict) else key in wanted) or None

    def request(self, method: str, path: str, query: dict[str, str], headers: Any, body: Any) -> dict[str, Any]:
        """Return the answer to a request. Raises RefusedError."""
        if self.directory is not None and (self.directory / "faults.json").exists():
            self.faults = json.loads((self.directory / "faults.json").read_text(encoding="utf-8"))
        for name, count in (self.faults.get("scaled") or {}).items():
            self.scale(name, count)
        group = re.fullmatch(r"/apis/([a-z0-9.-]+/v1(?:alpha1)?)(?:/.*)?", path)
        if group and group[1] in (self.faults.get("lacking") or []):
            raise RefusedError(404, "NotFound", "404 page not found")
        if method == "GET" and path.removeprefix("/apis/") in GROUPS:
            names = GROUPS[path.removeprefix("/apis/")]
            return {"kind": "APIResourceList", "resources": [{"name": n, "kind": RESOURCES[n][0]} for n in names]}
        match = PATH.fullmatch(path)
        version = match and (match["core"] or match["group"])
        if not match or match["plural"] not in GROUPS.get(version, []):
            raise RefusedError(404, "NotFound", "404 page not found")
        kind, namespaced = RESOURCES[match["plural"]]
        namespace, name = match["namespace"], match["name"] and urllib.parse.unquote(match["name"])
        if (namespace and not namespaced) or (name and namespaced and not namespace):
            raise RefusedError(404, "NotFound", "404 page not found")
        about = {"name": name, **({"namespace": namespace} if namespace else {})}
        item = {"apiVersion": version, "kind": kind, "metadata": about}
        if method == "GET" and name is None:
            return self._list(item, namespace, query)
        if method == "GET":
            return self._with_status(self._there(item))
        if method == "PATCH":
            return self._with_status(self._apply(item, query, headers, body))
        if method == "DELETE":
            return self._delete(item, body)
        raise RefusedError(405, "MethodNotAllowed", f"the stand-in has no {method}")

    def _there(self, item: dict[str, Any]) -> dict[str, Any]:
        nodes = {self._key(each): each for each in self._nodes()} if item["kind"] == "Node" else {}
        found = nodes.get(self._key(item)) or self.objects.get(self._key(item))
        if found is None:
            plural = next(name for name, (kind, __) in RESOURCES.items() if kind == item["kind"])
            name = item["metadata"]["name"]
            raise RefusedError(404, "NotFound", f'{plural} "{name}" not found', name=name, kind=plural)
        return found

    def _list(self, item: dict[str, Any], namespace: str | None, query: dict[str, str]) -> dict[str, Any]:
        others = [each for each in self.objects.values() if each["kind"] != "Node"]
        objects = [*others, *self._nodes(), *self._pods()]
        wanted = [
            each
            for each in objects
            if each["kind"] == item["kind"]
            and namespace in (None, each["metadata"].get("namespace"))
            and selected(each, query.get("labelSelector", ""))
        ]
        start, size = int(query.get("continue") or 0), int(query["limit"])
        page = [
            {key: value for key, value in self._with_status(each).items() if key not in ("kind", "apiVersion")}
            for each in wanted[start : start + size]
        ]
        following = {"continue": str(start + size)} if start + size < len(wanted) else {}
        return {"kind": f"{item['kind']}List", "metadata": following, "items": page}

    def _apply(self, item: dict[str, Any], query: dict[str, str], headers: Any, body: Any) -> dict[str, Any]:
        self._check_request(item, query, headers, body)
        key = self._key(item)
        existing = self.objects.get(key)
        message = self.said_of("refuse", item)
        if message:
            raise RefusedError(422, "Invalid", f'{item["kind"]} "{item["metadata"]["name"]}" is invalid: {message}')
        manager = query["fieldManager"]
        others = {name: named for name, named in self.applied.get(key, {}).items() if name != manager}
        before = self.applied.get(key, {}).get(manager)
        if existing is None:
            made = self._born(copy.deepcopy(body))
        else:
            made = with_defaults(merged(existing, before, body, tuple(others.values())))
            for field in IMMUTABLE.get(item["kind"], ()):
                if made["spec"].get(field) != existing["spec"].get(field):
                    text = f'{item["kind"]} "{item["metadata"]["name"]}" is invalid: spec.{field}: field is immutable'
                    raise RefusedError(422, "Invalid", text)
            if made.get("spec") != existing.get("spec"):
                made["metadata"]["generation"] += 1
        made["metadata"]["managedFields"] = self._managed(key, {manager: body})
        if query.get("dryRun") != "All" and made != existing:
            made["metadata"].setdefault("annotations", {})
            if not made["metadata"]["annotations"]:
                del made["metadata"]["annotations"]
            for named in others.values():
                # By force, whoever names another value takes the field over.
                mine, theirs = body.get("spec") or {}, named.get("spec") or {}
                if "replicas" in mine and theirs.get("replicas", mine["replicas"]) != mine["replicas"]:
                    del theirs["replicas"]
            self.applied.setdefault(key, {})[manager] = copy.deepcopy(body)
            self._keep(made)
        return made

    def _check_request(self, item: dict[str, Any], query: dict[str, str], headers: Any, body: Any) -> None:
        wanted = {"fieldManager": "gpufleet.metal", "fieldValidation": "Strict", "force": "true"}
        if set(body.get("spec") or {}) == {"replicas"} and item["kind"] == "Deployment":
            wanted["fieldManager"] = "gpufleet.metal-count"
        if {key: value for key, value in query.items() if key != "dryRun"} != wanted:
            raise RefusedError(400, "BadRequest", f"stand-in: found {query}, wanted {wanted}")
        if headers.get("Content-Type") != APPLY:
            raise RefusedError(415, "UnsupportedMediaType", f"stand-in: wanted {APPLY}")
        for name in ("apiVersion", "kind"):
            if body.get(name) != item[name]:
                raise RefusedError(400, "BadRequest", f"found {name} {body.get(name)!r} at a path of {item[name]!r}")
        about = body["metadata"]
        if {key: about.get(key) for key in item["metadata"]} != item["metadata"]:
            raise RefusedError(400, "BadRequest", "the object is another one than the path's")
        namespace = item["metadata"].get("namespace")
        if namespace and f"Namespace//{namespace}" not in self.objects:
            text = f'namespaces "{namespace}" not found'
            raise RefusedError(404, "NotFound", text, name=namespace, kind="namespaces")
        # What names a count alone is no whole object.
        if self.schema is not None and query["fieldManager"] == "gpufleet.metal":
            self.schema(body)

    def _delete(self, item: dict[str, Any], body: Any) -> dict[str, Any]:
        found = self._there(item)
        if (body.get("preconditions") or {}).get("uid") != found["metadata"]["uid"]:
            raise RefusedError(409, "Conflict", "the UID in the precondition does not match")
        key = self._key(item)
        del self.objects[key]
        self.applied.pop(key, None)
        self.write()
        return {"kind": "Status", "apiVersion": "v1", "status": "Success"}

    # -- what controllers and kubelets would do --

    def _nodes(self) -> list[dict[str, Any]]:
        """Return the nodes: those of add_node, or where somebody keeps them otherwise, theirs."""
        return [each for each in self.objects.values() if each["kind"] == "Node"]

    def _with_status(self, item: dict[str, Any]) -> dict[str, Any]:
        unready = self.said_of("unready", item) or self.said_of("crash", item)
        if item["kind"] == "Node":
            ready = {"type": "Ready", "status": "False" if unready else "True", "message": "simulated"}
            return {**item, "status": {"conditions": [ready]}}
        if item["kind"] not in (*WORKLOADS, SET) or "uid" not in item["metadata"]:
            return item
        count = self._count(item)
        seen = {"observedGeneration": item["metadata"]["generation"]}
        if item["kind"] == "DaemonSet":
            states = {"updatedNumberScheduled": count, "numberAvailable": 0 if unready else count}
            return {**item, "status": {**seen, "desiredNumberScheduled": count, **states}}
        ready = "readyReplicas" if item["kind"] == SET else "availableReplicas"
        states = {"replicas": count, "updatedReplicas": count, ready: 0 if unready else count}
        return {**item, "status": {**seen, **states}}

    def _count(self, item: dict[str, Any]) -> int:
        if item["kind"] == "DaemonSet":
            return len(self._nodes())
        return int(item["spec"].get("replicas", 1))

    def _pods(self) -> list[dict[str, Any]]:
        found = []
        for item in self.objects.values():
            if item["kind"] == SET:
                found += self._pods_of_set(item)
            if item["kind"] not in WORKLOADS:
                continue
            template = item["spec"]["template"]
            digest = hashlib.sha256(json.dumps(template, sort_keys=True).encode()).hexdigest()[:10]
            container = template["spec"]["containers"][0]
            state: dict[str, Any] = {"state": {"running": {}}, "restartCount": 0}
            if self.said_of("crash", item):
                ended = {"exitCode": 1, "reason": "Error", "message": "simulated: out of memory\n"}
                # One more each second, as one would see that ends at once.
                state = {"state": {"waiting": {"reason": "CrashLoopBackOff"}}, "restartCount": int(time.monotonic())}
                state["lastState"] = {"terminated": ended}
            image = {"name": container["name"], "imageID": container["image"].replace("vllm/", "docker.io/vllm/")}
            count = self._count(item)
            # The last one was evicted, and stays as a record of it.
            for number in range(count + bool(self.said_of("evicted", item))):
                ended = number == count
                about = {
                    "name": f"{item['metadata']['name']}-{digest}-{number}",
                    "labels": template["metadata"]["labels"],
                }
                about["namespace"] = item["metadata"]["namespace"]
                place = template["spec"].get("nodeSelector", {}).get("kubernetes.io/hostname")
                found.append(
                    {
                        "apiVersion": "v1",
                        "kind": "Pod",
                        "metadata": about,
                        "spec": {**template["spec"], "nodeName": place},
                        "status": {"phase": "Failed", "reason": "Evicted"}
                        if ended
                        else {"phase": "Running", "containerStatuses": [{**image, **state}]},
                    }
                )
        return found

    def _pods_of_set(self, item: dict[str, Any]) -> list[dict[str, Any]]:
        """Return the pods of a set, each on the node of the volume that it claims."""
        found = []
        about, inner = item["metadata"], item["spec"]["leaderWorkerTemplate"]
        for number in range(inner["size"] if item["spec"]["replicas"] else 0):
            template = inner["workerTemplate" if number else "leaderTemplate"]
            name = f"{about['name']}-0{f'-{number}' if number else ''}"
            claim = self.objects[f"PersistentVolumeClaim/{about['namespace']}/models-{name}"]
            volume = self.objects[f"PersistentVolume//{claim['spec']['volumeName']}"]
            term = volume["spec"]["nodeAffinity"]["required"]["nodeSelectorTerms"][0]
            container = template["spec"]["containers"][0]
            image = {"name": container["name"], "imageID": container["image"].replace("vllm/", "docker.io/vllm/")}
            found.append(
                {
                    "apiVersion": "v1",
                    "kind": "Pod",
                    "metadata": {
                        "name": name,
                        "namespace": about["namespace"],
                        "labels": {**template["metadata"]["labels"], SET_LABEL: about["name"]},
                    },
                    "spec": {**template["spec"], "nodeName": term["matchExpressions"][0]["values"][0]},
                    "status": {
                        "phase": "Running",
                        "containerStatuses": [{**image, "state": {"running": {}}, "restartCount": 0}],
                    },
                }
            )
        return found


class Handler(http.server.BaseHTTPRequestHandler):
    """Answers; the class has the store."""

    store: Store
    protocol_version = "HTTP/1.1"
    #: Head and body in one packet, or each answer would wait for the other side to acknowledge the first.
    wbufsize = 1 << 16

    def log_message(self, *__: Any) -> None:
        """Nothing: the store keeps the calls."""

    def _serve(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        text = self.rfile.read(length) if length else b""
        parts = urllib.parse.urlsplit(self.path)
        query = dict(urllib.parse.parse_qsl(parts.query, keep_blank_values=True))
        status = 200
        try:
            self._authorize()
            with self.store.lock:
                call = f"{self.command} {parts.path}{' (dry run)' if query.get('dryRun') else ''}"
                self.store.calls.append(call)
                if self.store.directory is not None:
                    with (self.store.directory / "calls.log").open("a", encoding="utf-8") as stream:
                        stream.write(f"{call}\n")
                body = json.loads(text) if text else {}
                answer = self.store.request(self.command, parts.path, query, self.headers, body)
        except RefusedError as fault:
            status, answer = fault.status, fault.body
        data = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    do_GET = do_PATCH = do_DELETE = do_POST = _serve  # noqa: N815 - the library's names

    def _authorize(self) -> None:
        peer = self.connection.getpeercert() if isinstance(self.connection, ssl.SSLSocket) else None
        subject = dict(item[0] for item in (peer or {}).get("subject", ()))
        if subject.get("organizationName") != "kubeadm:cluster-admins":
            name = subject.get("commonName", "system:anonymous")
            raise RefusedError(403, "Forbidden", f'User "{name}" cannot do that')


def make_keys(directory: Path, address: str, port: int) -> None:
    """Make an authority, the server's certificate, and admin.conf as kubeadm would, but as JSON."""

    def openssl(*arguments: str) -> None:
        subprocess.run(["openssl", *arguments], cwd=directory, check=True, capture_output=True)

    new = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    authority = ["-addext", "basicConstraints=critical,CA:TRUE", "-addext", "keyUsage=critical,keyCertSign"]
    openssl("req", "-x509", *new, "-keyout", "ca.key", "-out", "ca.crt", "-days", "2", "-subj", "/CN=ca", *authority)
    subjects = {"server": "/CN=kube-apiserver", "admin": "/O=kubeadm:cluster-admins/CN=kubernetes-admin"}
    for name, subject in {**subjects, "nobody": "/CN=nobody"}.items():
        (directory / f"{name}.ext").write_text(f"subjectAltName=IP:{address}\n", encoding="utf-8")
        openssl("req", *new, "-keyout", f"{name}.key", "-out", f"{name}.csr", "-subj", subject)
        signed = ["-CA", "ca.crt", "-CAkey", "ca.key", "-CAcreateserial", "-days", "2", "-extfile", f"{name}.ext"]
        openssl("x509", "-req", "-in", f"{name}.csr", "-out", f"{name}.crt", *signed)

    def packed(name: str) -> str:
        return base64.b64encode((directory / name).read_bytes()).decode()

    for name in ("admin", "nobody"):
        cluster = {"server": f"https://{address}:{port}", "certificate-authority-data": packed("ca.crt")}
        user = {"client-certificate-data": packed(f"{name}.crt"), "client-key-data": packed(f"{name}.key")}
        document = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "simulated", "cluster": cluster}],
            "users": [{"name": name, "user": user}],
            "contexts": [{"name": name, "context": {"cluster": "simulated", "user": name}}],
            "current-context": name,
        }
        path = directory / f"{name}.conf"
        path.touch(mode=0o600)
        path.write_text(json.dumps(document), encoding="utf-8")


def kubectl(arguments: list[str]) -> str:
    """Stand in for the one command that is needed of kubectl."""
    wanted = ["config", "view", "--kubeconfig", "", "--raw", "--minify", "--flatten", "--output", "json"]
    if len(arguments) != len(wanted) or [*arguments[:3], "", *arguments[4:]] != wanted:
        raise SystemExit(f"stand-in: kubectl {' '.join(arguments)} is not simulated")
    return Path(arguments[3]).read_text(encoding="utf-8")


def server(store: Store, address: str, port: int, directory: Path) -> http.server.ThreadingHTTPServer:
    """Return a server that is ready to answer."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(directory / "server.crt", directory / "server.key")
    context.load_verify_locations(directory / "ca.crt")
    context.verify_mode = ssl.CERT_OPTIONAL
    handler = type("StoreHandler", (Handler,), {"store": store})
    found = http.server.ThreadingHTTPServer((address, port), handler)
    found.socket = context.wrap_socket(found.socket, server_side=True)
    return found


if __name__ == "__main__":
    if sys.argv[1:2] == ["kubectl"]:
        print(kubectl(sys.argv[2:]))
        sys.exit()
    host, number, place = sys.argv[1], int(sys.argv[2]), Path(sys.argv[3])
    if not (place / "admin.conf").exists():
        make_keys(place, host, number)
    objects = Store(place)
    for node in sys.argv[4:]:
        objects.add_node(node)
    server(objects, host, number, place).serve_forever()
