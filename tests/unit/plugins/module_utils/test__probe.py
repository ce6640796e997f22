# SPDX-License-Identifier: Apache-2.0
"""The inference probe against a real HTTP server in this process, and the table of failure messages."""

from __future__ import annotations

import contextlib
import datetime
import hashlib
import json
import ssl
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from ansible_collections.gpufleet.metal.plugins.module_utils import _probe
from ansible_collections.gpufleet.metal.plugins.module_utils._errors import InvalidInputError

CHAT = {
    "choices": [{"message": {"role": "assistant", "content": "Hi"}, "finish_reason": "length"}],
    "usage": {"prompt_tokens": 5, "completion_tokens": 4},
}
CHUNKS = [
    {"choices": [{"delta": {"role": "assistant", "content": ""}, "finish_reason": None}]},
    {"choices": [{"delta": {"content": "H"}, "finish_reason": None}]},
    {"choices": [{"delta": {"content": "i"}, "finish_reason": "length"}]},
    {"choices": [], "usage": {"prompt_tokens": 5, "completion_tokens": 2}},
]


def events(chunks: list[Any], done: bool = True) -> str:
    """A stream of server-sent events."""
    return "".join(f"data: {json.dumps(chunk)}\n\n" for chunk in chunks) + ("data: [DONE]\n\n" if done else "")


class Engine(BaseHTTPRequestHandler):
    """Answers what the test put into ``answers``: path -> (status, content type, body) or seconds to hang."""

    answers: dict[str, Any]
    seen: list[tuple[str, dict[str, str], Any]]

    def _answer(self) -> None:
        length = int(self.headers.get("Content-Length", 0))
        sent = json.loads(self.rfile.read(length)) if length else None
        self.seen.append((f"{self.command} {self.path}", dict(self.headers), sent))
        answer = self.answers.get(self.path, (404, "application/json", '{"error": {"message": "no such path"}}'))
        if isinstance(answer, list):
            answer = answer.pop(0) if len(answer) > 1 else answer[0]
        if isinstance(answer, (int, float)):
            time.sleep(answer)
            return
        status, kind, body = answer
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("X-Request-Id", "r-1")
        if kind != "text/event-stream":
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body.encode())

    def log_message(self, *args: Any) -> None:
        """Say nothing."""


@contextlib.contextmanager
def engine(**changed: Any) -> Iterator[tuple[str, type[Engine]]]:
    """A server that serves the model ``m`` well, except for what ``changed`` says."""
    answers = {
        "/health": (200, "text/plain", ""),
        "/v1/models": (200, "application/json", json.dumps({"data": [{"id": "m"}, {"id": "a"}]})),
        "/v1/chat/completions": (200, "application/json", json.dumps(CHAT)),
        "/v1/completions": (
            200,
            "application/json",
            json.dumps({"choices": [{"text": "x", "finish_reason": "stop"}], "usage": {}}),
        ),
    }
    answers.update(changed.pop("answers", {}))
    methods = {"do_GET": Engine._answer, "do_POST": Engine._answer}
    handler = type("Handler", (Engine,), {"answers": answers, "seen": [], **methods})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    if "context" in changed:
        server.socket = changed["context"].wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}", handler
    finally:
        server.shutdown()
        server.server_close()


def test_a_completion_and_what_is_known_of_it() -> None:
    with engine() as (url, handler):
        result = _probe.check(_probe.Target(url=url, model="m", api_key="k", headers={"X-Request-Id": "mine"}))
    completion = result["completion"]
    assert (result["health_status"], result["models"], result["request_id"]) == (200, ["a", "m"], "r-1")
    assert (completion["text"], completion["finish_reason"], completion["completion_tokens"]) == ("Hi", "length", 4)
    assert 0 < completion["time_to_first_token_ms"] <= completion["total_ms"]
    assert result["tls"] is None
    path, headers, sent = handler.seen[-1]
    assert path == "POST /v1/chat/completions"
    assert headers["Authorization"] == "Bearer k"
    assert headers["X-Request-Id"] == "mine"
    assert sent == {
        "model": "m",
        "max_tokens": 4,
        "temperature": 0,
        "messages": [{"role": "user", "content": "Hello"}],
    }


