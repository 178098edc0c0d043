"""The table partition manager: ownership as rows of the Partitions table.

A pass reads all rows and does what `partition_plan` decides. Between two passes the rows of this host are renewed, all
of them in one entity group, when half of their lease is gone, by the ETags that were last seen: no read is needed as
long as nobody else writes to them, and who does wants something of us, so the next pass comes at once.

What may go wrong, and what then:

-   A write fails or its answer is lost: the next pass reads again, soon. A claim that went through unnoticed is found
    as a row of ours that we do not hold. Ownership is counted only from writes whose answer was heard, and from the
    moment before they were sent.
-   The store is out of reach: fetching ends by itself, some seconds before others may claim. Rows that still name this
    host when the store answers again were never another's, so their partitions just go on.
-   This host's clock is off: others may take its rows early, or late, by as much; up to the allowed skew nobody fetches
    what another may.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from datetime import timedelta

from durable_host.errors import StoreError
from durable_host_providers.azure_storage.partition_plan import LeaseRow, Plan, View, Write, plan_pass, renewals
from durable_host_providers.azure_storage.partition_rows import from_row, time_of, to_values
from durable_host_providers.azure_storage.partitions import (
    Holdings,
    OwnedPartition,
    PartitionContext,
)
from durable_host_providers.azure_storage.ports import (
    NotFoundError,
    PreconditionFailedError,
    Row,
    Table,
    TableAction,
    TableOperation,
)
from durable_host_providers.azure_storage.together import together

__all__ = ["TablePartitionManager"]

logger = logging.getLogger(__name__)

_WAITING_S = 1.0
"""Between two passes while somebody waits for a release."""

_MOMENT_S = 0.01
"""After the end of a lease: a look that comes a moment early would find nothing."""

_FIRST_PAUSE_S = 0.05
_LONGEST_PAUSE_S = 2.0
_PATIENCE_S = 0.5
"""How long a pass waits for drains, so that most need no pass of their own."""


class TablePartitionManager:
    """One run of the table manager; see `PartitionManager`. `table`: the Partitions table."""

    def __init__(self, context: PartitionContext, table: Table) -> None:
        self._context = context
        self._table = table
        self._clock = context.environment.clock
        self._settings = context.settings
        self._prefix = context.queues[0][:-2]
        self._holdings: Holdings | None = None
        self._stored: dict[str, Row] = {}
        self._created: set[str] = set()
        self._wake = asyncio.Event()
        self._next_pass = 0.0
        self._failures = 0
        self._is_off = False
        self.others = False

    @property
    def owned(self) -> Sequence[OwnedPartition]:
        return self._holdings.partitions if self._holdings is not None else ()

    async def run(self, stop: asyncio.Event) -> None:
        """See `PartitionManager`."""
        async with asyncio.TaskGroup() as tasks:
            holdings = self._holdings = Holdings(self._context, tasks, self._wake.set)
            watch = tasks.create_task(self._wake_at(stop), name="partition stop")
            try:
                await self._share(holdings, stop)
            finally:
                watch.cancel()
                holdings.end_all()

    async def _wake_at(self, stop: asyncio.Event) -> None:
        await stop.wait()
        self._wake.set()

    async def _share(self, holdings: Holdings, stop: asyncio.Event) -> None:
        while not stop.is_set():
            pause = await self._turn(holdings, stopping=False)
            await self._sleep(pause)
        give_up: float | None = None
        while True:
            pause = await self._turn(holdings, stopping=True)
            now = self._clock.monotonic()
            if not self._failures and not holdings:
                if self.others:
                    # Of two that stop at once each saw the other; the one that released last sees nobody now.
                    await self._turn(holdings, stopping=True)
                return
            if not self._failures or give_up is None:
                give_up = now + self._settings.stop_limit.total_seconds()
            elif now >= give_up:
                logger.warning(
                    "partitions could not be released; others take them over when their leases end",
                    extra={"event": "partitions_not_released", "queues": list(holdings.queues)},
                )
                return
            await self._sleep(pause)

    async def _sleep(self, pause: float) -> None:
        try:
            async with asyncio.timeout(pause):
                await self._wake.wait()
            self._next_pass = 0.0  # a drain has ended, or the host stops
        except TimeoutError:
            pass
        self._wake.clear()

    async def _turn(self, holdings: Holdings, *, stopping: bool) -> float:
        """A pass, or a renewal between two; how long to pause."""
        if not stopping and self._clock.monotonic() >= self._context.fence():
            return _WAITING_S  # what is ours may become another app's when its leases end
        renewal = not stopping and self._clock.monotonic() < self._next_pass
        try:
            async with asyncio.timeout(self._settings.time_limit.total_seconds()):
                if renewal:
                    await self._renew(holdings)
                else:
                    await self._pass(holdings, stopping=stopping)
        except (PreconditionFailedError, NotFoundError):
            return self._failed(None)
        except (StoreError, TimeoutError) as error:
            return self._failed(error)
        except Exception as error:
            # Whatever it is, a host that no longer renews is worse: its partitions would come and go.
            logger.exception("partition pass failed", extra={"event": "partition_pass_failed"})
            return self._failed(error)
        self._failures = 0
        now = self._clock.monotonic()
        return max(min(self._next_pass, self._renewal_due(holdings)) - now, _MOMENT_S)

    def _failed(self, error: Exception | None) -> float:
        """Look again soon; somebody was faster (None), or the store is in trouble."""
        self._next_pass = 0.0
        self._failures += 1
        if error is not None and self._failures == 3:
            logger.warning(
                "partitions cannot be looked after: %s",
                error or type(error).__name__,
                extra={"event": "partition_trouble", "failures": self._failures},
            )
        pause = min(_FIRST_PAUSE_S * 2.0 ** min(self._failures - 1, 10), _LONGEST_PAUSE_S)
        return pause * (0.5 + self._context.environment.ids.uniform())

    # The two kinds of turns.

    async def _pass(self, holdings: Holdings, *, stopping: bool) -> None:
        rows = await self._read()
        plan = plan_pass(rows, self._view(holdings, stopping=stopping))
        for queue in plan.lost:
            holdings.end(queue)
        if any(not holdings.is_draining(queue) for queue in plan.drain):
            for queue in plan.drain:
                holdings.drain(queue)
            await holdings.settle(_PATIENCE_S)
        asked_at = self._clock.monotonic()
        view = self._view(holdings, stopping=stopping)
        plan = plan_pass(rows, view)
        self.others = plan.others
        await self._write(holdings, plan.own, asked_at)
        await together(self._create(write.row.queue) for write in plan.wanted if write.owned)
        await self._write(holdings, plan.wanted, asked_at)
        self._next_pass = asked_at + self._pause(plan, view)

    async def _renew(self, holdings: Holdings) -> None:
        asked_at = self._clock.monotonic()
        rows = [from_row(row) for row in self._stored.values()]
        await self._write(holdings, renewals(rows, self._view(holdings, stopping=False)), asked_at)

    # What they need.

    def _view(self, holdings: Holdings, *, stopping: bool) -> View:
        return View(
            me=self._context.me,
            now=self._clock.now(),
            lease=self._settings.lease,
            renew=self._clock.monotonic() >= self._renewal_due(holdings),
            held=holdings.queues,
            drained=holdings.drained,
            stopping=stopping,
        )

    def _renewal_due(self, holdings: Holdings) -> float:
        """When half of the oldest lease is gone, in monotonic seconds."""
        oldest = min((each.until for each in holdings.partitions), default=None)
        if oldest is None:
            return float("inf")
        return oldest + (self._settings.margin - self._settings.lease / 2).total_seconds()

    def _pause(self, plan: Plan, view: View) -> float:
        pause = _WAITING_S if plan.waiting else self._settings.acquire.total_seconds()
        if plan.next_end is not None:
            left = (plan.next_end - view.now) / timedelta(seconds=1) + _MOMENT_S
            pause = min(pause, max(left, _MOMENT_S))
        return pause

    async def _read(self) -> list[LeaseRow]:
        stored: dict[str, Row] = {}
        continuation: str | None = None
        while True:
            try:
                page = await self._table.query(continuation=continuation)
            except NotFoundError:
                stored.clear()  # the hub was deleted: nothing is ours any more
                break
            for row in page.rows:
                queue = row.values["RowKey"]
                # Also of a partition that is not ours to know: whoever added its row needs readers for it.
                if isinstance(queue, str) and queue[:-2] == self._prefix and queue[-2:].isdecimal():
                    stored[queue] = row
            continuation = page.continuation
            if continuation is None:
                break
        self._compare_clocks(stored)
        self._stored = stored
        return [from_row(row) for row in stored.values()]

    def _compare_clocks(self, read: dict[str, Row]) -> None:
        """What we wrote last has our time in it, and the service's."""
        for queue, row in read.items():
            written = self._stored.get(queue)
            if written is None or written.etag != row.etag or "Timestamp" in written.values:
                continue
            ours, theirs = from_row(row).last_renewal, time_of(row, "Timestamp")
            if from_row(row).owner != self._context.me or ours is None or theirs is None:
                continue
            is_off = abs(ours - theirs) > self._settings.skew
            if is_off and not self._is_off:
                logger.warning(
                    "this machine's clock is off by %.0f s from that of the storage service; hosts whose clocks differ "
                    "by more than %.0f s take partitions from each other. Synchronise the clock",
                    (ours - theirs).total_seconds(),
                    self._settings.skew.total_seconds(),
                    extra={"event": "clock_off", "seconds": (ours - theirs).total_seconds()},
                )
            self._is_off = is_off
            return

    async def _write(self, holdings: Holdings, writes: Sequence[Write], asked_at: float) -> None:
        """Replace rows, all or none, and own what is owned from here on."""
        if not writes:
            return
        operations = [
            TableOperation(TableAction.REPLACE, to_values(write.row, self._stored.get(write.row.queue)), write.row.etag)
            for write in writes
        ]
        if len(operations) == 1:
            etags: Sequence[str] = (await self._table.write(operations[0]),)
        else:
            etags = await self._table.transact(operations)
        until = asked_at + (self._settings.lease - self._settings.margin).total_seconds()
        for write, operation, etag in zip(writes, operations, etags, strict=True):
            self._stored[write.row.queue] = Row(dict(operation.values), etag)
            self._noted(holdings, write, until)

    def _noted(self, holdings: Holdings, write: Write, until: float) -> None:
        queue = write.row.queue
        if not write.owned:
            holdings.end(queue)
            return
        holdings.take(queue, until)
        if queue in holdings.drained and write.row.next_owner is None and not write.row.draining:
            holdings.resume(queue, until)  # whoever wanted it has withdrawn

    async def _create(self, queue: str) -> None:
        """The queue that is about to be claimed exists, or did once in this process's life."""
        if queue not in self._created:
            await self._context.account.queue(queue).create()
            self._created.add(queue)
