# SPDX-License-Identifier: Apache-2.0
"""A set of files is one change: compared, validated, swapped and activated, or left as it was."""

from __future__ import annotations

import grp
import os
import pwd
import stat
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.gpufleet.metal.plugins.module_utils import _files
from ansible_collections.gpufleet.metal.plugins.module_utils._errors import InvalidInputError
from ansible_collections.gpufleet.metal.plugins.module_utils._rollback import RollbackError

USER = pwd.getpwuid(os.getuid()).pw_name
GROUP = grp.getgrgid(os.getgid()).gr_name


class Commands:
    """Stands in for the host's commands: answers by the first word, remembers every call."""

    def __init__(self, **answers: Any) -> None:
        self.answers = answers
        self.calls: list[list[str]] = []

    def __call__(self, argv: Sequence[str]) -> tuple[int, str, str]:
        self.calls.append(list(argv))
        answer = self.answers.get(argv[0], (0, "", ""))
        if isinstance(answer, list):
            answer = answer.pop(0)
        if callable(answer):
            answer = answer(argv)
        return answer


def spec(path: Path, content: str | None = "new\n", **options: Any) -> _files.FileSpec:
    entry = {"dest": str(path), "state": "file", "owner": USER, "group": GROUP, "mode": None, **options}
    return _files.file_spec(entry, None if content is None else content.encode())


@pytest.fixture
def apply(tmp_path: Path) -> Callable[..., _files.Outcome]:
    (tmp_path / "stage").mkdir()

    def call(specs: Sequence[_files.FileSpec], run: Commands | None = None, **options: Any) -> _files.Outcome:
        return _files.apply(
            specs,
            run or Commands(),
            marker_directory=str(tmp_path / "markers"),
            rollback_directory=str(tmp_path / "rollbacks"),
            temporary_directory=str(tmp_path / "stage"),
            **options,
        )

    return call


def picture(root: Path) -> dict[str, tuple[str, int]]:
    """Every path below ``root`` with its content and mode."""
    return {
        str(path.relative_to(root)): (path.read_text() if path.is_file() else "/", stat.S_IMODE(path.lstat().st_mode))
        for path in sorted(root.rglob("*"))
    }


# ------------------------------------------------------------------------------------------------------- the options


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("/etc/x", "files[2] is a string, wanted a dictionary with at least 'dest'"),
        (
            {"dest": "/etc/x", "tempalte": "x.j2"},
            (
                "/etc/x: unknown option 'tempalte' (did you mean 'template'?); an entry of 'files' knows "
                "content, dest, group, host_source, mode, owner, sensitive, source, state, template, validate"
            ),
        ),
        (
            {"content": "", "zzz": 1},
            (
                "files[2]: unknown option 'zzz'; an entry of 'files' knows "
                "content, dest, group, host_source, mode, owner, sensitive, source, state, template, validate"
            ),
        ),
        (
            {"dest": "/etc/x", "mode": 420},
            '/etc/x: mode is 420, a number; write it as a quoted octal string such as "0644"',
        ),
        (
            {"dest": "/etc/x", "content": {"a": 1}},
            "/etc/x: content is a dictionary, wanted a string; to_nice_json makes one of a structure",
        ),
    ],
)
def test_an_entry_that_type_conversion_would_bend_is_refused(entry: Any, message: str) -> None:
    with pytest.raises(InvalidInputError) as caught:
        _files.check_file_options(entry, 2)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ([{"dest": "etc/x"}], "dest is 'etc/x', wanted an absolute path without '..', '//' or a slash at the end"),
        (
            [{"dest": "/etc/../x"}],
            "dest is '/etc/../x', wanted an absolute path without '..', '//' or a slash at the end",
        ),
        ([{"dest": "/etc/x/"}], "dest is '/etc/x/', wanted an absolute path without '..', '//' or a slash at the end"),
        (
            [{"dest": "/etc/x", "content": ""}, {"dest": "/etc/x", "state": "absent"}],
            "/etc/x is listed twice in 'files'; one entry says everything about a path",
        ),
        (
            [{"dest": "/x"}],
            "/x: a file needs exactly one of template, content, source or host_source; found none of them",
        ),
        (
            [{"dest": "/x", "content": "", "template": "x.j2"}],
            "/x: a file needs exactly one of template, content, source or host_source; found content and template",
        ),
        (
            [{"dest": "/x", "content": "", "host_source": "/y"}],
            "/x: a file needs exactly one of template, content, source or host_source; found content and host_source",
        ),
        (
            [{"dest": "/x", "state": "directory", "template": "x.j2", "validate": "true %s"}],
            "/x: state is directory, so template, validate has no meaning here",
        ),
        (
            [{"dest": "/x", "content": "", "mode": "u+x"}],
            "/x: mode is 'u+x', wanted a quoted octal string such as \"0644\"",
        ),
        (
            [{"dest": "/x", "content": "", "mode": "0888"}],
            "/x: mode is '0888', wanted a quoted octal string such as \"0644\"",
        ),
        (
            [{"dest": "/x", "content": "", "validate": "sshd -t"}],
            "/x: validate is 'sshd -t', wanted a command with %s where the staged path goes",
        ),
    ],
)
def test_a_set_that_contradicts_itself_is_refused(entries: list[dict[str, Any]], message: str) -> None:
    with pytest.raises(InvalidInputError) as caught:
        _files.check_set([{"state": "file", **entry} for entry in entries])
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("state", "mode", "wanted"),
    [("file", None, 0o644), ("directory", None, 0o755), ("file", "600", 0o600), ("file", "4755", 0o4755)],
)
def test_modes(tmp_path: Path, state: str, mode: str | None, wanted: int) -> None:
    assert spec(tmp_path / "x", None, state=state, mode=mode).mode == wanted


