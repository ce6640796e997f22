# SPDX-License-Identifier: Apache-2.0
# PRIVATE to the collection: do not import this from outside, it may change without notice.
"""What the roles node_exporter and prometheus may be asked for, Prometheus' configuration, and what was found. Pure."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

_NAME = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*")
_COLLECTOR = re.compile(r"[a-z][a-z0-9_.]*")
_TEXTFILE = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]*\.prom")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_URL = re.compile(r"(https?://[^\s/]+/\S*|file:///\S+)")
_GOOD_UNIT = "enabled active"
#: Labels of Prometheus' own.
_RESERVED = ("job", "instance")


def _is_address(text: Any) -> bool:
    try:
        ipaddress.ip_address(str(text))
    except ValueError:
        return False
    return True


def _same(one: str, other: str) -> bool:
    return ipaddress.ip_address(one) == ipaddress.ip_address(other)


def endpoint(address: str, port: int) -> str:
    """Return address and port as a URL has them."""
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def _range_fault(name: str, value: int, least: int, most: int) -> Iterator[str]:
    if not least <= value <= most:
        yield f"{name} is {value}, wanted a number from {least} to {most}"


def _listen_faults(prefix: str, options: Mapping[str, Any], addresses: Sequence[str]) -> Iterator[str]:
    """Say what is wrong with where a service is to listen."""
    address = options["address"]
    if not _is_address(address):
        yield f"{prefix}address is {address!r}, wanted an IP address of this host"
    elif not any(_same(address, own) for own in addresses):
        yield f"{prefix}address is {address!r}, wanted an address of this host, which has {', '.join(addresses)}"
    yield from _range_fault(f"{prefix}port", options["port"], 1, 65535)


def _archive_faults(prefix: str, package: str, options: Mapping[str, Any]) -> Iterator[str]:
    """Say what is wrong with where the programs come from."""
    archive = options["archive"]
    if archive is None:
        if not options["has_package"]:
            yield (
                f"{prefix}archive is not set, and this distribution has no package {package}, wanted url and sha256 of "
                "the archive that the project publishes, or of a copy"
            )
        return
    if not _URL.fullmatch(archive["url"]):
        yield f"{prefix}archive.url is {archive['url']!r}, wanted a URL that starts with file:///, http:// or https://"
    if not _SHA256.fullmatch(archive["sha256"]):
        yield f"{prefix}archive.sha256 is {archive['sha256']!r}, wanted 64 hexadecimal digits"


def exporter_faults(options: Mapping[str, Any], addresses: Sequence[str]) -> list[str]:
    """Return what does not fit in the options of the role node_exporter; ``addresses`` are the host's."""
    prefix = "node_exporter_"
    found = [
        *_listen_faults(prefix, options, addresses),
        *_archive_faults(prefix, "prometheus-node-exporter", options),
    ]
    for name in options["collectors"]:
        if not _COLLECTOR.fullmatch(name):
            found.append(f"{prefix}collectors has {name!r}, wanted names of collectors, such as 'cpu'")
    for name, path in options["textfiles"].items():
        if not _TEXTFILE.fullmatch(name):
            found.append(f"{prefix}textfiles has {name!r}, wanted names that end in .prom")
        if not str(path).startswith("/"):
            found.append(f"{prefix}textfiles, {name} is {path!r}, wanted an absolute path")
    if options["textfiles"] and "textfile" not in options["collectors"]:
        found.append(f"{prefix}textfiles names files, and {prefix}collectors lacks 'textfile', wanted both or none")
    return found


