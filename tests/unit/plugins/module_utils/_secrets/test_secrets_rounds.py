# SPDX-License-Identifier: Apache-2.0
"""Rounds over a whole document: what begins, who has what to do, and what is said about the rest."""

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.gpufleet.metal.plugins.module_utils._errors import InvalidInputError
from ansible_collections.gpufleet.metal.plugins.module_utils._secrets import rounds
from ansible_collections.gpufleet.metal.plugins.module_utils._secrets.definitions import Definition, read_definitions
from ansible_collections.gpufleet.metal.plugins.module_utils._secrets.document import Document
from ansible_collections.gpufleet.metal.plugins.module_utils._secrets.kinds import DAY, Made
from ansible_collections.gpufleet.metal.plugins.module_utils._secrets.rounds import Shown
from ansible_collections.gpufleet.metal.tests.unit.plugins.module_utils._secrets.samples import CANARY

DEFINITIONS = read_definitions(
    {
        "api_key": {
            "kind": "token",
            "max_age_days": 30,
            "consumers": {"door": {"hosts": "gateways", "tasks": "door.yml"}},
        },
        "database": {"kind": "password", "overlap_hours": 0, "consumers": {"db": {"hosts": "db-1", "tasks": "db.yml"}}},
    }
)
HOSTS = {"api_key": {"door": ["gw-1", "gw-2"]}, "database": {"db": ["db-1"]}}
T0 = 1_000_000


def make(definition: Definition) -> Made:
    """Return a value that shows where it should not be."""
    return Made({"value": f"{CANARY}-{definition.name}"})


def in_use(definition: Definition) -> Made:
    """Return a value that was in use before there was a store."""
    return Made({"value": f"{CANARY}-in-use-{definition.name}"})


@pytest.fixture
def document() -> Document:
    """Return a document with both secrets."""
    return rounds.create_missing(Document(), DEFINITIONS, in_use, T0)


def begin(document: Document, now: int, *names: str, emergency: bool = False) -> Document:
    """Begin."""
    return rounds.begin_rotations(document, DEFINITIONS, names, emergency, in_use, make, now)


def phases(document: Document) -> dict[str, str]:
    """Return where every secret stands."""
    return {name: secret.phase for name, secret in sorted(document.secrets.items())}


def shown(document: Document, *places: tuple[str, str, str], holds: bool = True) -> list[Shown]:
    """Say that consumers on hosts are as the present phase wants them."""
    return [Shown(name, document.secrets[name].phase, 2, consumer, host, holds) for name, consumer, host in places]


EVERYWHERE = (("api_key", "door", "gw-1"), ("api_key", "door", "gw-2"), ("database", "db", "db-1"))


def test_what_is_missing_is_made_once(document: Document) -> None:
    """A second time changes nothing; what exists is kept."""
    assert phases(document) == {"api_key": "idle", "database": "idle"}
    assert rounds.create_missing(document, DEFINITIONS, make, T0 + 5) == document


def test_the_first_value_may_be_in_use_already(document: Document) -> None:
    """What comes after it is made."""
    begun = begin(document, T0, "api_key").secrets["api_key"]
    assert begun.current.value == {"value": f"{CANARY}-in-use-api_key"}
    assert begun.next is not None
    assert begun.next.value == {"value": f"{CANARY}-api_key"}


def test_what_is_due_begins(document: Document) -> None:
    """And nothing else; a second begin goes on with the same value."""
    assert begin(document, T0 + 30 * DAY - 1) == document
    begun = begin(document, T0 + 30 * DAY)
    assert phases(begun) == {"api_key": "staging", "database": "idle"}
    assert begin(begun, T0 + 31 * DAY) == begun


def test_what_is_named_begins(document: Document) -> None:
    """Due or not; and it does not begin what is due besides."""
    assert phases(begin(document, T0 + 40 * DAY, "database")) == {"api_key": "idle", "database": "staging"}


def test_a_new_secret_is_not_rotated_in_the_run_that_makes_it() -> None:
    """It has its first value, which nobody has to be moved away from."""
    made = begin(Document(), T0, "api_key")
    assert phases(made) == {"api_key": "idle", "database": "idle"}
    assert made.secrets["api_key"].current.number == 1


