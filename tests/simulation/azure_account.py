"""An idealised storage account: queues with pop receipts, history tables with a sentinel, a table of instances.

It survives every crash. All workers of a simulation share one account and reach it through `Ports` of their own: each
primitive effect is one awaitable with a fault point before and after it, and whatever happens between two of them may
be the death of the process. Times are those of the service, hence of the virtual loop, never a worker's clock.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Generic, TypeVar
from zlib import crc32

from msgspec.structs import replace

from durable_host.errors import StoreUnavailableError
from durable_host.model.history import HistoryEvent
from durable_host.model.ids import InstanceId, MessageId
from durable_host.model.instance import HistoryVersion, InstanceState
from durable_host.model.messages import ActivityTask, Message
from durable_host.testing.faults import FaultKind, FaultPlan, WorkerCrashedError

__all__ = [
    "PORT_POINTS",
    "Account",
    "ConflictError",
    "Got",
    "HistoryTable",
    "Owner",
    "Ports",
    "Queue",
    "Row",
    "partition_of",
]

PARTITIONS = 3
"""Control queues."""

MAX_DELAY = 6 * 86_400.0
"""What a queue takes as a delay, in seconds."""

T = TypeVar("T")

_EFFECTS = (
    "control.get",
    "control.put",
    "control.update",
    "control.delete",
    "work.get",
    "work.put",
    "work.update",
    "work.delete",
    "history.read",
    "history.batch",
    "row.read",
    "row.write",
)
PORT_POINTS: tuple[str, ...] = tuple(f"{name}:{side}" for name in _EFFECTS for side in ("before", "after"))
"""Every fault point of the account."""


class ConflictError(Exception):
    """412, 409 or a pop receipt that is no longer valid."""


@dataclass(slots=True)
class _Queued(Generic[T]):
    body: T
    visible_at: float
    receipt: int = 0
    dequeues: int = 0


@dataclass(frozen=True, slots=True)
class Got(Generic[T]):
    """A message as a `get` returned it; valid until somebody else gets or changes it."""

    queue: Queue[T]
    key: int
    receipt: int
    body: T
    dequeues: int


class Queue(Generic[T]):
    """A storage queue: at least once, any order."""

    def __init__(self, account: Account) -> None:
        self._account = account
        self._messages: dict[int, _Queued[T]] = {}

    def __len__(self) -> int:
        return len(self._messages)

    def bodies(self) -> list[T]:
        return [each.body for each in self._messages.values()]

    def put(self, body: T, delay: float) -> Got[T]:
        key = self._account.number()
        message = _Queued(body, self._account.now() + min(delay, MAX_DELAY), self._account.number())
        self._messages[key] = message
        self._account.notify()
        return Got(self, key, message.receipt, body, 0)

    def get(self, limit: int, visibility: float, random: Random) -> list[Got[T]]:
        now = self._account.now()
        visible = [key for key, each in self._messages.items() if each.visible_at <= now]
        random.shuffle(visible)
        found: list[Got[T]] = []
        for key in visible[:limit]:
            message = self._messages[key]
            message.visible_at = now + visibility
            message.receipt = self._account.number()
            message.dequeues += 1
            found.append(Got(self, key, message.receipt, message.body, message.dequeues))
        return found

    def update(self, got: Got[T], visibility: float) -> Got[T]:
        message = self._require(got)
        message.visible_at = self._account.now() + min(visibility, MAX_DELAY)
        message.receipt = self._account.number()
        self._account.notify()
        return Got(self, got.key, message.receipt, got.body, got.dequeues)

    def delete(self, got: Got[T]) -> None:
        self._require(got)
        del self._messages[got.key]

    def next_visible(self) -> float | None:
        """When the next message becomes visible, in the account's time."""
        return min((each.visible_at for each in self._messages.values()), default=None)

    def _require(self, got: Got[T]) -> _Queued[T]:
        message = self._messages.get(got.key)
        if message is None or message.receipt != got.receipt:
            raise ConflictError
        return message


@dataclass(slots=True)
class HistoryTable:
    """Rows of one instance and the sentinel, whose ETag is the lock of it all."""

    rows: dict[int, HistoryEvent] = field(default_factory=dict[int, HistoryEvent])
    etag: int = 0
    generation: int = 0
    length: int = 0
    complete: bool = True

    def events(self) -> list[HistoryEvent]:
        return [self.rows[index] for index in range(self.length)]


@dataclass(frozen=True, slots=True)
class Row:
    """A row of the Instances table."""

    state: InstanceState
    etag: int


@dataclass(slots=True)
class Owner:
    """Who listens to a partition; `until` is set when that process has died."""

    worker: int
    until: float = float("inf")


class Account:
    """Everything that is stored."""

    def __init__(self, random: Random) -> None:
        self.random = random
        self.control: list[Queue[Message]] = [Queue(self) for _ in range(PARTITIONS)]
        self.work: Queue[ActivityTask] = Queue(self)
        self.history: dict[InstanceId, HistoryTable] = {}
        self.instances: dict[InstanceId, Row] = {}
        self.owners: dict[int, Owner] = {}
        self.created: set[MessageId] = set()
        self._counter = 0
        self._waiting: dict[asyncio.Future[None], None] = {}  # in order: a set's order is nobody's seed

    def now(self) -> float:
        return asyncio.get_running_loop().time()

    def number(self) -> int:
        self._counter += 1
        return self._counter

    def notify(self) -> None:
        waiting, self._waiting = self._waiting, {}
        for future in waiting:
            if not future.done():
                future.set_result(None)

    async def changed(self, timeout: float) -> None:
        """Return when something has changed, at the latest after `timeout` seconds.

        Stands for polling with back-off, without its price in virtual polls.
        """
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting[future] = None
        try:
            async with asyncio.timeout(timeout):
                await future
        except TimeoutError:
            pass
        finally:
            self._waiting.pop(future, None)


