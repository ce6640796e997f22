# SPDX-License-Identifier: Apache-2.0
"""Watch the engines behind this gateway, and prove every reload of NGINX by its effect.

Open-source NGINX has no active health checks. This program is the gateway's: it probes each engine, takes those out
that fail and brings those back that answer again, by rewriting an include that holds nothing but the ``server`` lines
of each upstream group. It needs Python 3.9 and its standard library, and runs on the gateway only.

Why a reload is proved: ``nginx -t`` and the reload's exit status are both 0 in cases where the master process keeps
the old configuration (a listen port taken by another process, a shared memory zone whose key changed under the same
name). So each reload puts a new build id into an include, and only an answer with that id, from a loopback listener
of the new workers, counts.

It also says how near the gateway is to its limits. Open-source NGINX counts no refusals: it only tells the log which
limit refused a request. So the agent follows the access log and counts. (njs could count in NGINX's memory, but Debian
12 has none that is new enough, and a reload of another configuration would forget.) No label is what a client wrote:
who reaches a limit is in the log.

Words:

- health: a GET that tells whether the server process answers. It stays 200 while the engine behind it hangs.
- progress: the engine's own count of iterations moved, or a completion of one token came back.
- available: neither health nor progress say otherwise.
- in rotation: NGINX sends requests there, by the build that its workers answer. Wanted in rotation: what the next
  reload would bring; the two differ while a reload waits for its turn or does not succeed.
- fail open: if no peer of a group is available, all are put in rotation, because a probe that is wrong about
  everything is likelier than a dead fleet, and because NGINX's own error is no better than the engine's.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import fcntl
import ipaddress
import json
import os
import re
import secrets
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

DEFAULT_CONFIGURATION = "/etc/gpufleet/probe_agent.json"

MAX_HEAD_BYTES = 64 * 1024
MAX_BODY_BYTES = 8 * 1024 * 1024
"""An answer longer than this is cut: /metrics of a busy engine is some hundred kilobytes."""

PROOFS_WANTED = 3
"""New connections in a row that must meet the new build id: old workers still accept for about 0.1 s after the new."""

GRACE_AFTER_EMERGENCY_SECONDS = 4.0
"""How long to hope on after an [emerg] line: NGINX itself tries a bind() again for 2.5 s."""

LONGEST_BACKOFF_SECONDS = 300.0
"""The daemon's longest wait between two tries of a reload that fails."""

LOG_PART_BYTES = 1024 * 1024
"""How much of the access log is in memory at once. A line is far shorter: NGINX takes 64 KiB of headers."""

LOG_ROUND_BYTES = 64 * LOG_PART_BYTES
"""How much of it is read in one round, and how much at most is read again after a restart of the agent."""

REFUSALS = (
    ("address", "rate"),
    ("address", "concurrent"),
    ("identity", "rate"),
    ("identity", "concurrent"),
    ("request", "body"),
)
"""The limits that refuse requests: of whom, and which."""


class AgentError(Exception):
    """Something that the operator must know; the message says what to look at."""


class ReloadError(AgentError):
    """The new configuration is not being served. The previous includes are back in place."""


class BusyError(AgentError):
    """Another process of this agent holds the lock."""


# -------------------------------------------------------------------------------------------------- configuration


@dataclass(frozen=True)
class Thresholds:
    """When a peer falls out and comes back. Seconds and counts in a row."""

    interval_seconds: float
    timeout_seconds: float
    fall: int
    rise: int


@dataclass(frozen=True)
class Peer:
    """One engine: a line of an upstream group. ``key`` is unique in the whole configuration."""

    upstream: str
    model: str
    name: str
    address: str
    port: int
    weight: int

    @property
    def key(self) -> str:
        """Return what the state is stored under."""
        return f"{self.upstream} {self.name}"

    @property
    def endpoint(self) -> str:
        """Return address and port as NGINX and Prometheus write them."""
        literal = f"[{self.address}]" if ":" in self.address else self.address
        return f"{literal}:{self.port}"


@dataclass(frozen=True)
class Limit:
    """How much one address or one identity may ask for; 0 stands for no limit."""

    per: str
    requests_per_second: int
    burst: int
    concurrent: int


@dataclass(frozen=True)
class Tls:
    """How engines are asked over TLS: the name that all of their certificates have, and this gateway's files."""

    server_name: str
    certificate_path: str
    certificate_key_path: str
    ca_path: str

    @staticmethod
    def from_json(section: Mapping[str, Any] | None) -> Tls | None:
        """Read the section; None without one. Raises KeyError."""
        return Tls(**{entry.name: str(section[entry.name]) for entry in fields(Tls)}) if section else None


@dataclass(frozen=True)
class Configuration:
    """What the role wrote; see ``from_json`` for the file's shape."""

    nginx_binary: str
    nginx_configuration: str
    nginx_pid_file: str
    nginx_error_log: str
    nginx_start_command: tuple[str, ...]
    listener_port: int
    include_directory: Path
    state_directory: Path
    runtime_directory: Path
    health_path: str
    health: Thresholds
    progress_enabled: bool
    progress: Thresholds
    progress_metric: str
    progress_metrics_path: str
    progress_completion_path: str
    reload_minimum_interval_seconds: float
    reload_timeout_seconds: float
    max_fails: int
    fail_timeout_seconds: int
    peers: tuple[Peer, ...]
    access_log: Path
    limits: tuple[Limit, ...]
    body_bytes: int
    further_metrics: tuple[Path, ...] = ()
    tls: Tls | None = None

    @property
    def upstreams(self) -> tuple[str, ...]:
        """Return the names of the groups, in the order of the file."""
        return tuple(dict.fromkeys(peer.upstream for peer in self.peers))

    def of(self, upstream: str) -> tuple[Peer, ...]:
        """Return the peers of a group."""
        return tuple(peer for peer in self.peers if peer.upstream == upstream)

    @staticmethod
    def from_json(document: Any) -> Configuration:
        """Read the role's JSON. Raises AgentError that names the missing or wrong key."""
        try:
            nginx, directories = document["nginx"], document["directories"]
            health, progress, limits = document["health"], document["progress"], document["limits"]
            peers = tuple(
                Peer(
                    upstream=str(upstream["name"]),
                    model=str(upstream["model"]),
                    name=str(server["name"]),
                    address=str(ipaddress.ip_address(server["address"])),
                    port=int(server["port"]),
                    weight=int(server["weight"]),
                )
                for upstream in document["upstreams"]
                for server in upstream["servers"]
            )
            return Configuration(
                nginx_binary=str(nginx["binary"]),
                nginx_configuration=str(nginx["configuration"]),
                nginx_pid_file=str(nginx["pid_file"]),
                nginx_error_log=str(nginx["error_log"]),
                nginx_start_command=tuple(str(word) for word in nginx["start_command"]),
                listener_port=int(nginx["listener_port"]),
                include_directory=Path(directories["includes"]),
                state_directory=Path(directories["state"]),
                runtime_directory=Path(directories["runtime"]),
                health_path=str(health["path"]),
                health=_thresholds(health),
                progress_enabled=bool(progress["enabled"]),
                progress=_thresholds(progress),
                progress_metric=str(progress["metric"]),
                progress_metrics_path=str(progress["metrics_path"]),
                progress_completion_path=str(progress["completion_path"]),
                reload_minimum_interval_seconds=float(document["reload"]["minimum_interval_seconds"]),
                reload_timeout_seconds=float(document["reload"]["timeout_seconds"]),
                max_fails=int(document["server_options"]["max_fails"]),
                fail_timeout_seconds=int(document["server_options"]["fail_timeout_seconds"]),
                peers=peers,
                access_log=Path(limits["access_log"]),
                limits=tuple(
                    Limit(
                        per=per,
                        requests_per_second=int(limits[per]["requests_per_second"]),
                        burst=int(limits[per]["burst"]),
                        concurrent=int(limits[per]["concurrent"]),
                    )
                    for per in ("address", "identity")
                ),
                body_bytes=size_in_bytes(str(limits["body_size"])),
                further_metrics=tuple(Path(path) for path in document.get("further_metrics", ())),
                tls=Tls.from_json(document.get("tls")),
            )
        except KeyError as fault:
            raise AgentError(f"the configuration lacks the key {fault}") from fault
        except (TypeError, ValueError) as fault:
            raise AgentError(f"the configuration is not as the role writes it: {fault}") from fault


