# SPDX-License-Identifier: Apache-2.0
"""Tell kubelet how the engine in this pod is. It comes as a ConfigMap and runs in the engine's container.

An engine that hangs still answers /health, and its gauges show no request (measured on vLLM 0.32.0). Only its count of
iterations tells, or a completion. So:

- start: a completion came back. Polls within its time, so that a slow period does not delay what is ready.
- ready: the count moved since the last look, which costs nothing; or else a completion of one token came back. One that
  did not in time is no fault if the count moved meanwhile: the engine is busy, and it was queued behind others.
- live: not so long as the count stands still although a completion was asked for. It asks for none itself: ``ready``
  writes down since when one has been missing, and a count that moved since then clears the engine. Without that
  evidence the engine lives; a restart costs every request in hand.
- drain: wait until no request is in hand, or the time is over.
- outlast: wait until the process that answers, in another pod, answers no more, or the time is over. What it has in
  hand needs this one.

With mutual TLS an engine answers only somebody who shows a client's certificate, and an engine is given none, so that
one that is broken into can't ask the others. Then a handshake has to do, for which the engine's server process must
be alive: it listens only when the model is loaded, and a hang behind it is for the gateways to see, which ask for
completions all the time. With a certificate (--client-certificate) the questions are the same as without TLS.

It needs Python 3.9 and its standard library.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import socket
import ssl
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

ITERATIONS = "vllm:iteration_tokens_total_count"
IN_HAND = ("vllm:num_requests_running", "vllm:num_requests_waiting")
METRICS_SECONDS = 3.0
"""How long /metrics may take. It is served by the process that takes requests, not by the engine behind it."""

PAUSE_SECONDS = 1.0
"""Between two tries of ``start``, and between two looks of ``drain`` and ``outlast``."""

LOOKS_WITHOUT_REQUESTS = 2
"""In a row, before nothing is in hand: a request that is being read is in no gauge yet."""


class ProbeError(Exception):
    """The engine did not do what was asked. ``evidence``: of a hang, as an answer that refuses the request is not."""

    def __init__(self, message: str, evidence: bool = True) -> None:
        super().__init__(message)
        self.evidence = evidence


@dataclass(frozen=True)
class State:
    """What one look leaves for the next. Times are those of the monotonic clock, which all of the node share."""

    iterations: float | None = None
    stuck_since: float | None = None


def read_state(path: Path) -> State:
    """Return what the last look left; nothing is known where there is none, or none that can be read."""
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        return State(document["iterations"], document["stuck_since"])
    except (OSError, ValueError, KeyError, TypeError):
        return State()


def write_state(path: Path, state: State) -> None:
    """Put the state in place whole: ``live`` may be reading."""
    beside = path.with_name(f"{path.name}.{os.getpid()}")
    beside.write_text(json.dumps(asdict(state)), encoding="utf-8")
    beside.replace(path)


def sum_of_metrics(text: str, *names: str) -> float | None:
    """Add up all series of these metrics in Prometheus' text format; None if there is none."""
    total, found = 0.0, False
    for line in text.splitlines():
        name = line.split("{", 1)[0].split(" ", 1)[0]
        if name in names:
            words = line.rsplit("}", 1)[-1].split() if "{" in line else line.split()[1:]
            try:
                total += float(words[0])
            except (IndexError, ValueError):
                continue
            found = True
    return total if found else None


