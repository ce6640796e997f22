# SPDX-License-Identifier: Apache-2.0
"""What holds for a module that proves something and changes nothing."""

from __future__ import annotations


class ModuleDocFragment:
    """Attributes of a module that only looks."""

    DOCUMENTATION = r"""
attributes:
  check_mode:
    description: Can run in check mode and return the same information, since it changes nothing.
    support: full
  diff_mode:
    description: Has nothing to show.
    support: none
"""
