# SPDX-License-Identifier: Apache-2.0
# PRIVATE to the collection: do not import this from outside, it may change without notice.
"""What a schema does not see in a list of objects: names, references, selectors, ports, and what an API server would
refuse.

A schema knows one object's fields and types. It takes a selector that selects nothing, a GPU request that is not the
limit, or a volume that nobody has, and a file with a kind that it has never heard of. These checks need no cluster.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from .objects import HOSTNAME_LABEL, Object
from .scaling_checks import scaled_object_faults

_LABEL = r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?"
_DNS_LABEL = re.compile(_LABEL)
_DNS_SUBDOMAIN = re.compile(rf"(?=.{{1,253}}\Z){_LABEL}(\.{_LABEL})*")
#: RBAC objects are named by whatever can be part of a path.
_PATH_SEGMENT = re.compile(r"(?!\.{1,2}\Z)[^/%]+")
_QUALIFIED = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?")
_LABEL_VALUE = re.compile(r"([A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?)?")
_PORT_NAME = re.compile(r"(?=.{1,15}\Z)(?=.*[a-z])[a-z0-9]+(-[a-z0-9]+)*")
_CONFIG_KEY = re.compile(r"(?!\.{1,2}\Z)[A-Za-z0-9._-]{1,253}")
_PINNED = re.compile(r".+@sha256:[0-9a-f]{64}")
_QUANTITY = re.compile(r"([0-9]+(?:\.[0-9]+)?)(m|k|M|G|T|P|Ki|Mi|Gi|Ti|Pi)?")
_SCALES: dict[str, Any] = {"": 1, "m": Decimal("0.001"), "k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12, "P": 10**15}
_SCALES.update({f"{prefix}i": 1 << 10 * (power + 1) for power, prefix in enumerate("KMGTP")})

_ANY_ADDRESS = ("0.0.0.0", "::", "")


@dataclass(frozen=True)
class Kind:
    """What is known of a kind: whether it is in a namespace, how it is named, where its pod is."""

    namespaced: bool
    name: re.Pattern[str] = _DNS_SUBDOMAIN
    pod: tuple[str, ...] | None = None
    #: Where further pods are, of a kind that has several.
    further_pods: tuple[tuple[str, ...], ...] = ()
    #: Where the claims are that each pod gets one of.
    claims: tuple[str, ...] = ("spec", "volumeClaimTemplates")
    #: Who brings the kind, where not every cluster has it.
    brought_by: str | None = None


_TEMPLATE = ("spec", "template")

KINDS = {
    ("v1", "Namespace"): Kind(False, _DNS_LABEL),
    ("v1", "ConfigMap"): Kind(True),
    ("v1", "Secret"): Kind(True),
    ("v1", "Service"): Kind(True, _DNS_LABEL),
    ("v1", "ServiceAccount"): Kind(True),
    ("v1", "PersistentVolume"): Kind(False),
    ("v1", "PersistentVolumeClaim"): Kind(True),
    ("v1", "Pod"): Kind(True, pod=()),
    ("apps/v1", "Deployment"): Kind(True, pod=_TEMPLATE),
    ("apps/v1", "DaemonSet"): Kind(True, pod=_TEMPLATE),
    ("apps/v1", "StatefulSet"): Kind(True, pod=_TEMPLATE),
    ("batch/v1", "Job"): Kind(True, pod=_TEMPLATE),
    ("batch/v1", "CronJob"): Kind(True, pod=("spec", "jobTemplate", "spec", "template")),
    ("policy/v1", "PodDisruptionBudget"): Kind(True),
    ("networking.k8s.io/v1", "NetworkPolicy"): Kind(True),
    ("node.k8s.io/v1", "RuntimeClass"): Kind(False),
    ("scheduling.k8s.io/v1", "PriorityClass"): Kind(False),
    ("storage.k8s.io/v1", "StorageClass"): Kind(False),
    ("rbac.authorization.k8s.io/v1", "Role"): Kind(True, _PATH_SEGMENT),
    ("rbac.authorization.k8s.io/v1", "RoleBinding"): Kind(True, _PATH_SEGMENT),
    ("rbac.authorization.k8s.io/v1", "ClusterRole"): Kind(False, _PATH_SEGMENT),
    ("rbac.authorization.k8s.io/v1", "ClusterRoleBinding"): Kind(False, _PATH_SEGMENT),
    ("admissionregistration.k8s.io/v1", "ValidatingAdmissionPolicy"): Kind(False),
    ("admissionregistration.k8s.io/v1", "ValidatingAdmissionPolicyBinding"): Kind(False),
    ("keda.sh/v1alpha1", "ScaledObject"): Kind(True, brought_by="KEDA 2.20.1 or newer"),
    ("leaderworkerset.x-k8s.io/v1", "LeaderWorkerSet"): Kind(
        True,
        # It becomes the name of a Service.
        _DNS_LABEL,
        pod=("spec", "leaderWorkerTemplate", "leaderTemplate"),
        further_pods=(("spec", "leaderWorkerTemplate", "workerTemplate"),),
        claims=("spec", "leaderWorkerTemplate", "volumeClaimTemplates"),
        brought_by="LeaderWorkerSet 0.8 or newer",
    ),
}

#: There in every cluster, or every namespace: (kind, name).
ALWAYS_THERE = frozenset(
    {
        ("Namespace", "default"),
        ("Namespace", "kube-system"),
        ("PriorityClass", "system-cluster-critical"),
        ("PriorityClass", "system-node-critical"),
        ("ServiceAccount", "default"),
        ("ClusterRole", "cluster-admin"),
        ("ClusterRole", "admin"),
        ("ClusterRole", "edit"),
        ("ClusterRole", "view"),
    }
)

#: A Deployment's objects are told apart by these: (kind, namespace or None, name).
_Key = tuple[str, "str | None", str]


@dataclass(frozen=True)
class _Workload:
    """An object that has pods."""

    title: str
    kind: str
    namespace: str
    #: Where the pod is in the object, for messages.
    path: str
    labels: Mapping[str, str]
    pod: Mapping[str, Any]
    item: Mapping[str, Any]
    #: Names of the claims that each of its pods gets one of.
    claims: frozenset[str] = frozenset()


@dataclass(frozen=True)
class _Container:
    path: str
    spec: Mapping[str, Any]


def _fault(title: str, path: str, found: str, wanted: str) -> str:
    return f"{title}: {path}: found {found}, wanted {wanted}"


def _title(item: Mapping[str, Any]) -> str:
    about = item.get("metadata") or {}
    namespace = about.get("namespace")
    return f"{item.get('kind')} {f'{namespace}/' if namespace else ''}{about.get('name')}"


def _kind(item: Mapping[str, Any]) -> Kind | None:
    return KINDS.get((str(item.get("apiVersion")), str(item.get("kind"))))


def check_objects(
    objects: Sequence[Mapping[str, Any]], provided: Sequence[tuple[str, str | None, str]] = ()
) -> list[str]:
    """Return what is wrong, a sentence each; ``provided``: (kind, namespace, name) of what is there beside the objects.

    An object that is not understood is a fault itself, and nothing more is said of it.
    """
    faults: list[str] = []
    known: list[Mapping[str, Any]] = []
    for number, item in enumerate(objects):
        problem = _form(item, number)
        if problem:
            faults.append(problem)
        else:
            known.append(item)
    index: dict[_Key, Mapping[str, Any]] = {}
    for item in known:
        faults += _about(item)
        about = item["metadata"]
        key = (item["kind"], about.get("namespace"), about["name"])
        if key in index:
            faults.append(_fault(_title(item), "metadata.name", "the same object twice", "every object once"))
        index[key] = item
    there = _There(index, frozenset(provided))
    workloads = [found for item in known for found in _workloads(item)]
    for item in known:
        faults += _references(item, there)
        if item["kind"] == "NetworkPolicy":
            faults += _network_policy(item)
        if item["kind"] in ("ConfigMap", "Secret"):
            faults += _keys(item)
        if item["kind"] == "ScaledObject":
            beside = there.beside(item["metadata"].get("namespace"))
            faults += (_fault(_title(item), *fault) for fault in scaled_object_faults(item, known, beside))
    for workload in workloads:
        faults += _selector(workload)
        faults += _pod(workload, there)
    faults += _overlapping(workloads)
    faults += _services(known, workloads)
    faults += _host_ports(workloads)
    return faults


def _form(item: Any, number: int) -> str | None:
    """Return why an object can't be looked at."""
    if not isinstance(item, Mapping):
        return f"object {number}: found {item!r}, wanted a mapping with apiVersion, kind and metadata"
    title = f"object {number} ({_title(item)})" if isinstance(item.get("metadata"), Mapping) else f"object {number}"
    if _kind(item) is None:
        found = f"{item.get('apiVersion')} {item.get('kind')}"
        versions = sorted(version for version, kind in KINDS if kind == item.get("kind"))
        return _fault(
            title,
            "apiVersion, kind",
            found,
            f"{' or '.join(versions)} {item.get('kind')}" if versions else f"a kind that is known here: {_kinds()}",
        )
    if not isinstance(item.get("metadata"), Mapping) or not isinstance(item["metadata"].get("name"), str):
        return _fault(title, "metadata.name", "none", "a name")
    return None


