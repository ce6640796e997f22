# SPDX-License-Identifier: Apache-2.0
# PRIVATE to the collection: do not import this from outside, it may change without notice.
"""What kubeadm and the API server are told: documents of kubeadm's v1beta4, and the files that the API server reads.

All of it is pure and free of secrets, but for the encryption configuration. Tokens and certificate keys are put in on
the host, by the module that joins it.

Sources: kubeadm's configuration reference (v1beta4), those of kubelet (v1beta1), kube-proxy (v1alpha1) and of the API
server (apiserver.config.k8s.io/v1, audit.k8s.io/v1), and the CIS Kubernetes Benchmark, whose points that kubeadm leaves
open are set here.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import ipaddress
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ansible_collections.gpufleet.metal.plugins.module_utils._kubernetes import versions

DIRECTORY = "/etc/kubernetes/gpufleet"
"""What the API server reads besides kubeadm's own files; kubeadm reset leaves it alone."""

LOG_DIRECTORY = "/var/log/kubernetes"
KUBELET_CA = "/etc/kubernetes/pki/ca.crt"
CRI_SOCKET = "unix:///run/containerd/containerd.sock"
API_PORT = 6443
KUBEADM = "kubeadm.k8s.io/v1beta4"

_NODE_NAME = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
_ENDPOINT = re.compile(r"(\[[0-9A-Fa-f:]+\]|[A-Za-z0-9.-]+):([0-9]{1,5})")
_ETCD_TAG = re.compile(r"v?([0-9]+)\.([0-9]+)\.[0-9]+")
_ENCRYPTION_KEY_BYTES = 32
_MAXIMUM_NAME = 253
_LARGEST_SERVICE_BITS = 20
_NODE_PREFIX = 24
_DNS_POSITION = 10

#: kubelet may give its own node no other labels below kubernetes.io and k8s.io.
_OWN_LABELS = re.compile(r"(kubelet|node)\.kubernetes\.io/.+|[^/]*\.(kubelet|node)\.kubernetes\.io/.+")
_CLUSTER_LABEL = re.compile(r"([^/]*\.)?(kubernetes|k8s)\.io/.+")
_TAINT_EFFECTS = ("NoSchedule", "PreferNoSchedule", "NoExecute")

#: Paths that are answered without a name: what kubeadm's own probes and load balancers ask, and what a joining host
#: reads before it trusts the cluster.
_ANONYMOUS_PATHS = (
    "/livez",
    "/readyz",
    "/healthz",
    "/api/v1/namespaces/kube-public/configmaps/cluster-info",
)

_TLS12_SUITES = (
    "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256",
    "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256",
    "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384",
    "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384",
    "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256",
    "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256",
)
TLS_MINIMUMS = ("VersionTLS12", "VersionTLS13")

#: Who changed what, without the contents of Secrets and without the noise of the cluster's own parts.
AUDIT_RULES: tuple[Mapping[str, Any], ...] = (
    {"level": "None", "nonResourceURLs": ["/healthz*", "/livez*", "/readyz*", "/version", "/openapi/*"]},
    {
        "level": "None",
        "userGroups": ["system:nodes"],
        "verbs": ["get", "list", "watch"],
        "resources": [{"group": "", "resources": ["nodes", "nodes/status", "pods", "services"]}],
    },
    {
        "level": "None",
        "users": ["system:kube-scheduler", "system:kube-controller-manager", "system:apiserver", "system:kube-proxy"],
        "verbs": ["get", "list", "watch"],
    },
    {"level": "None", "resources": [{"group": "coordination.k8s.io", "resources": ["leases"]}]},
    {"level": "None", "resources": [{"group": "", "resources": ["events"]}, {"group": "events.k8s.io"}]},
    {
        "level": "Metadata",
        "resources": [
            {"group": "", "resources": ["secrets", "configmaps", "serviceaccounts/token"]},
            {"group": "authentication.k8s.io", "resources": ["tokenreviews"]},
        ],
    },
    {"level": "Metadata", "verbs": ["get", "list", "watch"]},
    {"level": "Request", "verbs": ["create", "update", "patch", "delete", "deletecollection"]},
    {"level": "Metadata"},
)


