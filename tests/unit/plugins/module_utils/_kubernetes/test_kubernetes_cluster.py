# SPDX-License-Identifier: Apache-2.0
"""The objects of a plan: what an engine's pod is made of, who reaches it, and what is refused."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any

import pytest

from ansible_collections.gpufleet.metal.plugins.module_utils._errors import InvalidInputError
from ansible_collections.gpufleet.metal.plugins.module_utils._kubernetes.cluster import kubernetes_objects
from ansible_collections.gpufleet.metal.plugins.module_utils._kubernetes.engines import engine_name
from ansible_collections.gpufleet.metal.plugins.module_utils._kubernetes.objects import unique_name
from ansible_collections.gpufleet.metal.tests.unit.plugins.module_utils._kubernetes.plans import (
    DIGEST,
    ENFORCER,
    PLUGIN,
    PROBE,
    engine,
    instance,
    of_kind,
    plan,
    rendered,
)


def test_a_fleet_without_kubernetes_has_no_objects() -> None:
    assert rendered({**plan(), "kubernetes": None}) == []


def test_the_same_plan_in_another_order_gives_the_same_objects() -> None:
    made = plan()
    turned = {**made, "hosts": dict(reversed(made["hosts"].items())), "flows": made["flows"][::-1]}
    one, other = (sorted(json.dumps(item, sort_keys=True) for item in rendered(each)) for each in (made, turned))
    assert one == other


def test_every_object_is_applied_after_what_it_needs() -> None:
    kinds = [item["kind"] for item in rendered()]
    assert kinds[0] == "Namespace"
    assert kinds.index("PersistentVolume") < kinds.index("Deployment")
    assert kinds.index("ValidatingAdmissionPolicyBinding") < kinds.index("Deployment")
    assert kinds.index("DaemonSet") < kinds.index("Deployment")


def test_an_engine_is_the_planned_one() -> None:
    """Arguments and environment are the plan's, unchanged, as its Docker container has them."""
    wanted = plan()["hosts"]["gpu-1"]["instances"][0]
    pod, container = engine(rendered())
    assert container["command"] == ["vllm", "serve"]
    assert container["args"] == wanted["arguments"]
    assert {entry["name"]: entry["value"] for entry in container["env"]} == wanted["environment"]
    assert container["image"] == f"vllm/vllm-openai:v0.32.0@{DIGEST}"
    assert container["imagePullPolicy"] == "IfNotPresent"
    assert container["resources"]["limits"] == {"nvidia.com/gpu": "2"}
    assert container["resources"]["requests"] == {"nvidia.com/gpu": "2", "cpu": "1", "memory": "4Gi"}
    assert container["ports"] == [
        {"name": "http", "protocol": "TCP", "containerPort": 8000, "hostPort": 8000, "hostIP": "192.0.2.11"}
    ]
    assert pod["nodeSelector"] == {"kubernetes.io/hostname": "gpu-1"}
    assert pod["priorityClassName"] == "gpufleet-serving"
    assert pod["enableServiceLinks"] is False
    assert pod["automountServiceAccountToken"] is False
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    assert volumes["shm"]["emptyDir"] == {"medium": "Memory", "sizeLimit": "10737418240"}
    assert volumes["models"]["persistentVolumeClaim"]["readOnly"] is True
    assert next(mount for mount in container["volumeMounts"] if mount["name"] == "models") == {
        "name": "models",
        "mountPath": "/models",
        "readOnly": True,
    }


def test_what_looks_like_a_variable_of_kubernetes_reaches_the_engine_as_it_is() -> None:
    made = plan()
    made["hosts"]["gpu-1"]["instances"][0]["arguments"] = ["--chat-template", "{{ a }} $(HOME) $$ $x"]
    made["hosts"]["gpu-1"]["instances"][0]["environment"] = {"A": "$(HOME)"}
    container = engine(rendered(made))[1]
    assert container["args"] == ["--chat-template", "{{ a }} $$(HOME) $$$$ $$x"]
    assert container["env"] == [{"name": "A", "value": "$$(HOME)"}]


def test_a_deployment_never_wants_a_spare_gpu() -> None:
    for item in of_kind(rendered(), "Deployment"):
        assert item["spec"]["replicas"] == 1
        assert item["spec"]["strategy"] == {"type": "Recreate"}


