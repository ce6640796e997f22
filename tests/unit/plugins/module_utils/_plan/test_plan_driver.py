# SPDX-License-Identifier: Apache-2.0
"""The driver in a host's slice of the plan, and what is said about a wrong fleet_driver."""

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.gpufleet.metal.plugins.module_utils._plan.builder import build_plan
from ansible_collections.gpufleet.metal.tests.unit.plugins.module_utils._plan.fleets import (
    gpus,
    hosts,
    inventory,
    plan,
    texts,
    variables,
)

H100_580 = {
    "branch": 580,
    "version": None,
    "kernel_module": "open",
    "components": ["fabric_manager"],
    "repository": "vendor",
    "expected_gpus": 8,
    "why": "branch 580, the newest long-term branch that has settled and that every product allows; "
    "open kernel module, H100 SXM5 80GB can run it; Fabric Manager, because of NVSwitch (as the product has)",
}


def driver(override: Any = None, record: Any = None, **changes: Any) -> tuple[Any, list[tuple[str, ...]]]:
    """Return the driver of gpu-1 and the findings about drivers."""
    machines = hosts(record or gpus(8))
    if override is not None:
        machines["gpu-1"]["fleet_driver_override"] = override
    result = build_plan(inventory(variables(**changes), machines))
    return result["hosts"]["gpu-1"]["driver"], [text for text in texts(result) if "driver" in "".join(text)]


def test_the_slice_without_a_word_about_drivers() -> None:
    assert driver() == (H100_580, [])


def test_gateways_have_no_driver() -> None:
    assert "driver" not in plan()["hosts"]["gw-1"]


@pytest.mark.parametrize(
    ("fleet_driver", "override", "differs"),
    [
        ({"branch": "auto", "kernel_module": "auto", "components": "auto"}, None, {}),
        ({"branch": 595}, None, {"branch": 595}),
        ({"version": "595.91.07"}, None, {"branch": 595, "version": "595.91.07"}),
        ({"repository": "https://mirror.example.org/cuda"}, None, {"repository": "https://mirror.example.org/cuda"}),
        ({"components": []}, None, {"components": []}),
        ({"branch": 580}, {"branch": 595}, {"branch": 595}),
        # A host that names another branch does not want the fleet's version.
        ({"version": "580.173.02"}, {"branch": 595}, {"branch": 595}),
        ({"branch": 595}, {"components": []}, {"branch": 595, "components": []}),
    ],
)
def test_what_is_asked_for(fleet_driver: Any, override: Any, differs: dict[str, Any]) -> None:
    found, findings = driver(override, fleet_driver=fleet_driver)
    assert findings == []
    assert {key: value for key, value in found.items() if key != "why"} == {
        **{key: value for key, value in H100_580.items() if key != "why"},
        **differs,
    }


def test_counted_switches_win() -> None:
    assert driver(record={**gpus(8, "A100 SXM4 80GB"), "nvswitch_count": 0})[0]["components"] == []
    found = driver(record={**gpus(8, "A100 SXM4 80GB"), "nvswitch_count": 6})[0]
    assert found["components"] == ["fabric_manager"]
    assert found["why"].endswith("because of NVSwitch (6 counted)")


def test_simulated_gpus_need_no_driver() -> None:
    record = {**gpus(2), "simulated": True}
    engine = {**variables()["fleet_engine"], "accelerator": "cpu"}
    assert driver(record=record, fleet_engine=engine) == (None, [])
    found, findings = driver(record=record, fleet_engine=engine, fleet_driver={"on_simulated": True})
    assert (found["branch"], findings) == (580, [])


def test_a_driver_that_somebody_else_cares_for() -> None:
    assert driver(fleet_driver={"repository": "unmanaged"}) == (None, [])


KEYS = (
    "one of allowed_branches, branch, components, kernel_module, on_simulated, repository, version "
    "(did you mean branch?)"
)
FIX = "set fleet_driver.branch to one of these, or add 535 to fleet_driver.allowed_branches"


