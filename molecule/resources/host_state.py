# SPDX-License-Identifier: Apache-2.0
"""Note what a host is, and later say what was written on it since: what proves that check mode writes nothing.

    python3 host_state.py note STATE
    python3 host_state.py compare STATE ROOT... [--except PATTERN...]

`note` writes the time, the state of systemd and the live firewall into the file STATE. `compare` prints a line for each
file and directory below a ROOT whose inode changed since (content, owner, mode, name, or an entry of a directory that
came or went), and for each unit and table that differs; then it ends with 1. With `--files-only` both leave out systemd
and the firewall. Runs on the host, with what Python brings along.
"""

import argparse
import fnmatch
import json
import os
import shutil
import stat
import subprocess
import sys
import time

#: A file system stamps with the kernel's coarse clock, which lags behind the precise one by up to a tick.
TICK_NS = 20_000_000


def changed_below(root, since_ns, exceptions):
    """Yield the paths below a root, itself included, whose inode changed after a time; excepted ones are not entered.

    What is mounted below the root from elsewhere is not the host's: the media, and the container engine's store.
    """
    pending = [root]
    while pending:
        path = pending.pop()
        if any(fnmatch.fnmatch(path, pattern) for pattern in exceptions):
            continue
        try:
            found = os.lstat(path)
            if stat.S_ISDIR(found.st_mode):
                if path != root and os.path.ismount(path):
                    continue
                pending.extend(os.path.join(path, name) for name in os.listdir(path))
        except FileNotFoundError:
            continue
        if found.st_ctime_ns > since_ns:
            yield path


def output_of(*command):
    """Return the lines that a command prints; none where the host has no such program."""
    if shutil.which(command[0]) is None:
        return []
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines()


def units():
    """Return what systemd says of its services, sockets and timers, and when it last read its units."""
    if not os.path.isdir("/run/systemd/system"):
        return {}
    found = {"systemd": "".join(output_of("systemctl", "show", "--property=UnitsLoadTimestampMonotonic"))}
    for line in output_of("systemctl", "list-unit-files", "--no-legend", "--no-pager", "--plain"):
        name, state = line.split()[:2]
        found[f"{name} (file)"] = state
    # The change of state shows a restart, a reload and a stop; what a timer starts comes and goes by itself.
    wanted = "--property=Id,ActiveState,StateChangeTimestampMonotonic,TriggeredBy,Type"
    text = "\n".join(output_of("systemctl", "show", wanted, "*.service", "*.socket", "*.timer"))
    for block in text.split("\n\n"):
        unit = dict(line.split("=", 1) for line in block.splitlines() if "=" in line)
        if unit and ".timer" not in unit.get("TriggeredBy", "") and not unit["Id"].startswith(("user@", "session-")):
            kind = unit["Id"].rpartition(".")[2]
            found[unit["Id"]] = unit["ActiveState"] + (
                f" since {unit['StateChangeTimestampMonotonic']}" if kind == "service" else ""
            )
    return found


def tables():
    """Return the live firewall, without counters."""
    return output_of("nft", "--stateless", "list", "ruleset")


def differences(before, after):
    """Yield a line for each unit that differs between two states."""
    for name in sorted({*before, *after}):
        if before.get(name) != after.get(name):
            yield f"unit {name}: {before.get(name, 'absent')} -> {after.get(name, 'absent')}"


def main(arguments):
    """Do what the command line asks for and return the exit status."""
    parser = argparse.ArgumentParser()
    parser.add_argument("task", choices=["note", "compare"])
    parser.add_argument("state", help="file that keeps what was noted")
    parser.add_argument("roots", nargs="*", help="directories to look through")
    parser.add_argument("--except", dest="exceptions", nargs="*", default=[], help="patterns of paths that may change")
    parser.add_argument("--files-only", action="store_true", help="neither systemd nor the firewall")
    options = parser.parse_args(arguments)
    now = {"units": {}, "tables": []} if options.files_only else {"units": units(), "tables": tables()}
    if options.task == "note":
        with open(options.state, "w", encoding="utf-8") as stream:
            json.dump({**now, "time_ns": time.time_ns()}, stream)
        return 0
    with open(options.state, encoding="utf-8") as stream:
        before = json.load(stream)
    since = before["time_ns"] + TICK_NS
    lines = [
        f"written: {path}" for root in options.roots for path in sorted(changed_below(root, since, options.exceptions))
    ]
    lines.extend(differences(before["units"], now["units"]))
    if now["tables"] != before["tables"]:
        lines.append("the live firewall differs")
    print("\n".join(lines))
    return 1 if lines else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
