# SPDX-License-Identifier: Apache-2.0
# PRIVATE to the collection: do not import this from outside, it may change without notice.
"""containerd as kubelet needs it: whether its version will do, and its configuration.

Source: containerd's CRI plugin config guide. containerd 2 has its own sections (configuration version 3).
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Mapping, Sequence
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
_REGISTRY = re.compile(r"[a-z0-9]([a-z0-9.-]*[a-z0-9])?(:[0-9]{1,5})?")
_URL = re.compile(r"https?://[^/\s\"]+(/[^\s\"]*)?")


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


def registry_files(registries: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return what M(gpufleet.metal.managed_files) writes so that containerd finds registries where they are.

    containerd reads these with every pull: it is not restarted, and names of images stay as they are. A login is sent
    as it is with each request; a file with one is readable by root alone. Raises InvalidInputError.
    """
    files: list[dict[str, Any]] = [{"dest": path, "state": "directory"} for path in ("/etc/containerd", REGISTRIES)]
    seen: set[str] = set()
    for place, entry in enumerate(registries):
        where = f"kubernetes_registries[{place}]"
        name, url = str(entry["registry"]), str(entry["url"])
        ca, username, password = (entry.get(key) or "" for key in ("ca_certificate", "username", "password"))
        if not _REGISTRY.fullmatch(name) or name in seen:
            wanted = "each registry once" if name in seen else "host or host:port, as in the name of an image"
            raise InvalidInputError(f"{where}.registry is {name!r}, wanted {wanted}")
        if not _URL.fullmatch(url):
            raise InvalidInputError(f"{where}.url is {url!r}, wanted http:// or https://, a host, and perhaps a path")
        if bool(username) != bool(password) or ":" in username:
            raise InvalidInputError(
                f"{where} has a login that is not whole, wanted username without a colon, and password"
            )
        if username and url.startswith("http:"):
            raise InvalidInputError(f"{where}.url is {url!r}, wanted https:// where there is a login")
        seen.add(name)
        directory = f"{REGISTRIES}/{name}"
        settings: dict[str, Any] = {"capabilities": ["pull", "resolve"]}
        if ca:
            settings["ca"] = f"{directory}/ca.crt"
        if url.partition("://")[2].partition("/")[2]:
            # The address has the registry's own path already.
            settings["override_path"] = True
        lines = [
            "# SPDX-License-Identifier: Apache-2.0",
            "# Managed by Ansible (gpufleet.metal.kubernetes).",
            # Who is asked when no host answers: the same, and never the registry outside. Without a table of a host
            # containerd 1.7 overlooks all of it.
            f"server = {_value(url)}",
            *_table(f"host.{_value(url)}", settings),
        ]
        if username:
            token = base64.b64encode(f"{username}:{password}".encode()).decode()
            lines += _table(f"host.{_value(url)}.header", {"Authorization": f"Basic {token}"})
        text = {"content": "\n".join(lines) + "\n", **({"mode": "0600", "sensitive": True} if username else {})}
        files.append({"dest": directory, "state": "directory"})
        if ca:
            files.append({"dest": f"{directory}/ca.crt", "content": f"{ca.rstrip()}\n"})
        files.append({"dest": f"{directory}/hosts.toml", **text})
    return files


def api_root(registry: str, url: str) -> str:
    """Return the address, without its last slash, at which the server of ``url`` says whether it takes a login.

    That is ``/v2/`` of the registry's API, whatever of it a mirror's address goes on with. Raises InvalidInputError.
    """
    scheme, __, rest = url.partition("://")
    host, *parts = rest.rstrip("/").split("/")
    parts = parts or ["v2"]
    if not _URL.fullmatch(url) or "v2" not in parts:
        raise InvalidInputError(
            f"the url of {registry} in kubernetes_registries is {url!r}, wanted one without a path or with /v2 in it: "
            "there a registry says whether it takes a login"
        )
    return "/".join([f"{scheme}://{host}", *parts[: parts.index("v2") + 1]])
