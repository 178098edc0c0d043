"""The History table: an instance's events, and the sentinel whose ETag is the lock of it all.

Every batch carries the sentinel with the ETag that is expected, so a writer whose time is over fails at its first batch
and never overwrites a row of the winner. A history of several batches is valid after each of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

import msgspec

from durable_host.environment import Environment
from durable_host.errors import StoreUnavailableError
from durable_host.model.history import HistoryEvent, OrchestratorCompleted, OrchestratorStarted
from durable_host.model.ids import ExecutionId, InstanceId
from durable_host.model.instance import HistoryVersion
from durable_host_providers.azure_storage.payload_blobs import PayloadBlobs
from durable_host_providers.azure_storage.ports import (
    ANY,
    MAX_OPERATIONS,
    ConflictError,
    NotFoundError,
    PreconditionFailedError,
    Row,
    StorageAccount,
    TableAction,
    TableOperation,
    Value,
)
from durable_host_providers.azure_storage.wire.filters import partition_filter
from durable_host_providers.azure_storage.wire.history_rows import (
    event_row,
    event_rows,
    read_event,
    read_sentinel,
    rewound_columns,
    sentinel_row,
)
from durable_host_providers.azure_storage.wire.keys import SENTINEL, escape_key, row_key
from durable_host_providers.azure_storage.wire.payloads import LARGE_COLUMNS, is_large, offload, offloaded

__all__ = ["Appended", "Appending", "HistoryTable", "SentinelMovedError", "StoredHistory", "episodes_in"]

_MAX_EVENTS = MAX_OPERATIONS - 1
_MAX_BYTES = 3_145_728
_READS = 3
_SHOWN: dict[tuple[object, str], str] = {
    ("ExecutionStarted", "Input"): "Input",
    ("ExecutionCompleted", "Result"): "Output",
}
"""Columns of History whose blobs a row of Instances points to."""


class SentinelMovedError(Exception):
    """Somebody else has written to the history, or purged it."""


class StoredHistory(msgspec.Struct, frozen=True):
    """A history as read.

    Attributes:
        version: None: nothing is committed.
        sentinel: the sentinel's ETag; None: there is none.
        blobs: names of those that hold large columns.
    """

    version: HistoryVersion | None = None
    sentinel: str | None = None
    events: Sequence[HistoryEvent] = ()
    execution_id: ExecutionId | None = None
    blobs: Sequence[str] = ()


class Appending(msgspec.Struct, frozen=True):
    """What a checkpoint writes.

    Attributes:
        first: index of the first event.
        amended: events that stand in the place of others.
        version: of the history afterwards.
        sentinel: the ETag that is expected; None: there must be no sentinel.
    """

    instance_id: InstanceId
    execution_id: ExecutionId
    events: Sequence[HistoryEvent]
    first: int
    amended: Sequence[tuple[int, HistoryEvent]]
    version: HistoryVersion
    sentinel: str | None


class Appended(msgspec.Struct, frozen=True):
    """What became of it.

    Attributes:
        sentinel: the sentinel's new ETag.
        places: URLs of the blobs that hold what the row shows as `Input` and `Output`.
        blobs: names of all that were written.
    """

    sentinel: str
    places: dict[str, str]
    blobs: list[str]


class HistoryTable:
    """Histories of one hub.

    Args:
        batch: most events of one transaction; simulations make it small.
        whole: most events of one whose events must stay together.
    """

    def __init__(
        self,
        account: StorageAccount,
        name: str,
        environment: Environment,
        blobs: PayloadBlobs,
        *,
        batch: int = _MAX_EVENTS,
        whole: int = _MAX_EVENTS,
    ) -> None:
        self._table = account.table(name)
        self._clock = environment.clock
        self._ids = environment.ids
        self._blobs = blobs
        self._batch = batch
        self._whole = whole

    async def read(self, instance_id: InstanceId) -> StoredHistory:
        """The history of the execution that the sentinel names.

        Raises:
            UnreadableRowError, MissingPayloadError: what is stored is no history.
        """
        for _ in range(_READS):
            found = await self._read(instance_id)
            if found is not None:
                return found
        raise StoreUnavailableError(f"The history of {instance_id!r} changed each time it was read.")

    async def _read(self, instance_id: InstanceId) -> StoredHistory | None:
        rows = await self._rows(partition_filter(instance_id))
        if not rows:
            return StoredHistory()
        last = rows[-1]
        if last.values["RowKey"] != SENTINEL:
            # Nobody writes events without a sentinel; what is left of an interrupted purge is no history.
            return StoredHistory()
        sentinel = read_sentinel(last.values)
        events: list[HistoryEvent] = []
        blobs: list[str] = []
        for index, row in enumerate(rows[:-1]):
            stale = row.values.get("ExecutionId") != sentinel.execution_id or row.values["RowKey"] != row_key(index)
            if stale or index == sentinel.length:
                break
            blobs += offloaded(row.values).values()
            events.append(read_event(await self._blobs.restored(row.values)))
        if sentinel.length is not None and len(events) < sentinel.length:
            return None  # of several pages some are older than the others
        return StoredHistory(sentinel.version(len(events)), last.etag, events, sentinel.execution_id, blobs)

    async def _rows(self, filter: str, select: Sequence[str] = ()) -> list[Row]:
        page = await self._table.query(filter, select=select)
        rows = list(page.rows)
        while page.continuation is not None:
            page = await self._table.query(filter, select=select, continuation=page.continuation)
            rows += page.rows
        return rows

    async def sentinel(self, instance_id: InstanceId) -> str | None:
        """The sentinel's ETag; None: there is none."""
        row = await self._table.get(escape_key(instance_id), SENTINEL, select=("RowKey",))
        return None if row is None else row.etag

    async def append(self, appending: Appending, *, progress: Callable[[], None]) -> Appended:
        """Write batch by batch.

        Args:
            progress: called after each batch that is not the last.

        Raises:
            SentinelMovedError: the sentinel is not what was expected; earlier batches of this call stand nevertheless.
        """
        etag = appending.sentinel
        written = Appended("", {}, [])
        batches = list(self._batches(await self._operations(appending, written), _inseparable(appending)))
        length = 0 if not appending.first else appending.first
        for at, batch in enumerate(batches):
            final = at == len(batches) - 1
            length = appending.version.length if final else max(length, _end_of(batch))
            row = sentinel_row(
                appending.instance_id,
                appending.execution_id,
                HistoryVersion(appending.version.generation, length),
                completed_at=self._clock.now() if final else None,
            )
            action = TableAction.INSERT if etag is None else TableAction.MERGE
            operations = [*batch, TableOperation(action, row, etag or ANY)]
            try:
                etag = (await self._table.transact(operations))[-1]
            except (ConflictError, PreconditionFailedError, NotFoundError) as error:
                raise SentinelMovedError from error
            if not final:
                progress()
        assert etag is not None
        return Appended(etag, written.places, written.blobs)

    async def _operations(self, appending: Appending, written: Appended) -> list[TableOperation]:
        operations: list[TableOperation] = []
        for index, event in appending.amended:
            columns = rewound_columns(event)
            row = event_row(appending.instance_id, appending.execution_id, event, index)
            if columns is None:
                operations.append(await self._upsert(row, appending.instance_id, written))
            else:
                keys: dict[str, Value] = {"PartitionKey": row["PartitionKey"], "RowKey": row["RowKey"]}
                operations.append(TableOperation(TableAction.MERGE, {**keys, **columns}))
        rows = event_rows(appending.instance_id, appending.execution_id, appending.events, appending.first)
        for row in rows:
            operations.append(await self._upsert(row, appending.instance_id, written))
        return operations

    async def _upsert(self, row: dict[str, Value], instance_id: InstanceId, written: Appended) -> TableOperation:
        token = self._ids.new_id()[:8].upper() if _may_be_large(row) else ""
        values, moved = offload(row, instance_id, str(row["RowKey"]), str(row["EventType"]), token)
        if moved:
            await self._blobs.write_all(moved)
            for each in moved:
                column = _SHOWN.get((row["EventType"], each.column))
                written.blobs.append(each.blob_name)
                if column is not None:
                    written.places[column] = self._blobs.url_of(each.blob_name)
        return TableOperation(TableAction.UPSERT_REPLACE, values)

    def _batches(self, operations: Iterable[TableOperation], together: int) -> Iterator[list[TableOperation]]:
        """At least one, also of no rows: an instance that ends before it begins has a sentinel, too.

        Args:
            together: how many of the first belong into one batch, as far as a transaction takes them.
        """
        batch: list[TableOperation] = []
        size = 0
        most = max(self._batch, min(together, self._whole))
        for operation in operations:
            estimate = _estimate(operation.values)
            if batch and (len(batch) == most or size + estimate > _MAX_BYTES):
                most = self._batch
                yield batch
                batch, size = [], 0
            batch.append(operation)
            size += estimate
        yield batch

    def fits(self, events: Sequence[HistoryEvent]) -> int:
        """How many of the first events of a generation the first transaction takes."""
        rows = event_rows("", "", events[: self._whole], 0)
        size = 0
        for at, row in enumerate(rows):
            size += _estimate(row)
            if at and size > _MAX_BYTES:
                return at
        return len(rows)

    async def delete(self, instance_id: InstanceId) -> None:
        """Remove every row of an instance."""
        key = escape_key(instance_id)
        rows = await self._rows(partition_filter(instance_id), select=("PartitionKey", "RowKey"))
        # The sentinel first: without it what is left is no history, and nobody can append to it any more.
        names = [str(row.values["RowKey"]) for row in reversed(rows)]
        for at in range(0, len(names), MAX_OPERATIONS):
            some = [{"PartitionKey": key, "RowKey": name} for name in names[at : at + MAX_OPERATIONS]]
            operations = [TableOperation(TableAction.DELETE, values) for values in some]
            try:
                await self._table.transact(operations)
            except NotFoundError:
                for operation in operations:
                    try:
                        await self._table.write(operation)
                    except NotFoundError:
                        continue


