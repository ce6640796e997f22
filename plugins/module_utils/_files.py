# SPDX-License-Identifier: Apache-2.0
# PRIVATE to the collection: do not import this from outside, it may change without notice.
"""Replace a set of files as one change: compare, stage, validate, swap, activate, and undo all of it on a fault.

The functions know nothing of Ansible. What they need from the host besides the file system (running a command,
security labels) comes in as callables, so the unit tests run them in a temporary directory.

What a kill leaves behind (SIGKILL or a power cut; SIGTERM, SIGHUP and SIGINT are undone like a failure):

- before the swap: nothing but a private staging directory and, next to a target, at most a file named
  ``.<name>.gpufleet-new-*``; the next change of that file removes it;
- between two swaps: each file is the old one or the new one, never a mixture; the next run finishes the set;
- between swap and activation: the marker file says that an activation is owed; the next run pays it, even if no
  file differs any more.
"""

from __future__ import annotations

import difflib
import glob
import grp
import hashlib
import os
import pwd
import re
import shlex
import shutil
import stat
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

from ansible_collections.gpufleet.metal.plugins.module_utils._commands import Runner
from ansible_collections.gpufleet.metal.plugins.module_utils._errors import FleetError, InvalidInputError
from ansible_collections.gpufleet.metal.plugins.module_utils._rollback import (
    Rollback,
    RollbackError,
    check_seconds,
    monotonic,
)

MARKER_DIRECTORY = "/var/lib/gpufleet/managed_files"
"""Where a set of files notes that its activation is still owed."""

ROLLBACK_DIRECTORY = "/run/gpufleet-files"
"""Where the rollbacks of unconfirmed sets live."""

MAX_DIFF_BYTES = 104448
"""A file larger than this is not shown in a diff (the same limit as Ansible's own ``max_diff_size``)."""

MAX_SET_BYTES = 16 * 1024 * 1024
"""All contents of one task together: they travel inside the module's arguments."""

_MODE = re.compile(r"^0?[0-7]{3}$|^[0-7]{4}$")
_STATES = ("file", "directory", "absent")
_HIDDEN = "(hidden: the file is marked sensitive)\n"

Labeller = Callable[[str, str], None]
"""Gives the file in the first argument the security label that belongs to the path in the second one."""


FILE_OPTIONS: dict[str, dict[str, Any]] = {
    "dest": {"type": "str", "required": True},
    "state": {"type": "str", "choices": list(_STATES), "default": "file"},
    "template": {"type": "str"},
    "content": {"type": "str"},
    "source": {"type": "str"},
    "host_source": {"type": "str"},
    "owner": {"type": "str", "default": "root"},
    "group": {"type": "str", "default": "root"},
    "mode": {"type": "str"},
    "validate": {"type": "str"},
    "sensitive": {"type": "bool", "default": False},
}
"""Options of one entry of ``files``, as an argument spec; the action plugin and the module share it."""

CONTENT_OPTIONS = ("content", "host_source", "source", "template")
"""The options that say what a file holds: exactly one of them is given."""

ARGUMENT_SPEC: dict[str, dict[str, Any]] = {
    "files": {"type": "list", "elements": "dict", "required": True, "options": FILE_OPTIONS},
    "validate": {"type": "str"},
    "activate": {"type": "str"},
    "confirm_seconds": {"type": "int"},
}


class FileError(FleetError):
    """A file of the set can't be put in place, or what was put in place didn't work and was taken back."""


@dataclass(frozen=True)
class FileSpec:
    """The wanted state of one path. ``content`` is None unless ``state`` is ``file``; ``mode`` is the octal number."""

    dest: str
    state: str
    content: bytes | None
    owner: str
    group: str
    mode: int
    validate: str | None = None
    sensitive: bool = False


@dataclass(frozen=True)
class Current:
    """What is at a path now. ``kind`` is ``absent``, ``file`` or ``directory``."""

    kind: str
    content: bytes | None = None
    uid: int = -1
    gid: int = -1
    mode: int = 0
    xattrs: Mapping[str, bytes] = field(default_factory=dict)


@dataclass(frozen=True)
class Change:
    """One path that is not as wanted."""

    spec: FileSpec
    current: Current
    content_differs: bool
    attributes: tuple[str, ...]


