# SPDX-License-Identifier: Apache-2.0
"""The shape of upgrade_driver: what is done to which host, in batches, when something fails at a stage.

Real roles are in tests/fleet/upgrade_driver.py.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from stand_ins import Shape, StandIns

HOSTS = ("gpu-a", "gpu-b", "gpu-c", "gpu-d")
CHANGED = ["vllm.idle", "vllm.stop", "nvidia_driver.main", "nvidia_driver.verify"]
TAKEN_OUT = ["nvidia_driver.record", "nginx.hold held"]
COMPLETE = [*TAKEN_OUT, *CHANGED, "vllm.main", "nginx.hold released"]
ROLLED_BACK = [*TAKEN_OUT, *CHANGED, "nvidia_driver.rollback", "vllm.stop"]
SHAPE = Shape(
    playbook="upgrade_driver",
    entries={
        "nvidia_driver": ("compare", "record", "main", "verify", "diagnose", "rollback"),
        "nginx": ("hold", "holders"),
        "vllm": ("idle", "stop", "main"),
    },
    facts={
        "nvidia_driver_differences": "{{ differences | default(['another version']) }}",
        "nginx_holders": "{{ holders | default([]) }}",
        "nvidia_driver_rolled_back": True,
    },
)


class Fleet:
    """Four hosts."""

    def __init__(self, place: Path) -> None:
        self.stand_ins = StandIns(place, SHAPE)

    def upgrade(self, hosts: dict[str, dict[str, Any]], *arguments: str, batch: int = 2) -> tuple[int, str]:
        """Run the playbook with variables of some hosts; return its status and what it printed, on one line."""
        part = {
            "kubernetes": None,
            "driver": dict.fromkeys(
                ("branch", "version", "kernel_module", "components", "repository", "expected_gpus")
            ),
        }
        part.update(image={}, models_directory="/srv/models", instances=[], engine_tls={})
        variables = {
            "slices": {host: {**part, **hosts.get(host, {}).get("slice", {})} for host in HOSTS},
            "preflight_ignored_codes": ["ecc_disabled"],
        }
        groups = {"gpu_nodes": {host: hosts.get(host, {}) for host in HOSTS}, "gateways": {"gw-1": {}}}
        chosen = json.dumps({"upgrade_driver_batch": batch})
        return self.stand_ins.run(groups, variables, "-e", chosen, *arguments)

    def done_to(self, host: str) -> list[str]:
        """Return the entry points that ran for a host, in their order, without those that only look."""
        journal = self.stand_ins.journal("nvidia_driver.compare", "nginx.holders")
        return [entry for name, entry in journal if name == host]


@pytest.fixture
def fleet(tmp_path: Path) -> Fleet:
    """A fleet of its own for each test."""
    return Fleet(tmp_path)


def test_every_host_that_differs_is_upgraded_and_others_are_left_alone(fleet: Fleet) -> None:
    hosts = {"gpu-b": {"differences": []}, "gpu-d": {"slice": {"driver": None}}}
    status, said = fleet.upgrade(hosts, "-e", "upgrade_driver_diagnostics_level=2")
    assert status == 0, said
    assert "ignored ecc_disabled, mended driver_absent," in said, "the operator's own list stands"
    diagnosed = [*TAKEN_OUT, *CHANGED, "nvidia_driver.diagnose", "vllm.main", "nginx.hold released"]
    assert [fleet.done_to(host) for host in HOSTS] == [diagnosed, [], diagnosed, []]


def test_a_host_that_fails_is_rolled_back_while_its_batch_goes_on(fleet: Fleet) -> None:
    status, said = fleet.upgrade({"gpu-a": {"fails": ["nvidia_driver.verify"]}})
    assert status == 2, said
    assert [fleet.done_to(host) for host in HOSTS] == [ROLLED_BACK, COMPLETE, [], []]
    assert (
        "gpu-a: nvidia_driver.verify | Fail: simulated failure of nvidia_driver.verify. Its recorded driver is back. "
        "Its engines are stopped and it stays out of rotation, held by upgrade_driver: run upgrade_driver again when "
        "the cause is mended, or plan the driver that it has"
    ) in said
    assert "gpu-a failed or gave no answer any more, as is said above: gpu-c, gpu-d and what comes after" in said


def test_a_rollback_that_fails_does_not_cut_off_another(fleet: Fleet) -> None:
    status, said = fleet.upgrade(
        {
            "gpu-a": {"fails": ["nvidia_driver.verify", "nvidia_driver.rollback"]},
            "gpu-b": {"fails": ["nvidia_driver.verify"]},
        }
    )
    assert status == 2, said
    assert fleet.done_to("gpu-a") == ROLLED_BACK[:-1]
    assert fleet.done_to("gpu-b") == ROLLED_BACK
    assert "gpu-a: nvidia_driver.verify | Fail: simulated failure of nvidia_driver.verify. It stays out" in said
    assert fleet.done_to("gpu-c") == []


def test_each_stage_that_fails_says_what_is_true(fleet: Fleet) -> None:
    status, said = fleet.upgrade(
        {
            "gpu-a": {"fails": ["nginx.hold held"]},
            "gpu-b": {"fails": ["vllm.idle"]},
            "gpu-c": {"fails": ["nginx.hold released"]},
        },
        batch=3,
    )
    assert status == 2, said
    assert fleet.done_to("gpu-a") == [*TAKEN_OUT, "nginx.hold released"], "one gateway may have agreed"
    assert "Driver and engines were not touched, and it is in rotation as before: run upgrade_driver again" in said
    assert fleet.done_to("gpu-b") == [*TAKEN_OUT, "vllm.idle"]
    assert "Its driver was not touched by this run. It stays out of rotation, held by upgrade_driver" in said
    assert fleet.done_to("gpu-c") == COMPLETE, "a driver that is proved is not rolled back"
    assert "The planned driver is proved and its engines answer, but a gateway still holds it" in said
    assert "recorded driver" not in said
    assert fleet.done_to("gpu-d") == []


def test_a_host_of_an_earlier_run_keeps_its_record_and_its_hold(fleet: Fleet) -> None:
    held = {"holders": ["somebody", "upgrade_driver"], "differences": []}
    status, said = fleet.upgrade({"gpu-a": held, "gpu-b": {**held, "fails": ["nginx.hold held"]}})
    assert status == 2, said
    assert fleet.done_to("gpu-a") == COMPLETE[1:]
    assert fleet.done_to("gpu-b") == ["nginx.hold held"]
    assert "were not touched, an earlier run still holds it out of rotation" in said


@pytest.mark.skipif(shutil.which("ssh") is None, reason="no ssh client")
def test_a_host_that_is_lost_ends_the_run_after_its_batch(fleet: Fleet) -> None:
    status, said = fleet.upgrade({"gpu-b": {"lost_at": "nvidia_driver.main"}})
    assert status != 0, said
    assert fleet.done_to("gpu-a") == COMPLETE
    assert fleet.done_to("gpu-b") == [*TAKEN_OUT, *CHANGED[:3]]
    assert "gpu-b failed or gave no answer any more" in said
    assert fleet.done_to("gpu-c") == fleet.done_to("gpu-d") == []
