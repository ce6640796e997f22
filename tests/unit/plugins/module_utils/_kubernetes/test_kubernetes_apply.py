# SPDX-License-Identifier: Apache-2.0
"""Applying, removing and waiting, against a stand-in for an API server that is asked over TLS.

What is applied is the plan's own objects, and each is held against the schema of Kubernetes 1.36.
"""

from __future__ import annotations

import copy
import importlib.util
import json
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest

from ansible_collections.gpufleet.metal.plugins.module_utils._errors import FleetError, InvalidInputError
from ansible_collections.gpufleet.metal.plugins.module_utils._kubernetes import api as apis
from ansible_collections.gpufleet.metal.plugins.module_utils._kubernetes import apply
from ansible_collections.gpufleet.metal.plugins.modules import kubernetes_apply, kubernetes_rollout_info
from ansible_collections.gpufleet.metal.tests.unit.plugins.module_utils._kubernetes.plans import (
    autoscaled,
    of_kind,
    over_hosts,
    plan,
    rendered,
)

ROOT = Path(__file__).parents[5]
SELECTOR = "app.kubernetes.io/managed-by=gpufleet.metal"
KINDS = ["apps/v1 Deployment", "v1 PersistentVolumeClaim", "v1 PersistentVolume"]


def _load() -> Any:
    path = ROOT / "molecule" / "resources" / "simulated_api.py"
    specification = importlib.util.spec_from_file_location("simulated_api", path)
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    sys.modules["simulated_api"] = module
    specification.loader.exec_module(module)
    return module


simulated = _load()


def _validate(item: dict[str, Any]) -> None:
    if item["kind"] in ("ScaledObject", "LeaderWorkerSet"):
        return
    try:
        kubernetes_validate.validate(item, "1.36", strict=True)
    except kubernetes_validate.ValidationError as fault:
        raise simulated.RefusedError(400, "BadRequest", f"strict decoding error: {fault}") from fault


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("keys")
    simulated.make_keys(directory, "127.0.0.1", 0)
    return directory


class Cluster:
    """A stand-in that runs, and what a module needs to ask it."""

    def __init__(self, keys: Path, home: Path) -> None:
        self.store = simulated.Store()
        self.store.add_node("gpu-1")
        self.server = simulated.server(self.store, "127.0.0.1", 0, keys)
        self.conf = home / "admin.conf"
        self.nobody = home / "nobody.conf"
        for path in (self.conf, self.nobody):
            document = json.loads((keys / path.name).read_text())
            document["clusters"][0]["cluster"]["server"] = f"https://127.0.0.1:{self.server.server_address[1]}"
            path.write_text(json.dumps(document))
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()

    @staticmethod
    def run(argv: list[str], stdin: str | None = None) -> tuple[int, str, str]:
        """Answer as kubectl."""
        assert argv[0] == "kubectl"
        return 0, simulated.kubectl(argv[1:]), ""

    def apply(self, objects: list[dict[str, Any]], check_mode: bool = False, **options: Any) -> dict[str, Any]:
        """Run the module."""
        given = {name: entry.get("default") for name, entry in kubernetes_apply.argument_spec().items()}
        given.update({"objects": objects, "kubeconfig": str(self.conf), **options})
        return kubernetes_apply.run(given, self.run, check_mode)

    def rollout(self, **options: Any) -> dict[str, Any]:
        """Run the other module."""
        given = {name: entry.get("default") for name, entry in kubernetes_rollout_info.argument_spec().items()}
        return kubernetes_rollout_info.run({**given, "kubeconfig": str(self.conf), **options}, self.run)

    def writes(self) -> list[str]:
        """Return what was really changed since the last look."""
        found = [call for call in self.store.calls if call.split()[0] != "GET" and "(dry run)" not in call]
        self.store.calls.clear()
        return found


@pytest.fixture
def cluster(keys: Path, tmp_path: Path) -> Iterator[Cluster]:
    found = Cluster(keys, tmp_path)
    yield found
    found.server.shutdown()
    found.server.server_close()


def test_the_plan_is_applied_once_and_then_nothing_differs(cluster: Cluster) -> None:
    cluster.store.schema = _validate
    objects = rendered()
    first = cluster.apply(objects)
    assert [change["action"] for change in first["changes"]] == ["created"] * len(objects)
    assert len(cluster.writes()) == len(objects)
    again = cluster.apply(objects)
    assert again == {"changed": False, "changes": []}
    assert cluster.writes() == []


