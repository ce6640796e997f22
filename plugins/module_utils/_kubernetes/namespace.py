# SPDX-License-Identifier: Apache-2.0
# PRIVATE to the collection: do not import this from outside, it may change without notice.
"""The namespace that serves: who is in it, what goes first, and who may read its configuration."""

from __future__ import annotations

from .engines import PRIORITY_CLASS, SERVICE_ACCOUNT
from .objects import Object, labels, metadata

CONFIGURATION_READER = "configuration-reader"

_RBAC = "rbac.authorization.k8s.io"


def namespace_object(name: str, level: str) -> Object:
    """Return a namespace with its Pod Security level, of which no default of the cluster takes the place."""
    security = {f"pod-security.kubernetes.io/{mode}": level for mode in ("enforce", "audit", "warn")}
    return {
        "apiVersion": "v1",
        "kind": "Namespace",
        "metadata": metadata(name, labelled={**labels(name, "namespace"), **security}),
    }


def service_account(name: str, namespace: str, component: str) -> Object:
    """Return an account whose token no pod is given unasked."""
    return {
        "apiVersion": "v1",
        "kind": "ServiceAccount",
        "metadata": metadata(name, namespace, labels(name, component)),
        "automountServiceAccountToken": False,
    }


def priority_class() -> Object:
    """Return the priority of engines: above whatever else runs on their nodes, below what the cluster needs to live."""
    return {
        "apiVersion": "scheduling.k8s.io/v1",
        "kind": "PriorityClass",
        "metadata": metadata(PRIORITY_CLASS, labelled=labels("vllm", "priority")),
        "value": 1000000,
        "globalDefault": False,
        "preemptionPolicy": "PreemptLowerPriority",
        "description": "Engines of the fleet's models: a pod below this priority leaves a node before one does.",
    }


def configuration_reader(namespace: str) -> list[Object]:
    """Return an account that reads the namespace's ConfigMaps and nothing more."""
    marks = labels(CONFIGURATION_READER, "access")
    return [
        service_account(CONFIGURATION_READER, namespace, "access"),
        {
            "apiVersion": f"{_RBAC}/v1",
            "kind": "Role",
            "metadata": metadata(CONFIGURATION_READER, namespace, marks),
            "rules": [{"apiGroups": [""], "resources": ["configmaps"], "verbs": ["get", "list", "watch"]}],
        },
        {
            "apiVersion": f"{_RBAC}/v1",
            "kind": "RoleBinding",
            "metadata": metadata(CONFIGURATION_READER, namespace, marks),
            "roleRef": {"apiGroup": _RBAC, "kind": "Role", "name": CONFIGURATION_READER},
            "subjects": [{"kind": "ServiceAccount", "name": CONFIGURATION_READER, "namespace": namespace}],
        },
    ]


def namespace_objects(namespace: str) -> list[Object]:
    """Return the serving namespace. Its Pod Security level is ``privileged``: admission.py says why."""
    return [
        namespace_object(namespace, "privileged"),
        priority_class(),
        service_account(SERVICE_ACCOUNT, namespace, "engine"),
        *configuration_reader(namespace),
    ]