def episodes_in(events: Iterable[HistoryEvent]) -> int:
    """How many episodes a history, or a part of one, has."""
    return sum(type(event) is OrchestratorStarted for event in events)


def _inseparable(appending: Appending) -> int:
    """How many operations, the first ones, a crash must not tear apart.

    INVARIANT: the start of a generation and the events that it carries over are one batch. The rows from which those
    were carried are overwritten by it, and their messages are gone. What was amended is one batch as well.
    """
    count = len(appending.amended)
    if appending.first == 0:
        ends = (at for at, event in enumerate(appending.events) if type(event) is OrchestratorCompleted)
        count += next(ends, len(appending.events))
    return count


def _end_of(batch: Sequence[TableOperation]) -> int:
    return max((int(str(each.values["RowKey"]), 16) + 1 for each in batch), default=0)


def _may_be_large(row: Mapping[str, Value]) -> bool:
    return any(isinstance(value, str) and len(value) > 15_000 for value in row.values())


def _estimate(values: Mapping[str, Value]) -> int:
    """At least the bytes of a row in a request, those of texts excepted that lie in a blob, or will."""
    texts = (value for name in LARGE_COLUMNS if isinstance(value := values.get(name), str))
    return 1_024 + sum((2 if text.isascii() else 3) * len(text) for text in texts if not is_large(text))