def test_check_mode_says_what_a_run_does_and_writes_nothing(cluster: Cluster) -> None:
    objects = rendered()
    planned = cluster.apply(objects, check_mode=True)
    assert cluster.writes() == []
    assert cluster.apply(objects)["changes"] == planned["changes"]
    cluster.writes()
    changed = plan()
    changed["hosts"]["gpu-1"]["instances"][0]["arguments"].append("--enforce-eager")
    planned = cluster.apply(rendered(changed), check_mode=True)
    assert cluster.writes() == []
    done = cluster.apply(rendered(changed))
    assert done["changes"] == planned["changes"]
    assert [(change["kind"], change["action"], change["restarts"]) for change in done["changes"]] == [
        ("Deployment", "changed", True)
    ]
    assert len(cluster.writes()) == 1


def test_what_a_list_no_longer_names_goes_from_an_object(cluster: Cluster) -> None:
    """The API's own defaults and what others have set stay."""
    one = rendered(parts=["namespace"])
    cluster.apply(one)
    cluster.store.objects["Namespace//gpufleet-serving"]["metadata"]["labels"]["example.org/team"] = "a"
    less = copy.deepcopy(one)
    del less[0]["metadata"]["labels"]["pod-security.kubernetes.io/audit"]
    assert [change["title"] for change in cluster.apply(less)["changes"]] == ["Namespace gpufleet-serving"]
    labels = cluster.store.objects["Namespace//gpufleet-serving"]["metadata"]["labels"]
    assert "pod-security.kubernetes.io/audit" not in labels
    assert labels["example.org/team"] == "a"
    assert not cluster.apply(less)["changed"]


def test_an_object_that_somebody_else_has_made_is_taken_over(cluster: Cluster) -> None:
    """Or a field that is dropped later would stay."""
    objects = rendered(parts=["namespace"])
    cluster.apply(objects)
    cluster.store.objects["Namespace//gpufleet-serving"]["metadata"]["managedFields"] = [
        {"manager": "kubectl", "operation": "Update"}
    ]
    assert [change["action"] for change in cluster.apply(objects)["changes"]] == ["adopted"]
    assert not cluster.apply(objects)["changed"]


def test_what_the_api_refuses_is_named_and_nothing_is_changed(cluster: Cluster) -> None:
    objects = rendered()
    cluster.apply(rendered(parts=["namespace"]))
    cluster.writes()
    name = of_kind(objects, "Deployment")[0]["metadata"]["name"]
    cluster.store.faults = {"refuse": {f"Deployment/{name}": "spec.template: no", "ConfigMap/engine-probe": "too long"}}
    with pytest.raises(FleetError) as caught:
        cluster.apply(objects)
    assert str(caught.value) == (
        'the API server refuses ConfigMap gpufleet-serving/engine-probe: ConfigMap "engine-probe" is invalid: '
        "too long; "
        f'Deployment gpufleet-serving/{name}: Deployment "{name}" is invalid: spec.template: no. Nothing was changed'
    )
    assert cluster.writes() == []


def test_an_unknown_field_is_refused_by_the_servers_strictness(cluster: Cluster) -> None:
    cluster.store.schema = _validate
    item = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a", "namespace": "default"}, "datum": {}}
    with pytest.raises(FleetError, match=r"ConfigMap default/a: strict decoding error: .*datum"):
        cluster.apply([item])


def test_a_namespace_that_is_not_there_is_said(cluster: Cluster, tmp_path: Path) -> None:
    objects = rendered(parts=["engines"])
    with pytest.raises(FleetError, match='engine-probe: namespaces "gpufleet-serving" not found'):
        cluster.apply(objects)
    # A fleet that is not built yet, in check mode: without the namespace, and without a cluster.
    for options in ({}, {"kubeconfig": str(tmp_path / "none.conf")}):
        found = cluster.apply(objects, check_mode=True, absent_allowed=True, **options)
        assert {change["action"] for change in found["changes"]} == {"created"}
    with pytest.raises(InvalidInputError, match=r"found no file .*none\.conf, wanted a kubeconfig"):
        cluster.apply(objects, absent_allowed=True, kubeconfig=str(tmp_path / "none.conf"))


