# SPDX-License-Identifier: Apache-2.0
"""Take a snapshot of etcd, seal it together with the cluster's keys, and bring a copy off this host.

Run by a timer on every control plane. Each run makes one file, NAME.tar.age, and NAME.json that says what is in it and
holds no secret. What is sealed can be opened by the operator's private key alone, which is not on this host: neither
the destination nor whoever finds the file can read it. A copy counts when it was read back and is the same.

It needs Python 3.9 and its standard library, etcdctl, etcdutl, age, and for a destination by SFTP OpenSSH's client.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, Protocol, cast

DEFAULT_CONFIGURATION = "/etc/gpufleet/kubernetes_backup.json"
FORMAT = 1
SUFFIX = ".tar.age"
AGE_HEADER = b"age-encryption.org/v1\n"
TRAILER_BYTES = 32
"""etcdctl puts the SHA-256 of a snapshot behind it."""

PAGE_BYTES = 512
BLOCK_BYTES = 1024 * 1024

PKI = (
    "pki/ca.crt",
    "pki/ca.key",
    "pki/etcd/ca.crt",
    "pki/etcd/ca.key",
    "pki/front-proxy-ca.crt",
    "pki/front-proxy-ca.key",
    "pki/sa.key",
    "pki/sa.pub",
)
"""What control planes share and kubeadm makes once; every other certificate is made from these."""

OPTIONAL = ("gpufleet/encryption.yaml",)
"""The keys that Secrets lie under in etcd, where there are any."""

STATE = "state.json"


class BackupError(Exception):
    """What an operator can act on."""


class Destination(Protocol):
    """A place that is not this host."""

    def names(self) -> dict[str, int]:
        """Return the size of each file there."""

    def put(self, path: Path) -> None:
        """Bring a file there, under its own name, whole or not at all."""

    def fetch(self, name: str, path: Path) -> None:
        """Bring a file back."""

    def remove(self, names: Sequence[str]) -> None:
        """Remove files."""


# ------------------------------------------------------------------------------------------------------ pure parts


def prefix_of(cluster: str, node: str) -> str:
    """Return what the names of this host's files begin with, of which nobody else's is the beginning."""
    return f"{cluster}_{node}_"


def name_at(prefix: str, moment: float) -> str:
    """Return the name of a file without its endings; names sort by time."""
    return prefix + time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(moment))


def own(names: Iterable[str], prefix: str) -> list[str]:
    """Return this host's whole files by name, oldest first."""
    form = re.compile(re.escape(prefix) + r"[0-9]{8}T[0-9]{6}Z" + re.escape(SUFFIX))
    return sorted(name for name in names if form.fullmatch(name))


def leftovers(names: Iterable[str], prefix: str) -> list[str]:
    """Return what a run of this host that was killed left at the destination."""
    return sorted(name for name in names if name.startswith(prefix) and name.endswith(".part"))


def pending(local: Iterable[str], remote: Iterable[str], prefix: str) -> list[str]:
    """Return this host's files that are newer than the newest copy, oldest first: what was removed there stays so."""
    newest = max(own(remote, prefix), default="")
    return [name for name in own(local, prefix) if name > newest]


def surplus(names: Iterable[str], prefix: str, keep: int) -> list[str]:
    """Return the oldest files beyond those to keep; none for 0, which leaves removal to somebody else."""
    found = own(names, prefix)
    return found[: max(0, len(found) - keep)] if keep else []


def description_of(name: str) -> str:
    """Return the name of the file that describes another."""
    return name.removesuffix(SUFFIX) + ".json"


def metrics(state: Mapping[str, Any], labels: Mapping[str, str]) -> str:
    """Return a state in Prometheus' text format, for the textfile collector."""
    rows = (
        ("last_attempt_timestamp_seconds", "When a snapshot was last tried.", state.get("last_attempt")),
        ("last_snapshot_timestamp_seconds", "When the last snapshot was made and sealed.", state.get("last_snapshot")),
        ("last_copy_timestamp_seconds", "When the last copy off this host was read back.", state.get("last_copy")),
        ("success", "Whether the last run ended well.", int(state.get("error") is None)),
        ("size_bytes", "Size of the last sealed snapshot.", state.get("size")),
        ("etcd_revision", "Revision of etcd in the last snapshot.", state.get("revision")),
    )
    shown = ",".join(f'{name}="{value}"' for name, value in sorted(labels.items()))
    lines = []
    for name, about, value in rows:
        if value is not None:
            metric = f"gpufleet_kubernetes_backup_{name}"
            lines += [f"# HELP {metric} {about}", f"# TYPE {metric} gauge", f"{metric}{{{shown}}} {int(value)}"]
    return "\n".join(lines) + "\n"


