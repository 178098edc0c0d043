"""Rows of History: what others leave out, what a rewind makes of them, and when a sentinel's version counts."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime

import pytest

from durable_host.model import history as model
from durable_host.model.failure import Failure
from durable_host.model.history import HistoryEvent
from durable_host.model.ids import DispatchId, ExecutionId, InstanceId, MessageId
from durable_host.model.instance import HistoryVersion
from durable_host.model.status import RuntimeStatus
from durable_host_providers.azure_storage.ports import EdmDateTime, Value
from durable_host_providers.azure_storage.wire.errors import UnreadableRowError
from durable_host_providers.azure_storage.wire.extra import made_up_id
from durable_host_providers.azure_storage.wire.history_rows import (
    event_row,
    event_rows,
    read_event,
    read_sentinel,
    rewound_columns,
    sentinel_row,
)
from durable_host_providers.azure_storage.wire.keys import SENTINEL
from tests.azure_recordings import recorded_hub

NOW = datetime(2026, 11, 21, 10, 43, 2, 958_675, tzinfo=UTC)
LATER = EdmDateTime("2026-11-21T10:43:03.0000001Z")


def _started(message_id: str | None, instance_id: str = "a") -> HistoryEvent:
    return model.ExecutionStarted(
        timestamp=NOW,
        message_id=None if message_id is None else MessageId(message_id),
        instance_id=InstanceId(instance_id),
        execution_id=ExecutionId("e"),
        name="N",
    )


BEGIN = model.OrchestratorStarted(timestamp=NOW)
END = model.OrchestratorCompleted(timestamp=NOW)
TASK = model.TaskScheduled(timestamp=NOW, event_id=0, name="A")


def _played(*events: HistoryEvent, instance_id: str = "a", first: int = 0) -> str:
    rows = event_rows(instance_id, "e", events, first)
    return "".join("*" if row["IsPlayed"] else "-" for row in rows)


# Events.


def test_what_was_delivered_when_the_row_is_written_counts_as_played() -> None:
    assert _played(BEGIN, _started("m"), TASK, END) == "-*--"
    result = model.TaskCompleted(timestamp=NOW, task_id=0)
    ended = model.ExecutionCompleted(timestamp=NOW, event_id=1, status=RuntimeStatus.COMPLETED)
    assert _played(BEGIN, result, ended, END, first=4) == "-*--"


def test_after_a_continue_as_new_the_first_end_of_an_episode_counts_as_played() -> None:
    raised = model.EventRaised(timestamp=NOW, name="e", message_id=MessageId("m"))
    assert _played(BEGIN, _started(None), raised, END, TASK, END) == "-**" + "*--"


def test_of_an_entity_nothing_counts_as_played() -> None:
    assert _played(BEGIN, _started(None, "@counter@a"), END, instance_id="@counter@a") == "---"


def test_rows_begin_at_the_index_that_was_said() -> None:
    rows = event_rows("a/b", "e", [BEGIN, END], 9)

    assert [(row["PartitionKey"], row["RowKey"], row["ExecutionId"]) for row in rows] == [
        ("a^0b", "0000000000000009", "e"),
        ("a^0b", "000000000000000A", "e"),
    ]


def test_types_of_columns_are_those_that_dotnet_insists_on() -> None:
    fired = event_row("a", "e", model.TimerFired(timestamp=NOW, timer_id=3, fire_at=NOW), 0)

    assert fired == {
        "PartitionKey": "a",
        "RowKey": "0000000000000000",
        "ExecutionId": "e",
        "EventType": "TimerFired",
        "EventId": -1,
        "IsPlayed": True,
        "_Timestamp": EdmDateTime("2026-11-21T10:43:02.9586750Z"),
        "TimerId": 3,
        "FireAt": EdmDateTime("2026-11-21T10:43:02.9586750Z"),
    }
    assert {name: type(value) for name, value in fired.items() if name in ("_Timestamp", "FireAt")} == {
        "_Timestamp": EdmDateTime,
        "FireAt": EdmDateTime,
    }


def test_our_ids_stand_in_columns_of_their_own() -> None:
    event = model.TaskCompleted(
        timestamp=NOW, message_id=MessageId("m"), task_id=0, result="1", dispatch_id=DispatchId("d")
    )
    row = event_row("a", "e", event, 0)

    assert (row["MessageId"], row["DispatchId"]) == ("m", "d")
    assert "DurableHost" not in row


def test_a_dispatch_id_that_was_made_up_is_not_recorded() -> None:
    event = model.TaskCompleted(timestamp=NOW, task_id=0, dispatch_id=made_up_id("q"))

    assert "DispatchId" not in event_row("a", "e", event, 0)


def test_causes_of_a_failure_stand_in_its_details() -> None:
    failure = Failure("ValueError", "outer", cause=Failure("KeyError", "inner", "stack", non_retriable=True))
    event = model.TaskFailed(timestamp=NOW, task_id=0, reason="outer", failure=failure)
    row = event_row("a", "e", event, 0)

    assert row["FailureDetails"] == (
        '{"ErrorType":"ValueError","ErrorMessage":"outer","StackTrace":null,"InnerFailure":{"ErrorType":"KeyError",'
        '"ErrorMessage":"inner","StackTrace":"stack","InnerFailure":null,"IsNonRetriable":true,"Properties":null},'
        '"IsNonRetriable":false,"Properties":null}'
    )
    assert read_event(row) == event


@pytest.mark.parametrize("missing", ["ParentInstance", "Tags", "ParentTraceContext", "GenerateNewTrace", "EventId"])
def test_columns_that_older_writers_lack_may_be_missing(missing: str) -> None:
    row = event_row("a", "e", _started("m"), 1)
    del row[missing]

    event = read_event(row)

    assert isinstance(event, model.ExecutionStarted)
    assert (event.parent, event.tags, event.traceparent) == (None, None, None)


def test_a_row_of_an_old_continue_as_new_is_an_end() -> None:
    row = event_row("a", "e", model.ExecutionCompleted(timestamp=NOW, status=RuntimeStatus.CONTINUED_AS_NEW), 5)

    event = read_event({**row, "EventType": "ContinueAsNew"})

    assert isinstance(event, model.ExecutionCompleted)
    assert event.status is RuntimeStatus.CONTINUED_AS_NEW


@pytest.mark.parametrize(
    "change",
    [
        {"EventType": "SomethingNew"},
        {"_Timestamp": EdmDateTime("soon")},
        {"EventId": "1"},
        {"FailureDetails": "{"},
        {"TaskScheduledId": 1.5},
        {"DurableHost": "[]"},
        {"Reason": 5},
    ],
)
def test_a_row_that_cannot_be_read_is_told_by_its_keys(change: Mapping[str, Value]) -> None:
    row = {**event_row("a", "e", model.TaskFailed(timestamp=NOW, task_id=0), 3), **change}

    with pytest.raises(UnreadableRowError) as caught:
        read_event(row)

    assert (caught.value.partition_key, caught.value.row_key) == ("a", "0000000000000003")


def test_a_row_without_a_time_is_told() -> None:
    row = event_row("a", "e", BEGIN, 0)
    del row["_Timestamp"]

    with pytest.raises(UnreadableRowError, match="_Timestamp"):
        read_event(row)


# Rewinds.


def _recorded(instance_id: str, *keys: str) -> list[HistoryEvent]:
    rows = recorded_hub("more").history[instance_id]
    return [read_event(row) for row in rows if row["RowKey"] in {key.rjust(16, "0") for key in keys}]


def test_rows_that_dotnet_rewound_tell_what_they_were() -> None:
    scheduled, failed, completed, again = _recorded("rewound-done", "2", "5", "6", "9")

    assert isinstance(scheduled, model.GenericEvent)
    assert isinstance(scheduled.original, model.TaskScheduled)
    assert (scheduled.original.event_id, scheduled.original.name) == (0, "flaky")
    assert isinstance(failed, model.GenericEvent)
    assert isinstance(failed.original, model.TaskFailed)
    assert (failed.original.task_id, failed.original.reason) == (0, None)
    assert isinstance(completed, model.GenericEvent)
    assert completed.reason == "Rewound: GenericEvent"
    assert isinstance(completed.original, model.ExecutionCompleted)
    assert (completed.original.event_id, completed.original.status) == (1, RuntimeStatus.FAILED)
    assert isinstance(again, model.GenericEvent)
    assert again.original is None


def test_a_request_that_a_rewind_of_dotnet_has_marked_is_still_a_request() -> None:
    (created,) = _recorded("rewound-parent-done", "2")

    assert isinstance(created, model.SubOrchestrationInstanceCreated)


def test_a_rewind_merges_the_two_columns_of_the_reference() -> None:
    original = model.ExecutionCompleted(timestamp=NOW, event_id=1, status=RuntimeStatus.FAILED, result="boom")

    assert rewound_columns(_taken_away(original)) == {
        "EventType": "GenericEvent",
        "Reason": "Rewound: ExecutionCompleted",
    }


def test_the_text_of_a_failure_survives_our_rewind() -> None:
    original = model.TaskFailed(timestamp=NOW, task_id=0, reason="boom")
    columns = rewound_columns(_taken_away(original))

    assert columns is not None
    assert read_event({**event_row("a", "e", original, 0), **columns}) == _taken_away(original)
    assert columns["DurableHost"] == '{"Reason":"boom"}'


def test_a_failure_whose_text_lies_in_a_blob_is_replaced_as_a_whole() -> None:
    assert rewound_columns(_taken_away(model.TaskFailed(timestamp=NOW, task_id=0, reason="x" * 31_000))) is None


def test_other_amendments_are_written_as_whole_rows() -> None:
    assert rewound_columns(TASK) is None
    assert rewound_columns(model.GenericEvent(timestamp=NOW, data="x")) is None
    assert rewound_columns(model.GenericEvent(timestamp=NOW, reason="because", original=TASK)) is None


def test_a_row_that_was_rewound_keeps_what_it_said_of_being_played() -> None:
    failed = _taken_away(model.TaskFailed(timestamp=NOW, task_id=0))

    assert _played(_taken_away(TASK), failed, model.GenericEvent(timestamp=NOW, data="x")) == "-**"


def _taken_away(original: HistoryEvent) -> model.GenericEvent:
    return model.GenericEvent(
        timestamp=original.timestamp,
        event_id=original.event_id,
        reason=f"Rewound: {model.event_type(original)}",
        original=original,
    )


# The sentinel.


def test_a_sentinel_has_the_columns_of_the_reference_and_the_version() -> None:
    assert sentinel_row("a/b", "e", HistoryVersion(3, 17), completed_at=NOW) == {
        "PartitionKey": "a^0b",
        "RowKey": SENTINEL,
        "ExecutionId": "e",
        "IsCheckpointComplete": True,
        "CheckpointCompletedTimestamp": "2026-11-21T10:43:02.9586750Z",
        "HistoryVersion": "3.17",
        "HistoryStamp": "e 2026-11-21T10:43:02.9586750Z",
    }


def test_a_batch_that_is_not_the_last_does_not_say_when_it_was_written() -> None:
    row = sentinel_row("a", "e", HistoryVersion(3, 17), completed_at=None)

    assert "CheckpointCompletedTimestamp" not in row
    assert read_sentinel({**_ours(), **row}).length is None
    assert read_sentinel({**_ours(), **row}).version(rows=12) == HistoryVersion(3, 12)


def test_the_length_does_not_count_once_another_writer_has_appended() -> None:
    sentinel = read_sentinel({**_ours(), "CheckpointCompletedTimestamp": LATER})

    assert (sentinel.generation, sentinel.length) == (3, None)
    assert sentinel.version(rows=20) == HistoryVersion(3, 20)


def test_the_generation_is_a_newer_one_once_another_writer_has_replaced_the_history() -> None:
    sentinel = read_sentinel({**_ours(), "ExecutionId": "f", "CheckpointCompletedTimestamp": LATER})

    assert (sentinel.generation, sentinel.length) == (4, None)


def test_neither_counts_while_another_writers_checkpoint_is_incomplete() -> None:
    sentinel = read_sentinel({**_ours(), "IsCheckpointComplete": False})

    assert (sentinel.is_complete, sentinel.generation, sentinel.length) == (False, 3, None)


@pytest.mark.parametrize("version", ["", "x", "3", "3.", "-1.2", ".5"])
def test_a_version_that_cannot_be_read_is_none(version: str) -> None:
    sentinel = read_sentinel({**_ours(), "HistoryVersion": version})

    assert (sentinel.generation, sentinel.length) == (1, None)


def _ours() -> dict[str, Value]:
    return sentinel_row("a", "e", HistoryVersion(3, 17), completed_at=NOW)
