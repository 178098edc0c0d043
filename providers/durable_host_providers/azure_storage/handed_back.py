"""What was handed back and waits: a queue shows nothing of its hidden messages, so hosts write it down.

A row for each message that came back at least twice, in a table that is made at first need. A row holds while its
message is hidden, or visible and not fetched yet; after that it is old. Only the list for operators rests on it: a row
that could not be written is written the next time.
"""

from __future__ import annotations

import logging
from collections.abc import Collection
from datetime import datetime, timedelta

from durable_host.environment import Environment
from durable_host.errors import StoreError
from durable_host.model.history import ExecutionStarted
from durable_host.model.ids import InstanceId
from durable_host.model.messages import ActivityTask
from durable_host.storage.contract import HandedBack
from durable_host_providers.azure_storage.fetched import Fetched, Held, copies_of
from durable_host_providers.azure_storage.ports import (
    NotFoundError,
    QueueMessage,
    Row,
    StorageAccount,
    TableAction,
    TableOperation,
    Value,
)
from durable_host_providers.azure_storage.wire.times import edm_time, instant_of

__all__ = ["HandedBackTable"]

logger = logging.getLogger(__name__)

_MOST = 100
_FROM = 2
"""From how many deliveries on."""

_OLD = timedelta(hours=1)


class HandedBackTable:
    """The table of one hub."""

    def __init__(self, account: StorageAccount, name: str, environment: Environment) -> None:
        self._table = account.table(name)
        self._clock = environment.clock

    # Writing.

    async def note_task(self, fetched: Fetched[ActivityTask], delay_s: int) -> None:
        """A request for an activity is hidden for so long."""
        task = fetched.body
        await self._note("activity", task.instance_id, task.name, fetched.queue.name, fetched.stored, delay_s)

    async def note_instance(self, held: Held, delay_s: int) -> None:
        """The messages of an instance are hidden for so long."""
        copies = max(copies_of(held.messages), key=lambda each: each.deliveries, default=None)
        if copies is None:
            return
        state = None if held.known is None else held.known.state
        name = state.name if state is not None else None
        for fetched in copies_of(held.messages):
            if isinstance(fetched.body.event, ExecutionStarted):
                name = fetched.body.event.name
        await self._note("orchestration", held.instance_id, name, held.queue, copies.stored, delay_s)

    async def note_message(self, kind: str, instance_id: str, name: str, queue: str, message: QueueMessage) -> None:
        """A message of an unknown kind is hidden; `message` is as its update returned it."""
        delay = message.next_visible_at - self._clock.now()
        await self._note(kind, instance_id, name, queue, message, max(1, round(delay.total_seconds())))

    async def _note(
        self, kind: str, instance_id: str, name: str | None, queue: str, message: QueueMessage, delay_s: int
    ) -> None:
        if delay_s <= 0 or message.dequeue_count < _FROM:
            return
        values: dict[str, Value] = {
            "PartitionKey": queue,
            "RowKey": message.id,
            "Kind": kind,
            "InstanceId": instance_id,
            "Deliveries": message.dequeue_count,
            "VisibleAt": edm_time(self._clock.now() + timedelta(seconds=delay_s)),
        }
        if name is not None:
            values["Name"] = name
        row = TableOperation(TableAction.UPSERT_REPLACE, values)
        try:
            try:
                await self._table.write(row)
            except NotFoundError:
                await self._table.create()
                await self._table.write(row)
        except StoreError:
            logger.debug("what was handed back could not be noted", exc_info=True)

    # Reading.

    async def waiting(self, visible: Collection[str]) -> tuple[HandedBack, ...]:
        """What waits, most deliveries first; old rows are removed on the way.

        Args:
            visible: ids of the messages that the queues show now.
        """
        now = self._clock.now()
        found: dict[tuple[str, str, str | None], HandedBack] = {}
        continuation: str | None = None
        while True:
            try:
                page = await self._table.query(continuation=continuation)
            except NotFoundError:
                return ()
            for row in page.rows:
                visible_at = _time(row)
                if visible_at > now or row.values["RowKey"] in visible:
                    each = _read(row, visible_at if visible_at > now else None)
                    known = found.get((each.kind, each.instance_id, each.name))
                    if known is None or known.deliveries < each.deliveries:
                        found[each.kind, each.instance_id, each.name] = each
                elif visible_at < now - _OLD:
                    await self._remove(row)
            continuation = page.continuation
            if continuation is None:
                return tuple(sorted(found.values(), key=lambda each: -each.deliveries)[:_MOST])

    async def _remove(self, row: Row) -> None:
        keys = {name: row.values[name] for name in ("PartitionKey", "RowKey")}
        try:
            await self._table.write(TableOperation(TableAction.DELETE, keys, row.etag))
        except StoreError:  # written again meanwhile, or another removes it
            logger.debug("an old row was not removed", exc_info=True)


def _time(row: Row) -> datetime:
    return instant_of(str(row.values["VisibleAt"]))


def _read(row: Row, visible_at: datetime | None) -> HandedBack:
    values = row.values
    name = values.get("Name")
    return HandedBack(
        str(values["Kind"]),
        InstanceId(str(values["InstanceId"])),
        None if name is None else str(name),
        int(str(values["Deliveries"])),
        visible_at,
    )