def test_a_stream() -> None:
    with engine(answers={"/v1/chat/completions": (200, "text/event-stream", events(CHUNKS))}) as (url, handler):
        completion = _probe.check(_probe.Target(url=url, model="m", stream=True))["completion"]
    assert handler.seen[-1][2]["stream"] is True
    assert (completion["text"], completion["chunks"], completion["completion_tokens"]) == ("Hi", 4, 2)


def test_a_completion_without_a_chat_template() -> None:
    with engine() as (url, _unused):
        completion = _probe.check(_probe.Target(url=url, model="m", api="completion"))["completion"]
    assert completion["text"] == "x"
    assert completion["completion_tokens"] is None


def test_the_path_of_the_url_is_kept_and_a_name_is_resolved_by_the_option() -> None:
    with engine(
        answers={
            "/models/m/v1/models": (200, "application/json", '{"data": [{"id": "m"}]}'),
            "/models/m/v1/chat/completions": (200, "application/json", json.dumps(CHAT)),
        }
    ) as (url, handler):
        port = url.rpartition(":")[2]
        target = _probe.Target(
            url=f"http://llm.example.org:{port}/models/m/",
            model="m",
            health_path="",
            resolve={"llm.example.org": "127.0.0.1"},
        )
        assert _probe.check(target)["completion"]["ok"]
    assert handler.seen[-1][1]["Host"] == f"llm.example.org:{port}"


ERROR_500 = (500, "application/json", '{"error": {"message": "cannot schedule new futures after shutdown"}}')


@pytest.mark.parametrize(
    ("answers", "options", "message", "final"),
    [
        ({"/health": (503, "text/plain", "")}, {}, "GET {url}/health answered 503, wanted 200", False),
        (
            {"/v1/chat/completions": ERROR_500},
            {},
            "POST {url}/v1/chat/completions answered 500 (cannot schedule new futures after shutdown), wanted 200",
            False,
        ),
        (
            {"/v1/models": (401, "application/json", '{"error":"Unauthorized"}')},
            {},
            "GET {url}/v1/models answered 401 (Unauthorized), wanted 200 (option api_key)",
            True,
        ),
        ({}, {"model": "x"}, "{url} doesn't serve the model 'x'; it serves a, m", True),
        (
            {"/v1/models": (200, "text/html", "<html>hello")},
            {},
            "GET {url}/v1/models: not a list of models: <html>hello",
            False,
        ),
        (
            {"/v1/chat/completions": (200, "application/json", "{}")},
            {},
            "POST {url}/v1/chat/completions: not a completion: {}",
            False,
        ),
        (
            {
                "/v1/chat/completions": (
                    200,
                    "application/json",
                    json.dumps({**CHAT, "usage": {"completion_tokens": 0}}),
                )
            },
            {},
            "POST {url}/v1/chat/completions: a completion without tokens (finish_reason 'length', completion_tokens 0)",
            False,
        ),
        (
            {"/v1/chat/completions": (200, "text/event-stream", events(CHUNKS[:2], done=False))},
            {"stream": True},
            "POST {url}/v1/chat/completions: the stream ended after 2 chunks without 'data: [DONE]'",
            False,
        ),
        (
            {"/v1/chat/completions": (200, "text/event-stream", events([{"error": {"message": "EngineCore died"}}]))},
            {"stream": True},
            'POST {url}/v1/chat/completions: the stream broke off with an error: {{"message": "EngineCore died"}}',
            False,
        ),
        (
            {"/v1/chat/completions": 0.5},
            {"timeout": 0.2},
            "POST {url}/v1/chat/completions: no whole answer within 0.2 s (option timeout)",
            False,
        ),
    ],
)
def test_what_is_wrong(answers: dict[str, Any], options: dict[str, Any], message: str, final: bool) -> None:
    with engine(answers=answers) as (url, _unused), pytest.raises(_probe.ProbeError) as raised:
        _probe.check(_probe.Target(**{"url": url, "model": "m", **options}))
    assert str(raised.value) == message.replace("{url}", url).replace("{{", "{").replace("}}", "}")
    assert raised.value.final is final


def test_nothing_listens() -> None:
    with engine() as (url, _unused):
        pass
    address = url.removeprefix("http://")
    with pytest.raises(_probe.ProbeError) as raised:
        _probe.check(_probe.Target(url=url, model="m"))
    assert str(raised.value) == (f"GET http://{address}/health: connection refused by {address}: nothing listens there")