@dataclass(frozen=True)
class Settings:
    """What one host is told. The names are those of the role's options, without the role's own."""

    role: str
    version: str
    node_name: str
    address: str
    endpoint: str
    control_planes: tuple[Mapping[str, str], ...] = ()
    endpoint_names: tuple[str, ...] = ()
    pod_network: str = "10.244.0.0/16"
    service_network: str = "10.96.0.0/12"
    dns_domain: str = "cluster.local"
    cluster_name: str = "gpufleet"
    image_repository: str = "registry.k8s.io"
    etcd_image_tag: str | None = None
    cgroup_driver: str = "systemd"
    cgroup_v1_allowed: bool = False
    resolv_conf: str | None = None
    tls_minimum: str = "VersionTLS13"
    protect_kernel_defaults: bool = True
    labels: Mapping[str, str] = field(default_factory=dict)
    taints: tuple[Mapping[str, str], ...] = ()
    encryption_keys: tuple[str, ...] = ()
    audit_rules: tuple[Mapping[str, Any], ...] = ()
    audit_log: Mapping[str, int] = field(default_factory=dict)
    kubelet_options: Mapping[str, Any] = field(default_factory=dict)
    kube_proxy_options: Mapping[str, Any] = field(default_factory=dict)
    api_server_arguments: Mapping[str, str] = field(default_factory=dict)


def settings(options: Mapping[str, Any]) -> Settings:
    """Take the role's options; what is null keeps its default."""
    values: dict[str, Any] = {}
    for name, value in options.items():
        if value is not None:
            values[name] = tuple(value) if isinstance(value, list) else value
    return Settings(**values)


def _network(name: str, text: str) -> tuple[Any, str | None]:
    try:
        return ipaddress.ip_network(text), None
    except ValueError as fault:
        return None, f"kubernetes_{name} is '{text}', wanted a network such as 10.244.0.0/16 ({fault})"


def _network_faults(told: Settings) -> list[str]:
    pods, pod_fault = _network("pod_network", told.pod_network)
    services, service_fault = _network("service_network", told.service_network)
    found = [fault for fault in (pod_fault, service_fault) if fault]
    if found:
        return found
    if pods.version == services.version and pods.overlaps(services):
        found.append(
            f"kubernetes_pod_network is '{told.pod_network}', which overlaps kubernetes_service_network "
            f"({told.service_network}), wanted two networks apart"
        )
    addresses = {told.address, *(plane["address"] for plane in told.control_planes)}
    for name, network in (("pod_network", pods), ("service_network", services)):
        inside = sorted(
            address for address in addresses if _is_address(address) and ipaddress.ip_address(address) in network
        )
        if inside:
            found.append(
                f"kubernetes_{name} is '{network}', which holds the hosts' own {', '.join(inside)}, wanted a network "
                f"of its own"
            )
    if pods.version == 4 and pods.prefixlen > _NODE_PREFIX:
        found.append(
            f"kubernetes_pod_network is '{told.pod_network}', wanted /{_NODE_PREFIX} or larger: each node takes a "
            f"/{_NODE_PREFIX} of it"
        )
    if services.max_prefixlen - services.prefixlen > _LARGEST_SERVICE_BITS:
        found.append(
            f"kubernetes_service_network is '{told.service_network}', wanted "
            f"/{services.max_prefixlen - _LARGEST_SERVICE_BITS} or smaller"
        )
    if services.max_prefixlen - services.prefixlen < 8:
        found.append(f"kubernetes_service_network is '{told.service_network}', wanted 256 addresses or more")
    return found


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def _registration_faults(told: Settings) -> list[str]:
    found = []
    if not _NODE_NAME.fullmatch(told.node_name) or len(told.node_name) > _MAXIMUM_NAME:
        found.append(
            f"kubernetes_node_name is '{told.node_name}', wanted lower-case letters, digits, hyphens and dots, as a "
            f"DNS name has them"
        )
    for label in sorted(told.labels):
        if _CLUSTER_LABEL.fullmatch(label) and not _OWN_LABELS.fullmatch(label):
            found.append(
                f"kubernetes_labels has '{label}', which a node may not give itself; wanted another prefix than "
                f"kubernetes.io, or node.kubernetes.io/"
            )
    for taint in told.taints:
        if taint.get("effect") not in _TAINT_EFFECTS:
            found.append(
                f"kubernetes_taints has {taint.get('key')} with effect '{taint.get('effect')}', wanted one of "
                f"{', '.join(_TAINT_EFFECTS)}"
            )
    return found