def _thresholds(section: Mapping[str, Any]) -> Thresholds:
    return Thresholds(
        interval_seconds=float(section["interval_seconds"]),
        timeout_seconds=float(section["timeout_seconds"]),
        fall=int(section["fall"]),
        rise=int(section["rise"]),
    )


def size_in_bytes(text: str) -> int:
    """Return a size as NGINX writes it, ``20m``, in bytes. Raises ValueError."""
    match = re.fullmatch(r"([0-9]+)([kmg]?)", text.lower())
    if match is None:
        raise ValueError(f"{text!r} is no size; wanted a number with k, m, g or nothing after it")
    return int(match.group(1)) << 10 * ("", "k", "m", "g").index(match.group(2))


def at_once(thresholds: Thresholds) -> Thresholds:
    """Return thresholds by which one probe decides."""
    return replace(thresholds, fall=1, rise=1)


def read_configuration(path: str | Path) -> Configuration:
    """Read and check the configuration file. Raises AgentError with its path."""
    try:
        return Configuration.from_json(json.loads(Path(path).read_text(encoding="utf-8")))
    except (OSError, ValueError, AgentError) as fault:
        raise AgentError(f"{path}: {fault}") from fault


# ---------------------------------------------------------------------------------------------------------- state


@dataclass
class PeerState:
    """What is known of one peer. ``endpoint`` guards against a name that moved to another address."""

    endpoint: str
    healthy: bool = True
    health_failures: int = 0
    health_successes: int = 0
    health_reason: str = ""
    progressing: bool = True
    progress_failures: int = 0
    progress_successes: int = 0
    progress_reason: str = ""
    since: float = 0.0

    @property
    def available(self) -> bool:
        """Return whether both kinds of probe would let requests through."""
        return self.healthy and self.progressing

    @property
    def reason(self) -> str:
        """Return why the peer is not available; empty if it is."""
        if not self.healthy:
            return f"health: {self.health_reason}"
        if not self.progressing:
            return f"hung: {self.progress_reason}"
        return ""

    def record_health(self, fault: str | None, thresholds: Thresholds, now: float) -> bool:
        """Take in one health probe (``fault`` is None for a good one); returns whether availability changed."""
        before = self.available
        if fault is None:
            self.health_successes, self.health_failures = self.health_successes + 1, 0
            if self.health_successes >= thresholds.rise:
                self.healthy, self.health_reason = True, ""
        else:
            self.health_successes, self.health_failures = 0, self.health_failures + 1
            self.health_reason = fault
            if self.health_failures >= thresholds.fall:
                self.healthy = False
        return self._stamp(before, now)

    def record_progress(self, fault: str | None, thresholds: Thresholds, now: float) -> bool:
        """Take in one answer to the question whether the engine works; returns whether availability changed."""
        before = self.available
        if fault is None:
            self.progress_successes, self.progress_failures = self.progress_successes + 1, 0
            if self.progress_successes >= thresholds.rise:
                self.progressing, self.progress_reason = True, ""
        else:
            self.progress_successes, self.progress_failures = 0, self.progress_failures + 1
            self.progress_reason = fault
            if self.progress_failures >= thresholds.fall:
                self.progressing = False
        return self._stamp(before, now)

    def _stamp(self, before: bool, now: float) -> bool:
        changed = before != self.available
        if changed:
            self.since = now
        return changed


def states_from_json(document: Any, peers: Iterable[Peer]) -> dict[str, PeerState]:
    """Match stored states with the configured peers; an unknown or moved peer starts as available.

    A file that can't be used is no reason to stop: the probes find the truth again within seconds.
    """
    stored = document.get("peers", {}) if isinstance(document, Mapping) else {}
    known = {entry.name for entry in fields(PeerState)}
    states = {}
    for peer in peers:
        saved = stored.get(peer.key)
        if isinstance(saved, Mapping) and saved.get("endpoint") == peer.endpoint:
            states[peer.key] = PeerState(**{key: value for key, value in saved.items() if key in known})
        else:
            states[peer.key] = PeerState(endpoint=peer.endpoint)
    return states


def read_json(path: Path) -> Any:
    """Return the document, or None if there is none that can be read."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def replace_file(path: Path, text: str) -> None:
    """Write a file completely, then rename it into place."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.new")
    with open(beside, "w", encoding="utf-8") as handle:
        handle.write(text)
        handle.flush()
        os.fsync(handle.fileno())
    os.replace(beside, path)


def write_json(path: Path, document: Any) -> None:
    """Write a document so that a reader sees the old one or the new one."""
    replace_file(path, json.dumps(document, indent=2, sort_keys=True) + "\n")


def load_states(configuration: Configuration) -> dict[str, PeerState]:
    """Return the stored state of the configured peers."""
    return states_from_json(read_json(configuration.state_directory / "peers.json"), configuration.peers)


def save_states(configuration: Configuration, states: Mapping[str, PeerState]) -> None:
    """Store the state of all peers; it outlives a restart of the agent and of the host."""
    document = {"tls": configuration.tls is not None, "peers": {key: asdict(state) for key, state in states.items()}}
    write_json(configuration.state_directory / "peers.json", document)


def judged_alike(configuration: Configuration) -> bool:
    """Return whether the stored state was found by asking engines as the configuration says: over TLS, or without."""
    document = read_json(configuration.state_directory / "peers.json")
    over_tls = isinstance(document, Mapping) and bool(document.get("tls"))
    return over_tls == (configuration.tls is not None)


def load_holders(configuration: Configuration) -> dict[str, list[str]]:
    """Return who holds what out of rotation: a peer (``host/instance``) or a host -> its holders, sorted.

    Unlike what probes find out, this cannot be found again: raises AgentError for a file that is not as written.
    """
    path = configuration.state_directory / "drained.json"
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        return {str(name): sorted(map(str, holders)) for name, holders in document.items()}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, AttributeError, TypeError) as fault:
        raise AgentError(f"{path}: {fault}; wanted what 'gpufleet-probe drain' writes") from fault


def load_drained(configuration: Configuration) -> frozenset[str]:
    """Return the names that somebody holds out of rotation: a peer (``host/instance``) or a host."""
    return frozenset(load_holders(configuration))


@contextlib.contextmanager
def locked(configuration: Configuration, wait_seconds: float) -> Iterator[None]:
    """Hold the one lock under which includes are written and NGINX is reloaded. Raises BusyError."""
    configuration.state_directory.mkdir(parents=True, exist_ok=True)
    deadline = time.monotonic() + wait_seconds
    with open(configuration.state_directory / "lock", "w", encoding="ascii") as handle:
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError as fault:
                if time.monotonic() >= deadline:
                    raise BusyError(f"another reload is under way for more than {wait_seconds:.0f} s") from fault
                time.sleep(0.1)
        yield


# ------------------------------------------------------------------------------------------------------- decisions


def is_drained(peer: Peer, drained: frozenset[str]) -> bool:
    """Return whether the peer, or its whole host, was taken out by hand."""
    return peer.name in drained or peer.name.split("/", 1)[0] in drained


def in_rotation(
    peers: Sequence[Peer], states: Mapping[str, PeerState], drained: frozenset[str]
) -> tuple[frozenset[str], bool]:
    """Decide which peers of one group get requests; returns their keys and whether the group fails open.

    An operator's hand counts more than a probe: a drained peer stays out even when the group fails open.
    """
    candidates = [peer for peer in peers if not is_drained(peer, drained)]
    available = [peer for peer in candidates if states[peer.key].available]
    fails_open = bool(candidates) and not available
    return frozenset(peer.key for peer in (candidates if fails_open else available)), fails_open