def test_what_is_no_longer_planned_is_removed_before_anything_is_applied(cluster: Cluster) -> None:
    options = {"prune_selector": f"{SELECTOR},gpufleet.metal/node=gpu-1", "prune_kinds": KINDS}
    cluster.apply(rendered())
    cluster.writes()
    fewer = rendered(plan(instances=1), parts=["engines"], hosts=["gpu-1"])
    planned = cluster.apply(fewer, check_mode=True, **options)
    done = cluster.apply(fewer, **options)
    assert done["changes"] == planned["changes"]
    assert [(change["action"], change["kind"], change["restarts"]) for change in done["changes"]] == [
        ("removed", "Deployment", True),
        ("removed", "PersistentVolumeClaim", False),
        ("removed", "PersistentVolume", False),
    ]
    assert [call.split()[0] for call in cluster.writes()] == ["DELETE"] * 3
    # The other host's engines are not this one's to remove.
    left = [item for item in cluster.store.objects.values() if item["kind"] == "Deployment"]
    assert len(left) == 3
    assert not cluster.apply(fewer, **options)["changed"]


def test_long_lists_are_read_to_their_end(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(apis, "_PAGE", 2)
    cluster.apply(rendered(plan(hosts=4)))
    options = {"prune_selector": SELECTOR, "prune_kinds": ["apps/v1 Deployment"]}
    found = cluster.apply([], check_mode=True, **options)
    assert len(found["changes"]) == 8


def test_deployments_are_stopped_and_started_without_another_pod(cluster: Cluster) -> None:
    objects = rendered()
    cluster.apply(objects)
    engine = of_kind(objects, "Deployment")[0]
    stopped = cluster.apply([engine], replicas=0)
    assert [(change["action"], change["restarts"]) for change in stopped["changes"]] == [("changed", False)]
    assert cluster.rollout(objects=[engine])["workloads"][0]["pods"] == []
    assert not cluster.apply([engine], replicas=0)["changed"]
    assert [change["restarts"] for change in cluster.apply(objects)["changes"]] == [False]
    assert len(cluster.rollout(objects=[engine])["workloads"][0]["pods"]) == 1


# ------------------------------------------------------------------------------------------- somebody else's count


def _elastic(objects: list[dict[str, Any]]) -> dict[str, Any]:
    return next(item for item in of_kind(objects, "Deployment") if "replicas" not in item["spec"])


def _count(cluster: Cluster, item: dict[str, Any]) -> int:
    return int(cluster.store.objects[f"Deployment/gpufleet-serving/{item['metadata']['name']}"]["spec"]["replicas"])


def _scale(cluster: Cluster, item: dict[str, Any], count: int) -> None:
    cluster.store.faults["scaled"] = {item["metadata"]["name"]: count}
    cluster.rollout(objects=[item])
    del cluster.store.faults["scaled"]


def test_an_elastic_engine_is_created_with_no_pod_and_then_its_count_is_left_alone(cluster: Cluster) -> None:
    objects = rendered(autoscaled(plan(hosts=1)))
    item = _elastic(objects)
    made = cluster.apply(objects)
    assert {"action": "created", "restarts": False}.items() <= made["changes"][-2].items()
    assert _count(cluster, item) == 0
    for count in (1, 0, 1):
        assert not cluster.apply(objects)["changed"]
        _scale(cluster, item, count)
        assert not cluster.apply(objects)["changed"]
        assert _count(cluster, item) == count
    # With another pod as well: the count is not the list's to say.
    item["spec"]["template"]["spec"]["containers"][0]["args"].append("--enforce-eager")
    assert [change["restarts"] for change in cluster.apply(objects)["changes"]] == [True]
    assert _count(cluster, item) == 1


def test_an_engine_that_ran_goes_on_when_its_count_becomes_somebody_elses(cluster: Cluster) -> None:
    """Whoever stops naming a field that nobody else owns gets its default."""
    cluster.apply(rendered(plan(hosts=1)))
    objects = rendered(autoscaled(plan(hosts=1)))
    item = _elastic(objects)
    found = cluster.apply(objects)
    assert [(change["kind"], change["action"], change["restarts"]) for change in found["changes"]] == [
        ("NetworkPolicy", "created", False),
        ("Deployment", "changed", False),
        ("Service", "created", False),
        ("Service", "created", False),
        ("ScaledObject", "created", False),
    ]
    assert _count(cluster, item) == 1
    _scale(cluster, item, 0)
    assert not cluster.apply(objects)["changed"]
    # And back: then it always runs.
    assert [change["restarts"] for change in cluster.apply(rendered(plan(hosts=1)))["changes"]] == [False]
    assert _count(cluster, item) == 1


@pytest.mark.parametrize("calls", [1, 2, 3])
def test_a_count_that_is_left_survives_a_run_that_is_killed(
    cluster: Cluster, calls: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    objects = rendered(autoscaled(plan(hosts=1)))
    item = _elastic(objects)
    cluster.apply([other for other in objects if other["kind"] not in ("Deployment", "ScaledObject")])
    left = [calls]
    apply_once = apis.Api.apply

    def killed(self: Any, item: Any, manager: str, dry_run: bool = False) -> Any:
        if not dry_run:
            left[0] -= 1
            if left[0] < 0:
                raise KeyboardInterrupt
        return apply_once(self, item, manager, dry_run)

    with monkeypatch.context() as patched:
        patched.setattr(apis.Api, "apply", killed)
        with pytest.raises(KeyboardInterrupt):
            cluster.apply([item, *(other for other in objects if other is not item)])
    assert _count(cluster, item) == 0
    cluster.apply(objects)
    assert _count(cluster, item) == 0
    _scale(cluster, item, 1)
    assert not cluster.apply(objects)["changed"]


def test_an_elastic_engine_is_stopped_with_what_scales_it(cluster: Cluster) -> None:
    objects = rendered(autoscaled(plan(hosts=1)))
    item = _elastic(objects)
    cluster.apply(objects)
    _scale(cluster, item, 1)
    engines = [each for each in objects if each["kind"] in ("Deployment", "ScaledObject")]
    stopped = cluster.apply(engines, replicas=0)
    assert [change["kind"] for change in stopped["changes"]] == ["ScaledObject", "Deployment", "Deployment"]
    scaled = cluster.store.objects[f"ScaledObject/gpufleet-serving/{item['metadata']['name']}"]
    assert scaled["metadata"]["annotations"] == {"autoscaling.keda.sh/paused": "true"}
    assert _count(cluster, item) == 0
    again = cluster.apply(objects)
    assert {change["kind"] for change in again["changes"]} == {"Deployment", "ScaledObject"}
    scaled = cluster.store.objects[f"ScaledObject/gpufleet-serving/{item['metadata']['name']}"]
    assert not scaled["metadata"].get("annotations")
    assert _count(cluster, item) == 0
    assert not cluster.apply(objects)["changed"]


def test_a_cluster_without_keda_is_told_before_anything_is_changed(cluster: Cluster) -> None:
    cluster.store.faults["lacking"] = ["keda.sh/v1alpha1"]
    objects = rendered(autoscaled(plan(hosts=1)))
    name = _elastic(objects)["metadata"]["name"]
    message = (
        rf"^the cluster has no kind ScaledObject \(keda\.sh/v1alpha1\), which {name} need: wanted KEDA 2\.20\.1 or "
        r"newer in it \(docs/kubernetes\.md says how\)\. Nothing was changed$"
    )
    for check_mode in (True, False):
        with pytest.raises(FleetError, match=message):
            cluster.apply(objects, check_mode=check_mode)
    assert not any(call.startswith("PATCH") for call in cluster.store.calls)
    # Of what it does not know there is nothing to remove.
    cluster.apply(rendered(plan(hosts=1)), prune_selector=SELECTOR, prune_kinds=["keda.sh/v1alpha1 ScaledObject"])


def test_a_rollout_tells_which_elastic_engines_run(cluster: Cluster) -> None:
    objects = rendered(autoscaled(plan(hosts=1)))
    item = _elastic(objects)
    cluster.apply(objects)
    (asleep,) = cluster.rollout(objects=[item])["workloads"]
    assert (asleep["ready"], asleep["pods"]) == (False, [])
    _scale(cluster, item, 1)
    (awake,) = cluster.rollout(objects=[item])["workloads"]
    assert (awake["ready"], len(awake["pods"])) == (True, 1)
    cluster.store.faults["unready"] = [f"Deployment/{item['metadata']['name']}"]
    with pytest.raises(FleetError, match="1 of 1 pods are of this version, 0 are ready"):
        cluster.rollout(objects=[item])


def test_an_engine_over_several_hosts_is_applied_stopped_and_watched_as_one(cluster: Cluster) -> None:
    cluster.store.add_node("gpu-2")
    objects = rendered(over_hosts())
    assert cluster.apply(objects)["changed"]
    assert not cluster.apply(objects)["changed"]
    engines = of_kind(objects, "LeaderWorkerSet")
    (workload,) = cluster.rollout(objects=engines, required=True)["workloads"]
    assert workload["ready"]
    assert [(pod["name"], pod["node"]) for pod in workload["pods"]] == [
        (f"{engines[0]['metadata']['name']}-0", "gpu-1"),
        (f"{engines[0]['metadata']['name']}-0-1", "gpu-2"),
    ]
    inner = engines[0]["spec"]["leaderWorkerTemplate"]
    inner["workerTemplate"]["metadata"]["annotations"]["gpufleet.metal/specification"] = "another"
    changed = cluster.apply(objects, check_mode=True)["changes"]
    assert [(change["kind"], change["restarts"]) for change in changed] == [("LeaderWorkerSet", True)]
    assert cluster.apply(engines, replicas=0)["changed"]
    (workload,) = cluster.rollout(objects=engines, required=False)["workloads"]
    assert (workload["ready"], workload["pods"]) == (False, [])


def test_a_set_of_pods_that_is_not_ready_is_said(cluster: Cluster) -> None:
    cluster.store.add_node("gpu-2")
    objects = rendered(over_hosts())
    cluster.apply(objects)
    name = of_kind(objects, "LeaderWorkerSet")[0]["metadata"]["name"]
    cluster.store.faults = {"unready": [f"LeaderWorkerSet/{name}"]}
    with pytest.raises(FleetError, match=f"LeaderWorkerSet gpufleet-serving/{name}: 1 of 1 sets of pods are of this v"):
        cluster.rollout(objects=of_kind(objects, "LeaderWorkerSet"), wait_seconds=1)


def test_a_cluster_without_the_controller_of_sets_is_told(cluster: Cluster) -> None:
    cluster.store.faults["lacking"] = ["leaderworkerset.x-k8s.io/v1"]
    with pytest.raises(FleetError, match=r"wanted LeaderWorkerSet 0\.8 or newer in it .* Nothing was changed$"):
        cluster.apply(rendered(over_hosts()))


def test_a_rollout_tells_what_runs(cluster: Cluster) -> None:
    objects = rendered()
    cluster.apply(objects)
    engine = of_kind(objects, "Deployment")[0]
    found = cluster.rollout(objects=[engine], nodes=["gpu-1"])["workloads"][0]
    container = engine["spec"]["template"]["spec"]["containers"][0]
    assert (found["image"], found["arguments"]) == (container["image"], container["args"])
    assert found["annotations"]["gpufleet.metal/instance"] == "llama-3.3-70b-instruct-0"
    assert [(pod["node"], pod["restarts"]) for pod in found["pods"]] == [("gpu-1", 0)]
    assert found["pods"][0]["image_ids"] == [f"docker.io/{container['image']}"]


def test_what_is_left_of_an_evicted_pod_is_no_pod(cluster: Cluster) -> None:
    objects = rendered()
    cluster.apply(objects)
    engine = of_kind(objects, "Deployment")[0]
    cluster.store.faults = {"evicted": [f"Deployment/{engine['metadata']['name']}"]}
    assert [pod["phase"] for pod in cluster.rollout(objects=[engine])["workloads"][0]["pods"]] == ["Running"]
    cluster.apply([engine], replicas=0)
    assert cluster.rollout(objects=[engine])["workloads"][0]["pods"] == []


def test_what_is_not_rolled_out_is_said_when_the_time_is_up(cluster: Cluster) -> None:
    objects = rendered()
    cluster.apply(objects)
    engine = of_kind(objects, "Deployment")[0]
    name = engine["metadata"]["name"]
    cluster.store.faults = {"unready": [f"Deployment/{name}", "Node/gpu-1"]}
    with pytest.raises(FleetError) as caught:
        cluster.rollout(objects=[engine], nodes=["gpu-1", "gpu-9"], wait_seconds=1)
    assert str(caught.value) == (
        f"not as wanted within 1 seconds: Deployment gpufleet-serving/{name}: 1 of 1 pods are of this version, 0 are "
        "ready. node gpu-1 is not ready: simulated. the cluster has no node gpu-9"
    )


def test_a_container_that_ends_is_not_waited_for(cluster: Cluster) -> None:
    objects = rendered()
    cluster.apply(objects)
    engine = of_kind(objects, "Deployment")[0]
    name = engine["metadata"]["name"]
    cluster.store.faults = {"crash": [f"Deployment/{name}"]}
    with pytest.raises(FleetError) as caught:
        cluster.rollout(objects=[engine], wait_seconds=60)
    assert str(caught.value).startswith(f"not as wanted: Deployment gpufleet-serving/{name}: 1 of 1 pods")
    assert "ended with exit status 1 (Error) and was restarted; it said last: simulated: out of memory" in str(
        caught.value
    )


def test_who_may_not_is_told_so(cluster: Cluster) -> None:
    objects = rendered(parts=["namespace"])
    with pytest.raises(FleetError, match='Namespace gpufleet-serving: User "nobody" cannot do that'):
        cluster.apply(objects, kubeconfig=str(cluster.nobody))


def test_an_api_server_that_gives_no_answer_is_named(cluster: Cluster) -> None:
    cluster.server.shutdown()
    cluster.server.server_close()
    with pytest.raises(FleetError, match=r"the API server https://127\.0\.0\.1:[0-9]+ gives no answer: Connection"):
        cluster.apply(rendered(parts=["namespace"]))


def test_another_authority_is_not_believed(cluster: Cluster, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    simulated.make_keys(other, "127.0.0.1", 0)
    document = json.loads(cluster.conf.read_text())
    strange = json.loads((other / "admin.conf").read_text())
    document["clusters"][0]["cluster"]["certificate-authority-data"] = strange["clusters"][0]["cluster"][
        "certificate-authority-data"
    ]
    cluster.conf.write_text(json.dumps(document))
    with pytest.raises(FleetError, match="gives no answer: SSLCertVerificationError"):
        cluster.apply(rendered(parts=["namespace"]))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda document: document["clusters"][0]["cluster"].pop("certificate-authority-data"), "found no authority"),
        (lambda document: document["users"][0].update(user={}), "neither a client's certificate nor a token"),
        (lambda document: document.pop("users"), r"is no kubeconfig with credentials \(KeyError\)"),
        (lambda document: document["clusters"][0]["cluster"].update(server="http://a"), "wanted https://host:port"),
    ],
)
def test_credentials_that_are_none_are_refused(cluster: Cluster, change: Any, message: str) -> None:
    document = json.loads(cluster.conf.read_text())
    change(document)
    cluster.conf.write_text(json.dumps(document))
    with pytest.raises(FleetError, match=message):
        cluster.apply([])