def key_name(secret: str) -> str:
    """Return the name of a key, the same as long as the key is, which tells nothing of it."""
    return "key-" + hashlib.sha256(secret.encode()).hexdigest()[:12]


def _key_faults(keys: Sequence[str]) -> list[str]:
    """What is wrong with the keys; no word of a key itself."""
    found = []
    if len({*keys}) < len(keys):
        found.append("kubernetes_encryption_keys has a key twice, wanted keys that differ")
    for position, key in enumerate(keys, 1):
        try:
            size = len(base64.b64decode(key, validate=True))
        except (binascii.Error, ValueError):
            size = -1
        if size != _ENCRYPTION_KEY_BYTES:
            shown = "no base64" if size < 0 else f"{size} bytes"
            found.append(
                f"kubernetes_encryption_keys: key {position} has {shown}, wanted {_ENCRYPTION_KEY_BYTES} random bytes "
                f"in base64, as the kind kubernetes_encryption_key of the store of secrets makes them"
            )
    return found


def _etcd_faults(told: Settings) -> list[str]:
    minor, tag = versions.find(told.version), told.etcd_image_tag
    if minor is None or tag is None:
        return []
    numbers = _ETCD_TAG.match(tag)
    if numbers and (int(numbers.group(1)), int(numbers.group(2))) >= minor.etcd:
        return []
    wanted = ".".join(map(str, minor.etcd))
    return [
        f"kubernetes_etcd_image_tag is '{tag}', wanted one such as {wanted}.8-0: kubeadm {minor.name} starts etcd with "
        f"arguments that those before {wanted} do not know"
    ]


def faults(told: Settings) -> list[str]:
    """Return what does not fit together, each with the option that changes it."""
    found = []
    if versions.minor_of(told.version) is None:
        found.append(
            f"kubernetes_version is '{told.version}', wanted a whole version such as {versions.default_version()}"
        )
    elif versions.find(told.version) is None:
        minors = ", ".join(versions.supported_minors())
        found.append(f"kubernetes_version is '{told.version}', wanted one of the minors {minors}")
    if not _is_address(told.address):
        found.append(f"kubernetes_address is '{told.address}', wanted the host's IP address")
    matched = _ENDPOINT.fullmatch(told.endpoint)
    if matched is None or not 0 < int(matched.group(2)) < 2**16:
        found.append(f"kubernetes_endpoint is '{told.endpoint}', wanted address:port or name:port of the API server")
    if not told.control_planes:
        found.append("kubernetes_control_planes is empty, wanted the name and the address of each control plane")
    if told.role == "control_plane" and told.control_planes:
        own = [plane["address"] for plane in told.control_planes if plane["name"] == told.node_name]
        if own and own != [told.address]:
            found.append(
                f"kubernetes_control_planes gives {told.node_name} the address {own[0]}, wanted that of "
                f"kubernetes_address ({told.address})"
            )
        if not own:
            names = ", ".join(plane["name"] for plane in told.control_planes)
            found.append(
                f"kubernetes_control_planes has {names} and not {told.node_name}, wanted this control plane among them"
            )
    found += _network_faults(told) + _registration_faults(told) + _key_faults(told.encryption_keys) + _etcd_faults(told)
    reserved = sorted({argument["name"] for argument in _api_server_arguments(told)} & {*told.api_server_arguments})
    found.extend(
        f"kubernetes_api_server_arguments has '{name}', which the role sets itself; wanted others"
        for name in reserved
        if name not in _REPLACEABLE
    )
    return found


#: What an operator may set otherwise.
_REPLACEABLE = ("enable-admission-plugins", "audit-log-maxage", "audit-log-maxbackup", "audit-log-maxsize")


def _arguments(pairs: Mapping[str, Any]) -> list[dict[str, str]]:
    return [{"name": name, "value": str(value)} for name, value in pairs.items()]