# ---------------------------------------------------------------------------------------------------- the usual ways


def test_a_set_is_put_in_place_and_the_second_run_changes_nothing(tmp_path: Path, apply: Any) -> None:
    root = tmp_path / "etc"
    root.mkdir()
    (root / "old").write_text("x")
    (root / "olddir").mkdir()
    wanted = [
        spec(root / "d" / "deep", None, state="directory", mode="0700"),
        spec(root / "d", None, state="directory"),
        spec(root / "d" / "deep" / "a", "a\n", mode="0600"),
        spec(root / "b", "b\n"),
        spec(root / "olddir", None, state="absent"),
        spec(root / "old", None, state="absent"),
    ]
    commands = Commands()
    outcome = apply(wanted, commands, activate="systemctl reload x")
    assert outcome.changed
    assert outcome.activated
    assert outcome.changed_files == tuple(
        str(root / name) for name in ("b", "d", "d/deep", "d/deep/a", "old", "olddir")
    )
    assert picture(root) == {
        "b": ("b\n", 0o644),
        "d": ("/", 0o755),
        "d/deep": ("/", 0o700),
        "d/deep/a": ("a\n", 0o600),
    }
    assert commands.calls == [["systemctl", "reload", "x"]]
    again = apply(wanted, commands, activate="systemctl reload x")
    assert (again.changed, again.changed_files, again.activated, again.diff) == (False, (), False, ())
    assert len(commands.calls) == 1


def test_check_mode_reports_and_touches_nothing(tmp_path: Path, apply: Any) -> None:
    commands = Commands()
    wanted = [spec(tmp_path / "missing" / "x"), spec(tmp_path / "y", owner="nobody-has-this-name")]
    (tmp_path / "y").write_text("new\n")
    before = picture(tmp_path)
    outcome = apply(wanted, commands, validate="judge %s", activate="reload", check_mode=True)
    assert outcome.changed_files == (str(tmp_path / "missing" / "x"), str(tmp_path / "y"))
    assert picture(tmp_path) == before
    assert commands.calls == []


def test_only_a_mode_differs(tmp_path: Path, apply: Any) -> None:
    path = tmp_path / "x"
    path.write_text("new\n")
    path.chmod(0o600)
    outcome = apply([spec(path)])
    assert outcome.diff == (
        {
            "before_header": f"{path} (attributes)",
            "after_header": f"{path} (attributes)",
            "before": "mode: 0600\n",
            "after": "mode: 0644\n",
        },
    )
    assert stat.S_IMODE(path.stat().st_mode) == 0o644