@pytest.mark.parametrize(
    ("url", "found"),
    [
        ("http://192.0.2.7:8000/", ("http", "192.0.2.7", 8000, "")),
        ("https://llm.example.org/models/m", ("https", "llm.example.org", 443, "/models/m")),
        ("http://[2001:db8::1]:8000", ("http", "2001:db8::1", 8000, "")),
    ],
)
def test_split_url(url: str, found: tuple[str, str, int, str]) -> None:
    assert _probe.split_url(url) == found


@pytest.mark.parametrize("url", ["192.0.2.7:8000", "ftp://x", "http://", "http://x/?q=1"])
def test_a_url_that_is_none(url: str) -> None:
    with pytest.raises(InvalidInputError) as raised:
        _probe.split_url(url)
    assert str(raised.value) == (
        f"url {url!r}: wanted http:// or https://, a host, and no query, as in http://192.0.2.7:8000"
    )


class Clock:
    """Time that passes only by sleeping."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


def test_waits_for_a_server_that_starts() -> None:
    clock = Clock()
    health = [(503, "text/plain", ""), (503, "text/plain", ""), (200, "text/plain", "")]
    with engine(answers={"/health": health}) as (url, _unused):
        result = _probe.wait_until_ready(_probe.Target(url=url, model="m"), 60, 2.0, sleep=clock.sleep, clock=clock)
    assert (result["attempts"], result["waited_seconds"]) == (3, 4.0)


def test_gives_up_when_the_time_is_over() -> None:
    clock = Clock()
    with (
        engine(answers={"/health": (503, "text/plain", "")}) as (url, _unused),
        pytest.raises(_probe.ProbeError) as raised,
    ):
        _probe.wait_until_ready(_probe.Target(url=url), 5, 2.0, sleep=clock.sleep, clock=clock)
    assert str(raised.value) == (
        f"not ready after 4 s and 3 attempts; the last one said: GET {url}/health answered 503, wanted 200"
    )


class FakeDocker:
    """The engine's answers about one container."""

    def __init__(self, *states: dict[str, Any]) -> None:
        self.states = list(states)

    def container(self, name: str) -> dict[str, Any] | None:
        return self.states.pop(0) if len(self.states) > 1 else self.states[0]

    def exits(self, name: str, since: int, until: int) -> list[tuple[int, int]]:
        return [(110, 1)]

    def logs(self, name: str, lines: int, until: int | None = None) -> list[str]:
        assert until == 111
        return ["starting", "", "vllm: error: unrecognized arguments: --tensor-paralel 2"]


def state(status: str, restarts: int, identifier: str = "c1") -> dict[str, Any]:
    """A container's inspection."""
    return {"Id": identifier, "RestartCount": restarts, "State": {"Status": status, "ExitCode": 0}}


@pytest.mark.parametrize(
    ("now", "shown"),
    [(state("restarting", 1), "restarting"), (state("running", 1), "running"), (state("exited", 0), "exited")],
)
def test_a_container_that_ends_is_noticed(now: dict[str, Any], shown: str) -> None:
    watch = _probe.ContainerWatch(FakeDocker(state("running", 0), now), "vllm-m-0", clock=lambda: 120.0)  # type: ignore[arg-type]
    with pytest.raises(_probe.ContainerDiedError) as raised:
        watch.look()
    assert str(raised.value) == (
        f"the container 'vllm-m-0' ended with exit status 1 and is {shown}. Most likely cause: this version of vLLM "
        "doesn't know the arguments --tensor-paralel 2 (fleet_models[].arguments). Its last lines:\n"
        "starting\nvllm: error: unrecognized arguments: --tensor-paralel 2"
    )
    assert (raised.value.exit_status, raised.value.final) == (1, True)


def test_a_container_that_runs_is_left_alone() -> None:
    # It was restarted at some time before: that is not this wait's concern.
    watch = _probe.ContainerWatch(FakeDocker(state("running", 3)), "vllm-m-0")  # type: ignore[arg-type]
    watch.look()


def test_a_container_that_is_replaced() -> None:
    watch = _probe.ContainerWatch(FakeDocker(state("running", 0), state("running", 0, "c2")), "x")  # type: ignore[arg-type]
    with pytest.raises(_probe.ProbeError, match=r"^the container 'x' was removed while it was waited for$"):
        watch.look()


