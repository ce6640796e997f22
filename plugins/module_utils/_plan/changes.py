# SPDX-License-Identifier: Apache-2.0
# PRIVATE to the collection: do not import this from outside, it may change without notice.
"""What a plan would change against the plan that was applied last."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .engine_tls import ENVIRONMENT, MODES
from .findings import natural_key
from .table import aligned, count, ranges

#: What happens to an instance, in the order in which it is told.
WORDS = ("added", "removed", "moved", "restarted")
#: Keys of an instance that are told in another way: the last ones are among the arguments.
_TOLD = frozenset(
    {
        "image",
        "arguments",
        "environment",
        "gpus",
        "context_length",
        "tensor_parallel_size",
        "pipeline_parallel_size",
        "workers",
        "shutdown_timeout_seconds",
        "model_source",
        "backend",
    }
)
#: How many changes the text names one by one.
SHOWN = 40


@dataclass(frozen=True)
class Change:
    """What happens to one instance."""

    #: One of WORDS.
    change: str
    model: str
    #: ``host/instance`` where it runs, or ran before it is removed.
    instance: str
    #: ``host/instance`` where a moved one ran before; empty otherwise.
    before: str
    why: str

    def as_dict(self) -> dict[str, str]:
        """Return the change as plain data."""
        return {
            "change": self.change,
            "model": self.model,
            "instance": self.instance,
            "before": self.before,
            "why": self.why,
        }


@dataclass(frozen=True)
class Changes:
    """All changes, and how many instances stay as they are; ``first`` tells that nothing was applied yet."""

    changes: tuple[Change, ...]
    unchanged: int
    first: bool

    def as_text(self) -> str:
        """Return the changes as aligned lines for a person."""
        if self.first:
            return f"Changes: nothing was applied yet, {count(len(self.changes), 'instance')} to start"
        if not self.changes:
            return f"Changes against the last applied plan: no change, {count(self.unchanged, 'instance')} as they are"
        totals = [(word, sum(1 for change in self.changes if change.change == word)) for word in WORDS]
        parts = [f"{number} {word}" for word, number in totals if number]
        head = f"Changes against the last applied plan: {', '.join(parts)}, {self.unchanged} unchanged"
        rows = [
            (
                f"  {change.change}",
                change.model,
                f"{change.before} -> {change.instance}" if change.before else change.instance,
                change.why,
            )
            for change in self.changes[:SHOWN]
        ]
        more = len(self.changes) - SHOWN
        return "\n".join([head, *aligned(rows), *([f"  and {more} more"] if more > 0 else [])])


def _parts(plan: Mapping[str, Any]) -> dict[tuple[str, str], dict[str, Any]]:
    """Return every instance by host and name, with its host's image and its GPUs as text."""
    return {
        (host, instance["name"]): {**instance, "host": host, "image": part["image"]}
        for host, part in plan["hosts"].items()
        for instance in part.get("instances", ())
    }


def _gpus(instance: Mapping[str, Any]) -> list[tuple[str, list[str]]]:
    """Return the GPUs of each of an instance's hosts; its own has no name. An older record has no other."""
    parts = [("", instance["gpus"]), *((worker["host"], worker["gpus"]) for worker in instance.get("workers", ()))]
    return [(host, [gpu["pci_address"] for gpu in gpus]) for host, gpus in parts]


def _place(instance: Mapping[str, Any]) -> str:
    texts = [_place_on_host(instance["gpus"])]
    texts += [f"{worker['host']} {_place_on_host(worker['gpus'])}" for worker in instance.get("workers", ())]
    return " and ".join(texts)


def _place_on_host(gpus: Sequence[Mapping[str, Any]]) -> str:
    indices = [gpu["index"] for gpu in gpus if isinstance(gpu.get("index"), int)]
    return f"GPU {ranges(indices) if indices else ', '.join(gpu['pci_address'] for gpu in gpus)}"


def _options(arguments: Sequence[Any]) -> dict[str, str]:
    """Return the arguments of an engine by option."""
    options: dict[str, list[str]] = {}
    option = ""
    for argument in map(str, arguments):
        if argument.startswith("--"):
            option, _equals, value = argument.partition("=")
            options[option] = [value] if value else []
        else:
            options.setdefault(option, []).append(argument)
    return {option: " ".join(values) for option, values in options.items()}


def _tls_mode(options: Mapping[str, str]) -> str:
    return MODES["--ssl-certfile" in options]


def _without_tls(values: Mapping[str, str]) -> dict[str, str]:
    """Return options or an environment without what fleet_engine.tls brings."""
    brought = {*ENVIRONMENT, "--enable-ssl-refresh"}
    return {key: value for key, value in values.items() if key not in brought and not key.startswith("--ssl-")}


