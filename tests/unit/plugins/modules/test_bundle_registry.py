# SPDX-License-Identifier: Apache-2.0
"""An image gets its name in the registry only when its signature was verified."""

from __future__ import annotations

import http.server
import threading
import urllib.parse
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.gpufleet.metal.plugins.module_utils._bundle.document import BundleError
from ansible_collections.gpufleet.metal.plugins.modules import bundle_registry

DIGEST = f"sha256:{'a' * 64}"
TAG = f"sha256-{'a' * 64}.sig"
ENTRY: dict[str, Any] = {
    "names": ["own.example:5000/a:1", "own.example:5000/b:1"],
    "digest": DIGEST,
    "place": f"images/{'a' * 64}",
    "signed": True,
}


class Stand:
    """Stands for the registry, skopeo and cosign."""

    def __init__(self) -> None:
        self.held: dict[str, str] = {}
        self.calls: list[str] = []
        self.sources: set[str] = set()
        self.good = True
        stand = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_HEAD(self) -> None:
                repository, _manifests, reference = urllib.parse.unquote(self.path)[4:].rpartition("/manifests/")
                digest = stand.held.get(f"{repository}:{reference}")
                self.send_response(200 if digest else 404)
                if digest:
                    self.send_header("Docker-Content-Digest", digest)
                self.end_headers()

            def log_message(self, *_arguments: Any) -> None:
                """Say nothing."""

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def run(self, argv: Sequence[str], _stdin: str | None = None) -> tuple[int, str, str]:
        """Run a program."""
        if argv[0] == "skopeo":
            target = argv[-1].removeprefix(f"docker://{self.address}/")
            self.sources.add(argv[-2])
            self.calls.append(f"copy {target}")
            self.held[target] = DIGEST
        elif argv[1] == "verify":
            self.calls.append(f"verify {argv[-1].removeprefix(self.address + '/').partition('@')[0]}")
            return (0, "", "") if self.good else (10, "", "Error: no signatures found\n")
        return 0, "", ""


@pytest.fixture
def stand() -> Iterator[Stand]:
    """The stand-ins, for one test."""
    found = Stand()
    yield found
    found.server.shutdown()
    found.server.server_close()


@pytest.fixture
def options(stand: Stand, tmp_path: Path) -> dict[str, Any]:
    """The module's options."""
    key = tmp_path / "cosign.pub"
    key.write_text("key")
    return {
        "directory": "/srv/bundle",
        "images": [ENTRY],
        "address": stand.address,
        "cosign_program": "cosign",
        "cosign_key": str(key),
        "unsigned_images": [],
        "verify": False,
    }


def test_an_image_is_verified_before_it_has_its_name(stand: Stand, options: dict[str, Any]) -> None:
    found = bundle_registry.run(options, False, stand.run)
    assert found["copied"] == ENTRY["names"]
    assert found["verified"] == ENTRY["names"]
    assert stand.sources == {f"dir:/srv/bundle/{ENTRY['place']}/{part}" for part in ("image", "signature")}
    assert stand.calls[:5] == [
        f"copy gpufleet-unverified/own.example-5000/a:{TAG}",
        "copy gpufleet-unverified/own.example-5000/a:1",
        "verify gpufleet-unverified/own.example-5000/a",
        f"copy own.example-5000/a:{TAG}",
        "copy own.example-5000/a:1",
    ]
    stand.calls.clear()
    again = bundle_registry.run(options, False, stand.run)
    assert (again["changed"], again["verified"], stand.calls) == (False, [], [])
    assert bundle_registry.run({**options, "verify": True}, False, stand.run)["verified"] == ENTRY["names"]
    assert stand.calls == ["verify own.example-5000/a", "verify own.example-5000/b"]


def test_an_image_of_another_key_gets_no_name(stand: Stand, options: dict[str, Any]) -> None:
    stand.good = False
    with pytest.raises(BundleError) as caught:
        bundle_registry.run(options, False, stand.run)
    assert str(caught.value) == (
        f"the image own.example:5000/a:1 has no valid signature of {options['cosign_key']}: Error: no signatures found"
    )
    assert not any(name.startswith("own.example") for name in stand.held)


def test_without_a_key_nothing_is_verified(stand: Stand, options: dict[str, Any]) -> None:
    found = bundle_registry.run({**options, "cosign_key": None}, False, stand.run)
    assert found["verified"] == []
    assert not any(call.startswith("verify") for call in stand.calls)


def test_an_unsigned_image_has_to_be_named(stand: Stand, options: dict[str, Any]) -> None:
    options["images"] = [{**ENTRY, "signed": False}]
    with pytest.raises(BundleError) as caught:
        bundle_registry.run(options, False, stand.run)
    assert "own.example:5000/a:1, own.example:5000/b:1: the bundle has no signature" in str(caught.value)
    assert stand.calls == []
    options["unsigned_images"] = ["own.example:5000/a", "own.example:5000/b"]
    assert bundle_registry.run(options, False, stand.run)["changed"]


def test_check_mode_copies_nothing_and_takes_a_registry_that_is_not_there_for_empty(
    stand: Stand, options: dict[str, Any]
) -> None:
    assert bundle_registry.run(options, True, stand.run)["copied"] == ENTRY["names"]
    stand.server.shutdown()
    stand.server.server_close()
    assert bundle_registry.run(options, True, stand.run)["copied"] == ENTRY["names"]
    assert stand.calls == []
    with pytest.raises(BundleError) as caught:
        bundle_registry.run(options, False, stand.run)
    assert f"the registry at {stand.address} gives no answer" in str(caught.value)
