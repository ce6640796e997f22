# SPDX-License-Identifier: Apache-2.0
"""Options of node_exporter and prometheus, the configuration made of them, and what is said of what was found."""

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.gpufleet.metal.plugins.module_utils._monitoring import (
    exporter_disagreements,
    exporter_faults,
    prometheus_configuration,
    prometheus_disagreements,
    prometheus_faults,
)

ADDRESSES = ["127.0.0.1", "192.0.2.11", "2001:db8::11"]
TLS = {"certificate_path": "/p/client.crt", "key_path": "/p/client.key", "ca_path": "/p/ca.crt"}
ARCHIVE = {"url": "https://mirror.example.org/node_exporter.tar.gz", "sha256": "0" * 64}
AGAIN = "run gpufleet.metal.monitoring"


def exporter(**changes: Any) -> dict[str, Any]:
    """Return the options of an exporter."""
    return {
        "address": "192.0.2.11",
        "port": 9100,
        "certificate_path": "/n/tls.crt",
        "collectors": ["cpu", "textfile"],
        "textfiles": {},
        "archive": None,
        "client": None,
        "has_package": True,
        **changes,
    }


def job(name: str = "node", **changes: Any) -> dict[str, Any]:
    """Return a job with one target."""
    return {
        "name": name,
        "scheme": "https",
        "tls": TLS,
        "targets": [{"address": "192.0.2.11", "port": 9100, "labels": {"host": "gpu-1"}}],
        **changes,
    }


