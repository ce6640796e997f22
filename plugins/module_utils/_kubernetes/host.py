# SPDX-License-Identifier: Apache-2.0
# PRIVATE to the collection: do not import this from outside, it may change without notice.
"""Read what a host has of Kubernetes, and change its membership. Runs on the host, with nothing but Python.

Commands come in as a function and files lie below a root, so that all of it can be tested without a host.
"""

from __future__ import annotations

import contextlib
import datetime
import glob
import http.client
import json
import os
import re
import secrets
import shutil
import socket
import ssl
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from ansible_collections.gpufleet.metal.plugins.module_utils._commands import Runner
from ansible_collections.gpufleet.metal.plugins.module_utils._errors import FleetError
from ansible_collections.gpufleet.metal.plugins.module_utils._kubernetes import certificates, members

KUBERNETES = "etc/kubernetes"
KUBELET_CONF = "/etc/kubernetes/kubelet.conf"
ADMIN_CONF = "/etc/kubernetes/admin.conf"
CRI_SOCKET = "unix:///run/containerd/containerd.sock"
MARK = "var/lib/gpufleet/kubernetes/unfinished"
"""Says that an init or a join has begun and is not complete."""

UPGRADE_MARK = "var/lib/gpufleet/kubernetes/upgrade.json"
"""Says that an upgrade has begun and is not complete: to which version, and whether the node took pods before it."""

RENEWAL_MARK = "var/lib/gpufleet/kubernetes/renewal"
"""Says that certificates are being renewed: "begun", or "signed" when what is left is to start what uses them."""

SECRETS_DIRECTORY = "run/gpufleet/kubernetes"
CONTAINERD_CONFIGURATION = "etc/containerd/config.toml"
KUBELET_CONFIGURATION = "var/lib/kubelet/config.yaml"
API_PORT = 6443
ENDPOINT_PATIENCE_SECONDS = 60
"""How long what serves the API's address is waited for before a cluster is made."""
CGROUP_CHECK = "SystemVerification"
"""Which of kubeadm's preflight checks refuses cgroup v1 since 1.35, whatever kubelet is told (failCgroupV1)."""

CONTROL_PLANE = "node-role.kubernetes.io/control-plane"
DONE_PHASES = ["preflight", "certs", "kubeconfig", "etcd", "control-plane", "kubelet-start"]
"""What ``kubeadm init`` does before the cluster knows the node."""
KUBELET_PORT = 10250
CERTIFICATE_KEY_BYTES = 32
BEFORE_ITS_NODE = datetime.timedelta(seconds=5)
"""A kubelet may ask for its certificate a moment before it has registered its node."""

_LISTEN = "0A"
_REFUSES = 0x0200
_CGROUP2 = "cgroup2fs"
_TOKEN = re.compile(r"\b[a-z0-9]{6}\.[a-z0-9]{16}\b")
_ADVERTISED = re.compile(r"--advertise-address=([^\s\"']+)")
_NO_CONTROLLER = "declare no controller"
_LONG_HEX = re.compile(r"(?<!sha256:)\b[0-9a-f]{64}\b")


def _moment(text: str) -> datetime.datetime:
    """Read a time of the API, such as 2026-11-28T15:26:22Z."""
    return datetime.datetime.strptime(text, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=datetime.timezone.utc)


def redacted(text: str) -> str:
    """Return text in which no token and no certificate key can be read."""
    return _LONG_HEX.sub("(a key)", _TOKEN.sub("(a token)", text))


def last_lines(text: str, count: int = 12) -> str:
    """Return the end of what a command said, without secrets."""
    return "\n".join([line for line in redacted(text).strip().splitlines() if line.strip()][-count:])


