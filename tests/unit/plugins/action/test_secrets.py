# SPDX-License-Identifier: Apache-2.0
"""The actions about secrets make, rotate, describe and re-seal a real store, and show no value while they do."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
from ansible.errors import AnsibleActionFail
from ansible.parsing.dataloader import DataLoader

from ansible_collections.gpufleet.metal.plugins.action import secret_rotate, secret_store, secrets_status
from ansible_collections.gpufleet.metal.plugins.module_utils._secrets.document import Document
from ansible_collections.gpufleet.metal.plugins.plugin_utils._secret_stores import Controller, open_store
from ansible_collections.gpufleet.metal.tests.unit.plugins.module_utils._secrets.samples import key, key_pem

SECRETS = {
    "api_key": {
        "kind": "token",
        "overlap_hours": 0,
        "consumers": {"door": {"hosts": "gateways", "tasks": "door.yml"}},
    },
    "jwt": {"kind": "ed25519_key"},
}
GROUPS = {"all": ["gw-1", "gw-2", "db-1"], "gateways": ["gw-1", "gw-2"]}


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """Return the directory of an inventory with a wrapping key and no store."""
    (tmp_path / "secrets.key").write_bytes(key_pem())
    (tmp_path / "secrets.key").chmod(0o600)
    return tmp_path


STORE = {"path": "s.json", "key": {"file": "secrets.key"}}


def run(plugin: Any, place: Path, check: bool = False, **arguments: Any) -> dict[str, Any]:
    """Run an action as a task with --diff, with plain values instead of a templar."""
    task = Mock(args={"store": STORE, **arguments}, async_val=0, check_mode=check, diff=True, delegate_to=None)
    action = plugin.ActionModule(
        task=task,
        connection=Mock(),
        play_context=Mock(),
        loader=DataLoader(),
        templar=Mock(),
        shared_loader_obj=None,
    )
    result: dict[str, Any] = action.run(task_vars={"inventory_dir": str(place), "groups": GROUPS})
    return result


def rotate(place: Path, step: str, check: bool = False, **arguments: Any) -> dict[str, Any]:
    """Run secret_rotate."""
    return run(secret_rotate, place, check, secrets=arguments.pop("secrets", SECRETS), step=step, **arguments)


def stored(place: Path) -> Document:
    """Return what is in the store."""
    return open_store(STORE, Controller(DataLoader(), None, {"inventory_dir": str(place)})).read()


def values(document: Document) -> set[str]:
    """Return every value, and every line of those that have several."""
    found: set[str] = set()
    for secret in document.secrets.values():
        for version in secret.versions().values():
            for part in version.value.values():
                found.update(line for line in part.splitlines() if len(line) > 20 and "KEY-----" not in line)
    return found


@pytest.fixture
def made(place: Path) -> Path:
    """Return the directory with a store of both secrets."""
    run(secret_store, place)
    rotate(place, "create")
    return place


def shown(result: dict[str, Any], holds: bool = True) -> list[dict[str, Any]]:
    """Say that all the work of a result was done."""
    return [
        {"host": host, "holds": holds, **{name: entry[name] for name in ("secret", "phase", "version", "consumer")}}
        for host, entries in result["work"].items()
        for entry in entries
    ]


# --------------------------------------------------------------------------------------------------- making a store


def test_a_store_is_made_with_its_key(tmp_path: Path) -> None:
    """One task makes both; a second one, and one in check mode before it, change nothing."""
    assert run(secret_store, tmp_path, check=True, bits=2048)["changed"] is True
    assert os.listdir(tmp_path) == []
    result = run(secret_store, tmp_path, bits=2048)
    assert (result["changed"], result["path"], len(result["recipients"])) == (True, f"{tmp_path}/s.json", 1)
    for name in ("s.json", "secrets.key"):
        assert stat.S_IMODE(os.stat(tmp_path / name).st_mode) == 0o600
    again = run(secret_store, tmp_path)
    assert (again["changed"], again["recipients"]) == (False, result["recipients"])


def test_a_lost_key_is_not_made_anew(made: Path) -> None:
    """The store would be lost with it."""
    (made / "secrets.key").unlink()
    with pytest.raises(AnsibleActionFail, match=r"secrets\.key does not exist: name the right file, or put its backup"):
        run(secret_store, made)
    assert not (made / "secrets.key").exists()


def test_rewrapping(made: Path) -> None:
    """The missing new key is made; check mode makes none; the second time nothing changes."""
    before = stored(made)
    (made / "offline.pub").write_bytes(public_pem("offline"))
    options = {"state": "rewrapped", "new_key": {"file": "new.key"}, "recipients": [str(made / "offline.pub")]}
    assert run(secret_store, made, check=True, **options)["changed"] is True
    assert not (made / "new.key").exists()
    result = run(secret_store, made, bits=2048, **options)
    assert (result["changed"], len(result["recipients"])) == (True, 2)
    with pytest.raises(AnsibleActionFail, match="is not sealed for the key from"):
        run(secret_store, made)
    new = {"path": "s.json", "key": {"file": "new.key"}}
    assert run(secret_store, made, store=new, **options)["changed"] is False
    # As a run that was killed leaves it, and as the inventory still says: nothing is left to do, for these recipients.
    assert run(secret_store, made, **options)["changed"] is False
    with pytest.raises(AnsibleActionFail, match="is not sealed for the key from"):
        run(secret_store, made, **{**options, "recipients": []})
    after = open_store(new, Controller(DataLoader(), None, {"inventory_dir": str(made)})).read()
    assert after.secrets == before.secrets


def public_pem(which: str) -> bytes:
    """Return a recipient's public key."""
    from cryptography.hazmat.primitives import serialization

    form = serialization.PublicFormat.SubjectPublicKeyInfo
    pem: bytes = key(which).public_key().public_bytes(serialization.Encoding.PEM, form)
    return pem


