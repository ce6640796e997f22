# SPDX-License-Identifier: Apache-2.0
# PRIVATE to the collection: do not import this from outside, it may change without notice.
"""Flannel's own manifest with the cluster's settings: what is known of it is set, and what is not known is refused.

The manifest is the project's, taken as a file that a checksum pins. Its settings are lines inside of a ConfigMap and
its images are tags. A text that was replaced would go wrong silently in the next version; so objects are read, and
each place that is changed has to look as it does in the version that this was written for.
"""

from __future__ import annotations

import copy
import ipaddress
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from ansible_collections.gpufleet.metal.plugins.module_utils._errors import InvalidInputError

from .checks import check_objects
from .objects import PREFIX, Object, checksum

BACKENDS = ("vxlan", "host-gw")
NAMESPACE = "kube-flannel"
CONFIG_MAP = "kube-flannel-cfg"
DAEMON_SET = "kube-flannel-ds"
#: What VXLAN puts before a packet over IPv4, in bytes.
VXLAN_OVERHEAD = 50

#: Every object that the manifest has: kinds with names. A further one is somebody's to look at first.
_EXPECTED = {
    ("Namespace", NAMESPACE),
    ("ClusterRole", "flannel"),
    ("ClusterRoleBinding", "flannel"),
    ("ServiceAccount", "flannel"),
    ("ConfigMap", CONFIG_MAP),
    ("DaemonSet", DAEMON_SET),
}
#: The repositories of its images by the last word of their name, and the containers that run them.
IMAGES = ("flannel", "flannel-cni-plugin")
_CONTAINERS = {"kube-flannel": "flannel", "install-cni": "flannel", "install-cni-plugin": "flannel-cni-plugin"}
_NET_CONF = {"Network", "EnableNFTables", "Backend"}
_ARGUMENTS = ["--ip-masq", "--kube-subnet-mgr"]
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_IMAGE = re.compile(
    r"(?P<repository>(?:[a-z0-9.-]+(?::[0-9]+)?/)?[a-z0-9._/-]+?)(?::(?P<tag>[\w.-]+))?(?:@sha256:[0-9a-f]{64})?"
)


def flannel_objects(
    manifest: Sequence[Any],
    images: Mapping[str, str],
    network: str,
    backend: str = "vxlan",
    mtu: int | None = None,
    nftables: bool = True,
) -> list[Object]:
    """Return the manifest's objects with the cluster's settings. Raises InvalidInputError.

    ``images``: for each of IMAGES the image with its digest, of a mirror perhaps. ``mtu``: of the pods' interfaces;
    None leaves it to Flannel, which takes the node's and what its backend costs. ``nftables``: as kube-proxy's mode
    is.
    """
    objects = [copy.deepcopy(item) for item in manifest if item is not None]
    found = _by_name(objects)
    if backend not in BACKENDS:
        raise InvalidInputError(f"backend: found {backend!r}, wanted one of {', '.join(BACKENDS)}")
    if mtu is not None and not 1280 <= mtu <= 9216:
        raise InvalidInputError(f"mtu: found {mtu}, wanted 1280 to 9216")
    _set_network(found["ConfigMap", CONFIG_MAP], _network(network), backend, mtu, nftables)
    _set_images(found["DaemonSet", DAEMON_SET], images)
    # Flannel reads its settings when it starts.
    about = found["DaemonSet", DAEMON_SET]["spec"]["template"]["metadata"]
    digest = checksum(found["ConfigMap", CONFIG_MAP]["data"])
    about["annotations"] = {**(about.get("annotations") or {}), f"{PREFIX}configuration": digest}
    faults = check_objects(objects)
    if faults:
        raise InvalidInputError(f"manifest: {'; '.join(faults)}")
    return objects


def _by_name(objects: Sequence[Any]) -> dict[tuple[str, str], Object]:
    found: dict[tuple[str, str], Object] = {}
    for number, item in enumerate(objects):
        about = item.get("metadata") if isinstance(item, Mapping) else None
        if not isinstance(about, Mapping) or "kind" not in item or "name" not in about:
            raise InvalidInputError(
                f"manifest: document {number}: found {item!r:.80}, wanted an object with a kind and a name"
            )
        found[str(item["kind"]), str(about["name"])] = item
        namespace = about.get("namespace")
        if namespace not in (None, NAMESPACE):
            raise InvalidInputError(
                f"manifest: {item['kind']} {about['name']}: found namespace {namespace}, wanted {NAMESPACE}"
            )
    lacking, strange = sorted(_EXPECTED - set(found)), sorted(set(found) - _EXPECTED)
    if lacking or strange or len(found) != len(objects):
        twice = "" if len(found) == len(objects) else "; an object twice"
        raise InvalidInputError(
            f"manifest: found {_list(lacking) or 'none'} missing and {_list(strange) or 'none'} unknown{twice}, "
            f"wanted each of {_list(sorted(_EXPECTED))} once, as Flannel 0.28 has them"
        )
    return found


