# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.gpufleet.metal.plugins.module_utils import _pki
from ansible_collections.gpufleet.metal.plugins.module_utils._errors import InvalidInputError

NAMES = ["DNS:llm.example.org", "IP:198.51.100.13"]
KEY = {"sha256": "aa:bb", "sha512": "cc:dd"}
AUTHORITY = {"subject_key_identifier": "01:02", "not_after": "20360101000000Z"}
LEAF: dict[str, Any] = {
    "subject": {"commonName": "llm.example.org"},
    "subject_alt_name": ["DNS:llm.example.org", "IP:198.51.100.13"],
    "public_key_fingerprints": KEY,
    "authority_key_identifier": "01:02",
    "not_before": "20260101000000Z",
    "not_after": "20260401000000Z",
}


@pytest.mark.parametrize(
    ("names", "normal"),
    [
        (["DNS:LLM.Example.org", "dns:llm.example.org"], ["DNS:llm.example.org"]),
        (["IP:2001:0DB8::0:1", "IP Address:198.51.100.13"], ["IP:198.51.100.13", "IP:2001:db8::1"]),
        (["DNS:*.example.org", "DNS:localhost"], ["DNS:*.example.org", "DNS:localhost"]),
    ],
)
def test_names_have_one_form(names: list[str], normal: list[str]) -> None:
    assert _pki.normal_names(names) == normal


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ([], "pki_subject_alt_names is empty, wanted at least one DNS:<host name> or IP:<address>"),
        (["llm.example.org"], "pki_subject_alt_names: 'llm.example.org' is neither DNS:<host name> nor IP:<address>"),
        (["DNS:a_b"], "pki_subject_alt_names: 'DNS:a_b' is neither DNS:<host name> nor IP:<address>"),
        (["DNS:a.*.b"], "pki_subject_alt_names: 'DNS:a.*.b' is neither DNS:<host name> nor IP:<address>"),
        (["IP:198.51.100.300"], "pki_subject_alt_names: 'IP:198.51.100.300' holds no IP literal"),
        (["URI:https://x"], "pki_subject_alt_names: 'URI:https://x' is neither DNS:<host name> nor IP:<address>"),
    ],
)
def test_a_wrong_name_is_named(names: list[str], message: str) -> None:
    with pytest.raises(InvalidInputError) as caught:
        _pki.normal_names(names)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("patterns", "name", "covered"),
    [
        (["DNS:a.example.org"], "DNS:a.example.org", True),
        (["DNS:*.example.org"], "DNS:a.example.org", True),
        (["DNS:*.example.org"], "DNS:example.org", False),
        (["DNS:*.example.org"], "DNS:a.b.example.org", False),
        (["DNS:*"], "DNS:localhost", False),
        (["IP:198.51.100.13"], "DNS:198.51.100.13", False),
    ],
)
def test_a_wildcard_covers_one_label(patterns: list[str], name: str, covered: bool) -> None:
    assert _pki.covers(patterns, name) is covered


REASONS: list[tuple[str, dict[str, Any] | None, dict[str, Any], list[str]]] = [
    ("as wanted", LEAF, {}, []),
    ("in another order and form", {**LEAF, "subject_alt_name": ["IP:198.51.100.13", "DNS:LLM.example.org"]}, {}, []),
    ("none", None, {}, ["there is no certificate yet"]),
    (
        "a name less",
        {**LEAF, "subject_alt_name": ["DNS:llm.example.org", "email:a@b.example"]},
        {},
        ["its names are DNS:llm.example.org, wanted DNS:llm.example.org, IP:198.51.100.13"],
    ),
    (
        "no names",
        {**LEAF, "subject_alt_name": None},
        {},
        ["its names are none, wanted DNS:llm.example.org, IP:198.51.100.13"],
    ),
    (
        "another common name",
        {**LEAF, "subject": {"commonName": "x"}},
        {},
        ["its common name is x, wanted llm.example.org"],
    ),
    ("no key", LEAF, {"key_fingerprints": None}, ["it does not belong to the private key"]),
    (
        "another key",
        LEAF,
        {"key_fingerprints": {"sha256": "ff", "sha512": "cc:dd"}},
        ["it does not belong to the private key"],
    ),
    ("no digest in common", LEAF, {"key_fingerprints": {"md5": "1"}}, ["it does not belong to the private key"]),
    ("no authority", LEAF, {"authority": None}, ["another authority signed it"]),
    ("another authority", LEAF, {"authority": {"subject_key_identifier": "09"}}, ["another authority signed it"]),
    ("a second before two thirds", LEAF, {"now": "20260301235959Z"}, []),
    ("two thirds", LEAF, {"now": "20260302000000Z"}, ["two thirds of its life ended on 2026-03-02 00:00 UTC"]),
    ("expired", LEAF, {"now": "20270101000000Z"}, ["two thirds of its life ended on 2026-03-02 00:00 UTC"]),
    ("shorter wanted", LEAF, {"days": 30}, ["it is valid for 90 days, wanted 30"]),
    ("longer wanted, at the next renewal", LEAF, {"days": 365}, []),
]


@pytest.mark.parametrize(("case", "info", "change", "reasons"), REASONS, ids=[case[0] for case in REASONS])
def test_why_a_leaf_is_issued_anew(
    case: str, info: dict[str, Any] | None, change: dict[str, Any], reasons: list[str]
) -> None:
    given: dict[str, Any] = {
        "names": NAMES,
        "common_name": "llm.example.org",
        "key_fingerprints": KEY,
        "authority": AUTHORITY,
        "days": 90,
        "now": "20260115000000Z",
    }
    assert _pki.reissue_reasons(info, **{**given, **change}) == reasons


@pytest.mark.parametrize(
    ("now", "faults"),
    [
        ("20351001000000Z", []),
        (
            "20351101000000Z",
            [
                "the authority ends on 2036-01-01 00:00 UTC, before a certificate of 90 days would; make a new one in "
                "another pki_directory and give it to every client first"
            ],
        ),
    ],
)
def test_an_authority_outlives_what_it_signs(now: str, faults: list[str]) -> None:
    assert _pki.authority_faults(AUTHORITY, 90, now) == faults


PROVIDED: list[tuple[str, dict[str, Any], dict[str, Any], list[str]]] = [
    ("as wanted", LEAF, {}, []),
    ("by a wildcard", {**LEAF, "subject_alt_name": ["DNS:*.example.org", "IP:198.51.100.13"]}, {}, []),
    (
        "everything wrong",
        {**LEAF, "subject_alt_name": ["DNS:other.example.org"]},
        {"key_fingerprints": {"sha256": "ff"}, "now": "20260401000000Z"},
        [
            "it does not cover DNS:llm.example.org, IP:198.51.100.13 (it covers DNS:other.example.org)",
            "it does not belong to the key in pki_provided_key_path",
            "it expired on 2026-04-01 00:00 UTC",
        ],
    ),
    ("not yet", LEAF, {"now": "20251231235959Z"}, ["it is not valid before 2026-01-01 00:00 UTC"]),
]


@pytest.mark.parametrize(("case", "info", "change", "faults"), PROVIDED, ids=[case[0] for case in PROVIDED])
def test_what_is_wrong_with_a_provided_certificate(
    case: str, info: dict[str, Any], change: dict[str, Any], faults: list[str]
) -> None:
    given: dict[str, Any] = {"names": NAMES, "key_fingerprints": KEY, "now": "20260115000000Z"}
    assert _pki.provided_faults(info, **{**given, **change}) == faults
