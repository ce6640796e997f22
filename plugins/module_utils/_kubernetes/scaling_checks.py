# SPDX-License-Identifier: Apache-2.0
# PRIVATE to the collection: do not import this from outside, it may change without notice.
"""What a ScaledObject of KEDA has to be. No schema of Kubernetes knows the kind, so that its fields are held here, too.

Only what this collection makes: a field or a trigger of KEDA that is not among these is a fault.
"""

from __future__ import annotations

import re
import urllib.parse
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

#: Where in the object, what was found, what is wanted.
Fault = tuple[str, str, str]
Object = Mapping[str, Any]

_FIELDS: Mapping[str, frozenset[str]] = {
    "spec": frozenset(
        (
            "scaleTargetRef pollingInterval cooldownPeriod initialCooldownPeriod minReplicaCount maxReplicaCount "
            "fallback advanced triggers"
        ).split()
    ),
    "spec.scaleTargetRef": frozenset({"apiVersion", "kind", "name"}),
    "spec.fallback": frozenset({"failureThreshold", "replicas", "behavior"}),
    "spec.advanced": frozenset({"scalingModifiers"}),
    "spec.advanced.scalingModifiers": frozenset({"formula", "target", "activationTarget"}),
}
_TRIGGER_FIELDS = frozenset({"type", "name", "metadata"})
#: What each trigger is told, all of it.
_TRIGGERS: Mapping[str, frozenset[str]] = {
    "metrics-api": frozenset({"url", "format", "valueLocation", "targetValue"}),
    "kubernetes-workload": frozenset({"podSelector", "value"}),
}
#: (field, the least).
_NUMBERS = (
    ("pollingInterval", 1),
    ("cooldownPeriod", 0),
    ("initialCooldownPeriod", 0),
    ("minReplicaCount", 0),
    ("maxReplicaCount", 1),
)
_FALLBACK_NUMBERS = (("failureThreshold", 0), ("replicas", 0))
_NAME = re.compile(r"[a-z][a-z0-9_]*")
_FORMULA = re.compile(r"[a-z0-9_ ?:|&<>=+()-]+")
_WORD = re.compile(r"(?<![a-z0-9_])[a-z_][a-z0-9_]*")
_POSITIVE = re.compile(r"[1-9][0-9]*")
_NUMBER = re.compile(r"[0-9]+(\.[0-9]+)?")
_GAUGE = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*")
_SELECTOR = re.compile(r"(?P<key>[^=!,() ]+)=(?P<value>[^=!,() ]+)")


def scaled_object_faults(
    item: Object, objects: Sequence[Object], known: Mapping[tuple[str, str], Any]
) -> Iterator[Fault]:
    """Yield what is wrong with a ScaledObject; ``objects`` are those beside it.

    ``known``: (kind, name) of what is in its namespace, with the object where it is among ``objects`` and else None.
    """
    spec = item.get("spec")
    if not isinstance(spec, Mapping):
        yield "spec", "none", "a mapping"
        return
    for path, allowed in _FIELDS.items():
        yield from _unknown(path, _at(item, path), allowed)
    yield from _numbers(spec)
    yield from _target(item, objects, known)
    triggers = spec.get("triggers")
    if not isinstance(triggers, list) or not triggers:
        yield "spec.triggers", "none", "at least one trigger"
        return
    names: list[str] = []
    for number, trigger in enumerate(triggers):
        path = f"spec.triggers.{number}"
        name = str(trigger.get("name"))
        if not _NAME.fullmatch(name):
            yield f"{path}.name", name, "a name that a formula can have: a-z, 0-9 and '_', a letter first"
        elif name in names:
            yield f"{path}.name", f"{name} twice", "every trigger once"
        names.append(name)
        yield from _trigger(path, trigger, item, objects, known)
    yield from _formula(spec, names)


def _at(item: Any, path: str) -> Any:
    for step in path.split("."):
        item = item.get(step) if isinstance(item, Mapping) else None
    return item


def _unknown(path: str, found: Any, allowed: frozenset[str]) -> Iterator[Fault]:
    if found is None:
        return
    if not isinstance(found, Mapping):
        yield path, repr(found), "a mapping"
        return
    for key in sorted(set(found) - allowed):
        yield f"{path}.{key}", "a field that is not known here", f"one of {', '.join(sorted(allowed))}"