@dataclass(frozen=True)
class Outcome:
    """What :func:`apply` did or, in check mode, would do."""

    changed_files: tuple[str, ...]
    activated: bool
    diff: tuple[dict[str, str], ...]
    unconfirmed: str = ""
    """Name of the change that waits for a confirmation, see :func:`rollback_of`; empty if there is none."""

    @property
    def changed(self) -> bool:
        """Whether a file changed or an owed activation was paid."""
        return bool(self.changed_files) or self.activated


# ---------------------------------------------------------------------------------------------------- the options


def check_file_options(entry: Any, position: int) -> None:
    """Refuse an entry of ``files`` that Ansible's own type conversion would quietly bend into something else.

    Raises InvalidInputError. ``position`` counts from 0, as in the list that the user wrote.
    """
    if not isinstance(entry, Mapping):
        raise InvalidInputError(f"files[{position}] is {_kind(entry)}, wanted a dictionary with at least 'dest'")
    name = entry.get("dest", f"files[{position}]")
    unknown = sorted(set(map(str, entry)) - set(FILE_OPTIONS))
    if unknown:
        hints = [f"{key!r}{_did_you_mean(key)}" for key in unknown]
        raise InvalidInputError(
            f"{name}: unknown option {', '.join(hints)}; an entry of 'files' knows {', '.join(sorted(FILE_OPTIONS))}"
        )
    mode = entry.get("mode")
    if mode is not None and not isinstance(mode, str):
        raise InvalidInputError(
            f'{name}: mode is {mode!r}, {_kind(mode)}; write it as a quoted octal string such as "0644"'
        )
    content = entry.get("content")
    if content is not None and not isinstance(content, str):
        raise InvalidInputError(
            f"{name}: content is {_kind(content)}, wanted a string; to_nice_json makes one of a structure"
        )


def check_set(entries: Sequence[Mapping[str, Any]]) -> None:
    """Check what holds between the options of an entry and between entries. Raises InvalidInputError."""
    seen: set[str] = set()
    for entry in entries:
        dest, state = str(entry["dest"]), str(entry["state"])
        if not dest.startswith("/") or os.path.normpath(dest) != dest or dest == "/":
            raise InvalidInputError(
                f"dest is {dest!r}, wanted an absolute path without '..', '//' or a slash at the end"
            )
        if dest in seen:
            raise InvalidInputError(f"{dest} is listed twice in 'files'; one entry says everything about a path")
        seen.add(dest)
        given = sorted(key for key in CONTENT_OPTIONS if entry.get(key) is not None)
        if state == "file" and len(given) != 1:
            found = " and ".join(given) if given else "none of them"
            raise InvalidInputError(
                f"{dest}: a file needs exactly one of template, content, source or host_source; found {found}"
            )
        if state != "file":
            unwanted = given + [key for key in ("validate",) if entry.get(key) is not None]
            if unwanted:
                raise InvalidInputError(f"{dest}: state is {state}, so {', '.join(unwanted)} has no meaning here")
        mode = entry.get("mode")
        if mode is not None and not _MODE.match(str(mode)):
            raise InvalidInputError(f'{dest}: mode is {mode!r}, wanted a quoted octal string such as "0644"')
        _require_placeholder(dest, entry.get("validate"))


def check_task(validate: str | None, confirm_seconds: int | None) -> None:
    """Check the options that are about the whole set. Raises InvalidInputError."""
    _require_placeholder("files", validate)
    if confirm_seconds is not None:
        check_seconds("confirm_seconds", confirm_seconds)


def host_content(dest: str, path: str, check_mode: bool) -> bytes:
    """Read the content of ``dest`` from a file that is on the host already, such as a key that was made there.

    In check mode a missing one is empty, because an earlier task of the same run would have made it. Raises FileError.
    """
    current = look(path)
    if current.kind == "absent" and check_mode:
        return b""
    if current.content is None:
        raise FileError(f"{dest}: its host_source {path} is {current.kind}, wanted a file on this host")
    return current.content


def file_spec(entry: Mapping[str, Any], content: bytes | None) -> FileSpec:
    """Build the wanted state from one checked entry and its rendered content."""
    state = str(entry["state"])
    default_mode = "0755" if state == "directory" else "0644"
    return FileSpec(
        dest=str(entry["dest"]),
        state=state,
        content=content,
        owner=str(entry["owner"]),
        group=str(entry["group"]),
        mode=int(str(entry.get("mode") or default_mode), 8),
        validate=entry.get("validate"),
        sensitive=bool(entry.get("sensitive", False)),
    )


