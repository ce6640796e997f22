# SPDX-License-Identifier: Apache-2.0
# PRIVATE to the collection: do not import this from outside, it may change without notice.
"""Where the plan takes a model's facts from: its entry, the record in the inventory, or the bundled table.

The facts are the model's own config.json and the size of its weights.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .findings import Finding, did_you_mean
from .known_models import KNOWN_MODELS
from .reader import Reader, shown

#: Reads the models' own files and writes what it finds into the inventory.
DESCRIBE = "ansible-playbook gpufleet.metal.describe_models"


@dataclass(frozen=True)
class Facts:
    """What is known about a model before it is loaded."""

    config: dict[str, Any]
    #: Bytes of the weights as they lie on the GPU.
    weights_bytes: int
    #: ``given`` in the entry, ``recorded`` in fleet_model_facts, or ``bundled`` in the table of known models.
    origin: str


def source_identity(source: Mapping[str, Any]) -> dict[str, Any]:
    """Return what makes the source of a model the same one: equal identities mean equal content.

    An archive is its digest, wherever it lies; so no URL (which may hold a password) gets into a record.
    """
    archive, hub = source.get("archive"), source.get("huggingface")
    if isinstance(archive, Mapping):
        return {"archive": {"sha256": str(archive.get("sha256")).lower()}}
    if isinstance(hub, Mapping):
        return {"huggingface": {"repository": str(hub.get("repository")), "revision": str(hub.get("revision"))}}
    return {"path": str(source.get("path"))}


def known_model_of(repository: str) -> str | None:
    """Return the name under which the table knows a repository of the Hugging Face hub, in whatever letter case."""
    wanted = repository.lower()
    for name, known in KNOWN_MODELS.items():
        if wanted in (str(other).lower() for other in known["repositories"]):
            return name
    return None


def read_facts(
    entry: Reader, name: str, source: Mapping[str, Any], recorded: Any, findings: list[Finding]
) -> Facts | None:
    """Return the facts of an entry of ``fleet_models``; None after a finding.

    Args:
        entry: the entry; its ``config``, ``weights_bytes`` and ``known_model`` are read here.
        name: the model's name.
        source: the entry's source, {} when it is wrong.
        recorded: the variable ``fleet_model_facts``; None when it is not set.
        findings: gets what is wrong.

    What the entry gives wins; the rest comes from the record, else from the table.
    """
    before = len(findings)
    config = entry.mapping("config", None, "the content of the model's config.json") or None
    weights_bytes = entry.integer("weights_bytes", None)
    known_name = entry.text("known_model", None, wanted="the name of a bundled model, or null")
    if known_name is not None and known_name not in KNOWN_MODELS:
        entry.report(
            "invalid_value",
            f"{entry.path}.known_model is {shown(known_name)}",
            f"the name of a bundled model{did_you_mean(known_name, KNOWN_MODELS)}; docs/models.md lists them",
            f"correct {entry.path}.known_model, or remove it and run {DESCRIBE}",
        )
        return None
    if config is not None and weights_bytes is not None:
        return Facts(config, weights_bytes, "given")
    if len(findings) > before or not source:
        return None
    found, ok = _recorded(entry, name, source, recorded, findings)
    if found is None and ok:
        repository = source.get("huggingface", {}).get("repository")
        known_name = known_name or (known_model_of(repository) if repository else None)
        if known_name is None:
            _report_missing(entry, name, source, config, weights_bytes)
            return None
        known = KNOWN_MODELS[known_name]
        found = Facts(copy.deepcopy(known["config"]), known["weights_bytes"], "bundled")
    if found is None:
        entry.ok = False
        return None
    return Facts(
        found.config if config is None else config,
        found.weights_bytes if weights_bytes is None else weights_bytes,
        found.origin,
    )


def _recorded(
    entry: Reader, name: str, source: Mapping[str, Any], recorded: Any, findings: list[Finding]
) -> tuple[Facts | None, bool]:
    """Return (the recorded facts or None, whether there was nothing wrong with the record)."""
    if recorded is None or (isinstance(recorded, Mapping) and name not in recorded):
        return None, True
    if not isinstance(recorded, Mapping):
        entry.report(
            "wrong_type",
            f"fleet_model_facts is {shown(recorded)}",
            "a mapping of models' names to their recorded facts",
            f"remove fleet_model_facts and run {DESCRIBE}",
        )
        return None, False
    before = len(findings)
    record = Reader(recorded[name], f"fleet_model_facts[{name}]", "model", name, findings)
    if record.absent:
        return None, True
    if len(findings) > before:
        return None, False
    record_source = record.mapping("source", wanted="where the facts were read from")
    config = record.mapping("config", wanted="the content of the model's config.json")
    weights_bytes = record.integer("weights_bytes")
    record.text("weights_from", None)
    record.finish()
    if len(findings) > before:
        return None, False
    here, there = source_identity(source), source_identity(record_source)
    if here != there:
        entry.report(
            "model_facts_stale",
            f"fleet_model_facts[{name}] was read from {_source_text(there)}",
            f"facts of {_source_text(here)}",
            f"run {DESCRIBE} and commit group_vars/all/fleet_model_facts.yml",
        )
        return None, False
    return Facts(config, weights_bytes, "recorded"), True


def _report_missing(
    entry: Reader, name: str, source: Mapping[str, Any], config: Any, weights_bytes: int | None
) -> None:
    missing = [key for key, value in (("config", config), ("weights_bytes", weights_bytes)) if value is None]
    keys = " and ".join(f"{entry.path}.{key}" for key in missing)
    repository = source.get("huggingface", {}).get("repository")
    table = f"the bundled table does not know {repository}" if repository else f"{entry.path}.known_model is not set"
    entry.report(
        "model_facts_missing",
        f"{keys} {'is' if len(missing) == 1 else 'are'} not set, nothing is recorded in fleet_model_facts, and {table}",
        "the model's config.json and the bytes of its weights",
        f"run {DESCRIBE} and commit group_vars/all/fleet_model_facts.yml; or set known_model"
        f"{did_you_mean(name, KNOWN_MODELS)}; or set config and weights_bytes",
    )


def _source_text(identity: Mapping[str, Any]) -> str:
    if "archive" in identity:
        return f"the archive with sha256 {identity['archive']['sha256']}"
    if "huggingface" in identity:
        return f"{identity['huggingface']['repository']} at {identity['huggingface']['revision']}"
    return str(identity["path"])
