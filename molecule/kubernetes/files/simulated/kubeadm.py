# SPDX-License-Identifier: Apache-2.0
"""A stand-in for kubeadm: strict about what it is told and about the order of calls. Its keys are real ones."""

from __future__ import annotations

import json
import os
import re
import secrets
import signal
import socket
import ssl
import time
import urllib.request
from pathlib import Path
from typing import Any

import common
import schema
import yaml
from common import KUBERNETES, MANIFESTS, PKI, SimulatedError

COMPONENTS = {
    "apiServer": "kube-apiserver",
    "controllerManager": "kube-controller-manager",
    "scheduler": "kube-scheduler",
}
#: What kubeadm init has done when kubelet registers the node.
FIRST_PHASES = {"preflight", "certs", "kubeconfig", "etcd", "control-plane", "kubelet-start"}
#: etcd first, as kubeadm upgrades it.
PARTS = {"etcd": "etcd", **COMPONENTS}
CLUSTER_INFO = "/api/v1/namespaces/kube-public/configmaps/cluster-info"
SHARED = (
    "ca.crt",
    "ca.key",
    "front-proxy-ca.crt",
    "front-proxy-ca.key",
    "etcd/ca.crt",
    "etcd/ca.key",
    "sa.pub",
    "sa.key",
)


def options(
    argv: list[str], valued: tuple[str, ...], switches: tuple[str, ...] = ()
) -> tuple[dict[str, str], list[str]]:
    """Split options and words; an unknown option is refused."""
    found: dict[str, str] = {}
    words = []
    rest = iter(argv)
    for argument in rest:
        name, equals, value = argument.partition("=")
        if name in switches:
            found[name] = value or "true"
        elif name in valued:
            found[name] = value if equals else next(rest)
        elif argument.startswith("-"):
            raise SimulatedError(f"unknown flag: {name}")
        else:
            words.append(argument)
    return found, words


def own_minor() -> str:
    return ".".join(common.VERSION.split(".")[:2])


def preflight(control_plane: bool, version: str | None, ignored: list[str]) -> None:
    """Collect what is wrong, as kubeadm shows it."""
    errors = system_errors(ignored)
    ports = (6443, 10250, 10257, 10259, 2379, 2380) if control_plane else (10250,)
    for port in ports:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                errors.append(f"[ERROR Port-{port}]: Port {port} is in use")
    manifests = [f"{name}.yaml" for name in (*COMPONENTS.values(), "etcd")]
    for path in [
        *(MANIFESTS / name for name in manifests),
        KUBERNETES / "kubelet.conf",
        KUBERNETES / "bootstrap-kubelet.conf",
    ]:
        if path.exists():
            errors.append(f"[ERROR FileAvailable-{str(path).replace('/', '-')}]: {path} already exists")
    used = common.DATA.is_dir() and any(common.DATA.iterdir())
    if control_plane and used and "DirAvailable--var-lib-etcd" not in ignored:
        errors.append("[ERROR DirAvailable--var-lib-etcd]: /var/lib/etcd is not empty")
    for name in ("net/ipv4/ip_forward", "net/bridge/bridge-nf-call-iptables"):
        path = Path("/proc/sys") / name
        if not path.exists() or path.read_text(encoding="ascii").strip() != "1":
            errors.append(f"[ERROR FileContent--proc-sys-{name.replace('/', '-')}]: {path} contents are not set to 1")
    if len(Path("/proc/swaps").read_text(encoding="ascii").splitlines()) > 1:
        errors.append("[ERROR Swap]: running with swap on is not supported")
    if common.run("systemctl", "is-enabled", "kubelet.service", check=False).strip() != "enabled":
        errors.append(
            "[ERROR Service-Kubelet]: kubelet service is not enabled, please run 'systemctl enable kubelet.service'"
        )
    for link in ("cni0", "flannel.1"):
        if (Path("/sys/class/net") / link).exists():
            errors.append(f"[ERROR simulated-leftover]: the link {link} of an earlier cluster is there")
    errors += runtime_errors()
    if version and ".".join(version.removeprefix("v").split(".")[:2]) != own_minor():
        errors.append(
            f"[ERROR KubernetesVersion]: this is kubeadm {common.VERSION}, the cluster's version is {version}"
        )
    fail_preflight(errors)