def _kinds() -> str:
    return ", ".join(sorted(kind for __, kind in KINDS))


def _about(item: Mapping[str, Any]) -> Iterator[str]:
    """Names, namespace, labels and annotations."""
    kind = KINDS[item["apiVersion"], item["kind"]]
    title, about = _title(item), item["metadata"]
    if not kind.name.fullmatch(about["name"]):
        wanted = {
            _DNS_LABEL.pattern: "a DNS label: up to 63 of a-z, 0-9 and '-', ends without '-'",
            _DNS_SUBDOMAIN.pattern: "a DNS name: up to 253 of a-z, 0-9, '-' and '.', labels of up to 63",
        }.get(kind.name.pattern, "a name without '/' and '%'")
        yield _fault(title, "metadata.name", about["name"], wanted)
    namespace = about.get("namespace")
    if kind.namespaced and not namespace:
        yield _fault(title, "metadata.namespace", "none", "the namespace of the object")
    elif kind.namespaced and not _DNS_LABEL.fullmatch(str(namespace)):
        yield _fault(title, "metadata.namespace", str(namespace), "a DNS label: up to 63 of a-z, 0-9 and '-'")
    elif not kind.namespaced and namespace:
        yield _fault(
            title, "metadata.namespace", str(namespace), f"none: a {item['kind']} belongs to the whole cluster"
        )
    yield from _marks(title, "metadata", about)
    for path in filter(None, (kind.pod, *kind.further_pods)):
        template = _at(item, path)
        yield from _marks(title, f"{'.'.join(path)}.metadata", template.get("metadata") or {})