class Ports:
    """One process's way to the account.

    Every method is one primitive effect: it may fail or crash before, and after, what it does.

    Args:
        crash: ends the process; None: a client, whose crashes are errors.
    """

    def __init__(self, account: Account, plan: FaultPlan, crash: Callable[[], None] | None, random: Random) -> None:
        self.account = account
        self.crashed = False
        self._plan = plan
        self._crash = crash
        self._random = random

    # Queues.

    async def get_control(self, partition: int, limit: int, visibility: float) -> list[Got[Message]]:
        await self._before("control.get")
        found = self.account.control[partition].get(limit, visibility, self._random)
        # Got and not heard of: invisible until its time is over, as after a response that was lost.
        await self._after("control.get", found)
        return found

    async def put_control(self, message: Message, delay: float) -> Got[Message]:
        await self._before("control.put")
        got = self.account.control[partition_of(message.target)].put(message, delay)
        await self._after("control.put")
        return got

    async def update_control(self, got: Got[Message], visibility: float) -> Got[Message]:
        """Raises ConflictError when somebody else has got it meanwhile."""
        await self._before("control.update")
        new = got.queue.update(got, visibility)
        await self._after("control.update")
        return new

    async def update_work(self, got: Got[ActivityTask], visibility: float) -> Got[ActivityTask]:
        """Raises ConflictError when somebody else has got it meanwhile."""
        await self._before("work.update")
        new = got.queue.update(got, visibility)
        await self._after("work.update")
        return new

    async def delete_control(self, got: Got[Message]) -> None:
        await self._before("control.delete")
        with contextlib.suppress(ConflictError):
            got.queue.delete(got)
        await self._after("control.delete")

    async def get_work(self, limit: int, visibility: float) -> list[Got[ActivityTask]]:
        await self._before("work.get")
        found = self.account.work.get(limit, visibility, self._random)
        await self._after("work.get", found)
        return found

    async def put_work(self, task: ActivityTask, delay: float) -> Got[ActivityTask]:
        await self._before("work.put")
        got = self.account.work.put(task, delay)
        await self._after("work.put")
        return got

    async def delete_work(self, got: Got[ActivityTask]) -> bool:
        """False: somebody else has got it meanwhile."""
        await self._before("work.delete")
        try:
            got.queue.delete(got)
            deleted = True
        except ConflictError:
            deleted = False
        await self._after("work.delete")
        return deleted

    # Tables.

    async def read_row(self, instance_id: InstanceId) -> Row | None:
        await self._before("row.read")
        row = self.account.instances.get(instance_id)
        await self._after("row.read")
        return row

    async def write_row(self, state: InstanceState, etag: int | None) -> int:
        """Insert (`etag` None) or replace if the row is still that one; the new ETag.

        Raises:
            ConflictError: it is not.
        """
        await self._before("row.write")
        row = self.account.instances.get(state.instance_id)
        if (row.etag if row is not None else None) != etag:
            raise ConflictError
        new = self.account.number()
        self.account.instances[state.instance_id] = Row(replace(state, revision=str(new)), new)
        self.account.notify()
        await self._after("row.write")
        return new

    async def read_history(self, instance_id: InstanceId) -> tuple[HistoryVersion | None, int, list[HistoryEvent]]:
        """Version, the sentinel's ETag (0: there is none) and the events."""
        await self._before("history.read")
        table = self.account.history.get(instance_id)
        read: tuple[HistoryVersion | None, int, list[HistoryEvent]] = (None, 0, [])
        if table is not None:
            read = (HistoryVersion(table.generation, table.length), table.etag, table.events())
        await self._after("history.read")
        return read

    async def write_history(
        self,
        instance_id: InstanceId,
        rows: Sequence[tuple[int, HistoryEvent]],
        *,
        etag: int,
        generation: int,
        length: int,
        complete: bool,
        fenced: bool = True,
    ) -> int:
        """One entity-group transaction: rows and the sentinel, if the sentinel is still that one; its new ETag.

        Raises:
            ConflictError: it is not.
        """
        await self._before("history.batch")
        table = self.account.history.get(instance_id)
        if fenced and (table.etag if table is not None else 0) != etag:
            raise ConflictError
        if table is None:
            table = self.account.history[instance_id] = HistoryTable()
        for index, event in rows:
            table.rows[index] = event
        table.etag = self.account.number()
        table.generation, table.length, table.complete = generation, length, complete
        new = table.etag
        await self._after("history.batch")
        return new

    # Inside.

    async def _before(self, name: str) -> None:
        if self.crashed:
            raise WorkerCrashedError
        await self._latency()
        await self._strike(f"{name}:before")

    async def _after(self, name: str, got: Sequence[object] = ("something",)) -> None:
        if got:
            await self._strike(f"{name}:after")
        await self._latency()

    async def _latency(self) -> None:
        # Most calls take no time, so that the loop's shuffling decides; a few are slow, so that time overlaps.
        await asyncio.sleep(self._random.random() * 0.2 if self._random.random() < 0.1 else 0)

    async def _strike(self, point: str) -> None:
        kind = self._plan.strike(point, crashes=self._crash is not None)
        if kind is FaultKind.ERROR:
            raise StoreUnavailableError(f"injected at {point}")
        if kind is FaultKind.CRASH:
            assert self._crash is not None
            self.crashed = True
            self._crash()
            await asyncio.get_running_loop().create_future()


def partition_of(instance_id: InstanceId) -> int:
    """The control queue of an instance."""
    return crc32(instance_id.encode("utf-8", "surrogatepass")) % PARTITIONS
