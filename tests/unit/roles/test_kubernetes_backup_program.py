# SPDX-License-Identifier: Apache-2.0
"""The program that takes snapshots: real files, and stand-ins for etcdctl, etcdutl, age and sftp."""

from __future__ import annotations

import hashlib
import json
import os
import stat
import sys
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.gpufleet.metal.roles.kubernetes_backup.files import kubernetes_backup as program
from ansible_collections.gpufleet.metal.roles.kubernetes_backup.files.kubernetes_backup import Backup, BackupError

PREFIX = "gpufleet_cp-1_"

ETCDCTL = """
import hashlib, json, sys
if "save" in sys.argv:
    data = b"d" * 4096
    open(sys.argv[sys.argv.index("save") + 1], "wb").write(data + hashlib.sha256(data).digest())
else:
    print(json.dumps([{"Status": {"version": "3.6.4"}}]))
"""
ETCDUTL = 'import json; print(json.dumps({"hash": 1, "revision": 10, "totalKey": 3, "totalSize": 4096}))'
AGE = """
import sys
open(sys.argv[sys.argv.index("--output") + 1], "wb").write(b"age-encryption.org/v1\\n" + sys.stdin.buffer.read())
"""
BROKEN = "import sys; sys.exit('the disk is full')"


def names(*stamps: str) -> list[str]:
    return [f"{PREFIX}202611{stamp}T000000Z.tar.age" for stamp in stamps]


def test_names_sort_by_time_and_belong_to_one_host() -> None:
    prefix = program.prefix_of("gpufleet", "cp-1")
    assert program.name_at(prefix, 1_795_878_262) == "gpufleet_cp-1_20261128T150422Z"
    others = ["gpufleet_cp-11_20261101T000000Z.tar.age", "gpufleet_cp-1_x.tar.age", f"{names('01')[0]}.part", "a.json"]
    assert program.own([*names("02", "01"), *others], prefix) == names("01", "02")
    assert program.leftovers([*names("01"), *others], prefix) == [f"{names('01')[0]}.part"]


@pytest.mark.parametrize(
    ("local", "remote", "found"),
    [
        (names("01", "02"), [], names("01", "02")),
        (names("01", "02"), names("01"), names("02")),
        # What was removed there stays removed.
        (names("01", "02", "03"), names("02"), names("03")),
        (names("01"), names("01"), []),
        (names("01"), ["gpufleet_cp-2_20261130T000000Z.tar.age"], names("01")),
    ],
)
def test_pending(local: list[str], remote: list[str], found: list[str]) -> None:
    assert program.pending(local, remote, PREFIX) == found


@pytest.mark.parametrize(("keep", "found"), [(1, names("01", "02")), (2, names("01")), (3, []), (9, []), (0, [])])
def test_surplus(keep: int, found: list[str]) -> None:
    assert program.surplus(names("03", "01", "02"), PREFIX, keep) == found


def test_what_sftp_lists() -> None:
    text = (
        'sftp> cd "/srv/backup"\nsftp> ls -ln\n'
        "drwx------    2 34       34           4096 Nov 28 15:00 .ssh\n"
        "-rw-------    1 34       34         133352 Nov 28 15:00 gpufleet_cp-1_20261128T150422Z.tar.age\n"
        "-rw-------    1 34       34            512 Nov 28  2025 /srv/backup/a.json\n"
    )
    assert program.listed(text) == {"gpufleet_cp-1_20261128T150422Z.tar.age": 133352, "a.json": 512}


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda data: data[:-1], "has 4127 bytes, wanted whole pages and a digest of 32 bytes"),
        (lambda data: b"e" + data[1:], "which stands at its end"),
        (lambda data: data[:-512], "which stands at its end"),
    ],
)
def test_a_snapshot_that_is_not_whole(tmp_path: Path, damage: Any, message: str) -> None:
    data = b"d" * 4096
    path = tmp_path / "etcd.db"
    path.write_bytes(data + hashlib.sha256(data).digest())
    program.check_snapshot(path)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(BackupError, match=message):
        program.check_snapshot(path)


