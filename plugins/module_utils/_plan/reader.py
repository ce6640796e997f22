# SPDX-License-Identifier: Apache-2.0
# PRIVATE to the collection: do not import this from outside, it may change without notice.
"""Reading one mapping of the inventory: types, bounds and spelling; every fault becomes a finding."""

from __future__ import annotations

import ipaddress
import posixpath
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from .findings import Finding, did_you_mean

_MISSING: Any = object()

NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")

SHA256 = re.compile(r"[0-9a-f]{64}")

COMMIT = re.compile(r"[0-9a-f]{40}")

REPOSITORY = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*/[A-Za-z0-9][A-Za-z0-9._-]*")

_DNS_LABEL = r"[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?"

_DNS_NAME = re.compile(rf"(?=.{{1,253}}\Z){_DNS_LABEL}(\.{_DNS_LABEL})*")

_DNS_WILDCARD = re.compile(rf"(?=.{{1,253}}\Z)(\*\.)?{_DNS_LABEL}(\.{_DNS_LABEL})*")

_CAPABILITY = re.compile(r"([0-9]{1,2})\.([0-9])")

PCI_ADDRESS = re.compile(r"[0-9a-f]{4,8}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]")


def shown(value: Any) -> str:
    """Return a short text for a value that was found."""
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        text = f'"{value}"'
    elif isinstance(value, Mapping):
        text = f"a mapping with {len(value)} keys"
    elif isinstance(value, (list, tuple)):
        text = f"a list of {len(value)}"
    else:
        text = str(value)
    return text if len(text) <= 120 else f"{text[:117]}..."


class Reader:
    """Reads one mapping of the inventory and collects what is wrong with it.

    Every method returns the value, or the default when the value is absent or wrong; ``ok`` tells whether anything
    was wrong.
    """

    def __init__(self, value: Any, path: str, kind: str, subject: str, findings: list[Finding]) -> None:
        self.path = path
        self.kind = kind
        self.subject = subject
        self.findings = findings
        self.ok = True
        self._known: list[str] = []
        self._values: Mapping[str, Any] = {}
        self.absent = value is None
        if value is None:
            return
        if isinstance(value, Mapping):
            self._values = value
        else:
            self.report("wrong_type", f"{path} is {shown(value)}", "a mapping", f"write {path} as a mapping of options")

    def report(self, code: str, found: str, wanted: str, fix: str) -> None:
        """Add a finding about this mapping."""
        self.ok = False
        self.findings.append(Finding(self.subject, code, found, wanted, fix, self.kind))

    def _get(self, key: str, default: Any, wanted: str) -> Any:
        self._known.append(key)
        value = self._values.get(key)
        if value is not None:
            return value
        if default is _MISSING:
            self.report("missing_value", f"{self.path}.{key} is not set", wanted, f"set {self.path}.{key}")
        return _MISSING

    def _wrong(self, key: str, value: Any, wanted: str) -> None:
        self.report("wrong_type", f"{self.path}.{key} is {shown(value)}", wanted, f"correct {self.path}.{key}")

    def _invalid(self, key: str, value: Any, wanted: str) -> None:
        self.report("invalid_value", f"{self.path}.{key} is {shown(value)}", wanted, f"correct {self.path}.{key}")

    def text(
        self, key: str, default: Any = _MISSING, check: Callable[[str], bool] | None = None, wanted: str = "a text"
    ) -> Any:
        """Read a text."""
        value = self._get(key, default, wanted)
        if value is _MISSING:
            return None if default is _MISSING else default
        if not isinstance(value, str):
            self._wrong(key, value, wanted)
        elif not value or (check is not None and not check(value)):
            self._invalid(key, value, wanted)
        else:
            return value
        return None if default is _MISSING else default

    def choice(self, key: str, default: str, choices: Sequence[str]) -> str:
        """Read one of some words."""
        wanted = f"one of {', '.join(choices)}"
        value = self._get(key, default, wanted)
        if value is _MISSING:
            return default
        if not isinstance(value, str) or value not in choices:
            self._invalid(key, value, wanted + did_you_mean(str(value), choices))
            return default
        return value

    def integer(self, key: str, default: Any = _MISSING, minimum: int = 1, maximum: int = 2**63) -> Any:
        """Read a whole number within bounds."""
        bounds = f"{minimum} or more" if maximum >= 2**63 else f"{minimum} to {maximum}"
        wanted = f"a whole number, {bounds}"
        value = self._get(key, default, wanted)
        if value is _MISSING:
            return 0 if default is _MISSING else default
        number = as_integer(value)
        if number is None:
            self._wrong(key, value, wanted)
        elif not minimum <= number <= maximum:
            self._invalid(key, value, wanted)
        else:
            return number
        return 0 if default is _MISSING else default

    def integer_or_auto(self, key: str) -> int | None:
        """Read a whole number, 1 or more, or the word ``auto`` (also the default), which is returned as None."""
        wanted = "auto or a whole number, 1 or more"
        value = self._get(key, None, wanted)
        if value is _MISSING or value == "auto":
            return None
        number = as_integer(value)
        if number is None:
            self._wrong(key, value, wanted)
            return None
        if number < 1:
            self._invalid(key, value, wanted)
            return None
        return number

    def fraction(self, key: str, default: float) -> float:
        """Read a number above 0 and not above 1."""
        wanted = "a number above 0 and not above 1"
        value = self._get(key, default, wanted)
        if value is _MISSING:
            return default
        if isinstance(value, str):
            try:
                value = float(value)
            except ValueError:
                self._wrong(key, value, wanted)
                return default
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            self._wrong(key, value, wanted)
        elif not 0 < value <= 1:
            self._invalid(key, value, wanted)
        else:
            return float(value)
        return default

    def mapping(self, key: str, default: Any = _MISSING, wanted: str = "a mapping") -> dict[str, Any]:
        """Read a mapping whose content is not checked here."""
        value = self._get(key, default, wanted)
        if value is _MISSING:
            return {}
        if not isinstance(value, Mapping):
            self._wrong(key, value, wanted)
            return {}
        return dict(value)

    def texts(self, key: str, check: Callable[[str], bool], wanted: str) -> tuple[str, ...]:
        """Read a list of texts, empty by default."""
        value = self._get(key, (), f"a list, each {wanted}")
        if value is _MISSING:
            return ()
        if not isinstance(value, (list, tuple)):
            self._wrong(key, value, f"a list, each {wanted}")
            return ()
        good = []
        for item in value:
            if isinstance(item, str) and check(item):
                good.append(item)
            else:
                self._invalid(key, item, wanted)
        return tuple(good)

    def capability(self, key: str) -> tuple[int, int] | None:
        """Read a compute capability like ``8.9``, none by default."""
        value = self._get(key, None, 'a compute capability like "8.9"')
        if value is _MISSING:
            return None
        capability = as_capability(value)
        if capability is None:
            self._wrong(key, value, 'a compute capability like "8.9"')
        return capability

    def child(self, key: str) -> Reader:
        """Return a reader of a mapping below this one; ``absent`` on it tells that it is not set."""
        self._known.append(key)
        return Reader(self._values.get(key), f"{self.path}.{key}", self.kind, self.subject, self.findings)

    def has(self, key: str) -> bool:
        """Tell whether a key is set."""
        return self._values.get(key) is not None

    def known(self, *keys: str) -> None:
        """Name keys that are read elsewhere."""
        self._known.extend(keys)

    def finish(self) -> None:
        """Report every key that nobody asked for."""
        for key in sorted(str(key) for key in self._values):
            if key not in self._known:
                self.report(
                    "unknown_key",
                    f"{self.path}.{key}",
                    f"one of {', '.join(sorted(self._known))}{did_you_mean(key, self._known)}",
                    f"correct or remove {self.path}.{key}",
                )


