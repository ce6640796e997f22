# SPDX-License-Identifier: Apache-2.0
"""Compare what sslyze and testssl.sh say of an endpoint with the target: python3 judge_scans.py WANTED SSLYZE TESTSSL.

WANTED is JSON: `ciphers` and `groups` of TLS 1.3 in the server's order, and `hsts_seconds`. The others are the files
that the scanners wrote. Prints {"faults": [...]}. A scan that says nothing of what is looked at is a fault, too.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

OLD_VERSIONS = ("ssl_2_0", "ssl_3_0", "tls_1_0", "tls_1_1", "tls_1_2")

SSLYZE_NAMES = {"prime256v1": "secp256r1"}
"""What sslyze calls a group that testssl.sh calls as OpenSSL does."""

HYBRID_GROUPS = ("X25519MLKEM768",)
"""Groups that sslyze does not know, and testssl.sh lists apart from the curves."""

SERIOUS = ("LOW", "MEDIUM", "HIGH", "CRITICAL", "WARN", "FATAL")
HARMLESS = ("OK", "INFO")

ACCEPTED: Mapping[str, str] = {
    # Said of the machine that scans: its openssl has no ciphers of GOST.
    "engine_problem": r"No engine or GOST support via engine with your \S+",
    # A warning for HTTP/1.1 of old; ALPN is what there is in TLS 1.3.
    "NPN": r"not possible for TLS 1\.3-only hosts",
    # It may hang up before the tickets of TLS 1.3 come.
    "sessionresumption_ticket": r"check failed because of connect problem",
    # An internal authority has no place that clients could ask: its certificates live for 90 days at most, and a key
    # that got lost is replaced by a new one.
    "cert_revocation": r"Neither CRL nor OCSP URI provided",
}
"""What testssl.sh finds fault with and the target leaves so: the whole finding, as a pattern, and why."""


@dataclass(frozen=True)
class Target:
    """What the endpoint shall offer, and nothing else."""

    ciphers: tuple[str, ...]
    groups: tuple[str, ...]
    hsts_seconds: int

    @staticmethod
    def from_json(document: Mapping[str, Any]) -> Target:
        """Read WANTED."""
        return Target(tuple(document["ciphers"]), tuple(document["groups"]), int(document["hsts_seconds"]))


def differs(what: str, found: object, wanted: object) -> Iterator[str]:
    """Yield a sentence if the two are not equal."""
    if found != wanted:
        yield f"{what}: found {found!r}, wanted {wanted!r}"


# ---------------------------------------------------------------------------------------------------------- sslyze


def sslyze_faults(document: Any, target: Target) -> Iterator[str]:
    """Yield what sslyze found that is not the target; ``document`` is its JSON."""
    scans = document.get("server_scan_results", []) if isinstance(document, Mapping) else []
    if len(scans) != 1 or scans[0].get("scan_status") != "COMPLETED":
        statuses = [(scan.get("scan_status"), scan.get("connectivity_error_trace")) for scan in scans]
        yield f"sslyze: found the scans {statuses!r}, wanted one that is completed"
        return
    attempts = scans[0]["scan_result"]

    def result(name: str) -> Mapping[str, Any]:
        attempt = attempts.get(name) or {}
        found = attempt.get("result")
        return found if attempt.get("status") == "COMPLETED" and isinstance(found, Mapping) else {}

    for version in OLD_VERSIONS:
        found = result(f"{version}_cipher_suites").get("is_tls_version_supported")
        yield from differs(f"sslyze: {version} is spoken", found, False)
    accepted = result("tls_1_3_cipher_suites").get("accepted_cipher_suites", [])
    names = sorted(entry["cipher_suite"]["name"] for entry in accepted)
    yield from differs("sslyze: ciphers of TLS 1.3", names, sorted(target.ciphers))
    curves = sorted(curve["name"] for curve in result("elliptic_curves").get("supported_curves", []))
    known = sorted(SSLYZE_NAMES.get(group, group) for group in target.groups if group not in HYBRID_GROUPS)
    yield from differs("sslyze: curves", curves, known)
    early = result("tls_1_3_early_data").get("supports_early_data")
    yield from differs("sslyze: early data is taken", early, False)
    header = result("http_headers").get("strict_transport_security_header") or {}
    yield from differs("sslyze: max-age of Strict-Transport-Security", header.get("max_age"), target.hsts_seconds)
    compression = result("tls_compression").get("supports_compression")
    yield from differs("sslyze: TLS compression", compression, False)
    yield from differs("sslyze: heartbleed", result("heartbleed").get("is_vulnerable_to_heartbleed"), False)
    injection = result("openssl_ccs_injection").get("is_vulnerable_to_ccs_injection")
    yield from differs("sslyze: CCS injection", injection, False)
    robot = result("robot").get("robot_result")
    yield from differs("sslyze: ROBOT", robot, "NOT_VULNERABLE_RSA_NOT_SUPPORTED")
    denial = result("session_renegotiation").get("is_vulnerable_to_client_renegotiation_dos")
    yield from differs("sslyze: renegotiation by clients", denial, False)
    chains = result("certificate_info").get("certificate_deployments", [])
    yield from differs("sslyze: number of certificate chains", len(chains), 1)
    for chain in chains:
        trusted = [
            path["was_validation_successful"]
            for path in chain["path_validation_results"]
            if path["trust_store"]["name"] == "Supplied CA file"
        ]
        yield from differs("sslyze: the chain ends at the authority", trusted, [True])
        yield from differs("sslyze: the chain is in order", chain["received_chain_has_valid_order"], True)
        yield from differs("sslyze: SHA-1 in the chain", chain["verified_chain_has_sha1_signature"], False)


# ------------------------------------------------------------------------------------------------------- testssl.sh


def testssl_faults(findings: Any, target: Target) -> Iterator[str]:
    """Yield what testssl.sh found that is not the target; ``findings`` is its flat JSON."""
    if not isinstance(findings, Sequence) or not findings:
        yield "testssl.sh: found nothing, wanted its findings"
        return
    said: dict[str, str] = {}
    for finding in findings:
        name, severity, text = finding["id"], finding["severity"], finding["finding"]
        said[name] = text
        if severity in HARMLESS or re.fullmatch(ACCEPTED.get(name, "(?!)"), text):
            continue
        known = "" if severity in SERIOUS else ", a severity that is not known"
        yield f"testssl.sh: {name} is {severity}{known}: {text}"
    for name in ("SSLv2", "SSLv3", "TLS1", "TLS1_1", "TLS1_2"):
        yield from differs(f"testssl.sh: {name}", said.get(name), "not offered")
    curves = [group for group in target.groups if group not in HYBRID_GROUPS]
    hybrids = [group for group in target.groups if group in HYBRID_GROUPS]
    wanted = {
        "TLS1_3": r"offered with final",
        "cipher_order": r"server \(TLS 1\.3\)",
        "cipherorder_TLSv1_3": re.escape(" ".join(target.ciphers)),
        "prioritize_chacha_TLSv1_3": r"false",
        "cert_chain_of_trust": r"passed\.",
        "cert_trust": r"Ok via SAN and CN \(same w/o SNI\)",
        "cert_keySize": r"EC 256 bits \(curve P-256\)",
        # Its key is replaced within that time; without keys it is the life of a session that NGINX itself remembers.
        # (Or it hangs up before the ticket comes; verify_tls.yml waits for it.)
        "TLS_session_ticket": r"valid for 3600 seconds only \(<daily\)|no -- no lifetime advertised",
        "HSTS_time": rf"\d+ days \(={target.hsts_seconds} seconds\) > 15552000 seconds",
        "BREACH": r"not vulnerable, no gzip/deflate/compress/br HTTP compression .*",
    }
    if hybrids:
        wanted["FS_KEMs"] = re.escape(" ".join(hybrids))
    for name, pattern in wanted.items():
        text = said.get(name)
        if text is None or not re.fullmatch(pattern, text.strip()):
            yield f"testssl.sh: {name}: found {text!r}, wanted {pattern!r}"
    yield from differs("testssl.sh: curves", sorted(said.get("FS_ECDHE_curves", "").split()), sorted(curves))


def faults(wanted: Any, sslyze: Any, testssl: Any) -> list[str]:
    """Return what either scanner found."""
    target = Target.from_json(wanted)
    return [*sslyze_faults(sslyze, target), *testssl_faults(testssl, target)]


def main(words: list[str]) -> None:
    """Read the files and print."""
    sslyze, testssl = (json.loads(Path(path).read_text(encoding="utf-8")) for path in words[1:3])
    print(json.dumps({"faults": faults(json.loads(words[0]), sslyze, testssl)}))


if __name__ == "__main__":
    main(sys.argv[1:])
