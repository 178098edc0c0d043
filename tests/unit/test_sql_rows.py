"""Values of the model as columns, and queries as conditions."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from durable_host.model.failure import Failure
from durable_host.model.ids import ExecutionId, InstanceId
from durable_host.model.instance import HistoryVersion, InstanceQuery, InstanceState
from durable_host.model.status import RuntimeStatus
from durable_host_providers._sql.filters import after_prefix, decode_cursor, encode_cursor, where
from durable_host_providers._sql.rows import (
    PAYLOADS,
    from_micros,
    payloads_of,
    shown_state,
    state_of,
    state_text,
    to_micros,
)

NOW = datetime(2030, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=5)


def state(**changes: object) -> InstanceState:
    members: dict[str, object] = {
        "instance_id": InstanceId("a"),
        "execution_id": ExecutionId("e"),
        "name": "Name",
        "status": RuntimeStatus.COMPLETED,
        "created_at": NOW,
        "updated_at": NOW,
        "version": HistoryVersion(1, 2),
    }
    return InstanceState(**{**members, **changes})  # type: ignore[arg-type]  # any members, for the tests


@given(st.datetimes(timezones=st.just(UTC)))
def test_instants_survive_to_the_microsecond(instant: datetime) -> None:
    assert from_micros(to_micros(instant)) == instant


def test_instants_of_other_zones_are_the_same_instants() -> None:
    assert to_micros(NOW.astimezone(timezone(timedelta(hours=5, minutes=30)))) == to_micros(NOW)


@pytest.mark.parametrize(
    "whole",
    [
        state(),
        state(input='"i"', output="text", custom_status="{}", tags={"a": "b"}),
        state(status=RuntimeStatus.FAILED, output="because", failure=Failure(type="ValueError", message="because")),
        state(input=""),
    ],
)
def test_a_projection_survives_apart_from_its_payloads(whole: InstanceState) -> None:
    payloads = {name: text for name, text in zip(PAYLOADS, payloads_of(whole), strict=True) if text is not None}

    assert state_of(state_text(whole), payloads, None) == whole
    bare = state_of(state_text(whole), None, None)
    assert (bare.input, bare.output, bare.custom_status, bare.failure) == (None, None, None, None)


def test_a_quarantined_instance_shows_as_failed() -> None:
    found = state_of(state_text(state(status=RuntimeStatus.RUNNING)), None, "reason")

    assert (found.status, found.quarantined) == (RuntimeStatus.FAILED, "reason")


def test_output_and_end_are_told_of_ended_instances_only() -> None:
    running = state(status=RuntimeStatus.RUNNING, output="early", completed_at=NOW)

    assert (shown_state(running).output, shown_state(running).completed_at) == (None, None)
    ended = state(output="out", completed_at=NOW)
    assert shown_state(ended) is ended


@given(TEXTS, TEXTS)
def test_a_prefix_is_a_range(prefix: str, rest: str) -> None:
    end = after_prefix(prefix)

    assert end is None or prefix + rest < end
    assert end is None or not end.startswith(prefix)


@given(TEXTS, TEXTS)
def test_the_range_of_a_prefix_holds_nothing_else(prefix: str, other: str) -> None:
    end = after_prefix(prefix)

    if prefix <= other and (end is None or other < end):
        assert other.startswith(prefix)


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_a_cursor_leads_back_to_its_id(last: str) -> None:
    assert decode_cursor(encode_cursor(last)) == last


@pytest.mark.parametrize("cursor", ["", "x", "%%%", "1", "äöü", "c29tZXRoaW5n", "Mf8"])
def test_a_cursor_of_somebody_else_is_refused(cursor: str) -> None:
    with pytest.raises(ValueError, match="is not one that this store has given"):
        decode_cursor(cursor)


def test_a_query_without_conditions_finds_every_projection() -> None:
    assert where(InstanceQuery()) == ("instances.state IS NOT NULL", [])


def test_ended_instances_are_found_along_their_ids() -> None:
    ended = where(InstanceQuery(statuses=frozenset({RuntimeStatus.COMPLETED})))[0]
    running = where(InstanceQuery(statuses=frozenset({RuntimeStatus.RUNNING})))[0]

    assert "+instances.status IN" in ended
    assert " instances.status IN" in running
