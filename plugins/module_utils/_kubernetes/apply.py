# SPDX-License-Identifier: Apache-2.0
# PRIVATE to the collection: do not import this from outside, it may change without notice.
"""Bring a cluster's objects to a list, remove what the list no longer has, and wait until pods are rolled out.

Whether something differs is the API server's own answer: what an object is now against what an apply would make of it,
defaults and admission included. So check mode tells the truth, and a second run has nothing to do.
"""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from ansible_collections.gpufleet.metal.plugins.module_utils._errors import FleetError, InvalidInputError

from .api import Api, ApiError, collection_path, object_path, title
from .checks import KINDS
from .objects import COUNT_MANAGER, MANAGER, PAUSED_ANNOTATION, Object

#: What the server keeps of an object that is nobody's wish.
_BOOKKEEPING = ("managedFields", "resourceVersion", "generation", "uid", "creationTimestamp", "selfLink")
#: What has pods: where their templates are. A template that changes makes other pods.
_TEMPLATES: Mapping[str, tuple[tuple[str, ...], ...]] = {
    "Deployment": (("spec", "template"),),
    "DaemonSet": (("spec", "template"),),
    "LeaderWorkerSet": (
        ("spec", "leaderWorkerTemplate", "leaderTemplate"),
        ("spec", "leaderWorkerTemplate", "workerTemplate"),
    ),
}
#: What engines are, whose count of pods is 1, or 0 where they are stopped.
_ENGINES = ("Deployment", "LeaderWorkerSet")
#: The label by which the controller of such sets finds all pods of one.
_SET_LABEL = "leaderworkerset.sigs.k8s.io/name"
_LABEL_KIND = re.compile(r"(?:(?P<group>[a-z0-9.-]+/v[a-z0-9]+|v1) )(?P<kind>[A-Za-z]+)")
_ENDED = ("Failed", "Succeeded")
#: What no waiting mends.
_HOPELESS = ("ErrImageNeverPull", "InvalidImageName", "CreateContainerConfigError", "ImageInspectError")


def wishes(item: Mapping[str, Any]) -> Object:
    """Return an object without what the server keeps about it."""
    found = {key: copy.deepcopy(value) for key, value in item.items() if key != "status"}
    found["metadata"] = {key: value for key, value in found["metadata"].items() if key not in _BOOKKEEPING}
    return found


def _owned(item: Mapping[str, Any]) -> bool:
    return any(True for __ in _own_fields(item))


