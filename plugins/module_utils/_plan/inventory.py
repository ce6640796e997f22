# SPDX-License-Identifier: Apache-2.0
# PRIVATE to the collection: do not import this from outside, it may change without notice.
"""The inventory read as a whole: what is wrong with it is a finding, the rest is read on."""

from __future__ import annotations

import contextlib
import ipaddress
import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from .autoscaling import read_autoscaling
from .cluster import read_cluster
from .engine_tls import MODES
from .facts import read_facts
from .findings import Finding, did_you_mean, natural_key, some_of
from .hardware import read_hosts
from .monitoring import read_monitoring
from .reader import (
    COMMIT,
    NAME,
    REPOSITORY,
    SHA256,
    Reader,
    is_alternative_name,
    is_directory,
    is_endpoint_name,
    is_file_below,
    is_ip,
    is_url,
    matches,
    shown,
)
from .schema import (
    DEFAULT_FLEET_NAME,
    DEFAULT_MODELS_DIRECTORY,
    FLEET_VARIABLES,
    HOST_FLEET_VARIABLES,
    PLAYBOOK_VARIABLES,
    Endpoint,
    Engine,
    Fleet,
    Image,
    Inventory,
    Model,
)

_IMAGE = re.compile(
    r"(?P<name>[a-z0-9][A-Za-z0-9.:_/-]*?)(:(?P<tag>[A-Za-z0-9_][A-Za-z0-9._-]{0,127}))?(@(?P<digest>sha256:[0-9a-f]{64}))?"
)


def _read_source(reader: Reader) -> dict[str, Any]:
    """Read where a model comes from: exactly one of a path, an archive or a Hugging Face revision."""
    kinds = ("archive", "huggingface", "path")
    given = [kind for kind in kinds if reader.has(kind)]
    reader.known(*kinds)
    if len(given) != 1:
        reader.report(
            "invalid_value",
            f"{reader.path} has {' and '.join(given) if given else 'none of them'}",
            f"exactly one of {', '.join(kinds)}",
            f"keep one of them in {reader.path}",
        )
        reader.finish()
        return {}
    source: dict[str, Any] = {}
    kind = given[0]
    if kind == "path":
        source["path"] = reader.text("path", check=is_directory, wanted="an absolute directory on the host, normalised")
    elif kind == "archive":
        child = reader.child("archive")
        source["archive"] = {
            "url": child.text("url", check=is_url, wanted="a URL that starts with file:///, http:// or https://"),
            "sha256": child.text("sha256", check=matches(SHA256), wanted="64 lower-case hexadecimal digits"),
        }
        child.finish()
        reader.ok = reader.ok and child.ok
    else:
        child = reader.child("huggingface")
        source["huggingface"] = {
            "repository": child.text("repository", check=matches(REPOSITORY), wanted="organisation/name"),
            "revision": child.text(
                "revision", check=matches(COMMIT), wanted="the 40 hexadecimal digits of a commit (a branch can move)"
            ),
        }
        child.finish()
        reader.ok = reader.ok and child.ok
    reader.finish()
    return source


def _read_model(value: Any, position: int, recorded: Any, findings: list[Finding]) -> Model | None:
    """Read one entry of ``fleet_models``; None when it cannot be planned. ``recorded`` is ``fleet_model_facts``."""
    name = value.get("name") if isinstance(value, Mapping) else None
    subject = name if isinstance(name, str) and name else f"number {position + 1}"
    reader = Reader(
        value,
        f"fleet_models[{subject}]" if subject == name else f"fleet_models[{position}]",
        "model",
        subject,
        findings,
    )
    if value is None:
        reader.report("wrong_type", f"{reader.path} is nothing", "a mapping", "remove the empty entry of fleet_models")
    if not reader.ok:
        return None
    reader.text(
        "name", check=matches(NAME), wanted="up to 63 of a-z, 0-9, '.', '_' and '-', the first a letter or a digit"
    )
    source_reader = reader.child("source")
    source = _read_source(source_reader)
    files = reader.mapping("files_sha256", {}, "a mapping of file names to SHA-256 digests")
    for file, digest in sorted(files.items(), key=lambda item: str(item[0])):
        if not (isinstance(file, str) and is_file_below(file)):
            reader.report(
                "invalid_value",
                f'{reader.path}.files_sha256 has "{file}"',
                "names of files below the model's directory",
                f'correct "{file}"',
            )
        elif not (isinstance(digest, str) and SHA256.fullmatch(digest)):
            reader.report(
                "invalid_value",
                f"{reader.path}.files_sha256[{file}] is {shown(digest)}",
                "64 lower-case hexadecimal digits",
                f"correct the digest of {file}",
            )
    facts = read_facts(reader, subject, source if source_reader.ok else {}, recorded, findings)
    model = Model(
        name=subject,
        source=source,
        files_sha256={key: files[key] for key in sorted(files, key=str)},
        config=facts.config if facts else {},
        weights_bytes=facts.weights_bytes if facts else 0,
        facts=facts.origin if facts else "",
        context_length=reader.integer("context_length"),
        concurrency=reader.integer("concurrency", 1),
        tensor_parallel_size=reader.integer_or_auto("tensor_parallel_size"),
        replicas=reader.integer_or_auto("replicas"),
        quantization=reader.text("quantization", None, wanted="the name of a quantization, or null"),
        minimum_compute_capability=reader.capability("minimum_compute_capability"),
        arguments=reader.mapping("arguments", {}, "a mapping of vllm serve options to values"),
        max_output_tokens=reader.integer("max_output_tokens", None),
        autoscaling=read_autoscaling(reader),
        pipeline_parallel_size=reader.integer("pipeline_parallel_size", 1),
    )
    if model.max_output_tokens is not None and 0 < model.context_length <= model.max_output_tokens:
        reader.report(
            "invalid_value",
            f"{reader.path}.max_output_tokens is {model.max_output_tokens}",
            f"less than context_length, {model.context_length}: prompt and answer share it",
            f"lower {reader.path}.max_output_tokens, or remove it",
        )
    reader.finish()
    return model if reader.ok and source_reader.ok and facts is not None else None


