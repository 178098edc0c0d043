"""The table manager of the reference, for hosts of ours to share a hub with.

Written after azure-storage-task-hub.md 1.6.1: a pass every ten seconds, each row replaced by a request of its own, all
rows renewed at every pass. Only its way to listen to what it does not own (9.2 item 12) is left out.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence
from datetime import timedelta

from msgspec.structs import replace

from durable_host.errors import StoreError
from durable_host_providers.azure_storage.partition_plan import LeaseRow
from durable_host_providers.azure_storage.partition_rows import from_row, to_values
from durable_host_providers.azure_storage.partitions import OwnedPartition, PartitionContext
from durable_host_providers.azure_storage.ports import Row, TableAction, TableOperation

__all__ = ["ReferenceManager"]

_LEASE = timedelta(seconds=30)


class ReferenceManager:
    """One run."""

    def __init__(self, context: PartitionContext) -> None:
        self._context = context
        self._table = context.account.table("hubPartitions")
        self._held: dict[str, OwnedPartition] = {}
        self._drains: dict[str, asyncio.Task[None]] = {}
        self._soon = False
        self._others: dict[str, list[LeaseRow]] = {}
        self.others = False

    @property
    def owned(self) -> Sequence[OwnedPartition]:
        return tuple(self._held.values())

    async def run(self, stop: asyncio.Event) -> None:
        async with asyncio.TaskGroup() as self._tasks:
            try:
                while True:
                    stopping = stop.is_set()
                    try:
                        await self._pass(stopping=stopping)
                        pause = 1.0 if self._soon else 10.0
                    except StoreError:
                        pause = 0.01
                    if stopping and not self._held:
                        return
                    try:
                        async with asyncio.timeout(pause):
                            await (asyncio.sleep(pause + 1) if stopping else stop.wait())
                    except TimeoutError:
                        continue
            finally:
                for queue in list(self._held):
                    self._drop(queue)

    async def _pass(self, *, stopping: bool) -> None:
        self._soon = False
        stored = {str(row.values["RowKey"]): row for row in (await self._table.query()).rows}
        rows = {queue: from_row(row) for queue, row in stored.items()}
        mine = 0
        self._others = {}
        for queue, row in rows.items():
            if queue in self._held and row.owner != self._context.me:
                self._drop(queue)
            changed, counts = self._decide(row, stopping=stopping)
            mine += counts
            if changed is not None:
                rows[queue] = await self._replace(changed, stored[queue])
        if not stopping:
            await self._balance(rows, stored, mine)

    def _decide(self, row: LeaseRow, *, stopping: bool) -> tuple[LeaseRow | None, int]:
        me, now = self._context.me, self._context.environment.clock.now()
        if row.owner == me and (stopping or row.next_owner is not None):
            self._soon = True
            return self._drain(row), 0
        if stopping:
            return None, 0
        free = row.owner is None and row.next_owner in (None, me)
        if free or (row.expires_at is not None and now >= row.expires_at) or row.owner == me:
            since = row.owned_since if row.owner == me else now
            return LeaseRow(row.queue, me, None, since, now, now + _LEASE, False, row.etag), 1
        if row.next_owner is None and row.draining:
            self._soon = True
            return replace(row, next_owner=me), 0
        if row.next_owner == me:
            self._soon = True
            return None, 1
        self._others.setdefault(row.next_owner or row.owner or "", []).append(row)
        return None, 0

    def _drain(self, row: LeaseRow) -> LeaseRow:
        now = self._context.environment.clock.now()
        drain = self._drains.get(row.queue)
        if drain is None and row.queue in self._held:
            partition = self._held[row.queue]
            partition.close()
            drain = self._drains[row.queue] = self._tasks.create_task(self._context.listener.drain(partition))
        if drain is None or drain.done():
            return replace(row, owner=None, draining=False)
        return replace(row, draining=True, last_renewal=now, expires_at=now + _LEASE)

    async def _balance(self, rows: dict[str, LeaseRow], stored: dict[str, Row], mine: int) -> None:
        if not self._others:
            return
        average = len(rows) // (len(self._others) + 1)
        for owned in self._others.values():
            want = average - mine
            if want < 0:
                return
            excess = len(owned) - average
            if excess <= 0:
                continue
            if want == 0 and excess > 1:
                want = 1
            for row in owned[: min(want, excess)]:
                mine += 1
                await self._replace(replace(row, next_owner=self._context.me), stored[row.queue])
                self._soon = True

    async def _replace(self, row: LeaseRow, stored: Row) -> LeaseRow:
        etag = await self._table.write(TableOperation(TableAction.REPLACE, to_values(row, stored), row.etag))
        if row.owner != self._context.me:
            self._drop(row.queue)
        elif row.queue not in self._held:
            partition = self._held[row.queue] = OwnedPartition(row.queue, self._context.environment.clock)
            partition.extend(math.inf)
            self._context.listener.begin(partition)
        return replace(row, etag=etag)

    def _drop(self, queue: str) -> None:
        partition = self._held.pop(queue, None)
        self._drains.pop(queue, None)
        if partition is not None:
            partition.close()
            self._context.listener.end(partition)
