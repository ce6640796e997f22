# SPDX-License-Identifier: Apache-2.0
"""Try the readers and the rules on this machine's real GPU, and record what its driver said as a fixture.

    python3 tools/test_gpu.py [--output DIRECTORY] [--date YYYY-MM-DD]

Needs Python 3.9 and NVIDIA's driver; no internet and no Ansible. nvidia-ml-py is used where Python finds it, or as the
file build/nvidia-ml-py/pynvml.py; without it NVML is left out, and the output says so. Nothing on the machine is
changed.

Among what it prints are the seconds that reading all GPUs took by each reader (issue: under one second for eight GPUs);
the recording keeps them under about.seconds. No check depends on them.

Exit status: 0 all checks passed, 1 a check failed, 2 there is no GPU with a driver to try it on.
The recording, <product>-<driver>.json, goes into tests/unit/fixtures/gpu unless DIRECTORY says otherwise; ids of cards
are replaced in it. tests/unit/plugins/module_utils/_gpu/test_recordings.py replays every recording.
"""

from __future__ import annotations

import argparse
import dataclasses
import datetime
import json
import re
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
FIXTURES = ROOT / "tests" / "unit" / "fixtures" / "gpu"
HANGING = "#!/bin/sh\necho $$ > '{pid}'\nexec sleep 600\n"
#: What NVML tells better, what changes from moment to moment, and what an idle link lowers.
NOT_COMPARED = ("links", "topology", "processes")
IMPOSSIBLE = {
    "minimum_compute_capability": "99.0",
    "minimum_memory_gb": 100000,
    "count": 1000,
    "minimum_driver_branch": 100000,
}
IMPOSSIBLE_CODES = (
    "gpu_below_minimum_compute_capability",
    "gpu_memory_too_small",
    "gpu_count_too_low",
    "driver_too_old",
)
CARD = re.compile(r"GPU-[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")


class Checks:
    """Prints each check as it is made and counts those that failed."""

    def __init__(self) -> None:
        self.failed = 0

    def note(self, text: str) -> None:
        """Print something that is no check."""
        print(f"      {text}", flush=True)

    def check(self, what: str, problems: list[str]) -> None:
        """Print a check, with what is wrong."""
        print(f"{'FAIL' if problems else 'ok'}  {what}" if problems else f"ok    {what}", flush=True)
        for problem in problems:
            self.note(problem)
        self.failed += bool(problems)


def importable(place: Path) -> None:
    """Give the collection its import name, and find nvidia-ml-py where it was put beside the repository's builds."""
    parent = place / "ansible_collections" / "gpufleet"
    parent.mkdir(parents=True)
    (parent / "metal").symlink_to(ROOT, target_is_directory=True)
    sys.path.insert(0, str(place))
    sys.path.append(str(ROOT / "build" / "nvidia-ml-py"))


def differences(one: Any, other: Any, names: tuple[str, str]) -> list[str]:
    """What two readings of the same host say differently."""
    problems = [
        f"{key}: {names[0]} {getattr(one, key)!r}, {names[1]} {getattr(other, key)!r}"
        for key in ("driver_version", "cuda_version", "lost")
        if getattr(one, key) != getattr(other, key)
    ]
    left, right = ({gpu.pci_address: dataclasses.asdict(gpu) for gpu in reading.gpus} for reading in (one, other))
    if set(left) != set(right):
        problems.append(f"GPUs: {names[0]} {sorted(left)}, {names[1]} {sorted(right)}")
    for address in sorted(set(left) & set(right)):
        for key, value in left[address].items():
            peer = right[address][key]
            if key == "pcie_link" and value and peer:
                # The two asked at different moments: an idle link lowers its generation.
                value, peer = ({**link, "generation": None} for link in (value, peer))
            if key not in NOT_COMPARED and value != peer:
                problems.append(f"GPU {address}, {key}: {names[0]} {value!r}, {names[1]} {peer!r}")
    return problems


