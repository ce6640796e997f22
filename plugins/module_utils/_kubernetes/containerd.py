# SPDX-License-Identifier: Apache-2.0
# PRIVATE to the collection: do not import this from outside, it may change without notice.
"""containerd as kubelet needs it: whether its version will do, and its configuration.

Source: containerd's CRI plugin config guide. containerd 2 has its own sections (configuration version 3).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from ansible_collections.gpufleet.metal.plugins.module_utils._errors import InvalidInputError
from ansible_collections.gpufleet.metal.plugins.module_utils._kubernetes import versions

CONFIGURATION = "/etc/containerd/config.toml"
DROP_INS = "/etc/containerd/conf.d/*.toml"
"""Where other tools leave theirs, such as nvidia-ctk; never this collection's."""

REGISTRIES = "/etc/containerd/certs.d"
PLUGIN_DIRECTORY = "/opt/cni/bin"
NETWORK_DIRECTORY = "/etc/cni/net.d"
CDI_SINCE = (1, 7)


def version_of(text: str) -> tuple[int, int]:
    """Return major and minor of ``containerd containerd.io v2.1.4 ...`` or of a bare version."""
    for word in text.split():
        numbers = word.removeprefix("v").split(".")
        if len(numbers) > 1 and numbers[0].isdigit() and numbers[1].isdigit():
            return int(numbers[0]), int(numbers[1])
    raise InvalidInputError(f"containerd's version is {text!r}, wanted one such as 1.7.24")


def version_faults(containerd: str | None, kubernetes: str) -> list[str]:
    """Return why a Kubernetes does not run on a containerd."""
    if not containerd:
        return ["containerd is not installed, wanted it before Kubernetes: the role docker installs it"]
    minor = versions.find(kubernetes)
    if minor is None or version_of(containerd) >= minor.containerd:
        return []
    fits = [known.default for known in versions.MINORS if known.containerd <= version_of(containerd)]
    wanted = ".".join(map(str, minor.containerd))
    other = f", or set kubernetes_version to {fits[-1]}" if fits else ""
    return [
        f"containerd is {containerd} and kubernetes_version is {kubernetes}, which takes containerd {wanted} or newer: "
        f"install a newer containerd (docker_repository: vendor){other}"
    ]


def _value(value: Any) -> str:
    # Strings, booleans and lists of strings are written alike in JSON and TOML.
    return json.dumps(value)


def _table(name: str, pairs: Mapping[str, Any]) -> list[str]:
    return ["", f"[{name}]", *(f"  {key} = {_value(value)}" for key, value in pairs.items())]


def configuration(
    containerd: str,
    sandbox_image: str,
    cgroup_driver: str = "systemd",
    restrict_oom_score: bool = False,
) -> str:
    """Return the text of config.toml."""
    version = version_of(containerd)
    header = [
        "# SPDX-License-Identifier: Apache-2.0",
        "# Managed by Ansible (gpufleet.metal.kubernetes). Settings of other tools belong into conf.d.",
        f"version = {3 if version >= (2, 0) else 2}",
        f"imports = {_value([DROP_INS])}",
    ]
    oom = {"restrict_oom_score_adj": True} if restrict_oom_score else {}
    runc = {"SystemdCgroup": cgroup_driver == "systemd"}
    cni = {"conf_dir": NETWORK_DIRECTORY}
    if version >= (2, 0):
        images, runtime = "plugins.'io.containerd.cri.v1.images'", "plugins.'io.containerd.cri.v1.runtime'"
        directories = {"bin_dirs": [PLUGIN_DIRECTORY]} if version >= (2, 1) else {"bin_dir": PLUGIN_DIRECTORY}
        lines = [
            *(_table(runtime, oom) if oom else []),
            *_table(f"{images}.pinned_images", {"sandbox": sandbox_image}),
            *_table(f"{images}.registry", {"config_path": REGISTRIES}),
            *_table(f"{runtime}.cni", {**directories, **cni}),
            *_table(f"{runtime}.containerd.runtimes.runc", {"runtime_type": "io.containerd.runc.v2"}),
            *_table(f"{runtime}.containerd.runtimes.runc.options", runc),
        ]
    else:
        cri = 'plugins."io.containerd.grpc.v1.cri"'
        # containerd 1.7 knows CDI and has it off; 1.6 does not know it.
        cdi = {"enable_cdi": True, "cdi_spec_dirs": ["/etc/cdi", "/var/run/cdi"]} if version >= CDI_SINCE else {}
        lines = [
            *_table(cri, {"sandbox_image": sandbox_image, **cdi, **oom}),
            *_table(f"{cri}.registry", {"config_path": REGISTRIES}),
            *_table(f"{cri}.cni", {"bin_dir": PLUGIN_DIRECTORY, **cni}),
            *_table(f"{cri}.containerd.runtimes.runc", {"runtime_type": "io.containerd.runc.v2"}),
            *_table(f"{cri}.containerd.runtimes.runc.options", runc),
        ]
    return "\n".join([*header, *lines]) + "\n"
