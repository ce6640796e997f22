# SPDX-License-Identifier: Apache-2.0
# PRIVATE to the collection: do not import this from outside, it may change without notice.
"""What the engines of some nodes are made of: a Deployment for each, or a set of pods where one is on several nodes."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from .engines import cache_directory, deployment, probe_config_map
from .fleet import EngineNode
from .groups import group_objects
from .objects import Object
from .settings import EngineSettings
from .storage import directory


def engine_objects(
    nodes: Sequence[EngineNode],
    settings: EngineSettings,
    namespace: str,
    probe_program: str,
    elastic: Collection[tuple[str, str]] = (),
) -> list[Object]:
    """Return what the engines of some nodes are made of, volumes before the claims and both before who uses them.

    ``elastic``: (host, instance) of those that do not always run.
    """
    config = [probe_config_map(probe_program, namespace)]
    volumes: list[Object] = []
    workloads: list[Object] = []
    for node in nodes:
        shared = [("models", node.models_directory), ("tls", node.tls_directory)]
        if node.tls_directory is not None:
            shared.append(("probe-tls", settings.probe_tls_directory))
        for purpose, path in shared:
            if path:
                volumes += directory(purpose, node.host, node.node_name, path, namespace)
        for instance in node.instances:
            if instance["name"] in node.workers:
                claims, group = group_objects(node, instance, settings, namespace, config)
                volumes += claims
                workloads.append(group)
                continue
            if settings.cache == "host":
                cache = cache_directory(settings, instance)
                volumes += directory("cache", node.host, node.node_name, cache, namespace)
            scaled = (node.host, instance["name"]) in elastic
            workloads.append(deployment(node, instance, settings, namespace, config, scaled))
    return [*config, *volumes, *workloads]