def anonymous(text: str) -> str:
    """The text with a stable invented id for each card's own."""
    cards: dict[str, str] = {}

    def invented(match: re.Match[str]) -> str:
        return cards.setdefault(match.group(), f"GPU-00000000-0000-4000-8000-{len(cards):012d}")

    return CARD.sub(invented, text)


def slug(text: str) -> str:
    """The text as part of a file name."""
    return re.sub(r"[^a-z0-9.]+", "-", text.lower()).strip("-")


def try_everything(checks: Checks, program: str, sysfs_root: str, place: Path) -> dict[str, Any] | None:
    """Make every check; returns the recording, None without a GPU."""
    from ansible_collections.gpufleet.metal.plugins.module_utils._gpu import (
        catalogue,
        driver,
        nvml,
        observe,
        pci,
        reading,
        rules,
        smi,
    )
    from ansible_collections.gpufleet.metal.plugins.module_utils._gpu.requirements import requirements

    on_bus = pci.read(sysfs_root)
    if not on_bus.gpus:
        return None
    commands = {"query": smi.query(), "details": smi.DETAILS, "topology": smi.TOPOLOGY, "links": smi.LINKS}
    raw = dict(zip(commands, driver.run_program(program, list(commands.values()))))
    by_smi = smi.read(lambda asked: driver.run_program(program, asked))
    said_of = {gpu.pci_address for gpu in by_smi.gpus}
    checks.check(
        "the PCI bus and nvidia-smi show the same GPUs",
        [f"not in nvidia-smi: {gpu.pci_address}" for gpu in on_bus.gpus if gpu.pci_address not in said_of],
    )
    checks.check(
        "nvidia-smi knows everything that is asked for",
        [
            f"{name} ended with {status}: {' '.join((out + err).split())}"
            for name, (status, out, err) in raw.items()
            if status
        ],
    )
    checks.check("nvidia-smi's rows are understood", list(by_smi.warnings))

    by_nvml = None
    try:
        by_nvml = nvml.read()
    except nvml.NvmlUnavailableError as error:
        checks.note(f"NVML left out: {error}")
    if by_nvml is not None:
        checks.check("NVML answers without a warning", list(by_nvml.warnings))
        checks.check("NVML and nvidia-smi agree", differences(by_nvml, by_smi, ("NVML", "nvidia-smi")))

    facts = {}
    for said in filter(None, (by_nvml, by_smi)):
        facts[said.source] = observe.observe(
            on_bus, reading.DriverAnswer("lost" if said.lost else "running", said.lost, said)
        )
        problems = list(facts[said.source]["warnings"])
        for gpu in facts[said.source]["gpus"]:
            product = catalogue.find(gpu["device_id"], gpu["subsystem_id"])
            best = (gpu["pcie_link"] or {}).get("generation_product")
            if product and product.pcie_generation and best and product.pcie_generation != best:
                problems.append(f"PCIe generation: the catalogue says {product.pcie_generation}, the driver {best}")
        checks.check(f"the catalogue agrees with {said.source}", problems)

    findings = {}
    for source, seen in facts.items():
        findings[source] = rules.breaches("this-host", seen, requirements({"cuda_version": "13.0"}, rules.CODES))
        for finding in findings[source]:
            checks.note(f"finding by {source}: {finding['code']}: {finding['found']}; wanted {finding['wanted']}")
        found = {item["code"] for item in rules.breaches("x", seen, requirements(IMPOSSIBLE, rules.CODES))}
        checks.check(
            f"impossible requirements are findings by {source}",
            [f"no finding {code}" for code in sorted(set(IMPOSSIBLE_CODES) - found)],
        )

    seconds: dict[str, float] = {}
    for what in ("with NVML first", "with nvidia-smi alone"):
        if what == "with nvidia-smi alone":
            sys.modules["pynvml"] = None  # type: ignore[assignment]  # what Python writes for "not there"
        begun = time.monotonic()
        seen = driver.read_host(sysfs_root, nvidia_smi=program)
        seconds[seen["source"]] = round(time.monotonic() - begun, 2)
        gpus = f"{len(seen['gpus'])} GPU{'s' if len(seen['gpus']) > 1 else ''}"
        checks.note(f"everything read {what}: {gpus} in {seconds[seen['source']]:.2f} s, by {seen['source']}")
        state = seen["driver_state"]
        checks.check(
            f"the driver runs, {what}",
            [] if state == "running" else [f"driver_state {state}: {seen['driver_state_reason']}"],
        )

    checks.check("a hanging nvidia-smi is killed at the deadline", hanging(checks, sysfs_root, place))
    return {
        "about": {
            "gpu": [gpu["name"] for gpu in next(iter(facts.values()))["gpus"]],
            "driver": by_smi.driver_version,
            "cuda": by_smi.cuda_version,
            "recorded": "the four commands of the reader nvidia-smi, both readings, sysfs, facts and findings",
            "replaced": "ids of cards",
            "seconds": seconds,
        },
        "nvidia_smi": {name: {"status": status, "output": out} for name, (status, out, __) in raw.items()},
        "sysfs": dataclasses.asdict(on_bus),
        "readings": {said.source: said.as_dict() for said in filter(None, (by_nvml, by_smi))},
        "facts": facts,
        "findings": findings,
    }


