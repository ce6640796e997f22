# SPDX-License-Identifier: Apache-2.0
"""Instances over several hosts in the cluster: their set of pods, who is where, and who may speak with whom."""

from __future__ import annotations

from typing import Any

import kubernetes_validate
import pytest

from ansible_collections.gpufleet.metal.plugins.module_utils._errors import InvalidInputError
from ansible_collections.gpufleet.metal.plugins.module_utils._kubernetes.checks import check_objects
from ansible_collections.gpufleet.metal.tests.unit.plugins.module_utils._kubernetes.plans import (
    of_kind,
    over_hosts,
    plan,
    rendered,
)

ENGINE = "gpufleet.metal/engine"


def the_set(objects: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the only set."""
    (found,) = of_kind(objects, "LeaderWorkerSet")
    return found


def templates(objects: list[dict[str, Any]]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the templates of the pod that answers, and of the others."""
    inner = the_set(objects)["spec"]["leaderWorkerTemplate"]
    return inner["leaderTemplate"], inner["workerTemplate"]


def container(template: dict[str, Any]) -> dict[str, Any]:
    """Return a template's only container."""
    (found,) = template["spec"]["containers"]
    return found


def test_an_instance_on_one_host_is_a_deployment_and_one_on_several_is_a_set() -> None:
    assert not of_kind(rendered(), "LeaderWorkerSet")
    objects = rendered(over_hosts(3))
    assert not of_kind(objects, "Deployment")
    spec = the_set(objects)["spec"]
    assert spec["replicas"] == 1
    assert spec["leaderWorkerTemplate"]["size"] == 3
    # One process that lost the others would stay where it is.
    assert spec["leaderWorkerTemplate"]["restartPolicy"] == "RecreateGroupOnPodRestart"
    assert spec["startupPolicy"] == "LeaderCreated"


def test_each_process_is_told_which_it_is_and_where_the_first_one_is() -> None:
    first, further = (container(template) for template in templates(rendered(over_hosts())))
    common = ["/models/llama-3.3-70b-instruct", "--port", "8000", "--shutdown-timeout", "120"]
    assert first["args"] == [*common, "--node-rank", "0", "--master-addr", "$(VLLM_HOST_IP)"]
    assert further["args"] == [
        *common,
        *("--headless", "--node-rank", "$(LWS_WORKER_INDEX)", "--master-addr", "$(LWS_LEADER_ADDRESS)"),
    ]
    for box in (first, further):
        address = next(entry for entry in box["env"] if entry["name"] == "VLLM_HOST_IP")
        assert address["valueFrom"]["fieldRef"]["fieldPath"] == "status.podIP"
        assert box["resources"]["limits"] == {"nvidia.com/gpu": "2"}


def test_only_the_first_one_answers() -> None:
    first, further = templates(rendered(over_hosts()))
    assert [port["hostPort"] for port in container(first)["ports"]] == [8000]
    assert "ports" not in container(further)
    assert {"startupProbe", "readinessProbe", "livenessProbe"} <= set(container(first))
    assert not {"startupProbe", "readinessProbe", "livenessProbe"} & set(container(further))
    # It is the component whom the planned flows are for.
    word = "app.kubernetes.io/component"
    assert [part["metadata"]["labels"][word] for part in (first, further)] == ["engine", "engine-worker"]
    assert first["metadata"]["labels"][ENGINE] == further["metadata"]["labels"][ENGINE]


def test_the_others_end_after_the_first_one_and_are_given_the_time_for_it() -> None:
    first, further = templates(rendered(over_hosts(), settings={"drain_seconds": 60}))
    command = container(further)["lifecycle"]["preStop"]["exec"]["command"]
    assert command[3:] == ["outlast", "--address-variable", "LWS_LEADER_ADDRESS", "--port", "8000", "--seconds", "195"]
    grace = "terminationGracePeriodSeconds"
    assert (first["spec"][grace], further["spec"][grace]) == (195, 205)


def test_every_pod_is_where_its_directories_are() -> None:
    objects = rendered(over_hosts(3))
    name = the_set(objects)["metadata"]["name"]
    volumes = {item["metadata"]["name"]: item["spec"] for item in of_kind(objects, "PersistentVolume")}
    found = {}
    for claim in of_kind(objects, "PersistentVolumeClaim"):
        spec = volumes[claim["spec"]["volumeName"]]
        term = spec["nodeAffinity"]["required"]["nodeSelectorTerms"][0]["matchExpressions"][0]
        found[claim["metadata"]["name"]] = (*term["values"], spec["local"]["path"])
    cache = "/var/cache/gpufleet-vllm"
    assert {key: value for key, value in found.items() if key.endswith(("-0", "-0-1", "-0-2"))} == {
        f"models-{name}-0": ("gpu-1", "/srv/models"),
        f"models-{name}-0-1": ("gpu-2", "/srv/models"),
        f"models-{name}-0-2": ("gpu-3", "/srv/models"),
        f"cache-{name}-0": ("gpu-1", f"{cache}/llama-3.3-70b-instruct-0"),
        f"cache-{name}-0-1": ("gpu-2", f"{cache}/gpu-1--llama-3.3-70b-instruct-0"),
        f"cache-{name}-0-2": ("gpu-3", f"{cache}/gpu-1--llama-3.3-70b-instruct-0"),
    }
    inner = the_set(objects)["spec"]["leaderWorkerTemplate"]
    assert [claim["metadata"]["name"] for claim in inner["volumeClaimTemplates"]] == ["models", "cache"]
    claim = of_kind(objects, "PersistentVolumeClaim")[-1]["spec"]
    assert inner["volumeClaimTemplates"][1]["spec"] == {k: v for k, v in claim.items() if k != "volumeName"}
    # All of it goes with the instance's own host.
    assert {item["metadata"]["labels"]["gpufleet.metal/node"] for item in of_kind(objects, "PersistentVolume")} == {
        "gpu-1"
    }
    affinity = templates(objects)[1]["spec"]["affinity"]["nodeAffinity"]
    terms = affinity["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"]
    assert terms[0]["matchExpressions"][0]["values"] == ["gpu-2", "gpu-3"]


def test_a_cache_in_the_pod_is_claimed_by_nobody() -> None:
    objects = rendered(over_hosts(), settings={"cache": "pod"})
    inner = the_set(objects)["spec"]["leaderWorkerTemplate"]
    assert [claim["metadata"]["name"] for claim in inner["volumeClaimTemplates"]] == ["models"]


@pytest.mark.parametrize(
    ("made", "options"),
    [
        (over_hosts(3), {}),
        (over_hosts(), {"settings": {"cache_directory": "/data/cache"}}),
        (over_hosts(), {"settings": {"cache": "pod"}}),
    ],
)
def test_with_other_hosts_or_directories_it_is_another_set(made: dict[str, Any], options: dict[str, Any]) -> None:
    """What a StatefulSet claims can't be changed."""
    before, after = the_set(rendered(over_hosts())), the_set(rendered(made, **options))
    assert before["metadata"]["name"] != after["metadata"]["name"]
    assert before["metadata"]["labels"][ENGINE] == after["metadata"]["labels"][ENGINE]


def test_names_of_pods_are_names_of_hosts() -> None:
    made = over_hosts(3, name="a-model-with-a-name-of-thirty-seven-ch-10")
    assert len(f"{the_set(rendered(made))['metadata']['name']}-0-1") <= 63


def test_its_processes_reach_each_other_and_the_clusters_dns_and_nobody_else() -> None:
    objects = rendered(over_hosts())
    engine = {"podSelector": {"matchLabels": {ENGINE: the_set(objects)["metadata"]["labels"][ENGINE]}}}
    (policy,) = (
        item["spec"]
        for item in of_kind(objects, "NetworkPolicy")
        if item["metadata"]["labels"]["app.kubernetes.io/name"] == "within-an-engine"
    )
    assert {"podSelector": policy["podSelector"]} == engine
    assert policy["policyTypes"] == ["Ingress", "Egress"]
    assert policy["ingress"] == [{"from": [engine]}]
    assert policy["egress"][0] == {"to": [engine]}
    (rule,) = policy["egress"][1:]
    assert rule["to"][0]["namespaceSelector"]["matchLabels"] == {"kubernetes.io/metadata.name": "kube-system"}
    assert {port["port"] for port in rule["ports"]} == {53}
    assert not [
        item
        for item in of_kind(rendered(), "NetworkPolicy")
        if item["metadata"]["labels"]["app.kubernetes.io/name"] == "within-an-engine"
    ]


def test_the_policies_need_no_option_of_the_engines() -> None:
    """They are applied by another playbook."""
    one, other = (
        rendered(over_hosts(), parts=["policies"], settings=settings) for settings in ({}, {"cache_directory": "/data"})
    )
    assert one == other


def test_a_host_that_only_helps_has_nothing_of_its_own() -> None:
    kinds = {item["kind"] for item in rendered(over_hosts(), parts=["engines"], hosts=["gpu-2"])}
    assert kinds == {"ConfigMap"}
    kinds = {item["kind"] for item in rendered(over_hosts(), parts=["engines"], hosts=["gpu-1"])}
    assert "LeaderWorkerSet" in kinds


def test_taints_of_all_hosts_are_tolerated() -> None:
    made = over_hosts(3)
    taint = {"key": "gpu", "value": "yes", "effect": "NoSchedule"}
    for name in ("gpu-2", "gpu-3"):
        made["hosts"][name]["kubernetes"]["taints"] = [taint]
    first, further = templates(rendered(made))
    assert "tolerations" not in first["spec"]
    assert [entry["key"] for entry in further["spec"]["tolerations"]] == ["gpu"]


def test_with_mutual_tls_only_the_first_one_has_a_certificate() -> None:
    made = over_hosts()
    made["hosts"]["gpu-1"]["engine_tls"] = {"mode": "mutual", "directory": "/etc/gpufleet/engine"}
    first, further = (template["spec"] for template in templates(rendered(made)))
    assert "tls" in {volume["name"] for volume in first["volumes"]}
    assert "tls" not in {volume["name"] for volume in further["volumes"]}


def test_a_pod_of_it_that_is_wrong_is_found() -> None:
    objects = rendered(over_hosts())
    box = the_set(objects)["spec"]["leaderWorkerTemplate"]["workerTemplate"]["spec"]["containers"][0]
    box["volumeMounts"][0]["name"] = "weights"
    fault = next(text for text in check_objects(objects) if "workerTemplate" in text)
    assert "leaderWorkerTemplate.workerTemplate.spec.containers.0.volumeMounts.0.name: found weights" in fault


def test_a_plan_of_another_version_is_refused() -> None:
    made = plan()
    del made["hosts"]["gpu-1"]["instances"][0]["workers"]
    with pytest.raises(InvalidInputError, match="run the plan again"):
        rendered(made)


@pytest.mark.parametrize("version", ["1.35", "1.36", "1.37"])
def test_its_pods_and_claims_are_what_the_api_takes(version: str) -> None:
    """A schema of sets comes with their controller; what is in one is Kubernetes'."""
    objects = rendered(over_hosts(3))
    for template in templates(objects):
        kubernetes_validate.validate(
            {"apiVersion": "v1", "kind": "Pod", **template, "metadata": {**template["metadata"], "name": "a"}},
            version,
            strict=True,
        )
    for claim in the_set(objects)["spec"]["leaderWorkerTemplate"]["volumeClaimTemplates"]:
        kubernetes_validate.validate(claim, version, strict=True)
