# SPDX-License-Identifier: Apache-2.0
"""A rotation goes on when every consumer has shown what its phase wants, and no order of events breaks its promise."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ansible_collections.gpufleet.metal.plugins.module_utils._errors import InvalidInputError
from ansible_collections.gpufleet.metal.plugins.module_utils._secrets import rotation
from ansible_collections.gpufleet.metal.plugins.module_utils._secrets.document import Secret, Version
from ansible_collections.gpufleet.metal.plugins.module_utils._secrets.rotation import Waiting
from ansible_collections.gpufleet.metal.tests.unit.plugins.module_utils._secrets.samples import version

SETTLE, OVERLAP = 60, 3600
BOTH = ("door@gw-1", "door@gw-2")


def numbers(versions: list[Version]) -> list[int]:
    """Return the numbers of versions."""
    return [entry.number for entry in versions]


def step(secret: Secret, now: int, *shown: str, version_number: int = 2) -> tuple[Secret, Waiting | None]:
    """Record what was shown in the present phase, and go on."""
    confirmed = rotation.confirm(secret, secret.phase, version_number, shown)
    return rotation.advance(confirmed, BOTH, SETTLE, OVERLAP, now)


@pytest.fixture
def staging() -> Secret:
    """Return a secret whose rotation to version 2 began at 2000."""
    return rotation.begin(rotation.create("token", version(1, 1000)), version(2, 2000), False)


def test_a_whole_rotation(staging: Secret) -> None:
    """Each phase with what consumers accept and refuse in it, and what it waits for."""
    assert (numbers(rotation.accepted(staging)), rotation.refused(staging)) == ([1, 2], [])
    secret, waiting = step(staging, 2010, "door@gw-1")
    assert str(waiting) == "the new value is not used yet: acceptance of it is not proven by door@gw-2"
    secret, waiting = step(secret, 2020, "door@gw-2")
    assert str(waiting) == "the new value is used from 1970-01-01 00:34:40 UTC"
    assert waiting == Waiting("staging", until=2080)
    secret, waiting = step(secret, 2080)
    assert (secret.phase, waiting, secret.since) == ("promoted", None, 2080)
    assert (numbers(rotation.accepted(secret)), rotation.refused(secret)) == ([2, 1], [])

    secret, waiting = step(secret, 9000)
    assert str(waiting) == (
        "retirement of the old value is postponed: the new one is not proven in use by door@gw-1, door@gw-2"
    )
    secret, waiting = step(secret, 10000, *BOTH)
    assert waiting == Waiting("promoted", until=13600)
    assert str(waiting) == "the old value is retired after 1970-01-01 03:46:40 UTC"
    secret, waiting = step(secret, 13600)
    assert (secret.phase, waiting) == ("retiring", None)
    assert (numbers(rotation.accepted(secret)), numbers(rotation.refused(secret))) == ([2], [1])

    secret, waiting = step(secret, 14000, "door@gw-2")
    assert str(waiting) == "the old value is kept for the proof: its refusal is not proven by door@gw-1"
    secret, waiting = step(secret, 14000, "door@gw-1")
    assert (secret.phase, waiting, secret.previous, secret.confirmed) == ("idle", None, None, frozenset())
    assert numbers(rotation.accepted(secret)) == [2]


def test_an_emergency_waits_for_consumers_only(staging: Secret) -> None:
    """Also when it is declared while the rotation is under way; it ends with it, and what was found is not trusted."""
    secret = rotation.hurry(staging)
    assert step(secret, 2001, "door@gw-1")[1] == Waiting("staging", ("door@gw-2",))
    for phase in ("promoted", "retiring", "idle"):
        secret, waiting = step(secret, 2001, *BOTH)
        assert (secret.phase, waiting) == (phase, None)
    assert not secret.emergency
    assert rotation.hurry(secret) == secret
    assert (secret.distrusted, rotation.is_distrusted(secret)) == (2, True)
    again = rotation.begin(secret, version(3, 3000), True)
    assert (again.distrusted, rotation.is_distrusted(again)) == (0, False)


def test_an_emergencys_own_rotation_is_not_followed_by_another(staging: Secret) -> None:
    """To run it again is to go on with it."""
    own = rotation.begin(rotation.create("token", version(1, 1000)), version(2, 2000), True)
    assert rotation.hurry(own) == own


def test_a_consumer_that_fails_later_postpones_again(staging: Secret) -> None:
    """What it showed before is forgotten, and the waiting begins anew when it shows it again."""
    promoted = step(step(staging, 2000, *BOTH)[0], 2060)[0]
    waiting_for_time = step(promoted, 3000, *BOTH)[0]
    failed = rotation.confirm(waiting_for_time, "promoted", 2, [], ["door@gw-2"])
    secret, waiting = rotation.advance(failed, BOTH, SETTLE, OVERLAP, 9000)
    assert waiting == Waiting("promoted", ("door@gw-2",))
    assert step(secret, 9500, "door@gw-2")[1] == Waiting("promoted", until=13100)


@pytest.mark.parametrize(("phase", "number"), [("promoted", 2), ("idle", 2), ("staging", 1), ("staging", 3)])
def test_what_was_shown_for_something_else_proves_nothing(staging: Secret, phase: str, number: int) -> None:
    """Another phase, or the same phase of another rotation."""
    assert rotation.confirm(staging, phase, number, BOTH) == staging


def test_a_consumer_that_is_no_more_is_not_waited_for(staging: Secret) -> None:
    """Taking a dead host out of the inventory is the way on."""
    secret = rotation.confirm(staging, "staging", 2, ["door@gw-1"])
    assert rotation.advance(secret, ["door@gw-1"], 0, OVERLAP, 2000)[0].phase == "promoted"


def test_no_rotation_begins_inside_another(staging: Secret) -> None:
    """There are never three values."""
    with pytest.raises(InvalidInputError, match=r"a rotation is under way \(staging\): let it finish first"):
        rotation.begin(staging, version(3), False)


def test_nothing_to_do_when_idle() -> None:
    """However often it is asked."""
    secret = rotation.create("token", version())
    assert rotation.advance(secret, BOTH, SETTLE, OVERLAP, 10**9) == (secret, None)
    assert rotation.confirm(secret, "idle", 1, BOTH) == secret


# ---------------------------------------------------------------------------------- any order, with kills anywhere

HOSTS = ("gw-1", "gw-2", "gw-3")


@dataclass
class Fleet:
    """Hosts that accept a secret from each other, and runs that are killed and resumed in any order.

    The store is the only thing that survives a kill. What a run had shown and not recorded may be lost, or be recorded
    late by a run that was thought dead.
    """

    secret: Secret
    now: int = 5000
    made: int = 1
    leaked: int = 0
    accepts: dict[str, set[int]] = field(default_factory=lambda: {host: {1} for host in HOSTS})
    sends: dict[str, int] = field(default_factory=lambda: dict.fromkeys(HOSTS, 1))
    unrecorded: list[tuple[str, int, str]] = field(default_factory=list)

    def begin(self, emergency: bool) -> None:
        """Begin a rotation unless one is under way."""
        if self.secret.phase == "idle":
            self.made += 1
            self.secret = rotation.begin(self.secret, version(rotation.newest(self.secret) + 1, self.now), emergency)
        elif emergency:
            # Run again, the emergency goes on with what it has begun.
            self.leaked = self.leaked if self.secret.emergency else rotation.newest(self.secret)
            self.secret = rotation.hurry(self.secret)

    def configure(self, host: str, half: bool) -> None:
        """Bring a host to the phase; killed half way, it accepts as wanted and sends as before, and shows nothing."""
        self.accepts[host] = set(numbers(rotation.accepted(self.secret)))
        if not half:
            self.sends[host] = self.secret.current.number
            self.unrecorded.append((self.secret.phase, rotation.newest(self.secret), host))

    def record(self, index: int) -> None:
        """Record something that was shown, now or long ago."""
        if self.unrecorded:
            phase, number, host = self.unrecorded.pop(index % len(self.unrecorded))
            self.secret = rotation.confirm(self.secret, phase, number, [host])

    def advance(self) -> None:
        """Go on."""
        self.secret = rotation.advance(self.secret, HOSTS, SETTLE, OVERLAP, self.now)[0]
        if rotation.is_distrusted(self.secret):
            self.begin(True)

    def check(self) -> None:
        """Every host accepts what every host sends, and the store knows every value in use."""
        known = {entry.number for entry in self.secret.versions().values()}
        for sender, sent in self.sends.items():
            assert sent in known
            for host, accepted in self.accepts.items():
                assert sent in accepted, f"{host} refuses what {sender} sends while {self.secret.phase}"


EVENTS = st.one_of(
    st.tuples(st.just("begin"), st.booleans()),
    st.tuples(st.just("configure"), st.sampled_from(HOSTS), st.booleans()),
    st.tuples(st.just("record"), st.integers(0, 50)),
    st.tuples(st.just("advance")),
    st.tuples(st.just("wait"), st.sampled_from([1, SETTLE, OVERLAP])),
)


def play(fleet: Fleet, events: list[tuple[object, ...]]) -> None:
    """Let events happen, and check the promise after each."""
    for name, *arguments in events:
        if name == "wait":
            fleet.now += int(str(arguments[0]))
        else:
            getattr(fleet, str(name))(*arguments)
        fleet.check()


def finish(fleet: Fleet) -> None:
    """Run to the end without a kill: three rounds for each rotation, with the waiting between them."""
    fleet.unrecorded.clear()
    for __ in range(6):
        for host in HOSTS:
            fleet.configure(host, False)
            fleet.check()
        while fleet.unrecorded:
            fleet.record(0)
        for __wait in range(2):
            fleet.advance()
            fleet.check()
            fleet.now += OVERLAP


@given(st.lists(EVENTS, max_size=60))
@settings(max_examples=300)
def test_consumers_always_accept_what_users_send(events: list[tuple[object, ...]]) -> None:
    """In any order of steps, kills and late records; and from wherever that led, a run comes to the same end."""
    fleet = Fleet(rotation.create("token", version()))
    play(fleet, events)
    finish(fleet)
    assert (fleet.secret.phase, fleet.secret.current.number) == ("idle", fleet.made)
    assert fleet.leaked < fleet.made, "nothing that an emergency found is in use"
    assert fleet.accepts == {host: {fleet.made} for host in HOSTS}
    assert fleet.sends == dict.fromkeys(HOSTS, fleet.made)


@given(st.lists(EVENTS, max_size=25))
@settings(max_examples=100)
def test_each_step_twice_is_as_once(events: list[tuple[object, ...]]) -> None:
    """Whatever the state, repeating advance without news or time changes nothing but the phases it was due to enter."""
    fleet = Fleet(rotation.create("token", version()))
    play(fleet, events)
    once, __ = rotation.advance(fleet.secret, HOSTS, SETTLE, OVERLAP, fleet.now)
    twice, __ = rotation.advance(once, HOSTS, SETTLE, OVERLAP, fleet.now)
    assert twice == once
    assert rotation.hurry(rotation.hurry(once)) == rotation.hurry(once)
    for host in HOSTS:
        shown = rotation.confirm(once, once.phase, rotation.newest(once), [host])
        assert rotation.confirm(shown, once.phase, rotation.newest(once), [host]) == shown


def test_the_promise_is_one_that_can_be_broken() -> None:
    """The model notices a promotion before everybody accepts the next value."""
    fleet = Fleet(rotation.create("token", version()))
    fleet.begin(False)
    fleet.configure("gw-1", False)
    assert fleet.secret.next is not None
    fleet.secret = replace(fleet.secret, phase="promoted", current=fleet.secret.next, previous=version(1), next=None)
    fleet.configure("gw-1", False)
    with pytest.raises(AssertionError, match="gw-2 refuses what gw-1 sends while promoted"):
        fleet.check()
