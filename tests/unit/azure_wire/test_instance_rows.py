"""Rows of Instances: what is passed over, whose word counts, and how an instance is quarantined."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

import pytest
from msgspec.structs import replace

from durable_host.model.failure import Failure
from durable_host.model.history import ParentInstance
from durable_host.model.ids import ExecutionId, InstanceId
from durable_host.model.instance import HistoryVersion, InstanceState
from durable_host.model.status import RuntimeStatus
from durable_host_providers.azure_storage.ports import EdmDateTime, Value
from durable_host_providers.azure_storage.wire.errors import UnreadableRowError
from durable_host_providers.azure_storage.wire.instance_rows import (
    PAYLOAD_COLUMNS,
    WITHOUT_PAYLOADS,
    instance_row,
    is_detached_row,
    merge_columns,
    quarantine_columns,
    read_instance,
    release_columns,
)
from tests.azure_recordings import HUB, RECORDINGS, recorded_hub

NOW = datetime(2026, 11, 21, 10, 43, 2, 958_675, tzinfo=UTC)
LATER = EdmDateTime("2026-11-21T10:43:03.0000001Z")

RUNNING = InstanceState(
    instance_id=InstanceId("a/b"),
    execution_id=ExecutionId("e"),
    name="N",
    status=RuntimeStatus.RUNNING,
    created_at=NOW,
    updated_at=NOW,
    version=HistoryVersion(2, 8),
    parent=ParentInstance(InstanceId("p"), ExecutionId("pe"), 0),
    traceparent="00-a-b-01",
)
FAILED = replace(
    RUNNING,
    status=RuntimeStatus.FAILED,
    completed_at=NOW,
    output="boom",
    failure=Failure("ValueError", "boom"),
)
SUSPENDED = replace(RUNNING, status=RuntimeStatus.SUSPENDED, suspended_reason="hold on")


def test_a_row_that_was_only_created_has_the_columns_of_the_clients() -> None:
    pending = InstanceState(
        InstanceId("a"), ExecutionId("e"), "N", RuntimeStatus.PENDING, NOW, NOW, starts=0, tags={"team": "blue"}
    )
    recorded = next(row for row in recorded_hub("table").instances if row["PartitionKey"] == "start-queued")

    row = instance_row(pending, HUB)

    assert {*row, "Version", "Timestamp"} == set(recorded)
    assert row["Tags"] == recorded["Tags"]


def test_no_custom_status_is_a_text() -> None:
    assert instance_row(RUNNING, HUB)["CustomStatus"] == "null"
    assert read_instance(instance_row(RUNNING, HUB)).custom_status is None


def test_the_reason_of_a_suspension_stands_where_the_tools_look_for_it() -> None:
    row = instance_row(SUSPENDED, HUB)

    assert row["Output"] == "hold on"
    assert (read_instance(row).output, read_instance(row).suspended_reason) == (None, "hold on")


def test_what_an_earlier_execution_left_in_the_row_is_passed_over() -> None:
    row = {**instance_row(RUNNING, HUB), "Output": "old", "CompletedTime": EdmDateTime("2026-11-21T10:43:00Z")}

    assert read_instance(row) == RUNNING


def test_a_detached_start_is_told_by_the_tags_of_the_row() -> None:
    assert instance_row(RUNNING, HUB, detached=True)["Tags"] == '{"FireAndForget":""}'
    assert instance_row(replace(RUNNING, tags={"k": "v"}), HUB, detached=True)["Tags"] == '{"k":"v","FireAndForget":""}'


def test_a_row_goes_on_to_tell_that_nobody_waits_for_its_execution() -> None:
    row = instance_row(RUNNING, HUB, detached=True)

    assert is_detached_row(row, "e")
    assert not is_detached_row(row, "another")
    assert not is_detached_row(instance_row(RUNNING, HUB), "e")
    assert not is_detached_row(instance_row(replace(RUNNING, tags={"k": "FireAndForget"}), HUB), "e")


def test_a_large_value_may_be_told_by_its_place() -> None:
    row = instance_row(FAILED, HUB, places={"Output": "http://x/y", "Input": "http://x/z"})

    assert row["Output"] == "http://x/y"
    assert "Input" not in row


# Whose word counts.


def test_the_version_does_not_count_once_another_writer_has_written_the_row() -> None:
    merged = {**instance_row(FAILED, HUB), "LastUpdatedTime": LATER}

    state = read_instance(merged)

    assert (state.version, state.failure, state.updated_at.second) == (None, None, 3)
    assert (state.parent, state.traceparent) == (FAILED.parent, FAILED.traceparent), "facts of the same execution"


def test_nothing_of_ours_counts_in_the_row_of_another_execution() -> None:
    merged = {**instance_row(FAILED, HUB), "LastUpdatedTime": LATER, "ExecutionId": "f"}

    state = read_instance(merged)

    assert (state.version, state.failure, state.parent, state.traceparent) == (None, None, None, None)


def test_the_reason_of_a_suspension_by_another_writer_is_read_where_it_writes_it() -> None:
    theirs = {
        **instance_row(RUNNING, HUB),
        "LastUpdatedTime": LATER,
        "RuntimeStatus": "Suspended",
        "Output": "theirs",
    }

    assert read_instance(theirs).suspended_reason == "theirs"


@pytest.mark.parametrize("hub", RECORDINGS)
def test_every_recorded_row_is_read_without_its_payloads(hub: str) -> None:
    for row in recorded_hub(hub).instances:
        selected = {name: value for name, value in row.items() if name in WITHOUT_PAYLOADS}

        assert read_instance(selected, with_payloads=False) == replace(
            read_instance(row), input=None, output=None, custom_status=None, suspended_reason=None
        )


def test_a_query_without_payloads_knows_why_an_instance_is_suspended() -> None:
    row = {name: value for name, value in instance_row(SUSPENDED, HUB).items() if name in WITHOUT_PAYLOADS}

    assert read_instance(row, with_payloads=False).suspended_reason == "hold on"


def test_payloads_are_not_among_the_columns_of_a_query_without_them() -> None:
    assert not {*PAYLOAD_COLUMNS} & {*WITHOUT_PAYLOADS}


@pytest.mark.parametrize(
    "row",
    [
        {"PartitionKey": "a", "RowKey": "", "RuntimeStatus": "Dreaming"},
        {"PartitionKey": "a", "RowKey": "", "CreatedTime": "soon"},
        {"PartitionKey": "a", "RowKey": "", "Tags": "["},
        {"PartitionKey": "a", "RowKey": "", "Generation": "1"},
    ],
)
def test_a_row_that_cannot_be_read_is_told_by_its_keys(row: Mapping[str, Value]) -> None:
    with pytest.raises(UnreadableRowError) as caught:
        read_instance(row)

    assert caught.value.partition_key == "a"


def test_a_row_of_very_old_clients_is_read() -> None:
    state = read_instance({"PartitionKey": "a", "RowKey": "", "RuntimeStatus": "Running", "CreatedTime": LATER})

    assert (state.execution_id, state.name, state.tags, state.starts) == ("", "", None, None)


# Merging.


def test_a_merge_says_only_what_has_changed_and_what_the_reference_always_says() -> None:
    later = replace(RUNNING, updated_at=NOW + timedelta(seconds=1), version=HistoryVersion(2, 12))

    columns = merge_columns(instance_row(RUNNING, HUB), instance_row(later, HUB))

    assert columns is not None
    assert set(columns) == {
        "PartitionKey",
        "RowKey",
        "CustomStatus",
        "ExecutionId",
        "LastUpdatedTime",
        "TaskHubName",
        "HistoryVersion",
        "HistoryStamp",
    }


def test_a_row_is_replaced_where_a_merge_would_leave_something_behind() -> None:
    before = instance_row(replace(RUNNING, input="1"), HUB)

    assert merge_columns(before, instance_row(RUNNING, HUB)) is None
    other = replace(RUNNING, execution_id=ExecutionId("f"))
    assert merge_columns(before, instance_row(replace(other, input="1"), HUB)) is None


def test_the_output_of_a_failed_attempt_does_not_outlive_its_rewind() -> None:
    """A merge for the rewound instance, then its end without an output."""
    failed, running = instance_row(FAILED, HUB), instance_row(RUNNING, HUB)
    rewound = merge_columns(failed, running)
    assert rewound is not None
    assert read_instance({**failed, **rewound}) == RUNNING

    completed = replace(RUNNING, status=RuntimeStatus.COMPLETED, completed_at=NOW)
    assert merge_columns(running, instance_row(completed, HUB)) is None


def test_a_suspension_without_a_reason_does_not_show_the_one_before() -> None:
    suspended, running = instance_row(SUSPENDED, HUB), instance_row(RUNNING, HUB)
    stands = {**suspended, **(merge_columns(suspended, running) or {})}
    again = replace(SUSPENDED, suspended_reason=None)

    stands.update(merge_columns(running, instance_row(again, HUB)) or {})

    assert read_instance(stands) == again


# Quarantine.


@pytest.mark.parametrize("state", [RUNNING, SUSPENDED, replace(RUNNING, version=None)])
def test_a_quarantined_instance_shows_as_failed_and_is_afterwards_what_it_was(state: InstanceState) -> None:
    row = instance_row(state, HUB)
    shut = {**row, **quarantine_columns(row, "it keeps failing")}

    shown = read_instance(shut)
    assert (shown.status, shown.quarantined, shown.output) == (RuntimeStatus.FAILED, "it keeps failing", None)
    assert (shown.version, shown.parent) == (state.version, state.parent)

    released = release_columns(shut)
    assert released is not None
    assert read_instance({**shut, **released}) == state
    assert release_columns({**shut, **released}) is None


def test_a_row_of_another_writer_is_quarantined_and_released_alike() -> None:
    row = next(row for row in recorded_hub("table").instances if row["PartitionKey"] == "suspended")
    shut = {**row, **quarantine_columns(row, "why")}

    assert read_instance(shut).quarantined == "why"
    released = release_columns(shut)
    assert released is not None
    assert read_instance({**shut, **released}) == read_instance(row)


def test_an_instance_that_is_quarantined_twice_is_afterwards_what_it_was() -> None:
    row = instance_row(RUNNING, HUB)
    shut = {**row, **quarantine_columns(row, "first")}
    shut = {**shut, **quarantine_columns(shut, "second")}

    assert read_instance(shut).quarantined == "second"
    assert read_instance({**shut, **(release_columns(shut) or {})}) == RUNNING


def test_another_writer_ends_a_quarantine_by_writing_the_row() -> None:
    row = instance_row(RUNNING, HUB)
    written = {
        **row,
        **quarantine_columns(row, "why"),
        "LastUpdatedTime": LATER,
        "RuntimeStatus": "Completed",
        "Output": "1",
    }

    state = read_instance(written)

    assert (state.status, state.quarantined, state.output) == (RuntimeStatus.COMPLETED, None, "1")
    assert release_columns(written) is None


def test_an_endless_reason_is_cut() -> None:
    row = instance_row(RUNNING, HUB)

    assert len(str(quarantine_columns(row, "x" * 100_000)["Quarantined"])) == 8_000
