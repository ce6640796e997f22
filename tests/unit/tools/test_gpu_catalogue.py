# SPDX-License-Identifier: Apache-2.0
"""The document's table is the catalogue's."""

from __future__ import annotations

from ansible_collections.gpufleet.metal.tools.checks import gpu_catalogue
from ansible_collections.gpufleet.metal.tools.checks.repository import ROOT


def test_the_document_agrees() -> None:
    text = (ROOT / gpu_catalogue.DOCUMENT).read_text(encoding="utf-8")
    catalogue = gpu_catalogue.load(ROOT / gpu_catalogue.CATALOGUE)
    assert gpu_catalogue.table(catalogue) in text


def test_a_row() -> None:
    catalogue = gpu_catalogue.load(ROOT / gpu_catalogue.CATALOGUE)
    rows = {line.split(" | ")[0].lstrip("| "): line for line in gpu_catalogue.table(catalogue).splitlines()}
    assert rows["A16"] == (
        "| A16 | 10DE:25B6, subsystem 14A9 | 8.6 | 16 GB | - | gen 4 | - | - | open or proprietary | - "
        "| four GPUs of 16 GB on one card, which share its 16 PCIe lanes |"
    )
    assert rows["GB300"] == (
        "| GB300 | 10DE:31C2 | 10.3 | 288 GB | 1800 GB/s sxm | not stated | 7 | - | open | imex | with an Arm CPU |"
    )
