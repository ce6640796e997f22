# SPDX-License-Identifier: Apache-2.0
"""Where the private key comes from, and the three places that keep a store.

OpenBao, HashiCorp Vault and SOPS are stand-ins: a server that answers like the key-value engine of version 2, and a
program that takes the arguments of sops 3.9 and encrypts nothing. What talks to them are the real collections.
"""

from __future__ import annotations

import json
import os
import stat
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from ansible.parsing.dataloader import DataLoader
from ansible.parsing.vault import VaultLib, VaultSecret

from ansible_collections.gpufleet.metal.plugins.module_utils._errors import InvalidInputError
from ansible_collections.gpufleet.metal.plugins.module_utils._secrets.document import (
    Document,
    MissingStoreError,
    StoreError,
)
from ansible_collections.gpufleet.metal.plugins.module_utils._secrets.file_store import FileStore
from ansible_collections.gpufleet.metal.plugins.plugin_utils._secret_stores import (
    Controller,
    HashiVaultStore,
    SopsStore,
    open_store,
    read_key,
)
from ansible_collections.gpufleet.metal.tests.unit.plugins.module_utils._secrets.samples import (
    CANARY,
    key_pem,
    secret,
)

PASSWORD = [("default", VaultSecret(b"vault password"))]


def controller(directory: Path, password: bool = True) -> Controller:
    """Return what a plugin has of Ansible, with an inventory in a directory."""
    loader = DataLoader()
    loader.set_vault_secrets(PASSWORD if password else [])
    return Controller(loader, None, {"inventory_dir": str(directory)})


def private(path: Path, content: bytes, mode: int = 0o600) -> Path:
    """Write a file with a mode."""
    path.write_bytes(content)
    path.chmod(mode)
    return path


# ---------------------------------------------------------------------------------------------------- wrapping keys