def _own_fields(item: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    for entry in item["metadata"].get("managedFields") or []:
        if entry.get("manager") == MANAGER and entry.get("operation") == "Apply" and not entry.get("subresource"):
            yield entry.get("fieldsV1") or {}


def _counted_elsewhere(item: Mapping[str, Any]) -> bool:
    """Return whether the count of pods is somebody else's, such as KEDA's: the list says nothing of it."""
    return item["kind"] == "Deployment" and "replicas" not in (item.get("spec") or {})


def _count_to_leave(item: Object, existing: Object | None) -> int | None:
    """Return the count that has to be left to somebody else; None where there is none, or it is theirs already.

    Whoever applies an object without a field that nobody else owns makes it the default, which is one pod.
    """
    if not _counted_elsewhere(item):
        return None
    if existing is None:
        return 0
    owned = any("f:replicas" in (fields.get("f:spec") or {}) for fields in _own_fields(existing))
    return int(existing["spec"].get("replicas", 1)) if owned else None


def _counting(item: Mapping[str, Any], count: int | None) -> Object:
    return dict(item) if count is None else {**item, "spec": {**item["spec"], "replicas": count}}


def _identity(item: Mapping[str, Any]) -> tuple[str, str, str, str]:
    about = item["metadata"]
    return item["apiVersion"], item["kind"], about.get("namespace") or "", about["name"]


def _shown(item: Object | None) -> str:
    """Return an object for a reader. What is in a Secret is not for one."""
    if item is None:
        return ""
    if item["kind"] == "Secret":
        item = {key: value for key, value in item.items() if key not in ("data", "stringData")}
        item["data"] = "(not shown)"
    return f"# {title(item)}\n{json.dumps(item, indent=2, sort_keys=True)}\n"


def _templates(item: Mapping[str, Any]) -> list[Any]:
    """Return the templates of a workload's pods."""
    found = []
    for path in _TEMPLATES[item["kind"]]:
        template: Any = item
        for step in path:
            template = template[step]
        found.append(template)
    return found


class Change:
    """What becomes of one object."""

    def __init__(
        self,
        action: str,
        item: Mapping[str, Any],
        before: Object | None,
        after: Object | None,
        left: int | None = None,
    ) -> None:
        self.action = action
        self.item = item
        self.before = before
        self.after = after
        #: A count of pods that is to be somebody else's from now on.
        self.left = left

    @property
    def restarts(self) -> bool:
        """Whether pods that may be running are replaced or removed."""
        if self.before is None or self.item["kind"] not in _TEMPLATES:
            return False
        if self.after is None:
            return True
        return _templates(self.before) != _templates(self.after)

    def described(self) -> dict[str, Any]:
        """Return it for a module's result."""
        return {
            "action": self.action,
            "kind": self.item["kind"],
            "namespace": self.item["metadata"].get("namespace"),
            "name": self.item["metadata"]["name"],
            "restarts": self.restarts,
            "title": title(self.item),
        }


def parsed_kinds(texts: Sequence[str]) -> list[tuple[str, str]]:
    """Read kinds such as ``apps/v1 Deployment``. Raises InvalidInputError."""
    found = []
    for text in texts:
        match = _LABEL_KIND.fullmatch(text)
        if match is None:
            raise InvalidInputError(f"prune_kinds: found {text!r}, wanted a version and a kind: apps/v1 Deployment")
        collection_path(match.group("group"), match.group("kind"))
        found.append((match.group("group"), match.group("kind")))
    return found


def checked(objects: Sequence[Any]) -> list[Object]:
    """Return the objects if each names itself, and no two are the same. Raises InvalidInputError."""
    seen = set()
    for number, item in enumerate(objects):
        about = item.get("metadata") if isinstance(item, Mapping) else None
        if not isinstance(about, Mapping) or not about.get("name") or not {"apiVersion", "kind"} <= set(item):
            raise InvalidInputError(
                f"objects: number {number}: found {item!r:.80}, wanted apiVersion, kind and metadata.name"
            )
        object_path(item)
        if _identity(item) in seen:
            raise InvalidInputError(f"objects: found {title(item)} twice, wanted it once")
        seen.add(_identity(item))
    return list(objects)


def compare(api: Api, objects: Sequence[Object], unplaced_allowed: bool = False) -> list[Change]:
    """Ask the server what an apply of each object would change, and change nothing.

    What is to be in a namespace that this list makes cannot be asked about before; with ``unplaced_allowed`` also
    what is to be in a namespace that is not there. Raises FleetError that names every object that is refused.
    """
    made = {item["metadata"]["name"] for item in objects if item["kind"] == "Namespace"}
    found = []
    faults = []
    _check_kinds(api, objects)
    for item in objects:
        try:
            existing = api.get(item)
            left = _count_to_leave(item, existing)
            if existing is None and _unplaced(api, item, made, unplaced_allowed):
                found.append(Change("created", item, None, wishes(item), left))
                continue
            planned = api.apply(_counting(item, left), MANAGER, dry_run=True)
        except ApiError as fault:
            if not fault.status:
                raise
            faults.append(f"{title(item)}: {fault}")
            continue
        if existing is None:
            found.append(Change("created", item, None, wishes(planned), left))
            continue
        before, after = wishes(existing), wishes(planned)
        same = "unchanged" if _owned(existing) else "adopted"
        found.append(Change(same if before == after and left is None else "changed", item, before, after, left))
    if faults:
        raise FleetError(f"the API server refuses {'; '.join(faults)}. Nothing was changed")
    return found


def _check_kinds(api: Api, objects: Sequence[Object]) -> None:
    """Raise FleetError for kinds that somebody has to bring into the cluster, and has not."""
    wanted = {(item["apiVersion"], item["kind"]) for item in objects if _brought_by(item["apiVersion"], item["kind"])}
    for api_version, kind in sorted(wanted):
        if not api.has_kind(api_version, kind):
            names = sorted(item["metadata"]["name"] for item in objects if item["kind"] == kind)
            raise FleetError(
                f"the cluster has no kind {kind} ({api_version}), which {', '.join(names[:3])}"
                f"{' and others' if len(names) > 3 else ''} need: wanted {_brought_by(api_version, kind)} in it "
                "(docs/kubernetes.md says how). Nothing was changed"
            )


def _brought_by(api_version: str, kind: str) -> str | None:
    known = KINDS.get((api_version, kind))
    return known.brought_by if known else None


def _unplaced(api: Api, item: Object, made: set[str], allowed: bool) -> bool:
    """Return whether an object's namespace is not there, and need not be."""
    namespace = item["metadata"].get("namespace")
    if not namespace or not (allowed or namespace in made):
        return False
    return api.get({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}}) is None


