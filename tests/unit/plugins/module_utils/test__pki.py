# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from datetime import datetime
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

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
    "extended_key_usage": ["TLS Web Server Authentication"],
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
    ("for clients", LEAF, {"purposes": ["clientAuth"]}, ["it is for serverAuth, wanted clientAuth"]),
    (
        "for both",
        LEAF,
        {"purposes": ["serverAuth", "clientAuth"]},
        ["it is for serverAuth, wanted clientAuth, serverAuth"],
    ),
    (
        "for a client as wanted",
        {**LEAF, "extended_key_usage": ["TLS Web Client Authentication"]},
        {"purposes": ["clientAuth"]},
        [],
    ),
    (
        "for something else",
        {**LEAF, "extended_key_usage": ["Code Signing"]},
        {},
        ["it is for Code Signing, wanted serverAuth"],
    ),
    ("for anything", {**LEAF, "extended_key_usage": None}, {}, ["it is for no purpose, wanted serverAuth"]),
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
    ("as asked", LEAF, {"renew": True}, ["pki_renew asks for it"]),
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
    ("names", "asked"),
    [
        (["IP:198.51.100.13", "dns:LLM.example.org"], ["DNS:llm.example.org"]),
        (["DNS:*.example.org", "DNS:example.org"], ["DNS:*.example.org", "DNS:example.org"]),
    ],
)
def test_an_acme_authority_is_asked_for_host_names(names: list[str], asked: list[str]) -> None:
    assert _pki.acme_names(names) == asked


def test_no_host_name_for_an_acme_authority_is_said() -> None:
    with pytest.raises(InvalidInputError) as caught:
        _pki.acme_names(["IP:198.51.100.13"])
    assert str(caught.value) == (
        "pki_subject_alt_names holds IP:198.51.100.13, wanted at least one DNS:<host name>, because pki_source is acme "
        "and an ACME authority signs for what a record in DNS can prove"
    )


URL = "https://ca.example.org/directory"
ACME_LEAF = {**LEAF, "subject": {}, "subject_alt_name": ["DNS:llm.example.org"]}
ACME_REASONS: list[tuple[str, dict[str, Any] | None, dict[str, Any], list[str]]] = [
    ("as wanted, whatever the authority chose", {**ACME_LEAF, "extended_key_usage": None}, {}, []),
    ("none", None, {"renew": True}, ["there is no certificate yet"]),
    ("as asked", ACME_LEAF, {"renew": True}, ["pki_renew asks for it"]),
    ("of the fleet's own authority", ACME_LEAF, {"source": None}, [f"it did not come from {URL}"]),
    (
        "of another authority",
        ACME_LEAF,
        {"source": "https://staging.example.org/d"},
        [f"it came from https://staging.example.org/d, wanted {URL}"],
    ),
    (
        "for the address, too",
        LEAF,
        {},
        ["its names are DNS:llm.example.org, IP:198.51.100.13, wanted DNS:llm.example.org"],
    ),
    ("no key", ACME_LEAF, {"key_fingerprints": None}, ["it does not belong to the private key"]),
    (
        "another key",
        ACME_LEAF,
        {"key_fingerprints": {"sha256": "ff"}},
        ["it does not belong to the private key"],
    ),
    ("a second before two thirds", ACME_LEAF, {"now": "20260301235959Z"}, []),
    ("two thirds", ACME_LEAF, {"now": "20260302000000Z"}, ["two thirds of its life ended on 2026-03-02 00:00 UTC"]),
    (
        "two thirds of a few days",
        {**ACME_LEAF, "not_after": "20260107000000Z"},
        {"now": "20260105000000Z"},
        ["two thirds of its life ended on 2026-01-05 00:00 UTC"],
    ),
]


