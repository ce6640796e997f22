# SPDX-License-Identifier: Apache-2.0
# PRIVATE to the collection: do not import this from outside, it may change without notice.
"""Directories of a host for its pods: volumes of the kind ``local``, each claimed beforehand by one claim.

Pod Security refuses a hostPath in a pod, and rightly: whoever may create pods would read any file of a node. A volume
is made by the cluster's administrator and names one directory, and a pod only names the claim.
"""

from __future__ import annotations

from collections.abc import Mapping

from .objects import HOSTNAME_LABEL, PLACE_LABEL, Object, labels, metadata, unique_name

#: The API wants a size. Of a directory nobody holds anybody to it; the claim asks for the same.
_NOMINAL_SIZE = "1Gi"
#: The one mode that ``local`` has: several pods of the volume's node may use it.
_MODES = ["ReadWriteOnce"]


def claim_name(purpose: str, host: str, path: str) -> str:
    """Return the name of a directory's claim and of its volume.

    A volume's path can't be changed, so another path is another volume.
    """
    return unique_name(purpose, host, path)


def directory(purpose: str, host: str, node_name: str, path: str, namespace: str) -> list[Object]:
    """Return the volume of a directory on a node, and the claim that pods of the namespace use it by.

    The directory has to be there, or the pod waits in ContainerCreating and says which path is missing.
    """
    name = claim_name(purpose, host, path)
    return claimed(name, name, {**labels("vllm", purpose), PLACE_LABEL: node_name}, node_name, path, namespace)


def claimed(
    volume: str, claim: str, marks: Mapping[str, str], node_name: str, path: str, namespace: str
) -> list[Object]:
    """Return the volume of a directory on a node, and the claim that has it; ``marks``: labels of both."""
    return [
        {
            "apiVersion": "v1",
            "kind": "PersistentVolume",
            "metadata": metadata(volume, labelled=marks),
            "spec": {
                "capacity": {"storage": _NOMINAL_SIZE},
                "volumeMode": "Filesystem",
                "accessModes": list(_MODES),
                # Nothing of what lies on a host is ever removed by the cluster.
                "persistentVolumeReclaimPolicy": "Retain",
                # No class: nothing is provisioned, and no other claim gets it.
                "storageClassName": "",
                "claimRef": {
                    "apiVersion": "v1",
                    "kind": "PersistentVolumeClaim",
                    "namespace": namespace,
                    "name": claim,
                },
                "local": {"path": path},
                "nodeAffinity": {
                    "required": {
                        "nodeSelectorTerms": [
                            {"matchExpressions": [{"key": HOSTNAME_LABEL, "operator": "In", "values": [node_name]}]}
                        ]
                    }
                },
            },
        },
        {
            "apiVersion": "v1",
            "kind": "PersistentVolumeClaim",
            "metadata": metadata(claim, namespace, marks),
            "spec": {**claim_template(), "volumeName": volume},
        },
    ]


def claim_template() -> Object:
    """Return what a claim of a directory asks for, whichever directory it is."""
    return {
        "accessModes": list(_MODES),
        "volumeMode": "Filesystem",
        "storageClassName": "",
        "resources": {"requests": {"storage": _NOMINAL_SIZE}},
    }
