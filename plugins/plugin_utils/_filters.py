# SPDX-License-Identifier: Apache-2.0
# PRIVATE to the collection: do not import this from outside, it may change without notice.
"""For filter plugins: turn a pure function into a filter."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

from ansible.errors import AnsibleFilterError

from ansible_collections.gpufleet.metal.plugins.module_utils._errors import FleetError


def as_filter(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return the function with its FleetError turned into AnsibleFilterError, the message unchanged."""

    @wraps(function)
    def call(*arguments: Any, **options: Any) -> Any:
        try:
            return function(*arguments, **options)
        except FleetError as fault:
            raise AnsibleFilterError(str(fault)) from fault

    return call