# ------------------------------------------------------------------------------------------------------ comparing


def compare(specs: Sequence[FileSpec], check_mode: bool = False) -> list[Change]:
    """Find the paths that are not as wanted, in the order of ``specs``.

    In check mode a missing user, group or parent directory counts as a difference, because an earlier task of the
    same run would have made it; otherwise it raises FileError.
    """
    listed_directories = {spec.dest for spec in specs if spec.state == "directory"}
    changes = []
    for spec in specs:
        current = look(spec.dest)
        change = _compare_one(spec, current, check_mode)
        if change is not None:
            _require_parent(spec, listed_directories, check_mode)
            changes.append(change)
    return changes


def look(path: str) -> Current:
    """Read what is at ``path``. A symlink or a special file raises FileError: the rename would destroy it."""
    try:
        info = os.lstat(path)
    except FileNotFoundError:
        return Current("absent")
    except NotADirectoryError as fault:
        raise FileError(f"{path}: a part of the path is a file, not a directory") from fault
    uid, gid, mode = info.st_uid, info.st_gid, stat.S_IMODE(info.st_mode)
    if stat.S_ISLNK(info.st_mode):
        raise FileError(
            f"{path} is a symbolic link to {os.readlink(path)}; a replacement would cut the link. "
            f"Name the link's target as dest, or remove the link first"
        )
    if stat.S_ISDIR(info.st_mode):
        return Current("directory", None, uid, gid, mode)
    if not stat.S_ISREG(info.st_mode):
        raise FileError(f"{path} is neither a file nor a directory; remove it first")
    with open(path, "rb") as handle:
        content = handle.read()
    return Current("file", content, uid, gid, mode, _read_xattrs(path))


def _compare_one(spec: FileSpec, current: Current, check_mode: bool) -> Change | None:
    if spec.state == "absent":
        return None if current.kind == "absent" else Change(spec, current, True, ())
    if current.kind not in ("absent", spec.state):
        raise FileError(f"{spec.dest} is a {current.kind}, wanted a {spec.state}; remove it first")
    content_differs = current.kind == "absent" or (spec.state == "file" and current.content != spec.content)
    attributes = []
    uid, gid = _uid(spec, check_mode), _gid(spec, check_mode)
    if current.kind != "absent":
        if current.uid != uid:
            attributes.append(f"owner: {_name_of_uid(current.uid)} -> {spec.owner}")
        if current.gid != gid:
            attributes.append(f"group: {_name_of_gid(current.gid)} -> {spec.group}")
        if current.mode != spec.mode:
            attributes.append(f"mode: {current.mode:04o} -> {spec.mode:04o}")
    if not content_differs and not attributes:
        return None
    return Change(spec, current, content_differs, tuple(attributes))


def _require_parent(spec: FileSpec, listed: set[str], check_mode: bool) -> None:
    parent = os.path.dirname(spec.dest)
    if spec.state == "absent" or check_mode or parent in listed or os.path.isdir(parent):
        return
    raise FileError(
        f"{spec.dest}: the directory {parent} does not exist; a package should have made it, "
        f"or list it: {{dest: {parent}, state: directory}}"
    )


def render_diff(changes: Sequence[Change]) -> list[dict[str, str]]:
    """Describe the changes the way Ansible's callbacks show them. Sensitive contents are never in it."""
    result = []
    for change in changes:
        spec, current = change.spec, change.current
        if change.content_differs:
            after_kind = "absent" if spec.state == "absent" else spec.state
            result.append(
                {
                    "before_header": f"{spec.dest} ({current.kind})" if current.kind != after_kind else spec.dest,
                    "after_header": f"{spec.dest} ({after_kind})" if current.kind != after_kind else spec.dest,
                    "before": _shown(current.content, current.kind, spec.sensitive, "old"),
                    "after": _shown(spec.content, after_kind, spec.sensitive, "new"),
                }
            )
        if change.attributes:
            pairs = [line.split(" -> ") for line in change.attributes]
            result.append(
                {
                    "before_header": f"{spec.dest} (attributes)",
                    "after_header": f"{spec.dest} (attributes)",
                    "before": "".join(f"{old}\n" for old, __ in pairs),
                    "after": "".join(f"{old.split(': ')[0]}: {new}\n" for old, new in pairs),
                }
            )
    return result


