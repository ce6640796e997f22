# SPDX-License-Identifier: Apache-2.0
"""Which driver a host gets: a table of hosts, faults word for word, and properties over the whole catalogue."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.gpufleet.metal.plugins.module_utils import _driver
from ansible_collections.gpufleet.metal.plugins.module_utils._driver import Device, Wish, decide
from ansible_collections.gpufleet.metal.plugins.module_utils._gpu.catalogue import PRODUCTS, find

V100, T4, A100, H100, H100_PCIE, GH200 = "1DB5", "1EB8", "20B2", "2330", "2331", "2342"
B200, B300, GB200, RTX_PRO = "2901", "3182", "2941", "2BB5"


def devices(*ids: str) -> list[Device]:
    """Devices by their PCI device ids."""
    return [Device(f"0000:{i:02x}:00.0", f"10DE:{name}", find(name)) for i, name in enumerate(ids, 1)]


@pytest.mark.parametrize(
    ("ids", "nvswitches", "wish", "wanted"),
    [
        ([T4], 0, Wish(), (580, "open", ())),
        ([V100], 0, Wish(), (580, "proprietary", ())),
        ([V100, T4], 0, Wish(), (580, "proprietary", ())),
        ([T4, A100, H100], 4, Wish(), (580, "open", ("fabric_manager",))),
        ([H100], 4, Wish(), (580, "open", ("fabric_manager",))),
        # Nobody counted: the product usually has switches. Counted none: HGX A100 with four GPUs.
        ([A100], None, Wish(), (580, "open", ("fabric_manager",))),
        ([A100], 0, Wish(), (580, "open", ())),
        ([H100_PCIE], 0, Wish(), (580, "open", ())),
        ([GH200], 0, Wish(), (580, "open", ())),
        # The switches of NVLink 5 are not on the PCI bus.
        ([B200], 0, Wish(), (580, "open", ("fabric_manager", "nvlsm"))),
        ([B300], None, Wish(), (580, "open", ("fabric_manager", "nvlsm"))),
        ([GB200], 0, Wish(), (580, "open", ("imex",))),
        ([RTX_PRO], 0, Wish(), (580, "open", ())),
        ([T4], 0, Wish(branch=595), (595, "open", ())),
        ([T4], 0, Wish(branch=620), (620, "open", ())),
        ([T4], 0, Wish(version="595.91.07"), (595, "open", ())),
        ([T4], 0, Wish(kernel_module="proprietary"), (580, "proprietary", ())),
        ([H100], 4, Wish(components=()), (580, "open", ())),
        ([T4], 0, Wish(branch=535, allowed_branches=(535,)), (535, "open", ())),
        (
            [B200],
            0,
            Wish(branch=570, version="570.133.20", allowed_branches=(570,)),
            (570, "open", ("fabric_manager", "nvlsm")),
        ),
        (["FFFF"], 0, Wish(branch=595, kernel_module="open", components=()), (595, "open", ())),
    ],
)
def test_decisions(ids: list[str], nvswitches: int | None, wish: Wish, wanted: tuple[Any, ...]) -> None:
    decision, faults = decide(devices(*ids), nvswitches, wish)
    assert faults == []
    assert decision is not None
    assert (decision.branch, decision.kernel_module, decision.components) == wanted
    assert decision.version == wish.version


@pytest.mark.parametrize(
    ("ids", "wish", "code", "found"),
    [
        (
            [V100, B200],
            Wish(),
            "driver_contradiction",
            "no kernel module serves all of: B200 SXM: open; V100 SXM2 32GB: proprietary",
        ),
        (
            [V100],
            Wish(kernel_module="open"),
            "driver_kernel_module_unfit",
            "the open kernel module does not serve V100 SXM2 32GB",
        ),
        (
            [H100],
            Wish(branch=620, kernel_module="proprietary"),
            "driver_kernel_module_unfit",
            "branch 620 has no proprietary kernel module",
        ),
        ([V100], Wish(branch=595), "driver_branch_unfit", "branch 595 does not serve V100 SXM2 32GB"),
        (
            [B300],
            Wish(branch=535, allowed_branches=(535,)),
            "driver_branch_unfit",
            "branch 535 does not serve B300 SXM6 AC",
        ),
        ([T4], Wish(branch=535), "driver_branch_unsupported", "branch 535: NVIDIA's support for it ended in 2026-06"),
        ([T4], Wish(branch=610), "driver_branch_unsupported", "branch 610: NVIDIA's support for it ended in 2026-08"),
        ([T4], Wish(branch=599), "driver_branch_unsupported", "branch 599: it is not in the table of branches"),
        (
            [T4],
            Wish(branch=580, version="595.91.07"),
            "driver_contradiction",
            "fleet_driver.branch is 580 and fleet_driver.version is 595.91.07",
        ),
        (
            [B200],
            Wish(branch=570, allowed_branches=(570,)),
            "driver_version_too_old",
            "fleet_driver.version is not set with branch 570",
        ),
        (
            [B200],
            Wish(version="570.124.06", allowed_branches=(570,)),
            "driver_version_too_old",
            "fleet_driver.version is 570.124.06 with branch 570",
        ),
        (
            [RTX_PRO],
            Wish(version="575.51.03", allowed_branches=(575,)),
            "driver_version_too_old",
            "fleet_driver.version is 575.51.03 with branch 575",
        ),
        ([H100, "FFFF"], Wish(), "driver_product_unknown", "0000:02:00.0 is 10DE:FFFF, which the catalogue lacks"),
    ],
)
def test_faults(ids: list[str], wish: Wish, code: str, found: str) -> None:
    decision, faults = decide(devices(*ids), None, wish)
    assert decision is None
    assert [(fault.code, fault.found) for fault in faults] == [(code, found)]
    assert all(fault.wanted and fault.fix for fault in faults)


def test_what_an_operator_reads_about_an_ended_branch() -> None:
    __, faults = decide(devices(T4), None, Wish(branch=535))
    assert faults[0].wanted == "auto or one of 580 (lts), 595 (production), 615 (feature), 620 (lts)"
    assert faults[0].fix == "set fleet_driver.branch to one of these, or add 535 to fleet_driver.allowed_branches"


def test_the_reason() -> None:
    decision, __ = decide(devices(H100, H100), 4, Wish())
    assert decision is not None
    assert decision.why == (
        "branch 580, the newest long-term branch that has settled and that every product allows; "
        "open kernel module, H100 SXM5 80GB can run it; Fabric Manager, because of NVSwitch (4 counted)"
    )


@given(
    st.lists(st.sampled_from(PRODUCTS), min_size=1, max_size=8),
    st.none() | st.integers(0, 18),
    st.builds(
        Wish,
        branch=st.none() | st.sampled_from([entry.number for entry in _driver.BRANCHES]),
        kernel_module=st.sampled_from([None, *_driver.KERNEL_MODULES]),
        allowed_branches=st.sampled_from([(), (535,)]),
    ),
)
def test_every_host_gets_a_driver_that_serves_it_or_a_reason(products: Any, nvswitches: int | None, wish: Wish) -> None:
    found = [Device(f"0000:{i:02x}:00.0", product.device_id, product) for i, product in enumerate(products)]
    decision, faults = decide(found, nvswitches, wish)
    assert (decision is None) == bool(faults)
    assert decide(list(reversed(found)), nvswitches, wish) == (decision, faults)
    if decision is None:
        return
    for product in products:
        assert decision.kernel_module in product.kernel_modules
        assert decision.branch >= (product.driver_branch_minimum or 0)
        assert decision.branch <= (product.driver_branch_maximum or 10**6)
    assert not (decision.kernel_module == "proprietary" and decision.branch >= 620)
    assert set(decision.components) <= set(_driver.COMPONENTS)
    assert "nvlsm" not in decision.components or "fabric_manager" in decision.components
