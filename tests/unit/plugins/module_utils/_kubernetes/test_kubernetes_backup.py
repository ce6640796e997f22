# SPDX-License-Identifier: Apache-2.0
"""What may be asked of a control plane's snapshots, what is found wrong with them, and which fit a host."""

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.gpufleet.metal.plugins.module_utils._kubernetes import backup

RECIPIENT = "age1" + "q" * 58
HOST_KEY = "ssh-ed25519 " + "A" * 68
HOST = {"host": "nas", "user": "backup", "path": "/volume1/etcd", "host_key": HOST_KEY}
NOW = 1_800_000_000


def options(**changes: Any) -> dict[str, Any]:
    return {
        "recipients": [RECIPIENT],
        "destination": HOST,
        "cluster_name": "gpufleet",
        "keep": 8,
        "keep_copies": 56,
        "tools": "image",
        "tools_sha256": None,
        "maximum_age_hours": 13,
        **changes,
    }


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({}, []),
        ({"recipients": [RECIPIENT, "ssh-ed25519 " + "B" * 68 + " operator@desk"]}, []),
        ({"destination": {"directory": "/mnt/backup"}}, []),
        ({"keep_copies": 0}, []),
        ({"tools": "https://mirror.example/etcd.tar.gz", "tools_sha256": "0" * 64}, []),
        (
            {"recipients": ["age1short"]},
            [
                "kubernetes_backup_recipients: number 1 is 'age1short', wanted a public key such as age1... or "
                "ssh-ed25519 ..."
            ],
        ),
        (
            {"recipients": [RECIPIENT, "AGE-SECRET-KEY-1SECRET"]},
            [
                "kubernetes_backup_recipients: number 2 is a private key, wanted the public key that belongs to it: a "
                "host that can make snapshots need not open them"
            ],
        ),
        (
            {"destination": {**HOST, "directory": "/mnt"}},
            [
                "kubernetes_backup_destination has both directory and host, wanted one: a directory that is mounted "
                "from elsewhere, or a host"
            ],
        ),
        (
            {"destination": {"directory": "mnt", "user": "backup"}},
            [
                "kubernetes_backup_destination has user, which a directory does not need; wanted directory alone",
                "kubernetes_backup_destination.directory is 'mnt', wanted an absolute path of letters, digits and "
                "._/+@-",
            ],
        ),
        (
            {"destination": {"host": "nas", "user": "-oProxyCommand", "path": 'a"b'}},
            [
                "kubernetes_backup_destination.user is '-oProxyCommand', wanted the user's name at nas",
                "kubernetes_backup_destination.path is 'a\"b', wanted a directory of letters, digits and ._/+@-",
                "kubernetes_backup_destination.host_key is 'None', wanted the host key of nas as ssh-keyscan prints "
                "it, from its type on, compared with what the host itself says",
            ],
        ),
        ({"keep": 0, "keep_copies": 0}, ["kubernetes_backup_keep is 0, wanted 1 or more"]),
        ({"maximum_age_hours": 0}, ["kubernetes_backup_maximum_age_hours is 0, wanted 1 or more"]),
        (
            {"cluster_name": "a_b"},
            ["kubernetes_backup_cluster_name is 'a_b', wanted lower-case letters, digits, hyphens and dots"],
        ),
        (
            {"tools": "distribution"},
            ["kubernetes_backup_tools is 'distribution', wanted image or the URL of an archive of etcd"],
        ),
        (
            {"tools": "https://mirror.example/etcd.tar.gz"},
            [
                "kubernetes_backup_tools_sha256 is 'None', wanted the SHA-256 of https://mirror.example/etcd.tar.gz, "
                "64 hexadecimal digits"
            ],
        ),
    ],
)
def test_options(changes: dict[str, Any], found: list[str]) -> None:
    assert backup.option_faults(options(**changes)) == found


@pytest.mark.parametrize(("port", "shown"), [(None, "nas "), (22, "nas "), (2222, "[nas]:2222 ")])
def test_known_hosts(port: int | None, shown: str) -> None:
    assert backup.known_hosts({**HOST, "port": port}) == f"{shown}{HOST_KEY}\n"


def status(**changes: Any) -> dict[str, Any]:
    state = {
        "error": None,
        "last_snapshot": NOW - 3600,
        "last_copy": NOW - 3600,
        "name": "a",
        "copied": "a",
        "size": 7,
        "etcd_version": "3.6.4",
    }
    named = {"fault", "copy_bytes", "now"}
    outer = {"now": NOW, "fault": None, "copy_bytes": 7, **{key: changes[key] for key in changes if key in named}}
    return {**outer, "state": {**state, **{key: changes[key] for key in changes if key not in named}}}


