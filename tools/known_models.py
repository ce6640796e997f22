# SPDX-License-Identifier: Apache-2.0
"""Add a model to the bundled table that the plan takes facts from when nothing else is known.

    python tools/known_models.py add --name qwen3-8b --repository Qwen/Qwen3-8B \
      --config config.json --index model.safetensors.index.json \
      --source https://huggingface.co/Qwen/Qwen3-8B/blob/9c925d64d72725edaf899c6cb9c377fd0709d9c5/config.json

The table, plugins/module_utils/_plan/known_models.py, is written anew, sorted by name. Afterwards
`python -m tools.checks.known_models --write` brings docs/models.md up to date.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import json
import re
import sys
import types
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
TABLE = ROOT / "plugins" / "module_utils" / "_plan" / "known_models.py"
PLAN = "ansible_collections.gpufleet.metal.plugins.module_utils._plan"
WIDTH = 120
HEADER = '''\
# SPDX-License-Identifier: Apache-2.0
# PRIVATE to the collection: do not import this from outside, it may change without notice.
"""Facts of well-known models, so that planning works offline: written by tools/known_models.py. Do not edit.

Of each model: the repositories of the Hugging Face hub that hold it, the keys of its config.json that the plan reads,
the bytes of its weights and where that figure comes from (``index``: metadata.total_size of the safetensors index;
``headers``: the sum of the tensors; ``parameters``: their number times their size), the source of the configuration,
and what else has to be known.
"""

from __future__ import annotations

from typing import Any

'''
#: Where the bytes of the weights come from.
ORIGINS = ("index", "headers", "parameters")


class RefusedError(ValueError):
    """An entry that the table does not take."""


def plan_module(name: str) -> Any:
    """Return a module of the plan, imported under its real name from this working tree."""
    path = ""
    for part in ("ansible_collections", "gpufleet", "metal"):
        path = f"{path}.{part}" if path else part
        if path not in sys.modules:
            module = types.ModuleType(path)
            # Nothing below the first two is imported but the collection, and that is the working tree.
            module.__path__ = [str(ROOT)] if part == "metal" else []
            sys.modules[path] = module
    return importlib.import_module(f"{PLAN}.{name}")


def load(path: Path) -> dict[str, dict[str, Any]]:
    """Return the models of a table."""
    spec = importlib.util.spec_from_file_location("known_models_table", path)
    if spec is None or spec.loader is None:
        raise RefusedError(f"{path}: not a Python file")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    models: dict[str, dict[str, Any]] = module.KNOWN_MODELS
    return models


def pieces(text: str, width: int) -> Iterator[str]:
    """Yield the parts of a text whose literals are not wider than ``width``, cut after a space where there is one."""
    while len(json.dumps(text, ensure_ascii=False)) > width:
        cut = text.rfind(" ", 0, width - 2) + 1 or width - 2
        yield text[:cut]
        text = text[cut:]
    yield text


def literal(value: Any, indent: int, before: int) -> str:
    """Return a value as Python, formatted as `ruff format` does; ``before``: characters before it on its line."""
    pad = " " * indent
    if isinstance(value, Mapping):
        lines = []
        for key, inner in value.items():
            head = f"{pad}    {json.dumps(key)}: "
            lines.append(f"{head}{literal(inner, indent + 4, len(head))},\n")
        return "{\n" + "".join(lines) + pad + "}"
    if isinstance(value, list):
        line = f"[{', '.join(literal(item, indent, 0) for item in value)}]"
        if before + len(line) + 1 <= WIDTH:
            return line
        return "[\n" + "".join(f"{pad}    {literal(item, indent + 4, indent + 4)},\n" for item in value) + pad + "]"
    if isinstance(value, str):
        line = json.dumps(value, ensure_ascii=False)
        if before + len(line) + 1 <= WIDTH:
            return line
        quoted = (json.dumps(part, ensure_ascii=False) for part in pieces(value, WIDTH - indent - 4))
        return "(\n" + "".join(f"{pad}    {part}\n" for part in quoted) + pad + ")"
    return repr(value)


def render(models: Mapping[str, Mapping[str, Any]]) -> str:
    """Return the table as a module."""
    natural_key = plan_module("findings").natural_key
    ordered = {name: models[name] for name in sorted(models, key=natural_key)}
    return f"{HEADER}KNOWN_MODELS: dict[str, dict[str, Any]] = {literal(ordered, 0, 0)}\n"


def make_entry(
    models: Mapping[str, Mapping[str, Any]],
    name: str,
    repositories: Sequence[str],
    config: Any,
    weights_bytes: int,
    weights_from: str,
    source: str,
    note: str,
) -> dict[str, Any]:
    """Return an entry of the table.

    Raises:
        RefusedError: the name or a repository is there already, a value is not of the wanted form, or the plan cannot
            read the configuration.
    """
    reader, schema = plan_module("reader"), plan_module("schema")
    if not reader.NAME.fullmatch(name):
        raise RefusedError(f"--name is {name!r}, wanted up to 63 of a-z, 0-9, '.', '_' and '-'")
    if name in models:
        raise RefusedError(f"--name: the table has {name} already; remove that entry first to replace it")
    for repository in repositories:
        if not reader.REPOSITORY.fullmatch(repository):
            raise RefusedError(f"--repository is {repository!r}, wanted organisation/name")
        for other, known in models.items():
            if repository.lower() in (text.lower() for text in known["repositories"]):
                raise RefusedError(f"--repository: {repository} belongs to {other} already")
    if not re.fullmatch(r"https://\S+", source):
        raise RefusedError(f"--source is {source!r}, wanted the https:// address where the configuration was read")
    if weights_bytes < 1:
        raise RefusedError(f"the weights have {weights_bytes} bytes, wanted 1 or more")
    if not isinstance(config, dict):
        raise RefusedError(f"--config holds a {type(config).__name__}, wanted the JSON object of a config.json")
    try:
        kept = plan_module("config_keys").plan_keys(config)
    except ValueError as error:
        raise RefusedError(f"--config: {error}") from error
    findings: list[Any] = []
    model = schema.Model(
        name=name,
        source={},
        files_sha256={},
        config=kept,
        weights_bytes=weights_bytes,
        facts="bundled",
        context_length=1,
        concurrency=1,
        tensor_parallel_size=None,
        replicas=None,
        quantization=None,
        minimum_compute_capability=None,
        arguments={},
    )
    if plan_module("architecture").read_architecture(model, findings) is None:
        faults = "; ".join(f"{finding.found}, wanted {finding.wanted}" for finding in findings)
        raise RefusedError(f"--config: {faults}")
    entry = {
        "repositories": list(repositories),
        "config": kept,
        "weights_bytes": weights_bytes,
        "weights_from": weights_from,
        "source": source,
    }
    if note:
        entry["note"] = note
    return entry


def read_json(path: Path) -> Any:
    """Return the value of a JSON file; RefusedError when it has none."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RefusedError(f"{path}: {error}") from error


