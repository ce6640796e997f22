# SPDX-License-Identifier: Apache-2.0
"""What kubeadm's v1beta4 knows; source: kubeadm's configuration reference."""

from __future__ import annotations

import ipaddress
from typing import Any

import common

Fields = dict[str, Any]

TEXT, NUMBER, SWITCH, LIST, MAP = str, int, bool, list, dict
ARGUMENTS = [{"name": TEXT, "value": TEXT}]
REGISTRATION: Fields = {
    "name": TEXT,
    "criSocket": TEXT,
    "taints": [{"key": TEXT, "value": TEXT, "effect": TEXT}],
    "kubeletExtraArgs": ARGUMENTS,
    "ignorePreflightErrors": LIST,
    "imagePullPolicy": TEXT,
    "imagePullSerial": SWITCH,
}
ENDPOINT: Fields = {"advertiseAddress": TEXT, "bindPort": NUMBER}
TIMEOUTS: Fields = dict.fromkeys(
    (
        "controlPlaneComponentHealthCheck",
        "kubeletHealthCheck",
        "kubernetesAPICall",
        "etcdAPICall",
        "tlsBootstrap",
        "discovery",
        "upgradeManifests",
    ),
    TEXT,
)
COMPONENT: Fields = {
    "extraArgs": ARGUMENTS,
    "extraEnvs": LIST,
    "extraVolumes": [{"name": TEXT, "hostPath": TEXT, "mountPath": TEXT, "readOnly": SWITCH, "pathType": TEXT}],
}
HEAD: Fields = {"apiVersion": TEXT, "kind": TEXT}
KINDS: dict[str, Fields] = {
    "InitConfiguration": {
        **HEAD,
        "bootstrapTokens": [
            {"token": TEXT, "description": TEXT, "ttl": TEXT, "expires": TEXT, "usages": LIST, "groups": LIST}
        ],
        "dryRun": SWITCH,
        "nodeRegistration": REGISTRATION,
        "localAPIEndpoint": ENDPOINT,
        "certificateKey": TEXT,
        "skipPhases": LIST,
        "patches": {"directory": TEXT},
        "timeouts": TIMEOUTS,
    },
    "ClusterConfiguration": {
        **HEAD,
        "etcd": {
            "local": {
                "imageRepository": TEXT,
                "imageTag": TEXT,
                "dataDir": TEXT,
                "extraArgs": ARGUMENTS,
                "extraEnvs": LIST,
                "serverCertSANs": LIST,
                "peerCertSANs": LIST,
            }
        },
        "networking": {"serviceSubnet": TEXT, "podSubnet": TEXT, "dnsDomain": TEXT},
        "kubernetesVersion": TEXT,
        "controlPlaneEndpoint": TEXT,
        "apiServer": {**COMPONENT, "certSANs": LIST},
        "controllerManager": COMPONENT,
        "scheduler": COMPONENT,
        "dns": {"imageRepository": TEXT, "imageTag": TEXT, "disabled": SWITCH},
        "proxy": {"disabled": SWITCH},
        "certificatesDir": TEXT,
        "imageRepository": TEXT,
        "featureGates": MAP,
        "clusterName": TEXT,
        "encryptionAlgorithm": TEXT,
        "certificateValidityPeriod": TEXT,
        "caCertificateValidityPeriod": TEXT,
    },
    "JoinConfiguration": {
        **HEAD,
        "dryRun": SWITCH,
        "nodeRegistration": REGISTRATION,
        "caCertPath": TEXT,
        "discovery": {
            "bootstrapToken": {
                "token": TEXT,
                "apiServerEndpoint": TEXT,
                "caCertHashes": LIST,
                "unsafeSkipCAVerification": SWITCH,
            },
            "file": {"kubeConfigPath": TEXT},
            "tlsBootstrapToken": TEXT,
        },
        "controlPlane": {"localAPIEndpoint": ENDPOINT, "certificateKey": TEXT},
        "skipPhases": LIST,
        "patches": {"directory": TEXT},
        "timeouts": TIMEOUTS,
    },
    # Of these two, what this collection and its tests set.
    "KubeletConfiguration": {
        **HEAD,
        "cgroupDriver": TEXT,
        "failCgroupV1": SWITCH,
        "clusterDNS": LIST,
        "clusterDomain": TEXT,
        "rotateCertificates": SWITCH,
        "serverTLSBootstrap": SWITCH,
        "tlsMinVersion": TEXT,
        "tlsCipherSuites": LIST,
        "protectKernelDefaults": SWITCH,
        "readOnlyPort": NUMBER,
        "authentication": {
            "anonymous": {"enabled": SWITCH},
            "webhook": {"enabled": SWITCH},
            "x509": {"clientCAFile": TEXT},
        },
        "authorization": {"mode": TEXT},
        "streamingConnectionIdleTimeout": TEXT,
        "makeIPTablesUtilChains": SWITCH,
        "eventRecordQPS": NUMBER,
        "podPidsLimit": NUMBER,
        "seccompDefault": SWITCH,
        "containerLogMaxSize": TEXT,
        "containerLogMaxFiles": NUMBER,
        "resolvConf": TEXT,
        "staticPodPath": TEXT,
        "maxPods": NUMBER,
    },
    "KubeProxyConfiguration": {
        **HEAD,
        "mode": TEXT,
        "clusterCIDR": TEXT,
        "metricsBindAddress": TEXT,
        "conntrack": {"maxPerCore": NUMBER, "min": NUMBER},
    },
}
VERSIONS = {
    "KubeletConfiguration": "kubelet.config.k8s.io/v1beta1",
    "KubeProxyConfiguration": "kubeproxy.config.k8s.io/v1alpha1",
}