def _shown(content: bytes | None, kind: str, sensitive: bool, which: str) -> str:
    if kind == "directory":
        return "directory\n"
    if content is None:
        return ""
    if sensitive:
        return f"{which} content {_HIDDEN}"
    if len(content) > MAX_DIFF_BYTES or b"\0" in content:
        return f"({len(content)} bytes, sha256 {hashlib.sha256(content).hexdigest()})\n"
    return content.decode("utf-8", errors="replace")


# -------------------------------------------------------------------------------------------------------- applying


def apply(
    specs: Sequence[FileSpec],
    run: Runner,
    *,
    validate: str | None = None,
    activate: str | None = None,
    confirm_seconds: int | None = None,
    label: Labeller | None = None,
    check_mode: bool = False,
    marker_directory: str = MARKER_DIRECTORY,
    rollback_directory: str = ROLLBACK_DIRECTORY,
    temporary_directory: str | None = None,
) -> Outcome:
    """Bring all paths to their wanted state as one change, or leave all of them as they were.

    With ``confirm_seconds`` a timer puts the old files back unless :func:`confirm` is called in time for the change
    that the outcome names.

    Raises FileError when something can't be done; then every path has its old content, owner, group and mode again,
    and ``activate`` has run once more for the old ones if it had been run for the new ones.
    """
    identity = _identity(specs, activate)
    change = f"{identity}-{_digest(specs)}"
    rollback = rollback_of(change, rollback_directory)
    if confirm_seconds is not None and not check_mode:
        rollback.settle(run, monotonic, time.sleep)
    changes = compare(specs, check_mode)
    marker = os.path.join(marker_directory, f"{identity}.owed")
    owed = activate is not None and os.path.exists(marker)
    outcome = Outcome(
        tuple(sorted(change.spec.dest for change in changes)),
        activate is not None and (bool(changes) or owed),
        tuple(render_diff(changes)),
        change if confirm_seconds is not None and changes else "",
    )
    if check_mode or not outcome.changed:
        return outcome
    secrets = _secrets(changes, specs)
    if changes:
        _stage_and_validate(specs, changes, run, validate, secrets, temporary_directory)
    if confirm_seconds is not None and changes:
        _arm(rollback, changes, activate, confirm_seconds, run)
    try:
        _swap_and_activate(changes, run, activate, label, secrets, marker, owed)
    except BaseException:
        # The old files are back already; a timer that fires now would do the same again.
        if outcome.unconfirmed:
            with suppress(RollbackError):
                rollback.disarm(run)
            rollback.finish()
        raise
    return outcome


def rollback_of(change: str, directory: str = ROLLBACK_DIRECTORY) -> Rollback:
    """The rollback of a change, which is named by the identity of the set and the digest of its contents."""
    identity = change.partition("-")[0]
    unit = f"gpufleet-files-rollback-{identity[:12]}"
    return Rollback(os.path.join(directory, identity), unit, "the new files", change)


def confirm(rollback: Rollback, run: Runner) -> None:
    """Keep the new files; called over a connection made after the change. Raises RollbackError if too late.

    Called again for the same change, because the answer was lost, it succeeds again.
    """
    with rollback.confirming():
        rollback.disarm(run)
        rollback.keep_answer()


def _arm(rollback: Rollback, changes: Sequence[Change], activate: str | None, seconds: int, run: Runner) -> None:
    """Save the old files and start the timer that puts them back and activates them."""
    rollback.prepare()
    commands: list[list[str]] = []
    by_depth = sorted(changes, key=lambda change: change.spec.dest.count("/"))
    for change in (change for change in by_depth if change.current.kind == "directory"):
        current, dest = change.current, change.spec.dest
        if change.spec.state == "absent":
            commands.append(["mkdir", dest])
        commands.append(["chown", f"{current.uid}:{current.gid}", dest])
        commands.append(["chmod", f"{current.mode:04o}", dest])
    for number, change in enumerate(change for change in changes if change.current.kind == "file"):
        current, dest, saved = change.current, change.spec.dest, rollback.path(f"old-{number}")
        _write_new(saved, current.content or b"", current.uid, current.gid, current.mode)
        _write_xattrs(saved, current.xattrs)
        beside = f"{os.path.dirname(dest)}/.{os.path.basename(dest)}.gpufleet-new-old"
        commands.append(["cp", "--archive", saved, beside])
        commands.append(["mv", "--force", "--no-target-directory", beside, dest])
    for change in reversed([change for change in by_depth if change.current.kind == "absent"]):
        commands.append([*(["rm", "-f"] if change.spec.state == "file" else ["rmdir"]), change.spec.dest])
    if activate is not None:
        commands.append(shlex.split(activate))
    rollback.arm(commands, seconds, run, monotonic)