def total_size(index: Any, path: Path) -> int:
    """Return metadata.total_size of a safetensors index; RefusedError when it has none."""
    metadata = index.get("metadata") if isinstance(index, dict) else None
    size = metadata.get("total_size") if isinstance(metadata, dict) else None
    if isinstance(size, bool) or not isinstance(size, int):
        raise RefusedError(f"{path}: metadata.total_size is {size!r}, wanted a number of bytes")
    return size


def main(arguments: Sequence[str]) -> int:
    """Add one model to the table."""
    parser = argparse.ArgumentParser(description="Keep the bundled table of well-known models.")
    add = parser.add_subparsers(required=True).add_parser("add", help="add a model")
    add.add_argument("--name", required=True, help="its name in the table, which known_model takes")
    add.add_argument(
        "--repository", action="append", default=[], help="organisation/name on the Hugging Face hub; repeatable"
    )
    add.add_argument("--config", required=True, type=Path, help="the model's own config.json")
    weights = add.add_mutually_exclusive_group(required=True)
    weights.add_argument("--index", type=Path, help="its model.safetensors.index.json")
    weights.add_argument("--weights-bytes", type=int, help="bytes of its weights, where there is no index")
    add.add_argument("--weights-from", choices=ORIGINS, default="parameters", help="where --weights-bytes comes from")
    add.add_argument("--source", required=True, help="where the configuration was read: an https:// address")
    add.add_argument("--note", default="", help="what else has to be known")
    add.add_argument("--table", type=Path, default=TABLE, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    try:
        models = load(options.table)
        size = options.weights_bytes if options.index is None else total_size(read_json(options.index), options.index)
        models[options.name] = make_entry(
            models,
            options.name,
            options.repository,
            read_json(options.config),
            size,
            options.weights_from if options.index is None else "index",
            options.source,
            options.note,
        )
    except RefusedError as error:
        print(error, file=sys.stderr)
        return 1
    options.table.write_text(render(models), encoding="utf-8")
    print(f"{options.name}: added; now run `python -m tools.checks.known_models --write`")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
