# SPDX-License-Identifier: Apache-2.0
# PRIVATE to the collection: do not import this from outside, it may change without notice.
"""For the plugins about secrets: from ``fleet_secret_store`` to a store, whatever keeps it. Runs on the controller."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol

from ansible.errors import AnsibleError
from ansible.plugins.loader import lookup_loader

from ansible_collections.gpufleet.metal.plugins.module_utils._errors import InvalidInputError
from ansible_collections.gpufleet.metal.plugins.module_utils._secrets.document import (
    Document,
    MissingStoreError,
    StoreError,
    as_plain,
    read_plain,
)
from ansible_collections.gpufleet.metal.plugins.module_utils._secrets.envelope import read_private_key, read_public_key
from ansible_collections.gpufleet.metal.plugins.module_utils._secrets.file_store import (
    Change,
    FileStore,
    WrappingKey,
    exclusive,
    read_private,
    replace_private,
)

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

DEFAULT_PATHS = {
    "file": ".gpufleet/secrets.json",
    "sops": ".gpufleet/secrets.sops.json",
    "hashi_vault": "gpufleet/secrets",
}
DEFAULT_KEY = {"file": "~/.config/gpufleet/secrets.key"}

_STORE_KEYS = ("backend", "path", "key", "signers", "options")
_KEY_KINDS = ("file", "environment", "command")
_VAULT_HEADER = b"$ANSIBLE_VAULT;"

Lookup = Callable[..., Any]
"""(name of a lookup plugin, term, options) -> its first result. Raises AnsibleError."""


class SecretStore(Protocol):
    """What keeps a document: read it whole, or replace it by what a function makes of it."""

    def read(self) -> Document:
        """Return the document. Raises StoreError."""

    def update(self, change: Change) -> Document:
        """Replace the document unless it stays the same, and return it; nobody else writes meanwhile."""


@dataclass(frozen=True)
class Controller:
    """What the stores need of a running plugin."""

    loader: Any
    templar: Any
    variables: Mapping[str, Any]

    def path(self, path: str) -> str:
        """Return a path made absolute: what is relative is below the inventory's directory."""
        directory = self.variables.get("inventory_dir")
        if not directory:
            sources = [str(source) for source in self.variables.get("ansible_inventory_sources") or [] if source]
            directory = sources[0] if sources else os.getcwd()
            directory = directory if os.path.isdir(directory) else os.path.dirname(directory)
        return os.path.abspath(os.path.join(str(directory), os.path.expanduser(str(path))))

    def lookup(self, name: str, term: str, options: Mapping[str, Any]) -> Any:
        """Run a lookup plugin of another collection."""
        plugin = lookup_loader.get(name, loader=self.loader, templar=self.templar)
        if plugin is None:
            raise StoreError(f"the lookup plugin {name} is not installed: install {'.'.join(name.split('.')[:2])}")
        return plugin.run([term], variables=dict(self.variables), **options)[0]


def open_store(options: Mapping[str, Any] | None, controller: Controller) -> SecretStore:
    """Return the store that ``fleet_secret_store`` describes; nothing is read yet. Raises InvalidInputError."""
    given = dict(options or {})
    unknown = sorted(set(given) - set(_STORE_KEYS))
    if unknown:
        raise InvalidInputError(f"fleet_secret_store has {unknown[0]!r}, wanted none but {', '.join(_STORE_KEYS)}")
    backend = given.get("backend", "file")
    if backend not in DEFAULT_PATHS:
        raise InvalidInputError(f"fleet_secret_store.backend is {backend!r}, wanted one of {', '.join(DEFAULT_PATHS)}")
    path = str(given.get("path") or DEFAULT_PATHS[backend])
    if backend == "hashi_vault":
        return HashiVaultStore(path, given.get("options") or {}, controller.lookup)
    if backend == "sops":
        return SopsStore(controller.path(path), given.get("options") or {}, controller.lookup)
    key = given.get("key") or DEFAULT_KEY
    check_key(key, "fleet_secret_store.key")
    signers = given.get("signers") or []
    if not isinstance(signers, list):
        raise InvalidInputError("fleet_secret_store.signers is no list, wanted one of files with public keys")
    return FileStore(
        controller.path(path),
        lambda: read_key(key, controller),
        lambda: [read_public_key_file(controller.path(signer)) for signer in signers],
    )


