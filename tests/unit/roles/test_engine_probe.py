# SPDX-License-Identifier: Apache-2.0
"""The program that kubelet asks: against a server that behaves as engines were measured to."""

from __future__ import annotations

import json
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509

from ansible_collections.gpufleet.metal.roles.vllm.files import engine_probe
from ansible_collections.gpufleet.metal.roles.vllm.files.engine_probe import Engine, Prober, State, main, sum_of_metrics
from ansible_collections.gpufleet.metal.tests.unit.roles.nginx.test_probe_agent_tls import NAME, Authority

METRICS = """# HELP vllm:iteration_tokens_total Histogram of number of tokens per engine_step.
# TYPE vllm:iteration_tokens_total histogram
vllm:iteration_tokens_total_bucket{{engine="0",le="1.0",model_name="m"}} 1.0
vllm:iteration_tokens_total_count{{engine="0",model_name="m"}} {iterations}
vllm:iteration_tokens_total_created{{engine="0",model_name="m"}} 1.7e9
vllm:num_requests_running{{engine="0",model_name="m"}} {running}
vllm:num_requests_waiting{{engine="0",model_name="m"}} 0.0
"""


class Server(ThreadingHTTPServer):
    """An engine whose ways a test sets. ``moves``: iterations between two looks at the metrics."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.iterations = 10.0
        self.moves = 0.0
        self.running = 0.0
        self.status = 200
        self.hangs = False
        self.metrics = True
        self.asked: list[dict[str, Any]] = []
        self.looked = 0
        self.released = threading.Event()


class Handler(BaseHTTPRequestHandler):
    """Answers /metrics at once, also of an engine that hangs, and completions if the engine works."""

    server: Server

    def do_GET(self) -> None:
        self.server.looked += 1
        self.server.iterations += self.server.moves
        body = METRICS.format(iterations=self.server.iterations, running=self.server.running)
        self._answer(200 if self.server.metrics else 404, body)

    def do_POST(self) -> None:
        payload = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.asked.append({"path": self.path, **payload})
        if self.server.hangs:
            self.server.released.wait(20)
            return
        if self.server.status == 200:
            self.server.iterations += 1
        self._answer(self.server.status, json.dumps({"choices": [{"text": "a"}]}))

    def _answer(self, status: int, body: str) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body.encode())

    def log_message(self, *args: Any) -> None:
        """Say nothing."""


@pytest.fixture
def server() -> Iterator[Server]:
    found = Server()
    thread = threading.Thread(target=found.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield found
    found.released.set()
    found.shutdown()
    thread.join()
    found.server_close()


class Clock:
    """Time that passes only by sleeping, or when a test says so."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def prober(server: Server, clock: Clock, tmp_path: Path) -> Prober:
    return Prober(Engine(server.server_port, "m", "chat", 0.5), tmp_path / "state.json", clock, clock.sleep)


def known(prober: Prober) -> State:
    return engine_probe.read_state(prober.state)


# ----------------------------------------------------------------------------------------------------------- start


def test_started_is_an_engine_that_completed_something(prober: Prober, server: Server) -> None:
    assert prober.start() == "a completion came back"
    assert server.asked == [
        {
            "path": "/v1/chat/completions",
            "model": "m",
            "max_tokens": 1,
            "temperature": 0,
            "messages": [{"role": "user", "content": "ping"}],
        }
    ]
    assert known(prober) == State(11.0)


def test_a_start_forgets_the_container_before(prober: Prober) -> None:
    engine_probe.write_state(prober.state, State(99.0, 1.0))
    prober.start()
    assert known(prober) == State(11.0, None)


def test_an_engine_that_is_not_there_yet_is_waited_for(server: Server, tmp_path: Path) -> None:
    looks = []

    def sleep(seconds: float) -> None:
        looks.append(seconds)
        server.status = 200

    server.status = 503
    prober = Prober(Engine(server.server_port, "m", "chat", 5), tmp_path / "s", time.monotonic, sleep)
    assert prober.start() == "a completion came back"
    assert looks == [1.0]