def _jobs(options: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the jobs with what they may leave out."""
    return [
        {
            **job,
            "path": job.get("path") or "/metrics",
            "tls": job.get("tls"),
            "drop": job.get("drop") or [],
            "targets": [{**target, "labels": target.get("labels") or {}} for target in job["targets"]],
        }
        for job in options["jobs"]
    ]


def _job_faults(where: str, job: Mapping[str, Any]) -> Iterator[str]:
    if job["scheme"] == "https" and job["tls"] is None:
        yield f"{where} is asked over https without tls, wanted certificate_path, key_path and ca_path"
    if job["scheme"] == "http" and job["tls"] is not None:
        yield f"{where} has tls and is asked over http, wanted https, or no tls"
    if not job["targets"]:
        yield f"{where} has no targets, wanted at least one; leave the job out instead"
    places = [endpoint(target["address"], target["port"]) for target in job["targets"]]
    for place in sorted({place for place in places if places.count(place) > 1}):
        yield f"{where} has the target {place} {places.count(place)} times, wanted it once"
    for target in job["targets"]:
        for label in target["labels"]:
            if not _NAME.fullmatch(label) or label.startswith("__") or label in _RESERVED:
                yield f"{where} has the label {label!r}, wanted [a-zA-Z0-9_], and none that Prometheus gives itself"


def prometheus_faults(options: Mapping[str, Any], addresses: Sequence[str]) -> list[str]:
    """Return what does not fit in the options of the role prometheus; ``addresses`` are the host's."""
    prefix = "prometheus_"
    found = [*_listen_faults(prefix, options, addresses), *_archive_faults(prefix, "prometheus", options)]
    interval, timeout = options["scrape_interval_seconds"], options["scrape_timeout_seconds"]
    found += _range_fault(f"{prefix}scrape_interval_seconds", interval, 1, 3600)
    if not 1 <= timeout <= interval:
        found.append(
            f"{prefix}scrape_timeout_seconds is {timeout}, wanted 1 to {interval} ({prefix}scrape_interval_seconds)"
        )
    found += _range_fault(f"{prefix}retention_days", options["retention_days"], 1, 36500)
    found += _range_fault(f"{prefix}retention_gib", options["retention_gib"], 0, 1 << 20)
    directory = options["data_directory"]
    if not directory.startswith("/") or directory.count("/") < 2 or directory.endswith("/"):
        found.append(f"{prefix}data_directory is {directory!r}, wanted a directory of its own, by its absolute path")
    names = [job["name"] for job in options["jobs"]]
    for name in sorted({name for name in names if names.count(name) > 1}):
        found.append(f"{prefix}jobs has the name {name!r} {names.count(name)} times, wanted it once")
    for job in _jobs(options):
        found += _job_faults(f"{prefix}jobs[{job['name']}]", job)
    for label in options["external_labels"]:
        if not _NAME.fullmatch(label) or label.startswith("__"):
            found.append(f"{prefix}external_labels has {label!r}, wanted names of [a-zA-Z0-9_]")
    return found


def _scrape(job: Mapping[str, Any]) -> dict[str, Any]:
    scrape: dict[str, Any] = {"job_name": job["name"], "scheme": job["scheme"], "metrics_path": job["path"]}
    # A target that is somebody else now must not send its watcher elsewhere.
    scrape["follow_redirects"] = False
    if job["tls"] is not None:
        tls = job["tls"]
        scrape["tls_config"] = {
            "ca_file": tls["ca_path"],
            "cert_file": tls["certificate_path"],
            "key_file": tls["key_path"],
            **({"server_name": tls["server_name"]} if tls.get("server_name") else {}),
            "min_version": "TLS13",
        }
    scrape["static_configs"] = [
        {"targets": [endpoint(target["address"], target["port"])], "labels": dict(target["labels"])}
        for target in job["targets"]
    ]
    if job["drop"]:
        scrape["metric_relabel_configs"] = [
            {"source_labels": ["__name__"], "regex": "|".join(job["drop"]), "action": "drop"}
        ]
    return scrape


def prometheus_configuration(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return prometheus.yml as data, from options that have no faults."""
    return {
        "global": {
            "scrape_interval": f"{options['scrape_interval_seconds']}s",
            "scrape_timeout": f"{options['scrape_timeout_seconds']}s",
            "external_labels": dict(options["external_labels"]),
        },
        "scrape_configs": [_scrape(job) for job in _jobs(options)],
    }


def _key_faults(rights: Mapping[str, str | None], user: str) -> Iterator[str]:
    """Say which private keys somebody else may read."""
    for path, found in sorted(rights.items()):
        if found is None:
            yield f"{path} is not there; give the host its certificate (role pki)"
        elif found != f"{user} 600":
            yield f"{path} has owner and mode {found}, wanted {user} 600"


def _common_disagreements(
    unit: str, options: Mapping[str, Any], seen: Mapping[str, Any], changed_files: Sequence[str]
) -> list[str]:
    found = []
    if seen["unit"] != _GOOD_UNIT:
        found.append(f"{unit} is {seen['unit']}, wanted {_GOOD_UNIT}")
    found += [f"{path} is not as the role writes it" for path in changed_files]
    found += _key_faults(seen["keys"], seen["user"])
    wanted = [endpoint(options["address"], options["port"])]
    if seen["unit"] == _GOOD_UNIT and seen["listening"] != wanted:
        listening = ", ".join(seen["listening"]) or "nowhere"
        found.append(f"it listens at {listening}, wanted {wanted[0]} alone")
    if found:
        found.append("run gpufleet.metal.monitoring")
    return found


def exporter_disagreements(
    options: Mapping[str, Any], seen: Mapping[str, Any], changed_files: Sequence[str]
) -> list[str]:
    """Return what a host's exporter does not keep of what the role node_exporter promises."""
    found = _common_disagreements("prometheus-node-exporter.service", options, seen, changed_files)
    where = f"https://{endpoint(options['address'], options['port'])}/metrics"
    asked = seen["asked"]
    for how, wanted in (("without a certificate", "refused"), ("over TLS 1.2", "refused")):
        if not asked[how].startswith(wanted):
            found.append(f"{where} {how}: {asked[how]}, wanted it {wanted}")
    if asked["shows"] != "the certificate in place":
        found.append(f"{where} shows {asked['shows']}, wanted the one of {options['certificate_path']}")
    if options["client"] is not None and asked["with a certificate"] != "answered 200":
        found.append(f"{where} with {options['client']['certificate_path']}: {asked['with a certificate']}, wanted 200")
    found += [f"the collector of text files can't read one of {name}" for name in asked["unreadable"]]
    return found


def prometheus_disagreements(
    options: Mapping[str, Any], seen: Mapping[str, Any], changed_files: Sequence[str]
) -> list[str]:
    """Return what a Prometheus does not keep of what its role promises; each target that is not up by its name."""
    found = _common_disagreements("prometheus.service", options, seen, changed_files)
    if seen["fault"] is not None:
        return [*found, f"http://{endpoint(options['address'], options['port'])}: {seen['fault']}"]
    if not seen["configured"]:
        found.append("it runs with an older configuration than the file's: see journalctl --unit prometheus.service")
    wanted = {
        (job["name"], endpoint(target["address"], target["port"])): target["labels"].get("host", "")
        for job in _jobs(options)
        for target in job["targets"]
    }
    targets = {(target["job"], target["endpoint"]): target for target in seen["targets"]}
    for key in sorted(wanted):
        job, place = key
        what = f"{job} {wanted[key]} ({place})" if wanted[key] else f"{job} {place}"
        target = targets.get(key)
        if target is None:
            found.append(f"{what} is not among its targets")
        elif target["health"] != "up":
            found.append(f"{what} is {target['health']}: {target['error'] or 'not asked yet'}")
    found += [f"{job} {place} is a target that nobody named" for job, place in sorted(set(targets) - set(wanted))]
    return found
