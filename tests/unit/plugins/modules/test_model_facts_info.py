# SPDX-License-Identifier: Apache-2.0
"""The module as Ansible runs it: arguments in, JSON out, a token that is never shown."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

NAME = "ansible_collections.gpufleet.metal.plugins.modules.model_facts_info"


def run(**arguments: Any) -> dict[str, Any]:
    """Run the module in a process of its own; returns what it says."""
    done = subprocess.run(
        [sys.executable, "-m", NAME],
        input=json.dumps({"ANSIBLE_MODULE_ARGS": {"_ansible_check_mode": True, **arguments}}),
        capture_output=True,
        check=False,
        text=True,
        env={"PYTHONPATH": ":".join(sys.path)},
    )
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def test_models(tmp_path: Path) -> None:
    """One model is there and one is not."""
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    (tmp_path / "model.gguf").write_bytes(b"12345")
    answer = run(
        models=[
            {"name": "here", "source": {"path": str(tmp_path)}, "replicas": "auto"},
            {"name": "gone", "source": {"path": "/no/such"}},
        ],
        huggingface_token="hf_secret",
    )
    assert answer.pop("invocation")["module_args"]["huggingface_token"] == "VALUE_SPECIFIED_IN_NO_LOG_PARAMETER"
    assert answer == {
        "changed": False,
        "models": {
            "here": {
                "config": {"model_type": "llama"},
                "weights_bytes": 5,
                "weights_from": "files",
                "verified": True,
            }
        },
        "failures": {
            "gone": "model 'gone': the directory /no/such (source.path) can't be read on this host: "
            "No such file or directory"
        },
    }


def test_a_wrong_entry() -> None:
    """Nothing is read then."""
    answer = run(models=[{"name": "m", "source": {"git": "x"}}])
    assert answer["failed"] is True
    assert answer["msg"] == "fleet_models[m]: source has git, wanted exactly one of path, archive, huggingface"
