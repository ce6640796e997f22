# SPDX-License-Identifier: Apache-2.0
"""What the tests share: one build and one installation."""

from __future__ import annotations

import pytest
import yaml
from artefact import COPY, Installed, run


@pytest.fixture(scope="session")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Installed:
    """Build the copy of the working tree and install the result with `--offline`."""
    place = tmp_path_factory.mktemp("installed")
    # As the unit tests leave it: what tools keep in the copy is no part of the artefact.
    (COPY / ".hypothesis" / "examples").mkdir(parents=True, exist_ok=True)
    (COPY / ".hypothesis" / "examples" / "kept").touch()
    collections = place / "collections"
    galaxy = yaml.safe_load((COPY / "galaxy.yml").read_text(encoding="utf-8"))
    environment = {"ANSIBLE_HOME": str(place / "home")}
    run(["ansible-galaxy", "collection", "build", str(COPY), "--output-path", str(place)], place, environment)
    artefact = place / f"gpufleet-metal-{galaxy['version']}.tar.gz"
    run(
        ["ansible-galaxy", "collection", "install", str(artefact), "--offline", "--collections-path", str(collections)],
        place,
        environment,
    )
    return Installed(artefact, collections, place)
