# SPDX-License-Identifier: Apache-2.0
"""Filter shell over module_utils/_report.py."""

from __future__ import annotations

from typing import Any

from ansible_collections.gpufleet.metal.plugins.module_utils._report import junit_xml

DOCUMENTATION = r"""
name: junit_xml
short_description: Render the checks of a verification run as JUnit XML
version_added: 0.1.0
description:
  - Turns a list of checks into the XML that CI systems read as test results. Hosts become class names.
  - The output is sorted.
author:
  - gpufleet.metal contributors (@gpufleet)
positional: suite
options:
  _input:
    description: "The checks: dictionaries with V(host), V(name), V(passed) (bool) and V(message)."
    type: list
    elements: dict
    required: true
  suite:
    description: Name of the test suite.
    type: str
    default: gpufleet.metal
"""

EXAMPLES = r"""
- name: Write the results for CI
  ansible.builtin.copy:
    content: "{{ verify_checks | gpufleet.metal.junit_xml('verify') }}"
    dest: junit.xml
    mode: "0644"
"""

RETURN = r"""
_value:
  description: The XML document.
  type: str
"""


class FilterModule:
    """Ansible's entry point for filters."""

    def filters(self) -> dict[str, Any]:
        """The filters of this file by name."""
        return {"junit_xml": lambda checks, suite="gpufleet.metal": junit_xml(list(checks), str(suite))}
