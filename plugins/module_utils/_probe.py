# SPDX-License-Identifier: Apache-2.0
# PRIVATE to the collection: do not import this from outside, it may change without notice.
"""Ask an OpenAI-compatible server for one real completion and say precisely what went wrong.

``/health`` alone proves nothing: an engine that hangs, drains or dies on its first request still answers 200 there
(measured on vLLM 0.32.0). So ready means: a completion came back. Standard library only; runs on hosts and controllers.
"""

from __future__ import annotations

import hashlib
import http.client
import json
import re
import socket
import ssl
import time
import urllib.parse
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ansible_collections.gpufleet.metal.plugins.module_utils._docker import DockerClient
from ansible_collections.gpufleet.metal.plugins.module_utils._errors import FleetError, InvalidInputError

LOG_LINES_READ = 200
LOG_LINES_SHOWN = 15
BODY_SHOWN = 300


class ProbeError(FleetError):
    """The server did not do what was asked. ``final`` means that waiting can't help."""

    def __init__(self, message: str, final: bool = False) -> None:
        super().__init__(message)
        self.final = final


class ContainerDiedError(ProbeError):
    """The watched container ended or was restarted while it was waited for."""

    def __init__(self, message: str, cause: str | None, exit_status: int | None, log: list[str]) -> None:
        super().__init__(message, final=True)
        self.cause = cause
        self.exit_status = exit_status
        self.log = log


@dataclass(frozen=True)
class Target:
    """Where and how to ask. ``timeout`` is in seconds and bounds one whole request."""

    url: str
    model: str | None = None
    health_path: str | None = "/health"
    api: str = "chat"
    prompt: str = "Hello"
    max_tokens: int = 4
    stream: bool = False
    timeout: float = 30.0
    api_key: str | None = None
    ca_path: str | None = None
    client_cert: str | None = None
    client_key: str | None = None
    validate_certs: bool = True
    tls_version: str | None = None
    resolve: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass
class Answer:
    """One HTTP answer. Times are in milliseconds from the start of the request (connection included)."""

    status: int
    headers: dict[str, str]
    http_version: str
    tls: dict[str, Any] | None
    body: bytes
    chunks: list[tuple[float, Any]]
    first_byte_ms: float
    total_ms: float
    stream_complete: bool = False


#: X509_V_FLAG_PARTIAL_CHAIN of OpenSSL; the name is in ssl from Python 3.10 on.
_PARTIAL_CHAIN = 0x80000
_TLS_VERSIONS = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}


def _context(target: Target) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=target.ca_path)
    except (OSError, ssl.SSLError) as error:
        raise InvalidInputError(f"ca_path {target.ca_path!r}: can't be read as PEM certificates ({error})") from error
    # Whoever is named is trusted, also a certificate that is no authority's, as Python does from 3.13 on by itself.
    context.verify_flags |= _PARTIAL_CHAIN
    if target.client_cert is not None:
        try:
            context.load_cert_chain(target.client_cert, target.client_key)
        except (OSError, ssl.SSLError) as error:
            raise InvalidInputError(
                f"client_cert {target.client_cert!r} and client_key {target.client_key!r}: can't be read as a "
                f"certificate and its key in PEM ({error.strerror or error})"
            ) from error
    if not target.validate_certs:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if target.tls_version is not None:
        context.minimum_version = context.maximum_version = _TLS_VERSIONS[target.tls_version]
    return context


def split_url(url: str) -> tuple[str, str, int, str]:
    """``(scheme, host, port, path without trailing slash)`` of a base URL; InvalidInputError if it isn't one."""
    parts = urllib.parse.urlsplit(url)
    try:
        port = parts.port
    except ValueError as error:
        raise InvalidInputError(f"url {url!r}: {error}") from error
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
        raise InvalidInputError(
            f"url {url!r}: wanted http:// or https://, a host, and no query, as in http://192.0.2.7:8000"
        )
    return parts.scheme, parts.hostname, port or (443 if parts.scheme == "https" else 80), parts.path.rstrip("/")


