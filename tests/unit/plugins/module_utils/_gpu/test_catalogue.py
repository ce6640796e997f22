# SPDX-License-Identifier: Apache-2.0
"""The catalogue agrees with an independent transcription of its table, and never guesses."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.gpufleet.metal.plugins.module_utils._gpu import catalogue

FIXTURE = Path(__file__).parents[3] / "fixtures" / "gpu" / "products.csv"
FAMILIES = 36
PRODUCTS = 65


def spread(cell: str, count: int, separator: str = " ") -> list[str]:
    """One value for all ids of a row, or one for each."""
    values = cell.split(separator)
    return values * count if len(values) == 1 else values


def transcription() -> list[dict[str, str]]:
    """One entry for each id of the fixture."""
    entries = []
    for line in FIXTURE.read_text(encoding="utf-8").splitlines():
        if line.startswith("#"):
            continue
        ids, *cells = line.split("|")
        names = ids.split()
        *plain, modules = cells
        columns = [spread(cell, len(names)) for cell in plain] + [spread(modules, len(names), ";")]
        keys = ("cc", "memory", "nvlink", "kind", "mig", "driver", "branch", "modules")
        entries += [
            {"id": name, **dict(zip(keys, values, strict=True))} for name, *values in zip(names, *columns, strict=True)
        ]
    return entries


def shown(value: object) -> str:
    return "-" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


def test_counts_of_the_table() -> None:
    rows = [line for line in FIXTURE.read_text(encoding="utf-8").splitlines() if not line.startswith("#")]
    assert len(rows) == FAMILIES
    assert len(transcription()) == PRODUCTS
    assert len(catalogue.PRODUCTS) == PRODUCTS


@pytest.mark.parametrize("entry", transcription(), ids=lambda entry: entry["id"])
def test_every_row_of_the_table(entry: dict[str, str]) -> None:
    device, __, subsystem = entry["id"].partition("+")
    product = catalogue.find(device, f"10DE:{subsystem or '0000'}")
    assert product is not None
    assert {
        "id": entry["id"],
        "cc": product.compute_capability,
        "memory": shown(product.memory_gb),
        "nvlink": shown(product.nvlink_gb_per_second),
        "kind": product.nvlink_kind,
        "mig": str(product.mig_instances),
        "driver": shown(product.driver_version_minimum),
        "branch": shown(product.driver_branch_maximum),
        "modules": " ".join(product.kernel_modules),
    } == entry


def test_no_key_and_no_name_twice() -> None:
    keys = [
        (product.device_id, subsystem) for product in catalogue.PRODUCTS for subsystem in product.subsystem_ids or ("",)
    ]
    assert len(keys) == len(set(keys))
    names = [product.name for product in catalogue.PRODUCTS]
    assert len(names) == len(set(names))


def test_a_key_that_occurs_twice_is_refused() -> None:
    one = catalogue.PRODUCTS[0]
    with pytest.raises(ValueError, match=r"^catalogue: \('1DB1', None\) is 'V100 SXM2 16GB' and 'V100 SXM2 16GB'$"):
        catalogue._index((one, one))


@pytest.mark.parametrize(
    ("device", "subsystem", "name"),
    [
        ("2330", "10DE:16C1", "H100 SXM5 80GB"),
        ("2330", None, "H100 SXM5 80GB"),
        ("233d", None, "H100 SXM 96GB"),
        ("1E30", "10DE:129E", "Quadro RTX 8000"),
        ("1E30", "1028:129e", "Quadro RTX 8000"),
        ("1E30", "10DE:12BA", "Quadro RTX 6000"),
        ("1E30", None, None),
        ("25B6", "10DE:14A9", "A16"),
        ("25B6", "10DE:157E", "A2"),
        ("25B6", "10DE:1234", None),
        ("25B6", None, None),
        ("2BB3", "10DE:227A", "RTX PRO 5000 Blackwell 72GB"),
        ("2BB3", "10DE:204D", "RTX PRO 5000 Blackwell 48GB"),
        ("2BB3", None, None),
        ("FFFE", "10DE:16C1", None),
        ("", None, None),
    ],
)
def test_find(device: str, subsystem: str | None, name: str | None) -> None:
    product = catalogue.find(device, subsystem)
    assert (product.name if product else None) == name


@given(device=st.text(max_size=8), subsystem=st.none() | st.text(max_size=12))
def test_find_never_fails_and_answers_only_listed_devices(device: str, subsystem: str | None) -> None:
    product = catalogue.find(device, subsystem)
    assert product is None or product.device_id == device.upper()


@pytest.mark.parametrize("product", catalogue.PRODUCTS, ids=lambda product: product.name)
def test_values_make_sense(product: catalogue.Product) -> None:
    assert re.fullmatch(r"[0-9A-F]{4}", product.device_id)
    assert all(re.fullmatch(r"[0-9A-F]{4}", subsystem) for subsystem in product.subsystem_ids)
    assert re.fullmatch(r"\d+\.\d", product.compute_capability)
    assert product.nvlink_kind in ("none", "bridge", "sxm", "c2c")
    assert product.fabric in ("none", "nvswitch", "nvlink5", "imex")
    assert product.cpu_architecture in ("any", "aarch64")
    assert product.architecture in ("volta", "turing", "ampere", "ada", "hopper", "blackwell")
    assert product.pcie_generation in (None, 3, 4, 5, 6)
    assert product.pcie_width in (None, 8, 16)
    assert product.nvlink_kind != "none" or product.nvlink_gb_per_second is None
    # Blackwell needs the open modules, Volta the proprietary ones (driver release notes).
    assert (product.architecture == "blackwell") <= (product.kernel_modules == catalogue.OPEN_ONLY)
    assert (product.architecture == "volta") == (product.kernel_modules == catalogue.PROPRIETARY_ONLY)


def test_derived_values() -> None:
    b200 = catalogue.find("2901")
    assert b200 is not None
    assert (b200.driver_branch_minimum, b200.memory_mib) == (570, 184320)
    h20 = catalogue.find("230E")
    assert h20 is not None
    assert (h20.driver_branch_minimum, h20.memory_mib) == (None, None)