def _tls(told: Settings) -> dict[str, str]:
    pairs = {"tls-min-version": told.tls_minimum}
    # Go's TLS 1.3 has suites of its own, which nobody chooses.
    if told.tls_minimum == "VersionTLS12":
        pairs["tls-cipher-suites"] = ",".join(_TLS12_SUITES)
    return pairs


def _audit_log(told: Settings) -> dict[str, int]:
    return {"days": 30, "files": 10, "megabytes": 100, **told.audit_log}


def _api_server_arguments(told: Settings) -> list[dict[str, str]]:
    log = _audit_log(told)
    pairs: dict[str, Any] = {
        "profiling": "false",
        "authentication-config": f"{DIRECTORY}/authentication.yaml",
        "enable-admission-plugins": "NodeRestriction,EventRateLimit",
        "admission-control-config-file": f"{DIRECTORY}/admission.yaml",
        "audit-policy-file": f"{DIRECTORY}/audit.yaml",
        "audit-log-path": f"{LOG_DIRECTORY}/audit.log",
        "audit-log-maxage": log["days"],
        "audit-log-maxbackup": log["files"],
        "audit-log-maxsize": log["megabytes"],
        "kubelet-certificate-authority": KUBELET_CA,
        **_tls(told),
    }
    if told.encryption_keys:
        pairs["encryption-provider-config"] = f"{DIRECTORY}/encryption.yaml"
        # A new key is then taken over without a restart.
        pairs["encryption-provider-config-automatic-reload"] = "true"
    return _arguments(pairs)


def _merged_api_server_arguments(told: Settings) -> list[dict[str, str]]:
    pairs = {argument["name"]: argument["value"] for argument in _api_server_arguments(told)}
    return _arguments({**pairs, **told.api_server_arguments})


def _registration(told: Settings) -> dict[str, Any]:
    arguments: dict[str, Any] = {"node-ip": told.address}
    if told.labels:
        arguments["node-labels"] = ",".join(f"{name}={value}" for name, value in sorted(told.labels.items()))
    taints = [dict(taint) for taint in told.taints]
    if told.role == "control_plane":
        taints = [{"key": "node-role.kubernetes.io/control-plane", "effect": "NoSchedule"}, *taints]
    # kubelet's own failCgroupV1 is not enough: since 1.35 kubeadm's preflight refuses cgroup v1 unless it is told here.
    ignored = {"ignorePreflightErrors": ["SystemVerification"]} if told.cgroup_v1_allowed else {}
    return {
        "name": told.node_name,
        "criSocket": CRI_SOCKET,
        "imagePullPolicy": "IfNotPresent",
        "taints": taints,
        "kubeletExtraArgs": _arguments(arguments),
        **ignored,
    }


def _endpoint(told: Settings) -> dict[str, Any]:
    return {"advertiseAddress": told.address, "bindPort": API_PORT}


def init_document(told: Settings) -> dict[str, Any]:
    """Return what makes the first control plane. kubeadm always makes a token; this one is gone in a minute."""
    return {
        "apiVersion": KUBEADM,
        "kind": "InitConfiguration",
        "bootstrapTokens": [
            {
                "description": "made by kubeadm init, used by nobody",
                "ttl": "1m0s",
                "usages": ["authentication", "signing"],
                "groups": ["system:bootstrappers:kubeadm:default-node-token"],
            }
        ],
        "localAPIEndpoint": _endpoint(told),
        "nodeRegistration": _registration(told),
    }


def _volume(name: str, path: str, read_only: bool) -> dict[str, Any]:
    return {
        "name": name,
        "hostPath": path,
        "mountPath": path,
        "readOnly": read_only,
        "pathType": "Directory" if read_only else "DirectoryOrCreate",
    }