def test_an_engine_that_does_not_come_fails_within_its_time(server: Server, clock: Clock, tmp_path: Path) -> None:
    server.status = 503
    prober = Prober(Engine(server.server_port, "m", "chat", 5), tmp_path / "s", clock, clock.sleep)
    with pytest.raises(engine_probe.ProbeError, match="503"):
        prober.start()
    assert clock.now <= 1005
    assert len(server.asked) == 5


def test_a_refused_request_is_not_waited_for(prober: Prober, server: Server) -> None:
    """It stays refused: the model has no chat template, say."""
    server.status = 400
    with pytest.raises(engine_probe.ProbeError, match="400"):
        prober.start()
    assert len(server.asked) == 1


def test_nobody_listens(tmp_path: Path, clock: Clock) -> None:
    prober = Prober(Engine(9, "m", "chat", 2), tmp_path / "s", clock, clock.sleep)
    with pytest.raises(engine_probe.ProbeError, match=r"POST /v1/chat/completions: .*refused"):
        prober.start()


# ----------------------------------------------------------------------------------------------------------- ready


def test_an_engine_that_works_is_asked_for_nothing(prober: Prober, server: Server) -> None:
    prober.start()
    server.moves = 3
    for __ in range(5):
        assert prober.ready() == "iterations move"
    assert len(server.asked) == 1


def test_an_idle_engine_is_asked_for_one_token(prober: Prober, server: Server) -> None:
    prober.start()
    for __ in range(3):
        assert prober.ready() == "a completion came back"
    assert len(server.asked) == 4


def test_a_busy_engine_stays_ready_though_the_probe_waits_in_its_queue(prober: Prober, server: Server) -> None:
    prober.start()
    server.hangs = True
    before = prober.engine.metrics(engine_probe.ITERATIONS)
    engine_probe.write_state(prober.state, State(before))

    asked = len(server.asked)

    def busy() -> None:
        # Between what it had done before the probe came, and what it has done when the probe gives up.
        while len(server.asked) == asked:
            time.sleep(0.01)
        server.iterations += 1

    thread = threading.Thread(target=busy)
    thread.start()
    assert prober.ready().startswith("busy, iterations move (POST /v1/chat/completions: no answer in 0.5 s)")
    thread.join()
    assert known(prober).stuck_since is None


def test_an_engine_that_refuses_for_want_of_room_is_ready_while_it_works(prober: Prober, server: Server) -> None:
    """--max-num-queued-reqs: 503 while the queue is full."""
    engine_probe.write_state(prober.state, State(11.0))
    server.status, server.moves = 503, 1
    assert prober.ready().startswith("busy, iterations move")


def test_an_engine_that_hangs_is_not_ready(prober: Prober, server: Server, clock: Clock) -> None:
    prober.start()
    server.hangs = True
    for __ in range(2):
        with pytest.raises(engine_probe.ProbeError, match=r"no answer in 0\.5 s"):
            prober.ready()
        clock.now += 15
    assert known(prober) == State(11.0, 1000.0)


def test_an_engine_that_hung_is_ready_again_by_a_completion_only(prober: Prober, server: Server) -> None:
    engine_probe.write_state(prober.state, State(5.0, 900.0))
    assert prober.ready() == "a completion came back"
    assert len(server.asked) == 1
    assert known(prober) == State(11.0, None)


def test_a_refusal_is_not_ready_and_no_evidence_of_a_hang(prober: Prober, server: Server) -> None:
    engine_probe.write_state(prober.state, State(10.0))
    server.status = 404
    with pytest.raises(engine_probe.ProbeError, match="404"):
        prober.ready()
    assert known(prober) == State(10.0, None)