def strangers(api: Api, objects: Sequence[Object], kinds: Sequence[tuple[str, str]], selector: str) -> list[Change]:
    """Return the objects of some kinds that a selector selects and the list does not have."""
    wanted = {_identity(item) for item in objects}
    return [
        Change("removed", item, wishes(item), None)
        for api_version, kind in kinds
        # Of a kind that the cluster does not know there is none.
        if not _brought_by(api_version, kind) or api.has_kind(api_version, kind)
        for item in api.each(api_version, kind, selector)
        if _identity(item) not in wanted and not item["metadata"].get("deletionTimestamp")
    ]


def act(api: Api, changes: Sequence[Change]) -> None:
    """Do what a comparison found: first remove, then apply, in the list's order."""
    for change in changes:
        if change.action == "removed":
            api.delete(change.item)
    for change in changes:
        if change.action in ("created", "changed", "adopted"):
            try:
                if change.left is not None:
                    _leave(api, change.item, change.left)
                change.after = wishes(api.apply(change.item, MANAGER))
            except ApiError as fault:
                raise FleetError(f"the API server refuses {title(change.item)}: {fault}") from fault


def _leave(api: Api, item: Mapping[str, Any], count: int) -> None:
    """Have a Deployment's count of pods, as it is, without owning it: the apply that follows names it no more.

    Each step by itself leaves the count as it is, so a run that is killed in between goes on from there.
    """
    api.apply(_counting(item, count), MANAGER)
    bare = {**item, "metadata": {key: item["metadata"][key] for key in ("name", "namespace")}}
    api.apply({**bare, "spec": {"replicas": count}}, COUNT_MANAGER)


def with_replicas(objects: Sequence[Object], count: int) -> list[Object]:
    """Return the engines of a list with so many pods, or sets of pods, each.

    What scales one of them is told to let it be, before.
    """
    paused = [_paused(item) for item in objects if item["kind"] == "ScaledObject"]
    return [*paused, *(_counting(item, count) for item in objects if item["kind"] in _ENGINES)]


def _paused(item: Object) -> Object:
    about = item["metadata"]
    return {
        **item,
        "metadata": {**about, "annotations": {**(about.get("annotations") or {}), PAUSED_ANNOTATION: "true"}},
    }


def differences(changes: Sequence[Change]) -> dict[str, str]:
    """Return what a reader of ``--diff`` sees."""
    shown = [change for change in changes if change.action in ("created", "changed", "removed")]
    return {
        "before_header": "cluster",
        "after_header": "cluster",
        "before": "".join(_shown(change.before) for change in shown),
        "after": "".join(_shown(change.after) for change in shown),
    }