def test_no_engine_uses_a_directory_of_the_host_but_by_a_claim() -> None:
    objects = rendered()
    volumes = {item["metadata"]["name"]: item["spec"] for item in of_kind(objects, "PersistentVolume")}
    paths = sorted(spec["local"]["path"] for spec in volumes.values())
    cache = [f"/var/cache/gpufleet-vllm/llama-3.3-70b-instruct-{index}" for index in (0, 2)]
    assert paths == sorted(2 * ["/srv/models", *cache])
    for deployment in of_kind(objects, "Deployment"):
        pod = deployment["spec"]["template"]["spec"]
        assert not [volume for volume in pod["volumes"] if "hostPath" in volume]
        for volume in pod["volumes"]:
            if "persistentVolumeClaim" in volume:
                terms = volumes[volume["persistentVolumeClaim"]["claimName"]]["nodeAffinity"]["required"]
                (expression,) = terms["nodeSelectorTerms"][0]["matchExpressions"]
                assert expression["values"] == [pod["nodeSelector"]["kubernetes.io/hostname"]]


def test_an_engine_on_processors_asks_for_no_gpu() -> None:
    made = plan()
    for host in ("gpu-1", "gpu-2"):
        for item in made["hosts"][host]["instances"]:
            item["accelerator"] = "cpu"
    objects = rendered(made, device_plugin_image=None)
    assert engine(objects)[1]["resources"] == {"requests": {"cpu": "1", "memory": "4Gi"}}
    assert [item["metadata"]["name"] for item in of_kind(objects, "DaemonSet")] == ["kube-network-policies"]


def test_an_image_from_an_archive_is_never_pulled_and_another_archive_makes_another_pod() -> None:
    made = plan()
    image = {"reference": "engine:1", "archive": "file:///srv/engine.tar", "archive_sha256": "a" * 64, "id": DIGEST}
    made["hosts"]["gpu-1"]["image"] = image
    container = engine(rendered(made))[1]
    assert (container["image"], container["imagePullPolicy"]) == ("engine:1", "Never")
    before = _annotations(made)
    image["archive_sha256"] = "b" * 64
    changed = {name for name, found in _annotations(made).items() if found != before[name]}
    assert changed == {name for name in before if name.startswith("gpu-1")}
    assert changed