def test_a_key_from_each_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file, one that ansible-vault encrypted, the environment, a command; the source is named, the key is not."""
    private(tmp_path / "plain.key", key_pem())
    encrypted = VaultLib(PASSWORD).encrypt(key_pem(), PASSWORD[0][1])
    private(tmp_path / "vault.key", encrypted, 0o644)
    monkeypatch.setenv("SECRETS_KEY", key_pem().decode())
    places: list[tuple[dict[str, Any], str]] = [
        ({"file": "plain.key"}, f"{tmp_path}/plain.key"),
        ({"file": "vault.key"}, f"{tmp_path}/vault.key"),
        ({"environment": "SECRETS_KEY"}, "the environment variable SECRETS_KEY"),
        ({"command": ["cat", str(tmp_path / "plain.key")]}, "the command cat"),
        ({"command": f"cat '{tmp_path}/plain.key'"}, "the command cat"),
    ]
    found = [read_key(place, controller(tmp_path)) for place, __ in places]
    assert [entry.source for entry in found] == [source for __, source in places]
    assert {entry.key.public_key().public_numbers().n for entry in found} == {
        found[0].key.public_key().public_numbers().n
    }


@pytest.mark.parametrize(
    ("place", "message"),
    [
        (
            {"file": "none.key"},
            "the private key {0}/none.key does not exist: name the right file, or put its backup back",
        ),
        (
            {"file": "open.key"},
            "the private key {0}/open.key has mode 0640, wanted 0600: others may have read it. Run chmod 600 "
            "{0}/open.key, and rotate what it holds if others can log in there",
        ),
        (
            {"environment": "SECRETS_NONE"},
            "the environment variable SECRETS_NONE is not set: it is to hold the private key "
            "(fleet_secret_store.key.environment)",
        ),
        (
            {"command": ["sh", "-c", "echo canary-5d1e7f; echo canary-5d1e7f >&2; exit 3"]},
            "the command sh ended with 3, wanted 0 and the private key on its standard output",
        ),
        (
            {"command": ["/no/such/command"]},
            "the command /no/such/command can't be run: [Errno 2] No such file or directory: '/no/such/command' "
            "(fleet_secret_store.key.command)",
        ),
        (
            {"file": "vault.key"},
            "{0}/vault.key is encrypted by ansible-vault and does not open: give its password (--vault-password-file)",
        ),
    ],
)
def test_no_key_from_each_place(tmp_path: Path, place: dict[str, Any], message: str) -> None:
    """Where it was to come from, what was found, what to do."""
    private(tmp_path / "open.key", key_pem(), 0o640)
    private(tmp_path / "vault.key", VaultLib(PASSWORD).encrypt(key_pem(), PASSWORD[0][1]))
    with pytest.raises(StoreError) as caught:
        read_key(place, controller(tmp_path, password=False))
    assert str(caught.value) == message.format(tmp_path)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"file": "x"}, "fleet_secret_store has 'file', wanted none but backend, path, key, signers, options"),
        ({"backend": "lpass"}, "fleet_secret_store.backend is 'lpass', wanted one of file, sops, hashi_vault"),
        (
            {"key": {"file": "x", "command": "y"}},
            "fleet_secret_store.key has command, file, wanted exactly one of file, environment, command",
        ),
        ({"signers": "x.pub"}, "fleet_secret_store.signers is no list, wanted one of files with public keys"),
        ({"key": "x"}, "fleet_secret_store.key has str, wanted exactly one of file, environment, command"),
    ],
)
def test_a_store_that_can_not_be(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    """Nothing is read before this is said."""
    with pytest.raises(InvalidInputError) as caught:
        open_store(options, controller(tmp_path))
    assert str(caught.value) == message


def test_paths_are_below_the_inventory(tmp_path: Path) -> None:
    """Whether Ansible says where that is, or only which sources it read."""
    (tmp_path / "hosts.yml").write_text("")
    for variables in (
        {"inventory_dir": str(tmp_path)},
        {"ansible_inventory_sources": [str(tmp_path)]},
        {"ansible_inventory_sources": [str(tmp_path / "hosts.yml")]},
    ):
        store = open_store(None, Controller(DataLoader(), None, variables))
        assert isinstance(store, FileStore)
        assert store.path == f"{tmp_path}/.gpufleet/secrets.json"


# ------------------------------------------------------------------------------------------------- a vault's stand-in


class Vault(ThreadingHTTPServer):
    """Answers like the key-value engine, version 2, of OpenBao and HashiCorp Vault, for one token."""

    def __init__(self) -> None:
        """Listen on any free port."""
        super().__init__(("127.0.0.1", 0), VaultRequest)
        self.secrets: dict[str, list[Any]] = {}

    @property
    def address(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.server_address[1]}"


class VaultRequest(BaseHTTPRequestHandler):
    """One request."""

    server: Vault

    def log_message(self, *arguments: Any) -> None:
        """Keep still."""

    def answer(self, status: int, content: dict[str, Any]) -> None:
        """Send JSON."""
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self) -> None:
        """Read the newest version; None is one that was deleted."""
        if self.headers.get("X-Vault-Token") != "right":
            return self.answer(403, {"errors": ["permission denied"]})
        versions = self.server.secrets.get(self.path)
        if not versions:
            return self.answer(404, {"errors": []})
        if versions[-1] is None:
            return self.answer(404, {"data": {"data": None, "metadata": {"version": len(versions)}}})
        return self.answer(200, {"data": {"data": versions[-1], "metadata": {"version": len(versions)}}})

    def do_POST(self) -> None:
        """Write a version, if the writer knows the newest one."""
        content = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        versions = self.server.secrets.setdefault(self.path, [])
        if content["options"]["cas"] != len(versions):
            return self.answer(400, {"errors": ["check-and-set parameter did not match the current version"]})
        versions.append(content["data"])
        return self.answer(200, {"data": {"version": len(versions)}})


@pytest.fixture
def vault() -> Iterator[Vault]:
    """Run the stand-in."""
    pytest.importorskip("hvac")
    server = Vault()
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def vault_store(vault: Vault, tmp_path: Path, token: str = "right") -> HashiVaultStore:
    """Open a store in the stand-in."""
    options = {"url": vault.address, "auth_method": "token", "token": token, "token_validate": False}
    store = open_store({"backend": "hashi_vault", "options": options}, controller(tmp_path))
    assert isinstance(store, HashiVaultStore)
    return store


def with_key(document: Document) -> Document:
    """Add a secret."""
    return document.with_secret("api_key", secret())


def test_a_store_in_a_vault(vault: Vault, tmp_path: Path) -> None:
    """Made, written, read, through community.hashi_vault; a second making is refused by the vault."""
    store = vault_store(vault, tmp_path)
    with pytest.raises(MissingStoreError, match="secret/data/gpufleet/secrets does not exist in the vault: gpufleet"):
        store.read()
    store.create()
    assert store.update(with_key).generation == 2
    assert store.read() == with_key(Document(2))
    assert store.update(lambda document: document).generation == 2
    assert len(vault.secrets["/v1/secret/data/gpufleet/secrets"]) == 2
    with pytest.raises(StoreError, match="it has versions, and is never overwritten by a new one: put back a"):
        store.create()


def test_a_store_that_was_deleted_in_the_vault(vault: Vault, tmp_path: Path) -> None:
    """It reads as if there were none, and is not begun anew over the versions that can be put back."""
    store = vault_store(vault, tmp_path)
    store.create()
    versions = vault.secrets["/v1/secret/data/gpufleet/secrets"]
    versions.append(None)
    with pytest.raises(MissingStoreError):
        store.read()
    with pytest.raises(StoreError, match="put back a deleted one"):
        store.create()
    assert len(versions) == 2


def test_two_writers_to_a_vault(vault: Vault, tmp_path: Path) -> None:
    """The one that read first and writes second is refused, and nothing of the other is lost."""
    store, other = vault_store(vault, tmp_path), vault_store(vault, tmp_path)
    store.create()

    def slow(document: Document) -> Document:
        other.update(with_key)
        return document.with_secret("slow", secret())

    with pytest.raises(StoreError) as caught:
        store.update(slow)
    assert str(caught.value) == (
        "cannot write secret/data/gpufleet/secrets in the vault: InvalidRequest: check-and-set parameter did not match "
        f"the current version, on post {vault.address}/v1/secret/data/gpufleet/secrets: somebody else wrote it "
        "meanwhile, run again"
    )
    assert set(store.read().secrets) == {"api_key"}


def test_a_vault_that_refuses(vault: Vault, tmp_path: Path) -> None:
    """The path and the reason, never the token."""
    with pytest.raises(StoreError) as caught:
        vault_store(vault, tmp_path, token=CANARY).read()
    assert "Forbidden: Permission Denied to path 'secret/data/gpufleet/secrets'" in str(caught.value)
    assert CANARY not in str(caught.value)


def test_something_else_in_the_vault(vault: Vault, tmp_path: Path) -> None:
    """It is not overwritten."""
    vault.secrets["/v1/secret/data/gpufleet/secrets"] = [{"password": CANARY}]
    with pytest.raises(StoreError) as caught:
        vault_store(vault, tmp_path).update(with_key)
    assert str(caught.value) == "secret/data/gpufleet/secrets in the vault holds no store: put back its last version"


# --------------------------------------------------------------------------------------------------- sops' stand-in

SOPS = """#!/bin/sh
# Takes what community.sops gives sops 3.9, and writes its input as hexadecimal digits.
here=$(dirname "$0")
echo "$@" >> "$here/calls"
for last; do :; done
case " $* " in
  *" --version "*) echo "sops 3.9.0" ;;
  *" encrypt "*) if [ -e "$here/broken" ]; then echo "no key" >&2; exit 1; fi; od -An -v -tx1 "$last" ;;
  *" decrypt "*) python3 -c 'import sys; print(bytes.fromhex(open(sys.argv[1]).read()).decode())' "$last" ;;
  *) echo "unknown arguments" >&2; exit 2 ;;
