"""Rows of the History table: events and the sentinel.

A row holds the columns of the reference and, of ours, `MessageId`, `DispatchId` and `DurableHost` (`extra`), each only
where there is something to tell. What is too large for its column is moved by `payloads.offload` before writing and
has to be put back, see `payloads.offloaded`, before reading.

A rewind takes events away by making `GenericEvent` rows of theirs: `EventType` and `Reason` change, the columns of the
event stay, and from them the event that was there is read again. Source: azure-storage-task-hub.md 4.2, 4.3 and 6.11.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime

import msgspec

from durable_host.model import history as model
from durable_host.model.ids import ExecutionId
from durable_host.model.instance import HistoryVersion
from durable_host_providers.azure_storage.ports import Value
from durable_host_providers.azure_storage.wire.errors import UnreadableRowError
from durable_host_providers.azure_storage.wire.event_columns import columns_of, is_played, stands_for_original
from durable_host_providers.azure_storage.wire.keys import SENTINEL, escape_key, is_entity, row_key
from durable_host_providers.azure_storage.wire.payloads import is_large
from durable_host_providers.azure_storage.wire.row_events import event_of
from durable_host_providers.azure_storage.wire.stamps import read_stamp, stamp_columns
from durable_host_providers.azure_storage.wire.times import edm_time

__all__ = [
    "Sentinel",
    "event_row",
    "event_rows",
    "read_event",
    "read_sentinel",
    "rewound_columns",
    "sentinel_row",
]


def event_rows(
    instance_id: str, execution_id: str, events: Sequence[model.HistoryEvent], first: int
) -> list[dict[str, Value]]:
    """The rows of a run of events, the first of them at index `first`; for an upsert that replaces.

    Args:
        execution_id: the generation they belong to.
    """
    partition_key = escape_key(instance_id)
    rows: list[dict[str, Value]] = []
    entity = is_entity(instance_id)
    continued = False
    for index, event in enumerate(events, first):
        played = not entity and is_played(event)
        if type(event) is model.ExecutionStarted:
            # A start that came as no message follows a continue-as-new: its first episode counts as replayed.
            continued = event.message_id is None and not entity
        elif continued and type(event) is model.OrchestratorCompleted:
            played, continued = True, False
        rows.append(_row(partition_key, execution_id, event, index, played))
    return rows


def event_row(instance_id: str, execution_id: str, event: model.HistoryEvent, index: int) -> dict[str, Value]:
    """The row of one event."""
    return _row(escape_key(instance_id), execution_id, event, index, not is_entity(instance_id) and is_played(event))


def _row(
    partition_key: str, execution_id: str, event: model.HistoryEvent, index: int, played: bool
) -> dict[str, Value]:
    values: dict[str, Value] = {
        "PartitionKey": partition_key,
        "RowKey": row_key(index),
        "ExecutionId": execution_id,
        "EventId": event.event_id,
        "IsPlayed": played,
        "_Timestamp": edm_time(event.timestamp),
    }
    columns_of(event, values)
    return values


def read_event(values: Mapping[str, Value]) -> model.HistoryEvent:
    """The event of a row, the sentinel excepted.

    Raises:
        UnreadableRowError: it is of a type that is not known here, or a column is missing or cannot be read.
    """
    try:
        return event_of(values)
    except (KeyError, TypeError, ValueError, OverflowError, msgspec.MsgspecError) as error:
        what = f"column {error} is missing" if isinstance(error, KeyError) else str(error)
        raise UnreadableRowError(
            str(values.get("PartitionKey", "")), str(values.get("RowKey", "")), f"{values.get('EventType')!r}: {what}"
        ) from error


def rewound_columns(event: model.HistoryEvent) -> dict[str, Value] | None:
    """What to merge into the row of an event that a rewind takes away; None: write the whole row instead.

    Args:
        event: the GenericEvent that stands in its place. The row must be that of its `original`.
    """
    if not isinstance(event, model.GenericEvent) or not stands_for_original(event):
        return None
    columns: dict[str, Value] = {}
    columns_of(event, columns)
    merged = {name: value for name, value in columns.items() if name in _REWOUND_COLUMNS}
    original_reason = getattr(event.original, "reason", None) or ""
    # A text that lay in a blob would come back from there, and one that has to go there cannot be merged.
    return None if any(is_large(str(text)) for text in (original_reason, *merged.values())) else merged


_REWOUND_COLUMNS = frozenset({"EventType", "Reason", "DurableHost"})


# The sentinel.


class Sentinel(msgspec.Struct, frozen=True):
    """What the sentinel of a history says.

    Attributes:
        execution_id: the generation of the last checkpoint.
        is_complete: that checkpoint was written to its end.
        generation: ours; 1 where nobody of ours has written yet.
        length: ours; None: what stands was written by others, or not to its end, so the rows have to be counted.
    """

    execution_id: ExecutionId
    is_complete: bool = True
    generation: int = 1
    length: int | None = None

    def version(self, rows: int) -> HistoryVersion:
        """The version of a history of which so many events were read."""
        return HistoryVersion(self.generation, rows if self.length is None else self.length)


def sentinel_row(
    instance_id: str, execution_id: str, version: HistoryVersion, *, completed_at: datetime | None
) -> dict[str, Value]:
    """The sentinel, for an insert or a merge.

    Args:
        version: of the history up to and including this batch.
        completed_at: now, in the last batch of a checkpoint; None in those before.
    """
    values: dict[str, Value] = {
        "PartitionKey": escape_key(instance_id),
        "RowKey": SENTINEL,
        "ExecutionId": execution_id,
        "IsCheckpointComplete": completed_at is not None,
    }
    time = None
    if completed_at is not None:
        values["CheckpointCompletedTimestamp"] = time = edm_time(completed_at)
    return {**values, **stamp_columns(execution_id, time, version)}


def read_sentinel(values: Mapping[str, Value]) -> Sentinel:
    """What a sentinel says."""
    execution_id = str(values.get("ExecutionId", ""))
    is_complete = values.get("IsCheckpointComplete", True) is True
    time = values.get("CheckpointCompletedTimestamp")
    stamp = read_stamp(values, execution_id, str(time) if is_complete and time is not None else None)
    return Sentinel(ExecutionId(execution_id), is_complete, stamp.generation, stamp.length)
