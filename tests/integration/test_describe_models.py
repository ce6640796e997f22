# SPDX-License-Identifier: Apache-2.0
"""describe_models records what models say about themselves, wherever they are, and the plan is made from it."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import subprocess
import tarfile
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml
from artefact import Installed, run

COMMIT = "0123456789abcdef0123456789abcdef01234567"
CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "hidden_size": 64,
    "intermediate_size": 128,
    "max_position_embeddings": 4096,
    "model_type": "llama",
    "num_attention_heads": 4,
    "num_hidden_layers": 2,
    "num_key_value_heads": 2,
    "torch_dtype": "bfloat16",
    "vocab_size": 1024,
}
#: What no template may come out of.
HOSTILE = {**CONFIG, "chat_template": "{{ lookup('ansible.builtin.pipe', 'touch hostile') }}"}


def safetensors(size: int) -> bytes:
    """Return a safetensors file with one tensor of so many bytes."""
    header = json.dumps({"w": {"dtype": "U8", "shape": [size], "data_offsets": [0, size]}}).encode()
    return len(header).to_bytes(8, "little") + header + b"w" * size


FILES = {"config.json": json.dumps(HOSTILE).encode(), "model.safetensors": safetensors(5000)}


class Hub(BaseHTTPRequestHandler):
    """A stand-in for the Hugging Face hub with one commit, which wants a token."""

    def do_GET(self) -> None:
        name = self.path.rpartition("/")[2]
        if self.headers.get("Authorization") != "Bearer hf_secret":
            self.send_error(401)
        elif self.path == f"/api/models/org/on-hub/revision/{COMMIT}?blobs=true":
            siblings = [{"rfilename": file, "size": len(content)} for file, content in FILES.items()]
            self.answer(200, json.dumps({"sha": COMMIT, "siblings": siblings}).encode())
        elif self.path == f"/org/on-hub/resolve/{COMMIT}/{name}" and name in FILES:
            begin, end = (int(part) for part in self.headers["Range"][len("bytes=") :].split("-"))
            self.answer(206, FILES[name][begin : end + 1])
        else:
            self.send_error(404)

    def answer(self, status: int, content: bytes) -> None:
        """Send a status and a content."""
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        """Say nothing."""


@contextlib.contextmanager
def hub() -> Iterator[str]:
    """Serve the commit on this machine."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def entry(name: str, source: dict[str, Any]) -> dict[str, Any]:
    """Return an entry of fleet_models that says nothing of the model's shape."""
    return {"name": name, "source": source, "context_length": 1024, "replicas": 1}


def media(place: Path) -> list[dict[str, Any]]:
    """Make the models; returns entries of fleet_models."""
    directory = place / "on-disk"
    directory.mkdir(parents=True)
    for name, content in FILES.items():
        (directory / name).write_bytes(content)
    archives = {}
    for name, mode in (("plain.tar", "w"), ("packed.tar.gz", "w:gz")):
        with tarfile.open(place / name, mode) as archive:  # type: ignore[call-overload]
            for file, content in FILES.items():
                member = tarfile.TarInfo(f"model/{file}")
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
        archives[name] = {
            "url": f"file://{place}/{name}",
            "sha256": hashlib.sha256((place / name).read_bytes()).hexdigest(),
        }
    return [
        entry("on-disk", {"path": str(directory)}),
        entry("plain", {"archive": archives["plain.tar"]}),
        entry("packed", {"archive": archives["packed.tar.gz"]}),
        entry("on-hub", {"huggingface": {"repository": "org/on-hub", "revision": COMMIT}}),
    ]


def write(inventory: Path, models: list[dict[str, Any]], endpoint: str) -> None:
    """Put models into a copy of the example rack whose hosts are all this machine."""
    folder = inventory / "group_vars" / "all"
    (folder / "models.yml").write_text(yaml.safe_dump({"fleet_models": models}), encoding="utf-8")
    here = {
        "ansible_connection": "local",
        "ansible_become": False,
        "ansible_python_interpreter": "{{ ansible_playbook_python }}",
        "model_store_huggingface_endpoint": endpoint,
        "model_store_huggingface_token": "hf_secret",
    }
    (folder / "connection.yml").write_text(yaml.safe_dump(here), encoding="utf-8")
    fleet = yaml.safe_load((folder / "fleet.yml").read_text(encoding="utf-8"))
    fleet["fleet_endpoint"]["default_model"] = models[0]["name"]
    (folder / "fleet.yml").write_text(yaml.safe_dump(fleet), encoding="utf-8")