def _whole(value: Any, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def _numbers(spec: Object) -> Iterator[Fault]:
    for key, least in _NUMBERS:
        if not _whole(spec.get(key), least):
            yield f"spec.{key}", repr(spec.get(key)), f"a whole number, {least} or more"
    few: Any = spec.get("minReplicaCount")
    most: Any = spec.get("maxReplicaCount")
    if _whole(few, 0) and _whole(most, 1) and few > most:
        yield "spec.minReplicaCount", str(few), f"at most maxReplicaCount, {most}"
    fallback = spec.get("fallback")
    if not isinstance(fallback, Mapping):
        return
    for key, least in _FALLBACK_NUMBERS:
        if not _whole(fallback.get(key), least):
            yield f"spec.fallback.{key}", repr(fallback.get(key)), f"a whole number, {least} or more"
    if fallback.get("behavior") != "scalingModifiers":
        yield (
            "spec.fallback.behavior",
            repr(fallback.get("behavior")),
            "scalingModifiers: the formula says what silence means",
        )


def _target(item: Object, objects: Sequence[Object], known: Mapping[tuple[str, str], Any]) -> Iterator[Fault]:
    path = "spec.scaleTargetRef"
    target = _at(item, path)
    if not isinstance(target, Mapping) or (target.get("apiVersion"), target.get("kind")) != ("apps/v1", "Deployment"):
        yield path, repr(target), "apiVersion apps/v1, kind Deployment and a name"
        return
    name = str(target.get("name"))
    if ("Deployment", name) not in known:
        yield f"{path}.name", name, f"a Deployment among the objects of {item['metadata'].get('namespace')}"
        return
    scaled = known["Deployment", name]
    if scaled is not None and "replicas" in scaled["spec"]:
        yield (
            f"{path}.name",
            f"{name}, whose spec.replicas is {scaled['spec']['replicas']}",
            "a Deployment without spec.replicas: each apply would take back what KEDA has scaled",
        )
    for other in objects:
        if (
            other["kind"] == "ScaledObject"
            and other is not item
            and other["metadata"].get("namespace") == item["metadata"].get("namespace")
            and other["metadata"]["name"] < item["metadata"]["name"]
            and _at(other, f"{path}.name") == name
        ):
            yield (
                f"{path}.name",
                f"{name}, which {other['metadata']['name']} scales",
                "one ScaledObject for a Deployment",
            )


def _trigger(
    path: str, trigger: Object, item: Object, objects: Sequence[Object], known: Mapping[tuple[str, str], Any]
) -> Iterator[Fault]:
    yield from _unknown(path, trigger, _TRIGGER_FIELDS)
    kind, told = str(trigger.get("type")), trigger.get("metadata")
    if kind not in _TRIGGERS:
        yield f"{path}.type", kind, f"one of {', '.join(sorted(_TRIGGERS))}"
        return
    if not isinstance(told, Mapping):
        yield f"{path}.metadata", repr(told), f"{', '.join(sorted(_TRIGGERS[kind]))}"
        return
    yield from _unknown(f"{path}.metadata", told, _TRIGGERS[kind])
    for key in sorted(_TRIGGERS[kind]):
        if not isinstance(told.get(key), str) or not told[key]:
            yield f"{path}.metadata.{key}", repr(told.get(key)), "a text"
            return
    if kind == "kubernetes-workload":
        yield from _pods(f"{path}.metadata.podSelector", told["podSelector"], item, objects)
        return
    if told["format"] != "prometheus" or not _GAUGE.fullmatch(told["valueLocation"]):
        found = f"{told['valueLocation']} in the format {told['format']}"
        yield f"{path}.metadata.valueLocation", found, "the name of a metric, in the format prometheus"
    yield from _url(f"{path}.metadata.url", told["url"], item, known)


def _pods(path: str, selector: str, item: Object, objects: Sequence[Object]) -> Iterator[Fault]:
    match = _SELECTOR.fullmatch(selector)
    if not match or not any(
        (_at(other, "spec.template.metadata.labels") or {}).get(match["key"]) == match["value"]
        for other in objects
        if other["metadata"].get("namespace") == item["metadata"].get("namespace")
    ):
        yield path, selector, "key=value, a label of a pod among the objects"


def _url(path: str, url: str, item: Object, known: Mapping[tuple[str, str], Any]) -> Iterator[Fault]:
    namespace = item["metadata"].get("namespace")
    parts = urllib.parse.urlsplit(url)
    host = parts.hostname or ""
    name, __, rest = host.partition(".")
    if parts.scheme != "http" or rest != f"{namespace}.svc" or parts.path != "/metrics" or parts.query:
        yield path, url, f"http://SERVICE.{namespace}.svc:PORT/metrics"
        return
    if ("Service", name) not in known:
        yield path, url, f"a Service among the objects of {namespace}"
        return
    service = known["Service", name]
    if service is not None:
        # Without an address of its own a Service's name is its pods', so the port is theirs as well.
        ports = [port.get("port") for port in service["spec"].get("ports") or []]
        if parts.port not in ports:
            yield path, url, f"a port of the Service {name}: {', '.join(map(str, ports)) or 'none'}"


def _formula(spec: Object, names: Sequence[str]) -> Iterator[Fault]:
    path = "spec.advanced.scalingModifiers"
    modifiers = _at({"spec": spec}, path)
    if not isinstance(modifiers, Mapping) or not isinstance(modifiers.get("formula"), str):
        yield f"{path}.formula", repr(modifiers), "a formula over the triggers"
        return
    formula = modifiers["formula"]
    if not _FORMULA.fullmatch(formula) or formula.count("(") != formula.count(")"):
        yield f"{path}.formula", formula, "names, numbers, operators and parentheses that close"
    words = set(_WORD.findall(formula))
    for word in sorted(words - set(names)):
        yield f"{path}.formula", f"{word}, which is no trigger", f"one of {', '.join(sorted(names))}"
    for name in sorted(set(names) - words):
        yield f"{path}.formula", f"nothing of {name}", "every trigger: one that is not in it is asked for nothing"
    for key, pattern, wanted in (
        ("target", _POSITIVE, "a whole number above 0, as a text"),
        ("activationTarget", _NUMBER, "a number, as a text"),
    ):
        value = modifiers.get(key)
        if not isinstance(value, str) or not pattern.fullmatch(value):
            yield f"{path}.{key}", repr(value), wanted
