# SPDX-License-Identifier: Apache-2.0
"""What the plan takes a recorded GPU's memory for: a nominal size is more than a driver will report."""

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.gpufleet.metal.plugins.module_utils._gpu import catalogue
from ansible_collections.gpufleet.metal.plugins.module_utils._plan.applied import applied_plan
from ansible_collections.gpufleet.metal.plugins.module_utils._plan.changes import plan_changes
from ansible_collections.gpufleet.metal.plugins.module_utils._plan.hardware import read_hosts
from ansible_collections.gpufleet.metal.plugins.module_utils._plan.schema import Gpu
from ansible_collections.gpufleet.metal.tests.unit.plugins.module_utils._plan.fleets import (
    gpus,
    hosts,
    inventory,
    model,
    plan,
    texts,
)


def recorded(changes: dict[str, Any]) -> dict[str, Any]:
    """Return the record of one GPU with changes."""
    record = gpus(1)
    record["gpus"][0].update(changes)
    return record


def read(**changes: Any) -> Gpu:
    """Return the GPU that the plan reads from a record."""
    findings: list[Any] = []
    fleet = inventory(machines=hosts(recorded(changes)))
    gpu_node = next(host for host in read_hosts(fleet, "test", "cuda", findings) if host.group == "gpu_nodes")
    assert findings == []
    return gpu_node.gpus[0]


def before_a_driver(product: catalogue.Product, **changes: Any) -> dict[str, Any]:
    """Return what discover records of a product that no driver has named."""
    return {
        "device_id": product.device_id,
        "subsystem_id": f"10DE:{product.subsystem_ids[0]}" if product.subsystem_ids else None,
        "product": product.name,
        "uuid": None,
        "memory_mib": product.memory_mib,
        "memory_source": "catalogue",
        "compute_capability": product.compute_capability,
        **changes,
    }


KNOWN = [product for product in catalogue.PRODUCTS if product.memory_mib is not None]


@pytest.mark.parametrize("product", KNOWN, ids=lambda product: product.name)
def test_a_nominal_size_is_taken_for_what_a_driver_reports(product: catalogue.Product) -> None:
    assert product.memory_mib is not None
    planned = read(**before_a_driver(product)).memory_mib
    assert planned == product.expected_mib
    if product.reported_mib is None:
        assert planned == int(product.memory_mib * 0.93)
    else:
        # With the driver it is the very same kind of GPU, so that nothing is planned anew.
        after = before_a_driver(product, memory_mib=product.reported_mib, memory_source="nvml", uuid="GPU-1")
        assert read(**after).kind == read(**before_a_driver(product)).kind


def test_no_known_product_reports_less_than_the_share() -> None:
    shares = {p.name: p.reported_mib / p.memory_mib for p in KNOWN if p.reported_mib and p.memory_mib}
    assert min(shares.items(), key=lambda item: item[1])[0] == "B300 SXM6 AC"
    assert 0.93 < min(shares.values()) <= max(shares.values()) <= 1


T4 = {"device_id": "1EB8", "product": "T4", "compute_capability": "7.5", "nvlink_peers": []}


@pytest.mark.parametrize(
    ("record", "memory"),
    [
        ({**T4, "memory_mib": 16384, "memory_source": "catalogue"}, 15360),
        ({**T4, "memory_mib": 15109, "memory_source": "nvml", "uuid": "GPU-1"}, 15109),
        ({**T4, "memory_mib": 16384, "memory_source": "nvidia-smi", "uuid": "GPU-1"}, 16384),
        ({**T4, "memory_mib": 16384}, 15360),
        ({**T4, "memory_mib": 16384, "uuid": "GPU-1"}, 16384),
        ({**T4, "memory_mib": 15360}, 15360),
        ({"device_id": "FFFE", "product": "X", "memory_mib": 10000, "memory_source": "catalogue"}, 9300),
        ({"device_id": "FFFE", "product": "X", "memory_mib": 10000, "memory_source": "nvml"}, 10000),
        # The catalogue of a later version has another nominal size than the one that was recorded.
        ({**T4, "memory_mib": 10000, "memory_source": "catalogue"}, 9300),
    ],
    ids=[
        "nominal",
        "told by NVML",
        "told by nvidia-smi",
        "an old record before a driver",
        "an old record with a driver",
        "an old record of another size",
        "a product that left the catalogue",
        "a product that only its driver knows",
        "a size that the catalogue no longer has",
    ],
)
def test_the_source_decides(record: dict[str, Any], memory: int) -> None:
    assert read(**record).memory_mib == memory


def test_a_model_that_is_accepted_before_the_driver_still_fits_with_it() -> None:
    """A B300 counts as 275040 MiB and not as 288 GiB, so weights for 250 GiB are refused in time."""
    b300 = next(product for product in catalogue.PRODUCTS if product.name == "B300 SXM6 AC")
    entry = model(weights_bytes=250 * 1024**3, concurrency=1, tensor_parallel_size=1, replicas=1)
    for record in (before_a_driver(b300), before_a_driver(b300, memory_mib=275040, memory_source="nvml", uuid="GPU-1")):
        (finding,) = texts(plan(entry, machines=hosts(recorded(record))))
        assert finding[2] == "does_not_fit"
        assert finding[4] == "at most 247.1 GiB per GPU: gpu_memory_utilization 0.92 of the 268.6 GiB of B300 SXM6 AC"


def test_a_driver_that_names_the_cards_restarts_their_engines_and_says_why() -> None:
    """Before a driver containers get GPUs by index, with it by UUID: the record made again is another name."""
    entry = model(tensor_parallel_size=2, replicas=1)
    before = plan(entry, machines=hosts(gpus(2, memory_mib=81920, memory_source="catalogue")))
    record = gpus(2, memory_mib=81559, memory_source="nvml")
    for number, gpu in enumerate(record["gpus"]):
        gpu["uuid"] = f"GPU-{number}"
    after = plan(entry, machines=hosts(record))
    assert [gpu["cdi_device"] for gpu in before["instances"][0]["gpus"]] == ["nvidia.com/gpu=0", "nvidia.com/gpu=1"]
    assert [gpu["cdi_device"] for gpu in after["instances"][0]["gpus"]] == [
        "nvidia.com/gpu=GPU-0",
        "nvidia.com/gpu=GPU-1",
    ]
    (change,) = plan_changes(after, applied_plan(before, None, ["gpu-1"])).changes
    assert (change.change, change.why) == ("restarted", "its GPUs are now known by UUID")
    for gpu in record["gpus"]:
        gpu["uuid"] = f"{gpu['uuid']}-other"
    (change,) = plan_changes(plan(entry, machines=hosts(record)), applied_plan(after, None, ["gpu-1"])).changes
    assert (change.change, change.why) == ("restarted", "another name of its GPUs")