def test_validation_sees_the_whole_set_staged_under_its_full_paths(tmp_path: Path, apply: Any) -> None:
    root = tmp_path / "etc"
    root.mkdir()
    (root / "same").write_text("same\n")
    seen: dict[str, Any] = {}

    def judge(argv: Sequence[str]) -> tuple[int, str, str]:
        stage = Path(argv[-1])
        seen["private"] = stat.S_IMODE(stage.stat().st_mode)
        seen["files"] = picture(Path(f"{stage}{root}"))
        return 0, "", ""

    commands = Commands(judge=judge)
    wanted = [spec(root / "same", "same\n"), spec(root / "x", "x\n", mode="0600", validate="one -f '%s' 'a b'")]
    apply(wanted, commands, validate="judge -c %s")
    assert seen == {"private": 0o700, "files": {"same": ("same\n", 0o644), "x": ("x\n", 0o600)}}
    assert commands.calls[0][0] == "one"
    assert commands.calls[0][2].endswith(f"{root}/x")
    assert commands.calls[0][3] == "a b"
    assert list((tmp_path / "stage").iterdir()) == []


# -------------------------------------------------------------------------------------------------------- the faults


@pytest.fixture
def populated(tmp_path: Path) -> tuple[Path, list[_files.FileSpec]]:
    """A directory with old files, and a set that changes, adds and removes some."""
    root = tmp_path / "etc"
    (root / "gone").mkdir(parents=True)
    (root / "a").write_text("old a\n")
    (root / "a").chmod(0o640)
    (root / "z").write_text("old z\n")
    (root / "d").mkdir(mode=0o750)
    return root, [
        spec(root / "new", None, state="directory"),
        spec(root / "new" / "n"),
        spec(root / "d", None, state="directory", mode="0700"),
        spec(root / "a", mode="0600", sensitive=True),
        spec(root / "z", None, state="absent"),
        spec(root / "gone", None, state="absent"),
    ]


def test_a_refused_set_touches_nothing(populated: Any, apply: Any) -> None:
    root, wanted = populated
    before = picture(root)
    with pytest.raises(_files.FileError) as caught:
        apply(
            wanted,
            Commands(nginx=(1, "", "nginx: unknown directive\n")),
            validate="nginx -t -c %s/x",
            activate="reload",
        )
    names = ", ".join(str(root / name) for name in ("a", "d", "gone", "new", "new/n", "z"))
    assert str(caught.value) == (
        f"{names}: 'nginx -t -c %s/x' refused the new content (exit status 1): "
        "nginx: unknown directive. Nothing was changed"
    )
    assert picture(root) == before


def test_a_failed_activation_puts_everything_back_and_activates_the_old(
    populated: Any, apply: Any, tmp_path: Path
) -> None:
    root, wanted = populated
    before = picture(root)
    commands = Commands(reload=[(1, "", "bad a"), (0, "", "")])
    with pytest.raises(_files.FileError) as caught:
        apply(wanted, commands, activate="reload now")
    names = ", ".join(str(root / name) for name in ("a", "d", "gone", "new", "new/n", "z"))
    assert str(caught.value) == (
        f"'reload now' exited with 1 for the new {names}: bad a. "
        "The old files are back; 'reload now' for them succeeded"
    )
    assert picture(root) == before
    assert commands.calls == [["reload", "now"], ["reload", "now"]]
    assert list((tmp_path / "markers").iterdir()) == []


def test_an_activation_that_fails_for_the_old_files_too_stays_owed(populated: Any, apply: Any, tmp_path: Path) -> None:
    root, wanted = populated
    before = picture(root)
    with pytest.raises(_files.FileError, match=r"The old files are back; 'reload' for them exited with 2: no output$"):
        apply(wanted, Commands(reload=[(1, "", "bad a"), (2, "", "")]), activate="reload")
    assert picture(root) == before
    assert len(list((tmp_path / "markers").iterdir())) == 1


