# SPDX-License-Identifier: Apache-2.0
"""What the checks find that a schema takes: a row for each fault, with the message, on objects that are without any."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest

from ansible_collections.gpufleet.metal.plugins.module_utils._kubernetes.checks import check_objects, objects_of
from ansible_collections.gpufleet.metal.tests.unit.plugins.module_utils._kubernetes.plans import of_kind, rendered

IMAGE = "registry.example.org/app@sha256:" + "a" * 64
MARKS = {"app": "a"}

#: Objects without a fault, by a short name.
GOOD: dict[str, dict[str, Any]] = {
    "namespace": {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "n"}},
    "config": {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "settings", "namespace": "n"},
        "data": {"key": "value"},
    },
    "account": {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "app", "namespace": "n"}},
    "app": {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "a", "namespace": "n", "labels": dict(MARKS)},
        "spec": {
            "selector": {"matchLabels": dict(MARKS)},
            "template": {
                "metadata": {"labels": dict(MARKS)},
                "spec": {
                    "serviceAccountName": "app",
                    "nodeSelector": {"kubernetes.io/hostname": "node-1"},
                    "containers": [
                        {
                            "name": "main",
                            "image": IMAGE,
                            "ports": [{"name": "http", "containerPort": 80, "hostPort": 8080}],
                            "readinessProbe": {"httpGet": {"path": "/", "port": "http"}},
                            "env": [
                                {"name": "A", "valueFrom": {"configMapKeyRef": {"name": "settings", "key": "key"}}}
                            ],
                            "resources": {
                                "limits": {"nvidia.com/gpu": 1, "memory": "2Gi"},
                                "requests": {"nvidia.com/gpu": "1", "memory": "500M"},
                            },
                            "volumeMounts": [{"name": "settings", "mountPath": "/settings"}],
                        }
                    ],
                    "volumes": [
                        {"name": "settings", "configMap": {"name": "settings", "items": [{"key": "key", "path": "k"}]}}
                    ],
                },
            },
        },
    },
    "service": {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "a", "namespace": "n"},
        "spec": {"selector": dict(MARKS), "ports": [{"port": 80, "targetPort": "http"}]},
    },
    "policy": {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": "p", "namespace": "n"},
        "spec": {
            "podSelector": {},
            "policyTypes": ["Ingress"],
            "ingress": [
                {
                    "from": [{"ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.1.0.0/16"]}}],
                    "ports": [{"protocol": "TCP", "port": 80, "endPort": 90}],
                }
            ],
        },
    },
    "binding": {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "RoleBinding",
        "metadata": {"name": "b:1", "namespace": "n"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "view"},
        "subjects": [{"kind": "ServiceAccount", "name": "app", "namespace": "n"}],
    },
    "volume": {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": "v"},
        "spec": {
            "capacity": {"storage": "1Gi"},
            "accessModes": ["ReadWriteOnce"],
            "storageClassName": "",
            "claimRef": {"namespace": "n", "name": "c"},
        },
    },
    "claim": {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": "c", "namespace": "n"},
        "spec": {
            "volumeName": "v",
            "accessModes": ["ReadWriteOnce"],
            "storageClassName": "",
            "resources": {"requests": {"storage": "1Gi"}},
        },
    },
}

Change = Callable[[dict[str, dict[str, Any]]], Any]


def _pod(objects: dict[str, dict[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = objects["app"]["spec"]["template"]["spec"]
    return found


def _box(objects: dict[str, dict[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = _pod(objects)["containers"][0]
    return found


def _again(objects: dict[str, dict[str, Any]], source: str, /, **metadata: Any) -> dict[str, Any]:
    """Add a copy of an object with other metadata; return it."""
    item = copy.deepcopy(objects[source])
    item["metadata"].update(metadata)
    objects[f"{source} again"] = item
    return item


def _other_app(objects: dict[str, dict[str, Any]], **pod: Any) -> None:
    item = _again(objects, "app", name="other")
    item["spec"]["selector"]["matchLabels"] = item["spec"]["template"]["metadata"]["labels"] = {"app": "other"}
    for key, value in pod.items():
        item["spec"]["template"]["spec"][key] = value


POD = "Deployment n/a: spec.template.spec"
BOX = f"{POD}.containers.0"

FAULTS: dict[str, tuple[Change, str]] = {
    "selects others": (
        lambda o: o["app"]["spec"]["selector"]["matchLabels"].update(app="b"),
        "Deployment n/a: spec.selector.matchLabels.app: found b, wanted the template's label, a",
    ),
    "selects by a label that is not there": (
        lambda o: o["app"]["spec"]["selector"]["matchLabels"].update(x="b"),
        "Deployment n/a: spec.selector.matchLabels.x: found b, wanted the template's label, which it lacks",
    ),
    "selects nothing": (
        lambda o: o["app"]["spec"].update(selector={}),
        "Deployment n/a: spec.selector: found an empty selector, wanted labels of the pod's template",
    ),
    "an expression that does not hold": (
        lambda o: o["app"]["spec"]["selector"].update(
            matchExpressions=[{"key": "app", "operator": "NotIn", "values": ["a"]}]
        ),
        "Deployment n/a: spec.selector.matchExpressions.0: found app NotIn ['a'], wanted what the template's labels "
        "fulfil",
    ),
    "GPUs without a request": (
        lambda o: _box(o)["resources"]["requests"].pop("nvidia.com/gpu"),
        f"{BOX}.resources.nvidia.com/gpu: found requests none, limits 1, wanted requests equal to limits",
    ),
    "fewer GPUs requested": (
        lambda o: _box(o)["resources"]["limits"].update({"nvidia.com/gpu": "2"}),
        f"{BOX}.resources.nvidia.com/gpu: found requests 1, limits 2, wanted requests equal to limits",
    ),
    "half a GPU": (
        lambda o: _box(o).update(resources={where: {"nvidia.com/gpu": "500m"} for where in ("limits", "requests")}),
        f"{BOX}.resources.nvidia.com/gpu: found 500m, wanted a whole number",
    ),
    "more memory requested than allowed": (
        lambda o: _box(o)["resources"]["requests"].update(memory="3Gi"),
        f"{BOX}.resources.memory: found requests 3Gi, limits 2Gi, wanted requests no larger than limits",
    ),
    "no amount": (
        lambda o: _box(o)["resources"]["limits"].update(memory="2 GB"),
        f"{BOX}.resources.limits.memory: found '2 GB', wanted an amount, such as 2, 500m or 4Gi",
    ),
    "an exception outside": (
        lambda o: o["policy"]["spec"]["ingress"][0]["from"][0]["ipBlock"].update({"except": ["192.0.2.0/24"]}),
        "NetworkPolicy n/p: spec.ingress.0.from.0.ipBlock.except: found 192.0.2.0/24, wanted a part of 10.0.0.0/8",
    ),
    "an exception of everything": (
        lambda o: o["policy"]["spec"]["ingress"][0]["from"][0]["ipBlock"].update({"except": ["10.0.0.0/8"]}),
        "NetworkPolicy n/p: spec.ingress.0.from.0.ipBlock.except: found 10.0.0.0/8, wanted a part of 10.0.0.0/8",
    ),
    "an exception of another version": (
        lambda o: o["policy"]["spec"]["ingress"][0]["from"][0]["ipBlock"].update({"except": ["2001:db8::/32"]}),
        "NetworkPolicy n/p: spec.ingress.0.from.0.ipBlock.except: found 2001:db8::/32, wanted a part of 10.0.0.0/8",
    ),
    "no network": (
        lambda o: o["policy"]["spec"]["ingress"][0]["from"][0]["ipBlock"].update(cidr="10.0.0.1/8"),
        "NetworkPolicy n/p: spec.ingress.0.from.0.ipBlock.cidr: found 10.0.0.1/8, wanted a network such as "
        "192.0.2.0/24, no bit "
        "set beyond its length",
    ),
    "an end before the start": (
        lambda o: o["policy"]["spec"]["ingress"][0]["ports"][0].update(endPort=79),
        "NetworkPolicy n/p: spec.ingress.0.ports.0.endPort: found 79, wanted a number from port (80) to 65535",
    ),
    "rules of a type that is not named": (
        lambda o: o["policy"]["spec"].update(egress=[{}]),
        "NetworkPolicy n/p: spec.policyTypes: found Ingress, wanted Egress too: there are rules of it",
    ),
    "a name with capitals": (
        lambda o: (
            o["config"]["metadata"].update(name="Settings")
            or (_pod(o).pop("volumes") and _box(o).pop("volumeMounts") and _box(o).pop("env"))
        ),
        "ConfigMap n/Settings: metadata.name: found Settings, wanted a DNS name: up to 253 of a-z, 0-9, '-' and "
        "'.', labels of "
        "up to 63",
    ),
    "a service with a dot": (
        lambda o: o["service"]["metadata"].update(name="a.b"),
        "Service n/a.b: metadata.name: found a.b, wanted a DNS label: up to 63 of a-z, 0-9 and '-', ends without '-'",
    ),
    "a label that is too long": (
        lambda o: o["app"]["metadata"]["labels"].update(x="y" * 64),
        f"Deployment n/a: metadata.labels.x: found {'y' * 64}, wanted up to 63 of A-Z, a-z, 0-9, '-', '_' and '.', "
        "a letter or digit "
        "at both ends",
    ),
    "a label's key": (
        lambda o: o["app"]["metadata"]["labels"].update({"a/b/c": "y"}),
        "Deployment n/a: metadata.labels: found a/b/c, wanted a key such as example.org/name, the name up to 63 "
        "characters",
    ),
    "an annotation that is a number": (
        lambda o: o["app"]["metadata"].update(annotations={"x": 1}),
        "Deployment n/a: metadata.annotations.x: found 1, wanted a text",
    ),
    "no namespace": (
        lambda o: o["policy"]["metadata"].pop("namespace"),
        "NetworkPolicy p: metadata.namespace: found none, wanted the namespace of the object",
    ),
    "a namespace of what has none": (
        lambda o: o["volume"]["metadata"].update(namespace="n") or o.pop("claim"),
        "PersistentVolume n/v: metadata.namespace: found n, wanted none: a PersistentVolume belongs to the whole "
        "cluster",
    ),
    "a namespace that nobody makes": (
        lambda o: o["policy"]["metadata"].update(namespace="m"),
        "NetworkPolicy m/p: metadata.namespace: found m, wanted a Namespace among the objects",
    ),
    "the same twice": (
        lambda o: _again(o, "policy"),
        "NetworkPolicy n/p: metadata.name: found the same object twice, wanted every object once",
    ),
    "two with one selector": (
        lambda o: _again(o, "app", name="z")["spec"]["template"]["spec"].update(
            nodeSelector={"kubernetes.io/hostname": "2"}
        ),
        "Deployment n/z: spec.selector.matchLabels: found the selector of Deployment n/a, wanted a selector of its "
        "own pods only",
    ),
    "one port of a node twice": (
        _other_app,
        "Deployment n/other: spec.template.spec.containers.0.ports.0.hostPort: found 8080 on node-1, which "
        "Deployment n/a has, "
        "wanted a port of the node for one pod",
    ),
    "one port of some node": (
        lambda o: _other_app(o, nodeSelector={}),
        "Deployment n/other: spec.template.spec.containers.0.ports.0.hostPort: found 8080 on node-1, which "
        "Deployment n/a has, "
        "wanted a port of the node for one pod",
    ),
    "a volume that is not there": (
        lambda o: _box(o)["volumeMounts"][0].update(name="x"),
        f"{BOX}.volumeMounts.0.name: found x, wanted one of the pod's volumes: settings",
    ),
    "two volumes at one place": (
        lambda o: _box(o)["volumeMounts"].append({"name": "settings", "mountPath": "/settings"}),
        f"{BOX}.volumeMounts.1.mountPath: found /settings twice, wanted one volume at a place",
    ),
    "a volume twice": (
        lambda o: _pod(o)["volumes"].append({"name": "settings", "emptyDir": {}}),
        f"{POD}.volumes.1.name: found settings twice, wanted every volume once",
    ),
    "a configuration that nobody makes": (
        lambda o: _pod(o)["volumes"][0].update(configMap={"name": "x"}),
        f"{POD}.volumes.0.configMap: found x, wanted a ConfigMap among the objects of n",
    ),
    "a key that is not there": (
        lambda o: _pod(o)["volumes"][0]["configMap"]["items"][0].update(key="x"),
        f"{POD}.volumes.0.configMap.items: found x, wanted a key of ConfigMap settings: key",
    ),
    "a secret that nobody makes": (
        lambda o: _pod(o)["volumes"].append({"name": "s", "secret": {"secretName": "s"}}),
        f"{POD}.volumes.1.secret: found s, wanted a Secret among the objects of n",
    ),
    "a projected secret that nobody makes": (
        lambda o: _pod(o)["volumes"].append({"name": "s", "projected": {"sources": [{"secret": {"name": "s"}}]}}),
        f"{POD}.volumes.1.secret: found s, wanted a Secret among the objects of n",
    ),
    "a claim that nobody makes": (
        lambda o: _pod(o)["volumes"].append({"name": "s", "persistentVolumeClaim": {"claimName": "x"}}),
        f"{POD}.volumes.1.persistentVolumeClaim.claimName: found x, wanted a PersistentVolumeClaim among the "
        "objects of n",
    ),
    "an environment that nobody makes": (
        lambda o: _box(o).update(envFrom=[{"secretRef": {"name": "x"}}]),
        f"{BOX}.envFrom.0.secretRef: found x, wanted a Secret among the objects of n",
    ),
    "a variable of a key that is not there": (
        lambda o: _box(o)["env"][0]["valueFrom"]["configMapKeyRef"].update(key="x"),
        f"{BOX}.env.0.valueFrom.configMapKeyRef.key: found x, wanted a key of ConfigMap settings: key",
    ),
    "a variable twice": (
        lambda o: _box(o)["env"].append({"name": "A", "value": "b"}),
        f"{BOX}.env.1.name: found A twice, wanted every variable once",
    ),
    "a variable that is a number": (
        lambda o: _box(o)["env"].append({"name": "B", "value": 1}),
        f"{BOX}.env.1.value: found 1, wanted a text",
    ),
    "an account that nobody makes": (
        lambda o: _pod(o).update(serviceAccountName="x"),
        f"{POD}.serviceAccountName: found x, wanted a ServiceAccount among the objects of n",
    ),
    "a priority that nobody makes": (
        lambda o: _pod(o).update(priorityClassName="x"),
        f"{POD}.priorityClassName: found x, wanted a PriorityClass among the objects",
    ),
    "a runtime that nobody makes": (
        lambda o: _pod(o).update(runtimeClassName="nvidia"),
        f"{POD}.runtimeClassName: found nvidia, wanted a RuntimeClass among the objects",
    ),
    "a pull secret that nobody makes": (
        lambda o: _pod(o).update(imagePullSecrets=[{"name": "x"}]),
        f"{POD}.imagePullSecrets.0.name: found x, wanted a Secret among the objects of n",
    ),
    "a probe of a port that is not there": (
        lambda o: _box(o)["readinessProbe"]["httpGet"].update(port=81),
        f"{BOX}.readinessProbe.httpGet.port: found 81, wanted a port of the container: 80, http",
    ),
    "a hook of a port that is not there": (
        lambda o: _box(o).update(lifecycle={"preStop": {"httpGet": {"port": "x"}}}),
        f"{BOX}.lifecycle.preStop.httpGet.port: found x, wanted a port of the container: 80, http",
    ),
    "a port out of range": (
        lambda o: _box(o)["ports"][0].update(hostPort=65536),
        f"{BOX}.ports.0.hostPort: found 65536, wanted 1 to 65535",
    ),
    "a port's long name": (
        lambda o: _box(o)["ports"].append({"name": "a-very-long-name", "containerPort": 1}),
        f"{BOX}.ports.1.name: found a-very-long-name, wanted up to 15 of a-z, 0-9 and '-', one of them a letter",
    ),
    "another port on the host's network": (
        lambda o: _pod(o).update(hostNetwork=True),
        f"{BOX}.ports.0.hostPort: found 8080, wanted containerPort, 80: hostNetwork is true",
    ),
    "an image by its tag": (
        lambda o: _box(o).update(image="app:1"),
        f"{BOX}.image: found app:1, wanted an image with @sha256: and its digest, or imagePullPolicy Never",
    ),
    "two containers with one name": (
        lambda o: _pod(o)["containers"].append({"name": "main", "image": IMAGE}),
        f"{POD}.containers.1.name: found main twice, wanted every container once",
    ),
    "no container": (
        lambda o: _pod(o).update(containers=[]) or o.pop("service"),
        f"{POD}.containers: found none, wanted a container",
    ),
    "a service of nobody": (
        lambda o: o["service"]["spec"].update(selector={"app": "b"}),
        "Service n/a: spec.selector: found app=b, wanted the labels of a pod among the objects",
    ),
    "a service's port that is not there": (
        lambda o: o["service"]["spec"]["ports"][0].update(targetPort="x"),
        "Service n/a: spec.ports.0.targetPort: found x, wanted the name of a port of its pods",
    ),
    "a role that nobody makes": (
        lambda o: o["binding"]["roleRef"].update(kind="Role", name="x"),
        "RoleBinding n/b:1: roleRef: found x, wanted a Role among the objects of n",
    ),
    "rights for an account that nobody makes": (
        lambda o: o["binding"]["subjects"][0].update(name="x"),
        "RoleBinding n/b:1: subjects.0: found x, wanted a ServiceAccount among the objects of n",
    ),
    "a volume that nobody makes": (
        lambda o: o["claim"]["spec"].update(volumeName="x"),
        "PersistentVolumeClaim n/c: spec.volumeName: found x, wanted a PersistentVolume among the objects",
    ),
    "somebody else's volume": (
        lambda o: o["volume"]["spec"]["claimRef"].update(name="x"),
        "PersistentVolumeClaim n/c: spec.volumeName: found a volume for n/x, wanted one whose claimRef is this claim",
    ),
    "a volume of another class": (
        lambda o: o["claim"]["spec"].update(storageClassName="fast"),
        "PersistentVolumeClaim n/c: spec.storageClassName: found 'fast', wanted the volume's, ''",
    ),
    "a mode that the volume lacks": (
        lambda o: o["claim"]["spec"].update(accessModes=["ReadWriteMany"]),
        "PersistentVolumeClaim n/c: spec.accessModes: found ReadWriteMany, wanted modes of the volume: ReadWriteOnce",
    ),
    "a volume that is too small": (
        lambda o: o["claim"]["spec"]["resources"]["requests"].update(storage="2Gi"),
        "PersistentVolumeClaim n/c: spec.resources.requests.storage: found 2147483648, wanted at most the volume's "
        "capacity, "
        "1073741824",
    ),
    "a key with a slash": (
        lambda o: o["config"]["data"].update({"a/b": "c"}),
        "ConfigMap n/settings: data: found a/b, wanted a key of up to 253 of A-Z, a-z, 0-9, '-', '_' and '.'",
    ),
    "a value that is a number": (
        lambda o: o["config"]["data"].update(b=1),
        "ConfigMap n/settings: data.b: found 1, wanted a text",
    ),
}


def test_the_objects_of_the_table_are_without_fault() -> None:
    assert check_objects(list(GOOD.values())) == []


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_named(name: str) -> None:
    change, message = FAULTS[name]
    objects = copy.deepcopy(GOOD)
    change(objects)
    assert check_objects(list(objects.values())) == [message]


@pytest.mark.parametrize(
    ("item", "message"),
    [
        ("text", "object 0: found 'text', wanted a mapping with apiVersion, kind and metadata"),
        (
            {"apiVersion": "apps/v1beta1", "kind": "Deployment", "metadata": {"name": "a", "namespace": "n"}},
            "object 0 (Deployment n/a): apiVersion, kind: found apps/v1beta1 Deployment, wanted apps/v1 Deployment",
        ),
        (
            {"apiVersion": "v1", "kind": "Namespace", "metadata": {"labels": {}}},
            "object 0: metadata.name: found none, wanted a name",
        ),
    ],
)
def test_an_object_that_is_not_understood(item: Any, message: str) -> None:
    (found,) = check_objects([item])
    assert found.replace("object 0 (Namespace None)", "object 0") == message


def test_an_unknown_kind_is_a_fault_and_no_warning() -> None:
    (found,) = check_objects([{"apiVersion": "example.org/v1", "kind": "Thing", "metadata": {"name": "a"}}])
    assert found.startswith(
        "object 0 (Thing a): apiVersion, kind: found example.org/v1 Thing, wanted a kind that is known here: "
    )


def test_what_is_provided_is_no_fault() -> None:
    objects = copy.deepcopy(GOOD)
    del objects["config"], objects["namespace"]
    provided = [("ConfigMap", "n", "settings"), ("Namespace", None, "n")]
    assert check_objects(list(objects.values()), provided) == []


def test_what_may_be_missing_is_no_fault() -> None:
    objects = copy.deepcopy(GOOD)
    _pod(objects)["volumes"].append({"name": "s", "secret": {"secretName": "s", "optional": True}})
    _box(objects)["envFrom"] = [{"configMapRef": {"name": "x", "optional": True}}]
    assert check_objects(list(objects.values())) == []


def test_ports_of_different_addresses_or_nodes_do_not_collide() -> None:
    objects = copy.deepcopy(GOOD)
    _other_app(objects, nodeSelector={"kubernetes.io/hostname": "node-2"})
    assert check_objects(list(objects.values())) == []
    _other_app(objects)
    _box(objects)["ports"][0]["hostIP"] = "192.0.2.1"
    objects["app again"]["spec"]["template"]["spec"]["containers"][0]["ports"][0]["hostIP"] = "192.0.2.2"
    assert check_objects(list(objects.values())) == []


def test_an_admission_policy_needs_its_parameters() -> None:
    objects = rendered()
    (binding,) = of_kind(objects, "ValidatingAdmissionPolicyBinding")
    binding["spec"]["paramRef"]["name"] = "x"
    assert check_objects(objects) == [
        "ValidatingAdmissionPolicyBinding gpufleet-serving-pods: spec.paramRef: found x, wanted a ConfigMap among "
        "the objects of "
        "gpufleet-serving"
    ]
    del binding["spec"]["paramRef"]
    assert check_objects(objects) == [
        "ValidatingAdmissionPolicyBinding gpufleet-serving-pods: spec.paramRef: found none, wanted the ConfigMap "
        "with the policy's "
        "parameters"
    ]


def test_a_manifest_is_its_documents_without_empty_ones() -> None:
    one, other = GOOD["namespace"], GOOD["config"]
    assert objects_of([None, one, {"kind": "List", "items": [other]}]) == [one, other]
