# SPDX-License-Identifier: Apache-2.0
"""The recorded hardware is YAML that says the same as the facts, and the same bytes for the same facts."""

from __future__ import annotations

from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.gpufleet.metal.plugins.module_utils._errors import InvalidInputError
from ansible_collections.gpufleet.metal.plugins.module_utils._gpu.observe import observe
from ansible_collections.gpufleet.metal.plugins.module_utils._gpu.reading import PciGpu, PciReading
from ansible_collections.gpufleet.metal.plugins.module_utils._gpu.record import document, record

FACTS = observe(
    PciReading(
        gpus=(
            PciGpu(pci_address="0000:17:00.0", device_id="2330", subsystem_id="10DE:16C1", numa_node=0),
            PciGpu(pci_address="0000:3d:00.0", device_id="FFFE"),
        ),
        simulated=True,
    )
)
TEXT = """\
---
# The GPUs of gpu-1, recorded by the playbook gpufleet.metal.discover.
# The plan is made from this file: commit it. Run discover again after a change of hardware or driver.
# null: not known.
# These GPUs are SIMULATED: there is no such hardware in this host.
gpu_inventory:
  simulated: true
  driver_version: null
  cuda_version: null
  nvswitch_count: 0
  gpus:
    - pci_address: "0000:17:00.0"
      device_id: "2330"
      subsystem_id: "10DE:16C1"
      product: "H100 SXM5 80GB"
      uuid: null  # known once a driver runs
      memory_mib: 81920  # nominal, no driver has confirmed it
      memory_source: "catalogue"
      compute_capability: "9.0"
      numa_node: 0
      mig_enabled: null
      nvlink_peers: null
    - pci_address: "0000:3d:00.0"
      device_id: "FFFE"
      subsystem_id: null
      product: null  # unknown device: this id is in no catalogue of products
      uuid: null  # known once a driver runs
      memory_mib: null
      memory_source: null
      compute_capability: null
      numa_node: null
      mig_enabled: null
      nvlink_peers: null
"""


def test_the_file() -> None:
    assert document(FACTS, "gpu-1") == TEXT
    assert yaml.safe_load(TEXT) == {"gpu_inventory": record(FACTS)}


def test_no_gpus() -> None:
    text = document(observe(PciReading()), "gpu-1")
    assert text.endswith("  cuda_version: null\n  nvswitch_count: 0\n  gpus: []\n")
    assert yaml.safe_load(text)["gpu_inventory"]["gpus"] == []


def test_the_order_of_the_facts_does_not_matter() -> None:
    assert document({**FACTS, "gpus": FACTS["gpus"][::-1]}, "gpu-1") == TEXT


@pytest.mark.parametrize(
    ("facts", "missing"), [({}, "'gpus'"), ({**FACTS, "gpus": [{}]}, "'pci_address'"), ({"gpus": []}, "'simulated'")]
)
def test_other_input(facts: dict[str, Any], missing: str) -> None:
    with pytest.raises(InvalidInputError) as caught:
        document(facts, "gpu-1")
    assert str(caught.value) == (
        f"gpu_inventory_document: found input without {missing}; wanted ansible_facts.gpu of gpufleet.metal.gpu_facts"
    )


text_or_none = st.none() | st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
gpus = st.fixed_dictionaries(
    {
        "pci_address": st.from_regex(r"0000:[0-9a-f]{2}:00\.0", fullmatch=True),
        "device_id": text_or_none,
        "subsystem_id": text_or_none,
        "product": text_or_none,
        "uuid": text_or_none,
        "memory_mib": st.none() | st.integers(0, 10**6),
        "memory_source": text_or_none,
        "compute_capability": text_or_none,
        "numa_node": st.none() | st.integers(0, 64),
        "mig_enabled": st.none() | st.booleans(),
        "nvlink_peers": st.none()
        | st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=12), max_size=4),
    }
)


@given(
    st.fixed_dictionaries(
        {
            "simulated": st.booleans(),
            "driver_version": text_or_none,
            "cuda_version": text_or_none,
            "nvswitch_count": st.integers(0, 16),
            "gpus": st.lists(gpus, max_size=3, unique_by=lambda gpu: gpu["pci_address"]),
        }
    )
)
def test_whatever_a_driver_says_comes_back(facts: dict[str, Any]) -> None:
    assert yaml.safe_load(document(facts, "gpu-1")) == {"gpu_inventory": record(facts)}
