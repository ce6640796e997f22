# SPDX-License-Identifier: Apache-2.0
"""The lookup reads current, accepted and refused values, whole or a part of them, and changes nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from ansible.errors import AnsibleLookupError
from ansible.parsing.dataloader import DataLoader
from ansible.plugins.loader import lookup_loader

from ansible_collections.gpufleet.metal.plugins.module_utils._secrets.document import Document
from ansible_collections.gpufleet.metal.plugins.module_utils._secrets.file_store import FileStore
from ansible_collections.gpufleet.metal.tests.unit.plugins.module_utils._secrets.samples import (
    key_pem,
    secret,
    version,
    wrapping,
)

PAIR = {"private_key": "canary-private", "public_key": "public", "kid": "k1"}


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """Return an inventory's directory with a key and a store of secrets in every phase."""
    (tmp_path / "secrets.key").write_bytes(key_pem())
    (tmp_path / "secrets.key").chmod(0o600)
    store = FileStore(str(tmp_path / "s.json"), wrapping)
    store.create([])
    secrets = {
        "idle": secret(),
        "staging": secret(phase="staging", next=version(2)),
        "promoted": secret(phase="promoted", previous=version(0)),
        "retiring": secret(phase="retiring", previous=version(0)),
        "pair": secret(kind="ec_key", current=version(1, **PAIR)),
    }
    store.update(lambda document: Document(document.generation, secrets))
    return tmp_path


def look_up(place: Path, *names: str, **options: Any) -> list[Any]:
    """Run the lookup as a template does, with the store in the variable."""
    variables = {
        "inventory_dir": str(place),
        "fleet_secret_store": {"path": "s.json", "key": {"file": "secrets.key"}},
    }
    plugin = lookup_loader.get("gpufleet.metal.secret", loader=DataLoader(), templar=None)
    result: list[Any] = plugin.run(list(names), variables=variables, **options)
    return result


@pytest.mark.parametrize(
    ("name", "current", "accepted", "refused"),
    [
        ("idle", 1, [1], []),
        ("staging", 1, [1, 2], []),
        ("promoted", 1, [1, 0], []),
        ("retiring", 1, [1], [0]),
    ],
)
def test_versions(place: Path, name: str, current: int, accepted: list[int], refused: list[int]) -> None:
    """In every phase."""
    assert look_up(place, name) == [f"canary-5d1e7f-{current}"]
    assert look_up(place, name, versions="accepted") == [[f"canary-5d1e7f-{number}" for number in accepted]]
    assert look_up(place, name, versions="refused") == [[f"canary-5d1e7f-{number}" for number in refused]]


def test_fields(place: Path) -> None:
    """A pair whole, or one half of it, also in a list; several names at once."""
    before = (place / "s.json").read_bytes()
    assert look_up(place, "pair", "idle") == [PAIR, "canary-5d1e7f-1"]
    assert look_up(place, "pair", field="kid") == ["k1"]
    assert look_up(place, "pair", field="kid", versions="accepted") == [["k1"]]
    assert (place / "s.json").read_bytes() == before


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        (
            "none",
            {},
            "the store has no secret 'none': name it in fleet_secrets and run gpufleet.metal.rotate_secrets",
        ),
        (
            "pair",
            {"field": "password"},
            "the secret 'pair' has no field 'password', it has kid, private_key, public_key",
        ),
        (
            "idle",
            {"store": {"path": "none.json", "key": {"file": "secrets.key"}}},
            "the store {0}/none.json does not exist: gpufleet.metal.create_secret_store makes one, or put its "
            "backup back",
        ),
    ],
)
def test_what_is_not_there(place: Path, name: str, options: dict[str, Any], message: str) -> None:
    """Without a value in the message."""
    with pytest.raises(AnsibleLookupError) as caught:
        look_up(place, name, **options)
    assert str(caught.value.message) == message.format(place)
