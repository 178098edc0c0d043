"""The blob partition managers: ownership as leases on blobs.

`SafePartitionManager` has two leases for each partition. Who holds the *intent* is to own the partition; intents are
balanced and stolen. Who holds the *ownership* may fetch; it is taken only by who holds the intent, never stolen, and
kept until the work under way has ended. A hand-over from A to B: B steals the intent; A hears it at its next renewal,
drains and releases the ownership; B finds it free.

`LegacyPartitionManager` has one lease that is stolen from who fetches. The one who lost it hears so at its next renewal
only; so here a thief waits for that long before it begins, and nobody fetches for longer after a renewal than thieves
wait. The reference does neither, and what it robs us of we may fetch from for some seconds more.

Leases run on the service's clock, so clocks that are off do no harm here. Every job (renewing and looking, for each
kind of lease) goes at a pace of its own, and one that fails is tried again soon.
"""

from __future__ import annotations

import asyncio
import logging
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Collection, Coroutine, Sequence
from datetime import timedelta

from durable_host.errors import StoreError
from durable_host_providers.azure_storage.blob_leases import BlobLease, BlobLeases, plan_takes
from durable_host_providers.azure_storage.partitions import Holdings, OwnedPartition, PartitionContext
from durable_host_providers.azure_storage.ports import Blobs
from durable_host_providers.azure_storage.together import together

__all__ = ["LegacyPartitionManager", "SafePartitionManager"]

logger = logging.getLogger(__name__)

_OWNERSHIP = timedelta(seconds=15)
_OWNERSHIP_LOOK_S = 5.0
_LATE_RENEWAL_S = 5.0
"""How much later than it should a renewal may come before a legacy host stops fetching."""

_FENCED_S = 1.0
_FIRST_PAUSE_S = 0.05
_LONGEST_PAUSE_S = 2.0

Job = Callable[[], Awaitable[None]]


