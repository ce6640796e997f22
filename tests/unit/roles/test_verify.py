# SPDX-License-Identifier: Apache-2.0
"""What playbooks/verify.yml hands to the role verify about the endpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from ansible.parsing.dataloader import DataLoader
from ansible.plugins.loader import init_plugin_loader
from ansible.template import Templar
from ansible.utils.collection_loader import AnsibleCollectionConfig

PLAYBOOK = Path(__file__).resolve().parents[3] / "playbooks" / "verify.yml"


@pytest.fixture(scope="module", autouse=True)
def plugins() -> None:
    # ansible-test has set the loader up already.
    if AnsibleCollectionConfig.collection_finder is None:
        init_plugin_loader()


def handed(name: str, **inventory: Any) -> Any:
    """The value of one variable that the play of the gateways hands over, with a user's variables."""
    loader = DataLoader()
    plays = loader.load_from_file(str(PLAYBOOK), cache="none", trusted_as_template=True)
    play = next(play for play in plays if play.get("hosts") == "gateways")
    templar = Templar(loader=loader, variables={"fleet_plan_directory": "/fleet", **inventory})
    return templar.template(play["tasks"][0]["vars"][name])


@pytest.mark.parametrize(
    ("inventory", "path"),
    [
        ({}, "/fleet/pki/ca.crt"),
        ({"pki_source": "internal", "pki_provided_ca_path": "/own/ca.crt"}, "/fleet/pki/ca.crt"),
        # What this machine trusts: the fleet's own authority does not exist then.
        ({"pki_source": "provided"}, None),
        ({"pki_source": "provided", "pki_provided_ca_path": None}, None),
        ({"pki_source": "provided", "pki_provided_ca_path": "/own/ca.crt"}, "/own/ca.crt"),
        ({"pki_source": "acme", "pki_provided_ca_path": "/own/ca.crt"}, None),
        ({"pki_source": "acme", "pki_acme_trusted_ca_path": "/acme/ca.crt"}, "/acme/ca.crt"),
    ],
)
def test_clients_trust_the_authority_of_the_certificate(inventory: dict[str, Any], path: str | None) -> None:
    assert handed("verify_ca_path", **inventory) == path


@pytest.mark.parametrize(
    ("inventory", "suite"),
    [
        ({}, "TLS_AES_256_GCM_SHA384"),
        (
            {"nginx_tls_ciphersuites": ["TLS_CHACHA20_POLY1305_SHA256", "TLS_AES_256_GCM_SHA384"]},
            "TLS_CHACHA20_POLY1305_SHA256",
        ),
    ],
)
def test_the_cipher_suite_is_the_first_of_the_gateway(inventory: dict[str, Any], suite: str) -> None:
    assert handed("verify_tls_ciphersuite", **inventory) == suite
