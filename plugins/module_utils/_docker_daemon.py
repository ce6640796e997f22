# SPDX-License-Identifier: Apache-2.0
# PRIVATE to the collection: do not import this from outside, it may change without notice.
"""Decide what a new daemon.json means for a running Docker engine: nothing, a reload, or a restart with consent."""

from __future__ import annotations

import ipaddress
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ansible_collections.gpufleet.metal.plugins.module_utils._errors import FleetError, InvalidInputError

RELOADABLE = frozenset(
    {
        "allow-nondistributable-artifacts",
        "authorization-plugins",
        "debug",
        "default-runtime",
        "insecure-registries",
        "labels",
        "live-restore",
        "max-concurrent-downloads",
        "max-concurrent-uploads",
        "max-download-attempts",
        "registry-mirrors",
        "runtimes",
        "shutdown-timeout",
    }
)
"""Keys that a running engine takes over on SIGHUP.

Docker's list also has ``features``, but the engine reads the features that matter here (CDI, containerd's image store)
only when it starts.
Source: https://docs.docker.com/reference/cli/dockerd/#configuration-reload-behavior
"""

CDI_SINCE = (28, 2)
"""The first version that starts containers with CDI devices again when it starts itself, as after a boot.

Older ones restore containers before they know CDI, and leave those with ``could not select device driver "cdi"``.
Source: https://github.com/moby/moby/issues/49989
"""

VALIDATES_SINCE = (23, 0)
"""The first version of dockerd that knows ``--validate``."""

CERTIFICATES = "/etc/docker/certs.d"

_REGISTRY = re.compile(r"^[A-Za-z0-9][A-Za-z0-9.-]*(:[0-9]{1,5})?$")

KNOWN_BEFORE_VALIDATE = frozenset(
    """
    allow-nondistributable-artifacts api-cors-header authorization-plugins bip bridge builder cgroup-parent
    cluster-advertise cluster-store cluster-store-opts containerd containerd-namespace
    containerd-plugin-namespace cpu-rt-period cpu-rt-runtime data-root debug default-address-pools
    default-cgroupns-mode default-gateway default-gateway-v6 default-ipc-mode default-runtime default-shm-size
    default-ulimits dns dns-opts dns-search exec-opts exec-root experimental features fixed-cidr fixed-cidr-v6
    group hosts icc init init-path insecure-registries ip ip-forward ip-masq ip6tables iptables ipv6 labels
    live-restore log-driver log-level log-opts max-concurrent-downloads max-concurrent-uploads
    max-download-attempts metrics-addr mtu network-control-plane-mtu no-new-privileges node-generic-resources
    oom-score-adjust pidfile raw-logs registry-mirrors rootless runtimes seccomp-profile selinux-enabled
    shutdown-timeout storage-driver storage-opts swarm-default-advertise-addr tls tlscacert tlscert tlskey
    tlsverify userland-proxy userland-proxy-path userns-remap
    """.split()
)
"""Keys of daemon.json in Docker 20.10, the one supported version that can't validate a file itself (Debian 12)."""


class RestartRefusedError(FleetError):
    """The change takes a restart of the engine that nobody has allowed."""


def version_of(text: str) -> tuple[int, ...]:
    """``(major, minor)`` from ``dockerd --version``; FleetError when there is none in it."""
    found = re.search(r"version (\d+)\.(\d+)", text)
    if not found:
        raise FleetError(f"dockerd --version said {text.strip()!r}, wanted 'Docker version MAJOR.MINOR...'")
    return int(found.group(1)), int(found.group(2))


def check_cdi(what: str, version: tuple[int, ...]) -> None:
    """Refuse an engine that loses containers with CDI devices; ``what`` has this version."""
    if version < CDI_SINCE:
        raise FleetError(
            f"{what} is Docker {version[0]}.{version[1]}, wanted {CDI_SINCE[0]}.{CDI_SINCE[1]} or newer: an older one "
            "doesn't start containers with CDI devices again after a boot (docker_cdi, docker_version)"
        )


def too_old_for_cdi(wanted: str) -> bool:
    """Whether every version that a package's wanted version (``5:28.*``) stands for is older than CDI_SINCE."""
    numbers = re.match(r"(?:[0-9]+:)?([0-9]+)(?:\.([0-9]+))?", wanted)
    if not numbers:
        return False
    found = tuple(int(number) for number in numbers.groups() if number is not None)
    return found < CDI_SINCE[: len(found)]


def check_keys(config: Mapping[str, Any], version: tuple[int, ...]) -> None:
    """Refuse keys that an engine which can't validate doesn't know: it would not start with them."""
    unknown = sorted(set(config) - KNOWN_BEFORE_VALIDATE)
    if unknown:
        raise InvalidInputError(
            f"Docker {version[0]}.{version[1]} doesn't know the configuration key {', '.join(map(repr, unknown))} "
            "(docker_daemon_options)"
        )


def render(config: Mapping[str, Any]) -> str:
    """The configuration as text."""
    return json.dumps(config, indent=2, sort_keys=True) + "\n"


