"""Which control queues this host may read: what every partition manager keeps to, and what it asks of the store.

A partition is a control queue. One of three managers shares them out among the hosts of a hub: `table_partitions` (the
default), `blob_partitions` with its two forms, safe and legacy. They do not see each other; all hosts of a hub use the
same one, those of .NET included. Above them `app_lease` sees to it that only one app processes a hub.

What the store implements is `PartitionListener`, what it is handed are `OwnedPartition`s:

    begin(p)         fetch from p.queue, as long as `p.may_fetch` says so at every single fetch
    await drain(p)   no more fetching: end what was begun, hand back what was not (visibility 0), then return
    end(p)           forget p: it is another's now, or nobody's; exactly one `end` follows every `begin`

`drain` comes when another host wants the partition or this one stops; `end` follows. Without `drain`, `end` means that
the partition was lost: what is still held of it may be processed by others already, and only the fences of the store
protect what is committed from now on.

`may_fetch` turns False by itself, without a call, when the lease was not renewed in time: some seconds before others
may take it, as many as clocks may differ. It turns True again when a renewal succeeds that found nobody else's claim.
What is held in memory is kept until then, so that a store that is out of reach for a minute costs a lone host nothing.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from enum import Enum
from typing import Protocol

import msgspec

from durable_host.environment import Clock, Environment
from durable_host_providers.azure_storage.ports import StorageAccount

__all__ = [
    "Holdings",
    "ManagerKind",
    "OwnedPartition",
    "PartitionContext",
    "PartitionListener",
    "PartitionManager",
    "PartitionSettings",
    "never",
]

logger = logging.getLogger(__name__)

_LOOK_AGAIN_S = 1.0


def never() -> float:
    return math.inf


class ManagerKind(Enum):
    """How hosts share partitions."""

    TABLE = "table"
    SAFE = "safe"
    LEGACY = "legacy"

    @classmethod
    def chosen(cls, *, use_table: bool, use_legacy: bool) -> ManagerKind:
        """By `useTablePartitionManagement` and `useLegacyPartitionManagement`; where both are set, legacy it is.

        Source: azure-storage-task-hub.md 1.6; the reference turns table management off then, with a warning.
        """
        if use_legacy:
            return cls.LEGACY
        return cls.TABLE if use_table else cls.SAFE


class PartitionSettings(msgspec.Struct, frozen=True):
    """Times of partition management.

    Attributes:
        lease: how long a host owns a partition without renewing it; it renews when half of that is gone.
        acquire: how often a host looks what others have.
        time_limit: of one look with what follows from it.
        drain_limit: after that long what a drained partition still holds is left to itself.
        stop_limit: how long a host that stops tries to reach the store to release what it has.
        skew: how far the clocks of two hosts may differ.
    """

    lease: timedelta = timedelta(seconds=30)
    acquire: timedelta = timedelta(seconds=10)
    time_limit: timedelta = timedelta(seconds=2)
    drain_limit: timedelta = timedelta(seconds=60)
    stop_limit: timedelta = timedelta(seconds=10)
    skew: timedelta = timedelta(seconds=10)

    @property
    def margin(self) -> timedelta:
        """How long before the end of a lease that was not renewed fetching ends."""
        return min(self.skew, self.lease / 3)


class OwnedPartition:
    """A partition between its `begin` and its `end`. Taken again after that it is another object.

    Attributes:
        queue: name of the control queue.
    """

    def __init__(self, queue: str, clock: Clock, fence: Callable[[], float] = never) -> None:
        self.queue = queue
        self._clock = clock
        self._fence = fence
        self._until = -math.inf
        self._closed = False
        self._changed = asyncio.Event()

    def __repr__(self) -> str:
        return f"<OwnedPartition {self.queue!r} may_fetch={self.may_fetch}>"

    @property
    def index(self) -> int:
        """Number of the partition."""
        return int(self.queue[-2:])

    @property
    def may_fetch(self) -> bool:
        """Whether this host may take messages from the queue at this moment. Ask before every fetch."""
        return not self._closed and self._clock.monotonic() < min(self._until, self._fence())

    async def fetchable(self) -> bool:
        """Wait until `may_fetch`; False: it never will be again."""
        while not self.may_fetch:
            if self._closed:
                return False
            self._changed.clear()
            try:
                async with asyncio.timeout(_LOOK_AGAIN_S):  # the fence opens without a call
                    await self._changed.wait()
            except TimeoutError:
                continue
        return True

    # For managers.

    @property
    def until(self) -> float:
        """When fetching ends unless the lease is renewed, in the clock's monotonic seconds."""
        return self._until

    def extend(self, until: float) -> None:
        """The lease was renewed."""
        self._until = until
        self._changed.set()

    def close(self) -> None:
        """No more fetching, ever."""
        self._closed = True
        self._changed.set()


class PartitionListener(Protocol):
    """What the store does with partitions. `begin` and `end` only note things and start or end tasks."""

    def begin(self, partition: OwnedPartition) -> None:
        """Start fetching; the queue exists."""
        ...

    async def drain(self, partition: OwnedPartition) -> None:
        """End what was begun and hand back the rest; `may_fetch` is False already. May be cancelled: `end` follows."""
        ...

    def end(self, partition: OwnedPartition) -> None:
        """Forget the partition."""
        ...


