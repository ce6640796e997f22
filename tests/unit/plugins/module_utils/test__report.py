# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from xml.etree import ElementTree

from ansible_collections.gpufleet.metal.plugins.module_utils._report import junit_xml

CHECKS = [
    {"host": "gw-1", "name": "tls", "passed": False, "message": "found TLSv1.2\nwanted TLSv1.3 & <nothing> older"},
    {"host": "gpu-1", "name": "vllm", "passed": True, "message": ""},
]


def test_counts_and_sorts_checks_and_keeps_messages() -> None:
    suite = ElementTree.fromstring(junit_xml(CHECKS, "verify")).find("testsuite")
    assert suite is not None
    assert suite.attrib == {"name": "verify", "tests": "2", "failures": "1", "errors": "0", "skipped": "0"}
    cases = suite.findall("testcase")
    assert [(case.get("classname"), case.get("name")) for case in cases] == [("gpu-1", "vllm"), ("gw-1", "tls")]
    failure = cases[1].find("failure")
    assert failure is not None
    assert failure.get("message") == "found TLSv1.2"
    assert failure.text == CHECKS[0]["message"]


def test_same_checks_in_another_order_give_the_same_bytes() -> None:
    assert junit_xml(CHECKS, "verify") == junit_xml(reversed(CHECKS), "verify")


def test_characters_that_xml_cannot_carry_are_left_out() -> None:
    document = junit_xml([{"host": "h", "name": "n", "passed": False, "message": "\x1b[31mred\x00\ud800"}], "verify")
    failure = ElementTree.fromstring(document).find(".//failure")
    assert failure is not None
    assert failure.text == "[31mred"
