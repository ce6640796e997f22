# SPDX-License-Identifier: Apache-2.0
# PRIVATE to the collection: do not import this from outside, it may change without notice.
"""Network policies of the serving namespace: nothing in and nothing out, but for the plan's flows.

Flannel enforces none of them; kube-network-policies beside it does (docs/kubernetes.md).
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence

from .autoscaling import OPERATOR_LABELS
from .engines import COMPONENT, engine_name
from .fleet import ClusterFleet, EngineNode
from .groups import group_policy
from .objects import ENGINE_LABEL, Object, labels, metadata

_API = "networking.k8s.io/v1"
#: The label with its own name, which the API server gives every namespace.
NAMESPACE_LABEL = "kubernetes.io/metadata.name"


def default_deny(namespace: str) -> Object:
    """Return the policy that closes the namespace in both directions, DNS too: an engine asks nobody."""
    return {
        "apiVersion": _API,
        "kind": "NetworkPolicy",
        "metadata": metadata("default-deny", namespace, labels("default-deny", "network")),
        "spec": {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]},
    }


def flows_to_engines(nodes: Sequence[EngineNode], namespace: str) -> list[Object]:
    """Return the policy that lets in what the plan lets in: one object for all engines, however many.

    An engine answers on its own port only, and the host firewall opens a host exactly the ports of its own engines.
    """
    reach: dict[tuple[str, ...], set[int]] = {}
    for node in nodes:
        for sources, ports in node.reach.items():
            reach.setdefault(sources, set()).update(ports)
    if not reach:
        return []
    return [
        {
            "apiVersion": _API,
            "kind": "NetworkPolicy",
            "metadata": metadata("planned-flows", namespace, labels("planned-flows", "network")),
            "spec": {
                "podSelector": {"matchLabels": {"app.kubernetes.io/component": COMPONENT}},
                "policyTypes": ["Ingress"],
                "ingress": [
                    {
                        **({"from": [{"ipBlock": {"cidr": _cidr(source)}} for source in sources]} if sources else {}),
                        "ports": [{"protocol": "TCP", "port": port} for port in sorted(reach[sources])],
                    }
                    for sources in sorted(reach)
                ],
            },
        }
    ]


def autoscaler_to_engines(fleet: ClusterFleet) -> list[Object]:
    """Return the policy that lets KEDA read the queues of the engines that it is to ask, and of no others.

    It comes from pod to pod, so no address is translated and no firewall of a host is in between.
    """
    if not fleet.read:
        return []
    return [
        {
            "apiVersion": _API,
            "kind": "NetworkPolicy",
            "metadata": metadata("autoscaler-to-engines", fleet.namespace, labels("autoscaler-to-engines", "network")),
            "spec": {
                "podSelector": {
                    "matchExpressions": [
                        {
                            "key": ENGINE_LABEL,
                            "operator": "In",
                            "values": [engine_name(host, instance) for host, instance, __ in fleet.read],
                        }
                    ]
                },
                "policyTypes": ["Ingress"],
                "ingress": [
                    {
                        "from": [
                            {
                                "namespaceSelector": {"matchLabels": {NAMESPACE_LABEL: fleet.autoscaler_namespace}},
                                "podSelector": {"matchLabels": dict(OPERATOR_LABELS)},
                            }
                        ],
                        "ports": [
                            {"protocol": "TCP", "port": port} for port in sorted({port for *__, port in fleet.read})
                        ],
                    }
                ],
            },
        }
    ]


def policy_objects(fleet: ClusterFleet) -> list[Object]:
    """Return all policies of the namespace."""
    return [
        default_deny(fleet.namespace),
        *flows_to_engines(fleet.nodes, fleet.namespace),
        *autoscaler_to_engines(fleet),
        *(group_policy(node.host, name, fleet.namespace) for node in fleet.nodes for name in node.workers),
    ]


def _cidr(source: str) -> str:
    return str(ipaddress.ip_network(source, strict=False))
