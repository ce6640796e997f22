# SPDX-License-Identifier: Apache-2.0
"""Ages, what is due, what is stuck, and the same as metrics."""

from __future__ import annotations

import pytest

from ansible_collections.gpufleet.metal.plugins.module_utils._secrets.definitions import read_definitions
from ansible_collections.gpufleet.metal.plugins.module_utils._secrets.document import Document, StoreError
from ansible_collections.gpufleet.metal.plugins.module_utils._secrets.kinds import DAY, due_at
from ansible_collections.gpufleet.metal.plugins.module_utils._secrets.status import as_metrics, as_table, status_of
from ansible_collections.gpufleet.metal.tests.unit.plugins.module_utils._secrets.samples import (
    CANARY,
    document,
    secret,
    version,
)

HOUR = 3600


@pytest.mark.parametrize(
    ("kind", "expires", "max_age_days", "due"),
    [
        ("token", None, None, 90 * DAY),
        ("token", None, 7, 7 * DAY),
        ("tls_ticket_key", None, None, DAY),
        ("certificate", 90 * DAY, None, 60 * DAY),
        ("certificate", 90 * DAY, 30, 30 * DAY),
    ],
)
def test_when_a_version_is_due(kind: str, expires: int | None, max_age_days: int | None, due: int) -> None:
    """By the kind, by the inventory, or by the certificate's own life, whichever is first."""
    assert due_at(kind, 0, expires, max_age_days) == due


def test_a_kind_that_a_newer_version_added() -> None:
    """Named, with what helps."""
    with pytest.raises(
        StoreError, match=r"^the store holds a secret of kind 'ssh_key', .*: use a newer gpufleet\.metal$"
    ):
        status_of(Document(1, {"key": secret(kind="ssh_key")}), {}, 0)


def test_due_and_not() -> None:
    """The second it becomes due."""
    definitions = read_definitions({"api_key": {"kind": "token"}})
    stored = Document(1, {"api_key": secret()})
    before, after = (status_of(stored, definitions, 1000 + 90 * DAY + late)[0] for late in (-1, 0))
    assert (before.due, before.why) == (False, "")
    assert (after.due, after.why) == (True, "it is due: run gpufleet.metal.rotate_secrets")


@pytest.mark.parametrize(
    ("phase", "emergency", "hours"),
    [("staging", False, 25), ("promoted", False, 72), ("retiring", False, 24), ("promoted", True, 24)],
)
def test_stuck(phase: str, emergency: bool, hours: int) -> None:
    """A phase may last as long as it waits, and a day for its consumers."""
    definitions = read_definitions({"api_key": {"kind": "token", "settle_hours": 1, "overlap_hours": 48}})
    versions = {"next": version(2)} if phase == "staging" else {"previous": version(2)}
    rotating = secret(phase=phase, since=5000, emergency=emergency, **versions)
    early, late = (
        status_of(Document(1, {"api_key": rotating}), definitions, 5000 + hours * HOUR + more)[0] for more in (-1, 0)
    )
    assert (early.stuck, late.stuck, late.due) == (False, True, False)
    assert late.why == (
        f"its rotation is {phase} for {hours} hours, wanted at most {hours}: run gpufleet.metal.rotate_secrets and see "
        f"what it waits for"
    )


def test_the_table() -> None:
    """Stored, defined, both; never a value."""
    definitions = read_definitions({"api_key": {"kind": "token"}, "missing": {"kind": "rsa_key"}})
    lines = as_table(status_of(document(), definitions, 1000 + 2 * DAY), 1000 + 2 * DAY)
    assert lines == [
        "api_key: token, version 1, 2 days old, due 1970-04-01 00:16:40 UTC",
        "database: password, version 4, 2 days old, staging; fleet_secrets does not name it: nothing rotates it",
        "missing: rsa_key, it is not in the store yet: gpufleet.metal.rotate_secrets makes it",
    ]
    assert CANARY not in "".join(lines)


def test_the_metrics() -> None:
    """The whole text; what does not exist has no time."""
    definitions = read_definitions({"api_key": {"kind": "token"}, "missing": {"kind": "rsa_key"}})
    stored = Document(7, {"api_key": secret()})
    assert as_metrics(status_of(stored, definitions, 2000), 7, 2000) == (
        "# HELP gpufleet_secret_created_timestamp_seconds When the current version was made.\n"
        "# TYPE gpufleet_secret_created_timestamp_seconds gauge\n"
        'gpufleet_secret_created_timestamp_seconds{name="api_key",kind="token"} 1000\n'
        "# HELP gpufleet_secret_due_timestamp_seconds When the current version is to be replaced.\n"
        "# TYPE gpufleet_secret_due_timestamp_seconds gauge\n"
        'gpufleet_secret_due_timestamp_seconds{name="api_key",kind="token"} 7777000\n'
        "# HELP gpufleet_secret_due Whether a rotation is due and none is under way.\n"
        "# TYPE gpufleet_secret_due gauge\n"
        'gpufleet_secret_due{name="api_key",kind="token"} 0\n'
        'gpufleet_secret_due{name="missing",kind="rsa_key"} 0\n'
        "# HELP gpufleet_secret_rotation_stuck Whether a rotation is in one phase for longer than it may be.\n"
        "# TYPE gpufleet_secret_rotation_stuck gauge\n"
        'gpufleet_secret_rotation_stuck{name="api_key",kind="token"} 0\n'
        'gpufleet_secret_rotation_stuck{name="missing",kind="rsa_key"} 0\n'
        "# HELP gpufleet_secret_missing Whether the inventory names a secret that the store lacks.\n"
        "# TYPE gpufleet_secret_missing gauge\n"
        'gpufleet_secret_missing{name="api_key",kind="token"} 0\n'
        'gpufleet_secret_missing{name="missing",kind="rsa_key"} 1\n'
        "# HELP gpufleet_secrets_store_generation Writes of the store; a smaller number is an older copy.\n"
        "# TYPE gpufleet_secrets_store_generation gauge\n"
        "gpufleet_secrets_store_generation 7\n"
        "# HELP gpufleet_secrets_status_timestamp_seconds When this was written.\n"
        "# TYPE gpufleet_secrets_status_timestamp_seconds gauge\n"
        "gpufleet_secrets_status_timestamp_seconds 2000\n"
    )
