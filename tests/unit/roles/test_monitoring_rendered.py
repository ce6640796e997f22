# SPDX-License-Identifier: Apache-2.0
"""What node_exporter and prometheus write where their programs come from an archive, as on the RHEL family."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible.parsing.dataloader import DataLoader
from ansible.plugins.loader import init_plugin_loader
from ansible.template import Templar, trust_as_template
from ansible.utils.collection_loader import AnsibleCollectionConfig

ROLES = Path(__file__).resolve().parents[3] / "roles"
ARCHIVE = {"url": "https://mirror.example.org/program.tar.gz", "sha256": "0123456789ab" + "c" * 52}


@pytest.fixture(scope="module", autouse=True)
def plugins() -> None:
    # ansible-test has set the loader up already.
    if AnsibleCollectionConfig.collection_finder is None:
        init_plugin_loader()


def templar(role: str, **options: Any) -> Templar:
    """Return a templar with the role's defaults and constants, the facts of RHEL, and the options of a user."""
    loader = DataLoader()
    variables: dict[str, Any] = {"ansible_facts": {"os_family": "RedHat"}}
    for part in ("defaults", "vars"):
        path = ROLES / role / part / "main.yml"
        variables.update(loader.load_from_file(str(path), cache="none", trusted_as_template=True))
    return Templar(loader=loader, variables={**variables, **options})


def rendered(role: str, template: str, **options: Any) -> str:
    text = (ROLES / role / "templates" / template).read_text(encoding="utf-8")
    result: str = templar(role, **options).template(trust_as_template(text))
    return result


def command(unit: str) -> list[str]:
    """Return the words of a unit's ExecStart."""
    lines = unit.replace("\\\n", " ").splitlines()
    return next(line for line in lines if line.startswith("ExecStart=")).removeprefix("ExecStart=").split()


def test_the_exporter() -> None:
    options = {
        "node_exporter_address": "2001:db8::11",
        "node_exporter_archive": ARCHIVE,
        "node_exporter_collectors": ["textfile", "cpu"],
    }
    assert command(rendered("node_exporter", "prometheus-node-exporter.service.j2", **options)) == [
        "/usr/local/bin/node_exporter-0123456789ab",
        "--web.listen-address=[2001:db8::11]:9100",
        "--web.config.file=/etc/gpufleet/node_exporter/web.yml",
        "--collector.disable-defaults",
        "--collector.cpu",
        "--collector.textfile",
        "--collector.textfile.directory=/var/lib/prometheus/node-exporter",
    ]
    assert yaml.safe_load(rendered("node_exporter", "web.yml.j2", **options)) == {
        "tls_server_config": {
            "cert_file": "/etc/gpufleet/node_exporter/tls.crt",
            "key_file": "/etc/gpufleet/node_exporter/tls.key",
            "client_auth_type": "RequireAndVerifyClientCert",
            "client_ca_file": "/etc/gpufleet/node_exporter/ca.crt",
            "min_version": "TLS13",
        }
    }


def test_the_exporter_without_text_files() -> None:
    """Nothing is said of a collector that is off."""
    options = {"node_exporter_address": "192.0.2.11", "node_exporter_collectors": ["cpu"]}
    words = command(rendered("node_exporter", "prometheus-node-exporter.service.j2", **options))
    assert words[:2] == ["/usr/bin/prometheus-node-exporter", "--web.listen-address=192.0.2.11:9100"]
    assert words[-1] == "--collector.cpu"


@pytest.mark.parametrize(("gib", "last"), [(0, []), (200, ["--storage.tsdb.retention.size=200GiB"])])
def test_prometheus(gib: int, last: list[str]) -> None:
    options = {"prometheus_archive": ARCHIVE, "prometheus_retention_gib": gib}
    unit = rendered("prometheus", "prometheus.service.j2", **options)
    assert command(unit) == [
        "/usr/local/bin/prometheus-0123456789ab",
        "--config.file=/etc/prometheus/prometheus.yml",
        "--web.listen-address=127.0.0.1:9090",
        "--storage.tsdb.path=/var/lib/prometheus/metrics2",
        "--storage.tsdb.retention.time=15d",
        *last,
    ]
    assert "\nExecReload=/bin/kill -HUP $MAINPID\n" in unit
    assert "\nReadWritePaths=/var/lib/prometheus/metrics2\n" in unit


def test_a_distribution_without_packages_is_told() -> None:
    """Options say whether there is a package: on the RHEL family there is none."""
    for role in ("node_exporter", "prometheus"):
        options = templar(role, node_exporter_address="192.0.2.11").template(
            trust_as_template("{{ __" + role + "_options }}")
        )
        assert options["has_package"] is False
