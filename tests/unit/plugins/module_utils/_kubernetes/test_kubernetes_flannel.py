# SPDX-License-Identifier: Apache-2.0
"""Flannel's manifest: what is set in it, and what is refused. The manifest here has the shape of the project's own."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from typing import Any

import pytest

from ansible_collections.gpufleet.metal.plugins.module_utils._errors import InvalidInputError
from ansible_collections.gpufleet.metal.plugins.module_utils._kubernetes.checks import check_objects
from ansible_collections.gpufleet.metal.plugins.module_utils._kubernetes.flannel import flannel_objects

DIGEST = "sha256:" + "b" * 64
IMAGES = {
    "flannel": f"mirror.example.org:5000/flannel-io/flannel:v0.28.9@{DIGEST}",
    "flannel-cni-plugin": f"mirror.example.org:5000/flannel-io/flannel-cni-plugin@{DIGEST}",
}


def manifest() -> list[dict[str, Any]]:
    """Return a manifest of the same shape, with what matters of it."""
    space = {"namespace": "kube-flannel"}
    container = {"image": "registry.example.org/flannel:v0.28.9"}
    return copy.deepcopy(
        [
            {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "kube-flannel"}},
            {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": {"name": "flannel"}},
            {
                "apiVersion": "rbac.authorization.k8s.io/v1",
                "kind": "ClusterRoleBinding",
                "metadata": {"name": "flannel"},
                "roleRef": {"kind": "ClusterRole", "name": "flannel"},
                "subjects": [{"kind": "ServiceAccount", "name": "flannel", **space}],
            },
            {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "flannel", **space}},
            {
                "apiVersion": "v1",
                "kind": "ConfigMap",
                "metadata": {"name": "kube-flannel-cfg", **space},
                "data": {
                    "cni-conf.json": '{"name": "net", "plugins": [{"type": "flannel"}, {"type": "portmap"}]}',
                    "net-conf.json": '{"Network": "10.244.0.0/16", "EnableNFTables": false, '
                    '"Backend": {"Type": "vxlan"}}',
                },
            },
            {
                "apiVersion": "apps/v1",
                "kind": "DaemonSet",
                "metadata": {"name": "kube-flannel-ds", **space},
                "spec": {
                    "selector": {"matchLabels": {"app": "flannel"}},
                    "template": {
                        "metadata": {"labels": {"app": "flannel"}},
                        "spec": {
                            "serviceAccountName": "flannel",
                            "initContainers": [
                                {
                                    "name": "install-cni-plugin",
                                    "image": "registry.example.org/flannel-cni-plugin:v1.9.1",
                                },
                                {"name": "install-cni", **container},
                            ],
                            "containers": [
                                {"name": "kube-flannel", "args": ["--ip-masq", "--kube-subnet-mgr"], **container}
                            ],
                        },
                    },
                },
            },
        ]
    )


def net_conf(objects: list[dict[str, Any]]) -> Any:
    return json.loads(objects[4]["data"]["net-conf.json"])


@pytest.mark.parametrize(
    ("options", "wanted"),
    [
        ({}, {"Network": "10.9.0.0/16", "EnableNFTables": True, "Backend": {"Type": "vxlan"}}),
        ({"mtu": 8950}, {"Network": "10.9.0.0/16", "EnableNFTables": True, "Backend": {"Type": "vxlan", "MTU": 8950}}),
        (
            {"backend": "host-gw", "nftables": False},
            {"Network": "10.9.0.0/16", "EnableNFTables": False, "Backend": {"Type": "host-gw"}},
        ),
    ],
)
def test_the_network_is_the_clusters(options: dict[str, Any], wanted: dict[str, Any]) -> None:
    objects = flannel_objects(manifest(), IMAGES, "10.9.0.0/16", **options)
    assert net_conf(objects) == wanted
    assert objects[4]["data"]["cni-conf.json"] == manifest()[4]["data"]["cni-conf.json"]


def test_every_image_has_its_digest_and_the_rest_is_as_it_was() -> None:
    given = manifest()
    objects = flannel_objects(given, IMAGES, "10.244.0.0/16")
    assert check_objects(objects) == []
    assert given == manifest()
    assert [item for item in objects if item["kind"] not in ("ConfigMap", "DaemonSet")] == [
        item for item in given if item["kind"] not in ("ConfigMap", "DaemonSet")
    ]
    pod = objects[5]["spec"]["template"]["spec"]
    assert [container["image"] for container in pod["initContainers"] + pod["containers"]] == [
        IMAGES["flannel-cni-plugin"],
        IMAGES["flannel"],
        IMAGES["flannel"],
    ]


def _pod(objects: list[dict[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = objects[5]["spec"]["template"]["spec"]
    return found


EVERY = (
    "ClusterRole flannel, ClusterRoleBinding flannel, ConfigMap kube-flannel-cfg, DaemonSet kube-flannel-ds, "
    "Namespace kube-flannel, ServiceAccount flannel"
)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda m: m.pop(3),
            f"manifest: found ServiceAccount flannel missing and none unknown, wanted each of {EVERY} once, as "
            "Flannel 0.28 has them",
        ),
        (
            lambda m: m.append({"kind": "Secret", "metadata": {"name": "x"}}),
            f"manifest: found none missing and Secret x unknown, wanted each of {EVERY} once, as Flannel 0.28 has them",
        ),
        (
            lambda m: m.append(m[0]),
            f"manifest: found none missing and none unknown; an object twice, wanted each of {EVERY} once, as "
            "Flannel 0.28 has them",
        ),
        (lambda m: m.append("x"), "manifest: document 6: found 'x', wanted an object with a kind and a name"),
        (
            lambda m: m[3]["metadata"].update(namespace="kube-system"),
            "manifest: ServiceAccount flannel: found namespace kube-system, wanted kube-flannel",
        ),
        (
            lambda m: m[4]["data"].update({"more.json": "{}"}),
            "manifest: ConfigMap kube-flannel-cfg: data: found cni-conf.json, more.json, net-conf.json, wanted "
            "cni-conf.json and "
            "net-conf.json",
        ),
        (
            lambda m: m[4]["data"].update(
                {"net-conf.json": '{"Network": "a", "EnableNFTables": true, "Backend": {"Type": "a", "VNI": 1}}'}
            ),
            'manifest: ConfigMap kube-flannel-cfg: net-conf.json: found {"Backend": {"Type": "a", "VNI": 1}, '
            '"EnableNFTables": true, '
            '"Network": "a"}, wanted Network, EnableNFTables and a Backend with its Type alone: what else is set '
            "there is not ours "
            "to drop",
        ),
        (
            lambda m: m[4]["data"].update({"net-conf.json": "[]"}),
            "manifest: ConfigMap kube-flannel-cfg: net-conf.json: found '[]', wanted an object",
        ),
        (
            lambda m: m[4]["data"].update({"cni-conf.json": '{"plugins": [{"type": "flannel"}]}'}),
            "manifest: ConfigMap kube-flannel-cfg: cni-conf.json: found the plugins ['flannel'], wanted flannel and "
            "then portmap",
        ),
        (
            lambda m: _pod(m)["containers"].append({"name": "more"}),
            "manifest: DaemonSet kube-flannel-ds: found the containers install-cni, install-cni-plugin, "
            "kube-flannel, more, wanted "
            "install-cni, install-cni-plugin, kube-flannel",
        ),
        (
            lambda m: _pod(m)["containers"][0].update(image="registry.example.org/other:v0.28.9"),
            "manifest: DaemonSet kube-flannel-ds: kube-flannel: found the image registry.example.org/other:v0.28.9, "
            "wanted one named "
            "flannel",
        ),
        (
            lambda m: _pod(m)["containers"][0].update(image="registry.example.org/flannel:v0.29.0"),
            "manifest: DaemonSet kube-flannel-ds: kube-flannel: found the image's tag v0.29.0, wanted v0.28.9, that of "
            "images.flannel: a manifest and its images are of one version",
        ),
        (
            lambda m: _pod(m).update(serviceAccountName="other"),
            "manifest: DaemonSet kube-flannel/kube-flannel-ds: spec.template.spec.serviceAccountName: found other, "
            "wanted a ServiceAccount among the objects of kube-flannel",
        ),
        (
            lambda m: _pod(m)["containers"][0].update(args=["--ip-masq"]),
            "manifest: DaemonSet kube-flannel-ds: kube-flannel: found no --kube-subnet-mgr among its arguments, "
            "wanted both",
        ),
    ],
)
def test_a_manifest_that_is_not_as_known(change: Callable[[Any], Any], message: str) -> None:
    given = manifest()
    change(given)
    with pytest.raises(InvalidInputError) as fault:
        flannel_objects(given, IMAGES, "10.244.0.0/16")
    assert str(fault.value) == message


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"backend": "udp"}, "backend: found 'udp', wanted one of vxlan, host-gw"),
        ({"mtu": 100}, "mtu: found 100, wanted 1280 to 9216"),
        (
            {"mtu": 1500, "backend": "host-gw"},
            "mtu: found 1500, wanted none with the backend host-gw: pods have the MTU of their node there",
        ),
        ({"images": {}}, "images: found none, wanted flannel and flannel-cni-plugin"),
        (
            {"images": {**IMAGES, "flannel": "a/flannel:v0.28.9"}},
            "images.flannel: found 'a/flannel:v0.28.9', wanted .../flannel with @sha256: and its digest",
        ),
    ],
)
def test_an_option_that_is_wrong(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidInputError) as fault:
        flannel_objects(manifest(), **{"images": IMAGES, "network": "10.244.0.0/16", **options})
    assert str(fault.value) == message


def test_a_network_that_is_none() -> None:
    with pytest.raises(
        InvalidInputError, match=r"^network: found '10\.244\.0\.1/16' \(.*\), wanted an IPv4 network such as"
    ):
        flannel_objects(manifest(), IMAGES, "10.244.0.1/16")