def changed_keys(before: str | None, config: Mapping[str, Any]) -> list[str]:
    """Top-level keys whose value differs between a file's text and the wanted configuration, sorted."""
    try:
        old = json.loads(before) if before and before.strip() else {}
    except ValueError:
        old = {}
    if not isinstance(old, dict):
        old = {}
    return sorted(key for key in {*old, *config} if old.get(key) != config.get(key) or (key in old) != (key in config))


def leaves(config: Mapping[str, Any]) -> set[str]:
    """The names of all settings: a key, or ``key.name`` for each entry of a mapping."""
    names: set[str] = set()
    for key, value in config.items():
        names.update([f"{key}.{name}" for name in value] if isinstance(value, Mapping) and value else [key])
    return names


def refuse_foreign(path: str, before: str | None, config: Mapping[str, Any], own: Iterable[str]) -> None:
    """Raise when the new configuration would drop settings that somebody else wrote.

    A dropped ``data-root``, say, starts the engine on an empty directory. ``own`` names what was written here before.
    """
    if before is None or not before.strip():
        return
    try:
        old = json.loads(before)
    except ValueError as error:
        raise InvalidInputError(
            f"{path} isn't JSON ({error}), so that nobody can tell what it sets: correct or remove it; "
            "nothing was changed"
        ) from error
    if not isinstance(old, dict):
        raise InvalidInputError(f"{path} isn't a JSON object: correct or remove it; nothing was changed")
    kept = leaves(config) | {name.partition(".")[0] for name in leaves(config)}
    foreign = sorted(leaves(old) - kept - set(own))
    if foreign:
        raise FleetError(
            f"{path} sets {', '.join(foreign)}, which the new configuration lacks and somebody else wrote: set that in "
            f"docker_daemon_options, or remove it from {path}; nothing was changed"
        )


def activation(keys: Iterable[str]) -> str:
    """How a running engine takes over changed keys: ``none``, ``reload`` or ``restart``."""
    changed = set(keys)
    if not changed:
        return "none"
    return "reload" if changed <= RELOADABLE else "restart"


def refuse_restart(path: str, keys: Sequence[str], containers: Sequence[str], allowed: bool) -> None:
    """Raise RestartRefusedError when containers run and nobody has allowed a restart."""
    if allowed or not containers:
        return
    hard = [key for key in keys if key not in RELOADABLE]
    what = f"{path} changes {', '.join(hard)}" if hard else "an earlier change still waits for it"
    shown = ", ".join(sorted(containers)[:5]) + (", ..." if len(containers) > 5 else "")
    run = "container runs" if len(containers) == 1 else "containers run"
    raise RestartRefusedError(
        f"the Docker engine must be restarted ({what}) and {len(containers)} {run} ({shown}): "
        "set docker_restart_allowed to true to allow it; nothing was changed"
    )


def certificate_files(certificates: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return what ``managed_files`` is asked for, so that the engine trusts registries with CAs of their own.

    ``certificates`` has the CAs as PEM by the registry's name. The engine reads them at each pull; it needs no reload.
    Source: https://docs.docker.com/engine/security/certificates/
    """
    files: list[dict[str, Any]] = [{"dest": path, "state": "directory"} for path in ("/etc/docker", CERTIFICATES)]
    for registry, text in sorted(certificates.items()):
        if not _REGISTRY.match(str(registry)):
            raise InvalidInputError(
                f"docker_registry_ca_certificates: {registry!r} is no registry, wanted host or host:port"
            )
        if not str(text).lstrip().startswith("-----BEGIN CERTIFICATE-----"):
            raise InvalidInputError(
                f"docker_registry_ca_certificates: what {registry} has begins with {str(text)[:20]!r}, "
                "wanted certificates in PEM format"
            )
        files.append({"dest": f"{CERTIFICATES}/{registry}", "state": "directory"})
        files.append({"dest": f"{CERTIFICATES}/{registry}/ca.crt", "content": f"{str(text).strip()}\n"})
    return files


def overlaps(networks: Iterable[str], reserved: Iterable[str]) -> list[str]:
    """Every pair of networks that share addresses, as ``A overlaps B``. InvalidInputError for what isn't a network."""
    pairs = []
    others = [_network(text) for text in reserved]
    for text in networks:
        network = _network(text)
        pairs += [
            f"{network} overlaps {other}"
            for other in others
            if network.version == other.version and network.overlaps(other)
        ]
    return pairs


def _network(text: Any) -> ipaddress.IPv4Network | ipaddress.IPv6Network:
    try:
        return ipaddress.ip_network(str(text))
    except ValueError as error:
        raise InvalidInputError(f"{text!r} isn't a network: {error}") from error


def address_pools(info: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the pools of a running engine with the keys of ``default-address-pools`` in daemon.json.

    ``info`` is the engine's answer to ``docker info``, which writes ``Base`` and ``Size``, and no list or null
    without pools.
    Source: https://docs.docker.com/reference/api/engine/version/v1.41/#tag/System/operation/SystemInfo
    """
    return [{"base": pool["Base"], "size": pool["Size"]} for pool in info.get("DefaultAddressPools") or ()]