def wanted_rotation(
    configuration: Configuration, states: Mapping[str, PeerState], drained: frozenset[str]
) -> dict[str, str]:
    """Return the peers of all groups that shall get requests: key -> endpoint."""
    up: set[str] = set()
    for upstream in configuration.upstreams:
        up |= in_rotation(configuration.of(upstream), states, drained)[0]
    return {peer.key: peer.endpoint for peer in configuration.peers if peer.key in up}


def server_line(peer: Peer, up: bool, max_fails: int, fail_timeout_seconds: int) -> str:
    """Return the directive for one peer."""
    down = "" if up else " down"
    return (
        f"server {peer.endpoint} weight={peer.weight} max_fails={max_fails} "
        f"fail_timeout={fail_timeout_seconds}s{down}; # {peer.name}\n"
    )


def render_includes(
    configuration: Configuration, states: Mapping[str, PeerState], drained: frozenset[str]
) -> dict[str, str]:
    """Return the wanted includes: path below the include directory -> content."""
    wanted = {}
    for upstream in configuration.upstreams:
        peers = configuration.of(upstream)
        up, __ = in_rotation(peers, states, drained)
        lines = [
            server_line(peer, peer.key in up, configuration.max_fails, configuration.fail_timeout_seconds)
            for peer in peers
        ]
        wanted[f"upstreams/{upstream}.conf"] = "# Written by gpufleet-probe; edits are lost.\n" + "".join(lines)
    return wanted


def sum_of_metric(text: str, name: str) -> float | None:
    """Add up all series of one metric in Prometheus' text format; None if there is no such series."""
    total, found = 0.0, False
    for line in text.splitlines():
        if not line.startswith(name):
            continue
        rest = line[len(name) :]
        if not rest.startswith(("{", " ")):
            continue
        words = rest.rsplit("}", 1)[-1].split()
        if not words:
            continue
        try:
            total += float(words[0])
        except ValueError:
            continue
        found = True
    return total if found else None


def emergencies(log: str) -> list[str]:
    """Return the [emerg] messages of a piece of NGINX's error log, each once, without time and process."""
    messages = []
    for line in log.splitlines():
        match = re.search(r"\[emerg\] (?:\d+#\d+: )?(.*)", line)
        if match:
            messages.append(match.group(1).strip())
    return list(dict.fromkeys(messages))


# ------------------------------------------------------------------------------------------------------------ HTTP


@dataclass(frozen=True)
class Answer:
    """Status and body of an HTTP answer."""

    status: int
    body: str


class Identity:
    """This gateway's certificate and whom it trusts, read again when a file was replaced: no restart renews them."""

    def __init__(self, tls: Tls) -> None:
        self._tls = tls
        self._stamps: list[tuple[int, int]] = []
        self._context: ssl.SSLContext | None = None

    def context(self) -> ssl.SSLContext:
        """Return what connections are opened with. Raises ValueError that names the files that can't be read.

        Once it was read well it goes on through a fault: NGINX, too, has the old files until it is reloaded.
        """
        tls = self._tls
        try:
            found = [os.stat(path) for path in (tls.certificate_path, tls.certificate_key_path, tls.ca_path)]
            stamps = [(entry.st_mtime_ns, entry.st_ino) for entry in found]
            if self._context is not None and stamps == self._stamps:
                return self._context
            self._stamps = stamps
            context = ssl.create_default_context(cafile=tls.ca_path)
            context.minimum_version = ssl.TLSVersion.TLSv1_3
            context.load_cert_chain(tls.certificate_path, tls.certificate_key_path)
        except OSError as fault:
            if self._context is None:
                names = f"{tls.certificate_path}, {tls.certificate_key_path} or {tls.ca_path}"
                raise ValueError(f"can't read {names}: {fault.strerror or fault}") from fault
            return self._context
        self._context = context
        return context


_IDENTITIES: dict[Tls, Identity] = {}


def identity_of(tls: Tls) -> Identity:
    """Return what was read of these files, if anything was."""
    return _IDENTITIES.setdefault(tls, Identity(tls))


async def exchange(
    address: str,
    port: int,
    target: str,
    timeout_seconds: float,
    payload: Mapping[str, Any] | None = None,
    tls: Tls | None = None,
) -> Answer:
    """Send one HTTP/1.0 request (a POST if there is a payload) and read the answer, all within the timeout.

    HTTP/1.0, because then a body is never chunked and ends with the connection. Raises OSError, TimeoutError or
    ValueError.
    """
    secured: dict[str, Any] = {}
    if tls is not None:
        secured = {"ssl": identity_of(tls).context(), "server_hostname": tls.server_name}

    async def talk() -> Answer:
        reader, writer = await asyncio.open_connection(address, port, limit=MAX_HEAD_BYTES, **secured)
        try:
            body = b"" if payload is None else json.dumps(payload).encode()
            host = f"[{address}]" if ":" in address else address
            lines = [
                f"{'GET' if payload is None else 'POST'} {target} HTTP/1.0",
                f"Host: {host}:{port}",
                "User-Agent: gpufleet-probe",
                "Connection: close",
            ]
            if payload is not None:
                lines += ["Content-Type: application/json", f"Content-Length: {len(body)}"]
            writer.write("\r\n".join([*lines, "", ""]).encode("ascii") + body)
            await writer.drain()
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            match = re.match(r"HTTP/1\.[01] (\d{3})", head)
            if match is None:
                raise ValueError("the answer is not HTTP")
            length = re.search(r"\r\ncontent-length:\s*(\d+)", head, re.IGNORECASE)
            wanted = min(int(length.group(1)), MAX_BODY_BYTES) if length else MAX_BODY_BYTES
            received = bytearray()
            while len(received) < wanted:
                part = await reader.read(min(65536, wanted - len(received)))
                if not part:
                    break
                received += part
            return Answer(int(match.group(1)), received.decode("utf-8", errors="replace"))
        finally:
            writer.transport.abort()

    try:
        return await asyncio.wait_for(talk(), timeout_seconds)
    except asyncio.TimeoutError as fault:  # another class than the built-in one before Python 3.11
        raise TimeoutError(f"no answer within {timeout_seconds:g} s") from fault
    except (asyncio.IncompleteReadError, asyncio.LimitOverrunError) as fault:
        raise ValueError("the connection ended before an answer") from fault


def describe(fault: BaseException) -> str:
    """Name a failed exchange in a few words."""
    if isinstance(fault, ConnectionRefusedError):
        return "connection refused"
    if isinstance(fault, ssl.SSLCertVerificationError):
        return f"certificate refused: {fault.verify_message}"
    if isinstance(fault, ssl.SSLError):
        return f"TLS failed: {fault.reason or fault}"
    if isinstance(fault, OSError) and fault.strerror:
        return fault.strerror
    return str(fault) or type(fault).__name__


async def probe_health(peer: Peer, configuration: Configuration) -> str | None:
    """Return None if the peer's health answers 200 in time, else what happened instead."""
    try:
        answer = await exchange(
            peer.address,
            peer.port,
            configuration.health_path,
            configuration.health.timeout_seconds,
            tls=configuration.tls,
        )
    except (OSError, ValueError) as fault:
        return describe(fault)
    return None if answer.status == 200 else f"HTTP {answer.status}"


async def judge_afresh(configuration: Configuration, states: Mapping[str, PeerState]) -> None:
    """Take one probe of each peer for the truth: what was found by asking them in another way says nothing."""
    faults = await asyncio.gather(*(probe_health(peer, configuration) for peer in configuration.peers))
    for peer, fault in zip(configuration.peers, faults):
        states[peer.key].record_health(fault, at_once(configuration.health), time.time())


