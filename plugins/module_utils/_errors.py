# SPDX-License-Identifier: Apache-2.0
# PRIVATE to the collection: do not import this from outside, it may change without notice.
"""The collection's one error tree.

Pure code raises these; the shells (modules, action, filter and lookup plugins) translate them into what
Ansible expects (``fail_json``, ``AnsibleActionFail``, ``AnsibleFilterError``). A message names the thing,
the value found, the value wanted and the variable that changes it.
"""

from __future__ import annotations


class FleetError(ValueError):
    """Anything that stops the collection for a reason that the operator can act on."""


class InvalidInputError(FleetError):
    """A value given by the user (variable, option, file) is missing, of a wrong type or out of range."""