@pytest.mark.parametrize(
    ("line", "exit_status", "sentence"),
    [
        (
            "Value error, Total number of attention heads (4) must be divisible by tensor parallel size (3).",
            1,
            (
                "the model has 4 attention heads, which tensor parallel size 3 doesn't divide "
                "(fleet_models[].tensor_parallel_size)"
            ),
        ),
        (
            (
                "ValueError: Free memory on device cuda:0 (10.3/79.2 GiB) on startup is less than desired GPU "
                "memory utilization (0.92, 72.86 GiB). Decrease GPU memory utilization"
            ),
            1,
            (
                "only 10.3/79.2 GiB of GPU memory are free and 0.92, 72.86 GiB are wanted: another process holds "
                "the GPU (find it with nvidia-smi) or fleet_engine.gpu_memory_utilization is too high"
            ),
        ),
        (
            "Free memory on device ... on startup is less than desired GPU memory utilization (0.9, 72 GiB)",
            1,
            (
                "less GPU memory is free than wanted (0.9, 72 GiB): another process holds the GPU "
                "(find it with nvidia-smi) or fleet_engine.gpu_memory_utilization is too high"
            ),
        ),
        (
            (
                "ValueError: Available memory on node 0 (19.07/21.46 GiB) on startup is less than desired CPU "
                "memory utilization (0.99, 21.25 GiB)."
            ),
            1,
            (
                "only 19.07/21.46 GiB of memory are free on NUMA node 0 and 0.99, 21.25 GiB are wanted: "
                "set fleet_engine.cpu_kv_cache_gib"
            ),
        ),
        (
            (
                "To serve at least one request with the model's max seq len (25480), (0.97 GiB KV cache is needed, "
                "which is larger than the available KV cache memory (0.52 GiB). Based on the available memory, "
                "the estimated maximum model length is 13600"
            ),
            1,
            (
                "one request of 25480 tokens needs 0.97 GiB of KV cache and 0.52 GiB are left: "
                "13600 tokens would fit (fleet_models[].context_length)"
            ),
        ),
        (
            "ValueError: No available memory for the cache blocks. Try increasing `gpu_memory_utilization`",
            1,
            (
                "the weights leave no GPU memory for the KV cache: use more GPUs per instance "
                "(fleet_models[].tensor_parallel_size), a smaller quantization, "
                "or a higher fleet_engine.gpu_memory_utilization"
            ),
        ),
        (
            "AssertionError: Not enough allowed NUMA nodes to bind threads of 2 local CPUWorkers",
            1,
            "the CPU build needs VLLM_CPU_OMP_THREADS_BIND with one entry per worker (2 workers)",
        ),
        (
            "vllm: error: unrecognized arguments: --tensor-paralel 2",
            2,
            "this version of vLLM doesn't know the arguments --tensor-paralel 2 (fleet_models[].arguments)",
        ),
        (
            "vllm serve: error: argument --port: invalid int value: 'x'",
            2,
            "vLLM refused the argument --port invalid int value: 'x' (fleet_models[].arguments)",
        ),
        (
            "RuntimeError: Failed to infer device type",
            1,
            (
                "vLLM sees no GPU in the container: check the driver, the CDI specification (nvidia-ctk cdi list) "
                "and fleet_engine.accelerator"
            ),
        ),
        (
            "FileNotFoundError: No such file or directory: /models/tiny/model.safetensors",
            1,
            (
                "the model's file /models/tiny/model.safetensors is missing or not readable for the container's user "
                "(role model_store, vllm_user)"
            ),
        ),
        (
            "PermissionError: [Errno 13] Permission denied: '/cache/vllm'",
            1,
            "the container's user may not use /cache/vllm (vllm_user, and the owner of vllm_cache_directory)",
        ),
        (
            "RuntimeError: operator torchvision::nms does not exist",
            1,
            "the image holds a torchvision built for another torch: rebuild or replace the image",
        ),
        (
            "No package metadata was found for vllm",
            1,
            "the image lacks the package metadata of vllm: rebuild or replace the image",
        ),
        ("nothing special", 137, "it was killed: by the kernel for want of memory (see dmesg), or by an operator"),
        ("nothing special", 127, "the image has no command 'vllm' (vllm_entrypoint)"),
        ("nothing special", 0, None),
    ],
)
def test_likely_cause(line: str, exit_status: int, sentence: str | None) -> None:
    assert _probe.likely_cause(["INFO start", line, "INFO end"], exit_status) == sentence


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A self-signed certificate for llm.example.org and its key, as files."""
    hashes = pytest.importorskip("cryptography.hazmat.primitives.hashes")
    from cryptography import x509
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    directory = tmp_path_factory.mktemp("tls")
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "llm.example.org")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("llm.example.org")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    (directory / "crt").write_bytes(certificate.public_bytes(pem))
    private = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    (directory / "key").write_bytes(private)
    return {"crt": str(directory / "crt"), "key": str(directory / "key")}


@contextlib.contextmanager
def tls_engine(certificates: dict[str, str], clients: str | None = None, **changed: Any) -> Iterator[dict[str, Any]]:
    """An engine behind TLS 1.3 only, and the options that reach it by name. ``clients`` signed whom it answers."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.load_cert_chain(certificates["crt"], certificates["key"])
    if clients:
        context.load_verify_locations(clients)
        context.verify_mode = ssl.CERT_REQUIRED
    with engine(context=context) as (url, _unused):
        port = url.rpartition(":")[2]
        yield {
            "url": f"https://llm.example.org:{port}",
            "model": "m",
            "ca_path": certificates["crt"],
            "resolve": {"llm.example.org": "127.0.0.1", "other.example.org": "127.0.0.1"},
            **changed,
        }


