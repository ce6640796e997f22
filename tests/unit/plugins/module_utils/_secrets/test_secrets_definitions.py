# SPDX-License-Identifier: Apache-2.0
"""What may stand in fleet_secrets, and the message for everything else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ansible_collections.gpufleet.metal.plugins.module_utils._errors import InvalidInputError
from ansible_collections.gpufleet.metal.plugins.module_utils._secrets.definitions import (
    SHIPPED_CONSUMERS,
    Consumer,
    read_definitions,
)


def test_defaults() -> None:
    """A kind is enough."""
    definition = read_definitions({"api_key": {"kind": "token"}})["api_key"]
    assert (definition.options, definition.max_age_days, definition.consumers) == ({"bytes": 32}, None, ())
    assert (definition.settle_seconds, definition.overlap_seconds, definition.stuck_seconds) == (0, 86400, 86400)


def test_everything_set() -> None:
    """Hours become seconds."""
    entry = {
        "kind": "ec_key",
        "options": {"curve": "P-384"},
        "max_age_days": 7,
        "settle_hours": 1,
        "overlap_hours": 2,
        "stuck_hours": 3,
        "consumers": {"gateway": {"hosts": "gateways", "tasks": "a.yml"}},
    }
    definition = read_definitions({"jwt": entry})["jwt"]
    assert definition.options == {"curve": "P-384"}
    assert definition.max_age_days == 7
    assert (definition.settle_seconds, definition.overlap_seconds, definition.stuck_seconds) == (3600, 7200, 10800)
    assert definition.consumers == (Consumer("gateway", "gateways", "a.yml"),)


def test_who_signs() -> None:
    """An authority in the store, whichever comes first, or none of them."""
    leaf = {"kind": "certificate", "options": {"common_name": "x", "ca_secret": "ca"}}
    definitions = read_definitions({"a": leaf, "ca": {"kind": "authority"}, "b": {"kind": "token"}})
    assert {name: definition.signer for name, definition in definitions.items()} == {"a": "ca", "ca": None, "b": None}


TOKEN = {"kind": "token"}


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ([], "fleet_secrets is no dictionary, wanted the name of each secret with its description"),
        (
            {"API": TOKEN},
            "fleet_secrets: 'API' is no name of a secret, wanted at most 64 small letters, digits and underscores, "
            "beginning with a letter",
        ),
        ({"a": {}}, "fleet_secrets.a has no 'kind', wanted a dictionary with at least that"),
        ({"a": "token"}, "fleet_secrets.a has no 'kind', wanted a dictionary with at least that"),
        (
            {"a": {**TOKEN, "lenght": 3}},
            "fleet_secrets.a has 'lenght', wanted none but consumers, kind, max_age_days, options, overlap_hours, "
            "settle_hours, stuck_hours",
        ),
        (
            {"a": {"kind": "pin"}},
            "fleet_secrets.a.kind is 'pin', wanted one of token, password, login, rsa_key, ec_key, ed25519_key, "
            "certificate, authority, kubernetes_encryption_key, tls_ticket_key",
        ),
        ({"a": {**TOKEN, "options": 3}}, "fleet_secrets.a.options is 3, wanted a dictionary"),
        ({"a": {**TOKEN, "options": {"bits": 3}}}, "fleet_secrets.a.options has 'bits', token knows bytes"),
        (
            {"a": {"kind": "ed25519_key", "options": {"bits": 3}}},
            "fleet_secrets.a.options has 'bits', ed25519_key knows no options",
        ),
        (
            {"a": {**TOKEN, "options": {"bytes": 8}}},
            "fleet_secrets.a.options.bytes is 8, wanted a whole number from 16 to 1024",
        ),
        (
            {"a": {"kind": "certificate"}},
            "fleet_secrets.a.options.common_name is None, wanted the name of the certificate's holder",
        ),
        (
            {"a": {"kind": "certificate", "options": {"common_name": "x", "purposes": ["mail"]}}},
            "fleet_secrets.a.options.purposes is ['mail'], wanted a list of server and client",
        ),
        (
            {"a": {"kind": "certificate", "options": {"common_name": "x", "ca_secret": 7}}},
            "fleet_secrets.a.options.ca_secret is 7, wanted the name of a secret of kind authority",
        ),
        (
            {"a": {"kind": "certificate", "options": {"common_name": "x", "ca_secret": "ca", "ca_key_path": "k"}}},
            "fleet_secrets.a.options has ca_secret and ca_key_path, wanted the authority in the store or the one in "
            "files",
        ),
        (
            {"a": {"kind": "certificate", "options": {"common_name": "x", "ca_secret": "ca"}}, "ca": TOKEN},
            "fleet_secrets.a.options.ca_secret is 'ca', wanted a secret of kind authority in fleet_secrets, which has "
            "none",
        ),
        (
            {
                "a": {"kind": "certificate", "options": {"common_name": "x", "ca_secret": "ca"}},
                "root": {"kind": "authority"},
            },
            "fleet_secrets.a.options.ca_secret is 'ca', wanted a secret of kind authority in fleet_secrets, which has "
            "root",
        ),
        (
            {"a": {"kind": "ec_key", "options": {"curve": "P-521"}}},
            "fleet_secrets.a.options.curve is 'P-521', wanted P-256 or P-384",
        ),
        (
            {"a": {**TOKEN, "overlap_hours": -1}},
            "fleet_secrets.a.overlap_hours is -1, wanted a whole number of at least 0",
        ),
        (
            {"a": {**TOKEN, "settle_hours": True}},
            "fleet_secrets.a.settle_hours is True, wanted a whole number of at least 0",
        ),
        ({"a": {**TOKEN, "max_age_days": 0}}, "fleet_secrets.a.max_age_days is 0, wanted a whole number of at least 1"),
        (
            {"a": {**TOKEN, "consumers": ["gateway"]}},
            "fleet_secrets.a.consumers is no dictionary, wanted the name of each consumer with 'hosts' and 'tasks'",
        ),
        (
            {"a": {**TOKEN, "consumers": {"gateway": {"hosts": "gateways"}}}},
            "fleet_secrets.a.consumers.gateway: wanted exactly 'hosts' (a group or host) and 'tasks' (a file)",
        ),
        (
            {"a": {**TOKEN, "consumers": {"gateway": {"hosts": "gateways", "tasks": "gpufleet.metal.gateway_keys"}}}},
            "fleet_secrets.a.consumers.gateway.tasks is 'gpufleet.metal.gateway_keys', wanted a file of yours or one "
            "of gpufleet.metal.engine_authority, gpufleet.metal.engine_registry_login, "
            "gpufleet.metal.exporter_authority, gpufleet.metal.gateway_api_key, gpufleet.metal.gateway_authority, "
            "gpufleet.metal.gateway_token_key, gpufleet.metal.kubernetes_encryption_key, "
            "gpufleet.metal.prometheus_authority",
        ),
        (
            {"a": {"kind": "password", "options": {"length": 12, "characters": list("abcdefghijklm")}}},
            "fleet_secrets.a.options.length is 12, wanted at least one for each of the 13 sets of characters",
        ),
        (
            {"a": {"kind": "password", "options": {"characters": [""]}}},
            "fleet_secrets.a.options.characters is [''], wanted a list of texts, one character of each is used",
        ),
    ],
)
def test_what_is_refused(entries: Any, message: str) -> None:
    """Word for word."""
    with pytest.raises(InvalidInputError) as caught:
        read_definitions(entries)
    assert str(caught.value) == message


def test_consumers_that_come_with_the_collection() -> None:
    """Each has its tasks; what these share is no consumer."""
    rotation = Path(__file__).resolve().parents[5] / "playbooks" / "rotation"
    entries = {name: {"hosts": "gateways", "tasks": f"gpufleet.metal.{name}"} for name in SHIPPED_CONSUMERS}
    consumers = read_definitions({"a": {**TOKEN, "consumers": entries}})["a"].consumers
    files = {rotation / str(consumer.shipped_tasks()) for consumer in consumers}
    assert files == set((rotation / "consumers").glob("*.yml")) - {rotation / "consumers" / "identities.yml"}
    assert Consumer("a", "gateways", "consumers/own.yml").shipped_tasks() is None
