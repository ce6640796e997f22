# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from typing import Any

import pytest
from ansible.errors import AnsibleFilterError

from ansible_collections.gpufleet.metal.plugins.filter.nginx_build import (
    CLASSICAL_CURVES,
    HYBRID_CURVES,
    FilterModule,
    build,
)
from ansible_collections.gpufleet.metal.plugins.module_utils._errors import InvalidInputError

ASSUMED = {"version": "1.30.1", "openssl": "3.0.0"}

CASES: list[tuple[str, str, tuple[str, str, str, bool, bool, bool]]] = [
    # what it is, output, (version, openssl, curves, http2 directive, keepalive_min_timeout, rotates ticket keys)
    (
        "bookworm",
        "nginx version: nginx/1.22.1\nbuilt with OpenSSL 3.0.8 7 Feb 2023 (running with OpenSSL 3.0.20 1 Apr 2026)\n",
        ("1.22.1", "3.0.20", CLASSICAL_CURVES, False, False, False),
    ),
    (
        "trixie",
        "nginx version: nginx/1.26.3\nbuilt with OpenSSL 3.5.0 8 Apr 2025 (running with OpenSSL 3.5.9 1 Apr 2026)\n",
        ("1.26.3", "3.5.9", HYBRID_CURVES, True, False, True),
    ),
    (
        "Ubuntu, which adds its own word to the name",
        "nginx version: nginx/1.24.0 (Ubuntu)\nbuilt with OpenSSL 3.0.13 30 Jan 2024\nTLS SNI support enabled\n",
        ("1.24.0", "3.0.13", CLASSICAL_CURVES, False, False, True),
    ),
    (
        "nginx.org on a distribution that moved to a newer library",
        "nginx version: nginx/1.30.6\nbuilt with OpenSSL 3.0.17 1 Jul 2025 (running with OpenSSL 3.5.4 30 Sep 2025)\n",
        ("1.30.6", "3.5.4", HYBRID_CURVES, True, True, True),
    ),
    ("not installed yet", "\n", ("1.30.1", "3.0.0", CLASSICAL_CURVES, True, True, True)),
]


@pytest.mark.parametrize(("case", "output", "expected"), CASES, ids=[case[0] for case in CASES])
def test_what_a_binary_supports(case: str, output: str, expected: tuple[Any, ...]) -> None:
    keys = ("version", "openssl", "curves", "http2_directive", "keepalive_min_timeout", "rotates_ticket_keys")
    assert build(output, ASSUMED) == dict(zip(keys, expected, strict=True))


@pytest.mark.parametrize(
    ("output", "message"),
    [
        (
            "nginx version: nginx/1.26.3",
            "nginx -V names no version of OpenSSL, wanted both: 'nginx version: nginx/1.26.3'",
        ),
        ("built with OpenSSL 3.5.0", "nginx -V names no version of NGINX, wanted both: 'built with OpenSSL 3.5.0'"),
        (
            "nginx version: nginx/1.18.0 (Ubuntu)\nbuilt with OpenSSL 3.0.2 15 Mar 2022",
            "NGINX is 1.18.0, wanted 1.19.4 or newer, which can name TLS 1.3 suites; set nginx_repository to vendor",
        ),
        (
            "nginx version: nginx/1.20.1\nbuilt with OpenSSL 1.0.2 26 Jan 2017",
            "NGINX runs with OpenSSL 1.0.2, wanted 1.1.1 or newer, which has TLS 1.3; change nginx_repository",
        ),
    ],
)
def test_a_binary_that_does_not_do_is_named(output: str, message: str) -> None:
    with pytest.raises(InvalidInputError) as caught:
        build(output, ASSUMED)
    assert str(caught.value) == message


VENDORS = "nginx version: nginx/{}\nbuilt with OpenSSL 3.0.17 1 Jul 2025\n"


@pytest.mark.parametrize("version", ["1.30.7", "1.30.10", "1.32.0"])
def test_a_version_from_the_minimum_on_serves(version: str) -> None:
    assert build(VENDORS.format(version), ASSUMED, "1.30.7")["version"] == version


@pytest.mark.parametrize(
    ("version", "minimum", "message"),
    [
        (
            "1.30.6",
            "1.30.7",
            "NGINX is 1.30.6, wanted 1.30.7 or newer, which mends known vulnerabilities; "
            "upgrade the package nginx on this host, or lower nginx_minimum_version",
        ),
        ("1.30.7", "1.30", "nginx_minimum_version is '1.30', wanted a version such as 1.30.7"),
    ],
)
def test_a_version_with_known_vulnerabilities_is_refused(version: str, minimum: str, message: str) -> None:
    with pytest.raises(InvalidInputError) as caught:
        build(VENDORS.format(version), ASSUMED, minimum)
    assert str(caught.value) == message


def test_a_package_of_the_distribution_has_no_minimum() -> None:
    assert build(VENDORS.format("1.22.1"), ASSUMED, "")["version"] == "1.22.1"


def test_the_filter_translates_errors() -> None:
    call = FilterModule().filters()["nginx_build"]
    assert call("", assume=ASSUMED)["version"] == "1.30.1"
    with pytest.raises(AnsibleFilterError, match="names no version of OpenSSL"):
        call("nginx version: nginx/1.26.3", assume=ASSUMED)
