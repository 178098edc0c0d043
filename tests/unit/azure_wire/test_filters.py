"""Filters have the form of the reference, and quote what users say."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from durable_host.model.ids import ExecutionId, InstanceId
from durable_host.model.instance import InstanceQuery, InstanceState
from durable_host.model.status import RuntimeStatus
from durable_host_providers.azure_storage.wire.filters import (
    literal,
    matches,
    partition_filter,
    query_filter,
)
from durable_host_providers.azure_storage.wire.keys import escape_key

AT = datetime(2025, 1, 10, 10, 10, 10, tzinfo=UTC)


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        (InstanceQuery(), ""),
        (InstanceQuery(created_from=AT), "CreatedTime ge datetime'2025-01-10T10:10:10.0000000Z'"),
        (InstanceQuery(updated_to=AT), "LastUpdatedTime le datetime'2025-01-10T10:10:10.0000000Z'"),
        (
            InstanceQuery(created_from=AT, created_to=AT),
            "(CreatedTime ge datetime'2025-01-10T10:10:10.0000000Z') and "
            "(CreatedTime le datetime'2025-01-10T10:10:10.0000000Z')",
        ),
        (
            InstanceQuery(statuses=frozenset({RuntimeStatus.RUNNING, RuntimeStatus.COMPLETED})),
            "RuntimeStatus eq 'Completed' or RuntimeStatus eq 'Running'",
        ),
        (InstanceQuery(prefix="order-"), "(PartitionKey ge 'order-') and (PartitionKey lt 'order.')"),
        (InstanceQuery(prefix="a/"), "(PartitionKey ge 'a^0') and (PartitionKey lt 'a^1')"),
        (InstanceQuery(prefix="\uffff"), "PartitionKey ge '\uffff'"),
        (InstanceQuery(names=frozenset({"it's"})), "Name eq 'it''s'"),
        (InstanceQuery(parent=InstanceId("p")), "ParentInstanceId eq 'p'"),
    ],
)
def test_a_query_is_asked_as_the_reference_asks_it(query: InstanceQuery, expected: str) -> None:
    assert query_filter(query) == expected


def test_a_page_begins_after_the_last_id_of_the_one_before() -> None:
    assert query_filter(InstanceQuery(), after="a'/") == "PartitionKey gt 'a''^0'"


def test_histories_are_found_by_their_escaped_ids() -> None:
    assert partition_filter("a/'") == "PartitionKey eq 'a^0'''"


def test_an_instant_of_any_zone_is_asked_for_in_utc() -> None:
    assert literal(datetime.fromisoformat("2025-01-10T11:10:10.5+01:00")) == "datetime'2025-01-10T10:10:10.5000000Z'"


_TEXT = st.text(st.characters(exclude_categories=("Cs",)), max_size=4)


@settings(deadline=None)
@given(_TEXT.filter(bool), _TEXT)
def test_whatever_starts_with_a_prefix_lies_between_its_bounds(prefix: str, rest: str) -> None:
    """By UTF-16 code units, as the service compares."""
    conditions = query_filter(InstanceQuery(prefix=prefix))
    key = _units(escape_key(prefix + rest))
    bounds = [condition.strip("()") for condition in conditions.split(") and (")]

    assert _units(escape_key(prefix)) <= key
    if len(bounds) == 2:
        assert key < _units(bounds[1].removeprefix("PartitionKey lt '").removesuffix("'").replace("''", "'"))


def _units(text: str) -> tuple[int, ...]:
    data = text.encode("utf-16-be")
    return tuple(int.from_bytes(data[at : at + 2], "big") for at in range(0, len(data), 2))


def test_what_a_filter_cannot_say_is_judged_afterwards() -> None:
    state = InstanceState(
        InstanceId("a\ud7ff".replace("\ud7ff", "퟿")), ExecutionId("e"), "N", RuntimeStatus.RUNNING, AT, AT
    )
    tagged = replace(state, tags={"k": "v", "other": ""})

    assert matches(InstanceQuery(tags=(("k", "v"),)), tagged)
    assert not matches(InstanceQuery(tags=(("k", "w"),)), tagged)
    assert not matches(InstanceQuery(tags=(("k", "v"),)), state)
    assert not matches(InstanceQuery(prefix="b"), state)