def _image(image: Any) -> str:
    return str(image.get("reference")) if isinstance(image, Mapping) else "none"


def _source(text: str) -> str:
    """Return where a model comes from, with the beginning of its digest."""
    return re.sub(r"\b([0-9a-f]{12})[0-9a-f]{28,52}\b", r"\1", text)


def _differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """Return what makes an engine restart where it is, in words."""
    texts = []
    # A record of an older version says nothing of it: Docker was all there was.
    backend = old.get("backend", "docker")
    if backend != new["backend"]:
        texts.append(f"from {backend.capitalize()} to {new['backend'].capitalize()}")
    if old.get("image") != new["image"]:
        images = [_image(old.get("image")), _image(new["image"])]
        same = images[0] == images[1]
        texts.append(f"another archive or id of image {images[1]}" if same else f"image {' -> '.join(images)}")
    # A record of an older version may lack it.
    if old.get("model_source", new["model_source"]) != new["model_source"]:
        texts.append(f"files of the model {_source(old['model_source'])} -> {_source(new['model_source'])}")
    before_options, after_options = _options(old["arguments"]), _options(new["arguments"])
    before_environment, after_environment = old["environment"], new["environment"]
    modes = [_tls_mode(options) for options in (before_options, after_options)]
    if modes[0] != modes[1]:
        # One decision of the user; what comes of it is not told one by one.
        texts.append(f"fleet_engine.tls {' -> '.join(modes)}")
        before_options, after_options = _without_tls(before_options), _without_tls(after_options)
        before_environment, after_environment = _without_tls(before_environment), _without_tls(after_environment)
    for option in sorted({*before_options, *after_options}):
        before, after = before_options.get(option), after_options.get(option)
        if before != after and option != "--port":
            shown = [("absent" if text is None else text or "set") for text in (before, after)]
            texts.append(f"{option or 'model'} {shown[0]} -> {shown[1]}")
    for key in sorted({*before_environment, *after_environment}):
        before, after = before_environment.get(key), after_environment.get(key)
        if before != after:
            texts.append(f"{key} {'absent' if before is None else before} -> {'absent' if after is None else after}")
    texts += [
        f"{key} {old[key]} -> {new[key]}"
        for key in sorted(set(new) - _TOLD)
        # A record of an older version may lack a key.
        if key in old and old[key] != new[key]
    ]
    if old["gpus"] != new["gpus"]:
        named = not any(gpu.get("uuid") for gpu in old["gpus"]) and all(gpu.get("uuid") for gpu in new["gpus"])
        texts.append("its GPUs are now known by UUID" if named else "another name of its GPUs")
    return texts


def plan_changes(plan: Mapping[str, Any], applied: Mapping[str, Any] | None) -> Changes:
    """Compare a plan with what was applied last (applied.read_applied); None when nothing was."""
    new = _parts(plan)
    old = _parts(applied) if applied is not None else {}
    changes: list[Change] = []
    unchanged = 0
    gone: dict[str, list[dict[str, Any]]] = {}
    for key in sorted(old, key=lambda k: (natural_key(k[0]), natural_key(k[1]))):
        if key not in new or new[key]["model"] != old[key]["model"]:
            gone.setdefault(old[key]["model"], []).append(old[key])
    for key in sorted(new, key=lambda k: (natural_key(k[0]), natural_key(k[1]))):
        after = new[key]
        before = old.get(key)
        here = f"{key[0]}/{key[1]}"
        if before is not None and before["model"] == after["model"]:
            if _gpus(before) != _gpus(after):
                why = f"{_place(before)} -> {_place(after)}"
                changes.append(Change("moved", after["model"], here, here, why))
                continue
            differences = _differences(before, after)
            if differences:
                changes.append(Change("restarted", after["model"], here, "", "; ".join(differences)))
            else:
                unchanged += 1
        elif gone.get(after["model"]):
            origin = gone[after["model"]].pop(0)
            why = f"{_place(origin)} -> {_place(after)}"
            changes.append(Change("moved", after["model"], here, f"{origin['host']}/{origin['name']}", why))
        else:
            changes.append(Change("added", after["model"], here, "", _place(after)))
    for instances in gone.values():
        for instance in instances:
            why = _place(instance)
            if instance["model"] not in plan["models"]:
                why += ", its model is no longer served"
            elif instance["host"] not in plan["hosts"]:
                why += ", its host is no longer in the fleet"
            changes.append(Change("removed", instance["model"], f"{instance['host']}/{instance['name']}", "", why))
    changes.sort(key=lambda c: (WORDS.index(c.change), natural_key(c.model), natural_key(c.instance)))
    return Changes(tuple(changes), unchanged, applied is None)
