# SPDX-License-Identifier: Apache-2.0
"""MIG layouts against what nvidia-smi prints. The outputs are written by hand in its documented form: simulated."""

from __future__ import annotations

import re
from typing import Any

import pytest

from ansible_collections.gpufleet.metal.plugins.module_utils import _mig
from ansible_collections.gpufleet.metal.plugins.module_utils._errors import FleetError, InvalidInputError

GPUS = """0, GPU-00000000-a, 00000000:17:00.0, Disabled, Disabled
1, GPU-00000000-b, 00000000:3D:00.0, Enabled, Enabled
2, GPU-00000000-c, 00000000:60:00.0, [N/A], [N/A]
"""
INSTANCES = """+-------------------------------------------------------+
| GPU instances:                                        |
| GPU   Name             Profile  Instance   Placement  |
|                          ID       ID       Start:Size |
|=======================================================|
|   1  MIG 3g.40gb          9        2          0:4     |
+-------------------------------------------------------+
|   1  MIG 1g.10gb+me      20        7          4:1     |
+-------------------------------------------------------+
"""


def changes(*layout: tuple[str, list[str]], busy: str = "") -> list[tuple[str, list[list[str]]]]:
    """The commands for a layout on the GPUs above."""
    return _mig.plan(
        [{"gpu": gpu, "profiles": profiles} for gpu, profiles in layout],
        _mig.parse_gpus(GPUS),
        _mig.parse_instances(INSTANCES),
        _mig.parse_busy(busy),
    )


def test_parsing() -> None:
    assert _mig.parse_gpus(GPUS)[1] == _mig.MigGpu(1, "GPU-00000000-b", "0000:3d:00.0", "Enabled", "Enabled")
    assert _mig.parse_instances(INSTANCES) == {1: ["1g.10gb+me", "3g.40gb"]}
    assert _mig.parse_instances("No GPU instances found: Not Found\n") == {}
    assert _mig.parse_busy("GPU-00000000-b, 4711\nGPU-00000000-b, 12\n") == {"GPU-00000000-b": [4711, 12]}


CREATE = ["mig", "-i", "0", "-cgi", "3g.40gb,3g.40gb", "-C"]


@pytest.mark.parametrize(
    ("layout", "wanted"),
    [
        ([], []),
        ([("1", ["3g.40gb", "1g.10gb+me"])], []),
        ([("0", [])], []),
        # A GPU without MIG is whole as it is.
        ([("all", []), ("1", ["1g.10gb+me", "3g.40gb"])], []),
        ([("0", ["3g.40gb", "3g.40gb"])], [("GPU-00000000-a", [["-i", "0", "-mig", "1"], CREATE])]),
        ([("0000:17:00.0", ["3g.40gb", "3g.40gb"])], [("GPU-00000000-a", [["-i", "0", "-mig", "1"], CREATE])]),
        (
            [("GPU-00000000-B", [])],
            [
                (
                    "GPU-00000000-b",
                    [["mig", "-i", "1", "-dci"], ["mig", "-i", "1", "-dgi"], ["-i", "1", "-mig", "0"]],
                )
            ],
        ),
        (
            [("1", ["7g.80gb"])],
            [
                (
                    "GPU-00000000-b",
                    [
                        ["mig", "-i", "1", "-dci"],
                        ["mig", "-i", "1", "-dgi"],
                        ["mig", "-i", "1", "-cgi", "7g.80gb", "-C"],
                    ],
                )
            ],
        ),
    ],
)
def test_plan(layout: list[tuple[str, list[str]]], wanted: Any) -> None:
    assert changes(*layout) == wanted


@pytest.mark.parametrize(
    ("layout", "busy", "error", "message"),
    [
        (
            ("1", []),
            "GPU-00000000-b, 4711\n",
            FleetError,
            "GPU 1 (0000:3d:00.0) has MIG enabled with 1g.10gb+me, 3g.40gb, wanted MIG off, and is in use by the "
            "processes 4711: drain the host first; no GPU was changed",
        ),
        (
            ("9", []),
            "",
            InvalidInputError,
            "nvidia_driver_mig names the GPU '9', found 0 (0000:17:00.0), 1 (0000:3d:00.0), 2 (0000:60:00.0)",
        ),
        (
            ("0", ["half"]),
            "",
            InvalidInputError,
            "nvidia_driver_mig has the profile 'half', wanted one such as 3g.40gb",
        ),
        (
            ("2", ["3g.40gb"]),
            "",
            InvalidInputError,
            "nvidia_driver_mig splits GPU 2 (0000:60:00.0), which has no MIG",
        ),
    ],
)
def test_faults(layout: tuple[str, list[str]], busy: str, error: type[FleetError], message: str) -> None:
    with pytest.raises(error, match=f"^{re.escape(message)}$"):
        changes(layout, busy=busy)


def test_a_gpu_that_stays_may_be_busy() -> None:
    assert changes(("1", ["3g.40gb", "1g.10gb+me"]), busy="GPU-00000000-b, 4711\n") == []


def test_what_is_not_a_list_of_gpus() -> None:
    with pytest.raises(FleetError, match=r"^nvidia-smi printed 'Failed to initialize NVML', wanted index"):
        _mig.parse_gpus("Failed to initialize NVML\n")
