# SPDX-License-Identifier: Apache-2.0
"""A control plane restored, on a directory in place of a host: what is refused, and that a killed run goes on."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import shutil
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any

import pytest

from ansible_collections.gpufleet.metal.plugins.module_utils._errors import FleetError
from ansible_collections.gpufleet.metal.plugins.module_utils._kubernetes import restore as restores
from ansible_collections.gpufleet.metal.plugins.module_utils._kubernetes.etcd_tools import Tools, image_of, version_in
from ansible_collections.gpufleet.metal.plugins.module_utils._kubernetes.host import Host
from ansible_collections.gpufleet.metal.plugins.module_utils._kubernetes.restore import Restore

OLD_KEY, NEW_KEY = "A" * 43 + "=", "B" * 43 + "="
ENCRYPTION = f"""providers:
- secretbox:
    keys:
    - name: key-0123456789ab
      secret: {OLD_KEY}
"""
DATABASE = b"d" * 4096


class KilledError(BaseException):
    """SIGKILL, as near as a test comes."""


class Programs:
    """etcdutl, kubeadm and kubectl; ``steps`` calls until the run is killed, before the call or after it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.calls: list[str] = []
        self.steps = 0
        self.status = {"hash": 1, "revision": 10, "totalKey": 3}

    def __call__(self, argv: Sequence[str], stdin: str | None = None) -> tuple[int, str, str]:
        line = " ".join(argv)
        self.calls.append(line)
        self.steps -= 1
        if self.steps == 0:
            raise KilledError
        answer = self.answer(list(argv), line)
        self.steps -= 1
        if self.steps == 0:
            raise KilledError
        return answer

    def answer(self, argv: list[str], line: str) -> tuple[int, str, str]:
        if line.endswith("etcdutl version"):
            return 0, "etcdutl version: 3.6.4\nAPI version: 3.6\n", ""
        if "snapshot status" in line:
            return 0, json.dumps(self.status), ""
        if "restore --help" in line:
            return 0, "--bump-revision uint --mark-compacted", ""
        if "snapshot restore" in line:
            target = Path(argv[argv.index("--data-dir") + 1]) / "member"
            target.mkdir(parents=True)
            (target / "db").write_bytes(b"restored")
        if argv[:2] == ["kubeadm", "init"]:
            assert "--ignore-preflight-errors=DirAvailable--var-lib-etcd" in argv
            assert (self.root / "var/lib/etcd/member/db").read_bytes() == b"restored"
            assert (self.root / "etc/kubernetes/pki/ca.key").read_text() == "of the snapshot"
            self.write("etc/kubernetes/kubelet.conf", "new")
            self.write("etc/kubernetes/manifests/etcd.yaml", "new")
            self.write("etc/kubernetes/manifests/kube-apiserver.yaml", "new")
        if argv[:2] == ["kubeadm", "reset"]:
            for name in ("etc/kubernetes", "var/lib/etcd"):
                shutil.rmtree(self.root / name, ignore_errors=True)
        if "get --raw" in line:
            return 0, "ok", ""
        if "get node" in line:
            return 0, "{}", ""
        return 0, "", ""

    def write(self, name: str, text: str = "") -> Path:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        return path


class Simulated(Host):
    """A host whose ports are open where its manifests are."""

    stuck = False

    def listeners(self) -> dict[str, str]:
        found = self.manifests()
        ports = {"2379": "etcd", "2380": "etcd"} if "etcd" in found or self.stuck else {}
        return {**ports, **({"6443": "kube-apiserver"} if "kube-apiserver" in found else {})}


def snapshot() -> bytes:
    return DATABASE + hashlib.sha256(DATABASE).digest()


def sealed(path: Path, **changes: Any) -> Path:
    """Write what kubernetes_backup seals, unsealed."""
    files = {
        "etcd.db": snapshot(),
        "kubernetes/pki/ca.crt": b"authority",
        "kubernetes/pki/ca.key": b"of the snapshot",
        "kubernetes/pki/etcd/ca.key": b"etcd's",
        "kubernetes/gpufleet/encryption.yaml": ENCRYPTION.encode(),
        **changes.pop("files", {}),
    }
    manifest = {
        "format": 1,
        "cluster": "gpufleet",
        "node": "cp-1",
        "endpoint": "192.0.2.1:6443",
        "kubernetes_version": "1.36.4",
        "created": 1_800_000_000,
        "snapshot": {"hash": 1, "revision": 10, "keys": 3, "etcd_version": "3.6.4"},
        "files": {name: hashlib.sha256(data).hexdigest() for name, data in files.items()},
        **changes,
    }
    with tarfile.open(path, "w") as archive:
        for name, data in {"manifest.json": json.dumps(manifest).encode(), **files}.items():
            item = tarfile.TarInfo(name)
            item.size = len(data)
            archive.addfile(item, io.BytesIO(data))
    return path


@contextlib.contextmanager
def unsealed(path: str, identity: str) -> Iterator[IO[bytes]]:
    assert identity == "AGE-SECRET-KEY-1"
    with open(path, "rb") as stream:
        yield stream


