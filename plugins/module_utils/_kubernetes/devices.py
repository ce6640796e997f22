# SPDX-License-Identifier: Apache-2.0
# PRIVATE to the collection: do not import this from outside, it may change without notice.
"""NVIDIA's device plugin on the GPU nodes: it tells kubelet of the GPUs and hands them to pods through CDI.

The driver and the CDI hook are the host's (roles nvidia_driver and docker). No RuntimeClass is needed: containerd
puts the devices that the plugin names into a pod itself (``cdi-cri``). Settings are those of chart 0.20.0.
"""

from __future__ import annotations

import re

from ansible_collections.gpufleet.metal.plugins.module_utils._errors import InvalidInputError

from .namespace import namespace_object, service_account
from .objects import Object, labels, metadata

NAMESPACE = "gpufleet-devices"
NAME = "nvidia-device-plugin"
#: Nodes with this label run the plugin: the plan's labels of a node whose engines use GPUs.
NODE_LABEL = ("nvidia.com/gpu.present", "true")

_PINNED = re.compile(r"[a-z0-9][A-Za-z0-9./:_-]*@sha256:[0-9a-f]{64}")

_ENVIRONMENT = {
    # By name in the container's specification: a `systemctl daemon-reload` takes no GPU from a pod.
    "DEVICE_LIST_STRATEGY": "cdi-cri",
    "DEVICE_ID_STRATEGY": "uuid",
    "DEVICE_DISCOVERY_STRATEGY": "nvml",
    # A GPU that is split into MIG devices is no nvidia.com/gpu then: the plan puts engines on whole ones only.
    "MIG_STRATEGY": "mixed",
    # A node without a driver says so by a pod that fails, instead of one that waits.
    "FAIL_ON_INIT_ERROR": "true",
    "NVIDIA_DRIVER_ROOT": "/",
    "NVIDIA_CDI_HOOK_PATH": "/usr/bin/nvidia-cdi-hook",
}

#: (name, path on the host, path in the container, read-only, what it has to be).
_DIRECTORIES = (
    ("device-plugins", "/var/lib/kubelet/device-plugins", "/var/lib/kubelet/device-plugins", False, "Directory"),
    ("driver-root", "/", "/driver-root", True, "Directory"),
    ("cdi", "/var/run/cdi", "/var/run/cdi", False, "DirectoryOrCreate"),
)


def pinned(option: str, image: str) -> None:
    """Raise InvalidInputError for an image without its digest."""
    if not _PINNED.fullmatch(image):
        raise InvalidInputError(f"{option}: found {image!r}, wanted an image with @sha256: and its digest")


def device_objects(image: str) -> list[Object]:
    """Return the device plugin with an image that is pinned by digest. Raises InvalidInputError."""
    pinned("device_plugin_image", image)
    marks = labels(NAME, "devices")
    selected = {"app.kubernetes.io/name": NAME}
    return [
        # It registers with kubelet through a socket of the host and reads the host's driver: both are directories of
        # it.
        namespace_object(NAMESPACE, "privileged"),
        service_account(NAME, NAMESPACE, "devices"),
        {
            "apiVersion": "apps/v1",
            "kind": "DaemonSet",
            "metadata": metadata(NAME, NAMESPACE, marks),
            "spec": {
                "selector": {"matchLabels": selected},
                "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 1}},
                "template": {
                    "metadata": {"labels": marks},
                    "spec": {
                        "nodeSelector": dict([NODE_LABEL]),
                        "tolerations": [{"operator": "Exists", "effect": "NoSchedule"}],
                        "priorityClassName": "system-node-critical",
                        "serviceAccountName": NAME,
                        "automountServiceAccountToken": False,
                        "enableServiceLinks": False,
                        "securityContext": {"seccompProfile": {"type": "RuntimeDefault"}},
                        "containers": [
                            {
                                "name": NAME,
                                "image": image,
                                "imagePullPolicy": "IfNotPresent",
                                "command": ["nvidia-device-plugin"],
                                "env": [{"name": name, "value": value} for name, value in _ENVIRONMENT.items()],
                                "resources": {"requests": {"cpu": "50m", "memory": "64Mi"}},
                                # NVML opens the GPUs' device files, which only a privileged container sees without
                                # the plugin.
                                "securityContext": {"privileged": True, "readOnlyRootFilesystem": True},
                                "volumeMounts": [
                                    {"name": name, "mountPath": inside, **({"readOnly": True} if read_only else {})}
                                    for name, _path, inside, read_only, _kind in _DIRECTORIES
                                ],
                            }
                        ],
                        "volumes": [
                            {"name": name, "hostPath": {"path": path, "type": kind}}
                            for name, path, _inside, _read_only, kind in _DIRECTORIES
                        ],
                    },
                },
            },
        },
    ]
