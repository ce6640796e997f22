# SPDX-License-Identifier: Apache-2.0
# PRIVATE to the collection: do not import this from outside, it may change without notice.
"""How gateways and engines prove themselves to each other: names, files and arguments of mutual TLS, decided once."""

from __future__ import annotations

import posixpath
from typing import Any

from .schema import Engine, Host

#: Values of ``fleet_engine.tls``.
MODES = ("none", "mutual")
#: The name that every engine's certificate has beside its address: NGINX compares one name for all servers of a group.
#: The same in every fleet: the authority tells fleets apart, and a name that changed would part gateways from engines.
ENGINES_NAME = "engines.gpufleet.internal"
#: Where the engine finds its files in its container. The directory is mounted, not the files: a renewed file is another
#: inode, which a mounted file would never show.
MOUNT = "/tls"
#: The same directory on the host. It holds nothing else, because the engine sees all of it.
DIRECTORY = "/etc/gpufleet/engine"
#: What a host asks engines with: a gateway for its clients, a GPU node to prove its own engines. No engine sees these.
CLIENT_CERTIFICATE = "/etc/gpufleet/pki/client.crt"
CLIENT_KEY = "/etc/gpufleet/pki/client.key"
ENGINES_CA = "/etc/gpufleet/pki/engines-ca.crt"
#: A bare connection is the kernel's to take; a handshake needs the engine's server process, which may be busy.
HANDSHAKE_SECONDS = 5
#: X.509 allows no longer common name.
_NAME_LENGTH = 64

#: The engine watches its files by inotify, which follows an inode: it sees the first renewal, by which the inode goes,
#: and no later one (watchfiles 1.3, vLLM 0.32.0). Looking at the paths every few seconds sees all of them.
ENVIRONMENT = {"WATCHFILES_FORCE_POLLING": "true", "WATCHFILES_POLL_DELAY_MS": "5000"}


def is_mutual(engine: Engine) -> bool:
    """Return whether gateways and engines prove themselves to each other."""
    return engine.tls == "mutual"


def scheme(engine: Engine) -> str:
    """Return how engines are asked."""
    return "https" if is_mutual(engine) else "http"


def tls_arguments(engine: Engine) -> list[str]:
    """Return what the engine is told of TLS. 2 is ssl.CERT_REQUIRED: no answer without a certificate."""
    if not is_mutual(engine):
        return []
    return [
        "--ssl-certfile",
        posixpath.join(MOUNT, "tls.crt"),
        "--ssl-keyfile",
        posixpath.join(MOUNT, "tls.key"),
        "--ssl-ca-certs",
        posixpath.join(MOUNT, "ca.crt"),
        "--ssl-cert-reqs",
        "2",
        "--enable-ssl-refresh",
    ]


def upstream_tls(engine: Engine) -> dict[str, Any] | None:
    """Return how a gateway asks the servers of a group; None without TLS."""
    if not is_mutual(engine):
        return None
    return {
        "server_name": ENGINES_NAME,
        "certificate_path": CLIENT_CERTIFICATE,
        "certificate_key_path": CLIENT_KEY,
        "ca_path": ENGINES_CA,
        "handshake_timeout_seconds": HANDSHAKE_SECONDS,
    }


def engine_tls(engine: Engine) -> dict[str, str]:
    """Return what the role that runs engines is told; with the files in both modes: an engine may have the other."""
    return {
        "mode": engine.tls,
        "directory": DIRECTORY,
        "client_certificate_path": CLIENT_CERTIFICATE,
        "client_key_path": CLIENT_KEY,
        "ca_path": ENGINES_CA,
    }


def engine_certificate(host: Host, engine: Engine) -> dict[str, Any] | None:
    """Return the certificate that all engines of a host answer with; None without TLS."""
    if not is_mutual(engine):
        return None
    return {
        "common_name": f"engines of {host.name}"[:_NAME_LENGTH],
        "subject_alt_names": sorted([f"DNS:{ENGINES_NAME}", *_addresses(host)]),
        "certificate_path": posixpath.join(DIRECTORY, "tls.crt"),
        "key_path": posixpath.join(DIRECTORY, "tls.key"),
        "ca_path": posixpath.join(DIRECTORY, "ca.crt"),
    }


def client_certificate(host: Host, engine: Engine) -> dict[str, Any] | None:
    """Return the certificate that a host asks engines with; None without TLS."""
    if not is_mutual(engine):
        return None
    return {
        "common_name": f"client {host.name}"[:_NAME_LENGTH],
        "subject_alt_names": _addresses(host),
        "certificate_path": CLIENT_CERTIFICATE,
        "key_path": CLIENT_KEY,
        "ca_path": ENGINES_CA,
    }


def issued(common_name: str, host: Host, directory: str, stem: str) -> dict[str, Any]:
    """Return a certificate of a host's address, in a directory of its own, beside whom it trusts."""
    return {
        "common_name": common_name[:_NAME_LENGTH],
        "subject_alt_names": _addresses(host),
        "certificate_path": posixpath.join(directory, f"{stem}.crt"),
        "key_path": posixpath.join(directory, f"{stem}.key"),
        "ca_path": posixpath.join(directory, "ca.crt"),
    }


def _addresses(host: Host) -> list[str]:
    """Return the host's address as a certificate names it; none after a finding."""
    return [f"IP:{host.address}"] if host.address else []