def system_errors(ignored: list[str]) -> list[str]:
    """As the real one since 1.35, also where kubelet is told failCgroupV1: false."""
    kind = common.run("stat", "--file-system", "--format=%T", "/sys/fs/cgroup").strip()
    if kind == "cgroup2fs" or "SystemVerification" in ignored:
        return []
    return [
        "[ERROR SystemVerification]: cgroups v1 support is deprecated and will be removed in a future release. "
        "You must also explicitly skip this validation."
    ]


def fail_preflight(errors: list[str]) -> None:
    """Show what is wrong as kubeadm does, where something is."""
    if errors:
        lines = "\n\t".join(errors)
        raise SimulatedError(f"[preflight] Some fatal errors occurred:\n\t{lines}")


def runtime_errors() -> list[str]:
    """Look at the real containerd."""
    plugins = common.run("ctr", "plugins", "list", check=False)
    if not re.search(r"^io\.containerd\.grpc\.v1\s+cri\s.*\bok\b", plugins, re.M):
        return ["[ERROR CRI]: could not connect to the container runtime: the CRI plugin of containerd does not run"]
    dump = common.run("containerd", "config", "dump")
    wanted = f"pause:{common.PAUSE[own_minor()]}"
    found = re.search(r"(?:sandbox_image|sandbox) = ['\"](.*?)['\"]", dump)
    if not found or not found.group(1).endswith(wanted):
        return [f"[ERROR simulated-sandbox]: containerd has {found and found.group(1)}, kubeadm wants {wanted}"]
    return []


def make_authorities() -> None:
    """Make what all control planes share, as far as it is not there."""
    for name in ("ca", "front-proxy-ca", "etcd/ca"):
        if not (PKI / f"{name}.key").exists():
            common.certificate(name, None, f"/CN={name.replace('/', '-')}", days=3650)
    if (PKI / "sa.key").exists():
        return
    common.run("openssl", "ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", str(PKI / "sa.key"))
    (PKI / "sa.key").chmod(0o600)
    common.write(PKI / "sa.pub", common.run("openssl", "pkey", "-in", str(PKI / "sa.key"), "-pubout"), 0o644)


def make_control_plane(cluster: dict[str, Any], node: str, address: str) -> None:
    """Make the certificates, credentials and manifests of one control plane."""
    make_certificates(cluster, node, address)
    for part, component in PARTS.items():
        write_manifest(cluster, part, component, address)


def make_certificates(cluster: dict[str, Any], node: str, address: str) -> None:
    """Make, or make anew, the certificates and credentials of one control plane."""
    names = [node, "kubernetes", "kubernetes.default", address, *cluster["apiServer"]["certSANs"]]
    common.certificate("apiserver", "ca", "/CN=kube-apiserver", "serverAuth", sorted({*names}))
    common.certificate("apiserver-kubelet-client", "ca", "/O=kubeadm:cluster-admins/CN=apiserver", "clientAuth")
    common.certificate("front-proxy-client", "front-proxy-ca", "/CN=front-proxy-client", "clientAuth")
    for name in ("server", "peer"):
        common.certificate(
            f"etcd/{name}", "etcd/ca", f"/CN={node}", "serverAuth,clientAuth", [node, address, "127.0.0.1"]
        )
    common.certificate("apiserver-etcd-client", "etcd/ca", "/CN=apiserver-etcd-client", "clientAuth")
    server = f"https://{cluster['controlPlaneEndpoint']}"
    users = {
        "admin.conf": ("/O=kubeadm:cluster-admins/CN=kubernetes-admin", server),
        "controller-manager.conf": ("/CN=system:kube-controller-manager", f"https://{address}:6443"),
        "scheduler.conf": ("/CN=system:kube-scheduler", f"https://{address}:6443"),
    }
    for name, (subject, target) in users.items():
        credentials(name, subject, target)
    if (KUBERNETES / "super-admin.conf").exists():
        credentials("super-admin.conf", "/O=system:masters/CN=kubernetes-super-admin", f"https://{address}:6443")