def test_taints_of_the_node_are_tolerated() -> None:
    made = plan()
    made["hosts"]["gpu-1"]["kubernetes"]["taints"] = [
        {"key": "nvidia.com/gpu", "effect": "NoSchedule"},
        {"key": "use", "value": "llm", "effect": "NoExecute"},
    ]
    assert engine(rendered(made))[0]["tolerations"] == [
        {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"},
        {"key": "use", "operator": "Equal", "value": "llm", "effect": "NoExecute"},
    ]
    assert "tolerations" not in engine(rendered())[0]


def test_a_cache_may_go_with_the_pod() -> None:
    objects = rendered(settings={"cache": "pod"})
    assert {volume["name"]: volume for volume in engine(objects)[0]["volumes"]}["cache"] == {
        "name": "cache",
        "emptyDir": {},
    }
    assert len(of_kind(objects, "PersistentVolume")) == 2


# ------------------------------------------------------------------------------------------------------------- TLS


def _mutual() -> dict[str, Any]:
    made = plan(hosts=1)
    made["hosts"]["gpu-1"]["engine_tls"] = {"mode": "mutual", "directory": "/etc/gpufleet/engine"}
    return made


def test_an_engine_has_the_files_that_it_answers_with_and_no_client_certificate() -> None:
    objects = rendered(_mutual())
    paths = {item["spec"]["local"]["path"] for item in of_kind(objects, "PersistentVolume")}
    assert "/etc/gpufleet/engine" in paths
    assert not [path for path in paths if "pki" in path]
    container = engine(objects)[1]
    mount = {"name": "tls", "mountPath": "/tls", "readOnly": True}
    assert mount in container["volumeMounts"]
    for name in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert container[name]["exec"]["command"][-1] == "--tls"


def test_probes_may_be_given_a_client_certificate() -> None:
    container = engine(rendered(_mutual(), settings={"probe_tls_directory": "/etc/gpufleet/probe"}))[1]
    assert container["startupProbe"]["exec"]["command"][-5:] == [
        "--tls",
        "--client-certificate",
        "/opt/gpufleet/client/client.crt",
        "--client-key",
        "/opt/gpufleet/client/client.key",
    ]
    assert {"name": "probe-tls", "mountPath": "/opt/gpufleet/client", "readOnly": True} in container["volumeMounts"]


def test_without_tls_nothing_of_it_is_there() -> None:
    objects = rendered(settings={"probe_tls_directory": "/etc/gpufleet/probe"})
    assert "--tls" not in json.dumps(of_kind(objects, "Deployment"))
    assert objects == rendered()


# ------------------------------------------------------------------------------------------------------------ time


@pytest.mark.parametrize("shutdown", [1, 120, 3600])
@pytest.mark.parametrize("drain", [10, 30, 600])
def test_a_pod_has_the_time_that_drain_and_engine_take(shutdown: int, drain: int) -> None:
    made = plan()
    for item in made["hosts"]["gpu-1"]["instances"]:
        item.update(shutdown_timeout_seconds=shutdown, stop_timeout_seconds=shutdown + 15)
    pod, container = engine(rendered(made, settings={"drain_seconds": drain}))
    command = container["lifecycle"]["preStop"]["exec"]["command"]
    waited = int(command[command.index("--seconds") + 1])
    assert waited == drain
    assert pod["terminationGracePeriodSeconds"] >= waited + shutdown + 15


@pytest.mark.parametrize("start", [60, 1800, 7201])
@pytest.mark.parametrize("probe", [5, 60])
def test_the_startup_probe_lasts_as_long_as_a_start_may(start: int, probe: int) -> None:
    settings = {"start_timeout_seconds": start, "probe_timeout_seconds": probe}
    found = engine(rendered(settings=settings))[1]["startupProbe"]
    lasts = found["failureThreshold"] * found["periodSeconds"]
    assert start <= lasts < start + found["periodSeconds"]
    assert found["timeoutSeconds"] <= found["periodSeconds"]
    assert found["failureThreshold"] == math.ceil(start / found["periodSeconds"])


def test_a_probe_ends_before_kubelet_ends_it() -> None:
    container = engine(rendered())[1]
    for name in ("startupProbe", "readinessProbe"):
        command = container[name]["exec"]["command"]
        assert int(command[command.index("--seconds") + 1]) + 10 <= container[name]["timeoutSeconds"]


# ------------------------------------------------------------------------------------------------------ what rolls


def _annotations(made: dict[str, Any], **options: Any) -> dict[str, dict[str, str]]:
    return {
        item["metadata"]["annotations"]["gpufleet.metal/host"]
        + "/"
        + item["metadata"]["annotations"]["gpufleet.metal/instance"]: (item["spec"]["template"])
        for item in of_kind(rendered(made, **options), "Deployment")
    }


@pytest.mark.parametrize(
    "change",
    [
        lambda item: item.update(model_source="archive " + "c" * 64),
        lambda item: item["environment"].pop("DO_NOT_TRACK"),
        lambda item: item["arguments"].append("--enforce-eager"),
        lambda item: item.update(shm_size_bytes=1),
    ],
    ids=["files of the model", "environment", "arguments", "shared memory"],
)
def test_what_changes_an_instance_rolls_its_pod_and_no_other(change: Callable[[dict[str, Any]], None]) -> None:
    made = plan()
    before = _annotations(made)
    change(made["hosts"]["gpu-1"]["instances"][0])
    after = _annotations(made)
    assert [name for name in before if before[name] != after[name]] == ["gpu-1/llama-3.3-70b-instruct-0"]


def test_another_probe_program_rolls_every_pod() -> None:
    before, after = _annotations(plan()), _annotations(plan(), probe_program=PROBE + "# another\n")
    assert all(before[name] != after[name] for name in before)


def test_a_further_host_changes_nothing_of_the_others() -> None:
    """But the host ports that the admission policy knows: that is one object for the whole cluster."""
    before, after = rendered(plan(hosts=2)), rendered(plan(hosts=3))
    changed = [item for item in before if item not in after]
    assert [(item["kind"], item["metadata"]["name"]) for item in changed] == [("ConfigMap", "planned-host-ports")]


def test_a_host_is_rendered_alone() -> None:
    found = rendered(plan(hosts=3), parts=["engines"], hosts=["gpu-2"])
    assert {item["kind"] for item in found} == {"ConfigMap", "PersistentVolume", "PersistentVolumeClaim", "Deployment"}
    hosts = {item["metadata"]["annotations"]["gpufleet.metal/host"] for item in of_kind(found, "Deployment")}
    assert hosts == {"gpu-2"}


# ------------------------------------------------------------------------------------------------- who reaches what


def test_only_gateways_reach_engines_and_nothing_leaves() -> None:
    deny, allow = of_kind(rendered(), "NetworkPolicy")
    assert deny["spec"] == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    assert allow["spec"]["ingress"] == [
        {
            "from": [{"ipBlock": {"cidr": "192.0.2.2/32"}}, {"ipBlock": {"cidr": "192.0.2.3/32"}}],
            "ports": [{"protocol": "TCP", "port": 8000}, {"protocol": "TCP", "port": 8002}],
        }
    ]
    assert allow["spec"]["policyTypes"] == ["Ingress"]


def test_without_a_planned_flow_nobody_reaches_an_engine() -> None:
    assert len(of_kind(rendered({**plan(), "flows": []}), "NetworkPolicy")) == 1


def test_a_reader_of_config_maps_reads_them_in_one_namespace_and_nothing_else() -> None:
    objects = rendered()
    (role,), (binding,) = of_kind(objects, "Role"), of_kind(objects, "RoleBinding")
    assert role["rules"] == [{"apiGroups": [""], "resources": ["configmaps"], "verbs": ["get", "list", "watch"]}]
    assert role["metadata"]["namespace"] == binding["metadata"]["namespace"] == "gpufleet-serving"


def test_what_enforces_policies_reads_no_more_than_it_needs() -> None:
    objects = rendered(parts=["enforcement"])
    (role,), (daemons,) = of_kind(objects, "ClusterRole"), of_kind(objects, "DaemonSet")
    assert {verb for rule in role["rules"] for verb in rule["verbs"]} == {"list", "watch"}
    assert {name for rule in role["rules"] for name in rule["resources"]} == {"pods", "namespaces", "networkpolicies"}
    (container,) = daemons["spec"]["template"]["spec"]["containers"]
    assert container["image"] == ENFORCER
    assert "--metrics-bind-address=127.0.0.1:9080" in container["args"]


def test_a_host_without_engines_in_pods_has_none() -> None:
    assert of_kind(rendered(parts=["engines"], hosts=["plane-1"]), "Deployment") == []


def test_an_image_is_wanted_only_where_its_part_is() -> None:
    found = kubernetes_objects(plan(), PROBE, parts=["engines"])
    assert found == rendered(parts=["engines"])


def test_the_device_plugin_names_devices_by_cdi() -> None:
    __, daemons = of_kind(rendered(), "DaemonSet")
    pod = daemons["spec"]["template"]["spec"]
    environment = {entry["name"]: entry["value"] for entry in pod["containers"][0]["env"]}
    assert environment["DEVICE_LIST_STRATEGY"] == "cdi-cri"
    assert pod["nodeSelector"] == {"nvidia.com/gpu.present": "true"}
    assert pod["containers"][0]["image"] == PLUGIN


# ----------------------------------------------------------------------------------------------------------- names


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (("gpu-1", "x-0"), ("gpu", "1-x-0")),
        (("gpu-1", "a.b"), ("gpu-1", "a_b")),
        (("gpu-1", "m" * 63 + "-0"), ("gpu-1", "m" * 63 + "-1")),
    ],
)
def test_names_are_unique_and_short_enough_for_pods(one: tuple[str, str], other: tuple[str, str]) -> None:
    assert engine_name(*one) != engine_name(*other)
    for name in (engine_name(*one), engine_name(*other)):
        assert len(f"{name}-5d59d67564-abcde") <= 63
        assert "." not in name