@dataclass(frozen=True)
class Engine:
    """How the engine is asked."""

    port: int
    model: str
    api: str
    timeout: float
    tls: bool = False
    #: A client's certificate and its key.
    pair: tuple[str, str] | None = None

    @property
    def answers(self) -> bool:
        """Return whether it would answer us: with mutual TLS only somebody with a certificate."""
        return not self.tls or self.pair is not None

    def context(self) -> ssl.SSLContext:
        """Return how TLS is spoken. Nothing is verified: over the loopback of its own pod nobody else answers."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        # Up to 1.2 the handshake itself fails without a certificate.
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        if self.pair is not None:
            context.load_cert_chain(*self.pair)
        return context

    def shake_hands(self, timeout: float) -> None:
        """Have the server process take a connection and finish a handshake. Raises ProbeError."""
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout) as plain:
                self.context().wrap_socket(plain).close()
        except OSError as fault:
            raise ProbeError(f"handshake: {fault or type(fault).__name__}") from fault

    def prove(self, timeout: float) -> str:
        """Have it do the most that it does for us; return what came back. Raises ProbeError."""
        if self.answers:
            self.complete(timeout)
            return "a completion came back"
        self.shake_hands(timeout)
        return "a handshake came back, and no certificate is here to ask for more"

    def ask(self, method: str, path: str, timeout: float, payload: dict[str, Any] | None = None) -> str:
        """Return the body of a 200. Raises ProbeError."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)
        if self.tls:
            connection = http.client.HTTPSConnection("127.0.0.1", self.port, timeout=timeout, context=self.context())
        body = json.dumps(payload) if payload is not None else None
        try:
            connection.request(method, path, body, {"Content-Type": "application/json"} if body else {})
            answer = connection.getresponse()
            text = answer.read().decode("utf-8", "replace")
        except (OSError, http.client.HTTPException) as fault:
            reason = f"no answer in {timeout:g} s" if isinstance(fault, TimeoutError) else str(fault)
            raise ProbeError(f"{method} {path}: {reason or type(fault).__name__}") from fault
        finally:
            connection.close()
        if answer.status != http.client.OK:
            refused = 400 <= answer.status < 500
            shown = " ".join(text.split())[:200]
            raise ProbeError(f"{method} {path}: {answer.status} {shown}, wanted 200", evidence=not refused)
        return text

    def metrics(self, *names: str) -> float | None:
        """Return the sum of metrics; None if they can't be had."""
        if not self.answers:
            return None
        try:
            return sum_of_metrics(self.ask("GET", "/metrics", METRICS_SECONDS), *names)
        except ProbeError:
            return None

    def complete(self, timeout: float) -> None:
        """Have one token generated. Raises ProbeError."""
        payload: dict[str, Any] = {"model": self.model, "max_tokens": 1, "temperature": 0}
        if self.api == "chat":
            path, payload["messages"] = "/v1/chat/completions", [{"role": "user", "content": "ping"}]
        else:
            path, payload["prompt"] = "/v1/completions", "ping"
        text = self.ask("POST", path, timeout, payload)
        try:
            json.loads(text)["choices"][0]
        except (ValueError, LookupError, TypeError) as fault:
            raise ProbeError(f"POST {path}: no completion: {' '.join(text.split())[:200]}") from fault