UNITS = {"timer": "enabled active", "service": "inactive"}


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({}, []),
        ({"error": "no route"}, ["the last snapshot failed: no route"]),
        (
            {"last_snapshot": NOW - 14 * 3600},
            ["the last snapshot is 14 hours old, wanted 13 or less (kubernetes_backup_maximum_age_hours)"],
        ),
        ({"last_copy": None, "copied": None}, ["there is no copy off this host yet"]),
        ({"fault": "no route"}, ["no route"]),
        ({"copy_bytes": None}, ["the destination has no a, which was copied there"]),
        ({"copy_bytes": 6}, ["a has 6 bytes at the destination, wanted 7 as here"]),
        ({"copied": "older", "copy_bytes": 6}, []),
        (
            {"etcd_version": "3.7.0"},
            [
                "etcdutl is 3.6.9 and etcd 3.7.0: run the stage again, so that a restore has tools of the same minor",
            ],
        ),
    ],
)
def test_disagreements(changes: dict[str, Any], found: list[str]) -> None:
    assert backup.disagreements(status(**changes), UNITS, {"version": "3.6.9"}, options(), []) == found


def test_units_and_files() -> None:
    units = {"timer": "disabled inactive", "service": "failed"}
    assert backup.disagreements(status(), units, {"version": None}, options(), ["/etc/a"]) == [
        "/etc/a is not what the role writes",
        "gpufleet-kubernetes-backup.timer is disabled inactive, wanted enabled active",
        "gpufleet-kubernetes-backup.service failed: see its journal",
    ]


MANIFEST: dict[str, Any] = {
    "format": 1,
    "cluster": "gpufleet",
    "endpoint": "192.0.2.1:6443",
    "kubernetes_version": "1.36.4",
    "snapshot": {"etcd_version": "3.6.4"},
}
HERE = {
    "cluster": "gpufleet",
    "endpoint": "192.0.2.1:6443",
    "kubernetes_version": "1.36.5",
    "etcdutl_version": "3.6.9",
    "bump": True,
    "keys": 1,
    "encrypted": True,
}


@pytest.mark.parametrize(
    ("here", "found"),
    [
        ({}, []),
        ({"kubernetes_version": "1.37.0", "etcdutl_version": "3.7.0"}, []),
        ({"keys": 0, "encrypted": False}, []),
        (
            {"cluster": "other", "endpoint": "192.0.2.9:6443"},
            [
                "the snapshot is of the cluster's name gpufleet, and this host is of other: name a snapshot of this "
                "cluster",
                "the snapshot is of the cluster's address 192.0.2.1:6443, and this host is of 192.0.2.9:6443: name a "
                "snapshot of this cluster",
            ],
        ),
        (
            {"etcdutl_version": "3.5.16"},
            [
                "the snapshot is of etcd 3.6.4 and etcdutl is 3.5.16, wanted the same minor or the next one: set "
                "kubernetes_version to what ran (1.36.4)"
            ],
        ),
        (
            {"bump": False},
            [
                "etcdutl 3.6.9 has no --bump-revision, without which clients would go on with what they saw before; "
                "wanted a newer one (kubernetes_backup_tools)"
            ],
        ),
        (
            {"kubernetes_version": "1.35.9"},
            ["the snapshot is of Kubernetes 1.36.4, wanted 1.35.9 or a minor less (fleet_kubernetes.version)"],
        ),
        (
            {"kubernetes_version": "1.38.0"},
            ["the snapshot is of Kubernetes 1.36.4, wanted 1.38.0 or a minor less (fleet_kubernetes.version)"],
        ),
        (
            {"keys": 0},
            [
                "the snapshot's Secrets are encrypted and kubernetes_encryption_keys is empty: name a key, or nobody "
                "could read them after the next run"
            ],
        ),
    ],
)
def test_which_snapshot_fits(here: dict[str, Any], found: list[str]) -> None:
    assert backup.manifest_faults(MANIFEST, {**HERE, **here}) == found


def test_an_unknown_format() -> None:
    assert backup.manifest_faults({"format": 2}, HERE) == [
        "the snapshot has the format 2, wanted 1, which this collection reads"
    ]