def test_a_name_that_is_cut_off_ends_well() -> None:
    assert (
        unique_name("x", "a" * 10 + "-" * 10, limit=20) == "x-aaaaaaaaa-" + unique_name("x", "a" * 10 + "-" * 10)[-8:]
    )


# ----------------------------------------------------------------------------------------------------- what is refused


def _changed(path: str, value: Any) -> dict[str, Any]:
    made = plan()
    part = made["hosts"]["gpu-1"]
    *steps, last = path.split(".")
    for step in steps:
        part = part[step]
    part[last] = value
    return made


@pytest.mark.parametrize(
    ("made", "message"),
    [
        (
            _changed("expected_gpus", [{"product": "L4", "mig": None}, {"product": "H200 SXM", "mig": None}]),
            "gpu-1: found GPUs of several products (H200 SXM, L4), wanted one for engines in pods: nvidia.com/gpu "
            "does not "
            "tell them apart. Take the host out of kube_nodes",
        ),
        (
            _changed("image", {"reference": "vllm/vllm-openai:v0.32.0", "archive": None, "id": None}),
            "gpu-1: found the image vllm/vllm-openai:v0.32.0, wanted one with @sha256:..., or an archive beside it "
            "(fleet_engine.image.reference, fleet_engine.image.archive)",
        ),
        (_changed("image", None), "gpu-1: found no image, wanted fleet_engine.image"),
        (
            _changed("kubernetes", None),
            "gpu-1: found an instance with backend kubernetes and no node, wanted a host of kube_nodes",
        ),
        (
            {"hosts": {}, "flows": []},
            "the plan is not as fleet_plan makes it (KeyError: 'kubernetes'); wanted a plan of this version of the "
            "collection: "
            "run the plan again",
        ),
    ],
)
def test_a_plan_that_no_pod_can_fulfil(made: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidInputError) as fault:
        rendered(made)
    assert str(fault.value) == message