def cluster_document(told: Settings) -> dict[str, Any]:
    """Return what all control planes have in common; it is the same on each of them."""
    host = told.endpoint.rpartition(":")[0].strip("[]")
    names = {host, *told.endpoint_names, *(plane["address"] for plane in told.control_planes)}
    etcd: dict[str, Any] = {"dataDir": "/var/lib/etcd"}
    if told.etcd_image_tag:
        etcd["imageTag"] = told.etcd_image_tag
    common = {"profiling": "false", **_tls(told)}
    return {
        "apiVersion": KUBEADM,
        "kind": "ClusterConfiguration",
        "kubernetesVersion": f"v{told.version}",
        "clusterName": told.cluster_name,
        "controlPlaneEndpoint": told.endpoint,
        "imageRepository": told.image_repository,
        "networking": {
            "podSubnet": told.pod_network,
            "serviceSubnet": told.service_network,
            "dnsDomain": told.dns_domain,
        },
        "apiServer": {
            "certSANs": sorted(names),
            "extraArgs": _merged_api_server_arguments(told),
            "extraVolumes": [_volume("gpufleet", DIRECTORY, True), _volume("audit-log", LOG_DIRECTORY, False)],
        },
        "controllerManager": {"extraArgs": _arguments({**common, "terminated-pod-gc-threshold": 1000})},
        "scheduler": {"extraArgs": _arguments(common)},
        "etcd": {"local": etcd},
    }


def kubelet_document(told: Settings) -> dict[str, Any]:
    """Return what every kubelet of the cluster does."""
    services = ipaddress.ip_network(told.service_network)
    document: dict[str, Any] = {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "cgroupDriver": told.cgroup_driver,
        "failCgroupV1": not told.cgroup_v1_allowed,
        "clusterDNS": [str(services[_DNS_POSITION])],
        "clusterDomain": told.dns_domain,
        "rotateCertificates": True,
        "serverTLSBootstrap": True,
        "tlsMinVersion": told.tls_minimum,
        "protectKernelDefaults": told.protect_kernel_defaults,
        "readOnlyPort": 0,
        "authentication": {"anonymous": {"enabled": False}, "webhook": {"enabled": True}},
        "authorization": {"mode": "Webhook"},
        "streamingConnectionIdleTimeout": "4h0m0s",
        "makeIPTablesUtilChains": True,
        "eventRecordQPS": 50,
        # An engine with eight GPUs runs some thousand threads; a fork bomb more.
        "podPidsLimit": 32768,
        "seccompDefault": True,
        "containerLogMaxSize": "50Mi",
        "containerLogMaxFiles": 5,
    }
    if told.tls_minimum == "VersionTLS12":
        document["tlsCipherSuites"] = list(_TLS12_SUITES)
    # Left out, kubeadm itself sees whether systemd-resolved runs on a host.
    if told.resolv_conf:
        document["resolvConf"] = told.resolv_conf
    return _merged(document, told.kubelet_options)


def kube_proxy_document(told: Settings) -> dict[str, Any]:
    """Return what every kube-proxy of the cluster does."""
    document = {
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "mode": "nftables",
        "clusterCIDR": told.pod_network,
        "metricsBindAddress": "127.0.0.1:10249",
    }
    return _merged(document, told.kube_proxy_options)


def _merged(document: dict[str, Any], options: Mapping[str, Any]) -> dict[str, Any]:
    result = dict(document)
    for name, value in options.items():
        old = result.get(name)
        result[name] = _merged(old, value) if isinstance(old, dict) and isinstance(value, Mapping) else value
    return result


def documents(told: Settings) -> list[dict[str, Any]]:
    """Return what ``kubeadm init`` is told."""
    return [init_document(told), cluster_document(told), kubelet_document(told), kube_proxy_document(told)]


def join_document(told: Settings) -> dict[str, Any]:
    """Return what ``kubeadm join`` is told, without token and certificate key."""
    document: dict[str, Any] = {
        "apiVersion": KUBEADM,
        "kind": "JoinConfiguration",
        "discovery": {"bootstrapToken": {"apiServerEndpoint": told.endpoint}},
        "nodeRegistration": _registration(told),
    }
    if told.role == "control_plane":
        document["controlPlane"] = {"localAPIEndpoint": _endpoint(told)}
    return document


def offer_document(told: Settings) -> dict[str, Any]:
    """Return what ``kubeadm init phase upload-certs`` is told.

    The control plane that runs it puts in its own endpoint, and the certificate key that it makes.
    """
    document = init_document(told)
    del document["bootstrapTokens"], document["localAPIEndpoint"]
    return document


def authentication_document() -> dict[str, Any]:
    """Return who is let in without a name: nobody, but for what probes and joining hosts ask."""
    return {
        "apiVersion": "apiserver.config.k8s.io/v1",
        "kind": "AuthenticationConfiguration",
        "anonymous": {"enabled": True, "conditions": [{"path": path} for path in _ANONYMOUS_PATHS]},
    }


