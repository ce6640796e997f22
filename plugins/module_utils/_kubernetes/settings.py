# SPDX-License-Identifier: Apache-2.0
# PRIVATE to the collection: do not import this from outside, it may change without notice.
"""How engines are run in the cluster, beside what the plan says: the options of the role vllm, read and checked."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from ansible_collections.gpufleet.metal.plugins.module_utils._errors import InvalidInputError

APIS = ("chat", "completion")
#: Where the cache of an engine lies: in a directory of the host, or in the pod, with which it goes.
CACHES = ("host", "pod")

_USER = re.compile(r"([1-9][0-9]{0,9}):([0-9]{1,10})")
_CPU = re.compile(r"[0-9]+(\.[0-9]{1,3})?|[1-9][0-9]*m")
_BYTES = re.compile(r"[1-9][0-9]*(Ki|Mi|Gi|Ti|k|M|G|T)?")


@dataclass(frozen=True)
class EngineSettings:
    """Options of the role vllm that its Docker way has too, and those that only a pod needs."""

    entrypoint: tuple[str, ...] = ("vllm", "serve")
    user: str = "2000:0"
    read_only: bool = True
    cache: str = "host"
    cache_directory: str = "/var/cache/gpufleet-vllm"
    start_timeout_seconds: int = 1800
    probe_api: str = "chat"
    probe_timeout_seconds: int = 60
    #: What runs the probes: a Python 3.9 or newer of the image.
    probe_python: tuple[str, ...] = ("python3", "-I")
    #: Directory on the host with client.crt and client.key for the probes of engines with mutual TLS. Empty: they
    #: have none and see of an engine no more than a handshake.
    probe_tls_directory: str = ""
    #: How long preStop waits for requests in hand before the engine is told to end.
    drain_seconds: int = 30
    #: How long an engine may stand still although it was asked, before it is restarted.
    hang_seconds: int = 180
    #: Asked of the scheduler, and no limit: without any request kubelet would evict engines first.
    cpu: str = "1"
    memory: str = "4Gi"
    tmp_size: str = "8Gi"

    @property
    def uid(self) -> int:
        """Return the user id."""
        return int(self.user.partition(":")[0])

    @property
    def gid(self) -> int:
        """Return the group id."""
        return int(self.user.partition(":")[2])

    @staticmethod
    def from_options(options: Mapping[str, Any]) -> EngineSettings:
        """Read options; what is not given has its default. Raises InvalidInputError that names the option."""
        defaults = {entry.name: getattr(EngineSettings(), entry.name) for entry in fields(EngineSettings)}
        unknown = sorted(set(options) - set(defaults))
        if unknown:
            raise InvalidInputError(f"settings: found {', '.join(unknown)}, wanted only {', '.join(sorted(defaults))}")
        given: dict[str, Any] = {}
        for name, value in options.items():
            default = defaults[name]
            if isinstance(default, tuple):
                if not isinstance(value, (list, tuple)) or not value or not all(isinstance(v, str) for v in value):
                    raise _wrong(name, value, "a list of words, not empty")
                given[name] = tuple(value)
            elif isinstance(value, bool) is not isinstance(default, bool) or not isinstance(value, type(default)):
                raise _wrong(name, value, {bool: "true or false", int: "a whole number"}.get(type(default), "a text"))
            else:
                given[name] = value
        settings = EngineSettings(**given)
        settings.check()
        return settings

    def check(self) -> None:
        """Raise InvalidInputError for a value that is out of range or does not fit the others."""
        if not _USER.fullmatch(self.user):
            raise _wrong("user", self.user, "numbers uid:gid, not root, such as 2000:0")
        for name, choices in (("probe_api", APIS), ("cache", CACHES)):
            if getattr(self, name) not in choices:
                raise _wrong(name, getattr(self, name), f"one of {', '.join(choices)}")
        for name in ("cache_directory", "probe_tls_directory"):
            path = getattr(self, name)
            if (path or name == "cache_directory") and (not path.startswith("/") or ".." in path.split("/")):
                raise _wrong(name, path, "an absolute path without '..'")
        for name, pattern, wanted in (
            ("cpu", _CPU, "a number of cores, such as 2, 0.5 or 500m"),
            ("memory", _BYTES, "a size, such as 4Gi"),
            ("tmp_size", _BYTES, "a size, such as 8Gi"),
        ):
            if not pattern.fullmatch(getattr(self, name)):
                raise _wrong(name, getattr(self, name), wanted)
        for name, least in (("start_timeout_seconds", 60), ("probe_timeout_seconds", 5), ("drain_seconds", 10)):
            if getattr(self, name) < least:
                raise _wrong(name, getattr(self, name), f"{least} or more")
        if self.hang_seconds < 2 * self.probe_timeout_seconds:
            raise _wrong(
                "hang_seconds",
                self.hang_seconds,
                f"at least twice probe_timeout_seconds ({self.probe_timeout_seconds}): one late answer is no hang",
            )


def _wrong(name: str, found: Any, wanted: str) -> InvalidInputError:
    return InvalidInputError(f"settings.{name}: found {found!r}, wanted {wanted}")