@dataclass(frozen=True)
class PartitionContext:
    """What every manager is made of.

    Attributes:
        account: where the control queues are.
        queues: names of all control queues of the hub, by number.
        me: this process's worker id, unique among all that ever share the hub.
        fence: until when the app may process at all, in monotonic seconds.
    """

    account: StorageAccount
    queues: Sequence[str]
    me: str
    listener: PartitionListener
    environment: Environment
    settings: PartitionSettings = field(default_factory=PartitionSettings)
    fence: Callable[[], float] = never


class PartitionManager(Protocol):
    """One run of a partition manager. Each run is a new object, so that nothing of an earlier stop remains."""

    @property
    def owned(self) -> Sequence[OwnedPartition]:
        """What this host owns now, drained ones included."""
        ...

    @property
    def others(self) -> bool:
        """Whether other hosts owned partitions when last looked."""
        ...

    async def run(self, stop: asyncio.Event) -> None:
        """Take, renew and share partitions until `stop` is set; then drain and release everything, and return.

        Never raises because of the store: what fails is tried again, and what cannot be released ends by itself.
        Cancelled, it ends every partition at once and releases none.
        """
        ...


class Holdings:
    """The partitions that a manager holds, with their drains; calls the listener.

    Args:
        tasks: where drains run.
        wake: called when a drain has ended.
    """

    def __init__(self, context: PartitionContext, tasks: asyncio.TaskGroup, wake: Callable[[], None]) -> None:
        self._listener = context.listener
        self._clock = context.environment.clock
        self._fence = context.fence
        self._limit_s = context.settings.drain_limit.total_seconds()
        self._tasks = tasks
        self._wake = wake
        self._held: dict[str, OwnedPartition] = {}
        self._drains: dict[str, asyncio.Task[None]] = {}

    def __len__(self) -> int:
        return len(self._held)

    def __contains__(self, queue: str) -> bool:
        return queue in self._held

    @property
    def queues(self) -> tuple[str, ...]:
        """What is held, drained or not."""
        return tuple(self._held)

    @property
    def partitions(self) -> tuple[OwnedPartition, ...]:
        """What is held, drained or not."""
        return tuple(self._held.values())

    @property
    def drained(self) -> tuple[str, ...]:
        """What is held and has nothing left to end."""
        return tuple(queue for queue, task in self._drains.items() if task.done())

    def is_draining(self, queue: str) -> bool:
        """Whether its drain has begun; it may have ended."""
        return queue in self._drains

    def take(self, queue: str, until: float) -> None:
        """The lease of a partition is ours until then: begin, or go on."""
        partition = self._held.get(queue)
        if partition is None:
            partition = self._held[queue] = OwnedPartition(queue, self._clock, self._fence)
            partition.extend(until)
            logger.info("partition taken", extra={"event": "partition_taken", "queue": queue})
            self._listener.begin(partition)
        else:
            partition.extend(until)

    def drain(self, queue: str) -> None:
        """Begin to drain, once."""
        if queue in self._drains:
            return
        partition = self._held[queue]
        partition.close()
        logger.info("partition drains", extra={"event": "partition_drains", "queue": queue})
        self._drains[queue] = self._tasks.create_task(self._drain(partition), name=f"drain {queue}")

    def resume(self, queue: str, until: float) -> None:
        """Nobody wants it any more: take a drained or draining partition again."""
        self.end(queue)
        self.take(queue, until)

    async def settle(self, patience: float) -> None:
        """Wait a moment for drains; most have little to do."""
        running = [task for task in self._drains.values() if not task.done()]
        if running:
            await asyncio.wait(running, timeout=patience)

    def end(self, queue: str) -> None:
        """Forget a partition that was released or lost."""
        partition = self._held.pop(queue, None)
        if partition is None:
            return
        partition.close()
        drain = self._drains.pop(queue, None)
        lost = drain is None or not drain.done()
        if drain is not None:
            drain.cancel()
        logger.log(
            logging.WARNING if lost else logging.INFO,
            "partition lost" if lost else "partition released",
            extra={"event": "partition_lost" if lost else "partition_released", "queue": queue},
        )
        self._listener.end(partition)

    def end_all(self) -> None:
        """Forget everything."""
        for queue in self.queues:
            self.end(queue)

    async def _drain(self, partition: OwnedPartition) -> None:
        try:
            async with asyncio.timeout(self._limit_s):
                await self._listener.drain(partition)
        except TimeoutError:
            logger.warning(
                "partition was not drained in time; what it still holds is left to itself",
                extra={"event": "partition_drain_timeout", "queue": partition.queue, "limit_s": self._limit_s},
            )
        except Exception:
            # Another host waits for the partition; what could not be handed back becomes visible by itself.
            logger.exception("drain failed", extra={"event": "partition_drain_failed", "queue": partition.queue})
        self._wake()