def _swap_and_activate(
    changes: Sequence[Change],
    run: Runner,
    activate: str | None,
    label: Labeller | None,
    secrets: Sequence[bytes],
    marker: str,
    owed: bool,
) -> None:
    if activate is not None and not owed:
        _write_marker(marker, activate)
    try:
        swapped = _swap_all(changes, label)
    except BaseException:
        if activate is not None and not owed:
            os.unlink(marker)
        raise
    if activate is not None:
        _activate(changes, swapped, run, activate, secrets, marker)


def _activate(
    changes: Sequence[Change], swapped: _Swap, run: Runner, activate: str, secrets: Sequence[bytes], marker: str
) -> None:
    """Run the activation; if it fails or is interrupted, put the old files back and activate those."""
    argv = shlex.split(activate)
    try:
        status, out, err = run(argv)
    except BaseException as fault:
        swapped.undo(because=f"'{activate}' was interrupted ({fault})")
        run(argv)
        raise
    if status == 0:
        os.unlink(marker)
        return
    first = _scrub(_joined(out, err), secrets)
    if not changes:
        raise FileError(
            f"'{activate}' (owed by an earlier run that was interrupted) exited with {status}: {first}. "
            f"No file was changed; the next run tries it again"
        )
    names = ", ".join(sorted(change.spec.dest for change in changes))
    failure = f"'{activate}' exited with {status} for the new {names}: {first}"
    swapped.undo(because=failure)
    again, out, err = run(argv)
    if again == 0:
        os.unlink(marker)
    state = "succeeded" if again == 0 else f"exited with {again}: {_scrub(_joined(out, err), secrets)}"
    raise FileError(f"{failure}. The old files are back; '{activate}' for them {state}")


def _stage_and_validate(
    specs: Sequence[FileSpec],
    changes: Sequence[Change],
    run: Runner,
    validate: str | None,
    secrets: Sequence[bytes],
    temporary_directory: str | None,
) -> None:
    """Write every file of the set under a private directory with its full path, and run the commands that judge it."""
    own = [change.spec for change in changes if change.spec.validate is not None]
    if validate is None and not own:
        return
    with _staged(specs, temporary_directory) as root:
        for spec in own:
            _judge(str(spec.validate), root, root + spec.dest, spec.dest, run, secrets)
        if validate is not None:
            names = ", ".join(sorted(change.spec.dest for change in changes))
            _judge(validate, root, root, names, run, secrets)


def _judge(command: str, root: str, path: str, names: str, run: Runner, secrets: Sequence[bytes]) -> None:
    argv = [part.replace("%s", path) for part in shlex.split(command)]
    status, out, err = run(argv)
    if status != 0:
        raise FileError(
            f"{names}: '{command}' refused the new content (exit status {status}): "
            f"{_scrub(_joined(out, err).replace(root, ''), secrets)}. Nothing was changed"
        )


@contextmanager
def _staged(specs: Sequence[FileSpec], temporary_directory: str | None) -> Iterator[str]:
    root = tempfile.mkdtemp(prefix="gpufleet-stage-", dir=temporary_directory)
    try:
        for spec in specs:
            staged = root + spec.dest
            if spec.state == "directory":
                os.makedirs(staged, exist_ok=True)
            elif spec.state == "file":
                os.makedirs(os.path.dirname(staged), exist_ok=True)
                _write_new(staged, spec.content or b"", _uid(spec), _gid(spec), spec.mode)
        yield root
    finally:
        shutil.rmtree(root)


class _Swap:
    """The changes already made, newest last, each with the way back."""

    def __init__(self) -> None:
        self._ways_back: list[tuple[str, Callable[[], None]]] = []

    def done(self, path: str, way_back: Callable[[], None]) -> None:
        self._ways_back.append((path, way_back))

    def undo(self, because: str) -> None:
        """Take every change back; tries all of them, then raises FileError for those that failed."""
        failures = []
        while self._ways_back:
            path, way_back = self._ways_back.pop()
            try:
                way_back()
            except OSError as fault:
                failures.append(f"{path}: {fault.strerror}")
        if failures:
            raise FileError(f"{because}. The old state could not be put back: {'; '.join(failures)}")


