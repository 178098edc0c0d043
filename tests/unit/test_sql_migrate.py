"""Versions of a hub's tables."""

from __future__ import annotations

import pytest

from durable_host.errors import StoreMismatchError
from durable_host_providers._sql.migrate import Migration, load_migrations, pending

STEPS = [Migration(number, (f"statement {number}",), f"statement {number};") for number in (1, 2, 3)]


def test_only_the_missing_steps_are_taken() -> None:
    assert [each.version for each in pending(STEPS, 0, "hub")] == [1, 2, 3]
    assert [each.version for each in pending(STEPS, 2, "hub")] == [3]
    assert list(pending(STEPS, 3, "hub")) == []


def test_a_hub_from_the_future_is_refused() -> None:
    with pytest.raises(StoreMismatchError, match=r"hub has tables of version 4, .* knows versions up to 3"):
        pending(STEPS, 4, "hub")


def test_sqlite_has_migrations_from_the_first() -> None:
    steps = load_migrations("durable_host_providers.sqlite.migrations")

    assert [each.version for each in steps] == list(range(1, len(steps) + 1))
    assert all(statement for each in steps for statement in each.statements)