def request(target: Target, method: str, path: str, payload: dict[str, Any] | None = None) -> Answer:
    """Send one request; raises ProbeError with the cause when no whole answer comes back within ``timeout``."""
    scheme, host, port, prefix = split_url(target.url)
    address = target.resolve.get(host, host)
    where = f"{method} {scheme}://{host}:{port}{prefix}{path}"
    started = time.monotonic()
    deadline = started + target.timeout
    connection = http.client.HTTPConnection(host, port)
    tls, unanswered = None, False
    try:
        raw = socket.create_connection((address, port), timeout=target.timeout)
        connection.sock = raw
        if scheme == "https":
            wrapped = _context(target).wrap_socket(raw, server_hostname=host)
            connection.sock = wrapped
            cipher = wrapped.cipher()
            shown = hashlib.sha256(wrapped.getpeercert(binary_form=True) or b"").hexdigest()
            tls = {
                "version": wrapped.version(),
                "cipher": cipher[0] if cipher else None,
                "certificate_sha256": shown,
            }
            unanswered = True
        headers = {"Accept": "application/json", "Connection": "close", **target.headers}
        headers["Host"] = host if port == (443 if scheme == "https" else 80) else f"{_bracketed(host)}:{port}"
        body = None
        if payload is not None:
            headers["Content-Type"] = "application/json"
            body = json.dumps(payload).encode()
        if target.api_key:
            headers["Authorization"] = f"Bearer {target.api_key}"
        connection.request(method, prefix + path, body=body, headers=headers)
        response = connection.getresponse()
        unanswered = False
        first_byte = time.monotonic()
        answer = Answer(
            status=response.status,
            headers={name.lower(): value for name, value in response.getheaders()},
            http_version=f"HTTP/{response.version // 10}.{response.version % 10}",
            tls=tls,
            body=b"",
            chunks=[],
            first_byte_ms=_ms(first_byte - started),
            total_ms=0.0,
        )
        if answer.headers.get("content-type", "").startswith("text/event-stream"):
            _read_events(response, connection, answer, started, deadline, where)
        else:
            answer.body = _read_body(response, connection, deadline, where)
        answer.total_ms = _ms(time.monotonic() - started)
        return answer
    except ssl.SSLCertVerificationError as error:
        raise ProbeError(
            f"{where}: the certificate was refused: {error.verify_message or error}; "
            f"checked for the name {host!r} against {target.ca_path or 'the system CAs'} (option ca_path)",
            final=True,
        ) from error
    except ssl.SSLError as error:
        raise ProbeError(
            f"{where}: TLS failed: {error.reason or error}{_not_accepted(target, unanswered)}",
            final=target.tls_version is not None,
        ) from error
    except socket.timeout as error:
        raise ProbeError(f"{where}: no whole answer within {target.timeout:g} s (option timeout)") from error
    except socket.gaierror as error:
        raise ProbeError(f"{where}: the name {address!r} doesn't resolve: {error.strerror} (option resolve)") from error
    except ConnectionRefusedError as error:
        raise ProbeError(f"{where}: connection refused by {address}:{port}: nothing listens there") from error
    except http.client.HTTPException as error:
        raise ProbeError(
            f"{where}: the answer isn't valid HTTP or was cut off: {type(error).__name__} {error}"
            f"{_not_accepted(target, unanswered)}"
        ) from error
    except OSError as error:
        raise ProbeError(f"{where}: {error.strerror or error}{_not_accepted(target, unanswered)}") from error
    finally:
        connection.close()


def _not_accepted(target: Target, unanswered: bool) -> str:
    """What may be wrong when a server ends a connection between handshake and answer: it judges its client there."""
    if not unanswered:
        return ""
    if target.client_cert is None:
        return "; after the handshake, so it may want a certificate of its clients (options client_cert, client_key)"
    return f"; after the handshake, so it may not accept {target.client_cert} (option client_cert)"