def test_two_engines_with_one_port_of_a_node() -> None:
    made = plan(hosts=1)
    made["hosts"]["gpu-1"]["instances"].append(instance(1, 0, name="other"))
    with pytest.raises(
        InvalidInputError, match=r"hostPort: found 8000 on gpu-1, which Deployment .* has, wanted a port of"
    ):
        rendered(made)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"device_plugin_image": None},
            "device_plugin_image (kubernetes_serving_device_plugin_image): found none, wanted an image with @sha256: "
            "and its digest: engines use GPUs",
        ),
        (
            {"network_policies_image": None},
            "network_policies_image (kubernetes_serving_network_policies_image): found none, wanted an image with "
            "@sha256: and its digest: Flannel enforces no network policy",
        ),
        (
            {"device_plugin_image": "nvcr.io/nvidia/k8s-device-plugin:v0.20.0"},
            "device_plugin_image: found 'nvcr.io/nvidia/k8s-device-plugin:v0.20.0', wanted an image with @sha256: "
            "and its digest",
        ),
        ({"probe_program": " "}, "probe_program: found an empty text, wanted the content of engine_probe.py"),
        (
            {"parts": ["engine"]},
            "parts: found engine, wanted some of namespace, policies, enforcement, admission, devices, engines",
        ),
        ({"hosts": ["gpu-1", "gpu-9"]}, "hosts: found gpu-9, wanted hosts of the plan"),
        ({"settings": {"user": "0:0"}}, "settings.user: found '0:0', wanted numbers uid:gid, not root, such as 2000:0"),
        ({"settings": {"user": 2000}}, "settings.user: found 2000, wanted a text"),
        ({"settings": {"read_only": 1}}, "settings.read_only: found 1, wanted true or false"),
        ({"settings": {"drain_seconds": True}}, "settings.drain_seconds: found True, wanted a whole number"),
        ({"settings": {"drain_seconds": 5}}, "settings.drain_seconds: found 5, wanted 10 or more"),
        ({"settings": {"entrypoint": "vllm"}}, "settings.entrypoint: found 'vllm', wanted a list of words, not empty"),
        ({"settings": {"cache": "ram"}}, "settings.cache: found 'ram', wanted one of host, pod"),
        ({"settings": {"memory": "4 GB"}}, "settings.memory: found '4 GB', wanted a size, such as 4Gi"),
        (
            {"settings": {"cache_directory": "/a/../b"}},
            "settings.cache_directory: found '/a/../b', wanted an absolute path without '..'",
        ),
        (
            {"settings": {"probe_timeout_seconds": 100}},
            "settings.hang_seconds: found 180, wanted at least twice probe_timeout_seconds (100): one late answer "
            "is no hang",
        ),
    ],
)
def test_an_option_that_is_wrong(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidInputError) as fault:
        rendered(**options)
    assert str(fault.value) == message


def test_a_setting_that_nobody_knows() -> None:
    with pytest.raises(InvalidInputError, match=r"^settings: found gpus, wanted only cache, cache_directory, cpu, "):
        rendered(settings={"gpus": 2})
