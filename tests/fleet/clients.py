# SPDX-License-Identifier: Apache-2.0
"""Clients that ask the gateways for completions until they are told to stop, and write down how each request ended.

Each gateway has a client with whole answers and one with streams, of each credential where gateways ask for any. A
stream has failed when it breaks off: it must end with its own last word. Every request uses a connection of its own,
and reads anew whom it trusts and what it says who it is.
"""

from __future__ import annotations

import http.client
import json
import socket
import ssl
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

# Only an engine that hangs takes longer: a slow machine is not a fault.
PATIENCE_SECONDS = 240.0
# Steady traffic, not all that the engines can take: an engine's workers spin for a second after each request, so on two
# shared cores more would starve the playbooks that the load accompanies. With two gateways it is the same traffic.
PAUSE_SECONDS_OF_A_GATEWAY = 4.0
# After the end was announced, so that what comes last is judged too.
LAST_REQUESTS = 3


class Connection(http.client.HTTPSConnection):
    """One to an address, whoever is asked for there: the name that is sent and that the certificate has to be for."""

    def __init__(self, address: str, name: str, context: ssl.SSLContext) -> None:
        super().__init__(name, 443, context=context, timeout=PATIENCE_SECONDS)
        self._address = address
        self._trust = context

    def connect(self) -> None:
        """Connect to the address, and shake hands with the name."""
        plain = socket.create_connection((self._address, self.port), timeout=self.timeout)
        try:
            self.sock = self._trust.wrap_socket(plain, server_hostname=self.host)
        except OSError:
            plain.close()
            raise


@dataclass(frozen=True)
class Request:
    """How a request ended; ``fault`` is None for one that was answered whole."""

    client: str
    seconds: float
    fault: str | None


@dataclass
class Clients:
    """Two clients of each gateway and credential, a name and the file that holds it."""

    gateways: Sequence[str]
    ca_file: str
    model: str
    credentials: Mapping[str, Path | None] = field(default_factory=lambda: {"nobody": None})
    #: Between the requests of a client. None makes it as long as engines need it.
    pause_seconds: float | None = None
    #: The endpoint's name, for clients that do not ask for the gateway's address.
    name: str | None = None
    requests: list[Request] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._end = threading.Event()
        if self.pause_seconds is None:
            self.pause_seconds = PAUSE_SECONDS_OF_A_GATEWAY * len(self.gateways)
        self._threads = [
            threading.Thread(target=self._ask_until_the_end, args=(gateway, stream, credential), daemon=True)
            for gateway in self.gateways
            for stream in (False, True)
            for credential in self.credentials
        ]

    def start(self) -> None:
        """Begin to ask."""
        for thread in self._threads:
            thread.start()

    def finish(self) -> list[Request]:
        """Send the last requests, and return all."""
        self._end.set()
        for thread in self._threads:
            thread.join()
        return self.requests

    @contextmanager
    def asking(self) -> Iterator[None]:
        """Ask meanwhile; no request may fail, and every client has to have asked."""
        self.start()
        try:
            yield
        finally:
            requests = self.finish()
            failed = [request for request in requests if request.fault is not None]
            slowest = max(request.seconds for request in requests)
            print(f"{len(requests)} requests, {len(failed)} failed, the slowest took {slowest:.1f} s", flush=True)
            counts = Counter(request.client for request in requests)
            for client, count in sorted(counts.items()):
                print(f"  {count:5} {client}", flush=True)
            for request in failed:
                print(f"  failed: {request}", flush=True)
        assert not failed, failed
        assert len(counts) == len(self._threads), "every client asked"

    def _ask_until_the_end(self, gateway: str, stream: bool, credential: str) -> None:
        left = LAST_REQUESTS
        while left:
            left -= self._end.is_set()
            begun = time.monotonic()
            fault = self._ask(gateway, stream, self.credentials[credential])
            name = f"{gateway} {'streaming' if stream else 'plain'} {credential}"
            self.requests.append(Request(name, time.monotonic() - begun, fault))
            self._end.wait(self.pause_seconds)

    def _ask(self, gateway: str, stream: bool, credential: Path | None) -> str | None:
        """Send one completion; returns what went wrong, or None."""
        headers = {"Content-Type": "application/json"}
        if credential is not None:
            headers["Authorization"] = f"Bearer {credential.read_text()}"
        body = json.dumps({"model": self.model, "prompt": "rack server driver", "max_tokens": 8, "stream": stream})
        context = ssl.create_default_context(cafile=self.ca_file)
        connection = Connection(gateway, self.name or gateway, context)
        try:
            connection.request("POST", "/v1/completions", body, headers)
            response = connection.getresponse()
            content = response.read()
        except (OSError, http.client.HTTPException) as error:
            return repr(error)
        finally:
            connection.close()
        if response.status != 200:
            return f"{response.status} {content[:200]!r}"
        if stream and (content.count(b"data: ") < 2 or not content.rstrip().endswith(b"data: [DONE]")):
            return f"a stream broke off: {content[-200:]!r}"
        return None
