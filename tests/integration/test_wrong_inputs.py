# SPDX-License-Identifier: Apache-2.0
"""A wrong input stops site.yml with its message word for word, before the first change on any host.

Each case is one run of site.yml on a small fleet: its hosts are this machine, their GPUs are simulated. What needs real
hosts is in Molecule: preflight (a card that is gone, a distribution, a host that is down) and default (a mistyped key).
"""

from __future__ import annotations

import copy
import os
import re
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml
from artefact import Installed
from degraded_fleet import ADDRESSES, FACTS_PLAYBOOK, FLEET, gpu, host, play, record, simulate

pytestmark = pytest.mark.skipif(shutil.which(os.environ.get("CC", "cc")) is None, reason="no C compiler")


def fleet() -> dict[str, Any]:
    """Return the variables of a fleet that is right: one model, an instance on each of two hosts."""
    variables = copy.deepcopy(FLEET)
    variables["fleet_models"][0]["replicas"] = 2
    return variables


@dataclass
class Inputs:
    """What an operator says, and what the hosts are."""

    variables: dict[str, Any] = field(default_factory=fleet)
    records: dict[str, Any] = field(default_factory=lambda: {name: record("H100") for name in ("gpu-1", "gpu-2")})
    hosts: dict[str, Any] = field(default_factory=lambda: {name: host() for name in ("gpu-1", "gpu-2")})
    gateways: list[str] = field(default_factory=lambda: ["gw-1"])
    #: Facts of gpu-2 that are unlike those of the others.
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def model(self) -> dict[str, Any]:
        """The only model."""
        entry: dict[str, Any] = self.variables["fleet_models"][0]
        return entry

    def write(self, place: Path) -> Path:
        """Write inventory, simulated GPUs and facts; returns the inventory's directory."""
        simulated = simulate(place, self.hosts)
        nodes = {
            name: {"fleet_address": f"192.0.2.{number}", "gpu_inventory": self.records[name], **simulated[name]}
            for number, name in enumerate(self.hosts, 1)
        }
        gateways = {name: {"fleet_address": f"192.0.2.{number}"} for number, name in enumerate(self.gateways, 200)}
        everybody = {
            "ansible_connection": "local",
            "ansible_python_interpreter": sys.executable,
            **self.variables,
        }
        groups = {"gpu_nodes": {"hosts": nodes}, "gateways": {"hosts": gateways}}
        inventory = place / "inventory"
        inventory.mkdir()
        document = {"all": {"vars": everybody, "children": groups}}
        (inventory / "hosts.yml").write_text(yaml.safe_dump(document), encoding="utf-8")
        playbook = copy.deepcopy(FACTS_PLAYBOOK)
        if self.facts:
            task = {"name": "Make one of them different", "ansible.builtin.set_fact": {**self.facts, "cacheable": True}}
            playbook.append({"name": "Change a host", "hosts": "gpu-2", "gather_facts": False, "tasks": [task]})
        (place / "facts.yml").write_text(yaml.safe_dump(playbook), encoding="utf-8")
        return inventory


def too_large(inputs: Inputs) -> None:
    """Ask one model for more KV cache than a GPU has."""
    inputs.model["concurrency"] = 1000000


def odd_tensor_parallel(inputs: Inputs) -> None:
    """Ask for a tensor-parallel size that does not divide the attention heads."""
    inputs.model["tensor_parallel_size"] = 3


def unknown_device(inputs: Inputs) -> None:
    """Put a card into a host that no catalogue knows and no driver describes."""
    inputs.hosts["gpu-2"]["gpus"].append(gpu("H100", "0000:60:00.0", device_id="F00D", in_driver=False))
    inputs.hosts["gpu-2"]["driver_version"] = None
    inputs.records["gpu-2"]["gpus"].append(
        {"pci_address": "0000:60:00.0", "device_id": "F00D", "subsystem_id": "10DE:16C1", "product": None}
    )


def one_gpu_fewer(inputs: Inputs) -> None:
    """Take a recorded card out of a host."""
    inputs.hosts["gpu-2"]["gpus"] = [gpu("H100", ADDRESSES[0], nvlink_peers=[])]


def two_models_on_one_gpu(inputs: Inputs) -> None:
    """Leave a single GPU to two models that each want one."""
    for things in (inputs.hosts, inputs.records):
        del things["gpu-2"]
        things["gpu-1"]["gpus"] = things["gpu-1"]["gpus"][:1]
    inputs.hosts["gpu-1"]["gpus"][0]["nvlink_peers"] = inputs.records["gpu-1"]["gpus"][0]["nvlink_peers"] = []
    inputs.model.update(tensor_parallel_size=1, replicas=1)
    inputs.variables["fleet_models"].append({**inputs.model, "name": "other"})
    inputs.variables["fleet_endpoint"]["default_model"] = "small"