def credentials(name: str, subject: str, server: str) -> None:
    """Write a kubeconfig with a new client certificate."""
    common.certificate("tmp", "ca", subject, "clientAuth")
    key, pem = PKI / "tmp.key", PKI / "tmp.crt"
    common.write(
        KUBERNETES / name, common.kubeconfig(server, pem.read_text(encoding="utf-8"), key.read_text(encoding="utf-8"))
    )
    key.unlink()
    pem.unlink()


def write_manifest(cluster: dict[str, Any], part: str, component: str, address: str) -> None:
    """Write a static Pod's manifest."""
    told = cluster["etcd"]["local"] if part == "etcd" else cluster[part]
    given = {argument["name"]: argument["value"] for argument in told.get("extraArgs", [])}
    defaults = {
        "kube-apiserver": {"advertise-address": address},
        "etcd": {"listen-peer-urls": f"https://{address}:2380"},
    }.get(component, {})
    volumes = told.get("extraVolumes", [])
    manifest = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": component, "namespace": "kube-system"},
        "spec": {
            "hostNetwork": True,
            "containers": [
                {
                    "name": component,
                    "image": f"{cluster['imageRepository']}/{component}:{cluster['kubernetesVersion']}",
                    "command": [component, *(f"--{name}={value}" for name, value in {**defaults, **given}.items())],
                    "volumeMounts": [{"name": item["name"], "mountPath": item["mountPath"]} for item in volumes],
                }
            ],
            "volumes": [{"name": item["name"], "hostPath": {"path": item["hostPath"]}} for item in volumes],
        },
    }
    common.write(MANIFESTS / f"{component}.yaml", yaml.safe_dump(manifest))


def write_kubelet(document: dict[str, Any], registration: dict[str, Any]) -> None:
    """Write what kubelet reads."""
    content = {**document, "staticPodPath": str(MANIFESTS)}
    common.write(common.KUBELET / "config.yaml", yaml.safe_dump(content), 0o644)
    common.write(common.KUBELET / "registration.json", json.dumps(registration))
    arguments = [f"--{item['name']}={item['value']}" for item in registration["kubeletExtraArgs"]]
    common.write(common.KUBELET / "kubeadm-flags.env", f'KUBELET_KUBEADM_ARGS="{" ".join(arguments)}"\n', 0o644)


def start_kubelet() -> None:
    """Start it and wait until it is healthy."""
    common.run("systemctl", "restart", "kubelet.service")
    wait("kubelet", "http://127.0.0.1:10248/healthz")


def wait(what: str, url: str, seconds: int = 40) -> None:
    """Wait for an ok."""
    end = time.monotonic() + seconds
    context = ssl._create_unverified_context()
    while True:
        try:
            with urllib.request.urlopen(url, context=context if url.startswith("https") else None, timeout=5) as answer:
                if answer.read() == b"ok":
                    return
        except OSError:
            pass
        if time.monotonic() > end:
            raise SimulatedError(f"[wait] the {what} is not healthy after {seconds}s: see journalctl -xeu kubelet")
        time.sleep(0.2)


def found_cluster(found: dict[str, Any], registration: dict[str, Any], address: str, ignored: list[str]) -> None:
    """What kubeadm init does before its kubelet registers the node."""
    cluster = found["ClusterConfiguration"]
    preflight(True, cluster["kubernetesVersion"], [*registration.get("ignorePreflightErrors", []), *ignored])
    say_phase("certs", "Generating certificates")
    make_authorities()
    make_control_plane(cluster, registration["name"], address)
    credentials("super-admin.conf", "/O=system:masters/CN=kubernetes-super-admin", f"https://{address}:6443")
    credentials(
        "kubelet.conf",
        f"/O=system:nodes/CN=system:node:{registration['name']}",
        f"https://{cluster['controlPlaneEndpoint']}",
    )
    state = {
        "revision": 1,
        "own": registration["name"],
        "config": None,
        "tokens": {},
        "certs": None,
        "nodes": {},
        "requests": {},
        "pods": {},
        "addons": cluster["kubernetesVersion"],
        "members": {registration["name"]: {"address": address, "id": str(secrets.randbits(63))}},
    }
    # etcd starts over the data that are there.
    if not common.STATE.exists():
        common.write(common.STATE, json.dumps(state))
    write_kubelet(found["KubeletConfiguration"], registration)
    die_if_asked("init")
    start_kubelet()


