# SPDX-License-Identifier: Apache-2.0
# PRIVATE to the collection: do not import this from outside, it may change without notice.
"""Decide which files under /etc/apt describe a repository, when earlier entries for the same URL exist.

apt refuses to work when two entries for one URL name different keys ("Conflicting values set for option Signed-By"),
and hosts that were set up by hand or by another tool have such an entry more often than not. Here the entry of ours
replaces every other one. Formats: sources.list(5).
"""

from __future__ import annotations

import re
import urllib.parse
from collections.abc import Mapping
from dataclasses import dataclass

from ansible_collections.gpufleet.metal.plugins.module_utils._errors import InvalidInputError

_ONE_LINE = re.compile(r"^\s*deb(?:-src)?\s+(?:\[[^\]]*\]\s+)?(?P<uri>\S+)\s")
_FIELD = re.compile(r"^(?P<name>[A-Za-z-]+)\s*:\s*(?P<value>.*)$")


@dataclass(frozen=True)
class Repository:
    """A repository. ``components`` is empty for a flat one, whose suite ends in ``/``."""

    name: str
    uri: str
    suite: str
    components: tuple[str, ...]


def normal_uri(uri: str) -> str:
    """The form in which two spellings of one URL are equal."""
    parts = urllib.parse.urlsplit(uri.strip())
    return f"{parts.scheme.lower()}://{parts.netloc.lower()}{parts.path.rstrip('/')}"


def render(repository: Repository, key_path: str) -> str:
    """The repository as a deb822 file."""
    flat = repository.suite.endswith("/")
    if flat == bool(repository.components):
        wanted = "none, because the suite ends in '/'" if flat else "at least one"
        found = " ".join(repository.components) or "none"
        raise InvalidInputError(f"repository {repository.name!r}: components are {found}, wanted {wanted}")
    lines = ["# Managed by Ansible (gpufleet.metal)."]
    lines += ["Types: deb", f"URIs: {repository.uri}", f"Suites: {repository.suite}"]
    if repository.components:
        lines.append(f"Components: {' '.join(repository.components)}")
    lines.append(f"Signed-By: {key_path}")
    return "\n".join(lines) + "\n"


def plan(files: Mapping[str, str], repository: Repository, own_path: str, key_path: str) -> dict[str, str | None]:
    """What has to change: path -> new content, None to remove the file.

    ``files`` are all source files by path (``.list`` and ``.sources``); what needs no change isn't in the result.
    """
    changes: dict[str, str | None] = {}
    wanted = render(repository, key_path)
    if files.get(own_path) != wanted:
        changes[own_path] = wanted
    uri = normal_uri(repository.uri)
    for path, text in files.items():
        if path == own_path:
            continue
        kept = _without_stanzas(text, uri) if path.endswith(".sources") else _without_lines(text, uri)
        if kept is not None:
            changes[path] = kept if _has_entries(path, kept) else None
    return changes


def _without_lines(text: str, uri: str) -> str | None:
    """The one-line entries without those of a URL; None when there is none."""
    kept = []
    for line in text.splitlines(keepends=True):
        found = _ONE_LINE.match(line)
        if not (found and normal_uri(found.group("uri")) == uri):
            kept.append(line)
    new = "".join(kept)
    return None if new == text else new


def _without_stanzas(text: str, uri: str) -> str | None:
    """The deb822 stanzas without a URL; None when it isn't there. A stanza with other URLs keeps these."""
    stanzas = re.split(r"\n[ \t]*\n", text)
    kept = []
    changed = False
    for stanza in stanzas:
        uris = _stanza_uris(stanza)
        others = [other for other in uris if normal_uri(other) != uri]
        if len(others) == len(uris):
            kept.append(stanza)
            continue
        changed = True
        if others:
            kept.append(_with_uris(stanza, others))
    return "\n\n".join(part.strip("\n") for part in kept) + "\n" if changed else None


def _stanza_uris(stanza: str) -> list[str]:
    uris: list[str] = []
    inside = False
    for line in stanza.splitlines():
        if line.startswith("#"):
            continue
        field = _FIELD.match(line)
        if field:
            inside = field.group("name").lower() == "uris"
            if inside:
                uris += field.group("value").split()
        elif inside and line[:1] in (" ", "\t"):
            uris += line.split()
    return uris


def _with_uris(stanza: str, uris: list[str]) -> str:
    lines = []
    inside = False
    for line in stanza.splitlines():
        field = _FIELD.match(line)
        if field and not line.startswith("#"):
            inside = field.group("name").lower() == "uris"
            lines.append(f"URIs: {' '.join(uris)}" if inside else line)
        elif not (inside and line[:1] in (" ", "\t")):
            lines.append(line)
    return "\n".join(lines)


def _has_entries(path: str, text: str) -> bool:
    if path.endswith("/sources.list"):
        return True
    if path.endswith(".sources"):
        return bool(_stanza_uris(text))
    return any(_ONE_LINE.match(line) for line in text.splitlines())
