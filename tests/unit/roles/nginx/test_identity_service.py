# SPDX-License-Identifier: Apache-2.0
"""The gateway's identity service: the scenario's table of credentials, its files, and the refreshing of keys.

identity.js is its twin; the same table is run against it inside a real NGINX by molecule/nginx_identity.
"""

from __future__ import annotations

import http.client
import importlib.util
import json
import os
import socket
import ssl
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[4]


def load(path: Path) -> Any:
    """Neither is a part of the collection's namespace: one is a program, one belongs to a scenario."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    spec.loader.exec_module(module)
    return module


service = load(ROOT / "roles" / "nginx" / "files" / "identity_service.py")
table = load(ROOT / "molecule" / "nginx_identity" / "files" / "identity_cases.py")
ISSUER = table.Issuer()
CASES = table.cases(ISSUER)


def key_entry(identity: str, *scopes: str) -> dict[str, Any]:
    return {"identity": f"key:{identity}", "scopes": list(scopes)}


def hash_of(key: str) -> str:
    return str(table.hashlib.sha256(key.encode()).hexdigest())


CONFIGURATION: dict[str, Any] = {
    "realm": "llm.example.org",
    "api_keys": {
        hash_of(table.KEY_OLD): key_entry("ci", table.SCOPE),
        hash_of(table.KEY_NEW): key_entry("ci", table.SCOPE),
        hash_of(table.KEY_POOR): key_entry("poor"),
    },
    "jwt": {
        "issuer": table.ISSUER,
        "audiences": [table.AUDIENCE],
        "identity_claim": "sub",
        "scope_claims": ["scope", "scp"],
        "leeway_seconds": 30,
        "jwks_path": "/nowhere",
        "jwks_url": None,
        "jwks_ca_path": None,
        "jwks_refresh_seconds": 300,
    },
}
KEYS = ISSUER.key_set()["keys"]
BEGUN = time.time()


def judged(authorization: str, scope: str = table.SCOPE, keys: Any = KEYS, **changes: Any) -> Any:
    return service.judge({**CONFIGURATION, **changes}, keys, authorization, scope, BEGUN)


@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_the_table(case: Any) -> None:
    verdict = judged(case.authorization or "")
    assert verdict.status == (204 if case.status == 200 else case.status)
    assert (verdict.identity if case.status == 200 else verdict.description) == case.says


def test_the_fourteen_measured_tokens_are_in_the_table() -> None:
    measured = list(table.matrix(ISSUER))
    assert len(measured) == 14
    assert [case.status for case in measured] == [200, 200] + [401] * 12


@pytest.mark.parametrize(
    ("authorization", "challenge"),
    [
        ("", 'Bearer realm="llm.example.org"'),
        (
            f"Bearer {table.KEY_OLD}x",
            'Bearer realm="llm.example.org", error="invalid_token", '
            'error_description="neither a known key nor a token"',
        ),
        (
            f"Bearer {table.KEY_POOR}",
            'Bearer realm="llm.example.org", error="insufficient_scope", '
            'error_description="the credentials lack the scope of this path", scope="inference"',
        ),
    ],
)
def test_the_challenge(authorization: str, challenge: str) -> None:
    assert service.challenge("llm.example.org", judged(authorization)) == challenge


def test_a_path_without_scope_takes_every_identity() -> None:
    assert judged(f"Bearer {table.KEY_POOR}", scope="").status == 204


def test_without_tokens_a_key_is_needed() -> None:
    verdict = judged(CASES[0].authorization, jwt=None)
    assert (verdict.status, verdict.description) == (401, "no such key")


def test_without_a_key_set_a_token_can_not_be_judged_and_a_key_can() -> None:
    assert judged(CASES[0].authorization, keys=None).status == 503
    assert judged(f"Bearer {table.KEY_OLD}", keys=None).status == 204


def test_an_unknown_key_asks_for_a_fetch_only_where_there_is_where_to_fetch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mark = tmp_path / "unknown_key"
    monkeypatch.setattr(service, "UNKNOWN_KEY_MARK", mark)
    unknown = next(case for case in CASES if case.name == "unknown kid").authorization
    assert judged(unknown).status == 401
    assert not mark.exists()
    assert judged(unknown, jwt={**CONFIGURATION["jwt"], "jwks_url": "https://issuer.example/keys"}).status == 401
    assert mark.exists()


# ------------------------------------------------------------------------------------------------------------ files


def written(directory: Path, **jwt: Any) -> Path:
    """The configuration and the key set as files."""
    (directory / "jwks.json").write_text(json.dumps({"keys": KEYS}), encoding="utf-8")
    path = directory / "identity.json"
    tokens = {**CONFIGURATION["jwt"], "jwks_path": str(directory / "jwks.json"), **jwt}
    path.write_text(json.dumps({**CONFIGURATION, "jwt": tokens}), encoding="utf-8")
    return path


def replaced(path: Path, document: Any) -> None:
    """As the role and the refresher do: a new file takes the place of the old one."""
    service.replace_file(path, json.dumps(document))


def test_files_are_read_again_when_they_change(tmp_path: Path) -> None:
    path = written(tmp_path)
    files = service.Files(path)
    assert files.read()[1] == KEYS
    assert files.read() is files.read()
    replaced(tmp_path / "jwks.json", {"keys": KEYS[:1]})
    assert files.read()[1] == KEYS[:1]
    replaced(path, {**CONFIGURATION, "api_keys": {}, "jwt": None})
    assert files.read() == ({**CONFIGURATION, "api_keys": {}, "jwt": None}, None)


def test_a_missing_key_set_is_noticed_when_it_comes(tmp_path: Path) -> None:
    files = service.Files(written(tmp_path))
    (tmp_path / "jwks.json").unlink()
    assert files.read()[1] is None
    replaced(tmp_path / "jwks.json", {"keys": KEYS})
    assert files.read()[1] == KEYS


@pytest.mark.parametrize("text", ["{", "[]", '{"keys": {}}', '"keys"'])
def test_a_broken_key_set_is_none(tmp_path: Path, text: str) -> None:
    (tmp_path / "jwks.json").write_text(text, encoding="utf-8")
    assert service.read_keys(tmp_path / "jwks.json") is None


@pytest.fixture
def answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The service on its socket, and what asks it as NGINX does."""
    path = written(tmp_path)
    monkeypatch.setattr(service.Handler, "files", service.Files(path), raising=False)
    server = service.Server(str(tmp_path / "s"), service.Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()

    def ask(authorization: str | None, scope: str = "") -> tuple[int, dict[str, str]]:
        connection = http.client.HTTPConnection("gateway", timeout=30)
        connection.sock = socket.socket(socket.AF_UNIX)
        connection.sock.connect(str(tmp_path / "s"))
        headers = {"X-Gateway-Scope": scope, **({} if authorization is None else {"Authorization": authorization})}
        connection.request("GET", "/", headers=headers)
        answer = connection.getresponse()
        answer.read()
        connection.close()
        return answer.status, {name: value for name, value in answer.getheaders() if name.startswith("X-Gateway")}

    yield ask, path
    server.shutdown()
    server.server_close()


def test_what_nginx_is_answered(answers: Any) -> None:
    ask, path = answers
    assert ask(f"Bearer {table.KEY_OLD}", table.SCOPE) == (204, {"X-Gateway-Identity": "key:ci"})
    assert ask(None) == (
        401,
        {"X-Gateway-Challenge": 'Bearer realm="llm.example.org"', "X-Gateway-Denial": "no credentials"},
    )
    status, headers = ask(f"Bearer {table.KEY_POOR}", table.SCOPE)
    assert (status, headers["X-Gateway-Identity"]) == (403, "key:poor")
    path.unlink()
    assert ask(f"Bearer {table.KEY_OLD}", table.SCOPE) == (503, {})


# --------------------------------------------------------------------------------------------------------- refresh


def refresher(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: Any) -> Any:
    """One that is answered by a function of the URL."""
    monkeypatch.setattr(service, "UNKNOWN_KEY_MARK", tmp_path / "unknown_key")
    monkeypatch.setattr(service, "fetch", lambda url, authority: answer())
    monkeypatch.setattr(service.time, "time", lambda: 1e9)
    jwt = {"jwks_url": "https://issuer.example/keys", "jwks_ca_path": None, "jwks_refresh_seconds": 300}
    return service.Refresher({**jwt, "jwks_path": str(tmp_path / "jwks.json")})


def good() -> str:
    return json.dumps({"keys": KEYS})


def down() -> str:
    raise OSError("connection refused")


def test_the_pace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answer = [good]

    def fetch() -> str:
        return answer[0]()

    subject = refresher(tmp_path, monkeypatch, fetch)
    assert subject.is_due(1000.0)
    subject.refresh(1000.0)
    assert not subject.is_due(1299.0)
    assert subject.is_due(1300.0)
    (tmp_path / "unknown_key").touch()
    assert not subject.is_due(1029.0)
    assert subject.is_due(1030.0)
    subject.refresh(1030.0)
    assert not subject.is_due(1061.0)
    os.utime(tmp_path / "unknown_key", (1, 1))
    assert subject.is_due(1061.0)
    answer[0] = down
    subject.refresh(1061.0)
    assert not subject.is_due(1090.0)
    assert subject.is_due(1091.0)


@pytest.mark.parametrize(
    ("answer", "fault"),
    [
        (down, "connection refused"),
        (lambda: "<html>", "Expecting value: line 1 column 1 (char 0)"),
        (lambda: '{"keys": []}', "none of its 0 keys has a kid and is for RS256 or ES256"),
        (lambda: "[]", "the answer has no list 'keys'"),
    ],
)
def test_the_last_good_keys_are_never_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], answer: Any, fault: str
) -> None:
    now = [good]

    def fetch() -> str:
        return str(now[0]())

    subject = refresher(tmp_path, monkeypatch, fetch)
    subject.refresh(1000.0)
    now[0] = answer
    subject.refresh(1300.0)
    subject.refresh(1330.0)
    assert service.read_keys(tmp_path / "jwks.json") == KEYS
    assert capsys.readouterr().err.splitlines() == [
        "https://issuer.example/keys: new keys, e1, k1, k2",
        f"https://issuer.example/keys: {fault}; the last good keys go on",
    ]
    assert "gpufleet_identity_keys_fetch_failures_total 2.0\n" in subject.metrics()
    assert "gpufleet_identity_keys_fetched_timestamp_seconds 1000000000.0\n" in subject.metrics()
    now[0] = good
    subject.refresh(1360.0)
    assert capsys.readouterr().err == "https://issuer.example/keys: answers again\n"
    assert "gpufleet_identity_keys_fetch_failing 0.0\n" in subject.metrics()