def initialise(argv: list[str]) -> None:
    """kubeadm init."""
    given, words = options(
        argv,
        ("--config", "--ignore-preflight-errors"),
        ("--skip-token-print", "--upload-certs", "--skip-certificate-key-print"),
    )
    found = common.documents(Path(given.get("--config", "")))
    schema.validate(found)
    if words[:2] == ["phase", "upload-certs"]:
        upload(given, found)
        return
    if words:
        raise SimulatedError(f"unknown command {words}")
    cluster = found["ClusterConfiguration"]
    if "kubernetesVersion" not in cluster:
        raise SimulatedError("stand-in: no kubernetesVersion, so that kubeadm would ask the internet")
    if "--skip-token-print" not in given:
        raise SimulatedError("stand-in: a token would be printed")
    registration = found["InitConfiguration"]["nodeRegistration"]
    address = found["InitConfiguration"]["localAPIEndpoint"]["advertiseAddress"]
    skipped = found["InitConfiguration"].get("skipPhases", [])
    if skipped and (set(skipped) != FIRST_PHASES or not common.STATE.exists()):
        raise SimulatedError(f"stand-in: cannot go on with {skipped} skipped, wanted those that were done before")
    if not skipped:
        found_cluster(found, registration, address, given.get("--ignore-preflight-errors", "").split(","))
    wait("API server", f"https://{address}:6443/livez")
    die_if_asked("init-late")
    client = common.Client(KUBERNETES / "admin.conf")
    kinds = ("ClusterConfiguration", "KubeletConfiguration", "KubeProxyConfiguration")
    client.call("upload_config", config={kind: found[kind] for kind in kinds})
    mark_control_plane(registration["name"])
    say_phase(
        "init", "Your Kubernetes control-plane has initialized successfully (stand-in: nothing of it is Kubernetes)"
    )


def say_phase(phase: str, text: str) -> None:
    common.say(f"[{phase}] {text}")


def die_if_asked(phase: str) -> None:
    """Kill what called, and this program, once, where a test asks for it: a run that goes down in the middle."""
    mark = common.FAULTS / f"kill-{phase}"
    if mark.exists():
        mark.unlink()
        os.kill(os.getppid(), signal.SIGKILL)
        os.kill(os.getpid(), signal.SIGKILL)


def crypt(text: str, key: str, decrypt: bool) -> str:
    """Encrypt or decrypt with the certificate key."""
    mode = ["-d"] if decrypt else []
    argv = ["openssl", "enc", "-aes-256-cbc", "-pbkdf2", "-a", "-A", *mode, "-pass", "env:SIMULATED_KEY"]
    return common.run(*argv, stdin=text, env={"SIMULATED_KEY": key})


def upload(given: dict[str, str], found: dict[str, dict[str, Any]]) -> None:
    """kubeadm init phase upload-certs."""
    if "--upload-certs" not in given:
        raise SimulatedError("stand-in: nothing is uploaded without --upload-certs")
    if "kubernetesVersion" not in found.get("ClusterConfiguration", {}):
        raise SimulatedError("stand-in: no kubernetesVersion, so that kubeadm would ask the internet")
    # kubeadm's own client goes there first, whatever the credentials say.
    endpoint = found.get("InitConfiguration", {}).get("localAPIEndpoint", {}).get("advertiseAddress", "")
    wait("API server", f"https://{endpoint}:6443/livez")
    key = found.get("InitConfiguration", {}).get("certificateKey") or secrets.token_hex(32)
    common.note(key)
    if "--skip-certificate-key-print" not in given:
        common.say(f"[upload-certs] Using certificate key:\n{key}")
    files = {name: (PKI / name).read_text(encoding="utf-8") for name in SHARED}
    common.Client(KUBERNETES / "admin.conf").call("upload_certs", data=crypt(json.dumps(files), key, False))


