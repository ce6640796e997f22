# SPDX-License-Identifier: Apache-2.0
"""The filters hand options on, write YAML, and turn errors into Ansible's."""

from __future__ import annotations

import base64
from typing import Any

import pytest
import yaml
from ansible.errors import AnsibleFilterError

from ansible_collections.gpufleet.metal.plugins.filter.kubernetes import FilterModule

FILTERS = FilterModule().filters()
KEY = base64.b64encode(bytes(32)).decode()
OPTIONS: dict[str, Any] = {
    "role": "control_plane",
    "version": "1.36.4",
    "node_name": "cp-1",
    "address": "192.0.2.1",
    "endpoint": "192.0.2.1:6443",
    "control_planes": [{"name": "cp-1", "address": "192.0.2.1"}],
    "resolv_conf": None,
    "encryption_keys": [KEY],
}


def files() -> dict[str, dict[str, Any]]:
    return {entry["dest"]: entry for entry in FILTERS["kubernetes_files"](OPTIONS)}


def test_the_files_of_a_control_plane() -> None:
    found = files()
    assert {name: entry["mode"] for name, entry in found.items()} == {
        "/etc/kubernetes": "0755",
        "/etc/kubernetes/gpufleet": "0700",
        "/var/log/kubernetes": "0700",
        "/etc/kubernetes/gpufleet/kubeadm.yaml": "0600",
        "/etc/kubernetes/gpufleet/authentication.yaml": "0600",
        "/etc/kubernetes/gpufleet/admission.yaml": "0600",
        "/etc/kubernetes/gpufleet/audit.yaml": "0600",
        "/etc/kubernetes/gpufleet/encryption.yaml": "0600",
    }
    # Keys are in no task's arguments.
    assert not any(KEY in str(entry) for entry in found.values())
    assert found["/etc/kubernetes/gpufleet/encryption.yaml"]["sensitive"] is True
    assert KEY in FILTERS["kubernetes_encryption"](OPTIONS)
    without = FILTERS["kubernetes_files"]({**OPTIONS, "encryption_keys": []})
    assert len(without) == len(found) - 1


def test_what_was_written_is_read_back() -> None:
    text = files()["/etc/kubernetes/gpufleet/kubeadm.yaml"]["content"]
    assert text.startswith("# SPDX-License-Identifier: Apache-2.0\n# Managed by Ansible")
    assert list(yaml.safe_load_all(text)) == FILTERS["kubernetes_documents"](OPTIONS, "init")
    assert FILTERS["kubernetes_differences"](OPTIONS, text) == []
    changed = {**OPTIONS, "cluster_name": "other"}
    assert FILTERS["kubernetes_differences"](changed, text) == [
        "ClusterConfiguration.clusterName is gpufleet, wanted other"
    ]


def test_documents_of_each_action() -> None:
    kinds = {
        action: [document["kind"] for document in FILTERS["kubernetes_documents"](OPTIONS, action)]
        for action in ("join", "offer")
    }
    assert kinds == {"join": ["JoinConfiguration"], "offer": ["InitConfiguration"]}


def test_faults_of_options() -> None:
    assert FILTERS["kubernetes_option_faults"](OPTIONS) == []
    assert FILTERS["kubernetes_option_faults"]({**OPTIONS, "version": "1.2"}) == [
        "kubernetes_version is '1.2', wanted a whole version such as 1.36.4"
    ]


def test_a_file_that_is_no_yaml() -> None:
    with pytest.raises(AnsibleFilterError, match=r"^/etc/kubernetes/gpufleet/kubeadm\.yaml is no YAML: "):
        FILTERS["kubernetes_differences"](OPTIONS, "a: [")
