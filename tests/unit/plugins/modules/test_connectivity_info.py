# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import socket
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from ansible_collections.gpufleet.metal.plugins.module_utils._secrets.kinds import (
    check_options,
    client_certificate,
    make,
)
from ansible_collections.gpufleet.metal.plugins.modules.connectivity_info import fault, probe, tls_context

TLS: dict[str, Any] = {
    "server_name": "llm.example.org",
    "maximum_version": None,
    "ca_path": None,
    "ca_content": None,
    "client_content": None,
    "http_path": None,
}


def target(port: int, **more: Any) -> dict[str, Any]:
    return {"name": "engine", "address": "127.0.0.1", "port": port, "tls": None, "expect": None, **more}


@pytest.fixture(name="listener")
def fixture_listener() -> Any:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server


def test_a_listening_port_is_open(listener: socket.socket) -> None:
    port = listener.getsockname()[1]
    assert probe(target(port), 2.0) == {
        "name": "engine",
        "address": "127.0.0.1",
        "port": port,
        "state": "open",
        "tls_state": None,
        "tls_version": None,
        "tls_cipher": None,
        "tls_serial": None,
        "error": None,
    }


def test_a_port_without_listener_is_refused(listener: socket.socket) -> None:
    port = listener.getsockname()[1]
    listener.close()
    assert probe(target(port), 2.0)["state"] == "refused"


@pytest.fixture(name="certificate", scope="module")
def fixture_certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate of its own for llm.example.org, with its key in the same file."""
    path = tmp_path_factory.mktemp("tls") / "both.pem"
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "llm.example.org")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder(issuer_name=name, subject_name=name, public_key=key.public_key(), serial_number=1)
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("llm.example.org")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    path.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        + made.public_bytes(serialization.Encoding.PEM)
    )
    return path


@contextmanager
def server(
    certificate: Path,
    minimum: ssl.TLSVersion,
    maximum: ssl.TLSVersion,
    clients_of: str | None = None,
    answers: bool = False,
    quiet_seconds: float = 0.0,
) -> Iterator[int]:
    """A server of those versions of TLS that answers one handshake, and one request; yields its port."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    if clients_of:
        context.load_verify_locations(cadata=clients_of)
        context.verify_mode = ssl.CERT_REQUIRED
    context.minimum_version, context.maximum_version = minimum, maximum

    def serve(listening: socket.socket) -> None:
        with suppress(OSError):
            connection, __ = listening.accept()
            with connection, context.wrap_socket(connection, server_side=True) as secured:
                if answers:
                    secured.recv(1000)
                    secured.sendall(b"HTTP/1.1 404 Not Found\r\n\r\n")
                time.sleep(quiet_seconds)

    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=serve, args=[listening])
        thread.start()
        yield listening.getsockname()[1]
        thread.join()


V12, V13 = ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3


@pytest.mark.parametrize(
    ("versions", "offered", "trusted", "found", "error"),
    [
        ((V12, V13), None, True, ("accepted", "TLSv1.3"), None),
        ((V12, V13), "1.2", True, ("accepted", "TLSv1.2"), None),
        ((V13, V13), "1.2", True, ("refused", None), "TLSV1_ALERT_PROTOCOL_VERSION"),
        # A refusal comes before any certificate is looked at.
        ((V13, V13), "1.2", False, ("refused", None), "TLSV1_ALERT_PROTOCOL_VERSION"),
        # The version is accepted, the certificate is not: no refusal of the version.
        ((V12, V13), "1.2", False, ("untrusted", None), "CERTIFICATE_VERIFY_FAILED"),
    ],
)
def test_a_refused_version_is_no_other_fault(
    certificate: Path, versions: Any, offered: str | None, trusted: bool, found: Any, error: str | None
) -> None:
    tls = {**TLS, "maximum_version": offered, "ca_path": str(certificate) if trusted else None}
    with server(certificate, *versions) as port:
        result = probe(target(port, tls=tls), 5.0, tls_context(tls))
    assert (result["tls_state"], result["tls_version"]) == found
    assert (result["error"] is None) if error is None else (error in result["error"])


@pytest.mark.parametrize(
    ("name", "trusted", "state"),
    [
        ("llm.example.org", True, "accepted"),
        ("llm.example.org", False, "untrusted"),
        # Whoever signed it: a certificate for somebody else says nothing about trust.
        ("chat.example.org", True, "failed"),
    ],
)
def test_who_is_trusted_may_be_said_as_text(certificate: Path, name: str, trusted: bool, state: str) -> None:
    text = certificate.read_text()
    text = text[text.index("-----BEGIN CERTIFICATE-----") :]
    tls = {**TLS, "server_name": name, "ca_content": text if trusted else None}
    with server(certificate, V13, V13) as port:
        result = probe(target(port, tls=tls, expect=f"tls_{state}"), 5.0, tls_context(tls))
    assert result["tls_state"] == state
    assert result["tls_serial"] == ("01" if state == "accepted" else None)