def join(argv: list[str]) -> None:
    """kubeadm join."""
    given, words = options(argv, ("--config",))
    if words or "--config" not in given:
        raise SimulatedError("stand-in: wanted --config alone")
    found = common.documents(Path(given["--config"]))
    schema.validate(found)
    document = found["JoinConfiguration"]
    told, registration = document["discovery"]["bootstrapToken"], document["nodeRegistration"]
    plane = document.get("controlPlane")
    preflight(plane is not None, None, registration.get("ignorePreflightErrors", []))
    server = f"https://{told['apiServerEndpoint']}"
    # The real one waits for cluster-info for minutes, and repeats what it reads.
    authority = str(
        common.patiently(
            lambda: common.ask(common.connect(server, ssl._create_unverified_context()), None, CLUSTER_INFO), 30
        )
    )
    if common.authority_hash(authority) not in told["caCertHashes"]:
        raise SimulatedError(
            "couldn't validate the identity of the API Server: cluster CA found in cluster-info is not pinned"
        )

    def call(operation: str, **arguments: Any) -> Any:
        context, asked = ssl.create_default_context(cadata=authority), {"operation": operation, **arguments}
        patience = 30 if operation.startswith("fetch_") else 0
        return common.patiently(
            lambda: common.ask(common.connect(server, context), asked, "/simulated", told["token"]), patience
        )

    config = call("fetch_config")
    cluster = config["ClusterConfiguration"]
    if ".".join(cluster["kubernetesVersion"].removeprefix("v").split(".")[:2]) != own_minor():
        raise SimulatedError(
            f"this is kubeadm {common.VERSION}, the cluster's version is {cluster['kubernetesVersion']}"
        )
    PKI.mkdir(parents=True, exist_ok=True)
    common.write(PKI / "ca.crt", authority, 0o644)
    if plane is not None:
        enter_control_plane(call, cluster, registration["name"], plane)
    write_kubelet(config["KubeletConfiguration"], registration)
    common.write(
        KUBERNETES / "bootstrap-kubelet.conf",
        json.dumps({"server": server, "token": told["token"], "name": registration["name"]}),
    )
    die_if_asked("join")
    start_kubelet()
    end = time.monotonic() + 60
    while not (KUBERNETES / "kubelet.conf").exists():
        if time.monotonic() > end:
            raise SimulatedError("[kubelet-start] timed out waiting for the TLS bootstrap")
        time.sleep(0.2)
    (KUBERNETES / "bootstrap-kubelet.conf").unlink()
    if plane is not None:
        mark_control_plane(registration["name"])
    say_phase("join", "This node has joined the cluster (stand-in: nothing of it is Kubernetes)")


def mark_control_plane(name: str) -> None:
    """Give the node its label, as soon as kubelet has registered it."""
    client = common.Client(KUBERNETES / "admin.conf")
    end = time.monotonic() + 60
    while name not in client.call("list_nodes"):
        if time.monotonic() > end:
            raise SimulatedError(f"[mark-control-plane] kubelet has not registered {name}")
        time.sleep(0.2)
    client.call("mark_control_plane", name=name)


def enter_control_plane(call: Any, cluster: dict[str, Any], node: str, plane: dict[str, Any]) -> None:
    """Fetch the shared keys, make the own ones, and enter etcd."""
    address = plane["localAPIEndpoint"]["advertiseAddress"]
    for name, text in json.loads(crypt(call("fetch_certs"), plane["certificateKey"], True)).items():
        common.write(PKI / name, text, 0o600 if name.endswith(".key") else 0o644)
    make_control_plane(cluster, node, address)
    shared = call("add_member", name=node, address=address)
    common.write(common.STATE, json.dumps({**shared, "own": node}))


