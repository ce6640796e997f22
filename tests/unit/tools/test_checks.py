# SPDX-License-Identifier: Apache-2.0
"""The checks find what they are for."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ansible_collections.gpufleet.metal.tools.checks import (
    ansible_test,
    copy_collection,
    dependencies,
    generated,
    lint,
    option_tables,
    repository,
    role_parts,
    role_specs,
    sizes,
    variables,
    words,
)


def option(**keys: Any) -> dict[str, Any]:
    """Return an option of an argument specification."""
    return {"type": "str", "description": "Something.", **keys}


def specs(**options: Any) -> dict[str, Any]:
    """Return entry points with these options of main."""
    return {"main": {"short_description": "Do it", "options": options}}


@pytest.mark.parametrize(
    ("defaults", "entry_points", "problems"),
    [
        ({"web_port": 80}, specs(web_port=option(type="int", default=80)), []),
        ({"web_name": None}, specs(web_name=option()), []),
        ({}, specs(web_key=option(required=True)), []),
        ({}, {}, ["meta/argument_specs.yml has no entry point main"]),
        (
            {"web_port": 80},
            specs(web_port=option(default=81)),
            ["web_port is 80 in defaults/main.yml and 81 in meta/argument_specs.yml"],
        ),
        (
            {"web_up": 1, "web_names": [{"a": 1.0}]},
            specs(web_up=option(default=True), web_names=option(default=[{"a": 1}])),
            [
                "web_names is [{'a': 1.0}] in defaults/main.yml and [{'a': 1}] in meta/argument_specs.yml",
                "web_up is 1 in defaults/main.yml and True in meta/argument_specs.yml",
            ],
        ),
        (
            {"web_port": 80},
            specs(web_port=option()),
            ["web_port is 80 in defaults/main.yml and None in meta/argument_specs.yml"],
        ),
        ({"web_new": 1}, specs(), ["web_new is in defaults/main.yml and not in meta/argument_specs.yml"]),
        ({}, specs(web_old=option()), ["web_old is in meta/argument_specs.yml and not in defaults/main.yml"]),
        (
            {"web_key": ""},
            specs(web_key=option(required=True)),
            ["web_key is required, so it must not have a value in defaults/main.yml"],
        ),
        ({"port": 1}, specs(port=option(default=1)), ["port does not begin with web_"]),
        (
            {"web_x": None},
            specs(web_x={"type": "dict", "description": "X.", "options": {"y": {"type": "int"}}}),
            ["main: option web_x.y has no description"],
        ),
        (
            {},
            {**specs(), "verify": {"short_description": "Prove it", "options": {"web_z": option()}}},
            ["web_z is in meta/argument_specs.yml and not in defaults/main.yml"],
        ),
        (
            {"web_z": None},
            {
                **specs(web_z=option()),
                "verify": {"short_description": "Prove it", "options": {"web_z": option(choices=["a"])}},
            },
            ["web_z of entry point verify has another choices than in another entry point"],
        ),
    ],
)
def test_defaults_and_specification(
    defaults: dict[str, Any], entry_points: dict[str, Any], problems: list[str]
) -> None:
    assert role_specs.problems_of("web", defaults, entry_points) == problems


def write(root: Path, files: dict[str, str]) -> Path:
    """Write files below a directory and return it."""
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return root


WEB = {
    "roles/web/README.md": "web",
    "roles/web/meta/argument_specs.yml": "argument_specs: {main: {}, verify: {}}",
    "roles/web/tasks/verify.yml": "[]",
    "molecule/web/broken_input.yml": "[]",
    "molecule/web/converge.yml": "[]",
    "molecule/web/hosts.yml": "{}",
    "molecule/web/molecule.yml": "{}",
    "molecule/web/verify.yml": "- include_role:\n    name: gpufleet.metal.web\n    tasks_from: verify\n",
}


@pytest.mark.parametrize(
    ("change", "scenario", "problems"),
    [
        ({}, "web", []),
        (
            {"roles/web/tasks/verify.yml": None, "roles/web/meta/argument_specs.yml": "argument_specs: {main: {}}"},
            "web",
            ["lacks an entry point verify in meta/argument_specs.yml", "lacks tasks/verify.yml"],
        ),
        ({"molecule/web/broken_input.yml": None}, "web", ["lacks molecule/web/broken_input.yml"]),
        (
            {"molecule/web/verify.yml": "curl: web"},
            "web",
            ["is not proved by its own verification in molecule/web/verify.yml"],
        ),
        ({}, "default", ["has no stage that runs its scenario"]),
    ],
)
def test_parts_of_a_role(change: dict[str, str | None], scenario: str, problems: list[str], tmp_path: Path) -> None:
    write(tmp_path, {name: text for name, text in {**WEB, **change}.items() if text is not None})
    commands = [["molecule", "test", "--scenario-name", scenario]]
    found = role_parts.problems_of(tmp_path / "roles" / "web", tmp_path / "molecule" / "web", commands)
    assert found == [f"roles/web {problem}" for problem in problems]


def test_git_says_why_it_lists_nothing(tmp_path: Path) -> None:
    with pytest.raises(repository.CheckError, match=r"^git -C .* ended with 128: fatal: not a git repository"):
        repository.tracked_files(tmp_path)


def test_no_role_is_no_good_news(tmp_path: Path) -> None:
    with pytest.raises(repository.CheckError, match=r"found no role$"):
        repository.roles(tmp_path)


def test_variables_come_from_expressions(tmp_path: Path) -> None:
    role = write(
        tmp_path / "web",
        {
            "defaults/main.yml": "web_port: 80\nweb_unused: 1\nweb_by_name: 2\n_web_never: 3\n",
            "vars/main.yml": "__web_service: nginx\n",
            "meta/argument_specs.yml": "argument_specs: {main: {options: {web_key: {required: true}}}}",
            "tasks/main.yml": (
                "- web_server_module: {name: '{{ __web_service }}', port: '{{ web_port | int }}'}\n"
                "  register: __web_result\n"
                "  when: web_key is defined and __web_result is changed and web_port is a.b.c\n"
                "- debug: {msg: \"{{ lookup('vars', 'web_by_name') }} {{ __web_item }} {{ web_typo }}\"}\n"
                "  loop_control: {loop_var: __web_item}\n"
            ),
        },
    )
    assert variables.problems_of(role) == [
        "_web_never is defined and nothing in the role uses it",
        "web_unused is defined and nothing in the role uses it",
        "web_typo is used and nothing in the role defines it",
    ]


def test_templates_are_read_too(tmp_path: Path) -> None:
    role = write(
        tmp_path / "web",
        {
            "defaults/main.yml": "web_hosts: []\n",
            "templates/web.conf.j2": "{% for host in web_hosts %}{{ host }}{% endfor %}{{ web_gone }}",
        },
    )
    assert variables.problems_of(role) == ["web_gone is used and nothing in the role defines it"]


def test_broken_template_is_named(tmp_path: Path) -> None:
    role = write(tmp_path / "web", {"templates/web.conf.j2": "{% if %}"})
    with pytest.raises(repository.CheckError, match=re.escape("web/templates/web.conf.j2: ")):
        variables.problems_of(role)


def test_option_table() -> None:
    options = specs(
        web_port=option(type="int", default=80, description=["The port.", "Not V(0)|1."]),
        web_hosts=option(
            type="list", elements="dict", default=[], options={"name": option(required=True), "up": option(type="bool")}
        ),
        web_mode=option(choices=["a", "b"], default="a"),
        web_long=option(default="x" * 70),
    )["main"]["options"]
    assert option_tables.table(options).splitlines() == [
        "| Variable | Type | Default | What it is |",
        "|---|---|---|---|",
        "| `web_hosts` | list of dict | `[]` | Something. |",
        "| `web_hosts[].name` | str | **required** | Something. |",
        "| `web_hosts[].up` | bool |  | Something. |",
        "| `web_long` | str | see defaults/main.yml | Something. |",
        "| `web_mode` | str: `a`, `b` | `a` | Something. |",
        "| `web_port` | int | `80` | The port. Not `0`\\|1. |",
    ]


def test_role_without_options() -> None:
    assert option_tables.table({}) == "This role has no options."


def test_generated_part_keeps_the_prose() -> None:
    text = "# web\n\n<!-- a:start -->\nold\n<!-- a:end -->\n\nMore.\n"
    new = generated.between("a", text, "| new |")
    assert new == "# web\n\n<!-- a:start -->\n| new |\n<!-- a:end -->\n\nMore.\n"
    assert generated.between("a", new, "| new |") == new


@pytest.mark.parametrize("text", ["", "<!-- a:start -->", "<!-- a:end --><!-- a:start -->", "<!-- a:start -->" * 2])
def test_generated_part_needs_its_markers(text: str) -> None:
    with pytest.raises(repository.CheckError, match=r"^needs one line <!-- a:start --> and, below it, one line"):
        generated.between("a", text, "")


def test_generated_file_is_compared_and_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "list.md"

    def differences(write: bool, wanted: Callable[[str], str] = lambda __: "one") -> list[str]:
        return generated.differences("lists", path, "lists.py", wanted, write, root=tmp_path)

    assert differences(False) == ["list.md differs from lists.py; run `python -m tools.checks.lists --write`"]
    assert not path.exists(), "a check writes nothing"
    assert differences(True) == []
    assert capsys.readouterr().out == "list.md: written\n"
    assert path.read_text(encoding="utf-8") == "one"
    assert differences(False, wanted=lambda old: old) == []
    assert differences(True, wanted=lambda old: generated.between("a", old, "")) == [
        "list.md needs one line <!-- a:start --> and, below it, one line <!-- a:end -->"
    ]


@pytest.mark.parametrize("arguments", [[], ["--check", "--write"], ["--all"]])
def test_generated_files_are_checked_or_written(arguments: list[str]) -> None:
    with pytest.raises(SystemExit):
        generated.wants_writing("lists", arguments)
    assert generated.wants_writing("lists", ["--write"])
    assert not generated.wants_writing("lists", ["--check"])


@pytest.mark.parametrize(
    ("measured", "problems"),
    [
        (sizes.Sizes("web", 60, "install.yml", 120, 40), []),
        (
            sizes.Sizes("web", 61, "install.yml", 121, 41),
            [
                "roles/web: tasks/main.yml has 61 lines; 60 are the budget",
                "roles/web: tasks/install.yml has 121 lines; 120 are the budget",
                "roles/web: defaults has 41 names; 40 are the budget: a dict option or a role is missing",
            ],
        ),
    ],
)
def test_size_budget(measured: sizes.Sizes, problems: list[str]) -> None:
    assert sizes.excesses(measured) == problems


def test_dependencies_are_the_used_ones() -> None:
    used = dependencies.used_collections(
        {
            "roles/a/tasks/main.yml": "community.crypto.x509_certificate:\nansible.builtin.copy:\n",
            "plugins/modules/b.py": "from ansible.module_utils.basic import AnsibleModule",
        }
    )
    assert used == {"community.crypto": "roles/a/tasks/main.yml"}
    assert dependencies.problems_of(used, {"ansible.posix": ">=2.0.0"}, {}) == [
        "roles/a/tasks/main.yml uses community.crypto, which galaxy.yml does not name",
        "galaxy.yml names ansible.posix, which nothing uses",
        "galaxy.yml wants {'ansible.posix': '>=2.0.0'} and requirements.yml wants {}",
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("see https://known~.net/page and http://192.0.2.7/x and https://a.example.com", []),
        ("url: https://mirror~.a.net/debian", ["a host that tools/checks/hosts.txt does not name: mirror.a.net"]),
        ("path: /wor~k/main", ["a path of one developer's machine: /wor~k/"]),
        ("path: /srv/wor~k/main", []),
        ("# TO~DO: later", ["unfinished by its own words: TO~DO"]),
        ("failed_when: fal~se", ["an error is swallowed and no comment says why: failed_when: fal~se"]),
        ("# Absence is an answer here.\nfailed_when: fal~se", []),
        ("rm x || tr~ue  # it may be gone already", []),
        ("that: true", ["a check that cannot fail: that: true"]),
    ],
)
def test_words(text: str, expected: list[str]) -> None:
    # The tilde keeps these lines from being findings themselves.
    found = dict(words.findings(text.replace("~", ""), {"known.net"}))
    assert list(found.values()) == [what.replace("~", "") for what in expected]


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("roles/a/tasks/main.yml", "---\n# SPDX-License-Identifier: Apache-2.0\n", False),
        ("roles/a/tasks/main.yml", "---\n", True),
        ("plugins/module_utils/__init__.py", "", False),
        ("plugins/modules/a.py", "# SPDX-License-Identifier: Apache-2.0 OR GPL-3.0-or-later\n", False),
        ("tests/unit/fixtures/a.yml", "x", False),
        ("inventories/a/host_vars/b/gpu_inventory.yml", "x", False),
        ("README.md", "x", False),
        (".ci/run", "make test", True),
    ],
)
def test_licence_line(name: str, text: str, expected: bool) -> None:
    assert words.lacks_licence(name, text) is expected


def test_copy_is_exact_and_keeps_what_tools_wrote(tmp_path: Path) -> None:
    source = write(tmp_path / "source", {"a.txt": "1", "d/b.txt": "2", "ignored.txt": "3"})
    target = tmp_path / "target"
    target.mkdir()
    assert copy_collection.synchronize(source, target, ["a.txt", "d/b.txt"]) == (2, 0)
    assert copy_collection.synchronize(source, target, ["a.txt", "d/b.txt"]) == (0, 0)
    write(target, {"tests/output/report.xml": "kept", "old/stale.txt": "gone"})
    (source / "a.txt").write_text("4", encoding="utf-8")
    assert copy_collection.synchronize(source, target, ["a.txt"]) == (1, 2)
    assert sorted(path.relative_to(target).as_posix() for path in target.rglob("*") if path.is_file()) == [
        "a.txt",
        "tests/output/report.xml",
    ]
    assert (target / "a.txt").read_text(encoding="utf-8") == "4"


def test_get_pip_is_written_once(tmp_path: Path) -> None:
    assert [path.name for path in ansible_test.write_get_pip(tmp_path)] == list(ansible_test.GET_PIP_NAMES)
    assert ansible_test.write_get_pip(tmp_path) == []


def test_ignore_list_is_empty(tmp_path: Path) -> None:
    assert ansible_test.sanity_ignores(tmp_path) == []
    write(tmp_path, {"tests/sanity/ignore-2.19.txt": "plugins/a.py pylint:x\n"})
    assert ansible_test.sanity_ignores(tmp_path) == ["tests/sanity/ignore-2.19.txt:1: plugins/a.py pylint:x"]


PLAY = "- hosts: localhost\n  tasks:\n    - ansible.builtin.debug:\n"
BROKEN = "- hosts: localhost\n  tasks:\n    - ansible.builtin.debugging:\n"


@pytest.mark.parametrize(
    ("playbook", "tasks", "loads"),
    [
        (PLAY, "- ansible.builtin.debug:\n", True),
        (BROKEN, "- ansible.builtin.debug:\n", False),
        (PLAY, "- ansible.builtin.debugging:\n", False),
    ],
    ids=["well", "a playbook", "a role"],
)
def test_syntax_of_all_at_once(tmp_path: Path, playbook: str, tasks: str, loads: bool) -> None:
    """A fault in any file has ansible-lint ask one by one; without one it also knows what an import may name."""
    root = write(tmp_path, {"good.yml": PLAY, "other.yml": playbook, "roles/web/tasks/main.yml": tasks})
    asked: list[str] = []

    class Runtime:
        environ = os.environ

        def has_playbook(self, playbook: str, *, basedir: Path | None = None) -> bool:
            asked.append(playbook)
            return False

    class Runner:
        app = SimpleNamespace(runtime=Runtime())

        def _map_syntax_check_workers(self, worker: Callable[[Any], str], files: list[Any]) -> list[str]:
            return [worker(file) for file in files]

    lint.check_syntax_at_once(Runner)
    kinds = {"good.yml": "playbook", "other.yml": "playbook", "roles/web": "role", "hosts.yml": "inventory"}
    files = [SimpleNamespace(path=root / name, kind=kind) for name, kind in kinds.items()]
    found = Runner()._map_syntax_check_workers(lambda file: str(file.kind), files)
    assert found == ([] if loads else list(kinds.values()))
    has_playbook = Runner.app.runtime.has_playbook
    assert has_playbook(str(root / "roles" / ".." / "good.yml")) is loads
    assert has_playbook("good.yml", basedir=root) is loads
    assert has_playbook("absent.yml") is False
    assert asked == (["absent.yml"] if loads else [str(root / "roles" / ".." / "good.yml"), "good.yml", "absent.yml"])
