# SPDX-License-Identifier: Apache-2.0
# PRIVATE to the collection: do not import this from outside, it may change without notice.
"""For plugins of the controller: values as pure code wants them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ansible_collections.gpufleet.metal.plugins.module_utils._errors import InvalidInputError


def plain(value: Any) -> Any:
    """Return a copy of a value made only of dict, list, str, int, float, bool and None.

    Ansible hands out containers that template when they are read and texts that carry tags: neither belongs in pure
    code. Raises InvalidInputError for a value that JSON cannot hold.
    """
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        # An encrypted or tagged text becomes the text itself.
        return str.__str__(str(value))
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        return float(value)
    if isinstance(value, Mapping):
        return {str.__str__(str(key)): plain(value[key]) for key in value}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [plain(item) for item in value]
    text = str(value)
    if type(value).__name__.endswith("EncryptedString"):
        return str.__str__(text)
    raise InvalidInputError(f"{text!r} is a {type(value).__name__}, which JSON cannot hold: put it in quotes")