def reset(argv: list[str]) -> None:
    """kubeadm reset; it leaves links, networks and what others wrote."""
    given, words = options(argv, ("--cri-socket",), ("--force",))
    if words or "--force" not in given:
        raise SimulatedError("stand-in: nobody answers the question whether to go on: wanted --force")
    admin = KUBERNETES / "admin.conf"
    if admin.exists() and common.STATE.exists():
        own = json.loads(common.STATE.read_text(encoding="utf-8"))["own"]
        try:
            client = common.Client(admin)
            if own not in client.call("list_nodes"):
                common.say(
                    f"[reset] Unable to fetch the kubeadm-config ConfigMap: no node {own}; its etcd stays a member"
                )
            else:
                client.call("remove_member", name=own)
        except SimulatedError as fault:
            common.say(f"[reset] WARNING: {fault}")
    common.run("systemctl", "stop", "kubelet.service")
    for directory in (MANIFESTS, common.KUBELET, PKI, common.DATA):
        for path in sorted(directory.rglob("*"), reverse=True) if directory.is_dir() else []:
            path.rmdir() if path.is_dir() else path.unlink()
    for path in KUBERNETES.glob("*.conf"):
        path.unlink()
    for path in common.CONTAINERS.glob("*"):
        path.unlink()
    common.say("[reset] The reset process does not reset or clean up iptables, nftables or CNI configuration")


def own_node() -> dict[str, Any]:
    """What this node was registered with."""
    found: dict[str, Any] = json.loads((common.KUBELET / "registration.json").read_text(encoding="utf-8"))
    return found


def own_address() -> str:
    return str(next(item["value"] for item in own_node()["kubeletExtraArgs"] if item["name"] == "node-ip"))


def nodes_of(client: common.Client) -> dict[str, dict[str, Any]]:
    return {name: client.call("get_node", name=name) for name in client.call("list_nodes")}


def is_ready(node: dict[str, Any]) -> bool:
    return any(item["type"] == "Ready" and item["status"] == "True" for item in node["status"]["conditions"])


def planes_of(client: common.Client) -> dict[str, str]:
    """The version of each API server that runs."""
    return {
        pod["spec"]["nodeName"]: pod["spec"]["containers"][0]["image"].rpartition(":")[2]
        for pod in client.call("list_pods")
        if pod["spec"]["containers"][0]["name"] == "kube-apiserver"
    }


def upgrade_preflight(client: common.Client) -> None:
    """What kubeadm looks at before an upgrade, and that containerd was configured for the new version."""
    errors = runtime_errors()
    nodes = nodes_of(client)
    ill = [name for name in planes_of(client) if not is_ready(nodes[name])]
    if ill:
        errors.append(f"[ERROR ControlPlaneNodesReady]: there are NotReady control-planes in the cluster: {ill}")
    errors += [
        f"[ERROR StaticPodManifest]: manifest files not found: {name}"
        for name in PARTS.values()
        if not (MANIFESTS / f"{name}.yaml").exists()
    ]
    fail_preflight(errors)


def version_errors(target: str, cluster: str, nodes: dict[str, dict[str, Any]]) -> list[str]:
    """kubeadm's version policies, without --force. It would go back by one minor."""
    wanted, found, own = common.numbers(target), common.numbers(cluster), common.numbers(common.VERSION)
    errors = []
    if wanted[1] > found[1] + 1:
        errors.append(
            f'Specified version to upgrade to "{target}" is too high; kubeadm can upgrade only 1 minor '
            "version at a time"
        )
    if wanted[1] < found[1] - 1:
        errors.append(
            f'Specified version to downgrade to "{target}" is too low; kubeadm can downgrade only 1 minor '
            "version at a time"
        )
    if wanted > own:
        errors.append(
            f'Specified version to upgrade to "{target}" is higher than the kubeadm version "v{common.VERSION}"'
        )
    if own[1] > wanted[1]:
        errors.append(f"Kubeadm version v{common.VERSION} can only be used to upgrade to Kubernetes version 1.{own[1]}")
    kubelets = {name: common.numbers(node["status"]["nodeInfo"]["kubeletVersion"]) for name, node in nodes.items()}
    old = [name for name, kubelet in kubelets.items() if wanted[1] > kubelet[1] + 3]
    if old:
        errors.append(f"There are kubelets in this cluster that are too old that have these versions {old}")
    return errors


