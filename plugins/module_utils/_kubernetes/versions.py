# SPDX-License-Identifier: Apache-2.0
# PRIVATE to the collection: do not import this from outside, it may change without notice.
"""The minors of Kubernetes that the collection takes, what each needs, and where that is said.

Sources, read in November 2026: kubernetes.io/releases/1.35, /1.36 and /1.37 (patches, ends of support), the kubelet's
changelog (container runtime, cgroups) and the version skew policy.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_VERSION = re.compile(r"1\.(0|[1-9][0-9]?)\.(0|[1-9][0-9]{0,2})")


@dataclass(frozen=True)
class Minor:
    """One minor of Kubernetes."""

    #: As ``1.36``: packages have one repository for each of these.
    name: str
    #: The whole version that is taken unless another one is asked for.
    default: str
    #: The oldest containerd, as (major, minor).
    containerd: tuple[int, int]
    #: The oldest etcd that kubeadm's arguments start, as (major, minor).
    etcd: tuple[int, int]
    #: The last day with fixes from the project.
    supported_until: str
    notes: str


#: Oldest first. One minor behind the newest is the default: GPU Operator and device plugin are tested with it.
MINORS = (
    Minor(
        "1.35",
        "1.35.9",
        (1, 6),
        (3, 5),
        "2027-02-28",
        "The last minor that takes containerd 1. kubelet refuses cgroup v1 unless failCgroupV1 is false.",
    ),
    Minor("1.36", "1.36.4", (2, 0), (3, 6), "2027-06-28", "Needs containerd 2, as every later one."),
    Minor(
        "1.37",
        "1.37.1",
        (2, 0),
        (3, 6),
        "2027-10-28",
        "kubeadm reads v1beta4 only, etcd is 3.7 by default, and kubeadm warns of kube-proxy's mode ipvs.",
    ),
)
DEFAULT_MINOR = "1.36"
_BY_NAME = {minor.name: minor for minor in MINORS}


def supported_minors() -> tuple[str, ...]:
    """Return the names of the minors, oldest first."""
    return tuple(_BY_NAME)


def default_version(minor: str = DEFAULT_MINOR) -> str:
    """Return the whole version that a minor stands for. Raises KeyError for a minor that is not in the table."""
    return _BY_NAME[minor].default


def minor_of(version: str) -> str | None:
    """Return ``1.36`` for ``1.36.4``; None for what is no whole version."""
    return version.rpartition(".")[0] if _VERSION.fullmatch(version) else None


def find(version: str) -> Minor | None:
    """Return what is known of a whole version's minor; None where it is not supported."""
    return _BY_NAME.get(minor_of(version) or "")