class Place:
    """A host with its programs, and a destination that counts as mounted."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.root = root
        self.now = 1_795_878_262.0
        for name in program.PKI:
            path = root / "kubernetes" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f"PRIVATE {name}")
        (root / "mount").mkdir()
        for name, text in (("etcdctl", ETCDCTL), ("etcdutl", ETCDUTL), ("age", AGE)):
            self.install(name, text)
        monkeypatch.setattr(program.Directory, "_check", lambda directory: None)
        self.told: dict[str, Any] = {
            "cluster": "gpufleet",
            "node": "cp-1",
            "endpoint": "192.0.2.1:6443",
            "kubernetes_version": "1.36.4",
            "kubernetes_directory": str(root / "kubernetes"),
            "etcd": {"endpoint": "https://127.0.0.1:2379", "ca": "ca", "certificate": "crt", "key": "key"},
            **{name: str(root / name) for name in ("etcdctl", "etcdutl", "age")},
            "recipients": ["age1operator"],
            "directory": str(root / "backup"),
            "keep": 2,
            "keep_copies": 3,
            "metrics_path": str(root / "backup.prom"),
            "destination": {"directory": str(root / "mount")},
        }

    def install(self, name: str, text: str) -> None:
        path = self.root / name
        path.write_text(f"#!{sys.executable}\n{text}")
        path.chmod(0o755)

    def backup(self) -> Backup:
        self.now += 60
        return Backup(self.told, lambda: self.now)

    def there(self) -> list[str]:
        return program.own(os.listdir(self.root / "mount"), PREFIX)

    def metric(self, name: str) -> str:
        lines = (self.root / "backup.prom").read_text().splitlines()
        return next(
            line.rpartition(" ")[2] for line in lines if line.startswith(f"gpufleet_kubernetes_backup_{name}{{")
        )


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    return Place(tmp_path, monkeypatch)


def test_keeps_so_many_here_and_so_many_there(place: Place) -> None:
    for _number in range(5):
        place.backup().back_up()
    assert len(place.there()) == 3
    assert program.own(os.listdir(place.root / "backup"), PREFIX) == place.there()[1:]
    assert [stat.S_IMODE(path.stat().st_mode) for path in (place.root / "backup").glob("*.age")] == [0o600, 0o600]
    assert stat.S_IMODE((place.root / "backup").stat().st_mode) == 0o700
    assert place.metric("success") == "1"
    described = json.loads((place.root / "mount" / program.description_of(place.there()[-1])).read_text())
    assert described["sha256"] == program.sha256_of(place.root / "mount" / place.there()[-1])
    assert "PRIVATE" not in json.dumps(described)
    status = place.backup().status()
    assert (status["fault"], status["copy_bytes"]) == (None, status["state"]["size"])


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        ("etcdctl", "etcdctl ended with exit status 1: the disk is full"),
        ("etcdutl", "etcdutl ended with exit status 1: the disk is full"),
        ("age", "age ended with exit status 1: the disk is full"),
    ],
)
def test_a_failure_is_kept_and_shown(place: Place, broken: str, message: str) -> None:
    place.backup().back_up()
    place.install(broken, BROKEN)
    with pytest.raises(BackupError):
        place.backup().back_up()
    state = place.backup().state()
    assert state["error"] == message
    assert (place.metric("success"), place.metric("last_snapshot_timestamp_seconds")) == ("0", "1795878322")
    assert not [
        name for name in os.listdir(place.root / "backup") if name.startswith("work-") or name.endswith(".part")
    ]
    assert len(place.there()) == 1


def test_a_missing_key_of_the_cluster(place: Place) -> None:
    (place.root / "kubernetes/pki/sa.key").unlink()
    with pytest.raises(BackupError, match=r"lacks pki/sa\.key, wanted the keys that a restore needs"):
        place.backup().back_up()


def test_a_copy_that_is_another_one_when_it_is_read_back(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    def damaged(self: program.Directory, name: str, path: Path) -> None:
        path.write_bytes(b"X" + (self.path / name).read_bytes()[1:])

    monkeypatch.setattr(program.Directory, "fetch", damaged)
    with pytest.raises(BackupError, match="when it is read back, wanted"):
        place.backup().back_up()
    assert "last_copy" not in place.backup().state()


def test_what_could_not_be_copied_is_copied_later(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    place.backup().back_up()

    def away(self: program.Directory) -> dict[str, int]:
        raise BackupError("no route")

    with monkeypatch.context() as patched:
        patched.setattr(program.Directory, "names", away)
        with pytest.raises(BackupError, match="no route"):
            place.backup().back_up()
        assert place.backup().status()["fault"] == "no route"
    assert len(place.there()) == 1
    place.backup().back_up()
    assert len(place.there()) == 3


def test_what_a_killed_run_left_is_removed(place: Place) -> None:
    (place.root / "backup" / "work-1").mkdir(parents=True)
    (place.root / "backup" / "work-1" / "etcd.db").write_text("plain")
    (place.root / "backup" / f"{names('01')[0]}.part").write_text("half")
    (place.root / "mount" / f"{names('01')[0]}.part").write_text("half")
    place.backup().back_up()
    left = [*os.listdir(place.root / "backup"), *os.listdir(place.root / "mount")]
    assert not [name for name in left if name.startswith("work-") or name.endswith(".part")]


def test_a_clock_that_was_ahead(place: Place) -> None:
    place.now += 86400
    place.backup().back_up()
    place.now -= 86400
    place.backup().back_up()
    assert len(place.there()) == len(program.own(os.listdir(place.root / "backup"), PREFIX)) == 2
    assert place.backup().state()["last_copy"] == int(place.now) - 60


def test_a_description_that_a_killed_run_has_left(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    put: list[str] = []
    bring = program.Directory.put

    def killed(destination: program.Directory, path: Path) -> None:
        if path.name.endswith(".age") and len(put) == 1:
            raise BackupError("killed")
        put.append(path.name)
        bring(destination, path)

    monkeypatch.setattr(program.Directory, "put", killed)
    with pytest.raises(BackupError, match="killed"):
        place.backup().back_up()
    put.append("another run")
    place.backup().back_up()
    assert len(put) == len({*put})
    assert len(place.there()) == 2


def test_two_runs_at_once(place: Place) -> None:
    with place.backup().alone(), pytest.raises(BackupError, match="another run is at it"):
        place.backup().back_up()


def test_keys_that_change_meanwhile(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = iter([{"a": "1"}, {"a": "2"}])
    monkeypatch.setattr(Backup, "key_files", lambda backup: next(seen))
    with pytest.raises(BackupError, match="the keys of Secrets were changed meanwhile"):
        place.backup().back_up()


def test_a_directory_that_is_not_mounted(tmp_path: Path) -> None:
    with pytest.raises(BackupError, match="is on this host's own file system: mount it first"):
        program.Directory(str(tmp_path), tmp_path).names()
    with pytest.raises(BackupError, match="is no directory: is it mounted"):
        program.Directory(str(tmp_path / "gone"), tmp_path).names()


def test_what_sftp_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[tuple[list[str], str]] = []

    def run(argv: list[str], stdin: str | None = None) -> str:
        told.append((list(argv), str(stdin)))
        return ""

    monkeypatch.setattr(program, "run", run)
    options = {
        "host": "nas",
        "port": 2222,
        "user": "backup",
        "path": "/srv/b",
        "identity_file": "/k",
        "known_hosts_file": "/h",
    }
    destination = program.Sftp(options)
    destination.put(tmp_path / "a.json")
    destination.remove([])
    argv, commands = told[0]
    assert argv[-1] == "backup@nas"
    assert {"BatchMode=yes", "StrictHostKeyChecking=yes", "UserKnownHostsFile=/h", "IdentitiesOnly=yes"} <= {*argv}
    assert commands.splitlines() == [
        'cd "/srv/b"',
        f'put "{tmp_path}/a.json" "a.json.part"',
        'rename "a.json.part" "a.json"',
    ]
    assert len(told) == 1


def test_the_program_says_what_went_wrong(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    path = place.root / "configuration.json"
    path.write_text(json.dumps(place.told))
    assert program.main(["run", "--configuration", str(path)]) == 0
    place.install("etcdctl", BROKEN)
    assert program.main(["run", "--configuration", str(path)]) == 1
    assert "BackupError: etcdctl ended with exit status 1: the disk is full" in capsys.readouterr().err
    assert program.main(["status", "--configuration", str(path)]) == 0
    assert json.loads(capsys.readouterr().out)["state"]["error"]