def test_a_fault_in_the_middle_of_the_swap_puts_everything_back(
    populated: Any, apply: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, wanted = populated
    before = picture(root)
    real = os.replace
    calls: list[str] = []

    def replace(source: str, dest: str) -> None:
        calls.append(dest)
        if len(calls) == 2:
            raise OSError(28, "No space left on device")
        real(source, dest)

    monkeypatch.setattr(os, "replace", replace)
    with pytest.raises(_files.FileError) as caught:
        apply(wanted, activate="reload")
    assert str(caught.value) == f"{root}/a: No space left on device"
    assert picture(root) == before
    assert list((tmp_path / "markers").iterdir()) == []


def test_an_interrupted_activation_is_undone_and_paid_by_the_next_run(
    populated: Any, apply: Any, tmp_path: Path
) -> None:
    root, wanted = populated
    before = picture(root)

    def interrupted(argv: Sequence[str]) -> tuple[int, str, str]:
        raise KeyboardInterrupt("SIGINT")

    with pytest.raises(KeyboardInterrupt):
        apply(wanted, Commands(reload=[interrupted, (0, "", "")]), activate="reload")
    assert picture(root) == before
    assert len(list((tmp_path / "markers").iterdir())) == 1


def test_a_run_killed_before_its_activation_is_finished_by_the_next(tmp_path: Path, apply: Any) -> None:
    wanted = [spec(tmp_path / "x")]
    (tmp_path / "x").write_text("new\n")
    (tmp_path / "x").chmod(0o644)
    marker = str(tmp_path / "markers" / f"{_files._identity(wanted, 'reload')}.owed")
    _files._write_marker(marker, "reload")
    commands = Commands(reload=[(1, "", "busy"), (0, "", "")])
    with pytest.raises(_files.FileError) as caught:
        apply(wanted, commands, activate="reload")
    assert str(caught.value) == (
        "'reload' (owed by an earlier run that was interrupted) exited with 1: busy. "
        "No file was changed; the next run tries it again"
    )
    outcome = apply(wanted, commands, activate="reload")
    assert (outcome.changed, outcome.changed_files, outcome.activated) == (True, (), True)
    assert not apply(wanted, commands, activate="reload").changed


def test_leftovers_of_a_killed_run_are_removed(tmp_path: Path, apply: Any) -> None:
    (tmp_path / ".x.gpufleet-new-1").write_text("half")
    apply([spec(tmp_path / "x")])
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_file()) == ["x"]


def _link(root: Path) -> _files.FileSpec:
    (root / "x").symlink_to("/dev/null")
    return spec(root / "x")


def _directory(root: Path) -> _files.FileSpec:
    (root / "x").mkdir()
    return spec(root / "x")


def _full(root: Path) -> _files.FileSpec:
    (root / "x").mkdir()
    (root / "x" / "y").write_text("")
    return spec(root / "x", None, state="absent")


def _fifo(root: Path) -> _files.FileSpec:
    os.mkfifo(root / "x")
    return spec(root / "x")


@pytest.mark.parametrize(
    ("prepare", "message"),
    [
        (
            _link,
            (
                "{x} is a symbolic link to /dev/null; a replacement would cut the link. "
                "Name the link's target as dest, or remove the link first"
            ),
        ),
        (_directory, "{x} is a directory, wanted a file; remove it first"),
        (_fifo, "{x} is neither a file nor a directory; remove it first"),
        (
            _full,
            "{x}: only an empty directory is removed, and it holds y; list these with state: absent in the same task",
        ),
        (
            lambda root: spec(root / "x" / "y"),
            (
                "{x}/y: the directory {x} does not exist; a package should have made it, or list it: "
                "{{dest: {x}, state: directory}}"
            ),
        ),
        (
            lambda root: spec(root / "x", owner="nobody-has-it"),
            "{x}: the user 'nobody-has-it' does not exist on this host",
        ),
        (
            lambda root: spec(root / "x", group="nobody-has-it"),
            "{x}: the group 'nobody-has-it' does not exist on this host",
        ),
    ],
)
def test_what_cannot_be_replaced_is_named(
    tmp_path: Path, apply: Any, prepare: Callable[[Path], _files.FileSpec], message: str
) -> None:
    wanted = prepare(tmp_path)
    with pytest.raises(_files.FileError) as caught:
        apply([wanted])
    assert str(caught.value) == message.format(x=tmp_path / "x")


# ------------------------------------------------------------------------------------------------------- confirmation


def run_rollback(tmp_path: Path, change: str) -> None:
    rollback = _files.rollback_of(change, str(tmp_path / "rollbacks"))
    done = subprocess.run(["sh", rollback.path("rollback.sh")], check=False)
    assert done.returncode == 0


def test_without_a_confirmation_every_path_goes_back(populated: Any, apply: Any, tmp_path: Path) -> None:
    root, wanted = populated
    before = picture(root)
    commands = Commands()
    outcome = apply(wanted, commands, activate="touch '{}'".format(tmp_path / "activated again"), confirm_seconds=60)
    assert commands.calls[0][0] == "systemd-run"
    assert picture(root) != before
    run_rollback(tmp_path, outcome.unconfirmed)
    assert picture(root) == before
    assert (tmp_path / "activated again").exists()
    rollback = _files.rollback_of(outcome.unconfirmed, str(tmp_path / "rollbacks"))
    with pytest.raises(
        RollbackError, match=r"^The confirmation of the new files came too late: its rollback had begun$"
    ):
        _files.confirm(rollback, commands)


