# SPDX-License-Identifier: Apache-2.0
"""Read what an installed NGINX is and can, from the output of ``nginx -V``."""

from __future__ import annotations

DOCUMENTATION = r"""
name: nginx_build
short_description: Tell what an NGINX binary supports
version_added: "0.1.0"
author: GPUFleet contributors (@gpufleet)
description:
  - Reads the output of C(nginx -V) and answers with the versions of NGINX and of the OpenSSL that it runs with, and
    with what these support.
positional: _input
options:
  _input:
    description: The output. An empty text stands for an NGINX that is not installed yet.
    type: str
    required: true
  assume:
    description: The C(version) and C(openssl) to assume for an empty text.
    type: dict
    required: true
  minimum:
    description:
      - The oldest version that may serve. Empty for none, as for a distribution's package, whose number says nothing
        about what was mended in it.
    type: str
    default: ""
"""

EXAMPLES = r"""
- name: Show which groups the gateway offers for the key exchange
  ansible.builtin.debug:
    msg: "{{ (__nginx_v.stdout | gpufleet.metal.nginx_build(assume=__nginx_assumed)).curves }}"
"""

RETURN = r"""
_value:
  description: >-
    A dictionary with C(version), C(openssl), C(curves), C(http2_directive), C(keepalive_min_timeout) and
    C(rotates_ticket_keys).
  type: dict
"""

import re
from collections.abc import Callable, Mapping
from typing import Any

from ansible.errors import AnsibleFilterError

from ansible_collections.gpufleet.metal.plugins.module_utils._errors import FleetError, InvalidInputError

CLASSICAL_CURVES = "X25519:prime256v1:secp384r1"
"""An OpenSSL older than 3.5 refuses a list that names a group it does not know."""

HYBRID_CURVES = f"X25519MLKEM768:{CLASSICAL_CURVES}"
"""Listed, because ``auto`` would also offer X448 and secp521r1, which Mozilla's modern profile forbids."""


def _version(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", text)[:3])


def build(output: str, assume: Mapping[str, str], minimum: str = "") -> dict[str, Any]:
    """Describe the binary.

    Raises InvalidInputError for an output without versions, one that is older than the minimum, or an OpenSSL without
    TLS 1.3.
    """
    if minimum and not re.fullmatch(r"\d+\.\d+\.\d+", minimum):
        raise InvalidInputError(f"nginx_minimum_version is {minimum!r}, wanted a version such as 1.30.7")
    if output.strip():
        nginx = re.search(r"nginx version: \S*?/(\d+\.\d+\.\d+)", output)
        openssl = re.search(r"running with OpenSSL (\d+\.\d+\.\d+)", output)
        openssl = openssl or re.search(r"built with OpenSSL (\d+\.\d+\.\d+)", output)
        if nginx is None or openssl is None:
            missing = "NGINX" if nginx is None else "OpenSSL"
            raise InvalidInputError(f"nginx -V names no version of {missing}, wanted both: {output.strip()!r}")
        version, library = nginx.group(1), openssl.group(1)
    else:
        version, library = assume["version"], assume["openssl"]
    if minimum and _version(version) < _version(minimum):
        raise InvalidInputError(
            f"NGINX is {version}, wanted {minimum} or newer, which mends known vulnerabilities; "
            f"upgrade the package nginx on this host, or lower nginx_minimum_version"
        )
    if _version(version) < (1, 19, 4):
        raise InvalidInputError(
            f"NGINX is {version}, wanted 1.19.4 or newer, which can name TLS 1.3 suites; set nginx_repository to vendor"
        )
    if _version(library) < (1, 1, 1):
        raise InvalidInputError(
            f"NGINX runs with OpenSSL {library}, wanted 1.1.1 or newer, which has TLS 1.3; change nginx_repository"
        )
    return {
        "version": version,
        "openssl": library,
        "curves": HYBRID_CURVES if _version(library) >= (3, 5) else CLASSICAL_CURVES,
        "http2_directive": _version(version) >= (1, 25, 1),
        "keepalive_min_timeout": _version(version) >= (1, 27, 4),
        "rotates_ticket_keys": _version(version) >= (1, 23, 2),
    }


def nginx_build(output: str, assume: Mapping[str, str], minimum: str = "") -> dict[str, Any]:
    """Shell of :func:`build` for Ansible."""
    try:
        return build(output, assume, minimum)
    except FleetError as fault:
        raise AnsibleFilterError(str(fault)) from fault


class FilterModule:
    """What Ansible loads."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return the filters of this file."""
        return {"nginx_build": nginx_build}