def test_an_emergency_is_remembered(document: Document) -> None:
    """Also for what is under way already, and over a run that forgets to say it again."""
    begun = begin(begin(document, T0 + 9, "api_key"), T0 + 10, "api_key", emergency=True)
    assert begun.secrets["api_key"].emergency
    assert begin(begun, T0 + 11, "api_key").secrets["api_key"].emergency


@pytest.mark.parametrize(
    ("names", "emergency", "message"),
    [
        (["apikey"], False, "apikey is to be rotated and is not in fleet_secrets, which has api_key, database"),
        ([], True, "an emergency names its secrets (rotate_secrets_names), found no name"),
    ],
)
def test_what_can_not_begin(document: Document, names: list[str], emergency: bool, message: str) -> None:
    """Nothing begins then."""
    with pytest.raises(InvalidInputError) as caught:
        begin(document, T0, *names, emergency=emergency)
    assert str(caught.value) == message


def test_a_kind_is_for_life(document: Document) -> None:
    """Consumers of another kind are others."""
    other = read_definitions({"api_key": {"kind": "password"}})
    with pytest.raises(InvalidInputError) as caught:
        rounds.begin_rotations(document, other, [], False, in_use, make, T0)
    assert str(caught.value) == (
        "fleet_secrets.api_key.kind is 'password' and the store holds 'token': another kind is another secret, give it "
        "another name"
    )


def test_the_work_of_each_host(document: Document) -> None:
    """Only of what is rotated, and nothing while a time is waited for."""
    assert rounds.work(document, DEFINITIONS, HOSTS, T0) == {}
    begun = begin(document, T0, "api_key", "database")
    entry: dict[str, Any] = {"phase": "staging", "version": 2}
    door = {**entry, "secret": "api_key", "consumer": "door", "tasks": "door.yml"}
    database = {**entry, "secret": "database", "consumer": "db", "tasks": "db.yml"}
    assert rounds.work(begun, DEFINITIONS, HOSTS, T0) == {"gw-1": [door], "gw-2": [door], "db-1": [database]}
    assert rounds.work(begun, DEFINITIONS, HOSTS, T0, ["database"]) == {"db-1": [database]}
    promoted, __ = rounds.advance_all(begun, DEFINITIONS, HOSTS, shown(begun, *EVERYWHERE), T0)
    overlap, waiting = rounds.advance_all(promoted, DEFINITIONS, HOSTS, shown(promoted, *EVERYWHERE), T0)
    assert phases(overlap) == {"api_key": "promoted", "database": "retiring"}
    assert str(waiting["api_key"]).startswith("the old value is retired after ")
    assert set(rounds.work(overlap, DEFINITIONS, HOSTS, T0)) == {"db-1"}
    assert set(rounds.work(overlap, DEFINITIONS, HOSTS, T0 + DAY)) == {"db-1", "gw-1", "gw-2"}


def test_a_host_that_is_down_postpones_its_secret_only(document: Document) -> None:
    """The other goes on; one that failed is named like one that said nothing."""
    begun = begin(document, T0, "api_key", "database")
    results = shown(begun, EVERYWHERE[0], EVERYWHERE[2]) + shown(begun, EVERYWHERE[1], holds=False)
    after, waiting = rounds.advance_all(begun, DEFINITIONS, HOSTS, results, T0)
    assert phases(after) == {"api_key": "staging", "database": "promoted"}
    assert {name: reason.consumers for name, reason in waiting.items()} == {"api_key": ("door@gw-2",)}


def test_a_definition_without_its_secret_is_left_alone() -> None:
    """It is made by begin, not by advance."""
    assert rounds.advance_all(Document(), DEFINITIONS, HOSTS, [], T0) == (Document(), {})
    assert rounds.work(Document(), DEFINITIONS, HOSTS, T0) == {}


def test_the_description_of_a_secret_shows_no_value(document: Document) -> None:
    """It is what a diff shows."""
    begun = begin(document, T0, "api_key", emergency=True)
    after, __ = rounds.advance_all(begun, DEFINITIONS, HOSTS, shown(begun, EVERYWHERE[0]), T0)
    assert rounds.describe(after.secrets["api_key"]) == (
        "token, staging in an emergency, next 2, current 1, shown by door@gw-1"
    )
    assert CANARY not in repr(after)