def upgrade_static_pods(client: common.Client, target: str) -> None:
    """Renew the certificates, and replace the static Pods one after the other; each has to come up."""
    cluster = client.call("fetch_config")["ClusterConfiguration"]
    cluster["kubernetesVersion"] = target
    name, address = own_node()["name"], own_address()
    for part, component in PARTS.items():
        say_phase("upgrade/staticpods", f"Preparing for {component!r} upgrade")
        path = MANIFESTS / f"{component}.yaml"
        older = not common.image_of(yaml.safe_load(path.read_text(encoding="utf-8"))).endswith(f":{target}")
        if part == "etcd" and older:
            make_certificates(cluster, name, address)
        before = common.running(component)
        digest = common.digest(path)
        write_manifest(cluster, part, component, address)
        if common.digest(path) == digest:
            say_phase("upgrade/staticpods", f"Current and new manifests of {component} are equal, skipping upgrade")
            continue
        end = time.monotonic() + 60
        while common.running(component) in (None, before):
            if time.monotonic() > end:
                raise SimulatedError(f"couldn't upgrade control plane: {component} did not come up")
            time.sleep(0.2)
    wait("API server", f"https://{address}:6443/livez")


def upgrade_kubelet_config(config: dict[str, Any]) -> None:
    content = {**config["KubeletConfiguration"], "staticPodPath": str(MANIFESTS)}
    common.write(common.KUBELET / "config.yaml", yaml.safe_dump(content), 0o644)


def upgrade_addons(client: common.Client, target: str) -> None:
    """CoreDNS and kube-proxy follow when no control plane is older any more."""
    end = time.monotonic() + 20
    own = own_node()["name"]
    while planes_of(client).get(own) != target and time.monotonic() < end:
        time.sleep(0.2)
    older = sorted(name for name, version in planes_of(client).items() if version != target)
    if older:
        say_phase(
            "upgrade/addon",
            f"Skipping upgrade of addons because control plane instances {older} have not been upgraded",
        )
        return
    client.call("set_addons", version=target)
    say_phase("upgrade/addon", f"upgraded to {target}")


def upgrade(argv: list[str]) -> None:
    """kubeadm upgrade."""
    command, rest = argv[:1], argv[1:]
    given, words = options(rest, ("--ignore-preflight-errors",), ("--yes",))
    # Of the host itself; plan does not look at it.
    system = system_errors(given.pop("--ignore-preflight-errors", "").split(","))
    if command == ["node"] and not words and not given:
        fail_preflight(system)
        upgrade_node()
        return
    if command not in (["plan"], ["apply"]) or len(words) != 1 or not re.fullmatch(r"v1(\.[0-9]+){2}", words[0]):
        raise SimulatedError(
            f"stand-in: upgrade {argv} is not simulated, or names no version, so that kubeadm would ask the internet"
        )
    target = words[0]
    client = common.Client(KUBERNETES / "admin.conf")
    upgrade_preflight(client)
    cluster = client.call("fetch_config")["ClusterConfiguration"]["kubernetesVersion"]
    if command == ["plan"]:
        say_phase("upgrade/versions", f"Target version: {target}")
        common.say(
            f"You can now apply the upgrade by executing the following command:\n\n\tkubeadm upgrade apply {target}\n"
        )
        common.say("API GROUP                 CURRENT VERSION   PREFERRED VERSION   MANUAL UPGRADE REQUIRED")
        common.say("kubelet.config.k8s.io     v1beta1           v1beta1             no")
        return
    if "--yes" not in given:
        raise SimulatedError("stand-in: nobody answers the question whether to go on: wanted --yes")
    fail_preflight(system)
    errors = version_errors(target, cluster, nodes_of(client))
    if errors:
        lines = "\n\t- ".join(errors)
        raise SimulatedError(
            f"[upgrade/version] FATAL: the --version argument is invalid due to these fatal errors:\n\n\t- {lines}"
        )
    upgrade_static_pods(client, target)
    die_if_asked("upgrade-apply")
    client.call("set_version", version=target)
    upgrade_kubelet_config(client.call("fetch_config"))
    upgrade_addons(client, target)
    say_phase("upgrade", f"SUCCESS! A control plane node of your cluster was upgraded to {target!r}. (stand-in)")