@pytest.fixture
def programs(tmp_path: Path) -> Programs:
    found = Programs(tmp_path / "root")
    for name in ("etcdctl", "etcdutl"):
        found.write(f"usr/local/lib/gpufleet/etcd/{name}")
    return found


def member(programs: Programs) -> None:
    """Make the host a control plane with data."""
    for name in ("etcd", "kube-apiserver", "kube-scheduler"):
        programs.write(f"etc/kubernetes/manifests/{name}.yaml", name)
    programs.write("etc/kubernetes/kubelet.conf", "own")
    programs.write("etc/kubernetes/pki/ca.crt", "authority")
    programs.write("etc/kubernetes/pki/ca.key", "own")
    programs.write("var/lib/etcd/member/db", "old")


def options(programs: Programs, **changes: Any) -> dict[str, Any]:
    archive = programs.root.parent / "snapshot.tar.age"
    if not archive.exists():
        sealed(archive)
    return {
        "archive": str(archive),
        "sha256": None,
        "run": None,
        "identity": "AGE-SECRET-KEY-1",
        "node_name": "cp-1",
        "address": "192.0.2.11",
        "cluster": "gpufleet",
        "endpoint": "192.0.2.1:6443",
        "kubernetes_version": "1.36.4",
        "encryption_keys": [NEW_KEY],
        "deadline_seconds": 0,
        **changes,
    }


def restoring(programs: Programs, **changes: Any) -> Restore:
    return Restore(Simulated(programs, str(programs.root)), options(programs, **changes), unsealed)


def whole_run(programs: Programs) -> None:
    """What the playbook does on the control plane that is restored."""
    run = restoring(programs).check()["run"]
    restore = restoring(programs, run=run)
    if restore.step() != "running":
        restore.stop()
        restore.restore([])


def asides(programs: Programs) -> list[str]:
    return sorted(path.read_text() for path in programs.root.glob("var/lib/etcd-before-restore-*/member/db"))


@pytest.mark.parametrize("is_member", [True, False])
@pytest.mark.parametrize("steps", range(32))
def test_a_run_that_is_killed_goes_on(programs: Programs, is_member: bool, steps: int) -> None:
    if is_member:
        member(programs)
    programs.steps = steps
    with contextlib.suppress(KilledError):
        whole_run(programs)
    programs.steps = 0
    whole_run(programs)
    assert (programs.root / "var/lib/etcd/member/db").read_bytes() == b"restored"
    assert asides(programs) == (["old"] if is_member else [])
    assert (programs.root / "etc/kubernetes/pki/ca.key").read_text() == "of the snapshot"
    assert "etcd" in Host(programs, str(programs.root)).manifests()
    assert restoring(programs, run=restoring(programs).check()["run"]).step() == "running"
    content = json.loads((programs.root / "etc/kubernetes/gpufleet/encryption.yaml").read_text())
    keys = content["resources"][0]["providers"][0]["secretbox"]["keys"]
    assert [key["secret"] for key in keys] == [NEW_KEY, OLD_KEY]
    restores_done = [line for line in programs.calls if "snapshot restore" in line and "--help" not in line]
    assert len(restores_done) <= 3


def test_what_etcdutl_is_told(programs: Programs) -> None:
    member(programs)
    whole_run(programs)
    line = next(line for line in programs.calls if "snapshot restore" in line and "--help" not in line)
    assert "--name cp-1 --initial-cluster cp-1=https://192.0.2.11:2380" in line
    assert line.endswith("--bump-revision 1000000000 --mark-compacted")


def test_the_same_snapshot_again_is_another_restore(programs: Programs) -> None:
    member(programs)
    whole_run(programs)
    first = restoring(programs).check()["run"]
    archive = Path(options(programs)["archive"])
    shutil.copy(archive, archive.with_suffix(".kept"))
    restoring(programs, run=first).finish()
    assert not archive.exists()
    assert not (programs.root / "var/lib/gpufleet/kubernetes_restore/content").exists()
    shutil.copy(archive.with_suffix(".kept"), archive)
    (programs.root / "var/lib/etcd/member/db").write_text("since")
    restore = restoring(programs)
    restore.check()
    journal = restore.journal()
    assert journal["step"] == "begun"
    restoring(programs, run=journal["run"]).stop()
    restoring(programs, run=journal["run"]).restore([])
    assert asides(programs) == ["old", "since"]


