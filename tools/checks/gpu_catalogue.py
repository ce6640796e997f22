# SPDX-License-Identifier: Apache-2.0
"""Keep docs/gpu_catalogue.md equal to the catalogue of GPU products.

    python -m tools.checks.gpu_catalogue --check
    python -m tools.checks.gpu_catalogue --write

The table stands between `<!-- catalogue:start -->` and `<!-- catalogue:end -->`; everything else is written by hand.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .generated import between, differences, markdown_table, wants_writing
from .repository import ROOT, CheckError, report

CATALOGUE = "plugins/module_utils/_gpu/catalogue.py"
DOCUMENT = "docs/gpu_catalogue.md"
MARKER = "catalogue"
COLUMNS = ("Product", "PCI id", "CC", "Memory", "NVLink", "PCIe", "MIG", "Driver", "Kernel module", "Fabric", "Note")


def load(path: Path) -> Any:
    """Return the catalogue as a module; it imports nothing of the collection."""
    spec = importlib.util.spec_from_file_location("gpu_catalogue", path)
    if spec is None or spec.loader is None:
        raise CheckError(f"{path}: not a Python file")
    module = importlib.util.module_from_spec(spec)
    # dataclasses look the module of a class up by its name.
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def row(product: Any, vendor: str) -> tuple[str, ...]:
    """Return the cells of one product."""
    subsystem = f", subsystem {', '.join(product.subsystem_ids)}" if product.subsystem_ids else ""
    nvlink = {"none": "-"}.get(product.nvlink_kind, product.nvlink_kind)
    if product.nvlink_gb_per_second is not None:
        nvlink = f"{product.nvlink_gb_per_second:g} GB/s {nvlink}"
    pcie = [
        f"gen {product.pcie_generation}" if product.pcie_generation else "",
        f"x{product.pcie_width}" if product.pcie_width else "",
    ]
    memory = [
        f"{product.memory_gb} GB" if product.memory_gb else "",
        f"{product.reported_mib} MiB" if product.reported_mib else "",
    ]
    drivers = [
        f"from {product.driver_version_minimum}" if product.driver_version_minimum else "",
        f"up to branch {product.driver_branch_maximum}" if product.driver_branch_maximum else "",
    ]
    notes = ["with an Arm CPU" if product.cpu_architecture == "aarch64" else "", product.note]
    return (
        product.name,
        f"{vendor}:{product.device_id}{subsystem}",
        product.compute_capability,
        ", ".join(text for text in memory if text) or "not stated",
        nvlink,
        " ".join(text for text in pcie if text) or "not stated",
        str(product.mig_instances or "-"),
        ", ".join(text for text in drivers if text) or "-",
        " or ".join(product.kernel_modules),
        {"none": "-"}.get(product.fabric, product.fabric),
        "; ".join(text for text in notes if text),
    )


def table(catalogue: Any) -> str:
    """Return the whole table in the catalogue's order."""
    return markdown_table(COLUMNS, (row(product, catalogue.VENDOR_ID) for product in catalogue.PRODUCTS))


def main(arguments: Sequence[str]) -> int:
    """Check or write the table."""
    write = wants_writing("gpu_catalogue", arguments)
    catalogue = load(ROOT / CATALOGUE)
    problems = differences(
        "gpu_catalogue", ROOT / DOCUMENT, CATALOGUE, lambda old: between(MARKER, old, table(catalogue)), write
    )
    return report("gpu_catalogue", problems, f"{len(catalogue.PRODUCTS)} products agree")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
