# SPDX-License-Identifier: Apache-2.0
"""What the vllm role makes of what it found, and the devices that it asks for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar

ROLE = Path(__file__).parents[3] / "roles" / "vllm"
ID = "sha256:" + "1" * 64


def rendered(expression: str, **variables: Any) -> Any:
    """One of the role's variables, or one of those of its comparison."""
    loader = DataLoader()
    known: dict[str, Any] = {}
    for name in ("defaults/main", "vars/main"):
        known.update(loader.load_from_file(str(ROLE / f"{name}.yml"), trusted_as_template=True))
    compare = loader.load_from_file(str(ROLE / "tasks/service.yml"), trusted_as_template=True)[0]
    known.update(compare["vars"])
    known.update(variables)
    return Templar(loader=loader, variables=known).template(known[expression])


def compared(*names: str, **actions: list[dict[str, Any]]) -> dict[str, Any]:
    """What the comparison of these instances registers, where each finds nothing to do unless it is told."""
    return {"results": [{"__vllm_instance": {"name": name}, "actions": actions.get(name, [])} for name in names]}


def test_what_is_the_same_under_docker_is_no_part_of_what_a_container_is_made_of() -> None:
    """A plan that names it gives the same digest as one of before, so that no engine is replaced for it."""
    before = {"name": "a", "model": "m", "port": 8000, "arguments": ["x"], "gpus": []}
    named = {**before, "backend": "docker", "pipeline_parallel_size": 1, "workers": []}
    assert rendered("__specified", __vllm_instance=named) == before
    assert rendered("__specified", __vllm_instance=before) == before


def test_the_role_takes_every_key_of_an_instance_that_the_plan_has() -> None:
    """Or it refuses all of them, on every host."""
    specification = DataLoader().load_from_file(str(ROLE / "meta" / "argument_specs.yml"))
    options = specification["argument_specs"]["main"]["options"]["vllm_instances"]["options"]
    schema = json.loads((ROLE.parents[1] / "docs" / "plan.schema.json").read_text(encoding="utf-8"))
    planned = schema["$defs"]["gpu_node"]["properties"]["instances"]["items"]["properties"]
    assert set(planned) <= set(options)
    workers = planned["workers"]["items"]["properties"]
    assert set(workers) == set(options["workers"]["options"])


def test_the_defaults_of_tls_are_the_ones_that_the_specification_states() -> None:
    specification = DataLoader().load_from_file(str(ROLE / "meta" / "argument_specs.yml"))
    options = specification["argument_specs"]["main"]["options"]["vllm_tls"]["options"]
    assert rendered("__vllm_tls") == {name: option["default"] for name, option in options.items()}


def test_what_a_container_is_made_of_names_tls_only_where_there_is_some() -> None:
    """Or an engine that runs would be another one for a role that learnt of TLS."""
    plain, mutual = rendered("__vllm_common"), rendered("__vllm_common", vllm_tls={"mode": "mutual"})
    assert mutual == {**plain, "tls": "/etc/gpufleet/engine"}
    assert "tls" not in plain
    assert rendered("__vllm_tls_volumes") == []
    assert rendered("__vllm_tls_volumes", vllm_tls={"mode": "mutual"}) == ["/etc/gpufleet/engine:/tls:ro"]


def test_devices_compare_with_what_the_engine_reports() -> None:
    """community.docker compares each key with the answer of ``docker inspect``, where null is not 0."""
    instance = {"name": "a", "gpus": [{"cdi_device": "nvidia.com/gpu=0"}, {"cdi_device": "nvidia.com/gpu=GPU-1"}]}
    assert rendered("__cdi", __vllm_instance=instance) == {
        "driver": "cdi",
        "count": 0,
        "device_ids": ["nvidia.com/gpu=0", "nvidia.com/gpu=GPU-1"],
    }


@pytest.mark.parametrize(
    ("state", "planned", "different", "replaced", "strangers", "image"),
    [
        # On a pristine host, in check mode.
        ({"image_id": None, "containers": {}}, {"skipped": True}, ["a", "b"], [], [], ""),
        # All containers are of another image than the one that is missing.
        (
            {"image_id": None, "containers": {"b": "vllm-b", "x": "vllm-x"}},
            {"skipped": True},
            ["a", "b"],
            ["b"],
            ["x"],
            "",
        ),
        ({"image_id": ID, "containers": {"a": "vllm-a", "b": "vllm-b"}}, compared("a", "b"), [], [], [], ID),
        (
            {"image_id": ID, "containers": {"a": "vllm-a"}},
            compared("a", "b", a=[{"stopped": "1"}, {"removed": "1"}, {"created": "c"}], b=[{"created": "c"}]),
            ["a", "b"],
            ["a"],
            [],
            ID,
        ),
        # A container that was stopped is started, and nothing is lost.
        (
            {"image_id": ID, "containers": {"a": "vllm-a", "b": "vllm-b"}},
            compared("a", "b", a=[{"started": "1"}]),
            ["a"],
            [],
            [],
            ID,
        ),
    ],
)
def test_what_differs(
    state: dict[str, Any],
    planned: dict[str, Any],
    different: list[str],
    replaced: list[str],
    strangers: list[str],
    image: str,
) -> None:
    found = {
        "vllm_instances": [{"name": "a"}, {"name": "b"}],
        "__vllm_image_state": state,
        "__vllm_planned": planned,
        "__vllm_image_brought": {"skipped": True},
    }
    names = ("__vllm_different", "__vllm_replaced", "__vllm_strangers", "__vllm_image_id")
    assert [rendered(name, **found) for name in names] == [different, replaced, strangers, image]


def test_the_image_that_was_brought_in_is_the_one_that_runs() -> None:
    found = {"__vllm_image_state": {"image_id": None}, "__vllm_image_brought": {"image_id": ID}}
    assert rendered("__vllm_image_id", **found) == ID


def test_stopped_engines_do_not_come_back_with_the_container_engine() -> None:
    """Docker starts what restarts ``always`` with its daemon, whoever stopped it; tests/fleet does that for real."""
    tasks = DataLoader().load_from_file(str(ROLE / "tasks/stop_containers.yml"))
    options = next(task["community.docker.docker_container"] for task in tasks if "loop" in task)
    assert (options["state"], options["restart_policy"]) == ("stopped", "no")