class Host:
    """One host."""

    def __init__(self, run: Runner, root: str = "/") -> None:
        self.run = run
        self.root = root

    def path(self, name: str) -> str:
        """Where a file lies below the root."""
        return os.path.join(self.root, name.lstrip("/"))

    def text(self, name: str) -> str | None:
        """The text of a file, None where there is none."""
        try:
            with open(self.path(name), encoding="utf-8", errors="replace") as stream:
                return stream.read()
        except (FileNotFoundError, NotADirectoryError):
            return None

    def output(self, argv: Sequence[str]) -> str:
        """What a command prints."""
        return self.run(argv)[1]

    # -- what is there --

    def packages(self, names: Sequence[str]) -> dict[str, dict[str, Any]]:
        """Version and hold of the packages that are installed."""
        if shutil.which("dpkg-query"):
            query = [
                "dpkg-query",
                "--show",
                r"--showformat=${Package} ${Version} ${db:Status-Want} ${db:Status-Status}\n",
            ]
            out = self.output([*query, *names])
            rows = [line.split() for line in out.splitlines()]
            return {
                row[0]: {"version": row[1], "held": row[2] == "hold"}
                for row in rows
                if len(row) == 4 and row[3] == "installed"
            }
        query = ["rpm", "--query", "--queryformat", r"%{NAME} %{VERSION}-%{RELEASE}\n"]
        out = self.output([*query, *names])
        excluded = " ".join(
            re.findall(r"^exclude\s*=\s*(.*)$", self.text("etc/yum.repos.d/kubernetes.repo") or "", re.M)
        )
        rows = [line.split() for line in out.splitlines() if "is not installed" not in line]
        return {row[0]: {"version": row[1], "held": row[0] in excluded.split()} for row in rows if len(row) > 1}

    def modules(self, names: Sequence[str]) -> dict[str, str]:
        """Of each kernel module whether it is loaded, built in, available or missing."""
        release = os.uname().release
        built_in = self.text(f"lib/modules/{release}/modules.builtin") or ""
        known = {os.path.basename(line).split(".")[0].replace("-", "_") for line in built_in.splitlines()}
        found = {}
        # What a kernel without modules has is in no list, but it shows.
        filesystems = (self.text("proc/filesystems") or "").split()
        shows = {"overlay": "overlay" in filesystems, "br_netfilter": os.path.isdir(self.path("proc/sys/net/bridge"))}
        for name in names:
            if os.path.isdir(self.path(f"sys/module/{name}")) or shows.get(name):
                found[name] = "loaded"
            elif name in known:
                found[name] = "built in"
            else:
                status = self.run(["modprobe", "--dry-run", "--quiet", name])[0]
                found[name] = "available" if status == 0 else "missing"
        return found

    def sysctls(self, names: Sequence[str]) -> dict[str, str]:
        """The kernel's values; those that the kernel does not have are left out."""
        found = {name: self.text("proc/sys/" + name.replace(".", "/")) for name in names}
        return {name: " ".join(value.split()) for name, value in found.items() if value is not None}

    def swap(self) -> list[str]:
        """What the host swaps to."""
        return [line.split()[0] for line in (self.text("proc/swaps") or "").splitlines()[1:] if line.strip()]

    def default_routes(self) -> list[str]:
        """Which of IPv4 and IPv6 have a default route out of an interface. One that refuses is none."""
        found = []
        for line in (self.text("proc/net/route") or "").splitlines()[1:]:
            _interface, destination, _gateway, flags, _references, _used, _metric, mask, *_rest = line.split()
            if int(destination, 16) == int(mask, 16) == 0 and not int(flags, 16) & _REFUSES:
                found.append("IPv4")
        for line in (self.text("proc/net/ipv6_route") or "").splitlines():
            destination, length, *_middle, flags, _interface = line.split()
            if int(destination, 16) == int(length, 16) == 0 and not int(flags, 16) & _REFUSES:
                found.append("IPv6")
        return sorted(set(found))

    def listeners(self) -> dict[str, str]:
        """Who listens on which TCP port; the name is empty where it cannot be seen."""
        inodes = {}
        for name in ("proc/net/tcp", "proc/net/tcp6"):
            for line in (self.text(name) or "").splitlines()[1:]:
                columns = line.split()
                if columns[3] == _LISTEN:
                    inodes[columns[9]] = str(int(columns[1].rpartition(":")[2], 16))
        found = dict.fromkeys(inodes.values(), "")
        for link in glob.glob(self.path("proc/[0-9]*/fd/*")):
            with contextlib.suppress(OSError):
                inode = os.readlink(link).removeprefix("socket:[").rstrip("]")
                if inode in inodes and not found[inodes[inode]]:
                    command = os.path.join(os.path.dirname(os.path.dirname(link)), "comm")
                    with open(command, encoding="utf-8") as stream:
                        found[inodes[inode]] = stream.read().strip()
        return found

    def resolver(self, path: str | None) -> dict[str, Any]:
        """Whom the host asks for names, as kubeadm will see it."""
        if not path:
            state = self.output(["systemctl", "is-active", "systemd-resolved.service"])
            path = "/run/systemd/resolve/resolv.conf" if state.strip() == "active" else "/etc/resolv.conf"
        text = self.text(path)
        servers = re.findall(r"^\s*nameserver\s+(\S+)", text or "", re.M)
        return {"path": path, "exists": text is not None, "nameservers": servers}

    def units(self, *names: str) -> dict[str, dict[str, str]]:
        """What systemd says of some units."""
        wanted = "--property=Id,ActiveState,UnitFileState,ExecMainStartTimestampMonotonic,ActiveEnterTimestamp"
        out = self.output(["systemctl", "show", "--timestamp=unix", wanted, *names])
        blocks = [dict(line.split("=", 1) for line in block.splitlines() if "=" in line) for block in out.split("\n\n")]
        return {block["Id"].removesuffix(".service"): block for block in blocks if "Id" in block}

    def containerd(self, unit: Mapping[str, str]) -> dict[str, Any]:
        """containerd's version, configuration and what it runs."""
        status, out, _error = self.run(["containerd", "--version"])
        words = out.split()
        version = next((word.removeprefix("v") for word in words if re.match(r"v?[0-9]+\.[0-9]+", word)), None)
        active = unit.get("ActiveState") == "active"
        containers: list[str] = []
        if active:
            listed = self.output(["ctr", "--namespace", "k8s.io", "tasks", "list", "--quiet"])
            containers = listed.split()
        stale = False
        with contextlib.suppress(FileNotFoundError, ValueError):
            changed = os.stat(self.path(CONTAINERD_CONFIGURATION)).st_mtime
            # systemd's time has whole seconds.
            stale = active and changed >= int(unit["ActiveEnterTimestamp"].removeprefix("@")) + 1
        return {
            "version": version if status == 0 else None,
            "active": active,
            "enabled": unit.get("UnitFileState") == "enabled",
            "configuration": self.text(CONTAINERD_CONFIGURATION),
            "stale": stale,
            "containers": len(containers),
        }

    def cgroup_version(self) -> int:
        """1 or 2."""
        out = self.output(["stat", "--file-system", "--format=%T", self.path("sys/fs/cgroup")])
        return 2 if out.strip() == _CGROUP2 else 1

    def unfinished(self) -> str | None:
        """Which of init and join has begun and is not complete."""
        return (self.text(MARK) or "").strip() or None

    def member(self) -> dict[str, str] | None:
        """What the host is in a cluster; None where it is in none, or only half."""
        if self.text(f"{KUBERNETES}/kubelet.conf") is None or self.unfinished():
            return None
        control_plane = self.text(f"{KUBERNETES}/manifests/kube-apiserver.yaml") is not None
        return {"role": "control_plane" if control_plane else "node"}

    def upgrade_mark(self) -> dict[str, Any] | None:
        """The upgrade that has begun and is not complete."""
        text = self.text(UPGRADE_MARK)
        found: dict[str, Any] | None = None if text is None else json.loads(text)
        return found

    def manifests(self) -> dict[str, str]:
        """The texts of the static Pods' manifests by name."""
        found = {}
        for path in sorted(glob.glob(self.path(f"{KUBERNETES}/manifests/*.yaml"))):
            name = os.path.basename(path).removesuffix(".yaml")
            found[name] = self.text(os.path.join("/", os.path.relpath(path, self.root))) or ""
        return found

    def modes(self) -> dict[str, str]:
        """The modes of what nobody but root may read."""
        patterns = ("*.conf", "gpufleet/*.yaml", "manifests/*.yaml", "pki/*.key", "pki/etcd/*.key")
        found = {}
        for pattern in patterns:
            for path in glob.glob(self.path(f"{KUBERNETES}/{pattern}")):
                found["/" + os.path.relpath(path, self.root)] = f"{os.stat(path).st_mode & 0o7777:04o}"
        return found

    def certificate_days(self, now: datetime.datetime) -> dict[str, int]:
        """How many days each certificate of the host has left."""
        patterns = (f"{KUBERNETES}/pki/*.crt", f"{KUBERNETES}/pki/etcd/*.crt", "var/lib/kubelet/pki/*-current.pem")
        found = {}
        for path in sorted(path for pattern in patterns for path in glob.glob(self.path(pattern))):
            name = "/" + os.path.relpath(path, self.root)
            found[name] = (certificates.ends_at(self.text(name) or "") - now).days
        return found

    def leftover_secrets(self) -> list[str]:
        """Files of joins that should be gone."""
        paths = glob.glob(self.path(f"{SECRETS_DIRECTORY}/*"))
        return sorted("/" + os.path.relpath(path, self.root) for path in paths)

    def kubelet_cgroup_driver(self) -> str:
        """As kubelet's configuration has it."""
        found = re.search(r"^cgroupDriver:\s*\"?(\w+)", self.text(KUBELET_CONFIGURATION) or "", re.M)
        return found.group(1) if found else "not set"

    def pause_image(self, version: str, repository: str) -> tuple[str | None, str]:
        """The sandbox image that kubeadm wants, None where there is no kubeadm yet; and what it says without one."""
        command = ["kubeadm", "config", "images", "list", "--kubernetes-version", f"v{version}"]
        status, out, error = self.run([*command, "--image-repository", repository])
        images = [line for line in out.splitlines() if "/pause:" in line]
        return (images[0].strip(), "") if status == 0 and images else (None, last_lines(error or out, 2))

    # -- what it does --

    def node(self, name: str) -> dict[str, Any] | None:
        """What the API says of this node, asked with the node's own credentials."""
        command = ["kubectl", "--kubeconfig", KUBELET_CONF, "get", "node", name, "--output", "json"]
        status, out, _error = self.run([*command, "--request-timeout=10s"])
        return json.loads(out) if status == 0 else None

    def readyz(self) -> str:
        """What the host's own API server answers."""
        status, out, err = self.run(
            ["kubectl", "--kubeconfig", ADMIN_CONF, "get", "--raw", "/readyz", "--request-timeout=10s"]
        )
        return out.strip() if status == 0 else last_lines(err, 1) or "nothing"


