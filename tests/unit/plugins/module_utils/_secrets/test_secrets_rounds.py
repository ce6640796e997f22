# SPDX-License-Identifier: Apache-2.0
"""Rounds over a whole document: what begins, who has what to do, and what is said about the rest."""

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.gpufleet.metal.plugins.module_utils._errors import InvalidInputError
from ansible_collections.gpufleet.metal.plugins.module_utils._secrets import kinds, rounds
from ansible_collections.gpufleet.metal.plugins.module_utils._secrets.definitions import Definition, read_definitions
from ansible_collections.gpufleet.metal.plugins.module_utils._secrets.document import Document, StoreError
from ansible_collections.gpufleet.metal.plugins.module_utils._secrets.kinds import DAY, Authority, Made, signed_by
from ansible_collections.gpufleet.metal.plugins.module_utils._secrets.rounds import Shown
from ansible_collections.gpufleet.metal.plugins.module_utils._secrets.status import status_of
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


def make(definition: Definition, authority: Authority) -> Made:
    """Return a value that shows where it should not be."""
    return Made({"value": f"{CANARY}-{definition.name}"})


def in_use(definition: Definition, authority: Authority) -> Made:
    """Return a value that was in use before there was a store."""
    return Made({"value": f"{CANARY}-in-use-{definition.name}"})


@pytest.fixture
def document() -> Document:
    """Return a document with both secrets."""
    return rounds.create_missing(Document(), DEFINITIONS, in_use, T0)


def begin(document: Document, now: int, *names: str, emergency: bool = False) -> Document:
    """Begin, which nothing keeps from any."""
    begun, unmade = rounds.begin_rotations(document, DEFINITIONS, names, emergency, in_use, make, now)
    assert unmade == []
    return begun


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


def test_what_an_emergency_found_on_its_way_into_use_is_replaced_too(document: Document) -> None:
    """In the same run, as soon as its rotation is over; and what it found due is nobody else's business."""
    document, __ = rounds.advance_all(
        begun := begin(document, T0, "api_key"), DEFINITIONS, HOSTS, shown(begun, *EVERYWHERE[:2]), T0
    )
    document = begin(document, T0 + 9, "api_key", emergency=True)
    assert rounds.describe(document.secrets["api_key"]).startswith(
        "token, promoted in an emergency, with another one to follow, current 2, previous 1"
    )
    for phase in ("retiring", "idle"):
        document, __ = rounds.advance_all(document, DEFINITIONS, HOSTS, shown(document, *EVERYWHERE[:2]), T0 + 9)
        assert document.secrets["api_key"].phase == phase
        if phase == "retiring":
            assert rounds.follow_emergencies(document, DEFINITIONS, make, T0 + 9) == (document, [])
    status = status_of(document, DEFINITIONS, T0 + 9)[0]
    assert (status.due, status.due_at) == (True, T0 + 9)
    assert status.why == (
        "it is due, because it was in use when an emergency was declared: run gpufleet.metal.rotate_secrets"
    )
    again, unmade = rounds.follow_emergencies(document, DEFINITIONS, make, T0 + 9)
    secret = again.secrets["api_key"]
    assert (unmade, secret.phase, secret.emergency, secret.distrusted) == ([], "staging", True, 0)
    assert secret.next is not None
    assert secret.next.number == 3
    # Also by a run that does not know of the emergency, if this one ended here.
    assert begin(document, T0 + 9).secrets["api_key"] == secret


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


# ------------------------------------------------------------------------------- certificates of a stored authority

# The leaf stands first: its authority is made before it all the same.
SIGNED = read_definitions(
    {
        "leaf": {
            "kind": "certificate",
            "options": {"common_name": "gw-1", "ca_secret": "ca"},
            "consumers": {"server": {"hosts": "gw-1", "tasks": "server.yml"}},
        },
        "ca": {"kind": "authority", "consumers": {"door": {"hosts": "gw-1", "tasks": "door.yml"}}},
    }
)
SIGNED_HOSTS = {"leaf": {"server": ["gw-1"]}, "ca": {"door": ["gw-1"]}}


def real(definition: Definition, authority: Authority) -> Made:
    """Make a value as the action does."""
    return kinds.make(definition.kind, definition.options, T0, authority)


def all_shown(document: Document, now: int) -> list[Shown]:
    """Say that every consumer that has something to do has done it."""
    return [
        Shown(entry["secret"], entry["phase"], entry["version"], entry["consumer"], host, True)
        for host, entries in rounds.work(document, SIGNED, SIGNED_HOSTS, now).items()
        for entry in entries
    ]


def begun_and_shown(document: Document, now: int, *names: str) -> tuple[Document, dict[str, str]]:
    """Begin what is named or due, and let every consumer show what is wanted until nothing goes on any more."""
    document, unmade = rounds.begin_rotations(document, SIGNED, names, False, real, real, now)
    assert unmade == []
    while True:
        shown = all_shown(document, now)
        after, waiting = rounds.advance_all(document, SIGNED, SIGNED_HOSTS, shown, now)
        if phases(after) == phases(document):
            return after, {name: str(reason) for name, reason in waiting.items()}
        document = after


def leaf_signed(document: Document) -> bool:
    """Tell whether the authority in use signed the leaf in use."""
    return signed_by(document.secrets["leaf"].current.value, document.secrets["ca"].current.value)


def test_the_stored_authority_signs() -> None:
    """From the first value on."""
    made = rounds.create_missing(Document(), SIGNED, real, T0)
    assert leaf_signed(made)
    assert [status.due for status in status_of(made, SIGNED, T0)] == [False, False]
    replaced, __ = begun_and_shown(made, T0, "leaf")
    assert replaced.secrets["leaf"].current.number == 2
    assert leaf_signed(replaced)