def test_without_any_keys_it_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    subject = refresher(tmp_path, monkeypatch, down)
    subject.refresh(1000.0)
    assert capsys.readouterr().err == ("https://issuer.example/keys: connection refused; no token can be verified\n")
    assert "gpufleet_identity_keys_fetched_timestamp_seconds 0.0\n" in subject.metrics()


def test_it_ends_when_its_configuration_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    refresher(tmp_path, monkeypatch, good)
    path = written(tmp_path, jwks_url="https://issuer.example/keys")
    (tmp_path / "jwks.json").unlink()
    monkeypatch.setattr(service, "CONFIGURATION", path)
    monkeypatch.setattr(service, "METRICS", tmp_path / "metrics.prom")
    steps = iter(
        [lambda: path.rename(tmp_path / "away"), lambda: (tmp_path / "away").rename(path), lambda: written(tmp_path)]
    )
    monkeypatch.setattr(service.time, "sleep", lambda seconds: next(steps)())
    assert service.main(["refresh"]) == 0
    assert capsys.readouterr().err == ("https://issuer.example/keys: new keys, e1, k1, k2\nthe configuration changed\n")
    assert "gpufleet_identity_keys_fetch_failing 0.0\n" in (tmp_path / "metrics.prom").read_text()
    assert next(steps, None) is None


def test_no_redirect_leads_out_of_tls() -> None:
    follow = service.NoRedirectToPlainHttp().redirect_request
    request = service.urllib.request.Request("https://issuer.example/keys")
    assert follow(request, None, 302, "", {}, "https://other.example/keys").full_url == "https://other.example/keys"
    with pytest.raises(service.urllib.error.URLError, match=r"redirected to http://other\.example/keys, wanted https"):
        follow(request, None, 302, "", {}, "http://other.example/keys")


def test_a_fetch_trusts_only_its_authority(tmp_path: Path) -> None:
    with pytest.raises((OSError, ssl.SSLError)):
        service.fetch("https://127.0.0.1:9/keys", str(tmp_path / "no-such.pem"))


@pytest.mark.parametrize("words", [[], ["serve"], ["verify", "x"]])
def test_the_command_line(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert service.main(words) == 2
    assert capsys.readouterr().err == "usage: identity_service.py verify | refresh\n"


def test_a_missing_configuration_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(service, "CONFIGURATION", tmp_path / "identity.json")
    assert service.main(["verify"]) == 1
    assert "identity_service.py verify: FileNotFoundError" in capsys.readouterr().err