# ---------------------------------------------------------------------------------------------------- wrapping keys


def check_key(key: Any, where: str) -> None:
    """Check the description of a private key. Raises InvalidInputError."""
    if not isinstance(key, Mapping) or len(key) != 1 or next(iter(key)) not in _KEY_KINDS:
        found = ", ".join(sorted(map(str, key))) if isinstance(key, Mapping) else type(key).__name__
        raise InvalidInputError(f"{where} has {found or 'nothing'}, wanted exactly one of {', '.join(_KEY_KINDS)}")


def read_key(key: Mapping[str, Any], controller: Controller) -> WrappingKey:
    """Return the private key from where it is kept. Raises StoreError that names the place, never the key."""
    ((kind, where),) = key.items()
    if kind == "environment":
        source = f"the environment variable {where}"
        content = os.environ.get(str(where), "").encode()
        if not content:
            raise StoreError(f"{source} is not set: it is to hold the private key (fleet_secret_store.key.environment)")
    elif kind == "command":
        argv = shlex.split(where) if isinstance(where, str) else [str(part) for part in where]
        source = f"the command {argv[0] if argv else ''}"
        content = _output_of(argv, source)
    else:
        source = controller.path(str(where))
        content = _key_file(source, controller.loader)
    return WrappingKey(read_private_key(content, source), source)


def read_public_key_file(path: str) -> RSAPublicKey:
    """Return the public key in a file. Raises StoreError."""
    try:
        with open(path, "rb") as stream:
            return read_public_key(stream.read(), path)
    except OSError as fault:
        raise StoreError(f"cannot read the public key {path}: {fault.strerror}") from None


def _output_of(argv: list[str], source: str) -> bytes:
    try:
        done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, check=False)
    except (OSError, IndexError) as fault:
        raise StoreError(f"{source} can't be run: {fault} (fleet_secret_store.key.command)") from None
    if done.returncode != 0:
        raise StoreError(f"{source} ended with {done.returncode}, wanted 0 and the private key on its standard output")
    return done.stdout


def _key_file(path: str, loader: Any) -> bytes:
    if _is_vault_file(path):
        try:
            return bytes(loader._get_file_contents(path)[0])
        except AnsibleError:
            raise StoreError(
                f"{path} is encrypted by ansible-vault and does not open: give its password (--vault-password-file)"
            ) from None
    return read_private(path, "private key")


def _is_vault_file(path: str) -> bool:
    try:
        with open(path, "rb") as stream:
            return stream.read(len(_VAULT_HEADER)) == _VAULT_HEADER
    except OSError:
        return False  # read_private says why


# ------------------------------------------------------------------------------------------------- other backends