@pytest.mark.parametrize(("case", "info", "change", "reasons"), ACME_REASONS, ids=[case[0] for case in ACME_REASONS])
def test_why_an_acme_authority_is_asked(
    case: str, info: dict[str, Any] | None, change: dict[str, Any], reasons: list[str]
) -> None:
    given: dict[str, Any] = {
        "names": ["DNS:llm.example.org"],
        "key_fingerprints": KEY,
        "source": URL,
        "directory_url": URL,
        "now": "20260104000000Z",
    }
    assert _pki.acme_reasons(info, **{**given, **change}) == reasons


@pytest.mark.parametrize(
    ("now", "faults"),
    [
        ("20260316235959Z", []),
        (
            "20260317000000Z",
            [
                "it ends on 2026-04-01 00:00 UTC and should have been renewed on 2026-03-02 00:00 UTC: "
                "run playbooks/renew_certificates.yml daily"
            ],
        ),
    ],
)
def test_a_forgotten_renewal_is_a_fault(now: str, faults: list[str]) -> None:
    assert _pki.overdue_faults(LEAF, now) == faults


UPDATE: dict[str, Any] = {
    "server": "198.51.100.53",
    "zone": "example.org",
    "key_name": "fleet",
    "key_secret": "c2VjcmV0",
}


@pytest.mark.parametrize(
    ("change", "names", "faults"),
    [
        ({}, ["DNS:llm.example.org", "DNS:*.example.org", "DNS:example.org"], []),
        ({"zone": "Example.org."}, ["DNS:llm.example.org"], []),
        (
            {},
            ["DNS:llm.example.com", "DNS:notexample.org"],
            [
                "DNS:llm.example.com, DNS:notexample.org is not in pki_acme_rfc2136.zone, example.org; name tasks "
                "of your own in pki_acme_dns_tasks"
            ],
        ),
        (
            {"server": "a\nb", "key_name": "", "key_secret": "not base64!", "zone": "*.example.org"},
            [],
            [
                "pki_acme_rfc2136.zone is '*.example.org', wanted the name of a zone",
                "pki_acme_rfc2136.server is 'a\\nb', wanted one word",
                "pki_acme_rfc2136.key_name is '', wanted one word",
                "pki_acme_rfc2136.key_secret is not base64, as the DNS server has it",
            ],
        ),
    ],
)
def test_a_dns_server_is_described(change: dict[str, Any], names: list[str], faults: list[str]) -> None:
    assert _pki.rfc2136_faults({**UPDATE, **change}, names) == faults


RECORDS = [
    {"name": "_acme-challenge.LLM.example.org.", "values": ["a-B_1", "c"]},
    {"name": "_acme-challenge.example.org", "values": ["d"]},
]


@pytest.mark.parametrize(
    ("state", "change", "lines"),
    [
        (
            "present",
            {},
            [
                "server 198.51.100.53 53",
                "zone example.org.",
                "key hmac-sha256:fleet c2VjcmV0",
                'update add _acme-challenge.llm.example.org. 60 TXT "a-B_1"',
                'update add _acme-challenge.llm.example.org. 60 TXT "c"',
                'update add _acme-challenge.example.org. 60 TXT "d"',
                "send",
            ],
        ),
        (
            "absent",
            {"port": 5353, "zone": "example.org.", "key_algorithm": "hmac-sha512"},
            [
                "server 198.51.100.53 5353",
                "zone example.org.",
                "key hmac-sha512:fleet c2VjcmV0",
                'update delete _acme-challenge.llm.example.org. TXT "a-B_1"',
                'update delete _acme-challenge.llm.example.org. TXT "c"',
                'update delete _acme-challenge.example.org. TXT "d"',
                "send",
            ],
        ),
    ],
)
def test_records_are_added_and_deleted_by_value(state: str, change: dict[str, Any], lines: list[str]) -> None:
    assert _pki.dns_update(RECORDS, state, {**UPDATE, **change}).splitlines() == lines


