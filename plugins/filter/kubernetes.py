# SPDX-License-Identifier: Apache-2.0
"""Filter shells over module_utils/_kubernetes; each is documented in the YAML file of its name."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import yaml

from ansible_collections.gpufleet.metal.plugins.module_utils._errors import InvalidInputError
from ansible_collections.gpufleet.metal.plugins.module_utils._kubernetes import containerd, kubeadm, node, upgrade
from ansible_collections.gpufleet.metal.plugins.plugin_utils._filters import as_filter
from ansible_collections.gpufleet.metal.plugins.plugin_utils._plain import plain

HEADER = "# SPDX-License-Identifier: Apache-2.0\n# Managed by Ansible (gpufleet.metal.kubernetes).\n"


def _text(documents: Sequence[Mapping[str, Any]]) -> str:
    text: str = yaml.safe_dump_all(documents, sort_keys=False, width=1000, explicit_start=True)
    return HEADER + text


def _parsed(text: str, what: str) -> list[Any]:
    try:
        return list(yaml.safe_load_all(text))
    except yaml.YAMLError as fault:
        raise InvalidInputError(f"{what} is no YAML: {fault}") from fault


def option_faults(options: Mapping[str, Any]) -> list[str]:
    """See kubernetes_option_faults.yml."""
    return kubeadm.faults(kubeadm.settings(plain(options)))


def documents(options: Mapping[str, Any], action: str) -> list[dict[str, Any]]:
    """See kubernetes_documents.yml."""
    told = kubeadm.settings(plain(options))
    if action == "offer":
        return [kubeadm.offer_document(told)]
    return kubeadm.documents(told) if action == "init" else [kubeadm.join_document(told)]


def files(options: Mapping[str, Any]) -> list[dict[str, Any]]:
    """See kubernetes_files.yml."""
    told = kubeadm.settings(plain(options))
    contents = {
        "kubeadm.yaml": kubeadm.documents(told),
        "authentication.yaml": [kubeadm.authentication_document()],
        "admission.yaml": [kubeadm.admission_document()],
        "audit.yaml": [kubeadm.audit_document(told)],
    }
    entries: list[dict[str, Any]] = [
        {"dest": "/etc/kubernetes", "state": "directory", "mode": "0755"},
        {"dest": kubeadm.DIRECTORY, "state": "directory", "mode": "0700"},
        {"dest": kubeadm.LOG_DIRECTORY, "state": "directory", "mode": "0700"},
    ]
    entries += [
        {"dest": f"{kubeadm.DIRECTORY}/{name}", "content": _text(content), "mode": "0600"}
        for name, content in contents.items()
    ]
    if told.encryption_keys:
        entries.append(
            {
                "dest": f"{kubeadm.DIRECTORY}/encryption.yaml",
                "template": "encryption.yaml.j2",
                "mode": "0600",
                "sensitive": True,
            }
        )
    return entries


def encryption(options: Mapping[str, Any]) -> str:
    """See kubernetes_encryption.yml."""
    return _text([kubeadm.encryption_document(kubeadm.settings(plain(options)))])


def differences(options: Mapping[str, Any], text: str, version: bool = True) -> list[str]:
    """See kubernetes_differences.yml."""
    told = kubeadm.settings(plain(options))
    found = _parsed(text, f"{kubeadm.DIRECTORY}/kubeadm.yaml")
    planes = [plane["address"] for plane in told.control_planes]
    return kubeadm.differences(found, kubeadm.documents(told), planes, version)


def findings(info: Mapping[str, Any], host: str, options: Mapping[str, Any]) -> list[dict[str, str]]:
    """See kubernetes_findings.yml."""
    return node.preflight(host, info, kubeadm.settings(plain(options)))


def faults(
    info: Mapping[str, Any],
    options: Mapping[str, Any],
    packages: Sequence[str],
    days_left: int,
    containerd_text: str,
) -> list[str]:
    """See kubernetes_faults.yml."""
    manifests = {name: _parsed(text, name)[0] for name, text in info["manifests"].items()}
    told = kubeadm.settings(plain(options))
    return node.verify({**info, "manifests": manifests}, told, packages, days_left, containerd_text, info["node"])


class FilterModule:
    """What Ansible loads."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return the filters of this file."""
        return {
            "kubernetes_option_faults": as_filter(option_faults),
            "kubernetes_documents": as_filter(documents),
            "kubernetes_files": as_filter(files),
            "kubernetes_encryption": as_filter(encryption),
            "kubernetes_obstacles": as_filter(node.obstacles),
            "kubernetes_planes_seen": as_filter(kubeadm.planes_seen),
            "kubernetes_decision": as_filter(kubeadm.decision),
            "kubernetes_sysctls": as_filter(node.sysctls),
            "kubernetes_differences": as_filter(differences),
            "kubernetes_findings": as_filter(findings),
            "kubernetes_faults": as_filter(faults),
            "kubernetes_upgrade_faults": as_filter(upgrade.faults),
            "kubernetes_upgrade_node_faults": as_filter(upgrade.node_faults),
            "kubernetes_upgrade_is_wanted": as_filter(upgrade.is_wanted),
            "kubernetes_upgrade_order_faults": as_filter(upgrade.order_faults),
            "kubernetes_upgrade_health_faults": as_filter(upgrade.health_faults),
            "kubernetes_upgrade_is_minor": as_filter(upgrade.is_minor),
            "kubernetes_shortfalls": as_filter(node.shortfalls),
            "kubernetes_containerd_faults": as_filter(containerd.version_faults),
            "kubernetes_containerd_configuration": as_filter(containerd.configuration),
            "kubernetes_registry_files": as_filter(containerd.registry_files),
        }