def _swap_all(changes: Sequence[Change], label: Labeller | None) -> _Swap:
    """Make all changes, or none. New contents lie beside their targets before the first rename: the swap is short."""
    swap, prepared = _Swap(), {}
    try:
        for change in sorted((c for c in changes if c.spec.state == "directory"), key=lambda c: c.spec.dest.count("/")):
            _swap_directory(change, swap, label)
        files = [change for change in changes if change.spec.state == "file"]
        for change in files:
            prepared[change.spec.dest] = _prepare(change, label)
        for change in files:
            dest = change.spec.dest
            _rename(prepared[dest], dest)
            del prepared[dest]
            swap.done(dest, _way_back(dest, change.current))
        for change in sorted((c for c in changes if c.spec.state == "absent"), key=lambda c: -c.spec.dest.count("/")):
            _remove(change, swap)
        for directory in sorted({os.path.dirname(change.spec.dest) for change in changes}):
            _sync_directory(directory)
    except BaseException as fault:
        for path in prepared.values():
            os.unlink(path)
        swap.undo(because=str(fault))
        raise
    return swap


def _rename(source: str, dest: str) -> None:
    _with_name(dest, lambda: os.replace(source, dest))


def _swap_directory(change: Change, swap: _Swap, label: Labeller | None) -> None:
    spec, dest = change.spec, change.spec.dest
    if change.current.kind == "absent":
        _with_name(dest, lambda: os.mkdir(dest, 0o700))
        swap.done(dest, lambda: os.rmdir(dest))
        if label is not None:
            label(dest, dest)
    else:
        swap.done(dest, lambda: _set_attributes(dest, change.current.uid, change.current.gid, change.current.mode))
    _with_name(dest, lambda: _set_attributes(dest, _uid(spec), _gid(spec), spec.mode))


def _prepare(change: Change, label: Labeller | None) -> str:
    """Write the new content beside its target: complete, synced, owned and labelled; returns the path."""
    spec, current = change.spec, change.current
    directory, name = os.path.split(spec.dest)
    for leftover in glob.glob(f"{glob.escape(directory)}/.{glob.escape(name)}.gpufleet-new-*"):
        os.unlink(leftover)
    path = f"{directory}/.{name}.gpufleet-new-{os.getpid()}"
    try:
        _with_name(spec.dest, lambda: _write_new(path, spec.content or b"", _uid(spec), _gid(spec), spec.mode))
        _with_name(spec.dest, lambda: _write_xattrs(path, current.xattrs))
        if label is not None and current.kind == "absent":
            label(path, spec.dest)
    except BaseException:
        if os.path.exists(path):
            os.unlink(path)
        raise
    return path


def _remove(change: Change, swap: _Swap) -> None:
    dest, current = change.spec.dest, change.current
    if current.kind == "directory":
        try:
            os.rmdir(dest)
        except OSError as fault:
            left = ", ".join(sorted(os.listdir(dest))[:5])
            raise FileError(
                f"{dest}: only an empty directory is removed, and it holds {left}; "
                f"list these with state: absent in the same task"
            ) from fault
    else:
        _with_name(dest, lambda: os.unlink(dest))
    swap.done(dest, _way_back(dest, current))


def _way_back(path: str, current: Current) -> Callable[[], None]:
    """The function that puts ``current`` back at ``path``, byte for byte, with its owner, mode and attributes."""

    def restore() -> None:
        if current.kind == "absent":
            os.unlink(path)
        elif current.kind == "directory":
            os.mkdir(path, 0o700)
            _set_attributes(path, current.uid, current.gid, current.mode)
        else:
            beside = f"{os.path.dirname(path)}/.{os.path.basename(path)}.gpufleet-new-old"
            _write_new(beside, current.content or b"", current.uid, current.gid, current.mode)
            _write_xattrs(beside, current.xattrs)
            os.replace(beside, path)

    return restore