def hanging(checks: Checks, sysfs_root: str, place: Path) -> list[str]:
    """Ask a stand-in for nvidia-smi that never answers; pynvml is hidden by now."""
    from ansible_collections.gpufleet.metal.plugins.module_utils._gpu import driver

    program, pid_file = place / "nvidia-smi", place / "pid"
    program.write_text(HANGING.format(pid=pid_file), encoding="utf-8")
    program.chmod(0o755)
    begun = time.monotonic()
    seen = driver.read_host(sysfs_root, nvidia_smi=str(program), deadline_seconds=1)
    checks.note(f"deadline 1 s, came back after {time.monotonic() - begun:.2f} s: {seen['driver_state_reason']}")
    problems = [] if seen["driver_state"] == "hung" else [f"driver_state {seen['driver_state']}, wanted hung"]
    if not seen["gpus"]:
        problems.append("what the PCI bus tells was lost")
    pid = int(pid_file.read_text(encoding="utf-8"))
    for __ in range(100):
        if not Path(f"/proc/{pid}").exists():
            break
        time.sleep(0.1)
    else:
        problems.append(f"the hanging process {pid} is still there")
    return problems


def main() -> int:
    """Make the checks and write the recording."""
    parser = argparse.ArgumentParser(description="Try the readers and the rules on this machine's real GPU.")
    parser.add_argument("--output", type=Path, default=FIXTURES, help="directory of the recording")
    parser.add_argument("--date", default=datetime.date.today().isoformat(), help="date to write into it")
    parser.add_argument("--sysfs-root", default="/sys", help="another one to try this program itself")
    options = parser.parse_args()
    program = shutil.which("nvidia-smi")
    if program is None:
        print("There is no nvidia-smi here, so no GPU with a driver: nothing was tried.")
        return 2
    checks = Checks()
    with tempfile.TemporaryDirectory() as temporary:
        importable(Path(temporary))
        recording = try_everything(checks, program, options.sysfs_root, Path(temporary))
    if recording is None:
        print("No NVIDIA GPU is on the PCI bus: nothing was tried.")
        return 2
    recording["about"]["date"] = options.date
    facts = next(iter(recording["facts"].values()))
    name = f"{slug(facts['gpus'][0]['product'])}-{slug(facts['driver_version'])}.json"
    options.output.mkdir(parents=True, exist_ok=True)
    path = options.output / name
    path.write_text(anonymous(json.dumps(recording, indent=2, sort_keys=True)) + "\n", encoding="utf-8")
    print(f"\nrecorded {path.name}: {', '.join(recording['about']['gpu'])}, driver {facts['driver_version']}")
    print(f"{checks.failed} checks failed" if checks.failed else "all checks passed")
    return 1 if checks.failed else 0


if __name__ == "__main__":
    sys.dont_write_bytecode = True
    sys.exit(main())
