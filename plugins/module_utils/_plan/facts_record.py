# SPDX-License-Identifier: Apache-2.0
# PRIVATE to the collection: do not import this from outside, it may change without notice.
"""The recorded facts of models: ``fleet_model_facts``, and the commented YAML file that holds it.

The text depends on the facts alone (no dates, sorted), so that describing the same models again changes nothing and a
change of a model shows up as a small diff in the user's repository.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ansible_collections.gpufleet.metal.plugins.module_utils._errors import FleetError, InvalidInputError

from .config_keys import plan_keys
from .facts import source_identity
from .findings import natural_key
from .reader import as_integer, shown

HEAD = """\
---
# What the fleet's models say about themselves, read from their own files. The plan is made from it: review it and
# commit it. Written by `ansible-playbook gpufleet.metal.describe_models`, which keeps what it did not read again;
# the entry of a model that is gone can be removed.
# weights_from: index (metadata.total_size of the safetensors index), headers (of the safetensors files), or files
# (their size, in formats that do not say more). Of config.json, only what the plan reads is here.
"""
#: Keys of one record, in the order in which they are written.
_KEYS = ("source", "weights_bytes", "weights_from", "config")
#: What Ansible would take for a template when it reads the file.
_TEMPLATE = re.compile(r"\{\{|\{%|\{#")
#: A key that YAML reads as this very text.
_PLAIN_KEY = re.compile(r"[a-z_][a-z0-9_]*")


def merged(described: Mapping[str, Any], entries: Sequence[Any], recorded: Any) -> dict[str, dict[str, Any]]:
    """Return the records of all models: those that were described anew, and the others as they were.

    Args:
        described: model -> config, weights_bytes and weights_from, as model_facts_info returns it.
        entries: ``fleet_models``, for the sources.
        recorded: ``fleet_model_facts`` as the file holds it; None without a file.

    Raises:
        InvalidInputError: a value would not be safe in an inventory, or ``recorded`` is no mapping of records.
    """
    if recorded is None:
        recorded = {}
    if not isinstance(recorded, Mapping) or not all(isinstance(record, Mapping) for record in recorded.values()):
        raise InvalidInputError(
            f"fleet_model_facts is {shown(recorded)}, wanted a mapping of models to mappings: remove the file that "
            "holds it and describe the models again"
        )
    sources = {entry["name"]: entry["source"] for entry in entries}
    records: dict[str, dict[str, Any]] = {str(name): dict(record) for name, record in recorded.items()}
    for name, facts in described.items():
        weights_bytes = as_integer(facts["weights_bytes"])
        if weights_bytes is None or weights_bytes < 1:
            raise InvalidInputError(f"model {name!r}: weights_bytes is {facts['weights_bytes']!r}, wanted 1 or more")
        try:
            config = plan_keys(facts["config"], "config.json")
        except FleetError as error:
            raise InvalidInputError(f"model {name!r}: {error}") from error
        records[str(name)] = {
            "source": source_identity(sources[name]),
            "weights_bytes": weights_bytes,
            "weights_from": str(facts["weights_from"]),
            "config": config,
        }
    return {name: records[name] for name in sorted(records, key=natural_key)}


def document(described: Mapping[str, Any], entries: Sequence[Any], recorded: Any) -> str:
    """Return the text of ``group_vars/all/fleet_model_facts.yml``; see merged for arguments and errors."""
    records = merged(described, entries, recorded)
    lines = ["fleet_model_facts: {}" if not records else "fleet_model_facts:"]
    for name, record in records.items():
        lines.append(f"  {json.dumps(name)}:")
        ordered = [key for key in _KEYS if key in record] + sorted(key for key in record if key not in _KEYS)
        for key in ordered:
            lines.extend(_lines(key, record[key], 4))
    text = HEAD + "\n".join(lines) + "\n"
    found = _TEMPLATE.search(text)
    if found:
        raise InvalidInputError(
            f"the facts of a model hold {found.group()!r}, wanted nothing that Ansible takes for a template"
        )
    return text


def _lines(key: Any, value: Any, indent: int) -> Iterator[str]:
    head = f"{' ' * indent}{key if _PLAIN_KEY.fullmatch(str(key)) else json.dumps(str(key))}:"
    if isinstance(value, Mapping) and value:
        yield head
        for inner in sorted(value, key=str):
            yield from _lines(inner, value[inner], indent + 2)
    else:
        yield f"{head} {json.dumps(value, sort_keys=True)}"
