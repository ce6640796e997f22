# SPDX-License-Identifier: Apache-2.0
"""The probe agent and engines that answer only over TLS, to clients with a certificate."""

from __future__ import annotations

import asyncio
import datetime
import json
import ssl
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from ansible_collections.gpufleet.metal.tests.unit.roles.nginx.test_probe_agent import (
    Engine,
    agent,
    document,
    fixture_home,
    server,
)

__all__ = ["fixture_home"]

NAME = "engines.gpufleet.internal"
_PEM = serialization.Encoding.PEM


class Authority:
    """Signs certificates and writes them, with their keys, into a directory."""

    def __init__(self, directory: Path, name: str) -> None:
        self._directory = directory
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
        self.path = directory / f"{name}.crt"
        constraints = (x509.BasicConstraints(ca=True, path_length=None), True)
        certificate = self._sign(self._subject, self._key.public_key(), constraints)
        self.path.write_bytes(certificate.public_bytes(_PEM))

    def _sign(
        self, subject: x509.Name, key: ec.EllipticCurvePublicKey, *extensions: tuple[x509.ExtensionType, bool]
    ) -> x509.Certificate:
        now = datetime.datetime.now(datetime.UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._subject)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=1))
            .not_valid_after(now + datetime.timedelta(days=1))
        )
        for extension, critical in extensions:
            builder = builder.add_extension(extension, critical)
        return builder.sign(self._key, hashes.SHA256())

    def issue(self, name: str, purpose: x509.ObjectIdentifier, files: str) -> tuple[Path, Path]:
        """Write a certificate for one purpose and its key; each replaces a file of before by a rename."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
        names, use = x509.SubjectAlternativeName([x509.DNSName(name)]), x509.ExtendedKeyUsage([purpose])
        certificate = self._sign(subject, key.public_key(), (names, False), (use, False))
        private = key.private_bytes(_PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        paths = self._directory / f"{files}.crt", self._directory / f"{files}.key"
        for path, content in zip(paths, (certificate.public_bytes(_PEM), private), strict=True):
            (self._directory / "new").write_bytes(content)
            (self._directory / "new").rename(path)
        return paths


class SecuredEngine(Engine):
    """An engine that answers only whom an authority knows, with the purpose of a client."""

    def __init__(self, pair: tuple[Path, Path], clients: Path) -> None:
        super().__init__()
        self._context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(clients))
        self._context.verify_mode = ssl.CERT_REQUIRED
        self._context.load_cert_chain(*map(str, pair))

    async def __aenter__(self) -> SecuredEngine:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=self._context)
        self.port = self._server.sockets[0].getsockname()[1]
        return self


def configured(home: Path, engine: Engine, pair: tuple[Path, Path], authority: Authority, name: str = NAME) -> Any:
    tls = {
        "server_name": name,
        "certificate_path": str(pair[0]),
        "certificate_key_path": str(pair[1]),
        "ca_path": str(authority.path),
        "handshake_timeout_seconds": 5,
    }
    return agent.Configuration.from_json(document(home, [server(engine, "a/0")], tls=tls))


SERVER, CLIENT = x509.ExtendedKeyUsageOID.SERVER_AUTH, x509.ExtendedKeyUsageOID.CLIENT_AUTH
CASES: list[tuple[str, str, str, str, x509.ObjectIdentifier, list[str | None]]] = [
    # case, who signed the engine, who signed the client, the engine's name, the client's purpose, what may be found
    ("well", "fleet", "fleet", NAME, CLIENT, [None]),
    ("no client of the fleet", "fleet", "other", NAME, CLIENT, ["TLS failed", "the connection ended", "Connection"]),
    ("no client at all", "fleet", "fleet", NAME, SERVER, ["TLS failed", "the connection ended", "Connection"]),
    ("no engine of the fleet", "other", "fleet", NAME, CLIENT, ["certificate refused: unable to get local issuer"]),
    ("another engine", "fleet", "fleet", "x.internal", CLIENT, ["certificate refused: Hostname mismatch"]),
]


@pytest.mark.parametrize(
    ("case", "of_engine", "of_client", "name", "purpose", "wanted"), CASES, ids=[case[0] for case in CASES]
)
def test_both_have_to_be_of_the_fleet(
    home: Path,
    case: str,
    of_engine: str,
    of_client: str,
    name: str,
    purpose: x509.ObjectIdentifier,
    wanted: list[str | None],
) -> None:
    authorities = {word: Authority(home, word) for word in ("fleet", "other")}
    pair = authorities[of_engine].issue(name, SERVER, "engine")
    client = authorities[of_client].issue("client", purpose, "client")

    async def scene() -> str | None:
        async with SecuredEngine(pair, authorities["fleet"].path) as engine:
            found = configured(home, engine, client, authorities["fleet"])
            return await agent.probe_health(found.peers[0], found)

    fault = asyncio.run(scene())
    assert fault is None if wanted == [None] else str(fault).startswith(tuple(map(str, wanted))), fault


def test_progress_is_asked_for_over_tls_too(home: Path) -> None:
    fleet = Authority(home, "fleet")

    async def scene() -> None:
        async with SecuredEngine(fleet.issue(NAME, SERVER, "engine"), fleet.path) as engine:
            found = configured(home, engine, fleet.issue("client", CLIENT, "client"), fleet)
            progress = await agent.probe_progress(found.peers[0], found, None, True)
            assert progress == agent.Progress("good", "completion", 5.0)
            assert engine.asked == ["/metrics", "/v1/completions", "/metrics"]

    asyncio.run(scene())


@pytest.mark.parametrize(
    ("before", "after", "engine_has_tls", "refusal"),
    [
        (False, True, False, "no engine of alpha in rotation answers over TLS (a/0: "),
        (True, False, True, "no engine of alpha in rotation answers without TLS (a/0: "),
        (False, True, True, None),
        (True, False, False, None),
        # Nothing that was different before the change.
        (True, True, False, None),
        (None, True, False, None),
    ],
)
def test_gateways_are_not_changed_before_their_engines(
    home: Path, before: bool | None, after: bool, engine_has_tls: bool, refusal: str | None
) -> None:
    """A run in which the engines were not changed, for want of consent, must not take the endpoint away."""
    fleet = Authority(home, "fleet")
    client, pair = fleet.issue("client", CLIENT, "client"), fleet.issue(NAME, SERVER, "engine")

    def said(engine: Engine, tls: bool) -> dict[str, Any]:
        section = {
            "server_name": NAME,
            "certificate_path": str(client[0]),
            "certificate_key_path": str(client[1]),
            "ca_path": str(fleet.path),
        }
        return document(home, [server(engine, "a/0")], tls=section if tls else None)

    async def scene() -> str | None:
        async with SecuredEngine(pair, fleet.path) if engine_has_tls else Engine() as engine:
            (home / "agent.json").unlink()
            if before is not None:
                (home / "agent.json").write_text(json.dumps(said(engine, before)))
            fresh = agent.Configuration.from_json(said(engine, after))
            try:
                await agent.refuse_to_lose_engines(str(home / "agent.json"), fresh)
            except agent.AgentError as fault:
                return str(fault)
            return None

    found = asyncio.run(scene())
    if refusal is None:
        assert found is None
    else:
        assert str(found).startswith(refusal)
        assert str(found).endswith("Change the engines first: serving.yml with vllm_restart_allowed")


@pytest.mark.parametrize(("held", "refused"), [([], False), (["a"], True), (["b/0"], False), (["a/0", "b"], False)])
def test_an_engine_that_is_held_does_not_count_when_gateways_change(home: Path, held: list[str], refused: bool) -> None:
    """As after a switch that was killed between the change of a host and its release."""
    fleet = Authority(home, "fleet")
    client, pair = fleet.issue("client", CLIENT, "client"), fleet.issue(NAME, SERVER, "engine")

    async def scene() -> None:
        async with SecuredEngine(pair, fleet.path) as changed, Engine() as unchanged:
            section = {
                "server_name": NAME,
                "certificate_path": str(client[0]),
                "certificate_key_path": str(client[1]),
                "ca_path": str(fleet.path),
            }
            servers = [server(changed, "a/0"), server(unchanged, "b/0")]
            (home / "agent.json").write_text(json.dumps(document(home, servers)))
            fresh = agent.Configuration.from_json(document(home, servers, tls=section))
            fresh.state_directory.mkdir(parents=True, exist_ok=True)
            holders = json.dumps({name: ["switch_engine_tls"] for name in held})
            (fresh.state_directory / "drained.json").write_text(holders)
            await agent.refuse_to_lose_engines(str(home / "agent.json"), fresh)

    if refused:
        with pytest.raises(agent.AgentError, match=r"^no engine of alpha in rotation answers over TLS \(b/0: "):
            asyncio.run(scene())
    else:
        asyncio.run(scene())


def two_ways(home: Path, plain: Engine, secured: Engine, authority: Authority, tls: bool) -> dict[str, Any]:
    """What the role would write for one engine of each kind."""
    section = {
        "server_name": NAME,
        "certificate_path": str(home / "client.crt"),
        "certificate_key_path": str(home / "client.key"),
        "ca_path": str(authority.path),
    }
    return document(home, [server(plain, "a/0"), server(secured, "b/0")], tls=section if tls else None)


def in_rotation(home: Path) -> list[str]:
    lines = (home / "includes" / "upstreams" / "alpha.conf").read_text().splitlines()[1:]
    return [line.rpartition(" ")[2] for line in lines if " down;" not in line]


def reload(configuration: Any) -> None:
    """Reload as the command does: under the lock, for the daemon may be at it in the background."""
    with agent.locked(configuration, 10.0):
        agent.reload(configuration, False)


@pytest.mark.parametrize("who", ["reload", "daemon"])
def test_requests_move_to_engines_of_the_new_way_in_one_step(home: Path, who: str) -> None:
    """Neither waits for the thresholds: until then requests would go where every one of them fails."""
    fleet = Authority(home, "fleet")
    fleet.issue("client", CLIENT, "client")
    pair = fleet.issue(NAME, SERVER, "engine")
    path = home / "agent.json"

    async def scene() -> None:
        async with Engine() as plain, SecuredEngine(pair, fleet.path) as secured:
            path.write_text(json.dumps(two_ways(home, plain, secured, fleet, False)))
            daemon = agent.Daemon(str(path))
            for __ in range(3):
                await daemon.round()
            assert {key: state.available for key, state in daemon.states.items()} == {
                "alpha a/0": True,
                "alpha b/0": False,
            }
            await asyncio.to_thread(reload, daemon.configuration)
            assert in_rotation(home) == ["a/0"]
            for tls, wanted in ((True, "b/0"), (False, "a/0"), (True, "b/0")):
                path.write_text(json.dumps(two_ways(home, plain, secured, fleet, tls)))
                if who == "reload":
                    await asyncio.to_thread(reload, agent.read_configuration(path))
                else:
                    await daemon.round()
                    assert agent.judged_alike(daemon.configuration)
                    await asyncio.to_thread(reload, daemon.configuration)
                assert in_rotation(home) == [wanted]

    asyncio.run(scene())


def test_an_agent_that_starts_after_the_change_judges_at_once(home: Path) -> None:
    fleet = Authority(home, "fleet")
    fleet.issue("client", CLIENT, "client")
    pair = fleet.issue(NAME, SERVER, "engine")
    path = home / "agent.json"

    async def scene() -> None:
        async with Engine() as plain, SecuredEngine(pair, fleet.path) as secured:
            path.write_text(json.dumps(two_ways(home, plain, secured, fleet, False)))
            before = agent.Daemon(str(path))
            await before.round()
            path.write_text(json.dumps(two_ways(home, plain, secured, fleet, True)))
            daemon = agent.Daemon(str(path))
            await daemon.round()
            assert [state.available for state in daemon.states.values()] == [False, True]
            await daemon.round()
            assert not daemon._judge_at_once

    asyncio.run(scene())


def test_a_renewed_certificate_is_read_without_a_restart(home: Path) -> None:
    """One that can't be read changes nothing, because NGINX has the old one, too; before the first it is a fault."""
    fleet, other = Authority(home, "fleet"), Authority(home, "other")

    async def scene() -> list[str | None]:
        async with SecuredEngine(fleet.issue(NAME, SERVER, "engine"), fleet.path) as engine:
            found = configured(home, engine, (home / "client.crt", home / "client.key"), fleet)

            async def probe() -> str | None:
                fault: str | None = await agent.probe_health(found.peers[0], found)
                return fault

            findings = [await probe()]
            fleet.issue("client", CLIENT, "client")
            findings.append(await probe())
            (home / "client.crt").write_text("torn")
            findings.append(await probe())
            other.issue("client", CLIENT, "client")
            findings.append(await probe() and "refused")
            fleet.issue("client", CLIENT, "client")
            findings.append(await probe())
            return findings

    paths = f"{home / 'client.crt'}, {home / 'client.key'} or {home / 'fleet.crt'}"
    assert asyncio.run(scene()) == [f"can't read {paths}: No such file or directory", None, None, "refused", None]
