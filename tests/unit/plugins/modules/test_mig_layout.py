# SPDX-License-Identifier: Apache-2.0
"""The module against a simulated nvidia-smi: in which order it is called, a mode that stays pending, one that hangs."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.gpufleet.metal.plugins.module_utils._commands import bounded
from ansible_collections.gpufleet.metal.plugins.module_utils._errors import FleetError
from ansible_collections.gpufleet.metal.plugins.modules import mig_layout

SPLIT = [{"gpu": "0", "profiles": ["3g.40gb", "3g.40gb"]}]


class SimulatedSmi:
    """One GPU without MIG. ``stuck``: its mode changes only after a reset, as on an A100."""

    def __init__(self, stuck: bool = False) -> None:
        self.stuck = stuck
        self.current = self.pending = "Disabled"
        self.asked: list[str] = []

    def run(self, argv: Sequence[str], stdin: str | None = None) -> tuple[int, str, str]:
        """Answer one call."""
        self.asked.append(" ".join(argv[1:]))
        if argv[1].startswith("--query-gpu"):
            return 0, f"0, GPU-00000000-a, 00000000:17:00.0, {self.current}, {self.pending}\n", ""
        if "-mig" in argv:
            self.pending = "Enabled" if argv[-1] == "1" else "Disabled"
            self.current = self.current if self.stuck else self.pending
        return 0, "", ""

    def apply(self, layout: list[dict[str, Any]], check_mode: bool = False) -> list[str]:
        """Apply a layout and forget the questions, which change nothing."""
        try:
            return mig_layout.apply(self.run, "nvidia-smi", layout, check_mode)
        finally:
            self.asked = [words for words in self.asked if not words.startswith("--query")]


def test_a_split() -> None:
    host = SimulatedSmi()
    assert host.apply(SPLIT) == ["GPU-00000000-a"]
    assert host.asked == ["-i 0 -mig 1", "mig -i 0 -cgi 3g.40gb,3g.40gb -C"]


def test_check_mode_asks_only() -> None:
    host = SimulatedSmi()
    assert host.apply(SPLIT, check_mode=True) == ["GPU-00000000-a"]
    assert host.asked == []


def test_a_mode_that_needs_a_reset() -> None:
    host = SimulatedSmi(stuck=True)
    message = (
        "GPU 0 (0000:17:00.0) has MIG disabled, and enabled is pending: it must be reset (nvidia-smi --gpu-reset, with "
        "every client stopped) or the host rebooted; then run again"
    )
    with pytest.raises(FleetError, match=f"^{re.escape(message)}$"):
        host.apply(SPLIT)
    assert host.asked == ["-i 0 -mig 1"]


def test_an_nvidia_smi_that_fails() -> None:
    def run(argv: Sequence[str], stdin: str | None = None) -> tuple[int, str, str]:
        return 9, "NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver.\n", ""

    with pytest.raises(FleetError, match=r"failed with exit status 9: NVIDIA-SMI has failed because"):
        mig_layout.apply(run, "nvidia-smi", SPLIT, False)


def test_an_nvidia_smi_that_hangs(tmp_path: Path) -> None:
    frozen = tmp_path / "nvidia-smi"
    frozen.write_text("#!/bin/sh\ntrap '' TERM\nsleep 600\nsleep 600\n", encoding="utf-8")
    frozen.chmod(0o755)
    with pytest.raises(FleetError, match=r"gave no answer within 0\.5 seconds and was killed$"):
        mig_layout.apply(bounded(0.5), str(frozen), SPLIT, False)