async def read_iterations(peer: Peer, configuration: Configuration) -> float | None:
    """Return the engine's count of iterations, or None if it can't be had."""
    try:
        answer = await exchange(
            peer.address,
            peer.port,
            configuration.progress_metrics_path,
            configuration.health.timeout_seconds,
            tls=configuration.tls,
        )
    except (OSError, ValueError):
        return None
    return sum_of_metric(answer.body, configuration.progress_metric) if answer.status == 200 else None


@dataclass(frozen=True)
class Progress:
    """One answer to "does the engine work?": ``verdict`` is good, bad or unknown."""

    verdict: str
    detail: str
    iterations: float | None


async def probe_progress(peer: Peer, configuration: Configuration, last: float | None, must_complete: bool) -> Progress:
    """Ask whether the engine works; costs nothing while its count of iterations moves by itself.

    ``must_complete``: only a completion counts, as for a peer that is out because it hung. A completion refused with
    4xx says nothing about the engine (its configuration does not suit the probe), so the verdict is unknown.
    """
    before = await read_iterations(peer, configuration)
    if not must_complete and before is not None and last is not None and before > last:
        return Progress("good", "iterations move", before)
    payload = {"model": peer.model, "prompt": "ping", "max_tokens": 1, "temperature": 0}
    try:
        answer = await exchange(
            peer.address,
            peer.port,
            configuration.progress_completion_path,
            configuration.progress.timeout_seconds,
            payload,
            tls=configuration.tls,
        )
    except (OSError, ValueError) as fault:
        after = await read_iterations(peer, configuration)
        if not must_complete and before is not None and after is not None and after > before:
            return Progress("good", "busy, iterations move", after)
        return Progress("bad", f"completion: {describe(fault)}", after)
    after = await read_iterations(peer, configuration)
    if answer.status == 200:
        return Progress("good", "completion", after)
    if 400 <= answer.status < 500:
        return Progress("unknown", f"completion: HTTP {answer.status}", after)
    return Progress("bad", f"completion: HTTP {answer.status}", after)


# ---------------------------------------------------------------------------------------------------------- reload


def build_include(build: str) -> str:
    """Return the include of the loopback listener's /build location."""
    return f'# Written by gpufleet-probe; edits are lost.\nreturn 200 "{build}\\n";\n'


def read_build(include_directory: Path) -> str | None:
    """Return the build id in the include on disk."""
    try:
        text = (include_directory / "build_id.conf").read_text(encoding="utf-8")
    except OSError:
        return None
    match = re.search(r'return 200 "([0-9a-z-]+)', text)
    return match.group(1) if match else None


def load_builds(configuration: Configuration) -> dict[str, dict[str, str]]:
    """Return what the latest builds put in rotation: build id -> key of a peer -> its endpoint."""
    document = read_json(configuration.state_directory / "builds.json")
    if not isinstance(document, Mapping):
        return {}
    return {str(build): dict(served) for build, served in document.items() if isinstance(served, Mapping)}


def remember_build(configuration: Configuration, build: str, served: Mapping[str, str]) -> None:
    """Note what a build puts in rotation, before NGINX is told of it: so whatever it answers then is known.

    Kept beside it are the build on disk, to which a reload that fails returns, and the one that is being served.
    """
    kept = {read_build(configuration.include_directory), asyncio.run(served_build(configuration))}
    builds = {known: of for known, of in load_builds(configuration).items() if known in kept}
    write_json(configuration.state_directory / "builds.json", {**builds, build: dict(served)})


async def served_build(configuration: Configuration) -> str | None:
    """Return the build id that the running workers answer; None if nothing answers."""
    try:
        answer = await exchange("127.0.0.1", configuration.listener_port, "/build", 1.0)
    except (OSError, ValueError):
        return None
    return answer.body.strip() if answer.status == 200 else None


def master_pid(configuration: Configuration) -> int | None:
    """Return the process id of NGINX's master, if it runs."""
    try:
        pid = int(Path(configuration.nginx_pid_file).read_text(encoding="ascii").strip())
        name = Path(f"/proc/{pid}/comm").read_text(encoding="ascii").strip()
    except (OSError, ValueError):
        return None
    return pid if name == Path(configuration.nginx_binary).name else None


def ask_nginx(configuration: Configuration, root: str = "") -> None:
    """Run ``nginx -t``, for a staged tree below ``root`` if there is one. Raises ReloadError with its complaint."""
    command = [configuration.nginx_binary, "-t", "-q", "-c", root + configuration.nginx_configuration]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        complaint = "; ".join(emergencies(done.stderr)) or done.stderr.strip() or f"exit status {done.returncode}"
        raise ReloadError(f"nginx -t refuses the configuration: {complaint}")


class Includes:
    """The agent's own files, with the way back to what they were."""

    def __init__(self, directory: Path, wanted: Mapping[str, str]) -> None:
        self._directory = directory
        self._wanted = dict(wanted)
        self._previous = {name: self._read(name) for name in self._wanted}

    def _read(self, name: str) -> str | None:
        try:
            return (self._directory / name).read_text(encoding="utf-8")
        except OSError:
            return None

    def write(self) -> None:
        """Put the wanted contents in place."""
        for name, text in self._wanted.items():
            if self._read(name) != text:
                replace_file(self._directory / name, text)

    def restore(self) -> None:
        """Put the previous contents back."""
        for name, text in self._previous.items():
            if text is not None:
                replace_file(self._directory / name, text)
            else:
                (self._directory / name).unlink(missing_ok=True)

    def remove_strangers(self) -> None:
        """Remove includes of groups that are no longer configured."""
        for path in (self._directory / "upstreams").glob("*.conf"):
            if f"upstreams/{path.name}" not in self._wanted:
                path.unlink()


