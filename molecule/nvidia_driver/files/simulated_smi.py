# SPDX-License-Identifier: Apache-2.0
"""Stands in for nvidia-smi in a test: two simulated GPUs whose MIG state is in a file. Not hardware."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

HOST = Path("/srv/simulated_host")
STATE = HOST / "mig.json"


def load() -> list[dict[str, Any]]:
    """Return the GPUs."""
    if STATE.exists():
        return list(json.loads(STATE.read_text(encoding="utf-8")))
    return [{"mig": "Disabled", "instances": [], "pids": []} for __ in range(2)]


def query() -> None:
    """Print what -q prints, as far as it is read."""
    version = (HOST / "sys/module/nvidia/version").read_text(encoding="utf-8").strip()
    print(f"==============NVSMI LOG==============\n\nDriver Version                            : {version}")
    print(
        "Product Name                              : Simulated GPU (not hardware)\n"
        "Attached GPUs                             : 2"
    )
    for index in range(2):
        print(f"GPU 00000000:{index + 1:02}:00.0\n    Fabric")
        print(
            "        State                             : Completed\n        Status                            : Success"
        )


def mig(arguments: list[str], gpus: list[dict[str, Any]]) -> int:
    """Run one of the subcommands of mig."""
    if arguments == ["-lgi"]:
        lines = [(i, profile) for i, gpu in enumerate(gpus) for profile in gpu["instances"]]
        if not lines:
            print("No GPU instances found: Not Found")
            return 6
        for place, (index, profile) in enumerate(lines):
            print(f"|{index:4}  MIG {profile:<16}{9:4}     {place:4}          0:4     |")
        return 0
    gpu = gpus[int(arguments[1])]
    if arguments[2] == "-cgi":
        gpu["instances"] = arguments[3].split(",")
    elif arguments[2] == "-dgi":
        gpu["instances"] = []
    STATE.write_text(json.dumps(gpus), encoding="utf-8")
    return 0


def main(arguments: list[str]) -> int:
    """Answer one call."""
    gpus = load()
    if arguments == ["-q"]:
        query()
    elif arguments[0].startswith("--query-gpu="):
        for index, gpu in enumerate(gpus):
            print(f"{index}, GPU-00000000-simulated-{index}, 00000000:{index + 1:02}:00.0, {gpu['mig']}, {gpu['mig']}")
    elif arguments[0].startswith("--query-compute-apps="):
        for index, gpu in enumerate(gpus):
            for pid in gpu["pids"]:
                print(f"GPU-00000000-simulated-{index}, {pid}")
    elif arguments[0] == "mig":
        return mig(arguments[1:], gpus)
    elif arguments[2:3] == ["-mig"]:
        gpus[int(arguments[1])]["mig"] = "Enabled" if arguments[3] == "1" else "Disabled"
        STATE.write_text(json.dumps(gpus), encoding="utf-8")
    else:
        print(f"simulated nvidia-smi: {arguments} is not simulated", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
