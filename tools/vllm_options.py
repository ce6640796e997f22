# SPDX-License-Identifier: Apache-2.0
"""Write the table of vLLM's options that the plan checks arguments against.

    vllm serve --help=all | tools/vllm_options.py --version 0.32.0 \
      > plugins/module_utils/_plan/vllm_options.py

`vllm serve --help=all` needs no GPU. Do this when the collection's minimum engine version changes.
"""

from __future__ import annotations

import argparse
import re
import sys

HEADER = '''\
# SPDX-License-Identifier: Apache-2.0
# PRIVATE to the collection: do not import this from outside, it may change without notice.
"""The options of `vllm serve` {version}: written by tools/vllm_options.py from `vllm serve --help=all`. Do not edit."""

from __future__ import annotations

#: The version that the tables describe.
VERSION = "{version}"

'''


def parse(text: str) -> tuple[dict[str, str], dict[str, str], dict[str, tuple[str, ...]]]:
    """Return (option -> kind, alias -> option, option -> choices) of a help text.

    Kinds: ``flag`` takes no value, ``switch`` also has a ``--no-`` form, ``value`` takes one value, ``values`` several.
    """
    options: dict[str, str] = {}
    aliases: dict[str, str] = {}
    choices: dict[str, tuple[str, ...]] = {}
    for line in text.splitlines():
        if not re.match(r"  (-[a-z]+, )?--[a-z0-9]", line):
            continue
        # Two spaces separate an option's names from its help; choices contain no space within braces.
        names = re.split(r"(?<=\S)\s{2,}(?=\S)", line.strip())[0]
        longs = re.findall(r"(?:^|, )--([a-z0-9][a-z0-9_-]*)", re.sub(r"\{[^}]*\}", "X", names))
        value = re.search(r"--[a-z0-9_-]+ (\S.*)$", names.split(", --")[0].split(", -")[0])
        canonical = longs[0]
        if canonical == "help":
            continue
        if len(longs) > 1 and longs[1] == f"no-{canonical}":
            options[canonical] = "switch"
        elif value is None:
            options[canonical] = "flag"
        else:
            options[canonical] = "values" if "..." in value[1] else "value"
            found = re.fullmatch(r"\{([^}]*)\}", value[1])
            if found:
                choices[canonical] = tuple(choice for choice in found[1].split(",") if choice != "None")
            listed = re.fullmatch(r"\[('[^']*'(?:, '[^']*')*)\]", value[1])
            if listed:
                choices[canonical] = tuple(re.findall(r"'([^']*)'", listed[1]))
        for alias in longs[1:]:
            if alias != f"no-{canonical}":
                aliases[alias] = canonical
    return options, aliases, choices


def main() -> int:
    """Read a help text from standard input and write the module to standard output."""
    parser = argparse.ArgumentParser(description="Turn `vllm serve --help=all` into the plan's table of options.")
    parser.add_argument("--version", required=True, help="the version of vLLM that printed the help text")
    version = parser.parse_args().version
    options, aliases, choices = parse(sys.stdin.read())
    if len(options) < 200:
        print(f"only {len(options)} options found: is this the output of `vllm serve --help=all`?", file=sys.stderr)
        return 1
    out = [HEADER.format(version=version)]
    out.append("#: Option -> flag (no value), switch (also --no-...), value (one value), values (several).\n")
    out.append("OPTIONS = {\n" + "".join(f'    "{k}": "{options[k]}",\n' for k in sorted(options)) + "}\n\n")
    out.append("#: Other spelling -> option.\n")
    out.append("ALIASES = {\n" + "".join(f'    "{k}": "{aliases[k]}",\n' for k in sorted(aliases)) + "}\n\n")
    out.append("#: Option -> the only values that its parser takes.\n")
    out.append("CHOICES: dict[str, tuple[str, ...]] = {\n")
    for key in sorted(choices):
        line = f'    "{key}": (' + ", ".join(f'"{c}"' for c in choices[key]) + ("," if len(choices[key]) == 1 else "")
        if len(line) + 2 <= 120:
            out.append(f"{line}),\n")
        else:
            out.append(f'    "{key}": (\n' + "".join(f'        "{c}",\n' for c in choices[key]) + "    ),\n")
    out.append("}\n")
    sys.stdout.write("".join(out))
    return 0


if __name__ == "__main__":
    sys.exit(main())