class LogTail:
    """What NGINX adds to its error log from now on."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._offset = self._size()

    def _size(self) -> int:
        try:
            return os.stat(self._path).st_size
        except OSError:
            return 0

    def read(self) -> str:
        """Return what was added; all of it if the file was rotated meanwhile."""
        start = self._offset if self._size() >= self._offset else 0
        try:
            with open(self._path, encoding="utf-8", errors="replace") as handle:
                handle.seek(start)
                return handle.read(MAX_BODY_BYTES)
        except OSError:
            return ""


def prove(configuration: Configuration, build: str, log: LogTail) -> None:
    """Wait until new connections meet the new build id. Raises ReloadError that says why they do not."""
    deadline = time.monotonic() + configuration.reload_timeout_seconds
    proofs, answered, hoping = 0, None, False
    while True:
        answered = asyncio.run(served_build(configuration))
        proofs = proofs + 1 if answered == build else 0
        if proofs >= PROOFS_WANTED:
            return
        if answered != build:
            if not hoping and emergencies(log.read()):
                hoping = True
                deadline = min(deadline, time.monotonic() + GRACE_AFTER_EMERGENCY_SECONDS)
            if time.monotonic() >= deadline:
                break
            time.sleep(0.1)
    listener = f"127.0.0.1:{configuration.listener_port}"
    seen = f"{listener} still answers build {answered}" if answered else f"nothing answers on {listener}"
    cause = "; ".join(emergencies(log.read())) or f"no [emerg] line in {configuration.nginx_error_log}"
    raise ReloadError(f"NGINX did not take the new configuration, {seen}: {cause}")


def reload(configuration: Configuration, start: bool) -> str:
    """Write the includes, have NGINX take the configuration, and prove it; returns the build id. Hold the lock.

    With ``start``, an NGINX that does not run is started; else its configuration is only written and tested. Raises
    ReloadError after the previous includes are back.
    """
    states, drained = load_states(configuration), load_drained(configuration)
    if not judged_alike(configuration):
        # Requests move from engines of the old way to those of the new one in this one reload.
        asyncio.run(judge_afresh(configuration, states))
        save_states(configuration, states)
    wanted = render_includes(configuration, states, drained)
    build = f"{int(time.time()):x}-{secrets.token_hex(4)}"
    remember_build(configuration, build, wanted_rotation(configuration, states, drained))
    includes = Includes(configuration.include_directory, {**wanted, "build_id.conf": build_include(build)})
    signalled = False
    try:
        includes.write()
        ask_nginx(configuration)
        log, pid = LogTail(configuration.nginx_error_log), master_pid(configuration)
        if pid is not None:
            os.kill(pid, signal.SIGHUP)
            signalled = True
        elif start:
            _start(configuration)
        if pid is not None or start:
            prove(configuration, build, log)
    except BaseException as fault:
        includes.restore()
        pid = master_pid(configuration)
        if signalled and pid is not None:
            os.kill(pid, signal.SIGHUP)
        _count_reload(configuration, str(fault))
        raise
    includes.remove_strangers()
    _count_reload(configuration, None)
    return build


def _start(configuration: Configuration) -> None:
    done = subprocess.run(configuration.nginx_start_command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        command = " ".join(configuration.nginx_start_command)
        raise ReloadError(f"'{command}' exited with {done.returncode}: {done.stderr.strip()}")


def _count_reload(configuration: Configuration, fault: str | None) -> None:
    """Keep the totals that the metrics show, whoever asked for the reload."""
    path = configuration.state_directory / "reloads.json"
    stored = read_json(path)
    counts: dict[str, Any] = {"successes": 0, "failures": 0, "last_error": None, "last_success": None}
    if isinstance(stored, dict):
        counts.update(stored)
    if fault is None:
        counts.update(successes=counts["successes"] + 1, last_success=time.time(), last_error=None)
    else:
        counts.update(failures=counts["failures"] + 1, last_error=fault)
    write_json(path, counts)


# ---------------------------------------------------------------------------------------------------------- limits


def refusal_of(entry: Any) -> tuple[str, str] | None:
    """Return which limit of the gateway refused a request, by its entry in the log; one of REFUSALS, or None.

    An engine's own 429 or 413 is none: it has the status of an upstream and the name of no limit.
    """
    if not isinstance(entry, Mapping):
        return None
    if entry.get("status") == 429:
        for per in ("address", "identity"):
            found = (per, str(entry.get(f"{per}_limit", "")))
            if found in REFUSALS:
                return found
    if entry.get("status") == 413 and entry.get("upstream_status") == "":
        return ("request", "body")
    return None


class RefusalCounter:
    """Counts in the access log how many requests each limit refused, over rotations and restarts.

    What is remembered is how far each of two files was read: the current one and the one before it, into which NGINX
    writes on for a moment after it was renamed. Totals and places are stored together, so nothing is counted twice.
    """

    def __init__(self, log_path: Path, store: Path) -> None:
        self._log_path = log_path
        self._store = store
        self.totals = dict.fromkeys(REFUSALS, 0)
        self.unreadable = 0
        self._places: dict[int, int] = {}
        self._saved: tuple[dict[int, int], dict[tuple[str, str], int], int] | None = None
        stored = read_json(store)
        try:
            self._places = {int(inode): int(offset) for inode, offset in stored["places"]}
            self.totals.update({key: int(stored["totals"][" ".join(key)]) for key in REFUSALS})
            self.unreadable = int(stored["unreadable"])
            self._saved = self._state()
        except (KeyError, TypeError, ValueError):
            # None yet, or none that can be used: to Prometheus a counter that starts again.
            self._places = {}

    def _state(self) -> tuple[dict[int, int], dict[tuple[str, str], int], int]:
        return dict(self._places), dict(self.totals), self.unreadable

    def follow(self) -> None:
        """Take in what was added to the log. Raises OSError if there is none that can be read."""
        current = os.stat(self._log_path).st_ino
        before = [inode for inode in self._places if inode != current]
        paths = {}
        if before:
            # Renamed by logrotate, to a name that ends otherwise on each distribution.
            for path in self._log_path.parent.glob(f"{self._log_path.name}*"):
                with contextlib.suppress(OSError):
                    paths[os.stat(path).st_ino] = path
        renamed = [paths[inode] for inode in before if inode in paths]
        places: dict[int, int] = {}
        budget = LOG_ROUND_BYTES
        for path in [*renamed[-1:], self._log_path]:
            inode, place, budget = self._read(path, budget)
            places[inode] = place
        self._places = places
        self._save()

    def _read(self, path: Path, budget: int) -> tuple[int, int, int]:
        """Read one file on; returns its inode, how far it is read now, and what is left of the budget."""
        with open(path, "rb") as handle:
            found = os.fstat(handle.fileno())
            place = self._places.get(found.st_ino, 0)
            # A file that is shorter than what was read of it was emptied, or is another one with the same number.
            place = place if place <= found.st_size else 0
            handle.seek(place)
            while budget > 0:
                part = handle.read(LOG_PART_BYTES)
                end = part.rfind(b"\n") + 1
                if not end and len(part) < LOG_PART_BYTES:
                    break  # at the end, or in the middle of a line that is being written
                if not end:
                    self.unreadable += 1
                    end = len(part)
                for line in part[:end].splitlines():
                    self._take(line)
                place, budget = place + end, budget - end
                handle.seek(place)
        return found.st_ino, place, budget

    def _take(self, line: bytes) -> None:
        # Most lines are of no interest. In a text of JSON a quote is escaped, so a client can't write this.
        if b'"status":429,' not in line and b'"status":413,' not in line:
            return
        try:
            found = refusal_of(json.loads(line))
        except ValueError:
            self.unreadable += 1
            return
        if found is not None:
            self.totals[found] += 1

    def _save(self) -> None:
        """Store totals and places when a total changed, the log was rotated, or much was read: not at every round."""
        state = self._state()
        if self._saved is not None and state[1:] == self._saved[1:] and state[0].keys() == self._saved[0].keys():
            read = [abs(place - self._saved[0][inode]) for inode, place in state[0].items()]
            if max(read) < LOG_ROUND_BYTES:
                return
        totals = {" ".join(key): total for key, total in self.totals.items()}
        document = {"places": list(self._places.items()), "totals": totals, "unreadable": self.unreadable}
        write_json(self._store, document)
        self._saved = state


@dataclass(frozen=True)
class Connections:
    """NGINX's own counts (stub_status): of all of its sockets, those between its two hops among them."""

    accepted: int
    handled: int
    requests: int
    reading: int
    writing: int
    waiting: int

    @staticmethod
    def from_text(text: str) -> Connections | None:
        """Read the answer of stub_status; None if it is not one."""
        match = re.fullmatch(
            r"Active connections: \d+\s+server accepts handled requests\s+(\d+) (\d+) (\d+)\s+"
            r"Reading: (\d+) Writing: (\d+) Waiting: (\d+)\s*",
            text,
        )
        return Connections(*(int(number) for number in match.groups())) if match else None


async def read_connections(configuration: Configuration) -> Connections | None:
    """Ask NGINX for its counts; None if it does not tell."""
    try:
        answer = await exchange("127.0.0.1", configuration.listener_port, "/stub_status", 1.0)
    except (OSError, ValueError):
        return None
    return Connections.from_text(answer.body) if answer.status == 200 else None


# ---------------------------------------------------------------------------------------------------------- status


def status_of(
    configuration: Configuration,
    states: Mapping[str, PeerState],
    drained: frozenset[str],
    latencies: Mapping[str, float],
    served: Mapping[str, str] | None,
) -> list[dict[str, Any]]:
    """Describe every group and peer, for people and programs.

    ``served`` is what the build in NGINX's workers put in rotation; None if nobody knows, as while NGINX does not run.
    """
    described = []
    for upstream in configuration.upstreams:
        peers = configuration.of(upstream)
        up, fails_open = in_rotation(peers, states, drained)
        described.append(
            {
                "name": upstream,
                "fail_open": fails_open,
                "peers": [
                    {
                        "name": peer.name,
                        "endpoint": peer.endpoint,
                        "available": states[peer.key].available,
                        "in_rotation": None if served is None else served.get(peer.key) == peer.endpoint,
                        "wanted_in_rotation": peer.key in up,
                        "drained": is_drained(peer, drained),
                        "reason": states[peer.key].reason,
                        "since": states[peer.key].since,
                        "health_latency_seconds": latencies.get(peer.key),
                    }
                    for peer in peers
                ],
            }
        )
    return described