@pytest.mark.parametrize(
    ("record", "message"),
    [
        (
            {"name": "www.example.org", "values": ["a"]},
            "the authority asks for a record 'www.example.org', wanted _acme-challenge.<host name>",
        ),
        (
            {"name": "_acme-challenge.a\nupdate delete example.org.", "values": ["a"]},
            "the authority asks for a record '_acme-challenge.a\\nupdate delete example.org', "
            "wanted _acme-challenge.<host name>",
        ),
        (
            {"name": "_acme-challenge.example.org", "values": ['a"\nsend']},
            "the authority asks for the value 'a\"\\nsend' in _acme-challenge.example.org, wanted base64url",
        ),
    ],
)
def test_an_authority_writes_no_line_of_its_own(record: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidInputError) as caught:
        _pki.dns_update([record], "present", UPDATE)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("now", "faults"),
    [
        ("20351001000000Z", []),
        (
            "20351101000000Z",
            [
                "the authority ends on 2036-01-01 00:00 UTC, before a certificate of 90 days would; make a new one in "
                "another pki_directory and give it to every client first, or rotate the one in the store of secrets"
            ],
        ),
    ],
)
def test_an_authority_outlives_what_it_signs(now: str, faults: list[str]) -> None:
    assert _pki.authority_faults(AUTHORITY, 90, now) == faults


def test_a_fault_names_the_key_and_the_option(pems: dict[str, str]) -> None:
    assert _pki.provided_faults(
        LEAF, NAMES, key_fingerprints={"sha256": "ff"}, now="20260115000000Z", key_name="/etc/key"
    ) == ["it does not belong to /etc/key"]
    assert _pki.chain_faults(pems["leaf"], "20260115000000Z", pems["another"], trusted_name="pki_x") == [
        "its last certificate (CN=leaf) names CN=middle as its authority, and none of pki_x (CN=another) signed it; "
        "append what is missing between them, or name who did sign it in pki_x"
    ]


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


class Maker:
    """Makes certificates, each signed by the key of its issuer."""

    def __init__(self) -> None:
        self.keys: dict[str, ec.EllipticCurvePrivateKey] = {}

    def key(self, name: str) -> ec.EllipticCurvePrivateKey:
        return self.keys.setdefault(name, ec.generate_private_key(ec.SECP256R1()))

    def pem(self, name: str, issuer: str, **options: Any) -> str:
        """Make a certificate; ``signer`` is the key that signs if it is not the issuer's."""
        made = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
            .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, issuer)]))
            .public_key(self.key(name).public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(options.get("begin", datetime(2025, 1, 1)))
            .not_valid_after(options.get("end", datetime(2027, 1, 1)))
        )
        if options.get("authority") is not None:
            constraints = x509.BasicConstraints(ca=options["authority"], path_length=None)
            made = made.add_extension(constraints, critical=True)
        signed = made.sign(self.key(options.get("signer", issuer)), hashes.SHA256())
        return signed.public_bytes(serialization.Encoding.PEM).decode()


@pytest.fixture(scope="module")
def pems() -> dict[str, str]:
    make = Maker()
    return {
        "leaf": make.pem("leaf", "middle"),
        "middle": make.pem("middle", "root", authority=True),
        "root": make.pem("root", "root", authority=True),
        "another": make.pem("another", "another", authority=True),
        "forged": make.pem("middle", "root", authority=True, signer="another"),
        "plain": make.pem("middle", "root", authority=False),
        "unmarked": make.pem("middle", "root"),
        "old": make.pem("middle", "root", authority=True, end=datetime(2025, 6, 1)),
        "new": make.pem("middle", "root", authority=True, begin=datetime(2026, 6, 1)),
        "old root": make.pem("root", "root", authority=True, end=datetime(2025, 6, 1)),
        "new root": make.pem("root", "root", authority=True, begin=datetime(2026, 6, 1)),
    }


