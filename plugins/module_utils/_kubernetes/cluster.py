# SPDX-License-Identifier: Apache-2.0
# PRIVATE to the collection: do not import this from outside, it may change without notice.
"""From the plan to the objects of the cluster, in the order in which they are applied, and checked as a whole."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ansible_collections.gpufleet.metal.plugins.module_utils._errors import InvalidInputError

from .admission import admission_objects
from .autoscaling import autoscaling_objects, check_cool_down, queue_service_name
from .checks import check_objects
from .devices import device_objects
from .enforcement import enforcement_objects
from .fleet import read_fleet
from .namespace import namespace_objects
from .objects import Object
from .policies import policy_objects
from .settings import EngineSettings
from .workloads import engine_objects

#: What objects are for, in the order in which they are applied.
PARTS = ("namespace", "policies", "enforcement", "admission", "devices", "engines")


def kubernetes_objects(
    plan: Mapping[str, Any],
    probe_program: str,
    device_plugin_image: str | None = None,
    network_policies_image: str | None = None,
    settings: Mapping[str, Any] | None = None,
    parts: Sequence[str] | None = None,
    hosts: Sequence[str] | None = None,
) -> list[Object]:
    """Return the objects of a plan; none in a fleet without Kubernetes.

    ``parts``: only these of PARTS. ``hosts``: the engines of these hosts only, of the whole cluster the rest, so that
    one host costs one host's work. Whatever is left out is checked all the same. Raises InvalidInputError.
    """
    fleet = read_fleet(plan)
    if fleet is None:
        return []
    wanted = PARTS if parts is None else tuple(parts)
    strange = [part for part in wanted if part not in PARTS]
    if strange:
        raise InvalidInputError(f"parts: found {', '.join(map(str, strange))}, wanted some of {', '.join(PARTS)}")
    unknown = [host for host in hosts or () if host not in plan["hosts"]]
    if unknown:
        raise InvalidInputError(f"hosts: found {', '.join(map(str, unknown))}, wanted hosts of the plan")
    chosen = fleet.nodes if hosts is None else tuple(node for node in fleet.nodes if node.host in hosts)
    read = EngineSettings.from_options(settings or {})
    elastic = {(item.host, item.instance) for item in fleet.elastic}
    makers: dict[str, Callable[[], list[Object]]] = {
        "namespace": lambda: namespace_objects(fleet.namespace),
        "policies": lambda: policy_objects(fleet),
        "admission": lambda: admission_objects(fleet.nodes, fleet.namespace),
        "enforcement": lambda: _needed(
            "enforcement",
            enforcement_objects,
            "network_policies_image",
            network_policies_image,
            "Flannel enforces no network policy",
            wanted,
        ),
        "devices": lambda: (
            _needed("devices", device_objects, "device_plugin_image", device_plugin_image, "engines use GPUs", wanted)
            if fleet.accelerated
            else []
        ),
        "engines": lambda: [
            *engine_objects(chosen, read, fleet.namespace, probe_program, elastic),
            *autoscaling_objects(fleet, chosen),
        ],
    }
    if "engines" in wanted:
        # Where other parts are asked for, the options of the role vllm may not have come along.
        check_cool_down([item for item in fleet.elastic if hosts is None or item.host in hosts], read)
    made = {part: makers[part]() for part in PARTS}
    # An engine may be started by the queues of another host.
    elsewhere = [("Service", fleet.namespace, queue_service_name(host, name)) for host, name, __ in fleet.read]
    faults = check_objects([item for part in PARTS for item in made[part]], elsewhere)
    if faults:
        raise InvalidInputError("; ".join(faults))
    return [item for part in PARTS if part in wanted for item in made[part]]


def _needed(
    part: str, make: Callable[[str], list[Object]], option: str, image: str | None, why: str, wanted: Sequence[str]
) -> list[Object]:
    """Return a part that has an image of its own, which may be left out where the part is not asked for."""
    if image is not None:
        return make(image)
    if part not in wanted:
        return []
    raise InvalidInputError(
        f"{option} (kubernetes_serving_{option}): found none, wanted an image with @sha256: and its digest: {why}"
    )
