# SPDX-License-Identifier: Apache-2.0
"""GPUs that are split by MIG on purpose are left to others; what is split without a word is a finding."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.gpufleet.metal.plugins.module_utils._plan.picture import plan_as_svg
from ansible_collections.gpufleet.metal.plugins.module_utils._plan.table import plan_as_table
from ansible_collections.gpufleet.metal.tests.unit.plugins.module_utils._plan.fleets import (
    gpus,
    hosts,
    plan,
    texts,
    tiny,
)

PROFILES = ["3g.40gb", "3g.40gb"]
ADDRESSES = [f"0000:{number}0:00.0" for number in range(1, 5)]
RECORD = "run ansible-playbook gpufleet.metal.discover --limit gpu-1 and commit host_vars/gpu-1/gpu_inventory.yml"


def fleet(layout: Any, split: tuple[int, ...] = (), product: str = "H100 SXM5 80GB", **record: Any) -> dict[str, Any]:
    """Return one host with four GPUs, of which some are recorded as split, and its layout."""
    recorded = gpus(4, product, **record)
    for index in split:
        recorded["gpus"][index]["mig_enabled"] = True
    machines = hosts(recorded)
    if layout is not None:
        machines["gpu-1"]["nvidia_driver_mig"] = layout
    return machines


def used(result: dict[str, Any]) -> list[int]:
    """Return the indices of the GPUs that instances are put on."""
    return sorted(gpu["index"] for instance in result["instances"] for gpu in instance["gpus"])


@pytest.mark.parametrize(
    ("layout", "split", "taken", "mig"),
    [
        (None, (), [0, 1, 2, 3], [None] * 4),
        ([], (), [0, 1, 2, 3], [None] * 4),
        ([{"gpu": "1", "profiles": PROFILES}], (1,), [0, 2, 3], [None, "split", None, None]),
        ([{"gpu": 1, "profiles": PROFILES}], (1,), [0, 2, 3], [None, "split", None, None]),
        ([{"gpu": ADDRESSES[3].upper(), "profiles": PROFILES}], (3,), [0, 1, 2], [None, None, None, "split"]),
        ([{"gpu": "gpu-AB", "profiles": PROFILES}], (0, 1, 2, 3), [], ["split"] * 4),
        ([{"gpu": "1", "profiles": PROFILES}], (), [0, 2, 3], [None, "split", None, None]),
        ([{"gpu": "all", "profiles": PROFILES}], (0,), [], ["split"] * 4),
        ([{"gpu": "all", "profiles": []}], (), [0, 1, 2, 3], [None] * 4),
        ([{"gpu": "all", "profiles": []}], (2,), [0, 1, 3], [None, None, "whole", None]),
        (
            [{"gpu": "all", "profiles": []}, {"gpu": "0", "profiles": PROFILES}],
            (0,),
            [1, 2, 3],
            ["split", None, None, None],
        ),
        (
            [{"gpu": "0", "profiles": PROFILES}, {"gpu": "all", "profiles": []}],
            (),
            [0, 1, 2, 3],
            [None] * 4,
        ),
    ],
    ids=[
        "no layout",
        "an empty one",
        "by index, recorded",
        "by a number",
        "by address",
        "by UUID",
        "not recorded yet",
        "all",
        "all are whole",
        "to be whole again",
        "a later entry wins",
        "a later entry for all wins",
    ],
)
def test_what_is_split_on_purpose_is_not_used(
    layout: Any, split: tuple[int, ...], taken: list[int], mig: list[str | None]
) -> None:
    result = plan(tiny(), machines=fleet(layout, split, uuid="GPU-ab"))
    assert [finding for finding in texts(result) if finding[2] != "not_enough_gpus"] == []
    assert used(result) == taken
    assert [gpu["mig"] for gpu in result["hosts"]["gpu-1"]["expected_gpus"]] == mig
    # The driver's stage splits what is not split yet.
    assert [gpu["split"] for gpu in result["hosts"]["gpu-1"]["expected_gpus"]] == [False] * 4
    assert result["hosts"]["gpu-1"]["driver"]["expected_gpus"] == 4


def test_a_driver_that_somebody_else_carries_has_to_be_found_split() -> None:
    machines = fleet([{"gpu": "1", "profiles": PROFILES}], (1,))
    result = plan(tiny(), machines=machines, fleet_driver={"repository": "unmanaged"})
    assert texts(result) == []
    assert [gpu["split"] for gpu in result["hosts"]["gpu-1"]["expected_gpus"]] == [False, True, False, False]


def test_the_table_says_what_is_left_to_mig() -> None:
    result = plan(tiny(replicas=1), machines=fleet([{"gpu": "1", "profiles": PROFILES}], (1,)))
    table = plan_as_table(result)
    assert "Fleet test: 1 GPU node with 4 GPUs (1 in use, 2 free), " in table
    assert "Free GPUs: gpu-1 2-3\nLeft to MIG (nvidia_driver_mig): gpu-1 1\n" in table


def test_the_picture_says_what_is_left_to_mig() -> None:
    layout = [{"gpu": "1", "profiles": PROFILES}]
    picture = plan_as_svg(plan(tiny(replicas=1), machines=fleet(layout, (1,))))
    assert (picture.count(">MIG<"), picture.count(">free GPU, or left to MIG<")) == (1, 1)
    picture = plan_as_svg(plan(tiny(replicas=1), machines=fleet(None)))
    assert (picture.count("MIG"), picture.count(">free GPU<")) == (0, 1)


def test_a_group_of_gpus_keeps_clear_of_a_split_one() -> None:
    result = plan(tiny(tensor_parallel_size=2), machines=fleet([{"gpu": "1", "profiles": PROFILES}], (1,)))
    assert texts(result) == []
    assert len(result["instances"]) == 1
    assert 1 not in used(result)


KNOWN = f"all, an index from 0 to 3, a recorded UUID, or one of {', '.join(ADDRESSES)}"


@pytest.mark.parametrize(
    ("layout", "product", "found", "wanted"),
    [
        ("1", None, 'nvidia_driver_mig is "1"', "a list of layouts, each with gpu and profiles"),
        (["1"], None, 'nvidia_driver_mig[0] is "1"', "gpu, and profiles as a list"),
        ([{"gpu": "0"}], None, "nvidia_driver_mig[0] is a mapping with 1 keys", "gpu, and profiles as a list"),
        (
            [{"gpu": "0", "profiles": ["3g"]}],
            None,
            'nvidia_driver_mig[0] has the profile "3g"',
            "profiles such as 3g.40gb",
        ),
        ([{"gpu": "7", "profiles": PROFILES}], None, 'nvidia_driver_mig[0] names the GPU "7"', KNOWN),
        ([{"gpu": "GPU-ab", "profiles": []}], None, 'nvidia_driver_mig[0] names the GPU "GPU-ab"', KNOWN),
        (
            [{"gpu": "0", "profiles": PROFILES}],
            "L4",
            "nvidia_driver_mig[0] splits 0000:10:00.0 (L4)",
            "GPUs of a product that has MIG",
        ),
    ],
    ids=["no list", "no mapping", "no profiles", "an odd profile", "no such index", "a UUID not recorded", "no MIG"],
)
def test_a_layout_that_is_wrong(layout: Any, product: str | None, found: str, wanted: str) -> None:
    result = plan(tiny(), machines=fleet(layout, product=product or "H100 SXM5 80GB"))
    assert texts(result) == [
        ("host", "gpu-1", "mig_layout_invalid", found, wanted, "correct nvidia_driver_mig of gpu-1")
    ]


def test_what_is_split_without_a_word_is_a_finding() -> None:
    result = plan(tiny(), machines=fleet([{"gpu": "1", "profiles": PROFILES}], (0, 1)))
    assert texts(result) == [
        (
            "host",
            "gpu-1",
            "mig_enabled",
            "0000:10:00.0 (H100 SXM5 80GB) is split by MIG",
            "whole GPUs",
            "if it is meant to be split, name it in nvidia_driver_mig of gpu-1; else run nvidia-smi --id 0000:10:00.0 "
            f"--multi-instance-gpu 0 there, then {RECORD}",
        )
    ]


layouts = st.lists(
    st.fixed_dictionaries(
        {
            "gpu": st.sampled_from(["all", "0", "1", "2", "3", 2, *ADDRESSES, "GPU-x", "9"]),
            "profiles": st.sampled_from([[], PROFILES, ["1g.10gb"] * 7, ["?"]]),
        }
    ),
    max_size=4,
)


@given(layouts, st.sets(st.integers(0, 3)), st.sampled_from([1, 2]))
def test_no_instance_is_ever_put_on_a_gpu_that_is_or_shall_be_split(
    layout: list[dict[str, Any]], split: set[int], size: int
) -> None:
    machines = fleet(layout, tuple(split))
    result = plan(tiny(tensor_parallel_size=size), machines=machines)
    invalid = {finding["code"] for finding in result["findings"]} & {"mig_layout_invalid", "mig_enabled"}
    wanted: dict[int, bool] = {}
    for entry in layout:
        for index, address in enumerate(ADDRESSES):
            if str(entry["gpu"]) in ("all", str(index), address) and entry["profiles"] != ["?"]:
                wanted[index] = bool(entry["profiles"])
    apart = split | {index for index, cut in wanted.items() if cut}
    assert not apart & set(used(result))
    assert bool(invalid) == (
        any(entry["gpu"] in ("GPU-x", "9") or entry["profiles"] == ["?"] for entry in layout)
        or bool(split - set(wanted))
    )