def no_gateways(inputs: Inputs) -> None:
    """Leave out who serves the endpoint."""
    inputs.gateways.clear()


def unsupported_distribution(inputs: Inputs) -> None:
    """Run what nobody has tested."""
    inputs.facts.update(distribution="Fedora", distribution_version="43", distribution_major_version="43")


def mistyped_key(inputs: Inputs) -> None:
    """Mistype a key inside a documented option."""
    inputs.model["context_lenght"] = inputs.model.pop("context_length")


def mistyped_variable(inputs: Inputs) -> None:
    """Mistype the name of a variable."""
    inputs.variables["fleet_modles"] = inputs.variables["fleet_models"]


def without_management(inputs: Inputs) -> None:
    """Say nothing about who may ssh."""
    del inputs.variables["fleet_management_networks"]


CASES: list[Callable[[Inputs], None]] = [
    too_large,
    odd_tensor_parallel,
    unknown_device,
    one_gpu_fewer,
    two_models_on_one_gpu,
    no_gateways,
    unsupported_distribution,
    mistyped_key,
    mistyped_variable,
    without_management,
]
#: What the run says in each case, word for word: <case>.txt, after a line about the licence.
REFUSALS = Path(__file__).parent / "refusals"


def report(output: str) -> str:
    """The message of the only task that failed."""
    (block,) = re.findall(r"^fatal: \[[^]]+\]: FAILED! => *\n((?:    .*\n|\n)+)", output, re.MULTILINE)
    message: str = yaml.safe_load(textwrap.dedent(block))["msg"]
    return message.rstrip()


def changes(output: str) -> list[str]:
    """The tasks that changed something."""
    tasks = re.split(r"^TASK \[(.*?)\].*$", output, flags=re.MULTILINE)[1:]
    names = [
        name for name, said in zip(tasks[::2], tasks[1::2], strict=True) if re.search(r"^changed:", said, re.MULTILINE)
    ]
    assert sum(map(int, re.findall(r"changed=(\d+)", output))) == len(names), output
    return names


@pytest.mark.parametrize("change", CASES, ids=lambda change: change.__name__)
def test_a_wrong_input_stops_the_run_before_any_change(
    installed: Installed, tmp_path: Path, change: Callable[[Inputs], None]
) -> None:
    inputs = Inputs()
    change(inputs)
    status, output = play(installed, inputs.write(tmp_path), "gpufleet.metal.site")
    assert status == 2, output
    promised = (REFUSALS / f"{change.__name__}.txt").read_text(encoding="utf-8").partition("\n")[2]
    assert report(output) == promised.strip()
    # A plan without findings of its own is written beside the inventory. Nothing else is changed, nothing on a host.
    assert set(changes(output)) <= {"Plan the fleet and show it"}, output
    assert {path.name for path in (tmp_path / "inventory").iterdir()} <= {"hosts.yml", ".gpufleet"}
    plays = re.findall(r"^PLAY \[(.*?)\]", output, re.MULTILINE)
    assert plays[-1] == "Stop before the first change if the fleet is not what the plan takes it for", plays
    assert not [name for name in plays if name.startswith("Harden")]


def test_the_fleet_of_these_tests_is_right_without_a_change(installed: Installed, tmp_path: Path) -> None:
    """Else each case would only find what is wrong anyway."""
    status, output = play(installed, Inputs().write(tmp_path), "gpufleet.metal.preflight")
    assert status == 0, output
    assert "3 hosts are what the plan takes them for" in output


def test_the_plan_alone_stops_with_the_same_words_and_asks_no_host(installed: Installed, tmp_path: Path) -> None:
    """The example's hosts do not exist: whoever asked them for anything would wait for an answer."""
    inventory = installed.inventory("single_rack", tmp_path / "inventory")
    (inventory / "group_vars" / "all" / "typo.yml").write_text("fleet_engin: {}\n", encoding="utf-8")
    ended = subprocess.run(
        ["ansible-playbook", "gpufleet.metal.plan", "-i", str(inventory)],
        cwd=inventory.parent,
        env={
            **os.environ,
            **installed.environment,
            "ANSIBLE_NOCOLOR": "1",
            "ANSIBLE_CALLBACK_RESULT_FORMAT": "yaml",
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 2, ended.stdout
    assert "The plan has 1 finding; nothing was changed on any host." in report(ended.stdout)
    assert "fleet_engin (seen by gpu-1, gpu-2, gpu-3 and 2 more)" in report(ended.stdout)
    assert re.findall(r"^(?:PLAY|TASK) \[(.*?)\]", ended.stdout, re.MULTILINE) == [
        "Decide where every model runs",
        "Plan the fleet and show it",
    ]