def test_a_confirmation_keeps_the_new_files(populated: Any, apply: Any, tmp_path: Path) -> None:
    root, wanted = populated
    outcome = apply(wanted, confirm_seconds=60)
    new = picture(root)
    rollback = _files.rollback_of(outcome.unconfirmed, str(tmp_path / "rollbacks"))
    assert not rollback.confirmed()
    # Twice, as when the first answer was lost.
    _files.confirm(rollback, Commands())
    _files.confirm(rollback, Commands())
    assert picture(root) == new
    assert rollback.confirmed()
    assert sorted(os.listdir(rollback.directory)) == ["change", "confirmed"], "the saved old files are gone"
    assert apply(wanted, confirm_seconds=60).unconfirmed == ""


def test_a_failed_activation_disarms_too(populated: Any, apply: Any, tmp_path: Path) -> None:
    root, wanted = populated
    before = picture(root)
    commands = Commands(reload=[(1, "", "bad a"), (0, "", "")])
    with pytest.raises(_files.FileError):
        apply(wanted, commands, activate="reload", confirm_seconds=60)
    assert picture(root) == before
    assert commands.calls[-1][:2] == ["systemctl", "stop"]
    assert list((tmp_path / "rollbacks").iterdir()) == []


def test_nothing_is_changed_when_the_timer_cannot_be_armed(populated: Any, apply: Any) -> None:
    root, wanted = populated
    before = picture(root)
    with pytest.raises(RollbackError, match=r"^The rollback timer can't be armed, so nothing was changed: no bus$"):
        apply(wanted, Commands(**{"systemd-run": (1, "", "no bus")}), confirm_seconds=60)
    assert picture(root) == before


# ----------------------------------------------------------------------------------------------------------- secrets


def test_a_sensitive_content_appears_nowhere(tmp_path: Path, apply: Any) -> None:
    (tmp_path / "x").write_text("token = oldsecretvalue\n")
    wanted = [spec(tmp_path / "x", "token = newsecretvalue\n", sensitive=True)]
    outcome = apply(wanted, check_mode=True)
    assert "secretvalue" not in repr(outcome)
    leaky = Commands(judge=(1, "line 1: token = newsecretvalue", "want: oldsecretvalue"))
    with pytest.raises(_files.FileError) as caught:
        apply(wanted, leaky, validate="judge %s")
    assert str(caught.value) == (
        f"{tmp_path}/x: 'judge %s' refused the new content (exit status 1): want: (hidden)\n"
        f"line 1: (hidden). Nothing was changed"
    )


@pytest.mark.parametrize(
    ("content", "shown"),
    [
        (b"\0\1", "(2 bytes, sha256 b413f47d13ee2fe6c845b2ee141af81de858df4ec549a58b7970bb96645bc8d2)\n"),
        (b"\xff\n", "\ufffd\n"),
        (b"text\n", "text\n"),
    ],
)
def test_a_diff_shows_text_and_counts_bytes(content: bytes, shown: str) -> None:
    wanted = _files.FileSpec("/x", "file", content, "root", "root", 0o644)
    change = _files.Change(wanted, _files.Current("absent"), True, ())
    assert _files.render_diff([change]) == [
        {"before_header": "/x (absent)", "after_header": "/x (file)", "before": "", "after": shown}
    ]


def test_a_content_that_is_on_the_host_already(tmp_path: Path) -> None:
    (tmp_path / "new.key").write_bytes(b"key")
    assert _files.host_content("/etc/x", str(tmp_path / "new.key"), check_mode=False) == b"key"
    assert _files.host_content("/etc/x", str(tmp_path / "absent"), check_mode=True) == b""


@pytest.mark.parametrize(("name", "kind"), [("absent", "absent"), (".", "directory")])
def test_a_source_on_the_host_that_is_no_file(tmp_path: Path, name: str, kind: str) -> None:
    path = os.path.normpath(tmp_path / name)
    with pytest.raises(_files.FileError) as caught:
        _files.host_content("/etc/x", path, check_mode=False)
    assert str(caught.value) == f"/etc/x: its host_source {path} is {kind}, wanted a file on this host"