def _marks(title: str, path: str, about: Mapping[str, Any]) -> Iterator[str]:
    for where in ("labels", "annotations"):
        for key, value in (about.get(where) or {}).items():
            prefix, slash, name = str(key).rpartition("/")
            if not _QUALIFIED.fullmatch(name) or (slash and not _DNS_SUBDOMAIN.fullmatch(prefix)):
                yield _fault(
                    title, f"{path}.{where}", str(key), "a key such as example.org/name, the name up to 63 characters"
                )
            if not isinstance(value, str):
                yield _fault(title, f"{path}.{where}.{key}", repr(value), "a text")
            elif where == "labels" and not _LABEL_VALUE.fullmatch(value):
                yield _fault(
                    title,
                    f"{path}.{where}.{key}",
                    value,
                    "up to 63 of A-Z, a-z, 0-9, '-', '_' and '.', a letter or digit at both ends",
                )


def _at(item: Mapping[str, Any], path: Sequence[str]) -> Mapping[str, Any]:
    found: Any = item
    for step in path:
        found = found.get(step) if isinstance(found, Mapping) else None
    return found if isinstance(found, Mapping) else {}


def _workloads(item: Mapping[str, Any]) -> Iterator[_Workload]:
    kind = _kind(item)
    if kind is None or kind.pod is None:
        return
    found = _at(item, kind.claims[:-1]).get(kind.claims[-1]) or []
    for path in (kind.pod, *kind.further_pods):
        template = _at(item, path)
        yield _Workload(
            title=_title(item),
            kind=item["kind"],
            namespace=str(item["metadata"].get("namespace")),
            path=".".join((*path, "spec")),
            labels=(template.get("metadata") or {}).get("labels") or {},
            pod=template.get("spec") or {},
            item=item,
            claims=frozenset(str(claim["metadata"]["name"]) for claim in found),
        )


# ------------------------------------------------------------------------------------------------------- selectors