def wait_for(fault: Callable[[], str | None], seconds: float) -> str | None:
    """Ask until there is no fault any more; returns the last one when the time is over."""
    end = time.monotonic() + seconds
    while True:
        found = fault()
        if found is None or time.monotonic() > end:
            return found
        time.sleep(1)


def get(url_port: int, path: str, tls: bool = False, timeout: float = 5) -> str:
    """Ask a service of this very host; the answer, or what went wrong."""
    try:
        if tls:
            # Its certificate is not what is asked for, and the question has no secret.
            context = ssl.create_default_context()
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
            connection: http.client.HTTPConnection = http.client.HTTPSConnection(
                "127.0.0.1", url_port, timeout=timeout, context=context
            )
        else:
            connection = http.client.HTTPConnection("127.0.0.1", url_port, timeout=timeout)
        connection.request("GET", path)
        return connection.getresponse().read().decode("utf-8", "replace").strip()
    except (OSError, http.client.HTTPException, socket.timeout) as fault:
        return str(fault)


def endpoint_fault(
    endpoint: str, own_port: int = API_PORT, patience_seconds: float = 0, timeout: float = 5
) -> str | None:
    """Why the first control plane could not be reached at its endpoint; kubeadm would find out after minutes.

    Its own API server answers at its own port, so that an address of this host is enough there. A load balancer has to
    answer before there is an API server, and is waited for: keepalived takes an address only when it has heard nobody
    for more than three announcements (RFC 9568, 6.1: Active_Down_Interval), later on a busy host.
    """
    name, __, port = endpoint.rpartition(":")
    name = name.strip("[]")
    try:
        found = socket.getaddrinfo(name, int(port), type=socket.SOCK_DGRAM)[0]
    except OSError as fault:
        return f"kubernetes_endpoint is '{endpoint}', and {name} cannot be resolved on this host ({fault})"

    def silence() -> str | None:
        if int(port) == own_port:
            with socket.socket(found[0], found[1]) as probe:
                try:
                    probe.bind((found[4][0], 0))
                    return None
                except OSError:
                    pass
        try:
            socket.create_connection((name, int(port)), timeout).close()
        except OSError as fault:
            return str(fault)
        return None

    reason = wait_for(silence, patience_seconds)
    return reason and (
        f"kubernetes_endpoint is '{endpoint}', which is no address of this host with port {own_port} and where "
        f"nothing answers in {patience_seconds:.0f} s ({reason}): what serves it, such as a load balancer, comes "
        f"before the cluster; nothing was changed"
    )


