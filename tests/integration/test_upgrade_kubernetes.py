# SPDX-License-Identifier: Apache-2.0
"""The shape of upgrade_kubernetes: what is done to which host, in which order, when something fails at a stage.

The role kubernetes itself is in the scenario kubernetes_upgrade, with stand-ins for kubeadm and kubelet.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from stand_ins import Shape, StandIns

PLANES = ("cp-a", "cp-b", "cp-c")
WORKERS = ("gpu-a", "gpu-b", "gpu-c", "gpu-d")
PLAIN = "gpu-d"
COMPLETE = ["nginx.hold held", "vllm.idle", "kubernetes.upgrade", "vllm.main", "nginx.hold released"]
SHAPE = Shape(
    playbook="upgrade_kubernetes",
    entries={
        "kubernetes": ("upgrade_check", "upgrade_order", "upgrade", "kubeconfig"),
        "nginx": ("hold", "holders"),
        "vllm": ("idle", "main"),
    },
    facts={
        "kubernetes_upgrade_wanted": "{{ wanted | default(true) }}",
        "kubernetes_upgrade_begun": "{{ begun | default(false) }}",
        "nginx_holders": "{{ holders | default([]) }}",
    },
    variable_files=("kubernetes_host.yml", "engines_in_cluster.yml"),
)


class Fleet:
    """A cluster of three control planes and four workers."""

    def __init__(self, place: Path) -> None:
        self.stand_ins = StandIns(place, SHAPE)

    def upgrade(self, hosts: dict[str, dict[str, Any]], *arguments: str, batch: int = 2) -> tuple[int, str]:
        """Run the playbook with variables of some hosts; return its status and what it printed, on one line."""
        slices = {
            host: {
                "instances": [{}] if host in WORKERS and host != PLAIN else [],
                "image": {},
                "models_directory": "/srv/models",
                "engine_tls": {},
            }
            for host in (*PLANES, *WORKERS)
        }
        groups = {
            "kube_control_plane": {host: hosts.get(host, {}) for host in PLANES},
            "kube_nodes": {host: hosts.get(host, {}) for host in WORKERS},
            "gateways": {"gw-1": {}},
        }
        chosen = json.dumps({"upgrade_kubernetes_batch": batch})
        return self.stand_ins.run(groups, {"slices": slices}, "-e", chosen, *arguments)

    def journal(self) -> list[tuple[str, str]]:
        """Return what was done, without what only looks."""
        return self.stand_ins.journal("kubernetes.upgrade_check", "kubernetes.upgrade_order", "nginx.holders")

    def done_to(self, host: str) -> list[str]:
        """Return the entry points that ran for a host, in their order."""
        return [entry for name, entry in self.journal() if name == host]


@pytest.fixture
def fleet(tmp_path: Path) -> Fleet:
    """A fleet of its own for each test."""
    return Fleet(tmp_path)


def test_control_planes_first_then_one_worker_then_batches(fleet: Fleet) -> None:
    status, said = fleet.upgrade({"gpu-c": {"wanted": False}})
    assert status == 0, said
    assert "in the cluster kubernetes_version_differs" in said
    entries = fleet.journal()
    assert entries[:3] == [(plane, "kubernetes.upgrade") for plane in PLANES]
    assert entries[3:8] == [("gpu-a", entry) for entry in COMPLETE], "the first worker is proved before any other"
    assert fleet.done_to("gpu-b") == COMPLETE
    assert fleet.done_to("gpu-c") == []
    assert fleet.done_to(PLAIN) == ["kubernetes.upgrade"], "nobody waits for a worker without engines"


def test_a_first_worker_that_fails_is_the_only_one(fleet: Fleet) -> None:
    status, said = fleet.upgrade({"gpu-a": {"fails": ["kubernetes.upgrade"]}})
    assert status == 2, said
    assert [fleet.done_to(host) for host in WORKERS] == [COMPLETE[:3], [], [], []]
    assert (
        "gpu-a: kubernetes.upgrade | Fail: simulated failure of kubernetes.upgrade. Its upgrade has begun and is not "
        "complete. It stays out of rotation, held by upgrade_kubernetes: run upgrade_kubernetes again when the cause "
        "is "
        "mended"
    ) in said


def test_a_batch_is_brought_to_its_end_and_no_other_begins(fleet: Fleet) -> None:
    status, said = fleet.upgrade({"gpu-b": {"fails": ["vllm.main"]}})
    assert status == 2, said
    assert [fleet.done_to(host) for host in WORKERS] == [COMPLETE, COMPLETE[:4], COMPLETE, []]
    assert "It has the planned version, and its engines do not answer as they should. It stays out of rotation" in said
    assert "gpu-b failed or gave no answer any more, as is said above: gpu-d and what comes after" in said


def test_each_stage_that_fails_says_what_is_true(fleet: Fleet) -> None:
    hosts = {
        "gpu-a": {"wanted": False},
        "gpu-b": {"fails": ["nginx.hold held"]},
        "gpu-c": {"fails": ["nginx.hold released"]},
    }
    status, said = fleet.upgrade(hosts)
    assert status == 2, said
    assert fleet.done_to("gpu-b") == ["nginx.hold held", "nginx.hold released"], "one gateway may have agreed"
    assert "Nothing of it was changed, and it is in rotation as before: run upgrade_kubernetes again" in said
    assert fleet.done_to("gpu-c") == COMPLETE
    assert (
        "It has the planned version and its engines answer, but a gateway still holds it for upgrade_kubernetes" in said
    )


def test_a_host_of_an_earlier_run_is_gone_on_with(fleet: Fleet) -> None:
    hosts = {
        **{plane: {"wanted": False} for plane in PLANES},
        # Its pods may be gone, and nobody answers how many requests are in hand.
        "gpu-a": {"begun": True, "wanted": True},
        # It was held, and nothing more.
        "gpu-b": {"wanted": False, "holders": ["somebody", "upgrade_kubernetes"]},
        "gpu-c": {"wanted": False, "holders": ["somebody"]},
        "gpu-d": {"wanted": False},
    }
    status, said = fleet.upgrade(hosts)
    assert status == 0, said
    assert fleet.done_to("gpu-a") == [entry for entry in COMPLETE if entry != "vllm.idle"]
    assert fleet.done_to("gpu-b") == COMPLETE
    assert fleet.done_to("gpu-c") == fleet.done_to("gpu-d") == []


def test_a_control_plane_that_fails_ends_it(fleet: Fleet) -> None:
    status, said = fleet.upgrade({"cp-b": {"fails": ["kubernetes.upgrade"]}})
    assert status == 2, said
    assert fleet.journal() == [("cp-a", "kubernetes.upgrade"), ("cp-b", "kubernetes.upgrade")]


def test_a_judgement_ends_it_before_any_change(fleet: Fleet) -> None:
    status, said = fleet.upgrade({"cp-a": {"fails": ["kubernetes.upgrade_check"]}})
    assert status == 2, said
    assert fleet.journal() == []
    status, said = fleet.upgrade({"gpu-a": {"fails": ["kubernetes.upgrade_order"]}}, "--limit", "kube_nodes")
    assert status == 2, said
    assert fleet.journal() == []


def test_check_mode_takes_nobody_out(fleet: Fleet) -> None:
    status, said = fleet.upgrade({}, "--check")
    assert status == 0, said
    assert {entry for __, entry in fleet.journal()} == {"kubernetes.upgrade"}