def test_without_metrics_completions_decide(prober: Prober, server: Server) -> None:
    server.metrics = False
    assert prober.ready() == "a completion came back"
    server.hangs = True
    with pytest.raises(engine_probe.ProbeError):
        prober.ready()
    assert known(prober).stuck_since == 1000.0


# ------------------------------------------------------------------------------------------------------------ live


@pytest.mark.parametrize("idle", [0, 10**6])
def test_an_idle_engine_lives(prober: Prober, server: Server, clock: Clock, idle: int) -> None:
    prober.start()
    clock.now += idle
    assert prober.live(180) == "no request is missing"
    assert len(server.asked) == 1


def test_a_hang_is_a_hang_after_its_time(prober: Prober, server: Server, clock: Clock) -> None:
    prober.start()
    server.hangs = True
    with pytest.raises(engine_probe.ProbeError):
        prober.ready()
    clock.now += 179
    assert prober.live(180) == "no progress for 179 s, 180 s are allowed"
    clock.now += 2
    with pytest.raises(engine_probe.ProbeError, match="no iteration for 181 s although a completion was asked for"):
        prober.live(180)


def test_an_engine_that_moves_again_lives(prober: Prober, server: Server, clock: Clock) -> None:
    engine_probe.write_state(prober.state, State(10.0, 0.0))
    server.iterations = 11
    assert prober.live(180) == "iterations move again"


@pytest.mark.parametrize("content", ["", "{", "[]", '{"iterations": 1}'])
def test_a_state_that_can_not_be_read_kills_nobody(prober: Prober, content: str) -> None:
    prober.state.write_text(content)
    assert prober.live(180) == "no request is missing"


# ----------------------------------------------------------------------------------------------------------- drain


def test_a_drain_ends_when_nothing_is_in_hand(prober: Prober, clock: Clock) -> None:
    assert prober.drain(30) == "no request is in hand"
    assert clock.now == 1001


def test_a_drain_ends_in_its_time(prober: Prober, server: Server, clock: Clock) -> None:
    server.running = 2
    assert prober.drain(30) == "2 requests are in hand, the engine lets them finish"
    assert clock.now <= 1030


def test_nothing_is_waited_for_where_nobody_answers(prober: Prober, server: Server, clock: Clock) -> None:
    server.metrics = False
    assert prober.drain(30) == "the engine does not answer, so nothing is waited for"
    assert clock.now == 1000


# ------------------------------------------------------------------------------------------------------ mutual TLS


@pytest.fixture
def pair(server: Server, tmp_path: Path) -> tuple[str, str]:
    """Have the server answer over mutual TLS only; return a client's certificate and key."""
    authority = Authority(tmp_path, "authority")
    certificate, key = authority.issue(NAME, x509.ExtendedKeyUsageOID.SERVER_AUTH, "tls")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    context.load_verify_locations(authority.path)
    context.verify_mode = ssl.CERT_REQUIRED
    # The handshake is the thread's of the connection, or one that hangs would keep all others out.
    server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    client, secret = authority.issue("client", x509.ExtendedKeyUsageOID.CLIENT_AUTH, "client")
    return str(client), str(secret)


def test_with_a_certificate_the_questions_are_the_same(
    server: Server, pair: tuple[str, str], clock: Clock, tmp_path: Path
) -> None:
    engine = Engine(server.server_port, "m", "chat", 2, True, pair)
    prober = Prober(engine, tmp_path / "state", clock, clock.sleep)
    assert prober.start() == "a completion came back"
    assert known(prober) == State(11.0)
    assert prober.drain(30) == "no request is in hand"


@pytest.mark.usefixtures("pair")
def test_without_one_a_handshake_has_to_do(server: Server, clock: Clock, tmp_path: Path) -> None:
    prober = Prober(Engine(server.server_port, "m", "chat", 2, True), tmp_path / "state", clock, clock.sleep)
    said = "a handshake came back, and no certificate is here to ask for more"
    assert prober.start() == prober.ready() == said
    assert prober.live(180) == "no request is missing"
    assert prober.drain(30).startswith("what is in hand can't be asked for without a certificate")
    assert server.asked == []
    assert server.looked == 0