def test_tls(certificates: dict[str, str]) -> None:
    with tls_engine(certificates, tls_version="1.3") as options:
        result = _probe.check(_probe.Target(**options))
    assert result["tls"]["version"] == "TLSv1.3"
    assert result["tls"]["cipher"].startswith("TLS_")
    with open(certificates["crt"], encoding="ascii") as file:
        der = ssl.PEM_cert_to_DER_cert(file.read())
    assert result["tls"]["certificate_sha256"] == hashlib.sha256(der).hexdigest()


def test_a_client_says_who_it_is(certificates: dict[str, str]) -> None:
    """Without a certificate the server ends the connection, and the message says what may be missing."""
    named = {"client_cert": certificates["crt"], "client_key": certificates["key"]}
    with tls_engine(certificates, clients=certificates["crt"]) as options:
        assert _probe.check(_probe.Target(**options, **named))["completion"]["ok"]
        with pytest.raises(_probe.ProbeError) as raised:
            _probe.check(_probe.Target(**options))
    assert "; after the handshake, so it may want a certificate of its clients" in str(raised.value)
    assert not raised.value.final


def test_a_client_certificate_that_is_not_there(certificates: dict[str, str]) -> None:
    with tls_engine(certificates) as options, pytest.raises(InvalidInputError) as raised:
        _probe.check(_probe.Target(**options, client_cert="/nowhere/crt", client_key="/nowhere/key"))
    assert str(raised.value) == (
        "client_cert '/nowhere/crt' and client_key '/nowhere/key': can't be read as a certificate and its key in PEM "
        "(No such file or directory)"
    )


def test_tls_1_2_is_refused(certificates: dict[str, str]) -> None:
    with tls_engine(certificates, tls_version="1.2") as options, pytest.raises(_probe.ProbeError) as raised:
        _probe.check(_probe.Target(**options))
    assert ": TLS failed: " in str(raised.value)
    assert raised.value.final


@pytest.mark.parametrize(
    ("changed", "reason", "checked"),
    [
        ({"ca_path": None}, "self-signed certificate", "the system CAs (option ca_path)"),
        ({"url": "other"}, "Hostname mismatch, certificate is not valid for 'other.example.org'.", "(option ca_path)"),
    ],
)
def test_certificates_are_checked(
    certificates: dict[str, str], changed: dict[str, Any], reason: str, checked: str
) -> None:
    with tls_engine(certificates) as options:
        if changed.get("url"):
            changed = {"url": options["url"].replace("llm", "other")}
        with pytest.raises(_probe.ProbeError) as raised:
            _probe.check(_probe.Target(**{**options, **changed}))
        assert f": the certificate was refused: {reason}" in str(raised.value)
        assert str(raised.value).endswith(checked)
        assert raised.value.final
        unchecked = _probe.Target(**{**options, **changed, "validate_certs": False})
        assert _probe.check(unchecked)["completion"]["ok"]