def test_no_secret_is_shown() -> None:
    item = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "a", "namespace": "b"},
        "data": {"k": "aHVudGVy"},
    }
    shown = apply.differences([apply.Change("created", item, None, apply.wishes(item))])
    assert "aHVudGVy" not in json.dumps(shown)
    assert "# Secret b/a" in shown["after"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"objects": [{"kind": "ConfigMap"}]},
            "objects: number 0: found .*, wanted apiVersion, kind and metadata.name",
        ),
        (
            {"objects": [{"apiVersion": "v1", "kind": "Job", "metadata": {"name": "a"}}]},
            "found the kind v1 Job, wanted one that this collection knows",
        ),
        (
            {"objects": [{"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}}]},
            "ConfigMap a: found the namespace None, wanted a namespace",
        ),
        ({"prune_selector": "a=b"}, "found one of prune_selector and prune_kinds, wanted both or none"),
        ({"prune_kinds": ["Deployment"]}, "prune_kinds: found 'Deployment', wanted a version and a kind"),
        ({"replicas": -1}, "replicas: wanted 0 or more"),
    ],
)
def test_what_cannot_be_meant_is_refused_before_the_cluster_is_asked(
    cluster: Cluster, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(InvalidInputError, match=message):
        cluster.apply(**{"objects": [], **options})
    assert cluster.store.calls == []


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("NetworkPolicy", "networkpolicies"),
        ("PriorityClass", "priorityclasses"),
        ("ValidatingAdmissionPolicyBinding", "validatingadmissionpolicybindings"),
        ("Namespace", "namespaces"),
    ],
)
def test_kinds_are_found_at_their_paths(kind: str, name: str) -> None:
    assert apis.plural(kind) == name


def test_a_workload_that_is_not_there_is_told_in_its_place(cluster: Cluster) -> None:
    objects = of_kind(rendered(), "Deployment")
    cluster.apply(rendered(parts=["namespace"]))
    cluster.apply(objects[1:])
    found = cluster.rollout(objects=objects[:2], required=False)
    assert [bool(entry["arguments"]) for entry in found["workloads"]] == [False, True]
    name = objects[0]["metadata"]["name"]
    assert found["faults"] == [f"Deployment gpufleet-serving/{name} is not there"]