def _left(connection: http.client.HTTPConnection, deadline: float) -> None:
    """Give the next read only the time that is left."""
    left = deadline - time.monotonic()
    if left <= 0:
        raise socket.timeout
    if connection.sock is not None:
        connection.sock.settimeout(left)


def _read_body(
    response: http.client.HTTPResponse, connection: http.client.HTTPConnection, deadline: float, where: str
) -> bytes:
    data = bytearray()
    while True:
        _left(connection, deadline)
        part = response.read1(65536)
        if not part:
            break
        data += part
    if response.length:
        raise ProbeError(f"{where}: the answer was cut off, {response.length} bytes are missing")
    return bytes(data)


def _read_events(
    response: http.client.HTTPResponse,
    connection: http.client.HTTPConnection,
    answer: Answer,
    started: float,
    deadline: float,
    where: str,
) -> None:
    """Read server-sent events; every ``data:`` line but ``[DONE]`` is a JSON chunk with its time of arrival."""
    while True:
        _left(connection, deadline)
        line = response.readline()
        if not line:
            return
        text = line.decode("utf-8", "replace").strip()
        if not text.startswith("data:"):
            continue
        data = text[len("data:") :].strip()
        if data == "[DONE]":
            answer.stream_complete = True
            continue
        try:
            answer.chunks.append((_ms(time.monotonic() - started), json.loads(data)))
        except ValueError as error:
            raise ProbeError(f"{where}: an event isn't JSON: {data[:BODY_SHOWN]!r}") from error


def check(target: Target) -> dict[str, Any]:
    """Health, list of models and, when ``target.model`` is set, one completion; ProbeError at the first fault."""
    result: dict[str, Any] = {"health_status": None, "models": [], "completion": None}
    answer = None
    if target.health_path:
        answer = request(target, "GET", target.health_path)
        result["health_status"] = answer.status
        if answer.status != http.client.OK:
            raise ProbeError(f"GET {target.url}{target.health_path} answered {_status(answer)}, wanted 200")
    if target.model is not None:
        listing = request(target, "GET", "/v1/models")
        result["models"] = model_ids(listing, target)
        if target.model not in result["models"]:
            raise ProbeError(
                f"{target.url} doesn't serve the model {target.model!r}; "
                f"it serves {', '.join(result['models']) or 'nothing'}",
                final=True,
            )
        answer, result["completion"] = complete(target)
    if answer is not None:
        result["tls"] = answer.tls
        result["http_version"] = answer.http_version
        result["request_id"] = answer.headers.get("x-request-id")
        result["headers"] = answer.headers
    return result


def model_ids(answer: Answer, target: Target) -> list[str]:
    """The names that ``/v1/models`` lists."""
    where = f"GET {target.url}/v1/models"
    _wanted_ok(answer, where)
    try:
        return sorted(str(entry["id"]) for entry in json.loads(answer.body)["data"])
    except (ValueError, KeyError, TypeError) as error:
        raise ProbeError(f"{where}: not a list of models: {_shown(answer.body)}") from error


def complete(target: Target) -> tuple[Answer, dict[str, Any]]:
    """One completion; returns the raw answer and what is worth knowing of it."""
    path = "/v1/chat/completions" if target.api == "chat" else "/v1/completions"
    where = f"POST {target.url}{path}"
    payload: dict[str, Any] = {"model": target.model, "max_tokens": target.max_tokens, "temperature": 0}
    if target.api == "chat":
        payload["messages"] = [{"role": "user", "content": target.prompt}]
    else:
        payload["prompt"] = target.prompt
    if target.stream:
        payload["stream"] = True
        payload["stream_options"] = {"include_usage": True}
    answer = request(target, "POST", path, payload)
    _wanted_ok(answer, where)
    if target.stream:
        return answer, _streamed(answer, where)
    try:
        document = json.loads(answer.body)
        choice = document["choices"][0]
        text = choice["message"]["content"] if target.api == "chat" else choice["text"]
        usage = document.get("usage") or {}
    except (ValueError, LookupError, TypeError) as error:
        raise ProbeError(f"{where}: not a completion: {_shown(answer.body)}") from error
    return answer, _completion(text, choice.get("finish_reason"), usage, answer, answer.first_byte_ms, 0, where)