class _BlobPartitionManager(ABC):
    """What both have: jobs that repeat, and an end in good order. `blobs`: the container of leases."""

    def __init__(self, context: PartitionContext, blobs: Blobs) -> None:
        self._context = context
        self._blobs = blobs
        self._settings = context.settings
        self._renew_s = context.settings.lease.total_seconds() / 3
        self._look_s = context.settings.acquire.total_seconds()
        self._created: set[str] = set()
        self._wake = asyncio.Event()
        self._stopping = False
        self._holdings: Holdings | None = None
        self._group: asyncio.TaskGroup | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self.others = False

    @property
    def held(self) -> Holdings:
        """What is held while the manager runs."""
        assert self._holdings is not None
        return self._holdings

    @property
    def owned(self) -> Sequence[OwnedPartition]:
        return self._holdings.partitions if self._holdings is not None else ()

    async def run(self, stop: asyncio.Event) -> None:
        """See `PartitionManager`."""
        async with asyncio.TaskGroup() as group:
            self._holdings = Holdings(self._context, group, self._wake.set)
            self._group = group
            for name, pause, job in self._jobs():
                self._start(self._repeat(pause, job), name)
            self._start(self._end_drained(), "end drained partitions")
            try:
                await stop.wait()
                self._stopping = True
                await self._drain_all()
                self._cancel()
                await self._release()
            finally:
                self._cancel()
                self.held.end_all()

    def _start(self, work: Coroutine[object, object, None], name: str) -> None:
        assert self._group is not None
        self._tasks = [task for task in self._tasks if not task.done()]
        self._tasks.append(self._group.create_task(work, name=name))

    def _cancel(self) -> None:
        for task in self._tasks:
            task.cancel()

    @abstractmethod
    def _jobs(self) -> Sequence[tuple[str, float, Job]]:
        """Names, seconds between two runs, and what to do."""

    @abstractmethod
    def _leases(self) -> Sequence[BlobLeases]:
        """All leases, in the order in which a host that stops gives them back."""

    def _may_release(self, queue: str) -> bool:
        """Whether others may fetch as soon as the lease is free."""
        return True

    @abstractmethod
    def _compare(self) -> None:
        """End and drain partitions whose leases are gone, go on with the others."""

    @abstractmethod
    async def _on_drained(self, queue: str) -> None:
        """A partition has nothing left to end."""

    # Repeating.

    async def _repeat(self, pause: float, job: Job) -> None:
        failures = 0
        clock = self._context.environment.clock
        while True:
            if clock.monotonic() >= self._context.fence() and not self._stopping:
                await asyncio.sleep(_FENCED_S)  # what is ours may become another app's when its leases end
                continue
            began = clock.monotonic()
            try:
                await job()
                failures = 0
            except (StoreError, TimeoutError) as error:
                failures += 1
                if failures == 3:
                    logger.warning(
                        "partitions cannot be looked after: %s",
                        error or type(error).__name__,
                        extra={"event": "partition_trouble", "failures": failures},
                    )
            except Exception:
                # Whatever it is, a host that no longer renews is worse: its partitions would come and go.
                logger.exception("partition job failed", extra={"event": "partition_job_failed"})
                failures += 1
            if failures:
                soon = min(_FIRST_PAUSE_S * 2.0 ** min(failures, 10), _LONGEST_PAUSE_S)
                await asyncio.sleep(soon * (0.5 + self._context.environment.ids.uniform()))
            else:
                await asyncio.sleep(max(pause - (clock.monotonic() - began), 0.0))

    async def _end_drained(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            for queue in self.held.drained:
                if self._stopping:
                    return  # all are released together
                try:
                    async with asyncio.timeout(self._settings.time_limit.total_seconds()):
                        await self._on_drained(queue)
                except (StoreError, TimeoutError):
                    continue  # the next renewal finds it drained

    # The end.

    async def _drain_all(self) -> None:
        """Until everything is drained; each drain has a time limit of its own."""
        while waiting := [queue for queue in self.held.queues if queue not in self.held.drained]:
            for queue in waiting:
                self.held.drain(queue)
            await self.held.settle(self._settings.drain_limit.total_seconds())

    async def _release(self) -> None:
        """Give back what is held, as far as the store answers; the rest ends by itself."""
        try:
            async with asyncio.timeout(self._settings.stop_limit.total_seconds()):
                for leases in self._leases():
                    await together([leases.release(queue) for queue in leases.held if self._may_release(queue)])
                for leases in self._leases():
                    self._note_others(await leases.list())
        except (StoreError, TimeoutError):
            logger.warning(
                "partitions could not be released; others take them over when their leases end",
                extra={"event": "partitions_not_released"},
            )

    # Leases.

    async def _renew(self, leases: BlobLeases) -> None:
        """Renew all that is held."""
        try:
            async with asyncio.timeout(self._settings.time_limit.total_seconds()):
                await together([leases.renew(queue) for queue in leases.held])
        finally:
            self._compare()
            if self.held.drained:
                self._wake.set()

    async def _look(
        self, leases: BlobLeases, *, steal: bool, among: Collection[str], taken: Callable[[BlobLease], None]
    ) -> None:
        """List, decide, take; calls `taken` for each that is ours now."""
        async with leases.looking, asyncio.timeout(self._look_s):
            listed = await leases.list()
            self._note_others(listed)
            within = [lease for lease in listed if lease.queue in among]
            for lease in plan_takes(within, self._context.me, leases.held, steal=steal):
                if self._stopping:
                    return
                await self._create(lease.queue)
                if await leases.acquire(lease):
                    taken(lease)

    def _note_others(self, leases: Sequence[BlobLease]) -> None:
        self.others = any(lease.leased and lease.owner not in {None, self._context.me} for lease in leases)

    async def _create(self, queue: str) -> None:
        """The queue that is about to be owned exists, or did once in this process's life."""
        if queue not in self._created:
            await self._context.account.queue(queue).create()
            self._created.add(queue)


class SafePartitionManager(_BlobPartitionManager):
    """One run of the safe manager; see `PartitionManager`."""

    def __init__(self, context: PartitionContext, blobs: Blobs) -> None:
        super().__init__(context, blobs)
        self._intents = BlobLeases(context, blobs, "intent", context.settings.lease)
        self._ownerships = BlobLeases(context, blobs, "ownership", _OWNERSHIP)

    def _jobs(self) -> Sequence[tuple[str, float, Job]]:
        return (
            ("renew intents", self._renew_s, self._renew_intents),
            ("look for intents", self._look_s, self._look_for_intents),
            ("renew ownerships", self._renew_s, self._renew_ownerships),
            ("look for ownerships", _OWNERSHIP_LOOK_S, self._look_for_ownerships),
        )

    def _leases(self) -> Sequence[BlobLeases]:
        return (self._ownerships, self._intents)

    async def _renew_intents(self) -> None:
        await self._renew(self._intents)

    async def _renew_ownerships(self) -> None:
        await self._renew(self._ownerships)

    async def _look_for_intents(self) -> None:
        taken: list[BlobLease] = []
        await self._look(self._intents, steal=True, among=self._context.queues, taken=taken.append)
        if taken:
            await self._look_for_ownerships()

    async def _look_for_ownerships(self) -> None:
        await self._look(self._ownerships, steal=False, among=self._intents.held, taken=self._owned)

    def _owned(self, lease: BlobLease) -> None:
        self.held.take(lease.queue, self._ownerships.until(lease.queue))

    def _compare(self) -> None:
        intents, ownerships = self._intents.held, self._ownerships.held
        for queue in self.held.queues:
            if queue not in ownerships:
                self.held.end(queue)
                continue
            self.held.take(queue, self._ownerships.until(queue))
            if queue not in intents:
                self.held.drain(queue)

    async def _on_drained(self, queue: str) -> None:
        if queue in self._intents.held and queue in self._ownerships.held:
            self.held.resume(queue, self._ownerships.until(queue))
            return
        await self._ownerships.release(queue)
        self.held.end(queue)


class LegacyPartitionManager(_BlobPartitionManager):
    """One run of the legacy manager; see `PartitionManager`."""

    def __init__(self, context: PartitionContext, blobs: Blobs) -> None:
        super().__init__(context, blobs)
        self._default = BlobLeases(context, blobs, "default", context.settings.lease)
        self._patience_s = self._renew_s + _LATE_RENEWAL_S
        self._stolen: dict[str, float] = {}
        """Leases of which the robbed one may not know yet, until when it may not."""

    def _jobs(self) -> Sequence[tuple[str, float, Job]]:
        return (
            ("renew leases", self._renew_s, self._renew_leases),
            ("look for leases", self._look_s, self._look_for_leases),
        )

    def _leases(self) -> Sequence[BlobLeases]:
        return (self._default,)

    async def _renew_leases(self) -> None:
        await self._renew(self._default)

    async def _look_for_leases(self) -> None:
        await self._look(self._default, steal=True, among=self._context.queues, taken=self._taken)

    def _taken(self, lease: BlobLease) -> None:
        if lease.is_free:
            self._begin(lease.queue)
        else:
            until = self._stolen[lease.queue] = self._context.environment.clock.monotonic() + self._patience_s
            self._start(self._begin_later(lease.queue, until), f"begin {lease.queue}")

    async def _begin_later(self, queue: str, until: float) -> None:
        await asyncio.sleep(self._patience_s)
        if self._stolen.get(queue) == until:
            del self._stolen[queue]
            self._begin(queue)

    def _may_release(self, queue: str) -> bool:
        # Who finds it free does not wait, and the robbed one may not know yet: this lease ends by itself.
        return queue not in self._stolen

    def _begin(self, queue: str) -> None:
        if queue in self._default.held and not self._stopping:
            self.held.take(queue, self._until(queue))

    def _until(self, queue: str) -> float:
        return min(self._default.until(queue), self._default.renewed_at(queue) + self._patience_s)

    def _compare(self) -> None:
        leases = self._default.held
        for queue in self.held.queues:
            if queue in leases:
                self.held.take(queue, self._until(queue))
            else:
                self.held.drain(queue)  # what is held here is handed back, although the lease is gone

    async def _on_drained(self, queue: str) -> None:
        if queue in self._default.held and queue not in self._stolen:
            self.held.resume(queue, self._until(queue))
        else:
            self.held.end(queue)