@pytest.mark.parametrize(
    ("fleet_driver", "override", "finding"),
    [
        (
            {"branche": 580},
            None,
            (
                "fleet",
                "test",
                "unknown_key",
                "fleet_driver.branche",
                KEYS,
                "correct or remove fleet_driver.branche",
            ),
        ),
        (
            {"branch": "newest"},
            None,
            (
                "fleet",
                "test",
                "wrong_type",
                'fleet_driver.branch is "newest"',
                "auto or a whole number, 1 or more",
                "correct fleet_driver.branch",
            ),
        ),
        (
            {"kernel_module": "opne"},
            None,
            (
                "fleet",
                "test",
                "invalid_value",
                'fleet_driver.kernel_module is "opne"',
                "one of auto, open, proprietary (did you mean open?)",
                "correct fleet_driver.kernel_module",
            ),
        ),
        (
            {"repository": "ubuntu"},
            None,
            (
                "fleet",
                "test",
                "invalid_value",
                'fleet_driver.repository is "ubuntu"',
                "one of vendor, distribution, unmanaged, or the URL of a mirror",
                "correct fleet_driver.repository",
            ),
        ),
        (
            {"version": "580"},
            None,
            (
                "fleet",
                "test",
                "invalid_value",
                'fleet_driver.version is "580"',
                'a whole driver version like "580.173.02"',
                "correct fleet_driver.version",
            ),
        ),
        (
            {"components": ["fabricmanager"]},
            None,
            (
                "fleet",
                "test",
                "invalid_value",
                'fleet_driver.components has "fabricmanager"',
                "auto or a list of fabric_manager, imex, nvlsm (did you mean fabric_manager?)",
                "correct fleet_driver.components",
            ),
        ),
        (
            {"components": "fabric_manager"},
            None,
            (
                "fleet",
                "test",
                "wrong_type",
                'fleet_driver.components is "fabric_manager"',
                "auto or a list of fabric_manager, imex, nvlsm",
                "correct fleet_driver.components",
            ),
        ),
        (
            {"allowed_branches": 535},
            None,
            (
                "fleet",
                "test",
                "wrong_type",
                "fleet_driver.allowed_branches is 535",
                "a list of branches, such as [535]",
                "correct fleet_driver.allowed_branches",
            ),
        ),
        (
            580,
            None,
            (
                "fleet",
                "test",
                "wrong_type",
                "fleet_driver is 580",
                "a mapping",
                "write fleet_driver as a mapping of options",
            ),
        ),
        (
            {"on_simulated": "yes"},
            None,
            (
                "fleet",
                "test",
                "wrong_type",
                'fleet_driver.on_simulated is "yes"',
                "true or false",
                "correct fleet_driver.on_simulated",
            ),
        ),
        (
            {"branch": 535},
            None,
            (
                "host",
                "gpu-1",
                "driver_branch_unsupported",
                "branch 535: NVIDIA's support for it ended in 2026-06",
                "auto or one of 580 (lts), 595 (production), 615 (feature), 620 (lts)",
                FIX,
            ),
        ),
        (
            {},
            {"brunch": 595},
            (
                "host",
                "gpu-1",
                "unknown_key",
                "fleet_driver_override.brunch",
                KEYS,
                "correct or remove fleet_driver_override.brunch",
            ),
        ),
    ],
)
def test_what_is_wrong(fleet_driver: Any, override: Any, finding: tuple[str, ...]) -> None:
    assert driver(override, fleet_driver=fleet_driver) == (None, [finding])


def test_an_ended_branch_that_is_allowed_by_name() -> None:
    found, findings = driver(fleet_driver={"branch": 535, "allowed_branches": [535]})
    assert (found["branch"], findings) == (535, [])


def test_a_host_with_products_that_no_driver_serves() -> None:
    record = gpus(2)
    record["gpus"][1].update(device_id="1DB5", product="V100 SXM2 32GB")
    found, findings = driver(record=record, fleet_driver={"branch": 620})
    assert found is None
    assert [text[2] for text in findings] == ["driver_branch_unfit"]


def test_a_mistyped_variable_is_found() -> None:
    values = variables(fleet_drivers={"branch": 580})
    findings = [text for text in texts(build_plan(inventory(values))) if text[2] == "unknown_variable"]
    assert "did you mean fleet_driver?" in findings[0][4]