def _list(pairs: Sequence[tuple[str, str]]) -> str:
    return ", ".join(" ".join(pair) for pair in pairs)


def _network(value: str) -> str:
    try:
        return str(ipaddress.IPv4Network(value))
    except ValueError as fault:
        raise InvalidInputError(
            f"network: found {value!r} ({fault}), wanted an IPv4 network such as 10.244.0.0/16"
        ) from fault


def _set_network(config: Object, network: str, backend: str, mtu: int | None, nftables: bool) -> None:
    where = f"manifest: ConfigMap {CONFIG_MAP}"
    data = config.get("data")
    if not isinstance(data, Mapping) or set(data) != {"cni-conf.json", "net-conf.json"}:
        shown = ", ".join(sorted(data)) if isinstance(data, Mapping) else "none"
        raise InvalidInputError(f"{where}: data: found {shown}, wanted cni-conf.json and net-conf.json")
    plain, delegated = (_document(data[key], f"{where}: {key}") for key in ("net-conf.json", "cni-conf.json"))
    if set(plain) != _NET_CONF or not isinstance(plain["Backend"], dict) or set(plain["Backend"]) != {"Type"}:
        raise InvalidInputError(
            f"{where}: net-conf.json: found {json.dumps(plain, sort_keys=True)}, wanted Network, EnableNFTables and a "
            "Backend with its Type alone: what else is set there is not ours to drop"
        )
    plugins = [plugin.get("type") for plugin in delegated.get("plugins") or [] if isinstance(plugin, Mapping)]
    if plugins != ["flannel", "portmap"]:
        # The engines' host ports are portmap's work.
        raise InvalidInputError(f"{where}: cni-conf.json: found the plugins {plugins}, wanted flannel and then portmap")
    settings: dict[str, Any] = {"Type": backend}
    if mtu is not None and backend == "vxlan":
        settings["MTU"] = mtu
    elif mtu is not None:
        raise InvalidInputError(
            f"mtu: found {mtu}, wanted none with the backend {backend}: pods have the MTU of their node there"
        )
    wanted = {"Network": network, "EnableNFTables": nftables, "Backend": settings}
    config["data"] = {**data, "net-conf.json": json.dumps(wanted, indent=2) + "\n"}


def _document(text: Any, where: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except (TypeError, ValueError) as fault:
        raise InvalidInputError(f"{where}: found no JSON ({fault}), wanted an object") from fault
    if not isinstance(found, dict):
        raise InvalidInputError(f"{where}: found {text!r:.80}, wanted an object")
    return found


def _set_images(daemon_set: Object, images: Mapping[str, str]) -> None:
    where = f"manifest: DaemonSet {DAEMON_SET}"
    if set(images) != set(IMAGES):
        raise InvalidInputError(f"images: found {', '.join(sorted(images)) or 'none'}, wanted {' and '.join(IMAGES)}")
    for name, image in sorted(images.items()):
        reference, __, digest = image.partition("@")
        if not _DIGEST.fullmatch(digest) or _last(reference) != name:
            raise InvalidInputError(f"images.{name}: found {image!r}, wanted .../{name} with @sha256: and its digest")
    pod = daemon_set["spec"]["template"]["spec"]
    containers = [*(pod.get("initContainers") or []), *(pod.get("containers") or [])]
    names = sorted(str(container.get("name")) for container in containers)
    if names != sorted(_CONTAINERS):
        raise InvalidInputError(
            f"{where}: found the containers {', '.join(names)}, wanted {', '.join(sorted(_CONTAINERS))}"
        )
    for container in containers:
        image = _CONTAINERS[container["name"]]
        if _last(str(container.get("image"))) != image:
            raise InvalidInputError(
                f"{where}: {container['name']}: found the image {container.get('image')}, wanted one named {image}"
            )
        given, wanted = _tag(str(container["image"])), _tag(images[image])
        if given is not None and wanted is not None and given != wanted:
            raise InvalidInputError(
                f"{where}: {container['name']}: found the image's tag {given}, wanted {wanted}, that of "
                f"images.{image}: a manifest and its images are of one version"
            )
        container["image"] = images[image]
        container["imagePullPolicy"] = "IfNotPresent"
        if container["name"] == "kube-flannel":
            lacking = [word for word in _ARGUMENTS if word not in (container.get("args") or [])]
            if lacking:
                raise InvalidInputError(
                    f"{where}: kube-flannel: found no {' and no '.join(lacking)} among its arguments, wanted both"
                )


def _last(reference: str) -> str:
    match = _IMAGE.fullmatch(reference)
    return match.group("repository").rsplit("/", 1)[-1] if match else ""


def _tag(reference: str) -> str | None:
    match = _IMAGE.fullmatch(reference)
    return match.group("tag") if match else None
