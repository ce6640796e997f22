#!/usr/bin/python
# Copyright (c) gpufleet.metal contributors
# Apache-2.0, or at your option the GNU General Public License v3.0+ (https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: Apache-2.0 OR GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: connectivity_info
short_description: Tell which TCP ports of other hosts can be reached from here, and what TLS they speak
version_added: 0.1.0
description:
  - Opens one TCP connection to each target from the host that the module runs on, all at the same time, and reports
    whether it was accepted, refused or swallowed. With O(targets[].tls) it also completes a TLS handshake and reports
    version and cipher.
  - Changes nothing and never fails because of what it finds; an O(targets[].tls.ca_path) that can't be read is wrong
    input and does fail. Where a target says what is expected, a difference is one of RV(faults).
author:
  - gpufleet.metal contributors (@gpufleet)
options:
  targets:
    description: What to connect to.
    type: list
    elements: dict
    required: true
    suboptions:
      name:
        description: The caller's name for the target, returned with its result.
        type: str
        required: true
      address:
        description: IP address or host name.
        type: str
        required: true
      port:
        description: TCP port.
        type: int
        required: true
      expect:
        description:
          - What the caller wants to find. V(open), V(refused) and V(filtered) are the states of RV(results[].state);
            V(tls_accepted), V(tls_refused), V(tls_untrusted) and V(tls_client_refused) are open ports with that
            RV(results[].tls_state).
        type: str
        choices: [open, refused, filtered, tls_accepted, tls_refused, tls_untrusted, tls_client_refused]
      tls:
        description: Complete a TLS handshake after connecting.
        type: dict
        suboptions:
          server_name:
            description: Name for SNI and for checking the certificate.
            type: str
            required: true
          maximum_version:
            description: Highest TLS version to offer. Unset offers all that this Python knows.
            type: str
            choices: ["1.2", "1.3"]
          ca_path:
            description: PEM file with the certificate authority to trust. Unset trusts the system's.
            type: path
          ca_content:
            description:
              - The same as text, for an authority of which the host has no file. Not with O(targets[].tls.ca_path).
            type: str
          client_content:
            description:
              - A certificate to show as a client, and its key, in PEM as text. It is kept in memory, which needs Linux.
              - Over TLS 1.3 a handshake is complete before the peer judges it, so O(targets[].tls.http_path) is needed
                to learn its judgement; a peer that refuses it over TLS 1.2 (see O(targets[].tls.maximum_version)) fails
                the handshake.
            type: str
          http_path:
            description:
              - Ask for this by HTTP after the handshake. Only who gets an answer, whatever its status, was accepted.
            type: str
  timeout:
    description: Seconds to wait for a connection and for a handshake.
    type: float
    default: 3.0
attributes:
  check_mode:
    description: Runs the same way in check mode.
    support: full
  diff_mode:
    description: There is nothing to compare.
    support: none
"""

EXAMPLES = r"""
- name: See whether the engine's port is closed to other hosts
  gpufleet.metal.connectivity_info:
    targets:
      - {name: engine, address: 198.51.100.11, port: 8000, expect: filtered}
  register: __reach
  failed_when: __reach.faults

- name: See whether the gateway refuses TLS 1.2
  gpufleet.metal.connectivity_info:
    targets:
      - name: tls12
        address: 198.51.100.13
        port: 443
        expect: tls_refused
        tls: {server_name: llm.example.org, maximum_version: "1.2", ca_path: pki/ca.crt}
  register: __tls
"""

RETURN = r"""
results:
  description: One entry per target, in the order given.
  returned: always
  type: list
  elements: dict
  contains:
    name:
      description: The target's name.
      type: str
      sample: engine
    state:
      description:
        - C(open) is accepted, C(refused) that a host answered that nobody listens, C(filtered) that none did.
      type: str
      sample: open
    tls_state:
      description:
        - C(accepted) is a completed handshake. C(refused) is the peer's own answer that it speaks none of the offered
          versions, the alert C(protocol_version). C(untrusted) is a certificate that no trusted authority signed.
          C(client_refused) is a peer that completed the handshake and then, asked for O(targets[].tls.http_path), ended
          the connection or sent an alert instead of an answer, as over TLS 1.3 one does that does not take the client.
          C(failed) is anything else, such as a certificate for another name, a peer that says nothing, or no common
          version because this side's policy forbids it.
        - Null without O(targets[].tls), and where no connection was made.
      type: str
      sample: accepted
    tls_version:
      description: The negotiated version, null without a completed handshake.
      type: str
      sample: TLSv1.3
    tls_cipher:
      description: The negotiated cipher suite, null without a completed handshake.
      type: str
      sample: TLS_AES_256_GCM_SHA384
    tls_serial:
      description:
        - Serial number of the certificate that was served, in hexadecimal; null without a completed handshake.
      type: str
      sample: 2f1c
    error:
      description: What the connection or the handshake ended with, null when all went well.
      type: str
      sample: "[SSL: TLSV1_ALERT_PROTOCOL_VERSION] tlsv1 alert protocol version"
faults:
  description: One sentence for each target that was not found as expected.
  returned: always
  type: list
  elements: str
  sample: ["gpu-2:8000 (198.51.100.12:8000): found open, wanted filtered"]
"""

import concurrent.futures
import os
import socket
import ssl
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.gpufleet.metal.plugins.module_utils._no_log import mask_only

PROTOCOL_REFUSED = "TLSV1_ALERT_PROTOCOL_VERSION"
"""What OpenSSL calls the peer's alert protocol_version (RFC 8446, 6.2): it speaks none of the offered versions."""

TLS_EXPECTATIONS = ("tls_accepted", "tls_refused", "tls_untrusted", "tls_client_refused")