def test_a_store_of_another_back_end(tmp_path: Path) -> None:
    """Made once, not in check mode; a stand-in of sops keeps it, in hexadecimal digits."""
    program = tmp_path / "sops"
    program.write_text(
        "#!/bin/sh\nfor last; do :; done\n"
        'case " $* " in\n'
        '  *" --version "*) echo "sops 3.9.0" ;;\n'
        '  *" encrypt "*) od -An -v -tx1 "$last" ;;\n'
        "  *) python3 -c 'import sys; print(bytes.fromhex(open(sys.argv[1]).read()).decode())' \"$last\" ;;\n"
        "esac\n"
    )
    program.chmod(0o755)
    store = {"backend": "sops", "path": "s.sops.json", "options": {"sops_binary": str(program)}}
    assert run(secret_store, tmp_path, check=True, store=store)["changed"] is True
    assert os.listdir(tmp_path) == ["sops"]
    assert run(secret_store, tmp_path, store=store)["changed"] is True
    assert run(secret_store, tmp_path, store=store)["changed"] is False
    assert rotate(tmp_path, "create", store=store)["moved"] == ["api_key", "jwt"]
    assert rotate(tmp_path, "create", store=store)["changed"] is False


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"bits": 1024}, "bits is 1024, wanted 2048 to 16384"),
        (
            {"recipients": ["/no/key.pub"]},
            "cannot read the public key /no/key.pub: No such file or directory",
        ),
        (
            {"store": {"backend": "sops"}, "state": "rewrapped"},
            "state is rewrapped and fleet_secret_store.backend is not file: SOPS has `sops updatekeys` and `sops "
            "rotate`, a vault has `rekey`",
        ),
    ],
)
def test_stores_that_can_not_be_made(place: Path, options: dict[str, Any], message: str) -> None:
    """Before anything is written."""
    with pytest.raises(AnsibleActionFail) as caught:
        run(secret_store, place, **options)
    assert str(caught.value.message) == message
    assert os.listdir(place) == ["secrets.key"]