@pytest.mark.parametrize(
    ("chain", "trusted", "faults"),
    [
        (["leaf"], None, []),
        (["leaf", "middle"], None, []),
        (["leaf", "middle"], ["root"], []),
        (["leaf", "middle"], ["another", "root"], []),
        (["leaf", "middle", "root"], ["root"], []),
        (["leaf"], ["middle"], []),
        # In the wrong order, and the whole of another authority's.
        (
            ["leaf", "root", "middle"],
            None,
            [
                "certificate 2 of the chain (CN=root) did not sign the one before it (CN=leaf)",
                "certificate 3 of the chain (CN=middle) did not sign the one before it (CN=root)",
            ],
        ),
        (
            ["leaf", "another"],
            None,
            ["certificate 2 of the chain (CN=another) did not sign the one before it (CN=leaf)"],
        ),
        # The name of the authority is right, and the signature is another one's.
        (
            ["leaf", "forged"],
            ["root"],
            [
                "its last certificate (CN=middle) names CN=root as its authority, and none of pki_provided_ca_path "
                "(CN=root) signed it; append what is missing between them, or name who did sign it in "
                "pki_provided_ca_path"
            ],
        ),
        (
            ["leaf", "middle", "root", "forged"],
            None,
            ["certificate 4 of the chain (CN=middle) did not sign the one before it (CN=root)"],
        ),
        (["leaf", "plain"], None, ["certificate 2 of the chain (CN=middle) is not an authority's"]),
        (["leaf", "unmarked"], None, ["certificate 2 of the chain (CN=middle) is not an authority's"]),
        (["leaf", "old"], None, ["certificate 2 of the chain (CN=middle) expired on 2025-06-01 00:00 UTC"]),
        (["leaf", "new"], None, ["certificate 2 of the chain (CN=middle) is not valid before 2026-06-01 00:00 UTC"]),
        # Clients find the one that is valid, if it signed.
        (["leaf", "middle"], ["old root", "root"], []),
        (
            ["leaf", "middle"],
            ["old root", "another"],
            [
                "pki_provided_ca_path holds no authority that is valid now: CN=root expired on 2025-06-01 00:00 UTC; "
                "put there whom clients trust"
            ],
        ),
        (
            ["leaf"],
            ["root", "another"],
            [
                "its last certificate (CN=leaf) names CN=middle as its authority, and none of pki_provided_ca_path "
                "(CN=root, CN=another) signed it; append what is missing between them, or name who did sign it in "
                "pki_provided_ca_path"
            ],
        ),
    ],
)
def test_a_chain_leads_to_an_authority(
    pems: dict[str, str], chain: list[str], trusted: list[str] | None, faults: list[str]
) -> None:
    given = "\n".join(pems[name] for name in chain)
    anchors = None if trusted is None else "".join(pems[name] for name in trusted)
    assert _pki.chain_faults(given, "20260115000000Z", anchors) == faults


@pytest.mark.parametrize(
    ("trusted", "faults"),
    [
        (["root"], []),
        (["old root", "another"], []),
        (
            ["old root", "new root"],
            [
                "pki_x holds no authority that is valid now: CN=root expired on 2025-06-01 00:00 UTC, "
                "CN=root is not valid before 2026-06-01 00:00 UTC; put there whom clients trust"
            ],
        ),
    ],
)
def test_somebody_is_to_be_trusted(pems: dict[str, str], trusted: list[str], faults: list[str]) -> None:
    given = "".join(pems[name] for name in trusted)
    assert _pki.trusted_faults(given, "20260115000000Z", "pki_x") == faults


def test_what_is_no_certificate_is_said() -> None:
    with pytest.raises(InvalidInputError, match=r"^pki_x holds no readable PEM certificate: "):
        _pki.trusted_faults("nothing", "20260115000000Z", "pki_x")
    with pytest.raises(InvalidInputError, match=r"^the certificate file holds no readable PEM certificate: "):
        _pki.chain_faults("nothing", "20260115000000Z")
