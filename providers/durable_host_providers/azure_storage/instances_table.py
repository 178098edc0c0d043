"""The Instances table: one row per instance, written only where its ETag is the one that was read or written last.

A row is merged, as the reference does it, where a merge can say everything; else it is replaced.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping, Sequence

import msgspec

from durable_host.environment import Environment
from durable_host.model.history import ExecutionStarted
from durable_host.model.ids import InstanceId
from durable_host.model.instance import InstanceState, pending_state
from durable_host.model.messages import Message
from durable_host_providers.azure_storage.payload_blobs import PayloadBlobs
from durable_host_providers.azure_storage.ports import (
    ANY,
    ConflictError,
    NotFoundError,
    PreconditionFailedError,
    Row,
    StorageAccount,
    TableAction,
    TableOperation,
    TablePage,
    Value,
)
from durable_host_providers.azure_storage.wire.errors import WireError
from durable_host_providers.azure_storage.wire.instance_rows import (
    WITHOUT_PAYLOADS,
    instance_row,
    is_detached_row,
    merge_columns,
    quarantine_columns,
    read_instance,
    release_columns,
)
from durable_host_providers.azure_storage.wire.keys import escape_key
from durable_host_providers.azure_storage.wire.messages import message_of, read_blob
from durable_host_providers.azure_storage.wire.payloads import blob_of_url, decompress, is_large, offload

__all__ = ["InstancesTable", "RowMovedError", "StoredRow", "shown", "told"]

_START_ID = "StartMessageId"
"""A column of ours: the message that created the row; who sends it again hears that it did."""

_TIME_ONLY = frozenset({"LastUpdatedTime", "HistoryVersion", "HistoryStamp"})
_LONG = 4_096


class RowMovedError(Exception):
    """Somebody else has written the row since."""


class StoredRow(msgspec.Struct, frozen=True):
    """A row as it stands.

    Attributes:
        values: its columns as stored; long texts may be left out where nobody compares them.
        state: what it says; without payloads unless they were asked for.
        whole: written by this process, and `values` are all that there is to read.
    """

    etag: str
    values: Mapping[str, Value]
    state: InstanceState
    whole: bool = False

    @property
    def start_id(self) -> str | None:
        """The message that created it, where one of ours did."""
        value = self.values.get(_START_ID)
        return value if isinstance(value, str) else None


def shown(state: InstanceState) -> InstanceState:
    """A projection as clients see it: output and completion time of terminal instances only."""
    if state.status.is_terminal or (state.output is None and state.completed_at is None):
        return state
    return msgspec.structs.replace(state, output=None, completed_at=None)


def told(row: StoredRow) -> InstanceState | None:
    """What clients read of a row that this process has just written; None: they have to look."""
    return shown(read_instance(row.values, etag=row.etag)) if row.whole else None


class InstancesTable:
    """Projections of one hub.

    Args:
        hub: its name as configured.
    """

    def __init__(
        self, account: StorageAccount, name: str, hub: str, environment: Environment, blobs: PayloadBlobs
    ) -> None:
        self._table = account.table(name)
        self._hub = hub
        self._ids = environment.ids
        self._blobs = blobs

    # Reading.

    async def read(self, instance_id: InstanceId) -> StoredRow | None:
        """The row, its payloads not resolved."""
        row = await self._table.get(escape_key(instance_id), "")
        return None if row is None else self._stored(row)

    def _stored(self, row: Row) -> StoredRow:
        state = read_instance(row.values, etag=row.etag, with_payloads=False)
        return StoredRow(row.etag, {name: value for name, value in row.values.items() if name != "Timestamp"}, state)

    async def load(self, instance_id: InstanceId, *, with_payloads: bool) -> InstanceState | None:
        """What clients see of an instance."""
        row = await self._table.get(escape_key(instance_id), "", select=() if with_payloads else WITHOUT_PAYLOADS)
        return None if row is None else await self.resolve(row, with_payloads=with_payloads)

    async def resolve(self, row: Row, *, with_payloads: bool) -> InstanceState:
        """What a row says, with the texts that lie in blobs.

        A text whose blob is gone is nothing: a status must not fail because of an interrupted purge.
        """
        values: Mapping[str, Value] = row.values
        try:
            values = await self._blobs.restored(values)
        except WireError:
            values = {name: value for name, value in values.items() if f"{name}BlobName" not in values}
        if with_payloads:
            values = await self._followed(values)
        return shown(read_instance(values, etag=row.etag, with_payloads=with_payloads))

    async def _followed(self, values: Mapping[str, Value]) -> Mapping[str, Value]:
        for column in ("Input", "Output"):
            text = values.get(column)
            name = blob_of_url(text, self._blobs.url) if isinstance(text, str) else None
            if name is not None:
                values = {**values, column: await self._large(name) or ""}
        return values

    async def _large(self, name: str) -> str | None:
        data = await self._blobs.read(name)
        if data is None:
            return None
        with contextlib.suppress(WireError):
            if name.endswith("ExecutionStarted.json.gz") and "/message-" in name:
                event = message_of(read_blob(data), queue_id="", deliveries=0).event
                return event.input if isinstance(event, ExecutionStarted) else None
            return decompress(data).decode("utf-8", "surrogatepass")
        return None

    async def page(
        self, filter: str, *, select: Sequence[str] = (), top: int | None = None, continuation: str | None = None
    ) -> TablePage:
        """One page of rows, as the table gives them."""
        return await self._table.query(filter, select=select, top=top, continuation=continuation)

    async def resolve_all(self, rows: Sequence[Row], *, with_payloads: bool) -> list[InstanceState]:
        """`resolve` for many."""
        return await asyncio.gather(*(self.resolve(row, with_payloads=with_payloads) for row in rows))

    # Writing.

    async def create(self, start: Message, before: StoredRow | None) -> StoredRow:
        """Insert the row of an instance that was just created, or put it in the place of another.

        Raises:
            RowMovedError: there is one already, or not the one that was read.
        """
        state = pending_state(start)
        values = instance_row(state, self._hub, detached=_is_detached(start))
        values[_START_ID] = start.id
        values = await self._offload(state, values)
        action = TableAction.INSERT if before is None else TableAction.REPLACE
        etag = await self._write(TableOperation(action, values, ANY if before is None else before.etag))
        return StoredRow(etag, _short(values), state)

    async def project(
        self,
        state: InstanceState,
        before: StoredRow | None,
        places: Mapping[str, str],
        *,
        detached: bool = False,
        may_wait: bool = False,
    ) -> StoredRow | None:
        """Make the row say what the state says; None: it differs in its time only, and may wait.

        Args:
            before: the row as it stands; None: there is none.
            places: URLs of the blobs where `Input` and `Output` lie already.
            detached: nobody waits for the execution, which its tags tell; a row that tells it goes on to do so.

        Raises:
            RowMovedError: the row is not the one that was read.
        """
        known: Mapping[str, Value] = {} if before is None else before.values
        detached = detached or is_detached_row(known, state.execution_id)
        places = {**_places(state, known, self._blobs.url), **places}
        values = instance_row(state, self._hub, detached=detached, places=places)
        if before is not None and before.start_id is not None and before.state.starts == state.starts:
            values[_START_ID] = before.start_id
        stored = await self._offload(state, values)
        whole = stored is values and not places
        values = stored
        if before is None:
            operation = TableOperation(TableAction.INSERT, values)
        else:
            columns = merge_columns(before.values, values)
            if columns is None:
                operation = TableOperation(TableAction.REPLACE, values, before.etag)
            else:
                moved = {name for name, value in columns.items() if before.values.get(name) != value}
                if may_wait and moved <= _TIME_ONLY:
                    return None
                operation = TableOperation(TableAction.MERGE, columns, before.etag)
        etag = await self._write(operation)
        short = _short(values)
        return StoredRow(etag, short, state, whole and len(short) == len(values) and not self._points(values))

    def _points(self, values: Mapping[str, Value]) -> bool:
        """Whether a text of the row reads as the place of another."""
        texts = (values.get("Input"), values.get("Output"))
        return any(isinstance(text, str) and blob_of_url(text, self._blobs.url) is not None for text in texts)

    async def quarantine(self, reason: str, before: StoredRow) -> str | None:
        """Show an instance as failed with a reason; None: the row is not the one that was read."""
        columns = quarantine_columns(before.values, reason)
        try:
            return await self._write(TableOperation(TableAction.MERGE, columns, before.etag))
        except RowMovedError:
            return None

    async def release(self, instance_id: InstanceId) -> bool:
        """Make a quarantined instance what it was; False: it is not quarantined."""
        while True:
            row = await self._table.get(escape_key(instance_id), "")
            columns = None if row is None else release_columns(row.values)
            if row is None or columns is None:
                return False
            try:
                await self._write(TableOperation(TableAction.MERGE, columns, row.etag))
            except RowMovedError:
                continue
            return True

    async def delete(self, row: StoredRow) -> bool:
        """Remove the row; False: it is not the one that was read."""
        keys = {"PartitionKey": row.values["PartitionKey"], "RowKey": row.values["RowKey"]}
        try:
            await self._table.write(TableOperation(TableAction.DELETE, keys, row.etag))
        except (NotFoundError, PreconditionFailedError):
            return False
        return True

    async def _write(self, operation: TableOperation) -> str:
        try:
            return await self._table.write(operation)
        except (ConflictError, NotFoundError, PreconditionFailedError) as error:
            raise RowMovedError from error

    async def _offload(self, state: InstanceState, values: dict[str, Value]) -> dict[str, Value]:
        if not any(isinstance(value, str) and is_large(value) for value in values.values()):
            return values
        values, moved = offload(values, state.instance_id, "", None, self._ids.new_id()[:8].upper())
        await self._blobs.write_all(moved)
        return values


def _is_detached(start: Message) -> bool:
    return isinstance(start.event, ExecutionStarted) and start.event.detached


def _places(state: InstanceState, known: Mapping[str, Value], container_url: str) -> dict[str, str]:
    """Where the row's own large input lies already."""
    text = known.get("Input")
    same = known.get("ExecutionId") == state.execution_id
    if same and isinstance(text, str) and state.input is not None and is_large(state.input):
        return {"Input": text} if blob_of_url(text, container_url) is not None else {}
    return {}


def _short(values: Mapping[str, Value]) -> dict[str, Value]:
    """The columns to compare with next time; long texts are rather written twice than kept."""
    return {name: value for name, value in values.items() if not isinstance(value, str) or len(value) <= _LONG}
