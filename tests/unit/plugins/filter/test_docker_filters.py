# SPDX-License-Identifier: Apache-2.0
"""The filters hand on what they are given and refuse what they can't use."""

from __future__ import annotations

import pytest
from ansible.errors import AnsibleFilterError

from ansible_collections.gpufleet.metal.plugins.filter import docker_certificate_files, docker_too_old_for_cdi

PEM = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----"
CERTIFICATE_FILES = docker_certificate_files.FilterModule().filters()["docker_certificate_files"]


def test_a_version_too_old_for_cdi() -> None:
    too_old = docker_too_old_for_cdi.FilterModule().filters()["docker_too_old_for_cdi"]
    # YAML makes a number of a version that looks like one.
    assert [too_old("5:27.*"), too_old(29.4)] == [True, False]


def test_certificates_of_registries() -> None:
    assert CERTIFICATE_FILES({"r.example.org:5000": f"\n{PEM}\n\n"}) == [
        {"dest": "/etc/docker", "state": "directory"},
        {"dest": "/etc/docker/certs.d", "state": "directory"},
        {"dest": "/etc/docker/certs.d/r.example.org:5000", "state": "directory"},
        {"dest": "/etc/docker/certs.d/r.example.org:5000/ca.crt", "content": f"{PEM}\n"},
    ]


@pytest.mark.parametrize(
    ("certificates", "message"),
    [
        ([PEM], f"wanted a dict by registry, found {[PEM]!r}"),
        (
            {"https://r.example.org": PEM},
            "docker_registry_ca_certificates: 'https://r.example.org' is no registry, wanted host or host:port",
        ),
        ({"../x": PEM}, "docker_registry_ca_certificates: '../x' is no registry, wanted host or host:port"),
        (
            {"r.example.org": "/etc/ssl/ca.pem"},
            "docker_registry_ca_certificates: what r.example.org has begins with '/etc/ssl/ca.pem', wanted "
            "certificates in PEM format",
        ),
    ],
)
def test_what_is_no_certificate(certificates: object, message: str) -> None:
    with pytest.raises(AnsibleFilterError) as raised:
        CERTIFICATE_FILES(certificates)
    assert str(raised.value) == message