# --------------------------------------------------------------------------------------------------------- rotating


def test_a_rotation_step_by_step(made: Path) -> None:
    """With what each step reports as changed, and to do."""
    first = stored(made).secrets["api_key"].current
    result = rotate(made, "begin", names=["api_key"])
    assert (result["changed"], result["moved"]) == (True, ["api_key"])
    assert result["work"]["gw-1"] == [
        {
            "secret": "api_key",
            "phase": "staging",
            "version": 2,
            "consumer": "door",
            "tasks": f"{made}/door.yml",
        }
    ]
    assert set(result["work"]) == {"gw-1", "gw-2"}
    assert rotate(made, "begin", names=["api_key"])["changed"] is False
    for phase in ("promoted", "retiring"):
        result = rotate(made, "advance", shown=shown(result))
        assert (result["changed"], result["moved"], result["waiting"]) == (True, ["api_key"], [])
        assert result["work"]["gw-2"][0]["phase"] == phase
    result = rotate(made, "advance", shown=shown(result))
    assert (result["moved"], result["work"]) == (["api_key"], {})
    after = stored(made).secrets["api_key"]
    assert (after.phase, after.current.number, after.previous) == ("idle", 2, None)
    assert after.current.value != first.value
    assert rotate(made, "advance", shown=[])["changed"] is False


def test_a_host_that_is_down_is_named(made: Path) -> None:
    """And the others' work is not asked for again in the same run."""
    result = rotate(made, "begin", names=["api_key"])
    result = rotate(made, "advance", shown=[entry for entry in shown(result) if entry["host"] == "gw-1"])
    assert result["work"] == {}
    assert result["waiting"] == [
        {
            "secret": "api_key",
            "phase": "staging",
            "consumers": ["door@gw-2"],
            "until": None,
            "certificates": [],
            "why": "api_key: the new value is not used yet: acceptance of it is not proven by door@gw-2",
        }
    ]


def test_a_certificate_of_an_authority_in_the_store(place: Path) -> None:
    """No file of an authority is needed; check mode tells the same. The old one waits for what it signed."""
    secrets = {
        "leaf": {"kind": "certificate", "options": {"common_name": "gw-1", "ca_secret": "ca"}, "overlap_hours": 0},
        "ca": {"kind": "authority", "overlap_hours": 0},
    }
    run(secret_store, place)
    assert rotate(place, "create", check=True, secrets=secrets)["moved"] == ["ca", "leaf"]
    assert rotate(place, "create", secrets=secrets)["moved"] == ["ca", "leaf"]
    assert not (place / ".gpufleet").exists()
    rotate(place, "begin", secrets=secrets, names=["ca"])
    rotate(place, "advance", secrets=secrets)
    result = rotate(place, "advance", secrets=secrets)
    assert result["waiting"] == [
        {
            "secret": "ca",
            "phase": "promoted",
            "consumers": [],
            "until": None,
            "certificates": ["leaf"],
            "why": "ca: the old authority is trusted until its certificates are rotated: leaf",
        }
    ]
    assert rotate(place, "begin", check=True, secrets=secrets)["moved"] == ["leaf"]
    assert rotate(place, "begin", secrets=secrets)["moved"] == ["leaf"]
    for __ in range(4):
        result = rotate(place, "advance", secrets=secrets)
    assert (result["waiting"], {secret.phase for secret in stored(place).secrets.values()}) == ([], {"idle"})
    assert [secret.current.number for secret in stored(place).secrets.values()] == [2, 2]