def test_a_client_shows_what_it_was_given(certificate: Path) -> None:
    """A key in memory is enough; over TLS 1.2 a client of another authority does not get through."""
    mine, other = (
        dict(make("authority", check_options("authority", {}, "x"), int(time.time())).value) for __ in range(2)
    )
    for authority, state in ((mine, "accepted"), (other, "failed"), (None, "failed")):
        shown = client_certificate(authority, "rotation", int(time.time())) if authority else None
        tls = {**TLS, "maximum_version": "1.2", "ca_path": str(certificate), "client_content": shown}
        with server(certificate, V12, V13, clients_of=mine["certificate"]) as port:
            result = probe(target(port, tls=tls), 5.0, tls_context(tls))
        assert result["tls_state"] == state, result
    with pytest.raises(OSError, match="PEM lib"):
        tls_context({**TLS, "client_content": mine["certificate"]})


def test_over_tls_1_3_only_an_answer_tells_whether_a_client_is_taken(certificate: Path) -> None:
    mine, other = (
        dict(make("authority", check_options("authority", {}, "x"), int(time.time())).value) for __ in range(2)
    )
    for authority, path, state in (
        (mine, "/metrics", "accepted"),
        (other, "/metrics", "client_refused"),
        (None, "/metrics", "client_refused"),
        # The handshake alone looks well.
        (other, None, "accepted"),
    ):
        shown = client_certificate(authority, "rotation", int(time.time())) if authority else None
        tls = {**TLS, "ca_path": str(certificate), "client_content": shown, "http_path": path}
        with server(certificate, V13, V13, clients_of=mine["certificate"], answers=path is not None) as port:
            result = probe(target(port, tls=tls, expect=f"tls_{state}"), 5.0, tls_context(tls))
        assert (result["tls_state"], result["tls_version"]) == (state, "TLSv1.3"), result
        assert (result["error"] is None) == (state == "accepted")


def test_a_peer_that_keeps_quiet_has_not_refused(certificate: Path) -> None:
    tls = {**TLS, "ca_path": str(certificate), "http_path": "/"}
    with server(certificate, V13, V13, quiet_seconds=1.0) as port:
        result = probe(target(port, tls=tls), 0.3, tls_context(tls))
    assert (result["tls_state"], result["tls_serial"]) == ("failed", None)


def test_a_port_that_speaks_no_tls_is_open_and_fails(listener: socket.socket) -> None:
    tls = TLS
    result = probe(target(listener.getsockname()[1], tls=tls), 0.2, tls_context(tls))
    assert (result["state"], result["tls_state"]) == ("open", "failed")
    assert "timed out" in result["error"]


@pytest.mark.parametrize(("content", "match"), [(None, "No such file"), ("no certificate\n", "no certificate or crl")])
def test_an_authority_that_cannot_be_read_is_no_refusal(tmp_path: Path, content: str | None, match: str) -> None:
    path = tmp_path / "ca.crt"
    if content is not None:
        path.write_text(content)
    with pytest.raises(OSError, match=match):
        tls_context({**TLS, "maximum_version": "1.2", "ca_path": str(path)})


@pytest.mark.parametrize(
    ("expect", "state", "tls_state", "error", "sentence"),
    [
        (None, "refused", None, "no", None),
        ("open", "open", None, None, None),
        ("filtered", "open", None, None, "engine (127.0.0.1:8000): found open, wanted filtered"),
        ("open", "filtered", None, "timed out", "engine (127.0.0.1:8000): found filtered (timed out), wanted open"),
        ("tls_refused", "open", "refused", "alert", None),
        (
            "tls_refused",
            "open",
            "failed",
            "bad certificate",
            "engine (127.0.0.1:8000): found tls_failed (bad certificate), wanted tls_refused",
        ),
        ("tls_refused", "open", "accepted", None, "engine (127.0.0.1:8000): found tls_accepted, wanted tls_refused"),
        ("tls_refused", "filtered", None, "late", "engine (127.0.0.1:8000): found filtered (late), wanted tls_refused"),
        ("tls_accepted", "open", "accepted", None, None),
    ],
)
def test_a_difference_is_one_sentence(expect: Any, state: str, tls_state: Any, error: Any, sentence: Any) -> None:
    result = {"state": state, "tls_state": tls_state, "error": error}
    assert fault(target(8000, expect=expect), result) == sentence
