# SPDX-License-Identifier: Apache-2.0
"""A document is read as it was written, or not at all."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from typing import Any

import pytest

from ansible_collections.gpufleet.metal.plugins.module_utils._errors import InvalidInputError
from ansible_collections.gpufleet.metal.plugins.module_utils._secrets.document import (
    Document,
    StoreError,
    as_plain,
    read_plain,
)
from ansible_collections.gpufleet.metal.tests.unit.plugins.module_utils._secrets.samples import (
    CANARY,
    document,
    secret,
    version,
)


def test_it_is_read_as_it_was_written() -> None:
    """Through JSON, with every optional part set and not set."""
    full = document().with_secret(
        "cert",
        secret(kind="certificate", phase="retiring", proven=7, emergency=True, previous=version(0)),
    )
    assert read_plain(json.loads(json.dumps(as_plain(full))), "the store") == full
    assert read_plain(as_plain(Document()), "the store") == Document()


BROKEN = "the store is not in the form that gpufleet.metal writes ({}): put back its last backup"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda plain: plain.update(schema=2),
            "the store holds schema 2, this version reads schema 1: use a newer gpufleet.metal",
        ),
        (
            lambda plain: plain.pop("schema"),
            "the store holds schema None, this version reads schema 1: put back its last backup",
        ),
        (lambda plain: plain.pop("generation"), BROKEN.format("KeyError")),
        (lambda plain: plain.update(secrets=[]), BROKEN.format("AttributeError")),
        (lambda plain: plain["secrets"]["api_key"].update(phase="dreaming"), BROKEN.format("ValueError")),
        (lambda plain: plain["secrets"]["api_key"].update(phase="staging"), BROKEN.format("ValueError")),
        (lambda plain: plain["secrets"]["database"].update(phase="idle"), BROKEN.format("ValueError")),
        (lambda plain: plain["secrets"].update({"Bad name": {}}), BROKEN.format("InvalidInputError")),
        (
            lambda plain: plain["secrets"]["api_key"]["versions"]["current"].update(created=CANARY),
            BROKEN.format("ValueError"),
        ),
    ],
)
def test_what_is_no_document(change: Callable[[dict[str, Any]], None], message: str) -> None:
    """The message quotes nothing of it."""
    plain = copy.deepcopy(as_plain(document()))
    change(plain)
    with pytest.raises(StoreError) as caught:
        read_plain(plain, "the store")
    assert str(caught.value) == message


@pytest.mark.parametrize("name", ["", "Upper", "1st", "a|1", "a b", "x" * 65])
def test_names_that_can_not_be(name: str) -> None:
    """A bar would make the binding of a value ambiguous."""
    with pytest.raises(InvalidInputError, match="is no name of a secret"):
        document().with_secret(name, secret())