def _selector(workload: _Workload) -> Iterator[str]:
    """A workload that makes pods selects its own."""
    if workload.kind not in ("Deployment", "DaemonSet", "StatefulSet"):
        return
    selector = _at(workload.item, ("spec", "selector"))
    if not selector.get("matchLabels") and not selector.get("matchExpressions"):
        yield _fault(workload.title, "spec.selector", "an empty selector", "labels of the pod's template")
        return
    for key, value in (selector.get("matchLabels") or {}).items():
        if workload.labels.get(key) != value:
            yield _fault(
                workload.title,
                f"spec.selector.matchLabels.{key}",
                str(value),
                f"the template's label, {workload.labels.get(key, 'which it lacks')}",
            )
    for number, expression in enumerate(selector.get("matchExpressions") or []):
        if not _holds(expression, workload.labels):
            yield _fault(
                workload.title,
                f"spec.selector.matchExpressions.{number}",
                f"{expression.get('key')} {expression.get('operator')} {expression.get('values', '')}".strip(),
                "what the template's labels fulfil",
            )


def _holds(expression: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    key, values = expression.get("key"), expression.get("values") or []
    return {
        "In": labels.get(str(key)) in values,
        "NotIn": labels.get(str(key)) not in values,
        "Exists": key in labels,
        "DoesNotExist": key not in labels,
    }.get(str(expression.get("operator")), False)


def _overlapping(workloads: Sequence[_Workload]) -> Iterator[str]:
    """Two workloads with one selector fight over each other's pods."""
    seen: dict[tuple[str, frozenset[tuple[str, str]]], str] = {}
    for workload in workloads:
        labels = _at(workload.item, ("spec", "selector", "matchLabels"))
        if not labels or workload.kind in ("Pod", "Job", "CronJob"):
            continue
        key = (workload.namespace, frozenset((str(name), str(value)) for name, value in labels.items()))
        if key in seen:
            yield _fault(
                workload.title,
                "spec.selector.matchLabels",
                f"the selector of {seen[key]}",
                "a selector of its own pods only",
            )
        seen.setdefault(key, workload.title)


def _services(objects: Sequence[Mapping[str, Any]], workloads: Sequence[_Workload]) -> Iterator[str]:
    """A Service selects pods, and its named ports are theirs."""
    for item in objects:
        selector = _at(item, ("spec", "selector"))
        if item["kind"] != "Service" or not selector:
            continue
        title, namespace = _title(item), item["metadata"].get("namespace")
        behind = [
            workload
            for workload in workloads
            if workload.namespace == namespace
            and all(workload.labels.get(key) == value for key, value in selector.items())
        ]
        if not behind:
            shown = ", ".join(f"{key}={value}" for key, value in selector.items())
            yield _fault(title, "spec.selector", shown, "the labels of a pod among the objects")
            continue
        names = {
            port.get("name")
            for workload in behind
            for box in _containers(workload)
            for port in box.spec.get("ports") or []
        }
        for number, port in enumerate(item["spec"].get("ports") or []):
            target = port.get("targetPort")
            if isinstance(target, str) and target not in names:
                yield _fault(title, f"spec.ports.{number}.targetPort", target, "the name of a port of its pods")


# ------------------------------------------------------------------------------------------------------------ pods


def _containers(workload: _Workload) -> Iterator[_Container]:
    for where in ("initContainers", "containers"):
        for number, spec in enumerate(workload.pod.get(where) or []):
            yield _Container(f"{workload.path}.{where}.{number}", spec)


def _pod(workload: _Workload, there: _There) -> Iterator[str]:
    title, pod = workload.title, workload.pod
    if not pod.get("containers"):
        yield _fault(title, f"{workload.path}.containers", "none", "a container")
    yield from there.lacks(
        title,
        f"{workload.path}.serviceAccountName",
        "ServiceAccount",
        workload.namespace,
        pod.get("serviceAccountName"),
    )
    yield from there.lacks(
        title, f"{workload.path}.priorityClassName", "PriorityClass", None, pod.get("priorityClassName")
    )
    yield from there.lacks(
        title, f"{workload.path}.runtimeClassName", "RuntimeClass", None, pod.get("runtimeClassName")
    )
    for number, secret in enumerate(pod.get("imagePullSecrets") or []):
        path = f"{workload.path}.imagePullSecrets.{number}.name"
        yield from there.lacks(title, path, "Secret", workload.namespace, secret.get("name"))
    volumes: set[str] = set()
    for number, volume in enumerate(pod.get("volumes") or []):
        path, name = f"{workload.path}.volumes.{number}", str(volume.get("name"))
        if not _DNS_LABEL.fullmatch(name):
            yield _fault(title, f"{path}.name", name, "a DNS label: up to 63 of a-z, 0-9 and '-'")
        if name in volumes:
            yield _fault(title, f"{path}.name", f"{name} twice", "every volume once")
        volumes.add(name)
        yield from _volume(workload, path, volume, there)
    names: set[str] = set()
    for box in _containers(workload):
        name = str(box.spec.get("name"))
        if not _DNS_LABEL.fullmatch(name):
            yield _fault(title, f"{box.path}.name", name, "a DNS label: up to 63 of a-z, 0-9 and '-'")
        if name in names:
            yield _fault(title, f"{box.path}.name", f"{name} twice", "every container once")
        names.add(name)
        yield from _container(workload, box, volumes | workload.claims, there)


def _container(workload: _Workload, box: _Container, volumes: set[str], there: _There) -> Iterator[str]:
    title = workload.title
    image, policy = str(box.spec.get("image")), box.spec.get("imagePullPolicy")
    if not _PINNED.fullmatch(image) and policy != "Never":
        yield _fault(
            title, f"{box.path}.image", image, "an image with @sha256: and its digest, or imagePullPolicy Never"
        )
    places: set[str] = set()
    for number, mount in enumerate(box.spec.get("volumeMounts") or []):
        path = f"{box.path}.volumeMounts.{number}"
        if mount.get("name") not in volumes:
            yield _fault(
                title,
                f"{path}.name",
                str(mount.get("name")),
                f"one of the pod's volumes: {', '.join(sorted(volumes)) or 'none'}",
            )
        if mount.get("mountPath") in places:
            yield _fault(title, f"{path}.mountPath", f"{mount.get('mountPath')} twice", "one volume at a place")
        places.add(str(mount.get("mountPath")))
    yield from _environment(workload, box, there)
    yield from _resources(title, box)
    yield from _ports(title, box, bool(workload.pod.get("hostNetwork")))


def _volume(workload: _Workload, path: str, volume: Mapping[str, Any], there: _There) -> Iterator[str]:
    title, namespace = workload.title, workload.namespace
    sources = [volume, *(_at(volume, ("projected",)).get("sources") or [])]
    for source in sources:
        for word, kind, key in (("configMap", "ConfigMap", "name"), ("secret", "Secret", "secretName")):
            found = source.get(word)
            if not isinstance(found, Mapping) or found.get("optional"):
                continue
            name = found.get(key) or found.get("name")
            yield from there.lacks(title, f"{path}.{word}", kind, namespace, name)
            for item in found.get("items") or []:
                yield from there.lacks_key(
                    title, f"{path}.{word}.items", kind, namespace, str(name), str(item.get("key"))
                )
    claim = _at(volume, ("persistentVolumeClaim",)).get("claimName")
    yield from there.lacks(title, f"{path}.persistentVolumeClaim.claimName", "PersistentVolumeClaim", namespace, claim)


def _environment(workload: _Workload, box: _Container, there: _There) -> Iterator[str]:
    title, namespace, names = workload.title, workload.namespace, set()
    for number, entry in enumerate(box.spec.get("env") or []):
        path = f"{box.path}.env.{number}"
        if entry.get("name") in names:
            yield _fault(title, f"{path}.name", f"{entry.get('name')} twice", "every variable once")
        names.add(entry.get("name"))
        if not isinstance(entry.get("value", ""), str):
            yield _fault(title, f"{path}.value", repr(entry["value"]), "a text")
        for word, kind in (("configMapKeyRef", "ConfigMap"), ("secretKeyRef", "Secret")):
            found = _at(entry, ("valueFrom", word))
            if found and not found.get("optional"):
                yield from there.lacks(title, f"{path}.valueFrom.{word}", kind, namespace, found.get("name"))
                yield from there.lacks_key(
                    title,
                    f"{path}.valueFrom.{word}.key",
                    kind,
                    namespace,
                    str(found.get("name")),
                    str(found.get("key")),
                )
    for number, entry in enumerate(box.spec.get("envFrom") or []):
        for word, kind in (("configMapRef", "ConfigMap"), ("secretRef", "Secret")):
            found = entry.get(word) or {}
            if not found.get("optional"):
                yield from there.lacks(title, f"{box.path}.envFrom.{number}.{word}", kind, namespace, found.get("name"))


def _resources(title: str, box: _Container) -> Iterator[str]:
    """Extended resources, as GPUs are: whole, and the request is the limit. Of others the limit is no less."""
    resources = box.spec.get("resources") or {}
    limits, requests = resources.get("limits") or {}, resources.get("requests") or {}
    for name in sorted(set(limits) | set(requests)):
        path = f"{box.path}.resources"
        amounts = {}
        for where, values in (("limits", limits), ("requests", requests)):
            if name not in values:
                continue
            number = _amount(values[name])
            if number is None:
                yield _fault(title, f"{path}.{where}.{name}", repr(values[name]), "an amount, such as 2, 500m or 4Gi")
            else:
                amounts[where] = number
        if "/" in name and not name.startswith("kubernetes.io/"):
            if amounts.get("limits") != amounts.get("requests"):
                found = f"requests {requests.get(name, 'none')}, limits {limits.get(name, 'none')}"
                yield _fault(title, f"{path}.{name}", found, "requests equal to limits")
            elif any(number != number.to_integral_value() for number in amounts.values()):
                yield _fault(title, f"{path}.{name}", str(limits[name]), "a whole number")
        elif len(amounts) > 1 and amounts["requests"] > amounts["limits"]:
            found = f"requests {requests[name]}, limits {limits[name]}"
            yield _fault(title, f"{path}.{name}", found, "requests no larger than limits")


def _amount(value: Any) -> Decimal | None:
    match = None if isinstance(value, bool) else _QUANTITY.fullmatch(str(value))
    return Decimal(match.group(1)) * Decimal(_SCALES[match.group(2) or ""]) if match else None


def _ports(title: str, box: _Container, host_network: bool) -> Iterator[str]:
    """Ports of a container, and the ports that its probes and hooks ask."""
    numbers: set[Any] = set()
    for number, port in enumerate(box.spec.get("ports") or []):
        path = f"{box.path}.ports.{number}"
        for word in ("containerPort", "hostPort"):
            value = port.get(word)
            if value is not None and not (isinstance(value, int) and 1 <= value <= 65535):
                yield _fault(title, f"{path}.{word}", repr(value), "1 to 65535")
        if port.get("name") is not None and not _PORT_NAME.fullmatch(str(port["name"])):
            yield _fault(title, f"{path}.name", str(port["name"]), "up to 15 of a-z, 0-9 and '-', one of them a letter")
        if host_network and port.get("hostPort", port.get("containerPort")) != port.get("containerPort"):
            yield _fault(
                title,
                f"{path}.hostPort",
                str(port["hostPort"]),
                f"containerPort, {port['containerPort']}: hostNetwork is true",
            )
        numbers.update((port.get("containerPort"), port.get("name")))
    askers = {word: box.spec.get(word) for word in ("startupProbe", "readinessProbe", "livenessProbe")}
    askers.update({f"lifecycle.{word}": _at(box.spec, ("lifecycle", word)) for word in ("preStop", "postStart")})
    for word, asker in askers.items():
        for way in ("httpGet", "tcpSocket", "grpc"):
            port = _at(asker or {}, (way,)).get("port")
            if port is not None and port not in numbers:
                shown = ", ".join(sorted(str(known) for known in numbers if known is not None)) or "none"
                yield _fault(title, f"{box.path}.{word}.{way}.port", str(port), f"a port of the container: {shown}")


def _host_ports(workloads: Sequence[_Workload]) -> Iterator[str]:
    """Two pods of a node can't have one port of it. What is pinned to no node may come to be on any."""
    #: (protocol, port) -> node, None for any -> (address, title).
    taken: dict[tuple[str, int], dict[str | None, list[tuple[str, str]]]] = {}
    for workload in workloads:
        node = workload.pod.get("nodeName") or (workload.pod.get("nodeSelector") or {}).get(HOSTNAME_LABEL)
        for path, protocol, value, address in _ports_of_the_node(workload):
            by_node = taken.setdefault((protocol, value), {})
            nodes = list(by_node) if node is None else [node, None]
            for other_node in nodes:
                holder = next(
                    (title for other, title in by_node.get(other_node, ()) if _same_address(address, other)), None
                )
                if holder is not None:
                    where = f"{value} on {node or other_node or 'any node'}, which {holder} has"
                    yield _fault(workload.title, path, where, "a port of the node for one pod")
                    break
            by_node.setdefault(node, []).append((address, workload.title))


def _ports_of_the_node(workload: _Workload) -> Iterator[tuple[str, str, int, str]]:
    """Yield (where it says so, protocol, port, address) of each port that a pod has of its node."""
    for box in _containers(workload):
        for number, port in enumerate(box.spec.get("ports") or []):
            value = port.get("containerPort") if workload.pod.get("hostNetwork") else port.get("hostPort")
            if isinstance(value, int):
                path = f"{box.path}.ports.{number}.hostPort"
                yield path, str(port.get("protocol") or "TCP"), value, str(port.get("hostIP") or "")


def _same_address(one: str, other: str) -> bool:
    return one in _ANY_ADDRESS or other in _ANY_ADDRESS or one == other


# ------------------------------------------------------------------------------------------------------ references


@dataclass(frozen=True)
class _There:
    """What exists: the objects themselves and what else the caller vouches for."""

    index: Mapping[_Key, Mapping[str, Any]]
    provided: frozenset[tuple[str, str | None, str]]

    def has(self, kind: str, namespace: str | None, name: str) -> bool:
        """Return whether somebody provides the object."""
        key = (kind, namespace, name)
        return key in self.index or key in self.provided or (kind, name) in ALWAYS_THERE

    def beside(self, namespace: str | None) -> dict[tuple[str, str], Mapping[str, Any] | None]:
        """Return what is in a namespace, by kind and name; None of what is not among the objects."""
        found: dict[tuple[str, str], Mapping[str, Any] | None] = {
            (kind, name): None for kind, place, name in self.provided if place == namespace
        }
        found.update({(kind, name): item for (kind, place, name), item in self.index.items() if place == namespace})
        return found

    def lacks(self, title: str, path: str, kind: str, namespace: str | None, name: Any) -> Iterator[str]:
        """Yield the fault of a reference that leads nowhere; a name that is None is no reference."""
        if name is not None and not self.has(kind, namespace, str(name)):
            yield _fault(title, path, str(name), f"a {kind} among the objects{f' of {namespace}' if namespace else ''}")

    def lacks_key(self, title: str, path: str, kind: str, namespace: str, name: str, key: str) -> Iterator[str]:
        """Yield the fault of a key that the object, which is among ours, does not have."""
        item = self.index.get((kind, namespace, name))
        if item is not None:
            keys = {name for where in ("data", "stringData", "binaryData") for name in item.get(where) or {}}
            if key not in keys:
                yield _fault(title, path, key, f"a key of {kind} {name}: {', '.join(sorted(keys)) or 'none'}")


def _references(item: Mapping[str, Any], there: _There) -> Iterator[str]:
    """What objects that have no pod refer to."""
    title, kind, namespace = _title(item), item["kind"], item["metadata"].get("namespace")
    yield from there.lacks(title, "metadata.namespace", "Namespace", None, namespace)
    spec = item.get("spec") or {}
    if kind in ("RoleBinding", "ClusterRoleBinding"):
        role = item.get("roleRef") or {}
        of = namespace if role.get("kind") == "Role" else None
        yield from there.lacks(title, "roleRef", str(role.get("kind")), of, role.get("name"))
        for number, subject in enumerate(item.get("subjects") or []):
            if subject.get("kind") == "ServiceAccount":
                path = f"subjects.{number}"
                if not subject.get("namespace"):
                    yield _fault(title, f"{path}.namespace", "none", "the account's namespace")
                yield from there.lacks(title, path, "ServiceAccount", subject.get("namespace"), subject.get("name"))
    if kind == "ValidatingAdmissionPolicyBinding":
        yield from there.lacks(title, "spec.policyName", "ValidatingAdmissionPolicy", None, spec.get("policyName"))
        policy = there.index.get(("ValidatingAdmissionPolicy", None, str(spec.get("policyName"))), {})
        wanted = _at(policy, ("spec", "paramKind")).get("kind")
        reference = spec.get("paramRef") or {}
        if wanted and not reference:
            yield _fault(title, "spec.paramRef", "none", f"the {wanted} with the policy's parameters")
        elif wanted and reference.get("name"):
            yield from there.lacks(title, "spec.paramRef", str(wanted), reference.get("namespace"), reference["name"])
    if kind == "PersistentVolumeClaim" and spec.get("volumeName"):
        yield from there.lacks(title, "spec.volumeName", "PersistentVolume", None, spec["volumeName"])
        volume = there.index.get(("PersistentVolume", None, spec["volumeName"]))
        if volume is not None:
            yield from _claim(title, item, volume)


def _claim(title: str, claim: Mapping[str, Any], volume: Mapping[str, Any]) -> Iterator[str]:
    """A claim and the volume that it names must fit, or it stays Pending."""
    about, spec, offered = claim["metadata"], claim["spec"], volume.get("spec") or {}
    held = offered.get("claimRef") or {}
    if held and (held.get("namespace"), held.get("name")) != (about.get("namespace"), about["name"]):
        found = f"a volume for {held.get('namespace')}/{held.get('name')}"
        yield _fault(title, "spec.volumeName", found, "one whose claimRef is this claim")
    if spec.get("storageClassName") != offered.get("storageClassName"):
        found = repr(spec.get("storageClassName"))
        yield _fault(title, "spec.storageClassName", found, f"the volume's, {offered.get('storageClassName')!r}")
    lacking = sorted(set(spec.get("accessModes") or []) - set(offered.get("accessModes") or []))
    if lacking:
        yield _fault(
            title,
            "spec.accessModes",
            ", ".join(lacking),
            f"modes of the volume: {', '.join(offered.get('accessModes') or [])}",
        )
    asked = _amount(_at(spec, ("resources", "requests")).get("storage"))
    size = _amount(_at(offered, ("capacity",)).get("storage"))
    if asked is None or size is None or asked > size:
        yield _fault(title, "spec.resources.requests.storage", str(asked), f"at most the volume's capacity, {size}")


def _keys(item: Mapping[str, Any]) -> Iterator[str]:
    title = _title(item)
    for where in ("data", "stringData", "binaryData"):
        for key, value in (item.get(where) or {}).items():
            if not _CONFIG_KEY.fullmatch(str(key)):
                yield _fault(title, where, str(key), "a key of up to 253 of A-Z, a-z, 0-9, '-', '_' and '.'")
            if not isinstance(value, str):
                yield _fault(title, f"{where}.{key}", repr(value), "a text")


def _network_policy(item: Mapping[str, Any]) -> Iterator[str]:
    """Networks, exceptions within them, and ports."""
    title, spec = _title(item), item.get("spec") or {}
    for way, peers in (("ingress", "from"), ("egress", "to")):
        if spec.get(way) and way.capitalize() not in (spec.get("policyTypes") or [way.capitalize()]):
            yield _fault(
                title,
                "spec.policyTypes",
                ", ".join(spec["policyTypes"]),
                f"{way.capitalize()} too: there are rules of it",
            )
        for number, rule in enumerate(spec.get(way) or []):
            for place, peer in enumerate(rule.get(peers) or []):
                yield from _block(title, f"spec.{way}.{number}.{peers}.{place}.ipBlock", peer.get("ipBlock"))
            for place, port in enumerate(rule.get("ports") or []):
                yield from _policy_port(title, f"spec.{way}.{number}.ports.{place}", port)


def _block(title: str, path: str, block: Mapping[str, Any] | None) -> Iterator[str]:
    if block is None:
        return
    network = _network(block.get("cidr"))
    if network is None:
        yield _fault(
            title,
            f"{path}.cidr",
            str(block.get("cidr")),
            "a network such as 192.0.2.0/24, no bit set beyond its length",
        )
        return
    for exception in block.get("except") or []:
        inner = _network(exception)
        if inner is None:
            yield _fault(title, f"{path}.except", str(exception), "a network such as 192.0.2.0/24")
        elif inner == network or not _within(inner, network):
            yield _fault(title, f"{path}.except", str(exception), f"a part of {network}")


def _within(inner: Any, outer: Any) -> bool:
    return inner.version == outer.version and bool(inner.subnet_of(outer))


def _network(value: Any) -> ipaddress.IPv4Network | ipaddress.IPv6Network | None:
    try:
        return ipaddress.ip_network(value) if isinstance(value, str) and "/" in value else None
    except ValueError:
        return None


def _policy_port(title: str, path: str, port: Mapping[str, Any]) -> Iterator[str]:
    first, last = port.get("port"), port.get("endPort")
    if isinstance(first, int) and not 1 <= first <= 65535:
        yield _fault(title, f"{path}.port", str(first), "1 to 65535")
    if last is not None and not (isinstance(first, int) and isinstance(last, int) and first <= last <= 65535):
        yield _fault(title, f"{path}.endPort", str(last), f"a number from port ({first}) to 65535")


def objects_of(text_documents: Sequence[Any]) -> list[Object]:
    """Return the documents of a manifest without empty ones, a ``List`` as what it holds."""
    found: list[Object] = []
    for document in text_documents:
        if isinstance(document, Mapping) and document.get("kind") == "List":
            found += objects_of(document.get("items") or [])
        elif document is not None:
            found.append(dict(document) if isinstance(document, Mapping) else document)
    return found