def _streamed(answer: Answer, where: str) -> dict[str, Any]:
    if not answer.headers.get("content-type", "").startswith("text/event-stream"):
        raise ProbeError(
            f"{where}: asked for a stream, got {answer.headers.get('content-type')!r}: {_shown(answer.body)}"
        )
    text, first = "", None
    reason: Any = None
    usage: dict[str, Any] = {}
    for at_ms, chunk in answer.chunks:
        if not isinstance(chunk, dict):
            raise ProbeError(f"{where}: an event is {chunk!r}, wanted an object")
        if "error" in chunk:
            raise ProbeError(f"{where}: the stream broke off with an error: {json.dumps(chunk['error'])[:BODY_SHOWN]}")
        usage = chunk.get("usage") or usage
        for choice in chunk.get("choices") or []:
            piece = (choice.get("delta") or {}).get("content") or choice.get("text") or ""
            if piece and first is None:
                first = at_ms
            text += piece
            reason = choice.get("finish_reason") or reason
    if not answer.stream_complete:
        raise ProbeError(f"{where}: the stream ended after {len(answer.chunks)} chunks without 'data: [DONE]'")
    first = first if first is not None else answer.first_byte_ms
    return _completion(text, reason, usage, answer, first, len(answer.chunks), where)


def _completion(
    text: Any, reason: Any, usage: Mapping[str, Any], answer: Answer, first_ms: float, chunks: int, where: str
) -> dict[str, Any]:
    tokens = usage.get("completion_tokens")
    if reason is None or tokens == 0:
        raise ProbeError(
            f"{where}: a completion without tokens (finish_reason {reason!r}, completion_tokens {tokens!r})"
        )
    return {
        "ok": True,
        "status": answer.status,
        "text": text or "",
        "finish_reason": reason,
        "prompt_tokens": usage.get("prompt_tokens"),
        "completion_tokens": tokens,
        "time_to_first_token_ms": first_ms,
        "total_ms": answer.total_ms,
        "chunks": chunks,
    }


def _wanted_ok(answer: Answer, where: str) -> None:
    if answer.status == http.client.OK:
        return
    # These four are the answer of a server that works: asking again gives the same.
    final = answer.status in (400, 401, 403, 404)
    hint = " (option api_key)" if answer.status in (401, 403) else ""
    raise ProbeError(f"{where} answered {_status(answer)}, wanted 200{hint}", final=final)


def _status(answer: Answer) -> str:
    body = answer.body or json.dumps([chunk for _unused, chunk in answer.chunks]).encode()
    try:
        error = json.loads(body)["error"]
        detail = error["message"] if isinstance(error, dict) else str(error)
    except (ValueError, LookupError, TypeError):
        detail = _shown(answer.body)
    return f"{answer.status} ({detail})" if detail else str(answer.status)


def _shown(body: bytes) -> str:
    return re.sub(r"\s+", " ", body[:BODY_SHOWN].decode("utf-8", "replace")).strip()


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _ms(seconds: float) -> float:
    return round(seconds * 1000, 1)


def wait_until_ready(
    target: Target,
    wait_seconds: float,
    interval: float = 2.0,
    watch: ContainerWatch | None = None,
    sleep: Callable[[float], None] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
) -> dict[str, Any]:
    """Repeat :func:`check` until it succeeds, can't succeed any more, or ``wait_seconds`` are over."""
    started = clock()
    attempts = 0
    while True:
        attempts += 1
        try:
            result = check(target)
        except ProbeError as error:
            if watch is not None:
                watch.look()
            waited = clock() - started
            if error.final:
                raise
            if waited + interval > wait_seconds:
                if wait_seconds <= 0:
                    raise
                raise ProbeError(
                    f"not ready after {waited:.0f} s and {attempts} attempts; the last one said: {error}"
                ) from error
            sleep(interval)
            continue
        result["attempts"] = attempts
        result["waited_seconds"] = round(clock() - started, 1)
        return result


