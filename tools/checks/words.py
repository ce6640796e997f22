# SPDX-License-Identifier: Apache-2.0
"""Find what does not belong into the repository: paths of one machine, unknown hosts, unfinished and swallowed things.

Every host of a URL must be in tools/checks/hosts.txt with its reason. So a private mirror cannot slip in, and the file
is the list of everything that the collection may ever talk to.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

from .repository import ROOT, report, tracked_files

HOSTS_FILE = "tools/checks/hosts.txt"
#: Files that are other people's text or made by tools.
SKIPPED = re.compile(r"^(LICENSE|CHANGELOG\.md|changelogs/changelog\.yaml|tools/checks/hosts\.txt|.*\.lock)$")
URL_HOST = re.compile(r"\bhttps?://([A-Za-z0-9][A-Za-z0-9.-]*\.[A-Za-z0-9-]+)")
#: Names that nobody can own (RFC 2606, RFC 6761) and addresses that nobody routes (RFC 5737, RFC 1918, loopback).
RESERVED_HOST = re.compile(
    r"(.*\.)?(example(\.(com|net|org))?|test|invalid|localhost|internal)"
    r"|127\..*|10\..*|192\.168\..*|172\.(1[6-9]|2\d|3[01])\..*|192\.0\.2\..*|198\.51\.100\..*|203\.0\.113\..*"
)
RULES = (
    ("a path of one developer's machine", re.compile(r"(?<![\w./-])/wor[k]/|/Users/\w|/tmp/(?:coll|contract|venv)\b")),
    ("unfinished by its own words", re.compile(r"\b(?:TO[D]O|FIX[M]E|XX[X]|NotImplementedErr[o]r)\b")),
    ("a check that cannot fail", re.compile(r"^\s*(?:that: *(?:true|\[true\])|assert True)\s*$")),
)
#: These need a comment on the line or just above that says why an error means nothing there.
SWALLOWED = re.compile(r"ignore_errors: *tru[e]|failed_when: *fals[e]|\|\| *tru[e]\b")
COMMENT = re.compile(r"(^|\s)(#|//|\{#)")


def known_hosts(text: str) -> set[str]:
    """Return the hosts of hosts.txt, which has one host and its reason on a line."""
    return {line.split()[0] for line in text.splitlines() if line.strip() and not line.startswith("#")}


def findings(text: str, hosts: set[str]) -> Iterator[tuple[int, str]]:
    """Yield the number of each line that breaks a rule, with the rule and what was found."""
    previous = ""
    for number, line in enumerate(text.splitlines(), 1):
        for rule, pattern in RULES:
            found = pattern.search(line)
            if found:
                yield number, f"{rule}: {found.group().strip()}"
        swallowed = SWALLOWED.search(line)
        if swallowed and not COMMENT.search(line[swallowed.end() :]) and not COMMENT.match(previous.strip()):
            yield number, f"an error is swallowed and no comment says why: {swallowed.group()}"
        for host in URL_HOST.findall(line):
            if host.lower() not in hosts and not RESERVED_HOST.fullmatch(host.lower()):
                yield number, f"a host that {HOSTS_FILE} does not name: {host}"
        previous = line


def lacks_licence(name: str, text: str) -> bool:
    """Say whether a file that can carry a comment lacks its SPDX line."""
    kinds = (".py", ".sh", ".yml", ".yaml", ".j2", ".toml", ".ini", ".cfg", ".txt", ".js", ".conf", ".c")
    # Recordings are data, and discover writes the same bytes into anybody's inventory.
    if "/fixtures/" in name or name.startswith("changelogs/fragments/") or name.endswith("/gpu_inventory.yml"):
        return False
    if not name.endswith(kinds) and Path(name).name not in ("Makefile", "Dockerfile", "run"):
        return False
    return bool(text.strip()) and "SPDX-License-Identifier: Apache-2.0" not in "\n".join(text.splitlines()[:20])


def main() -> int:
    """Check every text file of the repository."""
    hosts = known_hosts((ROOT / HOSTS_FILE).read_text(encoding="utf-8"))
    problems: list[str] = []
    count = 0
    for name in tracked_files():
        if SKIPPED.match(name):
            continue
        try:
            text = (ROOT / name).read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
        count += 1
        problems.extend(f"{name}:{number}: {what}" for number, what in findings(text, hosts))
        if lacks_licence(name, text):
            problems.append(f"{name}:1: no line SPDX-License-Identifier: Apache-2.0")
    return report("words", problems, f"{count} files are clean")


if __name__ == "__main__":
    sys.exit(main())