def audit_document(told: Settings) -> dict[str, Any]:
    """Return what the API server writes into its audit log."""
    return {
        "apiVersion": "audit.k8s.io/v1",
        "kind": "Policy",
        "omitStages": ["RequestReceived"],
        "rules": [dict(rule) for rule in told.audit_rules or AUDIT_RULES],
    }


def admission_document() -> dict[str, Any]:
    """Return how many events the API server takes: a crash loop must not fill etcd."""
    limits = {
        "apiVersion": "eventratelimit.admission.k8s.io/v1alpha1",
        "kind": "Configuration",
        "limits": [
            {"type": "Namespace", "qps": 50, "burst": 100, "cacheSize": 2000},
            {"type": "User", "qps": 10, "burst": 50},
        ],
    }
    return {
        "apiVersion": "apiserver.config.k8s.io/v1",
        "kind": "AdmissionConfiguration",
        "plugins": [{"name": "EventRateLimit", "configuration": limits}],
    }


def encryption_document(told: Settings) -> dict[str, Any]:
    """Return how Secrets lie in etcd. The first key encrypts, all of them decrypt, and so does none at all.

    ``identity`` at the end reads what was written before there was a key.
    """
    keys = [{"name": key_name(key), "secret": key} for key in told.encryption_keys]
    return {
        "apiVersion": "apiserver.config.k8s.io/v1",
        "kind": "EncryptionConfiguration",
        "resources": [{"resources": ["secrets"], "providers": [{"secretbox": {"keys": keys}}, {"identity": {}}]}],
    }


def differences(
    found: Iterable[Mapping[str, Any] | None],
    wanted: Iterable[Mapping[str, Any]],
    control_planes: Iterable[str] = (),
    version: bool = True,
) -> list[str]:
    """Return what a cluster was made with and what it would be made with now, a line for each value that differs.

    What is this host's own (InitConfiguration) is not compared: it counts once, when the host registers. Neither are
    the addresses of ``control_planes`` among the names of the API server's certificate, nor such as have left: control
    planes come and go, and kubeadm gives each of them its own address. ``version``: whether that is compared.
    """
    skipped = ("InitConfiguration", "JoinConfiguration")
    before = {str(document.get("kind")): document for document in found if document}
    after = {str(document.get("kind")): document for document in wanted}
    names = {*_names(before)} | {*control_planes}
    for kinds in (before, after):
        kinds.update(_comparable(kinds, names, version))
    lines: list[str] = []
    for kind in sorted({*before, *after} - {*skipped}):
        _compare(kind, before.get(kind), after.get(kind), lines)
    return lines