def prometheus(*jobs: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """Return the options of a Prometheus."""
    return {
        "address": "127.0.0.1",
        "port": 9090,
        "jobs": list(jobs) or [job()],
        "external_labels": {"fleet": "test"},
        "scrape_interval_seconds": 15,
        "scrape_timeout_seconds": 10,
        "data_directory": "/var/lib/prometheus/metrics2",
        "retention_days": 15,
        "retention_gib": 0,
        "archive": None,
        "has_package": True,
        **changes,
    }


@pytest.mark.parametrize(
    ("changes", "faults"),
    [
        ({}, []),
        ({"address": "2001:0db8::11"}, []),
        ({"archive": ARCHIVE, "has_package": False}, []),
        ({"textfiles": {"gateway.prom": "/run/gateway/metrics.prom"}}, []),
        ({"address": "gpu-1"}, ["node_exporter_address is 'gpu-1', wanted an IP address of this host"]),
        (
            {"address": "192.0.2.12"},
            [
                "node_exporter_address is '192.0.2.12', wanted an address of this host, which has 127.0.0.1, "
                "192.0.2.11, 2001:db8::11"
            ],
        ),
        ({"port": 70000}, ["node_exporter_port is 70000, wanted a number from 1 to 65535"]),
        (
            {"has_package": False},
            [
                "node_exporter_archive is not set, and this distribution has no package prometheus-node-exporter, "
                "wanted url and sha256 of the archive that the project publishes, or of a copy"
            ],
        ),
        (
            {"archive": {"url": "node.tar.gz", "sha256": "abc"}},
            [
                "node_exporter_archive.url is 'node.tar.gz', wanted a URL that starts with file:///, http:// or https://",
                "node_exporter_archive.sha256 is 'abc', wanted 64 hexadecimal digits",
            ],
        ),
        (
            {"collectors": ["no-cpu"]},
            ["node_exporter_collectors has 'no-cpu', wanted names of collectors, such as 'cpu'"],
        ),
        (
            {"collectors": ["cpu"], "textfiles": {"a": "b"}},
            [
                "node_exporter_textfiles has 'a', wanted names that end in .prom",
                "node_exporter_textfiles, a is 'b', wanted an absolute path",
                "node_exporter_textfiles names files, and node_exporter_collectors lacks 'textfile', "
                "wanted both or none",
            ],
        ),
    ],
)
def test_options_of_the_exporter(changes: dict[str, Any], faults: list[str]) -> None:
    assert exporter_faults(exporter(**changes), ADDRESSES) == faults


@pytest.mark.parametrize(
    ("changes", "faults"),
    [
        ({}, []),
        ({"jobs": []}, []),
        ({"address": "0.0.0.0"}, ["prometheus_address is '0.0.0.0', wanted an address of this host, which has "]),
        (
            {"scrape_interval_seconds": 0, "scrape_timeout_seconds": 0},
            [
                "prometheus_scrape_interval_seconds is 0, wanted a number from 1 to 3600",
                "prometheus_scrape_timeout_seconds is 0, wanted 1 to 0 (prometheus_scrape_interval_seconds)",
            ],
        ),
        ({"retention_gib": -1}, ["prometheus_retention_gib is -1, wanted a number from 0 to 1048576"]),
        (
            {"data_directory": "/srv"},
            ["prometheus_data_directory is '/srv', wanted a directory of its own, by its absolute path"],
        ),
        ({"jobs": [job(), job()]}, ["prometheus_jobs has the name 'node' 2 times, wanted it once"]),
        (
            {"jobs": [job(tls=None), job("other", scheme="http")]},
            [
                "prometheus_jobs[node] is asked over https without tls, wanted certificate_path, key_path and ca_path",
                "prometheus_jobs[other] has tls and is asked over http, wanted https, or no tls",
            ],
        ),
        (
            {"jobs": [job(targets=[])]},
            ["prometheus_jobs[node] has no targets, wanted at least one; leave the job out instead"],
        ),
        (
            {"jobs": [job(targets=[{"address": "a", "port": 1}, {"address": "a", "port": 1, "labels": {"job": "x"}}])]},
            [
                "prometheus_jobs[node] has the target a:1 2 times, wanted it once",
                "prometheus_jobs[node] has the label 'job', wanted [a-zA-Z0-9_], and none that Prometheus gives itself",
            ],
        ),
        ({"external_labels": {"a-b": "c"}}, ["prometheus_external_labels has 'a-b', wanted names of [a-zA-Z0-9_]"]),
    ],
)
def test_options_of_prometheus(changes: dict[str, Any], faults: list[str]) -> None:
    found = prometheus_faults(prometheus(**changes), ADDRESSES)
    assert [one[: len(wanted)] for one, wanted in zip(found, faults, strict=True)] == faults


def test_configuration() -> None:
    """All that is said of a job is in it, and nothing that is not said."""
    engines = job(
        "vllm",
        tls={**TLS, "server_name": "engines.gpufleet.internal"},
        drop=[".+_created", "x_.+"],
        targets=[{"address": "2001:db8::11", "port": 8000, "labels": {"host": "gpu-1", "model": "m"}}],
    )
    plain = job("plain", scheme="http", tls=None, path="/m", targets=[{"address": "192.0.2.12", "port": 1}])
    assert prometheus_configuration(prometheus(engines, plain)) == {
        "global": {"scrape_interval": "15s", "scrape_timeout": "10s", "external_labels": {"fleet": "test"}},
        "scrape_configs": [
            {
                "job_name": "vllm",
                "scheme": "https",
                "metrics_path": "/metrics",
                "follow_redirects": False,
                "tls_config": {
                    "ca_file": "/p/ca.crt",
                    "cert_file": "/p/client.crt",
                    "key_file": "/p/client.key",
                    "server_name": "engines.gpufleet.internal",
                    "min_version": "TLS13",
                },
                "static_configs": [{"targets": ["[2001:db8::11]:8000"], "labels": {"host": "gpu-1", "model": "m"}}],
                "metric_relabel_configs": [
                    {"source_labels": ["__name__"], "regex": ".+_created|x_.+", "action": "drop"}
                ],
            },
            {
                "job_name": "plain",
                "scheme": "http",
                "metrics_path": "/m",
                "follow_redirects": False,
                "static_configs": [{"targets": ["192.0.2.12:1"], "labels": {}}],
            },
        ],
    }


def seen_exporter(asked: Any = (), **changes: Any) -> dict[str, Any]:
    """Return what a host is like whose exporter is as it should be."""
    return {
        "user": "prometheus",
        "unit": "enabled active",
        "keys": {"/n/tls.key": "prometheus 600"},
        "listening": ["192.0.2.11:9100"],
        "asked": {
            "without a certificate": "refused (TLSV13_ALERT_CERTIFICATE_REQUIRED)",
            "with a certificate": "answered 200",
            "over TLS 1.2": "refused (TLSV1_ALERT_PROTOCOL_VERSION)",
            "shows": "the certificate in place",
            "unreadable": [],
            **dict(asked),
        },
        **changes,
    }


CLIENT = {"client": {"certificate_path": "/p/client.crt", "key_path": "/p/client.key"}}
WHERE = "https://192.0.2.11:9100/metrics"


@pytest.mark.parametrize(
    ("options", "seen", "files", "found"),
    [
        ({}, seen_exporter(), [], []),
        (CLIENT, seen_exporter(), [], []),
        ({}, seen_exporter({"with a certificate": "not asked"}), [], []),
        (
            CLIENT,
            seen_exporter({"with a certificate": "refused (x)"}),
            [],
            [f"{WHERE} with /p/client.crt: refused (x), wanted 200"],
        ),
        (
            {},
            seen_exporter({"without a certificate": "answered 200", "over TLS 1.2": "answered 200"}),
            [],
            [
                f"{WHERE} without a certificate: answered 200, wanted it refused",
                f"{WHERE} over TLS 1.2: answered 200, wanted it refused",
            ],
        ),
        (
            {},
            seen_exporter({"shows": "another certificate"}),
            [],
            [f"{WHERE} shows another certificate, wanted the one of /n/tls.crt"],
        ),
        (
            {},
            seen_exporter(listening=["0.0.0.0:9100"]),
            ["/n/web.yml"],
            [
                "/n/web.yml is not as the role writes it",
                "it listens at 0.0.0.0:9100, wanted 192.0.2.11:9100 alone",
                AGAIN,
            ],
        ),
        (
            {},
            seen_exporter(unit="disabled active", keys={"/n/tls.key": "root 644", "/n/x.key": None}),
            [],
            [
                "prometheus-node-exporter.service is disabled active, wanted enabled active",
                "/n/tls.key has owner and mode root 644, wanted prometheus 600",
                "/n/x.key is not there; give the host its certificate (role pki)",
                AGAIN,
            ],
        ),
        (
            {},
            seen_exporter({"unreadable": ["/var/lib/x"]}),
            [],
            ["the collector of text files can't read one of /var/lib/x"],
        ),
    ],
)
def test_what_an_exporter_does_not_keep(options: Any, seen: Any, files: list[str], found: list[str]) -> None:
    assert exporter_disagreements(exporter(**options), seen, files) == found


def seen_prometheus(*targets: tuple[str, str, str, str], **changes: Any) -> dict[str, Any]:
    """Return what a host is like whose Prometheus is as it should be, with these targets."""
    return {
        "user": "prometheus",
        "unit": "enabled active",
        "keys": {"/p/client.key": "prometheus 600"},
        "listening": ["127.0.0.1:9090"],
        "fault": None,
        "configured": True,
        "targets": [dict(zip(("job", "endpoint", "health", "error"), target, strict=True)) for target in targets],
        **changes,
    }


UP = ("node", "192.0.2.11:9100", "up", "")


@pytest.mark.parametrize(
    ("seen", "found"),
    [
        (seen_prometheus(UP), []),
        (
            seen_prometheus(("node", "192.0.2.11:9100", "down", "connection refused")),
            ["node gpu-1 (192.0.2.11:9100) is down: connection refused"],
        ),
        (
            seen_prometheus(("node", "192.0.2.11:9100", "unknown", "")),
            ["node gpu-1 (192.0.2.11:9100) is unknown: not asked yet"],
        ),
        (
            seen_prometheus(("node", "192.0.2.12:9100", "up", "")),
            [
                "node gpu-1 (192.0.2.11:9100) is not among its targets",
                "node 192.0.2.12:9100 is a target that nobody named",
            ],
        ),
        (
            seen_prometheus(UP, configured=False),
            ["it runs with an older configuration than the file's: see journalctl --unit prometheus.service"],
        ),
        (
            seen_prometheus(unit="enabled inactive", listening=[], fault="no answer (x)"),
            [
                "prometheus.service is enabled inactive, wanted enabled active",
                AGAIN,
                "http://127.0.0.1:9090: no answer (x)",
            ],
        ),
    ],
)
def test_what_a_prometheus_does_not_keep(seen: Any, found: list[str]) -> None:
    assert prometheus_disagreements(prometheus(), seen, []) == found