esac
"""


@pytest.fixture
def sops(tmp_path: Path) -> SopsStore:
    """Return a store that the stand-in encrypts."""
    program = tmp_path / "bin" / "sops"
    program.parent.mkdir()
    private(program, SOPS.encode(), 0o755)
    options = {"sops_binary": str(program), "age": ["age1recipient"]}
    store = open_store({"backend": "sops", "path": "s.sops.json", "options": options}, controller(tmp_path))
    assert isinstance(store, SopsStore)
    return store


def test_a_store_of_sops(sops: SopsStore, tmp_path: Path) -> None:
    """Made, written, read, through community.sops; what is in it is in no argument of the program."""
    sops.create()
    assert sops.update(with_key).generation == 2
    assert sops.read() == with_key(Document(2))
    assert stat.S_IMODE(os.stat(sops.path).st_mode) == 0o600
    assert CANARY.encode() not in Path(sops.path).read_bytes()
    calls = (tmp_path / "bin" / "calls").read_text()
    assert "--age age1recipient" in calls
    assert CANARY not in calls
    with pytest.raises(StoreError, match="exists: a store is never overwritten by a new one"):
        sops.create()


def test_faults_of_sops(sops: SopsStore, tmp_path: Path) -> None:
    """Encrypting, decrypting, and content that is no store; the old content stays."""
    sops.create()
    before = Path(sops.path).read_bytes()
    (tmp_path / "bin" / "broken").touch()
    with pytest.raises(StoreError, match=r"sops does not encrypt .*/s\.sops\.json: .*"):
        sops.update(with_key)
    assert Path(sops.path).read_bytes() == before
    private(Path(sops.path), b"not hexadecimal")
    with pytest.raises(StoreError, match=r"sops does not open .*/s\.sops\.json: .*"):
        sops.read()
    private(Path(sops.path), b'{"other": 1}'.hex().encode())
    with pytest.raises(StoreError, match=r"s\.sops\.json holds no store: put back the last backup of it"):
        sops.read()


def test_a_collection_that_is_not_installed(tmp_path: Path) -> None:
    """It is named."""
    with pytest.raises(StoreError) as caught:
        controller(tmp_path).lookup("community.nothing.lookup", "x", {})
    assert str(caught.value) == (
        "the lookup plugin community.nothing.lookup is not installed: install community.nothing"
    )