def check(value: Any, wanted: Any, path: str) -> None:
    """Refuse a field that v1beta4 does not know, and a value of another type."""
    if isinstance(wanted, dict):
        if not isinstance(value, dict):
            raise common.SimulatedError(f"cannot unmarshal {path}: wanted an object, found {type(value).__name__}")
        for name, inner in value.items():
            if name not in wanted:
                raise common.SimulatedError(f'strict decoding error: unknown field "{path}.{name}"'.replace('"."', "."))
            check(inner, wanted[name], f"{path}.{name}")
    elif isinstance(wanted, list):
        if not isinstance(value, list):
            raise common.SimulatedError(f"cannot unmarshal {path}: wanted a list, found {type(value).__name__}")
        for position, inner in enumerate(value):
            check(inner, wanted[0], f"{path}[{position}]")
    elif not isinstance(value, wanted) or isinstance(value, bool) is not (wanted is bool):
        raise common.SimulatedError(f"cannot unmarshal {path}: wanted {wanted.__name__}, found {type(value).__name__}")


def validate(found: dict[str, dict[str, Any]]) -> None:
    """Do what ``kubeadm config validate`` does, and look at what it leaves open."""
    for kind, document in found.items():
        if kind not in KINDS:
            raise common.SimulatedError(f'no kind "{kind}" is registered')
        wanted = VERSIONS.get(kind, "kubeadm.k8s.io/v1beta4")
        if document.get("apiVersion") != wanted:
            raise common.SimulatedError(f"{kind} has apiVersion {document.get('apiVersion')}, wanted {wanted}")
        check(document, KINDS[kind], kind)
    cluster = found.get("ClusterConfiguration", {})
    networks = cluster.get("networking", {})
    for name in ("podSubnet", "serviceSubnet"):
        if name in networks:
            try:
                ipaddress.ip_network(networks[name])
            except ValueError as fault:
                raise common.SimulatedError(f'networking.{name}: Invalid value: "{networks[name]}": {fault}') from fault
    join = found.get("JoinConfiguration")
    if join is not None:
        token = join.get("discovery", {}).get("bootstrapToken")
        if not token or not common.TOKEN.fullmatch(token.get("token", "")):
            raise common.SimulatedError("discovery.bootstrapToken.token: Invalid value: the bootstrap token is invalid")
        if not token.get("caCertHashes"):
            raise common.SimulatedError(
                "discovery.bootstrapToken: Invalid value: token-based discovery without caCertHashes can be unsafe"
            )
        key = join.get("controlPlane", {}).get("certificateKey", "0" * 64)
        if not common.KEY.fullmatch(key):
            raise common.SimulatedError("controlPlane.certificateKey: Invalid value: invalid certificate key size")