def fails(installed: Installed, playbook: str, inventory: Path) -> str:
    """Run a playbook that must fail; returns what it printed, in one line."""
    ended = subprocess.run(
        ["ansible-playbook", f"gpufleet.metal.{playbook}", "-i", str(inventory)],
        cwd=inventory.parent,
        env={**os.environ, **installed.environment, "ANSIBLE_NOCOLOR": "1", "ANSIBLE_CALLBACK_RESULT_FORMAT": "yaml"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 2, ended.stdout + ended.stderr
    return " ".join((ended.stdout + ended.stderr).split())


@pytest.fixture
def inventory(installed: Installed, tmp_path: Path) -> Path:
    """Return a copy of the example rack."""
    return installed.inventory("single_rack", tmp_path / "inventory")


def test_models_are_described_and_planned(installed: Installed, tmp_path: Path, inventory: Path) -> None:
    """From a directory, two archives and a hub; twice; in check mode before and after; then planned offline."""
    models = media(tmp_path / "media")
    describe = ["ansible-playbook", "gpufleet.metal.describe_models", "-i", str(inventory)]
    file = inventory / "group_vars" / "all" / "fleet_model_facts.yml"
    with hub() as endpoint:
        write(inventory, models, endpoint)
        assert "model_facts_missing" in fails(installed, "plan", inventory)

        shown = run([*describe, "--check", "--diff"], tmp_path, installed.environment)
        assert "+fleet_model_facts:" in shown
        assert not file.exists(), "check mode writes nothing"

        shown = run(describe, tmp_path, installed.environment)
        assert "changed=1" in shown
        assert "hf_secret" not in shown
        text = file.read_text(encoding="utf-8")
        for again in (describe, [*describe, "--check", "--diff"]):
            assert "changed=0" in run(again, tmp_path, installed.environment)
        assert file.read_text(encoding="utf-8") == text

    records = yaml.safe_load(text)["fleet_model_facts"]
    assert list(records) == ["on-disk", "on-hub", "packed", "plain"]
    for model in models:
        record = records[model["name"]]
        assert record["config"] == CONFIG
        assert (record["weights_bytes"], record["weights_from"]) == (5000, "headers")
    assert records["plain"]["source"] == {"archive": {"sha256": models[1]["source"]["archive"]["sha256"]}}
    assert "hf_secret" not in text
    assert not list(tmp_path.rglob("hostile")), "nothing of a model is a template"

    # The hub is gone and so are the media: the record is enough.
    run(["ansible-playbook", "gpufleet.metal.plan", "-i", str(inventory)], tmp_path, installed.environment)
    plan = json.loads((inventory / ".gpufleet" / "plan.json").read_text(encoding="utf-8"))
    assert plan["findings"] == []
    assert {name: decided["facts"] for name, decided in plan["models"].items()} == dict.fromkeys(records, "recorded")


def test_what_cannot_be_read_is_named_and_the_rest_is_recorded(
    installed: Installed, tmp_path: Path, inventory: Path
) -> None:
    """Records of other models stay; one of another source is stale."""
    models = media(tmp_path / "media")[:2]
    write(inventory, models, "http://127.0.0.1:9")
    file = inventory / "group_vars" / "all" / "fleet_model_facts.yml"
    run(["ansible-playbook", "gpufleet.metal.describe_models", "-i", str(inventory)], tmp_path, installed.environment)
    first = yaml.safe_load(file.read_text(encoding="utf-8"))["fleet_model_facts"]

    moved = tmp_path / "media" / "moved"
    (tmp_path / "media" / "on-disk").rename(moved)
    write(inventory, [models[0], entry("new", {"path": str(moved)})], "http://127.0.0.1:9")
    said = fails(installed, "describe_models", inventory)
    assert f"model ''on-disk'': the directory {models[0]['source']['path']} (source.path) can''t be read" in said
    second = yaml.safe_load(file.read_text(encoding="utf-8"))["fleet_model_facts"]
    assert set(second) == {"new", "on-disk", "plain"}
    assert {name: second[name] for name in first} == first, "nothing is lost"

    write(inventory, [entry("on-disk", {"path": str(moved)})], "http://127.0.0.1:9")
    assert "model_facts_stale" in fails(installed, "plan", inventory)


def test_a_file_that_would_be_hidden(installed: Installed, tmp_path: Path) -> None:
    """group_vars/all.yml is not read beside a directory group_vars/all: nothing is written then."""
    inventory = tmp_path / "inventory"
    (inventory / "group_vars").mkdir(parents=True)
    (inventory / "hosts.yml").write_text("gpu_nodes: {hosts: {gpu-1: {ansible_connection: local}}}\n", encoding="utf-8")
    (inventory / "group_vars" / "all.yml").write_text("fleet_models: []\n", encoding="utf-8")
    said = fails(installed, "describe_models", inventory)
    assert f"found {inventory}/group_vars/all.yml, which Ansible would no longer read beside a directory" in said
    assert sorted(path.name for path in (inventory / "group_vars").iterdir()) == ["all.yml"]