def test_a_mounted_data_directory_stays_where_it_is(programs: Programs, monkeypatch: pytest.MonkeyPatch) -> None:
    member(programs)
    data = str(programs.root / "var/lib/etcd")
    monkeypatch.setattr(os.path, "ismount", lambda path: str(path) == data)
    whole_run(programs)
    assert [path.read_text() for path in Path(data).glob("before-restore-*/member/db")] == ["old"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sha256": "0" * 64}, "wanted 0000.* it was damaged, or is another one"),
        ({"cluster": "other"}, "the snapshot is of the cluster's name gpufleet, and this host is of other"),
        ({"encryption_keys": []}, "Secrets are encrypted and kubernetes_encryption_keys is empty"),
    ],
)
def test_refusals(programs: Programs, changes: dict[str, Any], message: str) -> None:
    member(programs)
    with pytest.raises(FleetError, match=message):
        restoring(programs, **changes).check()
    assert asides(programs) == []
    assert "etcd" in Host(programs, str(programs.root)).manifests()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"files": {"etcd.db": DATABASE + b"x" * 32}}, "etcd.db is not what etcdctl wrote"),
        ({"files": {"../../etc/passwd": b"x"}}, "holds '../../etc/passwd', wanted what kubernetes_backup seals"),
        ({"snapshot": {"hash": 2, "revision": 10, "keys": 3}}, "etcd.db has the hash 1, wanted 2"),
        ({"snapshot": {"hash": 1, "revision": 11, "keys": 3}}, "etcd.db has the revision 10, wanted 11"),
        (
            {"files": {"kubernetes/pki/ca.crt": b"other"}},
            "belongs to a cluster with another authority than the snapshot's",
        ),
    ],
)
def test_snapshots_that_are_not_whole(programs: Programs, changes: dict[str, Any], message: str) -> None:
    member(programs)
    sealed(programs.root.parent / "snapshot.tar.age", **changes)
    with pytest.raises(FleetError, match=message):
        restoring(programs).check()


def test_another_file_than_the_manifest_says(programs: Programs) -> None:
    files = {"etcd.db": hashlib.sha256(b"another").hexdigest()}
    path = sealed(programs.root.parent / "snapshot.tar.age")
    with tarfile.open(path) as content:
        manifest = json.load(content.extractfile("manifest.json"))  # type: ignore[arg-type]
    manifest["files"].update(files)
    with tarfile.open(path, "w") as content:
        for name, data in {"manifest.json": json.dumps(manifest).encode(), "etcd.db": snapshot()}.items():
            item = tarfile.TarInfo(name)
            item.size = len(data)
            content.addfile(item, io.BytesIO(data))
    with pytest.raises(FleetError, match=r"etcd\.db of the snapshot has the SHA-256"):
        restoring(programs).check()


def test_an_etcd_that_does_not_stop(programs: Programs) -> None:
    member(programs)
    restore = restoring(programs)
    restore.check()
    restore.host.stuck = True  # type: ignore[attr-defined]
    with pytest.raises(FleetError, match="still listens 0 s after its manifest was taken away"):
        restore.stop()
    again = restoring(programs, run=restore.journal()["run"])
    again.host.stuck = True  # type: ignore[attr-defined]
    with pytest.raises(FleetError, match="listens, wanted it stopped before its data are replaced"):
        again.restore([])


def test_one_that_joins_anew(programs: Programs) -> None:
    member(programs)
    restore = restoring(programs, run="now")
    assert restore.step() == "none"
    restore.stop()
    assert restore.leave()[0].startswith("moved etcd's data to ")
    assert (restore.step(), asides(programs)) == ("left", ["old"])
    assert restore.leave() == []
    restore.rejoin()
    assert restore.step() == "joining"
    restore.finish()
    assert restore.step() == "finished"
    assert restoring(programs, run="later").step() == "none"


@pytest.mark.parametrize(
    ("text", "keys"),
    [
        (ENCRYPTION, [("key-0123456789ab", OLD_KEY)]),
        ("", []),
        (restores.merged_encryption(ENCRYPTION, [NEW_KEY]), None),
    ],
)
def test_keys_in(text: str, keys: list[tuple[str, str]] | None) -> None:
    found = restores.keys_in(text)
    assert found == keys if keys is not None else [secret for __, secret in found] == [NEW_KEY, OLD_KEY]


def test_keys_of_another_form() -> None:
    with pytest.raises(FleetError, match="in a form that this collection does not write"):
        restores.keys_in("keys:\n- name: mine\n  secret: abc\n")


def test_what_is_no_private_key() -> None:
    with pytest.raises(FleetError, match="found no private key"):
        restores.require_identity("age1public")


def test_the_image_of_a_manifest() -> None:
    assert image_of("spec:\n  containers:\n  - command: [etcd]\n    image: registry.k8s.io/etcd:3.6.4-0\n") == (
        "registry.k8s.io/etcd:3.6.4-0"
    )
    assert image_of("") is None
    assert version_in("etcdutl version: 3.6.4\nAPI version: 3.6\n") == "3.6.4"


def test_the_image_on_a_host_without_etcd(tmp_path: Path) -> None:
    told: list[list[str]] = []

    def run(argv: list[str], stdin: str | None = None) -> tuple[int, str, str]:
        told.append(argv)
        return 0, "mirror/pause:3.10\nmirror/etcd:3.6.4-0\n", ""

    assert Tools(run, str(tmp_path)).image("1.36.4", "mirror") == "mirror/etcd:3.6.4-0"
    assert told[0][-4:] == ["--kubernetes-version", "v1.36.4", "--image-repository", "mirror"]