def _label(text: str) -> str:
    return text.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")


class Samples:
    """Samples of metrics, gathered by metric, for Prometheus' text format."""

    def __init__(self) -> None:
        self._samples: dict[tuple[str, str, str], list[str]] = {}

    def add(self, name: str, kind: str, text: str, labels: str, value: float) -> None:
        """Add one sample; ``labels`` has its braces, or is empty."""
        self._samples.setdefault((name, kind, text), []).append(f"{name}{labels} {value!r}")

    def text(self) -> str:
        """Return them all."""
        return "".join(
            f"# HELP {name} {text}\n# TYPE {name} {kind}\n" + "\n".join(lines) + "\n"
            for (name, kind, text), lines in self._samples.items()
        )


def render_limits(
    configuration: Configuration, counter: RefusalCounter, followed: bool, connections: Connections | None
) -> str:
    """Return the limits, what they refused and NGINX's own counts, in Prometheus' text format."""
    samples = Samples()
    prefix = "gpufleet_gateway"
    for limit in configuration.limits:
        per = f'{{per="{limit.per}"}}'
        if limit.requests_per_second:
            text = "Requests per second that one address or identity may send; none if there is no such limit."
            samples.add(f"{prefix}_limit_requests_per_second", "gauge", text, per, float(limit.requests_per_second))
            text = "Requests beyond its rate that one address or identity may send at once."
            samples.add(f"{prefix}_limit_burst_requests", "gauge", text, per, float(limit.burst))
        if limit.concurrent:
            text = "Requests at a time that one address or identity may have; none if there is no such limit."
            samples.add(f"{prefix}_limit_concurrent_requests", "gauge", text, per, float(limit.concurrent))
    if configuration.body_bytes:
        text = "Largest body of a request in bytes; none if there is no such limit."
        samples.add(f"{prefix}_limit_body_bytes", "gauge", text, "", float(configuration.body_bytes))
    for (per, limit_name), total in counter.totals.items():
        text = "Requests that a limit refused, by whose limit it is, and which."
        samples.add(f"{prefix}_refused_total", "counter", text, f'{{per="{per}",limit="{limit_name}"}}', float(total))
    text = "Whether the last round read the access log, in which refusals are counted."
    samples.add(f"{prefix}_log_followed", "gauge", text, "", float(followed))
    text = "Lines of the access log that may be of refusals and can't be read."
    samples.add(f"{prefix}_log_unreadable_lines_total", "counter", text, "", float(counter.unreadable))
    if connections is not None:
        text = "Connections of NGINX by what they do, those between its own two hops among them."
        for state in ("reading", "writing", "waiting"):
            value = float(getattr(connections, state))
            samples.add(f"{prefix}_connections", "gauge", text, f'{{state="{state}"}}', value)
        text = "Connections that NGINX accepted since it started."
        samples.add(f"{prefix}_connections_accepted_total", "counter", text, "", float(connections.accepted))
        text = "Connections that it dropped since then, for lack of nginx_worker_connections."
        dropped = float(connections.accepted - connections.handled)
        samples.add(f"{prefix}_connections_dropped_total", "counter", text, "", dropped)
    return samples.text()


def render_metrics(
    upstreams: Sequence[Mapping[str, Any]], reloads: Any, served: bool, round_at: float, progress_unknown: Iterable[str]
) -> str:
    """Return what is known of engines and reloads in Prometheus' text format."""
    counts = reloads if isinstance(reloads, Mapping) else {}
    unknown = frozenset(progress_unknown)
    samples = Samples()
    add = samples.add
    for upstream in upstreams:
        group = f'upstream="{_label(upstream["name"])}"'
        text = "Whether no peer is available, so that all shall be in rotation."
        add("gpufleet_probe_fail_open", "gauge", text, f"{{{group}}}", float(upstream["fail_open"]))
        for peer in upstream["peers"]:
            labels = f'{{{group},peer="{_label(peer["name"])}",endpoint="{_label(peer["endpoint"])}"}}'
            add("gpufleet_probe_available", "gauge", "Whether the probes pass.", labels, float(peer["available"]))
            if peer["in_rotation"] is not None:
                text = "Whether NGINX sends requests there, by the build that its workers answer."
                add("gpufleet_probe_in_rotation", "gauge", text, labels, float(peer["in_rotation"]))
            text = "Whether the next reload would have requests go there."
            add("gpufleet_probe_wanted_in_rotation", "gauge", text, labels, float(peer["wanted_in_rotation"]))
            add("gpufleet_probe_drained", "gauge", "Whether it was taken out by hand.", labels, float(peer["drained"]))
            hung = float(peer["reason"].startswith("hung"))
            add("gpufleet_probe_hung", "gauge", "Whether it is out for lack of progress.", labels, hung)
            text = "Whether the engine refuses the progress probe with 4xx, so that a hang is not seen."
            refused = float(f"{upstream['name']} {peer['name']}" in unknown)
            add("gpufleet_probe_progress_unknown", "gauge", text, labels, refused)
            latency = peer["health_latency_seconds"]
            if latency is not None:
                text = "Duration of the last health probe."
                add("gpufleet_probe_health_latency_seconds", "gauge", text, labels, latency)
    text = "Reloads of NGINX by their proven effect."
    for outcome in ("success", "failure"):
        total = float(counts.get("successes" if outcome == "success" else "failures", 0))
        add("gpufleet_probe_reloads_total", "counter", text, f'{{result="{outcome}"}}', total)
    text = "Whether the running workers answer the build id that is on disk."
    add("gpufleet_probe_configuration_served", "gauge", text, "", float(served))
    add("gpufleet_probe_last_round_timestamp_seconds", "gauge", "When the last round of probes ended.", "", round_at)
    return samples.text()


# ---------------------------------------------------------------------------------------------------------- daemon


def log(message: str) -> None:
    """Write a line for the journal."""
    print(message, file=sys.stderr, flush=True)


def notify_systemd(message: str) -> None:
    """Tell systemd that the agent is ready or alive, if it runs as a service."""
    path = os.environ.get("NOTIFY_SOCKET")
    if not path:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
        channel.sendto(message.encode(), "\0" + path[1:] if path.startswith("@") else path)


