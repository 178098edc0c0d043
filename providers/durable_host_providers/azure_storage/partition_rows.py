"""Rows of the Partitions table as stored, and back.

The layout is that of azure-storage-task-hub.md 1.6.1: the partition key is the empty text, the row key the name of the
control queue. A time that is written back unchanged keeps all its digits, also the seventh that a datetime has not.
"""

from __future__ import annotations

from datetime import datetime

from durable_host_providers.azure_storage.partition_plan import LeaseRow
from durable_host_providers.azure_storage.ports import Row, Value
from durable_host_providers.azure_storage.wire.times import edm_time, instant_of

__all__ = ["PARTITION_KEY", "from_row", "new_row", "time_of", "to_values"]

PARTITION_KEY = ""

_TIMES = (("OwnedSince", "owned_since"), ("LastRenewal", "last_renewal"), ("ExpiresAt", "expires_at"))


def new_row(queue: str) -> dict[str, Value]:
    """A partition that nobody owns yet."""
    return {"PartitionKey": PARTITION_KEY, "RowKey": queue, "IsDraining": False}


def from_row(row: Row) -> LeaseRow:
    """A row as read."""
    values = row.values
    return LeaseRow(
        queue=str(values["RowKey"]),
        owner=_text(values, "CurrentOwner"),
        next_owner=_text(values, "NextOwner"),
        owned_since=_time(values, "OwnedSince"),
        last_renewal=_time(values, "LastRenewal"),
        expires_at=_time(values, "ExpiresAt"),
        draining=values.get("IsDraining") is True,
        etag=row.etag,
    )


def to_values(row: LeaseRow, stored: Row | None = None) -> dict[str, Value]:
    """All columns of a row that replaces what is stored; nulls are absent.

    Args:
        stored: what it replaces; its times stay as they are written there where they did not change.
    """
    values = new_row(row.queue)
    if row.owner is not None:
        values["CurrentOwner"] = row.owner
    if row.next_owner is not None:
        values["NextOwner"] = row.next_owner
    before = stored.values if stored is not None else {}
    for column, name in _TIMES:
        time: datetime | None = getattr(row, name)
        if time is not None:
            values[column] = before[column] if time == _time(before, column) else edm_time(time)
    values["IsDraining"] = row.draining
    return values


def time_of(row: Row, column: str) -> datetime | None:
    """A column that is a time; None: it is not there, or is none."""
    return _time(row.values, column)


def _text(values: dict[str, Value], column: str) -> str | None:
    value = values.get(column)
    return value if isinstance(value, str) and value else None


def _time(values: dict[str, Value], column: str) -> datetime | None:
    value = values.get(column)
    if not isinstance(value, str):
        return None
    try:
        return instant_of(value)
    except ValueError:
        return None
