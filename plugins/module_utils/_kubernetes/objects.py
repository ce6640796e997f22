# SPDX-License-Identifier: Apache-2.0
# PRIVATE to the collection: do not import this from outside, it may change without notice.
"""What all objects of the cluster have in common: names, labels, checksums."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from typing import Any

#: An object as the API takes it.
Object = dict[str, Any]

#: Who manages the objects: the field manager of a server-side apply, and a label by which what is no longer planned
#: is found.
MANAGER = "gpufleet.metal"
#: Who is said to have set the count of pods of a Deployment that somebody else scales, until they do.
COUNT_MANAGER = "gpufleet.metal-count"
#: Keeps KEDA from scaling what a ScaledObject names.
PAUSED_ANNOTATION = "autoscaling.keda.sh/paused"
#: Before the collection's own labels and annotations.
PREFIX = "gpufleet.metal/"
#: On the pods of an engine, its Deployment's name: what the Deployment selects by.
ENGINE_LABEL = f"{PREFIX}engine"
#: On what belongs to the engines of one node, the node's name: what is no longer planned there is found by it.
PLACE_LABEL = f"{PREFIX}node"
#: The label that kubelet gives its node; pods and volumes are pinned by it.
HOSTNAME_LABEL = "kubernetes.io/hostname"
#: A pod's name is its Deployment's and 17 characters more, and a host name, which it becomes, has 63 at most.
DEPLOYMENT_NAME_LENGTH = 46
#: What objects of a namespaced kind are named by where nothing else bounds them.
NAME_LENGTH = 63


def checksum(*values: Any) -> str:
    """Return a digest of data that is the same for the same data."""
    text = json.dumps(values, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()


def unique_name(prefix: str, *parts: str, limit: int = NAME_LENGTH) -> str:
    """Return a name by RFC 1123 for what is told by several words of any kind.

    A digest of the words ends it: ``a-b`` and ``c`` are another thing than ``a`` and ``b-c``, and what is cut off
    counts.
    """
    digest = checksum(*parts)[:8]
    readable = re.sub(r"[^a-z0-9]+", "-", "-".join((prefix, *parts)).lower()).strip("-")
    return f"{readable[: limit - len(digest) - 1].rstrip('-')}-{digest}"


def labels(name: str, component: str) -> dict[str, str]:
    """Return the labels of an object."""
    return {
        "app.kubernetes.io/name": name,
        "app.kubernetes.io/component": component,
        "app.kubernetes.io/managed-by": MANAGER,
    }


def metadata(
    name: str,
    namespace: str | None = None,
    labelled: Mapping[str, str] | None = None,
    annotated: Mapping[str, str] | None = None,
) -> Object:
    """Return an object's metadata; without ``namespace`` it belongs to the whole cluster."""
    found: Object = {"name": name}
    if namespace is not None:
        found["namespace"] = namespace
    if labelled:
        found["labels"] = dict(labelled)
    if annotated:
        found["annotations"] = dict(annotated)
    return found
