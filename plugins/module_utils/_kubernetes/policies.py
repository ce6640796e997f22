# SPDX-License-Identifier: Apache-2.0
# PRIVATE to the collection: do not import this from outside, it may change without notice.
"""Network policies of the serving namespace: nothing in and nothing out, but for the plan's flows.

Flannel enforces none of them; kube-network-policies beside it does (docs/kubernetes.md).
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence

from .engines import COMPONENT
from .fleet import EngineNode
from .objects import Object, labels, metadata

_API = "networking.k8s.io/v1"


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


def policy_objects(nodes: Sequence[EngineNode], namespace: str) -> list[Object]:
    """Return all policies of the namespace."""
    return [default_deny(namespace), *flows_to_engines(nodes, namespace)]


def _cidr(source: str) -> str:
    return str(ipaddress.ip_network(source, strict=False))