UNTRUSTED = (18, 19, 20, 21)
"""X509_V_ERR_* of OpenSSL for a chain that leads to nobody who is trusted: self-signed, or an issuer is missing."""


def tls_context(tls: dict[str, Any] | None) -> ssl.SSLContext | None:
    """What a target's handshake is made with. Raises OSError, of which ssl.SSLError is one, for what it can't read."""
    if not tls:
        return None
    context = ssl.create_default_context(cafile=tls["ca_path"], cadata=tls["ca_content"])
    if tls["client_content"]:
        # The library reads a key from a file only: this one is never on a disk, and gone with its descriptor.
        descriptor = os.memfd_create("client")
        with os.fdopen(descriptor, "w", encoding="ascii") as stream:
            stream.write(tls["client_content"])
            stream.flush()
            context.load_cert_chain(f"/proc/self/fd/{descriptor}")
    if tls["maximum_version"] == "1.2":
        context.maximum_version = ssl.TLSVersion.TLSv1_2
    return context


def asked(secured: ssl.SSLSocket, name: str, path: str) -> str | None:
    """Ask by HTTP; returns None for an answer, else how the peer ended the connection. Raises OSError for silence."""
    request = f"GET {path} HTTP/1.1\r\nHost: {name}\r\nConnection: close\r\n\r\n"
    try:
        secured.sendall(request.encode("ascii"))
        return None if secured.recv(1) else "the peer ended the connection without an answer"
    except (ConnectionError, ssl.SSLError) as exc:
        return str(exc)


def handshake(connection: socket.socket, context: ssl.SSLContext, name: str, path: str | None) -> dict[str, Any]:
    """Complete a handshake, and ask for a path if any; returns a result's tls_* and error."""
    try:
        with context.wrap_socket(connection, server_hostname=name) as secured:
            cipher = secured.cipher()
            version = secured.version()
            serial = str((secured.getpeercert() or {})["serialNumber"]).lower()
            refusal = asked(secured, name, path) if path else None
            return {
                "tls_state": "client_refused" if refusal else "accepted",
                "tls_version": version,
                "tls_cipher": cipher[0] if cipher else None,
                "tls_serial": serial,
                "error": refusal,
            }
    except OSError as exc:
        state = "failed"
        if isinstance(exc, ssl.SSLError) and exc.reason == PROTOCOL_REFUSED:
            state = "refused"
        elif isinstance(exc, ssl.SSLCertVerificationError) and exc.verify_code in UNTRUSTED:
            state = "untrusted"
        return {"tls_state": state, "error": str(exc)}


def probe(target: dict[str, Any], timeout: float, context: ssl.SSLContext | None = None) -> dict[str, Any]:
    """Connect to one target; returns its entry of RETURN's `results`."""
    result: dict[str, Any] = {key: target[key] for key in ("name", "address", "port")}
    result.update(state="filtered", tls_state=None, tls_version=None, tls_cipher=None, tls_serial=None, error=None)
    try:
        with socket.create_connection((target["address"], target["port"]), timeout=timeout) as connection:
            result["state"] = "open"
            if context is not None:
                result.update(handshake(connection, context, target["tls"]["server_name"], target["tls"]["http_path"]))
    except ConnectionRefusedError as exc:
        result.update(state="refused", error=str(exc))
    except OSError as exc:
        result["error"] = str(exc)
    return result


def fault(target: dict[str, Any], result: dict[str, Any]) -> str | None:
    """One sentence when the result is not what the target expects, else None."""
    wanted, found = target["expect"], result["state"]
    if wanted in TLS_EXPECTATIONS and result["tls_state"]:
        found = f"tls_{result['tls_state']}"
    if wanted is None or wanted == found:
        return None
    reason = f" ({result['error']})" if result["error"] else ""
    return f"{target['name']} ({target['address']}:{target['port']}): found {found}{reason}, wanted {wanted}"


def main() -> None:
    """Entry point of the module."""
    tls_options = {
        "server_name": {"type": "str", "required": True},
        "maximum_version": {"type": "str", "choices": ["1.2", "1.3"]},
        "ca_path": {"type": "path"},
        "ca_content": {"type": "str"},
        "client_content": {"type": "str", "no_log": True},
        "http_path": {"type": "str"},
    }
    target_options = {
        "name": {"type": "str", "required": True},
        "address": {"type": "str", "required": True},
        "port": {"type": "int", "required": True},
        "expect": {"type": "str", "choices": ["open", "refused", "filtered", *TLS_EXPECTATIONS]},
        "tls": {"type": "dict", "options": tls_options, "mutually_exclusive": [["ca_path", "ca_content"]]},
    }
    module = AnsibleModule(
        argument_spec={
            "targets": {
                "type": "list",
                "elements": "dict",
                "required": True,
                "no_log": True,
                "options": target_options,
            },
            "timeout": {"type": "float", "default": 3.0},
        },
        supports_check_mode=True,
    )
    targets, timeout = module.params["targets"], module.params["timeout"]
    mask_only(module, [target["tls"]["client_content"] for target in targets if target["tls"]])
    contexts = []
    for target in targets:
        try:
            contexts.append(tls_context(target["tls"]))
        except OSError as exc:
            where = target["tls"]["ca_path"] or "ca_content"
            client = ", or client_content no certificate with its key" if target["tls"]["client_content"] else ""
            module.fail_json(msg=f"{target['name']}: {where} holds no certificate authority{client}: {exc}")
    with concurrent.futures.ThreadPoolExecutor(max_workers=max(1, min(64, len(targets)))) as pool:
        results = list(pool.map(probe, targets, [timeout] * len(targets), contexts))
    faults = [sentence for target, result in zip(targets, results) if (sentence := fault(target, result))]
    module.exit_json(changed=False, results=results, faults=faults)


if __name__ == "__main__":
    main()
