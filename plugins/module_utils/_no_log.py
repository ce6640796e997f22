# SPDX-License-Identifier: Apache-2.0
# PRIVATE to the collection: do not import this from outside, it may change without notice.
"""Keep secrets that stand inside an option out of what Ansible logs of a module's invocation."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any


def mask_only(module: Any, secrets: Iterable[str | None]) -> None:
    """Let a module's results show everything but these values, after an option with ``no_log`` hid all that it holds.

    ``AnsibleModule`` logs a list or a dictionary as Python writes it, and looks for the secret as it is: one with a
    backslash, a line break or both kinds of quotes is written differently, and not found. So such an option has
    ``no_log`` as a whole, which keeps it out of the log; this gives names and addresses back to messages and results.
    """
    module.no_log_values = {secret for secret in secrets if secret}
