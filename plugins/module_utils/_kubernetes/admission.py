# SPDX-License-Identifier: Apache-2.0
# PRIVATE to the collection: do not import this from outside, it may change without notice.
"""What may be a pod of the serving namespace: Pod Security's ``restricted``, and exactly the plan's host ports.

Pod Security knows no exception for a single control: a namespace whose pods have host ports can enforce neither
``restricted`` nor ``baseline``. So the namespace enforces ``privileged`` and this policy does the rest, inside the
API server and for everybody. It is narrower than ``restricted``: no init and no debug containers, three kinds of
volumes, no token of the API, and a port of a node only where the plan puts an engine on that node with that port.
"""

from __future__ import annotations

from collections.abc import Sequence

from .fleet import EngineNode
from .objects import HOSTNAME_LABEL, Object, labels, metadata

POLICY = "gpufleet-serving-pods"
HOST_PORTS = "planned-host-ports"

_API = "admissionregistration.k8s.io/v1"

#: Variables of the expressions: (name, expression).
VARIABLES = (
    (
        "node",
        f"has(object.spec.nodeSelector) && '{HOSTNAME_LABEL}' in object.spec.nodeSelector"
        f" ? object.spec.nodeSelector['{HOSTNAME_LABEL}'] : ''",
    ),
)

#: What a pod has to be: (expression, what is wanted).
RULES = (
    (
        "!has(object.spec.initContainers) && !has(object.spec.ephemeralContainers)",
        "wanted no init container and no debug container: an engine has one container",
    ),
    (
        "!(has(object.spec.hostNetwork) && object.spec.hostNetwork)"
        " && !(has(object.spec.hostPID) && object.spec.hostPID)"
        " && !(has(object.spec.hostIPC) && object.spec.hostIPC)",
        "wanted no namespace of the host: hostNetwork, hostPID and hostIPC unset",
    ),
    (
        "!has(object.spec.volumes) || object.spec.volumes.all(v, has(v.configMap) || has(v.emptyDir)"
        " || has(v.persistentVolumeClaim))",
        "wanted volumes of the kinds configMap, emptyDir and persistentVolumeClaim only",
    ),
    (
        "has(object.spec.automountServiceAccountToken) && !object.spec.automountServiceAccountToken",
        "wanted automountServiceAccountToken false",
    ),
    (
        "has(object.spec.securityContext) && has(object.spec.securityContext.runAsNonRoot)"
        " && object.spec.securityContext.runAsNonRoot && has(object.spec.securityContext.runAsUser)"
        " && object.spec.securityContext.runAsUser > 0 && has(object.spec.securityContext.seccompProfile)"
        " && object.spec.securityContext.seccompProfile.type == 'RuntimeDefault'"
        " && !has(object.spec.securityContext.sysctls) && !has(object.spec.securityContext.seLinuxOptions)"
        " && !has(object.spec.securityContext.appArmorProfile) && !has(object.spec.securityContext.windowsOptions)",
        "wanted securityContext with runAsNonRoot true, runAsUser above 0, seccompProfile RuntimeDefault, and"
        " no sysctls, SELinux, AppArmor or Windows options",
    ),
    (
        "object.spec.containers.all(c, has(c.securityContext) && has(c.securityContext.allowPrivilegeEscalation)"
        " && !c.securityContext.allowPrivilegeEscalation"
        " && !(has(c.securityContext.privileged) && c.securityContext.privileged)"
        " && has(c.securityContext.capabilities) && has(c.securityContext.capabilities.drop)"
        " && 'ALL' in c.securityContext.capabilities.drop && !has(c.securityContext.capabilities.add))",
        "wanted containers without privileges: allowPrivilegeEscalation false, capabilities drop ALL and add none",
    ),
    (
        "object.spec.containers.all(c, !has(c.securityContext) || ("
        "!(has(c.securityContext.runAsUser) && c.securityContext.runAsUser == 0)"
        " && !(has(c.securityContext.runAsNonRoot) && !c.securityContext.runAsNonRoot)"
        " && !(has(c.securityContext.procMount) && c.securityContext.procMount != 'Default')"
        " && !(has(c.securityContext.seccompProfile) && c.securityContext.seccompProfile.type != 'RuntimeDefault')"
        " && !has(c.securityContext.seLinuxOptions) && !has(c.securityContext.appArmorProfile)"
        " && !has(c.securityContext.windowsOptions)))",
        "wanted containers that take back nothing of the pod's securityContext",
    ),
    (
        "object.spec.containers.all(c, !has(c.ports) || c.ports.all(p, !has(p.hostPort) || p.hostPort == 0"
        " || (has(params.data) && (variables.node + '.' + string(p.hostPort)) in params.data)))",
        f"wanted a host port that the plan gives an engine on this node (ConfigMap {HOST_PORTS})",
    ),
    (
        "object.spec.containers.all(c, (!has(c.startupProbe) || has(c.startupProbe.exec))"
        " && (!has(c.readinessProbe) || has(c.readinessProbe.exec))"
        " && (!has(c.livenessProbe) || has(c.livenessProbe.exec))"
        " && (!has(c.lifecycle) || ((!has(c.lifecycle.preStop) || has(c.lifecycle.preStop.exec))"
        " && (!has(c.lifecycle.postStart) || has(c.lifecycle.postStart.exec)))))",
        "wanted probes and hooks that run in the container: kubelet asks nobody over the network for a pod",
    ),
)


def host_port_key(node_name: str, port: int) -> str:
    """Return the key of a node's port in the policy's parameters."""
    return f"{node_name}.{port}"


def host_ports(nodes: Sequence[EngineNode], namespace: str) -> Object:
    """Return the policy's parameters: which host ports the plan gives away."""
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": metadata(HOST_PORTS, namespace, labels("planned-host-ports", "admission")),
        "data": {
            host_port_key(node.node_name, instance["port"]): f"{node.host}/{instance['name']}"
            for node in nodes
            for instance in node.instances
        },
    }


def admission_objects(nodes: Sequence[EngineNode], namespace: str) -> list[Object]:
    """Return the policy, what binds it to the namespace, and its parameters."""
    marks = labels(POLICY, "admission")
    return [
        host_ports(nodes, namespace),
        {
            "apiVersion": _API,
            "kind": "ValidatingAdmissionPolicy",
            "metadata": metadata(POLICY, labelled=marks),
            "spec": {
                "failurePolicy": "Fail",
                "paramKind": {"apiVersion": "v1", "kind": "ConfigMap"},
                "matchConstraints": {
                    "resourceRules": [
                        {
                            "apiGroups": [""],
                            "apiVersions": ["v1"],
                            "operations": ["CREATE", "UPDATE"],
                            "resources": ["pods", "pods/ephemeralcontainers"],
                        }
                    ]
                },
                "variables": [{"name": name, "expression": expression} for name, expression in VARIABLES],
                "validations": [
                    {"expression": expression, "message": wanted, "reason": "Forbidden"} for expression, wanted in RULES
                ],
            },
        },
        {
            "apiVersion": _API,
            "kind": "ValidatingAdmissionPolicyBinding",
            "metadata": metadata(POLICY, labelled=marks),
            "spec": {
                "policyName": POLICY,
                "validationActions": ["Deny"],
                "paramRef": {"name": HOST_PORTS, "namespace": namespace, "parameterNotFoundAction": "Deny"},
                "matchResources": {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": namespace}}},
            },
        },
    ]