def test_a_certificate_whose_authority_was_replaced_is_due() -> None:
    """And until it and its own predecessor are gone, nobody is told to refuse the authority that signed them."""
    made = rounds.create_missing(Document(), SIGNED, real, T0)
    promoted, waiting = begun_and_shown(made, T0, "ca")
    assert phases(promoted) == {"ca": "promoted", "leaf": "idle"}
    assert not leaf_signed(promoted)
    leaf = status_of(promoted, SIGNED, T0)[1]
    assert (leaf.due, leaf.due_at, leaf.why) == (
        True,
        T0,
        "it is due, because ca was replaced: run gpufleet.metal.rotate_secrets",
    )
    # The authority's overlap is over; the leaf, which was due, begins its own.
    later, waiting = begun_and_shown(promoted, T0 + DAY)
    assert phases(later) == {"ca": "promoted", "leaf": "promoted"}
    assert leaf_signed(later)
    assert waiting["ca"] == "the old authority is trusted until its certificates are rotated: leaf"
    assert rounds.work(later, SIGNED, SIGNED_HOSTS, T0 + DAY) == {}
    last, waiting = begun_and_shown(later, T0 + 2 * DAY)
    assert (phases(last), waiting) == ({"ca": "idle", "leaf": "idle"}, {})
    assert [secret.current.number for secret in last.secrets.values()] == [2, 2]
    assert not any(status.due for status in status_of(last, SIGNED, T0 + 2 * DAY))


def test_what_can_not_be_made_keeps_nothing_else() -> None:
    """A certificate that would outlive its authority waits for the next one, which is due in the same run."""
    definitions = read_definitions(
        {
            "ca": {"kind": "authority", "options": {"days": 365}},
            "leaf": {"kind": "certificate", "options": {"common_name": "gw-1", "ca_secret": "ca"}},
            "api_key": {"kind": "token"},
        }
    )
    late = T0 + 300 * DAY

    def later(definition: Definition, authority: Authority) -> Made:
        return kinds.make(definition.kind, definition.options, late, authority)

    made = rounds.create_missing(Document(), definitions, real, T0)
    begun, unmade = rounds.begin_rotations(made, definitions, [], False, later, later, late)
    assert phases(begun) == {"api_key": "staging", "ca": "staging", "leaf": "idle"}
    assert unmade == [
        "leaf: the authority ca in the store ends on 1971-01-12, before a certificate of 90 days would: make a new "
        "authority first"
    ]


def test_a_certificate_is_not_made_without_its_authority() -> None:
    """Another authority's, from a file, would do for nobody."""

    def lost(definition: Definition, authority: Authority) -> Made:
        if definition.kind == "authority":
            raise StoreError("ca.key does not exist")
        return real(definition, authority)

    made, unmade = rounds.begin_rotations(Document(), SIGNED, [], False, lost, lost, T0)
    assert (phases(made), unmade) == (
        {},
        ["ca: ca.key does not exist", "leaf: its authority ca is not in the store"],
    )


#: Of one run of rotate_secrets.
ROUNDS = 6


def emergency(document: Document, now: int, *names: str) -> tuple[Document, int]:
    """Declare one, and let every consumer show what is wanted until nothing goes on; also return the rounds it took."""
    document, unmade = rounds.begin_rotations(document, SIGNED, names, True, real, real, now)
    taken = 0
    while True:
        shown = all_shown(document, now)
        after, __ = rounds.advance_all(document, SIGNED, SIGNED_HOSTS, shown, now)
        after, more = rounds.follow_emergencies(after, SIGNED, real, now)
        assert unmade + more == []
        if after == document:
            return document, taken
        document, taken = after, taken + 1


def test_the_emergency_of_an_authority_takes_its_certificates_along() -> None:
    """In the rounds of one run: nothing that the old one signed is shown, and nobody is told to trust it."""
    made = rounds.create_missing(Document(), SIGNED, real, T0)
    after, taken = emergency(made, T0, "ca")
    assert phases(after) == {"ca": "idle", "leaf": "idle"}
    assert taken <= ROUNDS
    assert [after.secrets[name].current.number for name in ("ca", "leaf")] == [2, 2]
    assert leaf_signed(after)


def test_the_emergency_of_an_authority_that_is_rotated_just_then() -> None:
    """The certificate waits for no overlap of its own, and neither authority that was found is in use in the end."""
    made = rounds.create_missing(Document(), SIGNED, real, T0)
    promoted, __ = begun_and_shown(made, T0, "ca")
    later, __ = begun_and_shown(promoted, T0 + DAY)
    assert phases(later) == {"ca": "promoted", "leaf": "promoted"}
    after, taken = emergency(later, T0 + DAY, "ca")
    assert phases(after) == {"ca": "idle", "leaf": "idle"}
    assert after.secrets["ca"].current.number == 3
    assert leaf_signed(after)
    assert taken > ROUNDS, "more than one run: it fails and says so"


def test_check_mode_makes_nothing_and_judges_nothing() -> None:
    """There is no certificate to look into."""

    def nothing(definition: Definition, authority: Authority) -> Made:
        return Made({})

    made, __ = rounds.begin_rotations(Document(), SIGNED, [], False, nothing, nothing, T0)
    assert phases(made) == {"ca": "idle", "leaf": "idle"}
    assert not any(status.due for status in status_of(made, SIGNED, T0))
