# SPDX-License-Identifier: Apache-2.0
"""Measure a `site.yml` run that changes nothing: module executions, wall seconds, controller CPU and memory.

    python -m tools.bench.bench                              # fleets of 2, 5, 10, 20 sandbox hosts
    python -m tools.bench.bench --sizes 2,10 --keep
    python -m tools.bench.bench --inventory inventories/sandbox   # a fleet that stands, as it is

The sandbox's images are built where they are missing. Each size is created, recorded, converged (not measured) and run
again (measured), and all hosts are removed at the end, however it comes. The counts are exact and the same on every
machine; seconds and CPU are this machine's, with the hosts on the same cores. CPU and memory are the controller's:
ansible-playbook and everything that it waited for, without the ssh connections that outlive it.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ..checks import copy_collection
from . import budget, make_inventory

ROOT = Path(__file__).resolve().parent.parent.parent
OUTPUT = ROOT / "build" / "bench"
SANDBOX = ROOT / "tools" / "sandbox"
CONNECTION = SANDBOX / "connection.yml"
#: Who made the bench's hosts, and may remove them.
OWNER = "bench"
COLUMNS = ("hosts", "gpu node", "gateway", "all", "wall s", "CPU s", "MiB", "CPU s/host")


class BenchError(RuntimeError):
    """A step of the bench failed."""


@dataclass(frozen=True)
class Measurement:
    """One measured run."""

    hosts: int
    gpu_node_modules: int  # the most on one host of the group
    gateway_modules: int
    all_modules: int
    wall_seconds: float
    cpu_seconds: float
    max_rss_mib: float  # of the largest process

    def row(self) -> tuple[str, ...]:
        """Return the cells of the table, in the order of COLUMNS."""
        return (
            str(self.hosts),
            str(self.gpu_node_modules),
            str(self.gateway_modules),
            str(self.all_modules),
            f"{self.wall_seconds:.1f}",
            f"{self.cpu_seconds:.1f}",
            f"{self.max_rss_mib:.0f}",
            f"{self.cpu_seconds / self.hosts:.2f}",
        )


def most_modules(statistics: dict[str, Any], group: str) -> int:
    """Return the largest count of module executions on one host of a group."""
    counts = [host["modules"]["count"] for host in statistics["hosts"].values() if group in host["groups"]]
    return max(counts, default=0)


def measurement(statistics: dict[str, Any], wall: float, cpu: float, rss_kib: int) -> Measurement:
    """Return the measurement of a run from the callback's statistics and the kernel's accounting."""
    remote = [name for name, host in statistics["hosts"].items() if {"gpu_nodes", "gateways"} & set(host["groups"])]
    return Measurement(
        hosts=len(remote),
        gpu_node_modules=most_modules(statistics, "gpu_nodes"),
        gateway_modules=most_modules(statistics, "gateways"),
        all_modules=statistics["totals"]["modules"]["count"],
        wall_seconds=wall,
        cpu_seconds=cpu,
        max_rss_mib=rss_kib / 1024,
    )


def growth_table(measurements: Sequence[Measurement]) -> list[str]:
    """Return the table of all sizes, and how much more a host costs in the largest fleet than in the smallest."""
    rows = [COLUMNS, *(item.row() for item in measurements)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(COLUMNS))]
    lines = ["  ".join(text.rjust(width) for text, width in zip(row, widths, strict=True)) for row in rows]
    if len(measurements) > 1:
        first, last = measurements[0], measurements[-1]
        lines.append(
            f"from {first.hosts} to {last.hosts} hosts ({last.hosts / first.hosts:.1f} times): "
            f"module executions {last.all_modules / first.all_modules:.1f} times, "
            f"CPU {last.cpu_seconds / first.cpu_seconds:.1f} times, "
            f"wall {last.wall_seconds / first.wall_seconds:.1f} times, "
            f"memory {last.max_rss_mib / first.max_rss_mib:.1f} times"
        )
    return lines


def role_table(statistics: dict[str, Any], group: str) -> list[str]:
    """Return the module executions by role on the host of a group that has the most."""
    hosts = {name: host for name, host in statistics["hosts"].items() if group in host["groups"]}
    if not hosts:
        return []
    name = max(sorted(hosts), key=lambda host: int(hosts[host]["modules"]["count"]))
    roles = sorted(hosts[name]["by_role"].items(), key=lambda item: (-item[1]["count"], item[0]))
    return [f"{group} ({name}):", *(f"  {tally['count']:>4}  {role}" for role, tally in roles)]


def run_playbook(playbook: str, inventories: Sequence[Path], log: Path, statistics: Path | None = None) -> Measurement:
    """Run a playbook of the clone, with its output in I(log), and return what it cost; raise BenchError if it fails."""
    command = [str(Path(sys.executable).parent / "ansible-playbook"), str(ROOT / "playbooks" / playbook)]
    command += ["--extra-vars", f"sandbox_owner={OWNER}"]
    for inventory in inventories:
        command += ["-i", str(inventory)]
    environment = {
        **os.environ,
        "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
        "ANSIBLE_COLLECTIONS_PATH": str(ROOT / "build"),
        "ANSIBLE_NOCOLOR": "1",
    }
    if statistics is not None:
        environment["ANSIBLE_CALLBACKS_ENABLED"] = "gpufleet.metal.run_statistics"
        environment["GPUFLEET_RUN_STATISTICS_PATH"] = str(statistics)
    log.parent.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    with log.open("wb") as stream:
        process = subprocess.Popen(
            command, cwd=ROOT, env=environment, stdin=subprocess.DEVNULL, stdout=stream, stderr=subprocess.STDOUT
        )
        try:
            ended = os.wait4(process.pid, 0)
        except BaseException:
            # Asked to end: nothing may go on while the hosts are removed.
            process.terminate()
            process.wait()
            raise
    process.returncode = os.waitstatus_to_exitcode(ended[1])
    usage = ended[2]
    wall = time.monotonic() - started
    if process.returncode != 0:
        tail = "\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-40:])
        raise BenchError(f"{' '.join(command)} ended with {process.returncode}; all of it: {log}\n{tail}")
    found = {"hosts": {}, "totals": {"modules": {"count": 0}}}
    if statistics is not None:
        found = json.loads(statistics.read_text(encoding="utf-8"))
    return measurement(found, wall, usage.ru_utime + usage.ru_stime, usage.ru_maxrss)


def measure(inventories: Sequence[Path], directory: Path) -> tuple[Measurement, dict[str, Any]]:
    """Run site.yml on a fleet that is converged, and insist that it changed nothing."""
    path = directory / "statistics.json"
    result = run_playbook("site.yml", inventories, directory / "measured.log", path)
    statistics: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    changed = budget.changes(statistics)
    if changed:
        raise BenchError("\n".join(changed))
    return result, statistics


def say(text: str) -> None:
    """Print a line at once."""
    print(text, flush=True)


def bench_sizes(sizes: Sequence[int], keep: bool) -> tuple[list[Measurement], dict[str, Any]]:
    """Measure fleets of growing size and return the measurements with the largest fleet's statistics."""
    measurements: list[Measurement] = []
    statistics: dict[str, Any] = {}
    inventories: list[Path] = []
    say("==> build the sandbox's images and media, where they are missing")
    subprocess.run([str(SANDBOX / "build.sh")], cwd=ROOT, check=True)
    try:
        for size in sizes:
            directory = OUTPUT / str(size)
            make_inventory.write(size, directory / "inventory")
            inventories = [CONNECTION, directory / "inventory" / "hosts.yml"]
            say(f"==> {size} hosts: create them")
            run_playbook("sandbox/create.yml", inventories, directory / "create.log")
            say(f"==> {size} hosts: record their hardware")
            run_playbook("discover.yml", inventories, directory / "discover.log")
            say(f"==> {size} hosts: converge them (not measured)")
            cost = run_playbook("site.yml", inventories, directory / "converge.log")
            say(f"    {cost.wall_seconds:.0f} s")
            say(f"==> {size} hosts: run again and measure")
            result, statistics = measure(inventories, directory)
            measurements.append(result)
            # So far: the larger the fleet, the longer one waits for the next row.
            for line in growth_table(measurements):
                say(f"    {line}")
    finally:
        if inventories and not keep:
            say("==> remove the hosts")
            run_playbook("sandbox/remove.yml", inventories, OUTPUT / "remove.log")
    return measurements, statistics