def _read_models(value: Any, recorded: Any, fleet: str, findings: list[Finding]) -> tuple[Model, ...]:
    """Read ``fleet_models``, sorted by name."""
    if not isinstance(value, (list, tuple)) or not value:
        code = "missing_value" if value is None or value in ([], ()) else "wrong_type"
        findings.append(
            Finding(
                fleet,
                code,
                f"fleet_models is {shown(value)}",
                "a list with at least one model",
                "describe the models to serve in fleet_models",
                "fleet",
            )
        )
        return ()
    models: list[Model] = []
    names: dict[str, int] = {}
    for position, entry in enumerate(value):
        name = entry.get("name") if isinstance(entry, Mapping) else None
        if isinstance(name, str):
            names[name] = names.get(name, 0) + 1
        model = _read_model(entry, position, recorded, findings)
        if model is not None:
            models.append(model)
    for name, count in names.items():
        if count > 1:
            findings.append(
                Finding(
                    name,
                    "model_duplicate",
                    f"{count} entries of fleet_models have this name",
                    "one entry per name",
                    "rename or remove the others; replicas serve one model more than once",
                    "model",
                )
            )
    unique = {model.name: model for model in models if names.get(model.name) == 1}
    return tuple(unique[name] for name in sorted(unique, key=natural_key))


def image_tag_version(reference: str) -> tuple[int, int, int] | None:
    """Return the version that the tag of an image reference states, or None when it states none."""
    match = _IMAGE.fullmatch(reference)
    tag = match["tag"] if match else None
    version = re.search(r"(?<![0-9.])v?([0-9]+)\.([0-9]+)\.([0-9]+)", tag) if tag else None
    return (int(version[1]), int(version[2]), int(version[3])) if version else None


#: The newest fix of a remote fault that reaches an unpatched engine (CVE-2026-115911) is in this version.
MINIMUM_ENGINE_VERSION = (0, 32, 0)


def _read_image(reader: Reader) -> Image | None:
    reference = reader.text("reference", check=matches(_IMAGE), wanted="an image reference like name:tag@sha256:digest")
    archive = reader.text("archive", None, is_url, "a URL that starts with file:///, http:// or https://")
    archive_sha256 = reader.text("archive_sha256", None, matches(SHA256), "64 lower-case hexadecimal digits")
    image_id = reader.text(
        "id",
        None,
        lambda text: re.fullmatch(r"sha256:[0-9a-f]{64}", text) is not None,
        "sha256: and 64 hexadecimal digits",
    )
    reader.finish()
    if reference is None:
        return None
    version = image_tag_version(reference)
    if version is not None and version < MINIMUM_ENGINE_VERSION:
        reader.report(
            "engine_too_old",
            f"{reader.path}.reference is {shown(reference)}, vLLM {'.'.join(map(str, version))}",
            f"vLLM {'.'.join(map(str, MINIMUM_ENGINE_VERSION))} or newer (older ones have CVE-2026-115911 and others)",
            f"name a newer image in {reader.path}.reference",
        )
    if "@sha256:" not in reference and not (archive and archive_sha256):
        reader.report(
            "image_not_pinned",
            f"{reader.path}.reference is {shown(reference)}, without a digest"
            + (f", and {reader.path}.archive has no archive_sha256" if archive else ""),
            "a reference with @sha256:..., or archive together with archive_sha256",
            f"add the digest to {reader.path}.reference, or set {reader.path}.archive and {reader.path}.archive_sha256",
        )
    elif archive and not archive_sha256:
        reader.report(
            "image_not_pinned",
            f"{reader.path}.archive is {shown(archive)}, without archive_sha256",
            "the SHA-256 digest of the archive",
            f"set {reader.path}.archive_sha256",
        )
    return Image(reference, archive, archive_sha256, image_id)


