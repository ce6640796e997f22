# SPDX-License-Identifier: Apache-2.0
# PRIVATE to the collection: do not import this from outside, it may change without notice.
"""Bring what a cluster stores back on one control plane, from a sealed snapshot. Runs on the host.

Each step is written down before it is done, in a journal beside the work, and does nothing where it is done: a run that
was killed anywhere is continued by the next one. What was there before is moved aside and never removed.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
import stat
import subprocess
import tarfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import IO, Any, cast

from ansible_collections.gpufleet.metal.plugins.module_utils._errors import FleetError, InvalidInputError
from ansible_collections.gpufleet.metal.plugins.module_utils._kubernetes import backup, etcd_tools, kubeadm
from ansible_collections.gpufleet.metal.plugins.module_utils._kubernetes.host import KUBERNETES, Host, Membership

WORK = "var/lib/gpufleet/kubernetes_restore"
DATA = "var/lib/etcd"
ASIDE = "before-restore"
PARTIAL = "gpufleet-restoring"
#: More than any cluster writes between two snapshots, so that no client has ever seen a later revision.
BUMP = 1_000_000_000
IGNORED = "DirAvailable--var-lib-etcd"
_PORTS = {"2379": "etcd", "2380": "etcd", "6443": "the API server"}
_NAME = re.compile(r"manifest\.json|etcd\.db|kubernetes/(pki/(etcd/)?[a-z-]+\.(crt|key|pub)|gpufleet/encryption\.yaml)")
_KEY = re.compile(r"\"?name\"?:\s*\"?(key-[0-9a-f]{12})\"?,?\s*\"?secret\"?:\s*\"?([A-Za-z0-9+/]{43}=)\"?")
_BLOCK = 1024 * 1024
_TRAILER = 32

#: Opens a sealed archive for reading, by its path and a private key.
Opener = Callable[[str, str], AbstractContextManager[IO[bytes]]]


@contextlib.contextmanager
def opened_by_age(path: str, identity: str) -> Iterator[IO[bytes]]:
    """Yield the plain archive as a stream. The private key goes through a pipe, and is in no file and no argument."""
    argv = ["age", "--decrypt", "--identity", "-", path]
    try:
        process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    except OSError as fault:
        raise FleetError(f"age: {fault.strerror}, wanted it on this host (entry point tools)") from fault
    # All three are pipes.
    key, content, messages = (cast("IO[bytes]", pipe) for pipe in (process.stdin, process.stdout, process.stderr))
    with process:
        # age reads it whole before it writes anything.
        with contextlib.suppress(BrokenPipeError):
            key.write(identity.encode() + b"\n")
        with contextlib.suppress(BrokenPipeError):
            key.close()
        wrong: Exception | None = None
        try:
            yield content
            while content.read(_BLOCK):
                pass
        except (tarfile.TarError, EOFError) as fault:
            wrong = fault
        said = messages.read().decode("utf-8", "replace")
        status = process.wait()
    if status != 0:
        words = " / ".join(line.strip() for line in said.splitlines() if line.startswith("age: error"))
        raise FleetError(f"{path} can't be opened: {words or f'age ended with exit status {status}'}")
    if wrong is not None:
        raise FleetError(f"{path} holds no archive: {wrong}")


def sha256_of(path: str, length: int | None = None) -> str:
    """Return the digest of a file, or of its beginning."""
    digest = hashlib.sha256()
    left = os.stat(path).st_size if length is None else length
    with open(path, "rb") as stream:
        while left > 0 and (block := stream.read(min(_BLOCK, left))):
            digest.update(block)
            left -= len(block)
    return digest.hexdigest()


def keys_in(text: str) -> list[tuple[str, str]]:
    """Return names and keys of an encryption configuration that this collection wrote. Raises FleetError."""
    found = _KEY.findall(text)
    if len(found) != len(re.findall(r"\bsecret\"?:", text)):
        raise FleetError("the snapshot's encryption.yaml has keys in a form that this collection does not write")
    return [(str(name), str(secret)) for name, secret in found]


def merged_encryption(text: str, today: Sequence[str]) -> str:
    """Return a configuration that writes with today's first key and reads what the snapshot holds, too."""
    wanted = [*today, *(secret for __, secret in keys_in(text) if secret not in today)]
    told = kubeadm.Settings("control_plane", "", "", "", "", encryption_keys=tuple(wanted))
    # JSON is YAML; the role writes it in its own form when today's keys suffice.
    return json.dumps(kubeadm.encryption_document(told), indent=1) + "\n"


