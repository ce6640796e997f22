# SPDX-License-Identifier: Apache-2.0
"""What the gateway's scenario calls a fault in the scans of TLS, on recorded scans of the gateways themselves."""

from __future__ import annotations

import copy
import importlib.util
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[4]
PROGRAM = ROOT / "molecule" / "nginx" / "files" / "judge_scans.py"
RECORDED = ROOT / "tests" / "unit" / "fixtures" / "tls_scans"


def load_program() -> Any:
    """It is a program, not a part of the collection's namespace."""
    spec = importlib.util.spec_from_file_location("judge_scans", PROGRAM)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["judge_scans"] = module
    spec.loader.exec_module(module)
    return module


judge = load_program()
CIPHERS = ["TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256"]
CLASSICAL = ["X25519", "prime256v1", "secp384r1"]
GROUPS = {"bookworm": CLASSICAL, "trixie": ["X25519MLKEM768", *CLASSICAL]}


def wanted(suite: str, **changes: Any) -> dict[str, Any]:
    return {"ciphers": CIPHERS, "groups": GROUPS[suite], "hsts_seconds": 31536000, **changes}


def recorded(scanner: str, suite: str = "trixie") -> Any:
    return json.loads((RECORDED / f"{scanner}_{suite}.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("suite", ["bookworm", "trixie"])
def test_the_gateways_are_as_wanted(
    suite: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = [str(RECORDED / f"{scanner}_{suite}.json") for scanner in ("sslyze", "testssl")]
    judge.main([json.dumps(wanted(suite)), *paths])
    assert json.loads(capsys.readouterr().out) == {"faults": []}


def test_a_target_that_is_not_theirs_is_told_apart() -> None:
    """Of every part of the target, by each scanner that sees it."""
    target = {"ciphers": CIPHERS[::-1], "groups": GROUPS["bookworm"][:2], "hsts_seconds": 1}
    found = judge.faults(target, recorded("sslyze"), recorded("testssl"))
    assert found == [
        "sslyze: curves: found ['X25519', 'secp256r1', 'secp384r1'], wanted ['X25519', 'secp256r1']",
        "sslyze: max-age of Strict-Transport-Security: found 31536000, wanted 1",
        "testssl.sh: cipherorder_TLSv1_3: found 'TLS_AES_256_GCM_SHA384 TLS_CHACHA20_POLY1305_SHA256', "
        "wanted 'TLS_CHACHA20_POLY1305_SHA256\\\\ TLS_AES_256_GCM_SHA384'",
        "testssl.sh: HSTS_time: found '365 days (=31536000 seconds) > 15552000 seconds', "
        "wanted '\\\\d+ days \\\\(=1 seconds\\\\) > 15552000 seconds'",
        "testssl.sh: curves: found ['X25519', 'prime256v1', 'secp384r1'], wanted ['X25519', 'prime256v1']",
    ]


def test_a_hybrid_group_must_be_there() -> None:
    found = judge.faults(wanted("trixie"), recorded("sslyze", "bookworm"), recorded("testssl", "bookworm"))
    assert found == ["testssl.sh: FS_KEMs: found None, wanted 'X25519MLKEM768'"]


# ---------------------------------------------------------------------------------------------------------- sslyze


def result_of(document: Any, name: str) -> Any:
    return document["server_scan_results"][0]["scan_result"][name]["result"]


SSLYZE: list[tuple[Callable[[Any], object], str]] = [
    (
        lambda found: result_of(found, "tls_1_2_cipher_suites").update(is_tls_version_supported=True),
        "tls_1_2 is spoken: found True, wanted False",
    ),
    (
        lambda found: result_of(found, "tls_1_3_cipher_suites")["accepted_cipher_suites"].append(
            {"cipher_suite": {"name": "TLS_AES_128_GCM_SHA256"}}
        ),
        "ciphers of TLS 1.3: found ['TLS_AES_128_GCM_SHA256', 'TLS_AES_256_GCM_SHA384', "
        "'TLS_CHACHA20_POLY1305_SHA256'], wanted ['TLS_AES_256_GCM_SHA384', 'TLS_CHACHA20_POLY1305_SHA256']",
    ),
    (
        lambda found: result_of(found, "elliptic_curves")["supported_curves"].append({"name": "X448"}),
        "curves: found ['X25519', 'X448', 'secp256r1', 'secp384r1'], wanted ['X25519', 'secp256r1', 'secp384r1']",
    ),
    (
        lambda found: result_of(found, "tls_1_3_early_data").update(supports_early_data=True),
        "early data is taken: found True, wanted False",
    ),
    (
        lambda found: result_of(found, "http_headers").update(strict_transport_security_header=None),
        "max-age of Strict-Transport-Security: found None, wanted 31536000",
    ),
    (
        lambda found: result_of(found, "certificate_info").update(certificate_deployments=[]),
        "number of certificate chains: found 0, wanted 1",
    ),
    (
        lambda found: [
            path.update(was_validation_successful=False)
            for path in result_of(found, "certificate_info")["certificate_deployments"][0]["path_validation_results"]
        ],
        "the chain ends at the authority: found [False], wanted [True]",
    ),
    (
        lambda found: result_of(found, "certificate_info")["certificate_deployments"][0].update(
            path_validation_results=[]
        ),
        "the chain ends at the authority: found [], wanted [True]",
    ),
]


@pytest.mark.parametrize(("spoil", "fault"), SSLYZE, ids=[fault[:30] for __, fault in SSLYZE])
def test_what_sslyze_finds(spoil: Callable[[Any], object], fault: str) -> None:
    document = recorded("sslyze")
    spoil(document)
    target = judge.Target.from_json(wanted("trixie"))
    assert list(judge.sslyze_faults(document, target)) == [f"sslyze: {fault}"]


def test_whatever_sslyze_did_not_do_is_a_fault() -> None:
    target = judge.Target.from_json(wanted("trixie"))
    looked_at = set()
    for name in recorded("sslyze")["server_scan_results"][0]["scan_result"]:
        document = recorded("sslyze")
        document["server_scan_results"][0]["scan_result"][name] = {"status": "ERROR", "result": None}
        looked_at |= {name} if list(judge.sslyze_faults(document, target)) else set()
    assert looked_at == {
        *(f"{version}_cipher_suites" for version in (*judge.OLD_VERSIONS, "tls_1_3")),
        "certificate_info",
        "elliptic_curves",
        "heartbleed",
        "http_headers",
        "openssl_ccs_injection",
        "robot",
        "session_renegotiation",
        "tls_1_3_early_data",
        "tls_compression",
    }


@pytest.mark.parametrize(
    ("document", "scans"),
    [
        ([], []),
        ({}, []),
        ({"server_scan_results": []}, []),
        (
            {"server_scan_results": [{"scan_status": "ERROR_NO_CONNECTIVITY", "connectivity_error_trace": "x"}]},
            [("ERROR_NO_CONNECTIVITY", "x")],
        ),
    ],
)
def test_a_scan_of_sslyze_that_was_none(document: Any, scans: Any) -> None:
    target = judge.Target.from_json(wanted("trixie"))
    fault = f"sslyze: found the scans {scans!r}, wanted one that is completed"
    assert list(judge.sslyze_faults(document, target)) == [fault]


# ------------------------------------------------------------------------------------------------------- testssl.sh


def by_testssl(findings: Any) -> list[str]:
    return list(judge.testssl_faults(findings, judge.Target.from_json(wanted("trixie"))))


def said(name: str, severity: str | None = None, finding: str | None = None) -> list[dict[str, str]]:
    """The recorded findings, one of them changed."""
    findings: list[dict[str, str]] = copy.deepcopy(recorded("testssl"))
    (entry,) = [one for one in findings if one["id"] == name]
    entry["severity"] = severity or entry["severity"]
    entry["finding"] = entry["finding"] if finding is None else finding
    return findings


@pytest.mark.parametrize(
    ("findings", "fault"),
    [
        (said("FS", "MEDIUM", "not offered"), "FS is MEDIUM: not offered"),
        (said("HTTP_clock_skew", "WARN", "3 s"), "HTTP_clock_skew is WARN: 3 s"),
        (said("HSTS_preload", "ODD", "x"), "HSTS_preload is ODD, a severity that is not known: x"),
        (said("cert_revocation", "HIGH", "revoked"), "cert_revocation is HIGH: revoked"),
        (said("TLS1_2", finding="offered"), "TLS1_2: found 'offered', wanted 'not offered'"),
        (
            said("TLS_session_ticket", finding="valid for 86400 seconds (>=daily)"),
            "TLS_session_ticket: found 'valid for 86400 seconds (>=daily)', "
            "wanted 'valid for 3600 seconds only \\\\(<daily\\\\)|no -- no lifetime advertised'",
        ),
        (
            said("FS_ECDHE_curves", finding="prime256v1 secp384r1 secp521r1 X25519"),
            "curves: found ['X25519', 'prime256v1', 'secp384r1', 'secp521r1'], "
            "wanted ['X25519', 'prime256v1', 'secp384r1']",
        ),
    ],
)
def test_what_testssl_finds(findings: Any, fault: str) -> None:
    assert by_testssl(findings) == [f"testssl.sh: {fault}"]


def test_whatever_testssl_did_not_do_is_a_fault() -> None:
    findings = recorded("testssl")
    needed = {
        entry["id"] for entry in findings if by_testssl([other for other in findings if other["id"] != entry["id"]])
    }
    assert needed == {
        *("SSLv2", "SSLv3", "TLS1", "TLS1_1", "TLS1_2", "TLS1_3"),
        *("cipher_order", "cipherorder_TLSv1_3", "prioritize_chacha_TLSv1_3"),
        *("FS_ECDHE_curves", "FS_KEMs", "TLS_session_ticket", "HSTS_time"),
        *("cert_chain_of_trust", "cert_trust", "cert_keySize", "BREACH"),
    }


@pytest.mark.parametrize("findings", [[], {}, None])
def test_a_scan_of_testssl_that_was_none(findings: Any) -> None:
    assert by_testssl(findings) == ["testssl.sh: found nothing, wanted its findings"]


def test_a_scan_of_testssl_that_reached_nobody() -> None:
    """As it is written then, by version 3.2.1."""
    findings = [
        {"id": "scanProblem", "severity": "FATAL", "finding": "Can't connect to '198.51.100.60:443'"},
        {"id": "scanTime", "severity": "WARN", "finding": "Scan interrupted"},
    ]
    found = by_testssl(findings)
    assert found[:2] == [
        "testssl.sh: scanProblem is FATAL: Can't connect to '198.51.100.60:443'",
        "testssl.sh: scanTime is WARN: Scan interrupted",
    ]
    assert len(found) > 15