def _names(kinds: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return the names of the API server's certificate."""
    server = kinds.get("ClusterConfiguration", {}).get("apiServer")
    return list(server.get("certSANs") or []) if isinstance(server, Mapping) else []


def _comparable(kinds: Mapping[str, Mapping[str, Any]], names: set[str], version: bool) -> dict[str, Mapping[str, Any]]:
    """Return the cluster's part without what is not compared: names that the certificate may have or lack."""
    if "ClusterConfiguration" not in kinds:
        return {}
    cluster = {
        name: value for name, value in kinds["ClusterConfiguration"].items() if version or name != "kubernetesVersion"
    }
    if isinstance(cluster.get("apiServer"), Mapping):
        cluster["apiServer"] = {**cluster["apiServer"], "certSANs": sorted({*_names(kinds)} - names)}
    return {"ClusterConfiguration": cluster}


def _named(value: Any) -> Any:
    """Arguments and volumes by their names, so that a difference shows which."""
    if isinstance(value, list) and value and all(isinstance(item, Mapping) and "name" in item for item in value):
        return {item["name"]: {key: rest for key, rest in item.items() if key != "name"} for item in value}
    return value


def _compare(path: str, before: Any, after: Any, lines: list[str]) -> None:
    before, after = _named(before), _named(after)
    if isinstance(before, Mapping) and isinstance(after, Mapping):
        for name in sorted({*before, *after}):
            _compare(f"{path}.{name}", before.get(name), after.get(name), lines)
    elif before != after:
        lines.append(f"{path} is {_shown(before)}, wanted {_shown(after)}")


def _shown(value: Any) -> str:
    if value is None:
        return "not set"
    return str(value["value"]) if isinstance(value, Mapping) and set(value) == {"value"} else str(value)


def manifest_faults(manifest: Mapping[str, Any], component: str, told: Settings) -> list[str]:
    """Return which arguments of a static Pod are not those that it was made with."""
    part = {
        "kube-apiserver": "apiServer",
        "kube-controller-manager": "controllerManager",
        "kube-scheduler": "scheduler",
    }
    command = manifest.get("spec", {}).get("containers", [{}])[0].get("command", [])
    given = dict(argument.removeprefix("--").split("=", 1) for argument in command if "=" in argument)
    wanted = cluster_document(told)[part[component]]["extraArgs"]
    return [
        f"{component} has {argument['name']}={given.get(argument['name'], 'not set')}, wanted {argument['value']}"
        for argument in wanted
        if given.get(argument["name"]) != argument["value"]
    ]


def decision(
    own_name: str,
    role: str,
    unfinished: str | None,
    seen: Sequence[Mapping[str, Any]],
    loss_allowed: bool,
    check_mode: bool,
) -> dict[str, Any]:
    """Decide how a host that belongs to no cluster comes into one.

    Args:
        own_name: the host's name among the control planes.
        role: control_plane or node.
        unfinished: which of init and join was interrupted on this host.
        seen: of each control plane, this host among them, in their order: ``name``, ``reached``, ``cluster`` (it has
            one), ``answers`` (its API server does), ``answer``.
        loss_allowed: whether the cluster of a host that does not answer may be given up.
        check_mode: nothing is made in this run, so the first control plane's cluster is not there for the others.

    Returns: ``action`` (init or join), ``by`` (the control plane that lets the host join), and ``fault``, null when all
        is well.
    """
    living = [plane["name"] for plane in seen if plane["answers"]]
    result: dict[str, Any] = {"action": "join", "by": None, "fault": None}
    if unfinished == "init":
        return {**result, "action": "init"}
    if living:
        return {**result, "by": living[0]}
    silent = [plane for plane in seen if plane["cluster"]]
    lost = [plane["name"] for plane in seen if not plane["reached"]]
    if silent:
        shown = "; ".join(f"{plane['name']} says {plane['answer']}" for plane in silent)
        result["fault"] = f"no API server of the cluster answers ({shown}): mend that first; nothing was changed here"
        return result
    if lost and not loss_allowed:
        verb = "give" if len(lost) > 1 else "gives"
        result["fault"] = (
            f"{', '.join(lost)} {verb} no answer and no other control plane has a cluster: a second cluster beside a "
            f"lost host is refused. Bring it back, or, if its cluster is to be given up, take it out of the group or "
            f"set kubernetes_cluster_loss_allowed to true"
        )
        return result
    if role == "node":
        result["fault"] = (
            None if check_mode else "no control plane has a cluster yet: run the stage for the control planes first"
        )
        return result
    founder = next(plane["name"] for plane in seen if plane["reached"])
    if founder == own_name:
        return {**result, "action": "init"}
    if not check_mode:
        result["fault"] = (
            f"no control plane has a cluster yet, and {founder} makes it: run without --limit, or for {founder} first"
        )
    return result


def planes_seen(
    planes: Sequence[Mapping[str, Any]], results: Sequence[Mapping[str, Any]], own_name: str
) -> list[dict[str, Any]]:
    """Put together what each control plane said of its cluster; the host itself belongs to none when this is asked.

    ``results`` are those of the module kubernetes_offer in a loop over the others, whose variable is
    ``__kubernetes_plane``.
    """
    said = {result["__kubernetes_plane"]["name"]: result for result in results}
    found = []
    for plane in planes:
        result = said.get(plane["name"], {})
        found.append(
            {
                "name": plane["name"],
                "reached": plane["name"] == own_name or ("answers" in result and not result.get("unreachable", False)),
                "cluster": bool(result.get("cluster", False)),
                "answers": bool(result.get("answers", False)),
                "answer": str(result.get("answer", "nothing")),
            }
        )
    return found