class ContainerWatch:
    """Notices that a container ended or was restarted since the watch began."""

    def __init__(self, client: DockerClient, name: str, clock: Callable[[], float] = time.time) -> None:
        self._client = client
        self._name = name
        self._clock = clock
        self._since = int(clock())
        state = client.container(name)
        if state is None:
            raise ProbeError(f"there is no container {name!r} to watch (option watch_container)", final=True)
        self._id = state.get("Id")
        self._restarts = int(state.get("RestartCount", 0))

    def look(self) -> None:
        """Raise ContainerDiedError with exit status, likely cause and last lines when the container isn't well."""
        state = self._client.container(self._name)
        if state is None or state.get("Id") != self._id:
            raise ProbeError(f"the container {self._name!r} was removed while it was waited for", final=True)
        status = state["State"]["Status"]
        restarts = int(state.get("RestartCount", 0))
        if status == "running" and restarts <= self._restarts:
            return
        if status in ("created", "paused") and restarts <= self._restarts:
            return
        now = int(self._clock()) + 1
        ends = self._client.exits(self._name, self._since, now)
        ended_at, exit_status = ends[-1] if ends else (now, state["State"].get("ExitCode"))
        log = self._client.logs(self._name, LOG_LINES_READ, until=ended_at + 1)
        cause = likely_cause(log, exit_status)
        shown = last_run(log)[-LOG_LINES_SHOWN:]
        said = f"exit status {exit_status}" if exit_status is not None else "unknown exit status"
        lines = "\n".join(shown)
        raise ContainerDiedError(
            f"the container {self._name!r} ended with {said} and is {status}. "
            f"Most likely cause: {cause or 'not recognised, see its log'}. Its last lines:\n{lines}",
            cause,
            exit_status,
            shown,
        )


@dataclass(frozen=True)
class _Cause:
    pattern: re.Pattern[str]
    sentence: str


def _cause(pattern: str, sentence: str) -> _Cause:
    return _Cause(re.compile(pattern), sentence)