def interrupt(_number: int, _frame: object) -> None:
    """Treat a polite request to end like Ctrl-C, so that the hosts are removed."""
    raise KeyboardInterrupt


def main(arguments: Sequence[str]) -> int:
    """Measure what the command line asks for, print the tables and write build/bench/report.json."""
    parser = argparse.ArgumentParser(description="Measure a site.yml run that changes nothing.")
    parser.add_argument("--sizes", default="2,5,10,20", help="sizes of the fleets, growing (default 2,5,10,20)")
    parser.add_argument("--keep", action="store_true", help="leave the hosts of the bench standing")
    parser.add_argument("--inventory", type=Path, help="measure this converged fleet instead of making any")
    options = parser.parse_args(arguments)
    signal.signal(signal.SIGTERM, interrupt)
    # The collection of the runs is the copy of the working tree.
    copy_collection.main()
    try:
        if options.inventory is not None:
            result, statistics = measure([options.inventory], OUTPUT / "inventory")
            measurements = [result]
        else:
            sizes = sorted({int(size) for size in options.sizes.split(",")})
            measurements, statistics = bench_sizes(sizes, options.keep)
    except (BenchError, ValueError, subprocess.CalledProcessError) as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("bench: interrupted", file=sys.stderr)
        return 130
    say("")
    say("module executions of a no-change site.yml, on the host that has the most (gpu node, gateway) and on all")
    for line in growth_table(measurements):
        say(line)
    for group in budget.BUDGET:
        say("")
        for line in role_table(statistics, group):
            say(line)
    OUTPUT.mkdir(parents=True, exist_ok=True)
    report = {"measurements": [asdict(item) for item in measurements], "statistics": statistics}
    (OUTPUT / "report.json").write_text(json.dumps(report, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    problems = budget.excesses(statistics)
    for problem in problems:
        say(problem)
    limits = ", ".join(f"{limit} on a host of {group}" for group, limit in budget.BUDGET.items())
    say(f"budget ({limits}): {'exceeded' if problems else 'met'}")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