def as_integer(value: Any) -> int | None:
    """Return a whole number, also from its decimal text (older ansible-core templates into text), else None."""
    if isinstance(value, bool):
        return None
    if isinstance(value, int):
        return value
    if isinstance(value, str) and re.fullmatch(r"-?[0-9]{1,19}", value):
        return int(value)
    return None


def as_capability(value: Any) -> tuple[int, int] | None:
    """Return (major, minor) of ``"8.9"`` or 8.9, else None."""
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        return None
    text = f"{value:.1f}" if isinstance(value, (int, float)) else value
    match = _CAPABILITY.fullmatch(text)
    return (int(match[1]), int(match[2])) if match else None


def is_ip(text: str) -> bool:
    """Tell whether the text is the literal of a unicast address that another host can reach."""
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return False
    return not (address.is_loopback or address.is_unspecified or address.is_multicast)


def is_url(text: str) -> bool:
    return re.fullmatch(r"(https?://[^\s/]+/\S*|file:///\S+)", text) is not None


def is_directory(text: str) -> bool:
    return text.startswith("/") and text != "/" and posixpath.normpath(text) == text


def is_file_below(text: str) -> bool:
    return bool(text) and not text.startswith("/") and ".." not in text.split("/") and posixpath.normpath(text) == text


def is_endpoint_name(text: str) -> bool:
    return is_ip(text) or _DNS_NAME.fullmatch(text) is not None


def address_key(address: str) -> tuple[int, int]:
    """Return a sort key of an address: by version of IP, then by number."""
    parsed = ipaddress.ip_address(address)
    return (parsed.version, int(parsed))


def is_name(text: str) -> bool:
    return _DNS_NAME.fullmatch(text) is not None and not is_ip(text)


def is_alternative_name(text: str) -> bool:
    return is_ip(text) or _DNS_WILDCARD.fullmatch(text) is not None


def matches(pattern: re.Pattern[str]) -> Callable[[str], bool]:
    return lambda text: pattern.fullmatch(text) is not None