class Daemon:
    """Probes all peers at one pace and keeps NGINX's includes in step with what it finds."""

    def __init__(self, configuration_path: str) -> None:
        self._path = configuration_path
        self._read_at = self._stamp()
        self.configuration = read_configuration(configuration_path)
        self.states = load_states(self.configuration)
        self._drained = load_drained(self.configuration)
        self._latencies: dict[str, float] = {}
        self._iterations: dict[str, float] = {}
        self._progress_due: dict[str, float] = {}
        self._progress_running: dict[str, asyncio.Task[None]] = {}
        self._progress_unknown: set[str] = set()
        self._applying: asyncio.Task[None] | None = None
        self._apply_not_before = 0.0
        self._backoff = 0.0
        self._last_complaint = ""
        self._saved: dict[str, tuple[bool, bool, str]] = {}
        self._refusals = RefusalCounter(
            self.configuration.access_log, self.configuration.state_directory / "refusals.json"
        )
        self._log_complaint = ""
        self._judge_at_once = not judged_alike(self.configuration)

    def _stamp(self) -> tuple[int, int]:
        try:
            found = os.stat(self._path)
        except OSError:
            return (0, 0)
        return (found.st_mtime_ns, found.st_ino)

    def refresh_configuration(self) -> None:
        """Take in a configuration file that was replaced; a broken one is reported and the old one kept."""
        stamp = self._stamp()
        if stamp == self._read_at:
            return
        self._read_at = stamp
        try:
            fresh = read_configuration(self._path)
        except AgentError as fault:
            log(f"keeping the previous configuration: {fault}")
            return
        document = {"peers": {key: asdict(state) for key, state in self.states.items()}}
        if (fresh.tls is None) != (self.configuration.tls is None):
            self._judge_at_once, self._saved = True, {}
        self.configuration, self.states = fresh, states_from_json(document, fresh.peers)
        keys = {peer.key for peer in fresh.peers}
        for remembered in (self._latencies, self._iterations, self._progress_due):
            for key in [key for key in remembered if key not in keys]:
                del remembered[key]
        self._progress_unknown &= keys
        log(f"read the configuration: {len(fresh.peers)} peers in {len(fresh.upstreams)} groups")

    def refresh_drained(self) -> None:
        """Take in who is held out of rotation; a broken file is reported and what it said before is kept."""
        try:
            self._drained = load_drained(self.configuration)
        except AgentError as fault:
            if str(fault) != self._last_complaint:
                log(f"keeping what was held out of rotation before: {fault}")
            self._last_complaint = str(fault)

    async def round(self) -> None:
        """Probe the health of all peers at once, start progress probes that are due, and act on what changed."""
        self.refresh_configuration()
        self.refresh_drained()
        configuration = self.configuration
        begun = time.monotonic()

        async def check(peer: Peer) -> str | None:
            fault = await probe_health(peer, configuration)
            self._latencies[peer.key] = time.monotonic() - begun
            return fault

        faults = await asyncio.gather(*(check(peer) for peer in configuration.peers))
        thresholds = at_once(configuration.health) if self._judge_at_once else configuration.health
        self._judge_at_once = False
        for peer, fault in zip(configuration.peers, faults):
            state = self.states[peer.key]
            if state.record_health(fault, thresholds, time.time()):
                self._announce(peer, state)
            if configuration.progress_enabled and fault is None:
                self._start_progress(peer, state)
        served = await served_build(configuration)
        connections = await read_connections(configuration)
        followed = await self._follow_log()
        # From here on nothing is awaited: what is saved, which is what a reload renders, is what is decided on.
        findings = {key: (state.healthy, state.progressing, state.reason) for key, state in self.states.items()}
        if findings != self._saved:
            save_states(configuration, self.states)
            self._saved = findings
        self._apply_if_needed(served is not None and served != read_build(configuration.include_directory))
        limits = render_limits(configuration, self._refusals, followed, connections)
        self._publish(served, limits)

    async def _follow_log(self) -> bool:
        """Count what limits refused since the last round; returns whether the log can be read."""
        try:
            await asyncio.to_thread(self._refusals.follow)
        except OSError as fault:
            if str(fault) != self._log_complaint:
                log(f"refused requests are not counted: {fault}")
            self._log_complaint = str(fault)
            return False
        self._log_complaint = ""
        return True

    def _announce(self, peer: Peer, state: PeerState) -> None:
        what = "is available again" if state.available else f"is out, {state.reason}"
        log(f"{peer.upstream}: {peer.name} ({peer.endpoint}) {what}")

    def _start_progress(self, peer: Peer, state: PeerState) -> None:
        """Start a progress probe if one is due and none runs.

        A working peer is asked at the slow pace. After a first failure, and while the peer is out because it hung,
        it is asked at the pace of the health probes.
        """
        now = time.monotonic()
        urgent = state.progress_failures > 0 or not state.progressing
        if peer.key in self._progress_running or (not urgent and now < self._progress_due.get(peer.key, 0.0)):
            return
        # Half a round early: a round that comes a moment too soon would make it a whole round later.
        slack = self.configuration.health.interval_seconds / 2
        self._progress_due[peer.key] = now + self.configuration.progress.interval_seconds - slack
        task = asyncio.create_task(self._ask_progress(peer, state))
        self._progress_running[peer.key] = task
        task.add_done_callback(lambda __: self._progress_running.pop(peer.key, None))

    async def _ask_progress(self, peer: Peer, state: PeerState) -> None:
        configuration = self.configuration
        found = await probe_progress(peer, configuration, self._iterations.get(peer.key), not state.progressing)
        if self.states.get(peer.key) is not state:
            return  # the peer moved or left while the probe was under way
        if found.iterations is not None:
            self._iterations[peer.key] = found.iterations
        if found.verdict == "unknown":
            if peer.key not in self._progress_unknown:
                log(f"{peer.upstream}: {peer.name} can't be asked for progress, {found.detail}")
            self._progress_unknown.add(peer.key)
        else:
            self._progress_unknown.discard(peer.key)
        # An engine that can't be asked any more counts like one that works: it answers, and nothing says that it hangs.
        # Else one that was out as hung, and came back with a key of its own, would stay out for good.
        fault = found.detail if found.verdict == "bad" else None
        if state.record_progress(fault, configuration.progress, time.time()):
            self._announce(peer, state)

    def _apply_if_needed(self, stale: bool) -> None:
        """Reload NGINX if its includes are not as wanted, at most once per minimum interval, in the background.

        ``stale``: the workers answer another build id than the one on disk, as after a reload that was cut short.
        """
        configuration = self.configuration
        if self._applying is not None or time.monotonic() < self._apply_not_before:
            return
        wanted = render_includes(configuration, self.states, self._drained)
        differs = any(_text(configuration.include_directory / name) != text for name, text in wanted.items())
        if not differs and not stale:
            return
        self._apply_not_before = time.monotonic() + configuration.reload_minimum_interval_seconds
        self._applying = asyncio.create_task(self._apply())
        self._applying.add_done_callback(lambda __: setattr(self, "_applying", None))

    async def _apply(self) -> None:
        configuration = self.configuration

        def work() -> str:
            with locked(configuration, 0.0):
                return reload(configuration, start=False)

        try:
            build = await asyncio.to_thread(work)
        except BusyError:
            return  # Ansible or an operator is at it; the next round looks again
        except (AgentError, OSError) as fault:
            base = configuration.reload_minimum_interval_seconds
            self._backoff = min(max(2 * self._backoff, base), LONGEST_BACKOFF_SECONDS)
            self._apply_not_before = time.monotonic() + self._backoff
            if str(fault) != self._last_complaint:
                log(f"reload failed, the previous configuration goes on: {fault}")
            self._last_complaint = str(fault)
            return
        self._backoff, self._last_complaint = 0.0, ""
        log(f"reloaded, build {build}")

    def _publish(self, build: str | None, limits: str) -> None:
        """Write the metrics and the live part of the status to the runtime directory.

        ``build`` is the one served, ``limits`` the metrics of the limits.
        """
        configuration = self.configuration
        rotation = load_builds(configuration).get(build or "")
        upstreams = status_of(configuration, self.states, self._drained, self._latencies, rotation)
        served = build is not None and build == read_build(configuration.include_directory)
        now = time.time()
        reloads = read_json(configuration.state_directory / "reloads.json")
        text = render_metrics(upstreams, reloads, served, now, self._progress_unknown)
        text += limits + "".join(_text(path) or "" for path in configuration.further_metrics)
        replace_file(configuration.runtime_directory / "metrics.prom", text)
        write_json(configuration.runtime_directory / "status.json", {"round_at": now, "upstreams": upstreams})

    async def run(self) -> None:
        """Go round until SIGTERM."""
        loop, stop = asyncio.get_running_loop(), asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)
        log(f"probing {len(self.configuration.peers)} peers in {len(self.configuration.upstreams)} groups")
        due, ready = loop.time(), False
        while not stop.is_set():
            await self.round()
            notify_systemd("WATCHDOG=1" if ready else "READY=1")
            ready = True
            due = max(due + self.configuration.health.interval_seconds, loop.time())
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(stop.wait(), due - loop.time())
        if self._applying is not None:
            await self._applying
        save_states(self.configuration, self.states)


