# SPDX-License-Identifier: Apache-2.0
"""Whoever runs the role vllm says where engines run, or stops before hosts of a cluster; and what pods get of it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar

from ansible_collections.gpufleet.metal.plugins.module_utils._kubernetes.groups import worker_cache
from ansible_collections.gpufleet.metal.plugins.module_utils._kubernetes.settings import EngineSettings

ROOT = Path(__file__).parents[3]
PLAYBOOKS = sorted(path for path in (ROOT / "playbooks").glob("*.yml") if "gpufleet.metal.vllm" in path.read_text())
VARIABLES = "vars/engines_in_cluster.yml"
STOPS = "kubernetes is none"


def plays(text: str) -> Iterator[tuple[str, str, list[str]]]:
    """Yield name, text and variables' files of the plays that run the role vllm."""
    for play in yaml.safe_load(text):
        told = yaml.safe_dump(play, width=10000)
        if "gpufleet.metal.vllm" in told:
            yield play["name"], told, play.get("vars_files", [])


def unaware(text: str) -> list[str]:
    """Return the plays that would take engines of a cluster for Docker's, in a playbook that does not stop before."""
    return [name for name, __, files in plays(text) if VARIABLES not in files] if STOPS not in text else []


@pytest.mark.parametrize("path", PLAYBOOKS, ids=lambda path: path.name)
def test_every_playbook_knows_where_engines_run(path: Path) -> None:
    assert unaware(path.read_text(encoding="utf-8")) == []


def test_the_test_finds_one_that_does_not() -> None:
    assert len(PLAYBOOKS) >= 7
    task = "{import_role: {name: gpufleet.metal.vllm}}"
    assert unaware(f"- {{name: a, tasks: [{task}]}}") == ["a"]
    assert unaware(f"- {{name: a, vars_files: [{VARIABLES}], tasks: [{task}]}}") == []
    assert unaware("- {name: a, tasks: [{import_role: {name: gpufleet.metal.nginx}}]}") == []


@pytest.mark.parametrize("name", ["upgrade_driver.yml", "switch_engine_tls.yml"])
def test_what_cannot_be_done_in_a_cluster_stops_in_its_first_play_with_hosts(name: str) -> None:
    """Before any task that could change something: only facts are set before it."""
    first = next(play for play in yaml.safe_load((ROOT / "playbooks" / name).read_text()) if "tasks" in play)
    place = next(
        number for number, task in enumerate(first["tasks"]) if STOPS in str(task.get("ansible.builtin.assert"))
    )
    assert first["any_errors_fatal"] is True
    assert all("ansible.builtin.assert" in task for task in first["tasks"][:place])


def rendered(host: dict[str, Any], name: str, **variables: Any) -> Any:
    """One of the variables that playbooks tell the role, for a host of the plan."""
    loader = DataLoader()
    known: dict[str, Any] = {}
    for path in (ROOT / "roles" / "vllm" / "defaults" / "main.yml", ROOT / "playbooks" / VARIABLES):
        known.update(loader.load_from_file(str(path), trusted_as_template=True))
    others = {f"gpu-{number}": {"kubernetes": {"node_name": f"n-{number}"}} for number in (2, 3)}
    plan = {"hosts": {"gpu-1": host, **others}, "kubernetes": {"control_plane": ["cp-1", "cp-2"]}}
    known.update({"fleet_plan": plan, "inventory_hostname": "gpu-1", **variables})
    return Templar(loader=loader, variables=known).template(known[name])


def test_a_host_outside_the_cluster_is_dockers() -> None:
    assert rendered({"kubernetes": None}, "vllm_kubernetes") == {}
    assert rendered({"kubernetes": None}, "vllm_kubernetes_objects") == []


def test_a_node_is_asked_for_at_a_control_plane() -> None:
    host = {"kubernetes": {"node_name": "gpu-1"}, "instances": [{"workers": []}], "worker_of": []}
    assert rendered(host, "vllm_kubernetes") == {
        "node_name": "gpu-1",
        "api_host": "cp-1",
        "further_nodes": [],
        "worker_caches": [],
    }
    assert rendered(host, "vllm_kubernetes", kubernetes_answering=["cp-2"])["api_host"] == "cp-2"


def test_instances_over_several_hosts_have_pods_and_caches_elsewhere() -> None:
    workers = [{"host": "gpu-2"}, {"host": "gpu-3"}]
    part = {"host": "gpu-4", "name": "big-0"}
    host = {"kubernetes": {"node_name": "gpu-1"}, "instances": [{"workers": workers}], "worker_of": [part]}
    found = rendered(host, "vllm_kubernetes")
    assert found["further_nodes"] == ["n-2", "n-3"]
    # The set of pods claims it by that name.
    assert found["worker_caches"] == [worker_cache("big-0", "gpu-4")]


def test_pods_get_the_roles_options_and_their_defaults_are_the_same() -> None:
    host = {"kubernetes": {"node_name": "gpu-1"}}
    assert EngineSettings.from_options(rendered(host, "__engines_settings")) == EngineSettings()
    assert rendered(host, "__engines_settings", vllm_user="3000:3000")["user"] == "3000:3000"
