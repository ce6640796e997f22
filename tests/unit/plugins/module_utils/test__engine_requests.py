# SPDX-License-Identifier: Apache-2.0
"""What an engine has in hand, and waiting until that is nothing."""

from __future__ import annotations

import http.server
import threading
from collections.abc import Iterator

import pytest

from ansible_collections.gpufleet.metal.plugins.module_utils import _engine_requests as engine
from ansible_collections.gpufleet.metal.plugins.module_utils._probe import ProbeError, Target

METRICS = """# HELP vllm:num_requests_running Number of requests in model execution batches.
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine="0",model_name="a } b"} 3.0
vllm:num_requests_waiting{engine="0",model_name="a } b"} 1e+01
vllm:num_requests_waiting_by_reason{engine="0",model_name="m",reason="capacity"} 99.0
"""


@pytest.mark.parametrize(
    ("metrics", "expected"),
    [
        (METRICS, engine.InHand(3, 10)),
        # A series per part of a data-parallel engine.
        (METRICS + METRICS.replace('"0"', '"1"'), engine.InHand(6, 20)),
        ("vllm:num_requests_running 0.0\nvllm:num_requests_waiting 0.0 1700000000\n", engine.InHand(0, 0)),
        ("vllm:num_requests_running 0.0\n", None),
        ("vllm:num_requests_running NaN\nvllm:num_requests_waiting 0.0\n", None),
        ("", None),
    ],
)
def test_requests_in_hand(metrics: str, expected: engine.InHand | None) -> None:
    assert engine.requests_in_hand(metrics) == expected


class Clock:
    """Time that passes only while somebody sleeps."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


def wait(looks: list[int], wait_seconds: float, settle_seconds: float) -> tuple[engine.InHand, float]:
    """Wait for an engine that shows these numbers of running requests, the last one for ever."""
    clock, queue = Clock(), list(looks)
    return engine.wait_until_idle(
        lambda: engine.InHand(queue.pop(0) if len(queue) > 1 else queue[0], 0),
        "engine",
        wait_seconds,
        settle_seconds,
        sleep=clock.sleep,
        clock=clock,
    )


@pytest.mark.parametrize(
    ("looks", "settle_seconds", "waited"),
    [([0], 0, 0.0), ([0], 2, 2.0), ([4, 2, 0], 2, 4.0), ([0, 0, 1, 0], 2, 5.0)],
)
def test_idle_means_idle_on_end(looks: list[int], settle_seconds: float, waited: float) -> None:
    assert wait(looks, 60, settle_seconds) == (engine.InHand(0, 0), waited)


def test_a_busy_engine_is_not_waited_for_without_end() -> None:
    with pytest.raises(
        engine.StillBusyError,
        match=r"^engine: 2 requests running and 0 waiting after 10 s, wanted none for 2 s$",
    ):
        wait([2], 10, 2)


@pytest.fixture(name="server")
def fixture_server() -> Iterator[http.server.ThreadingHTTPServer]:
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = METRICS.encode() if self.path == "/metrics" else b"no metrics"
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *arguments: object) -> None:
            """Say nothing."""

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def test_read_asks_the_engine(server: http.server.ThreadingHTTPServer) -> None:
    url = f"http://127.0.0.1:{server.server_address[1]}"
    assert engine.read(Target(url=url)) == engine.InHand(3, 10)
    with pytest.raises(ProbeError, match=r"/other/metrics: HTTP 200, wanted vllm:num_requests_running and"):
        engine.read(Target(url=f"{url}/other"))
