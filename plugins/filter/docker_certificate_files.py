# SPDX-License-Identifier: Apache-2.0
"""The files by which a Docker engine trusts registries with certificate authorities of their own."""

from __future__ import annotations

DOCUMENTATION = r"""
name: docker_certificate_files
short_description: List the files that let Docker trust the certificate authorities of registries
version_added: "0.1.0"
author: GPUFleet contributors (@gpufleet)
description:
  - Returns the O(gpufleet.metal.managed_files#module:files) below C(/etc/docker/certs.d).
options:
  _input:
    description: Certificates in PEM format by the name of the registry, C(host) or C(host:port).
    type: dict
    required: true
"""

EXAMPLES = r"""
- name: Trust a registry's own certificate authority
  gpufleet.metal.managed_files:
    files: "{{ {'registry.example.org:5000': lookup('file', 'ca.pem')} | gpufleet.metal.docker_certificate_files }}"
"""

RETURN = r"""
_value:
  description: The directories and files.
  type: list
  elements: dict
"""

from collections.abc import Callable, Mapping
from typing import Any

from ansible.errors import AnsibleFilterError

from ansible_collections.gpufleet.metal.plugins.module_utils import _docker_daemon
from ansible_collections.gpufleet.metal.plugins.module_utils._errors import FleetError


def docker_certificate_files(certificates: Mapping[str, Any]) -> list[dict[str, Any]]:
    """See the documentation above."""
    if not isinstance(certificates, Mapping):
        raise AnsibleFilterError(f"wanted a dict by registry, found {certificates!r}")
    try:
        return _docker_daemon.certificate_files(certificates)
    except FleetError as fault:
        raise AnsibleFilterError(str(fault)) from fault


class FilterModule:
    """What Ansible asks for the filters of this file."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """The filters by name."""
        return {"docker_certificate_files": docker_certificate_files}