def _text(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8")
    except OSError:
        return None


# ---------------------------------------------------------------------------------------------------- command line


def command_run(arguments: argparse.Namespace) -> int:
    """Run the daemon."""
    os.umask(0o022)
    asyncio.run(Daemon(arguments.configuration).run())
    return 0


async def refuse_to_lose_engines(path: str, fresh: Configuration) -> None:
    """Raise AgentError if no engine of a group answers as they shall be asked, and one does as they were.

    With TLS, or without it any more, gateways and engines have to change together: engines first. One that somebody
    holds out of rotation gets no request, however it answers.
    """
    try:
        old = read_configuration(path)
    except AgentError:
        return  # a first configuration, or one that nobody can go on with
    if (old.tls is None) == (fresh.tls is None):
        return

    async def answering(configuration: Configuration, peers: Sequence[Peer]) -> list[str | None]:
        return await asyncio.gather(*(probe_health(peer, configuration) for peer in peers))

    drained = load_drained(fresh)
    for upstream in fresh.upstreams:
        peers = [peer for peer in fresh.of(upstream) if not is_drained(peer, drained)]
        faults = await answering(fresh, peers)
        if None in faults or None not in await answering(old, peers):
            continue
        now, then = ("without TLS", "over TLS") if fresh.tls else ("over TLS", "without TLS")
        raise AgentError(
            f"no engine of {upstream} in rotation answers {then} ({peers[0].name}: {faults[0]}), and {now} they do: "
            f"every request for it would fail. Change the engines first: serving.yml with vllm_restart_allowed"
        )


def command_check(arguments: argparse.Namespace) -> int:
    """Complete a staged tree with the includes and test it: how Ansible judges files before it replaces any."""
    root = arguments.root.rstrip("/")
    configuration = read_configuration(root + arguments.configuration)
    if not root:
        ask_nginx(configuration)
        return 0
    asyncio.run(refuse_to_lose_engines(arguments.configuration, configuration))
    wanted = render_includes(configuration, load_states(configuration), load_drained(configuration))
    directory = Path(root + str(configuration.include_directory))
    for name, text in {**wanted, "build_id.conf": build_include("staged")}.items():
        replace_file(directory / name, text)
    ask_nginx(configuration, root)
    return 0


def command_reload(arguments: argparse.Namespace) -> int:
    """Reload NGINX (or start it), and prove that it serves what is on disk."""
    configuration = read_configuration(arguments.configuration)
    with locked(configuration, arguments.wait):
        print(reload(configuration, start=True))
    return 0


def command_status(arguments: argparse.Namespace) -> int:
    """Print what is known, as JSON."""
    configuration = read_configuration(arguments.configuration)
    live = read_json(configuration.runtime_directory / "status.json")
    age = time.time() - live["round_at"] if isinstance(live, dict) else None
    patience = 3 * configuration.health.interval_seconds + configuration.health.timeout_seconds
    latencies: dict[str, float] = {}
    if isinstance(live, dict):
        for upstream in live["upstreams"]:
            for peer in upstream["peers"]:
                if peer["health_latency_seconds"] is not None:
                    latencies[f"{upstream['name']} {peer['name']}"] = peer["health_latency_seconds"]
    build = asyncio.run(served_build(configuration))
    states, drained = load_states(configuration), load_drained(configuration)
    document = {
        "agent_running": age is not None and age < patience,
        "last_round_age_seconds": age,
        "nginx_pid": master_pid(configuration),
        "tls": configuration.tls is not None,
        "build_on_disk": read_build(configuration.include_directory),
        "build_served": build,
        "drained": load_holders(configuration),
        "reloads": read_json(configuration.state_directory / "reloads.json"),
        "upstreams": status_of(configuration, states, drained, latencies, load_builds(configuration).get(build or "")),
    }
    print(json.dumps(document, indent=2, sort_keys=True))
    return 0


def command_drain(arguments: argparse.Namespace) -> int:
    """Take a peer, or a whole host, out of rotation until its last holder puts it back; or be the one who does.

    Each holder holds for itself, so that a program that puts back what it took out does not put back what a person
    took out meanwhile. Prints ``changed`` and who holds it now, as JSON.
    """
    configuration = read_configuration(arguments.configuration)
    names = {peer.name for peer in configuration.peers} | {peer.name.split("/", 1)[0] for peer in configuration.peers}
    name, holder = arguments.name, arguments.holder
    path = configuration.state_directory / "drained.json"
    with locked(configuration, arguments.wait):
        before = load_holders(configuration)
        # What has left the plan meanwhile can still be let go.
        if name not in names and (arguments.command == "drain" or name not in before):
            raise AgentError(f"no peer or host is named {name!r}; known: {', '.join(sorted(names))}")
        holders = set(before.get(name, ()))
        holders = holders | {holder} if arguments.command == "drain" else holders - {holder}
        after = {**before, name: sorted(holders)}
        if not holders:
            del after[name]
        if arguments.command == "drain" and not arguments.force:
            _refuse_to_empty_a_group(configuration, name, frozenset(before), frozenset(after))
        if after != before:
            write_json(path, after)
        if set(after) != set(before):
            try:
                reload(configuration, start=False)
            except BaseException:
                write_json(path, before)
                raise
    print(json.dumps({"changed": after != before, "holders": after.get(name, [])}))
    return 0


def _refuse_to_empty_a_group(
    configuration: Configuration, name: str, before: frozenset[str], after: frozenset[str]
) -> None:
    """Raise AgentError if taking ``name`` out leaves a group that has a peer in rotation without any.

    Peers that do not answer take no requests, such as engines that only run while requests wait.
    """
    states = load_states(configuration)
    for upstream in configuration.upstreams:
        peers = configuration.of(upstream)
        answering = [peer for peer in peers if states[peer.key].available and not is_drained(peer, before)]
        if in_rotation(peers, states, before)[0] and not in_rotation(peers, states, after)[0]:
            raise AgentError(
                f"{name} is the last of {upstream}: every request for it would fail. "
                f"Use --force to take it out all the same"
            )
        if answering and all(is_drained(peer, after) for peer in answering):
            raise AgentError(
                f"{name} is the last of {upstream} that answers: every request for it would fail. "
                f"Start another one, or use --force to take it out all the same"
            )


def parse(words: Sequence[str]) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="gpufleet-probe", description="The gateway's probe agent.")
    parser.add_argument("--configuration", default=DEFAULT_CONFIGURATION, help="the role's JSON file")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("run", help="probe for ever").set_defaults(call=command_run)
    check = commands.add_parser("check", help="test a staged tree, or the one in place")
    check.add_argument("--root", default="", help="directory below which the files lie under their full paths")
    check.set_defaults(call=command_check)
    for name, call, text in (
        ("reload", command_reload, "reload NGINX and prove that it serves what is on disk"),
        ("drain", command_drain, "hold a peer or a host out of rotation until undrain"),
        ("undrain", command_drain, "stop holding it; it is back when nobody else holds it"),
    ):
        command = commands.add_parser(name, help=text)
        command.add_argument("--wait", type=float, default=60.0, help="seconds to wait for another reload to end")
        command.set_defaults(call=call)
        if call is command_drain:
            command.add_argument("name", help="a peer such as gpu-1/tiny-llama-0, or a host such as gpu-1")
            command.add_argument("--force", action="store_true", help="even if it is the last peer of a group")
            command.add_argument("--holder", default="operator", help="in whose name (default operator)")
    commands.add_parser("status", help="print what is known, as JSON").set_defaults(call=command_status)
    return parser.parse_args(words)


def main(words: Sequence[str]) -> int:
    """Run one command; returns the exit status: 1 with a line on standard error for everything that went wrong."""
    arguments = parse(words)
    try:
        status: int = arguments.call(arguments)
    except (AgentError, OSError) as fault:
        log(f"gpufleet-probe {arguments.command}: {fault}")
        return 1
    return status


if __name__ == "__main__":
    # A reload that is told to end must put its includes back first; the daemon has a handler of its own.
    signal.signal(signal.SIGTERM, lambda number, __: sys.exit(128 + number))
    sys.exit(main(sys.argv[1:]))