def _read_engine(value: Any, fleet: str, findings: list[Finding]) -> Engine:
    if value is None:
        findings.append(
            Finding(
                fleet,
                "missing_value",
                "fleet_engine is not set",
                "a mapping with at least image.reference",
                "set fleet_engine.image.reference",
                "fleet",
            )
        )
        return Engine(image=None)
    reader = Reader(value, "fleet_engine", "fleet", fleet, findings)
    image_reader = reader.child("image")
    image = None
    if image_reader.absent:
        reader.report(
            "missing_value",
            "fleet_engine.image is not set",
            "a mapping with at least reference",
            "set fleet_engine.image.reference",
        )
    elif image_reader.ok:
        image = _read_image(image_reader)
    engine = Engine(
        image=image,
        accelerator=reader.choice("accelerator", "cuda", ("cuda", "cpu")),
        base_port=reader.integer("base_port", 8000, 1024, 65535),
        gpu_memory_utilization=reader.fraction("gpu_memory_utilization", 0.92),
        cpu_kv_cache_gib=reader.integer("cpu_kv_cache_gib", 1),
        shutdown_timeout_seconds=reader.integer("shutdown_timeout_seconds", 120, 1, 86400),
        shm_size_gib=reader.integer("shm_size_gib", 10),
        tls=reader.choice("tls", "none", MODES),
    )
    reader.finish()
    return engine


def _read_endpoint(value: Any, fleet: str, models: Any, findings: list[Finding]) -> Endpoint | None:
    if value is None:
        findings.append(
            Finding(
                fleet,
                "missing_value",
                "fleet_endpoint is not set",
                "a mapping with at least hostname",
                "set fleet_endpoint.hostname to the name that clients connect to",
                "fleet",
            )
        )
        return None
    reader = Reader(value, "fleet_endpoint", "fleet", fleet, findings)
    hostname = reader.text("hostname", check=is_endpoint_name, wanted="a DNS name or an IP address")
    port = reader.integer("port", 443, 1, 65535)
    names = reader.texts("alternative_names", is_alternative_name, "a DNS name or an IP address")
    default_model = reader.text("default_model", None, wanted="the name of a model, or null")
    reader.finish()
    known = (
        [m["name"] for m in models if isinstance(m, Mapping) and isinstance(m.get("name"), str)]
        if isinstance(models, (list, tuple))
        else []
    )
    if default_model is not None and default_model not in known:
        reader.report(
            "invalid_value",
            f"fleet_endpoint.default_model is {shown(default_model)}",
            f"one of {', '.join(sorted(known))}{did_you_mean(default_model, known)}",
            "correct fleet_endpoint.default_model, or add that model to fleet_models",
        )
        default_model = None
    if hostname is None:
        return None
    return Endpoint(hostname, port, tuple(sorted(set(names))), default_model)


def _read_networks(value: Any, fleet: str, findings: list[Finding]) -> tuple[str, ...]:
    """Read the networks that may ssh: without one, the firewall would lock out the controller."""
    example = 'for example fleet_management_networks: ["198.51.100.0/24"]'
    if value is None or value in ([], ()):
        findings.append(
            Finding(
                fleet,
                "management_networks_missing",
                "fleet_management_networks is not set" if value is None else "fleet_management_networks is empty",
                "the networks from which hosts may be reached by ssh, the controller's among them",
                f"set fleet_management_networks, {example}",
                "fleet",
            )
        )
        return ()
    if not isinstance(value, (list, tuple)):
        findings.append(
            Finding(
                fleet,
                "management_networks_invalid",
                f"fleet_management_networks is {shown(value)}",
                "a list of networks in CIDR notation",
                f"write a list, {example}",
                "fleet",
            )
        )
        return ()
    networks = set()
    for item in value:
        network = None
        problem = "correct this entry of fleet_management_networks"
        if isinstance(item, str) and "/" in item:
            try:
                network = ipaddress.ip_network(item)
            except ValueError:
                with contextlib.suppress(ValueError):
                    problem = f"did you mean {ipaddress.ip_network(item, strict=False)}?"
        elif isinstance(item, str) and is_ip(item):
            problem = f"did you mean {ipaddress.ip_network(item)}?"
        if network is None:
            findings.append(
                Finding(
                    fleet,
                    "management_networks_invalid",
                    f"fleet_management_networks has {shown(item)}",
                    "a network in CIDR notation, like 198.51.100.0/24 or 2001:db8::/48",
                    problem,
                    "fleet",
                )
            )
        else:
            networks.add(network)
    return tuple(str(n) for n in sorted(networks, key=lambda n: (n.version, int(n.network_address), n.prefixlen)))