# -- whether it runs --


class Watch:
    """Looks at workloads and nodes until all are as wanted, or nothing will make them so."""

    def __init__(self, api: Api, objects: Sequence[Object], nodes: Sequence[str]) -> None:
        self.api = api
        self.workloads = [item for item in objects if item["kind"] in _TEMPLATES]
        self.nodes = list(nodes)
        self._restarts: dict[str, int] | None = None
        self.hopeless = False

    def look(self) -> tuple[list[dict[str, Any]], list[str]]:
        """Return what the workloads are, and what is not as wanted yet."""
        found = []
        faults = []
        seen: dict[str, int] = {}
        self.hopeless = False
        for item in self.workloads:
            now = self.api.get(item)
            if now is None:
                faults.append(f"{title(item)} is not there")
                found.append(_described(None, item, []))
                continue
            pods = list(self._pods(now))
            seen.update({where: count for pod in pods for where, count in _restart_counts(pod)})
            lacking = _lacking(now, pods)
            if lacking:
                faults.append("; ".join([f"{title(item)}: {lacking}", *self._troubles(now, pods)]))
            found.append(_described(now, item, pods))
        if self._restarts is None:
            # What was restarted before anybody looked is no news.
            self._restarts = seen
        faults += [fault for name in self.nodes for fault in _node_faults(self.api, name)]
        return found, faults

    def _pods(self, workload: Object) -> Iterator[Object]:
        labels = {_SET_LABEL: workload["metadata"]["name"]}
        if workload["kind"] != "LeaderWorkerSet":
            labels = workload["spec"]["selector"].get("matchLabels") or {}
        selector = ",".join(f"{name}={value}" for name, value in sorted(labels.items()))
        for pod in self.api.each("v1", "Pod", selector, workload["metadata"]["namespace"]):
            # One that was evicted stays as a record of it until the cluster has too many; its successor counts.
            if (pod.get("status") or {}).get("phase") not in _ENDED:
                yield pod

    def _troubles(self, workload: Object, pods: Sequence[Object]) -> Iterator[str]:
        for condition in (workload.get("status") or {}).get("conditions") or []:
            if condition.get("reason") == "ProgressDeadlineExceeded":
                self.hopeless = True
                yield str(condition.get("message"))
            elif condition.get("type") == "ReplicaFailure" and condition.get("status") == "True":
                # Such as an admission policy that refuses the pod.
                yield str(condition.get("message"))
        for pod in pods:
            name = pod["metadata"]["name"]
            status = pod.get("status") or {}
            for condition in status.get("conditions") or []:
                if condition.get("type") == "PodScheduled" and condition.get("status") == "False":
                    yield f"pod {name}: {condition.get('message')}"
            for container in [*(status.get("initContainerStatuses") or []), *(status.get("containerStatuses") or [])]:
                yield from self._container(f"pod {name}: {container['name']}", container)

    def _container(self, where: str, status: Mapping[str, Any]) -> Iterator[str]:
        waiting = (status.get("state") or {}).get("waiting") or {}
        if waiting.get("reason") and waiting["reason"] not in ("ContainerCreating", "PodInitializing"):
            self.hopeless = self.hopeless or waiting["reason"] in _HOPELESS
            yield f"{where}: {waiting['reason']}: {waiting.get('message', '')}".rstrip(": ")
        count = int(status.get("restartCount") or 0)
        if self._restarts is not None and count > self._restarts.get(where, 0):
            self.hopeless = True
            ended = (status.get("lastState") or {}).get("terminated") or {}
            yield (
                f"{where} ended with exit status {ended.get('exitCode')} ({ended.get('reason')}) and was restarted; "
                f"it said last: {str(ended.get('message', '')).strip()[-2000:]}"
            )