@dataclass(frozen=True)
class Prober:
    """The four questions."""

    engine: Engine
    state: Path
    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep

    def start(self) -> str:
        """Wait for the first proof. What an earlier container of this pod left is forgotten."""
        deadline = self.clock() + self.engine.timeout
        while True:
            try:
                said = self.engine.prove(max(1.0, deadline - self.clock()))
            except ProbeError as fault:
                if not fault.evidence or self.clock() + PAUSE_SECONDS >= deadline:
                    raise
                self.sleep(PAUSE_SECONDS)
                continue
            write_state(self.state, State(self.engine.metrics(ITERATIONS)))
            return said

    def ready(self) -> str:
        """Return why it is ready. Raises ProbeError."""
        last = read_state(self.state)
        before = self.engine.metrics(ITERATIONS)
        if (
            last.stuck_since is None
            and before is not None
            and last.iterations is not None
            and before != last.iterations
        ):
            write_state(self.state, State(before))
            return "iterations move"
        asked = self.clock()
        try:
            said = self.engine.prove(self.engine.timeout)
        except ProbeError as fault:
            after = self.engine.metrics(ITERATIONS)
            if before is not None and after is not None and after != before:
                write_state(self.state, State(after))
                return f"busy, iterations move ({fault})"
            known = next((count for count in (after, before, last.iterations) if count is not None), None)
            state = replace(last, iterations=known)
            if fault.evidence and last.stuck_since is None:
                state = replace(state, stuck_since=asked)
            write_state(self.state, state)
            raise
        write_state(self.state, State(self.engine.metrics(ITERATIONS)))
        return said

    def live(self, hang_seconds: float) -> str:
        """Return why it lives. Raises ProbeError when it has not moved for so long though it was asked."""
        state = read_state(self.state)
        if state.stuck_since is None:
            return "no request is missing"
        stuck = self.clock() - state.stuck_since
        if stuck < hang_seconds:
            return f"no progress for {stuck:.0f} s, {hang_seconds:g} s are allowed"
        if not self.engine.answers:
            try:
                return self.engine.prove(METRICS_SECONDS)
            except ProbeError as fault:
                raise ProbeError(f"no handshake for {stuck:.0f} s ({fault})") from fault
        now = self.engine.metrics(ITERATIONS)
        if now is not None and now != state.iterations:
            return "iterations move again"
        raise ProbeError(f"no iteration for {stuck:.0f} s although a completion was asked for")

    def drain(self, seconds: float) -> str:
        """Wait until nothing is in hand. Says what is left: the engine itself lets it finish."""
        if not self.engine.answers:
            return "what is in hand can't be asked for without a certificate, the engine lets it finish"
        deadline = self.clock() + seconds
        quiet, left = 0, None
        while self.clock() + METRICS_SECONDS + PAUSE_SECONDS <= deadline:
            left = self.engine.metrics(*IN_HAND)
            if left is None:
                return "the engine does not answer, so nothing is waited for"
            quiet = quiet + 1 if left == 0 else 0
            if quiet >= LOOKS_WITHOUT_REQUESTS:
                return "no request is in hand"
            self.sleep(PAUSE_SECONDS)
        return f"{0 if left is None else left:.0f} requests are in hand, the engine lets them finish"


def outlast(
    address: str,
    port: int,
    seconds: float,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> str:
    """Wait until nobody takes connections at an address any more."""
    deadline = clock() + seconds
    while clock() < deadline:
        try:
            socket.create_connection((address, port), METRICS_SECONDS).close()
        except OSError as fault:
            return f"{address}:{port} answers no more ({fault or type(fault).__name__})"
        sleep(PAUSE_SECONDS)
    return f"{address}:{port} still answers, and the time is over"


def main(arguments: Sequence[str]) -> int:
    """Answer one question by the exit status; what is printed becomes the event's message."""
    parser = argparse.ArgumentParser(prog="engine_probe.py", description="Tell how the engine in this pod is.")
    parser.add_argument("question", choices=["start", "ready", "live", "drain", "outlast"])
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--address-variable", help="environment variable with the address of who is to be outlasted")
    parser.add_argument("--model")
    parser.add_argument("--api", choices=["chat", "completion"], default="chat")
    parser.add_argument("--state", type=Path, help="file that one look leaves for the next")
    parser.add_argument("--seconds", type=float, required=True, help="how long an answer, a hang or a drain may take")
    parser.add_argument("--tls", action="store_true", help="the engine answers over mutual TLS")
    parser.add_argument("--client-certificate", help="to be asked over TLS; its key is --client-key")
    parser.add_argument("--client-key")
    given = parser.parse_args(arguments)
    if (given.client_certificate is None) is not (given.client_key is None):
        parser.error("--client-certificate and --client-key go together")
    if given.question == "outlast":
        if not os.environ.get(given.address_variable or ""):
            parser.error("outlast needs --address-variable, the name of a variable that has an address")
        print(f"outlast: {outlast(os.environ[given.address_variable], given.port, given.seconds)}")
        return 0
    if given.model is None or given.state is None:
        parser.error(f"{given.question} needs --model and --state")
    pair = (given.client_certificate, given.client_key) if given.client_key else None
    engine = Engine(given.port, given.model, given.api, given.seconds, given.tls, pair)
    prober = Prober(engine, given.state)
    try:
        if given.question == "start":
            said = prober.start()
        elif given.question == "ready":
            said = prober.ready()
        elif given.question == "live":
            said = prober.live(given.seconds)
        else:
            said = prober.drain(given.seconds)
    except ProbeError as fault:
        print(f"{given.question}: {fault}", file=sys.stderr)
        return 1
    print(f"{given.question}: {said}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