def upgrade_node() -> None:
    """kubeadm upgrade node: a further control plane, or a worker with the node's own credentials."""
    plane = (MANIFESTS / "kube-apiserver.yaml").exists()
    client = common.Client(KUBERNETES / ("admin.conf" if plane else "kubelet.conf"))
    config = client.call("fetch_config", name=own_node()["name"])
    target = config["ClusterConfiguration"]["kubernetesVersion"]
    if target != f"v{common.VERSION}":
        raise SimulatedError(
            f"this is kubeadm {common.VERSION}, the cluster's version is {target}: apply comes before node"
        )
    if plane:
        upgrade_preflight(client)
        upgrade_static_pods(client, target)
    die_if_asked("upgrade-node")
    upgrade_kubelet_config(config)
    if plane:
        upgrade_addons(client, target)
    say_phase("upgrade", "The configuration for this node was successfully updated! (stand-in)")


def certs(argv: list[str]) -> None:
    """kubeadm certs."""
    if argv != ["renew", "all"]:
        raise SimulatedError(f"stand-in: certs {argv} is not simulated")
    if not (MANIFESTS / "kube-apiserver.yaml").exists():
        raise SimulatedError("stand-in: no control plane")
    cluster = common.Client(KUBERNETES / "admin.conf").call("fetch_config")["ClusterConfiguration"]
    make_certificates(cluster, own_node()["name"], own_address())
    die_if_asked("certs-renew")
    common.say(
        "Done renewing certificates. You must restart the kube-apiserver, kube-controller-manager, kube-scheduler "
        "and etcd"
    )


def token(argv: list[str]) -> None:
    """kubeadm token."""
    given, words = options(argv, ("--kubeconfig", "--ttl", "--description"))
    client = common.Client(Path(given.get("--kubeconfig", KUBERNETES / "admin.conf")))
    if words == ["create"]:
        matched = re.fullmatch(r"([0-9]+)m0s", given.get("--ttl", "24h0m0s"))
        if matched is None:
            raise SimulatedError("stand-in: wanted a token that lives for minutes")
        seconds = 60 * int(matched.group(1))
        common.say(client.call("create_token", seconds=seconds, description=given.get("--description", "")))
    elif words[:1] == ["delete"] and len(words) == 2:
        client.call("delete_token", identity=words[1])
    elif words == ["list"]:
        common.say("\n".join(client.call("list_tokens")))
    else:
        raise SimulatedError(f"unknown command token {words}")


def config(argv: list[str]) -> None:
    """kubeadm config."""
    given, words = options(argv, ("--config", "--kubernetes-version", "--image-repository"))
    if words == ["validate"]:
        schema.validate(common.documents(Path(given["--config"])))
        common.say("ok")
    elif words == ["images", "list"]:
        minor = ".".join(given["--kubernetes-version"].removeprefix("v").split(".")[:2])
        if minor != own_minor():
            raise SimulatedError(f"this version of kubeadm only supports deploying clusters with {own_minor()}")
        repository = given.get("--image-repository", "registry.k8s.io")
        for name in (*COMPONENTS.values(), "kube-proxy"):
            common.say(f"{repository}/{name}:{given['--kubernetes-version']}")
        common.say(f"{repository}/pause:{common.PAUSE[minor]}")
    else:
        raise SimulatedError(f"unknown command config {words}")


def main(argv: list[str]) -> None:
    """Choose the command."""
    commands = {
        "init": initialise,
        "join": join,
        "reset": reset,
        "token": token,
        "config": config,
        "upgrade": upgrade,
        "certs": certs,
    }
    if argv[:1] == ["version"]:
        common.say(f"v{common.VERSION}")
    elif argv[:1] and argv[0] in commands:
        commands[argv[0]](argv[1:])
    else:
        raise SimulatedError(f"unknown command {argv[:1]}")


if __name__ == "__main__":
    common.Client.patience = 20
    common.main(main)
