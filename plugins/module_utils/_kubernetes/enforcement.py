# SPDX-License-Identifier: Apache-2.0
# PRIVATE to the collection: do not import this from outside, it may change without notice.
"""kube-network-policies on every node: what makes network policies more than words beside Flannel, which enforces none.

Settings are those of version 1.1.1. It sees packets in a queue of nftables, so it belongs to the host's network and
needs its rights; what it may ask of the API is to read pods, namespaces and policies.
"""

from __future__ import annotations

from .devices import pinned
from .namespace import namespace_object, service_account
from .objects import Object, labels, metadata

NAMESPACE = "gpufleet-network"
NAME = "kube-network-policies"
#: On the loopback: its default is every address of the node.
METRICS_ADDRESS = "127.0.0.1:9080"

_RBAC = "rbac.authorization.k8s.io"

#: It learns a pod's addresses from containerd through NRI, before the API server knows them.
_DIRECTORIES = (("nri", "/var/run/nri"), ("netns", "/var/run/netns"))


def _access() -> list[Object]:
    marks = labels(NAME, "access")
    rules = [("", ["pods", "namespaces"]), ("networking.k8s.io", ["networkpolicies"])]
    return [
        {
            "apiVersion": f"{_RBAC}/v1",
            "kind": "ClusterRole",
            "metadata": metadata(NAME, labelled=marks),
            "rules": [
                {"apiGroups": [group], "resources": resources, "verbs": ["list", "watch"]} for group, resources in rules
            ],
        },
        {
            "apiVersion": f"{_RBAC}/v1",
            "kind": "ClusterRoleBinding",
            "metadata": metadata(NAME, labelled=marks),
            "roleRef": {"apiGroup": _RBAC, "kind": "ClusterRole", "name": NAME},
            "subjects": [{"kind": "ServiceAccount", "name": NAME, "namespace": NAMESPACE}],
        },
    ]


def enforcement_objects(image: str) -> list[Object]:
    """Return what enforces network policies, with an image that is pinned by digest. Raises InvalidInputError."""
    pinned("network_policies_image", image)
    marks = labels(NAME, "network")
    node = {"name": "NODE_NAME", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}}
    container: Object = {
        "name": NAME,
        "image": image,
        "imagePullPolicy": "IfNotPresent",
        "command": ["/bin/netpol"],
        "args": [
            "--hostname-override=$(NODE_NAME)",
            "--nfqueue-id=98",
            f"--metrics-bind-address={METRICS_ADDRESS}",
            "--v=2",
        ],
        "env": [node],
        "resources": {"requests": {"cpu": "100m", "memory": "50Mi"}},
        "securityContext": {"privileged": True, "readOnlyRootFilesystem": True},
        "volumeMounts": [
            {
                "name": name,
                "mountPath": path,
                **({"mountPropagation": "HostToContainer"} if name == "netns" else {}),
            }
            for name, path in _DIRECTORIES
        ],
    }
    return [
        namespace_object(NAMESPACE, "privileged"),
        service_account(NAME, NAMESPACE, "network"),
        *_access(),
        {
            "apiVersion": "apps/v1",
            "kind": "DaemonSet",
            "metadata": metadata(NAME, NAMESPACE, marks),
            "spec": {
                "selector": {"matchLabels": {"app.kubernetes.io/name": NAME}},
                "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 1}},
                "template": {
                    "metadata": {"labels": marks},
                    "spec": {
                        "hostNetwork": True,
                        "nodeSelector": {"kubernetes.io/os": "linux"},
                        "tolerations": [{"operator": "Exists"}],
                        "priorityClassName": "system-node-critical",
                        "serviceAccountName": NAME,
                        # The one account here that asks the API.
                        "automountServiceAccountToken": True,
                        "enableServiceLinks": False,
                        "securityContext": {"seccompProfile": {"type": "RuntimeDefault"}},
                        "containers": [container],
                        "volumes": [
                            {"name": name, "hostPath": {"path": path, "type": "DirectoryOrCreate"}}
                            for name, path in _DIRECTORIES
                        ],
                    },
                },
            },
        },
    ]