def listed(text: str) -> dict[str, int]:
    """Return sizes by name from what ``ls -ln`` of sftp prints."""
    found = {}
    for line in text.splitlines():
        words = line.split()
        if len(words) >= 9 and words[0].startswith("-") and words[4].isdigit():
            found[os.path.basename(words[-1])] = int(words[4])
    return found


# ----------------------------------------------------------------------------------------------- files and commands


def sha256_of(path: Path, length: int | None = None) -> str:
    """Return the digest of a file, or of its beginning."""
    digest = hashlib.sha256()
    left = path.stat().st_size if length is None else length
    with path.open("rb") as stream:
        while left > 0:
            block = stream.read(min(BLOCK_BYTES, left))
            if not block:
                break
            digest.update(block)
            left -= len(block)
    return digest.hexdigest()


def check_snapshot(path: Path) -> None:
    """Raise BackupError where a snapshot is not as etcdctl wrote it."""
    size = path.stat().st_size
    if size % PAGE_BYTES != TRAILER_BYTES:
        raise BackupError(f"{path.name} has {size} bytes, wanted whole pages and a digest of {TRAILER_BYTES} bytes")
    with path.open("rb") as stream:
        stream.seek(-TRAILER_BYTES, os.SEEK_END)
        wanted = stream.read().hex()
    found = sha256_of(path, size - TRAILER_BYTES)
    if found != wanted:
        raise BackupError(f"{path.name} has the SHA-256 {found}, wanted {wanted}, which stands at its end")


def run(argv: Sequence[str], stdin: str | None = None) -> str:
    """Run a command and return what it prints."""
    try:
        done = subprocess.run(
            list(argv),
            input=stdin,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            env={**os.environ, "LC_ALL": "C.UTF-8"},
            check=False,
        )
    except OSError as fault:
        raise BackupError(f"{argv[0]}: {fault.strerror}") from fault
    if done.returncode != 0:
        said = " / ".join(line.strip() for line in (done.stderr or done.stdout).splitlines() if line.strip())
        raise BackupError(f"{os.path.basename(argv[0])} ended with exit status {done.returncode}: {said[-1000:]}")
    return done.stdout


def write(path: Path, text: str, mode: int = 0o600) -> None:
    """Replace a file as a whole."""
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
            stream.write(text)
            os.fchmod(descriptor, mode)
            stream.flush()
            os.fsync(descriptor)
        os.replace(name, path)
    except BaseException:
        os.unlink(name)
        raise


class Directory:
    """A directory on a file system that is mounted from elsewhere."""

    def __init__(self, path: str, beside: Path) -> None:
        self.path = Path(path)
        self.beside = beside

    def _check(self) -> None:
        """An absent mount leaves an empty directory, and copies that go down with the host."""
        if not self.path.is_dir():
            raise BackupError(f"the destination {self.path} is no directory: is it mounted?")
        place = self.path.resolve()
        while not os.path.ismount(place):
            place = place.parent
        if str(place) == "/" or self.path.stat().st_dev == self.beside.stat().st_dev:
            raise BackupError(f"the destination {self.path} is on this host's own file system: mount it first")

    def names(self) -> dict[str, int]:
        """See Destination."""
        self._check()
        return {path.name: path.stat().st_size for path in self.path.iterdir() if path.is_file()}

    def put(self, path: Path) -> None:
        """See Destination."""
        self._check()
        part = self.path / f"{path.name}.part"
        with path.open("rb") as source, part.open("wb") as target:
            os.fchmod(target.fileno(), 0o600)
            shutil.copyfileobj(source, target, BLOCK_BYTES)
            target.flush()
            os.fsync(target.fileno())
        os.replace(part, self.path / path.name)

    def fetch(self, name: str, path: Path) -> None:
        """See Destination."""
        shutil.copyfile(self.path / name, path)

    def remove(self, names: Sequence[str]) -> None:
        """See Destination."""
        for name in names:
            (self.path / name).unlink()