class Restore:
    """The restore of one host."""

    def __init__(self, host: Host, options: Mapping[str, Any], opener: Opener = opened_by_age) -> None:
        self.host = host
        self.told = options
        self.opener = opener
        self.etcdutl = host.path(f"{etcd_tools.DIRECTORY}/etcdutl")

    # -- the journal --

    def _work(self, name: str = "") -> str:
        return self.host.path(os.path.join(WORK, name))

    def journal(self) -> dict[str, Any]:
        """What was begun and done."""
        text = self.host.text(f"{WORK}/journal.json")
        found: dict[str, Any] = json.loads(text) if text else {}
        return found

    def _note(self, **values: Any) -> dict[str, Any]:
        journal = {**self.journal(), **values}
        self._write(self._work("journal.json"), json.dumps(journal, indent=1) + "\n")
        return journal

    def _write(self, path: str, text: str, mode: int = 0o600) -> None:
        beside = f"{path}.new"
        descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
            os.fchmod(descriptor, mode)
            stream.write(text)
            stream.flush()
            os.fsync(descriptor)
        os.replace(beside, path)

    # -- before any change --

    def check(self) -> dict[str, Any]:
        """Open and prove the snapshot, and compare it with this host; the cluster is left alone.

        Returns what the snapshot is. Raises FleetError with every reason why it can't be restored here.
        """
        archive = self.told["archive"]
        digest = sha256_of(archive)
        if self.told.get("sha256") and digest != self.told["sha256"]:
            raise FleetError(
                f"{archive} has the SHA-256 {digest}, wanted {self.told['sha256']} as the file beside it says: it was "
                f"damaged, or is another one"
            )
        os.makedirs(self._work(), mode=0o700, exist_ok=True)
        os.chmod(self._work(), 0o700)
        journal = self.journal()
        if journal.get("sha256") != digest or journal.get("step") in ("finished", "joining", "left"):
            if os.path.isdir(self._work("content")):
                shutil.rmtree(self._work("content"))
            stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
            journal = self._note(sha256=digest, run=f"{stamp}-{digest[:12]}", step="begun", way=None)
        if not os.path.isdir(self._work("content")):
            self._unpack(archive)
        with open(self._work("content/manifest.json"), encoding="utf-8") as stream:
            manifest: dict[str, Any] = json.load(stream)
        self._prove(manifest)
        faults = self._faults(manifest)
        if faults:
            raise FleetError("; ".join(faults))
        return {**manifest, "sha256": digest, "run": journal["run"]}

    def _unpack(self, archive: str) -> None:
        partial = self._work("content.partial")
        if os.path.isdir(partial):
            shutil.rmtree(partial)
        os.mkdir(partial, 0o700)
        with self.opener(archive, self.told["identity"]) as stream, tarfile.open(fileobj=stream, mode="r|") as content:
            for member in content:
                if not member.isfile() or not _NAME.fullmatch(member.name):
                    raise FleetError(f"{archive} holds {member.name!r}, wanted what kubernetes_backup seals")
                path = os.path.join(partial, member.name)
                os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
                # Of a file there is something to read.
                source = cast("IO[bytes]", content.extractfile(member))
                with open(path, "wb") as target:
                    os.fchmod(target.fileno(), 0o600)
                    shutil.copyfileobj(source, target, _BLOCK)
        if not os.path.isfile(os.path.join(partial, "manifest.json")):
            raise FleetError(f"{archive} has no manifest.json, wanted what kubernetes_backup seals")
        os.rename(partial, self._work("content"))

    def _prove(self, manifest: Mapping[str, Any]) -> None:
        """Whether every file is what it was, and etcd's own reading of it the same."""
        for name, wanted in manifest["files"].items():
            path = self._work(f"content/{name}")
            found = sha256_of(path) if os.path.isfile(path) else "none"
            if found != wanted:
                raise FleetError(f"{name} of the snapshot has the SHA-256 {found}, wanted {wanted}")
        path = self._work("content/etcd.db")
        size = os.stat(path).st_size
        with open(path, "rb") as stream:
            stream.seek(-_TRAILER, os.SEEK_END)
            wanted = stream.read().hex()
        if sha256_of(path, size - _TRAILER) != wanted:
            raise FleetError("etcd.db is not what etcdctl wrote: the digest at its end is another one")
        out = self._must([self.etcdutl, "snapshot", "status", path, "--write-out", "json"], "etcdutl snapshot status")
        status, about = json.loads(out), manifest["snapshot"]
        for key, name in (("hash", "hash"), ("revision", "revision"), ("totalKey", "keys")):
            if status[key] != about[name]:
                raise FleetError(f"etcd.db has the {name} {status[key]}, wanted {about[name]}")

    def _faults(self, manifest: Mapping[str, Any]) -> list[str]:
        tools = etcd_tools.Tools(self.host.run, self.host.root)
        version = tools.version()
        if version is None:
            return [f"found no etcdutl at /{etcd_tools.DIRECTORY}, wanted it there (entry point tools)"]
        told = {
            "cluster": self.told["cluster"],
            "endpoint": self.told["endpoint"],
            "kubernetes_version": self.told["kubernetes_version"],
            "etcdutl_version": version,
            "bump": tools.raises_revisions(),
            "keys": len(self.told["encryption_keys"]),
            "encrypted": os.path.isfile(self._work("content/kubernetes/gpufleet/encryption.yaml")),
        }
        found = backup.manifest_faults(manifest, told)
        own = self.host.text(f"{KUBERNETES}/pki/ca.crt")
        with open(self._work("content/kubernetes/pki/ca.crt"), encoding="utf-8") as stream:
            if own is not None and self.is_member() and own != stream.read():
                found.append(
                    "this host belongs to a cluster with another authority than the snapshot's: run "
                    "reset_kubernetes_node for it first"
                )
        return found

    def is_member(self) -> bool:
        """Whether this host has a control plane, which may be stopped."""
        manifests = (self.host.path(f"{KUBERNETES}/manifests/etcd.yaml"), self._work("manifests/etcd.yaml"))
        kubelet = self.host.text(f"{KUBERNETES}/kubelet.conf") is not None
        return kubelet and not self.host.unfinished() and any(os.path.isfile(path) for path in manifests)

    # -- on every control plane --

    def step(self) -> str:
        """How far this host is in the restore that is asked for: C(running) where it is restored and answers."""
        journal = self.journal()
        if journal.get("run") != self.told["run"]:
            return "none"
        if journal["step"] == "started" and self._answers():
            return "running"
        return str(journal["step"])

    def _answers(self) -> bool:
        """Whether etcd and the API server of this very host run, and are ready."""
        listens = {*_PORTS} <= {*self.host.listeners()}
        return listens and self.host.member() is not None and self.host.readyz() == "ok"

    def stop(self) -> list[str]:
        """Take the static Pods' manifests from kubelet, and wait until nothing of theirs answers."""
        journal = self.journal()
        membership = Membership(self.host, self.told["node_name"], self.told["deadline_seconds"])
        if journal.get("way") == "init" and self.host.unfinished() == "init":
            # Nothing is in it that is not in the snapshot, so kubeadm may begin anew.
            membership.leave(for_good=False)
            self._note(step="begun", way=None)
            return ["took back a kubeadm init that was interrupted"]
        target = self._work("manifests")
        os.makedirs(target, mode=0o700, exist_ok=True)
        done = []
        for name in sorted(self.host.manifests()):
            # Another file system can't be: both are the host's own.
            shutil.move(self.host.path(f"{KUBERNETES}/manifests/{name}.yaml"), os.path.join(target, f"{name}.yaml"))
            done.append(f"stopped {name}")
        end = time.monotonic() + self.told["deadline_seconds"]
        while True:
            listeners = self.host.listeners()
            left = {port: what for port, what in _PORTS.items() if port in listeners}
            if not left:
                return done
            if time.monotonic() > end:
                shown = ", ".join(f"{what} ({port})" for port, what in left.items())
                raise FleetError(
                    f"{shown} still listens {self.told['deadline_seconds']} s after its manifest was taken away: start "
                    f"kubelet, which stops it, or stop what has the port; the next run goes on from here"
                )
            time.sleep(1)

    def leave(self) -> list[str]:
        """On a control plane that joins anew: set its data aside, which a reset would remove."""
        done = self._set_aside(f"{ASIDE}-{self.told['run']}")
        self._note(run=self.told["run"], step="left")
        return done

    def rejoin(self) -> list[str]:
        """Write down that this host was reset: from here on a run lets it join, and does not stop it again."""
        self._note(run=self.told["run"], step="joining")
        return []

    # -- on the one that is restored --

    def restore(self, documents: Sequence[Mapping[str, Any]]) -> list[str]:
        """Put data and keys in place and start; returns what this run did."""
        journal = self.journal()
        if journal.get("run") != self.told["run"]:
            raise FleetError("the snapshot was not checked on this host, or another one was")
        done: list[str] = []
        membership = Membership(self.host, self.told["node_name"], self.told["deadline_seconds"])
        if journal["step"] in ("begun", "aside", "placing"):
            self._require_silence()
            journal = self._place(journal, done)
        # Each time: what prepares a host writes today's keys alone.
        self._put_keys()
        if journal["step"] == "placed":
            way = "member" if self.is_member() else "init"
            journal = self._note(step="started", way=way)
            done.append("put the cluster's keys in place")
        self._start(journal, membership, documents, done)
        return done

    def _require_silence(self) -> None:
        listeners = self.host.listeners()
        shown = [f"{what} ({port})" for port, what in _PORTS.items() if port in listeners]
        if shown:
            raise FleetError(f"{', '.join(shown)} listens, wanted it stopped before its data are replaced")

    def _place(self, journal: dict[str, Any], done: list[str]) -> dict[str, Any]:
        data = self.host.path(DATA)
        os.makedirs(data, mode=0o700, exist_ok=True)
        os.chmod(data, 0o700)
        partial = os.path.join(data, PARTIAL)
        if journal["step"] == "begun":
            done += self._set_aside(f"{ASIDE}-{journal['run']}")
            journal = self._note(step="aside")
        if journal["step"] == "aside":
            if os.path.isdir(partial):
                shutil.rmtree(partial)
            self._etcdutl_restore(partial)
            self._sync(os.path.join(partial, "member"))
            journal = self._note(step="placing")
        if os.path.isdir(os.path.join(partial, "member")):
            os.rename(os.path.join(partial, "member"), os.path.join(data, "member"))
        if os.path.isdir(partial):
            shutil.rmtree(partial)
        done.append("restored etcd's data")
        return self._note(step="placed")

    def _set_aside(self, name: str) -> list[str]:
        """Move etcd's data out of the way. Beside its directory, or in it where that is a mount of its own."""
        data = self.host.path(DATA)
        member = os.path.join(data, "member")
        if not os.path.isdir(member):
            return []
        place = data if os.path.ismount(data) else os.path.dirname(data)
        stem = name if place == data else f"etcd-{name}"
        target, number = os.path.join(place, stem), 1
        while os.path.exists(os.path.join(target, "member")):
            number += 1
            target = os.path.join(place, f"{stem}-{number}")
        os.makedirs(target, mode=0o700, exist_ok=True)
        os.rename(member, os.path.join(target, "member"))
        return [f"moved etcd's data to {target}"]

    def _etcdutl_restore(self, directory: str) -> None:
        name, peer = self.told["node_name"], f"https://{_bracketed(self.told['address'])}:2380"
        argv = [self.etcdutl, "snapshot", "restore", self._work("content/etcd.db"), "--data-dir", directory]
        argv += ["--name", name, "--initial-cluster", f"{name}={peer}", "--initial-advertise-peer-urls", peer]
        # A token of its own: members of the cluster that was can't speak with this one.
        argv += ["--initial-cluster-token", f"restored-{self.told['run']}"]
        self._must([*argv, "--bump-revision", str(BUMP), "--mark-compacted"], "etcdutl snapshot restore")

    def _sync(self, directory: str) -> None:
        for root, __, files in os.walk(directory):
            for path in [root, *(os.path.join(root, name) for name in files)]:
                descriptor = os.open(path, os.O_RDONLY)
                try:
                    os.fsync(descriptor)
                finally:
                    os.close(descriptor)

    def _put_keys(self) -> None:
        """What control planes share; what kubeadm makes of it is made anew or fits already."""
        content = self._work("content/kubernetes")
        for root, __, files in os.walk(content):
            for name in files:
                path = os.path.join(root, name)
                with open(path, encoding="utf-8") as stream:
                    text = stream.read()
                target = self.host.path(os.path.join(KUBERNETES, os.path.relpath(path, content)))
                if name == "encryption.yaml":
                    text = merged_encryption(text, self.told["encryption_keys"])
                os.makedirs(os.path.dirname(target), mode=0o755, exist_ok=True)
                self._write(target, text, 0o644 if name.endswith((".crt", ".pub")) else 0o600)

    def _start(
        self,
        journal: Mapping[str, Any],
        membership: Membership,
        documents: Sequence[Mapping[str, Any]],
        done: list[str],
    ) -> None:
        if journal["way"] == "init" and self.host.member() is None:
            done.append(membership.enter("init", documents, ignored=IGNORED))
        else:
            done += self._bring_back()
        end = time.monotonic() + self.told["deadline_seconds"]
        while not self._answers():
            if time.monotonic() > end:
                raise FleetError(
                    f"the API server answers {self.host.readyz()} after {self.told['deadline_seconds']} s, wanted ok: "
                    f"see crictl ps -a and the log of etcd; the next run goes on from here"
                )
            time.sleep(1)
        membership.wait()

    def _bring_back(self) -> list[str]:
        """Give kubelet the manifests again."""
        source = self._work("manifests")
        names = sorted(os.listdir(source)) if os.path.isdir(source) else []
        for name in names:
            os.makedirs(self.host.path(f"{KUBERNETES}/manifests"), mode=0o755, exist_ok=True)
            shutil.move(os.path.join(source, name), self.host.path(f"{KUBERNETES}/manifests/{name}"))
        return [f"started {name.removesuffix('.yaml')}" for name in names]

    def finish(self) -> list[str]:
        """Remove what was opened; what was set aside stays."""
        done = []
        for name in ("content", "content.partial", "manifests"):
            if os.path.isdir(self._work(name)):
                shutil.rmtree(self._work(name))
                done.append(f"removed {name}")
        if os.path.isdir(self._work()):
            self._note(step="finished")
        with contextlib.suppress(FileNotFoundError):
            if stat.S_ISREG(os.lstat(self.told["archive"]).st_mode):
                os.unlink(self.told["archive"])
                done.append("removed the sealed snapshot")
        return done

    def _must(self, argv: Sequence[str], what: str) -> str:
        status, out, err = self.host.run(argv)
        if status != 0:
            raise FleetError(f"{what} ended with exit status {status}: {(err or out).strip()[-800:]}")
        return str(out)


def _bracketed(address: str) -> str:
    return f"[{address}]" if ":" in address else address


def require_identity(text: str) -> None:
    """Raise InvalidInputError where a private key is none; no word of it."""
    if "AGE-SECRET-KEY-1" not in text and "PRIVATE KEY-----" not in text:
        raise InvalidInputError(
            "identity: found no private key, wanted the content of a file as age-keygen makes it (AGE-SECRET-KEY-1...) "
            "or an OpenSSH private key without a passphrase"
        )
