"""Rows of the Partitions table as the reference stores them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from msgspec.structs import replace

from durable_host_providers.azure_storage.partition_plan import LeaseRow
from durable_host_providers.azure_storage.partition_rows import from_row, new_row, to_values
from durable_host_providers.azure_storage.ports import EdmDateTime, Row, Value


def recorded(*, requested: bool = False) -> Row:
    """A row as the reference wrote it: owned, or owned and requested by a second worker."""
    values: dict[str, Value] = {
        "PartitionKey": "",
        "RowKey": "recorded-control-00",
        "CurrentOwner": "worker-1",
        "OwnedSince": EdmDateTime("2026-11-21T10:42:55.6533281Z"),
        "LastRenewal": EdmDateTime("2026-11-21T10:42:55.6536361Z"),
        "ExpiresAt": EdmDateTime("2026-11-21T10:43:25.6536362Z"),
        "IsDraining": False,
        "Timestamp": EdmDateTime("2026-11-21T10:42:55.6561686Z"),
    }
    if requested:
        values["NextOwner"] = "worker-2"
    return Row(values, 'W/"1"')


def without_timestamp(row: Row) -> dict[str, Value]:
    return {name: value for name, value in row.values.items() if name != "Timestamp"}


def test_recorded_rows_are_read() -> None:
    row = from_row(recorded())

    assert row == LeaseRow(
        "recorded-control-00",
        "worker-1",
        None,
        datetime(2026, 11, 21, 10, 42, 55, 653328, UTC),
        datetime(2026, 11, 21, 10, 42, 55, 653636, UTC),
        datetime(2026, 11, 21, 10, 43, 25, 653636, UTC),
        False,
        'W/"1"',
    )


def test_recorded_rows_are_written_back_to_the_last_digit() -> None:
    for row in (recorded(), recorded(requested=True)):
        values = to_values(from_row(row), row)

        assert values == without_timestamp(row)
        assert {name: type(value) for name, value in values.items()} == {
            name: type(value) for name, value in without_timestamp(row).items()
        }


def test_a_request_changes_nothing_but_the_next_owner() -> None:
    row = recorded()

    assert to_values(replace(from_row(row), next_owner="worker-2"), row) == without_timestamp(recorded(requested=True))


def test_a_claim_has_the_columns_that_the_reference_writes() -> None:
    now = datetime(2030, 1, 1, 12, 0, 0, 7, UTC)
    values = to_values(LeaseRow("q", "me", None, now, now, now + timedelta(seconds=30)))

    assert values == {
        "PartitionKey": "",
        "RowKey": "q",
        "CurrentOwner": "me",
        "OwnedSince": "2030-01-01T12:00:00.0000070Z",
        "LastRenewal": "2030-01-01T12:00:00.0000070Z",
        "ExpiresAt": "2030-01-01T12:00:30.0000070Z",
        "IsDraining": False,
    }
    assert all(isinstance(values[name], EdmDateTime) for name in ("OwnedSince", "LastRenewal", "ExpiresAt"))


def test_a_new_row_has_its_keys_and_no_owner() -> None:
    assert new_row("q") == {"PartitionKey": "", "RowKey": "q", "IsDraining": False}
    assert from_row(Row(new_row("q"), "1")) == LeaseRow("q", etag="1")


def test_what_is_no_time_is_none() -> None:
    row = Row({**new_row("q"), "CurrentOwner": "x", "ExpiresAt": "soon", "LastRenewal": 7}, "1")

    assert from_row(row) == LeaseRow("q", "x", etag="1")