def test_a_server_process_that_hangs_is_seen_by_the_handshake(server: Server, clock: Clock, tmp_path: Path) -> None:
    """One without TLS, which waits for a request line, never answers a handshake."""
    server.RequestHandlerClass = type("Silent", (Handler,), {"handle": lambda self: self.server.released.wait(20)})
    prober = Prober(Engine(server.server_port, "m", "chat", 0.3, True), tmp_path / "state", clock, clock.sleep)
    with pytest.raises(engine_probe.ProbeError, match=r"handshake: .*timed out"):
        prober.ready()
    clock.now += 181
    with pytest.raises(engine_probe.ProbeError, match=r"no handshake for 181 s \(handshake: .*timed out"):
        prober.live(180)


@pytest.mark.usefixtures("pair")
def test_a_server_process_that_answers_again_lives(server: Server, clock: Clock, tmp_path: Path) -> None:
    prober = Prober(Engine(server.server_port, "m", "chat", 2, True), tmp_path / "state", clock, clock.sleep)
    engine_probe.write_state(prober.state, State(None, 0.0))
    assert prober.live(180).startswith("a handshake came back")


def test_a_certificate_without_its_key(server: Server, tmp_path: Path) -> None:
    with pytest.raises(SystemExit):
        main(_arguments(server, tmp_path, "ready", "--tls", "--client-certificate", "a"))


# ------------------------------------------------------------------------------------------------------- as a program


def _arguments(server: Server, tmp_path: Path, question: str, *more: str) -> list[str]:
    port, state = str(server.server_port), str(tmp_path / "state")
    return [question, "--port", port, "--model", "m", "--state", state, "--seconds", "5", *more]


def test_the_exit_status_answers(server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for question in ("start", "ready", "live", "drain"):
        assert main(_arguments(server, tmp_path, question, "--api", "completion")) == 0
    assert server.asked[0]["path"] == "/v1/completions"
    server.status = 400
    assert main(_arguments(server, tmp_path, "ready")) == 1
    assert "ready: POST /v1/chat/completions: 400" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("a 1\n", 1.0),
        ('a{x="1"} 1\na{x="2"} 2.5\n', 3.5),
        ('a{x="} 7"} 1\n', 1.0),
        ("ab 1\na_total 2\n", None),
        ("a one\na\n", None),
        ("# a 1\n", None),
    ],
)
def test_sums_of_series(text: str, wanted: float | None) -> None:
    assert sum_of_metrics(text, "a") == wanted


def test_a_further_process_outlasts_the_one_that_answers() -> None:
    """As long as somebody takes connections there it waits, and not longer than it may."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        port = listener.getsockname()[1]
        ticks = iter(range(100))
        said = engine_probe.outlast("127.0.0.1", port, 3, clock=lambda: next(ticks), sleep=lambda __: None)
        assert said == f"127.0.0.1:{port} still answers, and the time is over"
    said = engine_probe.outlast("127.0.0.1", port, 60, sleep=lambda __: None)
    assert said.startswith(f"127.0.0.1:{port} answers no more (")


def test_outlasting_takes_the_address_from_the_environment(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["outlast", "--port", "1", "--seconds", "5", "--address-variable", "LWS_LEADER_ADDRESS"]
    monkeypatch.delenv("LWS_LEADER_ADDRESS", raising=False)
    with pytest.raises(SystemExit):
        main(words)
    assert "outlast needs --address-variable" in capsys.readouterr().err
    monkeypatch.setenv("LWS_LEADER_ADDRESS", "127.0.0.1")
    assert main(words) == 0
    assert "127.0.0.1:1 answers no more" in capsys.readouterr().out


def test_questions_about_an_engine_need_to_know_it(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["ready", "--port", "1", "--seconds", "5"])
    assert "ready needs --model and --state" in capsys.readouterr().err