class Sftp:
    """A directory of another host, by SFTP: no shell is needed there, and a NAS has it."""

    def __init__(self, options: Mapping[str, Any]) -> None:
        self.options = options

    def _batch(self, *commands: str) -> str:
        told = self.options
        # Not quiet: then ssh would not say why it was refused.
        argv = ["sftp", "-b", "-", "-F", "/dev/null", "-P", str(told["port"]), "-i", told["identity_file"]]
        settings = (
            "BatchMode=yes",
            "IdentitiesOnly=yes",
            "StrictHostKeyChecking=yes",
            f"UserKnownHostsFile={told['known_hosts_file']}",
            "GlobalKnownHostsFile=/dev/null",
            "ConnectTimeout=20",
            "ServerAliveInterval=15",
            "LogLevel=ERROR",
        )
        argv += [item for setting in settings for item in ("-o", setting)]
        try:
            return run([*argv, f"{told['user']}@{told['host']}"], "\n".join([f'cd "{told["path"]}"', *commands]) + "\n")
        except BackupError as fault:
            raise BackupError(f"the destination {told['user']}@{told['host']}:{told['path']}: {fault}") from fault

    def names(self) -> dict[str, int]:
        """See Destination."""
        return listed(self._batch("ls -ln"))

    def put(self, path: Path) -> None:
        """See Destination."""
        self._batch(f'put "{path}" "{path.name}.part"', f'rename "{path.name}.part" "{path.name}"')

    def fetch(self, name: str, path: Path) -> None:
        """See Destination."""
        self._batch(f'get "{name}" "{path}"')

    def remove(self, names: Sequence[str]) -> None:
        """See Destination."""
        if names:
            self._batch(*(f'rm "{name}"' for name in names))


# ------------------------------------------------------------------------------------------------------ the backup


