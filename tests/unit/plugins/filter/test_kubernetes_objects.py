# SPDX-License-Identifier: Apache-2.0
"""The filters over the cluster's objects, and all objects of all inventories against the schemas of Kubernetes."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
from ansible.errors import AnsibleFilterError

from ansible_collections.gpufleet.metal.plugins.filter import flannel_objects, kubernetes_objects
from ansible_collections.gpufleet.metal.plugins.module_utils._kubernetes import cluster
from ansible_collections.gpufleet.metal.plugins.module_utils._kubernetes.checks import check_objects
from ansible_collections.gpufleet.metal.plugins.module_utils._kubernetes.versions import supported_minors
from ansible_collections.gpufleet.metal.tests.unit.plugins.action.test_inventories import MEDIA, NAMES, plan_of
from ansible_collections.gpufleet.metal.tests.unit.plugins.module_utils._kubernetes.plans import (
    ENFORCER,
    PLUGIN,
    PROBE,
    autoscaled,
    of_kind,
    plan,
    rendered,
)
from ansible_collections.gpufleet.metal.tests.unit.plugins.module_utils._kubernetes.test_kubernetes_flannel import (
    IMAGES,
    manifest,
    net_conf,
)

MINORS = supported_minors()


def test_a_plan_becomes_objects() -> None:
    convert = kubernetes_objects.FilterModule().filters()["kubernetes_objects"]
    made = plan()
    before = copy.deepcopy(made)
    assert convert(made, probe_program=PROBE, device_plugin_image=PLUGIN, network_policies_image=ENFORCER) == rendered()
    assert made == before
    with pytest.raises(AnsibleFilterError, match="wanted some of namespace"):
        convert(made, probe_program=PROBE, device_plugin_image=PLUGIN, parts=["x"])


def test_the_filter_takes_documents_as_they_come() -> None:
    convert = flannel_objects.FilterModule().filters()["flannel_objects"]
    assert net_conf(convert(iter(manifest()), images=IMAGES, network="10.9.0.0/16"))["Network"] == "10.9.0.0/16"
    with pytest.raises(AnsibleFilterError, match=r"^mtu: found 1"):
        convert(manifest(), images=IMAGES, network="10.9.0.0/16", mtu=1)


def assert_valid(objects: list[dict[str, Any]], minor: str) -> None:
    """A kind without a schema raises as well: it is no warning here. KEDA's has none, and checks of its own."""
    for item in objects:
        if item["apiVersion"] == "keda.sh/v1alpha1":
            continue
        assert kubernetes_validate.validate(item, minor, strict=True) == minor


@pytest.mark.parametrize("minor", MINORS)
def test_the_objects_of_a_plan_fit(minor: str) -> None:
    made = plan(hosts=1)
    made["hosts"]["gpu-1"]["kubernetes"]["taints"] = [{"key": "use", "value": "llm", "effect": "NoExecute"}]
    objects = rendered(autoscaled(made))
    assert len({item["kind"] for item in objects}) == 17
    assert_valid(objects, minor)


@pytest.mark.parametrize("minor", MINORS)
def test_what_does_not_fit_is_found(minor: str) -> None:
    item = of_kind(rendered(), "Deployment")[0]
    item["spec"]["template"]["spec"]["containers"][0]["hostPort"] = 1
    with pytest.raises(kubernetes_validate.ValidationError, match="'hostPort' was unexpected"):
        assert_valid([item], minor)
    with pytest.raises(kubernetes_validate.SchemaNotFoundError):
        assert_valid([{"apiVersion": "v1", "kind": "Thing", "metadata": {"name": "a"}}], minor)


@pytest.mark.parametrize("name", NAMES)
def test_every_inventory(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of an inventory without a cluster there is nothing to render, and that is what comes out."""
    media = tmp_path / "gpufleet-metal" / "media"
    media.mkdir(parents=True)
    (media / "media.json").write_text(json.dumps(MEDIA))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    result = plan_of(name, tmp_path)
    assert not result.get("failed"), result["msg"]
    made = json.loads((tmp_path / "plan.json").read_text(encoding="utf-8"))
    objects = cluster.kubernetes_objects(made, PROBE, PLUGIN, ENFORCER)
    engines = [item for item in made["instances"] if item["backend"] == "kubernetes"]
    assert len(of_kind(objects, "Deployment")) == len(engines)
    elastic = sum(len(model["autoscaling"]["elastic"]) for model in made["models"].values() if model["autoscaling"])
    assert len(of_kind(objects, "ScaledObject")) == elastic
    assert bool(elastic) is (name == "autoscaled")
    assert bool(objects) is (made["kubernetes"] is not None)
    assert check_objects(objects) == []
    for minor in MINORS:
        assert_valid(objects, minor)