def _write_new(path: str, content: bytes, uid: int, gid: int, mode: int) -> None:
    """Create ``path`` (it must not exist), readable by nobody else until it has its owner and mode; synced."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    with os.fdopen(descriptor, "wb") as handle:
        handle.write(content)
        handle.flush()
        os.fchown(descriptor, uid, gid)
        os.fchmod(descriptor, mode)
        os.fsync(descriptor)


def _set_attributes(path: str, uid: int, gid: int, mode: int) -> None:
    os.chown(path, uid, gid, follow_symlinks=False)
    os.chmod(path, mode)


def _sync_directory(path: str) -> None:
    if not os.path.isdir(path):
        return
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _with_name(path: str, act: Callable[[], None]) -> None:
    """Run ``act``; an OSError becomes a FileError that names the path that the user wrote."""
    try:
        act()
    except OSError as fault:
        raise FileError(f"{path}: {fault.strerror}") from fault


def _read_xattrs(path: str) -> dict[str, bytes]:
    """Extended attributes, among them the SELinux label and access lists; empty where there is no support."""
    if not hasattr(os, "listxattr"):
        return {}
    try:
        return {name: os.getxattr(path, name) for name in os.listxattr(path)}
    except OSError:
        return {}


def _write_xattrs(path: str, xattrs: Mapping[str, bytes]) -> None:
    for name, value in sorted(xattrs.items()):
        os.setxattr(path, name, value)


# ------------------------------------------------------------------------------------------------------ small parts


def _identity(specs: Sequence[FileSpec], activate: str | None) -> str:
    """A name that is the same for the same set of paths and the same activation, whatever their contents."""
    text = "\n".join([activate or "", *sorted(spec.dest for spec in specs)])
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def _digest(specs: Sequence[FileSpec]) -> str:
    """A name for what the set is to hold."""
    text = repr([(spec.dest, spec.state, spec.content, spec.owner, spec.group, spec.mode) for spec in specs])
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def _write_marker(path: str, activate: str) -> None:
    os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as handle:
        handle.write(f"{activate}\n")
        handle.flush()
        os.fsync(descriptor)
    _sync_directory(os.path.dirname(path))


def _secrets(changes: Sequence[Change], specs: Sequence[FileSpec]) -> list[bytes]:
    contents = [spec.content for spec in specs if spec.sensitive]
    contents += [change.current.content for change in changes if change.spec.sensitive]
    return [content for content in contents if content]


def _scrub(text: str, secrets: Sequence[bytes]) -> str:
    """Take every line and every longer word of a sensitive file out of a command's output."""
    words: set[str] = set()
    for content in secrets:
        for line in content.decode("utf-8", errors="replace").splitlines():
            words.update(part for part in [line.strip(), *re.split(r"[\s\"'=:;,]+", line)] if len(part) >= 6)
    for word in sorted(words, key=len, reverse=True):
        text = text.replace(word, "(hidden)")
    return text


def _joined(out: str, err: str) -> str:
    text = "\n".join(part.strip() for part in (err, out) if part.strip())
    return text.rstrip(".") if text else "no output"


def _require_placeholder(name: str, command: str | None) -> None:
    if command is not None and "%s" not in command:
        raise InvalidInputError(f"{name}: validate is {command!r}, wanted a command with %s where the staged path goes")


def _uid(spec: FileSpec, check_mode: bool = False) -> int:
    if spec.owner.isdigit():
        return int(spec.owner)
    try:
        return pwd.getpwnam(spec.owner).pw_uid
    except KeyError as fault:
        if check_mode:
            return -1
        raise FileError(f"{spec.dest}: the user {spec.owner!r} does not exist on this host") from fault


def _gid(spec: FileSpec, check_mode: bool = False) -> int:
    if spec.group.isdigit():
        return int(spec.group)
    try:
        return grp.getgrnam(spec.group).gr_gid
    except KeyError as fault:
        if check_mode:
            return -1
        raise FileError(f"{spec.dest}: the group {spec.group!r} does not exist on this host") from fault


def _name_of_uid(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def _name_of_gid(gid: int) -> str:
    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return str(gid)


def _did_you_mean(word: str) -> str:
    close = difflib.get_close_matches(word, FILE_OPTIONS, n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""


def _kind(value: Any) -> str:
    names: tuple[tuple[Any, str], ...] = (
        (Mapping, "a dictionary"),
        (list, "a list"),
        (bool, "a boolean"),
        ((int, float), "a number"),
        (str, "a string"),
        (type(None), "nothing"),
    )
    return next((name for kind, name in names if isinstance(value, kind)), f"of type {type(value).__name__}")
