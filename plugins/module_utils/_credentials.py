# SPDX-License-Identifier: Apache-2.0
# PRIVATE to the collection: do not import this from outside, it may change without notice.
"""Prove which credentials a gateway or a registry takes, by asking with each. What is said of one is its place."""

from __future__ import annotations

import base64
import http.client
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TypeVar

from ansible_collections.gpufleet.metal.plugins.module_utils._probe import ProbeError, Target, request

Credential = TypeVar("Credential")


def status_of(target: Target, path: str, credential: str) -> int | str:
    """Return the status that the gateway answers, or why there is no answer."""
    try:
        return request(replace(target, api_key=credential), "GET", path).status
    except ProbeError as fault:
        return str(fault)


def login_status(target: Target, username: str, password: str) -> int | str:
    """Return the status that a registry answers to a login sent as it is, or why there is no answer."""
    token = base64.b64encode(f"{username}:{password}".encode()).decode()
    try:
        return request(replace(target, headers={"Authorization": f"Basic {token}"}), "GET", "/").status
    except ProbeError as fault:
        return str(fault)


def credential_faults(
    accepted: Sequence[Credential], refused: Sequence[Credential], ask: Callable[[Credential], int | str]
) -> list[str]:
    """Say which are not treated as wanted: 200 for those accepted, 401 (RFC 6750, 3.1) for those refused."""
    wanted = [("accepted", http.client.OK, accepted), ("refused", http.client.UNAUTHORIZED, refused)]
    faults = []
    for what, status, credentials in wanted:
        for place, credential in enumerate(credentials, 1):
            found = ask(credential)
            if found != status:
                said = f"answered {found}" if isinstance(found, int) else found
                faults.append(f"credential {place} of {len(credentials)} to be {what}: {said}, wanted {int(status)}")
    return faults


def wait_for_credentials(
    accepted: Sequence[Credential],
    refused: Sequence[Credential],
    ask: Callable[[Credential], int | str],
    wait_seconds: float,
    interval: float = 1.0,
    sleep: Callable[[float], None] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
) -> list[str]:
    """Ask until there is no fault or ``wait_seconds`` are over; return the last faults."""
    deadline = clock() + wait_seconds
    while True:
        faults = credential_faults(accepted, refused, ask)
        if not faults or clock() + interval > deadline:
            return faults
        sleep(interval)