def _check_names(inventory: Inventory, fleet: str, findings: list[Finding]) -> None:
    """Report variables that look like the fleet's and are not."""
    known = {*FLEET_VARIABLES, *HOST_FLEET_VARIABLES, *PLAYBOOK_VARIABLES} - {"fleet_plan"}
    for name in sorted(inventory.names):
        if name in known or name == "fleet_plan" or not name.startswith("fleet_"):
            continue
        hosts = sorted(inventory.names[name], key=natural_key)
        findings.append(
            Finding(
                fleet,
                "unknown_variable",
                f"{name} (seen by {some_of(hosts, 3)})",
                f"one of {', '.join(sorted(known))}{did_you_mean(name, known)}",
                f"correct or remove {name}",
                "fleet",
            )
        )
    for name, pair in sorted(inventory.conflicts.items()):
        findings.append(
            Finding(
                fleet,
                "conflicting_values",
                f"{name} differs between {' and '.join(sorted(pair, key=natural_key))}",
                "one value for the whole fleet",
                f"set {name} once, in group_vars/all",
                "fleet",
            )
        )
    for (host, name), reason in sorted(inventory.broken.items()):
        findings.append(
            Finding(
                host,
                "cannot_template",
                f"{name}: {reason}",
                "a value that needs no fact and no other host",
                f"correct {name} in the inventory",
            )
        )


def read_fleet(inventory: Inventory) -> Fleet:
    """Read everything that the inventory says; what is wrong with it is in ``findings``."""
    findings: list[Finding] = []
    variables = inventory.variables
    name = variables.get("fleet_name")
    fleet = name if isinstance(name, str) and NAME.fullmatch(name) else DEFAULT_FLEET_NAME
    if name is not None and fleet != name:
        findings.append(
            Finding(
                fleet,
                "invalid_value",
                f"fleet_name is {shown(name)}",
                "up to 63 of a-z, 0-9, '.', '_' and '-', the first a letter or a digit",
                "correct fleet_name",
                "fleet",
            )
        )
    directory = variables.get("fleet_models_directory", DEFAULT_MODELS_DIRECTORY)
    if not isinstance(directory, str) or not is_directory(directory):
        findings.append(
            Finding(
                fleet,
                "invalid_value",
                f"fleet_models_directory is {shown(directory)}",
                "an absolute directory, normalised",
                "correct fleet_models_directory",
                "fleet",
            )
        )
        directory = DEFAULT_MODELS_DIRECTORY
    keep = variables.get("fleet_plan_keep")
    if keep is not None and not isinstance(keep, bool):
        findings.append(
            Finding(
                fleet,
                "wrong_type",
                f"fleet_plan_keep is {shown(keep)}",
                "true (what runs stays where it is) or false (plan from scratch)",
                "correct fleet_plan_keep",
                "fleet",
            )
        )
    _check_names(inventory, fleet, findings)
    engine = _read_engine(variables.get("fleet_engine"), fleet, findings)
    networks = _read_networks(variables.get("fleet_management_networks"), fleet, findings)
    endpoint = _read_endpoint(variables.get("fleet_endpoint"), fleet, variables.get("fleet_models"), findings)
    hosts = read_hosts(inventory, fleet, engine.accelerator, findings)
    read = Fleet(
        name=fleet,
        management_networks=networks,
        models_directory=directory,
        models=_read_models(variables.get("fleet_models"), variables.get("fleet_model_facts"), fleet, findings),
        engine=engine,
        endpoint=endpoint,
        hosts=hosts,
        cluster=read_cluster(inventory, fleet, hosts, networks, endpoint, findings),
        monitoring=read_monitoring(inventory, fleet, hosts, findings),
        keep=keep is not False,
    )
    # A variable that could not be templated is not missing: its own finding is enough.
    silenced = {(host, f"{name} is {state}") for host, name in inventory.broken for state in ("not set", "nothing")}
    texts = {text for _host, text in silenced}
    kept = [
        f for f in findings if not ((f.host_or_model, f.found) in silenced or (f.kind == "fleet" and f.found in texts))
    ]
    return replace(read, findings=tuple(kept))