CAUSES = (
    # Texts as vLLM 0.32.0 prints them. The order matters: the specific ones come first, and what follows from another
    # fault (a failed worker makes the engine core fail, which makes the server fail) has no entry.
    _cause(
        r"Total number of attention heads \((?P<heads>\d+)\) must be divisible by tensor parallel size \((?P<tp>\d+)\)",
        "the model has {heads} attention heads, which tensor parallel size {tp} doesn't divide "
        "(fleet_models[].tensor_parallel_size)",
    ),
    _cause(
        r"Free memory on device .*?\((?P<free>[\d.]+/[\d.]+ GiB)\)? on startup is less than desired GPU memory "
        r"utilization \((?P<wanted>[^)]*)\)",
        "only {free} of GPU memory are free and {wanted} are wanted: another process holds the GPU "
        "(find it with nvidia-smi) or fleet_engine.gpu_memory_utilization is too high",
    ),
    _cause(
        r"less than desired GPU memory utilization \((?P<wanted>[^)]*)\)",
        "less GPU memory is free than wanted ({wanted}): another process holds the GPU (find it with nvidia-smi) "
        "or fleet_engine.gpu_memory_utilization is too high",
    ),
    _cause(
        r"Available memory on node (?P<node>\d+) \((?P<free>[\d.]+/[\d.]+ GiB)\) on startup is less than desired "
        r"CPU memory utilization \((?P<wanted>[^)]*)\)",
        "only {free} of memory are free on NUMA node {node} and {wanted} are wanted: set fleet_engine.cpu_kv_cache_gib",
    ),
    _cause(
        r"max seq len \((?P<length>\d+)\).*?(?P<need>[\d.]+) GiB KV cache is needed.*?available KV cache memory "
        r"\((?P<have>[\d.]+) GiB\).*?estimated maximum model length is (?P<fits>\d+)",
        "one request of {length} tokens needs {need} GiB of KV cache and {have} GiB are left: "
        "{fits} tokens would fit (fleet_models[].context_length)",
    ),
    _cause(
        r"No available memory for the cache blocks",
        "the weights leave no GPU memory for the KV cache: use more GPUs per instance "
        "(fleet_models[].tensor_parallel_size), a smaller quantization, "
        "or a higher fleet_engine.gpu_memory_utilization",
    ),
    _cause(
        r"Not enough allowed NUMA nodes to bind threads of (?P<workers>\d+) local CPUWorkers",
        "the CPU build needs VLLM_CPU_OMP_THREADS_BIND with one entry per worker ({workers} workers)",
    ),
    _cause(
        r"unrecognized arguments: (?P<arguments>.+)",
        "this version of vLLM doesn't know the arguments {arguments} (fleet_models[].arguments)",
    ),
    _cause(
        r"error: argument (?P<argument>\S+): (?P<reason>.+)",
        "vLLM refused the argument {argument} {reason} (fleet_models[].arguments)",
    ),
    _cause(
        r"Failed to infer device type",
        "vLLM sees no GPU in the container: check the driver, the CDI specification (nvidia-ctk cdi list) "
        "and fleet_engine.accelerator",
    ),
    _cause(
        r"No such file or directory: '?(?P<path>/models/[^'\s]+)",
        "the model's file {path} is missing or not readable for the container's user (role model_store, vllm_user)",
    ),
    _cause(
        r"Permission denied: '?(?P<path>/[^'\s]+)",
        "the container's user may not use {path} (vllm_user, and the owner of vllm_cache_directory)",
    ),
    _cause(
        r"Read-only file system: '?(?P<path>/[^'\s]+)",
        "{path} is on the container's read-only root file system (vllm_read_only)",
    ),
    _cause(
        r"No space left on device",
        "a file system is full: shared memory (fleet_engine.shm_size_gib) or the disk below vllm_cache_directory",
    ),
    _cause(
        r"CUDA out of memory|torch\.OutOfMemoryError",
        "the GPU ran out of memory: lower fleet_engine.gpu_memory_utilization or use more GPUs per instance "
        "(fleet_models[].tensor_parallel_size)",
    ),
    _cause(
        r"(?:driver version is insufficient|NVIDIA driver on your system is too old)",
        "the NVIDIA driver is too old for this image's CUDA version",
    ),
    _cause(
        r"(?:system not yet initialized|error 802)",
        "the NVSwitch fabric isn't up: the service nvidia-fabricmanager must run with the driver's exact version",
    ),
    _cause(
        r"operator torchvision::nms does not exist",
        "the image holds a torchvision built for another torch: rebuild or replace the image",
    ),
    _cause(
        r"No package metadata was found for (?P<package>\S+)",
        "the image lacks the package metadata of {package}: rebuild or replace the image",
    ),
    _cause(
        r"Model architectures \[(?P<names>[^\]]*)\] (?:are not supported|failed to be inspected)",
        "this version of vLLM can't serve the architecture {names}",
    ),
    _cause(
        r"[Aa]ddress already in use",
        "the port inside the container is taken (does an argument set --port twice?)",
    ),
)


def likely_cause(log: Iterable[str], exit_status: int | None = None) -> str | None:
    """The most likely reason in one sentence, from an engine's output and exit status; None when none is known."""
    text = "\n".join(log)
    for known in CAUSES:
        found = known.pattern.search(text)
        if found:
            return known.sentence.format(**{name: value or "?" for name, value in found.groupdict().items()})
    if exit_status == 137:
        return "it was killed: by the kernel for want of memory (see dmesg), or by an operator"
    if exit_status in (126, 127):
        return "the image has no command 'vllm' (vllm_entrypoint)"
    return None


def last_run(log: list[str]) -> list[str]:
    """The lines without empty ones; tracebacks are kept, because vLLM prints the reason above the last one."""
    return [line.rstrip() for line in log if line.strip()]
