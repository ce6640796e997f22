# SPDX-License-Identifier: Apache-2.0
# PRIVATE to the collection: do not import this from outside, it may change without notice.
"""Judge how a control plane's snapshots are made, before (options) and after (what there is). All of it is pure."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

_RECIPIENT = re.compile(r"age1[02-9ac-hj-np-z]{58}|ssh-(ed25519|rsa) [A-Za-z0-9+/]{60,}={0,2}( .*)?")
_HOST_KEY = re.compile(r"(ssh-ed25519|ssh-rsa|ecdsa-sha2-nistp(256|384|521)) [A-Za-z0-9+/]{60,}={0,2}( .*)?")
_CLUSTER = re.compile(r"[a-z0-9]([a-z0-9.-]*[a-z0-9])?")
#: What needs no quoting in sftp's commands, in the manner of sh, and in a unit's file.
_PATH = re.compile(r"[A-Za-z0-9._/+@-]+")
_USER = re.compile(r"[A-Za-z0-9._][A-Za-z0-9._-]*")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_HOUR = 3600


def option_faults(options: Mapping[str, Any]) -> list[str]:
    """Return what does not fit together, each with the option that changes it; no word of a key itself."""
    found = _recipient_faults(options["recipients"]) + _destination_faults(options["destination"])
    if not _CLUSTER.fullmatch(str(options["cluster_name"])):
        found.append(
            f"kubernetes_backup_cluster_name is '{options['cluster_name']}', wanted lower-case letters, digits, "
            f"hyphens and dots"
        )
    keep, copies = int(options["keep"]), int(options["keep_copies"])
    if keep < 1:
        found.append(f"kubernetes_backup_keep is {keep}, wanted 1 or more")
    if copies != 0 and copies < keep:
        found.append(
            f"kubernetes_backup_keep_copies is {copies}, wanted kubernetes_backup_keep ({keep}) or more, or 0 where "
            f"the destination removes old ones itself"
        )
    hours = int(options["maximum_age_hours"])
    if hours < 1:
        found.append(f"kubernetes_backup_maximum_age_hours is {hours}, wanted 1 or more")
    return found + tool_faults(options["tools"], options["tools_sha256"])


def tool_faults(tools: str, sha256: str | None) -> list[str]:
    """Return what is wrong with where etcdctl and etcdutl come from."""
    if tools == "image":
        return []
    if not re.match(r"(https?://[^/]+|file:///).+", tools):
        return [f"kubernetes_backup_tools is '{tools}', wanted image or the URL of an archive of etcd"]
    if not _SHA256.fullmatch(sha256 or ""):
        return [f"kubernetes_backup_tools_sha256 is '{sha256}', wanted the SHA-256 of {tools}, 64 hexadecimal digits"]
    return []


def _recipient_faults(recipients: Sequence[Any]) -> list[str]:
    if not recipients:
        return [
            "kubernetes_backup_recipients is empty, wanted a public key of the operator (age-keygen makes one, or an "
            "ssh-ed25519 or ssh-rsa key): what leaves the host holds every key of the cluster"
        ]
    found = []
    for position, recipient in enumerate(recipients, 1):
        text = str(recipient)
        if text.startswith("AGE-SECRET-KEY-") or "PRIVATE KEY" in text:
            found.append(
                f"kubernetes_backup_recipients: number {position} is a private key, wanted the public key that belongs "
                f"to it: a host that can make snapshots need not open them"
            )
        elif not _RECIPIENT.fullmatch(text):
            found.append(
                f"kubernetes_backup_recipients: number {position} is '{text}', wanted a public key such as age1... or "
                f"ssh-ed25519 ..."
            )
    return found


def _destination_faults(destination: Mapping[str, Any]) -> list[str]:
    name = "kubernetes_backup_destination"
    directory, host = destination.get("directory"), destination.get("host")
    if bool(directory) is bool(host):
        both = "both directory and host" if directory else "neither directory nor host"
        return [f"{name} has {both}, wanted one: a directory that is mounted from elsewhere, or a host"]
    if directory:
        other = sorted(key for key in ("user", "path", "host_key", "private_key") if destination.get(key))
        found = [f"{name} has {key}, which a directory does not need; wanted directory alone" for key in other]
        if not str(directory).startswith("/") or not _PATH.fullmatch(str(directory)):
            found.append(f"{name}.directory is '{directory}', wanted an absolute path of letters, digits and ._/+@-")
        return found
    found = []
    if not _PATH.fullmatch(str(host)):
        found.append(f"{name}.host is '{host}', wanted a name or an address")
    if not _USER.fullmatch(str(destination.get("user") or "")):
        found.append(f"{name}.user is '{destination.get('user')}', wanted the user's name at {host}")
    if not _PATH.fullmatch(str(destination.get("path") or "")):
        found.append(f"{name}.path is '{destination.get('path')}', wanted a directory of letters, digits and ._/+@-")
    if not _HOST_KEY.fullmatch(str(destination.get("host_key") or "")):
        found.append(
            f"{name}.host_key is '{destination.get('host_key')}', wanted the host key of {host} as ssh-keyscan "
            f"prints it, from its type on, compared with what the host itself says"
        )
    return found


def known_hosts(destination: Mapping[str, Any]) -> str:
    """Return the line by which the destination is known."""
    port = int(destination.get("port") or 22)
    host = destination["host"] if port == 22 else f"[{destination['host']}]:{port}"
    return f"{host} {destination['host_key']}\n"


def disagreements(
    status: Mapping[str, Any],
    units: Mapping[str, str],
    tools: Mapping[str, Any],
    options: Mapping[str, Any],
    changed_files: Sequence[str],
) -> list[str]:
    """Return what is not as promised.

    ``status`` is what the program says of itself, ``units`` the states of the timer and the service, ``tools`` the
    versions of etcdctl and etcdutl.
    """
    found = [f"{path} is not what the role writes" for path in changed_files]
    if units["timer"] != "enabled active":
        found.append(f"gpufleet-kubernetes-backup.timer is {units['timer']}, wanted enabled active")
    state = status["state"]
    if state.get("error"):
        found.append(f"the last snapshot failed: {state['error']}")
    elif units["service"] == "failed":
        found.append("gpufleet-kubernetes-backup.service failed: see its journal")
    hours = int(options["maximum_age_hours"])
    for key, what in (("last_snapshot", "snapshot"), ("last_copy", "copy off this host")):
        moment = state.get(key)
        if moment is None:
            found.append(f"there is no {what} yet")
        elif status["now"] - moment > hours * _HOUR:
            age = (status["now"] - moment) // _HOUR
            found.append(
                f"the last {what} is {age} hours old, wanted {hours} or less (kubernetes_backup_maximum_age_hours)"
            )
    if status["fault"]:
        found.append(str(status["fault"]))
    elif state.get("copied") and status["copy_bytes"] is None:
        found.append(f"the destination has no {state['copied']}, which was copied there")
    elif state.get("copied") == state.get("name") and state.get("name") and status["copy_bytes"] != state["size"]:
        found.append(
            f"{state['copied']} has {status['copy_bytes']} bytes at the destination, wanted {state['size']} as here"
        )
    running = state.get("etcd_version")
    if running and tools.get("version") and minor_of(running) != minor_of(tools["version"]):
        found.append(
            f"etcdutl is {tools['version']} and etcd {running}: run the stage again, so that a restore has tools of "
            f"the same minor"
        )
    return found


def minor_of(version: str) -> str:
    """Return the minor of a version."""
    return ".".join(str(version).split(".")[:2])


def manifest_faults(manifest: Mapping[str, Any], told: Mapping[str, Any]) -> list[str]:
    """Return why a snapshot is not one for this host.

    ``told``: cluster, endpoint, kubernetes_version, etcdutl_version, bump (whether etcdutl can raise revisions), keys
    (how many keys for Secrets there are today), encrypted (whether the snapshot has keys of its own).
    """
    if manifest.get("format") != 1:
        return [f"the snapshot has the format {manifest.get('format')}, wanted 1, which this collection reads"]
    found = [
        f"the snapshot is of the cluster's {what} {manifest[key]}, and this host is of {told[key]}: name a snapshot of "
        f"this cluster"
        for key, what in (("cluster", "name"), ("endpoint", "address"))
        if manifest[key] != told[key]
    ]
    snapshot, tool = manifest["snapshot"]["etcd_version"], told["etcdutl_version"]
    if minor_of(snapshot) not in (minor_of(tool), _one_less(minor_of(tool))):
        found.append(
            f"the snapshot is of etcd {snapshot} and etcdutl is {tool}, wanted the same minor or the next one: set "
            f"kubernetes_version to what ran ({manifest['kubernetes_version']})"
        )
    if not told["bump"]:
        found.append(
            f"etcdutl {tool} has no --bump-revision, without which clients would go on with what they saw before; "
            f"wanted a newer one (kubernetes_backup_tools)"
        )
    then, now = manifest["kubernetes_version"], told["kubernetes_version"]
    if minor_of(then) not in (minor_of(now), _one_less(minor_of(now))):
        found.append(f"the snapshot is of Kubernetes {then}, wanted {now} or a minor less (fleet_kubernetes.version)")
    if told["encrypted"] and not told["keys"]:
        found.append(
            "the snapshot's Secrets are encrypted and kubernetes_encryption_keys is empty: name a key, or nobody could "
            "read them after the next run"
        )
    return found


def _one_less(minor: str) -> str:
    major, __, number = minor.partition(".")
    return f"{major}.{int(number) - 1}" if number.isdigit() and int(number) else minor
