# SPDX-License-Identifier: Apache-2.0
# PRIVATE to the collection: do not import this from outside, it may change without notice.
"""Text files on the controller: read whole, replaced in one step."""

from __future__ import annotations

import os
import tempfile

from ._errors import FleetError


def read_text(path: str) -> str | None:
    """Return a file's text, or None when there is no such file. Raises FleetError when it cannot be read."""
    try:
        with open(path, encoding="utf-8") as handle:
            return handle.read()
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as fault:
        raise FleetError(f"cannot read {path}: {fault}") from fault


def replace_text(path: str, content: str) -> None:
    """Replace a file in one step: a reader sees the old or the new content, never a part.

    Makes the directory when it is missing. Raises FleetError when that or the file cannot be written.
    """
    directory = os.path.dirname(path)
    try:
        os.makedirs(directory, mode=0o755, exist_ok=True)
        handle, temporary = tempfile.mkstemp(prefix=".plan-", dir=directory)
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as stream:
                stream.write(content)
            os.chmod(temporary, 0o644)
            os.replace(temporary, path)
        except BaseException:
            os.unlink(temporary)
            raise
    except OSError as fault:
        raise FleetError(f"cannot write {path} (option directory): {fault}") from fault
