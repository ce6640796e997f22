# SPDX-License-Identifier: Apache-2.0
"""What Ansible logs of a module's invocation holds no secret, also one that Python writes differently in a list."""

from __future__ import annotations

import json
from typing import Any

import pytest
from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.testing import patch_module_args

from ansible_collections.gpufleet.metal.plugins.modules import connectivity_info, registry_login_info, registry_logins

CANARY = "can\\ary'1\"2\nof two lines"
#: Where nothing listens.
NOWHERE = {"name": "nowhere", "address": "127.0.0.1", "port": 1, "expect": "refused"}


@pytest.mark.parametrize(
    ("module", "arguments", "shown"),
    [
        (
            registry_logins,
            {"logins": [{"registry": "r.example.org", "username": "pull", "password": CANARY}], "path": "{tmp}/c.json"},
            ["r.example.org"],
        ),
        (
            registry_login_info,
            {
                "registry": "127.0.0.1:1",
                "url": "http://127.0.0.1:1",
                "accepted": [{"username": "p", "password": CANARY}],
            },
            ["credential 1 of 1 to be accepted"],
        ),
        (
            connectivity_info,
            {"targets": [{**NOWHERE, "tls": {"server_name": "x", "client_content": CANARY}}]},
            ["nowhere", "client_content no certificate with its key"],
        ),
    ],
)
def test_no_secret_is_logged_or_returned(
    module: Any,
    arguments: dict[str, Any],
    shown: list[str],
    tmp_path: Any,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    logged: list[str] = []
    monkeypatch.setattr(AnsibleModule, "log", lambda self, msg, log_args=None: logged.append(f"{msg} {log_args}"))
    if "path" in arguments:
        arguments = {**arguments, "path": arguments["path"].format(tmp=tmp_path)}
    with patch_module_args(arguments), pytest.raises(SystemExit):
        module.main()
    returned = capsys.readouterr().out
    for text in (*logged, returned):
        assert CANARY not in text
        assert repr(CANARY)[1:-1] not in text
        assert json.dumps(CANARY)[1:-1] not in text
    assert len(logged) >= 1
    assert [words for words in shown if words not in returned] == []