class Backup:
    """One host's backups."""

    def __init__(self, told: Mapping[str, Any], clock: Any = time.time) -> None:
        self.told = told
        self.clock = clock
        self.directory = Path(told["directory"])
        self.prefix = prefix_of(told["cluster"], told["node"])

    @property
    def destination(self) -> Destination:
        """Where copies go."""
        wanted = self.told["destination"]
        return Directory(wanted["directory"], self.directory) if wanted.get("directory") else Sftp(wanted)

    def state(self) -> dict[str, Any]:
        """What earlier runs came to."""
        try:
            found = json.loads((self.directory / STATE).read_text(encoding="utf-8"))
        except FileNotFoundError:
            return {}
        return cast("dict[str, Any]", found)

    def note(self, **values: Any) -> None:
        """Keep what this run came to, also for node_exporter."""
        state = {**self.state(), **values}
        write(self.directory / STATE, json.dumps(state, indent=1) + "\n")
        if self.told.get("metrics_path"):
            labels = {"cluster": self.told["cluster"], "node": self.told["node"]}
            write(Path(self.told["metrics_path"]), metrics(state, labels), 0o644)

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """Let nobody else work here meanwhile, and remove what a run that was killed has left."""
        self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        with (self.directory / ".lock").open("w") as stream:
            try:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise BackupError("another run is at it") from None
            for path in [*self.directory.glob("work-*"), *self.directory.glob(f"*{SUFFIX}.part")]:
                shutil.rmtree(path) if path.is_dir() else path.unlink()
            yield

    def _etcdctl(self, *arguments: str) -> str:
        etcd = self.told["etcd"]
        argv = [self.told["etcdctl"], "--endpoints", etcd["endpoint"], "--cacert", etcd["ca"]]
        argv += ["--cert", etcd["certificate"], "--key", etcd["key"], "--command-timeout", "300s"]
        return run([*argv, *arguments])

    def snapshot(self, path: Path) -> dict[str, Any]:
        """Take a snapshot of the local member, prove that it is whole, and return what is in it."""
        self._etcdctl("snapshot", "save", str(path))
        check_snapshot(path)
        status = json.loads(run([self.told["etcdutl"], "snapshot", "status", str(path), "--write-out", "json"]))
        member = json.loads(self._etcdctl("endpoint", "status", "--write-out", "json"))[0]["Status"]
        if status["revision"] < 1:
            raise BackupError(f"the snapshot has revision {status['revision']}, wanted that of a member with data")
        return {
            "hash": status["hash"],
            "revision": status["revision"],
            "keys": status["totalKey"],
            "etcd_version": member["version"],
            "sha256": sha256_of(path),
        }

    def contents(self, snapshot: Path) -> dict[str, Path]:
        """Return what is sealed, by its name in the archive."""
        root = Path(self.told["kubernetes_directory"])
        missing = [name for name in PKI if not (root / name).is_file()]
        if missing:
            raise BackupError(f"{root} lacks {', '.join(missing)}, wanted the keys that a restore needs")
        names = [*PKI, *(name for name in OPTIONAL if (root / name).is_file())]
        return {"etcd.db": snapshot, **{f"kubernetes/{name}": root / name for name in names}}

    def key_files(self) -> dict[str, str]:
        """Return the digests of the keys' files, to see that they fit the snapshot."""
        paths = [Path(self.told["kubernetes_directory"]) / name for name in OPTIONAL]
        return {str(path): sha256_of(path) for path in paths if path.is_file()}

    def seal(self, files: Mapping[str, Path], manifest: Mapping[str, Any], path: Path) -> None:
        """Write an archive that the recipients alone can open. No plain archive is ever on the disk."""
        argv = [self.told["age"], "--encrypt", "--output", str(path)]
        argv += [item for recipient in self.told["recipients"] for item in ("--recipient", recipient)]
        with tempfile.TemporaryFile() as said:
            process = subprocess.Popen(argv, stdin=subprocess.PIPE, stderr=said)
            try:
                self._archive(files, manifest, cast("BinaryIO", process.stdin))
            except BrokenPipeError:
                pass  # age has ended before its time, and says why.
            finally:
                with contextlib.suppress(BrokenPipeError):
                    cast("BinaryIO", process.stdin).close()
                status = process.wait()
            said.seek(0)
            words = said.read().decode("utf-8", "replace").strip()
        if status != 0:
            raise BackupError(f"age ended with exit status {status}: {words[-500:]}")
        with path.open("rb+") as stream:
            if stream.read(len(AGE_HEADER)) != AGE_HEADER:
                raise BackupError(f"{path.name} does not begin as a file of age does")
            os.fsync(stream.fileno())

    def _archive(self, files: Mapping[str, Path], manifest: Mapping[str, Any], stream: BinaryIO) -> None:
        with tarfile.open(fileobj=stream, mode="w|", format=tarfile.PAX_FORMAT) as archive:
            with tempfile.NamedTemporaryFile("w", dir=self.directory, prefix="work-") as text:
                json.dump(manifest, text)
                text.flush()
                archive.add(text.name, "manifest.json", recursive=False, filter=_plain)
            for name, path in files.items():
                archive.add(path, name, recursive=False, filter=_plain)

    def make(self) -> str:
        """Make one sealed snapshot; returns its name."""
        moment = self.clock()
        name = name_at(self.prefix, moment) + SUFFIX
        keys = self.key_files()
        with tempfile.TemporaryDirectory(dir=self.directory, prefix="work-") as work:
            snapshot = Path(work) / "etcd.db"
            seen = self.snapshot(snapshot)
            files = self.contents(snapshot)
            if self.key_files() != keys:
                raise BackupError("the keys of Secrets were changed meanwhile: the next run takes both together")
            about = {
                "format": FORMAT,
                "cluster": self.told["cluster"],
                "node": self.told["node"],
                "endpoint": self.told["endpoint"],
                "kubernetes_version": self.told["kubernetes_version"],
                "created": int(moment),
                "snapshot": seen,
            }
            manifest = {**about, "files": {key: sha256_of(path) for key, path in files.items()}}
            part = self.directory / f"{name}.part"
            self.seal(files, manifest, part)
        part.chmod(0o600)
        described = {**about, "name": name, "sha256": sha256_of(part), "size": part.stat().st_size}
        write(self.directory / description_of(name), json.dumps(described, indent=1) + "\n")
        os.replace(part, self.directory / name)
        self.note(
            last_snapshot=int(moment),
            name=name,
            size=described["size"],
            revision=seen["revision"],
            etcd_version=seen["etcd_version"],
        )
        return name

    def copy(self, made: str) -> list[str]:
        """Bring what is missing to the destination, and read each of them back; returns their names.

        The one that was made now is brought whatever its name: a clock that was ahead once left later names there.
        """
        destination = self.destination
        there = destination.names()
        wanted = pending(os.listdir(self.directory), there, self.prefix)
        if made not in there and made not in wanted:
            wanted.append(made)
        for name in wanted:
            described = self.directory / description_of(name)
            # The description first, so that no copy is without one. It is there where a run was killed after it, and
            # not every server renames onto what is there.
            for path in (described, self.directory / name):
                if path.name not in there:
                    destination.put(path)
            with tempfile.TemporaryDirectory(dir=self.directory, prefix="work-") as work:
                back = Path(work) / name
                destination.fetch(name, back)
                found, sealed = sha256_of(back), json.loads(described.read_text(encoding="utf-8"))["sha256"]
            if found != sealed:
                raise BackupError(f"the copy of {name} has the SHA-256 {found} when it is read back, wanted {sealed}")
            self.note(last_copy=int(self.clock()), copied=name)
        there = destination.names()
        gone = surplus(there, self.prefix, int(self.told["keep_copies"]))
        described_gone = [description_of(name) for name in gone if description_of(name) in there]
        destination.remove([*gone, *described_gone, *leftovers(there, self.prefix)])
        return wanted

    def prune(self) -> None:
        """Remove this host's oldest files."""
        for name in surplus(os.listdir(self.directory), self.prefix, int(self.told["keep"])):
            (self.directory / name).unlink()
            with contextlib.suppress(FileNotFoundError):
                (self.directory / description_of(name)).unlink()

    def back_up(self) -> None:
        """One run."""
        os.umask(0o077)
        with self.alone():
            self.note(last_attempt=int(self.clock()))
            try:
                name = self.make()
                print(f"made {name}", flush=True)
                copied = self.copy(name)
                print(f"copied {', '.join(copied)}, and read back", flush=True)
                self.prune()
            except (BackupError, OSError, ValueError, KeyError) as fault:
                self.note(error=f"{fault}" if isinstance(fault, BackupError) else f"{type(fault).__name__}: {fault}")
                raise
            self.note(error=None, last_success=int(self.clock()))
            write(self.directory / "succeeded", f"{name}\n")

    def status(self) -> dict[str, Any]:
        """Return what is here, and whether the last copy is at the destination."""
        state = self.state()
        result: dict[str, Any] = {"state": state, "now": int(self.clock()), "fault": None, "copy_bytes": None}
        result["local"] = own(os.listdir(self.directory), self.prefix) if self.directory.is_dir() else []
        if state.get("copied"):
            try:
                result["copy_bytes"] = self.destination.names().get(state["copied"])
            except (BackupError, OSError) as fault:
                result["fault"] = str(fault)
        return result


def _plain(item: tarfile.TarInfo) -> tarfile.TarInfo:
    item.uid = item.gid = 0
    item.uname = item.gname = ""
    item.mode = 0o600
    return item


def main(argv: Sequence[str] | None = None) -> int:
    """Run as a program."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("action", choices=["run", "status"])
    parser.add_argument("--configuration", default=DEFAULT_CONFIGURATION)
    given = parser.parse_args(argv)
    backup = Backup(json.loads(Path(given.configuration).read_text(encoding="utf-8")))
    if given.action == "status":
        print(json.dumps(backup.status()))
        return 0
    try:
        backup.back_up()
    except (BackupError, OSError, ValueError, KeyError) as fault:
        print(f"{type(fault).__name__}: {fault}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