def _restart_counts(pod: Object) -> Iterator[tuple[str, int]]:
    status = pod.get("status") or {}
    for container in [*(status.get("initContainerStatuses") or []), *(status.get("containerStatuses") or [])]:
        yield f"pod {pod['metadata']['name']}: {container['name']}", int(container.get("restartCount") or 0)


def _lacking(workload: Object, pods: Sequence[Object]) -> str | None:
    """Return what a workload lacks to be rolled out; None where nothing is."""
    status = workload.get("status") or {}
    if int(status.get("observedGeneration") or 0) < int(workload["metadata"].get("generation") or 0):
        return "its controller has not seen it yet"
    if workload["kind"] == "DaemonSet":
        wanted = int(status.get("desiredNumberScheduled") or 0)
        updated, ready = (int(status.get(key) or 0) for key in ("updatedNumberScheduled", "numberAvailable"))
        leftover = 0
    else:
        wanted = int(workload["spec"].get("replicas", 1))
        updated, ready = int(status.get("updatedReplicas") or 0), _ready(workload)
        leftover = (len(pods) if wanted == 0 else int(status.get("replicas") or 0)) - wanted
    if leftover > 0:
        return f"{leftover} pods of before still end"
    if updated < wanted or ready < wanted:
        what = "sets of pods" if workload["kind"] == "LeaderWorkerSet" else "pods"
        return f"{updated} of {wanted} {what} are of this version, {ready} are ready"
    return None


def _ready(workload: Object) -> int:
    keys = {"DaemonSet": "numberAvailable", "LeaderWorkerSet": "readyReplicas"}
    return int((workload.get("status") or {}).get(keys.get(workload["kind"], "availableReplicas")) or 0)


def _described(workload: Object | None, item: Object, pods: Sequence[Object]) -> dict[str, Any]:
    container = _templates(workload)[0]["spec"]["containers"][0] if workload else {}
    return {
        "kind": item["kind"],
        "namespace": item["metadata"]["namespace"],
        "name": item["metadata"]["name"],
        "annotations": (workload["metadata"].get("annotations") or {}) if workload else {},
        "image": container.get("image"),
        "arguments": container.get("args") or [],
        "ready": workload is not None and _ready(workload) > 0,
        "pods": [
            {
                "name": pod["metadata"]["name"],
                "node": pod["spec"].get("nodeName"),
                "phase": (pod.get("status") or {}).get("phase"),
                "image_ids": [
                    status.get("imageID") for status in (pod.get("status") or {}).get("containerStatuses") or []
                ],
                "restarts": sum(
                    int(status.get("restartCount") or 0)
                    for status in (pod.get("status") or {}).get("containerStatuses") or []
                ),
            }
            for pod in pods
            if not pod["metadata"].get("deletionTimestamp")
        ],
    }


def _node_faults(api: Api, name: str) -> list[str]:
    node = api.get({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}})
    if node is None:
        return [f"the cluster has no node {name}"]
    for condition in (node.get("status") or {}).get("conditions") or []:
        if condition.get("type") == "Ready":
            if condition.get("status") == "True":
                return []
            return [f"node {name} is not ready: {condition.get('message') or condition.get('reason')}"]
    return [f"node {name} says nothing of itself"]


def wait(
    watch: Watch, seconds: float, clock: Callable[[], float], sleep: Callable[[float], None], pause: float = 2.0
) -> tuple[list[dict[str, Any]], list[str]]:
    """Look until all is as wanted, nothing will make it so, or the time is up. Returns the last look."""
    end = clock() + seconds
    while True:
        try:
            found, faults = watch.look()
        except ApiError as fault:
            # An API server may be away for a moment; one that refuses is not.
            if fault.status or clock() >= end:
                raise
        else:
            if not faults or watch.hopeless or clock() >= end:
                return found, faults
        sleep(pause)