def _continued(document: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return a document of an init that goes on where kubelet runs and knows its node.

    kubelet registers the node as soon as the API server answers, with kubeadm's work not half done: what follows
    (its ConfigMaps, tokens, kube-proxy and CoreDNS) may be done again.
    """
    return {**document, "skipPhases": DONE_PHASES} if document.get("kind") == "InitConfiguration" else document


def shown_serial(port: int, address: str = "127.0.0.1", timeout: float = 5) -> str | None:
    """Return the serial number of the certificate that a port shows; None where it shows none."""
    # What it shows is asked for, whoever signed it; nothing is said to it.
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    try:
        with socket.create_connection((address, port), timeout) as plain, context.wrap_socket(plain) as secured:
            data = secured.getpeercert(binary_form=True)
    except OSError:
        return None
    return certificates.serial(ssl.DER_cert_to_PEM_cert(data)) if data else None


class Membership:
    """Takes a host into a cluster and out of it."""

    def __init__(self, host: Host, node_name: str, deadline_seconds: float = 300) -> None:
        self.host = host
        self.node_name = node_name
        self.deadline_seconds = deadline_seconds

    def _command(self, argv: Sequence[str], what: str) -> str:
        status, out, err = self.host.run(argv)
        if status != 0:
            raise FleetError(f"{what} ended with exit status {status}: {last_lines(err or out)}")
        return out

    @contextlib.contextmanager
    def configuration(self, documents: Sequence[Mapping[str, Any]]) -> Iterator[str]:
        """A file of mode 0600 in a directory of mode 0700 in memory, gone at the end, however that comes."""
        directory = self.host.path(SECRETS_DIRECTORY)
        os.makedirs(directory, mode=0o700, exist_ok=True)
        os.chmod(directory, 0o700)
        descriptor, path = tempfile.mkstemp(dir=directory, suffix=".yaml")
        try:
            with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
                # JSON is YAML.
                stream.write("".join(f"---\n{json.dumps(document, indent=1)}\n" for document in documents))
            yield path
        finally:
            os.unlink(path)

    def forget_secrets(self) -> None:
        """Remove what a run that was killed has left."""
        directory = self.host.path(SECRETS_DIRECTORY)
        if os.path.isdir(directory):
            shutil.rmtree(directory)

    def mark(self, action: str | None) -> None:
        """Write down what has begun; None when it is complete."""
        path = self.host.path(MARK)
        if action is None:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)
            return
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "w", encoding="utf-8") as stream:
            stream.write(f"{action}\n")

    def is_complete(self, control_plane: bool = False) -> bool:
        """Whether the cluster knows this node, and a control plane as such.

        kubelet registers the node long before kubeadm has made a control plane of it; that label comes last.
        """
        node = self.host.node(self.node_name) if self.host.text(KUBELET_CONF) is not None else None
        return node is not None and (not control_plane or CONTROL_PLANE in (node["metadata"].get("labels") or {}))

    def wait(self) -> None:
        """Wait until the cluster knows this node."""
        end = time.monotonic() + self.deadline_seconds
        while not self.is_complete():
            if time.monotonic() > end:
                raise FleetError(
                    f"the cluster does not know the node {self.node_name} after {self.deadline_seconds:.0f} s: see "
                    f"what journalctl --unit kubelet says"
                )
            time.sleep(1)

    def enter(self, action: str, documents: Sequence[Mapping[str, Any]], ignored: str = "") -> str:
        """Make a cluster or join one; returns what was done. ``ignored`` is what kubeadm's preflight overlooks."""
        if self.host.member() is not None:
            raise FleetError("the host belongs to a cluster already: run reset_kubernetes_node for it first")
        unfinished = self.host.unfinished()
        if unfinished == "init":
            if not self.is_complete():
                # It may have been complete once, with all that is in its etcd: nobody but a person throws that away.
                raise FleetError(
                    "an init was interrupted on this host, and its API server does not know the node: look at it "
                    "(journalctl --unit kubelet), or run reset_kubernetes_node for this host and start again"
                )
            documents = [_continued(document) for document in documents]
        elif unfinished:
            if self.is_complete(any("controlPlane" in document for document in documents)):
                self.mark(None)
                self.forget_secrets()
                return f"the {unfinished} was complete"
            self.leave(for_good=False)
        self.forget_secrets()
        for document in documents:
            if "controlPlaneEndpoint" in document:
                patience = min(self.deadline_seconds, ENDPOINT_PATIENCE_SECONDS)
                fault = endpoint_fault(document["controlPlaneEndpoint"], patience_seconds=patience)
                if fault:
                    raise FleetError(fault)
        command = ["kubeadm", action]
        with self.configuration(documents) as path:
            self._command(["kubeadm", "config", "validate", "--config", path], "kubeadm config validate")
            self.mark(action)
            try:
                skip = ["--skip-token-print"] if action == "init" else []
                skip += [f"--ignore-preflight-errors={ignored}"] if ignored else []
                self._command([*command, "--config", path, *skip], f"kubeadm {action}")
            except FleetError:
                # What preflight refuses has changed nothing.
                if self.host.text(KUBELET_CONF) is None and not self.host.manifests():
                    self.mark(None)
                raise
        self.wait()
        self.mark(None)
        return f"kubeadm {action} ended well"

    def leave(self, for_good: bool = True) -> list[str]:
        """Take the host out of its cluster and remove what kubeadm leaves; returns what was removed."""
        done = []
        if self.host.text(KUBELET_CONF) is not None or self.host.unfinished() or self.host.manifests():
            self._command(
                ["kubeadm", "reset", "--force", "--cri-socket", "unix:///run/containerd/containerd.sock"],
                "kubeadm reset",
            )
            if for_good:
                # Without a configuration it would be started again and again after the next boot.
                self._command(["systemctl", "disable", "--now", "kubelet.service"], "systemctl disable kubelet")
            done.append("kubeadm reset")
        done += self.remove_leftovers()
        self.mark(None)
        return done

    def leftovers(self) -> list[str]:
        """Links and files that kubeadm reset leaves."""
        links = [f"link {name}" for name in LINKS if os.path.exists(self.host.path(f"sys/class/net/{name}"))]
        paths = [path for pattern in LEFTOVERS for path in sorted(glob.glob(self.host.path(pattern)))]
        files = ["/" + os.path.relpath(path, self.host.root) for path in paths]
        tables = self.host.output(["nft", "list", "tables"])
        return links + files + [line for line in tables.splitlines() if line.split()[2:] and line.split()[2] in TABLES]

    def remove_leftovers(self) -> list[str]:
        """Remove them."""
        found = self.leftovers()
        for item in found:
            if item.startswith("link "):
                self._command(["ip", "link", "delete", item.split()[1]], f"ip link delete {item.split()[1]}")
            elif item.startswith("table "):
                self._command(["nft", "delete", *item.split()], f"nft delete {item}")
            elif os.path.isdir(self.host.path(item)) and not os.path.islink(self.host.path(item)):
                shutil.rmtree(self.host.path(item))
            else:
                os.unlink(self.host.path(item))
        return found


LINKS = ("cni0", "flannel.1", "flannel-v6.1", "kube-ipvs0")
TABLES = ("kube-proxy", "flannel-ipv4", "flannel-ipv6", "kube-network-policies")
LEFTOVERS = (
    "etc/cni/net.d/*",
    "etc/kubernetes/gpufleet",
    "etc/kubernetes/tmp",
    "run/flannel",
    "run/gpufleet/kubernetes",
    "var/lib/cni",
    "var/lib/etcd",
    "var/log/kubernetes",
)


class Offer:
    """What a living control plane does so that another host can join."""

    def __init__(self, host: Host) -> None:
        self.host = host

    def _kubectl(self, *arguments: str) -> list[str]:
        return ["kubectl", "--kubeconfig", ADMIN_CONF, "--request-timeout=20s", *arguments]

    def _must(self, argv: Sequence[str], what: str) -> str:
        status, out, err = self.host.run(argv)
        if status != 0:
            raise FleetError(f"{what} ended with exit status {status}: {last_lines(err or out)}")
        return out

    def state(self, patience_seconds: float = 0) -> dict[str, Any]:
        """Whether this host has a cluster, and whether that answers."""
        has = self.host.text(ADMIN_CONF) is not None and not self.host.unfinished()
        answer = "no cluster"

        def fault() -> str | None:
            nonlocal answer
            answer = self.host.readyz()
            return None if answer == "ok" else answer

        if has:
            wait_for(fault, patience_seconds)
        return {"cluster": has or self.host.unfinished() == "init", "answers": answer == "ok", "answer": answer}

    def make(self, minutes: int, document: Mapping[str, Any] | None, description: str) -> dict[str, Any]:
        """Make a token and, for a control plane, encrypt the cluster's keys with a key for this one join."""
        authority = self.host.text("etc/kubernetes/pki/ca.crt")
        if authority is None:
            raise FleetError("/etc/kubernetes/pki/ca.crt is missing, wanted the cluster's authority")
        offer: dict[str, Any] = {"ca_cert_hashes": [certificates.public_key_digest(authority)], "certificate_key": None}
        if document is not None:
            key = secrets.token_hex(CERTIFICATE_KEY_BYTES)
            membership = Membership(self.host, "")
            told = {**document, "localAPIEndpoint": self._endpoint(), "certificateKey": key}
            with membership.configuration([told, *self._cluster()]) as path:
                command = ["kubeadm", "init", "phase", "upload-certs", "--upload-certs", "--config", path]
                self._must([*command, "--skip-certificate-key-print"], "kubeadm init phase upload-certs")
            offer["certificate_key"] = key
        command = ["kubeadm", "token", "create", "--kubeconfig", ADMIN_CONF, "--ttl", f"{minutes}m0s"]
        out = self._must([*command, "--description", description], "kubeadm token create")
        tokens = _TOKEN.findall(out)
        if len(tokens) != 1:
            raise FleetError(f"kubeadm token create printed {len(tokens)} tokens, wanted one")
        return {**offer, "token": tokens[0], "token_id": tokens[0].split(".")[0]}

    def _endpoint(self) -> dict[str, Any]:
        """Where this host's API server is: kubeadm asks there, not where its credentials say."""
        found = _ADVERTISED.search(self.host.manifests().get("kube-apiserver", ""))
        if found is None:
            raise FleetError(
                "/etc/kubernetes/manifests/kube-apiserver.yaml has no --advertise-address, wanted it as kubeadm has it"
            )
        return {"advertiseAddress": found.group(1), "bindPort": API_PORT}

    def _cluster(self) -> list[dict[str, Any]]:
        """The version alone: without it kubeadm would ask the internet."""
        out = self.host.output(["kubeadm", "version", "--output", "short"])
        return [
            {"apiVersion": "kubeadm.k8s.io/v1beta4", "kind": "ClusterConfiguration", "kubernetesVersion": out.strip()}
        ]

    def withdraw(self, token_id: str, control_plane: bool, patience_seconds: float = 0) -> None:
        """Make the token, and for a control plane the encrypted keys, worthless; asked again while that fails."""
        commands = {"kubeadm token delete": ["kubeadm", "token", "delete", "--kubeconfig", ADMIN_CONF, token_id]}
        if control_plane:
            remove = ("--namespace", "kube-system", "delete", "secret", "kubeadm-certs", "--ignore-not-found")
            commands["kubectl delete secret kubeadm-certs"] = self._kubectl(*remove)

        def fault() -> str | None:
            for what, argv in commands.items():
                status, out, err = self.host.run(argv)
                # The cluster itself removes a token whose time is over.
                if status != 0 and "not found" not in err:
                    return f"{what} ended with exit status {status}: {last_lines(err or out)}"
            return None

        found = wait_for(fault, patience_seconds)
        if found:
            raise FleetError(found)

    def approve(self, node_name: str, addresses: list[str], deadline_seconds: float) -> int:
        """Sign the serving certificate that the node's kubelet asks for; returns how many requests were approved."""
        end = time.monotonic() + deadline_seconds
        out = self._must(self._kubectl("get", "node", node_name, "--output", "json"), "kubectl get node")
        since = _moment(json.loads(out)["metadata"]["creationTimestamp"]) - BEFORE_ITS_NODE
        while True:
            mine = [request for request in self._requests() if request["node"] == node_name]
            pending = [request for request in mine if not request["decided"]]
            for request in pending:
                faults = certificates.request_faults(request["spec"], node_name, addresses)
                if faults:
                    raise FleetError(f"the request {request['name']} of {node_name} is not signed: {'; '.join(faults)}")
                self._must(self._kubectl("certificate", "approve", request["name"]), "kubectl certificate approve")
            # The cluster keeps requests for an hour, also those of a node of this name that it has forgotten since.
            if pending or any(request["created"] >= since for request in mine):
                return len(pending)
            if time.monotonic() > end:
                raise FleetError(
                    f"the kubelet of {node_name} asked for no serving certificate within {deadline_seconds:.0f} s: see "
                    f"what journalctl --unit kubelet says there"
                )
            time.sleep(1)

    def serve(self, node_name: str, addresses: list[str], deadline_seconds: float) -> list[str]:
        """Sign what a node's kubelet asks for until its port shows a certificate; returns what was signed."""
        done: list[str] = []

        def fault() -> str | None:
            done.extend(self._sign(node_name, addresses))
            if shown_serial(KUBELET_PORT, addresses[0]) is not None:
                return None
            return f"the kubelet of {node_name} shows no certificate at {addresses[0]}:{KUBELET_PORT}"

        found = wait_for(fault, deadline_seconds)
        if found:
            raise FleetError(f"{found} after {deadline_seconds:.0f} s: see journalctl --unit kubelet there")
        return done

    def _sign(self, node_name: str, addresses: list[str]) -> list[str]:
        done = []
        for request in self._requests():
            if request["node"] == node_name and not request["decided"]:
                faults = certificates.request_faults(request["spec"], node_name, addresses)
                if faults:
                    raise FleetError(f"the request {request['name']} of {node_name} is not signed: {'; '.join(faults)}")
                self._must(self._kubectl("certificate", "approve", request["name"]), "kubectl certificate approve")
                done.append(f"signed the serving certificate of {node_name}")
        return done

    def sign_all(self, nodes: Mapping[str, list[str]]) -> list[str]:
        """Sign what kubelets ask for that renew their serving certificates, after a look at who asks and for what.

        ``nodes`` are those of the plan with their addresses. Raises FleetError when all that may be signed is.
        """
        done, faults = [], []
        for request in self._requests():
            if request["decided"]:
                continue
            name, node = request["name"], request["node"]
            found = (
                certificates.request_faults(request["spec"], node, nodes[node])
                if node in nodes
                else ["the plan has no such node"]
            )
            if found:
                faults.append(f"the request {name} of {node or 'nobody'} is not signed: {'; '.join(found)}")
                continue
            self._must(self._kubectl("certificate", "approve", name), "kubectl certificate approve")
            done.append(f"signed the serving certificate of {node}")
        if faults:
            raise FleetError("; ".join([*faults, *done]))
        return done

    def forget(self, node_name: str) -> list[str]:
        """Have the cluster forget a host that is lost: its etcd member first, then its node. Raises FleetError."""
        if self.ready(node_name):
            raise FleetError(
                f"the node {node_name} is ready: its host is not lost, so take it out with reset_kubernetes_node"
            )
        etcd = members.Members(members.client_context(self.host.path))
        done = [f"removed the etcd member {node_name}"] if etcd.remove(node_name) else []
        return done + self.remove(node_name)

    def ready(self, node_name: str) -> bool:
        """Whether the cluster hears of a node."""
        status, out, err = self.host.run(self._kubectl("get", "node", node_name, "--output", "json"))
        if status != 0:
            if "NotFound" in err:
                return False
            raise FleetError(f"kubectl get node ended with exit status {status}: {last_lines(err)}")
        conditions = json.loads(out)["status"].get("conditions", [])
        return any(item["type"] == "Ready" and item["status"] == "True" for item in conditions)

    def _requests(self) -> list[dict[str, Any]]:
        out = self._must(self._kubectl("get", "certificatesigningrequests", "--output", "json"), "kubectl get csr")
        found = []
        for item in json.loads(out)["items"]:
            spec = item["spec"]
            if spec.get("signerName") == "kubernetes.io/kubelet-serving":
                name = str(spec.get("username", "")).removeprefix("system:node:")
                decided = bool(item.get("status", {}).get("conditions"))
                about = item["metadata"]
                created = _moment(about["creationTimestamp"])
                found.append(
                    {"name": about["name"], "node": name, "decided": decided, "created": created, "spec": spec}
                )
        return found

    def _knows(self, node_name: str) -> bool:
        status, __, err = self.host.run(self._kubectl("get", "node", node_name))
        if status != 0 and "NotFound" not in err:
            raise FleetError(f"kubectl get node ended with exit status {status}: {last_lines(err)}")
        return status == 0

    def drain(self, node_name: str, seconds: int) -> list[str]:
        """Take all pods off a node; nothing where the cluster does not know it."""
        if not self._knows(node_name):
            return []
        drain = [
            "kubectl",
            "--kubeconfig",
            ADMIN_CONF,
            "drain",
            node_name,
            "--ignore-daemonsets",
            "--delete-emptydir-data",
        ]
        status, out, err = self.host.run([*drain, f"--timeout={seconds}s"])
        if status != 0:
            advice = ": delete those pods first, nothing would bring them back" if _NO_CONTROLLER in err else ""
            raise FleetError(f"kubectl drain ended with exit status {status}: {last_lines(err or out)}{advice}")
        return [f"drained {node_name}"]

    def uncordon(self, node_name: str) -> list[str]:
        """Let a node take pods again."""
        out = self._must(self._kubectl("get", "node", node_name, "--output", "json"), "kubectl get node")
        if not json.loads(out).get("spec", {}).get("unschedulable", False):
            return []
        self._must(self._kubectl("uncordon", node_name), "kubectl uncordon")
        return [f"uncordoned {node_name}"]

    def remove(self, node_name: str) -> list[str]:
        """Delete a node; nothing where the cluster does not know it."""
        if not self._knows(node_name):
            return []
        self._must(self._kubectl("delete", "node", node_name), "kubectl delete node")
        return [f"deleted {node_name}"]
