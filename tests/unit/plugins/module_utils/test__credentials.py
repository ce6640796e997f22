# SPDX-License-Identifier: Apache-2.0
"""What a gateway takes is what it answers; a sentence about a credential holds no part of it."""

from __future__ import annotations

import base64
import http.server
import threading
from collections.abc import Iterator

import pytest

from ansible_collections.gpufleet.metal.plugins.module_utils import _credentials
from ansible_collections.gpufleet.metal.plugins.module_utils._probe import Target

GOOD, OLD, ODD = "canary-good", "canary-old", "canary-odd"
ANSWERS: dict[str, int | str] = {GOOD: 200, OLD: 401, ODD: "connection refused"}


@pytest.mark.parametrize(
    ("accepted", "refused", "faults"),
    [
        ([], [], []),
        ([GOOD], [OLD], []),
        (
            [GOOD, OLD],
            [GOOD],
            [
                "credential 2 of 2 to be accepted: answered 401, wanted 200",
                "credential 1 of 1 to be refused: answered 200, wanted 401",
            ],
        ),
        (
            [ODD],
            [ODD],
            [
                "credential 1 of 1 to be accepted: connection refused, wanted 200",
                "credential 1 of 1 to be refused: connection refused, wanted 401",
            ],
        ),
    ],
)
def test_what_is_not_as_wanted(accepted: list[str], refused: list[str], faults: list[str]) -> None:
    assert _credentials.credential_faults(accepted, refused, ANSWERS.__getitem__) == faults


def test_it_asks_until_all_is_as_wanted_or_the_time_is_over() -> None:
    now = [0.0]
    answers = iter([401, 401, 200])

    def sleep(seconds: float) -> None:
        now[0] += seconds

    def clock() -> float:
        return now[0]

    assert _credentials.wait_for_credentials([GOOD], [], lambda _key: next(answers), 30, 1, sleep, clock) == []
    assert now == [2.0]
    assert _credentials.wait_for_credentials([OLD], [], ANSWERS.__getitem__, 3, 1, sleep, clock) == [
        "credential 1 of 1 to be accepted: answered 401, wanted 200"
    ]
    assert now == [5.0]


class _Gateway(http.server.BaseHTTPRequestHandler):
    def log_message(self, *_arguments: object) -> None:
        """Stay quiet."""

    def do_GET(self) -> None:
        """Take one key, for one path, and one login, for another."""
        token = base64.b64encode(f"pull:{GOOD}".encode()).decode()
        good = (self.path, self.headers["Authorization"]) in [
            ("/v1/models", f"Bearer {GOOD}"),
            ("/v2/", f"Basic {token}"),
        ]
        self.send_response(200 if good else 401)
        self.send_header("Content-Length", "0")
        self.end_headers()


@pytest.fixture(name="gateway")
def fixture_gateway() -> Iterator[str]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Gateway) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


def test_a_real_answer(gateway: str) -> None:
    assert _credentials.status_of(Target(url=gateway), "/v1/models", GOOD) == 200
    assert _credentials.status_of(Target(url=gateway), "/v1/models", OLD) == 401


def test_no_answer_is_no_refusal() -> None:
    said = _credentials.status_of(Target(url="http://127.0.0.1:1", timeout=2), "/v1/models", GOOD)
    assert "nothing listens there" in str(said)
    assert GOOD not in str(said)


def test_what_a_registry_answers_to_a_login(gateway: str) -> None:
    target = Target(url=f"{gateway}/v2")
    assert _credentials.login_status(target, "pull", GOOD) == 200
    assert _credentials.login_status(target, "pull", OLD) == 401
    assert _credentials.login_status(target, "other", GOOD) == 401
    said = _credentials.login_status(Target(url="http://127.0.0.1:1/v2", timeout=2), "pull", GOOD)
    assert "nothing listens there" in str(said)
    assert GOOD not in str(said)
