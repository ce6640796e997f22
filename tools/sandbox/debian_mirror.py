# SPDX-License-Identifier: Apache-2.0
"""Print the Debian mirror that this machine's own apt uses, and that of Debian's security updates, one on a line.

    apt-get indextargets --format "$FORMAT" 'Created-By: Packages' | python3 tools/sandbox/debian_mirror.py /etc/apt

What apt has downloaded says where it comes from (`Origin: Debian`). A machine that never ran `apt-get update` has only
its sources; there a repository counts as Debian's by what only Debian's have: its keyring, or updates of a release
beside the release. Others (Docker, NGINX, Zabbix...) name Debian's releases too. A line is empty where there is no
such mirror.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import urlsplit

#: What build.sh asks `apt-get indextargets` for: the fields of a line of it.
FORMAT = "$(REPO_URI)|$(ORIGIN)|$(LABEL)|$(COMPONENT)"
CODENAMES = "bullseye|bookworm|trixie|forky|duke|sid"
SUITES = f"{CODENAMES}|oldoldstable|oldstable|stable|testing|unstable"
CODENAME = re.compile(rf"({CODENAMES})\b.*")
RELEASE = re.compile(rf"({SUITES})(-updates)?")
UPDATES = re.compile(rf"({SUITES})-updates")
SECURITY = re.compile(rf"({SUITES})(-security|/updates)")
KEYRING = re.compile(r"debian-archive-[a-z-]*\.(gpg|pgp)")


@dataclass(frozen=True)
class Repository:
    """One enabled repository of binary packages, at one address."""

    uri: str
    suites: tuple[str, ...]
    components: tuple[str, ...]
    signed_by: str = ""


def _one_line(text: str) -> Iterator[Repository]:
    """Yield the repositories of a `.list` file."""
    for line in text.splitlines():
        found = re.match(
            r"\s*deb\s+(?:\[(?P<options>[^\]]*)\]\s+)?(?P<uri>\S+)\s+(?P<suite>\S+)\s*(?P<rest>[^#]*)", line
        )
        if found:
            signed_by = re.search(r"signed-by=(\S+)", found["options"] or "", re.IGNORECASE)
            yield Repository(
                found["uri"], (found["suite"],), tuple(found["rest"].split()), signed_by[1] if signed_by else ""
            )


def _stanzas(text: str) -> Iterator[dict[str, str]]:
    """Yield the fields of each stanza of a `.sources` file, by their names in lower case."""
    fields: dict[str, str] = {}
    name = ""
    for line in [*text.splitlines(), ""]:
        if line.startswith("#"):
            continue
        if not line.strip():
            if fields:
                yield fields
            fields, name = {}, ""
        elif line[0].isspace():
            fields[name] = f"{fields.get(name, '')} {line.strip()}"
        else:
            name, _colon, value = line.partition(":")
            name = name.strip().lower()
            fields[name] = value.strip()


def _deb822(text: str) -> Iterator[Repository]:
    """Yield the repositories of a `.sources` file."""
    for fields in _stanzas(text):
        if "deb" not in fields.get("types", "").split() or fields.get("enabled", "yes").lower() in ("no", "false", "0"):
            continue
        for uri in fields.get("uris", "").split():
            yield Repository(
                uri,
                tuple(fields.get("suites", "").split()),
                tuple(fields.get("components", "").split()),
                fields.get("signed-by", ""),
            )


def repositories(sources: Mapping[str, str]) -> list[Repository]:
    """Return the enabled repositories of apt's source files (name and text), in the order of the names."""
    return [
        repository
        for name in sorted(sources)
        for repository in (_deb822 if name.endswith(".sources") else _one_line)(sources[name])
    ]


def resolve(uri: str, read: Callable[[str], str]) -> str:
    """Return the address behind an apt URI, without a slash at its end; nothing where mmdebstrap could not use it.

    Debian's cloud images name their mirrors in a file: I(read) returns its text.
    """
    if uri.startswith("mirror+file:"):
        lines = [line.split()[0] for line in read(urlsplit(uri).path).splitlines() if line.strip() and line[0] != "#"]
        uri = lines[0] if lines else ""
    return uri.rstrip("/") if urlsplit(uri).scheme in ("http", "https") else ""


def _from_targets(targets: str, label: str) -> Iterator[str]:
    for line in targets.splitlines():
        uri, origin, of, component = [*line.split("|"), "", "", ""][:4]
        if (origin, of, component) == ("Debian", label, "main"):
            yield uri


def _from_sources(found: Sequence[Repository], wanted: re.Pattern[str], path: str) -> Iterator[str]:
    """Yield the addresses that may be Debian's, the surest first."""
    updated = {repository.uri for repository in found if any(map(UPDATES.fullmatch, repository.suites))}
    ranked: list[tuple[int, str]] = []
    for repository in found:
        if "main" in repository.components and any(map(wanted.fullmatch, repository.suites)):
            signed = bool(KEYRING.search(repository.signed_by))
            named = repository.uri.endswith(path) and any(map(CODENAME.fullmatch, repository.suites))
            if signed or named or repository.uri in updated:
                ranked.append((2 * signed + (repository.uri in updated), repository.uri))
    yield from (uri for _rank, uri in sorted(ranked, key=lambda item: item[0], reverse=True))


def choose(targets: str, sources: Mapping[str, str], read: Callable[[str], str]) -> tuple[str, str]:
    """Return Debian's mirror and that of its security updates, from apt's index targets, else from its sources.

    Args:
        targets: What `apt-get indextargets` prints with FORMAT; it has no origins before the first `apt-get update`.
        sources: apt's source files, name and text.
        read: Returns the text of a file, for lists of mirrors.
    """
    resolved = [replace(repository, uri=resolve(repository.uri, read)) for repository in repositories(sources)]
    found = [repository for repository in resolved if repository.uri]
    told = ([resolve(uri, read) for uri in _from_targets(targets, label)] for label in ("Debian", "Debian-Security"))
    guessed = (_from_sources(found, RELEASE, "/debian"), _from_sources(found, SECURITY, "/debian-security"))
    main, security = (next(filter(None, [*sure, *maybe]), "") for sure, maybe in zip(told, guessed, strict=True))
    return main, security


def main() -> int:
    """Print what was chosen."""
    place = Path(sys.argv[1])
    files = [place / "sources.list", *place.glob("sources.list.d/*.list"), *place.glob("sources.list.d/*.sources")]
    sources = {path.name: path.read_text(encoding="utf-8") for path in files if path.is_file()}
    print("\n".join(choose(sys.stdin.read(), sources, lambda path: Path(path).read_text(encoding="utf-8"))))
    return 0


if __name__ == "__main__":
    sys.exit(main())