@pytest.mark.parametrize("step", ["create", "begin", "advance"])
def test_check_mode_tells_and_writes_nothing(place: Path, step: str) -> None:
    """The same answer as the real run, to the word of its diff."""
    run(secret_store, place)
    arguments: dict[str, Any] = {}
    if step != "create":
        rotate(place, "create")
        arguments = {"names": ["api_key"]}
    if step == "advance":
        arguments = {"shown": shown(rotate(place, "begin", **arguments))}
    before = (place / "s.json").read_bytes()
    told = rotate(place, step, check=True, **arguments)
    assert (place / "s.json").read_bytes() == before
    done = rotate(place, step, **arguments)
    assert told["changed"] is done["changed"] is True
    assert told == done


@pytest.mark.parametrize(
    ("secrets", "arguments", "message"),
    [
        ({"a": {"kind": "pin"}}, {}, "fleet_secrets.a.kind is 'pin', wanted one of "),
        (
            {"a": {"kind": "token", "consumers": {"door": {"hosts": "gatways", "tasks": "x"}}}},
            {},
            "fleet_secrets.a.consumers.door.hosts is 'gatways', wanted a group or a host of the inventory",
        ),
        ({}, {"names": ["api_key"]}, "api_key is to be rotated and is not in fleet_secrets, which has none"),
    ],
)
def test_what_can_not_be_rotated(made: Path, secrets: dict[str, Any], arguments: dict[str, Any], message: str) -> None:
    """The store stays as it is."""
    before = (made / "s.json").read_bytes()
    with pytest.raises(AnsibleActionFail) as caught:
        rotate(made, "begin", secrets=secrets, **arguments)
    assert str(caught.value.message).startswith(message)
    assert (made / "s.json").read_bytes() == before


# ----------------------------------------------------------------------------------------------------------- status


def test_status_and_metrics(made: Path) -> None:
    """The file is what is returned; check mode writes none; nothing is ever changed."""
    (made / "metrics").mkdir()
    path = made / "metrics" / "secrets.prom"
    checked = run(secrets_status, made, check=True, secrets=SECRETS, metrics_path=str(path))
    assert (checked["changed"], path.exists()) == (False, False)
    result = run(secrets_status, made, secrets=SECRETS, metrics_path=str(path))
    assert (result["changed"], result["generation"]) == (False, 2)
    assert path.read_text() == result["metrics"]
    assert os.listdir(path.parent) == ["secrets.prom"]
    assert [entry["name"] for entry in result["secrets"]] == ["api_key", "jwt"]
    assert [line.partition(",")[0] for line in result["table"]] == ["api_key: token", "jwt: ed25519_key"]


# ---------------------------------------------------------------------------------------------------------- secrecy


def everything(place: Path) -> list[Callable[[], dict[str, Any]]]:
    """Return every action on a store that has secrets, in an order that rotates one."""
    results: list[dict[str, Any]] = [{}]

    def step(**arguments: Any) -> dict[str, Any]:
        if arguments["step"] == "advance":
            arguments["shown"] = shown(results[-1])
        results.append(rotate(place, **arguments))
        return results[-1]

    return [
        lambda: step(step="create"),
        lambda: step(step="begin", names=["api_key", "jwt"], emergency=True),
        lambda: step(step="advance"),
        lambda: step(step="advance"),
        lambda: run(secrets_status, place, secrets=SECRETS),
        lambda: run(secret_store, place),
        lambda: run(secret_store, place, state="rewrapped"),
    ]


def test_no_result_holds_a_value(made: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """No result and no diff, and nothing is printed; looked for are all values that ever were in the store."""
    known = values(stored(made)) | {line for line in key_pem().decode().splitlines() if "KEY-----" not in line}
    texts = []
    for action in everything(made):
        texts.append(json.dumps(action(), default=str))
        known |= values(stored(made))
    printed = capfd.readouterr()
    texts += [printed.out, printed.err]
    assert len(known) > 20
    for value in known:
        assert all(value not in text for text in texts)
    for name in os.listdir(made):
        content = (made / name).read_text()
        assert name == "secrets.key" or all(value not in content for value in known)
        assert stat.S_IMODE(os.stat(made / name).st_mode) == 0o600
