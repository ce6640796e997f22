# SPDX-License-Identifier: Apache-2.0
"""The published schema is a schema, describes every plan, and refuses what is no plan."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from jsonschema import Draft202012Validator

from ansible_collections.gpufleet.metal.plugins.module_utils._plan.builder import build_plan
from ansible_collections.gpufleet.metal.plugins.module_utils._plan.document import PLAN_SCHEMA
from ansible_collections.gpufleet.metal.plugins.module_utils._plan.schema import Inventory
from ansible_collections.gpufleet.metal.tests.unit.plugins.module_utils._plan.fleets import (
    gpus,
    hosts,
    llama,
    model,
    plan,
)
from ansible_collections.gpufleet.metal.tests.unit.plugins.module_utils._plan.test_plan_properties import FLEETS

VALIDATOR = Draft202012Validator(PLAN_SCHEMA)


def test_it_is_published() -> None:
    """docs/plan.schema.json is what the code says, and a schema."""
    path = Path(__file__).parents[5] / "docs" / "plan.schema.json"
    assert json.loads(path.read_text(encoding="utf-8")) == PLAN_SCHEMA
    Draft202012Validator.check_schema(PLAN_SCHEMA)


def objects(schema: Any, path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Return every object with named keys of a schema."""
    if isinstance(schema, dict):
        if "properties" in schema:
            yield path, schema
        for key, value in schema.items():
            yield from objects(value, f"{path}/{key}")
    elif isinstance(schema, list):
        for number, value in enumerate(schema):
            yield from objects(value, f"{path}/{number}")


def test_nothing_is_left_open() -> None:
    """No object takes a key that is not described."""
    assert [path for path, schema in objects(PLAN_SCHEMA) if schema.get("additionalProperties") is not False] == []


@settings(deadline=None, max_examples=40)
@given(FLEETS)
def test_every_plan_is_valid(fleet: Inventory) -> None:
    """Also one with findings."""
    VALIDATOR.validate(json.loads(json.dumps(build_plan(fleet))))


def extra(data: dict[str, Any]) -> None:
    """Add a key to an instance."""
    data["instances"][0]["colour"] = "red"


def negative(data: dict[str, Any]) -> None:
    """Make a number of replicas negative."""
    data["models"]["autoglm"]["replicas"] = -1


def unexplained(data: dict[str, Any]) -> None:
    """Take the reason of a flow away."""
    data["flows"][0]["why"] = ""


def partless(data: dict[str, Any]) -> None:
    """Take the instances of a host away."""
    del data["hosts"]["gpu-1"]["instances"]


def unbound(data: dict[str, Any]) -> None:
    """Bind a model by an unknown word."""
    data["models"]["llama"]["binds"] = "luck"


@pytest.mark.parametrize("change", [extra, negative, unexplained, partless, unbound])
def test_what_is_no_plan_is_refused(change: Callable[[dict[str, Any]], None]) -> None:
    """The schema is strict enough to notice a change of the plan's shape."""
    data = copy.deepcopy(plan(model(), llama(), machines=hosts(gpus(8))))
    VALIDATOR.validate(data)
    change(data)
    assert not VALIDATOR.is_valid(data)