class HashiVaultStore:
    """A store in OpenBao's or HashiCorp Vault's key-value engine, version 2, which encrypts and authenticates it."""

    def __init__(self, path: str, options: Mapping[str, Any], lookup: Lookup) -> None:
        """``options`` are those of the collection's lookup plugins: url, auth_method and so on."""
        self._options = {key: value for key, value in options.items() if key != "engine_mount_point"}
        self._mount = str(options.get("engine_mount_point") or "secret")
        self._where = f"{self._mount}/data/{path}"
        self._lookup = lookup

    def read(self) -> Document:
        """Return the document. Raises StoreError."""
        return self._read()[0]

    def update(self, change: Change) -> Document:
        """Replace the document, unless somebody else did since it was read. Raises StoreError."""
        before, version = self._read()
        after = change(before)
        if after == before:
            return before
        after = replace(after, generation=before.generation + 1)
        self._write(after, version, "somebody else wrote it meanwhile, run again")
        return after

    def create(self) -> None:
        """Write an empty document. Raises StoreError when there is one, also when its newest version was deleted."""
        hint = "it has versions, and is never overwritten by a new one: put back a deleted one (vault kv undelete)"
        self._write(Document(generation=1), 0, hint)

    def _read(self) -> tuple[Document, int]:
        answer = self._ask("community.hashi_vault.vault_read", {})
        try:
            text, version = answer["data"]["data"]["document"], int(answer["data"]["metadata"]["version"])
            plain = json.loads(text)
        except (KeyError, TypeError, ValueError):
            raise StoreError(f"{self._where} in the vault holds no store: put back its last version") from None
        return read_plain(plain, f"{self._where} in the vault"), version

    def _write(self, document: Document, version: int, otherwise: str) -> None:
        """Write it, if that version is the newest; ``otherwise`` says what is to be done about another one."""
        content = {"data": {"document": json.dumps(as_plain(document))}, "options": {"cas": version}}
        self._ask("community.hashi_vault.vault_write", {"data": content}, otherwise)

    def _ask(self, plugin: str, options: Mapping[str, Any], otherwise: str = "") -> Any:
        verb = plugin.rpartition("_")[2]
        try:
            return self._lookup(plugin, self._where, {**self._options, **options})
        except StoreError:
            raise
        except Exception as fault:  # hvac's errors are not Ansible's
            if isinstance(fault, AnsibleError) and "doesn't seem to exist" in str(fault):
                raise MissingStoreError(
                    f"{self._where} does not exist in the vault: gpufleet.metal.create_secret_store makes it"
                ) from None
            hint = f": {otherwise}" if "check-and-set" in str(fault) else ""
            raise StoreError(
                f"cannot {verb} {self._where} in the vault: {type(fault).__name__}: {_first_line(fault)}{hint}"
            ) from None


class SopsStore:
    """A store in a file that SOPS encrypts and authenticates, for the keys that its configuration names."""

    def __init__(self, path: str, options: Mapping[str, Any], lookup: Lookup) -> None:
        """``options`` are those of the collection's plugins: sops_binary, config_path, age and so on."""
        self.path = path
        self._options = dict(options)
        self._lookup = lookup

    def read(self) -> Document:
        """Return the document. Raises StoreError."""
        read_private(self.path, "store")
        reading = {key: value for key, value in self._options.items() if key not in _SOPS_ENCRYPTION}
        try:
            types = {"input_type": "json", "output_type": "json"}
            text = self._lookup("community.sops.sops", self.path, {**reading, **types})
            plain = json.loads(json.loads(text)["document"])
        except StoreError:
            raise
        except AnsibleError as fault:
            raise StoreError(f"sops does not open {self.path}: {_first_line(fault)}") from None
        except (KeyError, TypeError, ValueError):
            raise StoreError(f"{self.path} holds no store: put back the last backup of it") from None
        return read_plain(plain, self.path)

    def update(self, change: Change) -> Document:
        """Replace the document unless it stays the same. Raises StoreError."""
        with exclusive(self.path):
            before = self.read()
            after = change(before)
            if after == before:
                return before
            after = replace(after, generation=before.generation + 1)
            replace_private(self.path, self._encrypted(after))
            return after

    def create(self) -> None:
        """Write an empty document. Raises StoreError when there is one."""
        with exclusive(self.path):
            if os.path.lexists(self.path):
                raise StoreError(f"{self.path} exists: a store is never overwritten by a new one")
            replace_private(self.path, self._encrypted(Document(generation=1)))

    def _encrypted(self, document: Document) -> bytes:
        try:
            from ansible_collections.community.sops.plugins.module_utils.sops import Sops, SopsError
        except ImportError:
            raise StoreError("the collection community.sops is not installed: install it") from None
        text = json.dumps({"document": json.dumps(as_plain(document))})
        try:
            content: bytes = Sops.encrypt(
                text.encode(),
                cwd=os.path.dirname(self.path),
                input_type="json",
                output_type="json",
                get_option_value=self._options.get,
                filename=self.path,
            )
        except SopsError as fault:
            raise StoreError(f"sops does not encrypt {self.path}: {_first_line(fault)}") from None
        return content


_SOPS_ENCRYPTION = frozenset(
    "age kms gcp_kms azure_kv hc_vault_transit pgp unencrypted_suffix encrypted_suffix unencrypted_regex "
    "encrypted_regex encryption_context shamir_secret_sharing_threshold".split()
)


def _first_line(fault: Exception) -> str:
    return (str(fault).strip().splitlines() or [""])[0]
