# SPDX-License-Identifier: Apache-2.0
"""A wrong inventory stops plan.yml with its message, and no host is asked for anything.

site.yml and preflight.yml show the same findings together with those of the hosts: test_degraded_fleet.py.
"""

from __future__ import annotations

import copy
import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from artefact import Installed

Change = Callable[[dict[str, Any]], None]


def too_long(variables: dict[str, Any]) -> None:
    """Ask one model for more KV cache than all GPUs of the rack have."""
    variables["fleet_models"][0]["concurrency"] = 100000


def odd_tensor_parallel(variables: dict[str, Any]) -> None:
    """Ask for a tensor-parallel size that does not divide the attention heads."""
    variables["fleet_models"][0]["tensor_parallel_size"] = 3


def too_many(variables: dict[str, Any]) -> None:
    """Ask for more instances than there are GPUs: two models would have to share one."""
    variables["fleet_models"][0]["replicas"] = 999


def mistyped_key(variables: dict[str, Any]) -> None:
    """Mistype a key inside a documented option."""
    variables["fleet_models"][0]["context_lenght"] = variables["fleet_models"][0].pop("context_length")


def mistyped_variable(variables: dict[str, Any]) -> None:
    """Mistype the name of a variable."""
    variables["fleet_modles"] = copy.deepcopy(variables["fleet_models"])


def without_management(variables: dict[str, Any]) -> None:
    """Say nothing about who may ssh."""
    del variables["fleet_management_networks"]


CASES: list[tuple[Change, list[str]]] = [
    (too_long, ["does_not_fit", "wanted: at most 73.6 GiB per GPU"]),
    (
        odd_tensor_parallel,
        ["Total number of attention heads (32) must be divisible by tensor parallel size (3).", "tensor_parallel_size"],
    ),
    (too_many, ["replicas", "999"]),
    (mistyped_key, ["context_lenght", "context_length"]),
    (mistyped_variable, ["fleet_modles", "fleet_models"]),
    (without_management, ["fleet_management_networks"]),
]


def plan(installed: Installed, inventory: Path) -> str:
    """Run plan.yml, which must fail; returns its output."""
    settings = {"ANSIBLE_NOCOLOR": "1", "ANSIBLE_CALLBACK_RESULT_FORMAT": "yaml"}
    environment = {**os.environ, **installed.environment, **settings}
    ended = subprocess.run(
        ["ansible-playbook", "gpufleet.metal.plan", "-i", str(inventory)],
        cwd=inventory.parent,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    output = ended.stdout + ended.stderr
    assert ended.returncode == 2, output
    assert "TASK [Plan the fleet]" in output
    assert "PLAY [Look at every host]" not in output, "no host is asked for anything"
    # Ansible wraps long lines of its output; the words are what counts.
    return " ".join(output.split())


@pytest.mark.parametrize(("change", "words"), CASES, ids=[change.__name__ for change, _words in CASES])
def test_wrong_variables_stop_the_run(installed: Installed, tmp_path: Path, change: Change, words: list[str]) -> None:
    inventory = installed.inventory("single_rack", tmp_path / "inventory")
    folder = inventory / "group_vars" / "all"
    variables: dict[str, Any] = {}
    for file in sorted(folder.iterdir()):
        variables.update(yaml.safe_load(file.read_text(encoding="utf-8")))
        file.unlink()
    change(variables)
    (folder / "fleet.json").write_text(json.dumps(variables), encoding="utf-8")
    output = plan(installed, inventory)
    assert [word for word in words if word not in output] == [], output


def test_an_inventory_without_gateways_is_refused(installed: Installed, tmp_path: Path) -> None:
    inventory = installed.inventory("single_rack", tmp_path / "inventory")
    hosts = yaml.safe_load((inventory / "hosts.yml").read_text(encoding="utf-8"))
    del hosts["all"]["children"]["gateways"]
    (inventory / "hosts.yml").write_text(yaml.safe_dump(hosts), encoding="utf-8")
    assert "gateways" in plan(installed, inventory)


def test_an_unknown_device_is_reported_with_its_raw_id(installed: Installed, tmp_path: Path) -> None:
    inventory = installed.inventory("single_rack", tmp_path / "inventory")
    record = sorted(inventory.glob("host_vars/*/gpu_inventory.yml"))[0]
    document = yaml.safe_load(record.read_text(encoding="utf-8"))
    document["gpu_inventory"]["gpus"][0].update(device_id="F00D", product=None)
    record.write_text(yaml.safe_dump(document), encoding="utf-8")
    assert "F00D" in plan(installed, inventory)
