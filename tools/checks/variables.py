# SPDX-License-Identifier: Apache-2.0
"""Find the variables of a role that nothing uses, and the uses of variables that nothing defines.

Names are taken from parsed Jinja expressions, not from text, so a module called `docker_image` is no use of a variable.
Only names with the role's own prefix (`nginx_x`, `_nginx_x`, `__nginx_x`) are judged.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jinja2
import jinja2.meta

from .repository import CheckError, load_yaml, report, roles
from .role_specs import defaults_of, entry_points_of, options_of

#: Keys whose whole value is an expression, without braces.
EXPRESSIONS = frozenset({"when", "that", "until", "failed_when", "changed_when", "var"})
QUOTED_NAME = re.compile(r"['\"](_{0,2}[a-z][a-z0-9_]+)['\"]")


class AnyName(dict[str, Any]):
    """Knows every filter and test, as Ansible's may come from any collection."""

    def get(self, key: str, default: Any = None) -> Any:
        """Return what stands for the filter or test of this name."""
        return super().get(key, str)


ENVIRONMENT = jinja2.Environment(extensions=["jinja2.ext.do", "jinja2.ext.loopcontrols"], autoescape=True)
ENVIRONMENT.filters = AnyName(ENVIRONMENT.filters)
ENVIRONMENT.tests = AnyName(ENVIRONMENT.tests)


def names_in(template: str, where: str) -> set[str]:
    """Return the variables that a template reads, and the names that it mentions in quotes (`lookup('vars', 'x')`)."""
    try:
        tree = ENVIRONMENT.parse(template)
    except jinja2.TemplateSyntaxError as error:
        raise CheckError(f"{where}: {error.message}") from error
    quoted = {
        name
        for expression in re.findall(r"\{[{%].*?[%}]\}", template, flags=re.DOTALL)
        for name in QUOTED_NAME.findall(expression)
    }
    return jinja2.meta.find_undeclared_variables(tree) | quoted


def strings(value: Any, expression: bool = False) -> Iterator[str]:
    """Yield every string inside a YAML value as a template; expressions get their braces."""
    if isinstance(value, str):
        yield "{{ " + value + " }}" if expression and "{{" not in value and "{%" not in value else value
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield from strings(key)
            yield from strings(inner, key in EXPRESSIONS)
    elif isinstance(value, list):
        for inner in value:
            yield from strings(inner, expression)


def local_names(value: Any) -> Iterator[str]:
    """Yield the names that tasks define: registers, loop variables, facts and a task's own vars."""
    if isinstance(value, dict):
        for key, inner in value.items():
            if key in ("register", "loop_var", "index_var") and isinstance(inner, str):
                yield inner
            elif key in ("vars", "ansible.builtin.set_fact") and isinstance(inner, dict):
                yield from (name for name in inner if name != "cacheable")
            yield from local_names(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from local_names(inner)


def judge(role_name: str, defined: set[str], used: set[str]) -> list[str]:
    """Return a sentence for each name with the role's prefix that is only defined or only used."""
    own = re.compile(rf"_{{0,2}}{re.escape(role_name)}_[a-z0-9_]+")
    problems = [
        f"{name} is defined and nothing in the role uses it" for name in sorted(defined - used) if own.fullmatch(name)
    ]
    problems.extend(
        f"{name} is used and nothing in the role defines it" for name in sorted(used - defined) if own.fullmatch(name)
    )
    return problems


#: "Sets the fact C(role_x)" in the description of an entry point.
ANNOUNCED = re.compile(r"Sets the fact C\(([a-z0-9_]+)\)")


def problems_of(role: Path) -> list[str]:
    """Return the unused and the undefined variables of a role."""
    defined = set(defaults_of(role))
    for point in entry_points_of(role).values():
        defined |= set(options_of(point))
    # What an entry point sets for whoever runs it is announced in its description.
    used = {
        name for point in entry_points_of(role).values() for name in ANNOUNCED.findall(str(point.get("description")))
    }
    for path in sorted(role.rglob("*")):
        kind = path.relative_to(role).parts[0]
        where = f"{role.name}/{path.relative_to(role)}"
        if kind in ("tasks", "handlers", "defaults", "vars") and path.suffix == ".yml":
            content = load_yaml(path)
            if kind in ("defaults", "vars"):
                defined |= set(content or {})
            else:
                defined |= set(local_names(content))
            for text in strings(content):
                used |= names_in(text, where)
        elif kind == "templates" and path.is_file():
            used |= names_in(path.read_text(encoding="utf-8"), where)
    return judge(role.name, defined, used)


def main() -> int:
    """Check every role."""
    problems: list[str] = []
    for role in roles():
        try:
            problems.extend(f"roles/{role.name}: {problem}" for problem in problems_of(role))
        except CheckError as error:
            problems.append(str(error))
    return report("variables", problems, f"{len(roles())} roles define what they use and use what they define")


if __name__ == "__main__":
    sys.exit(main())
