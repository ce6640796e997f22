# SPDX-License-Identifier: Apache-2.0
# Note that this module util is PRIVATE to the collection. It can have breaking changes at any time.
"""The report of a verification run: a list of checks as JUnit XML, the format that CI systems read."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any
from xml.etree import ElementTree

# Characters that XML 1.0 cannot carry in any form (https://www.w3.org/TR/xml/#charsets), such as terminal colours.
_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def junit_xml(checks: Iterable[Mapping[str, Any]], suite: str) -> str:
    """Render checks (host, name, passed, message) as one JUnit test suite; hosts become class names.

    The output is sorted: the same checks give the same bytes.
    """
    ordered = sorted(checks, key=lambda check: (check["host"], check["name"]))
    failures = sum(not check["passed"] for check in ordered)
    root = ElementTree.Element("testsuites")
    counts = {"tests": str(len(ordered)), "failures": str(failures), "errors": "0", "skipped": "0"}
    node = ElementTree.SubElement(root, "testsuite", {"name": suite, **counts})
    for check in ordered:
        case = ElementTree.SubElement(node, "testcase", classname=check["host"], name=check["name"])
        message = _NOT_XML.sub("", str(check["message"]))
        if check["passed"]:
            ElementTree.SubElement(case, "system-out").text = message
        else:
            first_line = message.splitlines()[0] if message else ""
            ElementTree.SubElement(case, "failure", message=first_line).text = message
    ElementTree.indent(root)
    return '<?xml version="1.0" encoding="utf-8"?>\n' + ElementTree.tostring(root, encoding="unicode") + "\n"
