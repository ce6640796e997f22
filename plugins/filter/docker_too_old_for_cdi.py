# SPDX-License-Identifier: Apache-2.0
"""Whether a wanted version of Docker's packages is too old for devices by CDI."""

from __future__ import annotations

DOCUMENTATION = r"""
name: docker_too_old_for_cdi
short_description: Tell whether a wanted version of Docker is too old for devices by CDI
version_added: "0.1.0"
author: GPUFleet contributors (@gpufleet)
description:
  - An engine before 28.2 doesn't start containers with CDI devices again when it starts itself, as after a boot.
  - True only when every version that the text stands for is older; a running engine has to be asked as well.
options:
  _input:
    description: A version as the package manager takes it, C(*) standing for anything.
    type: str
    required: true
"""

EXAMPLES = r"""
- name: Ask for two versions
  ansible.builtin.debug:
    msg: "{{ ['5:27.5.*', '5:29.4.*'] | map('gpufleet.metal.docker_too_old_for_cdi') }}"
    # [true, false]
"""

RETURN = r"""
_value:
  description: Whether it is too old.
  type: bool
"""

from collections.abc import Callable
from typing import Any

from ansible_collections.gpufleet.metal.plugins.module_utils import _docker_daemon


def docker_too_old_for_cdi(wanted: Any) -> bool:
    """See the documentation above."""
    return _docker_daemon.too_old_for_cdi(str(wanted))


class FilterModule:
    """What Ansible asks for the filters of this file."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """The filters by name."""
        return {"docker_too_old_for_cdi": docker_too_old_for_cdi}
